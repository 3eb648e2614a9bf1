"""Bundle: saved whole, checked before use, and the same answers after loading."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.bundle import Bundle
from shelfwise.errors import BundleError, TaxonomyError
from shelfwise.predictions import Machine, Predictions


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def same(first: Predictions, second: Predictions) -> bool:
    return first.ids == second.ids and all(
        np.array_equal(a.probs, b.probs) and np.array_equal(a.rows, b.rows)
        for a, b in zip(first.blocks, second.blocks, strict=True)
    )


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_what_is_in_a_bundle(saved: Path):
    names = set(contents(saved))
    assert names == {
        "bundle.json",
        "taxonomy.json",
        "recipe.toml",
        "report.json",
        "card.md",
        "weights.safetensors",
        "evidence.parquet",
        "decision.json",
        "index.safetensors",
        "claims.json",
    }
    index = json.loads((saved / "bundle.json").read_text())
    assert set(index["files"]) == names - {"bundle.json"}
    assert index["format"] == 1
    card = (saved / "card.md").read_text()
    for part in ("180", "Cups", "colour", "price", "Licences", "interval"):
        assert part in card


def test_loaded_it_answers_the_same(
    bundle: Bundle, saved: Path, toy: Toy, machine: Machine, one_thread: None
):
    loaded = sw.load(saved)
    assert loaded.recipe == bundle.recipe
    assert loaded.taxonomy == bundle.taxonomy
    assert loaded.schema == bundle.schema
    assert loaded.report.score == pytest.approx(bundle.report.score)
    assert loaded.summary.keys() == bundle.summary.keys()
    assert same(loaded.predict(toy.catalog, machine), bundle.predict(toy.catalog, machine))


def test_saved_again_it_is_the_same_bytes(bundle: Bundle, saved: Path, tmp_path: Path):
    bundle.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(saved)
    sw.load(saved).save(tmp_path / "loaded")
    assert contents(tmp_path / "loaded") == contents(saved)


@pytest.mark.parametrize(
    "name",
    [
        "taxonomy.json",
        "recipe.toml",
        "report.json",
        "card.md",
        "weights.safetensors",
        "evidence.parquet",
        "decision.json",
        "index.safetensors",
        "claims.json",
    ],
)
def test_a_changed_or_missing_file_is_refused(copy: Path, name: str):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match=f"the file {name} was changed"):
        sw.load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"the file {name} is missing"):
        sw.load(copy)


def rewrite(path: Path, **changes: object) -> None:
    index = json.loads((path / "bundle.json").read_text())
    (path / "bundle.json").write_text(json.dumps({**index, **changes}))


def test_an_index_that_is_wrong_is_refused(copy: Path, tmp_path: Path):
    rewrite(copy, format=99)
    with pytest.raises(BundleError, match="bundle format 99 is not known"):
        sw.load(copy)
    (tmp_path / "secret").write_text("x")
    rewrite(copy, format=1, files={"../secret": "0"})
    with pytest.raises(BundleError, match="outside itself"):
        sw.load(copy)
    rewrite(copy, files={})
    with pytest.raises(BundleError, match=r"not listed in bundle\.json"):
        sw.load(copy)
    for text in ("", "[]", "{}", "not json"):
        (copy / "bundle.json").write_text(text)
        with pytest.raises(BundleError, match=r"bundle\.json"):
            sw.load(copy)


def test_no_bundle_there(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, message in (("none", "nothing is there"), ("empty", "no bundle at"), ("file", "it is a file")):
        with pytest.raises(BundleError, match=message):
            sw.load(tmp_path / name)


def test_nothing_that_is_not_a_bundle_is_replaced(bundle: Bundle, tmp_path: Path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "holiday.jpg").write_text("dear")
    (tmp_path / "file").write_text("dear")
    for path in (photos, tmp_path / "file"):
        with pytest.raises(BundleError, match="is not a bundle; it is left as it is"):
            bundle.save(path)
    assert (photos / "holiday.jpg").read_text() == "dear"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "photos"]
    (tmp_path / "empty").mkdir()
    bundle.save(tmp_path / "empty")
    bundle.save(tmp_path / "empty")
    assert sw.load(tmp_path / "empty").taxonomy == bundle.taxonomy


def test_another_order_of_values_is_refused(copy: Path):
    """A taxonomy that was swapped together with its sums: labels must not change their meaning."""
    from shelfwise.files import sha256

    table = json.loads((copy / "taxonomy.json").read_text())
    table["categories"][0]["attributes"][0]["values"].reverse()
    (copy / "taxonomy.json").write_text(json.dumps(table))
    index = json.loads((copy / "bundle.json").read_text())
    index["files"]["taxonomy.json"] = sha256(copy / "taxonomy.json")
    (copy / "bundle.json").write_text(json.dumps(index))
    with pytest.raises(TaxonomyError, match="does not match its sha256"):
        sw.load(copy)


def test_a_table_is_read_as_in_training(bundle: Bundle, toy: Toy, machine: Machine, one_thread: None):
    few = toy.catalog.frame.select("id", "image", "category")[:5]
    catalog = bundle.read(few, images=toy.directory)
    assert catalog.taxonomy == bundle.taxonomy
    answers = bundle.answer(catalog, machine=machine)
    assert answers.ids == tuple(few["id"])
    assert not answers.errors
    plain = bundle.answer(toy.catalog.select(range(5)), machine=machine)
    assert [answers.of(row) for row in range(5)] == [plain.of(row) for row in range(5)]


def test_stated_cells_are_never_looked_at(bundle: Bundle, toy: Toy, machine: Machine, one_thread: None):
    wrong = toy.catalog.frame.with_columns(
        pl.lit("red").alias("colour"), pl.lit("nonsense").alias("pattern"), pl.lit("9999").alias("price")
    )
    first = bundle.predict(toy.catalog, machine)
    assert same(first, bundle.predict(bundle.read(wrong, images=toy.directory), machine))


def test_one_photo(bundle: Bundle, toy: Toy, machine: Machine, one_thread: None, tmp_path: Path):
    photo = toy.directory / "images" / "00002.png"
    name = toy.catalog.frame["category"][2]
    one = bundle.answer_one(photo, category=name, machine=machine)
    row = bundle.answer(toy.catalog, machine=machine).of(2)
    assert (one["id"], one["category"], one["error"]) == ("00002", name, None)
    assert {k: v["value"] for k, v in one["answers"].items()} == {k: v["value"] for k, v in row.items()}
    guessed = bundle.answer_one(photo, id="x", machine=machine)
    assert guessed["category"] in bundle.taxonomy.categories
    assert guessed["id"] == "x"
    with pytest.raises(TaxonomyError, match="Did you mean 'Cups'"):
        bundle.answer_one(photo, category="Cup", machine=machine)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    broken = bundle.answer_one(tmp_path / "broken.jpg", category="Cups", machine=machine)
    assert broken["answers"] == {}
    assert broken["error"]


def test_killed_while_saving_it_is_the_old_one_or_the_new_one(saved: Path, tmp_path: Path):
    target = tmp_path / "bundle"
    shutil.copytree(saved, target)
    program = f"""
import sys
import shelfwise.testing
import shelfwise as sw
bundle = sw.load({str(saved)!r})
print("ready", flush=True)
while True:
    bundle.save({str(target)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        for wait in (0.013, 0.031, 0.057):
            time.sleep(wait)
            process.send_signal(signal.SIGSTOP)
            os.waitpid(process.pid, os.WUNTRACED)
            # Stopped at a random moment, the directory under its name, or its old copy, is whole.
            whole = [p for p in (target, *tmp_path.glob(".bundle.old-*")) if (p / "bundle.json").is_file()]
            assert any(contents(path) == contents(saved) for path in whole)
            process.send_signal(signal.SIGCONT)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert sw.load(target).taxonomy == sw.load(saved).taxonomy
    sw.load(saved).save(target)
    assert contents(target) == contents(saved)
