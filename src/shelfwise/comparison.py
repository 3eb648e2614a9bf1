"""Comparison: how sets of predictions differ from the first, with intervals, as text, table, JSON and frame.

It does not know how a difference is found.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from shelfwise.errors import UsageError, listing
from shelfwise.plaintext import plain, rich_table, show, text_table, write_result
from shelfwise.report import MOST_CATEGORIES

if TYPE_CHECKING:
    from rich.table import Table


class Difference(NamedTuple):
    """How one set of predictions differs from the first, for all, a category or an attribute.

    Attributes:
        level: ``overall``, ``category`` or ``attribute``; of a Number ``overall`` or ``category``.
        category: of the levels category and attribute.
        attribute: of the level attribute; the name of a Number, which is compared by SMAPE.
        name: the predictions compared.
        score: their score.
        first: the score of the first predictions.
        difference: ``score - first``.
        low: lower end of its interval.
        high: upper end.
        verdict: ``better``, ``worse`` or ``not shown`` where the interval holds 0.
        support: labelled cells behind it.
    """

    level: str
    category: str | None
    attribute: str | None
    name: str
    score: float
    first: float
    difference: float
    low: float
    high: float
    verdict: str
    support: int


@dataclass(frozen=True)
class Comparison:
    """Paired differences of predictions from the first ones, over the same bootstrap replicates.

    Attributes:
        metric: what was measured.
        names: the names of the predictions, the reference first.
        differences: all against the first: overall, per category, per attribute.
        rows, groups, bootstrap, seed, notes: as in ``Report``.
    """

    metric: str
    names: tuple[str, ...]
    differences: tuple[Difference, ...]
    rows: int
    groups: int
    bootstrap: int
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> list[Difference]:
        """The differences of Choice attributes."""
        return [line for line in self.differences if line.level == "attribute" or line.attribute is None]

    @property
    def numbers(self) -> Mapping[str, list[Difference]]:
        """The differences of every Number, by its name."""
        found: dict[str, list[Difference]] = {}
        for line in self.differences:
            if line.level != "attribute" and line.attribute is not None:
                found.setdefault(line.attribute, []).append(line)
        return found

    def overall(self, name: str | None = None) -> Difference:
        """Return the overall difference of one set of predictions (the second by default)."""
        wanted = name if name is not None else self.names[1]
        found = [line for line in self.differences if line.level == "overall" and line.name == wanted]
        if not found:
            raise UsageError(f"{wanted!r} was not compared with {self.names[0]!r}: {listing(self.names[1:])}")
        return found[0]

    def sentence(self, name: str | None = None) -> str:
        """Say in words whether the overall difference is real."""
        return self.said(self.overall(name))

    def said(self, line: Difference) -> str:
        """Say in words whether one difference is real."""
        of = self.metric if line.attribute is None else f"SMAPE of {line.attribute}"
        if line.verdict == "not shown":
            return (
                f"No difference shown between {line.name} and {self.names[0]}: "
                f"{line.difference:+.3f} {_signed(line)} in {of}."
            )
        ends = sorted((abs(line.low), abs(line.high)))
        return (
            f"{line.name} is {line.verdict} than {self.names[0]} by {abs(line.difference):.3f} "
            f"[{ends[0]:.3f}, {ends[1]:.3f}] in {of}."
        )

    @property
    def words(self) -> list[str]:
        """Sentences on every overall difference, those of Numbers last."""
        return [self.said(line) for line in self.differences if line.level == "overall"]

    def frame(self) -> pl.DataFrame:
        """Return one row per difference."""
        text, number = pl.String, pl.Float64
        kinds = [text] * 4 + [number] * 5 + [text, pl.Int64]
        schema = dict(zip(Difference._fields, kinds, strict=True))
        frame = pl.DataFrame(list(self.differences), schema=schema, orient="row")
        return frame.with_columns(pl.col(pl.Float64).fill_nan(None))

    def to_json(self) -> str:
        """Return the comparison as JSON text."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "differences"}
        rows = [dict(zip(line._fields, map(plain, line), strict=True)) for line in self.differences]
        return json.dumps(
            {**data, "words": self.words, "differences": rows}, ensure_ascii=False, allow_nan=False
        )

    def write(self, path: str | Path) -> None:
        """Write to ``.json``, ``.parquet``, ``.csv`` or ``.txt``; a UsageError for another ending."""
        write_result(path, self.frame(), self.to_json(), str(self))

    def table(self) -> "Table":
        """Return the differences as a rich table."""
        return rich_table(*self._rows(self.differences))

    def _rows(self, lines: Sequence[Difference]) -> tuple[list[str], list[list[str]]]:
        rows = []
        shown: dict[str | None, None] = {}
        for line in lines:
            shown.setdefault(line.category)
            if len(shown) > MOST_CATEGORIES + 1:
                break
            where = str(line.category or "overall")
            if line.level == "attribute":
                where = f"  {line.attribute}"
            elif line.attribute is not None:
                where = f"{where} / {line.attribute}"
            change = "-" if math.isnan(line.difference) else f"{line.difference:+.3f}"
            cells = [show(line.first), show(line.score), change, _signed(line), line.verdict]
            rows.append([where, line.name, f"{line.support:,}", *cells])
        return [
            "where",
            "compared",
            "labels",
            self.names[0],
            "score",
            "difference",
            "95 % interval",
            "",
        ], rows

    def __str__(self) -> str:
        head = f"{self.rows:,} products, {self.bootstrap:,} replicates of {self.groups:,} groups"
        parts = ["\n".join(self.words)]
        titles = {self.metric: self.values} if self.values else {}
        titles |= {f"SMAPE of {name}, lower is better,": lines for name, lines in self.numbers.items()}
        for title, lines in titles.items():
            parts += [f"{title} against {self.names[0]}: {head}", text_table(*self._rows(lines), left=2)]
        return "\n\n".join([*parts, *(f"Note: {note}" for note in self.notes)]) + "\n"


def _signed(line: Difference) -> str:
    return "-" if math.isnan(line.low) else f"[{line.low:+.3f}, {line.high:+.3f}]"
