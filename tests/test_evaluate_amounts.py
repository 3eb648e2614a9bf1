"""Scores of answered numbers: what they mean, their intervals, and which of two sets is better."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shelfwise import metrics
from shelfwise.amounts import AmountAnswers
from shelfwise.answers import STATES
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError, PredictionError, UsageError
from shelfwise.evaluate_amounts import compare_amounts, evaluate_amounts
from shelfwise.report import Line


def table(folder: Path, price: np.ndarray) -> Catalog:
    rows = len(price)
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(rows)],
            "category": [("Bags", "Shoes", "Hats")[i % 3] for i in range(rows)],
            "colour": [("red", "blue")[i % 2] for i in range(rows)],
            "price": [None if np.isnan(p) else float(p) for p in price],
        }
    )
    frame.write_csv(folder / "table.csv")
    return Catalog.read(folder / "table.csv")


def answers(value: np.ndarray, times: float = 1.5, rows: np.ndarray | None = None) -> AmountAnswers:
    at = np.arange(len(value)) if rows is None else rows
    state = np.full(len(at), STATES.index("answered"), np.int8)
    return AmountAnswers("price", at, value, value, value / times, value * times, state)


def prices(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.exp(rng.normal(3, 1, rows))
    truth[::7] = np.nan
    return truth, truth * np.exp(0.3 * rng.normal(size=rows))


def find(lines: tuple[Line, ...], metric: str, level: str = "overall", **keys: str) -> Line:
    found = [
        line
        for line in lines
        if line.metric == metric
        and line.level == level
        and all(getattr(line, k) == v for k, v in keys.items())
    ]
    assert len(found) == 1
    return found[0]


def test_numbers_are_those_of_the_metrics(tmp_path: Path):
    truth, value = prices(300)
    value = np.where(np.isnan(value), 5.0, value)
    catalog = table(tmp_path, truth)
    lines = evaluate_amounts([answers(value)], catalog, bootstrap=50)
    known = ~np.isnan(truth)
    for name, of in (("smape", metrics.smape), ("mae", metrics.mae), ("rmse", metrics.rmse)):
        line = find(lines, name, attribute="price")
        assert line.score == pytest.approx(of(truth, value))
        assert line.support == known.sum()
        assert line.low < line.score < line.high
        shoes = find(lines, name, "category", category="Shoes")
        assert shoes.score == pytest.approx(of(truth[1::3], value[1::3]))
    assert find(lines, "median_ape").score == pytest.approx(metrics.median_ape(truth, value))
    inside = (value / 1.5 <= truth) & (truth <= value * 1.5)
    assert find(lines, "coverage").score == pytest.approx(inside[known].mean())
    assert find(lines, "width").score == pytest.approx(2.25)
    assert find(lines, "answered").score == 1


def test_bands_share_the_rows_and_say_their_edges(tmp_path: Path):
    truth, value = prices(400)
    lines = evaluate_amounts(
        [answers(np.nan_to_num(value, nan=1.0))], table(tmp_path, truth), bootstrap=0, bands=4
    )
    bands = [line for line in lines if line.level == "band" and line.metric == "smape"]
    assert len(bands) == 4
    assert sum(line.support for line in bands) == (~np.isnan(truth)).sum()
    edges = [tuple(map(float, str(line.value).split("-"))) for line in bands]
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert edges[1][1] == pytest.approx(np.nanmedian(truth), rel=0.05)
    assert np.isnan(bands[0].low)


def test_one_price_is_no_band_and_prices_far_below_one_have_edges(tmp_path: Path):
    lines = evaluate_amounts([answers(np.full(9, 5.0))], table(tmp_path, np.full(9, 5.0)), bootstrap=5)
    assert not [line for line in lines if line.level == "band"]
    tiny = np.linspace(0.0101, 0.0104, 12)
    lines = evaluate_amounts([answers(tiny)], table(tmp_path, tiny), bootstrap=0)
    labels = {line.value for line in lines if line.level == "band"}
    assert len(labels) == 4
    assert "0.0101-0.01018" in labels


def test_rows_without_an_answer_are_wholly_wrong(tmp_path: Path):
    truth = np.full(10, 4.0)
    given = answers(truth.copy()[:8], rows=np.arange(8))
    given.value[0] = np.nan
    lines = evaluate_amounts([given], table(tmp_path, truth), bootstrap=0)
    assert find(lines, "smape").score == pytest.approx(60)
    assert find(lines, "mae").score == 0
    assert find(lines, "answered").score == pytest.approx(0.7)
    assert find(lines, "coverage").score == 1
    assert find(lines, "coverage").support == 8


def test_intervals_are_over_groups(tmp_path: Path):
    rng = np.random.default_rng(0)
    group = np.arange(600) // 20
    truth = np.exp(rng.normal(3, 1, 600))
    value = truth * np.exp(0.3 * np.abs(rng.normal(size=30))[group])
    catalog = table(tmp_path, truth)
    width = []
    for groups in (None, group):
        line = find(evaluate_amounts([answers(value)], catalog, groups=groups), "smape")
        width.append(line.high - line.low)
    assert width[1] > 2.5 * width[0]
    again = find(evaluate_amounts([answers(value)], catalog, groups=group), "smape")
    assert (again.low, again.high) == (line.low, line.high)


def test_a_better_set_is_said_to_be_better_and_an_equal_one_is_not(tmp_path: Path):
    truth, value = prices(900)
    value = np.where(np.isnan(value), 5.0, value)
    better = np.where(np.isnan(truth), 5.0, np.sqrt(value * np.nan_to_num(truth, nan=1)))
    noise = value * np.exp(1e-3 * np.random.default_rng(1).normal(size=900))
    entries = [("plain", [answers(value)]), ("better", [answers(better)]), ("noise", [answers(noise)])]
    found = compare_amounts(entries, table(tmp_path, truth), bootstrap=200)
    overall = {line.name: line for line in found if line.level == "overall"}
    assert overall["better"].verdict == "better"
    assert overall["better"].high < 0
    assert overall["noise"].verdict == "not shown"
    assert overall["better"].attribute == "price"
    assert overall["better"].first == pytest.approx(metrics.smape(truth, value))
    assert {line.category for line in found if line.level == "category"} == {"Bags", "Shoes", "Hats"}
    turned = compare_amounts([entries[1], entries[0]], table(tmp_path, truth), metric="rmse", bootstrap=200)
    assert turned[0].verdict == "worse"
    assert turned[0].low > 0


def test_errors_are_compared_over_rows_that_all_answer(tmp_path: Path):
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    first, second = answers(truth + 1), answers(truth + 1)
    second.value[3] = np.nan
    first.value[3] = 100.0
    found = compare_amounts(
        [("a", [first]), ("b", [second])], table(tmp_path, truth), metric="mae", bootstrap=0
    )
    assert found[0].score == found[0].first == pytest.approx(1)
    assert found[0].support == 3


def test_what_cannot_be_scored_is_said(tmp_path: Path):
    truth = np.arange(1.0, 7.0)
    catalog = table(tmp_path, truth)
    stated = answers(truth)
    stated.state[2] = STATES.index("stated")
    with pytest.raises(PredictionError, match="copy the stated"):
        evaluate_amounts([stated], catalog)
    with pytest.raises(PredictionError, match="row 8 of 6"):
        evaluate_amounts([answers(np.ones(8))], catalog)
    with pytest.raises(UsageError, match="group numbers"):
        evaluate_amounts([answers(truth)], catalog, groups=[1, 2])
    with pytest.raises(CatalogError, match="states no 'price'"):
        evaluate_amounts([answers(np.ones(1))], table(tmp_path, np.array([np.nan, 2.0])).select([0]))
    with pytest.raises(UsageError, match="smape"):
        compare_amounts([("a", [answers(truth)]), ("b", [answers(truth)])], catalog, metric="f1")
    with pytest.raises(UsageError, match="different names"):
        compare_amounts([("a", [answers(truth)]), ("a", [answers(truth)])], catalog)


def test_widths_and_coverage_skip_what_is_missing():
    nan = np.nan
    assert (
        metrics.range_coverage(np.array([1, 5, nan, 2]), np.array([0, 0, 0, nan]), np.array([2, 2, 2, nan]))
        == 0.5
    )
    assert metrics.range_width(
        np.array([1.0, 2.0, nan, 0.0]), np.array([4.0, 2.0, nan, 9.0])
    ) == pytest.approx(2)
    assert np.isnan(metrics.range_width(np.array([-1.0]), np.array([1.0])))
    with pytest.raises(UsageError, match="rmse"):
        metrics.number_terms("f1", np.ones(1), np.ones(1))
