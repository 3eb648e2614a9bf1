"""Sections on certainty: reliability, precision against coverage, and the confusions that cost most.

They do not know where the evidence comes from.
"""

import math
from collections.abc import Iterator, Sequence

from shelfwise.pages import charts, curves, parts
from shelfwise.pages.curves import Coverage, Measured, Sureness
from shelfwise.pages.parts import Bar, Cell, Column, Html, Section, percent
from shelfwise.plaintext import show

#: Attributes that are drawn, rows of a table, confusions listed at once and at all.
MOST_PAIRS, MOST_ROWS, MOST_CONFUSIONS, ALL_CONFUSIONS = 40, 1000, 15, 200
#: Coverages at which the precision is listed.
SHARES = (0.25, 0.5, 0.75)


Point = tuple[Sureness, Coverage]


def measured_sections(measured: Measured | None) -> Iterator[Section]:
    """Yield what the evidence says; nothing where there is none."""
    found = curves.sureness(measured.after, measured.answers) if measured is not None else []
    if measured is None or not found:
        return
    yield _reliability(measured, found)
    yield _coverage(measured, found)
    yield _confusions(found)


def _reliability(measured: Measured, found: Sequence[Sureness]) -> Section:
    after, error = curves.reliability(found)
    words = (
        f"Over all cells the probability and the share of right answers differ by {show(error)} on average."
    )
    before, old = None, []
    if measured.before is not None:
        old = curves.sureness(measured.before)
        before, error_before = curves.reliability(old)
        words += f" Before calibration it was {show(error_before)}."
    names = ("before calibration", "after calibration" if before else "as answered")
    chart = charts.calibration("reliability", after, before, names, "Reliability of the probabilities", words)
    bins: list[list[Cell]] = [
        [f"{percent(float(low))} to {percent(float(high))}", int(cells), float(sure), float(right)]
        for low, high, cells, sure, right in zip(
            after.low_K, after.high_K, after.cells_K, after.confidence_K, after.accuracy_K, strict=True
        )
        if cells
    ]
    heads = [Column("how sure"), *(Column(text, True) for text in ("answers", "mean probability", "right"))]
    drawn = parts.figure(
        chart,
        "On the dotted diagonal probabilities mean what they say; above it the answers are righter than they "
        "say. Bars: how many answers. Points of fewer than ten answers are left out.",
        parts.table(heads, bins, "Answers by how sure they were.", sort=False),
    )
    listed = parts.filtered("attribute", _errors(found, old))
    body = Html(f'<div class="pair">{drawn}<div><p class="note">{words}</p>{listed}</div></div>')
    lead = "Of the answers given with a probability of 80 %, 80 % should be right."
    return Section("sure", "Does it know when it is right?", body, lead)


def _errors(found: Sequence[Sureness], old: Sequence[Sureness]) -> Html:
    """The calibration error of each attribute."""
    earlier = {(each.category, each.attribute): each for each in old}
    rows: list[list[Cell]] = []
    for part in found[:MOST_ROWS]:
        error = curves.reliability([part])[1]
        was = earlier.get((part.category, part.attribute))
        before = [curves.reliability([was])[1] if was is not None else float("nan")] if old else []
        told = [float(part.sure.mean()), float(part.right.mean())]
        rows.append([parts.where(part.category, part.attribute), part.labels, *told, *before, error])
    names = ["labels", "says", "right", *(["error before"] if old else []), "error"]
    columns = [Column("category / attribute"), *(Column(text, True) for text in names)]
    caption = (
        "Calibration per attribute. Says: the mean probability; right: the share of right answers; "
        "error: how far they are apart."
    )
    return parts.table(columns, rows, caption, tall=True, tight=True)


def _coverage(measured: Measured, found: Sequence[Sureness]) -> Section:
    thresholds = measured.thresholds or {}
    points = [
        (part, curves.coverage(part, thresholds.get((part.category, part.attribute), float("nan"))))
        for part in found
    ]
    precision = measured.precision if measured.precision is not None else float("nan")
    lead = "The surest answers first: how many of them are right, as more and more cells are filled in."
    if thresholds:
        total = sum(part.labels for part in found)
        filled = sum(part.labels * curve.covered for part, curve in points if not math.isnan(curve.covered))
        dashed = "" if math.isnan(precision) else f" Dashed: the promised {percent(precision)}."
        lead += (
            f"{dashed} The dot is the chosen point: {percent(filled / total)} of all cells are filled in "
            "without a person, the others are left as unsure."
        )
    if len(points) > MOST_PAIRS:
        lead += f" The {MOST_PAIRS} attributes with the most labels of {len(points):,} are drawn."
    drawn = f'<div class="panel multiples">{_multiples(points[:MOST_PAIRS], precision)}</div>'
    listed = parts.more("The numbers", parts.filtered("attribute", _coverages(points, bool(thresholds))))
    return Section("coverage", "How much it can fill in by itself", Html(drawn + listed), lead)


