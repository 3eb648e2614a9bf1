"""Pages of scores: what a fit may expect of unseen products, and what an evaluation found.

They do not know how a score is computed; they read a report's lines and, where there is one, its evidence.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.pages import charts, curves, parts
from shelfwise.pages.certainty import measured_sections
from shelfwise.pages.charts import Dot
from shelfwise.pages.curves import Measured
from shelfwise.pages.numbers import WORDS as NUMBER_WORDS
from shelfwise.pages.numbers import number_facts, number_sections, of_numbers, top_of_numbers
from shelfwise.pages.parts import Bar, Cell, Column, Html, Section, esc, percent, span
from shelfwise.pages.run import training_sections
from shelfwise.plaintext import show
from shelfwise.report import Line, Report
from shelfwise.trust.decide import decided_out_of_fold

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle

#: The promise that is shown where a run makes none.
SHOWN_PROMISE = 0.95
#: Categories, and pairs of category and attribute, that are drawn: the biggest; tables may hold more.
MOST_CATEGORIES, MOST_PAIRS, MOST_ROWS = 40, 40, 1000
#: Weakest values listed, and labels a value needs to be listed.
MOST_VALUES, ENOUGH = 300, 20
WORDS = {
    "harmonic_f1": "harmonic F1",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "weighted_f1": "weighted F1",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    **NUMBER_WORDS,
}


def fit_page(
    report: Report,
    measured: Measured | None = None,
    *,
    source: str = "a bundle",
    advice: Sequence[str] = (),
    facts: Sequence[tuple[str, str]] = (),
    training: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the page of a fit: what to expect on unseen products.

    Args:
        report: measured out of fold.
        measured: the evidence behind it, for reliability, precision against coverage, and confusions.
        source: what was learnt from, such as the table's name.
        advice: sentences about what would help.
        facts: more short facts for the top: what, and how much.
        training: the epochs of what was trained by steps (``train.track.epochs_of``).
    """
    sections = [*_scores(report), *measured_sections(measured), *number_sections(report, measured)]
    sections += _learning(report, advice)
    sections += [*training_sections(training), *_values(report)]
    title = "What to expect on products it has not seen"
    return parts.page("fit", source, title, _top(report, measured, facts), [*sections, *_notes(report)])


