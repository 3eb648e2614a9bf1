"""Remapped: a predictor of an older taxonomy that answers under a newer one.

It learns nothing. The older predictor stays as it was learnt, to the bit; what it says is carried over:
renamed values keep their probability, that of merged values is summed, that of a split value is shared
evenly by its parts, and what retired values had goes to the others in proportion. A value that nothing old
became has probability 0, an attribute that nothing old became is uniform; both are named as untrained.
Legend: n rows of one category, A its Choice attributes, V their values packed, O and W the same of the older
taxonomy.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import Amounts
from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY, UNKNOWN
from shelfwise.changes.change import AttributeMap, CategoryMap, Changes
from shelfwise.changes.relayout import rows_by_code
from shelfwise.errors import BundleError, ShelfwiseError, suggest
from shelfwise.files import write_text
from shelfwise.predictions import Block, Machine, Predictions, Predictor, Recipe, uniform
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]

FORMAT = 1
FILE, FOLDER = "mapping.json", "carried"


class Carry:
    """How probabilities and labels of an older taxonomy read under a newer one.

    Attributes:
        old: the older taxonomy.
        new: the newer one.
        maps: every (old, new) category that belong together.
    """

    def __init__(self, old: Taxonomy, new: Taxonomy, maps: tuple[CategoryMap, ...]) -> None:
        self.old, self.new, self.maps = old, new, maps

    @classmethod
    def of(cls, changes: Changes) -> "Carry":
        """Return how the changes carry over."""
        return cls(changes.old, changes.new, changes.maps)

    @cached_property
    def onward(self) -> Mapping[str, str]:
        """Old category to the one new category that its products are of; without those split or retired."""
        times = Counter(item.old for item in self.maps)
        return {item.old: item.new for item in self.maps if times[item.old] == 1}

    @cached_property
    def source(self) -> Mapping[str, CategoryMap]:
        """New category to the one old category whose heads answer it; without added and merged ones."""
        times = Counter(item.new for item in self.maps)
        return {item.new: item for item in self.maps if times[item.new] == 1}

    @cached_property
    def numbers(self) -> Mapping[str, str]:
        """Old name to the new one, of Numbers that are in both."""
        return {old: new for item in self.maps for old, new in item.numbers.items()}

    def maps_of(self, category: str, attribute: str) -> tuple[AttributeMap, ...]:
        """Return the old attributes behind a new (category, attribute); none where it starts anew."""
        source = self.source.get(category)
        return tuple(m for m in source.into(attribute) if m.reached) if source is not None else ()

    def probs(self, category: str, probs_nW: Floats) -> Floats:
        """Return float32 [n, V] of a new category, given [n, W] of its old one.

        Where nothing retired, columns are copied or summed and no number changes otherwise.
        """
        out_nV = uniform(self.new, category, len(probs_nW))
        source = self.source.get(category)
        if source is None:
            return out_nV
        where = dict(
            zip((c.name for c in self.old.choices(source.old)), self.old.slices(source.old), strict=True)
        )
        for choice, part in zip(self.new.choices(category), self.new.slices(category), strict=True):
            maps = self.maps_of(category, choice.name)
            if maps:
                parts = [
                    _carried(probs_nW[:, where[m.old]], self.share(source.old, m, choice.values))
                    for m in maps
                ]
                out_nV[:, part] = parts[0] if len(parts) == 1 else np.mean(parts, axis=0)
        return out_nV

    def share(self, category: str, item: AttributeMap, values: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """Return float64 [w, v]: how much of an old value's probability a new value gets."""
        old = self.old.choice(category, item.old).values
        share_wv = np.zeros((len(old), len(values)))
        for at, value in enumerate(old):
            into = item.targets[value]
            for name in into:
                share_wv[at, values.index(name)] = 1 / len(into)
        return share_wv

    def labels(self, category: str, labels_nO: Codes) -> Codes:
        """Return int32 [n, A] labels of a new category, given [n, O] of its old one; -1 where there is none.

        A label of a split or retired value is none, and so are two that disagree where attributes merged.
        """
        choices, source = self.new.choices(category), self.source.get(category)
        out_nA = np.full((len(labels_nO), len(choices)), -1, dtype=np.int32)
        if source is None:
            return out_nA
        position = {choice.name: at for at, choice in enumerate(self.old.choices(source.old))}
        for at, choice in enumerate(choices):
            for item in self.maps_of(category, choice.name):
                old = self.old.choice(source.old, item.old).values
                into = [item.targets[value] for value in old]
                codes = [choice.values.index(names[0]) if len(names) == 1 else -1 for names in into]
                found_n = np.array([*codes, -1], dtype=np.int32)[labels_nO[:, position[item.old]]]
                clash = (out_nA[:, at] >= 0) & (found_n >= 0) & (out_nA[:, at] != found_n)
                out_nA[:, at] = np.where(clash, -2, np.maximum(out_nA[:, at], found_n))
        return np.maximum(out_nA, -1)


