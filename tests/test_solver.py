"""Solver: the optimum that scikit-learn finds, whatever stands beside a problem in its batch."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from shelfwise.models.solver import NEVER, Problems, solve
from shelfwise.recipes.probe import row_weights


def problem(n: int, d: int, size: int, seed: int, missing: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((n, d)) / np.sqrt(d)).astype(np.float32)
    logits = features @ rng.standard_normal((d, size)) * 3
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    labels[rng.random(n) < missing] = -1
    return features, labels


def solved(
    features: np.ndarray, labels: np.ndarray, sizes: list[int], l2: float, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    weights = (labels >= 0).astype(np.float32) if weights is None else weights
    given = Problems(
        torch.from_numpy(features)[None],
        torch.from_numpy(labels)[None],
        torch.from_numpy(weights)[None],
        sizes,
    )
    weight, bias = solve(given, l2)
    return weight[0].numpy().astype(np.float64), bias[0].numpy().astype(np.float64)


def objective(w: np.ndarray, b: np.ndarray, x: np.ndarray, y: np.ndarray, s: np.ndarray, l2: float) -> float:
    logits = x @ w + b
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(-(s * log_probs[np.arange(len(y)), y]).sum() + l2 / 2 * (w**2).sum())


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("n", "d", "size"), [(400, 20, 4), (60, 100, 3), (300, 12, 2), (40, 40, 5)])
@pytest.mark.parametrize("l2", [0.05, 1.0])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_the_optimum_of_scikit_learn(n: int, d: int, size: int, l2: float, power: float):
    features, labels = problem(n, d, size, seed=n)
    weights = row_weights(labels[:, None].astype(np.int32), [size], power)
    w, b = solved(features, labels[:, None], [size], l2, weights)
    stated = labels >= 0
    x, y, s = features[stated].astype(np.float64), labels[stated], weights[stated, 0].astype(np.float64)
    model = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20_000).fit(x, y, sample_weight=s)
    best_w, best_b = model.coef_.T, model.intercept_
    if size == 2:
        # scikit-learn fits one vector for two values; the symmetric pair has half of it each, and half the penalty.
        model = LogisticRegression(C=2 / l2, tol=1e-10, max_iter=20_000).fit(x, y, sample_weight=s)
        best_w = np.concatenate([-model.coef_.T, model.coef_.T], axis=1) / 2
        best_b = np.concatenate([-model.intercept_, model.intercept_]) / 2
    got, best = objective(w, b, x, y, s, l2), objective(best_w, best_b, x, y, s, l2)
    assert got <= best * (1 + 2e-3), f"{got:.5f}, the optimum is {best:.5f}"
    assert np.abs(softmax(x @ w + b) - softmax(x @ best_w + best_b)).max() < 0.05


def test_rows_without_a_label_change_nothing():
    features, labels = problem(100, 10, 3, seed=1, missing=0.3)
    kept = labels >= 0
    w, b = solved(features, labels[:, None], [3], 0.1)
    w2, b2 = solved(features[kept], labels[kept, None], [3], 0.1)
    assert np.allclose(w, w2, atol=1e-3)
    assert np.allclose(b, b2, atol=1e-3)


def test_a_problem_does_not_depend_on_its_batch():
    parts = [(problem(n, 8, 3, seed), problem(n, 8, 2, seed + 50)) for n, seed in ((50, 1), (80, 2), (80, 3))]
    most = 80
    features = np.zeros((3, most, 8), np.float32)
    labels = np.full((3, most, 2), -1, np.int64)
    for at, ((x, y), (_, z)) in enumerate(parts):
        features[at, : len(x)], labels[at, : len(x), 0], labels[at, : len(x), 1] = x, y, z
    weights = (labels >= 0).astype(np.float32)
    together = solve(Problems(*map(torch.from_numpy, (features, labels, weights)), [3, 2]), 0.1)
    for at, ((x, y), (_, z)) in enumerate(parts):
        w, b = solved(x, np.stack([y, z], axis=1), [3, 2], 0.1)
        shift = slice(0, 3), slice(3, 5)
        for part in shift:
            probs = softmax(x @ w[:, part] + b[part])
            beside = softmax(x @ together[0][at].numpy()[:, part] + together[1][at].numpy()[part])
            assert np.abs(probs - beside).max() < 5e-3


def test_values_nobody_states_are_never_answered():
    features, labels = problem(60, 6, 3, seed=4)
    w, b = solved(features, labels[:, None], [5], 0.1)
    assert (b[3:] == NEVER).all()
    assert (w[:, 3:] == 0).all()
    assert softmax(features @ w + b)[:, 3:].max() < 1e-6


def test_extremes_end_well():
    features = np.ones((4, 3), np.float32)
    for labels in ([[0], [0], [0], [0]], [[-1]] * 4, [[0], [-1], [-1], [1]]):
        w, b = solved(features, np.array(labels), [2], 0.1)
        assert np.isfinite(w).all()
        assert np.isfinite(b).all()
    far = np.concatenate([np.full((20, 2), -1e4, np.float32), np.full((20, 2), 1e4, np.float32)])
    w, b = solved(far, np.repeat([[0], [1]], 20, axis=0), [2], 0.05)
    assert (softmax(far @ w + b).argmax(axis=1) == np.repeat([0, 1], 20)).all()


def test_an_attribute_without_values_leaves_the_others_as_they_are() -> None:
    """A list of attributes may name one that no product states: it has no value, and so no column."""
    features, labels = problem(40, 6, 3, seed=5)
    nothing = np.full_like(labels, -1)
    alone = solved(features, labels[:, None], [3], 0.1)
    between = solved(features, np.stack([nothing, labels, nothing], axis=1), [0, 3, 0], 0.1)
    for expected, found in zip(alone, between, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
