"""Pages: their structure, escaping, sameness, what they ask for, the curves behind them, and the command line."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import page_samples as samples
from conftest import Ran, Shell, Toy
from shelfwise import pages
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.describe import describe
from shelfwise.errors import UsageError
from shelfwise.evaluate import compare
from shelfwise.findings import Findings
from shelfwise.pages import curves, parts, svg
from shelfwise.pages.gallery import odds_in_words
from shelfwise.report import Report

NAMES = (
    "fit", "evaluation", "audit", "data", "compare", "run", "numbers", "number_data", "number_compare",
)  # fmt: skip
VOID = {"meta", "link", "img", "input", "br", "hr"}


class Page(HTMLParser):
    """The elements of a page, checked for balance as they come."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs, _ in self.elements if tag in tags]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return samples.all_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(params=NAMES)
def text(request: pytest.FixtureRequest, made: dict[str, str]) -> str:
    return made[request.param]


@pytest.fixture
def page(text: str) -> Page:
    return Page(text)


def test_ids_are_there_once_and_links_lead_somewhere(page: Page):
    ids = [attrs["id"] for _, attrs, _ in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in page.all("a", "use"):
        target = attrs.get("href") or ""
        assert target.startswith("#")
        assert target[1:] in ids
    for _, attrs, _ in page.elements:
        for name in (attrs.get("aria-labelledby") or "").split():
            assert name in ids
        for name in re.findall(r"url\(#([^)]+)\)", " ".join(value or "" for value in attrs.values())):
            assert name in ids


def test_headings_descend_in_steps(page: Page):
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_tables_have_captions_and_their_heads_say_what_they_head(page: Page):
    tables = page.all("table")
    assert tables
    assert len(page.all("caption")) == len(tables)
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))


def test_pictures_and_charts_say_what_they_show(page: Page):
    assert all(attrs.get("alt") for attrs in page.all("img"))
    charts = page.all("svg")
    for attrs in charts:
        assert attrs["role"] == "img"
        assert attrs["aria-labelledby"]
    assert len(page.all("desc")) == len(charts)
    inside = [path for tag, _, path in page.elements if tag == "svg"]
    assert all("section" in path or "div" in path for path in inside)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "audit"])
def test_every_section_with_a_chart_has_its_numbers_in_a_table(name: str, made: dict[str, str]):
    sections = re.findall(r"<section.*?</section>", made[name], re.DOTALL)
    drawn = [section for section in sections if "<svg" in section]
    assert drawn
    assert all("<table" in section for section in drawn)


def test_nothing_is_asked_for(text: str, page: Page):
    for _, attrs, _ in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data", "xlink:href"):
            if attrs.get(name) is not None:
                assert re.match(r"#|data:(image/jpeg;base64,|,)", attrs[name] or ""), attrs[name]
        assert not re.search(r"url\(\s*[^#]", attrs.get("style") or "")
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|https?:|//[a-z]", style.group(1))
    assert not {"iframe", "object", "embed", "base", "form", "audio", "video"} & {
        tag for tag, *_ in page.elements
    }


def test_only_the_pages_own_script_may_run(text: str, page: Page):
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1 == len(page.all("script"))
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = next(attrs["content"] for attrs in page.all("meta") if attrs.get("http-equiv"))
    assert policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_names_stay_text(text: str, page: Page):
    for tag, attrs, _ in page.elements:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert attrs.get("src", "data:") != "x"
    assert "alert(1)" in page.words
    assert not set(text) & set("\x00\x07\u202e")
    kinds = {tag for tag, _, path in page.elements if "svg" in path}
    assert kinds <= {"title", "desc", "defs", "style", "g", "path", "use", "text", "clippath", "rect"}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_look_like_markup_are_shown_in_full(name: str, made: dict[str, str]):
    assert samples.SCRIPT in Page(made[name]).words or name == "evaluation"


def test_the_table_of_contents_names_every_section(page: Page, text: str):
    listed = [attrs["href"] for tag, attrs, path in page.elements if tag == "a" and "nav" in path]
    assert listed == [f"#{attrs['id']}" for attrs in page.all("section")]


