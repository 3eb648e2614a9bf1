"""Training the packed masked heads, against one MLP per pair called per sample, and against a loop over pairs.

An epoch is forward, loss, backward and optimiser step (fused AdamW on all sides) over ready features
(D = 1024) of the attribute challenge's schema: 42 (category, attribute) pairs with the class counts, category
shares and missing shares of its published description. Each side trains the same batches, in turns;
of the per-sample way, which is slow, the forward and backward passes
of ``SAMPLES`` products are scaled to the batch and an optimiser step is added.

``ratio_per_sample``: one MLP per pair called for every labelled cell by itself, as a first system did, at the same
batch; the packed way is then mostly waiting for the optimiser. ``ratio_per_sample_own_batches``: the same with
each side at its own batch, 32 for that system and 4,096 for ours.
``ratio_loop``: one MLP per pair called on the whole batch, other categories masked by ``ignore_index``.
``ratio_loop_rows``: one MLP per pair called on its category's rows of the batch (stricter than asked).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from shelfwise.models.losses import Objective
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Choice, Taxonomy

DIMENSION, HIDDEN = 1024, 256
SAMPLES = 32
#: Per category: rows, values per attribute, missing labels per attribute.
SCHEMA = (
    (7267, (4, 2, 2, 3, 2), (1257, 1123, 1476, 1318, 1290)),
    (18346, (4, 6, 3, 8, 4, 3, 4, 5, 9, 2), (10461, 667, 2485, 450, 697, 13336, 9450, 1881, 4043, 528)),
    (6822, (13, 2, 2, 2, 2, 2, 2, 3, 2), (193, 3591, 3422, 391, 3556, 2974, 2979, 120, 131)),
    (18774, (7, 3, 3, 3, 6, 3, 2, 2), (1489, 3973, 2194, 2613, 1740, 2733, 3314, 18264)),
    (19004, (12, 4, 2, 7, 2, 3, 6, 4, 4, 6), (4946, 5667, 5938, 5553, 6437, 5787, 5788, 5207, 6433, 11823)),
)  # fmt: skip
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Side:
    """One way to train: a module, and the loss of a batch."""

    module: nn.Module
    loss: Callable[[Batch], torch.Tensor]

    def epoch(self, batches: Sequence[Batch], optimizer: torch.optim.Optimizer, most: int = 1 << 30) -> float:
        """Train on some batches and return the seconds per product.

        Args:
            batches: the products.
            optimizer: of the module.
            most: products of a batch that are really run; their time stands for the whole batch.
        """
        passes = steps = 0.0
        for batch in batches:
            part = (batch[0][:most], batch[1][:most], batch[2][:most])
            start = time.perf_counter()
            optimizer.zero_grad()
            self.loss(part).backward()  # type: ignore[no-untyped-call]
            middle = time.perf_counter()
            optimizer.step()
            steps += time.perf_counter() - middle
            passes += (middle - start) * len(batch[0]) / len(part[0])
        return (passes + steps) / sum(len(batch[0]) for batch in batches)


#: Our batch where nothing limits it: the packed heads read ready features.
OURS = 4096


def taxonomy() -> Taxonomy:
    """Return a taxonomy of the schema's shape."""
    return Taxonomy(
        {
            f"category {c}": tuple(
                Choice(f"attribute {a}", tuple(f"value {v}" for v in range(values)))
                for a, values in enumerate(sizes)
            )
            for c, (_, sizes, _) in enumerate(SCHEMA)
        }
    )


