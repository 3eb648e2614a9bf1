"""What the first bytes of a file say: the format, the size in pixels, whether the end is missing.

It decodes no pixels and knows neither Pillow nor files: bytes in, facts out. Layouts come from the PNG
specification (W3C), GIF89a, the WebP container specification, ITU T.81 (JPEG) and ISO 14496-12 (boxes).
"""

import struct
import zlib

from shelfwise.errors import ImageError

#: Formats that are read, by Pillow's names.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")

#: First bytes of formats that are known and not read.
NOT_READ = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"8BPS", "a Photoshop file"),
    (b"\x00\x00\x01\x00", "a Windows icon"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"PK\x03\x04", "a ZIP archive"),
)
PNG_START = b"\x89PNG\r\n\x1a\n"
#: Keywords of PNG texts that may hold an orientation; all other texts are dropped unread.
ORIENTING_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def sniff(data: bytes) -> str:
    """Return the format of an image file, one of ``FORMATS``, from its content alone.

    Raises:
        ImageError: ``empty``, ``unsupported`` (a known format that is not read) or ``not_an_image``.
    """
    if not data:
        raise ImageError("empty", "the file has 0 bytes")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(PNG_START):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data[4:8] == b"ftyp":
        return _sniff_boxes(data)
    if data[:2] == b"BM" and len(data) >= 18 and struct.unpack_from("<I", data, 14)[0] in _BMP_HEADERS:
        return "BMP"
    for start, name in NOT_READ:
        if data.startswith(start):
            raise ImageError("unsupported", f"the file is {name}; {_READABLE}")
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        raise ImageError("unsupported", f"the file is an SVG drawing; {_READABLE}")
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise ImageError("not_an_image", "the file is an HTML page, not a picture (a failed download?)")
    raise ImageError("not_an_image", f"the file's content is not a picture; {_READABLE}")


_READABLE = "JPEG, PNG, WebP, AVIF, GIF, BMP and TIFF are read"
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)


def _sniff_boxes(data: bytes) -> str:
    """Tell AVIF from its relatives by the brands of the ``ftyp`` box."""
    length = min(struct.unpack_from(">I", data)[0], len(data), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, length - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}:
        raise ImageError("unsupported", f"the file is a HEIC picture; {_READABLE}")
    raise ImageError("not_an_image", f"the file is a video or audio file; {_READABLE}")


def early_size(data: bytes, form: str) -> tuple[int, int] | None:
    """Return width and height where they must be known before a decoder is even created.

    That is WebP, whose decoder allocates its canvas at once, and GIF, whose first frame may be larger
    than its screen; ``None`` for the other formats and where the header is too short or damaged.
    """
    try:
        if form == "WEBP":
            return _webp_size(data)
        if form == "GIF":
            return _gif_size(data)
    except (struct.error, IndexError):
        return None
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _gif_size(data: bytes) -> tuple[int, int] | None:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    if data[at] != 0x2C:
        return None
    left, top, inner_width, inner_height = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + inner_width), max(height, top + inner_height)


def checked_png(data: bytes) -> bytes:
    """Check the sums of a PNG's picture chunks; return it without its texts.

    Texts hold no pixels, and a small compressed text can unpack to gigabytes. Pillow reads the picture
    data without checking its sums.

    Raises:
        ImageError: ``unreadable`` where a sum is wrong.
    """
    kept = [PNG_START]
    at, dropped = 8, False
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if kind in (b"tEXt", b"zTXt", b"iTXt") and not data.startswith(ORIENTING_TEXTS, at + 8):
            dropped = True
        else:
            (stated,) = struct.unpack_from(">I", data, end - 4)
            if not kind[0] & 0x20 and zlib.crc32(data[at + 4 : end - 4]) != stated:
                name = kind.decode("latin-1")
                raise ImageError("unreadable", f"the PNG chunk {name!r} has a wrong checksum")
            kept.append(data[at:end])
        at = end
        if kind == b"IEND":
            break
    if not dropped:
        return data
    return b"".join([*kept, data[at:]])


def png_depth(data: bytes) -> int:
    """Return the bits per channel that a PNG's header states (0 where it is cut)."""
    return data[24] if len(data) > 24 else 0


def is_cut(data: bytes, form: str) -> bool:
    """Return whether the container shows that its end is missing. Slow formats to tell: ``False``."""
    try:
        if form == "JPEG":
            return not data.rstrip(b"\0\r\n").endswith(b"\xff\xd9")
        if form == "PNG":
            return b"IEND" not in data[-64:] and b"IEND" not in data
        if form == "GIF":
            return not data.rstrip(b"\0").endswith(b";")
        if form == "WEBP":
            return int(struct.unpack_from("<I", data, 4)[0]) + 8 > len(data)
        if form == "BMP":
            return int(struct.unpack_from("<I", data, 2)[0]) > len(data)
        if form == "TIFF" and data[2:4] in (b"*\0", b"\0*"):
            order = "<" if data[:2] == b"II" else ">"
            return int(struct.unpack_from(order + "I", data, 4)[0]) + 2 > len(data)
        if form == "AVIF":
            return _boxes_are_cut(data)
    except struct.error:
        return True
    return False


def _boxes_are_cut(data: bytes) -> bool:
    at = 0
    while at < len(data):
        length = int(struct.unpack_from(">I", data, at)[0])
        if length == 1:
            length = int(struct.unpack_from(">Q", data, at + 8)[0])
        if length == 0:
            return False
        if length < 8:
            return False
        at += length
    return at > len(data)
