"""Drawing: a matplotlib figure as inline SVG whose colours, fonts and words are the page's own.

It does not know what is drawn. A user's words never reach matplotlib: a placeholder is drawn where they
belong, and the escaped words take its place, so no font must have them and none is read as a formula.
"""

import io
import re
import unicodedata
from typing import TYPE_CHECKING, Any

from shelfwise.pages.parts import Html, esc

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The page's colours, as matplotlib is told of them: the custom property, and the mark it is found by.
COLOURS = {
    name: f"#0102{number:02x}"
    for number, name in enumerate(
        ("ink", "soft", "faint", "rule", "grid", "accent", "tint", "card", "wash"), start=1
    )
}
INK, SOFT, FAINT, RULE, GRID, ACCENT, TINT, CARD, WASH = COLOURS.values()
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shelfwise",
    "font.family": "DejaVu Sans",
}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Drawing:
    """One chart, in CSS pixels from the top left; 72 dots an inch, so a point is a pixel."""

    def __init__(self, width: float, height: float) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self._words: list[str] = []
        with matplotlib.rc_context(_SETTINGS):
            self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        self.figure.patch.set_alpha(0)

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        """Return bare axes: no frame, no ticks."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.patch.set_alpha(0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.tick_params(length=0, labelsize=10.5, labelcolor=SOFT, pad=4)
        return axes

    def word(self, text: str, most: float = 0, size: float = 11) -> str:
        """Return the placeholder of a user's words, cut to about ``most`` pixels (0: not cut)."""
        self._words.append(cut(text, most, size) if most else text)
        return f"QZ{len(self._words) - 1}ZQ"

    def html(self, key: str, title: str, description: str) -> Html:
        """Return the SVG.

        Args:
            key: makes its ids different from those of the page's other charts.
            title: what it shows.
            description: what is to be seen in it, for those who do not.
        """
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG

        key, buffer = f"chart-{key}", io.StringIO()
        with matplotlib.rc_context(_SETTINGS):
            canvas: Any = FigureCanvasSVG(self.figure)
            canvas.print_svg(buffer, metadata=_NO_METADATA)
        inside = re.sub(r"^.*?<svg[^>]*>|</svg>\s*$", "", buffer.getvalue(), flags=re.DOTALL)
        inside = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inside, flags=re.DOTALL)
        inside = re.sub(r"<[^>]*>", lambda found: re.sub(r"(\d\.\d)\d+", r"\1", found.group()), inside)
        inside = re.sub(r"\n\s*", " ", inside).replace("> <", "><")
        for name, mark in COLOURS.items():
            inside = inside.replace(mark, f"var(--{name})")
        inside = re.sub(r'<g id="[^"]+">', "<g>", inside)
        inside = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', inside)
        inside = re.sub(r'(?:xlink:)?href="#([^"]+)"', rf'href="#{key}-\1"', inside)
        inside = inside.replace("url(#", f"url(#{key}-")
        inside = re.sub(r"font-family: [^;\"]*;? ?| transform=\"rotate\(-0 [^)]*\)\"", "", inside)
        inside = re.sub(r"QZ(\d+)ZQ", lambda found: esc(self._words[int(found.group(1))]), inside)
        return Html(
            f'<svg class="chart" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-labelledby="{key}-title {key}-desc"><title id="{key}-title">{esc(title)}</title>'
            f'<desc id="{key}-desc">{esc(description)}</desc>{inside.strip()}</svg>'
        )


def cut(text: str, most: float, size: float = 11) -> str:
    """Return a text cut, with an ellipsis, to about ``most`` pixels."""
    text = " ".join(text.split())
    wide = [size * _width(character) for character in text]
    if sum(wide) <= most:
        return text
    room, kept = most - size * 0.8, 0
    while kept < len(wide) and room >= wide[kept]:
        room -= wide[kept]
        kept += 1
    while kept and (unicodedata.combining(text[kept]) or text[kept] in "\u200d\ufe0f"):
        kept -= 1  # never between a character and what belongs to it
    return text[:kept].rstrip() + "\u2026"


def _width(character: str) -> float:
    if unicodedata.combining(character) or character in "\u200d\ufe0f":
        return 0.0
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    return 0.33 if character in "iljt.,:;'|I! " else 0.86 if character in "mwMW@" else 0.59
