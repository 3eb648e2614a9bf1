"""Shift: by how much two samples of products differ, and whether chance would do it, near-duplicates counted once.

It does not know what the numbers describe: the share of a value, how sure an answer was, where a picture lies.
Legend: n products, G groups of one sample, d numbers of each, v values of one attribute, K tests.

Two photos of one shirt are not two pieces of evidence. Samples may be in strata, such as categories, and are then
compared within each; a stratum weighs what it weighs in the later sample.

- ``shares`` and ``means`` are over products, as a user counts them. How alike the products of a group are, the
  intraclass correlation, is estimated from both samples together, and a sample is worth its number of products over
  the design effect that follows from it and from the sizes of its groups (Kish 1965). Shares are tested value by
  value by the likelihood ratio of those effective counts (Rao and Scott 1984), the least p times the number of values
  that were tested. Groups are the degrees of freedom of the smaller sample, so chance is read off F (Thomas and Rao
  1987). The effect of shares is Cohen's w, that of a mean Cohen's d (Cohen 1988).
- ``offset`` is for vectors. A near-duplicate group is one observation, the mean of its products. It is the length of
  the difference of the means over the root of the total variance. Its square is a sum of chi-squares with the
  covariance's eigenvalues as weights, which a gamma of the same mean, variance and skewness stands for. Where
  products were drawn into one sample one by one, large groups are likelier to be in it and come out smaller: the
  groups of the other sample then weigh as likely as they would be there after such a draw (``thinned``). The mean of
  fewer products also varies more, by what their intraclass correlation leaves to each.

Several tests are read together by Benjamini and Yekutieli's procedure (2001), which holds however they depend on
each other; where nothing has changed, any finding at all is as rare as the rate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats
from scipy.special import rel_entr

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Groups that each sample must have in a stratum before the two are compared.
LEAST = 20
#: Effective products of the smaller sample that do and do not have a value, at the mean of both shares; a value with
#: fewer is not tested, as chi-square is wrong for it (Cochran 1954).
EXPECTED = 10.0
#: Steps of the estimate of shares, and the change from which it stands still.
STEPS, STILL = 500, 1e-7
#: Shares of products that are as good as none and as all.
NOTHING, WHOLE = 1e-6, 1 - 1e-9
#: A variance that is none.
NONE_AT_ALL = 1e-12


@dataclass(frozen=True, eq=False)
class Shift:
    """What became of a mean.

    Attributes:
        before, after: float64 [d], the means of the samples, strata weighed as in the later one.
        effect: how far apart, in units of the products' spread, what chance adds taken off; never below 0.
        p: probability of a difference as large by chance.
        most: of shares, the position of the value that chance explains least.
    """

    before: Float
    after: Float
    effect: float
    p: float
    most: int = 0


@dataclass(frozen=True, eq=False)
class Sample:
    """Products by group, in ascending order of the groups' numbers.

    Attributes:
        total: float64 [G, d], sums over the products of each group.
        square: float64 [G, d], sums of their squares.
        size: float64 [G], products of each group.
    """

    total: Float
    square: Float
    size: Float

    @property
    def products(self) -> float:
        """How many."""
        return float(self.size.sum())

    @property
    def mean(self) -> Float:
        """float64 [d], over products."""
        return np.asarray(self.total.sum(axis=0) / self.products, np.float64)

    @property
    def by_group(self) -> Float:
        """float64 [G, d], the means of the groups."""
        return self.total / self.size[:, None]

    @property
    def company(self) -> float:
        """The size of its group, as the average product sees it."""
        return float(np.square(self.size).sum()) / self.products


@dataclass(frozen=True, eq=False)
class Stratum:
    """Two samples of one kind.

    Attributes:
        before, after: the samples.
        weight: float64 [G] of the earlier groups, for ``offset``; all the same where left out.
    """

    before: Sample
    after: Sample
    weight: Float | None = None

    @property
    def weights(self) -> tuple[Float, Float]:
        """float64 [G] each, the earlier and the later groups' weights, summing to 1."""
        before_G, after_G = (
            thinned(one.size, float(other.size.mean()))
            for one, other in ((self.before, self.after), (self.after, self.before))
        )
        if self.weight is not None:
            before_G = before_G * self.weight
        return before_G / before_G.sum(), after_G / after_G.sum()


