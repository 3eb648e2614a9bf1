import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

import hostile
from shelfwise.catalog import Catalog
from shelfwise.data.alike import likeness
from shelfwise.data.facts import FactTable, facts_of
from shelfwise.data.group import STORE_NAME, close_pairs, groups_of, near_duplicates, text_keys
from shelfwise.data.store import Store
from shelfwise.errors import UsageError
from shelfwise.findings import Findings
from shelfwise.rendering import render_catalog
from shelfwise.roles import Columns
from test_facts import photo

DATA = Path(os.environ.get("SHELFWISE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def table(count: int, seed: int = 0, **columns: np.ndarray) -> FactTable:
    """Facts of pictures that have nothing in common, unless columns are given."""
    rng = np.random.default_rng(seed)
    zeros = np.zeros(count, dtype=np.float32)
    facts = {
        "ok": np.ones(count, dtype=bool),
        "digest": rng.integers(0, 256, (count, 16), dtype=np.uint8),
        "width": np.full(count, 200, dtype=np.int32),
        "height": np.full(count, 200, dtype=np.int32),
        **dict.fromkeys(("blur", "brightness", "contrast", "dark_share", "bright_share"), zeros),
        "detail": np.full(count, 50, dtype=np.float32),
        "phash": rng.integers(0, 2**64, count, dtype=np.uint64),
        "dhash": rng.integers(0, 2**64, count, dtype=np.uint64),
        "colour": rng.integers(0, 256, (count, 48), dtype=np.uint8),
        "thumb": rng.integers(0, 256, (count, 768), dtype=np.uint8),
        "luma": rng.integers(0, 256, (count, 2304), dtype=np.uint8),
    }
    return FactTable(**{**facts, **columns}, notes=((),) * count, errors={}, findings=Findings())


def partition(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 60),
    distance=st.integers(0, 9),
    colour=st.sampled_from([0.0, 2.5, 20.0]),
)
def test_close_pairs_are_exactly_those_of_brute_force(
    seed: int, count: int, distance: int, colour: float
) -> None:
    rng = np.random.default_rng(seed)
    hashes = (
        rng.choice(rng.integers(0, 2**64, 5, dtype=np.uint64), count) if count else np.zeros(0, np.uint64)
    )
    for _ in range(6):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)) * (
            rng.random(count) < 0.5
        )
    colours = (
        rng.integers(0, 200, (1, 48)) + rng.integers(0, 20, (count, 1)) + rng.integers(0, 3, (count, 48))
    ).astype(np.uint8)
    found = {tuple(pair) for pair in close_pairs(hashes, colours, distance, colour).T.tolist()}
    right = {
        (i, j)
        for j in range(count)
        for i in range(j)
        if int(hashes[i] ^ hashes[j]).bit_count() <= distance
        and np.abs(colours[i].astype(int) - colours[j]).mean() <= colour
    }
    assert found == right


def test_distances_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError):
        close_pairs(np.zeros(2, np.uint64), np.zeros((2, 48), np.uint8), 40, 1.0)


def test_links_of_every_kind_and_chains() -> None:
    facts = table(9)
    facts.digest[1] = facts.digest[0]
    for name in ("phash", "colour", "thumb", "luma"):
        getattr(facts, name)[1:3] = getattr(facts, name)[0]
    facts.phash[2] ^= np.uint64(0b101)
    titles = [None, None, "x", "x", None, None, None, "y", "y"]
    codes = [None, None, None, None, "c", "c", None, None, None]
    groups = groups_of(facts, [titles, codes])
    assert groups.tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3]


def test_same_hash_and_another_colour_is_another_product() -> None:
    facts = table(4)
    facts.phash[:] = facts.phash[0]
    facts.thumb[:] = facts.thumb[0]
    facts.luma[:] = facts.luma[0]
    facts.colour[:] = 100
    facts.colour[2:, ::3] = 160
    assert groups_of(facts).tolist() == [0, 0, 1, 1]


def test_plain_pictures_are_linked_by_identical_files_only() -> None:
    facts = table(5, detail=np.full(5, 1, dtype=np.float32))
    for name in ("phash", "colour", "thumb", "luma"):
        getattr(facts, name)[:] = getattr(facts, name)[0]
    facts.digest[4] = facts.digest[2]
    assert groups_of(facts).tolist() == [0, 1, 2, 3, 2]


