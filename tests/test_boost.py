"""Boost: keeps the contract, learns numbers with honest widths, and lets no row's own number come back to it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shelfwise.amounts import LEVELS, MEDIAN
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.data.text import Listing
from shelfwise.errors import BundleError, CatalogError, ConfigError, MissingExtra
from shelfwise.predictions import Machine
from shelfwise.recipes import estimates as estimating
from shelfwise.recipes.boost import Boost, BoostPredictor, clipped, inner_folds
from shelfwise.recipes.estimates import Means, learn_estimates
from shelfwise.recipes.number_model import LACKING, lacking
from shelfwise.recipes.siblings import Siblings, sibling_keys
from shelfwise.recipes.trees import Forest, Growth
from shelfwise.recipes.views import Seen, Views
from shelfwise.testing import check_recipe
from shelfwise.toys import toy_catalog

LOW, HIGH = int(np.argmin(np.abs(LEVELS - 0.05))), int(np.argmin(np.abs(LEVELS - 0.95)))
QUICK = {"rounds": 30, "learning_rate": 0.2, "leaves": 7, "min_rows": 5, "columns": 0.5, "folds": 3}
GROWTH = Growth("lightgbm", 20, 0.2, 7, 0, 5, 1.0, 0.8, 0.8)
MAKERS = {"Acme": 0.0, "Borealis": 1.0, "Cobalt": 2.0, "Dune": 3.0}


def boost(**options: object) -> Boost:
    made = make_recipe({"name": "boost", "inputs": ["text"], **QUICK, **options})
    assert isinstance(made, Boost)
    return made


def sold(products: int = 240, seed: int = 0) -> pl.DataFrame:
    """Products whose price follows from maker, size and kind; those of Dune are noisy. Seeds share no model number."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(products):
        maker, kind, size = (
            rng.choice(list(MAKERS)),
            rng.choice(["soap", "lamp"]),
            rng.choice([100, 250, 500]),
        )
        noise = rng.normal() * (0.5 if maker == "Dune" else 0.05)
        price = np.exp(1.0 + 0.7 * MAKERS[str(maker)] + 0.3 * (kind == "lamp") + size / 500 + noise)
        title = f"{maker} {kind} model {1000 * (seed + 1) + number}, {size} ml"
        rows.append({"id": f"p{number:04d}", "category": kind, "title": title, "price": f"{price:.2f}"})
    return pl.DataFrame(rows)


def read(frame: pl.DataFrame, tmp_path: Path, like: Catalog | None = None) -> Catalog:
    return Catalog.read(frame, images=tmp_path, schema=like.schema if like is not None else None)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(cache=tmp_path_factory.mktemp("cache"), jobs=1, engine="torch")


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return read(sold(), tmp_path_factory.mktemp("sold"))


@pytest.fixture(scope="module")
def fitted(train: Catalog, machine: Machine) -> BoostPredictor:
    return boost().fit(train, None, machine, 0)


def quantiles(predictor: BoostPredictor, catalog: Catalog, machine: Machine) -> np.ndarray:
    amount = predictor.predict(catalog, machine).amount("price")
    assert amount is not None
    np.testing.assert_array_equal(amount.rows, np.arange(len(catalog)))
    return amount.quantiles


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_the_contract(library: str, tmp_path: Path):
    if library == "xgboost":
        pytest.importorskip("xgboost")
    options = {"library": library, "backbone": "toy", "choices": True, "choice_rounds": 15}
    options |= {"rounds": 5, "folds": 2, "columns": 1.0, "rows": 1.0}
    # Of a table read twice, inverse document frequencies are others: texts are left out.
    check_recipe(boost(inputs=["image"], estimates=[], **options), tmp_path)


def test_numbers_of_unseen_products_are_learnt(
    fitted: BoostPredictor, train: Catalog, machine: Machine, tmp_path: Path
):
    test = read(sold(200, seed=1), tmp_path, train)
    truth, found = test.numbers("price"), quantiles(fitted, test, machine)
    missed = np.abs(np.log(found[:, MEDIAN] / truth))
    assert np.median(missed) < 0.25
    assert np.median(missed) < 0.35 * np.median(np.abs(np.log(np.median(train.numbers("price")) / truth)))
    covered = (truth >= found[:, LOW]) & (truth <= found[:, HIGH])
    assert 0.8 < covered.mean() < 0.98
    width = np.log(found[:, HIGH] / found[:, LOW])
    noisy = np.array(["Dune" in title for title in test.texts("title")])
    assert np.median(width[noisy]) > 2 * np.median(width[~noisy])


