"""Sides: several members' predictions of the same products, side by side.

It does not know how the members were made, nor how their weights are found. That their columns mean the same is
checked by the taxonomies' hashes, never assumed.
Legend: N rows, n rows of one category, J members, A attributes, V values packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.answers import RowError
from shelfwise.errors import PredictionError, listing
from shelfwise.predictions import Block, Floats, Predictions, Rows
from shelfwise.recipes.simplex import Weights
from shelfwise.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]
SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Side:
    """Several members' predictions of one category's rows, side by side.

    Attributes:
        category: its name.
        rows: int64 [n], ascending.
        says: bool [J, n, A], whether a member said something of an attribute: it answered the row as of this
            category, and was not unsure.
        blocks: one a member, of these rows; zeros where it answered them as of another category.
    """

    category: str
    rows: Rows
    says: npt.NDArray[np.bool_]
    blocks: tuple[Block, ...]

    def filled(self, taxonomy: Taxonomy, weights: "Weights | None" = None) -> list[Floats]:
        """Return the members' probabilities, [n, V] each; the blend stands for a member that said nothing."""
        mixed_nV = mixture(self, taxonomy, weights)
        return [self.spread(taxonomy, j, block.probs, mixed_nV) for j, block in enumerate(self.blocks)]

    def spread(self, taxonomy: Taxonomy, member: int, said_nV: Floats, mixed_nV: Floats) -> Floats:
        """Return float32 [n, V]: what a member said, and the blend where it said nothing."""
        if self.says[member].all():
            return said_nV
        out_nV = mixed_nV.copy()
        for a, part in enumerate(taxonomy.slices(self.category)):
            here_n = self.says[member, :, a]
            out_nV[here_n, part] = said_nV[here_n, part]
        return out_nV


@dataclass(frozen=True, eq=False)
class Sides:
    """All rows of a table as several members predict them.

    Attributes:
        blocks: by category.
        errors: rows that no member could answer, with the first one's reason.
        guessed: rows whose category was predicted: mean over members of the probability of the one settled on.
        unsure: attributes that no member said anything of, by row.
    """

    blocks: tuple[Side, ...]
    errors: Mapping[int, RowError]
    guessed: Mapping[int, float]
    unsure: Mapping[int, tuple[str, ...]]


def what_differs(first: Taxonomy, other: Taxonomy) -> str:
    """Name the first thing that two taxonomies do not have in common, order included; empty if they are equal."""
    if first.hash == other.hash:
        return ""
    for here, there, where in ((first, other, "second"), (other, first, "first")):
        lost = [name for name in here.categories if name not in there.category_codes]
        if lost:
            return f"the {where} has no {_some('category', lost)}"
    for category in first.categories:
        a, b = ({c.name: c for c in t.choices(category)} for t in (first, other))
        for here_c, there_c, where in ((a, b, "second"), (b, a, "first")):
            lost = [name for name in here_c if name not in there_c]
            if lost:
                return f"{category!r} of the {where} has no {_some('attribute', lost)}"
        for name, choice in a.items():
            for ours, theirs, where in ((choice, b[name], "second"), (b[name], choice, "first")):
                lost = [value for value in ours.values if value not in theirs.values]
                if lost:
                    return f"{category}/{name} of the {where} has no {_some('value', lost)}"
            if choice.values != b[name].values:
                return f"the values of {category}/{name} stand in another order"
        if tuple(a) != tuple(b):
            return f"the attributes of {category!r} stand in another order"
    if first.categories != other.categories:
        return "the categories stand in another order"
    return "their numbers, or the values that say 'not applicable', differ"


def _some(what: str, names: Sequence[str]) -> str:
    return f"{what} {listing(names, 3)}"


def check_taxonomies(taxonomies: Sequence[Taxonomy], names: Sequence[str]) -> None:
    """Make sure that the columns of several members mean the same.

    Args:
        taxonomies: one a member.
        names: what each is called in the message.

    Raises:
        PredictionError: two differ; says which and in what.
    """
    for taxonomy, name in zip(taxonomies[1:], names[1:], strict=True):
        differs = what_differs(taxonomies[0], taxonomy)
        if differs:
            raise PredictionError(
                f"{names[0]} and {name} have different taxonomies: {differs}. Only predictions under one taxonomy "
                "can be blended: fit them on one table, or bring one over with: shelfwise taxonomy migrate"
            )


