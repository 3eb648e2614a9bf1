"""Agreement: how far one set of predictions is from another of the same products, and whether that is near enough.

It knows neither engines nor files: predictions and answers in, figures out.

Legend: n rows of one category that both sides answer, A its Choice attributes, V their values packed.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import Field

from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.cells import EMPTY
from shelfwise.config import Options
from shelfwise.evaluate import evaluate
from shelfwise.predictions import Predictions

#: Relative differences are to at least this much, in a Number's own unit.
LEAST = 1e-6


class Limits(Options):
    """What an exported engine may be off by; a figure beyond any of them refuses the export.

    Attributes:
        largest: difference of one value's probability.
        mean: mean difference over all values of all products.
        unequal: share of cells with another answer.
        loss: points (hundredths) of score, against the stated values.
        number: mean relative difference of the middle of a Number.
    """

    largest: float = Field(default=0.05, ge=0, le=1)
    mean: float = Field(default=0.002, ge=0, le=1)
    unequal: float = Field(default=0.005, ge=0, le=1)
    loss: float = Field(default=0.1, ge=0)
    number: float = Field(default=0.005, ge=0)


@dataclass(frozen=True)
class Agreement:
    """How far predictions are from their reference.

    Attributes:
        rows: products compared.
        cells: cells both have probabilities for.
        largest: difference of one value's probability.
        mean: mean difference over all values.
        unequal: share of cells with another answer.
        metric: of the score; empty where nothing is stated.
        score: of the predictions; NaN where nothing is stated.
        reference: the score of the reference.
        number: greatest over the Numbers of the mean relative difference of their middle; NaN where there are none.
    """

    rows: int
    cells: int
    largest: float
    mean: float
    unequal: float
    metric: str = ""
    score: float = math.nan
    reference: float = math.nan
    number: float = math.nan

    @property
    def loss(self) -> float:
        """Points of score lost; less than 0 where some were won, NaN where nothing is stated."""
        return 100 * (self.reference - self.score)

    def beyond(self, limits: Limits) -> tuple[str, ...]:
        """Return the figures that are beyond a limit, in words."""
        figures: Mapping[str, tuple[str, float]] = {
            "largest": ("largest difference of a probability", self.largest),
            "mean": ("mean difference of a probability", self.mean),
            "unequal": ("share of cells with another answer", self.unequal),
            "loss": (f"points of {self.metric or 'score'} lost", self.loss),
            "number": ("mean relative difference of a Number", self.number),
        }
        told = []
        for name, (words, found) in figures.items():
            allowed = getattr(limits, name)
            if found > allowed:
                told.append(f"{words} {found:.4g}, at most {allowed:g} ({name})")
        return tuple(told)

    def table(self) -> dict[str, Any]:
        """Return the figures as they are written to JSON, without those that are not known."""
        figures = asdict(self) | {"loss": self.loss}
        known = {name: value for name, value in figures.items() if value == value}
        return {name: round(v, 6) if isinstance(v, float) else v for name, v in known.items() if v != ""}

    def __str__(self) -> str:
        said = (
            f"{self.rows:,} products, {self.cells:,} cells: probabilities differ by {self.largest:.4f} at most and by "
            f"{self.mean:.5f} on average, {1 - self.unequal:.2%} of the answers are equal"
        )
        if self.metric:
            said += f"; {self.metric} {self.score:.4f}, reference {self.reference:.4f}, {self.loss:+.2f} points lost"
        return (
            said if self.number != self.number else f"{said}; Numbers differ by {self.number:.3%} on average"
        )


@dataclass(frozen=True, eq=False)
class Said:
    """What one engine said of a catalogue.

    Attributes:
        predictions: calibrated probabilities.
        answers: of every cell.
    """

    predictions: Predictions
    answers: Answers


def agreement(found: Said, reference: Said, catalog: Catalog, metric: str = "harmonic_f1") -> Agreement:
    """Compare what two engines said of a catalogue; scores where it states anything.

    A product that one side has no answer for, or answers under another category, differs by 1 in every cell.
    """
    parts = list(_differences(found.predictions, reference.predictions))
    apart = np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0)
    cells, unequal = _unequal(found.answers, reference.answers)
    scores: tuple[float, float] | None = None
    if (catalog.codes != EMPTY).any():
        first, second = (
            evaluate(each.answers, catalog, metric=metric, bootstrap=0).line().score
            for each in (found, reference)
        )
        scores = (first, second)
    return Agreement(
        len(catalog),
        cells,
        float(apart.max(initial=0.0)),
        float(apart.mean()) if len(apart) else 0.0,
        unequal / max(cells, 1),
        metric if scores else "",
        *(scores or (math.nan, math.nan)),
        number=_numbers(found.predictions, reference.predictions),
    )


def _differences(
    found: Predictions, reference: Predictions
) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Yield the absolute differences of the probabilities of each category's rows."""
    mine = {block.category: block for block in found.blocks}
    for block in reference.blocks:
        other = mine.get(block.category)
        at, there = _shared(block.rows, np.zeros(0, np.int64) if other is None else other.rows)
        apart_nV = np.ones(block.probs.shape)
        if other is not None:
            apart_nV[at] = np.abs(block.probs[at].astype(np.float64) - other.probs[there])
        yield apart_nV


def _unequal(found: Answers, reference: Answers) -> tuple[int, int]:
    """Return how many cells the reference answers, and how many of them are answered otherwise."""
    mine = {block.category: block for block in found.blocks}
    cells = unequal = 0
    for block in reference.blocks:
        other = mine.get(block.category)
        at, there = _shared(block.rows, np.zeros(0, np.int64) if other is None else other.rows)
        differs_nA = np.ones(block.codes.shape, bool)
        if other is not None:
            differs_nA[at] = block.codes[at] != other.codes[there]
        cells, unequal = cells + differs_nA.size, unequal + int(differs_nA.sum())
    return cells, unequal


def _shared(
    rows_n: np.ndarray[Any, np.dtype[np.int64]], others: np.ndarray[Any, np.dtype[np.int64]]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
    """Return where the rows that both have lie in the one and in the other."""
    _, at, there = np.intersect1d(rows_n, others, assume_unique=True, return_indices=True)
    return at, there


def _numbers(found: Predictions, reference: Predictions) -> float:
    """Return the greatest mean relative difference of a Number's median, NaN where there are none."""
    mine = {item.name: item for item in found.amounts}
    worst = math.nan
    for item in reference.amounts:
        at, there = _shared(item.rows, mine[item.name].rows)
        middle = item.quantiles.shape[1] // 2
        was_n = item.quantiles[at, middle].astype(np.float64)
        is_n = mine[item.name].quantiles[there, middle].astype(np.float64)
        if len(at):
            apart = float(np.mean(np.abs(is_n - was_n) / np.maximum(np.abs(was_n), LEAST)))
            worst = apart if worst != worst else max(worst, apart)
    return worst
