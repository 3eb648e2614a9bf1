"""Ledger: what became of every address of a download; survives kill -9.

It fetches nothing and looks at no picture. It is a journal with one transaction a batch. A photo is in its place and
flushed before its line is written, so a line without its photo cannot be; a photo without its line is fetched again.
The open file is the lock of its folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType

from shelfwise.journal import Journal, Purpose

FORMAT = "1"
TABLES = (
    "CREATE TABLE IF NOT EXISTS files (name TEXT PRIMARY KEY, url TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS urls (url TEXT PRIMARY KEY, status TEXT NOT NULL, reason TEXT NOT NULL, "
    "detail TEXT NOT NULL, ending TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL, "
    "width INTEGER NOT NULL, height INTEGER NOT NULL) WITHOUT ROWID",
)


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
        purpose = Purpose(
            TABLES,
            FORMAT,
            called="the ledger",
            taken=f"another download writes to {path.parent} now: let it end, or name another folder",
            other="name another folder",
            broken="Name another folder, or delete the ledger and the photos beside it to begin anew",
        )
        self._journal = Journal(path, purpose, patience=0.2)

    def outcomes(self) -> dict[str, Outcome]:
        """Return what is known, by address."""
        return {row[0]: Outcome(*row) for row in self._journal.rows("SELECT * FROM urls")}

    def files(self) -> dict[str, str]:
        """Return the address each file is from, by the file's name without its ending."""
        return dict(self._journal.rows("SELECT name, url FROM files"))

    def record(self, found: Sequence[tuple[Outcome, Sequence[str]]]) -> None:
        """Write outcomes with the names of the files that hold them, all or none of them."""
        with self._journal.writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO urls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [astuple(outcome) for outcome, _ in found],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?)",
                [(name, outcome.url) for outcome, names in found for name in names],
            )

    def forget(self, names: Iterable[str]) -> None:
        """Take files that are no more out."""
        with self._journal.writing() as connection:
            connection.executemany("DELETE FROM files WHERE name = ?", [(name,) for name in names])

    @property
    def finished(self) -> bool:
        """Whether the last download into this folder came to its end."""
        return self._journal.rows("SELECT value FROM meta WHERE key = 'finished'") == [("yes",)]

    @finished.setter
    def finished(self, value: bool) -> None:
        with self._journal.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO meta VALUES ('finished', ?)", ("yes" if value else "no",)
            )

    def close(self) -> None:
        """Close the file, and free the folder for others."""
        self._journal.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
