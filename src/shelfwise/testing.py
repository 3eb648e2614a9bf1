"""Testing: toy catalogue, toy backbone, check_recipe: the conformance kit.

It knows contracts, not how anything keeps them. Whoever registers a recipe or a loss runs the kit over it:
each check raises ``AssertionError`` with a sentence that says what was promised and what was found.
Importing this module registers the backbone ``toy``.
Legend: n rows of one category, A its Choice attributes, V their values packed.
"""

import itertools
import math
import pickle
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe, to_toml
from shelfwise.errors import PredictionError
from shelfwise.head_contract import check_head
from shelfwise.number_loss_contract import check_number_loss
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.registry import REGISTRIES
from shelfwise.text_contract import check_text_encoder
from shelfwise.toys import toy, toy_catalog

__all__ = [
    "check_head",
    "check_loss",
    "check_number_loss",
    "check_options",
    "check_recipe",
    "check_text_encoder",
    "toy",
    "toy_catalog",
]

#: Probabilities that are promised to be the same may differ by this much.
CLOSE = 1e-5


@dataclass(frozen=True, eq=False)
class _Case:
    """A recipe fitted on part of the toy catalogue, and what it says of the rest."""

    recipe: Recipe
    directory: Path
    machine: Machine
    train: Catalog
    test: Catalog
    predictor: Predictor
    found: Predictions

    def predict(self, catalog: Catalog) -> Predictions:
        return self.predictor.predict(catalog, self.machine)

    def fit(self, train: Catalog) -> Predictor:
        """Learn anew: a recipe that goes on with trainings it finds in ``runs`` finds none."""
        runs = self.directory / f"runs-{uuid.uuid4().hex[:8]}"
        return self.recipe.fit(train, None, replace(self.machine, runs=runs), 0)

    def reread(self, frame: pl.DataFrame) -> Catalog:
        """Rows of the test table, changed, read as a later table is."""
        return Catalog.read(frame, images=self.directory, schema=self.train.schema)


def check_recipe(recipe: Recipe, directory: str | Path, *, machine: Machine | None = None) -> None:
    """Make sure that a recipe keeps the contract of every recipe, on the toy catalogue.

    It is a value (frozen, hashable, equal to its TOML table); it learns more than the majority; every row
    comes out once, as probabilities or as an error; a row's answer depends on that row alone and on
    nothing like order or neighbours; missing labels teach nothing (the training rows are given a second
    time without labels, which leaves every average over pictures as it is); an empty category is predicted
    and said to be; it is saved without pickles, byte for byte the same twice, and loaded as it was; it
    refuses another taxonomy.

    Args:
        recipe: with options that make it quick, such as ``backbone="toy"``.
        directory: an empty one for catalogue, cache and saved predictors.
        machine: where to compute; by default one thread of plain torch and a cache in ``directory``.

    Raises:
        AssertionError: the first promise that is not kept.
    """
    from shelfwise.models.towers import one_thread

    check_options(recipe)
    with one_thread():
        _check(recipe, Path(directory), machine)


def _check(recipe: Recipe, directory: Path, machine: Machine | None) -> None:
    machine = machine or Machine(cache=directory / "cache", jobs=1, engine="torch")
    catalog = Catalog.read(toy_catalog(directory))
    positions = np.arange(len(catalog))
    train, test = catalog.select(positions[positions % 3 > 0]), catalog.select(positions[positions % 3 == 0])
    predictor = recipe.fit(train, None, machine, 0)
    found = predictor.predict(test, machine)
    case = _Case(recipe, directory, machine, train, test, predictor, found)
    _check_shape(case.found, test)
    _check_learns(case)
    _check_same(case)
    _check_bad_rows(case)
    _check_missing(case)
    _check_saved(case)
    _check_taxonomy(case)


