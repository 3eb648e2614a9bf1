"""Packed: blocks of probabilities as columns of a Parquet file, and back.

It does not know what the probabilities are of, only that each block is of some rows of one category. Used by
predictions and by evidence, whose files differ in their other columns.
Legend: n rows of one category, V its values, packed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shelfwise.errors import ShelfwiseError
from shelfwise.files import replacing
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Packed(Protocol):
    """A block: ``category``, ``rows`` int64 [n], ``probs`` and each of ``opinions`` float32 [n, V]."""

    @property
    def category(self) -> str: ...  # noqa: D102
    @property
    def rows(self) -> Rows: ...  # noqa: D102
    @property
    def probs(self) -> Floats: ...  # noqa: D102
    @property
    def opinions(self) -> tuple[Floats, ...]: ...  # noqa: D102


def columns_of(blocks: Sequence[Packed], rows: int) -> dict[str, Any]:
    """Return ``category, probs, opinion_0 ...`` as Arrow arrays of this many rows; null where a row has none."""
    import pyarrow as pa

    category: list[str | None] = [None] * rows
    cells: dict[str, list[Floats | None]] = {"probs": [None] * rows}
    for block in blocks:
        found = {"probs": block.probs, **{f"opinion_{j}": p for j, p in enumerate(block.opinions)}}
        for name, packed in found.items():
            column = cells.setdefault(name, [None] * rows)
            for at, row in enumerate(block.rows.tolist()):
                column[row] = packed[at]
        for row in block.rows.tolist():
            category[row] = block.category
    lists = {name: pa.array(column, pa.list_(pa.float32())) for name, column in cells.items()}
    return {"category": pa.array(category, pa.string()), **lists}


def write_table(path: str | Path, columns: Mapping[str, Any], kind: str, taxonomy: Taxonomy) -> None:
    """Write columns to Parquet, whole or not at all; kind and taxonomy go into the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {b"shelfwise": kind.encode(), b"taxonomy": json.dumps(taxonomy.table()).encode()}
    with replacing(path) as temporary:
        pq.write_table(pa.table(dict(columns)).replace_schema_metadata(metadata), temporary)


def read_table(path: str | Path, kind: str, error: type[ShelfwiseError]) -> tuple[Any, Taxonomy]:
    """Read what ``write_table`` wrote.

    Raises:
        ShelfwiseError: of the type given, where it is not such a file or of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    what = kind.split()[0]
    try:
        # The file alone: ``read_table`` imports pandas and the datasets of pyarrow, for half a second.
        with pq.ParquetFile(path) as file:
            table = file.read()
    except (OSError, pa.ArrowInvalid) as fault:
        raise error(f"cannot read the {what} {path}: {fault}") from fault
    metadata = table.schema.metadata or {}
    if metadata.get(b"shelfwise") != kind.encode():
        raise error(f"{path}: not {what} that this version wrote")
    return table, Taxonomy.from_table(json.loads(metadata[b"taxonomy"]), str(path))


def blocks_of(table: Any, taxonomy: Taxonomy) -> Iterator[tuple[str, Rows, Any, list[Floats]]]:
    """Yield each category that has rows: its name, their positions, its part of the table, probs and opinions."""
    categories = np.array(table["category"].to_pylist(), dtype=object)
    names = ["probs", *(name for name in table.column_names if name.startswith("opinion_"))]
    for category in taxonomy.categories:
        rows = np.flatnonzero(categories == category)
        if len(rows):
            part = table.take(rows)
            yield category, rows, part, [matrix(part, name) for name in names if not part[name].null_count]


def matrix(table: Any, column: str) -> npt.NDArray[Any]:
    """Return a column of lists of one length as an array [n, length]."""
    flat = table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    found: npt.NDArray[Any] = flat.reshape(len(table), len(flat) // max(len(table), 1))
    return found
