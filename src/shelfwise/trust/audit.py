"""Audit: every stated value beside what the picture shows, the likeliest errors first.

It knows neither pictures nor models: calibrated probabilities in, a ranking out. Values stated in words are
judged like those in cells, as far as the words were read rightly.
Legend: M stated values, N products, n of one category, A its attributes, k look-alikes, I training products.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.answers import check_rows
from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.errors import PredictionError, TaxonomyError, listing, suggest
from shelfwise.findings import Finding, Findings
from shelfwise.predictions import Block, Predictions
from shelfwise.tables import write_frame
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.claims import Claims
from shelfwise.trust.evidence import Evidence
from shelfwise.trust.noise import (
    Chances,
    Noise,
    chances_of,
    denied_chances,
    fit_noise,
    likeness,
    read_from_text,
)

COLUMNS = (
    "id",
    "category",
    "attribute",
    "column",
    "stated",
    "seen",
    "p_stated",
    "p_seen",
    "odds",
    "evidence",
)
#: Odds of being wrong from which a value is a suspect. The estimate is cautious, as a model that learns from
#: wrong values allows for them: of such suspects 48 to 67 % were errors planted for a test.
SUSPECT = 0.1
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Audit:
    """Stated values and what the pictures show, most suspicious first.

    Attributes:
        taxonomy: what the codes mean.
        ids: of the table's products.
        columns: the table's columns that state values, texts included.
        row: int64 [M], position in the table.
        category: int64 [M], code.
        attribute: int64 [M], position among the category's Choice attributes.
        column: int64 [M], position in ``columns``.
        stated, seen: int64 [M], codes; ``seen`` is the most probable value.
        negated: bool [M], a text denies the value.
        in_words: bool [M], the value was read from text.
        p_stated, p_seen: float64 [M], calibrated probabilities of what is stated and of what is seen.
        odds: float64 [M], how many times more probable what is stated is if it is wrong than if it is
            right, times the attribute's weight.
        cells: shares of wrong values that were estimated in cells.
        words: the same in texts.
        evidence: ids of look-alikes, empty where none were asked for.
        unseen: rows without a readable picture or a known category, whose values are not judged.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    columns: tuple[str, ...]
    row: Ints
    category: Ints
    attribute: Ints
    column: Ints
    stated: Ints
    seen: Ints
    negated: npt.NDArray[np.bool_]
    in_words: npt.NDArray[np.bool_]
    p_stated: Floats
    p_seen: Floats
    odds: Floats
    cells: Noise
    words: Noise
    evidence: tuple[tuple[str, ...], ...] = ()
    unseen: int = 0

    def __len__(self) -> int:
        return len(self.row)

    @property
    def suspect(self) -> npt.NDArray[np.bool_]:
        """Bool [M], values that should be looked at: the odds that they are wrong are at least ``SUSPECT``."""
        prior = np.where(self.in_words, self.words.prior, self.cells.prior)
        return np.asarray(self.odds * prior >= SUSPECT)

    @property
    def suspects(self) -> int:
        """How many values are suspects."""
        return int(self.suspect.sum())

    def frame(self) -> pl.DataFrame:
        """Return one row per stated value, see ``COLUMNS``."""
        names = self.taxonomy.categories
        choices = [self.taxonomy.choices(name) for name in names]
        codes = zip(
            self.category.tolist(),
            self.attribute.tolist(),
            self.stated.tolist(),
            self.seen.tolist(),
            self.negated.tolist(),
            strict=True,
        )
        texts = []
        for category, attribute, stated, seen, negated in codes:
            choice = choices[category][attribute]
            said = f"not {choice.values[stated]}" if negated else choice.values[stated]
            texts.append((names[category], choice.name, said, choice.values[seen]))
        category_M, attribute_M, stated_M, seen_M = zip(*texts, strict=True) if texts else ((), (), (), ())
        evidence = [";".join(ids) for ids in self.evidence] if self.evidence else [""] * len(self)
        return pl.DataFrame(
            {
                "id": pl.Series([self.ids[row] for row in self.row.tolist()], dtype=pl.String),
                "category": pl.Series(category_M, dtype=pl.String),
                "attribute": pl.Series(attribute_M, dtype=pl.String),
                "column": pl.Series([self.columns[at] for at in self.column.tolist()], dtype=pl.String),
                "stated": pl.Series(stated_M, dtype=pl.String),
                "seen": pl.Series(seen_M, dtype=pl.String),
                "p_stated": self.p_stated,
                "p_seen": self.p_seen,
                "odds": self.odds,
                "evidence": pl.Series(evidence, dtype=pl.String),
            }
        )

    def write(self, path: str | Path) -> None:
        """Write to ``.csv`` or ``.parquet``, whole or not at all.

        Raises:
            UsageError: another ending.
        """
        write_frame(self.frame(), path, escape=("column",))

    def findings(self) -> Findings:
        """Return the suspects as findings of the kinds ``suspect_label`` and, in words, ``suspect_claim``."""
        found = []
        for at in np.flatnonzero(self.suspect).tolist():
            choice = self.taxonomy.choices(self.taxonomy.categories[self.category[at]])[self.attribute[at]]
            said = ("not " if self.negated[at] else "") + choice.values[self.stated[at]]
            seen, id_ = choice.values[self.seen[at]], self.ids[self.row[at]]
            message = (
                f"{choice.name} is stated to be {said!r}, and the picture looks like {seen!r} "
                f"({self.p_seen[at]:.3f} against {self.p_stated[at]:.3g})"
            )
            evidence = {
                "attribute": choice.name,
                "stated": said,
                "seen": seen,
                "p_stated": round(float(self.p_stated[at]), 6),
                "p_seen": round(float(self.p_seen[at]), 6),
                "odds": round(float(self.odds[at]), 4),
                "look_alikes": list(self.evidence[at]) if self.evidence else [],
            }
            where = int(self.row[at]) + 1, id_, self.columns[self.column[at]]
            if self.in_words[at]:
                found.append(Finding("suspect_claim", message, *where, "warning", evidence))
            else:
                found.append(Finding("suspect_label", message, *where, "warning", evidence))
        return Findings(tuple(found))

    def with_evidence(self, ids: Sequence[Sequence[str]]) -> "Audit":
        """Return the same audit with look-alikes, a sequence of ids for every stated value.

        Raises:
            PredictionError: another number of them.
        """
        if len(ids) != len(self):
            raise PredictionError(f"look-alikes of {len(ids)} stated values, the audit has {len(self)}")
        return replace(self, evidence=tuple(map(tuple, ids)))


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


