"""The image tower of an open_clip model, described and built without its text tower.

It knows no preprocessing beyond what open_clip publishes, and reads no weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.errors import UsageError, listing, require, suggest

if TYPE_CHECKING:
    from torch import nn

_LOOK = ("mean", "std", "interpolation", "resize_mode")


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


def describe(model: str, tag: str | None, transform: str | None) -> Described:
    """Look a model up.

    Args:
        model: its name in open_clip.
        tag: the published weights that will be fetched, or ``None``.
        transform: the tag whose transform is used where ``tag`` is ``None``.

    Raises:
        UsageError: an unknown model or tag, a model that is not a pair of towers, activations that do not
            fit the weights, or a transform that cannot be settled.
    """
    clip = require("open_clip", extra="clip")
    settings = clip.get_model_config(model)
    if settings is None:
        raise UsageError(f"open_clip has no model {model!r}. {suggest(model, clip.list_models())}")
    if "multimodal_cfg" in settings:
        raise UsageError(f"{model!r} is a captioning model; only pairs of an image and a text tower are read")
    published = _published(clip, model, tag)
    vision = settings["vision_cfg"]
    if tag is not None and not vision.get("timm_model_name"):
        quick = bool(published.get("quick_gelu", False))
        if quick != bool(settings.get("quick_gelu", False)):
            right = f"{model}-quickgelu" if quick else model.removesuffix("-quickgelu")
            raise UsageError(f"the weights {tag!r} have other activations: use model = {right!r}")
    size = vision.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return Described(model, settings, published, _transform(clip, model, tag, transform), (height, width))


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
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    plain = PreprocessCfg()
    chosen = tag or transform
    tags: list[str] = [chosen] if chosen else clip.pretrained.list_pretrained_tags_by_model(model)
    looks = []
    for name in tags:
        merged = merge_preprocess_dict(plain, _published(clip, model, name))
        look = {key: merged[key] for key in _LOOK}
        look |= {key: tuple(look[key]) for key in ("mean", "std")}
        if look not in looks:
            looks.append(look)
    if len(looks) > 1:
        raise UsageError(
            f"the published weights of {model!r} were trained with different transforms; "
            f"add transform = TAG, one of {listing(tags)}, to say which one this file follows"
        )
    return looks[0] if looks else {key: getattr(plain, key) for key in _LOOK}


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
