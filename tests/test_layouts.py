"""Layouts: answers as the training table was laid out, and read back to be scored."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from conftest import Toy
from shelfwise.answers import AnswerBlock, Answers, RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError
from shelfwise.evaluate import evaluate
from shelfwise.layouts import answer_frame, read_answers, write_answers
from shelfwise.predictions import Block, Predictions
from shelfwise.roles import Columns, Layout
from shelfwise.taxonomy import Choice, Number, Taxonomy

TAXONOMY = Taxonomy(
    {
        "Kurtis": (Choice("color", ("black", "tea")), Number("price")),
        "Sarees": (Choice("border", ("big", "none")), Choice("color", ("red", "white")), Number("price")),
    }
)
CHALLENGE = Layout("challenge", "id", "Category", ("attr_1", "attr_2", "attr_3"), "dummy_value")
NAMED = Layout("named", "sku", "kind", ("border", "color", "price"))


def answers() -> Answers:
    blocks = (
        AnswerBlock(
            "Kurtis",
            np.array([1, 3]),
            np.array([[1], [-1]]),
            np.array([[0.8], [0.4]], np.float32),
            np.array([[0], [0]]),
        ),
        AnswerBlock(
            "Sarees",
            np.array([0]),
            np.array([[1, 0]]),
            np.array([[0.75, np.nan]], np.float32),
            np.array([[0, -1]]),
        ),
    )
    errors = {2: RowError("image", "truncated: cut off"), 4: RowError("category", "there is no category 'X'")}
    cells = ("Sarees", "Kurtis", "Sarees", None, "X")
    return Answers(TAXONOMY, ("007", "1", "=2", "3", "4"), blocks, errors, {3: 0.9}, categories=cells)


def test_challenge_layout():
    frame = answer_frame(answers(), CHALLENGE)
    assert frame.columns == ["id", "Category", "len", "attr_1", "attr_2", "attr_3"]
    filler = "dummy_value"
    assert frame.rows() == [
        ("007", "Sarees", 2, "none", "red", filler),
        ("1", "Kurtis", 1, "tea", filler, filler),
        ("=2", "Sarees", 2, filler, filler, filler),
        ("3", "Kurtis", 1, filler, filler, filler),
        ("4", "X", 0, filler, filler, filler),
    ]
    assert answer_frame(answers(), CHALLENGE, filler="?").row(1) == ("1", "Kurtis", 1, "tea", "?", "?")
    assert answer_frame(answers(), CHALLENGE, filler="").row(1) == ("1", "Kurtis", 1, "tea", None, None)


def test_named_layout():
    frame = answer_frame(answers(), NAMED)
    assert frame.columns == ["sku", "kind", "border", "color", "price"]
    assert frame.rows() == [
        ("007", "Sarees", "none", "red", None),
        ("1", "Kurtis", None, "tea", None),
        ("=2", "Sarees", None, None, None),
        ("3", "Kurtis", None, None, None),
        ("4", "X", None, None, None),
    ]
    one = answer_frame(answers(), replace(NAMED, category=""))
    assert one.columns == ["sku", "border", "color", "price"]


def test_explained():
    frame = answer_frame(answers(), CHALLENGE, explain=True)
    assert frame.columns[3:9] == [
        "attr_1",
        "attr_1.state",
        "attr_1.probability",
        "attr_1.candidate",
        "attr_1.runner_up",
        "attr_2",
    ]
    assert frame["attr_1.state"].to_list() == ["answered", "answered", "error", "unsure", ""]
    assert frame["attr_2.state"].to_list() == ["stated", "", "error", "", ""]
    assert frame["attr_1.probability"].to_list() == pytest.approx([0.75, 0.8, None, 0.4, None])
    assert frame["attr_1.candidate"].to_list() == ["none", "tea", None, None, None]
    assert frame["attr_1.runner_up"].to_list() == ["big", "black", None, "black", None]


def test_written_with_the_errors_beside(tmp_path: Path):
    for name in ("out.csv", "out.parquet"):
        write_answers(answers(), tmp_path / name, CHALLENGE)
        errors = pl.read_csv(tmp_path / "out.errors.csv", infer_schema=False)
        assert errors["row"].to_list() == ["3", "4", "5"]
        assert errors["id"].to_list() == ["'=2", "3", "4"], "people open this file in a spreadsheet"
        assert errors["field"].to_list() == ["image", "category", "category"]
        assert "predicted 'Kurtis' with probability 0.900" in errors["error"][1]
    text = (tmp_path / "out.csv").read_text().splitlines()
    assert text[0] == "id,Category,len,attr_1,attr_2,attr_3"
    assert text[1] == "007,Sarees,2,none,red,dummy_value"
    assert "attr_1.probability" in pl.read_parquet(tmp_path / "out.parquet").columns
    assert not (tmp_path / "out.stated.json").exists()
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_answers(answers(), tmp_path / "out.json", CHALLENGE)


def test_a_given_category_that_a_spreadsheet_would_run_is_escaped(tmp_path: Path):
    given = replace(answers(), categories=("Sarees", "Kurtis", "Sarees", None, "=1+1"))
    write_answers(given, tmp_path / "out.csv", NAMED)
    assert pl.read_csv(tmp_path / "out.csv")["kind"].to_list() == [
        "Sarees",
        "Kurtis",
        "Sarees",
        "Kurtis",
        "'=1+1",
    ]


@pytest.fixture
def truth(tmp_path: Path) -> Catalog:
    table = pl.DataFrame(
        {
            "sku": ["007", "1", "2", "3"],
            "kind": ["Sarees", "Kurtis", "Sarees", "Kurtis"],
            "border": ["none", None, "big", None],
            "color": ["red", "tea", "white", "black"],
        }
    )
    return Catalog.read(
        table, images=tmp_path, columns=Columns(choice=("border", "color"), id="sku", category="kind")
    )


def perfect(catalog: Catalog) -> Answers:
    """The truth as predictions, every missing cell answered with the first value."""
    blocks = []
    for name in catalog.present:
        labels, slices = catalog.labels(name), catalog.taxonomy.slices(name)
        probs = np.zeros((len(labels), catalog.taxonomy.width(name)), np.float32)
        for column, part in enumerate(slices):
            probs[np.arange(len(labels)), part.start + np.maximum(labels[:, column], 0)] = 1
        blocks.append(Block(name, catalog.rows(name), probs))
    found = Predictions(catalog.taxonomy, catalog.ids, tuple(blocks)).answers()
    return replace(found, categories=tuple(catalog.frame[catalog.schema.roles.category].to_list()))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_written_answers_are_read_again(truth: Catalog, tmp_path: Path, ending: str):
    path = tmp_path / f"out.{ending}"
    write_answers(perfect(truth), path, truth.layout)
    again = read_answers(path, truth)
    for block in again.blocks:
        labels = truth.labels(block.category)
        assert np.array_equal(block.codes[labels >= 0], labels[labels >= 0])
    assert evaluate(again, truth, metric="accuracy").score == 1


def test_challenge_answers_are_read_again(challenge: Toy, tmp_path: Path):
    path = tmp_path / "out.csv"
    write_answers(perfect(challenge.catalog), path, challenge.catalog.layout)
    frame = pl.read_csv(path, infer_schema=False)
    assert frame.columns == ["id", "Category", "len", "attr_1", "attr_2", "attr_3", "attr_4"]
    assert frame["id"].to_list() == list(challenge.catalog.ids)
    again = read_answers(path, challenge.catalog)
    assert evaluate(again, challenge.catalog, metric="accuracy").score == 1
    shuffled = frame.sample(fraction=1, shuffle=True, seed=1)
    shuffled.write_csv(path)
    assert evaluate(read_answers(path, challenge.catalog), challenge.catalog, metric="accuracy").score == 1


def test_a_foreign_value_is_a_wrong_answer(truth: Catalog, tmp_path: Path):
    path = tmp_path / "out.csv"
    write_answers(perfect(truth), path, truth.layout)
    path.write_text(path.read_text().replace("tea", "teal"))
    again = read_answers(path, truth)
    assert again.block("Kurtis").codes.ravel().tolist()[0] == -1  # type: ignore[union-attr]
    assert evaluate(again, truth, metric="accuracy").score < 1


def test_copied_stated_cells_cannot_be_scored(truth: Catalog, tmp_path: Path):
    path = tmp_path / "out.csv"
    write_answers(perfect(truth).keep_stated(truth), path, truth.layout)
    assert json.loads((tmp_path / "out.stated.json").read_text())["file"] == "out.csv"
    with pytest.raises(PredictionError, match="stated cells were copied"):
        read_answers(path, truth)
    with pytest.raises(PredictionError, match="stated"):
        evaluate(perfect(truth).keep_stated(truth), truth)
    write_answers(perfect(truth), path, truth.layout)
    assert evaluate(read_answers(path, truth), truth, metric="accuracy").score == 1


def test_answers_of_other_rows_are_refused(truth: Catalog, tmp_path: Path):
    path = tmp_path / "out.csv"
    write_answers(perfect(truth), path, truth.layout)
    text = path.read_text()
    path.write_text(text.replace("007", "008"))
    with pytest.raises(PredictionError, match="'007', '008'"):
        read_answers(path, truth)
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    with pytest.raises(PredictionError, match="'3'"):
        read_answers(path, truth)
    lines = text.splitlines()
    path.write_text("\n".join([lines[0], lines[2], lines[2], *lines[3:]]) + "\n")
    with pytest.raises(PredictionError, match="twice"):
        read_answers(path, truth)
