"""Number model: estimates and boosted trees to a distribution of one number for every product.

It knows what is seen of products and what they state, not where either comes from.
Legend: N products, C copies, F features, E estimates, J members, Q quantile levels.

Trees see facts, vectors and cross-fitted estimates (stacking; Wolpert 1992). They are grown once for each fold and
averaged, so that every product learnt from also has a prediction without its own fold. On these the members' weights
are found, and a second forest learns how far off they are: the distribution is location + scale x quantiles
of the standardised residuals. Copies of products whose text, photo or category is taken away teach the trees what
missing ones mean.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import LEVELS
from shelfwise.data.text import Listing
from shelfwise.recipes.estimates import Estimates, Kind, learn_estimates
from shelfwise.recipes.siblings import Siblings, sibling_keys
from shelfwise.recipes.trees import Forest, Growth, Objective
from shelfwise.recipes.views import FACTS, TREE_PHOTOS, Seen
from shelfwise.simplex_search import best_on_simplex

Floats = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
#: Products that state the number, below which its distribution among them is all that is learnt.
FEW = 20
#: Shares of products whose copy lacks the text, the photo, both, the category, and all three.
LACKING = {"text": 0.12, "photo": 0.12, "both": 0.05, "category": 0.05, "all": 0.05}
#: Estimates that the trees are blended with.
MEMBERS = ("ridge on text", "ridge on both", "nearest 10 by both", "nearest 10 by text")
#: Loss of accuracy, as a share, that a squared distance of 1 from equal weights has to be worth.
PENALTY = 0.02
#: The scale's trees: small, as residuals are noisy.
SCALE: dict[str, Any] = {
    "rounds": 100,
    "learning_rate": 0.05,
    "leaves": 7,
    "depth": 0,
    "min_rows": 20,
    "columns": 0.5,
}
#: Residuals smaller than this share of the typical one count as that, in the logarithm.
LEAST = 0.05


@dataclass(frozen=True)
class Learning:
    """How a number is learnt.

    Attributes:
        growth: of the trees.
        objectives: forests of the location, one for each.
        estimates: kinds of estimates that the trees see.
        blend: blend the trees with estimates.
        siblings: learn what products of one name share.
        copies: teach what missing texts, photos and categories mean.
    """

    growth: Growth
    objectives: tuple[Objective, ...]
    estimates: tuple[Kind, ...]
    blend: bool
    siblings: bool
    copies: bool


@dataclass(frozen=True, eq=False)
class NumberModel:
    """What was learnt of one number, all in its standardised transform.

    Attributes:
        estimates: of the number.
        forests: of the location, in the order of the objectives; empty where too few products state the number.
        scale: forest of the logarithm of the absolute residual.
        weights: member to its weight: names of estimates, and of objectives.
        shape: float64 [Q], quantiles of the standardised residuals; without forests, of the number.
        bounds: of locations, and of the logarithm of scales: float64 [4].
        siblings: what products of one name share.
    """

    estimates: Estimates
    forests: Mapping[str, Forest]
    scale: Forest | None
    weights: Mapping[str, float]
    shape: Float
    bounds: Float
    siblings: Siblings

    def quantiles(self, seen: Seen) -> Float:
        """Return float64 [N, Q], standardised."""
        if self.scale is None:
            return np.tile(self.shape, (len(seen), 1))
        said_NE = self.estimates.predict(seen)
        trees_NJ = _members(self.forests, features_of(seen, said_NE))
        location_N, spread_N = self._location(said_NE, trees_NJ)
        scale_N = _exp_clipped(
            self.scale.predict(_scale_features(seen, said_NE, location_N, spread_N)), self.bounds
        )
        location_N, scale_N = self.siblings.follow(sibling_keys(seen), location_N, scale_N)
        return location_N[:, None] + scale_N[:, None] * self.shape

    def _location(self, said_NE: Float, trees_NJ: Float) -> tuple[Float, Float]:
        names = [column.name for column in self.estimates.columns]
        return blended(self.weights, names, said_NE, trees_NJ, self.bounds)


def features_of(seen: Seen, said_NE: Float) -> Floats:
    """Return float32 [N, F], what trees see; NaN where something is missing."""
    category_N = np.where(seen.category >= 0, seen.category, np.nan)
    parts = [seen.vectors, seen.photos[:, :TREE_PHOTOS], seen.facts, category_N[:, None], said_NE]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _scale_features(seen: Seen, said_NE: Float, location_N: Float, spread_N: Float) -> Floats:
    category_N = np.where(seen.category >= 0, seen.category, np.nan)
    parts = [seen.facts, category_N[:, None], said_NE, location_N[:, None], spread_N[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _members(forests: Mapping[str, Forest], features_NF: Floats) -> Float:
    return np.stack([forest.predict(features_NF) for forest in forests.values()], axis=1)


def _exp_clipped(log_N: Float, bounds: Float) -> Float:
    return np.asarray(np.exp(np.clip(log_N, bounds[2], bounds[3])))


def blended(
    weights: Mapping[str, float], names: list[str], said_NE: Float, trees_NJ: Float, bounds: Float
) -> tuple[Float, Float]:
    """Return the weighted mean of a product's members that say something, and how far they are apart, float64 [N]."""
    estimates = [name for name in weights if name in names]
    all_NJ = np.concatenate([said_NE[:, [names.index(name) for name in estimates]], trees_NJ], axis=1)
    trees = [name for name in weights if name not in names]
    # A little for the trees, which always say something.
    weight_J = np.array([weights[name] for name in estimates] + [weights[name] + 1e-6 for name in trees])
    known_NJ = np.isfinite(all_NJ) * weight_J
    known_NJ /= known_NJ.sum(axis=1, keepdims=True)
    location_N = (known_NJ * np.nan_to_num(all_NJ)).sum(axis=1)
    return np.clip(location_N, bounds[0], bounds[1]), np.nanstd(all_NJ, axis=1)


