"""Treatments: what changes in training labels, what never does, and that nothing leaks from what is scored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Toy
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe
from shelfwise.data.group import near_duplicates
from shelfwise.errors import ConfigError
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes import treated as treated_recipe
from shelfwise.recipes.treated import Treated
from shelfwise.recipes.treatments import Treatments, treat
from shelfwise.testing import check_recipe

TOY = sw.backbone("toy")
PROBE = {"name": "probe", "backbone": "toy"}


def options(**given: Any) -> Treatments:
    return Treatments(backbone=TOY, **given)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """30 red and 30 blue pictures of one shape, each a little different; labels as painted, some wrong or empty.

    Row 0 is red and said to be blue; row 1 is red and empty; rows 30 and 31 are blue copies both said to be red.
    """
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    labels: list[str | None] = ["red"] * 30 + ["blue"] * 30
    for number, label in enumerate(labels):
        paint = np.array((200, 40, 40) if label == "red" else (40, 40, 200))
        pixels = np.clip(paint + rng.integers(-30, 31, (8, 8, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    (folder / "31.png").write_bytes((folder / "30.png").read_bytes())
    labels[0], labels[1], labels[30], labels[31] = "blue", None, "red", "red"
    table = pl.DataFrame(
        {
            "id": [f"{n:02d}" for n in range(60)],
            "image": [f"{n}.png" for n in range(60)],
            "colour": labels,
            "shape": ["square"] * 20 + ["round"] * 5 + [None] * 35,
        }
    )
    return Catalog.read(table, images=folder, columns=sw.Columns(choice=("colour", "shape")))


def stated(catalog: Catalog, name: str = "colour") -> list[str | None]:
    values = next(c.values for c in catalog.taxonomy.choices(catalog.present[0]) if c.name == name)
    column = [c.name for c in catalog.taxonomy.choices(catalog.present[0])].index(name)
    return [values[code] if code >= 0 else None for code in catalog.labels(catalog.present[0])[:, column]]


def test_nothing_is_done_by_default(colours: Catalog, machine: Machine):
    found = treat(colours, options(), machine)
    assert np.array_equal(found.codes, colours.codes)
    assert found.ids == colours.ids
    assert len(found.findings) == 0


def test_outvoted_labels_are_corrected(colours: Catalog, machine: Machine, one_thread: None):
    found = treat(colours, options(correct=True, k=7), machine)
    before, after = stated(colours), stated(found)
    changed = {n for n in range(60) if before[n] != after[n]}
    # The two copies would confirm each other's error if near-duplicates had a say.
    assert changed == {0, 30, 31}
    assert after[0] == "red"
    assert after[30] == after[31] == "blue"
    assert after[1] is None, "correction fills nothing"
    said = {f.message: f for f in found.findings}
    finding = next(said[message] for message in said if "colour: 3 training labels corrected" in message)
    assert (finding.kind, finding.severity, finding.evidence["cells"]) == ("treated_labels", "note", 3)


def test_a_rows_own_group_has_no_say(colours: Catalog, machine: Machine, one_thread: None):
    """All red pictures declared one group: none of them can be judged by another of them."""
    group = np.arange(60)
    group[:30] = 0
    found = treat(colours, options(correct=True, k=7, agreement=1.0), machine, group)
    after = stated(found)
    # Judged by blue pictures and the two mislabelled ones only: now the red ones look blue.
    assert after.count("red") < 10


def test_agreement_decides(colours: Catalog, machine: Machine, one_thread: None):
    loose = treat(colours, options(correct=True, k=29, agreement=0.6), machine)
    strict = treat(colours, options(correct=True, k=29, agreement=1.0), machine)
    assert stated(loose)[0] == "red"
    assert stated(strict) == stated(colours), "29 of 29 never agree: some labels are wrong"


def test_too_few_labelled_neighbours_say_nothing(colours: Catalog, machine: Machine, one_thread: None):
    few = colours.select(np.array([0, *range(2, 8)]))
    assert stated(treat(few, options(correct=True, k=15), machine)) == stated(few)
    assert stated(treat(few, options(correct=True, k=10), machine))[0] == "red"


@pytest.mark.parametrize("how", ["mode", "similar", "model"])
def test_empty_labels_are_filled(how: str, colours: Catalog, machine: Machine, one_thread: None):
    found = treat(colours, options(impute=how, k=7, sure=0.6), machine)
    before, after = stated(colours), stated(found)
    assert [a for a, b in zip(after, before, strict=True) if b is not None] == [b for b in before if b], (
        "stated labels stay"
    )
    # 30 red labels and 29 blue ones, by chance of the errors: the mode is red too.
    assert after[1] == "red"
    shapes = stated(found, "shape")
    if how == "mode":
        assert shapes[25:] == ["square"] * 35
    messages = [f.message for f in found.findings]
    assert any("colour: 1 training labels filled" in message for message in messages)


def test_only_what_is_sure_is_filled(colours: Catalog, machine: Machine, one_thread: None):
    for how in ("similar", "model"):
        some = treat(colours, options(impute=how, sure=1.0), machine)
        every = treat(colours, options(impute=how, sure=0.0), machine)
        assert (some.codes >= 0).sum() < (every.codes >= 0).sum()
        assert (every.codes >= 0).all()


def test_rare_values_are_repeated(toy: Toy, machine: Machine):
    found = treat(toy.catalog, options(upsample=1.0), machine)
    assert len(set(found.ids)) == len(found.ids) > len(toy.catalog)
    first = [k for k, id_ in enumerate(found.ids) if " copy " not in id_]
    assert [found.ids[k] for k in first] == list(toy.catalog.ids), "every row is still there, in order"
    source = {id_: row for row, id_ in enumerate(toy.catalog.ids)}
    for row, id_ in enumerate(found.ids):
        original = source[id_.split(" copy ")[0]]
        assert np.array_equal(found.codes[row], toy.catalog.codes[original])
        assert found.images[row] == toy.catalog.images[original]
    copies = {id_: sum(other.split(" copy ")[0] == id_ for other in found.ids) for id_ in toy.catalog.ids}
    assert max(copies.values()) <= 5
    for category in toy.catalog.present:
        before, after = toy.catalog.labels(category), found.labels(category)
        for attribute in range(before.shape[1]):
            share = [
                np.bincount(labels[labels[:, attribute] >= 0, attribute]).min()
                / (labels[:, attribute] >= 0).sum()
                for labels in (before, after)
            ]
            assert share[1] > share[0] - 0.03
    assert found.findings[0].kind == "repeated_rows"
    assert found.findings[0].evidence["rows"] == len(found) - len(toy.catalog)


def test_a_rare_value_reaches_its_even_share(machine: Machine, tmp_path: Path):
    table = pl.DataFrame({"id": [f"{n:03d}" for n in range(200)], "c": ["a"] * 160 + ["b"] * 40})
    catalog = Catalog.read(table, images=tmp_path, columns=sw.Columns(choice=("c",)))
    for power, expected in ((1.0, 100), (0.5, 40 * 2.5**0.5)):
        counts = np.bincount(treat(catalog, options(upsample=power), machine).codes[:, 0])
        assert counts[0] == 160
        assert counts[1] == pytest.approx(expected, abs=12)


@pytest.mark.parametrize(
    "given",
    [
        {"correct": True, "k": 5, "agreement": 0.6},
        {"impute": "similar"},
        {"impute": "model"},
        {"upsample": 1.0},
        {"bad_photos": True},
    ],
    ids=str,
)
def test_the_order_of_the_table_changes_nothing(
    given: dict[str, Any], toy: Toy, machine: Machine, one_thread: None
):
    catalog = toy.catalog
    order = np.random.default_rng(0).permutation(len(catalog))
    straight = treat(catalog, options(**given), machine)
    mixed = treat(catalog.select(order), options(**given), machine)
    codes = dict(zip(straight.ids, straight.codes.tolist(), strict=True))
    assert codes == dict(zip(mixed.ids, mixed.codes.tolist(), strict=True))
    assert {f.message for f in straight.findings} == {f.message for f in mixed.findings}


def test_rows_without_picture_or_category_are_left_alone(toy: Toy, machine: Machine, one_thread: None):
    catalog = toy.catalog
    images = list(catalog.images)
    images[3] = None
    category = catalog.category.copy()
    category[4] = -1
    from shelfwise.errors import ImageError

    odd = replace(
        catalog,
        images=tuple(images),
        category=category,
        image_errors={3: ImageError("missing", "no such file")},
    )
    for given in ({"correct": True, "agreement": 0.51}, {"impute": "similar", "sure": 0.0}):
        found = treat(odd, options(**given), machine)
        assert np.array_equal(found.codes[[3, 4]], odd.codes[[3, 4]])
    assert np.array_equal(treat(odd, options(impute="model", sure=0.0), machine).codes[4], odd.codes[4])


@pytest.mark.parametrize("given", [{}, {"correct": True, "agreement": 0.6, "k": 5}], ids=str)
def test_the_contract(given: dict[str, Any], tmp_path: Path):
    """Filling and repeating are left out: there, rows without labels do change what is learnt."""
    table = {"name": "treated", "recipe": PROBE, "treat": {"backbone": "toy", **given}}
    check_recipe(make_recipe(table), tmp_path)


def test_a_fold_sees_its_training_rows_only(
    toy: Toy, machine: Machine, one_thread: None, monkeypatch: pytest.MonkeyPatch
):
    """In a cross-fit ``treat`` is given the training part; labels of the tested part change no answer."""
    catalog = toy.catalog
    folds = catalog.folds(3, groups=near_duplicates(catalog))
    recipe = Treated(recipe=PROBE, treat=options(correct=True, k=5, agreement=0.6, impute="model"))
    given: list[tuple[str, ...]] = []
    whole = treated_recipe.treat

    def spy(train: Catalog, *rest: Any) -> Catalog:
        given.append(train.ids)
        return whole(train, *rest)

    monkeypatch.setattr(treated_recipe, "treat", spy)
    found = sw.cross_fit(recipe, catalog, folds, machine=machine)
    ids = [{catalog.ids[row] for row in folds.train(fold)} for fold in range(3)]
    assert sorted(map(sorted, given)) == sorted(map(sorted, ids))
    codes = catalog.codes.copy()
    test = folds.test(0)
    codes[test] = np.where(codes[test] >= 0, 0, -1)
    other = recipe.fit(replace(catalog, codes=codes).select(folds.train(0)), None, machine, 0)
    again = other.predict(catalog.select(test), machine)
    first = found.select(test)
    for one, two in zip(first.blocks, again.blocks, strict=True):
        assert np.allclose(one.probs, two.probs, atol=1e-6)


def test_the_truth_stays_as_stated(toy: Toy, machine: Machine, one_thread: None):
    """A fitted bundle is scored on stated labels alone, and its report says what was treated."""
    recipe = Treated(recipe=PROBE, treat=options(impute="mode"))
    codes = toy.catalog.codes.copy()
    bundle = sw.fit(toy.catalog, recipe, evidence=3, machine=machine, random_split=False, curve=False)
    assert np.array_equal(toy.catalog.codes, codes)
    plain = sw.fit(
        toy.catalog, make_recipe(PROBE), evidence=3, machine=machine, random_split=False, curve=False
    )
    for one, two in zip(bundle.evidence.blocks, plain.evidence.blocks, strict=True):
        assert np.array_equal(one.labels, two.labels)
    assert any("training labels filled" in note for note in bundle.report.notes)


def test_treatment_reaches_the_recipe(toy: Toy, machine: Machine, one_thread: None, tmp_path: Path):
    """Learning through ``treated`` is learning from the treated rows; a saved predictor answers alike."""
    how = options(correct=True, k=5, agreement=0.6, upsample=0.5)
    recipe = Treated(recipe=PROBE, treat=how)
    predictor = recipe.fit(toy.catalog, None, machine, 0)
    direct = make_recipe(PROBE).fit(treat(toy.catalog, how, machine), None, machine, 0)
    predictor.save(tmp_path)
    answers: list[Predictions] = [
        each.predict(toy.catalog, machine)
        for each in (direct, predictor, recipe.load(tmp_path, toy.catalog.taxonomy))
    ]
    untreated = make_recipe(PROBE).fit(toy.catalog, None, machine, 0).predict(toy.catalog, machine)
    for block, *others in zip(*(answer.blocks for answer in answers), strict=True):
        assert all(np.array_equal(block.probs, other.probs) for other in others)
    assert not np.allclose(untreated.blocks[0].probs, answers[0].blocks[0].probs)


def test_the_recipe_inside_is_checked():
    with pytest.raises(ConfigError, match=r"recipe\.recipe.*componets"):
        make_recipe({"name": "treated", "recipe": {"name": "probe", "componets": 3}})
    with pytest.raises(ConfigError, match=r"recipe\.recipe.*table with a name"):
        make_recipe({"name": "treated", "recipe": 3})
    with pytest.raises(ConfigError, match=r"recipe\.treat\.agreement"):
        make_recipe({"name": "treated", "treat": {"agreement": 0.2}})
    with pytest.raises(ConfigError, match=r"recipe\.treat\.corect: unknown key. Did you mean 'correct'"):
        make_recipe({"name": "treated", "treat": {"corect": True}})
    assert make_recipe({"name": "treated"}).concurrent
    assert Treated(recipe=sw.Neighbours(k=3)).table()["recipe"]["k"] == 3
