"""Harmonic F1, micro, macro, calibration error, SMAPE, bootstrap over groups: arrays in, floats out.

It does not know catalogues, taxonomies or models, only codes and probabilities.

Shapes: N cells or rows, V values of one attribute (or of all attributes of a category, packed), A attributes
of a category, G groups, R bootstrap replicates, K bins. ``...`` is nothing for a plain score, or R.

Codes: a value is its position in [0, V). In the truth -1 is a missing label: the cell is skipped. In an
answer -1 is "no answer": wrong, unless only answered cells are asked for.

A choosable metric is a function ``(tally: Tally, *, options) -> array [...]`` decorated with
``@register.metric(name)``: it sees the counts of one (category, attribute) pair, gives NaN where there is
nothing to score, and must work with leading replicate dimensions. Higher is better unless the name is in
``LOWER_IS_BETTER``.
"""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shelfwise.errors import UsageError
from shelfwise.registry import REGISTRIES, Spec, register

Float = NDArray[np.float64]
Codes = NDArray[Any]

#: Registered metrics of which less is better.
LOWER_IS_BETTER: set[str] = {"log_loss"}
#: Probabilities below this count as this in a log loss (the spacing of float32 at one).
SMALLEST_PROBABILITY = 2.0**-23


@dataclass(frozen=True)
class Tally:
    """Everything a metric may look at for one (category, attribute) pair; every field is a plain sum.

    Attributes:
        correct_V: cells answered with this value, rightly. [..., V]
        answered_V: cells answered with this value. [..., V]
        truth_V: cells whose true value this is. [..., V]
        loss: sum of -log p(true value) over the cells that have probabilities. [...]
        loss_cells: how many cells that is. [...]
    """

    correct_V: Float
    answered_V: Float
    truth_V: Float
    loss: Float
    loss_cells: Float


def tally(
    truth_N: Codes,
    predicted_N: Codes,
    width: int,
    probs_NV: NDArray[Any] | None = None,
    *,
    answered_only: bool = False,
) -> Tally:
    """Count the cells of one pair.

    Args:
        truth_N: true codes, -1 = missing.
        predicted_N: answered codes, -1 = no answer.
        width: number of values V.
        probs_NV: probabilities, for the log loss; a row with a NaN has none.
        answered_only: leave cells without an answer out instead of counting them as wrong.

    Raises:
        UsageError: codes outside [-1, V) or lengths that differ.
    """
    part = slice(0, width)
    sums = group_sums(truth_N[:, None], predicted_N[:, None], [part], None, probs_NV, answered_only)
    return sums.total()[0]


def score(
    metric: str | Spec,
    truth_N: Codes,
    predicted_N: Codes,
    width: int,
    probs_NV: NDArray[Any] | None = None,
) -> float:
    """Return a registered metric of one pair; NaN if there is nothing to score. Arguments as in ``tally``."""
    return float(apply(metric, tally(truth_N, predicted_N, width, probs_NV)))


def apply(metric: str | Spec, counts: Tally) -> Float:
    """Return a registered metric, given by name or spec, of a tally; a UsageError if there is none such."""
    registry = REGISTRIES["metric"]
    spec = registry.spec(metric) if isinstance(metric, str) else metric
    return np.asarray(registry.build(spec, counts), dtype=np.float64)


def _ratio(above: NDArray[Any], below: NDArray[Any]) -> Float:
    """Divide; NaN where the divisor is 0."""
    out: Float = np.full(np.shape(below), np.nan)
    return np.asarray(np.divide(above, below, out=out, where=np.asarray(below) > 0))


def per_value(counts: Tally) -> tuple[Float, Float, Float]:
    """Return precision, recall and F1 of each value, [..., V] each; NaN where it is 0 / 0."""
    correct, answered, truth = counts.correct_V, counts.answered_V, counts.truth_V
    return _ratio(correct, answered), _ratio(correct, truth), _ratio(2 * correct, answered + truth)


