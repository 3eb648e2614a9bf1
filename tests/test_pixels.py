"""Pixels: decoded once, kept by content, the same bytes wherever a picture is looked at; and the batches of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import shelfwise as sw
from conftest import Toy
from shelfwise.data.augment import Augment, Crop, Exclude, Flip, Mixing
from shelfwise.data.batches import Batch, Batches, Products
from shelfwise.data.images import read_bytes
from shelfwise.data.pixels import Pixels, read_pixels
from shelfwise.errors import ImageError
from shelfwise.models.backbones import Preprocess, build_backbone
from shelfwise.models.embed import embed
from shelfwise.models.engines import Card, Chosen, EngineRecord
from shelfwise.models.runners import Images, Vectors

pytestmark = pytest.mark.usefixtures("one_thread")
HALF = (0.5, 0.5, 0.5)
SMALL = Preprocess((24, 20), "stretch", "bilinear", 1.0, HALF, HALF)


class Counting:
    """A preprocess that counts how often it decodes."""

    def __init__(self, preprocess: Preprocess = SMALL) -> None:
        self.preprocess, self.times = preprocess, 0

    def __call__(self, data: bytes) -> Images:
        self.times += 1
        return self.preprocess.array(data)


@pytest.fixture
def photos(toy: Toy, tmp_path: Path) -> list[Path]:
    shutil.copytree(toy.directory / "images", tmp_path / "images")
    return sorted((tmp_path / "images").iterdir())[:12]


def read(
    photos: list[Path | None], cache: Path | None, decode: Callable[[bytes], Images], **given: object
) -> Pixels:
    return read_pixels(photos, decode, SMALL.size, "small", cache=cache, jobs=2, **given)  # type: ignore[arg-type]


def test_a_picture_is_decoded_once_and_is_what_the_preprocess_gives(photos: list[Path], tmp_path: Path):
    decode = Counting()
    first = read([*photos, photos[0]], tmp_path / "cache", decode)
    assert (first.decoded, decode.times) == (12, 12)
    again = read([*reversed(photos)], tmp_path / "cache", decode)
    rows = [0, 3, 3, 11]
    for row, image_HWC in zip(rows, again.take(rows), strict=True):
        assert np.array_equal(image_HWC, SMALL.array(read_bytes([*reversed(photos)][row])))
    assert (again.decoded, decode.times) == (0, 12)


def test_pictures_without_room_or_on_request_are_decoded_every_time(photos: list[Path], tmp_path: Path):
    kept = read([*photos], tmp_path / "cache", SMALL.array).take(range(12))
    for given in ({"mode": "decode"}, {"most_bytes": 24 * 20 * 3 * 11}):
        decode = Counting()
        found = read([*photos], tmp_path / f"other-{len(given)}", decode, **given)
        assert np.array_equal(found.take(range(12)), kept)
        assert decode.times == 24
        assert not list((tmp_path / f"other-{len(given)}").rglob("*.pixels"))
        assert bool(found.notes) == ("most_bytes" in given)


def test_room_is_made_by_what_was_not_used_for_longest(photos: list[Path], tmp_path: Path):
    limit = 24 * 20 * 3 * 12 + 4096
    for key in ("first", "second"):
        read_pixels([*photos], SMALL.array, SMALL.size, key, cache=tmp_path, most_bytes=limit, jobs=1)
    assert [path.name for path in (tmp_path / "pixels").iterdir()] == ["second"]


def test_unreadable_pictures_are_errors_of_their_rows(photos: list[Path], tmp_path: Path):
    photos[3].write_bytes(photos[3].read_bytes()[:60])
    found = read([photos[0], None, photos[3], tmp_path / "none.png"], tmp_path / "cache", SMALL.array)
    assert {row: error.kind for row, error in found.errors.items()} == {
        1: "missing",
        2: "truncated",
        3: "missing",
    }
    assert str(photos[3]) in str(found.errors[2])
    assert found.readable.tolist() == [True, False, False, False]
    with pytest.raises(ImageError, match=photos[3].name):
        found.take([0, 2])


def test_damage_is_noticed_and_the_picture_is_decoded_again(photos: list[Path], tmp_path: Path):
    whole = read([*photos], tmp_path, SMALL.array).take(range(12))
    (shard,) = tmp_path.rglob("*.pixels")
    content = bytearray(shard.read_bytes())
    content[5 * 24 * 20 * 3 + 7] ^= 0xFF
    shard.write_bytes(content)
    decode = Counting()
    found = read([*photos], tmp_path, decode)
    assert np.array_equal(found.take(range(12)), whole)
    assert decode.times == 1
    shard.write_bytes(content[:-9])  # cut off: no shard at all
    assert read([*photos], tmp_path, decode).decoded == 12
    assert not shard.exists()


def test_a_file_that_changes_meanwhile_is_said(photos: list[Path], tmp_path: Path):
    found = read([*photos], tmp_path, SMALL.array, mode="decode")
    shutil.copy(photos[1], photos[0])
    with pytest.raises(ImageError, match="changed"):
        found.take([0])


class Seeing:
    """An engine that keeps the pixels it is given."""

    name, precision, batch = "torch", "f32", 1

    def __init__(self) -> None:
        self.seen: list[Images] = []

    def run(self, images_BHWC: Images) -> Vectors:
        self.seen.append(images_BHWC[0].copy())
        return np.zeros((1, 2), np.float32)


@pytest.mark.parametrize("model", ["test_convnext", "test_efficientnet"])
def test_validation_predict_and_one_picture_see_the_same_pixels(
    model: str, photos: list[Path], tmp_path: Path
):
    """Each network at its own size and fit; the training pictures of ``fit`` come from the same function."""
    spec = sw.backbone("timm", model=model, weights=False, **({"size": 96} if "conv" in model else {}))
    backbone = build_backbone(spec)
    preprocess = backbone.preprocess
    assert preprocess.size == ((96, 96) if "conv" in model else (160, 160))
    kept = read_pixels([*photos], preprocess.array, preprocess.size, model, cache=tmp_path, jobs=1)
    card = Card(backbone.name, 2, preprocess, backbone.fingerprint)
    for sources in ([*photos], [photos[4]], [photos[4].read_bytes()]):
        engine = Seeing()
        chosen = Chosen(card, engine, EngineRecord("torch", "f32", "cpu", ""))
        embed(sources, chosen, jobs=1)  # type: ignore[arg-type]
        rows = range(12) if len(sources) > 1 else [4]
        assert np.array_equal(np.stack(engine.seen), kept.take(rows))


def products(toy: Toy, tmp_path: Path, **given: object) -> Products:
    catalog = toy.catalog.select(range(60))
    pixels = read_pixels(catalog.images, SMALL.array, SMALL.size, "small", cache=tmp_path, jobs=1)
    labels_NA = np.full((60, 3), -1, np.int64)
    for name in catalog.present:
        labels_nA = catalog.labels(name)
        labels_NA[catalog.rows(name), : labels_nA.shape[1]] = labels_nA
    category_N = catalog.category.astype(np.int64)
    return Products(catalog.ids, pixels, np.arange(60), category_N, labels_NA, **given)  # type: ignore[arg-type]


def reordered(found: Products, order: np.ndarray) -> Products:
    ids = tuple(found.ids[at] for at in order)
    weights = None if found.weights is None else found.weights[order]
    return Products(ids, found.pixels, found.rows[order], found.category[order], found.labels[order], weights)


def pictures(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {id_: image for batch in batches for id_, image in zip(batch.ids, batch.images_BHWC, strict=True)}


def test_an_epoch_is_drawn_from_seed_epoch_and_id_alone(toy: Toy, tmp_path: Path):
    given = products(toy, tmp_path)
    order = np.random.default_rng(3).permutation(60)

    def epoch(found: Products, number: int, seed: int = 0, ahead: int = 1) -> list[Batch]:
        made = Batches(found, toy.catalog.taxonomy, (16, 16), 16, seed, Augment(), ahead=ahead)
        assert len(made(number)) == len(list(made(number))) == 4
        return list(made(number))

    first = epoch(given, 0)
    assert sorted(id_ for batch in first for id_ in batch.ids) == sorted(given.ids)
    assert {len(batch.ids) for batch in first} == {15}
    for other in (epoch(reordered(given, order), 0), epoch(given, 0, ahead=0)):
        assert [batch.ids for batch in other] == [batch.ids for batch in first]
        for one, two in zip(first, other, strict=True):
            assert torch.equal(one.images_BHWC, two.images_BHWC)
            assert torch.equal(one.labels_BA, two.labels_BA)
    for other in (epoch(given, 1), epoch(given, 0, seed=1)):
        assert [batch.ids for batch in other] != [batch.ids for batch in first]
        same = [torch.equal(pictures(first)[id_], image) for id_, image in pictures(other).items()]
        assert sum(same) < 5


def test_an_epoch_begins_in_the_middle_as_it_would_have_gone_on(toy: Toy, tmp_path: Path):
    made = Batches(
        products(toy, tmp_path), toy.catalog.taxonomy, (16, 16), 16, 0, Augment(), Mixing(mixup=0.4)
    )
    whole, rest = list(made(2)), list(made(2).skip(1).skip(2))
    assert len(rest) == len(made(2).skip(3)) == 1
    assert torch.equal(whole[3].images_BHWC, rest[0].images_BHWC)
    assert whole[3].mixed is not None
    assert rest[0].mixed is not None
    assert torch.equal(whole[3].mixed.share_B, rest[0].mixed.share_B)


def test_processes_share_every_batch(toy: Toy, tmp_path: Path):
    given = products(toy, tmp_path)

    def part(process: int, processes: int) -> list[Batch]:
        made = Batches(
            given, toy.catalog.taxonomy, (16, 16), 14, 0, Augment(), process=process, processes=processes
        )
        return list(made(0))

    alone = part(0, 1)
    for one, *parts in zip(alone, part(0, 2), part(1, 2), strict=True):
        assert sorted(one.ids) == sorted([*parts[0].ids, *parts[1].ids])
        for id_, image in pictures(parts).items():
            assert torch.equal(pictures([one])[id_], image)


def test_the_weighted_sampler_shows_each_as_often_as_it_weighs(toy: Toy, tmp_path: Path):
    weights_N = np.random.default_rng(0).permutation(np.repeat([0.25, 0.5, 2.25], 20))
    given = products(toy, tmp_path, weights=weights_N)
    made = Batches(given, toy.catalog.taxonomy, (16, 16), 16, 0)
    counts_N = np.zeros(60)
    for epoch in range(40):
        drawn, copies = made.order(epoch)
        assert len(drawn) == 60
        assert sorted(zip(drawn.tolist(), copies.tolist(), strict=True)) == sorted(
            {(at, copy) for at, copy in zip(drawn.tolist(), copies.tolist(), strict=True)}
        )
        counts_N += np.bincount(drawn, minlength=60)
    assert np.abs(counts_N / 40 - weights_N).max() < 0.25
    order = np.random.default_rng(1).permutation(60)
    other = Batches(reordered(given, order), toy.catalog.taxonomy, (16, 16), 16, 0)
    assert [given.ids[at] for at in made.order(0)[0]] == [other.products.ids[at] for at in other.order(0)[0]]


def test_labels_that_a_change_hides_are_left_out(toy: Toy, tmp_path: Path):
    given = products(toy, tmp_path)
    taxonomy = toy.catalog.taxonomy
    augment = Augment(crop=Crop(probability=0), flip=Flip(probability=1), exclude=Exclude(flip=("pattern",)))
    for batch in Batches(given, taxonomy, SMALL.size, 16, 0, augment)(0):
        for at, row in enumerate(batch.rows_B.tolist()):
            names = [choice.name for choice in taxonomy.choices(taxonomy.categories[given.category[row]])]
            for column, name in enumerate(names):
                kept = -1 if name == "pattern" else given.labels[row, column]
                assert batch.labels_BA[at, column] == kept
        first = given.pixels.take([int(batch.rows_B[0])])[0]
        assert torch.allclose(batch.images_BHWC[0], torch.from_numpy(first).float().flip(1), atol=0.5)


def test_unlabelled_pictures_come_along(toy: Toy, tmp_path: Path):
    given = products(toy, tmp_path)
    extra = reordered(given, np.arange(5))
    made = Batches(given, toy.catalog.taxonomy, SMALL.size, 16, 0, None, unlabelled=extra)
    for batch in made(0):
        assert batch.unlabelled_UHWC is not None
        assert len(batch.unlabelled_UHWC) == len(batch.ids)
        known = torch.from_numpy(given.pixels.take(range(5)))
        assert all((known == image).flatten(1).all(dim=1).any() for image in batch.unlabelled_UHWC)
