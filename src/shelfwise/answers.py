"""Answers: what is said of every product, cell by cell, with how sure and why not.

They do not know how they were decided. They are laid out as the training table was.
Legend: N rows, n rows of one category, A its Choice attributes, V their values, packed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.amounts import AmountAnswers
from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError, listing
from shelfwise.roles import Layout
from shelfwise.segments import Segments
from shelfwise.taxonomy import Choice, Taxonomy

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
#: What can be said of a cell. Only ``answered``, ``not applicable`` and ``stated`` cells hold a value.
STATES = ("answered", "unsure", "unfamiliar", "category?", "not applicable", "stated")
_NO_CANDIDATE = np.zeros((0, 0), np.int32)
_NO_SECOND = np.zeros((0, 0), np.float32)
_NO_STATE = np.zeros((0, 0), np.int8)


@dataclass(frozen=True)
class RowError:
    """Why a row has no answer.

    Attributes:
        field: the column concerned.
        message: one sentence.
    """

    field: str
    message: str


@dataclass(frozen=True, eq=False)
class AnswerBlock:
    """The answers of one category.

    Attributes:
        category: its name.
        rows: int64 [n], ascending positions in the table.
        codes: int32 [n, A], the value answered, -1 for none.
        probability: float32 [n, A], of the candidate; NaN for a copied stated value.
        runner_up: int32 [n, A], the most probable of the other values, -1 for none.
        candidate: int32 [n, A], the value that is answered, or would be if it were sure enough; by default
            ``codes``.
        second: float32 [n, A], probability of the runner-up; NaN where unknown, the default.
        state: int8 [n, A], positions in ``STATES``; by default answered, stated (no probability) or unsure.
    """

    category: str
    rows: Rows
    codes: Codes
    probability: Floats
    runner_up: Codes
    candidate: Codes = field(default_factory=lambda: _NO_CANDIDATE)
    second: Floats = field(default_factory=lambda: _NO_SECOND)
    state: npt.NDArray[np.int8] = field(default_factory=lambda: _NO_STATE)

    def __post_init__(self) -> None:
        if self.candidate is _NO_CANDIDATE:
            object.__setattr__(self, "candidate", self.codes)
        if self.second is _NO_SECOND:
            object.__setattr__(self, "second", np.full(self.codes.shape, np.nan, np.float32))
        if self.state is _NO_STATE:
            given = np.where(np.isnan(self.probability), STATES.index("stated"), STATES.index("answered"))
            state = np.where(self.codes < 0, STATES.index("unsure"), given)
            object.__setattr__(self, "state", state.astype(np.int8))


@dataclass(frozen=True, eq=False)
class Answers:
    """What is said of every product, in table order.

    Attributes:
        taxonomy, ids, errors, guessed, notes: as in ``Predictions``.
        blocks: one per category present.
        stated: whether stated cells were copied; such answers cannot be scored.
        categories: the category cell of every row as given, for rows that have no block.
        layout: how they are written; that of the training table.
        likelier: int32 [N], code of the category each picture looks most like, -1 for none; where known.
        amounts: one per Number that was learnt.
        disputed: row position to the attributes that a product's photos say different values of; ``None`` where no
            product has several photos.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    blocks: tuple[AnswerBlock, ...]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    guessed: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stated: bool = False
    categories: tuple[str | None, ...] = ()
    layout: Layout | None = None
    likelier: Codes | None = None
    amounts: tuple[AmountAnswers, ...] = ()
    disputed: Mapping[int, tuple[str, ...]] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def block(self, category: str) -> AnswerBlock | None:
        """Return a category's block, ``None`` where no row is of it."""
        return next((block for block in self.blocks if block.category == category), None)

    def keep_stated(self, catalog: Catalog) -> "Answers":
        """Return answers in which every stated value stands and only empty cells are answered.

        Raises:
            PredictionError: the catalogue's rows are not these.
        """
        check_rows(self.ids, catalog)
        blocks = []
        for block in self.blocks:
            rows, labels = catalog.rows(block.category), catalog.labels(block.category)
            stated = np.full_like(block.codes, -1)
            shared = np.isin(rows, block.rows)
            stated[np.searchsorted(block.rows, rows[shared])] = labels[shared]
            copied = stated >= 0
            blocks.append(
                replace(
                    block,
                    codes=np.where(copied, stated, block.codes),
                    probability=np.where(copied, np.float32(np.nan), block.probability),
                    runner_up=np.where(copied, np.int32(-1), block.runner_up),
                    candidate=np.where(copied, stated, block.candidate),
                    second=np.where(copied, np.float32(np.nan), block.second),
                    state=np.where(copied, np.int8(STATES.index("stated")), block.state),
                )
            )
        amounts = tuple(_keep_stated(item, catalog.numbers(item.name)) for item in self.amounts)
        return replace(self, blocks=tuple(blocks), amounts=amounts, stated=True)

    def amount(self, name: str) -> AmountAnswers | None:
        """Return what is said of a Number, ``None`` where nothing is."""
        return next((item for item in self.amounts if item.name == name), None)

    def of(self, row: int) -> dict[str, dict[str, Any]]:
        """Return one row's answers by attribute.

        A Choice is ``{value, probability, state, candidate, runner_up, runner_up_probability}``; ``value`` is
        ``None`` unless the cell is answered, ``probability`` is the candidate's. A Number is ``{value, low, high,
        coverage, state, candidate}``, with ``{unit_price, unit}`` where a price's quantity is known. Cells of which a
        product's photos say different values have ``{photos_disagree: True}`` as well.
        """
        return self.each([row])[0]

    def each(self, rows: Sequence[int]) -> list[dict[str, dict[str, Any]]]:
        """Return what ``of`` does of several rows."""
        found: list[dict[str, dict[str, Any]]] = [{} for _ in rows]
        for block in self.blocks:
            wanted, places = _places(block.rows, rows)
            cells = _cells(self.taxonomy.choices(block.category), block, places)
            for at, said in zip(wanted, cells, strict=True):
                found[at] |= said
        for item in self.amounts:
            for at, place in zip(*_places(item.rows, rows), strict=True):
                found[at][item.name] = _amount_cell(item, place)
        for at, row in enumerate(rows if self.disputed else ()):
            for name in (self.disputed or {}).get(row, ()):
                found[at][name]["photos_disagree"] = True
        return found

    def counts(self) -> dict[str, int]:
        """Return the number of cells in each state, those that occur; rows with an error are ``error``."""
        found = dict.fromkeys(STATES, 0)
        for block in self.blocks:
            for state, count in zip(*np.unique(block.state, return_counts=True), strict=True):
                found[STATES[int(state)]] += int(count)
        for item in self.amounts:
            for state, count in zip(*np.unique(item.state, return_counts=True), strict=True):
                found[STATES[int(state)]] += int(count)
        found["error"] = len(self.errors)
        return {state: count for state, count in found.items() if count}

    def flagged(self) -> dict[int, str]:
        """Return the rows that are ``unfamiliar`` or of a doubtful category (``category?``), with the flag."""
        flags = [STATES.index("unfamiliar"), STATES.index("category?")]
        found: dict[int, str] = {}
        for block in self.blocks:
            if block.state.shape[1]:
                there = np.isin(block.state, flags)
                state_n = np.where(there, block.state, -1).max(axis=1)
                at = np.flatnonzero(state_n >= 0)
                found |= {int(block.rows[k]): STATES[state_n[k]] for k in at.tolist()}
        return dict(sorted(found.items()))

    def _why(self, row: int, flag: str) -> str:
        if flag == "unfamiliar":
            return "the picture is unlike everything that was learnt of its category; nothing is answered"
        code = -1 if self.likelier is None else int(self.likelier[row])
        likelier = f"; {self.taxonomy.categories[code]!r} is likelier" if code >= 0 else ""
        return f"the picture does not look like its category{likelier}; nothing is answered"

    def write(self, path: str | Path, *, filler: str | None = None, explain: bool = False) -> None:
        """Write to ``.csv`` or ``.parquet`` in the training table's layout, and beside it ``<stem>.errors.csv``.

        Args:
            path: its ending chooses the format.
            filler: what unused and unanswered cells hold; by default the layout's own.
            explain: add state, probability, candidate and runner-up of every cell (Parquet has them always).

        Raises:
            UsageError: another ending, or answers that carry no layout.
        """
        from shelfwise.layouts import write_answers

        if self.layout is None:
            raise UsageError(
                "these answers carry no layout: use those of Bundle.answer, or layouts.write_answers"
            )
        write_answers(self, path, self.layout, filler=filler, explain=explain)

    def error_frame(self) -> pl.DataFrame:
        """Return ``row, id, field, error``: rows without an answer, of a predicted category, flagged or disputed."""
        rows = [(i + 1, self.ids[i], e.field, e.message) for i, e in self.errors.items()]
        category = {i: block.category for block in self.blocks for i in block.rows.tolist()}
        for i, probability in self.guessed.items():
            said = f"the category was empty; predicted {category[i]!r} with probability {probability:.3f}"
            rows.append((i + 1, self.ids[i], "category", said))
        for i, flag in self.flagged().items():
            rows.append(
                (i + 1, self.ids[i], "category" if flag == "category?" else "image", self._why(i, flag))
            )
        for i, names in (self.disputed or {}).items():
            rows.append((i + 1, self.ids[i], "image", f"its photos disagree about {', '.join(names)}"))
        schema = {"row": pl.Int64, "id": pl.String, "field": pl.String, "error": pl.String}
        return pl.DataFrame(sorted(rows), schema=schema, orient="row")


