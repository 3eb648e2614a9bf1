"""Catalog + Recipe -> Bundle: cross-fit, report, fit on everything.

It does not know how a recipe learns. What the report says is always out of fold: every row is
predicted by a model that has seen neither the row nor anything of its near-duplicate group.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import DataOptions, DecideOptions, RunOptions
from shelfwise.data.group import near_duplicates
from shelfwise.errors import CatalogError, PredictionError
from shelfwise.evaluate import evaluate
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions, Recipe
from shelfwise.recipes.probe import Probe
from shelfwise.report import Report
from shelfwise.splits import Folds

#: Categories and attributes that say something about quality: enough rows, more than one value.
MIN_ROWS, MIN_VALUES = 100, 2


def cross_fit(
    recipe: Recipe,
    catalog: Catalog,
    folds: Folds,
    *,
    machine: Machine | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> Predictions:
    """Predict every row by a model that was fitted without its fold.

    Args:
        recipe: how to learn.
        catalog: the products.
        folds: of this catalogue.
        machine: where to compute.
        seed: of the recipe.
        out: a folder for finished folds; run again with the same arguments, it goes on after the last one.

    Raises:
        PredictionError: folds of other products.
    """
    if folds.ids != catalog.ids:
        raise PredictionError(f"the folds are of other products than {catalog.source}")
    from shelfwise.models.towers import one_thread

    machine, catalog = machine or Machine(), catalog.remembering()

    def part(fold: int) -> tuple[npt.NDArray[np.int64], Predictions]:
        train, test = folds.train(fold), folds.test(fold)
        key = _fold_key(recipe, catalog, folds, fold, seed)
        saved = Path(out) / f"fold-{fold}-{key}.parquet" if out is not None else None
        if saved is not None and saved.exists():
            return test, Predictions.load(saved)
        predictor = recipe.fit(catalog.select(train), None, machine, seed)
        predictions = predictor.predict(catalog.select(test), machine)
        if saved is not None:
            predictions.save(saved)
        return test, predictions

    workers = min(folds.k, machine.jobs or os.cpu_count() or 1) if recipe.concurrent else 1
    with one_thread() if workers > 1 else nullcontext(), ThreadPoolExecutor(workers) as pool:
        parts = []
        for fold, done in enumerate(pool.map(part, range(folds.k)), start=1):
            parts.append(done)
            if machine.progress is not None:
                machine.progress("cross-fitting", fold, folds.k)
    return Predictions.join(parts, catalog.ids)


def _fold_key(recipe: Recipe, catalog: Catalog, folds: Folds, fold: int, seed: int) -> str:
    """Everything a fold's predictions depend on: the recipe, the labels, the folds and the seed."""
    digest = hashlib.sha256()
    digest.update(
        json.dumps([recipe.table(), folds.fingerprint, fold, seed], sort_keys=True, default=str).encode()
    )
    digest.update(catalog.taxonomy.hash.encode())
    digest.update(catalog.codes.tobytes() + catalog.category.tobytes())
    digest.update("\x1f".join(str(path) for path in catalog.images).encode())
    return digest.hexdigest()[:16]


def hold_out(
    recipe: Recipe, catalog: Catalog, split: Folds, *, machine: Machine | None = None, seed: int = 0
) -> Predictions:
    """Predict the rows of a holdout, fold 1 of ``split``, by a model fitted on the other rows."""
    machine = machine or Machine()
    predictor = recipe.fit(catalog.select(split.train(1)), None, machine, seed)
    return predictor.predict(catalog.select(split.test(1)), machine)


