"""Pixels: the decoded pictures of a training set, kept on disk so that an epoch decodes nothing.

It knows no labels, models or epochs; how a file's content becomes an array is given to it. A picture is found by
the digest of its content, so the same photo under two names is kept once and a changed file is decoded again.
What is kept lies in shards: files written whole or not at all, read through the page cache, each picture with a
CRC-32. A kill loses at most the shard under way; a damaged picture is decoded again from its file.

Legend: N rows, n of them, H height, W width.
"""

import contextlib
import os
import shutil
import struct
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shelfwise.data.images import content_digest, read_bytes
from shelfwise.errors import ImageError, UsageError
from shelfwise.files import Progress, replacing

Images = NDArray[np.uint8]
Rows = NDArray[np.int64]
#: From a file's content to the pixels uint8 [H, W, 3].
Decode = Callable[[bytes], Images]
Mode = Literal["keep", "decode"]

#: Bytes of kept pictures in all; beyond them pictures are decoded again in every epoch.
MOST_BYTES = 16 << 30
#: Share of the free disk that is never used.
SPARE = 0.1
#: Pictures of one shard; a kill loses at most these.
SHARD = 512
ENDING = ".pixels"
#: The end of a shard: mark, pictures, height, width, CRC-32 of the table of digests and sums before it.
_TAIL = struct.Struct("<8sqiiI")
_MARK = b"SHWPIX01"
_DIGEST = 16


@dataclass(frozen=True, eq=False)
class _Shard:
    """One file of kept pictures."""

    path: Path
    digests: tuple[bytes, ...]
    sums: NDArray[np.uint32]
    images: NDArray[np.uint8]


