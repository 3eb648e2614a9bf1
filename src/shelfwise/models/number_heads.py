"""Number heads: features to a location and a scale for every Number, on its standardised scale.

They do not know where the features come from, nor units: ``taxonomy.Number`` turns the scale into numbers. What is said
is a Laplace distribution. Everything here is computed in float32, whatever the rest of the network computes in: a half
has eleven bits, which is two rupees in a price of 2,048.
Legend: B rows, D features, K Numbers, E features of a category, Q quantile levels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from shelfwise.amounts import LEVELS
from shelfwise.config import Options
from shelfwise.taxonomy import Number

#: The smallest scale of a distribution, as a share of the spread of all.
LEAST = 0.02
#: Features that a category is described by.
CATEGORY = 16
#: Stated numbers that a category needs for quantiles of its own.
FEW = 20
#: The scale that every head begins with.
_FIRST = 0.7


class NumberOptions(Options):
    """How features become numbers.

    Attributes:
        hidden: widths of the hidden layers of a head; each is linear, layer norm, GELU, dropout.
        dropout: the share of hidden values left out in training.
        hide: the share of training products whose category is not told, so that products without one get numbers too.
    """

    hidden: tuple[int, ...] = (256, 64)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    hide: float = Field(default=0.05, ge=0, lt=1)


class NumberHeads(nn.Module):
    """One head a Number, shared by all categories, which it is told as learnt features; none is a category too.

    Args:
        count: K.
        dimension: D.
        categories: how many there are.
        options: the shape of each head.
    """

    def __init__(self, count: int, dimension: int, categories: int, options: NumberOptions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimension)
        self.category = nn.Embedding(categories + 1, CATEGORY)
        nn.init.normal_(self.category.weight, std=0.1)
        self.of = nn.ModuleList(_head(dimension + CATEGORY, options) for _ in range(count))
        self.hide = options.hide

    def forward(self, features_BD: Tensor, category_B: Tensor) -> Tensor:
        """Return float32 [B, K, 2]: the location and the logarithm of the scale, both on the standardised scale.

        Args:
            features_BD: of the products.
            category_B: codes; below 0 where none is known.
        """
        with torch.autocast(features_BD.device.type, enabled=False):
            none = self.category.num_embeddings - 1
            code_B = torch.where(category_B < 0, none, category_B)
            if self.training and self.hide:
                code_B = code_B.masked_fill(torch.rand(len(code_B), device=code_B.device) < self.hide, none)
            told_BF = torch.cat([self.norm(features_BD.float()), self.category(code_B)], dim=1)
            said_BK2 = torch.stack([head(told_BF) for head in self.of], dim=1)
            scale_BK = nn.functional.softplus(said_BK2[..., 1]) + LEAST
            return torch.stack([said_BK2[..., 0], scale_BK.log()], dim=2)


def _head(width: int, options: NumberOptions) -> nn.Sequential:
    layers: list[nn.Module] = []
    for following in options.hidden:
        layers += [
            nn.Linear(width, following),
            nn.LayerNorm(following),
            nn.GELU(),
            nn.Dropout(options.dropout),
        ]
        width = following
    last = nn.Linear(width, 2)
    with torch.no_grad():
        # Every product begins near the median of all.
        last.weight.mul_(0.1)
        last.bias.copy_(torch.tensor([0.0, float(np.log(np.expm1(_FIRST - LEAST)))]))
    return nn.Sequential(*layers, last)


def laplace_quantiles(
    number: Number, location_n: npt.NDArray[np.floating], log_scale_n: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Return float32 [n, Q] at ``LEVELS`` in the Number's unit, ascending; above 0 where the Number always is.

    Args:
        number: whose standardised scale the distributions are on.
        location_n, log_scale_n: of each.
    """
    tail_Q = np.minimum(LEVELS, 1 - LEVELS)
    away_Q = np.sign(LEVELS - 0.5) * -np.log(2 * tail_Q)
    location_n, scale_n = np.asarray(location_n, np.float64), np.exp(np.asarray(log_scale_n, np.float64))
    return in_units(number, number.inverse(location_n[:, None] + scale_n[:, None] * away_Q))


def in_units(number: Number, quantiles_nQ: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return quantiles as float32, within what it holds."""
    low = np.finfo(np.float32).tiny if number.transform == "log" else np.finfo(np.float32).min
    found: npt.NDArray[np.float32] = np.clip(quantiles_nQ, low, np.finfo(np.float32).max).astype(np.float32)
    return found


def prior_quantiles(
    number: Number, stated_N: npt.NDArray[np.float64], category_N: npt.NDArray[np.integer], count: int
) -> npt.NDArray[np.float32]:
    """Return float32 [count + 1, Q]: the quantiles of what each category's products state; the last row of all.

    Args:
        number: what is stated.
        stated_N: in its unit, NaN where nothing is; at least one is stated.
        category_N: codes.
        count: of categories; one with too few stated numbers has the quantiles of all.
    """
    known_N = np.isfinite(stated_N)
    prior_CQ = np.tile(np.quantile(stated_N[known_N], LEVELS), (count + 1, 1))
    for code in range(count):
        own = stated_N[known_N & (category_N == code)]
        if len(own) >= FEW:
            prior_CQ[code] = np.quantile(own, LEVELS)
    return in_units(number, prior_CQ)


def number_targets(
    numbers: Sequence[Number], stated: Sequence[npt.NDArray[np.float64]]
) -> npt.NDArray[np.float32]:
    """Return float32 [N, K], what is stated on the standardised scale of each Number; NaN where nothing is."""
    return np.stack([n.forward(s) for n, s in zip(numbers, stated, strict=True)], axis=1).astype(np.float32)
