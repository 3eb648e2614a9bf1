"""Stacking: what members say of a product as the features of a second model, learnt out of fold.

It does not know how the members were made, nor on which folds. Wolpert, "Stacked generalization", 1992.
Legend: n rows of one category, m labelled rows of a pair, J members, V values packed, v values of one attribute,
K parameters.

Both kinds start from the same logarithmic pool of the members, so that with few labels they stay close to it:

- ``Ridge``: a multinomial logistic regression on all members' log-probabilities of the attribute; a ridge penalty
  draws its weights to those of the pool;
- ``Trees``: gradient boosting (LightGBM) on the members' probabilities of every attribute of the category, with the
  pool's logits as the score that boosting starts from. An attribute of one category says something about another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, softmax

from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError
from shelfwise.predictions import Floats
from shelfwise.recipes.blend import labelled
from shelfwise.recipes.sides import Side, Sides
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.taxonomy import Taxonomy

Float = npt.NDArray[np.float64]
Name = tuple[str, str]
#: Strength of the ridge, on log-probabilities that are centred.
RIDGE = 30.0
#: Sum of the pool's exponents: members agree for the same reasons, so their logits are not simply added.
POOL = 1.0
#: Attributes with fewer labelled rows stay with the pool.
FEW = 50
SMALLEST = 1e-6
#: Steps of the optimiser; the penalty keeps the problem well behaved.
STEPS = 60
#: Boosting: few shallow trees on top of the pool.
ROUNDS = 40
TREES: Mapping[str, Any] = {
    "objective": "multiclass",
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "lambda_l2": 10.0,
    "feature_fraction": 0.5,
    "seed": 0,
    "num_threads": 1,
    "deterministic": True,
    "force_col_wise": True,
    "verbose": -1,
}


def log_features(probs_Jnv: Sequence[npt.NDArray[Any]]) -> Float:
    """Return [J, n, v], the members' log-probabilities, centred over the values."""
    logs_Jnv = np.log(np.maximum(np.stack([p.astype(np.float64) for p in probs_Jnv]), SMALLEST))
    centred: Float = logs_Jnv - logs_Jnv.mean(axis=2, keepdims=True)
    return centred


def pooled(logs_Jnv: Float) -> Float:
    """Return the pool's logits [n, v]."""
    found: Float = POOL * logs_Jnv.mean(axis=0)
    return found


