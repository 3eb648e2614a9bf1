"""AutoGluon or Ludwig, one predictor a pair of category and attribute, for ``rivals``; runs where they are installed.

It knows arrays in a file, not this package. A folder holds ``vectors.npz`` (``train`` [N, D], ``test`` [M, D]) and
``pairs.json`` (name, rows and labels to learn from, rows to answer). Each finished pair is a line of ``OUT``: what it
answered, wall and processor seconds, the most memory of this process so far. Run again, it goes on where it stopped.
"""

import argparse
import importlib
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def harmonic_f1(truth: npt.NDArray[Any], said: npt.NDArray[Any]) -> float:
    """Return the harmonic mean of accuracy and macro F1."""
    metrics = importlib.import_module("sklearn.metrics")
    micro = float(np.mean(truth == said))
    macro = float(metrics.f1_score(truth, said, average="macro"))
    return 2 * micro * macro / max(micro + macro, 1e-12)


def seconds() -> float:
    """Return the processor seconds of this process and of what it started."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


Said = tuple[list[int], float, float, str]


def autogluon(
    pair: dict[str, Any], train: npt.NDArray[Any], test: npt.NDArray[Any], limit: float, home: Path
) -> Said:
    """Fit a TabularPredictor, told the metric that counts; answers, wall and CPU seconds, the best of its models."""
    pandas, tabular = importlib.import_module("pandas"), importlib.import_module("autogluon.tabular")
    scorer = importlib.import_module("autogluon.core.metrics").make_scorer
    metric = scorer(name="harmonic_f1", score_func=harmonic_f1, optimum=1, greater_is_better=True)
    columns = [f"f{at}" for at in range(train.shape[1])]
    frame = pandas.DataFrame(train, columns=columns).assign(label=pair["labels"])
    start, used = time.perf_counter(), seconds()
    predictor = tabular.TabularPredictor(
        label="label", eval_metric=metric, path=str(home), verbosity=0, problem_type=pair["problem"]
    ).fit(frame, time_limit=limit)
    took = time.perf_counter() - start, seconds() - used
    said = predictor.predict(pandas.DataFrame(test, columns=columns))
    return [int(value) for value in said], *took, str(predictor.model_best)


def ludwig(
    pair: dict[str, Any], train: npt.NDArray[Any], test: npt.NDArray[Any], limit: float, home: Path
) -> Said:
    """Train Ludwig's default model of a vector feature and a category feature, early stopping on, and answer."""
    pandas, api = importlib.import_module("pandas"), importlib.import_module("ludwig.api")
    words_of = [[" ".join(f"{value:.5g}" for value in row) for row in part] for part in (train, test)]
    frame = pandas.DataFrame({"vector": words_of[0], "label": [f"v{code}" for code in pair["labels"]]})
    config = {
        "input_features": [{"name": "vector", "type": "vector"}],
        "output_features": [{"name": "label", "type": "category"}],
        "trainer": {"epochs": 30, "early_stop": 5},
    }
    start, used = time.perf_counter(), seconds()
    model = api.LudwigModel(config, backend="local", logging_level=40)
    model.train(frame, output_directory=str(home), skip_save_processed_input=True)
    took = time.perf_counter() - start, seconds() - used
    asked = pandas.DataFrame({"vector": words_of[1], "label": [frame["label"][0]] * len(test)})
    found, _ = model.predict(asked, skip_save_predictions=True)
    said = [str(value) for value in found["label_predictions"]]
    known = [int(value[1:]) if value.startswith("v") else int(pair["labels"][0]) for value in said]
    return known, *took, "vector, category"


TOOLS = {"autogluon": autogluon, "ludwig": ludwig}


def one(
    tool: str, pair: dict[str, Any], train: npt.NDArray[Any], test: npt.NDArray[Any], limit: float
) -> dict[str, Any]:
    """Let a tool learn and answer one pair."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        said, took, spent, best = TOOLS[tool](pair, train[pair["train"]], test[pair["test"]], limit, home)
        size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    return {
        "pair": pair["pair"],
        "answers": said,
        "wall": round(took, 2),
        "cpu": round(spent, 2),
        "mb": round(size / 1e6, 2),
        "best": best,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }


def main(
    folder: Path, out: Path, tool: str = "autogluon", limit: float = 15.0, first: int = 0
) -> dict[str, Any]:
    with np.load(folder / "vectors.npz") as arrays:
        train, test = arrays["train"], arrays["test"]
    pairs = json.loads((folder / "pairs.json").read_text())
    done = {json.loads(line)["pair"] for line in out.read_text().splitlines()} if out.exists() else set()
    for pair in pairs[:first] if first else pairs:
        if pair["pair"] not in done:
            found = one(tool, pair, train, test, limit)
            with out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(pair["pair"], found["wall"], found["best"], file=sys.stderr, flush=True)
    return {"pairs": len(pairs)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tool", choices=tuple(TOOLS), default="autogluon")
    parser.add_argument("--limit", type=float, default=15.0, help="seconds of a predictor")
    parser.add_argument("--first", type=int, default=0, help="so many pairs only; 0 for all")
    main(**vars(parser.parse_args()))
