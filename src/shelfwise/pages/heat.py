"""Heat maps of answers: where in a photo each comes from, as pictures, as one page and for machines.

It does not know how a map was made. Legend: G places a side.
"""

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from shelfwise.data.images import open_image
from shelfwise.errors import ImageError
from shelfwise.files import write_text
from shelfwise.pages import parts
from shelfwise.pages.parts import Html, Section, esc, name, percent

#: Longest side in pixels of a picture file, and on a page.
FILE, SHOWN = 640, 260
#: The colour of the heat, and how much of the photo it covers where it is greatest.
HEAT, COVER = (255, 60, 0), 0.7


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Where in a photo an answer comes from.

    Attributes:
        id: the product's id.
        category: its category.
        attribute: the attribute's name.
        value: the answer.
        probability: its calibrated probability.
        heat: float32 [G, G], 0 to 1, rows from the photo's top, over the whole photo.
        image: the photo.
    """

    id: str
    category: str
    attribute: str
    value: str
    probability: float
    heat: npt.NDArray[np.float32]
    image: Path

    @property
    def peak(self) -> tuple[float, float]:
        """Where the heat is greatest: shares of the photo's width and height, the middle of the place."""
        row, column = np.unravel_index(int(self.heat.argmax()), self.heat.shape)
        return (float(column) + 0.5) / self.heat.shape[1], (float(row) + 0.5) / self.heat.shape[0]

    @property
    def alt(self) -> str:
        """What the picture shows, for those who do not see it."""
        x, y = self.peak
        return (
            f"Where {self.attribute} {self.value} comes from in the photo of {self.id}: "
            f"most at {x:.0%} of its width and {y:.0%} of its height"
        )


def packed(heat_GG: npt.NDArray[np.float32]) -> str:
    """Return a map as short text, a byte a place; only where the heat is 1 is the byte the greatest."""
    return base64.b64encode((255 * heat_GG.clip(0, 1)).astype(np.uint8).tobytes()).decode("ascii")


def unpacked(text: str) -> npt.NDArray[np.float32]:
    """Return float32 [G, G], the map that ``packed`` wrote."""
    bytes_P = np.frombuffer(base64.b64decode(text), np.uint8)
    side = math.isqrt(len(bytes_P))
    heat_GG: npt.NDArray[np.float32] = bytes_P.reshape(side, side).astype(np.float32) / np.float32(255)
    return heat_GG


def heat_picture(heat_map: HeatMap, side: int = FILE) -> Image.Image:
    """Return the photo under its heat, a ring around the peak.

    Args:
        heat_map: the map.
        side: the longest side, in pixels.

    Raises:
        ImageError: the photo cannot be read.
    """
    photo = open_image(heat_map.image, target=side).image.convert("RGB")
    photo.thumbnail((side, side))
    grey = Image.merge("RGB", [photo.convert("L")] * 3)
    cover = Image.fromarray((255 * COVER * heat_map.heat.clip(0, 1)).astype(np.uint8))
    cover = cover.resize(photo.size, Image.Resampling.BICUBIC)
    drawn = Image.composite(Image.new("RGB", photo.size, HEAT), Image.blend(photo, grey, 0.5), cover)
    x, y = heat_map.peak[0] * photo.width, heat_map.peak[1] * photo.height
    ring = max(4, max(photo.size) // 40)
    draw = ImageDraw.Draw(drawn)
    for grown, colour in ((1, (255, 255, 255)), (0, (0, 0, 0))):
        draw.ellipse(
            (x - ring - grown, y - ring - grown, x + ring + grown, y + ring + grown), outline=colour, width=1
        )
    return drawn


def heat_image(heat_map: HeatMap, side: int) -> str:
    """Return the photo under its heat as an element of a page, nothing where the photo cannot be read."""
    try:
        picture = heat_picture(heat_map, side)
    except ImageError:
        return ""
    with io.BytesIO() as file:
        picture.save(file, "JPEG", quality=80, optimize=True)
        data = base64.b64encode(file.getvalue()).decode("ascii")
    return (
        f'<img class="photo" src="data:image/jpeg;base64,{data}" alt="{esc(heat_map.alt)}" width="{picture.width}" '
        f'height="{picture.height}" decoding="async">'
    )


def heat_page(maps: Sequence[HeatMap], source: str) -> str:
    """Return a page of heat maps, in their order."""
    cards = []
    for each in maps:
        where = f"{name(each.category)} · {name(each.attribute)}"
        chance = str(parts.bar(each.probability)).replace(
            "</i>", f"</i><span>{esc(percent(each.probability))}</span>", 1
        )
        cards.append(
            f'<li class="card"><div>{heat_image(each, SHOWN)}</div><div><h3>{name(each.id)}</h3>'
            f'<p class="where">{where}</p><dl class="claims"><div><dt>answer</dt><dd>{name(each.value)}{chance}</dd>'
            "</div></dl></div></li>"
        )
    body = parts.filtered(
        "id, category, attribute or value", Html(f'<ul class="cards">{chr(10).join(cards)}</ul>')
    )
    lead = (
        "Red is where the photo speaks most for the answer, against other products of the category; a ring marks the "
        "peak. Votes of look-alikes are not part of it."
    )
    sections = [Section("maps", "The answers", body if cards else Html('<p class="note">None.</p>'), lead)]
    said = Html("answers, each with <strong>where in the photo it comes from</strong>.")
    top = parts.hero(
        f"{len(maps):,}", said, None, parts.facts([("products", f"{len({m.id for m in maps}):,}")])
    )
    return parts.page("heat maps", source, "Where the answers come from", top, sections)


def write_heat_maps(folder: Path, maps: Sequence[HeatMap], source: str) -> None:
    """Write ``index.html``, ``maps.jsonl`` and a PNG for each map into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, each in enumerate(maps, 1):
        words = re.sub(r"[^A-Za-z0-9]+", "-", f"{each.id}-{each.attribute}").strip("-")[:60]
        file = f"{number:04d}-{words}.png"
        heat_picture(each).save(folder / file)
        line = {
            "id": each.id,
            "category": each.category,
            "attribute": each.attribute,
            "value": each.value,
            "probability": round(each.probability, 6),
            "peak": [round(share, 4) for share in each.peak],
            "heat": [[round(float(cell), 4) for cell in row] for row in each.heat],
            "picture": file,
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    write_text(folder / "maps.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(folder / "index.html", heat_page(maps, source))
