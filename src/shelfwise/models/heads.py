"""Heads: features to logits, every (category, attribute) in one packed tensor per category.

They do not know where the features come from. A batch is taken apart by category, and all attributes
of a category are computed at once; there is no loop over samples or attributes.
Legend: B batch, n its rows of one category, D features, A attributes, V their values packed, H hidden
width, F = A * H, C the most values of any attribute.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError, listing
from shelfwise.models.losses import padded_columns
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy

Norm = Literal["layer", "group", "batch", "none"]
Takes = Literal["vector", "map"]
Entry = TypeVar("Entry", bound=Callable[..., nn.Module])
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "sigmoid": torch.sigmoid,
}


@dataclass(frozen=True)
class Layer:
    """One hidden layer of every head: linear, norm, activation, dropout.

    Attributes:
        width: H.
        norm: ``layer``, ``group``, ``batch`` or ``none``.
        dropout: the share of hidden values left out in training.
        groups: of the norm ``group``.
        activation: ``relu``, ``gelu`` or ``sigmoid``.
    """

    width: int
    norm: Norm = "layer"
    dropout: float = 0.0
    groups: int = 8
    activation: str = "relu"

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise UsageError(f"the norm of a head is one of {listing(get_args(Norm))}, not {self.norm!r}")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"the dropout of a head is in [0, 1), not {self.dropout}")
        least = {"layer": 2, "group": 2 * self.groups}.get(self.norm, 1)
        if self.width < least or (self.norm == "group" and self.width % self.groups):
            rule = f"a multiple of groups = {self.groups}, " if self.norm == "group" else ""
            raise UsageError(
                f"a hidden layer with norm = {self.norm!r} has a width of {rule}at least {least}, not "
                f"{self.width}: give a larger hidden, fewer layers or another norm"
            )


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of the packed heads, in an order, and some of their values.

    Attributes:
        index_A: which heads.
        gather_AC: the packed column of each value, 0 where there is none.
        flat_V: where the values that exist lie in [A, C] laid flat.
    """

    index_A: Tensor
    gather_AC: Tensor
    flat_V: Tensor


