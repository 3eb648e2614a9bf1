"""Several photos of a product: where they lie, how they vote, what is said where they disagree."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Shell, Toy
from shelfwise.amounts import LEVELS, Amounts
from shelfwise.answers import RowError
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError
from shelfwise.locate import LEDGER_NAME
from shelfwise.photos import Photo, split_photos
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes.several import Shown, Voting, disputed, learn_voting, vote
from shelfwise.taxonomy import Choice, Number, Taxonomy


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("photos")
    for at, name in enumerate(("a", "b", "c", "d")):
        Image.new("RGB", (40, 40), (60 * at, 200 - 40 * at, 90)).save(place / f"{name}.png")
    return place


def table(cells: list[str | None]) -> pl.DataFrame:
    colours = ["red" if i % 2 else "blue" for i in range(len(cells))]
    columns = {"id": [f"p{i}" for i in range(len(cells))], "image": cells, "colour": colours}
    return pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String))


def paths(catalog: Catalog, row: int) -> list[str]:
    return [photo.path.name for photo in catalog.photos.get(row, ())]


@pytest.mark.parametrize(
    ("cell", "parts"),
    [
        ("a.png", ["a.png"]),
        ("a.png|b.png", ["a.png", "b.png"]),
        (" a.png | | b.png ", ["a.png", "b.png"]),
        ('["a.png", " b|c.png "]', ["a.png", "b|c.png"]),
        ("[1].png", ["[1].png"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", []),
    ],
)
def test_a_cell_holds_a_list_or_paths_with_bars(cell: str, parts: list[str]) -> None:
    assert split_photos(cell) == parts


def test_the_first_photo_that_is_there_stands_for_the_product(folder: Path) -> None:
    cells = ["a.png", "b.png|c.png", '["none.png", "d.png", "a.png"]', "x.png|y.png", "a.png|a.png", None]
    catalog = Catalog.read(table(cells), images=folder)
    names = [path.name if path is not None else None for path in catalog.images]
    assert names == ["a.png", "b.png", "d.png", None, "a.png", None]
    assert {row: paths(catalog, row) for row in catalog.photos} == {
        1: ["b.png", "c.png"],
        2: ["d.png", "a.png"],
    }
    assert sorted(catalog.image_errors) == [3, 5]
    assert "none of its 2 photos was found; there is no image 'x.png'" in str(catalog.image_errors[3])
    found = {(f.row, f.severity) for f in catalog.findings if f.kind == "image_missing"}
    assert found == {(3, "warning"), (4, "error"), (6, "error")}


def test_photos_stay_with_their_rows(folder: Path) -> None:
    catalog = Catalog.read(table(["a.png", "b.png|c.png", "c.png|d.png|a.png"]), images=folder)
    turned = catalog.select([2, 0, 2, 1])
    assert {row: len(photos) for row, photos in turned.photos.items()} == {0: 3, 2: 3, 3: 2}
    assert paths(turned, 3) == ["b.png", "c.png"]
    assert catalog.first_photos().images == catalog.images
    assert not catalog.first_photos().photos
    assert Catalog.read(table(["a.png"]), images=folder).photos == {}


def test_a_path_that_leaves_the_folder_is_refused_among_others(folder: Path) -> None:
    catalog = Catalog.read(table(["a.png|../../etc/passwd|b.png", "/etc/passwd|/etc/hosts"]), images=folder)
    assert paths(catalog, 0) == ["a.png", "b.png"]
    assert [f.kind for f in catalog.findings if f.row == 1] == ["image_outside"]
    assert catalog.image_errors[1].kind == "outside"


def test_a_table_of_photos_goes_before_the_cell(folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos.csv"
    photos.write_text(
        "id,image,role\np1,c.png,Back\np1,b.png,front\np2,none.png,\np9,a.png,front\n", encoding="utf-8"
    )
    catalog = Catalog.read(table(["a.png", "d.png", "b.png"]), images=folder, photos=photos)
    assert catalog.photos == {
        1: (Photo(folder / "c.png", "back"), Photo(folder / "b.png", "front")),
    }
    assert [path.name if path else None for path in catalog.images] == ["a.png", "c.png", None]
    assert any("1 ids of the table of photos" in f.message for f in catalog.findings)
    by_id = Catalog.read(table(["a.png"]).select("id", "colour"), images=folder, photos=photos)
    assert by_id.image_errors  # no picture called p0, and p0 is not in the table of photos


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("product,image\np1,a.png\n", "needs a column 'id'; it has: 'product', 'image'"),
        ("id,place\np1,a.png\n", "needs a column 'image'"),
        ("id,image\np1,a.png\np1,\n", "row 2: names no picture"),
    ],
)
def test_a_table_of_photos_says_what_it_lacks(folder: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "photos.csv").write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError, match=words):
        Catalog.read(table(["a.png"]), images=folder, photos=tmp_path / "photos.csv")


def test_downloaded_photos_lie_in_numbered_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / LEDGER_NAME).touch()
    (tmp_path / "2").mkdir()
    for name in ("p0.png", "2/p0.png", "p1.png"):
        (tmp_path / name).write_bytes((folder / "a.png").read_bytes())
    cell = "https://shop.example/1.jpg, https://shop.example/2.jpg"
    catalog = Catalog.read(table([cell, cell]), images=tmp_path)
    assert [str(p.path.relative_to(tmp_path)) for p in catalog.photos[0]] == ["p0.png", "2/p0.png"]
    assert 1 not in catalog.photos
    assert catalog.images[1] is not None


# ---- the vote

TWO = Taxonomy(
    {
        "k": (
            Choice("colour", ("red", "blue")),
            Choice("size", ("s", "m", "l")),
            Number("price", transform="log"),
        ),
        "q": (Choice("colour", ("red", "blue")),),
    }
)


def shown(products: list[list[str]], folder: Path) -> Shown:
    """Products with photos of these roles."""
    rows = [row for row, roles in enumerate(products) for _ in roles]
    roles = tuple(role for each in products for role in each)
    first = np.diff(np.asarray(rows), prepend=-1) > 0
    catalog = Catalog.read(table(["a.png"] * len(rows)), images=folder)
    return Shown(catalog, np.asarray(rows), roles, first, tuple(f"p{i}" for i in range(len(products))))


def said(probs: list[list[float]], n: int | None = None, **given: object) -> Predictions:
    rows = np.arange(len(probs))
    block = Block("k", rows, np.asarray(probs, np.float32))
    return Predictions(TWO, tuple(map(str, range(n or len(probs)))), (block,), **given)  # type: ignore[arg-type]


RED, BLUE = [0.9, 0.1, 0.2, 0.3, 0.5], [0.3, 0.7, 0.6, 0.2, 0.2]


def test_photos_vote_by_their_weights(folder: Path) -> None:
    photos = shown([["front", "back"], ["front"]], folder)
    alike = vote(said([RED, BLUE, BLUE]), photos)
    assert np.allclose(alike.blocks[0].probs[0], (np.array(RED) + np.array(BLUE)) / 2)
    assert np.array_equal(alike.blocks[0].probs[1], np.asarray(BLUE, np.float32))
    heavy = vote(said([RED, BLUE, BLUE]), photos, Voting({"front": 3.0}))
    assert np.allclose(heavy.blocks[0].probs[0], (3 * np.array(RED) + np.array(BLUE)) / 4)
    assert np.array_equal(heavy.blocks[0].probs[1], np.asarray(BLUE, np.float32))


def test_a_product_fails_only_where_all_its_photos_do(folder: Path) -> None:
    photos = shown([["", ""], ["", ""], [""]], folder)
    wrong = RowError("image", "corrupt: cannot be read")
    block = Block("k", np.array([1, 4]), np.asarray([RED, BLUE], np.float32))
    other = RowError("image", "missing: not there")
    found = Predictions(TWO, tuple("abcde"), (block,), {0: wrong, 2: other, 3: wrong})
    voted = vote(found, photos)
    assert sorted(voted.errors) == [1]
    assert voted.errors[1].message == "none of its 2 photos can be read; missing: not there"
    assert voted.blocks[0].rows.tolist() == [0, 2]
    assert np.array_equal(voted.blocks[0].probs, np.asarray([RED, BLUE], np.float32))


def test_a_photo_that_is_no_help_does_not_vote(folder: Path) -> None:
    photos = shown([["", ""], ["", ""]], folder)
    readable = np.array([True, False, False, False])
    voted = vote(said([RED, BLUE, RED, BLUE]), photos, readable=readable)
    assert np.allclose(voted.blocks[0].probs[0], RED)
    assert np.allclose(voted.blocks[0].probs[1], (np.array(RED) + np.array(BLUE)) / 2)
    assert disputed(said([RED, BLUE, RED, BLUE]), photos, readable) == {}


def test_photos_settle_on_one_category_and_others_leave_the_vote(folder: Path) -> None:
    photos = shown([["", "", ""]], folder)
    blocks = (
        Block("k", np.array([0, 2]), np.asarray([RED, BLUE], np.float32)),
        Block("q", np.array([1]), np.asarray([[0.5, 0.5]], np.float32)),
    )
    found = Predictions(TWO, tuple("abc"), blocks, guessed={0: 0.3, 1: 0.8, 2: 0.4})
    assert [b.category for b in vote(found, photos).blocks] == ["q"]
    assert vote(found, photos).guessed == {0: pytest.approx(0.8 / 3)}
    surer = replace(found, guessed={0: 0.5, 1: 0.8, 2: 0.4})
    voted = vote(surer, photos)
    assert [b.category for b in voted.blocks] == ["k"]
    assert voted.guessed == {0: pytest.approx(0.3)}
    assert np.allclose(voted.blocks[0].probs[0], (np.array(RED) + np.array(BLUE)) / 2)


def test_unsure_photos_leave_an_attribute_to_the_others(folder: Path) -> None:
    photos = shown([["", ""], ["", ""]], folder)
    unsure = {0: ("colour",), 2: ("size",), 3: ("size",)}
    voted = vote(said([RED, BLUE, RED, BLUE], unsure=unsure), photos)
    assert voted.unsure == {1: ("size",)}
    assert np.allclose(voted.blocks[0].probs[0, :2], BLUE[:2])
    assert np.allclose(voted.blocks[0].probs[0, 2:], (np.array(RED) + np.array(BLUE))[2:] / 2)


def test_opinions_vote_one_by_one(folder: Path) -> None:
    photos = shown([["", ""]], folder)
    probs = np.asarray([RED, BLUE], np.float32)
    found = Predictions(TWO, ("a", "b"), (Block("k", np.arange(2), probs, (probs, probs[::-1])),))
    (block,) = vote(found, photos).blocks
    assert len(block.opinions) == 2
    assert np.allclose(block.opinions[0], probs.mean(axis=0))


def test_numbers_are_voted_too_and_need_no_photo(folder: Path) -> None:
    photos = shown([["", ""], ["", ""], [""]], folder)
    rising = np.arange(len(LEVELS), dtype=np.float32) + 1
    quantiles = np.stack([rising, 4 * rising, rising, 9 * rising, 7 * rising])
    wrong = RowError("image", "missing: not there")
    found = Predictions(
        TWO,
        tuple("abcde"),
        (Block("k", np.arange(2), np.asarray([RED, BLUE], np.float32)),),
        {2: wrong, 3: wrong, 4: wrong},
        amounts=(Amounts("price", np.arange(5), quantiles),),
    )
    voted = vote(found, photos)
    assert sorted(voted.errors) == [1, 2]
    (item,) = voted.amounts
    assert item.rows.tolist() == [0, 1, 2]
    assert np.allclose(item.quantiles[0], 2 * rising)  # the geometric mean: it is learnt as logarithms
    assert np.allclose(item.quantiles[1], 3 * rising)
    assert np.array_equal(item.quantiles[2], 7 * rising)


def test_disagreement_needs_two_photos_that_are_sure(folder: Path) -> None:
    photos = shown([["", ""], ["", ""], [""]], folder)
    found = said([RED, BLUE, RED, [0.4, 0.6, 0.2, 0.2, 0.6], RED])
    assert disputed(found, photos) == {0: ("colour", "size"), 1: ("colour",)}
    weaker = said([RED, [0.5, 0.5, 0.4, 0.3, 0.3], RED, RED, RED])
    assert disputed(weaker, photos) == {}


def test_weights_of_roles_are_found_where_there_is_evidence(toy: Toy) -> None:
    """Front photos are right, back photos are noise: the front counts more."""
    catalog = toy.catalog.select(np.flatnonzero(toy.catalog.labelled))
    rows = np.repeat(np.arange(len(catalog)), 2)
    roles = ("back", "front") * len(catalog)
    laid = Shown(catalog.select(rows), rows, roles, np.arange(len(rows)) % 2 == 0, catalog.ids)
    rng = np.random.default_rng(0)
    blocks = []
    for name in laid.catalog.present:
        where = laid.catalog.rows(name)
        labels_eA = laid.catalog.labels(name)
        probs = np.zeros((len(where), catalog.taxonomy.width(name)), np.float32)
        for a, part in enumerate(catalog.taxonomy.slices(name)):
            drawn = rng.dirichlet(np.ones(part.stop - part.start), len(where))
            right = np.eye(part.stop - part.start)[labels_eA[:, a]] * 0.8 + 0.2 / (part.stop - part.start)
            front = (where % 2 == 1)[:, None]
            probs[:, part] = np.where(front, right, drawn)
        blocks.append(Block(name, where, probs))
    found = Predictions(catalog.taxonomy, laid.catalog.ids, tuple(blocks))
    voting = learn_voting(found, laid, catalog)
    assert voting.roles["front"] > 2 * voting.roles["back"]
    few = catalog.select(np.arange(20))
    part = Shown(laid.catalog.select(np.arange(40)), rows[:40], roles[:40], laid.first[:40], few.ids)
    assert learn_voting(found.select(np.arange(40)), part, few) == Voting()


# ---- from table to answers


@pytest.fixture(scope="module")
def angles(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """The toy catalogue with a second photo of most products: a detail of little use, or a mirrored view."""
    directory = tmp_path_factory.mktemp("angles")
    (directory / "images").mkdir()
    frame, cells = toy.catalog.frame, []
    for row, name in enumerate(frame["image"].to_list()):
        with Image.open(toy.directory / name) as image:
            image.save(directory / name)
            if row % 4 == 3:
                cells.append(name)
                continue
            other = (
                image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if row % 2 else image.crop((0, 0, 12, 12))
            )
            other.save(directory / name.replace(".png", "-2.png"))
            cells.append(f"{name}|{name.replace('.png', '-2.png')}")
    table = directory / "catalog.csv"
    frame.with_columns(pl.Series("image", cells)).write_csv(table)
    return Toy(directory, table, Catalog.read(table))


def swapped(catalog: Catalog, directory: Path, schema: object = None) -> Catalog:
    """The same products, the photos in the other order, as JSON lists."""
    cells = [json.dumps((cell or "").split("|")[::-1]) for cell in catalog.frame["image"].to_list()]
    frame = catalog.frame.with_columns(pl.Series("image", cells))
    return Catalog.read(frame, images=directory, schema=schema)  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_thread")
def test_answers_do_not_depend_on_the_order_of_photos(bundle: Bundle, angles: Toy, machine: Machine) -> None:
    catalog = bundle.read(angles.table)
    found = bundle.predict(catalog, machine)
    turned = bundle.predict(swapped(catalog, angles.directory, bundle.schema), machine)
    alone = bundle.predict(catalog.first_photos(), machine)
    for one, two, first in zip(found.blocks, turned.blocks, alone.blocks, strict=True):
        assert np.array_equal(one.probs, two.probs)
        assert not np.array_equal(one.probs, first.probs)
    assert found.familiarity is not None
    assert alone.familiarity is not None
    assert (found.familiarity.p_familiar >= alone.familiarity.p_familiar - 1e-6).all()
    single = [row for row in range(len(catalog)) if row not in catalog.photos]
    for one, first in zip(found.select(single).blocks, alone.select(single).blocks, strict=True):
        assert np.allclose(one.probs, first.probs, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_a_row_is_answered_alike_whatever_stands_beside_it(
    bundle: Bundle, angles: Toy, machine: Machine
) -> None:
    catalog = bundle.read(angles.table)
    whole = bundle.predict(catalog, machine)
    for rows in ([0], [5, 2], list(range(17, 29))):
        part = bundle.predict(catalog.select(rows), machine)
        for one, two in zip(whole.select(rows).blocks, part.blocks, strict=True):
            assert np.allclose(one.probs, two.probs, atol=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_disputes_are_said_in_answers_and_files(
    bundle: Bundle, toy: Toy, machine: Machine, tmp_path: Path
) -> None:
    """Two products' photos under one id: the photos are right, each about another thing."""
    labelled = toy.catalog.frame.filter(pl.col("category") == "Cups")
    red = labelled.filter(pl.col("colour") == "red")["image"][0]
    blue = labelled.filter(pl.col("colour") == "blue")["image"][0]
    frame = labelled.head(3).with_columns(
        pl.Series("image", [f"{red}|{blue}", red, f"{blue}|images/none.png"])
    )
    catalog = bundle.read(frame, images=toy.directory)
    answers = bundle.answer(catalog, machine=machine)
    assert answers.disputed is not None
    assert list(answers.disputed) == [0]
    assert "colour" in answers.disputed[0]
    assert answers.of(0)["colour"]["photos_disagree"] is True
    assert "photos_disagree" not in answers.of(1)["colour"]
    said = answers.error_frame().filter(pl.col("row") == 1)["error"].to_list()
    assert any("photos disagree about" in line and "colour" in line for line in said)
    answers.write(tmp_path / "out.csv", explain=True)
    column = pl.read_csv(tmp_path / "out.csv", infer_schema=False)["photos_disagree"].to_list()
    assert "colour" in column[0]
    assert column[1:] == [None, None]
    alone = bundle.answer(catalog.first_photos(), machine=machine)
    assert alone.disputed is None
    alone.write(tmp_path / "alone.csv", explain=True)
    assert "photos_disagree" not in pl.read_csv(tmp_path / "alone.csv").columns