def test_unreadable_pictures_are_alone_unless_a_title_links_them() -> None:
    facts = table(4, ok=np.array([False, False, False, True]), digest=np.zeros((4, 16), dtype=np.uint8))
    assert groups_of(facts, [[None, "a", None, "a"]]).tolist() == [0, 1, 2, 1]
    assert groups_of(table(0)).tolist() == []


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000))
def test_groups_do_not_depend_on_row_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    base = table(10, seed)
    pick = rng.integers(0, 10, 40)
    columns = {n: getattr(base, n)[pick] for n in ("digest", "phash", "colour", "thumb", "luma")}
    columns["phash"] = columns["phash"] ^ (np.uint64(1) << rng.integers(0, 64, 40, dtype=np.uint64))
    columns["digest"] = rng.integers(0, 256, (40, 16), dtype=np.uint8)
    keys = rng.choice(["a", "b", "c", "d", "e", "f", "g"], 40).tolist()
    order = rng.permutation(40)
    straight = groups_of(table(40, **columns), [keys])
    shuffled = groups_of(table(40, **{n: v[order] for n, v in columns.items()}), [[keys[i] for i in order]])
    back = np.empty(40, dtype=np.int64)
    back[order] = shuffled
    assert partition(straight) == partition(back)
    assert straight[0] == 0, "groups are numbered as they first appear"
    assert [n for i, n in enumerate(straight) if n not in straight[:i]] == sorted(set(straight.tolist()))


def test_many_unlike_photos_stay_apart() -> None:
    assert len(np.unique(groups_of(table(30_000)))) > 29_990


def test_pairs_are_kept_and_the_same_from_the_cache(tmp_path: Path) -> None:
    facts = table(40, phash=np.repeat(np.arange(20, dtype=np.uint64) << np.uint64(40), 2))
    fresh = groups_of(facts)
    assert groups_of(facts, cache=tmp_path).tolist() == fresh.tolist()
    with Store(tmp_path / STORE_NAME) as store:
        assert len(store) == 1
    assert groups_of(facts, cache=tmp_path).tolist() == fresh.tolist()
    groups_of(facts, cache=tmp_path, hash_distance=3)
    with Store(tmp_path / STORE_NAME) as store:
        assert len(store) == 2, "other settings are another entry"


def test_one_hash_for_all_is_no_trap() -> None:
    count = 1_000
    rng = np.random.default_rng(0)
    shades = (
        (rng.integers(0, 256, (count, 1)) + rng.integers(-9, 9, (count, 48))).clip(0, 255).astype(np.uint8)
    )
    facts = table(count, phash=np.full(count, 77, dtype=np.uint64), colour=shades)
    assert len(np.unique(groups_of(facts))) == count, "thumbs differ"


def products(directory: Path) -> Catalog:
    """Six photos: 0 and 1 the same file, 2 the same re-encoded, 3 another, 4 unreadable, 5 of no file."""
    directory.mkdir()
    photo(1).save(directory / "0.jpg", quality=90)
    (directory / "1.jpg").write_bytes((directory / "0.jpg").read_bytes())
    photo(1).resize((160, 120)).save(directory / "2.jpg", quality=80)
    photo(2).save(directory / "3.jpg")
    (directory / "4.jpg").write_bytes(b"<html>")
    frame = pl.DataFrame(
        {
            "id": [f"p{i}" for i in range(6)],
            "category": ["Tops"] * 5 + ["Bags"],
            "image": [f"{i}.jpg" for i in range(6)],
            "colour": ["Red", "Blue", "Red", "Red", "Red", "Red"],
            "title": ["Mia top", "Lea top", "Zoe top", " ada  TOP", "Ada top", "Ada top"],
        }
    )
    return Catalog.read(frame, images=directory, columns=Columns(choice=("colour",)))


def test_near_duplicates_of_a_catalogue(tmp_path: Path) -> None:
    catalog = products(tmp_path / "images")
    assert "title" in catalog.text_columns
    assert near_duplicates(catalog, use_text=False).tolist() == [0, 0, 0, 1, 2, 3]
    assert near_duplicates(catalog).tolist() == [0, 0, 0, 1, 1, 2], "titles count within a category"
    folds = catalog.folds(2, groups=near_duplicates(catalog))
    assert len({int(folds.fold[row]) for row in (0, 1, 2)}) == 1


