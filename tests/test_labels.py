"""From a bundle's doubts to training labels: the queue, choosing what to label, export, Label Studio, the verbs."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Shell, Toy
from desks import TAXONOMY, item
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.choosing import label_next
from shelfwise.errors import CatalogError, DeskError, TaxonomyError, UsageError
from shelfwise.predictions import Machine
from shelfwise.roles import Layout
from shelfwise.service.desk import Desk
from shelfwise.service.doubts import DOUBT, REASONS, Weighing, items_of
from shelfwise.service.items import Item, key_of
from shelfwise.service.label_studio import CONFIG, read_tasks, tasks, write_tasks
from shelfwise.service.labels import Labels, labels_of
from shelfwise.tables import read_table

NAMED = Layout("named", "id", "category", ("colour", "lid"))


@dataclass(frozen=True)
class Planted:
    """Another toy table in which some colours of cups are wrong, and some cells are empty."""

    table: Path
    wrong: dict[str, tuple[str, str]]
    rows: list[dict[str, str]]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    from shelfwise.testing import toy_catalog

    table = toy_catalog(tmp_path_factory.mktemp("planted"), products=90, seed=5, missing=0.3)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    other = {"red": "blue", "blue": "green", "green": "red"}
    wrong = {}
    for row in [row for row in rows if row["category"] == "Cups" and row["colour"]][:6]:
        wrong[row["id"]] = row["colour"], other[row["colour"]]
        row["colour"] = other[row["colour"]]
    for number, row in enumerate(rows):
        row["id"] = f"p{row['id']}"
        row["seller"], row["sold"] = ("Acme", "Zeta")[number % 2], str(1 + number % 3)
    wrong = {f"p{id_}": pair for id_, pair in wrong.items()}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Planted(table, wrong, rows)


@pytest.fixture
def catalog(bundle: Bundle, planted: Planted, one_thread: None) -> Catalog:
    return bundle.read(planted.table)


@pytest.fixture
def items(bundle: Bundle, catalog: Catalog, machine: Machine) -> list[Item]:
    return items_of(bundle, catalog, Weighing(supplier="seller"), precision=0.97, machine=machine)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk.open(tmp_path / "desk.db") as desk:
        yield desk


def test_planted_errors_are_asked_first(items: list[Item], planted: Planted):
    found = {each.id: each for each in items if each.reason == "mismatch" and each.attribute == "colour"}
    assert set(planted.wrong) <= set(found)
    for id_, (right, stated) in planted.wrong.items():
        assert (found[id_].stated, found[id_].seen) == (stated, right)
        assert found[id_].risk > 0.5
    assert {each.id for each in items[:6]} == set(planted.wrong)
    risks = [each.risk for each in items]
    assert risks == sorted(risks, reverse=True)


def test_an_item_says_all_that_a_reviewer_needs(items: list[Item], planted: Planted, bundle: Bundle):
    for each in items:
        choice = bundle.taxonomy.choice(each.category, each.attribute)
        assert each.values == choice.values
        assert each.seen in each.values
        assert each.runner_up in each.values
        assert each.runner_up != each.seen
        assert each.photo is not None
        assert each.photo.is_file()
        assert each.supplier in ("Acme", "Zeta")
        assert 0 < each.runner_up_probability <= each.probability <= 1
        assert len(each.look_alikes) == 3
        assert all(-1 <= near.similarity <= 1 and near.photo is None for near in each.look_alikes)
    assert len({each.key for each in items}) == len(items)
    values = [near.value for each in items for near in each.look_alikes if near.value is not None]
    assert values
    assert set(values) <= {value for _, choice in bundle.taxonomy.pairs() for value in choice.values}


def test_empty_cells_are_asked_where_the_answer_is_unsure(items: list[Item], planted: Planted):
    cells = {(row["id"], name): row[name] for row in planted.rows for name in ("colour", "pattern", "size")}
    unsure = [each for each in items if each.reason == "unsure"]
    assert unsure
    for each in unsure:
        assert each.stated is None
        assert cells[each.id, each.attribute] == ""
        assert each.risk == pytest.approx(1 - each.probability)


def test_weights_and_worth_change_the_order_not_the_items(bundle, catalog, machine, items, planted):
    weighing = Weighing({"pattern": 10.0}, worth="sold")
    weighed = items_of(bundle, catalog, weighing, precision=0.97, machine=machine)
    sold = {row["id"]: float(row["sold"]) for row in planted.rows}
    plain = {each.key: each.risk for each in items if each.reason == "unsure"}
    checked = [each for each in weighed if each.key in plain]
    assert checked
    for each in checked:
        factor = sold[each.id] * (10 if each.attribute == "pattern" else 1)
        assert each.risk == pytest.approx(plain[each.key] * factor)


def test_a_mismatch_comes_before_an_empty_cell_as_doubtful(bundle, catalog, machine, items):
    """The default weighs mismatches more; any reason can be weighed."""
    even = Weighing(reasons=dict.fromkeys(REASONS, 1.0), supplier="seller")
    plain = {each.key: each for each in items_of(bundle, catalog, even, precision=0.97, machine=machine)}
    assert REASONS["mismatch"] > REASONS["unsure"]
    assert {each.reason for each in items} >= {"mismatch", "unsure"}
    for each in items:
        assert each.risk == pytest.approx(plain[each.key].risk * REASONS[each.reason])
    first = Weighing(reasons={"unsure": 1e6}, supplier="seller")
    turned = items_of(bundle, catalog, first, precision=0.97, machine=machine)
    assert turned[0].reason == "unsure"


def test_a_weight_that_is_none_is_named_with_its_row(bundle, catalog, machine):
    with pytest.raises(CatalogError, match=r"row 1, id 'p00000': 'seller' is 'Acme'"):
        items_of(bundle, catalog, Weighing(worth="seller"), machine=machine)
    with pytest.raises(CatalogError, match="no column 'nothing'"):
        items_of(bundle, catalog, Weighing(supplier="nothing"), machine=machine)
    with pytest.raises(TaxonomyError, match="'color'"):
        items_of(bundle, catalog, Weighing({"color": 2.0}), machine=machine)


def test_look_alikes_have_the_photos_of_the_table_learnt_from(bundle, toy, catalog, machine, one_thread):
    reference = bundle.read(toy.table)
    photos = dict(zip(reference.ids, reference.images, strict=True))
    found = items_of(bundle, catalog, reference=reference, machine=machine)
    shown = [near for each in found for near in each.look_alikes]
    assert shown
    assert all(near.photo is not None and near.photo == photos[near.id] for near in shown)


def test_what_look_alikes_state_is_read_where_the_evidence_is_a_holdout(toy, catalog, machine, one_thread):
    recipe = sw.Probe(backbone=sw.backbone("toy"))
    held = sw.fit(toy.catalog, recipe, evidence=0.34, machine=machine, random_split=False, curve=False)
    reference = held.read(toy.table)
    rows = {row["id"]: row for row in pl.read_csv(toy.table, infer_schema=False).iter_rows(named=True)}
    shown = [
        (item.attribute, near)
        for item in items_of(held, catalog, reference=reference, machine=machine)
        for near in item.look_alikes
        if item.attribute
    ]
    assert any(near.id not in held.evidence.ids for _, near in shown)
    for attribute, near in shown:
        assert near.photo == reference.images[reference.ids.index(near.id)]
        assert (near.value or "") == (rows[near.id][attribute] or "")


def test_an_unfamiliar_picture_and_a_wrong_category_are_asked_as_such(bundle, planted, machine, one_thread):
    frame = pl.read_csv(planted.table, infer_schema=False)
    frame = frame.with_columns(category=pl.lit("Towels"), colour=pl.lit(""), pattern=pl.lit("")).head(40)
    found = items_of(bundle, bundle.read(frame, images=planted.table.parent), machine=machine)
    doubted = [each for each in found if each.reason == "category?"]
    assert doubted
    for each in doubted:
        assert (each.attribute, each.stated, each.probability, each.key) == (
            "",
            "Towels",
            None,
            key_of(each.id, "", ""),
        )
        assert each.seen in ("Cups", "Plates")
        assert each.values == bundle.taxonomy.categories
        assert each.risk == DOUBT
    ids = [each.id for each in found]
    assert all(ids.count(each.id) == 1 for each in doubted), "nothing else is asked of them"


def test_clusters_hold_items_alike_in_all_but_the_product(bundle, planted, machine, one_thread):
    frame = pl.read_csv(planted.table, infer_schema=False)
    wrong = next(iter(planted.wrong))
    copies = [frame.filter(pl.col("id") == wrong).with_columns(id=pl.lit(f"copy{n}")) for n in range(2)]
    whole = bundle.read(pl.concat([frame, *copies]), images=planted.table.parent)
    found = items_of(bundle, whole, machine=machine, look_alikes=0)
    same = [each for each in found if each.id in (wrong, "copy0", "copy1") and each.attribute == "colour"]
    assert len(same) == 3
    (cluster,) = {each.cluster for each in same}
    members = [each for each in found if each.cluster == cluster]
    assert cluster == members[0].key, "called as its riskiest item"
    assert len({(each.category, each.attribute, each.stated, each.seen) for each in members}) == 1
    alone = [each for each in found if each.cluster and [e.cluster for e in found].count(each.cluster) == 1]
    assert not alone


def label_desk(desk: Desk, *items: Item) -> Desk:
    desk.fill(items, bundle="b1", taxonomy=TAXONOMY, layout=NAMED, second=0)
    return desk


def test_labels_alone_and_where_they_come_from(desk: Desk, tmp_path: Path):
    lid = {"attribute": "lid", "stated": None, "seen": "yes", "values": ("yes", "no"), "not_applicable": "no"}
    other = replace(item(1, **lid), key="lid-of-1")
    label_desk(desk, item(1, photo=tmp_path / "1.jpg"), other, item(2), item(3), item(4))
    desk.decide("ann", item(1).key, "correct", "blue")
    desk.decide("ann", "lid-of-1", "not_applicable")
    desk.decide("ann", item(2).key, "not_visible")
    desk.decide("ann", item(3).key, "accept")
    desk.decide("ann", item(4).key, "accept")
    desk.decide("ben", item(4).key, "correct", "red")
    labels = labels_of(desk)
    assert labels.counts() == {"label": 2, "not applicable": 1, "not visible": 1, "disagreed": 1}
    labels.write(tmp_path / "labels.csv")
    assert read_table(tmp_path / "labels.csv").frame.rows() == [
        ("001", "Cups", str(tmp_path / "1.jpg"), "blue", "no"),
        ("003", "Cups", None, "green", None),
    ]
    came = pl.read_csv(tmp_path / "labels.provenance.csv", infer_schema=False)
    assert came.height == 5
    first = came.row(0, named=True)
    assert (first["before"], first["value"], first["reviewer"], first["model"]) == (
        "red",
        "blue",
        "ann",
        "b1",
    )
    assert first["hash"] == desk.verdicts()[0].hash
    assert came.filter(pl.col("state") == "disagreed")["reviewer"].item() == "ann;ben"
    desk.decide("cem", item(4).key, "accept")
    assert labels_of(desk).counts()["label"] == 3, "a third one settles it"


def test_labels_onto_a_table(desk: Desk, tmp_path: Path):
    moved = Item(
        key_of("002", "", ""), "002", "Cups", "", "", None, "Cups", "Plates", None, None, None, "category?",
        "category?", 0.5, "", (), ("Cups", "Plates"),
    )  # fmt: skip
    label_desk(desk, item(1), moved, item(3), item(9))
    desk.decide("ann", item(1).key, "correct", "blue")
    desk.decide("ann", moved.key, "accept")
    desk.decide("ann", item(3).key, "not_applicable")
    desk.decide("ann", item(9).key, "accept")
    table = tmp_path / "table.csv"
    table.write_text(
        "id,note,category,colour,lid\n001,'=a,Cups,red,yes\n002,b,Cups,red,yes\n003,c,Cups,red,\n"
    )
    lost = labels_of(desk).write(tmp_path / "out.csv", onto=table)
    assert lost == ("009",)
    assert (tmp_path / "out.csv").read_text() == (
        "id,note,category,colour,lid\n001,'=a,Cups,blue,yes\n002,b,Plates,red,\n003,c,Cups,,\n"
    )
    with pytest.raises(DeskError, match="every product has a category"):
        desk.decide("ann", moved.key, "not_applicable")
    table.write_text("id,category,colour,lid\n001,Cups,red,\n001,Cups,red,\n")
    with pytest.raises(CatalogError, match=r"rows 1 and 2: the id '001'"):
        Labels(labels_of(desk).items[:1], TAXONOMY, NAMED).onto(read_table(table))
    table.write_text("id,category\n001,Cups\n")
    with pytest.raises(CatalogError, match="has no column"):
        labels_of(desk).onto(read_table(table))


def test_labels_in_the_challenge_layout(desk: Desk):
    layout = Layout("challenge", "id", "Category", ("attr_1", "attr_2"), "dummy_value")
    desk.fill([item(1)], bundle="b1", taxonomy=TAXONOMY, layout=layout, second=0)
    desk.decide("ann", item(1).key, "accept")
    frame = labels_of(desk).frame()
    assert frame.columns == ["id", "Category", "len", "attr_1", "attr_2"]
    assert frame.rows() == [("001", "Cups", "2", "green", "dummy_value")]


def test_a_desk_without_labels(desk: Desk):
    with pytest.raises(DeskError, match="nothing was put on this desk"):
        labels_of(desk)
    desk.fill([item(1)], bundle="b1", taxonomy=TAXONOMY)
    with pytest.raises(DeskError, match="layout"):
        labels_of(desk)
    desk.fill([item(1)], bundle="b1", taxonomy=TAXONOMY, layout=NAMED)
    assert labels_of(desk).frame().height == 0
    desk.fill([item(2)], bundle="b2", taxonomy=TAXONOMY.marked(["red"]), layout=NAMED)
    with pytest.raises(DeskError, match="different taxonomies"):
        labels_of(desk)


def test_label_studio_there_and_back(desk: Desk, tmp_path: Path):
    label_desk(desk, *(item(n, photo=tmp_path / f"{n}.jpg") for n in range(1, 6)))
    desk.decide("ann", item(5).key, "not_visible")
    path = tmp_path / "tasks.json"
    assert write_tasks(desk, path, photos="http://here/") == 5
    assert path.with_suffix(".xml").read_text() == CONFIG
    given = json.loads(path.read_text())
    assert [task["data"]["id"] for task in given] == ["005", "004", "003", "002", "001"]
    assert given[1]["data"]["image"] == "http://here/4.jpg"
    assert {"value": "(not visible)"} in given[1]["data"]["options"]
    (guess,) = given[1]["predictions"][0]["result"]
    assert guess["value"]["choices"] == ["green"]
    assert read_tasks(desk, path) == (), "what the desk said itself is not said twice"

    def said(task: int, value: str, **more: object) -> None:
        chosen = {"from_name": "value", "to_name": "image", "type": "choices", "value": {"choices": [value]}}
        given[task]["annotations"] = [
            {"id": task, "result": [chosen], "completed_by": {"email": "eve@x"}} | more
        ]

    said(1, "green")
    said(2, "blue")
    said(3, "(not applicable)", completed_by=7)
    given[4]["annotations"] = [{"id": 4, "was_cancelled": True, "result": [], "completed_by": {"id": 3}}]
    path.write_text(json.dumps(given))
    new = read_tasks(desk, path)
    assert [(each.reviewer, each.kind, each.after) for each in new] == [
        ("eve@x", "accept", "green"),
        ("eve@x", "correct", "blue"),
        ("7", "not_applicable", None),
        ("3", "skip", None),
    ]
    assert read_tasks(desk, path) == ()
    said(2, "red")
    path.write_text(json.dumps(given))
    assert [each.after for each in read_tasks(desk, path)] == ["red"], (
        "an annotation that was changed is a new verdict"
    )
    assert desk.verify() == ()


def test_annotations_that_cannot_be_taken_leave_nothing(desk: Desk, tmp_path: Path):
    label_desk(desk, *map(item, range(1, 4)))
    path = tmp_path / "tasks.json"
    given = tasks(desk)
    for task, value in zip(given, ("mauve", "green", "green"), strict=True):
        chosen = {"from_name": "value", "value": {"choices": [value]}}
        task["annotations"] = [{"id": 1, "result": [chosen], "completed_by": 1}]
    given[1]["data"]["key"] = "elsewhere"
    given[2]["annotations"][0]["completed_by"] = None
    path.write_text(json.dumps(given))
    with pytest.raises(DeskError, match=r"(?s)task 1: .*'mauve'.*task 2: .*elsewhere.*task 3: .*--reviewer"):
        read_tasks(desk, path)
    assert desk.verdicts() == ()
    path.write_text("{}")
    with pytest.raises(DeskError, match="no list of tasks"):
        read_tasks(desk, path)


def test_what_to_label_next(bundle: Bundle, catalog: Catalog, machine: Machine, planted: Planted):
    found = label_next(bundle, catalog, 12, machine=machine)
    frame = found.frame()
    assert frame["label.rank"].to_list() == list(range(1, 13))
    assert len(set(frame["id"].to_list())) == 12
    gains = frame["label.gain"].to_list()
    assert gains == sorted(gains, reverse=True)
    assert set(frame["id"].to_list()[:6]) == set(
        label_next(bundle, catalog, 6, machine=machine).frame()["id"]
    )
    for row in frame.iter_rows(named=True):
        assert row[row["label.attribute"]] is None, "a cell that states a value has nothing to teach"
        assert 0 < row["label.probability"] <= 1
    backwards = label_next(bundle, catalog.select(np.arange(len(catalog))[::-1]), 12, machine=machine)
    assert backwards.frame()["id"].to_list() == frame["id"].to_list(), "the order of the rows does not matter"


def test_what_was_learnt_from_is_not_asked_again(
    bundle: Bundle, toy: Toy, machine: Machine, one_thread: None
):
    assert len(label_next(bundle, bundle.read(toy.table), 5, machine=machine)) == 0
    with pytest.raises(UsageError, match="at least 1"):
        label_next(bundle, bundle.read(toy.table), 0, machine=machine)


def test_copies_of_a_product_are_not_chosen_twice(bundle: Bundle, planted: Planted, machine, one_thread):
    frame = pl.read_csv(planted.table, infer_schema=False).with_columns(
        colour=pl.lit(None, pl.String), pattern=pl.lit(None, pl.String), size=pl.lit(None, pl.String)
    )
    twice = pl.concat([frame, frame.with_columns(id=pl.col("id") + "-again")])
    found = label_next(bundle, bundle.read(twice, images=planted.table.parent), 20, machine=machine)
    names = [id_.removesuffix("-again") for id_ in found.frame()["id"].to_list()]
    assert len(names) == len(set(names)) == 20


def test_the_verbs(shell: Shell, saved: Path, planted: Planted, toy: Toy, tmp_path: Path, machine: Machine):
    place, shared = tmp_path / "desk.db", ["--cache", machine.cache, "--engine", "torch", "--jobs", 1]
    wrong = shell("labels", "queue", saved, planted.table, "--desk", place, "--supplier", "seler", *shared)
    assert (wrong.code, "seller" in wrong.err, place.exists()) == (2, True, False)
    learnt = ["--reference", toy.table, "--reference-images", toy.directory]
    first = shell(
        "labels", "queue", saved, planted.table, "--desk", place, "--supplier", "seller", *learnt, *shared
    )
    assert first.code == 0
    with Desk.open(place) as desk:
        near = [each for item in desk.waiting() for each in item.look_alikes]
        assert near
        assert all(each.photo for each in near)
    assert "items, " in first.out
    again = shell("labels", "queue", saved, planted.table, "--desk", place, *shared)
    assert " 0 of them new" in again.out
    with Desk.open(place) as desk:
        for _ in range(6):
            found = desk.next("ann")
            desk.decide("ann", found.key, "accept")
    out = tmp_path / "fixed.csv"
    done = shell("labels", "export", place, "-o", out, "--onto", planted.table)
    assert (done.code, "label: 6" in done.out) == (0, True)
    fixed = {row["id"]: row["colour"] for row in pl.read_csv(out, infer_schema=False).iter_rows(named=True)}
    assert {id_: fixed[id_] for id_ in planted.wrong} == {
        id_: right for id_, (right, _) in planted.wrong.items()
    }
    assert Catalog.read(out, images=planted.table.parent).labelled.any()
    studio = shell("labels", "export", place, "-o", tmp_path / "tasks.json", "--format", "label-studio")
    assert studio.code == 0
    assert "recorded 0 verdicts" in shell("labels", "import", place, tmp_path / "tasks.json").out
    following = shell("labels", "next", saved, planted.table, "-k", 5, "-o", tmp_path / "next.csv", *shared)
    assert "5 of 90 products" in following.out
    assert pl.read_csv(tmp_path / "next.csv").height == 5
    whole = shell("labels", "verify", place)
    assert (whole.code, "6 records" in whole.out) == (0, True)
    assert shell("labels", "verify", place, "--head", "0000").code == 2
    assert "labels are written to .csv" in shell("labels", "export", place, "-o", tmp_path / "a.txt").message
    assert "there is no desk" in shell("labels", "verify", tmp_path / "none.db").message
