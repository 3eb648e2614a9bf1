"""Estimates: what ridge regressions, the nearest products and means of like products say of a number.

They know no trees. For products learnt from, every estimate is cross-fitted: it is made without the products of the
same fold, so that no row's own number, nor that of a near-duplicate, comes back to it.
Legend: N products, M kept ones, n of one block, V terms, P features of a photo, E estimates, K neighbours.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shelfwise.recipes.views import Seen, brand_key

Floats = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Kind = Literal["ridge", "neighbours", "means"]
#: What has to be seen of a product: ``both`` is text and photo.
Needs = Literal["", "text", "photo", "both", "category"]
#: Penalties that a ridge regression is tried with, and the folds that it is tried on.
PENALTIES, TRIED = (0.1, 0.3, 1.0, 3.0), 2
#: Weights, beside the text's, of category and photo in a ridge regression; tolerance of its solution.
CATEGORY_WEIGHT, PHOTO_WEIGHT, TOLERANCE = 0.5, 0.7, 1e-3
#: Neighbours that are averaged, and the most products that are kept to be neighbours.
NEAREST, MOST_KEPT = (3, 10, 30), 20_000
#: By what neighbours are near: share of the text in the likeness, and the power of it that is their weight.
LIKENESS = {"text": (1.0, 4.0), "photo": (0.0, 4.0), "both": (0.6, 6.0)}
#: The likeness of a product that is not to be a neighbour.
NONE = -9.0
#: Products compared at once; bounds memory.
BLOCK = 256
#: Rows that the overall mean is worth in the mean of like products.
PRIOR_ROWS = 3.0


@dataclass(frozen=True, eq=False)
class Column:
    """One estimate as a feature.

    Attributes:
        name: of it.
        needs: what has to be seen of a product; else it is NaN.
    """

    name: str
    needs: Needs


@dataclass(frozen=True, eq=False)
class Linear:
    """A ridge regression.

    Attributes:
        with_text, with_photo: what it sees beside the category.
        weights: float32, of what it sees.
        mean: of the numbers learnt from.
    """

    with_text: bool
    with_photo: bool
    weights: Floats
    mean: float

    @property
    def needs(self) -> Needs:
        """What has to be seen."""
        return ("both" if self.with_photo else "text") if self.with_text else "photo"

    def predict(self, seen: Seen, categories: int) -> Float:
        """Return float64 [N]; NaN where what it needs is missing."""
        found = _design(seen, categories, self.with_text, self.with_photo) @ self.weights.astype(np.float64)
        return np.where(_has(seen, self.needs), found + self.mean, np.nan)


def _has(seen: Seen, needs: Needs) -> npt.NDArray[np.bool_]:
    has = np.ones(len(seen), bool)
    if needs in ("text", "both"):
        has &= seen.has_text
    if needs in ("photo", "both"):
        has &= seen.has_photo
    return has & (seen.category >= 0) if needs == "category" else has


def _design(seen: Seen, categories: int, with_text: bool, with_photo: bool) -> Any:
    """Category, terms and photo side by side, float32; sparse with terms."""
    sparse = importlib.import_module("scipy.sparse")
    known = np.flatnonzero(seen.category >= 0)
    weight = np.full(len(known), CATEGORY_WEIGHT, np.float32)
    parts = [sparse.csr_matrix((weight, (known, seen.category[known])), shape=(len(seen), categories))]
    if with_text:
        parts.append(seen.terms)
    if with_photo:
        scale = np.float32(PHOTO_WEIGHT if with_text else 1.0)
        parts.append(sparse.csr_matrix(np.nan_to_num(seen.photos) * scale))
    together = sparse.hstack(parts, format="csr", dtype=np.float32)
    return together if with_text else together.toarray()


def learn_linear(
    seen: Seen, number_N: Float, fold_N: Ints, categories: int, with_text: bool, with_photo: bool
) -> tuple[Linear, Float]:
    """Fit a ridge regression with the penalty that is best out of fold.

    Returns:
        It, and its cross-fitted predictions float64 [N].
    """
    design = _design(seen, categories, with_text, with_photo)
    linear = Linear(with_text, with_photo, np.zeros(0, np.float32), 0.0)
    usable_N = _has(seen, linear.needs)
    folds = np.unique(fold_N)

    def solved(rows: npt.NDArray[np.bool_], penalty: float) -> tuple[Float, float]:
        from sklearn.linear_model import Ridge

        mean = float(number_N[rows].mean())
        solver = "sparse_cg" if with_text else "cholesky"
        ridge = Ridge(alpha=penalty, fit_intercept=False, solver=solver, tol=TOLERANCE)
        return np.asarray(ridge.fit(design[rows], number_N[rows] - mean).coef_, np.float64), mean

    def out_of_fold(fold: int, penalty: float) -> Float:
        rows = usable_N & (fold_N != fold)
        if not rows.any():
            return np.full(int((fold_N == fold).sum()), np.nan)
        weights, mean = solved(rows, penalty)
        return np.asarray(design[fold_N == fold] @ weights + mean)

    found = {(f, p): out_of_fold(f, p) for p in PENALTIES for f in folds[:TRIED].tolist()}

    def error(penalty: float) -> float:
        missed = [np.abs(found[f, penalty] - number_N[fold_N == f]) for f in folds[:TRIED].tolist()]
        return float(np.nanmean(np.concatenate(missed)))

    best = min(PENALTIES, key=error)
    predicted_N = np.full(len(seen), np.nan)
    for fold in folds.tolist():
        part = found.get((fold, best))
        predicted_N[fold_N == fold] = out_of_fold(fold, best) if part is None else part
    predicted_N[~usable_N] = np.nan
    weights, mean = solved(usable_N, best)
    return Linear(with_text, with_photo, weights.astype(np.float32), mean), predicted_N


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Products learnt from, that are looked up.

    Attributes:
        terms: sparse float32 [M, V], rounded to half precision.
        photos: float32 [M, P], rounded so too; 0 without photo.
        number: float64 [M].
        category: int64 [M].
    """

    terms: Any
    photos: Floats
    number: Float
    category: Ints

    @classmethod
    def of(cls, seen: Seen, number_N: Float, rows: Ints) -> "Neighbours":
        """Keep these rows."""
        terms = seen.terms[rows]
        terms.data = terms.data.astype(np.float16).astype(np.float32)
        return cls(terms, np.nan_to_num(seen.photos[rows]), number_N[rows], seen.category[rows])

    def near(
        self, seen: Seen, kinds: Sequence[str], fold_N: Ints | None = None, fold_M: Ints | None = None
    ) -> dict[str, tuple[Ints, Float]]:
        """Return, by kind, the nearest kept products int64 [N, K] and how alike they are, nearest first.

        Args:
            seen: products.
            kinds: of ``LIKENESS``.
            fold_N, fold_M: folds of the products and of the kept ones: those of a product's own fold are none.
        """
        count, turned = min(max(NEAREST), len(self.number)), self.terms.T.tocsr()
        photos_PM = self.photos.T.astype(np.float64)
        found = {
            kind: (np.zeros((len(seen), count), np.int64), np.zeros((len(seen), count))) for kind in kinds
        }
        for start in range(0, len(seen), BLOCK):
            part = slice(start, min(start + BLOCK, len(seen)))
            text_nM = (seen.terms[part] @ turned).toarray() if set(kinds) != {"photo"} else None
            photo_nM = np.zeros((part.stop - start, len(self.number)))
            if set(kinds) != {"text"}:
                photo_nM = np.nan_to_num(seen.photos[part]).astype(np.float64) @ photos_PM
            for kind, (rows_NK, alike_NK) in found.items():
                share = LIKENESS[kind][0]
                alike_nM = photo_nM if text_nM is None else share * text_nM + (1 - share) * photo_nM
                # Rounded, equal likenesses are equal whatever was summed first; then the first product is nearer.
                alike_nM = np.round(alike_nM, 7)
                if fold_N is not None and fold_M is not None:
                    alike_nM[fold_N[part, None] == fold_M[None, :]] = NONE
                rows_NK[part], alike_NK[part] = _largest(alike_nM, count)
        return found

    def estimates(self, near: tuple[Ints, Float], power: float) -> Float:
        """Return float64 [N, 6]: weighted means of the nearest, spread of ten, likeness of the first and the tenth."""
        rows_NK, alike_NK = near
        number_NK = self.number[rows_NK]
        found = []
        for k in NEAREST:
            weight_Nk = np.where(alike_NK[:, :k] > NONE, np.maximum(alike_NK[:, :k], 1e-3) ** power, 0.0)
            total_N = np.maximum(weight_Nk.sum(axis=1), 1e-300)
            found.append((weight_Nk * number_NK[:, :k]).sum(axis=1) / total_N)
        tenth = min(9, rows_NK.shape[1] - 1)
        found += [number_NK[:, :10].std(axis=1), alike_NK[:, 0], alike_NK[:, tenth]]
        return np.stack(found, axis=1)