def fit(
    catalog: Catalog,
    recipe: Recipe | None = None,
    *,
    evidence: int | float = 5,
    metric: str = "harmonic_f1",
    seed: int = 0,
    machine: Machine | None = None,
    random_split: bool = True,
    run: RunOptions | None = None,
) -> Bundle:
    """Learn from a catalogue, and say what to expect on products nobody has seen.

    Args:
        catalog: the products with their stated values.
        recipe: how to learn; by default heads on frozen features of the embedded backbone.
        evidence: grouped folds (2 or more), or the share of a grouped holdout (below 1).
        metric: the metric the report leads with.
        seed: of folds and recipe; recorded.
        machine: where to compute.
        random_split: also score a plain random split, and say in the report how far it would have flattered.
        run: the run file this comes from, written into the bundle; by default one made of the arguments.

    Raises:
        CatalogError: no product with a readable picture and a label, or too few groups for the folds.
    """
    recipe = recipe or Probe()
    machine, catalog = machine or Machine(), catalog.remembering()
    if not any((catalog.codes >= 0).any(axis=1) & (catalog.category >= 0)):
        raise CatalogError(
            f"{catalog.source}: no product states a value of any attribute, so there is nothing to learn"
        )
    groups = near_duplicates(
        catalog, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    report = expected(
        recipe,
        catalog,
        groups,
        evidence=evidence,
        metric=metric,
        seed=seed,
        machine=machine,
        random_split=random_split,
    )
    numbers = catalog.schema.roles.numbers
    if numbers:
        report = report.with_notes(f"Numbers are read and kept but not learnt: {', '.join(numbers)}.")
    predictor = recipe.fit(catalog, None, machine, seed)
    if run is None:
        data = DataOptions(catalog=Path(catalog.source), evidence=evidence)
        run = RunOptions(
            seed=seed,
            data=data,
            recipe=recipe.table(),
            decide=DecideOptions.model_validate({"metric": metric}),
        )
    return Bundle(catalog.schema, recipe, predictor, report, run)


def expected(
    recipe: Recipe,
    catalog: Catalog,
    groups: npt.NDArray[np.int64],
    *,
    evidence: int | float,
    metric: str,
    seed: int,
    machine: Machine,
    random_split: bool,
) -> Report:
    """Score a recipe out of fold, and say how far a random split would have flattered it.

    Args:
        recipe: how to learn.
        catalog: the products.
        groups: int64 [N], near-duplicate groups.
        evidence, metric, seed, machine, random_split: as in ``fit``.
    """

    def scored(given: npt.NDArray[np.int64] | None, bootstrap: int) -> Report:
        if evidence >= 2:
            folds = catalog.folds(int(evidence), groups=given, seed=seed)
            found, truth, group = (
                cross_fit(recipe, catalog, folds, machine=machine, seed=seed),
                catalog,
                groups,
            )
            how = f"{folds.k} folds"
        else:
            folds = catalog.holdout(float(evidence), groups=given, seed=seed)
            found = hold_out(recipe, catalog, folds, machine=machine, seed=seed)
            truth, group = catalog.select(folds.test(1)), groups[folds.test(1)]
            how = f"a holdout of {len(truth)} products"
        counted = _counted(catalog)
        result = evaluate(
            found, truth, groups=group, metric=metric, bootstrap=bootstrap, seed=seed, **counted
        )
        if given is None:
            return result
        sizes = np.bincount(groups)
        note = (
            f"Expected on unseen products: {how}, near-duplicate groups kept whole "
            f"({len(sizes):,} groups over {len(catalog):,} products, the largest of {sizes.max():,}), seed {seed}, "
            f"split {folds.fingerprint[:12]}."
        )
        return result.with_notes(note)

    report = scored(groups, 1000)
    if random_split:
        random = scored(None, 0).score
        report = report.with_notes(
            f"A random split that ignores near-duplicates would have said {random:.3f}, "
            f"{random - report.score:+.3f} against the grouped one."
        )
    return report


def _counted(catalog: Catalog) -> dict[str, Any]:
    """Leave tiny categories and one-valued attributes out of the score, unless nothing else is there."""
    big = max((len(catalog.rows(name)) for name in catalog.present), default=0) >= MIN_ROWS
    return {"min_rows": MIN_ROWS, "min_values": MIN_VALUES} if big else {"min_values": MIN_VALUES}
