"""Labels: verdicts as training labels, in the layout of the training table, each with where it comes from.

They do not know how items were chosen. Where the first reviewers of an item disagree nothing is taken as true, and
where it cannot be seen in the picture nothing is taught.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from shelfwise.errors import CatalogError, DeskError, UsageError
from shelfwise.layouts import attribute_column
from shelfwise.roles import Layout
from shelfwise.service.desk import Desk
from shelfwise.service.items import Item
from shelfwise.service.verdicts import Verdict
from shelfwise.tables import Table, read_table, write_frame
from shelfwise.taxonomy import Taxonomy

IMAGE = "image"


@dataclass(frozen=True)
class Label:
    """What the verdicts on one item come to.

    Attributes:
        item: the question.
        state: ``label``, ``not applicable``, ``not visible``, or ``disagreed``.
        value: what holds now; None where nothing does.
        verdicts: what stands, by reviewer.
    """

    item: Item
    state: str
    value: str | None
    verdicts: tuple[Verdict, ...]

    @property
    def teaches(self) -> bool:
        """Whether it says what the cell holds, be it nothing."""
        return self.value is not None or (self.state == "not applicable" and bool(self.item.attribute))


@dataclass(frozen=True, eq=False)
class Labels:
    """All labels of a desk.

    Attributes:
        items: the labels, in the order of the products' ids.
        taxonomy: under which they were given.
        layout: of the training table.
    """

    items: tuple[Label, ...]
    taxonomy: Taxonomy
    layout: Layout

    @property
    def _empty(self) -> str | None:
        """What a cell without a value holds."""
        return self.layout.filler if self.layout.kind == "challenge" else None

    def _products(self) -> dict[str, list[Label]]:
        """The labels that teach, by product."""
        products: dict[str, list[Label]] = {}
        for label in self.items:
            if label.teaches:
                products.setdefault(label.item.id, []).append(label)
        return products

    def counts(self) -> dict[str, int]:
        """Return how many items are in each state."""
        found: dict[str, int] = {}
        for label in self.items:
            found[label.state] = found.get(label.state, 0) + 1
        return found

    def frame(self) -> pl.DataFrame:
        """Return a table of its own: a row for each product with a label, the cells not looked at empty."""
        layout = self.layout
        rows = []
        for id_, labels in self._products().items():
            category = _category(labels)
            row: dict[str, str | None] = dict.fromkeys((*layout.columns, *self._numbers), self._empty)
            row[layout.id] = id_
            if layout.category:
                row[layout.category] = category
            if layout.kind == "challenge":
                row["len"] = str(len(self.taxonomy.choices(category)))
            else:
                photo = labels[0].item.photo
                row[IMAGE] = None if photo is None else str(photo)
            rows.append(row | self._cells(category, labels))
        names = [layout.id, *([layout.category] if layout.category else [])]
        names += ["len"] if layout.kind == "challenge" else [IMAGE]
        return pl.DataFrame(rows, schema=dict.fromkeys([*names, *layout.columns, *self._numbers], pl.String))

    def _cells(self, category: str, labels: Iterable[Label]) -> dict[str, str | None]:
        """Return the cells that labels fill or empty, by column; those that the category does not have are left out."""
        said = {label.item.attribute: label for label in labels if label.item.attribute}
        cells: dict[str, str | None] = {}
        for position, choice in enumerate(self.taxonomy.choices(category)):
            label = said.get(choice.name)
            if label is None:
                continue
            if label.value is None:
                cells[attribute_column(self.layout, position, choice.name)] = self._empty
            elif label.value in choice.codes:
                cells[attribute_column(self.layout, position, choice.name)] = label.value
        numbers = {name: label for name, label in said.items() if label.item.number}
        return cells | {name: label.value or self._empty for name, label in numbers.items()}

    @property
    def _numbers(self) -> tuple[str, ...]:
        """The columns of the Numbers that labels are of, beyond those of the layout."""
        names = sorted({label.item.attribute for label in self.items if label.item.number})
        return tuple(name for name in names if name not in self.layout.columns)

    def onto(self, table: Table) -> tuple[pl.DataFrame, tuple[str, ...]]:
        """Return a table with its cells corrected, and the ids of labels that it has no row for.

        Of a product whose category was corrected the cells that the new category has as well are kept.

        Args:
            table: as read, in the layout of the training table.

        Raises:
            CatalogError: a column is not there, or a product with a label is there twice.
        """
        layout, frame = self.layout, table.frame
        needed = [*([layout.category] if layout.category else []), *(self._columns() & set(layout.columns))]
        needed += self._numbers
        missing = [name for name in needed if name not in frame.columns]
        if missing:
            raise CatalogError(f"{table.source}: has no column {missing[0]!r}, which labels are of")
        numbered = [str(row) for row in range(1, frame.height + 1)]
        ids = frame[layout.id].to_list() if layout.id in frame.columns else numbered
        place: dict[str, list[int]] = {}
        for row, id_ in enumerate(ids):
            place.setdefault(id_ or "", []).append(row)
        cells = {name: frame[name].to_list() for name in needed}
        lost = []
        for id_, labels in self._products().items():
            rows = place.get(id_, [])
            if len(rows) > 1:
                raise CatalogError(
                    f"{table.source}, rows {rows[0] + 1} and {rows[1] + 1}: the id {id_!r} is there twice, so its "
                    "labels have no place; make ids unique"
                )
            if not rows:
                lost.append(id_)
                continue
            self._correct(cells, rows[0], labels)
        columns = [pl.Series(name, texts, dtype=pl.String) for name, texts in cells.items()]
        return frame.with_columns(columns), tuple(lost)

    def _columns(self) -> set[str]:
        """The columns of the layout that any label can touch."""
        moved = any(not label.item.attribute for label in self.items)
        names = self.taxonomy.categories if moved else {label.item.category for label in self.items}
        numbers = {label.item.attribute for label in self.items if label.item.number}
        return numbers | {
            attribute_column(self.layout, position, choice.name)
            for name in names
            for position, choice in enumerate(self.taxonomy.choices(name))
        }

    def _correct(self, cells: Mapping[str, list[str | None]], row: int, labels: Sequence[Label]) -> None:
        layout, category = self.layout, _category(labels)
        was = (cells[layout.category][row] or "") if layout.category else category
        changed: dict[str, str | None] = {}
        if was != category:
            before = {}
            if was in self.taxonomy.category_codes:
                for position, choice in enumerate(self.taxonomy.choices(was)):
                    column = attribute_column(layout, position, choice.name)
                    before[choice.name] = cells[column][row]
                    changed[column] = self._empty
            for position, choice in enumerate(self.taxonomy.choices(category)):
                if before.get(choice.name) in choice.codes:
                    changed[attribute_column(layout, position, choice.name)] = before[choice.name]
            changed[layout.category] = category
        for column, value in (changed | self._cells(category, labels)).items():
            cells[column][row] = value

    def provenance(self) -> pl.DataFrame:
        """Return where every label comes from: a row for each item with a verdict, those that teach nothing too."""
        rows = []
        for label in self.items:
            item, last = label.item, label.verdicts[-1]
            rows.append(
                {
                    "id": item.id,
                    "category": item.category,
                    "attribute": item.attribute,
                    "before": item.stated,
                    "value": label.value,
                    "state": label.state,
                    "seen": item.seen,
                    "kind": ";".join(verdict.kind for verdict in label.verdicts),
                    "reviewer": ";".join(verdict.reviewer for verdict in label.verdicts),
                    "at": last.at,
                    "model": last.model,
                    "taxonomy": last.taxonomy,
                    "record": ";".join(str(verdict.seq) for verdict in label.verdicts),
                    "hash": ";".join(verdict.hash for verdict in label.verdicts),
                }
            )
        return pl.DataFrame(rows, schema=dict.fromkeys(PROVENANCE, pl.String))

    def write(self, path: str | Path, *, onto: str | Path | None = None) -> tuple[str, ...]:
        """Write to ``.csv`` or ``.parquet``, and beside it ``<stem>.provenance.csv``.

        Args:
            path: its ending chooses the format.
            onto: a table whose cells are corrected, instead of a table of the labels alone.

        Returns:
            The ids of labels that the table has no row for.

        Raises:
            UsageError: another ending.
            CatalogError: as ``onto``.
        """
        path = Path(path)
        frame, lost = (self.frame(), ()) if onto is None else self.onto(read_table(onto))
        write_frame(frame, path)
        write_frame(self.provenance(), path.with_suffix(".provenance.csv"), escape=("id", "reviewer"))
        return lost


#: The columns of where labels come from.
PROVENANCE = (
    "id",
    "category",
    "attribute",
    "before",
    "value",
    "state",
    "seen",
    "kind",
    "reviewer",
    "at",
    "model",
    "taxonomy",
    "record",
    "hash",
)


def labels_of(desk: Desk) -> Labels:
    """Return what the verdicts of a desk come to.

    Raises:
        DeskError: the desk was filled under several taxonomies, never, or without a layout.
    """
    bundles = desk.bundles()
    if not bundles:
        raise DeskError(f"{desk.place}: nothing was put on this desk yet; see: shelfwise labels queue")
    _, taxonomy, layout = bundles[-1]
    if any(other.hash != taxonomy.hash for _, other, _ in bundles):
        raise DeskError(
            f"{desk.place}: its items are of bundles with different taxonomies; use a desk for each taxonomy"
        )
    if layout is None:
        raise DeskError(
            f"{desk.place}: the layout of the training table was not put on this desk; fill it again"
        )
    said = desk.outcomes()
    found = [_label(item, said[item.key]) for item in desk.items() if item.key in said]
    found.sort(key=lambda label: (label.item.id, label.item.category, label.item.attribute))
    return Labels(tuple(found), taxonomy, layout)


def _label(item: Item, verdicts: tuple[Verdict, ...]) -> Label:
    """Settle an item: what all reviewers say, else what more than half of them say."""
    outcomes = [_said(verdict) for verdict in verdicts]
    most = max(outcomes, key=outcomes.count)
    if 2 * outcomes.count(most) <= len(outcomes):
        return Label(item, "disagreed", None, verdicts)
    return Label(item, *most, verdicts)


def _said(verdict: Verdict) -> tuple[str, str | None]:
    words = {"not_applicable": "not applicable", "not_visible": "not visible"}
    return words.get(verdict.kind, "label"), verdict.after


def _category(labels: Sequence[Label]) -> str:
    """The category of a product: the one that was said, else the one it was asked under."""
    said = [label.value for label in labels if not label.item.attribute and label.value is not None]
    return said[0] if said else labels[0].item.category


def check_path(path: Path) -> None:
    """Refuse a path that could not be written.

    Raises:
        UsageError: another ending than .csv or .parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"labels are written to .csv or .parquet, not {path.suffix or 'no ending'!r}: {path}"
        )
