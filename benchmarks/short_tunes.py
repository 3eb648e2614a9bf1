"""Short fine-tunes for a verdict: where a network begins, what it looks at, whom it hears.

EfficientNet-Lite0 at 128 pixels, three epochs, the first three of seven stages as they are, on some products of the
fashion catalogue; the most probable values scored on others of a grouped holdout, differences paired over its groups:

- ``--bundle``: begin with other catalogues' networks (``start_from``) instead of ImageNet's, with a tenth (six epochs),
  a quarter (four) and all of the labels; ``rendered`` is one that is learnt on drawn products first;
- features of the last level, of all levels, and of all levels with a top-down pyramid beside them;
- products cut out of their background by the colour of the border;
- ``--teacher``: a bundle of the same holdout that speaks of products it has learnt from; and three probes, one of them
  reading titles, that speak of each out of fold.

Finished fine-tunes are kept under the cache folder: run again, it goes on where it stopped. The catalogue is found
through ``SHELFWISE_DATA`` and is not part of this repository.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import shelfwise as sw
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.data.group import near_duplicates
from shelfwise.evaluate import compare, evaluate
from shelfwise.files import cache_directory, write_text
from shelfwise.models.backbones import Backbone, lite_backbone, make_backbone
from shelfwise.models.towers import Tower
from shelfwise.predictions import Machine, Predictions, Recipe
from shelfwise.registry import register
from shelfwise.rendering import render_catalog
from ways import CutOut

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
PRODUCTS, SCORED = 1200, 800
#: Given instead of a bundle: one of a fine-tune on a rendered catalogue, which is made first.
RENDERED = "rendered"
#: Epochs by the share of the labels: fewer labels are seen more often, and still cost less.
EPOCHS = {0.1: 6, 0.25: 4, 1.0: 3}
AUGMENT = {
    "crop": {"scale": [0.5, 1.0], "ratio": [0.8, 1.25]},
    "flip": {"probability": 0.5},
    "colour": {"probability": 1.0, "brightness": 0.2, "contrast": 0.1, "saturation": 0.1},
}
OPTIMISER = {
    "weight_decay": 0.05,
    "layer_decay": 0.92,
    "clip": 5.0,
    "warm_up": 0.1,
    "floor": 0.04,
    "ema": 0.98,
}


class Pyramid(nn.Module):
    """Maps of three levels, each with what lies above it added (Lin et al. 2017), averaged after a rectifier.

    Without the rectifier the averages would be linear in those of the levels, which ``levels = "all"`` has already.
    """

    def __init__(self, channels: tuple[int, ...] = (40, 112, 320), width: int = 128) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.side = nn.ModuleList([nn.Conv2d(count, width, 1) for count in channels])
            self.smooth = nn.ModuleList(
                [nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in channels]
            )
            self.mix = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in channels])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return [B, levels * width], given maps from the finest to the coarsest."""
        found: list[Tensor] = []
        above: Tensor | None = None
        for at in reversed(range(len(maps))):
            here: Tensor = self.side[at](maps[at])
            if above is not None:
                here = here + nn.functional.interpolate(above, size=here.shape[2:], mode="nearest")
            above = here
            found.append(torch.relu(self.mix[at](self.smooth[at](here))).mean((2, 3)))
        return torch.cat(found, dim=1)


