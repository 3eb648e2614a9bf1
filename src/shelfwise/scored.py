"""Scored: a bundle, or answers that a file holds, beside the truth, and the products that all of them can be judged on.

It does not know how anything is scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.answers import Answers
from shelfwise.bundle import Bundle, load
from shelfwise.catalog import Catalog
from shelfwise.errors import UsageError
from shelfwise.layouts import read_answers
from shelfwise.predictions import Machine
from shelfwise.unseen import Learnt, answer_unseen, left_out

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scored:
    """What is scored, and the truth.

    Attributes:
        name: as it was given.
        catalog: the truth.
        bundle: answers it; ``None`` where a file does.
        learnt: what the bundle has learnt from.
        answers: of the file.
        notes: what is left out, and why.
    """

    name: str
    catalog: Catalog
    bundle: Bundle | None = None
    learnt: Learnt | None = None
    answers: Answers | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        source: Path,
        table: Path,
        machine: Machine,
        *,
        images: Path | None = None,
        attributes: Path | None = None,
        photos: Path | None = None,
        by: Path | None = None,
    ) -> "Scored":
        """Read a bundle or a file of answers, and the truth.

        Args:
            source: a bundle's folder, or a file of answers.
            table: the truth, read as a bundle reads it, or as ``Catalog.read`` does beside a file.
            machine: where to compute.
            images, attributes, photos: of the table.
            by: the bundle that a file of answers is from.

        Raises:
            BundleError, CatalogError, PredictionError: one of them cannot be read, or they do not belong together.
        """
        if source.is_dir():
            bundle = load(source)
            catalog = bundle.read(table, images=images, photos=photos).remembering()
            return cls(str(source), catalog, bundle, Learnt.of(bundle, catalog, machine))
        if by is None:
            catalog = Catalog.read(table, images=images, attributes=attributes)
        else:
            catalog = load(by).read(table, images=images)
        answers = read_answers(source, catalog)
        if answers.amounts and not any((block.codes >= 0).any() for block in answers.blocks):
            catalog = catalog.only("numbers")  # what has no attribute was not asked for them
            answers = read_answers(source, catalog)
        return cls(str(source), catalog, answers=answers)

    def select(self, kept_N: Bools) -> "Scored":
        """Return the same of some products, and say what became of those that were learnt from."""
        said = left_out(self.name, self.learnt, kept_N) if self.learnt is not None else ""
        noted = replace(self, notes=(said,) if said else ())
        if kept_N.all():
            return noted
        catalog = self.catalog.select(np.flatnonzero(kept_N))
        answers = None if self.answers is None else read_answers(self.name, catalog, part=True)
        learnt = None if self.learnt is None else self.learnt.select(kept_N)
        return replace(noted, catalog=catalog, learnt=learnt, answers=answers)

    def answer(self, machine: Machine) -> Answers:
        """Return what is said of every product."""
        if self.bundle is None or self.learnt is None:
            assert self.answers is not None
            return self.answers
        return answer_unseen(self.bundle, self.catalog, self.learnt, machine)


def judgeable(scored: Sequence[Scored]) -> list[Scored]:
    """Return the same of the products that all can be judged on, or of all products where there is none such.

    Raises:
        UsageError: the table has another number of products for one than for another.
    """
    counts = {len(each.catalog) for each in scored}
    if len(counts) > 1:
        raise UsageError(f"the table has {' or '.join(map(str, sorted(counts)))} products, by who reads it")
    fair_N = np.ones(counts.pop(), np.bool_)
    for each in scored:
        if each.learnt is not None:
            fair_N &= each.learnt.fair
    kept = [each.select(fair_N if fair_N.any() else np.ones_like(fair_N)) for each in scored]
    if not any(each.notes for each in kept):
        return kept
    said = "is a file of answers, taken as they are: its bundle may remember those products"
    return [each if each.bundle else replace(each, notes=(f"{each.name} {said}",)) for each in kept]
