"""Choosing: which products to label next, so that a refit learns most from them.

It does not know who labels them. A label is worth the more, the less sure the model is of it and the fewer labels its
value has: one over their number, those counted that are expected of the products chosen before. What a product's labels
are worth together, every attribute of a category the same, is multiplied by how little its picture is like those
chosen. The best one is taken again and again; nothing is drawn at random, and the order of the rows does not matter.
Legend: N rows, n of one category, A its attributes, V their values packed, v those of one, r components.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.errors import UsageError
from shelfwise.predictions import Machine
from shelfwise.recipes.features import features
from shelfwise.tables import write_frame
from shelfwise.trust.learnt import learnt_rows

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def components_of(bundle: Bundle, catalog: Catalog, machine: Machine) -> Floats:
    """Return float32 [N, r] of unit length, what pictures are compared by; NaN where there is no readable one.

    Without columns where the bundle keeps no index of its training products.
    """
    if bundle.index is None:
        return np.zeros((len(catalog), 0), np.float32)
    found_Nr = bundle.index.space.apply(features(catalog, bundle.index.backbone, bundle.on(machine)).vectors)
    length_N = np.maximum(np.linalg.norm(found_Nr, axis=1, keepdims=True), 1e-12)
    return np.asarray(found_Nr / length_N, np.float32)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Products to label, the one that teaches most first.

    Attributes:
        catalog: the table that they are of.
        rows: int64 [k], positions in it.
        gain: float64 [k], what the labels of each were worth, given those before it.
        attribute: of each product, the one whose label is worth most.
        candidate: the likeliest value there.
        probability: float64 [k], its probability, as the model says it: not calibrated.
    """

    catalog: Catalog
    rows: Ints
    gain: npt.NDArray[np.float64]
    attribute: tuple[str, ...]
    candidate: tuple[str, ...]
    probability: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self) -> pl.DataFrame:
        """Return the rows of the table that were chosen, in order, with ``label.*`` columns that say why."""
        why: dict[str, Any] = {
            "label.rank": np.arange(1, len(self) + 1),
            "label.gain": self.gain.round(6),
            "label.attribute": pl.Series(self.attribute, dtype=pl.String),
            "label.candidate": pl.Series(self.candidate, dtype=pl.String),
            "label.probability": self.probability.round(4),
        }
        chosen: pl.DataFrame = self.catalog.frame[self.rows.tolist()]
        return chosen.with_columns(**why)

    def write(self, path: str | Path) -> None:
        """Write to ``.csv`` or ``.parquet``.

        Raises:
            UsageError: another ending.
        """
        write_frame(self.frame(), path)


@dataclass(eq=False)
class _Shelf:
    """The products of one category, in the order of their ids, and what labels would be worth there.

    Attributes:
        category: its name.
        rows: int64 [n].
        probs_nV: float64, of the cells that state nothing; 0 in the others.
        doubt_nV: float64, ``p (1 - p)`` of them, times the attribute's weight.
        labels_V: float64, how many labels each value has, the expected ones of products chosen included.
        unit_nr: float32, the pictures.
        novelty_n: float64, how little each picture is like those chosen; 0 for those themselves.
        worth_n: float64, what the labels of each are worth now.
    """

    category: str
    rows: Ints
    probs_nV: Doubles
    doubt_nV: Doubles
    labels_V: Doubles
    unit_nr: Floats
    novelty_n: Doubles
    worth_n: Doubles

    def weigh(self) -> None:
        """Work out what labels are worth."""
        self.worth_n = (self.doubt_nV @ (1 / (self.labels_V + 1))) * self.novelty_n

    def take(self, at: int) -> None:
        """Choose a product."""
        self.labels_V = self.labels_V + self.probs_nV[at]
        alike_n = np.clip(self.unit_nr @ self.unit_nr[at], 0, 1).astype(np.float64)
        self.novelty_n = np.minimum(self.novelty_n, 1 - alike_n**2)
        self.novelty_n[at] = 0
        self.weigh()


