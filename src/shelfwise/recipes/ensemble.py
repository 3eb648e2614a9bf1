"""Ensemble: several recipes, or fitted bundles, that answer together.

It knows no member's options. Predictions carry the members' probabilities as opinions, so that calibration finds the
weights of each attribute on the evidence; other ways to combine are learnt on members' predictions out of fold, by
folds over near-duplicate groups inside the training rows.
Legend: N rows, n rows of one category, J members.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.predictions import Block, Floats, Machine, Predictions, Predictor
from shelfwise.recipes.blend import assembled, blend, blend_weights
from shelfwise.recipes.gate import Gate
from shelfwise.recipes.held import HeldPredictor, Member, all_concurrent, called, first_backbone
from shelfwise.recipes.index import TrainingIndex, learn_index
from shelfwise.recipes.number_blend import Mean, NumberStack, blend_numbers
from shelfwise.recipes.sides import Side, check_taxonomies, side_by_side
from shelfwise.recipes.simplex import Weights
from shelfwise.recipes.stacking import Ridge, Trees
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]
#: Where the parts lie in the directory of a saved ensemble.
MEMBERS, WEIGHTS, COMBINER, NUMBERS = "members", "weights.json", "combiner", "numbers"


class Combiner(Protocol):
    """What was learnt about combining."""

    def combine(self, side: Side, near_n: Floats | None = None) -> Floats:
        """Return float32 [n, V] of one category's rows."""
        ...

    def save(self, directory: Path) -> None:
        """Write what was learnt."""
        ...


@register.recipe("ensemble")
class Ensemble(Options):
    """Several recipes or bundles, their probabilities combined.

    Attributes:
        members: tables of recipes, or paths of bundles (``{ bundle = "PATH" }``), which are taken as they are and
            must not have learnt from the table.
        combine: ``pool`` (every member an opinion that calibration weighs, attribute by attribute), ``blend`` (mean of
            probabilities, weights per attribute by simplex search), ``stack`` (a model on the members'
            probabilities) or ``gate`` (weights that differ from product to product).
        weights: fixed weights of the members, for ``pool`` and ``blend``; left out, equal ones and found ones.
        stacker: what stacks: ``ridge`` or ``lightgbm``.
        metric: what the weights of ``blend`` are best for.
        folds: inside the training rows, for everything but ``pool``.
        mean: of Numbers' quantiles: ``arithmetic``, ``geometric``, ``harmonic`` or ``median``. With ``pool`` the
            calibration weighs the members anew, with ``stack`` a ridge regression moves what was blended, and a
            ``gate`` has fixed weights for Numbers.
    """

    members: tuple[Member, ...] = Field(
        default=({"name": "probe"}, {"name": "neighbours"}), min_length=1, validate_default=True
    )
    combine: Literal["pool", "blend", "stack", "gate"] = "pool"
    weights: tuple[float, ...] | None = None
    stacker: Literal["ridge", "lightgbm"] = "ridge"
    metric: str = "log_loss"
    folds: int = Field(default=5, ge=2, le=20)
    mean: Mean = "geometric"

    @model_validator(mode="after")
    def _fits_together(self) -> "Ensemble":
        if self.weights is not None:
            if len(self.weights) != len(self.members):
                raise ValueError(f"{len(self.weights)} weights for {len(self.members)} members")
            if min(self.weights) < 0 or not sum(self.weights) > 0:
                raise ValueError("weights are 0 or more, with a positive sum")
            if self.combine in ("stack", "gate"):
                raise ValueError(f"combine = {self.combine!r} finds out by itself how members count")
        if self.metric not in REGISTRIES["metric"].names():
            raise ValueError(f"there is no metric called {self.metric!r}")
        return self

    @property
    def name(self) -> str:
        """The registered name."""
        return "ensemble"

    @property
    def concurrent(self) -> bool:
        """Whether several fits may run side by side: where all members' may."""
        return all_concurrent(self.members)

    @property
    def backbone(self) -> Any:
        """That of the first member that has one; ``None`` if none has."""
        return first_backbone(self.members)

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "EnsemblePredictor":
        """Fit every member, those side by side that can be, and what combines them.

        Raises:
            PredictionError: a bundle among the members has another taxonomy, or has learnt from these products.
        """
        train = train.remembering()
        if valid is not None:
            valid = valid.remembering()
        fitted: dict[int, Predictor] = {}

        def learn(j: int) -> None:
            fitted[j] = self.members[j].fit(train, valid, machine, seed + j)

        beside = [j for j, member in enumerate(self.members) if member.concurrent]
        _side_by_side(learn, beside, machine)
        for j in range(len(self.members)):
            if j not in beside:
                learn(j)
        predictors = tuple(fitted[j] for j in range(len(self.members)))
        equal = Weights(len(self.members), train.taxonomy.hash, {})
        weights = equal if self.weights is None else Weights.fixed(train.taxonomy, self.weights)
        found = EnsemblePredictor(self, train.taxonomy, predictors, weights)
        if self.combine == "pool" or (self.combine == "blend" and self.weights is not None):
            return found
        return self._learn(found, train, machine, seed)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "EnsemblePredictor":
        """Read what ``EnsemblePredictor.save`` wrote."""
        predictors = tuple(
            member.load(directory / MEMBERS / f"{j:02}", taxonomy) for j, member in enumerate(self.members)
        )
        weights = Weights.load(directory / WEIGHTS)
        combiner: Combiner | None = None
        index, folder = None, directory / COMBINER
        if folder.is_dir() and self.combine == "stack":
            combiner = (Trees if self.stacker == "lightgbm" else Ridge).load(folder, taxonomy)
        elif folder.is_dir():
            combiner = Gate.load(folder, taxonomy, weights)
            index = TrainingIndex.load(folder, taxonomy)
        numbers = NumberStack.load(folder / NUMBERS) if (folder / NUMBERS).is_dir() else None
        return EnsemblePredictor(self, taxonomy, predictors, weights, combiner, index, numbers)

    @property
    def names(self) -> tuple[str, ...]:
        """What each member is called."""
        return called(self.members)

    def _learn(
        self, found: "EnsemblePredictor", train: Catalog, machine: Machine, seed: int
    ) -> "EnsemblePredictor":
        """Learn to combine, on members' predictions out of fold; without enough products they count alike."""
        # A table of numbers alone has no labels.
        labelled_N = train.labelled if train.labelled.any() else train.numbered
        rows = sorted(np.flatnonzero(labelled_N).tolist(), key=lambda i: (train.ids[i], i))
        part = train.select(rows)
        groups = near_duplicates(
            part, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
        )
        if len(np.unique(groups)) < self.folds:
            return found
        folds = part.folds(self.folds, groups=groups, seed=seed)
        said = []
        for j, (member, predictor) in enumerate(zip(self.members, found.members, strict=True)):
            if isinstance(predictor, HeldPredictor):  # it has not learnt from these products
                said.append(predictor.predict(part, machine))
            else:
                said.append(cross_fit(member, part, folds, machine=machine, seed=seed + j))
        return self._combined(found, said, part, groups, machine)

    def _combined(
        self,
        found: "EnsemblePredictor",
        said: Sequence[Predictions],
        part: Catalog,
        groups: Ints,
        machine: Machine,
    ) -> "EnsemblePredictor":
        metric = self.metric if self.combine == "blend" else "log_loss"
        weights, index = found.weights, None
        combiner: Combiner | None = None
        numbers: NumberStack | None = None
        if self.combine != "stack":
            weights = blend_weights(
                said, part, metric=metric, groups=groups, names=self.names, mean=self.mean
            )
        if self.combine == "stack":
            sides = side_by_side(said, self.names)
            learner = Trees if self.stacker == "lightgbm" else Ridge
            combiner = learner.learn(sides, part)
            numbers = NumberStack.learn(said, part)
        elif self.combine == "gate":
            backbone = self.backbone or REGISTRIES["backbone"].spec("lite0")
            index = learn_index(part, backbone, groups, machine)
            near_N = index.familiarity(part, machine).p_familiar
            combiner = Gate.learn(side_by_side(said, self.names), part, weights, near_N)
        return EnsemblePredictor(self, part.taxonomy, found.members, weights, combiner, index, numbers)


