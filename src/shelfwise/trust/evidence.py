"""Evidence: out-of-fold probabilities beside the truth, with groups and folds; what trust is fitted on.

It does not know how predictions were made, only that no row was predicted by a model that had seen its
group. A bundle keeps it, so that any promise can be worked out later without fitting again.
Legend: N rows, n of one category, A its Choice attributes, V their values packed, v of one attribute,
m labelled rows of one pair (category, attribute).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import AmountEvidence, amount_columns, amounts_of
from shelfwise.answers import check_rows
from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError
from shelfwise.packed import blocks_of, columns_of, matrix, read_table, write_table
from shelfwise.predictions import Block, Predictions
from shelfwise.taxonomy import Choice, Taxonomy

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
#: What a file of evidence says it is.
KIND = "evidence 1"


@dataclass(frozen=True, eq=False)
class EvidenceBlock:
    """The evidence of one category.

    Attributes:
        category: its name.
        rows: int64 [n], ascending positions among all rows.
        probs: float32 [n, V], packed; each attribute's slice sums to 1.
        labels: int32 [n, A], stated codes, -1 for none.
        opinions: float32 [n, V] each; see ``Block``.
    """

    category: str
    rows: Ints
    probs: Floats
    labels: Codes
    opinions: tuple[Floats, ...] = ()

    def take(self, chosen: npt.NDArray[np.bool_]) -> "EvidenceBlock":
        """Return some of the rows, by mask."""
        opinions = tuple(opinion[chosen] for opinion in self.opinions)
        return EvidenceBlock(
            self.category, self.rows[chosen], self.probs[chosen], self.labels[chosen], opinions
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """The labelled rows of one (category, attribute).

    Attributes:
        category: the category's name.
        attribute: its position among the category's Choice attributes.
        choice: its name and values.
        rows: int64 [m], positions among all rows.
        probs: float32 [m, v].
        labels: int32 [m], stated codes.
        group: int64 [m], near-duplicate group.
        fold: int64 [m], fold of the cross-fit.
        opinions: float32 [m, v] each, what the probabilities were made of; ``probs`` alone if there were none.
    """

    category: str
    attribute: int
    choice: Choice
    rows: Ints
    probs: Floats
    labels: Codes
    group: Ints
    fold: Ints
    opinions: tuple[Floats, ...] = ()

    @property
    def name(self) -> tuple[str, str]:
        """Category and attribute."""
        return self.category, self.choice.name

    @cached_property
    def counts(self) -> Ints:
        """int64 [v], labels of each value."""
        return np.bincount(self.labels, minlength=len(self.choice.values)).astype(np.int64)

    def select(self, chosen: npt.ArrayLike) -> "Pair":
        """Return some of the rows, by mask or position."""
        at = np.asarray(chosen)
        return replace(
            self,
            rows=self.rows[at],
            probs=self.probs[at],
            labels=self.labels[at],
            group=self.group[at],
            fold=self.fold[at],
            opinions=tuple(opinion[at] for opinion in self.opinions),
        )


@dataclass(frozen=True, eq=False)
class Evidence:
    """Out-of-fold probabilities and stated values of the products that were learnt from.

    Attributes:
        taxonomy: what the columns of the blocks mean.
        ids: the products' ids.
        group: int64 [N], near-duplicate group of every product.
        fold: int64 [N], the fold it was predicted in.
        blocks: one per category; rows without an answer are in none.
        amounts: one per Number that was predicted.
    """

    taxonomy: Taxonomy
    ids: tuple[str, ...]
    group: Ints
    fold: Ints
    blocks: tuple[EvidenceBlock, ...]
    amounts: tuple[AmountEvidence, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls,
        predictions: Predictions,
        catalog: Catalog,
        group: npt.ArrayLike,
        fold: npt.ArrayLike | None = None,
    ) -> "Evidence":
        """Put predictions beside what a catalogue states of the same rows.

        Args:
            predictions: out of fold, or of products that were not learnt from.
            catalog: the same rows in the same order, with stated values.
            group: int [N], near-duplicate groups.
            fold: int [N], folds of the cross-fit; by default all in one.

        Raises:
            PredictionError: other rows, another taxonomy, or arrays of another length.
        """
        check_rows(predictions.ids, catalog)
        if predictions.taxonomy.hash != catalog.taxonomy.hash:
            raise PredictionError("the predictions are of another taxonomy than the catalogue")
        n = len(catalog)
        group_N = np.asarray(group, dtype=np.int64)
        fold_N = np.zeros(n, np.int64) if fold is None else np.asarray(fold, dtype=np.int64)
        if group_N.shape != (n,) or fold_N.shape != (n,):
            raise PredictionError(f"{n} rows, but groups of {group_N.shape} and folds of {fold_N.shape}")
        blocks = []
        for block in predictions.blocks:
            rows, labels_nA = catalog.rows(block.category), catalog.labels(block.category)
            known = np.isin(block.rows, rows)  # a row whose category was guessed states nothing
            at = block.rows[known]
            labels = labels_nA[np.searchsorted(rows, at)]
            opinions = tuple(opinion[known] for opinion in block.opinions)
            blocks.append(EvidenceBlock(block.category, at, block.probs[known], labels, opinions))
        amounts = tuple(
            AmountEvidence(
                item.name,
                item.rows,
                catalog.numbers(item.name)[item.rows],
                item.quantiles,
                np.maximum(catalog.category[item.rows], -1),
                group_N[item.rows],
                fold_N[item.rows],
                item.opinions,
            )
            for item in predictions.amounts
        )
        there = tuple(b for b in blocks if len(b.rows))
        return cls(catalog.taxonomy, catalog.ids, group_N, fold_N, there, amounts)

    def block(self, category: str) -> EvidenceBlock | None:
        """Return a category's block, ``None`` where there is none."""
        return self._by_category.get(category)

    @cached_property
    def _by_category(self) -> Mapping[str, EvidenceBlock]:
        return {block.category: block for block in self.blocks}

    def pair(self, category: str, attribute: int) -> Pair:
        """Return the labelled rows of one attribute of a category; there may be none."""
        choice = self.taxonomy.choices(category)[attribute]
        block = self.block(category)
        if block is None:
            none = np.zeros(0, np.int64)
            empty = np.zeros((0, len(choice.values)), np.float32)
            return Pair(category, attribute, choice, none, empty, none.astype(np.int32), none, none, (empty,))
        known = np.flatnonzero(block.labels[:, attribute] >= 0)
        part = self.taxonomy.slices(category)[attribute]
        rows = block.rows[known]
        return Pair(
            category,
            attribute,
            choice,
            rows,
            block.probs[known, part],
            block.labels[known, attribute],
            self.group[rows],
            self.fold[rows],
            tuple(opinion[known, part] for opinion in block.opinions or (block.probs,)),
        )

    def pairs(self) -> Iterator[Pair]:
        """Yield every (category, attribute) of the taxonomy that has values, in its order."""
        for category in self.taxonomy.categories:
            for attribute, choice in enumerate(self.taxonomy.choices(category)):
                if choice.values:
                    yield self.pair(category, attribute)

    def predictions(self) -> Predictions:
        """Return the probabilities alone; rows in no block are errors."""
        from shelfwise.answers import RowError

        inside = np.zeros(len(self), bool)
        for block in self.blocks:
            inside[block.rows] = True
        errors = {int(i): RowError("image", "no evidence") for i in np.flatnonzero(~inside)}
        blocks = tuple(Block(b.category, b.rows, b.probs, b.opinions) for b in self.blocks)
        amounts = tuple(item.amounts() for item in self.amounts)
        return Predictions(self.taxonomy, self.ids, blocks, errors, amounts=amounts)

    def select(self, chosen: npt.ArrayLike) -> "Evidence":
        """Return the evidence of some rows, given as a mask [N]; the others keep their place, without a block."""
        mask = np.asarray(chosen, dtype=bool)
        blocks = []
        for block in self.blocks:
            kept = mask[block.rows]
            if kept.any():
                blocks.append(block.take(kept))
        amounts = tuple(item.select(mask[item.rows]) for item in self.amounts)
        return replace(self, blocks=tuple(blocks), amounts=amounts)

    def save(self, path: str | Path) -> None:
        """Write to Parquet: ``id, group, fold, labels, category, probs, opinion_0 ...``; taxonomy as metadata."""
        import pyarrow as pa

        labels: list[Codes | None] = [None] * len(self)
        for block in self.blocks:
            for row, codes in zip(block.rows.tolist(), block.labels, strict=True):
                labels[row] = codes
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "group": pa.array(self.group, pa.int64()),
            "fold": pa.array(self.fold, pa.int64()),
            "labels": pa.array(labels, pa.list_(pa.int32())),
            **columns_of(self.blocks, len(self)),
            **amount_columns(self.amounts, len(self)),
        }
        if self.amounts:
            columns["category code"] = pa.array(self._category_codes(), pa.int32())
        for item in self.amounts:
            stated_N = np.full(len(self), np.nan)
            stated_N[item.rows] = item.truth
            columns[f"stated:{item.name}"] = pa.array(stated_N, pa.float64())
        write_table(path, columns, KIND, self.taxonomy)

    @classmethod
    def load(cls, path: str | Path) -> "Evidence":
        """Read what ``save`` wrote.

        Raises:
            BundleError: not such a file.
        """
        table, taxonomy = read_table(path, KIND, BundleError)
        blocks = []
        for name, rows, part, (probs, *opinions) in blocks_of(table, taxonomy):
            labels = matrix(part, "labels").astype(np.int32)
            blocks.append(EvidenceBlock(name, rows, probs, labels, tuple(opinions)))
        group, fold = (table[field].to_numpy().astype(np.int64) for field in ("group", "fold"))
        amounts = tuple(
            AmountEvidence(
                item.name,
                item.rows,
                table[f"stated:{item.name}"].to_numpy()[item.rows],
                item.quantiles,
                table["category code"].to_numpy()[item.rows].astype(np.int32),
                group[item.rows],
                fold[item.rows],
                item.opinions,
            )
            for item in amounts_of(table, taxonomy.number_names)
        )
        return cls(taxonomy, tuple(table["id"].to_pylist()), group, fold, tuple(blocks), amounts)

    def _category_codes(self) -> Codes:
        """Return int32 [N], the stated category of the rows that have a Number; -1 for none."""
        code_N = np.full(len(self), -1, np.int32)
        for item in self.amounts:
            code_N[item.rows] = item.category
        return code_N
