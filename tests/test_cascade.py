"""The recipe cascade: the frontier, who is asked of what, its files, its options."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.errors import BundleError, ConfigError, PredictionError
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.cascade import AS_IT_IS, Cascade, CascadePredictor, Step, doubts
from shelfwise.recipes.frontier import ALL, Point, choose, frontier, frontier_table

HASH: dict[str, Any] = {"name": "neighbours", "by": "hash", "backbone": "toy"}
PROBE: dict[str, Any] = {"name": "probe", "backbone": "toy", "look_alikes": 0.0, "components": 40}


def cascade(**options: Any) -> Cascade:
    given = {"name": "cascade", "members": [HASH, PROBE], "costs": [1.0, 8.0], "folds": 2, **options}
    recipe = make_recipe(given)
    assert isinstance(recipe, Cascade)
    return recipe


# ---- the frontier


def products(n: int = 400, members: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Doubts, and whether the one cell of each product is right: the first member is wrong where it is in doubt."""
    rng = np.random.default_rng(0)
    doubt = np.stack([np.sort(rng.random(n)) for _ in range(members)])
    right = np.ones((members, n))
    right[0] = doubt[0] < 0.6
    return doubt, right


def test_the_frontier_goes_from_the_cheapest_to_the_best() -> None:
    doubt, right = products()
    points = frontier(doubt, right, right.shape[1], (1.0, 10.0))
    costs = [point.cost((1.0, 10.0)) for point in points]
    accuracies = [point.accuracy for point in points]
    assert costs == sorted(costs)
    assert accuracies == sorted(accuracies)
    assert points[0].shares == (1.0, 0.0)
    assert points[0].accuracy == pytest.approx(right[0].mean())
    # The first member is right below a doubt of 0.6: sending on what is above is enough for all to be right.
    assert points[-1].accuracy == pytest.approx(1.0)
    assert points[-1].shares[1] == pytest.approx((doubt[0] > 0.6).mean(), abs=0.02)


def test_a_member_that_adds_nothing_is_left_out() -> None:
    doubt, right = products(members=3)
    right[2] = right[1]
    points = frontier(doubt, right, right.shape[1], (1.0, 10.0, 100.0))
    assert all(point.shares[2] == 0 for point in points)
    assert points[-1].accuracy == pytest.approx(1.0, abs=0.02)


def test_one_point_is_chosen() -> None:
    points = [
        Point((1.0,), (1.0, 0.0), 0.7),
        Point((0.5,), (1.0, 0.3), 0.8),
        Point((0.1,), (1.0, 0.9), 0.9),
    ]
    costs = (1.0, 10.0)
    assert choose(points, costs, 0.8, None, None)[0] is points[1]
    assert choose(points, costs, 0.8, 0.85, None)[0] is points[2]
    assert choose(points, costs, 0.8, None, 4.0)[0] is points[1]
    point, said = choose(points, costs, 0.8, 0.95, None)
    assert point is points[2]
    assert "no way reaches an accuracy of 0.9500" in said
    point, said = choose(points, costs, 0.8, None, 0.5)
    assert point is points[0]
    assert "no way costs 0.5 ms or less" in said
    table = frontier_table(points, ("cheap", "dear"), costs, points[1]).splitlines()
    assert len(table) == 4
    assert [line.startswith("*") for line in table] == [False, False, True, False]
    assert "0.8000" in table[2]
    assert table[2].endswith("4.00")


# ---- who is asked


class Says:
    """A member that says what it is told, row by id, and remembers what it was asked."""

    def __init__(self, catalog: Catalog, sure: dict[str, float], wrong: tuple[str, ...] = ()) -> None:
        self.taxonomy, self.sure, self.wrong = catalog.taxonomy, sure, wrong
        self.seen: list[tuple[str, ...]] = []

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        self.seen.append(catalog.ids)
        errors = {row: RowError("image", "gone") for row, id_ in enumerate(catalog.ids) if id_ in self.wrong}
        blocks = []
        for name in catalog.present:
            rows = np.array([row for row in catalog.rows(name).tolist() if row not in errors], np.int64)
            probs = np.zeros((len(rows), self.taxonomy.width(name)), np.float32)
            for at, row in enumerate(rows.tolist()):
                for part in self.taxonomy.slices(name):
                    sure, others = self.sure[catalog.ids[row]], part.stop - part.start - 1
                    probs[at, part] = (1 - sure) / others
                    probs[at, part.start] = sure
            if len(rows):
                blocks.append(Block(name, rows, probs))
        return Predictions(self.taxonomy, catalog.ids, tuple(blocks), errors)

    def save(self, directory: Path) -> None:
        raise NotImplementedError


