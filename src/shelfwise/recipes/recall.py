"""Recall: what a model said, kept by what it was asked, so that no question is paid for twice.

It knows JSON and digests, not what is asked. The folds of a cross-fit, a run that was stopped, and later runs with
the same model, question and picture all find it again.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shelfwise.data.store import Store
from shelfwise.files import cache_directory

FILE = "replies.sqlite"


class Recall:
    """Replies by what was asked; keeps nothing where it is told not to."""

    def __init__(self, cache: Path | None, kept: bool) -> None:
        """Open the file of replies in a cache folder."""
        self._store = Store(cache_directory(cache) / FILE) if kept else None

    def close(self) -> None:
        """Close the file."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> "Recall":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: bytes) -> Any:
        """Return what was kept, ``None`` where there is nothing."""
        if self._store is None:
            return None
        found = self._store.get([key]).get(key)
        return None if found is None else json.loads(found)

    def put(self, key: bytes, value: Any) -> None:
        """Keep a value that JSON can hold."""
        if self._store is not None:
            self._store.put({key: json.dumps(value).encode("ascii")})


def key_of(asked: Mapping[str, Any], picture: bytes) -> bytes:
    """Return the key of a question about a picture.

    Args:
        asked: everything that the reply depends on but the picture.
        picture: digest of the picture file's content.
    """
    text = json.dumps(asked, sort_keys=True)
    return hashlib.blake2b(text.encode("ascii") + b"\x00" + picture, digest_size=24).digest()