def data(products: int, size: int) -> list[Batch]:
    """Return batches of features [B, D], category codes [B] and labels [B, A], -1 where missing."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.tensor([float(row[0]) for row in SCHEMA])
    category_N = torch.multinomial(rows, products, True, generator=draw)
    features_ND = torch.randn(products, DIMENSION, generator=draw)
    labels_NA = torch.full((products, max(len(row[1]) for row in SCHEMA)), -1)
    for code, (count, sizes, missing) in enumerate(SCHEMA):
        here = (category_N == code).nonzero().squeeze(1)
        for a, (values, absent) in enumerate(zip(sizes, missing, strict=True)):
            label_n = torch.randint(values, (len(here),), generator=draw)
            lost_n = torch.rand(len(here), generator=draw) < absent / count
            labels_NA[here, a] = torch.where(lost_n, -1, label_n)
    parts = (
        torch.split_with_sizes(tensor, [size] * (products // size))
        for tensor in (features_ND, category_N, labels_NA)
    )
    return list(zip(*parts, strict=True))


def pair_heads() -> nn.ModuleDict:
    """Return one MLP per pair."""

    def head(values: int) -> nn.Module:
        hidden = (nn.Linear(DIMENSION, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU(), nn.Dropout(0.1))
        return nn.Sequential(*hidden, nn.Linear(HIDDEN, values))

    sizes = {f"{c}_{a}": v for c, (_, row, _) in enumerate(SCHEMA) for a, v in enumerate(row)}
    return nn.ModuleDict({key: head(values) for key, values in sizes.items()})


def packed() -> Side:
    """Return ours."""
    spec = REGISTRIES["heads"].spec("mlp", hidden=HIDDEN, dropout=0.1)
    heads = REGISTRIES["heads"].build(spec, taxonomy(), DIMENSION)
    objective = Objective(taxonomy(), REGISTRIES["loss"].spec("cross_entropy"))
    widths = {f"category {c}": len(row[1]) for c, row in enumerate(SCHEMA)}

    def loss(batch: Batch) -> torch.Tensor:
        outputs = heads(batch[0], batch[1])
        labelled = [(name, logits, batch[2][rows, : widths[name]]) for name, rows, logits in outputs]
        result: torch.Tensor = objective(labelled)
        return result

    return Side(nn.ModuleList([heads, objective]), loss)


def per_sample() -> Side:
    """Return the loop over samples and attributes."""
    heads = pair_heads()

    def cells(batch: Batch) -> Iterator[torch.Tensor]:
        for row in range(len(batch[0])):
            code = int(batch[1][row].item())
            for a in range(len(SCHEMA[code][1])):
                label = int(batch[2][row, a].item())
                if label != -1:
                    logits = heads[f"{code}_{a}"](batch[0][row].unsqueeze(0))
                    yield cross_entropy(logits, torch.tensor([label], device=logits.device))

    def loss(batch: Batch) -> torch.Tensor:
        return torch.stack(list(cells(batch))).mean()

    return Side(heads, loss)


def loop(*, own_rows: bool) -> Side:
    """Return the loop over pairs, on the whole batch or on the rows of the pair's category."""
    heads = pair_heads()

    def loss(batch: Batch) -> torch.Tensor:
        features_BD, category_B, labels_BA = batch
        sums = []
        for code, (_, sizes, _) in enumerate(SCHEMA):
            rows = (category_B == code).nonzero().squeeze(1)
            inputs = features_BD[rows] if own_rows else features_BD
            for a in range(len(sizes)):
                target = labels_BA[rows, a]
                if not own_rows:
                    target = torch.where(category_B == code, labels_BA[:, a], -1)
                logits = heads[f"{code}_{a}"](inputs)
                sums.append(cross_entropy(logits, target, ignore_index=-1, reduction="sum"))
        return torch.stack(sums).sum() / (labels_BA >= 0).sum()

    return Side(heads, loss)


def main(quick: bool = False) -> dict[str, Any]:
    torch.manual_seed(0)
    sizes, rounds = ((32,), 1) if quick else ((32, 256, 1024), 5)
    result: dict[str, Any] = {"benchmark": "heads"}
    for size in sizes:
        batches = data(size * (1 if quick else max(2, 1024 // size // 2)), size)
        ways = {
            "ours": packed(),
            "per_sample": per_sample(),
            "loop": loop(own_rows=False),
            "loop_rows": loop(own_rows=True),
        }
        optimizers = {
            name: torch.optim.AdamW(side.module.parameters(), lr=1e-3, fused=True)
            for name, side in ways.items()
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, side in ways.items():
                slow = name == "per_sample"
                took = side.epoch(
                    batches[:1] if slow else batches, optimizers[name], SAMPLES if slow else 1 << 30
                )
                if turn or quick:
                    times[name].append(took)
        for name in ("per_sample", "loop", "loop_rows"):
            pairs = zip(times[name], times["ours"], strict=True)
            result[f"ratio_{name}_{size}"] = round(statistics.median(a / b for a, b in pairs), 2)
        ours = statistics.median(times["ours"])
        result[f"epoch_seconds_{size}"] = round(ours * sum(row[0] for row in SCHEMA), 1)
    if not quick:
        result["ratio_per_sample_own_batches"] = own_batches()
    return result


def own_batches() -> float:
    """Return the ratio of epochs with each side at its own batch: 32 for the first system, 4,096 for ours."""
    batches, theirs = data(2 * OURS, OURS), data(32, 32)
    sides = (per_sample(), packed())
    optimizers = [torch.optim.AdamW(side.module.parameters(), lr=1e-3, fused=True) for side in sides]
    ratios = []
    for turn in range(6):
        slow = sides[0].epoch(theirs, optimizers[0], SAMPLES)
        fast = sides[1].epoch(batches, optimizers[1], 1 << 30)
        if turn:
            ratios.append(slow / fast)
    return round(statistics.median(ratios), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    print(json.dumps(main(**vars(parser.parse_args()))))
