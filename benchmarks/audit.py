"""Planted errors: how early the audit ranks them, against cleanlab's two published scores.

5 % of the stated values of every attribute are replaced, at random or by the value the model most often
confuses with the right one (told by a clean cross-fit). The default recipe is cross-fitted on the damaged
labels, near-duplicate groups kept whole, and every stated cell is ranked. All scores see the same calibrated
out-of-fold probabilities: our odds, cleanlab's self-confidence (the probability of what is stated) and its
normalised margin (that less the probability of the likeliest other value; Northcutt et al., 2021). ``raw``
gives both of theirs the probabilities before calibration as well. ``share`` is the share of the planted errors
among the first 5 % of cells; ``ratio_*`` our average precision over the better of theirs, the lowest over the
catalogues. ``text``: contradictions planted in titles and in cells of the same products' attributes, ranked in
one audit; the attribute's own cells are emptied where the text is planted.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score

from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.probe import Probe
from shelfwise.splits import Folds
from shelfwise.tables import escape_formulas
from shelfwise.trust.audit import Audit, audit
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.claims import learn_reader
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {"fashion": "fashion/catalog.csv", "myntra": "myntra/catalog.csv"}
#: Damage of other seeds was looked at while the ranking was chosen.
FIRST_SEED, SHARE = 3, 0.05
Confusions = Mapping[tuple[str, int], npt.NDArray[np.int64]]
Bools = npt.NDArray[np.bool_]


def read(path: Path) -> tuple[Catalog, npt.NDArray[np.int64]]:
    """Return a catalogue's categories with at least 100 rows, and its groups."""
    catalog = Catalog.read(path)
    big = [catalog.rows(name) for name in catalog.present if len(catalog.rows(name)) >= 100]
    catalog = catalog.select(np.sort(np.concatenate(big))).remembering()
    return catalog, near_duplicates(catalog, cache=cache_directory())


def confusions(predictions: Predictions, catalog: Catalog) -> Confusions:
    """Return, per pair and stated value, the other value that gets most of its products' probability."""
    found = {}
    for block in predictions.blocks:
        labels_nA = catalog.labels(block.category)[np.searchsorted(catalog.rows(block.category), block.rows)]
        for a, part in enumerate(catalog.taxonomy.slices(block.category)):
            probs = block.probs[:, part].astype(np.float64)
            mixed = np.zeros((probs.shape[1],) * 2) + 1e-9 * probs.mean(axis=0)
            known = labels_nA[:, a] >= 0
            np.add.at(mixed, labels_nA[known, a], probs[known])
            np.fill_diagonal(mixed, -1)
            found[block.category, a] = mixed.argmax(axis=1)
    return found


def damaged(catalog: Catalog, seed: int, confused: Confusions | None) -> tuple[Catalog, Bools]:
    """Return the catalogue with 5 % of its stated values replaced, and which cells (bool [N, J])."""
    rng = np.random.default_rng(seed)
    codes, changed = catalog.codes.copy(), np.zeros(catalog.codes.shape, bool)
    for category in catalog.present:
        rows = catalog.rows(category)
        columns = label_columns(catalog.taxonomy, category, catalog.schema.roles, catalog.layout)
        for a, choice in enumerate(catalog.taxonomy.choices(category)):
            stated = rows[codes[rows, columns[a]] >= 0]
            if len(choice.values) < 2 or not len(stated):
                continue
            at = rng.choice(stated, size=round(SHARE * len(stated)), replace=False)
            old = codes[at, columns[a]]
            slips = (old + rng.integers(1, len(choice.values), len(at))) % len(choice.values)
            codes[at, columns[a]] = slips if confused is None else confused[category, a][old]
            changed[at, columns[a]] = True
    return replace(catalog, codes=codes), changed


def calibrated(predictions: Predictions, catalog: Catalog, groups: Any, folds: Folds) -> Predictions:
    """Return calibrated probabilities, each fold's by a calibration fitted on the others."""
    return out_of_fold(Evidence.of(predictions, catalog, groups, folds.fold)).predictions()


