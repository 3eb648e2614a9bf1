"""A table cut into shards reads as the whole does, whatever its quotes, line ends and encoding."""

import random
from pathlib import Path

import polars as pl
import pytest

from shelfwise.batch import shards
from shelfwise.batch.shards import about_rows, cut
from shelfwise.errors import CatalogError, UsageError
from shelfwise.tables import read_table

CELLS = ("a", "b", " ", '"', ",", "\n", "é", "x", "1", ";", "=")


def cell(rng: random.Random) -> str:
    text = "".join(rng.choice(CELLS) for _ in range(rng.randrange(6)))
    quoted = any(mark in text for mark in '",\n;') or rng.random() < 0.2
    return '"' + text.replace('"', '""') + '"' if quoted else text


def table(rng: random.Random) -> str:
    end = rng.choice(["\n", "\r\n"])
    rows = [",".join(cell(rng) for _ in range(rng.choice([3, 3, 3, 2]))) for _ in range(rng.randrange(30))]
    rows.insert(rng.randrange(len(rows) + 1), "")
    return end.join(['id,"na""me",b', *rows]) + rng.choice(["", end])


def whole(path: Path, rows: int, copies: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    found = cut(path, rows, copies)
    parts = [found.read(shard) for shard in found.shards]
    assert [part.height for part in parts] == [shard.rows for shard in found.shards]
    return pl.concat(parts), found.notes


@pytest.mark.parametrize("seed", range(60))
def test_shards_of_a_csv_are_its_rows(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    path = tmp_path / "table.csv"
    path.write_bytes(table(rng).encode(rng.choice(["utf-8", "utf-8-sig", "utf-16", "cp1252"])))
    monkeypatch.setattr(shards, "BLOCK", rng.choice([3, 7, 50, 8 << 20]))
    expected = read_table(path)
    frame, notes = whole(path, rng.choice([1, 2, 7, 100]), tmp_path / "copies")
    assert frame.equals(expected.frame)
    assert sorted(notes) == sorted(expected.notes)


def test_a_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,name\n" + "".join(f"{row},x\n" for row in range(10)) + "10,x,y\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="row 11: 3 cells where the header names 2") as whole_error:
        read_table(path)
    found = cut(path, 4, tmp_path)
    found.read(found.shards[0])
    with pytest.raises(CatalogError) as error:
        found.read(found.shards[-1])
    assert str(error.value) == str(whole_error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,name\n1,\x00\n", "holds NUL bytes"),
        (b"id,id\n1,2\n", "names a column twice"),
        (b"\n1,2\n", "the first line"),
    ],
)
def test_what_is_no_table_is_refused_alike(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    for read in (read_table, lambda path: cut(path, 10, tmp_path)):
        with pytest.raises(CatalogError, match=message):
            read(path)


def test_a_quotation_mark_that_nothing_closes_does_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "BLOCK", 64)
    monkeypatch.setattr(shards, "LONGEST_RECORD", 500)
    path = tmp_path / "table.csv"
    path.write_text('id,name\n1,x\n2,"y\n' + "3,z\n" * 500, encoding="utf-8")
    with pytest.raises(CatalogError, match="a quotation mark is not closed"):
        cut(path, 10, tmp_path)


def test_shards_of_parquet_spell_numbers_as_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    frame = pl.DataFrame(
        {
            "id": [float(row) for row in range(100)],
            "size": [row + (0.5 if row == 77 else 0.0) for row in range(100)],
            "text": [None if row % 3 else "x" for row in range(100)],
        }
    )
    frame.write_parquet(path, row_group_size=30)
    found, _ = whole(path, 8, tmp_path)
    assert found.equals(read_table(path).frame)
    assert found["id"][0] == "0"
    assert found["size"][0] == "0.0"
    assert about_rows(path) == 100


def test_a_table_without_rows_has_one_empty_shard(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,name\n", encoding="utf-8")
    frame, _ = whole(path, 5, tmp_path)
    assert frame.shape == (0, 2)
    with pytest.raises(UsageError, match="at least one row"):
        cut(path, 0, tmp_path)
    with pytest.raises(CatalogError, match="there is no table"):
        cut(tmp_path / "none.csv", 5, tmp_path)


def test_a_table_that_shrinks_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,name\n" + "1,x\n" * 20, encoding="utf-8")
    found = cut(path, 10, tmp_path)
    path.write_text("id,name\n" + "1,x\n" * 12, encoding="utf-8")
    with pytest.raises(CatalogError, match="changed while it was read"):
        found.read(found.shards[1])
