"""Shelfwise, AutoGluon Tabular and scikit-learn on the same vectors of photos, one after another in one run.

Learnt from four of five grouped folds of fashion, asked of the fifth (near-duplicate groups kept whole). Sides:

- ``fit``: the whole default ``fit``, evidence, calibration, decision and report included, and its bundle's answers;
- ``fit, no report``: the same without the random split and the learning curve, which only the report needs;
- ``probe``: the default recipe alone, its most probable values;
- ``regression``, ``balanced``: a scikit-learn regression a pair of category and attribute on standardised vectors;
- ``autogluon``: a TabularPredictor a pair, as its documentation says for several labels, told the metric that counts
  and a time limit a predictor, in the Python of ``--autogluon-python`` (its own environment); a few pairs once more
  with ``--long-limit``;
- ``ludwig``: its default model of a vector and a category, a few pairs, in the Python of ``--ludwig-python``.

Each side runs in a process of its own: wall and processor seconds of learning, vectors ready, the most memory of the
process, the harmonic F1 of its answers, and what ``fit`` scores less that, paired, with a 95 % interval over groups.
``ratio_time`` and ``ratio_cpu`` are AutoGluon's seconds over those of the whole ``fit``. Finished sides and pairs are
kept under the cache folder: run again, it goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from approaches import Table, cpu, rounded
from nested import one_hot
from probe_quality import Regression, predict
from shelfwise.catalog import Catalog
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.files import cache_directory
from shelfwise.fit import fit
from shelfwise.predictions import Block, Machine, Predictions, uniform
from shelfwise.recipes.features import features
from shelfwise.recipes.probe import Probe
from shelfwise.speed import peak_megabytes

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
FOLD, BOOTSTRAP = 1, 1000
SIDES = ("fit", "fit, no report", "probe", "regression", "balanced")
HERE = Path(__file__).resolve().parent
Result = dict[str, Any]


def home() -> Path:
    """Return where finished sides are kept."""
    return cache_directory() / "benchmarks" / "rivals-1"


def sides(table: Table) -> tuple[Catalog, Catalog, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return what is learnt from and what is asked, and their vectors."""
    train, test = table.folds.train(FOLD), table.folds.test(FOLD)
    vectors_ND = features(table.catalog, Probe().backbone, Machine()).vectors
    return table.catalog.select(train), table.catalog.select(test), vectors_ND[train], vectors_ND[test]


def learn(side: str, table: Table) -> Result:
    """Learn one of our sides or scikit-learn's, and keep what it answers."""
    train, test, train_ND, test_ND = sides(table)
    machine, start, used = Machine(engines={}), time.perf_counter(), cpu()
    if side.startswith("fit"):
        report = side == "fit"
        bundle = fit(train, machine=machine, random_split=report, curve=report)
        took = time.perf_counter() - start, cpu() - used
        found = one_hot(bundle.answer(test, machine=machine))
    elif side == "probe":
        predictor = Probe().fit(train, None, machine, 0)
        took = time.perf_counter() - start, cpu() - used
        found = predictor.predict(test, machine)
    else:
        heads = Regression("all", "balanced" if side == "balanced" else None).fit(train, train_ND)
        took = time.perf_counter() - start, cpu() - used
        found = predict(heads, test, test_ND)
    found.save(home() / f"{side}.parquet")
    return {"side": side, "wall": took[0], "cpu": took[1], "peak_mb": peak_megabytes()}


def pairs(train: Catalog, test: Catalog) -> list[Result]:
    """Return what is to be learnt, one entry a pair with two values or more."""
    found: list[Result] = []
    for category in train.present:
        rows, asked = train.rows(category), test.rows(category)
        for a, choice in enumerate(train.taxonomy.choices(category)):
            label_n = train.labels(category)[:, a]
            stated, kinds = label_n >= 0, np.unique(label_n[label_n >= 0])
            if len(kinds) > 1 and len(rows) >= counted_cells(train)["min_rows"]:
                pair = {
                    "pair": f"{category} / {choice.name}",
                    "train": rows[stated].tolist(),
                    "test": asked.tolist(),
                }
                problem = "binary" if len(kinds) == 2 else "multiclass"
                found.append({**pair, "labels": label_n[stated].tolist(), "problem": problem})
    return found


def other(tool: str, table: Table, python: Path, limit: float, first: int) -> Path:
    """Let AutoGluon or Ludwig learn and answer every pair, or the first few; return the file of its lines."""
    train, test, train_ND, test_ND = sides(table)
    folder, out = home() / "arrays", home() / f"{tool}-{limit:g}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "vectors.npz", train=train_ND, test=test_ND)
    (folder / "pairs.json").write_text(json.dumps(pairs(train, test)))
    command = [str(python), str(HERE / "rival_pairs.py"), "--tool", tool, "--folder", str(folder)]
    command += ["--out", str(out), "--limit", str(limit), "--first", str(first)]
    subprocess.run(command, check=True)
    return out


