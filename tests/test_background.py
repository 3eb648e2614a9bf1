"""Background: copies with one ground, made once, named by content; the extra and the licences are kept."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Toy
from shelfwise.config import make_recipe
from shelfwise.data import background
from shelfwise.data.background import MODELS, cutter, without_background
from shelfwise.errors import ConfigError, MissingExtra, UsageError
from shelfwise.predictions import Machine
from shelfwise.recipes.treated import Treated


class Scissors:
    """Cuts the middle half out, and counts."""

    def __init__(self) -> None:
        self.cuts = 0

    def __call__(self, picture: Image.Image) -> Image.Image:
        self.cuts += 1
        found = picture.convert("RGBA")
        mask = Image.new("L", picture.size)
        width, height = picture.size
        mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
        found.putalpha(mask)
        return found


def test_only_the_product_is_left(toy: Toy, tmp_path: Path):
    cut = Scissors()
    found = without_background(toy.catalog, cache=tmp_path, cut=cut, ground=(9, 8, 7))
    assert found.ids == toy.catalog.ids
    assert np.array_equal(found.codes, toy.catalog.codes)
    for row in (0, 17, 90):
        old, new = toy.catalog.images[row], found.images[row]
        assert old is not None
        assert new is not None
        assert new.is_relative_to(tmp_path)
        before, after = np.array(Image.open(old).convert("RGB")), np.array(Image.open(new))
        assert np.array_equal(after[8:24, 8:24], before[8:24, 8:24]), "the product's own pixels"
        assert (after[:8] == (9, 8, 7)).all()
        assert (after[:, 24:] == (9, 8, 7)).all()


def test_a_content_is_cut_once(toy: Toy, tmp_path: Path):
    cut, some = Scissors(), toy.catalog.select([0, 1, 1, 2])
    first = without_background(some, cache=tmp_path, cut=cut)
    assert cut.cuts == 3
    assert without_background(some, cache=tmp_path, cut=cut).images == first.images
    assert cut.cuts == 3, "the second time nothing is cut"
    without_background(some, cache=tmp_path, cut=cut, ground=(0, 0, 0))
    assert cut.cuts == 6, "another ground, other copies"
    without_background(some, cache=tmp_path, cut=cut, model="u2netp")
    assert cut.cuts == 9, "another network, other copies"


def test_unreadable_pictures_stay_as_they_are(toy: Toy, tmp_path: Path):
    from dataclasses import replace

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    images = (*toy.catalog.images[:2], broken, tmp_path / "none.png", None)
    catalog = replace(toy.catalog.select(range(5)), images=images)
    found = without_background(catalog, cache=tmp_path / "cache", cut=Scissors())
    assert found.images[2:] == images[2:]
    assert found.images[0] != images[0]


def test_a_cut_out_of_another_size_is_refused(toy: Toy, tmp_path: Path):
    with pytest.raises(UsageError, match=r"not RGBA or L of \(32, 32\)"):
        without_background(toy.catalog, cache=tmp_path, cut=lambda picture: Image.new("L", (5, 5)))
    with pytest.raises(UsageError, match="RGB of"):
        without_background(toy.catalog, cache=tmp_path, cut=lambda picture: picture)
    assert not list(tmp_path.rglob("*.png"))


def test_the_extra_is_named(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(MissingExtra, match=r"shelfwise\[background\]"):
        without_background(toy.catalog, cache=tmp_path)


def test_networks_that_are_not_for_commercial_use_are_refused():
    with pytest.raises(UsageError, match="non-commercial"):
        cutter("bria-rmbg")
    with pytest.raises(UsageError, match="Did you mean 'u2net'"):
        cutter("u2nett")
    with pytest.raises(ConfigError, match=r"recipe\.background.*u2net"):
        make_recipe({"name": "treated", "background": "bria-rmbg"})
    assert all("NC" not in licence for licence in MODELS.values())


def test_rembg_is_asked_once_for_a_session(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sessions: list[str] = []
    cut = Scissors()

    def new_session(name: str) -> str:
        sessions.append(name)
        return f"session of {name}"

    def remove(picture: Image.Image, *, session: str) -> Image.Image:
        assert session == "session of isnet-general-use"
        return cut(picture)

    stub: Any = types.ModuleType("rembg")
    stub.new_session, stub.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", stub)
    without_background(toy.catalog.select(range(6)), model="isnet-general-use", cache=tmp_path)
    assert sessions == ["isnet-general-use"]
    assert cut.cuts == 6


def test_learning_and_answering_see_the_same_pictures(
    toy: Toy, tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
):
    """With the background cut, two pictures that differ only there get the same answer, saved and loaded too."""
    monkeypatch.setattr(background, "cutter", lambda model: Scissors())
    machine = Machine(cache=tmp_path / "cache", jobs=1, engine="torch")
    recipe = Treated(recipe={"name": "probe", "backbone": "toy"}, background="u2net")
    predictor = recipe.fit(toy.catalog, None, machine, 0)
    (tmp_path / "saved").mkdir()
    predictor.save(tmp_path / "saved")
    picture = np.array(Image.open(toy.catalog.images[5]).convert("RGB"))  # type: ignore[arg-type]
    picture[:8] = 0
    Image.fromarray(picture).save(tmp_path / "other.png")
    from dataclasses import replace

    pair = toy.catalog.select([5, 5])
    pair = replace(pair, images=(toy.catalog.images[5], tmp_path / "other.png"))
    for each in (predictor, recipe.load(tmp_path / "saved", toy.catalog.taxonomy)):
        probs = each.predict(pair, machine).blocks[0].probs
        assert np.array_equal(probs[0], probs[1])
    plain = sw.Probe(backbone=sw.backbone("toy")).fit(toy.catalog, None, machine, 0)
    probs = plain.predict(pair, machine).blocks[0].probs
    assert not np.array_equal(probs[0], probs[1])
