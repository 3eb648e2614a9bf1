"""What the recipe vqa learnt, and how it asks: products to questions, replies to probabilities.

It does not know how a model is reached. Legend: n rows of one category, V values packed, C categories.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.data.facts import facts_of
from shelfwise.errors import ImageError, PredictionError
from shelfwise.files import cache_directory
from shelfwise.models.chat import Chat, Endpoint
from shelfwise.models.vision_language import VisionLanguage, fingerprint_of, load_model, shared_model
from shelfwise.models.vision_tuning import Arrays, put_adapter, with_adapter
from shelfwise.predictions import Floats, Machine, Predictions
from shelfwise.recipes.questions import Question, attribute_question, category_question
from shelfwise.recipes.recall import Recall
from shelfwise.recipes.routing import Routes, assemble, route
from shelfwise.recipes.vqa_local import Local
from shelfwise.recipes.vqa_remote import Product, Remote, Told
from shelfwise.recipes.weights import write_arrays
from shelfwise.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelfwise.recipes.vqa import Vqa

Float = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class Asker(Protocol):
    """Something that is asked about products: ``Remote`` or ``Local``."""

    def ask(
        self, products: Sequence[Product], question: Question, shares: Sequence[Float]
    ) -> list[Told | RowError]:
        """Ask the same question about every product."""
        ...

    def note(self) -> str:
        """Say what asking took."""
        ...


class VqaPredictor:
    """Asks about every product.

    Attributes:
        categories: float64 [C], how often each category is stated.
        shares: category to float64 [V], how often each value is.
        learnt_on: the seed, and the fingerprint of a local model.
        adapter: the arrays of an adapter, if one was learnt.
    """

    def __init__(
        self,
        recipe: "Vqa",
        taxonomy: Taxonomy,
        categories: Float,
        shares: Mapping[str, Float],
        learnt_on: Mapping[str, str],
        adapter: Arrays | None = None,
    ) -> None:
        self.recipe, self.taxonomy, self.categories, self.shares = recipe, taxonomy, categories, shares
        self.learnt_on, self.adapter = learnt_on, adapter
        self._tuned: VisionLanguage | None = None

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Ask about every product with a readable picture.

        Raises:
            ChatError: the endpoint refuses everything, such as for want of a key.
            PredictionError: the local model is not the one this was learnt with.
        """
        failed: dict[int, RowError] = {}
        unsure: dict[int, tuple[str, ...]] = {}
        unreadable = unreadable_pictures(catalog, machine)
        with self._asker(machine) as asker:

            def guess(rows: Rows) -> tuple[Rows, Floats]:
                return self._guess(asker, catalog, rows, failed)

            routes = route(catalog, self.taxonomy, unreadable, guess)
            rows, probs = {}, {}
            for category, given in sorted(routes.rows.items()):
                left = np.array([row for row in given.tolist() if row not in failed], dtype=np.int64)
                told = self._ask(asker, catalog, category, left)
                failed |= {
                    row: t for row, t in zip(left.tolist(), told, strict=True) if isinstance(t, RowError)
                }
                good = {row: t for row, t in zip(left.tolist(), told, strict=True) if isinstance(t, Told)}
                unsure |= {row: t.unsure for row, t in good.items() if t.unsure}
                rows[category] = np.array(list(good), dtype=np.int64)
                probs[category] = self._packed(category, list(good.values()))
            notes = (asker.note(),)
        errors = {**routes.errors, **failed}
        guessed = {row: p for row, p in routes.guessed.items() if row not in failed}
        settled = Routes(rows, errors, guessed)
        found = assemble(catalog, self.taxonomy, settled, lambda category, _: probs[category], notes)
        return replace(found, unsure=unsure)

    def save(self, directory: Path) -> None:
        """Write the shares, and the adapter if there is one."""
        arrays = {"categories": self.categories}
        arrays |= {
            f"shares.{self.taxonomy.category_codes[name]}": found for name, found in self.shares.items()
        }
        adapter = {f"lora.{name}": array for name, array in (self.adapter or {}).items()}
        write_arrays(directory, {**arrays, **adapter}, self.learnt_on)

    @contextmanager
    def _asker(self, machine: Machine) -> Iterator[Asker]:
        """The model, ready to be asked."""
        recipe = self.recipe
        with Recall(machine.cache, recipe.remember) as recall:
            if recipe.endpoint is None:
                model = self._local(machine)
                yield Local(model, recall, self._mark(model), recipe.size, machine)
                return
            endpoint = Endpoint(
                recipe.endpoint,
                recipe.model,
                recipe.key,
                recipe.reply,
                recipe.likely,
                recipe.longest_reply,
                recipe.timeout,
                recipe.retries,
                int(self.learnt_on["seed"]),
            )
            with Chat(endpoint) as chat:
                mass, requests, prices = recipe.answer_mass, recipe.requests, recipe.prices
                yield Remote(chat, recall, recipe.size, mass, requests, prices, machine)

    def _local(self, machine: Machine) -> VisionLanguage:
        recipe, learnt_on = self.recipe, self.learnt_on["model"]
        if fingerprint_of(recipe.model) != learnt_on:
            raise PredictionError(
                f"the vision-language model {recipe.model!r} is not the one this predictor was learnt with "
                f"(fingerprint {fingerprint_of(recipe.model)[:12]} against {learnt_on[:12]})"
            )
        if recipe.lora is None or self.adapter is None:
            return shared_model(recipe.model, machine.device, recipe.precision)
        if self._tuned is None:
            base = load_model(recipe.model, machine.device, recipe.precision)
            self._tuned = with_adapter(base, recipe.lora, 0)
            put_adapter(self._tuned, self.adapter)
        return self._tuned

    def _mark(self, model: VisionLanguage) -> str:
        """What tells the model's replies from those of any other: weights, precision, device, adapter."""
        digest = hashlib.sha256(f"{model.fingerprint}{model.model.dtype}{model.model.device.type}".encode())
        for name, array in sorted((self.adapter or {}).items()):
            digest.update(name.encode() + array.tobytes())
        return digest.hexdigest()

    def _guess(
        self, asker: Asker, catalog: Catalog, rows: Rows, failed: dict[int, RowError]
    ) -> tuple[Rows, Floats]:
        """Category codes of rows and the probability of each; the most frequent category where there is no answer."""
        if len(self.categories) == 1:
            return np.zeros(len(rows), np.int64), np.ones(len(rows), np.float32)
        told = asker.ask(self._products(catalog, rows), category_question(self.taxonomy), [self.categories])
        codes, chances = [], []
        for row, found in zip(rows.tolist(), told, strict=True):
            if isinstance(found, RowError):
                failed[row] = found
            probs_C = self.categories if isinstance(found, RowError) else found.probs[0]
            codes.append(int(probs_C.argmax()))
            chances.append(float(probs_C.max()))
        return np.array(codes, np.int64), np.array(chances, np.float32)

    def _ask(self, asker: Asker, catalog: Catalog, category: str, rows: Rows) -> list[Told | RowError]:
        question = attribute_question(self.taxonomy, category, abstain=self._abstain)
        if not question.choices:
            return [Told(())] * len(rows)
        parts = self.taxonomy.slices(category)
        shares = [self.shares[category][part] for part in parts if part.stop > part.start]
        return asker.ask(self._products(catalog, rows), question, shares)

    @property
    def _abstain(self) -> bool:
        return self.recipe.abstain and self.recipe.endpoint is not None

    def _packed(self, category: str, told: Sequence[Told]) -> Floats:
        """float32 [n, V] of what was told of the rows of a category."""
        if not told or not told[0].probs:
            return np.zeros((len(told), self.taxonomy.width(category)), np.float32)
        return np.stack([np.concatenate(found.probs) for found in told]).astype(np.float32)

    def _products(self, catalog: Catalog, rows: Rows) -> list[Product]:
        texts = [catalog.texts(name) for name in self.recipe.text if name in catalog.frame.columns]
        products = []
        for row in rows.tolist():
            image = catalog.images[row]
            assert image is not None, "a row without a picture is an error before it is asked about"
            products.append(Product(image, tuple(cells[row] for cells in texts)))
        return products


def unreadable_pictures(catalog: Catalog, machine: Machine) -> dict[int, ImageError]:
    """Return why pictures cannot be read, by row position."""
    cache = cache_directory(machine.cache)
    facts = facts_of(catalog.images, cache=cache, jobs=machine.jobs, progress=machine.progress)
    return {**facts.errors, **catalog.image_errors}
