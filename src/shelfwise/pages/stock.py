"""The page of the data itself: values, imbalance, missing labels, conflicts, pictures, prices.

It does not count or judge: counts come from a description, what is wrong from findings, prices from the
catalogue.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from shelfwise.catalog import Catalog
from shelfwise.describe import PICTURE_MEASURES, QUANTILES, Count, Description
from shelfwise.findings import SEVERITIES, Finding, Findings
from shelfwise.pages import charts, parts
from shelfwise.pages.charts import NAN, Dot, axis
from shelfwise.pages.parts import Bar, Cell, Column, Heat, Html, Section, percent
from shelfwise.pages.prices import prices
from shelfwise.plaintext import show

#: Categories shown, attributes of the missing heat map, values of an attribute listed at once, findings listed.
MOST_CATEGORIES, MOST_ATTRIBUTES, MOST_VALUES, MOST_FINDINGS = 40, 24, 8, 300
MEASURES = {
    "width": "width, pixels",
    "height": "height, pixels",
    "blur": "sharpness (variance of the Laplacian)",
    "brightness": "mean brightness, 0 to 1",
    "dark_share": "share of black pixels",
    "bright_share": "share of white pixels",
}


def data_page(
    description: Description,
    catalog: Catalog | None = None,
    findings: Findings | None = None,
    *,
    source: str = "",
) -> str:
    """Return the page of a catalogue.

    Args:
        description: its counts.
        catalog: the catalogue, for the numbers it holds; without it there is no histogram of prices.
        findings: what is wrong with it.
        source: by default the table's name.
    """
    known = _Counts(description)
    findings = findings or Findings()
    sections = [
        *_findings(findings),
        *_missing(known),
        *_values(known),
        *_together(known),
        *_conflicts(known),
        *_pictures(known),
        *(prices(catalog) if catalog is not None else ()),
    ]
    name = source or Path(description.source).name
    return parts.page(
        "data", name, "What the catalogue holds, and what it lacks", _top(known, findings), sections
    )


class _Counts:
    """A description by place: its categories, biggest first, their attributes and values."""

    def __init__(self, description: Description) -> None:
        self.of = description
        self.attributes: dict[str, list[str]] = {}
        self.values: dict[tuple[str, str], list[Count]] = {}
        self.together: dict[str, list[Count]] = {}
        for count in description.counts:
            if count.level == "attribute" and count.measure == "labels":
                self.attributes.setdefault(str(count.category), []).append(str(count.attribute))
            elif count.level == "value":
                self.values.setdefault((str(count.category), str(count.attribute)), []).append(count)
            elif count.level == "together" and count.measure == "phi":
                self.together.setdefault(str(count.category), []).append(count)

    @cached_property
    def categories(self) -> list[str]:
        """All of them, most products first."""
        found = [c for c in self.of.counts if c.level == "category" and c.measure == "products"]
        return [str(count.category) for count in sorted(found, key=lambda count: -count.number)]

    @property
    def shown(self) -> list[str]:
        """Those that are drawn."""
        return self.categories[:MOST_CATEGORIES]

    @property
    def limit(self) -> str:
        """A sentence where not all are drawn."""
        hidden = len(self.categories) - len(self.shown)
        return (
            f" The {MOST_CATEGORIES} biggest of {len(self.categories):,} categories are shown."
            if hidden
            else ""
        )


def _top(known: _Counts, findings: Findings) -> Html:
    products, pictures = known.of.number("products"), known.of.number("pictures")
    labels = known.of.number("labels")
    cells = sum(
        known.of.number("labels", category, attribute) + known.of.number("missing", category, attribute)
        for category, attributes in known.attributes.items()
        for attribute in attributes
    )
    filled = labels / cells if cells else NAN
    told = (
        f" Of the cells that could be filled in, <strong>{percent(filled)} are</strong>; the rest is missing."
        if cells
        else ""
    )
    said = Html(f"products in <strong>{len(known.categories):,} categories</strong>.{told}")
    numbers = known.of.number("numbers")
    given = [
        ("labelled cells", f"{labels:,.0f}"),
        ("cells missing", f"{cells - labels:,.0f}"),
        ("attributes", f"{sum(map(len, known.attributes.values())):,}"),
    ] * bool(cells or not numbers > 0)
    given += [("stated numbers", f"{numbers:,.0f}")] * bool(numbers > 0)
    given += [
        ("products with a picture file", percent(pictures / products if products else NAN, 1)),
        ("findings", f"{len(findings):,}"),
        ("of them errors", f"{len(findings.of(severity='error')):,}"),
    ]
    return parts.hero(f"{products:,.0f}", said, None, parts.facts(given))


def _findings(findings: Findings) -> Iterator[Section]:
    """Yield what was found, by kind, and the first of them."""
    if not len(findings):
        return
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.kind), []).append(finding)
    most, order = max(map(len, kinds.values())), list(SEVERITIES)
    signs = {"error": "✕\u00a0error", "warning": "▲\u00a0warning", "note": "○\u00a0note"}
    rows: list[list[Cell]] = [
        [kind, signs[severity], Bar(len(found) / most, f"{len(found):,}", len(found)), found[0].message]
        for (severity, kind), found in sorted(
            kinds.items(), key=lambda item: (order.index(item[1][0].severity), -len(item[1]))
        )
    ]
    heads = [Column("kind"), Column("severity"), Column("findings", True), Column("for example")]
    listed: list[list[Cell]] = [
        [f.kind, signs[f.severity], f.row, f.id or "", f.field or "", f.message]
        for f in list(findings)[:MOST_FINDINGS]
    ]
    columns = [
        Column("kind"), Column("severity"), Column("row", True), Column("id"), Column("field"), Column("what"),
    ]  # fmt: skip
    caption = f"The first {len(listed):,} of {len(findings):,} findings, worst first."
    every = parts.filtered("kind, id, field or word", parts.table(columns, listed, caption, tall=True))
    body = Html(parts.table(heads, rows, "Findings by kind.") + parts.more("Each of them", every))
    yield Section(
        "findings",
        "What is wrong",
        body,
        "Nothing was changed. Errors mean that a product cannot be answered.",
    )


def _missing(known: _Counts) -> Iterator[Section]:
    """Yield the share of missing labels, categories against attributes."""
    often = Counter(name for category in known.shown for name in known.attributes.get(category, []))
    names = [name for name, _ in sorted(often.items(), key=lambda item: -item[1])[:MOST_ATTRIBUTES]]
    if not names:
        return
    rows: list[list[Cell]] = []
    for category in known.shown:
        cells: list[Cell] = []
        for name in names:
            share = known.of.number("missing_share", category, name)
            cells.append(Html("") if math.isnan(share) else Heat(share, percent(share)))
        rows.append([category, int(known.of.number("products", category)), *cells])
    columns = [Column("category"), Column("products", True), *(Column(name, True) for name in names)]
    cut = f" The {len(names)} most frequent of {len(often):,} attributes." if len(names) < len(often) else ""
    made = parts.table(columns, rows, f"Share of products without a label.{cut}", sort=False, tight=True)
    numbers: list[list[Cell]] = []
    for category in known.shown:
        for name in known.attributes.get(category, []):
            of = [
                known.of.number(m, category, name)
                for m in ("labels", "missing", "missing_share", "values", "imbalance")
            ]
            most = max(known.values.get((category, name), []), key=lambda count: count.number, default=None)
            frequent = f"{most.value}" if most is not None and most.number else "-"
            numbers.append(
                [parts.where(category, name), int(of[0]), int(of[1]), of[2], int(of[3]), of[4], frequent]
            )
    heads = [
        Column("category / attribute"), Column("labels", True), Column("missing", True),
        Column("missing share", True, percent=True), Column("values", True),
        Column("imbalance", True, digits=0), Column("most frequent"),
    ]  # fmt: skip
    caption = "Imbalance: how many times more frequent the most frequent value is than the rarest."
    listed = parts.filtered("category or attribute", parts.table(heads, numbers[:1000], caption, tall=True))
    body = Html(made + parts.more("The numbers, with imbalance", listed))
    yield Section(
        "missing",
        "Missing labels",
        body,
        "Share of a category's products that state nothing. Empty: the category has no such attribute."
        + known.limit,
    )


def _values(known: _Counts) -> Iterator[Section]:
    """Yield how often each value stands there."""
    groups = []
    for number, category in enumerate(known.shown):
        made = [
            _value_counts(known, category, attribute)
            for attribute in known.attributes.get(category, [])
            if known.values.get((category, attribute))
        ]
        if made:
            products = f"{known.of.number('products', category):,.0f} products"
            head = Html(
                f'{parts.name(category)} <span class="aside">{products}, {len(made)} attributes</span>'
            )
            groups.append(
                parts.more(
                    head, Html(f'<div class="counts">{"".join(made)}</div>'), group=True, shut=number > 0
                )
            )
    if groups:
        lead = "How often each value is stated, the most frequent first; bars are shares of the attribute's labels."
        yield Section("values", "Values and imbalance", parts.join(groups), lead + known.limit)


def _value_counts(known: _Counts, category: str, attribute: str) -> Html:
    values = sorted(known.values[category, attribute], key=lambda count: -count.number)
    labels = max(sum(count.number for count in values), 1)
    biggest = max(values[0].number, 1)
    imbalance = known.of.number("imbalance", category, attribute)
    told = f"{labels:,.0f} labels, {len(values):,} values" + (
        f", {show(imbalance, 0)} : 1" if imbalance >= 1 else ""
    )

    def rows(counts: Sequence[Count]) -> str:
        return "".join(
            f'<tr><th scope="row">{parts.name(count.value)}</th><td><span class="bar"><i aria-hidden="true">'
            f'<b style="width:{count.number / biggest:.1%}"></b></i><span>{count.number:,.0f}</span></span></td></tr>'
            for count in counts
        )

    head = '<thead class="away"><tr><th scope="col">value</th><th scope="col">labels</th></tr></thead>'
    caption = f"<caption>{parts.name(attribute)} <span>{told}</span></caption>"
    table = f"<table>{caption}{head}<tbody>{rows(values[:MOST_VALUES])}</tbody></table>"
    rest = values[MOST_VALUES:]
    if rest:
        short = (
            f'<table><caption class="away">{parts.name(attribute)}: rarer values</caption>{head}'
            f"<tbody>{rows(rest[:100])}</tbody></table>"
        )
        share = percent(sum(count.number for count in rest) / labels)
        held = f"{len(rest):,} rarer value{'s' * (len(rest) > 1)}, {share} of the labels"
        table += parts.more(held, Html(short))
    return Html(f'<div class="panel">{table}</div>')


def _together(known: _Counts) -> Iterator[Section]:
    """Yield which attributes are missing together."""
    figures: list[Html] = []
    pairs: list[tuple[str, str, str, float, int]] = []
    for number, category in enumerate(known.shown):
        found = known.together.get(category, [])
        if not found:
            continue
        names = [n for n in known.attributes[category] if any(n in (c.attribute, c.value) for c in found)]
        at = {name: place for place, name in enumerate(names)}
        phi = np.full((len(names), len(names)), np.nan)
        for count in found:
            first, second = at[str(count.attribute)], at[str(count.value)]
            phi[first, second] = phi[second, first] = count.number
            both = known.of.number("both_missing", category, count.attribute, count.value)
            pairs.append((category, str(count.attribute), str(count.value), count.number, int(both)))
        if 2 <= len(names) <= MOST_ATTRIBUTES:
            told = "; ".join(f"{c.attribute} with {c.value} {c.number:.2f}" for c in found[:8]) + "."
            chart = charts.matrix(f"phi{number}", names, phi, f"Missing together in {category}", told)
            figures.append(parts.figure(chart, heading=Html(f"<h3>{parts.name(category)}</h3>")))
    if not pairs:
        return
    rows = sorted(pairs, key=lambda pair: -pair[3])
    heads = [
        Column("category"), Column("attribute"), Column("and"), Column("phi", True, digits=2),
        Column("both missing", True),
    ]  # fmt: skip
    made = parts.table(
        heads, rows[:1000], "Pairs of attributes that are missing together.", tall=len(rows) > 30
    )
    body = Html(f'<div class="panels">{"".join(figures)}</div>{parts.more("The numbers", made)}')
    lead = (
        "Correlation (phi) of the marks that say a label is missing: 1 where two attributes are always missing for the "
        "same products. Pairs of 0.3 and more have their number."
    )
    yield Section("together", "Missing together", body, lead + known.limit)


def _conflicts(known: _Counts) -> Iterator[Section]:
    """Yield where near-duplicates state different values."""
    rows: list[list[Cell]] = []
    for category in known.categories:
        for name in known.attributes.get(category, []):
            compared = known.of.number("groups_compared", category, name)
            if compared > 0:
                conflicts = known.of.number("conflicts", category, name)
                share = conflicts / compared
                rows.append(
                    [
                        parts.where(category, name),
                        int(compared),
                        int(conflicts),
                        Bar(share, percent(share), share),
                    ]
                )
    if not rows:
        return
    rows.sort(key=lambda row: -row[3].value if isinstance(row[3], Bar) else 0)
    heads = [
        Column("category / attribute"), Column("groups compared", True), Column("with different values", True),
        Column("share", True),
    ]  # fmt: skip
    made = parts.table(heads, rows[:1000], "Near-duplicate groups whose labels differ.", tall=len(rows) > 14)
    yield Section(
        "conflicts",
        "Conflicting labels",
        parts.filtered("category or attribute", made),
        "Products that look or are called the same should say the same. Colour variants of one design may differ in "
        "colour; in most other attributes a difference is a mistake, and a limit to any score.",
    )


def _pictures(known: _Counts) -> Iterator[Section]:
    """Yield how large, sharp and bright the pictures are."""
    if all(math.isnan(known.of.number("readable", category)) for category in known.shown):
        return
    figures: list[Html] = []
    for measure in PICTURE_MEASURES:
        rows = []
        for category in known.shown:
            low, mid, high = (known.of.number(f"{measure}_p{q}", category) for q in QUANTILES)
            if math.isfinite(mid):
                rows.append(Dot(category, mid, low, high, text=f"{mid:,.0f}" if mid >= 10 else f"{mid:.2f}"))
        scale = axis([end for row in rows for end in (row.low, row.high)])
        if rows and scale is not None:
            text = MEASURES[measure]
            chart = charts.dots(
                f"measure{len(figures)}", rows, scale, f"Pictures: {text}", charts.described(rows)
            )
            figures.append(parts.figure(chart, heading=Html(f"<h3>{text[:1].upper() + text[1:]}</h3>")))
    heads = [Column("category"), Column("products", True), Column("files", True), Column("readable", True)]
    heads += [
        Column(f"{m.replace('_', ' ')} {q} %", True, digits=2) for m in PICTURE_MEASURES for q in QUANTILES
    ]
    rows_: list[list[Cell]] = []
    for category in known.shown:
        counts = [int(known.of.number(m, category)) for m in ("products", "pictures", "readable")]
        rows_.append(
            [
                category,
                *counts,
                *(known.of.number(f"{m}_p{q}", category) for m in PICTURE_MEASURES for q in QUANTILES),
            ]
        )
    made = parts.table(
        heads, rows_, "Pictures of each category: the 5 %, 50 % and 95 % quantiles.", tall=len(rows_) > 30
    )
    lead = "The dot is the median picture of a category, the whisker holds nine of ten pictures."
    body = Html(f'<div class="panels">{"".join(figures)}</div>{parts.more("The numbers", made)}')
    yield Section("pictures", "Pictures", body, lead + known.limit)
