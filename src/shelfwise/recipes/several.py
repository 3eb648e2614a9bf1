"""Several photos of a product: each is predicted by itself, then they vote, in probability space.

It does not know how a photo is predicted. A product is a row for each of its photos, in an order that does not depend
on the table's; a photo that cannot be read leaves the vote to the others. Weights by role are found out of fold.
Legend: N products, E photos (rows of the expanded catalogue), e photos of one category, n products of it, A attributes,
V values packed, Q quantile levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import Amounts, ascending
from shelfwise.answers import RowError
from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError
from shelfwise.predictions import Block, Familiarity, Floats, Predictions
from shelfwise.simplex_search import best_on_simplex
from shelfwise.splits import Folds
from shelfwise.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
#: The probability from which a photo counts as saying a value, where photos are compared with each other.
SAYS = 0.5
#: Products with photos of several roles, below which all roles count alike.
FEW = 50
#: What the mean log loss has to gain, times the root of the number of products, for a squared distance of 1 from equal
#: weights.
PENALTY = 1.0
SMALLEST = 1e-12


@dataclass(frozen=True)
class Voting:
    """How much the photos of each role count; those of another role count 1.

    Attributes:
        roles: weights by role, with a mean of 1.
    """

    roles: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_table(cls, table: Mapping[str, Any], source: str) -> "Voting":
        """Read weights from plain data.

        Raises:
            BundleError: something else.
        """
        try:
            return cls({str(role): float(weight) for role, weight in table["roles"].items()})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{source}: not weights of photos that this version wrote: {error}") from error

    def weight(self, role: str) -> float:
        """Return what a photo of a role counts."""
        return self.roles.get(role, 1.0)

    def __str__(self) -> str:
        told = ", ".join(f"{role or 'no role'} {weight:.2f}" for role, weight in sorted(self.roles.items()))
        return told or "all alike"


#: All photos count alike.
ALIKE = Voting()


@dataclass(frozen=True, eq=False)
class Shown:
    """The photos of a catalogue, a row each.

    Attributes:
        catalog: the photos as products of one photo.
        product: int64 [E], ascending: the product's position in the given catalogue.
        roles: of each photo.
        first: bool [E], the photos that stand for their product where one has to, such as to learn from.
        ids: of the products.
    """

    catalog: Catalog
    product: Ints
    roles: tuple[str, ...]
    first: Bools
    ids: tuple[str, ...]

    @classmethod
    def of(cls, catalog: Catalog) -> "Shown":
        """Lay out the photos of every product, by role and path; a product without any keeps its row."""
        product: list[int] = []
        images, roles, first = [], list[str](), list[bool]()
        for row, path in enumerate(catalog.images):
            photos = sorted(catalog.photos.get(row, ()), key=lambda photo: (photo.role, str(photo.path)))
            shown: list[tuple[Path | None, str]] = [(photo.path, photo.role) for photo in photos]
            shown = shown or [(path, "")]
            product += [row] * len(shown)
            images += [place for place, _ in shown]
            roles += [role for _, role in shown]
            first += [place == path for place, _ in shown]
        rows = np.asarray(product, np.int64)
        laid = replace(catalog.first_photos().select(rows), images=tuple(images))
        return cls(laid, rows, tuple(roles), np.asarray(first, bool), catalog.ids)

    def folds(self, folds: Folds) -> Folds:
        """Return the folds of the products as folds of their photos."""
        return Folds(self.catalog.ids, folds.fold[self.product], folds.grouped, folds.seed)

    def weights(self, voting: Voting) -> Float:
        """Return float64 [E], what each photo counts."""
        return np.array([voting.weight(role) for role in self.roles], np.float64)


def vote(
    found: Predictions, shown: Shown, voting: Voting = ALIKE, readable: Bools | None = None
) -> Predictions:
    """Return one row a product: the weighted mean of its photos' probabilities, opinion by opinion.

    Numbers get the mean of their quantiles, level by level (geometric where they are learnt as logarithms); how
    familiar a product is, its most familiar photo says. A product has an error only where all its photos have one.

    Args:
        found: a row a photo.
        shown: which photo is whose.
        voting: weights by role; by default all photos count alike.
        readable: bool [E], photos that are known to be no help are false, such as where a text alone was read.
    """
    weight_E = shown.weights(voting)
    code_E = found.categories().astype(np.int64)
    blind_E = np.zeros(len(code_E), bool) if readable is None else ~readable
    for product in np.unique(shown.product[blind_E]).tolist():
        own = slice(*np.searchsorted(shown.product, [product, product + 1]))
        if blind_E[own].all():
            blind_E[own] = False
    chosen_N = _settled(found, shown, weight_E, np.where(blind_E, -1, code_E))
    counts_E = (code_E >= 0) & (code_E == chosen_N[shown.product]) & ~blind_E
    blocks, unsure = [], dict[int, tuple[str, ...]]()
    for block in found.blocks:
        voted = _vote_block(block, found, shown, weight_E, counts_E, unsure)
        if voted is not None:
            blocks.append(voted)
    lost = np.flatnonzero(chosen_N < 0).tolist()
    return Predictions(
        found.taxonomy,
        shown.ids,
        tuple(blocks),
        {product: _error(found, shown, product) for product in lost},
        _guessed(found, shown, weight_E, counts_E),
        found.notes,
        None if found.familiarity is None else _most_familiar(found.familiarity, shown),
        unsure,
        tuple(_vote_amounts(item, found.taxonomy, shown, weight_E, counts_E) for item in found.amounts),
    )


def disputed(found: Predictions, shown: Shown, readable: Bools | None = None) -> dict[int, tuple[str, ...]]:
    """Return the attributes of which two photos of a product say different values, by the product's position.

    A photo says a value where that has a probability of ``SAYS`` or more, so ``found`` is to be calibrated; one that
    is known to be no help says none, as in ``vote``.
    """
    said: dict[int, list[str]] = {}
    ok_E = np.ones(len(shown.product), bool) if readable is None else readable
    for block in found.blocks:
        product_e = shown.product[block.rows]
        starts = _starts(product_e)
        choices, parts = found.taxonomy.choices(block.category), found.taxonomy.slices(block.category)
        for choice, part in zip(choices, parts, strict=True):
            if part.stop == part.start:
                continue
            probs_ev = block.probs[:, part]
            top_e = np.where((probs_ev.max(axis=1) >= SAYS) & ok_E[block.rows], probs_ev.argmax(axis=1), -1)
            most_n = np.maximum.reduceat(top_e, starts)
            least_n = np.minimum.reduceat(np.where(top_e < 0, part.stop, top_e), starts)
            for at in np.flatnonzero((most_n >= 0) & (least_n < most_n)).tolist():
                said.setdefault(int(product_e[starts[at]]), []).append(choice.name)
    return {product: tuple(names) for product, names in sorted(said.items())}


def learn_voting(found: Predictions, shown: Shown, catalog: Catalog) -> Voting:
    """Find what the photos of each role count: the least log loss of the vote, drawn to equal weights.

    Args:
        found: a row a photo, each by a model that has not seen its product's group.
        shown: which photo is whose.
        catalog: the products with their stated values.
    """
    cells = _cells(found, shown, catalog)
    roles = sorted({role for cell in cells for role in cell.roles})
    count = len({cell.product for cell in cells})
    if count < FEW or len(roles) < 2:
        return ALIKE
    place = {role: at for at, role in enumerate(roles)}
    # A photo's probability of the stated value, in the column of its role; and how many photos of a role there are.
    sum_cR, number_cR = np.zeros((2, len(cells), len(roles)))
    for at, cell in enumerate(cells):
        for role, probability in zip(cell.roles, cell.probabilities, strict=True):
            sum_cR[at, place[role]] += probability
            number_cR[at, place[role]] += 1

    def worth(weight_R: tuple[float, ...]) -> float:
        share_R = np.maximum(np.asarray(weight_R), 1e-3)
        mixed_c = (sum_cR @ share_R) / (number_cR @ share_R)
        away = sum((weight - 1 / len(roles)) ** 2 for weight in weight_R)
        gain = float(np.log(np.maximum(mixed_c, SMALLEST)).mean())
        return gain - PENALTY / float(np.sqrt(count)) * away

    best_R = np.maximum(best_on_simplex(len(roles), worth), 1e-3)
    return Voting(
        {role: float(round(weight * len(roles), 4)) for role, weight in zip(roles, best_R, strict=True)}
    )


@dataclass(frozen=True, eq=False)
class Voted:
    """Products as their photos vote, out of fold.

    Attributes:
        found: the vote, the weights of each fold found without it.
        first: what each product's first photo says alone.
        voting: the weights found on all of them.
        said: a sentence about them.
    """

    found: Predictions
    first: Predictions
    voting: Voting
    said: str


def voted_out_of_fold(found: Predictions, shown: Shown, catalog: Catalog, fold_N: Ints) -> Voted:
    """Let photos vote that were predicted out of fold, by weights that have not seen their fold.

    Args:
        found: a row a photo.
        shown: which photo is whose.
        catalog: the products with their stated values.
        fold_N: int64 [N], folds of the products.
    """
    voting = learn_voting(found, shown, catalog)
    if voting.roles:
        parts = []
        for fold in np.unique(fold_N).tolist():
            inside, others = np.flatnonzero(fold_N == fold), np.flatnonzero(fold_N != fold)
            rest = _part(found, shown, catalog, others)
            said, photos = _part(found, shown, catalog, inside)
            without = learn_voting(*rest, catalog.select(others))
            parts.append((inside, vote(said, photos, without)))
        voted = Predictions.join(parts, catalog.ids)
    else:
        voted = vote(found, shown)
    first = found.select(np.flatnonzero(shown.first))
    return Voted(voted, first, voting, _sentence(len(catalog.photos), voting, shown.roles))


def _part(found: Predictions, shown: Shown, catalog: Catalog, products: Ints) -> tuple[Predictions, Shown]:
    """Return some of the products, with what is said of their photos."""
    rows = np.flatnonzero(np.isin(shown.product, products))
    return found.select(rows), Shown.of(catalog.select(products))


@dataclass(frozen=True)
class _Cell:
    """A labelled cell of a product with photos of several roles: what each gives the stated value."""

    product: int
    roles: tuple[str, ...]
    probabilities: tuple[float, ...]


def _cells(found: Predictions, shown: Shown, catalog: Catalog) -> list[_Cell]:
    cells = []
    for block in found.blocks:
        stated = catalog.rows(block.category)
        labels_nA = catalog.labels(block.category)
        product_e = shown.product[block.rows]
        starts = _starts(product_e)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(product_e)], strict=True):
            roles = tuple(shown.roles[row] for row in block.rows[start:stop].tolist())
            product = int(product_e[start])
            if len(set(roles)) < 2 or catalog.category[product] < 0:
                continue
            label_A = labels_nA[int(np.searchsorted(stated, product))]
            for part, label in zip(found.taxonomy.slices(block.category), label_A.tolist(), strict=True):
                if label >= 0:
                    given = block.probs[start:stop, part.start + label].astype(float).tolist()
                    cells.append(_Cell(product, roles, tuple(given)))
    return cells


def _starts(product_e: Ints) -> Ints:
    """Return where each product's photos begin."""
    return np.flatnonzero(np.diff(product_e, prepend=-1)).astype(np.int64)


