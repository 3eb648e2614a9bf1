"""Carried: what tells that a row is as it was when it was answered, and the answers that are kept by it.

It answers nothing. A row's key is a digest of the cells that its answers depend on and of where its photos are, how
large they are and when they were written; what all rows depend on (bundle, options) is the run's, not the row's. Keys
of earlier runs lie sorted in one file that is mapped, not read.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.catalog import Catalog
from shelfwise.data.images import content_digest, read_bytes
from shelfwise.errors import ImageError
from shelfwise.files import replacing
from shelfwise.photos import Located
from shelfwise.roles import Roles

#: Columns beside the answers: the row's key, its photos' content, whether it failed, and what is wrong with it.
KEY, CONTENT = "@key", "@content"
SIZE = 16
#: An entry of the file of keys: the key, the file of answers, the row in it.
ENTRY = np.dtype([("key", f"V{SIZE}"), ("part", "<u4"), ("row", "<u4")])
#: Parts of the answers of earlier runs that are held at once.
HELD = 4


def row_keys(frame: pl.DataFrame, roles: Roles, located: Located, *, stated: bool) -> list[bytes]:
    """Return the key of every row.

    Args:
        frame: the cells.
        roles: of the columns.
        located: where the photos are.
        stated: whether answers depend on stated cells too, as where they are kept.
    """
    used = [name for name in (roles.id, roles.category, roles.image) if name is not None]
    used += roles.texts
    used += (*roles.choices, *roles.numbers) if stated else ()
    cells = frame.select(
        pl.concat_str([pl.col(name).fill_null("\x00") for name in used], separator="\x1f").alias("cells")
        if used
        else pl.repeat("", pl.len(), dtype=pl.String).alias("cells")
    )["cells"].to_list()
    stats: dict[str, bytes] = {}
    keys = []
    for row, text in enumerate(cells):
        digest = hashlib.blake2b(text.encode(), digest_size=SIZE)
        for path in paths_of(located, row):
            name = str(path)
            if name not in stats:
                stats[name] = _stat(name)
            digest.update(stats[name])
        error = located.errors.get(row)
        if error is not None:
            digest.update(f"\x00{error.kind}".encode())
        keys.append(digest.digest())
    return keys


def to_try_again(key: bytes) -> bytes:
    """Return a key that no row has, for answers without a photo that may be there the next time."""
    return hashlib.blake2b(key, digest_size=SIZE, person=b"to try again").digest()


def paths_of(located: Located, row: int) -> tuple[Path, ...]:
    """Return where all photos of a row are."""
    several = located.photos.get(row)
    if several is not None:
        return tuple(photo.path for photo in several)
    first = located.first[row]
    return () if first is None else (first,)


def located_in(catalog: Catalog) -> Located:
    """Return where the photos of a catalogue are."""
    return Located(catalog.images, catalog.image_errors, catalog.photos)


def contents(located: Located, rows: Iterable[int]) -> list[bytes | None]:
    """Return the digest of the photos' content of rows; ``None`` where one cannot be read."""
    found: list[bytes | None] = []
    for row in rows:
        digest = hashlib.blake2b(digest_size=SIZE)
        try:
            for path in paths_of(located, row):
                digest.update(content_digest(read_bytes(path)))
        except ImageError:
            found.append(None)
            continue
        found.append(digest.digest())
    return found


def _stat(name: str) -> bytes:
    try:
        found = os.stat(name)
    except OSError:
        return f"{name}\x00gone".encode()
    return f"{name}\x00{found.st_size}\x00{found.st_mtime_ns}".encode()


def write_keys(parts: Sequence[Path], to: Path) -> None:
    """Write the sorted keys of these files of answers; of equal keys the one of the last file comes first."""
    import pyarrow.parquet as pq

    pieces = []
    for number, part in enumerate(parts):
        keys = pq.read_table(part, columns=[KEY])[KEY].to_pylist()
        piece = np.zeros(len(keys), ENTRY)
        piece["key"] = np.frombuffer(b"".join(keys), f"V{SIZE}")
        piece["part"], piece["row"] = number, np.arange(len(keys))
        pieces.append(piece)
    entries = np.concatenate([*reversed(pieces), np.zeros(0, ENTRY)])
    head = _head(entries["key"])
    with replacing(to) as temporary, temporary.open("wb") as file:
        np.save(file, entries[np.argsort(head, kind="stable")])


def _head(keys: npt.NDArray[np.void]) -> npt.NDArray[np.uint64]:
    """The first half of each key as a number, by which they are sorted."""
    whole: npt.NDArray[np.uint64] = np.ascontiguousarray(keys).view("<u8")
    return whole.reshape(-1, 2)[:, 0]


@dataclass(frozen=True, eq=False)
class Kept:
    """Answers of earlier runs, by key.

    Attributes:
        parts: the files of answers.
        entries: sorted keys, see ``ENTRY``.
        heads: uint64, the first half of each key.
    """

    parts: tuple[Path, ...]
    entries: npt.NDArray[np.void]
    heads: npt.NDArray[np.uint64]

    @classmethod
    def open(cls, path: Path, parts: Sequence[Path]) -> "Kept":
        """Map what ``write_keys`` wrote."""
        entries = np.load(path, mmap_mode="r")
        return cls(tuple(parts), entries, _head(entries["key"]))

    def find(self, keys: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], pl.DataFrame | None]:
        """Find the answers of rows.

        Returns:
            The positions of the rows that are kept, ascending, and their answers in that order.
        """
        asked = np.frombuffer(b"".join(keys), f"V{SIZE}")
        at = np.searchsorted(self.heads, _head(asked))
        inside = np.flatnonzero(at < len(self.entries))
        there = inside[self.entries["key"][at[inside]] == asked[inside]]
        if not len(there):
            return there, None
        entries = self.entries[at[there]]
        order = np.lexsort((entries["row"], entries["part"]))
        pieces = []
        for number in np.unique(entries["part"]).tolist():
            rows = entries["row"][order][entries["part"][order] == number]
            part = _part(self.parts[number])
            pieces.append(part if np.array_equal(rows, np.arange(part.height)) else part[rows])
        whole = pl.concat(pieces, how="diagonal")
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return there, whole if np.array_equal(back, np.arange(len(back))) else whole[back]


@lru_cache(maxsize=HELD)
def _part(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path, memory_map=False)
