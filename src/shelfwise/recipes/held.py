"""Held: a fitted bundle as the member of an ensemble; it answers as it does by itself and learns nothing more.

It knows the files of a bundle that it needs, not what else a bundle does. Its word is calibrated, as the bundle's is.
"""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, PlainSerializer, ValidationError

from shelfwise.catalog import Catalog
from shelfwise.config import Options, make_recipe
from shelfwise.errors import BundleError, ConfigError, PredictionError, ShelfwiseError
from shelfwise.manifest import DECISION, EVIDENCE, INDEX, OPTIONS, read_index, read_json
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.index import FILE as INDEX_FILE
from shelfwise.recipes.index import TrainingIndex
from shelfwise.recipes.remapped import load_remapped
from shelfwise.recipes.sides import check_taxonomies
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.decide import Rule
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.learnt import evidence_rows, learnt_rows


class Held(Options):
    """A bundle as a member.

    Attributes:
        bundle: its directory. An ensemble that is saved keeps a copy, so the path is read only when one is fitted.
    """

    concurrent: ClassVar[bool] = True

    bundle: Path

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.bundle)

    def table(self) -> dict[str, Any]:
        """Return the TOML table."""
        return {"bundle": str(self.bundle)}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "HeldPredictor":
        """Read the bundle; nothing is learnt.

        Raises:
            BundleError: no bundle there, or one that is broken.
            PredictionError: it has another taxonomy, or has learnt from these products.
        """
        found = read_held(self.bundle)
        check_taxonomies([train.taxonomy, found.taxonomy], [train.source, self.name])
        known_N = found.learnt_from(train)
        if known_N.any():
            first = train.ids[int(np.flatnonzero(known_N)[0])]
            raise PredictionError(
                f"{self.name} has learnt from {int(known_N.sum()):,} of the products of {train.source}, such as "
                f"{first!r}: nothing it says of them is out of fold. Combine fitted bundles with: shelfwise blend, "
                "or give the member's recipe in place of the bundle"
            )
        return found

    def load(self, directory: Path, taxonomy: Taxonomy) -> "HeldPredictor":
        """Read the copy that an ensemble keeps."""
        return read_held(directory, check=False)


def all_concurrent(members: Sequence[Held | Recipe]) -> bool:
    """Return whether several fits of recipes with these members may run side by side: where all members' may."""
    return all(member.concurrent for member in members)


def first_backbone(members: Sequence[Held | Recipe]) -> Any:
    """Return the backbone of the first member that has one; ``None`` if none has."""
    found = (getattr(member, "backbone", None) for member in members)
    return next((backbone for backbone in found if backbone is not None), None)


def called(members: Sequence[Held | Recipe]) -> tuple[str, ...]:
    """Return what each member is called."""
    return tuple(f"member {j:02} ({member.name})" for j, member in enumerate(members))


def _member(value: Any) -> Any:
    """A recipe from its table, a bundle from its path."""
    if isinstance(value, Held | Recipe):
        return value
    if isinstance(value, str | Path):
        return Held(bundle=Path(value))
    if not isinstance(value, Mapping):
        raise ValueError(f"a member is a recipe's table, or the path of a bundle, not {value!r}")
    try:
        return make_recipe(value) if "bundle" not in value else Held.model_validate(dict(value))
    except ValidationError as error:
        raise ValueError("a bundle as a member has nothing but its path: { bundle = PATH }") from error
    except ConfigError as error:
        lines = [line.strip().removeprefix("recipe.") for line in str(error).splitlines()]
        raise ValueError("; ".join(lines)) from error


Member = Annotated[Any, BeforeValidator(_member), PlainSerializer(lambda member: member.table())]


