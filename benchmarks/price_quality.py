"""Price by the default recipe beside plain tools: SMAPE out of fold, on the same grouped folds of the same rows.

The plain tools: TF-IDF (words and pairs of words, at least in two texts, sublinear) with ridge regression on the log
price; LightGBM with its defaults on 128 singular vectors of the same TF-IDF; XGBoost as the first system of the price
challenge ran it (MiniLM of the name, the stated value and four claims: 389 features, log1p, 1000 trees of depth 7 at
0.05, squared error); the median price. ``ours`` is the median of what ``boost`` predicts, before any calibration.
A difference is the mean of a tool's SMAPE less ours over rows, with the 95 % interval of a bootstrap over
near-duplicate groups: above zero, ours is better. ``seconds`` are CPU seconds of all folds.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import HIGH, LOW, MEDIAN
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.data.text import read_listings
from shelfwise.files import cache_directory
from shelfwise.models.text_encoders import build_text_encoder
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES
from shelfwise.splits import Folds

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {"fashion": "fashion/catalog.csv", "flipkart": "flipkart/catalog.csv"}
NAME, REPLICATES = "price", 2000
Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
#: Given rows to learn from and rows to answer, the prices of the latter.
Tool = Callable[[Rows, Rows], Float]


def tools(catalog: Catalog, price_N: Float, quick: bool) -> dict[str, Tool]:
    """Return the plain tools for a catalogue, by name."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    columns = [catalog.texts(name) for name in catalog.text_columns]
    texts = np.array(
        [" ".join(cell for cell in cells if cell) for cells in zip(*columns, strict=True)], object
    )

    def weighed(train: Rows, test: Rows) -> tuple[Any, Any]:
        tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        return tfidf.fit_transform(texts[train]), tfidf.transform(texts[test])

    def ridge(train: Rows, test: Rows) -> Float:
        known, asked = weighed(train, test)
        return np.asarray(np.exp(Ridge(alpha=1.0).fit(known, np.log(price_N[train])).predict(asked)))

    def lightgbm(train: Rows, test: Rows) -> Float:
        from lightgbm import Dataset
        from lightgbm import train as grow

        known, asked = weighed(train, test)
        svd = TruncatedSVD(128, random_state=0).fit(known)
        data = Dataset(svd.transform(known), np.log(price_N[train]))
        booster = grow({"verbose": -1, "num_threads": 1, "seed": 0, "deterministic": True}, data, 300)
        return np.asarray(np.exp(booster.predict(svd.transform(asked))))

    def median(train: Rows, test: Rows) -> Float:
        return np.full(len(test), np.median(price_N[train]))

    found: dict[str, Tool] = {"tfidf ridge": ridge, "tfidf lightgbm": lightgbm, "median": median}
    if not quick:
        found["minilm xgboost"] = first_system(catalog, price_N)
    return found


def first_system(catalog: Catalog, price_N: Float) -> Tool:
    """XGBoost on MiniLM of the name, with the stated value and claims."""
    import xgboost

    listings = read_listings(catalog)
    flags = ("organic", "gluten-free", "sugar-free", "kosher")
    facts_NF = np.array(
        [[item.value, *(flag in item.flags for flag in flags)] for item in listings], np.float32
    )
    encoder = build_text_encoder(REGISTRIES["text_encoder"].spec("sentence"))
    names = [item.name or "-" for item in listings]
    vectors_ND = encoder.fit(names, seed=0).encode(names, Machine())

    def answer(train: Rows, test: Rows) -> Float:
        value = np.nanmedian(facts_NF[train, 0]) if np.isfinite(facts_NF[train, 0]).any() else 0.0
        filled_NF = np.where(np.isnan(facts_NF), value, facts_NF)
        features_NF = np.concatenate([filled_NF, vectors_ND], axis=1)
        model = xgboost.XGBRegressor(
            n_estimators=1000, learning_rate=0.05, max_depth=7, random_state=42, n_jobs=1, verbosity=0
        )
        model.fit(features_NF[train], np.log1p(price_N[train]))
        return np.asarray(np.maximum(np.expm1(model.predict(features_NF[test])), 0.0), np.float64)

    return answer


def smapes(truth_N: Float, said_N: Float) -> Float:
    """Return [N], each row's part of the SMAPE, 0 to 200."""
    return 200 * np.abs(truth_N - said_N) / (truth_N + np.abs(said_N))


def interval(difference_N: Float, group_N: Rows) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference over rows, groups drawn with replacement."""
    _, place_N = np.unique(group_N, return_inverse=True)
    sums_G, counts_G = np.bincount(place_N, difference_N), np.bincount(place_N)
    drawn = np.random.default_rng(0)
    means = []
    for _ in range(REPLICATES):
        chosen = drawn.integers(0, len(sums_G), len(sums_G))
        means.append(sums_G[chosen].sum() / counts_G[chosen].sum())
    low, high = np.quantile(means, (0.025, 0.975))
    return round(float(low), 2), round(float(high), 2)


def one(path: Path, quick: bool, options: dict[str, Any]) -> dict[str, Any]:
    """Measure one catalogue, on its rows with a price."""
    catalog = Catalog.read(path).only("numbers")
    group_N = near_duplicates(catalog, cache=cache_directory())
    assigned = catalog.folds(5, groups=group_N, seed=0)
    stated = np.flatnonzero(np.isfinite(catalog.numbers(NAME)))
    catalog, group_N = catalog.select(stated), group_N[stated]
    folds = Folds(catalog.ids, assigned.fold[stated], True, 0)
    price_N = catalog.numbers(NAME)
    result: dict[str, Any] = {"rows": len(catalog), "groups": len(np.unique(group_N))}
    began = time.process_time()
    amount = cross_fit(make_recipe({"name": "boost", **options}), catalog, folds).amount(NAME)
    assert amount is not None
    ours_N = smapes(price_N, amount.quantiles[:, MEDIAN].astype(np.float64))
    held = (price_N >= amount.quantiles[:, LOW]) & (price_N <= amount.quantiles[:, HIGH])
    result["ours"] = {
        "smape": round(float(ours_N.mean()), 2),
        "seconds": round(time.process_time() - began, 1),
        "range of 90 % holds": round(float(held.mean()), 3),
    }
    print(f"{path.parent.name} ours: {result['ours']}", file=sys.stderr, flush=True)
    for name, tool in tools(catalog, price_N, quick).items():
        began, said_N = time.process_time(), np.zeros(len(catalog))
        for fold in range(folds.k):
            said_N[folds.test(fold)] = tool(folds.train(fold), folds.test(fold))
        theirs_N = smapes(price_N, said_N)
        result[name] = {
            "smape": round(float(theirs_N.mean()), 2),
            "more than ours": round(float((theirs_N - ours_N).mean()), 2),
            "interval": interval(theirs_N - ours_N, group_N),
            "seconds": round(time.process_time() - began, 1),
        }
        print(f"{path.parent.name} {name}: {result[name]}", file=sys.stderr, flush=True)
    return result


def main(
    quick: bool = False, tables: Sequence[str] = tuple(TABLES), options: dict[str, Any] | None = None
) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "price_quality"}
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    result |= {name: one(DATA / TABLES[name], quick, options or {}) for name in tables}
    plain = [name for name in result[tables[0]] if "ridge" in name or "lightgbm" in name or "xgboost" in name]
    result["least_gain"] = min(result[table][name]["more than ours"] for table in tables for name in plain)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="without XGBoost on MiniLM")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    parser.add_argument("--options", type=json.loads, help="of the recipe, as JSON")
    print(json.dumps(main(**vars(parser.parse_args()))))