@dataclass(eq=False)
class Pixels:
    """The pictures of N rows, at hand.

    Attributes:
        size: height and width.
        sources: each row's file.
        digests: of each row's content; ``None`` where it cannot be read.
        errors: row position to why there is no picture.
        notes: what the user should know, such as that there is no room to keep them all.
        decoded: how many pictures were decoded now; the rest was kept.
    """

    size: tuple[int, int]
    sources: tuple[Path | None, ...]
    digests: tuple[bytes | None, ...]
    errors: Mapping[int, ImageError]
    notes: tuple[str, ...]
    decoded: int
    decode: Decode
    jobs: int
    shards: Sequence[_Shard] = field(default=(), repr=False)
    place_N2: Rows = field(default_factory=lambda: np.zeros((0, 2), np.int64), repr=False)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each row has a picture, bool [N]."""
        readable_N = np.ones(len(self), np.bool_)
        readable_N[list(self.errors)] = False
        return readable_N

    def take(self, rows: Sequence[int] | Rows) -> Images:
        """Return the pictures of these rows, uint8 [n, H, W, 3]; safe to call from several threads.

        Raises:
            ImageError: a row without a readable picture, or one whose file has changed since.
        """
        wanted = [int(row) for row in rows]
        images_nHWC = np.empty((len(wanted), *self.size, 3), np.uint8)
        fresh = []
        for at, row in enumerate(wanted):
            if row in self.errors:
                raise self.errors[row]
            shard, slot = self.place_N2[row].tolist()
            if shard >= 0:
                images_nHWC[at] = self.shards[shard].images[slot]
                if zlib.crc32(images_nHWC[at].tobytes()) == int(self.shards[shard].sums[slot]):
                    continue
            fresh.append(at)
        if len(fresh) > 1 and self.jobs > 1:
            with ThreadPoolExecutor(min(self.jobs, len(fresh)), thread_name_prefix="pixels") as pool:
                for at, image_HWC in zip(
                    fresh, pool.map(self._again, [wanted[at] for at in fresh]), strict=True
                ):
                    images_nHWC[at] = image_HWC
        else:
            for at in fresh:
                images_nHWC[at] = self._again(wanted[at])
        return images_nHWC

    def _again(self, row: int) -> Images:
        source = self.sources[row]
        assert source is not None
        data = read_bytes(source)
        if content_digest(data) != self.digests[row]:
            raise ImageError("unreadable", f"{source}: the file changed while it was learnt from")
        return self.decode(data)


def read_pixels(
    sources: Sequence[Path | None],
    decode: Decode,
    size: tuple[int, int],
    key: str,
    *,
    errors: Mapping[int, ImageError] | None = None,
    cache: Path | None = None,
    mode: Mode = "keep",
    most_bytes: int = MOST_BYTES,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Pixels:
    """Decode every picture once and keep it, where there is room.

    Args:
        sources: each row's file; ``None`` where there is none.
        decode: from content to pixels of ``size``; the same content gives the same pixels.
        size: height and width.
        key: names how pictures are decoded: equal keys give equal pixels.
        errors: what is known to be wrong with rows.
        cache: directory of caches; nothing is kept without one.
        mode: ``keep``, or ``decode`` to decode again whenever a picture is asked for.
        most_bytes: of kept pictures of all keys together; the least recently used ones make room.
        jobs: threads.
        progress: told how far it is.

    Raises:
        UsageError: ``decode`` gives another size.
    """
    jobs = jobs or os.cpu_count() or 1
    home = cache / "pixels" / key if cache is not None and mode == "keep" else None
    with ThreadPoolExecutor(jobs, thread_name_prefix="pixels") as pool:
        digests, wrong = _digests(pool, sources, dict(errors or {}))
        first: dict[bytes, int] = {}
        for row, digest in enumerate(digests):
            if digest is not None:
                first.setdefault(digest, row)
        shards = _open_shards(home, size) if home is not None else []
        known = {digest for shard in shards for digest in shard.digests}
        missing = {digest: sources[row] for digest, row in first.items() if digest not in known}
        notes: list[str] = []
        if home is not None and missing:
            notes += _no_room(home, len(first), len(missing), size, most_bytes)
        reading = _Reading(pool, decode, size, progress, len(first))
        bad = reading.read(missing, None if notes else home, shards, notes)
    for row, digest in enumerate(digests):
        if digest in bad:
            wrong[row] = ImageError(bad[digest].kind, f"{sources[row]}: {bad[digest]}")
    fresh = len(missing) - len(bad)
    places_N2 = _places(digests, shards)
    wrong = dict(sorted(wrong.items()))
    return Pixels(
        size, tuple(sources), digests, wrong, tuple(notes), fresh, decode, jobs, tuple(shards), places_N2
    )


@dataclass(frozen=True)
class _Reading:
    """One pass over pictures that are not kept yet."""

    pool: ThreadPoolExecutor
    decode: Decode
    size: tuple[int, int]
    progress: Progress | None
    total: int

    def read(
        self,
        missing: Mapping[bytes, Path | None],
        home: Path | None,
        shards: list[_Shard],
        notes: list[str],
    ) -> dict[bytes, ImageError]:
        """Decode what is missing, keep it under ``home`` as new shards, and return what cannot be read."""
        bad: dict[bytes, ImageError] = {}
        items = list(missing.items())
        for start in range(0, len(items), SHARD):
            part = items[start : start + SHARD]
            if self.progress is not None:
                self.progress("decoding pictures", self.total - len(items) + start, self.total)
            found = dict(zip((digest for digest, _ in part), self.pool.map(self._one, part), strict=True))
            bad |= {digest: each for digest, each in found.items() if isinstance(each, ImageError)}
            good = {digest: each for digest, each in found.items() if not isinstance(each, ImageError)}
            if home is None or not good:
                continue
            try:
                shards.append(_write_shard(home, good, self.size))
            except OSError as error:
                notes.append(f"pictures cannot be kept in {home}: {error}; they are decoded in every epoch")
                home = None
        if self.progress is not None:
            self.progress("decoding pictures", self.total, self.total)
        return bad

    def _one(self, item: tuple[bytes, Path | None]) -> Images | ImageError:
        digest, source = item
        assert source is not None
        try:
            data = read_bytes(source)
            if content_digest(data) != digest:
                return ImageError("unreadable", "the file changed while it was read")
            image_HWC = self.decode(data)
        except ImageError as error:
            return error
        if image_HWC.shape != (*self.size, 3) or image_HWC.dtype != np.uint8:
            raise UsageError(
                f"decoding gives {image_HWC.dtype} {image_HWC.shape}, not uint8 {(*self.size, 3)}"
            )
        return image_HWC


def _digests(
    pool: ThreadPoolExecutor, sources: Sequence[Path | None], errors: dict[int, ImageError]
) -> tuple[tuple[bytes | None, ...], dict[int, ImageError]]:
    """Return the digest of every row's content, and why there is none."""

    def digest(row: int) -> bytes | ImageError:
        source = sources[row]
        if row in errors:
            return errors[row]
        if source is None:
            return ImageError("missing", "the row names no picture")
        try:
            return content_digest(read_bytes(source))
        except ImageError as error:
            return error

    found = list(pool.map(digest, range(len(sources))))
    wrong = {row: value for row, value in enumerate(found) if isinstance(value, ImageError)}
    return tuple(None if isinstance(value, ImageError) else value for value in found), wrong


