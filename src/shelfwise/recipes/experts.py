"""Experts: what is learnt of one kind of vector, of photos or of texts: heads, look-alikes, a guess of the category.

An expert knows neither encoders nor the other experts. What several say is pooled by logarithms, as products of experts
are (Hinton 2002, "Training Products of Experts by Minimizing Contrastive Divergence").
Legend: n rows of one category, N rows, r components, C categories, V values packed, X those and the shared ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from shelfwise.predictions import uniform
from shelfwise.recipes.rowwise import Rowwise
from shelfwise.recipes.shared import Commons, SharedHeads
from shelfwise.recipes.space import Space
from shelfwise.recipes.votes import Votes
from shelfwise.segments import segments
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Head = tuple[Floats, Floats]
#: Exponent of the look-alikes' vote in the pool that stands until a calibration finds each attribute's own.
VOTE = 0.37
#: Probabilities below this are taken for it.
SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Expert:
    """What one kind of vector tells.

    Attributes:
        space: from vectors to components.
        heads: category name to weights [r, V] and biases [V].
        guess: weights [r, C] and biases [C] of the category's discriminant analysis.
        votes: the training rows that vote, if any do.
        shared: the heads that categories share, if there are any.
    """

    space: Space
    heads: Mapping[str, Head]
    guess: Head
    votes: Votes | None
    shared: SharedHeads | None

    def components(self, vectors_ND: Floats, there_N: npt.NDArray[np.bool_]) -> Floats:
        """Return float32 [N, r], zeros where there is no vector; nobody is to look at those."""
        if there_N.all():
            return self.space.apply(vectors_ND)
        reduced_Nr = np.zeros((len(vectors_ND), self.space.axes.shape[1]), np.float32)
        reduced_Nr[there_N] = self.space.apply(vectors_ND[there_N])
        return reduced_Nr

    def log_categories(self, reduced_nr: Floats) -> Doubles:
        """Return float64 [n, C], logarithms of the categories' probabilities."""
        weight_rC, bias_C = self.guess
        logits_nC = reduced_nr.astype(np.float64) @ weight_rC.astype(np.float64) + bias_C
        found: Doubles = log_softmax(logits_nC, axis=1)
        return np.maximum(found, np.log(SMALLEST))

    def opinions(self, taxonomy: Taxonomy, category: str, reduced_nr: Floats) -> tuple[Floats, ...]:
        """Return float32 [n, V] each, what heads, look-alikes and shared heads say; nothing of an unknown category."""
        if category not in self.heads:
            return ()
        if category not in self._ready:
            self._ready[category] = self._both(category)
        weights, bias = self._ready[category]
        logits_nX, width = weights.product(reduced_nr).astype(np.float64), taxonomy.width(category)
        logits_nX += bias
        heads_nV = segments(taxonomy, category).softmax(logits_nX[:, :width]).astype(np.float32)
        found = [heads_nV]
        if self.votes is not None:
            found.append(self.votes.vote(taxonomy, category, reduced_nr))
        if self.shared is not None:
            found.append(self.shared.part(category).opinion(logits_nX[:, width:], heads_nV))
        return tuple(found)

    def _both(self, category: str) -> tuple[Rowwise, Floats]:
        """Return weights [r, X] and biases [X] of a category's own heads and its part of the shared ones."""
        weight_rX, bias_X = self.heads[category]
        if self.shared is not None:
            part = self.shared.part(category)
            weight_rX = np.concatenate([weight_rX, part.weight], axis=1)
            bias_X = np.concatenate([bias_X, part.bias])
        return Rowwise(weight_rX), bias_X

    @cached_property
    def _ready(self) -> dict[str, tuple[Rowwise, Floats]]:
        return {}

    @property
    def weights(self) -> tuple[float, ...]:
        """What each opinion counts until a calibration finds each attribute's own weights: the heads share theirs."""
        vote = VOTE if self.votes is not None else 0.0
        heads = 1 - vote if self.shared is None else (1 - vote) / 2
        return tuple(
            weight
            for weight, there in (
                (heads, True),
                (vote, self.votes is not None),
                (heads, self.shared is not None),
            )
            if there
        )

    def arrays(self, taxonomy: Taxonomy) -> dict[str, npt.NDArray[Any]]:
        """Return what is to be saved, by name."""
        found: dict[str, npt.NDArray[Any]] = {
            "centre": self.space.centre,
            "scale": self.space.scale,
            "axes": self.space.axes,
            "category.weight": self.guess[0],
            "category.bias": self.guess[1],
        }
        for name, (weight_rV, bias_V) in self.heads.items():
            code = taxonomy.category_codes[name]
            found[f"weight.{code}"], found[f"bias.{code}"] = weight_rV, bias_V
        if self.shared is not None:
            found["shared.weight"], found["shared.bias"] = self.shared.weight, self.shared.bias
        return found | (self.votes.arrays(taxonomy) if self.votes is not None else {})

    @classmethod
    def of(
        cls, arrays: Mapping[str, npt.NDArray[Any]], taxonomy: Taxonomy, width: float, *, plain: bool
    ) -> "Expert":
        """Read what ``arrays`` returned.

        Args:
            arrays: by name.
            taxonomy: the predictor's.
            width: of the vote's kernel, 0 for no vote.
            plain: as in ``Space``.
        """
        heads = {
            name: (arrays[f"weight.{code}"], arrays[f"bias.{code}"])
            for name, code in taxonomy.category_codes.items()
            if f"weight.{code}" in arrays
        }
        shared = None
        if "shared.weight" in arrays:
            shared = SharedHeads(Commons.of(taxonomy), arrays["shared.weight"], arrays["shared.bias"])
        return cls(
            Space(arrays["centre"], arrays["scale"], arrays["axes"], plain),
            heads,
            (arrays["category.weight"], arrays["category.bias"]),
            Votes.of(arrays, taxonomy, width) if width else None,
            shared,
        )


