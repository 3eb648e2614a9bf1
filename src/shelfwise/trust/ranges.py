"""Ranges: predictive distributions of a Number that cover as often as they say, fitted out of fold.

It does not know what is answered, nor how a distribution was predicted.
Legend: n rows, Q quantile levels, J opinions, G near-duplicate groups, C categories.

Everything happens on the Number's transformed, standardised scale, so that a change of currency changes nothing:

1. several opinions become one by averaging their quantiles (Vincent averaging; Ratcliff 1979), with weights of the
   simplex that lose least on the evidence, drawn to equal ones the more, the fewer groups there are;
2. the location (median) is moved by a straight line, and the scales below and above it (mean distance of the
   quantiles on that side) are raised to a power, for scales that say too much or too little, and multiplied by a
   factor of the category; both start from no change;
3. ``(truth - location) / scale`` is pooled over the evidence, and its quantiles take the place of the predicted ones:
   conformal prediction on normalised residuals (Lei et al. 2018; Romano, Patterson and Candes 2019), whose
   ``k``-th smallest of ``n`` stands at level ``k / (n + 1)``, so that a new row is covered as often as stated whatever
   the residuals' law. Beyond the outermost residuals as much is said as the Number's own spread allows.

The residuals of near-duplicates are weighed by ``trust.worth``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, ndtri

from shelfwise.amounts import LEVELS, MEDIAN, AmountEvidence, Amounts, ascending
from shelfwise.errors import BundleError
from shelfwise.simplex_search import best_on_simplex
from shelfwise.taxonomy import Number
from shelfwise.trust.points import WEIGHTS
from shelfwise.trust.worth import correlation_within, pooling_weights, weighted_median

Float = npt.NDArray[np.float64]
#: Numbers of a logarithmic scale are taken to be at least this, others at most the inverse of it.
SMALLEST = 1e-30
#: Scales smaller than this have nothing to say; others are this many times off the typical one at most.
NO_SCALE, MOST_TIMES = 1e-6, 20.0
#: What a squared distance of 1 from equal weights has to gain, as a share of the loss, times the root of the groups.
PENALTY = 0.3
#: Levels whose pinball loss weights of opinions are judged by.
JUDGED = np.searchsorted(LEVELS, [0.1, 0.25, 0.5, 0.75, 0.9])
#: Prior spread of the line's rise, of its shift in typical residuals, and of the scales' exponent.
RISE, SHIFT, EXPONENT = 0.1, 0.5, 0.5
#: The largest exponent. It is drawn to 0 where so few rows tell which scale is usual.
MOST_EXPONENT, FEW = 1.5, 3.0
#: Categories' factors differ from 1 only where their differences are this unlikely by chance.
CHANCE = 0.01
#: Residuals further than this many typical ones from the line pull no harder (Huber 1964).
HUBER = 2.0


@dataclass(frozen=True, eq=False)
class AmountCalibration:
    """How to turn predicted distributions of a Number into ones that cover as often as they say.

    Attributes:
        number: what is predicted.
        shape: float64 [Q], quantiles of the standardised residuals.
        effective: independent rows that the evidence is worth; with 0 a distribution is only widened.
        opinions: the weight of each opinion.
        shift, rise, about: of the line that the location follows, ``m + shift + rise (m - about)``.
        typical: the usual scale below and above the median.
        exponent: of the scales.
        factors: of the scales, by category code.
        correlation: of residuals within near-duplicate groups.
    """

    number: Number
    shape: tuple[float, ...]
    effective: float = 0.0
    opinions: tuple[float, ...] = ()
    shift: float = 0.0
    rise: float = 0.0
    about: float = 0.0
    typical: tuple[float, float] = (1.0, 1.0)
    exponent: float = 0.0
    factors: Mapping[int, float] = field(default_factory=dict)
    correlation: float = 1.0

    def apply(self, amounts: Amounts, category_N: npt.NDArray[Any]) -> Amounts:
        """Return calibrated distributions, without opinions.

        Args:
            amounts: as a predictor gave them.
            category_N: int32 [N], the category code of every row of the table; -1 for none.
        """
        raw_nQ = _blended(_standard_all(amounts, self.number), self.opinions)
        middle_n, below_n, above_n = self.parts(raw_nQ, category_N[amounts.rows])
        shape_Q = np.asarray(self.shape)
        out_nQ = middle_n[:, None] + np.where(shape_Q < 0, below_n[:, None], above_n[:, None]) * shape_Q
        if not self.effective:
            below_Q = np.arange(len(LEVELS)) < MEDIAN
            out_nQ = np.where(below_Q, np.minimum(out_nQ, raw_nQ), np.maximum(out_nQ, raw_nQ))
            out_nQ[:, MEDIAN] = raw_nQ[:, MEDIAN]
        return Amounts(amounts.name, amounts.rows, unstandard(out_nQ, self.number))

    def parts(self, raw_nQ: Float, category_n: npt.NDArray[Any]) -> tuple[Float, Float, Float]:
        """Return location and scales below and above it, [n] each, of standardised quantiles."""
        middle_n, *scales = _parts(raw_nQ)
        times_n = np.ones(len(middle_n))
        for code, factor in self.factors.items():
            times_n[category_n == code] = factor
        below_n, above_n = (
            typical * np.exp(self.exponent * _departure(scale_n, typical)) * times_n
            for scale_n, typical in zip(scales, self.typical, strict=True)
        )
        return middle_n + self.shift + self.rise * (middle_n - self.about), below_n, above_n

    def table(self) -> dict[str, Any]:
        """Return the calibration as plain data, for JSON."""
        number = self.number
        return {
            "number": {
                "name": number.name,
                "unit": number.unit,
                "transform": number.transform,
                "center": number.center,
                "scale": number.scale,
            },
            "shape": list(self.shape),
            "effective": self.effective,
            "opinions": list(self.opinions),
            "line": [self.shift, self.rise, self.about],
            "typical": list(self.typical),
            "exponent": self.exponent,
            "factors": [[code, factor] for code, factor in sorted(self.factors.items())],
            "correlation": self.correlation,
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str) -> "AmountCalibration":
        """Read what ``table`` returned.

        Raises:
            BundleError: something else.
        """
        try:
            shape, line = tuple(map(float, table["shape"])), tuple(map(float, table["line"]))
            below, above = map(float, table["typical"])
            if len(shape) != len(LEVELS) or len(line) != 3:
                raise ValueError(f"{len(shape)} quantiles, not {len(LEVELS)}")
            return cls(
                Number(**table["number"]),
                shape,
                float(table["effective"]),
                tuple(map(float, table["opinions"])),
                *line,
                (below, above),
                float(table["exponent"]),
                {int(code): float(factor) for code, factor in table["factors"]},
                float(table["correlation"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{source}: not ranges that this version wrote: {error}") from error


def calibrate_amounts(evidence: AmountEvidence, number: Number) -> AmountCalibration:
    """Fit a calibration on out-of-fold distributions beside the truth.

    Args:
        evidence: rows without a truth, or with one outside the transform's domain, are left out.
        number: the Number that it is of.
    """
    truth_n = number.forward(evidence.truth)
    known = ~np.isnan(truth_n)
    truth_n, kept = truth_n[known], evidence.select(known)
    _, group_n, rows_G = np.unique(kept.group, return_inverse=True, return_counts=True)
    nothing = AmountCalibration(number, _shape(np.zeros(0), np.zeros(0), (1.0, 1.0)))
    if not len(truth_n):
        return nothing
    each = _standard_all(kept.amounts(), number)
    opinions = _opinion_weights(each, truth_n, 1 / rows_G[group_n])
    raw_nQ = _blended(each, opinions)
    found, correlation = nothing, 1.0
    for _ in range(2):
        weight_n = 1 / (1 + (rows_G[group_n] - 1) * correlation)
        found = _fitted(number, raw_nQ, truth_n, kept.category, weight_n)
        residual_n, scale = _residuals(found, raw_nQ, truth_n, kept.category)
        correlation = correlation_within(residual_n, group_n, rows_G)
    weight_n = pooling_weights(residual_n, group_n, rows_G, correlation)
    return replace(
        found,
        shape=_shape(residual_n, weight_n, (1 / scale[0], 1 / scale[1])),
        effective=float(weight_n.sum()),
        opinions=opinions,
        correlation=correlation,
    )


def standard(quantiles_nQ: npt.NDArray[Any], number: Number) -> Float:
    """Return float64 [n, Q] quantiles on the Number's standardised scale, finite whatever is given."""
    least = {"log": SMALLEST, "log1p": 0.0, "linear": -1 / SMALLEST}[number.transform]
    return number.forward(np.clip(quantiles_nQ.astype(np.float64), least, 1 / SMALLEST))


