"""Changes of a taxonomy: what is taken for the same thing, what is only proposed, and which cells it concerns."""

import json
from pathlib import Path

import polars as pl
import pytest

from conftest import Shell, Toy
from shelfwise.catalog import Catalog
from shelfwise.changes.affected import ANSWER, LOOK, REMOVED, REWRITTEN, Recoded
from shelfwise.changes.change import Changes
from shelfwise.changes.diff import diff
from shelfwise.changes.recode import recode
from shelfwise.changes.relayout import new_columns, schema_of
from shelfwise.changes.renames import Renames
from shelfwise.errors import CatalogError, TaxonomyError, UsageError
from shelfwise.tables import Table
from shelfwise.taxonomy import Attribute, Choice, Number, Taxonomy


def one(*values: str, aliases: dict[str, str] | None = None) -> Taxonomy:
    return Taxonomy({"Cups": (Choice("colour", values, aliases or {}),)})


def kinds(changes: Changes) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    return [(c.kind, c.level, c.old, c.new) for c in changes.items]


def declared(**table: object) -> Renames:
    return Renames.from_table(table)


OLD = Taxonomy(
    {
        "Cups": (Choice("colour", ("blue", "green", "red")), Choice("pattern", ("plain", "striped"))),
        "Plates": (Choice("colour", ("blue", "red")), Choice("size", ("large", "small")), Number("price")),
    }
)


def test_the_same_taxonomy_has_no_changes():
    changes = diff(OLD, Taxonomy(dict(OLD.entries)))
    assert len(changes) == 0
    assert str(changes).endswith("the same\n")
    assert [(m.old, m.new) for m in changes.maps] == [("Cups", "Cups"), ("Plates", "Plates")]
    assert "order" in str(diff(one("a", "b"), one("b", "a")))


def test_a_near_spelling_is_proposed_and_never_assumed():
    changes = diff(one("crimson", "blue"), one("Crimsn", "blue", "tea", "sea"))
    assert kinds(changes) == [
        ("added", "value", (), ("Crimsn", "tea", "sea")),
        ("retired", "value", ("crimson",), ()),
    ]
    assert changes.items[1].suggestion.endswith("--rename Cups/colour/crimson=Crimsn")
    assert "--rename Cups/colour/crimson=Crimsn" in str(changes)
    assert changes.maps[0].attributes[0].targets == {"crimson": (), "blue": ("blue",)}


def test_one_gone_and_one_new_is_proposed_two_of_each_are_not():
    assert "Cups/colour/red=crimson" in str(diff(one("red", "blue"), one("crimson", "blue")))
    assert "--rename" not in str(diff(one("red", "x", "blue"), one("crimson", "y9", "blue")))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (one("red", "blue"), one("crimson", "blue", aliases={"red": "crimson"})),
        (one("red", "blue", aliases={"crimson": "red"}), one("crimson", "blue")),
    ],
)
def test_an_alias_that_either_taxonomy_states_is_a_rename(old: Taxonomy, new: Taxonomy):
    changes = diff(old, new)
    assert kinds(changes) == [("renamed", "value", ("red",), ("crimson",))]
    assert changes.items[0].why == "alias"


def test_a_name_that_stays_is_not_taken_away_by_an_alias():
    assert len(diff(one("red", "crimson"), one("red", "crimson", aliases={"rot": "red"}))) == 0


def test_two_aliases_of_one_value_are_a_merge_with_it():
    changes = diff(one("navy", "sky", "blue"), one("blue", aliases={"navy": "blue", "sky": "blue"}))
    assert kinds(changes) == [("merged", "value", ("navy", "sky", "blue"), ("blue",))]


def test_splits_and_retirements_are_declared():
    old, new = one("blue", "odd", "red"), one("blue", "navy", "red", "new")
    renames = declared(values={"colour": {"blue": ["blue", "navy"], "odd": []}})
    changes = diff(old, new, renames)
    assert kinds(changes) == [
        ("split", "value", ("blue",), ("blue", "navy")),
        ("added", "value", (), ("new",)),
        ("retired", "value", ("odd",), ()),
    ]
    retired = changes.of("retired")[0]
    assert (retired.why, retired.suggestion) == ("declared", "")


