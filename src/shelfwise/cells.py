"""Cells to codes: the taxonomy a table states, its labels as numbers, and what is odd about its cells.

It works on columns of text; it knows neither files nor pictures.
Legend: N rows, J label columns.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.errors import CatalogError, listing, suggest
from shelfwise.findings import Finding
from shelfwise.roles import NUMBER_NAMES, Layout, Roles
from shelfwise.taxonomy import Attribute, Choice, Number, Taxonomy

ONE_CATEGORY = "all"
EMPTY, UNKNOWN = -1, -2
#: A cell with one of these between two parts that are values themselves holds several values.
JOINERS = r"\s*(?:[,;/|&+]|\band\b)\s*"
CATEGORY = "\x00category"
#: The share of stated numbers above zero from which the others are taken for mistakes.
POSITIVE = 0.99
SMALLEST_SCALE = 1e-6


def clean_cells(frame: pl.DataFrame, roles: Roles, missing: Sequence[str]) -> pl.DataFrame:
    """Return category, label and number columns with the missing tokens as null; all other text verbatim.

    The category stands in the column ``CATEGORY``; where the table has none, it is ``ONE_CATEGORY``.
    """
    tokens = sorted({token.strip().casefold() for token in missing} | {""})

    def blank(name: str) -> pl.Expr:
        column = pl.col(name)
        return pl.when(column.str.strip_chars().str.to_lowercase().is_in(tokens)).then(None).otherwise(column)

    # Not a literal: of a table with no other column to read, that would be one row.
    category = blank(roles.category) if roles.category else pl.repeat(ONE_CATEGORY, pl.len(), dtype=pl.String)
    return frame.select(
        category.alias(CATEGORY) if frame.height else pl.lit(None, pl.String).alias(CATEGORY).head(0),
        *(blank(name).alias(name) for name in roles.choices),
        *(blank(name).alias(name) for name in roles.numbers),
    )


def infer_taxonomy(
    cells: pl.DataFrame,
    roles: Roles,
    lists: Mapping[str, Sequence[str]] | None,
    aliases: Mapping[str, Mapping[str, str]],
    attribute_aliases: Mapping[str, str],
    source: str,
    units: Mapping[str, str] | None = None,
) -> Taxonomy:
    """Build the taxonomy that a table's cells state: categories and values sorted, attributes in column order.

    Args:
        cells: from ``clean_cells``.
        roles: which columns hold labels and numbers.
        lists: per category the attribute names of ``attr_1..attr_N``; ``None`` where columns carry the names.
        aliases: per attribute name, other spellings of its values.
        attribute_aliases: other spellings of attribute names.
        source: the table's name for messages.
        units: the currency or unit of number columns.

    Raises:
        CatalogError: no products, or a category that the attribute list does not have.
    """
    categories = sorted(cells[CATEGORY].drop_nulls().unique().to_list())
    if not categories:
        raise CatalogError(f"{source}: has no product with a category, so there is nothing to learn from")
    if lists is not None:
        unknown = [name for name in categories if name not in lists]
        if unknown:
            raise CatalogError(
                f"{source}: the attribute list has no category {unknown[0]!r}. "
                + (suggest(unknown[0], lists) or f"It has: {listing(lists)}.")
            )
        categories = sorted(lists)
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name in roles.choices:
        for category, value in cells.select(CATEGORY, name).drop_nulls().unique().iter_rows():
            values[category, name].add(value)
    units = units or {}
    priced: dict[str, list[str]] = defaultdict(list)
    for name in roles.numbers:
        for category in cells.filter(pl.col(name).is_not_null())[CATEGORY].drop_nulls().unique().to_list():
            priced[category].append(name)
    numbers = {
        name: infer_number(name, number_cells(cells[name], ())[0], units.get(name, ""))
        for name in roles.numbers
    }
    entries: dict[str, tuple[Attribute, ...]] = {}
    for category in categories:
        if lists is not None:
            named = list(zip(lists[category], roles.choices, strict=False))
            if len(lists[category]) > len(roles.choices):
                raise CatalogError(
                    f"{source}: {category!r} has {len(lists[category])} attributes, "
                    f"the table only {len(roles.choices)} columns attr_1 ..."
                )
        else:
            named = [(name, name) for name in roles.choices if values[category, name]]
        choices = [_choice(name, values[category, column], aliases.get(name, {})) for name, column in named]
        entries[category] = (*choices, *(numbers[name] for name in priced[category]))
    return Taxonomy(entries, dict(attribute_aliases))


def infer_number(name: str, values_N: npt.NDArray[np.float64], unit: str = "") -> Number:
    """Settle how a Number is transformed and standardised, from the numbers a table states.

    Logarithms for prices, and where all but a few numbers are above zero (the few are findings, and teach nothing);
    ``log1p`` where none is below zero; else the numbers as they are.

    Args:
        name: of the column.
        values_N: float64 [N], NaN where nothing is stated.
        unit: of the column.
    """
    stated = values_N[np.isfinite(values_N)]
    positive = name.strip().casefold() in NUMBER_NAMES or not len(stated) or (stated > 0).mean() >= POSITIVE
    transform: Literal["log", "log1p", "linear"] = "log"
    if not positive:
        transform = "log1p" if (stated >= 0).all() else "linear"
    plain = Number(name, unit, transform)
    moved = plain.forward(stated)
    moved = moved[np.isfinite(moved)]
    if not len(moved):
        return plain
    center = float(np.median(moved))
    # The median absolute deviation is zero where more than half of the numbers are equal.
    spread = 1.4826 * float(np.median(np.abs(moved - center))) or float(moved.std())
    return replace(plain, center=round(center, 6), scale=max(round(spread, 6), SMALLEST_SCALE))


def _choice(name: str, stated: set[str], aliases: Mapping[str, str]) -> Choice:
    targets = {value for spelling, value in aliases.items() if spelling in stated}
    values = tuple(sorted({value for value in stated if value not in aliases} | targets))
    return Choice(name, values, {s: v for s, v in aliases.items() if v in values})


def label_columns(taxonomy: Taxonomy, category: str, roles: Roles, layout: Layout) -> list[int]:
    """Return, per Choice attribute of a category, the position of its label column; -1 where the table has none."""
    where = {name: position for position, name in enumerate(roles.choices)}
    if layout.kind == "challenge":
        return [where.get(layout.columns[k], -1) for k in range(len(taxonomy.choices(category)))]
    aliases = {new: old for old, new in taxonomy.aliases.items()}
    return [
        where.get(item.name, where.get(aliases.get(item.name, ""), -1)) for item in taxonomy.choices(category)
    ]


def encode_labels(
    cells: pl.DataFrame, taxonomy: Taxonomy, roles: Roles, layout: Layout
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Turn categories and label cells into codes.

    Returns:
        int32 [N] category codes and int32 [N, J] value codes; ``EMPTY`` and ``UNKNOWN`` where there is none.
    """
    codes = {name: code for name, code in taxonomy.category_codes.items() if name is not None}
    if _no_category_stated(taxonomy, roles):
        cells = cells.with_columns(pl.lit(None, pl.String).alias(CATEGORY))
    category = cells[CATEGORY].to_list()
    known = [EMPTY if name is None else codes.get(name, UNKNOWN) for name in category]
    category_N = np.array(known, np.int32)
    out = np.full((cells.height, len(roles.choices)), EMPTY, dtype=np.int32)
    columns = {
        name: label_columns(taxonomy, name, roles, layout)
        for name in dict.fromkeys(category if roles.choices else ())
        if name in codes
    }
    choice_at: dict[tuple[str, int], Choice] = {
        (name, position): choice
        for name, positions in columns.items()
        for position, choice in zip(positions, taxonomy.choices(name), strict=True)
        if position >= 0
    }
    for position, name in enumerate(roles.choices):
        found = cells.select(CATEGORY, name).drop_nulls().unique()
        rows = []
        for category_name, value in found.iter_rows():
            choice = choice_at.get((category_name, position))
            code = UNKNOWN if choice is None else choice.codes.get(value, UNKNOWN)
            rows.append((category_name, value, code))
        if rows:
            table = pl.DataFrame(
                rows, schema={CATEGORY: pl.String, name: pl.String, "code": pl.Int32}, orient="row"
            )
            joined = cells.select(CATEGORY, name).join(
                table, on=[CATEGORY, name], how="left", maintain_order="left"
            )
            out[:, position] = joined["code"].fill_null(EMPTY).to_numpy()
    return category_N, out


