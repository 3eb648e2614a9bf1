"""Spelt out: text columns that name the very values they are to help to predict.

It knows the words of values (``lexicon``), not what is learnt. Nothing here is a claim that is trusted: a value counts
as spelt out where its name, an alias or a synonym stands in the text.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from shelfwise.catalog import Catalog
from shelfwise.trust.claims import text_columns
from shelfwise.trust.lexicon import Lexicon, named_phrases
from shelfwise.trust.wording import words_of

#: A column is warned of from this share of an attribute's labelled cells on, of at least so many.
LEAST_SHARE, FEW = 0.2, 20
#: Products of a category that are looked at, drawn by their ids.
MOST = 2000


@dataclass(frozen=True)
class SpeltOut:
    """How often a text column names the stated value of an attribute.

    Attributes:
        column: the text column.
        attribute: its name, all categories together.
        named: labelled cells whose value stands in the text.
        labelled: labelled cells looked at.
    """

    column: str
    attribute: str
    named: int
    labelled: int

    @property
    def share(self) -> float:
        """Of the labelled cells."""
        return self.named / self.labelled


def spelt_out(catalog: Catalog) -> tuple[SpeltOut, ...]:
    """Count for every text column and attribute how many labelled cells have their value in the text."""
    columns, counts = text_columns(catalog), dict[tuple[str, str], list[int]]()
    cells = {column: catalog.texts(column) for column in columns}
    for category in catalog.present if columns else ():
        choices, labels_nA = catalog.taxonomy.choices(category), catalog.labels(category)
        phrases, nouns = named_phrases(choices)
        lexicon = Lexicon(phrases, nouns)
        places = enumerate(catalog.rows(category).tolist())
        drawn = sorted(places, key=lambda place: zlib.crc32(catalog.ids[place[1]].encode()))[:MOST]
        for at, row in drawn:
            for column in columns:
                text = cells[column][row]
                said = lexicon.find(words_of(text)) if text else ()
                named = {
                    (phrases[number].attribute, phrases[number].code) for number, denied in said if not denied
                }
                for attribute, choice in enumerate(choices):
                    label = int(labels_nA[at, attribute])
                    if label >= 0:
                        count = counts.setdefault((column, choice.name), [0, 0])
                        count[0] += (attribute, label) in named
                        count[1] += 1
    return tuple(SpeltOut(*key, *count) for key, count in sorted(counts.items()))


def spelt_out_notes(found: Sequence[SpeltOut]) -> tuple[str, ...]:
    """Say of which columns and attributes a reader of texts should know, a sentence a column."""
    notes = []
    many = [each for each in found if each.labelled >= FEW and each.share >= LEAST_SHARE]
    for column in dict.fromkeys(each.column for each in many):
        here = sorted((each for each in many if each.column == column), key=lambda each: -each.share)
        shares = ", ".join(
            f"{each.attribute} ({100 * each.share:.0f} % of {each.labelled:,} labels)" for each in here
        )
        notes.append(
            f"The text column {column!r} spells out values that it helps to predict: {shares}. The scores hold for "
            f"texts that say as much; to learn from photos instead, leave it out with data.ignore or choice_inputs."
        )
    return tuple(notes)
