"""Price by a network that looks and reads: SMAPE of the median on a grouped holdout, with the seconds it took.

The recipe is that of a run file (``recipe.numbers`` of one with parts); a fifth of the products is held out in
near-duplicate groups, seed 0, as ``fit`` with ``evidence = 0.2`` holds it out. ``median`` is the SMAPE of the training
products' median price; ``coverage`` the share of prices between the quantiles at 0.05 and 0.95, as they are predicted.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
import time
import tomllib
from pathlib import Path

import numpy as np

from shelfwise import metrics
from shelfwise.amounts import HIGH, LOW, MEDIAN
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe, override
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
NAME = "price"
RUN = Path(__file__).resolve().parents[1] / "examples/price_fusion.toml"


def main() -> None:
    """Fit, predict, score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=RUN, help="the run file")
    parser.add_argument("overrides", nargs="*", help="options of the recipe, such as batch=16")
    parser.add_argument("--table", default="fashion")
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    table = tomllib.loads(given.run.read_text(encoding="utf-8"))["recipe"]
    recipe = make_recipe(override(table.get("numbers", table), given.overrides))
    catalog = Catalog.read(DATA / given.table / "catalog.csv")
    groups = near_duplicates(catalog, cache=cache_directory())
    train, test = (part.only("numbers") for part in catalog.split(0.2, groups=groups, seed=0))

    def progress(what: str, done: int, of: int) -> None:
        print(f"\r{what} {done}/{of}", end="", file=sys.stderr)

    machine = Machine(jobs=given.jobs, progress=progress)
    begun, worked = time.perf_counter(), time.process_time()
    predictor = recipe.fit(train, None, machine, 0)
    fitted, fitted_work = time.perf_counter() - begun, time.process_time() - worked
    test = test.select(np.flatnonzero(np.isfinite(test.numbers(NAME))))
    found = predictor.predict(test, machine).amount(NAME)
    truth = test.numbers(NAME)[found.rows]
    quantiles = found.quantiles
    median = np.full(len(truth), np.nanmedian(train.numbers(NAME)))
    print()
    print(
        json.dumps(
            {
                "table": given.table,
                "learnt from": int(np.isfinite(train.numbers(NAME)).sum()),
                "scored": len(truth),
                "smape": round(metrics.smape(truth, quantiles[:, MEDIAN]), 2),
                "median": round(metrics.smape(truth, median), 2),
                "coverage": round(metrics.range_coverage(truth, quantiles[:, LOW], quantiles[:, HIGH]), 3),
                "fit seconds": round(fitted),
                "fit CPU seconds": round(fitted_work),
                "predict CPU seconds": round(time.process_time() - worked - fitted_work),
                "epochs": [[e["loss"], e["score"]] for e in predictor.training],
            }
        )
    )


if __name__ == "__main__":
    main()
