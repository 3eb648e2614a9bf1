"""Routing: which rows of a table a predictor can answer, and as what category.

It knows categories and errors, not features. Every row comes out in exactly one category or with an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY, UNKNOWN
from shelfwise.errors import ImageError, PredictionError, suggest
from shelfwise.predictions import Block, Floats, Predictions
from shelfwise.taxonomy import Taxonomy

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Routes:
    """Where every row goes.

    Attributes:
        rows: category name to int64 [n], ascending positions.
        errors: row position to why it has no answer.
        guessed: row position to the probability of its predicted category.
    """

    rows: Mapping[str, Rows]
    errors: Mapping[int, RowError]
    guessed: Mapping[int, float]


def route(
    catalog: Catalog,
    taxonomy: Taxonomy,
    unreadable: Mapping[int, ImageError | RowError],
    guess: Callable[[Rows], tuple[npt.NDArray[np.int64], Floats]],
) -> Routes:
    """Settle the category of every row.

    Args:
        catalog: the products.
        taxonomy: the predictor's.
        unreadable: row position to what is wrong with its picture, or with what else it is to be answered from.
        guess: given rows without a category, returns their category codes and the probability of each.

    Raises:
        PredictionError: the catalogue was read under another taxonomy.
    """
    if catalog.taxonomy.hash != taxonomy.hash:
        raise PredictionError(
            f"{catalog.source} was read under another taxonomy ({catalog.taxonomy.hash[:12]}) "
            f"than the predictor's ({taxonomy.hash[:12]}): read it with schema=bundle.schema"
        )
    field = catalog.schema.roles.category or "category"
    image_field = catalog.schema.roles.image or "image"
    category = catalog.category.astype(np.int64)
    errors: dict[int, RowError] = {}
    for row in np.flatnonzero(category == UNKNOWN).tolist():
        name = catalog.frame[field][row]
        errors[row] = RowError(
            field, f"there is no category {name!r}. {suggest(name, taxonomy.categories)}".rstrip()
        )
    for row, error in unreadable.items():
        if isinstance(error, ImageError):
            error = RowError(image_field, f"{error.kind}: {error}")
        errors.setdefault(row, error)
    open_rows = np.array(
        [r for r in np.flatnonzero(category == EMPTY).tolist() if r not in errors], dtype=np.int64
    )
    guessed: dict[int, float] = {}
    if len(open_rows):
        codes, probability = guess(open_rows)
        category[open_rows] = codes
        guessed = dict(zip(open_rows.tolist(), probability.astype(float).tolist(), strict=True))
    category[list(errors)] = UNKNOWN
    order = np.argsort(category, kind="stable")
    values, starts = np.unique(category[order], return_index=True)
    parts = np.split(order, starts[1:])[: len(values)]
    names = taxonomy.categories
    rows = {names[int(v)]: np.sort(p) for v, p in zip(values, parts, strict=True) if v >= 0}
    return Routes(rows, errors, guessed)


def assemble(
    catalog: Catalog,
    taxonomy: Taxonomy,
    routes: Routes,
    answer: Callable[[str, Rows], Floats | tuple[Floats, ...]],
    notes: tuple[str, ...] = (),
) -> Predictions:
    """Ask for the probabilities of each category's rows and put the blocks together.

    Args:
        catalog: the products.
        taxonomy: the predictor's.
        routes: from ``route``.
        answer: given a category and positions [n], returns float32 [n, V]; or several: the first are the
            probabilities, the others the opinions they were made of.
        notes: for the user.
    """
    blocks = []
    for name, rows in sorted(routes.rows.items()):
        if len(rows):
            found = answer(name, rows)
            probs, *opinions = found if isinstance(found, tuple) else (found,)
            blocks.append(Block(name, rows, probs, tuple(opinions)))
    return Predictions(taxonomy, catalog.ids, tuple(blocks), routes.errors, routes.guessed, notes)