def _settled(found: Predictions, shown: Shown, weight_E: Float, code_E: Ints) -> Ints:
    """Return int64 [N], the category of each product: the one with most probability in sum; -1 for none."""
    chosen_N = np.full(len(shown.ids), -1, np.int64)
    np.maximum.at(chosen_N, shown.product, code_E)
    apart = np.unique(shown.product[(code_E >= 0) & (code_E != chosen_N[shown.product])])
    for product in apart.tolist():
        votes: dict[int, float] = {}
        for row in range(*np.searchsorted(shown.product, [product, product + 1])):
            if (code := int(code_E[row])) >= 0:
                votes[code] = votes.get(code, 0.0) + weight_E[row] * found.guessed.get(row, 1.0)
        chosen_N[product] = max(sorted(votes), key=lambda code: votes[code])
    return chosen_N


def _vote_block(
    block: Block,
    found: Predictions,
    shown: Shown,
    weight_E: Float,
    counts_E: Bools,
    unsure: dict[int, tuple[str, ...]],
) -> Block | None:
    """Return a category's products; notes the attributes that all photos of a product are unsure of."""
    at = np.flatnonzero(counts_E[block.rows])
    kept = block.take(at, block.rows[at])
    if not len(kept.rows):
        return None
    product_e = shown.product[kept.rows]
    starts = _starts(product_e)
    choices, parts = found.taxonomy.choices(block.category), found.taxonomy.slices(block.category)
    says_eA = np.ones((len(kept.rows), len(choices)), bool)
    for place, row in enumerate(kept.rows.tolist() if found.unsure else ()):
        says_eA[place] = [choice.name not in found.unsure.get(row, ()) for choice in choices]
    anyone_nA = np.logical_or.reduceat(says_eA, starts, axis=0)
    rows = product_e[starts]
    for place in np.flatnonzero(~anyone_nA.all(axis=1)).tolist():
        names = tuple(choice.name for choice, one in zip(choices, anyone_nA[place], strict=True) if not one)
        unsure[int(rows[place])] = names
    says_eA |= ~np.repeat(anyone_nA, np.diff(starts, append=len(product_e)), axis=0)
    weight_eA = says_eA * weight_E[kept.rows][:, None]
    weight_eV = np.repeat(weight_eA, [part.stop - part.start for part in parts], axis=1)
    probs_nV, *opinions = (_means(each, weight_eV, starts) for each in (kept.probs, *kept.opinions))
    return Block(block.category, rows, probs_nV, tuple(opinions))


