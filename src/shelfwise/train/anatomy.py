"""Anatomy of a network for training: layer groups, heads as parts of tensors, what a phase trains.

It knows no backbone and no taxonomy: only names of parameters and, where heads lie packed in one tensor, which
slice of it belongs to which head.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from shelfwise.errors import UsageError, listing, suggest
from shelfwise.train.optim import HEADS, NEW, SIDES, LayerGroups, Phase, heights

#: A head: (category, attribute).
Pair = tuple[str, str]
#: Part of a tensor: its name, and the slices along its first axes.
Part = tuple[str, tuple[slice, ...]]


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What the loop has to know of a network.

    Attributes:
        layer_groups: from the stem to the heads; without them everything whose name begins with ``heads.`` is the
            heads, the rest one group.
        pairs: the order of ``Sums.pair_loss`` and ``Sums.pair_labels``.
        heads: for each pair the parts of tensors (parameters and buffers) that are its head's alone.
    """

    layer_groups: LayerGroups = ()
    pairs: Sequence[Pair] = ()
    heads: Mapping[Pair, Sequence[Part]] = field(default_factory=dict)

    def complete(self, network: nn.Module) -> "Anatomy":
        """Return the anatomy with the network's own layer groups, or two by name, where it has none."""
        if self.layer_groups:
            return self
        groups = getattr(network, "layer_groups", None)
        if groups is None:
            names = [name for name, _ in network.named_parameters()]
            heads = [name for name in names if name.startswith(f"{HEADS}.")]
            groups = [("backbone", [name for name in names if name not in set(heads)]), (HEADS, heads)]
        return Anatomy(groups, self.pairs, self.heads)


def trained(anatomy: Anatomy, phase: Phase) -> tuple[frozenset[str], tuple[Pair, ...] | None]:
    """Return the parameters that a phase trains and, where it trains only some heads, which.

    Raises:
        UsageError: a name that is neither a layer group nor a head, or more layer groups than there are.
    """
    groups = {name: list(names) for name, names in anatomy.layer_groups}
    groups[HEADS] = [parameter for name in NEW for parameter in groups.get(name, ())]
    if phase.train == "all":
        return frozenset(name for names in groups.values() for name in names), None
    if phase.train == "heads":
        return frozenset(groups[HEADS]), None
    if phase.train == "each head":
        return frozenset(name for parts in anatomy.heads.values() for name, _ in parts), None
    if isinstance(phase.train, int):
        above = heights(anatomy.layer_groups)
        if phase.train > max(above):
            raise UsageError(
                f"train = {phase.train}: the backbone has {max(above)} layer groups; 'all' trains all of it"
            )
        near = zip(groups.values(), above, strict=True)
        return frozenset(name for names, height in near if height <= phase.train for name in names), None
    for side in SIDES:
        own = [n for name, names in groups.items() if name.startswith(f"{side}.") for n in names]
        groups |= {side: own} if own else {}
    heads = {"/".join(pair): pair for pair in anatomy.heads}
    unknown = [name for name in phase.train if name not in groups and name not in heads]
    if unknown:
        known = [*groups, *heads]
        hint = suggest(unknown[0], known) or f"Known: {listing(known)}."
        raise UsageError(f"train: {unknown[0]!r} is neither a layer group nor a head. {hint}")
    some = tuple(heads[name] for name in phase.train if name in heads)
    names = [n for name in phase.train for n in groups.get(name, ())]
    if HEADS in phase.train or not some:
        return frozenset(names), None
    return frozenset([*names, *(name for pair in some for name, _ in anatomy.heads[pair])]), some


def outside(
    anatomy: Anatomy, some: Collection[Pair], tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return, for every tensor that only partly belongs to some heads, bool [its shape], what does not."""
    masks: dict[str, torch.Tensor] = {}
    for pair in some:
        for name, index in anatomy.heads[pair]:
            if name in tensors:
                mask = masks.setdefault(name, torch.ones_like(tensors[name], dtype=torch.bool))
                mask[index] = False
    return {name: mask for name, mask in masks.items() if bool(mask.any())}


def separate(anatomy: Anatomy, tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> bool:
    """Whether the named parameters are heads and nothing else, each element in exactly one head."""
    owners = {name: torch.zeros(tensors[name].shape, dtype=torch.uint8) for name in names}
    for parts in anatomy.heads.values():
        for name, index in parts:
            if name in owners:
                owners[name][index] += 1
    return bool(anatomy.heads) and all(bool((owner == 1).all()) for owner in owners.values())
