"""Report: scores with intervals per category x attribute; compare two.

It does not know how predictions were made. Rows are joined by id and values by name, never by position.

Shapes: n rows of a category, A attributes, V their values packed, P (category, attribute) pairs, G groups,
R bootstrap replicates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.align import Ints, Part, align
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY
from shelfwise.comparison import Comparison, Difference
from shelfwise.errors import UsageError, listing
from shelfwise.evaluate_amounts import compare_amounts, stated_amounts, with_amounts
from shelfwise.files import Progress
from shelfwise.metrics import Float, GroupSums, Tally
from shelfwise.predictions import Predictions
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.report import FREQUENCIES, NAN, Line, Report

#: Metrics printed beside the chosen one.
OTHERS = ("harmonic_f1", "micro_f1", "macro_f1", "weighted_f1", "accuracy", "log_loss")
_OVERALL = ("overall", None, None, None)


@dataclass(frozen=True)
class _Setting:
    """What several functions share: the metric, the cells that count, the draw of groups."""

    metric: Spec
    answered_only: bool
    group_N: Ints
    bootstrap: int
    seed: int
    progress: Progress | None

    @property
    def groups(self) -> int:
        return int(self.group_N.max()) + 1


@dataclass(frozen=True)
class _Table:
    """The scores of every pair: by metric (the chosen one first), its category, labels and replicates."""

    scores: dict[str, Float]
    category_P: npt.NDArray[Any]
    labels_P: Float
    samples_PR: Float


def evaluate(
    predictions: Predictions | Answers,
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None = None,
    metric: str | Spec = "harmonic_f1",
    bootstrap: int = 1000,
    seed: int = 0,
    min_rows: int = 0,
    min_values: int = 1,
    coverage: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Score predictions or answers against the stated values of a catalogue.

    The overall score is the mean over categories of the mean over their attributes. A labelled cell without
    an answer is wrong. Intervals are bias-corrected bootstrap intervals at 95 % over groups
    (``metrics.interval``).

    Args:
        predictions: of the same products, in any order; probabilities give the most probable value.
        catalog: holds the truth. Missing cells are skipped; values its taxonomy lacks count as wrong.
        groups: int [N] per catalogue row, such as near-duplicate groups; every row its own if None.
        metric: a registered metric.
        bootstrap: replicates; 0 for no intervals.
        seed: of the bootstrap.
        min_rows: leave out categories with fewer products.
        min_values: leave out attributes with fewer different true values in their category.
        coverage: score answered cells only; their share is in the report either way.
        progress: told of every bootstrap step.

    Raises:
        PredictionError: other products than the catalogue's, or answers that copied stated values.
        CatalogError: no labelled cell to score against.
    """
    amounts = stated_amounts(predictions, catalog)
    if amounts and not (catalog.codes != EMPTY).any():
        errors = len(predictions.errors)
        report = Report(
            "smape", (), len(catalog), errors, bootstrap=bootstrap, seed=seed, answered_only=coverage
        )
    else:
        parts, notes = align(predictions, catalog, min_rows, min_values)
        setting = _Setting(
            _spec(metric), coverage, _groups(parts, catalog, groups), bootstrap, seed, progress
        )
        report = _report(parts, notes, setting, predictions)
    return with_amounts(report, amounts, catalog, groups)


def _report(
    parts: Sequence[Part], notes: Sequence[str], setting: _Setting, predictions: Predictions | Answers
) -> Report:
    """Score Choice attributes."""
    sums = [_sums(part, setting) for part in parts]
    tallies = [each.total() for each in sums]
    ratios = [_per_group(parts, setting, rows=True), _per_group(parts, setting, rows=False)]
    samples_PR, ratio_samples = _bootstrap(sums, setting, ratios)
    table = _table(tallies, setting, samples_PR)
    lines = [
        *_mean_lines(_OVERALL, table, slice(None), parts),
        *(
            _ratio_line(name, of, samples)
            for name, of, samples in zip(("rows_right", "cells_right"), ratios, ratio_samples, strict=True)
        ),
        *_frequency_lines(tallies),
        *_category_lines(parts, tallies, table),
    ]
    rows = sum(len(part.rows) for part in parts)
    errors = sum(row in predictions.errors for part in parts for row in part.answer_rows.tolist())
    shared = (setting.bootstrap, setting.seed, setting.answered_only, tuple(notes))
    return Report(str(setting.metric), tuple(lines), rows, errors, setting.groups, *shared)


