"""Shares of values by dealing groups out anew: chance is what it is said to be, and a change is found."""

import numpy as np
import pytest

from shelfwise.trust import permuted
from shelfwise.trust.permuted import Values, as_rare
from shelfwise.trust.shift import Stratum, sampled, shares

PARTS = (slice(0, 5), slice(5, 7))


def drawn(rng: np.random.Generator, groups: int, tripled: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities of two attributes that depend on each other; the copies of a group are all alike."""
    common = np.array([0.5, 0.22, 0.15, 0.05, 0.08])
    often = np.array([0.4, 0.18, 0.11, 0.15, 0.16]) if tripled else common
    value = rng.choice(5, groups, p=often)
    heard = np.log(common) + (np.eye(5)[value] + 0.6 * rng.standard_normal((groups, 5))) / 0.6**2
    first = np.exp(heard) / np.exp(heard).sum(1, keepdims=True)
    second = np.stack([first[:, 0], 1 - first[:, 0]], axis=1)
    size = rng.integers(1, 6, groups)
    at = np.repeat(np.arange(groups), size)
    return np.concatenate([first, second], axis=1)[at], at


def pair(rng: np.random.Generator) -> Values:
    return Values(Stratum(sampled(*drawn(rng, 300)), sampled(*drawn(rng, 90))), PARTS)


@pytest.mark.parametrize("dealt", [permuted.DEALT, 40])
def test_chance_is_reported_as_often_as_was_said(monkeypatch: pytest.MonkeyPatch, dealt: int):
    """Two categories, copies in groups; also where many groups are dealt out together."""
    monkeypatch.setattr(permuted, "DEALT", dealt)
    rng, rare = np.random.default_rng(1), []
    for _ in range(100):
        both = [pair(rng), pair(rng)]
        rare.append(float(as_rare(min(each.likely()[0].min() for each in both), both, 99)))
    assert 0.01 <= np.mean(np.array(rare) <= 0.05) <= 0.1
    assert 0.3 <= np.mean(np.array(rare) <= 0.5) <= 0.7


def test_probabilities_tell_more_than_answers():
    rng, found, by_answers, named = np.random.default_rng(2), 0, 0, []
    for _ in range(30):
        (first, at), (then, other) = drawn(rng, 800), drawn(rng, 220, tripled=True)
        values = Values(Stratum(sampled(first, at), sampled(then, other)), PARTS)
        p_A, most_A = values.likely()
        if as_rare(p_A[0], [values], 399) <= 0.01:
            found += 1
            named.append(int(most_A[0]))
        sides = [
            sampled(np.eye(5)[each[:, :5].argmax(1)], group) for each, group in ((first, at), (then, other))
        ]
        by_answers += shares(Stratum(*sides)).p <= 0.01 / len(PARTS)
    assert found >= by_answers + 3
    assert set(named) <= {0, 3, 4}
    assert named.count(3) + named.count(4) >= 0.7 * found


def test_the_order_of_the_groups_changes_nothing():
    rng = np.random.default_rng(3)
    (first, group), (then, other) = drawn(rng, 200), drawn(rng, 60)
    one = Values(Stratum(sampled(first, group), sampled(then, other)), PARTS)
    turned = Values(Stratum(sampled(first, 999 - group), sampled(then, 999 - other)), PARTS)
    assert np.allclose(one.by_chance(50, 4), turned.by_chance(50, 4), rtol=1e-9)
    assert not np.allclose(one.by_chance(50, 4), one.by_chance(50, 5))


def test_what_is_rare_is_not_tested_and_what_is_constant_is_no_finding():
    same = np.tile([0.99, 0.005, 0.005, 0.0, 0.0, 1.0, 0.0], (100, 1))
    values = Values(Stratum(sampled(same, np.arange(100)), sampled(same[:50], np.arange(50))), PARTS)
    assert values.likely()[0].tolist() == [1.0, 1.0]
    assert as_rare([1.0], [values], 9).tolist() == [1.0]
