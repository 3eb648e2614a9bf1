"""Structured pruning of a fine-tuned EfficientNet-Lite: the channels inside inverted residuals that matter least.

A channel between the expansion and the projection of a block is taken out of all three of its convolutions, so nothing
outside the block changes shape. What a channel adds is its variance over some training pictures times the squared
weights that read it; its mean is moved into the bias of the projection. Not part of the library: it does not pay, see
docs/experiments.md.

Legend: C channels inside a block, O of its output, N pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shelfwise.models.towers import one_thread
from shelfwise.recipes.training_run import Run, Shared
from shelfwise.recipes.tuned import ALL, Tuned, TunedPredictor
from shelfwise.recipes.tuned_network import TunedNetwork

#: Widths are multiples of this: what vector instructions take at once.
MULTIPLE = 8


@dataclass
class Moments:
    """Sums over pictures and places of what the channels inside a block come to."""

    count: int = 0
    first_C: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))
    second_C: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.float64))

    def add(self, seen_NChw: Tensor) -> None:
        """Take in the activations of some pictures."""
        seen = seen_NChw.double()
        self.count += seen.numel() // seen.shape[1]
        self.first_C = self.first_C + seen.sum(dim=(0, 2, 3))
        self.second_C = self.second_C + seen.square().sum(dim=(0, 2, 3))

    @property
    def mean_C(self) -> Tensor:
        """Mean of each channel."""
        return self.first_C / self.count

    @property
    def variance_C(self) -> Tensor:
        """Variance of each channel."""
        return (self.second_C / self.count - self.mean_C.square()).clamp(min=0)


def blocks_of(module: nn.Module) -> Iterator[Any]:
    """Yield the inverted residuals: expansion, depthwise convolution, projection."""
    for part in module.modules():
        if all(hasattr(part, name) for name in ("conv_pw", "conv_dw", "conv_pwl")):
            yield part


def narrow(tower: nn.Module, pictures_NHWC: npt.NDArray[np.uint8], share: float, batch: int = 32) -> int:
    """Take a share of the channels out of every inverted residual, in place; return how many.

    Args:
        tower: its norms folded into its convolutions.
        pictures_NHWC: RGB, that channels are measured on.
        share: of the channels of each block, those that add least.
        batch: pictures at once.
    """
    moments = {block: Moments() for block in blocks_of(tower)}
    hooks = [
        block.conv_pwl.register_forward_pre_hook(lambda _, given, seen=seen: seen.add(given[0]))
        for block, seen in moments.items()
    ]
    tower.eval()
    with torch.inference_mode():
        for start in range(0, len(pictures_NHWC), batch):
            tower(torch.from_numpy(pictures_NHWC[start : start + batch]))
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        return sum(_narrow_block(block, seen, share) for block, seen in moments.items())


def _narrow_block(block: Any, seen: Moments, share: float) -> int:
    weight_OC = block.conv_pwl.weight[:, :, 0, 0]
    adds_C = seen.variance_C * weight_OC.double().square().sum(dim=0)
    count = max(MULTIPLE, round(len(adds_C) * (1 - share) / MULTIPLE) * MULTIPLE)
    if count >= len(adds_C):
        return 0
    kept = adds_C.topk(count).indices.sort().values
    gone = torch.ones(len(adds_C), dtype=torch.bool)
    gone[kept] = False
    block.conv_pwl.bias += (weight_OC[:, gone].double() @ seen.mean_C[gone]).float()
    block.conv_pw.weight = nn.Parameter(block.conv_pw.weight[kept].clone())
    block.conv_pw.bias = nn.Parameter(block.conv_pw.bias[kept].clone())
    block.conv_dw.weight = nn.Parameter(block.conv_dw.weight[kept].clone())
    block.conv_dw.bias = nn.Parameter(block.conv_dw.bias[kept].clone())
    block.conv_pwl.weight = nn.Parameter(block.conv_pwl.weight[:, kept].clone())
    block.conv_pw.out_channels = block.conv_pwl.in_channels = count
    block.conv_dw.in_channels = block.conv_dw.out_channels = block.conv_dw.groups = count
    return int(gone.sum())


class Retuned(Run):
    """The training of a network that is there already: heads, norm and all go on as they are."""

    def go_on(self, network: TunedNetwork) -> Tuned:
        """Train a network in place."""
        self._train(network)
        network.eval()
        return self._tuned(network, self.recipe.test_flips)


def prune(predictor: TunedPredictor, shared: Shared, train: Any, share: float) -> TunedPredictor:
    """Return a fine-tuned predictor with narrower blocks, tuned again as ``shared.recipe`` says.

    Args:
        predictor: one network for all categories; it is changed.
        shared: recipe (``start = "random"``), machine, seed, and the teacher if there is one.
        train: the products to learn from, in the order of their ids.
        share: of the channels.
    """
    net = predictor.nets[ALL]
    run = Retuned(shared, ALL, predictor.taxonomy, train, None)
    some = [path.read_bytes() for path in train.images[:: max(1, len(train) // 256)] if path is not None]
    with one_thread():
        pictures = np.stack([net.preprocess.array(content) for content in some])
        narrow(net.network.tower, pictures, share)
    tower: Any = net.network.tower
    tower.to(memory_format=torch.channels_last)
    return replace(predictor, nets={ALL: replace(run.go_on(net.network), counts=net.counts)})