def learn_number(
    learning: Learning, seen: Seen, number_N: Float, fold_N: Ints, categories: int, seed: int, jobs: int
) -> NumberModel:
    """Learn one number.

    Args:
        learning: how.
        seen: the products that state it, in an order that does not depend on the table's.
        number_N: float64 [N], standardised.
        fold_N: folds that keep near-duplicates together; one fold only if they cannot be split.
        categories: how many there are.
        seed: of the trees.
        jobs: forests grown side by side.
    """
    bounds = np.array([number_N.min() - 0.5, number_N.max() + 0.5, 0.0, 0.0])
    if len(number_N) < FEW or len(np.unique(fold_N)) < 2:
        nothing = Estimates((), None, (), categories, ())
        return NumberModel(nothing, {}, None, {}, np.quantile(number_N, LEVELS), bounds, Siblings({}, 0.0))
    estimates, said_NE = learn_estimates(learning.estimates, seen, number_N, fold_N, categories, seed)
    source_C = np.arange(len(seen))
    if learning.copies:
        seen, said_NE, source_C = with_copies(seen, said_NE, estimates, seed)
    number_C, fold_C = number_N[source_C], fold_N[source_C]
    trees_CF = features_of(seen, said_NE)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        grown = [
            _cross_grown(learning.growth, objective, trees_CF, number_C, fold_C, seed, pool)
            for objective in learning.objectives
        ]
        forests = {f"trees {o}": forest for o, (forest, _) in zip(learning.objectives, grown, strict=True)}
        trees_CJ = np.stack([predicted for _, predicted in grown], axis=1)
        whole = np.arange(len(number_N))
        names = [column.name for column in estimates.columns]
        weights = find_weights(
            learning.blend, names, said_NE[whole], trees_CJ[whole], list(forests), number_N
        )
        location_C, spread_C = blended(weights, names, said_NE, trees_CJ, bounds)
        missed_C = np.abs(number_C - location_C)
        log_C = np.log(missed_C + LEAST * max(float(np.median(missed_C)), 1e-6))
        growth = replace(learning.growth, **SCALE)
        scale_CF = _scale_features(seen, said_NE, location_C, spread_C)
        scale, log_scale_C = _cross_grown(growth, "l2", scale_CF, log_C, fold_C, seed, pool)
    bounds[2:] = np.quantile(log_scale_C, (0.01, 0.99))
    location_N, scale_N = location_C[whole], _exp_clipped(log_scale_C[whole], bounds)
    siblings = Siblings({}, 0.0)
    if learning.siblings:
        siblings = Siblings.learn(sibling_keys(seen)[: len(number_N)], location_N, scale_N, number_N)
    shape = np.quantile((number_N - location_N) / scale_N, LEVELS)
    return NumberModel(estimates, forests, scale, weights, shape, bounds, siblings)