def audit(
    predictions: Predictions,
    catalog: Catalog,
    *,
    claims: Claims | None = None,
    weights: Mapping[str, float] | None = None,
    reference: Predictions | None = None,
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
        reference: of many other products, to tell which values are alike; by default ``predictions``.

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
        known = block if reference is None else reference.block(block.category) or block
        alike_A = [likeness(known.probs[:, part]) for part in catalog.taxonomy.slices(block.category)]
        columns = label_columns(catalog.taxonomy, block.category, roles, catalog.layout)
        kept = Block(block.category, block.rows[inside], block.probs[inside])
        labels_nA = catalog.labels(block.category)[np.searchsorted(of_category, kept.rows)]
        cells += _cells(catalog.taxonomy, kept, labels_nA, columns, alike_A)
        if claims is not None and block.category in said:
            mine = said[block.category]
            mine = mine[np.isin(claims.row[mine], kept.rows)]
            words += _words(catalog.taxonomy, kept, claims, mine, len(roles.choices), alike_A)
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


def audit_evidence(
    evidence: Evidence, columns: Sequence[str] | None = None, weights: Mapping[str, float] | None = None
) -> Audit:
    """Judge the labels that were learnt from by out-of-fold probabilities.

    Args:
        evidence: calibrated out of fold.
        columns: the training table's label columns by position, as in challenge layout; by default an
            attribute's own name.
        weights: as in ``audit``.
    """
    taxonomy = evidence.taxonomy
    _check_weights(weights or {}, taxonomy)
    names = (
        tuple(columns) if columns is not None else tuple(dict.fromkeys(c.name for _, c in taxonomy.pairs()))
    )
    parts: list[_Part] = []
    for block in evidence.blocks:
        choices = taxonomy.choices(block.category)
        at = list(range(len(choices))) if columns is not None else [names.index(c.name) for c in choices]
        alike_A = [likeness(block.probs[:, part]) for part in taxonomy.slices(block.category)]
        parts += _cells(taxonomy, Block(block.category, block.rows, block.probs), block.labels, at, alike_A)
    return _ranked(taxonomy, evidence.ids, names, parts, [], weights or {}, 0)


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
    alike_A: list[Floats],
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
        chances = chances_of(probs, stated, alike_A[attribute])
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
    taxonomy: Taxonomy, block: Block, claims: Claims, mine: Ints, offset: int, alike_A: list[Floats]
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
        found = chances_of(probs, stated, alike_A[attribute])
        if negated.any():
            denied = denied_chances(probs, stated)
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
    odds = []
    for noise, parts in zip(noises, (cells, words), strict=True):
        for part in parts:
            name = taxonomy.choices(taxonomy.categories[part.category])[part.attribute].name
            odds.append(noise.odds(part.chances) * weights.get(name, 1.0))
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
        noises[0],
        noises[1],
        unseen=unseen,
    )
