"""A table of any length answered as a job, shard by shard; what did not change is carried over.

It knows no model. A killed job goes on where it was when the same command is given again, every row is in the answers
once, and memory does not grow with the table. Design record 0033.
"""

import os
import time
from collections import Counter
from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.answers import STATES
from shelfwise.batch.answering import FAILED, MOST_SAID, WRONG, said_of, schema_of
from shelfwise.batch.assembled import Told, gather
from shelfwise.batch.carried import write_keys
from shelfwise.batch.crews import crew
from shelfwise.batch.jobs import (
    ENDING,
    KEYS,
    RECORD,
    BatchOptions,
    Done,
    Job,
    Record,
    bundle_digest,
    deciding_digest,
    identity_of,
    same_answers,
)
from shelfwise.batch.shards import Cut, about_rows, cut
from shelfwise.errors import BatchStopped, UsageError
from shelfwise.findings import Finding
from shelfwise.predictions import Machine
from shelfwise.progress import DOT
from shelfwise.roles import ID_NAMES, Columns, Roles, fit_roles, plain

#: A table of more rows is answered as a job.
LONG = 20_000


def needs_job(table: Path, out: Path, options: BatchOptions) -> bool:
    """Tell whether a table is answered as a job: a long one, one that was, or where an option says so."""
    own = BatchOptions()
    names = ("workers", "on", "address", "max_errors", "verify", "fetch", "log")
    if any(getattr(options, name) != getattr(own, name) for name in names):
        return True
    return (out.with_name(out.name + ENDING) / RECORD).exists() or about_rows(table) > LONG


@dataclass(frozen=True)
class Batch:
    """What became of a table.

    Attributes:
        out: where the answers are.
        rows: of the table.
        computed: rows that were answered by this run; the others were carried over, or done before it was
            interrupted.
        failed: rows that could not be answered.
        wrong: rows in the table of errors; of failed rows, and of those that were flagged.
        cells: cells by state.
        seconds: what this run took.
        hours: hours of processors, or of graphics cards, per million rows, as measured; ``None`` where nothing was
            answered.
        on_gpu: what the hours are of.
        notes: for the user.
        findings: what reading the table noticed, in words; of ids over the whole table, else of rows answered anew.
        counts: findings by kind.
    """

    out: Path
    rows: int
    computed: int
    failed: int
    wrong: int
    cells: dict[str, int]
    seconds: float
    hours: float | None
    on_gpu: bool
    notes: tuple[str, ...]
    findings: tuple[str, ...]
    counts: dict[str, int]

    def __str__(self) -> str:
        rate = f" ({self.computed / self.seconds:,.0f} a second)" if self.computed else ""
        cost = ""
        if self.hours is not None:
            cost = f"; {self.hours:.2f} {'GPU' if self.on_gpu else 'CPU'}-hours per million rows"
        return (
            f"wrote {self.out}: {self.rows:,} rows, {self.computed:,} answered now{rate}, "
            f"{self.rows - self.computed:,} as before, in {self.seconds:.1f} s{cost}\n"
            f"{self.failed:,} rows with errors; see {self.out.with_suffix('.errors.csv').name}\n"
            f"cells: {', '.join(f'{count:,} {state}' for state, count in self.cells.items())}"
        )


