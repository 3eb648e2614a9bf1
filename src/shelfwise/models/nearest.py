"""Nearest: the exact k nearest rows by inner product, a block of queries at a time.

It does not know what the vectors stand for. Legend: Q queries, M rows of the index, D dimensions,
k neighbours, C candidates, G groups of rows, m members of a group, P (query, row) pairs.

Candidates are found by a cheap product and ranked by exact scores in double precision, so the result
does not depend on how a product was split over threads; ties go to the smaller row number. Sorting
70,000 scores a query would cost much of the product, so rows are put in groups of ``GROUP`` and only
groups whose best score is good enough are opened.

Where the processor multiplies bytes fast and there are enough rows, the cheap product is of int8 codes. By
Cauchy and Schwarz it is off by at most |x - x'| |q| + |x'| |q - q'| (x a row, q a query, ' rounded to codes), all of
which is known, so no row that could be among the k nearest is left out. Otherwise the product
is in single precision, with a few more candidates than k for its rounding; a query that has more rows than these which
rounding cannot tell apart, such as copies of one picture, is asked of all of them.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
import torch

from shelfwise.models.plain_nearest import ROUNDING

#: Queries taken at once; bounds memory at QUERIES x M scores.
QUERIES = 256
#: Rows in a group.
GROUP = 64
#: Rows, and queries of one call, from which codes are worth computing.
CODED_ROWS, CODED_QUERIES = 8192, 512
#: Candidates a query may have on average before single precision is cheaper.
MANY = 1024


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

    @cached_property
    def _longest(self) -> float:
        return float(self._rows_MD.norm(dim=1).max())

    @cached_property
    def _codes(self) -> "_Codes":
        return _Codes.of(self._rows_MD)

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
        many = "_codes" in self.__dict__ or len(queries) >= CODED_QUERIES
        coded = many and len(self.vectors) >= max(CODED_ROWS, 4 * GROUP * k) and bytes_are_fast()
        for start in range(0, len(queries), QUERIES):
            part_QD = torch.from_numpy(np.ascontiguousarray(queries[start : start + QUERIES]))
            found = self._coded(part_QD, k) if coded else None
            if found is None:
                found = self._plain(part_QD, k)
            rows[start : start + QUERIES], scores[start : start + QUERIES] = found
        return rows, scores

    def _coded(
        self, queries_QD: torch.Tensor, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
        """Rank all rows that the bound cannot rule out; ``None`` where these are too many."""
        near = _Block(self._codes, queries_QD)
        first_Qk = near.best(k)
        firsts_QkD = self._rows_MD.index_select(0, first_Qk.flatten()).view(*first_Qk.shape, -1)
        known_Qk = torch.bmm(firsts_QkD, queries_QD[..., None]).squeeze(2)
        query_P, row_P = near.not_below(known_Qk.amin(dim=1))
        if len(row_P) > MANY * len(queries_QD):
            return None
        query_P, row_P = self._finalists(queries_QD, query_P, row_P, k)
        score_P = self._exact(queries_QD, query_P, row_P).numpy()
        order_P = np.lexsort((row_P.numpy(), -score_P, query_P.numpy()))
        start_Q = np.searchsorted(query_P.numpy(), np.arange(len(queries_QD)))
        chosen_Qk = order_P[start_Q[:, None] + np.arange(k)]
        return row_P.numpy()[chosen_Qk], score_P[chosen_Qk]

    def _finalists(
        self, queries_QD: torch.Tensor, query_P: torch.Tensor, row_P: torch.Tensor, k: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Drop pairs that single precision can tell from the k best of their query; the rest by query."""
        order_P = query_P.argsort(stable=True)
        rows = torch.split_with_sizes(row_P[order_P], query_P.bincount(minlength=len(queries_QD)).tolist())
        kept = []
        for query_D, row_C in zip(queries_QD, rows, strict=True):
            rows_CD = self._rows_MD.index_select(0, row_C)
            score_C = rows_CD @ query_D
            doubt = 2 * ROUNDING * float(query_D.norm()) * self._longest
            kept.append(row_C[score_C >= score_C.topk(k).values[-1] - doubt])
        counts = torch.tensor([len(row_C) for row_C in kept])
        return torch.arange(len(kept)).repeat_interleave(counts), torch.cat(kept)

    def _exact(self, queries_QD: torch.Tensor, query_P: torch.Tensor, row_P: torch.Tensor) -> torch.Tensor:
        """Inner products [P] in double precision."""
        exact_P = torch.empty(len(row_P), dtype=torch.float64)
        wide_QD = queries_QD.double()
        for start in range(0, len(row_P), 128):
            here = slice(start, start + 128)
            rows_PD = self._rows_MD.index_select(0, row_P[here]).double()
            exact_P[here] = rows_PD.mul_(wide_QD.index_select(0, query_P[here])).sum(dim=1)
        return exact_P

    def _plain(
        self, queries_QD: torch.Tensor, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Rank the best in single precision; where more rows are as good, all that are."""
        scores_QM = queries_QD @ self._rows_MD.T
        candidates_QC = self._candidates(scores_QM, k)
        rows, scores = self.rank(queries_QD, candidates_QC, k)
        if candidates_QC.shape[1] == len(self.vectors):
            return rows, scores
        rough_QC = scores_QM.gather(1, candidates_QC)
        # Both the k-th best and the row beside it may be off.
        doubt_Q = 2 * ROUNDING * self._longest * queries_QD.norm(dim=1)
        least_Q = rough_QC.topk(k, dim=1).values[:, -1] - doubt_Q
        for query in (rough_QC.amin(dim=1) >= least_Q).nonzero().flatten().tolist():
            row_P = (scores_QM[query] >= least_Q[query]).nonzero().flatten()
            score_P = self._exact(queries_QD[[query]], torch.zeros_like(row_P), row_P)
            best_k = score_P.argsort(descending=True, stable=True)[:k]
            rows[query], scores[query] = row_P[best_k].numpy(), score_P[best_k].numpy()
        return rows, scores

    def _candidates(self, scores_QM: torch.Tensor, k: int) -> torch.Tensor:
        """Row numbers [Q, C]: the best in single precision, with spare ones for its rounding."""
        count = len(self.vectors)
        wanted = min(count, k + 8 + k // 4)
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

    def rank(
        self, queries_QD: torch.Tensor, candidates_QC: torch.Tensor, k: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the k best of each query's candidates [Q, C], and their exact scores, ties by row number."""
        ordered_QC = candidates_QC.sort(dim=1).values
        exact_QC = torch.empty(ordered_QC.shape, dtype=torch.float64)
        for query in range(0, len(queries_QD), 32):
            near_qCD = self._rows_MD[ordered_QC[query : query + 32]].double()
            exact_QC[query : query + 32] = (near_qCD * queries_QD[query : query + 32, None].double()).sum(-1)
        value, order = exact_QC.sort(dim=1, descending=True, stable=True)
        return ordered_QC.gather(1, order)[:, :k].numpy(), value[:, :k].numpy()


@lru_cache
def bytes_are_fast() -> bool:
    """Whether this processor multiplies int8 fast, and without saturating."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if not capabilities.get("avx512_vnni", False):
        return False
    extreme = torch.tensor([[127], [-127]], dtype=torch.int8).expand(2, 32).repeat(16, 8)
    product = torch._int_mm(extreme, extreme.T.contiguous())
    return bool((product == (extreme.long() @ extreme.T.long())).all())


@dataclass(frozen=True, eq=False)
class _Codes:
    """Rows as int8 codes times one step, padded to whole groups; row r is member r // G of group r % G.

    Attributes:
        codes_MD: int8.
        step: what a code of 1 is worth.
        lost_mG: float32, |x - x'|.
        size_mG: float32, |x'|.
        count: rows that are not padding.
    """

    codes_MD: torch.Tensor
    step: float
    lost_mG: torch.Tensor
    size_mG: torch.Tensor
    count: int

    @classmethod
    def of(cls, rows_MD: torch.Tensor) -> "_Codes":
        """Round rows to codes; the step is the one, of a few, with which groups of a sample lose least."""
        count, groups = len(rows_MD), -(-len(rows_MD) // GROUP)
        sample = rows_MD[:: max(1, count // 2048)]
        largest = max(float(sample.abs().max()), 1e-30) / 127

        def lost(step: float) -> float:
            lost_S = (sample - (sample / step).round_().clamp_(-127, 127) * step).norm(dim=1)
            return float(sum(part.max() for part in lost_S.split(GROUP)))

        step = min((largest * share for share in (1.0, 0.85, 0.7, 0.5, 0.35)), key=lost)
        codes_MD = torch.zeros(groups * GROUP, rows_MD.shape[1], dtype=torch.int8)
        lost_M, size_M = torch.zeros(groups * GROUP), torch.zeros(groups * GROUP)
        for start in range(0, count, 1024):
            here = slice(start, min(start + 1024, count))
            code = (rows_MD[here] / step).round_().clamp_(-127, 127)
            codes_MD[here] = code.to(torch.int8)
            rounded = code.mul_(step)
            size_M[here] = rounded.norm(dim=1)
            lost_M[here] = rounded.sub_(rows_MD[here]).norm(dim=1)
        return cls(codes_MD, step, lost_M.view(GROUP, -1), size_M.view(GROUP, -1), count)


class _Block:
    """The products of all codes with a block of queries."""

    def __init__(self, index: _Codes, queries_QD: torch.Tensor) -> None:
        self.index = index
        step_Q = (queries_QD.abs().amax(dim=1) / 127).clamp(min=1e-30)
        codes_QD = (queries_QD / step_Q[:, None]).round_()
        self.unit_Q = step_Q * index.step
        self.lost_Q = (queries_QD - codes_QD * step_Q[:, None]).norm(dim=1)
        self.size_Q = queries_QD.norm(dim=1)
        product_MQ = torch._int_mm(index.codes_MD, codes_QD.to(torch.int8).T.contiguous())
        product_MQ[index.count :] = torch.iinfo(torch.int32).min // 2
        self.product_mGQ = product_MQ.view(*index.lost_mG.shape, -1)
        self.best_GQ = self.product_mGQ.amax(dim=0)

    def best(self, k: int) -> torch.Tensor:
        """Rows [Q, k] with about the largest scores, all different."""
        groups, queries = self.best_GQ.shape
        group_Qk = self.best_GQ.T.contiguous().topk(k, dim=1, sorted=False).indices
        cell_P = (group_Qk * queries + torch.arange(queries)[:, None]).flatten()
        opened_QkM = self.product_mGQ.flatten(1)[:, cell_P].view(GROUP, queries, k).permute(1, 2, 0)
        chosen_Qk = opened_QkM.flatten(1).topk(k, dim=1, sorted=False).indices
        return chosen_Qk % GROUP * groups + group_Qk.gather(1, chosen_Qk // GROUP)

    def not_below(self, least_Q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All (query, row) pairs [P] whose score may reach the query's ``least_Q``, known in single precision."""
        lost_mG, size_mG = self.index.lost_mG, self.index.size_mG
        spare_Q = self.lost_Q + 2 * ROUNDING * self.size_Q
        slack_GQ = lost_mG.amax(dim=0)[:, None] * self.size_Q + size_mG.amax(dim=0)[:, None] * spare_Q
        least_GQ = (least_Q - slack_GQ) / self.unit_Q
        group_P, query_P = (self.best_GQ >= least_GQ).nonzero().unbind(1)
        cell_P = group_P * len(least_Q) + query_P
        opened_mP = self.product_mGQ.flatten(1).index_select(1, cell_P)
        member, at = (opened_mP >= least_GQ.flatten()[cell_P].floor().int()).nonzero().unbind(1)
        group_P, query_P = group_P[at], query_P[at]
        slack_P = (
            lost_mG[member, group_P] * self.size_Q[query_P] + size_mG[member, group_P] * spare_Q[query_P]
        )
        may = opened_mP[member, at] * self.unit_Q[query_P] + slack_P >= least_Q[query_P]
        return query_P[may], (member * lost_mG.shape[1] + group_P)[may]
