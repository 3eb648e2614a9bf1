"""Jobs: what a batch job is to do, and the record of what is done, which survives kill -9.

It answers nothing. The record is a journal beside the answers; the open file is the lock of the job. A shard's
answers are in their place and flushed before its line is written, so a line without its answers cannot be; answers
without their line are recognised by their name and taken as they are.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from shelfwise.batch.shards import Cut
from shelfwise.config import Options
from shelfwise.errors import UsageError
from shelfwise.journal import Journal, Purpose
from shelfwise.manifest import INDEX, read_json
from shelfwise.models.engines import installed
from shelfwise.models.exported import FOLDER as EXPORTED
from shelfwise.predictions import Machine
from shelfwise.roles import Roles
from shelfwise.speed import FILE as SPEED

FORMAT = "1"
TABLES = (
    "CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, identity TEXT NOT NULL, "
    "answering TEXT NOT NULL, state TEXT NOT NULL, log_end INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS shards (run TEXT NOT NULL, number INTEGER NOT NULL, "
    "rows INTEGER NOT NULL, computed INTEGER NOT NULL, failed INTEGER NOT NULL, "
    "seconds REAL NOT NULL, cpu REAL NOT NULL, gpu INTEGER NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID",
)
#: The folder of a job is called as its answers, with this.
ENDING = ".job"
#: Rows answered together.
ROWS = 5000
RECORD, KEYS = "job.sqlite", "keys.npy"
#: Files of a bundle that tell of it and answer nothing.
TOLD = ("card.md", "report.json", SPEED)


class BatchOptions(Options):
    """How a table is answered.

    Attributes:
        precision, confidence, over, every_cell, keep_stated: as in ``Bundle.answer``.
        filler: what unused and unanswered cells hold; by default as the training table.
        explain: add state, probability, candidate and runner-up of every cell to a CSV.
        evidence: how many look-alikes to name for each product.
        stating: of the look-alikes: a Number they must state.
        rows: of a shard: what is answered together, and lost at most when a process is killed.
        workers: processes; 0 to answer in this one.
        on: ``here``, or ``ray`` to answer on a Ray cluster.
        address: of the cluster; by default one on this machine.
        max_errors: stop when more rows than this could not be answered.
        verify: compare photos by their content, not by size and time.
        fetch: fetch photos whose cells are addresses, a shard at a time.
        allow_private, allow_stores: as in ``DownloadOptions``.
        log: a file that gets every automatic answer as one JSON line.
    """

    precision: float | None = None
    confidence: float | None = None
    over: str | None = None
    every_cell: bool = False
    keep_stated: bool = False
    filler: str | None = None
    explain: bool = False
    evidence: Annotated[int, Field(ge=0)] = 0
    stating: str | None = None
    rows: Annotated[int, Field(ge=1)] = ROWS
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    on: Literal["here", "ray"] = "here"
    address: str | None = None
    max_errors: Annotated[int, Field(ge=0)] | None = None
    verify: bool = False
    fetch: bool = False
    allow_private: bool = False
    allow_stores: tuple[str, ...] = ()
    log: Path | None = None

    def answering(self) -> dict[str, Any]:
        """Return the options that change what is written about a row."""
        names = (
            "precision",
            "confidence",
            "over",
            "every_cell",
            "keep_stated",
            "filler",
            "evidence",
            "stating",
            "fetch",
            "allow_private",
            "allow_stores",
        )
        return {name: getattr(self, name) for name in names} | {
            "log": None if self.log is None else str(self.log.resolve())
        }


@dataclass(frozen=True)
class Job:
    """All that answering a shard needs; the same wherever it is answered.

    Attributes:
        bundle: the folder of the bundle.
        digest: SHA-256 of its list of files.
        cut: the table.
        roles: of the table's columns; a table without ids has its row numbers for them.
        images: the folder of the photos.
        photos: the table of photos, where there is one.
        folder: of this run, inside that of the job.
        options: how it is answered.
        machine: where and how it is computed.
    """

    bundle: Path
    digest: str
    cut: Cut
    roles: Roles
    images: Path
    photos: Path | None
    folder: Path
    options: BatchOptions
    machine: Machine

    def part(self, number: int) -> Path:
        """Return where the answers of a shard are."""
        return self.folder / f"{number:06d}.parquet"

    def lines(self, number: int) -> Path:
        """Return where the lines of a shard for the log are."""
        return self.folder / f"{number:06d}.jsonl"


def deciding_digest(bundle: Path, machine: Machine) -> str:
    """Return a digest of what decides a bundle's answers on a machine.

    What is put beside that later, a measured speed or networks that are not the ones to run, is not in it.
    """
    index = read_json(bundle / INDEX)
    exported = machine.engine != "auto" or not installed("torch")
    files = {
        name: digest
        for name, digest in index["files"].items()
        if name not in TOLD and (exported or not name.startswith(f"{EXPORTED}/"))
    }
    return _named({**index, "files": files})


def bundle_digest(bundle: Path) -> str:
    """Return the SHA-256 of a bundle's list of files, which has the SHA-256 of each."""
    return hashlib.sha256((bundle / INDEX).read_bytes()).hexdigest()


