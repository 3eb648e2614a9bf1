"""Predictions and Answers; the Recipe and Predictor protocols that speak them.

Predictions are probabilities, in one block per category; Answers are what is said of them, laid out
as the training table was. Neither knows how it was made.
Legend: N rows, n rows of one category, A its Choice attributes, V their values, packed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import polars as pl

from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError, listing
from shelfwise.files import Progress
from shelfwise.roles import Layout
from shelfwise.taxonomy import Taxonomy

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Block:
    """The predictions of one category.

    Attributes:
        category: its name.
        rows: int64 [n], ascending positions in the table.
        probs: float32 [n, V], the values of all Choice attributes side by side; each attribute's slice
            (``Taxonomy.slices``) sums to 1.
    """

    category: str
    rows: Rows
    probs: Floats


@dataclass(frozen=True)
class RowError:
    """Why a row has no answer.

    Attributes:
        field: the column concerned.
        message: one sentence.
    """

    field: str
    message: str


@dataclass(frozen=True, eq=False)
class Predictions:
    """Probabilities for the products of a table, aligned by id.

    Attributes:
        taxonomy: what the columns of the blocks mean.
        ids: the products' ids in table order.
        blocks: one per category present; every row is in one block or in ``errors``.
        errors: row position to what went wrong.
        guessed: row position to the probability of its category, for rows whose category was predicted.
        notes: what the user should know about how they were made.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    blocks: tuple[Block, ...]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    guessed: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen = np.zeros(len(self.ids), dtype=np.int64)
        for block in self.blocks:
            width = self.taxonomy.width(block.category)
            if block.probs.shape != (len(block.rows), width):
                raise PredictionError(
                    f"{block.category!r}: probabilities of shape {block.probs.shape}, "
                    f"not {(len(block.rows), width)}"
                )
            np.add.at(seen, block.rows, 1)
        seen[list(self.errors)] += 1
        wrong = np.flatnonzero(seen != 1)
        if len(wrong):
            raise PredictionError(
                f"{len(wrong)} rows are not in exactly one block, the first is row {wrong[0] + 1}"
            )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def _by_category(self) -> Mapping[str, Block]:
        return {block.category: block for block in self.blocks}

    def block(self, category: str) -> Block | None:
        """Return a category's block, ``None`` where no row is of it."""
        return self._by_category.get(category)

    def select(self, positions: npt.ArrayLike) -> "Predictions":
        """Return these rows, in this order."""
        where = np.asarray(positions, dtype=np.int64)
        new_of = np.full(len(self), -1, dtype=np.int64)
        new_of[where] = np.arange(len(where))
        blocks = []
        for block in self.blocks:
            new = new_of[block.rows]
            kept = np.flatnonzero(new >= 0)
            order = kept[np.argsort(new[kept], kind="stable")]
            if len(order):
                blocks.append(Block(block.category, new[order], block.probs[order]))
        return Predictions(
            self.taxonomy,
            tuple(self.ids[i] for i in where.tolist()),
            tuple(blocks),
            {int(new_of[i]): e for i, e in self.errors.items() if new_of[i] >= 0},
            {int(new_of[i]): p for i, p in self.guessed.items() if new_of[i] >= 0},
            self.notes,
        )

    @classmethod
    def join(cls, parts: Sequence[tuple[npt.ArrayLike, "Predictions"]], ids: Sequence[str]) -> "Predictions":
        """Put parts together, such as the folds of a cross-fit.

        Args:
            parts: for each part, the positions of its rows in the whole, and the part.
            ids: the ids of the whole.

        Raises:
            PredictionError: parts of different taxonomies, or rows that are missing or twice.
        """
        if len({part.taxonomy.hash for _, part in parts}) > 1:
            raise PredictionError("predictions of different taxonomies cannot be joined")
        rows: dict[str, list[Rows]] = {}
        probs: dict[str, list[Floats]] = {}
        errors: dict[int, RowError] = {}
        guessed: dict[int, float] = {}
        for positions, part in parts:
            where = np.asarray(positions, dtype=np.int64)
            for block in part.blocks:
                rows.setdefault(block.category, []).append(where[block.rows])
                probs.setdefault(block.category, []).append(block.probs)
            errors |= {int(where[i]): error for i, error in part.errors.items()}
            guessed |= {int(where[i]): p for i, p in part.guessed.items()}
        blocks = []
        for category in sorted(rows):
            row = np.concatenate(rows[category])
            order = np.argsort(row, kind="stable")
            blocks.append(Block(category, row[order], np.concatenate(probs[category])[order]))
        notes = tuple(dict.fromkeys(note for _, part in parts for note in part.notes))
        return cls(parts[0][1].taxonomy, tuple(ids), tuple(blocks), errors, guessed, notes)

    def answers(self) -> "Answers":
        """Return the most probable value of every attribute, with its probability and the runner-up."""
        blocks = []
        for block in self.blocks:
            slices = self.taxonomy.slices(block.category)
            n = len(block.rows)
            codes = np.zeros((n, len(slices)), dtype=np.int32)
            runner_up = np.full((n, len(slices)), -1, dtype=np.int32)
            probability = np.zeros((n, len(slices)), dtype=np.float32)
            for column, part in enumerate(slices):
                probs = block.probs[:, part]
                if probs.shape[1] == 0:
                    codes[:, column] = -1
                    continue
                codes[:, column] = probs.argmax(axis=1)
                probability[:, column] = probs.max(axis=1)
                if probs.shape[1] > 1:
                    rest = probs.copy()
                    rest[np.arange(n), codes[:, column]] = -1
                    runner_up[:, column] = rest.argmax(axis=1)
            blocks.append(AnswerBlock(block.category, block.rows, codes, probability, runner_up))
        return Answers(self.taxonomy, self.ids, tuple(blocks), self.errors, self.guessed, self.notes)

    def save(self, path: str | Path) -> None:
        """Write to Parquet: ``row, id, category, guessed, field, error, probs``, the taxonomy in the metadata."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from shelfwise.files import replacing

        n = len(self)
        category: list[str | None] = [None] * n
        probs: list[Floats | None] = [None] * n
        for block in self.blocks:
            for row, values in zip(block.rows.tolist(), block.probs, strict=True):
                category[row], probs[row] = block.category, values
        table = pa.table(
            {
                "row": pa.array(range(1, n + 1), pa.int64()),
                "id": pa.array(self.ids, pa.string()),
                "category": pa.array(category, pa.string()),
                "guessed": pa.array([self.guessed.get(i) for i in range(n)], pa.float32()),
                "field": pa.array(
                    [self.errors[i].field if i in self.errors else None for i in range(n)], pa.string()
                ),
                "error": pa.array(
                    [self.errors[i].message if i in self.errors else None for i in range(n)], pa.string()
                ),
                "probs": pa.array(probs, pa.list_(pa.float32())),
            }
        )
        import json

        metadata = {b"shelfwise": b"predictions 1", b"taxonomy": json.dumps(self.taxonomy.table()).encode()}
        with replacing(path) as temporary:
            pq.write_table(table.replace_schema_metadata(metadata), temporary)

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Read what ``save`` wrote.

        Raises:
            PredictionError: not such a file.
        """
        import json

        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise PredictionError(f"cannot read the predictions {path}: {error}") from error
        metadata = table.schema.metadata or {}
        if metadata.get(b"shelfwise") != b"predictions 1":
            raise PredictionError(f"{path}: not predictions that this version wrote")
        taxonomy = Taxonomy.from_table(json.loads(metadata[b"taxonomy"]), str(path))
        categories = np.array(table["category"].to_pylist(), dtype=object)
        blocks = []
        for name in taxonomy.categories:
            rows = np.flatnonzero(categories == name)
            if len(rows):
                packed = table["probs"].take(rows).combine_chunks().flatten().to_numpy(zero_copy_only=False)
                blocks.append(Block(name, rows, packed.reshape(len(rows), -1).astype(np.float32)))
        fields, errors = table["field"].to_pylist(), table["error"].to_pylist()
        guessed = table["guessed"].to_pylist()
        return cls(
            taxonomy,
            tuple(table["id"].to_pylist()),
            tuple(blocks),
            {i: RowError(fields[i] or "", e) for i, e in enumerate(errors) if e is not None},
            {i: float(p) for i, p in enumerate(guessed) if p is not None},
        )


