"""Claims: what titles and descriptions state about attributes, and how far that reading can be trusted.

It knows no pictures. Phrases are trusted as far as the table's own stated values bear them out; the precision
and recall of the reading are measured on groups that the phrases were not chosen on.
Legend: D texts, M readings, P phrases, F folds (the last column: all), V values, K distinct word sequences.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError, TaxonomyError
from shelfwise.files import write_text
from shelfwise.roles import CODE_NAMES
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.lexicon import PRIORS, Lexicon, Phrase, named_phrases
from shelfwise.trust.sequences import learnt_phrases, wilson_low
from shelfwise.trust.wording import Words, words_of

FORMAT, FOLDS = 1, 5
#: A phrase is used from this expected precision on, its prior counting as this many products.
LEAST_RIGHT, PRIOR_WEIGHT = 0.85, 10.0
#: An attribute's texts are read where the precision is at least this, at 95 % one-sided.
LEAST_PRECISION, Z = 0.8, 1.645
#: With fewer readings of its own, an attribute is judged by its namesakes in other categories too.
FEW = 30
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """How well the texts of one (category, attribute) are read, on groups that no phrase was chosen on.

    Attributes:
        labelled: products with a stated value and some text.
        read: readings of those products' texts.
        right: readings that name the stated value.
        found: products of which a reading names the stated value.
        denied: readings that deny a value; ``denied_right`` of them deny another than the stated one.
        low: lower 95 % bound of the precision, near-duplicate groups counted as one.
        used: whether the reading is good enough to be taken as a claim.
    """

    labelled: int = 0
    read: int = 0
    right: int = 0
    found: int = 0
    denied: int = 0
    denied_right: int = 0
    low: float = 0.0
    used: bool = False

    @property
    def precision(self) -> float:
        """Share of readings that name the stated value; NaN without any."""
        return self.right / self.read if self.read else float("nan")

    @property
    def recall(self) -> float:
        """Share of labelled products whose stated value is read; NaN without any."""
        return self.found / self.labelled if self.labelled else float("nan")


@dataclass(frozen=True, eq=False)
class Claims:
    """What texts say, a reading each, in the order of rows and text columns.

    Attributes:
        ids: of the table's rows.
        columns: the text columns.
        row: int64 [M], position in the table.
        column: int64 [M], position in ``columns``.
        attribute: int64 [M], position among the category's Choice attributes.
        code: int64 [M], of the value.
        negated: bool [M], the text denies the value.
        precision: float64 [M], how often such a reading is right.
        phrase: what was read, as stems.
    """

    ids: tuple[str, ...]
    columns: tuple[str, ...]
    row: Ints
    column: Ints
    attribute: Ints
    code: Ints
    negated: npt.NDArray[np.bool_]
    precision: Floats
    phrase: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Known:
    """A phrase with what the table says about it: ``right`` of ``total`` products, groups counted as one."""

    phrase: Phrase
    right: float
    total: float
    used: bool


@dataclass(frozen=True, eq=False)
class Reader:
    """What was learnt about the words of a table.

    Attributes:
        taxonomy: what can be claimed.
        phrases: of each category.
        nouns: of each category, for each attribute.
        quality: of each (category, attribute), measured out of fold.
    """

    taxonomy: Taxonomy
    phrases: Mapping[str, tuple[Known, ...]]
    nouns: Mapping[str, tuple[frozenset[str], ...]]
    quality: Mapping[tuple[str, str], Quality]
    _lexicons: dict[str, Lexicon] = field(default_factory=dict)

    def read(self, catalog: Catalog) -> Claims:
        """Return what the texts of a catalogue claim, of the attributes whose reading is good enough.

        Raises:
            PredictionError: a catalogue of another taxonomy.
        """
        if catalog.taxonomy.hash != self.taxonomy.hash:
            raise PredictionError("the texts were learnt under another taxonomy than the catalogue's")
        columns, found = text_columns(catalog), []
        cells = [catalog.texts(name) for name in columns]
        for category in catalog.present:
            known = self.phrases.get(category, ())
            choices = self.taxonomy.choices(category)
            used = [self.quality.get((category, choice.name), Quality()).used for choice in choices]
            if not any(used):
                continue
            trusted = [k.used and used[k.phrase.attribute] for k in known]
            lexicon = self._lexicon(category)
            for row in catalog.rows(category).tolist():
                for column, texts in enumerate(cells):
                    text = texts[row]
                    if text:
                        said = [(p, no) for p, no in lexicon.find(words_of(text)) if trusted[p]]
                        for p, no in settle(said, lexicon.phrases):
                            found.append((row, column, p, no, category))
        found.sort(key=lambda entry: entry[:2])
        return self._claims(catalog, columns, found)

    def _claims(
        self, catalog: Catalog, columns: tuple[str, ...], found: Sequence[tuple[int, int, int, bool, str]]
    ) -> Claims:
        said = [self.phrases[category][p] for _, _, p, _, category in found]
        precision = []
        for known, (*_, category) in zip(said, found, strict=True):
            choice = self.taxonomy.choices(category)[known.phrase.attribute]
            whole = self.quality[category, choice.name].precision
            whole = PRIORS[known.phrase.kind] if whole != whole else whole
            precision.append((known.right + PRIOR_WEIGHT * whole) / (known.total + PRIOR_WEIGHT))
        return Claims(
            catalog.ids,
            columns,
            np.array([entry[0] for entry in found], np.int64),
            np.array([entry[1] for entry in found], np.int64),
            np.array([known.phrase.attribute for known in said], np.int64),
            np.array([known.phrase.code for known in said], np.int64),
            np.array([entry[3] for entry in found], np.bool_),
            np.array(precision, np.float64),
            tuple(" ".join(known.phrase.words) for known in said),
        )

    def _lexicon(self, category: str) -> Lexicon:
        if category not in self._lexicons:
            phrases = [known.phrase for known in self.phrases[category]]
            self._lexicons[category] = Lexicon(phrases, list(self.nouns[category]))
        return self._lexicons[category]

    def notes(self) -> tuple[str, ...]:
        """Say which attributes are read from texts and which are not, and why."""
        read = {key: quality for key, quality in self.quality.items() if quality.labelled and quality.read}
        used = [quality for quality in read.values() if quality.used]
        if not used:
            return ("Texts are not read: no attribute's value can be told from them well enough.",)
        right, total = sum(q.right for q in used), sum(q.read for q in used)
        found, labelled = sum(q.found for q in used), sum(q.labelled for q in used)
        notes = [
            f"Texts are read for {len(used)} of {len(self.quality)} attributes: out of fold {right / total:.3f} "
            f"of {total:,} readings name the stated value, of {found / labelled:.3f} of {labelled:,} products."
        ]
        bad = [f"{category} / {name}" for (category, name), quality in read.items() if not quality.used]
        if bad:
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            least = f"precision below {LEAST_PRECISION} at 95 % confidence"
            notes.append(f"Not read from texts, {least}: {', '.join(bad[:5])}{more}.")
        return tuple(notes)

    def save(self, path: str | Path) -> None:
        """Write to JSON."""
        table: dict[str, Any] = {"format": FORMAT, "taxonomy": self.taxonomy.hash, "phrases": {}, "nouns": {}}
        for category, known in self.phrases.items():
            choices = self.taxonomy.choices(category)
            table["nouns"][category] = [sorted(nouns) for nouns in self.nouns[category]]
            table["phrases"][category] = [
                [
                    choices[k.phrase.attribute].name,
                    choices[k.phrase.attribute].values[k.phrase.code],
                    list(k.phrase.words),
                    k.phrase.kind,
                    round(k.right, 4),
                    round(k.total, 4),
                    k.used,
                ]
                for k in known
            ]
        table["quality"] = [[*key, vars(quality)] for key, quality in self.quality.items()]
        write_text(path, json.dumps(table, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path, taxonomy: Taxonomy) -> "Reader":
        """Read what ``save`` wrote.

        Raises:
            BundleError: not such a file, or one of another taxonomy.
        """
        try:
            table = json.loads(Path(path).read_text(encoding="utf-8"))
            if table["format"] != FORMAT:
                raise BundleError(f"{path}: format {table['format']!r} is not known (this reads {FORMAT})")
            if table["taxonomy"] != taxonomy.hash:
                raise BundleError(f"{path}: claims of another taxonomy")
            phrases, nouns = {}, {}
            for category, entries in table["phrases"].items():
                places = {choice.name: at for at, choice in enumerate(taxonomy.choices(category))}
                phrases[category] = tuple(_known(entry, category, places, taxonomy) for entry in entries)
                nouns[category] = tuple(frozenset(map(str, words)) for words in table["nouns"][category])
                if len(nouns[category]) != len(places):
                    raise BundleError(f"{path}: {category!r} has nouns of another number of attributes")
            quality = {}
            for category, name, values in table["quality"]:
                taxonomy.choice(category, name)
                quality[category, name] = Quality(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, TaxonomyError) as error:
            raise BundleError(f"{path}: not claims that this version wrote: {error}") from error
        return cls(taxonomy, phrases, nouns, quality)


def _known(entry: Sequence[Any], category: str, places: Mapping[str, int], taxonomy: Taxonomy) -> Known:
    name, value, words, kind, right, total, used = entry
    if kind not in PRIORS or not words:
        raise ValueError(f"a phrase of {category} / {name} is of kind {kind!r}")
    code = taxonomy.code(category, name, value)
    return Known(
        Phrase(places[name], code, tuple(map(str, words)), kind), float(right), float(total), bool(used)
    )


def text_columns(catalog: Catalog) -> tuple[str, ...]:
    """Return the columns that are read for claims: free text, product codes left out."""
    return tuple(name for name in catalog.text_columns if name.strip().casefold() not in CODE_NAMES)


def settle(said: Sequence[tuple[int, bool]], phrases: Sequence[Phrase]) -> list[tuple[int, bool]]:
    """Return one phrase per attribute of what one text says.

    Names go before learnt phrases. A text that names two values of an attribute claims neither; a value is
    denied only where it is not claimed as well.
    """
    claimed: dict[int, dict[int, int]] = {}
    learnt: dict[int, dict[int, int]] = {}
    denied: dict[tuple[int, int], int] = {}
    for number, negated in said:
        phrase = phrases[number]
        if negated:
            denied.setdefault((phrase.attribute, phrase.code), number)
        else:
            into = learnt if phrase.kind == "learnt" else claimed
            into.setdefault(phrase.attribute, {}).setdefault(phrase.code, number)
    settled = [(number, True) for (a, code), number in denied.items() if code not in claimed.get(a, {})]
    for codes in {**learnt, **claimed}.values():
        if len(codes) == 1:
            settled.append((next(iter(codes.values())), False))
    return sorted(settled, key=lambda entry: (phrases[entry[0]].attribute, entry[1]))


@dataclass(frozen=True, eq=False)
class _Texts:
    """The texts of one category: what they say, of which row, with which weight, in which fold."""

    words: list[Words]
    row: Ints
    weight: Floats
    fold: Ints


def learn_reader(catalog: Catalog, group: npt.ArrayLike) -> Reader:
    """Learn which phrases of a table's texts can be trusted to state a value.

    Value names, aliases and general synonyms are judged by how often the table's own cells agree; further
    phrases of one to three words are learnt where they foretell one value. All is chosen on four fifths of the
    near-duplicate groups and measured on the rest, in turn; then chosen on all.

    Args:
        catalog: the products, with texts and stated values.
        group: int [N], near-duplicate groups.

    Raises:
        PredictionError: groups of another number of products.
    """
    group_N = np.unique(np.asarray(group, np.int64), return_inverse=True)[1]
    if group_N.shape != (len(catalog),):
        raise PredictionError(f"{len(group_N)} group numbers for {len(catalog)} products")
    fold_N = _folds(catalog.ids, group_N)
    weight_N = 1 / np.bincount(group_N)[group_N]
    cells = [catalog.texts(name) for name in text_columns(catalog)]
    phrases: dict[str, tuple[Known, ...]] = {}
    nouns: dict[str, tuple[frozenset[str], ...]] = {}
    counts: dict[tuple[str, str], Floats] = {}
    for category in catalog.present if cells else ():
        rows, labels_nA = catalog.rows(category), catalog.labels(category)
        at = [(place, text) for place, row in enumerate(rows.tolist()) for t in cells if (text := t[row])]
        row_D = np.array([place for place, _ in at], np.int64)
        texts = _Texts([words_of(text) for _, text in at], row_D, weight_N[rows[row_D]], fold_N[rows[row_D]])
        named, named_nouns = named_phrases(catalog.taxonomy.choices(category))
        known, found = _learn(texts, labels_nA, named, named_nouns)
        phrases[category], nouns[category] = tuple(known), tuple(named_nouns)
        for choice, count in zip(catalog.taxonomy.choices(category), found, strict=True):
            counts[category, choice.name] = count
    return Reader(catalog.taxonomy, phrases, nouns, _qualities(counts))


def _folds(ids: Sequence[str], group_N: Ints) -> Ints:
    """Return int64 [N], folds of whole groups that do not depend on the order of the rows."""
    key_G = np.full(group_N.max(initial=-1) + 1, np.iinfo(np.int64).max, np.int64)
    np.minimum.at(key_G, group_N, np.array([zlib.crc32(id_.encode()) for id_ in ids], np.int64))
    rank_G = np.empty(len(key_G), np.int64)
    rank_G[np.argsort(key_G, kind="stable")] = np.arange(len(key_G))
    return np.asarray(rank_G[group_N] % FOLDS, np.int64)


def _learn(
    texts: _Texts, labels_nA: npt.NDArray[np.int32], named: list[Phrase], nouns: list[frozenset[str]]
) -> tuple[list[Known], Floats]:
    """Return a category's phrases, and per attribute the counts of ``Quality`` with right and total weight."""
    learnt = learnt_phrases(texts.words, labels_nA[texts.row], texts.weight, texts.fold, named)
    phrases = [*named, *(phrase for phrase, _ in learnt)]
    lexicon = Lexicon(phrases, nouns)
    said = [list(lexicon.find(words)) for words in texts.words]
    right_PF, total_PF = (np.zeros((len(phrases), FOLDS + 1)) for _ in range(2))
    for d, entries in enumerate(said):
        for number in {number for number, negated in entries if not negated}:
            label = labels_nA[texts.row[d], phrases[number].attribute]
            if label >= 0:
                total_PF[number, texts.fold[d]] += texts.weight[d]
                right_PF[number, texts.fold[d]] += texts.weight[d] * (label == phrases[number].code)
    all_right, all_total = right_PF.sum(axis=1, keepdims=True), total_PF.sum(axis=1, keepdims=True)
    right_PF, total_PF = all_right - right_PF, all_total - total_PF
    prior_P = np.array([PRIORS[phrase.kind] for phrase in phrases])[:, None]
    used_PF = (right_PF + PRIOR_WEIGHT * prior_P) / (total_PF + PRIOR_WEIGHT) >= LEAST_RIGHT
    for number, (_, accepted_F) in enumerate(learnt, start=len(named)):
        used_PF[number] &= accepted_F
    counts = np.zeros((labels_nA.shape[1], 8))
    counted: set[tuple[int, int]] = set()
    for a in range(labels_nA.shape[1]):
        counts[a, 0] = len(np.unique(texts.row[labels_nA[texts.row, a] >= 0]))
    for d, entries in enumerate(said):
        kept = [entry for entry in entries if used_PF[entry[0], texts.fold[d]]]
        for number, negated in settle(kept, phrases):
            a, label = phrases[number].attribute, labels_nA[texts.row[d], phrases[number].attribute]
            if label < 0:
                continue
            agrees = (label == phrases[number].code) != negated
            counts[a, 4 if negated else 1] += 1
            counts[a, 5 if negated else 2] += agrees
            if not negated:
                counts[a, 6:] += np.array([agrees, 1.0]) * texts.weight[d]
                if agrees and (int(texts.row[d]), a) not in counted:
                    counted.add((int(texts.row[d]), a))
                    counts[a, 3] += 1
    known = [
        Known(
            phrase,
            float(right_PF[number, FOLDS]),
            float(total_PF[number, FOLDS]),
            bool(used_PF[number, FOLDS]),
        )
        for number, phrase in enumerate(phrases)
    ]
    return known, counts


def _qualities(counts: Mapping[tuple[str, str], Floats]) -> dict[tuple[str, str], Quality]:
    """Judge every attribute by its own readings, and where they are few, by its namesakes' too."""
    pooled: dict[str, Floats] = {}
    for (_, name), count in counts.items():
        pooled[name] = pooled.get(name, np.zeros(2)) + count[6:]
    qualities = {}
    for (category, name), count in counts.items():
        low = float(wilson_low(count[6], count[7], Z))
        used = low >= LEAST_PRECISION
        if not used and count[1] < FEW and count[2] >= LEAST_PRECISION * count[1]:
            used = bool(wilson_low(pooled[name][0], pooled[name][1], Z) >= LEAST_PRECISION)
        labelled, read, right, found, denied, denied_right = map(int, count[:6])
        qualities[category, name] = Quality(
            labelled, read, right, found, denied, denied_right, round(low, 6), used
        )
    return qualities
