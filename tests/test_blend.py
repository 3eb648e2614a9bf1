"""Blending predictions: weights that are found, shrunk and fair; class orders that are checked."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from shelfwise.answers import RowError
from shelfwise.errors import BundleError, PredictionError, UsageError
from shelfwise.predictions import Block, Predictions
from shelfwise.recipes.gate import Gate
from shelfwise.recipes.sides import side_by_side, what_differs
from shelfwise.recipes.simplex import Weights, best_weights
from shelfwise.recipes.stacking import Ridge, Trees
from shelfwise.taxonomy import Choice, Taxonomy

TAXONOMY = Taxonomy(
    {"Cups": (Choice("colour", ("blue", "red", "teal")), Choice("size", ("big", "small"))), "Plates": ()}
)
CUPS = TAXONOMY.slices("Cups")


def say(rng: np.random.Generator, labels_N: np.ndarray, right: float, values: int) -> np.ndarray:
    """Probabilities whose most probable value is right this often."""
    guess_N = np.where(rng.random(len(labels_N)) < right, labels_N, rng.integers(0, values, len(labels_N)))
    probs_Nv = rng.dirichlet(np.ones(values), len(labels_N)) * 0.4
    probs_Nv[np.arange(len(labels_N)), guess_N] += 0.6
    return probs_Nv.astype(np.float32)


def table(n: int, seed: int = 0) -> tuple[sw.Catalog, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    colour, size = rng.integers(0, 3, n), rng.integers(0, 2, n)
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(n)],
            "category": ["Cups"] * n,
            "colour": np.array(["blue", "red", "teal"])[colour],
            "size": np.array(["big", "small"])[size],
        }
    )
    return sw.Catalog.read(frame), colour, size


def member(catalog: sw.Catalog, *parts: np.ndarray, opinions: tuple[np.ndarray, ...] = ()) -> Predictions:
    block = Block("Cups", np.arange(len(catalog)), np.concatenate(parts, axis=1), opinions)
    return Predictions(catalog.taxonomy, catalog.ids, (block,))


def two(n: int = 400, seed: int = 0) -> tuple[sw.Catalog, list[Predictions]]:
    """Two members: the first knows colours, the second sizes."""
    catalog, colour, size = table(n, seed)
    rng = np.random.default_rng(seed + 1)
    first = member(catalog, say(rng, colour, 0.9, 3), say(rng, size, 0.1, 2))
    second = member(catalog, say(rng, colour, 0.1, 3), say(rng, size, 0.9, 2))
    return catalog, [first, second]


def right(predictions: Predictions, catalog: sw.Catalog) -> list[float]:
    codes = predictions.answers().blocks[0].candidate
    return [float(share) for share in (codes == catalog.labels("Cups")).mean(axis=0)]


@pytest.mark.parametrize("metric", ["harmonic_f1", "accuracy", "log_loss"])
def test_weights_go_to_whom_knows_the_attribute(metric: str):
    catalog, members = two()
    weights = sw.blend_weights(members, catalog, metric=metric)
    colour, size = weights.of("Cups", "colour"), weights.of("Cups", "size")
    assert colour[0] > 0.65
    assert size[1] > 0.65
    assert sum(colour) == pytest.approx(1)
    fresh, unseen = two(seed=9)
    mixed = right(sw.blend(unseen, weights), fresh)
    equal = right(sw.blend(unseen), fresh)
    assert mixed[0] > equal[0] + 0.02
    assert mixed[1] > equal[1] + 0.02


@pytest.mark.parametrize("metric", ["harmonic_f1", "log_loss"])
def test_fewer_groups_mean_more_equal_weights(metric: str):
    catalog, members = two()
    many = sw.blend_weights(members, catalog, metric=metric).of("Cups", "colour")
    fewer = sw.blend_weights(members, catalog, metric=metric, groups=np.arange(400) % 40).of("Cups", "colour")
    hardly = sw.blend_weights(members, catalog, metric=metric, groups=np.arange(400) % 10).of(
        "Cups", "colour"
    )
    # A metric of counts stands still between two answers that change; a likelihood does not.
    assert abs(many[0] - 0.5) >= abs(fewer[0] - 0.5) + (0.01 if metric == "log_loss" else 0)
    assert fewer[0] > 0.5
    assert hardly == (0.5, 0.5)


@pytest.mark.parametrize("metric", ["harmonic_f1", "log_loss"])
def test_the_order_of_members_and_rows_makes_no_difference(metric: str):
    catalog, members = two()
    order = np.random.default_rng(3).permutation(len(catalog))
    first = sw.blend_weights(members, catalog, metric=metric).of("Cups", "colour")
    turned = [p.select(order) for p in reversed(members)]
    second = sw.blend_weights(turned, catalog.select(order), metric=metric).of("Cups", "colour")
    assert first == pytest.approx(second[::-1], abs=1e-6)


def test_members_alike_keep_equal_weights():
    catalog, (first, _) = two()
    assert sw.blend_weights([first, first, first], catalog).of("Cups", "colour") == pytest.approx(
        (1 / 3,) * 3
    )


def test_log_loss_weights_are_the_optimum_of_their_objective():
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 300)
    probs = np.stack([say(rng, labels, share, 3) for share in (0.8, 0.6, 0.2)])
    found = best_weights(probs, labels, 300, "log_loss")
    chance = probs[:, np.arange(300), labels].astype(float)

    def loss(weights: np.ndarray) -> float:
        return float(-np.log(weights @ chance).sum() - 10 * np.log(weights).sum())

    for _ in range(200):
        other = np.maximum(found + rng.normal(0, 0.02, 3), 1e-6)
        assert loss(found) <= loss(other / other.sum()) + 1e-3


def test_a_blend_is_the_mean_of_probabilities_and_keeps_what_members_say():
    catalog, (first, second) = two(20)
    own = (first.blocks[0].probs, second.blocks[0].probs)
    first = replace(first, blocks=(replace(first.blocks[0], opinions=own),))
    weights = Weights.fixed(catalog.taxonomy, (3, 1))
    found = sw.blend([first, second], weights)
    block = found.blocks[0]
    expected = 0.75 * first.blocks[0].probs + 0.25 * second.blocks[0].probs
    assert np.allclose(block.probs, expected, atol=1e-6)
    assert len(block.opinions) == 3
    assert np.array_equal(block.opinions[2], second.blocks[0].probs)


def test_a_member_that_failed_or_is_unsure_leaves_the_row_to_the_others():
    _, (first, second) = two(20)
    kept = np.arange(1, 20)
    block = second.blocks[0]
    second = replace(
        second, blocks=(block.take(kept, kept),), errors={0: RowError("image", "gone")}, unsure={5: ("size",)}
    )
    found = sw.blend([first, second])
    assert not found.errors
    assert np.array_equal(found.blocks[0].probs[0], first.blocks[0].probs[0])
    assert np.array_equal(found.blocks[0].probs[5, CUPS[1]], first.blocks[0].probs[5, CUPS[1]])
    assert not np.array_equal(found.blocks[0].probs[5, CUPS[0]], first.blocks[0].probs[5, CUPS[0]])
    assert not found.unsure
    both = sw.blend([replace(first, unsure={5: ("size", "colour")}), second])
    assert both.unsure == {5: ("size",)}
    broken = replace(
        first, blocks=(first.blocks[0].take(kept, kept),), errors={0: RowError("image", "no file")}
    )
    assert sw.blend([broken, second]).errors == {0: RowError("image", "no file")}


def test_a_guessed_category_is_settled_by_probability():
    taxonomy = TAXONOMY
    cups = Block("Cups", np.array([0]), np.array([[0.5, 0.3, 0.2, 0.6, 0.4]], np.float32))
    plates = Block("Plates", np.array([0]), np.zeros((1, 0), np.float32))
    parts = [
        Predictions(taxonomy, ("a",), (block,), guessed={0: p})
        for block, p in ((cups, 0.9), (plates, 0.5), (cups, 0.3))
    ]
    found = sw.blend(parts)
    assert [block.category for block in found.blocks] == ["Cups"]
    assert found.guessed[0] == pytest.approx(0.4)
    assert found.blocks[0].probs[0].tolist() == pytest.approx([0.5, 0.3, 0.2, 0.6, 0.4])


def test_class_orders_are_checked_and_the_difference_named():
    _, (first, second) = two(20)
    cups = TAXONOMY.choices("Cups")
    changes = {
        "the values of Cups/colour stand in another order": (
            Choice("colour", ("red", "blue", "teal")),
            cups[1],
        ),
        "Cups/colour of the second has no value 'teal'": (Choice("colour", ("blue", "red")), cups[1]),
        "Cups/size of the first has no value 'huge'": (cups[0], Choice("size", ("big", "huge", "small"))),
        "'Cups' of the second has no attribute 'size'": (cups[0],),
        "the attributes of 'Cups' stand in another order": (cups[1], cups[0]),
    }
    for words, choices in changes.items():
        assert what_differs(TAXONOMY, Taxonomy({"Cups": choices, "Plates": ()})) == words
    assert what_differs(TAXONOMY, Taxonomy({"Cups": cups})) == "the second has no category 'Plates'"
    assert what_differs(TAXONOMY, Taxonomy({"Cups": cups, "Plates": ()})) == ""

    names = ("red", "blue", "teal")
    other = Taxonomy({"Cups": (Choice("colour", names), cups[1])})
    turned = replace(second, taxonomy=other)
    with pytest.raises(PredictionError, match="values of Cups/colour stand in another order"):
        sw.blend([first, turned])


def test_what_does_not_fit_is_refused():
    catalog, (first, second) = two(30)
    with pytest.raises(PredictionError, match="of other products; on one side only: 'p29'"):
        sw.blend([first, second.select(np.arange(29))])
    with pytest.raises(PredictionError, match="the same ids in another order"):
        sw.blend([first, second.select(np.arange(30)[::-1])])
    with pytest.raises(PredictionError, match="weights of 3 members"):
        sw.blend([first, second], Weights.fixed(catalog.taxonomy, (1, 1, 1)))
    with pytest.raises(PredictionError, match="no predictions"):
        sw.blend([])
    with pytest.raises(UsageError, match="no metric called 'harmonic'"):
        sw.blend_weights([first, second], catalog, metric="harmonic")
    with pytest.raises(UsageError, match="30 products, but groups"):
        sw.blend_weights([first, second], catalog, groups=[1, 2])
    with pytest.raises(UsageError, match="positive sum"):
        Weights.fixed(catalog.taxonomy, (0.0, 0.0))


def test_weights_are_saved_as_they_are(tmp_path):
    catalog, members = two(60)
    weights = sw.blend_weights(members, catalog)
    weights.save(tmp_path / "weights.json")
    loaded = Weights.load(tmp_path / "weights.json")
    assert loaded.pairs == weights.pairs
    (tmp_path / "weights.json").write_text('{"format": 2}', encoding="utf-8")
    with pytest.raises(BundleError, match="format 2 is not known"):
        Weights.load(tmp_path / "weights.json")


@pytest.mark.parametrize("learner", [Ridge, Trees])
def test_stacking_learns_what_a_mean_cannot(learner, tmp_path):
    """One member calls everything by the neighbour's name: wrong always, and worth knowing."""
    catalog, colour, size = table(600)
    rng = np.random.default_rng(5)

    def members(colour_N: np.ndarray, of: sw.Catalog, size_N: np.ndarray) -> list[Predictions]:
        shifted = say(rng, (colour_N + 1) % 3, 0.95, 3)
        return [
            member(of, shifted, say(rng, size_N, 0.3, 2)),
            member(of, say(rng, colour_N, 0.3, 3), say(rng, size_N, 0.3, 2)),
        ]

    stack = learner.learn(side_by_side(members(colour, catalog, size)), catalog)
    test, test_colour, test_size = table(300, seed=7)
    said = members(test_colour, test, test_size)
    side = side_by_side(said).blocks[0]
    found = stack.combine(side)
    accuracy = float((found[:, CUPS[0]].argmax(axis=1) == test_colour).mean())
    assert accuracy > 0.85
    assert accuracy > right(sw.blend(said), test)[0] + 0.3
    for part in CUPS:
        assert np.allclose(found[:, part].sum(axis=1), 1, atol=1e-5)
    stack.save(tmp_path)
    assert np.array_equal(learner.load(tmp_path, catalog.taxonomy).combine(side), found)


