"""Products that were learnt from: their out-of-fold probabilities, and which of them confirm a value.

It knows ids and stated values, not pictures: who looks like whom is given.
Legend: N products of a table, I training products, L look-alikes of each, k of them named.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from shelfwise.answers import check_rows
from shelfwise.catalog import Catalog
from shelfwise.predictions import Predictions
from shelfwise.trust.audit import Audit
from shelfwise.trust.evidence import Evidence


def out_of_fold(
    predictions: Predictions, catalog: Catalog, evidence: Evidence, same: npt.ArrayLike | None = None
) -> Predictions:
    """Return predictions in which products that were learnt from have their out-of-fold probabilities.

    A product was learnt from where its id and its category are in the evidence and, if ``same`` is not given,
    at least half of the values that both state agree: another table may use the same ids.

    Args:
        predictions: of the catalogue, by the model that was fitted on everything.
        catalog: the products.
        evidence: calibrated as the predictions are.
        same: bool [N], the products whose pictures are known to be those of the same id in the evidence.
    """
    check_rows(predictions.ids, catalog)
    first: dict[str, int] = {}
    for row, id_ in enumerate(evidence.ids):
        first[id_] = -1 if id_ in first else row
    known_N = np.array([first.get(id_, -1) for id_ in catalog.ids], np.int64)
    blocks = []
    for block in predictions.blocks:
        learnt = evidence.block(block.category)
        inside = np.isin(block.rows, catalog.rows(block.category))
        if learnt is None or not inside.any():
            blocks.append(block)
            continue
        where = np.searchsorted(learnt.rows, known_N[block.rows])
        where = np.minimum(where, len(learnt.rows) - 1)
        found = inside & (known_N[block.rows] >= 0) & (learnt.rows[where] == known_N[block.rows])
        if same is not None:
            found &= np.asarray(same, bool)[block.rows]
        else:
            at = np.searchsorted(catalog.rows(block.category), block.rows)
            labels = catalog.labels(block.category)[np.minimum(at, len(catalog.rows(block.category)) - 1)]
            both = (labels >= 0) & (learnt.labels[where] >= 0)
            found &= 2 * (both & (labels == learnt.labels[where])).sum(axis=1) >= both.sum(axis=1)
        blocks.append(replace(block, probs=np.where(found[:, None], learnt.probs[where], block.probs)))
    return replace(predictions, blocks=tuple(blocks))


def look_alike_ids(
    found: Audit, near: npt.ArrayLike, learnt: Sequence[str], evidence: Evidence, k: int
) -> list[list[str]]:
    """Return, for every stated value, the nearest confirmed look-alikes: at most ``k`` ids.

    A look-alike confirms where it is of the same category, states the attribute, and its own picture shows
    what it states. The product itself is left out.

    Args:
        found: the audit.
        near: int [N, L], for every row of the table positions in ``learnt``, nearest first, -1 for none.
        learnt: ids of the training products.
        evidence: of the training products.
        k: how many at most.
    """
    place = {id_: row for row, id_ in enumerate(evidence.ids)}
    row_I = np.array([place.get(id_, -1) for id_ in learnt], np.int64)
    near_NL = np.asarray(near, np.int64)
    confirmed: dict[tuple[int, int], npt.NDArray[np.bool_]] = {}
    ids: list[list[str]] = []
    for row, category, attribute in zip(
        found.row.tolist(), found.category.tolist(), found.attribute.tolist(), strict=True
    ):
        if (category, attribute) not in confirmed:
            pair = evidence.pair(found.taxonomy.categories[category], attribute)
            good = np.zeros(len(evidence) + 1, bool)
            good[pair.rows[pair.probs.argmax(axis=1) == pair.labels]] = True
            confirmed[category, attribute] = good[row_I]
        good_I = confirmed[category, attribute]
        at = near_NL[row]
        at = at[at >= 0]
        kept = [learnt[i] for i in at[good_I[at]].tolist() if learnt[i] != found.ids[row]]
        ids.append(kept[:k])
    return ids
