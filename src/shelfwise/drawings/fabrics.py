"""Colours, prints and weaves of the rendered catalogue; knows nothing of garments or categories.

Legend: every picture here is a Pillow image of WIDTH x HEIGHT pixels, twice the size that is kept, so that
halving it smooths the edges. `inks` is a main and a second colour. Chance comes from the generator handed in.
"""

import colorsys
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

WIDTH, HEIGHT = 480, 640

Colour = tuple[int, int, int]
Point = tuple[float, float]
Inks = tuple[Colour, Colour]

PALETTE: dict[str, Colour] = {
    "white": (246, 245, 241), "black": (34, 34, 38), "grey": (140, 143, 149), "red": (206, 34, 44),
    "maroon": (116, 22, 42), "navy blue": (27, 38, 86), "blue": (50, 104, 196), "yellow": (246, 202, 50),
    "green": (42, 130, 74), "pink": (238, 126, 168), "purple": (116, 64, 152), "orange": (240, 122, 36),
    "peach": (252, 190, 156), "cream": (240, 224, 188),
}  # fmt: skip
OTHER: tuple[Colour, ...] = (  # what a taxonomy without the right word calls `default`
    (20, 134, 138), (124, 84, 58), (184, 164, 216), (122, 124, 62), (178, 86, 52), (160, 214, 190),
)  # fmt: skip
GOLD: Colour = (214, 170, 66)
SKIN: tuple[Colour, ...] = ((236, 190, 156), (214, 160, 122), (182, 126, 90), (140, 92, 64))


@dataclass(frozen=True)
class Dye:
    """The colours of one product: base cloth, accent (trim, border), print ink, blocks of a multicolour."""

    base: Colour
    accent: Colour
    ink: Colour
    blocks: tuple[Colour, ...] = ()


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Move colour `a` towards `b` by `share` in 0..1."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """Move a colour towards black."""
    return mix(colour, (8, 6, 12), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """Move a colour towards white."""
    return mix(colour, (255, 253, 248), share)


def luma(colour: Colour) -> float:
    """Brightness of a colour in 0..255 (ITU-R BT.601 weights)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def jitter(rng: Random, colour: Colour) -> Colour:
    """Shift hue, saturation and brightness a little, as dye lots and lamps do."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    hue = (hue + rng.uniform(-0.018, 0.018)) % 1.0
    saturation = min(1.0, saturation * rng.uniform(0.82, 1.1))
    value = min(1.0, value * rng.uniform(0.88, 1.06))
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return (round(red * 255), round(green * 255), round(blue * 255))


def dye(rng: Random, name: str) -> Dye:
    """Choose the colours of a product by its colour's name (`default`: any other; `multicolor`: several)."""
    named = list(PALETTE.values())
    if name == "multicolor":
        blocks = tuple(jitter(rng, c) for c in rng.sample([c for c in named if 45 < luma(c) < 235], 3))
        base = blocks[0]
    else:
        blocks = ()
        base = jitter(rng, rng.choice(OTHER) if name == "default" else PALETTE[name])
    far = [c for c in (*named, *OTHER) if abs(luma(c) - luma(base)) > 70]
    ink = rng.choice(far) if luma(base) > 120 or rng.random() < 0.4 else PALETTE["white"]
    return Dye(base, jitter(rng, rng.choice(far)), jitter(rng, ink), blocks)


def box(centre: Point, half: float, height: float | None = None) -> tuple[float, float, float, float]:
    """Return the corners of a box around a centre, of half-width `half` and half-height `height`."""
    tall = half if height is None else height
    return (centre[0] - half, centre[1] - tall, centre[0] + half, centre[1] + tall)


def ring(centre: Point, radius: float, count: int, turn: float = 0.0) -> list[Point]:
    """Return `count` points spread evenly on a circle."""
    steps = [turn + 2 * math.pi * k / count for k in range(count)]
    return [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in steps]


