from pathlib import Path

import polars as pl
import pytest
from PIL import Image, ImageFilter

import hostile
from shelfwise.catalog import Catalog
from shelfwise.data.clean import clean
from shelfwise.roles import Columns
from test_facts import photo
from test_group import products


def test_duplicates_and_conflicts_name_both_sides(tmp_path: Path) -> None:
    found = clean(products(tmp_path / "images"), cache=tmp_path / "cache")
    (same,) = found.of(kind="duplicate_image")
    assert (same.row, same.id, same.evidence["of"], same.evidence["of_row"]) == (2, "p1", "p0", 1)
    (near,) = found.of(kind="near_duplicate")
    assert (near.row, near.id, near.evidence["of"]) == (3, "p2", "p0")
    assert near.evidence["group"] == ["p0", "p1"]
    conflicts = found.of(kind="conflicting_labels")
    assert [(c.severity, c.field, c.row) for c in conflicts] == [
        ("warning", "colour", 2),
        ("note", "colour", 2),
    ]
    assert conflicts[0].evidence["values"] == {"Red": ["p0"], "Blue": ["p1"]}
    assert conflicts[1].evidence["values"] == {"Red": ["p0", "p2"], "Blue": ["p1"]}
    (html,) = found.of(kind="image_not_an_image")
    assert (html.row, html.id, html.severity) == (5, "p4", "error")
    assert not found.of(kind="image_missing"), "that is the catalogue's finding"
    found.write(tmp_path / "found.csv")
    assert pl.read_csv(tmp_path / "found.csv").height == len(found)


def test_products_that_agree_are_no_conflict(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        hostile.picture(200, 150).save(tmp_path / name)
    frame = pl.DataFrame(
        {
            "id": ["a", "b", "c"],
            "category": ["Tops", "Tops", "Bags"],
            "colour": ["Red", None, "Blue"],
            "image": ["a.png", "b.png", "c.png"],
        }
    )
    found = clean(Catalog.read(frame, images=tmp_path, columns=Columns(choice=("colour",))))
    assert found.counts() == {"duplicate_image": 2, "conflicting_category": 1}
    (conflict,) = found.of(kind="conflicting_category")
    assert conflict.field == "category"
    assert conflict.evidence["values"] == {"Bags": ["c"], "Tops": ["a", "b"]}


BAD = {
    "tiny_image": photo(1, 40, 30),
    "blurred_image": photo(1).filter(ImageFilter.GaussianBlur(25)),
    "dark_image": photo(1).point(lambda value: value // 20),
    "overexposed_image": Image.new("RGB", (100, 100), (255, 255, 255)),
    "low_contrast_image": photo(1).point(lambda value: 120 + value // 64),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_pictures_are_warnings_with_their_measures(tmp_path: Path, kind: str) -> None:
    BAD[kind].save(tmp_path / "1.png")
    hostile.picture(300, 300).save(tmp_path / "2.png")
    frame = pl.DataFrame({"id": ["1", "2"], "colour": ["Red", "Red"], "image": ["1.png", "2.png"]})
    found = clean(Catalog.read(frame, images=tmp_path))
    (bad,) = found.of(kind=kind)
    assert (bad.row, bad.severity) == (1, "warning")
    assert bad.evidence["width"] == BAD[kind].width
    assert {"blur", "brightness", "contrast", "dark_share", "bright_share"} < set(bad.evidence)
    assert not [finding for finding in found if finding.row == 2], "a good picture has no finding"


def test_hostile_pictures_are_all_reported(tmp_path: Path) -> None:
    expected = hostile.write_hostile(tmp_path / "images")
    names = list(expected)
    frame = pl.DataFrame(
        {"id": [str(i) for i in range(len(names))], "colour": ["Red"] * len(names), "image": names}
    )
    catalog = Catalog.read(frame, images=tmp_path / "images")
    found = clean(catalog)
    kinds = {names[f.row - 1]: f.kind for f in catalog.findings + found if f.severity == "error" and f.row}
    wrong = {
        n: (k, kinds.get(n)) for n, k in expected.items() if (f"image_{k}" if k else None) != kinds.get(n)
    }
    assert not wrong
    notes = {(names[f.row - 1], f.kind) for f in found.of(severity="note") if f.row}
    assert {
        ("animated.gif", "animated"),
        ("broken_profile.jpg", "broken_profile"),
        ("cmyk.jpg", "cmyk"),
    } <= notes
