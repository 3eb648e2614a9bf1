"""Sarees of the rendered catalogue: skirt, blouse, drape and pallu, with their borders and weaves.

Knows nothing of ids, files or labels. Legend: scene units, as in `stages`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL import Image

from shelfwise.drawings import fabrics
from shelfwise.drawings.fabrics import GOLD, HEIGHT, WIDTH, Colour, Dye, Point, darker, lighter, luma, mix
from shelfwise.drawings.stages import Scene, person

CLOTH = ("color", "pattern", "print_or_pattern_type")
BORDER = ("border", "border_width")
WIDTHS = {"small border": 0.075, "big border": 0.2, "no border": 0.0}


def _inks(values: Mapping[str, str], dye: Dye) -> fabrics.Inks:
    """Return the thread colours that tell the weaves apart: gold, tone on tone, bright or pale."""
    light = luma(dye.base) > 120
    tone = darker(dye.base, 0.28) if light else lighter(dye.base, 0.32)
    return {
        "zari woven": (darker(GOLD, 0.12) if light else GOLD, mix(GOLD, dye.accent, 0.55)),
        "woven design": (tone, mix(tone, dye.base, 0.4)),
        "printed": (dye.accent, dye.ink),
        "default": (
            lighter(dye.base, 0.6) if not light else mix(dye.ink, dye.base, 0.55),
            lighter(dye.accent, 0.4),
        ),
    }.get(values["pattern"], (tone, tone))


def _cloth(scene: Scene, values: Mapping[str, str], dye: Dye) -> Image.Image:
    """Weave the cloth of the saree's body."""
    cloth = Image.new("RGB", (WIDTH, HEIGHT), dye.base)
    if dye.blocks:
        fabrics.blocks(cloth, scene.rng, dye.blocks, 150, HEIGHT)
    motif, inks = values["print_or_pattern_type"], _inks(values, dye)
    if motif == "checked":
        fabrics.checks(cloth, scene.rng, inks[0], scene.rng.choice((30, 40)))
    elif motif == "default":
        fabrics.allover(cloth, scene.rng, "dots", inks, 22)
    elif motif in fabrics.MOTIFS:
        fabrics.allover(
            cloth, scene.rng, motif, inks, {"elephant": 50, "peacock": 52, "applique": 50}.get(motif, 36)
        )
    if values["ornamentation"] == "jacquard":
        fabrics.lattice(cloth, darker(dye.base, 0.3) if luma(dye.base) > 90 else lighter(dye.base, 0.3))
    return fabrics.crease(scene.rng, cloth)


def band(scene: Scene, ends: tuple[Point, Point], width: float, kind: str, dye: Dye) -> None:
    """Weave a border along a line; it lies to the right of the way from the first end to the second."""
    if width <= 0 or kind == "no border":
        scene.regions.place(BORDER, scene.at(ends), round(scene.unit * WIDTHS["small border"]))
        return
    with scene.regions.showing(*BORDER):
        _weave(scene, ends, width, kind, dye)


def _weave(scene: Scene, ends: tuple[Point, Point], width: float, kind: str, dye: Dye) -> None:
    (ax, ay), (bx, by) = ends
    length = math.hypot(bx - ax, by - ay)
    along = ((bx - ax) / length, (by - ay) / length)
    inward = (-along[1], along[0])

    def spot(t: float, depth: float) -> Point:
        return (ax + along[0] * t + inward[0] * depth * width, ay + along[1] * t + inward[1] * depth * width)

    def strip(top: float, bottom: float, colour: Colour) -> None:
        scene.shape([spot(0, top), spot(length, top), spot(length, bottom), spot(0, bottom)], colour)

    step = max(width * 0.75, 0.085)
    marks = [step * (k + 0.5) for k in range(max(1, int(length / step)))]
    tone = lighter(dye.accent, 0.4) if luma(dye.accent) < 130 else darker(dye.accent, 0.4)
    if kind == "zari":
        strip(0, 1, GOLD)
        strip(0.86, 1, darker(GOLD, 0.45))
        strip(0, 0.1, darker(GOLD, 0.35))
        for t in marks:
            scene.shape(
                [spot(t - step * 0.3, 0.48), spot(t, 0.2), spot(t + step * 0.3, 0.48), spot(t, 0.76)],
                darker(GOLD, 0.5),
            )
    elif kind == "woven design":
        strip(0, 1, dye.accent)
        for t in marks:
            scene.lines([spot(t - step * 0.4, 0.2), spot(t, 0.8), spot(t + step * 0.4, 0.2)], tone, 3)
        strip(0.9, 1, tone)
    elif kind == "temple border":
        strip(0, 0.45, dye.accent)
        for t in marks:
            scene.shape([spot(t - step * 0.5, 0.42), spot(t + step * 0.5, 0.42), spot(t, 1.35)], dye.accent)
        strip(0.12, 0.24, GOLD)
    elif kind == "solid":
        strip(0, 1, dye.accent)
    else:  # default: white lace scallops
        strip(0, 0.6, (250, 247, 240))
        for t in marks:
            scene.oval(spot(t, 0.62), step * 0.42, step * 0.36, (250, 247, 240), (196, 186, 176))


