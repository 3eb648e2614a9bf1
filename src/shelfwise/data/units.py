"""Units and numbers as shops write them: unit names to base units, numbers with separators and fractions.

It does not know names of products or packs. Base units: g, ml, cm, cm2, cm3, count, GB, W, mAh; centimetres
because what shops sell is between one and a thousand of them.
"""

import difflib
import math
import re
from collections.abc import Sequence
from functools import lru_cache

_OUNCE, _POUND, _FLUID_OUNCE, _GALLON, _INCH = 28.349523125, 453.59237, 29.5735295625, 3785.411784, 2.54
#: Base unit -> names in the singular, and how many base units one is. A name of several words may be written
#: with blanks, dots, hyphens or nothing between them.
UNITS: dict[str, dict[str, float]] = {
    "g": {
        **dict.fromkeys(("g", "gm", "gr", "grm", "gram", "gramme"), 1.0),
        **dict.fromkeys(("kg", "kilo", "kgm", "kilogram", "kilogramme"), 1000.0),
        **dict.fromkeys(("oz", "ounce", "onz", "oz wt", "ounce weight"), _OUNCE),
        **dict.fromkeys(("lb", "pound"), _POUND),
        **dict.fromkeys(("mg", "milligram"), 1e-3),
        **dict.fromkeys(("mcg", "µg", "microgram"), 1e-6),
    },
    "ml": {
        **dict.fromkeys(("ml", "milliliter", "millilitre", "cc"), 1.0),
        **dict.fromkeys(("cl", "centiliter", "centilitre"), 10.0),
        **dict.fromkeys(("dl", "deciliter", "decilitre"), 100.0),
        **dict.fromkeys(("l", "lt", "ltr", "lit", "liter", "litre"), 1000.0),
        **dict.fromkeys(
            ("fl oz", "fluid ounce", "fl ounce", "fluid oz", "fld oz", "ounce fluid", "oz fl"), _FLUID_OUNCE
        ),
        **dict.fromkeys(("pt", "pint"), _GALLON / 8),
        **dict.fromkeys(("qt", "quart"), _GALLON / 4),
        **dict.fromkeys(("gal", "gallon", "gallone"), _GALLON),
    },
    "cm": {
        **dict.fromkeys(("mm", "millimeter", "millimetre"), 0.1),
        **dict.fromkeys(("cm", "centimeter", "centimetre"), 1.0),
        **dict.fromkeys(("m", "mtr", "meter", "metre"), 100.0),
        **dict.fromkeys(("in", "inch", "inche"), _INCH),
        **dict.fromkeys(("ft", "foot", "feet"), 12 * _INCH),
        **dict.fromkeys(("yd", "yard"), 36 * _INCH),
    },
    "cm2": {
        **dict.fromkeys(("sq cm", "square cm", "square centimeter", "square centimetre"), 1.0),
        **dict.fromkeys(("sq m", "sq mtr", "sq meter", "square meter", "square metre", "m2"), 1e4),
        **dict.fromkeys(("sq in", "sq inch", "square inch", "square inche"), _INCH**2),
        **dict.fromkeys(("sq ft", "sq feet", "square foot", "square feet", "square ft"), (12 * _INCH) ** 2),
        **dict.fromkeys(("sq yd", "square yard"), (36 * _INCH) ** 2),
    },
    "cm3": dict.fromkeys(("cu ft", "cubic foot", "cubic feet", "cubic ft"), (12 * _INCH) ** 3),
    "GB": {"mb": 1e-3, "gb": 1.0, "gigabyte": 1.0, "tb": 1e3, "terabyte": 1e3},
    "W": {"w": 1.0, "watt": 1.0, "kw": 1e3, "kilowatt": 1e3},
    "mAh": {"mah": 1.0},
}
#: What is counted, as patterns: pieces, containers, and what one unit to sell may hold many of.
PIECES = "counts?|cts?|cnt|pcs?|pces?|pieces?|units?|nos|items?"
PACKS = (
    "packs?|pks?|pkts|packets?|bottles?|cans?|jars?|box(?:es)?|bags?|pouch(?:es)?|sachets?|tins?|cartons?|tubs?|"
    "tubes?|sets?|pairs?|cases?|p"
)
CONTENTS = (
    "tea[ -]?bags?|k[ -]?cups?|tablets?|capsules?|caplets?|soft ?gels?|gumm(?:y|ies?)|lozenges?|pills?|pods?|sheets?|"
    "rolls?|wipes?|diapers?|eggs?|bars?|sticks?|bulbs?|batter(?:y|ies)|candles?|cookies?|loads?|pads?|napkins?|"
    "tissues?|vcaps?|rounds?"
)
_KNOWN = {
    **{name: (base, factor) for base, names in UNITS.items() for name, factor in names.items()},
    **dict.fromkeys(
        ("count", "each", "ea", "piece", "bottle", "packet", "tablet", "tab", "capsule"), ("count", 1.0)
    ),
    "dozen": ("count", 12.0),
}
_JOINED = {known.replace(" ", ""): unit for known, unit in _KNOWN.items()}
_COUNTED = re.compile(f"{PIECES}|{PACKS}|{CONTENTS}")
_NONE = ("", "none", "nan", "null", "na", "n a", "-", "unknown", "other")