def test_a_row_depends_on_itself_alone(
    fitted: BoostPredictor, train: Catalog, machine: Machine, tmp_path: Path
):
    test = read(sold(60, seed=1), tmp_path, train)
    whole = quantiles(fitted, test, machine)
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_array_equal(quantiles(fitted, test.select(order), machine), whole[order])
    for row in (0, 7, 59):
        np.testing.assert_array_equal(quantiles(fitted, test.select([row]), machine)[0], whole[row])
    again = boost().fit(train.select(np.random.default_rng(1).permutation(len(train))), None, machine, 0)
    np.testing.assert_allclose(quantiles(again, test, machine), whole, rtol=1e-4)
    others = boost().fit(train, None, Machine(cache=machine.cache, jobs=3, engine="torch"), 0)
    np.testing.assert_array_equal(quantiles(others, test, machine), whole)


def test_missing_text_photo_and_category_are_states(tmp_path: Path, machine: Machine):
    whole = Catalog.read(toy_catalog(tmp_path)).only("numbers")
    predictor = boost(inputs=["image", "text"], backbone="toy").fit(whole, None, machine, 0)
    frame = whole.frame.head(40)
    told = quantiles(predictor, whole.select(np.arange(40)), machine)
    blank = frame.with_columns(
        pl.lit(None, pl.String).alias("title"),
        pl.lit("none.png").alias("image"),
        pl.lit("").alias("category"),
    )
    bare = read(blank, tmp_path, whole)
    found = predictor.predict(bare, machine)
    assert len(found.errors) == 40, "a photo that is not there is no error"
    amount = found.amount("price")
    assert amount is not None
    assert len(amount.rows) == 40
    assert np.ptp(amount.quantiles[:, MEDIAN]) < 1e-6, "products of which nothing is seen differ"
    width = np.log(told[:, HIGH] / told[:, LOW])
    assert np.log(amount.quantiles[0, HIGH] / amount.quantiles[0, LOW]) > 1.2 * np.median(width)
    prices = whole.numbers("price")
    assert np.quantile(prices, 0.2) < amount.quantiles[0, MEDIAN] < np.quantile(prices, 0.8)
    unknown = read(frame.with_columns(pl.lit("Spaceships").alias("category")), tmp_path, whole)
    amount = predictor.predict(unknown, machine).amount("price")
    assert amount is not None
    assert len(amount.rows) == 40, "an unknown category has no number"


def test_attributes_that_are_not_learnt_have_no_answer(tmp_path: Path, machine: Machine):
    whole = Catalog.read(toy_catalog(tmp_path, products=60))
    found = boost(estimates=[]).fit(whole, None, machine, 0).predict(whole, machine)
    for block in found.blocks:
        names = tuple(choice.name for choice in whole.taxonomy.choices(block.category))
        assert all(found.unsure[row] == names for row in block.rows.tolist())


