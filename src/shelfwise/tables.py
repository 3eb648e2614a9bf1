"""Tables in and out: CSV, TSV, Parquet, xlsx, pandas and polars frames; every cell as text.

It does not know what a column means. CSV reading copes with a byte-order mark, ``;``, tab and ``|``,
and cp1252; CSV writing escapes the cells that a spreadsheet would run as a formula, in the columns
its caller names, and ``unescape`` reverses that exactly.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from shelfwise.errors import CatalogError, UsageError, listing, require
from shelfwise.files import replacing

FORMULA = r"^'*[=+\-@\t\r]"
ESCAPED = re.compile(r"^'+[=+\-@\t\r]")
SEPARATORS = (",", ";", "\t", "|")
TABLE_ENDINGS = (".csv", ".tsv", ".txt", ".parquet", ".pq", ".xlsx")
INSTEAD = ": it is a directory. Photos are named in a column of a table, and their folder with --images"


@dataclass(frozen=True)
class Table:
    """A table as read.

    Attributes:
        frame: all cells as text, null where empty.
        source: the file's name or ``frame``, for messages.
        directory: the folder the file lies in; the current one for a frame.
        notes: what was unusual about reading it.
    """

    frame: pl.DataFrame
    source: str
    directory: Path
    notes: tuple[str, ...] = ()


def read_table(source: Any) -> Table:
    """Read a table with every cell as text, ids verbatim.

    Args:
        source: a path ending in .csv, .tsv, .txt, .parquet, .pq or .xlsx, or a polars or pandas frame.

    Raises:
        CatalogError: a file that is not there or not a table; names the file and, for CSV, the row.
    """
    if isinstance(source, pl.DataFrame):
        return Table(as_text(source, "frame"), "frame", Path())
    if not isinstance(source, str | Path):
        if type(source).__module__.split(".")[0] == "pandas":
            return Table(as_text(pl.from_pandas(source), "frame"), "frame", Path())
        raise UsageError(f"a table is a path, a polars frame or a pandas frame, not {type(source).__name__}")
    path = Path(source)
    if not path.is_file():
        raise CatalogError(f"there is no table {path}" + (INSTEAD if path.is_dir() else ""))
    ending = path.suffix.lower()
    if ending not in TABLE_ENDINGS:
        raise CatalogError(f"{path}: a table ends in {listing(TABLE_ENDINGS)}")
    notes: tuple[str, ...] = ()
    try:
        if ending in (".parquet", ".pq"):
            frame = pl.read_parquet(path)
        elif ending == ".xlsx":
            require("fastexcel", extra="xlsx")
            frame = pl.read_excel(path, infer_schema_length=0)
        else:
            frame, notes = _read_csv(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise CatalogError(f"{path}: cannot be read as a table: {str(error).splitlines()[0]}") from error
    return Table(as_text(frame, str(path)), str(path), path.parent, notes)


def _read_csv(path: Path) -> tuple[pl.DataFrame, tuple[str, ...]]:
    data = path.read_bytes()
    notes: list[str] = []
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16")
        notes.append("read as utf-16")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
            notes.append("not UTF-8: read as cp1252")
    if "\x00" in text:
        raise CatalogError(f"{path}: holds NUL bytes, so it is not a text table")
    names, separator, found = header_of(text, str(path))
    notes += found
    try:
        frame = pl.read_csv(text.encode(), separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        rows = csv.reader(io.StringIO(text), delimiter=separator)
        next(rows)
        raise CatalogError(row_fault(str(path), rows, len(names), 0, str(error))) from error
    if frame.width != len(names):
        raise CatalogError(f"{path}: the header names {len(names)} columns, the rows have {frame.width}")
    short = [
        row
        for row, cells in enumerate(csv.reader(io.StringIO(text), delimiter=separator))
        if row and cells and len(cells) < len(names)
    ]
    if short:
        notes.append(
            f"{len(short)} rows are shorter than the header, the first is row {short[0]}: "
            "their last cells count as empty"
        )
    return frame.rename(dict(zip(frame.columns, names, strict=True))), tuple(notes)


def header_of(text: str, source: str) -> tuple[tuple[str, ...], str, list[str]]:
    """Return the names of a CSV's columns, what parts them, and what is unusual about that.

    Args:
        text: the table, or its beginning.
        source: its name for messages.

    Raises:
        CatalogError: no names, or one twice.
    """
    header = text.split("\n", 1)[0].rstrip("\r")
    if not header.strip():
        raise CatalogError(f"{source}: the first line, which should name the columns, is empty")
    unquoted = re.sub(r'"[^"]*"', "", header)
    separator = max(SEPARATORS, key=unquoted.count) if any(s in unquoted for s in SEPARATORS) else ","
    notes = [f"columns separated by {separator!r}"] if separator != "," else []
    names = next(csv.reader(io.StringIO(text), delimiter=separator))
    _check_names(names, source)
    return tuple(names), separator, notes


def _check_names(names: Sequence[str], source: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise CatalogError(f"{source}: the header names a column twice: {listing(twice)}")
    if any(not name.strip() for name in names):
        raise CatalogError(f"{source}: column {[n.strip() for n in names].index('') + 1} has no name")


def row_fault(source: str, rows: Iterable[Sequence[str]], width: int, before: int, said: str) -> str:
    """Name the first row whose number of cells is not that of the header.

    Args:
        source: the table's name.
        rows: cells, row by row, without the header.
        width: cells of the header.
        before: rows before these.
        said: what is wrong where no row can be named.
    """
    for row, cells in enumerate(rows, start=before + 1):
        if cells and len(cells) != width:
            return f"{source}, row {row}: {len(cells)} cells where the header names {width}"
    return f"{source}: cannot be read as CSV: {said.splitlines()[0]}"


def as_text(frame: pl.DataFrame, source: str, whole: Sequence[str] | None = None) -> pl.DataFrame:
    """Return a frame with every cell as text, null where empty; a list of texts as JSON.

    Args:
        frame: as read.
        source: its name for messages.
        whole: the columns of floats that hold whole numbers only; by default seen from the cells.

    Raises:
        CatalogError: a column that holds neither texts nor numbers.
    """
    columns = []
    for name in frame.columns:
        series = frame[name]
        if series.dtype in (pl.String, pl.Null, pl.Categorical) or series.dtype.is_integer():
            columns.append(series.cast(pl.String))
        elif series.dtype.is_float():
            # Whole ones without ``.0``, so that an id column that became floats keeps its ids.
            values, is_int = series.fill_nan(None), is_whole(series) if whole is None else name in whole
            columns.append((values.cast(pl.Int64) if is_int else values).cast(pl.String))
        elif isinstance(series.dtype, pl.List) and series.dtype.inner in (pl.String, pl.Null):
            columns.append(pl.Series(name, [_listed(cell) for cell in series.to_list()], pl.String))
        elif isinstance(series.dtype, pl.List | pl.Array | pl.Struct | pl.Object | pl.Binary):
            raise CatalogError(f"{source}: column {name!r} holds {series.dtype}, not text or numbers")
        else:
            columns.append(series.cast(pl.String))
    return pl.DataFrame(columns).with_columns(pl.all().replace({"": None})) if columns else frame


def _listed(cell: Sequence[str | None] | None) -> str | None:
    """Return a list of texts as JSON, as cells of text tables hold several photos."""
    texts = [text for text in cell or () if text]
    return json.dumps(texts, ensure_ascii=False) if texts else None


def is_whole(series: pl.Series) -> bool:
    """Return whether floats are whole numbers that an int64 holds exactly."""
    values = series.fill_nan(None).drop_nulls()
    if values.is_finite().all() and (values == values.round(0)).all():
        most = values.abs().max()
        return most is None or float(str(most)) < 2**53
    return False


def escape_formulas(frame: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Put ``'`` before the cells of these columns that a spreadsheet would run as a formula."""
    present = [name for name in columns if name in frame.columns]
    return frame.with_columns(
        pl.when(pl.col(name).str.contains(FORMULA))
        .then("'" + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in present
    )


def unescape(text: str) -> str:
    """Reverse ``escape_formulas`` for one cell."""
    return text[1:] if ESCAPED.match(text) else text


def write_frame(frame: pl.DataFrame, path: str | Path, *, escape: Sequence[str] = ()) -> None:
    """Write a frame to ``.csv`` or ``.parquet``, whole or not at all.

    Args:
        frame: what to write.
        path: its ending chooses the format.
        escape: columns of free text, escaped in CSV only.

    Raises:
        UsageError: another ending.
    """
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"a table is written to .csv or .parquet, not {path.suffix or 'no ending'!r}: {path}"
        )
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            escape_formulas(frame, escape).write_csv(temporary)
        else:
            frame.write_parquet(temporary)
