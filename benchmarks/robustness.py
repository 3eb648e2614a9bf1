"""Robustness of answers to bad photographs: seven kinds at two strengths, each drawn from the product's id.

Fashion, fold 1 of five grouped folds held out: 600 products of it are scored, the others, with their photos as they
are, calibrate, decide and make the promise of every way. A way is a network with the rule, the thresholds and the
training index that a bundle has. ``probe`` is the default recipe on all other products; ``copies`` learns from one
copy of each photo as well, spoilt in its light or by its camera (never occluded, cluttered or far away);
``evidence`` also calibrates and promises on such copies. ``tuned``, ``noise`` and ``adversary`` are the short
fine-tunes of ``claims.py``: plain, with the same kinds of spoiling as augmentation, and on moved pictures.

For every kind: the score of answers decided for the harmonic F1 and its paired difference from clean photos, the share
of labelled cells answered under a promise of 0.9, the precision of these (``precision``: with the products that
familiarity flags left out; ``unflagged``: with them), and the share of products flagged; 95 % intervals by
near-duplicate group. ``noticed`` is the share of the photos that ``clean`` finds bad. Predictions are kept in the cache
folder: run again, it goes on where it stopped. The catalogue is found through ``SHELFWISE_DATA`` and is not part of
this repository.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from claims import DATA, SIZE, TABLE, Setting
from shelfwise.answers import STATES, Answers
from shelfwise.catalog import Catalog
from shelfwise.data.bad_photos import Change, Photo, blurred, compressed, darkened, drawn, spoilt, tinted
from shelfwise.data.clean import clean
from shelfwise.evaluate import compare, evaluate
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.index import TrainingIndex, learn_index
from shelfwise.recipes.probe import Probe
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.decide import Rule, decide
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.promise import Promise, promise

PRECISION, CONFIDENCE, PRODUCTS = 0.9, 0.9, 600


def within(
    outer: tuple[int, int], inner: tuple[int, int], draw: np.random.Generator, margin: float
) -> tuple[int, int]:
    """Draw where something lies in a picture, a share of the room away from the edges."""
    x, y = (int((o - i) * draw.uniform(margin, 1 - margin)) for o, i in zip(outer, inner, strict=True))
    return x, y


def occlusion(photo: Photo, share: float, draw: np.random.Generator) -> Photo:
    """Put something of one colour over a share of the area, around the middle."""
    side = (int(photo.width * share**0.5), int(photo.height * share**0.5))
    place = (
        int((photo.width - side[0]) * draw.uniform(0.2, 0.8)),
        int((photo.height - side[1]) * draw.uniform(0.2, 0.8)),
    )
    found = photo.copy()
    found.paste(tuple(draw.integers(0, 256, 3).tolist()), (*place, place[0] + side[0], place[1] + side[1]))
    return found


def clutter(photo: Photo, count: float, draw: np.random.Generator) -> Photo:
    """Lay striped things of many colours along the edges."""
    found = photo.copy()
    for _ in range(int(count)):
        width, height = (int(side * draw.uniform(0.15, 0.35)) for side in photo.size)
        stripes = draw.integers(0, 256, (int(draw.integers(2, 7)), 3)).astype(np.uint8)
        thing = Image.fromarray(stripes[:, None].repeat(2, axis=1)).resize(
            (width, height), Image.Resampling.NEAREST
        )
        thing = thing.rotate(float(draw.uniform(0, 360)), expand=True, fillcolor=tuple(stripes[0].tolist()))
        edge, at = int(draw.integers(4)), draw.uniform(0, 1)
        x = (at, at, 0.0, 1.0)[edge] * photo.width - thing.width / 2
        y = (0.0, 1.0, at, at)[edge] * photo.height - thing.height / 2
        found.paste(thing, (int(x), int(y)))
    return found


def scale(photo: Photo, share: float, draw: np.random.Generator) -> Photo:
    """Show it from further away, on the colour of its edge."""
    pixels = np.asarray(photo)
    edge = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]), axis=0)
    small = photo.resize((int(photo.width * share), int(photo.height * share)), Image.Resampling.BICUBIC)
    found = Image.new("RGB", photo.size, tuple(edge.astype(int).tolist()))
    found.paste(small, within(photo.size, small.size, draw, 0.3))
    return found


#: How photos are spoilt: weakly and strongly.
KINDS: dict[str, tuple[Change, tuple[float, float]]] = {
    "darkness": (darkened, (0.5, 0.25)),
    "colour cast": (tinted, (0.15, 0.4)),
    "blur": (blurred, (0.01, 0.025)),
    "JPEG": (compressed, (20, 8)),
    "occlusion": (occlusion, (0.1, 0.25)),
    "clutter": (clutter, (2, 5)),
    "scale": (scale, (0.75, 0.5)),
}
#: The same kinds as augmentation.
AUGMENT: dict[str, Any] = {
    "blur": {"probability": 0.2, "sigma": [0.2, 3.2]},
    "spoil": {
        "dark": {"probability": 0.2},
        "cast": {"probability": 0.2, "strength": 0.4},
        "noise": {"probability": 0.2},
        "jpeg": {"probability": 0.2, "quality": [8, 60]},
    },
}
TUNED: dict[str, dict[str, Any]] = {
    "tuned": {},
    "noise": {"augment": AUGMENT},
    "adversary": {"adversary": {"epsilon": 2.0}},
}
WAYS = ("probe", "copies", "evidence", *TUNED)
REFERENCES = {"copies": "probe", "evidence": "probe", "noise": "tuned", "adversary": "tuned"}
CLEAN = "clean"


def rewritten(
    catalog: Catalog, spoil: Callable[[Photo, str], Photo], folder: Path, mark: str = ""
) -> Catalog:
    """Return the products with photos that were spoilt and written to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for id_, path in zip(catalog.ids, catalog.images, strict=True):
        target = folder / f"{hashlib.sha256(id_.encode()).hexdigest()[:16]}.jpg"
        if path is not None and not target.is_file():
            spoil(Image.open(path).convert("RGB"), id_).save(target, quality=95, subsampling=0)
        images.append(target if path is not None else None)
    ids = tuple(f"{id_}{mark}" for id_ in catalog.ids)
    return replace(catalog, images=tuple(images), ids=ids).remembering()


