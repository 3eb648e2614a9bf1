"""Worth: how many independent rows the rows of near-duplicate groups are worth, and how each is to be weighed.

It does not know what the rows are measured by, only numbers and groups.
Legend: n rows, G near-duplicate groups.

Rows of one near-duplicate group are not exchangeable with rows of a new one; groups are (Dunn, Wasserman and Ramdas,
"Distribution-free prediction sets for two-layer hierarchical models", 2022). Pooling groups equally is right but
wastes evidence where their rows hardly resemble each other, and counting rows is wrong where they do. A group of ``k``
rows here weighs ``k / (1 + (k - 1) rho)``, rho the correlation of residuals within groups: as many independent rows
as it is worth (the design effect; Kish 1965), the weights that estimate a share with least variance. With rho 1 that
is one row a group, with rho 0 it is every row. Where big groups are plainly easier or harder than small ones, what is
promised of a table's rows would then not be what is found in it: as far as that is shown, every row counts alike.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]
#: Groups of several rows that the prior of a correlation of 1 is worth.
PRIOR_GROUPS = 10.0
#: The share of the smallest residuals whose rows are counted to see whether big groups are covered otherwise.
CHECKED = 0.9


def correlation_within(residual_n: Float, group_n: npt.NDArray[Any], rows_G: npt.NDArray[Any]) -> float:
    """Return the correlation within groups by analysis of variance of ranks, drawn to 1 where groups are few."""
    several = int((rows_G > 1).sum())
    if not several:
        return 1.0
    _, place_n, ties = np.unique(residual_n, return_inverse=True, return_counts=True)
    rank_n = (np.cumsum(ties) - ties / 2)[place_n] / len(residual_n)
    mean_G = np.bincount(group_n, rank_n) / rows_G
    count, groups = len(residual_n), len(rows_G)
    within = float(((rank_n - mean_G[group_n]) ** 2).sum()) / (count - groups)
    found = 1.0
    if groups > 1:
        between = float(rows_G @ (mean_G - rank_n.mean()) ** 2) / (groups - 1)
        usual = (count - (rows_G**2).sum() / count) / (groups - 1)
        below = between + (usual - 1) * within
        found = float(np.clip((between - within) / below, 0.0, 1.0)) if below > 0 else 1.0
    return (several * found + PRIOR_GROUPS) / (several + PRIOR_GROUPS)


def pooling_weights(
    residual_n: Float, group_n: npt.NDArray[Any], rows_G: npt.NDArray[Any], correlation: float
) -> Float:
    """Return the weights of residuals, [n]; their sum is the number of independent rows that all are worth.

    Weights by independent information are drawn to equal ones as far as it is shown that rows of big groups are
    covered otherwise than rows of small ones (a positive-part James-Stein estimate of the difference).
    """
    inflation_n = 1 + (rows_G[group_n] - 1) * correlation
    share_n = 1 / inflation_n / (1 / inflation_n).sum()
    even_n = np.full(len(share_n), 1 / len(share_n))
    size_n = np.abs(residual_n)
    inside_n = (size_n <= weighted_quantile(size_n, share_n, CHECKED)).astype(np.float64)
    part_G = np.bincount(group_n, (even_n - share_n) * (inside_n - share_n @ inside_n))
    apart, noise = float(part_G.sum()), float(part_G @ part_G)
    shown = max(1 - noise / apart**2, 0.0) if apart else 0.0
    share_n = shown * even_n + (1 - shown) * share_n
    return np.asarray(share_n / float((share_n**2) @ inflation_n))


def weighted_median(values_n: Float, weight_n: Float) -> float:
    """Return the value up to which half of the weight lies."""
    return weighted_quantile(values_n, weight_n, 0.5)


def weighted_quantile(values_n: Float, weight_n: Float, level: float) -> float:
    """Return the smallest value up to which a share of the weight lies."""
    order = np.argsort(values_n, kind="stable")
    total_n = np.cumsum(weight_n[order])
    return float(values_n[order][np.searchsorted(total_n, total_n[-1] * level)])