def _cross_grown(
    growth: Growth,
    objective: Objective,
    features_CF: Floats,
    target_C: Float,
    fold_C: Ints,
    seed: int,
    pool: ThreadPoolExecutor,
) -> tuple[Forest, Float]:
    """Return trees grown without each fold in turn, and what those without a product's fold say of it."""
    folds = np.unique(fold_C).tolist()

    def one(fold: int) -> str:
        rows = fold_C != fold
        return growth.grow(features_CF[rows], target_C[rows], objective, seed + fold)

    forest = Forest(growth.library, tuple(pool.map(one, folds)))
    predicted_C = np.zeros(len(target_C))
    for fold, text in zip(folds, forest.texts, strict=True):
        own = fold_C == fold
        predicted_C[own] = Forest(growth.library, (text,)).predict(features_CF[own])
    return forest, predicted_C


def find_weights(
    blend: bool, names: list[str], said_NE: Float, trees_NJ: Float, trees: list[str], number_N: Float
) -> dict[str, float]:
    """Return the weight of each member, by the mean absolute error out of fold and a pull to equal ones."""
    estimates = [name for name in MEMBERS if name in names] if blend else []
    members = [*estimates, *trees]
    all_NJ = np.concatenate([said_NE[:, [names.index(name) for name in estimates]], trees_NJ], axis=1)
    rows = np.isfinite(all_NJ).all(axis=1)
    if len(members) == 1 or rows.sum() < FEW:
        return {name: (1.0 / len(trees) if name in trees else 0.0) for name in members}
    typical = float(np.abs(number_N[rows, None] - all_NJ[rows]).mean())

    def worth(weight_J: tuple[float, ...]) -> float:
        weight = np.array(weight_J)
        missed = float(np.abs(number_N[rows] - all_NJ[rows] @ weight).mean())
        return -missed - PENALTY * typical * float(((weight - 1 / len(weight)) ** 2).sum())

    found_J = best_on_simplex(len(members), worth)
    return dict(zip(members, found_J.tolist(), strict=True))


def with_copies(seen: Seen, said_NE: Float, estimates: Estimates, seed: int) -> tuple[Seen, Float, Ints]:
    """Add copies of some products that lack something.

    Returns:
        The products and their copies, their estimates float64 [C, E], and whose copy each is, int64 [C].
    """
    drawn = np.random.default_rng(seed)
    seens, saids, sources = [seen], [said_NE], [np.arange(len(seen))]
    for what, share in LACKING.items():
        rows = np.flatnonzero(drawn.random(len(seen)) < share)
        needs = {
            "text": ("text", "both"),
            "photo": ("photo", "both"),
            "both": ("text", "photo", "both"),
            "category": ("category",),
            "all": ("text", "photo", "both", "category"),
        }[what]
        part = lacking(seen.select(rows), needs)
        said = said_NE[rows].copy()
        said[:, [at for at, column in enumerate(estimates.columns) if column.needs in needs]] = np.nan
        seens.append(part)
        saids.append(said)
        sources.append(rows)
    return joined(seens), np.concatenate(saids), np.concatenate(sources)


def lacking(seen: Seen, needs: tuple[str, ...]) -> Seen:
    """Return products as if their text, photo or category were not there."""
    text, photo = "text" in needs, "photo" in needs
    facts_NF, n = seen.facts.copy(), len(seen)
    if text:
        kept = facts_NF[:, FACTS.index("has photo")].copy()
        facts_NF[:] = 0
        facts_NF[:, [FACTS.index("value"), FACTS.index("size")]] = np.nan
        facts_NF[:, FACTS.index("has photo")] = kept
    if photo:
        facts_NF[:, FACTS.index("has photo")] = 0
    return replace(
        seen,
        vectors=np.full_like(seen.vectors, np.nan) if text else seen.vectors,
        photos=np.full_like(seen.photos, np.nan) if photo else seen.photos,
        facts=facts_NF,
        category=np.full(n, -1, np.int64) if "category" in needs else seen.category,
        listings=(Listing(),) * n if text else seen.listings,
        has_text=seen.has_text & (not text),
        has_photo=seen.has_photo & (not photo),
    )


def joined(parts: list[Seen]) -> Seen:
    """Return products one after another, without their terms, which trees do not see."""

    def all_of(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return replace(
        parts[0],
        **{
            name: all_of(name) for name in ("vectors", "photos", "facts", "category", "has_text", "has_photo")
        },
        listings=tuple(item for part in parts for item in part.listings),
        brands=tuple(item for part in parts for item in part.brands),
    )
