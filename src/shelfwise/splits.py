"""Splits: folds that keep groups whole and value shares even.

It knows label numbers and group numbers, not tables. The method is iterative stratification
(Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-label Data") over groups
instead of rows, followed by moves of single groups while a value's share is off by more than the
tolerance. The order of the rows does not matter: groups are ordered by their smallest key.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import sparse

from shelfwise.errors import CatalogError, UsageError, listing
from shelfwise.files import write_text

Ints = npt.NDArray[np.int64]
#: Largest accepted difference of a value's share, as a fraction; the promise is 0.02.
TOLERANCE = 0.015
#: Attributes with fewer labels than this are not evened out by moves.
ENOUGH_LABELS = 200


@dataclass(frozen=True, eq=False)
class Folds:
    """Which fold each product is tested in.

    Attributes:
        ids: the products' ids in table order.
        fold: int64 [N], fold number 0..k-1 per product.
        grouped: whether groups were kept whole.
        seed: the seed that drew them.
    """

    ids: tuple[str, ...]
    fold: Ints
    grouped: bool
    seed: int

    @property
    def k(self) -> int:
        """The number of folds."""
        return int(self.fold.max()) + 1 if len(self.fold) else 0

    def train(self, fold: int) -> Ints:
        """Return the positions of the rows outside a fold."""
        return np.flatnonzero(self.fold != fold)

    def test(self, fold: int) -> Ints:
        """Return the positions of the rows inside a fold."""
        return np.flatnonzero(self.fold == fold)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over (id, fold) pairs sorted by id: the same folds have the same fingerprint."""
        lines = sorted(f"{id_}\x1f{fold}" for id_, fold in zip(self.ids, self.fold.tolist(), strict=True))
        return hashlib.sha256("\x1e".join(lines).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the folds as JSON."""
        data = {"grouped": self.grouped, "seed": self.seed, "ids": list(self.ids), "fold": self.fold.tolist()}
        write_text(path, json.dumps(data) + "\n")

    @classmethod
    def load(cls, path: str | Path, ids: Sequence[str]) -> "Folds":
        """Read folds and line them up with the ids of a catalogue.

        Raises:
            CatalogError: the file is not one of folds, or a product has no fold in it.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            known = dict(zip(data["ids"], data["fold"], strict=True))
            grouped, seed = bool(data["grouped"]), int(data["seed"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CatalogError(f"cannot read the folds {path}: {error}") from error
        lost = [id_ for id_ in ids if id_ not in known]
        if lost:
            raise CatalogError(f"{path}: {len(lost)} products have no fold: {listing(lost)}")
        return cls(tuple(ids), np.array([known[id_] for id_ in ids], dtype=np.int64), grouped, seed)


def assign(
    labels_NL: sparse.csr_matrix,
    attribute_L: Ints,
    groups_N: Ints,
    shares: Sequence[float],
    keys: Sequence[str],
    seed: int,
) -> Ints:
    """Assign each row to one of the parts so that groups stay whole and label shares stay even.

    Args:
        labels_NL: 0/1 matrix, row has label.
        attribute_L: the attribute each label belongs to.
        groups_N: group number of each row.
        shares: the wanted share of each part, summing to 1.
        keys: a text per row that identifies it; makes the result independent of row order.
        seed: of the order among groups that are alike.

    Returns:
        int64 [N], the part of each row.
    """
    n = labels_NL.shape[0]
    if len(groups_N) != n or len(keys) != n:
        raise UsageError(f"{n} rows, but {len(groups_N)} group numbers and {len(keys)} keys")
    _, group_N = np.unique(groups_N, return_inverse=True)
    group_count = int(group_N.max()) + 1 if n else 0
    member = sparse.csr_matrix((np.ones(n), (group_N, np.arange(n))), shape=(group_count, n))
    # The last column counts rows, so that sizes are evened out together with the labels.
    counts_GL = sparse.hstack([member @ labels_NL, member @ np.ones((n, 1))]).tocsr()
    totals_L = np.asarray(counts_GL.sum(axis=0)).ravel()
    part_G = _greedy(counts_GL, totals_L, np.asarray(shares), _order(counts_GL, group_N, keys, seed))
    _even_out(part_G, counts_GL, attribute_L, np.asarray(shares))
    return part_G[group_N]


def _order(counts_GL: sparse.csr_matrix, group_N: Ints, keys: Sequence[str], seed: int) -> Ints:
    """Big groups first, then those with rare labels; ties by a hash of the smallest key and the seed."""
    smallest = [""] * counts_GL.shape[0]
    for group, key in zip(group_N.tolist(), keys, strict=True):
        if not smallest[group] or key < smallest[group]:
            smallest[group] = key
    ties = [hashlib.blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).hexdigest() for key in smallest]
    sizes = counts_GL[:, -1].toarray().ravel()
    totals = np.asarray(counts_GL.sum(axis=0)).ravel()
    rarity = (
        np.array(
            [
                totals[counts_GL.indices[a:b]].min()
                for a, b in zip(counts_GL.indptr[:-1], counts_GL.indptr[1:], strict=True)
            ]
        )
        if len(sizes)
        else np.zeros(0)
    )
    return np.array(sorted(range(len(sizes)), key=lambda g: (-sizes[g], rarity[g], ties[g])), dtype=np.int64)


def _greedy(
    counts_GL: sparse.csr_matrix,
    totals_L: npt.NDArray[np.float64],
    shares_P: npt.NDArray[np.float64],
    order: Ints,
) -> Ints:
    wanted_PL = shares_P[:, None] * totals_L[None, :]
    weight_L = 1.0 / np.maximum(totals_L, 1.0)
    part_G = np.zeros(counts_GL.shape[0], dtype=np.int64)
    indptr, indices, data = counts_GL.indptr, counts_GL.indices, counts_GL.data
    for group in order.tolist():
        where = indices[indptr[group] : indptr[group + 1]]
        amount = data[indptr[group] : indptr[group + 1]]
        need_P = (wanted_PL[:, where] * (weight_L[where] * amount)).sum(axis=1) / shares_P
        part = int(np.argmax(np.round(need_P, 9)))
        part_G[group] = part
        wanted_PL[part, where] -= amount
    return part_G


def share_gaps(counts_PL: npt.NDArray[np.float64], attribute_L: Ints) -> npt.NDArray[np.float64]:
    """Return, per part and label, its share among its attribute's labels there less that share overall."""
    attributes = int(attribute_L.max()) + 1 if len(attribute_L) else 0
    sums_PA = np.stack([np.bincount(attribute_L, row, attributes) for row in counts_PL])
    overall = counts_PL.sum(axis=0) / np.maximum(sums_PA.sum(axis=0)[attribute_L], 1)
    gaps: npt.NDArray[np.float64] = counts_PL / np.maximum(sums_PA[:, attribute_L], 1) - overall
    return gaps


def _even_out(
    part_G: Ints,
    counts_GL: sparse.csr_matrix,
    attribute_L: Ints,
    shares_P: npt.NDArray[np.float64],
    most_moves: int = 400,
) -> None:
    """Move single groups, in place, while that lowers the worst gap of an attribute with enough labels."""
    if not len(attribute_L) or not len(part_G):
        return
    label_GL = counts_GL[:, :-1].tocsr()
    parts = len(shares_P)
    counts_PL = np.stack([np.asarray(label_GL[part_G == p].sum(axis=0)).ravel() for p in range(parts)])
    enough_L = np.bincount(attribute_L, counts_PL.sum(axis=0))[attribute_L] >= ENOUGH_LABELS
    by_label = label_GL.tocsc()
    for _ in range(most_moves):
        gaps_PL = share_gaps(counts_PL, attribute_L) * enough_L
        worst = float(np.abs(gaps_PL).max(initial=0.0))
        if worst <= TOLERANCE:
            return
        part, label = np.unravel_index(int(np.abs(gaps_PL).argmax()), gaps_PL.shape)
        groups = by_label.indices[by_label.indptr[label] : by_label.indptr[label + 1]]
        if gaps_PL[part, label] > 0:
            candidates, targets = groups[part_G[groups] == part][:40], [p for p in range(parts) if p != part]
        else:
            candidates, targets = groups[part_G[groups] != part][:40], [int(part)]
        best: tuple[float, int, int] | None = None
        for group in candidates.tolist():
            row = label_GL[group].toarray().ravel()
            for target in targets:
                trial = counts_PL.copy()
                trial[part_G[group]] -= row
                trial[target] += row
                gap = float((np.abs(share_gaps(trial, attribute_L) * enough_L) ** 4).sum())
                if best is None or gap < best[0]:
                    best = (gap, group, target)
        if best is None or best[0] >= float((np.abs(gaps_PL) ** 4).sum()):
            return
        row = label_GL[best[1]].toarray().ravel()
        counts_PL[part_G[best[1]]] -= row
        counts_PL[best[2]] += row
        part_G[best[1]] = best[2]
