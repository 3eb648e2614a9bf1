"""Neighbours: every way of searching, weighing and hashing keeps the contract, and votes as computed by hand."""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.data.facts import facts_of
from shelfwise.errors import ConfigError, MissingExtra
from shelfwise.models import approximate
from shelfwise.models.approximate import FaissIndex, index_of
from shelfwise.models.nearest import Index
from shelfwise.predictions import Machine
from shelfwise.recipes.neighbours import _first_of_group, hash_vectors, hashes_of
from shelfwise.testing import check_recipe

FAISS = ("faiss-flat", "faiss-ivf", "faiss-hnsw")


def rows_and_queries(seed: int = 0, count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in clusters, as embeddings are; copies of rows among them."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, 24))
    drawn = centres[rng.integers(0, 40, count + 90)] + 0.6 * rng.standard_normal((count + 90, 24))
    drawn[10:20] = drawn[0]
    unit = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit[:count], unit[count:]


@pytest.mark.parametrize(
    "options",
    [
        {"k": 5, "weighting": "similarity"},
        {"standardise": False, "one_vote": True},
        {"by": "hash", "hashes": "all", "weighting": "similarity", "power": 2.0},
        {"search": "faiss-flat"},
        {"search": "faiss-hnsw", "by": "hash", "one_vote": True},
    ],
    ids=str,
)
def test_the_contract(options: dict[str, object], tmp_path: Path):
    check_recipe(make_recipe({"name": "neighbours", "backbone": "toy", **options}), tmp_path)


@pytest.mark.parametrize("search", ["faiss-flat", "faiss-ivf", "faiss-hnsw"])
def test_recall_and_scores_against_exact(search: str):
    rows, queries = rows_and_queries()
    expected, values = Index(rows).search(queries, 15)
    found, scores = index_of(rows, search).search(queries, 15)  # type: ignore[arg-type]
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), expected.tolist(), strict=True)]
    assert sum(hits) / expected.size >= (1.0 if search == "faiss-flat" else 0.95)
    exact = np.einsum("qd,qkd->qk", queries.astype(np.float64), rows[found].astype(np.float64))
    assert scores == pytest.approx(exact, abs=1e-12), "scores are exact whatever the index"
    assert (np.diff(scores, axis=1) <= 0).all()
    if search == "faiss-flat":
        assert np.array_equal(found, expected), "ties go to the smaller row, as in exact search"
        assert np.array_equal(scores, values)


@pytest.mark.parametrize("search", FAISS)
def test_an_index_is_deterministic(search: str):
    """Built twice, asked one by one, in blocks and in another order: the same rows."""
    rows, queries = rows_and_queries(1, 1500)
    first, second = FaissIndex(rows, search), FaissIndex(rows.copy(), search)  # type: ignore[arg-type]
    found, scores = first.search(queries, 7)
    again, _ = second.search(queries[::-1], 7)
    assert np.array_equal(found, again[::-1])
    for at in (0, 30, 89):
        alone, score = second.search(queries[at : at + 1], 7)
        assert np.array_equal(alone[0], found[at])
        assert np.array_equal(score[0], scores[at])


def test_kinds_are_really_built():
    rows, _ = rows_and_queries(2, 1200)
    kinds = [type(FaissIndex(rows, search)._built).__name__ for search in FAISS]  # type: ignore[arg-type]
    assert kinds == ["IndexFlatIP", "IndexIVFFlat", "IndexHNSWFlat"]
    assert type(FaissIndex(rows[:50], "faiss-hnsw")._built).__name__ == "IndexFlatIP"


def test_queries_that_an_index_leaves_short_are_searched_exactly(monkeypatch: pytest.MonkeyPatch):
    rows, queries = rows_and_queries(3, 200)
    index = FaissIndex(rows, "faiss-flat")
    whole = FaissIndex._candidates

    def short(self: FaissIndex, some: np.ndarray, wanted: int) -> np.ndarray:
        found = whole(self, some, wanted).copy()
        found[::2, 3:] = -1
        return found

    monkeypatch.setattr(FaissIndex, "_candidates", short)
    assert np.array_equal(index.search(queries, 9)[0], Index(rows).search(queries, 9)[0])


