"""Facts about photos: size, sharpness, exposure, perceptual hash and colour, measured once and cached.

It does not know catalogues or what counts as bad or alike; it measures. One decode gives all facts of a
picture; they are kept by the digest of its content, so a renamed or moved file costs one read.
Legend: N rows, C = 48 colour numbers (4 x 4 cells of red, green, blue), T = 768 (16 x 16 cells of them),
L = 2304 (48 x 48 luma).
"""

import base64
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shelfwise.data.images import content_digest, open_image, read_bytes
from shelfwise.data.store import Store
from shelfwise.errors import ImageError
from shelfwise.files import Progress
from shelfwise.findings import Finding, Findings

#: The cache file; the number changes whenever a measure changes.
STORE_NAME = "facts-2.sqlite"
#: Measures of sharpness and exposure are taken with the longer side at this many pixels.
CANONICAL = 256
DARK, BRIGHT = 30, 250
#: Pictures measured between two writes to the cache.
AT_ONCE = 512

A = TypeVar("A")
B = TypeVar("B")
S = TypeVar("S", bound=np.generic)


@dataclass(frozen=True)
class ImageFacts:
    """What one decode tells about a picture.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        format: as in ``Photo``.
        blur: variance of the 4-neighbour Laplacian of the luma with the longer side shrunk to 256 pixels
            (Pech-Pacheco et al. 2000); low is blurred. Smaller pictures are not enlarged.
        brightness: mean luma, 0 to 1.
        contrast: standard deviation of the luma, 0 to 0.5.
        dark_share: share of pixels with luma up to 30 of 255.
        bright_share: share of pixels with luma from 250 of 255.
        detail: standard deviation of the 32 x 32 luma in levels of 255; hashes mean little near 0.
        phash: 64-bit DCT hash (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
            Functions"): the signs of the 8 x 8 lowest frequencies of the 32 x 32 luma about their median.
        dhash: 64-bit difference hash: whether each cell of a 9 x 8 luma is brighter than its left one.
        colour: 48 bytes, mean red, green, blue of 4 x 4 cells.
        thumb: 768 bytes, mean red, green, blue of 16 x 16 cells.
        luma: 2304 bytes, the picture in 48 x 48 levels of grey.
        frames: as in ``Photo``.
        notes: as in ``Photo``.
    """

    width: int
    height: int
    format: str
    blur: float
    brightness: float
    contrast: float
    dark_share: float
    bright_share: float
    detail: float
    phash: int
    dhash: int
    colour: bytes
    thumb: bytes
    luma: bytes
    frames: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FactTable:
    """The facts of N rows as columns, and what went wrong.

    Attributes:
        ok: bool [N], whether the row has a readable picture; numbers of the other rows are 0.
        digest: uint8 [N, 16], of the file's content; zeros where there was none to read.
        width, height: int32 [N].
        blur, brightness, contrast, dark_share, bright_share, detail: float32 [N], as in ``ImageFacts``.
        phash, dhash: uint64 [N].
        colour: uint8 [N, C].
        thumb: uint8 [N, T].
        luma: uint8 [N, L].
        notes: what was out of the ordinary, per row.
        errors: row position -> why there are no facts; a row without a path is in neither.
        findings: about the cache itself.
    """

    ok: NDArray[np.bool_]
    digest: NDArray[np.uint8]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    blur: NDArray[np.float32]
    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    dark_share: NDArray[np.float32]
    bright_share: NDArray[np.float32]
    detail: NDArray[np.float32]
    phash: NDArray[np.uint64]
    dhash: NDArray[np.uint64]
    colour: NDArray[np.uint8]
    thumb: NDArray[np.uint8]
    luma: NDArray[np.uint8]
    notes: tuple[tuple[str, ...], ...]
    errors: Mapping[int, ImageError]
    findings: Findings

    def __len__(self) -> int:
        return len(self.ok)


