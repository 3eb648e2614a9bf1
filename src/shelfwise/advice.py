"""Advice: what would raise the score, in plain sentences, each supported by a number of the report.

It does not know how scores were found. Legend: m labelled rows of one attribute, v its values.
"""

import math

import numpy as np

from shelfwise.report import Line, Report
from shelfwise.trust.evidence import Evidence, Pair

#: Gain from the second half of the labels from which more of them are advised, and below which a curve is flat.
RISING, FLAT = 0.02, 0.01
#: Nearness to always giving the most frequent value at which an attribute counts as not visible.
NOT_VISIBLE = 0.03
#: Labels that both of two values need, and the share of their products told apart below which they are one.
ENOUGH, TOLD_APART = 20, 0.65
#: Labels an attribute needs for any advice, and sentences in all.
LABELS, MOST = 100, 20


def advice(report: Report, evidence: Evidence) -> tuple[str, ...]:
    """Return sentences, the most useful first.

    Args:
        report: with learning curves, where they were drawn.
        evidence: what the report was made from.
    """
    found: list[tuple[float, str]] = []
    pairs = {pair.name: pair for pair in evidence.pairs()}
    for line in report.lines:
        if line.level != "attribute" or line.metric != report.metric or line.support < LABELS:
            continue
        pair = pairs.get((str(line.category), str(line.attribute)))
        found += _on_curve(report, line)
        found += _on_values(line, pair) if pair is not None else []
    found.sort(key=lambda item: (-item[0], item[1]))
    return tuple(sentence for _, sentence in found[:MOST])


def _on_curve(report: Report, line: Line) -> list[tuple[float, str]]:
    where = f"{line.category} / {line.attribute}"
    half = report.line(f"{report.metric}@0.5", line.category, line.attribute).score
    gain = line.score - half
    majority = report.line("majority", line.category, line.attribute).score
    if line.score - majority < NOT_VISIBLE:
        said = (
            f"{where} is hardly visible in photos: {line.score:.2f} against {majority:.2f} for always giving the most "
            "frequent value. Take it from text, or leave it out."
        )
        return [(1.0, said)] if math.isnan(gain) or gain < FLAT else []
    if gain >= RISING:
        said = (
            f"More labels for {where} would help: the second half of its {line.support:,} labels brought "
            f"{gain:+.3f}."
        )
        return [(gain * 10, said)]
    return []


def _on_values(line: Line, pair: Pair) -> list[tuple[float, str]]:
    found = []
    answer_m = pair.probs.argmax(axis=1)
    size = len(pair.choice.values)
    counts = np.bincount(pair.labels * size + answer_m, minlength=size * size).reshape(size, size)
    for one in range(size):
        for other in range(one + 1, size):
            both = counts[np.ix_((one, other), (one, other))]
            least = min(pair.counts[one], pair.counts[other])
            apart = np.diag(both) / np.maximum(both.sum(axis=1), 1)
            if least >= ENOUGH and both.sum(axis=1).min() >= ENOUGH and apart.mean() < TOLD_APART:
                names = pair.choice.values[one], pair.choice.values[other]
                said = (
                    f"{line.category} / {line.attribute}: {names[0]!r} and {names[1]!r} are told apart in "
                    f"{apart.mean():.0%} of cases (a coin would reach 50 %); merge them, or state the difference "
                    "to those who label."
                )
                found.append((float(TOLD_APART - apart.mean()) * min(1.0, least / 100), said))
    return found
