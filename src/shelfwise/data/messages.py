"""Messages: the body of an HTTP answer, piece by piece, and what its headers say of length, packing and waiting.

It opens no connection. What two programs could read differently is an error (RFC 9112, sections 6.3, 7.1 and 11.2).
"""

import email.utils
import http.client
import io
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from shelfwise.data.terms import NotFetched

#: Bytes read at once.
PIECE = 1 << 16
#: Bytes of an answer that is no photo that are read so that its connection can be used again.
WORTH_DRAINING = 1 << 16
#: Lines after the last chunk, and bytes of each.
MOST_TRAILERS = 100
LONGEST_TRAILER = 1 << 13
_DIGITS = re.compile(r"^[0-9]{1,18}$")
_CHUNK = re.compile(rb"^[ \t]*([0-9a-fA-F]{1,15})[ \t]*(;[^\r\n]*)?\r?\n$")


def stated_length(response: http.client.HTTPResponse) -> int | None:
    """The one length that the headers state; ``None`` for chunks, or for a body that ends with the connection."""
    lengths = {
        part.strip() for value in response.headers.get_all("Content-Length", []) for part in value.split(",")
    }
    codings = [value.strip().lower() for value in response.headers.get_all("Transfer-Encoding", [])]
    wrong = (
        len(lengths) > 1
        or any(not _DIGITS.match(length) for length in lengths)
        or codings not in ([], ["chunked"])
        or bool(lengths and codings)
    )
    if wrong:
        raise ambiguous("its length can be read in two ways")
    return int(lengths.pop()) if lengths else None


def pieces(reader: io.BufferedReader, length: int | None, chunked: bool) -> Iterator[bytes]:
    """Give the body piece by piece, to its end (RFC 9112, 6.3 and 7.1)."""
    if chunked:
        while size := _chunk_size(reader):
            yield from _exactly(reader, size)
            if reader.readline(3) not in (b"\r\n", b"\n"):
                raise ambiguous("a chunk is longer than it says")
        for _ in range(MOST_TRAILERS):
            if reader.readline(LONGEST_TRAILER) in (b"\r\n", b"\n", b""):
                return
        raise ambiguous("the trailer does not end")
    elif length is not None:
        yield from _exactly(reader, length)
    else:
        while piece := reader.read1(PIECE):
            yield piece


def _exactly(reader: io.BufferedReader, size: int) -> Iterator[bytes]:
    left = size
    while left:
        piece = reader.read1(min(left, PIECE))
        if not piece:
            raise cut_off(f"the content ended after {size - left:,} of {size:,} bytes")
        left -= len(piece)
        yield piece


def _chunk_size(reader: io.BufferedReader) -> int:
    line = reader.readline(1024)
    found = _CHUNK.match(line)
    if found is None:
        raise (
            ambiguous("a chunk has no size") if line else cut_off("the content ended before its last chunk")
        )
    return int(found.group(1), 16)


def drained(body: Iterator[bytes], length: int | None, chunked: bool) -> bool:
    """Read an answer that is no photo to its end, if that is near and its connection can then serve again."""
    if (length is None and not chunked) or (length or 0) > WORTH_DRAINING:
        return False
    read = 0
    try:
        for piece in body:
            read += len(piece)
            if read > WORTH_DRAINING:
                return False
    except (NotFetched, OSError):
        return False
    return True


def unpacker(encoding: str | None) -> Any:
    """What unpacks a content coding that was not asked for; ``None`` for none."""
    name = (encoding or "").strip().lower()
    if name in ("", "identity"):
        return None
    if name in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(15 + 32)
    raise NotFetched("failed", "encoding", f"the content is packed as {name!r}, which was not asked for")


def retry_after(value: str | None) -> float | None:
    """Seconds that a server asks to wait, from a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if _DIGITS.match(value.strip()):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    aware = when if when.tzinfo is not None else when.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def too_large(most: int, said: str) -> NotFetched:
    """Return the error of a photo beyond the limit."""
    return NotFetched("failed", "too_large", f"{said}; at most {most:,} are taken")


def cut_off(said: str) -> NotFetched:
    """Return the error of a body that ended too early."""
    return NotFetched("failed", "cut_off", said, again=True)


def ambiguous(said: str) -> NotFetched:
    """Return the error of an answer that can be read in two ways."""
    return NotFetched("failed", "protocol", f"the answer is not clear HTTP: {said}", again=True)
