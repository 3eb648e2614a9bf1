"""Dividing and clipping gradients, all at once or each head by itself.

It knows no loss: gradients come in of a sum over labels, and go out of a mean. Nothing here waits for the device.
Legend: P pairs of category and attribute, K parts of tensors.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from shelfwise.train.anatomy import Pair, Part

_TINY = 1e-6


@torch.no_grad()
def divide(parameters: Sequence[Tensor], factor: Tensor, clip: float | None) -> None:
    """Multiply all gradients by one factor; make it smaller where their norm would be above ``clip``.

    Args:
        parameters: those without a gradient are passed over.
        factor: scalar, on the device.
        clip: the greatest norm of all together.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    if clip is not None:
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        factor = factor * torch.clamp(clip / (norm * factor + _TINY), max=1.0)
    torch._foreach_mul_(gradients, factor.to(gradients[0].dtype))


@torch.no_grad()
def divide_each(
    parameters: Mapping[str, Tensor],
    heads: Sequence[tuple[Pair, Sequence[Part]]],
    factor_P: Tensor,
    clip: float | None,
) -> None:
    """Multiply each head's gradients by its own factor, clipped by its own norm.

    Args:
        parameters: by name; those without a gradient are passed over.
        heads: pairs with their parts, in the order of ``factor_P``.
        factor_P: on the device.
        clip: the greatest norm of one head's gradients.
    """
    parts_K: list[Tensor] = []
    owner_K: list[int] = []
    for number, (_, parts) in enumerate(heads):
        for name, index in parts:
            gradient = parameters[name].grad if name in parameters else None
            if gradient is not None:
                parts_K.append(gradient[index])
                owner_K.append(number)
    if not parts_K:
        return
    owners_K = torch.tensor(owner_K, device=factor_P.device)
    if clip is not None:
        squares_K = torch.stack(torch._foreach_norm(parts_K)).to(factor_P.dtype).square()
        norm_P = torch.zeros_like(factor_P).index_add_(0, owners_K, squares_K).sqrt()
        factor_P = factor_P * torch.clamp(clip / (norm_P * factor_P + _TINY), max=1.0)
    factors_K = factor_P[owners_K].to(parts_K[0].dtype).unbind()
    torch._foreach_mul_(parts_K, factors_K)