class PyramidTower(Tower):
    """EfficientNet with a pyramid on its third, fifth and last stage beside the averages of all."""

    def __init__(self, net: Any, half: tuple[float, float, float]) -> None:
        super().__init__(net, half, half, levels="all", flip=False)
        self.pyramid = Pyramid()

    def _staged(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        net: Any = self.net
        x_BCHW, stages = net.bn1(net.conv_stem(x_BCHW)), []
        for stage in net.blocks:
            x_BCHW = stage(x_BCHW)
            stages.append(x_BCHW)
        final_BCHW = net.bn2(net.conv_head(x_BCHW))
        pooled = [stage_BCHW.mean((2, 3)) for stage_BCHW in stages]
        pooled += [self.pyramid([stages[2], stages[4], stages[6]])]
        return torch.cat([*pooled, net.forward_head(final_BCHW, pre_logits=True)], dim=1), final_BCHW


@register.backbone("lite0_pyramid")
def lite0_pyramid(*, size: int = 128) -> Backbone:
    """EfficientNet-Lite0 with a top-down pyramid."""
    plain = lite_backbone("lite0", size, "stretch", "all", False)
    tower = PyramidTower(plain.module.net, plain.preprocess.mean)
    return make_backbone("lite0-pyramid", tower, plain.preprocess)


def table(epochs: int, **options: Any) -> dict[str, Any]:
    """Return the table of a short fine-tune."""
    given = {
        "name": "finetune",
        "backbone": {"name": "lite0", "levels": "all", "size": 128},
        "start": "probe",
        "choice_loss": {"name": "cross_entropy", "label_smoothing": 0.05},
        "augment": AUGMENT,
        "optimiser": OPTIMISER,
        "phases": [{"epochs": epochs, "train": 11, "lr": {"backbone": 4e-4, "heads": 6e-4}}],
    }
    return given | options


def in_order(catalog: Catalog, rows: Any) -> list[int]:
    """Return rows in an order that their ids alone decide."""
    return sorted(
        rows.tolist(), key=lambda row: hashlib.blake2b(catalog.ids[row].encode(), digest_size=8).digest()
    )


def asked(only: Sequence[str], bundles: Sequence[str]) -> Callable[[str], bool]:
    """Return whether a fine-tune is wanted, itself or as what another is compared with."""
    beside = {start(bundle, share): start("", share) for bundle in bundles for share in EPOCHS}
    wanted = {name for each in only for name in (each, beside.get(each, start("", 1.0)))}
    return lambda name: not only or name in wanted


def start(bundle: str, share: float) -> str:
    """Return what a fine-tune from a bundle's network with a share of the labels is called."""
    return f"{Path(bundle).name if bundle else 'ImageNet'}, {share:.0%}"


def ways(
    bundles: Sequence[str], teacher: str, probes: Callable[[], Path], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, str, float, Recipe]]:
    """Yield the name of each fine-tune, the one it is compared with, its share of the labels and its recipe.

    Args:
        bundles: whose networks are begun with.
        teacher: a bundle, or nothing.
        probes: returns the file of what three probes say out of fold.
        wanted: whether a fine-tune is asked for.
    """
    for share, epochs in EPOCHS.items():
        for bundle in ("", *bundles):
            options = table(epochs, start_from=bundle) if bundle else table(epochs)
            if wanted(start(bundle, share)):
                yield start(bundle, share), start("", share) if bundle else "", share, make_recipe(options)
    whole = start("", 1.0)
    changes: dict[str, Callable[[], Recipe]] = {
        "last level": lambda: make_recipe(
            table(3, backbone={"name": "lite0", "levels": "last", "size": 128})
        ),
        "pyramid": lambda: make_recipe(table(3, backbone={"name": "lite0_pyramid", "size": 128})),
        "cut out": lambda: CutOut(make_recipe(table(3))),
        "teacher, in sample": lambda: make_recipe(table(3, teacher=teacher)),
        "teacher, out of fold": lambda: make_recipe(table(3, teacher=str(probes()))),
    }
    for name, change in changes.items():
        if wanted(name) and (teacher or name != "teacher, in sample"):
            yield name, whole, 1.0, change()


def told(train: Catalog, folder: Path, machine: Machine) -> Path:
    """Return the file of what three probes, one of them reading titles, say of each product out of fold."""
    made = hashlib.sha256("\n".join([train.taxonomy.hash, *train.ids]).encode()).hexdigest()[:16]
    path = folder / f"probes-{made}.parquet"
    if not path.is_file():
        probes: list[dict[str, Any]] = [{"name": "probe"}, {"name": "probe", "backbone": "lite2"}]
        if train.text_columns:
            probes.append({"name": "probe", "choice_inputs": ["image", "text"]})
        ensemble = make_recipe({"name": "ensemble", "combine": "pool", "members": probes})
        folds = train.folds(5, groups=near_duplicates(train, cache=cache_directory()), seed=0)
        sw.cross_fit(ensemble, train, folds, machine=machine).save(path)
    return path


