"""Claims about fine-tuning, one by one: each change against the same short fine-tune, paired.

The setting: Lite0 at 96 pixels on 1,200 fashion products, three epochs, the first three of seven stages frozen; fold k
of five grouped folds held out for seed k, the products drawn from the other four. Every change is trained on the same
products with the same seed as the baseline, for the first seed or the first two. Scored are all
held-out products: the most probable value (``plain``), and answers decided with calibration and decision cross-fitted
over five folds of the held-out groups (``decided``). A gain is the paired difference of the score over the union of
the held-out folds, with a 95 % interval by near-duplicate group; ``rare`` is the same for the recall of values that
fewer than 5 % of an attribute's labels have.

What such a setting can tell: whether a change helps a short training on few products. What it cannot: what it is worth
after long training or on a large catalogue, nor differences below about 0.01.

Every run's figures go to a JSON-lines file in the cache folder at once, its predictions beside it: run again, it goes
on where it stopped; a run is known by the options written here. The catalogue is found through ``SHELFWISE_DATA`` and
is not part of this repository.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.finetune import FineTune
from shelfwise.recipes.tuned import TunedPredictor
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLE = "fashion/catalog.csv"
PRODUCTS, SIZE, EPOCHS, RARE = 1200, 96, 3, 0.05
Ints = npt.NDArray[np.int64]
Table = dict[str, Any]


def phase(epochs: int = EPOCHS, train: Any = 10, backbone: float = 4e-4, heads: float = 6e-4) -> Table:
    """Return the table of a phase."""
    return {"epochs": epochs, "train": train, "lr": {"backbone": backbone, "heads": heads}}


def lite0(size: int) -> Table:
    """Return the table of the backbone at a size."""
    return {"name": "lite0", "size": size}


OPTIMISER = {"weight_decay": 0.05, "layer_decay": 0.92, "clip": 5.0, "warm_up": 0.1, "floor": 0.04}
BASE: Table = {"name": "finetune", "backbone": lite0(SIZE), "phases": [phase()]}
#: Heads that begin at random learn at a higher rate; what reads maps cannot begin at the probe's optimum.
RANDOM: Table = {"start": "random", "phases": [phase(heads=3e-3)]}
DEEP: Table = {"start": "random", "phases": [phase(heads=1e-3)]}
STRONG: Table = {
    "crop": {"scale": [0.5, 1.0]},
    "colour": {"probability": 0.5, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2},
}
#: What is changed: the reference it is compared with, how many seeds, and the options.
CHANGES: dict[str, tuple[str, int, Table]] = {
    "baseline": ("", 3, {}),
    "focal loss, gamma 2": ("baseline", 2, {"choice_loss": {"name": "focal", "gamma": 2.0}}),
    "no augmentation": (
        "baseline",
        2,
        {"augment": {"crop": {"probability": 0.0}, "flip": {"probability": 0.0}}},
    ),
    "heads at random": ("baseline", 2, RANDOM),
    "squeeze-and-excitation heads": (
        "heads at random",
        2,
        {**DEEP, "heads": {"name": "squeeze_excitation"}},
    ),
    "backbone at a tenth of its rate": ("baseline", 2, {"phases": [phase(backbone=4e-5)]}),
    "heads at random, an epoch of heads first": (
        "heads at random",
        2,
        {"start": "random", "phases": [phase(1, "heads", heads=3e-3), phase(heads=3e-3)]},
    ),
    "no class weights": ("baseline", 2, {"class_weight": 0.0}),
    "128 pixels": ("baseline", 2, {"backbone": lite0(128)}),
    "attention heads": (
        "heads at random",
        2,
        {**DEEP, "heads": {"name": "attention", "spatial": 128, "hidden": 256}},
    ),
    "flips when answering": ("baseline", 2, {"test_flips": True}),
    "two seeds, probabilities averaged": ("baseline", 1, {}),
    "two seeds, weights averaged (soup)": ("baseline", 1, {}),
    "strong augmentation": ("baseline", 2, {"augment": STRONG}),
    "weighted sampler, no class weights": (
        "no class weights",
        2,
        {"class_weight": 0.0, "sampler": "weighted"},
    ),
    "no averaged weights (EMA)": ("baseline", 2, {"optimiser": OPTIMISER}),
    "half way back to the start (WiSE-FT)": ("baseline", 2, {"phases": [{**phase(), "wise_ft": 0.5}]}),
    "one rate for all layers": (
        "baseline",
        2,
        {"phases": [phase(heads=4e-4)], "optimiser": {**OPTIMISER, "layer_decay": 1.0, "ema": 0.995}},
    ),
    "192 pixels": ("baseline", 1, {"backbone": lite0(192)}),
    "224 pixels": ("baseline", 1, {"backbone": lite0(224)}),
    "288 pixels": ("baseline", 1, {"backbone": lite0(288)}),
    "then an epoch of each head": ("baseline", 1, {"phases": [phase(), phase(1, "each head")]}),
}
SOUP, BLEND = "two seeds, weights averaged (soup)", "two seeds, probabilities averaged"


class Setting:
    """The catalogue and its splits.

    Args:
        quick: a few products and one epoch: shows that it works, not what it measures.
    """

    def __init__(self, quick: bool) -> None:
        whole = Catalog.read(DATA / TABLE)
        big = [whole.rows(name) for name in whole.present if len(whole.rows(name)) >= 100]
        self.catalog = whole.select(np.sort(np.concatenate(big))).remembering()
        self.groups = near_duplicates(self.catalog, cache=cache_directory())
        self.folds = self.catalog.folds(5, groups=self.groups)
        self.quick, self.products = quick, 200 if quick else PRODUCTS
        self.folder = cache_directory() / "benchmarks" / ("claims-quick" if quick else "claims")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "runs.jsonl"

    def train(self, seed: int) -> Catalog:
        """Return the products that are learnt from."""
        rows = np.random.default_rng(seed).permutation(self.folds.train(seed))
        return self.catalog.select(np.sort(rows[: self.products]))

    def test(self, seed: int) -> Ints:
        """Return the rows that are scored."""
        return self.folds.test(seed)[:300] if self.quick else self.folds.test(seed)

    def recipe(self, options: Table) -> FineTune:
        """Return the baseline with some options changed."""
        table = {**BASE, **options}
        if self.quick:
            table["phases"] = [{**each, "epochs": 1} for each in table["phases"]]
            table["backbone"] = lite0(32)
        found = make_recipe(table)
        assert isinstance(found, FineTune)
        return found


def soup(nets: Sequence[TunedPredictor]) -> TunedPredictor:
    """Return the first predictor with the mean of the weights of all (Wortsman et al. 2022, model soups)."""
    for name, net in nets[0].nets.items():
        states = [each.nets[name].network.state_dict() for each in nets]
        mean = {
            key: torch.stack([state[key].double() for state in states]).mean(dim=0).to(value.dtype)
            for key, value in states[0].items()
        }
        net.network.load_state_dict(mean)
        net.__dict__.pop("backbone", None)
    return nets[0]


def blend(parts: Sequence[Predictions]) -> Predictions:
    """Return the mean of the probabilities."""
    blocks = []
    for several in zip(*(part.blocks for part in parts), strict=True):
        blocks.append(
            replace(several[0], probs=np.mean([each.probs for each in several], axis=0), opinions=())
        )
    return replace(parts[0], blocks=tuple(blocks))


def answered(setting: Setting, name: str, seed: int) -> Predictions:
    """Train a change with a seed and answer its held-out fold."""
    recipe, train = setting.recipe(CHANGES[name][2]), setting.train(seed)
    test, machine = setting.catalog.select(setting.test(seed)), Machine()
    if name not in (SOUP, BLEND):
        return recipe.fit(train, None, machine, seed).predict(test, machine)
    # The same products and the same start; order, crops and dropout are of another seed.
    nets = [recipe.fit(train, None, machine, each) for each in (seed, seed + 10)]
    if name == BLEND:
        return blend([net.predict(test, machine) for net in nets])
    assert all(isinstance(net, TunedPredictor) for net in nets)
    return soup(nets).predict(test, machine)  # type: ignore[arg-type]


def place(setting: Setting, name: str, seed: int) -> Path:
    """Return the file of the predictions of one run."""
    made = json.dumps([name, BASE, CHANGES[name][2], setting.catalog.taxonomy.hash, setting.products])
    return setting.folder / f"{hashlib.sha256(made.encode()).hexdigest()[:16]}-{seed}.parquet"


def run(setting: Setting, name: str, seed: int) -> None:
    """Train and answer, unless that was done before."""
    path = place(setting, name, seed)
    if path.is_file():
        return
    wall, cpu = time.perf_counter(), time.process_time()
    found = answered(setting, name, seed)
    took = {"wall": round(time.perf_counter() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}
    found.save(path)
    truth = setting.catalog.select(setting.test(seed))
    score = evaluate(found, truth, min_values=2, bootstrap=0).score
    line = {"name": name, "seed": seed, "plain": round(score, 4), **took}
    with setting.file.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, file=sys.stderr, flush=True)


def seconds(setting: Setting, name: str) -> list[float]:
    """Return the CPU seconds of the runs of a change."""
    lines = [json.loads(line) for line in setting.file.read_text().splitlines()]
    return [line["cpu"] for line in lines if line["name"] == name]


def rare_cells(found: Predictions, truth: Catalog, groups_N: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield, per attribute, whether each cell of a rare value is right, and its group."""
    for pair in Evidence.of(found, truth, groups_N).pairs():
        if pair.counts.sum() and len(pair.counts) > 1:
            rare = pair.counts < RARE * pair.counts.sum()
            chosen = rare[pair.labels]
            right = pair.probs.argmax(axis=1) == pair.labels
            yield right[chosen].astype(np.int64), pair.group[chosen]


