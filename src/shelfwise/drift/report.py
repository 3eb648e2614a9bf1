"""Drift: what is different about a later table, line by line; as text, table and file.

It does not know how differences are found, nor where anything comes from.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shelfwise.errors import UsageError
from shelfwise.plaintext import show

if TYPE_CHECKING:
    import polars as pl

#: What can drift, and how it is said.
KINDS: Mapping[str, str] = {
    "categories": "shares of categories",
    "values": "shares of values",
    "confidence": "confidence",
    "answered": "share answered",
    "look": "look of the pictures",
    "familiar": "unlike anything learnt",
}
#: The kinds that are about pictures; the others are about answers.
PICTURES = ("look", "familiar")
#: What kind of a change it is, and what that means.
CAUSES: Mapping[str, str] = {
    "prior": "other products, pictured as before",
    "covariate": "pictures that look different",
    "both": "other products, and pictures that look different",
    "unknown": "cannot be told apart",
}
ENDINGS = (".json", ".csv", ".parquet")


@dataclass(frozen=True)
class DriftLine:
    """One comparison of a table with what a bundle learnt from.

    Attributes:
        kind: of ``KINDS``.
        column, slice: the column by which the table was cut, and the cell; ``None`` for all of it.
        category, attribute: ``None`` for all of them.
        products, groups: compared in the later table, and their near-duplicate groups.
        learnt: products learnt from that they are compared with.
        before, after: share or mean; of ``values`` of a Choice the share of ``value``.
        value: the value whose share moved most.
        effect: Cohen's w of shares, Cohen's d of a mean; of ``look`` the distance of the means in standard deviations.
        least: the effect that is the least that matters.
        p: probability of a difference as large by chance.
        adjusted: the same, adjusted for the number of comparisons; NaN where it is shown only.
        drift: whether it is reported: not by chance, and large enough to matter.
        cause: of ``CAUSES``; empty where nothing is reported or no cause is looked for.
        against: ``all`` products learnt from, the ``same`` slice of them, or all of them for a ``new`` slice.
    """

    kind: str
    column: str | None
    slice: str | None
    category: str | None
    attribute: str | None
    products: int
    groups: int
    learnt: int
    before: float
    after: float
    effect: float
    least: float
    p: float
    value: str | None = None
    adjusted: float = math.nan
    drift: bool = False
    cause: str = ""
    against: str = "all"

    @property
    def where(self) -> str:
        """The place in words."""
        cut = [f"{self.column} {self.slice!r}"] if self.column is not None else []
        place = [part for part in (self.category, self.attribute) if part is not None]
        return ", ".join([*cut, "/".join(place) or "all categories"])

    @property
    def said(self) -> str:
        """What happened, without the place."""
        if self.kind == "look":
            text = f"moved by {self.effect:.2f} standard deviations"
        elif self.kind in ("values", "categories") and self.value is not None:
            text = f"{self.value!r}: {self.before:.1%} before, {self.after:.1%} now"
        elif self.kind == "values":
            text = f"typically {show(self.before, 2)} before, {show(self.after, 2)} now"
        elif self.kind == "confidence":
            text = f"{self.before:.3f} before, {self.after:.3f} now"
        else:
            text = f"{self.before:.1%} before, {self.after:.1%} now"
        cause = f" ({CAUSES[self.cause]})" if self.cause else ""
        return text + cause


@dataclass(frozen=True)
class Drift:
    """A table compared with what a bundle learnt from.

    Attributes:
        lines: every comparison, what is reported first, then by effect over the least that matters.
        products, groups: of the table.
        learnt: products learnt from.
        known: products of the table that were learnt from, judged by what was said of them out of fold.
        unreadable: share of the table without a readable picture.
        rate: the probability of any report where nothing changed.
        notes: sentences.
    """

    lines: tuple[DriftLine, ...]
    products: int
    groups: int
    learnt: int
    known: int
    unreadable: float
    rate: float
    notes: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[DriftLine, ...]:
        """What is reported."""
        return tuple(line for line in self.lines if line.drift)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        tested = sum(not math.isnan(line.adjusted) for line in self.lines)
        if not tested:
            return "Nothing could be compared: too few products."
        many = len(self.found)
        word = "Drift" if many else "No drift"
        return f"{word}: {many} of {tested} comparisons differ by more than chance, and enough to matter."

    def frame(self) -> "pl.DataFrame":
        """Return a table with one row a comparison; columns as the fields of ``DriftLine``."""
        import polars as pl

        kinds = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}
        types = {
            each.name: next(kinds[kind] for kind in kinds if kind.__name__ in str(each.type))
            for each in fields(DriftLine)
        }
        return pl.DataFrame([asdict(line) for line in self.lines], schema=types)

    def table(self) -> dict[str, Any]:
        """Return everything as JSON holds it; NaN is null."""
        held = asdict(self) | {"found": len(self.found), "verdict": self.verdict}
        held["lines"] = [
            {
                name: None if isinstance(cell, float) and math.isnan(cell) else cell
                for name, cell in line.items()
            }
            for line in held["lines"]
        ]
        return held

    def write(self, path: str | Path) -> None:
        """Write to ``.json`` (everything), or the lines to ``.csv`` or ``.parquet``.

        Raises:
            UsageError: another ending.
        """
        from shelfwise.files import write_text
        from shelfwise.tables import write_frame

        check_ending(path)
        if Path(path).suffix == ".json":
            write_text(path, json.dumps(self.table(), ensure_ascii=False, indent=1) + "\n")
        else:
            write_frame(
                self.frame(), Path(path), escape=("column", "slice", "category", "attribute", "value")
            )

    def __str__(self) -> str:
        lines = [f"{line.where}: {KINDS[line.kind]}: {line.said}" for line in self.found]
        return "\n".join([self.verdict, *lines, *(f"note: {note}" for note in self.notes)])


def check_ending(path: str | Path) -> None:
    """Refuse a path that could not be written, before anything is computed.

    Raises:
        UsageError: another ending than .json, .csv or .parquet.
    """
    if Path(path).suffix not in ENDINGS:
        given = Path(path).suffix or "no ending"
        raise UsageError(f"what drifted is written to .json, .csv or .parquet, not {given!r}: {path}")
