"""Store: a file of bytes by key that survives kill -9 and two processes at once.

It knows nothing of images or vectors: keys and values are bytes. Keys name content, so a key always
has the same value and the first one written stays. The file is SQLite in WAL mode
(https://sqlite.org/wal.html); every value carries a CRC-32, so a damaged value reads as absent and
not as a wrong number. A file that is no longer a database is moved aside and begun anew: it is a cache.
"""

import contextlib
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

from shelfwise.errors import ShelfwiseError

#: SQLite takes at least 999 parameters a statement everywhere.
KEYS_A_QUERY = 900
#: Values written in one transaction; a kill loses at most the transaction under way.
VALUES_A_TRANSACTION = 2000
#: How long to wait for another process that is writing, in seconds.
PATIENCE = 60.0


class Store:
    """Bytes by key in one SQLite file; safe for threads, for several processes and for kill -9.

    Attributes:
        path: the file.
        set_aside: where a damaged file was moved when it was met, else ``None``.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it; missing directories are made.

        Raises:
            ShelfwiseError: the file cannot be opened or made there.
        """
        self.path = Path(path)
        self.set_aside: Path | None = None
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShelfwiseError(f"cannot make the cache directory {self.path.parent}: {error}") from error
        try:
            self._connection = self._open()
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error
        except sqlite3.DatabaseError:
            self._begin_anew()

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are there and whole.

        Raises:
            ShelfwiseError: the file cannot be read (permissions, disk).
        """
        found: dict[bytes, bytes] = {}
        damaged: list[bytes] = []
        with self._guarded():
            for chunk in _chunks(keys, KEYS_A_QUERY):
                marks = ",".join("?" * len(chunk))
                rows = self._connection.execute(
                    f"SELECT key, sum, value FROM items WHERE key IN ({marks})", chunk
                )
                for key, check, value in rows:
                    if zlib.crc32(value) == check:
                        found[key] = value
                    else:
                        damaged.append(key)
            if damaged:
                self._connection.executemany("DELETE FROM items WHERE key = ?", [(key,) for key in damaged])
        return found

    def put(self, items: Mapping[bytes, bytes]) -> None:
        """Add values; a key that is there already keeps its value.

        Raises:
            ShelfwiseError: the file cannot be written (permissions, full disk).
        """
        with self._guarded():
            for chunk in _chunks(items, VALUES_A_TRANSACTION):
                rows = [(key, zlib.crc32(items[key]), items[key]) for key in chunk]
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    self._connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", rows)
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")

    def has(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return which of the keys are there; their values are not read or checked, ``get`` does that.

        Raises:
            ShelfwiseError: the file cannot be read.
        """
        found: set[bytes] = set()
        with self._guarded():
            for chunk in _chunks(keys, KEYS_A_QUERY):
                marks = ",".join("?" * len(chunk))
                rows = self._connection.execute(f"SELECT key FROM items WHERE key IN ({marks})", chunk)
                found.update(key for (key,) in rows)
        return found

    def __len__(self) -> int:
        counts: list[int] = []
        with self._guarded():
            counts += self._connection.execute("SELECT count(*) FROM items").fetchone()
        return sum(counts)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Hold the lock; turn SQLite's errors into ours; a damaged file is moved aside and begun anew."""
        with self._lock:
            try:
                yield
            except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
                raise self._failure(error) from error
            except sqlite3.DatabaseError:
                self._connection.close()
                self._begin_anew()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            _in_wal_mode(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS items "
                "(key BLOB PRIMARY KEY, sum INTEGER NOT NULL, value BLOB NOT NULL)"
            )
            connection.execute("SELECT key, sum, value FROM items LIMIT 1").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _begin_anew(self) -> None:
        """Move the damaged file and its journals aside and open an empty one in its place."""
        mark = uuid.uuid4().hex[:8]
        try:
            for ending in ("", "-wal", "-shm"):
                file = self.path.with_name(self.path.name + ending)
                if file.exists():
                    file.rename(self.path.with_name(f"{self.path.name}.damaged-{mark}{ending}"))
            self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{mark}")
            self._connection = self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> ShelfwiseError:
        return ShelfwiseError(
            f"the cache file {self.path} cannot be used: {error}. It is safe to delete, or choose another "
            f"cache directory"
        )


def _in_wal_mode(connection: sqlite3.Connection) -> None:
    """Switch to WAL; two processes switching at once may meet a lock that SQLite does not wait for."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _chunks(keys: Sequence[bytes] | Mapping[bytes, bytes], size: int) -> Iterator[list[bytes]]:
    """Yield the keys in lists of at most ``size``."""
    rest = iter(keys)
    while chunk := list(islice(rest, size)):
        yield chunk