def _multiples(shown: Sequence[Point], precision: float) -> str:
    """One small chart per attribute, by category."""
    ends = [float(curve.precision[-1]) for _, curve in shown if len(curve.precision)]
    floor = 0.5 if min(ends, default=1.0) >= 0.5 else 0.0
    order = list(dict.fromkeys(part.category for part, _ in shown))
    drawn, heading = [], None
    for number, (part, curve) in enumerate(sorted(shown, key=lambda point: order.index(point[0].category))):
        if part.category != heading:
            heading = part.category
            drawn.append(f"<h3>{parts.name(heading)}</h3>")
        title = f"Precision against coverage of {part.category} / {part.attribute}"
        told = charts.covered(curve)
        chart = charts.promise(f"cover{number}", curve, floor, precision, title, told)
        caption = f"<figcaption>{parts.name(part.attribute)} <span>{told}</span></figcaption>"
        drawn.append(f"<figure>{caption}{chart}</figure>")
    return "".join(drawn)


def _coverages(points: Sequence[Point], chosen: bool) -> Html:
    """Precision at some coverages of each attribute, and at the chosen point."""
    columns = [Column("category / attribute"), Column("labels", True), Column("all", True, percent=True)]
    columns += [Column(f"surest {share:.0%}", True, percent=True) for share in SHARES]
    if chosen:
        columns += [
            Column("threshold", True), Column("filled in", True), Column("right of it", True, percent=True),
        ]  # fmt: skip
    rows: list[list[Cell]] = []
    for part, curve in points[:MOST_ROWS]:
        row: list[Cell] = [parts.where(part.category, part.attribute), part.labels, _at(curve, 1.0)]
        row += [_at(curve, share) for share in SHARES]
        if chosen:
            never = math.isinf(curve.threshold)
            bar = Bar(curve.covered, percent(curve.covered), curve.covered)
            row += ["never" if never else curve.threshold, bar, curve.kept]
        rows.append(row)
    caption = "Share of right answers if all are answered, and among the surest."
    return parts.table(columns, rows, caption, tall=len(rows) > 30)


def _at(curve: Coverage, share: float) -> float:
    """Precision at a coverage; NaN where the curve begins later."""
    reached = [float(p) for c, p in zip(curve.coverage, curve.precision, strict=True) if c <= share + 1e-9]
    return reached[-1] if reached else float("nan")


def _confusions(found: Sequence[Sureness]) -> Section:
    listed = curves.confusions(found)
    most = max((each.cost for each in listed), default=1.0)
    columns = [
        Column("category / attribute"),
        Column("stated"),
        Column("answered"),
        Column("cells", True),
        Column("of that value", True, percent=True),
        Column("points lost", True),
    ]
    rows: list[list[Cell]] = [
        [
            parts.where(each.category, each.attribute),
            each.truth,
            each.answered,
            each.count,
            each.share,
            Bar(each.cost / most, f"{100 * each.cost:.2f}", each.cost),
        ]
        for each in listed[:ALL_CONFUSIONS]
    ]
    caption = f"The {min(MOST_CONFUSIONS, len(rows))} dearest of {len(listed):,} confusions."
    body = (
        parts.table(columns, rows[:MOST_CONFUSIONS], caption)
        if rows
        else Html('<p class="note">Nothing is confused.</p>')
    )
    if len(rows) > MOST_CONFUSIONS:
        rest = parts.table(columns, rows[MOST_CONFUSIONS:], "The next ones.", tall=True)
        body = Html(
            parts.filtered("attribute or value", body)
            + parts.more(f"{len(rows) - MOST_CONFUSIONS} more", rest)
        )
    return Section(
        "confusions",
        "Confusions that cost most",
        body,
        "Points lost: what the mean accuracy over attributes, in per cent, would gain without this confusion. "
        "Of that value: the share of all cells stating the value.",
    )
