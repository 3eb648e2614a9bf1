"""Losses: per-attribute losses and the Objective (masks, class weights, mixing, a teacher).

They do not know pictures or backbones. Legend: B products of a batch, n those of one category, A attributes, V their
values packed side by side, C the most values of any attribute, P (category, attribute) pairs, M cells.

A registered loss takes ``(logits_MC, target_M)`` and returns one loss per cell; values an attribute does not have
carry the logit ``-inf``. Masking is done here, once: a missing label adds nothing to the loss and nothing to what
the loss is divided by. (A registered loss is given every cell, with the target 0 where a label is missing, and what
it says of those is dropped: nothing then waits for a device to count labels.)
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from shelfwise.catalog import Catalog
from shelfwise.data.mixing import Mixed
from shelfwise.errors import UsageError
from shelfwise.models.distil import Teacher, distillation
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
def focal(
    logits_MC: torch.Tensor,
    target_M: torch.Tensor,
    *,
    gamma: float = 2.0,
    alpha: Mapping[str, Mapping[str, float]] | None = None,
) -> torch.Tensor:
    """Return [M], the focal loss of Lin et al. 2017: cross-entropy times ``(1 - p)^gamma``, p the target's probability.

    On the fashion catalogue (frozen features, grouped folds) gamma 2 scored 0.000 [-0.007, 0.007] against
    cross-entropy, and the recall of rare values fell by 0.018 [0.012, 0.025].

    Args:
        logits_MC: ``-inf`` at values the attribute does not have.
        target_M: codes.
        gamma: 0 is cross-entropy.
        alpha: weights of values, by ``attribute`` or ``category/attribute``, the more exact name before the other:
            ``{"colour": {"red": 2.0}}``. The Objective applies them as it does class weights, outside of the loss, so
            that p stays a probability; a cell by itself does not know its attribute.
    """
    if alpha is not None:
        raise UsageError("focal: alpha is by attribute; an Objective applies it, not the loss of a cell")
    loss_M = cross_entropy(logits_MC, target_M)
    return (-torch.expm1(-loss_M)).clamp(min=1e-12) ** gamma * loss_M


@register.loss("poly1")
def poly1(logits_MC: torch.Tensor, target_M: torch.Tensor, *, epsilon: float = 1.0) -> torch.Tensor:
    """Return [M], cross-entropy plus ``epsilon * (1 - p)``, p the target's probability (Leng et al. 2022)."""
    loss_M = cross_entropy(logits_MC, target_M)
    return loss_M - epsilon * torch.expm1(-loss_M)


@register.loss("generalized_cross_entropy")
def generalized_cross_entropy(
    logits_MC: torch.Tensor, target_M: torch.Tensor, *, q: float = 0.3
) -> torch.Tensor:
    """Return [M], ``(1 - p^q) / q``, p the target's probability (Zhang and Sabuncu 2018).

    Between cross-entropy (q near 0) and the mean absolute error (1): labels that the picture contradicts pull less.
    """
    return -torch.expm1(-q * cross_entropy(logits_MC, target_M)) / q


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
class Sums:
    """What a batch adds up to; batches and processes are added before anything is divided.

    Attributes:
        loss: the loss summed over labelled cells; has the gradient.
        labels: how many they are. A mixed picture's cell counts by the shares of its labelled sides, one that only a
            teacher speaks of by the teacher's weight: ``loss / labels`` is a weighted mean.
        pair_loss: [P], the same per (category, attribute) of ``Objective.pairs``, without gradient.
        pair_labels: [P].
    """

    loss: torch.Tensor
    labels: torch.Tensor
    pair_loss: torch.Tensor
    pair_labels: torch.Tensor

    def plus(self, penalty: torch.Tensor) -> "Sums":
        """Return the sums with a penalty on the batch, of the size of a mean loss, added to the mean loss."""
        return Sums(self.loss + penalty * self.labels, self.labels, self.pair_loss, self.pair_labels)

    def beside(self, other: "Sums") -> "Sums":
        """Return the sums with those of other cells, whose pairs come after these."""
        pairs = torch.cat([self.pair_loss, other.pair_loss]), torch.cat([self.pair_labels, other.pair_labels])
        return Sums(self.loss + other.loss, self.labels + other.labels, *pairs)