def side_by_side(predictions: Sequence[Predictions], names: Sequence[str] = ()) -> Sides:
    """Line several members' predictions up.

    A row whose category the members guessed differently is of the one with most probability in sum, and is
    answered by those members that say so.

    Args:
        predictions: one a member.
        names: what each is called in messages.

    Raises:
        PredictionError: none at all, other products, or another taxonomy.
    """
    if not predictions:
        raise PredictionError("there are no predictions to blend")
    names = names or [f"member {j + 1}" for j in range(len(predictions))]
    first = predictions[0]
    check_taxonomies([p.taxonomy for p in predictions], names)
    for other, name in zip(predictions[1:], names[1:], strict=True):
        if other.ids != first.ids:
            lost = sorted(set(first.ids) ^ set(other.ids))
            what = f"on one side only: {listing(lost, 3)}" if lost else "the same ids in another order"
            raise PredictionError(f"{names[0]} and {name} are predictions of other products; {what}")
    codes_JN = np.stack([_codes(p) for p in predictions])
    chosen_N = _settled(codes_JN, predictions)
    blocks = []
    for code in np.unique(chosen_N[chosen_N >= 0]).tolist():
        category, rows = first.taxonomy.categories[code], np.flatnonzero(chosen_N == code)
        there_Jn = codes_JN[:, rows] == code
        parts = tuple(
            _taken(p, category, rows, there_n) for p, there_n in zip(predictions, there_Jn, strict=True)
        )
        blocks.append(Side(category, rows, _says(predictions, category, rows, there_Jn), parts))
    blocks.sort(key=lambda side: side.category)
    unsure: dict[int, tuple[str, ...]] = {}
    for side in blocks:
        choices = first.taxonomy.choices(side.category)
        nobody_nA: npt.NDArray[np.bool_] = ~np.any(side.says, axis=0)
        for at in np.flatnonzero(nobody_nA.any(axis=1)).tolist():
            names_at = tuple(c.name for c, none in zip(choices, nobody_nA[at], strict=True) if none)
            unsure[int(side.rows[at])] = names_at
    errors = {int(row): first.errors[int(row)] for row in np.flatnonzero(chosen_N < 0)}
    asked = sorted({row for p in predictions for row in p.guessed if chosen_N[row] >= 0})
    guessed = {
        row: float(
            np.mean(
                [
                    p.guessed.get(row, 1.0) if codes_JN[j, row] == chosen_N[row] else 0.0
                    for j, p in enumerate(predictions)
                ]
            )
        )
        for row in asked
    }
    return Sides(tuple(blocks), errors, guessed, unsure)


def _codes(predictions: Predictions) -> Ints:
    """Return [N], the category that each row was answered as; -1 for an error."""
    code_N = np.full(len(predictions), -1, np.int64)
    for block in predictions.blocks:
        code_N[block.rows] = predictions.taxonomy.category_codes[block.category]
    return code_N


def _settled(codes_JN: Ints, predictions: Sequence[Predictions]) -> Ints:
    """Return [N], one category a row; -1 where every member has an error."""
    chosen_N: Ints = codes_JN.max(axis=0)
    apart_N = ((codes_JN >= 0) & (codes_JN != chosen_N)).any(axis=0)
    for row in np.flatnonzero(apart_N).tolist():
        votes: dict[int, float] = {}
        for code, member in zip(codes_JN[:, row].tolist(), predictions, strict=True):
            if code >= 0:
                votes[code] = votes.get(code, 0.0) + member.guessed.get(row, 1.0)
        chosen_N[row] = max(votes, key=lambda code: votes[code])
    return chosen_N


def _says(
    predictions: Sequence[Predictions], category: str, rows: Rows, there_Jn: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Return bool [J, n, A]: whether each member said something of each attribute."""
    names = [choice.name for choice in predictions[0].taxonomy.choices(category)]
    says_JnA = np.repeat(there_Jn[:, :, None], len(names), axis=2)
    for j, member in enumerate(predictions):
        for at, row in enumerate(rows.tolist() if member.unsure else ()):
            for name in member.unsure.get(row, ()):
                if name in names:
                    says_JnA[j, at, names.index(name)] = False
    return says_JnA


def _taken(predictions: Predictions, category: str, rows: Rows, there_n: npt.NDArray[np.bool_]) -> Block:
    """A member's block of these rows, zeros where it has none of them."""
    block = predictions.block(category)
    if block is not None and len(block.rows) == len(rows) and there_n.all():
        return block
    shape = len(rows), predictions.taxonomy.width(category)
    if block is None:
        return Block(category, rows, np.zeros(shape, np.float32))
    at = np.searchsorted(block.rows, rows[there_n])

    def spread(part_nV: Floats) -> Floats:
        out_nV = np.zeros(shape, np.float32)
        out_nV[there_n] = part_nV[at]
        return out_nV

    return Block(category, rows, spread(block.probs), tuple(spread(o) for o in block.opinions))


def mixture(side: Side, taxonomy: Taxonomy, weights: Weights | None = None) -> Floats:
    """Return float32 [n, V], the weighted mean of the members that said something of an attribute.

    Where none did, such as where all are unsure, it is that of the members that answered the row.
    """
    mixed_nV = np.zeros((len(side.rows), taxonomy.width(side.category)))
    weights = weights or Weights(len(side.blocks), taxonomy.hash, {})
    parts = taxonomy.slices(side.category)
    for a, (choice, part) in enumerate(zip(taxonomy.choices(side.category), parts, strict=True)):
        there_Jn = np.stack([b.probs[:, part].any(axis=1) for b in side.blocks])
        says_Jn = np.where(side.says[:, :, a].any(axis=0), side.says[:, :, a], there_Jn)
        weight_Jn = says_Jn * np.asarray(weights.of(side.category, choice.name))[:, None]
        # Where only members without weight said something, they count alike.
        weight_Jn = np.where(weight_Jn.sum(axis=0) > 0, weight_Jn, says_Jn)
        weight_Jn = weight_Jn / np.maximum(weight_Jn.sum(axis=0), SMALLEST)
        for weight_n, block in zip(weight_Jn, side.blocks, strict=True):
            mixed_nV[:, part] += weight_n[:, None] * block.probs[:, part]
    return mixed_nV.astype(np.float32)
