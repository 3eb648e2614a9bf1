"""Requests as an attacker or a broken client would send them: photos that are none, and forms that are none."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

import hostile

BOUNDARY = "----hostile"
#: What refuses: a photo, a form, a request that is too much.
REFUSED = frozenset({400, 413, 415, 422})
GOOD, EITHER = frozenset({200}), REFUSED | {200}


@dataclass(frozen=True)
class Upload:
    """One request and the statuses that are right for it."""

    body: bytes
    allowed: frozenset[int] = REFUSED
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    )


def part(
    content: bytes, disposition: str = 'form-data; name="image"; filename="a.jpg"', more: str = ""
) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{more}\r\n"
    return head.encode("utf-8", errors="surrogateescape") + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def photo(content: bytes, allowed: frozenset[int] = REFUSED) -> Upload:
    return Upload(form(part(content)), allowed)


def uploads() -> dict[str, Upload]:
    """Return every hostile request by its name; the same ones every time."""
    image = hostile.picture()
    jpeg = hostile.encoded(image, "JPEG", quality=90)
    return {
        **_cut(image),
        **_lying(image),
        **_flipped(jpeg),
        **_disguised(jpeg),
        **_odd_but_good(image),
        **_fields(jpeg),
        **_broken_forms(jpeg),
    }


def _cut(image: Image.Image) -> dict[str, Upload]:
    """Cut off at many places; a format that does not say how long it is may end anywhere near its end."""
    found = {}
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        data = hostile.encoded(image, kind)
        for share in (0.01, 0.05, 0.2, 0.5, 0.8):
            found[f"cut_{share}.{kind.lower()}"] = photo(data[: max(1, int(share * len(data)))])
    return found


def _lying(image: Image.Image) -> dict[str, Upload]:
    """Headers that state other sizes than there are."""
    png, gif, bmp = (bytearray(hostile.encoded(image, kind)) for kind in ("PNG", "GIF", "BMP"))
    found = {}
    for name, width, height in (
        ("huge", 2**31 - 1, 2**31 - 1),
        ("wide", 1_000_000, 1_000),
        ("none", 0, 48),
        ("negative", 2**32 - 64, 48),
        ("high", 64, 70_000_000),
    ):
        head = struct.pack(">II", width, height) + bytes(png[24:29])
        whole = bytes(png[:8]) + hostile.png_chunk(b"IHDR", head) + bytes(png[33:])
        found[f"lying_{name}.png"] = photo(whole)
    for name, size in (("huge", 65_535), ("tall", 40_000)):
        found[f"lying_{name}.gif"] = photo(bytes(gif[:6]) + struct.pack("<HH", size, size) + bytes(gif[10:]))
    for name, size in (("huge", 2**30), ("negative", -(2**31)), ("tall", 100_000)):
        found[f"lying_{name}.bmp"] = photo(bytes(bmp[:18]) + struct.pack("<ii", size, size) + bytes(bmp[26:]))
    entries = struct.pack("<HHHLL", 1, 256, 4, 1, 2**31) + bytes(4)
    found["lying.tiff"] = photo(b"II*\0" + struct.pack("<L", 8) + entries)
    found["endless.tiff"] = photo(b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", 65_535) + bytes(40))
    found["circular.tiff"] = photo(b"II*\0" + struct.pack("<LHL", 8, 0, 8))
    found["lying.webp"] = photo(b"RIFF" + struct.pack("<L", 2**32 - 1) + b"WEBPVP8 " + bytes(40))
    found["lying.avif"] = photo(struct.pack(">L", 2**31) + b"ftypavif" + bytes(64))
    text = b"x\0\0" + zlib.compress(bytes(40_000_000), 9)
    found["bomb_text.png"] = photo(
        bytes(png[:33]) + hostile.png_chunk(b"zTXt", text) + bytes(png[33:]), EITHER
    )
    found["bomb.gif"] = photo(hostile.encoded(Image.new("P", (8_000, 8_000)), "GIF"))
    found["line_of_65500.png"] = photo(hostile.encoded(Image.new("L", (65_500, 1)), "PNG"), GOOD)
    return found


def _flipped(jpeg: bytes) -> dict[str, Upload]:
    """Single bytes changed, wherever; some pictures survive that."""
    rng, found = random.Random(7), {}
    png = hostile.encoded(hostile.picture(), "PNG")
    for number in range(20):
        data = bytearray((jpeg, png)[number % 2])
        for _ in range(5):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        found[f"flipped_{number}"] = photo(bytes(data), EITHER)
    return found


def _disguised(jpeg: bytes) -> dict[str, Upload]:
    """Other things that are called .jpg; scripts behind a good picture are never run and may be looked at."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("../../etc/passwd", "x")
    none = {
        "page": b"<html><script>alert(1)</script></html>",
        "drawing": b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>',
        "drawing_behind_spaces": b"  \n\t<svg/>",
        "entities": b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        "archive": packed.getvalue(),
        "document": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj<</JS(1)>>",
        "program": b"\x7fELF" + bytes(200),
        "windows_program": b"MZ" + bytes(200),
        "shell": b"#!/bin/sh\nexit 1\n",
        "pickle": b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94.",
        "zeros": bytes(5000),
        "one_byte": b"\xff",
        "mark_alone": b"\xff\xd8\xff",
        "png_mark_alone": b"\x89PNG\r\n\x1a\n",
        "gif_mark_alone": b"GIF89a",
        "empty": b"",
        "playlist": b"#EXTM3U\nhttp://127.0.0.1/\n",
        "vector_language": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/'\n",
        "compressed": zlib.compress(bytes(100_000)),
    }
    found = {f"{name}.jpg": photo(content) for name, content in none.items()}
    for name, tail in (("page", none["page"]), ("archive", none["archive"]), ("php", b"<?php system(1); ?>")):
        found[f"jpeg_and_{name}"] = photo(jpeg + tail, EITHER)
    return found