def test_categories_and_attributes_follow_declarations_and_aliases():
    new = Taxonomy(
        {
            "Mugs": (Choice("color", ("blue", "green", "red")), Choice("material", ("clay",))),
            "Plates": (Choice("color", ("blue", "red")), Choice("size", ("large", "small")), Number("cost")),
        },
        {"colour": "color"},
    )
    changes = diff(OLD, new, declared(categories={"Cups": "Mugs"}, attributes={"Plates": {"price": "cost"}}))
    assert [(c.kind, c.category, c.old, c.new) for c in changes.items] == [
        ("renamed", "Mugs", ("Cups",), ("Mugs",)),
        ("renamed", "Mugs", ("colour",), ("color",)),
        ("added", "Mugs", (), ("material",)),
        ("retired", "Cups", ("pattern",), ()),
        ("renamed", "Plates", ("colour",), ("color",)),
        ("renamed", "Plates", ("price",), ("cost",)),
    ]
    assert changes.maps[1].numbers == {"price": "cost"}


def test_an_attribute_that_turns_from_values_into_a_number_is_another_one():
    new = Taxonomy({"Cups": (Number("colour"),)})
    changes = diff(one("red"), new)
    assert kinds(changes) == [
        ("added", "attribute", (), ("colour",)),
        ("retired", "attribute", ("colour",), ()),
    ]
    assert changes.maps[0].attributes == ()


def test_a_scoped_declaration_counts_more_than_a_general_one():
    new = Taxonomy(
        {
            "Cups": (Choice("colour", ("blue", "green", "rouge")), Choice("pattern", ("plain", "striped"))),
            "Plates": (
                Choice("colour", ("blue", "crimson")),
                Choice("size", ("large", "small")),
                Number("price"),
            ),
        }
    )
    values = {"colour": {"red": "crimson"}, "Cups": {"colour": {"red": "rouge"}}}
    changes = diff(OLD, new, declared(values=values))
    assert [(c.category, c.new) for c in changes.of("renamed")] == [
        ("Cups", ("rouge",)),
        ("Plates", ("crimson",)),
    ]


def test_every_wrong_declaration_is_named_in_one_message():
    renames = declared(
        categories={"Cupz": "Mugs"},
        attributes={"Cups": {"colr": "color"}},
        values={"colour": {"red": "crimsn", "rad": "red"}},
    )
    with pytest.raises(TaxonomyError) as error:
        diff(OLD, OLD, renames)
    for part in (
        "'Cupz'. Did you mean 'Cups'?",
        "'colr'. Did you mean 'colour'?",
        "no value 'rad'",
        "'crimsn'",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[colours]\na = 'b'", "unknown table 'colours'"),
        ("[values]\nred = 'blue'", "per attribute"),
        ("[categories.Cups]\nx = 'y'", r"categories\.Cups\.x: here stands old = new"),
        ("[values.colour]\nred = ['a', 'a']", "lists a name twice"),
        ("[values.colour]\nred = 3", "not a name or a list of names"),
        ("not toml", "cannot read the mapping"),
    ],
)
def test_a_mapping_file_that_is_wrong_says_where(tmp_path: Path, text: str, message: str):
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        Renames.read(tmp_path / "map.toml")


def test_a_mapping_file_is_toml_or_json(tmp_path: Path):
    (tmp_path / "map.toml").write_text('[values.Cups.colour]\nred = "crimson"\n[attributes]\nsize = []\n')
    table = {"values": {"Cups": {"colour": {"red": "crimson"}}}, "attributes": {"size": []}}
    (tmp_path / "map.json").write_text(json.dumps(table))
    read = Renames.read(tmp_path / "map.toml")
    assert read.entries == Renames.read(tmp_path / "map.json").entries
    assert read.entries == {("Cups", "colour", "red"): ("crimson",), (None, "size"): ()}


