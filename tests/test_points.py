"""The point that is best for a metric, given a distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from shelfwise.amounts import LEVELS, MEDIAN
from shelfwise.errors import UsageError
from shelfwise.trust.points import POINTS, WEIGHTS, best_point, expected_smape

NORMAL = norm.ppf(LEVELS)


def mixtures(rows: int, seed: int) -> np.ndarray:
    """Quantiles of skewed and two-humped distributions of positive numbers."""
    rng = np.random.default_rng(seed)
    draws = rng.normal(rng.normal(2, 1, (rows, 1)), rng.uniform(0.05, 1, (rows, 1)), (rows, 400))
    second = rng.uniform(0, 1, (rows, 400)) < rng.uniform(0, 0.6, (rows, 1))
    draws += second * rng.normal(0, 2, (rows, 1)) + rng.choice([0, 0.2], (rows, 1)) * draws**2
    return np.quantile(np.exp(draws), LEVELS, axis=1).T


def test_weights_are_a_quadrature():
    assert WEIGHTS.sum() == pytest.approx(1)
    assert (WEIGHTS > 0).all()
    np.testing.assert_allclose(WEIGHTS, WEIGHTS[::-1])
    assert pytest.approx(0, abs=1e-12) == NORMAL @ WEIGHTS
    assert pytest.approx(1, abs=0.05) == NORMAL**2 @ WEIGHTS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_smape_point_is_the_best_of_all_points(seed: int):
    quantiles = mixtures(60, seed)
    point = best_point(quantiles, "smape")
    places = np.linspace(0, len(LEVELS) - 1, 6 * len(LEVELS))
    every = np.stack([np.interp(places, np.arange(len(LEVELS)), row) for row in quantiles])
    least = np.min([expected_smape(quantiles, every[:, k]) for k in range(every.shape[1])], axis=0)
    assert (expected_smape(quantiles, point) - least).max() < 0.05
    assert (expected_smape(quantiles, quantiles[:, MEDIAN]) - expected_smape(quantiles, point)).max() > 0.1


@given(st.integers(0, 10**6), st.booleans())
@settings(max_examples=30, deadline=None)
def test_no_point_is_worse_than_the_median_for_smape(seed: int, negative: bool):
    quantiles = mixtures(8, seed)
    if negative:
        quantiles = np.sort(quantiles - 5, axis=1)
    expected = expected_smape(quantiles, best_point(quantiles, "smape"))
    assert (expected <= expected_smape(quantiles, quantiles[:, MEDIAN]) + 1e-9).all()
    assert ((expected >= 0) & (expected <= 200)).all()


@given(st.integers(0, 10**6), st.sampled_from(sorted(POINTS)))
@settings(max_examples=40, deadline=None)
def test_points_lie_within_their_distribution_and_follow_the_unit(seed: int, metric: str):
    quantiles = mixtures(6, seed)
    point = best_point(quantiles, metric)
    assert (point >= quantiles[:, 0]).all()
    assert (point <= quantiles[:, -1]).all()
    if metric != "rmsle":
        np.testing.assert_allclose(best_point(quantiles * 80, metric), point * 80, rtol=1e-9)


@pytest.mark.parametrize(
    ("metric", "loss"),
    [
        ("smape", lambda p, x: 200 * np.abs(p - x) / (p + x)),
        ("mae", lambda p, x: np.abs(p - x)),
        ("mape", lambda p, x: np.abs(p - x) / x),
        ("rmse", lambda p, x: (p - x) ** 2),
        ("log", lambda p, x: np.log(p / x) ** 2),
        ("rmsle", lambda p, x: np.log((1 + p) / (1 + x)) ** 2),
    ],
)
def test_each_is_best_for_its_metric_on_draws(metric: str, loss):
    quantiles = np.exp(1 + 0.5 * NORMAL + 0.1 * NORMAL**2)[None]
    rng = np.random.default_rng(0)
    draws = np.interp(rng.uniform(size=200_000), LEVELS, quantiles[0])
    own = loss(best_point(quantiles, metric)[0], draws).mean()
    for times in (0.9, 0.97, 1.03, 1.1):
        assert own <= loss(times * best_point(quantiles, metric)[0], draws).mean() + 1e-9
    for other in POINTS:
        assert own <= loss(best_point(quantiles, other)[0], draws).mean() * 1.002


def test_one_value_is_its_own_point_and_no_rows_have_none():
    for metric in POINTS:
        np.testing.assert_allclose(best_point(np.full((2, len(LEVELS)), 7.0), metric), 7.0)
        assert len(best_point(np.zeros((0, len(LEVELS))), metric)) == 0
    assert best_point(np.zeros((1, len(LEVELS))), "smape")[0] == 0


def test_rows_do_not_depend_on_each_other():
    quantiles = mixtures(2100, 5)
    np.testing.assert_array_equal(
        best_point(quantiles, "smape")[1500:1510], best_point(quantiles[1500:1510], "smape")
    )


def test_an_unknown_metric_is_named():
    with pytest.raises(UsageError, match="smape"):
        best_point(np.ones((1, len(LEVELS))), "smap")
