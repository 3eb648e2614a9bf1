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
#: Labels an attribute needs for any advice, and sentences of each of the three kinds.
LABELS, MOST = 100, 6


def advice(report: Report, evidence: Evidence) -> tuple[str, ...]:
    """Return sentences, the most useful first.

    Args:
        report: with learning curves, where they were drawn.
        evidence: what the report was made from.
    """
    pairs = {pair.name: pair for pair in evidence.pairs()}
    kinds: tuple[list[tuple[float, str]], ...] = ([], [], [])
    for line in report.lines:
        if line.level != "attribute" or line.metric != report.metric or line.support < LABELS:
            continue
        pair = pairs.get((str(line.category), str(line.attribute)))
        kinds[0].extend(_more_labels(report, line))
        kinds[1].extend(_merge(line, pair) if pair is not None else [])
        kinds[2].extend(_not_visible(report, line))
    best = [sorted(found, key=lambda item: (-item[0], item[1]))[:MOST] for found in kinds]
    return tuple(sentence for found in best for _, sentence in found)


def _more_labels(report: Report, line: Line) -> list[tuple[float, str]]:
    gain = line.score - report.line(f"{report.metric}@0.5", line.category, line.attribute).score
    if math.isnan(gain) or gain < RISING:
        return []
    said = (
        f"More labels for {line.category} / {line.attribute} would help: the second half of its {line.support:,} "
        f"labels brought {gain:+.3f}."
    )
    return [(gain, said)]


def _not_visible(report: Report, line: Line) -> list[tuple[float, str]]:
    half = report.line(f"{report.metric}@0.5", line.category, line.attribute).score
    majority = report.line("majority", line.category, line.attribute).score
    if not line.score - majority < NOT_VISIBLE or line.score - half >= FLAT:  # nothing is said of NaN
        return []
    said = (
        f"{line.category} / {line.attribute} is hardly visible in photos: {line.score:.2f} against {majority:.2f} for "
        "always giving the most frequent value. Take it from text, or leave it out."
    )
    return [(majority - line.score, said)]


def _merge(line: Line, pair: Pair) -> list[tuple[float, str]]:
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
