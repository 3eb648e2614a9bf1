"""Numbers and tables as a reader sees them: aligned text, rich tables, and the four file endings.

It does not know what the numbers mean. A number that is not there is ``-``, never ``nan``.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from shelfwise.errors import UsageError
from shelfwise.files import write_text
from shelfwise.tables import write_frame

if TYPE_CHECKING:
    from rich.table import Table


def plain(cell: Any) -> Any:
    """Return a cell as JSON has it: null for NaN and infinity."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def show(number: float, digits: int = 3) -> str:
    """Return a number for a reader, ``-`` where there is none."""
    return f"{number:,.{digits}f}" if math.isfinite(number) else "-"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return aligned plain text: the first ``left`` columns to the left, the others to the right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]

    def draw(cells: Sequence[str]) -> str:
        return "  ".join(
            cell.ljust(width) if k < left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()

    return "\n".join([draw(head), *map(draw, rows)])


def rich_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> "Table":
    """Return the same as a rich table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for k, name in enumerate(head):
        table.add_column(Text(name), justify="left" if k < left else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def write_result(path: str | Path, frame: pl.DataFrame, json_text: str, text: str) -> None:
    """Write a result to ``.json``, ``.parquet``, ``.csv`` or ``.txt``, whole or not at all.

    Raises:
        UsageError: another ending.
    """
    path = Path(path)
    if path.suffix == ".json":
        write_text(path, json_text + "\n")
    elif path.suffix == ".txt":
        write_text(path, text)
    elif path.suffix in (".csv", ".parquet"):
        write_frame(frame, path)
    else:
        raise UsageError(f"this is written to .json, .parquet, .csv or .txt, not {path.suffix!r}: {path}")
