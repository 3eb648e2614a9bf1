"""Probe: heads on frozen, cached embeddings; the default recipe.

It knows neither how vectors are computed nor how answers are decided.
Legend: N rows, n of one category, D features, r components, A attributes, V values packed, C categories.

Features are signed square roots of the backbone's vector (which tames the few large activations of
pooled convolutional features; Perronnin et al. 2010), standardised, rotated to their principal axes and cut to
``components``. Every attribute of every category is one softmax regression on them, all solved jointly to
the optimum by ``models.solver``; missing labels are masked and rare values weighted up. A second opinion is
the vote of the training products that look most alike (``recipes.votes``). A row without a
category gets the most probable one of a linear discriminant analysis, which costs a product the same
however many categories there are to learn.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy.special import softmax

from shelfwise.catalog import Catalog
from shelfwise.config import BackboneSpec, Options
from shelfwise.errors import CatalogError
from shelfwise.predictions import Machine, Predictions, uniform
from shelfwise.recipes.features import Features, check_features, features
from shelfwise.recipes.routing import assemble, route
from shelfwise.recipes.votes import Votes
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.registry import REGISTRIES, register
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: Padded cells (categories x rows x components) of a batch of small categories solved side by side.
BATCH_CELLS = 8_000_000
#: Rows standardised at once in double precision; bounds memory.
ROWS = 2048
#: Rows the principal axes are found from, and axes beyond those kept that help to find them.
AXES_ROWS, SPARE_AXES = 4096, 64
#: Share of the mean variance added to the covariance of the category's discriminant analysis.
SHRINK = 0.05
#: Axes with less than this share of all variance are left out.
NO_VARIANCE = 1e-6
#: Exponent of the look-alikes' vote in the blend that stands until a calibration finds each attribute's own.
VOTE = 0.37


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
    """

    concurrent: ClassVar[bool] = True

    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )
    components: int = Field(default=768, ge=1)
    l2: float = Field(default=0.05, gt=0)
    class_weight: float = Field(default=0.75, ge=0, le=1)
    look_alikes: float = Field(default=0.05, ge=0)

    @property
    def name(self) -> str:
        """The registered name."""
        return "probe"

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "ProbePredictor":
        """Learn every head from the rows with a readable picture and a category.

        Nothing is drawn at random: rows are taken in the order of their ids, so the seed and the order of
        the table make no difference.

        Raises:
            CatalogError: no such row.
        """
        from shelfwise.models.towers import one_thread

        found = features(train, self.backbone, machine)
        usable_N = (train.category >= 0) & np.isfinite(found.vectors).all(axis=1)
        rows = np.array(
            sorted(np.flatnonzero(usable_N).tolist(), key=lambda i: (train.ids[i], i)), dtype=np.int64
        )
        if not len(rows):
            raise CatalogError(f"{train.source}: no product has a readable picture and a category")
        train, vectors_ND = train.select(rows), found.vectors[rows]
        # One thread: sums in one order on any machine, and side by side the folds use the cores better.
        with one_thread():
            space = learn_space(vectors_ND, self.components)
            reduced_Nr = space.apply(vectors_ND, np.float32)
            heads = dict(self.solve_heads(train, reduced_Nr, machine))
            guess = learn_discriminant(reduced_Nr, train.category, len(train.taxonomy.categories))
        votes = Votes.learn(train, reduced_Nr, self.look_alikes) if self.look_alikes else None
        return ProbePredictor(self, train.taxonomy, space, heads, guess, votes, found)

    def load(self, directory: Path, taxonomy: Taxonomy) -> "ProbePredictor":
        """Read what ``ProbePredictor.save`` wrote."""
        arrays, metadata = read_arrays(directory)
        space = Space(arrays["centre"], arrays["scale"], arrays["axes"])
        heads = {
            name: (arrays[f"weight.{code}"], arrays[f"bias.{code}"])
            for name, code in taxonomy.category_codes.items()
            if f"weight.{code}" in arrays
        }
        guess = arrays["category.weight"], arrays["category.bias"]
        votes = Votes.of(arrays, taxonomy, self.look_alikes) if self.look_alikes else None
        return ProbePredictor(self, taxonomy, space, heads, guess, votes, metadata)

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


