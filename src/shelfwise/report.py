"""Report: scores with intervals, as text, table, JSON and frame.

It does not know how a score is computed. A report is a list of flat lines, one number each, so that it
grows by adding lines; what a reader sees first is drawn from them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from shelfwise.errors import ShelfwiseError
from shelfwise.plaintext import plain, rich_table, show, text_table, write_result

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1
NAN = float("nan")
#: Categories that the printed text shows; JSON, CSV and Parquet hold all of them.
MOST_CATEGORIES = 40
#: Values that the printed text lists as the weakest, and the cells a value needs to be listed.
MOST_VALUES, ENOUGH_CELLS = 10, 20
#: Value frequencies: the upper edge of a value's share of its attribute's labels, and the name.
FREQUENCIES = ((0.05, "rare"), (0.20, "medium"), (1.0, "frequent"))
_SCHEMA = {
    "level": pl.String,
    "category": pl.String,
    "attribute": pl.String,
    "value": pl.String,
    "metric": pl.String,
    "score": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "support": pl.Int64,
}
_NUMBERS = ("score", "low", "high")


class Line(NamedTuple):
    """One number of a report.

    Attributes:
        level: ``overall``, ``category``, ``attribute``, ``value`` or ``frequency``; of a Number ``overall``,
            ``category`` or ``band``.
        category: of the levels category, attribute and value.
        attribute: of the levels attribute and value; the name of a Number.
        value: of the level value; ``rare``, ``medium`` or ``frequent`` of the level frequency; a band.
        metric: what was measured.
        score: the number; NaN where there is nothing to score.
        low: lower end of its interval, NaN where it has none.
        high: upper end.
        support: labelled cells behind it (rows for ``rows_right``).
    """

    level: str
    category: str | None
    attribute: str | None
    value: str | None
    metric: str
    score: float
    low: float = NAN
    high: float = NAN
    support: int = 0


@dataclass(frozen=True)
class Report:
    """The scores of one set of predictions on one catalogue.

    Attributes:
        metric: the metric that the overall score is the mean of.
        lines: all the numbers.
        rows: catalogue rows that were scored.
        errors: those of them that got no answer because of an error.
        groups: groups that the bootstrap drew from.
        bootstrap: its replicates; 0 = no intervals.
        seed: its seed.
        answered_only: whether cells without an answer were left out instead of counted as wrong.
        notes: sentences for the reader.
        advice: what would raise the score.
    """

    metric: str
    lines: tuple[Line, ...]
    rows: int
    errors: int = 0
    groups: int = 0
    bootstrap: int = 0
    seed: int = 0
    answered_only: bool = False
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @cached_property
    def _found(self) -> Mapping[tuple[str | None, ...], Line]:
        return {line[:5]: line for line in self.lines}

    def line(
        self,
        metric: str | None = None,
        category: str | None = None,
        attribute: str | None = None,
        value: str | None = None,
    ) -> Line:
        """Return one number; a score of NaN where the report does not have it.

        Args:
            metric: by default the report's own.
            category: None for the overall number.
            attribute: None for the whole category.
            value: of the attribute; without category and attribute ``rare``, ``medium`` or ``frequent``.
        """
        level = "attribute" if attribute is not None else "category" if category is not None else "overall"
        if value is not None:
            level = "value" if category is not None else "frequency"
        key = (level, category, attribute, value, metric or self.metric)
        return self._found.get(key, Line(*key, NAN))

    def of(self, level: str, metric: str | None = None) -> list[Line]:
        """Return the lines of one level and metric (the report's own by default), in order."""
        return [line for line in self.lines if line.level == level and line.metric == (metric or self.metric)]

    @property
    def categories(self) -> list[Line]:
        """The lines of the metric of Choice attributes, per category."""
        return [line for line in self.of("category") if line.attribute is None]

    @property
    def numbers(self) -> list[str]:
        """The names of the Numbers that are scored."""
        lines = self.of("overall", "smape")
        return list(dict.fromkeys(line.attribute for line in lines if line.attribute is not None))

    def number_line(self, metric: str, name: str, category: str | None = None) -> Line:
        """Return one score of a Number, overall or of a category; NaN where the report does not have it."""
        key = ("overall" if category is None else "category", category, name, None, metric)
        return self._found.get(key, Line(*key, NAN))

    @property
    def score(self) -> float:
        """The overall score."""
        return self.line().score

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return self.line().low, self.line().high

    @property
    def expected(self) -> Line:
        """The score to expect on unseen products: of a fit, with all its labels; else the overall score."""
        line = self.line("expected")
        return self.line() if math.isnan(line.score) else line

    def with_notes(self, *notes: str) -> "Report":
        """Return the report with sentences added."""
        return replace(self, notes=(*self.notes, *notes))

    def frame(self) -> pl.DataFrame:
        """Return one row per number: level, category, attribute, value, metric, score, low, high, support."""
        frame = pl.DataFrame(list(self.lines), schema=_SCHEMA, orient="row")
        return frame.with_columns(pl.col(*_NUMBERS).fill_nan(None))

    def to_json(self) -> str:
        """Return the report as JSON text; the inverse of ``from_json``."""
        data = {
            "format": FORMAT,
            **{
                name: getattr(self, name)
                for name in self.__dataclass_fields__
                if name not in ("lines", "notes", "advice")
            },
            "notes": list(self.notes),
            "advice": list(self.advice),
            "columns": list(Line._fields),
            "lines": [[plain(cell) for cell in line] for line in self.lines],
        }
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what ``to_json`` wrote.

        Raises:
            ShelfwiseError: not a report, or of another format.
        """
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT or tuple(data.pop("columns")) != Line._fields:
                raise ShelfwiseError(f"not a report of format {FORMAT}")
            lines = tuple(
                Line._make([*cells[:5], *(NAN if cell is None else cell for cell in cells[5:8]), cells[8]])
                for cells in data.pop("lines")
            )
            notes, advice = tuple(data.pop("notes")), tuple(data.pop("advice", ()))
            return cls(lines=lines, notes=notes, advice=advice, **data)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ShelfwiseError(f"not a report: {type(error).__name__}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write to ``.json``, ``.parquet``, ``.csv`` or ``.txt``; a UsageError for another ending."""
        write_result(path, self.frame(), self.to_json(), str(self))

    def table(self) -> "Table":
        """Return the scores per category and attribute as a rich table."""
        return rich_table(*self._attribute_rows())

    def _attribute_rows(self) -> tuple[list[str], list[list[str]]]:
        others = []
        for name in ("micro_f1", "macro_f1", "majority", "coverage", "ece"):
            found = {line.score for line in self.of("attribute", name)}
            if name != self.metric and not (name == "coverage" and found <= {1.0}):
                others += [name] if any(map(math.isfinite, found)) else []
        rows = []
        categories = sorted(self.categories, key=lambda line: -line.support)
        attributes: dict[str | None, list[Line]] = {}
        for line in self.of("attribute"):
            attributes.setdefault(line.category, []).append(line)
        for line in categories[:MOST_CATEGORIES]:
            for each in (line, *attributes.get(line.category, [])):
                name = f"  {each.attribute}" if each.attribute is not None else str(each.category)
                rest = [show(self.line(other, each.category, each.attribute).score) for other in others]
                rows.append([name, f"{each.support:,}", show(each.score), show_interval(each), *rest])
        return ["category / attribute", "labels", self.metric, "95 % interval", *others], rows

    def __str__(self) -> str:
        drawn = f"{self.bootstrap:,} bootstrap replicates of {self.groups:,} groups"
        parts = [
            f"{self.metric} {show(self.score)} {show_interval(self.line())}".removesuffix(" -")
            + f"   {self.rows:,} products, {self.errors:,} with errors"
            + (f", 95 % interval from {drawn}" if self.bootstrap else ""),
            self._summary(),
            text_table(*self._attribute_rows()) if self.categories else "",
        ]
        hidden = len(self.categories) - MOST_CATEGORIES
        if hidden > 0:
            parts.append(f"... and {hidden:,} smaller categories, all in the JSON, CSV and Parquet reports")
        parts += [self._frequency_text(), self._weakest_text(), *self._number_texts()]
        parts += [f"Note: {note}" for note in self.notes]
        if self.advice:
            parts.append("What would help:\n" + "\n".join(f"- {sentence}" for sentence in self.advice))
        return "\n\n".join(part for part in parts if part) + "\n"

    def _summary(self) -> str:
        names = {
            "expected": f"to expect on unseen products ({self.metric})",
            "majority": f"always the most frequent value ({self.metric})",
            "harmonic_f1": "harmonic F1",
            "micro_f1": "micro-F1",
            "macro_f1": "macro-F1",
            "weighted_f1": "weighted F1",
            "cells_right": "cells right, of all labelled cells",
            "rows_right": "products with every labelled attribute right",
            "coverage": "cells answered",
            "log_loss": "log loss (nats)",
            "ece": "expected calibration error",
            "ece_before": "the same before calibration",
            "gain": "gained by deciding for the metric",
            "random_split": "what a random split would have claimed",
        }
        rows = [
            [text, show(line.score), show_interval(line)]
            for name, text in names.items()
            if name != self.metric and not math.isnan((line := self.line(name)).score)
        ]
        return text_table(["overall", "", "95 % interval"], rows) if rows else ""

    def _frequency_text(self) -> str:
        rows, under = [], 0.0
        for edge, name in FREQUENCIES:
            f1, recall = self.line("f1", value=name), self.line("recall", value=name)
            share = f"{name} ({under:.0%} to {edge:.0%} of the labels)"
            values = self.line("values", value=name).score
            if values > 0:
                rows.append([share, f"{values:,.0f}", f"{f1.support:,}", show(f1.score), show(recall.score)])
            under = edge
        return (
            text_table(["values by frequency", "values", "labels", "mean F1", "recall"], rows) if rows else ""
        )

    def _number_texts(self) -> list[str]:
        """A table per Number: errors and ranges, over all, by category and by band of the truth."""
        head = ["rows", "SMAPE", "95 % interval", "MAE", "RMSE", "median APE", "in range", "high / low"]
        texts = []
        for name in self.numbers:
            rows = []
            for level in ("overall", "category", "band"):
                found = [line for line in self.of(level, "smape") if line.attribute == name]
                for line in sorted(found, key=lambda line: -line.support * (level == "category"))[
                    :MOST_CATEGORIES
                ]:
                    label = {"overall": "all", "category": line.category}.get(level, f"from {line.value}")
                    digits = {"mae": 2, "rmse": 2, "median_ape": 2, "coverage": 3, "width": 2}
                    others = [show(self._found[(*line[:4], key)].score, n) for key, n in digits.items()]
                    smape = [show(line.score, 2), show_interval(line, 2)]
                    rows.append([f"  {label}", f"{line.support:,}", *smape, *others])
            texts.append(text_table([name, *head], rows))
        return texts

    def _weakest_text(self) -> str:
        lines = [line for line in self.of("value", "f1") if line.support >= ENOUGH_CELLS]
        rows = [
            [
                f"{line.category} / {line.attribute} / {line.value}",
                f"{line.support:,}",
                *(show(self.line(name, *line[1:4]).score) for name in ("precision", "recall", "f1")),
            ]
            for line in sorted(lines, key=lambda line: line.score)[:MOST_VALUES]
        ]
        head = [f"weakest values of {ENOUGH_CELLS} labels or more", "labels", "precision", "recall", "F1"]
        return text_table(head, rows) if rows else ""


def show_interval(line: Line, digits: int = 3) -> str:
    """Return ``[low, high]``, or ``-`` where there is none."""
    return "-" if math.isnan(line.low) else f"[{show(line.low, digits)}, {show(line.high, digits)}]"
