"""The review desk, on SQLite and on PostgreSQL: order, leases, verdicts, undo, agreement, and the chain."""

import json
import re
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from desks import TAXONOMY, binaries, item, postgres
from shelfwise.errors import DeskError, UsageError
from shelfwise.service import ledger
from shelfwise.service.databases import connect, shown, translated
from shelfwise.service.desk import Desk, Filters, LookAlike
from shelfwise.service.items import cohens_kappa, from_json, shown_twice, to_json
from shelfwise.service.verdicts import broken

Fill = Callable[..., Desk]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    programs = binaries()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here")
    with postgres(programs) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "desk.db")
    address = str(request.getfixturevalue("server"))
    database = connect(address)
    with database.writing() as session:
        session.run("DROP SCHEMA public CASCADE")
        session.run("CREATE SCHEMA public")
    database.close()
    return address


@pytest.fixture
def fill(place: str) -> Iterator[Fill]:
    opened = []

    def of(*items: object, second: float = 0.0, bundle: str = "b1") -> Desk:
        desk = Desk.open(place)
        opened.append(desk)
        desk.fill(items, bundle=bundle, taxonomy=TAXONOMY, second=second)  # type: ignore[arg-type]
        return desk

    yield of
    for desk in opened:
        desk.close()


def test_the_riskiest_comes_first_and_nobody_is_given_what_another_holds(fill: Fill):
    desk = fill(*map(item, range(1, 4)))
    assert desk.next("ann") == item(3)
    assert desk.next("ben") == item(2)
    assert desk.next("ann") == item(3), "asking again is given the same"
    assert desk.next("cem") == item(1)
    assert desk.next("dan") is None
    desk.decide("ann", item(3).key, "accept")
    assert desk.next("ann") is None
    assert [each.id for each in desk.waiting()] == ["002", "001"]


def test_a_lease_runs_out(fill: Fill):
    desk = fill(item(1))
    assert desk.next("ann", lease=0.05) == item(1)
    assert desk.next("ben") is None
    time.sleep(0.06)
    assert desk.next("ben") == item(1)


def test_taking_another_item_lets_the_first_go(fill: Fill):
    desk = fill(item(1, attribute="lid"), item(2))
    assert desk.next("ann") == item(2)
    assert desk.next("ann", Filters(attribute="lid")).id == "001"
    assert desk.next("ben") == item(2)


def test_filters(fill: Fill):
    desk = fill(item(1, supplier="Acme"), item(2, reason="unsure"), item(3, category="Plates"), item(4))
    assert [each.id for each in desk.waiting(Filters(supplier="Acme"))] == ["001"]
    assert desk.next("ann", Filters(reason="unsure", category="Cups")).id == "002"
    assert [each.id for each in desk.waiting(Filters(supplier=""), limit=2)] == ["004", "003"]
    assert desk.next("ann", Filters(attribute="%' OR 1=1")) is None


@pytest.mark.parametrize(
    ("kind", "value", "after"),
    [
        ("accept", None, "green"),
        ("correct", "blue", "blue"),
        ("not_applicable", None, None),
        ("not_visible", None, None),
        ("skip", None, None),
    ],
)
def test_a_verdict_says_who_when_before_after_and_of_what(fill: Fill, kind, value, after):
    desk = fill(item(1))
    verdict = desk.decide("ann", item(1).key, kind, value)
    assert (verdict.reviewer, verdict.kind, verdict.before, verdict.after) == ("ann", kind, "red", after)
    assert (verdict.model, verdict.taxonomy, verdict.item) == ("b1", TAXONOMY.hash, item(1).key)
    assert verdict.at.endswith("+00:00")
    assert desk.verdicts() == (verdict,)
    assert desk.standing(item(1).key) == (() if kind == "skip" else (verdict,))


