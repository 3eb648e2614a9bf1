"""Verdicts: what reviewers said, as a chain of records that can be checked.

They do not know where they are kept, nor what is asked next. Every record holds the SHA-256 of the one before it,
so a record that is changed, taken out or put in between is found.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields, replace
from typing import Any, Literal, get_args

Kind = Literal["accept", "correct", "not_applicable", "not_visible", "skip", "undo"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: What a reviewer can say of an item; ``undo`` is said of a verdict.
DECISIONS: tuple[Kind, ...] = KINDS[:-1]
#: What the first record holds in place of the hash before it.
NOTHING = "0" * 64


@dataclass(frozen=True)
class Verdict:
    """One record of the chain.

    Attributes:
        seq: its place in the chain, from 1.
        item: the key of the item.
        reviewer: who.
        at: when, in UTC, ISO 8601.
        kind: what was said.
        before: the value that held before: of the reviewer's own earlier verdict, else the value stated; None for
            none.
        after: the value that holds now; None for none (not visible, skipped, not applicable without such a value).
        model: hash of the bundle whose answer was judged.
        taxonomy: hash of the taxonomy it answered under.
        token: names one act of the reviewer; the verdicts of a cluster share it.
        undoes: the place of the verdict that this one takes back.
        previous: hash of the record before; zeros for the first.
        hash: SHA-256 of this record without its hash.
    """

    seq: int
    item: str
    reviewer: str
    at: str
    kind: Kind
    before: str | None
    after: str | None
    model: str
    taxonomy: str
    token: str
    undoes: int | None = None
    previous: str = NOTHING
    hash: str = ""

    def row(self) -> tuple[Any, ...]:
        """Return the record as a row, see ``COLUMNS``."""
        return astuple(self)

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON of everything but the hash."""
        table = asdict(self)
        del table["hash"]
        text = json.dumps(table, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def sealed(self) -> "Verdict":
        """Return the record with its hash."""
        return replace(self, hash=self.digest())


#: The columns of a record, in order.
COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Verdict))


def broken(verdicts: Iterable[Verdict]) -> tuple[str, ...]:
    """Return what is wrong with a chain of records, in sentences; empty where nothing is.

    A chain that was cut off at its end is whole in itself: compare its last hash with one noted elsewhere.
    """
    faults: list[str] = []
    reviewer_of: dict[int, str] = {}
    seq, last = 0, NOTHING
    for verdict in verdicts:
        name = f"record {verdict.seq} (item {verdict.item}, {verdict.reviewer})"
        if verdict.seq != seq + 1:
            faults.append(f"{name}: follows record {seq}, so records are missing or out of place")
        elif verdict.previous != last:
            faults.append(
                f"{name}: holds the hash {verdict.previous[:12]} of the record before, which is {last[:12]}"
            )
        if verdict.digest() != verdict.hash:
            faults.append(f"{name}: was changed, its content does not match its hash")
        if verdict.undoes is not None and reviewer_of.get(verdict.undoes) != verdict.reviewer:
            faults.append(
                f"{name}: takes back record {verdict.undoes}, which is not an earlier one of this reviewer"
            )
        if (verdict.kind == "undo") != (verdict.undoes is not None):
            faults.append(f"{name}: is {verdict.kind!r} and takes back {verdict.undoes}")
        reviewer_of[verdict.seq] = verdict.reviewer
        seq, last = verdict.seq, verdict.hash
    return tuple(faults)


def standing(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], Verdict]:
    """Return what stands after all records: for every item and reviewer the last verdict not taken back."""
    acts: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        place = acts.setdefault((verdict.item, verdict.reviewer), [])
        if verdict.kind == "undo":
            place[:] = [each for each in place if each.seq != verdict.undoes]
        else:
            place.append(verdict)
    return {place: said[-1] for place, said in acts.items() if said}
