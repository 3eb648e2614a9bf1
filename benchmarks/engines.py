"""Engines: from JPEG files to answers with one bundle, everything in one process and in turns.

A probe on EfficientNet-Lite0 learns from part of the fashion catalogue, is exported to ONNX and to 8-bit integers with
other products, and answers a third part; near-duplicates stay on one side. For every engine: ``engine``, pictures a
second on ready pixels; ``answers``, products a second from files to answers, nothing cached; ``of_bound``, the latter
over 1 / (1 / decode + 1 / engine), each of which has all processors; ``ratio_eager``, over torch eager in float32 in
batches of 32; ``score``, harmonic F1, and the points of it lost to torch in float32. Medians of the rounds. Where the
processor has no bfloat16 its engines compute it slowly, which is what the figures then show.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import shelfwise as sw
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.errors import EngineError
from shelfwise.evaluate import evaluate
from shelfwise.export import ExportOptions, export_bundle
from shelfwise.files import cache_directory
from shelfwise.models.backbones import Backbone, build_backbone
from shelfwise.models.engines import Card, Chosen, EngineRecord, choose_engine, cores, has_bf16, vectors
from shelfwise.models.exported import Exported
from shelfwise.models.runners import Images, OpenVINOEngine, Vectors
from shelfwise.predictions import Machine
from shelfwise.registry import Spec

# Torch at its best beside other work: waiting threads leave the processors to others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
BATCH = 32
LEARNT, PREPARED, ANSWERED, TIMED, ROUNDS = 3000, 1500, 2000, 256, 3
QUICK = (300, 120, 120, 32, 1)


class Eager:
    """Torch as it is used without thinking: batches of 32, all threads."""

    name, batch = "torch", BATCH

    def __init__(self, backbone: Backbone, precision: str) -> None:
        self.precision, self._module = precision, backbone.module

    def run(self, images_BHWC: Images) -> Vectors:
        """Return the vectors of one batch."""
        import torch

        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            found: Vectors = self._module(torch.from_numpy(images_BHWC)).float().numpy()
        return found


@dataclass(frozen=True, eq=False)
class Always:
    """One engine, whatever is asked for."""

    chosen: Chosen

    def choose(self, backbone: Spec | Backbone, *, device: str, requested: str, jobs: int) -> Chosen:
        """Return it."""
        return self.chosen


def parts(learnt: int, prepared: int, answered: int) -> tuple[Catalog, Catalog, Catalog]:
    """Return products to learn from, to export with and to answer, by near-duplicate groups."""
    whole = Catalog.read(DATA / "fashion" / "catalog.csv").only("choices")
    rows = np.random.default_rng(0).permutation(len(whole))[: learnt + prepared + answered]
    some = whole.select(rows)
    group_N = sw.near_duplicates(some, cache=cache_directory(None))
    share_N = np.cumsum(np.bincount(group_N))[group_N]
    first, second = share_N <= learnt, share_N <= learnt + prepared
    chosen = (first, second & ~first, ~second)
    one, two, three = (some.select(np.flatnonzero(each)) for each in chosen)
    return one, two, three


def engines(bundle: Bundle, built: Backbone, directory: Path) -> dict[str, Chosen]:
    """Return every engine, ready to run."""
    spec, jobs = bundle.index.backbone if bundle.index else None, cores()
    assert spec is not None
    assert bundle.exported is not None
    card = Card(built.name, built.dimension, built.preprocess, built.fingerprint)

    def named(name: str, precision: str, engine: Any) -> Chosen:
        return Chosen(card, engine, EngineRecord(name, precision, "cpu", ""), f"{name} {precision}")

    found = {
        f"torch_eager_{precision}": named("torch", precision, Eager(built, precision))
        for precision in ("f32", "bf16")
    }
    for requested in ("onnxruntime", "openvino-int8"):
        chosen = bundle.exported.choose(spec, device="cpu", requested=requested, jobs=jobs)
        if chosen is not None:  # integers may have been refused
            found[requested.replace("-", "_")] = chosen
    for precision in ("f32", "bf16"):
        engine = OpenVINOEngine(directory / "export" / "openvino" / "0", precision, jobs)
        found[f"openvino_{precision}"] = named("openvino", precision, engine)
    return found | {"default": choose_engine(spec, device="cpu", cache=cache_directory(None))}


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def exported(directory: Path, learnt: Catalog, prepared: Catalog) -> tuple[Bundle, dict[str, float | str]]:
    """Learn, save and export; return the bundle and the points each export lost, or why it was refused."""
    recipe = sw.Probe()
    sw.fit(learnt, recipe, evidence=0.3, random_split=False).save(directory)
    lost: dict[str, float | str] = {}
    for target in ("openvino", "onnx", "openvino-int8"):
        options = ExportOptions(rows=len(prepared), pictures=300)
        try:
            done = export_bundle(directory, target, table=prepared, options=options)
        except EngineError as error:
            lost[target] = str(error)
        else:
            lost[target] = round(done.agreements["f32"].loss, 3)
    return Bundle.load(directory), lost


def main(
    learnt: int = LEARNT,
    prepared: int = PREPARED,
    answered: int = ANSWERED,
    timed: int = TIMED,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    one, two, three = parts(learnt, prepared, answered)
    jobs, figures = cores(), dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        directory = Path(name) / "bundle"
        bundle, lost = exported(directory, one, two)
        assert isinstance(bundle.exported, Exported)
        assert bundle.index is not None
        built = build_backbone(bundle.index.backbone)
        some = three.select(np.arange(min(timed, len(three))))
        files = [path for path in some.images if path is not None]

        def decode() -> Images:
            return np.stack(list(pool.map(lambda path: built.preprocess.array(path.read_bytes()), files)))

        ready = decode()
        there = engines(bundle, built, directory)
        answer = {
            key: Machine(exported=Always(chosen), engines={}, keep=False, jobs=jobs)
            for key, chosen in there.items()
        }
        times: dict[str, list[float]] = {}
        for turn in range(rounds + 1):
            work: dict[str, Callable[[], object]] = {"decode": decode}
            for key, chosen in there.items():
                work[f"{key} engine"] = lambda chosen=chosen: vectors(chosen.engine, ready, jobs=jobs)  # type: ignore[misc]
                fresh = replace(some, memo=None)
                work[f"{key} answers"] = lambda key=key, fresh=fresh: bundle.answer(
                    fresh, machine=answer[key]
                )  # type: ignore[misc]
            for key, job in work.items():
                took = seconds(job)
                if turn:
                    times.setdefault(key, []).append(took)
        rate = {key: len(files) / statistics.median(took) for key, took in times.items()}
        scores = {
            key: evaluate(bundle.answer(three, every_cell=True, machine=machine), three, bootstrap=0)
            .line()
            .score
            for key, machine in answer.items()
        }
    for key in there:
        bound = 1 / (1 / rate["decode"] + 1 / rate[f"{key} engine"])
        figures[key] = {
            "engine": round(rate[f"{key} engine"], 1),
            "answers": round(rate[f"{key} answers"], 1),
            "of_bound": round(rate[f"{key} answers"] / bound, 3),
            "ratio_eager": round(rate[f"{key} answers"] / rate["torch_eager_f32 answers"], 2),
            "score": round(scores[key], 4),
            "points_lost": round(100 * (scores["torch_eager_f32"] - scores[key]), 2),
        }
    result = {
        "benchmark": "engines",
        "decode": round(rate["decode"], 1),
        "engines": figures,
        "default": str(there["default"].record),
        "lost_at_export": lost,
        "products": [len(one), len(two), len(three)],
        "timed": len(files),
        "cores": jobs,
        "bf16": has_bf16(),
    }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few products, one round")
    main(*(QUICK if parser.parse_args().quick else (LEARNT, PREPARED, ANSWERED, TIMED, ROUNDS)))
