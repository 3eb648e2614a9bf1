"""Words of product texts: tokens with their stems, what is negated, what is said of other products.

It knows English shop talk in general (endings, spellings, negation, "pairs well with"), and neither
taxonomies nor tables.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

#: States of a token: said of the product, denied, or said of something else (and punctuation).
PLAIN, NEGATED, OTHER = 0, 1, 2
_FRACTIONS = {"¼": " 1/4 ", "½": " 1/2 ", "¾": " 3/4 "}
_FRACTION_WORDS = {"1/4": "quarter", "1/2": "half", "3/4": "threequarter"}
_JOINED = (
    (re.compile(r"n['’]t\b"), " not "),
    (re.compile(r"['’]s?\b"), ""),
    (re.compile(r"\b(three)[\s-]+(?:quarter|fourth)s?\b"), "threequarter"),
    (
        re.compile(r"\b([tuv])[\s-](?=[a-z]{3})|\b([b-hj-z])-(?=[a-z]{3})"),
        r"\1\2",
    ),  # t-shirt, v neck: one word
    (re.compile(r"\b(?:non|un|no)-(?=[a-z])"), "nonhyphen "),
)
_TOKEN = re.compile(r"[^\W_]+|[.,;:!?()\[\]\n|•*]")
#: Ends of a clause, and of a sentence.
_CLAUSE, _SENTENCE = frozenset(".,;:!?()[]\n|•*"), frozenset(".!?;\n|•*")
_SPELLINGS = {
    "color": "colour",
    "gray": "grey",
    "jewelry": "jewellery",
    "women": "woman",
    "womens": "woman",
    "men": "man",
    "mens": "man",
    "ladies": "lady",
    "children": "child",
}
#: Words that only look like plurals or participles.
_ODD = (
    "red shed bed led wed sled need seed feed speed coed tweed embed lens bus gas plus canvas iris this its is "
    "was has dress less various always across"
)
_KEPT = frozenset(_ODD.split())
#: Negations and how many words of their clause they reach.
_REACH = {
    "no": 2,
    "not": 3,
    "without": 2,
    "nonhyphen": 1,
    "non": 1,
    "never": 3,
    "lacks": 2,
    "lacking": 2,
    "minus": 2,
}
#: What follows, up to the end of the sentence, is said of other things.
_OTHER_THINGS = (
    "pair with; pair it with; pair well with; pair great with; pair perfectly with; pair nicely with; "
    "pair beautifully with; team with; team it with; team up with; wear with; wear it with; wear over; wear under; "
    "wear it over; wear it under; worn with; worn over; worn under; layer over; layer under; layer it over; go with; "
    "go well with; go great with; go perfectly with; go nicely with; goes with; goes well with; goes great with; "
    "goes perfectly with; goes nicely with; look great with; look good with; look best with; match with; "
    "match it with; match well with; match perfectly with; combine with; combine it with; style with; style it with; "
    "perfect with; ideal with; great with; compatible with; available in; also available; other colours; "
    "comes in other; similar to; unlike; instead of; rather than; see also; you may also; you might also; "
    "customers also; complete the look; related products; related items; recommended with; sold separately; "
    "model is wearing; model wears; model is also wearing; matching with; check out our; shop our"
)


@dataclass(frozen=True)
class Words:
    """A text as tokens.

    Attributes:
        tokens: stems, and punctuation marks.
        states: of each token, ``PLAIN``, ``NEGATED`` or ``OTHER``; punctuation is ``OTHER``.
    """

    tokens: tuple[str, ...]
    states: bytes


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """Return a word without plural and ``-ed`` endings and a final e or y; for matching, not for reading."""
    word = _SPELLINGS.get(word, word)
    if len(word) <= 3 or word in _KEPT:
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "xes", "ches", "shes", "zes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    word = _SPELLINGS.get(word, word)
    if word.endswith("ed") and len(word) > 4 and word not in _KEPT and re.search("[aeiouy]", word[:-2]):
        word = word[:-2]
        if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
            word = word[:-1]
    if len(word) > 4 and word.endswith("er") and word[:-2] in ("check", "collar"):
        word = word[:-2]
    if len(word) > 3 and word[-1] in "ey":
        word = word[:-1]
    return word


def _cues(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(stem, cue.split())) for cue in text.split(";"))


_NEGATIONS = {stem(word): reach for word, reach in _REACH.items()}
_FAR_NEGATIONS = _cues("not suitable; not recommended; not intended; not for; unsuitable")
_NOT_NEGATIONS = _cues("not only; not just; no more; no doubt; without doubt")
_SCOPE_ENDS = frozenset(map(stem, ("but", "and", "yet", "although", "though")))
#: Words of a negation's object that do not count: "does not have any collar".
_EMPTY_WORDS = "a an the any have feature include come with having it in on at of be to made from"
_FILLERS = frozenset(map(stem, _EMPTY_WORDS.split()))
_FREE, _UNSUITABLE = stem("free"), stem("unsuitable")
_STARTS: dict[str, list[tuple[str, ...]]] = {}
for _cue in _cues(_OTHER_THINGS):
    _STARTS.setdefault(_cue[0], []).append(_cue)


def stems(text: str) -> tuple[str, ...]:
    """Return a short text, such as a value's name, as stems without punctuation."""
    return tuple(token for token in _raw(text) if token not in _CLAUSE)


