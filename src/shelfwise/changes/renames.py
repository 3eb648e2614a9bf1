"""Renames: what a person declares to have become of categories, attributes and values.

It knows names, not labels or models. A declaration says that an old name stands for one new name (renamed,
or merged with others), for several (split) or for none (retired on purpose). Nothing else is ever taken for
a rename but an alias that a taxonomy states itself.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shelfwise.errors import TaxonomyError, UsageError, listing, suggest
from shelfwise.taxonomy import Taxonomy

#: One declaration: (category,), (category or None, attribute) or (category or None, attribute, value).
Key = tuple[str | None, ...]
LEVELS = ("category", "attribute", "value")


@dataclass(frozen=True)
class Renames:
    """Old names and what they stand for in the new taxonomy.

    Attributes:
        entries: what was declared; a category of ``None`` means every category that has the name. Scopes are
            the old names.
        source: where the declarations are from, for messages.
    """

    entries: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    source: str = "renames"

    def find(self, *key: str) -> tuple[Key, tuple[str, ...]] | None:
        """Return the declaration of a name, its own category's before that of every category."""
        for candidate in ((*key,), (None, *key[1:])) if len(key) > 1 else ((*key,),):
            if candidate in self.entries:
                return candidate, self.entries[candidate]
        return None

    def __or__(self, other: "Renames") -> "Renames":
        source = self.source if not other.entries else other.source if not self.entries else "renames"
        return Renames({**self.entries, **other.entries}, source)

    @classmethod
    def read(cls, path: str | Path) -> "Renames":
        """Read a mapping file, TOML or JSON; see ``from_table`` for what it holds.

        Raises:
            UsageError: it cannot be read, or holds something else.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the mapping {path}: {error}") from error
        if not isinstance(table, dict):
            raise UsageError(f"{path}: a mapping has the tables categories, attributes and values")
        return cls.from_table(table, str(path))

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str = "renames") -> "Renames":
        """Build from nested tables.

        Args:
            table: ``categories`` maps old to new; ``attributes`` too, or per category; ``values`` does per
                attribute, or per category and attribute. A new name is a text, a list where the old name was
                split, an empty list where it is gone.
            source: the file's name for messages.

        Raises:
            UsageError: another table, or something that is neither a name nor a list of names.
        """
        unknown = [key for key in table if key not in ("categories", "attributes", "values")]
        if unknown:
            hint = suggest(unknown[0], ("categories", "attributes", "values"))
            raise UsageError(
                f"{source}: unknown table {unknown[0]!r}. {hint or 'Known: categories, attributes, values.'}"
            )
        entries: dict[Key, tuple[str, ...]] = {}
        for level, key in enumerate(("categories", "attributes", "values")):
            for names, target in _leaves(table.get(key, {}), (), level, f"{source}: {key}"):
                missing = level + 1 - len(names)
                if missing not in (0, 1) or (missing and not level):
                    wanted = ("old = new", "old = new, or per category", "per attribute: old = new")[level]
                    raise UsageError(f"{source}: {key}.{'.'.join(names)}: here stands {wanted}")
                entries[(None,) * missing + names] = target
        return cls(entries, source)

    @classmethod
    def of_options(cls, options: Sequence[str], old: Taxonomy, new: Taxonomy) -> "Renames":
        """Read ``OLD=NEW`` options, OLD being a name or ``category/attribute/value`` with its scope.

        Raises:
            UsageError: no such old or new name, or a name that stands for several things without its scope.
        """
        entries: dict[Key, tuple[str, ...]] = {}
        spelled = _spelled(old) if options else {}
        for text in options:
            cuts = [at for at, letter in enumerate(text) if letter == "="]
            found = [(at, spelled[text[:at]]) for at in cuts if text[:at] in spelled]
            if not cuts or not found:
                hint = suggest(text[: cuts[0]] if cuts else text, spelled)
                raise UsageError(f"--rename is OLD=NEW with a name of the old taxonomy, not {text!r}. {hint}")
            at, keys = found[-1]
            if len(keys) > 1:
                ways = sorted(_path(key) for key in keys)
                raise UsageError(
                    f"--rename {text!r}: {text[:at]!r} stands for several things; say which: {listing(ways)}"
                )
            entries[keys.pop()] = (text[at + 1 :],)
        return cls(entries, "--rename")

    def unknown(self, old: Taxonomy) -> list[str]:
        """Return a sentence for every declaration about a name that the old taxonomy does not have."""
        return [problem for key in self.entries if (problem := _unknown(key, old))]


def _leaves(
    table: Any, names: tuple[str, ...], depth: int, where: str
) -> Iterable[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Yield every path of keys that ends in a name or a list of names."""
    if not isinstance(table, Mapping) or len(names) > depth + 1:
        raise UsageError(f"{where}.{'.'.join(names)}: is not a name or a list of names")
    for key, value in table.items():
        if isinstance(value, str):
            yield (*names, key), (value,)
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            if len(set(value)) != len(value):
                raise UsageError(f"{where}.{'.'.join((*names, key))}: lists a name twice: {listing(value)}")
            yield (*names, key), tuple(value)
        else:
            yield from _leaves(value, (*names, key), depth, where)


def _spelled(old: Taxonomy) -> dict[str, set[Key]]:
    """Every way to write a name with or without its scope, and what it can stand for."""
    spelled: dict[str, set[Key]] = {}

    def add(text: str, key: Key) -> None:
        spelled.setdefault(text, set()).add(key)

    for category, attributes in old.entries.items():
        add(category, (category,))
        for attribute in attributes:
            add(attribute.name, (None, attribute.name))
            add(f"{category}/{attribute.name}", (category, attribute.name))
    for category, choice in old.pairs():
        for value in choice.values:
            add(value, (None, choice.name, value))
            add(f"{choice.name}/{value}", (None, choice.name, value))
            add(f"{category}/{choice.name}/{value}", (category, choice.name, value))
    return spelled


def _path(key: Key) -> str:
    return "/".join(part for part in key if part is not None)


def _unknown(key: Key, old: Taxonomy) -> str:
    """Say what of a declaration's old names is not there; empty where all are."""
    category, level = key[0], LEVELS[len(key) - 1]
    if category is not None and category not in old.entries:
        hint = suggest(category, old.entries) or f"It has: {listing(old.categories)}."
        return f"{_path(key)}: the old taxonomy has no category {category!r}. {hint}"
    if level == "category":
        return ""
    inside = [category] if category is not None else list(old.categories)
    attribute = str(key[1])
    names = {item.name for name in inside for item in old.entries[name]}
    if attribute not in names:
        hint = suggest(attribute, names) or f"It has: {listing(sorted(names))}."
        return f"{_path(key)}: there is no attribute {attribute!r}. {hint}"
    if level == "attribute":
        return ""
    value = str(key[2])
    values = {v for n in inside for c in old.choices(n) if c.name == attribute for v in c.values}
    if value in values:
        return ""
    hint = suggest(value, values) or f"It has: {listing(sorted(values))}."
    return f"{_path(key)}: {attribute!r} has no value {value!r}. {hint}"


def check_renames(renames: Renames, old: Taxonomy, problems: Iterable[str] = ()) -> None:
    """Raise one error with every problem of the declarations.

    Args:
        renames: the declarations.
        old: the taxonomy whose names they start from.
        problems: what was found wrong with their new names.

    Raises:
        TaxonomyError: there is a problem.
    """
    found = [*renames.unknown(old), *problems]
    if found:
        raise TaxonomyError(f"{renames.source}:" + ("\n  " if len(found) > 1 else " ") + "\n  ".join(found))
