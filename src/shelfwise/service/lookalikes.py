"""Look-alikes: which pictures of a table look alike, and which products learnt from look like them.

They do not know what is asked. A product with several photos is compared by its first one, on both sides.
Legend: N rows, k look-alikes of each, r components.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.choosing import components_of
from shelfwise.predictions import Machine
from shelfwise.service.items import LookAlike
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.learnt import learnt_rows

#: Cosine of two pictures' components from which they look alike enough to be accepted together.
ALIKE = 0.9


@dataclass(frozen=True, eq=False)
class Likeness:
    """Who looks like whom.

    Attributes:
        catalog: the table.
        components_Nr: float32, of unit length; NaN where there is no picture, no columns where no index is kept.
        positions: int64 [N, k], of products learnt from, -1 for none.
        similarity: float32 [N, k], cosine.
        ids: of the products learnt from.
        evidence: what they state.
        photos: their photos, of those that lie in the table or in the one learnt from.
        reference: the table learnt from; says what products state that the evidence does not have.
    """

    catalog: Catalog
    components_Nr: npt.NDArray[np.float32]
    positions: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]
    ids: tuple[str, ...]
    evidence: Evidence | None
    photos: Mapping[str, Path]
    reference: Catalog | None = None

    @classmethod
    def of(
        cls, bundle: Bundle, catalog: Catalog, k: int, machine: Machine, reference: Catalog | None = None
    ) -> "Likeness":
        """Compare a table's pictures with each other and with those learnt from.

        Args:
            bundle: what was learnt; without an index nothing looks alike.
            catalog: the table.
            k: how many products learnt from are named beside each.
            machine: where to compute.
            reference: the table learnt from, for its photos: a bundle keeps none.
        """
        n, index, evidence = len(catalog), bundle.index, bundle.calibrated
        positions_Nk, similarity_Nk = np.zeros((n, 0), np.int64), np.zeros((n, 0), np.float32)
        unit_Nr = components_of(bundle, catalog, machine)
        if index is None:
            return cls(catalog, unit_Nr, positions_Nk, similarity_Nk, (), evidence, {})
        if k:
            near = index.look_alikes(catalog, k, machine)
            positions_Nk, similarity_Nk = near.positions, near.similarity
        photos: dict[str, Path] = {}
        if reference is not None:
            known = set(index.ids)
            photos |= _photos(reference, [row for row, id_ in enumerate(reference.ids) if id_ in known])
        if evidence is not None:
            photos |= _photos(catalog, np.flatnonzero(learnt_rows(catalog, evidence)).tolist())
        return cls(catalog, unit_Nr, positions_Nk, similarity_Nk, index.ids, evidence, photos, reference)

    def of_row(self, row: int, attribute: str) -> tuple[LookAlike, ...]:
        """Return the products that look most like a row, with what they state of an attribute, or as category."""
        found = []
        for at, alike in zip(self.positions[row].tolist(), self.similarity[row].tolist(), strict=True):
            if at >= 0:
                id_ = self.ids[at]
                stated = self._stated(id_, attribute)
                found.append(LookAlike(id_, round(alike, 4), stated, self.photos.get(id_)))
        return tuple(found)

    def _stated(self, id_: str, attribute: str) -> str | None:
        row = self._evidence_rows.get(id_, -1)
        for item in () if self.evidence is None or row < 0 else self.evidence.amounts:
            if item.name == attribute:
                truth = item.truth[np.flatnonzero(item.rows == row)]
                return None if np.isnan(truth).all() else f"{truth[0]:.12g}"
        for block in () if self.evidence is None or row < 0 else self.evidence.blocks:
            at = int(np.searchsorted(block.rows, row))
            if at < len(block.rows) and block.rows[at] == row:
                if not attribute:
                    return block.category
                for a, choice in enumerate(self.catalog.taxonomy.choices(block.category)):
                    if choice.name == attribute and block.labels[at, a] >= 0:
                        return choice.values[int(block.labels[at, a])]
        return self._said(id_, attribute) if row < 0 else None

    def _said(self, id_: str, attribute: str) -> str | None:
        """Return what a product states in the table learnt from, of which a holdout's evidence has a part only."""
        table, row = self.reference, self._reference_rows.get(id_, -1)
        if table is None or row < 0 or table.category[row] < 0:
            return None
        category = table.taxonomy.categories[int(table.category[row])]
        if not attribute:
            return category
        if attribute in table.taxonomy.number_names:
            number = float(table.number(attribute)[row])
            return None if np.isnan(number) else f"{number:.12g}"
        if category not in self._reference_labels:
            self._reference_labels[category] = table.rows(category), table.labels(category)
        rows, labels = self._reference_labels[category]
        for a, choice in enumerate(table.taxonomy.choices(category)):
            code = int(labels[np.searchsorted(rows, row), a])
            if choice.name == attribute and code >= 0:
                return choice.values[code]
        return None

    @cached_property
    def _evidence_rows(self) -> Mapping[str, int]:
        ids = () if self.evidence is None else self.evidence.ids
        return {id_: row for row, id_ in enumerate(ids)}

    @cached_property
    def _reference_labels(self) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
        return {}

    @cached_property
    def _reference_rows(self) -> Mapping[str, int]:
        ids = () if self.reference is None else self.reference.ids
        return {id_: row for row, id_ in enumerate(ids)}

    def clusters(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """Put rows together whose pictures look alike: each belongs to the first one before it that it looks like.

        Args:
            rows: in order.

        Returns:
            By the place of a cluster's first row in ``rows``, the places of all; clusters of one are left out.
        """
        leaders: list[int] = []
        members: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            if not self.components_Nr.shape[1] or not np.isfinite(self.components_Nr[row]).all():
                continue
            like = self.components_Nr[[rows[leader] for leader in leaders]] @ self.components_Nr[row]
            first = next((leaders[at] for at in np.flatnonzero(like >= ALIKE).tolist()), place)
            if first == place:
                leaders.append(place)
            members.setdefault(first, []).append(place)
        return {first: same for first, same in members.items() if len(same) > 1}


def _photos(table: Catalog, rows: Sequence[int]) -> dict[str, Path]:
    """Return the photos of rows by id, where there are any."""
    shown = ((table.ids[row], table.images[row]) for row in rows)
    return {id_: photo for id_, photo in shown if photo is not None}
