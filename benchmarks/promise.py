"""Whether a promised precision is kept, and what it costs in coverage, over many resplits of the real catalogues.

Thresholds come from evidence inside the training part; the rows they are tested on were held out from everything
(``nested.py``). For every promise: ``coverage`` over all labelled cells, ``hindsight`` the same for the lowest
threshold of each attribute whose precision on the tested rows themselves holds (prefixes of 50 rows or more), ``ratio``
of the two, ``precision`` of all answered cells, and ``rejected``, the share of attributes with at least 300 labelled
and 30 answered rows whose precision a one-sided binomial test over groups, at 5 %, finds below the promise. ``ece`` is
the mean calibration error over attributes with 300 or more labelled rows, after and before calibration.
"""

import json
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nested import Held, Table, arguments, resplits
from shelfwise.metrics import expected_calibration_error
from shelfwise.trust.calibrate import calibrate, out_of_fold
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.promise import OVER, promise, tail

PRECISIONS, CONFIDENCES = (0.90, 0.95, 0.98), (0.95, 0.90)
LABELS, ANSWERED, PREFIX = 300, 30, 50
Floats = npt.NDArray[np.float64]
Way = tuple[str, float, float]


@dataclass(frozen=True, eq=False)
class Cells:
    """The labelled cells of one attribute, over all outer folds.

    Attributes:
        sure, right: calibrated confidence of the most probable value, and whether it is right. [m]
        group: near-duplicate group. [m]
        before, before_right: the same two before calibration. [m]
        answered: by way of promising, whether the cell is answered. [m]
    """

    sure: Floats
    right: npt.NDArray[np.bool_]
    group: npt.NDArray[np.int64]
    before: Floats
    before_right: npt.NDArray[np.bool_]
    answered: dict[Way, npt.NDArray[np.bool_]]


def ways() -> list[Way]:
    return [
        (over, p, c)
        for over in OVER
        for p in PRECISIONS
        for c in (CONFIDENCES if over == OVER[0] else CONFIDENCES[1:])
    ]


def cells(table: Table, held: list[Held]) -> dict[tuple[str, str], Cells]:
    """Answer every outer fold under every promise, and put the cells together by attribute."""
    parts: dict[tuple[str, str], list[Cells]] = defaultdict(list)
    for each in held:
        known = out_of_fold(each.evidence)
        promises = {(over, p, c): promise(known, p, c, over) for over, p, c in ways()}
        truth, groups = table.catalog.select(each.rows), table.groups[each.rows]
        raw = Evidence.of(each.found, truth, groups)
        after = Evidence.of(calibrate(each.evidence).apply(raw.predictions()), truth, groups)
        for one, two in zip(after.pairs(), raw.pairs(), strict=True):
            if not len(one.labels) or one.probs.shape[1] < 2:
                continue
            sure = one.probs.max(axis=1).astype(np.float64)
            parts[one.name].append(
                Cells(
                    sure,
                    one.probs.argmax(axis=1) == one.labels,
                    one.group,
                    two.probs.max(axis=1).astype(np.float64),
                    two.probs.argmax(axis=1) == two.labels,
                    {way: sure >= kept.threshold(one.name) for way, kept in promises.items()},
                )
            )
    return {name: _together(each) for name, each in parts.items()}


def _together(parts: list[Cells]) -> Cells:
    sure, right, group, before, before_right = (
        np.concatenate([getattr(part, field) for part in parts])
        for field in ("sure", "right", "group", "before", "before_right")
    )
    answered = {way: np.concatenate([part.answered[way] for part in parts]) for way in parts[0].answered}
    return Cells(sure, right, group, before, before_right, answered)


def hindsight(each: Cells, precision: float) -> int:
    """Cells above the lowest threshold that holds on these very cells."""
    right = np.cumsum(each.right[np.argsort(-each.sure, kind="stable")])
    rows = np.arange(1, len(right) + 1)
    holding = np.flatnonzero((right / rows >= precision) & (rows >= PREFIX))
    return int(holding[-1]) + 1 if len(holding) else 0


def below(each: Cells, chosen: npt.NDArray[np.bool_], precision: float) -> bool:
    """Whether the test over groups finds the precision below the promise."""
    count = np.bincount(each.group[chosen])
    there = count > 0
    wrong = np.bincount(each.group[chosen], ~each.right[chosen])[there] / count[there]
    # The chance of as many errors or more, were the promise just kept.
    return 1 - tail(float(there.sum()), max(float(wrong.sum()) - 1, 0), precision) <= 0.05 and wrong.sum() > 0


def main() -> int:
    sums: dict[str, dict[Way, list[tuple[float, float, float, float, float, float]]]] = {}
    errors: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for table, _, held in resplits(arguments(__doc__)):
        found = cells(table, held)
        counts = sums.setdefault(table.name, defaultdict(list))
        total = sum(len(each.sure) for each in found.values())
        for way in ways():
            tested = rejected = answered = right = best = 0
            for each in found.values():
                chosen = each.answered[way]
                answered, right = answered + int(chosen.sum()), right + int(each.right[chosen].sum())
                best += hindsight(each, way[1])
                if len(chosen) >= LABELS and chosen.sum() >= ANSWERED:
                    tested, rejected = tested + 1, rejected + below(each, chosen, way[1])
            counts[way].append((answered, right, best, total, tested, rejected))
        big = [each for each in found.values() if len(each.sure) >= LABELS]
        after = statistics.mean(expected_calibration_error(each.sure, each.right) for each in big)
        before = statistics.mean(expected_calibration_error(each.before, each.before_right) for each in big)
        errors[table.name].append((after, before))
    result: dict[str, object] = {"benchmark": "promise"}
    for name, counts in sums.items():
        lines = []
        for (over, precision, confidence), rows in counts.items():
            answered, right, best, total, tested, rejected = np.array(rows, float).sum(axis=0).tolist()
            lines.append(
                {
                    "over": over,
                    "promise": precision,
                    "confidence": confidence,
                    "coverage": round(answered / total, 4),
                    "hindsight": round(best / total, 4),
                    "ratio": round(answered / best, 4) if best else None,
                    "precision": round(right / answered, 4) if answered else None,
                    "rejected": round(rejected / tested, 4) if tested else None,
                    "tested": int(tested),
                }
            )
            print(name, *lines[-1].values(), file=sys.stderr)
        ece = np.array(errors[name]).mean(axis=0)
        result[name] = {
            "ece": round(float(ece[0]), 4),
            "ece_before": round(float(ece[1]), 4),
            "promises": lines,
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