def test_what_cannot_be_said_is_refused_and_leaves_nothing(fill: Fill):
    desk = fill(item(1, seen=None))
    key = item(1).key
    for kind, value, message in (
        ("correct", "gren", "Did you mean 'green'"),
        ("correct", None, "It has: 'red', 'green', 'blue'"),
        ("accept", None, "no value is seen"),
        ("skip", "red", "only a correction has a value"),
        ("undo", None, "there is no verdict 'undo'"),
    ):
        with pytest.raises(DeskError, match=message):
            desk.decide("ann", key, kind, value)
    with pytest.raises(DeskError, match="no item 'nothing'"):
        desk.decide("ann", "nothing", "accept")
    with pytest.raises(DeskError, match="there is no item"):
        desk.item("\ud800")
    with pytest.raises(DeskError, match="needs a name"):
        desk.decide(" ", key, "accept")
    assert desk.verdicts() == ()


@pytest.mark.parametrize("odd", ["a\x00b", "\ud800", "x" * 201, "two\nlines"])
def test_names_that_no_record_can_hold_are_refused(fill: Fill, odd: str):
    desk = fill(item(1))
    for ask in (
        lambda: desk.next(odd),
        lambda: desk.decide(odd, item(1).key, "accept"),
        lambda: desk.decide("ann", odd, "accept"),
        lambda: desk.decide("ann", item(1).key, "accept", token=odd),
        lambda: desk.accept_cluster("ann", item(1).key, token=odd),
        lambda: desk.undo("ann", token=odd),
    ):
        with pytest.raises(DeskError, match="at most 200 printable characters"):
            ask()
    desk.decide("Zoë Łuk", item(1).key, "accept")
    assert [each.reviewer for each in desk.verdicts()] == ["Zoë Łuk"]
    assert desk.verify() == ()


def test_a_skip_is_for_its_reviewer_only(fill: Fill):
    desk = fill(item(1))
    desk.decide("ann", item(1).key, "skip")
    assert desk.next("ann") is None
    assert desk.next("ben") == item(1)
    assert desk.progress().left == 1


def test_a_repeated_request_is_recorded_once(fill: Fill):
    desk = fill(item(1), item(2))
    first = desk.decide("ann", item(1).key, "correct", "blue", token="t1")
    assert desk.decide("ann", item(1).key, "correct", "blue", token="t1") == first
    assert desk.decide("ben", item(1).key, "accept", token="t1").seq == 2, "tokens are each reviewer's own"
    for other in (
        lambda: desk.decide("ann", item(2).key, "correct", "blue", token="t1"),
        lambda: desk.decide("ann", item(1).key, "correct", "red", token="t1"),
        lambda: desk.undo("ann", token="t1"),
        lambda: desk.accept_cluster("ann", item(1).key, token="t1"),
    ):
        with pytest.raises(DeskError, match="named another act"):
            other()
    undone = desk.undo("ann", token="t2")
    assert desk.undo("ann", token="t2") == undone
    assert len(desk.verdicts()) == 3


def test_undo_is_a_record_and_goes_back_step_by_step(fill: Fill):
    desk = fill(item(1), item(2))
    assert desk.undo("ann") is None
    desk.decide("ann", item(1).key, "accept")
    desk.decide("ann", item(1).key, "correct", "blue")
    desk.decide("ben", item(2).key, "accept")
    undone = desk.undo("ann")
    assert (undone.kind, undone.before, undone.after, undone.undoes) == ("undo", "blue", "green", 2)
    assert [each.after for each in desk.standing(item(1).key)] == ["green"]
    assert desk.undo("ann").undoes == 1
    assert desk.undo("ann") is None
    assert desk.standing(item(1).key) == ()
    assert desk.next("ben") is None, "what was undone is held for who undid it"
    assert desk.next("ann") == item(1)
    assert [each.kind for each in desk.verdicts()] == ["accept", "correct", "accept", "undo", "undo"]
    assert desk.verify() == ()


