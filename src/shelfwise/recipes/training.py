"""Training: from a catalogue and a fine-tune recipe to tuned networks that can answer.

It knows which products and which networks; how one of them is trained is in ``training_run``.
Legend: N products, r components of features.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shelfwise.catalog import Catalog
from shelfwise.data.group import near_duplicates
from shelfwise.errors import CatalogError, UsageError
from shelfwise.files import cache_directory
from shelfwise.models.number_heads import prior_quantiles
from shelfwise.models.towers import one_thread
from shelfwise.predictions import Machine
from shelfwise.recipes.sources import first_weights
from shelfwise.recipes.space import learn_discriminant, learn_space
from shelfwise.recipes.training_run import Run, Shared
from shelfwise.recipes.tuned import ALL, Guess, Tuned, TunedPredictor, part_of
from shelfwise.taxonomy import Taxonomy
from shelfwise.train.track import Record

if TYPE_CHECKING:
    from torch import Tensor

    from shelfwise.recipes.finetune import FineTune

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
#: Products that categories are told apart by, and components of their features.
GUESS_ROWS, GUESS_COMPONENTS = 4096, 128


def learn(
    recipe: "FineTune", train: Catalog, valid: Catalog | None, machine: Machine, seed: int
) -> TunedPredictor:
    """Train one network for all categories, or one for each.

    Products are taken in the order of their ids and everything is drawn from ids and the seed, so the order of the
    table makes no difference.

    Raises:
        CatalogError: no row has a readable picture, a category and a label.
        UsageError: options that do not fit together, the taxonomy or the backbone.
    """
    taxonomy = train.taxonomy
    recipe.augment.check(taxonomy)
    if recipe.mmd.weight and recipe.unlabelled is None:
        raise UsageError("mmd needs the features of products without labels: name their table in unlabelled")
    taught = _teacher(recipe, train, machine)
    numbers = taxonomy.number_names if recipe.learns_numbers(taxonomy) else ()
    train, valid = labelled(train, taught, numbers), None if valid is None else labelled(valid, {}, numbers)
    if not len(train):
        raise CatalogError(
            f"{train.source}: no product states a category and a value of one of its attributes"
        )
    if valid is None and recipe.validation:
        groups = near_duplicates(train, cache=cache_directory(machine.cache), jobs=machine.jobs)
        train, valid = train.split(recipe.validation, groups=groups, seed=seed)
    shared = Shared(recipe, machine, seed, _unlabelled(recipe, train), taught, _begin(recipe))
    nets: dict[str, Tuned] = {}
    learnt: list[str] = []
    epochs: list[Sequence[Record]] = []
    for name, own, part in _parts(recipe, train):
        inside = None if valid is None else valid.select(np.flatnonzero(_within(valid, own)))
        run = Run(shared, name, own, part, inside if inside is not None and len(inside) else None)
        nets[name] = run.network()
        learnt += run.learnt
        epochs.append(run.epochs)
    guess = _guess(train.select(_some_rows(train)), nets, machine)
    priors = _priors(train, numbers)
    return TunedPredictor(recipe, taxonomy, nets, guess, tuple(dict.fromkeys(learnt)), joined(epochs), priors)


def labelled(
    catalog: Catalog, taught: Mapping[str, tuple[str, Floats]] | None = None, numbers: Sequence[str] = ()
) -> Catalog:
    """Return the rows with a category and something to learn of it, in the order of their ids.

    Args:
        catalog: the products.
        taught: by id, the category that a teacher speaks of: a label can be missing where it does.
        numbers: the names of the Numbers that are learnt; one that is stated is something to learn.
    """
    usable_N = np.zeros(len(catalog), np.bool_)
    for name in numbers:
        usable_N |= np.isfinite(catalog.numbers(name)) & (catalog.category >= 0)
    said = taught or {}
    for category in catalog.present:
        rows, labels_nA = catalog.rows(category), catalog.labels(category)
        spoken = [said.get(catalog.ids[row], ("",))[0] == category for row in rows.tolist()]
        usable_N[rows] |= (labels_nA >= 0).any(axis=1) | np.array(spoken, np.bool_)

    columns = [catalog.numbers(name) for name in numbers]

    def key(row: int) -> tuple[str, str, bytes]:
        stated = b"".join(column_N[row].tobytes() for column_N in columns)
        return catalog.ids[row], str(catalog.images[row]), catalog.codes[row].tobytes() + stated

    return catalog.select(np.array(sorted(np.flatnonzero(usable_N).tolist(), key=key), dtype=np.int64))


def _parts(recipe: "FineTune", train: Catalog) -> list[tuple[str, Taxonomy, Catalog]]:
    """The networks to train: name, taxonomy of its heads, products."""
    if not recipe.per_category:
        return [(ALL, train.taxonomy, train)]
    codes = train.taxonomy.category_codes
    return [
        (str(codes[name]), part_of(train.taxonomy, name), train.select(train.rows(name)))
        for name in train.present
    ]


def _within(catalog: Catalog, own: Taxonomy) -> npt.NDArray[np.bool_]:
    codes = [catalog.taxonomy.category_codes[name] for name in own.categories]
    return np.isin(catalog.category, codes)


def _some_rows(catalog: Catalog) -> Ints:
    """Rows whose picture can be located, at most ``GUESS_ROWS`` of them, spread over the ids by chance."""
    rows = [row for row, path in enumerate(catalog.images) if path is not None]
    rows.sort(key=lambda row: hashlib.blake2b(catalog.ids[row].encode(), digest_size=8).digest())
    return np.array(sorted(rows[:GUESS_ROWS]), dtype=np.int64)


def _unlabelled(recipe: "FineTune", train: Catalog) -> Catalog | None:
    """Read the table of products without labels, and put it into the order of its ids."""
    if not recipe.mmd.weight or recipe.unlabelled is None:
        return None
    given = Catalog.read(recipe.unlabelled, images=recipe.unlabelled_images, schema=train.schema)
    rows = [row for row, path in enumerate(given.images) if path is not None]
    if not rows:
        raise CatalogError(f"{given.source}: no picture of the unlabelled products can be found")
    rows.sort(key=lambda row: (given.ids[row], str(given.images[row])))
    return given.select(np.array(rows, dtype=np.int64))


def _teacher(recipe: "FineTune", train: Catalog, machine: Machine) -> Mapping[str, tuple[str, Floats]]:
    """What the teacher says, by id: the category it answered for, and its packed probabilities."""
    if recipe.teacher is None:
        return {}
    from shelfwise.recipes.teacher import taught

    return taught(recipe.teacher, train, machine)


def _begin(recipe: "FineTune") -> Mapping[str, "Tensor"]:
    """The weights that a network begins with in place of its published ones."""
    if recipe.start_from is None:
        return {}
    return first_weights(recipe.start_from, recipe.backbone.table(), recipe.start == "kept")


def _guess(train: Catalog, nets: Mapping[str, Tuned], machine: Machine) -> Guess:
    """Learn to tell the categories apart on tuned features."""
    count = len(train.taxonomy.categories)
    name = max(nets, key=lambda net: (sum(int(v.sum()) for v in nets[net].counts.values()), net))
    kept, vectors_ND = np.arange(len(train)), np.zeros((0, 0), np.float32)
    if len(np.unique(train.category)) > 1:
        vectors_ND, errors = nets[name].vectors(train, machine)
        kept = np.setdiff1d(kept, list(errors))
    if len(np.unique(train.category[kept])) < 2:
        bias_C = np.full(count, -np.inf, np.float32)
        bias_C[np.bincount(train.category, minlength=count).argmax()] = 0
        return Guess(name, None, np.zeros((0, count), np.float32), bias_C)
    pooled_ND = nets[name].pooled(vectors_ND[kept])
    with one_thread():
        space = learn_space(pooled_ND, GUESS_COMPONENTS)
        reduced_Nr = space.apply(pooled_ND)
        return Guess(name, space, *learn_discriminant(reduced_Nr, train.category[kept], count))


def _priors(train: Catalog, numbers: Sequence[str]) -> Mapping[str, Floats]:
    """What is said of each Number where neither picture nor text says anything: quantiles by category."""
    return {
        name: prior_quantiles(
            train.taxonomy.number(name), train.numbers(name), train.category, len(train.taxonomy.categories)
        )
        for name in numbers
        if np.isfinite(train.numbers(name)).any()
    }


def joined(several: Sequence[Sequence[Record]]) -> tuple[Record, ...]:
    """Return the epochs of several trainings side by side: the mean of their losses and scores, all their pairs."""
    if len(several) == 1:
        return tuple(several[0])
    found = []
    for number in range(max(len(epochs) for epochs in several)):
        here = [epochs[number] for epochs in several if number < len(epochs)]
        record = dict(here[0])
        for key in ("loss", "score"):
            known = [float(each[key]) for each in here if each.get(key) is not None]
            record[key] = sum(known) / len(known) if known else None
        for key in ("scores", "pair_loss"):
            pairs = [pair for each in here for pair in each.get(key, ())]
            if pairs:
                record[key] = pairs
        found.append(record)
    return tuple(found)
