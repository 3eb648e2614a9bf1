"""Drift: what is found and what is not, near-duplicates counted once, causes, slices, files, the verb, the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageEnhance

from conftest import Shell, Toy
from page_samples import HOSTILE, SCRIPT
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.drift.compared import drift, judged
from shelfwise.drift.fingerprint import Fingerprint
from shelfwise.drift.lines import Comparison, Cut
from shelfwise.drift.report import Drift, DriftLine
from shelfwise.errors import BundleError, UsageError
from shelfwise.pages import drift_page
from shelfwise.predictions import Machine
from shelfwise.testing import toy_catalog
from shelfwise.trust.shift import (
    Sample,
    Shift,
    Stratum,
    false_discoveries,
    means,
    offset,
    sampled,
    shares,
    shares_after,
    thinned,
)


def onehot(rng: np.random.Generator, shares: list[float], count: int) -> np.ndarray:
    return np.eye(len(shares))[rng.choice(len(shares), count, p=shares)]


def alone(numbers: np.ndarray) -> Sample:
    """Every product is a group."""
    return sampled(numbers, np.arange(len(numbers)))


def compared(kind: str, before: Sample, after: Sample) -> Shift:
    pair = Stratum(before, after)
    return shares(pair) if kind == "shares" else (offset if kind == "place" else means)([pair])


@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize("kind", ["shares", "number", "place"])
def test_chance_is_reported_as_often_as_was_said(kind: str, size: int):
    """Also where groups are of up to eight products, nine of ten as the first one."""
    rng = np.random.default_rng(0)

    def draw(count: int) -> Sample:
        group = np.repeat(np.arange(count), rng.integers(1, size + 1, count))
        if kind == "shares":
            shown, own = (onehot(rng, [0.5, 0.25, 0.15, 0.07, 0.03], n) for n in (count, len(group)))
        else:
            wide = np.arange(1, 31 if kind == "place" else 2)
            shown, own = (rng.normal(size=(n, len(wide))) * wide for n in (count, len(group)))
        return sampled(np.where(rng.random((len(group), 1)) < 0.9, shown[group], own), group)

    found = [compared(kind, draw(400), draw(120)) for _ in range(600)]
    p = np.array([each.p for each in found])
    assert (p <= 0.1).mean() < 0.135
    assert (
        p <= 0.1
    ).mean() > 0.05  # the least of several p-values, times their number, is a little too large
    assert (p <= 0.01).mean() < 0.022
    assert np.mean([each.effect for each in found]) < 0.12  # what chance adds is taken off


def test_copies_are_no_evidence():
    rng = np.random.default_rng(1)
    before, after = onehot(rng, [0.6, 0.4], 300), onehot(rng, [0.45, 0.55], 100)
    five, group = np.repeat(after, 5, axis=0), np.repeat(np.arange(100), 5)
    for kind, part in (("shares", slice(None)), ("number", slice(1)), ("place", slice(None))):
        plain = compared(kind, alone(before[:, part]), alone(after[:, part]))
        grouped = compared(kind, alone(before[:, part]), sampled(five[:, part], group))
        assert grouped.p == pytest.approx(plain.p, rel=0.05), kind
        assert compared(kind, alone(before[:, part]), alone(five[:, part])).p < plain.p / 10


def test_shares_are_those_of_products():
    """One value's products come five to a group: it is half of what is sold, not a sixth."""
    group = np.concatenate([np.arange(100), 100 + np.repeat(np.arange(20), 5)])
    value = np.eye(2)[np.repeat([0, 1], 100)]
    rng = np.random.default_rng(5)
    found = shares(Stratum(alone(onehot(rng, [0.8, 0.2], 2000)), sampled(value, group)))
    assert found.after.tolist() == [0.5, 0.5]
    assert found.p < 1e-4
    unlike = shares(Stratum(alone(onehot(rng, [0.8, 0.2], 2000)), alone(value)))
    assert found.p > 1e6 * unlike.p


def test_the_value_that_moved_is_found_among_many():
    rng = np.random.default_rng(6)
    before, after = [0.1] * 10, [0.3] + [0.7 / 9] * 9
    found = shares(Stratum(alone(onehot(rng, before, 2000)), alone(onehot(rng, after, 150))))
    assert found.most == 0
    assert found.p < 1e-6


