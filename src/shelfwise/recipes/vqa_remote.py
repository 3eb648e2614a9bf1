"""Questions to a model behind an endpoint: many at once, each once, and what that took.

It does not know catalogues beyond pictures and texts, nor how shares were learnt. What a product is told depends on it
alone: not on the others, nor on how many are asked side by side.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
import numpy.typing as npt

from shelfwise.answers import RowError
from shelfwise.data.images import content_digest, read_bytes
from shelfwise.data.small import data_url, small_image
from shelfwise.errors import ChatError, ImageError
from shelfwise.models.chat import Chat, Said, Step
from shelfwise.predictions import Machine
from shelfwise.recipes.questions import Question
from shelfwise.recipes.recall import Recall, key_of
from shelfwise.recipes.replies import read_reply
from shelfwise.recipes.spread import by_mass, by_tokens

Float = npt.NDArray[np.float64]
#: The field of errors that are a request's.
FIELD = "request"


@dataclass(frozen=True)
class Product:
    """One product to ask about.

    Attributes:
        image: its picture.
        texts: what its listing says.
    """

    image: Path
    texts: tuple[str | None, ...] = ()


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of a product after asking.

    Attributes:
        probs: float64 [v] per attribute of the question.
        unsure: the attributes without an answer; their probabilities are the shares.
    """

    probs: tuple[Float, ...]
    unsure: tuple[str, ...] = ()


@dataclass
class Spent:
    """What asking took.

    Attributes:
        asked, known, failed: requests made, replies that were known already, requests that failed for good.
        read, written: tokens, of requests made.
        seconds: of all requests, one after the other; ``wall`` what passed on the clock.
    """

    asked: int = 0
    known: int = 0
    failed: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0
    wall: float = 0.0

    def note(self, model: str, prices: tuple[float, float]) -> str:
        """Say it in a sentence; prices are per million tokens read and written."""
        each = max(self.asked, 1)
        cost = (self.read * prices[0] + self.written * prices[1]) / 1e6
        parts = [
            f"{model}: {self.asked:,} requests",
            *([f"{self.known:,} replies known from before"] if self.known else []),
            *([f"{self.failed:,} failed for good"] if self.failed else []),
        ]
        if self.asked:
            parts += [
                f"{self.read:,} tokens read and {self.written:,} written "
                f"({self.read / each:.0f} and {self.written / each:.0f} an image)",
                *([f"cost {cost:.4g} ({cost / each:.2g} an image)"] if any(prices) else []),
                f"{self.seconds / each:.2f} s an image, {self.wall / each:.2f} s with requests side by side",
            ]
        return ", ".join(parts)


@dataclass(eq=False)
class Remote:
    """A model behind an endpoint, and how it is used.

    Attributes:
        chat: the connection.
        recall: what it said before.
        size: longest side of the pictures sent.
        mass: probability of a value answered without token probabilities.
        requests: how many at once.
        prices: per million tokens read and written.
        machine: for progress.
        spent: what asking took so far.
    """

    chat: Chat
    recall: Recall
    size: int
    mass: float
    requests: int
    prices: tuple[float, float]
    machine: Machine
    spent: Spent = field(default_factory=Spent)

    def ask(
        self, products: Sequence[Product], question: Question, shares: Sequence[Float]
    ) -> list[Told | RowError]:
        """Ask the same question about every product.

        Args:
            products: with their pictures.
            question: what to ask.
            shares: float64 [v] per attribute.

        Raises:
            ChatError: the endpoint refuses everything, such as for want of a key.
        """
        began, told = monotonic(), []
        for done, said in enumerate(self._said(products, question), start=1):
            told.append(said if isinstance(said, RowError) else self.reading(said, question, shares))
            if self.machine.progress is not None:
                self.machine.progress("asking", done, len(products))
        self.spent.wall += monotonic() - began
        return told

    def note(self) -> str:
        """Say what asking took."""
        return self.spent.note(self.chat.endpoint.model, self.prices)

    def reading(self, said: Said, question: Question, shares: Sequence[Float]) -> Told:
        """Turn what was said into probabilities."""
        reply = read_reply(said.text, question)
        probs: list[Float] = []
        for choice, code, span, shares_v in zip(
            question.choices, reply.codes, reply.spans, shares, strict=True
        ):
            found = None
            if code >= 0 and span is not None and said.steps:
                found = by_tokens(said.steps, span, choice.values, code, shares_v)
            probs.append(by_mass(code, shares_v, self.mass) if found is None else found)
        named = zip(question.choices, reply.codes, strict=True)
        return Told(tuple(probs), tuple(choice.name for choice, code in named if code < 0))

    def _said(self, products: Sequence[Product], question: Question) -> Iterator[Said | RowError]:
        """What was said of each product, in their order."""
        pool = ThreadPoolExecutor(self.requests, thread_name_prefix="asking")
        try:
            for said, known in pool.map(lambda product: self._one(product, question), products):
                failed = isinstance(said, RowError)
                self.spent.known += known
                self.spent.asked += not known and not failed
                self.spent.failed += failed
                if isinstance(said, Said) and not known:
                    self.spent.read += said.read
                    self.spent.written += said.written
                    self.spent.seconds += said.seconds
                yield said
        finally:
            pool.shutdown(cancel_futures=True)

    def _one(self, product: Product, question: Question) -> tuple[Said | RowError, bool]:
        """What is said of one product, and whether it was known before."""
        try:
            data = read_bytes(product.image)
            text, end = question.about(product.texts), self.chat.endpoint
            asked = [
                end.url,
                end.model,
                end.form,
                end.others,
                end.most,
                end.seed,
                self.size,
                text,
                question.schema,
            ]
            key = key_of({"remote": asked}, content_digest(data))
            kept = self.recall.get(key)
            if kept is not None:
                steps = tuple(Step(token, others) for token, others in kept["steps"])
                return Said(kept["text"], steps, kept["read"], kept["written"], kept["seconds"]), True
            said = self.chat.ask(text, data_url(small_image(data, self.size)), question.schema)
        except ImageError as error:
            return RowError("image", f"{error.kind}: {error}"), False
        except ChatError as error:
            if error.hopeless:
                raise
            return RowError(FIELD, str(error)), False
        pairs = [(step.text, dict(step.others)) for step in said.steps]
        self.recall.put(
            key,
            {
                "text": said.text,
                "steps": pairs,
                "read": said.read,
                "written": said.written,
                "seconds": said.seconds,
            },
        )
        return said, False
