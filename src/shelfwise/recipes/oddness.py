"""Oddness: how unlike the kept products a product is, and conformal p-values of it.

It knows directions, categories and near-duplicate groups as arrays; neither pictures nor catalogues.
Legend: n products asked about, M kept ones, b of a block, r components, C categories with kept products, G groups.

A direction is a unit vector rounded to multiples of 1 / ``STEPS``, held as whole numbers that single precision
multiplies without any rounding: a similarity is the same whatever the batch, threads and processor.

Two scores; large is odd:

* familiar: cosine distance to the nearest product of the category, times the energy of the standardised
  features (1 on average). The first says that nothing in the category looks like it, the second that its
  activations are unlike those of this catalogue; a photo from another world has both.
* category: cosine distance to the nearest product of the category over that to the nearest of any other (the
  nearest-neighbour score of Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World").

They become p-values (Bates, Candes, Lei, Romano and Sesia 2023, "Testing for Outliers with Conformal p-values")
by comparison with the scores of kept products, each scored without its own near-duplicate group, whose members
would vouch for each other. What may be exchanged is groups, not products, so every group weighs 1 whatever its
size (Dunn, Wasserman and Ramdas 2022, "Distribution-Free Prediction Sets for Two-Layer Hierarchical Models"):
p = (1 + sum over groups of the share of its products that are at least as odd) / (1 + groups). A product of a new
group, as likely as any other of its group, has p <= r with probability about r at most, within its category where
that has ``ENOUGH`` groups; smaller categories are compared together. "About": a new product is compared
with one group more than a kept one, which makes it look less odd, and scale and components were learnt from
the kept ones, which, with a few hundred of them, makes it look more odd.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int16]

#: By Cauchy and Schwarz no partial sum of a product of two directions exceeds (STEPS + sqrt(r) / 2) ** 2, which
#: is below 2 ** 24 for up to 8,000 components: exact in single precision, in any order.
STEPS = 4000
#: Distances below this are the rounding of directions.
LEAST = 1e-4
#: Groups that a category needs for p-values of its own; below 99 none could be 0.01.
ENOUGH = 100
#: Similarities held at once: few enough to stay in a processor's cache.
CELLS = 1 << 20


@dataclass(frozen=True, eq=False)
class Asked:
    """Products to be judged.

    Attributes:
        codes: int16 [n, r], directions times ``STEPS``.
        energy: float64 [n].
        category: int64 [n], negative for none.
        group: int64 [n], the group of kept products that may not vouch for it, negative for none.
    """

    codes: Codes
    energy: Doubles
    category: Ints
    group: Ints


@dataclass(frozen=True, eq=False)
class Oddness:
    """Scores, NaN where nothing was kept, outside the product's own group, that it could be near to.

    Attributes:
        familiar: float64 [n].
        category: float64 [n], 0 where nothing of another category was kept.
        anywhere: float64 [n], ``familiar`` among the products of all categories.
        likelier: int32 [n], the category of the nearest kept product, -1 for none.
    """

    familiar: Doubles
    category: Doubles
    anywhere: Doubles
    likelier: npt.NDArray[np.int32]


def directions(vectors_nr: Doubles) -> Codes:
    """Return int16 [n, r], the directions of vectors times ``STEPS``; zero for a vector without any."""
    length_n1 = np.linalg.norm(vectors_nr, axis=1, keepdims=True)
    codes: Codes = np.rint(STEPS * vectors_nr / np.maximum(length_n1, 1e-12)).astype(np.int16)
    return codes


@dataclass(frozen=True, eq=False)
class Shelves:
    """Kept products by category and by group.

    Attributes:
        present: int64 [C], categories with kept products.
        start: int64 [C], where each begins in ``rows``.
        rows: float32 [M, r], directions by category.
        member: int64 [M], positions in ``rows`` by group.
        first: int64 [G + 1], where each group begins in ``member``.
    """

    present: Ints
    start: Ints
    rows: npt.NDArray[np.float32]
    member: Ints
    first: Ints

    @classmethod
    def of(cls, codes_Mr: Codes, category_M: npt.NDArray[np.int32], group_M: Ints) -> "Shelves":
        """Sort products; groups are numbered from 0 without gaps."""
        order_M = np.argsort(category_M, kind="stable")
        present, start = np.unique(category_M[order_M], return_index=True)
        member = np.argsort(group_M[order_M], kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(group_M))]).astype(np.int64)
        return cls(present.astype(np.int64), start, codes_Mr[order_M].astype(np.float32), member, first)

    def judge(self, asked: Asked) -> Oddness:
        """Score products; one search of all kept ones, and a maximum for each category of a block."""
        count = len(asked.codes)
        familiar_n, category_n, anywhere_n = np.full((3, count), np.nan)
        likelier_n = np.full(count, -1, np.int32)
        block = max(1, CELLS // max(len(self.rows), 1))
        for start in range(0, count if len(self.rows) else 0, block):
            here = slice(start, start + block)
            near_Cb = self._distances(asked.codes[here], asked.group[here])
            at_b = np.minimum(np.searchsorted(self.present, asked.category[here]), len(self.present) - 1)
            known = np.flatnonzero(self.present[at_b] == asked.category[here])
            nearest_b = near_Cb.min(axis=0)
            likelier_n[here] = np.where(np.isinf(nearest_b), -1, self.present[near_Cb.argmin(axis=0)])
            own_b = np.full(len(at_b), np.inf)
            own_b[known] = near_Cb[at_b[known], known]
            near_Cb[at_b[known], known] = np.inf
            other_b = np.maximum(near_Cb.min(axis=0), LEAST)
            own_b[np.isinf(own_b)] = np.nan
            familiar_n[here], category_n[here] = own_b, own_b / other_b
            anywhere_n[here] = np.where(np.isinf(nearest_b), np.nan, nearest_b)
        energy_n = np.maximum(asked.energy, LEAST)
        return Oddness(familiar_n * energy_n, category_n, anywhere_n * energy_n, likelier_n)

    def _distances(self, codes_br: Codes, group_b: Ints) -> Doubles:
        """Return [C, b], cosine distance to the nearest product of each category, the own group left out."""
        like_Mb = self.rows @ codes_br.astype(np.float32).T
        own_b = np.flatnonzero(group_b >= 0)
        begin, size = self.first[group_b[own_b]], np.diff(self.first)[group_b[own_b]]
        offset = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        like_Mb[self.member[np.repeat(begin, size) + offset], np.repeat(own_b, size)] = -np.inf
        # As quick as one pass; ``np.maximum.reduceat`` takes several times as long.
        ends = [*self.start[1:].tolist(), len(like_Mb)]
        parts = zip(self.start.tolist(), ends, strict=True)
        best_Cb = np.stack([like_Mb[begin:end].max(axis=0) for begin, end in parts])
        distance_Cb: Doubles = np.maximum(1 - best_Cb.astype(np.float64) / STEPS**2, 0)
        return distance_Cb


def bins(category_M: npt.NDArray[np.int32], group_M: Ints, categories: int) -> Ints:
    """Return int64 [categories], which categories' products are compared with each other.

    One with ``ENOUGH`` groups is alone. The smaller ones share a bin; where they have too few groups together, the
    smallest of the others join them.
    """
    pairs = np.unique(np.stack([category_M.astype(np.int64), group_M]), axis=1)
    groups_C = np.bincount(pairs[0], minlength=categories)
    bin_C = np.arange(categories)
    shared = 0
    for category in np.argsort(groups_C, kind="stable").tolist():
        if groups_C[category] and (groups_C[category] < ENOUGH or 0 < shared < ENOUGH):
            bin_C[category] = categories
            shared += int(groups_C[category])
    return bin_C


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of kept products to compare with; those that are NaN are not among them.

    Attributes:
        present: int64 [B], bins with a score, ascending.
        start: int64 [B + 1], where each begins in ``score``.
        score: float64 [K], ascending within its bin.
        before: float64 [K + 1], the weight of all products before each.
    """

    present: Ints
    start: Ints
    score: Doubles
    before: Doubles

    @classmethod
    def of(cls, score_M: Doubles, bin_M: Ints, group_M: Ints) -> "Scored":
        """Sort scores; every group weighs 1 within a bin."""
        known = np.flatnonzero(~np.isnan(score_M))
        score_K, bin_K = score_M[known], bin_M[known]
        pairs = np.stack([bin_K, group_M[known]])
        pair_K = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
        weight_K = 1 / np.bincount(pair_K)[pair_K]
        order = np.lexsort((score_K, bin_K))
        present, start = np.unique(bin_K[order], return_index=True)
        before = np.concatenate([[0.0], np.cumsum(weight_K[order])])
        return cls(present, np.append(start, len(known)), score_K[order], before)

    def p_values(self, score_n: Doubles, bin_n: Ints) -> npt.NDArray[np.float32]:
        """Return float32 [n]; NaN where the score is, or where no product of the bin has a score."""
        p_n = np.full(len(score_n), np.nan, np.float32)
        asked = np.flatnonzero(~np.isnan(score_n) & np.isin(bin_n, self.present))
        at = np.searchsorted(self.present, bin_n[asked])
        for each in np.unique(at).tolist():
            rows, begin, end = asked[at == each], self.start[each], self.start[each + 1]
            low_n = begin + np.searchsorted(self.score[begin:end], score_n[rows])
            odder_n, all_ = self.before[end] - self.before[low_n], self.before[end] - self.before[begin]
            p_n[rows] = (1 + odder_n) / (1 + all_)
        return p_n
