"""Predictions and Answers: aligned rows, parts and wholes, and what is said of every cell."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Toy
from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError
from shelfwise.predictions import Block, Familiarity, Predictions, uniform
from shelfwise.taxonomy import Choice, Number, Taxonomy

TAXONOMY = Taxonomy(
    {
        "Kurtis": (Choice("color", ("black", "tea")), Number("price")),
        "Sarees": (
            Choice("border", ("big", "none", "small")),
            Choice("color", ("red", "white")),
            Choice("odd", ()),
        ),
    }
)


def predictions() -> Predictions:
    """Six rows: two Kurtis (0, 3), two Sarees (1, 5), an unreadable one (2) and an unknown one (4)."""
    kurtis = Block("Kurtis", np.array([0, 3]), np.array([[0.25, 0.75], [0.5, 0.5]], np.float32))
    sarees = Block(
        "Sarees",
        np.array([1, 5]),
        np.array([[0.2, 0.7, 0.1, 0.9, 0.1], [0.4, 0.3, 0.3, 0.0, 1.0]], np.float32),
    )
    errors = {2: RowError("image", "truncated"), 4: RowError("category", "there is no category 'X'")}
    return Predictions(TAXONOMY, tuple("abcdef"), (kurtis, sarees), errors, {5: 0.6}, ("a note",))


def same(first: Predictions, second: Predictions) -> bool:
    return (
        first.taxonomy == second.taxonomy
        and first.ids == second.ids
        and dict(first.errors) == dict(second.errors)
        and first.guessed == pytest.approx(second.guessed)
        and [b.category for b in first.blocks] == [b.category for b in second.blocks]
        and all(
            np.array_equal(a.rows, b.rows) and np.array_equal(a.probs, b.probs)
            for a, b in zip(first.blocks, second.blocks, strict=True)
        )
    )


def test_every_row_is_in_one_place():
    whole = predictions()
    assert whole.block("Kurtis") is whole.blocks[0]
    assert whole.block("Socks") is None
    with pytest.raises(PredictionError, match="1 rows are not in exactly one block, the first is row 3"):
        Predictions(TAXONOMY, whole.ids, whole.blocks, {4: whole.errors[4]})
    with pytest.raises(PredictionError, match="the first is row 1"):
        Predictions(TAXONOMY, whole.ids, whole.blocks, {**whole.errors, 0: RowError("image", "x")})
    with pytest.raises(PredictionError, match=r"shape \(2, 2\), not \(2, 5\)"):
        Predictions(TAXONOMY, ("a", "b"), (Block("Sarees", np.arange(2), np.ones((2, 2), np.float32)),))


def cell(value, probability, runner_up, second):
    return {
        "value": value,
        "probability": probability,
        "state": "unsure" if value is None else "answered",
        "candidate": value,
        "runner_up": runner_up,
        "runner_up_probability": second,
    }


def test_answers_by_hand():
    answers = predictions().answers()
    assert answers.of(0) == {"color": cell("tea", 0.75, "black", 0.25)}
    sarees = answers.of(1)
    assert sarees["border"] == cell("none", 0.7, "big", 0.2)
    assert sarees["color"]["value"] == "red"
    assert sarees["odd"] == cell(None, None, None, None)
    assert answers.of(2) == {}
    assert answers.of(3)["color"]["value"] == "black"
    assert answers.of(5)["color"] == cell("white", 1.0, "red", 0.0)


def test_the_table_of_errors():
    frame = predictions().answers().error_frame()
    assert frame.columns == ["row", "id", "field", "error"]
    assert frame.rows() == [
        (3, "c", "image", "truncated"),
        (5, "e", "category", "there is no category 'X'"),
        (6, "f", "category", "the category was empty; predicted 'Sarees' with probability 0.600"),
    ]


def test_select_and_join_are_inverse():
    whole = predictions()
    order = [5, 2, 0, 4, 1, 3]
    shuffled = whole.select(order)
    assert shuffled.ids == tuple("fcaebd")
    assert shuffled.block("Kurtis").rows.tolist() == [2, 5]  # type: ignore[union-attr]
    assert shuffled.guessed == {0: 0.6}
    assert same(shuffled.select(np.argsort(order)), whole)
    parts = [(part, whole.select(part)) for part in ([4, 1], [0, 5], [2, 3])]
    assert same(Predictions.join(parts, whole.ids), whole)


@given(st.permutations(range(6)), st.integers(1, 5))
@settings(max_examples=50, deadline=None)
def test_any_parts_join_to_the_whole(order: list[int], cut: int):
    whole = predictions()
    parts = [(part, whole.select(part)) for part in (order[:cut], order[cut:])]
    assert same(Predictions.join(parts, whole.ids), whole)


def test_parts_that_do_not_fit_are_refused():
    whole = predictions()
    with pytest.raises(PredictionError, match="not in exactly one block"):
        Predictions.join([([0, 1], whole.select([0, 1]))], whole.ids)
    with pytest.raises(PredictionError, match="not in exactly one block"):
        Predictions.join([(range(6), whole), ([0], whole.select([0]))], whole.ids)
    other = Predictions(Taxonomy({"Kurtis": (Choice("color", ("tea", "black")),)}), (), ())
    with pytest.raises(PredictionError, match="different taxonomies"):
        Predictions.join([(range(6), whole), ([], other)], whole.ids)


def test_saved_and_loaded(tmp_path: Path):
    path = tmp_path / "p.parquet"
    predictions().save(path)
    assert same(Predictions.load(path), predictions())
    (tmp_path / "bad.parquet").write_text("x")
    pl.DataFrame({"row": [1]}).write_parquet(tmp_path / "other.parquet")
    for name in ("bad.parquet", "none.parquet", "other.parquet"):
        with pytest.raises(PredictionError, match=name):
            Predictions.load(tmp_path / name)


def test_a_category_without_attributes_survives(tmp_path: Path):
    taxonomy = Taxonomy({"Socks": (Number("price"),)})
    block = Block("Socks", np.arange(2), np.zeros((2, 0), np.float32))
    Predictions(taxonomy, ("a", "b"), (block,)).save(tmp_path / "p.parquet")
    assert Predictions.load(tmp_path / "p.parquet").blocks[0].probs.shape == (2, 0)


def several() -> Predictions:
    """The same with two opinions on the Sarees and none on the Kurtis, and how familiar each row is."""
    whole = predictions()
    kurtis, sarees = whole.blocks
    opinions = (sarees.probs[:, ::-1].copy(), 1 - sarees.probs)
    familiarity = Familiarity(
        np.linspace(0, 1, 6, dtype=np.float32),
        np.full(6, np.nan, np.float32),
        np.arange(6, dtype=np.int32) - 1,
    )
    return replace(whole, blocks=(kurtis, replace(sarees, opinions=opinions)), familiarity=familiarity)


def test_opinions_and_familiarity_go_with_their_rows(tmp_path: Path):
    whole, order = several(), [5, 2, 0, 4, 1, 3]
    shuffled = whole.select(order)
    assert shuffled.familiarity is not None
    assert shuffled.familiarity.likelier.tolist() == [4, 1, -1, 3, 0, 2]
    assert shuffled.familiarity.p_familiar == pytest.approx([1, 0.4, 0, 0.8, 0.2, 0.6])
    joined = Predictions.join([(part, whole.select(part)) for part in ([4, 1], [0, 5], [2, 3])], whole.ids)
    whole.save(tmp_path / "p.parquet")
    for found in (shuffled.select(np.argsort(order)), joined, Predictions.load(tmp_path / "p.parquet")):
        assert found.blocks[0].opinions == ()
        for one, two in zip(found.blocks[1].opinions, whole.blocks[1].opinions, strict=True):
            assert np.array_equal(one, two)


def test_a_part_that_knew_nothing_has_its_probabilities_for_opinions():
    whole = several()
    plain = predictions().select([5])
    joined = Predictions.join([([5], plain), (range(5), whole.select(range(5)))], whole.ids)
    sarees = joined.blocks[1]
    assert len(sarees.opinions) == 2
    assert all(np.array_equal(opinion[1], sarees.probs[1]) for opinion in sarees.opinions)
    assert np.array_equal(sarees.opinions[0][0], whole.blocks[1].opinions[0][0])


def test_uniform():
    assert uniform(TAXONOMY, "Sarees", 2)[1] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2])


def test_stated_cells_are_copied_and_only_they(toy: Toy):
    catalog = toy.catalog
    blocks = [
        Block(name, catalog.rows(name), uniform(catalog.taxonomy, name, len(catalog.rows(name))))
        for name in catalog.present
    ]
    answers = Predictions(catalog.taxonomy, catalog.ids, tuple(blocks)).answers()
    kept = answers.keep_stated(catalog)
    assert kept.stated
    assert not answers.stated
    for block in kept.blocks:
        stated = catalog.labels(block.category) >= 0
        assert np.array_equal(block.codes[stated], catalog.labels(block.category)[stated])
        assert np.isnan(block.probability[stated]).all()
        assert (block.codes[~stated] == 0).all()
        assert not np.isnan(block.probability[~stated]).any()
    states = {entry["state"] for row in range(len(catalog)) for entry in kept.of(row).values()}
    assert states == {"stated", "answered"}
    with pytest.raises(PredictionError, match="do not line up"):
        answers.keep_stated(catalog.select(np.arange(len(catalog))[::-1]))


def test_stated_cells_with_errors_and_guesses_between(tmp_path: Path):
    table = pl.DataFrame(
        {"id": list("abcd"), "category": ["K", "K", None, "K"], "c": ["x", "y", "x", "y"]},
        schema_overrides={"category": pl.String},
    )
    from shelfwise.roles import Columns

    catalog = Catalog.read(table, images=tmp_path, columns=Columns(choice=("c",)))
    block = Block("K", np.array([0, 2, 3]), np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]], np.float32))
    found = Predictions(catalog.taxonomy, catalog.ids, (block,), {1: RowError("image", "x")}, {2: 0.5})
    kept = found.answers().keep_stated(catalog).blocks[0]
    assert kept.codes.ravel().tolist() == [0, 1, 1]
    assert np.isnan(kept.probability.ravel()).tolist() == [True, False, True]