def check_options(recipe: Recipe) -> None:
    """Make sure that a recipe is a value: frozen, hashable, printable and equal to its TOML table.

    Raises:
        AssertionError: it is not.
    """
    name, table = recipe.name, recipe.table()
    assert name in REGISTRIES["recipe"].names(), f"the recipe {name!r} is not registered"
    assert table.get("name") == name, f"{name}: its table names {table.get('name')!r}"
    assert make_recipe(table) == recipe, f"{name}: is not equal to the recipe made of its table"
    written = tomllib.loads(to_toml({"recipe": table}))["recipe"]
    assert make_recipe(written) == recipe, f"{name}: is not equal to the recipe read back from TOML"
    assert hash(make_recipe(table)) == hash(recipe), f"{name}: equal recipes have different hashes"
    for option in table.keys() - {"name"}:
        try:
            setattr(recipe, option, getattr(recipe, option))
        except (AttributeError, TypeError, ValueError):
            continue
        raise AssertionError(f"{name}: the option {option!r} can be changed; a recipe is frozen")
    shown = repr(recipe)
    lost = [option for option in table.keys() - {"name"} if option not in shown]
    assert not lost, f"{name}: its repr does not show {sorted(lost)}"


def check_loss(name: str, **options: Any) -> None:
    """Make sure that a registered loss teaches, and that a missing label teaches nothing.

    Through the Objective: every labelled cell has a finite loss and a gradient that is not zero, a masked
    cell has a zero gradient and does not change the others', and a step down the gradient lowers the loss.

    Args:
        name: the registered loss.
        options: its options.

    Raises:
        AssertionError: it does not.
    """
    import torch

    from shelfwise.models.losses import Objective
    from shelfwise.taxonomy import Choice, Taxonomy

    taxonomy = Taxonomy({"k": (Choice("a", ("p", "q")), Choice("b", ("r", "s", "t")))})
    objective = Objective(taxonomy, REGISTRIES["loss"].spec(name, **options))
    logits_nV = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    labels_nA = torch.tensor([[0, 2], [1, -1], [-1, 0], [-1, -1], [1, 1]])

    def gradient(labels: torch.Tensor) -> tuple[float, torch.Tensor]:
        given = logits_nV.clone().requires_grad_()
        value = objective([("k", given, labels)])
        value.backward()
        assert given.grad is not None, f"{name}: gives no gradient at all"
        return float(value.detach()), given.grad

    value, grad_nV = gradient(labels_nA)
    assert math.isfinite(value), f"{name}: the loss is {value}"
    for row, attribute in itertools.product(range(5), range(2)):
        cell = grad_nV[row, taxonomy.slices("k")[attribute]]
        if labels_nA[row, attribute] < 0:
            assert bool((cell == 0).all()), f"{name}: a missing label has the gradient {cell.tolist()}"
        else:
            assert bool(cell.abs().max() > 1e-7), f"{name}: a labelled cell has the gradient {cell.tolist()}"
    kept = [0, 1, 2, 4]
    shifted = objective([("k", logits_nV[kept], labels_nA[kept])])
    assert abs(float(shifted) - value) < 1e-6, f"{name}: a row without labels changes the loss"
    lower = float(objective([("k", logits_nV - 0.05 * grad_nV / grad_nV.abs().max(), labels_nA)]))
    assert lower < value, f"{name}: a step down its gradient raises it from {value} to {lower}"
    _, none = gradient(torch.full_like(labels_nA, -1))
    assert bool((none == 0).all()), f"{name}: a batch without labels has a gradient"


def _check_shape(found: Predictions, catalog: Catalog) -> None:
    """One row in, one row out; probabilities that are some."""
    assert found.ids == catalog.ids, "the predictions' ids are not the table's, in its order"
    rows = sorted([row for block in found.blocks for row in block.rows.tolist()] + list(found.errors))
    assert rows == list(range(len(catalog))), "a row is not in exactly one block or in the errors"
    for block in found.blocks:
        assert block.probs.dtype == np.float32, f"{block.category}: {block.probs.dtype}, not float32"
        assert bool((np.diff(block.rows) > 0).all()), f"{block.category}: rows are not ascending"
        assert bool((block.probs >= 0).all()), f"{block.category}: a probability is negative or NaN"
        for part in catalog.taxonomy.slices(block.category):
            if part.stop > part.start:
                off = float(np.abs(block.probs[:, part].sum(axis=1) - 1).max())
                assert off < 1e-4, f"{block.category}: the values of an attribute sum to 1 {off:+.2g}"
    stated = np.flatnonzero(catalog.category >= 0).tolist()
    for row in stated:
        block_of = next((b.category for b in found.blocks if row in b.rows), None)
        name = catalog.taxonomy.categories[catalog.category[row]]
        assert block_of in (name, None), f"row {row + 1} is a {name!r} and was answered as {block_of!r}"


