"""Open a product photo: verify, orient, bring to 8-bit sRGB on white; and its bytes and pixels.

It does not know catalogues, quality measures or models. Content decides what a file is, never its
name. Whatever a file holds, the outcome is a ``Photo`` or an ``ImageError``: no invented pixels, no
other exception, no warning.
"""

import contextlib
import hashlib
import io
import math
import os
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from shelfwise.data.colour import on_white, to_eight_bits, to_srgb
from shelfwise.data.headers import checked_png, early_size, is_cut, png_depth, sniff
from shelfwise.errors import ImageError, UsageError

if sys.platform == "win32":
    from pathlib import WindowsPath as PlainPath
else:
    from pathlib import PosixPath as PlainPath

MAX_PIXELS = 50_000_000
MAX_BYTES = 200_000_000
#: A JPEG is decoded at the smallest scale of 1, 1/2, 1/4, 1/8 that leaves both sides this many times the
#: target: about twice. At just 2, a picture of 1152 x 864 would gain nothing for a target of 224.
DRAFT = 1.7

Fit = Literal["stretch", "crop", "pad"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos", "box"]

_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}

#: What Pillow's readers of these formats raise, or by their code can raise, on damaged content.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AssertionError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

#: EXIF orientation -> what turns the stored picture upright (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