def test_no_rows_no_queries_few_rows():
    empty = np.zeros((0, 4), np.float32)
    assert index_of(empty, "faiss-ivf").search(np.ones((3, 4), np.float32), 5)[0].shape == (3, 0)
    assert index_of(np.ones((3, 4), np.float32), "faiss-ivf").search(empty, 5)[1].shape == (0, 3)
    assert index_of(np.eye(4, dtype=np.float32), "faiss-hnsw").search(np.eye(4, dtype=np.float32), 9)[
        0
    ].shape == (4, 4)


def test_without_faiss_the_extra_is_named(toy: Toy, machine: Machine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), search="faiss-flat")
    with pytest.raises(MissingExtra, match=r"shelfwise\[knn\]"):
        recipe.fit(toy.catalog, None, machine, 0)
    with pytest.raises(MissingExtra, match=r"shelfwise\[knn\]"):
        index_of(np.ones((3, 4), np.float32), "faiss-ivf")


@pytest.mark.parametrize("search", ["faiss-ivf", "faiss-hnsw"])
def test_faiss_answers_as_exact_search_does(
    search: str, toy: Toy, machine: Machine, one_thread: None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(approximate, "FEW", 10)
    recipes = [sw.Neighbours(backbone=sw.backbone("toy"), k=5, search=s) for s in ("exact", search)]  # type: ignore[arg-type]
    exact, found = (r.fit(toy.catalog, None, machine, 0).predict(toy.catalog, machine) for r in recipes)
    for one, two in zip(exact.blocks, found.blocks, strict=True):
        assert np.abs(one.probs - two.probs).mean() < 0.02


def by_hand(tmp_path: Path, labels: list[str | None], copies: int = 4) -> Catalog:
    """Noise pictures; every picture has ``copies`` rows in a row."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(len(labels) // copies):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / f"{number}.png")
        images += [f"{number}.png"] * copies
    table = pl.DataFrame({"id": [f"{n:02d}" for n in range(len(labels))], "image": images, "c": labels})
    return Catalog.read(table, images=tmp_path, columns=sw.Columns(choice=("c",)))


def test_near_duplicates_have_one_vote(machine: Machine, tmp_path: Path):
    """Of four copies of one picture the nearest speaks; the next picture is as strong as all of them."""
    catalog = by_hand(tmp_path, ["x", "x", "x", "y", "y", "y", "y", "y"])
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=2, one_vote=True)
    probs = recipe.fit(catalog, None, machine, 0).predict(catalog, machine).blocks[0].probs
    # Shares of the labels: x 3/8, y 5/8. One vote for x (row 0) and one for y (row 4).
    assert probs[0] == pytest.approx([(1 + 3 / 8) / 3, (1 + 5 / 8) / 3], abs=1e-6)
    every = sw.Neighbours(backbone=sw.backbone("toy"), k=2)
    plain = every.fit(catalog, None, machine, 0).predict(catalog, machine).blocks[0].probs
    assert plain[0] == pytest.approx([(2 + 3 / 8) / 3, 5 / 8 / 3], abs=1e-6)


def test_first_of_group():
    groups = np.array([[3, 1, 3, 1, 2], [5, 5, 5, 5, 4]])
    assert _first_of_group(groups).astype(int).tolist() == [[1, 1, 0, 0, 1], [1, 0, 0, 0, 1]]


def test_similar_rows_weigh_more(machine: Machine, tmp_path: Path):
    """Votes are (similarity / that of the nearest) to a power: computed here from the vectors themselves."""
    from shelfwise.recipes.features import features

    catalog = by_hand(tmp_path, ["x", "y", "y", "y", "x", "y"], copies=1)
    recipe = sw.Neighbours(
        backbone=sw.backbone("toy"), k=3, weighting="similarity", power=2.0, standardise=False
    )
    probs = recipe.fit(catalog, None, machine, 0).predict(catalog, machine).blocks[0].probs
    vectors = features(catalog, recipe.backbone, machine).vectors.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(6):
        cosine = unit @ unit[row]
        near = np.argsort(-cosine, kind="stable")[:3]
        weight = (cosine[near] / cosine[near[0]]) ** 2
        x = weight[np.isin(near, [0, 4])].sum()
        assert probs[row, 0] == pytest.approx((x + 1 / 3) / (weight.sum() + 1), abs=1e-5)


def test_standardising_changes_who_is_near(toy: Toy, machine: Machine, one_thread: None):
    found = [
        sw.Neighbours(backbone=sw.backbone("toy"), k=5, standardise=flag)
        .fit(toy.catalog, None, machine, 0)
        .predict(toy.catalog, machine)
        for flag in (True, False)
    ]
    assert any(
        not np.allclose(a.probs, b.probs) for a, b in zip(found[0].blocks, found[1].blocks, strict=True)
    )


def test_hashes(toy: Toy):
    facts = facts_of(toy.catalog.images[:12])
    each = {which: hashes_of(facts, which) for which in ("dct", "difference", "average")}
    assert np.array_equal(each["dct"][0], facts.phash)
    assert np.array_equal(each["difference"][0], facts.dhash)
    assert np.array_equal(hashes_of(facts, "all"), np.concatenate(list(each.values())))
    cells = facts.luma[5].reshape(8, 6, 8, 6).astype(float).mean(axis=(1, 3))
    bits = "".join("1" if cell > cells.mean() else "0" for cell in cells.ravel())
    assert each["average"][0, 5] == int(bits, 2)
    vectors = hash_vectors(hashes_of(facts, "all"), facts.colour)
    assert vectors.shape == (12, 3 * 64 + 48)
    differing = sum(int(h[0] ^ h[1]).bit_count() for h in hashes_of(facts, "all"))
    bits_in_common = float(vectors[0, :192] @ vectors[1, :192])
    assert bits_in_common == 192 - 2 * differing


def test_unknown_words_are_refused():
    with pytest.raises(ConfigError, match=r"recipe\.search"):
        make_recipe({"name": "neighbours", "search": "annoy"})
    with pytest.raises(ConfigError, match=r"recipe\.power"):
        make_recipe({"name": "neighbours", "power": 0})


@pytest.mark.parametrize(
    "example", ["frozen_clip_knn", "seresnext_faiss", "swin_faiss", "perceptual_hash", "neighbours"]
)
def test_examples_fit_save_load_and_answer(
    example: str, challenge: Toy, machine: Machine, one_thread: None, tmp_path: Path
):
    """Every example of retrieval, the backbone aside, on the challenge's own layout."""
    from conftest import ROOT
    from shelfwise.config import read_run
    from shelfwise.start import fit_run

    directory = challenge.directory
    overrides = [
        f"data.catalog={challenge.table}",
        f"data.images={directory / 'images'}",
        f"data.attributes={directory / 'attributes.json'}",
        "data.evidence=2",
        'recipe.backbone={name = "toy"}',
    ]
    options = read_run(ROOT / "examples" / f"{example}.toml", overrides)
    bundle, catalog = fit_run(options, machine=machine)
    bundle.save(tmp_path / "bundle")
    loaded = sw.load(tmp_path / "bundle")
    assert loaded.recipe == bundle.recipe == make_recipe(options.recipe)
    # The picture's colour and size are the labels; even hashes know more than nothing.
    assert bundle.report.score > bundle.report.line("majority").score
    first, again = bundle.predict(catalog, machine=machine), loaded.predict(catalog, machine=machine)
    for one, two in zip(first.blocks, again.blocks, strict=True):
        assert np.array_equal(one.probs, two.probs)