def three(catalog: Catalog, members: tuple[Says, ...], *thresholds: float) -> CascadePredictor:
    steps = tuple(Step(AS_IT_IS, threshold) for threshold in (*thresholds, ALL))
    recipe = cascade(members=[HASH] * len(members), costs=[1.0] * len(members))
    return CascadePredictor(recipe, catalog.taxonomy, members, steps)


def test_only_doubtful_products_go_on(toy: Toy, machine: Machine) -> None:
    catalog = toy.catalog.select(range(6))
    ids = catalog.ids
    first = Says(catalog, dict(zip(ids, (0.9, 0.6, 0.95, 0.55, 0.6, 0.9), strict=True)), (ids[5],))
    second = Says(catalog, dict.fromkeys(ids, 0.97))
    third = Says(catalog, dict.fromkeys(ids, 0.5))
    predictor = three(catalog, (first, second, third), 0.2, 0.2)
    found = predictor.predict(catalog, machine)
    assert first.seen == [ids]
    assert second.seen == [(ids[1], ids[3], ids[4], ids[5])]
    assert third.seen == [(ids[1], ids[3], ids[4])]  # the sixth had one answer, and that one was sure
    assert predictor.asked(catalog, machine) == (6, 4, 3)
    assert not found.errors
    alone = first.predict(catalog, machine).select([0, 2])
    for one, two in zip(found.select([0, 2]).blocks, alone.blocks, strict=True):
        assert np.allclose(one.probs, two.probs, atol=1e-6)
    sure = 1 - doubts(found)
    assert sure[1] == pytest.approx((0.6 + 0.97 + 0.5) / 3, abs=1e-5)
    assert sure[5] == pytest.approx(0.97, abs=1e-5)


def test_nobody_else_is_asked_where_all_are_sure(toy: Toy, machine: Machine) -> None:
    catalog = toy.catalog.select(range(6))
    first, second = (Says(catalog, dict.fromkeys(catalog.ids, 0.9)) for _ in range(2))
    predictor = three(catalog, (first, second), 0.2)
    predictor.predict(catalog, machine)
    assert second.seen == []
    assert predictor.asked(catalog, machine) == (6, 0)
    gone = three(catalog, tuple(Says(catalog, {}, catalog.ids) for _ in range(2)), 0.2)
    assert sorted(gone.predict(catalog, machine).errors) == list(range(6))


# ---- learning


@pytest.mark.usefixtures("one_thread")
def test_a_bundle_prints_the_frontier_and_comes_back(toy: Toy, machine: Machine, tmp_path: Path) -> None:
    recipe = cascade(costs=None)
    bundle = sw.fit(toy.catalog, recipe, evidence=2, machine=machine, random_split=False, curve=False)
    predictor = bundle.predictor
    assert isinstance(predictor, CascadePredictor)
    (note,) = [each for each in bundle.report.notes if each.startswith("Accuracy against cost")]
    assert "costs measured here" in note
    assert "ms a product" in note
    assert "Each member alone, of every product: member 00 (neighbours) 0." in note
    assert len(note.splitlines()) >= 3
    assert "Accuracy against cost" in str(bundle.report)
    assert len(predictor.costs) == 2
    assert min(predictor.costs) > 0
    asked = predictor.asked(toy.catalog, machine)
    assert asked[0] == len(toy.catalog)
    bundle.save(tmp_path / "bundle")
    loaded = sw.load(tmp_path / "bundle")
    assert loaded.recipe == recipe
    for one, two in zip(
        bundle.predict(toy.catalog, machine).blocks, loaded.predict(toy.catalog, machine).blocks, strict=True
    ):
        assert np.array_equal(one.probs, two.probs)
    assert isinstance(loaded.predictor, CascadePredictor)
    assert loaded.predictor.asked(toy.catalog, machine) == asked
    assert {path.name for path in (tmp_path / "bundle" / "members").iterdir()} == {"00", "01"}