def _odd_but_good(image: Image.Image) -> dict[str, Upload]:
    """What is seldom and yet a picture."""
    one = Image.new("RGB", (1, 1), (200, 30, 30))
    found = {
        f"one_pixel.{kind}": photo(hostile.encoded(one, kind), GOOD)
        for kind in ("JPEG", "GIF", "BMP", "TIFF")
    }
    found["cmyk.jpg"] = photo(hostile.encoded(image.convert("CMYK"), "JPEG"), GOOD)
    found["progressive.jpg"] = photo(hostile.encoded(image, "JPEG", progressive=True), GOOD)
    frames = [image.rotate(angle) for angle in range(0, 360, 30)]
    found["animated.gif"] = photo(hostile.encoded(image, "GIF", save_all=True, append_images=frames), GOOD)
    for number, exif in enumerate(
        (b"Exif\0\0MM\0*", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0" + b"\xff" * 60)
    ):
        found[f"exif_{number}.jpg"] = photo(hostile.encoded(image, "JPEG", exif=exif), GOOD)
    return found


def _fields(jpeg: bytes) -> dict[str, Upload]:
    """Names and texts that are none."""

    def beside(content: bytes, disposition: str, allowed: frozenset[int] = REFUSED) -> Upload:
        return Upload(form(part(jpeg), part(content, disposition)), allowed)

    name = 'form-data; name="{}"'
    file = 'form-data; name="image"; filename="{}"'
    twice = part(b"Cups", name.format("category"))
    found = {
        "a_field_twice": Upload(form(part(jpeg), twice, twice)),
        "an_unknown_field": beside(b"x", name.format("colour")),
        "a_name_like_a_path": beside(b"x", name.format("../../etc/passwd")),
        "a_giant_name": beside(b"x", name.format("x" * 100_000)),
        "a_long_name": beside(b"x", name.format("x" * 3000)),
        "an_empty_name": beside(b"x", name.format("")),
        "no_name": beside(b"x", "form-data"),
        "no_disposition": Upload(form(f"--{BOUNDARY}\r\n\r\nx\r\n".encode())),
        "a_name_with_nul": beside(b"x", name.format("id\0")),
        "a_name_in_unicode": beside(b"x", name.format("каталог")),
        "a_text_as_file": beside(b"x", 'form-data; name="id"; filename="x"'),
        "a_text_that_is_no_text": beside(b"\xff\xfe\xfd", name.format("text")),
        "a_text_with_nul": beside(b"a\0b", name.format("text"), EITHER),
        "a_giant_text": beside(b"x" * 300_000, name.format("text")),
        "a_long_text": beside(b"x" * 20_001, name.format("text")),
        "a_long_id": beside(b"x" * 501, name.format("id")),
        "a_category_there_is_not": beside(b"../../x", name.format("category")),
        "a_category_that_is_code": beside(b"'; DROP TABLE keys; --", name.format("category")),
        "a_precision_that_is_none": beside(b"1e999", name.format("precision")),
        "a_precision_too_deep": beside(b"9" * 5000, name.format("precision")),
        "a_text_in_unicode": beside("чашка 👋 \u202e".encode(), name.format("text"), GOOD),
        "an_id_like_a_path": beside(b"../../../etc/passwd", name.format("id"), GOOD),
        "an_id_with_unicode": beside("№ 7 \u202e".encode(), name.format("id"), GOOD),
        "many_fields": Upload(form(part(jpeg), *(part(b"x", name.format(f"f{n}")) for n in range(5000)))),
        "many_photos": Upload(form(*[part(jpeg)] * 40)),
        "a_photo_too_large": photo(jpeg + bytes(3_000_000)),
        "no_photo": Upload(form(part(b"x", name.format("id")))),
    }
    for number, called in enumerate(
        (
            "../../etc/cron.d/x",
            "..\\..\\x.jpg",
            "/etc/passwd",
            "a\0.jpg",
            "con",
            "x" * 3000,
            "каталог 👋.jpg",
            "",
            "%2e%2e%2f",
        )
    ):
        found[f"a_file_called_{number}"] = Upload(form(part(jpeg, file.format(called))), EITHER - {415, 413})
    return found


def _broken_forms(jpeg: bytes) -> dict[str, Upload]:
    """Content that is not what its header says."""
    whole = form(part(jpeg))
    inner = form(part(jpeg)).replace(BOUNDARY.encode(), b"inner")
    nested = part(inner, 'form-data; name="image"', "Content-Type: multipart/mixed; boundary=inner\r\n")
    flood = "".join(f"X-{number}: {'y' * 200}\r\n" for number in range(200))

    def typed(content_type: str, body: bytes = whole, allowed: frozenset[int] = REFUSED) -> Upload:
        return Upload(body, allowed, {"content-type": content_type} if content_type else {})

    return {
        "no_type": typed(""),
        "no_boundary": typed("multipart/form-data"),
        "an_empty_boundary": typed("multipart/form-data; boundary="),
        "another_boundary": typed("multipart/form-data; boundary=other"),
        "a_giant_boundary": typed(f"multipart/form-data; boundary={'b' * 5000}"),
        "a_boundary_of_spaces": typed('multipart/form-data; boundary="   "'),
        "two_boundaries": typed(f"multipart/form-data; boundary=x; boundary={BOUNDARY}", allowed=EITHER),
        "another_type": typed("application/x-www-form-urlencoded"),
        "xml": typed("text/xml", b"<a/>"),
        "json_that_is_a_form": typed("application/json"),
        "json_too_deep": typed("application/json", b'{"products":' + b"[" * 200_000),
        "json_with_a_bomb": typed(
            "application/json", b'{"products": [' + b'{"text": "x"},' * 100_000 + b"{}]}"
        ),
        "json_with_a_number": typed("application/json", b'{"products": [{"text": "x"}], "precision": 1e999}'),
        "json_in_another_code": typed("application/json", '{"products": [{"text": "x"}]}'.encode("utf-16")),
        "json_with_half_a_letter": typed("application/json", b'{"products": [{"text": "\\ud800"}]}', EITHER),
        "nested": Upload(form(nested)),
        "a_flood_of_headers": Upload(form(part(jpeg, more=flood))),
        "a_header_without_end": Upload(f"--{BOUNDARY}\r\nContent-Disposition: ".encode() + b"x" * 100_000),
        "a_header_that_is_none": Upload(
            f"--{BOUNDARY}\r\n\x01\x02: y\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()
        ),
        "no_end": Upload(part(jpeg)),
        "no_beginning": Upload(jpeg + f"\r\n--{BOUNDARY}--\r\n".encode()),
        "the_end_alone": Upload(form()),
        "nothing": Upload(b""),
        "line_feeds_alone": Upload(whole.replace(b"\r\n", b"\n")),
        "a_word_before": Upload(b"hello\r\n" + whole, EITHER),
        "a_word_after": Upload(whole + b"hello", EITHER),
    }
