"""Charts: dots with whiskers, reliability, precision against coverage, learning, histograms, matrices.

They do not know reports or evidence: numbers and words in, inline SVG out. Every chart is drawn for a phone's
width and is read without colour: marks differ in shape, lines in dashes, and what matters has its number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shelfwise.metrics import Reliability
from shelfwise.pages.curves import FEWEST, Coverage
from shelfwise.pages.parts import Html, percent
from shelfwise.pages.svg import ACCENT, CARD, FAINT, GRID, INK, RULE, SOFT, TINT, WASH, Drawing
from shelfwise.plaintext import show

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAN = float("nan")
WIDTH = 360.0
_ROW, _LABEL, _NUMBER = 23.0, 124.0, 50.0


@dataclass(frozen=True)
class Dot:
    """One row of a chart of dots.

    Attributes:
        label: what it is.
        score: where the dot is.
        low: lower end of its whisker, NaN for none.
        high: upper end.
        other: something to compare with, a thin tick; NaN for none.
        text: the number beside it.
        mark: ``o`` filled dot, ``^`` and ``v`` triangles, ``h`` hollow dot.
        strong: drawn in bold, for a sum.
    """

    label: str
    score: float
    low: float = NAN
    high: float = NAN
    other: float = NAN
    text: str = ""
    mark: str = "o"
    strong: bool = False


@dataclass(frozen=True)
class Scale:
    """A horizontal axis: its ends, its ticks, and the place of a line of reference."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    line: float = NAN
    log: bool = False


SHARES = Scale(0.0, 1.0, tuple((tick, f"{tick:g}") for tick in (0, 0.25, 0.5, 0.75, 1)))


