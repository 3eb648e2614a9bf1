"""Approximate: the nearest rows through FAISS, ranked by exact scores.

It does not know what the vectors stand for. Legend: Q queries, M rows of the index, D dimensions, k neighbours,
C candidates.

FAISS (Douze et al. 2024, "The Faiss library") finds candidates, a few more than asked for; they are ranked by inner
products in double precision, ties by row number, as ``nearest.Index`` ranks its own. So the scores are exact whatever
the index, and a query's result does not depend on the queries beside it. Indexes are built on one thread from a fixed
seed: the same rows make the same index. A query for which an index finds too few rows is searched exactly.

| kind | index | for |
|---|---|---|
| ``faiss-flat`` | all rows compared | the reference: finds what ``exact`` finds |
| ``faiss-ivf`` | inverted lists, an eighth of them read | many rows, some recall given up |
| ``faiss-hnsw`` | graph (Malkov and Yashunin 2018) | single queries at once; slow to build |
"""

import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from shelfwise.errors import require
from shelfwise.models.plain_nearest import Found, Searchable, exact_index

if TYPE_CHECKING:
    from shelfwise.models.nearest import Index

Search = Literal["exact", "faiss-flat", "faiss-ivf", "faiss-hnsw"]
#: Fewer rows than this are always compared one by one: an index of lists or a graph gains nothing.
FEW = 1000
#: Rows that FAISS wants for every list it trains.
ROWS_A_LIST = 39
#: Neighbours a row has in the graph, and how many are looked at to find them.
LINKS, EFFORT = 32, 200
SEED = 1234

#: The number of threads is a setting of the whole library, so only one index is built at a time.
_BUILDING = threading.Lock()


def index_of(vectors: npt.NDArray[np.float32], search: Search = "exact") -> Searchable:
    """Return rows that can be searched.

    Args:
        vectors: float32 [M, D]; of one length, for ``faiss-ivf`` and ``faiss-hnsw``.
        search: how.

    Raises:
        MissingExtra: FAISS is asked for and not installed.
    """
    if search == "exact":
        return exact_index(vectors)
    require("faiss", extra="knn")
    return FaissIndex(np.ascontiguousarray(vectors), search)


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """Rows behind an index of FAISS.

    Attributes:
        vectors: float32 [M, D].
        kind: ``faiss-flat``, ``faiss-ivf`` or ``faiss-hnsw``.
    """

    vectors: npt.NDArray[np.float32]
    kind: Search

    @cached_property
    def _exact(self) -> "Index":
        from shelfwise.models.nearest import Index

        return Index(self.vectors)

    @cached_property
    def _built(self) -> Any:
        faiss = require("faiss", extra="knn")
        count, dimension = self.vectors.shape
        with _BUILDING:
            threads = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(1)
            try:
                if self.kind == "faiss-flat" or count < FEW:
                    index = faiss.IndexFlatIP(dimension)
                elif self.kind == "faiss-ivf":
                    lists = max(1, min(round(4 * math.sqrt(count)), count // ROWS_A_LIST))
                    index = faiss.IndexIVFFlat(
                        faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT
                    )
                    index.cp.seed, index.cp.spherical = SEED, True
                    index.nprobe = max(8, lists // 8)
                    index.train(self.vectors)
                else:
                    index = faiss.IndexHNSWFlat(dimension, LINKS, faiss.METRIC_INNER_PRODUCT)
                    index.hnsw.efConstruction = EFFORT
                index.add(self.vectors)
            finally:
                faiss.omp_set_num_threads(threads)
        return index

    def search(self, queries: npt.NDArray[np.float32], k: int) -> Found:
        """Find the k rows with about the largest inner products, ties by row number.

        Args:
            queries: float32 [Q, D].
            k: how many; at most M are returned.
        """
        k = min(k, len(self.vectors))
        if k == 0 or not len(queries):
            return np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float64)
        torch = require("torch", extra="train")
        wanted = min(len(self.vectors), k + 8 + k // 4)
        candidates_QC = self._candidates(np.ascontiguousarray(queries), wanted)
        short_Q = (candidates_QC < 0).any(axis=1)
        rows_Qk, scores_Qk = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
        full = np.flatnonzero(~short_Q)
        if len(full):
            queries_QD = torch.from_numpy(np.ascontiguousarray(queries[full]))
            ranked = self._exact.rank(queries_QD, torch.from_numpy(candidates_QC[full]), k)
            rows_Qk[full], scores_Qk[full] = ranked
        short = np.flatnonzero(short_Q)
        if len(short):
            rows_Qk[short], scores_Qk[short] = self._exact.search(queries[short], k)
        return rows_Qk, scores_Qk

    def _candidates(self, queries: npt.NDArray[np.float32], wanted: int) -> npt.NDArray[np.int64]:
        """Row numbers [Q, C], -1 where the index found no more."""
        faiss = require("faiss", extra="knn")
        index = self._built
        if isinstance(index, faiss.IndexHNSWFlat):
            parameters = faiss.SearchParametersHNSW(efSearch=max(128, 2 * wanted))
            found = index.search(queries, wanted, params=parameters)[1]
        else:
            found = index.search(queries, wanted)[1]
        rows: npt.NDArray[np.int64] = found
        return rows
