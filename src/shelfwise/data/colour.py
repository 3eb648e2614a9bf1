"""Colours of an opened picture: any mode and depth to 8 bits, embedded profile to sRGB, alpha to white.

It knows Pillow's modes and colour profiles, not files or formats. Profiles are converted by LittleCMS
(ICC.1:2010) with perceptual intent; transforms are kept by the digest of the profile.
"""

import hashlib
import io
import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from shelfwise.errors import ImageError

#: Colour space in the header of an ICC profile -> the Pillow mode it describes.
_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
_MOST_TRANSFORMS = 64
_MOST_PROFILE_BYTES = 16_000_000
#: A profile that moves no colour of a test chart by more than this is sRGB: nothing to do.
_SAME = 2

_lock = threading.Lock()
_transforms: dict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = {}


def to_eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """Return the picture in a mode of 8 bits per channel, transparency made a channel.

    Args:
        image: a loaded picture in any mode.
        bits: the bits per channel stated by the file, 0 where unknown.

    Raises:
        ImageError: ``unsupported`` for floating-point pixels that are not numbers.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _scaled(image, bits)
    transparency = image.info.get("transparency")
    profile = image.info.get("icc_profile")
    if mode in ("1", "HSV", "YCbCr", "RGBX"):
        if mode == "1" and transparency is not None:
            result = image.convert("RGBA")
        else:
            result = image.convert("L" if mode == "1" else "RGB")
    elif mode in ("P", "PA"):
        result = image.convert("RGBA" if mode == "PA" or transparency is not None else "RGB")
    elif mode in ("La", "RGBa"):
        result = image.convert("LA" if mode == "La" else "RGBA")
    elif mode in ("L", "RGB") and transparency is not None:
        if bits > 8 and isinstance(transparency, tuple):
            image.info["transparency"] = tuple(value >> 8 for value in transparency)
        result = image.convert("RGBA")
    else:
        # A JPEG's pixels stay when its file is closed: the usual case costs no copy.
        result = image if getattr(image, "format", None) == "JPEG" else image.copy()
    if profile:
        result.info["icc_profile"] = profile
    return result


def _scaled(image: Image.Image, bits: int) -> Image.Image:
    """Scale deep grey pixels to 8 bits: 16 bits by 1/257, others by the least full scale that holds them."""
    deep = np.asarray(image)
    inverted = getattr(image, "tag_v2", {}).get(262) == 0
    if image.mode.startswith("I;16"):
        full = float((1 << bits) - 1) if 8 < bits < 16 else 65535.0
    else:
        if deep.dtype.kind == "f" and not np.isfinite(deep).all():
            raise ImageError("unsupported", "the picture holds infinite or undefined values")
        if bits == 32 and deep.dtype.kind == "i" and deep.min() < 0:
            deep = deep.view(np.uint32)
        top = float(deep.max(initial=0))
        scales = (1.0,) if deep.dtype.kind == "f" else ()
        full = next((scale for scale in (*scales, 255.0, 65535.0) if top <= scale), top)
    grey = np.clip(deep.astype(np.float64) * (255.0 / full) + 0.5, 0, 255).astype(np.uint8)
    result = Image.fromarray(255 - grey if inverted else grey, "L")
    key = image.info.get("transparency")
    if isinstance(key, int):
        alpha = np.where(deep == key, 0, 255).astype(np.uint8)
        result.putalpha(Image.fromarray(alpha, "L"))
    if image.info.get("icc_profile"):
        result.info["icc_profile"] = image.info["icc_profile"]
    return result


def to_srgb(image: Image.Image, notes: set[str]) -> Image.Image:
    """Return the picture in sRGB (RGB or RGBA); a profile that cannot be used adds ``broken_profile``.

    Args:
        image: a picture in mode L, LA, RGB, RGBA, CMYK or LAB, its profile in ``info``.
        notes: kinds of notes, added to.
    """
    profile = image.info.get("icc_profile")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    plain = image.convert(image.mode[:-1]) if alpha is not None else image
    if profile:
        plain = _by_profile(plain, profile, notes)
    if plain.mode == "LAB":
        plain = _by_transform(plain, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    elif plain.mode != "RGB":
        plain = plain.convert("RGB")
    if alpha is not None:
        plain = plain.copy() if plain is image else plain
        plain.putalpha(alpha)
    return plain


def on_white(image: Image.Image, notes: set[str]) -> Image.Image:
    """Return RGB: a picture with transparent pixels laid on white, which adds the note ``alpha``."""
    if image.mode != "RGBA":
        return image
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    notes.add("alpha")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _by_profile(image: Image.Image, profile: bytes, notes: set[str]) -> Image.Image:
    """Apply an embedded profile; the picture as it is where the profile is broken or does not fit."""
    space = _SPACES.get(profile[16:20]) if isinstance(profile, bytes) else None
    if space is None or len(profile) > _MOST_PROFILE_BYTES or (space != image.mode and space != "RGB"):
        notes.add("broken_profile")
        return image
    if space == "RGB" and image.mode not in ("RGB", "L"):
        notes.add("broken_profile")
        return image
    try:
        transform = _transform(profile, space)
        if transform is None:
            return image
        fitting = image if image.mode == space else image.convert(space)
        result = transform.apply(fitting)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        notes.add("broken_profile")
        return image
    return result


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the kept or a new transform to sRGB; ``None`` where the profile is sRGB itself."""
    key = (hashlib.blake2b(profile, digest_size=16).digest(), mode)
    with _lock:
        if key in _transforms:
            return _transforms[key]
        transform: ImageCms.ImageCmsTransform | None = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
        )
        if mode in ("RGB", "L") and transform is not None and _changes_nothing(transform, mode):
            transform = None
        if len(_transforms) >= _MOST_TRANSFORMS:
            _transforms.clear()
        _transforms[key] = transform
        return transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Tell whether a transform leaves a chart of colours as it is."""
    levels = np.arange(0, 256, 51, dtype=np.uint8)
    chart: NDArray[np.uint8]
    if mode == "RGB":
        chart = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(36, 6, 3)
    else:
        chart = np.arange(256, dtype=np.uint8).reshape(16, 16)
    before = Image.fromarray(chart)
    after = np.asarray(transform.apply(before), dtype=np.int16)
    change = np.abs(after - np.asarray(before.convert("RGB"), dtype=np.int16))
    return bool(change.max() <= _SAME)


def _by_transform(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(source, target, image.mode, "RGB").apply(image)
