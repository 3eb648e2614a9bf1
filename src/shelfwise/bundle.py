"""Bundle: one directory that answers: predictor, report, card.

It does not know how its predictor learnt. A bundle holds no pickle and no code; it loads without a
network, and every file is checked against the SHA-256 in ``bundle.json`` before it is used.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.answers import Answers
from shelfwise.card import card
from shelfwise.catalog import Catalog, Schema
from shelfwise.config import RunOptions, make_recipe, run_options, to_toml
from shelfwise.data.unit_prices import with_unit_prices
from shelfwise.errors import BundleError, ConfigError, UsageError
from shelfwise.files import replacing_directory
from shelfwise.manifest import (
    CLAIMS,
    DECISION,
    EVIDENCE,
    FORMAT,
    INDEX,
    PHOTOS,
    check_target,
    listed,
    read_index,
    read_json,
    write_index,
)
from shelfwise.models.exported import Exported
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.index import FILE as INDEX_FILE
from shelfwise.recipes.index import TrainingIndex
from shelfwise.recipes.remapped import Remapped, load_remapped
from shelfwise.recipes.several import ALIKE, Shown, Voting, disputed, readable_of, vote
from shelfwise.report import Report
from shelfwise.roles import Columns, Layout, Roles
from shelfwise.single import one_product
from shelfwise.speed import Speed
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.claims import Reader
from shelfwise.trust.decide import Rule
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.promise import Promise, promise


@dataclass(frozen=True, eq=False)
class Bundle:
    """Something that answers.

    Attributes:
        schema: how tables are read and answers laid out.
        recipe: the options it was learnt with.
        predictor: what was learnt.
        report: what to expect on unseen products, measured out of fold.
        run: the run file with every default written out.
        evidence: out-of-fold probabilities beside the truth; any promise is worked out from it.
        rule: how probabilities become answers.
        index: the products learnt from: look-alikes, familiarity.
        claims: what listing texts state, if the training table had texts.
        voting: how the photos of a product that has several are weighed.
        exported: what its backbones were converted to, for other engines than torch; see ``export``.
        speed: how fast it was when it was measured; see ``speed``.
    """

    schema: Schema
    recipe: Recipe
    predictor: Predictor
    report: Report
    run: RunOptions
    evidence: Evidence | None = None
    rule: Rule | None = None
    index: TrainingIndex | None = None
    claims: Reader | None = None
    voting: Voting = ALIKE
    exported: Exported | None = None
    speed: Speed | None = None

    @property
    def taxonomy(self) -> Taxonomy:
        """Categories, attributes, values."""
        return self.schema.taxonomy

    @property
    def migrated_from(self) -> tuple[str, ...]:
        """Hashes of the taxonomies it answered under before, the first one first; none where it was fitted."""
        return self.predictor.history if isinstance(self.predictor, Remapped) else ()

    @property
    def untrained(self) -> frozenset[tuple[str, str]]:
        """Every (category, attribute) that came with a change of the taxonomy and has not been learnt."""
        return self.predictor.untrained if isinstance(self.predictor, Remapped) else frozenset()

    @property
    def untrained_values(self) -> frozenset[tuple[str, str, str]]:
        """Every (category, attribute, value) of a learnt attribute that has not been learnt itself."""
        return self.predictor.untrained_values if isinstance(self.predictor, Remapped) else frozenset()

    def read(
        self,
        source: Any,
        *,
        images: str | Path | None = None,
        columns: Columns | None = None,
        photos: Any = None,
    ) -> Catalog:
        """Read a table as the training table was read.

        Raises:
            CatalogError: as ``Catalog.read``.
        """
        # Remembering: what is computed of the pictures serves answers, familiarity and look-alikes alike.
        given = {"images": images, "columns": columns, "photos": photos}
        return Catalog.read(source, schema=self.schema, **given).remembering()

    def on(self, machine: Machine | None) -> Machine:
        """Return a machine that knows what the bundle was exported to, unless it was told of others."""
        found = machine or Machine()
        return found if found.exported is not None else replace(found, exported=self.exported)

    def predict(self, catalog: Catalog, machine: Machine | None = None) -> Predictions:
        """Return calibrated probabilities for every product, and how familiar its picture is."""
        found, _ = self._predict(catalog.under(self.schema).remembering(), self.on(machine))
        return found if self.rule is None else self.rule.calibrated(found)

    def _predict(
        self, catalog: Catalog, machine: Machine
    ) -> tuple[Predictions, Mapping[int, tuple[str, ...]] | None]:
        """Predict every product, one with several photos by their vote; and what its photos disagree about."""
        if not catalog.photos:
            return self._seen(catalog, machine), None
        shown = Shown.of(catalog)
        found = self._seen(shown.catalog, machine)
        sure, known = (
            found if self.rule is None else self.rule.calibrated(found),
            readable_of(found.familiarity),
        )
        return vote(found, shown, self.voting, known), disputed(sure, shown, known)

    def _seen(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Predict every row by one photo."""
        found = self.predictor.predict(catalog, machine)
        if self.index is None:
            return found
        return replace(found, familiarity=self.index.familiarity(catalog, machine))

    @cached_property
    def calibrated(self) -> Evidence | None:
        """The evidence with calibrated probabilities, each row's by a calibration fitted without its fold."""
        return None if self.evidence is None else out_of_fold(self.evidence)

    def promise(
        self, precision: float | None = None, confidence: float | None = None, over: str | None = None
    ) -> Promise:
        """Find the thresholds that keep a promise; what is left out is as the run file has it.

        Raises:
            BundleError: the bundle keeps no evidence to make promises from.
            UsageError: no precision, or numbers outside (0, 1).
        """
        given = self.run.decide
        precision = given.precision if precision is None else precision
        if self.calibrated is None or self.rule is None:
            raise BundleError("this bundle keeps no evidence, so it cannot promise a precision; fit it again")
        if precision is None:
            raise UsageError("a promise needs a precision, such as 0.95")
        confidence = given.confidence if confidence is None else confidence
        asked = precision, confidence, over or given.over
        if asked not in self._promises:
            self._promises[asked] = promise(self.calibrated, *asked, self.rule.untrained)
        return self._promises[asked]

    @cached_property
    def _promises(self) -> dict[tuple[float, float, str], Promise]:
        return {}

    def answer(
        self,
        catalog: Catalog,
        *,
        precision: float | None = None,
        confidence: float | None = None,
        over: str | None = None,
        every_cell: bool = False,
        keep_stated: bool = False,
        machine: Machine | None = None,
    ) -> Answers:
        """Answer cells from photo and text, never from the stated cell.

        Args:
            catalog: the products, read by ``read`` or by ``Catalog.read``.
            precision: answer only what is right this often (``trust.promise``); by default as the run file says,
                which is every cell if it says nothing.
            confidence: how sure the promise is to be.
            over: what keeps it: ``attribute``, ``attribute-alone`` or ``catalogue``.
            every_cell: answer every cell, whatever the promise and familiarity say.
            keep_stated: copy stated values and answer empty cells only.
            machine: where to compute.

        Raises:
            BundleError, UsageError: as ``promise``.
        """
        catalog = catalog.under(self.schema).remembering()
        promised = precision is not None or self.run.decide.precision is not None
        kept = self.promise(precision, confidence, over) if promised and not every_cell else None
        found, apart = self._predict(catalog, self.on(machine))
        if self.rule is None:
            answers = found.answers()
        else:
            answers = self.rule.answers(found, kept, every_cell=every_cell, alarm=self.run.decide.alarm)
        if kept is not None:
            answers = replace(answers, notes=(*answers.notes, str(kept)))
        field = catalog.schema.roles.category
        cells = tuple(catalog.frame[field].to_list()) if field else ()
        amounts = with_unit_prices(answers.amounts, catalog)
        layout = self.schema.layout
        answers = replace(answers, categories=cells, layout=layout, amounts=amounts, disputed=apart)
        return answers.keep_stated(catalog) if keep_stated else answers

    def look_alikes(
        self, catalog: Catalog, k: int, *, stating: str | None = None, machine: Machine | None = None
    ) -> pl.DataFrame:
        """Name the k training products that look most like each product.

        Args:
            catalog: the products.
            k: how many.
            stating: a Number: only products that state it, such as comparables with a price.
            machine: where to compute.

        Returns:
            ``row, id, rank, look_alike, similarity``, the nearest first, and a column for the Number that they are to
            state; rows without a readable picture have none.

        Raises:
            BundleError: the bundle keeps no index of its training products.
        """
        if self.index is None:
            raise BundleError("this bundle keeps no index of its training products; fit it again")
        stated_M = None if stating is None else self._stated(stating, self.index.ids)
        among = None if stated_M is None else np.isfinite(stated_M)
        found = self.index.look_alikes(catalog.under(self.schema), k, self.on(machine), among)
        rows, ranks = (found.positions >= 0).nonzero()
        near = found.positions[rows, ranks]
        return pl.DataFrame(
            {
                "row": rows + 1,
                "id": [catalog.ids[row] for row in rows.tolist()],
                "rank": ranks + 1,
                "look_alike": [self.index.ids[at] for at in near.tolist()],
                "similarity": found.similarity[rows, ranks].astype(float).round(4),
                **({} if stating is None or stated_M is None else {stating: stated_M[near]}),
            }
        )

    def _stated(self, name: str, ids: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return what training products state of a Number, NaN for none."""
        self.taxonomy.number(name)
        items = () if self.evidence is None else self.evidence.amounts
        item = next((each for each in items if each.name == name), None)
        if item is None or self.evidence is None:
            raise BundleError(f"this bundle keeps no evidence of {name!r}; fit it again")
        names = (self.evidence.ids[row] for row in item.rows.tolist())
        stated = dict(zip(names, item.truth.tolist(), strict=True))
        return np.array([stated.get(id_, np.nan) for id_ in ids])

    def with_notes(self, *notes: str) -> "Bundle":
        """Return the bundle with sentences added to its report."""
        return replace(self, report=self.report.with_notes(*notes))

    def answer_one(
        self,
        image: str | Path | Sequence[str | Path] | None = None,
        *,
        text: str | Mapping[str, str] | None = None,
        category: str | None = None,
        id: str | None = None,
        precision: float | None = None,
        machine: Machine | None = None,
    ) -> dict[str, Any]:
        """Answer one product.

        Args:
            image: the file of its photo, or of several; Numbers are answered without one too.
            text: what is written of it: a mapping of the training table's text columns, or one text for the first of
                them (a title, where there is one).
            category: the product's category; predicted if left out.
            id: by default the file's name without its ending.
            precision: as in ``answer``.
            machine: where to compute.

        Returns:
            ``{id, category, looks_like, answers, error}``: ``looks_like`` is the category of the most similar
            training product, ``answers`` as ``Answers.of`` returns them.

        Raises:
            TaxonomyError: an unknown category.
            UsageError: a text for a column that the training table did not have.
        """
        found = one_product(self.schema, image, text=text, category=category, id=id)
        answers = self.answer(found, precision=precision, machine=machine)
        error = answers.errors.get(0)
        block = answers.blocks[0] if answers.blocks else None
        code = -1 if answers.likelier is None else int(answers.likelier[0])
        return {
            "id": found.ids[0],
            "category": block.category if block else category,
            "looks_like": self.taxonomy.categories[code] if code >= 0 else None,
            "answers": answers.of(0),
            "error": None if error is None else error.message,
        }

    def save(self, path: str | Path) -> None:
        """Write the bundle directory, whole or not at all; an older bundle there is replaced.

        Raises:
            BundleError: ``path`` is there and is not a bundle.
        """
        path = Path(path)
        check_target(path)
        with replacing_directory(path) as folder:
            self.taxonomy.save(folder / "taxonomy.json")
            (folder / "recipe.toml").write_text(to_toml(run_table(self.run)), encoding="utf-8")
            (folder / "report.json").write_text(self.report.to_json() + "\n", encoding="utf-8")
            self.predictor.save(folder)
            self._save_trust(folder)
            (folder / "card.md").write_text(card(self), encoding="utf-8")
            files = listed(folder)
            index = {
                "format": FORMAT,
                "library": version("shelfwise"),
                "recipe": self.recipe.name,
                "roles": self.schema.roles.table(),
                "layout": self.schema.layout.table(),
                "missing": list(self.schema.missing),
                "files": files,
                **({"migrated_from": list(self.migrated_from)} if self.migrated_from else {}),
            }
            write_index(folder, index)

    def _save_trust(self, folder: Path) -> None:
        if self.evidence is not None:
            self.evidence.save(folder / EVIDENCE)
        if self.rule is not None:
            text = json.dumps(self.rule.table(), ensure_ascii=False)
            (folder / DECISION).write_text(text + "\n", encoding="utf-8")
        if self.index is not None:
            self.index.save(folder)
        if self.claims is not None:
            self.claims.save(folder / CLAIMS)
        if self.speed is not None:
            self.speed.save(folder)
        if self.voting.roles:
            text = json.dumps({"roles": dict(self.voting.roles)}, ensure_ascii=False)
            (folder / PHOTOS).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Bundle":
        """Read a bundle.

        Raises:
            BundleError: it is not there, incomplete, changed since it was written, or of another format.
        """
        path = Path(path)
        index = read_index(path)
        try:
            taxonomy = Taxonomy.load(path / "taxonomy.json")
            table = tomllib.loads((path / "recipe.toml").read_text(encoding="utf-8"))
            run = run_options(table, str(path / "recipe.toml"))
            recipe: Recipe = make_recipe(run.recipe)
            report = Report.from_json((path / "report.json").read_text(encoding="utf-8"))
            roles, layout = Roles.from_table(index["roles"]), Layout.from_table(index["layout"])
            schema = Schema(taxonomy, roles, layout, tuple(index["missing"]))
            migrated_from = tuple(map(str, index.get("migrated_from", ())))
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise BundleError(f"{path}: not a bundle this version can read: {error}") from error
        predictor = load_remapped(recipe, path, taxonomy) if migrated_from else recipe.load(path, taxonomy)
        if isinstance(predictor, Remapped) and predictor.history != migrated_from:
            raise BundleError(f"{path / INDEX}: migrated_from does not match the mapping that is saved")
        evidence = Evidence.load(path / EVIDENCE) if EVIDENCE in index["files"] else None
        there = DECISION in index["files"]
        rule = Rule.from_table(read_json(path / DECISION), str(path / DECISION)) if there else None
        training = TrainingIndex.load(path, taxonomy) if INDEX_FILE in index["files"] else None
        claims = Reader.load(path / CLAIMS, taxonomy) if CLAIMS in index["files"] else None
        weights = read_json(path / PHOTOS) if PHOTOS in index["files"] else {"roles": {}}
        voting = Voting.from_table(weights, str(path / PHOTOS))
        found = cls(schema, recipe, predictor, report, run, evidence, rule, training, claims, voting)
        return replace(found, exported=Exported.load(path), speed=Speed.load(path))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the bundle is, for printing."""
        pairs = list(self.taxonomy.pairs())
        line = self.report.expected
        untrained = (
            f"{len(self.untrained)} attributes, {len(self.untrained_values)} values"
            if self.migrated_from
            else ""
        )
        return {
            "recipe": self.recipe.name,
            "categories": len(self.taxonomy.categories),
            "attributes": len(pairs),
            "values": sum(len(choice.values) for _, choice in pairs),
            "numbers": sorted({n.name for c in self.taxonomy.categories for n in self.taxonomy.numbers(c)}),
            "metric": self.report.metric,
            "score": line.score,
            "interval": [line.low, line.high],
            "layout": self.schema.layout.kind,
            "taxonomy": self.taxonomy.hash,
            **({"migrated_from": self.migrated_from[-1], "untrained": untrained} if untrained else {}),
        }


def run_table(run: RunOptions) -> dict[str, Any]:
    """Return a run as its TOML table, recipe options filled in."""
    table = run.table()
    table["recipe"] = make_recipe(run.recipe).table()
    return table


def load(path: str | Path) -> Bundle:
    """Read a bundle; the same as ``Bundle.load``."""
    return Bundle.load(path)
