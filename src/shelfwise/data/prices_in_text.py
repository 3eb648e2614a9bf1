"""Prices stated in words: found in many currencies and spellings, and masked.

It does not know listings or tables. A number is a price by what stands right before and after it: a currency, a
word such as "MRP", or the ending of a charm price (24.99) where no unit follows. Sizes and counts are left alone.
"""

import re

TOKEN = "[price]"

_NUMBER = re.compile(
    r"(?<!\d)(?:\d{1,3}(?:[ ']\d{3}){1,3}(?:,\d\d|\.\d\d)|\d{1,3}(?:,\d{2,3}){1,5}(?:\.\d{1,2})?|"
    r"\d{1,3}(?:\.\d{3}){1,4},\d{1,2}|\d{1,9}(?:[.,]\d{1,2})?)(?!\d)(?![.,]\d)"
)
_SIGN = r"(?:(?:us|ca?|au?|nz|sg?|hk|r|mx)?\$|[€£₹¥₩₽₺₫฿₦₱₪])"
_CODES = (
    r"inr|usd|eur|gbp|cad|aud|nzd|sgd|hkd|jpy|cny|rmb|chf|sek|nok|dkk|pln|brl|mxn|zar|aed|sar|rub|krw|thb|idr|myr|php|"
    r"ngn|pkr|bdt|lkr"
)
_STRONG = r"(?:price[ds]?|m\.?r\.?p|m\.?s\.?r\.?p|r\.?r\.?p|cost(?:s|ing)?|retail value)"
#: Right before a number: a currency, with or without a price word before it; or a price word alone.
_MONEY_BEFORE = re.compile(
    rf"(?:{_SIGN}|(?<![\w.])(?:{_CODES}|rs|rupees?|(?:us|eu)? ?dollars?|euros?))\.? {{0,2}}[:=]? {{0,2}}$",
    re.IGNORECASE,
)
_WORD_BEFORE = re.compile(
    rf"(?<![\w]){_STRONG}\.?(?: range)?(?: (?:is|of|at|just|only|from|now|today))? {{0,2}}[:=–—-]{{0,2}} {{0,2}}$",
    re.IGNORECASE,
)
_WEAK_BEFORE = re.compile(r"(?<!\w)(?:only|just)(?: (?:at|for))? {0,2}[:=-]? {0,2}$", re.IGNORECASE)
_LEAD = re.compile(
    rf"(?:(?:{_STRONG}|only|just|for|at)\.? {{0,2}}[:=–—-]{{0,2}} {{0,2}})?"
    rf"(?:{_SIGN}|(?<![\w.])(?:{_CODES}|rs|rupees?)(?![a-z]))\.? {{0,2}}[:=]? {{0,2}}$",
    re.IGNORECASE,
)
#: Right after a number.
_MONEY_AFTER = re.compile(
    rf" ?(?:[€£₹¥₩₽₺₫฿₦₱₪¢]|\$(?!\d)|zł)|(?: ?(?:{_CODES}|rs\.?|rupees?|dollars?|euros?|bucks|kr\.?)(?![\w]))"
    r"| ?/-(?! ?\d)|:-(?!\w)",
    re.IGNORECASE,
)
_ENDING = re.compile(r" ?/-(?! ?\d)|:-(?!\w)| only\b(?! \d)", re.IGNORECASE)
_UNIT_AFTER = re.compile(
    r"[ -]{0,2}(?:[x×*%°\"”″]|fl|oz|ounce|lbs?\b|pound|k?gs?\b|gms?\b|gram|kilo|m?ls?\b|cl\b|lit|ltr|[cmk]?ms?\b|mtr|"
    r"met(?:er|re)|"
    r"inch|in\b|ft\b|feet|foot|yd|yard|sq|gb\b|mb\b|tb\b|[kmg]?hz|mah|k?w\b|watt|volt|v\b|amp|lumen|pack|pk\b|pcs?\b|"
    r"piece|count|ct\b|sets?\b|units?\b|pairs?\b|tablet|capsule|sheet|roll|bag|bottle|can\b|cans\b|box|year|month|week|day|"
    r"hour|hr|min|sec|star|in 1|way|tier|layer|mm\b|diopt|power|left\b|people|person|size|step)",
    re.IGNORECASE,
)
_WEAK_AFTER = re.compile(
    r"[ ]?(?:$|[.;!|)\n]|,(?!\d)|(?:each|per|online|in india|with free|plus|incl|excl|at|on)\b)",
    re.IGNORECASE,
)
_CHARM = re.compile(r"\d{1,4}[.,]9[59]")
_CHARM_AFTER = re.compile(r"\w|[-–/]\d")
_CHARM_BEFORE = re.compile(
    r"(?:[\w./×*+-]|(?:x|×|value:?|size:?|no\.?|v\.?|version|model|diameter:?|length:?|width:?|"
    r"height:?|depth:?|weight:?) ?)$",
    re.I,
)
_RANGE = re.compile(r" ?(?:-|–|to) ?$", re.IGNORECASE)
_SHOE = re.compile(r"(?:size|uk ?\d*|us ?\d*)[ :/,(]{0,3}eur {0,2}$", re.IGNORECASE)
_SHOE_AFTER = re.compile(r" ?[/,(|] ?(?:uk|us)\b", re.IGNORECASE)
_PORTS = ("232", "422", "423", "485")