def cleanlab_scores(predictions: Predictions, found: Audit) -> dict[str, npt.NDArray[np.float64]]:
    """Return cleanlab's two label quality scores of the audit's cells, negated: the higher, the more suspect."""
    stated = np.zeros(len(found))
    other = np.zeros(len(found))
    where = np.full(len(predictions), -1, np.int64)
    names = found.taxonomy.categories
    for code in np.unique(found.category).tolist():
        block = predictions.block(names[code])
        assert block is not None
        where[block.rows] = np.arange(len(block.rows))
        for a, part in enumerate(found.taxonomy.slices(names[code])):
            at = np.flatnonzero((found.category == code) & (found.attribute == a))
            probs = block.probs[where[found.row[at]], part].astype(np.float64)
            own = found.stated[at]
            stated[at] = probs[np.arange(len(at)), own]
            probs[np.arange(len(at)), own] = -1
            other[at] = probs.max(axis=1) if probs.shape[1] > 1 else 0
    return {"self_confidence": 1 - stated, "normalised_margin": (1 - (stated - other)) / 2}


def measured(truth: Bools, score: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return average precision, and the share of the truth among the first 5 %."""
    first = np.argsort(-score, kind="stable")[: round(SHARE * len(score))]
    return {
        "ap": float(average_precision_score(truth, score)),
        "share": float(truth[first].sum() / max(truth.sum(), 1)),
    }


def mean(rows: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Return the mean over seeds."""
    return {
        name: {key: round(float(np.mean([row[name][key] for row in rows])), 4) for key in rows[0][name]}
        for name in rows[0]
    }


def in_cells(
    catalog: Catalog, groups: Any, folds: Folds, seeds: Sequence[int], out: Path | None
) -> dict[str, Any]:
    """Damage cells, cross-fit on them, and rank."""
    machine, recipe = Machine(), Probe()
    clean = cross_fit(recipe, catalog, folds, machine=machine, out=out)
    confused = confusions(clean, catalog)
    result: dict[str, Any] = {}
    for kind, how in (("random", None), ("confusable", confused)):
        rows = []
        for seed in seeds:
            bad, changed = damaged(catalog, seed, how)
            raw = cross_fit(recipe, bad, folds, machine=machine, out=out)
            sure = calibrated(raw, bad, groups, folds)
            start = time.perf_counter()
            found = audit(sure, bad)
            result["audit_seconds"] = round(time.perf_counter() - start, 2)
            many = np.array([len(c.values) > 1 for _, c in catalog.taxonomy.pairs()])
            pair = _pair_numbers(catalog)[found.category, found.attribute]
            kept = many[pair]
            truth = changed[found.row, found.column]
            scores = {"ours": found.odds, **cleanlab_scores(sure, found)}
            scores |= {f"{name}_raw": score for name, score in cleanlab_scores(raw, found).items()}
            rows.append({name: measured(truth[kept], score[kept]) for name, score in scores.items()})
            print(catalog.source, kind, seed, rows[-1], file=sys.stderr, flush=True)
        result[kind] = mean(rows)
        ours, theirs = result[kind]["ours"]["ap"], [v["ap"] for k, v in result[kind].items() if k != "ours"]
        result[f"ratio_{kind}"] = round(ours / max(theirs), 4)
    return result | {"cells": int(kept.sum())}


def _pair_numbers(catalog: Catalog) -> npt.NDArray[np.int64]:
    """Return int64 [C, A], the position of each pair in the taxonomy's order."""
    names = catalog.taxonomy.categories
    most = max(len(catalog.taxonomy.choices(name)) for name in names)
    numbers, next_ = np.full((len(names), most), -1, np.int64), 0
    for code, name in enumerate(names):
        width = len(catalog.taxonomy.choices(name))
        numbers[code, :width] = np.arange(next_, next_ + width)
        next_ += width
    return numbers


def in_text(
    catalog: Catalog, groups: Any, folds: Folds, seeds: Sequence[int], out: Path | None
) -> dict[str, Any]:
    """Plant contradictions in titles and, in other products, in cells; rank all in one audit."""
    sure = calibrated(cross_fit(Probe(), catalog, folds, machine=Machine(), out=out), catalog, groups, folds)
    start = time.perf_counter()
    reader = learn_reader(catalog, groups)
    learnt = time.perf_counter()
    reader.read(catalog)
    result: dict[str, Any] = {
        "learn_seconds": round(learnt - start, 2),
        "read_seconds": round(time.perf_counter() - learnt, 2),
    }
    rows = []
    for seed in seeds:
        bad, cells, words = _planted(catalog, seed, {key for key, q in reader.quality.items() if q.used})
        found = audit(sure, bad, claims=reader.read(bad))
        name = np.array([name in cells for name in _cell_names(found)])
        said = np.array([name in words for name in _cell_names(found)])
        title = np.array([column == "title" for column in found.columns])[found.column]
        in_cell, in_title = name & ~found.in_words, said & found.in_words & title
        first = np.arange(len(found)) < round(SHARE * len(found))
        rows.append(
            {
                "cells": {
                    "ap": float(
                        average_precision_score(in_cell[~found.in_words], found.odds[~found.in_words])
                    ),
                    "share": float((in_cell & first).sum() / len(cells)),
                },
                "words": {
                    "ap": float(
                        average_precision_score(in_title[found.in_words], found.odds[found.in_words])
                    ),
                    "share": float((in_title & first).sum() / len(words)),
                    "read": float(in_title.sum() / len(words)),
                },
            }
        )
        print(catalog.source, "text", seed, rows[-1], file=sys.stderr, flush=True)
    return result | mean(rows)


def _cell_names(found: Audit) -> list[tuple[int, int]]:
    return list(zip(found.row.tolist(), found.attribute.tolist(), strict=True))


def _planted(
    catalog: Catalog, seed: int, usable: set[tuple[str, str]]
) -> tuple[Catalog, set[tuple[int, int]], set[tuple[int, int]]]:
    """Return the catalogue with 2.5 % wrong cells, and as many wrong words in titles beside emptied cells."""
    rng = np.random.default_rng(seed)
    codes, titles = catalog.codes.copy(), catalog.texts("title")
    cells: set[tuple[int, int]] = set()
    words: set[tuple[int, int]] = set()
    for category in catalog.present:
        rows = catalog.rows(category)
        columns = label_columns(catalog.taxonomy, category, catalog.schema.roles, catalog.layout)
        for a, choice in enumerate(catalog.taxonomy.choices(category)):
            stated = rows[codes[rows, columns[a]] >= 0]
            if len(choice.values) < 2 or not len(stated) or (category, choice.name) not in usable:
                continue
            at = rng.choice(stated, size=round(SHARE * len(stated)), replace=False)
            new = (codes[at, columns[a]] + rng.integers(1, len(choice.values), len(at))) % len(choice.values)
            half = len(at) // 2
            codes[at[:half], columns[a]] = new[:half]
            codes[at[half:], columns[a]] = -1
            cells |= {(int(row), a) for row in at[:half]}
            for row, code in zip(at[half:].tolist(), new[half:].tolist(), strict=True):
                said = f"{choice.values[code]} {choice.name.replace('_', ' ')}"
                titles[row] = f"{titles[row] or ''}, {said}"
                words.add((row, a))
    import polars as pl

    frame = escape_formulas(catalog.frame.with_columns(pl.Series("title", titles)), ("title",))
    return replace(catalog, codes=codes, frame=frame), cells, words


def main(
    quick: bool = False, tables: Sequence[str] = tuple(TABLES), seeds: int = 3, out: Path | None = None
) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "audit"}
    tables = ("myntra",) if quick else tables
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    chosen = range(FIRST_SEED, FIRST_SEED + (1 if quick else seeds))
    for name in tables:
        catalog, groups = read(DATA / TABLES[name])
        folds = catalog.folds(3 if quick else 5, groups=groups)
        part = out / name if out is not None else None
        result[name] = in_cells(catalog, groups, folds, chosen, part)
        if name == "fashion":
            result[name]["text"] = in_text(catalog, groups, folds, chosen, part)
    for kind in ("random", "confusable"):
        result[f"ratio_{kind}"] = min(result[name][f"ratio_{kind}"] for name in tables)
    result["share_random"] = min(result[name]["random"]["ours"]["share"] for name in tables)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one catalogue, three folds, one seed")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    parser.add_argument("--seeds", type=int, default=3, help="how many times to damage the labels")
    parser.add_argument("--out", type=Path, help="keep finished folds here, and go on from them")
    print(json.dumps(main(**vars(parser.parse_args()))))
