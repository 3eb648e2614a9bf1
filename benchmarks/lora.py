"""What low-rank adapters spend and save on a transformer: a ViT-Tiny with random weights, at 96 pixels.

It is the mechanism that is measured, not what it is worth: no pretrained transformer for pictures is part of the
installation. One step of batches of 16 (forward, objective, backward, AdamW): everything trained, adapters of rank 8
in every linear layer, the heads alone. ``trained`` are the weights that an optimiser holds, ``saved_mb`` what its two
moments and the gradients need less than for all of them, ``cpu_ms`` the CPU time of a step, the least of several.
``merged`` is how far answers are moved by adding adapters to the weights beside them, after those steps.
"""

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from heads import taxonomy
from shelfwise.config import make_recipe
from shelfwise.models.backbones import build_backbone
from shelfwise.models.lora import add_lora, merge_lora
from shelfwise.models.losses import Objective
from shelfwise.models.network import set_trainable
from shelfwise.models.towers import one_thread
from shelfwise.recipes.finetune import FineTune
from shelfwise.recipes.tuned_network import TunedNetwork, assemble_network

BATCH, STEPS, QUICK = 16, 8, 2
WAYS = ("full", "lora", "heads")


def network_of(way: str) -> TunedNetwork:
    """Return a network of which the named part is trained."""
    backbone = {"name": "timm", "model": "vit_tiny_patch16_224", "weights": False, "size": 96}
    recipe = make_recipe({"name": "finetune", "backbone": backbone})
    assert isinstance(recipe, FineTune)
    network = assemble_network(recipe, build_backbone(recipe.backbone), taxonomy(), {}, 0)
    if way == "lora":
        add_lora(network, rank=8)
    elif way == "heads":
        set_trainable(network, [name for name, _ in network.named_parameters() if name.startswith("heads.")])
    return network


def steps(network: TunedNetwork, count: int) -> Iterator[float]:
    """Take steps of the optimiser; yield the CPU seconds of each."""
    given, drawn = taxonomy(), torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 96, 96, 3), generator=drawn, dtype=torch.uint8)
    category_B = torch.randint(0, len(given.categories), (BATCH,), generator=drawn)
    counts = {name: np.ones(given.width(name), np.int64) for name in given.categories}
    most = max(len(given.choices(name)) for name in given.categories)
    labels_BA = torch.zeros((BATCH, most), dtype=torch.int64)
    objective = Objective(given, make_recipe({"name": "finetune"}).choice_loss, counts=counts, power=0.0)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    network.train()
    for _ in range(count):
        begun = time.process_time()
        optimiser.zero_grad()
        loss = objective.sums(network(images, category_B), labels_BA).loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield time.process_time() - begun
    network.eval()


def main(quick: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "lora"}
    with one_thread():
        for way in WAYS:
            network = network_of(way)
            trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
            line = {
                "trained": trained,
                "cpu_ms": round(1000 * min(steps(network, QUICK if quick else STEPS)), 1),
            }
            if way == "lora":
                black = torch.zeros((2, 96, 96, 3), dtype=torch.uint8)
                with torch.inference_mode():
                    before = network.features(black)
                    merge_lora(network)
                    line["merged"] = float(
                        (network.features(black) - before).abs().max() / before.abs().max()
                    )
            result[way] = line
    for way in WAYS[1:]:
        result[way]["saved_mb"] = round((result["full"]["trained"] - result[way]["trained"]) * 4 * 3 / 1e6, 1)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps")
    print(json.dumps(main(**vars(parser.parse_args()))))