def _carried(probs_nw: Floats, share_wv: npt.NDArray[np.float64]) -> Floats:
    """Probabilities under the new values; unchanged to the bit where columns are only moved."""
    if ((share_wv == 0) | (share_wv == 1)).all() and (share_wv.sum(axis=0) <= 1).all():
        source_v = share_wv.argmax(axis=0)
        moved_nv = np.where(share_wv.any(axis=0), probs_nw[:, source_v], np.float32(0)).astype(np.float64)
    else:
        moved_nv = np.zeros((len(probs_nw), share_wv.shape[1]))
        for row in range(len(share_wv)):  # a fixed order of sums, whatever rows stand beside
            moved_nv += probs_nw[:, row, None].astype(np.float64) * share_wv[row]
    if share_wv.any(axis=1).all():
        return moved_nv.astype(np.float32)
    total_n1 = moved_nv.sum(axis=1, keepdims=True)
    reached_v = share_wv.any(axis=0) / share_wv.any(axis=0).sum()
    rest_nv = np.where(total_n1 > 0, moved_nv / np.where(total_n1 > 0, total_n1, 1), reached_v)
    return rest_nv.astype(np.float32)


class Remapped:
    """An older predictor that answers under a newer taxonomy.

    Attributes:
        taxonomy: the newer one.
        inner: the older predictor, itself carried over where this is not the first change.
        carry: how its answers read now.
    """

    def __init__(self, inner: Predictor, carry: Carry) -> None:
        self.taxonomy, self.inner, self.carry = carry.new, inner, carry

    @property
    def history(self) -> tuple[str, ...]:
        """Hashes of the taxonomies before, the first one first."""
        before = self.inner.history if isinstance(self.inner, Remapped) else ()
        return (*before, self.inner.taxonomy.hash)

    @cached_property
    def untrained(self) -> frozenset[tuple[str, str]]:
        """Every (category, attribute) that no head was ever learnt for."""
        before = self.inner.untrained if isinstance(self.inner, Remapped) else frozenset()
        found = set()
        for category, choice in self.taxonomy.pairs():
            maps = self.carry.maps_of(category, choice.name)
            if choice.values and all((self.carry.source[category].old, m.old) in before for m in maps):
                found.add((category, choice.name))
        return frozenset(found)

    @cached_property
    def untrained_values(self) -> frozenset[tuple[str, str, str]]:
        """Every (category, attribute, value) of a trained attribute that no label was ever learnt for.

        The parts of a split value are among them: what was learnt was the whole.
        """
        before = self.inner.untrained_values if isinstance(self.inner, Remapped) else frozenset()
        found = set()
        for category, choice in self.taxonomy.pairs():
            if (category, choice.name) in self.untrained:
                continue
            known: set[str] = set()
            for m in self.carry.maps_of(category, choice.name):
                old = self.carry.source[category].old
                for value, names in m.targets.items():
                    if len(names) == 1 and (old, m.old, value) not in before:
                        known.add(names[0])
            found |= {(category, choice.name, value) for value in choice.values if value not in known}
        return frozenset(found)

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the older predictor's probabilities for every row, read under the newer taxonomy."""
        found = self._carried(catalog, machine)
        return replace(found, notes=(*found.notes, *self._notes(catalog)))

    def _carried(self, catalog: Catalog, machine: Machine) -> Predictions:
        """The predictions, with the notes of the innermost predictor only."""
        ask = self.inner._carried if isinstance(self.inner, Remapped) else self.inner.predict
        found = ask(self._before(catalog), machine)
        errors = {row: error for row, error in found.errors.items() if catalog.category[row] != UNKNOWN}
        field = catalog.schema.roles.category or "category"
        for row in np.flatnonzero(catalog.category == UNKNOWN).tolist():
            name = str(catalog.frame[field][row])
            hint = suggest(name, self.taxonomy.categories)
            errors[row] = RowError(field, f"there is no category {name!r}. {hint}".rstrip())
        guessed: dict[int, float] = {}
        settled = catalog.category.copy()
        for block in found.blocks:
            onward = self.carry.onward.get(block.category)
            for row in block.rows[catalog.category[block.rows] == EMPTY].tolist():
                if onward is None:
                    gone = f"looks most like {block.category!r}, which the taxonomy does not have any more"
                    errors[row] = RowError(field, f"the category is empty, and the picture {gone}")
                else:
                    settled[row] = self.taxonomy.category_codes[onward]
                    guessed[row] = found.guessed[row]
        settled[list(errors)] = UNKNOWN
        here = {self.taxonomy.categories[code]: rows for code, rows in rows_by_code(settled).items()}
        blocks = [self._block(name, rows, found) for name, rows in sorted(here.items())]
        unsure = self._unsure(found, here)
        return Predictions(
            self.taxonomy,
            catalog.ids,
            tuple(blocks),
            errors,
            guessed,
            found.notes,
            unsure=unsure,
            amounts=self._amounts(found, catalog),
        )

    def _amounts(self, found: Predictions, catalog: Catalog) -> tuple[Amounts, ...]:
        """Numbers under their newer names, of the rows whose category has them."""
        amounts = []
        for item in found.amounts:
            name = self.carry.numbers.get(item.name)
            if name is not None:
                kept = np.flatnonzero(catalog.having(name)[item.rows])
                amounts.append(replace(item.take(kept, item.rows[kept]), name=name))
        return tuple(amounts)

    def save(self, directory: Path) -> None:
        """Write the older predictor as it was into ``carried/``, and the mapping beside it."""
        folder = directory / FOLDER
        folder.mkdir()
        self.inner.save(folder)
        self.carry.old.save(folder / "taxonomy.json")
        write_text(directory / FILE, json.dumps(self._table(), indent=1, ensure_ascii=False) + "\n")

    def _before(self, catalog: Catalog) -> Catalog:
        """The same rows under the older taxonomy.

        Those of a category that it did not have get its first one: what is said of them is not used, but a
        picture that cannot be read still shows.
        """
        old_of = np.zeros(len(self.taxonomy.categories) + 2, dtype=np.int32)
        old_of[[EMPTY, UNKNOWN]] = EMPTY, UNKNOWN  # the last two places
        for name, item in self.carry.source.items():
            old_of[self.taxonomy.category_codes[name]] = self.carry.old.category_codes[item.old]
        schema = replace(catalog.schema, taxonomy=self.carry.old)
        nothing = np.full_like(catalog.codes, EMPTY)
        return replace(catalog, schema=schema, category=old_of[catalog.category], codes=nothing)

    def _block(self, category: str, rows: Rows, found: Predictions) -> Block:
        """Rows of a new category: out of the block of its old one, or uniform."""
        source = self.carry.source.get(category)
        block = found.block(source.old) if source is not None else None
        if block is None:
            return Block(category, rows, uniform(self.taxonomy, category, len(rows)))
        old = block.take(np.searchsorted(block.rows, rows), rows)
        opinions = tuple(self.carry.probs(category, opinion) for opinion in old.opinions)
        return Block(category, rows, self.carry.probs(category, old.probs), opinions)

    def _unsure(self, found: Predictions, here: Mapping[str, Rows]) -> dict[int, tuple[str, ...]]:
        """The attributes made of one that the older predictor gave no answer to, by row."""
        unsure: dict[int, tuple[str, ...]] = {}
        for category, rows in here.items() if found.unsure else ():
            olds = {
                choice.name: {m.old for m in self.carry.maps_of(category, choice.name)}
                for choice in self.taxonomy.choices(category)
            }
            for row in rows.tolist():
                silent = set(found.unsure.get(row, ()))
                names = tuple(name for name, old in olds.items() if old & silent)
                unsure |= {row: names} if names else {}
        return unsure

    def _notes(self, catalog: Catalog) -> tuple[str, ...]:
        """What of the categories present was never learnt."""
        here = set(catalog.present)
        pairs = sorted(f"{category}/{name}" for category, name in self.untrained if category in here)
        values = sorted("/".join(path) for path in self.untrained_values if path[0] in here)
        return untrained_notes(pairs, values)

    def _table(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "old": self.carry.old.hash,
            "new": self.carry.new.hash,
            "categories": [
                {
                    "old": item.old,
                    "new": item.new,
                    "attributes": [
                        {"old": m.old, "new": m.new, "values": {v: list(n) for v, n in m.targets.items()}}
                        for m in item.attributes
                    ],
                    "numbers": dict(item.numbers),
                }
                for item in self.carry.maps
            ],
        }