def _blouse(scene: Scene, values: Mapping[str, str], dye: Dye, cloth: Image.Image) -> None:
    """Sew the blouse: cut from the saree, from its border, plain, or of another dotted cloth."""
    kind = values["blouse_pattern"]
    own = Image.new("RGB", (WIDTH, HEIGHT), dye.accent)
    if kind == "same as saree":
        own = cloth
    elif kind == "same as border":
        own = Image.new("RGB", (WIDTH, HEIGHT), GOLD if values["border"] == "zari" else dye.accent)
        fabrics.allover(own, scene.rng, "ethnic motif", (darker(GOLD, 0.5), GOLD), 20)
    elif kind == "default":
        fabrics.allover(own, scene.rng, "dots", (lighter(dye.accent, 0.85), dye.ink), 18)
    own = fabrics.crease(scene.rng, own)
    cut = CLOTH if kind == "same as saree" else ()
    with scene.regions.showing("blouse_pattern", *cut):
        _sew_blouse(scene, own)


def _sew_blouse(scene: Scene, own: Image.Image) -> None:
    for side in (-1, 1):
        reach = (side * (0.43 + math.sin(scene.arms) * 0.5), 0.12 + math.cos(scene.arms) * 0.5)
        inner = (reach[0] - side * 0.24, reach[1] - 0.02)
        scene.sew([(side * 0.38, 0.06), (side * 0.52, 0.14), reach, inner, (side * 0.34, 0.42)], own)
    half = [(-0.24, 0.05), (-0.46, 0.09), (-0.41, 0.45), (-0.36, 0.68)]
    neck = [(0.2, 0.22), (0.0, 0.3), (-0.2, 0.22)]
    scene.sew([*half, *((-x, y) for x, y in reversed(half)), *neck], own)


def _pallu(scene: Scene, values: Mapping[str, str], dye: Dye, cloth: Image.Image, opacity: float) -> None:
    """Hang the pallu from the shoulder: the show end of a saree, with its own weave, borders and tassels."""
    width = WIDTHS[values["border_width"]]
    end = 2.05 * scene.rng.uniform(0.94, 1.06)
    panel = [(0.2, -0.03), (0.5, 0.03), (0.62, 0.5), (0.86, end), (0.4, end + 0.03), (0.3, 0.7)]
    with scene.regions.showing(*_shown_by_cloth(values), "transparency"):
        scene.sew(panel, cloth, opacity)
    top = end - 0.62
    show = [(0.36, top), (0.77, top), (0.86, end), (0.4, end + 0.03)]
    detail = values["pallu_details"]
    scene.regions.place(("pallu_details",), scene.at(show))
    if detail != "same as saree":
        own = Image.new(
            "RGB", (WIDTH, HEIGHT), {"zari woven": GOLD, "woven design": dye.accent}.get(detail, dye.ink)
        )
        if detail == "zari woven":
            fabrics.stripes(own, scene.rng, darker(GOLD, 0.45), False, 15)
        elif detail == "woven design":
            tone = lighter(dye.accent, 0.45) if luma(dye.accent) < 140 else darker(dye.accent, 0.4)
            fabrics.allover(own, scene.rng, "ethnic motif", (tone, dye.accent), 26)
        else:
            fabrics.stripes(own, scene.rng, lighter(dye.base, 0.5), True, 14)
        with scene.regions.showing("pallu_details"):
            scene.sew(show, fabrics.crease(scene.rng, own), opacity)
    band(scene, ((0.86, end), (0.4, end + 0.03)), width, values["border"], dye)
    band(scene, ((0.4, end + 0.03), (0.3, 0.7)), width * 0.6, values["border"], dye)
    if values["ornamentation"] == "tassels and latkans":
        with scene.regions.showing("ornamentation"):
            for k in range(9):
                x = 0.42 + 0.052 * k
                scene.lines([(x, end + 0.02), (x, end + 0.16)], dye.accent, 4)
                scene.oval((x, end + 0.18), 0.026, 0.034, GOLD, darker(GOLD, 0.4))
        tassels = [(0.4, end), (0.88, end), (0.88, end + 0.22), (0.4, end + 0.22)]
        scene.regions.place(("ornamentation",), scene.at(tassels))


