"""Predictions beside the truth: rows joined by id, categories, attributes and values by name.

It does not know scores. Codes of two taxonomies are never compared; each attribute gets one list of
values in which both sides are written.

Shapes: N catalogue rows, n of one category, A attributes, V their values packed, v of one attribute.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shelfwise.answers import AnswerBlock, Answers, check_rows
from shelfwise.catalog import Catalog
from shelfwise.cells import UNKNOWN, label_columns
from shelfwise.errors import CatalogError, PredictionError, listing
from shelfwise.predictions import Predictions
from shelfwise.taxonomy import Choice, Taxonomy

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Stands for all the stated values that the taxonomy does not have; never answered.
UNKNOWN_VALUE = "(not in the taxonomy)"


@dataclass(frozen=True, eq=False)
class Part:
    """One category's truth and answers.

    Attributes:
        category: its name.
        rows: positions in the catalogue. [n]
        answer_rows: positions among the predictions. [n]
        names: the attributes that have a true value.
        values: the values of each attribute, of both sides.
        truth_nA: true codes, -1 = missing.
        answer_nA: answered codes, -1 = no answer.
        sure_nA: probability of each answer, NaN where there is none.
        probs_nV: packed probabilities, NaN where there are none; None for answers.
        lacking: the attributes that the predictions do not have.
    """

    category: str
    rows: Ints
    answer_rows: Ints
    names: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    truth_nA: Ints
    answer_nA: Ints
    sure_nA: Floats
    probs_nV: Floats | None
    lacking: tuple[str, ...] = ()

    @property
    def slices(self) -> list[slice]:
        """Each attribute's part of the packed values."""
        return [slice(a, b) for a, b in pairwise(np.cumsum([0, *map(len, self.values)]).tolist())]

    def counting(self, answered_only: bool) -> npt.NDArray[np.bool_]:
        """Return bool [n, A], the labelled cells, or those of them that are answered."""
        labelled = self.truth_nA >= 0
        return labelled & (self.answer_nA >= 0) if answered_only else labelled


@dataclass(frozen=True, eq=False)
class _Theirs:
    """The predictions of one category, with the row of each catalogue row in their block (-1 = none)."""

    columns: dict[str, tuple[int, Choice]]
    slices: tuple[slice, ...]
    block: AnswerBlock | None
    probs_mV: npt.NDArray[np.float32] | None
    at_n: Ints


def align(
    predictions: Predictions | Answers, catalog: Catalog, min_rows: int = 0, min_values: int = 1
) -> tuple[list[Part], list[str]]:
    """Put predictions beside the stated values of a catalogue.

    Args:
        predictions: of the same products, in any order, under any taxonomy.
        catalog: holds the truth.
        min_rows: leave out categories with fewer products.
        min_values: leave out attributes with fewer different true values in their category.

    Returns:
        One part per category that has a label, and sentences about what does not fit.

    Raises:
        PredictionError: other products than the catalogue's, or answers that copied stated values.
        CatalogError: the catalogue states nothing.
    """
    if isinstance(predictions, Answers):
        if predictions.stated:
            raise PredictionError(
                "these answers copy the stated values, so scoring them against the stated values would mean "
                "nothing: predict again without keeping stated values"
            )
        answers, probs = predictions, None
    else:
        answers, probs = predictions.answers(), {block.category: block.probs for block in predictions.blocks}
    blocks = {block.category: block for block in answers.blocks}
    row_N, failed = join(answers.ids, catalog), np.array(sorted(answers.errors), np.int64)
    parts: list[Part] = []
    small = elsewhere = 0
    for category in catalog.present:
        rows = catalog.rows(category)
        if len(rows) < min_rows:
            small += 1
            continue
        at_n = _locate(blocks.get(category), row_N[rows])
        theirs = _Theirs(
            _columns(answers.taxonomy, catalog.taxonomy, category),
            answers.taxonomy.slices(category) if category in answers.taxonomy.entries else (),
            blocks.get(category),
            None if probs is None else probs.get(category, np.zeros((0, 0), np.float32)),
            at_n,
        )
        part = _part(catalog, category, row_N[rows], theirs, max(min_values, 1))
        if part is not None:
            parts.append(part)
            elsewhere += int((~np.isin(row_N[rows][at_n < 0], failed)).sum())
    if not parts:
        raise CatalogError(f"{catalog.source} has no stated value to score against")
    notes = _notes(parts, catalog, elsewhere)
    if small:
        notes.append(f"{small:,} categories with fewer than {min_rows:,} products are left out")
    return parts, notes


def join(ids: Sequence[str], catalog: Catalog) -> Ints:
    """Return int64 [N], the position among ``ids`` of each catalogue row; repeated ids pair up in order.

    Raises:
        PredictionError: ids that only one side has; names the first of them.
    """
    if tuple(ids) == catalog.ids:
        return np.arange(len(ids))
    if sorted(ids) != sorted(catalog.ids):
        check_rows(ids, catalog)
    waiting: dict[str, list[int]] = defaultdict(list)
    for position in range(len(ids) - 1, -1, -1):
        waiting[ids[position]].append(position)
    return np.array([waiting[id_].pop() for id_ in catalog.ids], np.int64)


