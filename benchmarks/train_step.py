"""A training step: heads and objective against loops over them, and what a whole step spends on nothing of the kind.

**Heads and objective** on ready features (D = 1024), batches of 32 on every side, the schema of ``heads.py``: 42
networks. ``ratio_per_sample``: forward, loss and backward, one network called for every labelled cell by itself, as a
first system did, over ours. ``ratio_loop``: one network per pair on the whole batch, other categories masked, over
ours; ``ratio_loop_rows``: on its category's rows. ``..._step``: the same with the optimiser's step added on both sides,
which is the same fused AdamW over 11 million weights for either and depends on memory, not on how a loss is
written; where it dominates, it is what is measured. ``ratio_as_written_step``: the first system's whole step as it was,
see ``as_written``, over ours.

**A whole step** of the default fine-tune (EfficientNet-Lite0, 160 pixels, batches of 32, pictures in memory) by the
loop of recipes: ``share_outside`` is the share of its time outside forward (with the objective), backward and the
optimiser's step: taking, changing and handing over pictures, dividing gradients, counting.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from heads import Batch, Side, data, loop, packed, per_sample, taxonomy
from shelfwise.data.batches import Batch as Pictures
from shelfwise.data.batches import Batches, Products
from shelfwise.models.backbones import build_backbone
from shelfwise.models.losses import Objective, Sums
from shelfwise.recipes.finetune import FineTune
from shelfwise.recipes.tuned_network import assemble_network
from shelfwise.train.loop import train
from shelfwise.train.optim import Phase

SIZE = 32


def passed(device: str) -> float:
    """Return the time once the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def halves(
    side: Side, batches: Sequence[Batch], optimizer: torch.optim.Optimizer, device: str
) -> tuple[float, float]:
    """Return the seconds a step of a side takes: forward, loss and backward; and the optimiser."""
    passes = steps = 0.0
    for batch in batches:
        start = passed(device)
        optimizer.zero_grad()
        side.loss(batch).backward()  # type: ignore[no-untyped-call]
        middle = passed(device)
        optimizer.step()
        steps += passed(device) - middle
        passes += middle - start
    return passes / len(batches), steps / len(batches)


def as_written(device: str) -> Callable[[Sequence[Batch]], float]:
    """Return a first system's step with all that went on in it, as a function to seconds a step.

    Mixed precision with a scaled loss (bfloat16, unscaled, on a CPU), torch's AdamW as it comes, and the GPU's cache
    emptied after every batch.
    """
    side = per_sample()
    side.module.to(device)
    optimizer = torch.optim.AdamW(side.module.parameters(), lr=5e-5)
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
    low = torch.float16 if device == "cuda" else torch.bfloat16

    def steps(batches: Sequence[Batch]) -> float:
        start = passed(device)
        for batch in batches:
            optimizer.zero_grad()
            with torch.autocast(device, dtype=low):
                loss = side.loss(batch)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            if device == "cuda":
                torch.cuda.empty_cache()
        return (passed(device) - start) / len(batches)

    return steps


def heads_and_objective(device: str, quick: bool) -> dict[str, float]:
    """Return the ratios of the ways to train heads on ready features."""
    ways = {
        "ours": packed(),
        "per_sample": per_sample(),
        "loop": loop(own_rows=False),
        "loop_rows": loop(own_rows=True),
    }
    # On a GPU all inputs lie there, as they did; labels of the per-sample way are read one by one.
    batches = [tuple(part.to(device) for part in batch) for batch in data(SIZE * 4, SIZE)]
    optimizers = {}
    for name, side in ways.items():
        side.module.to(device)
        optimizers[name] = torch.optim.AdamW(side.module.parameters(), lr=1e-3, fused=True)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    first, whole = as_written(device), []
    for turn in range(2 if quick else 8):
        for name, side in ways.items():
            took = halves(side, batches, optimizers[name], device)  # type: ignore[arg-type]
            if turn:
                times[name].append(took)
        whole.append(first(batches))  # type: ignore[arg-type]
    found = {}
    for name in ("per_sample", "loop", "loop_rows"):
        pairs = list(zip(times[name], times["ours"], strict=True))
        found[f"ratio_{name}"] = round(statistics.median(a[0] / b[0] for a, b in pairs), 2)
        found[f"ratio_{name}_step"] = round(statistics.median(sum(a) / sum(b) for a, b in pairs), 2)
    steps = [took / sum(ours) for took, ours in zip(whole[1:], times["ours"], strict=True)]
    found["ratio_as_written_step"] = round(statistics.median(steps), 2)
    for at, part in enumerate(("passes", "optimiser")):
        found[f"{part}_ms"] = round(1e3 * statistics.median(took[at] for took in times["ours"]), 2)
    return found