def filled(
    taxonomy: Taxonomy, category: str, said: Sequence[tuple[tuple[Floats, ...], npt.NDArray[np.bool_]]]
) -> list[Floats]:
    """Put the opinions of several experts side by side; one that is silent about a row leaves it to the others.

    The opinion of another expert of the same kind stands for a missing one, so that the weights that a calibration
    finds add up for a product with a photo and no text as for one with both. Where all are silent, every value is as
    likely.

    Args:
        taxonomy: the predictor's.
        category: of the rows.
        said: of each expert its opinions on the rows it knows, as many kinds of each that has any, and
            which rows [n] those are.
    """
    kinds = max((len(opinions) for opinions, _ in said), default=0)
    out: list[Floats] = []
    for opinions, there_n in said:
        if opinions and there_n.all():
            out += opinions
            continue
        for kind in range(kinds):
            full_nV = uniform(taxonomy, category, len(there_n))
            for others, at_n in said:
                if others:
                    full_nV[at_n] = others[kind]
            if opinions:
                full_nV[there_n] = opinions[kind]
            out.append(full_nV)
    return out


def pooled(taxonomy: Taxonomy, category: str, opinions: Sequence[Floats], weights: Sequence[float]) -> Floats:
    """Return float32 [n, V], the logarithmic pool of opinions.

    Args:
        taxonomy: the predictor's.
        category: of the rows.
        opinions: of all experts, one after the other, as many kinds of each.
        weights: of the kinds, with a sum of 1; experts count alike.
    """
    if len(opinions) == 1:
        return opinions[0]
    kinds, share = len(weights), len(weights) / len(opinions)
    logits_nV = np.zeros(opinions[0].shape)
    for at, p_nV in enumerate(opinions):
        logits_nV += weights[at % kinds] * share * np.log(np.maximum(p_nV, SMALLEST).astype(np.float64))
    return segments(taxonomy, category).softmax(logits_nV).astype(np.float32)