def rendered(folder: Path, products: int) -> str:
    """Return a bundle of the same fine-tune on a rendered catalogue."""
    place = folder / f"rendered-{products}" / RENDERED
    if not (place / "bundle.json").is_file():
        drawn = render_catalog(place.parent / "catalogue", products=products)
        catalog = Catalog.read(drawn.train, images=drawn.train_images, attributes=drawn.attributes)
        recipe = make_recipe(table(3))
        fitted = sw.fit(catalog, recipe, evidence=0.1, learn_from="split", random_split=False, curve=False)
        fitted.save(place)
    return str(place)


def answered(
    recipe: Recipe, train: Catalog, test: Catalog, seed: int, place: Path
) -> tuple[Predictions, float]:
    """Train and answer, unless that was done before; the CPU seconds of the training beside it."""
    note = place.with_suffix(".json")
    if not note.is_file():
        machine, begun = Machine(), time.process_time()
        predictor = recipe.fit(train, None, machine, seed)
        seconds = time.process_time() - begun
        predictor.predict(test, machine).save(place)
        write_text(note, json.dumps(round(seconds, 1)))
    return Predictions.load(place), float(json.loads(note.read_text(encoding="utf-8")))


def main(
    quick: bool = False,
    bundle: Sequence[str] = (),
    teacher: str = "",
    seed: int = 0,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    path = DATA / "fashion" / "catalog.csv"
    result: dict[str, Any] = {"benchmark": "short_tunes"}
    if not path.is_file():
        return {**result, "skipped": f"{path} is not there"}
    catalog = sw.load(teacher).read(path) if teacher else Catalog.read(path).only("choices")
    group_N = near_duplicates(catalog, cache=cache_directory())
    split = catalog.holdout(0.2, groups=group_N, seed=0)
    few = 8 if quick else 1
    rows = split.test(1)[: SCORED // few]
    test, group_n = catalog.select(rows).remembering(), group_N[rows]
    ordered = in_order(catalog, split.train(1))[: PRODUCTS // few]
    folder = cache_directory() / "benchmarks" / "short-tunes"
    folder.mkdir(parents=True, exist_ok=True)
    whole, found = catalog.select(np.sort(ordered)), dict[str, Predictions]()
    bundles = [rendered(folder, 1500 // few) if each == RENDERED else each for each in bundle]
    wanted = asked(only, bundles)
    for name, against, share, recipe in ways(
        bundles, teacher, lambda: told(whole, folder, Machine()), wanted
    ):
        train = catalog.select(np.sort(ordered[: int(len(ordered) * share)]))
        made = json.dumps([name, recipe.table(), train.ids, test.ids, seed], default=str)
        place = folder / f"{hashlib.sha256(made.encode()).hexdigest()[:16]}.parquet"
        found[name], seconds = answered(recipe, train, test, seed, place)
        report = evaluate(found[name], test, groups=group_n, min_rows=20)
        over = next(x for x in report.lines if x.level == "overall" and x.metric == "harmonic_f1")
        line: dict[str, Any] = {"score": [round(x, 4) for x in (over.score, over.low, over.high)]}
        line["fit_cpu_s"] = seconds
        if against:
            pair = [(against, found[against]), (name, found[name])]
            gain = compare(pair, test, groups=group_n, min_rows=20).overall()
            line["gain"] = [round(each, 4) for each in (gain.difference, gain.low, gain.high)]
        result[name] = line
        print(name, json.dumps(line), file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the products")
    parser.add_argument(
        "--bundle",
        nargs="*",
        default=(),
        help=f"of other catalogues, with a fine-tune of lite0 in them; or {RENDERED}",
    )
    parser.add_argument("--teacher", default="", help="a bundle that holds out a fifth, seed 0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), metavar="NAME", help="of the rows it prints")
    print(json.dumps(main(**vars(parser.parse_args()))))
