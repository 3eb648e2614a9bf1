"""Nested resplits of the real catalogues, for the benchmarks of decisions, promises and expectations.

For every resplit and each of its outer folds (near-duplicate groups kept whole): evidence is gathered by inner folds
over the other rows, the default recipe is fitted on them, and the outer fold, held out from all of that, is
predicted; so it is by the baselines, softmax regressions with and without balanced class weights on the same
features. Finished folds are kept under the cache folder, so the benchmarks share them and go on where they stopped.

The catalogues are found through ``SHELFWISE_DATA`` and are not part of this repository.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.features import features
from shelfwise.recipes.probe import Probe
from shelfwise.splits import Folds, places
from shelfwise.trust.evidence import Evidence

DATA = Path(os.environ.get("SHELFWISE_DATA") or Path(__file__).resolve().parents[1] / "../shared/data")
TABLES = {"fashion": "fashion/catalog.csv", "myntra": "myntra/catalog.csv"}
#: Raised when what is kept under the cache folder would no longer be what the recipe gives.
REVISION = 1
OUTER = INNER = 5
KEPT = ("found", "plain", "balanced", "evidence")
PLAIN, BALANCED = Probe(class_weight=0.0, look_alikes=0.0), Probe(class_weight=1.0, look_alikes=0.0)


@dataclass(frozen=True, eq=False)
class Held:
    """One outer fold.

    Attributes:
        rows: int64 [n], its positions in the catalogue.
        evidence: out-of-fold evidence of the other rows.
        found: the default recipe's predictions of the fold's rows.
        plain, balanced: the baselines' predictions.
    """

    rows: npt.NDArray[np.int64]
    evidence: Evidence
    found: Predictions
    plain: Predictions
    balanced: Predictions


@dataclass(frozen=True, eq=False)
class Table:
    """One catalogue with its near-duplicate groups."""

    name: str
    catalog: Catalog
    groups: npt.NDArray[np.int64]

    @classmethod
    def read(cls, name: str) -> "Table":
        """Read one of ``TABLES``; embeds its photos if they are new."""
        catalog = Catalog.read(DATA / TABLES[name]).remembering()
        features(catalog, PLAIN.backbone, Machine())
        return cls(name, catalog, near_duplicates(catalog, cache=cache_directory(None)))

    def resplit(self, seed: int) -> list[Held]:
        """Return the outer folds of one resplit."""
        outer, folder = self._outer(seed)

        def held(fold: int) -> Held:
            test = outer.test(fold)
            names = [folder / f"{fold}-{what}.parquet" for what in KEPT]
            if not all(name.exists() for name in names):
                rows, machine = self.catalog.select(test), Machine(jobs=1)
                train = self.catalog.select(outer.train(fold))
                for name, recipe in zip(names[:3], (Probe(), PLAIN, BALANCED), strict=True):
                    if not name.exists():
                        recipe.fit(train, None, machine, seed).predict(rows, machine).save(name)
                self._gather(outer.train(fold), seed).save(names[3])
            ours, plain, balanced = (Predictions.load(name) for name in names[:3])
            return Held(test, Evidence.load(names[3]), ours, plain, balanced)

        with one_thread(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(held, range(OUTER)))

    def half(self, seed: int, fold: int) -> Evidence:
        """Return the evidence of an outer fold's other rows, learnt from half of their labels."""
        outer, folder = self._outer(seed)
        name = folder / f"{fold}-half.parquet"
        if not name.exists():
            with one_thread():
                self._gather(outer.train(fold), seed, share=0.5).save(name)
        return Evidence.load(name)

    def _outer(self, seed: int) -> tuple[Folds, Path]:
        folder = cache_directory(None) / "benchmarks" / f"nested-{REVISION}" / self.name / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        return self.catalog.folds(OUTER, groups=self.groups, seed=1000 + seed), folder

    def _gather(self, rows: npt.NDArray[np.int64], seed: int, share: float = 1.0) -> Evidence:
        train, groups = self.catalog.select(rows), self.groups[rows]
        inner = train.folds(INNER, groups=groups, seed=seed)
        keep = None if share == 1.0 else places(groups, train.ids) < share
        found = cross_fit(Probe(), train, inner, machine=Machine(jobs=1), seed=seed, keep=keep)
        return Evidence.of(found, train, groups, inner.fold)

    def joined(self, parts: Sequence[tuple[npt.NDArray[np.int64], Predictions]]) -> Predictions:
        """Put the outer folds' predictions together."""
        return Predictions.join(parts, self.catalog.ids)


def one_hot(answers: Answers) -> Predictions:
    """Return answers as predictions that are sure of them, so that they can be joined and scored."""
    blocks = []
    for block in answers.blocks:
        parts = answers.taxonomy.slices(block.category)
        probs_nV = np.zeros((len(block.rows), answers.taxonomy.width(block.category)), np.float32)
        for a, part in enumerate(parts):
            if part.stop > part.start:
                probs_nV[np.arange(len(block.rows)), part.start + block.candidate[:, a]] = 1.0
        blocks.append(Block(block.category, block.rows, probs_nV))
    return Predictions(answers.taxonomy, answers.ids, tuple(blocks), answers.errors, answers.guessed)


def arguments(caption: str | None) -> argparse.Namespace:
    """Return what all of these benchmarks are told: how many resplits, of which catalogues."""
    parser = argparse.ArgumentParser(description=caption)
    parser.add_argument("--resplits", type=int, default=20)
    parser.add_argument("--start", type=int, default=0, help="the first resplit")
    parser.add_argument("--table", action="append", choices=sorted(TABLES), help="by default all")
    parser.add_argument("--quick", action="store_true", help="one resplit")
    given = parser.parse_args()
    given.resplits = 1 if given.quick else given.resplits
    return given


def resplits(given: argparse.Namespace) -> Iterator[tuple[Table, int, list[Held]]]:
    """Yield every resplit of every catalogue asked for, told on stderr."""
    for name in given.table or sorted(TABLES):
        table = Table.read(name)
        for seed in range(given.start, given.start + given.resplits):
            found = table.resplit(seed)
            print(f"{name}: resplit {seed + 1}", file=sys.stderr, flush=True)
            yield table, seed, found


def main() -> int:
    """Gather everything, without measuring."""
    for _ in resplits(arguments(__doc__)):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