def _no_category_stated(taxonomy: Taxonomy, roles: Roles) -> bool:
    """Whether a table without a category column meets a taxonomy with several: each product's is predicted."""
    return not roles.category and ONE_CATEGORY not in taxonomy.category_codes


def number_cells(
    series: pl.Series, missing: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Read numbers with thousands separators.

    Returns:
        float64 [N], NaN where missing or unreadable, and bool [N], true where a cell is not a number.
    """
    tokens = [token.strip().casefold() for token in missing]
    text = series.str.strip_chars()
    empty = (text.is_null() | text.str.to_lowercase().is_in(tokens)).fill_null(True)
    plain = text.str.replace_all(r"^(-?\d{1,3}(,\d{2,3})*,\d{3})(\.\d+)?$", "$1$3").str.replace_all(",", "")
    grouped = text.str.contains(r"^-?\d{1,3}(,\d{2,3})*,\d{3}(\.\d+)?$").fill_null(False)
    chosen = pl.select(pl.when(grouped).then(plain).otherwise(text)).to_series()
    values = chosen.cast(pl.Float64, strict=False)
    array = values.fill_null(float("nan")).to_numpy().astype(np.float64)
    array[~np.isfinite(array)] = np.nan
    array[empty.to_numpy()] = np.nan
    return array, np.isnan(array) & ~empty.to_numpy()


def table_findings(
    cells: pl.DataFrame,
    taxonomy: Taxonomy,
    roles: Roles,
    layout: Layout,
    ids: Sequence[str],
    category_N: npt.NDArray[np.int32],
    codes_NJ: npt.NDArray[np.int32],
) -> list[Finding]:
    """Return what is odd about ids, categories, labels and numbers, each with its row."""
    found = _id_findings(ids, roles)
    category_cells = cells[CATEGORY].to_list()
    field = roles.category or "category"
    for position in np.flatnonzero(category_N == UNKNOWN).tolist():
        name = category_cells[position]
        hint = suggest(name, taxonomy.categories) or f"Known: {listing(taxonomy.categories)}."
        found.append(
            Finding(
                "unknown_category",
                f"there is no category {name!r}. {hint}",
                position + 1,
                ids[position],
                field,
                "error",
            )
        )
    if _no_category_stated(taxonomy, roles):
        found.append(
            Finding("empty_category", "there is no category column: every category will be predicted")
        )
    else:
        said, empty = "the category is empty and will be predicted", np.flatnonzero(category_N == EMPTY)
        found += [Finding("empty_category", said, at + 1, ids[at], field) for at in empty.tolist()]
    for column, name in enumerate(roles.choices):
        rows = np.flatnonzero((codes_NJ[:, column] == UNKNOWN) & (category_N >= 0)).tolist()
        if rows:
            found += _unknown_values(
                rows, cells[name].to_list(), category_cells, name, column, taxonomy, roles, layout, ids
            )
        found += _spellings(cells[name], name, _declared(taxonomy, column, roles, layout))
        found += _several_values(cells[name], name, ids)
    for name in roles.numbers:
        values, bad = number_cells(cells[name], ())
        text = cells[name].to_list()
        found += [
            Finding("not_a_number", f"{text[position]!r} is not a number", position + 1, ids[position], name)
            for position in np.flatnonzero(bad).tolist()
            if (text[position] or "").strip()
        ]
        if name not in taxonomy.number_names:
            continue
        outside = np.isfinite(values) & np.isnan(taxonomy.number(name).forward(values))
        found += [
            Finding(
                "not_positive", f"{text[position]!r} is not above zero", position + 1, ids[position], name
            )
            for position in np.flatnonzero(outside).tolist()
        ]
    return found


def _id_findings(ids: Sequence[str], roles: Roles) -> list[Finding]:
    first: dict[str, int] = {}
    found = []
    for row, id_ in enumerate(ids, start=1):
        if not id_:
            found.append(Finding("empty_id", "the id is empty", row, id_, roles.id, "error"))
        elif id_ in first:
            found.append(
                Finding(
                    "duplicate_id",
                    f"the id {id_!r} is that of row {first[id_]} too",
                    row,
                    id_,
                    roles.id,
                    "error",
                    {"first_row": first[id_]},
                )
            )
        else:
            first[id_] = row
    return found


def _unknown_values(
    rows: Sequence[int],
    values: Sequence[str | None],
    categories: Sequence[str | None],
    name: str,
    column: int,
    taxonomy: Taxonomy,
    roles: Roles,
    layout: Layout,
    ids: Sequence[str],
) -> list[Finding]:
    found = []
    for position in rows:
        category, value = str(categories[position]), str(values[position])
        positions = label_columns(taxonomy, category, roles, layout)
        if column not in positions:
            message = f"{category!r} has no attribute in the column {name!r}, yet the cell says {value!r}"
            found.append(Finding("unexpected_value", message, position + 1, ids[position], name))
            continue
        choice = taxonomy.choices(category)[positions.index(column)]
        hint = suggest(value, choice.values) or f"It has: {listing(choice.values)}."
        message = f"'{category}/{choice.name}' has no value {value!r}. {hint}"
        found.append(Finding("unknown_value", message, position + 1, ids[position], name))
    return found


def _declared(taxonomy: Taxonomy, column: int, roles: Roles, layout: Layout) -> set[str]:
    """The spellings in a label column that are aliases already."""
    found: set[str] = set()
    for category in taxonomy.categories:
        columns = label_columns(taxonomy, category, roles, layout)
        for item, at in zip(taxonomy.choices(category), columns, strict=True):
            if at == column:
                found.update(item.aliases)
    return found


def _spellings(cells: pl.Series, name: str, declared: Collection[str]) -> list[Finding]:
    """Values that differ only in case and blanks, with the most frequent spelling as the proposal."""
    counts = cells.drop_nulls().value_counts(sort=True)
    by_fold: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for value, count in counts.iter_rows():
        if value not in declared:
            by_fold[" ".join(value.casefold().split())].append((value, count))
    found = []
    for spellings in by_fold.values():
        ordered = sorted(spellings, key=lambda item: (-item[1], item[0] != item[0].strip(), item[0]))
        target = (
            ordered[0][0].strip() if any(v == ordered[0][0].strip() for v, _ in ordered) else ordered[0][0]
        )
        for value, count in ordered:
            if value != target:
                found.append(
                    Finding(
                        "spelling",
                        f"{value!r} ({count} rows) looks like {target!r}; declare it as an alias",
                        None,
                        None,
                        name,
                        "warning",
                        {"alias": {value: target}, "rows": count},
                    )
                )
    return found


def _several_values(cells: pl.Series, name: str, ids: Sequence[str]) -> list[Finding]:
    """Cells such as ``Girls, Women`` whose parts are values of the same column."""
    counts = dict(cells.drop_nulls().value_counts().iter_rows())
    folded = {value.strip().casefold() for value in counts}
    several = set()
    for value in counts:
        parts = [
            part.strip().casefold()
            for part in pl.Series([value]).str.replace_all(JOINERS, "\x1f")[0].split("\x1f")
        ]
        parts = [part for part in parts if part]
        known = sum(part in folded for part in parts)
        if known >= 2 and known * 2 >= len(parts):
            several.add(value)
    if not several:
        return []
    return [
        Finding(
            "several_values", f"the cell holds several values: {value!r}", position + 1, ids[position], name
        )
        for position, value in enumerate(cells.to_list())
        if value in several
    ]
