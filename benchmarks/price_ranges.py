"""Prices out of fold: the point against exp(mean log), what ranges hold, and how early planted errors are ranked.

A recipe is cross-fitted over near-duplicate groups; its distributions are calibrated fold by fold on the others.

- ``point``: SMAPE of the point that minimises its expectation, and of ``exp(mean log)`` of the same calibrated
  distributions; the difference with its paired 95 % interval over groups (below 0: our point is better).
- ``coverage``: share of the stated prices in the range that is to hold 90 %, by rows, with its interval; ``raw`` that
  of the range as the recipe predicted it; ``width`` how many times its low end the high end is (geometric mean).
- ``audit``: 2 % of the stated prices are multiplied or divided by ten, everything is fitted again on them, and all
  stated prices are ranked: the share of the planted ones in the first 5 %, mean and lowest of the draws.
  ``outside`` ranks by how far out a price lies alone. ``found`` and ``right``: the share of planted errors among the
  findings, and the share of the findings that were planted.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.amounts import AmountEvidence, Amounts
from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate_amounts import compare_amounts, evaluate_amounts
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES
from shelfwise.splits import Folds
from shelfwise.trust.amount_rule import amounts_out_of_fold, range_of
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.mispriced import audit_numbers, mispriced, outside

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = ("fashion", "flipkart")
NAME, COVERAGE, PLANTED, FIRST = "price", 0.9, 0.02, 0.05
#: Damage of other seeds was looked at while the ranking was chosen.
FIRST_SEED = 1000
Bools = npt.NDArray[np.bool_]


def gathered(
    recipe: Any, catalog: Catalog, groups: Any, folds: Folds, out: Path | None = None
) -> AmountEvidence:
    """Return the recipe's distributions out of fold, beside what is stated."""
    machine = Machine(cache=cache_directory())
    predictions = cross_fit(recipe, catalog, folds, machine=machine, seed=0, out=out)
    found = Evidence.of(predictions, catalog, groups, folds.fold)
    return next(item for item in found.amounts if item.name == NAME)


def calibrated(evidence: AmountEvidence, catalog: Catalog, metric: str = "smape") -> tuple[Amounts, Any]:
    number = catalog.taxonomy.number(NAME)
    return amounts_out_of_fold(evidence, number, metric=metric, coverage=COVERAGE)


def point_and_coverage(
    evidence: AmountEvidence, catalog: Catalog, groups: Any, bootstrap: int
) -> dict[str, Any]:
    """Measure the point and the ranges of one cross-fit."""
    number = catalog.taxonomy.number(NAME)
    amounts, ours = calibrated(evidence, catalog)
    _, plain = calibrated(evidence, catalog, "log")
    entries = [("exp mean log", [plain]), ("ours", [ours])]
    overall = compare_amounts(entries, catalog, groups=groups, bootstrap=bootstrap)[0]
    lines = evaluate_amounts([ours], catalog, groups=groups, bootstrap=bootstrap)
    line = {item.metric: item for item in lines if item.level == "overall"}
    stated_n = evidence.truth
    low_n, high_n = range_of(evidence.amounts(), number, COVERAGE)
    known = ~np.isnan(stated_n)
    spreads = {
        f"{share:g}": np.mean(_inside(range_of(amounts, number, share), stated_n)[known])
        for share in (0.5, 0.8, 0.95)
    }
    return {
        "smape": _shown(line["smape"].score),
        "smape_log": _shown(overall.first),
        "difference": _shown(overall.difference),
        "difference_interval": [_shown(overall.low), _shown(overall.high)],
        "verdict": overall.verdict,
        "coverage": _shown(line["coverage"].score),
        "coverage_interval": [_shown(line["coverage"].low), _shown(line["coverage"].high)],
        "coverage_raw": _shown(np.mean(_inside((low_n, high_n), stated_n)[known])),
        "coverage_at": {share: _shown(found) for share, found in spreads.items()},
        "width": _shown(line["width"].score),
        "bands": {
            str(item.value): [_shown(item.score), item.support]
            for item in lines
            if item.level == "band" and item.metric == "smape"
        },
    }


