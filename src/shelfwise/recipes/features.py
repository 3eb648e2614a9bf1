"""Features: the vectors of a catalogue's pictures, each computed once.

It knows embeddings and catalogues, not labels. Legend: N products, D features.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.errors import ImageError, PredictionError
from shelfwise.files import cache_directory
from shelfwise.models.backbones import Backbone
from shelfwise.models.embed import Embeddings, embed
from shelfwise.models.engines import EngineRecord, choose_engine
from shelfwise.predictions import Machine
from shelfwise.registry import Spec


@dataclass(frozen=True, eq=False)
class Features:
    """Vectors row by row.

    Attributes:
        vectors: float32 [N, D], NaN where there is none.
        errors: row position to why there is none.
        record: the engine that computed them.
        fingerprint: of the backbone; vectors of another one mean nothing to a predictor.
        space: equal for vectors that are the same to the last bit.
        first: int64 [N], the first row that shows the same file, so that what follows from a vector is computed once;
            the row itself where that is not known.
    """

    vectors: npt.NDArray[np.float32]
    errors: Mapping[int, ImageError]
    record: EngineRecord
    fingerprint: str
    space: str
    first: npt.NDArray[np.int64]

    def identity(self) -> dict[str, str]:
        """What a predictor keeps about the vectors it was learnt from."""
        return {"fingerprint": self.fingerprint, "space": self.space, "engine": str(self.record)}


def check_features(learnt_on: Mapping[str, str], given: Features) -> tuple[str, ...]:
    """Compare the vectors a predictor was learnt from with those it is given.

    Returns:
        A note where another engine computed them; its parity with the reference is part of the note.

    Raises:
        PredictionError: they are of another backbone.
    """
    if learnt_on["fingerprint"] != given.fingerprint:
        raise PredictionError(
            "the backbone is not the one this predictor was learnt with: its weights, options or preprocess "
            f"differ (fingerprint {given.fingerprint[:12]} against {learnt_on['fingerprint'][:12]})"
        )
    if learnt_on["space"] == given.space:
        return ()
    return (f"vectors computed by {given.record}; the bundle was learnt on {learnt_on['engine']}",)


def seen(vectors_ND: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return bool [N], which rows have a vector."""
    return np.asarray(np.isfinite(vectors_ND).all(axis=1))


def computed(catalog: Catalog, backbone: Spec | Backbone, machine: Machine) -> Embeddings:
    """Return the vectors of a catalogue's pictures, by the engine that the machine keeps or chooses."""
    cache, kept = cache_directory(machine.cache), {} if machine.engines is None else machine.engines
    what = backbone if isinstance(backbone, Spec) else backbone.fingerprint
    key = ("engine", what, machine.engine, machine.device, machine.jobs, machine.exported)
    if key not in kept:
        kept[key] = choose_engine(
            backbone,
            device=machine.device,
            requested=machine.engine,
            cache=cache,
            jobs=machine.jobs,
            exported=machine.exported,
        )
    if machine.remembered is not None:
        memory = machine.remembered
        return memory.vectors(catalog, kept[key], jobs=machine.jobs, progress=machine.progress)
    home = cache if machine.keep else None
    return embed(catalog, kept[key], cache=home, jobs=machine.jobs, progress=machine.progress)


#: Folds fitted side by side compute a picture's vector once.
_REMEMBERING = threading.Lock()


@dataclass(eq=False)
class _Remembered:
    """What a catalogue's memo keeps of one backbone."""

    rows: dict[Any, int]
    found: Features


def features(catalog: Catalog, backbone: Spec, machine: Machine) -> Features:
    """Return the vectors of a catalogue's pictures; what its memo has is not read again."""

    def fresh(part: Catalog) -> Features:
        found = computed(part, backbone, machine)
        first_N = np.arange(len(found.vectors))
        return Features(found.vectors, found.errors, found.record, found.fingerprint, found.space, first_N)

    if catalog.memo is None:
        return fresh(catalog)
    with _REMEMBERING:
        key = ("features", backbone, machine.engine, machine.device, machine.exported)
        kept: _Remembered | None = catalog.memo.get(key)
        new = [
            i
            for i, path in enumerate(catalog.images)
            if path is not None and (kept is None or path not in kept.rows)
        ]
        if kept is None or new:
            found = fresh(catalog if len(new) == len(catalog) else catalog.select(new))
            start = len(kept.rows) if kept is not None else 0
            rows = dict(kept.rows) if kept is not None else {}
            distinct: list[int] = []
            for position, row in enumerate(new):
                path = catalog.images[row]
                if path not in rows:
                    rows[path] = start + len(distinct)
                    distinct.append(position)
            vectors, errors = (
                found.vectors if len(distinct) == len(new) else found.vectors[distinct],
                {
                    start + at: found.errors[position]
                    for at, position in enumerate(distinct)
                    if position in found.errors
                },
            )
            if kept is not None:
                vectors, errors = (
                    np.concatenate([kept.found.vectors, vectors]),
                    {**kept.found.errors, **errors},
                )
            kept = _Remembered(rows, replace(found, vectors=vectors, errors=errors))
            catalog.memo[key] = kept
    where = [kept.rows.get(path, -1) if path is not None else -1 for path in catalog.images]
    at_N = np.array(where, dtype=np.int64)
    vectors_ND = kept.found.vectors
    if not np.array_equal(at_N, np.arange(len(vectors_ND))):
        vectors_ND = (
            vectors_ND[at_N] if len(vectors_ND) else np.empty((len(at_N), vectors_ND.shape[1]), np.float32)
        )
        vectors_ND[at_N < 0] = np.nan
    wrong = {row: kept.found.errors[at] for row, at in enumerate(where) if at in kept.found.errors}
    wrong |= dict(catalog.image_errors)
    _, first, back_N = np.unique(at_N, return_index=True, return_inverse=True)
    first_N = np.where(at_N >= 0, first[back_N], np.arange(len(at_N)))
    return replace(kept.found, vectors=vectors_ND, errors=wrong, first=first_N)
