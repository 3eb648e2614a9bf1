"""Permuted: which shares of values moved by more than chance moves any of them, chance being groups dealt out anew.

It does not know what the values describe. What is compared is the mean of each value's probability, which is the most
telling number there is on a small change of how frequent the value is, as long as probabilities are calibrated. The
means are compared as in ``shift``: near-duplicates make a sample worth fewer products. Of every attribute the
likeliest change counts, times the number of values tested. How often the likeliest of all attributes' changes is as
likely as that is not read off a formula: the groups of both samples are dealt to them again at random, many times, and
the likeliest change is found each time (Westfall and Young 1993, the least p by permutation). So it holds for
attributes that depend on each other, however rare their values are, and nothing is given away for their number.

Legend: G groups of one sample, P of both, B deals, d values packed, A attributes, c sums that are kept of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from shelfwise.trust.shift import EXPECTED, Sample, Stratum, worth

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Groups of the smaller sample that are dealt one by one; of more, as many are dealt together as leave this many.
DEALT = 1000
#: Sums of deals that are judged at once.
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Values:
    """The probabilities of the values of one category's attributes, in two samples.

    Attributes:
        stratum: the samples; d columns.
        parts: the columns of each attribute.
    """

    stratum: Stratum
    parts: tuple[slice, ...]

    def likely(self) -> tuple[Float, Ints]:
        """Return, for each attribute, the p-value of its likeliest change [A], and the value's place in it."""
        before_1c, after_1c = (_sums(each).sum(axis=0)[None] for each in self._sides)
        ratio_1d, tested_d = _ratios(before_1c, after_1c), self._tested
        p_1A = self._judged(ratio_1d, tested_d)
        # Of two values that mirror each other, the one that rose.
        before, after = self._sides
        ranked_d = np.where(tested_d, ratio_1d[0], -1.0) * (1 + 1e-6 * (after.mean > before.mean))
        return p_1A[0], np.array([int(ranked_d[part].argmax()) for part in self.parts], np.int64)

    def by_chance(self, deals: int, seed: int) -> Float:
        """Return float64 [B], the least p-value of all attributes in every deal."""
        small, large = sorted(self._sides, key=lambda sample: len(sample.size))
        rng = np.random.default_rng(seed)
        many = max(1, len(small.size) // DEALT)
        pool_Pc = np.concatenate([_together(_sums(side), many, rng) for side in (small, large)])
        count, whole_c = -(-len(small.size) // many), pool_Pc.sum(axis=0)
        found, tested_d = [], self._tested
        for start in range(0, deals, CHUNK):
            dealt_Bc = np.stack(
                [
                    pool_Pc[rng.choice(len(pool_Pc), count, replace=False, shuffle=False)].sum(axis=0)
                    for _ in range(min(CHUNK, deals - start))
                ]
            )
            found.append(self._judged(_ratios(whole_c - dealt_Bc, dealt_Bc), tested_d).min(axis=1))
        return np.concatenate(found)

    @property
    def _sides(self) -> tuple[Sample, Sample]:
        return self.stratum.before, self.stratum.after

    @property
    def _tested(self) -> npt.NDArray[np.bool_]:
        """Bool [d], values that enough products of the smaller sample have and have not; the same in every deal."""
        before, after = self._sides
        mean_d = (before.total.sum(axis=0) + after.total.sum(axis=0)) / (before.products + after.products)
        _, first_d, then_d = worth(self.stratum)
        return np.asarray(np.minimum(mean_d, 1 - mean_d) * np.minimum(first_d, then_d) >= EXPECTED)

    def _judged(self, ratio_Bd: Float, tested_d: npt.NDArray[np.bool_]) -> Float:
        """Return [B, A] p-values."""
        degrees = min(len(each.size) for each in self._sides) - 1
        p_BA = np.ones((len(ratio_Bd), len(self.parts)))
        for a, part in enumerate(self.parts):
            kept = np.flatnonzero(tested_d[part]) + part.start
            if len(kept):
                # Two values are one comparison.
                tests = 1 if part.stop - part.start == 2 else len(kept)
                p_BA[:, a] = np.minimum(stats.f.sf(ratio_Bd[:, kept].max(axis=1), 1, degrees) * tests, 1.0)
        return p_BA


def _sums(sample: Sample) -> Float:
    """Return [G, c], all that is needed of each group: totals, squares, squared totals, totals by size, sizes."""
    size_G1 = sample.size[:, None]
    parts = (
        sample.total,
        sample.square,
        np.square(sample.total),
        sample.total * size_G1,
        size_G1,
        size_G1**2,
        np.ones_like(size_G1),
    )
    found_Gc = np.concatenate(parts, axis=1)
    # An order of the groups' own: the same deals whatever the order of the table.
    weight_c = np.random.default_rng(0).random(found_Gc.shape[1])
    return np.asarray(found_Gc[np.argsort((found_Gc * weight_c).sum(axis=1).round(6), kind="stable")])


def _together(sums_Gc: Float, many: int, rng: np.random.Generator) -> Float:
    """Put groups together, so many at a time, at random."""
    if many == 1:
        return sums_Gc
    mixed_Gc = sums_Gc[rng.permutation(len(sums_Gc))]
    return np.asarray(np.add.reduceat(mixed_Gc, np.arange(0, len(mixed_Gc), many), axis=0))


def _ratios(before_Bc: Float, after_Bc: Float) -> Float:
    """Return [B, d], squared differences of means over their variance, of sums of groups; see ``shift``."""
    width = (before_Bc.shape[1] - 3) // 4
    nothing = np.zeros((1, 1))
    within, between, pairs, products, means, sides = nothing, nothing, nothing, nothing, [], []
    for sums_Bc in (before_Bc, after_Bc):
        total, square, squared, sized = np.split(sums_Bc[:, : 4 * width], 4, axis=1)
        size, company = sums_Bc[:, 4 * width, None], sums_Bc[:, 4 * width + 1, None]
        mean = total / size
        within = within + np.maximum(square - size * mean**2, 0)
        between = between + np.maximum(squared - 2 * mean * sized + mean**2 * company, 0)
        pairs, products = pairs + company - size, products + size
        means.append(mean)
        sides.append((size, company / size - 1))
    variance = within / np.maximum(products - 2, 1)
    alike = np.maximum((between - within) / np.maximum(pairs, 1), 0) / np.maximum(variance, 1e-300)
    first, then = ((1 + alike * company) / size for size, company in sides)
    return np.asarray(np.square(means[1] - means[0]) / np.maximum(variance * (first + then), 1e-300))


def as_rare(p_K: npt.ArrayLike, families: Sequence[Values], deals: int) -> Float:
    """Return float64 [K], how often the likeliest change of all is as likely as each p-value where nothing changed."""
    least_B = np.ones(deals)
    for seed, each in enumerate(families):
        least_B = np.minimum(least_B, each.by_chance(deals, seed))
    below_K = np.searchsorted(np.sort(least_B), np.asarray(p_K, np.float64), side="right")
    return np.asarray((1 + below_K) / (1 + deals), np.float64)
