"""Predictions; the Recipe and Predictor protocols that speak them.

Predictions are probabilities, in one block per category. They do not know how they were made, nor what is
answered (``answers``).
Legend: N rows, n rows of one category, A its Choice attributes, V their values, packed.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import Amounts, amount_columns, amounts_of, join_amounts, middle
from shelfwise.answers import STATES, Answers, RowError, answer_block, best_values
from shelfwise.catalog import Catalog
from shelfwise.config import TrackOptions
from shelfwise.errors import PredictionError
from shelfwise.files import Progress
from shelfwise.packed import blocks_of, columns_of, read_table, write_table
from shelfwise.taxonomy import Taxonomy

if TYPE_CHECKING:
    from shelfwise.models.engines import EngineSource
    from shelfwise.models.remembered import Remembered

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
#: What a file of predictions says it is.
KIND = "predictions 1"


@dataclass(frozen=True, eq=False)
class Block:
    """The predictions of one category.

    Attributes:
        category: its name.
        rows: int64 [n], ascending positions in the table.
        probs: float32 [n, V], the values of all Choice attributes side by side; each attribute's slice
            (``Taxonomy.slices``) sums to 1.
        opinions: float32 [n, V] each: what ``probs`` was made of, where a predictor asks several ways; how far
            each is to be trusted is found out of fold (``trust.calibrate``).
    """

    category: str
    rows: Rows
    probs: Floats
    opinions: tuple[Floats, ...] = ()

    def take(self, at: npt.NDArray[Any], rows: Rows) -> "Block":
        """Return the rows at these places of the block, under new positions."""
        opinions = tuple(opinion[at] for opinion in self.opinions)
        return Block(self.category, rows, self.probs[at], opinions)


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
        familiarity: how the pictures lie to what was learnt, where that is known.
        unsure: row position to the attributes that the predictor gave no answer to, whose probabilities are no more
            than the values' shares; their cells are ``unsure``, promise or not.
        amounts: one per Number that was learnt; their rows may be rows with an error too.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    blocks: tuple[Block, ...]
    errors: Mapping[int, RowError] = field(default_factory=dict)
    guessed: Mapping[int, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    familiarity: "Familiarity | None" = None
    unsure: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    amounts: tuple[Amounts, ...] = ()

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

    def amount(self, name: str) -> Amounts | None:
        """Return what is predicted of a Number, ``None`` where nothing is."""
        return next((item for item in self.amounts if item.name == name), None)

    def categories(self) -> npt.NDArray[np.int32]:
        """Return int32 [N], the category that each row was predicted under, guessed ones included; -1 for none."""
        out = np.full(len(self), -1, np.int32)
        for block in self.blocks:
            out[block.rows] = self.taxonomy.category_codes[block.category]
        return out

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
                blocks.append(block.take(order, new[order]))
        return Predictions(
            self.taxonomy,
            tuple(self.ids[i] for i in where.tolist()),
            tuple(blocks),
            {int(new_of[i]): e for i, e in self.errors.items() if new_of[i] >= 0},
            {int(new_of[i]): p for i, p in self.guessed.items() if new_of[i] >= 0},
            self.notes,
            None if self.familiarity is None else self.familiarity.select(where),
            {int(new_of[i]): names for i, names in self.unsure.items() if new_of[i] >= 0},
            tuple(_moved(item, new_of) for item in self.amounts),
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
        found: dict[str, list[Block]] = {}
        errors: dict[int, RowError] = {}
        guessed: dict[int, float] = {}
        unsure: dict[int, tuple[str, ...]] = {}
        for positions, part in parts:
            where = np.asarray(positions, dtype=np.int64)
            for block in part.blocks:
                found.setdefault(block.category, []).append(replace(block, rows=where[block.rows]))
            errors |= {int(where[i]): error for i, error in part.errors.items()}
            guessed |= {int(where[i]): p for i, p in part.guessed.items()}
            unsure |= {int(where[i]): names for i, names in part.unsure.items()}
        blocks = []
        for category in sorted(found):
            row = np.concatenate([block.rows for block in found[category]])
            probs = np.concatenate([block.probs for block in found[category]])
            # A part that knew nothing of a category has no opinions on it: its probabilities stand for each.
            most = max(len(block.opinions) for block in found[category])
            each = [block.opinions or (block.probs,) * most for block in found[category]]
            opinions = tuple(np.concatenate([part[j] for part in each]) for j in range(most))
            order = np.argsort(row, kind="stable")
            blocks.append(Block(category, row, probs, opinions).take(order, row[order]))
        notes = tuple(dict.fromkeys(note for _, part in parts for note in part.notes))
        amounts = join_amounts([(np.asarray(where, dtype=np.int64), part.amounts) for where, part in parts])
        return cls(
            parts[0][1].taxonomy,
            tuple(ids),
            tuple(blocks),
            errors,
            guessed,
            notes,
            unsure=unsure,
            amounts=amounts,
        )

    def answers(self) -> "Answers":
        """Return the most probable value of every attribute, and of every Number the median."""
        blocks = []
        for block in self.blocks:
            parts = self.taxonomy.slices(block.category)
            best_nA = best_values(block.probs, parts)
            state_nA = None
            if self.unsure:
                state_nA = np.where(best_nA >= 0, STATES.index("answered"), STATES.index("unsure")).astype(
                    np.int8
                )
                self.mark_unsure(state_nA, block)
            blocks.append(answer_block(block.category, block.rows, block.probs, parts, best_nA, state_nA))
        amounts = tuple(middle(item) for item in self.amounts)
        return Answers(
            self.taxonomy, self.ids, tuple(blocks), self.errors, self.guessed, self.notes, amounts=amounts
        )

    def mark_unsure(self, state_nA: npt.NDArray[np.int8], block: Block) -> None:
        """Mark the cells of a block that ``unsure`` names, in place; states are positions in ``answers.STATES``."""
        column = {choice.name: at for at, choice in enumerate(self.taxonomy.choices(block.category))}
        for at, row in enumerate(block.rows.tolist() if self.unsure else ()):
            named = [column[name] for name in self.unsure.get(row, ()) if name in column]
            state_nA[at, named] = STATES.index("unsure")

    def save(self, path: str | Path) -> None:
        """Write to Parquet: ``row, id, guessed, field, error, unsure, category, probs, opinion_0 ...``."""
        import pyarrow as pa

        n = len(self)
        errors = [self.errors.get(i) for i in range(n)]
        columns = {
            "row": pa.array(range(1, n + 1), pa.int64()),
            "id": pa.array(self.ids, pa.string()),
            "guessed": pa.array([self.guessed.get(i) for i in range(n)], pa.float32()),
            "field": pa.array([e.field if e is not None else None for e in errors], pa.string()),
            "error": pa.array([e.message if e is not None else None for e in errors], pa.string()),
            "unsure": pa.array([self.unsure.get(i) for i in range(n)], pa.list_(pa.string())),
            **columns_of(self.blocks, n),
            **amount_columns(self.amounts, n),
        }
        write_table(path, columns, KIND, self.taxonomy)

    @classmethod
    def load(cls, path: str | Path) -> "Predictions":
        """Read what ``save`` wrote.

        Raises:
            PredictionError: not such a file.
        """
        table, taxonomy = read_table(path, KIND, PredictionError)
        blocks = []
        for name, rows, _, (probs, *opinions) in blocks_of(table, taxonomy):
            blocks.append(Block(name, rows, probs, tuple(opinions)))
        fields, errors = table["field"].to_pylist(), table["error"].to_pylist()
        guessed = table["guessed"].to_pylist()
        unsure = table["unsure"].to_pylist() if "unsure" in table.column_names else []
        return cls(
            taxonomy,
            tuple(table["id"].to_pylist()),
            tuple(blocks),
            {i: RowError(fields[i] or "", e) for i, e in enumerate(errors) if e is not None},
            {i: float(p) for i, p in enumerate(guessed) if p is not None},
            unsure={i: tuple(names) for i, names in enumerate(unsure) if names is not None},
            amounts=amounts_of(table, taxonomy.number_names),
        )


def _moved(item: Amounts, new_of: Rows) -> Amounts:
    """Return the rows of amounts that have a new position, under it."""
    new = new_of[item.rows]
    kept = np.flatnonzero(new >= 0)
    order = kept[np.argsort(new[kept], kind="stable")]
    return item.take(order, new[order])


@dataclass(frozen=True, eq=False)
class Familiarity:
    """How rows lie to the products that were learnt from, as conformal p-values.

    A product like those learnt from has a p-value of at most r with probability at most r; NaN where nothing
    can be said.

    Attributes:
        p_familiar: float32 [N], small where the picture is unlike anything in its category.
        p_category: float32 [N], small where the category itself looks wrong.
        likelier: int32 [N], code of the most probable category by the picture alone, -1 for none.
    """

    p_familiar: Floats
    p_category: Floats
    likelier: npt.NDArray[np.int32]

    def select(self, positions: Rows) -> "Familiarity":
        """Return these rows, in this order."""
        return Familiarity(self.p_familiar[positions], self.p_category[positions], self.likelier[positions])


@dataclass(frozen=True)
class Machine:
    """Where and how computing is done; never changes an answer beyond the engine's recorded parity.

    Attributes:
        cache: the cache folder; ``None`` for the default.
        jobs: threads for reading pictures; ``None`` for one a core.
        device: ``auto``, ``cpu`` or ``cuda``.
        engine: ``auto`` or the name of an inference engine.
        progress: called with what is done, how many of how many.
        runs: the folder of checkpoints and logs of trainings; ``None`` for ``runs`` in the cache folder.
        track: where the steps of a training go; ``None`` for the progress and a file beside its checkpoints.
        engines: where engines are kept between calls, for a process that answers again and again; ``None`` to
            choose them for every call.
        keep: whether vectors of pictures are kept in the cache folder; else they are forgotten with the call.
        remembered: vectors of the pictures that were seen last, in memory; they go before the cache folder.
        exported: the converted networks that may run in place of backbones; a bundle adds its own (``Bundle.on``).
    """

    cache: Path | None = None
    jobs: int | None = None
    device: str = "auto"
    engine: str = "auto"
    progress: Progress | None = None
    track: TrackOptions | None = None
    runs: Path | None = None
    engines: dict[Hashable, Any] | None = field(default=None, compare=False, repr=False)
    keep: bool = True
    exported: "EngineSource | None" = None
    remembered: "Remembered | None" = field(default=None, compare=False, repr=False)


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
    """A frozen set of options that can turn a catalogue into a predictor."""

    @property
    def concurrent(self) -> bool:
        """Whether several fits may run side by side, a thread each.

        False for a recipe that uses the whole machine by itself, which is also too dear to be fitted for comparisons
        only. A recipe for which it never changes has it as a class variable.
        """
        ...

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