def compare(
    entries: Sequence[tuple[str, Predictions | Answers]],
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None = None,
    metric: str | Spec = "harmonic_f1",
    bootstrap: int = 1000,
    seed: int = 0,
    min_rows: int = 0,
    min_values: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Compare sets of predictions with the first one, on the same replicates of the same groups.

    Args:
        entries: (name, predictions), at least two, names all different.
        catalog: holds the truth.
        groups: as in ``evaluate``, like the other options.
        metric: a registered metric.
        bootstrap: replicates; 0 for no intervals, and no verdict.
        seed: of the bootstrap.
        min_rows: leave out categories with fewer products.
        min_values: leave out attributes with fewer different true values in their category.
        progress: told of every bootstrap step.

    Raises:
        UsageError: fewer than two entries, or a name twice.
        PredictionError: as in ``evaluate``.
    """
    names = tuple(name for name, _ in entries)
    if len(names) < 2 or len(set(names)) != len(names):
        raise UsageError(f"compare needs two or more predictions under different names, not {listing(names)}")
    said = [(name, stated_amounts(predictions, catalog)) for name, predictions in entries]
    numbers = compare_amounts(said, catalog, groups=groups, bootstrap=bootstrap, seed=seed)
    if numbers and not (catalog.codes != EMPTY).any():
        sizes = (len(catalog), len(catalog) if groups is None else len(np.unique(groups)))
        return Comparison("smape", names, numbers, *sizes, bootstrap, seed, ())
    notes: dict[str, None] = {}
    scores: list[tuple[Float, Float]] = []
    for name, predictions in entries:
        parts, found = align(predictions, catalog, min_rows, min_values)
        notes.update({f"{name}: {note}": None for note in found})
        setting = _Setting(_spec(metric), False, _groups(parts, catalog, groups), bootstrap, seed, progress)
        sums = [_sums(part, setting) for part in parts]
        points_P = _apply(setting.metric, [counts for each in sums for counts in each.total()])
        scores.append((points_P, _bootstrap(sums, setting, [])[0]))
    differences = list(_differences(parts, names, scores, setting.metric.name in metrics.LOWER_IS_BETTER))
    pairs = sum(line.level == "attribute" for line in differences)
    if bootstrap and pairs >= 20:
        notes[
            f"of {pairs} attribute comparisons about {round(pairs * 0.05)} would look like a difference "
            "by chance alone"
        ] = None
    rows = sum(len(part.rows) for part in parts)
    shared = (rows, setting.groups, bootstrap, seed, tuple(notes))
    return Comparison(str(setting.metric), names, (*differences, *numbers), *shared)


def _spec(metric: str | Spec) -> Spec:
    return REGISTRIES["metric"].spec(metric) if isinstance(metric, str) else metric


def _groups(parts: Sequence[Part], catalog: Catalog, groups: npt.ArrayLike | None) -> Ints:
    """Return int64 [N], the groups that have scored rows numbered from 0; -1 for other rows."""
    given_N = np.arange(len(catalog)) if groups is None else np.asarray(groups)
    if given_N.shape != (len(catalog),):
        raise UsageError(f"group numbers of shape {given_N.shape} for {len(catalog)} products")
    group_N = np.full(len(catalog), -1, np.int64)
    rows = np.concatenate([part.rows for part in parts])
    group_N[rows] = np.unique(given_N[rows], return_inverse=True)[1]
    return group_N


def _sums(part: Part, setting: _Setting) -> GroupSums:
    groups_n = setting.group_N[part.rows]
    return metrics.group_sums(
        part.truth_nA, part.answer_nA, part.slices, groups_n, part.probs_nV, setting.answered_only
    )


def _per_group(parts: Sequence[Part], setting: _Setting, *, rows: bool) -> tuple[Float, Float]:
    """Return right and all per group, [G] each: counted in whole rows, or in cells."""
    right_G, all_G = np.zeros(setting.groups), np.zeros(setting.groups)
    for part in parts:
        cell_nA = part.counting(setting.answered_only)
        good_nA = cell_nA & (part.truth_nA == part.answer_nA)
        right, every = good_nA.sum(axis=1), cell_nA.sum(axis=1)
        if rows:
            right, every = (right == every) & (every > 0), every > 0
        group_n = setting.group_N[part.rows]
        right_G += np.bincount(group_n, right, setting.groups)
        all_G += np.bincount(group_n, every, setting.groups)
    return right_G, all_G


def _bootstrap(
    sums: Sequence[GroupSums], setting: _Setting, ratios: Sequence[tuple[Float, Float]]
) -> tuple[Float, list[Float]]:
    """Return the metric of every pair [P, R] and each ratio [R] over the same replicates."""
    pairs = sum(len(each.slices) for each in sums)
    samples_PR = np.full((pairs, setting.bootstrap), np.nan)
    ratio_samples = [np.full(setting.bootstrap, np.nan) for _ in ratios]
    done = 0
    for weights_RG in metrics.group_weights(setting.groups, setting.bootstrap, setting.seed):
        here = slice(done, done + len(weights_RG))
        pair = 0
        for each in sums:
            samples_PR[pair : pair + len(each.slices), here] = _apply(
                setting.metric, each.weighted(weights_RG)
            )
            pair += len(each.slices)
            if setting.progress is not None:
                setting.progress(
                    "intervals", done * pairs + len(weights_RG) * pair, setting.bootstrap * pairs
                )
        for samples_R, (above_G, below_G) in zip(ratio_samples, ratios, strict=True):
            below = weights_RG @ below_G
            np.divide(weights_RG @ above_G, below, out=samples_R[here], where=below > 0)
        done = here.stop
    return samples_PR, ratio_samples


def _line(key: tuple[str | None, ...], metric: str, score: float, samples_R: Float, support: float) -> Line:
    level, category, attribute, value = key
    low, high = metrics.interval(samples_R, score) if len(samples_R) else (NAN, NAN)
    return Line(str(level), category, attribute, value, metric, score, low, high, round(support))


def _ratio_line(name: str, of: tuple[Float, Float], samples_R: Float) -> Line:
    right, every = float(of[0].sum()), float(of[1].sum())
    score = right / every if every else NAN
    return _line(_OVERALL, name, score, samples_R, every)


def _majority(counts: Tally) -> Tally:
    """Return the counts of always answering the most frequent value, and its shares as probabilities."""
    most_V = np.zeros_like(counts.truth_V)
    most_V[counts.truth_V.argmax()] = 1
    total = counts.truth_V.sum()
    held_V = counts.truth_V[counts.truth_V > 0]
    loss = -(held_V * np.log(held_V / total)).sum()
    return Tally(counts.truth_V * most_V, total * most_V, counts.truth_V, np.asarray(loss), np.asarray(total))


def _calibration(parts: Sequence[Part]) -> float:
    """Return the calibration error over all answered cells."""
    cells = [part.counting(True) for part in parts]
    sure = [part.sure_nA[cell] for part, cell in zip(parts, cells, strict=True)]
    right = [(part.truth_nA == part.answer_nA)[cell] for part, cell in zip(parts, cells, strict=True)]
    return metrics.expected_calibration_error(np.concatenate(sure), np.concatenate(right))


def _apply(metric: Spec, tallies: Sequence[Tally]) -> Float:
    """Return a metric of many pairs, [P, ...]; pairs of like width in one call, padded with absent values."""
    shape = tallies[0].truth_V.shape[:-1]
    out_P = np.full((len(tallies), *shape), np.nan)
    alike: dict[int, list[int]] = {}
    for pair, counts in enumerate(tallies):
        alike.setdefault((counts.truth_V.shape[-1] - 1).bit_length(), []).append(pair)
    for power, pairs in alike.items():
        padded = np.zeros((3, len(pairs), *shape, 2**power))
        loss, cells = np.zeros((len(pairs), *shape)), np.zeros((len(pairs), *shape))
        for k, counts in enumerate(tallies[pair] for pair in pairs):
            width = counts.truth_V.shape[-1]
            padded[0, k, ..., :width] = counts.correct_V
            padded[1, k, ..., :width] = counts.answered_V
            padded[2, k, ..., :width] = counts.truth_V
            loss[k], cells[k] = counts.loss, counts.loss_cells
        out_P[pairs] = metrics.apply(metric, Tally(padded[0], padded[1], padded[2], loss, cells))
    return out_P


def _mean(scores_P: Float, category_P: npt.NDArray[Any]) -> Float:
    return scores_P[0] if len(scores_P) == 1 else metrics.mean_of_means(scores_P, category_P)


def _table(tallies: Sequence[list[Tally]], setting: _Setting, samples_PR: Float) -> _Table:
    """Score every pair by the chosen metric, the others, and the majority answer."""
    flat = [counts for counts_A in tallies for counts in counts_A]
    scores = {str(setting.metric): _apply(setting.metric, flat)}
    scores |= {name: _apply(_spec(name), flat) for name in OTHERS if name not in scores}
    scores["majority"] = _apply(setting.metric, [_majority(counts) for counts in flat])
    category_P = np.repeat(np.arange(len(tallies)), [len(counts_A) for counts_A in tallies])
    return _Table(scores, category_P, np.array([counts.truth_V.sum() for counts in flat]), samples_PR)


def _mean_lines(
    key: tuple[str | None, ...], table: _Table, chosen: slice, parts: Sequence[Part]
) -> Iterator[Line]:
    """Yield the numbers of the chosen pairs: means over categories of means over attributes."""
    category_P, none_R = table.category_P[chosen], np.zeros(0)
    labels = float(table.labels_P[chosen].sum())
    for number, (name, scores_P) in enumerate(table.scores.items()):
        intervals = number == 0 and table.samples_PR.shape[1]
        samples_R = _mean(table.samples_PR[chosen], category_P) if intervals else none_R
        yield _line(key, name, float(_mean(scores_P[chosen], category_P)), samples_R, labels)
    labelled = sum(int(part.counting(False).sum()) for part in parts)
    answered = sum(int(part.counting(True).sum()) for part in parts)
    yield _line(key, "coverage", answered / labelled if labelled else NAN, none_R, labelled)
    yield _line(key, "ece", _calibration(parts), none_R, answered)


def _category_lines(parts: Sequence[Part], tallies: Sequence[list[Tally]], table: _Table) -> Iterator[Line]:
    """Yield the numbers of every category, then of its attributes, then of their values."""
    first = 0
    for part, counts_A in zip(parts, tallies, strict=True):
        chosen = slice(first, first + len(counts_A))
        yield from _mean_lines(("category", part.category, None, None), table, chosen, [part])
        for a, counts in enumerate(counts_A):
            key = ("attribute", part.category, part.names[a], None)
            yield from _mean_lines(key, table, slice(first + a, first + a + 1), [_only(part, a)])
            yield from _value_lines(part.category, part.names[a], part.values[a], counts)
        first = chosen.stop


def _only(part: Part, a: int) -> Part:
    """Return the part with one attribute; its probabilities are not needed any more."""
    column = slice(a, a + 1)
    return replace(
        part,
        names=part.names[column],
        values=part.values[column],
        truth_nA=part.truth_nA[:, column],
        answer_nA=part.answer_nA[:, column],
        sure_nA=part.sure_nA[:, column],
        probs_nV=None,
    )


def _value_lines(category: str, attribute: str, values: Sequence[str], counts: Tally) -> Iterator[Line]:
    precision_V, recall_V, f1_V = metrics.per_value(counts)
    for code in np.flatnonzero(counts.answered_V + counts.truth_V).tolist():
        for name, score_V in (("precision", precision_V), ("recall", recall_V), ("f1", f1_V)):
            key = ("value", category, attribute, values[code])
            yield _line(key, name, float(score_V[code]), np.zeros(0), float(counts.truth_V[code]))


def _frequency_lines(tallies: Sequence[list[Tally]]) -> Iterator[Line]:
    """Yield, per band of frequency, the number of values, their mean F1 and the share of cells right."""
    bands: dict[str, list[tuple[float, float, float]]] = {name: [] for _, name in FREQUENCIES}
    for counts in (each for counts_A in tallies for each in counts_A):
        total, f1_V = counts.truth_V.sum(), metrics.per_value(counts)[2]
        for code in np.flatnonzero(counts.truth_V).tolist():
            share = counts.truth_V[code] / total
            name = next(name for edge, name in FREQUENCIES if share < edge or edge == 1.0)
            bands[name].append(
                (float(f1_V[code]), float(counts.correct_V[code]), float(counts.truth_V[code]))
            )
    for name, found in bands.items():
        key, none_R = ("frequency", None, None, name), np.zeros(0)
        f1, right, labels = np.array(found).reshape(-1, 3).T
        support = float(labels.sum())
        yield _line(key, "values", float(len(found)), none_R, support)
        yield _line(key, "f1", float(f1.mean()) if found else NAN, none_R, support)
        yield _line(key, "recall", float(right.sum() / support) if found else NAN, none_R, support)


def _differences(
    parts: Sequence[Part], names: Sequence[str], scores: Sequence[tuple[Float, Float]], less_is_better: bool
) -> Iterator[Difference]:
    """Yield all against the first: overall, then per category and attribute."""
    category_P = np.repeat(np.arange(len(parts)), [len(part.names) for part in parts])
    labels_P = np.concatenate([(part.truth_nA >= 0).sum(axis=0) for part in parts])
    places: list[tuple[tuple[str, str | None, str | None], npt.NDArray[np.bool_]]] = []
    places.append((("overall", None, None), np.ones(len(category_P), bool)))
    for number, part in enumerate(parts):
        places.append((("category", part.category, None), category_P == number))
        start = int(np.flatnonzero(category_P == number)[0])
        for a, name in enumerate(part.names):
            places.append((("attribute", part.category, name), np.arange(len(category_P)) == start + a))
    for key, chosen_P in places:
        first, first_R = (
            metrics.mean_of_means(values[chosen_P], category_P[chosen_P]) for values in scores[0]
        )
        for name, (points_P, samples_PR) in zip(names[1:], scores[1:], strict=True):
            point = metrics.mean_of_means(points_P[chosen_P], category_P[chosen_P])
            point_R = metrics.mean_of_means(samples_PR[chosen_P], category_P[chosen_P])
            gap = float(point - first)
            low, high = metrics.interval(np.asarray(point_R - first_R), gap)
            verdict = "not shown"
            if low > 0 or high < 0:
                verdict = "better" if (low > 0) != less_is_better else "worse"
            support = int(labels_P[chosen_P].sum())
            yield Difference(*key, name, float(point), float(first), gap, low, high, verdict, support)
