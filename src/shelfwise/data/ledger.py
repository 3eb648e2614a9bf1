"""Ledger: what became of every address of a download; survives kill -9.

It fetches nothing and looks at no picture. SQLite in WAL mode with one transaction a batch: after a kill every
transaction that was reported is there; after a power cut the last ones may be missing, never half of one
(https://sqlite.org/wal.html). A photo is in its place and flushed before its line is written, so a line without its
photo cannot be; a photo without its line is fetched again. The open file is the lock of its folder.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType

from shelfwise.errors import ShelfwiseError, UsageError

FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one address.

    Attributes:
        url: in its one spelling.
        status: ``ok``, ``refused``, ``failed`` or ``not_an_image``.
        reason: a short stable name; empty where ``ok``.
        detail: a sentence for the user; empty where ``ok``.
        ending: of the file, from its content, such as ``.jpg``.
        digest: of the content, 16 bytes of BLAKE2b in hexadecimal.
        bytes, width, height: of the picture; 0 where there is none.
    """

    url: str
    status: str
    reason: str = ""
    detail: str = ""
    ending: str = ""
    digest: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0


class Ledger:
    """The outcomes of one folder, for one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it.

        Raises:
            UsageError: another download writes to this folder now.
            ShelfwiseError: the file cannot be used.
        """
        self.path = path
        with self._guarded():
            self._connection = sqlite3.connect(path, timeout=0.2, isolation_level=None)
            try:
                self._begin()
            except BaseException:
                self._connection.close()
                raise

    def outcomes(self) -> dict[str, Outcome]:
        """Return what is known, by address."""
        with self._guarded():
            rows = self._connection.execute("SELECT * FROM urls")
            return {row[0]: Outcome(*row) for row in rows}

    def files(self) -> dict[str, str]:
        """Return the address each file is from, by the file's name without its ending."""
        with self._guarded():
            return dict(self._connection.execute("SELECT name, url FROM files").fetchall())

    def record(self, found: Sequence[tuple[Outcome, Sequence[str]]]) -> None:
        """Write outcomes with the names of the files that hold them, all or none of them."""
        with self._transaction():
            self._connection.executemany(
                "INSERT OR REPLACE INTO urls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [astuple(outcome) for outcome, _ in found],
            )
            self._connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?)",
                [(name, outcome.url) for outcome, names in found for name in names],
            )

    def forget(self, names: Iterable[str]) -> None:
        """Take files that are no more out."""
        with self._transaction():
            self._connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    @property
    def finished(self) -> bool:
        """Whether the last download into this folder came to its end."""
        with self._guarded():
            found = self._connection.execute("SELECT value FROM meta WHERE key = 'finished'").fetchone()
        return found is not None and found[0] == "yes"

    @finished.setter
    def finished(self, value: bool) -> None:
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('finished', ?)", ("yes" if value else "no",)
            )

    def close(self) -> None:
        """Close the file, and free the folder for others."""
        self._connection.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        run = self._connection.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL").fetchone()
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        run("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        run("CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, url TEXT NOT NULL) WITHOUT ROWID")
        run(
            "CREATE TABLE IF NOT EXISTS urls (url TEXT PRIMARY KEY, status TEXT NOT NULL, reason TEXT NOT NULL, "
            "detail TEXT NOT NULL, ending TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL, "
            "width INTEGER NOT NULL, height INTEGER NOT NULL) WITHOUT ROWID"
        )
        run("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
        (stated,) = run("SELECT value FROM meta WHERE key = 'format'").fetchone()
        run("COMMIT")
        if stated != FORMAT:
            raise UsageError(
                f"{self.path} has format {stated}, this version reads {FORMAT}: name another folder"
            )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._guarded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise UsageError(
                    f"another download writes to {self.path.parent} now: let it end, or name another folder"
                ) from error
            raise self._failure(error) from error
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ShelfwiseError:
        return ShelfwiseError(
            f"the ledger {self.path} cannot be used: {error}. Name another folder, or delete the ledger and the "
            "photos beside it to begin anew"
        )
