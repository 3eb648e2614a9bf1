"""The training index: look-alikes, familiarity, and what it keeps on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

import shelfwise as sw
from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.errors import BundleError, PredictionError, UsageError
from shelfwise.predictions import Familiarity, Machine
from shelfwise.recipes import oddness
from shelfwise.recipes.index import TrainingIndex, learn_index
from shelfwise.recipes.oddness import STEPS, Asked, Scored, Shelves, bins, directions

Ints = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def groups(toy: Toy) -> Ints:
    """Every product on its own, but for three of one group."""
    groups = np.arange(len(toy.catalog))
    groups[[3, 11, 40]] = 3
    return groups


@pytest.fixture(scope="module")
def index(toy: Toy, groups: Ints, machine: Machine) -> TrainingIndex:
    return learn_index(toy.catalog, sw.backbone("toy"), groups, machine)


def learnt(catalog: Catalog, machine: Machine, groups: Ints | None = None) -> TrainingIndex:
    return learn_index(
        catalog, sw.backbone("toy"), np.arange(len(catalog)) if groups is None else groups, machine
    )


def same(first: Familiarity, second: Familiarity) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name), equal_nan=True)
        for name in ("p_familiar", "p_category", "likelier")
    )


def empty_category(toy: Toy, name: str | None) -> Catalog:
    """The toy table with another category cell in its first row."""
    frame = toy.catalog.frame.with_row_index("row").with_columns(
        pl.when(pl.col("row") == 0).then(pl.lit(name)).otherwise(pl.col("category")).alias("category")
    )
    return Catalog.read(frame.drop("row"), images=toy.directory, schema=toy.catalog.schema)


def brute(codes: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    wide = codes.astype(np.int64)
    return (wide @ wide.T) / STEPS**2


def test_look_alikes_are_the_nearest_others(toy: Toy, index: TrainingIndex, machine: Machine):
    found = index.look_alikes(toy.catalog, 4, machine)
    like = brute(index.codes)
    np.fill_diagonal(like, -np.inf)
    position = {id_: at for at, id_ in enumerate(index.ids)}
    for row, id_ in enumerate(toy.catalog.ids):
        expected = np.argsort(-like[position[id_]], kind="stable")[:4]
        assert found.positions[row].tolist() == expected.tolist()
        np.testing.assert_allclose(
            found.similarity[row], np.minimum(like[position[id_], expected], 1), rtol=1e-6
        )


def test_look_alikes_only_among_those_allowed(toy: Toy, index: TrainingIndex, machine: Machine):
    among = index.category == 1
    found = index.look_alikes(toy.catalog, 5, machine, among)
    assert among[found.positions].all()
    few = np.zeros(len(index), bool)
    few[:3] = True
    found = index.look_alikes(toy.catalog, 5, machine, few)
    assert set(found.positions[50].tolist()) == {0, 1, 2, -1}
    assert (found.positions[:3] >= 0).sum() == 6, "a product is not its own look-alike"
    assert np.array_equal(np.isnan(found.similarity), found.positions < 0)
    assert (index.look_alikes(toy.catalog, 2, machine, few & False).positions == -1).all()


def test_another_picture_under_a_known_id_is_another_product(
    toy: Toy, index: TrainingIndex, machine: Machine
):
    frame = toy.catalog.frame.with_columns(pl.col("image").reverse())
    swapped = Catalog.read(frame, images=toy.directory, schema=toy.catalog.schema)
    found = index.look_alikes(swapped, 1, machine)
    position = {id_: at for at, id_ in enumerate(index.ids)}
    owner = [position[id_] for id_ in reversed(toy.catalog.ids)]
    assert np.mean(found.positions[:, 0] == owner) > 0.9, "the picture's own product is nearest"
    renamed = replace(toy.catalog, ids=tuple(f"new {id_}" for id_ in toy.catalog.ids))
    assert (index.look_alikes(renamed, 1, machine).similarity > 0.999).all()


def test_nothing_depends_on_batches_or_order(
    toy: Toy,
    index: TrainingIndex,
    groups: Ints,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
):
    order = np.random.default_rng(0).permutation(len(toy.catalog))
    again = learn_index(toy.catalog.select(order), sw.backbone("toy"), 1000 - groups[order], machine)
    assert again.ids == index.ids
    for name in ("codes", "energy", "scores", "group", "category", "likelier"):
        assert np.array_equal(getattr(again, name), getattr(index, name), equal_nan=True), name
    whole = index.familiarity(toy.catalog, machine)
    alike = index.look_alikes(toy.catalog, 3, machine)
    monkeypatch.setattr(oddness, "CELLS", 7 * len(index))
    assert same(index.familiarity(toy.catalog, machine), whole)
    one = toy.catalog.select([17])
    assert same(index.familiarity(one, machine), whole.select(np.array([17])))
    assert index.look_alikes(one, 3, machine).positions.tolist() == alike.positions[[17]].tolist()


def test_kept_products_are_judged_without_their_group(
    toy: Toy, index: TrainingIndex, groups: Ints, machine: Machine
):
    position = {id_: at for at, id_ in enumerate(index.ids)}
    rows = np.array([position[id_] for id_ in toy.catalog.ids])
    of_training = index.familiarity_of_training()
    assert same(of_training.select(rows), index.familiarity(toy.catalog, machine))
    at = position[toy.catalog.ids[3]]
    distance = 1 - brute(index.codes)[at]
    own = (index.category == index.category[at]) & (index.group != index.group[at])
    other = (index.category != index.category[at]) & (index.group != index.group[at])
    assert index.scores[at, 1] == pytest.approx(distance[own].min() / max(distance[other].min(), 1e-4))
    assert index.group[position[toy.catalog.ids[11]]] == index.group[at]


def test_a_wrong_category_is_noticed_and_the_right_one_named(toy: Toy, machine: Machine):
    half = np.random.default_rng(0).random(len(toy.catalog)) < 0.5
    index = learnt(toy.catalog.select(np.flatnonzero(half)), machine)
    test = toy.catalog.select(np.flatnonzero(~half))
    right = index.familiarity(test, machine)
    assert np.mean(right.likelier == test.category) > 0.9
    wrong = replace(test, category=((test.category + 1) % 3).astype(np.int32))
    odd = index.familiarity(wrong, machine)
    assert np.median(odd.p_category) < 0.05 < np.quantile(right.p_category, 0.1)
    assert np.array_equal(odd.likelier, right.likelier), "by the picture alone"
    for found, filed in ((right, test), (odd, wrong)):
        assert (found.likelier != filed.category)[found.p_category < 1].all(), (
            "a doubt names another category"
        )


def test_a_picture_of_another_world_is_unfamiliar(
    toy: Toy, index: TrainingIndex, machine: Machine, tmp_path: Path
):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    frame = toy.catalog.frame.head(1).with_columns(image=pl.lit("noise.png"), id=pl.lit("noise"))
    strange = Catalog.read(frame, images=tmp_path, schema=toy.catalog.schema)
    least = 1 / (1 + len(np.unique(index.group[index.category == 0])))
    assert index.familiarity(strange, machine).p_familiar[0] <= 3 * least


def test_rows_without_picture_or_category(toy: Toy, index: TrainingIndex, machine: Machine, tmp_path: Path):
    (tmp_path / "images").mkdir()
    broken = Catalog.read(toy.catalog.frame.head(5), images=tmp_path, schema=toy.catalog.schema)
    found = index.familiarity(broken, machine)
    assert np.isnan(found.p_familiar).all()
    assert np.isnan(found.p_category).all()
    assert (found.likelier == -1).all()
    assert (index.look_alikes(broken, 2, machine).positions == -1).all()
    whole = index.familiarity(toy.catalog, machine)
    for name in (None, "Spoons"):
        found = index.familiarity(empty_category(toy, name), machine)
        assert np.isnan(found.p_category[0])
        assert 0 < found.p_familiar[0] <= 1
        assert found.likelier[0] == whole.likelier[0] >= 0
        rest = np.arange(1, len(toy.catalog))
        assert same(found.select(rest), whole.select(rest)), "other rows are judged as before"


def test_no_product_is_kept(toy: Toy, machine: Machine, tmp_path: Path):
    (tmp_path / "images").mkdir()
    unreadable = Catalog.read(toy.catalog.frame, images=tmp_path, schema=toy.catalog.schema)
    index = learnt(unreadable, machine)
    assert len(index) == 0
    found = index.familiarity(toy.catalog, machine)
    assert np.isnan(found.p_familiar).all()
    assert (found.likelier == -1).all()
    assert (index.look_alikes(toy.catalog, 3, machine).positions == -1).all()
    assert len(index.familiarity_of_training().p_familiar) == 0
    index.save(tmp_path)
    assert len(TrainingIndex.load(tmp_path, toy.catalog.taxonomy)) == 0


def test_products_of_one_group_say_nothing_of_each_other(toy: Toy, machine: Machine):
    index = learnt(toy.catalog, machine, np.zeros(len(toy.catalog), np.int64))
    kept = index.familiarity_of_training()
    assert np.isnan(kept.p_familiar).all()
    assert np.isnan(kept.p_category).all()
    renamed = replace(toy.catalog, ids=tuple(f"new {id_}" for id_ in toy.catalog.ids))
    new = index.familiarity(renamed, machine)
    assert np.isnan(new.p_familiar).all(), "there is nothing to compare with"
    assert np.isnan(new.p_category).all()
    assert (new.likelier == toy.catalog.category).all()


@pytest.mark.parametrize("count", [1, 5])
def test_a_category_of_few_products(toy: Toy, machine: Machine, count: int):
    of = [toy.catalog.rows(name)[: count if name == "Towels" else None] for name in toy.catalog.present]
    index = learnt(toy.catalog.select(np.sort(np.concatenate(of))), machine)
    rest = toy.catalog.select(toy.catalog.rows("Towels")[count:])
    found = index.familiarity(rest, machine)
    assert (found.p_familiar > 0).all()
    assert (found.p_category > 0).all()
    kept = index.familiarity_of_training()
    few = index.category == toy.catalog.taxonomy.category_codes["Towels"]
    assert np.isnan(kept.p_familiar[few]).all() == (count == 1), "alone, it has nothing to be near to"


def test_one_category_cannot_be_the_wrong_one(toy: Toy, machine: Machine):
    index = learnt(toy.catalog.select(toy.catalog.rows("Cups")), machine)
    found = index.familiarity(toy.catalog, machine)
    assert np.isnan(found.p_category).all()
    assert (found.p_familiar > 0).all()
    assert (found.likelier == toy.catalog.taxonomy.category_codes["Cups"]).all()


def test_saved_and_read_back(toy: Toy, index: TrainingIndex, machine: Machine, tmp_path: Path):
    strange = ("", "é\u202e", "\ud800", "0007", "a\x00b", *index.ids[5:])
    odd = replace(index, ids=strange)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        odd.save(tmp_path / name)
    assert (tmp_path / "one/index.safetensors").read_bytes() == (
        tmp_path / "two/index.safetensors"
    ).read_bytes()
    read = TrainingIndex.load(tmp_path / "one", toy.catalog.taxonomy)
    assert read.ids == strange
    assert (read.backbone, read.learnt_on) == (index.backbone, index.learnt_on)
    assert same(read.familiarity(toy.catalog, machine), odd.familiarity(toy.catalog, machine))
    assert same(read.familiarity_of_training(), index.familiarity_of_training())


def damage(path: Path, what: str) -> None:
    arrays = load_file(path)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    if what == "missing":
        del arrays["group"]
    elif what == "short":
        arrays["scores"] = arrays["scores"][:-1]
    elif what == "kind":
        arrays["codes"] = arrays["codes"].astype(np.float16)
    elif what == "category":
        arrays["category"] = arrays["category"] + 3
    elif what == "ids":
        arrays["ids"] = arrays["ids"][:-5]
    elif what == "texts":
        metadata = {}
    save_file(arrays, path, metadata)


@pytest.mark.parametrize("what", ["missing", "short", "kind", "category", "ids", "texts", "garbage", "gone"])
def test_a_broken_file_is_an_error(toy: Toy, index: TrainingIndex, tmp_path: Path, what: str):
    index.save(tmp_path)
    path = tmp_path / "index.safetensors"
    if what == "garbage":
        path.write_bytes(b"no tensors")
    elif what == "gone":
        path.unlink()
    else:
        damage(path, what)
    with pytest.raises(BundleError, match=r"index\.safetensors: cannot be read"):
        TrainingIndex.load(tmp_path, toy.catalog.taxonomy)


def test_other_categories_are_an_error(
    toy: Toy, challenge: Toy, index: TrainingIndex, machine: Machine, tmp_path: Path
):
    frame = toy.catalog.frame.with_columns(pl.col("category").str.to_uppercase())
    other = Catalog.read(frame, images=toy.directory)
    with pytest.raises(PredictionError, match=r"schema=bundle\.schema"):
        index.familiarity(other, machine)
    index.save(tmp_path)
    with pytest.raises(BundleError, match="taxonomy"):
        TrainingIndex.load(tmp_path, other.taxonomy)


def test_under_other_categories_as_if_learnt_under_them(
    toy: Toy, index: TrainingIndex, groups: Ints, machine: Machine
):
    became = {"Cups": "Table", "Plates": "Table"}
    frame = toy.catalog.frame.with_columns(pl.col("category").replace(became))
    merged = Catalog.read(frame, images=toy.directory)
    again = learn_index(merged, index.backbone, groups, machine)
    moved = index.recategorised(merged.taxonomy, became)
    assert moved.categories == merged.taxonomy.categories
    assert np.array_equal(moved.scores, again.scores, equal_nan=True)
    assert same(moved.familiarity(merged, machine), again.familiarity(merged, machine))
    retired = index.recategorised(merged.taxonomy, {})
    assert set(np.array(retired.categories)[retired.category]) == {"Towels"}, (
        "what has no category is dropped"
    )


def test_wrong_arguments(toy: Toy, index: TrainingIndex, machine: Machine):
    with pytest.raises(UsageError, match="at least 1"):
        index.look_alikes(toy.catalog, 0, machine)
    with pytest.raises(UsageError, match="among"):
        index.look_alikes(toy.catalog, 1, machine, np.ones(3, bool))
    with pytest.raises(UsageError, match="group numbers"):
        learn_index(toy.catalog, sw.backbone("toy"), np.zeros(3, np.int64), machine)
    with pytest.raises(PredictionError, match="backbone"):
        replace(index, learnt_on={**index.learnt_on, "fingerprint": "x" * 64}).familiarity(
            toy.catalog, machine
        )


def test_p_values_weigh_groups_not_products():
    # Group 0 has four odd products, groups 1 to 8 one each that is not.
    kept = Scored.of(
        np.array([9.0, 9, 9, 1, *range(8)]), np.zeros(12, np.int64), np.array([0, 0, 0, 0, *range(1, 9)])
    )
    found = kept.p_values(np.array([10.0, 9, 8, 7, -1, np.nan]), np.array([0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(found[:5], [1 / 10, 1.75 / 10, 1.75 / 10, 2.75 / 10, 1])
    assert np.isnan(found[5])
    assert np.isnan(kept.p_values(np.array([1.0]), np.array([7]))).all(), "nothing in this bin"


def test_p_values_are_those_of_a_plain_count():
    rng = np.random.default_rng(1)
    score, bin_M = rng.integers(0, 30, 400) / 7, rng.integers(0, 4, 400)
    group = rng.integers(0, 90, 400)
    score[rng.random(400) < 0.1] = np.nan
    asked, bin_n = rng.integers(-2, 33, 200) / 7, rng.integers(-1, 5, 200)
    asked[:5] = np.nan
    found = Scored.of(score, bin_M, group).p_values(asked, bin_n)
    for row in range(200):
        here = ~np.isnan(score) & (bin_M == bin_n[row])
        if np.isnan(asked[row]) or not here.any():
            assert np.isnan(found[row])
            continue
        groups = np.unique(group[here])
        shares = [np.mean(score[here & (group == each)] >= asked[row]) for each in groups]
        assert found[row] == pytest.approx((1 + sum(shares)) / (1 + len(groups)), rel=1e-6)
    assert np.isnan(found).sum() < 100


def test_p_values_are_uniform_for_products_of_new_groups():
    rng = np.random.default_rng(0)
    size = rng.integers(1, 9, 4000)
    group = np.repeat(np.arange(4000), size)
    score = rng.normal(size=4000)[group] + 0.1 * rng.normal(size=len(group)) + 0.1 * size[group]
    bin_M = group % 3
    old = group < 2000
    kept = Scored.of(score[old], bin_M[old], group[old])
    new = [rng.choice(np.flatnonzero(group == g)) for g in range(2000, 4000)]
    p = kept.p_values(score[new], bin_M[new])
    for rate in (0.01, 0.05, 0.2):
        assert np.mean(p <= rate) == pytest.approx(rate, abs=3 * (rate / 1000) ** 0.5)


def test_small_categories_are_compared_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(oddness, "ENOUGH", 10)
    category = np.repeat(np.arange(5), [30, 4, 12, 0, 5]).astype(np.int32)
    group = np.arange(len(category))
    # 4 and 5 groups are 9 together: the smallest that stood alone, of 12, joins them.
    assert bins(category, group, 6).tolist() == [0, 6, 6, 3, 6, 5]
    one_group = np.where(category == 0, 0, group)
    assert bins(category, one_group, 6).tolist() == [6, 6, 2, 3, 6, 5], "groups count, not products"


def test_similarities_are_exact_in_single_precision():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 128)) * np.exp(rng.normal(size=128) * 2)
    vectors[1] = vectors[0]
    codes = directions(vectors)
    wide = codes.astype(np.int64)
    single = codes.astype(np.float32)
    assert np.array_equal((single @ single.T).astype(np.int64), wide @ wide.T)
    assert (wide @ wide.T).max() < 2**24
    assert not directions(np.zeros((1, 8))).any()


def test_scores_are_those_of_all_pairs_for_few_and_for_many_categories():
    rng = np.random.default_rng(0)
    codes = directions(rng.normal(size=(600, 16)))
    group = np.arange(600)
    for count in (3, 300):
        category = (np.arange(600) % count).astype(np.int32)
        asked = Asked(codes, np.ones(600), category.astype(np.int64), group)
        odd = Shelves.of(codes, category, group).judge(asked)
        like = brute(codes)
        np.fill_diagonal(like, -np.inf)
        mates = category[:, None] == category[None]
        own = 1 - np.where(mates, like, -np.inf).max(axis=1)
        other = 1 - np.where(mates, -np.inf, like).max(axis=1)
        np.testing.assert_allclose(odd.familiar, own, atol=1e-7)
        np.testing.assert_allclose(odd.category, own / other, rtol=1e-5)
        assert np.array_equal(odd.likelier, category[like.argmax(axis=1)])


@pytest.mark.data
@pytest.mark.slow
def test_alarms_on_photos_of_another_world(shared_data: Path, monkeypatch: pytest.MonkeyPatch):
    from test_benchmarks import load

    monkeypatch.setenv("SHELFWISE_DATA", str(shared_data))
    found = load("familiar").main(resplits=2, tables=("fashion",))["fashion"]
    assert found["foreign_unfamiliar"] >= 0.8
    assert found["wrong_category"] >= 0.8
    assert max(found["false_unfamiliar"], found["false_category"]) <= 0.02
