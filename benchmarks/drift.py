"""Alarms of ``drift`` where nothing changed, and where a change was planted.

A quarter of the near-duplicate groups is held out, a probe is fitted on the rest, and the quarter is compared with it:
``false`` is the share of such resplits with any report, ``false_small`` the same for ``SMALL`` random products of it,
``false_by`` for the quarter cut by a real column too, each slice against its own past. ``false_out_of_fold`` splits
the evidence of one bundle instead, many times, ``_small`` about ``SMALL`` products off it. Planted, in the first
resplits:

- ``darker``: held-out products whose photos have 0.6 of their brightness;
- ``studio``: another ground, colour cast, sharpness and distance, as in the benchmark of shift;
- ``supplier``: one of eleven suppliers is new, a tenth of the products; its photos are from that studio;
- ``tripled``: products left out at random until a value is three times as frequent in its category;
- ``new_value``: a value of which no product was learnt from; its products stay in the held-out quarter.

Each says how often it was found where it was planted, and which cause was named. Fitted bundles are kept under the
cache folder, so that a run goes on where one stopped: ``--start`` and ``--resplits`` do a part.
The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageEnhance

import shelfwise as sw
from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.drift.compared import drift, judged
from shelfwise.drift.fingerprint import learnt_from
from shelfwise.drift.lines import Comparison, Cut
from shelfwise.drift.report import Drift
from shelfwise.files import cache_directory
from shelfwise.predictions import Machine
from shelfwise.roles import Columns
from shift import otherwise

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
#: Of each catalogue: a column to cut by; category, attribute and value that is tripled, and those that are new.
TABLES = {
    "fashion": (
        "department",
        ("Upper Body", "pattern", "Melange"),
        ("Upper Body", "product_type", "Sweater"),
    ),
    "myntra": ("gender", ("Topwear", "colour", "Green"), ("Shoes", "article_type", "Heels")),
}
#: Raised when a change of the library makes other bundles of the same rows.
REVISION = 1
HELD, RESPLITS, OUT_OF_FOLD, PLANTS, SMALL, CHANGED = 0.25, 20, 200, 3, 300, 500
Ints = npt.NDArray[np.int64]


def fitted(catalog: Catalog, *place: object) -> sw.Bundle:
    """Return a bundle of frozen features, the one that was kept under this place where there is one."""
    path = cache_directory().joinpath("benchmarks", f"drift-{REVISION}", *map(str, place))
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        sw.fit(catalog, sw.Probe(backbone="lite0"), evidence=5, random_split=False, curve=False).save(path)
    return sw.load(path)


def darker(source: Path, target: Path) -> None:
    """Write a photo with 0.6 of its brightness."""
    ImageEnhance.Brightness(Image.open(source).convert("RGB")).enhance(0.6).save(target, quality=90)


def rephotographed(catalog: Catalog, rows: Ints, folder: Path, write: Any) -> Catalog:
    """Return the catalogue with other photos of some of its products."""
    folder.mkdir(parents=True)
    images = list(catalog.images)
    for row in rows.tolist():
        path = images[row]
        if path is not None:
            write(path, folder / f"{row}.jpg")
            images[row] = folder / f"{row}.jpg"
    return replace(catalog, images=tuple(images), memo=None)


def stating(catalog: Catalog, place: tuple[str, str, str]) -> Ints:
    """Return the rows of a category that state a value."""
    category, attribute, value = place
    names = [choice.name for choice in catalog.taxonomy.choices(category)]
    at = names.index(attribute)
    code = catalog.taxonomy.choices(category)[at].values.index(value)
    rows: Ints = catalog.rows(category)[catalog.labels(category)[:, at] == code]
    return rows


def tripled(catalog: Catalog, place: tuple[str, str, str], rng: np.random.Generator) -> Catalog:
    """Return a part of the catalogue in which a value is three times as frequent in its category."""
    kept, rows = stating(catalog, place), catalog.rows(place[0])
    others = np.setdiff1d(rows, kept)
    many = round(len(kept) * (1 - 3 * len(kept) / len(rows)) / (3 * len(kept) / len(rows)))
    apart = np.setdiff1d(np.arange(len(catalog)), rows)
    return catalog.select(np.sort(np.concatenate([apart, kept, rng.permutation(others)[:many]])))


def with_suppliers(catalog: Catalog, seed: int, new: Ints | None = None) -> Catalog:
    """Return the catalogue with a supplier for every product, some of them of a new one."""
    drawn = np.random.default_rng(seed).integers(0, 10, len(catalog)).astype(object)
    names = np.array([f"supplier {number}" for number in drawn], object)
    if new is not None:
        names[new] = "the new one"
    return replace(
        catalog, frame=catalog.frame.with_columns(pl.Series("supplier", names.tolist(), pl.String))
    )


def at_place(found: Drift, category: str | None, attribute: str | None, kinds: Sequence[str]) -> list[Any]:
    """Return the reports of a category, an attribute or all of them."""
    return [
        line
        for line in found.found
        if line.kind in kinds
        and (category is None or line.category == category)
        and (attribute is None or line.attribute == attribute)
    ]


def planted(
    bundle: sw.Bundle, train: Catalog, held: Catalog, name: str, seed: int, machine: Machine
) -> dict[str, Any]:
    """Plant every change into held-out products, and say what is found."""
    _, triple, fresh = TABLES[name]
    rng, found = np.random.default_rng(seed), dict[str, Any]()
    some = held.select(np.sort(rng.permutation(len(held))[:CHANGED]))
    with tempfile.TemporaryDirectory() as folder:
        for key, write in (("darker", darker), ("studio", otherwise)):
            other = rephotographed(some, np.arange(len(some)), Path(folder) / key, write)
            lines = at_place(drift(bundle, other, machine=machine), None, None, ("look",))
            found[key] = (bool(lines), [line.cause for line in lines if line.category])
        new = np.sort(rng.permutation(len(some))[: len(some) // 10])
        supplied = with_suppliers(rephotographed(some, new, Path(folder) / "new", otherwise), seed, new)
        cut = drift(
            bundle, supplied, by=["supplier"], reference=with_suppliers(train, seed + 1), machine=machine
        )
        slices = {line.slice for line in cut.found if line.column is not None}
        found["supplier"] = ("the new one" in slices, sorted(map(str, slices - {"the new one"})))
    lines = at_place(
        drift(bundle, tripled(held, triple, rng), machine=machine), triple[0], triple[1], ("values",)
    )
    found["tripled"] = (any(line.value == triple[2] for line in lines), [line.cause for line in lines])
    rows = np.setdiff1d(np.arange(len(train)), stating(train, fresh))
    without = fitted(train.select(rows), name, f"{seed}-without")
    lines = at_place(drift(without, held, machine=machine), fresh[0], None, ("look", "familiar", "values"))
    found["new_value"] = (bool(lines), [f"{line.kind} {line.cause}".strip() for line in lines])
    return found


def out_of_fold(bundle: sw.Bundle, resplits: int, held: float = HELD) -> float:
    """Split what a bundle learnt from, by group, into earlier and later products; return the share with a report."""
    whole, alarms = learnt_from(bundle), 0
    group_of = dict(zip(whole.ids, whole.group.tolist(), strict=True))
    seen_group = np.array([group_of[id_] for id_ in whole.pictured])
    numbers = np.unique(whole.group)
    for seed in range(resplits):
        later = np.random.default_rng(seed).permutation(numbers)[: int(held * len(numbers))]
        after, after_seen = np.isin(whole.group, later), np.isin(seen_group, later)
        cut = Cut(None, None, ~after, ~after_seen, after, after_seen)
        (lines,) = judged([Comparison(whole, whole, cut, {})], 0.01, 1)
        alarms += any(line.drift for line in lines)
    return alarms / resplits


def measured(name: str, resplits: int, plants: int, first: int = 0) -> dict[str, Any]:
    """Return the rates of one catalogue."""
    machine = Machine()
    columns = Columns(ignore=("price",)) if name == "fashion" else None
    catalog = Catalog.read(DATA / name / "catalog.csv", columns=columns).remembering()
    groups = near_duplicates(catalog, cache=cache_directory())
    numbers, by = np.unique(groups), TABLES[name][0]
    alarms: dict[str, list[bool]] = {"false": [], "false_small": [], "false_by": []}
    said: Counter[str] = Counter()
    changes: dict[str, list[Any]] = {}
    seconds, compared = [], 0
    for seed in range(first, first + resplits):
        rng = np.random.default_rng(1000 + seed)
        out = np.isin(groups, rng.permutation(numbers)[: int(HELD * len(numbers))])
        train, held = catalog.select(np.flatnonzero(~out)), catalog.select(np.flatnonzero(out))
        bundle = fitted(train, name, seed)
        start = time.perf_counter()
        cut = drift(bundle, held, by=[by], reference=train, machine=machine)
        seconds.append(time.perf_counter() - start)
        small = drift(bundle, held.select(np.sort(rng.permutation(len(held))[:SMALL])), machine=machine)
        whole = [line for line in cut.found if line.column is None]
        compared += sum(line.p == line.p for line in cut.lines)
        for key, lines in (("false", whole), ("false_small", small.found), ("false_by", cut.found)):
            alarms[key].append(bool(lines))
        said.update(f"{line.kind} {line.where}" for line in (*cut.found, *small.found))
        if seed < plants:
            for key, what in planted(bundle, train, held, name, seed, machine).items():
                changes.setdefault(key, []).append(what)
        print(
            name, seed, {key: sum(each) for key, each in alarms.items()}, changes, flush=True, file=sys.stderr
        )
    many = OUT_OF_FOLD if resplits > 2 else 10
    return {
        "false_out_of_fold": out_of_fold(bundle, many),
        "false_out_of_fold_small": out_of_fold(bundle, many, SMALL / len(train)),
        "products": len(catalog),
        "resplits": resplits,
        "comparisons_a_resplit": round(compared / resplits),
        **{key: sum(each) / resplits for key, each in alarms.items()},
        "reported": dict(said),
        "seconds": round(float(np.median(seconds)), 2),
        **{
            key: {"found": sum(f for f, _ in each) / len(each), "said": [w for _, w in each]}
            for key, each in changes.items()
        },
    }


def main(
    quick: bool = False, resplits: int = RESPLITS, tables: Sequence[str] = tuple(TABLES), start: int = 0
) -> dict[str, Any]:
    names = [name for name in tables if (DATA / name / "catalog.csv").is_file()]
    if not names:
        return {"benchmark": "drift", "skipped": f"the catalogues are not at {DATA}: set SHELFWISE_DATA"}
    names, resplits, plants = (names[-1:], 2, 1) if quick else (names, resplits, PLANTS)
    found = {name: measured(name, resplits, plants, start) for name in names}
    return {"benchmark": "drift", "rate": 0.01, "start": start} | found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resplits", type=int, default=RESPLITS)
    parser.add_argument("--start", type=int, default=0, help="the first resplit")
    parser.add_argument("--tables", nargs="+", default=tuple(TABLES))
    print(json.dumps(main(**vars(parser.parse_args()))))
