"""Amounts: predictive distributions of Number attributes as quantiles, and the answers made from them.

It does not know how a distribution was made, nor how a point is chosen from it.
Legend: n rows that have the Number, Q quantile levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.errors import PredictionError

Floats = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
#: float64 [Q]: the probabilities of the quantiles that describe a distribution; symmetric about the median.
LEVELS: Float = np.round(np.array([0.0025, 0.01, *np.arange(1, 40) / 40, 0.99, 0.9975]), 6)
#: The place of the median.
MEDIAN = len(LEVELS) // 2
LOW, HIGH = (int(np.flatnonzero(level == LEVELS)[0]) for level in (0.05, 0.95))


@dataclass(frozen=True)
class Aim:
    """What the answers of Numbers are to be best for.

    Attributes:
        metric: ``smape``, ``mae``, ``mape``, ``rmse`` or ``log`` (the exponential of the mean logarithm).
        coverage: the probability with which a range is to hold the truth.
        widest: a range in which high / low is larger (for numbers as they are: high - low) is ``unsure``.
    """

    metric: str = "smape"
    coverage: float = 0.9
    widest: float | None = None


SMAPE = Aim()


@dataclass(frozen=True, eq=False)
class Amounts:
    """What is predicted of one Number attribute.

    A Number is predicted for every row whose category has it, and for rows of no known category, whether their
    photo can be read or not.

    Attributes:
        name: of the Number.
        rows: int64 [n], ascending positions in the table.
        quantiles: float32 [n, Q] at ``LEVELS``, in the Number's unit, ascending along Q.
        opinions: float32 [n, Q] each: what ``quantiles`` was made of, where a predictor asks several ways.
    """

    name: str
    rows: Rows
    quantiles: Floats
    opinions: tuple[Floats, ...] = ()

    def __post_init__(self) -> None:
        for found in (self.quantiles, *self.opinions):
            if found.shape != (len(self.rows), len(LEVELS)):
                shape = (len(self.rows), len(LEVELS))
                raise PredictionError(f"{self.name!r}: quantiles of shape {found.shape}, not {shape}")
            if not np.isfinite(found).all():
                raise PredictionError(f"{self.name!r}: a quantile is not a finite number")
            if len(found) and (np.diff(found, axis=1) < 0).any():
                raise PredictionError(f"{self.name!r}: the quantiles of a row do not ascend")

    def take(self, at: npt.NDArray[Any], rows: Rows) -> "Amounts":
        """Return the rows at these places, under new positions."""
        return Amounts(self.name, rows, self.quantiles[at], tuple(opinion[at] for opinion in self.opinions))


@dataclass(frozen=True, eq=False)
class AmountAnswers:
    """What is said of one Number attribute.

    Attributes:
        name: of the Number.
        rows: int64 [n], ascending positions in the table.
        value: float64 [n], the number answered; NaN for none.
        candidate: float64 [n], what is answered, or would be if the range were narrow enough.
        low, high: float64 [n], the range that holds the truth with the probability ``coverage``; NaN where stated.
        state: int8 [n], positions in ``answers.STATES``.
        coverage: of the range.
        unit_price: float64 [n], of a price whose product's quantity is known: what ``unit`` of it costs; else empty.
        unit: what the unit price is of, such as ``100 g``; empty where nothing is known.
    """

    name: str
    rows: Rows
    value: Float
    candidate: Float
    low: Float
    high: Float
    state: npt.NDArray[np.int8]
    coverage: float = 0.9
    unit_price: Float = field(default_factory=lambda: np.zeros(0))
    unit: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class AmountEvidence:
    """Out-of-fold distributions of one Number beside what is stated.

    Attributes:
        name: of the Number.
        rows: int64 [n], ascending positions among all rows of the evidence.
        truth: float64 [n], stated numbers; NaN for none.
        quantiles: float32 [n, Q].
        opinions: float32 [n, Q] each.
        category: int32 [n], codes; -1 for none.
        group: int64 [n], near-duplicate groups.
        fold: int64 [n], folds of the cross-fit.
    """

    name: str
    rows: Rows
    truth: Float
    quantiles: Floats
    category: npt.NDArray[np.int32]
    group: Rows
    fold: Rows
    opinions: tuple[Floats, ...] = ()

    def select(self, chosen: npt.NDArray[np.bool_]) -> "AmountEvidence":
        """Return some of the rows, by mask [n]."""
        return AmountEvidence(
            self.name,
            self.rows[chosen],
            self.truth[chosen],
            self.quantiles[chosen],
            self.category[chosen],
            self.group[chosen],
            self.fold[chosen],
            tuple(opinion[chosen] for opinion in self.opinions),
        )

    def amounts(self) -> Amounts:
        """Return the distributions alone."""
        return Amounts(self.name, self.rows, self.quantiles, self.opinions)


#: The arrays of answers that have one entry a row.
AMOUNT_COLUMNS = ("value", "candidate", "low", "high", "state")


def middle(amounts: Amounts) -> AmountAnswers:
    """Answer every row with its median and the range between the quantiles at 0.05 and 0.95."""
    low, median, high = (amounts.quantiles[:, at].astype(np.float64) for at in (LOW, MEDIAN, HIGH))
    state = np.zeros(len(amounts.rows), np.int8)
    return AmountAnswers(amounts.name, amounts.rows, median, median, low, high, state)


def ascending(quantiles_nQ: npt.NDArray[Any]) -> Floats:
    """Return float32 quantiles in ascending order: crossing ones sorted, as rearrangement does.

    Sorting never makes an estimate of a quantile function worse (Chernozhukov, Fernandez-Val and Galichon 2010).
    """
    return np.sort(quantiles_nQ, axis=1).astype(np.float32)


def join_amounts(parts: Sequence[tuple[Rows, "Sequence[Amounts]"]]) -> tuple[Amounts, ...]:
    """Put the amounts of parts of a table together, by name.

    Args:
        parts: for each part, the positions of its rows in the whole, and its amounts.
    """
    found: dict[str, list[Amounts]] = {}
    for where, amounts in parts:
        for item in amounts:
            found.setdefault(item.name, []).append(item.take(np.arange(len(item.rows)), where[item.rows]))
    joined = []
    for name, items in found.items():
        row = np.concatenate([item.rows for item in items])
        order = np.argsort(row, kind="stable")
        most = max(len(item.opinions) for item in items)
        each = [item.opinions or (item.quantiles,) * most for item in items]
        opinions = tuple(np.concatenate([part[j] for part in each])[order] for j in range(most))
        quantiles = np.concatenate([item.quantiles for item in items])[order]
        joined.append(Amounts(name, row[order], quantiles, opinions))
    return tuple(joined)


def amount_columns(amounts: Sequence[Amounts | AmountEvidence], rows: int) -> dict[str, Any]:
    """Return ``number:<name>`` and ``number:<name>:<j>`` as Arrow arrays; null where a row has no such Number."""
    import pyarrow as pa

    columns = {}
    for item in amounts:
        for j, packed in enumerate((item.quantiles, *item.opinions)):
            cells: list[Floats | None] = [None] * rows
            for at, row in enumerate(item.rows.tolist()):
                cells[row] = packed[at]
            columns[f"number:{item.name}" + (f":{j}" if j else "")] = pa.array(cells, pa.list_(pa.float32()))
    return columns


def amounts_of(table: Any, names: Sequence[str]) -> tuple[Amounts, ...]:
    """Read what ``amount_columns`` wrote of these Numbers; those that are not there are left out."""
    found = []
    for name in names:
        if f"number:{name}" in table.column_names:
            rows = np.flatnonzero(~table[f"number:{name}"].is_null().to_numpy(zero_copy_only=False))
            columns = [f"number:{name}"]
            while f"number:{name}:{len(columns)}" in table.column_names:
                columns.append(f"number:{name}:{len(columns)}")
            first, *others = (_matrix(table, column, rows) for column in columns)
            found.append(Amounts(name, rows.astype(np.int64), first, tuple(others)))
    return tuple(found)


def _matrix(table: Any, column: str, rows: Rows) -> Floats:
    cells = table[column].combine_chunks().take(rows)
    found: Floats = cells.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1).astype(np.float32)
    return found
