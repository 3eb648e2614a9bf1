"""Teacher: what saved Predictions or a bundle say of training products, for a student to learn from.

It does not know how the student learns. Legend: V values packed.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.errors import UsageError
from shelfwise.manifest import INDEX
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.held import read_held
from shelfwise.recipes.sides import check_taxonomies

Floats = npt.NDArray[np.float32]


def taught(path: Path, train: Catalog, machine: Machine) -> Mapping[str, tuple[str, Floats]]:
    """Return, by product id, the category a teacher answered for and its packed probabilities float32 [V].

    Of products that it learnt from, a bundle says what its evidence says out of fold, as far as it has any.

    Args:
        path: saved Predictions (``.parquet``) or a bundle.
        train: the products to learn from.
        machine: where to compute a bundle's answers.

    Raises:
        UsageError: nothing of that kind is there, or it says nothing of any of the products.
        PredictionError, BundleError: it cannot be read, or answers under another taxonomy.
    """
    if path.is_file():
        found = Predictions.load(path)
        check_taxonomies([train.taxonomy, found.taxonomy], [train.source, str(path)])
    elif (path / INDEX).is_file():
        held = read_held(path)
        check_taxonomies([train.taxonomy, held.taxonomy], [train.source, str(path)])
        keeps = held.evidence is not None
        found = held.out_of_fold(train, machine)[0] if keeps else held.predict(train, machine)
    else:
        raise UsageError(f"teacher: there are neither saved Predictions nor a bundle at {path}")
    said: dict[str, tuple[str, Floats]] = {}
    for block in found.blocks:
        for at, row in enumerate(block.rows.tolist()):
            said[found.ids[row]] = block.category, block.probs[at]
    if not said.keys() & set(train.ids):
        raise UsageError(f"teacher: {path} says nothing of any product of {train.source}: no id is the same")
    return said