def test_rename_options_find_what_they_mean():
    options = ["red=crimson", "Cups=Mugs", "Plates/size/large=big", "colour=color"]
    assert Renames.of_options(options, OLD, OLD).entries == {
        (None, "colour", "red"): ("crimson",),
        ("Cups",): ("Mugs",),
        ("Plates", "size", "large"): ("big",),
        (None, "colour"): ("color",),
    }
    odd = one("a=b", "x")
    assert Renames.of_options(["a=b=c"], odd, odd).entries == {(None, "colour", "a=b"): ("c",)}
    with pytest.raises(UsageError, match="Did you mean 'red'"):
        Renames.of_options(["rd=crimson"], OLD, OLD)
    twice = Taxonomy({"Cups": (Choice("a", ("x",)), Choice("b", ("x",)))})
    with pytest.raises(UsageError, match="several things; say which: 'a/x', 'b/x'"):
        Renames.of_options(["x=y"], twice, twice)


def test_changes_are_written_whole(tmp_path: Path):
    changes = diff(one("red", "blue"), one("blue", "tea"))
    changes.write(tmp_path / "changes.json")
    table = json.loads((tmp_path / "changes.json").read_text())
    assert (table["old"], table["new"]) == (changes.old.hash, changes.new.hash)
    assert [item["kind"] for item in table["changes"]] == ["added", "retired"]
    changes.write(tmp_path / "changes.csv")
    assert pl.read_csv(tmp_path / "changes.csv")["old"].to_list() == [None, "red"]


# Cells


def recoded(table: dict[str, list[str | None]], old: Taxonomy, changes: Changes) -> Recoded:
    read = Table(pl.DataFrame(table, schema=dict.fromkeys(table, pl.String)), "table", Path())
    return recode(read, schema_of(read, old), changes)


def listed(found: Recoded) -> list[tuple[int, str, str | None, str | None, str]]:
    return [(a.row, a.column, a.stated, a.becomes, a.action) for a in found.affected]


TABLE: dict[str, list[str | None]] = {
    "id": ["01", "02", "03", "04", "05", "06"],
    "category": ["Cups", "Cups", "Cups", "Plates", "Plates", "Plates"],
    "title": ["=x", "b", "c", "d", "e", "f"],
    "colour": ["red", "blue", None, "red", "odd one", "blue"],
    "pattern": ["plain", "striped", "plain", None, None, None],
    "size": [None, None, None, "large", "small", "dummy_value"],
}


def changed(**entries: tuple[Attribute, ...]) -> Taxonomy:
    return Taxonomy({**OLD.entries, **entries})


def test_a_table_without_changes_stays_as_it_is():
    found = recoded(TABLE, OLD, diff(OLD, OLD))
    assert found.affected == ()
    assert found.frame.to_dict(as_series=False) == TABLE
    assert len(found.findings) == 0


def test_renamed_and_merged_cells_are_rewritten_and_others_left_alone():
    new = changed(
        Cups=(Choice("colour", ("blue", "crimson", "green")), Choice("pattern", ("plain", "striped"))),
        Plates=(Choice("colour", ("blue", "red")), Choice("size", ("any",)), Number("price")),
    )
    renames = declared(
        values={"Cups": {"colour": {"red": "crimson"}}, "size": {"large": "any", "small": "any"}}
    )
    found = recoded(TABLE, OLD, diff(OLD, new, renames))
    assert listed(found) == [
        (1, "colour", "red", "crimson", REWRITTEN),
        (4, "size", "large", "any", REWRITTEN),
        (5, "size", "small", "any", REWRITTEN),
    ]
    assert found.frame["colour"].to_list() == ["crimson", "blue", None, "red", "odd one", "blue"]
    assert found.frame["size"].to_list() == [None, None, None, "any", "any", "dummy_value"]
    assert found.products(ANSWER) == 0
    assert len(found.findings) == 0


def test_split_and_retired_values_are_emptied_and_listed():
    new = changed(Cups=(Choice("colour", ("green", "navy", "red", "sky")), Choice("pattern", ("plain",))))
    renames = declared(values={"Cups": {"colour": {"blue": ["navy", "sky"]}}})
    found = recoded(TABLE, OLD, diff(OLD, new, renames))
    assert listed(found) == [(2, "colour", "blue", None, ANSWER), (2, "pattern", "striped", None, ANSWER)]
    assert [f.evidence["stated"] for f in found.findings] == ["blue", "striped"]
    assert {(f.kind, f.row, f.id) for f in found.findings} == {("emptied_cell", 2, "02")}
    assert found.frame["colour"][1] is None
    assert "1 must be answered again" in found.summary()