@dataclass(frozen=True, eq=False)
class Space:
    """From a backbone's vector to components.

    Attributes:
        centre, scale: float32 [D], of standardising the signed square roots.
        axes: float32 [D, r], principal axes, scaled to a total variance of 1.
    """

    centre: Floats
    scale: Floats
    axes: Floats

    def apply(self, vectors_ND: Floats, dtype: type[np.floating[Any]] = np.float64) -> npt.NDArray[Any]:
        """Return [N, r].

        In double precision, the default, a row's result does not depend on its neighbours once it is rounded
        to single; to learn from, single precision is enough and takes half the time.
        """
        axes_Dr, centre, scale = (part.astype(dtype) for part in (self.axes, self.centre, self.scale))
        reduced_Nr = np.empty((len(vectors_ND), axes_Dr.shape[1]), dtype)
        for start in range(0, len(vectors_ND), ROWS):
            part_nD = vectors_ND[start : start + ROWS].astype(dtype)
            rooted_nD = np.copysign(np.sqrt(np.abs(part_nD)), part_nD)
            reduced_Nr[start : start + ROWS] = ((rooted_nD - centre) / scale) @ axes_Dr
        return reduced_Nr


def learn_space(vectors_ND: Floats, components: int) -> Space:
    """Find the standardisation, and the principal axes by subspace iteration on ``AXES_ROWS`` of the vectors.

    The iteration (Halko, Martinsson and Tropp 2011) starts from fixed numbers, so the same vectors give the
    same axes. Against all axes of all rows it made no difference that could be measured: 0.652 against 0.654
    on the fashion catalogue, 0.611 against 0.609 on myntra, grouped 5-fold.
    """
    import torch

    n = len(vectors_ND)
    sum_D, square_D = np.zeros((2, vectors_ND.shape[1]))
    for start in range(0, n, ROWS):
        part_nD = vectors_ND[start : start + ROWS]
        square_D += np.abs(part_nD).sum(axis=0, dtype=np.float64)
        sum_D += np.copysign(np.sqrt(np.abs(part_nD)), part_nD).sum(axis=0, dtype=np.float64)
    centre = sum_D / n
    variance_D = np.maximum(square_D / n - centre**2, 0)
    scale = np.maximum(np.sqrt(variance_D), 1e-3)
    total = float((variance_D / scale**2).sum())
    chosen_ND = vectors_ND[np.random.default_rng(0).permutation(n)[:AXES_ROWS]]
    rooted_ND = np.copysign(np.sqrt(np.abs(chosen_ND)), chosen_ND)
    some_ND = torch.from_numpy((rooted_ND - centre.astype(np.float32)) / scale.astype(np.float32))
    gram_DD = some_ND.T @ some_ND
    dimension = len(gram_DD)
    kept = min(components, n, dimension)
    if kept + SPARE_AXES >= dimension:
        found, axes_DD = torch.linalg.eigh(gram_DD)
    else:
        draw = torch.Generator().manual_seed(0)
        basis_DR = torch.randn(dimension, kept + SPARE_AXES, generator=draw)
        for _ in range(3):
            basis_DR = torch.linalg.qr(gram_DD @ basis_DR).Q
        found, turn_RR = torch.linalg.eigh(basis_DR.T @ (gram_DD @ basis_DR))
        axes_DD = basis_DR @ turn_RR
    # Along an axis without variance nothing was learnt, and a new product may lie anywhere.
    kept = max(1, min(kept, int((found > NO_VARIANCE * gram_DD.trace()).sum())))
    axes_Dr = (axes_DD[:, -kept:].flip(1) / max(total, 1e-12) ** 0.5).numpy()
    return Space(centre.astype(np.float32), scale.astype(np.float32), np.ascontiguousarray(axes_Dr))


