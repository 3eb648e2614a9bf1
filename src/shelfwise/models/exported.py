"""Exported: what the backbones of a bundle were converted to, ready to run without torch.

It does not know how they were converted, nor what their vectors are for. A bundle's folder ``export`` has one folder
for each target (``onnx``, ``openvino``, ``openvino-int8``), in it ``engines.json`` and one folder for each backbone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shelfwise.errors import BundleError
from shelfwise.files import write_text
from shelfwise.models.backbones import Backbone, Preprocess, version
from shelfwise.models.convert import ONNX
from shelfwise.models.engines import Card, Chosen, Engine, EngineRecord, has_bf16, installed
from shelfwise.models.parity import Parity
from shelfwise.models.runners import OnnxEngine, OpenVINOEngine
from shelfwise.registry import Spec

FORMAT = 1
FOLDER, FILE = "export", "engines.json"
#: What a bundle can be exported to, with the engine that runs it; the first that is there runs without torch.
TARGETS: Mapping[str, str] = {
    "openvino": "openvino",
    "onnx": "onnxruntime",
    "openvino-int8": "openvino-int8",
}
#: The package that runs an engine.
PACKAGES: Mapping[str, str] = {
    "openvino": "openvino",
    "openvino-int8": "openvino",
    "onnxruntime": "onnxruntime",
}


@dataclass(frozen=True, eq=False)
class Network:
    """One converted backbone.

    Attributes:
        engine: what runs it.
        directory: where its files lie.
        backbone: its spec as a table; ``None`` for one that was tuned, which its fingerprint names.
        card: what embedding needs to know of it.
        parity: of its vectors against torch float32, by the precisions it may run in.
        version: of the package that it was converted with.
        content: SHA-256 of its weights.
    """

    engine: str
    directory: Path
    backbone: Mapping[str, Any] | None
    card: Card
    parity: Mapping[str, Parity]
    version: str
    content: str

    def stands_for(self, backbone: Spec | Backbone) -> bool:
        """Return whether this is what a backbone was converted to."""
        if isinstance(backbone, Backbone):
            return backbone.fingerprint == self.card.fingerprint
        return self.backbone is not None and dict(self.backbone) == backbone.table()

    def start(self, jobs: int, precision: str = "") -> Chosen:
        """Return the network ready to run.

        Args:
            jobs: how many pictures run side by side.
            precision: what is not quantised runs in; the fastest that passed where left out.

        Raises:
            EngineError: it cannot be loaded.
            MissingExtra: what runs it is not installed.
        """
        engine: Engine
        if self.engine == "onnxruntime":
            precision, engine = "f32", OnnxEngine(self.directory / ONNX)
        else:
            low = "bf16" if "bf16" in self.parity and has_bf16() else "f32"
            precision = precision or low
            engine = OpenVINOEngine(self.directory, precision, jobs, self.engine)
        running = version(PACKAGES[self.engine])
        record = EngineRecord(self.engine, precision, "cpu", running, self.parity.get(precision))
        # The same conversion is made where an engine is chosen, so its vectors are the same.
        same = self.engine == "openvino" and running == self.version
        return Chosen(self.card, engine, record, "" if same else self.content)

    def table(self) -> dict[str, Any]:
        """Return the fields as they are written to JSON."""
        return {
            "folder": self.directory.name,
            "backbone": None if self.backbone is None else dict(self.backbone),
            "card": asdict(self.card) | {"preprocess": self.card.preprocess.table()},
            "parity": {precision: asdict(parity) for precision, parity in self.parity.items()},
            "version": self.version,
            "content": self.content,
        }


@dataclass(frozen=True, eq=False)
class Exported:
    """All converted backbones of a bundle.

    Attributes:
        networks: for every target all backbones.
    """

    networks: tuple[Network, ...]

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines there are networks for, the preferred one first."""
        there = {network.engine for network in self.networks}
        return tuple(engine for engine in TARGETS.values() if engine in there)

    def choose(self, backbone: Spec | Backbone, *, device: str, requested: str, jobs: int) -> Chosen | None:
        """Return the network of a backbone, ready to run.

        With ``auto`` only where torch is not installed: where it is, an engine is chosen as for every bundle.
        """
        if device != "cpu" or (requested == "auto" and installed("torch")):
            return None
        wanted = [engine for engine in self.engines if installed(PACKAGES[engine])]
        for engine in wanted if requested == "auto" else [requested]:
            for network in self.networks:
                if network.engine == engine and network.stands_for(backbone):
                    return network.start(jobs)
        return None

    @classmethod
    def load(cls, bundle: Path) -> "Exported | None":
        """Read what a bundle was exported to, ``None`` where it was not.

        Raises:
            BundleError: what is there cannot be read.
        """
        folders = [bundle / FOLDER / target for target in TARGETS]
        networks = [network for folder in folders if folder.is_dir() for network in read_networks(folder)]
        return cls(tuple(networks)) if networks else None


def write_networks(folder: Path, networks: tuple[Network, ...]) -> None:
    """Write the list of the networks that lie in a target's folder."""
    content = {
        "format": FORMAT,
        "engine": networks[0].engine,
        "networks": [network.table() for network in networks],
    }
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")


def read_networks(folder: Path) -> Iterator[Network]:
    """Yield the networks in a target's folder.

    Raises:
        BundleError: the list is missing, broken, or of another format.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        for told in content["networks"]:
            preprocess = Preprocess.from_table(told["card"]["preprocess"])
            yield Network(
                content["engine"],
                folder / str(told["folder"]),
                told["backbone"],
                Card(**told["card"] | {"preprocess": preprocess}),
                {precision: Parity(**figures) for precision, figures in told["parity"].items()},
                told["version"],
                told["content"],
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}; export the bundle again") from error