def _means(values_eX: Floats, weight_eX: Float, starts: Ints) -> Floats:
    """Return float32 [n, X], weighted means over the photos of a product; what one photo says stays as it is."""
    total_nX = np.add.reduceat(values_eX.astype(np.float64) * weight_eX, starts, axis=0)
    mean_nX = (total_nX / np.add.reduceat(weight_eX, starts, axis=0)).astype(np.float32)
    alone_n = np.diff(starts, append=len(values_eX)) == 1
    mean_nX[alone_n] = values_eX[starts[alone_n]]
    return mean_nX


def _vote_amounts(
    item: Amounts, taxonomy: Taxonomy, shown: Shown, weight_E: Float, counts_E: Bools
) -> Amounts:
    """Return a Number of each product: by the photos that were read, else by what there is beside photos."""
    product_E = shown.product
    seen_N = np.zeros(len(shown.ids), bool)
    seen_N[product_E[item.rows[counts_E[item.rows]]]] = True
    at = np.flatnonzero(counts_E[item.rows] | ~seen_N[product_E[item.rows]])
    rows_e = item.rows[at]
    product_e = product_E[rows_e]
    starts = _starts(product_e)
    rows = product_e[starts]
    logarithms = taxonomy.number(item.name).transform == "log"

    def mean(quantiles_eQ: Floats) -> Floats:
        if not len(rows):
            return quantiles_eQ[:0]
        weight_eQ = np.repeat(weight_E[rows_e][:, None], quantiles_eQ.shape[1], axis=1)
        if not logarithms:
            return ascending(_means(quantiles_eQ, weight_eQ, starts))
        logs_eQ = np.log(np.maximum(quantiles_eQ.astype(np.float64), SMALLEST))
        total_nQ = np.add.reduceat(logs_eQ * weight_eQ, starts, axis=0)
        mean_nQ = np.exp(total_nQ / np.add.reduceat(weight_eQ, starts, axis=0)).astype(np.float32)
        alone_n = np.diff(starts, append=len(rows_e)) == 1
        mean_nQ[alone_n] = quantiles_eQ[starts[alone_n]]
        return ascending(mean_nQ)

    opinions = tuple(mean(opinion[at]) for opinion in item.opinions)
    return Amounts(item.name, rows, mean(item.quantiles[at]), opinions)