def unstandard(standard_nQ: Float, number: Number) -> npt.NDArray[np.float32]:
    """Return ascending float32 quantiles in the Number's unit; the inverse of ``standard``."""
    least = {"log": SMALLEST, "log1p": 0.0, "linear": -1 / SMALLEST}[number.transform]
    return ascending(np.clip(number.inverse(standard_nQ), least, 1 / SMALLEST))


def _standard_all(amounts: Amounts, number: Number) -> list[Float]:
    return [standard(each, number) for each in amounts.opinions or (amounts.quantiles,)]


def _blended(each: Sequence[Float], weights: tuple[float, ...]) -> Float:
    if len(each) == 1:
        return each[0]
    shares = weights if len(weights) == len(each) else (1 / len(each),) * len(each)
    return np.asarray(sum(share * one for share, one in zip(shares, each, strict=True)))


def _opinion_weights(each: Sequence[Float], truth_n: Float, weight_n: Float) -> tuple[float, ...]:
    """Return weights of the simplex that lose least by the pinball loss of several levels."""
    if len(each) == 1:
        return (1.0,)
    judged_JnK = np.stack([one[:, JUDGED] for one in each])
    penalty, equal = PENALTY / np.sqrt(weight_n.sum()), 1 / len(each)

    def loss(weights: Sequence[float]) -> float:
        apart_nK = truth_n[:, None] - np.tensordot(np.asarray(weights), judged_JnK, 1)
        lost_nK = np.maximum(LEVELS[JUDGED] * apart_nK, (LEVELS[JUDGED] - 1) * apart_nK)
        return float(weight_n @ lost_nK.sum(axis=1))

    usual = loss([equal] * len(each)) or 1.0
    found = best_on_simplex(
        len(each), lambda w: -loss(w) / usual - penalty * sum((one - equal) ** 2 for one in w)
    )
    return tuple(found.tolist())