@dataclass(frozen=True, eq=False)
class AnswerBlock:
    """The answers of one category.

    Attributes:
        category: its name.
        rows: int64 [n], ascending positions in the table.
        codes: int32 [n, A], the value answered, -1 for none.
        probability: float32 [n, A], of the most probable value; NaN for a copied stated value.
        runner_up: int32 [n, A], the second value, -1 for none.
    """

    category: str
    rows: Rows
    codes: npt.NDArray[np.int32]
    probability: Floats
    runner_up: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Answers:
    """What is said of every product, in table order.

    Attributes:
        taxonomy, ids, errors, guessed, notes: as in ``Predictions``.
        blocks: one per category present.
        stated: whether stated cells were copied; such answers cannot be scored.
        categories: the category cell of every row as given, for rows that have no block.
        layout: how they are written; that of the training table.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    blocks: tuple[AnswerBlock, ...]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    guessed: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stated: bool = False
    categories: tuple[str | None, ...] = ()
    layout: Layout | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def block(self, category: str) -> AnswerBlock | None:
        """Return a category's block, ``None`` where no row is of it."""
        return next((block for block in self.blocks if block.category == category), None)

    def keep_stated(self, catalog: Catalog) -> "Answers":
        """Return answers in which every stated value stands and only empty cells are answered.

        Raises:
            PredictionError: the catalogue's rows are not these.
        """
        check_rows(self.ids, catalog)
        blocks = []
        for block in self.blocks:
            rows, labels = catalog.rows(block.category), catalog.labels(block.category)
            stated = np.full_like(block.codes, -1)
            shared = np.isin(rows, block.rows)
            stated[np.searchsorted(block.rows, rows[shared])] = labels[shared]
            copied = stated >= 0
            blocks.append(
                replace(
                    block,
                    codes=np.where(copied, stated, block.codes),
                    probability=np.where(copied, np.float32(np.nan), block.probability),
                    runner_up=np.where(copied, -1, block.runner_up),
                )
            )
        return replace(self, blocks=tuple(blocks), stated=True)

    def of(self, row: int) -> dict[str, dict[str, Any]]:
        """Return one row's answers by attribute: ``value``, ``probability``, ``state``, ``runner_up``."""
        for block in self.blocks:
            at = int(np.searchsorted(block.rows, row))
            if at < len(block.rows) and block.rows[at] == row:
                return {
                    choice.name: {
                        "value": choice.values[code] if code >= 0 else None,
                        "probability": None if np.isnan(p) else round(float(p), 6),
                        "state": "stated" if np.isnan(p) else "answered" if code >= 0 else "unsure",
                        "runner_up": choice.values[second] if second >= 0 else None,
                    }
                    for choice, code, p, second in zip(
                        self.taxonomy.choices(block.category),
                        block.codes[at].tolist(),
                        block.probability[at].tolist(),
                        block.runner_up[at].tolist(),
                        strict=True,
                    )
                }
        return {}

    def write(self, path: str | Path, *, filler: str | None = None, explain: bool = False) -> None:
        """Write to ``.csv`` or ``.parquet`` in the training table's layout, and beside it ``<stem>.errors.csv``.

        Args:
            path: its ending chooses the format.
            filler: what unused and unanswered cells hold; by default the layout's own.
            explain: add state, probability and runner-up of every cell (Parquet has them always).

        Raises:
            UsageError: another ending, or answers that carry no layout.
        """
        from shelfwise.layouts import write_answers

        if self.layout is None:
            raise UsageError(
                "these answers carry no layout: use those of Bundle.answer, or layouts.write_answers"
            )
        write_answers(self, path, self.layout, filler=filler, explain=explain)

    def error_frame(self) -> pl.DataFrame:
        """Return ``row, id, field, error``: rows without an answer, and rows whose category was predicted."""
        rows = [(i + 1, self.ids[i], e.field, e.message) for i, e in self.errors.items()]
        for i, probability in self.guessed.items():
            name = next((b.category for b in self.blocks if i in b.rows), "")
            rows.append(
                (
                    i + 1,
                    self.ids[i],
                    "category",
                    f"the category was empty; predicted {name!r} with probability {probability:.3f}",
                )
            )
        schema = {"row": pl.Int64, "id": pl.String, "field": pl.String, "error": pl.String}
        return pl.DataFrame(sorted(rows), schema=schema, orient="row")