def _raw(text: str) -> list[str]:
    text = unicodedata.normalize("NFC", text).casefold()
    for mark, words in _FRACTIONS.items():
        if mark in text:
            text = text.replace(mark, words)
    if "/" in text:
        for fraction, word in _FRACTION_WORDS.items():
            text = re.sub(rf"(?<!\d){fraction}(?:th|rd|s)?(?!\d)", f" {word} ", text)
    for pattern, word in _JOINED:
        text = pattern.sub(word, text)
    return [stem(token) for token in _TOKEN.findall(text)]


def words_of(text: str) -> Words:
    """Read a text: its stems, and which of them are denied or said of something else."""
    tokens = _raw(text)
    states = bytearray(OTHER if token in _CLAUSE else PLAIN for token in tokens)
    for at, token in enumerate(tokens):
        if token in _NEGATIONS or token == _UNSUITABLE:
            _negate(tokens, states, at)
        elif token == _FREE:
            _negate_free(tokens, states, at)
        elif token in _STARTS and any(tuple(tokens[at : at + len(cue)]) == cue for cue in _STARTS[token]):
            for other in range(at, len(tokens)):
                if tokens[other] in _SENTENCE:
                    break
                states[other] = OTHER
    return Words(tuple(tokens), bytes(states))


def _negate(tokens: Sequence[str], states: bytearray, at: int) -> None:
    if tuple(tokens[at : at + 2]) in _NOT_NEGATIONS:
        return
    far = any(tuple(tokens[at : at + len(cue)]) == cue for cue in _FAR_NEGATIONS)
    left = len(tokens) if far else _NEGATIONS.get(tokens[at], 0)
    for other in range(at + 1, len(tokens)):
        token = tokens[other]
        if token in _CLAUSE or (token in _SCOPE_ENDS and not far) or left <= 0:
            break
        if states[other] == PLAIN:
            states[other] = NEGATED
        left -= token not in _FILLERS


def _negate_free(tokens: Sequence[str], states: bytearray, at: int) -> None:
    """``leather-free`` denies what stands before, ``free of leather`` what follows."""
    if at + 1 < len(tokens) and tokens[at + 1] in ("of", "from"):
        for other in range(at + 2, min(at + 4, len(tokens))):
            if tokens[other] in _CLAUSE or tokens[other] in _SCOPE_ENDS:
                break
            states[other] = NEGATED
    elif at and states[at - 1] == PLAIN:
        states[at - 1] = NEGATED
