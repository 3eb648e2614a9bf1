"""Unseen: what a bundle says of products that it has learnt from, as if it had not.

A model knows the products it was fitted on by heart, so a score on them says nothing of others. Its evidence has what
models that had not seen them, nor their near-duplicates, said of them. It does not know how anything is scored.
Legend: N products of a table, n of one category, A attributes.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shelfwise.amounts import AmountAnswers
from shelfwise.answers import AnswerBlock, Answers
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.predictions import Machine, Predictions
from shelfwise.trust.decide import decided_out_of_fold
from shelfwise.trust.learnt import evidence_rows, learnt_rows, out_of_fold

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Learnt:
    """Which products of a table a bundle has learnt from.

    Attributes:
        learnt: bool [N], those it has: same id, same picture.
        row: int64 [N], the row of the evidence that says something of such a product out of fold, -1 for none.
    """

    learnt: Bools
    row: Ints

    @classmethod
    def of(cls, bundle: Bundle, catalog: Catalog, machine: Machine | None = None) -> "Learnt":
        """Find them. A bundle without an index of pictures knows products by id and what they state.

        Args:
            bundle: its evidence and index are looked at.
            catalog: the table.
            machine: where to compute.
        """
        evidence, nothing = bundle.evidence, np.full(len(catalog), -1, np.int64)
        row_N = nothing if evidence is None else evidence_rows(catalog, evidence)
        if bundle.index is not None:
            _, own_N = bundle.index.places(catalog.under(bundle.schema), bundle.on(machine))
            learnt_N = own_N >= 0
        elif evidence is not None:
            learnt_N = learnt_rows(catalog, evidence)
        else:
            learnt_N = np.zeros(len(catalog), np.bool_)
        if bundle.run.data.learn_from == "split":
            learnt_N = learnt_N & (row_N < 0)  # The evidence is what was held out, and nothing else.
        return cls(learnt_N, np.where(learnt_N, row_N, -1))

    @property
    def fair(self) -> Bools:
        """Bool [N], the products that can be judged: never learnt from, or answered out of fold."""
        return np.asarray(~self.learnt | (self.row >= 0))

    def select(self, kept_N: Bools) -> "Learnt":
        """Return the same of some products."""
        return Learnt(self.learnt[kept_N], self.row[kept_N])


def answer_unseen(
    bundle: Bundle, catalog: Catalog, learnt: Learnt, machine: Machine | None = None
) -> Answers:
    """Answer every cell; products that were learnt from as calibration and decision without their fold answer them.

    Args:
        bundle: what was learnt.
        catalog: the products.
        learnt: which of them were learnt from; those without a row of the evidence are answered as any other.
        machine: where to compute.
    """
    answers = bundle.answer(catalog, every_cell=True, machine=machine)
    if bundle.evidence is None or bundle.rule is None or not (learnt.row >= 0).any():
        return answers
    aim = bundle.run.decide.aim
    told = decided_out_of_fold(bundle.evidence, bundle.rule.metric, costs=bundle.rule.costs, aim=aim)
    blocks = tuple(_block(block, told.block(block.category), learnt.row) for block in answers.blocks)
    amounts = tuple(_amount(item, told.amount(item.name), learnt.row) for item in answers.amounts)
    return replace(answers, blocks=blocks, amounts=amounts)


def predict_unseen(
    bundle: Bundle, catalog: Catalog, learnt: Learnt, machine: Machine | None = None
) -> Predictions:
    """Return calibrated probabilities likewise. Arguments: ``answer_unseen``."""
    found = bundle.predict(catalog, machine)
    if bundle.calibrated is None or not (learnt.row >= 0).any():
        return found
    return out_of_fold(found, catalog, bundle.calibrated, same=learnt.row >= 0)


def left_out(name: str, learnt: Learnt, kept_N: Bools) -> str:
    """Return what is to be said of products that a bundle has learnt from; empty where there are none.

    Args:
        name: the bundle's.
        learnt: which they are.
        kept_N: bool [N], the products that are scored.
    """
    many = int(learnt.learnt.sum())
    if not many:
        return ""
    known, lost = int((learnt.row >= 0).sum()), ~learnt.fair
    said = [f"{known:,} have out-of-fold answers"] if known else []
    if lost[kept_N].any():
        said.append(
            f"{int(lost.sum()):,} have none and are scored all the same, as no product can be judged without them: "
            "this is what it remembers, not what it knows of others"
        )
    elif lost.any():
        said.append(f"{int(lost.sum()):,} have none and are left out")
    return f"{name} has learnt from {many:,} of the {len(kept_N):,} products: {'; '.join(said)}"


def _found(rows_n: Ints, told: Ints, row_N: Ints) -> tuple[Bools, Ints]:
    """Return which rows of a block the evidence answers, and at which place of its own block, which is not empty."""
    row_n = row_N[rows_n]
    at_n = np.minimum(np.searchsorted(told, row_n), len(told) - 1)
    return (row_n >= 0) & (told[at_n] == row_n), at_n


def _block(block: AnswerBlock, told: AnswerBlock | None, row_N: Ints) -> AnswerBlock:
    if told is None or not len(told.rows):
        return block
    found_n, at_n = _found(block.rows, told.rows, row_N)
    names = ("codes", "probability", "runner_up", "candidate", "second", "state")
    cells = {
        name: np.where(found_n[:, None], getattr(told, name)[at_n], getattr(block, name)) for name in names
    }
    return replace(block, **cells)


def _amount(item: AmountAnswers, told: AmountAnswers | None, row_N: Ints) -> AmountAnswers:
    if told is None or not len(told.rows):
        return item
    found_n, at_n = _found(item.rows, told.rows, row_N)
    names = ("value", "candidate", "low", "high", "state")
    cells = {name: np.where(found_n, getattr(told, name)[at_n], getattr(item, name)) for name in names}
    return replace(item, **cells)