def test_a_skip_can_be_taken_back(fill: Fill):
    desk = fill(item(1))
    desk.decide("ann", item(1).key, "skip")
    assert desk.undo("ann").item == item(1).key
    assert desk.next("ann") == item(1)


def test_a_cluster_is_accepted_and_undone_at_once(fill: Fill):
    alike = [item(number, cluster="c") for number in (1, 2, 3, 4)]
    desk = fill(*alike, item(5))
    desk.decide("ann", item(4).key, "correct", "red")
    assert desk.next("ben") == item(5)
    assert desk.next("cem") == alike[2]
    assert [each.id for each in desk.cluster(item(1).key)] == ["001", "003", "002"]
    assert [each.id for each in desk.cluster(item(1).key, "ann")] == ["001", "002"]
    said = desk.accept_cluster("ann", item(1).key, token="t")
    assert [(each.item, each.after) for each in said] == [(item(1).key, "green"), (item(2).key, "green")]
    assert desk.accept_cluster("ann", item(2).key, token="t") == said
    assert desk.undo("ann").item == item(1).key
    assert [each.kind for each in desk.verdicts()] == ["correct", "accept", "accept", "undo", "undo"]
    assert desk.progress().done == 1
    assert desk.accept_cluster("ann", item(5).key)[0].item == item(5).key, (
        "without a cluster it is the item alone"
    )
    assert desk.verify() == ()


def test_filling_again_renews_what_has_no_verdict(fill: Fill):
    desk = fill(item(1), item(2))
    desk.decide("ann", item(1).key, "accept")
    newer = [replace(item(number), seen="blue", risk=0.5) for number in (1, 2, 3)]
    assert desk.fill(newer, bundle="b2", taxonomy=TAXONOMY, second=0) == 1
    assert desk.item(item(1).key).seen == "green"
    assert desk.item(item(2).key).seen == "blue"
    assert desk.decide("ann", item(2).key, "accept").model == "b2"
    assert [name for name, _, _ in desk.bundles()] == ["b1", "b2"]
    desk.fill([item(4)], bundle="b1", taxonomy=TAXONOMY)
    assert [name for name, _, _ in desk.bundles()] == ["b2", "b1"]
    desk.fill([item(4)], bundle="b3", taxonomy=TAXONOMY)
    assert [name for name, _, _ in desk.bundles()] == ["b2", "b1", "b3"]
    assert desk.progress().left == 2
    with pytest.raises(UsageError, match="between 0 and 1"):
        desk.fill([], bundle="b", taxonomy=TAXONOMY, second=5)


def test_some_items_are_shown_to_two_and_how_they_agree(fill: Fill):
    desk = fill(*map(item, range(1, 5)), second=1.0)
    for number, first, second in (
        (4, "green", "green"),
        (3, "red", "red"),
        (2, "green", "red"),
        (1, "blue", None),
    ):
        desk.decide("ann", item(number).key, "correct", first)
        if second:
            assert desk.next("ben") == item(number)
            desk.decide("ben", item(number).key, "correct", second)
    found = desk.agreement()
    assert (found.items, found.agreed, found.disagreed) == (3, 2, (item(2).key,))
    assert found.share == pytest.approx(2 / 3)
    assert found.kappa == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))
    progress = desk.progress()
    assert (progress.done, progress.left) == (3, 1)
    assert progress.by_reviewer == (("ann", 4), ("ben", 3))
    assert desk.next("ann") is None, "nobody looks twice"


def test_progress_by_name(fill: Fill):
    desk = fill(item(1, supplier="Acme"), item(2, category="Plates"), item(3))
    desk.decide("ann", item(1).key, "not_visible")
    progress = desk.progress()
    tallies = [(each.name, each.done, each.left) for each in progress.by_category]
    assert tallies == [("Cups", 1, 1), ("Plates", 0, 1)]
    assert [(each.name, each.left) for each in progress.by_supplier] == [("", 2), ("Acme", 0)]
    assert (progress.by_attribute[0].name, progress.by_reason[0].name) == ("colour", "mismatch")