def evaluation_page(
    report: Report,
    measured: Measured | None = None,
    *,
    source: str = "a table",
    facts: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of an evaluation: how answers compare with the truth.

    Args:
        report: of the answers.
        measured: probabilities beside the truth, where there are probabilities.
        source: what was evaluated.
        facts: more short facts for the top.
    """
    sections = [*_scores(report), *measured_sections(measured), *number_sections(report, measured)]
    sections += [*_values(report), *_notes(report)]
    title = "How the answers compare with the truth"
    return parts.page("evaluation", source, title, _top(report, measured, facts), sections)


def bundle_page(
    bundle: "Bundle", measured: Measured | None = None, *, source: str = "", advice: Sequence[str] = ()
) -> str:
    """Return the page of a bundle: its report, and the evidence it keeps.

    Args:
        bundle: fitted or loaded.
        measured: by default the bundle's own evidence, if it keeps any, under the promise of its run file, or
            of 0.95 where that has none.
        source: by default the name of the table it was learnt from.
        advice: sentences about what would help; by default the report's.
    """
    name = source or Path(bundle.run.data.catalog).name
    facts = [("recipe", bundle.recipe.name)]
    if measured is None:
        measured = _kept(bundle)
    training = getattr(bundle.predictor, "training", ())
    given = advice or bundle.report.advice
    return fit_page(bundle.report, measured, source=name, advice=given, facts=facts, training=training)


def _kept(bundle: "Bundle") -> Measured | None:
    """What the bundle's own evidence shows: calibrated and not, decided, and under a promise."""
    if bundle.evidence is None or bundle.calibrated is None or bundle.rule is None:
        return None if bundle.evidence is None else Measured(bundle.evidence)
    aim = bundle.run.decide.aim
    if not bundle.report.categories:
        return Measured(bundle.calibrated, bundle.evidence, aim=aim)
    precision = bundle.run.decide.precision or SHOWN_PROMISE
    kept = bundle.promise(precision)
    decided = decided_out_of_fold(bundle.evidence, bundle.report.metric, costs=bundle.rule.costs)
    return Measured(
        bundle.calibrated,
        bundle.evidence,
        {name: part.threshold for name, part in kept.pairs.items()},
        precision,
        {block.category: block.candidate for block in decided.blocks},
        aim,
    )


def _metric(report: Report) -> str:
    return WORDS.get(report.metric, report.metric)


def _top(report: Report, measured: Measured | None, facts: Sequence[tuple[str, str]]) -> Html:
    if of_numbers(report):
        return top_of_numbers(report, facts)
    line, metric = report.expected, _metric(report)
    interval = f" with a 95 % interval of {span(line.low, line.high)}" if not math.isnan(line.low) else ""
    majority = report.line("majority").score
    said = Html(
        f"<strong>{esc(metric)}</strong>{esc(interval)}: the mean over categories of the mean over their "
        "attributes."
        + (
            f" Always answering the most frequent value would give {show(majority)}."
            if math.isfinite(majority)
            else ""
        )
    )
    strip = None
    if math.isfinite(line.score) and 0 <= line.score <= 1:
        others = [("most frequent value " + show(majority), majority)]
        # Both sides with what the labels of the fold left out will bring.
        random = report.line("random_split").score + line.score - report.line().score
        others.append((f"a random split would claim {show(random)}", random))
        ends = "" if math.isnan(line.low) else f" ({span(line.low, line.high)})"
        dot = Dot("", line.score, line.low, line.high, text=show(line.score) + ends)
        told = f"{metric} {show(line.score)}, interval {span(line.low, line.high)}; " + "; ".join(
            text for text, value in others if math.isfinite(value)
        )
        strip = charts.strip("strip", dot, others, f"{metric} on a line from 0 to 1", told)
    return parts.hero(show(line.score), said, strip, parts.facts([*_facts(report, measured), *facts]))


def _facts(report: Report, measured: Measured | None) -> Iterator[tuple[str, str]]:
    yield "products", f"{report.rows:,}"
    yield "labelled cells", f"{report.line().support:,}"
    yield "categories", f"{len(report.categories):,}"
    yield "attributes", f"{len(report.of('attribute')):,}"
    for name, what in (("cells_right", "cells right"), ("rows_right", "products with every cell right")):
        if math.isfinite(score := report.line(name).score):
            yield what, percent(score, 1)
    ece = report.line("ece").score
    if measured is not None and (found := curves.sureness(measured.after)):
        ece = curves.reliability(found)[1]
    if math.isfinite(ece):
        yield "calibration error", show(ece)
    yield from number_facts(report)
    if report.errors:
        yield "products with an error", f"{report.errors:,}"


def _scores(report: Report) -> Iterator[Section]:
    """Yield the scores of all, of categories and of attributes."""
    if of_numbers(report):
        return
    categories = sorted(report.categories, key=lambda line: -line.support)
    shown = categories[:MOST_CATEGORIES]
    attributes: dict[str | None, list[Line]] = {}
    for line in report.of("attribute"):
        attributes.setdefault(line.category, []).append(line)
    metric = _metric(report)
    limit = (
        f" The {MOST_CATEGORIES} biggest of {len(categories):,} categories are drawn."
        if len(categories) > len(shown)
        else ""
    )
    yield Section(
        "scores",
        "Score per category and attribute",
        Html(
            _overview(report, shown)
            + _panels(report, shown, attributes)
            + _score_table(report, categories, attributes)
        ),
        f"{metric[:1].upper() + metric[1:]}, 0 to 1. The dot is the score, the whisker its 95 % interval, the thin "
        f"tick what always answering the most frequent value would score.{limit}",
    )


def _dot(report: Report, line: Line, label: str, strong: bool = False) -> Dot:
    other = report.line("majority", line.category, line.attribute).score
    return Dot(label, line.score, line.low, line.high, other, show(line.score), "o", strong)


def _scale(rows: Sequence[Dot]) -> charts.Scale:
    """The axis of scores: 0 to 1, unless a metric goes beyond."""
    ends = [end for row in rows for end in (row.score, row.high, row.other) if math.isfinite(end)]
    most = max(ends, default=1.0)
    if most <= 1:
        return charts.SHARES
    high = math.ceil(most * 10) / 10
    return charts.Scale(0, high, ((0, "0"), (high / 2, f"{high / 2:g}"), (high, f"{high:g}")))


def _overview(report: Report, categories: Sequence[Line]) -> Html:
    if len(categories) < 2:
        return Html("")
    best_first = sorted(categories, key=lambda line: -line.score if math.isfinite(line.score) else 9)
    rows = [_dot(report, report.line(), "All", True)]
    rows += [_dot(report, line, str(line.category)) for line in best_first]
    chart = charts.dots("all", rows, _scale(rows), "Score per category", charts.described(rows))
    head = Html("<h3>All categories</h3>")
    return Html(f'<div class="panels">{parts.figure(chart, heading=head)}')


def _panels(report: Report, shown: Sequence[Line], attributes: dict[str | None, list[Line]]) -> Html:
    figures = []
    for number, line in enumerate(shown):
        rows = [_dot(report, each, str(each.attribute)) for each in attributes.get(line.category, [])]
        rows.sort(key=lambda row: -row.score if math.isfinite(row.score) else 9)
        if not rows:
            continue
        title = f"Score per attribute of {line.category}"
        chart = charts.dots(
            f"category{number}", rows[:MOST_PAIRS], _scale(rows), title, charts.described(rows)
        )
        head = Html(
            f'<h3>{parts.name(line.category)} <span class="aside">{show(line.score)} · '
            f"{line.support:,} labels</span></h3>"
        )
        figures.append(parts.figure(chart, heading=head))
    opened = "" if len(shown) > 1 else '<div class="panels">'
    return Html(f"{opened}{''.join(figures)}</div>")


def _score_table(
    report: Report, categories: Sequence[Line], attributes: dict[str | None, list[Line]]
) -> Html:
    others = [
        name
        for name in ("micro_f1", "macro_f1", "majority", "coverage", "ece")
        if name != report.metric and any(math.isfinite(line.score) for line in report.of("attribute", name))
    ]
    heads = {"majority": "most frequent value", "coverage": "answered", "ece": "calibration error"}
    columns = [
        Column("category / attribute"),
        Column("labels", True),
        Column(_metric(report), True),
        Column("from", True),
        Column("to", True),
        *(
            Column(heads.get(name, WORDS.get(name, name)), True, percent=name == "coverage")
            for name in others
        ),
    ]
    lines = [report.line()]
    for line in categories:
        lines += [line, *attributes.get(line.category, [])]
    rows: list[list[Cell]] = []
    for line in lines[:MOST_ROWS]:
        where = parts.where(line.category, line.attribute)
        rest = [report.line(name, line.category, line.attribute).score for name in others]
        rows.append([where, line.support, line.score, line.low, line.high, *rest])
    cap = (
        ""
        if len(lines) <= MOST_ROWS
        else f" The first {MOST_ROWS:,} of {len(lines):,}; the rest is in the report file."
    )
    made = parts.table(
        columns, rows, f"Scores with 95 % intervals.{cap}", tall=len(rows) > 30, first_is_sum=True
    )
    return parts.more("The numbers", parts.filtered("category or attribute", made))


def _learning(report: Report, advice: Sequence[str]) -> Iterator[Section]:
    """Yield the learning curves, where the report has them, and the advice they support."""
    found: dict[str, dict[str, list[float]]] = {}
    pattern = re.compile(re.escape(report.metric) + r"@(0\.25|0\.5|1)$")
    for line in report.lines:
        hit = pattern.match(line.metric) if line.level == "attribute" else None
        if hit:
            curve = found.setdefault(str(line.category), {}).setdefault(
                str(line.attribute), [float("nan")] * 3
            )
            curve[("0.25", "0.5", "1").index(hit.group(1))] = line.score
    if not found and not advice:
        return
    figures: list[Html] = []
    rows: list[list[Cell]] = []
    sizes = {str(line.category): line.support for line in report.categories}
    ordered = sorted(found, key=lambda category: -sizes.get(category, 0))
    for number, category in enumerate(ordered):
        lines = sorted(
            found[category].items(), key=lambda item: -item[1][-1] if math.isfinite(item[1][-1]) else 9
        )
        rows += [[parts.where(category, name), *curve, curve[2] - curve[1]] for name, curve in lines]
        if number < MOST_CATEGORIES:
            told = "; ".join(
                f"{name} from {show(curve[0], 2)} to {show(curve[2], 2)}" for name, curve in lines[:8]
            )
            chart = charts.learning(
                f"learn{number}", lines[:20], f"Learning curves of {category}", told + "."
            )
            figures.append(parts.figure(chart, heading=Html(f"<h3>{parts.name(category)}</h3>")))
    columns = [Column("category / attribute")]
    columns += [Column(text, True) for text in ("a quarter", "half", "all")]
    columns.append(Column("last doubling", True, signed=True))
    body = parts.sentences(advice) if advice else Html("")
    if figures:
        made = parts.table(columns, rows[:MOST_ROWS], "Score by share of the labels.", tall=len(rows) > 30)
        body = Html(
            f'{body}<div class="panels after">{"".join(figures)}</div>{parts.more("The numbers", made)}'
        )
    yield Section(
        "learning",
        "Would more labels help?",
        body,
        "Score with a quarter, half and all of the labels. Solid lines still gained more than 0.01 from the last "
        "doubling; dashed ones did not." if figures else "",
    )  # fmt: skip


def _values(report: Report) -> Iterator[Section]:
    lines = sorted(
        (line for line in report.of("value", "f1") if line.support >= ENOUGH and math.isfinite(line.score)),
        key=lambda line: line.score,
    )
    if not lines:
        return
    columns = [Column("category / attribute"), Column("value"), Column("labels", True)]
    columns += [Column(text, True) for text in ("precision", "recall", "F1")]
    rows: list[list[Cell]] = [
        [
            parts.where(line.category, line.attribute),
            line.value,
            line.support,
            report.line("precision", *line[1:4]).score,
            report.line("recall", *line[1:4]).score,
            Bar(line.score, show(line.score), line.score),
        ]
        for line in lines[:MOST_VALUES]
    ]
    caption = f"The {len(rows):,} weakest of {len(lines):,} values with {ENOUGH} labels or more."
    listed = parts.filtered("attribute or value", parts.table(columns, rows, caption, tall=True))
    yield Section("values", "Weakest values", listed, "Values it finds hardest to tell, the weakest first.")


def _notes(report: Report) -> Iterator[Section]:
    lines = list(report.notes)
    if report.bootstrap:
        lines.append(
            f"Intervals are 95 % bias-corrected bootstrap intervals: {report.bootstrap:,} replicates of "
            f"{report.groups:,} groups, seed {report.seed}."
        )
    if report.answered_only:
        lines.append("Cells without an answer were left out instead of counted as wrong.")
    if lines:
        yield Section("notes", "How this was measured", parts.sentences(lines))
