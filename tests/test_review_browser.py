"""The review pages in a real browser: keys, type-ahead, two reviewers, a server that is killed, accessibility."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

import review_samples as samples
from page_samples import HOSTILE
from shelfwise.service.desk import Desk
from shelfwise.service.keys import KeyRing

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        words = ["--no-sandbox"] if samples.as_root() else []  # a sandbox cannot be made as root
        running = playwright.chromium.launch(executable_path=found, args=words)
        yield running
        running.close()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server over a desk with a group, texts that mean harm, an item without a photo, and finished ones."""
    directory = tmp_path_factory.mktemp("tour")
    group = [
        samples.item(
            directory, 6 * number, cluster="alike", risk=3 - number / 10, heat=samples.heat(2, number)
        )
        for number in range(3)
    ]
    bare = samples.item(directory, 100, photo=None, seen=None, probability=None, look_alikes=(), supplier="")
    category = samples.item(
        directory, 101, attribute="", reason="category?", probability=None, runner_up=None
    )
    plain = [samples.item(directory, number) for number in range(1, 30) if number % 6]
    items = [*group, bare, category, *samples.hostile(directory), *plain]
    place = samples.fill(directory / "desk.sqlite", items, second=0.4)
    with Desk.open(place) as desk:
        for key in [item.key for item in plain]:
            for name, value in (("Bea", "Red"), ("Cem", "Mustard")):
                desk.decide(name, key, "correct", value)
    port = samples.free_port()
    with samples.serving(place, port):
        yield f"http://127.0.0.1:{port}/review", place