def _no_room(home: Path, wanted: int, missing: int, size: tuple[int, int], most_bytes: int) -> list[str]:
    """Make room by removing what was not used for longest; return why there is none, if so."""
    one = size[0] * size[1] * 3
    home.mkdir(parents=True, exist_ok=True)
    os.utime(home)
    if wanted * one > most_bytes:
        return [
            f"{wanted:,} pictures of {size[0]} x {size[1]} pixels are more than the {most_bytes / 1e9:.1f} GB that "
            "may be kept; they are decoded again in every epoch"
        ]
    others = sorted((p for p in home.parent.iterdir() if p != home and p.is_dir()), key=_used)
    total = sum(_bytes(p) for p in (*others, home)) + missing * one
    while others and total > most_bytes:
        gone = others.pop(0)
        total -= _bytes(gone)
        shutil.rmtree(gone, ignore_errors=True)
    usage = shutil.disk_usage(home)
    if missing * one > usage.free - SPARE * usage.free:
        return [
            f"{home}: {usage.free / 1e9:.1f} GB are free, {missing * one / 1e9:.1f} GB are needed to keep decoded "
            "pictures; they are decoded again in every epoch"
        ]
    return []


def _used(directory: Path) -> float:
    with contextlib.suppress(OSError):
        return directory.stat().st_mtime
    return 0.0


def _bytes(directory: Path) -> int:
    total = 0
    for path in directory.glob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _write_shard(home: Path, images: Mapping[bytes, Images], size: tuple[int, int]) -> _Shard:
    """Write pictures and, behind them, the table that finds them; the file is there whole or not at all."""
    path = home / f"{uuid.uuid4().hex}{ENDING}"
    sums = np.array([zlib.crc32(image.tobytes()) for image in images.values()], "<u4")
    table = b"".join(images) + sums.tobytes()
    with replacing(path) as temporary, temporary.open("wb") as file:
        for image_HWC in images.values():
            file.write(np.ascontiguousarray(image_HWC).data)
        file.write(table)
        file.write(_TAIL.pack(_MARK, len(images), *size, zlib.crc32(table)))
    shard = _open_shard(path, size)
    assert shard is not None
    return shard


def _open_shards(home: Path, size: tuple[int, int]) -> list[_Shard]:
    shards = []
    for path in sorted(home.glob(f"*{ENDING}")):
        shard = _open_shard(path, size)
        if shard is not None:
            shards.append(shard)
    return shards


def _open_shard(path: Path, size: tuple[int, int]) -> _Shard | None:
    """Return a shard; a damaged one is removed and counts as absent."""
    one = size[0] * size[1] * 3
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(length - _TAIL.size, 0))
            mark, count, height, width, check = _TAIL.unpack(file.read(_TAIL.size))
            whole = count * (one + _DIGEST + 4) + _TAIL.size
            if mark != _MARK or (height, width) != size or count < 1 or length != whole:
                raise ValueError("not a whole shard")
            file.seek(count * one)
            table = file.read(count * (_DIGEST + 4))
        if zlib.crc32(table) != check:
            raise ValueError("damaged table")
        digests = tuple(table[at : at + _DIGEST] for at in range(0, count * _DIGEST, _DIGEST))
        sums = np.frombuffer(table, "<u4", count, count * _DIGEST)
        images = np.memmap(path, np.uint8, "r", 0, (count, *size, 3))
    except (OSError, ValueError, struct.error):
        path.unlink(missing_ok=True)
        return None
    return _Shard(path, digests, sums.astype(np.uint32), images)


def _places(digests: Sequence[bytes | None], shards: Sequence[_Shard]) -> Rows:
    """Return int64 [N, 2], the shard of every row's picture and its place there; -1 where it is not kept."""
    place_of: dict[bytes, tuple[int, int]] = {}
    for number, shard in enumerate(shards):
        for slot, digest in enumerate(shard.digests):
            place_of.setdefault(digest, (number, slot))
    found = [place_of.get(digest, (-1, -1)) if digest is not None else (-1, -1) for digest in digests]
    return np.array(found, np.int64).reshape(-1, 2)
