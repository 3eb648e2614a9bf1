"""Points: the one number that is best for a metric, given a whole distribution.

It does not know where the distribution comes from.
Legend: n rows, Q quantile levels, K candidates.

A row's quantiles stand for its distribution as points of a quadrature: each carries the probability from halfway to the
level below it to halfway to the level above, the outermost ones the tails as well. An expectation is then a sum.

``exp(mean log)`` is best for squared errors of logarithms. SMAPE grows by the logarithmic error only while it
is small and is bounded at 200, so that its best point lies near the median, moved to where most probability lies;
absolute percentage errors are best served below it (Gneiting, "Making and evaluating point forecasts", 2011).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import LEVELS, MEDIAN
from shelfwise.errors import UsageError, listing, suggest

Float = npt.NDArray[np.float64]
_EDGES = np.concatenate([[0.0], (LEVELS[1:] + LEVELS[:-1]) / 2, [1.0]])
#: float64 [Q]: the probability that each quantile stands for.
WEIGHTS: Float = np.diff(_EDGES)
#: Of the first candidates, every fourth quantile; then the ones between, then points between those.
STRIDE, FINE = 4, 4
#: Rows that are worked on at a time.
BLOCK = 1024


def best_point(quantiles_nQ: npt.NDArray[np.floating], metric: str = "smape") -> Float:
    """Return float64 [n], the points that minimise a metric as expected under distributions.

    Args:
        quantiles_nQ: [n, Q] at ``LEVELS``, ascending.
        metric: ``smape``, ``mae`` and ``median_ape`` (the median), ``mape``, ``rmse`` (the mean), ``rmsle`` (by
            the mean of ``log(1 + x)``) or ``log`` (``exp(mean log)``).

    Raises:
        UsageError: no such metric.
    """
    check_point_metric(metric)
    point = POINTS[metric]
    quantiles_nQ = np.asarray(quantiles_nQ)
    found_n = np.zeros(len(quantiles_nQ))
    for start in range(0, len(found_n), BLOCK):
        here = slice(start, start + BLOCK)
        block_nQ = quantiles_nQ[here].astype(np.float64)
        found_n[here] = np.clip(point(block_nQ), block_nQ[:, 0], block_nQ[:, -1])
    return found_n


def check_point_metric(metric: str) -> None:
    """Refuse a metric that no best point is known for.

    Raises:
        UsageError: so it is.
    """
    if metric not in POINTS:
        hint = suggest(metric, POINTS) or f"There are: {listing(POINTS)}."
        raise UsageError(f"no number is best for the metric {metric!r}. {hint}")


def expected_smape(quantiles_nQ: Float, point_n: Float) -> Float:
    """Return float64 [n], the SMAPE to expect of one point a row, in percent."""
    return 200 * _smape_shares(quantiles_nQ, np.abs(quantiles_nQ), point_n)


def _smape_shares(quantiles_nQ: Float, size_nQ: Float, point_n: Float) -> Float:
    below_nQ = size_nQ + np.abs(point_n)[:, None]
    apart_nQ = np.abs(quantiles_nQ - point_n[:, None])
    # Both are 0 where the sum is, and nothing is off.
    np.maximum(below_nQ, np.finfo(np.float64).tiny, out=below_nQ)
    apart_nQ /= below_nQ
    return np.asarray(apart_nQ @ WEIGHTS)


def _for_smape(quantiles_nQ: Float) -> Float:
    """Search the quantiles coarse to fine: the expectation may have several valleys, each near a quantile."""
    rows, size_nQ = np.arange(len(quantiles_nQ)), np.abs(quantiles_nQ)
    last = len(LEVELS) - 1
    place_n = np.full(len(rows), float(MEDIAN))
    point_n = quantiles_nQ[:, MEDIAN]
    least_n = _smape_shares(quantiles_nQ, size_nQ, point_n)

    def attempt(at_n: Float) -> None:
        """Take the point at these (broken) places among the quantiles where it is better."""
        nonlocal place_n, point_n, least_n
        under_n = np.minimum(at_n.astype(np.int64), last - 1)
        share_n = at_n - under_n
        tried_n = quantiles_nQ[rows, under_n] * (1 - share_n) + quantiles_nQ[rows, under_n + 1] * share_n
        worth_n = _smape_shares(quantiles_nQ, size_nQ, tried_n)
        better_n = worth_n < least_n
        place_n = np.where(better_n, at_n, place_n)
        point_n, least_n = np.where(better_n, tried_n, point_n), np.where(better_n, worth_n, least_n)

    for place in range(MEDIAN % STRIDE, len(LEVELS), STRIDE):
        attempt(np.full(len(rows), float(place)))
    for moves in ((-2.0, -1.0, 1.0, 2.0), tuple(k / FINE for k in range(1 - FINE, FINE) if k)):
        around_n = place_n
        for move in moves:
            attempt(np.clip(around_n + move, 0.0, last))
    return point_n


def _for_mape(quantiles_nQ: Float) -> Float:
    """Return the median under probabilities divided by the size of the number."""
    size_nQ = np.maximum(np.abs(quantiles_nQ), np.finfo(np.float32).tiny)
    total_nQ = np.cumsum(WEIGHTS / size_nQ, axis=1)
    at_n = (total_nQ < total_nQ[:, -1:] / 2).sum(axis=1)
    return np.asarray(quantiles_nQ[np.arange(len(at_n)), at_n])


def _logs(quantiles_nQ: Float) -> Float:
    return np.log(np.maximum(quantiles_nQ, np.finfo(np.float32).tiny))


#: By metric, from quantiles [n, Q] to the best points [n].
POINTS: Mapping[str, Callable[[Float], Float]] = {
    "smape": _for_smape,
    "mae": lambda quantiles_nQ: quantiles_nQ[:, MEDIAN],
    "median_ape": lambda quantiles_nQ: quantiles_nQ[:, MEDIAN],
    "mape": _for_mape,
    "rmse": lambda quantiles_nQ: quantiles_nQ @ WEIGHTS,
    "rmsle": lambda quantiles_nQ: np.expm1(np.log1p(np.maximum(quantiles_nQ, 0.0)) @ WEIGHTS),
    "log": lambda quantiles_nQ: np.exp(_logs(quantiles_nQ) @ WEIGHTS),
}