def _jewels(scene: Scene, occasion: str) -> None:
    """Dress the model for the occasion: nothing, a fine chain, flowers in the hair, a full set."""
    if scene.stage != "model":
        return
    if occasion == "wedding":
        for depth in (0.12, 0.2, 0.27):
            scene.lines(
                [(-0.16, -0.02), (-0.1, depth * 0.8), (0.0, depth), (0.1, depth * 0.8), (0.16, -0.02)],
                GOLD,
                5,
            )
        scene.oval((0.0, -0.56), 0.035, 0.05, GOLD, darker(GOLD))
    elif occasion == "traditional":
        for k in range(7):
            scene.oval(
                (-0.2 + 0.035 * k, -0.66 + 0.02 * abs(k - 3)), 0.045, 0.045, (252, 250, 240), (206, 200, 180)
            )
        scene.oval((0.0, -0.5), 0.018, 0.018, (190, 20, 40))
    elif occasion == "party":
        scene.lines([(-0.15, -0.02), (0.0, 0.12), (0.15, -0.02)], lighter(GOLD, 0.4), 3)
    if occasion != "daily":
        for side in (-1, 1):
            scene.oval((side * 0.185, -0.33), 0.03, 0.06, GOLD, darker(GOLD, 0.4))


def _skirt(scene: Scene, values: Mapping[str, str], dye: Dye, cloth: Image.Image) -> None:
    """Wrap the skirt from waist to floor, with front pleats and the hem border."""
    skirt: Sequence[Point] = [(-0.3, 0.9), (0.3, 0.9), (0.44, 1.3), (0.56, 3.12), (-0.56, 3.12), (-0.44, 1.3)]
    with scene.regions.showing(*_shown_by_cloth(values)):
        scene.sew(skirt, cloth)
        for k in range(7):
            x = -0.16 + 0.05 * k
            scene.lines([(x, 0.98), (x * 2.3, 3.1)], darker(dye.base, 0.3), 2)
    band(scene, ((0.56, 3.12), (-0.56, 3.12)), WIDTHS[values["border_width"]], values["border"], dye)


def _shown_by_cloth(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the attributes that the saree's body shows."""
    return (*CLOTH, "ornamentation") if values["ornamentation"] == "jacquard" else CLOTH


def drape(scene: Scene, values: Mapping[str, str]) -> None:
    """Drape one saree on the model: skirt, blouse, the diagonal over the shoulder, the pallu."""
    rng = scene.rng
    dye = fabrics.dye(rng, values["color"])
    cloth = _cloth(scene, values, dye)
    opacity = 0.52 if values["transparency"] == "yes" else 1.0
    person(scene, "Sarees")
    with scene.regions.showing("occasion"):
        _jewels(scene, values["occasion"])
    _blouse(scene, values, dye, cloth)
    _skirt(scene, values, dye, cloth)
    across = cloth
    if dye.blocks:
        across = _cloth(scene, values, replace(dye, base=dye.blocks[1], blocks=()))
    edge = ((-0.33, 0.84), (0.16, -0.01))
    sash = [
        (-0.43, 1.25),
        edge[0],
        (-0.08, 0.42),
        edge[1],
        (0.46, 0.03),
        (0.43, 0.5),
        (0.36, 0.98),
        (0.1, 1.2),
    ]
    with scene.regions.showing(*_shown_by_cloth(values), "transparency"):
        scene.sew(sash, across, opacity)
    width = WIDTHS[values["border_width"]] * 0.75
    band(scene, (edge[0], (-0.08, 0.42)), width, values["border"], dye)
    band(scene, ((-0.08, 0.42), edge[1]), width, values["border"], dye)
    _pallu(scene, values, dye, across, opacity)
    for shift in (0.1, 0.2):
        scene.lines([(-0.3 + shift, 1.05), (0.2 + shift * 0.9, 0.06)], darker(dye.base, 0.25), 2)
