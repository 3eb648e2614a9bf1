"""Spoilt copies of photos: each by its product's id, made once, learnt from beside the photos and never instead."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Toy
from shelfwise.config import make_recipe
from shelfwise.data.bad_photos import CHANGES, bad_photos, darkened, drawn, spoilt, tinted
from shelfwise.errors import ImageError
from shelfwise.predictions import Machine
from shelfwise.recipes.treatments import Treatments, treat


def photo() -> Image.Image:
    """Squares of many colours, none near black or white."""
    cells = np.random.default_rng(0).integers(60, 190, (6, 4, 3)).astype(np.uint8)
    return Image.fromarray(cells).resize((40, 60), Image.Resampling.NEAREST)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float64)


def test_a_copy_is_spoilt_by_its_id_alone():
    again, other = pixels(spoilt(photo(), "a")), pixels(spoilt(photo(), "b"))
    assert np.array_equal(again, pixels(spoilt(photo(), "a")))
    assert not np.array_equal(again, other)
    assert again.shape == (60, 40, 3)


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_every_change_does_more_at_its_worse_end(number: int):
    change, low, high = CHANGES[number]
    done = [
        float(np.abs(pixels(change(photo(), strength, drawn("a"))) - pixels(photo())).mean())
        for strength in (low, high)
    ]
    least, most = sorted(done)
    assert most > least + 1
    assert most > 2


def test_darkness_leaves_a_share_and_a_tint_moves_two_channels_apart():
    assert pixels(darkened(photo(), 0.5, drawn("a"))).mean() == pytest.approx(
        pixels(photo()).mean() / 2, rel=0.02
    )
    gain = pixels(tinted(photo(), 0.25, drawn("a"))).mean(axis=(0, 1)) / pixels(photo()).mean(axis=(0, 1))
    assert sorted(gain.round(2).tolist()) == pytest.approx([0.8, 1.0, 1.25], abs=0.02)


def test_copies_are_made_once_and_a_broken_photo_stays_as_it_is(toy: Toy, tmp_path: Path):
    catalog = toy.catalog.select(range(4))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    images = (*catalog.images[:2], broken, None)
    catalog = replace(catalog, images=images, image_errors={3: ImageError("missing", "no such file")})
    found = bad_photos(catalog, cache=tmp_path)
    assert found.images[2:] == (broken, None)
    assert found.ids == catalog.ids
    first = found.images[0]
    assert first is not None
    assert first != catalog.images[0]
    written = first.stat().st_mtime_ns
    assert bad_photos(catalog, cache=tmp_path).images == found.images
    assert first.stat().st_mtime_ns == written


def test_every_row_is_learnt_from_twice_with_the_same_labels(toy: Toy, machine: Machine):
    catalog = toy.catalog.select(range(12))
    found = treat(catalog, Treatments(bad_photos=True), machine)
    assert len(found) == 24
    assert len(set(found.ids)) == 24
    assert found.images[:12] == catalog.images
    assert not set(found.images[12:]) & set(catalog.images)
    assert np.array_equal(found.codes[12:], catalog.codes)
    assert "12 spoilt copies" in " ".join(note.message for note in found.findings)


def test_what_learns_from_them_answers_dark_photos_better(toy: Toy, machine: Machine, tmp_path: Path):
    at = np.arange(len(toy.catalog))
    train, test = toy.catalog.select(at[at % 3 > 0]), toy.catalog.select(at[at % 3 == 0])
    dark = []
    for row, path in enumerate(test.images):
        assert path is not None
        dark.append(tmp_path / f"{row}.png")
        darkened(Image.open(path).convert("RGB"), 0.3, drawn(str(row))).save(dark[-1])
    shown = replace(test, images=tuple(dark))
    probe = sw.Probe(backbone=sw.backbone("toy"), look_alikes=0)
    treated = make_recipe({"name": "treated", "recipe": probe.table(), "treat": {"bad_photos": True}})
    scores = [
        sw.evaluate(
            recipe.fit(train, None, machine, 0).predict(shown, machine), test, metric="accuracy", bootstrap=0
        ).score
        for recipe in (probe, treated)
    ]
    assert scores[1] > scores[0] + 0.02
