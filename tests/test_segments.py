"""Segments: attributes side by side are worked out as each by itself, and a row as it is alone."""

import numpy as np
import pytest
from scipy.special import softmax

from shelfwise.segments import Segments, segments
from shelfwise.taxonomy import Choice, Taxonomy

WIDTHS = (3, 0, 1, 40, 0, 9, 150)


def logits(rows: int) -> np.ndarray:
    found = np.random.default_rng(0).normal(scale=5, size=(rows, sum(WIDTHS)))
    found[0, :3] = [1000.0, 1000.0, -np.inf]
    return found


def test_each_attribute_is_worked_out_by_itself():
    at, given = Segments.of(WIDTHS), logits(60)
    assert at.present == (0, 2, 3, 5, 6)
    assert at.slices == (slice(0, 3), slice(3, 4), slice(4, 44), slice(44, 53), slice(53, 203))
    probs, sums, most, places = (
        at.softmax(given.copy()),
        at.sums(given[1:]),
        at.largest(given),
        at.places(given),
    )
    for column, part in enumerate(at.slices):
        assert probs[:, part] == pytest.approx(softmax(given[:, part], axis=1), rel=1e-13)
        assert sums[:, column] == pytest.approx(given[1:, part].sum(axis=1), rel=1e-11)
        assert np.array_equal(most[:, column], given[:, part].max(axis=1))
        assert np.array_equal(places[:, column], given[:, part].argmax(axis=1) + part.start)
    assert at.spread(np.arange(5)).tolist() == np.repeat(np.arange(5), [3, 1, 40, 9, 150]).tolist()


def test_a_row_is_the_same_in_any_company():
    at, given = Segments.of(WIDTHS), logits(60)
    whole = at.softmax(given.copy())
    for rows in ([7], [59, 0], list(range(33))):
        assert np.array_equal(at.softmax(given[rows]), whole[rows])
    wide = np.asfortranarray(np.concatenate([given, given], axis=1))
    assert np.array_equal(at.softmax(wide[:, : given.shape[1]]), whole), (
        "laid out otherwise, and a part of more"
    )


@pytest.mark.parametrize("widths", [(), (0, 0)])
def test_attributes_without_values(widths: tuple[int, ...]):
    at, nothing = Segments.of(widths), np.zeros((2, 0))
    assert at.softmax(nothing).shape == at.sums(nothing).shape == at.places(nothing).shape == (2, 0)
    assert at.spread(np.zeros((2, 0))).shape == (2, 0)


def test_the_attributes_of_a_category():
    taxonomy = Taxonomy({"K": (Choice("colour", ("blue", "red")), Choice("odd", ()), Choice("size", ("s",)))})
    assert segments(taxonomy, "K").slices == (slice(0, 2), slice(2, 3))
    assert segments(taxonomy, "K") is segments(taxonomy, "K")
