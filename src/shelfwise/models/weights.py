"""Weight files: read tensors from a local file, or fetch a published set when asked to.

It knows no architecture. Files are ``.safetensors``, or torch files read with ``weights_only=True``;
nothing that could run code is ever unpickled.
"""

import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from shelfwise.errors import UsageError, listing

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
#: What hubs call the one file of weights in a directory; the first one found is read.
USUAL = (
    "open_clip_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin",
)


def local_file(weights: object) -> Path | None:
    """Return the path where ``weights`` names a local file or directory, ``None`` where it is a published tag.

    Raises:
        UsageError: it looks like a file, and there is none; or the directory does not hold exactly one.
    """
    if not isinstance(weights, str):
        return None
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return weights_in(path)
    if weights.endswith(ENDINGS) or os.sep in weights:
        raise UsageError(f"there is no weights file {weights!r} (read from {Path.cwd()})")
    return None


def weights_in(directory: Path) -> Path:
    """Return the file of tensors in a directory as hubs lay it out.

    Raises:
        UsageError: there is none, or several and none has a usual name.
    """
    for name in USUAL:
        if (directory / name).is_file():
            return directory / name
    found = sorted(path.name for path in directory.iterdir() if path.suffix in ENDINGS)
    if len(found) != 1:
        what = f"several files of weights: {listing(found)}" if found else "no file of weights"
        raise UsageError(f"{directory} holds {what}; name the file itself (.safetensors or .pth)")
    return directory / found[0]


def json_beside(file: Path | None, name: str) -> dict[str, Any]:
    """Return the content of a JSON file in the directory of a weights file, empty where there is none.

    Raises:
        UsageError: it is no JSON object.
    """
    path = None if file is None else file.with_name(name)
    if path is None or not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no JSON object")
    return content


def read_tensors(path: Path, prefix: str = "") -> "dict[str, Tensor]":
    """Return the tensors of a file whose names begin with ``prefix``, the prefix taken off.

    A ``state_dict`` entry and a leading ``module.`` (left by data-parallel training) are looked through.
    Tensors outside the prefix are not read from a ``.safetensors`` file at all.

    Raises:
        UsageError: the file is no file of tensors, or has none under the prefix.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                found = {name: file.get_tensor(name) for name in file.keys() if _inside(name, prefix)}  # noqa: SIM118
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
            found = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:
        said = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(f"{path} is no file of tensors (.safetensors or .pth): {said}") from error
    tensors = {
        name.removeprefix("module.").removeprefix(prefix): value
        for name, value in found.items()
        if isinstance(value, torch.Tensor) and _inside(name, prefix)
    }
    if not tensors:
        where = f" whose names begin with {prefix!r}" if prefix else ""
        raise UsageError(f"{path} holds no tensors{where}")
    return tensors


def _inside(name: str, prefix: str) -> bool:
    return name.removeprefix("module.").startswith(prefix)


def load_by_name(module: "nn.Module", tensors: "Mapping[str, Tensor]", source: object) -> None:
    """Load tensors by name; every name and shape must fit.

    Raises:
        UsageError: names are missing or left over, or shapes differ.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    extra = [name for name in tensors if name not in own]
    other = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if missing or extra or other:
        parts = [
            f"{what}: {listing(names, 3)}"
            for what, names in (("missing", missing), ("not in the model", extra), ("another shape", other))
            if names
        ]
        raise UsageError(f"the weights {source} do not fit the model; {'; '.join(parts)}")
    module.load_state_dict(dict(tensors), strict=True)


def load_in_order(module: "nn.Module", tensors: "Mapping[str, Tensor]", source: object) -> None:
    """Load tensors by position, for files that name the same layers in the same order differently.

    Raises:
        UsageError: the numbers of tensors differ, or the shapes or types at a position.
    """
    own = module.state_dict()
    if len(own) != len(tensors):
        raise UsageError(f"{source} has {len(tensors)} tensors, the model {len(own)}")
    for (name, mine), (theirs, value) in zip(own.items(), tensors.items(), strict=True):
        if mine.shape != value.shape or mine.dtype != value.dtype or _last(name) != _last(theirs):
            raise UsageError(f"{source}: {theirs!r} {value.shape} does not fit {name!r} {mine.shape}")
    load_by_name(module, dict(zip(own, tensors.values(), strict=True)), source)


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


LOCAL = 'a local file instead: weights = "path/to/weights.safetensors" (or .pth)'


def fetch(what: str, download: Callable[[], T], local: str = LOCAL) -> T:
    """Run a download of a published set; say how to go on without a network when it fails.

    Args:
        what: the set.
        download: fetches it.
        local: what to give where it cannot be fetched.

    Raises:
        UsageError: it cannot be fetched, or there is no such set.
    """
    try:
        return download()
    except (OSError, RuntimeError, ValueError, _network_error()) as error:
        said = " ".join(str(error).split())[:160]
        raise UsageError(
            f"cannot fetch the weights {what}: {said} Without a network, give {local}."
        ) from error


def _network_error() -> type[Exception]:
    """Return the class of network errors that the hub client lets through."""
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError:
        return OSError
    found: Any = HfHubHTTPError
    return next((kind for kind in found.__mro__ if kind.__name__ == "HTTPError"), found)  # type: ignore[no-any-return]
