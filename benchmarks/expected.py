"""Whether the score that a fit expects is the score that comes, over many resplits of the real catalogues.

For outer folds (``nested.py``) the score to expect is found as ``fit`` finds it: answers out of fold on the training
part, by a rule cross-fitted over the same folds, with a bootstrap interval over groups, and what the labels of the
fold left out will bring (``out_of_fold`` is the score without that). What comes is the score of the rule fitted on that
evidence, on the outer folds, all held out from everything. ``covered`` counts resplits in which the mean interval of
the first two outer folds holds the score over all five; ``fold_covered``, stricter, is the share of these outer
folds whose own interval holds the score of that fold alone, which is smaller and noisier.
"""

import json
import statistics
import sys
from collections import defaultdict
from functools import partial

import numpy as np

from nested import INNER, arguments, one_hot, resplits
from shelfwise.evaluate import evaluate
from shelfwise.expect import MIN_ROWS, MIN_VALUES
from shelfwise.expect import expected as expect_line
from shelfwise.trust.decide import decide, decided_out_of_fold

REPLICATES = 300
#: Outer folds of a resplit whose expectation is worked out.
ASKED = 2
scored = partial(evaluate, min_rows=MIN_ROWS, min_values=MIN_VALUES)


def main() -> int:
    found: dict[str, list[tuple[float, float, float, float, float]]] = defaultdict(list)
    alone: dict[str, list[bool]] = defaultdict(list)
    for table, seed, held in resplits(arguments(__doc__)):
        expected, parts = [], []
        for fold, each in enumerate(held):
            answers = one_hot(decide(each.evidence).answers(each.found, every_cell=True))
            parts.append((each.rows, answers))
            if fold >= ASKED:
                continue
            inside = np.ones(len(table.catalog), bool)
            inside[each.rows] = False
            train = table.catalog.select(np.flatnonzero(inside))
            report = scored(
                decided_out_of_fold(each.evidence),
                train,
                groups=each.evidence.group,
                bootstrap=REPLICATES,
            )
            half = scored(decided_out_of_fold(table.half(seed, fold)), train, bootstrap=0).score
            line = expect_line(report.line(), half, INNER)
            expected.append((line.score, line.low, line.high, report.score))
            came = evaluate(
                answers,
                table.catalog.select(each.rows),
                bootstrap=0,
                min_rows=MIN_ROWS // 5,
                min_values=MIN_VALUES,
            ).score
            alone[table.name].append(line.low <= came <= line.high)
        score = scored(table.joined(parts), table.catalog, bootstrap=0).score
        mean, low, high, plain = np.mean(np.array(expected), axis=0).tolist()
        found[table.name].append((mean, low, high, score, plain))
        print(f"{table.name}: expected {mean:.4f} [{low:.4f}, {high:.4f}], came {score:.4f}", file=sys.stderr)
    result: dict[str, object] = {"benchmark": "expected"}
    for name, rows in found.items():
        result[name] = {
            "resplits": len(rows),
            "covered": sum(low <= score <= high for _, low, high, score, _ in rows),
            "expected": round(statistics.mean(row[0] for row in rows), 4),
            "out_of_fold": round(statistics.mean(row[4] for row in rows), 4),
            "came": round(statistics.mean(row[3] for row in rows), 4),
            "interval": round(statistics.mean(row[2] - row[1] for row in rows), 4),
            "fold_covered": round(statistics.mean(alone[name]), 3),
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
