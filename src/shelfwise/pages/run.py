"""The page of a run: loss, score and rate per epoch, and the score of every attribute over the epochs.

It does not know what was trained, nor how; it reads what the trackers wrote (``train.track``).
Legend: E epochs.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shelfwise.pages import charts, parts
from shelfwise.pages.parts import Cell, Column, Html, Section
from shelfwise.pages.svg import ACCENT, CARD, FAINT, GRID, INK, RULE, SOFT, Drawing
from shelfwise.plaintext import show
from shelfwise.train.track import FILE, read_jsonl

Record = Mapping[str, Any]
NAN = float("nan")
#: Categories that are drawn, lines of one chart, and rows of a table.
MOST_CATEGORIES, MOST_LINES, MOST_ROWS = 40, 20, 1000
#: Dashes that tell lines apart without colour.
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
#: Epochs up to which every one has its mark.
FEW = 24


def run_page(
    run: str | Path | Sequence[Record], *, source: str = "", facts: Sequence[tuple[str, str]] = ()
) -> str:
    """Return the page of a training, finished or not.

    Args:
        run: the folder of a run, its ``training.jsonl``, or what ``train.track.read_jsonl`` read from it.
        source: what was trained; by default the name of the run's folder.
        facts: more short facts for the top: what, and how much.

    Raises:
        UsageError: there is no such file.
    """
    if isinstance(run, str | Path):
        path = Path(run) / FILE if Path(run).is_dir() else Path(run)
        records: Sequence[Record] = read_jsonl(path)
        source = source or path.absolute().parent.name
    else:
        records = run
    epochs = _epochs(records)
    last: Record = records[-1] if records else {}
    told = [("epochs", f"{len(epochs):,}")]
    if last:
        told.append(("steps", f"{last['step']:,} of {last['of']:,}"))
    rates = [
        rate for e in epochs if math.isfinite(rate := _number(e.get("pictures_per_second"))) and rate > 0
    ]
    if rates:
        told.append(("pictures per second", f"{sorted(rates)[len(rates) // 2]:,.0f}"))
    best = _best(epochs)
    if best is not None:
        number = show(_number(best.get("score")))
        said = (
            f"<strong>score of epoch {best['epoch'] + 1}</strong>, the best one, on products that were not trained on: "
            "the mean over categories of the mean over their attributes."
        )
    else:
        number = show(_number(epochs[-1]["loss"])) if epochs else "-"
        said = "<strong>loss of the last epoch</strong>: the mean over labelled cells. Nothing was kept apart to score."
    top = parts.hero(number, Html(said), None, parts.facts([*told, *facts]))
    sections = training_sections(records) or [
        Section("course", "Loss and score", Html("<p>No epoch has ended yet.</p>"))
    ]
    return parts.page("run", source or "a training", "How the training went", top, sections)


def training_sections(records: Sequence[Record]) -> list[Section]:
    """Return the sections of a training, for its own page or that of a fit; none where no epoch has ended."""
    epochs = _epochs(records)
    if not epochs:
        return []
    return [_course(epochs), *_rates(epochs), *_attributes(epochs)]


def _epochs(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record["kind"] == "epoch"]


def _best(epochs: Sequence[Record]) -> Record | None:
    scored = [epoch for epoch in epochs if math.isfinite(_number(epoch.get("score")))]
    return max(scored, key=lambda epoch: (epoch["score"], -epoch["epoch"]), default=None)


def _number(value: Any) -> float:
    return NAN if value is None else float(value)


def _course(epochs: Sequence[Record]) -> Section:
    """Loss and score of all."""
    at = [int(epoch["epoch"]) + 1 for epoch in epochs]
    loss_E = [_number(epoch["loss"]) for epoch in epochs]
    score_E = [_number(epoch.get("score")) for epoch in epochs]
    drawn = [_chart("run-loss", at, [("loss", loss_E)], "Loss over the epochs")]
    scored = any(map(math.isfinite, score_E))
    if scored:
        drawn.append(_chart("run-score", at, [("score", score_E)], "Score over the epochs"))
    columns = [Column("epoch"), Column("phase", True), Column("loss", True, 4), Column("score", True, 4)]
    rows: list[list[Cell]] = []
    for epoch, loss, score in zip(epochs, loss_E, score_E, strict=True):
        rows.append([str(int(epoch["epoch"]) + 1), int(epoch["phase"]) + 1, loss, score])
    made = parts.table(columns, rows[:MOST_ROWS], "Loss and score by epoch.", tall=len(rows) > 30)
    figures = "".join(
        parts.figure(chart, heading=Html(f"<h3>{name}</h3>"))
        for chart, name in zip(drawn, ("Loss", "Score"), strict=False)
    )
    lead = "Loss is the mean over the labelled cells of an epoch" + (
        "; the score is of products that were not trained on." if scored else "."
    )
    body = Html(f'<div class="panels">{figures}</div>{parts.more("The numbers", made)}')
    return Section("course", "Loss and score", body, lead)


def _rates(epochs: Sequence[Record]) -> list[Section]:
    """Learning rates by group of layers, on a logarithmic scale."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch["rates"]))
    if not names:
        return []
    at = [int(epoch["epoch"]) + 1 for epoch in epochs]
    lines = [(name, [_number(epoch["rates"].get(name)) for epoch in epochs]) for name in names]
    shown = lines if len(lines) <= MOST_LINES else [lines[0], lines[-1]]
    chart = _chart("run-rates", at, shown, "Learning rate over the epochs", log=True)
    columns = [
        Column("group of layers"),
        Column("first", True),
        Column("highest", True),
        Column("last", True),
    ]
    rows: list[list[Cell]] = []
    for name, rate_E in lines[:MOST_ROWS]:
        known = [rate for rate in rate_E if math.isfinite(rate)]
        ends = (known[0], max(known), known[-1]) if known else (NAN, NAN, NAN)
        rows.append([name, *(Html(f"{rate:.3g}" if math.isfinite(rate) else "-") for rate in ends)])
    made = parts.table(columns, rows, "Learning rate at the end of an epoch, by group of layers.", sort=False)
    body = Html(f'<div class="panels">{parts.figure(chart)}</div>{parts.more("The numbers", made)}')
    lead = "At the end of each epoch, on a logarithmic scale."
    if len(shown) < len(lines):
        lead += f" The first and the last of {len(lines)} groups are drawn."
    return [Section("rates", "Learning rate", body, lead)]


