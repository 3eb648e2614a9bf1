"""The page of a comparison over time: what is different about a table since a bundle was fitted.

It does not know how drift is found.
"""

import math
from collections.abc import Sequence

from shelfwise.drift.report import CAUSES, KINDS, PICTURES, Drift, DriftLine
from shelfwise.pages import charts, parts
from shelfwise.pages.charts import Dot, Scale
from shelfwise.pages.parts import Cell, Column, Html, Section
from shelfwise.plaintext import show

#: What is drawn and listed.
MOST_DRAWN, MOST_CATEGORIES, MOST_ROWS, MOST_SLICES = 20, 40, 1000, 40
#: What the kinds of effects are.
_EFFECTS = (
    "Effects: of shares Cohen's w (0.1 is small, 0.3 medium, 0.5 large), of confidence Cohen's d (0.2, 0.5 and 0.8), "
    "of the look of pictures the distance between the means in standard deviations of the products. What chance adds "
    "is taken off."
)
_CAUSED = (
    "Where shares changed and the pictures of each value look as before, other products came; where the pictures "
    "themselves moved, the shares may be wrong, and a sample should be checked by eye."
)


def drift_page(drift: Drift, *, source: str = "a table") -> str:
    """Return the page of a comparison with the products learnt from.

    Args:
        drift: every comparison.
        source: the table's name.
    """
    sections = [_found(drift)] if drift.found else []
    sections += [_place(drift, kinds, key, title) for kinds, key, title in _PLACES]
    columns = dict.fromkeys(line.column for line in drift.lines if line.column is not None)
    sections += [_slices(drift, column, number) for number, column in enumerate(columns)]
    notes = [*drift.notes, _EFFECTS, _CAUSED, _rates(drift)]
    sections.append(Section("notes", "How this was measured", parts.sentences(notes)))
    return parts.page("drift", source, "Has anything changed?", _top(drift), sections)


_PLACES = (
    (PICTURES, "pictures", "Pictures"),
    (("categories", "values"), "shares", "Shares of values"),
    (("confidence", "answered"), "confidence", "Confidence"),
)


def _rates(drift: Drift) -> str:
    return (
        f"Near-duplicates are no evidence: {drift.products:,} products are {drift.groups:,} groups. Comparisons are "
        f"adjusted for their number (Benjamini and Yekutieli); where nothing changed, a report is as rare as "
        f"{drift.rate:g}. {drift.known:,} products were learnt from and are judged by what was said of them out of "
        "fold. Confidence is reported where it fell."
    )


def _top(drift: Drift) -> Html:
    said = parts.join([Html("<strong>"), drift.verdict, Html("</strong>")])
    given = [("products", f"{drift.products:,}"), ("near-duplicate groups", f"{drift.groups:,}")]
    given += [("learnt from", f"{drift.learnt:,}"), ("known products", f"{drift.known:,}")]
    given += [("without a readable picture", parts.percent(drift.unreadable, 1))]
    return parts.hero(f"{len(drift.found):,}", said, None, parts.facts(given))


def _found(drift: Drift) -> Section:
    figures = []
    columns = dict.fromkeys(line.column for line in drift.found)
    for number, column in enumerate(columns):
        lines = [line for line in drift.found if line.column == column]
        rows = [
            _dot(line, f"{line.slice or _inside(line)}: {_SHORT[line.kind]}") for line in lines[:MOST_DRAWN]
        ]
        chart = charts.dots(
            f"found{number}", rows, _scale(rows), "Effects of what drifted", charts.described(rows)
        )
        heading = Html("The whole table") if column is None else Html(f"By {parts.name(column)}")
        aside = f" {len(rows)} of {len(lines):,}" if len(rows) < len(lines) else ""
        figures.append(
            parts.figure(chart, heading=Html(f'<h3>{heading}<span class="aside">{aside}</span></h3>'))
        )
    listed = parts.filtered(
        "category, attribute or value", _table(drift.found, "What drifted.", verdict=False)
    )
    body = Html(f'<div class="panels">{"".join(figures)}</div><p></p>{listed}')
    return Section("found", "What changed", body, "Ticks mark the least effect that matters.")


_SHORT = {
    "categories": "shares",
    "values": "shares",
    "confidence": "confidence",
    "answered": "answered",
    "look": "look",
    "familiar": "unlike",
}


def _dot(line: DriftLine, label: str) -> Dot:
    mark = "^" if line.drift else "h"
    return Dot(label, line.effect, other=line.least, text=show(line.effect, 2), mark=mark, strong=line.drift)


def _scale(rows: Sequence[Dot]) -> Scale:
    found = charts.axis([0.0, *(max(row.score, row.other) for row in rows)])
    return found if found is not None else charts.SHARES


