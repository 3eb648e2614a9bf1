"""Pictures as suppliers really send them, and as an attacker would: a generator of hostile files."""

import functools
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageDraw

SIZE = (64, 48)


def picture(width: int = SIZE[0], height: int = SIZE[1]) -> Image.Image:
    """A picture with detail whose four corners are red, green, blue and white."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = 128 + 60 * np.sin(x / 7) + 50 * np.cos(y / 5)
    image = Image.fromarray(np.stack([waves, waves[::-1], 255 - waves], -1).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    w, h = width // 3, height // 3
    draw.rectangle((0, 0, w, h), fill=(230, 20, 20))
    draw.rectangle((width - w, 0, width, h), fill=(20, 200, 20))
    draw.rectangle((0, height - h, w, height), fill=(20, 20, 230))
    draw.rectangle((width - w, height - h, width, height), fill=(255, 255, 255))
    return image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG from raw filtered rows; ``extra`` chunks go before the data."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", head), *(png_chunk(*one) for one in extra)]
    chunks += [png_chunk(b"IDAT", zlib.compress(rows, 9)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG: grey [H, W], grey and alpha, RGB or RGBA [H, W, C]."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return raw_png(values.shape[1], values.shape[0], 16, colour, rows)


def bomb_png(width: int = 12_000, height: int = 12_000) -> bytes:
    """Many megapixels in few bytes."""
    packer = zlib.compressobj(6)
    rows = bytes(100 * (1 + width * 3))
    data = b"".join(packer.compress(rows) for _ in range(height // 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", head) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb_png() -> bytes:
    """A good picture with 64 MB of compressed text in front of it."""
    good = encoded(picture(), "PNG")
    text = b"Comment\0\x01\0\0\0" + zlib.compress(bytes(64_000_000), 9)
    return good[:33] + png_chunk(b"iTXt", text) + good[33:]


def wide_gamut_profile() -> bytes:
    """A valid RGB profile made by LittleCMS whose primaries are swapped: what is red becomes green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    for at in range(132, 132 + 12 * count, 12):
        name = bytes(profile[at : at + 4])
        profile[at : at + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}.get(name, name)
    return bytes(profile)


def huge_jpeg_header() -> bytes:
    data = bytearray(encoded(picture(), "JPEG"))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(data)


def huge_webp_header() -> bytes:
    data = bytearray(encoded(transparent(), "WEBP"))
    data[24:30] = (16_382).to_bytes(3, "little") * 2
    return bytes(data)


def huge_gif_frame() -> bytes:
    data = bytearray(encoded(picture(), "GIF"))
    at = data.find(b"\x2c", 13 + 3 * 256)
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    return bytes(data)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def transparent() -> Image.Image:
    """Black hidden under full transparency, a red square shown."""
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    image.paste((220, 30, 30, 255), (16, 12, 48, 36))
    return image


def float_tiff(scale: float) -> bytes:
    ramp = np.linspace(0, scale, SIZE[0], dtype=np.float32)
    return encoded(Image.fromarray(np.tile(ramp, (SIZE[1], 1))), "TIFF")


def wrong_crc(data: bytes) -> bytes:
    at = data.find(b"IDAT") + 20
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def bmp_of_wrong_size() -> bytes:
    data = bytearray(encoded(picture(), "BMP"))
    data[22:26] = struct.pack("<i", 4_000)
    return bytes(data)


