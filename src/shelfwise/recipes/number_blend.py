"""Number blend: several members' distributions of Numbers into one, level by level.

It does not know how the members were made. Quantiles of one level are averaged (Vincent 1912; Ratcliff 1979), by the
mean that is asked for; weights and stacking are learnt on predictions out of fold, of rows that all members answer.
Legend: N rows of the table, n rows of one Number, m of them stated, J members, Q quantile levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shelfwise import metrics
from shelfwise.amounts import MEDIAN, Amounts, ascending
from shelfwise.catalog import Catalog
from shelfwise.predictions import Predictions
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.simplex_search import best_on_simplex
from shelfwise.taxonomy import Number, Taxonomy

Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mean = Literal["arithmetic", "geometric", "harmonic", "median"]
#: The smallest number that a geometric or harmonic mean is taken of.
SMALLEST = 1e-12
#: Groups of products that state a Number, below which its members keep equal weights.
FEW = 20
#: What SMAPE (0 to 200) has to gain, times the root of the number of groups, for a squared distance of 1 from equal
#: weights.
PENALTY = 10.0
#: Rows that the ridge's pull towards equal weights is worth.
PRIOR_ROWS = 50.0


@dataclass(frozen=True, eq=False)
class NumberSide:
    """Several members' distributions of one Number, of the rows that any of them answers.

    Attributes:
        name: of the Number.
        rows: int64 [n], ascending.
        says: bool [J, n], whether a member answers a row.
        quantiles: float64 [J, n, Q]; 1 where it does not.
        opinions: per member its own opinions, float32 [n, Q] each; itself where it has none.
    """

    name: str
    rows: Ints
    says: npt.NDArray[np.bool_]
    quantiles: Float
    opinions: tuple[tuple[npt.NDArray[np.float32], ...], ...]


def number_sides(predictions: Sequence[Predictions]) -> list[NumberSide]:
    """Put members' Numbers side by side; a Number that no member answers is left out."""
    names = dict.fromkeys(item.name for each in predictions for item in each.amounts)
    sides = []
    for name in names:
        items = [each.amount(name) for each in predictions]
        rows = np.unique(np.concatenate([item.rows for item in items if item is not None]))
        says = np.zeros((len(items), len(rows)), bool)
        first = next(item for item in items if item is not None)
        quantiles = np.ones((len(items), len(rows), first.quantiles.shape[1]))
        opinions: list[tuple[npt.NDArray[np.float32], ...]] = []
        for j, item in enumerate(items):
            if item is None:
                opinions.append(())
                continue
            at = np.searchsorted(rows, item.rows)
            says[j, at] = True
            quantiles[j, at] = item.quantiles
            opinions.append(
                tuple(_spread(opinion, at, len(rows)) for opinion in item.opinions or (item.quantiles,))
            )
        sides.append(NumberSide(name, rows, says, quantiles, tuple(opinions)))
    return sides


def blend_numbers(
    predictions: Sequence[Predictions],
    taxonomy: Taxonomy,
    weights: Mapping[str, Sequence[float]] | None = None,
    *,
    mean: Mean = "geometric",
    opinions: bool = True,
) -> tuple[Amounts, ...]:
    """Blend members' distributions of every Number that one of them answers.

    Args:
        predictions: one a member, of the same products.
        taxonomy: of the Numbers; those that may be zero or below have no geometric or harmonic mean, and get the
            arithmetic one.
        weights: by Number, one a member; equal ones where left out. They do not matter to the median of two members.
        mean: of quantiles of one level.
        opinions: keep what the members say, so that a calibration can weigh them anew.
    """
    found = []
    for side in number_sides(predictions):
        share_J = np.asarray(
            (weights or {}).get(side.name, (1 / len(side.says),) * len(side.says)), np.float64
        )
        of = _mean_of(taxonomy.number(side.name), mean)
        quantiles_nQ = ascending(mixed(side.quantiles, side.says, share_J, of))
        each: list[npt.NDArray[np.float32]] = []
        for j, said in enumerate(side.opinions if opinions else ()):
            each += [np.where(side.says[j][:, None], opinion, quantiles_nQ) for opinion in said]
        found.append(Amounts(side.name, side.rows, quantiles_nQ, tuple(each) if len(each) > 1 else ()))
    return tuple(found)


