"""Attributes that cannot be trusted: fitted without a crash, promised nothing, and told why, from end to end."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Shell
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import DecideOptions
from shelfwise.errors import UsageError
from shelfwise.predictions import Machine
from shelfwise.roles import Columns

pytestmark = pytest.mark.usefixtures("one_thread")
#: Attribute -> what is said of it; they hold it in every category that has them.
ODD = {
    "maker": "it has one value only",
    "finish": "too few labelled products that differ: 5",
    "twin": "too few labelled products that differ: ",
}
CHOICES = ("colour", "size", "pattern", *ODD, "tint")


@dataclass(frozen=True)
class Odd:
    directory: Path
    catalog: Catalog

    def fit(self, machine: Machine, **options: object) -> Bundle:
        recipe = sw.Probe(backbone=sw.backbone("toy"))
        given = {"random_split": False, "curve": False, **options}
        return sw.fit(self.catalog, recipe, machine=machine, **given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    """One value; five labels; two pictures in thirty products each, so that a fold has none; a value nobody can see."""
    from shelfwise.testing import toy_catalog

    directory = tmp_path_factory.mktemp("odd")
    frame = pl.read_csv(toy_catalog(directory, products=240, missing=0.0), infer_schema=False)
    n = frame.height
    by_category = {name: np.flatnonzero(frame["category"] == name).tolist() for name in ("Cups", "Plates")}
    finish, twin, image, tint = [None] * n, [None] * n, frame["image"].to_list(), frame["colour"].to_list()
    for k, row in enumerate(by_category["Plates"][:5]):
        finish[row] = ("matt", "gloss")[k % 2]
    for k, row in enumerate(by_category["Cups"][:60]):
        image[row] = image[by_category["Cups"][k // 30]]
        twin[row] = ("yes", "no")[k % 2]
    lost = by_category["Plates"][-1]
    image[lost], tint[lost] = "images/broken.png", "mauve"
    (directory / "images" / "broken.png").write_bytes(b"\x89PNG broken")
    frame = frame.with_columns(
        pl.lit("Toyware").alias("maker"),
        pl.Series("finish", finish, pl.String),
        pl.Series("twin", twin, pl.String),
        pl.Series("tint", tint, pl.String),
        pl.Series("image", image, pl.String),
    )
    frame.write_csv(directory / "odd.csv")
    read = Catalog.read(directory / "odd.csv", columns=Columns(choice=CHOICES))
    return Odd(directory, read)


@pytest.fixture(scope="module")
def fitted(odd: Odd, machine: Machine) -> Bundle:
    from shelfwise.models.towers import one_thread

    with one_thread():
        return odd.fit(machine, evidence=3)


@pytest.mark.parametrize("over", ["attribute", "attribute-alone", "catalogue"])
def test_nothing_is_promised_and_the_reason_is_given(fitted: Bundle, over: str):
    kept = fitted.promise(0.9, over=over)
    seen = set()
    for (category, attribute), part in kept.pairs.items():
        if attribute in ODD:
            seen.add(attribute)
            assert (part.threshold, part.coverage) == (np.inf, 0), (category, attribute)
            assert ODD[attribute] in part.reason
            assert f"{category} / {attribute}" in kept.table_text()
    assert seen == set(ODD)
    assert all(ODD[attribute] in kept.table_text() for attribute in ODD)
    assert np.isfinite(kept.threshold(("Plates", "colour"))), "what can be trusted is"


def test_in_a_fold_the_attribute_has_no_label(fitted: Bundle):
    """The catalogue is as odd as it is meant to be."""
    evidence = fitted.evidence
    assert evidence is not None
    pairs = {pair.name: pair for pair in evidence.pairs()}
    assert len(pairs["Plates", "finish"].labels) == 5
    assert len(np.unique(pairs["Cups", "twin"].fold)) < 3
    assert len(pairs["Cups", "twin"].labels) == 60
    tint = pairs["Plates", "tint"]
    assert tint.counts[tint.choice.codes["mauve"]] == 0


def test_a_value_that_was_never_seen_out_of_fold_is_never_filled_in(
    fitted: Bundle, odd: Odd, machine: Machine
):
    """Even where nothing else would be answered: the rest of the attribute keeps its promise."""
    kept = fitted.promise(0.9)
    assert kept.unseen(("Plates", "tint")) == ("mauve",)
    assert "never 'mauve': not seen out of fold" in kept.table_text()
    answers = fitted.answer(odd.catalog, precision=0.9, machine=machine)
    said = {answers.of(row)["tint"]["value"] for row in range(240) if answers.of(row)}
    assert "mauve" not in said


def test_predict_never_fills_them(shell: Shell, fitted: Bundle, odd: Odd, machine: Machine, tmp_path: Path):
    fitted.save(tmp_path / "B")
    out = tmp_path / "out.csv"
    given = ("predict", tmp_path / "B", odd.directory / "odd.csv", "-o", out, "--explain", "--jobs", "1")
    given = (*given, "--engine", "torch", "--cache", machine.cache)
    ran = shell(*given, "--precision", "0.9")
    assert ran.code == 0, ran.err
    assert all(reason in ran.err for reason in ODD.values())
    frame = pl.read_csv(out, infer_schema=False)
    for name in ODD:
        assert frame[name].null_count() == frame.height, name
        assert set(frame[f"{name}.state"].drop_nulls()) <= {"unsure", "unfamiliar", "category?", "error", ""}
    assert frame["maker.candidate"].drop_nulls().unique().to_list() == ["Toyware"]
    assert frame.filter(category="Plates")["colour"].null_count() < 15
    ran = shell(*given)
    assert ran.code == 0, ran.err
    assert pl.read_csv(out, infer_schema=False)["maker"].drop_nulls().unique().to_list() == ["Toyware"]
    ran = shell(*given, "--precision", "98")
    assert (ran.code, "between 0 and 1" in ran.err) == (2, True)


def test_a_holdout_and_a_promise_in_the_run(odd: Odd, machine: Machine):
    bundle = odd.fit(machine, evidence=0.3, decide=DecideOptions(precision=0.9))
    assert "Promise: precision 0.9" in " ".join(bundle.report.notes)
    answers = bundle.answer(odd.catalog, machine=machine)
    for row in range(240):
        assert all(entry["value"] is None for name, entry in answers.of(row).items() if name in ODD)
    assert any("Promise: precision 0.9" in note for note in answers.notes)
    with pytest.raises(UsageError, match="between 0 and 1"):
        bundle.promise(1.5)


@pytest.mark.parametrize(("products", "evidence"), [(6, 2), (10, 2), (25, 5), (6, 0.2), (12, 0.1)])
def test_tiny_catalogues(odd: Odd, machine: Machine, products: int, evidence: float):
    """With learning curves, whose smaller shares leave nothing to learn from; all of them on a few plates."""
    plates = np.flatnonzero(odd.catalog.category == odd.catalog.taxonomy.category_codes["Plates"])
    few = Odd(odd.directory, odd.catalog.select(plates[:products]))
    bundle = few.fit(machine, evidence=evidence, curve=True, random_split=True)
    assert all(np.isinf(part.threshold) and part.reason for part in bundle.promise(0.9).pairs.values())
    assert bundle.answer(few.catalog, precision=0.9, machine=machine).counts().get("answered", 0) == 0
    assert len(bundle.answer(few.catalog, machine=machine, every_cell=True)) == products


def test_one_value_and_nothing_else(odd: Odd, machine: Machine):
    frame = odd.catalog.frame.select("id", "image", "category", "maker")[:60]
    catalog = Catalog.read(frame, images=odd.directory, columns=Columns(choice=("maker",)))
    bundle = Odd(odd.directory, catalog).fit(machine, evidence=2, curve=True, random_split=True)
    assert bundle.report.score == 1
    assert all("one value" in part.reason for part in bundle.promise(0.9).pairs.values())


def test_values_that_say_an_attribute_does_not_apply(
    shell: Shell, odd: Odd, machine: Machine, tmp_path: Path
):
    """Named in the run file, whatever their case; answered as such, under a promise and without."""
    frame = odd.catalog.frame.select("id", "image", "category", "colour", "pattern", "tint")
    blue = pl.col("tint") == "blue"
    frame = frame.with_columns(pl.when(blue).then(pl.lit("N/A")).otherwise(pl.col("tint")).alias("tint"))
    table = odd.directory / "applicable.csv"
    frame.write_csv(table)
    run = tmp_path / "run.toml"
    run.write_text(
        f'[data]\ncatalog = "{table}"\nchoice = ["colour", "pattern", "tint"]\nevidence = 2\n'
        'not_applicable = ["unknown", "n/a"]\n[recipe]\nname = "probe"\nbackbone = "toy"\n'
    )
    quick = ("--engine", "torch", "--jobs", "1", "--cache", machine.cache)
    ran = shell("fit", run, "-o", tmp_path / "B", *quick)
    assert ran.code == 0, ran.err
    choices = {
        name: choice for name, choice in sw.load(tmp_path / "B").taxonomy.pairs() if choice.name == "tint"
    }
    assert {name: choice.not_applicable for name, choice in choices.items()} == dict.fromkeys(choices, "N/A")
    assert len(choices) == 3
    for more in ((), ("--precision", "0.9")):
        ran = shell("predict", tmp_path / "B", table, "-o", tmp_path / "out.csv", "--explain", *more, *quick)
        assert ran.code == 0, ran.err
        out = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
        states = out.filter(pl.col("tint") == "N/A")["tint.state"]
        assert len(states) > 20
        assert states.unique().to_list() == ["not applicable"]
        assert "not applicable" not in out.filter(pl.col("tint") != "N/A")["tint.state"].to_list()
        assert "not applicable" in ran.out


def test_without_the_option_no_value_says_so():
    frame = pl.DataFrame({"id": list("abcd"), "c": ["n/a", "x", "N/A", "x"], "d": ["x", "y", "x", "y"]})
    columns = Columns(choice=("c", "d"))
    plain = Catalog.read(frame, columns=columns).taxonomy
    assert {choice.not_applicable for _, choice in plain.pairs()} == {""}
    marked = Catalog.read(frame, columns=columns, not_applicable=("none", "n/A ")).taxonomy
    assert {choice.name: choice.not_applicable for _, choice in marked.pairs()} == {"c": "N/A", "d": ""}
    assert marked != plain
    assert [choice.values for _, choice in marked.pairs()] == [choice.values for _, choice in plain.pairs()]