def _largest(alike_nM: Float, count: int) -> tuple[Ints, Float]:
    """The largest of each row, in order; the first of equals is the larger."""
    last_n1 = -np.partition(-alike_nM, count - 1, axis=1)[:, count - 1 : count]
    rows_nK = np.empty((len(alike_nM), count), np.int64)
    for at, (alike_M, last) in enumerate(zip(alike_nM, last_n1[:, 0], strict=True)):
        some = np.flatnonzero(alike_M >= last)
        rows_nK[at] = some[np.argsort(-alike_M[some], kind="stable")[:count]]
    return rows_nK, np.take_along_axis(alike_nM, rows_nK, axis=1)


def like_keys(seen: Seen) -> list[list[str]]:
    """Return keys of every product by which means are taken; empty for none: brand, first and last word, category."""
    names = [item.name.casefold().split() for item in seen.listings]
    return [
        [brand_key(brand) for brand in seen.brands],
        [words[0] if words else "" for words in names],
        [words[-1] if words else "" for words in names],
        [str(code) if code >= 0 else "" for code in seen.category.tolist()],
    ]


@dataclass(frozen=True, eq=False)
class Means:
    """Means of the products with the same key, drawn to the mean of all.

    Attributes:
        sums: key to the sum of its numbers and their count.
        mean: of all.
    """

    sums: dict[str, tuple[float, int]]
    mean: float

    @classmethod
    def of(cls, keys: Sequence[str], number_N: Float) -> "Means":
        """Take means."""
        sums: dict[str, tuple[float, int]] = {}
        for key, number in zip(keys, number_N.tolist(), strict=True):
            total, count = sums.get(key, (0.0, 0))
            sums[key] = total + number, count + 1
        return cls(sums, float(number_N.mean()) if len(number_N) else 0.0)

    def look_up(self, keys: Sequence[str]) -> Float:
        """Return float64 [N, 2], mean and count; NaN and 0 without a key."""
        found = np.zeros((len(keys), 2))
        for at, key in enumerate(keys):
            total, count = self.sums.get(key, (0.0, 0))
            found[at] = (total + PRIOR_ROWS * self.mean) / (count + PRIOR_ROWS), count
            if not key:
                found[at] = np.nan, 0
        return found


