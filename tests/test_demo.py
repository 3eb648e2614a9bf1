"""The demo: writes what it says, finds what was planted, and refuses a folder that holds something."""

import re
from pathlib import Path

import polars as pl
import pytest

from shelfwise.demo import PRECISION, demo
from shelfwise.errors import UsageError
from shelfwise.predictions import Machine
from shelfwise.report import Report

PAGES = ("report.html", "audit.html")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Report]:
    """A small demo: its folder, what it said, and the score it returned."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    said: list[str] = []
    report = demo(folder, products=300, machine=Machine(cache=folder / "cache", jobs=2), say=said.append)
    return folder, said, report


def test_a_folder_that_holds_something_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="not an empty folder"):
        demo(tmp_path, machine=Machine(cache=tmp_path / "cache"), say=lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_the_first_and_the_last_line_name_the_page(run: tuple[Path, list[str], Report]):
    folder, said, report = run
    assert str(folder / "report.html") in said[0]
    assert str(folder / "report.html") in said[-1]
    assert str(folder / "audit.html") in said[-1]
    score = next(line for line in said if "Score on" in line)
    assert f"{report.metric} {report.score:.3f}" in score


@pytest.mark.slow
def test_the_pages_load_nothing(run: tuple[Path, list[str], Report]):
    folder, _, _ = run
    for name in PAGES:
        page = (folder / name).read_text(encoding="utf-8")
        assert page.lower().startswith("<!doctype html>")
        assert not re.search(r'(?:src|href)="https?://', page)


@pytest.mark.slow
def test_the_audit_finds_more_of_what_was_planted_than_chance_does(run: tuple[Path, list[str], Report]):
    folder, said, _ = run
    line = next(line for line in said if "planted wrong labels with" in line)
    numbers = [int(text.replace(",", "")) for text in re.findall(r"\d[\d,]*", line)]
    stated, planted, caught, first, _ = numbers
    audit = pl.read_csv(folder / "audit.csv", infer_schema=False)
    truth = pl.read_csv(folder / "catalogue" / "truth.csv", infer_schema=False)
    wrong = {
        (row["id"], column)
        for row in truth.iter_rows(named=True)
        for column in (row["wrong_label"] or "").split(";")
        if column
    }
    ranked = [cell in wrong for cell in zip(audit["id"], audit["column"], strict=True)]
    assert (stated, planted, first) == (len(audit), sum(ranked), round(len(audit) * 0.05))
    assert caught == sum(ranked[:first])
    assert caught >= 3 * planted * first / stated


@pytest.mark.slow
def test_both_answers_are_written_and_the_promised_ones_leave_cells_open(run: tuple[Path, list[str], Report]):
    folder, said, _ = run
    given = pl.read_csv(folder / "catalogue" / "test.csv", infer_schema=False)
    every = pl.read_csv(folder / "submission.csv", infer_schema=False)
    promised = pl.read_csv(folder / "promised.csv", infer_schema=False)
    assert every["id"].to_list() == promised["id"].to_list() == given["id"].to_list()
    states = set(promised["attr_1.state"]) - {None}
    assert states <= {"answered", "unsure", "unfamiliar", "category?", "error"}
    assert "unsure" in states
    filled = [(frame["attr_1"] != "dummy_value").sum() for frame in (every, promised)]
    assert filled[0] > filled[1]
    assert any(line.strip().startswith(f"Promised {PRECISION:.0%}") for line in said)