class Bench:
    """The products of the benchmark.

    Args:
        quick: few products and short trainings.
    """

    def __init__(self, quick: bool) -> None:
        self.setting = Setting(quick)
        self.quick, self.machine = quick, Machine()
        self.folder = self.setting.folder.parent / ("robustness-quick" if quick else "robustness")
        held = np.random.default_rng(0).permutation(self.setting.test(0))
        count = 100 if quick else PRODUCTS
        self.scored, self.trusted = np.sort(held[:count]), np.sort(held[count:])

    def part(self, rows: npt.NDArray[np.int64]) -> tuple[Catalog, npt.NDArray[np.int64]]:
        """Return some products and their groups."""
        return self.setting.catalog.select(rows), self.setting.groups[rows]

    def doubled(self, rows: npt.NDArray[np.int64]) -> tuple[Catalog, npt.NDArray[np.int64]]:
        """Return products and a spoilt copy of each."""
        plain, groups_N = self.part(np.concatenate([rows, rows]))
        copies = rewritten(
            plain.select(np.arange(len(rows))), spoilt, self.folder / "photos" / "learnt", " copy"
        )
        images = (*plain.images[: len(rows)], *copies.images)
        ids = (*plain.ids[: len(rows)], *copies.ids)
        return replace(plain, images=images, ids=ids).remembering(), groups_N

    def shown(self, kind: str, level: int) -> Catalog:
        """Return the scored products under a kind of photo."""
        clean, _ = self.part(self.scored)
        if kind == CLEAN:
            return clean
        spoil, strengths = KINDS[kind]
        return rewritten(
            clean,
            lambda photo, id_: spoil(photo, strengths[level], drawn(id_, kind)),
            self.folder / "photos" / f"{kind} {level}",
        )