@dataclass(frozen=True, eq=False)
class Photo:
    """One picture, upright, 8-bit sRGB, on white.

    Attributes:
        image: the RGB picture; smaller than the original where a ``target`` was given.
        width: of the original in pixels, after orientation.
        height: of the original in pixels, after orientation.
        format: ``JPEG``, ``PNG``, ``WEBP``, ``AVIF``, ``GIF``, ``BMP`` or ``TIFF``.
        frames: 1, or how many frames or pages there are; 2 stands for "more than one" in GIF and TIFF.
        notes: what was out of the ordinary: ``animated``, ``pages``, ``alpha``, ``cmyk``,
            ``sixteen_bit``, ``broken_profile``, ``broken_exif``; sorted.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    frames: int
    notes: tuple[str, ...]


class HeldPhoto(PlainPath):
    """The path of a picture that lies nowhere: its content is held in memory, under a name for messages.

    Attributes:
        content: of the file that it would be.
    """

    content: bytes

    @classmethod
    def of(cls, name: str, content: bytes) -> "HeldPhoto":
        """Return a picture under a name, by which it is told from others."""
        found = cls(name)
        found.content = content
        return found


def read_bytes(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return a picture file's content; never waits on a pipe and never reads a device.

    Raises:
        ImageError: ``missing``, ``empty``, ``too_large`` or ``unreadable``.
    """
    data = path.content if isinstance(path, HeldPhoto) else _read(path, max_bytes)
    if not data:
        raise ImageError("empty", f"{path}: the file has 0 bytes")
    if len(data) > max_bytes:
        raise ImageError("too_large", f"{path}: the file has more than {max_bytes:,} bytes")
    return data


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        _regular(path, os.stat(path), max_bytes)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            _regular(path, status, max_bytes)
            return _whole(descriptor, status.st_size, max_bytes + 1)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = "a link to a file that is not there" if os.path.islink(path) else "no such file"
        raise ImageError("missing", f"{path}: {what}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ImageError("unreadable", f"{path}: {reason}") from error


def _whole(descriptor: int, size: int, most: int) -> bytes:
    """Return a file's content, at most so much of it; a byte beyond its size is asked for, so one read is enough."""
    data = os.read(descriptor, min(size + 1, most))
    while len(data) > size and len(data) < most and (more := os.read(descriptor, most - len(data))):
        data += more
    return data


def _regular(path: Path, status: os.stat_result, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("unreadable", f"{path}: a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("unreadable", f"{path}: a pipe, socket or device, not a file")
    if status.st_size > max_bytes:
        raise ImageError(
            "too_large", f"{path}: the file has {status.st_size:,} bytes, the limit is {max_bytes:,}"
        )


def content_digest(data: bytes) -> bytes:
    """Return the 16-byte BLAKE2b digest by which content is recognised under any name."""
    return hashlib.blake2b(data, digest_size=16).digest()


def open_image(source: Path | bytes, *, target: int | None = None, max_pixels: int = MAX_PIXELS) -> Photo:
    """Open a photo from a file or from its bytes.

    Args:
        source: a path, or the content of a file.
        target: the side in pixels at which it will be used; a JPEG is then decoded at a smaller scale,
            with both sides about twice the target (at least 1.7 times).
        max_pixels: larger pictures are refused from their header, before anything is decoded.

    Raises:
        ImageError: the file is missing, empty, no picture, cut off, too large, or damaged.
    """
    if isinstance(source, bytes):
        return _decode(source, target, max_pixels)
    data = read_bytes(source)
    try:
        return _decode(data, target, max_pixels)
    except ImageError as error:
        raise ImageError(error.kind, f"{source}: {error}") from error


def pixels(
    photo: Photo,
    size: tuple[int, int],
    *,
    fit: Fit = "stretch",
    resample: Resample = "bicubic",
    crop_fraction: float = 1.0,
) -> NDArray[np.uint8]:
    """Return the photo as an array of one size, uint8 [H, W, 3]; the same photo gives the same array.

    Args:
        photo: an opened photo.
        size: height and width.
        fit: ``stretch`` ignores the proportions, ``crop`` cuts the longer side about the centre,
            ``pad`` adds white about the centre.
        resample: the filter; all but ``nearest`` are antialiased.
        crop_fraction: the central share of each side that is kept (``stretch`` and ``crop``).

    Raises:
        UsageError: an unknown fit or filter, or numbers out of range.
    """
    height, width = size
    if resample not in _FILTERS:
        raise UsageError(f"resample is one of {', '.join(_FILTERS)}, not {resample!r}")
    if height < 1 or width < 1 or not 0 < crop_fraction <= 1:
        raise UsageError(f"size {size} and crop_fraction {crop_fraction}: positive, the latter at most 1")
    image, filter_ = photo.image, _FILTERS[resample]
    if fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        canvas = Image.new("RGB", (width, height), (255, 255, 255))
        corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        canvas.paste(image.resize(inner, filter_), corner)
        return np.array(canvas)
    if fit == "stretch":
        kept = (image.width * crop_fraction, image.height * crop_fraction)
    elif fit == "crop":
        scale = min(image.width / width, image.height / height) * crop_fraction
        kept = (width * scale, height * scale)
    else:
        raise UsageError(f"fit is stretch, crop or pad, not {fit!r}")
    left, top = (image.width - kept[0]) / 2, (image.height - kept[1]) / 2
    box = (max(left, 0.0), max(top, 0.0), min(left + kept[0], image.width), min(top + kept[1], image.height))
    return np.array(image.resize((width, height), filter_, box=box))


def _decode(data: bytes, target: int | None, max_pixels: int) -> Photo:
    """Decode the content of a file; messages say nothing of where it came from."""
    form = sniff(data)
    _check_size(early_size(data, form), max_pixels)
    if form == "PNG":
        data = checked_png(data)
    with _quiet_and_strict():
        try:
            with io.BytesIO(data) as file, _OPENERS[form](file) as image:
                return _finish(image, data, form, target, max_pixels)
        except ImageError:
            raise
        except PILLOW_ERRORS as error:
            raise _explained(error, data, form) from error


def _finish(image: ImageFile.ImageFile, data: bytes, form: str, target: int | None, max_pixels: int) -> Photo:
    """Load the opened picture and bring it to upright RGB."""
    width, height = image.size
    _check_size((width, height), max_pixels)
    notes: set[str] = set()
    frames = _frames(image, form)
    if frames > 1:
        notes.add("pages" if form == "TIFF" else "animated")
    if image.mode == "CMYK":
        notes.add("cmyk")
    if form == "JPEG" and target is not None:
        least = math.ceil(DRAFT * target)
        image.draft(image.mode, (least, least))
    image.load()
    orientation = _orientation(image, notes)
    bits = png_depth(data) if form == "PNG" else _tiff_bits(image)
    if bits > 8 or image.mode in ("I", "F") or image.mode.startswith("I;16"):
        notes.add("sixteen_bit")
    upright = on_white(to_srgb(to_eight_bits(image, bits), notes), notes)
    if orientation in _UPRIGHT:
        upright = upright.transpose(_UPRIGHT[orientation])
        if orientation >= 5:
            width, height = height, width
    return Photo(upright, width, height, form, frames, tuple(sorted(notes)))


def _check_size(size: tuple[int, int] | None, max_pixels: int) -> None:
    if size is None:
        return
    width, height = size
    if width < 1 or height < 1:
        raise ImageError("unreadable", f"the picture has no pixels: {width} x {height}")
    if width * height > max_pixels:
        raise ImageError("too_large", f"{width} x {height} pixels are more than the limit of {max_pixels:,}")


def _frames(image: ImageFile.ImageFile, form: str) -> int:
    """Return the number of frames a header states; 2 for "more" where only a scan would tell."""
    if form in ("GIF", "TIFF"):
        return 2 if getattr(image, "is_animated", False) else 1
    return int(getattr(image, "n_frames", 1))


def _orientation(image: ImageFile.ImageFile, notes: set[str]) -> int:
    """Return the EXIF orientation; damaged EXIF data is a note and the picture stays as stored."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except PILLOW_ERRORS:
        notes.add("broken_exif")
        return 1
    return found if isinstance(found, int) else 1


def _tiff_bits(image: ImageFile.ImageFile) -> int:
    """Return the bits per channel of a TIFF, 0 for the other formats."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    return max(bits) if isinstance(bits, tuple) else int(bits)


def _explained(error: BaseException, data: bytes, form: str) -> ImageError:
    """Turn what Pillow raised into an ``ImageError``."""
    said = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return ImageError("too_large", f"the {form} picture does not fit into memory: {said}")
    if isinstance(error, EOFError) or "truncated" in said.lower() or is_cut(data, form):
        return ImageError("truncated", f"the {form} picture is cut off: {said}")
    if "unknown pixel mode" in said or "not supported" in said or isinstance(error, NotImplementedError):
        return ImageError("unsupported", f"this variant of {form} is not read: {said}")
    return ImageError("unreadable", f"the {form} picture is damaged: {said}")


_lock = threading.Lock()
_inside = 0
_allowed_cut = False
_PILLOW_ONLY = r"PIL(\.|$)"


@contextlib.contextmanager
def _quiet_and_strict() -> Iterator[None]:
    """Silence Pillow's own warnings and keep it from completing cut pictures in grey.

    ``warnings.catch_warnings`` is not safe with threads, so one filter, for Pillow's modules only, is
    put in by the first thread that enters and taken out by the last that leaves.
    """
    global _inside, _allowed_cut
    with _lock:
        _inside += 1
        if _inside == 1:
            warnings.filterwarnings("ignore", module=_PILLOW_ONLY)
            _allowed_cut, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _allowed_cut
                for entry in warnings.filters:
                    if entry[0] == "ignore" and getattr(entry[3], "pattern", None) == _PILLOW_ONLY:
                        with contextlib.suppress(ValueError):
                            warnings.filters.remove(entry)  # type: ignore[attr-defined]
                        break