def _attributes(epochs: Sequence[Record]) -> list[Section]:
    """The score of every attribute over the epochs, or its loss where nothing was scored."""
    kind = "scores" if any(epoch.get("scores") for epoch in epochs) else "pair_loss"
    word = "Score" if kind == "scores" else "Loss"
    found: dict[str, dict[str, list[float]]] = {}
    for place, epoch in enumerate(epochs):
        for category, attribute, value in epoch.get(kind) or []:
            line = found.setdefault(category, {}).setdefault(attribute, [NAN] * len(epochs))
            line[place] = _number(value)
    if not found:
        return []
    at = [int(epoch["epoch"]) + 1 for epoch in epochs]
    figures: list[Html] = []
    rows: list[list[Cell]] = []
    for number, (category, lines) in enumerate(found.items()):
        ordered = sorted(lines.items(), key=lambda item: -_last(item[1]))
        if number < MOST_CATEGORIES:
            chart = _chart(
                f"run-category{number}", at, ordered[:MOST_LINES], f"{word} of {category} over the epochs"
            )
            figures.append(parts.figure(chart, heading=Html(f"<h3>{parts.name(category)}</h3>")))
        for attribute, value_E in ordered:
            known = [value for value in value_E if math.isfinite(value)]
            first, last = (known[0], known[-1]) if known else (NAN, NAN)
            best = (max(known) if kind == "scores" else min(known)) if known else NAN
            when = at[value_E.index(best)] if known else None
            rows.append([parts.where(category, attribute), first, best, when, last])
    columns = [Column("category / attribute"), Column("first", True), Column("best", True)]
    columns += [Column("in epoch", True), Column("last", True)]
    made = parts.table(columns, rows[:MOST_ROWS], f"{word} by attribute.", tall=len(rows) > 30)
    lead = f"{word} after each epoch, by attribute; the number is that of the last one."
    if len(found) > MOST_CATEGORIES:
        lead += f" {MOST_CATEGORIES} of {len(found):,} categories are drawn."
    table = parts.more("The numbers", parts.filtered("category or attribute", made))
    body = Html(f'<div class="panels">{"".join(figures)}</div>{table}')
    return [Section("attributes", f"{word} per attribute", body, lead)]