def test_generic_titles_link_nothing_and_codes_link(tmp_path: Path) -> None:
    count = 120
    frame = pl.DataFrame(
        {
            "id": [str(i) for i in range(count)],
            "category": ["Tops"] * count,
            "title": ["T-shirt"] * 60 + [f"Shirt {i // 2}" for i in range(60)],
            "style_code": [f"S{i // 3}" for i in range(count)],
        }
    )
    catalog = Catalog.read(frame, images=tmp_path)
    titles, codes = text_keys(catalog)
    assert titles[:60] == [None] * 60
    assert None not in titles[60:]
    assert max(Counter(codes).values()) == 3


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded": lambda image: image,
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "double": lambda image: image.resize((image.width * 2, image.height * 2)),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.85),
    "harder": lambda image: ImageEnhance.Contrast(image).enhance(1.15),
    "trimmed": lambda image: image.crop(
        (image.width // 80, image.height // 80, image.width * 79 // 80, image.height * 79 // 80)
    ),
}


def recall(files: list[Path], directory: Path, alter: Callable[[Image.Image], Image.Image]) -> float:
    """Save an altered JPEG of quality 70 of each file; return the share found beside its source."""
    directory.mkdir()
    copies = [directory / f"{path.stem}.jpg" for path in files]
    for path, copy in zip(files, copies, strict=True):
        with Image.open(path) as image:
            alter(image.convert("RGB")).save(copy, quality=70)
    groups = groups_of(facts_of([*files, *copies])).reshape(2, -1)
    assert len(np.unique(groups[0])) >= len(files) - 1, "different products stay apart"
    return float((groups[0] == groups[1]).mean())


@pytest.mark.parametrize("kind", ALTERED)
def test_altered_copies_of_photos_are_found(tmp_path: Path, kind: str) -> None:
    rendered = render_catalog(tmp_path / "shop", products=40)
    files = sorted(path for path in rendered.train_images.iterdir() if path.stat().st_size > 1000)
    planted = {f"{one.id:06d}" for one in (*rendered.duplicates, *rendered.unreadable)}
    files = [path for path in files if path.stem not in planted]
    assert recall(files, tmp_path / "copies", ALTERED[kind]) >= 0.95


def test_planted_duplicates_are_found_and_nothing_else(tmp_path: Path) -> None:
    rendered = render_catalog(tmp_path, products=600)
    files = sorted(rendered.train_images.iterdir())
    groups = dict(zip((int(path.stem) for path in files), groups_of(facts_of(files)).tolist(), strict=True))
    assert all(groups[one.id] == groups[one.source] for one in rendered.duplicates)
    assert len(groups) - len(set(groups.values())) == len(rendered.duplicates)


@pytest.mark.data
@pytest.mark.parametrize("kind", ALTERED)
@pytest.mark.parametrize("folder", ["fashion/train_images", "myntra/images"])
def test_altered_copies_of_real_photos_are_found(tmp_path: Path, folder: str, kind: str) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip("the shared catalogues are not here (SHELFWISE_DATA)")
    files = sorted((DATA / folder).iterdir())[::100]
    assert recall(files, tmp_path / "copies", ALTERED[kind]) >= (0.85 if kind == "trimmed" else 0.95)


@pytest.mark.data
def test_the_fashion_catalogue_has_small_groups() -> None:
    if not (DATA / "fashion").is_dir():
        pytest.skip("the shared catalogues are not here (SHELFWISE_DATA)")
    files = sorted((DATA / "fashion" / "train_images").iterdir())[:1500]
    groups = groups_of(facts_of(files))
    sizes = np.bincount(groups)
    assert sizes.max() <= 10, "posed alike is not the same product"


def test_hostile_pictures_can_be_grouped(tmp_path: Path) -> None:
    expected = hostile.write_hostile(tmp_path / "images")
    facts = facts_of([tmp_path / "images" / name for name in expected])
    bad = {name for name, kind in expected.items() if kind not in (None, "outside")}
    assert {list(expected)[row] for row in facts.errors} == bad
    groups = groups_of(facts)
    by_name = dict(zip(expected, groups.tolist(), strict=True))
    assert by_name["no_ending"] == by_name["link_outside.jpg"]
    assert by_name["no_ending"] == by_name["really_a_png.jpg"]
    assert Counter(groups.tolist())[by_name["page.jpg"]] == 1


def test_pairs_of_which_none_is_near_have_no_odds():
    """Whole chunks are dropped at the coarse look (other thumbs) or at the fine one (other pictures)."""
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 255, (2, 4, 48, 48), dtype=np.uint8)
    thumb = rng.integers(0, 255, (2, 4, 16, 16, 3), dtype=np.uint8)
    for thumbs in (thumb, thumb[[0, 0]]):
        assert np.isneginf(likeness(*luma, *thumbs)).all()
    assert np.isfinite(likeness(luma[0], luma[0], thumb[0], thumb[0])).all()