def test_saved_and_loaded(fitted: BoostPredictor, train: Catalog, machine: Machine, tmp_path: Path):
    folder = tmp_path / "saved"
    folder.mkdir()
    fitted.save(folder)
    test = read(sold(30, seed=1), tmp_path, train)
    loaded = fitted.recipe.load(folder, train.taxonomy)
    np.testing.assert_array_equal(quantiles(loaded, test, machine), quantiles(fitted, test, machine))
    names = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert names <= {".txt", ".json", ".safetensors"}
    (folder / "number-0" / "number.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match=r"number\.json"):
        fitted.recipe.load(folder, train.taxonomy)


def look(train: Catalog, machine: Machine) -> Seen:
    return Views.learn(boost().sight, train, machine, 0)[1]


def test_no_number_comes_back_to_its_own_fold(
    train: Catalog, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(estimating, "PENALTIES", (1.0,))
    seen, number = look(train, machine), np.log(train.numbers("price"))
    fold = np.arange(len(train)) % 3
    kinds = ("ridge", "neighbours", "means")
    learnt, said = learn_estimates(kinds, seen, number, fold, 2, 0)
    changed = np.where(fold == 1, number + 100.0, number)
    _, after = learn_estimates(kinds, seen, changed, fold, 2, 0)
    names = [column.name for column in learnt.columns]
    assert {"ridge on text", "nearest 10 by text", "mean of brand"} <= set(names)
    assert not any("photo" in name for name in names)
    np.testing.assert_array_equal(said[fold == 1], after[fold == 1])
    moved = np.abs(said[fold != 1] - after[fold != 1]).max(axis=0)
    for name in ("ridge on text", "nearest 10 by text", "mean of brand", "mean of category"):
        assert moved[names.index(name)] > 1, f"{name} does not depend on the others' numbers"
    assert "ridge on text" in names
    assert np.abs(learnt.predict(seen)[:, names.index("ridge on text")] - number).mean() < 0.3


def test_like_products_lie_in_one_fold(tmp_path: Path, machine: Machine):
    frame = sold(60).with_columns(pl.col("title").str.replace(r"model \d+", "model"))
    catalog = read(frame, tmp_path)
    fold = inner_folds(catalog, 4, machine, 0)
    for title in set(catalog.texts("title")):
        assert len({f for f, t in zip(fold, catalog.texts("title"), strict=True) if t == title}) == 1
    assert set(fold) == {0, 1, 2, 3}


def test_means_are_drawn_to_the_mean_of_all():
    means = Means.of(["a", "a", "b"], np.array([4.0, 6.0, 20.0]))
    np.testing.assert_allclose(means.look_up(["a", "b", "c", ""])[:3, 0], [8.0, 12.5, 10.0])
    np.testing.assert_array_equal(means.look_up(["a", "b", "c", ""])[:, 1], [2, 1, 0, 0])
    assert np.isnan(means.look_up([""])[0, 0])


def test_neighbours_are_the_most_alike(train: Catalog, machine: Machine):
    seen, number = look(train, machine), np.arange(len(train), dtype=np.float64)
    kept = estimating.Neighbours.of(seen, number, np.arange(len(train)))
    rows, alike = kept.near(seen, ["text"])["text"]
    # Kept terms are rounded to half precision.
    exact = np.round((seen.terms @ kept.terms.T).toarray(), 7)
    for row in (0, 100):
        np.testing.assert_array_equal(rows[row], np.argsort(-exact[row], kind="stable")[:30])
        assert rows[row, 0] == row
    assert (np.diff(alike, axis=1) <= 0).all()
    fold = np.arange(len(train)) % 2
    others, _ = kept.near(seen, ["text"], fold, fold)["text"]
    assert (fold[others] != fold[:, None]).all()


def some(listings: list[Listing]) -> Seen:
    n = len(listings)
    none = np.zeros((n, 0), np.float32)
    truth = np.ones(n, bool)
    category, brands = np.zeros(n, np.int64), ("unknown",) * n
    return Seen(none, none, none, none, category, brands, tuple(listings), truth, truth, {})


def test_siblings_follow_each_other():
    rng = np.random.default_rng(0)
    effect = np.repeat(rng.normal(size=100), 3)
    residual = 0.8**0.5 * effect + 0.2**0.5 * rng.normal(size=300)
    keys = [f"name {number // 3}" for number in range(300)]
    location, scale = rng.normal(size=300), np.full(300, 2.0)
    found = Siblings.learn(keys, location, scale, location + 2 * residual)
    assert 0.65 < found.agreement < 0.95
    moved, left = found.follow(["name 0", "new", ""], np.array([9.0, 8.0, 7.0]), np.array([0.1, 0.2, 0.3]))
    three = 3 * found.agreement / (1 + 2 * found.agreement)
    assert moved.tolist() == [pytest.approx((location + three * 2 * residual)[:3].mean()), 8, 7]
    assert left.tolist() == [pytest.approx(2 * (1 - three * found.agreement) ** 0.5), 0.2, 0.3]
    assert Siblings.learn(keys, location, scale, location + rng.normal(size=300)).agreement < 0.2
    assert not Siblings.learn(
        [str(number) for number in range(300)], location, scale, location + residual
    ).sums


def test_pack_variants_are_no_siblings():
    listings = [Listing("Green tea", value=100.0, unit="g"), Listing("Green Tea", value=100.0, unit="g")]
    listings += [Listing("Green tea", value=600.0, unit="g", pack=6), Listing("")]
    keys = sibling_keys(some(listings))
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]
    assert keys[3] == ""


def test_siblings_move_a_prediction(tmp_path: Path, machine: Machine):
    """Every colour of a product costs the same, and no feature tells which products are dear."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(150):
        price = np.exp(rng.normal())
        rows += [(f"{number}-{colour}", f"Item {rng.integers(10**9)} plain", price) for colour in range(2)]
    first = {row[0].split("-")[0]: row[1] for row in rows[::2]}
    frame = pl.DataFrame(
        [
            {"id": id_, "category": "c", "title": first[id_.split("-")[0]], "price": f"{price:.3f}"}
            for id_, _, price in rows
        ]
    )
    catalog = read(frame, tmp_path)
    train, test = catalog.select(np.arange(0, 300)), catalog.select(np.arange(0, 300, 2))
    errors = {}
    for siblings in (True, False):
        predictor = boost(siblings=siblings, estimates=["means"]).fit(train, None, machine, 0)
        found = quantiles(predictor, test, machine)
        errors[siblings] = np.abs(np.log(found[:, MEDIAN] / test.numbers("price"))).mean()
    assert errors[True] < 0.4 * errors[False]


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_trees_come_back_from_text(library: str):
    pytest.importorskip(library)
    growth = Growth(library, 30, 0.2, 7, 0, 5, 1.0, 0.8, 0.8)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 4)).astype(np.float32)
    features[::3, 0] = np.nan
    target = np.where(np.isnan(features[:, 0]), 5.0, features[:, 0])
    for objective in ("l2", "l1", "huber"):
        text = growth.grow(features, target, objective, 3)  # type: ignore[arg-type]
        assert text == growth.grow(features, target, objective, 3)  # type: ignore[arg-type]
        found = Forest(library, (text,)).predict(features)  # type: ignore[arg-type]
        assert np.abs(found - target).mean() < 0.35, objective
        assert np.abs(found[::3] - 5).mean() < 0.3, "a missing feature is not a state of its own"
    codes = (np.nan_to_num(features[:, 1]) > 0).astype(int)
    probs = Forest(library, (growth.grow(features, codes, "classes", 0, 2),)).predict(features)  # type: ignore[arg-type]
    assert probs.shape == (300, 2)
    assert (probs.argmax(axis=1) == codes).mean() > 0.95


def test_without_xgboost_the_extra_is_named(
    train: Catalog, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(MissingExtra, match=r"shelfwise\[xgboost\]"):
        boost(library="xgboost").fit(train, None, machine, 0)


def test_lacking_takes_away_what_it_says(train: Catalog, machine: Machine):
    assert set(LACKING) == {"text", "photo", "both", "category", "all"}
    seen = look(train, machine)
    bare = lacking(seen, ("text", "photo", "both", "category"))
    empty = read(sold(1).with_columns(pl.lit("").alias("title")), Path("."), train)
    views = Views.learn(boost().sight, train, machine, 0)[0]
    found = views.see(empty, machine)
    np.testing.assert_array_equal(bare.facts[0], found.facts[0])
    np.testing.assert_array_equal(bare.vectors[0], found.vectors[0])
    assert not bare.has_text.any()
    assert (bare.category == -1).all()
    assert not lacking(seen, ("photo",)).has_photo.any()


def test_few_products_give_their_own_distribution(tmp_path: Path, machine: Machine):
    few = read(sold(7), tmp_path)
    found = quantiles(boost().fit(few, None, machine, 0), few, machine)
    assert found[0, MEDIAN] == pytest.approx(np.exp(np.median(np.log(few.numbers("price")))), rel=1e-5)
    assert found[0, 0] >= few.numbers("price").min() * 0.999
    assert (found == found[0]).all()
    one = read(sold(1), tmp_path)
    assert np.isfinite(quantiles(boost().fit(one, None, machine, 0), one, machine)).all()


def test_products_that_all_cost_the_same_cost_that(tmp_path: Path, machine: Machine):
    frame = sold(60).with_columns(pl.lit("5.00").alias("price"), pl.lit("Acme soap").alias("title"))
    frame = frame.with_columns(
        pl.when(pl.col("id") < "p0030").then(pl.col("id")).otherwise("title").alias("title")
    )
    same = read(frame, tmp_path)
    np.testing.assert_allclose(quantiles(boost().fit(same, None, machine, 0), same, machine), 5.0, rtol=1e-3)


def test_a_table_without_numbers_is_an_error(tmp_path: Path, train: Catalog, machine: Machine):
    nothing = read(sold(30).with_columns(pl.lit("").alias("price")), tmp_path, train)
    with pytest.raises(CatalogError, match="no product states a number; with choices = true"):
        boost().fit(nothing, None, machine, 0)


def test_clipping_draws_in_the_ends_only():
    given = np.arange(101.0)
    found = clipped(given, 0.05)
    assert found.min() == 5
    assert found.max() == 95
    np.testing.assert_array_equal(found[5:96], given[5:96])
    assert clipped(given, 0.0) is given


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objectives": []}, "objectives"),
        ({"objectives": ["l1", "l1"]}, "objectives"),
        ({"inputs": []}, "inputs"),
        ({"leaves": 0}, "limit"),
        ({"leaves": 1}, "limit"),
        ({"estimates": ["ridges"]}, "ridge"),
        ({"folds": 1}, "folds"),
    ],
    ids=str,
)
def test_options_that_cannot_be(options: dict[str, object], said: str):
    with pytest.raises(ConfigError, match=said):
        boost(**options)