def test_an_added_value_asks_to_look_at_stated_cells_of_its_attribute_only():
    new = changed(Cups=(Choice("colour", ("blue", "green", "red", "teal")), OLD.choices("Cups")[1]))
    found = recoded(TABLE, OLD, diff(OLD, new))
    assert listed(found) == [(1, "colour", "red", "red", LOOK), (2, "colour", "blue", "blue", LOOK)]
    assert found.frame.to_dict(as_series=False) == TABLE


def test_an_added_attribute_must_be_answered_by_all_products_of_its_category():
    new = changed(Cups=(*OLD.entries["Cups"], Choice("material", ("clay", "glass"))))
    found = recoded(TABLE, OLD, diff(OLD, new))
    assert listed(found) == [(row, "material", None, None, ANSWER) for row in (1, 2, 3)]
    assert found.frame.columns == [*TABLE, "material"]


def test_renamed_columns_keep_their_place_and_a_shared_one_is_divided():
    new = changed(Cups=(Choice("shade", ("blue", "green", "red")), OLD.choices("Cups")[1]))
    found = recoded(TABLE, OLD, diff(OLD, new, declared(attributes={"Cups": {"colour": "shade"}})))
    assert found.frame.columns[3:6] == ["shade", "colour", "pattern"]
    assert found.frame["shade"].to_list() == ["red", "blue", None, None, None, None]
    assert found.frame["colour"].to_list() == [None, None, None, "red", "odd one", "blue"]
    assert [(a.row, a.action) for a in found.affected] == [(1, REWRITTEN), (2, REWRITTEN)]


def test_a_retired_attribute_loses_its_column_but_nothing_silently():
    new = changed(Plates=(OLD.choices("Plates")[0], Number("price")))
    found = recoded(TABLE, OLD, diff(OLD, new))
    assert listed(found) == [(4, "size", "large", None, REMOVED), (5, "size", "small", None, REMOVED)]
    assert "size" not in found.frame.columns
    assert found.findings.counts() == {"removed_cell": 2}


def test_a_split_or_retired_category_is_to_be_answered_and_its_cells_wait():
    new = Taxonomy(
        {"Mugs": OLD.entries["Cups"], "Glasses": OLD.entries["Cups"], "Plates": OLD.entries["Plates"]}
    )
    found = recoded(TABLE, OLD, diff(OLD, new, declared(categories={"Cups": ["Mugs", "Glasses"]})))
    assert listed(found) == [(row, "category", "Cups", None, ANSWER) for row in (1, 2, 3)]
    assert found.frame["category"].to_list() == [None] * 3 + ["Plates"] * 3
    assert found.frame["colour"].to_list() == TABLE["colour"]
    gone = recoded(TABLE, OLD, diff(OLD, Taxonomy({"Plates": OLD.entries["Plates"]})))
    assert (1, "pattern", "plain", None, REMOVED) in listed(gone)
    assert gone.products(ANSWER) == 3


def test_merged_attributes_that_disagree_are_asked_again():
    old = Taxonomy({"Cups": (Choice("a", ("x", "y")), Choice("b", ("x", "y")))})
    new = Taxonomy({"Cups": (Choice("c", ("x", "y")),)})
    table: dict[str, list[str | None]] = {
        "id": ["1", "2", "3"],
        "category": ["Cups"] * 3,
        "a": ["x", "x", None],
        "b": ["x", "y", "y"],
    }
    found = recoded(table, old, diff(old, new, declared(attributes={"a": "c", "b": "c"})))
    assert found.frame["c"].to_list() == ["x", None, "y"]
    assert [(a.row, a.stated, a.action) for a in found.affected if a.becomes is None] == [
        (2, "x / y", ANSWER)
    ]