@dataclass(frozen=True, eq=False)
class Ridge:
    """Multinomial logistic regressions on log-probabilities.

    Attributes:
        taxonomy: of the members.
        parts: by (category, attribute): weights float32 [J v, v] added to those of the pool, and biases [v].
    """

    taxonomy: Taxonomy
    parts: Mapping[Name, tuple[Floats, Floats]]

    @classmethod
    def learn(cls, sides: Sides, catalog: Catalog) -> "Ridge":
        """Learn from members' predictions out of fold, beside what a catalogue of the same rows states."""
        parts = {}
        for name, probs_Jmv, labels_m, _ in labelled(sides, catalog):
            if len(labels_m) >= FEW and probs_Jmv.shape[2] > 1:
                parts[name] = fit_ridge(log_features(list(probs_Jmv)), labels_m)
        return cls(catalog.taxonomy, parts)

    def combine(self, side: Side, near_n: Floats | None = None) -> Floats:
        """Return float32 [n, V]."""
        members = side.filled(self.taxonomy)
        out_nV = np.zeros_like(members[0])
        slices = self.taxonomy.slices(side.category)
        for choice, part in zip(self.taxonomy.choices(side.category), slices, strict=True):
            if part.stop > part.start:
                logs_Jnv = log_features([p[:, part] for p in members])
                logits_nv = pooled(logs_Jnv)
                found = self.parts.get((side.category, choice.name))
                if found is not None:
                    for weight_vv, logs_nv in zip(
                        found[0].astype(np.float64).reshape(*logs_Jnv.shape[::2], -1), logs_Jnv, strict=True
                    ):
                        # Row by row the same sums, whatever rows stand beside.
                        logits_nv = logits_nv + np.einsum("nu,uv->nv", logs_nv, weight_vv)
                    logits_nv = logits_nv + found[1].astype(np.float64)
                out_nV[:, part] = softmax(logits_nv, axis=1)
        return out_nV

    def save(self, directory: Path) -> None:
        """Write the arrays."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for at, (category, choice) in enumerate(self.taxonomy.pairs()):
            if (category, choice.name) in self.parts:
                arrays[f"weight.{at}"], arrays[f"bias.{at}"] = self.parts[category, choice.name]
        write_arrays(directory, arrays, {})

    @classmethod
    def load(cls, directory: Path, taxonomy: Taxonomy) -> "Ridge":
        """Read what ``save`` wrote."""
        arrays, _ = read_arrays(directory)
        parts = {
            (category, choice.name): (arrays[f"weight.{at}"], arrays[f"bias.{at}"])
            for at, (category, choice) in enumerate(taxonomy.pairs())
            if f"weight.{at}" in arrays
        }
        return cls(taxonomy, parts)


def fit_ridge(logs_Jmv: Float, labels_m: npt.NDArray[Any], strength: float = RIDGE) -> tuple[Floats, Floats]:
    """Return weights [J v, v] added to the pool's, and biases [v], at the optimum of a convex likelihood."""
    from scipy.optimize import minimize

    members, count, values = logs_Jmv.shape
    features_mF = np.moveaxis(logs_Jmv, 0, 1).reshape(count, members * values)
    start_mv, truth_mv = pooled(logs_Jmv), np.eye(values)[labels_m]

    def loss(flat_K: Float) -> tuple[float, Float]:
        weight_Fv, bias_v = flat_K[:-values].reshape(-1, values), flat_K[-values:]
        logs_mv = log_softmax(start_mv + features_mF @ weight_Fv + bias_v, axis=1)
        value = -float((truth_mv * logs_mv).sum()) + 0.5 * strength * float((weight_Fv**2).sum())
        value += 0.5 * float((bias_v**2).sum())
        off_mv = np.exp(logs_mv) - truth_mv
        gradient = features_mF.T @ off_mv + strength * weight_Fv
        return value, np.concatenate([gradient.reshape(-1), off_mv.sum(axis=0) + bias_v])

    zero_K = np.zeros(members * values * values + values)
    best_K = minimize(loss, zero_K, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": 1e-7}).x
    return (
        best_K[:-values].reshape(-1, values).astype(np.float32),
        best_K[-values:].astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Trees:
    """Gradient boosting on what the members say of every attribute.

    Attributes:
        taxonomy: of the members.
        parts: by (category, attribute): the trees as LightGBM's own text.
    """

    taxonomy: Taxonomy
    parts: Mapping[Name, str]

    @classmethod
    def learn(cls, sides: Sides, catalog: Catalog) -> "Trees":
        """Learn from members' predictions out of fold, beside what a catalogue of the same rows states."""
        import lightgbm

        parts, by_category = {}, {side.category: side for side in sides.blocks}
        features = {name: _columns(side, catalog.taxonomy) for name, side in by_category.items()}
        for name, probs_Jmv, labels_m, rows_m in labelled(sides, catalog):
            values = probs_Jmv.shape[2]
            if len(labels_m) < FEW or values < 2:
                continue
            at_m = np.searchsorted(by_category[name[0]].rows, rows_m)
            start_mv = pooled(log_features(list(probs_Jmv)))
            data = lightgbm.Dataset(
                features[name[0]][at_m],
                labels_m,
                init_score=start_mv,
                params={"verbose": -1},
                free_raw_data=False,
            )
            booster = lightgbm.train({**TREES, "num_class": values}, data, ROUNDS)
            parts[name] = booster.model_to_string()
        return cls(catalog.taxonomy, parts)

    def combine(self, side: Side, near_n: Floats | None = None) -> Floats:
        """Return float32 [n, V]."""
        import lightgbm

        members = side.filled(self.taxonomy)
        out_nV, columns = np.zeros_like(members[0]), _columns(side, self.taxonomy)
        slices = self.taxonomy.slices(side.category)
        for choice, part in zip(self.taxonomy.choices(side.category), slices, strict=True):
            if part.stop > part.start:
                logits_nv = pooled(log_features([p[:, part] for p in members]))
                text = self.parts.get((side.category, choice.name))
                if text is not None:
                    booster = lightgbm.Booster(model_str=text)
                    logits_nv = logits_nv + booster.predict(columns, raw_score=True, num_threads=1)
                out_nV[:, part] = softmax(logits_nv, axis=1)
        return out_nV

    def save(self, directory: Path) -> None:
        """Write one text file per attribute."""
        for at, (category, choice) in enumerate(self.taxonomy.pairs()):
            if (category, choice.name) in self.parts:
                text = self.parts[category, choice.name]
                (directory / f"trees.{at}.txt").write_text(text, encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, directory: Path, taxonomy: Taxonomy) -> "Trees":
        """Read what ``save`` wrote.

        Raises:
            BundleError: a file that cannot be read.
        """
        parts = {}
        for at, (category, choice) in enumerate(taxonomy.pairs()):
            path = directory / f"trees.{at}.txt"
            if path.is_file():
                try:
                    parts[category, choice.name] = path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError) as error:
                    raise BundleError(f"{path}: cannot be read: {error}") from error
        return cls(taxonomy, parts)


def _columns(side: Side, taxonomy: Taxonomy) -> Floats:
    """Return [n, J V], what every member says of every attribute."""
    return np.concatenate(side.filled(taxonomy), axis=1)