def find_prices(text: str) -> tuple[tuple[int, int], ...]:
    """Return where prices are stated, as (start, end) of non-overlapping pieces in reading order.

    A piece takes its currency and its ending with it: ``Rs. 1,299/-``. An amount of zero ("$0 shipping") says
    nothing about the price and is not found.
    """
    found: list[tuple[int, int]] = []
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        if not _is_price(text, match):
            if found and _goes_on(text, found[-1][1], match):
                found[-1] = found[-1][0], end
            continue
        left = max(start - 24, found[-1][1] if found else 0)
        lead = _LEAD.search(text[left:start])
        if lead:
            start = left + _without_word(lead)
        while (after := _MONEY_AFTER.match(text, end) or _ENDING.match(text, end)) and end - start < 60:
            end = after.end()
        found.append((start, end))
    return tuple(found)


def mask_prices(text: str, token: str = TOKEN) -> str:
    """Return a text with every stated price replaced by a token."""
    pieces, last = [], 0
    for start, end in find_prices(text):
        pieces += [text[last:start], token]
        last = end
    return "".join([*pieces, text[last:]]) if pieces else text


def _without_word(lead: re.Match[str]) -> int:
    """Where a currency begins, the words before it left standing."""
    words = re.match(
        rf"(?:{_STRONG}|only|just|for|at)\.? {{0,2}}[:=–—-]{{0,2}} {{0,2}}", lead[0], re.IGNORECASE
    )
    return lead.start() + (words.end() if words else 0)


def _is_price(text: str, match: re.Match[str]) -> bool:
    digits, (start, end) = match.group(), match.span()
    if not digits.strip("0., '"):
        return False
    before = text[max(0, start - 28) : start]
    last, following = before.rstrip(" ")[-1:], text[end : end + 3].lstrip(" ")[:1]
    if last and not last.isdigit() and _MONEY_BEFORE.search(before):
        return not _is_code(text, before, match)
    if before[-1:].isalnum():
        return False
    if following and not following.isdigit() and _MONEY_AFTER.match(text, end):
        return True
    charm = len(digits) > 3 and _CHARM.fullmatch(digits) and not _CHARM_AFTER.match(text, end)
    worded = last.isalpha() or last in (".", ":", "=", "-", "–", "—")
    if not (charm or worded) or _UNIT_AFTER.match(text, end):
        return False
    if worded and last and _WORD_BEFORE.search(before):
        return True
    if worded and last and _WEAK_BEFORE.search(before) and _WEAK_AFTER.match(text, end):
        return len(digits) > 2 and (digits.isdigit() or digits[-3:-2] in (".", ",") or "," in digits)
    return bool(charm) and not _CHARM_BEFORE.search(before)


def _is_code(text: str, before: str, match: re.Match[str]) -> bool:
    """Whether letters that are also a currency are a plug (RS-232, RS 5) or a European shoe size (EUR 42)."""
    if re.search(r"(?<!\w)RS ?$", before):
        return match.group() in _PORTS or len(match.group()) == 1
    if re.search(r"eur {0,2}$", before, re.IGNORECASE) and re.fullmatch(r"[1-5]\d(?:[.,]5)?", match.group()):
        return bool(_SHOE.search(before) or _SHOE_AFTER.match(text, match.end()))
    return False


def _goes_on(text: str, last: int, match: re.Match[str]) -> bool:
    """Whether a number ends a range that began with a price: "$10-20"."""
    return (
        match.start() - last <= 4
        and bool(_RANGE.fullmatch(text[last : match.start()]))
        and not _UNIT_AFTER.match(text, match.end())
        and not text[match.end() : match.end() + 1].isalnum()
    )