def test_a_new_attribute_that_is_answered_already_is_left_alone():
    new = changed(Cups=(*OLD.entries["Cups"], Choice("material", ("clay", "glass"))))
    material: list[str | None] = ["clay", "wood", None, "clay", None, None]
    found = recoded({**TABLE, "material": material}, OLD, diff(OLD, new))
    assert listed(found) == [(2, "material", "wood", None, ANSWER), (3, "material", None, None, ANSWER)]
    assert found.frame["material"].to_list() == ["clay", None, None, "clay", None, None]
    assert [f.evidence["stated"] for f in found.findings] == ["wood"]


def test_cells_of_rows_that_no_change_concerns_are_listed_when_their_column_goes():
    new = Taxonomy({"Cups": OLD.entries["Cups"], "Plates": (OLD.choices("Plates")[0], Number("price"))})
    category: list[str | None] = ["Cups", "Boots", None, "Plates", "Plates", "Plates"]
    size: list[str | None] = ["one", "two", "three", None, "large", None]
    found = recoded({**TABLE, "category": category, "size": size}, OLD, diff(OLD, new))
    assert "size" not in found.frame.columns
    stated = ["one", "two", "three", "large"]
    assert [(a.column, a.stated, a.action) for a in found.affected] == [("size", s, REMOVED) for s in stated]
    assert found.frame["category"].to_list() == category


def test_merged_categories_look_again_where_their_own_list_grew():
    old = Taxonomy({"A": (Choice("c", ("x", "y")),), "B": (Choice("c", ("x",)),)})
    new = Taxonomy({"A": (Choice("c", ("x", "y")),)})
    table: dict[str, list[str | None]] = {"id": ["1", "2"], "category": ["A", "B"], "c": ["x", "x"]}
    found = recoded(table, old, diff(old, new, declared(categories={"B": "A"})))
    assert listed(found) == [(2, "c", "x", "x", LOOK), (2, "category", "B", "A", REWRITTEN)]
    assert found.frame["category"].to_list() == ["A", "A"]


def test_a_table_of_another_taxonomy_is_refused():
    table = {**TABLE, "category": ["Boots"] * 6}
    with pytest.raises(CatalogError, match=r"no product is of a category of the old taxonomy.*'Boots'"):
        recoded(table, OLD, diff(OLD, OLD))


def test_in_the_challenge_layout_cells_move_with_their_position(challenge: Toy):
    old = challenge.catalog.taxonomy
    entries = dict(old.entries)
    size = entries["Plates"][1]
    entries["Plates"] = (
        size,
        Choice("material", ("clay", "tin")),
        *(a for a in entries["Plates"] if a != size),
    )
    changes = diff(old, Taxonomy(entries))
    read = Table(challenge.catalog.frame, "table", challenge.directory)
    found = recode(read, challenge.catalog.schema, changes)
    before, after = challenge.catalog.frame, found.frame
    plates = (before["Category"] == "Plates").to_numpy()
    names = [attribute.name for attribute in old.entries["Plates"]]
    assert names == ["colour", "size", "pattern"]
    moved = {"attr_1": "attr_3", "attr_2": "attr_1", "attr_3": "attr_4"}
    for source, target in moved.items():
        assert after.filter(plates)[target].to_list() == before.filter(plates)[source].to_list()
    assert set(after.filter(plates)["len"]) == {"4"}
    assert after.filter(~plates).equals(before.filter(~plates))
    assert {a.category for a in found.affected} == {"Plates"}
    assert found.products(ANSWER) == int(plates.sum())
    again = Catalog.read(after, schema=new_columns(challenge.catalog.schema, changes))
    assert [f for f in again.findings if f.kind == "unknown_value"] == []


# Command line


@pytest.fixture
def taxonomies(toy: Toy, tmp_path: Path) -> tuple[Path, Path]:
    """The toy taxonomy, and one with a value renamed, two merged and one added."""
    old = toy.catalog.taxonomy
    entries = dict(old.entries)
    by_name = {c: {a.name: a for a in attributes} for c, attributes in entries.items()}

    def swap(category: str, name: str, *values: str) -> None:
        by_name[category][name] = Choice(name, values)
        entries[category] = tuple(by_name[category].values())

    swap("Cups", "colour", "blue", "crimson", "green")
    swap("Plates", "size", "any")
    swap("Towels", "pattern", "default", "plain", "striped", "zigzag")
    old.save(tmp_path / "old.json")
    Taxonomy(entries, old.aliases).save(tmp_path / "new.json")
    return tmp_path / "old.json", tmp_path / "new.json"


