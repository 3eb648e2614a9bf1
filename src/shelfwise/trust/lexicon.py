"""Phrases that claim a value: names, aliases and synonyms of a category's values, and where a text says them.

It knows the values of one category and stems of words; not which phrases can be trusted, that is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shelfwise.taxonomy import Choice
from shelfwise.trust.wording import NEGATED, OTHER, PLAIN, Words, stem, stems

#: Kinds of phrase, and how often each is expected to be right before anything is measured: a name of two or
#: more words, a word beside its attribute's noun, a word alone, a word of many meanings alone, a phrase learnt.
PRIORS = {"name": 0.95, "noun": 0.95, "word": 0.9, "ambiguous": 0.5, "learnt": 0.9}
#: Words of an attribute's name that no text repeats.
_NAMELESS = frozenset(map(stem, ("spec", "type", "attr", "attribute", "product", "item", "of", "is", "has")))
#: Other nouns for an attribute, by the stem in its name.
_NOUNS = {
    stem(name): tuple(map(stem, others))
    for name, others in {
        "neck": ("neckline", "collar"),
        "neckline": ("neck", "collar"),
        "waist": ("waistband", "rise", "waistline"),
        "fit": ("cut", "fitting", "silhouette"),
        "colour": ("shade", "hue", "coloured"),
        "shade": ("colour", "tone"),
        "material": ("fabric", "cloth"),
        "fabric": ("material", "cloth"),
        "pattern": ("print", "design"),
    }.items()
}
#: Words that mean many things: alone they claim nothing until the table shows that they do.
_MANY_MEANINGS = """long short regular light dark high low medium small large big full half wide narrow deep plain
round square straight other mixed bright cap top flat open closed single double heavy soft warm cool classic basic
normal standard natural free new old set all one two three party sport sports home metal bag ring belt print solid
treatment contrast bar band base case collar hood slim loose tight vest polo stand hat"""
AMBIGUOUS = frozenset(map(stem, _MANY_MEANINGS.split()))
#: Phrases that mean the same, in English shops.
_SAME = """long sleeve; full sleeve; full length sleeve | short sleeve; half sleeve
threequarter sleeve; threequarter length sleeve | sleeveless; no sleeve; without sleeve; strapless sleeveless
round neck; crew neck; round neckline; crewneck | polo neck; turtle neck; turtleneck; roll neck; rollneck; high neck
boat neck; bateau neck; boatneck | v-neck; v neckline; v-neckline | off shoulder; bardot; off the shoulder
hood; hooded; hoodie | stand up; mandarin collar; band collar; stand collar
high waist; high rise; high waisted | low waist; low rise | regular waist; mid rise; medium rise; mid waist
slim fit; fitted fit; skinny fit slim | regular fit; standard fit; classic fit | relaxed fit; loose fit; easy fit
oversized; oversize | wide leg; wide | elasticated; elasticized; elastic waist
check; checked; checkered; plaid; tartan; gingham | stripe; striped; pinstripe | dot; dotted; polka dot; spotted
floral; flower print; floral print | plain; solid; solid colour | melange; marl; heathered
multicolour; multi colour; multicoloured | grey; gray | lilac; mauve | turquoise; aqua
viscose; rayon | polyamide; nylon | elastane; spandex; lycra | knit; knitted; rib knit
sneakers; trainers | trousers; pants; slacks | sweater; jumper; pullover | t-shirt; tee; t shirt
handbag; purse | sunglasses; shades | women; ladies; female; woman's | men; male; gents; gentlemen
kids; children | boys; boy's | girls; girl's | jacket; windbreaker | leggings; treggings | dress; gown"""
_GROUPS = tuple(
    frozenset(stems(phrase) for phrase in group.split(";"))
    for line in _SAME.splitlines()
    for group in line.split("|")
)
_LINKS = frozenset((":", *map(stem, ("is", "are", "in", "length", "style", "type"))))


@dataclass(frozen=True)
class Phrase:
    """A way to claim a value.

    Attributes:
        attribute: position among the category's Choice attributes.
        code: of the value.
        words: stems.
        kind: see ``PRIORS``.
    """

    attribute: int
    code: int
    words: tuple[str, ...]
    kind: str


@dataclass
class Lexicon:
    """The phrases of one category, ready to be found in texts.

    Attributes:
        phrases: of all kinds; their positions are their numbers.
        nouns: of each attribute.
    """

    phrases: list[Phrase]
    nouns: list[frozenset[str]]
    _named: dict[str, list[tuple[tuple[str, ...], list[int]]]] = field(default_factory=dict)
    _learnt: dict[str, list[tuple[tuple[str, ...], int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named: dict[tuple[str, ...], list[int]] = {}
        for number, phrase in enumerate(self.phrases):
            if phrase.kind == "learnt":
                self._learnt.setdefault(phrase.words[0], []).append((phrase.words, number))
            else:
                named.setdefault(phrase.words, []).append(number)
        for words, numbers in named.items():
            self._named.setdefault(words[0], []).append((words, numbers))
        for found in self._named.values():
            found.sort(key=lambda entry: (-len(entry[0]), entry[0]))

    def find(self, text: Words) -> Iterator[tuple[int, bool]]:
        """Yield the numbers of the phrases a text says, and whether it denies them; longer names hide shorter."""
        tokens, states = text.tokens, text.states
        end = 0
        for at, token in enumerate(tokens):
            if states[at] == OTHER:
                continue
            for words, number in self._learnt.get(token, ()):
                stop = at + len(words)
                if tokens[at:stop] == words and not any(states[at:stop]):
                    yield number, False
            if at < end or token not in self._named:
                continue
            for words, numbers in self._named[token]:
                stop = at + len(words)
                if tokens[at:stop] == words and OTHER not in states[at:stop]:
                    end = stop
                    for number in numbers:
                        phrase = self.phrases[number]
                        beside = self._beside(tokens, states, at, stop, phrase.attribute)
                        if stop < len(tokens) and tokens[stop] in self.nouns[phrase.attribute]:
                            end = stop + 1
                        if phrase.kind == "name" or beside == (phrase.kind == "noun"):
                            yield number, states[at] == NEGATED
                    break

    def _beside(self, tokens: Sequence[str], states: bytes, at: int, stop: int, attribute: int) -> bool:
        """Whether the attribute's noun stands beside, with at most one word between."""
        nouns, last = self.nouns[attribute], len(tokens)
        if not nouns:
            return False
        if stop < last and tokens[stop] in nouns:
            return True
        if stop + 1 < last and states[stop] != OTHER and tokens[stop + 1] in nouns:
            return True
        if at >= 1 and tokens[at - 1] in nouns:
            return True
        return at >= 2 and tokens[at - 2] in nouns and tokens[at - 1] in _LINKS


