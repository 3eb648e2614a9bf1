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
from shelfwise.trust.mispriced import with_learnt


def out_of_fold(
    predictions: Predictions, catalog: Catalog, evidence: Evidence, same: npt.ArrayLike | None = None
) -> Predictions:
    """Return predictions in which products that were learnt from have their out-of-fold probabilities and numbers.

    A product was learnt from where its id and its category are in the evidence and, if ``same`` is not given,
    at least half of the values that both state agree: another table may use the same ids.

    Args:
        predictions: of the catalogue, by the model that was fitted on everything.
        catalog: the products.
        evidence: calibrated as the predictions are.
        same: bool [N], the products whose pictures are known to be those of the same id in the evidence.
    """
    check_rows(predictions.ids, catalog)
    found_N = learnt_rows(catalog, evidence, same)
    row_N = evidence_rows(catalog, evidence)
    blocks = []
    for block in predictions.blocks:
        learnt = evidence.block(block.category)
        found = found_N[block.rows] & np.isin(block.rows, catalog.rows(block.category))
        if learnt is None or not found.any():
            blocks.append(block)
            continue
        where = np.searchsorted(learnt.rows, row_N[block.rows])
        where = np.minimum(where, len(learnt.rows) - 1)
        blocks.append(replace(block, probs=np.where(found[:, None], learnt.probs[where], block.probs)))
    amounts = []
    for item in predictions.amounts:
        learnt_from = next((each for each in evidence.amounts if each.name == item.name), None)
        row_of_N = np.where(found_N, row_N, -1)
        amounts.append(item if learnt_from is None else with_learnt(item, learnt_from.amounts(), row_of_N))
    return replace(predictions, blocks=tuple(blocks), amounts=tuple(amounts))


def learnt_rows(
    catalog: Catalog, evidence: Evidence, same: npt.ArrayLike | None = None
) -> npt.NDArray[np.bool_]:
    """Return bool [N], the products that were learnt from and that the evidence has. Arguments: ``out_of_fold``."""
    row_N, found_N = evidence_rows(catalog, evidence), np.zeros(len(catalog), bool)
    for category in catalog.present:
        learnt, rows = evidence.block(category), catalog.rows(category)
        if learnt is None:
            continue
        where = np.searchsorted(learnt.rows, row_N[rows])
        where = np.minimum(where, len(learnt.rows) - 1)
        found = (row_N[rows] >= 0) & (learnt.rows[where] == row_N[rows])
        if same is not None:
            found &= np.asarray(same, bool)[rows]
        else:
            labels, stated = catalog.labels(category), learnt.labels[where]
            both = (labels >= 0) & (stated >= 0)
            found &= 2 * (both & (labels == stated)).sum(axis=1) >= both.sum(axis=1)
        found_N[rows] = found
    return found_N


def evidence_rows(catalog: Catalog, evidence: Evidence) -> npt.NDArray[np.int64]:
    """Return [N], the row of the evidence with each product's id; -1 where there is none, or several."""
    first: dict[str, int] = {}
    for row, id_ in enumerate(evidence.ids):
        first[id_] = -1 if id_ in first else row
    return np.array([first.get(id_, -1) for id_ in catalog.ids], np.int64)


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