def check_rows(ids: Sequence[str], catalog: Catalog) -> None:
    """Make sure answers and a catalogue are of the same rows in the same order.

    Raises:
        PredictionError: they are not; names the first ids that differ.
    """
    if tuple(ids) != catalog.ids:
        lost = sorted(set(catalog.ids) ^ set(ids))
        what = (
            f"ids on one side only: {listing(lost, 5)}" if lost else "the same ids in another order or number"
        )
        raise PredictionError(
            f"{len(ids)} rows do not line up with the {len(catalog)} of {catalog.source}: {what}"
        )


@dataclass(frozen=True)
class Machine:
    """Where and how computing is done; never changes an answer beyond the engine's recorded parity.

    Attributes:
        cache: the cache folder; ``None`` for the default.
        jobs: threads for reading pictures; ``None`` for one a core.
        device: ``auto``, ``cpu`` or ``cuda``.
        engine: ``auto`` or the name of an inference engine.
        progress: called with what is done, how many of how many.
    """

    cache: Path | None = None
    jobs: int | None = None
    device: str = "auto"
    engine: str = "auto"
    progress: Progress | None = None


@runtime_checkable
class Predictor(Protocol):
    """What a recipe learnt. Exists only when it can predict."""

    taxonomy: Taxonomy

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        """Return probabilities for every row of a catalogue read under this predictor's schema."""
        ...

    def save(self, directory: Path) -> None:
        """Write the learnt arrays into a directory, without pickles."""
        ...


@runtime_checkable
class Recipe(Protocol):
    """A frozen set of options that can turn a catalogue into a predictor.

    Attributes:
        concurrent: whether several fits may run side by side, a thread each; false for a recipe that uses
            the whole machine by itself.
    """

    concurrent: ClassVar[bool]

    @property
    def name(self) -> str:
        """The registered name."""
        ...

    def table(self) -> dict[str, Any]:
        """Return the TOML table with every default written out."""
        ...

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Predictor:
        """Learn from ``train``; ``valid`` is for early stopping where a recipe has any."""
        ...

    def load(self, directory: Path, taxonomy: Taxonomy) -> Predictor:
        """Read a predictor that this recipe saved."""
        ...


def uniform(taxonomy: Taxonomy, category: str, n: int) -> Floats:
    """Return float32 [n, V] with every attribute's values equally likely."""
    probs = np.zeros((n, taxonomy.width(category)), dtype=np.float32)
    for part in taxonomy.slices(category):
        probs[:, part] = 1 / max(part.stop - part.start, 1)
    return probs
