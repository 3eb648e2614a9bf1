"""Audit: every stated value beside what the picture shows, the likeliest errors first.

It knows neither pictures nor models: calibrated probabilities in, a ranking out. Values stated in words are
judged like those in cells, as far as the words were read rightly.
Legend: M stated values, N products, n of one category, A its attributes, k look-alikes, I training products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shelfwise.answers import check_rows
from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.errors import PredictionError, TaxonomyError, listing, suggest
from shelfwise.predictions import Block, Predictions
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.claims import Claims
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.noise import (
    Chances,
    chances_of,
    denied_chances,
    fit_noise,
    likeness,
    read_from_text,
    tempered,
)
from shelfwise.trust.suspects import COLUMNS, SUSPECT, Audit

__all__ = ["COLUMNS", "SUSPECT", "Audit", "audit"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Part:
    """Stated values of one (category, attribute) from cells, or from texts."""

    category: int
    attribute: int
    row: Ints
    column: Ints
    stated: Ints
    seen: Ints
    negated: npt.NDArray[np.bool_]
    p_stated: Floats
    p_seen: Floats
    chances: Chances


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of an attribute: how alike its values are, and the labels that were learnt from."""

    alike: Floats
    labels: npt.NDArray[np.int32]


def _known(
    probs: npt.NDArray[np.float32], labels_nA: npt.NDArray[np.int32], slices: Sequence[slice]
) -> list[_Known]:
    return [_Known(likeness(probs[:, part]), labels_nA[:, a]) for a, part in enumerate(slices)]


def _chances(probs: Floats, stated: Ints, known: _Known) -> Chances:
    return chances_of(tempered(probs, known.labels), stated, known.alike)


def audit(
    predictions: Predictions,
    catalog: Catalog,
    *,
    claims: Claims | None = None,
    weights: Mapping[str, float] | None = None,
    reference: Evidence | None = None,
) -> Audit:
    """Judge every stated value of a catalogue by its picture.

    A value is ranked by the odds against it: how probable it is if somebody slipped or mixed two values up,
    against how probable it is if it is right; how often either happens is estimated from the table itself, for
    cells and texts apart.

    Args:
        predictions: calibrated, and out of fold for products that were learnt from (``learnt.out_of_fold``).
        catalog: the same rows, with what they state.
        claims: what their texts state.
        weights: per attribute name, what an error there weighs; 1 where not named.
        reference: calibrated evidence of the products that were learnt from: tells which values are alike and
            how many labels were learnt from; by default the table's own.

    Raises:
        PredictionError: other rows or another taxonomy than the catalogue's.
        TaxonomyError: a weight for an attribute that no category has, or one that is not above zero.
    """
    check_rows(predictions.ids, catalog)
    if predictions.taxonomy.hash != catalog.taxonomy.hash:
        raise PredictionError("the predictions are of another taxonomy than the catalogue")
    if claims is not None:
        check_rows(claims.ids, catalog)
    roles = catalog.schema.roles
    _check_weights(weights or {}, catalog.taxonomy)
    cells: list[_Part] = []
    words: list[_Part] = []
    said = _by_category(claims, catalog)
    judged = np.zeros(len(catalog), bool)
    for block in predictions.blocks:
        judged[block.rows] = True
        of_category = catalog.rows(block.category)
        inside = np.isin(block.rows, of_category)
        columns = label_columns(catalog.taxonomy, block.category, roles, catalog.layout)
        kept = Block(block.category, block.rows[inside], block.probs[inside])
        labels_nA = catalog.labels(block.category)[np.searchsorted(of_category, kept.rows)]
        learnt = None if reference is None else reference.block(block.category)
        known_A = _known(
            block.probs if learnt is None else learnt.probs,
            labels_nA if learnt is None else learnt.labels,
            catalog.taxonomy.slices(block.category),
        )
        cells += _cells(catalog.taxonomy, kept, labels_nA, columns, known_A)
        if claims is not None and block.category in said:
            mine = said[block.category]
            mine = mine[np.isin(claims.row[mine], kept.rows)]
            words += _words(catalog.taxonomy, kept, claims, mine, len(roles.choices), known_A)
    names = (*roles.choices, *(claims.columns if claims is not None else ()))
    unseen = int((~judged & (catalog.codes >= 0).any(axis=1)).sum())
    return _ranked(catalog.taxonomy, catalog.ids, names, cells, words, weights or {}, unseen)


def _by_category(claims: Claims | None, catalog: Catalog) -> dict[str, Ints]:
    """Return, per category, the positions of the claims about its products."""
    if claims is None or not len(claims):
        return {}
    code = catalog.category[claims.row].astype(np.int64)
    order = np.argsort(code, kind="stable")
    values, starts = np.unique(code[order], return_index=True)
    names = catalog.taxonomy.categories
    parts = zip(values.tolist(), np.split(order, starts[1:]), strict=True)
    return {names[value]: part for value, part in parts if value >= 0}


