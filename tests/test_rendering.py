"""The rendered catalogue: same bytes every time, the challenge's layout, planted faults that are really there."""

import hashlib
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from PIL import Image

from shelfwise.drawings import draw_product
from shelfwise.errors import UsageError
from shelfwise.rendering import RenderedCatalog, contact_sheet, render_catalog
from shelfwise.shelves import CATEGORIES, Line, values_of

ATTRS = [f"attr_{k}" for k in range(1, 11)]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> RenderedCatalog:
    return render_catalog(tmp_path_factory.mktemp("shop"), products=300, size=(96, 128))


def read(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema_length=None)


def digests(directory: Path) -> dict[str, str]:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_arguments_give_the_same_bytes_and_replace_an_earlier_run(tmp_path: Path) -> None:
    render_catalog(tmp_path / "a", products=60, size=(48, 64), seed=3)
    first = digests(tmp_path / "a")
    render_catalog(tmp_path / "b", products=70, size=(48, 64), seed=4)
    assert digests(tmp_path / "b") != first
    (tmp_path / "b" / "train_images" / "mine.jpg").write_bytes(b"not ours")
    render_catalog(tmp_path / "b", products=60, size=(48, 64), seed=3)
    (tmp_path / "b" / "train_images" / "mine.jpg").unlink()  # was left alone
    assert digests(tmp_path / "b") == first


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    render_catalog(
        tmp_path, products=50, size=(32, 32), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(k, 50) for k in range(1, 51)]


@pytest.mark.parametrize(("products", "size"), [(39, (96, 128)), (60, (16, 128))])
def test_too_small_is_refused(tmp_path: Path, products: int, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="at least 40 products"):
        render_catalog(tmp_path / "x", products=products, size=size)
    assert not (tmp_path / "x").exists()


def test_tables_have_the_layout_of_the_challenge(rendered: RenderedCatalog) -> None:
    train, test, catalog = read(rendered.train), read(rendered.test), read(rendered.catalog)
    assert train.columns == ["id", "Category", "len", *ATTRS]
    assert test.columns == ["id", "Category"]
    assert catalog.columns[:3] == ["id", "image", "category"]
    assert catalog.columns[-3:] == ["title", "description", "price"]
    assert (train.height, test.height) == (rendered.train_count, rendered.test_count) == (210, 90)
    ids = [*train["id"], *test["id"]]
    assert len(set(ids)) == 300
    assert max(train["id"]) > 210, "train ids have gaps"
    assert catalog["id"].to_list() == train["id"].to_list()
    lists = pl.read_parquet(rendered.attributes)
    assert lists.columns == ["Category", "No_of_attribute", "Attribute_list"]
    assert lists["No_of_attribute"].to_list() == [5, 10, 9, 8, 10]
    names = {row["Category"]: row["Attribute_list"] for row in lists.to_dicts()}
    for stated, named in zip(train.to_dicts(), catalog.to_dicts(), strict=True):
        used = names[stated["Category"]]
        assert stated["len"] == len(used)
        assert [stated[a] for a in ATTRS[: len(used)]] == [named[name] for name in used]
        assert all(stated[a] is None for a in ATTRS[len(used) :])


def test_values_are_those_of_the_category(rendered: RenderedCatalog) -> None:
    known = {line.category: [set(line.values(name)) for name in line.attributes] for line in CATEGORIES}
    for path in (rendered.train, rendered.truth, rendered.test_labels):
        for row in read(path).to_dicts():
            for column, values in zip(ATTRS, known[row["Category"]], strict=False):
                assert row[column] in values or (row[column] is None and path == rendered.train)


def test_wrong_labels_are_exactly_the_cells_that_differ_from_the_truth(rendered: RenderedCatalog) -> None:
    truth = {row["id"]: row for row in read(rendered.truth).to_dicts()}
    cells, differ = 0, set()
    for row in read(rendered.train).to_dicts():
        stated = [a for a in ATTRS if row[a] is not None]
        assert stated, "no row is wholly unlabelled"
        cells += len(stated)
        differ |= {
            (row["id"], a, truth[row["id"]][a], row[a]) for a in stated if row[a] != truth[row["id"]][a]
        }
    assert differ == {(w.id, w.column, w.true, w.stated) for w in rendered.wrong_labels}
    assert 0.015 < len(differ) / cells < 0.03
    noted = {(i, a) for i, row in truth.items() for a in (row["wrong_label"] or "").split(";") if a}
    assert noted == {(w.id, w.column) for w in rendered.wrong_labels}


def test_test_labels_are_the_truth_of_the_test_rows(rendered: RenderedCatalog) -> None:
    truth = read(rendered.truth).filter(pl.col("split") == "test")
    labels = read(rendered.test_labels)
    assert labels.select("id", *ATTRS).equals(truth.select("id", *ATTRS))
    assert labels["id"].to_list() == read(rendered.test)["id"].to_list()


def test_unreadable_files_fail_as_named_and_all_others_open(rendered: RenderedCatalog) -> None:
    for split in ("train", "test"):
        kinds = {u.kind for u in rendered.unreadable if u.split == split}
        assert kinds == {"empty", "not_an_image", "truncated", "missing"}
    broken = {u.path for u in rendered.unreadable}
    for u in rendered.unreadable:
        if u.kind == "missing":
            assert not u.path.exists()
        elif u.kind == "empty":
            assert u.path.read_bytes() == b""
        elif u.kind == "not_an_image":
            assert u.path.read_bytes().startswith(b"<!DOCTYPE html")
        else:
            assert u.path.read_bytes().startswith(b"\xff\xd8")
            with Image.open(u.path) as picture, pytest.raises(OSError, match="truncated"):
                picture.load()
    suffixes = set()
    for row in read(rendered.truth).to_dicts():
        path = rendered.directory / row["image"]
        assert path.stem == f"{row['id']:06d}"
        if path not in broken:
            suffixes.add(path.suffix)
            with Image.open(path) as picture:
                picture.load()
    assert suffixes == {".jpg", ".png", ".webp"}