def untrained_notes(pairs: list[str], values: list[str], most: int = 6) -> tuple[str, ...]:
    """Say which attributes and values were never learnt; nothing where all were."""

    def some(names: list[str]) -> str:
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

    notes = []
    if pairs:
        notes.append(
            f"Never learnt, every value equally likely, until fitted again with labels: {some(pairs)}."
        )
    if values:
        notes.append(f"Values never learnt, until fitted again with labels: {some(values)}.")
    return tuple(notes)


def load_remapped(recipe: Recipe, directory: Path, taxonomy: Taxonomy) -> Remapped:
    """Read what ``Remapped.save`` wrote.

    Args:
        recipe: the one that learnt the innermost predictor.
        directory: that holds the mapping.
        taxonomy: the newer one.

    Raises:
        BundleError: a mapping that is missing, broken, of another format or between other taxonomies.
    """
    folder, path = directory / FOLDER, directory / FILE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if table["format"] != FORMAT:
            raise BundleError(f"{path}: format {table['format']!r} is not known (this reads {FORMAT})")
        old = Taxonomy.load(folder / "taxonomy.json")
        if (table["old"], table["new"]) != (old.hash, taxonomy.hash):
            raise BundleError(f"{path}: is between other taxonomies than the bundle's")
        maps = tuple(_category_map(item, old, taxonomy) for item in table["categories"])
    except BundleError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ShelfwiseError) as error:
        raise BundleError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    inner: Predictor
    if (folder / FILE).is_file():
        inner = load_remapped(recipe, folder, old)
    else:
        inner = recipe.load(folder, old)
    return Remapped(inner, Carry(old, taxonomy, maps))


def _category_map(table: Mapping[str, Any], old: Taxonomy, new: Taxonomy) -> CategoryMap:
    """One category of the mapping, every name checked against its taxonomy."""
    attributes = []
    for item in table["attributes"]:
        before, after = old.choice(table["old"], item["old"]), new.choice(table["new"], item["new"])
        targets = {value: tuple(item["values"][value]) for value in before.values}
        strange = {name for names in targets.values() for name in names} - set(after.values)
        if strange or len(item["values"]) != len(targets):
            raise ValueError(f"{table['new']}/{after.name}: values that the taxonomies do not have")
        attributes.append(AttributeMap(before.name, after.name, targets))
    new.attributes(table["new"])
    return CategoryMap(str(table["old"]), str(table["new"]), tuple(attributes), dict(table["numbers"]))
