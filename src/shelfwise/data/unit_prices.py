"""Unit prices: what 100 g, 100 ml, a metre or a piece costs, where a listing says how much a product is.

It does not know how a price was found.
Legend: n rows that have the Number.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from shelfwise.amounts import AmountAnswers
from shelfwise.catalog import Catalog
from shelfwise.roles import NUMBER_NAMES

if TYPE_CHECKING:
    from shelfwise.data.text import Listing

#: By base unit of a listing's quantity: how much of it a unit price is of, and how that is said.
PER = {
    "g": (100.0, "100 g"),
    "ml": (100.0, "100 ml"),
    "cm": (100.0, "1 m"),
    "cm2": (10_000.0, "1 m2"),
    "count": (1.0, "1 piece"),
}


def with_unit_prices(amounts: Sequence[AmountAnswers], catalog: Catalog) -> tuple[AmountAnswers, ...]:
    """Return answers in which prices have a unit price where the product's text says its quantity.

    Args:
        amounts: one per Number; those whose name is not that of a price stay as they are.
        catalog: the products, with their texts.
    """
    prices = [item for item in amounts if item.name.strip().casefold() in NUMBER_NAMES]
    if not prices or not catalog.text_columns:
        return tuple(amounts)
    from shelfwise.data.text import read_listings

    listings = read_listings(catalog)
    return tuple(
        _with_unit_price(item, [listings[row] for row in item.rows.tolist()]) if item in prices else item
        for item in amounts
    )


def _with_unit_price(item: AmountAnswers, listings: "Sequence[Listing]") -> AmountAnswers:
    price_n, unit = np.full(len(item.rows), np.nan), [""] * len(item.rows)
    for at, listing in enumerate(listings):
        much, said = PER.get(listing.unit, (0.0, ""))
        if said and listing.value > 0 and np.isfinite(item.value[at]):
            price_n[at], unit[at] = item.value[at] * much / listing.value, said
    return replace(item, unit_price=price_n, unit=tuple(unit))
