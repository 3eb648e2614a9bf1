"""Vqa: ask a vision-language model, constrained to the taxonomy's values.

It does not know protocols or networks. The model sits behind an OpenAI-compatible endpoint (``recipes.vqa_remote``) or
on this machine (``recipes.vqa_local``). Legend: n rows of one category, A its attributes, C categories.

What ``fit`` learns is how often each value is stated, and, if asked, an adapter for a local model. A value answered
gets the probability that the model gives it; where that is not to be had, a fixed mass (``answer_mass``), the others
sharing the rest by how often they are stated. Either is a first guess: ``trust.calibrate`` finds out of fold what an
answer is worth. Where the model gives no answer the shares stand alone and the cell is ``unsure``.
"""

from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from shelfwise.catalog import Catalog
from shelfwise.config import Options
from shelfwise.data.images import read_bytes
from shelfwise.data.small import small_image
from shelfwise.errors import BundleError, CatalogError
from shelfwise.models.chat import Form
from shelfwise.models.vision_language import fingerprint_of, load_model
from shelfwise.models.vision_tuning import Arrays, Example, Lora, adapter_of, tune, with_adapter
from shelfwise.predictions import Machine
from shelfwise.recipes.conversations import conversations
from shelfwise.recipes.spread import shares_of
from shelfwise.recipes.vqa_predictor import VqaPredictor, unreadable_pictures
from shelfwise.recipes.weights import read_arrays
from shelfwise.registry import register
from shelfwise.taxonomy import Taxonomy


@register.recipe("vqa")
class Vqa(Options):
    """Questions to a vision-language model.

    Attributes:
        model: its folder or hub name, or what the endpoint calls it.
        endpoint: address of an OpenAI-compatible server, such as ``http://localhost:8000/v1``; left out, the model runs
            here, through transformers.
        key: the environment variable that holds the endpoint's key, its name ending in ``API_KEY``; the key itself is
            written nowhere.
        text: columns whose text is put into the question.
        size: longest side of the pictures shown, in pixels.
        abstain: offer ``null`` for what the picture does not show (endpoint only).
        reply: how the endpoint is to bind the reply: ``schema``, ``object``, ``text``; ``auto``: the first it takes.
        likely: likely tokens asked for at every place of a reply, for probabilities; 0 for none.
        answer_mass: probability of a value answered without them.
        longest_reply: tokens.
        requests: how many at once.
        timeout: seconds without a byte until an attempt has failed.
        retries: attempts after the first, with growing waits.
        prices: per million tokens read and written, for the cost in the notes.
        remember: keep replies in the cache folder, so that the same question about the same picture is asked once.
        precision: of a local model: ``auto`` is bf16 on a GPU, else fp32.
        lora: learn an adapter for a local model.
    """

    concurrent: ClassVar[bool] = False

    model: str = Field(default="Qwen/Qwen2-VL-7B-Instruct", min_length=1)
    endpoint: str | None = Field(default=None, pattern="^https?://")
    key: str = Field(default="OPENAI_API_KEY", pattern="^([A-Za-z][A-Za-z0-9_]*_)?API_KEY$")
    text: tuple[str, ...] = ()
    size: int = Field(default=512, ge=16, le=4096)
    abstain: bool = True
    reply: Form = "auto"
    likely: int = Field(default=20, ge=0, le=20)
    answer_mass: float = Field(default=0.8, gt=0, lt=1)
    longest_reply: int = Field(default=512, ge=1)
    requests: int = Field(default=8, ge=1, le=256)
    timeout: float = Field(default=120.0, gt=0)
    retries: int = Field(default=5, ge=0, le=20)
    prices: tuple[float, float] = (0.0, 0.0)
    remember: bool = True
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    lora: Lora | None = None

    @model_validator(mode="after")
    def _check(self) -> "Vqa":
        if self.lora is not None and self.endpoint is not None:
            raise ValueError(
                "lora is for a local model: leave endpoint out, or tune the model where it is served"
            )
        return self

    @property
    def name(self) -> str:
        """The registered name."""
        return "vqa"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "VqaPredictor":
        """Count how often each value is stated; with ``lora``, learn an adapter too. The endpoint is not asked.

        Raises:
            CatalogError: with ``lora``, no product has a readable picture and a stated value.
            EngineError: with ``lora``, the model cannot be loaded.
        """
        taxonomy = train.taxonomy
        shares = {}
        for category in taxonomy.categories:
            labels_nA, choices = train.labels(category), taxonomy.choices(category)
            each = [shares_of(labels_nA[:, a], len(c.values)) for a, c in enumerate(choices)]
            shares[category] = np.concatenate(each) if each else np.zeros(0)
        known = train.category[train.category >= 0]
        categories_C = shares_of(known, len(taxonomy.categories))
        learnt_on = {"seed": str(seed), **({} if self.endpoint else {"model": fingerprint_of(self.model)})}
        predictor = VqaPredictor(self, taxonomy, categories_C, shares, learnt_on)
        if self.lora is not None:
            predictor.adapter = self._tune(self.lora, train, machine, seed)
        return predictor

    def load(self, directory: Path, taxonomy: Taxonomy) -> "VqaPredictor":
        """Read what ``VqaPredictor.save`` wrote."""
        arrays, metadata = read_arrays(directory)
        try:
            shares = {name: arrays[f"shares.{code}"] for name, code in taxonomy.category_codes.items()}
            fits = all(len(found) == taxonomy.width(name) for name, found in shares.items())
            predictor = VqaPredictor(self, taxonomy, arrays["categories"], shares, metadata)
        except KeyError as error:
            raise BundleError(f"{directory}: the saved shares lack {error}") from error
        if not fits or len(arrays["categories"]) != len(taxonomy.categories):
            raise BundleError(f"{directory}: the saved shares are of another taxonomy")
        adapter = {key.removeprefix("lora."): a for key, a in arrays.items() if key.startswith("lora.")}
        if bool(adapter) != (self.lora is not None):
            raise BundleError(
                f"{directory}: the recipe and the saved arrays disagree on whether there is an adapter"
            )
        predictor.adapter = adapter or None
        return predictor

    def _tune(self, lora: Lora, train: Catalog, machine: Machine, seed: int) -> Arrays:
        unreadable = unreadable_pictures(train, machine)
        examples = [
            Example(item.id, partial(_shown, item.image, self.size), item.question, item.reply)
            for item in conversations(train, text=self.text, abstain=False)
            if item.row not in unreadable
        ]
        if not examples:
            raise CatalogError(
                f"{train.source}: no product has a readable picture and a stated value to tune on"
            )
        base = load_model(self.model, machine.device, self.precision)
        tuned = with_adapter(base, lora, seed)
        tune(tuned, examples, lora, seed, machine.progress)
        return adapter_of(tuned)


def _shown(path: Path, size: int) -> Any:
    """The picture as the model is shown it."""
    return small_image(read_bytes(path), size)
