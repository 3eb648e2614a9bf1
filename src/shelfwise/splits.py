"""Splits: folds that keep groups whole and value shares even.

It knows label numbers and group numbers, not tables. The method is iterative stratification
(Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-label Data") over groups
instead of rows, followed by moves and swaps of single groups while a value's share is off by more than
the tolerance. The order of the rows does not matter: groups are ordered by their smallest key.
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
#: Largest accepted difference of a value's share between a part and the rest; the promise is 0.02.
TOLERANCE = 0.018
#: Largest accepted difference of a part's size from the wanted share of all rows.
SIZE_TOLERANCE = 0.01
#: Groups on either side that are tried against each other when shares are evened out.
CANDIDATES = 40
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
    group_N = _numbered(groups_N, keys)
    group_count = int(group_N.max()) + 1 if n else 0
    member = sparse.csr_matrix((np.ones(n), (group_N, np.arange(n))), shape=(group_count, n))
    # The last column counts rows, so that sizes are evened out together with the labels.
    counts_GL = sparse.hstack([member @ labels_NL, member @ np.ones((n, 1))]).tocsr()
    totals_L = np.asarray(counts_GL.sum(axis=0)).ravel()
    part_G = _greedy(counts_GL, totals_L, np.asarray(shares), _order(counts_GL, group_N, keys, seed))
    _even_out(part_G, counts_GL, attribute_L, np.asarray(shares))
    return part_G[group_N]


def _numbered(groups_N: Ints, keys: Sequence[str]) -> Ints:
    """Number groups by their smallest key, so that neither row order nor the given numbers matter."""
    _, group_N = np.unique(groups_N, return_inverse=True)
    order = sorted(range(len(keys)), key=lambda row: keys[row])
    number: dict[int, int] = {}
    for row in order:
        number.setdefault(int(group_N[row]), len(number))
    return np.array([number[group] for group in group_N.tolist()], dtype=np.int64)


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


@dataclass(frozen=True, eq=False)
class _Shares:
    """How far the parts' shares are off, for the labels of attributes with enough of them.

    Attributes:
        rows_GL: sparse, labels of each group, the last column its rows; one more row of zeros is no group.
        attribute_L: the attribute of each label.
        overall_L: each label's share among its attribute's labels.
        shares_P: wanted share of rows of each part.
        total: all rows.
    """

    rows_GL: sparse.csr_matrix
    attribute_L: Ints
    overall_L: npt.NDArray[np.float64]
    shares_P: npt.NDArray[np.float64]
    total: float

    def gaps(self, counts_KL: npt.NDArray[np.float64], columns: Ints) -> npt.NDArray[np.float64]:
        """Return [K, columns], the gaps of K parts; the columns hold whole attributes."""
        attribute = self.attribute_L[columns]
        starts = np.flatnonzero(np.concatenate([[True], attribute[1:] != attribute[:-1]]))
        sums_KA = np.add.reduceat(counts_KL[:, columns], starts, axis=1)
        lengths = np.diff([*starts.tolist(), len(columns)])
        shares_KL = counts_KL[:, columns] / np.maximum(np.repeat(sums_KA, lengths, axis=1), 1)
        result: npt.NDArray[np.float64] = shares_KL - self.overall_L[columns]
        return result

    def cost(
        self, counts_KL: npt.NDArray[np.float64], part_K: Ints, columns: Ints
    ) -> npt.NDArray[np.float64]:
        """Return [K], the squares of what is beyond the tolerance, sizes included."""
        # A part's gap to everything is its gap to the rest times the share of the rest.
        rest_K = 1 - self.shares_P[part_K]
        beyond_KL = np.maximum(np.abs(self.gaps(counts_KL, columns)) / rest_K[:, None] - TOLERANCE, 0)
        size_K = np.abs(counts_KL[:, -1] / self.total - self.shares_P[part_K])
        result: npt.NDArray[np.float64] = (beyond_KL**2).sum(axis=1) + np.maximum(
            size_K - SIZE_TOLERANCE, 0
        ) ** 2
        return result


def _even_out(
    part_G: Ints,
    counts_GL: sparse.csr_matrix,
    attribute_L: Ints,
    shares_P: npt.NDArray[np.float64],
    most_steps: int = 400,
) -> None:
    """Move or swap single groups, in place, while that lowers what gaps are beyond the tolerance."""
    totals_L = np.asarray(counts_GL.sum(axis=0)).ravel()
    if not len(attribute_L) or not len(part_G):
        return
    sums_A = np.bincount(attribute_L, totals_L[:-1])
    kept = np.flatnonzero(sums_A[attribute_L] >= ENOUGH_LABELS)
    if not len(kept):
        return
    kept = kept[np.argsort(attribute_L[kept], kind="stable")]
    chosen_GL = counts_GL.tocsc()[:, [*kept.tolist(), len(attribute_L)]].tocsr()
    rows_GL = sparse.vstack([chosen_GL, sparse.csr_matrix((1, len(kept) + 1))]).tocsr()
    overall_L = totals_L[kept] / sums_A[attribute_L[kept]]
    shares = _Shares(rows_GL, attribute_L[kept], overall_L, shares_P, float(totals_L[-1]))
    parts = range(len(shares_P))
    counts_PL = np.stack([np.asarray(chosen_GL[part_G == part].sum(axis=0)).ravel() for part in parts])
    everything = np.arange(len(kept))
    stuck: set[int] = set()
    for _ in range(most_steps):
        size_PL = np.abs(shares.gaps(counts_PL, everything)) / (1 - shares_P[:, None])
        worst = np.argsort(-size_PL, axis=None, kind="stable")[: int((size_PL > TOLERANCE).sum())]
        for place in worst.tolist():
            if place in stuck:
                continue
            part, label = divmod(place, len(kept))
            step = _best_step(shares, counts_PL, part_G, part, label)
            if step is not None:
                break
            stuck.add(place)
        else:
            return
        moved_L = rows_GL[[group for group, _ in step]].toarray()[:, :-1].any(axis=0)
        changed = set(shares.attribute_L[moved_L].tolist())
        stuck = {place for place in stuck if shares.attribute_L[place % len(kept)] not in changed}
        for group, target in step:
            row_L = rows_GL[group].toarray().ravel()
            counts_PL[part_G[group]] -= row_L
            counts_PL[target] += row_L
            part_G[group] = target


def _best_step(
    shares: _Shares, counts_PL: npt.NDArray[np.float64], part_G: Ints, part: int, label: int
) -> list[tuple[int, int]] | None:
    """The move of one group, or the swap of two, that helps a part's share of a label most; ``None`` for none."""
    rows_GL = shares.rows_GL
    same_L = np.flatnonzero(shares.attribute_L == shares.attribute_L[label])
    concerned_G = np.asarray(rows_GL[:-1, same_L].sum(axis=1)).ravel() > 0
    has_G, here_G = rows_GL[:-1, [label]].toarray().ravel() > 0, part_G == part
    too_many = shares.gaps(counts_PL[[part]], same_L)[0, same_L == label][0] > 0
    inside = np.flatnonzero(concerned_G & here_G & (has_G == too_many))[:CANDIDATES]
    outside = np.flatnonzero(concerned_G & ~here_G & (has_G != too_many))
    outside = outside[np.argsort(_scatter(outside), kind="stable")][:CANDIDATES]
    first, second = (axis.ravel() for axis in np.meshgrid(inside, outside, indexing="ij"))
    target = part_G[second]
    others = np.flatnonzero(np.arange(len(shares.shares_P)) != part)
    away, to = (axis.ravel() for axis in np.meshgrid(inside, others, indexing="ij"))
    # A swap, a group that leaves the part, and a group that comes into it; -1 stands for no group.
    first = np.concatenate([first, away, np.full(len(outside), -1)])
    second = np.concatenate([second, np.full(len(away), -1), outside])
    target = np.concatenate([target, to, part_G[outside]])
    if not len(first):
        return None
    tried = np.concatenate([inside, outside, [rows_GL.shape[0] - 1]])
    tried_TL = rows_GL[tried].toarray()
    place_G = np.full(rows_GL.shape[0], len(tried) - 1)
    place_G[tried] = np.arange(len(tried))
    change_KL = tried_TL[place_G[second]] - tried_TL[place_G[first]]
    used_L = tried_TL[:, :-1].any(axis=0)
    columns = np.flatnonzero(np.isin(shares.attribute_L, shares.attribute_L[used_L]))
    part_K = np.full(len(first), part)
    before = shares.cost(counts_PL, np.arange(len(counts_PL)), columns)
    after = shares.cost(counts_PL[part] + change_KL, part_K, columns)
    after += shares.cost(counts_PL[target] - change_KL, target, columns)
    gain_K = before[part] + before[target] - after
    best = int(np.argmax(gain_K))
    if gain_K[best] <= 1e-12:
        return None
    step = [(int(first[best]), int(target[best])), (int(second[best]), part)]
    return [(group, goal) for group, goal in step if group >= 0]


def _scatter(groups: Ints) -> Ints:
    """A fixed order that takes groups from all over, not the first ones only."""
    return (groups * 2_654_435_761) % 4_294_967_296


def places(groups: Ints, ids: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return [N], a place in [0, 1) of every row's group, drawn by its smallest id: shares are nested and lasting."""
    smallest: dict[int, str] = {}
    for group, id_ in zip(groups.tolist(), ids, strict=True):
        if group not in smallest or id_ < smallest[group]:
            smallest[group] = id_
    place = {
        group: int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=6).digest()) / 2**48
        for group, id_ in smallest.items()
    }
    return np.array([place[group] for group in groups.tolist()])
