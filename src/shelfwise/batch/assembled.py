"""Assembled: the files of answers of a job's shards as one table, in the order of the rows, in bounded memory.

It answers nothing. What is written is what ``Answers.write`` writes of all rows at once.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import polars as pl

from shelfwise.answers import STATES
from shelfwise.batch.answering import BESIDE, NEAR, WRONG
from shelfwise.batch.jobs import BatchOptions, Job
from shelfwise.catalog import Schema
from shelfwise.files import replacing, write_text
from shelfwise.layouts import for_csv
from shelfwise.tables import escape_formulas

#: What follows a column's name where a cell is explained.
EXPLAINED = (".state", ".probability", ".candidate", ".runner_up", ".low", ".high", ".unit_price", ".unit")
DISAGREE = "photos_disagree"


@dataclass
class Told:
    """What the rows of a job say in all.

    Attributes:
        rows: how many.
        wrong: rows in the table of errors.
        cells: cells by state.
    """

    rows: int = 0
    wrong: int = 0
    cells: Counter[str] = field(default_factory=Counter)


def gather(job: Job, schema: Schema, out: Path) -> Told:
    """Write the answers of all shards, and what is wrong with rows; each file whole or not at all.

    Args:
        job: whose shards are all done.
        schema: of the bundle.
        out: ends in ``.csv`` or ``.parquet``.
    """
    parts = [job.part(shard.number) for shard in job.cut.shards]
    shape = _shape(parts)
    options, told = job.options, Told()
    with ExitStack() as stack:
        whole = stack.enter_context(replacing(out))
        wrong = stack.enter_context(replacing(out.with_suffix(".errors.csv")))
        names = {"field": "field", "error": "error"}
        besides = [stack.enter_context(_Beside(wrong, schema.layout.id, WRONG, names, ("id", "error")))]
        if options.evidence:
            near = stack.enter_context(replacing(out.with_suffix(".evidence.csv")))
            names = {name: name for name in ("rank", "look_alike", "similarity")}
            names |= {"stated": options.stating} if options.stating else {}
            besides.append(
                stack.enter_context(_Beside(near, schema.layout.id, NEAR, names, ("id", "look_alike")))
            )
        frames = _read(job, parts, shape, told, besides)
        if out.suffix == ".csv":
            _write_csv(frames, _plain(shape, options), schema, whole)
        else:
            _write_parquet(frames, shape, whole)
    told.wrong = besides[0].rows
    mark = out.with_suffix(".stated.json")
    if options.keep_stated:
        write_text(mark, json.dumps({"file": out.name, "stated_cells_copied": True}) + "\n")
    else:
        mark.unlink(missing_ok=True)
    return told


def _shape(parts: Sequence[Path]) -> dict[str, pl.DataType]:
    """Return the columns of all files of answers in order: what one file lacks stands where the others have it."""
    shape: dict[str, pl.DataType] = {}
    for part in parts:
        found = dict(pl.read_parquet_schema(part))
        if set(found) <= set(shape):
            continue
        merged: dict[str, pl.DataType] = {}
        rest = list(shape)
        for name, dtype in found.items():
            if name in rest:
                before, rest = rest[: rest.index(name)], rest[rest.index(name) + 1 :]
                merged |= {known: shape[known] for known in before}
            merged[name] = shape.get(name, dtype)
        shape = merged | {known: shape[known] for known in rest}
    return shape


def _plain(shape: Mapping[str, pl.DataType], options: BatchOptions) -> list[str]:
    """Return the columns that a CSV has: the answers, and if asked for what explains them."""
    names = [name for name in shape if name not in BESIDE]
    if options.explain:
        return names
    explains = {f"{name}{ending}" for name in names for ending in EXPLAINED}
    return [name for name in names if name not in explains and name != DISAGREE]


def _read(
    job: Job,
    parts: Sequence[Path],
    shape: Mapping[str, pl.DataType],
    told: Told,
    besides: Iterable["_Beside"],
) -> Iterator[pl.DataFrame]:
    """Yield the answers shard by shard; on the way, count cells and write what is beside them."""
    states = [name for name in shape if name.endswith(".state") and name.removesuffix(".state") in shape]
    for part, shard in zip(parts, job.cut.shards, strict=True):
        frame = pl.read_parquet(part, memory_map=False)
        lacking = [
            pl.lit(None, dtype).alias(name) for name, dtype in shape.items() if name not in frame.columns
        ]
        frame = frame.with_columns(lacking).select(*shape)
        told.rows += frame.height
        for name in states:
            for state, count in frame[name].value_counts().iter_rows():
                told.cells[state] += count if state in STATES else 0
        for beside in besides:
            beside.write(frame, shard.first)
        yield frame


def _write_csv(frames: Iterable[pl.DataFrame], names: Sequence[str], schema: Schema, path: Path) -> None:
    with path.open("wb") as file:
        for at, frame in enumerate(frames):
            laid = for_csv(frame.select(names), schema.layout, schema.taxonomy.categories)
            laid.write_csv(file, include_header=at == 0)


def _write_parquet(frames: Iterable[pl.DataFrame], shape: Mapping[str, pl.DataType], path: Path) -> None:
    import pyarrow.parquet as pq

    names = [name for name in shape if name not in BESIDE]
    arrow = pl.DataFrame(schema={name: shape[name] for name in names}).to_arrow().schema
    with pq.ParquetWriter(path, arrow, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(frame.select(names).to_arrow().cast(arrow))


class _Beside:
    """A table of what is beside the answers: a row for every entry of a column of lists.

    Attributes:
        rows: written so far.
    """

    def __init__(
        self, path: Path, id_column: str, beside: str, names: Mapping[str, str], escape: Sequence[str]
    ) -> None:
        self.file = path.open("wb")
        self.id_column, self.beside, self.names, self.escape = id_column, beside, names, escape
        self.rows = 0
        head = pl.DataFrame(schema=dict.fromkeys(("row", "id", *names.values()), pl.String))
        head.write_csv(self.file)

    def write(self, frame: pl.DataFrame, first: int) -> None:
        """Write the entries of rows, the first of which is at this position of the table."""
        entries = (
            frame.select(
                pl.int_range(first + 1, first + frame.height + 1, eager=True).alias("row"),
                pl.col(self.id_column).alias("id"),
                pl.col(self.beside),
            )
            .drop_nulls(self.beside)
            .explode(self.beside)
            .unnest(self.beside)
            .rename(dict(self.names))
            .select("row", "id", *self.names.values())
        )
        self.rows += entries.height
        escape_formulas(entries, self.escape).write_csv(self.file, include_header=False)

    def __enter__(self) -> "_Beside":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