def _place(drift: Drift, kinds: Sequence[str], key: str, title: str) -> Section:
    """All comparisons of some kinds over the whole table, by category."""
    lines = [line for line in drift.lines if line.column is None and line.kind in kinds]
    if not lines:
        return Section(key, title, Html("<p>Too few products to compare.</p>"))
    names = dict.fromkeys(line.category for line in lines)
    sizes = {name: max(line.products for line in lines if line.category == name) for name in names}
    shown = sorted(names, key=lambda name: (name is not None, -sizes[name]))[:MOST_CATEGORIES]
    drawn = {
        name: [_dot(line, _label(line)) for line in lines if line.category == name][:MOST_DRAWN]
        for name in shown
    }
    scale, figures = _scale([row for rows in drawn.values() for row in rows]), []
    for number, (name, rows) in enumerate(drawn.items()):
        heading = parts.name(name) if name is not None else Html("All categories")
        chart = charts.dots(
            f"{key}{number}", rows, scale, f"Effects in {name or 'all categories'}", charts.described(rows)
        )
        aside = Html(f'<h3>{heading} <span class="aside">{sizes[name]:,} products</span></h3>')
        figures.append(parts.figure(chart, heading=aside))
    table = parts.filtered("category or attribute", _table(lines, f"{title}: every comparison."))
    body = Html(f'<div class="panels">{"".join(figures)}</div>{parts.more("The numbers", table)}')
    many = sum(line.drift for line in lines)
    limit = (
        f" The {len(shown)} biggest of {len(names):,} places are drawn." if len(shown) < len(names) else ""
    )
    lead = f"Of {len(lines):,} comparisons {many:,} are reported: a filled triangle.{limit}"
    return Section(key, title, body, lead)


def _label(line: DriftLine) -> str:
    if line.kind in PICTURES or line.attribute is None:
        return KINDS[line.kind]
    return line.attribute if line.kind != "answered" else f"{line.attribute}: answered"


def _slices(drift: Drift, column: str, number: int) -> Section:
    """The slices by one column: how many comparisons of each are reported, and the largest effects."""
    lines = [line for line in drift.lines if line.column == column]
    names = list(dict.fromkeys(line.slice for line in lines))
    rows: list[list[Cell]] = []
    for name in names:
        own = [line for line in lines if line.slice == name]
        worst = max(own, key=lambda line: (line.drift, line.effect / line.least))
        past = {"same": "itself", "new": "all, as it is new", "all": "all, shown only"}[own[0].against]
        products = max(line.products for line in own)
        rows.append([name, products, past, sum(line.drift for line in own), _what(worst), worst.effect])
    rows.sort(key=lambda row: (-int(str(row[3])), -float(str(row[5])), str(row[0])))
    columns = [
        Column(column),
        Column("products", True),
        Column("compared with"),
        Column("reported", True),
        Column("most"),
        Column("effect", True, digits=2),
    ]
    made = parts.filtered(
        column, parts.table(columns, rows[:MOST_ROWS], f"Slices by {column}.", tall=len(rows) > 30)
    )
    every = parts.more("Every comparison", _table(lines, f"By {column}: every comparison."))
    return Section(
        f"by{number}", f"By {column}", Html(f"{made}{every}"), f"{len(names):,} large enough to compare."
    )


def _what(line: DriftLine) -> str:
    return f"{_inside(line)}: {_SHORT[line.kind]}"


def _inside(line: DriftLine) -> str:
    return " / ".join(part for part in (line.category, line.attribute) if part is not None) or "all"


def _table(lines: Sequence[DriftLine], caption: str, verdict: bool = True) -> Html:
    columns = [
        Column("where"),
        Column("what"),
        Column("products", True),
        Column("happened"),
        Column("effect", True, digits=2),
        Column("adjusted p", True),
        *([Column("verdict")] if verdict else []),
        Column("why"),
    ]
    rows: list[list[Cell]] = []
    for line in lines[:MOST_ROWS]:
        cut = f"{line.column} {line.slice}" if line.column is not None else None
        place = parts.where(*(part for part in (cut, line.category, line.attribute) if part is not None))
        shown = ["▲\u00a0drift" if line.drift else "○\u00a0not shown"] if verdict else []
        p = "-" if math.isnan(line.adjusted) else f"{line.adjusted:.2g}"
        cause = CAUSES.get(line.cause, "-")
        happened = line.said.partition(" (" + cause)[0]
        rows.append([place, KINDS[line.kind], line.products, happened, line.effect, p, *shown, cause])
    return parts.table(columns, rows, caption, tall=len(rows) > 30)