def rare_gain(two: Sequence[Predictions], truth: Catalog, groups_N: Ints) -> list[float]:
    """Return the recall of rare values of the second, its gain over the first, and the ends of its interval."""
    cells = [list(rare_cells(found, truth, groups_N)) for found in two]
    right = [np.concatenate([part for part, _ in each]) for each in cells]
    group = np.concatenate([part for _, part in cells[0]])
    _, place = np.unique(group, return_inverse=True)
    gain_G, count_G = np.bincount(place, right[1] - right[0]), np.bincount(place)
    drawn = np.random.default_rng(0)
    means = []
    for _ in range(1000):
        chosen = drawn.integers(0, len(count_G), len(count_G))
        means.append(gain_G[chosen].sum() / count_G[chosen].sum())
    ends = np.quantile(means, (0.025, 0.975))
    return [round(float(x), 4) for x in (right[1].mean(), right[1].mean() - right[0].mean(), *ends)]


def pooled(setting: Setting, name: str, seeds: Sequence[int]) -> tuple[Predictions, Answers, Catalog, Ints]:
    """Return plain and decided answers over the held-out folds of some seeds, the truth and the groups."""
    rows = np.concatenate([setting.test(seed) for seed in seeds])
    edges = np.cumsum([0, *(len(setting.test(seed)) for seed in seeds)])
    truth, groups_N = setting.catalog.select(rows), setting.groups[rows]
    parts = [
        (np.arange(edges[k], edges[k + 1]), Predictions.load(place(setting, name, seed)))
        for k, seed in enumerate(seeds)
    ]
    found = Predictions.join(parts, truth.ids)
    folds = truth.folds(5, groups=groups_N)
    answers = decided_out_of_fold(Evidence.of(found, truth, groups_N, folds.fold), "harmonic_f1")
    return found, replace(answers, errors={**answers.errors, **found.errors}), truth, groups_N


