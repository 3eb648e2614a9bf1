"""Calibrated distributions of numbers: they cover as often as they say, whatever they were before."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from shelfwise.amounts import LEVELS, MEDIAN, AmountEvidence, Amounts
from shelfwise.answers import STATES
from shelfwise.cells import infer_number
from shelfwise.errors import BundleError, UsageError
from shelfwise.taxonomy import Number
from shelfwise.trust.amount_rule import AmountRule, amounts_out_of_fold, decide_amounts, range_of
from shelfwise.trust.ranges import AmountCalibration, calibrate_amounts
from shelfwise.trust.worth import correlation_within, pooling_weights

NORMAL = norm.ppf(LEVELS)


def evidence(
    rows: int,
    seed: int = 0,
    law: str = "normal",
    inside: float = 0.6,
    claimed: float = 1.0,
    opinions: int = 0,
) -> AmountEvidence:
    """Products in groups of 1 to 6 whose residuals are correlated; a log scale, and scales of 0.1 to 0.8."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(rows), rng.integers(1, 7, rows))[:rows]
    mix = np.sqrt(inside) * rng.normal(size=rows)[group] + np.sqrt(1 - inside) * rng.normal(size=rows)
    draw = {"normal": mix, "heavy": np.sinh(1.5 * mix), "skew": np.exp(mix) - np.exp(0.5)}[law]
    middle, scale = rng.normal(3, 1, rows), rng.uniform(0.1, 0.8, rows)
    truth = np.exp(middle + scale * draw)
    quantiles = np.exp(middle[:, None] + claimed * scale[:, None] * NORMAL).astype(np.float32)
    fold = rng.integers(0, 5, rows)[group]
    category = rng.integers(-1, 4, rows).astype(np.int32)
    others = tuple(
        np.exp(middle[:, None] + rng.normal(0, 0.3 * j, (rows, 1)) + scale[:, None] * NORMAL).astype(
            np.float32
        )
        for j in range(opinions)
    )
    return AmountEvidence("price", np.arange(rows), truth, quantiles, category, group, fold, others)


def covered(found: Amounts, truth: np.ndarray, number: Number, coverage: float) -> float:
    low, high = range_of(found, number, coverage)
    return float(((low <= truth) & (truth <= high)).mean())


@pytest.mark.parametrize("law", ["normal", "heavy", "skew"])
@pytest.mark.parametrize("claimed", [0.3, 1.0, 4.0])
def test_unseen_groups_are_covered_as_often_as_said(law: str, claimed: float):
    learnt, unseen = evidence(4000, 1, law, claimed=claimed), evidence(12000, 2, law, claimed=claimed)
    number = infer_number("price", learnt.truth)
    found = calibrate_amounts(learnt, number).apply(unseen.amounts(), unseen.category)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        assert covered(found, unseen.truth, number, coverage) == pytest.approx(coverage, abs=0.025)
    low, high = range_of(found, number, 0.9)
    assert abs((unseen.truth < low).mean() - (unseen.truth > high).mean()) < 0.03


@pytest.mark.parametrize(("rows", "law"), [(8, "normal"), (20, "normal"), (60, "heavy"), (60, "skew")])
def test_little_evidence_covers_on_average_as_often_as_said(rows: int, law: str):
    shares = []
    for seed in range(60):
        learnt, unseen = evidence(rows, 2 * seed, law), evidence(300, 2 * seed + 1, law)
        number = infer_number("price", np.append(learnt.truth, unseen.truth))
        found = calibrate_amounts(learnt, number).apply(unseen.amounts(), unseen.category)
        shares.append(covered(found, unseen.truth, number, 0.9))
    assert 0.87 < np.mean(shares) < (0.99 if rows < 20 else 0.94)


