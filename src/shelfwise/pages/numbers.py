"""Sections on Numbers: how far answers are off, by category and band, and whether their ranges hold.

They do not know how numbers were predicted; they read a report's lines and, where there is one, its evidence.
Legend: m rows with evidence and a stated number, Q quantile levels, K ranges.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import LEVELS, MEDIAN, AmountEvidence
from shelfwise.pages import number_charts, parts
from shelfwise.pages.curves import Measured
from shelfwise.pages.number_charts import Axis
from shelfwise.pages.parts import Cell, Column, Html, Section, percent, span
from shelfwise.plaintext import show
from shelfwise.report import Line, Report
from shelfwise.taxonomy import Number
from shelfwise.trust.amount_rule import range_of
from shelfwise.trust.points import best_point

Float = npt.NDArray[np.float64]
#: Categories and bands that a table holds.
MOST_ROWS = 1000
#: Stated numbers from which something is drawn.
FEWEST = 10
WORDS = {"smape": "SMAPE", "mae": "mean absolute error", "rmse": "root mean squared error"}
#: int64 [K], the places of the lower ends of ranges, the narrowest first; the shares they promise.
_ENDS = np.arange(MEDIAN - 1, -1, -1)
_PROMISED = LEVELS[-1 - _ENDS] - LEVELS[_ENDS]


class Scores(NamedTuple):
    """The scores of one Number at one place: the lines of its metrics."""

    smape: Line
    mae: Line
    rmse: Line
    median_ape: Line
    coverage: Line
    width: Line
    answered: Line


def scores_of(report: Report, name: str) -> dict[tuple[str, str | None, str | None], Scores]:
    """Return a Number's scores by level (``overall``, ``category``, ``band``), category and band."""
    found: dict[tuple[str, str | None, str | None], dict[str, Line]] = {}
    for line in report.lines:
        if line.attribute == name and line.level in ("overall", "category", "band"):
            found.setdefault((line.level, line.category, line.value), {})[line.metric] = line
    return {key: Scores(*(lines[metric] for metric in Scores._fields)) for key, lines in found.items()}


def _of(report: Report, level: str, metric: str) -> list[Line]:
    return [line for line in report.of(level, metric) if line.attribute is not None]


def of_numbers(report: Report) -> bool:
    """Whether a report is of Numbers alone."""
    return not report.categories and bool(report.numbers)


def top_of_numbers(report: Report, facts: Sequence[tuple[str, str]]) -> Html:
    """Return what stands above the first section where a report is of Numbers alone."""
    line, names = report.expected, report.numbers
    interval = f" with a 95 % interval of {span(line.low, line.high, 1)}" if not math.isnan(line.low) else ""
    of = f" of {parts.name(names[0])}" if len(names) == 1 else f", the mean over {len(names)} numbers"
    worst = "; 200 would be wrong altogether." if report.metric == "smape" else "."
    said = Html(
        f"<strong>{WORDS.get(report.metric, report.metric)}</strong>{of}{interval}. Lower is better{worst}"
    )
    known = {line.category for line in _of(report, "category", "smape")}
    told = [("products", f"{report.rows:,}"), ("categories", f"{len(known):,}"), *number_facts(report)]
    told += [("products with an error", f"{report.errors:,}")] if report.errors else []
    return parts.hero(show(line.score, 1), said, None, parts.facts([*told, *facts]))


def number_facts(report: Report) -> Iterator[tuple[str, str]]:
    """Yield short facts for the top of a page."""
    names = report.numbers
    for name in names[:3]:
        whole = scores_of(report, name)["overall", None, None]
        of = f"{name}: " if len(names) > 1 or report.categories else ""
        yield f"{of}stated numbers", f"{whole.smape.support:,}"
        if report.categories:
            yield f"{of}SMAPE", show(whole.smape.score, 1)
        if math.isfinite(whole.coverage.score):
            yield f"{of}in their range", percent(whole.coverage.score, 1)


def number_sections(report: Report, measured: Measured | None) -> Iterator[Section]:
    """Yield a section per Number."""
    evidence = {} if measured is None else {item.name: item for item in measured.after.amounts}
    for place, name in enumerate(report.numbers):
        yield _section(report, name, f"number{place}", measured if name in evidence else None)