class CategoryHeads(nn.Module):
    """The heads of one category; a chain of hidden layers each, then a linear layer to the values.

    Args:
        slices: packed columns of each attribute.
        dimension: D.
        layers: the hidden layers; none for linear heads.
        own: every head reads its own features [A, n, D], not the same [n, D].
    """

    def __init__(
        self, slices: Sequence[slice], dimension: int, layers: Sequence[Layer] = (), own: bool = False
    ) -> None:
        super().__init__()
        self.slices, self.layers, self.own = tuple(slices), tuple(layers), own
        attributes, values = len(slices), slices[-1].stop
        gather_AC, real_AC = padded_columns(slices)
        self.register_buffer("gather_AC", torch.from_numpy(gather_AC), persistent=False)
        self.register_buffer("flat_V", torch.from_numpy(real_AC).flatten().nonzero()[:, 0], persistent=False)
        self.weights, self.biases, self.gains, self.shifts = (nn.ParameterList() for _ in range(4))
        self.normed: list[int] = []
        width = dimension
        for place, layer in enumerate(self.layers):
            # All heads' first layers read the same rows: stored as [D, A, H], they are one product, without
            # a copy forward, backward or in the optimiser. Further layers are [A, H, next H].
            following = layer.width
            shape = (attributes, width, following) if place or own else (width, attributes, following)
            self.weights.append(_uniform(shape, width))
            self.biases.append(_uniform((attributes, 1, following), width))
            if layer.norm != "none":
                self.normed.append(place)
                self.gains.append(nn.Parameter(torch.ones(attributes, 1, following)))
                self.shifts.append(nn.Parameter(torch.zeros(attributes, 1, following)))
            if layer.norm == "batch":
                self.register_buffer(f"mean_{place}", torch.zeros(attributes, 1, following))
                self.register_buffer(f"variance_{place}", torch.ones(attributes, 1, following))
            width = following
        self.last_weight = _uniform((width, values), width)
        self.last_bias = _uniform((values,), width)

    def forward(self, features: Tensor, selection: Selection | None = None) -> Tensor:
        """Return logits [n, V].

        Args:
            features: [n, D], or [A, n, D] where every head has its ``own``.
            selection: some of the heads; all where left out.
        """
        if not self.layers and not self.own and selection is None:
            return torch.addmm(self.last_bias, features, self.last_weight)
        index_A = None if selection is None else selection.index_A
        hidden = features
        for place in range(len(self.layers)):
            hidden = self._activate(self._linear(hidden, place, index_A), place, index_A)
        gather_AC = self.gather_AC if selection is None else selection.gather_AC
        flat_V = self.flat_V if selection is None else selection.flat_V
        hidden_AnH = self._per_head(hidden, len(gather_AC), first=not self.layers)
        last_AHC = self.last_weight[:, gather_AC].transpose(0, 1)
        logits_nAC = torch.bmm(hidden_AnH, last_AHC).transpose(0, 1)
        bias_V = self.last_bias[gather_AC.flatten()[flat_V]] if selection is not None else self.last_bias
        return logits_nAC.flatten(1)[:, flat_V] + bias_V

    def _per_head(self, hidden: Tensor, attributes: int, first: bool) -> Tensor:
        """Return [A, n, H] of the rows [n, F], or of what the first layer reads."""
        if not first:
            return hidden.view(len(hidden), attributes, -1).transpose(0, 1)
        return hidden if self.own else hidden.expand(attributes, -1, -1)

    def _linear(self, hidden: Tensor, place: int, index_A: Tensor | None) -> Tensor:
        """Return the linear part of a hidden layer, [n, F]."""
        shared = place == 0 and not self.own
        weight, bias_A1H = self.weights[place], self.biases[place]
        if index_A is not None:
            weight, bias_A1H = weight.index_select(int(shared), index_A), bias_A1H[index_A]
        if shared:
            return torch.addmm(bias_A1H.flatten(), hidden, weight.flatten(1))
        hidden_AnH = torch.baddbmm(bias_A1H, self._per_head(hidden, len(bias_A1H), first=place == 0), weight)
        return hidden_AnH.transpose(0, 1).flatten(1)

    def _activate(self, hidden_nF: Tensor, place: int, index_A: Tensor | None) -> Tensor:
        """Norm, activation and dropout; a layer norm per attribute is a group norm of all of them side by side."""
        layer = self.layers[place]
        if layer.norm != "none":
            at = self.normed.index(place)
            gain_A1H, shift_A1H = self.gains[at], self.shifts[at]
            if index_A is not None:
                gain_A1H, shift_A1H = gain_A1H[index_A], shift_A1H[index_A]
            gain_F, shift_F = gain_A1H.flatten(), shift_A1H.flatten()
            if layer.norm == "batch":
                mean_F, variance_F = (self.get_buffer(f"{n}_{place}").view(-1) for n in ("mean", "variance"))
                # One row has no spread: it is normalised by what earlier batches had, and teaches nothing.
                new = self.training and len(hidden_nF) > 1
                hidden_nF = nn.functional.batch_norm(hidden_nF, mean_F, variance_F, gain_F, shift_F, new)
            else:
                groups = len(gain_A1H) * (layer.groups if layer.norm == "group" else 1)
                hidden_nF = nn.functional.group_norm(hidden_nF, groups, gain_F, shift_F)
        hidden_nF = _ACTIVATIONS[layer.activation](hidden_nF)
        return nn.functional.dropout(hidden_nF, layer.dropout, self.training)

    def masks(self, attribute: int) -> dict[str, Tensor]:
        """Return, per parameter name, where the values of one attribute's head lie."""
        found = {}
        for name, value in self.named_parameters():
            mask = torch.zeros(value.shape, dtype=torch.bool)
            if name.startswith("last_"):
                mask[..., self.slices[attribute]] = True
            elif name == "weights.0" and not self.own:
                mask[:, attribute] = True
            else:
                mask[attribute] = True
            found[name] = mask
        return found

    gather_AC: Tensor
    flat_V: Tensor


