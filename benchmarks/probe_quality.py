"""The default recipe against scikit-learn logistic regression, one per (category, attribute).

Both sides see the same embeddings, folds (five, near-duplicate groups kept whole) and score (categories with
at least 100 rows, pairs with at least two values). scikit-learn runs on standardised vectors: ``last``, the
backbone's last 1,280 features, and ``all``, everything the recipe sees. Training times are of all heads on all
rows, embeddings ready, in turns. ``ratio_score`` is our score over the balanced regression's on ``last``,
``ratio_time`` its training time over ours; each is the lowest over the catalogues.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import evaluate
from shelfwise.files import cache_directory
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.features import features
from shelfwise.recipes.probe import Probe
from shelfwise.splits import Folds

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {
    "myntra": "myntra/catalog.csv",
    "fashion": "fashion/catalog.csv",
    "fashion_challenge": "fashion/train.csv",
}
LAST = 1280
Floats = npt.NDArray[np.float32]
Heads = list[tuple[str, int, StandardScaler, LogisticRegression | int]]


@dataclass(frozen=True)
class Regression:
    """A way to run scikit-learn's regression: which vectors, which weights, which strength."""

    vectors: str
    weight: str | None = None
    strength: float = 1.0

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{'balanced' if self.weight else 'plain'} {self.vectors} C={self.strength:g}"

    def fit(self, catalog: Catalog, vectors_ND: Floats) -> Heads:
        """Fit a regression for every pair of a category with at least 100 rows."""
        heads: Heads = []
        for category in catalog.present:
            rows, labels_nA = catalog.rows(category), catalog.labels(category)
            scaler = StandardScaler().fit(vectors_ND[rows])
            scaled_nD = scaler.transform(vectors_ND[rows])
            for a in range(labels_nA.shape[1]):
                stated = labels_nA[:, a] >= 0
                codes = np.unique(labels_nA[stated, a])
                if len(codes) < 2:
                    heads.append((category, a, scaler, int(codes[0]) if len(codes) else 0))
                    continue
                model = LogisticRegression(C=self.strength, class_weight=self.weight, max_iter=1000)
                heads.append((category, a, scaler, model.fit(scaled_nD[stated], labels_nA[stated, a])))
        return heads


def predict(heads: Heads, catalog: Catalog, vectors_ND: Floats) -> Predictions:
    """Return the probabilities of scikit-learn's heads."""
    taxonomy = catalog.taxonomy
    probs = {
        name: np.zeros((len(catalog.rows(name)), taxonomy.width(name)), np.float32)
        for name in catalog.present
    }
    for category, a, scaler, model in heads:
        if category in probs and len(probs[category]):
            start = taxonomy.slices(category)[a].start
            if isinstance(model, int):
                probs[category][:, start + model] = 1
            else:
                found = model.predict_proba(scaler.transform(vectors_ND[catalog.rows(category)]))
                probs[category][:, start + model.classes_] = found
    blocks = tuple(Block(name, catalog.rows(name), part) for name, part in probs.items())
    return Predictions(taxonomy, catalog.ids, blocks)


def out_of_fold(way: Regression, catalog: Catalog, folds: Folds, vectors_ND: Floats) -> Predictions:
    """Cross-fit one way to run scikit-learn."""
    parts = []
    for fold in range(folds.k):
        train, test = folds.train(fold), folds.test(fold)
        heads = way.fit(catalog.select(train), vectors_ND[train])
        parts.append((test, predict(heads, catalog.select(test), vectors_ND[test])))
    return Predictions.join(parts, catalog.ids)


def score(found: Predictions, catalog: Catalog) -> dict[str, float]:
    """Return the challenge score with its two sides."""
    report = evaluate(found, catalog, min_rows=100, min_values=2, bootstrap=0)
    wanted = ("harmonic_f1", "micro_f1", "macro_f1")
    return {
        line.metric: round(line.score, 4)
        for line in report.lines
        if line.level == "overall" and line.metric in wanted
    }


def counted(catalog: Catalog) -> Catalog:
    """Return the rows with a picture, of categories with at least 100 rows."""
    big = [catalog.rows(name) for name in catalog.present if len(catalog.rows(name)) >= 100]
    return catalog.select(np.sort(np.concatenate(big)))


def one(path: Path, ways: Sequence[Regression], timed: Sequence[Regression]) -> dict[str, Any]:
    """Measure one catalogue."""
    machine, recipe = Machine(), Probe()
    lists = path.parent / "category_attributes.parquet"
    pictures = path.parent / "train_images"
    challenge = path.name == "train.csv"
    catalog = Catalog.read(
        path, images=pictures if challenge else None, attributes=lists if challenge else None
    )
    catalog = counted(catalog).remembering()
    found = features(catalog, recipe.backbone, machine)
    readable = np.flatnonzero(np.isfinite(found.vectors).all(axis=1))
    catalog, every_ND = catalog.select(readable), found.vectors[readable]
    vectors = {"all": every_ND, "last": np.ascontiguousarray(every_ND[:, -LAST:])}
    folds = catalog.folds(5, groups=near_duplicates(catalog, cache=cache_directory()))
    result: dict[str, Any] = {"rows": len(catalog), "dimension": every_ND.shape[1]}

    def note(name: str, value: object) -> None:
        result[name] = value
        print(f"{path.parent.name}/{path.name} {name}: {value}", file=sys.stderr, flush=True)

    note("ours", score(cross_fit(recipe, catalog, folds, machine=machine), catalog))

    def clock() -> float:
        start = time.perf_counter()
        recipe.fit(catalog, None, machine, 0)
        return time.perf_counter() - start

    for way in timed:
        before = [clock(), clock()]
        start = time.perf_counter()
        way.fit(catalog, vectors[way.vectors])
        theirs = time.perf_counter() - start
        ours = statistics.median([*before, clock(), clock()])
        note(f"times {way.name}", round(theirs / ours, 2))
        result["seconds"] = round(ours, 2)
    for way in ways:
        note(way.name, score(out_of_fold(way, catalog, folds, vectors[way.vectors]), catalog))
    return result


def main(quick: bool = False, tables: Sequence[str] = tuple(TABLES), grid: bool = False) -> dict[str, Any]:
    warnings.filterwarnings("error", category=ConvergenceWarning)
    result: dict[str, Any] = {"benchmark": "probe_quality"}
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    balanced = Regression("last", "balanced")
    same = Regression("all", "balanced")
    ways = [balanced] if quick else [balanced, Regression("last"), same, Regression("all")]
    if grid:
        ways += [Regression("last", weight, c) for weight in ("balanced", None) for c in (0.1, 0.01, 0.001)]
    result |= {
        name: one(DATA / TABLES[name], ways, [balanced] if quick else [balanced, same]) for name in tables
    }
    found = [result[name] for name in tables]
    result["ratio_score"] = round(
        min(each["ours"]["harmonic_f1"] / each[balanced.name]["harmonic_f1"] for each in found), 4
    )
    result["ratio_time"] = min(each[f"times {balanced.name}"] for each in found)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one regression only")
    parser.add_argument("--grid", action="store_true", help="other strengths of the penalty too")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    print(json.dumps(main(**vars(parser.parse_args()))))
