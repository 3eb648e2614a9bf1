"""What retrieval and treatments of the training labels are worth on real catalogues, grouped five folds.

Every way is cross-fitted over the same folds (near-duplicate groups kept whole) and compared with its plain recipe:
``probe`` or ``neighbours`` with their defaults. Scored are the most probable values (``plain``) and answers decided
for the harmonic F1 (``decided``); intervals are paired, by group, at 95 %. Categories with at least 100 rows,
attributes with at least two values. Only labels as stated are scored. Finished folds are kept under the cache folder:
run again, it goes on where it stopped. With ``--noise`` a share of the stated labels is
replaced by another value of the attribute, drawn evenly, before anything is learnt, calibrated or decided; scored are
the labels as stated. ``--folds`` scores the first folds only.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.config import make_recipe
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions, Recipe
from shelfwise.splits import Folds
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {"fashion": "fashion/catalog.csv", "myntra": "myntra/catalog.csv"}
Both = tuple[Predictions | Answers, Predictions | Answers]
#: Options of ``neighbours``; all are compared with the first.
VOTES: dict[str, dict[str, Any]] = {
    "k = 15": {},
    "k = 5": {"k": 5},
    "k = 50": {"k": 50},
    "by similarity, power 1": {"weighting": "similarity", "power": 1.0},
    "by similarity, power 8": {"weighting": "similarity"},
    "k = 50, by similarity, power 8": {"k": 50, "weighting": "similarity"},
    "raw cosine": {"standardise": False},
    "one vote a group": {"one_vote": True},
    "hash": {"by": "hash"},
    "hash, all three": {"by": "hash", "hashes": "all"},
    "hash, difference": {"by": "hash", "hashes": "difference"},
    "hash, average": {"by": "hash", "hashes": "average"},
}
#: What is done to the labels that the probe learns from.
TREATMENTS: dict[str, dict[str, Any]] = {
    "as stated": {},
    "corrected, 0.8 of 15": {"correct": True},
    "corrected, majority of 15": {"correct": True, "agreement": 0.51},
    "filled, mode": {"impute": "mode"},
    "filled, similar": {"impute": "similar"},
    "filled, model": {"impute": "model"},
    "repeated, power 0.5": {"upsample": 0.5},
    "repeated, power 1": {"upsample": 1.0},
}


def ways() -> dict[str, dict[str, Any]]:
    """Return the recipe of every way, by its name; each group begins with what the others are compared with."""
    found = {f"neighbours: {name}": {"name": "neighbours", **options} for name, options in VOTES.items()}
    for name, options in TREATMENTS.items():
        inner = {"name": "probe"}
        table = {"name": "treated", "recipe": inner, "treat": options} if options else inner
        found[f"probe: {name}"] = table
    return found


def counted(catalog: Catalog) -> Catalog:
    """Return the rows of categories with at least 100 of them."""
    big = [catalog.rows(name) for name in catalog.present if len(catalog.rows(name)) >= 100]
    return catalog.select(np.sort(np.concatenate(big)))


def planted(catalog: Catalog, share: float) -> Catalog:
    """Return the products with a share of the stated labels replaced by another value, drawn evenly."""
    codes_NJ, draw = catalog.codes.copy(), np.random.default_rng(0)
    for category in catalog.present:
        rows = catalog.rows(category)
        columns = label_columns(catalog.taxonomy, category, catalog.schema.roles, catalog.layout)
        for choice, column in zip(catalog.taxonomy.choices(category), columns, strict=True):
            stated = rows[codes_NJ[rows, column] >= 0] if column >= 0 and len(choice.values) > 1 else rows[:0]
            wrong = draw.choice(stated, round(share * len(stated)), replace=False)
            step = draw.integers(1, max(len(choice.values), 2), len(wrong))
            codes_NJ[wrong, column] = (codes_NJ[wrong, column] + step) % max(len(choice.values), 1)
    return replace(catalog, codes=codes_NJ)


def fitted(
    recipe: Recipe, stated: Catalog, folds: Folds, machine: Machine, out: Path, count: int
) -> Predictions:
    """Return predictions of the rows of the first folds, out of fold; finished folds are read."""
    if count >= folds.k:
        return cross_fit(recipe, stated, folds, machine=machine, out=out)
    rows = np.flatnonzero(folds.fold < count)
    parts = []
    for fold in range(count):
        test = folds.test(fold)
        predictor = recipe.fit(stated.select(folds.train(fold)), None, machine, 0)
        parts.append((np.searchsorted(rows, test), predictor.predict(stated.select(test), machine)))
    return Predictions.join(parts, [stated.ids[row] for row in rows.tolist()])


def one(
    name: str, only: Sequence[str], jobs: int | None, noise: float = 0.0, count: int = 5
) -> dict[str, Any]:
    """Measure one catalogue."""
    machine, out = Machine(jobs=jobs), cache_directory() / "benchmarks" / "treatments" / name
    catalog = counted(Catalog.read(DATA / TABLES[name])).remembering()
    groups = near_duplicates(catalog, cache=cache_directory(), jobs=jobs)
    folds = catalog.folds(5, groups=groups)
    stated, rows = planted(catalog, noise), np.flatnonzero(folds.fold < count)
    truth, known, groups_n, fold_n = catalog.select(rows), stated.select(rows), groups[rows], folds.fold[rows]
    if count < 5:  # what is calibrated and decided on needs folds of its own
        fold_n = truth.folds(5, groups=groups_n).fold
    result: dict[str, Any] = {}
    bases: dict[str, Both] = {}
    for way, table in ways().items():
        kind = way.split(":")[0]
        if only and way not in only and kind in bases:
            continue
        found = fitted(make_recipe(table), stated, folds, machine, out, count)
        answers = decided_out_of_fold(Evidence.of(found, known, groups_n, fold_n), "harmonic_f1")
        both: Both = found, replace(answers, errors={**answers.errors, **found.errors})
        row: dict[str, Any] = {}
        for what, at in (("plain", 0), ("decided", 1)):
            second = both[at]
            row[what] = round(evaluate(second, truth, min_values=2, bootstrap=0).score, 4)
            if kind in bases:
                entries = [("base", bases[kind][at]), (way, second)]
                gain = compare(entries, truth, groups=groups_n, min_values=2, bootstrap=500).differences[0]
                row[f"{what}_gain"] = [round(x, 4) for x in (gain.difference, gain.low, gain.high)]
        bases.setdefault(kind, both)
        result[way] = row
        print(f"{name} {way}: {row}", file=sys.stderr, flush=True)
    return result


def main(
    quick: bool = False,
    tables: Sequence[str] = tuple(TABLES),
    only: Sequence[str] = (),
    jobs: int | None = None,
    noise: float = 0.0,
    folds: int = 5,
) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "treatments"}
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    if quick:
        tables, only = tables[:1], ("neighbours: k = 5", "probe: filled, mode")
    return result | {name: one(name, only, jobs, noise, folds) for name in tables}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one catalogue, one vote and one treatment")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    parser.add_argument("--only", nargs="*", default=(), choices=tuple(ways()), metavar="WAY")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--noise", type=float, default=0.0, help="share of labels replaced before learning")
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6), help="of the five, scored")
    print(json.dumps(main(**vars(parser.parse_args()))))