def thinned(size_G: Float, mean: float) -> Float:
    """Return float64 [G], how likely each group is in a random draw of products that leaves groups of a mean size.

    A group of s products is in a draw of a share f of all with probability 1 - (1 - f)^s. All are 1 where the groups
    are that small already; where nearly all of the products are left out, they are as their sizes.

    Args:
        size_G: products of each group.
        mean: of the sizes of those drawn, at least 1.
    """

    def drawn(share: float) -> Float:
        return np.asarray(-np.expm1(size_G * np.log1p(-share)), np.float64)

    def over(share: float) -> float:
        return share * float(size_G.sum()) / float(drawn(share).sum()) - mean

    if over(WHOLE) <= 0:
        return np.ones(len(size_G))
    return drawn(NOTHING if over(NOTHING) >= 0 else float(optimize.brentq(over, NOTHING, WHOLE)))


def sampled(numbers_nd: npt.NDArray[np.generic], group_n: Ints) -> Sample:
    """Put products together by group; there is one at least."""
    rows_nd = np.asarray(numbers_nd, np.float64).reshape(len(group_n), -1)
    order = np.argsort(group_n, kind="stable")
    _, start_G, size_G = np.unique(group_n[order], return_index=True, return_counts=True)
    total_Gd = np.add.reduceat(rows_nd[order], start_G, axis=0)
    square_Gd = np.add.reduceat(np.square(rows_nd[order]), start_G, axis=0)
    return Sample(total_Gd, square_Gd, size_G.astype(np.float64))


def either(sample: Sample) -> Sample:
    """Return a sample of ones and zeros as one of two values: those that are 1, and those that are not."""
    total_G2 = np.concatenate([sample.total, sample.size[:, None] - sample.total], axis=1)
    return Sample(total_G2, total_G2, sample.size)


def enough(stratum: Stratum) -> bool:
    """Whether both samples have ``LEAST`` groups."""
    return min(len(stratum.before.size), len(stratum.after.size)) >= LEAST


def worth(stratum: Stratum) -> tuple[Float, Float, Float]:
    """Return the variance of one product [d], and how many independent products each sample is worth [d]."""
    variance_d, shared_d, pairs = _within(stratum)
    # Above 1 for a value whose products come in larger groups than others': it is worth the less.
    alike_d = np.maximum(shared_d / max(pairs, 1), 0) / np.maximum(variance_d, 1e-300)
    sides = stratum.before, stratum.after
    before_d, after_d = (side.products / (1 + alike_d * (side.company - 1)) for side in sides)
    return variance_d, before_d, after_d


def variances(stratum: Stratum) -> tuple[Float, Float]:
    """Return float64 [G] each, the variance of the means of the earlier and the later groups over one product's.

    One intraclass correlation stands for all numbers.
    """
    variance_d, shared_d, pairs = _within(stratum)
    alike = float(shared_d.sum()) / max(pairs, 1) / max(float(variance_d.sum()), 1e-300)
    alike = min(max(alike, 0.0), 1.0)
    before_G, after_G = (alike + (1 - alike) / side.size for side in (stratum.before, stratum.after))
    return before_G, after_G


def _within(stratum: Stratum) -> tuple[Float, Float, float]:
    """Return the variance of one product [d], the sum of products' covariances with their group [d], how many pairs.

    Both samples have one variance and one intraclass correlation under the hypothesis, so they are estimated together:
    a group that is large is in one sample only, and says nothing of the other's chance by itself.
    """
    sides = stratum.before, stratum.after
    within_d, between_d, pairs = np.zeros(sides[0].mean.shape), np.zeros(sides[0].mean.shape), 0.0
    for side in sides:
        within_d = within_d + np.maximum(side.square.sum(axis=0) - side.products * np.square(side.mean), 0)
        between_d = between_d + np.square(side.total - side.size[:, None] * side.mean).sum(axis=0)
        pairs += float((side.size * (side.size - 1)).sum())
    products = sum(side.products for side in sides)
    return within_d / max(products - 2, 1), between_d - within_d, pairs


