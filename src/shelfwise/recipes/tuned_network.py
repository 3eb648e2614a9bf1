"""Tuned network: tower, standardisation and heads of a fine-tune recipe, built for training and built again.

It does not know how it is trained, nor how answers are given.
Legend: B products, D features, F features of picture and text, K Numbers, V values packed, H height, W
width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shelfwise.data.beside import Beside
from shelfwise.models.backbones import LITE, Backbone, Preprocess, build_backbone, lite_backbone
from shelfwise.models.network import Network, Outputs, build_network
from shelfwise.models.number_heads import NumberHeads
from shelfwise.models.pair import PairBackbone, pair, pair_specs
from shelfwise.models.pair_tower import PairTower
from shelfwise.models.text_encoders import frozen
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
    """A tower, the standardisation of its features, and heads; those of Numbers read the text too, if the tower does.

    Attributes:
        norm: standardises vectors; maps go to their heads as they are.
        drop: dropout of what the heads take.
        numbers: the heads of Numbers, where any are learnt.
        reads: whether the tower is a pair.
        informed: whether the heads of Choice attributes read the text too.
        seen: the features of the last pictures, for penalties on them.
        said: what was said of the Numbers of the last products, float32 [B, K, 2].
    """

    def __init__(
        self,
        network: Network,
        dimension: int,
        *,
        standardise: bool,
        dropout: float,
        numbers: NumberHeads | None = None,
        informed: bool = False,
    ) -> None:
        super().__init__(network.tower, network.heads)
        plain = self.takes == "map" or not standardise
        self.norm: nn.Module = nn.Identity() if plain else Standardise(dimension)
        self.drop = nn.Dropout(dropout)
        self.numbers = numbers
        self.reads, self.informed = isinstance(network.tower, PairTower), informed
        self.seen: Tensor | None = None
        self.said: Tensor | None = None

    def forward(self, images_BHWC: Tensor, category_B: Tensor, beside: Beside | None = None) -> Outputs:
        """Return what the heads say of the first pictures, as many as there are categories.

        Args:
            images_BHWC: RGB, uint8 or float in 0..255; those that come after the labelled ones are only seen.
            category_B: category codes.
            beside: the texts, for a pair, and which pictures are there: of others no Choice attribute is said.
        """
        self.seen, both_BF = self.look(images_BHWC, beside)
        count = len(category_B)
        if self.numbers is not None:
            self.said = self.amounts(self.seen[:count] if both_BF is None else both_BF, category_B)
        if beside is None or beside.shown_B is None:
            return self.answer(self.seen[:count], category_B)
        rows = beside.shown_B.nonzero().flatten()
        found = self.answer(self.seen[rows], category_B[rows]) if len(rows) else []
        return [(category, rows[at], logits) for category, at, logits in found]

    def look(self, images_BHWC: Tensor, beside: Beside | None = None) -> tuple[Tensor, Tensor | None]:
        """Return what the heads of Choice attributes take, and, of a pair, what those of Numbers take [B, F]."""
        tower: Any = self.tower
        if not self.reads:
            return self.features(images_BHWC), None
        alone, both_BF = tower.look(images_BHWC, beside, as_map=self.takes == "map")
        return (both_BF if self.informed else alone), both_BF

    def answer(self, features: Tensor, category_B: Tensor) -> Outputs:
        """Return what the heads say of features."""
        outputs: Outputs = self.heads(self.drop(self.norm(features)), category_B)
        return outputs

    def amounts(self, features: Tensor, category_B: Tensor) -> Tensor:
        """Return float32 [B, K, 2], what the heads of Numbers say of features: of both, or of pictures alone."""
        assert self.numbers is not None
        if not self.reads:
            features = features.mean(dim=(2, 3)) if features.ndim == 4 else self.norm(features)
        said_BK2: Tensor = self.numbers(self.drop(features), category_B)
        return said_BK2

    @property
    def layer_groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, parameter names) from the stem to the last layer of the tower, then all heads."""
        *groups, (name, heads) = super().layer_groups
        numbers = self.numbers.named_parameters() if self.numbers is not None else ()
        return (*groups, (name, (*heads, *(f"numbers.{each}" for each, _ in numbers))))


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

        fold_batch_norm(backbone.image.module if isinstance(backbone, PairBackbone) else backbone.module)
    informed = isinstance(backbone, PairBackbone) and "text" in recipe.choice_inputs
    alone = backbone.image if isinstance(backbone, PairBackbone) and not informed else backbone
    facing = replace(backbone, dimension=alone.dimension)
    network = build_network(facing, recipe.heads, taxonomy, counts=counts, seed=seed)
    numbers = None
    if recipe.learns_numbers(taxonomy):
        dimension = backbone.dimension
        if not isinstance(backbone, PairBackbone) and network.takes == "map":
            dimension = backbone.channels or dimension
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            count = len(taxonomy.number_names)
            numbers = NumberHeads(count, dimension, len(taxonomy.categories), recipe.number_heads)
    return TunedNetwork(
        network,
        alone.dimension,
        standardise=recipe.standardise,
        dropout=recipe.dropout,
        numbers=numbers,
        informed=informed,
    )


def architecture(spec: Spec, preprocess: Preprocess) -> Backbone:
    """Build the network of a backbone without its published weights, for a preprocess that was settled before."""
    if spec.name == "pair":
        return _pair_architecture(spec, preprocess)
    options = _untrained(spec)
    known = REGISTRIES["backbone"].options(spec.name)
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


def _pair_architecture(spec: Spec, preprocess: Preprocess) -> PairBackbone:
    """Build both towers without their published weights; the tokenizer is the published one."""
    options: dict[str, Any] = dict(spec.table())
    del options["name"]
    sides = pair_specs(options)
    text = REGISTRIES["text_encoder"].spec(sides["text"].name, **_untrained(sides["text"]))
    return pair(
        image=architecture(sides["image"], preprocess),
        text=frozen(text),
        **{key: value for key, value in options.items() if key not in sides},
    )


def _untrained(spec: Spec) -> dict[str, Any]:
    """Return the options of a spec without published weights."""
    options: dict[str, Any] = {key: value for key, value in spec.table().items() if key != "name"}
    if "weights" in REGISTRIES[spec.kind].options(spec.name):
        options["weights"] = False
    return options


def head_parts(network: TunedNetwork, pairs: tuple[Pair, ...]) -> dict[Pair, list[Part]]:
    """Where each head lies in the tensors that hold several, as boxes; none where heads cannot be taken apart."""
    find = getattr(network.heads, "masks", None)
    if find is None:
        return {}
    parts: dict[Pair, list[Part]] = {}
    for place in pairs:
        parts[place] = []
        for name, mask in find(*place).items():
            parts[place] += [(f"heads.{name}", box) for box in _boxes(mask)]
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
