"""The review pages over HTTP: verdicts by form, who may ask, what a page never holds."""

import io
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from PIL import Image

import review_samples as samples
from page_samples import HOSTILE
from review_server import application
from shelfwise.service import review_view as view
from shelfwise.service.desk import Desk
from shelfwise.service.keys import FRESH, KeyRing
from shelfwise.service.verdicts import Verdict

HOST = "http://127.0.0.1:8000"
ORIGIN = {"Origin": HOST}
FIELD = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    place = samples.fill(tmp_path / "desk.sqlite", [samples.item(tmp_path, number) for number in range(6)])
    with Desk.open(place) as opened:
        yield opened


def browser_of(desk: Desk, name: str | None = "Ann", secret: str | None = None) -> TestClient:
    """A browser that keeps cookies, under a name or with a key."""
    client = TestClient(application(desk, Path(desk.place).with_suffix(".keys")), base_url=HOST)
    if name is not None:
        assert client.post("/review/name", data={"name": name}, headers=ORIGIN).status_code == 200
    if secret is not None:
        client.post("/review/enter", data={"key": secret}, headers=ORIGIN)
    return client


@pytest.fixture
def client(desk: Desk) -> TestClient:
    return browser_of(desk)


def fields(page: str, action: str = "/review/decide") -> dict[str, str]:
    """The hidden fields of the first form with this action."""
    form = page.split(f'action="{action}"', 1)[1].split("</form>", 1)[0]
    return dict(FIELD.findall(form))


def send(client: TestClient, answer: str, page: str | None = None, **more: str):  # type: ignore[no-untyped-def]
    """Press a button of the page, by default of the next item's."""
    page = page or client.get("/review").text
    return client.post("/review/decide", data=fields(page) | {"answer": answer} | more, headers=ORIGIN)


