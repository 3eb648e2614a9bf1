"""Ways to fill in a catalogue from its photos, side by side: their scores, costs, and what a random split would claim.

Five folds, near-duplicate groups kept whole; heavy rows (fine-tuning) the second of them alone. ``score`` is the
harmonic F1 of answers decided for it, calibration and decision cross-fitted over the same folds, with a 95 % interval
over groups; ``gain`` the paired difference to a reference on the same rows; ``plain`` the most probable value.
``random`` is what a random split would have claimed of ``plain``: a model learnt and asked under a random split, less
the grouped one on the same products, added to ``plain``.
Each row runs in a process of its own: seconds of one fit on four fifths of the products with vectors of photos ready,
photos answered a core-second from their files, megabytes saved and of the networks, and the most memory of that
process. Combinations are learnt on members' predictions out of fold; their costs are sums of the members'.
Finished rows stand in a file of JSON lines under the cache folder: run again, it goes on where it stopped.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from approach_rows import ROWS, Mix, Row
from nested import one_hot
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.expect import counted_cells
from shelfwise.files import cache_directory
from shelfwise.models.backbones import build_backbone
from shelfwise.predictions import Block, Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.blend import assembled, blend, blend_weights
from shelfwise.recipes.features import features
from shelfwise.recipes.gate import Gate
from shelfwise.recipes.index import learn_index
from shelfwise.recipes.sides import side_by_side
from shelfwise.recipes.simplex import Weights
from shelfwise.recipes.stacking import Ridge, Trees
from shelfwise.registry import REGISTRIES, Spec
from shelfwise.speed import peak_megabytes
from shelfwise.splits import Folds
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {"fashion": "fashion/catalog.csv", "myntra": "myntra/catalog.csv"}
Ints = npt.NDArray[np.int64]
Result = dict[str, Any]
#: The row that others are compared with, which no new default changes; the fold of heavy rows; replicates.
REFERENCE, HEAVY_FOLD, BOOTSTRAP = "lite0, own heads and votes", 1, 1000
#: Photos that speed is measured on, after as many to begin with.
TIMED, FIRST = 192, 16
#: Raised when finished rows would come out otherwise.
REVISION = 1


@dataclass(frozen=True, eq=False)
class Table:
    """One catalogue, its near-duplicate groups and where finished parts are kept."""

    name: str
    catalog: Catalog
    groups: Ints
    folder: Path

    @classmethod
    def read(cls, name: str) -> "Table":
        """Read one of ``TABLES``."""
        catalog = Catalog.read(DATA / TABLES[name])
        catalog = (catalog.only("choices") if catalog.schema.roles.numbers else catalog).remembering()
        return cls(name, catalog, near_duplicates(catalog, cache=cache_directory()), home(name))

    @cached_property
    def folds(self) -> Folds:
        """Grouped ones."""
        return self.catalog.folds(5, groups=self.groups)

    @cached_property
    def random(self) -> Folds:
        """Folds of rows."""
        return self.catalog.folds(5)

    def rows(self, row: Row) -> Ints:
        """Return the products that a row is scored on."""
        return self.folds.test(HEAVY_FOLD) if row.heavy else np.arange(len(self.catalog))

    def kept(self, row: Row, what: str) -> Path:
        """Return where something of a row is kept."""
        return self.folder / row.slug / f"{what}.parquet"


def home(name: str) -> Path:
    """Return the folder of a catalogue's finished rows."""
    return cache_directory() / "benchmarks" / f"approaches-{REVISION}" / name


