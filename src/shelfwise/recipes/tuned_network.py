"""Tuned network: tower, standardisation and heads of a fine-tune recipe, built for training and built again.

It does not know how it is trained, nor how answers are given.
Legend: B pictures, D features, V values packed, H height, W width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shelfwise.models.backbones import LITE, Backbone, Preprocess, build_backbone, lite_backbone
from shelfwise.models.network import Network, Outputs, build_network
from shelfwise.models.towers import Tower
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Taxonomy
from shelfwise.train.anatomy import Pair, Part

if TYPE_CHECKING:
    from shelfwise.recipes.finetune import FineTune

Ints = npt.NDArray[np.int64]


class Standardise(nn.BatchNorm1d):
    """Features of mean 0 and variance 1 over a batch; a batch of one is measured by what was seen before.

    Attributes:
        settled: mean and variance are known from all products, and no batch changes them.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension, affine=False)
        self.settled = False

    def forward(self, input: Tensor) -> Tensor:
        """Return the standardised features [B, D]."""
        if self.training and (self.settled or len(input) < 2):
            mean, variance = self.running_mean, self.running_var
            return nn.functional.batch_norm(input, mean, variance, eps=self.eps)
        return super().forward(input)


class TunedNetwork(Network):
    """A tower, the standardisation of its features, and heads.

    Attributes:
        norm: standardises vectors; maps go to their heads as they are.
        drop: dropout of what the heads take.
        seen: the features of the last pictures, for penalties on them.
    """

    def __init__(self, network: Network, dimension: int, *, standardise: bool, dropout: float) -> None:
        super().__init__(network.tower, network.heads)
        plain = self.takes == "map" or not standardise
        self.norm: nn.Module = nn.Identity() if plain else Standardise(dimension)
        self.drop = nn.Dropout(dropout)
        self.seen: Tensor | None = None

    def forward(self, images_BHWC: Tensor, category_B: Tensor) -> Outputs:
        """Return what the heads say of the first pictures, as many as there are categories.

        Args:
            images_BHWC: RGB, uint8 or float in 0..255; those that come after the labelled ones are only seen.
            category_B: category codes.
        """
        self.seen = self.features(images_BHWC)
        return self.answer(self.seen[: len(category_B)], category_B)

    def answer(self, features: Tensor, category_B: Tensor) -> Outputs:
        """Return what the heads say of features."""
        outputs: Outputs = self.heads(self.drop(self.norm(features)), category_B)
        return outputs


class Served(nn.Module):
    """What an engine runs: pictures to the features of a network, as one row a picture.

    Args:
        network: a fine-tuned one.
        flips: put the features of the mirrored picture behind those of the picture.
    """

    def __init__(self, network: Network, flips: bool) -> None:
        super().__init__()
        self.tower, self.takes, self.flips = network.tower, network.takes, flips

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Return features [B, D]."""
        found = self._features(images_BHWC)
        if not self.flips:
            return found
        return torch.cat([found, self._features(images_BHWC.float().flip(2))], dim=1)

    def _features(self, images_BHWC: Tensor) -> Tensor:
        read: Any = self.tower.feature_map if self.takes == "map" else self.tower
        found: Tensor = read(images_BHWC)
        return found.flatten(1)


def assemble_network(
    recipe: "FineTune",
    backbone: Backbone,
    taxonomy: Taxonomy,
    counts: Mapping[str, Ints],
    seed: int,
) -> TunedNetwork:
    """Put the recipe's heads on a backbone, whose module it takes over."""
    if recipe.fold_batch_norm and backbone.family == "conv":
        from shelfwise.models.batchnorm import fold_batch_norm

        fold_batch_norm(backbone.module)
    network = build_network(backbone, recipe.heads, taxonomy, counts=counts, seed=seed)
    standardise, dropout = recipe.standardise, recipe.dropout
    return TunedNetwork(network, backbone.dimension, standardise=standardise, dropout=dropout)


def architecture(spec: Spec, preprocess: Preprocess) -> Backbone:
    """Build the network of a backbone without its published weights, for a preprocess that was settled before."""
    options: dict[str, Any] = {key: value for key, value in spec.table().items() if key != "name"}
    known = REGISTRIES["backbone"].options(spec.name)
    if "weights" in known:
        options["weights"] = False
    if "size" in known and len(set(preprocess.size)) == 1:
        options["size"] = preprocess.size[0]
    if spec.name in LITE:
        plain = {key: option.default for key, option in known.items()}
        built = lite_backbone(spec.name, **plain | options, trained=False)
    else:
        built = build_backbone(REGISTRIES["backbone"].spec(spec.name, **options))
    for part in built.module.modules():
        if isinstance(part, Tower):
            for name, values in (("shift", preprocess.mean), ("scale", preprocess.std)):
                getattr(part, name).copy_(255.0 * torch.tensor(values).view(1, 3, 1, 1))
    return replace(built, preprocess=preprocess)


def head_parts(network: TunedNetwork, pairs: tuple[Pair, ...]) -> dict[Pair, list[Part]]:
    """Where each head lies in the tensors that hold several, as boxes; none where heads cannot be taken apart."""
    find = getattr(network.heads, "masks", None)
    if find is None:
        return {}
    parts: dict[Pair, list[Part]] = {}
    for pair in pairs:
        parts[pair] = []
        for name, mask in find(*pair).items():
            parts[pair] += [(f"heads.{name}", box) for box in _boxes(mask)]
    return parts


def _boxes(mask: Tensor) -> Iterator[tuple[slice, ...]]:
    """Yield boxes that a mask is made of: one for every run along the first axis."""
    inside = mask.nonzero()
    if not len(inside):
        return
    starts = torch.cat([torch.ones(1, dtype=torch.bool), inside[1:, 0] - inside[:-1, 0] > 1])
    for run in torch.tensor_split(inside, starts.nonzero().flatten()[1:]):
        low, high = run.amin(dim=0).tolist(), (run.amax(dim=0) + 1).tolist()
        yield tuple(slice(a, b) for a, b in zip(low, high, strict=True))