def named_phrases(choices: Sequence[Choice]) -> tuple[list[Phrase], list[frozenset[str]]]:
    """Return the phrases that a category's value names, aliases and their synonyms make, and the nouns."""
    phrases: list[Phrase] = []
    all_nouns = []
    for attribute, choice in enumerate(choices):
        nouns = _nouns(choice.name)
        all_nouns.append(nouns)
        for words, code in sorted(_forms(choice, nouns).items()):
            if len(words) > 1:
                phrases.append(Phrase(attribute, code, words, "name"))
            else:
                alone = "ambiguous" if words[0] in AMBIGUOUS or len(words[0]) < 3 else "word"
                phrases.append(Phrase(attribute, code, words, alone))
                phrases.append(Phrase(attribute, code, words, "noun"))
    return phrases, all_nouns


def _nouns(name: str) -> frozenset[str]:
    own = [word for word in stems(name.replace("_", " ")) if word not in _NAMELESS]
    return frozenset((*own, *(other for word in own for other in _NOUNS.get(word, ()))))


def _forms(choice: Choice, nouns: frozenset[str]) -> dict[tuple[str, ...], int]:
    """Every wording of every value, those of two values left out; a value's own name beats a part of another's."""
    tiers: tuple[dict[tuple[str, ...], set[int]], ...] = ({}, {}, {})
    for code, value in enumerate(choice.values):
        spellings = [value, *(alias for alias, target in choice.aliases.items() if target == value)]
        names = {stems(spelling) for spelling in spellings}
        parts = {stems(part) for spelling in spellings for part in spelling.split("/")}
        parts |= {tuple(word for word in words if word not in nouns) for words in names if len(words) > 1}
        parts |= {("".join(words),) for words in names if len(words) == 2}
        asked = names | parts
        asked |= {(*words, noun) for words in asked for noun in nouns}
        same = {other for group in _GROUPS if group & asked for other in group} - asked
        for tier, found in zip(tiers, (names, parts, same), strict=True):
            for words in found:
                if words and (len(words) > 1 or words[0] not in nouns or tier is tiers[0]):
                    tier.setdefault(words, set()).add(code)
    forms: dict[tuple[str, ...], int] = {}
    taken: set[tuple[str, ...]] = set()
    for tier in tiers:
        for words, codes in tier.items():
            if words not in taken and len(codes) == 1:
                forms[words] = next(iter(codes))
        taken |= set(tier)
    return forms


__all__ = ["AMBIGUOUS", "PLAIN", "PRIORS", "Lexicon", "Phrase", "named_phrases"]
