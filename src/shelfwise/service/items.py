"""Items: the questions of a review desk, and how far it has come with them.

They know neither a database nor HTTP, nor how an item was found.
"""

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from shelfwise.cells import number_cells
from shelfwise.errors import DeskError, listing, suggest
from shelfwise.service.verdicts import DECISIONS, Kind, Verdict

Reason = Literal["mismatch", "unsure", "unfamiliar", "category?"]


@dataclass(frozen=True)
class LookAlike:
    """A product learnt from that looks like the item's.

    Attributes:
        id: its id.
        similarity: cosine of the pictures, at most 1.
        value: what it states for the item's attribute; None where it states none.
        photo: where its picture is known, the file.
    """

    id: str
    similarity: float
    value: str | None = None
    photo: Path | None = None


@dataclass(frozen=True)
class Item:
    """One question to a reviewer: is the value seen right for this attribute of this product?

    Attributes:
        key: names the question; the same product and attribute have the same key.
        id: the product's id.
        category: its category.
        attribute: the attribute; empty where the category itself is in question.
        supplier: who listed it; empty if not known.
        photo: its picture's file.
        stated: the value in the table.
        seen: the value that the picture shows, according to the bundle.
        probability: of the value seen; None where it is not known, as of a category in question.
        runner_up: the second likeliest value.
        runner_up_probability: its probability.
        state: as in the answers, such as ``unsure``.
        reason: why it is asked: mismatch, unsure, unfamiliar or category?.
        risk: uncertainty times weight; the largest is asked first.
        cluster: name shared by items of the same category, attribute, stated and seen value whose pictures look alike;
            empty for none.
        look_alikes: products learnt from that look most like it.
        values: all values of the attribute (of a category in question: all categories; of a Number: none).
        not_applicable: the value that says that the attribute does not apply; None where it has none.
        number: whether a number is asked for; the value seen is then one that a slip explains.
        expected: of a number, what is known of it, in a sentence.
        heat: where in the photo the value seen comes from, as ``pages.heat.packed`` writes it; empty where no map was
            drawn.
    """

    key: str
    id: str
    category: str
    attribute: str
    supplier: str
    photo: Path | None
    stated: str | None
    seen: str | None
    probability: float | None
    runner_up: str | None
    runner_up_probability: float | None
    state: str
    reason: Reason
    risk: float
    cluster: str
    look_alikes: tuple[LookAlike, ...]
    values: tuple[str, ...]
    not_applicable: str | None = None
    number: bool = False
    expected: str = ""
    heat: str = ""


@dataclass(frozen=True)
class Filters:
    """Which items are asked; None for all."""

    category: str | None = None
    attribute: str | None = None
    supplier: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Tally:
    """How many items of one name are done, and how many are left."""

    name: str
    done: int
    left: int


@dataclass(frozen=True)
class Progress:
    """How far the review is.

    Attributes:
        done: items that need no further verdict.
        left: items that do.
        by_attribute, by_category, by_supplier, by_reason: the same, by name, most left first.
        by_reviewer: verdicts that stand, skips aside, by name, most first.
    """

    done: int
    left: int
    by_attribute: tuple[Tally, ...]
    by_category: tuple[Tally, ...]
    by_supplier: tuple[Tally, ...]
    by_reason: tuple[Tally, ...]
    by_reviewer: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Agreement:
    """How often two reviewers of one item say the same.

    Attributes:
        items: items that two reviewers looked at.
        agreed: of them, with the same outcome.
        kappa: Cohen's kappa; None with no item, or where chance alone would always agree.
        disagreed: keys of the items where they do not agree.
    """

    items: int
    agreed: int
    kappa: float | None
    disagreed: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """Share of items with the same outcome; None with no item."""
        return self.agreed / self.items if self.items else None


def key_of(id: str, category: str, attribute: str) -> str:
    """Return the key of a question: the same product, category and attribute have the same one."""
    text = json.dumps([id, category, attribute], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def to_json(item: Item) -> str:
    """Return an item as text; the inverse of ``from_json``."""
    return json.dumps(asdict(item), ensure_ascii=False, sort_keys=True, default=str)


def from_json(text: str) -> Item:
    """Return the item that ``to_json`` wrote.

    Raises:
        DeskError: it is not one.
    """
    try:
        table: dict[str, Any] = json.loads(text)
        near = tuple(LookAlike(**{**each, "photo": _path(each["photo"])}) for each in table["look_alikes"])
        given = {
            **table,
            "photo": _path(table["photo"]),
            "look_alikes": near,
            "values": tuple(table["values"]),
        }
        return Item(**given)
    except (ValueError, KeyError, TypeError) as error:
        raise DeskError(f"an item of the desk cannot be read ({error}): fill the desk again") from error


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def shown_twice(key: str, second: float) -> bool:
    """Whether an item is one of the share that two reviewers look at; told by its key alone."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) < second * 16**12


def cohens_kappa(pairs: Sequence[tuple[Hashable, Hashable]]) -> float | None:
    """Return the agreement of two raters beyond chance (Cohen, 1960); None where chance alone always agrees."""
    if not pairs:
        return None
    n = len(pairs)
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    observed = sum(a == b for a, b in pairs) / n
    expected = sum(first.count(label) * second.count(label) for label in set(first)) / n**2
    return None if expected >= 1 else (observed - expected) / (1 - expected)


def plain_number(text: str) -> str | None:
    """Return a number as it is kept, without signs for thousands; None where the text is none."""
    value_1, _ = number_cells(pl.Series([text], dtype=pl.String), ())
    return None if np.isnan(value_1[0]) else f"{value_1[0]:.12g}"


def value_after(item: Item, kind: Kind, value: str | None) -> str | None:
    """Return the value that a verdict leaves, after making sure that it can be said of this item.

    Raises:
        DeskError: an unknown kind or value, or nothing to accept.
    """
    what = f"item {item.key} (id {item.id!r}, {item.attribute or 'category'})"
    if kind not in DECISIONS:
        raise DeskError(f"{what}: there is no verdict {kind!r}; there are {listing(DECISIONS)}")
    if value is not None and kind != "correct":
        raise DeskError(f"{what}: only a correction has a value, {kind!r} was given {value!r}")
    if kind == "correct" and item.number:
        number = plain_number(value or "")
        if number is None:
            raise DeskError(f"{what}: {value!r} is not a number")
        return number
    if kind == "correct":
        if value not in item.values:
            hint = suggest(value or "", item.values) or f"It has: {listing(item.values)}."
            raise DeskError(f"{what}: {value!r} is not one of its values. {hint}")
        return value
    if kind == "accept" and item.seen is None:
        raise DeskError(f"{what}: no value is seen in it that could be accepted; correct it instead")
    if kind == "not_applicable" and not item.attribute:
        raise DeskError(f"{what}: every product has a category; correct it, or skip it")
    return {"accept": item.seen, "not_applicable": item.not_applicable}.get(kind)


def outcome(item: Item, verdict: Verdict) -> tuple[str, str | None]:
    """Return what a verdict comes to: the value seen, the one stated, another by name, or why there is none."""
    if verdict.kind in ("not_applicable", "not_visible"):
        return verdict.kind, None
    if verdict.after == item.seen:
        return "seen", None
    return ("stated", None) if verdict.after == item.stated else ("value", verdict.after)
