"""What the maximum mean discrepancy is worth on a catalogue that was photographed otherwise.

A network is tuned on photos of the fashion catalogue as they are. Other products of it, none of them a near-duplicate
of those, are the shifted catalogue: their photos darker, with a colour cast, blurred and smaller in the frame. Half of
them are shown without labels for the penalty, the other half is scored. The penalty's weight is the only difference
between the fits of one seed.

The catalogue is found through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageEnhance, ImageFilter

from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.files import cache_directory
from shelfwise.models.mmd import MMD
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.finetune import FineTune
from shelfwise.registry import backbone
from shelfwise.train.optim import Phase, Rates

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
WEIGHTS = (0.0, 0.1, 1.0)


def otherwise(source: Path, target: Path) -> None:
    """Write a photo as another studio would have taken it."""
    photo = Image.open(source).convert("RGB")
    width, height = photo.size
    ground = Image.new("RGB", (width, height), (120, 105, 95))
    small = photo.resize((width * 4 // 5, height * 4 // 5), Image.Resampling.BICUBIC)
    ground.paste(small, (width // 10, height // 10))
    dark = np.asarray(ImageEnhance.Brightness(ground).enhance(0.75), np.float32)
    cast = np.clip(dark * np.array([1.1, 0.95, 0.8], np.float32), 0, 255).astype(np.uint8)
    Image.fromarray(cast).filter(ImageFilter.GaussianBlur(1.2)).save(target, quality=85)


def shifted(catalog: Catalog, rows: np.ndarray[Any, Any], folder: Path) -> Path:
    """Write some products with photos of the other studio; return their table."""
    (folder / "images").mkdir(parents=True)
    part, kept, names = catalog.select(rows), [], []
    for row, path in enumerate(part.images):
        if path is not None and row not in part.image_errors:
            otherwise(path, folder / "images" / f"{row}.jpg")
            kept.append(row)
            names.append(f"images/{row}.jpg")
    image = catalog.schema.roles.image
    assert image is not None
    part.frame[kept].with_columns(pl.Series(image, names)).write_csv(folder / "catalog.csv")
    return folder / "catalog.csv"


def main(quick: bool = False, seeds: int = 3, products: int = 1600) -> dict[str, Any]:
    whole = Catalog.read(DATA / "fashion/catalog.csv")
    groups = near_duplicates(whole, cache=cache_directory(None))
    seeds, products, size = (1, 240, 32) if quick else (seeds, products, 96)
    group_of = dict(zip(whole.ids, groups.tolist(), strict=True))
    scores: dict[float, list[float]] = {weight: [] for weight in WEIGHTS}
    gains: dict[float, list[list[float]]] = {weight: [] for weight in WEIGHTS if weight}
    seconds: dict[float, list[int]] = {weight: [] for weight in WEIGHTS}
    for seed in range(seeds):
        folds = whole.folds(4, groups=groups, seed=seed)
        draw = np.random.default_rng(seed)
        train, unseen, test = (draw.permutation(folds.test(k))[: products // (1 + (k > 0))] for k in range(3))
        with tempfile.TemporaryDirectory() as folder:
            unlabelled = shifted(whole, unseen, Path(folder) / "unlabelled")
            scored = Catalog.read(shifted(whole, test, Path(folder) / "test"), schema=whole.schema)
            told: list[tuple[str, Predictions]] = []
            for weight in WEIGHTS:
                recipe = FineTune(
                    backbone=backbone("lite0", size=size),
                    phases=(Phase(epochs=1 if quick else 3, train=11, lr=Rates(backbone=5e-4, heads=3e-3)),),
                    mmd=MMD(weight=weight),
                    unlabelled=unlabelled if weight else None,
                )
                begun = time.process_time()
                predictor = recipe.fit(whole.select(np.sort(train)), None, Machine(), seed)
                seconds[weight].append(round(time.process_time() - begun))
                told.append((str(weight), predictor.predict(scored, Machine())))
                scores[weight].append(evaluate(told[-1][1], scored, bootstrap=0, min_rows=30).score)
                print(seed, weight, scores[weight][-1], seconds[weight][-1], file=sys.stderr, flush=True)
            own = [group_of[id_] for id_ in scored.ids]
            paired = compare(told, scored, groups=own, min_rows=30)
            for weight in gains:
                line = paired.overall(str(weight))
                gains[weight].append([round(each, 4) for each in (line.difference, line.low, line.high)])
    return {
        "benchmark": "shift",
        "score": {str(w): round(statistics.mean(s), 4) for w, s in scores.items()},
        "gain": {str(w): each for w, each in gains.items()},
        "fit_cpu_s": {str(w): each for w, each in seconds.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    print(json.dumps(main(**vars(parser.parse_args()))))