@dataclass(frozen=True, eq=False)
class Way:
    """What answers: a predictor with what a bundle puts around it."""

    recipe: Recipe
    predictor: Predictor
    rule: Rule
    kept: Promise
    index: TrainingIndex | None


def trusting(
    bench: Bench, recipe: Recipe, train: Catalog, index: TrainingIndex | None, spoilt: bool = False
) -> Way:
    """Learn; calibrate, decide and promise on held-out products that are not scored."""
    predictor = recipe.fit(train, None, bench.machine, 0)
    truth, groups_N = (bench.doubled if spoilt else bench.part)(bench.trusted)
    folds = truth.folds(5, groups=groups_N)
    evidence = Evidence.of(predictor.predict(truth, bench.machine), truth, groups_N, folds.fold)
    return Way(
        recipe, predictor, decide(evidence), promise(out_of_fold(evidence), PRECISION, CONFIDENCE), index
    )


def made(bench: Bench, name: str) -> Way:
    """Learn one way."""
    if name in TUNED:
        return trusting(bench, bench.setting.recipe(TUNED[name]), bench.setting.train(0), None)
    rows = bench.setting.folds.train(0)
    rows = rows[::20] if bench.quick else rows
    train, groups_N = bench.part(rows) if name == "probe" else bench.doubled(rows)
    index = learn_index(train, Probe().backbone, groups_N, bench.machine)
    return trusting(bench, Probe(), train, index, name == "evidence")


def cells(answers: Answers, truth: Catalog) -> npt.NDArray[np.int64]:
    """Return the labelled cells [cells, 3]: row, whether it is answered, and whether the answer is right."""
    found = []
    for block in answers.blocks:
        rows, labels_nA = truth.rows(block.category), truth.labels(block.category)
        labels = labels_nA[np.searchsorted(rows, block.rows)]
        answered = np.isin(block.state, (STATES.index("answered"), STATES.index("not applicable")))
        at, attribute = np.nonzero(labels >= 0)
        right = block.codes[at, attribute] == labels[at, attribute]
        found.append(
            np.stack([block.rows[at], answered[at, attribute], answered[at, attribute] & right], axis=1)
        )
    return np.concatenate(found).astype(np.int64)


def ratio(
    above_c: npt.NDArray[Any], below_c: npt.NDArray[Any], group_c: npt.NDArray[np.int64]
) -> list[float]:
    """Return a ratio of sums over cells with its interval, groups drawn with replacement."""
    _, place_c = np.unique(group_c, return_inverse=True)
    above_G, below_G = np.bincount(place_c, above_c), np.bincount(place_c, below_c)
    draw, means = np.random.default_rng(0), []
    for _ in range(500):
        chosen = draw.integers(0, len(below_G), len(below_G))
        means.append(above_G[chosen].sum() / max(below_G[chosen].sum(), 1))
    value = above_G.sum() / max(below_G.sum(), 1)
    return [round(float(x), 4) for x in (value, *np.quantile(means, (0.025, 0.975)))]


def predicted(bench: Bench, way: Way, name: str, kind: str, level: int) -> Predictions:
    """Return what a way says of a kind of photo; what was said before is read."""
    made = json.dumps([way.recipe.table(), len(bench.scored)], sort_keys=True, default=str)
    path = bench.folder / f"{name}-{kind}-{level}-{hashlib.sha256(made.encode()).hexdigest()[:8]}.parquet"
    if not path.is_file():
        way.predictor.predict(bench.shown(kind, level), bench.machine).save(path)
    return Predictions.load(path)


def every_cell(bench: Bench, way: Way, name: str, kind: str, level: int) -> Answers:
    """Return answers of every cell, best for the score."""
    return way.rule.answers(predicted(bench, way, name, kind, level), every_cell=True)


