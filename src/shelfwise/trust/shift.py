"""Shift: by how much two samples of products differ, and whether chance would do it, near-duplicates counted once.

It does not know what the numbers describe: the share of a value, how sure an answer was, where a picture lies.
Legend: n products, G groups of one sample, d numbers of each, v values of one attribute, K tests.

A near-duplicate group is one observation, the mean of its products: two photos of one shirt are not two pieces of
evidence. Samples may be in strata, such as categories, and are then compared within each; a stratum weighs what it
weighs in the later sample.

- ``distance``: the length of the difference of the means in units of the products' own spread, Mahalanobis'
  distance. For shares of values it is Cohen's w, for one number Cohen's d (Cohen 1988). Its square is chi-square where
  nothing changed.
- ``offset``: the same with one spread for all directions, for vectors with too many numbers to invert their
  covariance. Its square is a sum of chi-squares with the covariance's eigenvalues as weights, which a gamma of the
  same mean, variance and skewness stands for.

Several tests are read together by Benjamini and Yekutieli's procedure (2001), which holds however they depend on
each other; where nothing has changed, any finding at all is as rare as the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Groups that each sample must have in a stratum before the two are compared.
LEAST = 20
#: Groups of the smaller sample that a value has at the mean of both shares; rarer ones are taken together, as
#: chi-square is wrong for them (Cochran 1954).
EXPECTED = 10.0
#: Steps of the estimate of shares, and the change from which it stands still.
STEPS, STILL = 500, 1e-7
#: Directions with less than this share of the largest variance have none; nor has anything with less than the second.
NO_VARIANCE, NONE_AT_ALL = 1e-9, 1e-12


@dataclass(frozen=True, eq=False)
class Shift:
    """What became of a mean.

    Attributes:
        before, after: float64 [d], the means of the samples, strata weighed as in the later one.
        effect: how far apart, in units of the products' spread, what chance adds taken off; never below 0.
        p: probability of a difference as large by chance.
    """

    before: Float
    after: Float
    effect: float
    p: float


@dataclass(frozen=True, eq=False)
class Stratum:
    """Two samples of one kind, one row a group.

    Attributes:
        before, after: float64 [G, d] each.
        weight: float64 [G] of the earlier groups; all the same where left out.
    """

    before: Float
    after: Float
    weight: Float | None = None

    @property
    def weights(self) -> Float:
        """float64 [G], the earlier groups' weights, summing to 1."""
        given = np.ones(len(self.before)) if self.weight is None else self.weight
        return np.asarray(given / given.sum(), np.float64)


def by_group(numbers_nd: npt.NDArray[np.generic], group_n: Ints) -> Float:
    """Return float64 [G, d], the means of the products of each group, in ascending order of the groups' numbers."""
    rows_nd = np.asarray(numbers_nd, np.float64).reshape(len(group_n), -1)
    if not len(group_n):
        return rows_nd
    order = np.argsort(group_n, kind="stable")
    _, start_G, count_G = np.unique(group_n[order], return_index=True, return_counts=True)
    sums_Gd: Float = np.add.reduceat(rows_nd[order], start_G, axis=0)
    return sums_Gd / count_G[:, None]


def enough(stratum: Stratum) -> bool:
    """Whether both samples have ``LEAST`` groups."""
    return min(len(stratum.before), len(stratum.after)) >= LEAST


def distance(strata: Sequence[Stratum]) -> Shift:
    """Compare means by Mahalanobis' distance; see the module."""
    moved = _moments(strata)
    found, axes = np.linalg.eigh(moved.spread)
    kept = found > max(NO_VARIANCE * float(found[-1]), NONE_AT_ALL)
    if not kept.any():
        return Shift(moved.before, moved.after, 0.0, 1.0)
    squared = float((np.square(moved.difference @ axes[:, kept]) / found[kept]).sum())
    degrees = int(kept.sum())
    p = float(stats.chi2.sf(squared / moved.chance, degrees))
    effect = max(squared - degrees * moved.chance, 0.0) ** 0.5
    return Shift(moved.before, moved.after, effect, p)


