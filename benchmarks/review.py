"""What a review is worth: the score of a refit on labels that reviewers put right, on the demo catalogue.

A share of the stated labels of the rendered training products is made wrong. A bundle is fitted on them and puts what
it doubts on a desk; a reviewer who knows the drawing takes the riskiest items one by one and says what it shows; the
labels come out of the desk onto the table, and the same recipe is fitted again. ``random`` is the refit after as many
stated cells, drawn at random, were put right. The score is that of unseen products with their true labels. ``weights``
are those of a mismatch on the desk, against 1 for an empty cell in doubt; each catalogue is drawn and spoilt by its
seed, and ``error`` is the standard error of the mean over them.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.evaluate import evaluate
from shelfwise.fit import fit
from shelfwise.predictions import Machine
from shelfwise.recipes.probe import Probe
from shelfwise.rendering import RenderedCatalog, render_catalog
from shelfwise.service.desk import Desk
from shelfwise.service.doubts import REASONS, Weighing, items_of
from shelfwise.service.labels import Labels, labels_of
from shelfwise.tables import read_table, write_frame

Cells = dict[tuple[str, str], str]
WEIGHTS = (1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Size:
    """Products rendered, the share of labels made wrong, verdicts given, and the weights of a mismatch."""

    products: int
    share: float
    verdicts: int
    weights: tuple[float, ...]


def truths(rendered: RenderedCatalog) -> Cells:
    """Return what the drawings of the training products show, by id and column."""
    frame = pl.read_csv(rendered.truth, infer_schema=False).filter(pl.col("split") == "train")
    columns = [name for name in frame.columns if name.startswith("attr_")]
    return {(row["id"], name): row[name] for row in frame.to_dicts() for name in columns if row[name]}


def spoilt(frame: pl.DataFrame, true: Cells, share: float, seed: int) -> pl.DataFrame:
    """Return a table in which this share of the stated labels is another value of the same column and category."""
    rng, rows = np.random.default_rng(seed), frame.to_dicts()
    known: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        for name in frame.columns:
            if (row["id"], name) in true:
                known.setdefault((row["Category"], name), set()).add(true[row["id"], name])
    for row in rows:
        for name in frame.columns:
            others = sorted(known.get((row["Category"], name), set()) - {true.get((row["id"], name), "")})
            stated = row[name] and row[name] != "dummy_value" and (row["id"], name) in true
            if stated and others and rng.random() < share:
                row[name] = str(rng.choice(others))
    return pl.DataFrame(rows, schema=frame.schema)


def righted(frame: pl.DataFrame, true: Cells, count: int, seed: int) -> pl.DataFrame:
    """Return a table in which as many stated cells, drawn at random, hold what the drawing shows."""
    rows = frame.to_dicts()
    places = [
        (at, name)
        for at, row in enumerate(rows)
        for name in frame.columns
        if (row["id"], name) in true and row[name] and row[name] != "dummy_value"
    ]
    for at in np.random.default_rng(seed).permutation(len(places))[:count]:
        row, name = places[int(at)]
        rows[row][name] = true[rows[row]["id"], name]
    return pl.DataFrame(rows, schema=frame.schema)


def review(
    bundle: Bundle, catalog: Catalog, true: Cells, verdicts: int, place: Path, weight: float
) -> tuple[int, Labels]:
    """Let a reviewer who knows the drawings decide; return how many stated labels were changed, and the labels.

    Args:
        bundle: what doubts.
        catalog: the spoilt table.
        true: what the drawings show.
        verdicts: items that are decided.
        place: the desk's file.
        weight: what a mismatch weighs.
    """
    weighing, changed = Weighing(reasons={"mismatch": weight}), 0
    items = items_of(bundle, catalog, weighing, look_alikes=0)
    with Desk.open(place) as desk:
        layout = bundle.schema.layout
        desk.fill(items, bundle="0" * 64, taxonomy=catalog.taxonomy, layout=layout, second=0.0)
        for _ in range(verdicts):
            item = desk.next("reviewer")
            if item is None:
                break
            names = [choice.name for choice in catalog.taxonomy.choices(item.category)]
            column = f"attr_{names.index(item.attribute) + 1}" if item.attribute else ""
            value = true.get((item.id, column)) if column else item.stated
            if value is None or value not in item.values:
                desk.decide("reviewer", item.key, "skip")
            else:
                desk.decide("reviewer", item.key, "correct", value)
                changed += item.stated is not None and value != item.stated
        if desk.verify():
            raise SystemExit("the chain of records does not verify")
        return changed, labels_of(desk)


def one_seed(directory: Path, seed: int, size: Size) -> dict[str, Any]:
    """Return the scores of one catalogue, spoilt and reviewed."""
    rendered = render_catalog(directory, products=size.products, seed=seed)
    true, machine = truths(rendered), Machine(cache=directory / "cache")

    def learnt(frame: pl.DataFrame) -> tuple[Bundle, Catalog, float]:
        table = directory / "labels.csv"
        write_frame(frame, table)
        catalog = Catalog.read(table, images=rendered.train_images, attributes=rendered.attributes)
        bundle = fit(catalog, Probe(), evidence=3, machine=machine, random_split=False, curve=False)
        unseen = bundle.read(rendered.test_labels, images=rendered.test_images)
        return bundle, catalog, evaluate(bundle.predict(unseen, machine), unseen, bootstrap=0).score

    table = spoilt(read_table(rendered.train).frame, true, size.share, seed)
    bundle, catalog, before = learnt(table)
    found: dict[str, Any] = {"before": before}
    for weight in size.weights:
        place = directory / f"desk-{weight}.sqlite"
        changed, labels = review(bundle, catalog, true, size.verdicts, place, weight)
        write_frame(table, directory / "labels.csv")
        labels.write(directory / "reviewed.csv", onto=directory / "labels.csv")
        stated = sum(label.item.stated is not None for label in labels.items)
        after = learnt(read_table(directory / "reviewed.csv").frame)[2]
        found[f"{weight:g}"] = {"after": after, "changed": changed, "of stated": stated}
    found["random"] = learnt(righted(table, true, size.verdicts, seed=seed + 1))[2]
    return found


def main(
    quick: bool = False,
    products: int = 1500,
    share: float = 0.2,
    verdicts: int = 600,
    seeds: int = 5,
    weights: Sequence[float] = WEIGHTS,
    start: int = 0,
) -> dict[str, Any]:
    size = (
        Size(200, share, 100, (REASONS["mismatch"],))
        if quick
        else Size(products, share, verdicts, tuple(weights))
    )
    runs = []
    for seed in range(start, start + (1 if quick else seeds)):
        with tempfile.TemporaryDirectory() as name:
            runs.append(one_seed(Path(name), seed, size))
        print(seed, runs[-1], file=sys.stderr, flush=True)
    gains = {
        f"{weight:g}": [run[f"{weight:g}"]["after"] - run["random"] for run in runs]
        for weight in size.weights
    }
    return {
        "benchmark": "review",
        "products": size.products,
        "wrong": share,
        "verdicts": size.verdicts,
        "seeds": len(runs),
        "before": mean_of([run["before"] for run in runs]),
        "random": mean_of([run["random"] for run in runs]),
        "weights": {
            name: {
                **{
                    key: mean_of([run[name][key] for run in runs])
                    for key in ("after", "changed", "of stated")
                },
                "over random": mean_of(gain),
                "error": round(statistics.stdev(gain) / len(gain) ** 0.5, 4) if len(gain) > 1 else None,
            }
            for name, gain in gains.items()
        },
    }


def mean_of(numbers: Sequence[float]) -> float:
    """Return the mean, rounded."""
    return round(statistics.mean(numbers), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--products", type=int, default=1500)
    parser.add_argument("--share", type=float, default=0.2, help="of the stated labels that are made wrong")
    parser.add_argument("--verdicts", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=5, help="catalogues that are drawn")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, help="of a mismatch on the desk")
    print(json.dumps(main(**vars(parser.parse_args()))))
