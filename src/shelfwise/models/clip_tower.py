"""The image towers of open_clip models as backbones, built and loaded without their text towers.

It knows no preprocessing beyond what open_clip, or a directory in its layout, says. Importing it imports
neither torch nor open_clip; building does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.data.images import Fit
from shelfwise.errors import UsageError, listing, require, suggest
from shelfwise.models.backbones import Backbone, Preprocess, full_name, make_backbone
from shelfwise.models.timm_tower import import_timm
from shelfwise.models.weights import fetch, json_beside, load_by_name, local_file, read_tensors
from shelfwise.registry import register

if TYPE_CHECKING:
    from torch import nn

_LOOK = ("mean", "std", "interpolation", "resize_mode")
_FIT: Mapping[str, Fit] = {"shortest": "crop", "squash": "stretch", "longest": "pad"}


@dataclass(frozen=True)
class Described:
    """What open_clip says of a model.

    Attributes:
        model: its name.
        settings: its configuration.
        published: how the chosen tag is published, empty without a tag.
        transform: mean, std, interpolation and resize_mode.
        size: height and width in pixels.
    """

    model: str
    settings: Mapping[str, Any]
    published: Mapping[str, Any]
    transform: Mapping[str, Any]
    size: tuple[int, int]


def describe(
    model: str, tag: str | None, transform: str | None, stated: Mapping[str, Any] | None = None
) -> Described:
    """Look a model up.

    Args:
        model: its name in open_clip.
        tag: the published weights that will be fetched, or ``None``.
        transform: the tag whose transform is used where ``tag`` is ``None``.
        stated: what the directory of the weights says in its ``open_clip_config.json``; it comes first.

    Raises:
        UsageError: an unknown model or tag, activations that do not fit the weights, or a transform that
            cannot be settled.
    """
    clip = require("open_clip", extra="clip")
    stated = stated or {}
    settings = stated.get("model_cfg") or clip.get_model_config(model)
    if settings is None:
        raise UsageError(f"open_clip has no model {model!r}. {suggest(model, clip.list_models())}")
    published = _published(clip, model, tag)
    vision = settings["vision_cfg"]
    if tag is not None and not vision.get("timm_model_name"):
        quick = bool(published.get("quick_gelu", False))
        if quick != bool(settings.get("quick_gelu", False)):
            right = f"{model}-quickgelu" if quick else model.removesuffix("-quickgelu")
            raise UsageError(f"the weights {tag!r} have other activations: use model = {right!r}")
    size = vision.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    look = stated.get("preprocess_cfg")
    found = _transform(clip, model, tag, transform) if look is None else _merged(look)
    return Described(model, settings, published, found, (height, width))


def _published(clip: Any, model: str, tag: str | None) -> Mapping[str, Any]:
    if tag is None:
        return {}
    found = clip.get_pretrained_cfg(model, tag)
    if not found:
        tags = clip.pretrained.list_pretrained_tags_by_model(model)
        hint = suggest(tag, tags) or (f"Known: {listing(tags)}." if tags else "It has none.")
        raise UsageError(f"open_clip has no weights {tag!r} for {model!r}. {hint}")
    return dict(found)


def _transform(clip: Any, model: str, tag: str | None, transform: str | None) -> dict[str, Any]:
    """Return the transform of the tag; without one, the transform all published tags agree on."""
    chosen = tag or transform
    tags: list[str] = [chosen] if chosen else clip.pretrained.list_pretrained_tags_by_model(model)
    looks = []
    for name in tags:
        look = _merged(_published(clip, model, name))
        if look not in looks:
            looks.append(look)
    if len(looks) > 1:
        raise UsageError(
            f"the published weights of {model!r} were trained with different transforms; "
            f"add transform = TAG, one of {listing(tags)}, to say which one this file follows"
        )
    return looks[0] if looks else _merged({})


def _merged(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return a transform, what is not stated as open_clip has it by default."""
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    merged = merge_preprocess_dict(PreprocessCfg(), dict(stated))
    look = {key: merged[key] for key in _LOOK}
    return look | {key: tuple(look[key]) for key in ("mean", "std")}


def build(described: Described) -> "nn.Module":
    """Return the image tower, pictures [B, 3, H, W] to features [B, D], with random weights."""
    # open_clip has no public way to build one tower; building both would cost the text tower's memory.
    from open_clip.model import _build_vision_tower

    vision = dict(described.settings["vision_cfg"]) | {"timm_model_pretrained": False, "output_tokens": False}
    quick = bool(described.settings.get("quick_gelu", False))
    net: nn.Module = _build_vision_tower(described.settings["embed_dim"], vision, quick)
    return net


def download(described: Described) -> Path:
    """Fetch the published weights; returns the file."""
    clip = require("open_clip", extra="clip")
    return Path(clip.download_pretrained(dict(described.published)))


@register.backbone("open_clip")
def open_clip_backbone(
    *,
    model: str,
    weights: str | bool,
    transform: str | None = None,
    fit: Fit | None = None,
    flip: bool = False,
    seed: int = 0,
) -> Backbone:
    """The image tower of any open_clip model; its text tower is neither built nor kept.

    Args:
        model: its name in open_clip.
        weights: a local ``.safetensors`` or ``.pt`` file of the whole model in open_clip's own layout, or
            a directory that holds one, the ``open_clip_config.json`` beside it followed; a published tag,
            fetched from the hub; or false for random weights.
        transform: the published tag whose normalisation and resizing go with a local file; only needed
            where the published ones of this model differ.
        fit: where it is not the one the model was evaluated with.
        flip: average with the mirrored picture; half the speed.
        seed: of random weights.
    """
    import torch

    from shelfwise.models.towers import Tower

    import_timm()
    require("open_clip", extra="clip")
    file = local_file(weights)
    if weights is True:
        raise UsageError("open_clip has no default weights: name a published tag or a local file")
    tag = weights if isinstance(weights, str) and file is None else None
    described = describe(model, tag, transform, json_beside(file, "open_clip_config.json"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build(described)
    if isinstance(weights, str):
        path = file or fetch(f"{model}/{weights}", lambda: download(described))
        load_by_name(net, read_tensors(path, "visual."), path)
    look = described.transform
    found = fit or _FIT[look["resize_mode"]]
    mean, std = look["mean"], look["std"]
    preprocess = Preprocess(described.size, found, look["interpolation"], 1.0, mean, std)
    tower = Tower(net, mean, std, flip=flip)
    return make_backbone(full_name(f"open_clip/{model}", flip=flip), tower, preprocess)
