"""Heads of attributes that several categories have in common."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from shelfwise.recipes.shared import Commons, SharedHeads
from shelfwise.taxonomy import Choice, Taxonomy

TAXONOMY = Taxonomy(
    {
        "Shirts": (Choice("colour", ("red", "blue")), Choice("type", ("tee", "polo"))),
        "Shoes": (Choice("type", ("boot", "clog")), Choice("colour", ("blue", "green"))),
        "Bags": (Choice("colour", ("1", "2")), Choice("strap", ("long", "short"))),
    }
)


def test_a_category_shares_an_attribute_if_a_value_is_common():
    commons = Commons.of(TAXONOMY)
    assert commons.values == {"colour": ("red", "blue", "green")}
    assert commons.members == {"colour": frozenset({"Shirts", "Shoes"})}
    assert commons.sizes == [3]
    assert commons.columns("Shoes") == {1: [1, 2]}
    assert commons.columns("Bags") == {}


def test_what_nobody_shares_is_left_to_the_own_heads():
    commons = Commons.of(TAXONOMY)
    weight = np.array([[0.0, 5.0, -5.0], [0.0, -5.0, 5.0]], np.float32)
    shared = SharedHeads(commons, weight, np.zeros(3, np.float32))
    own = np.tile(np.array([0.3, 0.7, 0.5, 0.5], np.float32), (2, 1))
    shoes, bags = shared.part("Shoes"), shared.part("Bags")
    said = shoes.opinion(np.eye(2) @ shoes.weight + shoes.bias, own)
    np.testing.assert_array_equal(said[:, :2], own[:, :2])
    np.testing.assert_allclose(said[:, 2:].argmax(axis=1), [0, 1])
    np.testing.assert_array_equal(bags.opinion(np.zeros((2, 0)), own), own)


def _table(folder: Path) -> tuple[sw.Catalog, list[str]]:
    """Write products whose title says the colour, but of shoes only the red ones with a label have such a title."""
    colours, rows, truth = ("red", "blue", "green"), [], []
    for number in range(240):
        category, colour = ("Shirts", "Shoes")[number % 2], colours[number // 2 % 3]
        mute = category == "Shoes" and number < 60 and colour != "red"
        rows.append(
            {
                "id": f"{number:03d}",
                "category": category,
                "colour": colour if category == "Shirts" or number < 60 else "",
                "title": f"{'a' if mute else colour} thing of kind {number % 7} and size {number % 11}",
            }
        )
        truth.append("" if mute else colour)
    path = folder / "table.csv"
    pl.DataFrame(rows).write_csv(path)
    return sw.Catalog.read(path), truth


@pytest.mark.parametrize("shared", [True, False])
def test_a_category_learns_from_the_labels_of_another(tmp_path: Path, shared: bool):
    catalog, truth = _table(tmp_path)
    probe = sw.Probe(choice_inputs=("text",), shared=shared, look_alikes=0)
    predictor = probe.fit(catalog, None, sw.Machine(cache=None, jobs=1), 0)
    said = predictor.predict(catalog, sw.Machine(cache=None, jobs=1))
    block = next(block for block in said.blocks if block.category == "Shoes")
    assert len(block.opinions) == (2 if shared else 0)
    choice = catalog.taxonomy.choice("Shoes", "colour")
    at = [item.name for item in catalog.taxonomy.choices("Shoes")].index("colour")
    part = catalog.taxonomy.slices("Shoes")[at]
    opinion = block.opinions[1] if shared else block.probs
    guess = [choice.values[code] for code in opinion[:, part].argmax(axis=1)]
    right = [guess[i] == truth[row] for i, row in enumerate(block.rows) if truth[row]]
    assert all(right) is shared


def test_shared_heads_are_kept(tmp_path: Path):
    catalog, _ = _table(tmp_path)
    machine = sw.Machine(cache=None, jobs=1)
    probe = sw.Probe(choice_inputs=("text",))
    predictor = probe.fit(catalog, None, machine, 0)
    (tmp_path / "kept").mkdir()
    predictor.save(tmp_path / "kept")
    again = probe.load(tmp_path / "kept", catalog.taxonomy)
    for block, other in zip(
        predictor.predict(catalog, machine).blocks, again.predict(catalog, machine).blocks, strict=True
    ):
        assert len(block.opinions) == 3
        np.testing.assert_array_equal(block.probs, other.probs)
        np.testing.assert_array_equal(block.opinions[2], other.opinions[2])