def _check_weights(weights: Mapping[str, float], taxonomy: Taxonomy) -> None:
    known = {choice.name for _, choice in taxonomy.pairs()}
    for name, weight in weights.items():
        if name not in known:
            hint = suggest(name, sorted(known)) or f"There are: {listing(sorted(known))}."
            raise TaxonomyError(f"a weight is given for {name!r}, which no category has. {hint}")
        if not (weight > 0 and np.isfinite(weight)):
            raise TaxonomyError(f"the weight of {name!r} is {weight}; a weight is a number above zero")


def _cells(
    taxonomy: Taxonomy,
    block: Block,
    labels_nA: npt.NDArray[np.int32],
    columns: Sequence[int],
    known_A: list[_Known],
) -> list[_Part]:
    parts = []
    code = taxonomy.category_codes[block.category]
    for attribute, where in enumerate(taxonomy.slices(block.category)):
        known = np.flatnonzero(labels_nA[:, attribute] >= 0)
        if not len(known):
            continue
        probs = np.asarray(block.probs[known, where], np.float64)
        stated = labels_nA[known, attribute].astype(np.int64)
        column = np.full(len(known), columns[attribute], np.int64)
        denied = np.zeros(len(known), bool)
        chances = _chances(probs, stated, known_A[attribute])
        parts.append(_part(code, attribute, block.rows[known], column, stated, denied, probs, chances))
    return parts


def _part(
    category: int,
    attribute: int,
    row: Ints,
    column: Ints,
    stated: Ints,
    negated: npt.NDArray[np.bool_],
    probs: Floats,
    chances: Chances,
) -> _Part:
    at = np.arange(len(row))
    p_stated = np.where(negated, 1 - probs[at, stated], probs[at, stated])
    seen = probs.argmax(axis=1)
    return _Part(category, attribute, row, column, stated, seen, negated, p_stated, probs[at, seen], chances)


def _words(
    taxonomy: Taxonomy, block: Block, claims: Claims, mine: Ints, offset: int, known_A: list[_Known]
) -> list[_Part]:
    """Return the claims at the positions ``mine``; a misreading says any value as often as the texts do."""
    parts = []
    code = taxonomy.category_codes[block.category]
    for attribute, where in enumerate(taxonomy.slices(block.category)):
        said = mine[claims.attribute[mine] == attribute]
        if not len(said):
            continue
        probs = np.asarray(block.probs[np.searchsorted(block.rows, claims.row[said]), where], np.float64)
        stated, negated = claims.code[said], claims.negated[said]
        found = _chances(probs, stated, known_A[attribute])
        if negated.any():
            denied = denied_chances(tempered(probs, known_A[attribute].labels), stated)
            found = Chances(
                *(
                    np.where(negated, getattr(denied, name), getattr(found, name))
                    for name in ("right", "slip", "mix_up", "misread", "trust")
                )
            )
        counts = np.bincount(stated, minlength=probs.shape[1]) + 1.0
        misread = np.where(negated, 1.0, (counts / counts.sum())[stated])
        found = read_from_text(found, claims.precision[said], misread)
        column = claims.column[said] + offset
        parts.append(_part(code, attribute, claims.row[said], column, stated, negated, probs, found))
    return parts


def _ranked(
    taxonomy: Taxonomy,
    ids: tuple[str, ...],
    columns: tuple[str, ...],
    cells: list[_Part],
    words: list[_Part],
    weights: Mapping[str, float],
    unseen: int,
) -> Audit:
    """Estimate the noise, and sort all stated values by their odds, equal ones by row."""
    noises = [fit_noise(part.chances for part in parts) for parts in (cells, words)]
    counts = [sum(len(part.row) for part in parts) for parts in (cells, words)]
    wrong = sum(noise.share * n for noise, n in zip(noises, counts, strict=True)) / max(sum(counts), 1)
    prior = (wrong or noises[0].share) / (1 - wrong)
    odds = []
    for noise, parts in zip(noises, (cells, words), strict=True):
        for part in parts:
            name = taxonomy.choices(taxonomy.categories[part.category])[part.attribute].name
            odds.append(noise.odds(part.chances) / prior * weights.get(name, 1.0))
    parts = [*cells, *words]
    odds_M = np.concatenate([np.zeros(0), *odds])
    of_part = np.repeat(np.arange(len(parts)), [len(part.row) for part in parts])
    joined = {
        name: np.concatenate([np.zeros(0, kind), *(getattr(part, name) for part in parts)])
        for name, kind in (
            ("row", np.int64),
            ("column", np.int64),
            ("stated", np.int64),
            ("seen", np.int64),
            ("negated", np.bool_),
            ("p_stated", np.float64),
            ("p_seen", np.float64),
        )
    }
    category = np.array([part.category for part in parts], np.int64)[of_part]
    attribute = np.array([part.attribute for part in parts], np.int64)[of_part]
    order = np.lexsort((joined["column"], attribute, joined["row"], -odds_M))
    return Audit(
        taxonomy,
        ids,
        columns,
        joined["row"][order],
        category[order],
        attribute[order],
        joined["column"][order],
        joined["stated"][order],
        joined["seen"][order],
        joined["negated"][order],
        (of_part >= len(cells))[order],
        joined["p_stated"][order],
        joined["p_seen"][order],
        odds_M[order],
        prior,
        noises[0],
        noises[1],
        unseen=unseen,
    )