def test_a_gate_learns_when_to_trust_a_member(tmp_path):
    """A member that is right on familiar products only."""
    catalog, colour, _ = table(900)

    def members(of: sw.Catalog, colour_N: np.ndarray, near_N: np.ndarray, seed: int) -> list[Predictions]:
        rng = np.random.default_rng(seed)
        first = np.where(
            (near_N > 0.5)[:, None], say(rng, colour_N, 0.95, 3), say(rng, (colour_N + 1) % 3, 0.9, 3)
        )
        flat = np.full((len(of), 2), 0.5, np.float32)
        return [member(of, first, flat), member(of, say(rng, colour_N, 0.6, 3), flat)]

    near = np.random.default_rng(1).random(900).astype(np.float32)
    said = members(catalog, colour, near, 2)
    weights = sw.blend_weights(said, catalog, metric="log_loss")
    gate = Gate.learn(side_by_side(said), catalog, weights, near)
    test, test_colour, _ = table(400, seed=8)
    test_near = np.random.default_rng(3).random(400).astype(np.float32)
    unseen = members(test, test_colour, test_near, 4)
    side = side_by_side(unseen).blocks[0]
    found = gate.combine(side, test_near)
    gated = float((found[:, CUPS[0]].argmax(axis=1) == test_colour).mean())
    assert gated > right(sw.blend(unseen, weights), test)[0] + 0.05
    gate.save(tmp_path)
    assert np.array_equal(Gate.load(tmp_path, catalog.taxonomy, weights).combine(side, test_near), found)
    assert np.isfinite(gate.combine(side)).all()
