"""Catalog + Recipe -> Bundle: cross-fit, calibrate, decide, report, fit on everything.

It does not know how a recipe learns, nor how the expected score is found (``expect``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import DataOptions, DecideOptions, RunOptions, make_recipe
from shelfwise.data.group import near_duplicates
from shelfwise.errors import CatalogError, UsageError
from shelfwise.expect import expect
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Recipe
from shelfwise.recipes.index import learn_index
from shelfwise.recipes.several import Shown
from shelfwise.registry import REGISTRIES
from shelfwise.trust.claims import learn_reader, text_columns
from shelfwise.trust.costs import read_costs
from shelfwise.trust.spelt import spelt_out, spelt_out_notes


def _reads_text(table: Any) -> bool:
    """Whether a recipe's table, or one in it, has Choice attributes told from texts."""
    if isinstance(table, Mapping):
        return "text" in table.get("choice_inputs", ()) or any(map(_reads_text, table.values()))
    return isinstance(table, list | tuple) and any(map(_reads_text, table))


def default_recipe(catalog: Catalog) -> Recipe:
    """Return what ``fit`` learns a catalogue by: ``probe`` its attributes, ``boost`` its numbers, ``parts`` both."""
    name = "probe" if not catalog.numbered.any() else "parts" if catalog.labelled.any() else "boost"
    recipe: Recipe = make_recipe({"name": name})
    return recipe


def fit(
    catalog: Catalog,
    recipe: Recipe | None = None,
    *,
    evidence: int | float = 5,
    decide: DecideOptions | None = None,
    seed: int = 0,
    machine: Machine | None = None,
    random_split: bool = True,
    curve: bool = True,
    learn_from: Literal["everything", "split"] = "everything",
    learn_photos: Literal["first", "all"] = "first",
    run: RunOptions | None = None,
) -> Bundle:
    """Learn from a catalogue, and say what to expect on products nobody has seen.

    Evidence is gathered out of fold first; on it the calibration and the rule of decision are fitted, and
    their worth is measured by cross-fitting them once more. Then the recipe learns from everything, or, with
    ``learn_from="split"``, the predictor of the holdout is kept.

    Args:
        catalog: the products with their stated values.
        recipe: how to learn; by default what ``default_recipe`` says.
        evidence: grouped folds (2 or more), or the share of a grouped holdout (below 1).
        decide: the metric that counts, and a promise to keep if there is one.
        seed: of folds and recipe; recorded.
        machine: where to compute.
        random_split: also score a plain random split, and say in the report how far it would have flattered.
        curve: also score with a quarter and a half of the labels. Both are left out for recipes that take more than
            two minutes to fit, or the whole machine.
        learn_from: ``everything``; or ``split``, with a share held out as evidence: nothing is learnt twice.
        learn_photos: ``first``, or ``all`` photos of a product that has several; all of them vote either way.
        run: the run file this comes from, written into the bundle; by default one made of the arguments.

    Raises:
        CatalogError: no product with a readable picture and a label, or too few groups for the folds.
        UsageError: ``learn_from="split"`` without a share held out.
    """
    if run is not None:
        learn_from, learn_photos = run.data.learn_from, run.data.learn_photos
    if learn_from == "split" and evidence >= 2:
        raise UsageError('learn_from = "split" needs a share held out as evidence, such as 0.2')
    recipe = recipe or default_recipe(catalog)
    decide = decide or (run.decide if run is not None else DecideOptions())
    machine, catalog = machine or Machine(), catalog.remembering()
    if not (catalog.labelled.any() or catalog.numbered.any()):
        raise CatalogError(
            f"{catalog.source}: no product states a value of any attribute or number, so there is nothing to learn"
        )
    groups = near_duplicates(
        catalog, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    costs = read_costs(decide.cost, catalog.taxonomy) if decide.cost is not None else {}
    found = expect(
        recipe,
        catalog,
        groups,
        evidence=evidence,
        metric=decide.metric,
        costs=costs,
        seed=seed,
        machine=machine,
        random_split=random_split,
        curve=curve,
        learn_from=learn_from,
        aim=decide.aim,
        learn_photos=learn_photos,
    )
    report = found.report
    numbers = {item.name for item in found.evidence.amounts}
    left = [name for name in catalog.taxonomy.number_names if name not in numbers]
    if left:
        report = report.with_notes(
            f"The recipe {recipe.name!r} does not learn numbers: {', '.join(left)}. The recipe 'parts' does."
        )
    if catalog.labelled.any() and not getattr(recipe, "learns_choices", True):
        report = report.with_notes(
            f"The recipe {recipe.name!r} was not asked to learn attributes; their cells are unsure. The recipe 'parts' "
            "learns both."
        )
    backbone = getattr(recipe, "backbone", None) or REGISTRIES["backbone"].spec("lite0")
    index = learn_index(catalog, backbone, groups, machine)
    claims = learn_reader(catalog, groups) if text_columns(catalog) else None
    if _reads_text(recipe.table()):
        report = report.with_notes(*spelt_out_notes(spelt_out(catalog)))
    kept = found.predictor if learn_from == "split" else None
    several = learn_photos == "all" and bool(catalog.photos)
    learnt = Shown.of(catalog).catalog if several else catalog
    predictor = recipe.fit(learnt, None, machine, seed) if kept is None else kept
    # What a recipe did to its training labels; most do nothing.
    report = report.with_notes(*getattr(predictor, "learnt", ()))
    if run is None:
        source = Path(catalog.source)
        data = DataOptions(
            catalog=source, evidence=evidence, learn_from=learn_from, learn_photos=learn_photos
        )
        run = RunOptions(seed=seed, data=data, recipe=recipe.table(), decide=decide)
    trust = found.evidence, found.rule, index, claims, found.voting
    bundle = Bundle(catalog.schema, recipe, predictor, report, run, *trust)
    if decide.precision is not None:
        return bundle.with_notes(str(bundle.promise()))
    return bundle