def _error(found: Predictions, shown: Shown, product: int) -> RowError:
    """Return why a product has no answer: what is wrong with its photos, the first by role and path."""
    start, stop = np.searchsorted(shown.product, [product, product + 1]).tolist()
    first = found.errors[start]
    if stop - start == 1 or len({found.errors[row].field for row in range(start, stop)}) > 1:
        return first
    if len({found.errors[row].message for row in range(start, stop)}) == 1:
        return first
    return RowError(first.field, f"none of its {stop - start} photos can be read; {first.message}")


def _guessed(found: Predictions, shown: Shown, weight_E: Float, counts_E: Bools) -> dict[int, float]:
    """Return the probability of each predicted category: the mean over a product's photos that were read."""
    products = sorted({int(shown.product[row]) for row in found.guessed if counts_E[row]})
    guessed = {}
    for product in products:
        own = [
            row
            for row in range(*np.searchsorted(shown.product, [product, product + 1]))
            if row not in found.errors
        ]
        weight = weight_E[own]
        given = np.array([found.guessed.get(row, 1.0) if counts_E[row] else 0.0 for row in own])
        guessed[product] = float(given[0]) if len(own) == 1 else float(weight @ given / weight.sum())
    return guessed


def _most_familiar(familiarity: Familiarity, shown: Shown) -> Familiarity:
    """Return how familiar each product is: by its most familiar photo, and likewise for its category."""
    starts = _starts(shown.product)

    def best(values_E: Floats) -> Floats:
        known_E = np.where(np.isnan(values_E), -1.0, values_E)
        most_N = np.maximum.reduceat(known_E, starts) if len(starts) else known_E
        return np.where(most_N < 0, np.nan, most_N).astype(np.float32)

    rank_E = np.where(np.isnan(familiarity.p_category), -1.0, familiarity.p_category)
    order_E = np.lexsort((np.arange(len(rank_E)), -rank_E, shown.product))
    likelier = familiarity.likelier[order_E[starts]]
    return Familiarity(best(familiarity.p_familiar), best(familiarity.p_category), likelier)


def readable_of(familiarity: Familiarity | None) -> Bools | None:
    """Return bool [E], the photos that familiarity says something of; ``None`` where it says nothing of any."""
    if familiarity is None or np.isnan(familiarity.p_familiar).all():
        return None
    return np.asarray(~np.isnan(familiarity.p_familiar))


def _sentence(products: int, voting: Voting, roles: Sequence[str]) -> str:
    """Return a sentence about products with several photos."""
    known = sorted({role for role in roles if role})
    weights = f"; weights by role, found out of fold: {voting}" if voting.roles else ""
    told = f" with the roles {', '.join(known)}" if known else ""
    return f"{products:,} products have several photos{told}: they vote{weights}."