@dataclass
class Clock:
    """Seconds spent in parts of a step.

    Attributes:
        device: waited for at the end of every part.
        spent: by part, of the step under way.
    """

    device: str
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        start = passed(self.device)
        yield
        self.spent[part] = self.spent.get(part, 0.0) + passed(self.device) - start

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure every backward pass and every step of an optimiser."""
        plain: Callable[..., Any] = torch.Tensor.backward
        started = [0.0]

        def backward(*given: Any, **options: Any) -> Any:
            with self.measure("backward"):
                return plain(*given, **options)

        def begin(*_: Any) -> None:
            started[0] = passed(self.device)

        def end(*_: Any) -> None:
            self.spent["optimiser"] = self.spent.get("optimiser", 0.0) + passed(self.device) - started[0]

        hooks = register_optimizer_step_pre_hook(begin), register_optimizer_step_post_hook(end)
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.Tensor.backward = plain  # type: ignore[method-assign]
            for hook in hooks:
                hook.remove()


@dataclass(frozen=True)
class Noise:
    """Pictures in memory, 10 % larger than they are shown."""

    pictures: np.ndarray[Any, np.dtype[np.uint8]]

    def take(self, rows: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return some of them."""
        found: np.ndarray[Any, np.dtype[np.uint8]] = self.pictures[np.asarray(rows)]
        return found


def products(count: int, size: int) -> Products:
    """Return products of the schema with pictures of noise."""
    ((_, category_N, labels_NA),) = data(count, count)
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    ids = tuple(map(str, range(count)))
    return Products(ids, Noise(pictures), np.arange(count), category_N.numpy(), labels_NA.numpy())


def whole_steps(device: str, quick: bool) -> dict[str, float]:
    """Return where the time of steps of the default fine-tune goes."""
    recipe, count = FineTune(), 4 if quick else 24
    backbone = build_backbone(recipe.backbone)
    learnt = products(SIZE * count, int(backbone.preprocess.size[0] * 1.1))
    counts = {name: np.ones(taxonomy().width(name), np.int64) for name in taxonomy().categories}
    network = assemble_network(recipe, backbone, taxonomy(), counts, 0)
    objective = Objective(taxonomy(), recipe.choice_loss, counts=counts, power=recipe.class_weight).to(device)
    batches = Batches(
        learnt, taxonomy(), backbone.preprocess.size, SIZE, 0, recipe.augment, finish_ahead=device != "cpu"
    )
    clock = Clock(device)

    def step(batch: Pictures) -> Sums:
        with clock.measure("forward"):
            return objective.sums(network(batch.images_BHWC, batch.category_B), batch.labels_BA)

    shares, parts = [], []
    with clock.watch():
        start = passed(device)
        phases = [Phase(epochs=1, lr=1e-4)]
        for event in train(network, step, batches, phases, recipe.optimiser, device=device):
            if event.kind == "step":
                wall = passed(device) - start
                if event.step > count // 4:  # the first ones still settle in
                    parts.append({"step": wall, **clock.spent})
                    shares.append(1 - sum(clock.spent.values()) / wall)
                clock.spent.clear()
                start = passed(device)
    found = {"share_outside": round(statistics.median(shares), 4)}
    for part in ("step", "forward", "backward", "optimiser"):
        found[f"{part}_ms"] = round(1e3 * statistics.median(each[part] for each in parts), 1)
    return found


def main(quick: bool = False, device: str = "cpu") -> dict[str, Any]:
    torch.manual_seed(0)
    heads = heads_and_objective(device, quick)
    return {"benchmark": "train_step", "device": device, **heads, "whole": whole_steps(device, quick)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    print(json.dumps(main(**vars(parser.parse_args()))))
