"""Blending: several bundles, and a table to weigh them on, into one bundle of bundles.

It does not know how the bundles learnt. No weight is judged on the products it was found on, and no bundle on
products it has learnt from: its evidence stands in for those.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.config import DataOptions, DecideOptions, RunOptions
from shelfwise.data.group import near_duplicates
from shelfwise.errors import CatalogError, UsageError
from shelfwise.expect import expect_of
from shelfwise.files import cache_directory
from shelfwise.plaintext import text_table
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.blend import blend, blend_weights
from shelfwise.recipes.ensemble import Ensemble, EnsemblePredictor
from shelfwise.recipes.held import Held, HeldPredictor, read_held
from shelfwise.recipes.remapped import Remapped
from shelfwise.recipes.sides import check_taxonomies
from shelfwise.roles import Columns
from shelfwise.splits import Folds

#: Folds that weights, calibration and decision are cross-fitted over.
FOLDS = 5


def blend_bundles(
    paths: Sequence[Path],
    table: Any,
    *,
    images: Path | None = None,
    columns: Columns | None = None,
    metric: str | None = None,
    seed: int = 0,
    machine: Machine | None = None,
) -> tuple[Bundle, Catalog]:
    """Weigh bundles on a table and put them together.

    A product that a bundle learnt from is judged by the bundle's own evidence, which is of models that had not seen
    its group; one that it learnt from and has no evidence of is left out with its whole near-duplicate group.

    Args:
        paths: of two bundles or more.
        table: products with stated values.
        images: the image folder.
        columns: overrides of the columns' roles.
        metric: what answers are decided for and weights are best for; by default that of the first bundle.
        seed: of folds and bootstrap.
        machine: where to compute.

    Returns:
        The bundle, and the table as it was read.

    Raises:
        UsageError: fewer than two bundles.
        PredictionError: they have different taxonomies.
        CatalogError: no labelled product of the table is left to weigh them on.
    """
    if len(paths) < 2:
        raise UsageError("blend needs two bundles or more: shelfwise blend A B --on TABLE -o OUT")
    machine, names = machine or Machine(), [str(path) for path in paths]
    first = load(paths[0])
    own = HeldPredictor(paths[0], first.taxonomy, first.predictor, first.rule)
    members = (own, *(read_held(path) for path in paths[1:]))
    check_taxonomies([member.taxonomy for member in members], names)
    catalog = first.read(table, images=images, columns=columns)
    groups = near_duplicates(
        catalog, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    said, kept = _fair(members, catalog, groups, machine)
    judged, group_N = catalog.select(kept), groups[kept]
    if not (judged.labelled | judged.numbered).any():
        raise CatalogError(
            f"{catalog.source}: no product is left to weigh the bundles on: {len(catalog):,} products, "
            f"{len(catalog) - len(kept):,} of them learnt from and in no evidence, or near-duplicates of such; "
            "give --on a table with products and stated values that the bundles have not learnt from"
        )
    metric = metric or first.run.decide.metric
    parts = min(FOLDS, len(np.unique(group_N)))
    if parts < 2:
        raise CatalogError(
            f"{catalog.source}: one group of near-duplicates is too little to weigh bundles on"
        )
    folds = judged.folds(parts, groups=group_N, seed=seed)
    blended = _blended_out_of_fold(said, judged, group_N, folds, metric, names)
    found = expect_of(blended, judged, group_N, folds, metric=metric, seed=seed, aim=first.run.decide.aim)
    recipe = Ensemble(members=tuple(Held(bundle=path) for path in paths), metric=metric)
    weights = blend_weights(said, judged, metric=metric, groups=group_N, names=names)
    predictor = EnsemblePredictor(recipe, first.taxonomy, members, weights)
    rules = [member.rule for member in members if member.rule is not None]
    rule = replace(
        found.rule,
        untrained=frozenset.intersection(*(r.untrained for r in rules)) if rules else frozenset(),
        untrained_values=frozenset.intersection(*(r.untrained_values for r in rules))
        if rules
        else frozenset(),
    )
    left_out = len(catalog) - len(judged)
    report = found.report.with_notes(
        f"A blend of {len(members)} bundles, weighed on {len(judged):,} products of {catalog.source}; their weights "
        "are cross-fitted over the same groups."
        + (f" {left_out:,} products that one has learnt from were left out." if left_out else "")
    )
    decide = DecideOptions.model_validate({**first.run.decide.table(), "metric": metric})
    data = DataOptions(catalog=Path(catalog.source), images=images, evidence=parts)
    run = RunOptions(seed=seed, data=data, recipe=recipe.table(), decide=decide)
    bundle = Bundle(
        first.schema, recipe, predictor, report, run, found.evidence, rule, first.index, first.claims
    )
    return bundle, catalog


def _fair(
    members: Sequence[HeldPredictor], catalog: Catalog, groups: Any, machine: Machine
) -> tuple[list[Predictions], Any]:
    """What every member says of the products that all can be judged on, and their positions."""
    found = [member.out_of_fold(catalog, machine) for member in members]
    fair_N = np.logical_and.reduce([fair for _, fair in found])
    kept = np.flatnonzero(~np.isin(groups, groups[~fair_N]))
    return [predictions.select(kept) for predictions, _ in found], kept


def _blended_out_of_fold(
    said: Sequence[Predictions],
    catalog: Catalog,
    groups: Any,
    folds: Folds,
    metric: str,
    names: Sequence[str],
) -> Predictions:
    """Blend every fold with the weights found on the others."""
    parts = []
    for fold in range(folds.k):
        train, test = folds.train(fold), folds.test(fold)
        weights = blend_weights(
            [p.select(train) for p in said],
            catalog.select(train),
            metric=metric,
            groups=groups[train],
            names=names,
        )
        parts.append((test, blend([p.select(test) for p in said], weights, names=names)))
    return Predictions.join(parts, catalog.ids)


def members_text(bundle: Bundle) -> str:
    """Say what the members of an ensemble are and how they are weighed; empty for any other bundle."""
    predictor = bundle.predictor.inner if isinstance(bundle.predictor, Remapped) else bundle.predictor
    if not isinstance(predictor, EnsemblePredictor):
        return ""
    recipe, lines = predictor.recipe, []
    for j, member in enumerate(recipe.members):
        options = ", ".join(f"{key} = {value!r}" for key, value in member.table().items() if key != "name")
        lines.append(f"member {j:02}: {getattr(member, 'name', '')} ({options})")
    if recipe.combine == "stack":
        return "\n".join([*lines, f"combined by stacking ({recipe.stacker})"]) + "\n"
    pooled = recipe.combine == "pool" and bundle.rule is not None
    rows = []
    for category, choice in predictor.taxonomy.pairs():
        weights = predictor.weights.of(category, choice.name)
        if pooled and bundle.rule is not None:
            weights = bundle.rule.calibration.of((category, choice.name)).opinions
        rows.append([category, choice.name, *(f"{weight:.2f}" for weight in weights)])
    width = max((len(row) for row in rows), default=2) - 2
    what = "member" if width == len(recipe.members) else "opinion"
    how = (
        "Exponents of the members' opinions, found by calibration:"
        if pooled
        else "Weights of the members' probabilities" + (", moved by the gate:" if predictor.combiner else ":")
    )
    header = ["category", "attribute", *(f"{what} {j:02}" for j in range(width))]
    padded = [row + [""] * (width + 2 - len(row)) for row in rows]
    return "\n".join([*lines, how, text_table(header, padded, left=2)]) + "\n"