def test_reviewers_at_once_lose_and_double_nothing(fill: Fill, place: str):
    many = [item(number) for number in range(60)]
    fill(*many)
    names = ["ann", "ben", "cem"]

    def review(name: str) -> list[str]:
        said = []
        with Desk.open(place) as desk:
            while (found := desk.next(name)) is not None:
                said.append(desk.decide(name, found.key, "accept", token=f"{name}-{found.key}").item)
        return said

    with ThreadPoolExecutor(3) as threads:
        said = [key for part in threads.map(review, names) for key in part]
    assert sorted(said) == sorted(each.key for each in many)
    with Desk.open(place) as desk:
        assert [each.seq for each in desk.verdicts()] == list(range(1, 61))
        assert desk.verify() == ()


def test_threads_share_one_desk(fill: Fill):
    desk = fill(*map(item, range(30)))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: desk.decide(f"r{n % 3}", item(n % 30).key, "accept"), range(90)))
    assert len(desk.verdicts()) == 90
    assert desk.verify() == ()


#: Says verdicts one after the other until it is killed, and prints a line after the first.
REVIEWING = """
import sys
from shelfwise.service.desk import Desk
desk, keys = Desk.open(sys.argv[1]), sys.argv[2:]
for number in range(100_000):
    desk.decide("ann", keys[number % len(keys)], "correct", ("red", "blue")[number % 2], token=str(number))
    if not number:
        print("said", flush=True)
"""


def test_a_killed_process_leaves_whole_verdicts(fill: Fill, place: str):
    many = [item(number) for number in range(20)]
    desk = fill(*many)
    command = [sys.executable, "-c", REVIEWING, place, *(each.key for each in many)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"said\n"
        time.sleep(0.05)
        process.kill()
    said = desk.verdicts()
    assert [each.token for each in said] == [str(number) for number in range(len(said))]
    assert desk.verify() == ()
    assert desk.decide("ann", item(0).key, "correct", "red", token="0") == said[0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE verdicts SET after = 'blue' WHERE seq = 2", "record 2 .* was changed"),
        ("DELETE FROM verdicts WHERE seq = 2", "record 3 .* follows record 1"),
        ("DELETE FROM verdicts WHERE seq = 3", "record 3 stands on the desk, by the chain it is None"),
        ("UPDATE standing SET seq = 1 WHERE seq = 3", "record 1 stands on the desk, by the chain it is 3"),
        ("UPDATE items SET given = 7 WHERE id_ = 1", "the number of its verdicts is not what stands"),
        ("UPDATE verdicts SET reviewer = 'ben' WHERE seq = 1", "record 1 .* was changed"),
    ],
)
def test_tampering_is_found(fill: Fill, place: str, change: str, fault: str):
    desk = fill(*map(item, range(1, 4)))
    for number in (1, 2, 3):
        desk.decide("ann", item(number).key, "accept")
    assert desk.verify() == ()
    database = connect(place)
    with database.writing() as session:
        session.run(change.replace("id_ = 1", f"item = '{item(1).key}'"))
    database.close()
    found = desk.verify()
    assert any(re.search(fault, each) for each in found), found


def test_a_rewritten_record_breaks_every_later_link(fill: Fill):
    desk = fill(*map(item, range(1, 4)))
    for number in (1, 2, 3):
        desk.decide("ann", item(number).key, "accept")
    first, second, third = desk.verdicts()
    forged = replace(second, after="blue").sealed()
    assert broken((first, second, third)) == ()
    (fault,) = broken((first, forged, third))
    assert fault.startswith("record 3")


