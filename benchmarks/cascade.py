"""A cascade's accuracy against its cost: probes on EfficientNet-Lite of three sizes, frozen, from cheap to dear.

Learnt on two thirds of a sample of the fashion catalogue, thresholds found out of fold inside them; then every point of
the frontier is run on the last third, near-duplicate groups kept whole. ``found`` is the accuracy that was found inside
the training products, ``accuracy`` what came of it on the others, ``random`` what as many products sent on at random
give (mean of five draws), ``ms`` the mean cost of a product as measured here. ``alone`` are the members by themselves.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import evaluate
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.cascade import Cascade, CascadePredictor, Step, pool

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
MEMBERS = (
    {"name": "probe", "backbone": {"name": "lite0", "size": 96}},
    {"name": "probe", "backbone": {"name": "lite0"}},
    {"name": "probe", "backbone": {"name": "lite2"}},
)
PRODUCTS, QUICK = 3000, 600
#: Points of the frontier that are run.
POINTS, DRAWS = 9, 5


def score(found: Predictions, catalog: Catalog) -> dict[str, float]:
    """Return the share of labelled cells that are right, and the challenge score."""
    report = evaluate(found, catalog, min_rows=20, min_values=2, bootstrap=0)
    wanted = {"cells_right": "accuracy", "harmonic_f1": "harmonic_f1"}
    return {
        wanted[line.metric]: round(line.score, 4)
        for line in report.lines
        if line.level == "overall" and line.metric in wanted
    }


def said_of(predictor: CascadePredictor, catalog: Catalog, machine: Machine) -> list[Predictions]:
    """Return what every member says of every product, calibrated."""
    return [
        step.calibration.apply(member.predict(catalog, machine))
        for member, step in zip(predictor.members, predictor.steps, strict=True)
    ]


def at_random(
    said: list[Predictions], shares: tuple[float, ...], names: tuple[str, ...], truth: Catalog
) -> float:
    """Return the accuracy where as many products go on, whichever they are."""
    found = []
    pooled = [pool(said[: j + 1], names[: j + 1]) for j in range(len(said))]
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(truth))
        ends = [*(round(share * len(truth)) for share in shares[1:]), 0]
        starts = [len(truth), *ends[:-1]]
        parts = [
            (np.sort(order[end:start]), pooled[j].select(np.sort(order[end:start])))
            for j, (start, end) in enumerate(zip(starts, ends, strict=True))
            if start > end
        ]
        found.append(score(Predictions.join(parts, truth.ids), truth)["accuracy"])
    return round(float(np.mean(found)), 4)


def main(quick: bool = False, products: int = 0) -> dict[str, Any]:
    path = DATA / "fashion" / "catalog.csv"
    result: dict[str, Any] = {"benchmark": "cascade"}
    if not path.is_file():
        return {**result, "skipped": f"{path} is not there"}
    catalog, machine = Catalog.read(path), Machine()
    rows = np.random.default_rng(0).permutation(len(catalog))[: products or (QUICK if quick else PRODUCTS)]
    catalog = catalog.select(np.sort(rows)).remembering()
    groups = near_duplicates(catalog, cache=cache_directory())
    train, test = catalog.split(1 / 3, groups=groups)
    recipe = Cascade(members=MEMBERS[:2] if quick else MEMBERS, folds=3 if quick else 5)
    predictor = recipe.fit(train, None, machine, 0)
    print(predictor.learnt[0], file=sys.stderr, flush=True)
    said, names = said_of(predictor, test, machine), recipe.names
    result |= {"learnt_from": len(train), "asked_of": len(test)}
    result["alone"] = {name: score(each, test) for name, each in zip(names, said, strict=True)}
    result["all"] = score(pool(said, names), test)
    costs = predictor.costs
    result["ms_by_member"] = [round(cost, 2) for cost in costs]
    shown = np.unique(np.linspace(0, len(predictor.points) - 1, POINTS).round().astype(int)).tolist()
    result["frontier"] = []
    for point in (predictor.points[at] for at in shown):
        thresholds = (*point.thresholds, predictor.steps[-1].threshold)
        steps = tuple(
            Step(step.calibration, threshold)
            for step, threshold in zip(predictor.steps, thresholds, strict=True)
        )
        way = CascadePredictor(recipe, predictor.taxonomy, predictor.members, steps)
        shares = tuple(count / len(test) for count in way.asked(test, machine))
        line = {
            "shares": [round(share, 3) for share in shares],
            "ms": round(float(np.dot(shares, costs)), 2),
            "found": round(point.accuracy, 4),
            **score(way.predict(test, machine), test),
            "random": at_random(said, shares, names, test),
        }
        result["frontier"].append(line)
        print(line, file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="two members, few products")
    parser.add_argument("--products", type=int, default=0, help="so many products of the catalogue")
    print(json.dumps(main(**vars(parser.parse_args()))))
