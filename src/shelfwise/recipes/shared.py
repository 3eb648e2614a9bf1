"""Shared heads: one regression for an attribute that several categories have, learnt from the products of all of them.

They do not know how they were learnt. Legend: n rows of one category, N rows, r components, A attributes of all
categories, U values of all of them packed, V values of one category packed, v of those it shares.

A category of few products has seen few of its colours; other categories have seen them all. So an attribute whose
name and values categories have in common is learnt once more from all of them, with the values of all, and answered
among those of the product's own category: parameters shared between tasks (Caruana 1997, "Multitask Learning"). Beside
the category's own heads, not instead of them: a sleeve of a dress is not quite a sleeve of a shirt.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.segments import Segments
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Commons:
    """The attributes that categories of a taxonomy have in common.

    Attributes:
        taxonomy: whose.
        values: by the attribute's name, the values of the categories that share it, in the order they first appear.
        members: by the attribute's name, those categories.
    """

    taxonomy: Taxonomy
    values: Mapping[str, tuple[str, ...]]
    members: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> "Commons":
        """Find them: a category shares an attribute if one of its values is a value of another category's."""
        lists: dict[str, dict[str, tuple[str, ...]]] = {}
        for category in taxonomy.categories:
            for choice in taxonomy.choices(category):
                lists.setdefault(choice.name, {})[category] = choice.values
        values, members = {}, {}
        for name, by_category in lists.items():
            count = Counter(value for each in by_category.values() for value in each)
            sharing = [c for c, each in by_category.items() if any(count[value] > 1 for value in each)]
            if sharing:
                values[name] = tuple(dict.fromkeys(value for c in sharing for value in by_category[c]))
                members[name] = frozenset(sharing)
        return cls(taxonomy, values, members)

    @cached_property
    def sizes(self) -> list[int]:
        """The number of values of each."""
        return [len(values) for values in self.values.values()]

    def labels(self, train: Catalog) -> Codes:
        """Return int32 [N, A], what each row states of each, -1 for nothing."""
        labels_NA = np.full((len(train), len(self.values)), -1, np.int32)
        for category in train.present:
            rows, own_nA = train.rows(category), train.labels(category)
            for at, choice in enumerate(self.taxonomy.choices(category)):
                if category in self.members.get(choice.name, ()):
                    code = {value: code for code, value in enumerate(self.values[choice.name])}
                    # The last one is what -1 finds: nothing stated.
                    codes = np.array([*(code[value] for value in choice.values), -1], np.int32)
                    labels_NA[rows, list(self.values).index(choice.name)] = codes[own_nA[:, at]]
        return labels_NA

    def columns(self, category: str) -> dict[int, list[int]]:
        """Return where the values of a category's shared attributes lie among all U, by the attribute's position."""
        starts = dict(zip(self.values, np.cumsum([0, *self.sizes]).tolist(), strict=False))
        found = {}
        for at, choice in enumerate(self.taxonomy.choices(category)):
            if category in self.members.get(choice.name, ()):
                code = {value: code for code, value in enumerate(self.values[choice.name])}
                found[at] = [starts[choice.name] + code[value] for value in choice.values]
        return found


@dataclass(frozen=True, eq=False)
class SharedHeads:
    """Regressions over the categories that share an attribute.

    Attributes:
        commons: what is shared.
        weight: float32 [r, U].
        bias: float32 [U].
    """

    commons: Commons
    weight: Floats
    bias: Floats

    def part(self, category: str) -> "Part":
        """Return what says something of a category's shared attributes."""
        if category not in self._ready:
            self._ready[category] = self._cut(category)
        return self._ready[category]

    def _cut(self, category: str) -> "Part":
        columns, slices = self.commons.columns(category), self.commons.taxonomy.slices(category)
        wanted = [column for each in columns.values() for column in each]
        where = [column for at in columns for column in range(slices[at].start, slices[at].stop)]
        widths = Segments.of(map(len, columns.values()))
        return Part(np.array(where, np.int64), widths, self.weight[:, wanted], self.bias[wanted])

    @cached_property
    def _ready(self) -> dict[str, "Part"]:
        return {}


@dataclass(frozen=True, eq=False)
class Part:
    """The regressions of the attributes that one category shares.

    Attributes:
        where: int64 [v], where their values lie among the category's own.
        segments: the values of each.
        weight: float32 [r, v].
        bias: float32 [v].
    """

    where: npt.NDArray[np.int64]
    segments: Segments
    weight: Floats
    bias: Floats

    def opinion(self, logits_nv: npt.NDArray[np.float64], own_nV: Floats) -> Floats:
        """Return float32 [n, V], what they say; of an attribute that nobody shares, what the category's own heads do.

        Args:
            logits_nv: of the shared values; they are changed.
            own_nV: what the category's own heads say.
        """
        found_nV = own_nV.copy()
        if len(self.where):
            found_nV[:, self.where] = self.segments.softmax(logits_nv)
        return found_nV
