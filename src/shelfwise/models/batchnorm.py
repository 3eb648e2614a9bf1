"""Batch norms with fixed statistics, folded into the convolutions before them.

It knows no architecture: which norm follows which convolution is seen by running the network once.
Legend: O output channels of a convolution.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from shelfwise.models.towers import one_thread


def fold_batch_norm(module: nn.Module, size: tuple[int, int] = (64, 64)) -> tuple[str, ...]:
    """Fold every batch norm that directly follows a convolution into it, as it computes in evaluation.

    The convolutions get the norms' scale and shift, the norms are gone (their activation stays): the same
    features, fewer operations, and statistics that no batch can move. The names in the state dict change,
    so a network is folded in the same way before weights of a folded one are loaded into it.

    Args:
        module: a backbone's module, pictures [B, H, W, 3] in; changed in place.
        size: of the black pictures it is run on.

    Returns:
        The names of the norms that were folded, in the order of the modules.
    """
    if not any(isinstance(part, _BatchNorm) for part in module.modules()):
        return ()
    names = {part: name for name, part in module.named_modules()}
    folded = []
    for norm, conv in _followers(module, size).items():
        _fold(conv, norm)
        _replace(module, names[norm], _rest(norm))
        folded.append(names[norm])
    return tuple(sorted(folded, key=list(names.values()).index))


def _followers(module: nn.Module, size: tuple[int, int]) -> dict[Any, Any]:
    """Return norm -> convolution where the norm reads what the convolution gave; both used exactly once."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}
    pairs: dict[Any, Any] = {}
    uses: dict[nn.Module, int] = {}

    def after_conv(conv: nn.Module, given: Any, result: Tensor) -> None:
        uses[conv] = uses.get(conv, 0) + 1
        made[id(result)] = conv, result  # Keeping the tensor keeps its id from being used again.

    def before_norm(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        uses[norm] = uses.get(norm, 0) + 1
        found = made.get(id(given[0]))
        if found is not None:
            pairs[norm] = found[0]

    hooks = []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            hooks.append(part.register_forward_hook(after_conv))
        elif isinstance(part, _BatchNorm):
            hooks.append(part.register_forward_pre_hook(before_norm))
    modes = {part: part.training for part in module.modules()}
    module.eval()
    first = next(module.parameters())
    black_BHWC = torch.zeros((1, *size, 3), dtype=torch.uint8, device=first.device)
    try:
        with one_thread(), torch.no_grad():
            module(black_BHWC)
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in modes.items():
            part.training = mode
    readers = list(pairs.values())
    return {
        norm: conv
        for norm, conv in pairs.items()
        if uses[norm] == uses[conv] == readers.count(conv) == 1 and norm.running_var is not None
    }


def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    """Give the convolution the norm's scale and shift, computed in double precision."""
    with torch.no_grad():
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale_O = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.affine:
            scale_O = scale_O * norm.weight.double()
        before_O = 0.0 if conv.bias is None else conv.bias.double()
        shift_O = (before_O - norm.running_mean.double()) * scale_O
        if norm.affine:
            shift_O = shift_O + norm.bias.double()
        conv.weight.copy_(conv.weight.double() * scale_O[:, None, None, None])
        bias = nn.Parameter(shift_O.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    conv.bias = bias


def _rest(norm: _BatchNorm) -> nn.Module:
    """Return what a norm does besides: timm's has a drop and an activation."""
    parts = [part for part in (getattr(norm, "drop", None), getattr(norm, "act", None)) if part is not None]
    kept = [part for part in parts if not isinstance(part, nn.Identity)]
    return nn.Sequential(*kept) if kept else nn.Identity()


def _replace(module: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