def _side_by_side(learn: Any, beside: Sequence[int], machine: Machine) -> None:
    """Fit several members at once, each on one thread."""
    from shelfwise.models.towers import one_thread

    workers = min(len(beside), machine.jobs or len(beside))
    if workers <= 1:
        for j in beside:
            learn(j)
        return
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        list(pool.map(learn, beside))


class EnsemblePredictor:
    """Members that answer together.

    Attributes:
        taxonomy: of all of them.
        members: their predictors.
        weights: of the members, by attribute.
        learnt: what members say they did to their training rows.
    """

    def __init__(
        self,
        recipe: Ensemble,
        taxonomy: Taxonomy,
        members: tuple[Predictor, ...],
        weights: Weights,
        combiner: Combiner | None = None,
        index: TrainingIndex | None = None,
        numbers: NumberStack | None = None,
    ) -> None:
        check_taxonomies([taxonomy, *(m.taxonomy for m in members)], ["the ensemble", *recipe.names])
        self.recipe, self.taxonomy, self.members, self.weights = recipe, taxonomy, members, weights
        self.combiner, self.index, self.numbers = combiner, index, numbers
        notes = (note for member in members for note in getattr(member, "learnt", ()))
        self.learnt: tuple[str, ...] = tuple(dict.fromkeys(notes))

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return the combined probabilities for every row; with ``pool`` the members' too, as opinions."""
        catalog = catalog.remembering()
        said = [member.predict(catalog, machine) for member in self.members]
        mean = self.recipe.mean
        if self.recipe.combine == "pool":
            return blend(said, self.weights, names=self.recipe.names, mean=mean)
        if self.combiner is None:
            found = blend(said, self.weights, names=self.recipe.names, mean=mean)
            blocks = [Block(block.category, block.rows, block.probs) for block in found.blocks]
            amounts = tuple(replace(item, opinions=()) for item in found.amounts)
            return replace(found, blocks=tuple(blocks), amounts=amounts)
        amounts = blend_numbers(said, self.taxonomy, self.weights.numbers, mean=mean, opinions=False)
        if self.numbers is not None:
            amounts = self.numbers.apply(said, amounts, self.taxonomy)
        near_N = None if self.index is None else self.index.familiarity(catalog, machine).p_familiar
        sides, blocks = side_by_side(said, self.recipe.names), []
        for side in sides.blocks:
            near_n = None if near_N is None else near_N[side.rows]
            blocks.append(Block(side.category, side.rows, self.combiner.combine(side, near_n)))
        return replace(assembled(said, sides, blocks), amounts=amounts)

    def save(self, directory: Path) -> None:
        """Write every member into a folder of its own, the weights, and what combines them."""
        for j, member in enumerate(self.members):
            folder = directory / MEMBERS / f"{j:02}"
            folder.mkdir(parents=True)
            member.save(folder)
        self.weights.save(directory / WEIGHTS)
        if self.combiner is not None:
            folder = directory / COMBINER
            folder.mkdir()
            self.combiner.save(folder)
            if self.index is not None:
                self.index.save(folder)
            if self.numbers is not None:
                (folder / NUMBERS).mkdir()
                self.numbers.save(folder / NUMBERS)
