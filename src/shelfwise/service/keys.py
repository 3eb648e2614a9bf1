"""Keys: who may ask the service what; kept as digests, never as secrets.

It does not know HTTP. A secret has 256 random bits, so one SHA-256 of it can neither be turned round nor guessed; a
slow hash is for secrets that people choose. The file is SQLite: a key that another process adds or revokes counts a
moment later.
"""

import contextlib
import hashlib
import hmac
import math
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shelfwise.errors import KeyRingError, UsageError, listing, suggest

SCOPES = ("predict", "review", "admin")
#: What every secret begins with, so that one that leaks into a log or a repository is recognised.
MARK = "sw_"
#: Seconds to wait for another process that is writing.
PATIENCE = 10.0
#: Seconds for which the keys are taken as they were read.
FRESH = 0.05
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
_TABLE = (
    "CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, digest BLOB NOT NULL UNIQUE, scopes TEXT NOT NULL, "
    "rate REAL, added REAL NOT NULL, revoked REAL)"
)


@dataclass(frozen=True)
class Key:
    """One key, without its secret.

    Attributes:
        name: whose it is; stands in logs.
        scopes: what it may do.
        rate: requests a second it may make; ``None`` for the service's own limit.
        added: when, in seconds since 1970.
        revoked: when; ``None`` while it is good.
    """

    name: str
    scopes: tuple[str, ...]
    rate: float | None = None
    added: float = 0.0
    revoked: float | None = None

    def __str__(self) -> str:
        state = "good" if self.revoked is None else f"revoked {_day(self.revoked)}"
        rate = "" if self.rate is None else f", {self.rate:g} requests a second"
        return f"{self.name}: {', '.join(self.scopes)}{rate}; added {_day(self.added)}; {state}"


class KeyRing:
    """The keys of a service in one file; safe for threads and for several processes."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or begin it; only its owner may read it.

        Raises:
            KeyRingError: it cannot be opened or made there.
        """
        self.path = Path(path)
        self._lock = threading.Lock()
        self._read: tuple[float, list[tuple[Key, bytes]]] = (-math.inf, [])
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    def add(self, name: str, scopes: Sequence[str], *, rate: float | None = None) -> str:
        """Make a key and return its secret, which is told this once and kept nowhere.

        Raises:
            UsageError: a name that is taken or cannot be one, an unknown scope, or a rate that is not positive.
        """
        if not _NAME.match(name):
            raise UsageError(
                f"{name!r} cannot name a key: up to 64 letters, digits and . _ @ -, the first a letter or digit"
            )
        for scope in scopes:
            if scope not in SCOPES:
                raise UsageError(
                    f"there is no scope {scope!r}. {suggest(scope, SCOPES) or f'Known: {listing(SCOPES)}.'}"
                )
        if not scopes:
            raise UsageError(f"a key needs a scope: {listing(SCOPES)}")
        if rate is not None and not 0 < rate < float("inf"):
            raise UsageError(f"the rate of a key is above 0 requests a second, not {rate}")
        secret = MARK + secrets.token_urlsafe(32)
        kept = ",".join(scope for scope in SCOPES if scope in scopes)
        with self._guarded():
            try:
                self._connection.execute(
                    "INSERT INTO keys VALUES (?, ?, ?, ?, ?, NULL)",
                    (name, _digest(secret), kept, rate, time.time()),
                )
                self._read = -math.inf, []
            except sqlite3.IntegrityError as error:
                raise UsageError(
                    f"there is a key {name!r} already, or there was: a name is used once"
                ) from error
        return secret

    def revoke(self, name: str) -> None:
        """Take a key's rights away for good, also at a running service.

        Raises:
            UsageError: there is no good key of that name.
        """
        with self._guarded():
            done = self._connection.execute(
                "UPDATE keys SET revoked = ? WHERE name = ? AND revoked IS NULL", (time.time(), name)
            )
            changed = done.rowcount
            self._read = -math.inf, []
        if not changed:
            good = [key.name for key in self.listed() if key.revoked is None]
            hint = suggest(name, good) or (f"There are: {listing(good)}." if good else "There are none.")
            raise UsageError(f"there is no good key {name!r} in {self.path}. {hint}")

    def listed(self) -> tuple[Key, ...]:
        """Return all keys, those that were revoked too, in the order they were added."""
        return tuple(key for key, _ in self._rows())

    def check(self, secret: str) -> Key | None:
        """Return the good key that a secret belongs to, else ``None``; the time it takes tells nothing."""
        digest, found = _digest(secret), None
        for key, kept in self._rows():
            if hmac.compare_digest(digest, kept) and key.revoked is None:
                found = key
        return found

    @property
    def empty(self) -> bool:
        """Whether there never was a key; revoking the last one does not open a service."""
        return not self._rows()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _rows(self) -> list[tuple[Key, bytes]]:
        until, found = self._read
        if time.monotonic() < until:
            return found
        with self._guarded():
            rows = self._connection.execute(
                "SELECT name, digest, scopes, rate, added, revoked FROM keys ORDER BY added, name"
            ).fetchall()
            found = [
                (Key(name, tuple(scopes.split(",")), rate, added, revoked), digest)
                for name, digest, scopes, rate, added, revoked in rows
            ]
            self._read = time.monotonic() + FRESH, found
        return found

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise self._failure(error) from error

    def _failure(self, error: Exception) -> KeyRingError:
        return KeyRingError(
            f"the file of keys {self.path} cannot be used: {error}. Name another with --keys, or mend its permissions"
        )


def default_path() -> Path:
    """Return where keys are kept: ``SHELFWISE_KEYS``, else ``keys.sqlite`` in the user's configuration folder."""
    named = os.environ.get("SHELFWISE_KEYS")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "shelfwise" / "keys.sqlite"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", errors="surrogatepass")).digest()


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
