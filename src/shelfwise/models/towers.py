"""The torch modules of the backbones: pictures in, float32 features or feature maps out.

It knows nothing of where weights come from. Importing it imports torch, so only functions do.

Legend: B pictures, H height, W width, C channels, D features, h and w a map's height and width, N tokens.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shelfwise.errors import UsageError

_DEPTH = re.compile(r"^(?:.*\.)?(?:blocks|resblocks|layers?|stages)\.?\d+(?:\.blocks\.\d+|\.\d+(?=\.))?")


class Tower(nn.Module):
    """A feature network behind its own normalisation.

    Attributes:
        net: the network, normalised float pictures [B, 3, H, W] to features.
        levels: ``last``, or ``all`` to put the global averages of every stage's end before the features.
        flip: average the features of the picture and of its mirror image.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        levels: str = "last",
        flip: bool = False,
    ) -> None:
        super().__init__()
        self.net = net
        self.levels = levels
        self.flip = flip
        self.register_buffer("shift", 255.0 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", 255.0 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Return features float32 [B, D] of RGB pictures [B, H, W, 3], uint8 or float in 0..255."""
        x_BCHW = self._normalised(images_BHWC)
        features_BD = self._features(x_BCHW)
        if self.flip:
            features_BD = (features_BD + self._features(x_BCHW.flip(3))) / 2
        return features_BD.float()

    def feature_map(self, images_BHWC: Tensor) -> Tensor:
        """Return the last map before pooling, float32 [B, C, h, w]; a transformer's patch tokens as a grid.

        Raises:
            UsageError: the network has no map.
        """
        x_BCHW = self._normalised(images_BHWC)
        map_BChw = last_map(self.net, x_BCHW)
        if self.flip:
            map_BChw = (map_BChw + last_map(self.net, x_BCHW.flip(3)).flip(3)) / 2
        return map_BChw.float()

    def vector_and_map(self, images_BHWC: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` and ``feature_map`` return, in one pass where the network allows it.

        Raises:
            UsageError: the network has no map.
        """
        net: Any = self.net
        staged = self.levels == "all" or (hasattr(net, "forward_features") and hasattr(net, "forward_head"))
        if self.flip or not staged:
            return self(images_BHWC), self.feature_map(images_BHWC)
        x_BCHW = self._normalised(images_BHWC)
        if self.levels == "all":
            features_BD, final = self._staged(x_BCHW)
        else:
            final = net.forward_features(x_BCHW)
            features_BD = _tensor(net.forward_head(final))
        return features_BD.float(), _as_map(net, final, x_BCHW).float()

    def _normalised(self, images_BHWC: Tensor) -> Tensor:
        normalised_BCHW: Tensor = (images_BHWC.permute(0, 3, 1, 2).float() - self.shift) / self.scale
        return normalised_BCHW

    def _features(self, x_BCHW: Tensor) -> Tensor:
        return _tensor(self.net(x_BCHW)) if self.levels == "last" else self._staged(x_BCHW)[0]

    def stage_maps(self, images_BHWC: Tensor) -> list[Tensor]:
        """Return the map [B, C, h, w] of every stage's end, whose averages come before the features, in their order.

        Raises:
            UsageError: ``levels`` is not ``all``.
        """
        if self.levels != "all":
            raise UsageError(
                "the maps of stages are read where levels = 'all' puts their averages into the features"
            )
        return self._stages(self._normalised(images_BHWC))[0]

    def _staged(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the averages of all stages before the features, and the last map."""
        net: Any = self.net
        stages, final_BCHW = self._stages(x_BCHW)
        pooled = [stage_BCHW.mean((2, 3)) for stage_BCHW in stages]
        head_BD = _tensor(net.forward_head(final_BCHW, pre_logits=True))
        return torch.cat([*pooled, head_BD], dim=1), final_BCHW

    def _stages(self, x_BCHW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the maps of all stages, and the last map."""
        net: Any = self.net
        if all(hasattr(net, part) for part in ("conv_stem", "bn1", "blocks", "conv_head", "bn2")):
            # The EfficientNet family: timm counts five stages by resolution, the network has seven.
            x_BCHW, stages = net.bn1(net.conv_stem(x_BCHW)), []
            for stage in net.blocks:
                x_BCHW = stage(x_BCHW)
                stages.append(x_BCHW)
            final_BCHW = net.bn2(net.conv_head(x_BCHW))
        else:
            final_BCHW, stages = net.forward_intermediates(x_BCHW)
            if stages[-1] is final_BCHW:
                stages = stages[:-1]
        return stages, final_BCHW


def last_map(net: Any, x_BCHW: Tensor) -> Tensor:
    """Return the last map [B, C, h, w] of a network before it pools, class and register tokens left out.

    Raises:
        UsageError: the network says neither its features before pooling nor those of its blocks.
    """
    net = getattr(net, "trunk", net)
    if hasattr(net, "feature_map"):
        found = net.feature_map(x_BCHW)
    elif hasattr(net, "forward_features"):
        found = net.forward_features(x_BCHW)
    elif hasattr(net, "forward_intermediates"):
        normal = hasattr(net, "ln_post") and getattr(net, "attn_pool", None) is None
        options = {"normalize_intermediates": normal, "intermediates_only": True}
        found = net.forward_intermediates(x_BCHW, indices=1, **options)["image_intermediates"][-1]
    else:
        found = None
    return _as_map(net, found, x_BCHW)


def _as_map(net: Any, found: Any, x_BCHW: Tensor) -> Tensor:
    """Return what a network gives before it pools as [B, C, h, w]."""
    if isinstance(found, Tensor) and found.ndim == 4 and getattr(net, "output_fmt", "NCHW") == "NHWC":
        found = found.permute(0, 3, 1, 2)
    if isinstance(found, Tensor) and found.ndim == 3:
        found = token_grid(
            found, int(getattr(net, "num_prefix_tokens", 0)), x_BCHW.shape[2] / x_BCHW.shape[3]
        )
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise UsageError(
            f"a {type(net).__name__} has no feature map to read; use heads that take a vector, such as 'mlp'"
        )
    return found


def token_grid(tokens_BNC: Tensor, prefix: int, ratio: float) -> Tensor:
    """Return patch tokens as a map [B, C, h, w].

    Args:
        tokens_BNC: all tokens of the last block.
        prefix: how many come before the patches: class token, registers.
        ratio: height over width of the picture.

    Raises:
        UsageError: the patches do not fill a grid.
    """
    patches = tokens_BNC.shape[1] - prefix
    height = round((patches * ratio) ** 0.5)
    if height < 1 or patches % height:
        raise UsageError(f"{patches} patch tokens do not fill a grid of height over width {ratio:.3g}")
    grid_BhwC = tokens_BNC[:, prefix:].reshape(len(tokens_BNC), height, patches // height, -1)
    return grid_BhwC.permute(0, 3, 1, 2)


def _tensor(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 2:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"a backbone gives features [B, D], this network gives {shape}")
    return value


def map_channels(module: nn.Module, size: tuple[int, int]) -> int | None:
    """Return C of ``module.feature_map``, found by running it once, ``None`` where there is no map."""
    feature_map = getattr(module, "feature_map", None)
    if feature_map is None:
        return None
    first = next(iter(module.parameters()), None)
    black = torch.zeros((1, *size, 3), dtype=torch.uint8, device=None if first is None else first.device)
    training = module.training
    module.eval()
    try:
        with one_thread(), torch.inference_mode():
            return int(feature_map(black).shape[1])
    except UsageError:
        return None
    finally:
        module.train(training)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread on the calling thread: the same sums in the same order, and no waiting."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def family(module: nn.Module) -> str:
    """Return ``transformer`` for a network with attention layers (pooling aside), else ``conv``."""
    for part in module.modules():
        name = type(part).__name__.lower()
        if "attention" in name and "pool" not in name:
            return "transformer"
    return "conv"


def layer_groups(tower: nn.Module) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the parameter names in groups from the stem to the last layer; each is in one group.

    A network of several towers says them itself, with ``parts_in_order``.
    A timm network says itself which parameters belong together (``group_matcher``); in others a group is
    a numbered block, what comes before the first one is ``stem``, and what comes after joins the last.
    """
    own = getattr(tower, "parts_in_order", None)
    if own is not None:
        return own()  # type: ignore[no-any-return]
    names = [name for name, _ in tower.named_parameters()]
    depth = _timm_depth(tower)
    if depth is None:
        depth = _numbered_depth(names)
    grouped: dict[int, list[str]] = {}
    for name in names:
        grouped.setdefault(depth[name], []).append(name)
    return tuple(
        ("stem" if place == 0 else _title(grouped[key]), tuple(grouped[key]))
        for place, key in enumerate(sorted(grouped))
    )


def _timm_depth(tower: nn.Module) -> dict[str, int] | None:
    """Return the depth of every parameter by timm's own grouping, ``None`` where there is none."""
    for prefix, part in tower.named_modules():
        if hasattr(part, "group_matcher"):
            from timm.models import group_parameters

            found = group_parameters(part, part.group_matcher(coarse=False), reverse=True)
            depth = {f"{prefix}.{name}" if prefix else name: int(level) for name, level in found.items()}
            last = max(depth.values(), default=0)
            return {name: depth.get(name, last) for name, _ in tower.named_parameters()}
    return None


def _numbered_depth(names: Sequence[str]) -> dict[str, int]:
    blocks: dict[str, int] = {}
    depth: dict[str, int] = {}
    for name in names:
        found = _DEPTH.match(name)
        if found:
            depth[name] = blocks.setdefault(found.group(), len(blocks) + 1)
    after = max((place for place, name in enumerate(names) if name in depth), default=len(names))
    for place, name in enumerate(names):
        late = "post" in name or "proj" in name.split(".")[-1] or "head" in name or "pool" in name
        late = late or place > after
        depth.setdefault(name, len(blocks) if late else 0)
    return depth


def _title(names: Sequence[str]) -> str:
    """Return the dotted part that most names of a group begin with."""
    found = _DEPTH.match(names[0])
    return found.group() if found else names[0].rsplit(".", 1)[0]


def digest_weights(module: nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of all weights and buffers, in name order."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().cpu().contiguous()
        digest.update(f"{name} {flat.dtype} {tuple(flat.shape)}\n".encode())
        digest.update(flat.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
