"""Every registered recipe keeps the contract of every recipe; what is special to one is tested by hand."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.errors import BundleError, CatalogError, PredictionError
from shelfwise.predictions import Machine, Predictions, Predictor, Recipe
from shelfwise.recipes.neighbours import hash_vectors
from shelfwise.recipes.probe import row_weights
from shelfwise.recipes.weights import read_arrays, write_arrays
from shelfwise.registry import REGISTRIES
from shelfwise.testing import check_options, check_recipe

#: Quick options of every registered recipe; a recipe that is not here fails ``test_every_recipe_is_checked``.
QUICK = {
    "probe": ({"backbone": "toy"}, {"backbone": "toy", "components": 40, "class_weight": 0.0, "l2": 1.0}),
    "neighbours": ({"backbone": "toy"}, {"backbone": "toy", "k": 1}, {"backbone": "toy", "by": "hash"}),
    "finetune": ({"backbone": "toy", "phases": [{"epochs": 4, "lr": 1e-2}], "optimiser": {"warm_up": 0.1}},),
    "treated": ({"recipe": {"name": "probe", "backbone": "toy"}},),
    "parts": (
        {
            "choices": {"name": "probe", "backbone": "toy"},
            "numbers": {"name": "boost", "backbone": "toy", "rounds": 5, "folds": 2},
        },
    ),
    # Other ways to combine: test_ensemble.py.
    "ensemble": ({"members": [{"name": "probe", "backbone": "toy"}, {"name": "neighbours", "by": "hash"}]},),
    "cascade": (
        {
            "members": [{"name": "neighbours", "by": "hash"}, {"name": "probe", "backbone": "toy"}],
            "costs": [1.0, 8.0],
        },
    ),
}
CASES = [(name, options) for name, several in QUICK.items() for options in several]


#: Recipes that need something beside them, and the file of tests that checks their contract with it.
ELSEWHERE = {"vqa": "test_vqa.py", "boost": "test_boost.py"}


def test_every_recipe_is_checked():
    registry = REGISTRIES["recipe"]
    ours = {name for name in registry.names() if registry.get(name).__module__.startswith("shelfwise.")}
    assert set(QUICK) | set(ELSEWHERE) == ours
    for file in ELSEWHERE.values():
        assert "check_recipe(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_recipe_keeps_the_contract(name: str, options: dict[str, object], tmp_path: Path):
    check_recipe(make_recipe({"name": name, **options}), tmp_path)


@pytest.mark.parametrize("name", [*QUICK, *ELSEWHERE])
def test_default_options_are_a_value(name: str):
    check_options(make_recipe({"name": name}))


class Broken:
    """A recipe that is right but for one fault."""

    def __init__(self, inner: Recipe, fault: str) -> None:
        self.inner, self.fault = inner, fault

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> object:
        if self.fault == "learns from missing labels":
            codes = np.where(train.codes == -1, 0, train.codes)
            from dataclasses import replace

            train = replace(train, codes=codes)
        return BrokenPredictor(self.inner.fit(train, valid, machine, seed), self.fault)

    def load(self, directory: Path, taxonomy: object) -> object:
        return BrokenPredictor(self.inner.load(directory, taxonomy), self.fault)  # type: ignore[arg-type]


class BrokenPredictor:
    def __init__(self, inner: Predictor, fault: str) -> None:
        self.inner, self.fault, self.saves = inner, fault, 0

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        from dataclasses import replace

        from shelfwise.predictions import Block, uniform

        found = self.inner.predict(catalog, machine)
        blocks = found.blocks
        if self.fault == "depends on neighbours":
            blocks = tuple(
                Block(b.category, b.rows, (b.probs + b.probs.mean(axis=0)) / 2) for b in found.blocks
            )
        if self.fault == "does not sum to one":
            blocks = tuple(Block(b.category, b.rows, b.probs * np.float32(0.9)) for b in found.blocks)
        if self.fault == "learns nothing":
            blocks = tuple(
                Block(b.category, b.rows, uniform(found.taxonomy, b.category, len(b.rows))) for b in blocks
            )
        return replace(found, blocks=blocks)

    def save(self, directory: Path) -> None:
        self.inner.save(directory)
        self.saves += 1
        if self.fault == "saves differently":
            (directory / "when.txt").write_text(str(self.saves))
        if self.fault == "pickles":
            import pickle

            (directory / "model.bin").write_bytes(pickle.dumps([1, 2]))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("learns nothing", "the majority has"),
        ("does not sum to one", "sum to 1"),
        ("depends on neighbours", "by themselves"),
        ("learns from missing labels", "no labels"),
        ("saves differently", "two saves of one predictor differ"),
        ("pickles", "is a pickle"),
    ],
)
def test_the_kit_finds_faults(fault: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from shelfwise import testing

    monkeypatch.setattr(testing, "check_options", lambda recipe: None)
    recipe = Broken(sw.Neighbours(backbone=sw.backbone("toy")), fault)
    with pytest.raises(AssertionError, match=message):
        check_recipe(recipe, tmp_path)  # type: ignore[arg-type]


def test_a_category_nobody_taught_is_answered_evenly(toy: Toy, machine: Machine, one_thread: None):
    taught = toy.catalog.select(np.flatnonzero(toy.catalog.category != 1))
    for recipe in (sw.Probe(backbone=sw.backbone("toy")), sw.Neighbours(backbone=sw.backbone("toy"))):
        found = recipe.fit(taught, None, machine, 0).predict(toy.catalog, machine)
        block = found.block("Plates")
        assert block is not None
        for part in toy.catalog.taxonomy.slices("Plates"):
            size = part.stop - part.start
            assert np.allclose(block.probs[:, part], 1 / size)


def test_an_empty_table_is_answered_with_nothing(toy: Toy, machine: Machine, one_thread: None):
    for recipe in (sw.Probe(backbone=sw.backbone("toy")), sw.Neighbours(backbone=sw.backbone("toy"))):
        found = recipe.fit(toy.catalog, None, machine, 0).predict(toy.catalog.select([]), machine)
        assert len(found) == 0
        assert found.blocks == ()


def test_nothing_to_learn_from_is_said(toy: Toy, machine: Machine, tmp_path: Path):
    blind = Catalog.read(toy.catalog.frame, images=tmp_path)
    with pytest.raises(CatalogError, match="no product has a readable picture"):
        sw.Probe(backbone=sw.backbone("toy")).fit(blind, None, machine, 0)


def test_vectors_of_another_backbone_are_refused(
    toy: Toy, machine: Machine, one_thread: None, tmp_path: Path
):
    first, second = (sw.Probe(backbone=sw.backbone("toy", seed=seed)) for seed in (0, 1))
    first.fit(toy.catalog, None, machine, 0).save(tmp_path)
    mixed = second.load(tmp_path, toy.catalog.taxonomy)
    with pytest.raises(PredictionError, match="the backbone is not the one"):
        mixed.predict(toy.catalog, machine)


def test_neighbours_vote_by_hand(machine: Machine, tmp_path: Path):
    """One picture per colour; the copies of a picture are its nearest rows and outvote all others."""
    from PIL import Image

    rng = np.random.default_rng(0)
    images = []
    for number in range(3):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / f"{number}.png")
        images += [f"{number}.png"] * 4
    labels = ["x", "x", "x", "y", "y", "y", None, None, None, None, None, None]
    table = pl.DataFrame({"id": [str(k) for k in range(12)], "image": images, "c": labels})
    catalog = Catalog.read(table, images=tmp_path, columns=sw.Columns(choice=("c",)))
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=4)
    found = recipe.fit(catalog, None, machine, 0).predict(catalog, machine)
    probs = found.blocks[0].probs
    # Six labels, three of each value: the prior is one half, worth one vote.
    assert probs[0] == pytest.approx([(3 + 0.5) / 5, (1 + 0.5) / 5], abs=1e-6)
    # The second picture has two labelled copies, both y; its other two votes come from elsewhere.
    assert probs[4, 1] >= (2 + 0.5) / 5
    assert probs.sum(axis=1) == pytest.approx(1)


def test_hash_vectors_count_equal_bits():
    colour = np.array([[128, 10, 200], [128, 10, 200], [128, 200, 10]], np.uint8)
    vectors = hash_vectors(np.array([0b1011, 0b1010, 0b1011], np.uint64), colour)
    products = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    assert products[0, 1] == pytest.approx(62 + 0.99**2, abs=1e-4)
    cosine = -2 * 118 * 72 / (118**2 + 72**2)
    assert products[0, 2] == pytest.approx(64 + 0.99**2 * cosine, abs=1e-4)
    assert products[0, 0] > products[0, 2] > 62 + 0.99**2 - 1e-4 >= products[0, 1] - 2e-4


def test_row_weights_skip_missing():
    labels = np.array([[0], [0], [0], [1], [-1]], np.int32)
    assert row_weights(labels, [3], 1.0).ravel().tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2, 0])
    assert row_weights(labels, [3], 0.0).ravel().tolist() == [1, 1, 1, 1, 0]


def test_arrays_on_disk(tmp_path: Path):
    texts = {f"key {k}": f"text {k} é" for k in range(20)}
    arrays = {"b": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::2], "a": np.zeros((0, 3), np.float32)}
    contents = set()
    for _ in range(6):
        write_arrays(tmp_path, arrays, texts)
        contents.add((tmp_path / "weights.safetensors").read_bytes())
    assert len(contents) == 1, "the same content is the same bytes"
    found, said = read_arrays(tmp_path)
    assert said == texts
    assert set(found) == set(arrays)
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype
        for name, array in arrays.items()
    )
    (tmp_path / "weights.safetensors").write_bytes(contents.pop()[:-5])
    with pytest.raises(BundleError, match="cannot be read"):
        read_arrays(tmp_path)
    with pytest.raises(BundleError, match="cannot be read"):
        read_arrays(tmp_path / "none")