def _locate(block: AnswerBlock | None, answer_rows: Ints) -> Ints:
    """Return int64 [n], where each row stands in the block; -1 where it does not."""
    if block is None or not len(block.rows):
        return np.full(len(answer_rows), -1, np.int64)
    at_n = np.minimum(np.searchsorted(block.rows, answer_rows), len(block.rows) - 1)
    return np.where(block.rows[at_n] == answer_rows, at_n, -1)


def _part(
    catalog: Catalog, category: str, answer_rows: Ints, theirs: _Theirs, min_values: int
) -> Part | None:
    truth_nA = _truth(catalog, category)
    hit = np.flatnonzero(theirs.at_n >= 0)
    at = theirs.at_n[hit]
    names, values_A, truths, answers, sures, chances, lacking = [], [], [], [], [], [], []
    for a, choice in enumerate(catalog.taxonomy.choices(category)):
        truth_n = truth_nA[:, a]
        if len(np.unique(truth_n[truth_n != -1])) < min_values:
            continue
        column, other = theirs.columns.get(choice.name, (-1, choice))
        values, code_v = _common_values(choice, other, bool((truth_n == UNKNOWN).any()))
        answer_n = np.full(len(truth_n), -1, np.int64)
        sure_n = np.full(len(truth_n), np.nan)
        probs_nv = np.full((len(truth_n), len(values)), np.nan)
        if column < 0:
            lacking.append(choice.name)
        elif theirs.block is not None:
            answer_n[hit] = np.append(code_v, -1)[theirs.block.codes[at, column]]
            sure_n[hit] = theirs.block.probability[at, column]
            if theirs.probs_mV is not None:
                probs_nv[hit] = 0.0
                probs_mv = theirs.probs_mV[:, theirs.slices[column]]
                for code, place in enumerate(code_v.tolist()):  # two values may stand for one of ours
                    probs_nv[hit, place] += probs_mv[at, code]
        names.append(choice.name)
        values_A.append(values)
        truths.append(np.where(truth_n == UNKNOWN, len(values) - 1, truth_n))
        answers.append(answer_n)
        sures.append(sure_n)
        chances.append(probs_nv)
    if not names:
        return None
    truth, answer, sure = (np.stack(columns, axis=1) for columns in (truths, answers, sures))
    probs = None if theirs.probs_mV is None else np.concatenate(chances, axis=1)
    rows = catalog.rows(category)
    return Part(
        category, rows, answer_rows, tuple(names), tuple(values_A), truth, answer, sure, probs, tuple(lacking)
    )


def _truth(catalog: Catalog, category: str) -> Ints:
    """Return int64 [n, A] stated codes, -1 missing, UNKNOWN for values that the taxonomy does not have."""
    truth_nA = catalog.labels(category).astype(np.int64)
    columns = label_columns(catalog.taxonomy, category, catalog.schema.roles, catalog.layout)
    for a, column in enumerate(columns):
        if column >= 0:
            truth_nA[catalog.codes[catalog.rows(category), column] == UNKNOWN, a] = UNKNOWN
    return truth_nA


def _columns(theirs: Taxonomy, ours: Taxonomy, category: str) -> dict[str, tuple[int, Choice]]:
    """Return the predictions' attributes of a category under the catalogue's names, with their columns."""
    if category not in theirs.entries:
        return {}
    names = {choice.name for choice in ours.choices(category)}
    found: dict[str, tuple[int, Choice]] = {}
    for column, choice in enumerate(theirs.choices(category)):
        spellings = [choice.name, ours.aliases.get(choice.name, "")]
        spellings += [name for name, stands_for in theirs.aliases.items() if stands_for == choice.name]
        name = next((spelling for spelling in spellings if spelling in names), None)
        if name is not None:
            found.setdefault(name, (column, choice))
    return found


def _common_values(ours: Choice, theirs: Choice, unknown: bool) -> tuple[tuple[str, ...], Ints]:
    """Return one list of values for both sides, and the place of each of the predictions' values in it."""
    extra = [value for value in theirs.values if value not in ours.codes]
    values = (*ours.values, *extra)
    place = {value: code for code, value in enumerate(values)} | dict(ours.codes)
    code_v = np.array([place[value] for value in theirs.values], np.int64)
    return (*values, UNKNOWN_VALUE) if unknown else values, code_v


def _notes(parts: Sequence[Part], catalog: Catalog, elsewhere: int) -> list[str]:
    lacking = [f"{part.category} / {name}" for part in parts for name in part.lacking]
    unknown = sum(
        int((part.truth_nA[:, a] == len(values) - 1).sum())
        for part in parts
        for a, values in enumerate(part.values)
        if values[-1] == UNKNOWN_VALUE
    )
    counts = (
        (int((catalog.category == -1).sum()), "products with an empty category are not scored"),
        (
            int((catalog.category == UNKNOWN).sum()),
            "products of a category the taxonomy lacks are not scored",
        ),
        (elsewhere, "products were answered as another category: their cells count as not answered"),
        (unknown, "cells state a value that the taxonomy lacks: they count as wrong"),
        (len(lacking), f"attributes are not in the predictions and count as wrong: {listing(lacking, 5)}"),
    )
    return [f"{count:,} {text}" for count, text in counts if count]
