"""Quantities in a product's words: measures in base units, pack counts in their many spellings, size words.

It does not know listings, tables or prices. Every pattern has bounded repeats, so the time taken is linear in the
length of a text whatever it holds.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shelfwise.data.units import (
    ANY_UNIT,
    BULK_UNIT,
    CONTENTS,
    NUMBER,
    PACKS,
    PIECES,
    plain,
    read_number,
    read_unit,
)

#: Characters of a name, and of each further text, in which quantities are looked for.
MOST_NAME, MOST_MORE = 2_000, 20_000
MOST_PACK = 100_000

_WORDS = {"one": 1, "single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
_WORDS |= {"nine": 9, "ten": 10, "eleven": 11, "twelve": 12, "fifteen": 15, "sixteen": 16, "eighteen": 18}
_WORDS |= {"twenty": 20, "twenty four": 24, "thirty": 30, "fifty": 50}
_SPELT = "|".join(word.replace(" ", "[ -]") for word in sorted(_WORDS, key=len, reverse=True))
_INTEGER = rf"(?:\d{{1,3}},\d{{3}}|\d{{1,5}}|{_SPELT})"
_START = r"(?<![\w.])(?<!\d[,/-])"
_AMOUNT = rf"(?:\d{{1,3}}[ -])?\d{{1,2}}/\d{{1,2}}|{NUMBER}"
_GAP = r"[ -]{0,3}"
_NOT_SIZE = rf"(?![.,]?\d)(?!{_GAP}{ANY_UNIT})"
_MEASURE = re.compile(rf"{_START}(?P<n>{_AMOUNT}){_GAP}(?P<u>{ANY_UNIT})", re.IGNORECASE)
_SIDES = re.compile(
    rf"{_START}(?P<a>{NUMBER}) ?(?P<ua>{ANY_UNIT})? ?[x×*] ?(?P<b>{NUMBER}) ?(?P<ub>{ANY_UNIT}|in(?!\w))?"
    rf"(?: ?[x×*] ?(?P<c>{NUMBER}) ?(?P<uc>{ANY_UNIT}|in(?!\w))?)?(?!\w)",
    re.IGNORECASE,
)
_OF = re.compile(
    r"\b(?:multi-?pack|pack|pk|pkt|packet|package|case|set|box|bundle|combo|lot|kit|carton|bag|tray|sleeve|bunch|"
    rf"tub|jar|tin|bucket|paquete|caja)(?:e?s|\(s\))? ?(?:of|de) ?\(?(?P<n>{_INTEGER})\b{_NOT_SIZE}",
    re.IGNORECASE,
)
#: "4 packs of 6".
_MANY_OF = re.compile(
    rf"{_START}(?P<outer>{_INTEGER})[ -]{{1,3}}(?:pack|case|set|box|bag|carton|bundle|packet)(?:e?s|\(s\)) of "
    rf"(?P<n>{_INTEGER})\b{_NOT_SIZE}",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    r"\b(?:pack ?[:(-] ?|case ?[:(] ?|(?:count|pcs|pieces) ?: ?|pk ?[:(-]? ?|po ?|(?:qty|quantity) ?[.:(-]? ?)"
    rf"(?P<n>{_INTEGER})\b{_NOT_SIZE}(?!{_GAP}(?:x|×|{PIECES}|{PACKS})\b)",
    re.IGNORECASE,
)
_PIECE = re.compile(
    rf"{_START}(?P<n>{_INTEGER})(?:er)?(?:{_GAP}| ?/ ?| per )(?P<kind>{PIECES}|{PACKS})"
    rf"(?!\w)(?!(?:e?s|\(s\))? ?of \(?{_INTEGER}\b{_NOT_SIZE})(?: (?P<held>{CONTENTS})\b)?",
    re.IGNORECASE,
)
_ONE_PIECE = re.compile(PIECES)
_HELD = re.compile(rf"{_START}(?P<n>{_INTEGER}){_GAP}(?:{CONTENTS})(?!\w)", re.IGNORECASE)
_TIMES = (
    re.compile(
        rf"{_START}(?P<n>{_INTEGER}) ?[x×*] ?(?={NUMBER}{_GAP}(?:{BULK_UNIT}|packs?\b|pks?\b))", re.IGNORECASE
    ),
    re.compile(
        rf"{_START}(?={NUMBER}{_GAP}{BULK_UNIT} ?[x×*] ?\d)"
        rf"(?P<kept>{NUMBER}{_GAP}{BULK_UNIT}) ?[x×*] ?(?P<n>{_INTEGER})\b(?![.,]?\d)(?!{_GAP}{ANY_UNIT})",
        re.IGNORECASE,
    ),
    re.compile(rf"(?<= )(?:\( ?[x×] ?(?P<n>{_INTEGER}) ?\)|[x×] ?(?P<m>\d{{1,3}})$)", re.IGNORECASE),
)
_CASE = re.compile(
    rf"{_START}(?P<n>\d{{1,3}})/(?={NUMBER}{_GAP}{BULK_UNIT})(?!\S{{1,9}} ?[gt]b\b)", re.IGNORECASE
)
_DOZEN = re.compile(rf"(?:{_START}(?P<n>half a|half|a|{_INTEGER})[ -])?\b(?:dozen|doz)\b", re.IGNORECASE)
_NAMED = re.compile(r"\b(?P<n>twin|double|dual|duo|triple|trio|quad)[ -]?packs?\b", re.IGNORECASE)
_NAMES = {"twin": 2, "double": 2, "dual": 2, "duo": 2, "triple": 3, "trio": 3, "quad": 4}
_INSIDE = re.compile(
    r" ?(?:of )?(?:total )?(?:protein|sugar|fat|carb|fib(?:er|re)|sodium|caffeine|net carb|cbd|per serving)",
    re.I,
)
_HALF = re.compile(
    r"\bhalf(?: an?)?[ -](?=(?:gal|gallon|lit|litre|liter|pound|lb|kg|kilo|pint|quart)\b)", re.IGNORECASE
)
_EACH = re.compile(r" ?(?:each|apiece)\b", re.IGNORECASE)
_CODE_BEFORE, _CODE_AFTER = re.compile(r"[A-Z0-9][-/]"), re.compile(r"-\d")
_TOTAL_BEFORE = re.compile(r"\btotal(?: of)?[ :]{0,2}$", re.IGNORECASE)
_TOTAL_AFTER = re.compile(r" ?(?:in )?total\b", re.IGNORECASE)
_LABEL = re.compile(
    r"\b(?:net (?:weight|wt\.?|content|quantity|volume|qty)|capacity|volume|weight|quantity|contents|size)"
    rf"[ :=-]{{1,3}}(?=(?:{NUMBER}){_GAP}{ANY_UNIT})",
    re.IGNORECASE,
)
#: Which measure of a name is its quantity: lower first, the earlier of equals.
_RANK = {"g": 0, "ml": 0, "cm3": 2, "GB": 3, "mAh": 4, "cm2": 5, "W": 6, "cm": 7}


_SIZED = re.compile(
    r"(?<![\w-])(?:"
    r"(?P<word>mini|small|medium|jumbo|giant|petite|(?:extra[ -]?|x-?)?(?:large|small))(?:[ -]sized?)?|"
    r"(?P<kind>family|party|travel|trial|sample|snack|fun|bite|share|sharing|economy|value|bulk|regular|standard|king|"
    r"queen|twin|full|double|single|free|one|plus|pocket|big|club|mega|super|individual)"
    r"[ -](?P<what>sized?|pack|serve)"
    r")(?![\w-])",
    re.IGNORECASE,
)
_EXTRA = re.compile(r"^(?:extra|x) ?([sl])(?:mall|arge)$")
#: Capital letters; one alone counts only after "size", in parentheses, or at an end of the name set off by a sign.
_LETTERS = re.compile(
    r"(?<![\w'’&.-])(?:(?P<x>X{1,4}[SL]|[2-9]XL)|(?:(?<=[Ss]ize )|(?<=[Ss]ize: )|(?<=\()|(?<=[,/|] )|(?<=- ))"
    r"(?P<one>[SML])(?= ?(?:$|[),/|])))(?![\w'’&.-])"
)


@dataclass(frozen=True)
class Quantity:
    """How much of a product is sold.

    Attributes:
        value: all of it, in base units; NaN where nothing is said.
        unit: the base unit; empty where none is known.
        pack: how many units are sold together; 1 where nothing is said.
        size: value / pack.
    """

    value: float = math.nan
    unit: str = ""
    pack: int = 1

    @property
    def size(self) -> float:
        """What one unit of the pack holds, in base units; NaN where nothing is said."""
        return self.value / self.pack


@dataclass(frozen=True)
class _Measure:
    raw: float
    unit: str
    factor: float
    whole: bool = False
    each: bool = False

    @property
    def value(self) -> float:
        return self.raw * self.factor


@dataclass(frozen=True)
class _Packs:
    pack: int | None
    pieces: int | None
    contents: int | None
    rest: str


def quantity_of(name: str, value: str = "", unit: str = "", more: Sequence[str] = ()) -> Quantity:
    """Return how much of a product is sold, from its name and its stated value and unit.

    A stated value is the total, as shops state it, unless it is the size that the name gives of one unit of a
    pack. Without one the total is pack x size of the name. Where the name says nothing, a labelled measure
    ("Net weight: 200 g") or an explicit "pack of" in further texts is taken.

    Args:
        name: the product's name.
        value: the stated value, such as ``1,200.0``; with its unit behind it where ``unit`` is empty.
        unit: the stated unit, such as ``Fl Oz``.
        more: further texts, such as bullets and description.
    """
    packs = _packs(_HALF.sub("1/2 ", " ".join(plain(name[:MOST_NAME]).split())))
    measure = _measure(packs.rest)
    texts = [plain(text[:MOST_MORE]) for text in more]
    held = packs.contents if measure is not None and measure.each else None
    pack = packs.pack or packs.pieces or held or _agreed_pack(texts) or 1
    if measure is None:
        held = packs.contents or (packs.pieces if packs.pieces != pack else None)
        measure = _Measure(held, "count", 1.0) if held else _labelled(texts)
    stated = read_number(value)
    known = read_unit(unit.strip()) if unit.strip() else read_unit(re.sub(r"^[\d\s.,/]+", "", value.strip()))
    if not (math.isfinite(stated) and 0 < stated < 1e12):
        return _said(measure, pack)
    return _settled(stated, known, measure, pack)


def size_words(name: str) -> tuple[str, ...]:
    """Return the words and letters of a name that say a size, in lower case, each once: "family size", "2xl"."""
    name = plain(name[:MOST_NAME])
    found = []
    for match in _SIZED.finditer(name):
        word = (match["word"] or f"{match['kind']} {match['what'].rstrip('d')}").casefold().replace("-", " ")
        found.append((match.start(), _EXTRA.sub(r"x\1", word)))
    for match in _LETTERS.finditer(name):
        letters = (match["x"] or match["one"]).casefold()
        many = letters.count("x")
        found.append((match.start(), f"{many}x{letters[-1]}" if many > 1 else letters))
    return tuple(dict.fromkeys(word for _, word in sorted(found)))


def _said(measure: _Measure | None, pack: int) -> Quantity:
    """What the texts alone say."""
    if measure is None:
        return Quantity(float(pack), "count", pack) if pack > 1 else Quantity()
    return Quantity(measure.value * (1 if measure.whole else pack), measure.unit, pack)


def _settled(stated: float, known: tuple[str, float] | None, measure: _Measure | None, pack: int) -> Quantity:
    """What a stated value and the texts say together."""
    weak = known is None or (known[0] == "count" and stated in (1.0, float(pack)))
    if weak and measure is not None and measure.unit != "count":
        return _said(measure, pack)
    if known is None:
        return Quantity(stated, "", pack)
    base, factor = known
    total = stated * factor
    if measure is not None and pack > 1 and not measure.whole:
        each = _close(stated, measure.raw) or (base == measure.unit and _close(total, measure.value))
        if each:
            total *= pack
    return Quantity(total, base, pack)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= 0.02 * max(abs(one), abs(other))


def _integer(text: str) -> int:
    word = text.casefold().replace("-", " ")
    return _WORDS[word] if word in _WORDS else int(word.replace(",", ""))


def _packs(text: str) -> _Packs:
    """Read the counts of a text, and blank them out of it."""
    found: list[int] = []
    pieces: list[int] = []
    contents: list[int] = []

    def pack(match: re.Match[str]) -> str:
        groups = match.groupdict()
        number = groups.get("n") or groups.get("m")
        if number:
            found.append(_integer(number) * _integer(groups.get("outer") or "1"))
        return f"{groups.get('kept') or ''} | "

    def dozen(match: re.Match[str]) -> str:
        n = (match["n"] or "a").casefold()
        found.append(6 if n.startswith("half") else 12 * (1 if n == "a" else _integer(n)))
        return " | "

    def named(match: re.Match[str]) -> str:
        found.append(_NAMES[match["n"].casefold()])
        return " | "

    def case(match: re.Match[str]) -> str:
        n, size = int(match["n"]), read_number(text[match.end() : match.end() + 12])
        if n < size and size in (2, 3, 4, 5, 8, 16, 32, 64):
            return match[0]  # a fraction
        found.append(n)
        return " | "

    def piece(match: re.Match[str]) -> str:
        n, kind = _integer(match["n"]), match["kind"].casefold()
        if (kind == "p" and n > 12) or (kind in ("pk", "pks") and n > 200):
            return match[0]
        (contents if match["held"] else pieces if _ONE_PIECE.fullmatch(kind) else found).append(n)
        return " | "

    def held(match: re.Match[str]) -> str:
        contents.append(_integer(match["n"]))
        return " | "

    lower = text.lower()
    text = _CASE.sub(case, text)
    if "s of " in lower or "s) of " in lower:
        text = _MANY_OF.sub(pack, text)
    if "doz" in lower:
        text = _DOZEN.sub(dozen, text)
    for pattern, read in ((_OF, pack), *((times, pack) for times in _TIMES), (_LABELLED, pack)):
        text = pattern.sub(read, text)
    for pattern, read in ((_NAMED, named), (_PIECE, piece), (_HELD, held)):
        text = pattern.sub(read, text)
    number = math.prod(dict.fromkeys(found)) if found else 0
    number = number if number <= MOST_PACK else found[0]
    return _Packs(number or None, next(filter(None, pieces), None), next(filter(None, contents), None), text)


def _agreed_pack(texts: Sequence[str]) -> int | None:
    """The pack that further texts state as "pack of", where they state one only."""
    said = {_integer(match["n"]) for text in texts for match in _OF.finditer(text)} - {0}
    return said.pop() if len(said) == 1 else None


def _measure(text: str) -> _Measure | None:
    """The measure of a text that tells most about how much of a product is sold."""
    found: list[tuple[int, int, _Measure]] = []

    def sides(match: re.Match[str]) -> str:
        unit = next((match[key] for key in ("uc", "ub", "ua") if match[key]), None)
        known = read_unit(unit) if unit else None
        if known is None or known[0] != "cm":
            return match[0]
        lengths = [read_number(match[key]) for key in "abc" if match[key]]
        raw = math.prod(lengths)
        if 0 < raw < 1e12:
            base = f"cm{len(lengths)}"
            found.append((_RANK[base], match.start(), _Measure(raw, base, known[1] ** len(lengths))))
        return " | "

    text = _SIDES.sub(sides, text)
    last: re.Match[str] | None = None
    for match in _MEASURE.finditer(text):
        raw, known = read_number(match["n"]), read_unit(match["u"])
        if known is None or not 0 < raw < 1e12 or _INSIDE.match(text, match.end()) or _code(text, match):
            continue
        base, factor = known
        if last is not None and found and not text[last.end() : match.start()].strip(" .,&"):
            rank, at, before = found[-1]
            if (
                before.unit == base and before.factor / factor in (16.0, 12.0) and raw < 16
            ):  # 1 lb 4 oz, 5 ft 6 in
                found[-1] = rank, at, _Measure(before.raw + raw * factor / before.factor, base, before.factor)
                continue
        whole = bool(
            _TOTAL_BEFORE.search(text[max(0, match.start() - 12) : match.start()])
            or _TOTAL_AFTER.match(text, match.end())
        )
        each = bool(_EACH.match(text, match.end()))
        strength = base == "g" and factor < 1
        found.append(
            (8 if strength else _RANK[base], match.start(), _Measure(raw, base, factor, whole, each))
        )
        last = match
    best = min(found, default=None, key=lambda item: item[:2])
    return best[2] if best is not None and best[0] < 8 else None


def _code(text: str, match: re.Match[str]) -> bool:
    """Whether a number with its unit is a mobile network ("4G") or part of a model number ("PC-414W")."""
    if match["n"] + match["u"] != match[0]:
        return False
    if match["u"] == "G" and (match["n"] in "23456" or read_number(match["n"]) >= 1000):
        return True
    around = text[max(0, match.start() - 2) : match.start()], text[match.end() : match.end() + 2]
    return bool(_CODE_BEFORE.fullmatch(around[0]) or _CODE_AFTER.fullmatch(around[1]))


def _labelled(texts: Sequence[str]) -> _Measure | None:
    """The first labelled measure of further texts: a weight is that of all, a capacity that of one."""
    for text in texts:
        for label in _LABEL.finditer(text):
            match = _MEASURE.match(text, label.end())
            known = read_unit(match["u"]) if match else None
            if match and known and known[0] in ("g", "ml") and 0 < read_number(match["n"]) < 1e12:
                each = label[0].casefold().startswith(("capacity", "volume", "size"))
                return _Measure(read_number(match["n"]), *known, whole=not each)
    return None
