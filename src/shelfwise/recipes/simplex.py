"""Simplex: weights of several members per attribute, and the search for the best ones.

It knows probabilities and labels, neither predictions nor catalogues.
Legend: m labelled rows of a pair, J members, v values of one attribute.

The weights of a (category, attribute) are a point of the simplex, found on rows predicted out of fold and drawn to
equal weights the more, the fewer near-duplicate groups state the attribute:

- for ``log_loss``: the likelihood of the mixture with a Dirichlet prior, by expectation-maximisation (Dempster, Laird
  and Rubin 1977); the problem is convex, so this is its optimum;
- for a metric of counts: the simplex searched coarse to fine for the metric less a quadratic penalty on the distance
  to equal weights. Nothing is drawn at random.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.errors import BundleError, UsageError
from shelfwise.files import write_text
from shelfwise.simplex_search import best_on_simplex
from shelfwise.taxonomy import Taxonomy

Float = npt.NDArray[np.float64]
FORMAT = 1
#: Labels that the prior towards equal weights is worth.
PRIOR_LABELS = 30.0
#: What a metric has to gain, times the root of the number of groups, for a squared distance of 1 from equal weights.
PENALTY = 1.0
ROUNDS, CLOSE = 300, 1e-7


@dataclass(frozen=True, eq=False)
class Weights:
    """How far each member is trusted, by (category, attribute).

    Attributes:
        members: how many.
        taxonomy: hash of the taxonomy that the names are of.
        pairs: weights that sum to 1; equal ones for attributes that are not named.
        numbers: the same by Number.
    """

    members: int
    taxonomy: str
    pairs: Mapping[tuple[str, str], tuple[float, ...]]
    numbers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def of(self, category: str, attribute: str) -> tuple[float, ...]:
        """Return the weights of one attribute."""
        return self.pairs.get((category, attribute), (1 / self.members,) * self.members)

    @classmethod
    def fixed(cls, taxonomy: Taxonomy, weights: Sequence[float]) -> "Weights":
        """Return the same weights for every attribute, scaled to a sum of 1.

        Raises:
            UsageError: a negative one, or nothing but zeros.
        """
        total = float(sum(weights))
        if not weights or min(weights) < 0 or not total > 0:
            raise UsageError(f"weights are 0 or more with a positive sum, not {list(weights)}")
        shares = tuple(float(w) / total for w in weights)
        pairs = {(category, choice.name): shares for category, choice in taxonomy.pairs()}
        return cls(len(shares), taxonomy.hash, pairs, dict.fromkeys(taxonomy.number_names, shares))

    def table(self) -> dict[str, Any]:
        """Return the weights as plain data, for JSON."""
        pairs = [
            {"category": name[0], "attribute": name[1], "weights": list(self.pairs[name])}
            for name in sorted(self.pairs)
        ]
        numbers = {name: list(weights) for name, weights in sorted(self.numbers.items())}
        return {
            "format": FORMAT,
            "members": self.members,
            "taxonomy": self.taxonomy,
            "pairs": pairs,
            "numbers": numbers,
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str) -> "Weights":
        """Read what ``table`` returned.

        Raises:
            BundleError: something else.
        """
        try:
            if table["format"] != FORMAT:
                raise BundleError(f"{source}: format {table['format']!r} is not known (this reads {FORMAT})")
            pairs = {
                (str(p["category"]), str(p["attribute"])): tuple(map(float, p["weights"]))
                for p in table["pairs"]
            }
            numbers = {str(name): tuple(map(float, given)) for name, given in table["numbers"].items()}
            found = cls(int(table["members"]), str(table["taxonomy"]), pairs, numbers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(f"{source}: not weights that this version wrote: {error}") from error
        for name, given in (*pairs.items(), *numbers.items()):
            if len(given) != found.members:
                raise BundleError(f"{source}: {name} has {len(given)} weights, not {found.members}")
        return found

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        write_text(path, json.dumps(self.table(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Weights":
        """Read what ``save`` wrote.

        Raises:
            BundleError: not such a file.
        """
        try:
            table = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BundleError(f"{path}: cannot be read: {error}") from error
        return cls.from_table(table, str(path))


def best_weights(
    probs_Jmv: npt.NDArray[Any], labels_m: npt.NDArray[Any], groups: int, metric: str = "harmonic_f1"
) -> Float:
    """Return [J], the weights of one attribute that are best for a metric, drawn to equal ones.

    Args:
        probs_Jmv: the members' probabilities of labelled rows, out of fold.
        labels_m: stated codes.
        groups: how many pieces of evidence the rows are.
        metric: a registered metric.
    """
    if metric in metrics.LOWER_IS_BETTER:
        chance_Jm = probs_Jmv[:, np.arange(len(labels_m)), labels_m]
        return _most_likely(chance_Jm, PRIOR_LABELS * len(labels_m) / max(groups, 1))
    members, equal = len(probs_Jmv), 1 / len(probs_Jmv)
    penalty = PENALTY / np.sqrt(max(groups, 1))
    wide = probs_Jmv.astype(np.float64)

    def worth(weight_J: tuple[float, ...]) -> float:
        mixed_mv = np.tensordot(np.asarray(weight_J), wide, 1)
        found = float(metrics.apply(metric, _tally(mixed_mv, labels_m)))
        return found - float(penalty * sum((w - equal) ** 2 for w in weight_J))

    return best_on_simplex(members, worth)


def _tally(probs_mv: Float, labels_m: npt.NDArray[Any]) -> metrics.Tally:
    """Count the cells answered with the most probable value."""
    values, answer_m = probs_mv.shape[1], probs_mv.argmax(axis=1)
    chance_m = probs_mv[np.arange(len(labels_m)), labels_m]
    correct_v, answered_v, truth_v = (
        np.bincount(codes, minlength=values).astype(np.float64)
        for codes in (labels_m[answer_m == labels_m], answer_m, labels_m)
    )
    loss = -np.log(np.maximum(chance_m, metrics.SMALLEST_PROBABILITY)).sum()
    return metrics.Tally(correct_v, answered_v, truth_v, np.asarray(loss), np.asarray(float(len(labels_m))))


def _most_likely(chance_Jm: npt.NDArray[Any], prior: float) -> Float:
    """The weights of a mixture with most likelihood, ``prior`` labels being shared evenly by its members.

    Args:
        chance_Jm: the probability that each member gave to what was true.
        prior: how many labels that is.
    """
    members, count = chance_Jm.shape
    chance = np.maximum(chance_Jm.astype(np.float64), metrics.SMALLEST_PROBABILITY)
    weight_J = np.full(members, 1 / members)
    for _ in range(ROUNDS):
        joint_Jm = weight_J[:, None] * chance
        share_J = (joint_Jm / joint_Jm.sum(axis=0)).sum(axis=1)
        new_J = (share_J + prior / members) / (count + prior)
        done = float(np.abs(new_J - weight_J).max()) < CLOSE
        weight_J = new_J
        if done:
            break
    return weight_J