def cpu() -> float:
    """Return the processor seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(table: Table, row: Row) -> Result:
    """Measure one row: costs first, so that its peak memory is its own."""
    if isinstance(row.what, Mix):
        return mixed(table, row, row.what)
    machine, recipe = Machine(engines={}), row.what
    train = table.catalog.select(table.folds.train(HEAVY_FOLD))
    test = table.catalog.select(table.folds.test(HEAVY_FOLD))
    warm(recipe, table.catalog, machine)
    start, used = time.perf_counter(), cpu()
    predictor = recipe.fit(train, None, machine, 0)
    result: Result = {"fit_wall": time.perf_counter() - start, "fit_cpu": cpu() - used}
    part = predictor.predict(test, machine)
    result |= {"peak_mb": peak_megabytes()} | size(predictor, recipe) | speed(predictor, test, machine)
    if row.heavy:
        return result | judged(table, row, part)
    found = out_of_fold(table, row, recipe, part, machine)
    return result | judged(table, row, found) | (claimed(table, recipe, found) if row.random else {})


def out_of_fold(table: Table, row: Row, recipe: Recipe, part: Predictions, machine: Machine) -> Predictions:
    """Predict every product by what has not seen its group; finished folds are kept.

    Args:
        table: the catalogue.
        row: the row.
        recipe: what learns.
        part: the predictions of ``HEAVY_FOLD``, which were made first.
        machine: where to compute.
    """
    key = hashlib.sha256(json.dumps(recipe.table(), sort_keys=True, default=str).encode()).hexdigest()[:12]
    parts = []
    for fold in range(table.folds.k):
        path, test = table.kept(row, f"fold-{fold}-{key}"), table.folds.test(fold)
        if fold == HEAVY_FOLD:
            parts.append((test, part))
            continue
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            predictor = recipe.fit(table.catalog.select(table.folds.train(fold)), None, machine, 0)
            predictor.predict(table.catalog.select(test), machine).save(path)
        parts.append((test, Predictions.load(path)))
    return Predictions.join(parts, table.catalog.ids)


def warm(recipe: Recipe, catalog: Catalog, machine: Machine) -> None:
    """Compute the vectors that a recipe learns from; what is computed of other pictures is its own cost."""
    backbone = getattr(recipe, "backbone", None)
    backbone = REGISTRIES["backbone"].spec(backbone) if isinstance(backbone, str) else backbone
    if isinstance(backbone, Spec) and getattr(recipe, "by", "") != "hash" and recipe.name != "finetune":
        features(catalog, backbone, machine)


def size(predictor: Predictor, recipe: Recipe) -> Result:
    """Return the megabytes of what was learnt, and of the networks it looks through."""
    with tempfile.TemporaryDirectory() as name:
        predictor.save(Path(name))
        learnt = sum(file.stat().st_size for file in Path(name).rglob("*") if file.is_file())
    table = json.dumps(recipe.table(), default=str)
    network = 0
    if recipe.name != "finetune" and "hash" not in table and "lite" in table:
        which = next(at for at in ("lite0", "lite1", "lite2") if at in table)
        module = build_backbone(REGISTRIES["backbone"].spec(which)).module
        network = 4 * sum(int(each.numel()) for each in module.parameters())
    return {"mb": (learnt + network) / 1e6}


def speed(predictor: Predictor, test: Catalog, machine: Machine) -> Result:
    """Return photos answered a core-second, from their files, nothing known of them."""
    with tempfile.TemporaryDirectory() as name:
        fresh = replace(machine, cache=Path(name), keep=False)
        few = replace(test.select(np.arange(FIRST)), memo=None)
        many = replace(test.select(np.arange(FIRST, FIRST + TIMED)), memo=None)
        predictor.predict(few, fresh)
        used = cpu()
        predictor.predict(many, fresh)
    return {"photos_per_core_second": TIMED / max(cpu() - used, 1e-9)}


def claimed(table: Table, recipe: Recipe, found: Predictions) -> Result:
    """Return how much more a random split would have claimed of the most probable value."""
    split, machine = table.random, Machine(engines={})
    rows = split.test(HEAVY_FOLD)
    predictor = recipe.fit(table.catalog.select(split.train(HEAVY_FOLD)), None, machine, 0)
    truth = table.catalog.select(rows)
    more, less = (
        evaluate(each, truth, bootstrap=0, **counted_cells(truth)).score
        for each in (predictor.predict(truth, machine), found.select(rows))
    )
    return {"random_more": more - less}


def judged(table: Table, row: Row, found: Predictions) -> Result:
    """Score predictions, and compare them with the default's on the same rows."""
    rows = table.rows(row)
    truth, group = table.catalog.select(rows), table.groups[rows]
    fold = truth.folds(5, groups=group).fold if row.heavy else table.folds.fold

    def decided(each: Predictions) -> Answers:
        answers = decided_out_of_fold(Evidence.of(each, truth, group, fold), "harmonic_f1")
        return replace(answers, errors={**answers.errors, **each.errors})

    table.kept(row, "found").parent.mkdir(parents=True, exist_ok=True)
    found.save(table.kept(row, "found"))
    ours, counted = decided(found), counted_cells(truth)
    one_hot(ours).save(table.kept(row, "decided"))
    report = evaluate(ours, truth, groups=group, bootstrap=BOOTSTRAP, **counted)
    line = next(x for x in report.lines if x.level == "overall" and x.metric == "harmonic_f1")
    plain = evaluate(found, truth, bootstrap=0, **counted).score
    result: Result = {"rows": len(truth), "score": [line.score, line.low, line.high], "plain": plain}
    for name, other in (("gain", REFERENCE if row.name != REFERENCE else ""), ("gain_to_base", row.base)):
        if other:
            same = decided_of(table, row, ROWS[other], decided)
            entries: list[tuple[str, Answers | Predictions]] = [("base", same), (row.name, ours)]
            gain = compare(entries, truth, groups=group, bootstrap=BOOTSTRAP, **counted).overall()
            result[name] = [gain.difference, gain.low, gain.high]
    return result