def same_answers(digest: str, roles: Roles, options: BatchOptions, machine: Machine) -> str:
    """Return a name of all that two runs must share for answers to be carried over from one to the other."""
    return _named(
        {
            "bundle": digest,
            "roles": roles.table(),
            "options": options.answering(),
            "engine": [machine.engine, machine.device],
            "library": version("shelfwise"),
        }
    )


def identity_of(answering: str, table: Path, options: BatchOptions, places: Mapping[str, Path | None]) -> str:
    """Return what an interrupted run must share with another for that one to go on with it.

    Args:
        answering: from ``same_answers``.
        table: the table; its size and time count.
        options: of the job.
        places: other files and folders that count by their path, and where they are files, by size and time.
    """
    stated: dict[str, Any] = {"answering": answering, "rows": options.rows, "verify": options.verify}
    for what, path in {"table": table, **places}.items():
        stated[what] = None if path is None else str(path.resolve())
        if path is not None and path.is_file():
            found = path.stat()
            stated[what] = [stated[what], found.st_size, found.st_mtime_ns]
    return _named(stated)


def _named(stated: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Done:
    """What answering a shard took and gave.

    Attributes:
        number: of the shard.
        rows: of it.
        computed: rows that were answered anew; the others were carried over.
        failed: rows that could not be answered.
        seconds, cpu: what it took, by the clock and of processors.
        gpu: whether a graphics card computed.
    """

    number: int
    rows: int
    computed: int
    failed: int
    seconds: float
    cpu: float
    gpu: bool


class Record:
    """The record of a job, for one process at a time.

    Attributes:
        folder: of the job.
    """

    def __init__(self, folder: Path) -> None:
        """Open the record, or begin it.

        Raises:
            UsageError: another process works on this job now.
            ShelfwiseError: the file cannot be used.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be the folder of a job: {error.strerror}") from error
        purpose = Purpose(
            TABLES,
            FORMAT,
            called="the record",
            taken=f"another process answers into {folder} now: let it end, or write to another file",
            other=f"delete {folder}",
            broken=f"Delete {folder} to answer everything anew",
        )
        self._journal = Journal(folder / RECORD, purpose, patience=1.0)

    def begin(self, identity: str, answering: str, log_end: int) -> str:
        """Begin a run, or go on with the one of this identity that was interrupted; return its name."""
        found = self._journal.rows(
            "SELECT run FROM runs WHERE identity = ? AND state = 'running'", (identity,)
        )
        if found:
            return str(found[0][0])
        run = f"{identity[:16]}-{uuid.uuid4().hex[:8]}"
        with self._journal.writing() as connection:
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, 'running', ?)", (run, identity, answering, log_end)
            )
        return run

    def earlier(self, run: str, answering: str) -> list[str]:
        """Return other runs whose answers may be carried over, the latest last."""
        rows = self._journal.rows(
            "SELECT run FROM runs WHERE run != ? AND answering = ? ORDER BY rowid", (run, answering)
        )
        return [name for (name,) in rows if (self.folder / name).is_dir()]

    def done(self, run: str) -> dict[int, Done]:
        """Return the shards of a run that are done."""
        rows = self._journal.rows(
            "SELECT number, rows, computed, failed, seconds, cpu, gpu FROM shards WHERE run = ?", (run,)
        )
        return {row[0]: Done(*row) for row in rows}

    def log_end(self, run: str) -> int:
        """Return how long the log is with the lines of all shards that are done."""
        return int(self._journal.rows("SELECT log_end FROM runs WHERE run = ?", (run,))[0][0])

    def add(self, run: str, done: Done, log_end: int) -> None:
        """Record a shard and the length of the log with its lines, both or neither."""
        with self._journal.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (run, *asdict(done).values())
            )
            connection.execute("UPDATE runs SET log_end = ? WHERE run = ?", (log_end, run))

    def finish(self, run: str) -> None:
        """Record that a run has ended, and forget the others with their answers."""
        with self._journal.writing() as connection:
            connection.execute("UPDATE runs SET state = 'done' WHERE run = ?", (run,))
            connection.execute("DELETE FROM runs WHERE run != ?", (run,))
            connection.execute("DELETE FROM shards WHERE run != ?", (run,))
        self.tidy()

    def logged(self, answering: str) -> int:
        """Return how long the log was at the end of the last run with the same answers."""
        rows = self._journal.rows("SELECT max(log_end) FROM runs WHERE answering = ?", (answering,))
        return int(rows[0][0] or 0)

    def forget(self, answering: str) -> None:
        """Forget the runs whose answers could be carried over."""
        with self._journal.writing() as connection:
            connection.execute("DELETE FROM runs WHERE answering = ?", (answering,))
        self.tidy()

    def tidy(self) -> None:
        """Remove the folders of runs that are not recorded."""
        self._clear({name for (name,) in self._journal.rows("SELECT run FROM runs")})

    def _clear(self, kept: set[str]) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir() and entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)

    def close(self) -> None:
        """Close the record, and free the job for others."""
        self._journal.close()