def measure(setting: Setting, name: str, seeds: int) -> Table:
    """Return the figures of one change, over the seeds that it and its reference were run with."""
    reference, most, _ = CHANGES[name]
    needed = [each for each in (name, reference) if each]
    used = [k for k in range(min(most, seeds)) if all(place(setting, n, k).is_file() for n in needed)]
    if not used:
        return {}
    found, answers, truth, groups_N = pooled(setting, name, used)
    options: Table = {"min_values": 2, "groups": groups_N}
    both: dict[str, Predictions | Answers] = {"plain": found, "decided": answers}
    row: Table = {"seeds": len(used), "cpu": seconds(setting, name)}
    row |= {k: round(evaluate(v, truth, min_values=2, bootstrap=0).score, 4) for k, v in both.items()}
    if reference:
        base, base_answers, _, _ = pooled(setting, reference, used)
        for what, first, second in (("plain", base, found), ("decided", base_answers, answers)):
            entries: Any = [("reference", first), ("change", second)]
            gain = compare(entries, truth, bootstrap=500, **options).differences[0]
            row[f"{what}_gain"] = [round(x, 4) for x in (gain.difference, gain.low, gain.high)]
        row["rare"] = rare_gain([base, found], truth, groups_N)
    return row


def main(quick: bool = False, only: Sequence[str] = (), seeds: int = 3, minutes: float = 600.0) -> Table:
    result: Table = {"benchmark": "claims"}
    if not (DATA / TABLE).is_file():
        return {**result, "skipped": f"{DATA / TABLE} is not there"}
    began, setting = time.monotonic(), Setting(quick)
    names, seeds = (
        only or (("baseline", "focal loss, gamma 2") if quick else tuple(CHANGES)),
        1 if quick else seeds,
    )
    for seed in range(seeds):
        for name in names:
            if seed < CHANGES[name][1] and time.monotonic() - began < 60 * minutes:
                run(setting, name, seed)
    for name in names:
        result[name] = measure(setting, name, seeds)
        print(f"{name}: {result[name]}", file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few products, one epoch, one seed, two changes")
    parser.add_argument("--only", nargs="*", default=(), choices=tuple(CHANGES), metavar="CHANGE")
    parser.add_argument("--seeds", type=int, default=3, help="at most")
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no further training begins")
    print(json.dumps(main(**vars(parser.parse_args()))))
