"""Listing text: the name, bullets, description, brand, quantity and claims of a product, and its text for encoders.

It does not know prices to be learnt, models or pictures. Any text is read, however malformed: what cannot be
understood is left out, and nothing raises. Stated prices are masked before anything else is read.
"""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import Field, field_validator

from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.data.group import MORE_CODE_NAMES, MORE_TITLE_NAMES
from shelfwise.data.prices_in_text import find_prices, mask_prices
from shelfwise.data.quantities import quantity_of, size_words
from shelfwise.errors import ConfigError
from shelfwise.findings import Finding, Findings
from shelfwise.roles import CODE_NAMES, TITLE_NAMES

#: Claims and how they are spelt; "kosher salt" is a grain, not a claim.
FLAGS = {
    "organic": r"(?<!non[ -])(?<!not )\borganic\b(?!\W{1,3}no\b)",
    "gluten-free": r"\bgluten[ -]?free\b|\bfree (?:of|from) gluten\b|\b(?:no|zero|without) gluten\b|\bgf\b",
    "sugar-free": r"\bsugar[ -]?free\b|\b(?:no|zero|without) sugars?\b|\bsugarless\b|\bfree (?:of|from) sugar\b",
    "kosher": r"(?<!non[ -])(?<!not )\bkosher\b(?! (?:coarse )?(?:sea )?salt)",
}
#: Characters of a listing in which claims are looked for.
MOST_FLAGGED = 100_000
#: Column names, besides those in ``roles``, in lower case with underscores.
BRAND_NAMES = ("brand", "brand_name", "manufacturer", "maker")
DESCRIPTION_NAMES = ("description", "product_description", "item_description", "long_description")
VALUE_NAMES, UNIT_NAMES = ("value", "item_value"), ("unit", "units", "uom", "unit_of_measure")


class TextOptions(Options):
    """How listing texts are read.

    Attributes:
        flags: further claims, name to regular expression (case does not matter), beside organic, gluten-free,
            sugar-free and kosher; a name of these four replaces its pattern. A pattern runs over texts of any
            origin: one whose nested repeats take exponential time is slow on them.
        mask_prices: replace prices that a text states by a token.
    """

    flags: dict[str, str] = Field(default_factory=dict)
    mask_prices: bool = True

    def __hash__(self) -> int:
        return hash((tuple(sorted(self.flags.items())), self.mask_prices))

    @field_validator("flags")
    @classmethod
    def _compiles(cls, flags: dict[str, str]) -> dict[str, str]:
        problems = []
        for name, pattern in flags.items():
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                problems.append(f"  flags.{name}: {pattern!r} is no regular expression: {error}")
        if problems:
            raise ConfigError("\n".join(problems))
        return flags


DEFAULTS = TextOptions()


@dataclass(frozen=True)
class Listing:
    """What the texts of one product say.

    Attributes:
        name: the product's name; empty where there is none.
        bullets: short further texts.
        description: the long text.
        brand: as stated in a field of its own; empty where there is none.
        value: how much is sold in all, in base units; NaN where nothing is said.
        unit: g, ml, cm, cm2, cm3, count, GB, W or mAh; empty where no known unit is said.
        pack: how many units are sold together; 1 where nothing is said.
        size: value / pack.
        size_words: words of the name that say a size, such as "family size" or "xl".
        flags: the names of the claims that are made.
    """

    name: str = ""
    bullets: tuple[str, ...] = ()
    description: str = ""
    brand: str = ""
    value: float = math.nan
    unit: str = ""
    pack: int = 1
    size: float = math.nan
    size_words: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()


_INLINE = re.compile(
    r"(?:^|(?<=\s))(?P<label>Item Name|Product Name|Bullet Point[ \t]{0,3}\d{0,4}|Product Description)[ \t]{0,3}:",
    re.I,
)
_LINE = re.compile(r"^[ \t]{0,8}(?P<label>Brand|Value|Unit)[ \t]{0,3}:", re.IGNORECASE | re.MULTILINE)
_TAIL = re.compile(r"\sValue[ \t]{0,3}:\s{0,3}(\S{1,40})\s{1,3}Unit[ \t]{0,3}:([^\n:]{0,60})$", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe\uffff\ud800-\udfff]"
)


