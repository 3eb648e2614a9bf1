"""A catalogue with prices, a recipe that learns them from category and pack, and bundles of it.

Importing this module registers the recipe ``by_category``.
"""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl

import shelfwise as sw
from shelfwise.amounts import LEVELS, Amounts
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.parts import Parts
from shelfwise.recipes.routing import assemble, route
from shelfwise.registry import register
from shelfwise.roles import Columns
from shelfwise.taxonomy import Taxonomy
from shelfwise.testing import toy_catalog

ATTRIBUTES = ("colour", "size", "pattern")
#: What one piece costs, by category.
PIECE = {"Cups": 180.0, "Plates": 420.0, "Towels": 900.0}
#: Rows whose price is ten times, and a tenth of, what it should be.
SLIPPED = {17: 10.0, 40: 0.1}


def pack(title: str | None) -> int:
    found = re.search(r"pack of (\d+)", title or "")
    return int(found.group(1)) if found else 1


@register.recipe("by_category")
class ByCategory(Options):
    """Prices by category and pack: a test's recipe.

    Attributes:
        narrow: how many times too narrow its distributions are.
    """

    concurrent: ClassVar[bool] = True
    narrow: float = 1.5

    @property
    def name(self) -> str:
        return "by_category"

    @property
    def backbone(self) -> Any:
        return sw.backbone("toy")

    def table(self) -> dict[str, Any]:
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "Predictor":
        learnt: dict[str, dict[str, list[float]]] = {}
        for name in train.taxonomy.number_names:
            each = np.log(train.numbers(name) / np.array([pack(t) for t in titles(train)]))
            parts = {"": each, **{c: each[train.rows(c)] for c in train.present}}
            learnt[name] = {
                c: np.quantile(part[np.isfinite(part)], LEVELS).tolist()
                for c, part in parts.items()
                if np.isfinite(part).any()
            }
        return Predictor(self, train.taxonomy, learnt)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "Predictor":
        return Predictor(self, taxonomy, json.loads((directory / "prices.json").read_text()))


class Predictor:
    def __init__(
        self, recipe: ByCategory, taxonomy: Taxonomy, learnt: dict[str, dict[str, list[float]]]
    ) -> None:
        self.recipe, self.taxonomy, self.prices = recipe, taxonomy, learnt

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        routes = route(
            catalog,
            self.taxonomy,
            catalog.image_errors,
            lambda rows: (np.zeros(len(rows), np.int64), np.full(len(rows), 0.5, np.float32)),
        )
        found = assemble(
            catalog, self.taxonomy, routes, lambda name, rows: np.zeros((len(rows), 0), np.float32)
        )
        packs, amounts = np.array([pack(title) for title in titles(catalog)]), []
        names = (*self.taxonomy.categories, "")
        for name, learnt in self.prices.items():
            rows = np.flatnonzero(catalog.having(name))
            each = np.array([learnt.get(names[max(catalog.category[row], -1)], learnt[""]) for row in rows])
            middle = np.median(each, axis=1, keepdims=True)
            narrow = middle + (each - middle) / self.recipe.narrow
            quantiles = np.exp(narrow) * packs[rows, None]
            amounts.append(Amounts(name, rows, quantiles.astype(np.float32)))
        return Predictions(
            self.taxonomy, catalog.ids, found.blocks, found.errors, found.guessed, amounts=tuple(amounts)
        )

    def save(self, directory: Path) -> None:
        (directory / "prices.json").write_text(json.dumps(self.prices))


def titles(catalog: Catalog) -> list[str | None]:
    return catalog.texts("title") if "title" in catalog.frame.columns else [None] * len(catalog)


def priced_table(directory: Path, products: int = 180, second: bool = False) -> Path:
    """Write the toy table with packs in its titles, prices that follow them, two slips and one text with a price."""
    path = toy_catalog(directory, products=products)
    frame = pl.read_csv(path, infer_schema=False)
    rng = np.random.default_rng(5)
    packs = rng.choice([1, 1, 2, 3, 6, 12], len(frame))
    price = np.array([PIECE[c] for c in frame["category"]]) * packs**0.95
    price *= np.exp(0.12 * rng.standard_t(8, len(frame)))
    for row, times in SLIPPED.items():
        price[row] *= times
    stated = [f"{value:.0f}" if at % 11 else "" for at, value in enumerate(price.tolist())]
    named = [
        f"{title}, pack of {count}" if count > 1 else str(title)
        for title, count in zip(frame["title"], packs.tolist(), strict=True)
    ]
    named[3] += ", only Rs. 899"
    columns = {"title": named, "price": stated}
    if second:
        columns["cost"] = [f"{value / 3:.0f}" if at % 13 else "" for at, value in enumerate(price.tolist())]
    frame.with_columns(*(pl.Series(name, cells) for name, cells in columns.items())).write_csv(path)
    return path


def read(table: Path, only: bool = True) -> Catalog:
    """The table with its prices in rupees; only them, or its attributes too."""
    ignored = Columns(ignore=ATTRIBUTES) if only else Columns()
    return Catalog.read(table, columns=ignored, units={"price": "INR"})


def fitted(catalog: Catalog, machine: Machine, only: bool = True, **options: Any) -> Bundle:
    recipe: Any = ByCategory()
    if not only:
        recipe = Parts(choices=sw.Probe(backbone=sw.backbone("toy")), numbers=recipe)
    return sw.fit(catalog, recipe, evidence=3, machine=machine, random_split=False, curve=False, **options)
