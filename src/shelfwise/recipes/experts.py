"""Experts: what is learnt of one kind of vector, of photos or of texts: heads, look-alikes, a guess of the category.

An expert knows neither encoders nor the other experts. What several say is pooled by logarithms, as products of experts
are (Hinton 2002, "Training Products of Experts by Minimizing Contrastive Divergence").
Legend: n rows of one category, N rows, r components, C categories, V values packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from shelfwise.predictions import uniform
from shelfwise.recipes.space import Space
from shelfwise.recipes.votes import Votes
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
    """

    space: Space
    heads: Mapping[str, Head]
    guess: Head
    votes: Votes | None

    def components(self, vectors_ND: Floats, there_N: npt.NDArray[np.bool_]) -> Doubles:
        """Return float64 [N, r], zeros where there is no vector; nobody is to look at those."""
        reduced_Nr = np.zeros((len(vectors_ND), self.space.axes.shape[1]))
        reduced_Nr[there_N] = self.space.apply(vectors_ND[there_N])
        return reduced_Nr

    def log_categories(self, reduced_nr: Doubles) -> Doubles:
        """Return float64 [n, C], logarithms of the categories' probabilities."""
        weight_rC, bias_C = self.guess
        found: Doubles = log_softmax(reduced_nr @ weight_rC.astype(np.float64) + bias_C, axis=1)
        return np.maximum(found, np.log(SMALLEST))

    def opinions(self, taxonomy: Taxonomy, category: str, reduced_nr: Doubles) -> tuple[Floats, ...]:
        """Return float32 [n, V] each: what the heads say, and the look-alikes; nothing of an unknown category."""
        if category not in self.heads:
            return ()
        weight_rV, bias_V = self.heads[category]
        logits_nV = reduced_nr @ weight_rV.astype(np.float64) + bias_V
        heads_nV = np.empty(logits_nV.shape, np.float32)
        for part in parts_of(taxonomy, category):
            heads_nV[:, part] = softmax(logits_nV[:, part], axis=1)
        if self.votes is None:
            return (heads_nV,)
        return heads_nV, self.votes.vote(taxonomy, category, reduced_nr)

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
        return cls(
            Space(arrays["centre"], arrays["scale"], arrays["axes"], plain),
            heads,
            (arrays["category.weight"], arrays["category.bias"]),
            Votes.of(arrays, taxonomy, width) if width else None,
        )


def parts_of(taxonomy: Taxonomy, category: str) -> list[slice]:
    """Return where the values of each attribute of a category lie; those without values left out."""
    return [part for part in taxonomy.slices(category) if part.stop > part.start]


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
    out = []
    for opinions, there_n in said:
        for kind in range(kinds):
            full_nV = uniform(taxonomy, category, len(there_n))
            for others, at_n in said:
                if others:
                    full_nV[at_n] = others[kind]
            if opinions:
                full_nV[there_n] = opinions[kind]
            out.append(full_nV)
    return out


def pooled(taxonomy: Taxonomy, category: str, opinions: Sequence[Floats], kinds: int) -> Floats:
    """Return float32 [n, V], the logarithmic pool of opinions: the experts alike, each one's vote by ``VOTE``."""
    if len(opinions) == 1:
        return opinions[0]
    share = kinds / len(opinions)
    weights = (1.0,) if kinds == 1 else (1 - VOTE, VOTE)
    pool_nV = np.empty_like(opinions[0])
    for part in parts_of(taxonomy, category):
        logits_nv = sum(
            weights[at % kinds] * share * np.log(np.maximum(p_nV[:, part], SMALLEST).astype(np.float64))
            for at, p_nV in enumerate(opinions)
        )
        pool_nV[:, part] = softmax(logits_nv, axis=1)
    return pool_nV