def test_a_place_that_is_no_desk(tmp_path: Path):
    (tmp_path / "text").write_text("not a database, and longer than a page header would be" * 4)
    with pytest.raises(DeskError, match="cannot be read or written"):
        Desk.open(tmp_path / "text")
    with pytest.raises(DeskError, match="there is no desk"):
        Desk.open(tmp_path / "none", new=False)
    with Desk.open(tmp_path / "desk.db") as desk:
        assert desk.next("ann") is None
        assert desk.agreement().share is None
    with sqlite3.connect(tmp_path / "desk.db") as other:
        other.execute("UPDATE desk SET value = '9'")
    other.close()
    with pytest.raises(DeskError, match="desk format '9' is not known"):
        Desk.open(tmp_path / "desk.db")


def test_a_server_that_is_not_there_is_named_without_its_password():
    pytest.importorskip("psycopg")
    with pytest.raises(DeskError) as caught:
        Desk.open("postgresql://ann:s3cret@127.0.0.1:1/desk")
    assert "s3cret" not in str(caught.value)
    assert str(caught.value).startswith("postgresql://127.0.0.1/desk")
    assert shown("desk.db") == "desk.db"


def test_a_lost_connection_is_made_again(fill: Fill, place: str):
    if not place.startswith("postgresql"):
        pytest.skip("a file has no connection to lose")
    desk = fill(item(1))
    other = connect(place)
    with other.writing() as session:
        session.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
        )
    other.close()
    with pytest.raises(DeskError, match="cannot be read or written"):
        desk.decide("ann", item(1).key, "accept", token="t")
    assert desk.decide("ann", item(1).key, "accept", token="t").seq == 1


def test_statements_mean_the_same_to_both():
    """A ``?`` or ``%`` inside a statement's own text would be taken for a value on one of the two."""
    source = Path(ledger.__file__).read_text() + Path(ledger.__file__).with_name("desk.py").read_text()
    statements = [
        line for line in source.splitlines() if any(word in line for word in ("SELECT", "INSERT", "UPDATE "))
    ]
    assert len(statements) > 20
    assert not [line for line in statements if "%" in line]
    assert translated("SELECT a FROM b WHERE c = ? AND d < ?") == "SELECT a FROM b WHERE c = %s AND d < %s"


def test_an_item_survives_being_written(tmp_path: Path):
    near = LookAlike("7", 0.9, "red", tmp_path / "7.jpg")
    whole = item(1, photo=tmp_path / "1.jpg", look_alikes=(near, LookAlike("8", 0.8)), probability=None)
    assert from_json(to_json(whole)) == whole
    heated = replace(whole, heat="AP8=")
    assert from_json(to_json(heated)) == heated
    with pytest.raises(DeskError, match="fill the desk again"):
        from_json("{}")


def test_items_written_before_there_were_maps_are_read(fill: Fill):
    desk = fill(item(1, heat="AP8="))
    with desk._database.writing() as session:
        (body,) = session.rows("SELECT body FROM items")[0]
        older = json.loads(body)
        assert older.pop("heat") == "AP8="
        session.run("UPDATE items SET body = ?", json.dumps(older))
    assert desk.next("ann") == item(1)
    desk.fill([item(1, heat="AP8=")], bundle="b1", taxonomy=TAXONOMY)
    assert desk.waiting()[0].heat == "AP8="


def test_the_share_shown_to_two_is_about_right():
    twice = Counter(shown_twice(item(number).key, 0.05) for number in range(4000))
    assert 140 < twice[True] < 260
    assert not any(shown_twice(item(number).key, 0.0) for number in range(100))


def test_kappa():
    assert cohens_kappa([]) is None
    assert cohens_kappa([("a", "a")] * 3) is None
    # Cohen's own arithmetic: 45 of 50 agree on yes/no with marginals 25/25 and 30/20.
    pairs = [("y", "y")] * 25 + [("n", "n")] * 20 + [("n", "y")] * 5
    assert cohens_kappa(pairs) == pytest.approx((0.9 - 0.5) / 0.5)