def _last(values: Sequence[float]) -> float:
    """The last known number; those without one come last."""
    return next((value for value in reversed(values) if math.isfinite(value)), -math.inf)


def _chart(
    key: str,
    at: Sequence[int],
    lines: Sequence[tuple[str, Sequence[float]]],
    title: str,
    log: bool = False,
) -> Html:
    """Draw lines over epochs, each with its name and last number at its end; dashes tell them apart."""
    shown = [(name, [_logarithm(v) for v in values] if log else list(values)) for name, values in lines]
    told = "; ".join(
        f"{name} {_text(values[0], log)} at first, {_text(values[-1], log)} at last"
        for name, values in lines[:8]
    )
    if len(lines) > 8:
        told += f"; and {len(lines) - 8} more, in the table"
    scale = _scale([v for _, values in shown for v in values if math.isfinite(v)], log)
    height = max(150.0, 17.5 * len(lines) + 44)
    drawing = Drawing(charts.WIDTH, height)
    tall = height - 40
    axes = drawing.axes(44, 8, 180, tall)
    low, high = scale[0][0], scale[-1][0]
    span = max(at[-1] - at[0], 1)
    axes.set(xlim=(at[0] - 0.06 * span, at[0] + span), ylim=(low, high))
    axes.set_yticks([tick for tick, _ in scale], [text for _, text in scale])
    marks = sorted({at[0], at[(len(at) - 1) // 2], at[-1]})
    axes.set_xticks(marks, [f"epoch {marks[0]}", *map(str, marks[1:])])
    axes.tick_params(axis="x", pad=8)
    for tick, _ in scale:
        axes.axhline(tick, color=GRID, lw=1, zorder=0)
    drawn = [(name, values, _last(values)) for name, values in shown if math.isfinite(_last(values))]
    places = charts.apart([end for *_, end in drawn], 17.5 * (high - low) / tall, low, high)
    for number, (place, (name, values, end)) in enumerate(zip(places, drawn, strict=True)):
        colour = (ACCENT, INK, SOFT)[number % 3]
        axes.plot(
            at, values, color=colour, lw=1.8, ls=DASHES[number % len(DASHES)], zorder=2, clip_on=False,
            marker="o" if len(at) <= FEW else None, ms=4, mfc=colour, mec=CARD, mew=0.6,
        )  # fmt: skip
        right = at[0] + span
        axes.plot([right + 0.03 * span, right + 0.1 * span], [end, place], color=RULE, lw=1, clip_on=False)
        number_text = _text(10**end if log else end, log)
        word = drawing.word(name, 128 - 6.2 * len(number_text), 10.5)
        axes.text(
            right + 0.12 * span, place, f"{number_text}  {word}", size=10.5, color=INK, va="center_baseline"
        )
    if not drawn:
        axes.text(at[0] + span / 2, (low + high) / 2, "no numbers", size=11, color=FAINT, ha="center")
    return drawing.html(key, title, f"{told}.")


def _scale(known: Sequence[float], log: bool) -> list[tuple[float, str]]:
    """Return ticks with their texts; the axis ends at the first and the last."""
    if log:
        low = math.floor(min(known, default=0))
        high = max(math.ceil(max(known, default=0)), low + 1)
        return [(float(power), f"{10.0**power:g}") for power in range(low, high + 1)]
    scale = charts.axis(known)
    return [(0.0, "0"), (1.0, "1")] if scale is None else list(scale.ticks)


def _logarithm(value: float) -> float:
    return math.log10(value) if value > 0 else NAN


def _text(value: float, log: bool) -> str:
    return (f"{value:.2g}" if math.isfinite(value) else "-") if log else show(value)
