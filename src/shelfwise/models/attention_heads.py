"""Attention heads: a small convolutional network with channel attention per attribute, on the feature map.

They do not know which network drew the map. All attributes of a category are computed at once by grouped
convolutions and batched products. Channel attention follows squeeze-and-excitation (Hu et al. 2018,
https://arxiv.org/abs/1709.01507).
Legend: n rows of one category, C channels of the map, A attributes, S channels of each attribute's own
map, G groups of its convolutions, s = S / G, R reduced channels, V values packed, h and w the map's sides.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError
from shelfwise.models.heads import CategoryHeads, Heads, Layer, reads_map
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy


class CategoryAttention(nn.Module):
    """The attention heads of one category.

    Two grouped 3x3 convolutions with GELU; the mean over places, each channel scaled by what two linear
    layers make of all the means; then the hidden layers and the values. Scaling a channel of the map and
    then averaging it is the same as scaling its average, which is what is done.

    Args:
        slices: packed columns of each attribute.
        channels: C.
        spatial: S.
        groups: G.
        reduced: R.
        layers: the hidden layers.
    """

    def __init__(
        self,
        slices: Sequence[slice],
        channels: int,
        spatial: int,
        groups: int,
        reduced: int,
        layers: Sequence[Layer],
    ) -> None:
        super().__init__()
        attributes = len(slices)
        self.shape_GAs = (groups, attributes, spatial // groups)
        # Output channels in the order (group, attribute, channel): each group of the first convolution serves
        # all attributes, and each (group, attribute) is a group of the second one.
        every = attributes * spatial
        self.first = nn.Conv2d(channels, every, 3, padding=1, groups=groups)
        self.second = nn.Conv2d(every, every, 3, padding=1, groups=groups * attributes)
        self.squeeze = _Linears(attributes, spatial, reduced)
        self.excite = _Linears(attributes, reduced, spatial)
        self.heads = CategoryHeads(slices, spatial, layers, own=True)

    def forward(self, map_nChw: Tensor) -> Tensor:
        """Return logits [n, V]."""
        gelu = nn.functional.gelu
        mean_nF = gelu(self.second(gelu(self.first(map_nChw)))).mean((2, 3))
        mean_AnS = mean_nF.reshape(-1, *self.shape_GAs).permute(2, 0, 1, 3).flatten(2)
        gate_AnS = torch.sigmoid(self.excite(gelu(self.squeeze(mean_AnS))))
        logits_nV: Tensor = self.heads(mean_AnS * gate_AnS)
        return logits_nV

    def masks(self, attribute: int) -> dict[str, Tensor]:
        """Return, per parameter name, where the values of one attribute's head lie."""
        found = {f"heads.{name}": mask for name, mask in self.heads.masks(attribute).items()}
        for name, value in self.named_parameters():
            if name.startswith(("first.", "second.")):
                mask = torch.zeros(value.shape, dtype=torch.bool)
                mask.view(*self.shape_GAs, *mask.shape[1:])[:, attribute] = True
                found[name] = mask
            elif name not in found:
                found[name] = torch.zeros(value.shape, dtype=torch.bool)
                found[name][attribute] = True
        return found


class _Linears(nn.Module):
    """A linear layer per attribute, [A, n, in] to [A, n, out]."""

    def __init__(self, attributes: int, width: int, following: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(torch.empty(attributes, width, following).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(attributes, 1, following).uniform_(-bound, bound))

    def forward(self, x_AnW: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x_AnW, self.weight)


@register.heads("attention")
@reads_map
def attention(
    taxonomy: Taxonomy,
    channels: int,
    *,
    spatial: int = 512,
    groups: int = 32,
    reduction: int = 4,
    hidden: int = 1024,
    dropout: Sequence[float] = (0.2, 0.1),
    processor: bool = True,
    processor_dropout: float = 0.1,
    sigmoid: bool = False,
) -> Heads:
    """Spatial and channel attention per attribute on the feature map, behind one shared 1x1 convolution.

    Args:
        taxonomy: categories, attributes, values.
        channels: of the map.
        spatial: channels of each attribute's own map.
        groups: of its convolutions; divides the map's channels and ``spatial``.
        reduction: how much narrower the layer between squeeze and excitation is.
        hidden: width of the first hidden layer; the second is half as wide.
        dropout: after the first and the second hidden layer.
        processor: a 1x1 convolution with GELU and dropout that all attributes read the map through.
        processor_dropout: its dropout.
        sigmoid: squash the last hidden layer to (0, 1) rather than GELU; it flattens the gradient.
    """
    if channels % groups or spatial % groups or spatial < reduction:
        raise UsageError(
            f"attention heads: groups = {groups} has to divide the map's {channels} channels and spatial = "
            f"{spatial}, and reduction = {reduction} is at most spatial"
        )
    if len(dropout) != 2:
        raise UsageError(f"attention heads have two dropouts, not {len(dropout)}: dropout = [0.2, 0.1]")
    layers = (
        Layer(hidden, "layer", dropout[0], activation="gelu"),
        Layer(hidden // 2, "layer", dropout[1], activation="sigmoid" if sigmoid else "gelu"),
    )
    shape = (channels, spatial, groups, spatial // reduction, layers)
    before = None
    if processor:
        before = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.GELU(), nn.Dropout(processor_dropout))
    return Heads(
        taxonomy,
        lambda category: CategoryAttention(taxonomy.slices(category), *shape),
        takes="map",
        before=before,
    )