def _parts(raw_nQ: Float) -> tuple[Float, Float, Float]:
    """Return the median and the mean distance from it of the quantiles below and above, [n] each."""
    middle_n = raw_nQ[:, MEDIAN]
    apart_nQ = np.abs(raw_nQ - middle_n[:, None])
    return (
        middle_n,
        apart_nQ[:, :MEDIAN] @ WEIGHTS[:MEDIAN],
        apart_nQ[:, MEDIAN + 1 :] @ WEIGHTS[MEDIAN + 1 :],
    )


def _departure(scale_n: Float, typical: float) -> Float:
    """Return the logarithm of how many times the typical scale a scale is, within limits."""
    return np.log(np.clip(scale_n / typical, 1 / MOST_TIMES, MOST_TIMES))


def _fitted(
    number: Number, raw_nQ: Float, truth_n: Float, category_n: npt.NDArray[Any], weight_n: Float
) -> AmountCalibration:
    """Fit the line of the location, the scales' exponent and the categories' factors."""
    middle_n, below_n, above_n = _parts(raw_nQ)
    typical = tuple(_usual(scale_n, weight_n) for scale_n in (below_n, above_n))
    shift, rise, about = _line(middle_n, truth_n, weight_n)
    apart_n = truth_n - (middle_n + shift + rise * (middle_n - about))
    departure_n = np.where(apart_n < 0, _departure(below_n, typical[0]), _departure(above_n, typical[1]))
    least = 0.01 * weighted_median(np.abs(apart_n), weight_n)
    exponent, factors = 1.0, {}
    if least > 0:
        times_n = np.log(np.maximum(np.abs(apart_n), least) / np.where(apart_n < 0, *typical))
        exponent, left_n, spread = _exponent(departure_n, times_n, weight_n)
        factors = _factors(left_n, spread, category_n, weight_n)
    return AmountCalibration(
        number,
        (0.0,) * len(LEVELS),
        shift=shift,
        rise=rise,
        about=about,
        typical=(typical[0], typical[1]),
        exponent=exponent,
        factors=factors,
    )


def _usual(scale_n: Float, weight_n: Float) -> float:
    found = weighted_median(scale_n, weight_n)
    return found if found > NO_SCALE else 1.0