def test_without_a_script_everything_is_there(text: str, page: Page):
    assert not [attrs for _, attrs, _ in page.elements if "hidden" in attrs]
    assert not page.all("button", "input", "select")  # what only a script can serve is made by it
    assert "display:none" not in "".join(attrs.get("style") or "" for _, attrs, _ in page.elements)


def test_the_same_values_give_the_same_bytes(tmp_path: Path):
    code = (
        f"import sys, hashlib, json, pathlib; sys.path.insert(0, {str(Path(samples.__file__).parent)!r})\n"
        "import page_samples\n"
        "pages = page_samples.all_pages(pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps({k: hashlib.sha256(v.encode()).hexdigest() for k, v in pages.items()}))"
    )
    found = [
        json.loads(
            subprocess.run(
                [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
                capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "HOME": str(Path.home())},
            ).stdout
        )
        for seed in ("1", "2")
    ]  # fmt: skip
    assert found[0] == found[1]


def test_a_page_is_written_whole_and_only_as_html(tmp_path: Path):
    pages.write_page(tmp_path / "a.html", "<p>ü")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "<p>ü"
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    with pytest.raises(UsageError, match=r"written to \.html"):
        pages.write_page(tmp_path / "a.pdf", "")


# --- numbers ---


def part(sure: list[float], right: list[int]) -> curves.Sureness:
    truth = np.zeros(len(sure), np.int32)
    answer = (1 - np.array(right)).astype(np.int32)
    return curves.Sureness("c", "a", ("x", "y"), np.array(sure), np.array(right, bool), truth, answer)


