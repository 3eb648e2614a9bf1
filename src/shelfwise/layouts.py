"""Layouts: Answers to a table in the layout the training table came in, and back.

It knows the two layouts (named columns, and the challenge's ``attr_1..attr_N``) and nothing of models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shelfwise.amounts import AmountAnswers
from shelfwise.answers import STATES, AnswerBlock, Answers, RowError, check_rows
from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError
from shelfwise.files import write_text
from shelfwise.roles import Layout
from shelfwise.tables import escape_formulas, write_frame

#: What stands in a column of states; a row that the attribute is not of has none, one with an error says so.
SAID_STATES = pl.Series([*STATES, "error", ""], dtype=pl.String)
ERROR, NO_STATE = len(STATES), len(STATES) + 1


def attribute_column(layout: Layout, position: int, name: str) -> str:
    """Return the column of a category's Choice attribute, given its position and name."""
    return layout.columns[position] if layout.kind == "challenge" else name


def answer_frame(
    answers: Answers, layout: Layout, *, filler: str | None = None, explain: bool = False
) -> pl.DataFrame:
    """Lay answers out, one row per input row, in input order.

    Args:
        answers: what to lay out.
        layout: of the training table.
        filler: what unused and unanswered cells hold; by default the layout's own.
        explain: add ``.state``, ``.probability``, ``.candidate`` and ``.runner_up`` after each attribute column, and
            where products have several photos ``photos_disagree``, the attributes they disagree about, parted by ``|``;
            ``.candidate``, ``.low``, ``.high`` and ``.state`` after each number, ``.unit_price`` and ``.unit`` after a
            price where a product's text says how much it is.
            The probability is that of the candidate: the value answered, or, where the cell is left open, the
            value that would be.

    Returns:
        ``id, Category, len, attr_1..attr_N`` in challenge layout; id, category, then every attribute and
        number column in named layout.
    """
    n = len(answers)
    empty = layout.filler if filler is None else filler
    category: list[str | None] = list(answers.categories) if answers.categories else [None] * n
    lengths = np.zeros(n, dtype=np.int64)
    columns = {name: _Column(n) for name in layout.columns}
    for row in answers.errors:
        name = category[row] or ""
        if name in answers.taxonomy.category_codes:
            lengths[row] = len(answers.taxonomy.choices(name))
            for position, choice in enumerate(answers.taxonomy.choices(name)):
                columns[attribute_column(layout, position, choice.name)].state[row] = ERROR
    for block in answers.blocks:
        choices = answers.taxonomy.choices(block.category)
        lengths[block.rows] = len(choices)
        for row in block.rows.tolist():
            category[row] = block.category
        for position, choice in enumerate(choices):
            columns[attribute_column(layout, position, choice.name)].put(block, position, choice.values)
    data: dict[str, Any] = {layout.id: list(answers.ids)}
    if layout.category:
        data[layout.category] = pl.Series(category, dtype=pl.String)
    if layout.kind == "challenge":
        data["len"] = lengths
    amounts = {item.name: item for item in answers.amounts}
    for name in (*layout.columns, *(name for name in amounts if name not in layout.columns)):
        if name in amounts:
            data |= _amount_columns(amounts[name], n, explain)
            continue
        column = columns[name]
        values = column.texts(column.value)
        data[name] = values.fill_null(empty) if empty else values
        if explain:
            data[f"{name}.state"] = SAID_STATES.gather(column.state)
            data[f"{name}.probability"] = pl.Series(column.probability).fill_nan(None)
            data[f"{name}.candidate"] = column.texts(column.candidate)
            data[f"{name}.runner_up"] = column.texts(column.runner_up)
    if explain and answers.disputed is not None:
        about = ["|".join(answers.disputed.get(row, ())) or None for row in range(n)]
        data["photos_disagree"] = pl.Series(about, dtype=pl.String)
    return pl.DataFrame(data)


