"""Squeeze-and-excitation heads: channels weighed by their averages, then a simple or a complex head each.

They do not know which network drew the map. The block is that of Hu et al. 2018
(https://arxiv.org/abs/1709.01507), group norms after Wu and He 2018 (https://arxiv.org/abs/1803.08494).
Legend: B batch, n rows of one category, C channels, A attributes, V their values packed, h and w the
map's sides.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError, listing, suggest
from shelfwise.models.heads import CategoryHeads, Heads, Layer, packed_slices, reads_map
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy

Counts = Mapping[str, npt.NDArray[np.int64]]


class SqueezeExcitation(nn.Module):
    """The averages of a map's channels, each scaled by what two linear layers make of all of them.

    Scaling a channel of the map and then averaging it is the same as scaling its average.

    Args:
        channels: C.
        reduction: how much narrower the layer in the middle is.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction, bias=False)
        self.excite = nn.Linear(channels // reduction, channels, bias=False)

    def forward(self, map_BChw: Tensor) -> Tensor:
        """Return [B, C]."""
        mean_BC = map_BChw.mean((2, 3))
        scaled_BC: Tensor = mean_BC * torch.sigmoid(self.excite(self.squeeze(mean_BC).relu()))
        return scaled_BC


class SimpleAndComplex(nn.Module):
    """The heads of one category, some of them simple and some complex.

    Args:
        slices: packed columns of each attribute.
        channels: C.
        deep_A: which attributes have a complex head.
        simple: hidden layers of a simple head.
        complex: hidden layers of a complex head.
    """

    def __init__(
        self,
        slices: Sequence[slice],
        channels: int,
        deep_A: Sequence[bool],
        simple: Sequence[Layer],
        complex: Sequence[Layer],
    ) -> None:
        super().__init__()
        self.kinds = nn.ModuleDict()
        self.at: list[tuple[str, int]] = [("", 0)] * len(slices)
        columns: list[int] = []
        for kind, layers, wanted in (("simple", simple, False), ("complex", complex, True)):
            chosen = [a for a, deep in enumerate(deep_A) if deep == wanted]
            sizes = [slices[a].stop - slices[a].start for a in chosen]
            if not sum(sizes):
                continue
            self.kinds[kind] = CategoryHeads(packed_slices(sizes), channels, layers)
            for place, attribute in enumerate(chosen):
                self.at[attribute] = kind, place
                columns.extend(range(slices[attribute].start, slices[attribute].stop))
        self.register_buffer("order_V", torch.tensor(columns).argsort(), persistent=False)

    def forward(self, features_nC: Tensor) -> Tensor:
        """Return logits [n, V]."""
        return torch.cat([heads(features_nC) for heads in self.kinds.values()], dim=1)[:, self.order_V]

    def masks(self, attribute: int) -> dict[str, Tensor]:
        """Return, per parameter name, where the values of one attribute's head lie."""
        kind, place = self.at[attribute]
        found: dict[str, Tensor] = self.kinds[kind].masks(place) if kind else {}  # type: ignore[operator]
        return {f"kinds.{kind}.{name}": mask for name, mask in found.items()}

    order_V: Tensor


@register.heads("squeeze_excitation")
@reads_map
def squeeze_excitation(
    taxonomy: Taxonomy,
    channels: int,
    counts: Counts | None = None,
    *,
    reduction: int = 16,
    complex: Literal["auto"] | Sequence[str] = "auto",
    effective_values: float = 4.0,
    hidden: int = 256,
    dropout: Sequence[float] = (0.4, 0.3),
    groups: int = 8,
) -> Heads:
    """A squeeze-and-excitation block on the map, average pooling, then a simple or a complex head each.

    Args:
        taxonomy: categories, attributes, values.
        channels: of the map.
        counts: per category, the labels of each packed value; read by ``complex = "auto"``.
        reduction: of the block.
        complex: the attributes with a complex head (two hidden layers, the first twice as wide), as
            ``"Category/attribute"``; or ``auto``: those whose labels are as varied as
            ``effective_values`` equally frequent values (exponential of the entropy; without counts, the
            number of values).
        effective_values: see ``complex``.
        hidden: width of the only hidden layer of a simple head, of the last one of a complex head.
        dropout: after the first hidden layer of a complex head, and after the last one of every head.
        groups: of the group norms.
    """
    if not 1 <= reduction <= channels:
        raise UsageError(f"squeeze_excitation: reduction = {reduction} is from 1 to the {channels} channels")
    if len(dropout) != 2:
        raise UsageError(f"squeeze_excitation has two dropouts, not {len(dropout)}: dropout = [0.4, 0.3]")
    last = Layer(hidden, "group", dropout[1], groups)
    first = Layer(2 * hidden, "group", dropout[0], groups)
    names = complex_heads(taxonomy, counts, effective_values) if complex == "auto" else tuple(complex)
    _known(names, taxonomy)

    def build(category: str) -> nn.Module:
        deep_A = [f"{category}/{choice.name}" in names for choice in taxonomy.choices(category)]
        return SimpleAndComplex(taxonomy.slices(category), channels, deep_A, (last,), (first, last))

    heads = Heads(taxonomy, build, takes="map", before=SqueezeExcitation(channels, reduction))
    heads.settled = {"complex": list(names)}
    return heads


def complex_heads(taxonomy: Taxonomy, counts: Counts | None, effective_values: float) -> tuple[str, ...]:
    """Return the attributes whose labels are as varied as so many equally frequent values."""
    found = []
    for category in taxonomy.categories:
        for choice, part in zip(taxonomy.choices(category), taxonomy.slices(category), strict=True):
            size = part.stop - part.start
            count_V = (
                np.ones(size) if counts is None else np.asarray(counts[category][part], dtype=np.float64)
            )
            share_V = count_V[count_V > 0] / max(float(count_V.sum()), 1.0)
            if float(np.exp(-(share_V * np.log(share_V)).sum())) >= effective_values * (1 - 1e-9):
                found.append(f"{category}/{choice.name}")
    return tuple(found)


def _known(names: Sequence[str], taxonomy: Taxonomy) -> None:
    known = [f"{category}/{choice.name}" for category, choice in taxonomy.pairs()]
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None:
        hint = suggest(wrong, known) or f"Known: {listing(known, 5)}."
        raise UsageError(f'complex names "Category/attribute", and there is no {wrong!r}. {hint}')
