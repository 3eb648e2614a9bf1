"""Taxonomy (Choice, Number): categories, attributes, values; the only place where labels become numbers.

It does not know tables or pictures. The code of a value is its position in the attribute's saved,
ordered list; nothing else in the library turns a label into a number. Storage and look-ups are per
category, so that a taxonomy with thousands of categories costs a product no more than one with five.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shelfwise.errors import TaxonomyError, listing, suggest
from shelfwise.files import write_text

FORMAT = 1
TRANSFORMS = ("log", "log1p", "linear")
#: The logarithm of the largest number that an inverse gives.
LARGEST = 85.0


@dataclass(frozen=True)
class Choice:
    """An attribute whose answer is one of a closed list of values.

    Attributes:
        name: the attribute's name.
        values: the values in code order.
        aliases: other spellings and the value each stands for.
        not_applicable: the value that says the attribute does not apply; empty where none does.
    """

    name: str
    values: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    not_applicable: str = ""

    def __post_init__(self) -> None:
        if len(set(self.values)) != len(self.values):
            raise TaxonomyError(f"attribute {self.name!r} lists a value twice: {listing(self.values)}")
        if self.not_applicable and self.not_applicable not in self.values:
            raise TaxonomyError(
                f"attribute {self.name!r}: {self.not_applicable!r} is to mean not applicable, but is not among "
                f"its values. {suggest(self.not_applicable, self.values)}".rstrip()
            )
        for spelling, value in self.aliases.items():
            if value not in self.values:
                raise TaxonomyError(
                    f"attribute {self.name!r}: the alias {spelling!r} stands for {value!r}, "
                    f"which is not among its values. {suggest(value, self.values)}".rstrip()
                )

    @cached_property
    def codes(self) -> Mapping[str, int]:
        """Every value and alias with its code."""
        codes = {value: code for code, value in enumerate(self.values)}
        for spelling, value in self.aliases.items():
            codes.setdefault(spelling, codes[value])
        return codes

    def __hash__(self) -> int:
        return hash((self.name, self.values))


@dataclass(frozen=True)
class Number:
    """An attribute whose answer is a number, such as a price.

    Learning happens on standardised transformed numbers: ``(transform(value) - center) / scale``.

    Attributes:
        name: the attribute's name.
        unit: the currency or unit of the column, empty where not declared.
        transform: ``log`` where numbers are above zero, ``log1p`` where some are zero, ``linear`` where some are below.
        center, scale: median and scaled median absolute deviation of the transformed numbers learnt from.
    """

    name: str
    unit: str = ""
    transform: Literal["log", "log1p", "linear"] = "log"
    center: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.transform not in TRANSFORMS:
            hint = suggest(self.transform, TRANSFORMS) or f"Known: {listing(TRANSFORMS)}."
            raise TaxonomyError(f"number {self.name!r}: there is no transform {self.transform!r}. {hint}")
        if not (math.isfinite(self.center) and math.isfinite(self.scale) and self.scale > 0):
            raise TaxonomyError(
                f"number {self.name!r}: center {self.center} and scale {self.scale} must be finite, scale above 0"
            )

    def forward(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return float64 standardised numbers; NaN where a value is missing or outside the transform's domain."""
        given = np.asarray(values, dtype=np.float64)
        if self.transform == "linear":
            moved = given
        else:
            shift = 1.0 if self.transform == "log1p" else 0.0
            moved = np.log(np.where(given + shift > 0, given + shift, np.nan))
        return np.asarray((moved - self.center) / self.scale)

    def inverse(self, standard: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return float64 numbers in the attribute's own unit; the inverse of ``forward``."""
        moved = np.asarray(standard, dtype=np.float64) * self.scale + self.center
        if self.transform == "linear":
            return np.asarray(moved)
        grown = np.exp(np.minimum(moved, LARGEST))
        return np.asarray(grown if self.transform == "log" else np.maximum(grown - 1.0, 0.0))


Attribute = Choice | Number


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """The categories, each with its ordered attributes and their values.

    Attributes:
        entries: category name to its attributes; categories in code order.
        aliases: other spellings of attribute names, such as ``{"occasion": "ocassion"}``.
    """

    entries: Mapping[str, tuple[Attribute, ...]]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.entries:
            raise TaxonomyError("a taxonomy needs at least one category")
        for category, attributes in self.entries.items():
            names = [attribute.name for attribute in attributes]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise TaxonomyError(f"category {category!r} lists an attribute twice: {listing(twice)}")

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The category names in code order."""
        return tuple(self.entries)

    @cached_property
    def category_codes(self) -> Mapping[str, int]:
        """Each category's code."""
        return {name: code for code, name in enumerate(self.categories)}

    @cached_property
    def _choices(self) -> Mapping[str, tuple[Choice, ...]]:
        return {
            category: tuple(item for item in attributes if isinstance(item, Choice))
            for category, attributes in self.entries.items()
        }

    @cached_property
    def _slices(self) -> Mapping[str, tuple[slice, ...]]:
        slices: dict[str, tuple[slice, ...]] = {}
        for category, choices in self._choices.items():
            ends = [0]
            for choice in choices:
                ends.append(ends[-1] + len(choice.values))
            slices[category] = tuple(slice(a, b) for a, b in pairwise(ends))
        return slices

    def attributes(self, category: str) -> tuple[Attribute, ...]:
        """Return a category's attributes in order.

        Raises:
            TaxonomyError: an unknown category; the message has the nearest one.
        """
        if category not in self.entries:
            hint = suggest(category, self.entries) or f"Known: {listing(self.categories)}."
            raise TaxonomyError(f"there is no category {category!r}. {hint}")
        return self.entries[category]

    def choices(self, category: str) -> tuple[Choice, ...]:
        """Return a category's Choice attributes in order."""
        self.attributes(category)
        return self._choices[category]

    def numbers(self, category: str) -> tuple[Number, ...]:
        """Return a category's Number attributes in order."""
        return tuple(item for item in self.attributes(category) if isinstance(item, Number))

    @cached_property
    def number_names(self) -> tuple[str, ...]:
        """The names of all Number attributes, in the order in which they first appear."""
        items = (item.name for each in self.entries.values() for item in each if isinstance(item, Number))
        return tuple(dict.fromkeys(items))

    def number(self, name: str) -> Number:
        """Return a Number attribute by name; it is the same in every category that has it.

        Raises:
            TaxonomyError: no category has it; the message has the nearest one.
        """
        for attributes in self.entries.values():
            for item in attributes:
                if isinstance(item, Number) and item.name == name:
                    return item
        hint = suggest(name, self.number_names) or f"It has: {listing(self.number_names)}."
        raise TaxonomyError(f"there is no number {name!r}. {hint}")

    def only(self, kind: type[Choice] | type[Number]) -> "Taxonomy":
        """Return the taxonomy with attributes of one kind only."""
        entries = {
            category: tuple(item for item in items if isinstance(item, kind))
            for category, items in self.entries.items()
        }
        return Taxonomy(entries, self.aliases if kind is Choice else {})

    def slices(self, category: str) -> tuple[slice, ...]:
        """Return, per Choice attribute, its columns in the category's packed array of values."""
        self.attributes(category)
        return self._slices[category]

    def width(self, category: str) -> int:
        """Return the number of values over all Choice attributes of a category."""
        slices = self.slices(category)
        return slices[-1].stop if slices else 0

    def choice(self, category: str, attribute: str) -> Choice:
        """Return one Choice attribute by name or alias.

        Raises:
            TaxonomyError: the category has no such attribute; the message has the nearest one.
        """
        choices = {item.name: item for item in self.choices(category)}
        name = attribute if attribute in choices else self.aliases.get(attribute, attribute)
        if name not in choices:
            hint = suggest(attribute, choices) or f"It has: {listing(choices)}."
            raise TaxonomyError(f"category {category!r} has no attribute {attribute!r} with values. {hint}")
        return choices[name]

    def code(self, category: str, attribute: str, value: str) -> int:
        """Return the code of a value.

        Raises:
            TaxonomyError: an unknown category, attribute or value; the message has the nearest one.
        """
        choice = self.choice(category, attribute)
        code = choice.codes.get(value)
        if code is None:
            hint = suggest(value, choice.values) or f"It has: {listing(choice.values)}."
            raise TaxonomyError(f"'{category}/{choice.name}' has no value {value!r}. {hint}")
        return code

    def pairs(self) -> Iterator[tuple[str, Choice]]:
        """Yield every (category, Choice attribute)."""
        for category in self.categories:
            for choice in self._choices[category]:
                yield category, choice

    def marked(self, not_applicable: Sequence[str]) -> "Taxonomy":
        """Return the taxonomy with values so spelled marked as saying that their attribute does not apply.

        Args:
            not_applicable: spellings; case does not matter. Where an attribute has several, the first one counts.
        """
        words = [word.strip().casefold() for word in not_applicable]

        def mark(item: Attribute) -> Attribute:
            if not isinstance(item, Choice):
                return item
            folded = {value.strip().casefold(): value for value in reversed(item.values)}
            found = next((folded[word] for word in words if word in folded), item.not_applicable)
            return replace(item, not_applicable=found)

        entries = {category: tuple(map(mark, items)) for category, items in self.entries.items()}
        return Taxonomy(entries, self.aliases) if words else self

    def table(self) -> dict[str, Any]:
        """Return the taxonomy as JSON-ready data; the inverse of ``from_table``."""
        return {
            "format": FORMAT,
            "categories": [
                {"name": category, "attributes": [_attribute_table(item) for item in attributes]}
                for category, attributes in self.entries.items()
            ],
            "aliases": dict(sorted(self.aliases.items())),
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str = "taxonomy") -> "Taxonomy":
        """Build a taxonomy from what ``table`` returned.

        Raises:
            TaxonomyError: another format number, or a part that is missing or of the wrong type.
        """
        if table.get("format") != FORMAT:
            raise TaxonomyError(
                f"{source}: format {table.get('format')!r} is not known (this reads {FORMAT})"
            )
        try:
            entries = {
                str(entry["name"]): tuple(_attribute(item) for item in entry["attributes"])
                for entry in table["categories"]
            }
            return cls(entries, dict(table.get("aliases", {})))
        except (KeyError, TypeError, AttributeError) as error:
            raise TaxonomyError(f"{source}: not a taxonomy, {type(error).__name__} at {error}") from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: equal for equal taxonomies only."""
        return _digest(self.table())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        pairs = sum(len(choices) for choices in self._choices.values())
        return f"Taxonomy({len(self.categories)} categories, {pairs} choice attributes, {self.hash[:12]})"

    def save(self, path: str | Path) -> None:
        """Write the taxonomy with its hash as JSON."""
        table = {**self.table(), "sha256": self.hash}
        write_text(path, json.dumps(table, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Taxonomy":
        """Read a taxonomy written by ``save``, or one edited by hand with the hash line removed.

        Raises:
            TaxonomyError: no such file, not JSON, the content does not match its hash, or another version wrote it and
                meant something that this one does not.
        """
        path = Path(path)
        try:
            table = json.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise TaxonomyError(f"cannot read the taxonomy {path}: there is no such file") from error
        except OSError as error:
            raise TaxonomyError(f"cannot read the taxonomy {path}: {error.strerror}") from error
        except ValueError as error:
            raise TaxonomyError(
                f"cannot read the taxonomy {path}: a taxonomy is JSON, such as the taxonomy.json of a bundle, and this "
                f"is not: {error}"
            ) from error
        if not isinstance(table, dict):
            raise TaxonomyError(f"{path}: not a taxonomy")
        taxonomy = cls.from_table(table, str(path))
        stated = table.pop("sha256", None)
        if stated not in (None, taxonomy.hash):
            if stated == _digest(table):
                raise TaxonomyError(
                    f"{path}: was written by another version of shelfwise, whose taxonomies hold other fields than "
                    "those of this one; fit the bundle that it is of again, or answer with the version that wrote it"
                )
            raise TaxonomyError(
                f"{path}: the content does not match its sha256; if you changed it on purpose, delete that line"
            )
        return taxonomy


def _digest(table: Mapping[str, Any]) -> str:
    """Return the SHA-256 of canonical JSON."""
    text = json.dumps(table, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _attribute_table(attribute: Attribute) -> dict[str, Any]:
    if isinstance(attribute, Number):
        return {"kind": "number", **asdict(attribute)}
    table: dict[str, Any] = {"name": attribute.name, "kind": "choice", "values": list(attribute.values)}
    if attribute.aliases:
        table["aliases"] = dict(sorted(attribute.aliases.items()))
    if attribute.not_applicable:
        table["not_applicable"] = attribute.not_applicable
    return table


def _attribute(table: Mapping[str, Any]) -> Attribute:
    if table["kind"] == "number":
        given = {key: table[key] for key in ("transform", "center", "scale") if key in table}
        return Number(str(table["name"]), str(table.get("unit", "")), **given)
    if table["kind"] != "choice":
        raise KeyError(f"kind {table['kind']!r}")
    values, aliases = tuple(map(str, table["values"])), dict(table.get("aliases", {}))
    return Choice(str(table["name"]), values, aliases, str(table.get("not_applicable", "")))


def read_attribute_list(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read a challenge-style list of each category's attribute names, in ``attr_1..attr_N`` order.

    Args:
        path: Parquet with the columns ``Category``, ``No_of_attribute`` (optional) and
            ``Attribute_list``; or JSON: the same as records, ``{category: [names]}``, or
            ``{category: {"attr_1": {"name": ...}, ...}}``.

    Raises:
        TaxonomyError: a file that cannot be read, a missing column, a count that does not match.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            raw = json.loads(path.read_text(encoding="utf-8"))
        else:
            import pyarrow.parquet as pq

            raw = pq.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise TaxonomyError(f"cannot read the attribute list {path}: {error}") from error
    if isinstance(raw, dict):
        records = [{"Category": category, "Attribute_list": _names(inner)} for category, inner in raw.items()]
    else:
        records = list(raw)
    lists: dict[str, tuple[str, ...]] = {}
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping) or not {"Category", "Attribute_list"} <= set(record):
            found = listing(record) if isinstance(record, Mapping) else repr(record)
            raise TaxonomyError(f"{path}, row {number}: needs 'Category' and 'Attribute_list', has {found}")
        category, names = str(record["Category"]), tuple(map(str, record["Attribute_list"] or ()))
        count = record.get("No_of_attribute")
        if count is not None and int(count) != len(names):
            raise TaxonomyError(
                f"{path}, row {number}: {category!r} states {count} attributes and lists {len(names)}"
            )
        if category in lists:
            raise TaxonomyError(f"{path}, row {number}: {category!r} is listed twice")
        lists[category] = names
    if not lists:
        raise TaxonomyError(f"{path}: lists no category")
    return lists


def _names(inner: Any) -> Sequence[str]:
    """Attribute names out of a list, or out of ``{"attr_1": {"name": ...}}`` in the order of the numbers."""
    if isinstance(inner, Mapping):
        ordered = sorted(inner.items(), key=lambda item: int(str(item[0]).rsplit("_", 1)[-1]))
        return [str(entry["name"]) if isinstance(entry, Mapping) else str(entry) for _, entry in ordered]
    return [str(name) for name in inner]
