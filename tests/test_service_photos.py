"""Photos in memory: they are answered like files, their vectors like those of the library, and no more are kept."""

from pathlib import Path

import numpy as np
import pytest

import shelfwise.testing  # noqa: F401  (registers the backbone "toy")
from conftest import Toy
from shelfwise.data.images import HeldPhoto, read_bytes
from shelfwise.errors import ImageError
from shelfwise.models.embed import embed
from shelfwise.models.engines import Chosen, choose_engine
from shelfwise.models.remembered import Remembered
from shelfwise.registry import REGISTRIES


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Chosen:
    return choose_engine(REGISTRIES["backbone"].spec("toy"), requested="torch", device="cpu", jobs=1)


@pytest.fixture(scope="module")
def photos(toy: Toy) -> list[bytes]:
    return [path.read_bytes() for path in sorted((toy.directory / "images").iterdir())[:6]]


class Held:
    """Rows with photos in memory."""

    def __init__(self, *photos: bytes) -> None:
        self.images = tuple(HeldPhoto.of(f"{row}/photo", data) for row, data in enumerate(photos))
        self.image_errors: dict[int, ImageError] = {}


def test_a_held_photo_is_a_path_that_reads_nothing(photos: list[bytes], tmp_path: Path):
    there = tmp_path / "x.png"
    there.write_bytes(b"another")
    held = HeldPhoto.of(str(there), photos[0])
    assert read_bytes(held) == photos[0]
    with pytest.raises(ImageError, match="0 bytes") as error:
        read_bytes(HeldPhoto.of("0/photo", b""))
    assert error.value.kind == "empty"
    with pytest.raises(ImageError, match="more than 10 bytes"):
        read_bytes(held, max_bytes=10)


def test_vectors_are_those_of_the_library_looked_at_before_or_not(photos: list[bytes], chosen: Chosen):
    memory = Remembered()
    first = memory.vectors(Held(photos[0]), chosen)
    memory.look(photos[1], [chosen])
    found = memory.vectors(Held(*photos[:4], photos[1]), chosen, jobs=1)
    plain = embed([*photos[:4], photos[1]], chosen, jobs=1)
    assert np.array_equal(found.vectors, plain.vectors)
    assert (found.space, found.fingerprint, found.record) == (plain.space, plain.fingerprint, plain.record)
    assert (first.computed, found.computed) == (1, 2)


def test_what_cannot_be_read_is_named_by_its_row(photos: list[bytes], chosen: Chosen):
    memory, bad = Remembered(), photos[0][:60]
    memory.look(bad, [chosen])
    for _ in range(2):
        found = memory.vectors(Held(photos[0], bad, b""), chosen, jobs=1)
        assert sorted(found.errors) == [1, 2]
        assert str(found.errors[1]).startswith("1/photo: ")
        assert found.errors[2].kind == "empty"
        assert np.isnan(found.vectors[1:]).all()
        assert np.isfinite(found.vectors[0]).all()


def test_the_oldest_vectors_make_room(photos: list[bytes], chosen: Chosen):
    memory = Remembered(most=2)
    assert memory.vectors(Held(*photos[:4]), chosen, jobs=1).computed == 4
    assert memory.vectors(Held(*photos[2:4]), chosen, jobs=1).computed == 0
    assert memory.vectors(Held(photos[0]), chosen, jobs=1).computed == 1


def test_an_engine_that_is_seldom_asked_is_not_used_ahead(photos: list[bytes], chosen: Chosen):
    memory, seldom = Remembered(), Chosen(chosen.card, chosen.engine, chosen.record, "another network")
    memory.vectors(Held(*photos[:5]), chosen, jobs=1)
    memory.vectors(Held(photos[0]), seldom, jobs=1)
    memory.look(photos[5], [chosen, seldom])
    assert memory.vectors(Held(photos[5]), chosen, jobs=1).computed == 0
    assert memory.vectors(Held(photos[5]), seldom, jobs=1).computed == 1