@pytest.mark.usefixtures("one_thread")
def test_a_broken_photo_leaves_the_answer_to_the_others(
    bundle: Bundle, toy: Toy, machine: Machine, tmp_path: Path
) -> None:
    name = toy.catalog.frame["image"][0]
    (tmp_path / "a.png").write_bytes((toy.directory / name).read_bytes())
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    cells = ["a.png", "broken.png|a.png", "broken.png|none.png", "none.png|void.png"]
    frame = toy.catalog.frame[[0, 0, 0, 0]].with_columns(
        pl.Series("image", cells), pl.Series("id", list("abcd"))
    )
    catalog = bundle.read(frame, images=tmp_path)
    answers = bundle.answer(catalog, machine=machine)
    assert sorted(answers.errors) == [2, 3]
    assert answers.of(1)["colour"] == answers.of(0)["colour"]
    assert "none of its 2 photos" in answers.errors[3].message


@pytest.mark.usefixtures("one_thread")
def test_one_product_with_several_photos(bundle: Bundle, toy: Toy, machine: Machine) -> None:
    names = toy.catalog.frame["image"].to_list()
    one = bundle.answer_one(
        [toy.directory / names[0], toy.directory / names[2]], category="Cups", machine=machine
    )
    other = bundle.answer_one(
        [toy.directory / names[2], toy.directory / names[0]], category="Cups", machine=machine
    )
    assert one["answers"] == other["answers"]
    alone = bundle.answer_one(toy.directory / names[0], category="Cups", machine=machine)
    assert alone["id"] == "00000"
    assert alone["error"] is None
    assert one["answers"]["colour"]["probability"] != alone["answers"]["colour"]["probability"]


