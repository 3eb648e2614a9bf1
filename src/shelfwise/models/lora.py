"""Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685) in a network's tower, through peft.

It knows no training. Adapters are added to a network, trained instead of the weights beside them, and
merged into these for inference. Importing it imports torch; peft only when adapters are added.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from shelfwise.errors import UsageError, listing, require, suggest
from shelfwise.models.network import Network
from shelfwise.models.torchvision_repair import import_torchvision

_NUMBER = re.compile(r"^\d+$")


def add_lora(
    network: Network,
    *,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = (),
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[str, ...]:
    """Add an adapter to layers of the tower; the tower's own weights are frozen, the heads' are not.

    A new adapter adds nothing to what its layer computes, so the outputs stay as they are until it is
    trained.

    Args:
        network: changed in place.
        rank: of each adapter.
        alpha: an adapter's output is scaled by ``alpha / rank``.
        targets: last parts of the names of linear and convolutional layers; left out, every linear layer.
        dropout: of what adapters read, in training.
        seed: of the adapters' first weights.

    Returns:
        The names of the layers that have an adapter.

    Raises:
        UsageError: a target that no layer has, or no linear layer at all.
        MissingExtra: peft is not installed.
    """
    import_torchvision()
    peft: Any = require("peft", extra="lora")
    if rank < 1 or not math.isfinite(alpha) or alpha <= 0:
        raise UsageError(f"adapters have a rank of at least 1 and an alpha above 0: {rank=}, {alpha=}")
    chosen = _chosen(network.tower, targets)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(chosen), lora_dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, network.tower)
    for name, parameter in network.tower.named_parameters():
        parameter.requires_grad_("lora_" in name)
    network.train(network.training)
    return tuple(f"tower.{name}" for name in chosen)


def merge_lora(network: Network) -> None:
    """Add every adapter to the weights beside it and take it out: names and speed of a plain network again.

    Raises:
        UsageError: a layer has weights that are not finite after it.
        MissingExtra: peft is not installed.
    """
    import_torchvision()
    layers: Any = require("peft.tuners.tuners_utils", extra="lora")
    for name, part in list(network.tower.named_modules()):
        if not isinstance(part, layers.BaseTunerLayer):
            continue
        try:
            part.merge(safe_merge=True)
        except ValueError as error:
            raise UsageError(f"the adapter of tower.{name} cannot be merged: {error}") from error
        parent, _, last = name.rpartition(".")
        setattr(network.tower.get_submodule(parent), last, part.get_base_layer())


def _chosen(tower: nn.Module, targets: Sequence[str]) -> tuple[str, ...]:
    """Return the full names of the layers that get an adapter."""
    # What nn.MultiheadAttention projects with is read as a tensor, past the layer and any adapter in it.
    skipped = {
        f"{name}.out_proj" for name, part in tower.named_modules() if isinstance(part, nn.MultiheadAttention)
    }
    kinds = (nn.Linear, nn.Conv2d) if targets else nn.Linear
    layers = [n for n, part in tower.named_modules() if isinstance(part, kinds) and n not in skipped]
    if not targets:
        if not layers:
            raise UsageError("the tower has no linear layer for an adapter; name convolutions in targets")
        return tuple(layers)
    endings = {tuple(name.split(".")[-k:]): name for name in layers for k in range(1, name.count(".") + 2)}
    for target in targets:
        if tuple(target.split(".")) not in endings:
            last = {name.rsplit(".", 1)[-1] for name in layers}
            known = sorted(name for name in last if not _NUMBER.match(name))
            hint = suggest(target, known) or f"Known: {listing(known)}."
            raise UsageError(f"no layer of the tower is called {target!r}. {hint}")
    return tuple(n for n in layers if any(n == t or n.endswith(f".{t}") for t in targets))
