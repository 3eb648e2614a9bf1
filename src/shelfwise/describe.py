"""Describe a catalogue: values, imbalance, missing labels, conflicts, size and exposure of pictures.

It does not judge; it counts, per category and attribute. Like a report it is a list of flat lines.

Shapes: n rows of a category, A its Choice attributes, N all rows.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.catalog import Catalog
from shelfwise.errors import UsageError
from shelfwise.plaintext import plain, rich_table, show, text_table, write_result
from shelfwise.taxonomy import Number

if TYPE_CHECKING:
    from rich.table import Table

    from shelfwise.data.facts import FactTable

#: Two attributes are missing together when their phi reaches this.
TOGETHER = 0.3
#: Categories and pairs of attributes that the printed text shows.
MOST_CATEGORIES, MOST_PAIRS = 40, 15
#: What is told of a Number in a category; the quantiles in per cent.
NUMBER_MEASURES = ("stated", "stated_share", "p25", "p50", "p75", "least", "most")
#: What is measured of pictures, and the quantiles told of it, in per cent.
PICTURE_MEASURES = ("width", "height", "blur", "brightness", "dark_share", "bright_share")
QUANTILES = (5, 50, 95)


class Count(NamedTuple):
    """One number of a description.

    Attributes:
        level: ``overall``, ``category``, ``attribute``, ``value``, ``together`` (missing together) or ``number``.
        category: of all levels but overall.
        attribute: of the levels attribute, value and together; the name of a Number.
        value: of the level value; the other attribute of the level together; the unit of a Number, if it has one.
        measure: what is counted or measured.
        number: the number; NaN where there is none.
    """

    level: str
    category: str | None
    attribute: str | None
    value: str | None
    measure: str
    number: float


@dataclass(frozen=True)
class Description:
    """What a catalogue holds.

    Attributes:
        counts: all the numbers. Overall: ``products``, ``pictures`` (located), ``categories``, ``labels`` and
            ``numbers`` (stated ones).
            Category: ``products``, ``pictures``, and with facts ``readable`` and quantiles such as
            ``width_p50``. Attribute: ``labels``, ``missing``, ``missing_share``, ``values`` (present),
            ``imbalance`` (most frequent value over the rarest), and with groups ``groups_compared`` (of two
            labels or more) and ``conflicts`` (those with different labels). Value: ``labels``. Together:
            ``phi``, ``both_missing``. Number: ``stated``, ``stated_share``, the quartiles ``p25``, ``p50`` and
            ``p75``, ``least`` and ``most``.
        source: the table's name.
    """

    counts: tuple[Count, ...]
    source: str = "frame"

    @cached_property
    def _found(self) -> Mapping[tuple[str | None, ...], float]:
        return {
            (*count[:3], None if count.level == "number" else count.value, count.measure): count.number
            for count in self.counts
        }

    def number(
        self,
        measure: str,
        category: str | None = None,
        attribute: str | None = None,
        value: str | None = None,
    ) -> float:
        """Return one number; NaN where there is none.

        Args:
            measure: what is counted.
            category: None for the whole catalogue.
            attribute: None for the whole category.
            value: of the attribute; for ``phi`` and ``both_missing`` the other attribute.
        """
        place = (category, attribute, value)
        level = ("overall", "category", "attribute", "value")[sum(part is not None for part in place)]
        if measure in ("phi", "both_missing"):
            level = "together"
        if measure in NUMBER_MEASURES:
            level = "number"
        return self._found.get((level, *place, measure), float("nan"))

    def frame(self) -> pl.DataFrame:
        """Return one row per number: level, category, attribute, value, measure, number."""
        schema = dict.fromkeys(Count._fields, pl.String) | {"number": pl.Float64}
        frame = pl.DataFrame(list(self.counts), schema=schema, orient="row")
        return frame.with_columns(pl.col("number").fill_nan(None))

    def to_json(self) -> str:
        """Return the description as JSON text: ``columns`` and ``rows``."""
        rows = [[plain(cell) for cell in count] for count in self.counts]
        data = {"source": self.source, "columns": list(Count._fields), "rows": rows}
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    def write(self, path: str | Path) -> None:
        """Write to ``.json``, ``.parquet``, ``.csv`` or ``.txt``; a UsageError for another ending."""
        write_result(path, self.frame(), self.to_json(), str(self))

    def table(self) -> "Table":
        """Return the labels per category and attribute as a rich table."""
        return rich_table(*self._label_rows())

    @cached_property
    def _shown(self) -> list[str]:
        """The categories that are printed, biggest first."""
        found = [count for count in self.counts if count.level == "category" and count.measure == "products"]
        ordered = sorted(found, key=lambda count: -count.number)
        return [str(count.category) for count in ordered][:MOST_CATEGORIES]

    def _label_rows(self) -> tuple[list[str], list[list[str]]]:
        attributes: dict[str | None, list[str]] = {}
        most: dict[tuple[str | None, str | None], Count] = {}
        for count in self.counts:
            if count.level == "attribute" and count.measure == "labels":
                attributes.setdefault(count.category, []).append(str(count.attribute))
            if count.level == "value":
                key = (count.category, count.attribute)
                most[key] = max(most.get(key, count), count, key=lambda found: found.number)
        compared = any(count.measure == "groups_compared" for count in self.counts)
        rows = []
        for category in self._shown:
            products = f"{self.number('products', category):,.0f} products"
            rows.append([category, products, *[""] * (4 + compared)])
            for name in attributes.get(category, []):
                labels = self.number("labels", category, name)
                top = most.get((category, name))
                imbalance = self.number("imbalance", category, name)
                cells = [
                    f"  {name}",
                    f"{labels:,.0f}",
                    f"{self.number('missing_share', category, name):.1%}",
                    f"{self.number('values', category, name):,.0f}",
                    "-" if math.isnan(imbalance) else f"{imbalance:,.1f} : 1",
                    "-" if top is None or not labels else f"{top.value} {top.number / labels:.0%}",
                ]
                if compared:
                    several = self.number("groups_compared", category, name)
                    cells.append(f"{self.number('conflicts', category, name):,.0f} of {several:,.0f}")
                rows.append(cells)
        head = ["category / attribute", "labels", "missing", "values", "most : least", "most frequent"]
        return [*head, *(["groups in conflict"] if compared else [])], rows

    def _picture_rows(self) -> list[list[str]]:
        rows = []
        for category in self._shown:
            readable = self.number("readable", category)
            if math.isnan(readable):
                continue
            pictures = self.number("pictures", category)
            cells = [category, f"{readable:,.0f} of {pictures:,.0f}"]
            for name, digits in (
                ("width", 0),
                ("height", 0),
                ("blur", 0),
                ("brightness", 2),
                ("dark_share", 2),
            ):
                found = [self.number(f"{name}_p{q}", category) for q in QUANTILES]
                cells.append(" ".join(show(number, digits) for number in found))
            cells.append(" ".join(show(self.number(f"bright_share_p{q}", category), 2) for q in QUANTILES))
            rows.append(cells)
        return rows

    def _together_rows(self) -> list[list[str]]:
        found = [count for count in self.counts if count.level == "together" and count.measure == "phi"]
        return [
            [
                f"{count.category}: {count.attribute} and {count.value}",
                f"{self.number('both_missing', *count[1:4]):,.0f}",
                f"{count.number:.2f}",
            ]
            for count in sorted(found, key=lambda count: -count.number)[:MOST_PAIRS]
        ]

    def _number_rows(self) -> list[list[str]]:
        units = {(c.category, c.attribute): c.value for c in self.counts if c.level == "number"}
        rows = []
        for category in self._shown:
            for name in (name for of, name in units if of == category):
                quantiles = [self.number(measure, category, name) for measure in NUMBER_MEASURES[2:]]
                share = self.number("stated_share", category, name)
                cells = [f"{self.number('stated', category, name):,.0f}", f"{share:.1%}"]
                cells += ["-" if math.isnan(each) else _plainly(each) for each in quantiles]
                rows.append([f"{category} / {name}", *cells, units[category, name] or "-"])
        return rows

    def __str__(self) -> str:
        products, pictures, stated = (self.number(each) for each in ("products", "pictures", "numbers"))
        told = f", {stated:,.0f} stated numbers" if stated > 0 else ""
        parts = [
            f"{products:,.0f} products in {self.number('categories'):,.0f} categories, "
            f"{pictures:,.0f} with a picture, {self.number('labels'):,.0f} labels{told}",
        ]
        if not stated or any(count.level == "attribute" for count in self.counts):
            parts.append(text_table(*self._label_rows()))
        hidden = self.number("categories") - len(self._shown)
        if hidden > 0:
            parts.append(f"... and {hidden:,.0f} smaller categories, all in the JSON, CSV and Parquet files")
        if numbers := self._number_rows():
            head = ["numbers", "stated", "share", "25 %", "median", "75 %", "least", "most", "unit"]
            parts.append(text_table(head, numbers))
        if pairs := self._together_rows():
            parts.append(text_table(["often missing together", "products", "phi"], pairs))
        if pictures_ := self._picture_rows():
            head = ["pictures: 5 %, median, 95 %", "readable", "width", "height", "sharpness", "brightness"]
            parts.append(text_table([*head, "dark share", "bright share"], pictures_))
        return "\n\n".join(parts) + "\n"


def _plainly(number: float) -> str:
    """A number with six digits that count, without an exponent where a price has none."""
    return f"{number:,.0f}" if 1e6 <= abs(number) < 1e15 else f"{number:,.6g}"


def describe(
    catalog: Catalog, facts: "FactTable | None" = None, *, groups: npt.ArrayLike | None = None
) -> Description:
    """Describe a catalogue per category and attribute.

    Args:
        catalog: what to describe.
        facts: of its pictures, aligned by row; without them sizes and exposure are left out.
        groups: int [N] near-duplicate group of each row; without them conflicts are left out.

    Raises:
        UsageError: facts or groups of another length than the catalogue.
    """
    group_N = None if groups is None else np.asarray(groups)
    if group_N is not None and group_N.shape != (len(catalog),):
        raise UsageError(f"group numbers of shape {group_N.shape} for {len(catalog)} products")
    if facts is not None and len(facts) != len(catalog):
        raise UsageError(f"facts of {len(facts)} pictures for {len(catalog)} products")
    located_N = np.array([path is not None for path in catalog.images], bool)
    numbers = {name: catalog.numbers(name) for name in catalog.taxonomy.number_names}
    counts: list[Count] = []
    labels = 0
    for category in catalog.present:
        rows, label_nA = catalog.rows(category), catalog.labels(category)
        labels += int((label_nA >= 0).sum())
        counts.append(Count("category", category, None, None, "products", len(rows)))
        counts.append(Count("category", category, None, None, "pictures", int(located_N[rows].sum())))
        if facts is not None:
            counts += _pictures(category, facts, rows)
        names = [choice.name for choice in catalog.taxonomy.choices(category)]
        for a, choice in enumerate(catalog.taxonomy.choices(category)):
            group_n = None if group_N is None else group_N[rows]
            counts += _attribute(category, choice.name, choice.values, label_nA[:, a], group_n)
        counts += _together(category, names, label_nA < 0)
        for number in catalog.taxonomy.numbers(category):
            counts += _number(category, number, numbers[number.name][rows])
    overall = {
        "products": len(catalog),
        "pictures": int(located_N.sum()),
        "categories": len(catalog.present),
        "labels": labels,
        "numbers": sum(int(c.number) for c in counts if c.level == "number" and c.measure == "stated"),
    }
    head = [Count("overall", None, None, None, name, number) for name, number in overall.items()]
    return Description((*head, *counts), catalog.source)


def _pictures(category: str, facts: "FactTable", rows: npt.NDArray[np.int64]) -> Iterator[Count]:
    """Yield how many pictures are readable, and quantiles of their measures."""
    readable = rows[facts.ok[rows]]
    yield Count("category", category, None, None, "readable", len(readable))
    for name in PICTURE_MEASURES:
        values_n: npt.NDArray[Any] = getattr(facts, name)[readable]
        found = np.percentile(values_n, QUANTILES) if len(readable) else [math.nan] * len(QUANTILES)
        for quantile, number in zip(QUANTILES, found, strict=True):
            yield Count("category", category, None, None, f"{name}_p{quantile}", float(number))


def _number(category: str, number: Number, stated_n: npt.NDArray[np.float64]) -> Iterator[Count]:
    """Yield what is told of one Number of a category; it is not a statement where it cannot be learnt from."""
    known = stated_n[np.isfinite(stated_n)]
    share = len(known) / len(stated_n) if len(stated_n) else math.nan
    ends = np.percentile(known, [25, 50, 75, 0, 100]).tolist() if len(known) else [math.nan] * 5
    for measure, found in zip(NUMBER_MEASURES, (len(known), share, *ends), strict=True):
        yield Count("number", category, number.name, number.unit or None, measure, float(found))


def _attribute(
    category: str,
    name: str,
    values: tuple[str, ...],
    label_n: npt.NDArray[np.int32],
    group_n: npt.NDArray[Any] | None,
) -> Iterator[Count]:
    """Yield the numbers of one attribute and of its values."""
    held_V = np.bincount(label_n[label_n >= 0], minlength=len(values))
    present = held_V[held_V > 0]
    missing = int((label_n < 0).sum())
    numbers = {
        "labels": int(held_V.sum()),
        "missing": missing,
        "missing_share": missing / len(label_n) if len(label_n) else math.nan,
        "values": len(present),
        "imbalance": float(present.max() / present.min()) if len(present) else math.nan,
    }
    if group_n is not None:
        stated = label_n >= 0
        pairs = np.unique(np.stack([group_n[stated], label_n[stated]], axis=1), axis=0)
        _, sizes = np.unique(group_n[stated], return_counts=True)
        _, different = np.unique(pairs[:, 0], return_counts=True)
        numbers["groups_compared"] = int((sizes > 1).sum())
        numbers["conflicts"] = int((different > 1).sum())
    for measure, number in numbers.items():
        yield Count("attribute", category, name, None, measure, number)
    for value, number in zip(values, held_V.tolist(), strict=True):
        yield Count("value", category, name, value, "labels", number)


def _together(category: str, names: list[str], missing_nA: npt.NDArray[np.bool_]) -> Iterator[Count]:
    """Yield the pairs of attributes whose labels are missing together.

    Phi is the correlation of the two missing marks (Yule, "On the Methods of Measuring Association Between
    Two Attributes", 1912); attributes that are always or never missing have none.
    """
    mark_nA = missing_nA.astype(np.float64)
    share_A = mark_nA.mean(axis=0)
    both_AA = mark_nA.T @ mark_nA
    spread_A = np.sqrt(share_A * (1 - share_A))
    for a in range(len(names)):
        for b in range(a + 1, len(names)):
            if spread_A[a] * spread_A[b] == 0:
                continue
            covariance = both_AA[a, b] / len(mark_nA) - share_A[a] * share_A[b]
            phi = float(covariance / (spread_A[a] * spread_A[b]))
            if phi >= TOGETHER:
                yield Count("together", category, names[a], names[b], "phi", phi)
                yield Count("together", category, names[a], names[b], "both_missing", float(both_AA[a, b]))
