"""Tables: text verbatim, messy CSV, and cells that a spreadsheet would run."""

from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shelfwise.errors import CatalogError, UsageError
from shelfwise.tables import escape_formulas, read_table, unescape, write_frame


def written(tmp_path: Path, data: bytes, name: str = "t.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def rows(frame: pl.DataFrame) -> list[tuple[str | None, ...]]:
    return frame.rows()


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"\xef\xbb\xbfid,name\n007,T\xc3\xa9e\n", ""),
        ("id;name\n007;Tée\n".encode(), "separated by ';'"),
        ("id\tname\r\n007\tTée\r\n".encode(), "separated by '\\t'"),
        ("id|name\n007|Tée".encode(), "separated by '|'"),
        ("id,name\n007,Tée\n".encode("cp1252"), "read as cp1252"),
        ("id,name\n007,Tée\n".encode("utf-16"), "read as utf-16"),
        ('"id","name"\n"007","Tée"\n'.encode(), ""),
    ],
)
def test_messy_csv_is_read(tmp_path: Path, data: bytes, note: str):
    table = read_table(written(tmp_path, data))
    assert table.frame.columns == ["id", "name"]
    assert rows(table.frame) == [("007", "Tée")]
    assert note in " ".join(table.notes)
    assert bool(table.notes) == bool(note)


def test_quoted_separators_and_line_ends_are_text(tmp_path: Path):
    data = b'id,"a;b;c",name\n1,x,"two\nlines, ""quoted"""\n2,y,\n'
    table = read_table(written(tmp_path, data))
    assert table.frame.columns == ["id", "a;b;c", "name"]
    assert rows(table.frame) == [("1", "x", 'two\nlines, "quoted"'), ("2", "y", None)]


def test_short_rows_count_as_empty_and_are_said(tmp_path: Path):
    table = read_table(written(tmp_path, b"id,a,b\n1,x,y\n2,z\n3,p,q\n"))
    assert rows(table.frame) == [("1", "x", "y"), ("2", "z", None), ("3", "p", "q")]
    assert "1 rows are shorter than the header, the first is row 2" in table.notes[0]


def test_a_long_row_is_an_error_with_its_number(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"t\.csv, row 2: 4 cells where the header names 3"):
        read_table(written(tmp_path, b"id,a,b\n1,x,y\n2,z,w,v\n"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,a,id\n1,2,3\n", "names a column twice: 'id'"),
        (b"id,,a\n1,2,3\n", "column 2 has no name"),
        (b"", "first line"),
        (b"\n1,2\n", "first line"),
        (b"id,a\n1,\x00\n", "NUL bytes"),
    ],
)
def test_a_file_that_is_no_table_says_why(tmp_path: Path, data: bytes, message: str):
    with pytest.raises(CatalogError, match=message):
        read_table(written(tmp_path, data))


def test_other_wrong_sources(tmp_path: Path):
    with pytest.raises(CatalogError, match="there is no table"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(CatalogError, match="is a directory"):
        read_table(tmp_path)
    with pytest.raises(CatalogError, match="a table ends in"):
        read_table(written(tmp_path, b"x", "t.docx"))
    with pytest.raises(CatalogError, match="cannot be read as a table"):
        read_table(written(tmp_path, b"x", "t.parquet"))
    with pytest.raises(UsageError, match="not dict"):
        read_table({"id": [1]})
    with pytest.raises(CatalogError, match="column 'tags' holds List"):
        read_table(pl.DataFrame({"id": [1], "tags": [[1]]}))
    several = read_table(pl.DataFrame({"id": [1, 2, 3], "tags": [["a", "b c"], [], None]}))
    assert several.frame["tags"].to_list() == ['["a", "b c"]', None, None]


def test_a_header_without_rows(tmp_path: Path):
    table = read_table(written(tmp_path, b"id,Category\n"))
    assert table.frame.shape == (0, 2)


def test_ids_keep_leading_zeros_from_every_source(tmp_path: Path):
    frame = pl.DataFrame({"id": ["007", "08", "9"], "n": [1, 2, 3]})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    pandas = pd.DataFrame({"id": ["007", "08", "9"], "n": [1, 2, 3]})
    for source in (frame, pandas, tmp_path / "t.parquet", tmp_path / "t.csv", str(tmp_path / "t.tsv")):
        assert rows(read_table(source).frame) == [("007", "1"), ("08", "2"), ("9", "3")]


def test_numbers_of_a_frame_as_people_write_them():
    frame = pl.DataFrame(
        {"id": [1.0, 2.0, None], "price": [1.5, 2.0, float("nan")], "yes": [True, False, None]}
    )
    assert rows(read_table(frame).frame) == [("1", "1.5", "true"), ("2", "2.0", "false"), (None, None, None)]


def test_xlsx(tmp_path: Path):
    pytest.importorskip("fastexcel")
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in (["id", "name"], ["007", "Tee"], ["08", None]):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    assert rows(read_table(tmp_path / "t.xlsx").frame) == [("007", "Tee"), ("08", None)]


@pytest.mark.parametrize("cell", ["=1+1", "+44", "-x", "@cmd", "\tx", "\rx", "'=1", "''+1"])
def test_what_a_spreadsheet_would_run_is_escaped(cell: str):
    escaped = escape_formulas(pl.DataFrame({"a": [cell], "b": [cell]}), ["a"])
    assert escaped.rows() == [("'" + cell, cell)]
    assert unescape("'" + cell) == cell


@pytest.mark.parametrize("cell", ["plain", "'quoted'", "a=b", "5", "", "1-2"])
def test_harmless_cells_stay_as_they_are(cell: str):
    assert escape_formulas(pl.DataFrame({"a": [cell]}), ["a"]).rows() == [(cell,)]
    assert unescape(cell) == cell


texts = st.text(
    st.sampled_from(list("=+-@'\t\r a1é,;\"\n")) | st.characters(exclude_categories=("Cs",)), max_size=8
)


@given(st.lists(texts, min_size=1, max_size=6))
@example(["'", "''", "'=", "=", "'a", "\t", "\r\n="])
@settings(max_examples=200, deadline=None)
def test_escaping_is_reversed_exactly(cells: list[str]):
    escaped = escape_formulas(pl.DataFrame({"a": cells}), ["a"])["a"].to_list()
    assert [unescape(cell) for cell in escaped] == cells
    assert not any(cell[:1] in tuple("=+-@\t\r") and cell for cell in escaped)


cells = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=("Cs",)), max_size=6
)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, given: list[tuple[str, str]]
):
    path = tmp_path_factory.mktemp("tables") / "t.csv"
    frame = pl.DataFrame(
        {"id": [str(n) for n in range(len(given))], "a": [a for a, _ in given], "b": [b for _, b in given]}
    )
    write_frame(frame, path, escape=("a",))
    read = read_table(path).frame
    assert read["b"].to_list() == [b or None for _, b in given]
    assert [unescape(cell or "") for cell in read["a"].to_list()] == [a for a, _ in given]


def test_other_endings_are_not_written(tmp_path: Path):
    with pytest.raises(UsageError, match=r"\.csv or \.parquet"):
        write_frame(pl.DataFrame({"a": ["x"]}), tmp_path / "t.xlsx")
    assert not list(tmp_path.iterdir())
