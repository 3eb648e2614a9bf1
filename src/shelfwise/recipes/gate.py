"""Gate: weights of the members that differ from product to product.

It does not know how the members were made. A mixture of experts (Jacobs et al., "Adaptive Mixtures of Local
Experts", 1991) whose experts are given: only the gate is learnt, out of fold. It starts from fixed weights per
attribute and moves away from them by how sure a member is, how far it is from the others, and how near the product
is to the training data; those few slopes are shared by all attributes: one attribute has too few labels for its own.
Legend: n rows of one category, m labelled rows of a pair, J members, F facts, V values packed, v of one attribute.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from shelfwise.catalog import Catalog
from shelfwise.predictions import Floats
from shelfwise.recipes.blend import labelled
from shelfwise.recipes.sides import Side, Sides
from shelfwise.recipes.simplex import Weights
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.taxonomy import Taxonomy

Float = npt.NDArray[np.float64]
#: What is known of a member's word on one product: its confidence, how undecided it is, its distance from the
#: others, and the product's p-value of being like the training products, for each member its own slope.
FACTS = 4
#: Strength of the ridge on the slopes; an attribute counts for no more than this many labels.
RIDGE, MOST_LABELS = 10.0, 2000
SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class Gate:
    """Weights of the members, product by product.

    Attributes:
        taxonomy: of the members.
        weights: the fixed weights it starts from.
        slopes: float64 [J, F].
    """

    taxonomy: Taxonomy
    weights: Weights
    slopes: Float

    @classmethod
    def learn(cls, sides: Sides, catalog: Catalog, weights: Weights, near_N: Floats) -> "Gate":
        """Learn from members' predictions out of fold.

        Args:
            sides: what the members say, each row by models that have not seen its group.
            catalog: the same rows with their stated values.
            weights: fixed ones, found on the same rows.
            near_N: float32 [N], the rows' p-values of being like the training products; NaN where unknown.
        """
        parts = []
        for name, probs_Jmv, labels_m, rows_m in labelled(sides, catalog):
            if probs_Jmv.shape[2] > 1 and len(labels_m):
                facts_JmF = facts_of(probs_Jmv, near_N[rows_m])
                chance_Jm = probs_Jmv[:, np.arange(len(labels_m)), labels_m].astype(np.float64)
                start_J = np.log(np.maximum(weights.of(*name), 1e-3))
                share = min(1.0, MOST_LABELS / len(labels_m))
                parts.append((facts_JmF, np.maximum(chance_Jm, 1e-6), start_J, share))
        return cls(catalog.taxonomy, weights, _fitted(parts, weights.members))

    def combine(self, side: Side, near_n: Floats | None = None) -> Floats:
        """Return float32 [n, V].

        Args:
            side: what the members say.
            near_n: float32 [n], as ``near_N`` of ``learn``.
        """
        members = side.filled(self.taxonomy)
        near_n = np.full(len(side.rows), np.nan, np.float32) if near_n is None else near_n
        out_nV = np.zeros_like(members[0])
        slices = self.taxonomy.slices(side.category)
        for choice, part in zip(self.taxonomy.choices(side.category), slices, strict=True):
            if part.stop > part.start:
                probs_Jnv = np.stack([p[:, part] for p in members])
                start_J = np.log(np.maximum(self.weights.of(side.category, choice.name), 1e-3))
                gate_Jn = _opened(facts_of(probs_Jnv, near_n), start_J, self.slopes)
                out_nV[:, part] = (gate_Jn[:, :, None] * probs_Jnv).sum(axis=0)
        return out_nV

    def save(self, directory: Path) -> None:
        """Write the slopes; the fixed weights are the ensemble's."""
        write_arrays(directory, {"slopes": self.slopes}, {})

    @classmethod
    def load(cls, directory: Path, taxonomy: Taxonomy, weights: Weights) -> "Gate":
        """Read what ``save`` wrote."""
        arrays, _ = read_arrays(directory)
        return cls(taxonomy, weights, arrays["slopes"])


def facts_of(probs_Jnv: npt.NDArray[Any], near_n: Floats) -> Float:
    """Return [J, n, F], what the gate looks at, each between -1 and 1 or so."""
    probs = np.maximum(probs_Jnv.astype(np.float64), SMALLEST)
    width = max(probs.shape[2], 2)
    sure_Jn = probs.max(axis=2)
    undecided_Jn = -(probs * np.log(probs)).sum(axis=2) / np.log(width)
    apart_Jn = 0.5 * np.abs(probs - probs.mean(axis=0)).sum(axis=2)
    known_n = np.where(np.isfinite(near_n), near_n, 0.5).astype(np.float64)
    near_Jn = np.broadcast_to(known_n, sure_Jn.shape)
    return np.stack([2 * sure_Jn - 1, 2 * undecided_Jn - 1, 2 * apart_Jn - 1, 2 * near_Jn - 1], axis=2)


def _opened(facts_JnF: Float, start_J: Float, slopes_JF: Float) -> Float:
    """Return [J, n], weights that sum to 1 over the members."""
    logits_Jn = start_J[:, None] + (facts_JnF * slopes_JF[:, None, :]).sum(axis=2)
    found: Float = softmax(logits_Jn, axis=0)
    return found


def _fitted(parts: list[tuple[Float, Float, Float, float]], members: int) -> Float:
    """Return [J, F], the slopes with most likelihood of the mixtures, less a ridge penalty."""
    from scipy.optimize import minimize

    def loss(flat_K: Float) -> tuple[float, Float]:
        slopes_JF = flat_K.reshape(members, FACTS)
        value, gradient_JF = 0.5 * RIDGE * float((flat_K**2).sum()), RIDGE * slopes_JF
        for facts_JmF, chance_Jm, start_J, share in parts:
            gate_Jm = _opened(facts_JmF, start_J, slopes_JF)
            joint_Jm = gate_Jm * chance_Jm
            total_m = joint_Jm.sum(axis=0)
            value -= share * float(np.log(total_m).sum())
            off_Jm = gate_Jm - joint_Jm / total_m
            gradient_JF = gradient_JF + share * np.einsum("jm,jmf->jf", off_Jm, facts_JmF)
        return value, gradient_JF.reshape(-1)

    start_K = np.zeros(members * FACTS)
    found = minimize(loss, start_K, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    best_JF: Float = found.x.reshape(members, FACTS)
    return best_JF