def _check_learns(case: _Case) -> None:
    """Mean accuracy over (category, attribute) must beat always saying the most frequent value."""
    learnt, simple = [], []
    for block in case.found.blocks:
        truth_nA, taught_nA = case.test.labels(block.category), case.train.labels(block.category)
        for attribute, part in enumerate(case.test.taxonomy.slices(block.category)):
            truth = truth_nA[:, attribute]
            taught = taught_nA[taught_nA[:, attribute] >= 0, attribute]
            stated = truth >= 0
            learnt.append((block.probs[:, part].argmax(axis=1) == truth)[stated].mean())
            simple.append((np.bincount(taught).argmax() == truth)[stated].mean())
    got, least = float(np.mean(learnt)), float(np.mean(simple)) + 0.03
    assert got > least, f"{case.recipe.name}: mean accuracy {got:.3f}, the majority has {least - 0.03:.3f}"


def _equal(first: Predictions, second: Predictions, what: str, close: float = CLOSE) -> None:
    """The same rows in the same blocks with the same probabilities, and the same answers."""
    assert first.ids == second.ids, f"{what}: other ids"
    assert dict(first.errors) == dict(second.errors), f"{what}: other errors"
    names = [block.category for block in first.blocks], [block.category for block in second.blocks]
    assert names[0] == names[1], f"{what}: other categories, {names[1]} after {names[0]}"
    for one, two in zip(first.blocks, second.blocks, strict=True):
        assert np.array_equal(one.rows, two.rows), f"{what}: other rows in {one.category!r}"
        off = float(np.abs(one.probs - two.probs).max(initial=0))
        assert off <= close, f"{what}: probabilities in {one.category!r} differ by {off:.2g}"
    answers = first.answers().blocks, second.answers().blocks
    for a, b, block in zip(*answers, first.blocks, strict=True):
        for attribute, part in enumerate(first.taxonomy.slices(block.category)):
            if part.stop - part.start < 2:
                continue
            ordered = np.sort(block.probs[:, part], axis=1)
            clear = ordered[:, -1] - ordered[:, -2] > 2 * close
            same = a.codes[:, attribute] == b.codes[:, attribute]
            assert bool(same[clear].all()), f"{what}: other answers in {block.category!r}"


