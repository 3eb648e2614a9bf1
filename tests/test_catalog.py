"""Catalog: roles, labels, odd cells, pictures by column and by id, and other tables read the same way."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

from conftest import ROOT, Toy
from shelfwise.catalog import Catalog
from shelfwise.errors import CatalogError, TaxonomyError
from shelfwise.findings import Finding
from shelfwise.roles import Columns

MEESHO = ROOT.parent / "shared" / "reference" / "meesho-taxonomy.json"


def frame(n: int = 12, **columns: list[str | None]) -> pl.DataFrame:
    base: dict[str, list[str | None]] = {
        "id": [f"{k:03d}" for k in range(n)],
        "category": ["Tops"] * n,
        "colour": [("red", "blue")[k % 2] for k in range(n)],
    }
    return pl.DataFrame({**base, **columns}, schema_overrides=dict.fromkeys(columns, pl.String))


def read(table: pl.DataFrame, tmp_path: Path, **options: object) -> Catalog:
    return Catalog.read(table, images=tmp_path, **options)  # type: ignore[arg-type]


def kinds(catalog: Catalog, *kinds: str) -> list[Finding]:
    return [finding for finding in catalog.findings if finding.kind in kinds]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (200, 30, 30)).save(path)
    return path


def test_the_toy_table_is_read(toy: Toy):
    catalog, roles = toy.catalog, toy.catalog.schema.roles
    assert (roles.id, roles.category, roles.image) == ("id", "category", "image")
    assert roles.choices == ("colour", "size", "pattern")
    assert roles.numbers == ("price",)
    assert roles.texts == ("title",)
    assert catalog.ids[7] == "00007"
    assert not catalog.image_errors
    assert catalog.taxonomy.categories == ("Cups", "Plates", "Towels")
    assert catalog.taxonomy.choice("Cups", "colour").values == ("blue", "green", "red")
    assert [item.name for item in catalog.taxonomy.choices("Towels")] == ["colour", "pattern"]
    assert [item.name for item in catalog.taxonomy.numbers("Cups")] == ["price"]
    assert catalog.number("price").min() > 0
    assert catalog.texts("title")[0] == "Towel no. 0 by Toyware"


def test_labels_are_codes_and_missing_is_minus_one(tmp_path: Path):
    table = frame(6, colour=["red", None, "blue", "dummy_value", " NaN ", "default"])
    catalog = read(table, tmp_path, columns=Columns(choice=("colour",)))
    assert catalog.taxonomy.choice("Tops", "colour").values == ("blue", "default", "red")
    assert catalog.labels("Tops").ravel().tolist() == [2, -1, 0, -1, -1, 1]
    assert catalog.labels("Tops").dtype == np.int32
    with pytest.raises(TaxonomyError, match="Did you mean 'Tops'"):
        catalog.labels("Top")


@pytest.mark.parametrize("token", ["dummy", "dummy_value", "Dummy_Values", "NaN", "nan", "", "  "])
def test_missing_tokens(tmp_path: Path, token: str):
    catalog = read(frame(12, colour=["red", token, *["blue"] * 10]), tmp_path)
    assert catalog.taxonomy.choice("Tops", "colour").values == ("blue", "red")
    assert catalog.codes[1, 0] == -1


def test_missing_tokens_are_configurable(tmp_path: Path):
    table = frame(12, colour=["red", "n/a", "dummy", *["blue"] * 9])
    catalog = read(table, tmp_path, missing=("", "n/a"), columns=Columns(choice=("colour",)))
    assert catalog.taxonomy.choice("Tops", "colour").values == ("blue", "dummy", "red")


def test_a_missing_token_in_a_number_column_is_no_fault(tmp_path: Path):
    catalog = read(frame(4, price=["1,299.50", "dummy", None, "abc"]), tmp_path)
    assert catalog.number("price").tolist()[0] == 1299.5
    assert np.isnan(catalog.number("price")[1:]).all()
    assert [(f.row, f.field) for f in kinds(catalog, "not_a_number")] == [(4, "price")]
    catalog = read(frame(4, price=["0", "-3", "12,34,567", "1e3"]), tmp_path)
    assert catalog.number("price").tolist() == [0, -3, 1234567, 1000]
    assert [f.row for f in kinds(catalog, "not_positive")] == [1, 2]


def test_several_spellings_are_a_finding_with_an_alias(tmp_path: Path):
    table = frame(15, colour=["Black"] * 6 + ["black "] + ["white"] * 8)
    catalog = read(table, tmp_path)
    (finding,) = kinds(catalog, "spelling")
    assert finding.field == "colour"
    assert finding.evidence["alias"] == {"black ": "Black"}
    assert catalog.taxonomy.choice("Tops", "colour").values == ("Black", "black ", "white")
    again = read(table, tmp_path, aliases={"colour": finding.evidence["alias"]})
    assert again.taxonomy.choice("Tops", "colour").values == ("Black", "white")
    assert again.labels("Tops").ravel().tolist() == [0] * 7 + [1] * 8
    assert not kinds(again, "spelling"), "what is declared is not asked for again"
    later = Catalog.read(table, schema=again.schema, images=tmp_path)
    assert not kinds(later, "spelling")


def test_a_column_that_may_be_the_category_is_named_and_not_taken(tmp_path: Path):
    table = frame(12, one=["x"] * 12).rename({"category": "Product Type"})
    notes = [finding.message for finding in kinds(read(table, tmp_path), "reading")]
    assert (
        "no category column: all products are of one category; name one with --category, such as 'Product Type'"
        in notes
    )
    assert "one: attribute with 1 value" in notes


def test_cells_with_several_values_are_reported_by_row(tmp_path: Path):
    values = ["Girls", "Women", "Girls, Women", "Men", "men and women", "Black-and-white"] + ["Girls"] * 24
    catalog = read(frame(30, wearer=values), tmp_path)
    assert [(f.row, f.id, f.field) for f in kinds(catalog, "several_values")] == [
        (3, "002", "wearer"),
        (5, "004", "wearer"),
    ]


def test_unknown_categories_and_values_have_row_id_and_suggestion(tmp_path: Path):
    schema = read(frame(), tmp_path).schema
    table = frame(4, category=["Tops", "Top", None, "Tops"], colour=["Red", "red", "red", "bleu"])
    catalog = Catalog.read(table, schema=schema, images=tmp_path)
    assert catalog.category.tolist() == [0, -2, -1, 0]
    assert catalog.labels("Tops").ravel().tolist() == [-1, -1]
    (unknown,) = kinds(catalog, "unknown_category")
    assert (unknown.row, unknown.id, unknown.severity) == (2, "001", "error")
    assert "Did you mean 'Tops'?" in unknown.message
    assert [f.row for f in kinds(catalog, "empty_category")] == [3]
    assert [(f.row, f.id) for f in kinds(catalog, "unknown_value")] == [(1, "000"), (4, "003")]
    assert (
        "'Tops/colour' has no value 'Red'. Did you mean 'red'?" in kinds(catalog, "unknown_value")[0].message
    )


def test_duplicate_and_empty_ids(tmp_path: Path):
    catalog = read(frame(4, id=["7", "07", "7", None]), tmp_path)
    assert catalog.ids == ("7", "07", "7", "")
    (twice,) = kinds(catalog, "duplicate_id")
    assert (twice.row, twice.id, twice.evidence) == (3, "7", {"first_row": 1})
    assert [f.row for f in kinds(catalog, "empty_id")] == [4]


def test_findings_are_written_with_rows(tmp_path: Path):
    catalog = read(frame(4, id=["7", "8", "7", "9"]), tmp_path)
    for name in ("f.csv", "f.json", "f.parquet"):
        catalog.findings.write(tmp_path / name)
    written = pl.read_csv(tmp_path / "f.csv", infer_schema=False)
    assert ("3", "7", "duplicate_id") in written.select("row", "id", "kind").rows()
    assert len(json.loads((tmp_path / "f.json").read_text())) == len(catalog.findings)


# Challenge layout

LIST = {"Sarees": ("border", "ocassion"), "Tops": ("colour",)}
CHALLENGE = pl.DataFrame(
    {
        "id": ["00", "01", "02", "03"],
        "Category": ["Sarees", "Sarees", "Tops", "Tops"],
        "len": ["2", "2", "1", "1"],
        "attr_1": ["big", "dummy_value", "red", "default"],
        "attr_2": ["party", "wedding", "stray", None],
        "attr_10": [None] * 4,
    },
    schema_overrides={"attr_10": pl.String},
)


@pytest.mark.parametrize("form", ["mapping", "json", "parquet"])
def test_challenge_layout(tmp_path: Path, form: str):
    given: object = LIST
    if form == "json":
        given = tmp_path / "list.json"
        given.write_text(json.dumps(LIST))
    if form == "parquet":
        given = tmp_path / "list.parquet"
        pl.DataFrame(
            {"Category": list(LIST), "Attribute_list": [list(v) for v in LIST.values()]}
        ).write_parquet(given)
    catalog = read(CHALLENGE, tmp_path, attributes=given, attribute_aliases={"occasion": "ocassion"})
    assert catalog.layout.kind == "challenge"
    assert catalog.layout.columns == ("attr_1", "attr_2", "attr_10")
    assert catalog.layout.filler == "dummy_value"
    assert catalog.schema.roles.ignored == ("len",)
    assert [a.name for a in catalog.taxonomy.choices("Sarees")] == ["border", "ocassion"]
    assert catalog.taxonomy.code("Sarees", "occasion", "wedding") == 1
    assert catalog.taxonomy.choice("Tops", "colour").values == ("default", "red")
    assert catalog.labels("Sarees").tolist() == [[0, 0], [-1, 1]]
    assert catalog.labels("Tops").tolist() == [[1], [0]]
    assert [(f.row, f.field) for f in kinds(catalog, "unexpected_value")] == [(3, "attr_2")]


def test_challenge_layout_without_a_list_names_attributes_by_position(tmp_path: Path):
    catalog = read(CHALLENGE, tmp_path)
    assert [a.name for a in catalog.taxonomy.choices("Tops")] == ["attr_1", "attr_2"]
    assert "no attribute list" in catalog.describe_roles() + " ".join(map(str, catalog.findings))


def test_challenge_list_faults(tmp_path: Path):
    with pytest.raises(CatalogError, match="no category 'Tops'"):
        read(CHALLENGE, tmp_path, attributes={"Sarees": ("a", "b"), "Top": ("c",)})
    with pytest.raises(CatalogError, match=r"'Sarees' has 4 attributes, .* only 3 columns"):
        read(CHALLENGE, tmp_path, attributes={**LIST, "Sarees": tuple("abcd")})


@pytest.mark.data
@pytest.mark.skipif(not MEESHO.is_file(), reason="the reference taxonomy is not there")
def test_the_meesho_form_of_the_list(tmp_path: Path):
    told = json.loads(MEESHO.read_text())
    rows = [
        {"id": f"{k:06d}", "Category": category, "len": str(len(inner))}
        | {f"attr_{n}": None for n in range(1, 11)}
        | {key: next(iter(entry["classes"])) for key, entry in inner.items()}
        for k, (category, inner) in enumerate(told.items())
    ]
    catalog = read(pl.DataFrame(rows), tmp_path, attributes=MEESHO)
    for category, inner in told.items():
        assert [a.name for a in catalog.taxonomy.choices(category)] == [e["name"] for e in inner.values()]
    assert not kinds(catalog, "unknown_value", "unexpected_value")


# Roles


def test_roles_are_inferred(tmp_path: Path):
    n = 60
    table = frame(
        n,
        description=[("a", "b")[k % 2] for k in range(n)],
        bullet_1=["same"] * n,
        brand=["x"] * n,
        note=[f"text {k // 4}" for k in range(n)],
        fit=[f"fit {k // 5}" for k in range(n)],
        mrp=["5"] * n,
        weight=[str(k) for k in range(n)],
        blank=[None] * n,
    )
    roles = read(table, tmp_path).schema.roles
    assert roles.texts == ("description", "bullet_1", "brand", "note", "weight")
    assert roles.choices == ("colour", "fit")
    assert roles.numbers == ("mrp",)
    assert roles.ignored == ("blank",)


def test_overrides_change_that_column_only(tmp_path: Path):
    n = 20
    table = frame(n, size=["1", "2"] * 10, brand=["x", "y"] * 10)
    plain = read(table, tmp_path).schema.roles
    roles = read(table, tmp_path, columns=Columns(number=("size",), choice=("brand",))).schema.roles
    assert plain.choices == ("colour", "size")
    assert roles.numbers == ("size",)
    assert roles.choices == ("colour", "brand")
    with pytest.raises(CatalogError, match=r"no column 'colr'\. Did you mean 'colour'\?"):
        read(table, tmp_path, columns=Columns(ignore=("colr",)))
    with pytest.raises(CatalogError, match="'size' is declared both"):
        read(table, tmp_path, columns=Columns(ignore=("size",), text=("size",)))


def test_without_category_and_id(tmp_path: Path):
    table = pl.DataFrame({"colour": ["red", "blue"] * 5})
    catalog = read(table, tmp_path)
    assert catalog.taxonomy.categories == ("all",)
    assert catalog.ids == tuple(str(k) for k in range(1, 11))
    assert catalog.layout.category == ""


def test_frames_of_pandas_and_polars_are_alike(toy: Toy):
    table = toy.catalog.frame
    first = Catalog.read(table, images=toy.directory)
    second = Catalog.read(pd.DataFrame(table.to_dict()), images=toy.directory)
    parquet = toy.directory / "copy.parquet"
    table.write_parquet(parquet)
    third = Catalog.read(parquet)
    for other in (second, third):
        assert other.ids == first.ids
        assert other.taxonomy == first.taxonomy == toy.catalog.taxonomy
        assert np.array_equal(other.codes, first.codes)
        assert other.images == first.images


def test_escaped_text_is_read_as_it_was(tmp_path: Path):
    catalog = read(frame(3, title=["'=1+1", "'quoted'", None]), tmp_path)
    assert catalog.texts("title") == ["=1+1", "'quoted'", None]
    with pytest.raises(CatalogError, match="no column 'name'"):
        catalog.texts("name")
    with pytest.raises(CatalogError, match="not a number column"):
        catalog.number("title")


# Pictures


def test_pictures_by_column(tmp_path: Path):
    root = tmp_path / "photos"
    inside = picture(root / "a" / "one.jpg")
    flat = picture(root / "two.jpg")
    cells = ["a/one.jpg", "elsewhere/two.jpg", str(inside), "a\\one.jpg", "gone.jpg", None]
    catalog = Catalog.read(frame(6, image=cells), images=root)
    assert catalog.images == (inside, flat, inside, inside, None, None)
    assert {row: error.kind for row, error in catalog.image_errors.items()} == {4: "missing", 5: "missing"}
    assert [(f.row, f.field) for f in kinds(catalog, "image_missing")] == [(5, "image"), (6, "image")]


def test_nothing_outside_the_folder_is_named(tmp_path: Path):
    root = tmp_path / "photos"
    picture(root / "in.jpg")
    secret = picture(tmp_path / "secret.jpg")
    (root / "link.jpg").symlink_to(secret)
    (root / "folder").symlink_to(tmp_path)
    (root / "back.jpg").symlink_to(root / "in.jpg")
    cells = [
        "../secret.jpg",
        str(secret),
        "link.jpg",
        "folder/secret.jpg",
        "x/../../secret.jpg",
        "back.jpg",
        "a\0b",
    ]
    catalog = Catalog.read(frame(7, image=cells), images=root)
    assert catalog.images == (None, None, None, None, None, root / "in.jpg", None)
    assert {row: e.kind for row, e in catalog.image_errors.items()} == dict.fromkeys(range(5), "outside") | {
        6: "missing"
    }
    by_id = Catalog.read(frame(2, id=["link", "in"]), images=root)
    assert by_id.images == (None, root / "in.jpg")
    assert by_id.image_errors[0].kind == "outside"


def test_pictures_by_id_with_and_without_zeros(tmp_path: Path):
    root = tmp_path / "photos"
    for name in ("000007.jpg", "8.png", "0x1.webp", "10.jpg", "010.jpg", "sku-1.JPG", "notes.txt"):
        picture(root / name.replace("txt", "png")).rename(root / name)
    ids: list[str | None] = ["7", "00008", "0x1", "10", "0010", "sku-1", "notes", "9"]
    catalog = Catalog.read(frame(8, id=ids), images=root)
    names = [path.name if path else None for path in catalog.images]
    assert names == ["000007.jpg", "8.png", "0x1.webp", "10.jpg", None, "sku-1.JPG", None, None]
    assert "different zero-padding" in str(catalog.image_errors[4])


def test_without_a_folder_pictures_lie_beside_the_table(toy: Toy, tmp_path: Path):
    assert toy.catalog.images[0] == (toy.directory / "images" / "00000.png").resolve()
    with pytest.raises(CatalogError, match="is not there"):
        Catalog.read(toy.table, images=tmp_path / "none")
    with pytest.raises(CatalogError, match="is not a folder"):
        Catalog.read(toy.table, images=toy.table)
    table = tmp_path / "t.csv"
    frame().write_csv(table)
    assert "name the folder" in str(kinds(Catalog.read(table), "no_images")[0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs audit hooks in a process of its own")
def test_no_file_outside_is_opened(tmp_path: Path):
    """The whole path from reading to facts, under an audit hook that sees every open."""
    root = tmp_path / "photos"
    picture(root / "in.jpg")
    secret = picture(tmp_path / "secret" / "secret.jpg")
    (root / "link.jpg").symlink_to(secret)
    frame(4, image=["../secret/secret.jpg", str(secret), "link.jpg", "in.jpg"]).write_csv(root / "t.csv")
    import subprocess
    import sys

    program = f"""
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from shelfwise.catalog import Catalog
from shelfwise.data.clean import clean
catalog = Catalog.read({str(root / "t.csv")!r})
clean(catalog, cache=Path({str(tmp_path / "cache")!r}), jobs=1)
assert any("in.jpg" in name for name in opened), opened
print([name for name in opened if "secret.jpg" in name])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Other tables under a schema, and parts


