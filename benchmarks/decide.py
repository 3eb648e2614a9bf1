"""What deciding for the metric is worth: nested, over many resplits, against the best plain rule.

Baselines are softmax regressions on the same features and folds: the most probable value of the plain one, of the
one with balanced class weights, and of the geometric mean of both. ``argmax`` is the most probable value of the
default recipe, ``heads_only`` the rule fitted on the recipe's heads alone, without the look-alikes' opinion. The
rule is fitted on evidence that is held out, inside folds that are held out from everything (``nested.py``).

``gain`` is the decided score minus the best baseline of the resplit's catalogue, the mean over resplits; a line per
attribute, with the mean ends of its bootstrap intervals over groups, goes to stderr.
"""

import json
import statistics
import sys
from collections import defaultdict
from dataclasses import replace

import numpy as np

from nested import Held, Table, arguments, one_hot, resplits
from shelfwise.answers import Answers
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import MIN_ROWS, MIN_VALUES
from shelfwise.predictions import Block, Predictions
from shelfwise.trust.decide import decide
from shelfwise.trust.evidence import Evidence

BASELINES = ("plain", "balanced", "geometric")
REPLICATES = 200


def geometric(one: Predictions, other: Predictions) -> Predictions:
    """The geometric mean of two sets of probabilities; only its order of values matters here."""
    blocks = tuple(
        Block(a.category, a.rows, np.sqrt(np.maximum(a.probs * b.probs, 1e-30)))
        for a, b in zip(one.blocks, other.blocks, strict=True)
    )
    return replace(one, blocks=blocks)


def first_opinion(evidence: Evidence) -> Evidence:
    """The evidence of the heads alone."""
    blocks = tuple(
        replace(b, probs=b.opinions[0] if b.opinions else b.probs, opinions=()) for b in evidence.blocks
    )
    return replace(evidence, blocks=blocks)


def heads(found: Predictions) -> Predictions:
    """The predictions of the heads alone."""
    blocks = tuple(Block(b.category, b.rows, b.opinions[0] if b.opinions else b.probs) for b in found.blocks)
    return replace(found, blocks=blocks)


def entries(table: Table, held: list[Held]) -> dict[str, Predictions]:
    """All that is compared, each joined over the outer folds."""
    rules = [decide(each.evidence) for each in held]
    alone = [decide(first_opinion(each.evidence)) for each in held]
    parts = {
        "plain": [each.plain for each in held],
        "balanced": [each.balanced for each in held],
        "geometric": [geometric(each.plain, each.balanced) for each in held],
        "argmax": [each.found for each in held],
        "heads_only": [
            one_hot(r.answers(heads(h.found), every_cell=True)) for r, h in zip(alone, held, strict=True)
        ],
        "decided": [one_hot(r.answers(h.found, every_cell=True)) for r, h in zip(rules, held, strict=True)],
    }
    return {
        name: table.joined([(h.rows, found) for h, found in zip(held, each, strict=True)])
        for name, each in parts.items()
    }


def main() -> int:
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    gains: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for table, _, held in resplits(arguments(__doc__)):
        found = entries(table, held)
        for name, predictions in found.items():
            report = evaluate(
                predictions, table.catalog, bootstrap=0, min_rows=MIN_ROWS, min_values=MIN_VALUES
            )
            scores[table.name][name].append(report.score)
        best = max(BASELINES, key=lambda name: scores[table.name][name][-1])
        pair: list[tuple[str, Predictions | Answers]] = [(best, found[best]), ("decided", found["decided"])]
        compared = compare(
            pair,
            table.catalog,
            groups=table.groups,
            bootstrap=REPLICATES,
            min_rows=MIN_ROWS,
            min_values=MIN_VALUES,
        )
        for line in compared.differences:
            if line.level == "attribute":
                gains[table.name, str(line.category), str(line.attribute)].append(
                    (line.difference, line.low, line.high)
                )
    for where, ends in sorted(gains.items()):
        gain, low, high = np.mean(np.array(ends, float), axis=0)
        print(f"{' / '.join(where):45} {gain:+.3f} [{low:+.3f}, {high:+.3f}]", file=sys.stderr)
    result: dict[str, object] = {"benchmark": "decide"}
    for name, found_scores in scores.items():
        mean = {key: statistics.mean(values) for key, values in found_scores.items()}
        bar = max(mean[key] for key in BASELINES)
        each = [
            d - max(row)
            for d, *row in zip(found_scores["decided"], *(found_scores[b] for b in BASELINES), strict=True)
        ]
        result[name] = {
            **{key: round(value, 4) for key, value in mean.items()},
            "gain": round(mean["decided"] - bar, 4),
            "lowest_gain": round(min(each), 4),
            "resplits": len(each),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
