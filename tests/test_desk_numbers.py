"""Numbers on the review desk: a price far outside its range is asked, accepted, kept or corrected, and exported."""

from pathlib import Path

import polars as pl
import pytest

import number_samples as samples
from desks import TAXONOMY
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.errors import DeskError, UsageError
from shelfwise.predictions import Machine
from shelfwise.roles import Layout
from shelfwise.service.desk import Desk
from shelfwise.service.doubts import REASONS, Weighing, items_of
from shelfwise.service.items import Item, key_of, outcome, plain_number
from shelfwise.service.label_studio import tasks
from shelfwise.service.labels import labels_of
from shelfwise.taxonomy import Number, Taxonomy

PRICED = Taxonomy({name: (*TAXONOMY.entries[name], Number("price")) for name in TAXONOMY.entries})
LAYOUT = Layout("named", "id", "category", ("colour", "lid", "price"))


def price(id_: str, stated: str, seen: str | None) -> Item:
    """A stated price that is doubted."""
    return Item(
        key_of(id_, "Cups", "price"), id_, "Cups", "price", "", None, stated, seen, None, None, None, "answered",
        "mismatch", 0.9, "", (), (), number=True, expected="too much is stated",
    )  # fmt: skip


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return samples.priced_table(tmp_path_factory.mktemp("priced"))


@pytest.fixture(scope="module")
def learnt(priced: Path, machine: Machine) -> tuple[Bundle, Catalog]:
    catalog = samples.read(priced, only=False)
    return samples.fitted(catalog, machine, only=False), catalog


def test_prices_far_outside_their_range_are_asked(learnt: tuple[Bundle, Catalog], machine: Machine):
    bundle, catalog = learnt
    found = {each.id: each for each in items_of(bundle, catalog, machine=machine) if each.number}
    assert set(found) == {catalog.ids[row] for row in samples.SLIPPED}
    for row, times in samples.SLIPPED.items():
        item, stated = found[catalog.ids[row]], float(catalog.numbers("price")[row])
        assert (item.attribute, item.reason, item.values) == ("price", "mismatch", ())
        assert float(item.stated or "nan") == stated
        assert float(item.seen or "nan") == pytest.approx(stated / times)
        assert "of such products lie between" in item.expected
        assert 0.5 * REASONS["mismatch"] < item.risk <= REASONS["mismatch"]
        told = [float(near.value) for near in item.look_alikes if near.value is not None]
        assert told
        assert set(told) <= set(catalog.numbers("price"))
    heavy = Weighing({"price": 3.0}, {"mismatch": 1.0})
    weighed = {
        each.id: each.risk for each in items_of(bundle, catalog, heavy, machine=machine) if each.number
    }
    assert weighed == {id_: pytest.approx(each.risk * 3 / REASONS["mismatch"]) for id_, each in found.items()}


def test_what_can_be_said_of_a_number(tmp_path: Path):
    with Desk.open(tmp_path / "desk.sqlite") as desk:
        items = [
            price("1", "2990", "299"),
            price("2", "12", None),
            price("3", "7", "70"),
            price("4", "5", "50"),
        ]
        desk.fill(items, bundle="b", taxonomy=PRICED, layout=LAYOUT, second=0.0)
        one, two, three, four = (item.key for item in items)
        assert desk.decide("ann", one, "accept").after == "299"
        verdict = desk.decide("ann", two, "correct", "1,299.50", token="t")
        assert verdict.after == "1299.5"
        assert desk.decide("ann", two, "correct", "1299.5", token="t") == verdict
        with pytest.raises(DeskError, match="named another act"):
            desk.decide("ann", two, "correct", "1299", token="t")
        kept = desk.decide("ann", three, "correct", "7.00")
        assert outcome(items[2], kept) == ("stated", None)
        desk.decide("ann", four, "not_applicable")
        for wrong in ("cheap", "", "nan", "1e999", "1,2"):
            with pytest.raises(DeskError, match="is not a number"):
                desk.decide("bob", one, "correct", wrong)
        with pytest.raises(DeskError, match="no value is seen"):
            desk.decide("bob", two, "accept")
        frame = pl.DataFrame({"id": list("1234"), "price": ["2990", "12", "7", "5"]})
        table = frame.with_columns(category=pl.lit("Cups"), colour=pl.lit("red"), lid=pl.lit("no"))
        table.write_csv(tmp_path / "table.csv")
        labels = labels_of(desk)
        assert labels.frame().select("id", "price", "colour").rows() == [
            ("1", "299", None),
            ("2", "1299.5", None),
            ("3", "7", None),
            ("4", None, None),
        ]
        labels.write(tmp_path / "onto.csv", onto=tmp_path / "table.csv")
        onto = pl.read_csv(tmp_path / "onto.csv", infer_schema=False)
        assert onto["price"].to_list() == ["299", "1299.5", "7", None]
        assert onto["colour"].to_list() == ["red"] * 4
        options = {task["data"]["id"]: task["data"]["options"] for task in tasks(desk)}
        assert [option["value"] for option in options["1"]][:2] == ["2990", "299"]


def test_numbers_are_read_as_a_table_reads_them():
    read = {"1,299.50": "1299.5", " 12 ": "12", "0.10": "0.1", "12,34,567": "1234567", "a": None, "": None}
    assert {text: plain_number(text) for text in read} == read


@pytest.mark.parametrize(
    ("weighing", "message"),
    [
        ({"reasons": {"mismach": 2.0}}, "no item is asked for the reason 'mismach'. Did you mean 'mismatch'"),
        ({"reasons": {"unsure": 0.0}}, "the weight of 'unsure' is 0.0"),
        ({"attributes": {"price": -1.0}}, "the weight of 'price' is -1.0"),
    ],
)
def test_weights_that_are_none(weighing: dict[str, dict[str, float]], message: str):
    with pytest.raises(UsageError, match=message):
        Weighing(**weighing)