def test_coverage_counts_the_surest_first_and_equals_together(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(curves, "FEWEST", 1)
    found = curves.coverage(part([0.9, 0.5, 0.5, 0.8], [1, 1, 0, 0]), 0.8)
    assert found.coverage.tolist() == [0.25, 0.5, 1.0]
    assert found.precision.tolist() == [1.0, 0.5, 0.5]
    assert (found.covered, found.kept) == (0.5, 0.5)
    never = curves.coverage(part([0.9, 0.5], [1, 1]), float("inf"))
    assert never.covered == 0
    assert np.isnan(never.kept)


def test_long_curves_are_thinned_and_keep_their_end():
    found = curves.coverage(part(np.linspace(1, 0, 5000).tolist(), [1, 0] * 2500))
    assert len(found.coverage) <= curves.POINTS
    assert found.coverage[-1] == 1.0
    assert found.precision[-1] == 0.5
    assert np.isnan(found.covered)


def test_a_confusion_costs_what_its_attribute_weighs():
    few = part([0.9] * 10, [0] * 5 + [1] * 5)
    many = replace(part([0.9] * 100, [0] * 20 + [1] * 80), attribute="b")
    first, second = curves.confusions([few, many])
    assert (first.attribute, first.count, first.share, first.cost) == ("a", 5, 0.5, pytest.approx(0.25))
    assert (second.attribute, second.count, second.cost) == ("b", 20, pytest.approx(0.1))
    assert (first.truth, first.answered) == ("x", "y")


def test_confusions_follow_given_answers():
    evidence = samples.evidence(("Tops",))
    block = evidence.blocks[0]
    right = np.maximum(block.labels, 0).astype(np.int32)
    assert curves.confusions(curves.sureness(evidence))
    assert not curves.confusions(curves.sureness(evidence, {"Tops": right}))
    assert not curves.confusions(curves.sureness(evidence, {"Tops": np.full_like(right, -1)}))


def test_sureness_agrees_with_the_evidence():
    evidence = samples.evidence()
    found = curves.sureness(evidence)
    assert {each.attribute for each in found} == {"sleeve", samples.HOSTILE[1]}  # nothing states the third
    assert sum(each.labels for each in found) == sum(int((b.labels >= 0).sum()) for b in evidence.blocks)
    assert [each.labels for each in found] == sorted((each.labels for each in found), reverse=True)


def test_shares_are_never_rounded_to_all_or_nothing():
    assert [parts.percent(x) for x in (0.0, 1.0, 0.004, 0.996, 0.5, float("nan"))] == [
        "0\u00a0%", "100\u00a0%", "<\u00a01\u00a0%", ">\u00a099\u00a0%", "50\u00a0%", "-",
    ]  # fmt: skip
    assert parts.percent(0.9996, 1) == ">\u00a099.9\u00a0%"


@pytest.mark.parametrize(
    ("odds", "words"),
    [
        (123.4, "120 : 1"),
        (12.6, "13 : 1"),
        (2.25, "2.2 : 1"),
        (3.0, "3 : 1"),
        (1e9, "> 10,000 : 1"),
        (0.4, "< 1 : 1"),
    ],
)
def test_odds_in_words(odds: float, words: str):
    assert odds_in_words(odds) == words


def test_words_are_cut_between_characters():
    assert svg.cut("sleeve", 100) == "sleeve"
    assert svg.cut("sleeve_length_of_the_garment", 80).endswith("…")
    assert len(svg.cut(samples.LONG, 80)) < 20
    family = svg.cut("👩‍👩‍👧‍👦" * 9, 60)
    assert family.endswith("…")
    assert not family[:-1].endswith("\u200d")


# --- limits and nothing there ---


def test_what_is_left_out_is_said():
    many = tuple(f"category {k:03d}" for k in range(45))
    evidence = samples.evidence(many, each=24)
    text = pages.evaluation_page(samples.scored(evidence), pages.Measured(evidence))
    words = Page(text).words
    assert "The 40 biggest of 45 categories are drawn" in words
    assert "The 40 attributes with the most labels of 90 are drawn" in words
    assert text.count("<svg") == 1 + 1 + 40 + 1 + 40


def test_an_audit_shows_the_first_and_counts_the_rest():
    one = pages.Mismatch("7", "Tops", "sleeve", "attr_2", "short", "long", 0.01, 0.9, 90.0)
    found = Page(pages.audit_page([one] * 30, most=20, total=500, table="rest.csv"))
    assert len([attrs for attrs in found.all("li") if attrs.get("class") == "card"]) == 20
    assert "480 more are in rest.csv" in found.words
    assert "90 : 1" in found.words
    assert "no picture" in found.words
    assert "None." in Page(pages.audit_page([])).words


def test_thumbnails_are_small_and_upright(tmp_path: Path):
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (800, 400), "red").save(tmp_path / "a.jpg", exif=exif)
    found = pages.gallery.thumbnail(tmp_path / "a.jpg", 160)
    assert found is not None
    assert found[:2] == (80, 160)
    assert base64.b64decode(found[2])[:2] == b"\xff\xd8"
    assert pages.gallery.thumbnail(tmp_path / "none.jpg", 160) is None


def test_pages_of_nothing_are_pages():
    empty = Report("harmonic_f1", (), 0)
    evidence = samples.evidence().select(np.zeros(180, bool))
    for text in (pages.fit_page(empty), pages.evaluation_page(empty, pages.Measured(evidence))):
        assert "-" in Page(text).words


def test_a_catalogue_that_states_nothing_is_a_page(tmp_path: Path):
    catalog = samples.catalogue(tmp_path, ("Tops",), each=6)
    nothing = Catalog.read(catalog.frame.select("id", "category", "image"), images=tmp_path)
    text = pages.data_page(describe(nothing), nothing, Findings())
    assert "6" in Page(text).words


def test_a_comparison_without_intervals_is_a_page(tmp_path: Path):
    catalog = samples.catalogue(tmp_path)
    first, second = samples.toy_predictions(catalog)
    found = compare([("a", first), ("b", second)], catalog, bootstrap=0)
    words = Page(pages.compare_page(found)).words
    assert "not shown" in words