def _uniform(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    """Weights as ``torch.nn.Linear`` draws them."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def packed_slices(sizes: Sequence[int]) -> tuple[slice, ...]:
    """Return the packed columns of attributes with so many values each."""
    ends = [0, *accumulate(sizes)]
    return tuple(slice(start, end) for start, end in pairwise(ends))


class Heads(nn.Module):
    """The heads of every category.

    Args:
        taxonomy: categories, attributes, values.
        build: category name to its heads, features of n rows to logits [n, V]; they have ``masks``.
        takes: ``vector`` or ``map``.
        before: what all of them read the features through.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        build: Callable[[str], nn.Module],
        *,
        takes: Takes = "vector",
        before: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.takes: Takes = takes
        self.categories = taxonomy.categories
        #: Options that were settled by the data when the heads were built, for building the same ones again.
        self.settled: dict[str, Any] = {}
        self.attributes = {c: tuple(choice.name for choice in taxonomy.choices(c)) for c in self.categories}
        self.before = nn.Identity() if before is None else before
        self.of = nn.ModuleDict(
            {
                str(code): build(category)
                for code, category in enumerate(taxonomy.categories)
                if taxonomy.width(category)
            }
        )

    def forward(self, features: Tensor, category_B: Tensor) -> list[tuple[str, Tensor, Tensor]]:
        """Return, per category in the batch, its name, its rows [n] and their logits [n, V]."""
        features = self.before(features)
        outputs = []
        for code, rows in rows_by_category(category_B):
            if str(code) in self.of:
                part = features if len(rows) == len(features) else features[rows]
                outputs.append((self.categories[code], rows, self.of[str(code)](part)))
        return outputs

    def masks(self, category: str, attribute: str) -> dict[str, Tensor]:
        """Return, per parameter name, where the values of one attribute's head lie."""
        code = str(self.categories.index(category))
        part = self.of[code]
        found: dict[str, Tensor] = part.masks(self.attributes[category].index(attribute))  # type: ignore[operator]
        return {f"of.{code}.{name}": mask for name, mask in found.items()}


def rows_by_category(category_B: Tensor) -> list[tuple[int, Tensor]]:
    """Return, per category code in a batch, its rows, ascending."""
    order = category_B.argsort(stable=True)
    codes, counts = torch.unique_consecutive(category_B[order], return_counts=True)
    return list(zip(codes.tolist(), torch.split_with_sizes(order, counts.tolist()), strict=True))


def reads_map(entry: Entry) -> Entry:
    """Mark a registered kind of heads as one that takes a feature map; its dimension is the map's channels."""
    entry.takes = "map"  # type: ignore[attr-defined]
    return entry


def chain(hidden: int, layers: int, dropout: float, norm: Norm, groups: int) -> list[Layer]:
    """Return hidden layers, each half as wide as the one before.

    Raises:
        UsageError: a layer that is too narrow for its norm, or a number that cannot be.
    """
    if layers < 0 or hidden < 1 or groups < 1:
        raise UsageError(f"heads need layers >= 0, hidden and groups >= 1: {layers=}, {hidden=}, {groups=}")
    return [Layer(hidden // 2**place, norm, dropout, groups) for place in range(layers)]


@register.heads("linear")
def linear(taxonomy: Taxonomy, dimension: int) -> Heads:
    """One linear layer per attribute."""
    return Heads(taxonomy, lambda category: CategoryHeads(taxonomy.slices(category), dimension))


@register.heads("mlp")
def mlp(
    taxonomy: Taxonomy,
    dimension: int,
    *,
    hidden: int = 256,
    layers: int = 1,
    dropout: float = 0.1,
    norm: Norm = "layer",
    groups: int = 8,
) -> Heads:
    """One multi-layer perceptron per attribute: linear, norm, ReLU, dropout per hidden layer, then linear.

    Args:
        taxonomy: categories, attributes, values.
        dimension: features.
        hidden: width of the first hidden layer; each further one is half as wide as the one before.
        layers: how many hidden layers.
        dropout: after each hidden layer.
        norm: ``layer``, ``group``, ``batch`` (over the batch's rows of the category) or ``none``.
        groups: of the norm ``group``.
    """
    through = chain(hidden, layers, dropout, norm, groups)
    return Heads(taxonomy, lambda category: CategoryHeads(taxonomy.slices(category), dimension, through))