def test_effects_are_those_of_cohen():
    rng = np.random.default_rng(2)
    moved = means([Stratum(alone(rng.normal(size=(20000, 1))), alone(rng.normal(0.5, size=(20000, 1))))])
    assert moved.effect == pytest.approx(0.5, abs=0.04)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.3, 0.3])
    pair = Stratum(alone(onehot(rng, p.tolist(), 40000)), alone(onehot(rng, q.tolist(), 40000)))
    assert shares(pair).effect == pytest.approx((((p - q) ** 2) / ((p + q) / 2)).sum() ** 0.5, abs=0.02)


@pytest.mark.parametrize("kind", ["number", "place"])
def test_strata_are_compared_within(kind: str):
    """Twice as many of one category is no change of its pictures."""
    rng, wide = np.random.default_rng(3), 4 if kind == "place" else 1
    drawn = [(shift + rng.normal(size=(n, wide))) for shift, n in ((0, 300), (0, 50), (5, 100), (5, 200))]
    near, far = Stratum(*map(alone, drawn[:2])), Stratum(*map(alone, drawn[2:]))
    compare = offset if kind == "place" else means
    assert compare([near, far]).p > 0.01
    mixed = Stratum(alone(np.concatenate(drawn[::2])), alone(np.concatenate(drawn[1::2])))
    assert compare([mixed]).p < 1e-9


def test_products_drawn_one_by_one_are_no_other_pictures():
    """Large groups look unlike small ones, and are likelier to be in a random draw of products."""
    rng, wide = np.random.default_rng(8), np.arange(1, 21)
    p = []
    for _ in range(300):
        group = np.repeat(np.arange(500), rng.choice([1, 2, 12], 500))
        size = np.bincount(group)[group][:, None]
        place = (
            (rng.normal(size=(500, 20)) * wide)[group]
            + 0.5 * rng.normal(size=(len(group), 20)) * wide
            + 0.4 * size
        )
        later = np.isin(group, rng.permutation(500)[:150])
        drawn = rng.permutation(np.flatnonzero(later))[:80]
        before, after = sampled(place[~later], group[~later]), sampled(place[drawn], group[drawn])
        p.append(offset([Stratum(before, after)]).p)
    assert (np.array(p) <= 0.1).mean() < 0.14
    assert (np.array(p) <= 0.01).mean() < 0.025


def test_a_thinned_sample_has_the_mean_size_that_was_asked_for():
    rng = np.random.default_rng(9)
    group = np.repeat(np.arange(4000), rng.integers(1, 9, 4000))
    size = np.bincount(group).astype(float)
    kept = np.bincount(group[rng.random(len(group)) < 0.3], minlength=4000)
    likely = thinned(size, kept[kept > 0].mean())
    for each in range(1, 9):
        assert abs(likely[size == each].mean() - (kept[size == each] > 0).mean()) < 0.05
    assert (thinned(size, size.mean() + 1) == 1).all(), "those of the other sample are larger"
    assert np.ptp(thinned(size, 1.0) / size) < 1e-4 * thinned(size, 1.0).max(), "as their sizes"


def test_what_is_rare_is_not_tested_and_a_constant_is_no_finding():
    before, after = np.zeros((200, 5)), np.zeros((40, 5))
    before[:, 0], after[:, 0] = 1, 1
    before[:2] = np.eye(5)[[3, 4]]
    assert shares(Stratum(alone(before), alone(after))).p == 1
    assert means([Stratum(alone(before[5:, :1]), alone(after[:, :1]))]).p == 1
    after[:25] = np.eye(5)[3]  # what was rare has become frequent
    found = shares(Stratum(alone(before), alone(after)))
    assert (found.most, found.p < 1e-9) == (3, True)


def test_shares_are_estimated_through_an_unsure_model():
    """Calibrated probabilities of a model that is often wrong: the shares of its answers would say 0.45."""
    rng = np.random.default_rng(4)

    def calibrated(share: float, count: int) -> np.ndarray:
        score = rng.normal(1.2 * (rng.random(count) < share), 1.0)
        odds = 0.2 / 0.8 * np.exp(1.2 * score - 0.72)
        return np.stack([1 / (1 + odds), odds / (1 + odds)], axis=1)

    before, after = calibrated(0.2, 20000), calibrated(0.6, 20000)
    even = np.full(20000, 1 / 20000)
    times = shares_after(before, after, even, even)
    assert (times * before.mean(axis=0))[1] == pytest.approx(0.6, abs=0.02)
    assert times[1] == pytest.approx(3, abs=0.15)