class Visit:
    """A reviewer's browser window, what it asked for and what it complained of."""

    def __init__(self, browser: Any, home: str, name: str | None = "Ann", **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page, self.home = self.context.new_page(), home
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        if name is not None:
            self.page.goto(home)
            self.enter("#name", name)

    def enter(self, field: str, text: str) -> None:
        """Fill in the form before the pages, and wait until its answer hears keys."""
        self.page.fill(field, text)
        with self.page.expect_navigation(wait_until="load"):
            self.page.click("button.main")

    @property
    def key(self) -> str | None:
        """The item that is shown."""
        shown = self.page.locator("article.item")
        return shown.get_attribute("data-item") if shown.count() else None

    def press(self, *keys: str, wait: bool = True) -> None:
        """Press keys and wait for another item, or for none."""
        before = self.page.locator('#work input[name="token"]').first.get_attribute("value")
        for key in keys:
            self.page.keyboard.press(key)
        if wait:
            self.moved(before)

    def moved(self, before: str | None) -> None:
        """Wait until another page than the one with this token is shown."""
        other = f'#work input[name="token"]:not([value="{before}"])'
        self.page.wait_for_selector(other, state="attached")


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (390, "dark"), (1280, "dark"), (390, "light")]
)
def test_the_pages_are_accessible_and_keep_to_themselves(
    browser: Any, tour: tuple[str, Path], width: int, scheme: str
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    home, place = tour
    with Desk.open(place) as desk:
        harm = [item.key for item in desk.waiting(limit=200) if item.id in HOSTILE]
        bare, category = (
            next(i.key for i in desk.waiting(limit=200) if i.id == f"SKU-{n}") for n in (1100, 1101)
        )
    visit = Visit(
        browser, home, None, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    found: list[str] = []

    def look(name: str) -> None:
        if (width, scheme) in ((1280, "dark"), (390, "light")) and name not in (
            "group",
            "heat",
            "list",
            "zoom",
            "progress",
        ):
            return
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width, name
        found.extend(
            f"{name}: {each['impact']}: {each['id']}: {each['help']}: {node['html'][:200]}"
            for each in axe.run(visit.page).response["violations"]
            if each["impact"] in ("moderate", "serious", "critical")
            for node in each["nodes"][:3]
        )

    visit.page.goto(home)
    look("name")
    visit.enter("#name", "Ann")
    look("group")
    visit.page.keyboard.press("h")
    look("heat")
    visit.page.keyboard.press("h")
    visit.page.keyboard.press("c")
    visit.page.keyboard.type("re")
    look("list")
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("?")
    look("keys")
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("z")
    look("zoom")
    visit.page.keyboard.press("Escape")
    for name, path in {
        "harm": f"?item={harm[7]}",
        "script": f"?item={harm[0]}",
        "bare": f"?item={bare}",
        "category": f"?item={category}",
        "none": "?category=none",
        "progress": "/progress?verify=1",
        "error": "/photo?key=none&side=220",
    }.items():
        visit.page.goto(home + path)
        look(name)
    assert not found, "\n".join(found)
    origin = home.removesuffix("/review")
    assert not [url for url in visit.asked if not url.startswith((origin, "data:"))]
    assert not [text for text in visit.complaints if "404" not in text]
    visit.context.close()


def test_the_policy_lets_only_the_own_files_run(browser: Any, tour: tuple[str, Path]):
    visit = Visit(browser, tour[0])
    visit.press("s")
    assert not visit.complaints
    page = visit.page
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\" id=planted>x</p>')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.evaluate("window.ran") is None
    assert page.evaluate("getComputedStyle(document.querySelector('#planted')).color") != "rgb(255, 0, 0)"
    assert any("Content Security Policy" in text for text in visit.complaints)
    page.keyboard.press("u")
    visit.context.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[tuple[str, Desk]]:
    """A server over a fresh desk of a few items, and the desk."""
    place = samples.fill(tmp_path / "desk.sqlite", [samples.item(tmp_path, number) for number in range(8)])
    port = samples.free_port()
    with samples.serving(place, port), Desk.open(place) as desk:
        yield f"http://127.0.0.1:{port}/review", desk


def test_every_verdict_by_key(browser: Any, alone: tuple[str, Desk]):
    home, desk = alone
    visit = Visit(browser, home)
    first = visit.key
    for keys in (
        ["a"],
        ["k"],
        ["r"],
        ["c", "m", "u", "s", "Enter"],
        ["c", "ArrowDown", "ArrowDown", "Enter"],
        ["n"],
        ["v"],
        ["s"],
    ):
        visit.press(*keys)
    assert visit.key is None
    assert "Nothing is left" in visit.page.locator("h1").inner_text()
    said = [(verdict.kind, verdict.after) for verdict in desk.verdicts()]
    assert said == [
        ("accept", "Red"),
        ("correct", "Blue"),
        ("correct", "Mustard"),
        ("correct", "Mustard"),
        ("correct", "Green"),
        ("not_applicable", None),
        ("not_visible", None),
        ("skip", None),
    ]
    assert desk.verdicts()[0].item == first
    visit.press("u")
    assert desk.verdicts()[-1].kind == "undo"
    assert visit.key == desk.verdicts()[-1].item
    assert "Taken back" in visit.page.locator("#said").inner_text()
    assert not visit.complaints
    visit.context.close()


def test_letters_are_text_in_a_field_and_nothing_where_they_are_off(browser: Any, alone: tuple[str, Desk]):
    home, desk = alone
    visit = Visit(browser, home)
    page = visit.page
    page.keyboard.press("c")
    page.keyboard.type("snav")
    assert page.input_value("#value") == "snav"
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('#value').value = ''")
    page.keyboard.press("Control+a")
    page.keyboard.press("?")
    page.keyboard.press("a")
    page.uncheck("#single-keys")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.wait_for_timeout(150)
    assert desk.verdicts() == ()
    page.reload()
    page.keyboard.press("?")
    page.check("#single-keys")
    page.keyboard.press("Escape")
    visit.press("a")
    assert len(desk.verdicts()) == 1
    visit.context.close()


def test_a_key_that_is_held_down_records_once(browser: Any, alone: tuple[str, Desk]):
    home, desk = alone
    visit = Visit(browser, home)
    before = visit.page.locator('#work input[name="token"]').first.get_attribute("value")
    visit.page.keyboard.down("v")
    visit.moved(before)
    for _ in range(5):
        visit.page.keyboard.down("v")
    visit.page.wait_for_timeout(300)
    visit.page.keyboard.up("v")
    assert len(desk.verdicts()) == 1
    visit.context.close()


def test_the_photo_is_enlarged_and_the_filter_opens_by_key(browser: Any, alone: tuple[str, Desk]):
    home, _ = alone
    visit = Visit(browser, home)
    page = visit.page
    page.keyboard.press("z")
    page.locator("#zoomed").evaluate("image => image.decode()")
    narrow = page.locator("#zoomed").bounding_box()["width"]
    assert narrow > page.locator("#photo img").first.bounding_box()["width"], "a small photo is enlarged too"
    page.keyboard.press("+")
    assert page.locator("#zoomed").bounding_box()["width"] > narrow
    page.keyboard.press("-")
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()
    page.keyboard.press("f")
    assert page.evaluate("document.activeElement.name") == "category"
    page.select_option("select[name=category]", "Kurtis")
    with page.expect_navigation(wait_until="load"):
        page.locator(".filters button").click()
    assert "category=Kurtis" in page.url
    visit.press("a")
    assert "Kurtis" in page.locator(".of").inner_text()
    assert "Kurtis" in page.locator(".filters summary").inner_text()
    assert not visit.complaints
    visit.context.close()


def test_the_photo_is_shown_under_its_heat_by_key_and_stays_so(browser: Any, tmp_path: Path):
    items = [samples.item(tmp_path, number, heat=samples.heat(1, number)) for number in range(3)]
    place, port = samples.fill(tmp_path / "desk.sqlite", items), samples.free_port()
    with samples.serving(place, port):
        visit = Visit(browser, f"http://127.0.0.1:{port}/review", viewport={"width": 390, "height": 800})
        page = visit.page
        plain, mapped = page.locator("#photo a:not(.mapped)"), page.locator("#photo a.mapped")
        assert (plain.is_visible(), mapped.is_visible()) == (True, False)
        assert not [url for url in visit.asked if "heat=1" in url], "what is not shown is not fetched"
        page.keyboard.press("h")
        mapped.locator("img").evaluate("image => image.decode()")
        assert (plain.is_visible(), mapped.is_visible()) == (False, True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.keyboard.press("z")
        assert "heat=1" in page.locator("#zoomed").get_attribute("src")
        assert "of its width" in page.locator("#zoomed").get_attribute("alt")
        page.keyboard.press("Escape")
        visit.press("a")
        assert mapped.is_visible()
        page.keyboard.press("h")
        visit.press("a")
        assert (plain.is_visible(), mapped.is_visible()) == (True, False)
        assert not visit.complaints
        visit.context.close()


def test_without_scripts_the_pages_are_plain_forms(browser: Any, alone: tuple[str, Desk]):
    home, desk = alone
    visit = Visit(browser, home, java_script_enabled=False, viewport={"width": 390, "height": 800})
    page = visit.page
    assert page.locator("#keys").is_visible()
    assert not page.locator("#zoom").is_visible()
    page.click("button[value=accept]")
    page.fill("#value", "mustard")
    page.press("#value", "Enter")
    assert [(verdict.kind, verdict.after) for verdict in desk.verdicts()] == [
        ("accept", "Red"),
        ("correct", "Mustard"),
    ]
    page.fill("#value", "plaid")
    page.press("#value", "Enter")
    assert "is not a value" in page.locator("#work .notice").inner_text()
    page.click(".undo button")
    assert len(desk.verdicts()) == 3
    page.click("#photo a")
    assert "side=2000" in page.url
    visit.context.close()


def test_a_key_signs_in_and_a_revoked_one_is_out(browser: Any, tmp_path: Path):
    place = samples.fill(tmp_path / "desk.sqlite", [samples.item(tmp_path, number) for number in range(4)])
    ring, port = KeyRing(tmp_path / "keys"), samples.free_port()
    secret = ring.add("ann", ["review"])
    with samples.serving(place, port, keys=tmp_path / "keys"), Desk.open(place) as desk:
        visit = Visit(
            browser, f"http://127.0.0.1:{port}/review", None, viewport={"width": 390, "height": 800}
        )
        page = visit.page
        page.goto(visit.home)
        assert (
            page.evaluate("getComputedStyle(document.querySelector('button.main')).color") != "rgb(0, 0, 0)"
        )
        visit.enter("#key", secret)
        assert "ann" in page.locator(".who").inner_text()
        assert secret not in page.evaluate("document.cookie")
        visit.press("a")
        ring.revoke("ann")
        page.wait_for_timeout(500)  # keys are read again a moment later
        page.keyboard.press("a")
        page.wait_for_selector("#key[type=password]")
        assert [verdict.reviewer for verdict in desk.verdicts()] == ["ann"]
        assert not [text for text in visit.complaints if "401" not in text]
        visit.context.close()
    ring.close()


def test_a_whole_group_by_one_key(browser: Any, tmp_path: Path):
    group = [samples.item(tmp_path, 6 * number, cluster="alike", risk=3 - number / 10) for number in range(3)]
    place = samples.fill(tmp_path / "desk.sqlite", [*group, samples.item(tmp_path, 1)])
    port = samples.free_port()
    with samples.serving(place, port), Desk.open(place) as desk:
        visit = Visit(browser, f"http://127.0.0.1:{port}/review")
        assert visit.page.locator(".cluster img").count() == 3
        visit.press("g")
        assert len(desk.verdicts()) == 3
        assert visit.page.locator(".cluster").count() == 0
        visit.press("u")
        assert desk.progress().left == 4
        visit.context.close()


@pytest.mark.slow
def test_two_reviewers_walk_through_fifty_items_while_the_server_is_killed(browser: Any, tmp_path: Path):
    items = [samples.item(tmp_path, number) for number in range(50)]
    place = samples.fill(tmp_path / "desk.sqlite", items, second=0.2)
    port = samples.free_port()
    home = f"http://127.0.0.1:{port}/review"
    walks = (["a"], ["k"], ["a"], ["c", "o", "f", "Enter"], ["r"], ["n"], ["a"], ["v"])
    done: dict[str, list[str]] = {"Ann": [], "Bob": []}

    def step(visit: Visit, name: str, *, wait: bool = True) -> str | None:
        key, before = visit.key, None
        if key is not None:
            before = visit.page.locator('#work input[name="token"]').first.get_attribute("value")
            visit.press(*walks[len(done[name]) % len(walks)], wait=wait)
            done[name].append(key)
        return before

    with samples.serving(place, port) as server:
        ann, bob = Visit(browser, home, "Ann"), Visit(browser, home, "Bob")
        assert ann.key != bob.key
        while len(done["Ann"]) + len(done["Bob"]) < 24:
            step(ann, "Ann")
            step(bob, "Bob")
        before = step(ann, "Ann", wait=False)  # the key is pressed, and the server killed under the request
        server.kill()
        server.wait()
        waiting = step(bob, "Bob", wait=False)  # this one is pressed while there is no server
        bob.page.wait_for_selector("#lost:not([hidden])")
    with samples.serving(place, port):
        ann.moved(before)
        bob.moved(waiting)
        while step(ann, "Ann") or step(bob, "Bob"):
            pass
        assert not bob.page.locator("#lost").is_visible()
    with Desk.open(place) as desk:
        verdicts = desk.verdicts()
        assert desk.verify() == ()
        progress = desk.progress()
    assert (progress.left, progress.done) == (0, 50)
    for name, keys in done.items():
        assert [verdict.item for verdict in verdicts if verdict.reviewer == name] == keys
        assert len(set(keys)) == len(keys)
    assert {verdict.item for verdict in verdicts} == {item.key for item in items}
    twice = set(done["Ann"]) & set(done["Bob"])
    assert 3 <= len(twice) == len(verdicts) - 50
    expected = {item.key: item for item in items}
    for verdict in verdicts:
        item = expected[verdict.item]
        if verdict.kind == "accept":
            assert verdict.after == item.seen
        assert re.fullmatch(r"[\w-]{16}", verdict.token)
    ann.context.close()
    bob.context.close()
