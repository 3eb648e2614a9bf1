"""Probe: heads on frozen, cached embeddings; the default recipe.

It knows neither how vectors are computed nor how answers are decided.
Legend: N rows, n of one category, D features, r components, A attributes, V values packed, C categories.

Features are signed square roots of the backbone's vector (which tames the few large activations of
pooled convolutional features; Perronnin et al. 2010), standardised, rotated to their principal axes and cut to
``components``. Every attribute of every category is one softmax regression on them, all solved jointly to
the optimum by ``models.solver``; missing labels are masked and rare values weighted up. A second opinion is
the vote of the training products that look most alike (``recipes.votes``); a third that of heads that are learnt
from all categories that have an attribute in common (``recipes.shared``). A row without a category gets the most
probable one of a linear discriminant analysis, which costs a product the same however many categories there are.

With ``choice_inputs = ["image", "text"]`` the same is learnt of the texts' vectors, by an expert of its own
(``recipes.experts``): of photos from the products with a readable photo, of texts from those whose text says anything.
So a missing side is not a vector of zeros; a product without one is answered by the other alone.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, Options, TextEncoderSpec
from shelfwise.errors import CatalogError, UsageError
from shelfwise.models.text_encoders import build_text_encoder
from shelfwise.predictions import Machine
from shelfwise.recipes.experts import Expert
from shelfwise.recipes.features import Features, features, seen
from shelfwise.recipes.probe_predictor import ProbePredictor, load_probe
from shelfwise.recipes.shared import Commons, SharedHeads
from shelfwise.recipes.space import Space, learn_discriminant, learn_space
from shelfwise.recipes.texts import product_texts, saying
from shelfwise.recipes.value_names import name_vectors, paired_encoder
from shelfwise.recipes.votes import Votes
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

__all__ = ["Probe", "ProbePredictor", "Space", "learn_discriminant", "learn_space", "row_weights"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
INPUTS = (("image",), ("image", "text"), ("text",))
#: Padded cells (categories x rows x components) of a batch of small categories solved side by side.
BATCH_CELLS = 8_000_000


@register.recipe("probe")
class Probe(Options):
    """Softmax regressions on frozen features.

    Attributes:
        backbone: what turns pictures into vectors.
        components: principal components kept.
        l2: strength of the penalty, with features scaled to a total variance of 1.
        class_weight: power p of the class weights ``count ** -p``, mean 1: 0 none, 1 balanced.
        look_alikes: width of the kernel with which similar training products vote as a second opinion, in cosine
            of whitened components; 0 for no such vote.
        shared: learn attributes that several categories have from all of them too, as one more opinion. Beside the
            other two it was worth +0.014 [0.006, 0.022] on the fashion catalogue (0.656 to 0.670) and +0.009 [0.000,
            0.028] on myntra (0.645 to 0.655); grouped holdout of a fifth, metric-aware answers on both sides.
        choice_inputs: what attributes are told from: ``image``, ``image`` and ``text``, or ``text``. Beside photos
            titles were worth +0.036 [0.030, 0.042] on the fashion catalogue (0.662 to 0.697) and, with brands, +0.085
            [0.055, 0.111] on flipkart (0.317 to 0.402); grouped 5-fold, metric-aware answers on both sides.
        text_encoder: what turns texts into vectors; one that learns is fitted to the training texts alone.
        start_unlabelled: what an attribute without any label starts from: ``uniform``, or ``value_names``, its values'
            names as texts beside the photo, for a backbone whose text tower is at hand (``open_clip``).
    """

    concurrent: ClassVar[bool] = True

    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )
    components: int = Field(default=768, ge=1)
    l2: float = Field(default=0.05, gt=0)
    class_weight: float = Field(default=0.75, ge=0, le=1)
    look_alikes: float = Field(default=0.05, ge=0)
    shared: bool = True
    choice_inputs: tuple[Literal["image", "text"], ...] = ("image",)
    text_encoder: TextEncoderSpec = Field(
        default_factory=lambda: REGISTRIES["text_encoder"].spec("tfidf"), validate_default=True
    )
    start_unlabelled: Literal["uniform", "value_names"] = "uniform"

    @model_validator(mode="after")
    def _fits(self) -> "Probe":
        if self.choice_inputs not in INPUTS:
            raise ValueError("choice_inputs is ['image'], ['image', 'text'] or ['text']")
        if self.start_unlabelled == "value_names":
            if "image" not in self.choice_inputs:
                raise ValueError(
                    "start_unlabelled: names are held against photos: choice_inputs needs 'image'"
                )
            try:
                paired_encoder(self.backbone)
            except UsageError as error:
                raise ValueError(f"start_unlabelled: {error}") from error
        return self

    @property
    def name(self) -> str:
        """The registered name."""
        return "probe"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> ProbePredictor:
        """Learn every head from the rows with a category and a readable picture, or a text that says something.

        Nothing is drawn at random, but for what a text encoder draws: rows are taken in the order of their ids, so
        the seed and the order of the table make no difference.

        Raises:
            CatalogError: no such row.
        """
        train = train.select(sorted(range(len(train)), key=lambda i: (train.ids[i], i)))
        experts: dict[str, Expert] = {}
        found, encoder, names = None, None, {}
        if "image" in self.choice_inputs:
            found = features(train, self.backbone, machine)
            experts |= self._expert("image", train, found.vectors, seen(found.vectors), machine)
            if self.start_unlabelled == "value_names":
                names = name_vectors(train, self.backbone, found.vectors.shape[1], machine)
        if "text" in self.choice_inputs:
            texts = product_texts(train)
            # Each text once: products that are listed again do not make its words more frequent.
            encoder = build_text_encoder(self.text_encoder).fit(sorted(set(filter(None, texts))), seed=seed)
            vectors_ND = encoder.encode(texts, machine)
            experts |= self._expert("text", train, vectors_ND, saying(vectors_ND), machine)
        if not experts:
            what = " or ".join(
                {"image": "a readable picture", "text": "a text"}[name] for name in self.choice_inputs
            )
            raise CatalogError(f"{train.source}: no product has {what} and a category")
        return ProbePredictor(self, train.taxonomy, experts, encoder, names, _identity(found))

    def load(self, directory: Path, taxonomy: Taxonomy) -> ProbePredictor:
        """Read what ``ProbePredictor.save`` wrote."""
        return load_probe(self, directory, taxonomy)

    def _expert(
        self,
        name: str,
        train: Catalog,
        vectors_ND: Floats,
        there_N: npt.NDArray[np.bool_],
        machine: Machine,
    ) -> dict[str, Expert]:
        """Return what is learnt of one kind of vector under its name; nothing where no product has one."""
        from shelfwise.models.towers import one_thread

        rows = np.flatnonzero(there_N & (train.category >= 0))
        if not len(rows):
            return {}
        train, vectors_ND = train.select(rows), vectors_ND[rows]
        # One thread: sums in one order on any machine, and side by side the folds use the cores better.
        with one_thread():
            space = learn_space(vectors_ND, self.components, plain=name == "text")
            reduced_Nr = space.apply(vectors_ND)
            heads = dict(self.solve_heads(train, reduced_Nr, machine))
            shared = self.solve_shared(train, reduced_Nr) if self.shared else None
            guess = learn_discriminant(reduced_Nr, train.category, len(train.taxonomy.categories))
        votes = Votes.learn(train, reduced_Nr, self.look_alikes) if self.look_alikes else None
        return {name: Expert(space, heads, guess, votes, shared)}

    def solve_shared(self, train: Catalog, reduced_Nr: Floats) -> SharedHeads | None:
        """Return the heads that categories share; ``None`` where they have nothing in common."""
        import torch

        from shelfwise.models.solver import Problems, solve

        commons = Commons.of(train.taxonomy)
        if not commons.values:
            return None
        labels_NA = commons.labels(train)
        rows = np.flatnonzero((labels_NA >= 0).any(axis=1))
        if not len(rows):  # Every value is as likely: experts of photos and of texts have as many opinions.
            return SharedHeads(
                commons,
                np.zeros((reduced_Nr.shape[1], sum(commons.sizes)), np.float32),
                np.zeros(sum(commons.sizes), np.float32),
            )
        labels_nA = labels_NA[rows]
        problems = Problems(
            torch.from_numpy(reduced_Nr[rows][None]),
            torch.from_numpy(labels_nA[None].astype(np.int64)),
            torch.from_numpy(row_weights(labels_nA, commons.sizes, self.class_weight)[None]),
            commons.sizes,
        )
        weight_CrU, bias_CU = solve(problems, self.l2)
        return SharedHeads(commons, weight_CrU[0].numpy().copy(), bias_CU[0].numpy().copy())

    def solve_heads(
        self, train: Catalog, reduced_Nr: Floats, machine: Machine
    ) -> Iterator[tuple[str, tuple[Floats, Floats]]]:
        """Yield each category with its weights [r, V] and biases [V]."""
        import torch

        from shelfwise.models.solver import Problems, solve

        taxonomy, done = train.taxonomy, 0
        for batch in _batches(train, reduced_Nr.shape[1]):
            sizes = [
                max(column)
                for column in zip(*([len(c.values) for c in taxonomy.choices(n)] for n in batch), strict=True)
            ]
            most = max(len(train.rows(name)) for name in batch)
            features_CnD = np.zeros((len(batch), most, reduced_Nr.shape[1]), np.float32)
            labels_CnA = np.full((len(batch), most, len(sizes)), -1, np.int64)
            weights_CnA = np.zeros((len(batch), most, len(sizes)), np.float32)
            for at, name in enumerate(batch):
                rows, labels_nA = train.rows(name), train.labels(name)
                features_CnD[at, : len(rows)] = reduced_Nr[rows]
                labels_CnA[at, : len(rows)] = labels_nA
                weights_CnA[at, : len(rows)] = row_weights(labels_nA, sizes, self.class_weight)
            problems = Problems(
                torch.from_numpy(features_CnD),
                torch.from_numpy(labels_CnA),
                torch.from_numpy(weights_CnA),
                sizes,
            )
            weight_CrV, bias_CV = solve(problems, self.l2)
            for at, name in enumerate(batch):
                kept = _packed_columns([len(c.values) for c in taxonomy.choices(name)], sizes)
                yield name, (weight_CrV[at][:, kept].numpy().copy(), bias_CV[at][kept].numpy().copy())
            done += len(batch)
            if machine.progress is not None:
                machine.progress("fitting heads", done, len(train.present))


def _identity(found: Features | None) -> dict[str, str]:
    return found.identity() if found is not None else {}


def _batches(train: Catalog, dimension: int) -> Iterator[list[str]]:
    """Categories that are solved side by side: as many attributes, about as many rows, bounded in memory."""
    by_attributes: dict[int, list[str]] = defaultdict(list)
    for name in train.present:
        if train.taxonomy.width(name):
            by_attributes[len(train.taxonomy.choices(name))].append(name)
    for names in by_attributes.values():
        names.sort(key=lambda name: (len(train.rows(name)), name))
        batch: list[str] = []
        for name in names:
            n = len(train.rows(name))
            small = batch and 2 * len(train.rows(batch[0])) >= n
            if batch and not (small and (len(batch) + 1) * n * min(n, dimension) <= BATCH_CELLS):
                yield batch
                batch = []
            batch.append(name)
        yield batch


def _packed_columns(sizes: list[int], padded: list[int]) -> Ints:
    """The columns of a category's own values among those of its batch."""
    starts = np.concatenate([[0], np.cumsum(padded)[:-1]])
    return np.concatenate([start + np.arange(size) for start, size in zip(starts, sizes, strict=True)])


def row_weights(labels_nA: npt.NDArray[np.int32], sizes: list[int], power: float) -> Floats:
    """Return float32 [n, A], the class weight of each label; 0 where missing, mean 1 over an attribute's labels."""
    from shelfwise.models.losses import class_weights

    weights_nA = np.zeros(labels_nA.shape, np.float32)
    for attribute, size in enumerate(sizes):
        label_n = labels_nA[:, attribute]
        stated = label_n >= 0
        weight_K = class_weights(np.bincount(label_n[stated], minlength=size), power)
        weights_nA[stated, attribute] = weight_K[label_n[stated]]
    return weights_nA
