"""Plain nearest: the exact k nearest rows by inner product, without torch.

It does not know what the vectors stand for. Same answers as ``nearest``, which is several times faster on many queries
and is used where torch is installed: candidates are all rows that a product in single precision cannot tell from the
k best, ranked by exact scores; ties go to the smaller row number, however many there are.

Legend: Q queries, M rows, D dimensions, k neighbours, C candidates.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shelfwise.models.engines import installed

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Found = tuple[npt.NDArray[np.int64], Doubles]
#: Queries taken at once; bounds memory at QUERIES x M scores.
QUERIES = 64
#: Rows that are widened to double precision at once.
ROWS = 4096
#: What single precision may be off by, as a share of |x| |q|: 1,600 products of 6e-8 each.
ROUNDING = 1e-4


class Searchable(Protocol):
    """Rows that can be searched."""

    @property
    def vectors(self) -> Floats:
        """The rows, float32 [M, D]."""
        ...

    def search(self, queries: Floats, k: int) -> Found:
        """Return int64 [Q, k] rows and float64 [Q, k] inner products, largest first."""
        ...


def exact_index(vectors: Floats) -> Searchable:
    """Return rows that can be searched exactly, by torch where it is installed."""
    if not installed("torch"):
        return PlainIndex(vectors)
    from shelfwise.models.nearest import Index

    return Index(vectors)


@dataclass(frozen=True, eq=False)
class PlainIndex:
    """Rows to be searched.

    Attributes:
        vectors: float32 [M, D].
    """

    vectors: Floats

    @cached_property
    def _longest(self) -> float:
        return float(np.linalg.norm(self.vectors, axis=1).max(initial=0.0))

    def search(self, queries: Floats, k: int) -> Found:
        """Find the k rows with the largest inner product, ties by row number.

        Args:
            queries: float32 [Q, D].
            k: how many; at most M are returned.
        """
        k = min(k, len(self.vectors))
        rows_Qk = np.empty((len(queries), k), np.int64)
        scores_Qk = np.empty((len(queries), k))
        last = len(self.vectors) - k
        for start in range(0, len(queries) if k else 0, QUERIES):
            part_QD = queries[start : start + QUERIES]
            rough_QM = part_QD @ self.vectors.T
            least_Q = np.partition(rough_QM, last, axis=1)[:, last]
            # Both the k-th best and the row beside it may be off.
            doubt_Q = 2 * ROUNDING * self._longest * np.linalg.norm(part_QD, axis=1)
            for at, query_D in enumerate(part_QD.astype(np.float64)):
                row_C = np.flatnonzero(rough_QM[at] >= least_Q[at] - doubt_Q[at])
                score_C = self._exact(query_D, row_C)
                best_k = np.argsort(-score_C, kind="stable")[:k]
                rows_Qk[start + at], scores_Qk[start + at] = row_C[best_k], score_C[best_k]
        return rows_Qk, scores_Qk

    def _exact(self, query_D: Doubles, row_C: npt.NDArray[np.int64]) -> Doubles:
        """Inner products [C] in double precision, a bounded number of rows at a time."""
        parts = [row_C[start : start + ROWS] for start in range(0, len(row_C), ROWS)]
        return np.concatenate(
            [(self.vectors[part].astype(np.float64) * query_D).sum(axis=1) for part in parts]
        )
