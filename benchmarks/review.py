"""What a review is worth: the score of a refit on labels that reviewers put right, on the demo catalogue.

A share of the stated labels of the rendered training products is made wrong. A bundle is fitted on them and puts what
it doubts on a desk; a reviewer who knows the drawing takes the riskiest items one by one and says what it shows; the
labels come out of the desk onto the table, and the same recipe is fitted again. ``random`` is the refit after as many
stated cells, drawn at random, were put right. The score is that of unseen products with their true labels.
"""

import argparse
import json
import tempfile
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
from shelfwise.service.doubts import items_of
from shelfwise.service.labels import labels_of
from shelfwise.tables import read_table, write_frame

Cells = dict[tuple[str, str], str]


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


def review(bundle: Bundle, catalog: Catalog, true: Cells, verdicts: int, place: Path) -> tuple[int, Desk]:
    """Let a reviewer who knows the drawings decide; return how many stated labels were changed, and the desk."""
    desk, changed = Desk.open(place), 0
    items = items_of(bundle, catalog, look_alikes=0)
    desk.fill(items, bundle="0" * 64, taxonomy=catalog.taxonomy, layout=bundle.schema.layout, second=0.0)
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
    return changed, desk


def main(
    quick: bool = False, products: int = 1500, share: float = 0.2, verdicts: int = 600
) -> dict[str, Any]:
    products, verdicts = (200, 100) if quick else (products, verdicts)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rendered = render_catalog(directory, products=products)
        true, machine = truths(rendered), Machine(cache=directory / "cache")

        def learnt(frame: pl.DataFrame) -> tuple[Bundle, Catalog, float]:
            table = directory / "labels.csv"
            write_frame(frame, table)
            catalog = Catalog.read(table, images=rendered.train_images, attributes=rendered.attributes)
            bundle = fit(catalog, Probe(), evidence=3, machine=machine, random_split=False)
            unseen = bundle.read(rendered.test_labels, images=rendered.test_images)
            return bundle, catalog, evaluate(bundle.predict(unseen, machine), unseen, bootstrap=0).score

        table = spoilt(read_table(rendered.train).frame, true, share, seed=0)
        bundle, catalog, before = learnt(table)
        changed, desk = review(bundle, catalog, true, verdicts, directory / "desk.sqlite")
        labels = labels_of(desk)
        labels.write(directory / "reviewed.csv", onto=directory / "labels.csv")
        faults = desk.verify()
        desk.close()
        after = learnt(read_table(directory / "reviewed.csv").frame)[2]
        at_random = learnt(righted(table, true, len(labels.items), seed=1))[2]
    return {
        "benchmark": "review",
        "products": len(catalog),
        "wrong": share,
        "verdicts": len(labels.items),
        "of stated": sum(label.item.stated is not None for label in labels.items),
        "changed": changed,
        "before": round(before, 4),
        "after": round(after, 4),
        "random": round(at_random, 4),
        "faults": len(faults),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--products", type=int, default=1500)
    parser.add_argument("--share", type=float, default=0.2, help="of the stated labels that are made wrong")
    parser.add_argument("--verdicts", type=int, default=600)
    print(json.dumps(main(**vars(parser.parse_args()))))