RENAMES = ("--rename", "Cups/colour/red=crimson", "--rename", "large=any", "--rename", "small=any")


def test_diff_on_a_table_lists_exactly_the_affected_products(
    shell: Shell, toy: Toy, taxonomies: tuple[Path, Path], tmp_path: Path
):
    out = tmp_path / "affected.csv"
    ran = shell("taxonomy", "diff", *taxonomies, *RENAMES, "--on", toy.table, "-o", out)
    assert ran.code == 0, ran.err
    assert "1 renamed, 1 merged, 1 added" in ran.out
    frame = pl.read_csv(toy.table, infer_schema=False)
    expected = set()
    for row in frame.iter_rows(named=True):
        if row["category"] == "Cups" and row["colour"] == "red":
            expected.add((row["id"], "colour", REWRITTEN))
        if row["category"] == "Plates" and row["size"]:
            expected.add((row["id"], "size", REWRITTEN))
        if row["category"] == "Towels" and row["pattern"]:
            expected.add((row["id"], "pattern", LOOK))
    assert len(expected) > 50
    found = pl.read_csv(out, infer_schema=False)
    assert set(found.select("id", "column", "action").iter_rows()) == expected
    assert len(found) == len(expected)


def test_diff_without_a_table_prints_and_proposes(
    shell: Shell, taxonomies: tuple[Path, Path], tmp_path: Path
):
    ran = shell("taxonomy", "diff", *taxonomies, "-o", tmp_path / "changes.json")
    assert ran.code == 0
    assert "retired  value of Cups / colour: 'red'" in ran.out
    assert "declare it: --rename Cups/colour/red=crimson" in ran.out
    assert len(json.loads((tmp_path / "changes.json").read_text())["changes"]) == 6


def test_a_table_is_migrated_with_its_findings(
    shell: Shell, toy: Toy, taxonomies: tuple[Path, Path], tmp_path: Path
):
    (tmp_path / "map.toml").write_text('[values.size]\nlarge = "any"\nsmall = "any"\n')
    out = tmp_path / "migrated.csv"
    ran = shell(
        "taxonomy", "migrate", *taxonomies, "--table", toy.table, "-o", out, "--map", tmp_path / "map.toml"
    )
    assert ran.code == 0, ran.err
    before, after = (pl.read_csv(path, infer_schema=False) for path in (toy.table, out))
    cups_red = (before["category"] == "Cups") & (before["colour"] == "red")
    assert after.columns == before.columns
    assert after.filter(cups_red)["colour"].null_count() == cups_red.sum() > 0
    assert set(after["size"].drop_nulls()) == {"any"}
    untouched = [name for name in before.columns if name not in ("colour", "size")]
    assert after.select(untouched).equals(before.select(untouched))
    findings = pl.read_csv(tmp_path / "migrated.findings.csv", infer_schema=False)
    assert sorted(findings["id"]) == sorted(before.filter(cups_red)["id"])
    read = Catalog.read(out, images=toy.directory, schema=toy.catalog.schema)
    assert len(read) == len(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("migrate", "OLD", "NEW", "-o", "out"), "give --bundle BUNDLE or --table TABLE"),
        (("diff", "OLD", "NEW", "--rename", "nothing=x"), "--rename is OLD=NEW"),
        (("diff", "OLD", "NEW", "--rename", "red=scarlet"), "the new taxonomy has no 'scarlet' there"),
        (("diff", "OLD", "nowhere.json"), "cannot read the taxonomy nowhere.json"),
        (("diff", "OLD", "NEW", "--map", "none.toml"), "cannot read the mapping none.toml"),
    ],
)
def test_wrong_words_are_one_readable_error(
    shell: Shell, taxonomies: tuple[Path, Path], words: tuple[str, ...], message: str
):
    paths = {"OLD": taxonomies[0], "NEW": taxonomies[1]}
    ran = shell("taxonomy", *(paths.get(word, word) for word in words))
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
