"""Treatments: what is done to training rows before a recipe learns from them.

They see the rows a recipe is given to learn from and nothing else, so inside a cross-fit they know nothing of the rows
that are predicted; what is scored are always the labels as stated. Nothing is drawn: the same rows in any order are
treated alike. Legend: N rows, n of one category, D features, A attributes, V values packed, k neighbours, K looked at.

| treatment | what it does |
|---|---|
| correction | a label that its nearest rows, near-duplicates of the row aside, outvote clearly becomes theirs |
| imputation | an empty label becomes the attribute's most frequent value, that of the nearest rows, or a probe's |
| upsampling | rows with rare values are repeated (repeat factors: Gupta et al. 2019, LVIS) |
| bad photos | every row comes once more, with a spoilt copy of its photo |
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.config import BackboneSpec, Options
from shelfwise.data.bad_photos import bad_photos
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.findings import Finding, Findings
from shelfwise.predictions import Machine
from shelfwise.recipes.features import features
from shelfwise.recipes.probe import Probe
from shelfwise.registry import REGISTRIES

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
#: Rows looked at first, as a multiple of k; and how much deeper each time, where too few of them have a label.
SPARE, DEEPER = 2, 4


class Treatments(Options):
    """What is done to training labels; by default nothing.

    Attributes:
        correct: replace labels that their neighbours outvote.
        impute: fill empty labels: ``none``, ``mode`` (the attribute's most frequent value), ``similar`` (the
            nearest rows' vote) or ``model`` (a probe learnt from the other rows).
        k: neighbours that vote.
        agreement: share of the neighbours that corrects a label.
        sure: share of the votes, or probability of the probe, from which an empty label is filled.
        upsample: power of the repeat factors: 0 none; 1 repeats rows until rare values are as frequent as all
            values would be on average.
        copies: rows that one row may become.
        bad_photos: learn from a spoilt copy of each photo as well: dark, tinted, blurred, compressed or noisy. With
            the default probe on the fashion catalogue (grouped holdout) the score on photos as they are did not move,
            +0.004 [-0.017, +0.022]; on dark ones it rose by 0.15, on blurred ones by 0.11, and a promise of 0.9 kept
            0.90 and 0.87 where it had kept 0.72 and 0.71. Embedding and fitting cost twice as much.
        backbone: of the neighbours and the probe.
    """

    correct: bool = False
    impute: Literal["none", "mode", "similar", "model"] = "none"
    k: int = Field(default=15, ge=1)
    agreement: float = Field(default=0.8, gt=0.5, le=1)
    sure: float = Field(default=0.8, ge=0, le=1)
    upsample: float = Field(default=0.0, ge=0, le=1)
    copies: int = Field(default=5, ge=1)
    bad_photos: bool = False
    backbone: BackboneSpec = Field(
        default_factory=lambda: REGISTRIES["backbone"].spec("lite0"), validate_default=True
    )


def treat(train: Catalog, options: Treatments, machine: Machine, groups: Ints | None = None) -> Catalog:
    """Return training rows with treated labels; findings say how many cells changed, by attribute.

    Labels are corrected first, then imputed, then rows repeated, then copied with spoilt photos. Corrections all come
    from the labels as stated.

    Args:
        train: the rows to learn from, and no others.
        options: what to do.
        machine: where to compute.
        groups: int64 [N], near-duplicate groups; found if they are needed and left out.
    """
    codes_NJ = train.codes
    findings: list[Finding] = []
    if options.correct:
        if groups is None:
            groups = near_duplicates(
                train, cache=cache_directory(machine.cache), jobs=machine.jobs, progress=machine.progress
            )
        codes_NJ = _written(train, _corrected(train, options, machine, groups))
        findings += _counted(train, codes_NJ, "corrected")
    if options.impute != "none":
        before = replace(train, codes=codes_NJ)
        codes_NJ = _written(before, _imputed(before, options, machine))
        findings += _counted(before, codes_NJ, "filled")
    treated = replace(train, codes=codes_NJ, findings=Findings(tuple(findings)))
    treated = _upsampled(treated, options) if options.upsample else treated
    return _with_bad_photos(treated, machine) if options.bad_photos else treated


def _written(train: Catalog, labels: Mapping[str, Codes]) -> Codes:
    """The catalogue's codes [N, J] with the labels [n, A] of its categories put in."""
    codes_NJ = train.codes.copy()
    for category, labels_nA in labels.items():
        positions = label_columns(train.taxonomy, category, train.schema.roles, train.layout)
        rows, old_nA = train.rows(category), train.labels(category)
        for attribute, column in enumerate(positions):
            changed = np.flatnonzero(labels_nA[:, attribute] != old_nA[:, attribute])
            if column >= 0:
                codes_NJ[rows[changed], column] = labels_nA[changed, attribute]
    return codes_NJ


def _counted(train: Catalog, codes_NJ: Codes, what: str) -> Iterator[Finding]:
    """One finding for every attribute whose labels changed."""
    after = replace(train, codes=codes_NJ)
    for category in train.present:
        changed_A = (after.labels(category) != train.labels(category)).sum(axis=0)
        for choice, count in zip(train.taxonomy.choices(category), changed_A.tolist(), strict=True):
            if count:
                name = f"{category}/{choice.name}"
                message = f"{name}: {count} training labels {what}"
                yield Finding("treated_labels", message, severity="note", evidence={"cells": count})


@dataclass(frozen=True, eq=False)
class _Near:
    """A category's rows with a readable picture, in the order of their ids, ready to be searched.

    Attributes:
        rows: int64 [n], their places among the category's rows.
        vectors: float32 [n, D], standardised and of length 1.
        labels: int32 [n, A].
        group: int64 [n], near-duplicate group; all different where groups do not count.
        depth: K.
    """

    rows: Ints
    vectors: Floats
    labels: Codes
    group: Ints
    depth: int

    @cached_property
    def first(self) -> Ints:
        """The rows nearest to each row [n, K], found once for all attributes."""
        from shelfwise.models.nearest import Index

        return Index(self.vectors).search(self.vectors, self.depth)[0]

    def votes(self, attribute: int, size: int, asked: Ints, k: int) -> tuple[Codes, npt.NDArray[np.float64]]:
        """The winning value of each asked row's k nearest labelled rows of other groups, and its share.

        Value -1 and share 0 where fewer than half of k have a label.
        """
        from shelfwise.models.nearest import Index

        label_n = self.labels[:, attribute]
        labelled = np.flatnonzero(label_n >= 0)
        value_q, share_q = np.full(len(asked), -1, np.int32), np.zeros(len(asked))
        if not len(labelled):
            return value_q, share_q
        open_q, depth = np.arange(len(asked)), self.depth
        near_qK = self.first[asked]
        index: Index | None = None
        while len(open_q):
            voting_qK = label_n[near_qK] >= 0
            voting_qK &= self.group[near_qK] != self.group[asked[open_q]][:, None]
            voting_qK &= np.cumsum(voting_qK, axis=1) <= k
            row, column = np.nonzero(voting_qK)
            count_qv = np.zeros((len(open_q), size))
            np.add.at(count_qv, (row, label_n[near_qK[row, column]]), 1)
            total_q = count_qv.sum(axis=1)
            kept = total_q >= k / 2
            value_q[open_q[kept]] = count_qv[kept].argmax(axis=1)
            share_q[open_q[kept]] = count_qv[kept].max(axis=1, initial=0) / total_q[kept]
            # Rows that found too few are searched among labelled ones only, deeper each time.
            if index is not None and depth >= len(labelled):
                break
            depth = depth * DEEPER if index is not None else depth
            index = index or Index(self.vectors[labelled])
            open_q = open_q[total_q < k]
            near_qK = labelled[index.search(self.vectors[asked[open_q]], depth)[0]]
        return value_q, share_q


def _near(train: Catalog, options: Treatments, machine: Machine, groups: Ints) -> dict[str, _Near]:
    """The rows of every category, ready to be searched."""
    vectors_ND = features(train, options.backbone, machine).vectors
    ready = np.isfinite(vectors_ND).all(axis=1) & (train.category >= 0)
    # Sums in the order of the ids, so that the order of the table changes nothing.
    order = np.array(sorted(np.flatnonzero(ready).tolist(), key=lambda i: (train.ids[i], i)), np.int64)
    if not len(order):
        return {}
    centre_D = vectors_ND[order].mean(axis=0)
    scale_D = np.maximum(vectors_ND[order].std(axis=0), 1e-6)
    place_N = np.full(len(train), -1, np.int64)
    place_N[order] = np.arange(len(order))
    found = {}
    for category in train.present:
        place_n = place_N[train.rows(category)]
        rows = np.flatnonzero(place_n >= 0)
        rows = rows[np.argsort(place_n[rows])]
        scaled_nD = (vectors_ND[train.rows(category)[rows]] - centre_D) / scale_D
        length_n1 = np.maximum(np.linalg.norm(scaled_nD, axis=1, keepdims=True), 1e-12)
        unit_nD = (scaled_nD / length_n1).astype(np.float32)
        group_n = groups[train.rows(category)[rows]]
        found[category] = _Near(rows, unit_nD, train.labels(category)[rows], group_n, SPARE * options.k)
    return found


def _corrected(train: Catalog, options: Treatments, machine: Machine, groups: Ints) -> dict[str, Codes]:
    """Labels [n, A] of every category, those replaced that their neighbours outvote."""
    labels = {}
    for category, near in _near(train, options, machine, groups).items():
        labels_nA = train.labels(category).copy()
        for attribute, part in enumerate(train.taxonomy.slices(category)):
            stated = np.flatnonzero(near.labels[:, attribute] >= 0)
            value_q, share_q = near.votes(attribute, part.stop - part.start, stated, options.k)
            sure = stated[share_q >= options.agreement]
            labels_nA[near.rows[sure], attribute] = value_q[share_q >= options.agreement]
        labels[category] = labels_nA
    return labels


def _imputed(train: Catalog, options: Treatments, machine: Machine) -> dict[str, Codes]:
    """Labels [n, A] of every category, empty ones filled."""
    if options.impute == "model":
        return _by_model(train, options, machine)
    labels = {category: train.labels(category).copy() for category in train.present}
    alone = np.arange(len(train), dtype=np.int64)
    near = _near(train, options, machine, alone) if options.impute == "similar" else {}
    for category, labels_nA in labels.items():
        for attribute, part in enumerate(train.taxonomy.slices(category)):
            stated = labels_nA[labels_nA[:, attribute] >= 0, attribute]
            empty = labels_nA[:, attribute] < 0
            if not len(stated):
                continue
            if options.impute == "mode":
                labels_nA[empty, attribute] = np.bincount(stated).argmax()
            elif category in near:
                here = near[category]
                asked = np.flatnonzero(here.labels[:, attribute] < 0)
                value_q, share_q = here.votes(attribute, part.stop - part.start, asked, options.k)
                filled = (share_q >= options.sure) & (value_q >= 0)
                labels_nA[here.rows[asked[filled]], attribute] = value_q[filled]
    return labels


def _by_model(train: Catalog, options: Treatments, machine: Machine) -> dict[str, Codes]:
    """Labels [n, A], empty ones filled where a probe learnt from the stated ones is sure."""
    # Without class weights: the probabilities are to mean what they say.
    probe = Probe(backbone=options.backbone, class_weight=0.0, look_alikes=0.0)
    found = probe.fit(train, None, machine, 0).predict(train, machine)
    labels = {}
    for block in found.blocks:
        where = np.searchsorted(train.rows(block.category), block.rows)
        labels_nA = train.labels(block.category).copy()
        for attribute, part in enumerate(train.taxonomy.slices(block.category)):
            if not (labels_nA[:, attribute] >= 0).any():
                continue
            probs_nv = block.probs[:, part]
            sure = (probs_nv.max(axis=1) >= options.sure) & (labels_nA[where, attribute] < 0)
            sure &= train.category[block.rows] >= 0
            labels_nA[where[sure], attribute] = probs_nv[sure].argmax(axis=1)
        labels[block.category] = labels_nA
    return labels


def _with_bad_photos(train: Catalog, machine: Machine) -> Catalog:
    """The rows, and each once more with a spoilt copy of its photo."""
    copies = bad_photos(train, cache=cache_directory(machine.cache), progress=machine.progress)
    twice = train.select(np.concatenate([np.arange(len(train))] * 2))
    found = replace(
        twice,
        ids=(*train.ids, *(f"{id_} bad photo" for id_ in train.ids)),
        images=(*train.images, *copies.images),
    )
    message = f"{len(train):,} spoilt copies of photos were learnt from as well"
    note = Finding("treated_rows", message, severity="note", evidence={"rows": len(train)})
    return replace(found, findings=Findings((*train.findings, note)))


def _upsampled(train: Catalog, options: Treatments) -> Catalog:
    """The rows, those with rare values repeated; copies have ids of their own, so that each is drawn differently."""
    factor_N = np.ones(len(train))
    for category in train.present:
        labels_nA, rows = train.labels(category), train.rows(category)
        for attribute, part in enumerate(train.taxonomy.slices(category)):
            label_n = labels_nA[:, attribute]
            stated = np.flatnonzero(label_n >= 0)
            count_v = np.bincount(label_n[stated], minlength=part.stop - part.start)
            even = len(stated) / max((count_v > 0).sum(), 1)
            factor_v = np.maximum(1.0, (even / np.maximum(count_v, 1)) ** options.upsample)
            factor_N[rows[stated]] = np.maximum(factor_N[rows[stated]], factor_v[label_n[stated]])
    factor_N = np.minimum(factor_N, options.copies)
    # The part of a factor after the point decides by the product's own number, drawn from its id.
    copies_N = np.array(
        [math.floor(factor + _drawn(id_)) for factor, id_ in zip(factor_N.tolist(), train.ids, strict=True)],
        dtype=np.int64,
    )
    row = np.repeat(np.arange(len(train)), copies_N)
    first_N = np.concatenate([[0], np.cumsum(copies_N)[:-1]]).astype(np.int64)
    copy = np.arange(len(row)) - first_N[row]
    ids = tuple(
        train.ids[i] if number == 0 else f"{train.ids[i]} copy {number}"
        for i, number in zip(row.tolist(), copy.tolist(), strict=True)
    )
    more = len(row) - len(train)
    message = f"{more} copies of training rows with rare values"
    note = Finding("repeated_rows", message, severity="note", evidence={"rows": more})
    findings = Findings((*train.findings, note))
    return replace(train.select(row), ids=ids, findings=findings)


def _drawn(id_: str) -> float:
    """A number from 0 up to 1 that belongs to an id."""
    digest = hashlib.blake2b(id_.encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / 2**56