def small(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((16, 16)), dtype=np.float64)


def test_duplicates_look_alike_but_are_other_files(rendered: RenderedCatalog) -> None:
    image = {row["id"]: rendered.directory / row["image"] for row in read(rendered.truth).to_dicts()}
    train = {row["id"]: row for row in read(rendered.train).to_dicts()}
    assert rendered.duplicates
    for pair in rendered.duplicates:
        one, two = image[pair.id], image[pair.source]
        assert one.read_bytes() != two.read_bytes()
        assert np.corrcoef(small(one).ravel(), small(two).ravel())[0, 1] > 0.9
        for column in pair.conflict:
            assert train[pair.id][column] != train[pair.source][column]
    assert any(pair.conflict for pair in rendered.duplicates)
    assert any(not pair.conflict for pair in rendered.duplicates)


def test_missing_cells_come_in_clusters(rendered: RenderedCatalog) -> None:
    together = apart = 0.0
    for line in CATEGORIES:
        train = read(rendered.train).filter(pl.col("Category") == line.category)
        gaps = (
            train.select(pl.col(a).is_null() for a in ATTRS[: len(line.attributes)]).to_numpy().astype(float)
        )
        rates, stated = gaps.mean(axis=0), np.array(list(line.missing.values())) / 100
        assert np.abs(rates - stated).max() < 0.25
        assert stated[rates.argmax()] > stated.max() - 0.15, "the least labelled attribute is the right one"
        together += gaps.sum(axis=1).var()
        apart += (rates * (1 - rates)).sum()  # the variance of the row sums, were cells missing independently
    assert together > 1.6 * apart


def test_sleeveless_agrees_in_both_sleeve_attributes() -> None:
    rng, seen = Random(0), 0
    for line in CATEGORIES[2:]:
        for _ in range(200):
            values = values_of(line, rng)
            bare = values["sleeve_length"] == "sleeveless"
            assert bare == (values["sleeve_styling"] == "sleeveless")
            seen += bare
    assert seen > 10


def drawn(category: str, seed: int, **changed: str) -> np.ndarray:
    line = next(line for line in CATEGORIES if line.category == category)
    values = {**values_of(line, Random(1)), "color": "red", **changed}
    picture = draw_product(category, values, Random(seed)).reduce(8)
    return np.asarray(picture, dtype=np.float64)


def red(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] > 90) & (picture[..., 1] < 70) & (picture[..., 2] < 85)


PLAIN = {
    "pattern": "solid",
    "print_or_pattern_type": "solid",
    "ornamentation": "default",
    "occasion": "daily",
}


@pytest.mark.parametrize("seed", range(4))
def test_sleeves_and_length_cover_more(seed: int) -> None:
    bare = {"sleeve_length": "sleeveless", "sleeve_styling": "sleeveless", "fit_shape": "straight"}
    arms = {**bare, "sleeve_length": "three-quarter sleeves", "sleeve_styling": "regular"}
    knee = red(drawn("Kurtis", seed, **PLAIN, **bare, length="knee length"))
    sleeved = red(drawn("Kurtis", seed, **PLAIN, **arms, length="knee length"))
    calf = red(drawn("Kurtis", seed, **PLAIN, **bare, length="calf length"))
    assert np.ptp(np.nonzero(sleeved)[1]) > np.ptp(np.nonzero(knee)[1]) + 4, "sleeves widen the silhouette"
    assert np.ptp(np.nonzero(calf)[0]) > np.ptp(np.nonzero(knee)[0]) + 5, "calf length reaches lower"


@pytest.mark.parametrize("line", CATEGORIES, ids=lambda line: line.category)
def test_every_value_can_be_drawn_and_shows(line: Line) -> None:
    """Each choice of each factor renders, and differs from the one before it in some pose."""
    for factor in line.factors:
        choices = [dict(zip(factor.names, values, strict=True)) for _, values in factor.choices]
        pictures = [[drawn(line.category, seed, **choice) for seed in (0, 1)] for choice in choices]
        for k in range(1, len(choices)):
            gap = max(np.abs(a - b).max() for a, b in zip(pictures[k], pictures[k - 1], strict=True))
            assert gap > 12, (choices[k - 1], choices[k])


def test_titles_do_not_spell_the_labels(rendered: RenderedCatalog) -> None:
    catalog = read(rendered.catalog)
    told = ("sleeve", "polo", "neck", "zari", "border", "printed", "crop", "a-line")
    assert not any(word in title.lower() for title in catalog["title"] for word in told)
    assert catalog["title"].n_unique() > 100
    prices = catalog.group_by("category").agg(pl.col("price").median()).sort("price")
    assert prices["category"][-1] == "Sarees"


def test_contact_sheet(rendered: RenderedCatalog, tmp_path: Path) -> None:
    contact_sheet(rendered, tmp_path / "sheet.png", columns=5, rows=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 5 * 150
        assert len(sheet.convert("RGB").getcolors(1 << 24) or []) > 1000