NUMBER = r"(?:\d{1,3}(?:,\d{2,3}){1,4}(?:\.\d{1,6})?|\d{1,9}(?:[.,]\d{1,6})?|\.\d{1,6})"
_PLAIN = str.maketrans(
    {
        **{chr(0xFF01 + at): chr(0x21 + at) for at in range(94)},
        **dict(zip("½¼¾", (" 1/2", " 1/4", " 3/4"), strict=True)),
        **dict(
            zip("㎏㎎㎖ℓ㎝㎜㎡μ²℮", ("kg", "mg", "ml", "l", "cm", "mm", "m2", "µ", "2", " "), strict=True)
        ),
        **dict.fromkeys("‐‑‒–—−", "-"),
        **dict.fromkeys("\u00a0\u2007\u2009\u202f\t\r\n", " "),
    }
)


def _spelling(names: Sequence[str]) -> str:
    """A pattern for any of these unit names, longest first, singular or plural."""
    ordered = sorted(names, key=len, reverse=True)
    return "|".join(r"\.?[ .-]{0,2}".join(map(re.escape, name.split())) + "s?" for name in ordered)


# "in" is an inch only where it cannot be the preposition.
ANY_UNIT = (
    "(?:(?:"
    + _spelling([name for base in UNITS for name in UNITS[base] if name != "in"])
    + r")(?!\w)|in(?=[.,;:)/]|$| ?[x×*]| (?:long|wide|high|tall|deep|dia)\w*)|(?:\"|''|”|″)(?!\w))"
)
#: Units that a number before "x" multiplies; with lengths it is one side of an area.
BULK_UNIT = (
    "(?:(?:"
    + _spelling([name for base in ("g", "ml", "GB", "W", "mAh") for name in UNITS[base]])
    + r")(?!\w))"
)


def plain(text: str) -> str:
    """Return a text with full-width digits, fractions, dashes, blanks and unit signs in their plain form."""
    return text.translate(_PLAIN)


def read_number(text: str) -> float:
    """Return the number that a text begins with, thousands separators and fractions understood; NaN if none.

    A comma before exactly three digits separates thousands unless a zero stands before it; else it is a decimal
    comma. What follows the number, such as a stray dot or a unit, is left aside.
    """
    head = plain(text[:80]).strip()
    match = re.match(r"(?:(\d{1,6})[ -])?(\d{1,4})/(\d{1,4})(?![\d/])", head)
    if match:
        whole, over, under = (int(part or 0) for part in match.groups())
        return whole + over / under if under else math.nan
    match = re.match(r"\d[\d.,]{0,60}|\.\d{1,20}", head)
    digits = match.group().rstrip(".,") if match else ""
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{2,3}){0,8},\d{3}(?:\.\d+)?", digits):
        digits = digits.replace(",", "")
    elif re.fullmatch(r"[1-9]\d{0,2}(?:\.\d{3})+,\d{1,2}", digits):
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d+,\d+", digits):
        digits = digits.replace(",", ".")
    return float(digits) if re.fullmatch(r"\d*\.?\d+", digits) else math.nan


@lru_cache(maxsize=4096)
def read_unit(text: str) -> tuple[str, float] | None:
    """Return the base unit of a unit's name and how many one is; misspellings of longer names are understood."""
    name = plain(text[:60]).casefold().replace("(s)", "").replace("(es)", "")
    if name.strip() in ('"', "''", "”", "″"):
        return "cm", _INCH
    name = " ".join(re.sub(r"[^a-zµ0-9]+", " ", name).split())
    if name in _NONE:
        return None
    if _COUNTED.fullmatch(name):
        return "count", 1.0
    short = name.replace(" ", "")
    for trial in (name, name.removesuffix("s"), name.removesuffix("es")):
        if trial in _KNOWN:
            return _KNOWN[trial]
    for trial in (short, short.removesuffix("s")):
        if trial in _JOINED:
            return _JOINED[trial]
    near = difflib.get_close_matches(
        short.removesuffix("s"), [known for known in _JOINED if len(known) > 3], 1, 0.8
    )
    return _JOINED[near[0]] if near and len(short) > 3 else None
