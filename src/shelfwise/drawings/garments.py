"""Garments of the rendered catalogue: T-shirts, tops and kurtis, drawn from their attribute values.

Knows nothing of ids, files or labels. Legend: garments are drawn in their own units, one unit a shoulder
width, the origin at the pit of the neck, y downwards (scene units, as in `stages`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from PIL import Image

from shelfwise.drawings import fabrics
from shelfwise.drawings.fabrics import HEIGHT, WIDTH, Colour, Dye, Point, darker, lighter, luma, mix
from shelfwise.drawings.stages import Scene

CUTS: dict[str, tuple[float, float, float, float]] = {  # half-widths: shoulder, armpit, waist, hem
    "fitted": (0.47, 0.39, 0.31, 0.38), "regular": (0.5, 0.43, 0.42, 0.44), "boxy": (0.57, 0.53, 0.54, 0.55),
    "loose": (0.54, 0.47, 0.54, 0.64), "a-line": (0.48, 0.40, 0.40, 0.86),
    "straight": (0.48, 0.41, 0.42, 0.45), "default": (0.47, 0.40, 0.31, 0.62),
}  # fmt: skip
LENGTHS = {"crop": 0.8, "regular": 1.16, "long": 1.58, "knee length": 1.95, "calf length": 2.5}
SLEEVES = {"short sleeves": 0.42, "three-quarter sleeves": 0.86, "long sleeves": 1.24, "default": 0.66}
NECK, SLEEVE = ("neck", "neck_collar"), ("sleeve_length", "sleeve_styling")
CLOTH = ("color", "pattern", "print_or_pattern_type")
WEAVES = {"zari woven": "gold", "woven design": "tone", "printed": "bright", "default": "pale"}


def neckline(kind: str) -> list[Point]:
    """Return a neckline from left to right, in units."""
    if kind == "square neck":
        return [(-0.22, 0.0), (-0.2, 0.25), (0.2, 0.25), (0.22, 0.0)]
    if kind in ("v-neck", "polo"):
        return [(-0.17, 0.0), (0.0, 0.38 if kind == "v-neck" else 0.2), (0.17, 0.0)]
    if kind == "sweetheart neck":
        lobes = [(math.sin(t) * 0.13, -math.cos(t) * 0.1) for t in (-1.5, -0.9, -0.3, 0.3, 0.9, 1.5)]
        left = [(-0.14 + x, 0.27 + y) for x, y in lobes]
        return [(-0.29, 0.02), *left, (0.0, 0.33), *[(0.14 + x, 0.27 + y) for x, y in lobes], (0.29, 0.02)]
    half, depth = {"high": (0.13, 0.02), "default": (0.36, 0.09), "stylised": (0.2, 0.1)}.get(
        kind, (0.19, 0.18)
    )
    turns = [math.pi * k / 10 for k in range(11)]
    return [(-half * math.cos(t), depth * math.sin(t)) for t in turns]


@dataclass(frozen=True)
class Garment:
    """What one upper-body garment looks like: its cut, neck, sleeves, print, surface and colours."""

    cut: tuple[float, float, float, float]
    length: float
    neck: str
    sleeve: float
    styling: str
    print_kind: str
    surface: str
    dye: Dye
    slit: bool = False

    def half_width(self, y: float) -> float:
        """Return the half-width of the body at a height, in units."""
        _, armpit, waist, hem = self.cut
        if y <= 0.85:
            return armpit + (waist - armpit) * max(0.0, (y - 0.42) / 0.43)
        share = (y - 0.85) / max(self.length - 0.85, 0.3)
        return waist + (hem - waist) * min(share, 1.0)

    def outline(self) -> list[Point]:
        """Return the outline of the body, clockwise from the left end of the neckline."""
        levels = [0.42 + (self.length - 0.42) * k / 8 for k in range(9)]
        side = [(self.cut[0], 0.075), (self.cut[0] - 0.035, 0.24), *((self.half_width(y), y) for y in levels)]
        hem = [
            (self.half_width(self.length) * x, self.length + 0.045 * (1 - x * x))
            for x in (0.6, 0.2, -0.2, -0.6)
        ]
        return [*neckline(self.neck), *side, *hem, *((-x, y) for x, y in reversed(side))]


def cloth_of(scene: Scene, garment: Garment, tile: int = 42) -> Image.Image:
    """Dye and print the cloth of a garment; `tile` is the size of an all-over motif in pixels."""
    rng, dye = scene.rng, garment.dye
    cloth = Image.new("RGB", (WIDTH, HEIGHT), dye.base)
    (_, top), (_, bottom) = scene.at([(0.0, 0.1), (0.0, garment.length)])
    if dye.blocks:
        fabrics.blocks(cloth, rng, dye.blocks, top, bottom)
    inks, kind = (dye.ink, dye.accent), garment.print_kind
    chest = scene.at([(0.0, min(0.72 if garment.neck == "polo" else 0.6, garment.length * 0.62))])[0]
    half = scene.unit * rng.uniform(0.23, 0.29)
    if kind == "typography":
        fabrics.typography(cloth, rng, chest, half * 1.15, (dye.ink, mix(dye.ink, dye.accent, 0.5)))
    elif kind == "graphic":
        fabrics.graphic(cloth, rng, chest, half, inks)
    elif kind == "quirky":
        fabrics.quirky(cloth, rng, chest, half, inks)
    elif kind == "stripes":
        fabrics.stripes(cloth, rng, dye.ink, rng.random() < 0.25, rng.choice((22, 28, 36)))
    elif kind == "checks":
        fabrics.checks(cloth, rng, dye.ink, rng.choice((34, 44, 56)))
    elif kind in fabrics.MOTIFS:
        fabrics.allover(cloth, rng, kind, inks, round(tile * rng.uniform(0.8, 1.15)))
    if garment.surface == "knitted":
        fabrics.ribs(cloth, rng)
    return fabrics.crease(rng, cloth)


def sleeves(scene: Scene, garment: Garment, cloth: Image.Image) -> None:
    """Sew on both sleeves along the arms: straight, puffed, flared or with a folded cuff."""
    if garment.sleeve <= 0:
        return
    shoulder, armpit = garment.cut[0], garment.cut[1]
    puff = {"puff sleeves": 1.0}.get(garment.styling, 0.0)
    flare = {"default": 1.0}.get(garment.styling, 0.0)
    trim = darker(garment.dye.base, 0.3) if luma(garment.dye.base) > 90 else lighter(garment.dye.base, 0.25)
    for side in (-1, 1):
        along = (side * math.sin(scene.arms), math.cos(scene.arms))
        across = (side * along[1], -side * along[0])
        start = (side * (shoulder + armpit - 0.1) / 2, 0.25)

        def edge(t: float, half: float, a: Point = along, n: Point = across, s: Point = start) -> list[Point]:
            middle = (s[0] + a[0] * garment.sleeve * t, s[1] + a[1] * garment.sleeve * t)
            return [
                (middle[0] + n[0] * half, middle[1] + n[1] * half),
                (middle[0] - n[0] * half, middle[1] - n[1] * half),
            ]

        steps = [k / 6 for k in range(7)]
        taper = 0.19 - 0.08 * min(garment.sleeve, 1.0)
        halves = []
        for t in steps:
            half = 0.19 + (taper - 0.19) * t + flare * 0.17 * t * t
            halves.append(
                half + puff * 0.15 * math.sin(math.pi * min(t * max(garment.sleeve / 0.5, 1), 1)) ** 0.7
            )
        pairs = [edge(t, half) for t, half in zip(steps, halves, strict=True)]
        top = [(side * shoulder * 0.8, 0.05), (side * (shoulder - 0.01), 0.085)]
        outline = [*top, *(p[0] for p in pairs[1:]), *(p[1] for p in reversed(pairs))]
        scene.sew(outline, cloth)
        scene.regions.place(SLEEVE, scene.at([*edge(0.85, halves[-1]), *reversed(edge(1.2, halves[-1]))]))
        if puff:
            for k in (-0.6, 0.0, 0.6):
                scene.lines(
                    [edge(0.05, 0.12 * k)[0], edge(0.32, 0.26 * k)[0]], darker(garment.dye.base, 0.25), 2
                )
        if garment.styling == "cuffed sleeves":
            cuff = [*edge(0.84, halves[-1] + 0.03), *reversed(edge(1.02, halves[-1] + 0.035))]
            scene.sew([cuff[0], cuff[1], cuff[2], cuff[3]], Image.new("RGB", (WIDTH, HEIGHT), trim))
        elif not flare:
            scene.lines(edge(0.93, halves[-1]), darker(garment.dye.base, 0.22), 2)


def collar(scene: Scene, garment: Garment) -> None:
    """Finish the neck: ribbed edge, polo collar and buttons, standing collar or keyhole."""
    dye, line = garment.dye, neckline(garment.neck)
    trim = (
        dye.accent
        if scene.rng.random() < 0.25
        else mix(dye.base, (0, 0, 0) if luma(dye.base) > 60 else (255, 255, 255), 0.2)
    )
    edge = darker(trim, 0.4)
    if garment.neck == "polo":
        scene.shape([(-0.05, 0.14), (0.05, 0.14), (0.05, 0.5), (-0.05, 0.5)], trim, edge)
        for y in (0.24, 0.35, 0.45):
            scene.oval((0.0, y), 0.018, 0.018, lighter(trim, 0.7))
        for side in (-1, 1):
            flap = [(0.0, 0.2), (side * 0.17, -0.07), (side * 0.25, 0.03), (side * 0.15, 0.25)]
            scene.shape(flap, trim, edge)
    elif garment.neck == "high":
        scene.shape(
            [(-0.17, 0.04), (-0.12, -0.14), (0.0, -0.12), (0.12, -0.14), (0.17, 0.04), (0.0, 0.1)], trim, edge
        )
        scene.lines([(-0.125, -0.09), (0.0, -0.07), (0.125, -0.09)], edge, 2)
    else:
        scene.lines(line, edge, 8)
        scene.lines(line, trim, 5)
    if garment.neck == "stylised":
        drop = [(0.0, 0.15), (0.075, 0.33), (0.05, 0.4), (0.0, 0.42), (-0.05, 0.4), (-0.075, 0.33)]
        scene.shape(drop, scene.skin if scene.stage == "model" else darker(dye.base, 0.5), edge)
        scene.oval((0.0, 0.135), 0.025, 0.025, lighter(trim, 0.6))


def bow(scene: Scene, at: Point, colour: Colour, size: float) -> None:
    """Tie a bow with two hanging strings."""
    x, y = at
    for side in (-1, 1):
        scene.lines([at, (x + side * size * 0.7, y + size * 2.4)], darker(colour, 0.35), 5)
        scene.lines([at, (x + side * size * 0.7, y + size * 2.4)], colour, 3)
        loop = [at, (x + side * size * 1.2, y - size * 0.6), (x + side * size * 1.35, y + size * 0.5)]
        scene.shape(loop, colour, darker(colour, 0.45))
    scene.oval(at, size * 0.24, size * 0.24, darker(colour, 0.2))


def surface(scene: Scene, garment: Garment) -> None:
    """Add what lies on the cloth: ruffles, bows, patches, net."""
    dye, hem = garment.dye, garment.length
    trim = darker(dye.base, 0.22) if luma(dye.base) > 70 else lighter(dye.base, 0.3)
    if garment.surface == "ruffles":
        for y in (hem - 0.02, hem - 0.2, 0.36):
            half = garment.half_width(y) - (0.06 if y < 0.5 else 0.0)
            for k in range(9):
                x = -half + 2 * half * (k + 0.5) / 9
                scene.oval((x, y), half / 7, 0.085, mix(dye.base, trim, 0.45), darker(trim, 0.3))
    elif garment.surface == "tie-ups":
        bow(scene, (0.0, neckline(garment.neck)[len(neckline(garment.neck)) // 2][1] + 0.03), trim, 0.15)
    elif garment.surface == "waist tie-ups":
        y = min(0.88, hem - 0.12)
        half = garment.half_width(y)
        scene.shape(
            [(-half, y - 0.05), (half, y - 0.05), (half, y + 0.05), (-half, y + 0.05)],
            trim,
            darker(trim, 0.4),
        )
        bow(scene, (half * 0.45, y), trim, 0.17)
    elif garment.surface == "applique":
        size = round(scene.unit * 0.3)
        tile = fabrics.stamp("applique", size, (dye.accent, dye.ink))
        for spot in scene.at([(-0.25, 0.32), (0.23, 0.42), (-0.2, min(hem - 0.2, 0.8))]):
            scene.image.paste(tile, (round(spot[0] - size / 2), round(spot[1] - size / 2)), tile)
            scene.regions.oval(spot, size / 2, size / 2)
    elif garment.surface == "net":
        low = hem - 0.42
        upper, lower = garment.half_width(low), garment.half_width(hem)
        mesh = [(-upper, low), (upper, low), (lower, hem), (-lower, hem)]
        for area in (mesh, [(-0.3, 0.22), (0.3, 0.22), (0.26, 0.46), (-0.26, 0.46)]):
            scene.mesh(area, lighter(dye.base, 0.55) if luma(dye.base) < 170 else darker(dye.base, 0.35))


def wear(scene: Scene, garment: Garment) -> None:
    """Draw one upper-body garment: back of the neck, sleeves, body, seams, neck, surface."""
    cloth = cloth_of(scene, garment)
    line, edge = neckline(garment.neck), darker(garment.dye.base, 0.45)
    knit = ("surface_styling",) if garment.surface == "knitted" else ()
    if scene.stage != "model" and garment.neck != "high":
        back = [(x, -0.02 + y * 0.12) for x, y in line]
        with scene.regions.showing(*NECK):
            scene.shape([*back, *reversed(line)], darker(garment.dye.base, 0.5), edge)
    with scene.regions.showing(*SLEEVE, *CLOTH, *knit):
        sleeves(scene, garment, cloth)
    with scene.regions.showing(*CLOTH, *knit, "fit_shape"):
        scene.sew(garment.outline(), cloth)
        _seams(scene, garment, edge)
    with scene.regions.showing("surface_styling", "ornamentation"):
        surface(scene, garment)
    with scene.regions.showing(*NECK):
        collar(scene, garment)
    _places(scene, garment)


def _seams(scene: Scene, garment: Garment, edge: Colour) -> None:
    """Draw hem, armholes and slits."""
    hem = [
        (garment.half_width(garment.length) * x, garment.length - 0.035 + 0.04 * (1 - x * x))
        for x in (-1, 0, 1)
    ]
    scene.lines(hem, darker(garment.dye.base, 0.2), 2)
    if garment.sleeve <= 0:
        for side in (-1, 1):
            armhole = [
                (side * garment.cut[0], 0.08),
                (side * (garment.cut[0] - 0.035), 0.24),
                (side * garment.cut[1], 0.42),
            ]
            scene.lines(armhole, edge, 6)
    if garment.slit:
        for side in (-1, 1):
            x = side * garment.half_width(garment.length) * 0.96
            scene.lines([(x, garment.length * 0.62), (x, garment.length)], darker(garment.dye.base, 0.6), 4)


def _places(scene: Scene, garment: Garment) -> None:
    """Mark where what is not painted by itself is seen: the neckline, the hem, the sides, an arm without a sleeve."""
    at, place = scene.at, scene.regions.place
    place(NECK, at(neckline(garment.neck)), round(scene.unit * 0.16))
    hem, half = garment.length, garment.half_width(garment.length) + 0.1
    ends = [(-half, hem - 0.3), (half, hem - 0.3), (half, hem + 0.3), (-half, hem + 0.3)]
    place(("length",), at(ends))
    for side in (-1, 1):
        widths = [
            (garment.half_width(0.42 + (hem - 0.42) * k / 4), 0.42 + (hem - 0.42) * k / 4) for k in range(5)
        ]
        inner, outer = [(side * (x - 0.1), y) for x, y in widths], [(side * (x + 0.1), y) for x, y in widths]
        place(("fit_shape",), at([*inner, *reversed(outer)]))
        if garment.sleeve <= 0:
            along = (side * math.sin(scene.arms) * 0.66, math.cos(scene.arms) * 0.66)
            top, under = (side * garment.cut[0], 0.08), (side * garment.cut[1], 0.42)
            arm = [
                top,
                under,
                (under[0] + along[0], under[1] + along[1]),
                (top[0] + along[0], top[1] + along[1]),
            ]
            place(SLEEVE, at(arm), round(scene.unit * 0.08))


def garment_of(category: str, values: Mapping[str, str], rng: Random) -> Garment:
    """Turn the attribute values of a product into the measures of a garment, each with its own tolerance."""
    fit = values.get("fit_shape", "regular")
    cut = CUTS[fit]
    wide = rng.uniform(0.96, 1.05)
    printed = values["print_or_pattern_type"]
    if (
        printed == "default"
    ):  # a print without a name of its own: weaves and dots, or the all-over prints of kurtis
        named = ("floral", "botanical", "ethnic motif", "dots")
        printed = rng.choice(named if category == "Kurtis" else ("stripes", "checks", "dots"))
        if values["pattern"] == "default" and category != "Kurtis":
            printed = "checks" if category == "Women Tops & Tunics" else "stripes"
    surface_kind = values.get("surface_styling", "default")
    if values.get("ornamentation") == "net":
        surface_kind = "net"
    neck = values.get("neck_collar") or values.get("neck") or rng.choice(("round", "round", "v-neck"))
    return Garment(
        cut=(cut[0] * wide, cut[1] * wide, cut[2] * wide, cut[3] * wide * rng.uniform(0.96, 1.04)),
        length=LENGTHS[values.get("length", "regular")] * rng.uniform(0.95, 1.05),
        neck=neck,
        sleeve=SLEEVES.get(values["sleeve_length"], 0.0) * rng.uniform(0.93, 1.07),
        styling=values.get("sleeve_styling", "regular"),
        print_kind=printed,
        surface=surface_kind,
        dye=fabrics.dye(rng, values["color"]),
        slit=fit == "straight",
    )
