"""Fingerprint: what products look like to a bundle: what is answered, how surely, and where their pictures lie.

It does not know what differs between two of them. That of the products learnt from is made of the bundle's own evidence
and index; nothing is kept for it alone. Legend: N products answered, M products with a picture, n of one category,
V values packed, Q quantile levels, r components.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError
from shelfwise.predictions import Machine
from shelfwise.recipes.index import TrainingIndex
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.learnt import out_of_fold

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
#: A picture is called strange where its p-value is at most this; of those learnt from as many are.
STRANGE = 0.05


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Products as a bundle sees them.

    Attributes:
        taxonomy: categories, attributes, values.
        ids: of the products answered.
        category: int64 [N], the category they are answered under; -1 for none.
        group: int64 [N], near-duplicate groups.
        blocks: by category the rows, ascending, and their calibrated probabilities [n, V].
        amounts: by Number the rows and calibrated quantiles [n, Q].
        pictured: the ids of the products with a picture.
        seen_category, seen_group: int64 [M].
        direction: float32 [M, r], unit vectors.
        strange: float64 [M], 1 where the picture is unlike its category's, else 0; NaN where it cannot be said.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    category: Ints
    group: Ints
    blocks: Mapping[str, tuple[Ints, Floats]]
    amounts: Mapping[str, tuple[Ints, Floats]]
    pictured: tuple[str, ...]
    seen_category: Ints
    seen_group: Ints
    direction: Floats
    strange: npt.NDArray[np.float64]


def learnt_from(bundle: Bundle) -> Fingerprint:
    """Return the fingerprint of the products a bundle learnt from, each answered out of fold.

    Raises:
        BundleError: the bundle keeps no evidence or no index.
    """
    evidence, index = _kept(bundle)
    category_N = np.full(len(evidence), -1, np.int64)
    for block in evidence.blocks:
        category_N[block.rows] = bundle.taxonomy.category_codes[block.category]
    for item in evidence.amounts:
        category_N[item.rows] = item.category
    return Fingerprint(
        bundle.taxonomy,
        evidence.ids,
        category_N,
        evidence.group,
        {block.category: (block.rows, block.probs) for block in evidence.blocks},
        {item.name: (item.rows, item.quantiles) for item in evidence.amounts},
        index.ids,
        index.category.astype(np.int64),
        index.group,
        index.directions_kept,
        _strange(index.familiarity_of_training().p_familiar),
    )


def of_table(
    bundle: Bundle, catalog: Catalog, groups: Ints, machine: Machine
) -> tuple[Fingerprint, npt.NDArray[np.bool_]]:
    """Return the fingerprint of a table, and which of its products were learnt from.

    A product that was learnt from, same id and same picture, has its out-of-fold answers: those of the model that has
    seen it are surer than any later product's could be.

    Raises:
        BundleError: as ``learnt_from``.
    """
    evidence, index = _kept(bundle)
    predictions = bundle.predict(catalog, machine)
    direction_Nr, own_N = index.places(catalog, bundle.on(machine))
    predictions = out_of_fold(predictions, catalog, evidence, same=own_N >= 0)
    category_N = predictions.categories().astype(np.int64)
    for item in predictions.amounts:
        bare_n = category_N[item.rows] < 0
        category_N[item.rows[bare_n]] = np.maximum(catalog.category[item.rows[bare_n]], -1)
    seen = np.flatnonzero(np.isfinite(direction_Nr).all(axis=1))
    familiar = predictions.familiarity
    strange_N = np.full(len(catalog), np.nan) if familiar is None else _strange(familiar.p_familiar)
    made = Fingerprint(
        bundle.taxonomy,
        catalog.ids,
        category_N,
        groups,
        {block.category: (block.rows, block.probs) for block in predictions.blocks},
        {item.name: (item.rows, item.quantiles) for item in predictions.amounts},
        tuple(catalog.ids[row] for row in seen.tolist()),
        category_N[seen],
        groups[seen],
        direction_Nr[seen],
        strange_N[seen],
    )
    return made, own_N >= 0


def _kept(bundle: Bundle) -> tuple[Evidence, TrainingIndex]:
    """What a bundle keeps of the products it learnt from."""
    if bundle.calibrated is None or bundle.index is None:
        raise BundleError(
            "this bundle keeps no evidence of its training products to compare with; fit it again"
        )
    return bundle.calibrated, bundle.index


def _strange(p_N: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.where(np.isnan(p_N), np.nan, (p_N <= STRANGE).astype(np.float64))