@pytest.mark.parametrize("name", ["run", "fit"])
def test_a_training_is_shown_by_epoch_and_attribute(name: str, made: dict[str, str]):
    page = Page(made[name])
    assert {attrs["id"] for attrs in page.all("section")} >= {"course", "rates", "attributes"}
    assert "Score over the epochs" in page.words
    assert f"Score of {samples.SCRIPT} over the epochs" in page.words
    tables = re.findall(r"<table.*?</table>", made[name], re.DOTALL)
    (course,) = (table for table in tables if "Loss and score by epoch" in table)
    assert len(re.findall(r"<tr>", course)) == 1 + 6
    (attributes,) = (table for table in tables if "Score by attribute" in table)
    assert "0.817" in attributes, "the best score of an attribute"


def test_a_run_without_an_end_or_a_score_is_a_page(tmp_path: Path):
    from shelfwise.train.track import FILE, write_epochs

    lines = samples.training()
    write_epochs(tmp_path / FILE, lines[:1])
    words = Page(pages.run_page(tmp_path)).words
    assert "No epoch has ended yet" in words
    assert tmp_path.name in words
    assert "1 of 60" in words
    plain = [{**line, "score": None, "scores": []} for line in lines]
    words = Page(pages.run_page(plain)).words
    assert "Nothing was kept apart to score" in words
    assert "Loss per attribute" in words
    assert "-" in Page(pages.run_page([])).words
    with pytest.raises(UsageError, match="cannot read the steps"):
        pages.run_page(tmp_path / "none.jsonl")


def test_a_bundle_has_a_page(bundle: Bundle):
    words = Page(pages.bundle_page(bundle)).words
    assert parts.show(bundle.report.score) in words
    assert bundle.report.notes[0] in words


# --- the command line ---


def written(ran: Ran, path: Path) -> Page:
    assert ran.code in (0, 1), ran.err
    assert f"wrote {path}" in ran.out
    return Page(path.read_text(encoding="utf-8"))


def test_evaluate_writes_its_page(shell: Shell, saved: Path, toy: Toy, tmp_path: Path):
    ran = shell(
        "evaluate", saved, toy.table, "--html", tmp_path / "e.html", "--cache", tmp_path, "--engine", "torch"
    )
    found = written(ran, tmp_path / "e.html")
    assert {attrs["id"] for attrs in found.all("section")} >= {"scores", "sure", "coverage", "confusions"}
    assert toy.table.name in found.words


def test_compare_writes_its_page(shell: Shell, saved: Path, toy: Toy, tmp_path: Path):
    given = ("--cache", tmp_path, "--engine", "torch")
    shell("predict", saved, toy.table, "-o", tmp_path / "a.csv", *given)
    twin = shutil.copytree(saved, tmp_path / "twin")
    ran = shell("compare", saved, twin, toy.table, "--html", tmp_path / "c.html", *given)
    assert "No difference shown" in written(ran, tmp_path / "c.html").words
    assert "a file of answers" not in ran.out
    ran = shell("compare", saved, tmp_path / "a.csv", toy.table, "--html", tmp_path / "c.html", *given)
    assert "a.csv is a file of answers" in written(ran, tmp_path / "c.html").words


def test_check_writes_the_page_of_the_data(shell: Shell, toy: Toy, tmp_path: Path):
    ran = shell("check", toy.table, "--html", tmp_path / "d.html", "--cache", tmp_path)
    found = written(ran, tmp_path / "d.html")
    assert {attrs["id"] for attrs in found.all("section")} >= {"missing", "values", "pictures"}


def test_fit_writes_its_page(shell: Shell, toy: Toy, tmp_path: Path):
    given = ("recipe.backbone.name=toy", "data.evidence=2", "--cache", tmp_path, "--engine", "torch")
    ran = shell("fit", toy.table, *given, "-o", tmp_path / "b", "--html", tmp_path / "f.html")
    assert "What to expect" in written(ran, tmp_path / "f.html").words


def test_a_wrong_ending_is_refused_before_anything_is_done(shell: Shell, toy: Toy, tmp_path: Path):
    ran = shell("check", toy.table, "--html", tmp_path / "d.pdf")
    assert ran.code == 2
    assert "a page is written to .html" in ran.message
    assert not ran.out