@functools.cache
def contents() -> dict[str, tuple[bytes, str | None]]:
    """Every hostile file that is plain content: name -> bytes, and the expected kind or None."""
    image = picture()
    jpeg = encoded(image, "JPEG", quality=90)
    png = encoded(image, "PNG")
    frames = [image, image.rotate(180), image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    ramp = np.tile(np.linspace(0, 65535, SIZE[0]).astype(np.uint16), (SIZE[1], 1))
    deep = np.stack([ramp, ramp[:, ::-1], ramp], -1)
    see_through = transparent()
    palette = see_through.quantize(8)
    files: dict[str, tuple[bytes, str | None]] = {
        "zero_bytes.jpg": (b"", "empty"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not_an_image"),
        "text.png": (b"id,Category\n1,Tops\n" * 40, "not_an_image"),
        "noise.webp": (bytes(range(256)) * 8, "not_an_image"),
        "cut_head.jpg": (jpeg[:100], "truncated"),
        "cut_half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut_late.jpg": (jpeg[: len(jpeg) * 9 // 10], "truncated"),
        "cut_progressive.jpg": (encoded(image, "JPEG", progressive=True)[:900], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "cut.gif": (encoded(image, "GIF")[:1500], "truncated"),
        "cut.webp": (encoded(image, "WEBP")[:300], "truncated"),
        "cut.avif": (encoded(image, "AVIF")[:-200], "truncated"),
        "cut.bmp": (encoded(image, "BMP")[:3000], "truncated"),
        "cut.tiff": (encoded(image, "TIFF")[:6], "truncated"),
        "deep_grey.png": (deep_png(ramp), None),
        "deep_grey_alpha.png": (deep_png(np.stack([ramp, np.full_like(ramp, 65535)], -1)), None),
        "deep_rgb.png": (deep_png(deep), None),
        "deep_rgba.png": (deep_png(np.concatenate([deep, ramp[..., None]], -1)), None),
        "deep_grey.tiff": (encoded(Image.fromarray(ramp), "TIFF"), None),
        "float_unit.tiff": (float_tiff(1.0), None),
        "float_255.tiff": (float_tiff(255.0), None),
        "float_nan.tiff": (float_tiff(float("nan")), "unsupported"),
        "int32.tiff": (encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF"), None),
        "transparent.png": (encoded(see_through, "PNG"), None),
        "transparent.webp": (encoded(see_through, "WEBP", lossless=True), None),
        "transparent.avif": (encoded(see_through, "AVIF", quality=90), None),
        "transparent.tiff": (encoded(see_through, "TIFF"), None),
        "transparent_palette.png": (encoded(palette, "PNG"), None),
        "transparent_palette.gif": (encoded(see_through, "GIF"), None),
        "transparent_colour.png": (encoded(image, "PNG", transparency=(230, 20, 20)), None),
        "grey.jpg": (encoded(image.convert("L"), "JPEG"), None),
        "grey_alpha.png": (encoded(see_through.convert("LA"), "PNG"), None),
        "one_bit.png": (encoded(image.convert("1"), "PNG"), None),
        "one_bit.tiff": (encoded(image.convert("1"), "TIFF", compression="group4"), None),
        "palette.png": (encoded(image.quantize(16), "PNG"), None),
        "cmyk.jpg": (encoded(image.convert("CMYK"), "JPEG", quality=95), None),
        "cmyk.tiff": (encoded(image.convert("CMYK"), "TIFF"), None),
        "ycbcr.tiff": (encoded(image.convert("YCbCr"), "TIFF", compression="jpeg"), None),
        "lab.tiff": (encoded(lab(image), "TIFF"), None),
        "lzw.tiff": (encoded(image, "TIFF", compression="tiff_lzw"), None),
        "pages.tiff": (encoded(image, "TIFF", save_all=True, append_images=frames[1:]), None),
        "animated.gif": (encoded(image, "GIF", save_all=True, append_images=frames[1:], duration=50), None),
        "animated.webp": (
            encoded(image, "WEBP", save_all=True, append_images=frames[1:], lossless=True),
            None,
        ),
        "animated.png": (encoded(image, "PNG", save_all=True, append_images=frames[1:]), None),
        "animated.avif": (encoded(image, "AVIF", save_all=True, append_images=frames[1:]), None),
        "bomb_144_megapixels.png": (bomb_png(), "too_large"),
        "huge_header.jpg": (huge_jpeg_header(), "too_large"),
        "huge_header.webp": (huge_webp_header(), "too_large"),
        "huge_frame.gif": (huge_gif_frame(), "too_large"),
        "text_bomb.png": (text_bomb_png(), None),
        "broken_profile.jpg": (encoded(image, "JPEG", icc_profile=b"no profile at all" * 20), None),
        "broken_profile.png": (encoded(image, "PNG", icc_profile=wide_gamut_profile()[:200]), None),
        "grey_profile_on_colour.jpg": (encoded(image, "JPEG", icc_profile=grey_profile()), None),
        "wide_gamut.jpg": (encoded(image, "JPEG", quality=95, icc_profile=wide_gamut_profile()), None),
        "wide_gamut.png": (encoded(image, "PNG", icc_profile=wide_gamut_profile()), None),
        "wrong_crc.png": (wrong_crc(png), "unreadable"),
        "wrong_size.bmp": (bmp_of_wrong_size(), "truncated"),
        "no_pixels.png": (raw_png(0, 10, 8, 2, b"", (b"gAMA", bytes(4))), "unreadable"),
        "broken_exif.jpg": (encoded(image, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), None),
        "really_a_png.jpg": (png, None),
        "no_ending": (jpeg, None),
        "drawing.svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported"),
        "document.jpg": (b"%PDF-1.7\n1 0 obj\n", "unsupported"),
        "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "unsupported"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(64), "unsupported"),
        "one_pixel.png": (encoded(Image.new("RGB", (1, 1), (9, 9, 9)), "PNG"), None),
        "ribbon.png": (encoded(Image.new("RGB", (4000, 1), (200, 9, 9)), "PNG"), None),
    }
    for orientation in range(1, 9):
        files[f"turned_{orientation}.jpg"] = (
            encoded(image, "JPEG", quality=95, exif=exif(orientation)),
            None,
        )
    return files


def lab(image: Image.Image) -> Image.Image:
    source, target = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    found = ImageCms.profileToProfile(image, source, target, outputMode="LAB")
    assert found is not None
    found.info.clear()
    return found


def grey_profile() -> bytes:
    """A profile whose header says it is for grey pictures."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[16:20] = b"GRAY"
    return bytes(profile)


def write_hostile(directory: Path) -> dict[str, str | None]:
    """Write all hostile files into a directory.

    Returns:
        File name -> the kind of ``ImageError`` to expect, ``None`` where the picture must be read.
        ``link_outside.jpg`` is ``outside`` to a catalogue whose image root is the directory (a plain
        ``open_image`` reads it); its target is written beside the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    expected: dict[str, str | None] = {}
    files = contents()
    for name, (data, kind) in files.items():
        (directory / name).write_bytes(data)
        expected[name] = kind
    (directory / "directory.jpg").mkdir()
    expected["directory.jpg"] = "unreadable"
    os.mkfifo(directory / "pipe.jpg")
    expected["pipe.jpg"] = "unreadable"
    (directory / "link_to_nothing.jpg").symlink_to(directory / "gone.jpg")
    expected["link_to_nothing.jpg"] = "missing"
    (directory / "link_in_a_circle.jpg").symlink_to(directory / "link_in_a_circle.jpg")
    expected["link_in_a_circle.jpg"] = "unreadable"
    beside = directory.parent / f"{directory.name}_secret.jpg"
    beside.write_bytes(files["no_ending"][0])
    (directory / "link_outside.jpg").symlink_to(beside)
    expected["link_outside.jpg"] = "outside"
    return expected