def test_under_a_schema_codes_are_those_of_training(toy: Toy):
    rows = np.flatnonzero(toy.catalog.category == 1)[:20]
    alone = Catalog.read(toy.catalog.frame[rows.tolist()].drop("title", "size"), images=toy.directory)
    assert alone.taxonomy != toy.catalog.taxonomy
    under = alone.under(toy.catalog.schema)
    assert under.taxonomy == toy.catalog.taxonomy
    assert under.category.tolist() == [1] * 20
    expected = toy.catalog.select(rows).labels("Plates")
    expected[:, 1] = -1
    assert under.labels("Plates").tolist() == expected.tolist()
    assert under.images == alone.images
    assert toy.catalog.under(toy.catalog.schema) is toy.catalog


def test_a_column_that_training_did_not_have_is_noted_and_ignored(toy: Toy):
    table = toy.catalog.frame.with_columns(pl.lit("x").alias("novel"))
    catalog = Catalog.read(table, images=toy.directory, schema=toy.catalog.schema)
    assert "novel" in catalog.schema.roles.ignored
    assert any("novel" in str(finding) for finding in catalog.findings)
    assert np.array_equal(catalog.codes, toy.catalog.codes)


def test_select_keeps_rows_whole(toy: Toy):
    where = [5, 3, 100]
    part = toy.catalog.select(where)
    assert part.ids == ("00005", "00003", "00100")
    assert part.images == tuple(toy.catalog.images[k] for k in where)
    assert np.array_equal(part.codes, toy.catalog.codes[where])
    assert part.frame["id"].to_list() == list(part.ids)
    assert part.taxonomy is toy.catalog.taxonomy
    empty = toy.catalog.select([])
    assert len(empty) == 0
    assert empty.labels("Cups").shape == (0, 2)
    assert empty.present == ()