def learn_discriminant(
    reduced_Nr: Floats, category_N: npt.NDArray[np.int32], categories: int
) -> tuple[Floats, Floats]:
    """Fit a linear discriminant analysis of the category with one shrunk covariance.

    Returns:
        Weights float32 [r, C] and biases [C]; a category without rows has the bias ``-inf``.
    """
    import torch

    count_C = np.bincount(category_N, minlength=categories).astype(np.float64)
    mean_Cr = np.zeros((categories, reduced_Nr.shape[1]))
    np.add.at(mean_Cr, category_N, reduced_Nr.astype(np.float64))
    mean_Cr /= np.maximum(count_C, 1)[:, None]
    within_Nr = torch.from_numpy(reduced_Nr - mean_Cr[category_N].astype(np.float32))
    covariance_rr = (within_Nr.T @ within_Nr).double() / len(reduced_Nr)
    covariance_rr.diagonal().add_(max(SHRINK * float(covariance_rr.diagonal().mean()), 1e-9))
    weight_rC = torch.linalg.solve(covariance_rr, torch.from_numpy(mean_Cr.T.copy())).numpy()
    with np.errstate(divide="ignore"):
        bias_C = np.log(count_C / count_C.sum()) - 0.5 * (mean_Cr.T * weight_rC).sum(axis=0)
    return weight_rC.astype(np.float32), bias_C.astype(np.float32)


class ProbePredictor:
    """Softmax regressions ready to answer."""

    def __init__(
        self,
        recipe: Probe,
        taxonomy: Taxonomy,
        space: Space,
        heads: Mapping[str, tuple[Floats, Floats]],
        guess: tuple[Floats, Floats],
        votes: Votes | None,
        learnt_on: Features | Mapping[str, str],
    ) -> None:
        self.recipe, self.taxonomy, self.space, self.heads, self.guess = recipe, taxonomy, space, heads, guess
        self.votes = votes
        self.learnt_on = learnt_on.identity() if isinstance(learnt_on, Features) else dict(learnt_on)

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return probabilities for every row; rows without a readable picture carry the error."""
        found = features(catalog, self.recipe.backbone, machine)
        notes = check_features(self.learnt_on, found)
        readable = np.isfinite(found.vectors).all(axis=1)
        reduced_Nr = np.zeros((len(catalog), self.space.axes.shape[1]))
        reduced_Nr[readable] = self.space.apply(found.vectors[readable])

        def guess(rows: Ints) -> tuple[Ints, Floats]:
            probs_NC = softmax(reduced_Nr[rows] @ self.guess[0].astype(np.float64) + self.guess[1], axis=1)
            return probs_NC.argmax(axis=1), probs_NC.max(axis=1).astype(np.float32)

        def answer(category: str, rows: Ints) -> Floats | tuple[Floats, ...]:
            return self._answer(category, reduced_Nr[rows])

        routes = route(catalog, self.taxonomy, found.errors, guess)
        return assemble(catalog, self.taxonomy, routes, answer, notes)

    def _answer(self, category: str, reduced_nr: npt.NDArray[np.float64]) -> Floats | tuple[Floats, ...]:
        """Return float32 [n, V], the heads' probabilities; with votes: their blend, then the two opinions."""
        if category not in self.heads:
            return uniform(self.taxonomy, category, len(reduced_nr))
        weight_rV, bias_V = self.heads[category]
        logits_nV = reduced_nr @ weight_rV.astype(np.float64) + bias_V
        parts = [part for part in self.taxonomy.slices(category) if part.stop > part.start]
        heads_nV = np.empty(logits_nV.shape, np.float32)
        for part in parts:
            heads_nV[:, part] = softmax(logits_nV[:, part], axis=1)
        if self.votes is None:
            return heads_nV
        votes_nV = self.votes.vote(self.taxonomy, category, reduced_nr)
        blend_nV = np.empty_like(heads_nV)
        for part in parts:
            heads, votes = (
                np.log(np.maximum(p[:, part], 1e-12).astype(np.float64)) for p in (heads_nV, votes_nV)
            )
            blend_nV[:, part] = softmax((1 - VOTE) * heads + VOTE * votes, axis=1)
        return blend_nV, heads_nV, votes_nV

    def save(self, directory: Path) -> None:
        """Write all arrays."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "centre": self.space.centre,
            "scale": self.space.scale,
            "axes": self.space.axes,
            "category.weight": self.guess[0],
            "category.bias": self.guess[1],
        }
        for name, (weight_rV, bias_V) in self.heads.items():
            code = self.taxonomy.category_codes[name]
            arrays[f"weight.{code}"], arrays[f"bias.{code}"] = weight_rV, bias_V
        arrays |= self.votes.arrays(self.taxonomy) if self.votes is not None else {}
        write_arrays(directory, arrays, self.learnt_on)
