"""Engines: ways to run a backbone, chosen visibly and checked against torch in float32.

It knows nothing of photos, files or catalogues. On the CPU an engine takes one picture at a time and
gives it one thread, and several pictures run side by side: measured on two cores this is about twice as
fast as one batch of 32 for small networks, and a vector cannot depend on its neighbours, its place in a
batch or the number of threads. What was chosen, and how near it came, is kept on disk together with the
converted network, so that the next run loads neither torch nor the weights.

Legend: B pictures of one call, N pictures, H height, W width, D features.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shelfwise.errors import EngineError, MissingExtra, ShelfwiseError, UsageError, listing, suggest
from shelfwise.files import write_text
from shelfwise.models.backbones import Backbone, Preprocess, build_backbone, spec_key, version
from shelfwise.models.parity import TOLERANCE, Parity, compare, passes, probe_pictures
from shelfwise.models.runners import (
    CudaEngine,
    Images,
    OpenVINOEngine,
    TorchEngine,
    Vectors,
    openvino_core,
    to_openvino,
)
from shelfwise.registry import Spec

if TYPE_CHECKING:
    from torch import nn

#: Part of every key on disk; raised when the meaning of what is kept there changes.
FORMAT = 1
ENGINES = ("openvino", "torch", "torch-bf16", "cuda")
#: Engines that run what a bundle was exported to, and nothing else.
EXPORTED_ONLY = ("openvino-int8", "onnxruntime")
DEVICES = ("auto", "cpu", "cuda")


class Engine(Protocol):
    """Runs a backbone on batches of one size; safe to call from several threads at once.

    Attributes:
        name: one of ``ENGINES`` or ``EXPORTED_ONLY``.
        precision: ``f32``, ``bf16`` or ``f16``.
        batch: B, the number of pictures each call takes.
    """

    name: str
    precision: str
    batch: int

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors float32 [B, D] of uint8 pictures [B, H, W, 3]."""
        ...


@dataclass(frozen=True)
class EngineRecord:
    """Which engine runs a backbone and why; goes into the bundle and onto the console.

    Attributes:
        name: one of ``ENGINES`` or ``EXPORTED_ONLY``.
        precision: ``f32``, ``bf16`` or ``f16``.
        device: ``cpu`` or ``cuda``.
        version: of the package that runs it.
        parity: against torch float32; ``None`` for that itself.
        notes: why engines that were tried first were passed over.
    """

    name: str
    precision: str
    device: str
    version: str
    parity: Parity | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        near = "" if self.parity is None else f", cosine to torch f32 at least {self.parity.cosine:.6f}"
        noted = "".join(f"; {note}" for note in self.notes)
        return f"{self.name} {self.version} {self.precision} on {self.device}{near}{noted}"


@dataclass(frozen=True)
class Card:
    """A backbone as far as embedding needs to know it, without its weights.

    Attributes:
        name: the backbone's name.
        dimension: D.
        preprocess: how photos become its input.
        fingerprint: the backbone's fingerprint.
    """

    name: str
    dimension: int
    preprocess: Preprocess
    fingerprint: str


@dataclass(frozen=True, eq=False)
class Chosen:
    """An engine ready to run, what it runs, and how it was chosen.

    Attributes:
        card: what it runs.
        engine: runs it.
        record: how it was chosen.
        content: SHA-256 of the network, where the fields above do not settle it, as for a quantised one.
    """

    card: Card
    engine: Engine
    record: EngineRecord
    content: str = ""

    @property
    def space(self) -> str:
        """A name for the vectors: equal exactly where they are interchangeable."""
        major = ".".join(self.record.version.split(".")[:2])
        parts = [FORMAT, self.card.fingerprint, self.card.preprocess.table(), self.record.name]
        parts += [self.record.precision, self.record.device, major, *filter(None, [self.content])]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class EngineSource(Protocol):
    """Where engines may come from before one is chosen: a bundle's exported networks."""

    def choose(self, backbone: Spec | Backbone, *, device: str, requested: str, jobs: int) -> Chosen | None:
        """Return an engine ready to run, ``None`` where it has none to offer."""
        ...


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vectors(engine: Engine, images_NHWC: Images, *, jobs: int | None = None) -> Vectors:
    """Return the vectors float32 [N, D] of any number of pictures, padded to the engine's batch.

    Args:
        engine: runs the backbone.
        images_NHWC: uint8 pictures.
        jobs: how many calls run side by side; all processors where left out.
    """
    size = engine.batch

    def part(start: int) -> Vectors:
        images_BHWC = images_NHWC[start : start + size]
        count = len(images_BHWC)
        if count < size:
            blank = np.zeros((size - count, *images_BHWC.shape[1:]), np.uint8)
            images_BHWC = np.concatenate([images_BHWC, blank])
        return engine.run(images_BHWC)[:count]

    starts = range(0, len(images_NHWC), size)
    with ThreadPoolExecutor(1 if size > 1 else jobs or cores()) as pool:
        return np.concatenate(list(pool.map(part, starts)))