def test_select_takes_the_errors_along(tmp_path: Path):
    picture(tmp_path / "in.jpg")
    catalog = read(frame(3, image=["in.jpg", "gone.jpg", "../x.jpg"]), tmp_path)
    part = catalog.select([2, 0])
    assert {row: error.kind for row, error in part.image_errors.items()} == {0: "outside"}


def test_an_empty_table_is_an_error_when_there_is_nothing_to_learn(tmp_path: Path):
    with pytest.raises(CatalogError, match="nothing to learn"):
        read(frame(0, id=[], category=[], colour=[]), tmp_path)
    schema = read(frame(), tmp_path).schema
    assert len(Catalog.read(frame(0, id=[], category=[], colour=[]), schema=schema, images=tmp_path)) == 0


@pytest.mark.data
def test_roles_of_the_fashion_catalogue(shared_data: Path):
    catalog = Catalog.read(shared_data / "fashion" / "catalog.csv")
    roles = catalog.schema.roles
    assert (roles.id, roles.category, roles.image) == ("id", "category", "image")
    assert {"title", "description"} <= set(roles.texts)
    assert not {"title", "description"} & set(roles.choices)
    assert {"product_type", "department", "colour", "neck"} <= set(roles.choices)
    assert roles.numbers == ("price",)
    assert not catalog.image_errors
    challenge = Catalog.read(
        shared_data / "fashion" / "train.csv",
        images=shared_data / "fashion" / "train_images",
        attributes=shared_data / "fashion" / "category_attributes.parquet",
    )
    assert not challenge.image_errors
    assert challenge.layout.columns == tuple(f"attr_{k}" for k in range(1, 11))
    row = challenge.frame.row(1, named=True)
    names = [choice.name for choice in challenge.taxonomy.choices(row["Category"])]
    assert len(names) == int(row["len"])


@pytest.mark.data
def test_roles_of_the_myntra_catalogue(shared_data: Path):
    roles = Catalog.read(shared_data / "myntra" / "catalog.csv").schema.roles
    assert roles.texts == ("title",)
    assert roles.choices == ("article_type", "gender", "colour", "season", "usage")