class _Column:
    """An attribute column under way: positions in the values met so far, by row; 0 for none."""

    def __init__(self, rows: int) -> None:
        self.vocabulary: list[str | None] = [None]
        self.value, self.candidate, self.runner_up = np.zeros((3, rows), np.int64)
        self.state = np.full(rows, NO_STATE)
        self.probability = np.full(rows, np.nan, dtype=np.float32)

    def put(self, block: AnswerBlock, position: int, values: Sequence[str]) -> None:
        """Put an attribute of a block in its rows."""
        start = len(self.vocabulary)
        self.vocabulary += values
        for name, codes_nA in (
            ("value", block.codes),
            ("candidate", block.candidate),
            ("runner_up", block.runner_up),
        ):
            codes_n = codes_nA[:, position]
            getattr(self, name)[block.rows] = np.where(codes_n < 0, 0, codes_n + start)
        self.state[block.rows] = block.state[:, position]
        self.probability[block.rows] = block.probability[:, position]

    def texts(self, positions: np.ndarray[Any, np.dtype[np.int64]]) -> pl.Series:
        """Return the values at these positions."""
        return pl.Series(self.vocabulary, dtype=pl.String).gather(positions)


def for_csv(frame: pl.DataFrame, layout: Layout, categories: Sequence[str]) -> pl.DataFrame:
    """Return answers with categories that the taxonomy does not have, somebody's free text, escaped."""
    if not layout.category:
        return frame
    known = pl.col(layout.category).is_in(list(categories))
    escaped = escape_formulas(frame, (layout.category,))[layout.category]
    return frame.with_columns(pl.when(known).then(pl.col(layout.category)).otherwise(escaped))


