"""Embeddings: vectors of photos, computed once and kept by picture content.

It knows no labels and no tables. A photo is read, looked up by the digest of its bytes, and only where
its vector is not known decoded and run through the engine. Vectors are rounded to float16 before anyone
sees them, so a value is the same whether it was computed now or read back. Memory does not grow with the
number of photos: they pass in chunks.

Legend: N rows, H height, W width, D features.
"""

import contextlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from shelfwise.data.images import content_digest, read_bytes
from shelfwise.data.store import Store
from shelfwise.errors import ImageError, UsageError
from shelfwise.files import Progress
from shelfwise.models.backbones import Backbone, Preprocess
from shelfwise.models.engines import Chosen, EngineRecord, choose_engine, cores
from shelfwise.models.halves import WIDENED, Half, from_half, to_half
from shelfwise.registry import Spec

T = TypeVar("T")
R = TypeVar("R")
Source = Path | bytes | None

#: Rows that pass together; bounds memory, whatever the number of photos.
CHUNK = 2048
#: Vectors written to disk together; a killed run loses at most these and what is under way.
FLUSH = 256
#: Photos that a thread decodes before it runs them: fewer swings between two programs' caches.
GROUP = 16
#: Bytes of files kept between the look-up and the decoding of a chunk; larger ones are read again.
KEPT_BYTES, KEPT_FILE = 64 << 20, 1 << 20


@runtime_checkable
class HasImages(Protocol):
    """What embedding needs of a catalogue: a photo or the reason why there is none, row by row."""

    @property
    def images(self) -> Sequence[Path | None]:
        """The path of every row's photo; ``None`` where it cannot be located."""
        ...

    @property
    def image_errors(self) -> Mapping[int, ImageError]:
        """Why a row's photo cannot be located, by row position."""
        ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of photos, row by row.

    Attributes:
        vectors: float32 [N, D]; NaN where a photo cannot be read.
        errors: why, by row position.
        record: the engine that computed them.
        fingerprint: of the backbone; vectors of one backbone may be compared with each other.
        space: equal for vectors that are the same to the last bit.
        computed: how many were computed now; the rest was known.
    """

    vectors: NDArray[np.float32]
    errors: Mapping[int, ImageError]
    record: EngineRecord
    fingerprint: str
    space: str
    computed: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each row has a vector, bool [N]."""
        mask_N = np.ones(len(self.vectors), np.bool_)
        mask_N[list(self.errors)] = False
        return mask_N


@dataclass(frozen=True)
class _Rows:
    """The sources of all rows, and what is already known to be wrong with some."""

    sources: Sequence[Source]
    errors: Mapping[int, ImageError] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pending:
    """A picture to be computed: its digest, where it is, and its content where it is held."""

    digest: bytes
    source: Source
    data: bytes | None


