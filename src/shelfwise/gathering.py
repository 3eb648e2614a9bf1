"""Gathering: predictions out of fold beside the truth, by folds or by a part held out, groups kept whole.

It does not know how a recipe learns, nor what is made of the evidence.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.crossfit import cross_fit, hold_out
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.several import Shown, Voted, voted_out_of_fold
from shelfwise.splits import Folds
from shelfwise.trust.evidence import Evidence

Ints = npt.NDArray[np.int64]
#: Folds inside a holdout, for calibration and decision.
INNER_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Gathered:
    """Predictions out of fold, beside the truth.

    Attributes:
        evidence: calibrated by nothing yet.
        truth: the products predicted.
        found: their predictions.
        folds: of the whole catalogue.
        predictor: that they are of, where it is one: with a holdout.
        photos: each product's first photo alone, and how photos are weighed, where products have several.
    """

    evidence: Evidence
    truth: Catalog
    found: Predictions
    folds: Folds
    predictor: Predictor | None = None
    photos: Voted | None = None

    @property
    def choices(self) -> Evidence:
        """The evidence of Choice attributes alone."""
        return replace(self.evidence, amounts=())


@dataclass(frozen=True, eq=False)
class Split:
    """How a catalogue is split for evidence: into folds, or into a part learnt from and a part held out.

    Attributes:
        catalog: the products.
        group: int64 [N].
        folds: of the products; fold 1 is the part held out, where there is one.
        held: whether a part is held out.
        seed: of the folds inside it.
    """

    catalog: Catalog
    group: Ints
    folds: Folds
    held: bool
    seed: int

    @classmethod
    def of(cls, catalog: Catalog, evidence: int | float, groups: Ints | None, seed: int) -> "Split":
        """Split by ``data.evidence``, groups kept whole; without groups, every row is its own."""
        group_N = np.arange(len(catalog)) if groups is None else groups
        if evidence >= 2:
            folds = catalog.folds(int(evidence), groups=groups, seed=seed)
        else:
            folds = catalog.holdout(float(evidence), groups=groups, seed=seed)
        return cls(catalog, group_N, folds, evidence < 2, seed)

    def gather(
        self,
        recipe: Recipe,
        machine: Machine,
        seed: int,
        *,
        keep: npt.NDArray[np.bool_] | None = None,
        out: Path | None = None,
        learn_photos: str = "first",
    ) -> Gathered:
        """Predict every product, or those held out, by what has not seen their group.

        A product with several photos is predicted by their vote.

        Args:
            recipe: how to learn.
            machine: where to compute.
            seed: of the recipe.
            keep: bool [N], learn from these rows only.
            out: a folder for finished folds.
            learn_photos: ``first``, or ``all`` photos of a product.
        """
        catalog, folds, photos = self.catalog, self.folds, None
        shown = Shown.of(catalog) if catalog.photos else None
        if shown is not None:
            keep = (True if keep is None else keep[shown.product]) & (shown.first | (learn_photos == "all"))
            catalog, folds = shown.catalog, shown.folds(folds)
        if not self.held:
            found = cross_fit(recipe, catalog, folds, machine=machine, seed=seed, out=out, keep=keep)
            if shown is not None:
                photos = voted_out_of_fold(found, shown, self.catalog, self.folds.fold)
                found = photos.found
            evidence = Evidence.of(found, self.catalog, self.group, self.folds.fold)
            return Gathered(evidence, self.catalog, found, self.folds, None, photos)
        predictor, found = hold_out(recipe, catalog, folds, machine=machine, seed=seed, keep=keep)
        rows = self.folds.test(1)
        truth, group = self.catalog.select(rows), self.group[rows]
        parts = min(INNER_FOLDS, len(np.unique(group)))
        fold = truth.folds(parts, groups=group, seed=self.seed).fold if parts > 1 else None
        if shown is not None:
            inner = np.zeros(len(truth), np.int64) if fold is None else fold
            photos = voted_out_of_fold(found, Shown.of(truth), truth, inner)
            found = photos.found
        return Gathered(Evidence.of(found, truth, group, fold), truth, found, self.folds, predictor, photos)