def _check_same(case: _Case) -> None:
    """The same in, the same out, whatever stands beside a row, in prediction and in training."""
    name, test, n = case.recipe.name, case.test, len(case.test)
    _equal(case.found, case.predict(test), f"{name}: predicting twice", close=0)
    order = np.random.default_rng(1).permutation(n)
    _equal(case.found.select(order), case.predict(test.select(order)), f"{name}: shuffled rows")
    for size in (1, 7):
        starts = [slice(at, at + size) for at in (0, n // 2, n - size)]
        for part in (np.arange(n)[where] for where in starts):
            _equal(
                case.found.select(part), case.predict(test.select(part)), f"{name}: {size} rows by themselves"
            )
    mixed = np.random.default_rng(2).permutation(len(case.train))
    again = case.fit(case.train.select(mixed))
    what = f"{name}: learnt from shuffled rows"
    _equal(case.found, again.predict(test, case.machine), what, close=1e-3)


def _check_bad_rows(case: _Case) -> None:
    """An unreadable picture and an unknown category are errors of their rows; an empty one is predicted.

    Of a recipe that reads texts for Choice attributes, a row without a text as well.
    """
    name, frame = case.recipe.name, case.test.frame
    inputs = getattr(case.recipe, "choice_inputs", ("image",))
    (case.directory / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    images, categories, titles = (frame[column].to_list() for column in ("image", "category", "title"))
    bad = {1: "broken.png", 4: "images/none.png", 5: "../../etc/passwd", 6: None}
    for row, cell in bad.items():
        images[row] = cell
        titles[row] = None if "text" in inputs else titles[row]
    categories[8], categories[11], categories[13] = "Spaceships", None, None
    changed = frame.with_columns(
        pl.Series("image", images), pl.Series("category", categories), pl.Series("title", titles)
    )
    catalog = case.reread(changed)
    found = case.predict(catalog)
    _check_shape(found, catalog)
    wrong, expected = sorted(found.errors), sorted([*bad, 8])
    assert wrong == expected, f"{name}: errors on the rows {wrong}, not on {expected}"
    fields = {found.errors[row].field for row in bad}
    field = "image" if "image" in inputs else "title"
    assert fields == {field}, f"{name}: unreadable pictures are errors of {fields}, not of {field!r}"
    assert found.errors[8].field == "category", f"{name}: the unknown category is no error of its column"
    assert "Spaceships" in found.errors[8].message, f"{name}: the error does not name the unknown category"
    guessed = sorted(found.guessed)
    assert guessed == [11, 13], f"{name}: categories guessed on the rows {guessed}, not on [11, 13]"
    for row, probability in found.guessed.items():
        assert 0 < probability <= 1, f"{name}: the category of row {row + 1} has probability {probability}"
    others = [row for row in range(len(catalog)) if row not in (*bad, 8, 11, 13)]
    _equal(case.found.select(others), found.select(others), f"{name}: rows beside broken ones")


def _check_missing(case: _Case) -> None:
    """The training rows a second time, without labels, change nothing for rows with a stated category.

    Doubling leaves all that may be learnt without labels as it is: means, spreads and axes over pictures.
    """
    name, frame = case.recipe.name, case.train.frame
    blank = frame.with_columns(
        (pl.col("id") + "-again").alias("id"),
        *(pl.lit(None, pl.String).alias(column) for column in case.train.schema.roles.choices),
    )
    doubled = case.reread(pl.concat([frame, blank]))
    found = case.fit(doubled).predict(case.test, case.machine)
    _equal(case.found, found, f"{name}: learnt with rows that have no labels", close=2e-3)
    tokens = frame.with_columns(
        pl.col(column).fill_null("Dummy_Values") for column in case.train.schema.roles.choices
    )
    respelt = case.fit(case.reread(tokens))
    what = f"{name}: missing labels written as Dummy_Values"
    _equal(case.found, respelt.predict(case.test, case.machine), what)


@contextmanager
def _no_pickles(name: str) -> Iterator[None]:
    """Fail where anything is unpickled."""
    kept = pickle.load, pickle.loads, pickle.Unpickler

    def refuse(*given: Any, **options: Any) -> Any:
        raise AssertionError(f"{name}: loading unpickles something")

    pickle.load = pickle.loads = refuse
    pickle.Unpickler = refuse  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        pickle.load, pickle.loads, pickle.Unpickler = kept  # type: ignore[misc]


def _check_saved(case: _Case) -> None:
    """Saved twice byte for byte alike, learnt twice alike, loaded as it was, without pickles."""
    name = case.recipe.name
    again = case.fit(case.train)
    contents = []
    for at, predictor in enumerate((case.predictor, case.predictor, again)):
        folder = case.directory / f"saved-{at}"
        folder.mkdir()
        predictor.save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        contents.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert contents[0], f"{name}: saving writes no file"
    assert contents[0] == contents[1], f"{name}: two saves of one predictor differ"
    assert contents[0] == contents[2], f"{name}: learning twice with one seed gives different files"
    for file, data in contents[0].items():
        pickled = data[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
        assert not pickled, f"{name}: {file} is a pickle or an archive"
    with _no_pickles(name):
        loaded = case.recipe.load(case.directory / "saved-0", case.train.taxonomy)
        found = loaded.predict(case.test, case.machine)
    _equal(case.found, found, f"{name}: saved and loaded", close=0)


def _check_taxonomy(case: _Case) -> None:
    """Rows read under another taxonomy are refused, not answered with its codes."""
    cells = case.test.frame["colour"].to_list()
    cells[0] = "amber"
    other = Catalog.read(case.test.frame.with_columns(pl.Series("colour", cells)), images=case.directory)
    assert other.taxonomy != case.train.taxonomy, "the toy catalogue with another value has the same taxonomy"
    try:
        case.predict(other)
    except PredictionError:
        return
    raise AssertionError(f"{case.recipe.name}: answers rows that were read under another taxonomy")
