"""One network that has learnt from an ensemble, beside the ensemble, the network alone, and smaller forms of it.

A table of: the teacher, a bundle; the same network without a teacher; the student; the student with a share of its
channels taken out and tuned for one more epoch (``pruned``); and in 8-bit integers (``export``). All are scored on the
products that the teacher holds out, near-duplicate groups kept whole, as decided, calibration and decision cross-fitted
over those groups; differences to the network alone are paired. ``kept`` is the share of the teacher's gain over it.
Speed and CPU seconds are of whole answers from photo files, decoding included, nothing cached.

Given no bundles, small ones are fitted on part of the fashion catalogue, which is found through ``SHELFWISE_DATA`` and
is not part of this repository.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import shelfwise as sw
from pruned import prune
from shelfwise.answers import Answers
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.errors import EngineError
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.export import export_bundle
from shelfwise.fit import fit
from shelfwise.predictions import Machine, Predictor
from shelfwise.recipes.finetune import FineTune
from shelfwise.recipes.teacher import taught
from shelfwise.recipes.training import labelled
from shelfwise.recipes.training_run import Shared
from shelfwise.recipes.tuned import TunedPredictor
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
PRODUCTS, QUICK = 2500, 500
SHARES = (0.2, 0.4)
#: Photos that speed is measured on, after a few to warm up.
TIMED, WARM = 400, 16


@dataclass(frozen=True, eq=False)
class Judged:
    """The products that everything is judged on, and how.

    Attributes:
        truth: the products.
        group, fold: near-duplicate groups, and the folds of them that calibration and decision are fitted over.
        answers: by the name of a row of the table, its answers, each decided without its fold.
    """

    truth: Catalog
    group: Any
    fold: Any
    answers: dict[str, Answers]

    @classmethod
    def of(cls, bundle: Bundle, catalog: Catalog) -> "Judged":
        """Take those that a bundle holds out."""
        evidence = bundle.evidence
        assert evidence is not None
        place = {id_: row for row, id_ in enumerate(catalog.ids)}
        return cls(catalog.select([place[id_] for id_ in evidence.ids]), evidence.group, evidence.fold, {})

    def judge(self, name: str, predictor: Predictor | Evidence, machine: Machine) -> dict[str, Any]:
        """Decide what something says of them, and score it."""
        if not isinstance(predictor, Evidence):
            found = predictor.predict(self.truth, machine)
            predictor = Evidence.of(found, self.truth, self.group, self.fold)
        self.answers[name] = decided_out_of_fold(predictor, "harmonic_f1")
        counted = counted_cells(self.truth)
        report = evaluate(self.answers[name], self.truth, groups=self.group, **counted)
        low, high = report.interval
        line = {"name": name, "score": round(report.score, 4), "interval": [round(low, 4), round(high, 4)]}
        if "alone" in self.answers and name != "alone":
            pair = [("alone", self.answers["alone"]), (name, self.answers[name])]
            told = compare(pair, self.truth, groups=self.group, **counted).differences
            over = next(each for each in told if each.level == "overall")
            line["gain"] = [round(each, 4) for each in (over.difference, over.low, over.high)]
        return line


def cost(predictor: Predictor, catalog: Catalog, machine: Machine) -> dict[str, float]:
    """Return pictures a second and CPU seconds of 1,000 of them, answered from files by engines that are ready."""
    machine = replace(machine, engines={}, keep=False)
    catalog = replace(catalog, memo=None)  # What was computed to score it is not known.
    predictor.predict(catalog.select(range(WARM)), machine)
    some = catalog.select(range(WARM, min(WARM + TIMED, len(catalog))))
    wall, cpu = time.perf_counter(), time.process_time()
    predictor.predict(some, machine)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_s": round(len(some) / wall, 1), "cpu_s_1000": round(1000 * cpu / len(some), 1)}


def megabytes(path: Path) -> float:
    """Return the size of what answers: weights, trees, texts; not of evidence, reports or look-alikes."""
    parts = [file for file in path.rglob("*") if file.suffix in (".safetensors", ".txt", ".bin", ".xml")]
    return round(sum(file.stat().st_size for file in parts if file.name != "index.safetensors") / 1e6, 1)


def quantised(path: Path, judged: Judged, machine: Machine) -> dict[str, Any]:
    """Export a bundle to 8-bit integers, and judge it as the export would run."""
    try:
        export_bundle(path, "openvino-int8", table=judged.truth, machine=machine)
    except EngineError as error:
        return {"name": "student, int8", "refused": str(error)}
    bundle = sw.load(path)
    there = bundle.on(replace(machine, engine="openvino-int8"))
    line = judged.judge("student, int8", bundle.predictor, there)
    sizes = [file.stat().st_size for file in (path / "export" / "openvino-int8").rglob("model.bin")]
    return {**line, "mb": round(sum(sizes) / 1e6, 1), **cost(bundle.predictor, judged.truth, there)}


def narrowed(
    student: Bundle, teacher: Path, judged: Judged, catalog: Catalog, share: float, machine: Machine
) -> dict[str, Any]:
    """Prune a student, tune it for one more epoch under its teacher, and judge it."""
    assert isinstance(student.recipe, FineTune)
    held = set(judged.truth.ids)
    train = labelled(catalog.select([row for row, id_ in enumerate(catalog.ids) if id_ not in held]))
    phase = student.recipe.phases[0].model_copy(update={"epochs": 1, "train": "all"})
    recipe = student.recipe.model_copy(update={"start": "random", "phases": (phase,)})
    with tempfile.TemporaryDirectory() as folder:
        there = replace(machine, runs=Path(folder) / "runs")
        begun = time.process_time()
        shared = Shared(recipe, there, 0, None, taught(teacher, train, machine))
        assert isinstance(student.predictor, TunedPredictor)
        smaller = prune(student.predictor, shared, train, share)
        seconds = round(time.process_time() - begun)
        line = judged.judge(f"student, {share:.0%} of channels pruned", smaller, machine)
        (Path(folder) / "saved").mkdir()
        smaller.save(Path(folder) / "saved")
        size = megabytes(Path(folder) / "saved")
        return {**line, "fit_cpu_s": seconds, "mb": size, **cost(smaller, judged.truth, machine)}


def small_bundles(catalog: Catalog, folder: Path, machine: Machine, quick: bool) -> dict[str, Path]:
    """Fit a teacher, a network alone and its student."""
    tune = {
        "name": "finetune",
        "backbone": {"name": "lite0", "size": 64 if quick else 128},
        "phases": [{"epochs": 1 if quick else 3, "train": 11, "lr": {"backbone": 4e-4, "heads": 6e-4}}],
    }
    probes = ("lite0",) if quick else ("lite0", "lite2")
    members = [*({"name": "probe", "backbone": name} for name in probes), tune]
    recipes: Mapping[str, dict[str, Any]] = {
        "teacher": {"name": "ensemble", "combine": "pool", "members": members},
        "alone": tune,
        "student": {**tune, "teacher": str(folder / "teacher")},
    }
    options: dict[str, Any] = {"random_split": False, "curve": False, "learn_from": "split"}
    for name, table in recipes.items():
        begun = time.process_time()
        found = fit(catalog, make_recipe(table), evidence=0.3, machine=machine, **options)
        found.save(folder / name)
        print(f"{name}: {time.process_time() - begun:.0f} CPU s", file=sys.stderr, flush=True)
    return {name: folder / name for name in recipes}


def measured(
    paths: Mapping[str, Path], catalog: Catalog, machine: Machine, shares: tuple[float, ...], int8: bool
) -> list[dict[str, Any]]:
    """Return the lines of the table."""
    bundles = {name: sw.load(path) for name, path in paths.items()}
    judged = Judged.of(bundles["teacher"], catalog)
    lines = []
    for name in ("alone", "teacher", "student"):
        evidence = bundles[name].evidence
        assert evidence is not None
        line = judged.judge(name, evidence, machine)
        lines.append(
            {
                **line,
                "mb": megabytes(paths[name]),
                **cost(bundles[name].predictor, judged.truth, machine),
            }
        )
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if int8:
            sw.load(paths["student"]).save(Path(folder) / "int8")
            lines.append(quantised(Path(folder) / "int8", judged, machine))
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    for share in shares:
        student = sw.load(paths["student"])
        lines.append(narrowed(student, paths["teacher"], judged, catalog, share, machine))
        print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    whole = lines[1]["gain"][0]
    for line in lines[2:]:
        if "gain" in line and whole > 0:
            line["kept"] = round(line["gain"][0] / whole, 2)
    return lines


def main(
    quick: bool = False,
    table: str = "",
    teacher: str = "",
    alone: str = "",
    student: str = "",
    shares: tuple[float, ...] = SHARES,
    int8: bool = True,
) -> dict[str, Any]:
    given = {"teacher": teacher, "alone": alone, "student": student}
    path, machine = Path(table) if table else DATA / "fashion" / "catalog.csv", Machine()
    result: dict[str, Any] = {"benchmark": "student"}
    if not path.is_file():
        return {**result, "skipped": f"{path} is not there"}
    if all(given.values()):
        paths = {name: Path(value) for name, value in given.items()}
        catalog = sw.load(paths["teacher"]).read(path)
        return {**result, "rows": measured(paths, catalog, machine, shares, int8)}
    catalog = Catalog.read(path)
    some = np.random.default_rng(0).permutation(len(catalog))[: QUICK if quick else PRODUCTS]
    catalog = catalog.select(np.sort(some)).remembering()
    with tempfile.TemporaryDirectory() as folder:
        paths = small_bundles(catalog, Path(folder), machine, quick)
        shares = shares[:1] if quick else shares
        return {**result, "rows": measured(paths, catalog, machine, shares, int8)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few products, one epoch, one share")
    for name in ("table", "teacher", "alone", "student"):
        parser.add_argument(f"--{name}", default="", help="of your own: a table, or a bundle learnt from it")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of channels pruned")
    parser.add_argument("--no-int8", dest="int8", action="store_false")
    options = vars(parser.parse_args())
    print(json.dumps(main(**options | {"shares": tuple(options["shares"])})))
