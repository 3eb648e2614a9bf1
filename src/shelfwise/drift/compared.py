"""A later table compared with the products learnt from, part by part, and what of it is reported.

It does not know how a fingerprint is made, nor how two samples are compared (``trust.shift``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.drift.fingerprint import Fingerprint, learnt_from, of_table
from shelfwise.drift.lines import Comparison, Cut
from shelfwise.drift.report import PICTURES, Drift, DriftLine
from shelfwise.errors import UsageError, listing, suggest
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine
from shelfwise.trust.permuted import as_rare
from shelfwise.trust.shift import false_discoveries

#: Slices of one column that are compared, the largest ones.
MOST_SLICES = 200
#: Pictures, shares of values, everything else.
FAMILIES = 3
#: Deals that are as likely as the rate allows, where nothing changed.
DEALS = 6


def drift(
    bundle: Bundle,
    catalog: Catalog,
    *,
    by: Sequence[str] = (),
    reference: Catalog | None = None,
    rate: float = 0.01,
    machine: Machine | None = None,
) -> Drift:
    """Compare a table with the products a bundle learnt from; nothing stated in it is used but the category.

    Args:
        bundle: what was learnt.
        catalog: the later products.
        by: columns to cut the table by, such as the supplier's.
        reference: the table learnt from, read for its ids and those columns only: each slice is then compared with
            the same slice. Without it a slice is compared with everything learnt from, shown, and never reported:
            one supplier was never like all of them.
        rate: the probability of reporting anything where nothing changed.
        machine: where to compute.

    Raises:
        BundleError: the bundle keeps no evidence.
        UsageError: a column that the table, or the reference, does not have; a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise UsageError(f"the rate of false alarms is a share between 0 and 1, such as 0.01, not {rate}")
    for column in by:
        for table in (catalog, *((reference,) if reference is not None else ())):
            if column not in table.frame.columns:
                hint = suggest(column, table.frame.columns) or f"It has: {listing(table.frame.columns)}."
                raise UsageError(f"{table.source} has no column {column!r} to cut it by. {hint}")
    machine, catalog = machine or Machine(), catalog.under(bundle.schema).remembering()
    before = learnt_from(bundle)
    groups = near_duplicates(
        catalog, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    after, known = of_table(bundle, catalog, groups, machine)
    thresholds = _thresholds(bundle)
    families = [
        [_everything(before, after)],
        *(_cuts(each, catalog, reference, before, after) for each in by),
    ]
    lines: list[DriftLine] = []
    for family in families:
        made = [Comparison(before, after, cut, thresholds) for cut in family]
        told = judged(made, rate, len(families))
        lines += [line for each, own in zip(made, told, strict=True) for line in each.caused(own, rate)]
    notes = [
        f"{column!r} was cut without the table learnt from, so its slices are compared with all products and not "
        "reported; name it with --reference."
        for column in by
        if reference is None
    ]
    order = sorted(
        lines, key=lambda line: (not line.drift, line.column is not None, -line.effect / line.least)
    )
    unreadable = 1 - len(after.pictured) / len(catalog) if len(catalog) else 0.0
    return Drift(
        tuple(order),
        len(catalog),
        len(np.unique(groups)),
        len(before.ids),
        int(known.sum()),
        unreadable,
        rate,
        tuple(notes),
    )


def _thresholds(bundle: Bundle) -> Mapping[tuple[str, str], float]:
    """The confidences from which cells are answered, where the run file promises a precision."""
    if bundle.run.decide.precision is None:
        return {}
    return {name: each.threshold for name, each in bundle.promise().pairs.items()}


def _everything(before: Fingerprint, after: Fingerprint) -> Cut:
    counts = len(before.ids), len(before.pictured), len(after.ids), len(after.pictured)
    first, first_seen, then, then_seen = (np.ones(count, bool) for count in counts)
    return Cut(None, None, first, first_seen, then, then_seen)


def _cuts(
    column: str, catalog: Catalog, reference: Catalog | None, before: Fingerprint, after: Fingerprint
) -> list[Cut]:
    """The largest slices by one column."""
    cell_of = dict(zip(after.ids, catalog.texts(column), strict=True))
    learnt_of = {} if reference is None else dict(zip(reference.ids, reference.texts(column), strict=True))
    after_N, seen_n = (np.array([cell_of[id_] for id_ in ids], object) for ids in (after.ids, after.pictured))
    before_N, before_n = (
        np.array([learnt_of.get(id_) for id_ in ids], object) for ids in (before.ids, before.pictured)
    )
    counts: dict[str, int] = {}
    for cell in cell_of.values():
        if cell is not None and cell.strip():
            counts[cell] = counts.get(cell, 0) + 1
    found = []
    for cell in sorted(counts, key=lambda cell: (-counts[cell], cell))[:MOST_SLICES]:
        own, own_seen = before_N == cell, before_n == cell
        against = "all" if reference is None else "same" if own.any() else "new"
        if against != "same":
            own, own_seen = np.ones_like(own), np.ones_like(own_seen)
        found.append(Cut(column, cell, own, own_seen, after_N == cell, seen_n == cell, against))
    return found


def judged(family: Sequence[Comparison], rate: float, families: int) -> list[list[DriftLine]]:
    """Compare, adjust for the number of comparisons, and say what is reported.

    Pictures, shares of values and everything else are families of their own, as are the whole and each column's
    slices; they share the rate evenly. A slice without its own past is shown only.
    """
    told = [list(each.lines()) for each in family]
    flat = [(line, each) for each, lines in zip(family, told, strict=True) for line in lines]
    tested_K = np.array([line.p if each.tested else np.nan for line, each in flat])
    values_K = np.array([line.kind == "values" and line.value is not None for line, _ in flat], bool)
    pictures_K = np.array([line.kind in PICTURES for line, _ in flat], bool)
    adjusted_K = np.full(len(flat), np.nan)
    for kind_K in (pictures_K, ~pictures_K & ~values_K):
        adjusted_K[kind_K] = false_discoveries(tested_K[kind_K])
    kept_K = values_K & ~np.isnan(tested_K)
    if kept_K.any():
        dealt = [values for each in family if each.tested for values in each.values.values()]
        deals = int(DEALS * FAMILIES * families / rate)
        adjusted_K[kept_K] = as_rare(tested_K[kept_K], dealt, deals)
    adjusted = iter(np.minimum(FAMILIES * families * adjusted_K, 1.0).tolist())
    return [[_told(line, next(adjusted), rate) for line in lines] for lines in told]


def _told(line: DriftLine, adjusted: float, rate: float) -> DriftLine:
    return replace(line, adjusted=adjusted, drift=adjusted <= rate and line.effect >= line.least)
