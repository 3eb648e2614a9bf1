"""Heat maps: a planted patch is found, drawn regions are where the drawing is, files and pages hold what they say."""

import hashlib
import json
from pathlib import Path
from random import Random

import numpy as np
import PIL
import polars as pl
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Shell
from shelfwise.bundle import Bundle
from shelfwise.drawings import Regions, draw_product
from shelfwise.drawn_regions import drawn_regions
from shelfwise.errors import UsageError
from shelfwise.explaining import explain_images
from shelfwise.pages import Mismatch, audit_page
from shelfwise.pages.heat import HeatMap, heat_picture, packed, unpacked, write_heat_maps
from shelfwise.predictions import Machine
from shelfwise.recipes import saliency
from shelfwise.recipes.probe import Probe
from shelfwise.service.desk import Desk
from shelfwise.shelves import CATEGORIES, values_of

COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220)}
#: Left and top of the two patches, of 24 pixels a side in a photo of 96.
PATCHES = {"tag": (8, 12), "sole": (60, 64)}
#: Of the pictures below, as they were before the drawings told of regions.
PIXELS = "81c6d201f8a322158710cf2f5aca2513ed1062e2599fb9460a2ad7fa2bcf54e0"


def test_telling_regions_changes_no_pixel() -> None:
    digest = hashlib.sha256()
    for line in CATEGORIES:
        rng = Random(f"regions {line.category}")
        for _ in range(3):
            digest.update(draw_product(line.category, values_of(line, rng), rng).tobytes())
    if PIL.__version__ != "13.0.0":
        pytest.skip("other versions of Pillow draw a little differently")
    assert digest.hexdigest() == PIXELS


def test_regions_lie_where_the_drawing_shows_the_attribute() -> None:
    tops = next(line for line in CATEGORIES if line.category == "Women Tops & Tunics")
    values = values_of(tops, Random(1)) | {
        "color": "red",
        "sleeve_length": "short sleeves",
        "pattern": "solid",
    }
    values |= {"print_or_pattern_type": "solid", "surface_styling": "knitted", "neck_collar": "v-neck"}
    told = Regions()
    picture = np.asarray(draw_product(tops.category, values, Random(4), told)).astype(int)
    masks = {name: np.asarray(mask) > 0 for name, mask in told.masks().items()}
    red = (picture[..., 0] > picture[..., 1] + 50) & (picture[..., 0] > picture[..., 2] + 30)
    assert red[masks["color"]].mean() > 0.9
    assert red[~masks["color"]].mean() < 0.05
    rows, columns = {}, {}
    for name in ("neck_collar", "length", "sleeve_length", "color"):
        found = np.argwhere(masks[name])
        rows[name], columns[name] = found[:, 0].mean(), found[:, 1]
    assert rows["neck_collar"] < rows["sleeve_length"] < rows["length"]
    middle = columns["color"].mean()
    sleeves = np.abs(columns["sleeve_length"] - middle)
    assert sleeves.mean() > np.abs(columns["neck_collar"] - middle).max()
    assert "ocassion" not in masks, "a casual occasion is drawn nowhere"


def test_regions_of_a_catalogue_are_those_of_its_pictures() -> None:
    found = list(drawn_regions(products=40, size=(48, 64)))
    assert [each.id for each in found] == [each.id for each in drawn_regions(products=40, size=(48, 64))]
    assert {each.split for each in found} == {"train", "test"}
    for each in found:
        assert all(region.shape == (64, 48) and 0 < region.mean() < 0.6 for region in each.regions.values())
        assert {"color", "pattern"} <= set(each.regions) <= set(each.values)


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, sw.Catalog, Machine]:
    """Photos of noise with two patches; the colour of each decides an attribute."""
    folder = tmp_path_factory.mktemp("patched")
    rng, rows = np.random.default_rng(0), []
    for number in range(60):
        pixels = rng.integers(90, 170, (96, 96, 3), dtype=np.uint8)
        row = {"id": f"p{number}", "category": "box"}
        for at, (name, (left, top)) in enumerate(PATCHES.items()):
            row[name] = list(COLOURS)[(number >> at) % 2]
            pixels[top : top + 24, left : left + 24] = COLOURS[row[name]]
        Image.fromarray(pixels).save(folder / f"p{number}.png")
        rows.append(row)
    catalog = sw.Catalog.read(pl.DataFrame(rows), images=folder)
    machine = Machine(cache=str(folder / "cache"), engine="torch")
    probe = Probe(backbone=sw.backbone("lite0", size=96), look_alikes=0.0)
    return sw.fit(catalog, probe, machine=machine), catalog, machine


def test_the_peak_is_on_the_patch_that_decides(patched: tuple[Bundle, sw.Catalog, Machine]) -> None:
    bundle, catalog, machine = patched
    maps = explain_images(bundle, catalog, most=80, machine=machine)
    assert len(maps) == 80
    hits = []
    for each in maps:
        left, top = PATCHES[each.attribute]
        x, y = each.peak[0] * 96, each.peak[1] * 96
        hits.append(left <= x < left + 24 and top <= y < top + 24)
        assert each.heat.max() == 1
        assert each.heat.min() >= 0
        assert each.value == catalog.frame[each.attribute][catalog.ids.index(each.id)]
    assert np.mean(hits) > 0.95