def check_rows(ids: Sequence[str], catalog: Catalog) -> None:
    """Make sure answers and a catalogue are of the same rows in the same order.

    Raises:
        PredictionError: they are not; names the first ids that differ.
    """
    if tuple(ids) != catalog.ids:
        lost = sorted(set(catalog.ids) ^ set(ids))
        what = (
            f"ids on one side only: {listing(lost, 5)}" if lost else "the same ids in another order or number"
        )
        raise PredictionError(
            f"{len(ids)} rows do not line up with the {len(catalog)} of {catalog.source}: {what}. Were both read by "
            "one bundle? To score a file of answers, name it with --bundle"
        )


def best_values(probs_nV: Floats, parts: Sequence[slice]) -> Codes:
    """Return int32 [n, A], the most probable value of each attribute; -1 where it has no values."""
    best_nA = np.full((len(probs_nV), len(parts)), -1, np.int32)
    for column, part in enumerate(parts):
        if part.stop > part.start:
            best_nA[:, column] = probs_nV[:, part].argmax(axis=1)
    return best_nA


def answer_block(
    category: str,
    rows: Rows,
    probs_nV: Floats,
    parts: Sequence[slice],
    candidate_nA: Codes,
    state_nA: npt.NDArray[np.int8] | None = None,
) -> AnswerBlock:
    """Return a block of answers from probabilities and the values chosen.

    Args:
        category: its name.
        rows: int64 [n], positions in the table.
        probs_nV: float32 [n, V], packed.
        parts: each attribute's slice of them.
        candidate_nA: the values chosen, -1 for none.
        state_nA: positions in ``STATES``; all answered if left out. Cells in another state than answered or not
            applicable hold no value.
    """
    row_n1, at = np.arange(len(rows))[:, None], Segments.of(part.stop - part.start for part in parts)
    probability_nA, second_nA = (np.full(candidate_nA.shape, np.nan, np.float32) for _ in range(2))
    runner_up_nA = np.full(candidate_nA.shape, -1, np.int32)
    if len(rows) and at.present:
        chosen_nP = candidate_nA[:, at.present] % at.widths + at.starts
        probability_nA[:, at.present] = probs_nV[row_n1, chosen_nP]
        others_nV, several = probs_nV.copy(), np.flatnonzero(at.widths > 1)
        others_nV[row_n1, chosen_nP] = -1
        place_nP, columns = at.places(others_nV), np.array(at.present)[several]
        runner_up_nA[:, columns] = (place_nP - at.starts)[:, several]
        second_nA[:, columns] = others_nV[row_n1, place_nP[:, several]]
    if state_nA is None:
        state_nA = np.where(candidate_nA >= 0, STATES.index("answered"), STATES.index("unsure"))
    holding = np.isin(state_nA, [STATES.index("answered"), STATES.index("not applicable")])
    return AnswerBlock(
        category,
        rows,
        np.where(holding, candidate_nA, np.int32(-1)),
        probability_nA,
        runner_up_nA,
        candidate_nA,
        second_nA,
        state_nA.astype(np.int8),
    )


