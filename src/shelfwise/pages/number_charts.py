"""Charts of numbers: stated against answered with the promised range, and how often ranges hold.

They do not know reports or evidence: numbers and words in, inline SVG out.
Legend: m rows, B bins of rows, K ranges.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.pages.charts import SHARES, WIDTH
from shelfwise.pages.parts import Html
from shelfwise.pages.svg import ACCENT, CARD, FAINT, GRID, INK, RULE, SOFT, TINT, Drawing

Float = npt.NDArray[np.float64]
#: Products that are drawn as points of their own, spread evenly over the answers.
MOST_POINTS = 400
#: Ticks of a logarithmic axis within each power of ten, the sparsest that gives enough is taken.
_STEPS = ((1,), (1, 3), (1, 2, 5))


@dataclass(frozen=True)
class Axis:
    """How numbers of one transform lie on an axis.

    Attributes:
        transform: ``log``, ``log1p`` or ``linear``.
    """

    transform: str

    def place(self, values: npt.ArrayLike) -> Float:
        """Return where numbers lie."""
        given = np.asarray(values, np.float64)
        if self.transform == "linear":
            return given
        return np.log10(np.maximum(given, 1e-30) if self.transform == "log" else 1 + np.maximum(given, 0.0))

    def ticks(self, low: float, high: float, most: int = 6) -> list[tuple[float, str]]:
        """Return round numbers between two places: where they lie, and their text."""
        if self.transform == "linear":
            return _even(low, high, most)
        found = [(0.0, "0")] if self.transform == "log1p" and low <= 0 else []
        first = math.floor(low) - 1 if self.transform == "log" else math.floor(high) - 2
        powers = range(first, math.ceil(high) + 1)
        for steps in reversed(_STEPS):
            values = [step * 10.0**power for power in powers for step in steps]
            inside = [(float(self.place(v)), f"{v:,.10g}") for v in values if low <= self.place(v) <= high]
            if len(inside) <= most:
                return [*found, *inside]
        return [*found, *inside[:: -(-len(inside) // most)]]


def _even(low: float, high: float, most: int) -> list[tuple[float, str]]:
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-12)))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / (step * part) <= most - 1)
    numbers = [round(step * k, 10) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(number, f"{number:,.10g}".replace("-", "\u2212")) for number in numbers]


@dataclass(frozen=True, eq=False)
class Spread:
    """Rows by what is answered, in bins of about as many rows.

    Attributes:
        answered, stated: float64 [m].
        middle: float64 [B], median answer of each bin.
        median: float64 [B], median of what is stated there.
        low, high: float64 [B], typical ends of the ranges there.
        count: int64 [B], rows.
        inside: float64 [B], share of the stated numbers that lie in their own ranges.
    """

    answered: Float
    stated: Float
    middle: Float
    median: Float
    low: Float
    high: Float
    count: npt.NDArray[np.int64]
    inside: Float


def spread_of(answered_m: Float, stated_m: Float, low_m: Float, high_m: Float, bins: int = 12) -> Spread:
    """Put rows into bins by what is answered; of fewer than 15 rows a bin there are fewer bins."""
    order = np.lexsort((stated_m, answered_m))
    parts = np.array_split(order, max(1, min(bins, len(order) // 15)))
    inside_m = (low_m <= stated_m) & (stated_m <= high_m)

    def medians(values_m: Float) -> Float:
        return np.array([np.median(values_m[rows]) for rows in parts])

    return Spread(
        answered_m[order],
        stated_m[order],
        medians(answered_m),
        medians(stated_m),
        medians(low_m),
        medians(high_m),
        np.array([len(rows) for rows in parts]),
        np.array([inside_m[rows].mean() for rows in parts]),
    )


def stated_against_answered(key: str, spread: Spread, axis: Axis, title: str, description: str) -> Html:
    """Draw what is stated against what is answered, the typical range as a band."""
    drawing = Drawing(WIDTH, 322)
    axes = drawing.axes(52, 8, 300, 268)
    x_m, y_m = axis.place(spread.answered), axis.place(spread.stated)
    ends = np.concatenate([x_m, y_m, axis.place(spread.low), axis.place(spread.high)])
    low, high = float(ends.min()), float(ends.max())
    pad = 0.03 * (high - low) or 0.5
    low, high = low - pad, high + pad
    axes.set(xlim=(low, high), ylim=(low, high))
    ticks = axis.ticks(low, high)
    places, texts = [place for place, _ in ticks], [text for _, text in ticks]
    axes.set_yticks(places, texts)
    axes.set_xticks(places, texts, rotation=0)
    if sum(len(text) for text in texts) > 32:
        axes.set_xticks(places[::2], texts[::2])
    for place in places:
        axes.axhline(place, color=GRID, lw=1, zorder=0)
        axes.axvline(place, color=GRID, lw=1, zorder=0)
    middle_B = axis.place(spread.middle)
    below_B, above_B = axis.place(spread.low), axis.place(spread.high)
    if len(middle_B) > 1:
        axes.fill_between(middle_B, below_B, above_B, color=TINT, lw=0, zorder=1)
        for edge_B in (below_B, above_B):
            axes.plot(middle_B, edge_B, color=ACCENT, lw=1.1, ls=(0, (4, 2)), zorder=3)
    else:
        axes.plot(middle_B.repeat(2), [below_B[0], above_B[0]], color=ACCENT, lw=2, zorder=3)
    axes.plot([low, high], [low, high], color=SOFT, lw=1.2, ls=(0, (1, 3)), zorder=2)
    kept = np.unique(np.linspace(0, len(x_m) - 1, min(len(x_m), MOST_POINTS)).round().astype(np.int64))
    axes.plot(x_m[kept], y_m[kept], ls="", marker="o", ms=2.6, mfc=FAINT, mec="none", zorder=2)
    axes.plot(
        middle_B, axis.place(spread.median), color=INK, lw=1.6, marker="o", ms=5.5, mfc=INK, mec=CARD,
        mew=1, zorder=4,
    )  # fmt: skip
    axes.text(0.02, 0.985, "stated", transform=axes.transAxes, size=11, color=SOFT, va="top")
    axes.tick_params(axis="x", pad=7)
    drawing.figure.text(
        (52 + 150) / WIDTH, 10 / 322, "answered", size=11, color=SOFT, ha="center", va="center_baseline"
    )
    return drawing.html(key, title, description)


def ranges_hold(
    key: str,
    lines: Sequence[tuple[str, Float]],
    promised_K: Float,
    chosen: float,
    title: str,
    description: str,
) -> Html:
    """Draw the share of truths that ranges hold against the share they promise.

    Args:
        key, title, description: as in ``svg.Drawing.html``.
        lines: name and shares [K]; the first is what is answered by, a second what was there before.
        promised_K: ascending shares promised.
        chosen: the share that answers promise.
    """
    drawing = Drawing(WIDTH, 322)
    axes = drawing.axes(48, 8, 300, 268)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    ticks, texts = [tick for tick, _ in SHARES.ticks], ["0 %", "25 %", "50 %", "75 %", "100 %"]
    axes.set_yticks(ticks, texts)
    axes.set_xticks(ticks, texts)
    for tick in ticks:
        axes.axhline(tick, color=GRID, lw=1, zorder=0)
        axes.axvline(tick, color=GRID, lw=1, zorder=0)
    axes.plot([0, 1], [0, 1], color=SOFT, lw=1.2, ls=(0, (1, 3)), zorder=1)
    axes.axvline(chosen, color=RULE, lw=1.4, zorder=1)
    styles: list[dict[str, Any]] = [
        {"color": ACCENT, "ls": "-", "marker": "o", "mfc": ACCENT, "mec": CARD},
        {"color": SOFT, "ls": (0, (5, 3)), "marker": "D", "mfc": CARD, "mec": SOFT},
    ]
    for at, ((name, share_K), style) in enumerate(zip(lines, styles, strict=False)):
        axes.plot(promised_K, share_K, lw=1.8, ms=5.5, mew=1, zorder=3 - at, clip_on=False, **style)
        level = 0.15 - 0.085 * at
        axes.plot([0.49, 0.54, 0.59], [level] * 3, lw=1.8, ms=5.5, mew=1, markevery=[1], **style)
        axes.text(0.62, level, drawing.word(name), size=11, color=INK, va="center_baseline")
    axes.text(0.02, 0.985, "held", transform=axes.transAxes, size=11, color=SOFT, va="top")
    axes.tick_params(axis="x", pad=7)
    drawing.figure.text(
        (48 + 150) / WIDTH, 10 / 322, "promised", size=11, color=SOFT, ha="center", va="center_baseline"
    )
    return drawing.html(key, title, description)