def _mean_of(number: Number, mean: Mean) -> Mean:
    """The mean that a Number has: numbers that may be zero or below have no geometric or harmonic one."""
    return mean if number.transform == "log" or mean == "median" else "arithmetic"


def mixed(quantiles_JnQ: Float, says_Jn: npt.NDArray[np.bool_], share_J: Float, mean: Mean) -> Float:
    """Return float64 [n, Q], the weighted mean over the members that answer a row."""
    weight_Jn = says_Jn * share_J[:, None]
    # Where only members of weight zero answer, they count alike.
    weight_Jn = np.where(weight_Jn.sum(axis=0) > 0, weight_Jn, says_Jn)
    weight_Jn1 = (weight_Jn / weight_Jn.sum(axis=0))[:, :, None]
    if mean == "median":
        return _weighted_median(quantiles_JnQ, weight_Jn1)
    if mean == "arithmetic":
        return np.asarray((weight_Jn1 * quantiles_JnQ).sum(axis=0))
    positive = np.maximum(quantiles_JnQ, SMALLEST)
    if mean == "geometric":
        return np.asarray(np.exp((weight_Jn1 * np.log(positive)).sum(axis=0)))
    return np.asarray(1 / (weight_Jn1 / positive).sum(axis=0))


def number_weights(
    predictions: Sequence[Predictions],
    catalog: Catalog,
    *,
    groups: npt.ArrayLike | None = None,
    mean: Mean = "geometric",
) -> dict[str, tuple[float, ...]]:
    """Find each member's weight for every Number: the least SMAPE of the blended median, drawn to equal weights.

    Args:
        predictions: one a member, each row's by a model that has not seen its near-duplicate group.
        catalog: the same products with their stated numbers.
        groups: int [N], near-duplicate groups.
        mean: as in ``blend_numbers``.
    """
    group_N = np.arange(len(catalog)) if groups is None else np.asarray(groups)
    found = {}
    for side, truth_m, use_n in _stated(predictions, catalog):
        count = len(np.unique(group_N[side.rows[use_n]]))
        if count < FEW:
            continue
        median_Jm1 = side.quantiles[:, use_n, MEDIAN : MEDIAN + 1]
        all_Jm = np.ones(median_Jm1.shape[:2], bool)
        members, penalty = len(median_Jm1), PENALTY / np.sqrt(count)
        of = _mean_of(catalog.taxonomy.number(side.name), mean)

        def worth(
            weight_J: tuple[float, ...],
            median_Jm1: Float = median_Jm1,
            truth_m: Float = truth_m,
            all_Jm: npt.NDArray[np.bool_] = all_Jm,
            penalty: float = penalty,
            of: Mean = of,
        ) -> float:
            point_m = mixed(median_Jm1, all_Jm, np.asarray(weight_J), of)[:, 0]
            away = sum((w - 1 / len(weight_J)) ** 2 for w in weight_J)
            return -metrics.smape(truth_m, point_m) - penalty * away

        found[side.name] = tuple(best_on_simplex(members, worth).tolist())
    return found