def test_false_discoveries_leave_out_what_was_not_tested():
    found = false_discoveries([0.001, np.nan, 0.02, 0.5])
    assert np.isnan(found[1])
    assert found[0] == pytest.approx(0.001 * 3 * (1 + 1 / 2 + 1 / 3))
    assert found[2] == pytest.approx(0.02 * 3 / 2 * (1 + 1 / 2 + 1 / 3))


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second toy catalogue, drawn like the first one."""
    return toy_catalog(tmp_path_factory.mktemp("later"), products=450, seed=7)


@pytest.fixture(scope="module")
def dark(later: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same products, photographed in the dark."""
    folder = tmp_path_factory.mktemp("dark")
    (folder / "images").mkdir()
    shutil.copy(later, folder / "catalog.csv")
    for photo in (later.parent / "images").iterdir():
        ImageEnhance.Brightness(Image.open(photo)).enhance(0.5).save(folder / "images" / photo.name)
    return folder / "catalog.csv"


@pytest.fixture(scope="module")
def calm(bundle: Bundle, later: Path, machine: Machine) -> Drift:
    return drift(bundle, bundle.read(renamed(later), images=later.parent), machine=machine)


@pytest.fixture(scope="module")
def darkened(bundle: Bundle, dark: Path, machine: Machine) -> Drift:
    return drift(bundle, bundle.read(renamed(dark), images=dark.parent), machine=machine)


def renamed(table: Path) -> pl.DataFrame:
    """Ids of its own, and a supplier for every product."""
    frame = pl.read_csv(table, infer_schema=False)
    third = pl.col("id").str.to_integer() % 3 == 0
    supplier = pl.when(third).then(pl.lit("A")).otherwise(pl.lit("B"))
    return frame.with_columns(("new-" + pl.col("id")).alias("id"), supplier.alias("supplier"))


def test_products_like_those_learnt_from_have_not_drifted(calm: Drift):
    assert not calm.found
    assert calm.known == 0
    assert {line.kind for line in calm.lines} == {"categories", "look", "familiar", "values", "confidence"}
    assert {line.category for line in calm.lines if line.attribute == "size"} == {"Plates"}


def test_products_learnt_from_are_judged_out_of_fold(toy: Toy, bundle: Bundle, machine: Machine):
    found = drift(bundle, toy.catalog, machine=machine)
    assert found.known == len(toy.catalog)
    assert not found.found
    for line in found.lines:
        if line.kind == "confidence":
            assert line.after == pytest.approx(line.before, abs=1e-6)


def test_known_products_with_other_photos_are_not_known(
    toy: Toy, bundle: Bundle, dark: Path, machine: Machine
):
    """The same ids: what was said of the old photos must not hide the new ones."""
    found = drift(bundle, bundle.read(dark, images=dark.parent), machine=machine)
    assert found.known < 20
    assert any(line.kind == "look" for line in found.found)


def test_darker_photos_are_found_and_called_so(darkened: Drift):
    looks = {line.category: line for line in darkened.found if line.kind == "look"}
    assert {None, "Cups", "Plates"} <= set(looks)
    assert looks["Cups"].cause == "covariate"
    assert all(line.adjusted <= 0.01 and line.effect >= line.least for line in darkened.found)
    assert "pictures that look different" in str(darkened)


def test_a_value_that_is_more_frequent_is_found_as_other_products(
    bundle: Bundle, later: Path, machine: Machine
):
    frame = renamed(later)
    few = (pl.col("category") == "Cups") & (pl.col("colour") == "blue")
    kept = frame.filter(
        few.fill_null(False) | (pl.col("category") != "Cups") | (pl.int_range(pl.len()) % 9 == 0)
    )
    found = drift(bundle, bundle.read(kept, images=later.parent), machine=machine)
    line = next(line for line in found.found if (line.category, line.attribute) == ("Cups", "colour"))
    assert line.value == "blue"
    assert line.after > 2 * line.before
    assert line.cause == "prior"


