"""What texts are worth as a second input of Choice attributes: the default recipe with and without them.

Five folds, near-duplicate groups kept whole; answers decided for harmonic F1, calibration and decision cross-fitted
over the same folds; differences to photos alone are paired, with 95 % intervals over groups (``shelfwise.compare``).
On flipkart the text is title and brand, or everything that is written; on fashion the title, and only attributes
count that were not mined from texts. ``half``: every second product has no text, in training and afterwards.
``spelt_out`` is how many labelled cells have their value named in the text: of myntra that is all that is measured, as
its titles name the labels.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.files import cache_directory
from shelfwise.predictions import Predictions
from shelfwise.recipes.probe import Probe
from shelfwise.roles import Columns
from shelfwise.splits import Folds
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.spelt import spelt_out

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
#: Attributes that are left out, and the text columns that are read, by what they are called; none for all.
LEFT_OUT = {
    "fashion": ("description", "sleeve", "neck", "waist", "fit", "material"),
    "flipkart": (),
    "myntra": (),
}
TEXTS: dict[str, dict[str, tuple[str, ...]]] = {
    "flipkart": {"title and brand": ("title", "brand"), "all texts": ()},
    "fashion": {"title": ("title",)},
    "myntra": {"title": ("title",)},
}
TABLES = tuple(TEXTS)


def read(name: str, texts: Sequence[str]) -> Catalog:
    """Read a catalogue with some of its text columns; of the others nothing is learnt."""
    path, left_out = DATA / name / "catalog.csv", LEFT_OUT[name]
    every = Catalog.read(path, columns=Columns(ignore=left_out))
    others = tuple(column for column in every.text_columns if texts and column not in texts)
    catalog = Catalog.read(path, columns=Columns(ignore=(*left_out, *others)))
    return catalog.only("choices") if catalog.schema.roles.numbers else catalog


def half(catalog: Catalog) -> Catalog:
    """Return the same products, every second one without text."""
    kept = pl.Series([zlib.crc32(id_.encode()) % 2 == 0 for id_ in catalog.ids])
    blank = [pl.when(kept).then(pl.col(column)).alias(column) for column in catalog.text_columns]
    return replace(catalog, frame=catalog.frame.with_columns(blank))


def decided(found: Predictions, catalog: Catalog, groups: Any, folds: Folds) -> tuple[Answers, Predictions]:
    """Return answers and calibrated probabilities, each row's by what was fitted without its fold."""
    evidence = Evidence.of(found, catalog, groups, folds.fold)
    answers = decided_out_of_fold(evidence, "harmonic_f1")
    return replace(answers, errors={**answers.errors, **found.errors}), out_of_fold(evidence).predictions()


def one(name: str, bootstrap: int) -> dict[str, Any]:
    """Measure one catalogue."""
    result: dict[str, Any] = {}
    entries: list[tuple[str, Answers]] = []
    probabilities: dict[str, Predictions] = {}
    for at, (what, texts) in enumerate(TEXTS[name].items()):
        catalog = read(name, texts)
        found = [each for each in spelt_out(catalog) if each.named]
        result[f"spelt_out {what}"] = {
            f"{each.column} -> {each.attribute}": round(each.share, 3) for each in found
        }
        if name == "myntra":
            return result
        if not entries:
            groups = near_duplicates(catalog, cache=cache_directory())
            folds = catalog.folds(5, groups=groups)
        runs: list[tuple[str, Catalog, Probe]] = [] if at else [("photo", catalog, Probe())]
        runs.append((f"photo and {what}", catalog, Probe(choice_inputs=("image", "text"))))
        runs.append((what, catalog, Probe(choice_inputs=("text",))))
        if not at:
            runs.append((f"photo and {what}, half", half(catalog), Probe(choice_inputs=("image", "text"))))
        for label, table, recipe in runs:
            answers, sure = decided(cross_fit(recipe, table, folds), catalog, groups, folds)
            entries.append((label, answers))
            probabilities[label] = sure
            print(f"{name}: {label}", file=sys.stderr, flush=True)
    counted = counted_cells(catalog)
    result |= {"rows": len(catalog), "groups": len(set(groups.tolist()))}
    for label, answers in entries:
        lines = evaluate(answers, catalog, bootstrap=0, **counted).lines
        score = {line.metric: round(line.score, 4) for line in lines if line.level == "overall"}
        loss = evaluate(probabilities[label], catalog, bootstrap=0, **counted).lines
        score |= {
            line.metric: round(line.score, 4)
            for line in loss
            if line.metric == "log_loss" and line.level == "overall"
        }
        result[label] = {key: score[key] for key in ("harmonic_f1", "accuracy", "log_loss")}
    for metric in ("harmonic_f1", "accuracy"):
        differences = compare(
            entries, catalog, groups=groups, metric=metric, bootstrap=bootstrap, **counted
        ).differences
        for d in differences:
            if d.level == "overall" or (d.level == "attribute" and metric == "harmonic_f1"):
                where = metric if d.level == "overall" else f"{d.category} / {d.attribute}"
                result.setdefault(f"{d.name} against photo", {})[where] = [
                    round(v, 4) for v in (d.difference, d.low, d.high)
                ]
    return result


def main(quick: bool = False, tables: Sequence[str] = TABLES) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "choice_text"}
    absent = [name for name in tables if not (DATA / name / "catalog.csv").exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / (absent or list(TABLES))[0]} is not there"}
    tables = [name for name in tables if name != "fashion"] if quick else tables
    return result | {name: one(name, 200 if quick else 1000) for name in tables}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="without the largest catalogue")
    parser.add_argument("--tables", nargs="*", default=TABLES, choices=TABLES)
    print(json.dumps(main(**vars(parser.parse_args()))))
