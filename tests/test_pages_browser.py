"""Pages in a real browser: accessibility, requests, widths, dark and light, keyboard, no script, print."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import page_samples as samples

NAMES = (
    "fit", "evaluation", "audit", "data", "compare", "run", "numbers", "number_data", "number_compare",
)  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # a sandbox cannot be made as root
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"] if root else [])
        yield running
        running.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    written = {}
    for name, text in samples.all_pages(directory).items():
        written[name] = directory / f"{name}.html"
        written[name].write_text(text, encoding="utf-8")
    return written


def opened(browser: Any, path: Path, **options: Any) -> tuple[Any, list[str], list[str]]:
    """A page, what it asked for, and what it complained of."""
    context = browser.new_context(**options)
    page = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append("a dialog"), dialog.dismiss()))
    page.goto(path.as_uri())
    return page, asked, complaints


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('main details').forEach(part => { part.open = true; })")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_accessible_and_keeps_to_itself(
    browser: Any, files: dict[str, Path], name: str, width: int, scheme: str
):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
    page, asked, complaints = opened(browser, files[name], bypass_csp=True, **view)
    unfold(page)
    outside = [url for url in asked if url != files[name].as_uri() and not url.startswith("data:")]
    assert not outside
    assert not complaints
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = [
        f"{each['impact']}: {each['id']}: {each['help']}: {node['html'][:200]}"
        for each in axe.run(page).response["violations"]
        if each["impact"] in ("moderate", "serious", "critical")
        for node in each["nodes"][:3]
    ]
    assert not found, "\n".join(found)
    page.context.close()


def test_the_check_finds_what_is_planted(browser: Any, files: dict[str, Path]):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page, _, _ = opened(browser, files["compare"], bypass_csp=True)
    page.evaluate("document.querySelector('h1').style.color = '#e0ded8'")
    page.evaluate("document.querySelector('main').insertAdjacentHTML('beforeend', '<img src=\"data:,\">')")
    found = {each["id"] for each in axe.run(page).response["violations"]}
    assert found >= {"color-contrast", "image-alt"}
    page.context.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_policy_lets_the_own_script_run_and_no_other(browser: Any, files: dict[str, Path], name: str):
    page, _, complaints = opened(browser, files[name])
    assert not complaints
    assert page.locator("th button").count() > 0
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1:9/x.png>')")
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert page.evaluate("window.ran") is None
    assert any("Content Security Policy" in text for text in complaints)
    page.context.close()


@pytest.mark.parametrize("name", NAMES)
def test_without_a_script_all_of_it_can_be_read(browser: Any, files: dict[str, Path], name: str):
    view = {"viewport": {"width": 390, "height": 800}}
    page, _, _ = opened(browser, files[name], java_script_enabled=False, **view)
    assert page.locator("main h2").first.is_visible()
    for section in page.locator("main section").all():
        assert section.is_visible()
        assert len(section.inner_text()) > 20
    folded = page.locator("main details:not([open])")
    if folded.count():
        before = folded.count()
        folded.first.locator("summary").first.click()
        assert page.locator("main details:not([open])").count() < before
    page.context.close()


def test_tables_sort_by_number_and_say_so(browser: Any, files: dict[str, Path]):
    page, _, _ = opened(browser, files["fit"])
    unfold(page)
    table = page.locator("#confusions table").first
    head = table.locator("thead th").nth(3)
    for wanted in ("descending", "ascending"):
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == wanted
        cells = [int(text) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]
        assert cells == sorted(cells, reverse=wanted == "descending")
        assert len(set(cells)) > 1
    page.context.close()


def test_the_gallery_is_filtered_by_every_word(browser: Any, files: dict[str, Path]):
    page, _, _ = opened(browser, files["audit"])
    field = page.locator("#mismatches input[type=search]")
    before = page.locator(".card:visible").count()
    field.fill("family Tops")
    assert 0 < page.locator(".card:visible").count() < before
    assert f"of {before}" in page.locator("#mismatches output").inner_text()
    field.fill("")
    assert page.locator(".card:visible").count() == before
    page.context.close()


def test_the_contents_fold_on_a_phone_and_stand_beside_on_a_desk(browser: Any, files: dict[str, Path]):
    page, _, _ = opened(browser, files["fit"], viewport={"width": 390, "height": 800})
    link = page.locator(".toc a").nth(2)
    assert not link.is_visible()
    page.locator(".toc summary").click()
    assert link.is_visible()
    link.click()
    assert not link.is_visible()
    assert page.url.endswith("#coverage")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_function("document.querySelector('.toc details').open")
    assert link.is_visible()
    page.context.close()


def test_the_first_tab_leads_to_the_content(browser: Any, files: dict[str, Path]):
    page, _, _ = opened(browser, files["fit"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#content"
    page.context.close()


def test_print_is_light_and_holds_the_groups_that_are_folded(browser: Any, files: dict[str, Path]):
    page, _, _ = opened(browser, files["data"], color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert max(int(part) for part in ink[4:-1].split(",")) < 80
    assert page.locator("details.group:not([open])").count() > 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.group:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.group:not([open])").count() > 0
    assert not page.locator(".toc").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
    page.context.close()
