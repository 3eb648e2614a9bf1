"""Shards: a table cut into runs of rows that are read one by one, whatever the size of the table.

They know rows and columns of text, no products. What a shard reads as is what ``tables.read_table`` reads of the whole:
a record of a CSV ends at a line end outside quotes (RFC 4180), and a record is a row. A Parquet file is cut within its
row groups. What cannot be cut as it lies (another encoding, xlsx) is copied first, as a job's own file.
"""

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.errors import CatalogError, UsageError
from shelfwise.files import replacing
from shelfwise.tables import TABLE_ENDINGS, as_text, header_of, is_whole, read_table, row_fault

#: Bytes looked at together.
BLOCK = 8 << 20
#: A record of more bytes than this is a quotation mark that nothing closes.
LONGEST_RECORD = 64 << 20
LONGEST_HEADER = 1 << 20
PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Shard:
    """A run of rows.

    Attributes:
        number: from 0.
        first: position of its first row in the table.
        rows: how many.
        start, stop: where they lie: bytes of a CSV, rows of the row group of a Parquet file.
        group: the row group; 0 in a CSV.
    """

    number: int
    first: int
    rows: int
    start: int
    stop: int
    group: int = 0


#: The shards of a table without rows.
NOTHING = (Shard(0, 0, 0, 0, 0),)


@dataclass(frozen=True)
class Cut:
    """A table and its shards.

    Attributes:
        source: the table as it was named.
        path: the file that is read; the table itself, or a copy in UTF-8 or Parquet.
        columns: their names.
        separator: of a CSV; empty for Parquet.
        whole: columns of a Parquet file that hold whole numbers as floats.
        notes: what was unusual about reading it.
        shards: in the order of the rows.
    """

    source: str
    path: Path
    columns: tuple[str, ...]
    separator: str
    whole: tuple[str, ...]
    notes: tuple[str, ...]
    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def read(self, shard: Shard) -> pl.DataFrame:
        """Return the rows of a shard, every cell as text.

        Raises:
            CatalogError: a row that does not fit the header, or a file that changed meanwhile.
        """
        if not shard.rows:
            return pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String))
        if not self.separator:
            written = self.path.stat().st_mtime_ns
            frame = _row_group(self.path, shard.group, written)[shard.start : shard.stop]
            return as_text(frame, self.source, self.whole)
        with self.path.open("rb") as file:
            file.seek(shard.start)
            data = file.read(shard.stop - shard.start)
        # The columns are named afterwards: a header of its own keeps polars from guessing.
        head = self.separator.join(f"c{at}" for at in range(len(self.columns))).encode()
        try:
            frame = pl.read_csv(head + b"\n" + data, separator=self.separator, infer_schema=False)
        except pl.exceptions.PolarsError as error:
            text = io.StringIO(data.decode("utf-8", errors="replace"))
            rows = csv.reader(text, delimiter=self.separator)
            raise CatalogError(
                row_fault(self.source, rows, len(self.columns), shard.first, str(error))
            ) from error
        if frame.shape != (shard.rows, len(self.columns)):
            raise CatalogError(f"{self.source}: changed while it was read; run again")
        return as_text(frame.rename(dict(zip(frame.columns, self.columns, strict=True))), self.source)


def about_rows(path: Path) -> int:
    """Return how many rows a table has at most: the lines of a CSV; 0 where that cannot be told."""
    if not path.is_file():
        return 0
    if path.suffix.lower() in PARQUET:
        try:
            return int(pl.scan_parquet(path).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError):
            return 0
    lines = 0
    with path.open("rb") as file:
        while data := file.read(BLOCK):
            lines += data.count(b"\n")
    return lines


def cut(source: str | Path, rows: int, copies: Path) -> Cut:
    """Cut a table into shards.

    Args:
        source: CSV, TSV, Parquet or xlsx.
        rows: of a shard, at most.
        copies: where a copy is written, if one is needed.

    Raises:
        CatalogError: as ``tables.read_table``.
        UsageError: less than one row.
    """
    path = Path(source)
    if rows < 1:
        raise UsageError(f"a shard has at least one row, not {rows}")
    if not path.is_file() or path.suffix.lower() not in TABLE_ENDINGS:
        read_table(path)  # says why not
    if path.suffix.lower() in PARQUET:
        return _cut_parquet(path, rows, str(path))
    if path.suffix.lower() == ".xlsx":
        table = read_table(path)
        copy = copies / "table.parquet"
        with replacing(copy) as temporary:
            table.frame.write_parquet(temporary)
        return _cut_parquet(copy, rows, str(path))
    return _cut_csv(path, rows, copies)


