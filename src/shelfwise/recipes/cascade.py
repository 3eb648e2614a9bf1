"""Cascade: members from cheap to dear; a product goes on to the next only where those before are not sure enough.

It knows no member's options. Every member is calibrated on predictions out of fold, inside the training rows, so that
being sure means the same of each; on the same predictions the thresholds are found, for a wanted accuracy or a wanted
cost. What several members say of a product is averaged. Cascades are those of Viola and Jones, "Rapid Object Detection
using a Boosted Cascade of Simple Features" (CVPR 2001); for when confidence is a good guide, see Jitkrittum et al.,
"When Does Confidence-Based Cascade Deferral Suffice?" (NeurIPS 2023).
Legend: N rows, n labelled products or rows of one category, J members, A attributes, V values packed.
"""

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.errors import BundleError
from shelfwise.files import cache_directory
from shelfwise.predictions import Block, Machine, Predictions, Predictor
from shelfwise.recipes.blend import assembled
from shelfwise.recipes.ensemble import MEMBERS
from shelfwise.recipes.frontier import ALL, Point, choose, frontier, frontier_table
from shelfwise.recipes.held import HeldPredictor, Member, all_concurrent, called, first_backbone
from shelfwise.recipes.number_blend import blend_numbers
from shelfwise.recipes.sides import check_taxonomies, mixture, side_by_side
from shelfwise.registry import register
from shelfwise.splits import Folds
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.calibrate import Calibration, PairCalibration, calibrate, out_of_fold
from shelfwise.trust.decide import Rule
from shelfwise.trust.evidence import Evidence

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FILE = "cascade.json"
#: Products that a member's cost is measured on, and others that it warms up with.
SAMPLE, WARM = 24, 4
#: A calibration that leaves probabilities as they are.
AS_IT_IS = Calibration({}, PairCalibration((1.0,), 0.0), {})
#: What a row is given that a member was not asked of.
_NOT_ASKED = RowError("image", "not asked")