MEANS = ("brand", "first word", "last word", "category")


@dataclass(frozen=True, eq=False)
class Estimates:
    """All estimates of one number.

    Attributes:
        linear: ridge regressions.
        neighbours: kept products; ``None`` for none.
        means: by ``MEANS``; empty for none.
        categories: how many there are.
        columns: what each estimate is called and needs.
    """

    linear: tuple[Linear, ...]
    neighbours: Neighbours | None
    means: tuple[Means, ...]
    categories: int
    columns: tuple[Column, ...]

    def predict(self, seen: Seen) -> Float:
        """Return float64 [N, E]; NaN where what an estimate needs is missing."""
        parts = [item.predict(seen, self.categories)[:, None] for item in self.linear]
        if self.neighbours is not None:
            near = self.neighbours.near(seen, _kinds(self.columns))
            parts += [self.neighbours.estimates(found, LIKENESS[kind][1]) for kind, found in near.items()]
        if self.means:
            pairs = zip(self.means, like_keys(seen), strict=True)
            parts += [means.look_up(keys) for means, keys in pairs]
        return self._masked(seen, parts)

    def _masked(self, seen: Seen, parts: list[Float]) -> Float:
        found_NE = np.concatenate([np.zeros((len(seen), 0)), *parts], axis=1)
        for at, column in enumerate(self.columns):
            found_NE[~_has(seen, column.needs), at] = np.nan
        return found_NE


