"""What several photos of a product add to the first one alone, and what the vote costs.

There is no shared catalogue with several photos a product, so further ones are made from fashion photos: ``angle``
(mirrored, the edges cut off, a little darker) and ``detail`` (the middle ninth). ``first`` is learnt from and predicted
by the photo as it is; ``alike`` lets all three vote alike, ``roles`` by weights found out of fold, ``angle`` and
``detail`` are what these photos say alone. Five folds, near-duplicate groups kept whole; scores of the most probable
values; ``vote_ms`` is the time of the vote itself, for a product.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageEnhance

from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import evaluate
from shelfwise.files import cache_directory
from shelfwise.photo_gain import photo_gain
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.probe import Probe
from shelfwise.recipes.several import Shown, vote, voted_out_of_fold

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
PRODUCTS, QUICK = 2000, 400
FOLDS = 5


def more_photos(path: Path, stem: Path) -> list[tuple[str, str]]:
    """Write a product's photos, and return their names and roles."""
    with Image.open(path) as image:
        whole = image.convert("RGB")
    wide, high = whole.size
    angle = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop(
        (wide // 12, high // 12, wide - wide // 12, high - high // 12)
    )
    detail = whole.crop((wide // 3, high // 3, 2 * wide // 3, 2 * high // 3))
    photos = {"front": whole, "angle": ImageEnhance.Brightness(angle).enhance(0.8), "detail": detail}
    for role, photo in photos.items():
        photo.save(f"{stem}-{role}.jpg", quality=92)
    return [(f"{stem.name}-{role}.jpg", role) for role in photos]


def with_photos(catalog: Catalog, folder: Path) -> Catalog:
    """Return the catalogue with three photos a product."""
    rows = [
        {"id": id_, "image": name, "role": role}
        for row, (id_, path) in enumerate(zip(catalog.ids, catalog.images, strict=True))
        if path is not None
        for name, role in more_photos(path, folder / str(row))
    ]
    frame = catalog.frame
    return Catalog.read(frame, images=folder, schema=catalog.schema, photos=pl.DataFrame(rows)).remembering()


def score(found: Predictions, catalog: Catalog) -> float:
    """Return the challenge score."""
    return round(evaluate(found, catalog, min_rows=20, min_values=2, bootstrap=0).score, 4)


def main(quick: bool = False, products: int = 0) -> dict[str, Any]:
    path = DATA / "fashion" / "catalog.csv"
    result: dict[str, Any] = {"benchmark": "photos"}
    if not path.is_file():
        return {**result, "skipped": f"{path} is not there"}
    whole, machine = Catalog.read(path), Machine()
    located = np.array([row for row, image in enumerate(whole.images) if image is not None])
    some = np.random.default_rng(0).permutation(located)[: products or (QUICK if quick else PRODUCTS)]
    with tempfile.TemporaryDirectory() as folder:
        catalog = with_photos(whole.select(np.sort(some)), Path(folder))
        groups = near_duplicates(catalog, cache=cache_directory())
        folds = catalog.folds(3 if quick else FOLDS, groups=groups)
        shown = Shown.of(catalog)
        found = cross_fit(Probe(), shown.catalog, shown.folds(folds), machine=machine, keep=shown.first)
        print("predicted", len(shown.product), "photos", file=sys.stderr, flush=True)
        begun = time.perf_counter()
        alike = vote(found, shown)
        result["vote_ms"] = round((time.perf_counter() - begun) / len(catalog) * 1000, 4)
        voted = voted_out_of_fold(found, shown, catalog, folds.fold)
        by_role = {
            role: found.select(np.flatnonzero(np.array(shown.roles) == role)) for role in ("angle", "detail")
        }
        result |= {
            "products": len(catalog),
            "photos": len(shown.product),
            "weights": dict(voted.voting.roles),
        }
        ways = {"first": voted.first, **by_role, "alike": alike, "roles": voted.found}
        result["harmonic_f1"] = {name: score(each, catalog) for name, each in ways.items()}
        counted = {"min_rows": 20, "min_values": 2}
        for name in ("alike", "roles"):
            result[f"gain_{name}"] = photo_gain(
                voted.first, ways[name], catalog, groups=groups, metric="harmonic_f1", counted=counted
            )
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few products")
    parser.add_argument("--products", type=int, default=0, help="so many products of the catalogue")
    print(json.dumps(main(**vars(parser.parse_args()))))
