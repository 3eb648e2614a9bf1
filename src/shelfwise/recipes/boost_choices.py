"""Boost choices: a forest for every Choice attribute of every category, on vectors and facts.

They know no Number. Legend: n rows of one category, F features, A attributes, K values of one, V packed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError
from shelfwise.files import write_text
from shelfwise.recipes.trees import Forest, Growth, Library
from shelfwise.recipes.views import TREE_PHOTOS, Seen
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
FILE = "choices.json"
#: Rows that a value's share is worth beside the trees where it was never stated.
PRIOR_ROWS = 1.0


@dataclass(frozen=True, eq=False)
class ChoiceForest:
    """What was learnt of one attribute of one category.

    Attributes:
        codes: of the values that were stated, ascending.
        shares: of all K values.
        forest: of the stated values; ``None`` for fewer than two.
    """

    codes: tuple[int, ...]
    shares: tuple[float, ...]
    forest: Forest | None

    def answer(self, features_nF: Floats) -> Floats:
        """Return float32 [n, K]."""
        shares_K = np.array(self.shares)
        if self.forest is None:
            return np.tile(shares_K, (len(features_nF), 1)).astype(np.float32)
        probs_nK = np.tile(shares_K, (len(features_nF), 1))
        probs_nK[:, list(self.codes)] = self.forest.predict(features_nF) * shares_K[list(self.codes)].sum()
        return np.asarray(probs_nK / probs_nK.sum(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True, eq=False)
class ChoiceForests:
    """All of them: by category, in the order of its attributes."""

    forests: Mapping[str, tuple[ChoiceForest, ...]]

    def answer(self, taxonomy: Taxonomy, category: str, seen: Seen) -> Floats:
        """Return float32 [n, V] for products of a category."""
        probs_nV = np.zeros((len(seen), taxonomy.width(category)), np.float32)
        features_nF = features_of(seen)
        for part, forest in zip(taxonomy.slices(category), self.forests[category], strict=True):
            probs_nV[:, part] = forest.answer(features_nF)
        return probs_nV

    def save(self, directory: Path) -> None:
        """Write trees as text, the rest as JSON."""
        card = {
            name: [{"codes": f.codes, "shares": f.shares, "trees": f.forest is not None} for f in forests]
            for name, forests in self.forests.items()
        }
        write_text(directory / FILE, json.dumps(card, ensure_ascii=False) + "\n")
        for at, forests in enumerate(self.forests.values()):
            for attribute, forest in enumerate(forests):
                if forest.forest is not None:
                    write_text(directory / f"{at}-{attribute}.txt", forest.forest.texts[0])

    @classmethod
    def load(cls, directory: Path, library: Library) -> "ChoiceForests":
        """Read what ``save`` wrote.

        Raises:
            BundleError: it is missing or broken.
        """
        try:
            card = json.loads((directory / FILE).read_text(encoding="utf-8"))
            found: dict[str, tuple[ChoiceForest, ...]] = {}
            for at, (name, items) in enumerate(card.items()):
                each = []
                for attribute, item in enumerate(items):
                    forest = None
                    if item["trees"]:
                        text = (directory / f"{at}-{attribute}.txt").read_text(encoding="utf-8")
                        forest = Forest(library, (text,))
                    each.append(ChoiceForest(tuple(item["codes"]), tuple(item["shares"]), forest))
                found[name] = tuple(each)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{directory / FILE}: cannot be read: {error}") from error
        return cls(found)


def features_of(seen: Seen) -> Floats:
    """Return float32 [n, F], what trees see."""
    return np.concatenate([seen.vectors, seen.photos[:, :TREE_PHOTOS], seen.facts], axis=1)


def learn_choices(growth: Growth, rounds: int, train: Catalog, seen: Seen, seed: int) -> ChoiceForests:
    """Learn every attribute of every category from the rows that state it."""
    taxonomy, found = train.taxonomy, {}
    growth = replace(growth, rounds=rounds)
    features_NF = features_of(seen)
    for category in taxonomy.categories:
        rows, labels_nA = train.rows(category), train.labels(category)
        each = []
        for attribute, choice in enumerate(taxonomy.choices(category)):
            stated = labels_nA[:, attribute] >= 0
            label_n = labels_nA[stated, attribute]
            count_K = np.bincount(label_n, minlength=len(choice.values)) + PRIOR_ROWS / max(
                len(choice.values), 1
            )
            shares = tuple((count_K / count_K.sum()).tolist())
            codes = np.unique(label_n)
            forest = None
            if len(codes) > 1:
                target_n = np.searchsorted(codes, label_n)
                text = growth.grow(features_NF[rows[stated]], target_n, "classes", seed, len(codes))
                forest = Forest(growth.library, (text,))
            each.append(ChoiceForest(tuple(codes.tolist()), shares, forest))
        found[category] = tuple(each)
    return ChoiceForests(found)
