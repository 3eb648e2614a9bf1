"""Cross-fit: every row predicted by a model that has seen neither the row nor its near-duplicate group.

It does not know how a recipe learns, nor what the predictions are for.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.sources import check_unseen
from shelfwise.splits import Folds


def cross_fit(
    recipe: Recipe,
    catalog: Catalog,
    folds: Folds,
    *,
    machine: Machine | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    keep: npt.NDArray[np.bool_] | None = None,
) -> Predictions:
    """Predict every row by a model that was fitted without its fold.

    Args:
        recipe: how to learn.
        catalog: the products.
        folds: of this catalogue.
        machine: where to compute.
        seed: of the recipe.
        out: a folder for finished folds; run again with the same arguments, it goes on after the last one.
        keep: bool [N], learn from these rows only; all are predicted.

    Raises:
        PredictionError: folds of other products; or a bundle that the recipe learns from knows their labels.
    """
    if folds.ids != catalog.ids:
        raise PredictionError(f"the folds are of other products than {catalog.source}")
    from shelfwise.models.towers import one_thread

    check_unseen(recipe, catalog)
    machine, catalog = machine or Machine(), catalog.remembering()

    def part(fold: int) -> tuple[npt.NDArray[np.int64], Predictions]:
        train, test = folds.train(fold), folds.test(fold)
        train = train if keep is None else train[keep[train]]
        key = _fold_key(recipe, catalog, folds, fold, seed, train)
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


def _fold_key(
    recipe: Recipe, catalog: Catalog, folds: Folds, fold: int, seed: int, train: npt.NDArray[np.int64]
) -> str:
    """Everything a fold's predictions depend on: the recipe, labels, numbers, texts, the folds and the seed."""
    digest = hashlib.sha256()
    digest.update(
        json.dumps([recipe.table(), folds.fingerprint, fold, seed], sort_keys=True, default=str).encode()
    )
    digest.update(catalog.taxonomy.hash.encode())
    digest.update(train.tobytes())
    digest.update(catalog.codes.tobytes() + catalog.category.tobytes())
    digest.update("\x1f".join(str(path) for path in catalog.images).encode())
    for name in catalog.taxonomy.number_names:
        digest.update(catalog.numbers(name).tobytes())
    for name in catalog.text_columns:
        digest.update("\x1f".join(text or "" for text in catalog.texts(name)).encode())
    return digest.hexdigest()[:16]


def hold_out(
    recipe: Recipe,
    catalog: Catalog,
    split: Folds,
    *,
    machine: Machine | None = None,
    seed: int = 0,
    keep: npt.NDArray[np.bool_] | None = None,
) -> tuple[Predictor, Predictions]:
    """Fit on all rows but a holdout, fold 1 of ``split``; return the predictor and what it says of the holdout.

    Args: as in ``cross_fit``.

    Raises:
        PredictionError: a bundle that the recipe learns from knows the labels of the holdout.
    """
    check_unseen(recipe, catalog.select(split.test(1)))
    machine, train = machine or Machine(), split.train(1)
    train = train if keep is None else train[keep[train]]
    predictor = recipe.fit(catalog.select(train), None, machine, seed)
    return predictor, predictor.predict(catalog.select(split.test(1)), machine)
