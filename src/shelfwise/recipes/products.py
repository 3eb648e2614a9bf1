"""Products: a catalogue as what a network learns from, and how often each product is shown.

It does not know networks or losses. Every label is a code of the network's own taxonomy.
Legend: N products, n of them, A attributes (the most of any category), V values packed, K Numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.data.batches import Products
from shelfwise.data.pixels import Pixels
from shelfwise.models.losses import class_weights
from shelfwise.models.number_heads import number_targets
from shelfwise.recipes.words import Words
from shelfwise.taxonomy import Taxonomy

Ints = npt.NDArray[np.int64]


def usable_rows(catalog: Catalog, pixels: Pixels, words: Words | None, numbers: Sequence[str]) -> Ints:
    """Return the rows with a picture, or with a text and a stated number.

    Args:
        catalog: the products.
        pixels: their pictures.
        words: how texts are read; ``None`` where they are not.
        numbers: the Numbers that are learnt.
    """
    usable_N = pixels.readable
    if words is not None and numbers:
        said_N = np.array([row is not None for row in words.rows(catalog)], np.bool_)
        stated_N = np.isfinite([catalog.numbers(name) for name in numbers]).any(axis=0)
        usable_N = usable_N | (said_N & stated_N)
    return np.flatnonzero(usable_N)


def products_of(
    catalog: Catalog,
    pixels: Pixels,
    rows: Ints,
    taxonomy: Taxonomy,
    words: Words | None,
    numbers: Sequence[str],
) -> Products:
    """Return a catalogue as Products; one without a picture has no labels of attributes.

    Args:
        catalog: the products.
        pixels: pictures.
        rows: of each product in ``pixels``.
        taxonomy: the network's: the catalogue's, or a part of it.
        words: how texts are read; ``None`` where they are not.
        numbers: the Numbers that are learnt.
    """
    names = catalog.taxonomy.categories
    codes = np.array([taxonomy.category_codes.get(name, -1) for name in names], np.int64)
    category_N = np.where(catalog.category >= 0, codes[np.maximum(catalog.category, 0)], -1)
    most = max(len(taxonomy.choices(name)) for name in taxonomy.categories)
    labels_NA = np.full((len(catalog), most), -1, np.int64)
    for name in catalog.present:
        if name in taxonomy.entries:
            labels_nA = catalog.labels(name)
            labels_NA[catalog.rows(name), : labels_nA.shape[1]] = labels_nA
    shown_N = pixels.readable[rows]
    labels_NA[~shown_N] = -1
    found = Products(
        catalog.ids, pixels, rows, category_N, labels_NA, shown=None if shown_N.all() else shown_N
    )
    if numbers:
        stated = [catalog.numbers(name) for name in numbers]
        found = replace(found, numbers=number_targets([taxonomy.number(name) for name in numbers], stated))
    return found if words is None else replace(found, texts=words.tokens(catalog))


def shown_weights(
    products: Products, taxonomy: Taxonomy, counts: Mapping[str, Ints], power: float
) -> npt.NDArray[np.float64]:
    """Return how often each product is shown: the mean weight of its labels, each attribute's mean being 1.

    Args:
        products: one without labels has the weight 1.
        taxonomy: of their labels.
        counts: per category, the labels of each packed value.
        power: of a label's weight, ``count ** -power``.
    """
    sum_N, count_N = np.zeros((2, len(products)))
    for code, category in enumerate(taxonomy.categories):
        rows = np.flatnonzero(products.category == code)
        for attribute, part in enumerate(taxonomy.slices(category)):
            label_n = products.labels[rows, attribute]
            stated = label_n >= 0
            weight_K = class_weights(counts[category][part], power)
            sum_N[rows[stated]] += weight_K[label_n[stated]]
            count_N[rows[stated]] += 1
    return np.asarray(np.where(count_N > 0, sum_N / np.maximum(count_N, 1), 1.0))