def measure(data: bytes) -> ImageFacts:
    """Return the facts of a picture from its file content.

    Raises:
        ImageError: it cannot be read.
    """
    photo = open_image(data, target=CANONICAL)
    image = photo.image
    longer = max(image.size)
    if longer > CANONICAL:
        scale = CANONICAL / longer
        smaller = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(smaller, Image.Resampling.BILINEAR)
    grey = image.convert("L")
    luma = np.asarray(grey, dtype=np.float32)
    levels = np.bincount(np.asarray(grey).ravel(), minlength=256) / luma.size
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32)
    steps = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    colour, thumb = (image.resize((side, side), Image.Resampling.BOX).tobytes() for side in (4, 16))
    return ImageFacts(
        width=photo.width,
        height=photo.height,
        format=photo.format,
        blur=_laplacian_variance(luma),
        brightness=float(luma.mean()) / 255,
        contrast=float(luma.std()) / 255,
        dark_share=float(levels[: DARK + 1].sum()),
        bright_share=float(levels[BRIGHT:].sum()),
        detail=float(small.std()),
        phash=_dct_hash(small),
        dhash=_packed(steps[:, 1:] > steps[:, :-1]),
        colour=colour,
        thumb=thumb,
        luma=grey.resize((48, 48), Image.Resampling.BILINEAR).tobytes(),
        frames=photo.frames,
        notes=photo.notes,
    )


def _laplacian_variance(luma: NDArray[np.float32]) -> float:
    if min(luma.shape) < 3:
        return 0.0
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return float(edges.var())


def _dct_hash(small: NDArray[np.float32]) -> int:
    from scipy.fft import dctn

    lowest = np.asarray(dctn(small, type=2, norm="ortho"))[:8, :8].ravel()
    return _packed(lowest > np.median(lowest[1:]))


