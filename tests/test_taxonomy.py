"""Taxonomy: codes, packed slices, near misses, saving, and challenge-style attribute lists."""

import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shelfwise.errors import TaxonomyError
from shelfwise.taxonomy import Choice, Number, Taxonomy, read_attribute_list

SAREES = Taxonomy(
    {
        "Kurtis": (
            Choice("color", ("black", "default", "tea")),
            Choice("length", ("calf", "knee")),
            Number("price"),
        ),
        "Sarees": (
            Choice("border", ("big", "small")),
            Number("price", "INR"),
            Choice("color", ("red", "tea", "white"), {"Tea ": "tea"}),
        ),
        "Socks": (Number("price"),),
    },
    {"colour": "color"},
)


def test_codes_are_positions_in_the_saved_list():
    assert SAREES.code("Kurtis", "color", "default") == 1
    assert SAREES.code("Sarees", "color", "white") == 2
    assert SAREES.code("Sarees", "color", "Tea ") == 1
    assert SAREES.code("Sarees", "colour", "red") == 0


def test_slices_pack_choices_only():
    assert SAREES.slices("Kurtis") == (slice(0, 3), slice(3, 5))
    assert SAREES.slices("Sarees") == (slice(0, 2), slice(2, 5))
    assert [SAREES.width(name) for name in SAREES.categories] == [5, 5, 0]
    assert SAREES.slices("Socks") == ()
    assert [n.unit for n in SAREES.numbers("Sarees")] == ["INR"]
    assert [(c, a.name) for c, a in SAREES.pairs()] == [
        ("Kurtis", "color"),
        ("Kurtis", "length"),
        ("Sarees", "border"),
        ("Sarees", "color"),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("Saree", "color", "red"), r"no category 'Saree'\. Did you mean 'Sarees'\?"),
        (("Sarees", "colr", "red"), r"no attribute 'colr' with values\. Did you mean 'color'\?"),
        (("Sarees", "color", "Teal"), r"'Sarees/color' has no value 'Teal'\. Did you mean 'tea'\?"),
        (("Sarees", "color", "TEA"), r"Did you mean 'tea'\?"),
        (("Sarees", "color", "zzzz"), r"It has: 'red', 'tea', 'white'"),
        (("Sarees", "price", "9"), r"no attribute 'price' with values"),
    ],
)
def test_near_misses_are_named(asked: tuple[str, str, str], message: str):
    with pytest.raises(TaxonomyError, match=message):
        SAREES.code(*asked)


def test_faulty_taxonomies_are_refused():
    with pytest.raises(TaxonomyError, match="at least one category"):
        Taxonomy({})
    with pytest.raises(TaxonomyError, match="an attribute twice: 'a'"):
        Taxonomy({"k": (Choice("a", ("x",)), Number("a"))})
    with pytest.raises(TaxonomyError, match="a value twice"):
        Choice("a", ("x", "y", "x"))
    with pytest.raises(TaxonomyError, match="alias 'X' stands for 'z'"):
        Choice("a", ("x",), {"X": "z"})


def test_saved_and_loaded_with_its_hash(tmp_path: Path):
    path = tmp_path / "taxonomy.json"
    SAREES.save(path)
    loaded = Taxonomy.load(path)
    assert loaded == SAREES
    assert loaded.table() == SAREES.table()
    assert loaded.choice("Sarees", "colour").aliases == {"Tea ": "tea"}
    table = json.loads(path.read_text())
    table["categories"][1]["attributes"][0]["values"].reverse()
    path.write_text(json.dumps(table))
    with pytest.raises(TaxonomyError, match="does not match its sha256"):
        Taxonomy.load(path)
    del table["sha256"]
    path.write_text(json.dumps(table))
    assert Taxonomy.load(path) != SAREES