def parse_listing(text: str, options: TextOptions = DEFAULTS) -> Listing:
    """Read one free text.

    The labels ``Item Name:``, ``Bullet Point 1:``, ``Product Description:``, ``Brand:``, ``Value:`` and ``Unit:``
    are understood; a text without them is a name (its first line) and a description (the rest).
    """
    return _listing(_sections(_cleaned(text)), options)


def read_listings(catalog: Catalog, options: TextOptions = DEFAULTS) -> tuple[Listing, ...]:
    """Read the texts of every row of a catalogue, from its text columns by their names.

    Titles, brands, descriptions, values and units are known by the usual column names; a cell with the labels of
    ``parse_listing`` is read as there; product codes and addresses are left out; what other columns say becomes a
    bullet, its column's name before it (that of ``bullet*`` columns left out). Texts that a catalogue's memo has are
    not read again.
    """
    rows = [tuple(fields) for fields in _rows(catalog)]
    known: dict[tuple[tuple[str, str], ...], Listing] = {}
    if catalog.memo is not None:
        known = catalog.memo.setdefault(("listings", options), known)
    for fields in rows:
        if fields not in known:
            known[fields] = _listing(_joined(fields), options)
    return tuple(known[fields] for fields in rows)


def price_findings(catalog: Catalog, options: TextOptions = DEFAULTS) -> Findings:
    """Return where texts of a catalogue state a price: one finding a cell, kind ``price_in_text``, and one note."""
    found: list[Finding] = []
    done = (
        "masked for learning and answering" if options.mask_prices else "left in the text: mask_prices is off"
    )
    for row, fields in enumerate(_rows(catalog)):
        for column, text in fields:
            if _plain(column) in (*BRAND_NAMES, *VALUE_NAMES, *UNIT_NAMES):
                continue
            priced = _spaced(_without_quantity(text))
            spans = find_prices(priced)
            if spans:
                stated = [priced[start:end] for start, end in spans[:3]]
                found.append(
                    Finding(
                        "price_in_text",
                        f"states a price: {', '.join(map(repr, stated))}",
                        row + 1,
                        catalog.ids[row],
                        column,
                        evidence={"prices": stated, "count": len(spans)},
                    )
                )
    if found:
        columns = ", ".join(dict.fromkeys(str(item.field) for item in found))
        note = f"{len(found)} texts of {len(catalog)} products state a price ({columns}); {done}"
        found.append(Finding("price_in_text", note, severity="note"))
    return Findings.of_all(found)


def encoder_text(listing: Listing) -> str:
    """Return one line for a text encoder, the quantity first, for encoders read only so many words."""
    parts = []
    if listing.pack > 1:
        parts.append(f"pack of {listing.pack}")
    if math.isfinite(listing.value) and not (listing.unit == "count" and listing.value == listing.pack):
        parts.append(f"{listing.value:.4g} {listing.unit}".strip())
        if listing.pack > 1:
            parts.append(f"{listing.size:.4g} {listing.unit} each".replace("  ", " "))
    brand = "" if listing.name.casefold().startswith(listing.brand.casefold()) else listing.brand
    texts = (", ".join(parts), listing.name, brand, *listing.bullets, listing.description)
    return ". ".join(text.rstrip(". ") for text in texts if text.strip(". "))