def decided_of(
    table: Table, row: Row, other: Row, decide: Callable[[Predictions], Answers]
) -> Answers | Predictions:
    """Return what another row answers on the rows of this one."""
    if row.heavy == other.heavy:
        return Predictions.load(table.kept(other, "decided"))
    return decide(Predictions.load(table.kept(other, "found")).select(table.rows(row)))


def mixed(table: Table, row: Row, mix: Mix) -> Result:
    """Combine members' predictions out of fold, each fold by what was learnt on the others."""
    done = read(table.name)
    said = [Predictions.load(table.kept(ROWS[name], "found")) for name in mix.members]
    machine, own, parts = Machine(engines={}), list[float](), []
    for fold in range(table.folds.k):
        train, test = table.folds.train(fold), table.folds.test(fold)
        path, used = table.kept(row, f"fold-{fold}"), cpu()
        if not path.exists():
            part, group = table.catalog.select(train), table.groups[train]
            learnt, asked = [each.select(train) for each in said], [each.select(test) for each in said]
            found = combined(mix, learnt, part, group, asked, table.catalog.select(test), machine)
            path.parent.mkdir(parents=True, exist_ok=True)
            found.save(path)
            own.append(cpu() - used)
        parts.append((test, Predictions.load(path)))
    again = 1 if mix.how in ("equal", "pool") else 6
    costs = [done[name] for name in mix.members]
    result: Result = {
        "fit_cpu": float(np.mean(own or [0.0])) + again * sum(cost["fit_cpu"] for cost in costs),
        "mb": sum(cost["mb"] for cost in costs),
        "photos_per_core_second": 1 / sum(1 / cost["photos_per_core_second"] for cost in costs),
        "combining_cpu": float(np.mean(own or [0.0])),
    }
    return result | judged(table, row, Predictions.join(parts, table.catalog.ids))


def combined(
    mix: Mix,
    learnt: Sequence[Predictions],
    part: Catalog,
    group: Ints,
    asked: Sequence[Predictions],
    test: Catalog,
    machine: Machine,
) -> Predictions:
    """Learn to combine on some rows, and combine what is said of others."""
    equal = Weights(len(learnt), part.taxonomy.hash, {})
    if mix.how in ("equal", "weighted", "pool"):
        metric = mix.metric or "log_loss"
        weights = blend_weights(learnt, part, metric=metric, groups=group) if mix.how == "weighted" else equal
        found = blend(asked, weights)
        if mix.how == "pool":  # every opinion is weighed by the calibration
            return found
        return replace(found, blocks=tuple(Block(b.category, b.rows, b.probs) for b in found.blocks))
    sides, asked_sides = side_by_side(learnt), side_by_side(asked)
    near_N = None
    combiner: Ridge | Trees | Gate
    if mix.how == "gate":
        index = learn_index(part, REGISTRIES["backbone"].spec("lite0"), group, machine)
        weights = blend_weights(learnt, part, metric="log_loss", groups=group)
        combiner = Gate.learn(sides, part, weights, index.familiarity(part, machine).p_familiar)
        near_N = index.familiarity(test, machine).p_familiar
    else:
        combiner = (Trees if mix.how == "lightgbm" else Ridge).learn(sides, part)
    blocks = [
        Block(s.category, s.rows, combiner.combine(s, None if near_N is None else near_N[s.rows]))
        for s in asked_sides.blocks
    ]
    return assembled(asked, asked_sides, blocks)