class HeldPredictor:
    """A bundle's predictor and calibration.

    Attributes:
        taxonomy: the bundle's.
        directory: where it lies.
        predictor: what it learnt.
        rule: its calibration; ``None`` where it has none.
    """

    def __init__(self, directory: Path, taxonomy: Taxonomy, predictor: Predictor, rule: Rule | None) -> None:
        self.directory, self.taxonomy, self.predictor, self.rule = directory, taxonomy, predictor, rule

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return calibrated probabilities; attributes that were never learnt are ``unsure``."""
        found = self.predictor.predict(catalog, machine)
        return found if self.rule is None else self._without_untrained(self.rule.calibrated(found))

    def out_of_fold(self, catalog: Catalog, machine: Machine) -> tuple[Predictions, npt.NDArray[np.bool_]]:
        """Return calibrated probabilities, and bool [N], the products they can be judged on.

        Those of products it learnt from are as its evidence has them: of models that had not seen their group. A
        product it learnt from that is not in the evidence, such as one beside a holdout, cannot be judged.

        Raises:
            BundleError: it keeps no evidence, so what it learnt from is not known.
        """
        evidence = self.evidence
        if evidence is None or not (self.directory / INDEX_FILE).is_file():
            raise BundleError(f"{self.directory} keeps no evidence, so it cannot be weighed; fit it again")
        known_N = learnt_rows(catalog, evidence)
        fair_N = known_N | ~self.learnt_from(catalog)
        known, others = np.flatnonzero(known_N), np.flatnonzero(~known_N)
        parts = []
        if len(known):
            kept = out_of_fold(evidence).predictions()
            parts.append((known, kept.select(evidence_rows(catalog, evidence)[known])))
        if len(others):
            parts.append((others, self.predict(catalog.select(others), machine)))
        return self._without_untrained(Predictions.join(parts, catalog.ids)), fair_N

    def learnt_from(self, catalog: Catalog) -> npt.NDArray[np.bool_]:
        """Return bool [N], the products it has learnt from: those in its evidence, and others of its index by id."""
        known_N, seen, evidence = np.zeros(len(catalog), bool), set[str](), self.evidence
        if (self.directory / INDEX_FILE).is_file():
            seen = set(TrainingIndex.load(self.directory, self.taxonomy).ids)
        if evidence is not None:
            known_N = learnt_rows(catalog, evidence)
            seen -= {evidence.ids[row] for block in evidence.blocks for row in block.rows.tolist()}
        found: npt.NDArray[np.bool_] = known_N | np.array([id_ in seen for id_ in catalog.ids], bool)
        return found

    def _without_untrained(self, found: Predictions) -> Predictions:
        """Mark attributes that were never learnt as unsure: another member may know them."""
        untrained = frozenset() if self.rule is None else self.rule.untrained
        unsure = dict(found.unsure)
        for block in found.blocks if untrained else ():
            choices = self.taxonomy.choices(block.category)
            names = tuple(c.name for c in choices if (block.category, c.name) in untrained)
            for row in block.rows.tolist() if names else ():
                unsure[row] = tuple(dict.fromkeys((*unsure.get(row, ()), *names)))
        return replace(found, unsure=unsure)

    @cached_property
    def evidence(self) -> Evidence | None:
        """The bundle's evidence, ``None`` where it keeps none."""
        path = self.directory / EVIDENCE
        return Evidence.load(path) if path.is_file() else None

    def save(self, directory: Path) -> None:
        """Copy the whole bundle.

        Raises:
            BundleError: it is gone, or was changed since.
        """
        read_index(self.directory)
        shutil.copytree(self.directory, directory, dirs_exist_ok=True)


def read_held(directory: Path, *, check: bool = True) -> HeldPredictor:
    """Read a bundle as a member.

    Args:
        directory: of the bundle.
        check: compare every file with its SHA-256; an ensemble's own list covers its members already.

    Raises:
        BundleError: no bundle there, or one that is broken or of another format.
    """
    index = read_index(directory) if check else read_json(directory / INDEX)
    try:
        taxonomy = Taxonomy.load(directory / "taxonomy.json")
        table = tomllib.loads((directory / OPTIONS).read_text(encoding="utf-8"))
        recipe = make_recipe(table["recipe"])
        there = DECISION in index["files"]
        rule = Rule.from_table(read_json(directory / DECISION), str(directory / DECISION)) if there else None
        migrated = bool(index.get("migrated_from"))
    except BundleError:
        raise
    except (KeyError, TypeError, ValueError, OSError, ConfigError, ShelfwiseError) as error:
        raise BundleError(f"{directory}: not a bundle this version can read: {error}") from error
    predictor = load_remapped(recipe, directory, taxonomy) if migrated else recipe.load(directory, taxonomy)
    return HeldPredictor(directory, taxonomy, predictor, rule)