def join_blocks(blocks: Sequence[AnswerBlock]) -> AnswerBlock:
    """Put blocks of one category, of different rows, together."""
    row = np.concatenate([block.rows for block in blocks])
    order = np.argsort(row, kind="stable")
    fields = ("codes", "probability", "runner_up", "candidate", "second", "state")
    joined = (np.concatenate([getattr(block, name) for block in blocks])[order] for name in fields)
    return AnswerBlock(blocks[0].category, row[order], *joined)


def _keep_stated(item: AmountAnswers, stated_N: npt.NDArray[np.float64]) -> AmountAnswers:
    stated_n = stated_N[item.rows]
    copied = np.isfinite(stated_n)
    return replace(
        item,
        value=np.where(copied, stated_n, item.value),
        candidate=np.where(copied, stated_n, item.candidate),
        low=np.where(copied, np.nan, item.low),
        high=np.where(copied, np.nan, item.high),
        state=np.where(copied, np.int8(STATES.index("stated")), item.state),
    )


def _places(rows: Rows, wanted: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return which of the wanted rows are there, as positions among the wanted, and where each is."""
    asked = np.asarray(wanted, np.int64)
    place = np.searchsorted(rows, asked)
    there = np.flatnonzero(np.append(rows, -1)[place] == asked)
    return there.tolist(), place[there].tolist()


def _amount_cell(item: AmountAnswers, at: int) -> dict[str, Any]:
    names = ("value", "low", "high", "candidate")
    given = {name: float(getattr(item, name)[at]) for name in names}
    cell: dict[str, Any] = {name: None if np.isnan(number) else number for name, number in given.items()}
    if item.unit and item.unit[at]:
        cell |= {"unit_price": float(item.unit_price[at]), "unit": item.unit[at]}
    return {**cell, "coverage": item.coverage, "state": STATES[item.state[at]]}


def _cells(
    choices: Sequence[Choice], block: AnswerBlock, places: Sequence[int]
) -> list[dict[str, dict[str, Any]]]:
    """Return what is said of some rows of a block, by attribute."""
    if not places:
        return []
    names = [(choice.name, (*choice.values, None)) for choice in choices]
    fields = (block.codes, block.probability, block.state, block.candidate, block.runner_up, block.second)
    columns = [field[places].tolist() for field in fields]
    return [
        {
            name: {
                "value": values[code],
                "probability": _told(probability),
                "state": STATES[state],
                "candidate": values[candidate],
                "runner_up": values[runner_up],
                "runner_up_probability": _told(second),
            }
            for (name, values), code, probability, state, candidate, runner_up, second in zip(
                names, *row, strict=True
            )
        }
        for row in zip(*columns, strict=True)
    ]


def _told(probability: float) -> float | None:
    return None if math.isnan(probability) else round(probability, 6)
