"""Evidence: probabilities beside the truth of the same rows, kept to the bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import Toy
from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError
from shelfwise.predictions import Block, Predictions, uniform
from shelfwise.roles import Columns
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.evidence import Evidence, EvidenceBlock


def catalog() -> Catalog:
    """Two categories; row 2 has no category, row 4 no label at all."""
    table = pl.DataFrame(
        {
            "id": ["a", "ü–1", "c", "007", "袜子", "=f"],
            "category": ["K", "S", None, "K", "S", "K"],
            "colour": ["red", "blue", "red", "tea", None, None],
            "size": [None, "big", None, "small", None, "big"],
        },
        schema_overrides={"category": pl.String},
    )
    return Catalog.read(table, images=Path(), columns=Columns(choice=("colour", "size")))


def predictions(read: Catalog, *, opinions: bool = True) -> Predictions:
    """Row 2 is guessed to be a K, row 3 has no readable picture."""
    rng = np.random.default_rng(0)
    blocks = []
    for name, rows in (("K", [0, 2, 5]), ("S", [1, 4])):
        parts = [rng.random((len(rows), read.taxonomy.width(name))).astype(np.float32) for _ in range(3)]
        for part in read.taxonomy.slices(name):
            for probs in parts:
                probs[:, part] /= probs[:, part].sum(axis=1, keepdims=True)
        blocks.append(Block(name, np.array(rows), parts[0], tuple(parts[1:]) if opinions else ()))
    errors = {3: RowError("image", "truncated")}
    return Predictions(read.taxonomy, read.ids, tuple(blocks), errors, {2: 0.9})


def same(first: Evidence, second: Evidence) -> bool:
    return (
        first.taxonomy == second.taxonomy
        and first.ids == second.ids
        and np.array_equal(first.group, second.group)
        and np.array_equal(first.fold, second.fold)
        and len(first.blocks) == len(second.blocks)
        and all(
            a.category == b.category
            and np.array_equal(a.rows, b.rows)
            and a.probs.tobytes() == b.probs.tobytes()
            and np.array_equal(a.labels, b.labels)
            and [o.tobytes() for o in a.opinions] == [o.tobytes() for o in b.opinions]
            for a, b in zip(first.blocks, second.blocks, strict=True)
        )
    )


def test_rows_with_a_category_of_their_own_and_a_picture_are_evidence():
    read = catalog()
    found = predictions(read)
    evidence = Evidence.of(found, read, [0, 1, 2, 2, 3, 0], [0, 1, 0, 0, 1, 0])
    assert len(evidence) == 6
    assert {b.category: b.rows.tolist() for b in evidence.blocks} == {"K": [0, 5], "S": [1, 4]}
    block = evidence.block("K")
    assert block is not None
    assert np.array_equal(block.probs, found.blocks[0].probs[[0, 2]])
    assert np.array_equal(block.opinions[1], found.blocks[0].opinions[1][[0, 2]])
    choices = read.taxonomy.choices("K")
    stated = [[choices[0].codes["red"], -1], [-1, choices[1].codes["big"]]]
    assert block.labels.tolist() == stated
    assert evidence.block("T") is None
    back = evidence.predictions()
    assert set(back.errors) == {2, 3}
    assert np.array_equal(back.blocks[1].opinions[0], found.blocks[1].opinions[0])


def test_pairs_have_the_labelled_rows_of_every_attribute():
    read = catalog()
    evidence = Evidence.of(predictions(read), read, [0, 1, 2, 2, 3, 7], [0, 1, 0, 0, 1, 2])
    pairs = {pair.name: pair for pair in evidence.pairs()}
    assert list(pairs) == [(category, choice.name) for category, choice in read.taxonomy.pairs()]
    size = pairs["K", "size"]
    assert (size.rows.tolist(), size.group.tolist(), size.fold.tolist()) == ([5], [7], [2])
    part = read.taxonomy.slices("K")[1]
    block = evidence.block("K")
    assert block is not None
    assert np.array_equal(size.probs, block.probs[1:, part])
    assert [np.array_equal(o, b[1:, part]) for o, b in zip(size.opinions, block.opinions, strict=True)]
    assert size.counts.tolist() == [int(value == "big") for value in size.choice.values]
    colour = pairs["K", "colour"]
    assert colour.select([0]).rows.tolist() == [0]
    assert colour.select(np.array([False])).labels.tolist() == []
    plain = Evidence.of(predictions(read, opinions=False), read, range(6))
    assert [np.array_equal(p.opinions[0], p.probs) for p in plain.pairs()], "the probabilities alone"
    assert (plain.fold == 0).all()


def test_an_attribute_without_a_block_has_no_rows():
    read = catalog()
    evidence = Evidence.of(predictions(read), read, range(6)).select([False, True, False, False, True, False])
    assert [block.category for block in evidence.blocks] == ["S"]
    empty = evidence.pair("K", 0)
    width = len(read.taxonomy.choices("K")[0].values)
    assert (empty.probs.shape, len(empty.labels), empty.counts.tolist()) == ((0, width), 0, [0] * width)
    assert len(list(evidence.pairs())) == len(list(read.taxonomy.pairs()))


def test_some_rows_keep_their_place():
    read = catalog()
    evidence = Evidence.of(predictions(read), read, range(6), [0, 1, 2, 0, 1, 2])
    some = evidence.select([True, True, False, False, False, False])
    assert some.ids == evidence.ids
    assert {b.category: b.rows.tolist() for b in some.blocks} == {"K": [0], "S": [1]}
    first, whole = some.block("K"), evidence.block("K")
    assert first is not None
    assert whole is not None
    assert np.array_equal(first.probs, whole.probs[:1])
    assert np.array_equal(first.opinions[1], whole.opinions[1][:1])


@pytest.mark.parametrize("opinions", [True, False])
def test_saved_and_loaded_to_the_bit(tmp_path: Path, opinions: bool):
    read = catalog()
    group = np.array([0, 1, 2, 2, 3, 2**40])
    evidence = Evidence.of(predictions(read, opinions=opinions), read, group, [0, 1, 2, 0, 1, 2])
    evidence.save(tmp_path / "e.parquet")
    loaded = Evidence.load(tmp_path / "e.parquet")
    assert same(loaded, evidence)
    assert loaded.ids[1] == "ü–1"
    loaded.save(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "e.parquet").read_bytes()


def test_categories_with_different_numbers_of_opinions_are_kept_apart(tmp_path: Path):
    read = catalog()
    evidence = Evidence.of(predictions(read), read, range(6))
    blocks = (evidence.blocks[0], replace(evidence.blocks[1], opinions=()))
    evidence = replace(evidence, blocks=blocks)
    evidence.save(tmp_path / "e.parquet")
    assert same(Evidence.load(tmp_path / "e.parquet"), evidence)


def test_an_attribute_without_values_and_no_rows_at_all(tmp_path: Path):
    taxonomy = Taxonomy({"K": (Choice("odd", ()), Choice("size", ("big", "small"))), "N": (Choice("x", ()),)})
    blocks = (
        EvidenceBlock(
            "K", np.array([1]), np.array([[0.25, 0.75]], np.float32), np.array([[-1, 1]], np.int32)
        ),
        EvidenceBlock("N", np.array([0]), np.zeros((1, 0), np.float32), np.array([[-1]], np.int32)),
    )
    for kept in (blocks, ()):
        evidence = Evidence(taxonomy, ("a", "b"), np.arange(2), np.zeros(2, np.int64), kept)
        evidence.save(tmp_path / "e.parquet")
        assert same(Evidence.load(tmp_path / "e.parquet"), evidence)
        assert [pair.name for pair in evidence.pairs()] == [("K", "size")]


def test_other_rows_are_refused(toy: Toy):
    read = toy.catalog
    rows = {name: read.rows(name) for name in read.present}
    blocks = tuple(Block(n, r, uniform(read.taxonomy, n, len(r))) for n, r in rows.items())
    found = Predictions(read.taxonomy, read.ids, blocks)
    Evidence.of(found, read, range(len(read)))
    with pytest.raises(PredictionError, match="do not line up"):
        Evidence.of(found, read.select(np.arange(len(read))[::-1]), range(len(read)))
    with pytest.raises(PredictionError, match=r"180 rows, but groups of \(3,\)"):
        Evidence.of(found, read, range(3))
    with pytest.raises(PredictionError, match=r"folds of \(2,\)"):
        Evidence.of(found, read, range(len(read)), [0, 1])
    other = Taxonomy({**read.taxonomy.entries, "More": (Choice("colour", ("red",)),)})
    with pytest.raises(PredictionError, match="another taxonomy"):
        Evidence.of(replace(found, taxonomy=other), read, range(len(read)))


def test_files_that_are_not_evidence(tmp_path: Path):
    read = catalog()
    predictions(read).save(tmp_path / "predictions.parquet")
    (tmp_path / "text.parquet").write_text("x")
    pl.DataFrame({"id": ["a"]}).write_parquet(tmp_path / "other.parquet")
    for name in ("predictions.parquet", "text.parquet", "other.parquet", "none.parquet"):
        with pytest.raises(BundleError, match=name):
            Evidence.load(tmp_path / name)