@pytest.mark.parametrize(("unlike", "cause"), [(0.0, "prior"), (1.5, "both")])
def test_a_value_that_looks_different_is_not_called_other_products(toy: Toy, unlike: float, cause: str):
    """Blue is answered twice as often: as before, or of pictures that no blue cup had; the category's hardly move."""
    taxonomy, rng = toy.catalog.taxonomy, np.random.default_rng(0)
    choices, slices = taxonomy.choices("Cups"), taxonomy.slices("Cups")
    at = [choice.name for choice in choices].index("colour")
    code, width = taxonomy.category_codes["Cups"], slices[-1].stop

    def seen(count: int, share: float, moved: float) -> Fingerprint:
        blue, ids = rng.random(count) < share, tuple(map(str, range(count)))
        probs = np.zeros((count, width), np.float32)
        for part in slices:
            probs[:, part.start] = 1
        probs[:, slices[at]] = np.eye(len(choices[at].values))[np.where(blue, 1, 0)]
        place = rng.normal(size=(count, 40)) + moved * np.eye(40)[0] * blue[:, None]
        rows, codes = np.arange(count), np.full(count, code)
        where = ids, codes, rows, place.astype(np.float32), np.zeros(count)
        return Fingerprint(taxonomy, ids, codes, rows, {"Cups": (rows, probs)}, {}, *where)

    before, after = seen(2000, 0.1, 0.0), seen(300, 0.25, unlike)
    cut = Cut(None, None, *(np.ones(n, bool) for n in (2000, 2000, 300, 300)))
    compared = Comparison(before, after, cut, {})
    (lines,) = judged([compared], 0.01, 1)
    found = [line for line in compared.caused(lines, 0.01) if line.drift]
    assert [(line.kind, line.attribute, line.cause) for line in found] == [("values", "colour", cause)]


def test_other_shares_of_categories_are_found(bundle: Bundle, later: Path, machine: Machine):
    cups = renamed(later).filter((pl.col("category") == "Cups") | (pl.int_range(pl.len()) % 5 == 0))
    found = drift(bundle, bundle.read(cups, images=later.parent), machine=machine)
    (line,) = [line for line in found.found if line.kind == "categories"]
    assert (line.cause, line.category) == ("prior", None)
    assert not [line for line in found.found if line.kind in ("look", "values")]


def test_the_order_of_the_rows_changes_nothing(bundle: Bundle, later: Path, machine: Machine, calm: Drift):
    turned = bundle.read(renamed(later).reverse(), images=later.parent)
    found = drift(bundle, turned, machine=machine)
    mine = {(line.kind, line.category, line.attribute): line for line in found.lines}
    for line in calm.lines:
        other = mine[line.kind, line.category, line.attribute]
        assert (other.effect, other.p) == pytest.approx((line.effect, line.p), rel=1e-6, abs=1e-9)


@pytest.fixture(scope="module")
def supplied(bundle: Bundle, toy: Toy, later: Path, dark: Path, machine: Machine) -> tuple[Catalog, Catalog]:
    """A later table whose second supplier is new and photographs in the dark; and the table learnt from."""
    catalog = bundle.read(renamed(later), images=later.parent)
    theirs = np.array(catalog.frame["supplier"].to_list()) == "B"
    names = pl.Series("supplier", np.where(theirs, "N", "A").tolist())
    images = tuple(
        dark.parent / "images" / path.name if there and path is not None else path
        for path, there in zip(catalog.images, theirs, strict=True)
    )
    catalog = replace(catalog, images=images, memo={}, frame=catalog.frame.with_columns(names))
    learnt = replace(toy.catalog, frame=toy.catalog.frame.with_columns(pl.lit("A").alias("supplier")))
    return catalog, learnt


def test_a_new_supplier_is_found(bundle: Bundle, supplied: tuple[Catalog, Catalog], machine: Machine):
    catalog, learnt = supplied
    found = drift(bundle, catalog, by=["supplier"], reference=learnt, machine=machine)
    cut = [line for line in found.found if line.column == "supplier"]
    assert {line.slice for line in cut} == {"N"}
    assert {line.against for line in cut} == {"new"}
    assert {line.against for line in found.lines if line.slice == "A"} == {"same"}
    assert "supplier 'N'" in str(found)


