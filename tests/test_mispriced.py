"""Stated numbers far outside their range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from shelfwise.amounts import LEVELS, MEDIAN, Amounts
from shelfwise.taxonomy import Number
from shelfwise.trust.mispriced import audit_numbers, mispriced, outside, with_learnt

NORMAL = norm.ppf(LEVELS)
NUMBER = Number("price", "EUR", "log", 3.0, 1.0)


def shop(
    rows: int, seed: int, transform: str = "log", spread: float = 0.4
) -> tuple[np.ndarray, np.ndarray, Number]:
    """Quantiles, and prices with two decimals that follow them."""
    rng = np.random.default_rng(seed)
    middle = rng.normal(3, 1, rows)
    quantiles = np.exp(middle[:, None] + spread * NORMAL)
    stated = np.round(np.exp(middle + spread * rng.standard_t(5, rows)), 2) + 0.01
    if transform == "linear":
        return (
            quantiles,
            stated,
            Number("price", "", "linear", float(np.median(stated)), float(np.std(stated))),
        )
    return quantiles, stated, NUMBER


def planted(stated: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(stated)) < len(stated) // 50
    return np.where(wrong, stated * rng.choice([0.1, 10.0], len(stated)), stated), wrong


@pytest.mark.parametrize("transform", ["log", "linear"])
def test_misplaced_decimals_are_ranked_first(transform: str):
    quantiles, stated, number = shop(4000, 0, transform)
    given_, wrong = planted(stated, 1)
    score = mispriced(quantiles, given_, number)
    first = np.argsort(-score, kind="stable")[: len(stated) // 20]
    assert wrong[first].sum() >= 0.95 * wrong.sum()


def test_how_a_column_is_written_tells_a_slip():
    quantiles = np.repeat(np.exp(3 + 0.9 * NORMAL)[None], 500, axis=0)
    stated = np.full(500, 19.0)
    stated[:3] = 4.1, 41.0, 4.0
    score = mispriced(quantiles, stated, NUMBER)
    assert score[0] > score[2] + 2, "a number that is not whole, in a column of whole ones"
    assert score[1] < 0


@given(st.integers(0, 10**6), st.floats(0.01, 1000))
@settings(max_examples=30, deadline=None)
def test_the_further_out_the_higher(seed: int, rate: float):
    quantiles, _, _ = shop(1, seed)
    values = quantiles[0, MEDIAN] * np.exp(np.linspace(-8, 8, 41))
    score = outside(np.repeat(quantiles, 41, axis=0), values, NUMBER)
    assert (np.diff(score) > 0).all()
    assert score[20] == pytest.approx(0, abs=1e-6)
    assert (score[:20] < 0).all()
    moved = outside(np.repeat(quantiles, 41, axis=0) * rate, values * rate, NUMBER)
    np.testing.assert_allclose(moved, score, rtol=1e-6, atol=1e-6)


def test_outside_is_a_normal_score():
    quantiles = np.exp(3 + 0.4 * NORMAL)[None]
    for z in (-4.0, -1.96, 0.5, 2.5, 6.0):
        assert outside(quantiles, np.exp([3 + 0.4 * z]), NUMBER)[0] == pytest.approx(z, abs=0.02)


def test_what_is_not_stated_has_no_score():
    quantiles, stated, number = shop(10, 0)
    stated[[2, 3]] = np.nan, -5.0
    for score in (outside(quantiles, stated, number), mispriced(quantiles, stated, number)):
        np.testing.assert_array_equal(np.isnan(score), np.arange(10).__eq__(2) | np.arange(10).__eq__(3))


def test_a_distribution_of_one_value_is_judged_too():
    score = mispriced(np.full((3, len(LEVELS)), 20.0), np.array([20.0, 200.0, 23.0]), NUMBER)
    assert np.isfinite(score).all()
    assert score[1] > score[0]


def test_findings_name_the_range_and_what_would_fit():
    quantiles, stated, number = shop(1000, 3, spread=0.2)
    rows = np.arange(0, 2000, 2)
    column = np.full(2000, np.nan)
    column[rows] = stated
    column[500] = round(float(quantiles[250, MEDIAN]), 2) * 10
    column[700] = round(float(quantiles[350, MEDIAN]), 2) / 10
    column[900] = float(quantiles[450, MEDIAN]) * 3000
    found = audit_numbers(
        Amounts("price", rows, quantiles.astype(np.float32)), number, column, [f"p{i}" for i in range(2000)]
    ).findings()
    by_row = {item.row: item for item in found}
    assert {501, 701, 901} <= set(by_row)
    assert len(found) < 15
    ten, tenth, far = by_row[501], by_row[701], by_row[901]
    assert ten.kind == "price_out_of_range"
    assert ten.id == "p500"
    assert ten.field == "price"
    assert ten.severity == "warning"
    assert "a tenth of it" in ten.message
    assert "EUR" in ten.message
    assert ten.evidence["would_fit"] == pytest.approx(column[500] / 10)
    assert ten.evidence["low"] < ten.evidence["would_fit"] < ten.evidence["high"] < ten.evidence["stated"]
    assert "ten times it" in tenth.message
    assert tenth.evidence["would_fit"] == pytest.approx(column[700] * 10)
    assert "would_fit" not in far.evidence
    assert "would fit" not in far.message
    sure = [item.evidence["probability"] for item in found]
    assert sure == sorted(sure, reverse=True)
    assert sure[0] > 0.9


def test_a_clean_table_has_hardly_a_finding():
    quantiles, stated, number = shop(3000, 4)
    found = audit_numbers(
        Amounts("price", np.arange(3000), quantiles.astype(np.float32)), number, stated, ["x"] * 3000
    ).findings()
    assert len(found) < 15
    nothing = Amounts("price", np.arange(0), np.zeros((0, len(LEVELS)), np.float32))
    assert len(audit_numbers(nothing, number, [], []).findings()) == 0


def test_products_that_were_learnt_from_keep_their_out_of_fold_distributions():
    quantiles = np.repeat(np.arange(1.0, 5.0, dtype=np.float32)[:, None], len(LEVELS), axis=1)
    table = Amounts("price", np.array([0, 2, 3, 5]), quantiles)
    learnt = Amounts("price", np.array([1, 4]), quantiles[:2] * 100)
    row = np.array([4, 1, -1, 2, 1, 1])
    found = with_learnt(table, learnt, row)
    np.testing.assert_array_equal(found.quantiles[:, 0], [200, 2, 3, 100])
    np.testing.assert_array_equal(found.rows, table.rows)
    nothing = Amounts("price", np.arange(0), quantiles[:0])
    assert with_learnt(table, nothing, row) is table