def answer_table(
    bundle: str | Path,
    table: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    photos: str | Path | None = None,
    columns: Columns | None = None,
    options: BatchOptions | None = None,
    machine: Machine | None = None,
) -> Batch:
    """Answer a table of any length and write the answers.

    What is done is kept in ``OUT.job`` beside the answers. Given again after it was killed, it goes on; given again
    for a table that changed, it answers the rows that changed.

    Args:
        bundle: its folder.
        table: CSV, TSV, Parquet or xlsx.
        out: ends in ``.csv`` or ``.parquet``.
        images: the folder of the photos; by default the table's own.
        photos: a table of all photos, as ``Catalog.read`` takes it.
        columns: overrides of roles.
        options: see ``BatchOptions``.
        machine: where and how it is computed; with several processes or Ray, in each of them.

    Raises:
        BatchStopped: more rows failed than ``max_errors``; what is done is kept.
        CatalogError: a table that cannot be read, or a column that is not there.
        BundleError: no bundle, or one that changed meanwhile.
        UsageError: another ending, or another process that works on the same answers.
    """
    begun = time.monotonic()
    bundle, table, out = Path(bundle), Path(table), Path(out)
    options, machine = options or BatchOptions(), machine or Machine()
    if out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"answers are written to .csv or .parquet, not {out.suffix or 'no ending'!r}: {out}")
    schema, digest = schema_of(bundle), bundle_digest(bundle)
    with closing(Record(out.with_name(out.name + ENDING))) as record:
        record.tidy()
        whole = cut(table, options.rows, record.folder)
        given = columns or Columns()
        roles = fit_roles(whole.read(whole.shards[0]), schema.roles, given, whole.source)
        found = _ids(whole, roles, inferred=roles.id not in (schema.roles.id, given.id))
        if found.not_ids:
            roles = replace(roles, id=None)
        root = Path(images) if images is not None else table.parent
        shown = None if photos is None else Path(photos)
        answering = same_answers(deciding_digest(bundle, machine), roles, options, machine)
        begins = _log_end(options, record, answering)
        identity = identity_of(answering, table, options, {"images": root, "photos": shown})
        run = record.begin(identity, answering, begins)
        job = Job(
            bundle.resolve(),
            digest,
            whole,
            replace(roles, id=roles.id or schema.layout.id),
            root.resolve(),
            shown and shown.resolve(),
            record.folder.resolve() / run,
            options,
            machine,
        )
        job.folder.mkdir(exist_ok=True)
        under_way = _Run(job, record, run)
        under_way.go(_earlier(job, record, run, answering))
        told = gather(job, schema, out)
        record.finish(run)
        if whole.path.parent == record.folder:
            whole.path.unlink(missing_ok=True)  # a copy in another encoding
    return _report(under_way, told, out, found, begun)


class _Run:
    """A run under way: what is done of it, and what it tells."""

    def __init__(self, job: Job, record: Record, run: str) -> None:
        self.job, self.record, self.run = job, record, run
        self.done: dict[int, Done] = {}
        self.now: list[Done] = []

    def go(self, earlier: tuple[Path, ...]) -> None:
        """Answer all shards that are not done."""
        job, begun = self.job, time.monotonic()
        self.done = self.record.done(self.run)
        by_number = {shard.number: shard for shard in job.cut.shards}
        for number in sorted(set(by_number) - set(self.done)):
            if job.part(number).exists():  # its process was killed before it could say so
                self._keep(Done(**said_of(job.part(number))["done"]))
        self._check_errors()
        pending = [shard for number, shard in by_number.items() if number not in self.done]
        with closing(crew(job, pending, earlier)) as answered:
            for done in answered:
                self.now.append(done)
                self._keep(done)
                self._tell(time.monotonic() - begun)
                self._check_errors()

    def _keep(self, done: Done) -> None:
        """Record a shard, and put its lines into the log: both, or neither."""
        end, log, lines = self.record.log_end(self.run), self.job.options.log, self.job.lines(done.number)
        if log is not None and lines.exists():
            end = append(log, lines.read_bytes(), end)
        self.record.add(self.run, done, end)
        self.done[done.number] = done
        lines.unlink(missing_ok=True)

    def _tell(self, seconds: float) -> None:
        progress = self.job.machine.progress
        if progress is not None:
            rows = sum(done.rows for done in self.done.values())
            rate = sum(done.rows for done in self.now) / max(seconds, 1e-9)
            hours = self.hours()
            cost = (
                "" if hours is None else f", {hours:.2f} {'GPU' if self.on_gpu else 'CPU'}-hours per million"
            )
            progress(f"answering{DOT}{rate:,.0f} rows a second{cost}", rows, len(self.job.cut))

    @property
    def on_gpu(self) -> bool:
        """Whether graphics cards computed."""
        return any(done.gpu for done in self.now)

    def hours(self) -> float | None:
        """Return the hours of processors, or of graphics cards, per million rows answered by this run."""
        rows = sum(done.computed for done in self.now)
        used = [done for done in self.now if done.computed]
        spent = sum(done.seconds if self.on_gpu else done.cpu for done in used)
        return spent / rows * 1e6 / 3600 if rows else None

    def _check_errors(self) -> None:
        most, failed = self.job.options.max_errors, sum(done.failed for done in self.done.values())
        if most is not None and failed > most:
            first = _first_wrong(self.job, self.done)
            raise BatchStopped(
                f"stopped: {failed:,} rows could not be answered, more than {most:,}. {first} What is done is kept "
                f"in {self.record.folder}; give the same command again with a larger --max-errors to go on"
            )


