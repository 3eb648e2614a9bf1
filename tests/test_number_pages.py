"""Numbers wherever people look at results: pages, card, description, findings, command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import number_samples as samples
import shelfwise as sw
from conftest import Shell
from shelfwise import pages
from shelfwise.auditing import audit_table, mismatches, summary
from shelfwise.bundle import Bundle
from shelfwise.card import card
from shelfwise.catalog import Catalog
from shelfwise.data.outliers import number_outliers
from shelfwise.describe import describe
from shelfwise.pages import number_charts
from shelfwise.predictions import Machine
from shelfwise.taxonomy import Choice
from shelfwise.trust.amount_rule import range_of
from test_pages import Page, written


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.priced_table(tmp_path_factory.mktemp("priced"))


@pytest.fixture(scope="module")
def only(table: Path, machine: Machine) -> Bundle:
    return fitted(table, machine, True)


@pytest.fixture(scope="module")
def both(table: Path, machine: Machine) -> Bundle:
    return fitted(table, machine, False)


@pytest.fixture(scope="module")
def saved(only: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "only"
    only.save(path)
    return path


def fitted(table: Path, machine: Machine, alone: bool) -> Bundle:
    from shelfwise.models.towers import one_thread

    with one_thread():
        return samples.fitted(samples.read(table, alone), machine, alone)


# --- pages ---


def test_a_bundle_of_numbers_alone_has_a_page_of_numbers_alone(only: Bundle):
    found = Page(pages.bundle_page(only))
    assert [attrs["id"] for attrs in found.all("section")] == ["number0", "notes"]
    for word in ("F1", "label", "most frequent value"):
        assert word not in found.words, word
    assert f"SMAPE of price with a 95 % interval of {only.report.interval[0]:.1f}" in found.words
    assert "price, in INR" in found.words
    assert len(found.all("svg")) == 2
    assert len(found.all("table")) == 3


def test_the_page_says_how_often_calibrated_ranges_hold(only: Bundle):
    assert only.calibrated is not None
    item = only.calibrated.amounts[0]
    low, high = range_of(item.amounts(), only.taxonomy.number("price"), 0.9)
    known = np.isfinite(item.truth)
    share = ((low <= item.truth) & (item.truth <= high))[known].mean()
    words = Page(pages.bundle_page(only)).words
    assert (
        f"Ranges that promise 90 % hold {100 * share:.1f} % of the {known.sum()} stated numbers; before calibration"
        in words
    )


def test_numbers_stand_beside_attributes(both: Bundle):
    found = Page(pages.bundle_page(both))
    ids = [attrs["id"] for attrs in found.all("section")]
    assert {"scores", "sure", "confusions", "number0"} <= set(ids)
    assert "harmonic F1" in found.words
    assert "price: SMAPE" in found.words


def test_bins_have_about_as_many_rows_and_their_medians():
    rng = np.random.default_rng(0)
    answered = np.exp(rng.normal(size=200))
    found = number_charts.spread_of(answered, answered * 2, answered / 2, answered * 1.5)
    assert len(found.count) == 12
    assert found.count.max() - found.count.min() <= 1
    assert (np.diff(found.middle) > 0).all()
    np.testing.assert_allclose(found.median, 2 * found.middle)
    assert found.inside.max() == 0
    few = number_charts.spread_of(answered[:9], answered[:9], answered[:9], answered[:9])
    assert few.count.tolist() == [9]
    assert few.inside.tolist() == [1.0]


@pytest.mark.parametrize(
    ("transform", "low", "high", "texts"),
    [
        ("log", 0.02, 9000.0, ["0.1", "1", "10", "100", "1,000"]),
        ("log", 90.0, 1200.0, ["100", "200", "500", "1,000"]),
        ("log1p", 0.0, 300.0, ["0", "1", "3", "10", "30", "100", "300"]),
        ("linear", -31.0, 52.0, ["\u221220", "0", "20", "40"]),
    ],
)
def test_ticks_are_round(transform: str, low: float, high: float, texts: list[str]):
    axis = number_charts.Axis(transform)
    ends = axis.place([low, high]).tolist()
    assert [text for _, text in axis.ticks(*ends)] == texts


def test_a_difference_below_zero_is_better(only: Bundle, table: Path, machine: Machine):
    catalog = samples.read(table)
    answers = only.answer(catalog, machine=machine)
    off = replace(answers, amounts=tuple(replace(a, value=a.value * 1.4) for a in answers.amounts))
    found = sw.compare([("off", off), ("plain", answers)], catalog, bootstrap=50)
    assert found.metric == "smape"
    assert not found.values
    assert found.words[0].startswith("plain is better than off by ")
    assert "in SMAPE of price." in found.words[0]
    text = str(found)
    assert "Cups / price" in text
    assert "lower is better" in text
    page = Page(pages.compare_page(found))
    assert [attrs["id"] for attrs in page.all("section")] == ["number0", "notes"]
    assert "\u25b2\u00a0better" in "".join(page.text)
    assert "F1" not in page.words


def test_slipped_prices_are_in_the_gallery(both: Bundle, table: Path, machine: Machine):
    catalog = samples.read(table, only=False)
    found = audit_table(both, catalog, machine=machine)
    shown = [each for each in mismatches(found, catalog) if each.number]
    assert {each.id for each in shown} == {catalog.ids[row] for row in samples.SLIPPED}
    slipped = next(each for each in shown if each.id == catalog.ids[17])
    assert slipped.fits.startswith("a tenth of it, ")
    words = Page(pages.audit_page(mismatches(found, catalog))).words
    assert "range expected of 90 %" in words
    assert "A tenth of it, " in words
    assert "stated numbers far outside their range" in words


def test_an_audit_of_numbers_alone_speaks_of_numbers_alone(only: Bundle, table: Path, machine: Machine):
    catalog = samples.read(table)
    found = audit_table(only, catalog, machine=machine)
    assert len(summary(found, only)) == 1
    assert "stated numbers of 'price'" in summary(found, only)[0]
    assert "disagree" in Page(pages.audit_page(mismatches(found, catalog))).words


def test_a_report_says_every_number_once(both: Bundle):
    keys = [line[:5] for line in both.report.lines]
    assert len(set(keys)) == len(keys)
    assert str(both.report).count("\n  all ") == 1
    gains = [line for line in both.report.lines if line.metric == "gain" and line.attribute == "price"]
    assert not gains, "deciding is of attributes"


# --- card, description, findings ---


def test_the_card_lists_numbers(only: Bundle, both: Bundle):
    text = card(only)
    smape = only.report.number_line("smape", "price").score
    assert f"| price | INR | logarithm | smape | {only.report.number_line('smape', 'price').support}" in text
    assert f"{smape:.2f} (" in text
    assert "## Attributes" not in text
    assert "0 attributes" not in text
    assert "not learnt" not in text
    assert {"## Attributes", "## Numbers"} <= set(card(both).splitlines())
    assert both.rule is not None
    unlearnt = card(replace(both, rule=replace(both.rule, amounts={})))
    assert "Numbers are read and kept but not learnt: 'price'." in unlearnt
    assert "## Numbers" not in unlearnt


def test_numbers_are_described_by_category(table: Path):
    catalog = samples.read(table)
    found = describe(catalog)
    price = catalog.numbers("price")[catalog.rows("Cups")]
    known = price[np.isfinite(price)]
    assert found.number("stated", "Cups", "price") == len(known)
    assert found.number("stated_share", "Cups", "price") == pytest.approx(len(known) / len(price))
    for measure, share in (("p25", 25), ("p50", 50), ("p75", 75), ("least", 0), ("most", 100)):
        assert found.number(measure, "Cups", "price") == pytest.approx(np.percentile(known, share))
    assert found.number("numbers") == np.isfinite(catalog.numbers("price")).sum()
    units = {count.value for count in found.counts if count.level == "number"}
    assert units == {"INR"}
    line = next(line for line in str(found).splitlines() if line.startswith("Cups / price"))
    assert line.endswith("INR")
    assert "labels" not in str(found).splitlines()[2]
    assert json.loads(found.to_json())["rows"]


def test_a_category_without_a_stated_number_has_dashes():
    frame = pl.DataFrame({"id": ["1", "2"], "category": ["a", "a"], "price": ["5", ""]})
    text = str(describe(Catalog.read(frame).select([1])))
    line = next(line for line in text.splitlines() if line.startswith("a / price"))
    assert line.split()[3:] == ["0", "0.0%", "-", "-", "-", "-", "-", "-"]


def outlying(values: list[float], category: str = "a") -> Catalog:
    rows = {"id": [str(k) for k in range(len(values))], "category": [category] * len(values)}
    return Catalog.read(pl.DataFrame({**rows, "price": [f"{value:.6g}" for value in values]}))


def test_numbers_far_from_their_category_are_findings():
    rng = np.random.default_rng(0)
    values = np.exp(5 + 0.3 * rng.normal(size=200))
    values[[7, 90]] *= [100, 0.01]
    found = number_outliers(outlying(values.tolist()))
    assert [(f.row, f.field, f.kind) for f in found] == [
        (8, "price", "number_outlier"),
        (91, "price", "number_outlier"),
    ]
    assert found[0].evidence["low"] < found[0].evidence["median"] < found[0].evidence["high"]
    assert found[0].evidence["high"] < found[0].evidence["stated"]
    assert "far from the other numbers of a" in found[0].message


def test_few_numbers_or_like_ones_have_no_outlier():
    assert not number_outliers(outlying([1.0] * 18 + [1e6]))
    assert not number_outliers(outlying([100.0] * 40 + [100.5]))
    (far,) = number_outliers(outlying([100.0] * 40 + [20_000.0]))
    assert far.row == 41


def test_check_lists_prices_in_texts_and_outliers(shell: Shell, table: Path, tmp_path: Path):
    frame = pl.read_csv(table, infer_schema=False)
    price = [cell if row != 20 else "9999999" for row, cell in enumerate(frame["price"])]
    frame.with_columns(pl.Series("price", price)).write_csv(tmp_path / "t.csv")
    given = ("--images", table.parent, "--cache", tmp_path / "cache", "--html", tmp_path / "d.html")
    ran = shell("check", tmp_path / "t.csv", *given, "-o", tmp_path / "f.csv")
    assert "price_in_text: states a price: 'Rs. 899' (row 4, id 00003, title)" in ran.out
    found = pl.read_csv(tmp_path / "f.csv", infer_schema=False)
    rows = found.filter(pl.col("kind").is_in(["number_outlier", "price_in_text"])).select(
        "kind", "row", "field"
    )
    assert ("number_outlier", "21", "price") in rows.rows()
    assert ("price_in_text", "4", "title") in rows.rows()
    assert "Cups / price" in ran.out
    words = written(ran, tmp_path / "d.html").words
    assert "number_outlier" in words
    assert "stated numbers" in words


# --- the command line ---


def test_show_says_what_to_expect_of_numbers(shell: Shell, saved: Path, only: Bundle):
    ran = shell("show", saved)
    assert ran.code == 0
    smape = only.report.number_line("smape", "price").score
    assert f"price: SMAPE {smape:.2f}, MAE " in ran.out
    assert " INR; ranges of 90% hold " in ran.out
    assert "F1" not in ran.out.split("seed = 0")[0]


def test_predict_counts_numbers_and_a_promise_is_about_attributes(
    shell: Shell, saved: Path, table: Path, tmp_path: Path
):
    given = ("--cache", tmp_path, "--engine", "torch")
    ran = shell("predict", saved, table, "-o", tmp_path / "a.csv", *given, "--precision", "0.9")
    assert ran.code == 0, ran.err
    assert "price: 180 answered; 90% ranges, their high end typically " in ran.out
    assert "is about attributes, and there are none" in ran.err
    assert "0 of 0" not in ran.err
    scored = shell("evaluate", tmp_path / "a.csv", table, *given)
    assert scored.code == 0, scored.err
    assert scored.out.startswith("smape "), "answers of numbers alone are not asked for attributes"
    shown = shell("evaluate", saved, table, "--html", tmp_path / "e.html", *given)
    assert "number0" in {attrs["id"] for attrs in written(shown, tmp_path / "e.html").all("section")}


def test_a_photo_with_its_listing(shell: Shell, saved: Path, table: Path, tmp_path: Path):
    photo = table.parent / "images" / "00001.png"
    given = ("--category", "Cups", "--cache", tmp_path, "--engine", "torch")
    value = {}
    for text in ("Cup no. 1", "Cup no. 1, pack of 6"):
        ran = shell("predict", saved, photo, *given, "--listing", text)
        assert ran.code == 0, ran.err
        cell = json.loads(ran.out)["answers"]["price"]
        value[text] = cell["value"]
        said = f"price: {cell['value']:,.2f} INR, 90% range {cell['low']:,.2f} to {cell['high']:,.2f}"
        assert said in ran.err
    one, six = value.values()
    assert six > 4 * one
    ran = shell("predict", saved, table, "-o", tmp_path / "x.csv", "--listing", "a cup")
    assert ran.code == 2
    assert "a table has columns of text" in ran.message


def test_fit_writes_the_page_of_numbers(shell: Shell, table: Path, tmp_path: Path):
    given = ("recipe.name=by_category", "data.evidence=2", "data.units={price='INR'}")
    ignored = ("--ignore", ",".join(samples.ATTRIBUTES), "--cache", tmp_path, "--engine", "torch")
    ran = shell("fit", table, *given, *ignored, "-o", tmp_path / "b", "--html", tmp_path / "f.html")
    assert "price, in INR" in written(ran, tmp_path / "f.html").words
    loaded = sw.load(tmp_path / "b")
    assert not list(loaded.taxonomy.only(Choice).pairs())
    assert ran.out.count("\n  all ") == 1
