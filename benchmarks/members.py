"""What a second member is worth against how differently it errs and what it costs.

Of finished rows of ``approaches``, for every pair, out of fold over grouped folds: the correlation of their errors
(phi, over labelled cells), the harmonic F1 of the most probable value of each and of the mean of their probabilities,
the paired difference to the better one with a 95 % interval over groups, and the cost of the second one beside that of
the first: CPU seconds of a fit, and of answering a thousand photos.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from approach_rows import ROWS
from approaches import DATA, TABLES, Table, read, rounded
from shelfwise.catalog import Catalog
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.predictions import Block, Predictions
from shelfwise.recipes.blend import blend

MEMBERS = (
    "lite0, own heads",
    "lite2, own and shared heads",
    "lite0, 15 votes",
    "lite0, MLP heads",
    "shared MLP heads",
    "background cut out",
    "perceptual hash, 15 votes",
)


def wrong(found: Predictions, catalog: Catalog) -> npt.NDArray[np.bool_]:
    """Return which labelled cells the most probable value gets wrong, category by category."""
    parts = []
    for category in catalog.present:
        block, labels_nA = found.block(category), catalog.labels(category)
        if block is None:
            parts.append(np.ones(int((labels_nA >= 0).sum()), bool))
            continue
        full_nV = np.zeros((len(labels_nA), block.probs.shape[1]), np.float32)
        full_nV[np.searchsorted(catalog.rows(category), block.rows)] = block.probs
        for a, part in enumerate(catalog.taxonomy.slices(category)):
            stated = labels_nA[:, a] >= 0
            if stated.any():
                parts.append(full_nV[stated, part].argmax(axis=1) != labels_nA[stated, a])
    return np.concatenate(parts)


def one(table: Table, names: Sequence[str], bootstrap: int) -> list[dict[str, Any]]:
    """Measure every pair of one catalogue."""
    costs, catalog, counted = read(table.name), table.catalog, counted_cells(table.catalog)
    said = {name: Predictions.load(table.kept(ROWS[name], "found")) for name in names if name in costs}
    errors = {name: wrong(found, catalog) for name, found in said.items()}
    scores = {name: evaluate(found, catalog, bootstrap=0, **counted).score for name, found in said.items()}
    lines = []
    for pair in combinations(said, 2):
        first, second = sorted(pair, key=lambda name: -scores[name])
        mixed = blend([said[first], said[second]])
        mixed = Predictions(
            mixed.taxonomy,
            mixed.ids,
            tuple(Block(b.category, b.rows, b.probs) for b in mixed.blocks),
            mixed.errors,
        )
        entries = [(first, said[first]), ("both", mixed)]
        gain = compare(entries, catalog, groups=table.groups, bootstrap=bootstrap, **counted).overall()
        lines.append(
            {
                "better": first,
                "other": second,
                "scores": [scores[first], scores[second], gain.score],
                "correlation": float(np.corrcoef(errors[first], errors[second])[0, 1]),
                "gain": [gain.difference, gain.low, gain.high],
                "fit_cpu": [costs[first]["fit_cpu"], costs[second]["fit_cpu"]],
                "cpu_a_thousand": [1000 / costs[name]["photos_per_core_second"] for name in (first, second)],
            }
        )
    return sorted(lines, key=lambda line: -line["gain"][0])


def main(quick: bool = False, tables: Sequence[str] = tuple(TABLES)) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "members"}
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    tables = tables[:1] if quick else tables
    names = MEMBERS[:2] if quick else MEMBERS
    answer: dict[str, Any] = rounded(
        result | {name: one(Table.read(name), names, 200 if quick else 1000) for name in tables}
    )
    return answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one catalogue, one pair")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    print(json.dumps(main(**vars(parser.parse_args()))))