def _section(report: Report, name: str, key: str, measured: Measured | None) -> Section:
    scores = scores_of(report, name)
    number = Number(name) if measured is None else measured.after.taxonomy.number(name)
    unit = f" {number.unit}" if number.unit else ""
    whole = scores["overall", None, None]
    told = [
        (f"SMAPE{_interval(whole.smape, 1)}", show(whole.smape.score, 1)),
        (f"mean absolute error{unit and ','}{unit}{_interval(whole.mae, 2)}", show(whole.mae.score, 2)),
        ("median error", percent(whole.median_ape.score / 100, 1)),
    ]
    if math.isfinite(whole.coverage.score):
        told.append(("in their range", percent(whole.coverage.score, 1)))
        if number.transform != "linear":
            told.append(("high end over low end", show(whole.width.score, 2)))
    if whole.answered.score < 1:
        told.append(("answered", percent(whole.answered.score, 1)))
    figures = _figures(number, key, measured) if measured is not None else Html("")
    table = parts.filtered("category or band", _table(scores, name, unit))
    lead = (
        "SMAPE is the mean of 200 |answered \u2212 stated| / (answered + stated): 0 where all are right, 200 where "
        "nothing is; lower is better. A row without an answer counts as 200."
    )
    return Section(key, f"{name}{f', in {number.unit}' if number.unit else ''}", Html(
        f"{parts.facts(told)}{figures}<p></p>{table}"
    ), lead)  # fmt: skip


def _interval(line: Line, digits: int) -> str:
    return "" if math.isnan(line.low) else f" ({span(line.low, line.high, digits)})"


def _table(scores: dict[tuple[str, str | None, str | None], Scores], name: str, unit: str) -> Html:
    columns = [
        Column("category / band"),
        Column("rows", True),
        Column("SMAPE", True, digits=1),
        Column("from", True, digits=1),
        Column("to", True, digits=1),
        Column("MAE", True, digits=2),
        Column("RMSE", True, digits=2),
        Column("median error", True, percent=True),
        Column("in range", True, digits=3, percent=True),
        Column("high / low", True, digits=2),
    ]
    order = {"overall": 0, "category": 1, "band": 2}
    keys = sorted(
        scores, key=lambda key: (order[key[0]], key[0] == "category" and -scores[key].smape.support)
    )
    rows: list[list[Cell]] = []
    for key in keys[:MOST_ROWS]:
        level, category, band = key
        label = {
            "category": parts.name(category),
            "band": Html(f"stated {parts.name(band)}{parts.esc(unit)}"),
        }
        found, smape = scores[key], scores[key].smape
        numbers = (smape.score, smape.low, smape.high, found.mae.score, found.rmse.score)
        rest = (found.median_ape.score / 100, found.coverage.score, found.width.score)
        rows.append([label.get(level, Html("All")), smape.support, *numbers, *rest])
    caption = (
        f"{name} by category and by band of what is stated, each band with as many rows. In range: the share of "
        "stated numbers that lie in the range answered; high / low: how many times the low end the high end is."
    )
    return parts.table(columns, rows, caption, tall=len(rows) > 30, first_is_sum=True)


def _figures(number: Number, key: str, measured: Measured) -> Html:
    after = _stated(measured.after.amounts, number.name)
    if after is None:
        return Html("")
    before = None if measured.before is None else _stated(measured.before.amounts, number.name)
    figures = (_spread(number, key, after, measured), _ranges(number, key, after, before, measured))
    return Html(f'<div class="panels after">{"".join(figures)}</div>')


def _stated(amounts: tuple[AmountEvidence, ...], name: str) -> AmountEvidence | None:
    """The evidence of one Number where something is stated; None where that is too little."""
    item = next((each for each in amounts if each.name == name), None)
    if item is None:
        return None
    known = np.isfinite(item.truth)
    return item.select(known) if known.sum() >= FEWEST else None


