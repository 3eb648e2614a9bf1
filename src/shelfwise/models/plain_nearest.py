"""Plain nearest: the exact k nearest rows by inner product, without torch.

It does not know what the vectors stand for. Same answers as ``nearest``, which is several times faster on many queries
and is used where torch is installed: candidates by a product in single precision, a few more than k for its rounding,
ranked by exact scores; ties go to the smaller row number.

Legend: Q queries, M rows, D dimensions, k neighbours, C candidates.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shelfwise.models.engines import installed

Floats = npt.NDArray[np.float32]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
#: Queries taken at once; bounds memory at QUERIES x M scores.
QUERIES = 64


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

    def search(self, queries: Floats, k: int) -> Found:
        """Find the k rows with the largest inner product, ties by row number.

        Args:
            queries: float32 [Q, D].
            k: how many; at most M are returned.
        """
        k = min(k, len(self.vectors))
        rows_Qk = np.empty((len(queries), k), np.int64)
        scores_Qk = np.empty((len(queries), k))
        wanted = min(len(self.vectors), k + 8 + k // 4)
        for start in range(0, len(queries) if k else 0, QUERIES):
            part_QD = queries[start : start + QUERIES]
            rough_QM = part_QD @ self.vectors.T
            near_QC = np.argpartition(-rough_QM, wanted - 1, axis=1)[:, :wanted]
            for at, (query_D, near_C) in enumerate(
                zip(part_QD.astype(np.float64), near_QC, strict=True), start
            ):
                row_C = np.sort(near_C)
                score_C = (self.vectors[row_C].astype(np.float64) * query_D).sum(axis=1)
                best_k = np.argsort(-score_C, kind="stable")[:k]
                rows_Qk[at], scores_Qk[at] = row_C[best_k], score_C[best_k]
        return rows_Qk, scores_Qk
