"""The page of a comparison: how predictions differ from the first ones, and whether that is real.

It does not know how the difference was found.
"""

import math
from collections.abc import Sequence

from shelfwise.pages import charts, parts
from shelfwise.pages.charts import NAN, Dot, Scale, axis
from shelfwise.pages.parts import Cell, Column, Html, Section
from shelfwise.pages.scores import MOST_CATEGORIES, MOST_PAIRS, MOST_ROWS, WORDS
from shelfwise.plaintext import show
from shelfwise.report import Comparison, Difference

_MARKS = {"better": "^", "worse": "v"}
_SIGNS = {"better": "▲\u00a0better", "worse": "▼\u00a0worse"}


def compare_page(comparison: Comparison, *, source: str = "predictions") -> str:
    """Return the page of a comparison.

    Args:
        comparison: the first predictions are what the others are compared with.
        source: what they were compared on.
    """
    metric = WORDS.get(comparison.metric, comparison.metric)
    sections = [_overall(comparison, metric)]
    for number, name in enumerate(comparison.names[1:]):
        sections.append(_places(comparison, name, number, metric))
    notes = [*comparison.notes]
    if comparison.bootstrap:
        notes.append(
            f"Differences are paired: each of {comparison.bootstrap:,} bootstrap replicates of {comparison.groups:,} "
            f"groups scores all predictions alike. Seed {comparison.seed}. An interval with 0 in it shows none."
        )
    if notes:
        sections.append(Section("notes", "How this was measured", parts.sentences(notes)))
    title = "Is the difference real?"
    return parts.page("comparison", source, title, _top(comparison), sections)


def _signed(number: float) -> str:
    return "-" if math.isnan(number) else f"{number:+.3f}".replace("-", "\u2212")


def _top(comparison: Comparison) -> Html:
    best = comparison.overall()
    words = WORDS.get(comparison.metric, comparison.metric)
    sentence = comparison.sentence(best.name).removesuffix(f"{comparison.metric}.") + f"{words}."
    said = parts.join([Html("<strong>"), sentence, Html("</strong>")])
    given = [("products", f"{comparison.rows:,}"), ("groups", f"{comparison.groups:,}")]
    given += [("first: " + comparison.names[0], show(best.first))]
    given += [(name, show(comparison.overall(name).score)) for name in comparison.names[1:]]
    return parts.hero(_signed(best.difference), said, None, parts.facts(given))


def _scale(rows: Sequence[Dot]) -> Scale:
    """An axis that holds zero and every interval."""
    found = axis([0.0, *(end for row in rows for end in (row.score, row.low, row.high))], signed=True)
    return found if found is not None else charts.SHARES


def _dot(line: Difference, label: str, strong: bool = False) -> Dot:
    mark = _MARKS.get(line.verdict, "h")
    return Dot(label, line.difference, line.low, line.high, NAN, _signed(line.difference), mark, strong)


def _overall(comparison: Comparison, metric: str) -> Section:
    rows = [_dot(comparison.overall(name), name, True) for name in comparison.names[1:]]
    chart = charts.dots("overall", rows, _scale(rows), f"Difference in {metric}", charts.described(rows))
    made = _table(
        [comparison.overall(name) for name in comparison.names[1:]],
        comparison,
        "Differences over all categories.",
    )
    body = Html(f'<div class="panels">{parts.figure(chart)}</div><p></p>{made}')
    return Section(
        "overall",
        "Overall",
        body,
        f"{metric[:1].upper() + metric[1:]} minus that of {comparison.names[0]}. Triangles point up where it is "
        "better, down where it is worse; a hollow dot shows no difference. Whiskers are 95 % intervals.",
    )


def _table(lines: Sequence[Difference], comparison: Comparison, caption: str) -> Html:
    columns = [
        Column("where"),
        Column("compared"),
        Column("labels", True),
        Column("first", True),
        Column("score", True),
        Column("difference", True, signed=True),
        Column("from", True, signed=True),
        Column("to", True, signed=True),
        Column("verdict"),
    ]
    rows: list[list[Cell]] = []
    for line in lines[:MOST_ROWS]:
        where = parts.where(line.category, line.attribute)
        verdict = _SIGNS.get(line.verdict, "○\u00a0" + line.verdict)
        numbers = (line.support, line.first, line.score, line.difference, line.low, line.high)
        rows.append([where, line.name, *numbers, verdict])
    return parts.table(columns, rows, caption, tall=len(rows) > 30)


def _places(comparison: Comparison, name: str, number: int, metric: str) -> Section:
    lines = [line for line in comparison.differences if line.name == name and line.level != "overall"]
    sizes = {line.category: line.support for line in lines if line.level == "category"}
    ordered = sorted(sizes, key=lambda category: -sizes[category])
    by_category: dict[str | None, list[Difference]] = {}
    for line in lines:
        by_category.setdefault(line.category, []).append(line)
    shown = ordered[:MOST_CATEGORIES]
    drawn = {category: _rows(by_category[category]) for category in shown}
    scale = _scale([row for rows in drawn.values() for row in rows])
    figures = []
    for place, category in enumerate(shown):
        rows = drawn[category]
        title = f"Difference in {metric} per attribute of {category}"
        chart = charts.dots(f"part{number}-{place}", rows, scale, title, charts.described(rows))
        head = Html(f'<h3>{parts.name(category)} <span class="aside">{sizes[category]:,} labels</span></h3>')
        figures.append(parts.figure(chart, heading=head))
    verdicts = [line.verdict for line in lines if line.level == "attribute"]
    counted = ", ".join(
        f"{verdicts.count(verdict):,} {text}"
        for verdict, text in (
            ("better", "better"),
            ("worse", "worse"),
            ("not shown", "without a shown difference"),
        )
    )
    limit = (
        f" The {len(shown)} biggest of {len(ordered):,} categories are drawn."
        if len(shown) < len(ordered)
        else ""
    )
    made = parts.filtered("category or attribute", _table(lines, comparison, f"{name}: all differences."))
    body = Html(f'<div class="panels">{"".join(figures)}</div>{parts.more("The numbers", made)}')
    return Section(
        f"places{number}",
        f"Where {name} differs",
        body,
        f"Of {len(verdicts):,} attributes: {counted}.{limit}",
    )


def _rows(lines: Sequence[Difference]) -> list[Dot]:
    whole = [_dot(line, "All", True) for line in lines if line.level == "category"]
    rest = sorted(
        (line for line in lines if line.level == "attribute"),
        key=lambda line: -line.difference if math.isfinite(line.difference) else 9,
    )
    return [*whole, *(_dot(line, str(line.attribute)) for line in rest[:MOST_PAIRS])]
