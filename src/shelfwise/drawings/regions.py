"""Regions: which pixels of a drawing show which attributes; a second canvas that every shape is painted on too.

Knows nothing of garments, and nothing here changes a pixel of the picture. Legend: points and widths are pixels of
the WIDTH x HEIGHT canvas.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from PIL import Image, ImageChops, ImageDraw

from shelfwise.drawings.fabrics import HEIGHT, WIDTH, Point, box


@dataclass(eq=False)
class Regions:
    """What has been painted so far, and for which attributes.

    What is painted later covers what was painted before, here as in the picture. A place is a part of the picture
    where an attribute would be seen although nothing is painted for it: the arm of a sleeveless garment.
    """

    _canvas: Image.Image = field(default_factory=lambda: Image.new("L", (WIDTH, HEIGHT)))
    _names: list[tuple[str, ...]] = field(default_factory=lambda: [()])
    _now: int = 0
    _places: list[tuple[tuple[str, ...], Sequence[Point], int]] = field(default_factory=list)
    _cloths: list[tuple[tuple[str, ...], Image.Image]] = field(default_factory=list)
    _states: tuple[Image.Image, Image.Image] | None = None

    @contextmanager
    def showing(self, *names: str) -> Iterator[None]:
        """What is painted inside shows these attributes, and no others."""
        before = self._now
        if names not in self._names:
            self._names.append(names)
        self._now = self._names.index(names)
        try:
            yield
        finally:
            self._now = before

    def polygon(self, points: Sequence[Point]) -> None:
        """Paint a polygon."""
        ImageDraw.Draw(self._canvas).polygon(points, fill=self._now)

    def line(self, points: Sequence[Point], width: int) -> None:
        """Paint a line."""
        ImageDraw.Draw(self._canvas).line(points, fill=self._now, width=width, joint="curve")

    def oval(self, centre: Point, half: float, height: float) -> None:
        """Paint an oval of a half-width and a half-height."""
        ImageDraw.Draw(self._canvas).ellipse(box(centre, half, height), fill=self._now)

    def frame(self, corners: tuple[float, float, float, float], radius: int, width: int) -> None:
        """Paint the outline of a rounded rectangle."""
        ImageDraw.Draw(self._canvas).rounded_rectangle(corners, radius, outline=self._now, width=width)

    def place(self, names: Sequence[str], points: Sequence[Point], width: int = 0) -> None:
        """Add the inside of a polygon and a band around it to the regions of attributes."""
        self._places.append((tuple(names), tuple(points), width))

    def cloth(self, names: Sequence[str], mask: Image.Image) -> None:
        """Add a mask to the regions of attributes."""
        self._cloths.append((tuple(names), mask.copy()))

    def hide(self, before: Image.Image, after: Image.Image) -> None:
        """Take out what differs between two states of the picture: things in the way."""
        self._states = before, after

    def masks(self) -> dict[str, Image.Image]:
        """Return a mask by attribute, 255 inside its region; of those that are to be seen anywhere."""
        found: dict[str, Image.Image] = {}
        for at, names in enumerate(self._names):
            mine = self._canvas.point([255 * (value == at) for value in range(256)]) if names else None
            for name in names:
                assert mine is not None
                found[name] = ImageChops.lighter(found[name], mine) if name in found else mine
        places = [(names, _inside(points, width)) for names, points, width in self._places]
        for names, mask in (*places, *self._cloths):
            for name in names:
                found[name] = ImageChops.lighter(found[name], mask) if name in found else mask
        if self._states is not None:
            hidden = ImageChops.difference(*self._states).convert("L").point([0, *[255] * 255])
            found = {name: ImageChops.subtract(mask, hidden) for name, mask in found.items()}
        return {name: mask for name, mask in found.items() if mask.getbbox() is not None}


def _inside(points: Sequence[Point], width: int) -> Image.Image:
    mask = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(mask).polygon(points, fill=255)
    if width:
        ImageDraw.Draw(mask).line([*points, points[0]], fill=255, width=width, joint="curve")
    return mask
