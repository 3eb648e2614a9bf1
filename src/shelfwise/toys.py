"""Toys: a catalogue and a backbone small enough for a test of milliseconds.

They know no recipe and no check. Importing this module registers the backbone ``toy``.
"""

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from shelfwise.files import write_text
from shelfwise.models.backbones import Backbone, Preprocess, make_backbone
from shelfwise.registry import register

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (205, 40, 45),
    "green": (40, 150, 60),
    "blue": (45, 70, 190),
}
#: Category -> attribute -> values; the first attribute is called alike everywhere and not alike valued.
TOY: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Cups": {"colour": ("red", "green", "blue"), "pattern": ("plain", "striped")},
    "Plates": {"colour": ("red", "blue"), "size": ("small", "large"), "pattern": ("plain", "striped")},
    "Towels": {"colour": ("green", "blue"), "pattern": ("plain", "striped", "default")},
}
SIDE = 32


def toy_catalog(
    directory: str | Path,
    *,
    products: int = 180,
    seed: int = 0,
    missing: float = 0.15,
    layout: Literal["named", "challenge"] = "named",
) -> Path:
    """Write a small table with pictures whose shape, colour, stripes and size are the labels.

    Named layout has the columns ``id, image, category, title, price`` and the attributes; challenge layout
    ``id, Category, len, attr_1..attr_4``, pictures found by id, and ``attributes.json`` beside it. Ids keep
    leading zeros. Every category has a row without any label; ``default`` is a value, shown as dots.

    Args:
        directory: gets ``catalog.csv`` and ``images/``.
        products: rows.
        seed: the same seed writes the same bytes.
        missing: share of label cells left empty.
        layout: of the table.

    Returns:
        The path of the table.
    """
    directory = Path(directory)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, str]] = []
    names = tuple(TOY)
    for number in range(products):
        category = names[number % 2 if number % 7 else 2]
        labels = {name: _draw(rng, values) for name, values in TOY[category].items()}
        _picture(category, labels, rng).save(directory / "images" / f"{number:05d}.png")
        stated = {name: value for name, value in labels.items() if rng.random() >= missing}
        if number in (7, 8, 9):
            stated = {}
        price = 3 + 2 * names.index(category) + (4 if labels.get("size") == "large" else 0) + rng.random()
        rows.append(
            {
                "id": f"{number:05d}",
                "image": f"images/{number:05d}.png",
                "category": category,
                "title": f"{category[:-1]} no. {number} by Toyware",
                "price": f"{price:.2f}",
                **stated,
            }
        )
    if layout == "challenge":
        lists = {category: list(attributes) for category, attributes in TOY.items()}
        write_text(directory / "attributes.json", json.dumps(lists) + "\n")
        rows = [_challenge_row(row) for row in rows]
        header = ["id", "Category", "len", *(f"attr_{k}" for k in range(1, 5))]
    else:
        header = ["id", "image", "category", "title", "price", "colour", "size", "pattern"]
    text = io.StringIO()
    writer = csv.DictWriter(text, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(directory / "catalog.csv", text.getvalue())
    return directory / "catalog.csv"


def _draw(rng: np.random.Generator, values: Sequence[str]) -> str:
    """The first value is the most frequent one."""
    weights = np.array([1.0, *[0.6] * (len(values) - 1)])
    return str(rng.choice(list(values), p=weights / weights.sum()))


def _challenge_row(row: Mapping[str, str]) -> dict[str, str]:
    names = tuple(TOY[row["category"]])
    cells = {f"attr_{k}": row.get(name, "") for k, name in enumerate(names, start=1)}
    return {"id": row["id"], "Category": row["category"], "len": str(len(names)), **cells}


def _picture(category: str, labels: Mapping[str, str], rng: np.random.Generator) -> Image.Image:
    """A shape on a grey background that differs from picture to picture."""
    grey = rng.integers(150, 256, (4, 4), dtype=np.uint8)
    ground = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BICUBIC).convert("RGB")
    figure = Image.new("RGB", (SIDE, SIDE), COLOURS[labels["colour"]])
    pen = ImageDraw.Draw(figure)
    if labels["pattern"] == "striped":
        for y in range(0, SIDE, 4):
            pen.rectangle((0, y, SIDE, y + 1), fill=(250, 250, 250))
    if labels["pattern"] == "default":
        for x, y in itertools.product(range(2, SIDE, 5), repeat=2):
            pen.rectangle((x, y, x + 1, y + 1), fill=(20, 20, 20))
    half = 7 if labels.get("size") == "small" else 12
    x, y = (SIDE // 2 + rng.integers(-2, 3, 2)).tolist()
    box = (x - half, y - half, x + half, y + half)
    mask = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(mask)
    if category == "Cups":
        pen.polygon([(x - half, y - half), (x + half, y - half), (x, y + half)], fill=255)
    elif category == "Plates":
        pen.ellipse(box, fill=255)
    else:
        pen.rectangle((x - half, y - half // 2, x + half, y + half // 2), fill=255)
    ground.paste(figure, mask=mask)
    return ground


@register.backbone("toy")
def toy(*, seed: int = 0) -> Backbone:
    """A tiny fixed network for tests: 32 pixels, random convolutions and coarse colour, 139 features.

    Args:
        seed: of its weights.
    """
    import torch
    from torch import nn

    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 5, stride=2, padding=2)
            self.second = nn.Conv2d(16, 32, 3, stride=2, padding=1)

        def feature_map(self, images_BHWC: torch.Tensor) -> torch.Tensor:
            pixels_BCHW = images_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
            map_BChw: torch.Tensor = self.second(self.first(pixels_BCHW).relu()).relu()
            return map_BChw

        def forward(self, images_BHWC: torch.Tensor) -> torch.Tensor:
            pixels_BCHW = images_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1
            second = self.feature_map(images_BHWC)
            cells = nn.functional.adaptive_avg_pool2d(pixels_BCHW, 5)
            parts = (second.mean((2, 3)), second.amax((2, 3)), cells.flatten(1))
            return torch.cat(parts, dim=1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Toy()
    half = (0.5, 0.5, 0.5)
    return make_backbone("toy", module, Preprocess((SIDE, SIDE), "stretch", "bilinear", 1.0, half, half))
