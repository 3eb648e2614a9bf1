"""Affected: the cells that a change of the taxonomy concerns, and what is to be done about each.

It does not know how they were found (``recode``).
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import polars as pl

from shelfwise.findings import Finding, Findings

#: What a change asks for, the most pressing first.
ANSWER, LOOK, REMOVED, REWRITTEN = "answer again", "look again", "removed", "rewritten"
#: Reasons that the printed summary lists for each action.
MOST_REASONS = 30
ACTIONS = (ANSWER, LOOK, REMOVED, REWRITTEN)
MEANING = {
    ANSWER: "must be answered again",
    LOOK: "were answered from a list that has a new value now",
    REMOVED: "lose a cell whose attribute is gone",
    REWRITTEN: "are rewritten without loss",
}


class Affected(NamedTuple):
    """One cell that a change of the taxonomy concerns.

    Attributes:
        row: product row counted from 1.
        id: the product's id.
        category: its category, by the old name.
        attribute: by its new name, by the old one where it is gone; empty for the category itself.
        column: where the cell stands, or will stand, in the table.
        stated: what it says, if anything.
        becomes: what it says afterwards, if anything.
        action: ``answer again``, ``look again``, ``removed`` or ``rewritten``.
        reason: which change it is.
    """

    row: int
    id: str
    category: str
    attribute: str
    column: str
    stated: str | None
    becomes: str | None
    action: str
    reason: str


@dataclass(frozen=True, eq=False)
class Recoded:
    """A table under the new taxonomy.

    Attributes:
        frame: the table, every cell as text.
        affected: the cells a change concerns, and no others; by row.
    """

    frame: pl.DataFrame
    affected: tuple[Affected, ...]

    @cached_property
    def findings(self) -> Findings:
        """Every cell that was emptied, with what it said."""
        found = []
        for item in self.affected:
            if item.stated is not None and item.becomes is None:
                kind = "removed_cell" if item.action == REMOVED else "emptied_cell"
                evidence = {"stated": item.stated, "category": item.category, "attribute": item.attribute}
                message = f"the cell said {item.stated!r}: {item.reason}"
                found.append(Finding(kind, message, item.row, item.id, item.column, "warning", evidence))
        return Findings.of_all(found)

    def products(self, action: str | None = None) -> int:
        """Return how many products have a cell of an action, of any by default."""
        return len({item.row for item in self.affected if action in (None, item.action)})

    def table(self) -> pl.DataFrame:
        """Return the affected cells, one a row."""
        kinds = {name: pl.Int64 if name == "row" else pl.String for name in Affected._fields}
        return pl.DataFrame(list(self.affected), schema=kinds, orient="row")

    def summary(self) -> str:
        """Say in a few lines how many products must be answered again, and why."""
        again = f"{self.products(ANSWER):,} must be answered again"
        lines = [f"{self.products():,} of {self.frame.height:,} products are affected, {again}"]
        for action in ACTIONS:
            chosen = [item for item in self.affected if item.action == action]
            if chosen:
                lines.append(f"{action}: {self.products(action):,} products {MEANING[action]}")
                reasons = Counter(
                    (item.category, item.attribute or "category", item.reason) for item in chosen
                )
                ordered = sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0]))
                lines += [
                    f"  {count:>7,}  {where} / {what}: {why}"
                    for (where, what, why), count in ordered[:MOST_REASONS]
                ]
                if len(ordered) > MOST_REASONS:
                    lines.append(
                        f"  ... and {len(ordered) - MOST_REASONS:,} more reasons; -o lists every cell"
                    )
        return "\n".join(lines) + "\n"
