"""Conversations: labelled products as questions with their right replies, for fine-tuning.

It knows catalogues and questions, not models. The file format is that of ShareGPT as LLaMA-Factory and others read
it: a list of ``{"messages": [user, assistant], "images": [path]}``, the picture standing in the text as
``<image>``. A value that is not stated is left out of the reply and teaches nothing; a product without any is left out.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError
from shelfwise.files import write_text
from shelfwise.recipes.questions import attribute_question

#: What stands for the picture in the text.
PICTURE = "<image>"


@dataclass(frozen=True)
class Conversation:
    """One product's question and right reply.

    Attributes:
        row: its position in the table.
        id: its id.
        image: its picture.
        question, reply: in words.
    """

    row: int
    id: str
    image: Path
    question: str
    reply: str


def conversations(
    catalog: Catalog, *, text: Sequence[str] = (), abstain: bool = True
) -> Iterator[Conversation]:
    """Yield the products that have a category, a located picture and at least one stated value, in table order.

    Args:
        catalog: the products.
        text: columns whose text is put into the question.
        abstain: whether the question offers ``null`` for what the picture does not show.
    """
    texts = [catalog.texts(name) for name in text if name in catalog.frame.columns]
    found: dict[int, Conversation] = {}
    for category in catalog.present:
        question = attribute_question(catalog.taxonomy, category, abstain=abstain)
        choices = catalog.taxonomy.choices(category)
        for row, labels in zip(catalog.rows(category).tolist(), catalog.labels(category), strict=True):
            image = catalog.images[row]
            stated = {c.name: c.values[k] for c, k in zip(choices, labels.tolist(), strict=True) if k >= 0}
            if stated and image is not None:
                asked = question.about([cells[row] for cells in texts])
                found[row] = Conversation(row, catalog.ids[row], image, asked, question.answer(stated))
    for row in sorted(found):
        yield found[row]


def write_conversations(
    catalog: Catalog, path: str | Path, *, text: Sequence[str] = (), abstain: bool = True
) -> int:
    """Write the conversations of a catalogue as JSON; returns how many there are.

    Raises:
        CatalogError: no product has a picture and a stated value, or a column is not there.
    """
    for name in text:
        catalog.texts(name)
    table = [
        {
            "messages": [
                {"role": "user", "content": f"{PICTURE}\n{item.question}"},
                {"role": "assistant", "content": item.reply},
            ],
            "images": [str(item.image.resolve())],
        }
        for item in conversations(catalog, text=text, abstain=abstain)
    ]
    if not table:
        raise CatalogError(f"{catalog.source}: no product has a picture and a stated value")
    write_text(path, json.dumps(table, ensure_ascii=False, indent=1) + "\n")
    return len(table)
