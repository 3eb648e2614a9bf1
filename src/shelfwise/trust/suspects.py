"""Audit, the value: stated values beside what pictures show, as a table and as findings.

It does not know how they were ranked.
Legend: M stated values.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.errors import PredictionError
from shelfwise.findings import Finding, Findings
from shelfwise.tables import write_frame
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.mispriced import NumberAudit
from shelfwise.trust.noise import Noise

COLUMNS = (
    "id",
    "category",
    "attribute",
    "column",
    "stated",
    "seen",
    "p_stated",
    "p_seen",
    "odds",
    "evidence",
)
#: Odds of being wrong from which a value is a suspect. The estimate is cautious, as a model that learns from
#: wrong values allows for them: of such suspects 48 to 67 % were errors planted for a test.
SUSPECT = 0.1
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Audit:
    """Stated values and what the pictures show, most suspicious first.

    Attributes:
        taxonomy: what the codes mean.
        ids: of the table's products.
        columns: the table's columns that state values, texts included.
        row: int64 [M], position in the table.
        category: int64 [M], code.
        attribute: int64 [M], position among the category's Choice attributes.
        column: int64 [M], position in ``columns``.
        stated, seen: int64 [M], codes; ``seen`` is the most probable value.
        negated: bool [M], a text denies the value.
        in_words: bool [M], the value was read from text.
        p_stated, p_seen: float64 [M], calibrated probabilities of what is stated and of what is seen.
        odds: float64 [M], how many times more probable what is stated is if it is wrong than if it is
            right, times the attribute's weight.
        prior: the odds that a stated value is wrong before its picture is seen; times ``odds``, after.
        cells: shares of wrong values that were estimated in cells.
        words: the same in texts.
        evidence: ids of look-alikes, empty where none were asked for.
        unseen: rows without a readable picture or a known category, whose values are not judged.
        numbers: stated numbers, one part per Number.
        category_of: the category cell of every row of the table.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    row: Ints
    category: Ints
    attribute: Ints
    column: Ints
    stated: Ints
    seen: Ints
    negated: npt.NDArray[np.bool_]
    in_words: npt.NDArray[np.bool_]
    p_stated: Floats
    p_seen: Floats
    odds: Floats
    prior: float
    cells: Noise
    words: Noise
    evidence: tuple[tuple[str, ...], ...] = ()
    unseen: int = 0
    numbers: tuple[NumberAudit, ...] = ()
    category_of: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.row)

    @property
    def suspect(self) -> npt.NDArray[np.bool_]:
        """Bool [M], values that should be looked at: the odds that they are wrong are at least ``SUSPECT``."""
        return np.asarray(self.odds * self.prior >= SUSPECT)

    @property
    def suspects(self) -> int:
        """How many values are suspects; they come first."""
        return int(self.suspect.sum())

    def frame(self) -> pl.DataFrame:
        """Return one row per stated value and number, see ``COLUMNS``; the likeliest errors first.

        What is seen of a number is the range that it was expected in, and ``p_seen`` the range's coverage.
        """
        parts = [self.values()]
        for item in self.numbers:
            schema = parts[0].schema
            parts.append(pl.DataFrame(item.columns(self.category_of), schema=schema))
        return (
            pl.concat(parts).sort("odds", descending=True, maintain_order=True) if self.numbers else parts[0]
        )

    def values(self) -> pl.DataFrame:
        """Return one row per stated value of a Choice attribute, in this audit's order."""
        names = self.taxonomy.categories
        choices = [self.taxonomy.choices(name) for name in names]
        codes = zip(
            self.category.tolist(),
            self.attribute.tolist(),
            self.stated.tolist(),
            self.seen.tolist(),
            self.negated.tolist(),
            strict=True,
        )
        texts = []
        for category, attribute, stated, seen, negated in codes:
            choice = choices[category][attribute]
            said = f"not {choice.values[stated]}" if negated else choice.values[stated]
            texts.append((names[category], choice.name, said, choice.values[seen]))
        category_M, attribute_M, stated_M, seen_M = zip(*texts, strict=True) if texts else ((), (), (), ())
        evidence = [";".join(ids) for ids in self.evidence] if self.evidence else [""] * len(self)
        return pl.DataFrame(
            {
                "id": pl.Series([self.ids[row] for row in self.row.tolist()], dtype=pl.String),
                "category": pl.Series(category_M, dtype=pl.String),
                "attribute": pl.Series(attribute_M, dtype=pl.String),
                "column": pl.Series([self.columns[at] for at in self.column.tolist()], dtype=pl.String),
                "stated": pl.Series(stated_M, dtype=pl.String),
                "seen": pl.Series(seen_M, dtype=pl.String),
                "p_stated": self.p_stated,
                "p_seen": self.p_seen,
                "odds": self.odds,
                "evidence": pl.Series(evidence, dtype=pl.String),
            }
        )

    def write(self, path: str | Path) -> None:
        """Write to ``.csv`` or ``.parquet``, whole or not at all.

        Raises:
            UsageError: another ending.
        """
        write_frame(self.frame(), path, escape=("column",))

    def findings(self) -> Findings:
        """Return the suspects as findings: ``suspect_label``, in words ``suspect_claim``, ``price_out_of_range``."""
        found = []
        for at in np.flatnonzero(self.suspect).tolist():
            choice = self.taxonomy.choices(self.taxonomy.categories[self.category[at]])[self.attribute[at]]
            said = ("not " if self.negated[at] else "") + choice.values[self.stated[at]]
            seen, id_ = choice.values[self.seen[at]], self.ids[self.row[at]]
            message = (
                f"{choice.name} is stated to be {said!r}, and the picture looks like {seen!r} "
                f"({self.p_seen[at]:.3f} against {self.p_stated[at]:.3g})"
            )
            evidence = {
                "attribute": choice.name,
                "stated": said,
                "seen": seen,
                "p_stated": round(float(self.p_stated[at]), 6),
                "p_seen": round(float(self.p_seen[at]), 6),
                "odds": round(float(self.odds[at]), 4),
                "look_alikes": list(self.evidence[at]) if self.evidence else [],
            }
            where = int(self.row[at]) + 1, id_, self.columns[self.column[at]]
            if self.in_words[at]:
                found.append(Finding("suspect_claim", message, *where, "warning", evidence))
            else:
                found.append(Finding("suspect_label", message, *where, "warning", evidence))
        numbers = (finding for item in self.numbers for finding in item.findings())
        return Findings((*found, *numbers))

    def with_evidence(self, ids: Sequence[Sequence[str]]) -> "Audit":
        """Return the same audit with look-alikes, a sequence of ids for every stated value.

        Raises:
            PredictionError: another number of them.
        """
        if len(ids) != len(self):
            raise PredictionError(f"look-alikes of {len(ids)} stated values, the audit has {len(self)}")
        return replace(self, evidence=tuple(map(tuple, ids)))
