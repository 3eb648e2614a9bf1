"""Heat maps: how often the peak lies where the attribute is drawn, on a rendered catalogue.

    python benchmarks/saliency.py [--quick]

The drawings say where each attribute is seen (``shelfwise.drawn_regions``). A peak counts where the middle of its place
lies inside that region; nothing is widened. Beside it stand a guess at the middle of the photo, and a pixel drawn from
the garment at random; regions are small where those are low. Attributes that are drawn nowhere are left out. Test
photos are compared with those of the training table.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl

import shelfwise as sw
from shelfwise.drawn_regions import drawn_regions
from shelfwise.explaining import explain_images
from shelfwise.rendering import render_catalog


def main(products: int = 1500, seed: int = 0, photos: int = 100, bundle: str = "") -> None:
    """Render a catalogue, fit the default probe unless a bundle is given, explain test photos, print the shares."""
    with tempfile.TemporaryDirectory() as folder:
        rendered = render_catalog(Path(folder), products=products, seed=seed)
        if bundle:
            fitted = sw.load(bundle)
        else:
            learnt = sw.Catalog.read(
                rendered.train, images=rendered.train_images, attributes=rendered.attributes
            )
            fitted = sw.fit(learnt, sw.Probe())
        train = fitted.read(rendered.train, images=rendered.train_images)
        test = fitted.read(rendered.test, images=rendered.test_images)
        drawn = {
            each.id: each for each in drawn_regions(products=products, seed=seed) if each.split == "test"
        }
        begun = time.process_time()
        some = np.random.default_rng(seed + 1).permutation(len(test))[:photos]
        maps = explain_images(fitted, test.select(some), most=photos * 10, reference=train)
        taken = time.process_time() - begun
    rows = defaultdict(list)
    for each in maps:
        region = drawn[each.id].regions.get(each.attribute) if each.id in drawn else None
        if region is None:
            continue
        height, width = region.shape
        column, row = int(each.peak[0] * width), int(each.peak[1] * height)
        cloth = drawn[each.id].cloth
        told = region[row, column], region[height // 2, width // 2], (region & cloth).sum() / cloth.sum()
        rows[each.attribute].append(
            (*told, region.mean(), drawn[each.id].values[each.attribute] == each.value)
        )
    everything = [row for found in rows.values() for row in found]
    lines = [
        ("all", everything),
        *sorted(rows.items()),
        ("right answers", [row for row in everything if row[4]]),
    ]
    figures = [
        (name, len(found), *(round(float(np.mean([row[at] for row in found])), 3) for at in range(4)))
        for name, found in lines
    ]
    heads = [
        "attribute",
        "cells",
        "peak inside",
        "middle of the photo",
        "random in the garment",
        "share of photo",
    ]
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(pl.DataFrame(figures, schema=heads, orient="row"))
    _, cells, inside, middle, garment, _ = figures[0]
    shares = {"peak_inside": inside, "middle": middle, "in_garment": garment}
    size = {"cells": cells, "maps": len(maps), "cpu_seconds": round(taken, 1)}
    print(json.dumps({"benchmark": "saliency", **shares, **size}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a small catalogue")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bundle", default="", help="fitted on this catalogue")
    given = parser.parse_args()
    main(products=200 if given.quick else 1500, seed=given.seed, bundle=given.bundle)
