"""Questions: what is asked about one product, built from the taxonomy.

They do not know who is asked, nor how a reply is read. A question names the attributes of one category and their
values, and nothing of any other category; the answer is one flat JSON object. A question about the category itself is
the same thing with one attribute.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from shelfwise.taxonomy import Choice, Taxonomy

#: The attribute of the question that asks for the category.
CATEGORY = "category"
#: Characters of a product's own text that are put into a question.
MOST_TEXT = 500


@dataclass(frozen=True)
class Question:
    """What is asked about one product, its own text aside.

    Attributes:
        category: the product's category; empty where that is what is asked.
        choices: the attributes asked for, each with at least one value.
        aliases: other spellings of attribute names.
        abstain: whether ``null`` is offered for what the picture does not show.
    """

    category: str
    choices: tuple[Choice, ...]
    aliases: Mapping[str, str]
    abstain: bool = True

    @cached_property
    def text(self) -> str:
        """The question in words."""
        what = f"a product of the category {_quoted(self.category)}" if self.category else "a product"
        lines = [
            f"The picture shows {what}. Give the value of every attribute listed below, as the picture shows it.",
            "",
            "Attributes and the values allowed for each:",
            *(f"- {_quoted(c.name)}: {', '.join(map(_quoted, c.values))}" for c in self.choices),
            "",
            "Reply with one JSON object and nothing else: a key for every attribute, in this order, each with "
            "one of its values, spelt as above.",
        ]
        if self.abstain:
            lines.append("Where the picture does not tell, the value is null.")
        return "\n".join(lines)

    def about(self, texts: Sequence[str | None]) -> str:
        """Return the question with what the listing says of the product, as quoted data."""
        said = " ".join(" ".join(text.split()) for text in texts if text and text.strip())[:MOST_TEXT]
        return f"{self.text}\nThe listing says: {_quoted(said)}" if said else self.text

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON schema that every right answer fits."""
        kind: Any = ["string", "null"] if self.abstain else "string"
        fields = {
            choice.name: {"type": kind, "enum": [*choice.values, *([None] if self.abstain else [])]}
            for choice in self.choices
        }
        return {
            "type": "object",
            "properties": fields,
            "required": list(fields),
            "additionalProperties": False,
        }

    def answer(self, values: Mapping[str, str]) -> str:
        """Return the reply that states these values and leaves the other attributes out."""
        stated = {c.name: values[c.name] for c in self.choices if c.name in values}
        return json.dumps(stated, ensure_ascii=False)


def attribute_question(taxonomy: Taxonomy, category: str, *, abstain: bool = True) -> Question:
    """Return the question for all of a category's attributes that have values."""
    choices = tuple(choice for choice in taxonomy.choices(category) if choice.values)
    return Question(category, choices, taxonomy.aliases, abstain)


def category_question(taxonomy: Taxonomy) -> Question:
    """Return the question which category a product is of."""
    return Question("", (Choice(CATEGORY, taxonomy.categories),), {}, abstain=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