def append(log: Path, lines: bytes, end: int) -> int:
    """Write lines to the end of a log, whose length is known, and return its new length.

    What lies beyond that length was written by a process that was killed before it could record it, and goes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("r+b" if log.exists() else "w+b") as file:
        file.truncate(min(end, file.seek(0, os.SEEK_END)))
        end = file.seek(0, os.SEEK_END) + len(lines)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
    return end


def _log_end(options: BatchOptions, record: Record, answering: str) -> int:
    """Return how long the log is when a run begins; one that lost lines makes earlier answers worthless."""
    if options.log is None:
        return 0
    size = options.log.stat().st_size if options.log.exists() else 0
    if size < record.logged(answering):
        record.forget(answering)
    return size


def _earlier(job: Job, record: Record, run: str, answering: str) -> tuple[Path, ...]:
    """Return the files of answers that may be carried over, their keys sorted in the folder of this run."""
    folders = [record.folder.resolve() / name for name in record.earlier(run, answering)]
    parts = tuple(part for folder in folders for part in sorted(folder.glob("*.parquet")))
    if parts and len(record.done(run)) < len(job.cut.shards):
        write_keys(parts, job.folder / KEYS)
    return parts


@dataclass(frozen=True)
class _Ids:
    """What is odd about ids: findings, the first of each kind in words; ``not_ids`` where they are none."""

    said: tuple[str, ...] = ()
    counts: Counter[str] = field(default_factory=Counter)
    not_ids: bool = False


def _ids(whole: Cut, roles: Roles, *, inferred: bool) -> _Ids:
    """Read the whole table once: every row fits the header; which ids are empty or there twice."""
    empty, hashes = list[int](), list[npt.NDArray[np.uint64]]()
    for shard in whole.shards:
        frame = whole.read(shard)
        if roles.id is not None:
            cells = frame[roles.id]
            empty += (np.flatnonzero(cells.is_null().to_numpy()) + shard.first).tolist()
            hashes.append(cells.hash().to_numpy())
    if roles.id is None:
        return _Ids()
    hash_N = np.concatenate(hashes)
    order = np.argsort(hash_N, kind="stable")
    same = np.flatnonzero(hash_N[order][1:] == hash_N[order][:-1]) + 1
    twice = np.setdiff1d(order[same], empty)
    by_name = plain(roles.id) in ID_NAMES
    if inferred and not by_name and (len(twice) or empty):
        return _Ids(not_ids=True)
    said = [str(Finding("empty_id", "the id is empty", row + 1, "", roles.id, "error")) for row in empty]
    counts = Counter({"duplicate_id": len(twice), "empty_id": len(empty)})
    for row in twice[:MOST_SAID].tolist():
        at = int(np.flatnonzero(hash_N == hash_N[row])[0])
        id_ = _cell(whole, roles.id, row)
        message = f"the id {id_!r} is that of row {at + 1} too"
        said.append(str(Finding("duplicate_id", message, row + 1, id_, roles.id, "error")))
    return _Ids(tuple(said[:MOST_SAID]), +counts)


def _cell(whole: Cut, column: str, row: int) -> str:
    shard = next(shard for shard in reversed(whole.shards) if shard.first <= row)
    return str(whole.read(shard)[column][row - shard.first])


def _first_wrong(job: Job, done: Container[int]) -> str:
    """Name the first row that could not be answered."""
    for shard in job.cut.shards:
        if shard.number in done:
            frame = pl.read_parquet(job.part(shard.number), columns=[FAILED, WRONG], memory_map=False)
            at = frame[FAILED].arg_true()
            if len(at):
                row = int(at[0])
                said = frame[WRONG][row][0]
                return f"The first is row {shard.first + row + 1}, {said['field']}: {said['error']}."
    return ""


def _report(run: _Run, told: Told, out: Path, ids: _Ids, begun: float) -> Batch:
    """Put together what the shards say."""
    notes: dict[str, None] = dict.fromkeys(run.job.cut.notes)
    said, counts = list(ids.said), Counter(ids.counts)
    for shard in run.job.cut.shards:
        found = said_of(run.job.part(shard.number))
        notes |= dict.fromkeys(found.get("notes", ()))
        said += found.get("findings", ())
        counts.update(found.get("counts", {}))
    return Batch(
        out,
        told.rows,
        sum(done.computed for done in run.now),
        sum(done.failed for done in run.done.values()),
        told.wrong,
        {state: told.cells[state] for state in STATES if told.cells[state]},
        time.monotonic() - begun,
        run.hours(),
        run.on_gpu,
        tuple(notes)[:MOST_SAID],
        tuple(said[:MOST_SAID]),
        dict(counts.most_common()),
    )
