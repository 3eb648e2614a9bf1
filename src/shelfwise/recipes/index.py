"""Index: the products learnt from as short vectors: what a product looks like, and whether it is familiar.

It knows pictures, categories and near-duplicate groups; no attribute and no recipe. How odd a product is, and what
its p-values promise, is in ``oddness``.
Legend: N products asked about, n with a readable picture, M kept ones, D features, r components, k look-alikes.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError, UsageError
from shelfwise.models.pair import image_of
from shelfwise.models.plain_nearest import Searchable, exact_index
from shelfwise.predictions import Familiarity, Machine
from shelfwise.recipes.features import Features, check_features, features, seen
from shelfwise.recipes.oddness import (
    STEPS,
    Asked,
    Codes,
    Oddness,
    Scored,
    Shelves,
    bins,
    directions,
)
from shelfwise.recipes.space import Space, learn_space
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FILE = "index.safetensors"
#: What is kept of every product, beside its id.
KEPT = ("category", "codes", "energy", "group", "likelier", "scores")
COMPONENTS = 128
#: Similarity from which two pictures of one id are the same picture, whichever engine computed it.
SAME = 0.999
#: Rows looked at together: few enough to stay in a processor's cache.
ROWS = 256


@dataclass(frozen=True, eq=False)
class LookAlikes:
    """The kept products that look most like each row, best first.

    Attributes:
        positions: int64 [N, k] into ``TrainingIndex.ids``, -1 where there are no more.
        similarity: float32 [N, k], cosine, NaN where there are no more.
    """

    positions: Ints
    similarity: Floats


@dataclass(frozen=True, eq=False)
class _Seen:
    """The readable rows of a catalogue.

    Attributes:
        rows: int64 [n], ascending positions.
        ids: their ids.
        codes: int16 [n, r], directions times ``STEPS``.
        energy: float64 [n], mean square of the standardised features.
    """

    rows: Ints
    ids: tuple[str, ...]
    codes: Codes
    energy: Doubles

    @classmethod
    def of(cls, space: Space, catalog: Catalog, found: Features) -> "_Seen":
        rows = np.flatnonzero(seen(found.vectors))
        shown, back_n = np.unique(found.first[rows], return_inverse=True)
        codes = np.empty((len(shown), space.axes.shape[1]), np.int16)
        energy, every = np.empty(len(shown)), len(shown) == len(found.vectors)
        for start in range(0, len(shown), ROWS):
            here = slice(start, start + ROWS)
            vectors_nD = found.vectors[here] if every else found.vectors[shown[here]]
            reduced_nr, energy[here] = space.with_energy(vectors_nD)
            codes[here] = directions(reduced_nr.astype(np.float64))
        return cls(rows, tuple(catalog.ids[row] for row in rows.tolist()), codes[back_n], energy[back_n])


@dataclass(frozen=True, eq=False)
class TrainingIndex:
    """What was learnt from, as vectors, in the order of the ids.

    Attributes:
        categories: the names that ``category`` has the codes of.
        ids: the products' ids, verbatim.
        category: int32 [M].
        group: int64 [M], near-duplicate group, numbered as they first appear.
        codes: int16 [M, r], directions times ``STEPS``.
        energy: float64 [M], mean square of the standardised features.
        scores: float64 [M, 3], how odd each is without its own group: familiar, category, anywhere.
        likelier: int32 [M], the category of the nearest product of another group, -1 for none.
        space: from a backbone's vector to components.
        backbone: what computed the vectors.
        learnt_on: their identity.
    """

    categories: tuple[str, ...]
    ids: tuple[str, ...]
    category: npt.NDArray[np.int32]
    group: Ints
    codes: Codes
    energy: Doubles
    scores: Doubles
    likelier: npt.NDArray[np.int32]
    space: Space
    backbone: Spec
    learnt_on: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.ids)

    def familiarity(self, catalog: Catalog, machine: Machine) -> Familiarity:
        """Say how familiar products are; one of the kept ones is compared without its own group.

        A row without a readable picture has NaN and -1. One without a category, or of one that nothing was
        kept of, is compared with all products and has no ``p_category``; nor has any where only one
        category was kept.

        Raises:
            PredictionError: the catalogue has other categories, or its vectors are of another backbone.
        """
        if catalog.taxonomy.categories != self.categories:
            raise PredictionError(
                f"{catalog.source} was read with other categories than the products learnt from: "
                "read it with schema=bundle.schema"
            )
        seen = self._seen(catalog, machine)
        own_n = self._own(seen)
        group_n = np.where(own_n >= 0, self.group[own_n], -1) if len(self) else own_n
        category_n = catalog.category[seen.rows].astype(np.int64)
        odd = self._shelves.judge(Asked(seen.codes, seen.energy, category_n, group_n))
        judged = self._p_values(odd, category_n)
        p_familiar_N, p_category_N = np.full((2, len(catalog)), np.nan, np.float32)
        likelier_N = np.full(len(catalog), -1, np.int32)
        p_familiar_N[seen.rows], p_category_N[seen.rows] = judged.p_familiar, judged.p_category
        likelier_N[seen.rows] = judged.likelier
        return Familiarity(p_familiar_N, p_category_N, likelier_N)

    def familiarity_of_training(self) -> Familiarity:
        """Say how familiar the kept products are, in the order of ``ids``, each compared without its own group."""
        familiar_M, category_M, anywhere_M = self.scores.T
        return self._p_values(
            Oddness(familiar_M, category_M, anywhere_M, self.likelier), self.category.astype(np.int64)
        )

    def look_alikes(
        self, catalog: Catalog, k: int, machine: Machine, among: npt.NDArray[np.bool_] | None = None
    ) -> LookAlikes:
        """Find the kept products that look most like each row; a product is not its own look-alike.

        A kept product is the row itself where id and picture are the same; another picture under the same id
        is another product. Ties go to the smaller position.

        Args:
            catalog: the products; categories do not matter.
            k: how many.
            machine: where and how.
            among: bool [M], which kept products may be named; all of them where left out.

        Raises:
            UsageError: ``k`` is not positive, or ``among`` is not of the kept products.
        """
        if k < 1:
            raise UsageError(f"look-alikes: k is {k}; ask for at least 1")
        if among is not None and among.shape != (len(self),):
            raise UsageError(f"look-alikes: among has the shape {among.shape}, not {(len(self),)}")
        positions_Nk = np.full((len(catalog), k), -1, np.int64)
        similarity_Nk = np.full((len(catalog), k), np.nan, np.float32)
        kept = np.arange(len(self)) if among is None else np.flatnonzero(among)
        seen = self._seen(catalog, machine)
        if not len(kept) or not len(seen.rows):
            return LookAlikes(positions_Nk, similarity_Nk)
        index = self._nearest if among is None else exact_index(self.codes[kept].astype(np.float32))
        spare = max(len(same) for same in self._positions.values())
        near_nK, score_nK = index.search(seen.codes.astype(np.float32), k + spare)
        near_nK, like_nK = kept[near_nK], np.minimum(score_nK / STEPS**2, 1)
        itself_nK = like_nK >= SAME
        for row, at in np.argwhere(itself_nK).tolist():
            itself_nK[row, at] = self.ids[near_nK[row, at]] == seen.ids[row]
        order_nk = np.argsort(itself_nK, axis=1, kind="stable")[:, :k]
        dropped_nk = np.take_along_axis(itself_nK, order_nk, 1)
        width = order_nk.shape[1]
        positions_Nk[seen.rows, :width] = np.where(dropped_nk, -1, np.take_along_axis(near_nK, order_nk, 1))
        similarity_Nk[seen.rows, :width] = np.where(
            dropped_nk, np.nan, np.take_along_axis(like_nK, order_nk, 1)
        )
        return LookAlikes(positions_Nk, similarity_Nk)

    def places(self, catalog: Catalog, machine: Machine) -> tuple[Floats, Ints]:
        """Say where pictures lie, and which of them are kept ones.

        Returns:
            float32 [N, r], unit vectors as those of ``directions_kept``, NaN without a readable picture; int64 [N], the
            position of the kept product that a row is, id and picture, -1 where it is none.
        """
        seen = self._seen(catalog, machine)
        direction_Nr = np.full((len(catalog), self.codes.shape[1]), np.nan, np.float32)
        own_N = np.full(len(catalog), -1, np.int64)
        direction_Nr[seen.rows], own_N[seen.rows] = seen.codes / np.float32(STEPS), self._own(seen)
        return direction_Nr, own_N

    @property
    def directions_kept(self) -> Floats:
        """float32 [M, r], where the pictures of the kept products lie."""
        return np.asarray(self.codes / np.float32(STEPS), np.float32)

    def recategorised(self, taxonomy: Taxonomy, became: Mapping[str, str]) -> "TrainingIndex":
        """Return the index under other categories, every product scored anew.

        Args:
            taxonomy: the other one.
            became: old category names to new ones; a name that is not in it stays. Products of a category that
                the taxonomy does not have are dropped.
        """
        names = [became.get(name, name) for name in self.categories]
        code_C = np.array([taxonomy.category_codes.get(name, -1) for name in names], np.int32)
        rows = np.flatnonzero(code_C[self.category] >= 0)
        moved = replace(
            self,
            categories=taxonomy.categories,
            ids=tuple(self.ids[row] for row in rows.tolist()),
            category=code_C[self.category[rows]],
            group=_numbered(self.group[rows]),
            codes=self.codes[rows],
            energy=self.energy[rows],
        )
        return moved._scored()

    def _scored(self) -> "TrainingIndex":
        """Score every product without its own group."""
        odd = self._shelves.judge(Asked(self.codes, self.energy, self.category.astype(np.int64), self.group))
        scores_M3 = np.stack([odd.familiar, odd.category, odd.anywhere], axis=1)
        return replace(self, scores=scores_M3, likelier=odd.likelier)

    def save(self, directory: Path) -> None:
        """Write ``index.safetensors``; the same index is the same bytes."""
        texts = {
            "backbone": self.backbone.table(),
            "categories": self.categories,
            "learnt_on": dict(self.learnt_on),
        }
        arrays: dict[str, npt.NDArray[Any]] = {name: getattr(self, name) for name in KEPT}
        arrays |= {"axes": self.space.axes, "centre": self.space.centre, "scale": self.space.scale}
        arrays["ids"] = np.frombuffer(json.dumps(self.ids).encode("ascii"), np.uint8)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        save_file(whole, directory / FILE, {"texts": json.dumps(texts, sort_keys=True)})

    @classmethod
    def load(cls, directory: Path, taxonomy: Taxonomy) -> "TrainingIndex":
        """Read what ``save`` wrote.

        Raises:
            BundleError: the file is missing or broken, or its categories are not those of the taxonomy.
        """
        path = directory / FILE
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                texts = json.loads((file.metadata() or {})["texts"])
            index = _from_arrays(arrays, texts)
        except (OSError, SafetensorError, UsageError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        if index.categories != taxonomy.categories:
            raise BundleError(f"{path}: its categories are not those of the bundle's taxonomy: fit again")
        return index

    def _seen(self, catalog: Catalog, machine: Machine) -> _Seen:
        found = features(catalog, self.backbone, machine)
        check_features(self.learnt_on, found)
        return _Seen.of(self.space, catalog, found)

    def _own(self, seen: _Seen) -> Ints:
        """The position of each row that is a kept product, -1 for the others."""
        own_n = np.full(len(seen.ids), -1, np.int64)
        for row, id_ in enumerate(seen.ids):
            for at in self._positions.get(id_, ()):
                if seen.codes[row].astype(np.int64) @ self.codes[at].astype(np.int64) >= SAME * STEPS**2:
                    own_n[row] = at
                    break
        return own_n

    @cached_property
    def _positions(self) -> Mapping[str, list[int]]:
        positions: dict[str, list[int]] = {}
        for at, id_ in enumerate(self.ids):
            positions.setdefault(id_, []).append(at)
        return positions

    @cached_property
    def _nearest(self) -> Searchable:
        return exact_index(self.codes.astype(np.float32))

    @cached_property
    def _shelves(self) -> Shelves:
        return Shelves.of(self.codes, self.category, self.group)

    @cached_property
    def _scored_kept(self) -> tuple[Ints, Scored, Scored, Scored]:
        """Which categories are compared together, and the scores of kept products: familiar, category, anywhere."""
        bin_C = bins(self.category, self.group, len(self.categories))
        familiar_M, category_M, anywhere_M = self.scores.T
        bin_M = bin_C[self.category]
        return (
            bin_C,
            Scored.of(familiar_M, bin_M, self.group),
            Scored.of(category_M, bin_M, self.group),
            Scored.of(anywhere_M, np.zeros_like(self.group), self.group),
        )

    def _p_values(self, odd: Oddness, category_n: Ints) -> Familiarity:
        """Compare scores with those of the kept products: of the category, or of all where there is none."""
        bin_C, familiar, category, anywhere = self._scored_kept
        kept_C = np.bincount(self.category, minlength=len(self.categories)) > 0
        known_n = (category_n >= 0) & kept_C[category_n]
        bin_n = np.where(known_n, bin_C[category_n], -1)
        p_familiar_n = familiar.p_values(odd.familiar, bin_n)
        p_category_n = category.p_values(odd.category, bin_n)
        p_anywhere_n = anywhere.p_values(odd.anywhere, np.zeros_like(category_n))
        # Doubted only where a product of another category is nearer: then that one is the likelier.
        p_category_n[(odd.category <= 1) & ~np.isnan(p_category_n)] = 1
        if kept_C.sum() < 2:
            p_category_n[:] = np.nan
        return Familiarity(np.where(known_n, p_familiar_n, p_anywhere_n), p_category_n, odd.likelier)


def learn_index(catalog: Catalog, backbone: Spec, groups: Ints, machine: Machine) -> TrainingIndex:
    """Keep the products with a readable picture and a category, in the order of their ids.

    Nothing is drawn at random; the order of the rows and the numbers of the groups make no difference. Without
    any such product the index is empty and says nothing.

    Args:
        catalog: the products learnt from.
        backbone: what computes their vectors; of a pair the tower that looks at pictures.
        groups: int64 [N], near-duplicate group of each product.
        machine: where and how.

    Raises:
        UsageError: another number of groups than products.
    """
    from shelfwise.models.towers import one_thread

    if len(groups) != len(catalog):
        raise UsageError(f"{len(catalog)} products, but {len(groups)} group numbers")
    backbone = image_of(backbone)
    found = features(catalog, backbone, machine)
    usable_N = (catalog.category >= 0) & np.isfinite(found.vectors).all(axis=1)
    rows = sorted(np.flatnonzero(usable_N).tolist(), key=lambda i: (catalog.ids[i], i))
    part, vectors_MD = catalog.select(rows), found.vectors[rows]
    found = replace(found, vectors=vectors_MD, first=np.arange(len(rows)))
    with one_thread():
        space = learn_space(vectors_MD, COMPONENTS) if rows else _no_space(vectors_MD.shape[1])
    kept = _Seen.of(space, part, found)
    unscored = TrainingIndex(
        categories=catalog.taxonomy.categories,
        ids=part.ids,
        category=part.category,
        group=_numbered(np.asarray(groups)[rows]),
        codes=kept.codes,
        energy=kept.energy,
        scores=np.zeros((len(rows), 3)),
        likelier=np.zeros(len(rows), np.int32),
        space=space,
        backbone=backbone,
        learnt_on=found.identity(),
    )
    return unscored._scored()


def _numbered(group_M: Ints) -> Ints:
    """Number groups as they first appear."""
    _, first_G, at_M = np.unique(group_M, return_index=True, return_inverse=True)
    number_G = np.empty(len(first_G), np.int64)
    number_G[np.argsort(first_G)] = np.arange(len(first_G))
    return number_G[at_M.ravel()]


def _no_space(dimension: int) -> Space:
    zeros_D = np.zeros(dimension, np.float32)
    return Space(zeros_D, zeros_D + 1, zeros_D[:, None])


def _from_arrays(arrays: Mapping[str, npt.NDArray[Any]], texts: Mapping[str, Any]) -> TrainingIndex:
    """Make an index of what a file holds.

    Raises:
        ValueError: arrays of the wrong kind or of sizes that do not fit each other.
    """
    ids = tuple(json.loads(arrays["ids"].tobytes()))
    categories = tuple(texts["categories"])
    backbone = dict(texts["backbone"])
    dimension, components = arrays["axes"].shape
    wanted: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
        "axes": (np.float32, (dimension, components)),
        "category": (np.int32, (len(ids),)),
        "centre": (np.float32, (dimension,)),
        "codes": (np.int16, (len(ids), components)),
        "energy": (np.float64, (len(ids),)),
        "group": (np.int64, (len(ids),)),
        "likelier": (np.int32, (len(ids),)),
        "scale": (np.float32, (dimension,)),
        "scores": (np.float64, (len(ids), 3)),
    }
    for name, (dtype, shape) in wanted.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    for name, count in (("category", len(categories)), ("group", len(ids))):
        if len(ids) and not 0 <= arrays[name].min() <= arrays[name].max() < count:
            raise ValueError(f"{name} has numbers that are not from 0 to {count - 1}")
    if len(np.unique(arrays["group"])) != (arrays["group"].max() + 1 if len(ids) else 0):
        raise ValueError("group has gaps")
    return TrainingIndex(
        categories=categories,
        ids=ids,
        **{name: arrays[name] for name in KEPT},
        space=Space(arrays["centre"], arrays["scale"], arrays["axes"]),
        backbone=REGISTRIES["backbone"].spec(backbone.pop("name"), **backbone),
        learnt_on=dict(texts["learnt_on"]),
    )
