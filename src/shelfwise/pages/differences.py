"""The page of a comparison: how predictions differ from the first ones, and whether that is real.

It does not know how the difference was found.
"""

import math
from collections.abc import Sequence

from shelfwise.comparison import Comparison, Difference
from shelfwise.pages import charts, parts
from shelfwise.pages.charts import NAN, Dot, Scale, axis
from shelfwise.pages.parts import Cell, Column, Html, Section
from shelfwise.pages.scores import MOST_CATEGORIES, MOST_PAIRS, MOST_ROWS, WORDS
from shelfwise.plaintext import show

_MARKS = {"better": "^", "worse": "v"}
_SIGNS = {"better": "▲\u00a0better", "worse": "▼\u00a0worse"}


def compare_page(comparison: Comparison, *, source: str = "predictions") -> str:
    """Return the page of a comparison.

    Args:
        comparison: the first predictions are what the others are compared with.
        source: what they were compared on.
    """
    metric = WORDS.get(comparison.metric, comparison.metric)
    sections = []
    if comparison.values:
        sections.append(_overall(comparison, metric))
        for number, name in enumerate(comparison.names[1:]):
            sections.append(_places(comparison, name, number, metric))
    for number, (name, lines) in enumerate(comparison.numbers.items()):
        sections.append(_number(comparison, name, lines, number))
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


def _signed(number: float, digits: int = 3) -> str:
    return "-" if math.isnan(number) else f"{number:+.{digits}f}".replace("-", "\u2212")


def _top(comparison: Comparison) -> Html:
    best = comparison.overall()
    words = WORDS.get(comparison.metric, comparison.metric)
    sentence = comparison.sentence(best.name)
    if best.attribute is None:
        sentence = sentence.removesuffix(f"{comparison.metric}.") + f"{words}."
    else:
        sentence += " Lower is better."
    others = [lines[0] for lines in comparison.numbers.values() if lines[0] is not best]
    rest = "".join(f" {comparison.said(line)}" for line in others)
    said = parts.join([Html("<strong>"), sentence, Html("</strong>"), rest])
    given = [("products", f"{comparison.rows:,}"), ("groups", f"{comparison.groups:,}")]
    given += [("first: " + comparison.names[0], show(best.first))]
    given += [(name, show(comparison.overall(name).score)) for name in comparison.names[1:]]
    return parts.hero(_signed(best.difference), said, None, parts.facts(given))


def _scale(rows: Sequence[Dot]) -> Scale:
    """An axis that holds zero and every interval."""
    found = axis([0.0, *(end for row in rows for end in (row.score, row.low, row.high))], signed=True)
    return found if found is not None else charts.SHARES


def _dot(line: Difference, label: str, strong: bool = False, digits: int = 3) -> Dot:
    mark, text = _MARKS.get(line.verdict, "h"), _signed(line.difference, digits)
    return Dot(label, line.difference, line.low, line.high, NAN, text, mark, strong)


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


def _number(comparison: Comparison, name: str, lines: Sequence[Difference], number: int) -> Section:
    """A Number: over all, and per category, by SMAPE."""
    figures = []
    for place, other in enumerate(comparison.names[1:]):
        found = [line for line in lines if line.name == other]
        rows = [_dot(line, "All", True, 2) for line in found if line.level == "overall"]
        rest = sorted((line for line in found if line.level == "category"), key=lambda line: -line.support)
        rows += [_dot(line, str(line.category), digits=2) for line in rest[:MOST_CATEGORIES]]
        title = f"Difference in SMAPE of {name}: {other}"
        chart = charts.dots(f"number{number}-{place}", rows, _scale(rows), title, charts.described(rows))
        figures.append(parts.figure(chart, heading=Html(f"<h3>{parts.name(other)}</h3>")))
    made = _table(lines, comparison, f"{name}: differences in SMAPE.", 2)
    body = Html(f'<div class="panels">{"".join(figures)}</div><p></p>{parts.filtered("category", made)}')
    lead = (
        f"SMAPE minus that of {comparison.names[0]}: 0 to 200, lower is better, so a difference below 0 is one for the "
        "better. Triangles point up where it is better, down where it is worse; a hollow dot shows no difference. "
        "Whiskers are 95 % intervals."
    )
    return Section(f"number{number}", f"{name}: is the difference real?", body, lead)


def _table(lines: Sequence[Difference], comparison: Comparison, caption: str, digits: int = 3) -> Html:
    columns = [
        Column("where"),
        Column("compared"),
        Column("labels", True),
        Column("first", True, digits=digits),
        Column("score", True, digits=digits),
        *(Column(text, True, digits=digits, signed=True) for text in ("difference", "from", "to")),
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
    lines = [line for line in comparison.values if line.name == name and line.level != "overall"]
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
