"""Exact nearest neighbours against numpy: 70,000 x 1,024, k = 15, blocks of 256 queries, in turns.

numpy is a float32 product, ``argpartition`` and a sort of the top. Rows and queries are unit vectors: once of clusters
within clusters with a falling spectrum, as embeddings are, once random Gaussian, where everything is about equally
far. Recall is against float64 scores. ``ratio_clustered`` and ``ratio_gaussian`` leave out
what an index computes once (``index_seconds``); ``ratio_with_index`` spreads that over 2,048 queries.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.models.nearest import Index

ROWS, DIMENSION, K, BLOCK, ROUNDS = 70_000, 1024, 15, 256, 7
Floats = npt.NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    result: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


def gaussian(rows: int) -> Floats:
    """Return random directions."""
    return unit(np.random.default_rng(0).standard_normal((rows, DIMENSION), np.float32))


def clustered(rows: int) -> Floats:
    """Return clusters within clusters; the variance of axis i falls as 1 / i, the axes turned at random."""
    rng = np.random.default_rng(1)
    few, many = (rng.standard_normal((count, DIMENSION), np.float32) for count in (30, 3000))
    own = rng.standard_normal((rows, DIMENSION), np.float32)
    sub = rng.integers(len(many), size=rows)
    mixed = 0.6 * few[sub % len(few)] + 0.6 * many[sub] + own
    mixed /= np.sqrt(np.arange(1, DIMENSION + 1, dtype=np.float32))
    turn, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    return unit(mixed @ turn.astype(np.float32))


def plain(index_MD: Floats, queries_QD: Floats) -> npt.NDArray[np.int64]:
    """Search with numpy."""
    scores_QM = queries_QD @ index_MD.T
    top_Qk = np.argpartition(scores_QM, len(index_MD) - K, axis=1)[:, -K:]
    order_Qk = np.argsort(-np.take_along_axis(scores_QM, top_Qk, 1), axis=1)
    return np.take_along_axis(top_Qk, order_Qk, 1)


def recall(found_Qk: npt.NDArray[np.int64], index_MD: Floats, queries_QD: Floats) -> float:
    """Return the share of the true nearest that were found."""
    wide = queries_QD.astype(np.float64)
    scores = np.concatenate([wide @ part.T for part in np.array_split(index_MD, 16)], axis=1)
    true_Qk = np.argpartition(scores, len(index_MD) - K, axis=1)[:, -K:]
    hits = sum(len(set(a) & set(b)) for a, b in zip(found_Qk.tolist(), true_Qk.tolist(), strict=True))
    return hits / true_Qk.size


def main(quick: bool = False) -> dict[str, Any]:
    rows, rounds = (10_000, 1) if quick else (ROWS, ROUNDS)
    result: dict[str, Any] = {"benchmark": "neighbours", "rows": rows}
    for name, make in (("clustered", clustered), ("gaussian", gaussian)):
        drawn = make(rows + 2 * BLOCK)
        vectors, queries = drawn[: -2 * BLOCK], drawn[-2 * BLOCK :]
        index = Index(vectors)
        start = time.perf_counter()
        found, _ = index.search(queries, K)
        first = time.perf_counter() - start
        ratios, ours = [], []
        for turn in range(rounds):
            block = queries[turn % 2 * BLOCK :][:BLOCK]
            start = time.perf_counter()
            plain(vectors, block)
            middle = time.perf_counter()
            index.search(block, K)
            ours.append(time.perf_counter() - middle)
            ratios.append((middle - start) / ours[-1])
        took, ratio = statistics.median(ours), statistics.median(ratios)
        build = max(0.0, first - 2 * took)
        result[f"ratio_{name}"] = round(ratio, 2)
        result[f"ratio_with_index_{name}"] = round(ratio * 8 * took / (8 * took + build), 2)
        result[f"recall_{name}"] = round(recall(found, vectors, queries), 6)
        result[f"index_seconds_{name}"] = round(build, 2)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(main(**vars(parser.parse_args()))))
