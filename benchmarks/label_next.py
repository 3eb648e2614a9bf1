"""What choosing the products to label is worth, against labelling as many at random.

Of the fashion catalogue a quarter is kept for scoring, near-duplicate groups kept whole. A bundle is fitted on some
products; ``label_next`` chooses from the others, whose labels it is not shown; then the default recipe is fitted on
both together, and scored. Random choice is the mean of several draws from the same others. All embeddings are frozen
and cached, so that labels are the only difference. ``gain`` is the difference of the scores, with the standard error
of its mean over seeds; ``worth`` how many products at random would reach what the chosen ones do, interpolated
between the sizes that were drawn.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.choosing import label_next
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import evaluate
from shelfwise.files import cache_directory
from shelfwise.fit import fit
from shelfwise.predictions import Machine
from shelfwise.recipes.probe import Probe

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
Ints = npt.NDArray[np.int64]
#: Seeds before it were looked at while the method was chosen.
FIRST_SEED = 4


def score(catalog: Catalog, train: Ints, test: Catalog) -> float:
    predictor = Probe().fit(catalog.select(np.sort(train)), None, Machine(), 0)
    return evaluate(predictor.predict(test, Machine()), test, bootstrap=0).score


def one_seed(
    catalog: Catalog, groups: Ints, seed: int, start: int, budgets: tuple[int, ...], draws: int
) -> dict[str, Any]:
    folds, rng = catalog.folds(4, groups=groups, seed=seed), np.random.default_rng(seed)
    test, mixed = catalog.select(folds.test(0)), rng.permutation(folds.train(0))
    learnt, others = np.sort(mixed[:start]), np.sort(mixed[start:])
    bundle = fit(catalog.select(learnt), Probe(), evidence=3, random_split=False)
    hidden = catalog.select(others)
    began = time.perf_counter()
    chosen = label_next(bundle, replace(hidden, codes=np.full_like(hidden.codes, -1)), max(budgets))
    seconds = time.perf_counter() - began
    found: dict[str, Any] = {"start": score(catalog, learnt, test), "seconds": seconds}
    shuffled = [rng.permutation(others) for _ in range(draws)]
    for size in (*budgets, 2 * max(budgets)):
        drawn = [score(catalog, np.concatenate([learnt, each[:size]]), test) for each in shuffled]
        found[f"random {size}"] = statistics.mean(drawn)
    for budget in budgets:
        both = np.concatenate([learnt, others[chosen.rows[:budget]]])
        found[f"chosen {budget}"] = score(catalog, both, test)
    return found


def main(quick: bool = False, seeds: int = 6, start: int = 300) -> dict[str, Any]:
    catalog = Catalog.read(DATA / "fashion/catalog.csv").remembering()
    groups = near_duplicates(catalog, cache=cache_directory())
    seeds, draws, budgets = (1, 1, (100,)) if quick else (seeds, 3, (100, 300))
    runs = [one_seed(catalog, groups, FIRST_SEED + seed, start, budgets, draws) for seed in range(seeds)]
    mean = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    sizes = [0, *budgets, 2 * max(budgets)]
    reached = [mean["start"], *(mean[f"random {size}"] for size in sizes[1:])]
    table = {}
    for budget in budgets:
        gains = [run[f"chosen {budget}"] - run[f"random {budget}"] for run in runs]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
        table[str(budget)] = {
            "chosen": round(mean[f"chosen {budget}"], 4),
            "random": round(mean[f"random {budget}"], 4),
            "gain": round(statistics.mean(gains), 4),
            "error": None if error is None else round(error, 4),
            "worse": sum(gain <= 0 for gain in gains),
            "worth": round(float(np.interp(mean[f"chosen {budget}"], reached, sizes))),
        }
    return {
        "benchmark": "label_next",
        "learnt": start,
        "seeds": seeds,
        "start": round(mean["start"], 4),
        "budgets": table,
        "seconds": round(mean["seconds"], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--start", type=int, default=300, help="products learnt from at first")
    print(json.dumps(main(**vars(parser.parse_args()))))
