"""The section on numbers: how prices are spread over a catalogue.

It does not know what a price should be.
"""

from collections.abc import Iterator

import numpy as np

from shelfwise.catalog import Catalog
from shelfwise.describe import QUANTILES
from shelfwise.pages import charts, parts
from shelfwise.pages.charts import axis
from shelfwise.pages.parts import Cell, Column, Html, Section

#: Categories listed, most products first.
MOST_CATEGORIES = 40


def prices(catalog: Catalog) -> Iterator[Section]:
    """Yield how each number is spread."""
    figures, rows = [], []
    taxonomy = catalog.taxonomy
    for place, number in enumerate(taxonomy.number_names):
        value_N = catalog.number(number)
        stated = value_N[np.isfinite(value_N)]
        if not len(stated):
            continue
        positive = bool((stated > 0).all())
        log = positive and float(stated.max()) > 20 * float(np.median(stated))
        scale = axis([float(stated.min()), float(stated.max())], log)
        if scale is None:
            continue
        bins = min(32, max(8, round(len(stated) ** 0.5)))
        edges = (
            np.geomspace(scale.low, scale.high, bins + 1)
            if log
            else np.linspace(scale.low, scale.high, bins + 1)
        )
        counts, _ = np.histogram(stated, edges)
        low, mid, high = np.percentile(stated, QUANTILES).tolist()
        told = f"Median {mid:,.6g}, nine of ten from {low:,.6g} to {high:,.6g}" + (
            ", on a logarithmic axis." if log else "."
        )
        chart = charts.histogram(f"number{place}", edges, counts, scale, f"Histogram of {number}", told)
        unit = taxonomy.number(number).unit
        of = f" in {parts.name(unit)}," if unit else ""
        head = Html(
            f'<h3>{parts.name(number)} <span class="aside">{of} stated for {len(stated):,} products</span></h3>'
        )
        data: list[list[Cell]] = [
            [f"{a:,.6g} to {b:,.6g}", int(c)] for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
        listed = parts.table([Column("from, to"), Column("products", True)], data, f"{number}.", sort=False)
        figures.append(parts.figure(chart, told, listed, head))
        for category in sorted(catalog.present, key=lambda name: -len(catalog.rows(name)))[:MOST_CATEGORIES]:
            part = value_N[catalog.rows(category)]
            known = part[np.isfinite(part)]
            if len(known):
                quantiles = np.percentile(known, QUANTILES).tolist()
                rows.append(
                    [parts.where(category, number), len(known), 1 - len(known) / len(part), *quantiles]
                )
    if figures:
        heads = [
            Column("category / number"), Column("stated", True), Column("missing", True, percent=True),
            *(Column(f"{q} % quantile", True, digits=2) for q in QUANTILES),
        ]  # fmt: skip
        made = parts.table(heads, rows, "Numbers of each category.", tall=len(rows) > 30)
        body = Html(f'<div class="panels">{"".join(figures)}</div>{parts.more("Per category", made)}')
        yield Section(
            "numbers", "Numbers", body, "How prices and other numbers are spread over all products."
        )
