"""How often a value that became three times as frequent is found by ``drift``, and how often nothing that changed is.

Bundles are those of ``nested``: for every resplit and outer fold of a catalogue, evidence out of fold of four fifths,
and what a recipe fitted on them says of the fifth. ``alarms`` counts folds with any report on shares, confidence or
numbers; ``alarms_500`` the same for 500 products of the fold. Then every value that 3 to 20 % of the fold's products of
a category state is made three times as frequent by leaving others out at random: ``now`` is the share found under its
name, ``before`` the share found by the likelihood ratio of the shares of answers at Benjamini and Yekutieli's level, as
``drift`` did at first. ``_300`` are plants of at least 300 products.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nested import Held, Table, arguments, resplits
from shelfwise.drift.compared import DEALS, FAMILIES, judged
from shelfwise.drift.fingerprint import Fingerprint
from shelfwise.drift.lines import LEAST_EFFECT, Comparison, Cut
from shelfwise.predictions import Block, Predictions
from shelfwise.trust.calibrate import calibrate, out_of_fold
from shelfwise.trust.evidence import Evidence, EvidenceBlock
from shelfwise.trust.permuted import Values
from shelfwise.trust.shift import LEAST, Stratum, false_discoveries, sampled, shares

RATE, SMALL, LARGE = 0.01, 500, 300
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Plant:
    """One value made three times as frequent: of how many products, and whether it was found."""

    products: int
    before: bool
    now: bool


def seen(said: Predictions | Evidence, group: Ints) -> Fingerprint:
    """Return answers as a fingerprint without pictures."""
    blocks: tuple[Block, ...] | tuple[EvidenceBlock, ...] = said.blocks
    category = np.full(len(said.ids), -1, np.int64)
    for block in blocks:
        category[block.rows] = said.taxonomy.category_codes[block.category]
    kept, none = {block.category: (block.rows, block.probs) for block in blocks}, np.zeros(0, np.int64)
    places = np.zeros((0, 2), np.float32)
    return Fingerprint(
        said.taxonomy, said.ids, category, group, kept, {}, (), none, none, places, np.zeros(0)
    )


def alarm(before: Fingerprint, after: Fingerprint, chosen: npt.NDArray[np.bool_]) -> bool:
    """Return whether anything is reported of some of the later products."""
    none = np.zeros(0, bool)
    cut = Cut(None, None, np.ones(len(before.ids), bool), none, chosen, none)
    (lines,) = judged([Comparison(before, after, cut, {})], RATE, 1)
    return any(line.drift for line in lines)


def plants(
    table: Table, held: Held, before: Fingerprint, after: Fingerprint, rng: np.random.Generator
) -> list[Plant]:
    """Plant every value of every category, and say what is found."""
    every, none = np.ones(len(after.ids), bool), np.zeros(0, bool)
    whole = Comparison(before, after, Cut(None, None, np.ones(len(before.ids), bool), none, every, none), {})
    deals = int(DEALS * FAMILIES / RATE)
    least = np.min([each.by_chance(deals, seed) for seed, each in enumerate(whole.values.values())], axis=0)
    limit, others = float(np.sort(least)[DEALS - 1]), [line.p for line in whole.lines()]
    found, catalog = [], table.catalog
    for name in whole.values:
        (rows, probs), (later, said) = before.blocks[name], after.blocks[name]
        position = {row: at for at, row in enumerate(catalog.rows(name).tolist())}
        own = [position.get(row, -1) for row in held.rows[later].tolist()]
        labels = np.where(np.array(own)[:, None] < 0, -1, catalog.labels(name)[own])
        for a, part in enumerate(catalog.taxonomy.slices(name)):
            for value in range(part.stop - part.start if part.stop - part.start > 1 else 0):
                stated = labels[:, a] == value
                count, share = int(stated.sum()), float(stated.mean())
                if not 0.03 <= share <= 0.2 or count < 10:
                    continue
                many = round(count * (1 - 3 * share) / (3 * share))
                left = rng.permutation(np.flatnonzero(~stated))[:many]
                kept = np.sort(np.concatenate([np.flatnonzero(stated), left]))
                groups = before.group[rows], after.group[later[kept]]
                if len(np.unique(groups[1])) < LEAST:
                    continue
                both, width = (probs[:, part], said[kept][:, part]), part.stop - part.start
                answers = [np.eye(width)[each.argmax(axis=1)] for each in both]
                told = shares(Stratum(sampled(answers[0], groups[0]), sampled(answers[1], groups[1])))
                large = told.effect >= LEAST_EFFECT["values"]
                judged_by = 2 * false_discoveries([*others, told.p])[-1] <= RATE
                pair = Stratum(sampled(both[0], groups[0]), sampled(both[1], groups[1]))
                p_A, most_A = Values(pair, (slice(0, width),)).likely()
                now = p_A[0] <= limit and most_A[0] == value
                found.append(
                    Plant(len(kept), bool(judged_by and large and told.most == value), bool(now and large))
                )
    return found


def fold(table: Table, held: Held, seed: int) -> tuple[bool, bool, list[Plant]]:
    """Return the alarms and the plants of one outer fold."""
    rng, calibration = np.random.default_rng(seed), calibrate(held.evidence)
    before = seen(out_of_fold(held.evidence), held.evidence.group)
    after = seen(calibration.apply(held.found), table.groups[held.rows])
    some = np.isin(np.arange(len(after.ids)), rng.permutation(len(after.ids))[:SMALL])
    found = plants(table, held, before, after, rng)
    return alarm(before, after, np.ones(len(after.ids), bool)), alarm(before, after, some), found


def main() -> int:
    given = arguments(__doc__)
    found: dict[str, list[tuple[bool, bool, list[Plant]]]] = {}
    for table, seed, folds in resplits(given):
        for at, held in enumerate(folds[: 1 if given.quick else None]):
            found.setdefault(table.name, []).append(fold(table, held, 10 * seed + at))
            alarms, small, planted = found[table.name][-1]
            print(table.name, seed, at, alarms, small, len(planted), file=sys.stderr, flush=True)
    result: dict[str, Any] = {"benchmark": "drift_values", "rate": RATE}
    for name, runs in found.items():
        every = [plant for _, _, planted in runs for plant in planted]
        large = [plant for plant in every if plant.products >= LARGE]
        result[name] = {
            "folds": len(runs),
            "alarms": sum(run[0] for run in runs),
            "alarms_500": sum(run[1] for run in runs),
        }
        for label, chosen in (("", every), ("_300", large)):
            if chosen:
                before, now = ([getattr(plant, key) for plant in chosen] for key in ("before", "now"))
                result[name][f"plants{label}"] = len(chosen)
                result[name][f"before{label}"] = round(float(np.mean(before)), 3)
                result[name][f"now{label}"] = round(float(np.mean(now)), 3)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
