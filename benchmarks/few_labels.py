"""Retrieval against heads: by the number of labels an attribute has, and by how rare a value is; fashion.

Learnt from four of five grouped folds, asked of the fifth. Of every attribute of every category so many labels are
kept, drawn at random; rows without any are left out. Scored is the harmonic F1 of the most probable value, mean of the
draws and their standard deviation; of the first draw the paired difference to votes by similarity, with a 95 % interval
over groups. ``by_frequency`` is the mean F1 of values by their share of an attribute's labels (rare: below 5 %; medium:
below 20 %), and the recall of all labels of rare ones, with its gain over votes and the ends of its interval, out of
fold over all products, from the finished rows of ``approaches``.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from approach_rows import ROWS
from approaches import DATA, HEAVY_FOLD, TABLES, Table, rounded
from claims import rare_gain
from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.predictions import Machine, Predictions, Recipe
from shelfwise.recipes.neighbours import Neighbours
from shelfwise.recipes.probe import Probe
from ways import FrozenHeads

LABELS, BOOTSTRAP = (10, 50, 200, 0), 500
#: What the others are compared with.
RETRIEVAL = "15 votes by similarity"
#: What is learnt; 0 labels are all of them.
RECIPES: Mapping[str, Recipe] = {
    RETRIEVAL: Neighbours(k=15, weighting="similarity"),
    "1 vote": Neighbours(k=1),
    "15 votes": Neighbours(k=15),
    "own heads": Probe(look_alikes=0.0, shared=False),
    "own and shared heads": Probe(look_alikes=0.0),
    "the default": Probe(),
    "shared MLP heads": FrozenHeads("shared", (("hidden", 64), ("dropout", 0.3)), batch=256, epochs=20),
}
#: Rows of ``approaches`` whose values are scored by frequency; the others are compared with the first.
OUT_OF_FOLD = ("lite0, 15 votes", "lite0, 1 vote", "lite0, own heads", "the default probe")


def with_few(train: Catalog, labels: int, draw: int) -> Catalog:
    """Return the rows with so many labels of every attribute, drawn at random; all of them for 0."""
    if not labels:
        return train.select(np.flatnonzero(train.labelled))
    rng, codes_NJ = np.random.default_rng(draw), train.codes.copy()
    for category in train.present:
        rows, labels_nA = train.rows(category), train.labels(category)
        columns = label_columns(train.taxonomy, category, train.schema.roles, train.layout)
        for a, column in enumerate(columns):
            stated = np.flatnonzero(labels_nA[:, a] >= 0)
            if column >= 0 and len(stated) > labels:
                codes_NJ[rows[rng.permutation(stated)[labels:]], column] = -1
    few = replace(train, codes=codes_NJ)
    return few.select(np.flatnonzero(few.labelled))


def by_number(table: Table, labels: Sequence[int], draws: int) -> dict[str, Any]:
    """Score every recipe for every number of labels, and compare each with votes by similarity."""
    machine = Machine(engines={})
    train = table.catalog.select(table.folds.train(HEAVY_FOLD))
    rows = table.folds.test(HEAVY_FOLD)
    test, group_n = table.catalog.select(rows), table.groups[rows]
    counted, answer = counted_cells(test), dict[str, Any]()
    for number in labels:
        found, gains, seconds = dict[str, list[float]](), dict[str, list[float]](), dict[str, float]()
        for draw in range(draws if number else 1):
            few, said = with_few(train, number, draw), dict[str, Predictions]()
            for name, recipe in RECIPES.items():
                begun = time.process_time()
                predictor = recipe.fit(few, None, machine, draw)
                seconds[name] = time.process_time() - begun
                said[name] = predictor.predict(test, machine)
                found.setdefault(name, []).append(evaluate(said[name], test, bootstrap=0, **counted).score)
                if not draw and name != RETRIEVAL and RETRIEVAL in said:
                    two = [(RETRIEVAL, said[RETRIEVAL]), (name, said[name])]
                    gain = compare(two, test, groups=group_n, bootstrap=BOOTSTRAP, **counted).overall()
                    gains[name] = [gain.difference, gain.low, gain.high]
        lines = {
            name: {"score": float(np.mean(each)), "sd": float(np.std(each)), "fit_cpu": seconds[name]}
            | ({"gain": gains[name]} if name in gains else {})
            for name, each in found.items()
        }
        print(f"{number or 'all'}: {rounded(lines)}", file=sys.stderr, flush=True)
        answer[str(number or "all")] = lines
    return answer


def by_frequency(table: Table) -> dict[str, Any]:
    """Return, out of fold, the F1 of rare and frequent values, and the recall of rare ones beside that of votes."""
    said = {name: table.kept(ROWS[name], "found") for name in OUT_OF_FOLD}
    known = {name: Predictions.load(path) for name, path in said.items() if path.exists()}
    counted, found = counted_cells(table.catalog), dict[str, Any]()
    for name, each in known.items():
        lines = evaluate(each, table.catalog, bootstrap=0, **counted).lines
        at = {str(x.value): x.score for x in lines if x.level == "frequency" and x.metric == "f1"}
        found[name] = {"f1": at}
        if OUT_OF_FOLD[0] in known:
            found[name]["rare"] = rare_gain([known[OUT_OF_FOLD[0]], each], table.catalog, table.groups)
    return found


def main(
    quick: bool = False, draws: int = 3, labels: Sequence[int] = LABELS, frequency: bool = False
) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "few_labels"}
    if not (DATA / TABLES["fashion"]).exists():
        return {**result, "skipped": f"{DATA / TABLES['fashion']} is not there"}
    if quick:
        draws, labels = 1, (10,)
    table = Table.read("fashion")
    if not frequency:
        result["by_number"] = by_number(table, labels, draws)
    answer: dict[str, Any] = rounded(result | {"by_frequency": by_frequency(table)})
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="ten labels, one draw")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="*", default=LABELS, help="0 for all")
    parser.add_argument("--frequency", action="store_true", help="only by how rare a value is")
    print(json.dumps(main(**vars(parser.parse_args()))))