def read(name: str) -> dict[str, Result]:
    """Return the finished rows of a catalogue by their names."""
    path = home(name) / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {found["row"]: found for found in map(json.loads, lines)}


def run(name: str, wanted: Sequence[Row], until: float) -> None:
    """Measure the rows that are not finished, each in a process of its own, while there is time."""
    path = home(name) / "rows.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    table: Table | None = None
    for row in wanted:
        done = read(name)
        needed = {REFERENCE, row.base, *(row.what.members if isinstance(row.what, Mix) else ())} - {
            "",
            row.name,
        }
        if row.name in done or name not in row.tables or time.monotonic() > until:
            continue
        if not needed <= set(done):
            print(f"{name}: {row.name}: waits for {sorted(needed - set(done))}", file=sys.stderr, flush=True)
            continue
        start = time.monotonic()
        if isinstance(row.what, Mix):  # it fits nothing, so it needs no process of its own
            table = table or Table.read(name)
            line = json.dumps({"row": row.name, **rounded(measure(table, row))})
        else:
            command = [sys.executable, __file__, "--row", row.name, "--tables", name]
            child = subprocess.run(command, capture_output=True, text=True, check=False)
            if child.returncode:
                said = child.stderr.strip().splitlines()[-1:]
                print(f"{name}: {row.name}: failed: {said}", file=sys.stderr, flush=True)
                continue
            line = child.stdout.splitlines()[-1]
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(f"{name}: {row.name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


def judge_again(name: str, wanted: Sequence[Row]) -> None:
    """Score finished rows of a catalogue anew, from what they predicted."""
    table, done = Table.read(name), read(name)
    for row in (each for each in wanted if each.name in done):
        found = done[row.name]
        line = {**found, **judged(table, row, Predictions.load(table.kept(row, "found")))}
        with (home(name) / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(rounded(line)) + "\n")


def rounded(value: Any) -> Any:
    """Return numbers with five significant digits."""
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main(
    quick: bool = False,
    tables: Sequence[str] = tuple(TABLES),
    only: Sequence[str] = (),
    heavy: bool = False,
    minutes: float = 600.0,
    page: Path | None = None,
    again: bool = False,
) -> Result:
    result: Result = {"benchmark": "approaches"}
    absent = [name for name in tables if not (DATA / TABLES[name]).exists()]
    if absent or not tables:
        return {**result, "skipped": f"{DATA / TABLES[(absent or list(TABLES))[0]]} is not there"}
    if quick:
        tables, only = tables[:1], (REFERENCE, "majority")
    wanted = [row for row in ROWS.values() if (row.name in only or not only) and (heavy or not row.heavy)]
    for name in tables:
        run(name, wanted, time.monotonic() + 60 * minutes)
        if again:
            judge_again(name, wanted)
    found = {name: read(name) for name in tables}
    if page is not None:
        from approach_page import write

        write(page, found)
    return result | {name: {key: at["score"][0] for key, at in rows.items()} for name, rows in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="one catalogue, the reference and the majority")
    parser.add_argument("--tables", nargs="*", default=tuple(TABLES), choices=tuple(TABLES))
    parser.add_argument("--only", nargs="*", default=(), choices=tuple(ROWS), metavar="ROW")
    parser.add_argument("--heavy", action="store_true", help="fine-tunes too")
    parser.add_argument(
        "--minutes", type=float, default=600.0, help="begin no row later than this, by catalogue"
    )
    parser.add_argument("--page", type=Path, help="write the page of the docs, and its charts beside it")
    parser.add_argument(
        "--again", action="store_true", help="score finished rows anew, from what they predicted"
    )
    parser.add_argument("--row", choices=tuple(ROWS), metavar="ROW", help=argparse.SUPPRESS)
    given = vars(parser.parse_args())
    alone = given.pop("row")
    if alone is not None:
        measured = measure(Table.read(given["tables"][0]), ROWS[alone])
        print(json.dumps({"row": alone, **rounded(measured)}))
    else:
        print(json.dumps(main(**given)))
