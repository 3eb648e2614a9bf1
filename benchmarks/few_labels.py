"""Retrieval against heads: by the number of labels an attribute has, and by how rare a value is; fashion.

Learnt from four of five grouped folds, asked of the fifth. Of every attribute of every category so many labels are
kept, drawn at random; rows without any are left out. Scored is the harmonic F1 of the most probable value, mean of the
draws and their standard deviation. ``by_frequency`` is the mean F1 of values by their share of an attribute's labels
(rare: below 5 %; medium: below 20 %), out of fold over all products, from the finished rows of ``approaches``.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from approach_rows import ROWS
from approaches import DATA, HEAVY_FOLD, TABLES, Table, rounded
from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.evaluate import evaluate
from shelfwise.expect import counted_cells
from shelfwise.predictions import Machine, Predictions, Recipe
from shelfwise.recipes.neighbours import Neighbours
from shelfwise.recipes.probe import Probe
from ways import FrozenHeads

LABELS = (10, 50, 200, 0)
#: What is learnt; 0 labels are all of them.
RECIPES: Mapping[str, Recipe] = {
    "1 vote": Neighbours(k=1),
    "15 votes": Neighbours(k=15),
    "15 votes by similarity": Neighbours(k=15, weighting="similarity"),
    "own heads": Probe(look_alikes=0.0, shared=False),
    "own and shared heads": Probe(look_alikes=0.0),
    "the default": Probe(),
    "shared MLP heads": FrozenHeads("shared", (("hidden", 64), ("dropout", 0.3)), batch=256, epochs=20),
}
#: Rows of ``approaches`` whose values are scored by frequency.
OUT_OF_FOLD = ("lite0, 1 vote", "lite0, 15 votes", "lite0, own heads", "the default probe")


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
    """Score every recipe for every number of labels."""
    machine = Machine(engines={})
    train = table.catalog.select(table.folds.train(HEAVY_FOLD))
    test = table.catalog.select(table.folds.test(HEAVY_FOLD))
    found: dict[str, Any] = {}
    for number in labels:
        for draw in range(draws if number else 1):
            few = with_few(train, number, draw)
            for name, recipe in RECIPES.items():
                said = recipe.fit(few, None, machine, draw).predict(test, machine)
                score = evaluate(said, test, bootstrap=0, **counted_cells(test)).score
                found.setdefault(str(number or "all"), {}).setdefault(name, []).append(score)
        means = {k: [float(np.mean(v)), float(np.std(v))] for k, v in found[str(number or "all")].items()}
        print(f"{number or 'all'}: {rounded(means)}", file=sys.stderr, flush=True)
        found[str(number or "all")] = means
    return found


def by_frequency(table: Table) -> dict[str, Any]:
    """Return the F1 of rare and frequent values, out of fold."""
    found: dict[str, Any] = {}
    for name in OUT_OF_FOLD:
        path = table.kept(ROWS[name], "found")
        if path.exists():
            lines = evaluate(
                Predictions.load(path), table.catalog, bootstrap=0, **counted_cells(table.catalog)
            ).lines
            found[name] = {
                str(x.value): x.score for x in lines if x.level == "frequency" and x.metric == "f1"
            }
    return found


def main(quick: bool = False, draws: int = 3, labels: Sequence[int] = LABELS) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "few_labels"}
    if not (DATA / TABLES["fashion"]).exists():
        return {**result, "skipped": f"{DATA / TABLES['fashion']} is not there"}
    if quick:
        draws, labels = 1, (10,)
    table = Table.read("fashion")
    answer: dict[str, Any] = rounded(
        result | {"by_number": by_number(table, labels, draws), "by_frequency": by_frequency(table)}
    )
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="ten labels, one draw")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--labels", type=int, nargs="*", default=LABELS, help="0 for all")
    print(json.dumps(main(**vars(parser.parse_args()))))
