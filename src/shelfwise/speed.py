"""Speed: how large a bundle is and how fast it answers on this machine, as facts that its card states.

It does not know what is answered. Times are those of ``Bundle.answer`` from the files of photos, their decoding
included, with engines already chosen and nothing known of the photos; another machine, or a busy one, has others.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from shelfwise.errors import BundleError, UsageError
from shelfwise.files import write_text
from shelfwise.manifest import amending, read_json
from shelfwise.predictions import Machine
from shelfwise.recipes.index import FILE as TRAINING_INDEX
from shelfwise.registry import Spec

if TYPE_CHECKING:
    from shelfwise.bundle import Bundle
    from shelfwise.catalog import Catalog

FILE, CARD = "speed.json", "card.md"
#: Pictures answered one by one, and at once.
SINGLE, MANY = 15, 64
#: Width and height of the photos that are made where none are given.
WIDTH, HEIGHT = 600, 800


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        parameters: numbers in the networks and trees that answer; 0 where they could not be counted.
        megabytes: of the bundle on disk.
        peak_megabytes: the most memory the process had when it had answered, libraries included.
        milliseconds: for one product by itself, the median.
        per_second: products a second where many are answered at once.
        device: the processor, and how many threads.
        engine: what ran the networks.
    """

    parameters: int
    megabytes: float
    peak_megabytes: float
    milliseconds: float
    per_second: float
    device: str
    engine: str

    def lines(self) -> list[tuple[str, str]]:
        """Return what and how much, for printing."""
        counted = f"{self.parameters:,}" if self.parameters else "not counted without torch"
        return [
            ("parameters", counted),
            ("on disk", f"{self.megabytes:,.1f} MB"),
            ("peak memory", f"{self.peak_megabytes:,.0f} MB"),
            ("one photo at a time", f"{self.milliseconds:,.1f} ms a photo"),
            ("many at once", f"{self.per_second:,.1f} photos a second"),
            ("device", self.device),
            ("engine", self.engine),
        ]

    @classmethod
    def load(cls, path: Path) -> "Speed | None":
        """Read what was measured of the bundle at a path, ``None`` where nothing was.

        Raises:
            BundleError: the file is broken.
        """
        file = path / FILE
        if not file.is_file():
            return None
        table = read_json(file)
        try:
            return cls(
                **{each.name: type(getattr(_NONE, each.name))(table[each.name]) for each in fields(cls)}
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(
                f"{file}: cannot be read: {error}; measure again: shelfwise show --measure"
            ) from error

    def save(self, folder: Path) -> None:
        """Write ``speed.json``."""
        write_text(folder / FILE, json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n")


#: The type of each field.
_NONE = Speed(0, 0.0, 0.0, 0.0, 0.0, "", "")


def measure(bundle: "Bundle", path: Path, *, machine: Machine | None = None) -> Speed:
    """Measure a bundle on photos made for it.

    Args:
        bundle: what answers.
        path: where it lies.
        machine: where to compute.
    """
    with tempfile.TemporaryDirectory(prefix="shelfwise-") as name:
        photos = _photos(Path(name), SINGLE + MANY)
        fresh = _fresh(machine)
        milliseconds = _alone(bundle, photos[:SINGLE], fresh)
        catalog = _catalog(bundle, photos[SINGLE:])
        start = time.perf_counter()
        bundle.answer(catalog, machine=fresh)
        per_second = MANY / (time.perf_counter() - start)
    engines = {str(chosen.record) for chosen in (fresh.engines or {}).values()}
    megabytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 1e6
    return Speed(
        _learnt(path) + _frozen(fresh),
        round(megabytes, 2),
        round(peak_megabytes(), 1),
        round(milliseconds, 2),
        round(per_second, 2),
        device_name(fresh),
        "; ".join(sorted(engines)) or "none",
    )


def milliseconds_each(bundle: "Bundle", catalog: "Catalog", *, machine: Machine | None = None) -> float:
    """Return how long one product of a table takes by itself: the median over its first readable photos.

    Raises:
        UsageError: the table has no photo.
    """
    photos = [path for path in catalog.images if path is not None][:SINGLE]
    if not photos:
        raise UsageError(f"{catalog.source}: no product has a photo here, so no time can be measured")
    return _alone(bundle, photos, _fresh(machine))


def write_speed(path: Path, bundle: "Bundle", speed: Speed) -> None:
    """Put what was measured into a bundle and its card, whole or not at all."""
    from shelfwise.card import card

    with amending(path) as folder:
        speed.save(folder)
        write_text(folder / CARD, card(replace(bundle, speed=speed)))


def device_name(machine: Machine) -> str:
    """Return the processor that answers, and how many threads it does it with."""
    from shelfwise.models.engines import cores

    if machine.device != "cpu" and "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")
    names = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    models = (line.partition(":")[2].strip() for line in names if line.startswith("model name"))
    name = next(models, "") or platform.processor() or platform.machine()
    return f"{name}, {machine.jobs or cores()} threads"


def peak_megabytes() -> float:
    """Return the most memory this process ever had."""
    if os.name != "posix":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _fresh(machine: Machine | None) -> Machine:
    """A machine that keeps its engines and forgets its pictures."""
    return replace(machine or Machine(), engines={}, keep=False, progress=None)


def _alone(bundle: "Bundle", photos: Sequence[Path], machine: Machine) -> float:
    """The median time of one photo; the first is answered twice, as engines start with it."""
    categories, times = bundle.taxonomy.categories, []
    for at, photo in enumerate([photos[0], *photos]):
        start = time.perf_counter()
        bundle.answer_one(photo, category=categories[at % len(categories)], machine=machine)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def _catalog(bundle: "Bundle", photos: Sequence[Path]) -> "Catalog":
    """One product a photo, of every category in turn."""
    from shelfwise.catalog import Catalog

    names, schema = bundle.taxonomy.categories, bundle.schema
    cells: Mapping[str, Any] = {
        schema.layout.id: [photo.stem for photo in photos],
        schema.layout.category or "category": [names[at % len(names)] for at in range(len(photos))],
        "image": [photo.name for photo in photos],
    }
    roles = replace(schema.roles, id=schema.layout.id, image="image")
    return Catalog.read(pl.DataFrame(cells), images=photos[0].parent, schema=replace(schema, roles=roles))


def _photos(folder: Path, count: int) -> list[Path]:
    """Photos with smooth shapes, as large as those of a catalogue."""
    from PIL import Image

    draw, made = np.random.default_rng(0), []
    for at in range(count):
        small = draw.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        path = folder / f"{at}.jpg"
        Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=90)
        made.append(path)
    return made


def _learnt(path: Path) -> int:
    """Count the numbers in the bundle's own files, those of its members too; products learnt from are none."""
    from safetensors import safe_open

    total = 0
    for file in path.rglob("*.safetensors"):
        if file.name != TRAINING_INDEX:
            with safe_open(file, framework="numpy") as opened:
                for name in opened.keys():  # noqa: SIM118
                    total += int(np.prod(opened.get_slice(name).get_shape()))
    return total


def _frozen(machine: Machine) -> int:
    """Count the parameters of the networks that are not in the bundle."""
    from shelfwise.models.backbones import build_backbone
    from shelfwise.models.engines import installed

    if not installed("torch"):
        return 0
    used = {key[1] for key in machine.engines or {} if isinstance(key, tuple) and isinstance(key[1], Spec)}
    return sum(
        int(each.numel()) for backbone in used for each in build_backbone(backbone).module.parameters()
    )