def _packed(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def facts_of(
    paths: Sequence[Path | None],
    *,
    cache: Path | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> FactTable:
    """Return the facts of many photos, row by row.

    Args:
        paths: one file per row, ``None`` where there is none.
        cache: the directory of the cache; ``None`` for no cache.
        jobs: threads; by default one for each processor. Results do not depend on it.
        progress: told about ``reading photos`` and ``measuring photos``.

    Raises:
        ShelfwiseError: the cache cannot be written.
    """
    files = list(dict.fromkeys(path for path in paths if path is not None))
    found: dict[bytes, ImageFacts | ImageError] = {}
    findings = Findings()
    with (
        ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool,
        nullcontext() if cache is None else Store(cache / STORE_NAME) as store,
    ):
        read = _digests(files, pool, progress)
        first: dict[bytes, Path] = {}
        for path in files:
            digest = read[path]
            if isinstance(digest, bytes):
                first.setdefault(digest, path)
        if store is not None:
            found = {key: _unpacked(value) for key, value in store.get(list(first)).items()}
        missing = [(digest, path) for digest, path in first.items() if digest not in found]
        done = 0
        for chunk in _chunks(missing, AT_ONCE):
            if progress is not None:
                progress("measuring photos", done, len(missing))
            new = dict(_mapped(pool, _measured, chunk))
            found.update(new)
            done += len(chunk)
            if store is not None:
                store.put({key: _packed_facts(value) for key, value in new.items() if _is_lasting(value)})
        if progress is not None and missing:
            progress("measuring photos", done, len(missing))
        if store is not None and store.set_aside is not None:
            message = f"the cache of picture facts was damaged and begun anew; the old one: {store.set_aside}"
            findings = Findings((Finding("damaged_cache", message),))
    return _table(paths, read, found, findings)


def _digests(
    files: Sequence[Path], pool: ThreadPoolExecutor, progress: Progress | None
) -> dict[Path, bytes | ImageError]:
    """Read every file once and return its digest, or why it cannot be read."""
    read: dict[Path, bytes | ImageError] = {}
    for chunk in _chunks(files, AT_ONCE):
        if progress is not None:
            progress("reading photos", len(read), len(files))
        read.update(zip(chunk, _mapped(pool, _digest, chunk), strict=True))
    if progress is not None and files:
        progress("reading photos", len(read), len(files))
    return read


def _digest(path: Path) -> bytes | ImageError:
    try:
        return content_digest(read_bytes(path))
    except ImageError as error:
        prefix = f"{path}: "
        return ImageError(error.kind, str(error).removeprefix(prefix))


def _measured(item: tuple[bytes, Path]) -> tuple[bytes, ImageFacts | ImageError]:
    digest, path = item
    try:
        data = read_bytes(path)
        if content_digest(data) != digest:
            return digest, ImageError("unreadable", _CHANGED)
        return digest, measure(data)
    except ImageError as error:
        return digest, ImageError(error.kind, str(error).removeprefix(f"{path}: "))


_CHANGED = "the file changed while it was being read"


def _is_lasting(value: ImageFacts | ImageError) -> bool:
    """Tell whether an outcome belongs to the content, and not to this machine at this moment."""
    return isinstance(value, ImageFacts) or (
        value.kind in ("not_an_image", "unsupported", "truncated", "unreadable") and str(value) != _CHANGED
    )


def _packed_facts(value: ImageFacts | ImageError) -> bytes:
    if isinstance(value, ImageError):
        record: dict[str, object] = {"error": [value.kind, str(value)]}
    else:
        cells = {
            name: base64.b64encode(getattr(value, name)).decode() for name in ("colour", "thumb", "luma")
        }
        record = {**asdict(value), **cells}
    return json.dumps(record, separators=(",", ":")).encode()


def _unpacked(value: bytes) -> ImageFacts | ImageError:
    record = json.loads(value)
    if "error" in record:
        return ImageError(*record["error"])
    cells = {name: base64.b64decode(record[name]) for name in ("colour", "thumb", "luma")}
    return ImageFacts(**{**record, **cells, "notes": tuple(record["notes"])})


def _table(
    paths: Sequence[Path | None],
    read: Mapping[Path, bytes | ImageError],
    found: Mapping[bytes, ImageFacts | ImageError],
    findings: Findings,
) -> FactTable:
    """Lay the facts out in columns."""
    count = len(paths)
    digests = np.zeros((count, 16), dtype=np.uint8)
    rows: list[int] = []
    facts: list[ImageFacts] = []
    notes: list[tuple[str, ...]] = [()] * count
    errors: dict[int, ImageError] = {}
    for row, path in enumerate(paths):
        if path is None:
            continue
        digest = read[path]
        outcome = digest if isinstance(digest, ImageError) else found[digest]
        if isinstance(digest, bytes):
            digests[row] = np.frombuffer(digest, dtype=np.uint8)
        if isinstance(outcome, ImageError):
            errors[row] = ImageError(outcome.kind, f"{path}: {outcome}")
        else:
            rows.append(row)
            facts.append(outcome)
            notes[row] = outcome.notes

    def column(name: str, dtype: type[S]) -> NDArray[S]:
        values = np.zeros(count, dtype=dtype)
        values[rows] = [getattr(one, name) for one in facts]
        return values

    def cells(name: str, width: int) -> NDArray[np.uint8]:
        values = np.zeros((count, width), dtype=np.uint8)
        joined = b"".join(getattr(one, name) for one in facts)
        values[rows] = np.frombuffer(joined, dtype=np.uint8).reshape(-1, width)
        return values

    ok = np.zeros(count, dtype=np.bool_)
    ok[rows] = True
    return FactTable(
        ok=ok,
        digest=digests,
        width=column("width", np.int32),
        height=column("height", np.int32),
        blur=column("blur", np.float32),
        brightness=column("brightness", np.float32),
        contrast=column("contrast", np.float32),
        dark_share=column("dark_share", np.float32),
        bright_share=column("bright_share", np.float32),
        detail=column("detail", np.float32),
        phash=column("phash", np.uint64),
        dhash=column("dhash", np.uint64),
        colour=cells("colour", 48),
        thumb=cells("thumb", 768),
        luma=cells("luma", 2304),
        notes=tuple(notes),
        errors=errors,
        findings=findings,
    )


def _mapped(pool: ThreadPoolExecutor, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Run over the items in the pool, results in order; on an interrupt nothing more is begun."""
    futures = [pool.submit(function, item) for item in items]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _chunks(items: Sequence[A], size: int) -> Iterator[Sequence[A]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
