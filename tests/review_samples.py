"""Desks with small photos, and a server for their pages, for tests of the review pages."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
from PIL import Image, ImageDraw

from page_samples import HOSTILE
from shelfwise.pages.heat import packed
from shelfwise.service.desk import Desk, Item, LookAlike
from shelfwise.service.items import key_of
from shelfwise.taxonomy import Choice, Taxonomy

COLOURS = ("Red", "Green", "Blue", "Navy blue", "Mustard", "Off-white")
SLEEVES = ("long", "short", "sleeveless")
TAXONOMY = Taxonomy(
    {
        "Women Tops": (Choice("colour", COLOURS), Choice("sleeve", SLEEVES)),
        "Kurtis": (Choice("colour", COLOURS), Choice("sleeve", SLEEVES)),
    }
)
INKS = {
    "Red": "#b3322c", "Green": "#4c7a3f", "Blue": "#3b6db3", "Navy blue": "#1f2a4d", "Mustard": "#c99a2e",
    "Off-white": "#ece6d8",
}  # fmt: skip
REASONS = ("mismatch", "unsure", "mismatch", "unfamiliar")


def draw(directory: Path, colour: str) -> Path:
    """A garment of one colour, drawn in a moment."""
    path = directory / "photos" / f"{colour.replace(' ', '-')}.jpg"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (240, 320), "#e9e6e0")
    half = [(0, 52), (-20, 44), (-60, 60), (-96, 130), (-66, 146), (-54, 120), (-54, 290)]
    shape = [(120 + x, y) for x, y in half] + [(120 - x, y) for x, y in reversed(half)]
    ImageDraw.Draw(image).polygon(shape, fill=INKS[colour], outline="#26262a")
    image.save(path, quality=90)
    return path


def item(directory: Path, number: int, *, cluster: str = "", **changes: object) -> Item:
    """Item ``number``: the photo shows the value seen, the table states another; low numbers are the riskiest."""
    seen, stated, second = (COLOURS[(number + step) % len(COLOURS)] for step in (0, 1, 2))
    name = f"SKU-{1000 + number}"
    category, supplier = ("Women Tops", "Kurtis")[number % 2], ("Acme", "Looms & Sons", "")[number % 3]
    probability = 0.97 - 0.003 * number
    alike = tuple(
        LookAlike(f"T-{number}{place}", 0.93 - 0.04 * place, value, draw(directory, value))
        for place, value in enumerate((seen, seen, second))
    )
    made: dict[str, object] = {
        "key": key_of(name, category, "colour"), "id": name, "category": category, "attribute": "colour",
        "supplier": supplier, "photo": draw(directory, seen), "stated": stated, "seen": seen,
        "probability": probability, "runner_up": second, "runner_up_probability": (1 - probability) / 2,
        "state": "unsure", "reason": REASONS[number % 4], "risk": 1 - number / 1000, "cluster": cluster,
        "look_alikes": alike, "values": COLOURS,
    }  # fmt: skip
    return Item(**(made | changes))  # type: ignore[arg-type]


def heat(row: int, column: int) -> str:
    """A map of 4 x 4 places with its peak at one of them."""
    heat_GG = np.full((4, 4), 0.1, np.float32)
    heat_GG[row, column] = 1
    return packed(heat_GG)


def hostile(directory: Path) -> list[Item]:
    """Items whose every text is one that a supplier might send to do harm."""
    found = []
    for number, text in enumerate(HOSTILE):
        values = (text, *HOSTILE[:3], "plain")
        more = {
            "id": text, "category": text, "attribute": text, "supplier": text, "stated": "plain", "seen": text,
            "runner_up": HOSTILE[(number + 1) % 3], "values": tuple(dict.fromkeys(values)),
            "key": key_of(str(number), text, text),
            "look_alikes": (LookAlike(text, 0.9, text, None),), "heat": heat(1, 1),
        }  # fmt: skip
        found.append(item(directory, number, **more))
    return found


def fill(place: Path, items: list[Item], second: float = 0.0) -> Path:
    """A desk with these items."""
    with Desk.open(place) as desk:
        desk.fill(items, bundle="b" * 64, taxonomy=TAXONOMY, second=second)
    return place


@contextmanager
def serving(place: Path, port: int, *, keys: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server of the pages in a process of its own; gone afterwards, unless a test killed it before."""
    words = [sys.executable, str(Path(__file__).with_name("review_server.py")), str(place), str(port)]
    log = place.with_suffix(".log").open("ab")
    process = subprocess.Popen([*words, *([str(keys)] if keys else [])], stdout=log, stderr=log)
    try:
        for _ in range(400):
            try:
                with urlopen(f"http://127.0.0.1:{port}/ready", timeout=1):
                    break
            except (URLError, ConnectionError, TimeoutError):
                assert process.poll() is None, place.with_suffix(".log").read_text()
                time.sleep(0.03)
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def free_port() -> int:
    """A port that nothing listens on just now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
