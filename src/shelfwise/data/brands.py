"""Brands: learnt from stated brands and from how names begin, and found in names by dictionary.

It does not know tables or listings: names and stated brands come as texts. A brand is found as the longest run of
whole words that is a known brand, case and punctuation aside; a name without one has the brand ``unknown``.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from shelfwise.errors import UsageError

UNKNOWN = "unknown"
#: Characters of a name that are looked at, and words of the longest brand that is learnt from how names begin.
MOST_NAME, MOST_WORDS = 2_000, 4
#: How many different names have a beginning that is taken for a brand, and at least which share of the names
#: that have its first word anywhere begin with that word.
LEAST_NAMES, LEAST_LEADING = 2, 0.5
_WORD = re.compile(r"\w+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_NONE = ("", "none", "nan", "null", "na", "n a", "unknown", "generic", "unbranded", "no brand")
#: What follows these words is what a product fits, not who makes it.
_FITS = ("for", "fits", "compatible")


@dataclass(frozen=True)
class Brands:
    """Known brands.

    Attributes:
        stated: words of a brand, folded and joined by blanks -> its usual spelling; found anywhere in a name.
        leading: the same of brands learnt from how names begin; found at the beginning of a name only.
    """

    stated: Mapping[str, str]
    leading: Mapping[str, str]

    def find(self, name: str, stated: str = "") -> str:
        """Return the brand of a product in its usual spelling.

        Args:
            name: the product's name.
            stated: its brand as stated; where there is one it is the answer, known or not.

        Returns:
            The stated brand; else the first known brand of the name, the longest where several begin at one
            word; else ``unknown``.
        """
        words = _words(stated)
        if words and " ".join(words) not in _NONE:
            key = " ".join(words)
            return self.stated.get(key) or self.leading.get(key) or " ".join(stated.split())
        words = _words(name)
        for start, word in enumerate(words):
            if start and words[start - 1] in _FITS:
                continue
            for length in self._lengths.get(word, ()):
                key = " ".join(words[start : start + length])
                brand = self.stated.get(key) or (self.leading.get(key) if not start else None)
                if brand:
                    return brand
        return UNKNOWN

    @cached_property
    def _lengths(self) -> dict[str, tuple[int, ...]]:
        """First word of a brand -> the lengths in words of those that begin so, longest first."""
        lengths: dict[str, set[int]] = defaultdict(set)
        for key in (*self.stated, *self.leading):
            words = key.split()
            lengths[words[0]].add(len(words))
        return {word: tuple(sorted(found, reverse=True)) for word, found in lengths.items()}

    def table(self) -> dict[str, Any]:
        """Return the brands as JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Brands":
        """Build brands from what ``table`` returned."""
        return cls(dict(table["stated"]), dict(table["leading"]))


def learn_brands(names: Sequence[str], stated: Sequence[str | None] = ()) -> Brands:
    """Learn brands from training products.

    Every stated brand is one. Of the products that state none, a beginning of the name is taken for a brand where
    several different names have it: its first word begins names more often than it stands inside them, and it is as
    long as all names that begin so agree. Neither the order nor repeats of products count.

    Args:
        names: the products' names.
        stated: their stated brands, ``None`` or empty where there is none; left out, no product states one.

    Raises:
        UsageError: as many stated brands as names are needed.
    """
    if stated and len(stated) != len(names):
        raise UsageError(f"{len(names)} names, but {len(stated)} stated brands")
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    silent: list[str] = []
    for name, brand in zip(names, stated or [None] * len(names), strict=True):
        key = " ".join(_words(brand or ""))
        if key in _NONE:
            silent.append(name)
        else:
            spellings[key][" ".join((brand or "").split())] += 1
    known = _usual(spellings)
    return Brands(known, {key: name for key, name in _beginnings(silent).items() if key not in known})


def _words(text: str) -> list[str]:
    return _WORD.findall(text[:MOST_NAME].casefold())


def _usual(spellings: Mapping[str, Counter[str]]) -> dict[str, str]:
    """The most frequent spelling of each brand, the first in the alphabet of equals."""
    return {
        key: min(found, key=lambda text: (-found[text], text)) for key, found in sorted(spellings.items())
    }


def _beginnings(names: Iterable[str]) -> dict[str, str]:
    """The beginnings of names that are taken for brands, with their usual spelling."""
    texts = {" ".join(_words(name)): name for name in sorted(set(names), reverse=True)}
    words = [key.split() for key in texts]
    heads = Counter(" ".join(parts[:length]) for parts in words for length in range(1, MOST_WORDS + 1))
    having = Counter(word for parts in words for word in set(parts))
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for parts, name in zip(words, texts.values(), strict=True):
        if len(parts) < 2 or not _LETTERS.match(parts[0]):
            continue
        count = heads[parts[0]]
        if count < LEAST_NAMES or count < LEAST_LEADING * having[parts[0]]:
            continue
        length = 1
        while (
            length < min(MOST_WORDS, len(parts) - 1)
            and parts[length].isalpha()
            and heads[" ".join(parts[: length + 1])] == count
        ):
            length += 1
        end = [match.end() for match in _WORD.finditer(name)][length - 1]
        spellings[" ".join(parts[:length])][" ".join(name[:end].split())] += 1
    return _usual(spellings)
