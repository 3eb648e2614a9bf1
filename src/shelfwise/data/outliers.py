"""Outliers: stated numbers far from the others of their category, as findings.

It does not know models, pictures or texts, and drops nothing: an outlier may be right.
Legend: n stated numbers of one category.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from shelfwise.catalog import Catalog
from shelfwise.findings import Finding, Findings
from shelfwise.taxonomy import Number

#: Stated numbers that a category needs to be judged.
FEWEST = 20
#: Robust standard deviations from the category's median beyond which a number is an outlier.
FAR = 6.0
#: A category's spread is taken to be at least this share of the Number's own, and of a logarithm at least this.
LEAST_SPREAD, LEAST_LOGARITHM = 0.1, 0.05


def number_outliers(catalog: Catalog) -> Findings:
    """Return stated numbers far outside the others of their category: kind ``number_outlier``.

    A number's distance is counted from the median in scaled median absolute deviations on the Number's transformed
    scale (logarithms, for prices); where more than half of a category's numbers are one, in scaled mean absolute
    deviations (the modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, with a
    farther limit than theirs, for prices have heavy tails).
    """
    found: list[Finding] = []
    for name in catalog.taxonomy.number_names:
        stated_N = catalog.numbers(name)
        for category in catalog.present:
            rows = catalog.rows(category)
            rows = rows[np.isfinite(stated_N[rows])]
            if len(rows) >= FEWEST:
                found += _far(catalog, category, catalog.taxonomy.number(name), rows, stated_N[rows])
    return Findings.of_all(found)


def _far(
    catalog: Catalog, category: str, number: Number, rows: NDArray[np.int64], stated_n: NDArray[np.float64]
) -> Iterator[Finding]:
    standard_n = number.forward(stated_n)
    away_n = standard_n - np.median(standard_n)
    spread = 1.4826 * float(np.median(np.abs(away_n)))
    if spread == 0:
        spread = 1.2533 * float(np.abs(away_n).mean())
    spread = max(
        spread, LEAST_SPREAD, 0.0 if number.transform == "linear" else LEAST_LOGARITHM / number.scale
    )
    middle, unit = float(np.median(stated_n)), f" {number.unit}" if number.unit else ""
    low, high = number.inverse(np.median(standard_n) + np.array([-FAR, FAR]) * spread).tolist()
    for at in np.flatnonzero(np.abs(away_n) > FAR * spread).tolist():
        row, stated = int(rows[at]), float(stated_n[at])
        message = (
            f"{stated:,.6g}{unit} is far from the other numbers of {category}: median {middle:,.6g}, and {low:,.4g} to "
            f"{high:,.4g} would not be remarked on"
        )
        evidence = {"stated": stated, "median": middle, "low": low, "high": high, "products": len(rows)}
        yield Finding("number_outlier", message, row + 1, catalog.ids[row], number.name, evidence=evidence)
