"""The vision towers of transformers (https://huggingface.co/docs/transformers) as backbones.

It knows no other source of networks. A model of pictures and text is read by its vision tower alone; the
rest is neither built nor loaded. Importing it imports neither torch nor transformers; building does.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shelfwise.data.images import Fit, Resample
from shelfwise.errors import UsageError, listing, require
from shelfwise.models.backbones import Backbone, Preprocess, full_name, make_backbone
from shelfwise.models.timm_tower import import_timm
from shelfwise.models.weights import fetch
from shelfwise.registry import register

#: Pillow's numbers of its filters, as image processors write them.
_FILTERS: Mapping[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
LOCAL_DIRECTORY = (
    'a local directory instead: model = "path/to/directory" (with config.json and model.safetensors)'
)
#: From this side on, an image processor with ``crop_pct`` stretches the picture and crops nothing.
_UNCROPPED = 384


@register.backbone("transformers")
def transformers_backbone(
    *,
    model: str,
    weights: bool = True,
    size: int | None = None,
    fit: Fit | None = None,
    pool: str | None = None,
    flip: bool = False,
    seed: int = 0,
) -> Backbone:
    """The vision tower of a transformers model: CLIP, SigLIP, DINOv2, ConvNeXt, Swin, ViT and others.

    Args:
        model: a local directory with ``config.json``, ``preprocessor_config.json`` and the weights; or a
            name on the hub.
        weights: false for random weights of the model's configuration.
        size: side in pixels where it is not the network's own.
        fit: where it is not the one the network was evaluated with.
        pool: ``mean`` of the patch tokens or ``class`` token where it is not the network's own vector.
        flip: average with the mirrored picture; half the speed.
        seed: of random weights.
    """
    from shelfwise.models.towers import Tower

    import_timm()
    transformers = require("transformers", extra="transformers")
    if pool not in (None, "mean", "class"):
        raise UsageError(f"pool is 'mean' or 'class', or left out for the network's own, not {pool!r}")
    local = local_directory(model)
    name = str(local) if local else model
    with quietly(transformers):
        config = fetch(model, lambda: transformers.AutoConfig.from_pretrained(name), LOCAL_DIRECTORY)
        config = getattr(config, "vision_config", config)
        net = _net(transformers, name, config, weights, pool, seed)
        look = _look(transformers, name)
    preprocess = _preprocess(look, _native(config), size, fit)
    tower = Tower(_tokens(net, config, preprocess.size, pool), preprocess.mean, preprocess.std, flip=flip)
    title = config.model_type if local else model
    return make_backbone(
        full_name(f"transformers/{title}", flip=flip, pool=pool),
        tower,
        preprocess,
        train_preprocess=replace(preprocess, crop_fraction=1.0),
    )


def local_directory(model: str) -> Path | None:
    """Return the directory that ``model`` names, ``None`` where it is a name on the hub.

    Raises:
        UsageError: it looks like a path and there is no directory, or one without a configuration.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"the directory {path} has no config.json: it is no transformers model")
        return path
    if model.startswith((".", "~")) or path.is_absolute() or model.count("/") > 1:
        raise UsageError(f"there is no directory {model!r} (read from {Path.cwd()})")
    return None


def _net(transformers: Any, name: str, config: Any, weights: bool, pool: str | None, seed: int) -> Any:
    """Return the tower with its weights, all of them there."""
    import torch

    try:
        kind = transformers.AutoModel._model_mapping[type(config)]
    except KeyError as error:
        what = getattr(config, "model_type", type(config).__name__)
        raise UsageError(f"{name}: transformers builds no tower of the type {what!r} by itself") from error
    needed = [
        key
        for key, parameter in inspect.signature(kind.forward).parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in ("self", "kwargs", "pixel_values")
    ]
    if getattr(kind, "main_input_name", "") != "pixel_values" or needed:
        raise UsageError(f"{name}: a {kind.__name__} is no tower that takes pictures and nothing else")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if not weights:
            return transformers.AutoModel.from_config(config)
        net, found = fetch(
            name,
            lambda: kind.from_pretrained(name, config=config, output_loading_info=True, dtype="float32"),
            LOCAL_DIRECTORY,
        )
    missing = [key for key in found["missing_keys"] if pool is None or not key.startswith("pooler.")]
    if missing or found["mismatched_keys"]:
        lost = listing(sorted([*missing, *map(str, found["mismatched_keys"])]), 3)
        raise UsageError(
            f"the weights of {name} do not fill its vision tower, {lost} are not there or of another shape; "
            "where only a pooler is missing, pool = 'mean' or 'class' does without it"
        )
    return net