def damaged(catalog: Catalog, seed: int) -> tuple[Catalog, Bools]:
    """Return the catalogue with some prices multiplied or divided by ten, and which rows (bool [N])."""
    rng = np.random.default_rng(seed)
    stated_N, wrong_N = catalog.numbers(NAME).copy(), np.zeros(len(catalog), bool)
    known = np.flatnonzero(~np.isnan(stated_N))
    at = rng.choice(known, size=round(PLANTED * len(known)), replace=False)
    stated_N[at] *= 10.0 ** rng.choice([-1, 1], len(at))
    wrong_N[at] = True
    cells = [f"{stated:.10g}" if wrong else None for stated, wrong in zip(stated_N, wrong_N, strict=True)]
    column = pl.Series(NAME, cells, dtype=pl.String)
    frame = catalog.frame.with_columns(pl.coalesce(column, pl.col(NAME)).alias(NAME))
    return replace(catalog, frame=frame), wrong_N


def audited(evidence: AmountEvidence, catalog: Catalog, wrong_N: Bools) -> dict[str, float]:
    """Rank the prices of a damaged catalogue."""
    number = catalog.taxonomy.number(NAME)
    amounts, _ = calibrated(evidence, catalog)
    stated_N = catalog.numbers(NAME)
    known = ~np.isnan(evidence.truth)
    wrong_n = wrong_N[evidence.rows[known]]
    result = {}
    for name, score_n in (
        ("share", mispriced(amounts.quantiles, evidence.truth, number)),
        ("outside", np.abs(outside(amounts.quantiles, evidence.truth, number))),
    ):
        first = np.argsort(-score_n[known], kind="stable")[: round(FIRST * known.sum())]
        result[name] = float(wrong_n[first].sum() / wrong_n.sum())
    found = audit_numbers(amounts, number, stated_N, catalog.ids).findings()
    rows = [item.row - 1 for item in found if item.row is not None]
    result["found"] = float(wrong_N[rows].sum() / wrong_N.sum())
    result["right"] = float(wrong_N[rows].mean()) if rows else float("nan")
    return result


def _inside(ends: tuple[Any, Any], stated_n: Any) -> Bools:
    return np.asarray((ends[0] <= stated_n) & (stated_n <= ends[1]))


def _shown(value: Any) -> float:
    return round(float(value), 4)


def summary(draws: list[dict[str, float]]) -> Mapping[str, float]:
    found = {name: _shown(np.nanmean([draw[name] for draw in draws])) for name in draws[0]}
    return {**found, "lowest": _shown(min(draw["share"] for draw in draws)), "draws": len(draws)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", choices=TABLES, action="append")
    parser.add_argument("--recipe", default="boost")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20, help="0 leaves the audit out")
    parser.add_argument("--bootstrap", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="keep finished folds here, and go on after them")
    options = parser.parse_args()
    registry = REGISTRIES["recipe"]
    recipe = registry.build(registry.spec(options.recipe))
    result: dict[str, Any] = {"benchmark": "price_ranges", "recipe": options.recipe}
    for table in options.table or TABLES:
        catalog = Catalog.read(DATA / table / "catalog.csv").only("numbers").remembering()
        groups = near_duplicates(catalog, cache=cache_directory())
        folds = catalog.folds(options.folds, groups=groups, seed=0)
        evidence = gathered(recipe, catalog, groups, folds, options.out)
        measured = point_and_coverage(evidence, catalog, groups, options.bootstrap)
        print(table, json.dumps(measured), file=sys.stderr)
        draws = []
        for draw in range(options.draws):
            wrong, wrong_N = damaged(catalog, FIRST_SEED + draw)
            draws.append(audited(gathered(recipe, wrong, groups, folds, options.out), wrong, wrong_N))
            print(table, draw, json.dumps(draws[-1]), file=sys.stderr)
        result[table] = {**measured, **({"audit": summary(draws)} if draws else {})}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