def _dot(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    draw.ellipse(box((s / 2, s / 2), s * 0.3), fill=inks[0])


def _flower(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    for petal in ring((s / 2, s / 2), s * 0.25, 6):
        draw.ellipse(box(petal, s * 0.17), fill=inks[0], outline=darker(inks[0], 0.2))
    draw.ellipse(box((s / 2, s / 2), s * 0.13), fill=inks[1])


def _leaves(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    draw.line([(s * 0.5, s * 0.02), (s * 0.5, s * 0.98)], fill=inks[0], width=max(1, round(s / 16)))
    for y in (0.2, 0.45, 0.7):
        for side in (-1, 1):
            tip = (s * (0.5 + side * 0.42), s * (y - 0.1))
            low, high = (s * (0.5 + side * 0.2), s * (y + 0.17)), (s * (0.5 + side * 0.16), s * (y - 0.1))
            draw.polygon([(s * 0.5, s * (y + 0.12)), low, tip, high], fill=inks[0])


def _buti(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    draw.polygon(ring((s / 2, s / 2), s * 0.45, 4), fill=inks[0])
    draw.polygon(ring((s / 2, s / 2), s * 0.25, 4), fill=inks[1])
    for corner in ring((s / 2, s / 2), s * 0.44, 4, math.pi / 4):
        draw.ellipse(box(corner, s * 0.07), fill=inks[0])


def _peacock(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    for k in range(7):
        turn = math.pi * (1.02 + 0.16 * k)
        tip = (s * (0.5 + 0.42 * math.cos(turn)), s * (0.6 + 0.5 * math.sin(turn)))
        draw.line([(s * 0.5, s * 0.62), tip], fill=inks[0], width=max(2, round(s / 13)))
        draw.ellipse(box(tip, s * 0.075), fill=inks[0])
    draw.ellipse(box((s * 0.5, s * 0.72), s * 0.13, s * 0.2), fill=inks[1])
    draw.ellipse(box((s * 0.5, s * 0.46), s * 0.075), fill=inks[1])


def _elephant(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    draw.ellipse((s * 0.28, s * 0.25, s * 0.95, s * 0.7), fill=inks[0])
    for x in (0.38, 0.56, 0.76):
        draw.rectangle((s * x, s * 0.55, s * (x + 0.13), s * 0.88), fill=inks[0])
    draw.ellipse((s * 0.1, s * 0.2, s * 0.45, s * 0.55), fill=inks[0])
    draw.line(
        [(s * 0.15, s * 0.4), (s * 0.1, s * 0.7), (s * 0.02, s * 0.78)], fill=inks[0], width=round(s * 0.1)
    )
    draw.rectangle((s * 0.5, s * 0.27, s * 0.74, s * 0.47), fill=inks[1])


def _patch(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    for petal in ring((s / 2, s / 2), s * 0.28, 5, -math.pi / 2):
        draw.ellipse(
            box(petal, s * 0.21), fill=inks[0], outline=lighter(inks[1]), width=max(1, round(s / 24))
        )
    draw.ellipse(box((s / 2, s / 2), s * 0.2), fill=inks[1], outline=inks[0], width=max(1, round(s / 20)))


def _funky(draw: ImageDraw.ImageDraw, s: float, inks: Inks) -> None:
    zigzag = [(s * x, s * y) for x, y in ((0.02, 0.5), (0.2, 0.2), (0.4, 0.55), (0.6, 0.2))]
    draw.line(zigzag, fill=inks[0], width=max(2, round(s / 9)))
    draw.polygon(ring((s * 0.72, s * 0.66), s * 0.24, 3, 0.4), fill=inks[1])
    draw.ellipse(box((s * 0.25, s * 0.8), s * 0.11), fill=mix(inks[0], (255, 220, 0), 0.6))


MOTIFS: dict[str, Callable[[ImageDraw.ImageDraw, float, Inks], None]] = {
    "dots": _dot, "floral": _flower, "botanical": _leaves, "ethnic motif": _buti, "peacock": _peacock,
    "elephant": _elephant, "applique": _patch, "funky print": _funky,
}  # fmt: skip


def stamp(motif: str, size: int, inks: Inks) -> Image.Image:
    """Draw one motif as an RGBA stamp of `size` pixels, smoothed from three times that."""
    tile = Image.new("RGBA", (size * 3, size * 3), (*inks[0], 0))
    MOTIFS[motif](ImageDraw.Draw(tile), size * 3.0, inks)
    return tile.reduce(3)


def allover(cloth: Image.Image, rng: Random, motif: str, inks: Inks, size: int) -> None:
    """Cover a cloth with a motif in staggered rows, upright or tossed."""
    turned = motif in ("funky print", "floral", "botanical") and rng.random() < 0.6
    first = stamp(motif, size, inks)
    kinds = [first, first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    if turned:
        kinds += [first.transpose(Image.Transpose.ROTATE_90), first.transpose(Image.Transpose.ROTATE_180)]
    step = round(size * (rng.uniform(1.0, 1.2) if motif == "funky print" else rng.uniform(1.35, 1.8)))
    for row, y in enumerate(range(-rng.randrange(step), HEIGHT, step)):
        for column, x in enumerate(range(-rng.randrange(4) - (row % 2) * step // 2, WIDTH, step)):
            cloth.paste(kinds[(row + column) % len(kinds)], (x, y), kinds[(row + column) % len(kinds)])


def stripes(cloth: Image.Image, rng: Random, ink: Colour, upright: bool, step: int) -> None:
    """Draw parallel stripes, upright or level."""
    draw, thick = ImageDraw.Draw(cloth), max(2, round(step * rng.uniform(0.25, 0.5)))
    for at in range(rng.randrange(step), WIDTH if upright else HEIGHT, step):
        corners = (at, 0, at + thick, HEIGHT) if upright else (0, at, WIDTH, at + thick)
        draw.rectangle(corners, fill=ink)


def checks(cloth: Image.Image, rng: Random, ink: Colour, step: int) -> None:
    """Draw a woven check: see-through bands both ways, darkest where they cross."""
    draw, thick = ImageDraw.Draw(cloth, "RGBA"), round(step * rng.uniform(0.35, 0.5))
    for x in range(rng.randrange(step), WIDTH, step):
        draw.rectangle((x, 0, x + thick, HEIGHT), fill=(*ink, 120))
    for y in range(rng.randrange(step), HEIGHT, step):
        draw.rectangle((0, y, WIDTH, y + thick), fill=(*ink, 120))


def ribs(cloth: Image.Image, rng: Random) -> None:
    """Draw the upright ribs of a knit."""
    draw, step = ImageDraw.Draw(cloth, "RGBA"), rng.choice((8, 9, 10))
    for x in range(0, WIDTH, step):
        draw.line([(x, 0), (x, HEIGHT)], fill=(0, 0, 0, 70), width=3)
        draw.line([(x + step // 2, 0), (x + step // 2, HEIGHT)], fill=(255, 255, 255, 46), width=2)


def blocks(cloth: Image.Image, rng: Random, colours: tuple[Colour, ...], top: float, bottom: float) -> None:
    """Colour-block a cloth between two heights: level, slanted or upright panels."""
    draw, style = ImageDraw.Draw(cloth), rng.choice(("level", "slant", "upright"))
    for k, colour in enumerate(colours[1:], 1):
        if style == "upright":
            x = WIDTH * (0.27 + 0.23 * k)
            draw.rectangle((x, 0, WIDTH, HEIGHT), fill=colour)
            continue
        y = top + (bottom - top) * k / len(colours)
        lean = 70 if style == "slant" else 0
        draw.polygon([(0, y - lean), (WIDTH, y + lean), (WIDTH, HEIGHT), (0, HEIGHT)], fill=colour)


def lattice(cloth: Image.Image, thread: Colour) -> None:
    """Weave the diamond lattice of a jacquard into a cloth."""
    draw = ImageDraw.Draw(cloth, "RGBA")
    for x in range(-HEIGHT, WIDTH, 26):
        draw.line([(x, 0), (x + HEIGHT, HEIGHT)], fill=(*thread, 110), width=3)
        draw.line([(x + HEIGHT, 0), (x, HEIGHT)], fill=(*thread, 110), width=3)


WORDS = (
    "GOOD VIBES", "NEW YORK", "STAY WILD", "BE KIND", "HELLO SUNDAY", "DREAM BIG", "OCEAN CLUB", "NO RULES",
    "1989", "MORE COFFEE", "LOVE", "STREET 77", "JUST SMILE", "LOS ANGELES",
)  # fmt: skip


def typography(cloth: Image.Image, rng: Random, at: Point, half: float, inks: Inks) -> None:
    """Letter a slogan on the chest in one to three lines."""
    lines = rng.choice(WORDS).split()
    if rng.random() < 0.3:
        lines = lines + lines[-1:]
    draw, edge = ImageDraw.Draw(cloth), darker(inks[0], 0.8) if luma(inks[0]) > 110 else lighter(inks[0], 0.8)
    size = min(half * 2.6 / max(len(line) for line in lines) * 1.15, 58) * rng.uniform(0.85, 1.05)
    for k, line in enumerate(lines):
        y = at[1] + (k - (len(lines) - 1) / 2) * size * 1.02
        font = ImageFont.load_default(round(size))
        draw.text(
            (at[0], y), line, font=font, fill=inks[k % 2], anchor="mm", stroke_width=2, stroke_fill=edge
        )
    if rng.random() < 0.35:
        y = at[1] + len(lines) * size * 0.62
        draw.line([(at[0] - half * 0.8, y), (at[0] + half * 0.8, y)], fill=inks[0], width=4)


def graphic(cloth: Image.Image, rng: Random, at: Point, half: float, inks: Inks) -> None:
    """Print a framed landscape on the chest: sky, sun and hills, round or square."""
    side = round(half * 2)
    scene = Image.new("RGB", (side, side), mix(inks[1], (120, 190, 240), 0.5))
    draw = ImageDraw.Draw(scene)
    sun = (side * rng.uniform(0.3, 0.7), side * rng.uniform(0.3, 0.5))
    draw.ellipse(box(sun, side * rng.uniform(0.16, 0.26)), fill=rng.choice(((252, 196, 60), (240, 96, 70))))
    for k, depth in enumerate((0.35, 0.6, 0.8)):
        peaks = [(side * x / 4, side * (0.42 + 0.17 * k + rng.uniform(-0.09, 0.09))) for x in range(5)]
        draw.polygon([(0, side), *peaks, (side, side)], fill=darker(inks[0], depth * 0.6))
    mask = Image.new("L", (side, side))
    cut = ImageDraw.Draw(mask)
    (cut.ellipse if rng.random() < 0.5 else cut.rectangle)((0, 0, side - 1, side - 1), fill=255)
    cloth.paste(scene, (round(at[0] - half), round(at[1] - half)), mask)


def quirky(cloth: Image.Image, rng: Random, at: Point, half: float, inks: Inks) -> None:
    """Print a cartoon face on the chest: cat, bear or sunny smile, with glasses now and then."""
    draw, skin = ImageDraw.Draw(cloth), rng.choice((inks[0], (250, 206, 60), (246, 150, 90)))
    ink, (x, y), r = darker(skin, 0.85), at, half * 0.85
    kind = rng.choice(("cat", "bear", "smile"))
    for side in (-1, 1):
        if kind == "cat":
            ear = [(x + side * r * a, y - r * b) for a, b in ((0.95, 0.2), (0.9, 1.3), (0.2, 0.85))]
            draw.polygon(ear, fill=skin)
            for lift in (-0.05, 0.15):
                draw.line(
                    [(x + side * r * 0.5, y + r * 0.25), (x + side * r * 1.2, y + r * (0.2 + lift))], ink, 3
                )
        elif kind == "bear":
            draw.ellipse(box((x + side * r * 0.75, y - r * 0.75), r * 0.36), fill=skin)
    draw.ellipse(box(at, r), fill=skin, outline=ink, width=3)
    glasses = rng.random() < 0.4
    for side in (-1, 1):
        draw.ellipse(box((x + side * r * 0.36, y - r * 0.18), r * (0.28 if glasses else 0.12)), fill=ink)
    if glasses:
        draw.line([(x - r * 0.9, y - r * 0.25), (x + r * 0.9, y - r * 0.25)], fill=ink, width=5)
    draw.arc(box((x, y + r * 0.15), r * 0.5, r * 0.42), 15, 165, fill=ink, width=5)


@functools.cache
def _folds(index: int) -> Image.Image:
    """Smooth light and dark of hanging cloth; index 0..15 (upright folds for even ones)."""
    tall = (9, 5) if index % 2 == 0 else (6, 9)
    tones = np.random.default_rng(index).uniform(196, 290, size=(tall[1], tall[0])).clip(0, 255)
    small = Image.fromarray(tones.astype(np.uint8))
    soft = small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return Image.merge("RGB", (soft, soft, soft))


def crease(rng: Random, cloth: Image.Image) -> Image.Image:
    """Shade a cloth with the soft folds of a hanging fabric."""
    return ImageChops.multiply(cloth, _folds(rng.randrange(16)))