def offset(strata: Sequence[Stratum]) -> Shift:
    """Compare means by their distance over the root of the total variance; see the module."""
    moved = _moments(strata)
    total = float(np.trace(moved.spread))
    if total <= 0:
        return Shift(moved.before, moved.after, 0.0, 1.0)
    value_d = np.maximum(np.linalg.eigvalsh(moved.spread), 0.0) / total
    squared = float(np.square(moved.difference).sum()) / total
    # The first three cumulants of the weighted sum; the weights sum to the variance of a mean's difference.
    variance = 2 * moved.chance**2 * float((value_d**2).sum())
    third = 8 * moved.chance**3 * float((value_d**3).sum())
    shape = 4 * variance**3 / third**2
    standard = (squared - moved.chance) / variance**0.5
    p = float(stats.gamma.sf(shape + standard * shape**0.5, shape))
    return Shift(moved.before, moved.after, max(squared - moved.chance, 0.0) ** 0.5, p)


def together(stratum: Stratum) -> Stratum:
    """Return the samples with the values that are too rare to be tested by themselves put together.

    Where even together they are too rare, they go with the rarest of the others.
    """
    smaller = min(len(stratum.before), len(stratum.after))
    expected_v = (stratum.before.mean(axis=0) + stratum.after.mean(axis=0)) / 2 * smaller
    order = np.argsort(expected_v, kind="stable")
    rare = int((expected_v < EXPECTED).sum())
    if 0 < rare < len(order) and expected_v[order[:rare]].sum() < EXPECTED:
        rare += 1
    place_v = np.empty(len(order), np.int64)
    place_v[order] = np.concatenate([np.zeros(rare, np.int64), np.arange(len(order) - rare) + (rare > 0)])
    turn_vc = np.eye(int(place_v.max()) + 1)[place_v]
    return Stratum(stratum.before @ turn_vc, stratum.after @ turn_vc, stratum.weight)


@dataclass(frozen=True, eq=False)
class _Moments:
    """Means, their difference, the products' covariance [d, d], and the variance of a mean's difference over it."""

    before: Float
    after: Float
    spread: Float
    chance: float

    @property
    def difference(self) -> Float:
        return self.after - self.before


def _moments(strata: Sequence[Stratum]) -> _Moments:
    total = sum(len(each.after) for each in strata)
    width = strata[0].before.shape[1]
    before_d, after_d, spread_dd, of_mean_dd = (
        np.zeros(width),
        np.zeros(width),
        np.zeros((width, width)),
        np.zeros((width, width)),
    )
    for each in strata:
        share, weight_G = len(each.after) / total, each.weights
        mean_d = weight_G @ each.before
        both_Gd = np.concatenate([each.before - mean_d, each.after - each.after.mean(axis=0)])
        # Of all groups alike: under the hypothesis both samples have one covariance.
        both_G = np.concatenate([weight_G * len(each.before), np.ones(len(each.after))])
        covariance_dd = (both_Gd * both_G[:, None]).T @ both_Gd / max(len(both_Gd) - 2, 1)
        before_d += share * mean_d
        after_d += share * each.after.mean(axis=0)
        spread_dd += share * covariance_dd
        of_mean_dd += share**2 * covariance_dd * (float(weight_G @ weight_G) + 1 / len(each.after))
    trace = float(np.trace(spread_dd))
    chance = float(np.trace(of_mean_dd)) / trace if trace > 0 else 1.0
    return _Moments(before_d, after_d, spread_dd, chance)


def shares_after(before_nv: Float, after_nv: Float, weight_before: Float, weight_after: Float) -> Float:
    """Estimate the values' shares in a later sample whose pictures of each value are as they were.

    Expectation and maximisation on calibrated probabilities (Saerens, Latinne and Decaestecker 2002).

    Args:
        before_nv, after_nv: calibrated probabilities of the earlier and the later products.
        weight_before, weight_after: what each product weighs; both sum to 1.

    Returns:
        float64 [v], how many times more frequent each value is.
    """
    prior_v = np.maximum(weight_before @ before_nv, 1e-9)
    share_v = prior_v.copy()
    for _ in range(STEPS):
        likely_nv = after_nv * (share_v / prior_v)
        new_v = weight_after @ (likely_nv / np.maximum(likely_nv.sum(axis=1, keepdims=True), 1e-300))
        moved = float(np.abs(new_v - share_v).max())
        share_v = new_v
        if moved < STILL:
            break
    return np.asarray(share_v / prior_v, np.float64)


def false_discoveries(p_K: npt.ArrayLike) -> Float:
    """Return p-values adjusted for each other (Benjamini and Yekutieli 2001); NaN stays NaN and counts as no test."""
    given_K = np.asarray(p_K, np.float64)
    adjusted_K, tested_K = np.full(given_K.shape, np.nan), ~np.isnan(given_K)
    if tested_K.any():
        adjusted_K[tested_K] = stats.false_discovery_control(given_K[tested_K], method="by")
    return adjusted_K