def _cleaned(text: str) -> str:
    """A text without entities, tags and characters that cannot be seen, its lines ended by line feeds."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    return _UNSEEN.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def _sections(text: str) -> dict[str, list[str]]:
    """The parts of a composite text under name, bullet, description, brand, value and unit."""
    marks = [*_INLINE.finditer(text), *_LINE.finditer(text)]
    marks.sort(key=re.Match.start)
    ends = [*(mark.start() for mark in marks), len(text)]
    first, _, rest = text[: ends[0]].strip().partition("\n")
    out = {"name": [first], "description": [rest]}
    for mark, end in zip(marks, ends[1:], strict=True):
        label = mark["label"].casefold().split()
        said = text[mark.end() : end]
        if label[0] in (
            "value",
            "unit",
            "brand",
        ):  # one line; what goes on below it belongs to the description
            said, _, rest = said.strip(" \t").partition("\n")
            out.setdefault("description", []).append(rest)
        out.setdefault("bullet" if label[0] == "bullet" else label[-1], []).append(said)
    if "value" not in out:
        tail = _TAIL.search(text, max(0, len(text) - 140))
        if tail:
            out["value"], out["unit"] = [tail[1]], [tail[2]]
    return out


def _composite(text: str) -> bool:
    """Whether a cell holds a whole listing with its labels."""
    return _INLINE.match(text.lstrip()[:40]) is not None


def _without_quantity(text: str) -> str:
    """A cleaned text up to its stated value, which is a quantity and no price."""
    text = _cleaned(text)
    if not _composite(text):
        return text
    marks = [mark.start() for mark in _LINE.finditer(text) if mark["label"].casefold() != "brand"]
    return text[: min(marks)] if marks else text


def _rows(catalog: Catalog) -> Iterable[list[tuple[str, str]]]:
    """The stated texts of each row, with their columns."""
    missing = {token.strip().casefold() for token in catalog.schema.missing}
    codes = (*CODE_NAMES, *MORE_CODE_NAMES)
    names = [name for name in catalog.text_columns if _plain(name) not in codes]
    columns = [catalog.texts(name) for name in names]
    for row in range(len(catalog)):
        cells = [(name, column[row] or "") for name, column in zip(names, columns, strict=True)]
        yield [
            (name, cell)
            for name, cell in cells
            if cell.strip().casefold() not in missing and not cell.startswith(("http://", "https://"))
        ]


def _plain(name: str) -> str:
    return "_".join(name.strip().casefold().replace("-", " ").split())


def _joined(fields: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The sections of a row, from all its columns."""
    out: dict[str, list[str]] = {}

    def add(parts: Mapping[str, Sequence[str]]) -> None:
        for part, texts in parts.items():
            out.setdefault(part, []).extend(texts)

    for column, cell in fields:
        name, text = _plain(column), _cleaned(cell)
        if _composite(text) or name in ("catalog_content", "text"):
            add(_sections(text))
        elif name in (*TITLE_NAMES, *MORE_TITLE_NAMES):
            add({"name": [text]})
        elif name in BRAND_NAMES:
            add({"brand": [text]})
        elif name in DESCRIPTION_NAMES:
            add({"description": [text]})
        elif name in VALUE_NAMES:
            add({"value": [text]})
        elif name in UNIT_NAMES:
            add({"unit": [text]})
        elif name.startswith("bullet"):
            add({"bullet": text.split("\n")})
        else:
            add({"bullet": [f"{column}: {text}"]})
    return out


def _listing(sections: Mapping[str, Sequence[str]], options: TextOptions) -> Listing:
    """Read the sections of a listing; of several names, brands, values or units the first that says something."""

    def one(part: str) -> str:
        return next((text for said in sections.get(part, ()) if (text := _spaced(said))), "")

    name, brand = one("name"), one("brand")
    bullets = tuple(text for said in sections.get("bullet", ()) if (text := _spaced(said)))
    description = _spaced(" ".join(sections.get("description", ())))
    masked = mask_prices(name), tuple(map(mask_prices, bullets)), mask_prices(description)
    quantity = quantity_of(masked[0], one("value"), one("unit"), (*masked[1], masked[2]))
    if options.mask_prices:
        name, bullets, description = masked
    everything = "\n".join((name, *bullets, description))[:MOST_FLAGGED]
    return Listing(
        "" if name == "-" else name,
        bullets,
        description,
        brand,
        quantity.value,
        quantity.unit,
        quantity.pack,
        quantity.size,
        size_words(name),
        tuple(
            flag for flag, pattern in _patterns(tuple(options.flags.items())) if pattern.search(everything)
        ),
    )


def _spaced(text: str) -> str:
    return " ".join(text.split())


@lru_cache(maxsize=64)
def _patterns(added: tuple[tuple[str, str], ...]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    flags: dict[str, Any] = {**FLAGS, **dict(added)}
    return tuple((name, re.compile(pattern, re.IGNORECASE)) for name, pattern in flags.items())
