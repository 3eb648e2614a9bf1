"""Time and memory per product for 2,000 categories of 8 attributes (3 to 5 values) against 5.

The same 50,000 products each time: the table is read, the default recipe fitted, every product predicted, and
the answers laid out and written; each number of categories in a process of its own, in turns. Vectors
are ready (what embedding costs is the same on both sides): ``ratio_time`` leaves it out, ``ratio_time_embedded``
counts ``EMBED_MS`` a product on both sides, about what the embedded backbone needs on two cores.
``ratio_memory`` is of the peaks less the stored weights. ``evaluate``, whose time follows the number of
pairs, is reported beside it.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRODUCTS, FEW, MANY, ATTRIBUTES, DIMENSION = 50_000, 5, 2_000, 8, 2064
EMBED_MS = 10.0
ROUNDS = 3


def write_table(directory: Path, products: int, categories: int) -> None:
    """Write the table; every category has its own 3 to 5 values of each attribute, a tenth is missing."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    category_N = rng.permutation(np.arange(products) % categories)
    sizes_CA = rng.integers(3, 6, (categories, ATTRIBUTES))
    shift_CA = rng.integers(0, 20, (categories, ATTRIBUTES))
    columns: dict[str, Any] = {
        "id": [f"{row:06d}" for row in range(products)],
        "category": [f"category {code:04d}" for code in category_N],
    }
    for a in range(ATTRIBUTES):
        code_N = (rng.random(products) ** 1.5 * sizes_CA[category_N, a]).astype(int) + shift_CA[category_N, a]
        lost_N = rng.random(products) < 0.1
        columns[f"attribute {a}"] = [
            None if lost else f"value {code}" for code, lost in zip(code_N, lost_N, strict=True)
        ]
    columns["image"] = [f"{row:06d}.jpg" for row in range(products)]
    pl.DataFrame(columns).write_csv(directory / f"table-{categories}.csv")


def child(directory: Path, categories: int) -> None:
    """Do the work on one table and print seconds by step, the peak and the weights, in MB."""
    import numpy as np

    import shelfwise.recipes.features as known
    from shelfwise.catalog import Catalog
    from shelfwise.evaluate import evaluate
    from shelfwise.layouts import write_answers
    from shelfwise.models.engines import EngineRecord
    from shelfwise.predictions import Machine
    from shelfwise.recipes.probe import Probe

    seconds: dict[str, float] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    import torch

    torch.eye(8).svd()
    recipe, machine = Probe(), Machine(cache=directory)
    table = directory / f"table-{categories}.csv"
    catalog = step("read", lambda: Catalog.read(table, images=directory / "photos")).remembering()
    rng = np.random.default_rng(1)
    basis_rD = rng.standard_normal((64, DIMENSION), np.float32)
    vectors_ND = rng.standard_normal((len(catalog), DIMENSION), np.float32)
    vectors_ND += rng.standard_normal((len(catalog), 64), np.float32) @ basis_rD
    record = EngineRecord("ready", "f32", "cpu", "1")
    rows = {path: row for row, path in enumerate(catalog.images)}
    found = known.Features(vectors_ND, {}, record, "ready", "ready", np.arange(len(catalog)))
    key = ("features", recipe.backbone, machine.engine, machine.device)
    catalog.memo[key] = known._Remembered(rows, found)
    predictor = step("fit", lambda: recipe.fit(catalog, None, machine, 0))
    predictions = step("predict", lambda: predictor.predict(catalog, machine))
    answers = step("answers", predictions.answers)
    step("write", lambda: write_answers(answers, directory / f"answers-{categories}.csv", catalog.layout))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    weights = sum(part.nbytes for head in predictor.heads.values() for part in head) / 2**20
    step("evaluate", lambda: evaluate(predictions, catalog, bootstrap=0))
    print(json.dumps({"seconds": seconds, "peak": peak, "weights": weights}))


def main(quick: bool = False) -> dict[str, Any]:
    products, many, rounds = (2_000, 80, 1) if quick else (PRODUCTS, MANY, ROUNDS)
    runs: dict[int, list[dict[str, Any]]] = {FEW: [], many: []}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "photos").mkdir()
        for row in range(products):
            (directory / "photos" / f"{row:06d}.jpg").touch()
        for categories in runs:
            write_table(directory, products, categories)
        for _ in range(rounds):
            for categories, done in runs.items():
                command = [sys.executable, __file__, "--child", str(directory), str(categories)]
                out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                done.append(json.loads(out.stdout))

    def cost(run: dict[str, Any], extra: float = 0.0) -> float:
        steps: dict[str, float] = run["seconds"]
        return sum(took for key, took in steps.items() if key != "evaluate") + extra

    def ratio(extra: float) -> float:
        pairs = zip(runs[many], runs[FEW], strict=True)
        return round(statistics.median(cost(a, extra) / cost(b, extra) for a, b in pairs), 2)

    result: dict[str, Any] = {"benchmark": "categories", "products": products, "many": many}
    result["ratio_time"] = ratio(0.0)
    result["ratio_time_embedded"] = ratio(EMBED_MS / 1000 * products)
    memory = {c: statistics.median(run["peak"] - run["weights"] for run in done) for c, done in runs.items()}
    result["ratio_memory"] = round(memory[many] / memory[FEW], 2)
    for categories, done in runs.items():
        result[f"milliseconds_{categories}"] = {
            key: round(1000 * statistics.median(run["seconds"][key] for run in done) / products, 4)
            for key in done[0]["seconds"]
        }
        result[f"peak_mb_{categories}"] = round(statistics.median(run["peak"] for run in done))
        result[f"weights_mb_{categories}"] = round(done[0]["weights"])
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--child", nargs=2)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), int(given.child[1]))
    else:
        print(json.dumps(main(given.quick)))