def has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware; without it bf16 is many times slower."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def candidates(family: str, *, device: str, requested: str, bf16: bool) -> tuple[tuple[str, str], ...]:
    """Return the (engine, precision) pairs to try, the fastest first.

    Args:
        family: ``conv`` or ``transformer``.
        device: ``cpu`` or ``cuda``.
        requested: ``auto`` or one of ``ENGINES`` or ``EXPORTED_ONLY``.
        bf16: whether the CPU has bfloat16 hardware.

    Raises:
        UsageError: an unknown engine, or one that does not run on the device.
    """
    if requested != "auto":
        check_name(requested)
        if requested in EXPORTED_ONLY:
            raise UsageError(
                f"the engine {requested!r} runs what a bundle was exported to, and nothing is exported for it here: "
                f"shelfwise export BUNDLE --to {requested.replace('onnxruntime', 'onnx')}"
            )
        if (requested == "cuda") != (device == "cuda"):
            raise UsageError(f"the engine {requested!r} does not run on the device {device!r}")
    if device == "cuda":
        return (("cuda", "bf16"), ("cuda", "f32"))
    low = "bf16" if bf16 else "f32"
    if requested == "openvino":
        return tuple(dict.fromkeys((("openvino", low), ("openvino", "f32"))))
    if requested != "auto":
        return ((requested, "bf16" if requested == "torch-bf16" else "f32"),)
    order = [("openvino", low), ("openvino", "f32"), ("torch", "f32")]
    if family == "transformer" and bf16:
        order.insert(0, ("torch-bf16", "bf16"))
    return tuple(dict.fromkeys(order))


