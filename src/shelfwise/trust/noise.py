"""Noise: how stated values go wrong, estimated from the cells themselves, and the odds against each.

It knows probabilities and codes, not tables. A stated value is the picture's own (the calibrated probability
says which), any other value (a slip), or the value most like it (a mix-up); the shares of the three are those
under which the stated values are likeliest. Noise-aware posteriors of this kind: Natarajan et al., Learning
with noisy labels, 2013; mixture shares by expectation-maximisation, Dempster, Laird and Rubin, 1977.
Legend: M cells, n products, v values of one attribute.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

#: How sharply a mix-up goes for the value most like the right one: shares to this power.
SHARPNESS = 4.0
#: A right value that the picture gives no chance at all, as a share: pictures mislead, models err.
SURPRISE = 0.002
#: Shares of slips and mix-ups before anything is seen, and the number of cells that this counts for.
PRIOR_SHARE, PRIOR_CELLS = 0.02, 200.0
ROUNDS = 200
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chances:
    """How probable each stated value is, if it is right, a slip, or a mix-up.

    Attributes:
        right, slip, mix_up: float64 [M].
        misread: float64 [M], where the value was read from text: as a misreading; else 0.
        trust: float64 [M], probability that the value was read rightly; 1 for a cell.
    """

    right: Floats
    slip: Floats
    mix_up: Floats
    misread: Floats
    trust: Floats


@dataclass(frozen=True)
class Noise:
    """Which share of stated values is a slip, and which a mix-up."""

    slip: float = PRIOR_SHARE
    mix_up: float = PRIOR_SHARE

    @property
    def share(self) -> float:
        """The share of stated values that are wrong."""
        return self.slip + self.mix_up

    def odds(self, chances: Chances) -> Floats:
        """Return the odds that each stated value is wrong."""
        wrong = chances.trust * (self.slip * chances.slip + self.mix_up * chances.mix_up)
        right = chances.trust * ((1 - self.share) * chances.right + SURPRISE)
        return np.asarray(wrong / (right + (1 - chances.trust) * chances.misread), np.float64)


def fit_noise(parts: Iterable[Chances]) -> Noise:
    """Return the shares under which the stated values are likeliest, from 2 % of each where there are few."""
    found = list(parts)
    kinds = [
        np.stack(
            [
                part.trust * part.right + (1 - part.trust) * part.misread,
                part.trust * part.slip,
                part.trust * part.mix_up,
            ],
            axis=1,
        )
        for part in found
    ]
    prior = np.array([1 - 2 * PRIOR_SHARE, PRIOR_SHARE, PRIOR_SHARE])
    chances_M3 = np.concatenate([np.zeros((0, 3)), *kinds])
    chances_M3 = chances_M3[chances_M3.sum(axis=1) > 0]
    share = prior
    for _ in range(ROUNDS):
        part_M3 = chances_M3 * share
        total = (part_M3 / part_M3.sum(axis=1, keepdims=True)).sum(axis=0) + PRIOR_CELLS * prior
        new = total / total.sum()
        if np.abs(new - share).max() < 1e-9:
            break
        share = new
    return Noise(float(share[1]), float(share[2]))


def likeness(probs: npt.ArrayLike) -> Floats:
    """Return float64 [v, v]: how probably a value (row) is mixed up with another (column).

    Values are alike where one picture leaves both probable; no label is looked at.

    Args:
        probs: float [n, v], calibrated probabilities of many products.
    """
    p = np.asarray(probs, np.float64)
    together = p.T @ p
    np.fill_diagonal(together, 0)
    share = together / np.maximum(together.sum(axis=1, keepdims=True), 1e-12) + 1e-6
    share **= SHARPNESS
    np.fill_diagonal(share, 0)
    return np.asarray(share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300), np.float64)


def tempered(probs: npt.ArrayLike, labels: npt.ArrayLike) -> Floats:
    """Return float64 [M, v], probabilities mixed with the shares of the values as one label among those learnt from.

    A model that has seen a value twice, or never, cannot deny it: what it says counts as much as its labels.

    Args:
        probs: float [M, v], calibrated probabilities.
        labels: int [L], codes of the attribute that were learnt from, -1 for none.
    """
    p, known = np.asarray(probs, np.float64), np.asarray(labels, np.int64)
    counts_v = np.bincount(known[known >= 0], minlength=p.shape[1])
    n, share_v = counts_v.sum(), (counts_v + 1) / (counts_v.sum() + p.shape[1])
    return np.asarray((n * p + share_v) / (n + 1), np.float64)


def chances_of(probs: npt.ArrayLike, codes: npt.ArrayLike, alike: Floats) -> Chances:
    """Return the chances of stated values.

    Args:
        probs: float [M, v], calibrated probabilities.
        codes: int [M], stated.
        alike: float64 [v, v], from ``likeness``.
    """
    p, code = np.asarray(probs, np.float64), np.asarray(codes, np.int64)
    at, v = np.arange(len(code)), p.shape[1]
    right = p[at, code]
    if v < 2:
        nothing = np.zeros(len(code))
        return Chances(np.ones(len(code)), nothing, nothing, nothing, np.ones(len(code)))
    return Chances(
        right, (1 - right) / (v - 1), (p @ alike)[at, code], np.zeros(len(code)), np.ones(len(code))
    )


def denied_chances(probs: npt.ArrayLike, codes: npt.ArrayLike) -> Chances:
    """Return the chances of denied values, "no collar": right where the picture shows another value."""
    p, code = np.asarray(probs, np.float64), np.asarray(codes, np.int64)
    shown = p[np.arange(len(code)), code] if p.shape[1] > 1 else np.zeros(len(code))
    return Chances(1 - shown, shown, shown, np.zeros(len(code)), np.ones(len(code)))


def read_from_text(chances: Chances, trust: Floats, misread: Floats) -> Chances:
    """Return the chances of values that were read from text, rightly with probability ``trust``."""
    return replace(chances, trust=trust, misread=misread)