def rounded(values_n: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers with six significant digits, and two after the point at least: as a table states them."""
    size_n = np.floor(np.log10(np.maximum(np.abs(np.nan_to_num(values_n)), 1e-12)))
    digits_n = np.clip(5 - size_n, 2, 12).astype(np.int64)
    found = [float(np.round(value, digits)) for value, digits in zip(values_n, digits_n, strict=True)]
    return np.array(found, np.float64)


def _amount_columns(item: AmountAnswers, n: int, explain: bool) -> dict[str, Any]:
    """Return a Number's column, and with ``explain`` its state, candidate and range; null where nothing is said."""
    names = ("value", "candidate", "low", "high") if explain else ("value",)
    numbers = {name: np.full(n, np.nan) for name in names}
    for name, column in numbers.items():
        column[item.rows] = rounded(getattr(item, name))
    data = {
        item.name if name == "value" else f"{item.name}.{name}": pl.Series(column).fill_nan(None)
        for name, column in numbers.items()
    }
    if explain:
        states = [""] * n
        for at, row in enumerate(item.rows.tolist()):
            states[row] = STATES[item.state[at]]
        data[f"{item.name}.state"] = pl.Series(states, dtype=pl.String)
        if item.unit:
            prices, units = np.full(n, np.nan), np.full(n, None, dtype=object)
            prices[item.rows], units[item.rows] = (
                rounded(item.unit_price),
                [unit or None for unit in item.unit],
            )
            data[f"{item.name}.unit_price"] = pl.Series(prices).fill_nan(None)
            data[f"{item.name}.unit"] = pl.Series(units.tolist(), dtype=pl.String)
    return data


def write_answers(
    answers: Answers, path: str | Path, layout: Layout, *, filler: str | None = None, explain: bool = False
) -> None:
    """Write answers to ``.csv`` or ``.parquet``, and beside it ``<stem>.errors.csv``.

    Parquet carries states, probabilities and runners-up always, CSV with ``explain``. Where stated cells
    were copied, ``<stem>.stated.json`` says so, and ``read_answers`` refuses the file. Ids and values are
    written unchanged; a category the taxonomy does not have is somebody's free text and is escaped in CSV.

    Raises:
        UsageError: another ending.
    """
    path = Path(path)
    frame = answer_frame(answers, layout, filler=filler, explain=explain or path.suffix == ".parquet")
    write_frame(for_csv(frame, layout, answers.taxonomy.categories) if path.suffix == ".csv" else frame, path)
    write_frame(answers.error_frame(), path.with_suffix(".errors.csv"), escape=("id", "error"))
    mark = path.with_suffix(".stated.json")
    if answers.stated:
        write_text(mark, json.dumps({"file": path.name, "stated_cells_copied": True}) + "\n")
    else:
        mark.unlink(missing_ok=True)


def read_answers(path: str | Path, catalog: Catalog, *, part: bool = False) -> Answers:
    """Read answers laid out as ``write_answers`` does, to score them on a catalogue.

    The rows are joined by id, so both sides need unique ids when their order differs.

    Args:
        path: the answers.
        catalog: the products with the truth; its taxonomy gives the values their codes. A value it does
            not have counts as a wrong answer.
        part: whether the file may answer other products too.

    Raises:
        PredictionError: ids that do not match, or stated cells that were copied into the answers.
    """
    path = Path(path)
    if path.with_suffix(".stated.json").exists():
        raise PredictionError(
            f"{path}: stated cells were copied into it (--keep-stated), so it cannot be scored"
        )
    schema = catalog.schema
    given = Catalog.read(
        path, schema=replace(schema, missing=(*schema.missing, schema.layout.filler)), images=path.parent
    )
    if part:
        wanted = set(catalog.ids)
        given = given.select([row for row, id_ in enumerate(given.ids) if id_ in wanted])
    at = _joined(given, catalog, str(path))
    blocks = []
    for category in catalog.present:
        rows = catalog.rows(category)
        codes = np.full((len(rows), len(catalog.taxonomy.choices(category))), -1, dtype=np.int32)
        given_rows = given.rows(category)
        where = np.full(len(given), -1, dtype=np.int64)
        where[given_rows] = np.arange(len(given_rows))
        found = where[at[rows]]
        codes[found >= 0] = given.labels(category)[found[found >= 0]]
        blocks.append(
            AnswerBlock(
                category, rows, codes, np.where(codes >= 0, 1, 0).astype(np.float32), np.full_like(codes, -1)
            )
        )
    lost = np.flatnonzero(catalog.category < 0).tolist()
    errors: Mapping[int, RowError] = {
        row: RowError("category", "the product has no known category") for row in lost
    }
    amounts = tuple(_read_amounts(given, at, catalog, name) for name in given.schema.roles.numbers)
    return Answers(catalog.taxonomy, catalog.ids, tuple(blocks), errors, amounts=amounts)


def _read_amounts(
    given: Catalog, at: np.ndarray[Any, np.dtype[np.int64]], catalog: Catalog, name: str
) -> AmountAnswers:
    """Read a column of numbers; what is not there or no number is unsure, and no range is known."""
    rows = np.flatnonzero(catalog.having(name))
    value = given.number(name)[at[rows]]
    state = np.where(np.isnan(value), STATES.index("unsure"), STATES.index("answered")).astype(np.int8)
    nothing = np.full(len(rows), np.nan)
    return AmountAnswers(name, rows, value, value, nothing, nothing, state)


def _joined(given: Catalog, catalog: Catalog, source: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    if given.ids == catalog.ids:
        return np.arange(len(catalog), dtype=np.int64)
    for side in (given, catalog):
        if len(set(side.ids)) != len(side):
            raise PredictionError(f"{side.source}: an id stands there twice, so rows cannot be joined by id")
    where = {id_: position for position, id_ in enumerate(given.ids)}
    if set(where) != set(catalog.ids):
        check_rows(given.ids, catalog)
    try:
        return np.array([where[id_] for id_ in catalog.ids], dtype=np.int64)
    except KeyError as error:
        raise UsageError(f"{source}: the id {error} is not there") from error
