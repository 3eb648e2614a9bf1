"""Votes: by hand on a few points; missing labels teach nothing, neighbours in the batch neither."""

import math

import numpy as np
import polars as pl
import pytest

from shelfwise.catalog import Catalog
from shelfwise.recipes import votes as module
from shelfwise.recipes.votes import PRIOR, RIDGE, Votes
from shelfwise.roles import Columns
from shelfwise.taxonomy import Choice, Taxonomy

TAXONOMY = Taxonomy(
    {"K": (Choice("colour", ("blue", "red")), Choice("odd", ()), Choice("size", ("s", "m", "l")))}
)
WIDTH = 0.1


def kept(vectors: list[list[float]], labels: list[list[int]]) -> Votes:
    """Training rows as they are saved, the components not spread out."""
    unit = np.array(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Votes(
        np.ones(unit.shape[1], np.float32),
        {"K": unit.astype(np.float16)},
        {"K": np.array(labels, np.int32)},
        WIDTH,
    )


def shared(votes: list[float], counts: list[int]) -> list[float]:
    """Votes and the prior, as shares."""
    prior = np.array(counts) + 1e-3
    total = np.array(votes) + PRIOR * prior / prior.sum()
    return list(total / total.sum())


def test_by_hand_on_three_points():
    """At right angles to one, on another, against the third: cosines 0, 1, -1."""
    voters = kept([[0, 1], [1, 0], [-1, 0]], [[0, -1, 2], [1, -1, 0], [0, -1, -1]])
    (found,) = voters.vote(TAXONOMY, "K", np.array([[3.0, 0.0]]))
    far, opposite = math.exp(-1 / WIDTH), math.exp(-2 / WIDTH)
    assert found[:2] == pytest.approx(shared([far + opposite, 1], [2, 1]), abs=1e-6)
    assert found[2:] == pytest.approx(shared([1, 0, far], [1, 0, 1]), abs=1e-6)


def test_the_nearest_labelled_row_has_one_vote_however_far():
    """The nearest row states no size, the others are 1 and 2 kernel widths further: they vote 1 and 1/e."""
    angles = [0.0, math.acos(1 - WIDTH), math.acos(1 - 2 * WIDTH)]
    points = [[math.cos(a), math.sin(a)] for a in angles]
    voters = kept(points, [[0, -1, -1], [1, -1, 0], [1, -1, 1]])
    (found,) = voters.vote(TAXONOMY, "K", np.array([[1.0, 0.0]]))
    assert found[2:] == pytest.approx(shared([1, math.exp(-1), 0], [1, 1, 0]), abs=2e-3)
    assert found[:2] == pytest.approx(shared([1, math.exp(-1) + math.exp(-2)], [1, 2]), abs=2e-3)


def test_missing_labels_teach_nothing():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(40, 6)), rng.integers(0, 2, size=(40, 3))
    labels[:, 1] = -1
    queries = rng.normal(size=(7, 6))
    whole = kept(vectors.tolist(), labels.tolist()).vote(TAXONOMY, "K", queries)
    missing = labels.copy()
    missing[20:, 2] = -1
    part = kept(vectors.tolist(), missing.tolist()).vote(TAXONOMY, "K", queries)
    fewer = kept(vectors[:20].tolist(), labels[:20].tolist()).vote(TAXONOMY, "K", queries)
    assert part[:, 2:] == pytest.approx(fewer[:, 2:], abs=1e-6)
    assert np.array_equal(part[:, :2], whole[:, :2])
    none = kept(vectors.tolist(), np.full((40, 3), -1).tolist()).vote(TAXONOMY, "K", queries)
    assert none == pytest.approx(np.tile([1 / 2] * 2 + [1 / 3] * 3, (7, 1)))


def test_shares_sum_to_one_even_where_everything_is_far():
    voters = kept([[1, 0]], [[0, -1, 0]])
    narrow = Votes(voters.spread, voters.vectors, voters.labels, 1e-4)
    for query in ([-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]):
        (found,) = narrow.vote(TAXONOMY, "K", np.array([query]))
        assert found[:2].sum() == pytest.approx(1)
        assert found[2:].sum() == pytest.approx(1)
        assert found[0] > 0.99
    assert narrow.vote(TAXONOMY, "K", np.zeros((0, 2))).shape == (0, 5)


def test_a_row_gets_the_same_votes_in_any_batch(monkeypatch: pytest.MonkeyPatch, one_thread: None):
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(-1, 2, 300), np.full(300, -1), rng.integers(-1, 3, 300)], axis=1)
    voters = kept(rng.normal(size=(300, 32)).tolist(), labels.tolist())
    queries = rng.normal(size=(50, 32))
    whole = voters.vote(TAXONOMY, "K", queries)
    for rows in ([3], [49, 0], list(range(50))[::-1]):
        assert np.array_equal(voters.vote(TAXONOMY, "K", queries[rows]), whole[rows])
    monkeypatch.setattr(module, "CELLS", 1000)
    monkeypatch.setattr(module, "READY", 0)
    assert np.array_equal(voters.vote(TAXONOMY, "K", queries), whole)


def test_learnt_saved_and_read():
    table = pl.DataFrame(
        {
            "id": list("abcde"),
            "cat": list("KKLLL"),
            "colour": ["red", "blue", None, "red", None],
            "n": [None] * 5,
        },
        schema_overrides={"n": pl.String},
    )
    train = Catalog.read(table, columns=Columns(category="cat", choice=("colour",)))
    reduced = np.random.default_rng(2).normal(size=(5, 3)).astype(np.float32)
    voters = Votes.learn(train, reduced, WIDTH)
    assert voters.spread == pytest.approx(np.sqrt(reduced.var(axis=0) + RIDGE))
    assert set(voters.vectors) == {"K", "L"}
    assert np.linalg.norm(voters.vectors["L"].astype(float), axis=1) == pytest.approx(1, abs=2e-3)
    assert voters.labels["K"].tolist() == train.labels("K").tolist()
    read = Votes.of(voters.arrays(train.taxonomy), train.taxonomy, WIDTH)
    for category in ("K", "L"):
        again = read.vote(train.taxonomy, category, reduced)
        assert np.array_equal(again, voters.vote(train.taxonomy, category, reduced))
    own = voters.vote(train.taxonomy, "K", reduced[:2].astype(np.float64))
    stated = train.labels("K")[:, 0]
    assert (own.argmax(axis=1) == stated).all(), "a row looks most like itself"
