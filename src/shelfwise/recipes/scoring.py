"""Scoring: how good a network under training is on products that it does not learn from.

It does not know what is done with a score. Of a Choice attribute it is the recipe's metric; of a Number the negative
SMAPE of the median, as a share of 1, so that more is better of both.
Legend: N products, B of one batch, A attributes, K Numbers, V values packed.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from shelfwise import metrics
from shelfwise.data.batches import Products
from shelfwise.taxonomy import Taxonomy
from shelfwise.train.anatomy import Pair

if TYPE_CHECKING:
    from shelfwise.recipes.finetune import FineTune

#: Products scored at once.
SCORED = 64


@dataclass(frozen=True, eq=False)
class Scoring:
    """Scores by (category, attribute).

    Attributes:
        recipe: its metric.
        taxonomy: whose attributes are scored.
        products: that the network does not learn from.
    """

    recipe: "FineTune"
    taxonomy: Taxonomy
    products: Products

    def __call__(self, network: nn.Module) -> dict[Pair, float]:
        """Return the scores of a network in evaluation."""
        products = self.products
        answers_NA = np.full_like(products.labels, -1)
        location_NK = None if products.numbers is None else np.full_like(products.numbers, np.nan)
        device = next(network.parameters()).device
        with torch.inference_mode():
            for start in range(0, len(products), SCORED):
                rows = np.arange(start, min(start + SCORED, len(products)))
                images, beside = products.take(rows)
                category_B = torch.from_numpy(products.category[rows]).to(device)
                given = (images.to(device), category_B) + (() if beside is None else (beside.to(device),))
                for category, at, logits_nV in network(*given):
                    for attribute, part in enumerate(self.taxonomy.slices(category)):
                        best = logits_nV[:, part].argmax(dim=1).cpu().numpy()
                        answers_NA[rows[at.cpu().numpy()], attribute] = best
                if location_NK is not None:
                    said_BK2: Any = network.said
                    location_NK[rows] = said_BK2[..., 0].cpu().numpy()
        scores: dict[Pair, float] = {}
        for code, category in enumerate(self.taxonomy.categories):
            rows = np.flatnonzero(products.category == code)
            for attribute, choice in enumerate(self.taxonomy.choices(category)):
                truth, answer = products.labels[rows, attribute], answers_NA[rows, attribute]
                score = metrics.score(self.recipe.metric, truth, answer, len(choice.values))
                scores[category, choice.name] = score
        if products.numbers is not None and location_NK is not None:
            for at, name in enumerate(self.taxonomy.number_names):
                number = self.taxonomy.number(name)
                for code, category in enumerate(self.taxonomy.categories):
                    rows = np.flatnonzero((products.category == code) & np.isfinite(products.numbers[:, at]))
                    if number in self.taxonomy.numbers(category):
                        truth, answer = (
                            number.inverse(of[rows, at]) for of in (products.numbers, location_NK)
                        )
                        scores[category, name] = -metrics.smape(truth, answer) / 100 if len(rows) else np.nan
        return scores