class Outline(HTMLParser):
    """The tags and attributes of a page, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_name_is_asked_for_and_kept_where_scripts_cannot_read_it(desk: Desk):
    client = browser_of(desk, name=None)
    assert client.get("/review").url.path == "/review/name"
    assert (
        client.post("/review/decide", data={"token": "12345678"}, headers=ORIGIN).url.path == "/review/name"
    )
    for bad in ("", "  ", "a" * 61, "a\x07b", "\u202eeve"):
        refused = client.post("/review/name", data={"name": bad}, headers=ORIGIN)
        assert refused.status_code == 422
        assert "cookie" not in " ".join(refused.headers)
    answer = client.post(
        "/review/name", data={"name": " Zoë   Ångström "}, headers=ORIGIN, follow_redirects=False
    )
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/review"))
    assert "Zoë Ångström" in client.get("/review").text
    send(client, "accept")
    assert desk.verdicts()[0].reviewer == "Zoë Ångström"


@pytest.mark.parametrize(
    ("answer", "typed", "kind", "after"),
    [
        ("accept", "", "accept", "Red"),
        ("stated", "", "correct", "Green"),
        ("runner_up", "", "correct", "Blue"),
        ("typed", "Mustard", "correct", "Mustard"),
        ("typed", " navy  BLUE ", "correct", "Navy blue"),
        ("typed", "red", "accept", "Red"),
        ("not_applicable", "", "not_applicable", None),
        ("not_visible", "", "not_visible", None),
        ("skip", "", "skip", None),
    ],
)
def test_every_button_records_what_it_says(
    desk: Desk, client: TestClient, answer: str, typed: str, kind: str, after: str | None
):
    page = client.get("/review").text
    riskiest = desk.waiting()[0]
    answered = send(client, answer, page, value=typed)
    assert answered.status_code == 200
    (verdict,) = desk.verdicts()
    assert (verdict.item, verdict.reviewer, verdict.kind, verdict.after) == (riskiest.key, "Ann", kind, after)
    assert (verdict.before, verdict.model) == ("Green", "b" * 64)
    assert fields(answered.text)["key"] != riskiest.key
    said = re.search(r'<p class="said">(.*?)</p>', answered.text)
    assert said
    assert riskiest.id in said[1]
    if after:
        assert after in said[1]


def test_a_form_that_is_sent_twice_counts_once(desk: Desk, client: TestClient):
    page = client.get("/review").text
    first, second = send(client, "accept", page), send(client, "accept", page)
    assert (first.status_code, second.status_code) == (200, 200)
    other = send(client, "skip", page)
    assert other.status_code == 409
    assert "Nothing was recorded" in other.text
    assert len(desk.verdicts()) == 1
    form = fields(first.text, "/review/undo")
    for _ in range(2):
        assert client.post("/review/undo", data=form, headers=ORIGIN).status_code == 200
    assert [verdict.kind for verdict in desk.verdicts()] == ["accept", "undo"]
    assert desk.verify() == ()


def test_what_changed_since_it_was_shown_is_shown_again(desk: Desk, client: TestClient):
    page = client.get("/review").text
    item = desk.waiting()[0]
    desk.fill([replace(item, seen="Mustard")], bundle="c" * 64, taxonomy=samples.TAXONOMY)
    for answer in ("accept", "stated", "not_visible"):
        answered = send(client, answer, page)
        assert answered.status_code == 422
        assert "changed since you saw it" in answered.text
    assert "Mustard" in answered.text
    assert desk.verdicts() == ()
    send(client, "accept", answered.text)
    assert desk.verdicts()[0].after == "Mustard"


@pytest.mark.parametrize(
    ("typed", "hint"), [("Mustrad", "Mustard"), ("plaid", None), ("", None), ("x" * 900, None)]
)
def test_a_value_that_is_none_is_not_recorded(desk: Desk, client: TestClient, typed: str, hint: str | None):
    answered = send(client, "typed", value=typed)
    assert answered.status_code == 422
    assert f"{typed!r} is not a value of colour" in Outline(answered.text).text
    assert ("Did you mean" in answered.text) == (hint is not None)
    assert ("It has:" in Outline(answered.text).text) == (hint is None)
    kept = [attributes for tag, attributes in Outline(answered.text).tags if attributes.get("id") == "value"]
    assert kept[0]["value"] == typed
    assert desk.verdicts() == ()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": HOST, "Sec-Fetch-Site": "cross-site"},
        {"Origin": HOST, "Sec-Fetch-Site": "same-site"},
        {"Referer": HOST + "/review"},
    ],
)
@pytest.mark.parametrize("path", ["decide", "cluster", "undo", "name", "enter", "leave"])
def test_a_form_of_another_site_does_nothing(
    desk: Desk, client: TestClient, headers: dict[str, str], path: str
):
    form = fields(client.get("/review").text) | {"answer": "accept", "name": "Eve", "key": "k"}
    answered = client.post(f"/review/{path}", data=form, headers=headers)
    assert answered.status_code in (401, 403)
    assert "set-cookie" not in answered.headers
    assert desk.verdicts() == ()


def test_a_form_of_the_same_origin_by_either_header(desk: Desk, client: TestClient):
    form = fields(client.get("/review").text) | {"answer": "accept"}
    answered = client.post("/review/decide", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    assert answered.status_code == 200
    assert len(desk.verdicts()) == 1


def test_a_form_is_refused_by_its_length_before_it_is_read(client: TestClient):
    def endless() -> Iterator[bytes]:
        yield b"answer=accept"

    assert client.post("/review/decide", data={"value": "x" * 70_000}, headers=ORIGIN).status_code == 413
    assert client.post("/review/decide", content=endless(), headers=ORIGIN).status_code == 411


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("decide", {}),
        ("decide", {"token": "12345678", "key": "none"}),
        ("decide", {"token": "short"}),
        ("cluster", {"token": "12345678", "key": "\x00"}),
    ],
)
def test_a_form_with_holes_is_refused_with_a_page(
    desk: Desk, client: TestClient, path: str, form: dict[str, str]
):
    answered = client.post(f"/review/{path}", data=form, headers=ORIGIN)
    assert answered.status_code in (404, 422)
    assert '<main id="work"' in answered.text
    assert desk.verdicts() == ()


def test_photos_come_small_and_only_from_the_desk(desk: Desk, client: TestClient, tmp_path: Path):
    large = tmp_path / "photos" / "large.jpg"
    note = Image.Exif()
    note[0x010E] = "where the photographer lives"
    Image.new("RGB", (3000, 1500), "#808080").save(large, exif=note)
    item = replace(desk.waiting()[0], photo=large)
    desk.fill([item], bundle="b" * 64, taxonomy=samples.TAXONOMY)
    for side in view.SIDES:
        answered = client.get(view.photo_address(item, side))
        assert answered.headers["content-type"] == "image/jpeg"
        shown = Image.open(io.BytesIO(answered.content))
        assert shown.size == (side, side // 2)
        assert b"photographer" not in answered.content
    assert client.get(view.photo_address(item, 220, alike=1)).status_code == 200
    secret = tmp_path / "secret.jpg"
    Image.new("RGB", (9, 9)).save(secret)
    for key, side, alike in (
        (str(secret), "220", ""),
        ("../secret.jpg", "220", ""),
        (item.key, "221", ""),
        (item.key, "220", "3"),
        (item.key, "220", "-1"),
    ):
        query = {"key": key, "side": side} | ({"alike": alike} if alike else {})
        answered = client.get("/review/photo", params=query | {"photo": str(secret), "path": str(secret)})
        assert answered.status_code == 404, (key, side, alike)
        assert answered.headers["content-type"].startswith("text/html")


def test_a_map_is_drawn_over_the_photo_of_its_item_alone(desk: Desk, client: TestClient, tmp_path: Path):
    first, second = desk.waiting()[:2]
    heated = replace(first, heat=samples.heat(3, 0))
    desk.fill([heated], bundle="b" * 64, taxonomy=samples.TAXONOMY)
    outline = Outline(client.get("/review").text)
    (box,) = (held for tag, held in outline.tags if tag == "input" and held.get("id") == "heat")
    assert (box["type"], box["data-key"]) == ("checkbox", "h")
    assert f"Where {first.seen} comes from" in outline.text
    shown = [held for tag, held in outline.tags if tag == "img" and "heat=1" in str(held.get("src"))]
    assert [held["loading"] for held in shown] == ["lazy"]
    assert f"{first.attribute} {first.seen}" in str(shown[0]["alt"])
    assert "12% of its width and 88% of its height" in str(shown[0]["alt"])
    answered = client.get(view.photo_address(heated, 900, heat=True))
    assert answered.headers["content-type"] == "image/jpeg"
    drawn = Image.open(io.BytesIO(answered.content)).convert("RGB")
    red, _, blue = drawn.getpixel((10, drawn.height - 10))
    assert red - blue > 60
    assert drawn.getpixel((drawn.width - 10, 10)) == pytest.approx((230, 226, 220), abs=30)
    assert client.get(view.photo_address(second, 900, heat=True)).status_code == 404
    assert 'id="heat"' not in client.get(f"/review?item={second.key}").text


def test_a_photo_that_is_gone_or_broken_is_said_to_be(desk: Desk, client: TestClient, tmp_path: Path):
    broken = tmp_path / "photos" / "broken.jpg"
    broken.write_bytes(b"<html>not found</html>")
    for photo in (broken, tmp_path / "gone.jpg", None):
        item = replace(desk.waiting()[0], photo=photo)
        desk.fill([item], bundle="b" * 64, taxonomy=samples.TAXONOMY)
        assert client.get(view.photo_address(item, 900)).status_code == 404
        page = client.get("/review").text
        assert ("No photo" in page) == (photo != broken)


def test_what_a_supplier_sends_is_text_on_every_page(tmp_path: Path):
    items = samples.hostile(tmp_path)
    with Desk.open(samples.fill(tmp_path / "desk.sqlite", items, second=1.0)) as desk:
        client, second = browser_of(desk), browser_of(desk, "Bob")
        pages = [client.get("/review", params={"item": item.key}).text for item in items]
        pages.append(client.get("/review", params={"category": HOSTILE[0], "attribute": HOSTILE[1]}).text)
        for item in items:
            page = client.get("/review", params={"item": item.key}).text
            pages.append(send(client, "accept", page).text)
            send(second, "stated", second.get("/review", params={"item": item.key}).text)
        pages.append(client.get("/review/progress", params={"verify": "1"}).text)
        pages.append(client.get("/review", params={"item": HOSTILE[0]}).text)
    for text, page in zip(HOSTILE, pages, strict=False):
        outline = Outline(page)
        shown = [
            attributes["value"]
            for tag, attributes in outline.tags
            if tag == "option" and "value" in attributes
        ]
        assert text.replace("\x00", "\ufffd") in [
            each.replace("\x00", "\ufffd") for each in shown if each is not None
        ]
        assert text.strip() in outline.text
    for page in pages:
        check_markup(page)


def check_markup(page: str) -> None:
    """A page holds two scripts by address, and nothing that runs or styles in its own markup."""
    outline = Outline(page)
    scripts = [attributes for tag, attributes in outline.tags if tag == "script"]
    assert [urlsplit(str(each.get("src"))).path.rsplit("/", 1)[-1] for each in scripts] == [
        "htmx.min.js",
        "review.js",
    ]
    for tag, attributes in outline.tags:
        assert tag not in ("style", "iframe", "object", "embed", "base")
        assert not any(name.startswith(("on", "hx-on")) or name == "style" for name in attributes)
        for name in ("href", "src", "action"):
            assert (attributes.get(name) or "/review").startswith(("/review", "#")), attributes


def test_every_answer_carries_the_policy(desk: Desk, client: TestClient):
    pages = ["", "/progress", "/name", "/nothing", "/static/review.js", "/static/nothing", "/photo"]
    pages.append(view.photo_address(desk.waiting()[0], 220).removeprefix("/review"))
    for path in pages:
        answered = client.get("/review" + path)
        if path == "/nothing":
            assert answered.status_code == 404
            continue
        policy = answered.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert answered.headers["referrer-policy"] == "same-origin"
        if "text/html" in answered.headers["content-type"]:
            check_markup(answered.text)
            assert answered.headers["cache-control"] == "no-store"


def test_who_signs_out_needs_the_key_again(desk: Desk):
    secret = KeyRing(Path(desk.place).with_suffix(".keys")).add("ann", ["review"])
    client = browser_of(desk, None, secret)
    assert 'action="/review/leave"' in client.get("/review").text
    left = client.post("/review/leave", headers=ORIGIN)
    assert left.status_code == 401
    assert "Sign in" in left.text
    assert "shelfwise_key" not in {cookie.name for cookie in client.cookies.jar}
    assert client.get("/review", headers={"Cookie": f"shelfwise_key={secret}"}).status_code == 200


def test_without_a_key_there_is_nothing_to_sign_out_of(client: TestClient):
    assert "/review/leave" not in client.get("/review").text


def test_with_keys_every_page_needs_one_with_the_scope(desk: Desk):
    ring = KeyRing(Path(desk.place).with_suffix(".keys"))
    good, weak = ring.add("ann", ["review"]), ring.add("bot", ["predict"])
    stranger = browser_of(desk, name=None)
    for path in ("", "/progress", "/name", "/photo?key=a&side=220", "/static/review.css"):
        answered = stranger.get("/review" + path)
        assert answered.status_code == 401
        assert "Sign in" in answered.text
        assert desk.waiting()[0].id not in answered.text
    for path in ("/decide", "/cluster", "/undo", "/name", "/enter"):
        assert stranger.post("/review" + path, headers=ORIGIN).status_code == 401
    digest = view.entry_style()[1]
    assert f"style-src 'sha256-{digest}'" in stranger.get("/review").headers["content-security-policy"]
    assert stranger.get("/review", headers={"Cookie": "shelfwise_reviewer=ann"}).status_code == 401
    assert browser_of(desk, None, weak).get("/review").status_code == 403
    assert browser_of(desk, None, "sw_wrong").get("/review").status_code == 401
    assert browser_of(desk, None, "a;b").get("/review").status_code == 401
    client = browser_of(desk, None, good)
    jar = {cookie.name: cookie for cookie in client.cookies.jar}
    assert jar["shelfwise_key"].path == "/review"
    assert jar["shelfwise_key"].has_nonstandard_attr("HttpOnly")
    client.post("/review/name", data={"name": "Eve"}, headers=ORIGIN)
    assert send(client, "accept").status_code == 200
    assert desk.verdicts()[0].reviewer == "ann"
    assert good not in client.get("/review").text
    page = client.get("/review").text
    ring.revoke("ann")
    time.sleep(2 * FRESH)
    assert send(client, "accept", page).status_code == 401
    assert len(desk.verdicts()) == 1
    ring.close()


def test_undo_shows_the_item_again(desk: Desk, client: TestClient):
    undo = fields(client.get("/review").text, "/review/undo")
    nothing = client.post("/review/undo", data=undo, headers=ORIGIN)
    assert "nothing of yours to take back" in nothing.text
    key = desk.waiting()[0].key
    page = send(client, "stated").text
    again = client.post("/review/undo", data=fields(page, "/review/undo"), headers=ORIGIN)
    assert fields(again.text)["key"] == key
    assert "Taken back." in again.text
    assert desk.standing(key) == ()


def test_a_group_is_accepted_at_once(tmp_path: Path):
    items = [samples.item(tmp_path, number) for number in range(4)]
    group = [
        samples.item(tmp_path, 30 + 6 * number, cluster="alike", risk=2 - number / 10) for number in range(3)
    ]
    with Desk.open(samples.fill(tmp_path / "desk.sqlite", [*items, *group])) as desk:
        client = browser_of(desk)
        page = client.get("/review").text
        assert "3 items like this one" in page
        stale = fields(page, "/review/cluster") | {"shown": "0"}
        assert client.post("/review/cluster", data=stale, headers=ORIGIN).status_code == 422
        assert desk.verdicts() == ()
        for _ in range(2):
            done = client.post("/review/cluster", data=fields(page, "/review/cluster"), headers=ORIGIN)
            assert "Recorded for 3 items" in done.text
        verdicts = desk.verdicts()
        assert sorted(verdict.item for verdict in verdicts) == sorted(item.key for item in group)
        assert {verdict.after for verdict in verdicts} == {group[0].seen}
        assert 'action="/review/cluster"' not in done.text


def test_filters_hold_until_they_are_cleared(desk: Desk, client: TestClient):
    page = client.get("/review", params={"category": "Kurtis", "supplier": ""}).text
    asked = 0
    while 'action="/review/decide"' in page:
        assert desk.item(fields(page)["key"]).category == "Kurtis"
        answered = send(client, "accept", page)
        assert parse_qs(urlsplit(str(answered.url)).query)["category"] == ["Kurtis"]
        page, asked = answered.text, asked + 1
    assert asked == 3
    assert "Nothing is left under this filter" in page
    assert "3 items wait under other filters" in page


def test_two_reviewers_are_not_given_the_same_item(desk: Desk, client: TestClient):
    other = browser_of(desk, "Bob")
    ours, theirs = fields(client.get("/review").text), fields(other.get("/review").text)
    assert ours["key"] != theirs["key"]
    assert fields(client.get("/review").text)["key"] == ours["key"]
    assert ours["token"] != theirs["token"]


def test_progress_counts_and_a_changed_record_is_found(tmp_path: Path):
    place = samples.fill(tmp_path / "desk.sqlite", [samples.item(tmp_path, n) for n in range(6)], second=1.0)
    with Desk.open(place) as desk:
        ann, bob = browser_of(desk), browser_of(desk, "Bob")
        for key in [item.key for item in desk.waiting()][:2]:
            for client, answer in ((ann, "accept"), (bob, "accept" if key < "8" else "stated")):
                send(client, answer, client.get("/review", params={"item": key}).text)
        page = Outline(ann.get("/review/progress", params={"verify": "1"}).text).text
        agreement = desk.agreement()
        assert agreement.items == 2
        assert f"{len(agreement.disagreed)}" if agreement.disagreed else "Where two reviewers" not in page
        assert "33\u202f% of the review is done" in page
        assert "The chain verifies" in page
    tamper(place)
    with Desk.open(place) as desk:
        page = browser_of(desk).get("/review/progress", params={"verify": "1"}).text
    assert "The chain is broken" in page


def tamper(place: Path) -> None:
    """Change what a record says, as somebody with the file could."""
    import sqlite3

    with sqlite3.connect(place) as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE verdicts SET reviewer = 'Eve' WHERE seq = 1")
    connection.close()


def test_files_of_the_pages_are_the_listed_ones(client: TestClient):
    page = client.get("/review").text
    for name, (_, kind) in view.STATIC.items():
        address = view.static_address(name)
        assert address in page
        answered = client.get(address)
        assert answered.headers["content-type"] == kind
        assert "immutable" in answered.headers["cache-control"]
    for other in ("htmx.LICENSE.txt", "..%2freview.py", "review.py", ""):
        assert client.get(f"/review/static/{other}").status_code in (404, 307)
    licence = Path(view.__file__).parent / "static" / "htmx.LICENSE.txt"
    assert "Zero-Clause BSD" in licence.read_text(encoding="utf-8")


def test_the_help_lists_the_keys_that_the_page_has(tmp_path: Path):
    group = [
        samples.item(tmp_path, 6 * number, cluster="alike", heat=samples.heat(0, 0)) for number in range(2)
    ]
    with Desk.open(samples.fill(tmp_path / "desk.sqlite", group)) as desk:
        page = browser_of(desk).get("/review").text
    there = set(re.findall(r'data-key="(.)"', page)) - {"+", "-"}
    assert there == {key.lower() for key, _ in view.KEYS}
    assert len(re.findall(r'data-key="(?![cnvsa-z]?")', page)) <= 3


def test_a_number_is_asked_for_and_typed(tmp_path: Path):
    asked = replace(
        samples.item(tmp_path, 0), attribute="price", stated="2990", seen="299", probability=None, runner_up=None,
        runner_up_probability=None, values=(), number=True, reason="mismatch", expected="10 to 20 is usual",
    )  # fmt: skip
    with Desk.open(samples.fill(tmp_path / "desk.sqlite", [asked])) as desk:
        client = browser_of(desk)
        page = client.get("/review").text
        assert "10 to 20 is usual." in page
        assert "<datalist" not in page
        assert 'inputmode="decimal"' in page
        assert [(each.answer, each.role, each.value) for each in view.rivals(asked)] == [
            ("accept", "Would fit", "299"),
            ("stated", "Stated", "2990"),
        ]
        refused = send(client, "typed", value="dear")
        assert refused.status_code == 422
        assert "is not a number" in refused.text
        assert not desk.verdicts()
        assert send(client, "typed", value="1,150").status_code == 200
        assert desk.verdicts()[0].after == "1150"


def test_a_value_is_offered_once(tmp_path: Path):
    item = samples.item(tmp_path, 0)
    offered = {rival.answer: rival for rival in view.rivals(item)}
    assert set(offered) == {"accept", "stated", "runner_up"}
    assert offered["stated"].probability is None
    same = view.rivals(replace(item, stated=item.runner_up))
    assert [(rival.answer, rival.probability) for rival in same][1:] == [
        ("stated", item.runner_up_probability)
    ]
    agreed = view.rivals(replace(item, stated=item.seen))
    assert [rival.answer for rival in agreed] == ["accept", "runner_up"]
    assert "Stated" in agreed[0].role
    assert [rival.answer for rival in view.rivals(replace(item, stated="Teal"))] == ["accept", "runner_up"]
    nothing = replace(item, seen=None, stated=None, runner_up=None)
    assert view.rivals(nothing) == ()
    assert isinstance(view.act(nothing, "accept"), str)


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (0.001, "< 1"), (0.5, "50"), (0.999, "> 99"), (1, "100"), (0.3333, "33")]
)
def test_per_cent_is_never_none_or_all_of_what_is_neither(share: float, text: str):
    assert view.percent(share) == f"{text}\u202f%"


def test_the_sentence_is_about_the_own_verdict(tmp_path: Path):
    item = samples.item(tmp_path, 0)
    said = Verdict(1, item.key, "Ann", "", "not_visible", None, None, "", "", "", None, "", "")
    assert view.recorded(item, [said], "Ann", 0) == "Recorded: colour of SKU-1000 is not visible."
    assert view.recorded(item, [said], "Bob", 0) == "Skipped: colour of SKU-1000."
