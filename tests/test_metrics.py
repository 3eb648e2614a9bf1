"""Metrics against scikit-learn, and against numbers worked out by hand."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise import metrics as m
from shelfwise.errors import UsageError
from shelfwise.registry import REGISTRIES, register


@st.composite
def cells(draw, least_answer=0):
    width = draw(st.integers(2, 6))
    size = draw(st.integers(1, 40))
    truth = draw(st.lists(st.integers(-1, width - 1), min_size=size, max_size=size))
    answer = draw(st.lists(st.integers(least_answer, width - 1), min_size=size, max_size=size))
    return np.array(truth), np.array(answer), width


@given(cells(least_answer=-1))
@settings(max_examples=80, deadline=None)
def test_scores_equal_scikit_learn(case):
    from sklearn.metrics import accuracy_score, f1_score

    truth, answer, width = case
    keep = truth >= 0
    if not keep.any():
        assert all(
            np.isnan(m.score(name, truth, answer, width))
            for name in ("harmonic_f1", "accuracy", "weighted_f1")
        )
        return
    t, y = truth[keep], answer[keep]
    present = sorted(set(t) | (set(y) - {-1}))
    micro = f1_score(t, y, average="micro")  # -1 stands for a wrong answer
    macro = f1_score(t, y, labels=present, average="macro", zero_division=0)
    weighted = f1_score(t, y, labels=present, average="weighted", zero_division=0)
    assert m.score("micro_f1", truth, answer, width) == pytest.approx(micro)
    assert m.score("accuracy", truth, answer, width) == pytest.approx(accuracy_score(t, y))
    assert m.score("macro_f1", truth, answer, width) == pytest.approx(macro)
    assert m.score("weighted_f1", truth, answer, width) == pytest.approx(weighted)
    both = 2 * micro * macro / (micro + macro) if micro + macro else 0.0
    assert m.score("harmonic_f1", truth, answer, width) == pytest.approx(both)


@given(cells())
@settings(max_examples=40, deadline=None)
def test_per_value_equals_scikit_learn(case):
    from sklearn.metrics import precision_recall_fscore_support

    truth, answer, width = case
    keep = truth >= 0
    if not keep.any():
        return
    counts = m.tally(truth, answer, width)
    p, r, f, n = precision_recall_fscore_support(
        truth[keep], answer[keep], labels=range(width), zero_division=np.nan
    )
    precision, recall, f1 = m.per_value(counts)
    np.testing.assert_allclose(precision, p)
    np.testing.assert_allclose(recall, r)
    np.testing.assert_allclose(f1, f)
    np.testing.assert_array_equal(counts.truth_V, n)


def test_log_loss_equals_scikit_learn():
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 50)
    truth = rng.integers(0, 4, 50)
    expected = log_loss(truth, probs, labels=range(4))
    assert m.score("log_loss", truth, probs.argmax(1), 4, probs) == pytest.approx(expected)
    with_holes = np.concatenate([probs, np.full((2, 4), np.nan), probs[:3]])
    holes_truth = np.concatenate([truth, [0, 1], [-1, -1, -1]])
    answer = np.zeros(55, int)
    assert m.score("log_loss", holes_truth, answer, 4, with_holes) == pytest.approx(expected)
    assert np.isnan(m.score("log_loss", truth, probs.argmax(1), 4))


def test_a_zero_probability_costs_the_float32_floor():
    probs = np.array([[1.0, 0.0]])
    assert m.score("log_loss", np.array([1]), np.array([0]), 2, probs) == pytest.approx(23 * np.log(2))


def test_worked_by_hand():
    # truth  a a a b b c -    answer  a a b b . c a
    truth, answer = np.array([0, 0, 0, 1, 1, 2, -1]), np.array([0, 0, 1, 1, -1, 2, 0])
    counts = m.tally(truth, answer, 4)
    precision, recall, f1 = m.per_value(counts)
    np.testing.assert_allclose(precision[:3], [1, 1 / 2, 1])
    np.testing.assert_allclose(recall[:3], [2 / 3, 1 / 2, 1])
    np.testing.assert_allclose(f1, [4 / 5, 1 / 2, 1, np.nan])
    macro = (4 / 5 + 1 / 2 + 1) / 3
    assert m.macro_f1(counts) == pytest.approx(macro)
    assert m.micro_f1(counts) == pytest.approx(4 / 6)
    assert m.harmonic_f1(counts) == pytest.approx(2 * macro * (4 / 6) / (macro + 4 / 6))
    answered = m.tally(truth, answer, 4, answered_only=True)
    assert m.accuracy(answered) == pytest.approx(4 / 5)


def test_a_value_answered_but_never_true_pulls_macro_down():
    truth = np.array([0, 0, 1, 1])
    assert m.score("macro_f1", truth, np.array([0, 0, 1, 1]), 5) == 1
    assert m.score("macro_f1", truth, np.array([0, 0, 1, 4]), 5) == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert m.score("macro_f1", truth, np.array([0, 0, 1, -1]), 5) == pytest.approx((1 + 2 / 3) / 2)


def test_nothing_right_is_zero_not_missing():
    assert m.score("harmonic_f1", np.array([0, 1]), np.array([1, 0]), 2) == 0


def test_codes_outside_are_refused():
    with pytest.raises(UsageError, match="truth hold codes"):
        m.tally(np.array([2]), np.array([0]), 2)
    with pytest.raises(UsageError, match="answers hold codes"):
        m.tally(np.array([1]), np.array([-2]), 2)
    with pytest.raises(UsageError, match="different shapes"):
        m.tally(np.array([1, 0]), np.array([0]), 2)


def test_mean_of_means_weighs_categories_not_pairs():
    scores = np.array([1.0, 0.0, 0.5, np.nan, np.nan])
    category = np.array([3, 7, 7, 7, 9])
    assert m.mean_of_means(scores, category) == pytest.approx((1 + 0.25) / 2)
    replicates = np.stack([scores, scores / 2], axis=1)
    np.testing.assert_allclose(m.mean_of_means(replicates, category), [0.625, 0.3125])
    assert np.isnan(m.mean_of_means(np.array([np.nan]), np.array([0])))
    assert np.isnan(m.mean_of_means(np.zeros(0), np.zeros(0, int)))


def test_registered_metrics_and_one_of_ones_own():
    names = REGISTRIES["metric"].names()
    assert {"harmonic_f1", "macro_f1", "micro_f1", "accuracy", "weighted_f1", "log_loss"} <= set(names)
    with pytest.raises(UsageError, match="harmonic_f1"):
        m.score("harmonic", np.array([0]), np.array([0]), 2)

    @register.metric("test_f_beta")
    def f_beta(counts, *, beta=1.0):
        precision, recall, _ = m.per_value(counts)
        return np.nanmean((1 + beta**2) * precision * recall / (beta**2 * precision + recall), axis=-1)

    try:
        spec = REGISTRIES["metric"].spec("test_f_beta", beta=2.0)
        truth, answer = np.array([0, 0, 1]), np.array([0, 1, 1])
        # value 0: p 1, r 1/2 -> 5/9; value 1: p 1/2, r 1 -> 5/6
        assert m.score(spec, truth, answer, 2) == pytest.approx((5 / 9 + 5 / 6) / 2)
        assert m.score("test_f_beta", truth, answer, 2) == pytest.approx(2 / 3)
    finally:
        del REGISTRIES["metric"].entries["test_f_beta"]


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=25, deadline=None)
def test_weighted_group_sums_equal_repeated_rows(seed, answered_only):
    rng = np.random.default_rng(seed)
    n, widths = 30, (2, 4, 3)
    ends = np.cumsum((0, *widths))
    slices = [slice(int(a), int(b)) for a, b in itertools.pairwise(ends)]
    truth = np.stack([rng.integers(-1, w, n) for w in widths], 1)
    answer = np.stack([rng.integers(-1, w, n) for w in widths], 1)
    probs = np.concatenate([rng.dirichlet(np.ones(w), n) for w in widths], 1)
    probs[rng.random(n) < 0.2] = np.nan
    groups = rng.integers(0, 8, n) * 2  # odd groups have no rows here
    weights = rng.integers(0, 3, (5, 17)).astype(np.uint16)
    sums = m.group_sums(truth, answer, slices, groups, probs, answered_only)
    for a, found in enumerate(sums.weighted(weights)):
        for r in range(5):
            rows = np.repeat(np.arange(n), weights[r][groups])
            expected = m.tally(
                truth[rows, a],
                answer[rows, a],
                widths[a],
                probs[rows][:, slices[a]],
                answered_only=answered_only,
            )
            for name in REGISTRIES["metric"].names():
                np.testing.assert_allclose(m.apply(name, found)[r], m.apply(name, expected), err_msg=name)


def test_group_weights_do_not_depend_on_the_block_size():
    whole = np.concatenate(list(m.group_weights(7, 20, seed=3)))
    blocks = list(m.group_weights(7, 20, seed=3, cells=21))
    assert [len(block) for block in blocks] == [3, 3, 3, 3, 3, 3, 2]
    np.testing.assert_array_equal(whole, np.concatenate(blocks))
    assert (whole.sum(axis=1) == 7).all()
    assert not np.array_equal(whole, next(m.group_weights(7, 20, seed=4)))


def test_intervals_cover_the_truth():
    """Mean harmonic F1 of ten pairs with rare values: plain percentiles cover it about half of the time."""
    rng = np.random.default_rng(0)
    width, pairs, n = 12, 10, 600
    chance = 1 / np.arange(1, width + 1) ** 1.5
    chance /= chance.sum()
    right = np.linspace(0.9, 0.3, width)

    def draw(size):
        truth = rng.choice(width, size, p=chance)
        return truth, np.where(rng.random(size) < right[truth], truth, rng.choice(width, size, p=chance))

    population = m.score("harmonic_f1", *draw(400_000), width)
    slices = [slice(a * width, (a + 1) * width) for a in range(pairs)]
    covered = 0
    for trial in range(60):
        columns = [draw(n) for _ in range(pairs)]
        sums = m.group_sums(
            np.stack([c[0] for c in columns], 1), np.stack([c[1] for c in columns], 1), slices, np.arange(n)
        )
        point = np.mean([m.harmonic_f1(counts) for counts in sums.total()])
        weights = next(m.group_weights(n, 200, trial))
        samples = np.mean([m.harmonic_f1(counts) for counts in sums.weighted(weights)], axis=0)
        low, high = m.interval(samples, float(point))
        assert low < high
        covered += low <= population <= high
    assert covered >= 48


def test_interval_edges():
    assert m.interval(np.full(10, 0.5), 0.5) == (0.5, 0.5)
    assert all(np.isnan(m.interval(np.full(10, np.nan), 0.5)))
    assert all(np.isnan(m.interval(np.arange(10.0), float("nan"))))
    low, high = m.interval(np.linspace(0, 1, 1001), 0.5)
    assert (low, high) == (pytest.approx(0.025, abs=1e-3), pytest.approx(0.975, abs=1e-3))


def test_calibration_error_by_hand():
    # bins of width 1/5: (.1, wrong) | (.7 right, .8 wrong) | (.9 right)
    sure, right = np.array([0.1, 0.7, 0.8, 0.9, np.nan]), np.array([False, True, False, True, True])
    found = m.reliability(sure, right, bins=5)
    np.testing.assert_array_equal(found.cells_K, [1, 0, 0, 2, 1])
    np.testing.assert_allclose(found.confidence_K, [0.1, np.nan, np.nan, 0.75, 0.9])
    np.testing.assert_allclose(found.accuracy_K, [0, np.nan, np.nan, 0.5, 1])
    expected = (0.1 + 2 * 0.25 + 0.1) / 4
    assert m.expected_calibration_error(sure, right, bins=5) == pytest.approx(expected)
    assert np.isnan(m.expected_calibration_error(np.array([]), np.array([])))


def test_calibration_error_ends():
    assert m.expected_calibration_error(np.ones(5), np.ones(5)) == 0
    assert m.expected_calibration_error(np.ones(5), np.zeros(5)) == 1
    assert m.expected_calibration_error(np.zeros(5), np.zeros(5)) == 0


def test_equal_mass_bins_hold_equal_counts():
    rng = np.random.default_rng(0)
    sure = rng.beta(8, 1, 1000)
    found = m.reliability(sure, rng.random(1000) < sure, bins=10, scheme="mass")
    np.testing.assert_array_equal(found.cells_K, np.full(10, 100))
    assert m.expected_calibration_error(sure, rng.random(1000) < sure, bins=10, scheme="mass") < 0.05
    assert m.reliability(np.full(9, 0.5), np.ones(9), scheme="mass").cells_K.sum() == 9


def test_numbers_by_hand():
    truth, guess = np.array([100.0, 50.0, 0.0, np.nan]), np.array([50.0, 50.0, 0.0, 7.0])
    assert m.smape(truth, guess) == pytest.approx(100 * (50 / 75) / 3)
    assert m.mae(truth, guess) == pytest.approx(50 / 3)
    assert m.rmse(truth, guess) == pytest.approx((2500 / 3) ** 0.5)
    assert m.median_ape(truth, guess) == pytest.approx(25)
    assert m.smape(np.array([1.0, 2.0]), np.array([np.nan, 2.0])) == 100
    assert m.median_ape(np.array([1.0, 2.0, 4.0]), np.array([np.nan, 2.0, 3.0])) == 25
    assert m.median_ape(np.array([1.0, 2.0]), np.array([np.nan, 2.0])) == np.inf
    empty = np.array([np.nan])
    assert all(np.isnan(f(empty, empty)) for f in (m.smape, m.mae, m.rmse, m.median_ape))


@given(st.lists(st.tuples(st.floats(0.01, 1e6), st.floats(0.01, 1e6)), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_number_errors_equal_scikit_learn(pairs):
    from sklearn.metrics import mean_absolute_error, root_mean_squared_error

    truth, guess = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert m.mae(truth, guess) == pytest.approx(mean_absolute_error(truth, guess))
        assert m.rmse(truth, guess) == pytest.approx(root_mean_squared_error(truth, guess))
        assert 0 <= m.smape(truth, guess) <= 200
        assert m.smape(truth, guess) == pytest.approx(m.smape(guess, truth))
