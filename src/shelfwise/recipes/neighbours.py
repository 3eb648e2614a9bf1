"""Neighbours: k-nearest voting over embeddings or perceptual hashes.

It learns nothing: it keeps the training rows. Legend: n rows of one category, D features, M kept rows,
A attributes, V values packed, k neighbours.

Each attribute is voted on by the k nearest rows that have a label for it, so a row without one takes
no neighbour's place. The probability of a value is its share of the votes, smoothed by the category's
own shares worth one vote.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, Options
from shelfwise.data.facts import facts_of
from shelfwise.errors import ImageError
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.features import check_features, features
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@register.recipe("neighbours")
class Neighbours(Options):
    """Vote of the k nearest training rows.

    Attributes:
        by: ``embedding`` (cosine of standardised features) or ``hash`` (bits of the 64-bit perceptual
            hash in common, colour deciding between equals).
        backbone: of the embedding.
        k: how many labelled rows vote.
    """

    concurrent: ClassVar[bool] = True

    by: Literal["embedding", "hash"] = "embedding"
    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )
    k: int = Field(default=15, ge=1)

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
        """Keep the rows with a readable picture and a category, in the order of their ids."""
        vectors_ND, errors, learnt_on, _ = self._vectors(train, machine, None)
        usable = np.array([i not in errors for i in range(len(train))]) & (train.category >= 0)
        rows = np.array(
            sorted(np.flatnonzero(usable).tolist(), key=lambda i: (train.ids[i], i)), dtype=np.int64
        )
        kept, kept_vectors = train.select(rows), vectors_ND[rows]
        if self.by == "embedding":
            centre = kept_vectors.mean(axis=0) if len(rows) else np.zeros(kept_vectors.shape[1], np.float32)
            scale = np.maximum(kept_vectors.std(axis=0), 1e-6) if len(rows) else np.ones_like(centre)
        else:
            centre, scale = (
                np.zeros(kept_vectors.shape[1], np.float32),
                np.ones(kept_vectors.shape[1], np.float32),
            )
        parts = {category: (kept.rows(category), kept.labels(category)) for category in kept.present}
        arrays = Kept(
            kept_vectors, centre.astype(np.float32), scale.astype(np.float32), kept.category.copy(), parts
        )
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
        kept = Kept(arrays["vectors"], arrays["centre"], arrays["scale"], category, parts)
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
        return hash_vectors(facts.phash, facts.colour), {**facts.errors, **catalog.image_errors}, {}, ()


def hash_vectors(phash_N: npt.NDArray[np.uint64], colour_NC: npt.NDArray[np.uint8]) -> Floats:
    """Turn hashes into vectors whose inner product counts equal bits, colour deciding between equals.

    Args:
        phash_N: 64-bit hashes.
        colour_NC: mean colours, 0 to 255.

    Returns:
        float32 [N, 64 + C]: the bits as +-1, and the colours centred and scaled to less than one bit.
    """
    bits_N64 = (
        np.unpackbits(phash_N.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1).astype(np.float32) * 2 - 1
    )
    colour = colour_NC.astype(np.float32) - 128
    colour /= np.maximum(np.linalg.norm(colour, axis=1, keepdims=True), 1e-6)
    return np.concatenate([bits_N64, 0.99 * colour], axis=1)


@dataclass(frozen=True, eq=False)
class Kept:
    """The training rows.

    Attributes:
        vectors: float32 [M, D], as they came.
        centre, scale: float32 [D], of standardising.
        category: int32 [M].
        parts: category name to its rows [m] and their labels int32 [m, A].
    """

    vectors: Floats
    centre: Floats
    scale: Floats
    category: npt.NDArray[np.int32]
    parts: Mapping[str, tuple[Ints, npt.NDArray[np.int32]]]


class NeighboursPredictor:
    """Answers by the vote of kept rows."""

    def __init__(
        self, recipe: Neighbours, taxonomy: Taxonomy, kept: Kept, learnt_on: Mapping[str, str]
    ) -> None:
        self.recipe, self.taxonomy, self.kept, self.learnt_on = recipe, taxonomy, kept, learnt_on

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the votes for every row."""
        from shelfwise.models.nearest import Index

        vectors_ND, errors, _, notes = self.recipe._vectors(catalog, machine, self.learnt_on)
        scaled_ND = self._scaled(vectors_ND)
        scaled_MD = self._scaled(self.kept.vectors)

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            near, _ = Index(scaled_MD).search(scaled_ND[rows], self.recipe.k)
            return _majority(self.kept.category[near].astype(np.int64))

        def answer(category: str, rows: Ints) -> Floats:
            return self._vote(category, scaled_ND[rows], scaled_MD)

        routes = route(catalog, self.taxonomy, errors, guess)
        return assemble(catalog, self.taxonomy, routes, answer, notes)

    def save(self, directory: Path) -> None:
        """Write the kept rows."""
        arrays = {
            "vectors": self.kept.vectors,
            "centre": self.kept.centre,
            "scale": self.kept.scale,
            "category": self.kept.category,
        }
        for name, (_, labels) in self.kept.parts.items():
            arrays[f"labels.{self.taxonomy.category_codes[name]}"] = labels
        write_arrays(directory, arrays, self.learnt_on)

    def _scaled(self, vectors: Floats) -> Floats:
        if self.recipe.by == "hash":
            return vectors
        scaled = (vectors - self.kept.centre) / self.kept.scale
        result: Floats = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
        return result

    def _vote(self, category: str, queries_nD: Floats, scaled_MD: Floats) -> Floats:
        from shelfwise.models.nearest import Index

        slices = self.taxonomy.slices(category)
        probs_nV = np.zeros((len(queries_nD), self.taxonomy.width(category)), dtype=np.float32)
        rows, labels_mA = self.kept.parts.get(
            category, (np.zeros(0, np.int64), np.zeros((0, len(slices)), np.int32))
        )
        if not slices:
            return probs_nV
        k = self.recipe.k
        near, _ = Index(scaled_MD[rows]).search(queries_nD, 4 * k)
        for attribute, part in enumerate(slices):
            size = part.stop - part.start
            label_m = labels_mA[:, attribute]
            labelled = np.flatnonzero(label_m >= 0)
            prior = np.bincount(label_m[labelled], minlength=size).astype(np.float64)
            prior = prior / prior.sum() if prior.sum() else np.full(size, 1 / max(size, 1))
            votes = _votes(label_m[near], k, size)
            short = np.flatnonzero(votes.sum(axis=1) < min(k, len(labelled)))
            if len(short):
                near_short, _ = Index(scaled_MD[rows[labelled]]).search(queries_nD[short], k)
                votes[short] = _votes(label_m[labelled][near_short], k, size)
            probs_nV[:, part] = (votes + prior) / (votes.sum(axis=1, keepdims=True) + 1)
        return probs_nV


def _votes(labels_nK: npt.NDArray[np.int32], k: int, size: int) -> npt.NDArray[np.float64]:
    """Count, per row, the values of its first k labelled neighbours; [n, size]."""
    stated = labels_nK >= 0
    counted = stated & (np.cumsum(stated, axis=1) <= k)
    row, column = np.nonzero(counted)
    votes = np.zeros((len(labels_nK), size))
    np.add.at(votes, (row, labels_nK[row, column]), 1)
    return votes


def _majority(codes_nK: Ints) -> tuple[Ints, Floats]:
    """The most frequent code of each row, the smallest of equals, and its share."""
    winners = np.zeros(len(codes_nK), dtype=np.int64)
    shares = np.zeros(len(codes_nK), dtype=np.float32)
    for row, codes in enumerate(codes_nK):
        values, counts = np.unique(codes, return_counts=True)
        winners[row], shares[row] = values[counts.argmax()], counts.max() / len(codes)
    return winners, shares
