"""The networks of timm (https://timm.fast.ai) as backbones.

It knows no other source of networks. Importing it imports neither torch nor timm; building does.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from shelfwise.data.images import Fit
from shelfwise.errors import UsageError, listing, suggest
from shelfwise.models.backbones import Backbone, Preprocess, full_name, make_backbone
from shelfwise.models.weights import fetch, json_beside, load_by_name, local_file, read_tensors
from shelfwise.registry import register

_FIT: Mapping[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}
#: What a directory's config.json may say of the pictures its weights were trained on, and of the classifier.
_LOOK = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "classifier")


def import_timm() -> Any:
    """Import timm beside whatever build of torch there is."""
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    import timm

    return timm


def check_levels(levels: str, net: Any) -> None:
    """Make sure that a network has the levels that are asked for.

    Raises:
        UsageError: it has not.
    """
    from shelfwise.models.towers import family

    if levels not in ("last", "all"):
        raise UsageError(f"levels is 'last' or 'all', not {levels!r}")
    if levels == "all" and (family(net) != "conv" or not hasattr(net, "forward_intermediates")):
        raise UsageError("levels = 'all' needs a convolutional network with stages")


@register.backbone("timm")
def timm_backbone(
    *,
    model: str,
    weights: str | bool,
    size: int | None = None,
    fit: Fit | None = None,
    levels: str = "last",
    flip: bool = False,
    pool: str | None = None,
    seed: int = 0,
) -> Backbone:
    """Any timm network (https://timm.fast.ai).

    Args:
        model: its name in timm; with a published tag behind a dot, size and normalisation are the tag's,
            also for a local file: ``convnext_base.fb_in22k_ft_in1k_384``.
        weights: a local ``.safetensors`` or ``.pth`` file, or a directory that holds one, its
            ``config.json`` followed; a published tag, or true for timm's default one, both fetched from
            the hub; false for random weights.
        size: side in pixels where it is not the network's own.
        fit: where it is not the one the network was evaluated with.
        levels: ``all`` puts the averages of every stage before the features (convolutional networks).
        flip: average with the mirrored picture; half the speed.
        pool: timm's ``global_pool`` where it is not the network's own.
        seed: of random weights.
    """
    from shelfwise.models.towers import Tower

    timm = import_timm()
    _known(timm, model, weights)
    net = _net(
        timm, model, weights, {"num_classes": 0} | ({} if pool is None else {"global_pool": pool}), seed
    )
    data = timm.data.resolve_model_data_config(net)
    sides = _sized(net, model, tuple(data["input_size"][1:]), size)
    check_levels(levels, net)
    mean, std = tuple(data["mean"]), tuple(data["std"])
    found = fit or _FIT[data["crop_mode"]]
    kept = 1.0 if found == "pad" else float(data["crop_pct"])
    preprocess = Preprocess(sides, found, data["interpolation"], kept, mean, std)
    tower = Tower(net, mean, std, levels=levels, flip=flip)
    name = full_name(f"timm/{model}", levels=levels, flip=flip, pool=pool)
    return make_backbone(name, tower, preprocess, train_preprocess=replace(preprocess, crop_fraction=1.0))


def _known(timm: Any, model: str, weights: str | bool) -> None:
    """Make sure that timm has a model and, where one is named, its tag."""
    name, dot, tag = model.partition(".")
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}. {suggest(name, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_models(f"{name}.*", pretrained=True)]
    if dot and tag not in tags:
        hint = suggest(tag, tags) or (f"Known: {listing(tags)}." if tags else "It has none.")
        raise UsageError(f"timm has no weights {tag!r} for {name!r}. {hint}")
    if dot and isinstance(weights, str) and local_file(weights) is None:
        raise UsageError(f"model = {model!r} names a tag already: weights is true, false or a local file")


def _net(timm: Any, model: str, weights: str | bool, options: dict[str, Any], seed: int) -> Any:
    """Return the network with its weights."""
    import torch

    file = local_file(weights)
    if file is None and weights is not False:
        tag = f"{model}.{weights}" if isinstance(weights, str) else model
        return fetch(tag, lambda: timm.create_model(tag, pretrained=True, **options))
    if isinstance(weights, str) and Path(weights).expanduser().is_dir():
        options = options | _described(model, file)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = timm.create_model(model, pretrained=False, **options)
    if file is not None:
        heads = net.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        tensors = read_tensors(file)
        dropped = tuple(f"{head}." for head in heads)
        load_by_name(net, {n: value for n, value in tensors.items() if not n.startswith(dropped)}, file)
    return net


def _described(model: str, file: Path | None) -> dict[str, Any]:
    """Return what the directory of a weights file says of them, as arguments of ``create_model``.

    Raises:
        UsageError: it describes another network.
    """
    table = json_beside(file, "config.json")
    name = model.partition(".")[0]
    stated = table.get("architecture", name)
    if stated != name:
        raise UsageError(f"{file} holds the weights of model = {stated!r}, not of {name!r}")
    look = table.get("pretrained_cfg", {})
    overlay = {key: look[key] for key in _LOOK if look.get(key) is not None}
    overlay |= {k: tuple(overlay[k]) for k in ("input_size", "mean", "std") if k in overlay}
    return dict(table.get("model_args", {})) | ({"pretrained_cfg_overlay": overlay} if overlay else {})


def _sized(net: Any, model: str, native: tuple[int, int], size: int | None) -> tuple[int, int]:
    """Return the sides of the pictures; a transformer is set to them where they are not its own."""
    from shelfwise.models.towers import family

    sides = native if size is None else (size, size)
    if sides != native and family(net) == "transformer":
        if not hasattr(net, "set_input_size"):
            raise UsageError(f"{model} works at {native[0]} pixels only")
        net.set_input_size(img_size=sides)
    return sides
