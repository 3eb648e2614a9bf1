"""Losses: per-attribute losses and the Objective (masks, class weights).

They do not know pictures or backbones. Legend: n rows of one category, A attributes, V their values
packed side by side, C the most values of any attribute, M labelled cells.

A registered loss takes ``(logits_MC, target_M, weight_M)`` and returns one loss per cell; values an
attribute does not have carry the logit ``-inf``. Masking is done here, once: a missing label adds
nothing to the loss and nothing to what the loss is divided by.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shelfwise.catalog import Catalog
from shelfwise.registry import REGISTRIES, Spec, register
from shelfwise.taxonomy import Taxonomy

CellLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@register.loss("cross_entropy")
def cross_entropy(
    logits_MC: torch.Tensor, target_M: torch.Tensor, *, label_smoothing: float = 0.0
) -> torch.Tensor:
    """Return [M], the negative log probability of the target.

    Args:
        logits_MC: ``-inf`` at values the attribute does not have.
        target_M: codes.
        label_smoothing: the share of the target spread evenly over the attribute's values (Szegedy et al. 2016).
    """
    log_probs_MC = logits_MC.log_softmax(dim=1)
    loss_M = -log_probs_MC.gather(1, target_M[:, None]).squeeze(1)
    if label_smoothing == 0:
        return loss_M
    real_MC = logits_MC > float("-inf")
    even_M = -torch.where(real_MC, log_probs_MC, 0.0).sum(dim=1) / real_MC.sum(dim=1)
    return (1 - label_smoothing) * loss_M + label_smoothing * even_M


@register.loss("focal")
def focal(logits_MC: torch.Tensor, target_M: torch.Tensor, *, gamma: float = 2.0) -> torch.Tensor:
    """Return [M], the focal loss of Lin et al. 2017: cross-entropy times ``(1 - p)^gamma``, p the target's probability.

    Class weights multiply the result outside, so p stays a probability.
    """
    loss_M = cross_entropy(logits_MC, target_M)
    return (-torch.expm1(-loss_M)).clamp(min=1e-12) ** gamma * loss_M


def class_weights(counts: npt.ArrayLike, power: float) -> npt.NDArray[np.float64]:
    """Return the weight of each value, ``count ** -power`` scaled so that the mean over labels is 1.

    Args:
        counts: labels of each value; a value without labels gets weight 0.
        power: 0 for none, 0.5 for root-inverse, 1 for balanced.
    """
    count = np.asarray(counts, dtype=np.float64)
    weight = np.where(count > 0, np.maximum(count, 1.0) ** -power, 0.0)
    total = float((weight * count).sum())
    result: npt.NDArray[np.float64] = weight * (count.sum() / total) if total > 0 else weight
    return result


@dataclass(frozen=True, eq=False)
class CategoryObjective:
    """The objective of one category's packed logits.

    Attributes:
        loss: the loss per cell.
        gather_AC: long [A, C], the packed column of each attribute's values, 0 where it has none.
        real_AC: bool [A, C], where an attribute has a value.
        weight_AC: float [A, C], class weights.
    """

    loss: CellLoss
    gather_AC: torch.Tensor
    real_AC: torch.Tensor
    weight_AC: torch.Tensor

    def __call__(self, logits_nV: torch.Tensor, labels_nA: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed weighted loss over labelled cells, and how many there are."""
        logits_nAC = logits_nV[:, self.gather_AC].masked_fill(~self.real_AC, float("-inf"))
        labelled_nA = labels_nA >= 0
        attribute_M = labelled_nA.nonzero()[:, 1]
        target_M = labels_nA[labelled_nA]
        loss_M = self.loss(logits_nAC[labelled_nA], target_M) * self.weight_AC[attribute_M, target_M]
        return loss_M.sum(), labelled_nA.sum()


class Objective(nn.Module):
    """Mean weighted loss over the labelled cells of a batch.

    Args:
        taxonomy: attributes and values.
        loss: a registered loss.
        counts: per category, the labels of each packed value (``value_counts``); ``None`` for no weights.
        power: of the class weights, see ``class_weights``.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        loss: Spec,
        *,
        counts: Mapping[str, npt.NDArray[np.int64]] | None = None,
        power: float = 0.5,
    ) -> None:
        super().__init__()
        cell = REGISTRIES["loss"].get(loss.name)
        options = dict(loss.options)

        def with_options(logits_MC: torch.Tensor, target_M: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = cell(logits_MC, target_M, **options)
            return result

        self.parts: dict[str, CategoryObjective] = {}
        for category in taxonomy.categories:
            slices = taxonomy.slices(category)
            if not slices:
                continue
            gather_AC, real_AC = padded_columns(slices)
            weight_AC = np.ones(gather_AC.shape)
            if counts is not None:
                for attribute, part in enumerate(slices):
                    weight_AC[attribute, : part.stop - part.start] = class_weights(
                        counts[category][part], power
                    )
            self.parts[category] = CategoryObjective(
                with_options,
                torch.from_numpy(gather_AC),
                torch.from_numpy(real_AC),
                torch.from_numpy(weight_AC.astype(np.float32)),
            )

    def forward(self, outputs: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Return the scalar loss of (category, logits [n, V], labels [n, A]) parts."""
        sums, counts = zip(*(self.parts[c](logits, labels) for c, logits, labels in outputs), strict=True)
        return torch.stack(sums).sum() / torch.stack(counts).sum().clamp(min=1)


def padded_columns(slices: Sequence[slice]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return [A, C] packed columns of each attribute's values, and where there is one."""
    most = max(part.stop - part.start for part in slices)
    at_C = np.arange(most)
    sizes_A = np.array([part.stop - part.start for part in slices])
    starts_A = np.array([part.start for part in slices])
    real_AC = at_C[None, :] < sizes_A[:, None]
    return np.where(real_AC, starts_A[:, None] + at_C[None, :], 0), real_AC


def value_counts(catalog: Catalog, category: str) -> npt.NDArray[np.int64]:
    """Return int64 [V], how many products state each value of a category, packed."""
    taxonomy, labels_nA = catalog.taxonomy, catalog.labels(category)
    counts = np.zeros(taxonomy.width(category), dtype=np.int64)
    for attribute, part in enumerate(taxonomy.slices(category)):
        column = labels_nA[:, attribute]
        counts[part] = np.bincount(column[column >= 0], minlength=part.stop - part.start)
    return counts
