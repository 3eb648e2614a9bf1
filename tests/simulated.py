"""Simulated evidence: attributes whose true probabilities are known, and predictors that misstate them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.evidence import Evidence, EvidenceBlock

CATEGORY = "Things"


@dataclass(frozen=True)
class Told:
    """One attribute: what a predictor says [n, v] and the labels [n], -1 for missing."""

    probs: np.ndarray
    labels: np.ndarray
    opinions: tuple[np.ndarray, ...] = ()


def names(size: int) -> tuple[str, ...]:
    return tuple(f"v{k}" for k in range(size))


def truth(
    rng: np.random.Generator, n: int, prior: Sequence[float], sharpness: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities [n, v] of rows, and labels [n] drawn from them: a value shifts its own coordinate."""
    prior_v = np.asarray(prior, np.float64) / np.sum(prior)
    labels = rng.choice(len(prior_v), size=n, p=prior_v)
    seen = rng.normal(size=(n, len(prior_v)))
    seen[np.arange(n), labels] += sharpness
    return normal(np.log(prior_v) + sharpness * seen), labels


def normal(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def misstated(probs: np.ndarray, counts: np.ndarray, power: float, temperature: float) -> np.ndarray:
    """What class weights ``count ** -power`` and a temperature make of true probabilities."""
    return normal((np.log(np.maximum(probs, 1e-300)) - power * np.log(counts)) / temperature)


def evidence_of(
    attributes: Mapping[str, Told],
    *,
    group: np.ndarray | None = None,
    fold: np.ndarray | None = None,
    folds: int = 5,
    choices: Mapping[str, Choice] | None = None,
) -> Evidence:
    """Put attributes of one category side by side; groups are rows and folds take turns unless given."""
    n = len(next(iter(attributes.values())).labels)
    taxonomy = Taxonomy(
        {
            CATEGORY: tuple(
                (choices or {}).get(name, Choice(name, names(told.probs.shape[1])))
                for name, told in attributes.items()
            )
        }
    )
    told = list(attributes.values())
    most = max(len(one.opinions) for one in told)
    block = EvidenceBlock(
        CATEGORY,
        np.arange(n),
        np.hstack([one.probs for one in told]).astype(np.float32),
        np.stack([one.labels for one in told], axis=1).astype(np.int32),
        tuple(np.hstack([one.opinions[j] for one in told]).astype(np.float32) for j in range(most)),
    )
    group = np.arange(n) if group is None else group
    fold = group % folds if fold is None else fold
    return Evidence(taxonomy, tuple(f"p{row}" for row in range(n)), group, fold, (block,))


def probs_of(evidence: Evidence, attribute: int = 0, category: str = CATEGORY) -> np.ndarray:
    """An attribute's probabilities of all rows of the category, float64 [n, v]."""
    block = evidence.block(category)
    assert block is not None
    return block.probs[:, evidence.taxonomy.slices(category)[attribute]].astype(np.float64)