def _cut_parquet(path: Path, rows: int, source: str) -> Cut:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        scan = pl.scan_parquet(path)
        schema = scan.collect_schema()
        floats = [name for name, dtype in schema.items() if dtype.is_float()]
        # Row group by row group: every shard is to spell a number as the whole table does.
        whole = set(floats)
        for group in range(len(counts)) if floats else ():
            part = pl.DataFrame(pl.from_arrow(file.read_row_group(group, floats)))
            whole &= {name for name in whole if is_whole(part[name])}
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        raise CatalogError(f"{source}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    as_text(pl.DataFrame(schema=schema), source)
    shards: list[Shard] = []
    first = 0
    for group, count in enumerate(counts):
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            shards.append(Shard(len(shards), first + start, stop - start, start, stop, group))
        first += count
    kept = tuple(name for name in floats if name in whole)
    return Cut(source, path, tuple(schema), "", kept, (), tuple(shards) or NOTHING)


@lru_cache(maxsize=1)
def _row_group(path: Path, group: int, written: int) -> pl.DataFrame:
    import pyarrow.parquet as pq

    return pl.DataFrame(pl.from_arrow(pq.ParquetFile(path).read_row_group(group)))


def _cut_csv(path: Path, rows: int, copies: Path) -> Cut:
    encoding, notes = _encoding(path)
    read = path
    if encoding not in ("utf-8", "utf-8-sig"):
        read = copies / "table.csv"
        _transcode(path, encoding, read)
    begin = 3 if encoding == "utf-8-sig" else 0
    with read.open("rb") as file:
        file.seek(begin)
        head = file.read(LONGEST_HEADER).decode("utf-8", errors="ignore")
    names, separator, found = header_of(head, str(path))
    ends = _Records(read, begin, separator, len(names), str(path))
    edges: list[tuple[int, int]] = []  # records so far, and where they end
    for count, edge in ends.every(rows):
        edges.append((count, edge))
    if ends.short:
        found.append(
            f"{ends.short} rows are shorter than the header, the first is row {ends.first_short}: "
            "their last cells count as empty"
        )
    shards = [
        Shard(number, before, count - before, start, stop)
        for number, ((before, start), (count, stop)) in enumerate(pairwise(edges))
    ]
    return Cut(str(path), read, names, separator, (), (*notes, *found), tuple(shards) or NOTHING)


class _Records:
    """Where the records of a CSV end, found block by block.

    Attributes:
        short: records with fewer cells than the header; blank ones are not counted.
        first_short: the first of them, from 1.
    """

    def __init__(self, path: Path, begin: int, separator: str, width: int, source: str) -> None:
        self.path, self.begin, self.source, self.width = path, begin, source, width
        self.separator = ord(separator)
        self.short, self.first_short = 0, 0

    def every(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield (records so far, byte where they end) after the header, after every ``rows`` records and at the end."""
        count, last = -1, self.begin  # the header is a record too
        for ends, cells in self._blocks():
            if len(ends):
                short = np.flatnonzero(cells < self.width)
                short = short[short + count + 1 > 0]
                if len(short) and not self.first_short:
                    self.first_short = int(short[0]) + count + 1
                self.short += len(short)
                wanted = [0] if count < 0 else []
                wanted += list(range((max(count, 0) // rows + 1) * rows, count + len(ends) + 1, rows))
                for number in wanted:
                    yield number, int(ends[number - count - 1])
                count, last = count + len(ends), int(ends[-1])
        if count > 0 and count % rows:
            yield count, last

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield, block by block, the ends of records and the number of cells of each; a blank one has all."""
        quoted, cells, at, last, final = 0, 0, self.begin, self.begin, b"\n"
        with self.path.open("rb") as file:
            file.seek(self.begin)
            while data := file.read(BLOCK):
                block = np.frombuffer(data, np.uint8)
                marks = np.flatnonzero(block == ord('"'))
                ends = np.flatnonzero(block == ord("\n"))
                parts = np.flatnonzero(block == self.separator)
                if len(marks) or quoted:
                    ends = ends[(np.searchsorted(marks, ends) + quoted) % 2 == 0]
                    parts = parts[(np.searchsorted(marks, parts) + quoted) % 2 == 0]
                    quoted = (quoted + len(marks)) % 2
                before = np.searchsorted(parts, ends)
                many = np.diff(before, prepend=0) + 1
                if len(ends):
                    many[0] += cells
                    cells = len(parts) - int(before[-1])
                    sizes = np.diff(ends + at + 1, prepend=last)
                    returned = np.where(ends > 0, block[ends - 1], final[0]) == ord("\r")
                    many[(sizes == 1) | ((sizes == 2) & returned)] = self.width
                    last = at + int(ends[-1]) + 1
                else:
                    cells += len(parts)
                yield ends + (at + 1), many
                at, final = at + len(data), data[-1:]
                if at - last > LONGEST_RECORD:
                    raise CatalogError(
                        f"{self.source}: from byte {last} on, a row does not end: a quotation mark is not closed"
                    )
        if final != b"\n" or quoted:
            yield np.array([at], np.int64), np.array([cells + 1], np.int64)


def _encoding(path: Path) -> tuple[str, list[str]]:
    """Tell how a text file is encoded, as ``tables`` does, without holding it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        start = file.read(3)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16", ["read as utf-16"]
        file.seek(0)
        try:
            while data := file.read(BLOCK):
                if b"\x00" in data:
                    raise CatalogError(f"{path}: holds NUL bytes, so it is not a text table")
                decoder.decode(data)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return "cp1252", ["not UTF-8: read as cp1252"]
    return ("utf-8-sig" if start == codecs.BOM_UTF8 else "utf-8"), []


def _transcode(path: Path, encoding: str, to: Path) -> None:
    errors = "replace" if encoding == "cp1252" else "strict"
    with (
        replacing(to) as temporary,
        path.open(encoding=encoding, errors=errors, newline="") as old,
        temporary.open("w", encoding="utf-8", newline="") as new,
    ):
        try:
            while text := old.read(BLOCK):
                if "\x00" in text:
                    raise CatalogError(f"{path}: holds NUL bytes, so it is not a text table")
                new.write(text)
        except UnicodeDecodeError as error:
            raise CatalogError(f"{path}: cannot be read as {encoding}: {error}") from error
