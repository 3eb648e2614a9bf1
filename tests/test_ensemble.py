"""The recipe ensemble: the contract, its TOML, its members on disk, bundles as members, ways to combine."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.blending import members_text
from shelfwise.config import make_recipe, read_run, to_toml
from shelfwise.errors import BundleError, ConfigError, PredictionError
from shelfwise.predictions import Machine
from shelfwise.recipes.ensemble import Ensemble, EnsemblePredictor
from shelfwise.recipes.held import Held
from shelfwise.recipes.simplex import Weights
from shelfwise.testing import check_recipe

PROBE: dict[str, Any] = {"name": "probe", "backbone": "toy", "look_alikes": 0.0, "components": 40}
NEAR: dict[str, Any] = {"name": "neighbours", "backbone": "toy", "k": 5}
MEMBERS = [PROBE, NEAR]


def ensemble(**options: Any) -> Ensemble:
    recipe = make_recipe({"name": "ensemble", "members": MEMBERS, **options})
    assert isinstance(recipe, Ensemble)
    return recipe


@pytest.mark.parametrize(
    "options",
    [
        {"combine": "blend", "weights": [0.7, 0.3]},
        {"combine": "stack", "folds": 2},
        {"combine": "stack", "stacker": "lightgbm", "folds": 2},
        {"combine": "gate", "folds": 2},
    ],
    ids=str,
)
def test_every_way_to_combine_keeps_the_contract(options: dict[str, Any], tmp_path: Path):
    check_recipe(ensemble(**options), tmp_path)


def test_members_become_opinions_that_calibration_weighs(toy: Toy, machine: Machine, tmp_path: Path):
    probe = make_recipe({**PROBE, "look_alikes": 0.05})
    recipe = Ensemble(members=(probe, make_recipe(NEAR)))
    bundle = sw.fit(toy.catalog, recipe, evidence=3, machine=machine, random_split=False, curve=False)
    found = bundle.predictor.predict(toy.catalog, machine)
    # Three of the probe (heads, look-alikes, shared heads), one of the neighbours.
    assert {len(block.opinions) for block in found.blocks} == {4}
    assert bundle.rule is not None
    assert {len(part.opinions) for part in bundle.rule.calibration.pairs.values()} == {4}
    bundle.save(tmp_path / "bundle")
    loaded = sw.load(tmp_path / "bundle")
    assert loaded.recipe == recipe
    first, second = bundle.predict(toy.catalog, machine), loaded.predict(toy.catalog, machine)
    for one, two in zip(first.blocks, second.blocks, strict=True):
        assert np.array_equal(one.probs, two.probs)
    text = members_text(loaded)
    assert "member 00: probe" in text
    assert "opinion 02" in text
    for path in (tmp_path / "bundle" / "members").iterdir():
        assert (path / "weights.safetensors").is_file()


def test_nested_tables_come_back_from_toml():
    inner = {"name": "ensemble", "members": [NEAR, PROBE], "combine": "stack"}
    recipe = ensemble(members=[PROBE, inner, "some/bundle"], weights=[1.0, 2.0, 0.0])
    written = to_toml({"recipe": recipe.table()})
    back = make_recipe(tomllib.loads(written)["recipe"])
    assert back == recipe
    assert back.members[1].members[0].k == 5
    assert back.members[2] == Held(bundle=Path("some/bundle"))
    assert recipe.concurrent


def test_paths_of_bundles_are_relative_to_the_run_file(tmp_path: Path):
    text = """
