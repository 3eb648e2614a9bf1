"""Sources: bundles that a recipe learns from beside the labels, and whether they have seen what is held out.

It does not know how the recipe learns from them: a teacher's answers are in ``teacher``, a first network here.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shelfwise.catalog import Catalog
from shelfwise.errors import PredictionError, UsageError
from shelfwise.manifest import EVIDENCE, INDEX, OPTIONS
from shelfwise.predictions import Recipe
from shelfwise.recipes.held import read_held
from shelfwise.recipes.index import FILE, TrainingIndex
from shelfwise.taxonomy import Taxonomy
from shelfwise.trust.evidence import Evidence

if TYPE_CHECKING:
    from torch import Tensor

    from shelfwise.recipes.tuned import Tuned

#: Options of recipes that name a bundle whose knowledge goes into what is learnt.
KEYS = ("teacher", "start_from")


def check_unseen(recipe: Recipe, held_out: Catalog) -> None:
    """Make sure that no bundle a recipe learns from knows the labels of products that it is to be judged on.

    Products are told by their ids, where the taxonomy is the same; saved Predictions do not say what they were learnt
    from, so they are taken at their word.

    Raises:
        PredictionError: one does.
    """
    for key, path in _named(recipe.table()):
        seen = _learnt(path, held_out.taxonomy) if (path / INDEX).is_file() else frozenset()
        both = [id_ for id_ in held_out.ids if id_ in seen]
        if both:
            raise PredictionError(
                f"{key}: {path} has learnt from {len(both):,} of the {len(held_out):,} products held out as evidence, "
                f"such as {both[0]!r}: the score would be too kind. Fit it, and this, with data.learn_from = "
                '"split" and the same data.evidence and seed: then both hold out the same products'
            )


def _named(value: Any) -> Iterator[tuple[str, Path]]:
    """Yield the bundles that a recipe's table, or one in it, names as sources."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in KEYS and inner is not None:
                yield key, Path(str(inner))
            else:
                yield from _named(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner)


def _learnt(path: Path, taxonomy: Taxonomy) -> frozenset[str]:
    """Return the ids of the products whose labels a bundle has learnt from."""
    own = Taxonomy.load(path / "taxonomy.json")
    if own.hash != taxonomy.hash or not (path / FILE).is_file():
        return frozenset()
    found = frozenset(TrainingIndex.load(path, own).ids)
    data = tomllib.loads((path / OPTIONS).read_text(encoding="utf-8")).get("data", {})
    if data.get("learn_from") != "split" or not (path / EVIDENCE).is_file():
        return found
    evidence = Evidence.load(path / EVIDENCE)
    rows = np.concatenate([np.zeros(0, np.int64), *(block.rows for block in evidence.blocks)])
    return found - {evidence.ids[row] for row in rows.tolist()}


def first_weights(path: Path, backbone: Mapping[str, Any], heads: bool = False) -> "Mapping[str, Tensor]":
    """Return the weights that a bundle's fine-tune ended with, by their names in its network.

    Of several networks it is the first of those with the same backbone, else the first.

    Args:
        path: of the bundle: a fine-tune, or anything with one among its members; its taxonomy may be another one.
        backbone: the table of the backbone that is to begin with them.
        heads: whether those of heads and standardisation are wanted too, not the tower's alone.

    Raises:
        UsageError: there is no bundle, or no fine-tuned network in it.
        BundleError: it cannot be read.
    """
    if not (path / INDEX).is_file():
        raise UsageError(f"start_from: there is no bundle at {path}")
    found = list(_networks(read_held(path).predictor))
    if not found:
        raise UsageError(f"start_from: {path} holds no fine-tuned network; name the bundle of a finetune")
    same = [net for table, net in found if table == backbone]
    state = (same or [net for _, net in found])[0].network.state_dict()
    return {name: value for name, value in state.items() if heads or name.startswith("tower.")}


def _networks(predictor: Any) -> "Iterator[tuple[Mapping[str, Any], Tuned]]":
    """Yield the tables of the backbones and the networks of a predictor and of its members."""
    from shelfwise.recipes.tuned import TunedPredictor

    if isinstance(predictor, TunedPredictor):
        for net in predictor.nets.values():
            yield predictor.recipe.backbone.table(), net
    for member in (*getattr(predictor, "members", ()), getattr(predictor, "predictor", None)):
        if member is not None:
            yield from _networks(member)
