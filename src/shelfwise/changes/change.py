"""Changes: what became of a taxonomy: added, renamed, merged, split and retired names, and where each went.

It knows no tables and no models, and not how the changes were found (``diff``).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import polars as pl

from shelfwise.errors import listing
from shelfwise.plaintext import write_result
from shelfwise.taxonomy import Taxonomy

KINDS = ("renamed", "merged", "split", "added", "retired")


class Change(NamedTuple):
    """One thing that changed.

    Attributes:
        kind: ``renamed``, ``merged``, ``split``, ``added`` or ``retired``.
        level: ``category``, ``attribute`` or ``value``.
        category: where, by its new name; by the old one for what is retired.
        attribute: of the levels attribute and value, named likewise.
        old: the old names.
        new: the new names.
        why: ``declared`` or ``alias`` where names were matched.
        suggestion: for what is retired, what it may have become and how to say so.
    """

    kind: str
    level: str
    category: str
    attribute: str
    old: tuple[str, ...]
    new: tuple[str, ...]
    why: str = ""
    suggestion: str = ""


@dataclass(frozen=True)
class AttributeMap:
    """Where the values of an old Choice attribute are in a new one.

    Attributes:
        old: the attribute's old name.
        new: its new name.
        targets: every old value with its new values: one, several where it was split, none where it is gone.
    """

    old: str
    new: str
    targets: Mapping[str, tuple[str, ...]]

    @property
    def split(self) -> frozenset[str]:
        """The new values that are a part of an old one."""
        return frozenset(name for names in self.targets.values() if len(names) > 1 for name in names)

    @property
    def reached(self) -> frozenset[str]:
        """The new values that an old one became, whole or in part."""
        return frozenset(name for names in self.targets.values() for name in names)


@dataclass(frozen=True)
class CategoryMap:
    """Where the attributes of an old category are in a new one.

    Attributes:
        old: the category's old name.
        new: its new name.
        attributes: the Choice attributes that are in both.
        numbers: old to new names of Number attributes that are in both.
    """

    old: str
    new: str
    attributes: tuple[AttributeMap, ...]
    numbers: Mapping[str, str] = field(default_factory=dict)

    def into(self, attribute: str) -> tuple[AttributeMap, ...]:
        """Return the old attributes that became a new one; several where they were merged."""
        return tuple(item for item in self.attributes if item.new == attribute)


@dataclass(frozen=True, eq=False)
class Changes:
    """The difference between two taxonomies.

    Attributes:
        old: the taxonomy before.
        new: the taxonomy after.
        items: what changed, categories in the new order.
        maps: every (old, new) category that belong together, changed or not.
        split_attributes: old (category, attribute) to the attributes it was declared to be now.
    """

    old: Taxonomy
    new: Taxonomy
    items: tuple[Change, ...]
    maps: tuple[CategoryMap, ...]
    split_attributes: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def of(self, kind: str | None = None, level: str | None = None) -> list[Change]:
        """Return the changes of a kind, a level, or both."""
        return [c for c in self.items if kind in (None, c.kind) and level in (None, c.level)]

    @cached_property
    def onward(self) -> Mapping[str, tuple[CategoryMap, ...]]:
        """Old category to where it went; several where it was split."""
        return grouped(self.maps, lambda item: item.old)

    @cached_property
    def origins(self) -> Mapping[str, tuple[CategoryMap, ...]]:
        """New category to where it came from; several where old ones were merged."""
        return grouped(self.maps, lambda item: item.new)

    def added_values(self, category: str, attribute: str) -> tuple[str, ...]:
        """Return the values of a new (category, attribute) that no old value became."""
        return self._added.get((category, attribute), ())

    @cached_property
    def _added(self) -> Mapping[tuple[str, str], tuple[str, ...]]:
        return {(c.category, c.attribute): c.new for c in self.of("added", "value")}

    def counts(self) -> dict[str, int]:
        """Return how many changes there are of each kind."""
        counted = Counter(change.kind for change in self.items)
        return {kind: counted[kind] for kind in KINDS if counted[kind]}

    def frame(self) -> pl.DataFrame:
        """Return one row per change; several names are joined by `` | ``."""
        names = [[" | ".join(c.old) or None, " | ".join(c.new) or None] for c in self.items]
        rows = [
            [*c[:3], c.attribute or None, *both, c.why or None, c.suggestion or None]
            for c, both in zip(self.items, names, strict=True)
        ]
        return pl.DataFrame(rows, schema=dict.fromkeys(Change._fields, pl.String), orient="row")

    def to_json(self) -> str:
        """Return the changes as JSON text."""
        rows = [dict(zip(change._fields, change, strict=True)) for change in self.items]
        data = {"format": 1, "old": self.old.hash, "new": self.new.hash, "changes": rows}
        return json.dumps(data, ensure_ascii=False, indent=1)

    def write(self, path: str | Path) -> None:
        """Write to ``.json``, ``.parquet``, ``.csv`` or ``.txt``; a UsageError for another ending."""
        write_result(path, self.frame(), self.to_json(), str(self))

    def __str__(self) -> str:
        head = f"taxonomy {self.old.hash[:12]} -> {self.new.hash[:12]}: "
        if not self.items:
            same = "the same" if self.old == self.new else "the same names (order, aliases or units differ)"
            return f"{head}{same}\n"
        counted = ", ".join(f"{count} {kind}" for kind, count in self.counts().items())
        alike: dict[Change, list[str]] = defaultdict(list)
        for c in self.items:
            where = () if c.level == "category" else (c.category,)
            general = c._replace(category="", suggestion="") if where else c
            alike[general].extend(where)
        suggestions = {c._replace(category=""): c.suggestion for c in self.items if c.suggestion}
        lines = [_sentence(change, categories) for change, categories in alike.items()]
        hints = list(dict.fromkeys(suggestions.values()))
        return "\n".join([f"{head}{counted}", *lines, *hints]) + "\n"


def _sentence(change: Change, categories: Sequence[str]) -> str:
    """One line of text for the same change in one or more categories."""
    arrow = " -> " if change.old and change.new else ""
    names = listing(change.old) + arrow + listing(change.new)
    where = {
        "category": "category",
        "attribute": f"attribute of {_few(categories)}",
        "value": f"value of {_few(categories)} / {change.attribute}",
    }[change.level]
    return f"  {change.kind:<8} {where}: {names}" + (f"  ({change.why})" if change.why else "")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more categories" if len(names) > 3 else "")


def grouped(
    maps: Iterable[CategoryMap], key: Callable[[CategoryMap], str]
) -> dict[str, tuple[CategoryMap, ...]]:
    """Return the maps by old or new category, in order."""
    groups: dict[str, list[CategoryMap]] = defaultdict(list)
    for item in maps:
        groups[key(item)].append(item)
    return {name: tuple(items) for name, items in groups.items()}