@dataclass(frozen=True, eq=False)
class NumberStack:
    """Ridge regression of the truth on members' medians, on the Number's standardised scale.

    Attributes:
        slopes: by Number, float64 [J].
        offsets: by Number.
    """

    slopes: Mapping[str, Float]
    offsets: Mapping[str, float]

    @classmethod
    def learn(cls, predictions: Sequence[Predictions], catalog: Catalog) -> "NumberStack":
        """Learn on members' predictions out of fold; slopes are drawn to equal ones with a sum of 1."""
        slopes, offsets = {}, {}
        for side, truth_m, use_n in _stated(predictions, catalog):
            number = catalog.taxonomy.number(side.name)
            said_mJ = number.forward(side.quantiles[:, use_n, MEDIAN]).T
            target_m, members = number.forward(truth_m), said_mJ.shape[1]
            ok_m = np.isfinite(said_mJ).all(axis=1) & np.isfinite(target_m)
            said_mJ, target_m = said_mJ[ok_m], target_m[ok_m]
            if not len(target_m):
                continue
            centre_J, level = said_mJ.mean(axis=0), float(target_m.mean())
            moved_mJ = said_mJ - centre_J
            rest_m = target_m - level - moved_mJ.mean(axis=1)
            gram = moved_mJ.T @ moved_mJ + PRIOR_ROWS * np.eye(members) * max(float(moved_mJ.var()), SMALLEST)
            slope_J = 1 / members + np.linalg.solve(gram, moved_mJ.T @ rest_m)
            slopes[side.name], offsets[side.name] = slope_J, level - float(centre_J @ slope_J)
        return cls(slopes, offsets)

    def apply(
        self, predictions: Sequence[Predictions], blended: Sequence[Amounts], taxonomy: Taxonomy
    ) -> tuple[Amounts, ...]:
        """Move blended distributions, as they are on the standardised scale, to the stacked medians.

        Rows that a member does not answer keep the blend.
        """
        moved = []
        for side, item in zip(number_sides(predictions), blended, strict=True):
            if side.name not in self.slopes:
                moved.append(item)
                continue
            number = taxonomy.number(side.name)
            standard_nQ = number.forward(item.quantiles)
            stacked_n = (
                self.offsets[side.name]
                + number.forward(side.quantiles[:, :, MEDIAN]).T @ self.slopes[side.name]
            )
            use_n = side.says.all(axis=0) & np.isfinite(stacked_n) & np.isfinite(standard_nQ).all(axis=1)
            shift_n = np.where(use_n, stacked_n - standard_nQ[:, MEDIAN], 0.0)
            quantiles_nQ = np.where(
                use_n[:, None], number.inverse(standard_nQ + shift_n[:, None]), item.quantiles
            )
            moved.append(Amounts(item.name, item.rows, ascending(quantiles_nQ)))
        return tuple(moved)

    def save(self, directory: Path) -> None:
        """Write the slopes as arrays; names and offsets as their metadata."""
        names = sorted(self.slopes)
        arrays: dict[str, npt.NDArray[Any]] = {
            f"slopes.{at}": self.slopes[name] for at, name in enumerate(names)
        }
        arrays["offsets"] = np.array([self.offsets[name] for name in names])
        write_arrays(directory, arrays, {f"name.{at}": name for at, name in enumerate(names)})

    @classmethod
    def load(cls, directory: Path) -> "NumberStack":
        """Read what ``save`` wrote."""
        arrays, metadata = read_arrays(directory)
        names = [metadata[f"name.{at}"] for at in range(len(arrays["offsets"]))]
        slopes = {name: arrays[f"slopes.{at}"] for at, name in enumerate(names)}
        return cls(slopes, {name: float(arrays["offsets"][at]) for at, name in enumerate(names)})


def _stated(
    predictions: Sequence[Predictions], catalog: Catalog
) -> "list[tuple[NumberSide, Float, npt.NDArray[np.bool_]]]":
    """Return every Number with its truth [m] and the rows [n] that state it and that all members answer."""
    found = []
    for side in number_sides(predictions):
        truth_n = catalog.numbers(side.name)[side.rows]
        use_n = np.isfinite(truth_n) & side.says.all(axis=0)
        if use_n.any():
            found.append((side, truth_n[use_n], use_n))
    return found


def _spread(opinion_kQ: npt.NDArray[np.float32], at: Ints, rows: int) -> npt.NDArray[np.float32]:
    out_nQ = np.ones((rows, opinion_kQ.shape[1]), np.float32)
    out_nQ[at] = opinion_kQ
    return out_nQ


def _weighted_median(quantiles_JnQ: Float, weight_Jn1: Float) -> Float:
    """The weighted median over members; the mean of the two in the middle where weights tie."""
    order = np.argsort(quantiles_JnQ, axis=0)
    value = np.take_along_axis(quantiles_JnQ, order, axis=0)
    held = np.take_along_axis(np.broadcast_to(weight_Jn1, quantiles_JnQ.shape), order, axis=0).cumsum(axis=0)
    low, high = (held < 0.5 - 1e-9).sum(axis=0), (held <= 0.5 + 1e-9).sum(axis=0)
    last = len(quantiles_JnQ) - 1
    pick = [np.take_along_axis(value, np.minimum(at, last)[None], axis=0)[0] for at in (low, high)]
    return np.asarray((pick[0] + pick[1]) / 2)