def test_slices_without_a_past_are_shown_and_not_reported(
    bundle: Bundle, supplied: tuple[Catalog, Catalog], machine: Machine
):
    found = drift(bundle, supplied[0], by=["supplier"], machine=machine)
    cut = [line for line in found.lines if line.column == "supplier"]
    assert max(line.effect / line.least for line in cut if line.slice == "N") > 2
    assert not any(line.drift for line in cut)
    assert "--reference" in found.notes[0]


def test_what_cannot_be_compared_is_said(bundle: Bundle, toy: Toy, machine: Machine):
    few = drift(bundle, toy.catalog.select(np.arange(6)), machine=machine)
    assert not few.lines
    assert "too few products" in few.verdict
    with pytest.raises(UsageError, match="no column 'suplier'"):
        drift(bundle, toy.catalog, by=["suplier"], machine=machine)
    with pytest.raises(UsageError, match="between 0 and 1"):
        drift(bundle, toy.catalog, rate=1.5, machine=machine)
    with pytest.raises(BundleError, match="no evidence"):
        drift(replace(bundle, evidence=None), toy.catalog, machine=machine)


def test_it_is_written_as_json_and_as_tables(darkened: Drift, tmp_path: Path):
    darkened.write(tmp_path / "drift.json")
    table = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    assert table["found"] == len(darkened.found)
    assert len(table["lines"]) == len(darkened.lines)
    for ending in ("csv", "parquet"):
        darkened.write(tmp_path / f"drift.{ending}")
    frame = pl.read_parquet(tmp_path / "drift.parquet")
    assert frame["drift"].sum() == len(darkened.found)
    assert pl.read_csv(tmp_path / "drift.csv").columns == frame.columns
    with pytest.raises(UsageError, match=r"\.json, \.csv or \.parquet"):
        darkened.write(tmp_path / "drift.txt")


def test_the_verb_says_it_by_its_exit_code(
    shell: Shell, saved: Path, later: Path, dark: Path, tmp_path: Path
):
    calm = shell("drift", saved, later, "--cache", tmp_path / "cache", "--engine", "torch")
    assert calm.code == 0, calm.err
    assert calm.out.startswith("No drift")
    out, page = tmp_path / "drift.json", tmp_path / "drift.html"
    ran = shell(
        "drift", saved, dark, "-o", out, "--html", page, "--cache", tmp_path / "cache", "--engine", "torch"
    )
    assert ran.code == 3, ran.err
    assert "Cups: look of the pictures" in ran.out
    assert json.loads(out.read_text(encoding="utf-8"))["found"] > 0
    assert "What changed" in page.read_text(encoding="utf-8")
    wrong = shell("drift", saved, later, "-o", tmp_path / "drift.txt")
    assert wrong.code == 2
    assert ".json, .csv or .parquet" in wrong.message


def test_a_page_shows_foreign_names_as_text():
    line = DriftLine(
        "values", "shop", SCRIPT, HOSTILE[1], HOSTILE[4], 40, 30, 400, 0.1, 0.4, 0.6, 0.1, 1e-9, SCRIPT
    )
    lines = [replace(line, adjusted=1e-7, drift=True, cause="both", against="new")]
    lines += [
        replace(line, kind="look", column=None, slice=None, category=name, attribute=None) for name in HOSTILE
    ]
    found = Drift(tuple(lines), 40, 30, 400, 0, 0.1, 0.01, (SCRIPT,))
    page = drift_page(found, source=SCRIPT)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<h2") == 6
    assert page == drift_page(found, source=SCRIPT)


@pytest.mark.browser
def test_the_page_is_accessible_on_desk_and_phone(darkened: Drift, tmp_path: Path):
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser is on the path")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    cut = [replace(line, column="supplier", slice="A") for line in darkened.lines]
    path = tmp_path / "drift.html"
    path.write_text(drift_page(replace(darkened, lines=(*darkened.lines, *cut))), encoding="utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for width, scheme in ((1280, "light"), (390, "dark")):
            view = {"viewport": {"width": width, "height": 900}, "color_scheme": scheme}
            page = browser.new_context(bypass_csp=True, **view).new_page()
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('main details').forEach(part => { part.open = true; })")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            faults = axe.run(page).response["violations"]
            assert [
                each["id"] for each in faults if each["impact"] in ("moderate", "serious", "critical")
            ] == []
        browser.close()