@pytest.mark.usefixtures("one_thread")
def test_what_is_wanted_moves_the_thresholds(toy: Toy, machine: Machine) -> None:
    train = toy.catalog.remembering()
    cheap = cascade(cost=1.0).fit(train, None, machine, 0)
    assert cheap.asked(toy.catalog, machine) == (180, 0)
    middle = cascade(cost=5.0).fit(train, None, machine, 0)
    assert 0 < middle.asked(toy.catalog, machine)[1] < 180
    best = cascade(accuracy=0.999).fit(train, None, machine, 0)
    assert "no way reaches" in best.learnt[0]
    assert best.asked(toy.catalog, machine)[1] >= middle.asked(toy.catalog, machine)[1]
    default = cascade().fit(train, None, machine, 0)
    reached = [point for point in default.points if point.thresholds[0] == default.steps[0].threshold]
    assert reached[0].accuracy >= 0.5


@pytest.mark.usefixtures("one_thread")
def test_too_few_products_go_to_all_members(toy: Toy, machine: Machine) -> None:
    rows = [int(toy.catalog.rows(name)[0]) for name in toy.catalog.present]
    few = cascade(folds=10).fit(toy.catalog.select(rows), None, machine, 0)
    assert "every product goes to all members" in few.learnt[0]
    assert few.asked(toy.catalog, machine) == (180, 180)


def test_a_broken_file_is_named(toy: Toy, machine: Machine, tmp_path: Path) -> None:
    recipe = cascade(cost=1.0)
    recipe.fit(toy.catalog, None, machine, 0).save(tmp_path)
    assert recipe.load(tmp_path, toy.catalog.taxonomy).asked(toy.catalog, machine) == (180, 0)
    (tmp_path / "cascade.json").write_text('{"steps": []}\n')
    with pytest.raises(BundleError, match="0 steps for 2 members"):
        recipe.load(tmp_path, toy.catalog.taxonomy)
    (tmp_path / "cascade.json").write_text("{\n")
    with pytest.raises(BundleError, match="cannot be read as a cascade"):
        recipe.load(tmp_path, toy.catalog.taxonomy)


def test_a_bundle_that_learnt_from_the_table_is_refused(toy: Toy, machine: Machine, saved: Path) -> None:
    with pytest.raises(PredictionError, match="has learnt from"):
        cascade(members=[HASH, str(saved)]).fit(toy.catalog, None, machine, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": [HASH], "costs": None}, "at least 2 items"),
        ({"members": [HASH] * 6, "costs": None}, "at most 5 items"),
        ({"costs": [1.0]}, "1 costs for 2 members"),
        ({"costs": [0.0, 1.0]}, "costs are above 0"),
        ({"accuracy": 0.9, "cost": 2.0}, "not both"),
        ({"accuracy": 1.5}, "less than 1"),
        ({"members": [HASH, {"name": "prob"}]}, "Did you mean 'probe'"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        cascade(**options)


@pytest.mark.usefixtures("one_thread")
def test_numbers_come_from_those_that_were_asked(toy: Toy, machine: Machine) -> None:
    """A cascade of recipes that learn both: a price for every product, also where no photo can be read."""
    boost = {"name": "boost", "backbone": "toy", "rounds": 3, "folds": 2}
    both = [
        {"name": "parts", "choices": HASH, "numbers": boost},
        {"name": "parts", "choices": PROBE, "numbers": boost},
    ]
    predictor = cascade(members=both, cost=5.0).fit(toy.catalog, None, machine, 0)
    frame = toy.catalog.frame.with_columns(
        pl.when(pl.col("id") == "00001").then(pl.lit("none.png")).otherwise(pl.col("image")).alias("image")
    )
    catalog = Catalog.read(frame, images=toy.directory, schema=toy.catalog.schema)
    found = predictor.predict(catalog, machine)
    assert sorted(found.errors) == [1]
    (item,) = found.amounts
    assert item.rows.tolist() == list(range(len(catalog)))
