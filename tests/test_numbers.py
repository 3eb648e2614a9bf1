"""Numbers from the table to the answer: transforms, distributions, evidence, layouts, blends, bundles."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shelfwise as sw
from conftest import Shell
from number_samples import ByCategory, priced_table
from shelfwise.amounts import LEVELS, MEDIAN, Amounts, amounts_of, ascending, middle
from shelfwise.answers import STATES
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.cells import infer_number
from shelfwise.config import DecideOptions
from shelfwise.errors import BundleError, PredictionError, TaxonomyError, UsageError
from shelfwise.layouts import answer_frame, read_answers
from shelfwise.migrate import migrate
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.number_blend import NumberStack, blend_numbers, mixed, number_weights
from shelfwise.recipes.parts import Parts
from shelfwise.roles import Columns
from shelfwise.taxonomy import Choice, Number, Taxonomy
from shelfwise.trust.evidence import Evidence

pytestmark = pytest.mark.usefixtures("one_thread")


def spread(middle_n: np.ndarray, width: float = 0.2) -> np.ndarray:
    """Quantiles about medians, on the log scale."""
    return np.exp(np.log(middle_n)[:, None] + width * (LEVELS - 0.5)).astype(np.float32)


def table(n: int = 40) -> Catalog:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "category": ["Tea" if i % 2 else "Coffee" for i in range(n)],
            "title": [f"Leaf {i} {100 * (1 + i % 3)} g" for i in range(n)],
            "price": [f"{price:.2f}" for price in np.exp(rng.normal(2, 0.5, n))],
        }
    )
    return Catalog.read(frame)


def said(catalog: Catalog, noise: float, seed: int, name: str = "price") -> Predictions:
    """What a member says: the truth with noise."""
    truth = catalog.numbers(name)
    point = truth * np.exp(np.random.default_rng(seed).normal(0, noise, len(truth)))
    blocks = tuple(
        Block(c, catalog.rows(c), np.zeros((len(catalog.rows(c)), 0), np.float32)) for c in catalog.present
    )
    amounts = (Amounts(name, np.arange(len(catalog)), spread(point)),)
    return Predictions(catalog.taxonomy, catalog.ids, blocks, amounts=amounts)


# The taxonomy


@pytest.mark.parametrize(
    ("values", "name", "transform"),
    [
        ([1.0, 10.0, 100.0], "weight", "log"),
        ([0.0, 1.0, 5.0, 0.0], "weight", "log1p"),
        ([-3.0, 1.0, 5.0], "weight", "linear"),
        ([0.0, 10.0, -1.0], "price", "log"),
        ([], "weight", "log"),
        ([7.0, 7.0, 7.0], "weight", "log"),
    ],
)
def test_a_transform_is_settled_by_what_is_stated(values: list[float], name: str, transform: str):
    number = infer_number(name, np.array(values))
    assert number.transform == transform
    back = number.inverse(number.forward(values))
    usable = np.isfinite(number.forward(values)) if values else np.zeros(0, bool)
    np.testing.assert_allclose(back[usable], np.array(values)[usable], rtol=1e-9, atol=1e-9)


@given(
    st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=30),
    st.sampled_from(["log", "log1p", "linear"]),
)
def test_the_inverse_undoes_the_transform_in_float64(values: list[float], transform: str):
    number = Number("x", "kg", transform, 1.5, 0.7)
    np.testing.assert_allclose(number.inverse(number.forward(values)), values, rtol=1e-9, atol=1e-6)


def test_2048_37_stays_2048_37():
    number = Number("price", "INR", "log", 6.4, 0.97)
    assert float(number.inverse(number.forward([2048.37]))[0]) == pytest.approx(2048.37, abs=1e-6)


def test_numbers_are_saved_with_their_transform(tmp_path: Path):
    taxonomy = Taxonomy({"Tea": (Choice("kind", ("black",)), Number("price", "EUR", "log1p", 2.0, 0.5))})
    taxonomy.save(tmp_path / "taxonomy.json")
    assert Taxonomy.load(tmp_path / "taxonomy.json").number("price") == taxonomy.number("price")
    assert taxonomy.number_names == ("price",)
    assert taxonomy.only(Number).width("Tea") == 0
    assert taxonomy.only(Choice).number_names == ()
    with pytest.raises(TaxonomyError, match=r"no number 'prise'\. Did you mean 'price'"):
        taxonomy.number("prise")
    with pytest.raises(TaxonomyError, match="no transform 'sqrt'"):
        Number("price", "", "sqrt")  # type: ignore[arg-type]
    with pytest.raises(TaxonomyError, match="scale above 0"):
        Number("price", "", "log", 0.0, 0.0)


# The catalogue


def test_only_one_kind_of_attribute(tmp_path: Path):
    catalog = Catalog.read(priced_table(tmp_path))
    numbers, choices = catalog.only("numbers"), catalog.only("choices")
    assert numbers.codes.shape == (len(catalog), 0)
    assert numbers.taxonomy.number_names == ("price",)
    assert not any(numbers.taxonomy.width(c) for c in numbers.taxonomy.categories)
    assert choices.taxonomy.number_names == ()
    np.testing.assert_array_equal(choices.codes, catalog.codes)
    np.testing.assert_array_equal(numbers.numbers("price"), catalog.numbers("price"))


def test_a_number_that_is_out_of_its_domain_teaches_nothing():
    frame = pl.DataFrame({"id": ["a", "b", "c", "d"], "price": ["5", "0", "-2", "x"]})
    catalog = Catalog.read(frame)
    assert np.isnan(catalog.numbers("price")).tolist() == [False, True, True, True]
    kinds = [(f.kind, f.row) for f in catalog.findings if f.field == "price"]
    assert sorted(kinds) == [("not_a_number", 4), ("not_positive", 2), ("not_positive", 3)]


def test_units_are_recorded():
    frame = pl.DataFrame({"id": ["a", "b"], "price": ["5", "7"]})
    assert Catalog.read(frame, units={"price": "INR"}).taxonomy.number("price").unit == "INR"


# Distributions


def test_what_is_no_distribution_is_refused():
    quantiles = spread(np.array([3.0, 4.0]))
    with pytest.raises(PredictionError, match="do not ascend"):
        Amounts("price", np.arange(2), quantiles[:, ::-1].copy())
    with pytest.raises(PredictionError, match="not a finite"):
        Amounts("price", np.arange(2), quantiles * np.float32(np.nan))
    with pytest.raises(PredictionError, match="shape"):
        Amounts("price", np.arange(3), quantiles)
    assert LEVELS[MEDIAN] == 0.5
    np.testing.assert_allclose(LEVELS + LEVELS[::-1], 1)
    assert (np.diff(ascending(quantiles[:, ::-1]), axis=1) >= 0).all()


def test_predictions_are_saved_selected_and_joined(tmp_path: Path):
    catalog = table()
    found = said(catalog, 0.1, 1)
    found.save(tmp_path / "p.parquet")
    again = Predictions.load(tmp_path / "p.parquet")
    np.testing.assert_array_equal(again.amounts[0].quantiles, found.amounts[0].quantiles)
    order = np.random.default_rng(3).permutation(len(catalog))
    chosen = found.select(order)
    np.testing.assert_array_equal(chosen.amounts[0].quantiles, found.amounts[0].quantiles[order])
    halves = [(order[:15], found.select(order[:15])), (order[15:], found.select(order[15:]))]
    joined = Predictions.join(halves, catalog.ids)
    np.testing.assert_array_equal(joined.amounts[0].quantiles, found.amounts[0].quantiles)
    np.testing.assert_array_equal(joined.amounts[0].rows, np.arange(len(catalog)))


def test_evidence_keeps_what_was_stated(tmp_path: Path):
    catalog = table()
    group, fold = np.arange(len(catalog)) // 2, np.arange(len(catalog)) % 4
    evidence = Evidence.of(said(catalog, 0.1, 1), catalog, group, fold)
    evidence.save(tmp_path / "e.parquet")
    found = Evidence.load(tmp_path / "e.parquet").amounts[0]
    for name in ("rows", "truth", "quantiles", "category", "group", "fold"):
        np.testing.assert_array_equal(getattr(found, name), getattr(evidence.amounts[0], name))
    assert amounts_of(pl.DataFrame({"id": ["a"]}).to_arrow(), ["price"]) == ()
    half = evidence.select(fold == 1)
    assert half.amounts[0].fold.tolist() == [1] * int((fold == 1).sum())


# Answers and layouts


def test_numbers_are_written_in_the_tables_own_column(tmp_path: Path):
    catalog = table()
    answers = said(catalog, 0.1, 1).answers()
    frame = answer_frame(answers, catalog.layout)
    assert frame.columns == ["id", "category", "price"]
    np.testing.assert_allclose(frame["price"].to_numpy(), answers.amounts[0].value, rtol=1e-5)
    explained = answer_frame(answers, catalog.layout, explain=True)
    assert [name for name in explained.columns if name.startswith("price.")] == [
        "price.candidate",
        "price.low",
        "price.high",
        "price.state",
    ]
    frame.write_csv(tmp_path / "out.csv")
    back = read_answers(tmp_path / "out.csv", catalog)
    np.testing.assert_allclose(back.amounts[0].value, answers.amounts[0].value, rtol=1e-5)
    report = sw.evaluate(back, catalog, bootstrap=50)
    assert report.metric == "smape"
    assert report.score == pytest.approx(sw.evaluate(answers, catalog, bootstrap=0).score, rel=1e-3)


def test_rows_in_another_order_are_scored_by_id(tmp_path: Path):
    catalog = table()
    answers = said(catalog, 0.1, 1).answers()
    order = np.random.default_rng(0).permutation(len(catalog))
    shuffled = said(catalog, 0.1, 1).select(order).answers()
    assert sw.evaluate(shuffled, catalog, bootstrap=0).score == pytest.approx(
        sw.evaluate(answers, catalog, bootstrap=0).score
    )


def test_stated_numbers_are_kept_and_not_scored():
    catalog = table()
    kept = said(catalog, 0.1, 1).answers().keep_stated(catalog)
    np.testing.assert_array_equal(kept.amounts[0].value, catalog.numbers("price"))
    assert set(kept.amounts[0].state.tolist()) == {STATES.index("stated")}
    with pytest.raises(PredictionError, match="copy the stated"):
        sw.evaluate(kept, catalog)


def test_one_row_says_its_number_and_range():
    found = said(table(), 0.1, 1).answers().of(3)["price"]
    assert found["low"] < found["value"] < found["high"]
    assert found["state"] == "answered"


# Blends


@pytest.mark.parametrize(
    ("mean", "wanted"),
    [("arithmetic", 5.0), ("geometric", 4.0), ("harmonic", 3.2), ("median", 5.0)],
)
def test_the_four_means(mean: str, wanted: float):
    quantiles = np.array([[[2.0]], [[8.0]]])
    found = mixed(quantiles, np.ones((2, 1), bool), np.array([0.5, 0.5]), mean)  # type: ignore[arg-type]
    assert float(found[0, 0]) == pytest.approx(wanted)


def test_the_better_member_gets_the_weight_and_the_blend_is_no_worse():
    catalog = table(400)
    good, bad = said(catalog, 0.05, 1), said(catalog, 0.8, 2)
    weights = number_weights([good, bad], catalog)
    assert weights["price"][0] > 0.8
    blended = replace(good, amounts=blend_numbers([good, bad], catalog.taxonomy, weights))
    scores = [sw.evaluate(each, catalog, bootstrap=0).score for each in (good, bad, blended)]
    assert scores[2] < scores[0] + 0.5 < scores[1]
    assert len(blended.amounts[0].opinions) == 2
    two = said(catalog, 0.3, 3), said(catalog, 0.3, 4)
    both = replace(two[0], amounts=blend_numbers(two, catalog.taxonomy))
    assert sw.evaluate(both, catalog, bootstrap=0).score < sw.evaluate(two[0], catalog, bootstrap=0).score - 3


def test_a_member_that_is_silent_leaves_the_others_word():
    catalog = table()
    whole, part = said(catalog, 0.1, 1), said(catalog, 0.1, 2)
    few = replace(part, amounts=(part.amounts[0].take(np.arange(5), np.arange(5)),))
    found = blend_numbers([whole, few], catalog.taxonomy)[0]
    np.testing.assert_allclose(found.quantiles[5:], whole.amounts[0].quantiles[5:], rtol=1e-6)
    assert not np.allclose(found.quantiles[:5], whole.amounts[0].quantiles[:5])
    assert blend_numbers([replace(whole, amounts=()), part], catalog.taxonomy)[0].rows.shape == (40,)


def test_stacking_mends_a_member_that_is_always_too_high(tmp_path: Path):
    catalog = table(400)
    fair, high = said(catalog, 0.4, 1), said(catalog, 0.1, 2)
    item = high.amounts[0]
    high = replace(high, amounts=(Amounts("price", item.rows, item.quantiles * np.float32(1.8)),))
    stack = NumberStack.learn([fair, high], catalog)
    stack.save(tmp_path)
    blended = blend_numbers([fair, high], catalog.taxonomy, opinions=False)
    found = NumberStack.load(tmp_path).apply([fair, high], blended, catalog.taxonomy)
    scores = [
        sw.evaluate(replace(fair, amounts=amounts), catalog, bootstrap=0).score
        for amounts in (blended, found)
    ]
    assert scores[1] < scores[0] - 10
    assert scores[1] < sw.evaluate(fair, catalog, bootstrap=0).score


# Fitted


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, Bundle, Machine]:
    from shelfwise.models.towers import one_thread

    directory = tmp_path_factory.mktemp("priced")
    catalog = Catalog.read(priced_table(directory))
    machine = Machine(cache=directory / "cache", jobs=1, engine="torch")
    recipe = Parts(choices={"name": "probe", "backbone": "toy"}, numbers=ByCategory())
    with one_thread():
        bundle = sw.fit(catalog, recipe, evidence=3, machine=machine, random_split=False, curve=False)
    return catalog, bundle, machine


def test_one_fit_gives_attributes_and_price(priced: tuple[Catalog, Bundle, Machine], tmp_path: Path):
    catalog, bundle, machine = priced
    text = str(bundle.report)
    assert "harmonic_f1" in text
    assert "SMAPE" in text
    bundle.save(tmp_path / "b")
    loaded = sw.load(tmp_path / "b")
    unpriced = tmp_path / "t.csv"
    catalog.frame.drop("price").write_csv(unpriced)
    read = loaded.read(unpriced, images=Path(catalog.source).parent)
    answers = loaded.answer(read, machine=machine)
    amount = answers.amount("price")
    assert amount is not None
    assert (amount.value > 0).all()
    assert len(amount.rows) == len(catalog)
    answers.write(tmp_path / "out.csv", explain=True)
    out = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert out["id"].to_list() == list(catalog.ids)
    assert out["price"].null_count() == 0
    assert "colour" in out.columns


def test_ranges_hold_what_they_promise(priced: tuple[Catalog, Bundle, Machine]):
    _, bundle, _ = priced
    lines = {line.metric: line.score for line in bundle.report.of("overall", "coverage") if line.attribute}
    assert 0.8 < lines["coverage"] <= 1


def test_a_product_without_a_photo_still_has_a_price(priced: tuple[Catalog, Bundle, Machine]):
    _, bundle, machine = priced
    one = bundle.answer_one(text="Towel pack of 2", category="Towels", machine=machine)
    assert one["error"]
    assert 900 < one["answers"]["price"]["value"] < 2700
    with pytest.raises(UsageError, match=r"no text column 'titel'\. Did you mean 'title'"):
        bundle.answer_one(text={"titel": "x"}, category="Towels", machine=machine)


def test_wide_ranges_are_unsure_if_asked(tmp_path: Path):
    catalog = Catalog.read(priced_table(tmp_path))
    machine = Machine(cache=tmp_path / "cache", jobs=1, engine="torch")
    decide = DecideOptions(widest=1.0001)
    bundle = sw.fit(catalog.only("numbers"), ByCategory(), evidence=3, decide=decide, machine=machine)
    answers = bundle.answer(catalog, machine=machine)
    assert answers.counts() == {"unsure": len(catalog)}
    every = bundle.answer(catalog, every_cell=True, machine=machine)
    assert every.counts() == {"answered": len(catalog)}
    assert bundle.report.metric == "smape"
    assert bundle.report.score < 60


def test_comparables_state_their_price(priced: tuple[Catalog, Bundle, Machine]):
    catalog, bundle, machine = priced
    found = bundle.look_alikes(catalog.select(range(5)), 3, stating="price", machine=machine)
    assert found.columns == ["row", "id", "rank", "look_alike", "similarity", "price"]
    truth = dict(zip(catalog.ids, catalog.numbers("price"), strict=True))
    assert all(truth[name] == price for name, price in found.select("look_alike", "price").iter_rows())
    with pytest.raises(TaxonomyError, match="no number 'cost'"):
        bundle.look_alikes(catalog, 3, stating="cost", machine=machine)
    bare = replace(bundle, evidence=None)
    with pytest.raises(BundleError, match="keeps no evidence of 'price'"):
        bare.look_alikes(catalog, 3, stating="price", machine=machine)


def test_the_audit_ranks_slipped_prices_first(priced: tuple[Catalog, Bundle, Machine]):
    from number_samples import SLIPPED
    from shelfwise.auditing import audit_table

    catalog, bundle, machine = priced
    found = audit_table(bundle, catalog, machine=machine)
    frame = found.frame().filter(pl.col("attribute") == "price")
    assert len(frame) == int(np.isfinite(catalog.numbers("price")).sum())
    assert set(frame["id"][:2]) == {catalog.ids[row] for row in SLIPPED}
    named = [f for f in found.findings() if f.kind == "price_out_of_range"]
    assert {row + 1 for row, times in SLIPPED.items() if times > 1} <= {f.row for f in named}


def test_unit_prices(priced: tuple[Catalog, Bundle, Machine]):
    from shelfwise.data.unit_prices import with_unit_prices

    catalog = table()
    (found,) = with_unit_prices(said(catalog, 0.1, 1).answers().amounts, catalog)
    assert found.unit[0] == "100 g"
    assert found.unit_price[2] == pytest.approx(found.value[2] / 3)
    assert (
        with_unit_prices([middle(Amounts("weight", np.arange(1), spread(np.array([2.0]))))], catalog)[0].unit
        == ()
    )


def test_a_fold_is_known_by_its_prices_and_texts(tmp_path: Path):
    catalog = Catalog.read(priced_table(tmp_path)).only("numbers")
    machine = Machine(cache=tmp_path / "cache", jobs=1, engine="torch")
    folds = catalog.folds(3, seed=0)
    first = sw.cross_fit(ByCategory(), catalog, folds, machine=machine, out=tmp_path / "runs")
    dearer = catalog.frame.with_columns((pl.col("price").cast(pl.Float64) * 2).cast(pl.String))
    other = Catalog.read(dearer, images=tmp_path, schema=catalog.schema)
    second = sw.cross_fit(ByCategory(), other, folds, machine=machine, out=tmp_path / "runs")
    np.testing.assert_allclose(second.amounts[0].quantiles, 2 * first.amounts[0].quantiles, rtol=1e-4)


def test_an_ensemble_of_prices(tmp_path: Path):
    catalog = Catalog.read(priced_table(tmp_path)).only("numbers")
    machine = Machine(cache=tmp_path / "cache", jobs=1, engine="torch")
    members = ({"name": "by_category"}, {"name": "by_category", "narrow": 3.0})
    for combine in ("pool", "blend", "stack", "gate"):
        recipe = sw.Ensemble(members=members, combine=combine, folds=2)
        predictor = recipe.fit(catalog, None, machine, 0)
        found = predictor.predict(catalog, machine)
        (tmp_path / combine).mkdir()
        predictor.save(tmp_path / combine)
        again = recipe.load(tmp_path / combine, catalog.taxonomy).predict(catalog, machine)
        np.testing.assert_array_equal(found.amounts[0].quantiles, again.amounts[0].quantiles)
        assert bool(found.amounts[0].opinions) == (combine == "pool")


def test_a_changed_taxonomy_carries_numbers_over(priced: tuple[Catalog, Bundle, Machine], tmp_path: Path):
    catalog, bundle, machine = priced
    text = json.dumps(bundle.taxonomy.table()).replace('"Cups"', '"Mugs"').replace('"Plates"', '"Dishes"')
    new = Taxonomy.from_table(json.loads(text))
    moved = migrate(bundle, new, {"categories": {"Cups": "Mugs", "Plates": "Dishes"}})
    moved.save(tmp_path / "moved")
    moved = sw.load(tmp_path / "moved")
    assert moved.evidence is not None
    assert moved.evidence.amounts[0].name == "price"
    frame = catalog.frame.with_columns(pl.col("category").replace({"Cups": "Mugs", "Plates": "Dishes"}))
    read = moved.read(frame, images=Path(catalog.source).parent)
    before, after = bundle.answer(catalog, machine=machine), moved.answer(read, machine=machine)
    np.testing.assert_allclose(after.amounts[0].value, before.amounts[0].value, rtol=1e-5)
    assert any(line.attribute == "price" and line.level == "overall" for line in moved.report.lines)
    assert {line.category for line in moved.report.lines if line.attribute == "price"} >= {"Mugs", "Dishes"}


def test_a_recipe_of_prices_alone_on_a_table_with_attributes(tmp_path: Path):
    catalog = Catalog.read(priced_table(tmp_path))
    machine = Machine(cache=tmp_path / "cache", jobs=1, engine="torch")
    recipe = sw.Boost(rounds=5, backbone="toy", folds=2)
    bundle = sw.fit(catalog, recipe, evidence=2, machine=machine)
    assert bundle.report.metric == "smape"
    assert any("was not asked to learn attributes" in note for note in bundle.report.notes)
    counts = bundle.answer(catalog, machine=machine).counts()
    assert counts["answered"] == len(catalog)
    assert counts["unsure"] > 2 * len(catalog)


def test_columns_can_be_declared_numbers():
    frame = pl.DataFrame({"id": ["a", "b", "c"], "weight": ["10", "20", "0"], "price": ["1", "2", "3"]})
    catalog = Catalog.read(frame, columns=Columns(number=("weight",)))
    assert catalog.taxonomy.number_names == ("weight", "price")
    assert catalog.taxonomy.number("weight").transform == "log1p"


def test_a_table_of_the_price_challenge(shell: Shell, tmp_path: Path):
    """One text, an address, a price: fit, and predict a table without prices or photos."""
    rng = np.random.default_rng(0)
    lines = ["sample_id,catalog_content,image_link,price"]
    for at in range(150):
        name, base = (("Green Tea", 4.0), ("Olive Oil", 9.0), ("Oat Bars", 6.0))[at % 3]
        count = int(rng.choice([1, 2, 6]))
        text = f"Item Name: Alder {name}, 8 Ounce (Pack of {count})\nValue: {8 * count}\nUnit: Ounce\n"
        price = base * count**0.9 * np.exp(rng.normal(0, 0.15))
        lines.append(f'{500 - at},"{text}",https://example.com/{at}.jpg,{price:.2f}')
    table, test = tmp_path / "train.csv", tmp_path / "test.csv"
    table.write_text("\n".join(lines))
    pl.read_csv(table, infer_schema=False).drop("price").tail(40).write_csv(test)
    quick = ("recipe.name=boost", "recipe.rounds=20", "data.evidence=2", "--jobs", "1", "--engine", "torch")
    ran = shell("fit", table, *quick, "-o", tmp_path / "P", "--cache", tmp_path / "cache")
    assert ran.code == 0, ran.err
    assert "smape" in ran.out
    out = tmp_path / "out.csv"
    ran = shell("predict", tmp_path / "P", test, "-o", out, "--jobs", "1", "--cache", tmp_path / "cache")
    assert ran.code == 0, ran.err
    found = pl.read_csv(out)
    assert found.columns == ["sample_id", "price"]
    assert found["sample_id"].to_list() == [500 - at for at in range(110, 150)]
    assert (found["price"] > 0).all()
    right = pl.read_csv(table)["price"].tail(40)
    assert float((2 * (found["price"] - right).abs() / (found["price"] + right)).mean()) < 0.35  # type: ignore[arg-type]
