"""Journal: a small SQLite file that one process has to itself and that survives kill -9.

It does not know what is written. In WAL mode with one transaction a change: after a kill every transaction that was
reported is there; after a power cut the last ones may be missing, never half of one (https://sqlite.org/wal.html).
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shelfwise.errors import ShelfwiseError, UsageError

_META = "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True)
class Purpose:
    """What a journal is for.

    Attributes:
        tables: statements that make its tables where they are not there.
        format: of what is in them.
        called: what it is, in an error.
        taken: what is said where another process has it.
        other: what to do with one of another format.
        broken: what to do with one that cannot be used.
    """

    tables: tuple[str, ...]
    format: str
    called: str
    taken: str
    other: str
    broken: str


class Journal:
    """An open journal; the open file is the lock of what it stands for."""

    def __init__(self, path: Path, purpose: Purpose, *, patience: float) -> None:
        """Open the file, or begin it.

        Args:
            path: the file.
            purpose: what is in it.
            patience: seconds to wait for another process to close it.

        Raises:
            UsageError: another process has it, or it is of another format.
            ShelfwiseError: it cannot be used.
        """
        self.path, self._purpose = path, purpose
        with self._guarded():
            self._connection = sqlite3.connect(path, timeout=patience, isolation_level=None)
            try:
                self._begin()
            except BaseException:
                self._connection.close()
                raise

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows that a statement finds."""
        with self._guarded():
            return self._connection.execute(statement, values).fetchall()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction: all that is written with it, or nothing."""
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file, and free it for others."""
        self._connection.close()

    def _begin(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL").fetchone()
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        for table in (_META, *self._purpose.tables):
            run(table)
        run("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (self._purpose.format,))
        (stated,) = run("SELECT value FROM meta WHERE key = 'format'").fetchone()
        run("COMMIT")
        if stated != self._purpose.format:
            raise UsageError(
                f"{self.path} has format {stated}, this version reads {self._purpose.format}: {self._purpose.other}"
            )

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UsageError(self._purpose.taken) from error
            raise self._failure(error) from error
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ShelfwiseError:
        purpose = self._purpose
        return ShelfwiseError(f"{purpose.called} {self.path} cannot be used: {error}. {purpose.broken}")