def test_one_product_many_times_is_one_piece_of_evidence():
    one = evidence(400, 3)
    often = np.concatenate([np.arange(400), np.zeros(4000, np.int64)])
    many = replace(
        one,
        **{name: getattr(one, name)[often] for name in ("truth", "quantiles", "category", "group", "fold")},
        rows=np.arange(len(often)),
    )
    number = infer_number("price", one.truth)
    found = [
        calibrate_amounts(each, number).apply(one.amounts(), one.category).quantiles for each in (one, many)
    ]
    wide = [np.log(quantiles[:, -4] / quantiles[:, 3]).mean() for quantiles in found]
    assert wide[1] == pytest.approx(wide[0], rel=0.1)


def test_weights_follow_the_correlation_within_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(300), 4)
    rows_G = np.full(300, 4)
    alone, alike = rng.normal(size=1200), rng.normal(size=300)[group] + 0.01 * rng.normal(size=1200)
    assert correlation_within(alone, group, rows_G) < 0.1
    assert correlation_within(alike, group, rows_G) > 0.95
    assert pooling_weights(alone, group, rows_G, 0.0).sum() == pytest.approx(1200)
    assert pooling_weights(alone, group, rows_G, 1.0).sum() == pytest.approx(300)


def test_big_groups_that_are_easier_count_by_their_rows():
    rng = np.random.default_rng(0)
    rows_G = np.where(np.arange(2000) % 2, 1, 9)
    group = np.repeat(np.arange(2000), rows_G)
    residual = rng.normal(size=len(group)) * np.where(rows_G == 9, 0.2, 2.0)[group]
    share = pooling_weights(residual, group, rows_G, 1.0)
    assert share[rows_G[group] == 9].sum() / share.sum() == pytest.approx(0.9, abs=0.05)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e4), st.sampled_from(["normal", "heavy", "skew"]))
@settings(max_examples=25, deadline=None)
def test_another_currency_changes_nothing(seed: int, rate: float, law: str):
    here = evidence(80, seed, law, opinions=2)
    there = replace(
        here,
        truth=here.truth * rate,
        quantiles=(here.quantiles * rate).astype(np.float32),
        opinions=tuple((each * rate).astype(np.float32) for each in here.opinions),
    )
    rules = [decide_amounts(each, infer_number("price", each.truth)) for each in (here, there)]
    answers = [
        rule.answers(each.amounts(), each.category) for rule, each in zip(rules, (here, there), strict=True)
    ]
    for name in ("candidate", "low", "high"):
        np.testing.assert_allclose(getattr(answers[1], name), getattr(answers[0], name) * rate, rtol=1e-3)


