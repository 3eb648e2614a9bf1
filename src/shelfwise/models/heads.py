"""Heads: [B, D] -> [B, V]: every (category, attribute) in one packed tensor per category.

They do not know where the features come from. A batch is taken apart by category, and all attributes
of a category are computed at once; there is no loop over samples or attributes.
Legend: B batch, n its rows of one category, D features, A attributes, V their values packed, H hidden
width, F = A * H, C the most values of any attribute.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from shelfwise.models.losses import padded_columns
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy

Norm = Literal["layer", "none"]


class CategoryHeads(nn.Module):
    """All the heads of one category; a chain of hidden layers each, then a linear layer to the values.

    Args:
        slices: packed columns of each attribute.
        dimension: D.
        hidden: the width of each hidden layer; none for linear heads.
        dropout: after each hidden layer.
        norm: ``layer`` or ``none``.
    """

    def __init__(
        self, slices: Sequence[slice], dimension: int, hidden: Sequence[int], dropout: float, norm: Norm
    ) -> None:
        super().__init__()
        attributes, values = len(slices), slices[-1].stop
        gather_AC, real_AC = padded_columns(slices)
        self.register_buffer("gather_AC", torch.from_numpy(gather_AC), persistent=False)
        self.register_buffer("real_AC", torch.from_numpy(real_AC), persistent=False)
        self.weights, self.biases, self.gains, self.shifts = (nn.ParameterList() for _ in range(4))
        width = dimension
        for layer, following in enumerate(hidden):
            # All heads' first layers read the same rows: stored as [D, A, H], they are one product, without
            # a copy forward, backward or in the optimiser. Further layers are [A, H, next H].
            shape = (attributes, width, following) if layer else (width, attributes, following)
            self.weights.append(_uniform(shape, width))
            self.biases.append(_uniform((attributes, 1, following), width))
            if norm == "layer":
                self.gains.append(nn.Parameter(torch.ones(attributes, 1, following)))
                self.shifts.append(nn.Parameter(torch.zeros(attributes, 1, following)))
            width = following
        self.last_weight = _uniform((width, values), width)
        self.last_bias = _uniform((values,), width)
        self.dropout = nn.Dropout(dropout)
        self.norm = norm

    def forward(self, features_nD: torch.Tensor) -> torch.Tensor:
        """Return logits [n, V]."""
        if not len(self.weights):
            return torch.addmm(self.last_bias, features_nD, self.last_weight)
        attributes = len(self.gather_AC)
        first_DF = self.weights[0].flatten(1)
        hidden_nF = self._activate(torch.addmm(self.biases[0].flatten(), features_nD, first_DF), 0)
        for layer in range(1, len(self.weights)):
            hidden_AnH = hidden_nF.view(len(hidden_nF), attributes, -1).transpose(0, 1)
            hidden_AnH = torch.baddbmm(self.biases[layer], hidden_AnH, self.weights[layer])
            hidden_nF = self._activate(hidden_AnH.transpose(0, 1).flatten(1), layer)
        hidden_AnH = hidden_nF.view(len(hidden_nF), attributes, -1).transpose(0, 1)
        last_AHC = self.last_weight[:, self.gather_AC].transpose(0, 1)
        logits_nAC = torch.bmm(hidden_AnH, last_AHC).transpose(0, 1)
        return logits_nAC[:, self.real_AC] + self.last_bias

    def _activate(self, hidden_nF: torch.Tensor, layer: int) -> torch.Tensor:
        """Norm, ReLU and dropout; a layer norm per attribute is a group norm of all of them side by side."""
        if self.norm == "layer":
            gain_F, shift_F = self.gains[layer].flatten(), self.shifts[layer].flatten()
            hidden_nF = nn.functional.group_norm(hidden_nF, len(self.gains[layer]), gain_F, shift_F)
        result: torch.Tensor = self.dropout(hidden_nF.relu())
        return result

    gather_AC: torch.Tensor
    real_AC: torch.Tensor


def _uniform(shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
    """Weights as ``torch.nn.Linear`` draws them."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


class Heads(nn.Module):
    """The heads of every category.

    Args:
        taxonomy: categories, attributes, values.
        dimension: D.
        hidden: the width of each hidden layer.
        dropout: after each hidden layer.
        norm: ``layer`` or ``none``.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        dimension: int,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        self.categories = taxonomy.categories
        self.of = nn.ModuleDict(
            {
                str(code): CategoryHeads(taxonomy.slices(category), dimension, hidden, dropout, norm)
                for code, category in enumerate(taxonomy.categories)
                if taxonomy.width(category)
            }
        )

    def forward(
        self, features_BD: torch.Tensor, category_B: torch.Tensor
    ) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """Return, per category in the batch, its name, its rows [n] and their logits [n, V]."""
        order = category_B.argsort(stable=True)
        codes, counts = torch.unique_consecutive(category_B[order], return_counts=True)
        outputs = []
        for code, rows in zip(codes.tolist(), torch.split_with_sizes(order, counts.tolist()), strict=True):
            if str(code) in self.of:
                outputs.append((self.categories[code], rows, self.of[str(code)](features_BD[rows])))
        return outputs


@register.heads("linear")
def linear(taxonomy: Taxonomy, dimension: int) -> Heads:
    """One linear layer per attribute."""
    return Heads(taxonomy, dimension)


@register.heads("mlp")
def mlp(
    taxonomy: Taxonomy,
    dimension: int,
    *,
    hidden: int = 256,
    layers: int = 1,
    dropout: float = 0.1,
    norm: Norm = "layer",
) -> Heads:
    """One multi-layer perceptron per attribute: linear, norm, ReLU, dropout per hidden layer, then linear.

    Each further hidden layer is half as wide as the one before.
    """
    return Heads(taxonomy, dimension, [hidden // 2**layer for layer in range(layers)], dropout, norm)
