"""The verb blend, and show of what it writes: through the command line's real edge."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

import shelfwise as sw
from conftest import Shell, Toy
from shelfwise.predictions import Machine
from shelfwise.toys import toy_catalog


@pytest.fixture(scope="module")
def pair(
    toy: Toy, machine: Machine, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Two bundles of one table: the shared probe, and neighbours."""
    from shelfwise.models.towers import one_thread

    path = tmp_path_factory.mktemp("pair") / "neighbours"
    with one_thread():
        recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=5)
        sw.fit(toy.catalog, recipe, evidence=3, machine=machine, random_split=False, curve=False).save(path)
    return saved, path


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of other products: other ids, other pictures."""
    folder = tmp_path_factory.mktemp("fresh")
    table = toy_catalog(folder, products=90, seed=5)
    frame = pl.read_csv(table, infer_schema=False).with_columns(("new-" + pl.col("id")).alias("id"))
    frame.write_csv(table)
    return table


def test_bundles_become_one_that_answers_without_them(
    shell: Shell, pair: tuple[Path, Path], toy: Toy, fresh: Path, tmp_path: Path, machine: Machine
):
    copies = [tmp_path / "a", tmp_path / "b"]
    for source, copy in zip(pair, copies, strict=True):
        shutil.copytree(source, copy)
    out = tmp_path / "both"
    ran = shell("blend", *copies, "--on", toy.table, "-o", out, "--cache", machine.cache)
    assert ran.code == 0, ran.err
    assert "member 00" in ran.out
    assert "member 01" in ran.out
    assert f"weighed on {len(toy.catalog)} products" in " ".join(ran.out.split())
    for copy in copies:
        shutil.rmtree(copy)
    listed = json.loads((out / "bundle.json").read_text(encoding="utf-8"))["files"]
    assert {"members/00/weights.safetensors", "members/01/bundle.json", "weights.json"} <= set(listed)

    answers = tmp_path / "answers.csv"
    ran = shell("predict", out, fresh, "-o", answers, "--cache", machine.cache, "--engine", "torch")
    assert ran.code == 0, ran.err
    assert len(pl.read_csv(answers)) == 90
    ran = shell("show", out)
    assert "member 01: " in ran.out
    assert "Exponents" in ran.out

    member = sw.load(out / "members" / "01")
    assert member.recipe.name == "neighbours"


def test_a_changed_member_is_noticed(
    shell: Shell, pair: tuple[Path, Path], toy: Toy, tmp_path: Path, machine: Machine
):
    out = tmp_path / "both"
    assert shell("blend", *pair, "--on", toy.table, "-o", out, "--cache", machine.cache).code == 0
    file = out / "members" / "01" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00\x01")
    ran = shell("show", out)
    assert ran.code == 2
    assert "members/01/weights.safetensors was changed" in ran.message


def test_other_taxonomies_are_refused_by_what_differs(
    shell: Shell, saved: Path, toy: Toy, tmp_path: Path, machine: Machine
):
    frame = pl.read_csv(toy.table, infer_schema=False)
    changed = frame.with_columns(pl.col("colour").replace("green", "lime"))
    other = sw.fit(
        sw.Catalog.read(changed, images=toy.directory),
        sw.Neighbours(backbone=sw.backbone("toy")),
        evidence=3,
        machine=machine,
        random_split=False,
        curve=False,
    )
    other.save(tmp_path / "other")
    ran = shell("blend", saved, tmp_path / "other", "--on", toy.table, "-o", tmp_path / "out")
    assert ran.code == 2
    assert "have different taxonomies" in ran.message
    assert "Cups/colour of the second has no value 'green'" in ran.message
    assert not (tmp_path / "out").exists()


def test_products_learnt_from_without_evidence_are_left_out(
    shell: Shell, pair: tuple[Path, Path], toy: Toy, fresh: Path, tmp_path: Path, machine: Machine
):
    """A bundle whose evidence is a holdout has learnt from the rest, and cannot be judged on it."""
    recipe = sw.Neighbours(backbone=sw.backbone("toy"), k=5)
    held = sw.fit(toy.catalog, recipe, evidence=0.3, machine=machine, random_split=False, curve=False)
    held.save(tmp_path / "held")
    out = tmp_path / "out"
    ran = shell("blend", pair[0], tmp_path / "held", "--on", toy.table, "-o", out, "--cache", machine.cache)
    assert ran.code == 0, ran.err
    told = " ".join(ran.out.split())
    assert "that one has learnt from were left out" in told
    blended = sw.load(out)
    assert blended.evidence is not None
    assert held.evidence is not None
    assert set(blended.evidence.ids) <= set(held.evidence.ids)

    inside = toy.catalog.frame.filter(~pl.col("id").is_in(list(held.evidence.ids)))
    rest = tmp_path / "rest.csv"
    inside.write_csv(rest)
    ran = shell("blend", pair[0], tmp_path / "held", "--on", rest, "--images", toy.directory, "-o", out)
    assert ran.code == 2
    assert "no product is left to weigh the bundles on" in ran.message


def test_one_bundle_is_no_blend(shell: Shell, saved: Path, toy: Toy, tmp_path: Path):
    ran = shell("blend", saved, "--on", toy.table, "-o", tmp_path / "out")
    assert ran.code == 2
    assert "two bundles or more" in ran.message


def test_new_products_are_predicted_and_weighed(
    shell: Shell, pair: tuple[Path, Path], fresh: Path, tmp_path: Path, machine: Machine
):
    out = tmp_path / "out"
    ran = shell("blend", *pair, "--on", fresh, "-o", out, "--metric", "accuracy", "--cache", machine.cache)
    assert ran.code == 0, ran.err
    loaded = sw.load(out)
    assert loaded.report.metric == "accuracy"
    assert len(loaded.evidence or ()) == 90
