"""The command line: every verb on the toy catalogue, readable errors, and tables as suppliers send them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

import shelfwise as sw
from conftest import Shell, Toy
from hostile import write_hostile
from shelfwise.predictions import Machine
from shelfwise.testing import toy_catalog

TOY = ("recipe.name=probe", "recipe.backbone=toy", "data.evidence=2")
QUICK = ("--engine", "torch", "--jobs", "1")


@pytest.fixture
def cache(machine: Machine) -> tuple[str, str]:
    return "--cache", str(machine.cache)


def trimmed(path: Path, *columns: str, rows: int = 30) -> Path:
    """A later table: some columns of some rows."""
    frame = pl.read_csv(path, infer_schema=False).select(columns)[-rows:]
    later = path.parent / f"later-{'-'.join(columns)}.csv"
    frame.write_csv(later)
    return later


def test_challenge_shape_from_fit_to_evaluate(
    shell: Shell, challenge: Toy, cache: tuple[str, str], tmp_path: Path
):
    images = ("--images", challenge.directory / "images")
    listed = ("--attributes", challenge.directory / "attributes.json")
    bundle, out = tmp_path / "B", tmp_path / "sub.csv"
    ran = shell("fit", challenge.table, *TOY, *images, *listed, "-o", bundle, *QUICK, *cache)
    assert ran.code == 0, ran.err
    assert "harmonic_f1" in ran.out
    assert f"wrote {bundle}" in ran.out
    later = trimmed(challenge.table, "id", "Category", rows=50)
    ran = shell("predict", bundle, later, *images, "-o", out, *QUICK, *cache)
    assert ran.code == 0, ran.err
    frame, given = pl.read_csv(out, infer_schema=False), pl.read_csv(later, infer_schema=False)
    assert frame.columns == ["id", "Category", "len", "attr_1", "attr_2", "attr_3", "attr_4"]
    assert frame.select("id", "Category").rows() == given.rows()
    taxonomy = challenge.catalog.taxonomy
    for row in frame.iter_rows(named=True):
        choices = taxonomy.choices(row["Category"])
        assert int(row["len"]) == len(choices)
        for position, choice in enumerate(choices, start=1):
            assert row[f"attr_{position}"] in choice.values
        assert all(row[f"attr_{k}"] == "dummy_value" for k in range(len(choices) + 1, 5))
    ran = shell("predict", bundle, later, *images, "-o", out, "--filler", "-", *QUICK, *cache)
    assert pl.read_csv(out)["attr_4"].unique().to_list() == ["-"]
    # Other products: of those learnt from a bundle is judged out of fold, a file of its answers cannot be.
    table = toy_catalog(tmp_path / "others", products=120, seed=9, layout="challenge")
    images = ("--images", tmp_path / "others" / "images")
    shell("predict", bundle, table, *images, "-o", out, *QUICK, *cache)
    first = shell("evaluate", bundle, table, *images, "-o", tmp_path / "r.json", *QUICK, *cache)
    second = shell("evaluate", out, table, *images, *listed, *cache)
    assert (first.code, second.code) == (0, 0), second.err
    lead = [next(line for line in ran.out.splitlines() if "harmonic_f1" in line) for ran in (first, second)]
    assert lead[0] == lead[1]
    assert json.loads((tmp_path / "r.json").read_text())


def test_named_columns_in_every_form(
    shell: Shell, saved: Path, toy: Toy, cache: tuple[str, str], tmp_path: Path
):
    later = trimmed(toy.table, "id", "image", "category", "colour")
    out = tmp_path / "out.csv"
    ran = shell("predict", saved, later, "-o", out, "--explain", *QUICK, *cache)
    assert ran.code == 0, ran.err
    assert "30 rows, 0 with errors" in ran.out
    frame = pl.read_csv(out, infer_schema=False)
    assert frame.columns[:3] == ["id", "category", "colour"]
    assert {"pattern", "price", "colour.state", "colour.probability", "pattern.runner_up"} <= set(
        frame.columns
    )
    assert pl.read_csv(tmp_path / "out.errors.csv").is_empty()
    ran = shell("predict", saved, later, "-o", tmp_path / "out.parquet", *QUICK, *cache)
    parquet = pl.read_parquet(tmp_path / "out.parquet")
    assert parquet["colour"].to_list() == frame["colour"].to_list()
    assert parquet["colour.probability"].dtype == pl.Float32
    stated = pl.read_csv(later, infer_schema=False)["colour"]
    shell("predict", saved, later, "-o", out, "--keep-stated", *QUICK, *cache)
    kept = pl.read_csv(out, infer_schema=False)["colour"]
    assert all(new == old for new, old in zip(kept, stated, strict=True) if old)
    ran = shell("evaluate", out, later, *cache)
    assert (ran.code, "--keep-stated" in ran.err) == (2, True)


@pytest.mark.parametrize("jobs", ["1", "2", "3"])
def test_jobs_and_order_never_change_an_answer(
    shell: Shell, saved: Path, toy: Toy, tmp_path: Path, jobs: str, bundle: sw.Bundle, machine: Machine
):
    frame = pl.read_csv(toy.table, infer_schema=False).sample(fraction=1, shuffle=True, seed=int(jobs))
    frame.write_csv(toy.directory / f"shuffled-{jobs}.csv")
    given = (saved, toy.directory / f"shuffled-{jobs}.csv", "-o", tmp_path / "out.csv")
    ran = shell("predict", *given, "--jobs", jobs, "--engine", "torch", "--cache", tmp_path / "cache")
    assert ran.code == 0, ran.err
    got = pl.read_csv(tmp_path / "out.csv", infer_schema=False).sort("id")
    answers = bundle.answer(toy.catalog, machine=machine)
    for row, found in enumerate(got.iter_rows(named=True)):
        assert {name: entry["value"] for name, entry in answers.of(row).items()} == {
            name: found[name] for name in answers.of(row)
        }


def test_one_photo(shell: Shell, saved: Path, toy: Toy, cache: tuple[str, str], tmp_path: Path):
    photo = toy.directory / "images" / "00003.png"
    ran = shell("predict", saved, photo, "--category", "Plates", *QUICK, *cache)
    assert ran.code == 0, ran.err
    one = json.loads(ran.out)
    assert one["id"] == "00003"
    assert set(one["answers"]) == {"colour", "size", "pattern"}
    (tmp_path / "page.jpg").write_text("<html>")
    ran = shell("predict", saved, tmp_path / "page.jpg", *QUICK, *cache)
    assert (ran.code, json.loads(ran.out)["answers"]) == (1, {})
    ran = shell("predict", saved, photo, "--category", "Plate", *QUICK, *cache)
    assert (ran.code, ran.message) == (2, "error: there is no category 'Plate'. Did you mean 'Plates'?")


def test_init_check_and_fit_a_run_file(shell: Shell, cache: tuple[str, str], tmp_path: Path):
    from shelfwise.testing import toy_catalog

    table = toy_catalog(tmp_path / "data", products=90)
    text = table.read_text().replace("red", "Red ", 1)
    table.write_text(text)
    ran = shell("init", table, "--ignore", "price", "-o", tmp_path / "run")
    assert ran.code == 0, ran.err
    assert "attributes: colour, size, pattern" in ran.out
    run = tmp_path / "run" / "shelfwise.toml"
    assert '"Red " = "red"' in run.read_text()
    ran = shell("check", run, *cache)
    assert ran.code == 0, ran.out + ran.err
    ran = shell("fit", run, *TOY, "recipe.l2=0.2", "-o", tmp_path / "B", "--seed", "3", *QUICK, *cache)
    assert ran.code == 0, ran.err
    bundle = sw.load(tmp_path / "B")
    assert (bundle.run.seed, bundle.recipe.table()["l2"]) == (3, 0.2)
    assert bundle.taxonomy.choice("Cups", "colour").values == ("blue", "green", "red")
    ran = shell("init", table, "-o", tmp_path / "run")
    assert (ran.code, "is there already" in ran.err) == (2, True)
    ran = shell("show", tmp_path / "B")
    assert ran.code == 0
    assert "l2 = 0.2" in ran.out
    assert "catalog = " in ran.out


def test_compare_clean_embed_and_list(
    shell: Shell, saved: Path, toy: Toy, cache: tuple[str, str], tmp_path: Path
):
    out = tmp_path / "out.csv"
    shell("predict", saved, toy.table, "-o", out, *QUICK, *cache)
    ran = shell("compare", saved, out, toy.table, *QUICK, *cache)
    assert ran.code == 0, ran.err
    ran = shell("compare", saved, toy.table, *QUICK, *cache)
    assert ran.code == 2
    ran = shell("clean", toy.table, "-o", tmp_path / "f.csv", *cache)
    assert ran.code == 0, ran.err
    assert {"row", "id", "kind", "message"} <= set(pl.read_csv(tmp_path / "f.csv").columns)
    ran = shell("embed", toy.table, "--backbone", "toy", *QUICK, "--cache", tmp_path / "cache")
    assert "180 photos embedded, 0 known before" in ran.out
    ran = shell("embed", toy.table, "--backbone", "toy", *QUICK, "--cache", tmp_path / "cache")
    assert "0 photos embedded, 180 known before" in ran.out
    ran = shell("list")
    for word in ("probe", "neighbours", "lite0", "toy", "focal", "mlp", "harmonic_f1"):
        assert word in ran.out
    assert shell("list", "recipes").out.count(":") < ran.out.count(":")
    assert "Did you mean 'recipes'?" in shell("list", "recipe").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "{toy}", "-o", "{tmp}/B", "--sed", "3"], "No such option: --sed"),
        (["fit", "{toy}", "-o", "{tmp}/B", "--seed", "x"], "Invalid value for '--seed'"),
        (["fit", "{toy}", "-o", "{tmp}/B", "--seed", "-1"], "Invalid value for '--seed'"),
        (["fit", "{toy}", "-o", "{tmp}/B", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["fit", "{toy}", "-o", "{tmp}/B", "--colour", "x"], "No such option"),
        (["fit", "{tmp}/none.csv", "-o", "{tmp}/B"], "there is no table"),
        (["fit", "{tmp}/none.toml", "-o", "{tmp}/B"], "cannot read the run file"),
        (["fit", "{toy}", "-o", "{tmp}"], "is not a bundle; it is left as it is"),
        (["fit", "{toy}", "recipe.l3=1", "-o", "{tmp}/B"], "recipe.l3: unknown key"),
        (["fit", "{toy}", "recipe.l2", "-o", "{tmp}/B"], "an override is key=value"),
        (["fit", "{toy}", "--images", "{tmp}/none", "-o", "{tmp}/B"], "is not there"),
        (
            ["fit", "{toy}", "--attributes", "{tmp}/none.json", "-o", "{tmp}/B"],
            "cannot read the attribute list",
        ),
        (["fit", "{toy}", "--category", "categry", "-o", "{tmp}/B"], "Did you mean 'category'?"),
        (["fit", "{toy}", "recipe.backbone=toy", "--device", "tpu", "-o", "{tmp}/B"], "tpu"),
        (["fit", "{toy}", "recipe.backbone=toy", "--engine", "onnx", "-o", "{tmp}/B"], "onnx"),
        (["predict", "{tmp}/none", "{toy}", "-o", "{tmp}/o.csv"], "there is no bundle at"),
        (["predict", "{toy}", "{toy}", "-o", "{tmp}/o.csv"], "it is a file"),
        (["predict", "{saved}", "{toy}"], "needs -o OUT.csv"),
        (["predict", "{saved}", "{toy}", "-o", "{tmp}/o.xls"], "written to .csv or .parquet, not '.xls'"),
        (["predict", "{saved}", "{tmp}/none.csv", "-o", "{tmp}/o.csv"], "there is no table"),
        (["predict", "{saved}", "{saved}", "-o", "{tmp}/o.csv"], "is a directory"),
        (["predict", "{saved}"], "Missing argument"),
        (["evaluate", "{saved}", "{toy}", "--metric", "f1"], "f1"),
        (["clean", "{toy}", "-o", "{tmp}/f.txt"], ".csv, .parquet or .json"),
        (["embed", "{toy}", "--backbone", "lite9"], "Did you mean 'lite"),
        (["embed", "{toy}", "--backbone", "timm"], "needs the option 'model'"),
        (["check", "{saved}"], "reads a run file"),
        (["show", "{tmp}"], "no bundle at"),
        (["list", "colours"], "there is no list of 'colours'"),
        (["pedict", "{saved}", "{toy}"], "No such command 'pedict'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_readable_message(
    shell: Shell,
    toy: Toy,
    saved: Path,
    cache: tuple[str, str],
    tmp_path: Path,
    words: list[str],
    message: str,
):
    (tmp_path / "something").write_text("x")
    filled = [word.format(toy=toy.table, tmp=tmp_path, saved=saved) for word in words]
    ran = shell(*filled)
    assert ran.code == 2, ran.out + ran.err
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["something"], "something was written"


def hostile_table(directory: Path) -> tuple[Path, dict[int, str | None]]:
    """The toy rows, then rows with every hostile picture; the kind of error each row must get."""
    from shelfwise.testing import toy_catalog

    directory.mkdir()
    table = toy_catalog(directory / "photos", products=6)
    expected = write_hostile(directory / "photos")
    frame = pl.read_csv(table, infer_schema=False).select("id", "image", "category", "colour")
    rows = [*frame.rows(), *((f"h{k}", name, "Cups", "red") for k, name in enumerate(expected))]
    kinds: dict[int, str | None] = {6 + k: kind for k, kind in enumerate(expected.values())}
    extra = [
        ("00001", "images/00001.png", "Cups", "red"),
        ("x1", "images/00002.png", "Spaceships", "red"),
        ("x2", "images/00002.png", "Cups", "octarine"),
        ("x3", "../../secret.png", "Cups", "red"),
        ("x4", "/etc/passwd", "Cups", "red"),
        ("x5", "images/00003.png", "", "red"),
    ]
    kinds |= {len(rows) + 3: "outside", len(rows) + 4: "outside"}
    Image.new("RGB", (8, 8)).save(directory.parent / "secret.png")
    pl.DataFrame([*rows, *extra], schema=frame.columns, orient="row").write_csv(
        directory / "photos" / "t.csv"
    )
    return directory / "photos" / "t.csv", {row: kind for row, kind in kinds.items() if kind is not None}


@pytest.mark.filterwarnings("default")
def test_a_hostile_table_is_reported_whole_and_predicted_to_the_end(
    shell: Shell, saved: Path, cache: tuple[str, str], tmp_path: Path
):
    table, kinds = hostile_table(tmp_path / "data")
    given = pl.read_csv(table, infer_schema=False)
    n = given.height
    ran = shell("check", table, "--bundle", saved, "-o", tmp_path / "found.json", *cache)
    assert ran.code == 1, ran.err
    assert "Traceback" not in ran.err
    found = json.loads((tmp_path / "found.json").read_text())
    told = {(entry["kind"], entry["row"]) for entry in found}
    assert {("duplicate_id", n - 5), ("unknown_category", n - 4), ("unknown_value", n - 3)} <= told
    images = {
        entry["row"]: entry["kind"]
        for entry in found
        if entry["severity"] == "error" and entry["kind"].startswith("image_")
    }
    assert images == {row + 1: f"image_{kind}" for row, kind in kinds.items()}
    assert len(kinds) >= 30, "thirty hostile pictures"
    assert all(entry["id"] == given["id"][entry["row"] - 1] for entry in found if entry["row"] is not None)

    ran = shell("predict", saved, table, "-o", tmp_path / "out.csv", "--explain", *QUICK, *cache)
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err
    out = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert out["id"].to_list() == given["id"].to_list()
    errors = pl.read_csv(tmp_path / "out.errors.csv", infer_schema=False)
    said: dict[int, list[tuple[str, str]]] = {}
    for entry in errors.iter_rows(named=True):
        said.setdefault(int(entry["row"]) - 1, []).append((entry["field"], entry["error"]))
    readable = [row for row in range(n) if row not in kinds and row != n - 5]
    flagged = {row for row in readable if out["colour.state"][row] in ("unfamiliar", "category?")}
    assert set(said) == set(kinds) | {n - 5, n - 1} | flagged
    for row, kind in kinds.items():
        ((field, error),) = said[row]
        assert (field, error.split(":")[0]) == ("image", kind)
        assert out["colour"][row] is None
    assert "Spaceships" in said[n - 5][0][1]
    assert any("the category was empty; predicted" in error for _, error in said[n - 1])
    ran = shell("predict", saved, table, "-o", tmp_path / "out.csv", "--every-cell", *QUICK, *cache)
    every = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert all(every["colour"][row] for row in readable)
    assert {row for row in readable if not out["colour"][row]} == flagged
    assert len(flagged) < len(readable)


def command(*words: object) -> list[str]:
    """The command line in a process of its own that knows the toy backbone."""
    program = "import shelfwise.testing; from shelfwise.cli import run; run()"
    return [sys.executable, "-c", program, *map(str, words)]


@pytest.mark.slow
def test_killed_and_interrupted_runs_leave_nothing_half_written(toy: Toy, tmp_path: Path):
    """Killed or interrupted at several moments, then run again: the bundle is that of an undisturbed run."""

    def words_to(target: Path, cache: Path) -> list[str]:
        fit = ("fit", toy.table, *TOY, "-o", target, *QUICK, "--cache", cache)
        return command(*fit)

    target, undisturbed = tmp_path / "B", tmp_path / "C"
    words = words_to(target, tmp_path / "cache")
    began = time.monotonic()
    subprocess.run(words_to(undisturbed, tmp_path / "other"), capture_output=True, check=True)
    took = time.monotonic() - began
    for share, how in ((0.55, signal.SIGKILL), (0.75, signal.SIGINT), (0.9, signal.SIGKILL)):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(share * took)
        process.send_signal(how)
        _, err = process.communicate()
        assert "Traceback" not in err
        if target.exists():
            sw.load(target)
        shutil.rmtree(target, ignore_errors=True)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "wrote" in done.stdout
    sw.load(target)
    for path in undisturbed.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes(), path.name
    # A process killed while it writes cannot clear its own temporary folder; nothing else may be left.
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".B")]
    assert len([name for name in left if name.startswith(".B.tmp-")]) == len(left) <= 2


def test_errors_of_the_real_command(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "shelfwise.cli", "show", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: there is no bundle at {tmp_path}\n"


@pytest.mark.data
@pytest.mark.slow
def test_part_of_the_fashion_catalogue(shell: Shell, shared_data: Path, machine: Machine, tmp_path: Path):
    """The challenge's columns on real photos: fit, predict on ``id,Category`` only, values of that category only."""
    fashion = shared_data / "fashion"
    frame = pl.read_csv(fashion / "train.csv", infer_schema=False)[:600]
    frame.write_csv(tmp_path / "train.csv")
    frame.select("id", "Category")[::-1][:100].write_csv(tmp_path / "test.csv")
    common = ("--images", fashion / "train_images", "--cache", machine.cache)
    listed = ("--attributes", fashion / "category_attributes.parquet")
    fit = ("fit", tmp_path / "train.csv", *listed, *common, "data.evidence=2", "-o", tmp_path / "B")
    ran = shell(*fit, "recipe.name=probe", "recipe.backbone=toy", *QUICK)
    assert ran.code == 0, ran.err
    given = ("predict", tmp_path / "B", tmp_path / "test.csv", *common, "-o", tmp_path / "sub.csv")
    ran = shell(*given, "--every-cell", *QUICK)
    assert ran.code == 0, ran.err
    out = pl.read_csv(tmp_path / "sub.csv", infer_schema=False)
    given = pl.read_csv(tmp_path / "test.csv", infer_schema=False)
    assert out.columns == ["id", "Category", "len", *(f"attr_{k}" for k in range(1, 11))]
    assert out.select("id", "Category").rows() == given.rows()
    taxonomy, lengths = (
        sw.load(tmp_path / "B").taxonomy,
        dict(zip(frame["Category"], frame["len"], strict=True)),
    )
    for row in out.iter_rows(named=True):
        choices = taxonomy.choices(row["Category"])
        assert row["len"] == lengths[row["Category"]] == str(len(choices))
        for position, choice in enumerate(choices, start=1):
            assert row[f"attr_{position}"] in choice.values or not choice.values
    report = sw.load(tmp_path / "B").report
    assert np.isfinite(report.score)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(
    shell: Shell, toy: Toy, cache: tuple[str, str], tmp_path: Path
):
    file = tmp_path / "notes.txt"
    file.write_text("kept")
    for out in (file / "B", file / "deeper" / "B"):
        ran = shell("fit", toy.table, *TOY, "-o", out, *QUICK, *cache)
        assert (ran.code, ran.err) == (2, f"error: {out} cannot be written: {file} is no folder\n")
        assert not ran.out, "nothing was read"
    ran = shell("check", toy.table, "--html", file / "page.html", *cache)
    assert (ran.code, ran.out) == (2, "")
    assert file.read_text() == "kept"


def test_what_the_file_system_refuses_is_a_message_and_leaves_nothing(
    shell: Shell, toy: Toy, cache: tuple[str, str], tmp_path: Path
):
    folder = tmp_path / "page.html"
    folder.mkdir()
    ran = shell("check", toy.table, "--html", folder, *cache)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(
        f"error: {folder}: Is a directory. Nothing is left half-written: "
    )
    assert list(tmp_path.iterdir()) == [folder]


def test_a_cache_that_cannot_be_made_is_named(shell: Shell, toy: Toy, tmp_path: Path):
    file = tmp_path / "cache"
    file.touch()
    ran = shell("fit", toy.table, *TOY, "-o", tmp_path / "B", *QUICK, "--cache", file)
    assert ran.code == 2
    assert f"cannot make the cache directory {file}" in ran.err
    assert not (tmp_path / "B").exists()