@pytest.mark.usefixtures("one_thread")
def test_fit_votes_out_of_fold_and_says_what_it_gained(angles: Toy, machine: Machine, tmp_path: Path) -> None:
    """Roles from a table of photos: the full view counts, and the weights are kept with the bundle."""
    rows = [
        {
            "id": id_,
            "image": path,
            "role": "detail" if path.endswith("-2.png") and number % 2 == 0 else "full",
        }
        for number, (id_, cell) in enumerate(
            zip(angles.catalog.ids, angles.catalog.frame["image"], strict=True)
        )
        for path in cell.split("|")
    ]
    catalog = Catalog.read(angles.table, photos=pl.DataFrame(rows))
    recipe = sw.Probe(backbone=sw.backbone("toy"))
    given = {"evidence": 3, "machine": machine, "random_split": False, "curve": False}
    found = sw.fit(catalog, recipe, **given)
    notes = " ".join(found.report.notes)
    assert "135 products have several photos with the roles detail, full" in notes
    assert "with their first photo alone" in notes
    assert found.voting.roles["full"] > found.voting.roles["detail"]
    found.save(tmp_path / "bundle")
    loaded = sw.load(tmp_path / "bundle")
    assert loaded.voting == found.voting
    for one, two in zip(
        found.predict(catalog, machine).blocks, loaded.predict(catalog, machine).blocks, strict=True
    ):
        assert np.array_equal(one.probs, two.probs)
    every = sw.fit(catalog, recipe, learn_photos="all", **given)
    assert every.run.data.learn_photos == "all"
    assert not np.array_equal(every.evidence.blocks[0].probs, found.evidence.blocks[0].probs)  # type: ignore[union-attr]
    held = sw.fit(catalog, recipe, **{**given, "evidence": 0.3})
    assert "products have several photos" in " ".join(held.report.notes)


def test_evaluate_shows_both_scores(
    saved: Path, angles: Toy, shell: Shell, machine: Machine, tmp_path: Path
) -> None:
    ran = shell("evaluate", saved, angles.table, "--cache", machine.cache, "--engine", "torch")
    assert ran.code == 0, ran.err
    assert "with all photos of the 135 products that have several" in ran.out
    photos = tmp_path / "photos.csv"
    photos.write_text("id,image\n00000,images/00000.png\n", encoding="utf-8")
    out = tmp_path / "out.csv"
    ran = shell("predict", saved, angles.table, "-o", out, "--photos", photos, "--cache", machine.cache)
    assert ran.code == 0, ran.err
