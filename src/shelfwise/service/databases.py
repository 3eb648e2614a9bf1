"""Databases: transactions on a SQLite file or a PostgreSQL server, in SQL that both understand.

They do not know what is kept. Statements mark values by ``?`` and hold no ``%``; writers come one after the other.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from shelfwise.errors import DeskError, require

Row = tuple[Any, ...]
SCHEMES = ("postgresql://", "postgres://")
#: Seconds that a writer waits for another one.
PATIENCE = 30.0


def is_server(place: str | Path) -> bool:
    """Whether a place is the address of a PostgreSQL server, not a file."""
    return str(place).startswith(SCHEMES)


def shown(place: str | Path) -> str:
    """Return a place for messages: an address without user, password and options."""
    if not is_server(place):
        return str(place)
    parts = urlsplit(str(place))
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def translated(statement: str) -> str:
    """Return a statement as psycopg wants it: values marked by ``%s``."""
    return statement.replace("?", "%s")


class Session:
    """Runs statements inside one transaction."""

    def __init__(self, cursor: Any, server: bool) -> None:
        self._cursor, self._server = cursor, server

    def _text(self, statement: str) -> str:
        return translated(statement) if self._server else statement

    def run(self, statement: str, *values: Any) -> None:
        """Run a statement that returns nothing."""
        self._cursor.execute(self._text(statement), values)

    def rows(self, statement: str, *values: Any) -> list[Row]:
        """Run a statement and return all its rows."""
        self._cursor.execute(self._text(statement), values)
        found: list[Row] = self._cursor.fetchall()
        return found

    def many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each row of values."""
        self._cursor.executemany(self._text(statement), rows)


class Database(Protocol):
    """Where a desk is kept."""

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """A transaction that sees one state of everything."""

    def writing(self) -> contextlib.AbstractContextManager[Session]:
        """A transaction that no other writer overlaps; kept whole, or not at all where it raises."""

    def close(self) -> None:
        """Let go of the connection."""


class SqliteFile:
    """One file with a write-ahead log; the threads of this process share a connection, in turn."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.RLock()
        with self._reported():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._connection.execute("PRAGMA journal_mode = WAL").fetchall()
                self._connection.execute("PRAGMA synchronous = FULL")
            except BaseException:
                self._connection.close()
                raise

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DeskError(f"{self._path}: the desk cannot be read or written: {error}") from error

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        with self._lock, self._reported():
            self._connection.execute(begin)
            cursor = self._connection.cursor()
            try:
                yield Session(cursor, server=False)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            finally:
                cursor.close()

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """See ``Database``."""
        return self._transaction("BEGIN")

    def writing(self) -> contextlib.AbstractContextManager[Session]:
        """See ``Database``."""
        return self._transaction("BEGIN IMMEDIATE")

    def close(self) -> None:
        """See ``Database``."""
        with self._lock:
            self._connection.close()


class PostgresServer:
    """A database of a PostgreSQL server; a connection that was lost is made again at the next call."""

    def __init__(self, address: str) -> None:
        self._psycopg = require("psycopg", extra="postgres")
        self._address, self._lock = address, threading.RLock()
        with self._reported():
            self._connection = self._connect()

    def _connect(self) -> Any:
        return self._psycopg.connect(self._address, autocommit=True, connect_timeout=10)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except self._psycopg.Error as error:
            said = " ".join(str(error).split())
            raise DeskError(f"{shown(self._address)}: the desk cannot be read or written: {said}") from error

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Session]:
        with self._lock, self._reported():
            if self._connection.closed:
                self._connection = self._connect()
            with self._connection.transaction(), self._connection.cursor() as cursor:
                cursor.execute(begin)
                yield Session(cursor, server=True)

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """See ``Database``."""
        return self._transaction("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")

    def writing(self) -> contextlib.AbstractContextManager[Session]:
        """See ``Database``; the lock is given back with the transaction."""
        return self._transaction(f"SELECT pg_advisory_xact_lock({LOCK})")

    def close(self) -> None:
        """See ``Database``."""
        with self._lock:
            self._connection.close()


#: Names the lock that writers of desks take on a server: "desk" as a number.
LOCK = int.from_bytes(b"desk", "big")


def connect(place: str | Path) -> Database:
    """Open a SQLite file, made where it is not there, or connect to ``postgresql://...``.

    Raises:
        DeskError: it cannot be opened.
        MissingExtra: psycopg is not installed.
    """
    return PostgresServer(str(place)) if is_server(place) else SqliteFile(Path(place))