@register.metric("accuracy")
def accuracy(counts: Tally) -> Float:
    """Return the share of labelled cells answered rightly; no answer is wrong."""
    return _ratio(counts.correct_V.sum(axis=-1), counts.truth_V.sum(axis=-1))


@register.metric("micro_f1")
def micro_f1(counts: Tally) -> Float:
    """Return the F1 of all cells pooled, no answer being a wrong one; with one answer a cell: accuracy."""
    return accuracy(counts)


@register.metric("macro_f1")
def macro_f1(counts: Tally) -> Float:
    """Return the mean of the F1 of the values that are present in the truth or among the answers."""
    present_V = (counts.answered_V + counts.truth_V) > 0
    mean = _ratio(np.where(present_V, np.nan_to_num(per_value(counts)[2]), 0.0).sum(-1), present_V.sum(-1))
    return np.where(counts.truth_V.sum(-1) > 0, mean, np.nan)


@register.metric("weighted_f1")
def weighted_f1(counts: Tally) -> Float:
    """Return the mean of the values' F1, weighted by how often each is the truth."""
    return _ratio((np.nan_to_num(per_value(counts)[2]) * counts.truth_V).sum(-1), counts.truth_V.sum(-1))


@register.metric("harmonic_f1")
def harmonic_f1(counts: Tally) -> Float:
    """Return the harmonic mean of micro-F1 and macro-F1; 0 where both are 0."""
    micro, macro = micro_f1(counts), macro_f1(counts)
    total = micro + macro
    return np.where(total == 0, 0.0, _ratio(2 * micro * macro, total))


@register.metric("log_loss")
def log_loss(counts: Tally) -> Float:
    """Return the mean of -log p(true value), in nats, over the cells that have probabilities."""
    return _ratio(counts.loss, counts.loss_cells)


def mean_of_means(scores_P: Float, category_P: Codes) -> Float:
    """Return the mean over categories of the mean over their attributes: the challenge score.

    Args:
        scores_P: one score per (category, attribute) pair; replicates may follow as [P, R]. NaN is skipped.
        category_P: the category number of each pair. The result is NaN where no pair has a score.
    """
    _, position_P = np.unique(category_P, return_inverse=True)
    groups = int(position_P.max()) + 1 if len(position_P) else 0
    scored_P = ~np.isnan(scores_P)
    sums = np.zeros((groups, *scores_P.shape[1:]))
    cells = np.zeros_like(sums)
    np.add.at(sums, position_P, np.where(scored_P, scores_P, 0.0))
    np.add.at(cells, position_P, scored_P.astype(np.float64))
    means = _ratio(sums, cells)
    known = ~np.isnan(means)
    return _ratio(np.where(known, means, 0.0).sum(0), known.sum(0))


@dataclass(frozen=True)
class GroupSums:
    """The tallies of one category's attributes, kept apart by group so that groups can be re-weighted.

    Attributes:
        matrix: sparse [3V + 2A, g]: correct, answered, truth per value, loss and cells per attribute.
        present: the groups that have rows here: the columns of ``matrix``. [g]
        slices: each attribute's part of [0, V).
    """

    matrix: Any
    present: NDArray[np.int64]
    slices: tuple[slice, ...]

    def total(self) -> list[Tally]:
        """Return one tally per attribute, every group counted once."""
        return self._tallies(np.asarray(self.matrix.sum(axis=1), dtype=np.float64).reshape(-1))

    def weighted(self, weights_RG: NDArray[Any]) -> list[Tally]:
        """Return one tally per attribute, [R, ...]: each group counted ``weights_RG`` times."""
        weights_gR = np.ascontiguousarray(weights_RG[:, self.present].T, dtype=np.float64)
        return self._tallies(np.ascontiguousarray((self.matrix @ weights_gR).T))

    def _tallies(self, sums: Float) -> list[Tally]:
        wide, count = self.slices[-1].stop if self.slices else 0, len(self.slices)
        correct, answered, truth = (sums[..., k * wide : (k + 1) * wide] for k in range(3))
        loss, cells = sums[..., 3 * wide : 3 * wide + count], sums[..., 3 * wide + count :]
        return [
            Tally(correct[..., part], answered[..., part], truth[..., part], loss[..., a], cells[..., a])
            for a, part in enumerate(self.slices)
        ]


