"""Network: a backbone's tower and heads on it as one torch module, ready to be trained.

It knows no losses, batches or optimisers. Importing it imports torch.
Legend: B pictures, n rows of one category, V its values packed, H height, W width, C colours.
"""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError, listing, suggest
from shelfwise.models.backbones import Backbone
from shelfwise.models.towers import layer_groups
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.taxonomy import Taxonomy

Outputs = list[tuple[str, Tensor, Tensor]]


class Network(nn.Module):
    """A tower and its heads.

    Modules none of whose parameters is trainable stay in evaluation, whatever mode is asked for: their
    dropout is off and their running statistics do not move. ``compile()`` of torch compiles it in place.

    Attributes:
        tower: pictures to a vector [B, D] and, for heads that take one, a map [B, C, h, w].
        heads: features and category codes to logits per category.
        takes: ``vector`` or ``map``: what the heads read.
        spec: of the heads, with everything settled that followed the data: builds the same ones again.
    """

    def __init__(self, tower: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.heads = heads
        self.takes: str = str(getattr(heads, "takes", "vector"))
        self.spec: Spec | None = None

    def features(self, images_BHWC: Tensor) -> Tensor:
        """Return what the heads take: vectors [B, D] or maps [B, C, h, w]."""
        read: Any = self.tower.feature_map if self.takes == "map" else self.tower
        result: Tensor = read(images_BHWC)
        return result

    def forward(self, images_BHWC: Tensor, category_B: Tensor) -> Outputs:
        """Return, per category in the batch, its name, its rows [n] and their logits [n, V].

        Args:
            images_BHWC: RGB, uint8 or float in 0..255.
            category_B: category codes.
        """
        outputs: Outputs = self.heads(self.features(images_BHWC), category_B)
        return outputs

    @property
    def layer_groups(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(name, parameter names) from the stem to the last layer of the tower, then the heads."""
        groups = [(name, tuple(f"tower.{n}" for n in names)) for name, names in layer_groups(self.tower)]
        heads = tuple(f"heads.{name}" for name, _ in self.heads.named_parameters())
        return (*groups, ("heads", heads))

    def train(self, mode: bool = True) -> "Network":
        """Set the mode; what is frozen stays in evaluation."""
        super().train(mode)
        if mode:
            rest_in_evaluation(self)
        return self


def rest_in_evaluation(module: nn.Module) -> None:
    """Put every part of ``module`` that has parameters, none of them trainable, into evaluation."""
    for part in module.children():
        wanted = [parameter.requires_grad for parameter in part.parameters()]
        if wanted and not any(wanted):
            part.eval()
        else:
            rest_in_evaluation(part)


def set_trainable(network: nn.Module, names: Collection[str]) -> None:
    """Let exactly the named parameters be trained; frozen parts go into evaluation, those of a ``Network`` to stay.

    Raises:
        UsageError: a name that no parameter has.
    """
    known = dict(network.named_parameters())
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = suggest(unknown[0], known) or f"Its first ones: {listing(known, 3)}."
        raise UsageError(f"the network has no parameter {unknown[0]!r}. {hint}")
    wanted = set(names)
    for name, parameter in known.items():
        parameter.requires_grad_(name in wanted)
    network.train(network.training)
    if network.training:
        rest_in_evaluation(network)


def checkpoint_activations(network: Network, enabled: bool = True) -> None:
    """Keep only each block's input in training and compute the rest again going backward: slower, less memory.

    Raises:
        UsageError: the tower's network does not offer it; of two towers, one of them.
    """
    for tower in getattr(network.tower, "towers", (network.tower,)):
        _checkpoint_one(tower, enabled)


def _checkpoint_one(tower: nn.Module, enabled: bool) -> None:
    for part in tower.modules():
        do = "enable" if enabled else "disable"
        own: Any = getattr(part, "set_grad_checkpointing", None)
        # transformers changed the name in version 5.
        names = (f"activation_checkpointing_{do}", f"gradient_checkpointing_{do}")
        other: Any = next((getattr(part, name) for name in names if hasattr(part, name)), None)
        if own is None and other is None:
            continue
        try:
            if own is None:
                other()
            else:
                own(enabled)
        except (AssertionError, ValueError) as error:
            raise UsageError(f"{type(part).__name__} cannot checkpoint activations: {error}") from error
        return
    raise UsageError("the backbone's network cannot checkpoint activations; leave the option out")


def build_network(
    backbone: Backbone,
    heads: Spec,
    taxonomy: Taxonomy,
    *,
    counts: Mapping[str, npt.NDArray[np.int64]] | None = None,
    seed: int = 0,
) -> Network:
    """Put heads on a backbone, in evaluation. The network takes the module over: training changes it.

    Args:
        backbone: built; its convolutions are laid out channels last.
        heads: a registered kind of heads with its options.
        taxonomy: categories, attributes, values.
        counts: per category, the labels of each packed value, for heads whose shape follows the data.
        seed: of the heads' first weights.

    Raises:
        UsageError: the heads read a map and the backbone has none, or options that do not fit.
    """
    entry = REGISTRIES["heads"].get(heads.name)
    takes = getattr(entry, "takes", "vector")
    dimension = backbone.channels if takes == "map" else backbone.dimension
    if dimension is None:
        raise UsageError(
            f"the heads {heads.name!r} read a feature map and the backbone {backbone.name!r} has none; "
            "use heads that take a vector, such as 'mlp'"
        )
    extra = (counts,) if "counts" in inspect.signature(entry).parameters else ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = REGISTRIES["heads"].build(heads, taxonomy, dimension, *extra)
    if getattr(built, "takes", "vector") != takes:
        raise UsageError(f"the heads {heads.name!r} say that they take a {takes} and then take another thing")
    if backbone.family == "conv":
        convolutional: Any = backbone.module
        convolutional.to(memory_format=torch.channels_last)
    network = Network(backbone.module, built)
    network.spec = REGISTRIES["heads"].spec(heads.name, **(_options(heads) | getattr(built, "settled", {})))
    return network.eval()


def _options(spec: Spec) -> dict[str, Any]:
    return {key: value for key, value in spec.table().items() if key != "name"}