def _line(middle_n: Float, truth_n: Float, weight_n: Float) -> tuple[float, float, float]:
    """Return shift, rise and centre of the line that truths follow along the medians, by ridge with Huber's weights."""
    about = float(np.average(middle_n, weights=weight_n))
    design_n2 = np.stack([np.ones(len(middle_n)), middle_n - about], axis=1)
    found_2: Float = np.zeros(2)
    for _ in range(5):
        apart_n = truth_n - middle_n - design_n2 @ found_2
        usual = weighted_median(np.abs(apart_n), weight_n)
        if usual <= NO_SCALE:
            break
        pull_n = weight_n * np.minimum(1.0, HUBER * usual / np.maximum(np.abs(apart_n), usual * 1e-9))
        prior_2 = np.array([1 / (SHIFT * usual) ** 2, 1 / RISE**2]) * usual**2
        matrix = (design_n2 * pull_n[:, None]).T @ design_n2 + np.diag(prior_2)
        found_2 = np.asarray(np.linalg.solve(matrix, (design_n2 * pull_n[:, None]).T @ (truth_n - middle_n)))
    return float(found_2[0]), float(found_2[1]), about


def _exponent(departure_n: Float, times_n: Float, weight_n: Float) -> tuple[float, Float, float]:
    """Return the scales' exponent, what is left of log residuals, and their variance; the prior is an exponent of 1."""
    x_n = departure_n - np.average(departure_n, weights=weight_n)
    y_n = times_n - np.average(times_n, weights=weight_n)
    spread = max(float(np.average((y_n - x_n) ** 2, weights=weight_n)), NO_SCALE)
    prior = spread / EXPONENT**2
    found = float(np.clip((weight_n @ (x_n * y_n) + prior) / (weight_n @ x_n**2 + prior), 0.0, MOST_EXPONENT))
    found *= float(weight_n.sum() / (weight_n.sum() + FEW))
    return found, y_n - found * x_n, spread


def _factors(left_n: Float, spread: float, category_n: npt.NDArray[Any], weight_n: Float) -> dict[int, float]:
    """Return the categories' factors of the scales, drawn to 1 as far as they agree (DerSimonian and Laird 1986).

    There are none unless Cochran's test (1954) shows that they differ.
    """
    codes, place_n = np.unique(category_n, return_inverse=True)
    weight_C = np.bincount(place_n, weight_n)
    mean_C = np.bincount(place_n, weight_n * left_n) / weight_C
    information_C = weight_C / spread
    total = information_C.sum()
    apart = float(information_C @ (mean_C - information_C @ mean_C / total) ** 2)
    if len(codes) < 2 or apart <= chdtri(len(codes) - 1, CHANCE):
        return {}
    room = float(total - (information_C**2).sum() / total)
    between = max(apart - (len(codes) - 1), 0.0) / max(room, NO_SCALE)
    kept_C = mean_C * between / (between + 1 / information_C)
    return {int(code): float(np.exp(kept)) for code, kept in zip(codes, kept_C, strict=True) if code >= 0}


def _residuals(
    found: AmountCalibration, raw_nQ: Float, truth_n: Float, category_n: npt.NDArray[Any]
) -> tuple[Float, tuple[float, float]]:
    """Return residuals in scales, [n], and the median scale below and above."""
    middle_n, below_n, above_n = found.parts(raw_nQ, category_n)
    apart_n = truth_n - middle_n
    return apart_n / np.where(apart_n < 0, below_n, above_n), (
        float(np.median(below_n)),
        float(np.median(above_n)),
    )


def _shape(residual_n: Float, weight_n: Float, widest: tuple[float, float]) -> tuple[float, ...]:
    """Return quantiles of residuals at ``LEVELS``, a new row counting as one more of them.

    Args:
        residual_n: in scales.
        weight_n: independent rows that each is worth.
        widest: below and above, the spread of the Number itself in scales: half a normal curve of that spread
            stands for what lies beyond the outermost residuals.
    """
    order = np.argsort(residual_n, kind="stable")
    sorted_n, weights_n = residual_n[order], weight_n[order]
    place_n = (np.cumsum(weights_n) - weights_n / 2 + 0.5) / (weights_n.sum() + 1)
    if not len(place_n):
        sorted_n, place_n = np.zeros(1), np.full(1, 0.5)
    shape_Q = np.interp(LEVELS, place_n, sorted_n)
    above_Q = np.maximum((LEVELS - place_n[-1]) / (1 - place_n[-1]), 0.0)
    below_Q = np.maximum((place_n[0] - LEVELS) / place_n[0], 0.0)
    shape_Q = np.where(above_Q > 0, np.maximum(shape_Q, widest[1] * ndtri((1 + above_Q) / 2)), shape_Q)
    shape_Q = np.where(below_Q > 0, np.minimum(shape_Q, -widest[0] * ndtri((1 + below_Q) / 2)), shape_Q)
    return tuple(shape_Q.tolist())