@st.composite
def anything(draw: st.DrawFn) -> tuple[AmountEvidence, Number]:
    rows = draw(st.integers(0, 12))
    transform = draw(st.sampled_from(["log", "log1p", "linear"]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    spread = draw(st.sampled_from([0.0, 1e-9, 1.0, 30.0]))
    number = Number(
        "n", "", transform, center=float(rng.normal()), scale=draw(st.sampled_from([1e-3, 1.0, 5.0]))
    )
    quantiles = number.inverse(spread * np.sort(rng.standard_cauchy((rows, len(LEVELS))), axis=1))
    quantiles = np.sort(np.clip(quantiles, -1e30 if transform == "linear" else 0, 1e30), axis=1).astype(
        np.float32
    )
    truth = number.inverse(rng.normal(size=rows)) * rng.choice([1.0, np.nan, 0.0, 1e6], rows)
    group, fold = rng.integers(0, 4, rows), rng.integers(0, 3, rows)
    category = rng.integers(-1, 3, rows).astype(np.int32)
    opinions = (quantiles,) * draw(st.sampled_from([0, 2]))
    return AmountEvidence("n", np.arange(rows), truth, quantiles, category, group, fold, opinions), number


@given(anything(), st.floats(0.05, 0.995), st.sampled_from(["smape", "mae", "mape", "rmse", "log", "rmsle"]))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_in_ascending_finite_numbers_come_out(
    given_: tuple[AmountEvidence, Number], coverage: float, metric: str
):
    found, number = given_
    rule = decide_amounts(found, number, metric=metric, coverage=coverage)
    read = AmountRule.from_table(json.loads(json.dumps(rule.table())), "decision.json")
    calibrated = rule.calibration.apply(found.amounts(), found.category)
    answers = rule.answers(found.amounts(), found.category)
    assert np.isfinite(calibrated.quantiles).all()
    assert (np.diff(calibrated.quantiles, axis=1) >= 0).all()
    assert (answers.low <= answers.high).all()
    assert np.isfinite(answers.value).all()
    assert (answers.candidate >= calibrated.quantiles[:, 0]).all()
    assert (answers.candidate <= calibrated.quantiles[:, -1]).all()
    np.testing.assert_array_equal(read.answers(found.amounts(), found.category).value, answers.value)
    assert read.table() == rule.table()
    amounts_out_of_fold(found, number, metric=metric, coverage=coverage)


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_evidence_says_little(rows: int):
    learnt, product = evidence(rows, 5), evidence(50, 6)
    number = Number("price", "", "log", 3.0, 1.0)
    found = calibrate_amounts(learnt, number).apply(product.amounts(), product.category)
    low, high = range_of(found, number, 0.95)
    assert np.median(high / low) > np.exp(2.0), "about as wide as the numbers themselves are spread"
    assert (high / low < 1e6).all()
    np.testing.assert_allclose(
        found.quantiles[:, MEDIAN], product.quantiles[:, MEDIAN], rtol=1e-6 if rows == 0 else 2
    )


def test_without_evidence_a_wide_claim_stays_wide():
    product = evidence(5, 6, claimed=20.0)
    number = Number("price", "", "log", 3.0, 1.0)
    found = calibrate_amounts(evidence(0), number).apply(product.amounts(), product.category)
    assert (found.quantiles[:, 0] <= product.quantiles[:, 0] * 1.001).all()
    assert (found.quantiles[:, -1] >= product.quantiles[:, -1] * 0.999).all()


@pytest.mark.parametrize("constant", [True, False])
def test_widths_of_nothing_are_given_width(constant: bool):
    learnt = evidence(1000, 7)
    middle = np.full(1000, 20.0) if constant else learnt.quantiles[:, MEDIAN]
    flat = replace(learnt, quantiles=np.repeat(middle[:, None], len(LEVELS), axis=1).astype(np.float32))
    number = infer_number("price", flat.truth)
    found, _ = amounts_out_of_fold(flat, number)
    assert covered(found, flat.truth, number, 0.9) == pytest.approx(0.9, abs=0.03)


def test_a_bias_and_a_slope_are_taken_back():
    learnt = evidence(3000, 8)
    z = np.log(learnt.quantiles.astype(np.float64))
    bent = replace(learnt, quantiles=np.exp(0.8 * z + 1.5).astype(np.float32))
    number = infer_number("price", learnt.truth)
    found, answers = amounts_out_of_fold(bent, number)
    assert covered(found, learnt.truth, number, 0.9) == pytest.approx(0.9, abs=0.02)
    _, plain = amounts_out_of_fold(learnt, number)
    off = [np.abs(np.log(each.value / learnt.truth)).mean() for each in (answers, plain)]
    assert off[0] < 1.1 * off[1]


def test_scales_that_mean_nothing_are_flattened_and_those_that_do_are_kept():
    learnt = evidence(4000, 9)
    number = infer_number("price", learnt.truth)
    rng = np.random.default_rng(0)
    middle = np.log(learnt.quantiles[:, MEDIAN].astype(np.float64))[:, None]
    noise = np.exp(middle + rng.uniform(0.1, 0.8, (4000, 1)) * NORMAL).astype(np.float32)
    assert calibrate_amounts(learnt, number).exponent == pytest.approx(1.0, abs=0.15)
    assert calibrate_amounts(replace(learnt, quantiles=noise), number).exponent < 0.2


def test_categories_that_are_harder_get_wider_ranges_and_equal_ones_none():
    learnt = evidence(4000, 10)
    number = infer_number("price", learnt.truth)
    assert len(calibrate_amounts(learnt, number).factors) in (0, 4)
    middle = learnt.quantiles[:, MEDIAN].astype(np.float64)
    harder = np.where(learnt.category == 2, 3.0, 1.0)
    apart = replace(learnt, truth=middle * (learnt.truth / middle) ** harder)
    found = calibrate_amounts(apart, number)
    assert found.factors[2] / found.factors[1] == pytest.approx(3.0, rel=0.2)
    calibrated = found.apply(apart.amounts(), apart.category)
    low, high = range_of(calibrated, number, 0.9)
    for code in (0, 1, 2, 3):
        here = apart.category == code
        assert ((low <= apart.truth) & (apart.truth <= high))[here].mean() == pytest.approx(0.9, abs=0.04)


def test_a_worse_opinion_weighs_less_and_few_products_leave_them_equal():
    weights = calibrate_amounts(evidence(2000, 11, opinions=3), Number("price", "", "log", 3.0, 1.0)).opinions
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > 0.9
    few = calibrate_amounts(evidence(4, 11, opinions=3), Number("price", "", "log", 3.0, 1.0)).opinions
    assert max(few) - min(few) < 0.5


def test_no_row_is_judged_by_its_own_truth():
    found = evidence(300, 12)
    number = infer_number("price", found.truth)
    before, _ = amounts_out_of_fold(found, number)
    inside = found.fold == 2
    after, _ = amounts_out_of_fold(
        replace(found, truth=np.where(inside, found.truth * 50, found.truth)), number
    )
    np.testing.assert_array_equal(before.quantiles[inside], after.quantiles[inside])
    assert (before.quantiles[~inside] != after.quantiles[~inside]).any()


def test_order_of_rows_does_not_matter():
    found = evidence(200, 13)
    number = infer_number("price", found.truth)
    order = np.random.default_rng(0).permutation(200)
    turned = replace(
        found,
        **{name: getattr(found, name)[order] for name in ("truth", "quantiles", "category", "group", "fold")},
    )
    shapes = [calibrate_amounts(each, number).shape for each in (found, turned)]
    np.testing.assert_allclose(shapes[0], shapes[1], rtol=1e-9, atol=1e-12)


def test_too_wide_a_range_is_unsure():
    found = evidence(500, 14)
    number = infer_number("price", found.truth)
    rule = decide_amounts(found, number, widest=4.0)
    answers = rule.answers(found.amounts(), found.category)
    unsure = answers.state == STATES.index("unsure")
    np.testing.assert_array_equal(unsure, answers.high / answers.low > 4.0)
    assert 0 < unsure.sum() < 500
    assert np.isnan(answers.value[unsure]).all()
    assert np.isfinite(answers.candidate).all()
    linear = replace(
        rule, widest=10.0, calibration=replace(rule.calibration, number=Number("price", "", "linear"))
    )
    answers = linear.decided(found.amounts())
    np.testing.assert_array_equal(answers.state == STATES.index("unsure"), answers.high - answers.low > 10.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "smap"}, "smape"),
        ({"coverage": 0.999}, "0.995"),
        ({"coverage": 0.0}, "above 0"),
        ({"widest": 0.5}, "above 1"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, object], words: str):
    found = evidence(10)
    with pytest.raises(UsageError, match=words):
        decide_amounts(found, infer_number("price", found.truth), **options)


def test_a_broken_table_is_a_bundle_error():
    rule = decide_amounts(evidence(30), Number("price", "", "log", 3.0, 1.0))
    for broken in ({}, {**rule.table(), "metric": "none"}, {**rule.table(), "calibration": {}}):
        with pytest.raises(BundleError, match=r"decision\.json"):
            AmountRule.from_table(broken, "decision.json")
    short = {**rule.calibration.table(), "shape": [0.0]}
    with pytest.raises(BundleError, match="1 quantiles"):
        AmountCalibration.from_table(short, "decision.json")
