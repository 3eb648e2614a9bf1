"""Neighbours: k-nearest voting over embeddings or perceptual hashes.

It learns nothing: it keeps the training rows. Legend: n rows of one category, D features, M kept rows,
m of one category, A attributes, V values packed, k neighbours, K rows looked at, H hashes.

Each attribute is voted on by the k nearest rows that have a label for it, so a row without one takes
no neighbour's place. The probability of a value is its share of the votes, smoothed by the category's
own shares worth one vote; the nearest row has one vote, however far it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, Options
from shelfwise.data.facts import FactTable, facts_of
from shelfwise.data.group import near_duplicates
from shelfwise.errors import ImageError, require
from shelfwise.files import cache_directory
from shelfwise.models.plain_nearest import Searchable, exact_index
from shelfwise.predictions import Machine, Predictions, uniform
from shelfwise.recipes.features import check_features, features
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Rows looked at first, as a multiple of k: the nearest ones may have no label.
SPARE = 4


@register.recipe("neighbours")
class Neighbours(Options):
    """Vote of the k nearest training rows.

    Attributes:
        by: ``embedding`` (cosine of features) or ``hash`` (bits of perceptual hashes in common, colour deciding
            between equals).
        backbone: of the embedding.
        k: how many labelled rows vote.
        search: ``exact``, or through FAISS (extra ``knn``): ``faiss-flat``, ``faiss-ivf``, ``faiss-hnsw``.
        weighting: of the votes: ``equal``, or by ``similarity`` over that of the nearest, to the power ``power``.
        power: of the similarity; the larger, the less a far row counts.
        standardise: bring every feature to mean 0 and variance 1 first; otherwise the raw cosine counts.
        hashes: 64 bits each: ``dct``, ``difference``, ``average``, or ``all`` three.
        one_vote: near-duplicates have one vote together, that of the nearest of them.
    """

    concurrent: ClassVar[bool] = True

    by: Literal["embedding", "hash"] = "embedding"
    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )
    k: int = Field(default=15, ge=1)
    search: Literal["exact", "faiss-flat", "faiss-ivf", "faiss-hnsw"] = "exact"
    weighting: Literal["equal", "similarity"] = "equal"
    power: float = Field(default=8.0, gt=0)
    standardise: bool = True
    hashes: Literal["dct", "difference", "average", "all"] = "dct"
    one_vote: bool = False

    @property
    def name(self) -> str:
        """The registered name."""
        return "neighbours"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(
        self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int
    ) -> "NeighboursPredictor":
        """Keep the rows with a readable picture and a category, in the order of their ids.

        Raises:
            MissingExtra: a search through FAISS, and it is not installed.
        """
        if self.search != "exact":
            require("faiss", extra="knn")
        vectors_ND, errors, learnt_on, _ = self._vectors(train, machine, None)
        usable = np.array([i not in errors for i in range(len(train))]) & (train.category >= 0)
        rows = np.array(
            sorted(np.flatnonzero(usable).tolist(), key=lambda i: (train.ids[i], i)), dtype=np.int64
        )
        kept, kept_vectors = train.select(rows), vectors_ND[rows]
        centre = np.zeros(kept_vectors.shape[1], np.float32)
        scale = np.ones_like(centre)
        if self.by == "embedding" and self.standardise and len(rows):
            centre, scale = kept_vectors.mean(axis=0), np.maximum(kept_vectors.std(axis=0), 1e-6)
        parts = {category: (kept.rows(category), kept.labels(category)) for category in kept.present}
        group = np.zeros(0, np.int64)
        if self.one_vote:
            group = near_duplicates(
                kept, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
            )
        centre, scale = centre.astype(np.float32), scale.astype(np.float32)
        arrays = Kept(kept_vectors, centre, scale, kept.category.copy(), parts, group)
        return NeighboursPredictor(self, train.taxonomy, arrays, learnt_on)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "NeighboursPredictor":
        """Read what ``NeighboursPredictor.save`` wrote."""
        arrays, metadata = read_arrays(directory)
        category = arrays["category"]
        parts = {
            name: (np.flatnonzero(category == code), arrays[f"labels.{code}"])
            for name, code in taxonomy.category_codes.items()
            if f"labels.{code}" in arrays
        }
        group = arrays.get("group", np.zeros(0, np.int64))
        kept = Kept(arrays["vectors"], arrays["centre"], arrays["scale"], category, parts, group)
        return NeighboursPredictor(self, taxonomy, kept, metadata)

    def _vectors(
        self, catalog: Catalog, machine: Machine, learnt_on: Mapping[str, str] | None
    ) -> tuple[Floats, Mapping[int, ImageError], Mapping[str, str], tuple[str, ...]]:
        """The vectors whose inner product says how near two rows are, errors, identity and notes."""
        if self.by == "embedding":
            found = features(catalog, self.backbone, machine)
            notes = () if learnt_on is None else check_features(learnt_on, found)
            return found.vectors, found.errors, found.identity(), notes
        facts = facts_of(
            catalog.images, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
        )
        vectors = hash_vectors(hashes_of(facts, self.hashes), facts.colour)
        return vectors, {**facts.errors, **catalog.image_errors}, {}, ()


def hashes_of(facts: FactTable, which: str = "dct") -> npt.NDArray[np.uint64]:
    """Return uint64 [H, N], the perceptual hashes of pictures.

    Args:
        facts: of the pictures.
        which: ``dct`` (signs of low frequencies), ``difference`` (brighter than the cell to the left), ``average``
            (8 x 8 cells brighter than their mean), or ``all``.
    """
    cells_NC = facts.luma.reshape(-1, 8, 6, 8, 6).mean(axis=(2, 4)).reshape(-1, 64)
    brighter_NC = cells_NC > cells_NC.mean(axis=1, keepdims=True)
    average_N = np.packbits(brighter_NC, axis=1).view(">u8").ravel().astype(np.uint64)
    known = {"dct": facts.phash, "difference": facts.dhash, "average": average_N}
    return np.stack(list(known.values()) if which == "all" else [known[which]])


def hash_vectors(hashes_HN: npt.NDArray[np.uint64], colour_NC: npt.NDArray[np.uint8]) -> Floats:
    """Turn hashes into vectors whose inner product counts equal bits, colour deciding between equals.

    Args:
        hashes_HN: 64-bit hashes, one or several for each picture.
        colour_NC: mean colours, 0 to 255.

    Returns:
        float32 [N, 64 H + C]: the bits as +-1, and the colours centred and scaled to less than one bit.
    """
    parts = [
        np.unpackbits(hash_N.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1
        for hash_N in np.atleast_2d(hashes_HN)
    ]
    colour = colour_NC.astype(np.float32) - 128
    colour /= np.maximum(np.linalg.norm(colour, axis=1, keepdims=True), 1e-6)
    return np.concatenate([*parts, 0.99 * colour], axis=1)


@dataclass(frozen=True, eq=False)
class Kept:
    """The training rows.

    Attributes:
        vectors: float32 [M, D], as they came.
        centre, scale: float32 [D], of standardising.
        category: int32 [M].
        parts: category name to its rows [m] and their labels int32 [m, A].
        group: int64 [M], near-duplicate group; empty where every row has a vote.
    """

    vectors: Floats
    centre: Floats
    scale: Floats
    category: npt.NDArray[np.int32]
    parts: Mapping[str, tuple[Ints, npt.NDArray[np.int32]]]
    group: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


class NeighboursPredictor:
    """Answers by the vote of kept rows."""

    def __init__(
        self, recipe: Neighbours, taxonomy: Taxonomy, kept: Kept, learnt_on: Mapping[str, str]
    ) -> None:
        self.recipe, self.taxonomy, self.kept, self.learnt_on = recipe, taxonomy, kept, learnt_on
        self._indexes: dict[str | None, Searchable] = {}

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the votes for every row."""
        vectors_ND, errors, _, notes = self.recipe._vectors(catalog, machine, self.learnt_on)
        scaled_ND = self._scaled(vectors_ND)

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            near, _ = self._index(None).search(scaled_ND[rows], self.recipe.k)
            return _majority(self.kept.category[near].astype(np.int64))

        def answer(category: str, rows: Ints) -> Floats:
            return self._vote(category, scaled_ND[rows])

        routes = route(catalog, self.taxonomy, errors, guess)
        return assemble(catalog, self.taxonomy, routes, answer, notes)

    def save(self, directory: Path) -> None:
        """Write the kept rows."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "vectors": self.kept.vectors,
            "centre": self.kept.centre,
            "scale": self.kept.scale,
            "category": self.kept.category,
        }
        if len(self.kept.group):
            arrays["group"] = self.kept.group
        for name, (_, labels) in self.kept.parts.items():
            arrays[f"labels.{self.taxonomy.category_codes[name]}"] = labels
        write_arrays(directory, arrays, self.learnt_on)

    def _index(self, category: str | None) -> Searchable:
        """The kept rows of a category, or of all, ready to be searched; made when first asked for."""
        from shelfwise.models.approximate import index_of

        found = self._indexes.get(category)
        if found is None:
            rows = slice(None) if category is None else self.kept.parts[category][0]
            found = index_of(self._scaled(self.kept.vectors[rows]), self.recipe.search)
            self._indexes[category] = found
        return found

    def _scaled(self, vectors: Floats) -> Floats:
        if self.recipe.by == "hash":
            return vectors
        scaled = (vectors - self.kept.centre) / self.kept.scale
        result: Floats = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
        return result

    def _vote(self, category: str, queries_nD: Floats) -> Floats:
        slices = self.taxonomy.slices(category)
        probs_nV = uniform(self.taxonomy, category, len(queries_nD))
        if category not in self.kept.parts or not slices:
            return probs_nV
        rows, labels_mA = self.kept.parts[category]
        group_m = self.kept.group[rows] if len(self.kept.group) else None
        index = self._index(category)
        near_nK, score_nK = index.search(queries_nD, SPARE * self.recipe.k)
        for attribute, part in enumerate(slices):
            size = part.stop - part.start
            label_m = labels_mA[:, attribute]
            labelled = np.flatnonzero(label_m >= 0)
            prior = np.bincount(label_m[labelled], minlength=size).astype(np.float64)
            prior = prior / prior.sum() if prior.sum() else np.full(size, 1 / max(size, 1))
            votes_nv, voters_n = self._count(near_nK, score_nK, label_m, group_m, size)
            voters = len(labelled) if group_m is None else len(np.unique(group_m[labelled]))
            short, depth = np.flatnonzero(voters_n < min(self.recipe.k, voters)), self.recipe.k
            # The few queries that need it are searched exactly, among labelled rows only.
            near = exact_index(index.vectors[labelled]) if len(short) else None
            while near is not None and len(short):
                found, score = near.search(queries_nD[short], depth)
                votes_nv[short], voters_n[short] = self._count(labelled[found], score, label_m, group_m, size)
                short = short[voters_n[short] < min(self.recipe.k, voters)]
                depth *= SPARE
            total_n1 = votes_nv.sum(axis=1, keepdims=True)
            probs_nV[:, part] = (votes_nv + prior) / (total_n1 + 1)
        return probs_nV

    def _count(
        self,
        near_nK: Ints,
        score_nK: Doubles,
        label_m: npt.NDArray[np.int32],
        group_m: Ints | None,
        size: int,
    ) -> tuple[Doubles, Ints]:
        """The votes [n, v] of each row's first k neighbours that have one, and how many these are [n]."""
        label_nK = label_m[near_nK]
        voting_nK = label_nK >= 0
        if group_m is not None:
            voting_nK &= _first_of_group(np.where(voting_nK, group_m[near_nK], -1))
        voting_nK &= np.cumsum(voting_nK, axis=1) <= self.recipe.k
        weight_nK = np.ones(near_nK.shape)
        if self.recipe.weighting == "similarity" and near_nK.shape[1]:
            close_nK = np.where(voting_nK, np.maximum(score_nK, 0), 0)
            closest_n1 = close_nK.max(axis=1, keepdims=True)
            ratio_nK = close_nK / np.where(closest_n1 > 0, closest_n1, 1)
            weight_nK = np.where(closest_n1 > 0, ratio_nK**self.recipe.power, 1.0)
        row, column = np.nonzero(voting_nK)
        votes_nv = np.zeros((len(near_nK), size))
        np.add.at(votes_nv, (row, label_nK[row, column]), weight_nK[row, column])
        return votes_nv, voting_nK.sum(axis=1)


def _first_of_group(group_nK: Ints) -> npt.NDArray[np.bool_]:
    """Whether a row of a list is the first of its group in that list; bool [n, K]."""
    order_nK = np.argsort(group_nK, axis=1, kind="stable")
    sorted_nK = np.take_along_axis(group_nK, order_nK, axis=1)
    new_nK = np.ones(group_nK.shape, np.bool_)
    new_nK[:, 1:] = sorted_nK[:, 1:] != sorted_nK[:, :-1]
    first_nK = np.empty_like(new_nK)
    np.put_along_axis(first_nK, order_nK, new_nK, axis=1)
    return first_nK


def _majority(codes_nK: Ints) -> tuple[Ints, Floats]:
    """The most frequent code of each row, the smallest of equals, and its share."""
    winners = np.zeros(len(codes_nK), dtype=np.int64)
    shares = np.zeros(len(codes_nK), dtype=np.float32)
    for row, codes in enumerate(codes_nK):
        values, counts = np.unique(codes, return_counts=True)
        winners[row], shares[row] = values[counts.argmax()], counts.max() / len(codes)
    return winners, shares