@register.recipe("cascade")
class Cascade(Options):
    """Several recipes or bundles, asked one after the other, the dearer ones only of doubtful products.

    Attributes:
        members: from cheap to dear: tables of recipes, or paths of bundles (``{ bundle = "PATH" }``), which are taken
            as they are and must not have learnt from the table.
        accuracy: the share of labelled cells to be right; the cheapest way that reaches it is taken.
        cost: the most that a product may cost on average, in the unit of ``costs``; the most accurate way is taken.
            With neither, the cheapest way that is as accurate as asking all members of every product.
        costs: what a product costs by each member, such as milliseconds; left out, it is measured.
        folds: inside the training rows, that calibrations and thresholds are found on.
    """

    members: tuple[Member, ...] = Field(
        default=({"name": "probe", "backbone": {"name": "lite0", "size": 128}}, {"name": "probe"}),
        min_length=2,
        max_length=5,
        validate_default=True,
    )
    accuracy: float | None = Field(default=None, gt=0, lt=1)
    cost: float | None = Field(default=None, gt=0)
    costs: tuple[float, ...] | None = None
    folds: int = Field(default=5, ge=2, le=20)

    @model_validator(mode="after")
    def _fits_together(self) -> "Cascade":
        if self.accuracy is not None and self.cost is not None:
            raise ValueError("either an accuracy or a cost is wanted, not both")
        if self.costs is not None:
            if len(self.costs) != len(self.members):
                raise ValueError(f"{len(self.costs)} costs for {len(self.members)} members")
            if min(self.costs) <= 0:
                raise ValueError("costs are above 0")
        return self

    @property
    def name(self) -> str:
        """The registered name."""
        return "cascade"

    @property
    def concurrent(self) -> bool:
        """Whether several fits may run side by side: where all members' may."""
        return all_concurrent(self.members)

    @property
    def backbone(self) -> Any:
        """That of the first member that has one, the cheapest; ``None`` if none has."""
        return first_backbone(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """What each member is called."""
        return called(self.members)

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "CascadePredictor":
        """Fit every member, calibrate them, and find the thresholds.

        Raises:
            PredictionError: a bundle among the members has another taxonomy, or has learnt from these products.
        """
        train = train.remembering()
        predictors = tuple(
            member.fit(train, valid, machine, seed + j) for j, member in enumerate(self.members)
        )
        rows = sorted(np.flatnonzero(train.labelled).tolist(), key=lambda i: (train.ids[i], i))
        part = train.select(rows)
        groups = np.zeros(0, np.int64)
        if rows:
            groups = near_duplicates(
                part, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
            )
        if len(np.unique(groups)) < self.folds:
            said = (
                "Too few labelled products to find a cascade's thresholds: every product goes to all members."
            )
            return CascadePredictor(
                self, train.taxonomy, predictors, (Step(AS_IT_IS, ALL),) * len(predictors), (said,)
            )
        folds = part.folds(self.folds, groups=groups, seed=seed)
        calibrations, honest = list[Calibration](), list[Predictions]()
        for j, (member, predictor) in enumerate(zip(self.members, predictors, strict=True)):
            found = _out_of_fold(member, predictor, part, folds, machine, seed + j)
            evidence = replace(Evidence.of(found, part, groups, folds.fold), amounts=())
            calibrations.append(calibrate(evidence))
            honest.append(replace(out_of_fold(evidence).predictions(), unsure=found.unsure))
        costs = self.costs or tuple(
            _cost(json.dumps(member.table(), sort_keys=True, default=str), predictor, part, machine)
            for member, predictor in zip(self.members, predictors, strict=True)
        )
        points, chosen, said = self._frontier(honest, part, costs)
        steps = tuple(Step(*step) for step in zip(calibrations, (*chosen.thresholds, ALL), strict=True))
        return CascadePredictor(self, train.taxonomy, predictors, steps, (said,), tuple(points), tuple(costs))

    def _frontier(
        self, honest: Sequence[Predictions], part: Catalog, costs: Sequence[float]
    ) -> tuple[list[Point], Point, str]:
        """Find the frontier on members' calibrated predictions out of fold, and the point to take; and say so."""
        pooled = [pool(honest[: j + 1], self.names[: j + 1]) for j in range(len(honest))]
        right_Jn = np.stack([_right(found, part) for found in pooled])
        doubt_Jn = np.stack([doubts(found) for found in pooled])
        cells = int((part.codes >= 0).sum())
        points = frontier(doubt_Jn, right_Jn, cells, costs)
        whole = float(right_Jn[-1].sum() / cells)
        chosen, why = choose(points, costs, whole, self.accuracy, self.cost)
        alone = [
            f"{name} {_right(found, part).sum() / cells:.4f} at {cost:.2f} ms"
            for name, found, cost in zip(self.names, honest, costs, strict=True)
        ]
        measured = "as given" if self.costs is not None else "measured here"
        said = (
            f"Accuracy against cost of the cascade, out of fold on {len(part):,} training products ({cells:,} labelled "
            f"cells), by the share of products that each member is asked of; costs {measured}. Taken (*): {why}.\n"
            + frontier_table(points, self.names, costs, chosen)
            + f"\nEach member alone, of every product: {'; '.join(alone)}."
        )
        return points, chosen, said

    def load(self, directory: Path, taxonomy: Taxonomy) -> "CascadePredictor":
        """Read what ``CascadePredictor.save`` wrote.

        Raises:
            BundleError: it is not there, or not of this version.
        """
        path = directory / FILE
        predictors = tuple(
            member.load(directory / MEMBERS / f"{j:02}", taxonomy) for j, member in enumerate(self.members)
        )
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
            steps = tuple(
                Step(Rule.from_table(step["calibration"], str(path)).calibration, float(step["threshold"]))
                for step in table["steps"]
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: cannot be read as a cascade: {error}") from error
        if len(steps) != len(predictors):
            raise BundleError(f"{path}: {len(steps)} steps for {len(predictors)} members")
        return CascadePredictor(self, taxonomy, predictors, steps)


@dataclass(frozen=True, eq=False)
class Step:
    """How a member is taken.

    Attributes:
        calibration: of what it says.
        threshold: a product whose doubt is above goes on.
    """

    calibration: Calibration
    threshold: float


class CascadePredictor:
    """Members that are asked one after the other.

    Attributes:
        taxonomy: of all of them.
        members: their predictors, from cheap to dear.
        steps: how each is taken.
        learnt: the accuracy that was found at what cost, and what members say they did to their training rows.
        points: the frontier of accuracy and cost that was found, the cheapest first; not kept in files, and neither are
            costs.
        costs: of a product, by member.
    """

    def __init__(
        self,
        recipe: Cascade,
        taxonomy: Taxonomy,
        members: tuple[Predictor, ...],
        steps: tuple[Step, ...],
        said: tuple[str, ...] = (),
        points: tuple[Point, ...] = (),
        costs: tuple[float, ...] = (),
    ) -> None:
        check_taxonomies([taxonomy, *(m.taxonomy for m in members)], ["the cascade", *recipe.names])
        self.recipe, self.taxonomy, self.members, self.steps = recipe, taxonomy, members, steps
        self.points, self.costs = points, costs
        notes = (note for member in members for note in getattr(member, "learnt", ()))
        self.learnt: tuple[str, ...] = tuple(dict.fromkeys((*said, *notes)))

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the mean of what the members say that were asked of a row."""
        return self._ask(catalog, machine)[0]

    def asked(self, catalog: Catalog, machine: Machine) -> tuple[int, ...]:
        """Return of how many rows each member is asked."""
        counts = self._ask(catalog, machine)[1]
        return (*counts, *(0,) * (len(self.members) - len(counts)))

    def _ask(self, catalog: Catalog, machine: Machine) -> tuple[Predictions, tuple[int, ...]]:
        catalog = catalog.remembering()
        rows: Ints = np.arange(len(catalog))
        said, counts = list[Predictions](), list[int]()
        for member, step in zip(self.members, self.steps, strict=True):
            found = member.predict(catalog.select(rows), machine)
            said.append(_spread(step.calibration.apply(found), rows, catalog.ids))
            counts.append(len(rows))
            together = pool(said, self.recipe.names[: len(said)])
            rows = rows[doubts(together)[rows] > step.threshold]
            if not len(rows):
                break
        return together, tuple(counts)

    def save(self, directory: Path) -> None:
        """Write every member into a folder of its own, the calibrations and the thresholds."""
        for j, member in enumerate(self.members):
            folder = directory / MEMBERS / f"{j:02}"
            folder.mkdir(parents=True)
            member.save(folder)
        steps = [
            {"threshold": step.threshold, "calibration": Rule("accuracy", step.calibration).table()}
            for step in self.steps
        ]
        text = json.dumps({"steps": steps}, ensure_ascii=False)
        (directory / FILE).write_text(text + "\n", encoding="utf-8")


def pool(said: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """Return the mean of what members say, row by row of those that were asked; of Numbers level by level."""
    sides = side_by_side(said, names)
    taxonomy = said[0].taxonomy
    blocks = [Block(side.category, side.rows, mixture(side, taxonomy)) for side in sides.blocks]
    amounts = blend_numbers(said, taxonomy, opinions=False)
    return replace(assembled(said, sides, blocks), amounts=amounts)


def doubts(found: Predictions) -> Float:
    """Return float64 [N], one less the mean over a product's attributes of the surest value's probability.

    1 where nothing is known of a product, 0 where it has no attribute to be unsure of.
    """
    doubt_N = np.ones(len(found))
    for block in found.blocks:
        parts = [part for part in found.taxonomy.slices(block.category) if part.stop - part.start > 1]
        sure_nA = [block.probs[:, part].max(axis=1).astype(np.float64) for part in parts]
        doubt_N[block.rows] = 1 - np.mean(sure_nA, axis=0) if sure_nA else 0.0
    return doubt_N


def _right(found: Predictions, catalog: Catalog) -> Float:
    """Return float64 [N], how many labelled cells of each product are right."""
    right_N = np.zeros(len(found))
    for block in found.blocks:
        stated, labels_nA = catalog.rows(block.category), catalog.labels(block.category)
        known_n = np.isin(block.rows, stated)
        at = np.searchsorted(stated, block.rows[known_n])
        for a, part in enumerate(found.taxonomy.slices(block.category)):
            if part.stop > part.start:
                best_n = block.probs[known_n, part].argmax(axis=1)
                right_N[block.rows[known_n]] += best_n == labels_nA[at, a]
    return right_N


def _out_of_fold(
    member: Any, predictor: Predictor, part: Catalog, folds: Folds, machine: Machine, seed: int
) -> Predictions:
    """Return what a member says of products it has not learnt from."""
    if isinstance(predictor, HeldPredictor):
        return predictor.predict(part, machine)
    return cross_fit(member, part, folds, machine=machine, seed=seed)


def _spread(found: Predictions, rows: Ints, ids: Sequence[str]) -> Predictions:
    """Return predictions of some rows as predictions of all; the others were not asked."""
    if len(rows) == len(ids):
        return found
    others = np.setdiff1d(np.arange(len(ids)), rows)
    nothing = Predictions(
        found.taxonomy,
        tuple(ids[i] for i in others.tolist()),
        (),
        dict.fromkeys(range(len(others)), _NOT_ASKED),
    )
    return Predictions.join([(rows, found), (others, nothing)], ids)


#: What members cost, measured once a process: by their tables and where they run.
_COSTS: dict[tuple[str, str, str, int | None], float] = {}
_MEASURING = threading.Lock()


def _cost(name: str, predictor: Predictor, catalog: Catalog, machine: Machine) -> float:
    """Return the milliseconds that a member takes for a product, from the picture's file; nothing is cached."""
    key = name, machine.engine, machine.device, machine.jobs
    with _MEASURING:
        if key not in _COSTS:
            rows = [row for row, path in enumerate(catalog.images) if path is not None] or [0]
            chosen = [rows[at % len(rows)] for at in range(SAMPLE + WARM)]
            with tempfile.TemporaryDirectory() as cache:
                bare = replace(machine, cache=Path(cache), progress=None, engines={})
                predictor.predict(replace(catalog.select(chosen[:WARM]), memo=None), bare)
                asked = replace(catalog.select(chosen[WARM:]), memo=None)
                begun = time.perf_counter()
                predictor.predict(asked, bare)
                _COSTS[key] = (time.perf_counter() - begun) / len(asked) * 1000
        return _COSTS[key]
