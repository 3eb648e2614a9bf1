"""Questions to a vision-language model on this machine.

It does not know catalogues beyond pictures and texts, nor how shares were learnt. A value's probability is the model's
own for writing it as the first value of its reply, so one attribute's answer does not hang on another's.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
import numpy.typing as npt

from shelfwise.answers import RowError
from shelfwise.data.images import content_digest, read_bytes
from shelfwise.data.small import small_image
from shelfwise.errors import ImageError
from shelfwise.models.vision_language import VisionLanguage
from shelfwise.predictions import Machine
from shelfwise.recipes.questions import Question
from shelfwise.recipes.recall import Recall, key_of
from shelfwise.recipes.spread import by_likelihood
from shelfwise.recipes.vqa_remote import Product, Told

Float = npt.NDArray[np.float64]


def replies_of(question: Question) -> list[tuple[str, tuple[str, ...]]]:
    """Return, per attribute, how a reply about it begins and the ways it goes on, one a value."""

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    return [
        ("{" + text(choice.name) + ': "', tuple(text(value)[1:] for value in choice.values))
        for choice in question.choices
    ]


@dataclass(eq=False)
class Local:
    """A model on this machine, and how it is used.

    Attributes:
        model: the model.
        recall: what it said before.
        mark: tells what it is from any other: fingerprint, precision, adapter.
        size: longest side of the pictures.
        machine: for progress.
    """

    model: VisionLanguage
    recall: Recall
    mark: str
    size: int
    machine: Machine
    asked: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)

    def ask(
        self, products: Sequence[Product], question: Question, shares: Sequence[Float]
    ) -> list[Told | RowError]:
        """Ask the same question about every product.

        Args:
            products: with their pictures.
            question: what to ask.
            shares: float64 [v] per attribute.
        """
        replies = replies_of(question)
        told: list[Told | RowError] = []
        for done, product in enumerate(products, start=1):
            try:
                logs = self._one(product, question, replies)
            except ImageError as error:
                told.append(RowError("image", f"{error.kind}: {error}"))
            else:
                told.append(Told(tuple(by_likelihood(x, s) for x, s in zip(logs, shares, strict=True))))
            if self.machine.progress is not None:
                self.machine.progress("asking", done, len(products))
        return told

    def note(self) -> str:
        """Say what asking took."""
        each = self.seconds / max(self.asked, 1)
        where = self.model.model.device
        return f"{self.model.source}: {self.asked:,} questions asked on {where}, {each:.2f} s an image"

    def _one(
        self, product: Product, question: Question, replies: Sequence[tuple[str, Sequence[str]]]
    ) -> list[Float]:
        data, text = read_bytes(product.image), question.about(product.texts)
        key = key_of({"local": [self.mark, self.size, text, replies]}, content_digest(data))
        kept = self.recall.get(key)
        if kept is None:
            began = monotonic()
            found = self.model.likelihoods(small_image(data, self.size), text, replies)
            kept = [logs_v.tolist() for logs_v in found]
            self.recall.put(key, kept)
            self.asked += 1
            self.seconds += monotonic() - began
        return [np.asarray(logs) for logs in kept]