def gain(bench: Bench, one: Answers, two: Answers) -> tuple[list[float], float]:
    """Return how much more the second scores, with its interval, and the same for colours alone."""
    truth, groups_N = bench.part(bench.scored)
    entries: Any = [("one", one), ("two", two)]
    lines = compare(entries, truth, groups=groups_N, min_values=2, bootstrap=300).differences
    colour = float(np.mean([line.difference for line in lines if line.attribute == "colour"]))
    return [round(x, 4) for x in (lines[0].difference, lines[0].low, lines[0].high)], round(colour, 4)


def figures(bench: Bench, way: Way, name: str, kind: str, level: int) -> dict[str, Any]:
    """Return the figures of one way under one kind of photo."""
    truth, groups_N = bench.part(bench.scored)
    found, answers = predicted(bench, way, name, kind, level), every_cell(bench, way, name, kind, level)
    row: dict[str, Any] = {"score": round(evaluate(answers, truth, min_values=2, bootstrap=0).score, 4)}
    if kind != CLEAN:
        row["lost"], row["lost_colour"] = gain(bench, every_cell(bench, way, name, CLEAN, 0), answers)
    promised = {"unflagged": found}
    if way.index is not None:
        familiarity = way.index.familiarity(bench.shown(kind, level), bench.machine)
        promised["precision"] = replace(found, familiarity=familiarity)
    for what, each in promised.items():
        held = way.rule.answers(each, way.kept)
        cell_c3 = cells(held, truth)
        row[what] = ratio(cell_c3[:, 2], cell_c3[:, 1], groups_N[cell_c3[:, 0]])
        row[f"{what}_answered"] = round(float(cell_c3[:, 1].mean()), 4)
        if what == "precision":
            row["flagged"] = round(len(held.flagged()) / len(truth), 4)
    return row


def noticed(bench: Bench, kind: str, level: int) -> float:
    """Return the share of the photos that ``clean`` calls dark, blurred, overexposed or flat."""
    found = clean(bench.shown(kind, level))
    bad = ("dark_image", "blurred_image", "overexposed_image", "low_contrast_image")
    rows = {finding.row for finding in found if finding.kind in bad}
    return round(len(rows) / len(bench.scored), 4)


def main(quick: bool = False, only: Sequence[str] = ()) -> dict[str, Any]:
    result: dict[str, Any] = {"benchmark": "robustness", "size": SIZE}
    if not (DATA / TABLE).is_file():
        return {**result, "skipped": f"{DATA / TABLE} is not there"}
    bench, ways = Bench(quick), {}
    kinds = [(CLEAN, 0), *((kind, level) for kind in KINDS for level in ((1,) if quick else (0, 1)))]
    for name in only or (("probe", "copies") if quick else WAYS):
        wall, cpu = time.perf_counter(), time.process_time()
        way = ways[name] = made(bench, name)
        rows: dict[str, Any] = {}
        # What is tuned sees the strong kinds only: its pictures are embedded anew for every way.
        for kind, level in [each for each in kinds if name not in TUNED or each[1] or each[0] == CLEAN]:
            row = rows[f"{kind} {level}"] = figures(bench, way, name, kind, level)
            other = REFERENCES.get(name)
            if other in ways:
                two = (every_cell(bench, ways[each], each, kind, level) for each in (other, name))
                row["gain"] = gain(bench, *two)[0]
            print(f"{name}, {kind} {level}: {row}", file=sys.stderr, flush=True)
        rows["seconds"] = {
            "wall": round(time.perf_counter() - wall, 1),
            "cpu": round(time.process_time() - cpu, 1),
        }
        result[name] = rows
    if not only:
        result["noticed"] = {f"{kind} {level}": noticed(bench, kind, level) for kind, level in kinds}
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few products, the strong kinds, two probes")
    parser.add_argument("--only", nargs="*", default=(), choices=WAYS, metavar="WAY")
    print(json.dumps(main(**vars(parser.parse_args()))))