def check_name(requested: str) -> None:
    """Refuse the name of an engine that does not exist.

    Raises:
        UsageError: it is not ``auto`` and none of the engines.
    """
    known = (*ENGINES, *EXPORTED_ONLY)
    if requested != "auto" and requested not in known:
        raise UsageError(
            f"there is no engine {requested!r}. {suggest(requested, known) or f'Known: {listing(known)}.'}"
        )


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def settle_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` takes CUDA where a GPU is present.

    Raises:
        UsageError: an unknown device, or CUDA where there is none.
    """
    if device not in DEVICES:
        raise UsageError(f"there is no device {device!r}: {listing(DEVICES)}")
    if device == "cpu" or (device == "auto" and not (_driver() and installed("torch"))):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UsageError("there is no CUDA device here, or torch is built without CUDA; use the device 'cpu'")
    return "cpu"


def _driver() -> bool:
    """Return whether an NVIDIA driver could be present, without importing torch."""
    return os.name == "nt" or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


def choose_engine(
    backbone: Spec | Backbone,
    *,
    device: str = "auto",
    requested: str = "auto",
    cache: Path | None = None,
    jobs: int | None = None,
    exported: EngineSource | None = None,
) -> Chosen:
    """Return the fastest engine that reproduces torch float32, from the cache where it was chosen before.

    Args:
        backbone: a spec, built only if the cache does not know it; or a built backbone.
        device: ``auto``, ``cpu`` or ``cuda``.
        requested: ``auto`` or one of ``ENGINES`` or ``EXPORTED_ONLY``.
        cache: directory of caches; nothing is kept where left out.
        jobs: how many pictures run side by side; all processors where left out. Does not change vectors.
        exported: asked first; it offers what was asked for by name, or what runs without torch where there is none.

    Raises:
        EngineError: the engine that was asked for by name fails or does not reproduce torch.
        MissingExtra: torch is needed and not installed.
        UsageError: an unknown engine or device.
    """
    check_name(requested)
    device = settle_device(device)
    jobs = jobs or cores()
    if exported is not None:
        offered = exported.choose(backbone, device=device, requested=requested, jobs=jobs)
        if offered is not None:
            return offered
    if not installed("torch"):
        raise MissingExtra(
            "torch is not installed, and the bundle has no exported network that this installation runs: "
            "pip install 'shelfwise[train]', or where torch is installed: shelfwise export BUNDLE --to openvino"
        )
    bf16 = device == "cpu" and has_bf16()
    candidates("conv", device=device, requested=requested, bf16=bf16)
    identity = spec_key(backbone) if isinstance(backbone, Spec) else backbone.fingerprint
    key = [FORMAT, identity, device, requested, bf16, _versions(device)]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    home = None if cache is None else cache / "engines" / name
    if home is not None:
        kept = _from_cache(home, backbone, jobs)
        if kept is not None:
            return kept
    built = build_backbone(backbone) if isinstance(backbone, Spec) else backbone
    order = candidates(built.family, device=device, requested=requested, bf16=bf16)
    with contextlib.ExitStack() as stack:
        if home is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shelfwise-")))
            return _choose(built, order, device, jobs, work)
        work = home.with_name(f".{home.name}.tmp-{uuid.uuid4().hex[:12]}")
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        try:
            work.mkdir(parents=True)
        except OSError as error:
            raise ShelfwiseError(
                f"cannot make the cache directory {work.parent}: {error.strerror}. Name another with --cache or "
                "SHELFWISE_CACHE"
            ) from error
        chosen = _choose(built, order, device, jobs, work)
        _keep(home, chosen, work)
        return chosen


def _choose(
    built: Backbone, order: tuple[tuple[str, str], ...], device: str, jobs: int, work: Path
) -> Chosen:
    """Try the engines in order and return the first that passes; a converted network stays in ``work``."""
    card = Card(built.name, built.dimension, built.preprocess, built.fingerprint)
    probes = probe_pictures(built.preprocess.size)
    reference_ND = vectors(TorchEngine(built.module), probes, jobs=jobs)
    notes: list[str] = []
    for name, precision in order:
        record = EngineRecord(name, precision, device, _versions(device)[name], None, tuple(notes))
        if name == "torch":
            return Chosen(card, TorchEngine(built.module), record)
        try:
            if name == "openvino" and not (work / "model.xml").exists():
                to_openvino(built.module, built.preprocess.size, work)
            engine = _start(name, precision, built.module, work, jobs)
            parity = compare(vectors(engine, probes, jobs=jobs), reference_ND)
        except EngineError as error:
            notes.append(f"{name} {precision} passed over: {error}")
            continue
        if passes(parity, precision):
            record = replace(record, precision=engine.precision, parity=parity)
            return Chosen(card, engine, record)
        notes.append(
            f"{name} {precision} passed over: cosine {parity.cosine:.6f} and relative distance "
            f"{parity.relative:.2g} to torch f32, {TOLERANCE[precision]} are the limits"
        )
    raise EngineError(f"no engine runs {built.name}: {'; '.join(notes)}")


def _start(name: str, precision: str, module: "nn.Module", directory: Path, jobs: int) -> Engine:
    if name == "openvino":
        return OpenVINOEngine(directory, precision, jobs)
    return CudaEngine(module, precision) if name == "cuda" else TorchEngine(module, precision)


def _versions(device: str) -> dict[str, str]:
    """Return the version of what runs each engine, without importing it."""
    torch, openvino = version("torch"), version("openvino")
    return {"openvino": openvino, "torch": torch, "torch-bf16": torch, "cuda": f"{torch} {device}"}


def _keep(home: Path, chosen: Chosen, work: Path) -> None:
    """Make the finished directory the entry; where another process was first, its entry stays."""
    files = sorted(work.iterdir())
    if chosen.record.name != "openvino":
        for path in files:
            path.unlink()
        files = []
    sizes = {path.name: path.stat().st_size for path in files}
    card = asdict(chosen.card) | {"preprocess": chosen.card.preprocess.table()}
    content = {"format": FORMAT, "card": card, "engine": asdict(chosen.record), "files": sizes}
    write_text(work / "record.json", json.dumps(content, indent=1))
    try:
        os.rename(work, home)
    except OSError:
        if not (home / "record.json").is_file():
            raise


def _from_cache(home: Path, backbone: Spec | Backbone, jobs: int) -> Chosen | None:
    """Return what was chosen before; a damaged entry is removed and counts as absent."""
    try:
        content = json.loads((home / "record.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        _forget(home)
        return None
    try:
        card = Card(**content["card"] | {"preprocess": Preprocess.from_table(content["card"]["preprocess"])})
        told = content["engine"]
        parity = None if told["parity"] is None else Parity(**told["parity"])
        record = EngineRecord(**told | {"parity": parity, "notes": tuple(told["notes"])})
        whole = all((home / name).stat().st_size == size for name, size in content["files"].items())
    except (KeyError, TypeError, OSError):
        _forget(home)
        return None
    if not whole:
        _forget(home)
        return None
    if record.name == "openvino":
        try:
            return Chosen(card, OpenVINOEngine(home, record.precision, jobs), record)
        except EngineError:
            _forget(home)
        return None
    built = build_backbone(backbone) if isinstance(backbone, Spec) else backbone
    if built.fingerprint != card.fingerprint:
        _forget(home)
        return None
    return Chosen(card, _start(record.name, record.precision, built.module, home, jobs), record)


def _forget(home: Path) -> None:
    """Take a damaged entry away, at once for every other process."""
    gone = home.with_name(f".{home.name}.gone-{uuid.uuid4().hex[:12]}")
    with contextlib.suppress(OSError):
        os.rename(home, gone)
    shutil.rmtree(gone, ignore_errors=True)
