"""Curves: how sure and how right, precision against coverage, and what is mistaken for what, from evidence.

It does not know how probabilities were made or where they are shown.
Legend: m labelled rows of one attribute of a category, v its values, K points of a curve.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.amounts import SMAPE, Aim
from shelfwise.answers import Answers
from shelfwise.catalog import Catalog
from shelfwise.predictions import Predictions
from shelfwise.trust.evidence import Evidence

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
#: Labelled rows from which the precision of the surest answers is drawn; fewer jump about.
FEWEST = 10
#: Points that a curve keeps.
POINTS = 60


@dataclass(frozen=True, eq=False)
class Measured:
    """What was measured out of fold, and what was decided on it.

    Attributes:
        after: the evidence as it is answered from: calibrated, where there is a calibration.
        before: the same evidence as the model gave it.
        thresholds: per (category, attribute) the probability from which it is answered; inf for never.
        precision: the precision that was promised.
        answers: per category the codes [n, A] that were decided for the block's rows, -1 for none; by default
            the most probable values.
        aim: what the answers of Numbers are best for, and the share that their ranges promise.
    """

    after: Evidence
    before: Evidence | None = None
    thresholds: Mapping[tuple[str, str], float] | None = None
    precision: float | None = None
    answers: Mapping[str, Codes] | None = None
    aim: Aim = SMAPE


def measured_on(
    predictions: Predictions | Answers, catalog: Catalog, group: npt.ArrayLike, aim: Aim = SMAPE
) -> Measured | None:
    """Put predictions beside the truth they were scored against.

    Args:
        predictions: of the catalogue's rows.
        catalog: with stated values.
        group: int [N], near-duplicate groups.
        aim: see ``Measured``.

    Returns:
        None for answers without probabilities, and where the catalogue is of another taxonomy.
    """
    if isinstance(predictions, Answers) or predictions.taxonomy.hash != catalog.taxonomy.hash:
        return None
    return Measured(Evidence.of(predictions, catalog, group), aim=aim)


@dataclass(frozen=True, eq=False)
class Sureness:
    """The labelled rows of one attribute: how sure the most probable value was, and whether it was right.

    Attributes:
        category: the category's name.
        attribute: the attribute's name.
        values: its values.
        sure: float64 [m], probability of the most probable value.
        right: bool [m], whether it was the stated one.
        truth: int32 [m], stated codes.
        answer: int32 [m], answered codes, -1 for none.
    """

    category: str
    attribute: str
    values: tuple[str, ...]
    sure: Floats
    right: npt.NDArray[np.bool_]
    truth: Codes
    answer: Codes

    @property
    def labels(self) -> int:
        """How many labelled rows there are."""
        return len(self.truth)


@dataclass(frozen=True)
class Coverage:
    """Precision against coverage: the surest answers first.

    Attributes:
        coverage: share of the labelled rows that is answered. [K]
        precision: share of the answers that is right. [K]
        threshold: the chosen one; NaN where none was chosen, inf where it is never answered.
        covered: coverage at the threshold; NaN where none was chosen.
        kept: precision there; NaN where nothing is answered.
    """

    coverage: Floats
    precision: Floats
    threshold: float
    covered: float
    kept: float


@dataclass(frozen=True)
class Confusion:
    """One value taken for another.

    Attributes:
        category, attribute, truth, answered: their names.
        count: labelled rows.
        share: of the rows with that truth.
        cost: what the mean accuracy over attributes loses to it.
    """

    category: str
    attribute: str
    truth: str
    answered: str
    count: int
    share: float
    cost: float


def sureness(evidence: Evidence, answers: Mapping[str, Codes] | None = None) -> list[Sureness]:
    """Return how sure and how right the evidence is, per attribute with a label; most labels first.

    Args:
        evidence: probabilities beside stated values.
        answers: see ``Measured``.
    """
    found = []
    for pair in evidence.pairs():
        if not len(pair.rows):
            continue
        best = pair.probs.argmax(axis=1).astype(np.int32)
        block = evidence.block(pair.category)
        given = (answers or {}).get(pair.category)
        answer = best
        if given is not None and block is not None:
            answer = given[np.searchsorted(block.rows, pair.rows), pair.attribute].astype(np.int32)
        sure = pair.probs.max(axis=1).astype(np.float64)
        found.append(
            Sureness(
                pair.category,
                pair.choice.name,
                pair.choice.values,
                sure,
                best == pair.labels,
                pair.labels,
                answer,
            )
        )
    return sorted(found, key=lambda each: -each.labels)


def reliability(parts: Sequence[Sureness], bins: int = 12) -> tuple[metrics.Reliability, float]:
    """Return the reliability diagram over all cells, and the calibration error."""
    sure = np.concatenate([part.sure for part in parts])
    right = np.concatenate([part.right for part in parts])
    error = metrics.expected_calibration_error(sure, right)
    return metrics.reliability(sure, right, bins=bins), error


def coverage(part: Sureness, threshold: float = float("nan")) -> Coverage:
    """Return precision against coverage of one attribute; rows of equal probability come together."""
    order = np.argsort(-part.sure, kind="stable")
    sure, right = part.sure[order], np.cumsum(part.right[order])
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))  # the last row of each probability
    last = last[last + 1 >= min(FEWEST, len(sure))]
    if len(last) > POINTS:
        last = last[np.unique(np.linspace(0, len(last) - 1, POINTS).round().astype(np.int64))]
    answered = int((sure >= threshold).sum())
    chosen = not np.isnan(threshold)
    return Coverage(
        (last + 1) / len(sure),
        right[last] / (last + 1),
        threshold,
        answered / len(sure) if chosen else float("nan"),
        float(right[answered - 1]) / answered if answered else float("nan"),
    )


def confusions(parts: Sequence[Sureness]) -> list[Confusion]:
    """Return which value was taken for which, the dearest first.

    The cost of a confusion is what it takes from the mean over categories of the mean over attributes of
    the share of cells that are right: a cell of an attribute with few labels costs more.
    """
    attributes: dict[str, int] = {}
    for part in parts:
        attributes[part.category] = attributes.get(part.category, 0) + 1
    found = []
    for part in parts:
        wrong = (part.answer >= 0) & (part.answer != part.truth)
        pairs, counts = np.unique(
            np.stack([part.truth[wrong], part.answer[wrong]], axis=1), axis=0, return_counts=True
        )
        held = np.bincount(part.truth, minlength=len(part.values))
        weight = 1 / (part.labels * attributes[part.category] * len(attributes))
        for (truth, answer), count in zip(pairs.tolist(), counts.tolist(), strict=True):
            found.append(
                Confusion(
                    part.category,
                    part.attribute,
                    part.values[truth],
                    part.values[answer],
                    count,
                    count / int(held[truth]),
                    count * weight,
                )
            )
    return sorted(
        found, key=lambda each: (-each.cost, each.category, each.attribute, each.truth, each.answered)
    )
