"""Doubts: what a bundle is not sure of in a table, as the items of a review desk.

They do not know where items are kept, nor who looks at them. The risk of an item is the probability that the value
that would be used is wrong, times what an error weighs there and what its reason weighs.
Legend: N rows, n rows of one category, A its attributes, v the values of one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

from shelfwise.answers import STATES, Answers
from shelfwise.auditing import audit_table
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.choosing import stated_codes
from shelfwise.errors import CatalogError, UsageError, listing, suggest
from shelfwise.explaining import explain_images
from shelfwise.pages.heat import packed
from shelfwise.predictions import Machine, Predictions
from shelfwise.service.items import Item, Reason, key_of, plain_number
from shelfwise.service.lookalikes import Likeness
from shelfwise.trust.learnt import out_of_fold
from shelfwise.trust.suspects import Audit

#: What is promised where neither the caller nor the bundle says: below it an answer is unsure.
PRECISION = 0.95
#: Probability that what is used is wrong where the picture or the category is itself in doubt, at least.
DOUBT = 0.5
#: What an item weighs by its reason: a wrong value that is stated is used, an empty cell that is unsure is not.
REASONS: Mapping[str, float] = {"mismatch": 4.0, "unsure": 1.0, "unfamiliar": 1.0, "category?": 1.0}


@dataclass(frozen=True)
class Weighing:
    """What an error weighs, and who listed a product.

    Attributes:
        attributes: weights by attribute name; 1 where not named.
        reasons: weights by the reason an item is asked for; those of ``REASONS`` where not named.
        worth: a column of numbers that a product's errors weigh, such as its sales.
        supplier: the column that names who listed it.

    Raises:
        UsageError: a weight for a reason that there is not, or one that is not above zero.
    """

    attributes: Mapping[str, float] | None = None
    reasons: Mapping[str, float] | None = None
    worth: str | None = None
    supplier: str | None = None

    def __post_init__(self) -> None:
        for name in self.reasons or {}:
            if name not in REASONS:
                hint = suggest(name, REASONS) or f"There are: {listing(REASONS)}."
                raise UsageError(f"no item is asked for the reason {name!r}. {hint}")
        for name, weight in (*(self.attributes or {}).items(), *(self.reasons or {}).items()):
            if not 0 < weight < math.inf:
                raise UsageError(f"the weight of {name!r} is {weight}; a weight is a number above zero")

    def check(self, catalog: Catalog) -> None:
        """Make sure that a table has what is asked of it, before anything is computed.

        Raises:
            CatalogError: no such column, or a cell that is not a number above zero.
        """
        self.of_rows(catalog)
        if self.supplier is not None:
            catalog.texts(self.supplier)

    def of_rows(self, catalog: Catalog) -> npt.NDArray[np.float64]:
        """Return float64 [N], what errors of each product weigh; the median where the cell is empty.

        Raises:
            CatalogError: no such column, or a cell that is not a number above zero.
        """
        worth_N = np.ones(len(catalog))
        if self.worth is None:
            return worth_N
        for row, cell in enumerate(catalog.texts(self.worth)):
            try:
                worth_N[row] = np.nan if cell is None else float(cell.replace(",", ""))
            except ValueError:
                worth_N[row] = -1
            if worth_N[row] <= 0 or np.isinf(worth_N[row]):
                raise CatalogError(
                    f"{catalog.source}, row {row + 1}, id {catalog.ids[row]!r}: {self.worth!r} is {cell!r}; what a "
                    "product weighs is a number above zero, or empty"
                )
        known_N = np.isfinite(worth_N)
        return np.where(known_N, worth_N, np.median(worth_N[known_N]) if known_N.any() else 1.0)

    def of_item(self, catalog: Catalog, item: Item) -> float:
        """Return what an item weighs by attribute and reason; a category as much as its dearest attribute."""
        choices = catalog.taxonomy.choices(item.category)
        names = [item.attribute] if item.attribute else [choice.name for choice in choices]
        weight = max(((self.attributes or {}).get(name, 1.0) for name in names), default=1.0)
        return weight * {**REASONS, **(self.reasons or {})}[item.reason]


@dataclass(frozen=True)
class _Doubt:
    """One cell in doubt; ``wrong`` says how likely an error is.

    Attribute is -1 where the cell is the category's, or that of the Number that is named.
    """

    row: int
    category: int
    attribute: int
    stated: str | None
    seen: str | None
    probability: float | None
    runner_up: str | None
    second: float | None
    state: str
    reason: Reason
    wrong: float
    number: str = ""
    expected: str = ""


def items_of(
    bundle: Bundle,
    catalog: Catalog,
    weighing: Weighing | None = None,
    *,
    precision: float | None = None,
    look_alikes: int = 3,
    reference: Catalog | None = None,
    machine: Machine | None = None,
) -> list[Item]:
    """Return what people should look at: suspects of the audit, unsure answers, unfamiliar pictures and categories.

    A cell in which a value or a number is stated is asked where the audit suspects it; an empty one where the answer is
    unsure, if it is no number's. Of a product whose category is in question nothing else is asked.

    Args:
        bundle: what was learnt.
        catalog: the products.
        weighing: what errors weigh; by default all the same.
        precision: answers that do not keep it are unsure; by default the bundle's own promise, else ``PRECISION``.
        look_alikes: how many products learnt from are named beside each.
        reference: the table learnt from, for the photos of those that are not in ``catalog``.
        machine: where to compute.

    Returns:
        The items, the riskiest first.

    Raises:
        TaxonomyError: a weight for an attribute that there is not.
        CatalogError: a column that there is not, or a weight that is not a number.
    """
    weighing, machine = weighing or Weighing(), bundle.on(machine)
    catalog = catalog.under(bundle.schema).remembering()
    reference = None if reference is None else reference.under(bundle.schema)
    worth_N = weighing.of_rows(catalog)
    suppliers = catalog.texts(weighing.supplier) if weighing.supplier else [None] * len(catalog)
    numbers, weights = catalog.taxonomy.number_names, weighing.attributes or {}
    weights = {name: weight for name, weight in weights.items() if name not in numbers}
    found = audit_table(bundle, catalog, weights=weights, machine=machine)
    predictions = bundle.predict(catalog, machine)
    if bundle.calibrated is not None:
        predictions = out_of_fold(predictions, catalog, bundle.calibrated)
    if bundle.calibrated is not None and bundle.rule is not None:
        precision = precision or bundle.run.decide.precision or PRECISION
    answers = bundle.answer(catalog, precision=precision, machine=machine)
    likeness = Likeness.of(bundle, catalog, look_alikes, machine, reference)
    items = []
    for doubt in _doubts(catalog, found, predictions, answers, weights):
        plain = _item(catalog, doubt, suppliers[doubt.row] or "", likeness)
        weight = weighing.of_item(catalog, plain) * float(worth_N[doubt.row])
        items.append((replace(plain, risk=doubt.wrong * weight), doubt.row))
    items.sort(key=lambda entry: (-entry[0].risk, entry[0].key))
    return _clustered(items, likeness)


def explained(
    items: Sequence[Item], first: int, bundle: Bundle, catalog: Catalog, machine: Machine | None = None
) -> list[Item]:
    """Return the items, the first ones with a map of where in the photo the value seen comes from.

    Args:
        items: as ``items_of`` returned them.
        first: maps at most; categories in question and numbers have none and do not count.
        bundle, catalog, machine: as given to ``items_of``.

    Raises:
        UsageError: the bundle has no heat maps.
        MissingExtra: torch is not installed.
    """
    wanted = {
        (item.id, item.attribute): item.seen
        for item in items
        if item.attribute and item.seen is not None and not item.number
    }
    maps = explain_images(bundle, catalog, values=wanted, most=first, machine=machine)
    drawn = {(each.id, each.attribute): packed(each.heat) for each in maps}
    return [replace(item, heat=drawn.get((item.id, item.attribute), "")) for item in items]


def _doubts(
    catalog: Catalog, found: Audit, predictions: Predictions, answers: Answers, weights: Mapping[str, float]
) -> Iterator[_Doubt]:
    """Yield every doubt once."""
    questioned = {row for row, flag in answers.flagged().items() if flag == "category?"}
    states = {block.category: (_places(block.rows), block.state) for block in answers.blocks}
    yield from _categories(catalog, answers, questioned)
    yield from (doubt for doubt in _mispriced(catalog, found) if doubt.row not in questioned)
    asked: set[tuple[int, int]] = set()
    for doubt in _mismatches(catalog, found, predictions, weights):
        cell = doubt.row, doubt.attribute
        if doubt.row in questioned or cell in asked:
            continue
        asked.add(cell)
        places, state_nA = states[catalog.taxonomy.categories[doubt.category]]
        state = STATES[state_nA[places[doubt.row], doubt.attribute]]
        if state == "unfamiliar":
            yield replace(doubt, state=state, reason="unfamiliar", wrong=max(doubt.wrong, DOUBT))
        else:
            yield replace(doubt, state=state)
    for doubt in _unsure(catalog, answers):
        if doubt.row not in questioned and (doubt.row, doubt.attribute) not in asked:
            yield doubt


def _places(rows: npt.NDArray[np.int64]) -> dict[int, int]:
    return {row: at for at, row in enumerate(rows.tolist())}


def _categories(catalog: Catalog, answers: Answers, questioned: set[int]) -> Iterator[_Doubt]:
    """Rows whose picture does not look like their category, and rows whose empty category was guessed."""
    names, codes = catalog.taxonomy.categories, catalog.taxonomy.category_codes
    category = {row: block.category for block in answers.blocks for row in block.rows.tolist()}
    for row in sorted(questioned):
        likelier = -1 if answers.likelier is None else int(answers.likelier[row])
        seen, code = names[likelier] if likelier >= 0 else None, codes[category[row]]
        yield _Doubt(row, code, -1, category[row], seen, None, None, None, "category?", "category?", DOUBT)
    for row, p in sorted(answers.guessed.items()):
        name = category[row]
        yield _Doubt(row, codes[name], -1, None, name, float(p), None, None, "unsure", "unsure", 1 - float(p))


def _mismatches(
    catalog: Catalog, found: Audit, predictions: Predictions, weights: Mapping[str, float]
) -> Iterator[_Doubt]:
    """Suspects of the audit, the likeliest errors first; what a text denies is not asked."""
    taxonomy = catalog.taxonomy
    blocks = {block.category: (_places(block.rows), block.probs) for block in predictions.blocks}
    for at in np.flatnonzero(found.suspect & ~found.negated).tolist():
        row, attribute, seen = (int(part[at]) for part in (found.row, found.attribute, found.seen))
        name = taxonomy.categories[found.category[at]]
        choice, part = taxonomy.choices(name)[attribute], taxonomy.slices(name)[attribute]
        places, probs = blocks[name]
        probs_v = probs[places[row], part].astype(np.float64)
        probs_v[seen] = -1
        other = int(probs_v.argmax())
        odds = float(found.odds[at]) * found.prior / weights.get(choice.name, 1.0)
        yield _Doubt(
            row,
            int(found.category[at]),
            attribute,
            choice.values[found.stated[at]],
            choice.values[seen],
            float(found.p_seen[at]),
            choice.values[other] if other != seen else None,
            float(probs_v[other]) if other != seen else None,
            "answered",
            "mismatch",
            odds / (1 + odds),
        )


def _mispriced(catalog: Catalog, found: Audit) -> Iterator[_Doubt]:
    """Stated numbers far outside their range; seen is the one that a misplaced decimal explains, where one does."""
    for item in found.numbers:
        name, cells = item.number.name, catalog.texts(item.number.name)
        for finding in item.findings():
            row, fits = int(finding.row or 0) - 1, finding.evidence.get("would_fit")
            yield _Doubt(
                row,
                max(int(catalog.category[row]), 0),
                -1,
                plain_number(cells[row] or ""),
                None if fits is None else f"{fits:.10g}",
                None,
                None,
                None,
                "answered",
                "mismatch",
                float(finding.evidence["probability"]),
                name,
                finding.message,
            )


def _unsure(catalog: Catalog, answers: Answers) -> Iterator[_Doubt]:
    """Cells in which nothing is stated, and which are unsure or of an unfamiliar picture."""
    for block in answers.blocks:
        code = catalog.taxonomy.category_codes[block.category]
        stated_nA = stated_codes(catalog, block.category, block.rows)
        wanted_nA = np.isin(block.state, [STATES.index("unsure"), STATES.index("unfamiliar")]) & (
            stated_nA < 0
        )
        choices = catalog.taxonomy.choices(block.category)
        for at, attribute in np.argwhere(wanted_nA & (block.candidate >= 0)).tolist():
            names, state = (*choices[attribute].values, None), STATES[block.state[at, attribute]]
            p, second = float(block.probability[at, attribute]), float(block.second[at, attribute])
            yield _Doubt(
                int(block.rows[at]),
                code,
                attribute,
                None,
                names[block.candidate[at, attribute]],
                p,
                names[block.runner_up[at, attribute]],
                None if np.isnan(second) else second,
                state,
                cast(Reason, state),
                1 - p if state == "unsure" else max(1 - p, DOUBT),
            )


def _item(catalog: Catalog, doubt: _Doubt, supplier: str, likeness: Likeness) -> Item:
    """Return a doubt as an item, without its risk and cluster."""
    taxonomy = catalog.taxonomy
    id_, category = catalog.ids[doubt.row], taxonomy.categories[doubt.category]
    choice = None if doubt.attribute < 0 else taxonomy.choices(category)[doubt.attribute]
    attribute = doubt.number if choice is None else choice.name
    values = () if doubt.number else taxonomy.categories if choice is None else choice.values
    return Item(
        # The question whether the category is right does not depend on what it is thought to be.
        key=key_of(id_, category if attribute else "", attribute),
        id=id_,
        category=category,
        attribute=attribute,
        supplier=supplier,
        photo=catalog.images[doubt.row],
        stated=doubt.stated,
        seen=doubt.seen,
        probability=doubt.probability,
        runner_up=doubt.runner_up,
        runner_up_probability=doubt.second,
        state=doubt.state,
        reason=doubt.reason,
        risk=0.0,
        cluster="",
        look_alikes=likeness.of_row(doubt.row, attribute),
        values=values,
        not_applicable=None if choice is None else choice.not_applicable or None,
        number=bool(doubt.number),
        expected=doubt.expected,
    )


def _clustered(items: list[tuple[Item, int]], likeness: Likeness) -> list[Item]:
    """Name the clusters of items that are alike in all but the product; a cluster is called as its riskiest item."""
    found = [item for item, _ in items]
    groups: dict[tuple[str | None, ...], list[int]] = {}
    for at, item in enumerate(found):
        if item.seen is not None:
            kind = item.category, item.attribute, item.stated, item.seen, item.reason
            groups.setdefault(kind, []).append(at)
    for group in groups.values():
        for first, same in likeness.clusters([items[at][1] for at in group]).items():
            for place in same:
                found[group[place]] = replace(found[group[place]], cluster=found[group[first]].key)
    return found
