"""Blend: predictions of several members into one, in probability space, with weights per attribute.

It does not know how the members were made. Logits of different members have different scales, so what is added up
are probabilities.
Legend: N rows, n rows of one category, m labelled rows of a pair, J members, A attributes, V values packed,
v values of one attribute.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shelfwise.answers import check_rows
from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError
from shelfwise.predictions import Block, Floats, Predictions, Rows
from shelfwise.recipes.number_blend import Mean, blend_numbers, number_weights
from shelfwise.recipes.sides import Side, Sides, check_taxonomies, mixture, side_by_side
from shelfwise.recipes.simplex import Weights, best_weights
from shelfwise.registry import REGISTRIES
from shelfwise.taxonomy import Taxonomy

#: Attributes that fewer groups of products state keep equal weights.
FEW = 20


def blend(
    predictions: Sequence[Predictions],
    weights: Weights | None = None,
    *,
    names: Sequence[str] = (),
    mean: Mean = "geometric",
) -> Predictions:
    """Blend members' predictions of the same products: a weighted mean of probabilities, and of Numbers' quantiles.

    The members' probabilities are kept as opinions (their own opinions where they have some), so that a
    calibration can weigh them anew, each attribute for itself.

    Args:
        predictions: one a member.
        weights: from ``blend_weights``; by default equal.
        names: what each is called in messages.
        mean: that is taken of Numbers' quantiles.

    Raises:
        PredictionError: other products, another taxonomy, or weights of other members.
    """
    sides = side_by_side(predictions, names)
    first = predictions[0]
    weights = weights or Weights(len(predictions), first.taxonomy.hash, {})
    if weights.members != len(predictions) or weights.taxonomy != first.taxonomy.hash:
        raise PredictionError(
            f"weights of {weights.members} members under the taxonomy {weights.taxonomy[:12]} do not fit "
            f"{len(predictions)} members under {first.taxonomy.hash[:12]}: find them anew with blend_weights"
        )
    most = [max((len(b.opinions) for b in p.blocks), default=0) for p in predictions]
    blocks = []
    for side in sides.blocks:
        probs_nV = mixture(side, first.taxonomy, weights)
        opinions = tuple(_opinions(side, first.taxonomy, probs_nV, most))
        blocks.append(Block(side.category, side.rows, probs_nV, opinions))
    amounts = blend_numbers(predictions, first.taxonomy, weights.numbers, mean=mean)
    return replace(assembled(predictions, sides, blocks), amounts=amounts)


def assembled(predictions: Sequence[Predictions], sides: Sides, blocks: Sequence[Block]) -> Predictions:
    """Put the blended blocks together; errors, predicted categories and notes are the members'."""
    notes = tuple(dict.fromkeys(note for p in predictions for note in p.notes))
    taxonomy, ids = predictions[0].taxonomy, predictions[0].ids
    return Predictions(taxonomy, ids, tuple(blocks), sides.errors, sides.guessed, notes, unsure=sides.unsure)


def _opinions(side: Side, taxonomy: Taxonomy, mixed_nV: Floats, most: Sequence[int]) -> Iterator[Floats]:
    """What each member says; the blend stands for a member that said nothing."""
    for j, (block, count) in enumerate(zip(side.blocks, most, strict=True)):
        # A member that knew nothing of a category has no opinions on it: its probabilities stand for each.
        for opinion in block.opinions or (block.probs,) * max(count, 1):
            yield side.spread(taxonomy, j, opinion, mixed_nV)


def blend_weights(
    predictions: Sequence[Predictions],
    catalog: Catalog,
    *,
    metric: str = "harmonic_f1",
    groups: npt.ArrayLike | None = None,
    names: Sequence[str] = (),
    mean: Mean = "geometric",
) -> Weights:
    """Find each member's weight for every (category, attribute) and Number, on predictions made out of fold.

    Args:
        predictions: one a member, each row's by a model that has not seen its near-duplicate group.
        catalog: the same products with their stated values.
        metric: what the weights of attributes are best for, a registered metric; those of Numbers for SMAPE.
        groups: int [N], near-duplicate groups: many photos of one product are one piece of evidence.
        names: what each member is called in messages.
        mean: that will be taken of Numbers' quantiles.

    Raises:
        PredictionError: other products, or another taxonomy.
        UsageError: an unknown metric, or groups of another length.
    """
    REGISTRIES["metric"].spec(metric)
    sides = side_by_side(predictions, names)
    check_rows(predictions[0].ids, catalog)
    check_taxonomies([predictions[0].taxonomy, catalog.taxonomy], ["the predictions", catalog.source])
    group_N = np.arange(len(catalog)) if groups is None else np.asarray(groups, np.int64)
    if group_N.shape != (len(catalog),):
        raise UsageError(f"{len(catalog)} products, but groups of shape {group_N.shape}")
    pairs = {}
    for name, probs_Jmv, labels_m, rows_m in labelled(sides, catalog):
        count = len(np.unique(group_N[rows_m]))
        if count >= FEW and probs_Jmv.shape[2] > 1:
            pairs[name] = tuple(best_weights(probs_Jmv, labels_m, count, metric).tolist())
    numbers = number_weights(predictions, catalog, groups=group_N, mean=mean)
    return Weights(len(predictions), catalog.taxonomy.hash, pairs, numbers)


def labelled(
    sides: Sides, catalog: Catalog
) -> Iterator[tuple[tuple[str, str], Floats, npt.NDArray[np.int32], Rows]]:
    """Yield every (category, attribute), the members' probabilities of its labelled rows [J, m, v], labels and rows.

    Rows of a predicted category state nothing, and those that a member said nothing of compare nothing.
    """
    for side in sides.blocks:
        stated = catalog.rows(side.category)
        known_n = np.isin(side.rows, stated)
        labels_nA = np.full((len(side.rows), side.says.shape[2]), -1, np.int32)
        labels_nA[known_n] = catalog.labels(side.category)[np.searchsorted(stated, side.rows[known_n])]
        parts = catalog.taxonomy.slices(side.category)
        for a, (choice, part) in enumerate(zip(catalog.taxonomy.choices(side.category), parts, strict=True)):
            use_n = (labels_nA[:, a] >= 0) & side.says[:, :, a].all(axis=0)
            probs_Jmv = np.stack([b.probs[use_n, part] for b in side.blocks])
            yield (side.category, choice.name), probs_Jmv, labels_nA[use_n, a], side.rows[use_n]