def group_sums(
    truth_NA: Codes,
    predicted_NA: Codes,
    slices: Sequence[slice],
    groups_N: Codes | None = None,
    probs_NV: NDArray[Any] | None = None,
    answered_only: bool = False,
) -> GroupSums:
    """Count the cells of one category's attributes per group.

    Args:
        truth_NA: true codes, -1 = missing.
        predicted_NA: answered codes, -1 = no answer.
        slices: each attribute's part of the packed values [0, V), in order and without gaps.
        groups_N: a group number in [0, G) per row; all rows in one group if None.
        probs_NV: packed probabilities, for the log loss; NaN where a row has none.
        answered_only: as in ``tally``.

    Raises:
        UsageError: codes outside [-1, V) of their attribute, or lengths that differ.
    """
    from scipy.sparse import csr_array

    truth_NA, predicted_NA = np.asarray(truth_NA), np.asarray(predicted_NA)
    groups_N = np.zeros(len(truth_NA), np.int64) if groups_N is None else np.asarray(groups_N)
    starts_A = np.array([part.start for part in slices], np.int64)
    widths_A = np.array([part.stop - part.start for part in slices], np.int64)
    if truth_NA.shape != predicted_NA.shape or truth_NA.shape != (len(groups_N), len(widths_A)):
        shapes = truth_NA.shape, predicted_NA.shape, groups_N.shape
        raise UsageError(f"truth, answers and groups are of different shapes: {shapes}")
    for name, codes in (("truth", truth_NA), ("answers", predicted_NA)):
        if codes.size and (codes.min() < -1 or (codes >= widths_A).any()):
            raise UsageError(f"the {name} hold codes outside -1 ... number of values - 1")
    present, column_N = np.unique(groups_N, return_inverse=True)
    wide, count = int(widths_A.sum()), len(widths_A)
    cell = (truth_NA >= 0) & ((predicted_NA >= 0) if answered_only else True)
    row, attribute = np.nonzero(cell)
    truth = truth_NA[row, attribute] + starts_A[attribute]
    answered = predicted_NA[row, attribute] >= 0
    answer = predicted_NA[row, attribute] + starts_A[attribute]
    right = answered & (answer == truth)
    parts = [(answer[right], row[right]), (wide + answer[answered], row[answered]), (2 * wide + truth, row)]
    weights = [np.ones(len(line)) for line, _ in parts]
    if probs_NV is not None:
        chance = np.asarray(probs_NV)[row, truth].astype(np.float64)
        known = ~np.isnan(chance)
        line = 3 * wide + attribute[known]
        parts += [(line, row[known]), (line + count, row[known])]
        weights += [-np.log(np.maximum(chance[known], SMALLEST_PROBABILITY)), np.ones(len(line))]
    lines = np.concatenate([line for line, _ in parts])
    columns = column_N[np.concatenate([rows for _, rows in parts])]
    matrix = csr_array(
        (np.concatenate(weights), (lines, columns)), shape=(3 * wide + 2 * count, max(len(present), 1))
    )
    return GroupSums(matrix, present.astype(np.int64), tuple(slices))


