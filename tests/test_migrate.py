"""Migrating a bundle: what was learnt stays to the bit, what was not is named, and evidence reads the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import shelfwise as sw
from conftest import Shell, Toy
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.changes.diff import diff
from shelfwise.changes.renames import Renames
from shelfwise.errors import BundleError, PredictionError, TaxonomyError
from shelfwise.migrate import carry_over, migrate, migrate_evidence, migrate_index
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.index import learn_index
from shelfwise.recipes.remapped import FILE, FOLDER, Carry
from shelfwise.taxonomy import Choice, Taxonomy
from shelfwise.trust.evidence import Evidence

pytestmark = pytest.mark.usefixtures("one_thread")

#: A value renamed, two merged, one added.
SHOWN = Renames.from_table(
    {"values": {"Cups": {"colour": {"red": "crimson"}}, "size": {"large": "any", "small": "any"}}}
)


def swapped(old: Taxonomy, **values: tuple[str, ...]) -> Taxonomy:
    """The taxonomy with other values; ``Cups__colour=(...)``."""
    entries = {
        category: tuple(
            Choice(item.name, values[f"{category}__{item.name}"], {})
            if f"{category}__{item.name}" in values
            else item
            for item in attributes
        )
        for category, attributes in old.entries.items()
    }
    return Taxonomy(entries, old.aliases)


@pytest.fixture(scope="module")
def shown(bundle: Bundle) -> Taxonomy:
    towels = (*bundle.taxonomy.choice("Towels", "pattern").values, "zigzag")
    return swapped(
        bundle.taxonomy,
        Cups__colour=("blue", "crimson", "green"),
        Plates__size=("any",),
        Towels__pattern=towels,
    )


@pytest.fixture(scope="module")
def before(bundle: Bundle, toy: Toy, machine: Machine) -> Predictions:
    return raw(bundle, toy.catalog, machine)


def raw(bundle: Bundle, catalog: Catalog, machine: Machine) -> Predictions:
    """What the predictor says, before calibration."""
    return bundle.predictor.predict(catalog.under(bundle.schema), machine)


def part(predictions: Predictions, category: str, attribute: str) -> dict[str, np.ndarray]:
    """The probabilities of one attribute, by value."""
    block = predictions.block(category)
    assert block is not None
    taxonomy = predictions.taxonomy
    names = [choice.name for choice in taxonomy.choices(category)]
    probs = block.probs[:, taxonomy.slices(category)[names.index(attribute)]]
    return dict(zip(taxonomy.choice(category, attribute).values, probs.T, strict=True))


def test_renamed_merged_and_added(
    bundle: Bundle, shown: Taxonomy, before: Predictions, toy: Toy, machine: Machine, tmp_path: Path
):
    migrate(bundle, shown, SHOWN).save(tmp_path / "new")
    bundle.save(tmp_path / "old")
    weights = load_file(tmp_path / "old" / "weights.safetensors")
    carried = load_file(tmp_path / "new" / FOLDER / "weights.safetensors")
    assert weights.keys() == carried.keys()
    assert all(weights[name].tobytes() == carried[name].tobytes() for name in weights)
    migrated = sw.load(tmp_path / "new")
    assert migrated.taxonomy == shown
    after = raw(migrated, toy.catalog, machine)
    assert after.ids == before.ids
    changed = {("Cups", "colour"), ("Plates", "size"), ("Towels", "pattern")}
    untouched = [(c, a.name) for c, a in shown.pairs() if (c, a.name) not in changed]
    assert len(untouched) == 4
    for pair in untouched:
        old, new = part(before, *pair), part(after, *pair)
        assert old.keys() == new.keys()
        assert all(np.array_equal(old[value], new[value]) for value in old), pair
    old, new = part(before, "Cups", "colour"), part(after, "Cups", "colour")
    for value, name in (("red", "crimson"), ("blue", "blue"), ("green", "green")):
        np.testing.assert_array_equal(old[value], new[name])
    old, new = part(before, "Plates", "size"), part(after, "Plates", "size")
    np.testing.assert_allclose(new["any"], old["large"] + old["small"], atol=1e-6)
    old, new = part(before, "Towels", "pattern"), part(after, "Towels", "pattern")
    assert not new["zigzag"].any()
    assert all(np.array_equal(old[value], new[value]) for value in old)
    assert migrated.untrained == frozenset()
    assert migrated.untrained_values == {("Towels", "pattern", "zigzag")}
    calibrated = bundle.predict(toy.catalog, machine), migrated.predict(toy.catalog, machine)
    for pair in untouched:
        old, new = part(calibrated[0], *pair), part(calibrated[1], *pair)
        assert all(np.abs(old[value] - new[value]).max() <= 1e-6 for value in old), pair
    old, new = part(calibrated[0], "Cups", "colour"), part(calibrated[1], "Cups", "colour")
    np.testing.assert_allclose(old["red"], new["crimson"], atol=1e-6)
    answers = migrated.answer(toy.catalog, machine=machine)
    assert "zigzag" not in {answers.of(row).get("pattern", {}).get("value") for row in range(len(answers))}


def test_migrating_to_the_same_taxonomy_changes_nothing(bundle: Bundle):
    assert migrate(bundle, bundle.taxonomy) is bundle


def test_what_was_never_learnt_is_uniform_and_said_everywhere(
    bundle: Bundle, toy: Toy, machine: Machine, tmp_path: Path
):
    entries = dict(bundle.taxonomy.entries)
    entries["Cups"] = (Choice("material", ("clay", "glass", "tin")), *entries["Cups"])
    entries["Bowls"] = (Choice("colour", ("blue", "red")),)
    migrated = migrate(bundle, Taxonomy(entries))
    assert migrated.untrained == {("Cups", "material"), ("Bowls", "colour")}
    found = raw(migrated, toy.catalog, machine)
    assert {value.tolist()[0] for value in part(found, "Cups", "material").values()} == {np.float32(1 / 3)}
    assert any("Never learnt" in note and "Cups/material" in note for note in found.notes)
    assert any("Never learnt" in note and "Bowls/colour" in note for note in migrated.report.notes)
    migrated.save(tmp_path / "new")
    card = (tmp_path / "new" / "card.md").read_text()
    assert "| Cups | material | 3 | never learnt |" in card
    assert "Never learnt: Bowls/colour" in card
    loaded = sw.load(tmp_path / "new")
    assert loaded.untrained == migrated.untrained
    assert loaded.migrated_from == (bundle.taxonomy.hash,)
    frame = toy.catalog.frame.with_columns(pl.lit("Bowls").alias("category")).head(3)
    images = ["images/nothing.png", *frame["image"].to_list()[1:]]
    bowls = loaded.read(frame.with_columns(pl.Series("image", images)), images=toy.directory)
    new = raw(loaded, bowls, machine)
    assert list(new.errors) == [0]
    assert new.errors[0].field == "image"
    assert part(new, "Bowls", "colour")["red"].tolist() == [0.5, 0.5]
    answers = loaded.answer(toy.catalog, machine=machine)
    answers.write(tmp_path / "out.csv")
    assert "material" in pl.read_csv(tmp_path / "out.csv").columns


def test_split_values_share_and_retired_ones_give_way(
    bundle: Bundle, before: Predictions, toy: Toy, machine: Machine
):
    new = swapped(
        bundle.taxonomy, Cups__colour=("green", "navy", "red", "sky"), Towels__pattern=("plain", "striped")
    )
    renames = Renames.from_table({"values": {"Cups": {"colour": {"blue": ["navy", "sky"]}}}})
    migrated = migrate(bundle, new, renames)
    after = raw(migrated, toy.catalog, machine)
    old, found = part(before, "Cups", "colour"), part(after, "Cups", "colour")
    np.testing.assert_allclose(found["navy"], old["blue"] / 2, atol=1e-6)
    np.testing.assert_array_equal(found["navy"], found["sky"])
    np.testing.assert_allclose(found["red"], old["red"], atol=1e-6)
    assert migrated.untrained_values == {("Cups", "colour", "navy"), ("Cups", "colour", "sky")}
    old, found = part(before, "Towels", "pattern"), part(after, "Towels", "pattern")
    np.testing.assert_allclose(found["plain"], old["plain"] / (old["plain"] + old["striped"]), atol=1e-5)
    np.testing.assert_allclose(found["plain"] + found["striped"], 1, atol=1e-6)


def test_a_row_is_answered_alike_whatever_stands_beside_it(
    bundle: Bundle, shown: Taxonomy, toy: Toy, machine: Machine
):
    migrated = migrate(bundle, swapped(shown, Cups__colour=("blue", "crimson")), SHOWN)
    catalog = toy.catalog.under(migrated.schema)
    whole = raw(migrated, catalog, machine)
    order = np.random.default_rng(0).permutation(len(catalog))
    shuffled = raw(migrated, catalog.select(order), machine)
    for one, two in zip(whole.select(order).blocks, shuffled.blocks, strict=True):
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.probs, two.probs)


def test_categories_follow_their_names_and_guesses_with_them(
    bundle: Bundle, before: Predictions, toy: Toy, machine: Machine
):
    entries = {
        "Mugs": bundle.taxonomy.entries["Cups"],
        "Saucers": bundle.taxonomy.entries["Plates"],
        "Dishes": bundle.taxonomy.entries["Plates"],
    }
    renames = Renames.from_table({"categories": {"Cups": "Mugs", "Plates": ["Saucers", "Dishes"]}})
    migrated = migrate(bundle, Taxonomy(entries), renames)
    assert migrated.untrained == frozenset()
    cells: list[str | None] = toy.catalog.frame["category"].to_list()
    given = ["Mugs" if c == "Cups" else "Saucers" if c == "Plates" else c for c in cells]
    cups, plates = cells.index("Cups"), cells.index("Plates")
    given[cups], given[plates] = None, None
    read = migrated.read(toy.catalog.frame.with_columns(pl.Series("category", given)), images=toy.directory)
    found = raw(migrated, read, machine)
    assert found.guessed.keys() == {cups}
    assert "most like 'Plates'" in found.errors[plates].message
    towels = {row for row, name in enumerate(cells) if name == "Towels"}
    assert set(found.errors) == {plates, *towels}
    assert "there is no category 'Towels'" in found.errors[min(towels)].message
    old, new = before.block("Cups"), found.block("Mugs")
    assert old is not None
    assert new is not None
    np.testing.assert_array_equal(old.rows, new.rows)
    np.testing.assert_array_equal(old.probs, new.probs)


def test_merged_categories_start_anew_and_merged_attributes_are_averaged(
    bundle: Bundle, before: Predictions, toy: Toy, machine: Machine
):
    plates = bundle.taxonomy.entries["Plates"]
    entries = {"Cups": bundle.taxonomy.entries["Cups"], "Plates": (*plates, Choice("extra", ("a", "b")))}
    migrated = migrate(bundle, Taxonomy(entries), Renames.from_table({"categories": {"Towels": "Plates"}}))
    assert {pair for pair in migrated.untrained if pair[0] == "Plates"} == {
        ("Plates", name) for name in ("colour", "size", "pattern", "extra")
    }
    old = Taxonomy({"Cups": (Choice("a", ("x", "y")), Choice("b", ("y", "x")))})
    new = Taxonomy({"Cups": (Choice("c", ("x", "y")),)})
    renames = Renames.from_table({"attributes": {"a": "c", "b": "c"}})
    carry = Carry.of(diff(old, new, renames))
    probs = np.array([[0.8, 0.2, 0.6, 0.4]], np.float32)
    np.testing.assert_allclose(carry.probs("Cups", probs), [[0.6, 0.4]], atol=1e-6)
    labels = np.array([[0, 1], [0, 0], [-1, 0], [-1, -1]], np.int32)
    assert carry.labels("Cups", labels).tolist() == [[0], [-1], [1], [-1]]


def test_migrating_twice_is_migrating_at_once(
    bundle: Bundle, shown: Taxonomy, toy: Toy, machine: Machine, tmp_path: Path
):
    entries = {
        "Mugs" if name == "Cups" else name: items
        for name, items in swapped(shown, Plates__size=("any", "huge")).entries.items()
    }
    last = Taxonomy({**entries, "Plates": (*entries["Plates"], Choice("material", ("clay", "tin")))})
    rename = Renames.from_table({"categories": {"Cups": "Mugs"}})
    migrate(bundle, shown, SHOWN).save(tmp_path / "one")
    migrate(sw.load(tmp_path / "one"), last, rename).save(tmp_path / "two")
    twice = sw.load(tmp_path / "two")
    once = migrate(bundle, last, SHOWN | rename)
    assert twice.migrated_from == (bundle.taxonomy.hash, shown.hash)
    assert once.migrated_from == (bundle.taxonomy.hash,)
    assert twice.untrained == once.untrained == {("Plates", "material")}
    assert twice.untrained_values == once.untrained_values
    assert twice.untrained_values == {("Towels", "pattern", "zigzag"), ("Plates", "size", "huge")}
    frame = toy.catalog.frame.with_columns(pl.col("category").replace({"Cups": "Mugs"}))
    read = twice.read(frame, images=toy.directory)
    first, second = raw(once, read, machine), raw(twice, read, machine)
    for one, two in zip(first.blocks, second.blocks, strict=True):
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_allclose(one.probs, two.probs, atol=1e-6)
    assert [note[:12] for note in second.notes] == ["Never learnt", "Values never"]
    kept = [note for note in twice.report.notes if note.startswith("Values never learnt")]
    assert len(kept) == 1


def test_a_category_added_after_others_went_is_never_guessed_at(bundle: Bundle, toy: Toy, machine: Machine):
    cups = Taxonomy({"Cups": bundle.taxonomy.entries["Cups"]})
    bowls = Taxonomy({**cups.entries, "Bowls": (Choice("rim", ("a", "b")),)})
    migrated = migrate(migrate(bundle, cups), bowls)
    frame = toy.catalog.frame.with_columns(pl.lit("Bowls").alias("category"))
    found = raw(migrated, migrated.read(frame, images=toy.directory), machine)
    assert found.errors == {}
    assert found.guessed == {}
    assert (part(found, "Bowls", "rim")["a"] == 0.5).all()


def test_a_migrated_bundle_is_saved_alike_twice_and_refused_where_changed(
    bundle: Bundle, shown: Taxonomy, tmp_path: Path
):
    migrated = migrate(bundle, shown, SHOWN)
    migrated.save(tmp_path / "a")
    sw.load(tmp_path / "a").save(tmp_path / "b")
    names = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert {FILE, f"{FOLDER}/weights.safetensors", f"{FOLDER}/taxonomy.json"} <= set(names)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    index = json.loads((tmp_path / "a" / "bundle.json").read_text())
    assert index["migrated_from"] == [bundle.taxonomy.hash]

    def altered(name: str, change: object, **other: object) -> Path:
        copy = Path(shutil.copytree(tmp_path / "a", tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"))
        if name:
            (copy / name).write_text(json.dumps(change))
        from shelfwise.files import sha256

        fresh = {**index, **other, "files": {n: sha256(copy / n) for n in index["files"]}}
        (copy / "bundle.json").write_text(json.dumps(fresh))
        return copy

    mapping = json.loads((tmp_path / "a" / FILE).read_text())
    values = mapping["categories"][0]["attributes"][0]["values"]
    with pytest.raises(BundleError, match="migrated_from does not match"):
        sw.load(altered("", None, migrated_from=["0" * 64]))
    with pytest.raises(BundleError, match="format 9 is not known"):
        sw.load(altered(FILE, {**mapping, "format": 9}))
    with pytest.raises(BundleError, match="between other taxonomies"):
        sw.load(altered(FILE, {**mapping, "old": "0" * 64}))
    values["red"] = ["purple"]
    with pytest.raises(BundleError, match="values that the taxonomies do not have"):
        sw.load(altered(FILE, mapping))
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        sw.load(altered("", None, migrated_from=[]))


def test_the_report_keeps_scores_that_hold_under_new_names(bundle: Bundle, shown: Taxonomy):
    migrated = migrate(bundle, shown, SHOWN)
    report, old = migrated.report, bundle.report
    assert report.score == old.score
    for pair in (("Cups", "pattern"), ("Plates", "colour"), ("Cups", "colour")):
        assert report.line(None, *pair).score == old.line(None, *pair).score
    crimson, red = report.line("f1", "Cups", "colour", "crimson"), old.line("f1", "Cups", "colour", "red")
    assert crimson.score == red.score
    assert crimson.support == red.support > 0
    for pair in (("Plates", "size"), ("Towels", "pattern")):
        assert np.isnan(report.line(None, *pair).score)
    assert np.isnan(report.line(None, "Plates").score)
    assert report.line(None, "Cups").score == old.line(None, "Cups").score
    assert any("1 renamed, 1 merged, 1 added" in note for note in report.notes)


@pytest.fixture(scope="module")
def evidence(toy: Toy, before: Predictions) -> Evidence:
    n = len(toy.catalog)
    return Evidence.of(before, toy.catalog, np.arange(n) // 2, np.arange(n) % 3)


def test_evidence_reads_as_the_migrated_bundle_does(
    bundle: Bundle, shown: Taxonomy, evidence: Evidence, toy: Toy, machine: Machine, tmp_path: Path
):
    changes = diff(bundle.taxonomy, shown, SHOWN)
    moved = migrate_evidence(evidence, changes)
    found = raw(carry_over(bundle, changes), toy.catalog, machine)
    truth = Catalog.read(
        _migrated_table(toy), images=toy.directory, schema=carry_over(bundle, changes).schema
    )
    opinions = [replace(block, opinions=(block.probs, block.probs / 2)) for block in evidence.blocks]
    doubled = migrate_evidence(replace(evidence, blocks=tuple(opinions)), changes)
    for one, two in zip(moved.blocks, doubled.blocks, strict=True):
        np.testing.assert_array_equal(two.opinions[0], one.probs)
        np.testing.assert_array_equal(two.opinions[1], one.probs / 2)
    assert moved.taxonomy == shown
    assert moved.ids == evidence.ids
    np.testing.assert_array_equal(moved.group, evidence.group)
    np.testing.assert_array_equal(moved.fold, evidence.fold)
    for block in moved.blocks:
        other = found.block(block.category)
        assert other is not None
        np.testing.assert_array_equal(block.rows, other.rows)
        np.testing.assert_array_equal(block.probs, other.probs)
        np.testing.assert_array_equal(block.labels, truth.labels(block.category))
    assert sum(len(block.rows) for block in moved.blocks) == len(toy.catalog)
    moved.save(tmp_path / "evidence.parquet")
    assert Evidence.load(tmp_path / "evidence.parquet").taxonomy == shown
    with pytest.raises(PredictionError, match="of another taxonomy"):
        migrate_evidence(moved, changes)


def _migrated_table(toy: Toy) -> pl.DataFrame:
    cups = pl.col("category") == "Cups"
    return toy.catalog.frame.with_columns(
        pl.when(cups)
        .then(pl.col("colour").replace({"red": "crimson"}))
        .otherwise(pl.col("colour"))
        .alias("colour"),
        pl.col("size").replace({"large": "any", "small": "any"}),
    )


def test_evidence_of_what_is_new_split_or_retired_has_no_labels(bundle: Bundle, evidence: Evidence):
    old = bundle.taxonomy
    new = swapped(old, Cups__colour=("green", "navy", "red", "sky"), Towels__pattern=("plain", "striped"))
    entries = dict(new.entries)
    entries["Cups"] = (*entries["Cups"], Choice("material", ("clay", "tin")))
    entries["Dishes"] = entries["Saucers"] = entries.pop("Plates")
    table = {
        "values": {"Cups": {"colour": {"blue": ["navy", "sky"]}}},
        "categories": {"Plates": ["Dishes", "Saucers"]},
    }
    moved = migrate_evidence(evidence, diff(old, Taxonomy(entries), Renames.from_table(table)))
    assert {block.category for block in moved.blocks} == {"Cups", "Towels"}
    before_n, after_n = evidence.block("Cups"), moved.block("Cups")
    assert before_n is not None
    assert after_n is not None
    colours, values = old.choice("Cups", "colour").values, moved.taxonomy.choice("Cups", "colour").values
    for label, now in zip(before_n.labels[:, 0].tolist(), after_n.labels[:, 0].tolist(), strict=True):
        lost = label < 0 or colours[label] == "blue"
        assert now == -1 if lost else values[now] == colours[label]
    assert (after_n.labels[:, 2] == -1).all()
    towels, others = moved.block("Towels"), evidence.block("Towels")
    assert towels is not None
    assert others is not None
    retired = others.labels[:, 1] == old.code("Towels", "pattern", "default")
    assert retired.any()
    assert (towels.labels[retired, 1] == -1).all()


def test_the_index_follows_renamed_and_merged_categories_and_drops_retired_ones(
    bundle: Bundle, toy: Toy, machine: Machine
):
    spec, groups = sw.backbone("toy"), np.arange(len(toy.catalog))
    index = learn_index(toy.catalog, spec, groups, machine)
    old = bundle.taxonomy
    names = {"Towels": "Cloths", "Plates": "Plates", "Cups": "Mugs"}
    new = Taxonomy({"Bowls": (Choice("a", ("b",)),), **{names[c]: old.entries[c] for c in names}})
    renames = {"categories": {"Cups": "Mugs", "Towels": "Cloths"}}
    moved = migrate_index(index, diff(old, new, renames))
    frame = toy.catalog.frame.with_columns(pl.col("category").replace(names))
    read = migrate(bundle, new, renames).read(frame, images=toy.directory)
    before, after = index.familiarity(toy.catalog, machine), moved.familiarity(read, machine)
    np.testing.assert_allclose(before.p_familiar, after.p_familiar)
    np.testing.assert_allclose(before.p_category, after.p_category)
    likelier = [old.categories[code] for code in before.likelier]
    assert [new.categories[code] for code in after.likelier] == [names[name] for name in likelier]
    merged = Taxonomy({name: old.entries[name] for name in ("Cups", "Plates")})
    into = {"categories": {"Towels": "Plates"}}
    together = migrate_index(index, diff(old, merged, into))
    frame = toy.catalog.frame.with_columns(pl.col("category").replace({"Towels": "Plates"}))
    read = migrate(bundle, merged, into).read(frame, images=toy.directory)
    again = learn_index(read, spec, groups, machine).familiarity(read, machine)
    found = together.familiarity(read, machine)
    np.testing.assert_array_equal(found.p_familiar, again.p_familiar)
    np.testing.assert_array_equal(found.p_category, again.p_category)
    retired = migrate_index(index, diff(old, merged))
    assert len(retired) == len(index) - int((index.category == old.category_codes["Towels"]).sum())


def test_in_the_challenge_layout_columns_grow_with_the_taxonomy(
    challenge: Toy, machine: Machine, tmp_path: Path
):
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=5)
    fitted = sw.fit(challenge.catalog, recipe, evidence=2, machine=machine, random_split=False)
    entries = dict(fitted.taxonomy.entries)
    entries["Plates"] = (Choice("material", ("clay", "tin")), *entries["Plates"], Choice("rim", ("a", "b")))
    migrated = migrate(fitted, Taxonomy(entries))
    migrated.save(tmp_path / "new")
    migrated = sw.load(tmp_path / "new")
    assert migrated.untrained == {("Plates", "material"), ("Plates", "rim")}
    migrated.answer(challenge.catalog, machine=machine).write(tmp_path / "out.csv")
    fitted.answer(challenge.catalog, machine=machine).write(tmp_path / "before.csv")
    out, before = (pl.read_csv(tmp_path / f"{name}.csv", infer_schema=False) for name in ("out", "before"))
    assert out.columns == ["id", "Category", "len", *(f"attr_{k}" for k in range(1, 6))]
    plates = out["Category"] == "Plates"
    for k in (1, 2, 3):
        assert out.filter(plates)[f"attr_{k + 1}"].equals(before.filter(plates)[f"attr_{k}"])
    assert out.filter(~plates).select(before.columns).equals(before.filter(~plates))


def test_on_the_command_line(
    shell: Shell, saved: Path, shown: Taxonomy, toy: Toy, machine: Machine, tmp_path: Path
):
    shown.save(tmp_path / "new.json")
    new, out = tmp_path / "new.json", tmp_path / "migrated"
    renames = ("--rename", "Cups/colour/red=crimson", "--rename", "large=any", "--rename", "small=any")
    ran = shell("taxonomy", "migrate", saved, new, "--bundle", saved, "-o", out, *renames)
    assert ran.code == 0, ran.err
    assert "never learnt in it: 0 attribute(s), 1 value(s)" in ran.out
    assert "Towels/pattern/zigzag" in ran.out
    assert sw.load(out).taxonomy == shown
    assert "untrained: 0 attributes, 1 values" in shell("show", out).out
    words = ("--cache", machine.cache, "--engine", "torch", "--jobs", "1")
    ran = shell("predict", out, toy.table, "-o", tmp_path / "answers.csv", *words)
    assert ran.code == 0, ran.err
    answers = pl.read_csv(tmp_path / "answers.csv", infer_schema=False)
    assert set(answers["size"].drop_nulls()) == {"any"}
    assert "zigzag" not in set(answers["pattern"])
    ran = shell("taxonomy", "migrate", new, saved, "--bundle", saved, "-o", tmp_path / "back")
    assert ran.code == 2
    assert "name the bundle itself as the old taxonomy" in ran.err
    ran = shell("taxonomy", "migrate", saved, new, "--bundle", saved, "-o", toy.directory)
    assert ran.code == 2
    assert "is there and is not a bundle" in ran.err


def test_changes_from_another_taxonomy_are_refused(bundle: Bundle, shown: Taxonomy):
    with pytest.raises(TaxonomyError, match="the bundle answers under the taxonomy"):
        carry_over(bundle, diff(shown, bundle.taxonomy))