def label_next(
    bundle: Bundle,
    catalog: Catalog,
    k: int,
    *,
    weights: Mapping[str, float] | None = None,
    machine: Machine | None = None,
) -> Chosen:
    """Choose the products whose labels would teach most.

    Products that the bundle has learnt from, rows without a readable picture and cells that state a value are left
    out. With fewer products left than asked for, all of them are returned.

    Args:
        bundle: what was learnt so far.
        catalog: the products to choose from.
        k: how many.
        weights: per attribute name, what it matters; 1 where not named.
        machine: where to compute.

    Raises:
        UsageError: ``k`` is not positive.
    """
    if k < 1:
        raise UsageError(f"labels next: {k} products are asked for; ask for at least 1")
    machine, catalog = bundle.on(machine), catalog.under(bundle.schema).remembering()
    unit_Nr = components_of(bundle, catalog, machine)
    unit_Nr = unit_Nr if unit_Nr.shape[1] else np.ones((len(catalog), 1), np.float32)
    evidence = bundle.calibrated
    usable_N = np.asarray(np.isfinite(unit_Nr).all(axis=1))
    if evidence is not None:
        usable_N &= ~learnt_rows(catalog, evidence)
    shelves = _shelves(bundle, catalog, usable_N, unit_Nr, weights or {}, machine)
    chosen: list[tuple[int, float, str, str, float]] = []
    while len(chosen) < k and shelves:
        best = max(shelves, key=lambda shelf: float(shelf.worth_n.max(initial=0.0)))
        at = int(best.worth_n.argmax()) if len(best.rows) else -1
        if at < 0 or best.worth_n[at] <= 0:
            break
        chosen.append((int(best.rows[at]), float(best.worth_n[at]), *_reason(catalog, best, at)))
        best.take(at)
    row, gain, attribute, candidate, probability = (
        zip(*chosen, strict=True) if chosen else ((), (), (), (), ())
    )
    numbers = np.array(gain, np.float64), np.array(probability, np.float64)
    return Chosen(catalog, np.array(row, np.int64), numbers[0], attribute, candidate, numbers[1])


def _shelves(
    bundle: Bundle,
    catalog: Catalog,
    usable_N: npt.NDArray[np.bool_],
    unit_Nr: Floats,
    weights: Mapping[str, float],
    machine: Machine,
) -> list[_Shelf]:
    """Return the categories with what their labels are worth before any product is chosen.

    The model's own probabilities are taken: calibrated ones hide rare values, and with few labels chose worse.
    """
    evidence, found = bundle.calibrated, []
    for block in bundle.predictor.predict(catalog, machine).blocks:
        choices, slices = catalog.taxonomy.choices(block.category), catalog.taxonomy.slices(block.category)
        learnt = None if evidence is None else evidence.block(block.category)
        kept = np.flatnonzero(usable_N[block.rows]).tolist()
        kept.sort(key=lambda at: catalog.ids[block.rows[at]])
        rows, probs_nV = block.rows[kept], block.probs[kept].astype(np.float64)
        stated_nA = stated_codes(catalog, block.category, rows)
        labels_V, weight_V = np.zeros(probs_nV.shape[1]), np.zeros(probs_nV.shape[1])
        for a, (choice, part) in enumerate(zip(choices, slices, strict=True)):
            codes = np.zeros(0, np.int64) if learnt is None else learnt.labels[:, a]
            labels_V[part] = np.bincount(codes[codes >= 0], minlength=len(choice.values))
            weight_V[part] = weights.get(choice.name, 1.0) / len(choices)
            probs_nV[:, part] *= (stated_nA[:, a] < 0)[:, None]
        doubt_nV, ones_n = probs_nV * (1 - probs_nV) * weight_V, np.ones(len(rows))
        shelf = _Shelf(block.category, rows, probs_nV, doubt_nV, labels_V, unit_Nr[rows], ones_n, ones_n)
        shelf.weigh()
        found.append(shelf)
    return found


def stated_codes(catalog: Catalog, category: str, rows: Ints) -> npt.NDArray[np.int32]:
    """Return int32 [n, A], what rows state, -1 for nothing; a row whose category was guessed states nothing."""
    of_category = catalog.rows(category)
    stated_nA = np.full((len(rows), len(catalog.taxonomy.choices(category))), -1, np.int32)
    there = np.isin(rows, of_category)
    stated_nA[there] = catalog.labels(category)[np.searchsorted(of_category, rows[there])]
    return stated_nA


def _reason(catalog: Catalog, shelf: _Shelf, at: int) -> tuple[str, str, float]:
    """Return the attribute whose label is worth most, its likeliest value and the value's probability."""
    worth_V = shelf.doubt_nV[at] / (shelf.labels_V + 1)
    slices = catalog.taxonomy.slices(shelf.category)
    a = max(range(len(slices)), key=lambda each: float(worth_V[slices[each]].sum()))
    probs_v, choice = shelf.probs_nV[at, slices[a]], catalog.taxonomy.choices(shelf.category)[a]
    return choice.name, choice.values[int(probs_v.argmax())], float(probs_v.max())