def axis(ends: Sequence[float], log: bool = False, signed: bool = False) -> Scale | None:
    """Return an axis with round ticks that holds all the ends; None where there is nothing to hold."""
    known = [end for end in ends if math.isfinite(end) and (end > 0 or not log)]
    if not known:
        return None
    low, high = min(known), max(known)
    if log:
        ticks = [m * 10.0**e for e in range(-3, 13) for m in (1, 3) if low / 1.5 <= m * 10.0**e <= high * 1.5]
        ticks = ticks if len(ticks) <= 5 else ticks[:: -(-len(ticks) // 5)]
        return Scale(low * 0.9, high * 1.1, tuple((tick, f"{tick:,.10g}") for tick in ticks), log=True)
    if high <= low:
        low, high = low - max(abs(low) * 0.1, 0.5), high + max(abs(high) * 0.1, 0.5)
    low = 0.0 if (signed and low > 0) or 0 <= low < 0.5 * high else low
    high = max(high, 0.0) if signed else high
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step * part for part in (0.2, 0.5, 1, 2, 5) if (high - low) / (step * part) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(step * k, 10) for k in range(first, last + 1)]
    return Scale(
        ticks[0], ticks[-1], tuple((tick, tick_text(tick, signed)) for tick in ticks), 0.0 if signed else NAN
    )


def tick_text(tick: float, signed: bool) -> str:
    """Return a tick's number; with its sign where differences are shown."""
    text = f"{tick:+,.10g}" if signed and tick else f"{tick:,.10g}"
    return text.replace("-", "\u2212")


def dots(
    key: str,
    rows: Sequence[Dot],
    scale: Scale,
    title: str,
    description: str,
    *,
    width: float = WIDTH,
    label: float = _LABEL,
    number: float = _NUMBER,
) -> Html:
    """Draw a labelled dot, its whisker and its number per row; widths in pixels: of all, the labels, the numbers."""
    height = _ROW * len(rows) + 26
    drawing = Drawing(width, height)
    wide = width - label - number - 14
    axes = drawing.axes(label + 8, 2, wide, _ROW * len(rows))
    _horizontal(axes, scale, wide)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for place, row in enumerate(rows):
        weight = "bold" if row.strong else "normal"
        pixel = (scale.high - scale.low) / wide
        if not scale.log:
            label_at, number_at = scale.low - 8 * pixel, scale.high + (number + 4) * pixel
        else:
            factor = math.log(scale.high / scale.low) / wide
            label_at, number_at = (
                scale.low * math.exp(-8 * factor),
                scale.high * math.exp((number + 4) * factor),
            )
        word = drawing.word(row.label, label - 2, 11.6 if row.strong else 11)
        axes.text(label_at, place, word, ha="right", va="center_baseline", size=11, color=INK, weight=weight)
        axes.text(
            number_at, place, row.text, ha="right", va="center_baseline", size=11, color=INK, weight=weight
        )
        if not math.isnan(row.other):
            axes.plot([row.other] * 2, [place - 0.26, place + 0.26], color=FAINT, lw=1.8, zorder=2)
        if not math.isnan(row.low + row.score):
            axes.plot([row.low, row.high], [place] * 2, color=ACCENT, lw=2, solid_capstyle="butt", zorder=3)
            for end in (row.low, row.high):
                axes.plot([end] * 2, [place - 0.13, place + 0.13], color=ACCENT, lw=1.4, zorder=3)
        if not math.isnan(row.score):
            hollow = row.mark == "h"
            axes.plot(
                [row.score],
                [place],
                marker="o" if hollow else row.mark,
                ms=9.5 if row.strong else 8,
                mfc=CARD if hollow else ACCENT,
                mec=ACCENT if hollow else CARD,
                mew=1.6 if hollow else 1.2,
                zorder=4,
                clip_on=False,
            )
    return drawing.html(key, title, description)


def _horizontal(axes: "Axes", scale: Scale, wide: float) -> None:
    if scale.log:
        axes.set_xscale("log")
    axes.set_xlim(scale.low, scale.high)
    axes.set_xticks([tick for tick, _ in scale.ticks], [text for _, text in scale.ticks])
    axes.set_xticks([], minor=True)
    for tick, _ in scale.ticks:
        axes.axvline(tick, color=GRID, lw=1, zorder=0)
    if not math.isnan(scale.line):
        axes.axvline(scale.line, color=SOFT, lw=1.2, zorder=1)


def strip(key: str, score: Dot, others: Sequence[tuple[str, float]], title: str, description: str) -> Html:
    """Draw one score on a line from 0 to 1, with what it is to be compared with below the line."""
    known = [(text, value) for text, value in others if not math.isnan(value)]
    height, left = 50.0 + 16 * max(len(known), 1), 9.0
    drawing = Drawing(WIDTH, height)
    axes = drawing.axes(left, 0, WIDTH - 2 * left, height)
    axes.set_xlim(0, 1)
    axes.set_ylim(height, 0)
    axes.plot([0, 1], [30, 30], color=RULE, lw=5, solid_capstyle="round", zorder=1)
    for tick in (0, 1):
        axes.text(tick, 50, str(tick), ha="center", va="center_baseline", size=11, color=SOFT)
    if not math.isnan(score.low):
        axes.plot([score.low, score.high], [30, 30], color=ACCENT, lw=5, solid_capstyle="butt", zorder=2)
    axes.plot([score.score], [30], marker="o", ms=13, mfc=ACCENT, mec=CARD, mew=2.2, zorder=4)
    axes.text(
        score.score, 10, score.text, ha="center", va="center_baseline", size=11.5, color=INK, weight="bold"
    )
    for row, (text, value) in enumerate(known):
        axes.plot([value] * 2, [22, 38], color=FAINT, lw=1.5, zorder=1)
        side, gap = ("left", 0.012) if value < 0.5 else ("right", -0.012)
        axes.text(value + gap, 50 + 16 * row, text, ha=side, va="center_baseline", size=11, color=SOFT)
    return drawing.html(key, title, description)


def calibration(
    key: str,
    after: Reliability,
    before: Reliability | None,
    names: tuple[str, str],
    title: str,
    description: str,
) -> Html:
    """Draw the share of answers that are right against how sure they were, and how many there are."""
    drawing = Drawing(WIDTH, 366)
    axes = drawing.axes(44, 8, 304, 258)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    ticks = [tick for tick, _ in SHARES.ticks]
    axes.set_yticks(ticks, ["0 %", "25 %", "50 %", "75 %", "100 %"])
    for tick in ticks:
        axes.axhline(tick, color=GRID, lw=1, zorder=0)
        axes.axvline(tick, color=GRID, lw=1, zorder=0)
    axes.plot([0, 1], [0, 1], color=SOFT, lw=1.2, ls=(0, (1, 3)), zorder=1)
    lines = [(before, SOFT, (0, (5, 3)), "D", CARD), (after, ACCENT, "-", "o", ACCENT)]
    for at, (curve, colour, dashes, marker, face) in enumerate(lines):
        if curve is None:
            continue
        known = curve.cells_K >= min(FEWEST, curve.cells_K.max(initial=0))
        style: dict[str, Any] = {
            "color": colour,
            "ls": dashes,
            "marker": marker,
            "mfc": face,
            "mec": colour,
            "ms": 6.5,
            "mew": 1.4,
        }
        axes.plot(
            curve.confidence_K[known], curve.accuracy_K[known], lw=1.8, zorder=2 + at, clip_on=False, **style
        )
        level = 0.07 + 0.085 * at
        axes.plot([0.53, 0.58, 0.63], [level] * 3, lw=1.8, markevery=[1], **style)
        axes.text(0.66, level, drawing.word(names[at]), size=11, color=INK, va="center_baseline")
    under = drawing.axes(44, 276, 304, 44)
    under.set_xlim(0, 1)
    counts = after.cells_K / max(after.cells_K.sum(), 1)
    middle, step = (after.low_K + after.high_K) / 2, after.high_K - after.low_K
    under.bar(middle, counts, step * 0.86, color=TINT, edgecolor=ACCENT, lw=0.8)
    under.axhline(0, color=RULE, lw=1)
    under.set_xticks(ticks, ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.text(0.0, 1.0, "  right", size=11, color=SOFT, va="top")
    drawing.figure.text(
        0.122 + 304 / WIDTH / 2, 8 / 366, "how sure, and how many answers", size=11, color=SOFT, ha="center"
    )
    return drawing.html(key, title, description)


def promise(key: str, curve: Coverage, floor: float, precision: float, title: str, description: str) -> Html:
    """Draw precision against coverage of one attribute, with the promise and the chosen point."""
    drawing = Drawing(172, 148)
    axes = drawing.axes(38, 8, 122, 112)
    axes.set(xlim=(0, 1), ylim=(floor, 1.015))
    axes.set_yticks(
        [floor, (1 + floor) / 2, 1], [f"{100 * tick:.0f}" for tick in (floor, (1 + floor) / 2)] + ["100 %"]
    )
    axes.set_xticks([0, 0.5, 1], ["0", "50", "100 %"])
    axes.tick_params(axis="x", pad=7)
    for tick in (floor, (1 + floor) / 2, 1):
        axes.axhline(tick, color=GRID, lw=1, zorder=0)
    if not math.isnan(precision):
        axes.axhline(precision, color=SOFT, lw=1.2, ls=(0, (4, 3)), zorder=1)
    one = len(curve.coverage) == 1
    axes.plot(curve.coverage, curve.precision, color=ACCENT, lw=1.9, marker="." if one else None, zorder=2)
    if not math.isnan(curve.covered):
        if curve.covered > 0:
            shown = max(curve.kept, floor)
            axes.plot([curve.covered] * 2, [floor, shown], color=INK, lw=1, ls=(0, (1, 2)), zorder=3)
            axes.plot(
                [curve.covered],
                [shown],
                marker="o",
                ms=8,
                mfc=ACCENT,
                mec=CARD,
                mew=1.4,
                zorder=4,
                clip_on=False,
            )
        else:
            axes.text(0.5, floor + 0.06 * (1 - floor), "never fills in", size=10.5, color=INK, ha="center")
    return drawing.html(key, title, description)


def learning(key: str, rows: Sequence[tuple[str, Sequence[float]]], title: str, description: str) -> Html:
    """Draw the score with a quarter, half and all of the labels; lines that still rise stand out."""
    height = max(200.0, 19.0 * len(rows) + 62)
    drawing = Drawing(WIDTH, height)
    axes = drawing.axes(34, 8, 176, height - 40)
    known = [value for _, values in rows for value in values if not math.isnan(value)]
    low = math.floor((min(known, default=0) - 0.02) * 10) / 10
    high = math.ceil((max(known, default=1) + 0.02) * 10) / 10
    axes.set(xlim=(-0.12, 2), ylim=(max(low, 0), min(high, 1)))
    step = 0.1 if high - low <= 0.5 else 0.2
    ticks = np.arange(max(low, 0), min(high, 1) + 1e-9, step)
    axes.set_yticks(ticks, [f"{tick:.1f}" for tick in ticks])
    axes.set_xticks([0, 1, 2], ["a quarter", "half", "all"])
    axes.tick_params(axis="x", pad=8)
    for tick in ticks:
        axes.axhline(tick, color=GRID, lw=1, zorder=0)
    per_pixel = (min(high, 1) - max(low, 0)) / (height - 40)
    drawn = [row for row in rows if not math.isnan(row[1][-1])]
    places = apart([values[-1] for _, values in drawn], 17.5 * per_pixel, max(low, 0), min(high, 1))
    for place, (label, values) in zip(places, drawn, strict=True):
        rising = values[-1] - values[1] > 0.01
        colour = ACCENT if rising else FAINT
        axes.plot(
            range(3), values, color=colour, lw=2 if rising else 1.3, ls="-" if rising else (0, (4, 2)),
            marker="o", ms=5, mfc=colour if rising else CARD, mec=colour, zorder=3 if rising else 2, clip_on=False,
        )  # fmt: skip
        axes.plot([2.06, 2.2], [values[-1], place], color=RULE, lw=1, clip_on=False)
        text = f"{values[-1]:.2f}  {drawing.word(label, 96, 10.5)}"
        axes.text(2.25, place, text, size=10.5, color=INK if rising else SOFT, va="center_baseline")
    return drawing.html(key, title, description)


def apart(values: Sequence[float], least: float, low: float, high: float) -> list[float]:
    """Return places near the values, at least ``least`` from each other where there is room."""
    order = np.argsort(values, kind="stable")
    placed = np.array(values, np.float64)[order]
    for position in range(1, len(placed)):
        placed[position] = max(placed[position], placed[position - 1] + least)
    over = placed[-1] - high if len(placed) else 0.0
    if over > 0:
        placed[-1] = high
        for position in range(len(placed) - 2, -1, -1):
            placed[position] = min(placed[position], placed[position + 1] - least)
    found = np.empty(len(placed))
    found[order] = placed
    return [float(value) for value in found]


def histogram(
    key: str,
    edges: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    scale: Scale,
    title: str,
    description: str,
) -> Html:
    """Draw how many there are per bin; the tallest bar has its number."""
    drawing = Drawing(WIDTH, 190)
    axes = drawing.axes(12, 20, WIDTH - 24, 140)
    _horizontal(axes, scale, WIDTH - 24)
    axes.set_ylim(0, max(int(counts.max(initial=1)), 1))
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=TINT, edgecolor=ACCENT, lw=0.9, zorder=2)
    axes.axhline(0, color=RULE, lw=1)
    tallest = int(counts.argmax())
    axes.text(
        edges[tallest],
        counts[tallest] * 1.03,
        f"{int(counts[tallest]):,}",
        size=10.5,
        color=SOFT,
        va="bottom",
    )
    return drawing.html(key, title, description)


def matrix(
    key: str, names: Sequence[str], values: npt.NDArray[np.float64], title: str, description: str
) -> Html:
    """Draw a symmetric matrix below its diagonal; NaN is an empty cell, every other has its number."""
    size = len(names)
    cell = min(34.0, (WIDTH - 100) / max(size - 1, 1))
    left = 96.0
    below = 26 + min(84.0, max(len(name) for name in names[:-1]) * 6.2) * 0.77
    drawing = Drawing(WIDTH, cell * (size - 1) + below)
    axes = drawing.axes(left, 2, cell * (size - 1), cell * (size - 1))
    axes.set(xlim=(0, size - 1), ylim=(size - 1, 0))
    for row in range(1, size):
        word = drawing.word(names[row], left - 8, 10.5)
        axes.text(-6 / cell, row - 0.5, word, size=10.5, color=INK, ha="right", va="center_baseline")
        for column in range(row):
            value = values[row, column]
            box = {"xy": (column + 0.04, row - 0.96), "width": 0.92, "height": 0.92}
            _box(axes, box, WASH if math.isnan(value) else TINT if value < 0.6 else ACCENT)
            if not math.isnan(value):
                colour = INK if value < 0.6 else CARD
                text = f"{value:.1f}".removeprefix("0") if cell < 22 else f"{value:.2f}".removeprefix("0")
                axes.text(
                    column + 0.5, row - 0.5, text, size=9.5 if cell > 20 else 8,
                    color=colour, ha="center", va="center_baseline",
                )  # fmt: skip
    for column in range(size - 1):
        word = drawing.word(names[column], 84, 10.5)
        axes.text(
            column + 0.62, size - 1 + 8 / cell, word, size=10.5, color=INK,
            ha="right", va="center", rotation=50, rotation_mode="anchor",
        )  # fmt: skip
    return drawing.html(key, title, description)


def _box(axes: "Axes", box: dict[str, object], colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(**box, facecolor=colour, edgecolor="none"))  # type: ignore[arg-type]


def described(rows: Sequence[Dot]) -> str:
    """Say the rows of a chart of dots in words: the first few of them."""
    told = [f"{row.label} {row.text or show(row.score)}" for row in rows[:6]]
    return "; ".join(told) + (f"; and {len(rows) - 6} more, in the table" if len(rows) > 6 else "") + "."


def covered(curve: Coverage) -> str:
    """Say a chosen point in words."""
    if math.isnan(curve.covered):
        last = float(curve.precision[-1]) if len(curve.precision) else NAN
        return f"{percent(last)} right if all are answered"
    if not curve.covered:
        return "never fills in"
    return f"fills in {percent(curve.covered)}, {percent(curve.kept)} right"
