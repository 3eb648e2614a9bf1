"""Nearest: equal to brute force in double precision, ties by row number, whatever the block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.models import nearest
from shelfwise.models.nearest import Index
from shelfwise.models.plain_nearest import PlainIndex


def brute(rows: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.astype(np.float64) @ rows.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize(
    ("m", "k"), [(1, 1), (5, 3), (64, 10), (1000, 15), (5000, 1), (5003, 15), (9000, 40)]
)
def test_equals_brute_force(m: int, k: int):
    rng = np.random.default_rng(m)
    rows = rng.standard_normal((m, 24)).astype(np.float32)
    queries = rng.standard_normal((300, 24)).astype(np.float32)
    found, scores = Index(rows).search(queries, k)
    expected, values = brute(rows, queries, k)
    assert np.array_equal(found, expected)
    assert np.allclose(scores, values, atol=1e-9)


@pytest.mark.parametrize("m", [200, 8000])
def test_ties_go_to_the_smaller_row(m: int):
    """Rows that are copies of each other: small integers, so that every product is exact."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-2, 3, (m // 20, 6)).astype(np.float32)[rng.integers(0, m // 20, m)]
    queries = rng.integers(-2, 3, (40, 6)).astype(np.float32)
    found, scores = Index(rows).search(queries, 3)
    expected, values = brute(rows, queries, 3)
    assert np.array_equal(scores, values)
    assert np.array_equal(found, expected)
    found, scores = PlainIndex(rows).search(queries, 3)
    assert np.array_equal(scores, values)
    assert np.array_equal(found, expected)


def test_thousands_of_copies_are_told_apart_by_their_rows():
    """More ties than any number of spare candidates, on every way of searching."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((5, 32)).astype(np.float32)[rng.integers(0, 5, 10_000)]
    queries = rng.standard_normal((nearest.CODED_QUERIES, 32)).astype(np.float32)
    exact = (rows[:, None].astype(np.float64) * queries[:3].astype(np.float64)).sum(-1).T
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :7]
    for index in (Index(rows), PlainIndex(rows)):
        for many in (3, len(queries)):
            assert np.array_equal(index.search(queries[:many], 7)[0][:3], expected)


@given(st.integers(0, 30), st.integers(0, 40), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_any_size(m: int, k: int, seed: int):
    rng = np.random.default_rng(seed)
    rows = rng.integers(-3, 4, (m, 4)).astype(np.float32)
    queries = rng.integers(-3, 4, (3, 4)).astype(np.float32)
    found, scores = Index(rows).search(queries, k)
    assert found.shape == scores.shape == (3, min(k, m))
    expected, values = brute(rows, queries, min(k, m))
    assert np.array_equal(scores, values)
    assert np.array_equal(found, expected)
    assert np.array_equal(PlainIndex(rows).search(queries, k)[0], expected)


def test_no_queries():
    found, scores = Index(np.ones((4, 2), np.float32)).search(np.ones((0, 2), np.float32), 3)
    assert found.shape == scores.shape == (0, 3)


def test_a_query_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((3000, 16)).astype(np.float32)
    queries = rng.standard_normal((70, 16)).astype(np.float32)
    found, scores = Index(rows).search(queries, 9)
    for size in (1, 7, 64):
        monkeypatch.setattr(nearest, "QUERIES", size)
        again, other = Index(rows).search(queries, 9)
        assert np.array_equal(found, again)
        assert np.array_equal(scores, other)


def test_close_scores_are_told_apart_in_double_precision():
    """Differences below single precision: the order is still the exact one."""
    rows = np.full((500, 8), 1.0, np.float32)
    rows[:, 0] += np.arange(500, dtype=np.float32) * np.float32(1.2e-7)
    query = np.full((1, 8), 1000.0, np.float32)
    found, _ = Index(rows).search(query, 5)
    assert np.array_equal(found, brute(rows, query, 5)[0])
