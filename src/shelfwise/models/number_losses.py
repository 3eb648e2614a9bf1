"""Number losses: what a predicted distribution of a Number costs, and the objective of all Numbers.

They do not know pictures, texts or units. A registered loss takes ``(location_M, log_scale_M, target_M, spread)``, all
on the standardised scale, and returns one loss a cell: ``spread`` is how much of the transformed number one standard
unit is. A loss without a likelihood of its own leaves the location to itself and the scale to the Laplace likelihood
around it, so that every loss gives a whole distribution. None has a gradient of 0 anywhere but where it is lowest.
Legend: M cells, B rows, K Numbers, P pairs of category and Number.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError
from shelfwise.models.losses import Sums
from shelfwise.registry import REGISTRIES, Spec, register
from shelfwise.taxonomy import Taxonomy

NumberLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


@register.number_loss("laplace")
def laplace(location_M: Tensor, log_scale_M: Tensor, target_M: Tensor, spread: float) -> Tensor:
    """Return [M], the negative log likelihood of a Laplace distribution, but for a constant."""
    return (target_M - location_M).abs() * torch.exp(-log_scale_M) + log_scale_M


def _spreading(location_M: Tensor, log_scale_M: Tensor, target_M: Tensor, spread: float) -> Tensor:
    """The likelihood as a loss of the scale alone."""
    return laplace(location_M.detach(), log_scale_M, target_M, spread)


@register.number_loss("l1")
def l1(location_M: Tensor, log_scale_M: Tensor, target_M: Tensor, spread: float) -> Tensor:
    """Return [M], the absolute error of the transformed number: every product pulls alike."""
    scale_M = _spreading(location_M, log_scale_M, target_M, spread)
    return (target_M - location_M).abs() + scale_M


@register.number_loss("huber")
def huber(
    location_M: Tensor, log_scale_M: Tensor, target_M: Tensor, spread: float, *, delta: float = 0.5
) -> Tensor:
    """Return [M], the squared error near the target and the absolute one beyond (Huber 1964).

    Args:
        location_M, log_scale_M: what is predicted.
        target_M: what is stated.
        spread: of the Number.
        delta: where the one goes over into the other, in standard units.
    """
    scale_M = _spreading(location_M, log_scale_M, target_M, spread)
    return nn.functional.huber_loss(location_M, target_M, reduction="none", delta=delta) / delta + scale_M


@register.number_loss("smape")
def smape(
    location_M: Tensor, log_scale_M: Tensor, target_M: Tensor, spread: float, *, leak: float = 0.1
) -> Tensor:
    """Return [M], the symmetric absolute percentage error, as a share of 2, of numbers above zero.

    With d the difference of two logarithms the error ``|a - b| / ((a + b) / 2)`` is ``2 tanh(|d| / 2)``: no number is
    computed, so none can be zero, below zero or infinite. It is flat where d is large; ``leak`` keeps a slope there.

    Args:
        location_M, log_scale_M: what is predicted.
        target_M: what is stated.
        spread: of the Number.
        leak: share of ``|d|`` that is added.
    """
    scale_M = _spreading(location_M, log_scale_M, target_M, spread)
    away_M = (target_M - location_M).abs() * spread
    return 2 * torch.tanh(away_M / 2) + leak * away_M + scale_M


class NumberObjective(nn.Module):
    """The loss over the stated numbers of a batch, in float32.

    Attributes:
        pairs: (category, Number) in the order of ``Sums.pair_loss``.

    Args:
        taxonomy: categories and their Numbers.
        loss: a registered one.
        weight: how many labelled cells one stated number counts as.

    Raises:
        UsageError: a loss for numbers above zero, and a Number that has others.
    """

    place_CK: Tensor

    def __init__(self, taxonomy: Taxonomy, loss: Spec, weight: float) -> None:
        super().__init__()
        options = {key: value for key, value in loss.table().items() if key != "name"}
        self.loss: NumberLoss = functools.partial(REGISTRIES["number_loss"].get(loss.name), **options)
        self.numbers = tuple(taxonomy.number(name) for name in taxonomy.number_names)
        self.weight = weight
        linear = [number.name for number in self.numbers if number.transform == "linear"]
        if loss.name == "smape" and linear:
            raise UsageError(
                f"number_loss = 'smape' is for numbers that are never below zero, and {linear[0]!r} is: take 'laplace'"
            )
        place_CK = torch.full((len(taxonomy.categories), len(self.numbers)), -1)
        pairs: list[tuple[str, str]] = []
        for code, category in enumerate(taxonomy.categories):
            for at, number in enumerate(self.numbers):
                if number in taxonomy.numbers(category):
                    place_CK[code, at] = len(pairs)
                    pairs.append((category, number.name))
        self.pairs = tuple(pairs)
        self.register_buffer("place_CK", place_CK, persistent=False)

    def sums(self, said_BK2: Tensor, target_BK: Tensor, category_B: Tensor) -> Sums:
        """Return what a batch adds up to; a number that is not stated adds nothing.

        Args:
            said_BK2: locations and logarithms of scales.
            target_BK: standardised, NaN where nothing is stated.
            category_B: codes.
        """
        with torch.autocast(said_BK2.device.type, enabled=False):
            place_BK = self.place_CK[category_B]
            known_BK = target_BK.isfinite() & (place_BK >= 0)
            target_BK = torch.where(known_BK, target_BK, 0.0)
            location_BK, log_scale_BK = said_BK2.float().unbind(dim=2)
            each = [
                self.loss(location_BK[:, k], log_scale_BK[:, k], target_BK[:, k], number.scale)
                for k, number in enumerate(self.numbers)
            ]
            loss_BK = torch.where(known_BK, torch.stack(each, dim=1), 0.0)
            pair_loss = loss_BK.new_zeros(len(self.pairs))
            pair_labels = torch.zeros_like(pair_loss)
            at = place_BK.clamp(min=0).flatten()
            pair_loss.index_add_(0, at, loss_BK.detach().flatten())
            pair_labels.index_add_(0, at, known_BK.float().flatten())
            return Sums(self.weight * loss_BK.sum(), self.weight * known_BK.sum(), pair_loss, pair_labels)
