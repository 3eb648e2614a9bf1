"""Recode: a table's cells under another taxonomy, and which products must be answered again.

It reads and writes cells, not pictures, and asks no model. A cell is moved and rewritten only where the
changes say what its value became; one that has no place any more is emptied and listed, never dropped in
silence.
Legend: N rows, J label columns.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from shelfwise.catalog import Schema
from shelfwise.cells import CATEGORY, clean_cells, encode_labels, label_columns
from shelfwise.changes.affected import ANSWER, LOOK, REMOVED, REWRITTEN, Affected, Recoded
from shelfwise.changes.change import AttributeMap, CategoryMap, Changes
from shelfwise.changes.relayout import new_columns, rows_by_code
from shelfwise.errors import CatalogError, listing
from shelfwise.tables import Table
from shelfwise.taxonomy import Choice


def recode(table: Table, schema: Schema, changes: Changes) -> Recoded:
    """Bring a table from the old taxonomy to the new one.

    Args:
        table: as read.
        schema: how it is read under the old taxonomy; see ``relayout.schema_of``.
        changes: from that taxonomy to the new one.

    Raises:
        CatalogError: no row is of a category of the old taxonomy.
    """
    return _Recoding(table, schema, changes).run()


@dataclass(frozen=True, eq=False)
class _Into:
    """One attribute of a new category, and the old attributes whose cells become its own.

    Attributes:
        category: the old category's name.
        choice: the new attribute.
        maps: of the old attributes.
        before: the old attributes.
        columns: where their cells stood.
        column: where its own cell stands.
    """

    category: str
    choice: Choice
    maps: tuple[AttributeMap, ...]
    before: tuple[Choice, ...]
    columns: tuple[str, ...]
    column: str

    @cached_property
    def fresh(self) -> tuple[str, ...]:
        """The values that its list did not have before, under whatever name."""
        known = frozenset[str]().union(*(m.reached for m in self.maps))
        return tuple(value for value in self.choice.values if value not in known)


class _Recoding:
    """The state of one recoding: the columns as they are rewritten, and what was affected."""

    def __init__(self, table: Table, schema: Schema, changes: Changes) -> None:
        self.table, self.schema, self.changes = table, schema, changes
        self.roles, self.layout = schema.roles, schema.layout
        self.challenge = schema.layout.kind == "challenge"
        self.after = new_columns(schema, changes)
        frame = table.frame
        self.cells = clean_cells(frame, self.roles, schema.missing)
        self.category_N, self.codes_NJ = encode_labels(self.cells, schema.taxonomy, self.roles, self.layout)
        if frame.height and not (self.category_N >= 0).any():
            stated = [str(name) for name in self.cells[CATEGORY].drop_nulls().unique().sort().to_list()]
            raise CatalogError(
                f"{table.source}: no product is of a category of the old taxonomy "
                f"({listing(schema.taxonomy.categories, 5)}); the category column "
                f"{self.roles.category!r} has {listing(stated, 5)}"
            )
        labels = (*self.roles.choices, *self.after.layout.columns, *self.after.roles.choices)
        self.out: dict[str, list[str | None]] = {
            name: frame[name].to_list() if name in frame.columns else [None] * frame.height
            for name in dict.fromkeys(labels)
        }
        self.missing = {"", *(token.strip().casefold() for token in schema.missing)}
        self.ids = frame[self.roles.id].to_list() if self.roles.id else None
        self.affected: list[Affected] = []

    def run(self) -> Recoded:
        frame, old, field = self.table.frame, self.schema.taxonomy, self.roles.category
        names = frame[field].to_list() if field else None
        for code, rows_n in rows_by_code(self.category_N).items():
            category, rows = old.categories[code], rows_n.tolist()
            onward = self.changes.onward.get(category, ())
            if len(onward) == 1:
                self.move(rows, onward[0])
                if names is not None and onward[0].new != category:
                    how = "merged into" if len(self.changes.origins[onward[0].new]) > 1 else "renamed"
                    for row in rows:
                        names[row] = onward[0].new
                        reason = f"the category was {how} {onward[0].new!r}"
                        self.add(row, category, "", field, category, onward[0].new, REWRITTEN, reason)
            else:
                self.lost(rows, category, onward, names)
        self.left_behind()
        self.affected.sort(key=lambda item: item.row)
        return Recoded(self.frame(names), tuple(self.affected))

    def add(
        self,
        row: int,
        category: str,
        attribute: str,
        column: str | None,
        stated: str | None,
        becomes: str | None,
        action: str,
        reason: str,
    ) -> None:
        id_ = str(row + 1) if self.ids is None else self.ids[row] or ""
        self.affected.append(
            Affected(row + 1, id_, category, attribute, column or "", stated, becomes, action, reason)
        )

    def lost(
        self,
        rows: Sequence[int],
        category: str,
        onward: Sequence[CategoryMap],
        names: list[str | None] | None,
    ) -> None:
        """Rows of a category that was split or retired: its cell is emptied, the others wait for the answer."""
        new = [item.new for item in onward]
        reason = f"the category was split into {listing(new)}" if new else "the category was retired"
        for row in rows:
            if names is not None:
                names[row] = None
            self.add(row, category, "", self.roles.category, category, None, ANSWER, reason)

    def left_behind(self) -> None:
        """Cells that stand in columns which no attribute has any more."""
        if self.challenge:
            return
        for column in self.roles.choices:
            if column not in self.after.roles.choices:
                for row in range(self.table.frame.height):
                    stated = self.said(column, row)
                    if stated is not None:
                        category = str(self.cells[CATEGORY][row] or "")
                        reason = "no attribute has this column any more"
                        self.add(row, category, column, column, stated, None, REMOVED, reason)

    def said(self, column: str, row: int) -> str | None:
        """What a cell says now, ``None`` where it is empty or holds a missing token."""
        text = self.out[column][row]
        return None if text is None or text.strip().casefold() in self.missing else text

    def move(self, rows: Sequence[int], item: CategoryMap) -> None:
        """Rows of a category that went on as one."""
        old, new = self.changes.old, self.changes.new
        positions = label_columns(old, item.old, self.roles, self.layout)
        source = {
            choice.name: self.roles.choices[at]
            for choice, at in zip(old.choices(item.old), positions, strict=True)
            if at >= 0
        }
        raw = {name: [self.out[column][row] for row in rows] for name, column in source.items()}
        for name, column in source.items():
            if all(m.old != name for m in item.attributes):
                self.retired(rows, item.old, name, column)
            for row in rows:
                self.out[column][row] = None
        for at, choice in enumerate(new.choices(item.new)):
            maps = [m for m in item.into(choice.name) if m.old in source]
            into = _Into(
                item.old,
                choice,
                tuple(maps),
                tuple(old.choice(item.old, m.old) for m in maps),
                tuple(source[m.old] for m in maps),
                self.column(choice.name, at, item, source),
            )
            if maps:
                for place, row in enumerate(rows):
                    self.cell(row, into, [raw[m.old][place] for m in maps])
            elif not item.into(choice.name):
                self.added(rows, into)

    def column(self, name: str, position: int, item: CategoryMap, source: Mapping[str, str]) -> str:
        """Where an attribute's cells stand: where they stood, unless it was renamed or moved."""
        if self.challenge:
            return self.after.layout.columns[position]
        kept = [source[m.old] for m in item.into(name) if m.old == name and m.old in source]
        return kept[0] if kept else name

    def added(self, rows: Sequence[int], into: "_Into") -> None:
        """A new attribute: every product needs an answer, unless one of its values stands there already."""
        name, reason = into.choice.name, f"the attribute {into.choice.name!r} was added"
        for row in rows:
            stated = self.said(into.column, row)
            if stated is None or stated not in into.choice.codes:
                self.add(row, into.category, name, into.column, stated, None, ANSWER, reason)
                self.out[into.column][row] = None

    def retired(self, rows: Sequence[int], category: str, name: str, column: str) -> None:
        """An old attribute that no new one is: its cells go, and are listed."""
        parts = self.changes.split_attributes.get((category, name))
        reason = f"the attribute was split into {listing(parts)}" if parts else "the attribute was retired"
        for row in rows:
            stated = self.said(column, row)
            if stated is not None:
                self.add(row, category, name, column, stated, None, REMOVED, reason)

    def cell(self, row: int, into: "_Into", texts: Sequence[str | None]) -> None:
        """Write the cell of one new attribute, out of the old one or the old ones that became it."""
        column, where = into.column, (into.category, into.choice.name, into.column)
        foreign = self.said(column, row)
        if foreign is not None:
            reason = "it stood in a column of no attribute of its category, which has one now"
            self.add(row, *where, foreign, None, REMOVED, reason)
        found: dict[str, tuple[str, str, bool]] = {}
        for m, choice, before, text in zip(into.maps, into.before, into.columns, texts, strict=True):
            if text is None or text.strip().casefold() in self.missing:
                continue
            code = choice.codes.get(text)
            if code is None:  # no value of the old taxonomy: kept as it is, for reading to find
                found.setdefault(text, (text, before, False))
                continue
            value = choice.values[code]
            names = m.targets[value]
            if len(names) != 1:
                reason = f"{value!r} was split into {listing(names)}" if names else f"{value!r} was retired"
                self.out[column][row] = None
                self.add(row, *where, text, None, ANSWER, reason)
                return
            same = value == names[0] and into.choice.codes.get(text) == into.choice.codes[names[0]]
            found.setdefault(names[0], (text if same else names[0], before, text != names[0] and not same))
        if len(found) > 1:
            told = " / ".join(text for text in texts if text is not None)
            reason = f"the merged attributes said different things: {listing(found)}"
            self.out[column][row] = None
            self.add(row, *where, told, None, ANSWER, reason)
            return
        if not found:
            self.out[column][row] = next((text for text in texts if text is not None), None)
            return
        text, before, rewritten = next(iter(found.values()))
        self.out[column][row] = text
        stated = texts[into.columns.index(before)]
        known = text in into.choice.codes
        reasons = [f"{stated!r} is {text!r} now"] if rewritten else []
        reasons += [f"moved from the column {before!r}"] if before != column else []
        look = known and bool(into.fresh)
        reasons += [f"the list has {listing(into.fresh, 3)} now"] if look else []
        if reasons:
            self.add(row, *where, stated, text, LOOK if look else REWRITTEN, "; ".join(reasons))

    def frame(self, names: list[str | None] | None) -> pl.DataFrame:
        """The columns in their old order, renamed ones in their place, added ones at the end."""
        frame, after = self.table.frame, self.after
        fresh = {name for c in self.changes.of(level="attribute") for name in c.new}
        labels = {*after.layout.columns, *after.roles.choices}
        there = labels if self.challenge else labels & {*frame.columns, *fresh}
        choices = [name for name in self.out if name in there and name not in after.roles.numbers]
        numbers = {b: a for m in self.changes.maps for b, a in m.numbers.items() if b in frame.columns}
        if self.challenge:
            self.fill(choices)
        data: dict[str, pl.Series] = {}
        became: dict[str, list[str]] = defaultdict(list)
        for item in self.changes.maps:
            for m in item.attributes:
                became[m.old].append(m.new)
        for name in frame.columns:
            if name == self.roles.category and names is not None:
                data[name] = pl.Series(names, dtype=pl.String)
            elif name in self.roles.choices or name in choices:
                for other in dict.fromkeys((*(became.get(name, ()) if not self.challenge else ()), name)):
                    if other in choices and (other == name or other not in frame.columns):
                        data[other] = pl.Series(self.out[other], dtype=pl.String)
            elif name == "len" and self.challenge:
                data[name] = self.lengths(names)
            elif name in numbers and numbers[name] not in frame.columns:
                data[numbers[name]] = frame[name]
            elif name in after.roles.numbers or name not in self.roles.numbers:
                data[name] = frame[name]
        empty: list[str | None] = [None] * frame.height
        for name in (*choices, *(name for name in after.roles.numbers if name in fresh)):
            data.setdefault(name, pl.Series(self.out.get(name, empty), dtype=pl.String))
        return pl.DataFrame(data)

    def fill(self, choices: Sequence[str]) -> None:
        """Put the filler into unused cells, in tables that do so."""
        filler = self.layout.filler
        columns = [self.out[name] for name in self.roles.choices]
        if not any(cell == filler for cells in columns for cell in cells):
            return
        for code, rows_n in rows_by_code(self.category_N).items():
            onward = self.changes.onward.get(self.schema.taxonomy.categories[code], ())
            if len(onward) == 1:
                used = len(self.changes.new.choices(onward[0].new))
                for column in choices[used:]:
                    for row in rows_n.tolist():
                        if self.out[column][row] is None:
                            self.out[column][row] = filler

    def lengths(self, names: list[str | None] | None) -> pl.Series:
        """The column ``len``: how many attributes each product's category has."""
        before = self.table.frame["len"].to_list()
        known = self.changes.new.entries
        lengths = [
            str(len(self.changes.new.choices(name))) if name is not None and name in known else length
            for name, length in zip(names or [], before, strict=True)
        ]
        return pl.Series(lengths, dtype=pl.String)
