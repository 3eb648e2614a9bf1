"""Ways to treat labels that are measured beside the package's own, and are not part of it.

Confident learning as down-weighting, and pseudo-labels for missing cells. Both ask a probe inside the training rows
what it says of each of them out of fold, calibrated. Legend: N rows, n of one category, r components, A attributes,
V values packed, J label columns, v values of one attribute.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch

from shelfwise.catalog import Catalog
from shelfwise.cells import label_columns
from shelfwise.crossfit import cross_fit
from shelfwise.data.group import near_duplicates
from shelfwise.files import cache_directory
from shelfwise.models.solver import Problems, solve
from shelfwise.predictions import Machine, Predictor, Recipe, uniform
from shelfwise.recipes.probe import Probe, row_weights
from shelfwise.trust.calibrate import out_of_fold
from shelfwise.trust.evidence import Evidence
from ways import Way

Floats = npt.NDArray[np.float32]
#: Folds inside the training rows, for what is learnt of their labels out of fold.
INNER = 5


def told(train: Catalog, machine: Machine, folder: Path | None) -> Mapping[str, Floats]:
    """Return what a probe without class weights says of training rows out of fold, calibrated: [n, V] by category."""
    groups = near_duplicates(train, cache=cache_directory(machine.cache), jobs=machine.jobs)
    folds = train.folds(INNER, groups=groups)
    recipe = Probe(class_weight=0.0, look_alikes=0.0, shared=False)
    found = cross_fit(recipe, train, folds, machine=machine, out=folder)
    sure = out_of_fold(Evidence.of(found, train, groups, folds.fold)).predictions()
    said: dict[str, Floats] = {}
    for name in train.present:
        said[name] = uniform(train.taxonomy, name, len(train.rows(name)))
        block = sure.block(name)
        if block is not None:
            said[name][np.searchsorted(train.rows(name), block.rows)] = block.probs
    return said


@dataclass(frozen=True)
class PseudoLabels(Way):
    """A recipe that also learns from missing cells where calibrated probabilities, out of fold, are high.

    Attributes:
        recipe: that learns.
        sure: from which probability a missing cell is filled.
    """

    called: ClassVar[str] = "pseudo_labels"

    recipe: Recipe = field(default_factory=Probe)
    sure: float = 0.95
    folder: Path | None = None

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> Predictor:
        """Fill, then learn."""
        codes_NJ = train.codes.copy()
        for name, probs_nV in told(train, machine, self.folder).items():
            rows, labels_nA = train.rows(name), train.labels(name)
            columns = label_columns(train.taxonomy, name, train.schema.roles, train.layout)
            for a, part in enumerate(train.taxonomy.slices(name)):
                if columns[a] < 0 or not (labels_nA[:, a] >= 0).any():
                    continue
                filled = (labels_nA[:, a] < 0) & (probs_nV[:, part].max(axis=1) >= self.sure)
                codes_NJ[rows[filled], columns[a]] = probs_nV[filled, part].argmax(axis=1)
        return self.recipe.fit(replace(train, codes=codes_NJ), None, machine, seed)


class Doubted(Probe):
    """The probe, its labels weighed by how far out-of-fold probabilities agree with them.

    Confident learning (Northcutt, Jiang and Chuang 2021) leaves out labels whose probability is below the mean of their
    class's; here a label of class k with probability p counts ``min(1, p / mean of k)``, and at least ``LEAST``.
    """

    folder: Path | None = None
    LEAST: ClassVar[float] = 0.1

    def solve_heads(
        self, train: Catalog, reduced_Nr: Floats, machine: Machine
    ) -> Iterator[tuple[str, tuple[Floats, Floats]]]:
        """Yield each category with its weights and biases, the labels weighed."""
        said = told(train, machine, self.folder)
        for name in train.present:
            labels_nA = train.labels(name)
            sizes = [len(choice.values) for choice in train.taxonomy.choices(name)]
            weights_nA = row_weights(labels_nA, sizes, self.class_weight)
            for a, part in enumerate(train.taxonomy.slices(name)):
                weights_nA[:, a] *= trust(said[name][:, part], labels_nA[:, a], self.LEAST)
            problems = Problems(
                torch.from_numpy(reduced_Nr[train.rows(name)][None]),
                torch.from_numpy(labels_nA[None].astype(np.int64)),
                torch.from_numpy(weights_nA[None]),
                sizes,
            )
            weight_CrV, bias_CV = solve(problems, self.l2)
            yield name, (weight_CrV[0].numpy(), bias_CV[0].numpy())


def trust(probs_nv: Floats, label_n: npt.NDArray[np.int32], least: float) -> Floats:
    """Return [n], how much each label counts."""
    weight_n = np.ones(len(label_n), np.float32)
    for value in np.unique(label_n[label_n >= 0]):
        rows = np.flatnonzero(label_n == value)
        stated_m = probs_nv[rows, value]
        weight_n[rows] = np.clip(stated_m / max(float(stated_m.mean()), 1e-6), least, 1.0)
    return weight_n
