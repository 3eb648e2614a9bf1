"""Nearest: the exact k nearest rows by inner product, a block of queries at a time.

It does not know what the vectors stand for. Legend: Q queries, M rows of the index, D dimensions,
k neighbours, C candidates, G groups of rows.

One matrix product scores all rows in single precision. Sorting 70,000 scores a query costs as much
as the product, so rows are first put in groups of ``GROUP`` and only the groups with the best
maxima are opened: any of the C best rows lies in one of the C groups with the largest maximum. The
candidates, a few more than k, are scored again in double precision, so the result does not depend
on how the product was split over threads; ties go to the smaller row number.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

#: Queries taken at once; bounds memory at QUERIES x M scores.
QUERIES = 256
#: Rows in a group.
GROUP = 64


@dataclass(frozen=True, eq=False)
class Index:
    """Rows to be searched.

    Attributes:
        vectors: float32 [M, D].
    """

    vectors: npt.NDArray[np.float32]

    @cached_property
    def _rows_MD(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.vectors))

    def search(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Find the k rows with the largest inner product, ties by row number.

        Args:
            queries: float32 [Q, D].
            k: how many; at most M are returned.

        Returns:
            int64 [Q, k] row numbers and float64 [Q, k] inner products, largest first.
        """
        k = min(k, len(self.vectors))
        rows = np.empty((len(queries), k), dtype=np.int64)
        scores = np.empty((len(queries), k), dtype=np.float64)
        if k == 0:
            return rows, scores
        for start in range(0, len(queries), QUERIES):
            part_QD = torch.from_numpy(np.ascontiguousarray(queries[start : start + QUERIES]))
            found, score = self._rank(part_QD, self._candidates(part_QD, k), k)
            rows[start : start + QUERIES], scores[start : start + QUERIES] = found, score
        return rows, scores

    def _candidates(self, queries_QD: torch.Tensor, k: int) -> torch.Tensor:
        """Row numbers [Q, C]: the best in single precision, with spare ones for its rounding."""
        count = len(self.vectors)
        wanted = min(count, k + 8 + k // 4)
        scores_QM = queries_QD @ self._rows_MD.T
        groups = count // GROUP
        if wanted * GROUP * 2 > count:
            return scores_QM.topk(wanted, dim=1, sorted=False).indices
        whole = groups * GROUP
        # Row r of the first ``whole`` rows is member r // groups of group r % groups.
        members_QmG = scores_QM[:, :whole].view(-1, GROUP, groups)
        best_QC = members_QmG.amax(dim=1).topk(wanted, dim=1, sorted=False).indices
        opened_QmC = members_QmG.gather(2, best_QC.unsqueeze(1).expand(-1, GROUP, -1))
        pool = torch.cat([opened_QmC.flatten(1), scores_QM[:, whole:]], dim=1)
        chosen = pool.topk(wanted, dim=1, sorted=False).indices
        member, at = chosen // wanted, chosen % wanted
        row = member * groups + best_QC.gather(1, at)
        return torch.where(chosen < GROUP * wanted, row, chosen - GROUP * wanted + whole)

    def _rank(
        self, queries_QD: torch.Tensor, candidates_QC: torch.Tensor, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        ordered_QC = candidates_QC.sort(dim=1).values
        exact_QC = torch.empty(ordered_QC.shape, dtype=torch.float64)
        for query in range(0, len(queries_QD), 32):
            near_qCD = self._rows_MD[ordered_QC[query : query + 32]].double()
            exact_QC[query : query + 32] = (near_qCD * queries_QD[query : query + 32, None].double()).sum(-1)
        value, order = exact_QC.sort(dim=1, descending=True, stable=True)
        return ordered_QC.gather(1, order)[:, :k].numpy(), value[:, :k].numpy()