[data]
catalog = "t.csv"
[recipe]
name = "ensemble"
members = ["bundles/a", { bundle = "b" }, { name = "neighbours" }]
"""
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    recipe = make_recipe(read_run(tmp_path / "run.toml").recipe)
    assert [m.bundle for m in recipe.members[:2]] == [tmp_path / "bundles" / "a", tmp_path / "b"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": []}, "at least 1 item"),
        ({"members": [{"name": "prob"}]}, "Did you mean 'probe'"),
        ({"members": [{"name": "probe", "componets": 3}]}, "componets: unknown key"),
        ({"members": [3]}, "a member is a recipe's table, or the path of a bundle, not 3"),
        ({"members": [{"bundle": "b", "k": 3}]}, "nothing but its path"),
        ({"weights": [1.0]}, "1 weights for 2 members"),
        ({"weights": [0.0, 0.0]}, "a positive sum"),
        ({"weights": [1.0, 1.0], "combine": "stack"}, "finds out by itself"),
        ({"metric": "f2"}, "no metric called 'f2'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        ensemble(**options)


def test_a_bundle_that_learnt_from_the_table_is_refused_as_a_member(toy: Toy, machine: Machine, saved: Path):
    with pytest.raises(PredictionError, match=r"has learnt from \d+ of the products .* shelfwise blend"):
        ensemble(members=[NEAR, str(saved)]).fit(toy.catalog, None, machine, 0)
    with pytest.raises(BundleError, match="there is no bundle"):
        ensemble(members=[NEAR, str(saved / "none")]).fit(toy.catalog, None, machine, 0)


def test_products_beside_a_holdout_are_learnt_from_too(toy: Toy, machine: Machine, tmp_path: Path):
    held = sw.fit(
        toy.catalog, make_recipe(NEAR), evidence=0.3, machine=machine, random_split=False, curve=False
    )
    held.save(tmp_path / "held")
    assert held.evidence is not None
    beside = [i for i, id_ in enumerate(toy.catalog.ids) if id_ not in held.evidence.ids]
    with pytest.raises(PredictionError, match=f"has learnt from {len(beside)} of the products"):
        ensemble(members=[NEAR, str(tmp_path / "held")]).fit(toy.catalog.select(beside), None, machine, 0)


def test_a_bundle_of_other_products_is_a_member(
    toy: Toy, machine: Machine, bundle: sw.Bundle, saved: Path, tmp_path: Path
):
    """It answers as the bundle does, calibrated, and the ensemble keeps a copy."""
    from shelfwise.toys import toy_catalog

    catalog = sw.Catalog.read(toy_catalog(tmp_path, products=90, seed=3), schema=toy.catalog.schema)
    frame = catalog.frame.with_columns(("new-" + pl.col("id")).alias("id"))
    catalog = sw.Catalog.read(frame, images=tmp_path, schema=toy.catalog.schema)
    predictor = ensemble(members=[str(saved), NEAR], combine="blend", folds=3).fit(catalog, None, machine, 0)
    assert isinstance(predictor, EnsemblePredictor)
    alone = bundle.predict(catalog, machine)
    for one, two in zip(predictor.members[0].predict(catalog, machine).blocks, alone.blocks, strict=True):
        assert np.allclose(one.probs, two.probs, atol=1e-6)
    (tmp_path / "saved").mkdir()
    predictor.save(tmp_path / "saved")
    loaded = predictor.recipe.load(tmp_path / "saved", toy.catalog.taxonomy)
    found = loaded.predict(catalog, machine)
    for one, two in zip(found.blocks, predictor.predict(catalog, machine).blocks, strict=True):
        assert np.array_equal(one.probs, two.probs)
    assert sw.load(tmp_path / "saved" / "members" / "00").recipe == bundle.recipe


def test_members_of_another_taxonomy_are_refused(toy: Toy, machine: Machine):
    predictor = make_recipe(NEAR).fit(toy.catalog, None, machine, 0)
    frame = toy.catalog.frame.with_columns(toy.catalog.frame["colour"].replace("green", "lime"))
    other = sw.Catalog.read(frame, images=toy.directory)
    second = make_recipe(NEAR).fit(other, None, machine, 0)
    with pytest.raises(PredictionError, match="has no value 'green'"):
        EnsemblePredictor(
            ensemble(), toy.catalog.taxonomy, (predictor, second), Weights(2, toy.catalog.taxonomy.hash, {})
        )


def test_members_that_use_the_whole_machine_run_one_after_another(toy: Toy, machine: Machine):
    """Members are told of each fit as it begins and ends."""
    import threading

    going, most = [], []
    lock = threading.Lock()

    class Slow:
        concurrent, name = False, "slow"

        def __init__(self) -> None:
            self.inner = make_recipe(NEAR)

        def table(self) -> dict[str, Any]:
            return dict(NEAR)

        def fit(self, *given: Any) -> Any:
            with lock:
                going.append(1)
                most.append(len(going))
            found = self.inner.fit(*given)
            with lock:
                going.pop()
            return found

        def load(self, *given: Any) -> Any:
            return self.inner.load(*given)

    recipe = Ensemble(members=(Slow(), Slow(), make_recipe(NEAR)))
    assert not recipe.concurrent
    recipe.fit(toy.catalog, None, machine, 0)
    assert most == [1, 1]


def test_too_few_products_to_learn_from_leave_equal_weights(toy: Toy, machine: Machine):
    few = toy.catalog.select(np.arange(3))
    predictor = ensemble(members=[NEAR, NEAR], combine="stack", folds=5).fit(few, None, machine, 0)
    assert predictor.combiner is None
    found = predictor.predict(few, machine)
    alone = make_recipe(NEAR).fit(few, None, machine, 0).predict(few, machine)
    for one, two in zip(found.blocks, alone.blocks, strict=True):
        assert np.allclose(one.probs, two.probs, atol=1e-6)


def test_an_ensemble_teaches_a_small_student(toy: Toy, machine: Machine, tmp_path: Path):
    """A network that is told one product's values in eight learns the others' from the ensemble, out of fold."""
    from shelfwise.models.towers import one_thread

    at = np.arange(len(toy.catalog))
    train, test = toy.catalog.select(at[at % 3 > 0]), toy.catalog.select(at[at % 3 == 0])
    with one_thread():
        folds = train.folds(3, groups=sw.near_duplicates(train, cache=machine.cache), seed=0)
        sw.cross_fit(ensemble(), train, folds, machine=machine).save(tmp_path / "teacher.parquet")
        told = pl.int_range(pl.len()) % 8 == 0
        bare = [pl.when(told).then(pl.col(name)).alias(name) for name in ("colour", "size", "pattern")]
        poor = sw.Catalog.read(
            train.frame.with_columns(bare), images=toy.directory, schema=toy.catalog.schema
        )
        student = sw.FineTune(backbone=sw.backbone("toy"), phases=({"epochs": 10, "lr": 2e-2},))
        scores = []
        for recipe in (student, student.model_copy(update={"teacher": tmp_path / "teacher.parquet"})):
            found = recipe.fit(poor, None, machine, 0).predict(test, machine)
            scores.append(sw.evaluate(found, test, metric="accuracy", bootstrap=0).score)
    assert scores[1] > scores[0] + 0.05, scores