def test_a_taxonomy_of_another_version_is_not_called_edited(tmp_path: Path):
    """Fields that this version adds or drops change the hash of a file that nobody touched."""
    path = tmp_path / "taxonomy.json"
    table: dict[str, Any] = {"format": 1, "categories": [{"name": "Cups", "attributes": []}], "aliases": {}}
    table["categories"][0]["attributes"] = [{"kind": "number", "name": "price", "unit": ""}]
    canonical = json.dumps(table, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    table["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(table))
    with pytest.raises(TaxonomyError, match=r"written by another version of shelfwise.*again"):
        Taxonomy.load(path)
    table["categories"][0]["name"] = "Mugs"
    path.write_text(json.dumps(table))
    with pytest.raises(TaxonomyError, match="does not match its sha256"):
        Taxonomy.load(path)


@pytest.mark.parametrize(
    "text", ["", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "categories": [{}]}']
)
def test_a_file_that_is_no_taxonomy_is_a_taxonomy_error(tmp_path: Path, text: str):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(TaxonomyError, match=r"t\.json"):
        Taxonomy.load(tmp_path / "t.json")
    with pytest.raises(TaxonomyError, match=r"cannot read the taxonomy .*none\.json: there is no such file"):
        Taxonomy.load(tmp_path / "none.json")
    (tmp_path / "t.csv").write_text("\ufeffid,colour\n1,red\n")
    with pytest.raises(
        TaxonomyError, match=r"t\.csv: a taxonomy is JSON, such as the taxonomy\.json of a bundle"
    ):
        Taxonomy.load(tmp_path / "t.csv")
    with pytest.raises(TaxonomyError, match="Is a directory"):
        Taxonomy.load(tmp_path)


words = st.text(min_size=1, max_size=8)
choices = st.builds(lambda n, v: Choice(n, tuple(v)), words, st.lists(words, max_size=5, unique=True))
attributes = st.lists(choices | st.builds(Number, words), max_size=4, unique_by=lambda item: item.name)


@given(st.dictionaries(words, attributes.map(tuple), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_taxonomy_survives_json(entries: dict[str, tuple[Choice | Number, ...]]):
    taxonomy = Taxonomy(entries)
    again = Taxonomy.from_table(json.loads(json.dumps(taxonomy.table())))
    assert again == taxonomy
    assert again.categories == taxonomy.categories
    for category, choice in taxonomy.pairs():
        assert [taxonomy.code(category, choice.name, value) for value in choice.values] == list(
            range(len(choice.values))
        )
    for category in taxonomy.categories:
        assert sum(part.stop - part.start for part in taxonomy.slices(category)) == taxonomy.width(category)


def test_the_hash_tells_order_apart():
    assert Taxonomy({"k": (Choice("a", ("x", "y")),)}) != Taxonomy({"k": (Choice("a", ("y", "x")),)})
    assert len({SAREES, Taxonomy(SAREES.entries, SAREES.aliases)}) == 1


RECORDS = [
    {"Category": "Sarees", "No_of_attribute": 2, "Attribute_list": ["border", "color"]},
    {"Category": "Kurtis", "No_of_attribute": 1, "Attribute_list": ["color"]},
]
LISTED = {"Sarees": ("border", "color"), "Kurtis": ("color",)}


def test_attribute_list_from_parquet_and_json(tmp_path: Path):
    pl.DataFrame(RECORDS).write_parquet(tmp_path / "list.parquet")
    assert read_attribute_list(tmp_path / "list.parquet") == LISTED
    path = tmp_path / "list.json"
    for content in (RECORDS, {key: list(names) for key, names in LISTED.items()}):
        path.write_text(json.dumps(content))
        assert read_attribute_list(path) == LISTED


def test_attribute_list_with_statistics_goes_by_the_numbers(tmp_path: Path):
    path = tmp_path / "list.json"
    inner = {f"attr_{k}": {"name": f"name {k}", "nan": 3, "classes": {"default": 2}} for k in (10, 2, 1, 3)}
    path.write_text(json.dumps({"Sarees": inner}))
    assert read_attribute_list(path) == {"Sarees": ("name 1", "name 2", "name 3", "name 10")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"Category": "Sarees"}], "row 1: needs 'Category' and 'Attribute_list'"),
        (
            [RECORDS[0], {**RECORDS[1], "No_of_attribute": 3}],
            "row 2: 'Kurtis' states 3 attributes and lists 1",
        ),
        ([RECORDS[0], RECORDS[0]], "row 2: 'Sarees' is listed twice"),
        ([], "lists no category"),
    ],
)
def test_a_faulty_attribute_list_says_where(tmp_path: Path, content: object, message: str):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    with pytest.raises(TaxonomyError, match=message):
        read_attribute_list(path)


def test_an_unreadable_attribute_list(tmp_path: Path):
    (tmp_path / "list.parquet").write_text("not parquet")
    for name in ("list.parquet", "none.parquet", "none.json"):
        with pytest.raises(TaxonomyError, match="cannot read the attribute list"):
            read_attribute_list(tmp_path / name)
