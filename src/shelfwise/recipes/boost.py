"""Boost: gradient boosting on listing facts, text and photo vectors and cross-fitted estimates; Numbers first.

It knows neither how vectors are computed nor how answers are decided (see ``number_model`` for how a
number is learnt, ``estimates`` for what trees see beside vectors).
Legend: N rows, n of one category, V values packed.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from shelfwise.amounts import Amounts, ascending
from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, Options, TextEncoderSpec
from shelfwise.data.facts import facts_of
from shelfwise.data.group import joined, same_file, same_keys, text_keys
from shelfwise.data.text import TextOptions
from shelfwise.errors import CatalogError, require
from shelfwise.files import cache_directory, write_text
from shelfwise.models.engines import cores
from shelfwise.predictions import Machine, Predictions, uniform
from shelfwise.recipes.boost_choices import ChoiceForests, learn_choices
from shelfwise.recipes.boost_files import load_number, save_number
from shelfwise.recipes.estimates import Kind
from shelfwise.recipes.number_model import Learning, NumberModel, learn_number
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.trees import Growth, Library
from shelfwise.recipes.views import Seen, Sight, Views
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: Products that a category without any counts as, where one is guessed.
LEAST_SHARE = 1e-3


@register.recipe("boost")
class Boost(Options):
    """Boosted trees for Numbers, and for Choice attributes on request.

    Attributes:
        library: ``lightgbm``, or ``xgboost`` (extra ``xgboost``).
        inputs: what is looked at: ``image``, ``text`` or both; a product with one of the two is answered from it.
        backbone: what turns photos into vectors.
        text: what turns texts into the vectors that trees see.
        estimates: what trees see of a number beside vectors and facts: cross-fitted ``ridge`` regressions, numbers of
            the nearest ``neighbours`` by text and photo, ``means`` of brand, first and last word and category.
        objectives: of the trees that are averaged: ``l2``, ``l1``, ``huber``, on the standardised logarithm.
        blend: blend the trees with ridge and neighbours, by weights found out of fold; without, trees alone.
        siblings: products that share name, brand and quantity with products learnt from follow their prices.
        copies: also learn from copies that lack text, photo or category, so that a missing one is known.
        rounds: trees.
        learning_rate: what each tree counts.
        leaves: of a tree at most; 0 for no limit but ``depth``.
        depth: of a tree at most; 0 for no limit but ``leaves``.
        min_rows: rows of a leaf at least.
        l2: penalty of the leaves' values.
        columns: share of the features that a tree sees.
        rows: share of the rows that a tree sees.
        folds: of the cross-fit inside; near-duplicates stay together.
        clip: share of the stated numbers at each end that is drawn in to the quantile there, of rows learnt from only.
        choices: also learn Choice attributes; without, they are answered by nothing: ``unsure``.
        choice_rounds: trees of each value of a Choice attribute.
        listing: how texts are read.
    """

    concurrent: ClassVar[bool] = True

    library: Library = "lightgbm"
    inputs: tuple[Literal["image", "text"], ...] = ("image", "text")
    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )
    text: TextEncoderSpec = Field(
        default_factory=lambda: REGISTRIES["text_encoder"].spec("tfidf"), validate_default=True
    )
    estimates: tuple[Kind, ...] = ("ridge", "neighbours", "means")
    objectives: tuple[Literal["l2", "l1", "huber"], ...] = ("l2", "l1")
    blend: bool = True
    siblings: bool = True
    copies: bool = True
    rounds: int = Field(default=250, ge=1)
    learning_rate: float = Field(default=0.05, gt=0)
    leaves: int = Field(default=15, ge=0)
    depth: int = Field(default=0, ge=0)
    min_rows: int = Field(default=10, ge=1)
    l2: float = Field(default=5.0, ge=0)
    columns: float = Field(default=0.2, gt=0, le=1)
    rows: float = Field(default=0.8, gt=0, le=1)
    folds: int = Field(default=5, ge=2)
    clip: float = Field(default=0.0, ge=0, lt=0.5)
    choices: bool = False
    choice_rounds: int = Field(default=60, ge=1)
    listing: TextOptions = Field(default_factory=TextOptions)

    @model_validator(mode="after")
    def _possible(self) -> "Boost":
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives: at least one, each once, not {list(self.objectives)}")
        if not self.inputs or len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs: at least one, each once, not {list(self.inputs)}")
        if self.leaves == 1 or not (self.leaves or self.depth):
            raise ValueError("a tree needs a limit: leaves of at least 2, or a depth")
        return self

    @property
    def learns_choices(self) -> bool:
        """Whether Choice attributes are learnt; a recipe that does not say so learns them."""
        return self.choices

    @property
    def name(self) -> str:
        """The registered name."""
        return "boost"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    @property
    def sight(self) -> Sight:
        """What is looked at of products."""
        return Sight(
            self.backbone if "image" in self.inputs else None,
            self.text if "text" in self.inputs else None,
            "text" in self.inputs and bool({"ridge", "neighbours"} & set(self.estimates)),
            self.listing,
        )

    @property
    def growth(self) -> Growth:
        """How trees are grown."""
        return Growth(
            self.library,
            self.rounds,
            self.learning_rate,
            self.leaves,
            self.depth,
            self.min_rows,
            self.l2,
            self.columns,
            self.rows,
        )

    @property
    def learning(self) -> Learning:
        """How a number is learnt."""
        return Learning(self.growth, self.objectives, self.estimates, self.blend, self.siblings, self.copies)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "BoostPredictor":
        """Learn every Number from the rows that state it, in the order of their ids.

        Raises:
            CatalogError: no row states a number (or, with ``choices``, a value).
            MissingExtra: the library is not installed.
        """
        from shelfwise.models.towers import one_thread

        if self.library == "xgboost":
            require("xgboost", extra="xgboost")
        names = train.taxonomy.number_names
        teaches = train.numbered | train.labelled if self.choices else train.numbered
        rows = sorted(np.flatnonzero(teaches).tolist(), key=lambda i: (train.ids[i], i))
        if not rows:
            what = (
                "a number or a value"
                if self.choices
                else "a number; with choices = true values are learnt too"
            )
            raise CatalogError(f"{train.source}: there is nothing to learn, as no product states {what}")
        train = train.remembering().select(np.array(rows, dtype=np.int64))
        jobs = machine.jobs or cores()
        with one_thread():
            views, seen = Views.learn(self.sight, train, machine, seed)
            fold_N = inner_folds(train, self.folds, machine, seed)
            numbers = {}
            for name in names:
                stated = np.flatnonzero(np.isfinite(train.numbers(name)))
                if len(stated):
                    given = clipped(
                        train.taxonomy.number(name).forward(train.numbers(name)[stated]), self.clip
                    )
                    learn = (self.learning, seen.select(stated), given, fold_N[stated])
                    numbers[name] = learn_number(*learn, len(train.taxonomy.categories), seed, jobs)
            forests = (
                learn_choices(self.growth, self.choice_rounds, train, seen, seed) if self.choices else None
            )
        known = train.category[train.category >= 0]
        count_C = np.bincount(known, minlength=len(train.taxonomy.categories)).astype(np.float64)
        return BoostPredictor(self, train.taxonomy, views, numbers, forests, count_C + LEAST_SHARE)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "BoostPredictor":
        """Read what ``BoostPredictor.save`` wrote."""
        views = Views.load(self.sight, directory / "views")
        numbers = {}
        for at, name in enumerate(taxonomy.number_names):
            if (directory / f"number-{at}").is_dir():
                numbers[name] = load_number(
                    directory / f"number-{at}", self.library, len(taxonomy.categories)
                )
        forests = ChoiceForests.load(directory / "choices", self.library) if self.choices else None
        count_C = np.array(json.loads((directory / "categories.json").read_text(encoding="utf-8")))
        return BoostPredictor(self, taxonomy, views, numbers, forests, count_C)


def inner_folds(train: Catalog, k: int, machine: Machine, seed: int) -> Ints:
    """Return int64 [N], folds that keep the same photo, title and product code together.

    Photos that merely look alike are not linked: that takes long, and adds a few pairs in thousands.
    """
    facts = facts_of(
        train.images, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
    )
    photo_N = same_file(facts)
    links = [same_keys([None if photo < 0 else photo for photo in photo_N.tolist()])]
    links += [same_keys(column) for column in text_keys(train)]
    first, second = np.concatenate(links, axis=1)
    group_N = joined(first, second, len(train))
    groups = int(group_N.max()) + 1
    fold_G = np.random.default_rng(seed).permutation(np.arange(groups) % min(k, groups))
    return np.asarray(fold_G[group_N], dtype=np.int64)


def clipped(standard_n: npt.NDArray[np.float64], share: float) -> npt.NDArray[np.float64]:
    """Draw the ends of standardised numbers in to their quantiles."""
    return np.clip(standard_n, *np.quantile(standard_n, (share, 1 - share))) if share else standard_n


class BoostPredictor:
    """Boosted trees ready to answer."""

    def __init__(
        self,
        recipe: Boost,
        taxonomy: Taxonomy,
        views: Views,
        numbers: Mapping[str, NumberModel],
        forests: ChoiceForests | None,
        count_C: npt.NDArray[np.float64],
    ) -> None:
        self.recipe, self.taxonomy, self.views = recipe, taxonomy, views
        self.numbers, self.forests, self.count_C = numbers, forests, count_C

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return a distribution of every Number for every row that may have it, and probabilities of values."""
        seen = self.views.see(catalog, machine)

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            return self._guess(seen.select(rows))

        def answer(category: str, rows: Ints) -> Floats:
            if self.forests is None:
                return uniform(self.taxonomy, category, len(rows))
            return self.forests.answer(self.taxonomy, category, seen.select(rows))

        found = assemble(
            catalog, self.taxonomy, route(catalog, self.taxonomy, seen.errors, guess), answer, seen.notes
        )
        amounts = []
        for name, model in self.numbers.items():
            rows = np.flatnonzero(catalog.having(name)).astype(np.int64)
            if len(rows):
                number = self.taxonomy.number(name)
                quantiles_nQ = number.inverse(model.quantiles(seen.select(rows)))
                amounts.append(Amounts(name, rows, ascending(quantiles_nQ)))
        return replace(
            found, amounts=tuple(amounts), unsure=self._unsure(found) if self.forests is None else {}
        )

    def _unsure(self, found: Predictions) -> dict[int, tuple[str, ...]]:
        """Every Choice attribute of every row, where none was learnt."""
        names = {
            block.category: tuple(choice.name for choice in self.taxonomy.choices(block.category))
            for block in found.blocks
        }
        return {row: names[b.category] for b in found.blocks for row in b.rows.tolist() if names[b.category]}

    def _guess(self, seen: Seen) -> tuple[Ints, Floats]:
        """Categories by the vote of the nearest products learnt from, with the shares as a prior of one vote."""
        prior_C = self.count_C / self.count_C.sum()
        votes_NC = np.tile(prior_C, (len(seen), 1))
        kept = next((m.estimates.neighbours for m in self.numbers.values() if m.estimates.neighbours), None)
        if kept is not None:
            both = kept.terms.shape[1] and kept.photos.shape[1]
            kind = "both" if both else "text" if kept.terms.shape[1] else "photo"
            near_NK, alike_NK = kept.near(seen, (kind,))[kind]
            for k in range(min(10, near_NK.shape[1])):
                code_N = kept.category[near_NK[:, k]]
                known = code_N >= 0
                np.add.at(
                    votes_NC, (np.flatnonzero(known), code_N[known]), np.maximum(alike_NK[known, k], 0.0) ** 2
                )
        votes_NC /= votes_NC.sum(axis=1, keepdims=True)
        return votes_NC.argmax(axis=1), votes_NC.max(axis=1).astype(np.float32)

    def save(self, directory: Path) -> None:
        """Write everything: trees as text, arrays as safetensors, words as JSON."""
        (directory / "views").mkdir()
        self.views.save(directory / "views")
        for at, name in enumerate(self.taxonomy.number_names):
            if name in self.numbers:
                (directory / f"number-{at}").mkdir()
                save_number(directory / f"number-{at}", self.numbers[name])
        if self.forests is not None:
            (directory / "choices").mkdir()
            self.forests.save(directory / "choices")
        write_text(directory / "categories.json", json.dumps(self.count_C.tolist()) + "\n")