def answered(lines: Sequence[Mapping[str, Any]], train: Catalog, test: Catalog) -> Predictions:
    """Return AutoGluon's answers as predictions that are sure; of pairs it was not asked, nothing."""
    said = {line["pair"]: line["answers"] for line in lines}
    blocks = []
    for category in test.present:
        probs_nV = uniform(test.taxonomy, category, len(test.rows(category)))
        slices = test.taxonomy.slices(category)
        for choice, part in zip(test.taxonomy.choices(category), slices, strict=True):
            answers = said.get(f"{category} / {choice.name}")
            if answers is not None:
                probs_nV[:, part] = np.eye(part.stop - part.start, dtype=np.float32)[answers]
        blocks.append(Block(category, test.rows(category), probs_nV))
    return Predictions(test.taxonomy, test.ids, tuple(blocks))


def scored(found: Mapping[str, Predictions], table: Table) -> dict[str, Result]:
    """Score every side, and what ``fit`` scores less it."""
    rows = table.folds.test(FOLD)
    truth, group = table.catalog.select(rows), table.groups[rows]
    counted, out = counted_cells(truth), {}
    for name, each in found.items():
        report = evaluate(each, truth, groups=group, bootstrap=BOOTSTRAP, **counted)
        lines = {line.metric: line for line in report.lines if line.level == "overall"}
        line = lines["harmonic_f1"]
        result: Result = {
            "score": [line.score, line.low, line.high],
            "micro_f1": lines["micro_f1"].score,
            "macro_f1": lines["macro_f1"].score,
        }
        if name != "fit" and "fit" in found:
            entries = [(name, each), ("fit", found["fit"])]
            gain = compare(entries, truth, groups=group, bootstrap=BOOTSTRAP, **counted).overall()
            result["fit_less_it"] = [gain.difference, gain.low, gain.high]
        out[name] = result
    return out


def at_length(table: Table, out: Path, found: Mapping[str, Predictions]) -> Result:
    """Compare the answers to a few pairs with those of all sides, pair by pair."""
    train, test, _, _ = sides(table)
    result: Result = {}
    for line in map(json.loads, out.read_text().splitlines()):
        every = {"itself": answered([line], train, test), **found}
        result[line["pair"]] = {"wall": line["wall"], "cpu": line["cpu"], "best": line["best"]}
        for name, each in every.items():
            lines = evaluate(each, test, bootstrap=0, **counted_cells(test)).lines
            result[line["pair"]][name] = next(
                x.score
                for x in lines
                if (x.level, x.metric) == ("attribute", "harmonic_f1")
                and f"{x.category} / {x.attribute}" == line["pair"]
            )
    return result


def main(
    quick: bool = False,
    autogluon_python: Path | None = None,
    limit: float = 15.0,
    long_limit: float = 0.0,
    ludwig_python: Path | None = None,
    few: int = 3,
) -> Result:
    result: Result = {"benchmark": "rivals"}
    if not (DATA / "fashion" / "catalog.csv").exists():
        return {**result, "skipped": f"{DATA / 'fashion'} is not there"}
    home().mkdir(parents=True, exist_ok=True)
    log = home() / "sides.jsonl"
    done = (
        {line["side"]: line for line in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    )
    for side in ("probe", "balanced") if quick else SIDES:
        if side not in done:
            command = [sys.executable, __file__, "--side", side]
            child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            done[side] = json.loads(child.stdout.splitlines()[-1])
            with log.open("a") as file:
                file.write(json.dumps(done[side]) + "\n")
            print(f"{side}: {done[side]}", file=sys.stderr, flush=True)
    table = Table.read("fashion")
    found = {side: Predictions.load(home() / f"{side}.parquet") for side in done}
    if autogluon_python is not None:
        train, test, _, _ = sides(table)
        short = other("autogluon", table, autogluon_python, limit, 0)
        lines = [json.loads(line) for line in short.read_text().splitlines()]
        found["autogluon"] = answered(lines, train, test)
        sums = {key: sum(line[key] for line in lines) for key in ("wall", "cpu", "mb")}
        done["autogluon"] = {"side": "autogluon", **sums, "pairs": len(lines)}
        done["autogluon"] |= {"limit": limit, "peak_mb": max(line["peak_mb"] for line in lines)}
        if "fit" in done:
            result["ratio_time"] = sums["wall"] / done["fit"]["wall"]
            result["ratio_cpu"] = sums["cpu"] / done["fit"]["cpu"]
        if long_limit:
            out = other("autogluon", table, autogluon_python, long_limit, few)
            result["at_length"] = at_length(table, out, found)
    if ludwig_python is not None:
        out = other("ludwig", table, ludwig_python, 0.0, few)
        result["ludwig"] = at_length(table, out, found)
    scores = scored(found, table)
    answer: Result = rounded(result | {"sides": {name: done[name] | scores[name] for name in found}})
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="the recipe alone and balanced regression")
    parser.add_argument(
        "--autogluon-python", type=Path, help="the Python of an environment that has AutoGluon"
    )
    parser.add_argument("--limit", type=float, default=15.0, help="seconds of each of its predictors")
    parser.add_argument(
        "--long-limit", type=float, default=0.0, help="a few pairs once more with so many; 0 for none"
    )
    parser.add_argument("--ludwig-python", type=Path, help="the Python of an environment that has Ludwig")
    parser.add_argument("--few", type=int, default=3, help="how many pairs Ludwig and the long limit get")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    alone = given.pop("side")
    if alone is not None:
        print(json.dumps(learn(alone, Table.read("fashion"))))
    else:
        print(json.dumps(main(**given)))
