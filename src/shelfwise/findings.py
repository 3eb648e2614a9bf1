"""Findings: row, kind, severity, evidence; what reading, checking, cleaning and auditing return.

It does not know how a finding was found.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as option
from pathlib import Path
from typing import Any, Literal

import polars as pl

from shelfwise.errors import UsageError

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing found in a catalogue.

    Attributes:
        kind: a short stable name such as ``duplicate_id``.
        message: one sentence for the user.
        row: product row counted from 1, the header not counted; ``None`` for the whole table.
        id: the product's id as it stands in the table.
        field: the column or attribute concerned.
        severity: ``error`` (no answer possible there), ``warning`` or ``note``.
        evidence: numbers and names behind it, JSON-ready.
    """

    kind: str
    message: str
    row: int | None = None
    id: str | None = None
    field: str | None = None
    severity: Severity = "warning"
    evidence: Mapping[str, Any] = option(default_factory=dict)

    def __str__(self) -> str:
        where = ", ".join(
            part
            for part in (
                f"row {self.row}" if self.row is not None else "",
                f"id {self.id}" if self.id is not None else "",
                self.field or "",
            )
            if part
        )
        return f"{self.severity}: {self.kind}: {self.message}" + (f" ({where})" if where else "")


@dataclass(frozen=True)
class Findings:
    """An immutable sequence of findings."""

    items: tuple[Finding, ...] = ()

    @classmethod
    def of_all(cls, items: Iterable[Finding]) -> "Findings":
        """Collect findings, worst first, then by row."""
        order = {severity: position for position, severity in enumerate(SEVERITIES)}
        return cls(tuple(sorted(items, key=lambda f: (order[f.severity], f.row if f.row is not None else 0))))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Finding:
        return self.items[index]

    def __add__(self, other: "Findings") -> "Findings":
        return Findings.of_all((*self.items, *other.items))

    def of(self, *, kind: str | None = None, severity: Severity | None = None) -> "Findings":
        """Return the findings of one kind, one severity, or both."""
        return Findings(
            tuple(
                item
                for item in self.items
                if (kind is None or item.kind == kind) and (severity is None or item.severity == severity)
            )
        )

    def counts(self) -> dict[str, int]:
        """Return how many there are of each kind, most frequent first."""
        return dict(Counter(item.kind for item in self.items).most_common())

    def frame(self) -> pl.DataFrame:
        """Return a polars frame: row, id, field, kind, severity, message, evidence (JSON text)."""
        return pl.DataFrame(
            {
                "row": [item.row for item in self.items],
                "id": [item.id for item in self.items],
                "field": [item.field for item in self.items],
                "kind": [item.kind for item in self.items],
                "severity": [item.severity for item in self.items],
                "message": [item.message for item in self.items],
                "evidence": [json.dumps(dict(item.evidence), sort_keys=True) for item in self.items],
            },
            schema={
                "row": pl.Int64,
                "id": pl.String,
                "field": pl.String,
                "kind": pl.String,
                "severity": pl.String,
                "message": pl.String,
                "evidence": pl.String,
            },
        )

    def write(self, path: str | Path) -> None:
        """Write to ``.csv``, ``.parquet`` or ``.json``; CSV cells a spreadsheet would run are escaped.

        Raises:
            UsageError: another ending.
        """
        from shelfwise.tables import write_frame

        path = Path(path)
        if path.suffix == ".json":
            from shelfwise.files import write_text

            write_text(path, self.frame().write_json() + "\n")
        elif path.suffix in (".csv", ".parquet"):
            write_frame(self.frame(), path, escape=("id", "field", "message", "evidence"))
        else:
            raise UsageError(f"findings are written to .csv, .parquet or .json, not {path.suffix!r}: {path}")