@contextlib.contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Keep reports about weights that are left out on purpose, and bars, off the terminal."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _look(transformers: Any, name: str) -> dict[str, Any]:
    """Return what the model's image processor is set to, empty where nothing is published."""
    try:
        found, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return {}
    return dict(found)


def _native(config: Any) -> tuple[int, int]:
    size = getattr(config, "image_size", None) or 224
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _preprocess(
    look: Mapping[str, Any], native: tuple[int, int], size: int | None, fit: Fit | None
) -> Preprocess:
    """Return the preprocess that an image processor's settings mean."""
    stated = look.get("size")
    edge = stated.get("shortest_edge") if isinstance(stated, Mapping) else None
    sides, found, kept = _sides(stated) or native, "stretch", 1.0
    if look.get("do_center_crop") and look.get("crop_size"):
        outer, sides = sides, _sides(look["crop_size"]) or native
        kept = min(sides[0] / outer[0], sides[1] / outer[1], 1.0)
        found = "stretch" if edge is None else "crop"
    elif "crop_pct" in look and min(sides) < _UNCROPPED:
        found, kept = "crop", float(look["crop_pct"])
    mean, std = (tuple(look.get(key) or plain) for key, plain in _IMAGENET.items())
    resample = _FILTERS.get(int(look.get("resample", 2)))
    if resample is None:
        raise UsageError(f"the image processor's filter {look['resample']} is none of Pillow's {_FILTERS}")
    wanted: Any = fit or found
    sides = sides if size is None else (size, size)
    return Preprocess(sides, wanted, resample, 1.0 if wanted == "pad" else kept, mean, std)


def _sides(stated: Any) -> tuple[int, int] | None:
    """Return height and width of a size as image processors write it."""
    if isinstance(stated, int):
        return stated, stated
    if isinstance(stated, Mapping) and "height" in stated:
        return int(stated["height"]), int(stated["width"])
    if isinstance(stated, Mapping) and "shortest_edge" in stated:
        return int(stated["shortest_edge"]), int(stated["shortest_edge"])
    return None


def _tokens(net: Any, config: Any, size: tuple[int, int], pool: str | None) -> Any:
    """Return the tower as a module from normalised pictures [B, 3, H, W] to vectors [B, D]."""
    from torch import Tensor, nn

    from shelfwise.models.towers import token_grid

    other = "interpolate_pos_encoding" in inspect.signature(net.forward).parameters and size != _native(
        config
    )
    options = {"interpolate_pos_encoding": True} if other else {}
    patch = getattr(config, "patch_size", 1)
    patch_hw = (patch, patch) if isinstance(patch, int) else tuple(patch)

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision = net

        def feature_map(self, x_BCHW: Tensor) -> Tensor:
            last: Tensor = self.vision(pixel_values=x_BCHW, **options).last_hidden_state
            height, width = x_BCHW.shape[2:]
            if last.ndim == 4:
                return last
            patches = (height // patch_hw[0]) * (width // patch_hw[1])
            return token_grid(last, max(last.shape[1] - patches, 0), height / width)

        def forward(self, x_BCHW: Tensor) -> Tensor:
            if pool == "mean":
                return self.feature_map(x_BCHW).mean((2, 3))
            found = self.vision(pixel_values=x_BCHW, **options)
            last: Tensor = found.last_hidden_state
            pooled: Tensor | None = getattr(found, "pooler_output", None)
            if pool is None and pooled is not None:
                return pooled.flatten(1)
            return last[:, 0] if last.ndim == 3 else last.mean((2, 3))

    return Tokens()
