"""Scores of answered numbers, with intervals: overall, by category, by band of the truth; two sets compared.

It does not know how numbers were predicted, nor how a report is printed.
Legend: N rows of the table, m scored ones, L lines (all rows, a category, a band), G groups, R bootstrap replicates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.align import join
from shelfwise.amounts import AMOUNT_COLUMNS, AmountAnswers
from shelfwise.answers import STATES, Answers
from shelfwise.catalog import Catalog
from shelfwise.comparison import Difference
from shelfwise.errors import CatalogError, PredictionError, UsageError, listing
from shelfwise.metrics import NUMBER_METRICS, Float
from shelfwise.predictions import Predictions
from shelfwise.report import NAN, Line, Report

Ints = npt.NDArray[np.int64]
_NONE = np.zeros(0)


@dataclass(frozen=True)
class _Part:
    """The scored rows of one Number.

    Attributes:
        name: of the Number.
        rows: int64 [m], positions in the table.
        group: int64 [m], numbered from 0.
        truth, value, low, high: float64 [m]; NaN where nothing is answered.
        places: L keys (level, category, value) with the positions among the scored rows, [l].
    """

    name: str
    rows: Ints
    group: Ints
    truth: Float
    value: Float
    low: Float
    high: Float
    places: tuple[tuple[tuple[str, str | None, str | None], Ints], ...]


def evaluate_amounts(
    answers: Sequence[AmountAnswers],
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    bands: int = 4,
) -> tuple[Line, ...]:
    """Score answered numbers against the stated ones.

    Of every Number there are SMAPE, mean absolute error and root mean squared error, the median absolute percentage
    error, the share of truths in their range (``coverage``), how many times their low ends the ranges' high ends
    are (``width``), and the share of rows that have an answer (``answered``). A row without an answer counts as 200 in
    SMAPE and as infinitely off in the median; the other errors are of answered rows. The first three and the coverage
    have bias-corrected bootstrap intervals at 95 % over groups.

    Args:
        answers: one per Number, of the catalogue's rows.
        catalog: holds the truth.
        groups: int [N], such as near-duplicate groups; every row its own if None.
        bootstrap: replicates; 0 for no intervals.
        seed: of the bootstrap.
        bands: bands of the truth, each with as many rows.

    Returns:
        Lines of the levels ``overall``, ``category`` and ``band``, the attribute being the Number's name and the
        value a band such as ``12-25``.

    Raises:
        PredictionError: answers that copied stated numbers, or of rows that the catalogue has not.
        CatalogError: no stated number to score against.
    """
    lines: list[Line] = []
    for each in answers:
        part = _part(each, catalog, groups, bands)
        ratios = {name: metrics.number_terms(name, part.truth, part.value) for name in NUMBER_METRICS}
        inside_m = (part.low <= part.truth) & (part.truth <= part.high)
        ratios["coverage"] = inside_m.astype(np.float64), (~np.isnan(part.low)).astype(np.float64)
        scores = {name: _scores(name, terms, part) for name, terms in ratios.items()}
        samples = {name: _samples(name, terms, part, bootstrap, seed) for name, terms in ratios.items()}
        for at, (key, rows) in enumerate(part.places):
            level, category, value = key
            for name, score_L in scores.items():
                score, support = float(score_L[at]), round(float(ratios[name][1][rows].sum()))
                low, high = metrics.interval(samples[name][:, at], score)
                lines.append(Line(level, category, part.name, value, name, score, low, high, support))
            for name, score in _plain(part, rows):
                lines.append(Line(level, category, part.name, value, name, score, support=len(rows)))
    return tuple(lines)


def stated_amounts(predictions: Predictions | Answers, catalog: Catalog) -> list[AmountAnswers]:
    """Return what is answered of the Numbers that a catalogue states, rows in its order.

    Raises:
        PredictionError: other products than the catalogue's.
    """
    answers = predictions.answers() if isinstance(predictions, Predictions) else predictions
    at_N = join(answers.ids, catalog)
    row_of = np.empty(len(at_N), np.int64)
    row_of[at_N] = np.arange(len(at_N))
    found = []
    for item in answers.amounts:
        if np.isfinite(catalog.numbers(item.name)).any():
            rows = row_of[item.rows]
            order = np.argsort(rows)
            columns = {name: getattr(item, name)[order] for name in AMOUNT_COLUMNS}
            found.append(replace(item, rows=rows[order], **columns))
    return found


def with_amounts(
    report: Report, answers: Sequence[AmountAnswers], catalog: Catalog, groups: npt.ArrayLike | None
) -> Report:
    """Return a report with the scores of Numbers put in; intervals as it has them.

    In a report that has no scores yet, their mean is the overall score, by the report's metric.

    Args:
        report: of the Choice attributes, or an empty one.
        answers, catalog, groups: as in ``evaluate_amounts``.
    """
    if not answers:
        return report
    lines = evaluate_amounts(answers, catalog, groups=groups, bootstrap=report.bootstrap, seed=report.seed)
    if not report.lines:
        found = [line for line in lines if line.level == "overall" and line.metric == report.metric]
        low, high = (found[0].low, found[0].high) if len(found) == 1 else (NAN, NAN)
        score, support = float(np.mean([line.score for line in found])), sum(line.support for line in found)
        lines = (Line("overall", None, None, None, report.metric, score, low, high, support), *lines)
        report = replace(report, groups=len(catalog) if groups is None else len(np.unique(groups)))
    return replace(report, lines=(*report.lines, *lines))


def compare_amounts(
    entries: Sequence[tuple[str, Sequence[AmountAnswers]]],
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None = None,
    metric: str = "smape",
    bootstrap: int = 1000,
    seed: int = 0,
) -> tuple[Difference, ...]:
    """Compare answered numbers with the first ones, on the same replicates of the same groups.

    Args:
        entries: (name, answers), at least two, names all different; Numbers that one of them lacks are left out.
        catalog: holds the truth.
        groups: as in ``evaluate_amounts``, like the other options.
        metric: ``smape``, ``mae`` or ``rmse``; the last two over rows that all of them answer.
        bootstrap: replicates; 0 for no intervals, and no verdict.
        seed: of the bootstrap.

    Raises:
        UsageError: fewer than two entries, a name twice, or another metric.
        PredictionError, CatalogError: as in ``evaluate_amounts``.
    """
    names = tuple(name for name, _ in entries)
    if len(names) < 2 or len(set(names)) != len(names):
        raise UsageError(f"compare needs two or more answers under different names, not {listing(names)}")
    if metric not in NUMBER_METRICS:
        raise UsageError(f"numbers are compared by one of {listing(NUMBER_METRICS)}, not {metric!r}")
    differences: list[Difference] = []
    for first in entries[0][1]:
        each = [next((a for a in answers if a.name == first.name), None) for _, answers in entries]
        parts = [_part(found, catalog, groups, 0) for found in each if found is not None]
        if len(parts) == len(entries):
            differences += _compared(names, parts, metric, bootstrap, seed)
    return tuple(differences)


def _compared(
    names: Sequence[str], parts: Sequence[_Part], metric: str, bootstrap: int, seed: int
) -> Iterator[Difference]:
    """Yield all against the first: overall, then per category."""
    all_m = np.all([~np.isnan(part.value) for part in parts], axis=0)
    truth_m = parts[0].truth if metric == "smape" else np.where(all_m, parts[0].truth, np.nan)
    terms = [metrics.number_terms(metric, truth_m, part.value) for part in parts]
    scores = [_scores(metric, each, part) for each, part in zip(terms, parts, strict=True)]
    samples = [_samples(metric, each, part, bootstrap, seed) for each, part in zip(terms, parts, strict=True)]
    for at, ((level, category, _), rows) in enumerate(parts[0].places):
        first, support = float(scores[0][at]), round(float(terms[0][1][rows].sum()))
        for name, score_L, samples_RL in zip(names[1:], scores[1:], samples[1:], strict=True):
            score = float(score_L[at])
            low, high = metrics.interval(samples_RL[:, at] - samples[0][:, at], score - first)
            verdict = "better" if high < 0 else "worse" if low > 0 else "not shown"
            key = (level, category, parts[0].name, name)
            yield Difference(*key, score, first, score - first, low, high, verdict, support)


def _part(answers: AmountAnswers, catalog: Catalog, groups: npt.ArrayLike | None, bands: int) -> _Part:
    """Put answers beside what is stated; rows that state no number are left out."""
    count = len(catalog)
    if len(answers.rows) and int(answers.rows[-1]) >= count:
        raise PredictionError(f"{answers.name!r}: answers to row {int(answers.rows[-1]) + 1} of {count}")
    if (answers.state == STATES.index("stated")).any():
        raise PredictionError(
            f"{answers.name!r}: these answers copy the stated numbers, so scoring them would mean nothing: "
            "predict again without keeping stated values"
        )
    given_N = np.arange(count) if groups is None else np.asarray(groups)
    if given_N.shape != (count,):
        raise UsageError(f"group numbers of shape {given_N.shape} for {count} products")
    truth_N = catalog.numbers(answers.name)
    rows = np.flatnonzero(~np.isnan(truth_N))
    if not len(rows):
        raise CatalogError(f"{catalog.source} states no {answers.name!r} to score against")
    filled: list[Float] = []
    for values_n in (answers.value, answers.low, answers.high):
        values_N = np.full(count, np.nan)
        values_N[answers.rows] = values_n
        filled.append(values_N[rows])
    truth_m = truth_N[rows]
    places: list[tuple[tuple[str, str | None, str | None], Ints]] = []
    places.append((("overall", None, None), np.arange(len(rows))))
    code_m = catalog.category[rows]
    codes = np.unique(code_m[code_m >= 0]).tolist()
    for code in codes if len(catalog.taxonomy.categories) > 1 else ():
        places.append((("category", catalog.taxonomy.categories[code], None), np.flatnonzero(code_m == code)))
    places += [(("band", None, label), at) for label, at in _bands(truth_m, bands)]
    group_m = np.unique(given_N[rows], return_inverse=True)[1].astype(np.int64)
    value_m, low_m, high_m = filled
    return _Part(answers.name, rows, group_m, truth_m, value_m, low_m, high_m, tuple(places))


def _bands(truth_m: Float, bands: int) -> Iterator[tuple[str, Ints]]:
    """Yield the bands between quantiles of the truth: their edges, rounded as far as they stay apart; their rows."""
    edges = np.unique(np.quantile(truth_m, np.linspace(0, 1, bands + 1))) if bands else _NONE
    if len(edges) < 2:
        return
    for digits in range(2, 17):
        shown = [np.format_float_positional(e, digits, fractional=False, trim="-") for e in edges]
        if len(set(shown)) == len(shown):
            break
    band_m = np.searchsorted(edges[1:-1], truth_m, side="right")
    between = "-" if edges[0] >= 0 else " to "
    for at in range(len(edges) - 1):
        yield f"{shown[at]}{between}{shown[at + 1]}", np.flatnonzero(band_m == at)


def _plain(part: _Part, rows: Ints) -> Iterator[tuple[str, float]]:
    """Yield the numbers that have no interval."""
    yield "median_ape", metrics.median_ape(part.truth[rows], part.value[rows])
    yield "width", metrics.range_width(part.low[rows], part.high[rows])
    yield "answered", float((~np.isnan(part.value[rows])).mean())


def _scores(metric: str, terms: tuple[Float, Float], part: _Part) -> Float:
    """Return the metric of every line, [L]."""
    above, below = (np.array([each[rows].sum() for _, rows in part.places]) for each in terms)
    return metrics.number_score(metric, above, below)


def _samples(metric: str, terms: tuple[Float, Float], part: _Part, bootstrap: int, seed: int) -> Float:
    """Return the metric of every line in every replicate, [R, L]: sums per group, weighted."""
    from scipy.sparse import csr_array

    lines, groups = len(part.places), int(part.group.max()) + 1
    rows = np.concatenate([rows for _, rows in part.places])
    line = np.repeat(np.arange(lines), [len(rows) for _, rows in part.places])
    above_LG, below_LG = (
        csr_array((each[rows], (line, part.group[rows])), shape=(lines, groups)) for each in terms
    )
    found = [np.zeros((0, lines))]
    for weights_RG in metrics.group_weights(groups, bootstrap, seed):
        weights_GR = np.ascontiguousarray(weights_RG.T, dtype=np.float64)
        found.append(metrics.number_score(metric, above_LG @ weights_GR, below_LG @ weights_GR).T)
    return np.concatenate(found)