def _kinds(columns: Sequence[Column]) -> list[str]:
    """The likenesses that these columns are of."""
    names = {column.name for column in columns}
    return [kind for kind in LIKENESS if f"nearest {NEAREST[0]} by {kind}" in names]


def learn_estimates(
    kinds: Sequence[Kind], seen: Seen, number_N: Float, fold_N: Ints, categories: int, seed: int
) -> tuple[Estimates, Float]:
    """Learn estimates from products.

    Returns:
        They, and what they say of the products learnt from, cross-fitted, float64 [N, E].
    """
    texts, photos = bool(seen.terms.shape[1] and seen.has_text.any()), bool(seen.has_photo.any())
    columns: list[Column] = []
    parts: list[Float] = []
    linear: list[Linear] = []
    for with_text, with_photo in ((True, False), (False, True), (True, True)):
        if "ridge" in kinds and (texts or not with_text) and (photos or not with_photo):
            found, said_N = learn_linear(seen, number_N, fold_N, categories, with_text, with_photo)
            linear.append(found)
            parts.append(said_N[:, None])
            columns.append(Column(f"ridge on {found.needs}", found.needs))
    neighbours = None
    if "neighbours" in kinds and (texts or photos):
        rows = np.arange(len(seen))
        if len(rows) > MOST_KEPT:
            rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_KEPT, replace=False))
        neighbours = Neighbours.of(seen, number_N, rows)
        compared: tuple[Needs, ...] = ("text", "photo", "both")
        compared = compared[: 3 if photos else 1] if texts else compared[1:2]
        near = neighbours.near(seen, compared, fold_N, fold_N[rows])
        for kind in compared:
            parts.append(neighbours.estimates(near[kind], LIKENESS[kind][1]))
            names = [f"nearest {k} by {kind}" for k in NEAREST]
            names += [f"{what} by {kind}" for what in ("spread of nearest", "nearest", "tenth nearest")]
            columns += [Column(name, kind) for name in names]
    means: list[Means] = []
    if "means" in kinds:
        for what, keys in zip(MEANS, like_keys(seen), strict=True):
            needs: Needs = "category" if what == "category" else "text"
            columns += [Column(f"mean of {what}", needs), Column(f"count of {what}", needs)]
            parts.append(_crossed_means(keys, number_N, fold_N))
            means.append(Means.of(keys, number_N))
    learnt = Estimates(tuple(linear), neighbours, tuple(means), categories, tuple(columns))
    return learnt, learnt._masked(seen, parts)


def _crossed_means(keys: Sequence[str], number_N: Float, fold_N: Ints) -> Float:
    """Means and counts of every product, from those of other folds."""
    found_N2 = np.zeros((len(keys), 2))
    for fold in np.unique(fold_N).tolist():
        others, own = np.flatnonzero(fold_N != fold).tolist(), np.flatnonzero(fold_N == fold)
        means = Means.of([keys[i] for i in others], number_N[others])
        found_N2[own] = means.look_up([keys[i] for i in own.tolist()])
    return found_N2