class CategoryObjective(nn.Module):
    """The objective of one category's packed logits.

    Args:
        loss: the loss per cell.
        slices: packed columns of each attribute.
        weight_V: float, the weight of each packed value.
        shift_V: float, added to the logits in training; ``None`` for nothing.
    """

    def __init__(
        self,
        loss: CellLoss,
        slices: Sequence[slice],
        weight_V: npt.NDArray[np.float64],
        shift_V: npt.NDArray[np.float64] | None,
    ) -> None:
        super().__init__()
        self.loss = loss
        gather_AC, real_AC = padded_columns(slices)
        self.register_buffer("gather_AC", torch.from_numpy(gather_AC), persistent=False)
        self.register_buffer("absent_AC", torch.from_numpy(~real_AC), persistent=False)
        weight_AC = torch.from_numpy(weight_V[gather_AC].astype(np.float32))
        # None where all are 1: the most frequent case costs nothing.
        self.register_buffer("weight_AC", weight_AC if (weight_V != 1).any() else None, persistent=False)
        shift_AC = None if shift_V is None else torch.from_numpy(shift_V[gather_AC].astype(np.float32))
        self.register_buffer("shift_AC", shift_AC, persistent=False)

    def spread(self, packed_nV: torch.Tensor, absent: float) -> torch.Tensor:
        """Return packed columns as float32 [n, A, C], with ``absent`` at values that an attribute does not have."""
        columns = packed_nV.float().index_select(1, self.gather_AC.flatten())
        return columns.view(len(packed_nV), *self.gather_AC.shape).masked_fill(self.absent_AC, absent)

    def labelled(
        self, logits_nAC: torch.Tensor, labels_nA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return [n, A], the weighted loss of every cell, 0 where its label is missing, and whether it has one."""
        known_nA, code_nA = labels_nA >= 0, labels_nA.clamp(min=0)
        if self.shift_AC is not None and self.training:
            logits_nAC = logits_nAC + self.shift_AC
        loss_nA = self.loss(logits_nAC.flatten(0, 1), code_nA.flatten()).view_as(labels_nA)
        if self.weight_AC is not None:
            loss_nA = loss_nA * self.weight_AC.expand_as(logits_nAC).gather(2, code_nA[..., None]).squeeze(2)
        return torch.where(known_nA, loss_nA, 0.0), known_nA

    def forward(
        self, logits_nV: torch.Tensor, sides: Sequence[tuple[torch.Tensor, torch.Tensor | None]]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the logits [n, A, C], the loss [n, A] and how much of a label each cell has.

        Args:
            logits_nV: packed.
            sides: labels [n, A] with their shares [n]; one side without shares where nothing is mixed.
        """
        logits_nAC = self.spread(logits_nV, float("-inf"))
        losses, counts = [], []
        for labels_nA, share_n in sides:
            loss_nA, known_nA = self.labelled(logits_nAC, labels_nA)
            losses.append(loss_nA if share_n is None else loss_nA * share_n[:, None])
            counts.append(known_nA.float() if share_n is None else known_nA * share_n[:, None])
        if len(sides) == 1:
            return logits_nAC, losses[0], counts[0]
        return logits_nAC, torch.stack(losses).sum(dim=0), torch.stack(counts).sum(dim=0)

    gather_AC: torch.Tensor
    absent_AC: torch.Tensor
    weight_AC: torch.Tensor | None
    shift_AC: torch.Tensor | None


class Objective(nn.Module):
    """Weighted loss over the labelled cells of a batch; float32 whatever the network computes in.

    Args:
        taxonomy: attributes and values.
        loss: a registered loss; its option ``alpha``, where it has one, is applied here.
        counts: per category, the labels of each packed value (``value_counts``); ``None`` for no weights.
        power: of the class weights, see ``class_weights``.
        logit_adjustment: tau; the loss sees ``logits + tau * log prior``, so that what is learnt suits all values
            alike (Menon et al. 2021). In training only: where ``self.training`` is false nothing is added. With
            cross-entropy, 1 is the balanced softmax of Ren et al. 2020.
    """

    def __init__(
        self,
        taxonomy: Taxonomy,
        loss: Spec,
        *,
        counts: Mapping[str, npt.NDArray[np.int64]] | None = None,
        power: float = 0.5,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        if logit_adjustment and counts is None:
            raise UsageError("logit_adjustment needs the labels of each value: give counts")
        options = {key: value for key, value in loss.table().items() if key != "name"}
        weights = explicit_weights(taxonomy, options.pop("alpha", None) or {})
        cell = functools.partial(REGISTRIES["loss"].get(loss.name), **options)
        self.categories = taxonomy.categories
        self.of = nn.ModuleDict()
        self.spans: dict[str, tuple[str, slice]] = {}
        pairs: list[tuple[str, str]] = []
        for code, category in enumerate(taxonomy.categories):
            slices = taxonomy.slices(category)
            if not slices:
                continue
            weight_V, shift_V = weights[category], None
            if counts is not None:
                for part in slices:
                    weight_V[part] *= class_weights(counts[category][part], power)
                if logit_adjustment:
                    shift_V = logit_adjustment * log_prior(counts[category], slices)
            self.of[str(code)] = CategoryObjective(cell, slices, weight_V, shift_V)
            self.spans[category] = str(code), slice(len(pairs), len(pairs) + len(slices))
            pairs += [(category, choice.name) for choice in taxonomy.choices(category)]
        self.pairs: tuple[tuple[str, str], ...] = tuple(pairs)

    def sums(
        self,
        outputs: Sequence[tuple[str, torch.Tensor, torch.Tensor]],
        labels_BA: torch.Tensor,
        *,
        mixed: Mixed | None = None,
        teacher: Teacher | None = None,
    ) -> Sums:
        """Return what a batch adds up to.

        Args:
            outputs: as ``Heads`` gives them: per category its name, its rows [n] and their logits [n, V].
            labels_BA: long, of each product's category, -1 where missing and beyond its attributes.
            mixed: which pictures were mixed; each side's missing labels are masked by themselves.
            teacher: whose probabilities are learnt from as well, also where no label is.
        """
        own = None if mixed is None else mixed.share_B.float()
        found = []
        for category, rows_n, logits_nV in outputs:
            code, span = self.spans[category]
            width = span.stop - span.start
            with torch.autocast(logits_nV.device.type, enabled=False):
                sides = [(labels_BA[rows_n, :width], None if own is None else own[rows_n])]
                if mixed is not None and own is not None:
                    sides.append((labels_BA[mixed.partner_B[rows_n], :width], 1 - own[rows_n]))
                logits_nAC, loss_nA, count_nA = self.of[code](logits_nV, sides)
                if teacher is not None:
                    probs_nAC = self._taught(category, rows_n, mixed, teacher)
                    soft_nA, taught_nA = distillation(logits_nAC, probs_nAC, teacher.temperature)
                    share_nA = teacher.weight * taught_nA
                    loss_nA = torch.lerp(loss_nA, soft_nA, share_nA)
                    count_nA = torch.lerp(count_nA, torch.ones_like(count_nA), share_nA)
                found.append((span, loss_nA.sum(dim=0), count_nA.sum(dim=0)))
        pair_loss = torch.zeros(len(self.pairs), device=labels_BA.device)
        pair_labels = torch.zeros_like(pair_loss)
        if not found:
            return Sums(pair_loss.sum().requires_grad_(), pair_labels.sum(), pair_loss, pair_labels)
        for span, loss_A, count_A in found:
            pair_loss[span] += loss_A.detach()
            pair_labels[span] += count_A
        loss = torch.cat([loss_A for _, loss_A, _ in found]).sum()
        return Sums(loss, pair_labels.sum(), pair_loss, pair_labels)

    def _taught(
        self, category: str, rows_n: torch.Tensor, mixed: Mixed | None, teacher: Teacher
    ) -> torch.Tensor:
        """A teacher's probabilities of one category's rows as [n, A, C]; those of mixed pictures are mixed."""
        part = self.of[self.spans[category][0]]
        assert isinstance(part, CategoryObjective)
        width = int(part.gather_AC.max()) + 1
        own_nAC = part.spread(teacher.probs_BV[rows_n, :width], 0.0)
        if mixed is None:
            return own_nAC
        share_n = mixed.share_B[rows_n].float()
        other_nAC = part.spread(teacher.probs_BV[mixed.partner_B[rows_n], :width], 0.0)
        # Where one side has nothing to say, nothing is said of the mixture: NaN stays NaN, and 0 becomes it.
        said = (own_nAC.sum(dim=2, keepdim=True) > 0) & (other_nAC.sum(dim=2, keepdim=True) > 0)
        both_nAC = torch.lerp(other_nAC, own_nAC, share_n[:, None, None])
        alone_n11 = (share_n == 1)[:, None, None]
        return torch.where(alone_n11, own_nAC, torch.where(said, both_nAC, 0.0))

    def forward(self, outputs: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        """Return the mean loss over the labelled cells of (category, logits [n, V], labels [n, A]) parts."""
        sums, counts = [], []
        for category, logits_nV, labels_nA in outputs:
            with torch.autocast(logits_nV.device.type, enabled=False):
                _, loss_nA, count_nA = self.of[self.spans[category][0]](logits_nV, [(labels_nA, None)])
            sums.append(loss_nA.sum())
            counts.append(count_nA.sum())
        return torch.stack(sums).sum() / torch.stack(counts).sum().clamp(min=1)


def log_prior(counts_V: npt.ArrayLike, slices: Sequence[slice]) -> npt.NDArray[np.float64]:
    """Return the log share of each packed value among its attribute's labels.

    A value without labels counts as seen once, so that it is held back and not ruled out.
    """
    count_V = np.maximum(np.asarray(counts_V, dtype=np.float64), 1.0)
    result = np.zeros_like(count_V)
    for part in slices:
        result[part] = np.log(count_V[part] / count_V[part].sum())
    return result


def explicit_weights(
    taxonomy: Taxonomy, alpha: Mapping[str, Mapping[str, float]]
) -> dict[str, npt.NDArray[np.float64]]:
    """Return per category the weight of each packed value, 1 where nothing is said.

    Raises:
        UsageError: an attribute that no category has, a value that the attribute does not have, or a weight that is
            not above 0.
    """
    weights = {category: np.ones(taxonomy.width(category)) for category in taxonomy.categories}
    used: set[str] = set()
    for category in taxonomy.categories:
        for choice, part in zip(taxonomy.choices(category), taxonomy.slices(category), strict=True):
            for name in (choice.name, f"{category}/{choice.name}"):
                used |= {name} & alpha.keys()
                for value, weight in alpha.get(name, {}).items():
                    if value in choice.codes:
                        weights[category][part.start + choice.codes[value]] = weight
                        used.add(f"{name}={value}")
    for name, values in alpha.items():
        if name not in used:
            raise UsageError(f"alpha: no category has the attribute {name!r}")
        for value, weight in values.items():
            if f"{name}={value}" not in used:
                raise UsageError(f"alpha: {name!r} has no value {value!r}")
            if not weight > 0:
                raise UsageError(f"alpha: the weight of {name!r} = {value!r} is above 0, not {weight}")
    return weights


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