def means(strata: Sequence[Stratum]) -> Shift:
    """Compare the means of one number by Cohen's d; see the module."""
    total = sum(each.after.products for each in strata)
    before, after, variance, chance = 0.0, 0.0, 0.0, 0.0
    for each in strata:
        share = each.after.products / total
        variance_d, first_d, then_d = worth(each)
        before, after = before + share * float(each.before.mean[0]), after + share * float(each.after.mean[0])
        variance += share * float(variance_d[0])
        chance += share**2 * float((variance_d * (1 / first_d + 1 / then_d))[0])
    ends = np.array([before]), np.array([after])
    if variance <= NONE_AT_ALL:
        return Shift(*ends, 0.0, 1.0)
    squared = (after - before) ** 2
    degrees = sum(min(len(each.before.size), len(each.after.size)) - 1 for each in strata)
    p = float(stats.f.sf(squared / chance, 1, degrees))
    return Shift(*ends, (max(squared - chance, 0.0) / variance) ** 0.5, p)


def shares(stratum: Stratum) -> Shift:
    """Compare the shares of values, each product having one; see the module."""
    before_v, after_v = stratum.before.mean, stratum.after.mean
    _, first_v, then_v = worth(stratum)
    pooled_v = (first_v * before_v + then_v * after_v) / (first_v + then_v)
    ratio_v = 2 * (
        first_v * (rel_entr(before_v, pooled_v) + rel_entr(1 - before_v, 1 - pooled_v))
        + then_v * (rel_entr(after_v, pooled_v) + rel_entr(1 - after_v, 1 - pooled_v))
    )
    middle_v = (before_v + after_v) / 2
    tested_v = np.minimum(middle_v, 1 - middle_v) * np.minimum(first_v, then_v) >= EXPECTED
    seen_v = middle_v > 0
    added = (1 - middle_v) * (1 / first_v + 1 / then_v)
    squared = float((np.square(after_v - before_v)[seen_v] / middle_v[seen_v] - added[seen_v]).sum())
    # Two values are one comparison.
    tests = 1 if seen_v.sum() == 2 else int(tested_v.sum())
    # Of two values that mirror each other, the one that rose.
    ranked_v = np.where(tested_v | ~tested_v.any(), ratio_v, -1.0) * (1 + 1e-6 * (after_v > before_v))
    most = int(np.argmax(ranked_v))
    degrees = min(len(stratum.before.size), len(stratum.after.size)) - 1
    p = min(float(stats.f.sf(ratio_v[most], 1, degrees)) * tests, 1.0) if tested_v.any() else 1.0
    return Shift(before_v, after_v, max(squared, 0.0) ** 0.5, p, most)


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
    total = sum(len(each.after.size) for each in strata)
    width = strata[0].before.total.shape[1]
    before_d, after_d, spread_dd, of_mean_dd = (
        np.zeros(width),
        np.zeros(width),
        np.zeros((width, width)),
        np.zeros((width, width)),
    )
    for each in strata:
        (first_Gd, then_Gd), (first_G, then_G) = (each.before.by_group, each.after.by_group), each.weights
        share, mean_d, after_mean_d = len(then_Gd) / total, first_G @ first_Gd, then_G @ then_Gd
        both_Gd = np.concatenate([first_Gd - mean_d, then_Gd - after_mean_d])
        # Of all groups alike: under the hypothesis both samples have one covariance.
        first_own_G, then_own_G = variances(each)
        both_G = np.concatenate([first_G * len(first_Gd) / first_own_G, then_G * len(then_Gd) / then_own_G])
        covariance_dd = (both_Gd * both_G[:, None]).T @ both_Gd / max(len(both_Gd) - 2, 1)
        of_mean = float(first_G**2 @ first_own_G + then_G**2 @ then_own_G)
        before_d += share * mean_d
        after_d += share * after_mean_d
        spread_dd += share * covariance_dd
        of_mean_dd += share**2 * covariance_dd * of_mean
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
