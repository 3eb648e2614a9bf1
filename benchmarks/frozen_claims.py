"""Claims about losses, balancing and noisy labels, one by one, on frozen features: quick, so over many products.

Heads on frozen EfficientNet-Lite0 features of fashion, standardised, dropout 0.5, learnt by AdamW (rate 1e-3, cosine,
weight decay 0.05) for 10 epochs of batches of 256; the first two of five grouped folds are scored, each by heads
learnt on the other four. The baseline is linear heads, cross-entropy with root-inverse class weights. Scores and
intervals as in ``claims.py``; ``rare`` is the recall of values that fewer than 5 % of an attribute's labels have, its
gain and the ends of its interval, from the most probable value. ``noise`` replaces 5 % of the stated labels by another
value, drawn evenly, before anything is learnt, calibrated or decided; the labels as stated are scored.

Predictions are kept in the cache folder: run again, it goes on where it stopped.

What frozen features cannot tell: what a loss does to a backbone that is tuned. The catalogue is found through
``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from claims import DATA, TABLE, Setting, rare_gain
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.data.batches import Products
from shelfwise.evaluate import compare, evaluate
from shelfwise.files import cache_directory
from shelfwise.models.losses import Objective, value_counts
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.features import features
from shelfwise.recipes.products import shown_weights
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence
from treatments import planted

EPOCHS, BATCH, FOLDS, NOISE = 10, 256, 2, 0.05
Float = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Table = dict[str, Any]
#: What is changed, and the reference; options are ``loss``, ``power``, ``adjust``, ``sampler``, ``heads``, ``noise``.
CHANGES: dict[str, tuple[str, Table]] = {
    "baseline": ("", {}),
    "focal, gamma 1": ("baseline", {"loss": {"name": "focal", "gamma": 1.0}}),
    "focal, gamma 2": ("baseline", {"loss": {"name": "focal", "gamma": 2.0}}),
    "poly-1, epsilon 1": ("baseline", {"loss": {"name": "poly1"}}),
    "label smoothing 0.1": ("baseline", {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}}),
    "no class weights": ("baseline", {"power": 0.0}),
    "balanced class weights": ("baseline", {"power": 1.0}),
    "focal, no class weights": ("no class weights", {"power": 0.0, "loss": {"name": "focal", "gamma": 2.0}}),
    "logit adjustment, no class weights": ("no class weights", {"power": 0.0, "adjust": 1.0}),
    "weighted sampler, no class weights": ("no class weights", {"power": 0.0, "sampler": 0.5}),
    "hidden layer of 256": ("baseline", {"heads": {"name": "mlp", "hidden": 256}}),
    "noise": ("baseline", {"noise": NOISE}),
    "noise, generalised cross-entropy 0.3": (
        "noise",
        {"noise": NOISE, "loss": {"name": "generalized_cross_entropy", "q": 0.3}},
    ),
    "noise, label smoothing 0.1": (
        "noise",
        {"noise": NOISE, "loss": {"name": "cross_entropy", "label_smoothing": 0.1}},
    ),
    "noise, focal, gamma 2": ("noise", {"noise": NOISE, "loss": {"name": "focal", "gamma": 2.0}}),
}


def spec(kind: str, table: Table) -> Spec:
    """Return a registered thing with its options."""
    return REGISTRIES[kind].spec(table["name"], **{k: v for k, v in table.items() if k != "name"})


def labels_of(catalog: Catalog) -> Ints:
    """Return the stated codes [N, most attributes of any category], -1 where missing."""
    most = max(len(catalog.taxonomy.choices(name)) for name in catalog.present)
    labels_NA = np.full((len(catalog), most), -1, np.int64)
    for name in catalog.present:
        codes_nA = catalog.labels(name)
        labels_NA[catalog.rows(name), : codes_nA.shape[1]] = codes_nA
    return labels_NA


def learn(train: Catalog, x_ND: Float, options: Table, epochs: int) -> torch.nn.Module:
    """Return heads learnt from standardised features."""
    taxonomy = train.taxonomy
    torch.manual_seed(0)
    heads: torch.nn.Module = REGISTRIES["heads"].build(
        spec("heads", options.get("heads", {"name": "linear"})), taxonomy, x_ND.shape[1]
    )
    counts = {name: value_counts(train, name) for name in taxonomy.categories}
    power, adjust = options.get("power", 0.5), options.get("adjust", 0.0)
    cell = spec("loss", options.get("loss", {"name": "cross_entropy"}))
    objective = Objective(taxonomy, cell, counts=counts, power=power, logit_adjustment=adjust)
    x, labels_NA, category_N = torch.from_numpy(x_ND), labels_of(train), train.category.astype(np.int64)
    weight_N = None
    if "sampler" in options:
        pixels: Any = None  # nobody looks at these products
        products = Products(train.ids, pixels, np.arange(len(train)), category_N, labels_NA)
        weight_N = shown_weights(products, taxonomy, counts, options["sampler"])
        weight_N = weight_N / weight_N.sum()
    optimiser = torch.optim.AdamW(heads.parameters(), lr=1e-3, weight_decay=0.05)
    steps = epochs * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draw = np.random.default_rng(0)
    heads.train()
    for _ in range(epochs):
        order = draw.permutation(len(x)) if weight_N is None else draw.choice(len(x), len(x), p=weight_N)
        for rows in np.array_split(order, -(-len(x) // BATCH)):
            seen = torch.nn.functional.dropout(x[rows], 0.5)
            sums = objective.sums(
                heads(seen, torch.from_numpy(category_N[rows])), torch.from_numpy(labels_NA[rows])
            )
            optimiser.zero_grad()
            torch.autograd.backward(sums.loss / sums.labels)
            optimiser.step()
            schedule.step()
    return heads.eval()


@torch.inference_mode()
def say(heads: torch.nn.Module, test: Catalog, x_ND: Float) -> Predictions:
    """Return the probabilities of the heads."""
    blocks = []
    outputs = heads(torch.from_numpy(x_ND), torch.from_numpy(test.category.astype(np.int64)))
    for name, rows, logits in outputs:
        order = rows.argsort()
        parts = [logits[order][:, part].softmax(dim=1) for part in test.taxonomy.slices(name)]
        blocks.append(Block(name, rows[order].numpy().astype(np.int64), torch.cat(parts, dim=1).numpy()))
    return Predictions(test.taxonomy, test.ids, tuple(sorted(blocks, key=lambda block: block.category)))


class Bench:
    """The products, their features and what was said of the scored folds.

    Args:
        quick: one fold and one epoch.
    """

    def __init__(self, quick: bool) -> None:
        setting = Setting(False)
        found = features(setting.catalog, REGISTRIES["backbone"].spec("lite0"), Machine())
        seen = np.flatnonzero(np.isfinite(found.vectors).all(axis=1))
        self.catalog, self.x_ND = setting.catalog.select(seen), found.vectors[seen]
        self.fold_N, groups_N = setting.folds.fold[seen], setting.groups[seen]
        self.folds, self.epochs = (1, 1) if quick else (FOLDS, EPOCHS)
        self.rows = np.flatnonzero(self.fold_N < self.folds)
        self.truth, self.groups_n = self.catalog.select(self.rows), groups_N[self.rows]
        self.folder = cache_directory() / "benchmarks" / ("frozen-claims-quick" if quick else "frozen-claims")

    def fold(self, fold: int, stated: Catalog, options: Table) -> tuple[Ints, Predictions]:
        """Return the places of a fold among the scored rows, and what heads learnt on the others say of it."""
        train, test = np.flatnonzero(self.fold_N != fold), np.flatnonzero(self.fold_N == fold)
        mean_D, scale_D = self.x_ND[train].mean(axis=0), self.x_ND[train].std(axis=0) + 1e-3
        heads = learn(stated.select(train), (self.x_ND[train] - mean_D) / scale_D, options, self.epochs)
        found = say(heads, self.catalog.select(test), (self.x_ND[test] - mean_D) / scale_D)
        return np.searchsorted(self.rows, test), found

    def answers(self, options: Table) -> tuple[Predictions, Answers]:
        """Return plain and decided answers over the scored folds."""
        stated = planted(self.catalog, options.get("noise", 0.0))
        made = json.dumps([options, self.catalog.taxonomy.hash, self.folds, self.epochs], sort_keys=True)
        path = self.folder / f"{hashlib.sha256(made.encode()).hexdigest()[:16]}.parquet"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            Predictions.join([self.fold(k, stated, options) for k in range(self.folds)], self.truth.ids).save(
                path
            )
        found = Predictions.load(path)
        fold_n = self.truth.folds(5, groups=self.groups_n).fold
        evidence = Evidence.of(found, stated.select(self.rows), self.groups_n, fold_n)
        return found, replace(decided_out_of_fold(evidence, "harmonic_f1"), errors=found.errors)


def main(quick: bool = False, only: Sequence[str] = ()) -> Table:
    result: Table = {"benchmark": "frozen_claims"}
    if not (DATA / TABLE).is_file():
        return {**result, "skipped": f"{DATA / TABLE} is not there"}
    bench, known = Bench(quick), {}
    names = only or (("baseline", "focal, gamma 2") if quick else tuple(CHANGES))
    wanted = set(names)
    for _ in range(2):  # a reference may have one itself
        wanted |= {CHANGES[name][0] for name in wanted} - {""}
    for name in [each for each in CHANGES if each in wanted]:
        began, (reference, options) = time.process_time(), CHANGES[name]
        both = known[name] = bench.answers(options)
        row: Table = {"cpu": round(time.process_time() - began, 1)}
        for at, what in enumerate(("plain", "decided")):
            row[what] = round(evaluate(both[at], bench.truth, min_values=2, bootstrap=0).score, 4)
            if reference:
                entries: Any = [("reference", known[reference][at]), ("change", both[at])]
                found = compare(entries, bench.truth, groups=bench.groups_n, min_values=2, bootstrap=500)
                gain = found.differences[0]
                row[f"{what}_gain"] = [round(x, 4) for x in (gain.difference, gain.low, gain.high)]
        if reference:
            row["rare"] = rare_gain([known[reference][0], both[0]], bench.truth, bench.groups_n)
        result[name] = row
        print(f"{name}: {row}", file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one fold, one epoch, two changes")
    parser.add_argument("--only", nargs="*", default=(), choices=tuple(CHANGES), metavar="CHANGE")
    print(json.dumps(main(**vars(parser.parse_args()))))
