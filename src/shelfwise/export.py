"""Export: a bundle's backbones as networks of other engines, kept in the bundle only if they answer as torch does.

It does not know what a predictor makes of vectors. Which backbones a bundle uses is seen, not assumed: products are
answered with torch in float32, and whatever was asked for vectors is converted. The same products are then answered by
what was converted; see ``agreement`` for what is compared.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from shelfwise.agreement import Agreement, Limits, Said, agreement
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY
from shelfwise.config import Options
from shelfwise.data.group import near_duplicates
from shelfwise.errors import EngineError, UsageError, listing, require, suggest
from shelfwise.files import cache_directory, sha256, write_text
from shelfwise.manifest import amending
from shelfwise.models.backbones import Backbone, build_backbone, version
from shelfwise.models.convert import ONNX, quantise, to_onnx
from shelfwise.models.engines import Card, Chosen, cores, has_bf16, vectors
from shelfwise.models.exported import FOLDER, PACKAGES, TARGETS, Exported, Network, write_networks
from shelfwise.models.parity import Parity, compare, passes, probe_pictures
from shelfwise.models.runners import TorchEngine, to_openvino
from shelfwise.predictions import Machine
from shelfwise.registry import Spec

PARITY = "parity.json"
#: What each target may be off by unless told otherwise. Quantised, single probabilities move; the score may not.
LIMITS: Mapping[str, Limits] = {
    "onnx": Limits(),
    "openvino": Limits(),
    "openvino-int8": Limits(largest=1.0, mean=0.05, unequal=0.1, loss=0.3, number=0.1),
}
#: What bfloat16 may be off by, where the processor has it: more than float32, less than integers.
LOW = Limits(largest=0.3, mean=0.01, unequal=0.03, loss=0.3, number=0.05)


class ExportOptions(Options):
    """How a bundle is exported.

    Attributes:
        rows: products that are compared, at most.
        pictures: photos that ranges are measured on for ``openvino-int8``; they are of other products.
        limits: what may differ; ``None`` for those of the target.
        metric: of the score.
    """

    rows: int = 2000
    pictures: int = 300
    limits: Limits | None = None
    metric: str = "harmonic_f1"


@dataclass(frozen=True)
class Export:
    """What became of an export.

    Attributes:
        target: what was exported to.
        engine: what runs it.
        backbones: the names of what was converted.
        agreements: by precision.
        notes: for the user.
    """

    target: str
    engine: str
    backbones: tuple[str, ...]
    agreements: Mapping[str, Agreement]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.target}: {', '.join(self.backbones)}; use it with --engine {self.engine}"]
        lines += [f"  {precision}: {found}" for precision, found in self.agreements.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


@dataclass(eq=False)
class _Used:
    """Whatever is asked for an engine, noted and turned away, so that torch runs it."""

    backbones: dict[str, Spec | Backbone] = field(default_factory=dict)

    def choose(self, backbone: Spec | Backbone, *, device: str, requested: str, jobs: int) -> Chosen | None:
        """Note a backbone."""
        key = json.dumps(backbone.table()) if isinstance(backbone, Spec) else backbone.fingerprint
        self.backbones.setdefault(key, backbone)
        return None


@dataclass(frozen=True, eq=False)
class _Rows:
    """The products an export is made with.

    Attributes:
        compared: those that are answered twice.
        measured: those whose photos ranges are measured on.
        notes: where they are from.
    """

    compared: Catalog
    measured: tuple[Path, ...]
    notes: tuple[str, ...]


def export_bundle(
    path: str | Path,
    target: str,
    *,
    table: Any = None,
    images: str | Path | None = None,
    options: ExportOptions | None = None,
    machine: Machine | None = None,
) -> Export:
    """Convert what a bundle runs in torch, compare the answers, and put it into the bundle if they agree.

    Args:
        path: of the bundle; it is replaced by itself with ``export/`` in it, whole or not at all.
        target: one of ``TARGETS``.
        table: products to compare on, best ones that were not learnt from: a catalogue, or what ``Bundle.read`` reads;
            by default the table the bundle was learnt from, or the products of its evidence.
        images: their photos.
        options: limits and sizes.
        machine: where to compute.

    Raises:
        EngineError: the conversion fails, or its answers are beyond the limits; the bundle is as it was.
        MissingExtra: torch or a converter is not installed.
        UsageError: an unknown target, or no products with photos to compare on.
    """
    _check_target(target)
    require("torch", extra="export")
    path, options, machine = Path(path), options or ExportOptions(), machine or Machine()
    bundle = Bundle.load(path)
    rows = _rows(bundle, table, images, options, machine)
    used = _Used()
    with tempfile.TemporaryDirectory(prefix="shelfwise-") as name:
        work, cache = Path(name) / target, Path(name) / "cache"
        work.mkdir()
        # A cache of its own: what is compared was computed by what is exported.
        torch = replace(machine, engine="torch", device="cpu", exported=used, engines=None)
        reference = _say(bundle, rows.compared, torch)
        if not used.backbones:
            raise UsageError(
                f"{path}: it looks at no picture through a backbone, so there is nothing to export"
            )
        networks = _converted(tuple(used.backbones.values()), target, work, rows.measured, machine)
        there = replace(machine, engine=TARGETS[target], device="cpu", cache=cache, engines=None)
        kept, found, notes = _compared(bundle, rows, networks, there, reference, options)
        write_networks(work, kept)
        told = _told(target, found, rows, options)
        write_text(work / PARITY, json.dumps(told, indent=1) + "\n")
        _put(path, target, work)
    names = tuple(network.card.name for network in kept)
    return Export(target, TARGETS[target], names, found, (*rows.notes, *notes))


def limits_of(target: str, given: Mapping[str, float]) -> Limits | None:
    """Return the limits of a target with those given in their place, ``None`` where none is.

    Raises:
        UsageError: an unknown target, or a limit out of its range.
    """
    _check_target(target)
    try:
        return Limits(**LIMITS[target].table() | dict(given)) if given else None
    except ValidationError as error:
        wrong = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UsageError(f"limits of an export: {wrong}") from error


def _check_target(target: str) -> None:
    if target not in TARGETS:
        hint = suggest(target, TARGETS) or f"Known: {listing(TARGETS)}."
        raise UsageError(f"a bundle is not exported to {target!r}. {hint}")


def _say(bundle: Bundle, catalog: Catalog, machine: Machine) -> Said:
    return Said(bundle.predict(catalog, machine), bundle.answer(catalog, every_cell=True, machine=machine))


def _rows(
    bundle: Bundle,
    table: Any,
    images: str | Path | None,
    options: ExportOptions,
    machine: Machine,
) -> _Rows:
    """Find products with photos; those that are measured on share no near-duplicates with those compared."""
    catalog, note = _catalog(bundle, table, images)
    there = [row for row, path in enumerate(catalog.images) if path is not None]
    if not there:
        raise UsageError(
            f"{catalog.source}: none of its products has a photo here; name their folder with --images"
        )
    # An order of the ids' own: the same products whatever the order of the table.
    there.sort(key=lambda row: hashlib.blake2b(catalog.ids[row].encode(), digest_size=8).digest())
    some = catalog.select(there[: options.rows + options.pictures])
    group_N = near_duplicates(
        some, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    wanted = min(options.pictures, len(some) // 3)
    measured_N = np.cumsum(np.bincount(group_N))[group_N] <= wanted
    compared = np.flatnonzero(~measured_N)[: options.rows]
    paths = (some.images[row] for row in np.flatnonzero(measured_N).tolist())
    notes = [note] if note else []
    if any(some.taxonomy.pairs()) and not (some.codes[compared] != EMPTY).any():
        notes.append(
            "nothing is stated of the products compared, so no score was: name a table with the truth (--on)"
        )
    return _Rows(some.select(compared).remembering(), tuple(path for path in paths if path), tuple(notes))


def _catalog(bundle: Bundle, table: Any, images: str | Path | None) -> tuple[Catalog, str]:
    """Read the table given, else the one learnt from, else the products of the evidence; and a note on them."""
    if isinstance(table, Catalog):
        return table.under(bundle.schema), ""
    if table is not None:
        return bundle.read(table, images=images), ""
    note = "compared on products it has learnt from, which is kinder than new ones: name others (--on)"
    data = bundle.run.data
    if Path(data.catalog).is_file():
        return bundle.read(data.catalog, images=images or data.images), note
    evidence = bundle.evidence
    if evidence is None or images is None:
        raise UsageError(
            f"the table the bundle was learnt from, {data.catalog}, is not there: name products to compare on "
            "(--on TABLE), or the folder of the photos of those learnt from (--images)"
        )
    return bundle.read(_stated(bundle), images=images), note


def _stated(bundle: Bundle) -> pl.DataFrame:
    """Return the products of the evidence with their categories, as a table; photos are found by id."""
    roles, evidence = bundle.schema.roles, bundle.evidence
    assert evidence is not None
    ids, cells = [], []
    for block in evidence.blocks:
        ids += [evidence.ids[row] for row in block.rows.tolist()]
        cells += [block.category] * len(block.rows)
    layout = bundle.schema.layout
    return pl.DataFrame({roles.id or layout.id: ids, roles.category or layout.category or "category": cells})


def _converted(
    backbones: tuple[Spec | Backbone, ...],
    target: str,
    work: Path,
    photos: tuple[Path, ...],
    machine: Machine,
) -> tuple[Network, ...]:
    """Convert every backbone into a folder of its own."""
    networks = []
    for at, backbone in enumerate(backbones):
        built = build_backbone(backbone) if isinstance(backbone, Spec) else backbone
        if machine.progress is not None:
            machine.progress(f"converting {built.name}", at, len(backbones))
        folder = work / str(at)
        folder.mkdir()
        if target == "onnx":
            to_onnx(built.module, built.preprocess.size, folder)
        elif target == "openvino":
            to_openvino(built.module, built.preprocess.size, folder)
        else:
            _quantised(built, photos, folder)
        weights = folder / (ONNX if target == "onnx" else "model.bin")
        plain = Network(
            TARGETS[target],
            folder,
            backbone.table() if isinstance(backbone, Spec) else None,
            Card(built.name, built.dimension, built.preprocess, built.fingerprint),
            {},
            version(PACKAGES[TARGETS[target]]),
            sha256(weights),
        )
        networks.append(replace(plain, parity=_parities(plain, built)))
    return tuple(networks)


def _quantised(built: Backbone, photos: tuple[Path, ...], folder: Path) -> None:
    pictures = [built.preprocess.array(photo.read_bytes()) for photo in photos]
    if not pictures:
        raise UsageError(
            "there are too few products to measure the ranges of a quantised network on: name more (--on)"
        )
    with tempfile.TemporaryDirectory(prefix="shelfwise-") as name:
        to_openvino(built.module, built.preprocess.size, Path(name))
        quantise(Path(name), np.stack(pictures), folder)


def _parities(network: Network, built: Backbone) -> dict[str, Parity]:
    """Compare vectors with torch's in every precision this machine runs; the quantised need not pass.

    Raises:
        EngineError: vectors in float32 are not torch's.
    """
    probes = probe_pictures(built.preprocess.size)
    reference_ND = vectors(TorchEngine(built.module), probes)
    found = {}
    for precision in ("f32", "bf16") if network.engine != "onnxruntime" and has_bf16() else ("f32",):
        chosen = network.start(cores(), precision)
        parity = compare(vectors(chosen.engine, probes), reference_ND)
        if network.engine == "openvino-int8" or passes(parity, precision):
            found[precision] = parity
        elif precision == "f32":
            raise EngineError(
                f"{built.name}: what {network.engine} makes of it is not what torch does: cosine {parity.cosine:.6f}, "
                f"relative distance {parity.relative:.2g}"
            )
    return found


def _compared(
    bundle: Bundle,
    rows: _Rows,
    networks: tuple[Network, ...],
    machine: Machine,
    reference: Said,
    options: ExportOptions,
) -> tuple[tuple[Network, ...], dict[str, Agreement], tuple[str, ...]]:
    """Answer with what was converted, in every precision that all of it runs in; keep the precisions that agree.

    Raises:
        EngineError: the plain precision does not agree.
    """
    found: dict[str, Agreement] = {}
    notes: list[str] = []
    target = next(target for target, engine in TARGETS.items() if engine == machine.engine)
    for precision in ("f32", "bf16"):
        if any(precision not in network.parity for network in networks):
            continue
        alone = tuple(replace(each, parity={precision: each.parity[precision]}) for each in networks)
        run = replace(machine, exported=Exported(alone), cache=machine.cache and machine.cache / precision)
        near = agreement(_say(bundle, rows.compared, run), reference, rows.compared, options.metric)
        beyond = near.beyond(_limits(target, precision, options))
        if not beyond:
            found[precision] = near
        elif precision == "f32":
            raise EngineError(f"{target} is not written: {'; '.join(beyond)}. Measured on {near}")
        else:
            notes.append(f"{precision} is left out: {'; '.join(beyond)}")
    kept = tuple(
        replace(each, parity={name: parity for name, parity in each.parity.items() if name in found})
        for each in networks
    )
    return kept, found, tuple(notes)


def _limits(target: str, precision: str, options: ExportOptions) -> Limits:
    """Return what a target may be off by in a precision: what was asked for holds in every one."""
    if options.limits is not None:
        return options.limits
    return LOW if (target, precision) == ("openvino", "bf16") else LIMITS[target]


def _told(target: str, found: Mapping[str, Agreement], rows: _Rows, options: ExportOptions) -> dict[str, Any]:
    """Return what was measured, as it is kept."""
    return {
        "target": target,
        "reference": f"torch {version('torch')} f32",
        "table": Path(rows.compared.source).name,
        "measured_on": len(rows.measured) if target == "openvino-int8" else 0,
        "limits": {precision: _limits(target, precision, options).table() for precision in found},
        "agreement": {precision: near.table() for precision, near in found.items()},
        "notes": list(rows.notes),
    }


def _put(path: Path, target: str, work: Path) -> None:
    """Put a finished target into a bundle in place of an older one, and list it."""
    with amending(path) as folder:
        shutil.rmtree(folder / FOLDER / target, ignore_errors=True)
        shutil.copytree(work, folder / FOLDER / target)
