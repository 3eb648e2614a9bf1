"""The page of the docs that ``approaches`` writes: tables, verdicts, and a chart of scores and costs.

It knows finished rows, not how they were measured.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from approach_rows import ROWS, VERDICTS, Row
from shelfwise.files import write_text
from shelfwise.pages.charts import Dot, axis, dots

Result = Mapping[str, Any]
HEADS = (
    "approach",
    "score",
    "against the reference",
    "plain",
    "by a random split",
    "fit, CPU s",
    "wall s",
    "photos a core-second",
    "MB",
    "peak MB",
)
GROUPS = {
    "floors": "Floors",
    "retrieval": "Votes of the nearest products",
    "heads": "Heads on frozen features",
    "ensembles": "Two networks together",
    "sharing": "One model or many",
    "missing": "Missing labels",
    "views": "What is seen of a photo",
    "labels": "What is made of the labels",
    "tuned": "Fine-tuned, one fold",
}
#: What the page's colours are in a file of its own, light and dark.
STYLE = """<style>
svg{--ink:#22232a;--soft:#5c5d66;--faint:#8b8c93;--rule:#e0ddd4;--grid:#ebe8e0;--accent:#0a6a57;--tint:#d9ebe5;
--card:#fff;--wash:#f3f1ea;font-family:system-ui,sans-serif}
@media (prefers-color-scheme:dark){svg{--ink:#e9e7e1;--soft:#a9aab0;--faint:#7d7f86;--rule:#32363c;--grid:#282b31;
--accent:#62cdb3;--tint:#1d3b35;--card:#1a1d21;--wash:#202327}}
</style>"""
TEXT = """# What helps, measured

Ways to fill in a catalogue from its photos, on two catalogues, under one split, with what each costs. The form is that
of the results table of a system for the visual taxonomy challenge ([there](reproduce-meesho.md)); the data are others.

**How to read it.** *Score*: harmonic F1 of answers decided for it, five folds with near-duplicate groups kept whole,
calibration and decision cross-fitted over the same folds; 95 % intervals over groups. *Against the reference*
(Lite0, own heads and votes: the default until heads were shared): paired, on the same products and replicates.
*Plain*: the most probable value instead. *By a random split*: what a split that ignores near-duplicates would have
claimed of *plain*: more by as much as models learnt under such a split score on the same products. *Fit*: one fit on
four fifths of the products, vectors of photos ready, in a process of its own. *Photos a core-second*: answered from the
files, nothing known of them. *MB*: what was learnt and the network it looks through. Times were taken on a busy machine
of two cores: CPU seconds compare, wall seconds hardly. An ensemble's costs are the sums of its members'; where its
weights are learnt, each member is fitted six times. A row that is missing has not been measured yet.

**Which heads.** `own heads` are each category's own, on Lite0's features: these rows and the reference leave out the
heads that categories share, which came later. `own and shared heads` have both kinds, Lite2's row too. `the default
probe` is Lite0 with own heads, shared heads and the look-alikes' votes. Of `lite0 + lite2` the members are Lite0's own
heads and Lite2's own and shared ones. What is seen of a photo, what is made of the labels and what is done about
missing ones are changes of the default probe, and their verdicts compare them with it too.

```text
python benchmarks/approaches.py --page docs/approaches.md
python benchmarks/approaches.py --heavy --page docs/approaches.md
```

The second line adds the rows of fine-tuned networks, one at a time. A run that is stopped goes on where it was.
"""


def write(path: Path, found: Mapping[str, Mapping[str, Result]]) -> None:
    """Write the page, and its charts into ``images`` beside it."""
    parts = [TEXT]
    for name, rows in found.items():
        count = next(iter(rows.values()))["rows"]
        parts.append(f"\n## {name.capitalize()}: {count:,} products\n\n")
        picture = path.parent / "images" / f"approaches-{name}.svg"
        write_text(picture, chart(name, rows))
        parts.append(f"![{described(rows)}](images/{picture.name})\n\n")
        parts.append(table(rows))
    parts.append("\n## Verdicts\n\n| approach | verdict |\n|---|---|\n")
    for row in ROWS.values():
        judged = {name: rows[row.name] for name, rows in found.items() if row.name in rows}
        if judged:
            parts.append(f"| {row.name} | {verdict(row, judged)} |\n")
    write_text(path, "".join(parts))


def table(rows: Mapping[str, Result]) -> str:
    """Return one catalogue's table, a group of rows after the other."""
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for group, title in GROUPS.items():
        there = [row for row in ROWS.values() if row.group == group and row.name in rows]
        if there:
            lines.append(f"| **{title}** |" + " |" * (len(HEADS) - 1))
            lines += [f"| {' | '.join([row.name, *cells(rows[row.name])])} |" for row in there]
    return "\n".join(lines) + "\n"


def cells(result: Result) -> list[str]:
    """Return what stands beside the name of a row."""
    score, low, high = result["score"]
    more, fast = result.get("random_more"), result.get("photos_per_core_second", math.inf)
    return [
        f"{score:.3f} [{low:.3f}, {high:.3f}]",
        between(result["gain"]) if "gain" in result else "",
        f"{result['plain']:.3f}",
        "" if more is None else f"{result['plain'] + more:.3f}",
        seconds(result["fit_cpu"]),
        seconds(result["fit_wall"]) if "fit_wall" in result else "",
        f"{fast:.0f}" if fast < 5000 else "",
        f"{result['mb']:.0f}" if result["mb"] >= 1 else "< 1",
        f"{result['peak_mb']:,.0f}" if "peak_mb" in result else "",
    ]


def between(three: Sequence[float]) -> str:
    """Return a difference with its interval."""
    return f"{three[0]:+.3f} [{three[1]:+.3f}, {three[2]:+.3f}]"


def seconds(value: float) -> str:
    """Return seconds with two digits."""
    return "< 0.1" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def verdict(row: Row, judged: Mapping[str, Result]) -> str:
    """Say what was found, by catalogue, and what follows from it."""
    said = []
    for name, result in judged.items():
        if "gain" not in result:
            continue
        value, low, high = result["gain"]
        how = (
            "better than the reference"
            if low > 0
            else "worse than the reference"
            if high < 0
            else "not told apart from it"
        )
        said.append(f"{name}: {how} ({value:+.3f})")
        if "gain_to_base" in result:
            said[-1] += f", {between(result['gain_to_base'])} against {row.base}"
    text = VERDICTS.get(row.name, "")
    return " ".join(part for part in ("; ".join(said) + "." if said else "", text) if part)


def described(rows: Mapping[str, Result]) -> str:
    """Say a chart in words."""
    order = sorted(rows, key=lambda name: -rows[name]["score"][0])[:3]
    told = "; ".join(f"{name} {rows[name]['score'][0]:.3f}" for name in order)
    return f"Score, its interval and CPU seconds of a fit; the highest: {told}."


def chart(name: str, rows: Mapping[str, Result]) -> str:
    """Return an SVG file: a line a row, the best first, its score and interval on it and its cost beside; no floors."""
    shown = {key: at for key, at in rows.items() if ROWS[key].group != "floors"}
    scale = axis([end for at in shown.values() for end in at["score"]])
    if scale is None:
        raise ValueError(f"{name}: no row has a score")
    lines = []
    for key in sorted(shown, key=lambda key: -shown[key]["score"][0]):
        score, low, high = shown[key]["score"]
        cost = f"{score:.3f}, {seconds(shown[key]['fit_cpu'])} s"
        lines.append(Dot(key, score, low, high, text=cost, strong="gain" not in shown[key]))
    title = f"Score, and CPU seconds of a fit, {name}"
    body = dots(f"approaches-{name}", lines, scale, title, described(rows), width=720, label=236, number=96)
    opened = body.replace('<svg class="chart"', '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    head, _, rest = opened.partition(">")
    return f"{head}>{STYLE}{rest}\n"
