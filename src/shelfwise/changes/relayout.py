"""Relayout: how the columns of a table follow a taxonomy, and a change of it.

It knows the names of columns, not their cells.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Schema
from shelfwise.changes.change import Changes
from shelfwise.roles import FILLER, MISSING, Columns, Layout, infer_roles, is_challenge
from shelfwise.tables import Table
from shelfwise.taxonomy import Choice, Taxonomy


def schema_of(table: Table, taxonomy: Taxonomy, columns: Columns | None = None) -> Schema:
    """Return how a table is read when only its taxonomy is known.

    Columns that are called as an attribute is have that role, however few rows there are.

    Args:
        table: the table.
        taxonomy: its taxonomy.
        columns: overrides of what is inferred.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for attributes in taxonomy.entries.values():
        for item in attributes:
            names["choice" if isinstance(item, Choice) else "number"].add(item.name)
    for spelling, name in taxonomy.aliases.items():
        for known in names.values():
            if name in known:
                known.add(spelling)
    columns = columns or Columns()
    given = {columns.id, columns.category, columns.image, *columns.text, *columns.number, *columns.ignore}
    there = [name for name in table.frame.columns if name not in given]
    columns = replace(
        columns,
        number=(*columns.number, *(name for name in there if name in names["number"])),
        choice=(*columns.choice, *(name for name in there if name in names["choice"])),
    )
    roles = infer_roles(table.frame, columns, MISSING, table.source)
    id_column, category = roles.id or "id", roles.category or ""
    if is_challenge(table.frame):
        width = max(len(taxonomy.choices(name)) for name in taxonomy.categories)
        labels = (*roles.choices, *(f"attr_{k}" for k in range(len(roles.choices) + 1, width + 1)))
        return Schema(taxonomy, roles, Layout("challenge", id_column, category, labels, FILLER))
    return Schema(taxonomy, roles, Layout("named", id_column, category, (*roles.choices, *roles.numbers)))


def new_columns(schema: Schema, changes: Changes) -> Schema:
    """Return how tables are read and answers laid out under the new taxonomy.

    An attribute that was renamed takes its old column's place, an added one comes after the others, one that
    no category has any more goes. Where a taxonomy states the old name as an alias, the old column is still
    read.

    Args:
        schema: that of the old taxonomy.
        changes: old to new.
    """
    new, layout, roles = changes.new, schema.layout, schema.roles
    if layout.kind == "challenge":
        width = max(len(new.choices(name)) for name in new.categories)
        have = len(layout.columns)
        labels = (*layout.columns, *(f"attr_{k}" for k in range(have + 1, width + 1)))
        choices = (*roles.choices, *(name for name in labels if name not in roles.choices))
        return Schema(
            new,
            replace(roles, choices=choices),
            Layout(layout.kind, layout.id, layout.category, labels, layout.filler),
            schema.missing,
        )
    became: dict[str, list[str]] = defaultdict(list)
    for item in changes.maps:
        for attribute in item.attributes:
            became[attribute.old].append(attribute.new)
        for before, after in item.numbers.items():
            became[before].append(after)

    def follow(before: tuple[str, ...], names: list[str]) -> tuple[str, ...]:
        order = [name for old in before for name in (*became.get(old, ()), old) if name in names]
        return tuple(dict.fromkeys([*order, *names]))

    choices, amounts = follow(roles.choices, _used(new, False)), follow(roles.numbers, _used(new, True))
    still = tuple(c for c in roles.choices if c in new.aliases and c not in choices)
    return Schema(
        new,
        replace(roles, choices=(*choices, *still), numbers=amounts),
        Layout(layout.kind, layout.id, layout.category, (*choices, *amounts), layout.filler),
        schema.missing,
    )


def _used(taxonomy: Taxonomy, numbers: bool) -> list[str]:
    """The attribute names over all categories, in order."""
    return list(
        dict.fromkeys(
            item.name
            for attributes in taxonomy.entries.values()
            for item in attributes
            if isinstance(item, Choice) is not numbers
        )
    )


def rows_by_code(code_N: npt.NDArray[np.int32]) -> dict[int, npt.NDArray[np.int64]]:
    """Return int64 [n], the ascending positions of every code that is 0 or more, in one pass."""
    order = np.argsort(code_N, kind="stable").astype(np.int64)
    values, starts = np.unique(code_N[order], return_index=True)
    parts = np.split(order, starts[1:])[: len(values)]
    return {int(value): part for value, part in zip(values, parts, strict=True) if value >= 0}