def test_cells_are_chosen_by_attribute_mismatch_and_name(
    patched: tuple[Bundle, sw.Catalog, Machine], tmp_path: Path
) -> None:
    bundle, catalog, machine = patched
    few = catalog.select(range(12))
    assert {each.attribute for each in explain_images(bundle, few, only="tag", machine=machine)} == {"tag"}
    assert explain_images(bundle, few, only="mismatch", machine=machine) == ()
    asked = {("p3", "sole"): "red"}
    (found,) = explain_images(bundle, few, values=asked, machine=machine)
    assert (found.id, found.attribute, found.value) == ("p3", "sole", "red")
    alone = catalog.select([0])
    assert explain_images(bundle, alone, machine=machine) == (), "nothing to compare with"
    assert len(explain_images(bundle, alone, reference=catalog, machine=machine)) == 2
    with pytest.raises(UsageError, match=r"no attribute 'tagg'.*'tag'"):
        explain_images(bundle, few, only="tagg", machine=machine)


def test_the_riskiest_items_of_a_queue_get_maps(
    patched: tuple[Bundle, sw.Catalog, Machine], shell: Shell, tmp_path: Path
) -> None:
    bundle, catalog, machine = patched
    bundle.save(tmp_path / "bundle")
    flipped = {"p5": "tag", "p8": "sole", "p9": "sole"}
    rows = catalog.frame.to_dicts()
    for row in rows:
        name = flipped.get(row["id"])
        if name:
            row[name] = next(colour for colour in COLOURS if colour != row[name])
    pl.DataFrame(rows).write_csv(tmp_path / "table.csv")
    assert catalog.images[0] is not None
    words = ["--images", catalog.images[0].parent, "--desk", tmp_path / "d", "--cache", machine.cache]
    words += ["--engine", "torch", "--look-alikes", 0, "--explain-image", 2]
    ran = shell("labels", "queue", tmp_path / "bundle", tmp_path / "table.csv", *words)
    assert (ran.code, "2 with a heat map" in ran.out) == (0, True), ran
    with Desk.open(tmp_path / "d") as desk:
        items = desk.waiting()
    assert {(item.id, item.attribute) for item in items[:3]} == set(flipped.items())
    assert [bool(item.heat) for item in items] == [True, True] + [False] * (len(items) - 2)
    for item in items[:2]:
        left, top = PATCHES[item.attribute]
        row, column = np.unravel_index(int(unpacked(item.heat).argmax()), unpacked(item.heat).shape)
        place = np.array([column + 0.5, row + 0.5]) * 96 / len(unpacked(item.heat))
        assert (np.abs(place - [left + 12, top + 12]) < 12).all()


def test_a_place_is_judged_by_products_that_did_not_teach_it() -> None:
    rng = np.random.default_rng(0)
    codes = np.array([[0], [1]] * 6 + [[-1]], np.int32)
    maps = rng.normal(size=(13, 4, saliency.GRID, saliency.GRID)).astype(np.float16)
    maps[:, :, 3, 5] += 9 * np.clip(codes, 0, 1)
    contrast = saliency.Contrast(maps, codes)
    found = contrast.telling(0, 1)
    assert found.argmax() == 3 * saliency.GRID + 5
    # The same by leaving each product out and solving again, at a few places.
    flat = maps.astype(np.float64).reshape(13, 4, -1)
    flat -= flat.mean(axis=0)
    flat /= flat.std(axis=(0, 2))[:, None] + saliency.SMALL
    known, has = codes[:, 0] >= 0, codes[:, 0] == 1
    target = np.where(known, has - has[known].mean(), 0)
    for place in (3 * saliency.GRID + 5, 0, 17):
        at = flat[:, :, place]
        gram = at @ at.T / 4
        penalty = saliency.PENALTY * gram.diagonal().mean() + saliency.SMALL
        scores = np.zeros(13)
        for out in range(13):
            rest = np.arange(13) != out
            inner = np.linalg.solve(gram[np.ix_(rest, rest)] + penalty * np.eye(12), target[rest])
            scores[out] = gram[out, rest] @ inner
        apart = max(scores[has].mean() - scores[known & ~has].mean(), 0)
        assert found.ravel()[place] == pytest.approx(apart, abs=1e-4)


def test_a_packed_map_keeps_its_peak() -> None:
    heat = np.full((20, 20), 0.999, np.float32)
    heat[7, 3] = 1
    assert unpacked(packed(heat)).argmax() == heat.argmax()
    assert np.abs(unpacked(packed(heat)) - heat).max() < 1 / 200


def test_other_predictors_say_that_they_have_no_maps(bundle: Bundle, machine: Machine) -> None:
    product = sw.Catalog.read(pl.DataFrame({"id": ["1"]}), schema=bundle.schema)
    with pytest.raises(UsageError, match="heat maps"):
        explain_images(bundle, product, machine=machine)


def test_files_and_pages(tmp_path: Path) -> None:
    Image.new("RGB", (60, 80), (200, 200, 200)).save(tmp_path / "a.png")
    heat = np.zeros((4, 4), np.float32)
    heat[3, 0] = 1
    made = HeatMap("../<b>7", "Tops", "neck/collar", "<i>v</i>", 0.9, heat, tmp_path / "a.png")
    assert made.peak == (0.125, 0.875)
    drawn = np.asarray(heat_picture(made)).astype(int)
    warm = drawn[..., 0] - drawn[..., 2]
    assert warm[65:75, 2:12].mean() > 60 > 5 > abs(warm[:30, 30:].mean())
    write_heat_maps(tmp_path / "out", [made], "t.csv")
    (line,) = (tmp_path / "out" / "maps.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["peak"] == [0.125, 0.875]
    assert np.array(told["heat"]).shape == (4, 4)
    with Image.open(tmp_path / "out" / told["picture"]) as picture:
        assert picture.size == (60, 80)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "&lt;i&gt;v" in page
    assert "<i>v" not in page
    assert "data:image/jpeg" in page
    mismatch = Mismatch(
        "7", "Tops", "neck", "neck", "round", "v", 0.1, 0.9, 20.0, image=made.image, heat=made
    )
    assert audit_page([mismatch]).count("data:image/jpeg") == 2
