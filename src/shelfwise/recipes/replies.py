"""Replies: a model's text to codes of the taxonomy, strictly.

It does not know who replied. Legend: A attributes asked for.

A reply is one flat JSON object, bare or in one code fence. An attribute is answered by a text that is one of its values
or aliases; case, outer and repeated blanks and quotation marks around it do not matter. Everything else is no
answer for that attribute: a value of another attribute, a list, a number, prose, a key that comes twice
with different values. Whatever the text holds, reading it does not fail.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shelfwise.recipes.questions import Question
from shelfwise.taxonomy import Choice

#: A reply longer than this, in characters, is not read.
LONGEST = 100_000
_FENCE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n?```\Z", re.DOTALL)
_FIELD = re.compile(r'("(?:[^"\\]|\\.)*")\s*:\s*("(?:[^"\\]|\\.)*"|null)', re.DOTALL)
_QUOTES = "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb"


class _Several:
    """Stands for a key that comes twice with different values."""


def fold(text: str) -> str:
    """Return the text without what does not matter in a reply: case, blanks, quotation marks around it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    return " ".join(plain.strip(_QUOTES).split()).casefold()


@dataclass(frozen=True)
class Reply:
    """What a text says.

    Attributes:
        codes: the code of each attribute's value, -1 for no answer, in the order of the question.
        spans: where in the text each answered value stands, between its quotation marks; ``None`` where unknown.
    """

    codes: tuple[int, ...]
    spans: tuple[tuple[int, int] | None, ...]


def read_reply(text: str, question: Question) -> Reply:
    """Read a model's text as the answer to a question."""
    nothing: tuple[None, ...] = (None,) * len(question.choices)
    silent = Reply((-1,) * len(question.choices), nothing)
    fields = _fields(text)
    if fields is None:
        return silent
    at = _positions(question)
    said: dict[int, Any] = {}
    for key, value in fields.items():
        where = at.get(key, at.get(fold(key), -1))
        if where >= 0:
            said[where] = _Several if where in said and said[where] != value else value
    codes = tuple(_code(choice, said.get(j)) for j, choice in enumerate(question.choices))
    flat = all(value is None or isinstance(value, str) for value in fields.values())
    if not flat or _Several in fields.values():
        return Reply(codes, nothing)
    spans: list[tuple[int, int] | None] = [None] * len(codes)
    for found in _FIELD.finditer(text):
        key = json.loads(found.group(1))
        where = at.get(key, at.get(fold(key), -1))
        if where >= 0 and codes[where] >= 0:
            spans[where] = found.start(2) + 1, found.end(2) - 1
    return Reply(codes, tuple(spans))


def _fields(text: str) -> dict[str, Any] | None:
    """The JSON object that a text consists of; ``None`` where it is anything else."""
    if len(text) > LONGEST:
        return None
    bare = text.strip()
    fence = _FENCE.match(bare)

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in pairs:
            kept[key] = _Several if key in kept and kept[key] != value else value
        return kept

    try:
        found = json.loads(fence.group(1) if fence else bare, object_pairs_hook=once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _positions(question: Question) -> Mapping[str, int]:
    """Spellings of the attributes' names, as they are and folded; folded ones only where they mean one."""
    at = {choice.name: j for j, choice in enumerate(question.choices)}
    at |= {other: at[name] for other, name in question.aliases.items() if name in at and other not in at}
    return _with_folded(at)


def _with_folded(codes: Mapping[str, int]) -> dict[str, int]:
    meanings: dict[str, set[int]] = {}
    for spelling, code in codes.items():
        meanings.setdefault(fold(spelling), set()).add(code)
    return {**{key: min(found) for key, found in meanings.items() if len(found) == 1}, **codes}


def _code(choice: Choice, value: Any) -> int:
    if not isinstance(value, str):
        return -1
    codes = _with_folded(choice.codes)
    return codes.get(value, codes.get(fold(value), -1))