def group_weights(groups: int, replicates: int, seed: int, cells: int = 32_000_000) -> Iterator[NDArray[Any]]:
    """Draw how often each group stands in each bootstrap replicate, in blocks [r, G] that fit in memory.

    Whole groups are drawn with replacement, as many as there are (the cluster bootstrap: Davison and Hinkley,
    *Bootstrap Methods and their Application*, 1997, section 3.8). The draw does not depend on the block size.

    Args:
        groups: number of groups G.
        replicates: number of replicates R.
        seed: of the draw.
        cells: most cells of a block.
    """
    rng = np.random.default_rng(seed)
    step = max(1, cells // max(groups, 1))
    for start in range(0, replicates, step):
        block = np.zeros((min(step, replicates - start), groups), np.uint16)
        for weights_G in block:
            weights_G[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        yield block


def interval(samples_R: Float, point: float, level: float = 0.95) -> tuple[float, float]:
    """Return the bias-corrected percentile interval of bootstrap replicates; NaN where it cannot be had.

    Replicates miss rare values, so their macro-F1 lies to one side of the sample's, and over the mean of many
    pairs plain percentiles cover the truth far too seldom. The quantiles are moved by the normal score of the
    share of replicates below the point (Efron, *Canadian Journal of Statistics* 9, 1981).
    """
    known = samples_R[~np.isnan(samples_R)]
    if np.isnan(point) or len(known) < 2:
        return float("nan"), float("nan")
    normal = statistics.NormalDist()
    below = (np.sum(known < point) + 0.5 * np.sum(known == point)) / len(known)
    shift = normal.inv_cdf(float(np.clip(below, 0.5 / len(known), 1 - 0.5 / len(known))))
    tail = normal.inv_cdf(0.5 + level / 2)
    low, high = np.quantile(known, [normal.cdf(2 * shift - tail), normal.cdf(2 * shift + tail)])
    return float(low), float(high)


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram: each bin's edges, cells, mean confidence and share right (NaN where empty)."""

    low_K: Float
    high_K: Float
    cells_K: Float
    confidence_K: Float
    accuracy_K: Float


def reliability(
    confidence_N: NDArray[Any],
    correct_N: NDArray[Any],
    *,
    bins: int = 15,
    scheme: Literal["width", "mass"] = "width",
) -> Reliability:
    """Sort cells into bins by confidence.

    Args:
        confidence_N: probability of each answer, in [0, 1]; NaN is skipped.
        correct_N: whether it was right.
        bins: number of bins K; fewer where equal-mass edges coincide.
        scheme: ``width`` for bins of equal width over [0, 1], ``mass`` for bins of (nearly) equal counts.
    """
    known = ~np.isnan(np.asarray(confidence_N, np.float64))
    confidence = np.asarray(confidence_N, np.float64)[known]
    correct = np.asarray(correct_N)[known].astype(np.float64)
    edges = np.linspace(0.0, 1.0, bins + 1)
    if scheme == "mass" and len(confidence):
        last = np.maximum(np.arange(1, bins) * len(confidence) // bins - 1, 0)
        edges = np.unique(np.concatenate([[0.0], np.sort(confidence)[last], [1.0]]))
    bin_N = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)
    values = np.ones(len(confidence)), confidence, correct
    cells, sure, right = (np.bincount(bin_N, v, len(edges) - 1).astype(np.float64) for v in values)
    return Reliability(edges[:-1], edges[1:], cells, _ratio(sure, cells), _ratio(right, cells))


def expected_calibration_error(
    confidence_N: NDArray[Any],
    correct_N: NDArray[Any],
    *,
    bins: int = 15,
    scheme: Literal["width", "mass"] = "width",
) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the cells of each bin; NaN if none.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3. Arguments: ``reliability``.
    """
    found = reliability(confidence_N, correct_N, bins=bins, scheme=scheme)
    if found.cells_K.sum() == 0:
        return float("nan")
    gap_K = np.abs(np.nan_to_num(found.accuracy_K) - np.nan_to_num(found.confidence_K))
    return float((gap_K * found.cells_K).sum() / found.cells_K.sum())


#: Metrics of numbers that are sums over rows divided by sums over rows (``number_terms``); less is better.
NUMBER_METRICS = ("smape", "mae", "rmse")


def number_terms(metric: str, truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> tuple[Float, Float]:
    """Return what each row adds above and below the line of a metric, [N] each; a bootstrap re-weights these.

    Args:
        metric: of ``NUMBER_METRICS``.
        truth_N: stated numbers; a row with NaN adds nothing.
        predicted_N: NaN for none: 200 in SMAPE, nothing in the others.

    Raises:
        UsageError: another metric.
    """
    if metric not in NUMBER_METRICS:
        raise UsageError(f"{metric!r} is not a sum over rows: {', '.join(NUMBER_METRICS)}")
    truth, predicted = np.asarray(truth_N, np.float64), np.asarray(predicted_N, np.float64)
    stated, answered = ~np.isnan(truth), ~np.isnan(predicted)
    if metric == "smape":
        share = np.nan_to_num(_ratio(2 * np.abs(predicted - truth), np.abs(truth) + np.abs(predicted)))
        return np.where(stated, 100 * np.where(answered, share, 2.0), 0.0), stated.astype(np.float64)
    known = stated & answered
    apart = np.abs(np.where(known, predicted - truth, 0.0))
    return apart if metric == "mae" else np.square(apart), known.astype(np.float64)


def number_score(metric: str, above: NDArray[Any], below: NDArray[Any]) -> Float:
    """Return a metric from sums of ``number_terms``, of any shape; NaN where nothing was summed."""
    found = _ratio(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.sqrt(found) if metric == "rmse" else found


def _score(metric: str, truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    above, below = number_terms(metric, truth_N, predicted_N)
    return float(number_score(metric, above.sum(), below.sum()))


def smape(truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """Return the symmetric mean absolute percentage error, 0 ... 200; a prediction of NaN counts as 200.

    The mean of 100 |p - t| / ((|t| + |p|) / 2), 0 where both are 0 (Makridakis, 1993). NaN truth is skipped.
    """
    return _score("smape", truth_N, predicted_N)


def mae(truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """Return the mean absolute error where both numbers are known; NaN if none."""
    return _score("mae", truth_N, predicted_N)


def rmse(truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """Return the root of the mean squared error where both numbers are known; NaN if none."""
    return _score("rmse", truth_N, predicted_N)


def median_ape(truth_N: NDArray[Any], predicted_N: NDArray[Any]) -> float:
    """Return the median of 100 |p - t| / |t| over truths not 0; a prediction of NaN is infinitely off."""
    truth, predicted = np.asarray(truth_N, np.float64), np.asarray(predicted_N, np.float64)
    keep = ~np.isnan(truth) & (truth != 0)
    if not keep.any():
        return float("nan")
    share = 100 * np.abs(predicted[keep] - truth[keep]) / np.abs(truth[keep])
    share = np.where(np.isnan(share), np.inf, share)
    middle = np.sort(share)[[(len(share) - 1) // 2, len(share) // 2]]
    return float(middle[1]) if np.isinf(middle[1]) else float(middle.mean())


def range_coverage(truth_N: NDArray[Any], low_N: NDArray[Any], high_N: NDArray[Any]) -> float:
    """Return the share of the truths that lie in their ranges, ends included; NaN truths and ranges are skipped."""
    known = ~np.isnan(np.asarray(truth_N, np.float64)) & ~np.isnan(np.asarray(low_N, np.float64))
    inside = known & (low_N <= truth_N) & (truth_N <= high_N)
    return float(_ratio(inside.sum(), known.sum()))


def range_width(low_N: NDArray[Any], high_N: NDArray[Any]) -> float:
    """Return how many times their low ends the high ends of ranges are, as a geometric mean; NaN if none is above 0."""
    known = np.asarray(low_N, np.float64) > 0
    return float(np.exp(np.log(high_N[known] / low_N[known]).mean())) if known.any() else float("nan")