def _spread(number: Number, key: str, item: AmountEvidence, measured: Measured) -> Html:
    coverage = measured.aim.coverage
    low_m, high_m = range_of(item.amounts(), number, coverage)
    answered_m = best_point(item.quantiles, measured.aim.metric)
    spread = number_charts.spread_of(answered_m, item.truth, low_m, high_m)
    first, last = spread.middle[[0, -1]].tolist()
    told = (
        f"Answers of about {first:,.4g} have a stated median of {spread.median[0]:,.4g} and a range from "
        f"{spread.low[0]:,.4g} to {spread.high[0]:,.4g}"
    )
    if len(spread.middle) > 1:
        told += (
            f"; answers of about {last:,.4g} have {spread.median[-1]:,.4g}, from {spread.low[-1]:,.4g} to "
            f"{spread.high[-1]:,.4g}"
        )
    title = f"{number.name}: stated against answered"
    axis = Axis(number.transform)
    chart = number_charts.stated_against_answered(f"{key}-spread", spread, axis, title, f"{told}.")
    every = len(item.truth) <= number_charts.MOST_POINTS
    scales = "" if number.transform == "linear" else "Both axes are logarithmic. "
    caption = (
        f"{scales}{'Each' if every else 'A'} point is a product{'' if every else ' (some of them are drawn)'}; the "
        f"band is the range that promises {percent(coverage)}, the line the median of what is stated. On the dotted "
        "diagonal answers are right."
    )
    heads = [Column("answers about", True, digits=2), Column("rows", True)]
    heads += [Column(text, True, digits=2) for text in ("stated, median", "range from", "to")]
    heads.append(Column("in range", True, percent=True))
    columns = (spread.middle, spread.count, spread.median, spread.low, spread.high, spread.inside)
    rows: list[list[Cell]] = [list(row) for row in zip(*(each.tolist() for each in columns), strict=True)]
    listed = parts.table(heads, rows, f"{number.name} by what is answered.", sort=False)
    return parts.figure(chart, caption, listed, Html("<h3>Stated against answered</h3>"))


def _ranges(
    number: Number, key: str, item: AmountEvidence, before: AmountEvidence | None, measured: Measured
) -> Html:
    """How often ranges hold, of every share they may promise."""
    coverage, names = measured.aim.coverage, ("after calibration", "before calibration")
    lines = [(names[0] if before is not None else "as answered", _held(item))]
    lines += [(names[1], _held(before))] if before is not None else []
    low_m, high_m = range_of(item.amounts(), number, coverage)
    share = float(((low_m <= item.truth) & (item.truth <= high_m)).mean())
    told = f"Ranges that promise {percent(coverage)} hold {percent(share, 1)} of the {len(item.truth):,} stated numbers"
    if before is not None:
        low_m, high_m = range_of(before.amounts(), number, coverage)
        old = float(((low_m <= before.truth) & (before.truth <= high_m)).mean())
        told += f"; before calibration they held {percent(old, 1)}"
    title = f"{number.name}: how often ranges hold"
    chart = number_charts.ranges_hold(f"{key}-ranges", lines, _PROMISED, coverage, title, f"{told}.")
    caption = (
        f"{told}. On the dotted diagonal ranges hold as often as they promise; below it they are too narrow. The "
        "upright line is what is promised of answers."
    )
    heads = [Column("promised", True, digits=4, percent=True)]
    heads += [Column(name, True, digits=3, percent=True) for name, _ in lines]
    columns = [_PROMISED.tolist(), *(share_K.tolist() for _, share_K in lines)]
    rows: list[list[Cell]] = [list(row) for row in zip(*columns, strict=True)]
    listed = parts.table(heads, rows, f"{number.name}: share of stated numbers in ranges.", sort=False)
    return parts.figure(chart, caption, listed, Html("<h3>How often ranges hold</h3>"))


def _held(item: AmountEvidence) -> Float:
    """Return float64 [K], the share of stated numbers between the quantiles of each range."""
    truth_m1 = item.truth[:, None]
    inside_mK = (item.quantiles[:, _ENDS] <= truth_m1) & (truth_m1 <= item.quantiles[:, -1 - _ENDS])
    return np.asarray(inside_mK.mean(axis=0))