def embed(
    photos: HasImages | Sequence[Source],
    backbone: Spec | Backbone | Chosen,
    *,
    cache: Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Return the vectors of all photos at once; see ``embed_stream`` for more than memory holds.

    Args:
        photos: a catalogue, or paths (or the bytes of image files); ``None`` is a missing photo.
        backbone: what computes the vectors; an engine chosen before is used as it is.
        cache: directory of caches; nothing outlives the call where left out.
        engine: ``auto``, ``openvino``, ``torch``, ``torch-bf16`` or ``cuda``.
        device: ``auto``, ``cpu`` or ``cuda``.
        jobs: how many photos are worked on side by side; all processors where left out. The vectors
            are the same for any number.
        progress: called with how many rows are done.

    Raises:
        EngineError: no engine runs the backbone, or it gives numbers that are not finite.
        UsageError: an unknown engine or device.
    """
    chosen, rows = _chosen(backbone, cache, engine, device, jobs), _rows(photos)
    vectors_ND = np.empty((len(rows.sources), chosen.card.dimension), np.float32)
    errors: dict[int, ImageError] = {}
    computed = 0
    for start, part in _stream(rows, chosen, _Way(cache, jobs or cores(), CHUNK, progress), vectors_ND):
        errors.update({start + row: error for row, error in part.errors.items()})
        computed += part.computed
    return Embeddings(vectors_ND, errors, chosen.record, chosen.card.fingerprint, chosen.space, computed)


def embed_stream(
    photos: HasImages | Sequence[Source],
    backbone: Spec | Backbone | Chosen,
    *,
    cache: Path | None = None,
    engine: str = "auto",
    device: str = "auto",
    jobs: int | None = None,
    chunk: int = CHUNK,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Embeddings]]:
    """Yield (first row, vectors of the rows from there) chunk by chunk, in bounded memory.

    Row positions in ``errors`` of a chunk count from its first row. Other arguments: see ``embed``.
    """
    if chunk < 1:
        raise UsageError(f"a chunk has at least one row, not {chunk}")
    chosen = _chosen(backbone, cache, engine, device, jobs)
    yield from _stream(_rows(photos), chosen, _Way(cache, jobs or cores(), chunk, progress))


@dataclass(frozen=True)
class _Way:
    """Where vectors are kept, how many threads there are, how many rows pass together, and who is told."""

    cache: Path | None
    jobs: int
    chunk: int
    progress: Progress | None


def _stream(
    rows: _Rows, chosen: Chosen, way: _Way, whole_ND: NDArray[np.float32] | None = None
) -> Iterator[tuple[int, Embeddings]]:
    """Yield chunks as ``embed_stream`` does; their vectors are parts of an array of all, where one is given."""
    total, chunk, jobs = len(rows.sources), way.chunk, way.jobs
    with contextlib.ExitStack() as stack:
        store = None
        if way.cache is not None or total > chunk:
            home = way.cache or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shelfwise-")))
            store = stack.enter_context(Store(home / "embeddings" / f"{chosen.space}.sqlite"))
        pool = ThreadPoolExecutor(jobs, thread_name_prefix="embed")
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            errors = {row - start: rows.errors[row] for row in range(start, stop) if row in rows.errors}

            def told(done: int, start: int = start) -> None:
                if way.progress is not None:
                    way.progress("embed", start + done, total)

            shape = stop - start, chosen.card.dimension
            part_nD = np.empty(shape, np.float32) if whole_ND is None else whole_ND[start:stop]
            part = _Rows(rows.sources[start:stop], errors)
            yield start, _chunk(part, chosen, store, (pool, jobs), told, part_nD)


def _chosen(
    backbone: Spec | Backbone | Chosen, cache: Path | None, engine: str, device: str, jobs: int | None
) -> Chosen:
    if isinstance(backbone, Chosen):
        return backbone
    return choose_engine(backbone, device=device, requested=engine, cache=cache, jobs=jobs)


def _rows(photos: HasImages | Sequence[Source]) -> _Rows:
    if isinstance(photos, HasImages):
        return _Rows(photos.images, photos.image_errors)
    return _Rows(photos)


def _chunk(
    rows: _Rows,
    chosen: Chosen,
    store: Store | None,
    threads: tuple[ThreadPoolExecutor, int],
    told: Callable[[int], None],
    vectors_nD: NDArray[np.float32],
) -> Embeddings:
    """Fill in the vectors of one chunk: digests first, then what the store does not know."""
    errors = dict(rows.errors)
    digests: dict[int, bytes] = {}
    held: dict[bytes, bytes] = {}
    room = KEPT_BYTES
    wanted = [(row, source) for row, source in enumerate(rows.sources) if row not in errors]
    for (row, _), found in zip(wanted, _digests(*threads, wanted), strict=True):
        if isinstance(found, ImageError):
            errors[row] = found
            continue
        digests[row], data = found
        if data is not None and digests[row] not in held and len(data) <= room:
            held[digests[row]] = data
            room -= len(data)
    kept = {} if store is None else store.get(list(dict.fromkeys(digests.values())))
    width = chosen.card.dimension
    known = {key: value for key, value in kept.items() if len(value) == 2 * width}
    first: dict[bytes, int] = {}
    for row, digest in digests.items():
        if digest not in known:
            first.setdefault(digest, row)
    told(len(rows.sources) - len(first))
    bad: dict[bytes, ImageError] = {}
    fresh: dict[bytes, bytes] = {}
    done = len(rows.sources) - len(first)
    pending = [_Pending(digest, rows.sources[row], held.get(digest)) for digest, row in first.items()]
    del held
    for item, result in zip(pending, _computed(*threads, chosen, pending), strict=True):
        done += 1
        if isinstance(result, ImageError):
            bad[item.digest] = result
        else:
            actual, known[item.digest] = result[0], result[1].tobytes()
            if store is not None:
                fresh[actual] = known[item.digest]
        if store is not None and len(fresh) >= FLUSH:
            store.put(fresh)
            fresh = {}
        if done % 16 == 0:
            told(done)
    if store is not None:
        store.put(fresh)
    told(len(rows.sources))
    for row, digest in digests.items():
        if digest in bad:
            errors[row] = _said_of(bad[digest], rows.sources[first[digest]], rows.sources[row])
    nothing = np.full(width, np.nan, "<f2").tobytes()
    for start in range(0, len(rows.sources), WIDENED):
        part_nD = vectors_nD[start : start + WIDENED]
        keys = (digests.get(row, b"") for row in range(start, start + len(part_nD)))
        halves = b"".join(known.get(key, nothing) for key in keys)
        from_half(np.frombuffer(halves, "<f2").reshape(-1, width), part_nD)
    errors, card = dict(sorted(errors.items())), chosen.card
    computed = len(pending) - len(bad)
    return Embeddings(vectors_nD, errors, chosen.record, card.fingerprint, chosen.space, computed)


def _said_of(error: ImageError, first: Source, source: Source) -> ImageError:
    """Return the error of a picture for another file with the same content."""
    if first == source or not isinstance(first, Path):
        return error
    return ImageError(error.kind, str(error).replace(str(first), str(source)))


def _content(source: Source) -> bytes:
    if source is None:
        raise ImageError("missing", "the row names no picture")
    return source if isinstance(source, bytes) else read_bytes(source)


def _digests(
    pool: ThreadPoolExecutor, jobs: int, items: Sequence[tuple[int, Source]]
) -> Iterator[tuple[bytes, bytes | None] | ImageError]:
    """Yield the digest of every picture in order, read side by side where there is more than one to read them."""
    if jobs == 1:
        yield from map(_digest, items)
        return
    groups = [items[start : start + GROUP] for start in range(0, len(items), GROUP)]
    for found in _ordered(pool, 2 * jobs, lambda group: [_digest(item) for item in group], groups):
        yield from found


def _digest(item: tuple[int, Source]) -> tuple[bytes, bytes | None] | ImageError:
    """Return the digest of a picture's content, with the content where it is small."""
    try:
        data = _content(item[1])
    except ImageError as error:
        return error
    return content_digest(data), data if len(data) <= KEPT_FILE else None


def _decoded(item: _Pending, preprocess: Preprocess) -> tuple[bytes, NDArray[np.uint8]] | ImageError:
    """Return the digest and the pixels of a picture; it may have changed since it was looked up."""
    try:
        if item.data is not None:
            return item.digest, preprocess.array(item.data)
        data = _content(item.source)
        return content_digest(data), preprocess.array(data)
    except ImageError as error:
        if isinstance(item.source, Path) and str(item.source) not in str(error):
            return ImageError(error.kind, f"{item.source}: {error}")
        return error


def _computed(
    pool: ThreadPoolExecutor, jobs: int, chosen: Chosen, pending: Sequence[_Pending]
) -> Iterator[tuple[bytes, Half] | ImageError]:
    """Yield the digest and vector of every pending picture, or its error, in order.

    With an engine that takes one picture, a thread takes a few pictures all the way, so that every
    processor is busy with its own and nobody waits. With batches, threads decode ahead of the engine.
    """
    engine, preprocess = chosen.engine, chosen.card.preprocess

    def whole(items: Sequence[_Pending]) -> list[tuple[bytes, Half] | ImageError]:
        return [
            found if isinstance(found, ImageError) else (found[0], to_half(engine.run(found[1][None]))[0])
            for found in [_decoded(item, preprocess) for item in items]
        ]

    if engine.batch == 1:
        size = min(GROUP, -(-len(pending) // (4 * jobs)))
        groups = [pending[start : start + size] for start in range(0, len(pending), max(size, 1))]
        for group in _ordered(pool, 2 * jobs, whole, groups):
            yield from group
        return
    ready = _ordered(pool, 2 * engine.batch, lambda item: _decoded(item, preprocess), pending)
    images_BHWC = np.zeros((engine.batch, *preprocess.size, 3), np.uint8)
    for _ in range(0, len(pending), engine.batch):
        batch = list(islice(ready, engine.batch))
        images_BHWC[:] = 0
        for place, found in enumerate(batch):
            if not isinstance(found, ImageError):
                images_BHWC[place] = found[1]
        vectors_BD = engine.run(images_BHWC)
        for place, found in enumerate(batch):
            yield found if isinstance(found, ImageError) else (found[0], to_half(vectors_BD[place]))


def vector_of(photo: bytes, chosen: Chosen) -> Half | ImageError:
    """Return the vector of one picture by its content, in this thread, or why it cannot be read.

    Raises:
        EngineError: the engine gives numbers that are not finite.
    """
    preprocess = chosen.card.preprocess
    images_BHWC = np.zeros((chosen.engine.batch, *preprocess.size, 3), np.uint8)
    try:
        images_BHWC[0] = preprocess.array(photo)
    except ImageError as error:
        return error
    return to_half(chosen.engine.run(images_BHWC)[0])


def _ordered(pool: ThreadPoolExecutor, ahead: int, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield ``work`` of every item in order, at most ``ahead`` of them under way."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
