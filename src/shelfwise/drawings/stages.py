"""The studio of the rendered catalogue: backdrop, model or hanger, camera, light and things in the way.

Knows nothing of garments. Legend: scene units are shoulder widths from the pit of the neck, y downwards;
`Scene.at` turns them into pixels of the WIDTH x HEIGHT canvas.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from shelfwise.drawings.fabrics import HEIGHT, OTHER, SKIN, WIDTH, Colour, Point, box, darker, lighter, mix
from shelfwise.drawings.regions import Regions

STAGES: dict[str, dict[str, float]] = {  # how each category is photographed
    "Men Tshirts": {"model": 4, "mannequin": 2, "hanger": 2, "flat": 2},
    "Sarees": {"model": 8, "mannequin": 3},
    "Kurtis": {"model": 6, "mannequin": 3, "hanger": 1},
    "Women Tshirts": {"model": 4, "mannequin": 2, "hanger": 2, "flat": 2},
    "Women Tops & Tunics": {"model": 5, "mannequin": 2, "hanger": 2, "flat": 1},
}
OCCASION = ("occasion", "ocassion")  # the attribute, as one category or another spells it
UNITS = {"Kurtis": (154.0, 130.0), "Sarees": (150.0, 128.0)}  # pixels a unit, height of the pit of the neck
WALLS: tuple[Colour, ...] = (
    (248, 247, 244), (236, 240, 244), (246, 236, 226), (226, 238, 230), (246, 230, 234), (218, 226, 238),
)  # fmt: skip
HAIR: tuple[Colour, ...] = ((30, 24, 24), (52, 36, 30), (84, 54, 36))
TROUSERS: tuple[Colour, ...] = ((62, 84, 122), (40, 44, 56), (150, 140, 124), (28, 28, 32), (98, 116, 148))
WOOD: tuple[Colour, ...] = ((206, 174, 136), (176, 138, 100), (222, 206, 184), (150, 116, 88))


@dataclass(frozen=True)
class Scene:
    """One photograph in the making: the canvas, its coordinates, what shows which attribute, all cloth sewn so far."""

    image: Image.Image
    regions: Regions
    rng: Random
    stage: str
    unit: float
    origin: Point
    tilt: float
    arms: float
    skin: Colour
    mask: Image.Image = field(default_factory=lambda: Image.new("L", (WIDTH, HEIGHT)))

    @staticmethod
    def set_up(category: str, rng: Random, image: Image.Image, regions: Regions) -> "Scene":
        """Choose stage, pose and camera for a product of a category in front of a backdrop."""
        kinds = STAGES[category]
        stage = rng.choices(list(kinds), list(kinds.values()))[0]
        unit, top = UNITS.get(category, (198.0, 168.0))
        if stage in ("flat", "hanger") and category not in UNITS:
            unit, top = unit * 1.13, top + 16
        spread = (15, 25) if stage in ("flat", "hanger") else (10, 21)
        return Scene(
            image=image,
            regions=regions,
            rng=rng,
            stage=stage,
            unit=unit * rng.uniform(0.92, 1.07),
            origin=(WIDTH / 2 + rng.gauss(0, 11), top + rng.gauss(0, 9)),
            tilt=math.radians(rng.gauss(0, 3.5 if stage == "flat" else 1.2)),
            arms=math.radians(rng.uniform(*spread)),
            skin=rng.choice(SKIN)
            if stage == "model"
            else rng.choice(((226, 210, 190), (238, 236, 232), (92, 92, 98))),
        )

    def at(self, points: Sequence[Point]) -> list[Point]:
        """Turn scene units into pixels."""
        cos, sin = math.cos(self.tilt) * self.unit, math.sin(self.tilt) * self.unit
        (left, top) = self.origin
        return [(left + x * cos - y * sin, top + x * sin + y * cos) for x, y in points]

    def sew(self, outline: Sequence[Point], cloth: Image.Image, opacity: float = 1.0) -> None:
        """Paste the cloth inside an outline, with a seam around it and, off the body, a shadow below it."""
        points = self.at(outline)
        self.regions.polygon(points)
        draw = ImageDraw.Draw(self.image, "RGBA")
        if self.stage in ("flat", "hanger"):
            draw.polygon([(x + 7, y + 9) for x, y in points], fill=(20, 16, 24, 60))
        left, top = (
            max(0, math.floor(min(x for x, _ in points))),
            max(0, math.floor(min(y for _, y in points))),
        )
        right, bottom = (
            min(WIDTH, math.ceil(max(x for x, _ in points))),
            min(HEIGHT, math.ceil(max(y for _, y in points))),
        )
        if left >= right or top >= bottom:
            return
        part = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(part).polygon([(x - left, y - top) for x, y in points], fill=round(255 * opacity))
        self.image.paste(cloth.crop((left, top, right, bottom)), (left, top), part)
        ImageDraw.Draw(self.mask).polygon(points, fill=255)
        draw.line([*points, points[0]], fill=(20, 14, 22, 120), width=2, joint="curve")

    def shape(self, outline: Sequence[Point], fill: Colour, edge: Colour | None = None) -> None:
        """Fill an outline with one colour."""
        points = self.at(outline)
        self.regions.polygon(points)
        draw = ImageDraw.Draw(self.image)
        draw.polygon(points, fill=fill)
        if edge is not None:
            draw.line([*points, points[0]], fill=edge, width=2, joint="curve")

    def lines(self, points: Sequence[Point], colour: Colour, width: int) -> None:
        """Draw a line through points; `width` in pixels."""
        pixels = self.at(points)
        self.regions.line(pixels, width)
        ImageDraw.Draw(self.image).line(pixels, fill=colour, width=width, joint="curve")

    def limb(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """Draw a rounded limb through points; `width` in units."""
        pixels, half = self.at(points), width * self.unit / 2
        draw = ImageDraw.Draw(self.image)
        draw.line(pixels, fill=colour, width=round(half * 2), joint="curve")
        self.regions.line(pixels, round(half * 2))
        for end in (pixels[0], pixels[-1]):
            draw.ellipse(box(end, half), fill=colour)
            self.regions.oval(end, half, half)

    def oval(
        self, centre: Point, half: float, height: float, fill: Colour, edge: Colour | None = None
    ) -> None:
        """Fill an upright oval; half-width and half-height in units."""
        spot = self.at([centre])[0]
        self.regions.oval(spot, half * self.unit, height * self.unit)
        ImageDraw.Draw(self.image).ellipse(
            box(spot, half * self.unit, height * self.unit), fill=fill, outline=edge
        )

    def mesh(self, area: Sequence[Point], colour: Colour) -> None:
        """Lay a net over an area: fine crossing diagonals."""
        part = Image.new("L", (WIDTH, HEIGHT))
        ImageDraw.Draw(part).polygon(self.at(area), fill=210)
        self.regions.polygon(self.at(area))
        self.image.paste(Image.new("RGB", (WIDTH, HEIGHT), colour), (0, 0), ImageChops.multiply(part, _net()))

    def finish(self) -> Image.Image:
        """Round the cloth off with darker edges; returns the picture."""
        soft = self.mask.reduce(8).filter(ImageFilter.GaussianBlur(2.2))
        round_off = soft.point([min(255, round(128 + v * 0.52)) for v in range(256)])
        light = round_off.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        area = self.mask.getbbox() or (0, 0, 1, 1)
        light = light.crop(area)
        lit = ImageChops.multiply(self.image.crop(area), Image.merge("RGB", (light, light, light)))
        self.image.paste(lit, area[:2], self.mask.crop(area))
        return self.image


@functools.cache
def _net() -> Image.Image:
    net = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(net)
    for x in range(-HEIGHT, WIDTH, 11):
        draw.line([(x, 0), (x + HEIGHT, HEIGHT)], fill=255, width=3)
        draw.line([(x + HEIGHT, 0), (x, HEIGHT)], fill=255, width=3)
    return net


def _blend_corners(colours: Sequence[Colour]) -> Image.Image:
    small = Image.fromarray(np.array(colours, dtype=np.uint8).reshape(2, 2, 3))
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def backdrop(rng: Random, occasion: str, regions: Regions) -> Image.Image:
    """Paint a backdrop: wall, room, gradient, boards or stone; lights and garlands for occasions."""
    kind = rng.choice(("plain", "gradient", "gradient", "wood", "room", "room", "stone"))
    wall = rng.choice(WALLS)
    corners = [mix(wall, (255, 255, 255), rng.uniform(-0.05, 0.4)) for _ in range(4)]
    if kind == "gradient":
        corners[2:] = [darker(c, rng.uniform(0.08, 0.25)) for c in corners[2:]]
    image = _blend_corners([wall] * 4 if kind == "plain" else corners)
    draw = ImageDraw.Draw(image, "RGBA")
    if kind == "wood":
        tone, board = rng.choice(WOOD), rng.choice((64, 80, 96))
        for x in range(-rng.randrange(board), WIDTH, board):
            draw.rectangle(
                (x, 0, x + board - 3, HEIGHT), fill=mix(tone, (255, 255, 255), rng.uniform(0.0, 0.18))
            )
            draw.rectangle((x + board - 3, 0, x + board, HEIGHT), fill=darker(tone, 0.35))
            for _ in range(4):
                grain = x + rng.randrange(board)
                draw.line(
                    [(grain, 0), (grain + rng.randrange(-6, 7), HEIGHT)],
                    fill=(*darker(tone, 0.25), 90),
                    width=2,
                )
    elif kind == "room":
        floor = rng.choice(WOOD) if rng.random() < 0.5 else darker(wall, 0.12)
        draw.rectangle((0, HEIGHT * 0.8, WIDTH, HEIGHT), fill=floor)
        draw.rectangle((0, HEIGHT * 0.785, WIDTH, HEIGHT * 0.8), fill=lighter(wall, 0.7))
    elif kind == "stone":
        for _ in range(40):
            spot = (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT))
            draw.ellipse(box(spot, rng.uniform(20, 90), rng.uniform(6, 30)), fill=(*darker(wall, 0.3), 18))
    with regions.showing(*OCCASION):
        if occasion == "party":
            for _ in range(26):
                spot, warm = (
                    (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT * 0.8)),
                    rng.choice(((255, 214, 130), (255, 170, 190))),
                )
                half = rng.uniform(10, 34)
                draw.ellipse(box(spot, half), fill=(*warm, 85))
                regions.oval(spot, half, half)
        elif occasion == "wedding":
            _garlands(draw, rng, regions)
        elif occasion == "traditional":
            _arch(draw, rng, regions)
    return image


def _garlands(draw: ImageDraw.ImageDraw, rng: Random, regions: Regions) -> None:
    for x in range(10, WIDTH, 46):
        for k in range(rng.randrange(4, 11) + round(abs(x - WIDTH / 2) / 28)):
            tint = ((246, 150, 30), (252, 196, 50))[k % 2]
            draw.ellipse(box((x, 8 + 19 * k), 11), fill=tint, outline=darker(tint, 0.2))
            regions.oval((x, 8 + 19 * k), 11, 11)


def _arch(draw: ImageDraw.ImageDraw, rng: Random, regions: Regions) -> None:
    tint = rng.choice(((206, 150, 96), (188, 112, 84), (150, 150, 116)))
    draw.rounded_rectangle((34, 26, WIDTH - 34, HEIGHT + 200), 200, outline=(*tint, 230), width=15)
    draw.rounded_rectangle((62, 56, WIDTH - 62, HEIGHT + 200), 180, outline=(*tint, 170), width=5)
    regions.frame((34, 26, WIDTH - 34, HEIGHT + 200), 200, 15)
    regions.frame((62, 56, WIDTH - 62, HEIGHT + 200), 180, 5)


def person(scene: Scene, category: str) -> None:
    """Put a faceless model, a mannequin or a hanger where the garment will go; nothing for a flat lay."""
    if scene.stage == "hanger":
        scene.lines(
            [(0.0, -0.14), (0.0, -0.24), (0.05, -0.3), (0.0, -0.36), (-0.05, -0.31)], (120, 120, 124), 5
        )
        for side in (-1, 1):
            scene.lines([(0.0, -0.14), (side * 0.42, 0.13)], (158, 116, 78), 13)
    elif scene.stage == "mannequin":
        _mannequin(scene)
    elif scene.stage == "model":
        _model(scene, category)


def _torso(scene: Scene, hips: float) -> None:
    half = [(-0.15, -0.06), (-0.47, 0.09), (-0.4, 0.45), (-0.31, 0.85), (-0.38, hips)]
    scene.shape([*half, *((-x, y) for x, y in reversed(half))], scene.skin, darker(scene.skin, 0.25))
    scene.shape([(-0.11, -0.3), (0.11, -0.3), (0.15, 0.0), (-0.15, 0.0)], darker(scene.skin, 0.08))


def _mannequin(scene: Scene) -> None:
    scene.lines([(0.0, 1.1), (0.0, 3.4)], (104, 100, 98), 12)
    _torso(scene, 1.3)
    scene.oval((0.0, -0.3), 0.11, 0.04, darker(scene.skin, 0.2), darker(scene.skin, 0.4))


def _model(scene: Scene, category: str) -> None:
    rng, hair = scene.rng, scene.rng.choice(HAIR)
    women = category != "Men Tshirts"
    if women:
        long = rng.random() < 0.6
        scene.oval((0.0, -0.44 + 0.16 * long), 0.25, 0.28 + 0.2 * long, hair)
    for side in (-1, 1):
        swing = (side * (0.43 + math.sin(scene.arms) * 0.72), 0.12 + math.cos(scene.arms) * 0.72)
        hand = (swing[0] + side * rng.uniform(-0.1, 0.12), swing[1] + 0.55)
        scene.limb([(side * 0.41, 0.15), swing, hand], darker(scene.skin, 0.04), 0.13)
    _torso(scene, 1.25)
    trousers = rng.choice(TROUSERS if category != "Sarees" else OTHER)
    for side in (-1, 1):
        leg = [(0.0, 1.01), (side * 0.37, 0.98), (side * 0.43, 1.35), (side * 0.3, 2.85), (side * 0.08, 2.85)]
        scene.shape(leg, trousers, darker(trousers, 0.3))
        scene.oval((side * 0.2, 2.92), 0.1, 0.09, scene.skin)
    scene.oval((0.0, -0.42), 0.175, 0.225, scene.skin, darker(scene.skin, 0.2))
    cap = [(0.185 * math.cos(t), -0.46 - 0.2 * math.sin(t)) for t in (math.pi * k / 8 for k in range(9))]
    scene.shape([*cap, (-0.1, -0.53), (0.05, -0.56)], hair)


def sparkle(scene: Scene) -> None:
    """Scatter sequins over the cloth."""
    rng, dots = scene.rng, Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(dots)
    for _ in range(240):
        spot = (rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT))
        draw.ellipse(box(spot, rng.choice((1.5, 2.0, 3.0))), fill=235)
    scene.image.paste((255, 240, 190), (0, 0, WIDTH, HEIGHT), ImageChops.multiply(dots, scene.mask))
    scene.regions.cloth(OCCASION, scene.mask)


def hide(image: Image.Image, rng: Random) -> None:
    """Now and then put something in the way: a price tag, a shop ribbon, a hand."""
    draw, chance = ImageDraw.Draw(image, "RGBA"), rng.random()
    if chance < 0.06:
        x, y = rng.uniform(0.2, 0.7) * WIDTH, rng.uniform(0.3, 0.7) * HEIGHT
        draw.line([(x + 20, y), (x + 34, y - 50)], fill=(90, 80, 70), width=3)
        draw.rounded_rectangle(
            (x, y, x + 66, y + 96), 9, fill=(250, 248, 240), outline=(160, 150, 140), width=2
        )
        for k in range(3):
            draw.line(
                [(x + 12, y + 36 + 16 * k), (x + 54 - 9 * k, y + 36 + 16 * k)], fill=(110, 100, 100), width=4
            )
    elif chance < 0.1:
        y = rng.choice((0, HEIGHT - 58))
        draw.rectangle(
            (0, y, WIDTH, y + 58), fill=(*rng.choice(((210, 40, 60), (30, 60, 120), (250, 200, 40))), 225)
        )
        draw.line([(60, y + 29), (WIDTH - 120, y + 29)], fill=(255, 255, 255, 220), width=9)
    elif chance < 0.14:
        x, y = rng.uniform(0.25, 0.75) * WIDTH, rng.uniform(0.45, 0.8) * HEIGHT
        side, skin = rng.choice((-1, 1)), rng.choice(SKIN)
        draw.line([(x, y + 24), (x - side * 280, y + 120)], fill=skin, width=48)
        draw.ellipse(box((x, y + 24), 31), fill=skin)
        for k in range(4):
            tip = (x + side * (62 - abs(k - 1) * 8), y + 15 * k)
            draw.line([(x, y + 16 * k), tip], fill=darker(skin, 0.05 * (k % 2)), width=15)
            draw.ellipse(box(tip, 7.5), fill=darker(skin, 0.05 * (k % 2)))
