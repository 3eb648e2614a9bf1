"""Catalog: immutable table of products; read, select, split and folds over given groups.

It does not open pictures, find duplicates or know models. Every label is a code of its taxonomy.
Legend: N products, n products of one category, A its Choice attributes, J label columns.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from shelfwise.cells import (
    clean_cells,
    encode_labels,
    infer_taxonomy,
    label_columns,
    number_cells,
    table_findings,
)
from shelfwise.errors import CatalogError, ImageError, UsageError, listing, suggest
from shelfwise.findings import Finding, Findings
from shelfwise.locate import ImageFolder
from shelfwise.photos import Photo, Photos, locate_photos, read_photos
from shelfwise.roles import FILLER, MISSING, Columns, Layout, Roles, fit_roles, infer_roles, is_challenge
from shelfwise.splits import Folds, assign
from shelfwise.tables import read_table, unescape
from shelfwise.taxonomy import Choice, Number, Taxonomy, read_attribute_list

ONE_CATEGORY = "all"


@dataclass(frozen=True)
class Schema:
    """How a table was read; what a later table needs to be read the same way.

    Attributes:
        taxonomy: categories, attributes, values.
        roles: the role of each column.
        layout: how answers are laid out.
        missing: the cell texts that mean nothing is stated.
    """

    taxonomy: Taxonomy
    roles: Roles
    layout: Layout
    missing: tuple[str, ...] = MISSING


@dataclass(frozen=True, eq=False)
class Catalog:
    """Products with their pictures, texts and stated values.

    Attributes:
        frame: the table as read, every cell as text.
        schema: taxonomy, roles, layout and missing tokens.
        ids: the products' ids, verbatim.
        category: int32 [N], position in ``taxonomy.categories``; -1 where empty, -2 where unknown.
        codes: int32 [N, J], the code of each label column's value; -1 where missing, -2 where unknown.
        images: the resolved path of each product's first picture; ``None`` where ``image_errors`` says why.
        image_errors: row position to what is wrong with where its picture should be.
        findings: what reading noticed.
        source: the table's name for messages.
        memo: arrays per picture that live as long as this catalogue and what is selected from it, so that
            the folds of a cross-fit read every vector once; ``None`` to keep nothing.
        photos: all pictures of each product that has more than one, by row position.
    """

    frame: pl.DataFrame
    schema: Schema
    ids: tuple[str, ...]
    category: npt.NDArray[np.int32]
    codes: npt.NDArray[np.int32]
    images: tuple[Path | None, ...]
    image_errors: Mapping[int, ImageError]
    findings: Findings = field(default_factory=Findings)
    source: str = "frame"
    memo: dict[Hashable, Any] | None = None
    photos: Mapping[int, tuple[Photo, ...]] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        source: Any,
        *,
        images: str | Path | None = None,
        attributes: str | Path | Mapping[str, Sequence[str]] | None = None,
        columns: Columns | None = None,
        schema: Schema | None = None,
        missing: Sequence[str] = MISSING,
        not_applicable: Sequence[str] = (),
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        attribute_aliases: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        photos: Any = None,
    ) -> "Catalog":
        """Read a table of products.

        Args:
            source: CSV, TSV, Parquet or xlsx path, or a polars or pandas frame.
            images: the image folder; by default the table's own folder.
            attributes: each category's attribute names for ``attr_1..attr_N`` columns: Parquet, JSON or a mapping.
            columns: overrides of inferred roles.
            schema: read against this one, as a bundle does, instead of inferring one.
            missing: cell texts that mean nothing is stated.
            not_applicable: cell texts that say an attribute does not apply; case does not matter.
            aliases: per attribute, other spellings of values: ``{"colour": {"Black ": "Black"}}``.
            attribute_aliases: other spellings of attribute names: ``{"occasion": "ocassion"}``.
            units: the currency or unit of number columns: ``{"price": "INR"}``.
            photos: a table of all pictures, ``id, image`` and, if known, ``role``; a product that is not in it has
                those of its own cell.

        Raises:
            CatalogError: a table that cannot be read, or a column that is not there.
            TaxonomyError: an attribute list that cannot be read.
        """
        table = read_table(source)
        frame, columns = table.frame, columns or Columns()
        if schema is None:
            roles = infer_roles(frame, columns, missing, table.source)
            lists = read_attribute_list(attributes) if isinstance(attributes, str | Path) else attributes
            if is_challenge(frame) and not frame.is_empty() and lists is None:
                roles = replace(
                    roles, notes=(*roles.notes, "no attribute list: attributes are called attr_1, attr_2 ...")
                )
            cleaned = clean_cells(frame, roles, missing)
            taxonomy = infer_taxonomy(
                cleaned, roles, lists, aliases or {}, attribute_aliases or {}, table.source, units
            ).marked(not_applicable)
            schema = Schema(taxonomy, roles, _layout(frame, roles, taxonomy), tuple(missing))
        else:
            roles = fit_roles(frame, schema.roles, columns, table.source)
            schema = replace(schema, roles=roles)
            cleaned = clean_cells(frame, roles, schema.missing)
        place = ImageFolder(Path(images) if images is not None else table.directory)
        shown = read_photos(photos, roles.id) if photos is not None else None
        found = cls.settled(frame, schema, place, table.source, cleaned, shown)
        notes = [Finding("reading", note, severity="note") for note in (*table.notes, *roles.notes)]
        lost = len(shown.keys() - set(found.ids)) if shown is not None else 0
        if lost:
            said = f"{lost:,} ids of the table of photos are not products of {table.source}"
            notes.append(Finding("reading", said, severity="note"))
        if found.ids and len(found.image_errors) == len(found.ids) and images is None:
            notes.append(
                Finding(
                    "no_images",
                    f"no picture was found in {table.directory}: name the folder with --images (in Python: images=)",
                    severity="error",
                )
            )
        return replace(found, findings=Findings.of_all([*notes, *found.findings]))

    @classmethod
    def settled(
        cls,
        frame: pl.DataFrame,
        schema: Schema,
        folder: ImageFolder,
        source: str,
        cleaned: pl.DataFrame | None = None,
        shown: Photos | None = None,
    ) -> "Catalog":
        """Return rows whose columns have their roles, such as a part of a table that was read before.

        Args:
            frame: every cell as text.
            schema: with the roles of this table's columns.
            folder: of the pictures.
            source: the table's name for messages.
            cleaned: what ``clean_cells`` returned of the frame, where that is known.
            shown: what ``read_photos`` returned of a table of photos, where there is one.
        """
        roles = schema.roles
        cleaned = clean_cells(frame, roles, schema.missing) if cleaned is None else cleaned
        ids = _ids(frame, roles)
        category, codes = encode_labels(cleaned, schema.taxonomy, roles, schema.layout)
        cells = frame[roles.image].to_list() if roles.image is not None else None
        located = locate_photos(cells, ids, folder, shown)
        found = table_findings(cleaned, schema.taxonomy, roles, schema.layout, ids, category, codes)
        found += located.findings(ids, roles.image or "image")
        findings, photos = Findings.of_all(found), located.photos
        places = located.first, located.errors
        return cls(frame, schema, ids, category, codes, *places, findings, source, photos=photos)

    def under(self, schema: Schema) -> "Catalog":
        """Return the same rows read under another schema, such as a bundle's; pictures stay as located."""
        if (
            schema.taxonomy == self.taxonomy
            and schema.layout == self.layout
            and schema.missing == self.schema.missing
        ):
            return self
        roles = fit_roles(self.frame, schema.roles, Columns(), self.source)
        schema = replace(schema, roles=roles)
        cleaned = clean_cells(self.frame, roles, schema.missing)
        ids = _ids(self.frame, roles)
        category, codes = encode_labels(cleaned, schema.taxonomy, roles, schema.layout)
        found = table_findings(cleaned, schema.taxonomy, roles, schema.layout, ids, category, codes)
        return replace(
            self, schema=schema, ids=ids, category=category, codes=codes, findings=Findings.of_all(found)
        )

    def __len__(self) -> int:
        return len(self.ids)

    def describe_roles(self) -> str:
        """Return what was inferred or declared about the columns, a line each."""
        roles = self.schema.roles
        lines = [
            f"{self.source}: {len(self):,} products, {len(self.taxonomy.categories)} categories",
            f"  id: {roles.id or 'row number'}; category: {roles.category or 'none, all one'}; "
            f"image: {roles.image or 'by id'}",
        ]
        for title, names in (
            ("attributes", roles.choices),
            ("numbers", roles.numbers),
            ("text", roles.texts),
            ("ignored", roles.ignored),
        ):
            if names:
                lines.append(f"  {title}: {', '.join(names)}")
        return "\n".join(lines)

    def first_photos(self) -> "Catalog":
        """Return the same products with their first picture alone."""
        return replace(self, photos={}) if self.photos else self

    def remembering(self) -> "Catalog":
        """Return the same catalogue with a memo, see ``memo``."""
        return self if self.memo is not None else replace(self, memo={})

    def __repr__(self) -> str:
        return (
            f"Catalog({len(self)} products, {len(self.taxonomy.categories)} categories, from {self.source})"
        )

    @property
    def taxonomy(self) -> Taxonomy:
        """Categories, attributes, values."""
        return self.schema.taxonomy

    @property
    def layout(self) -> Layout:
        """How answers are laid out."""
        return self.schema.layout

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of free text."""
        return self.schema.roles.texts

    @cached_property
    def _rows(self) -> Mapping[int, npt.NDArray[np.int64]]:
        order = np.argsort(self.category, kind="stable")
        values, starts = np.unique(self.category[order], return_index=True)
        parts = np.split(order, starts[1:])[: len(values)]
        return {int(v): part.astype(np.int64) for v, part in zip(values, parts, strict=True)}

    def rows(self, category: str) -> npt.NDArray[np.int64]:
        """Return int64 [n], the positions of a category's products."""
        code = self.taxonomy.category_codes.get(category)
        if code is None:
            self.taxonomy.attributes(category)
        return self._rows.get(-1 if code is None else code, np.zeros(0, dtype=np.int64))

    @property
    def present(self) -> tuple[str, ...]:
        """The categories that have products here, in code order."""
        names = self.taxonomy.categories
        return tuple(names[code] for code in sorted(self._rows) if code >= 0)

    def labels(self, category: str) -> npt.NDArray[np.int32]:
        """Return int32 [n, A], the stated value codes of a category's products; -1 where none is usable."""
        positions = label_columns(self.taxonomy, category, self.schema.roles, self.layout)
        rows = self.rows(category)
        out = np.full((len(rows), len(positions)), -1, dtype=np.int32)
        for column, position in enumerate(positions):
            if position >= 0:
                out[:, column] = np.maximum(self.codes[rows, position], -1)
        return out

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """Return float64 [N], NaN where missing or not a number.

        Raises:
            CatalogError: not a number column of this table.
        """
        if name not in self.schema.roles.numbers:
            raise CatalogError(f"{self.source}: {name!r} is not a number column: {self.schema.roles.numbers}")
        return number_cells(self.frame[name], self.schema.missing)[0]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return float64 [N], the stated numbers of a Number that can be learnt from: within its transform's domain.

        NaN where the table has no such column, the product's category has no such Number, or nothing usable is stated.
        """
        if name not in self.schema.roles.numbers:
            return np.full(len(self), np.nan)
        stated = self.number(name)
        number = self.taxonomy.number(name)
        return np.where(np.isnan(number.forward(stated)) | ~self.having(name), np.nan, stated)

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Bool [N], products that state a usable value of a Choice attribute."""
        return (self.codes >= 0).any(axis=1) & (self.category >= 0)

    @property
    def numbered(self) -> npt.NDArray[np.bool_]:
        """Bool [N], products that state a Number that can be learnt from."""
        stated = [np.isfinite(self.numbers(name)) for name in self.taxonomy.number_names]
        return np.logical_or.reduce(stated, axis=0) if stated else np.zeros(len(self), bool)

    def having(self, name: str) -> npt.NDArray[np.bool_]:
        """Return bool [N], true for products whose category has a Number; also where no category is known."""
        has = np.array(
            [any(n.name == name for n in self.taxonomy.numbers(c)) for c in self.taxonomy.categories]
        )
        return np.where(self.category >= 0, has[self.category], True)

    def only(self, kind: Literal["choices", "numbers"]) -> "Catalog":
        """Return the same products under a taxonomy with attributes of one kind only."""
        taxonomy, roles = self.taxonomy.only(Choice if kind == "choices" else Number), self.schema.roles
        if kind == "choices":
            schema = replace(self.schema, taxonomy=taxonomy, roles=replace(roles, numbers=()))
            return replace(self, schema=schema)
        schema = replace(self.schema, taxonomy=taxonomy, roles=replace(roles, choices=()))
        return replace(self, schema=schema, codes=self.codes[:, :0])

    def texts(self, name: str) -> list[str | None]:
        """Return a text column, formula escapes reversed.

        Raises:
            CatalogError: not a column of this table.
        """
        if name not in self.frame.columns:
            hint = suggest(name, self.frame.columns) or f"It has: {listing(self.frame.columns)}."
            raise CatalogError(f"{self.source}: there is no column {name!r}. {hint}")
        return [None if cell is None else unescape(cell) for cell in self.frame[name].to_list()]

    def select(self, positions: npt.ArrayLike) -> "Catalog":
        """Return the products at these positions, in this order, under the same schema."""
        where = np.asarray(positions, dtype=np.int64)
        errors = {
            new: self.image_errors[old] for new, old in enumerate(where.tolist()) if old in self.image_errors
        }
        return replace(
            self,
            frame=self.frame[where.tolist()] if len(where) else self.frame.head(0),
            ids=tuple(self.ids[i] for i in where.tolist()),
            category=self.category[where],
            codes=self.codes[where],
            images=tuple(self.images[i] for i in where.tolist()),
            image_errors=errors,
            findings=Findings(),
            photos={new: self.photos[old] for new, old in enumerate(where.tolist()) if old in self.photos},
        )

    def folds(self, k: int, *, groups: npt.ArrayLike | None = None, seed: int = 0) -> Folds:
        """Return k folds of even size and value shares.

        Args:
            k: at least 2.
            groups: int [N]; rows of one group come into the same fold. ``None`` for a plain random split.
            seed: recorded in the folds.

        Raises:
            UsageError: k below 2 or above the number of groups.
        """
        if k < 2:
            raise UsageError(f"folds need k >= 2, not {k}")
        return self._assign([1 / k] * k, groups, seed)

    def split(
        self, share: float, *, groups: npt.ArrayLike | None = None, seed: int = 0
    ) -> tuple["Catalog", "Catalog"]:
        """Return two catalogues, the second with about ``share`` of the products.

        Raises:
            UsageError: a share that is not between 0 and 1, or too few groups.
        """
        folds = self.holdout(share, groups=groups, seed=seed)
        return self.select(folds.test(0)), self.select(folds.test(1))

    def holdout(self, share: float, *, groups: npt.ArrayLike | None = None, seed: int = 0) -> Folds:
        """Return two folds, fold 1 with about ``share`` of the products.

        Raises:
            UsageError: a share that is not between 0 and 1, or too few groups.
        """
        if not 0 < share < 1:
            raise UsageError(f"a split needs a share between 0 and 1, not {share}")
        return self._assign([1 - share, share], groups, seed)

    def _assign(self, shares: Sequence[float], groups: npt.ArrayLike | None, seed: int) -> Folds:
        grouped = groups is not None
        group_N = np.asarray(groups, dtype=np.int64) if grouped else np.arange(len(self), dtype=np.int64)
        if len(group_N) != len(self):
            raise UsageError(f"{len(group_N)} group numbers for {len(self)} products")
        if len(np.unique(group_N)) < len(shares):
            raise UsageError(f"{len(np.unique(group_N))} groups cannot be split into {len(shares)} parts")
        labels_NL, attribute_L = self._label_matrix()
        keys = [
            f"{id_}\x1f{path.name if path else ''}" for id_, path in zip(self.ids, self.images, strict=True)
        ]
        fold = assign(labels_NL, attribute_L, group_N, shares, keys, seed)
        return Folds(self.ids, fold, grouped, seed)

    def _label_matrix(self) -> tuple[sparse.csr_matrix, npt.NDArray[np.int64]]:
        """0/1 matrix of (row, label), and the attribute of each label; the category counts as an attribute."""
        rows, columns, attribute_L = (
            [np.arange(len(self))],
            [np.maximum(self.category, 0).astype(np.int64)],
            [],
        )
        attribute_L.append(np.zeros(len(self.taxonomy.categories), dtype=np.int64))
        offset, number = len(self.taxonomy.categories), 1
        for category in self.present:
            here, labels_nA = self.rows(category), self.labels(category)
            for column, choice in enumerate(self.taxonomy.choices(category)):
                stated = np.flatnonzero(labels_nA[:, column] >= 0)
                rows.append(here[stated])
                columns.append(offset + labels_nA[stated, column].astype(np.int64))
                attribute_L.append(np.full(len(choice.values), number, dtype=np.int64))
                offset, number = offset + len(choice.values), number + 1
        row, column_all = np.concatenate(rows), np.concatenate(columns)
        matrix = sparse.csr_matrix((np.ones(len(row)), (row, column_all)), shape=(len(self), offset))
        return matrix, np.concatenate(attribute_L)


def _ids(frame: pl.DataFrame, roles: Roles) -> tuple[str, ...]:
    if roles.id is None:
        return tuple(str(row) for row in range(1, frame.height + 1))
    return tuple("" if cell is None else cell for cell in frame[roles.id].to_list())


def _layout(frame: pl.DataFrame, roles: Roles, taxonomy: Taxonomy) -> Layout:
    id_column, category = roles.id or "id", roles.category or ""
    if is_challenge(frame):
        width = max((len(items) for items in taxonomy.entries.values()), default=0)
        columns = roles.choices or tuple(f"attr_{k}" for k in range(1, width + 1))
        return Layout("challenge", id_column, category, columns, FILLER)
    return Layout("named", id_column, category, (*roles.choices, *roles.numbers))
