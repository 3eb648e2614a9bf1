"""Speed: what is measured, where it is written, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Shell, Toy
from shelfwise.bundle import Bundle, load
from shelfwise.errors import BundleError, UsageError
from shelfwise.models.backbones import build_backbone
from shelfwise.models.runners import TorchEngine
from shelfwise.predictions import Machine
from shelfwise.registry import backbone
from shelfwise.speed import Speed, measure, milliseconds_each, write_speed

SPEED = Speed(1_234_567, 8.5, 410.2, 12.34, 98.7, "a processor, 2 threads", "torch 2 f32 on cpu")


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "toy"))


def test_what_is_measured_is_of_this_bundle(bundle: Bundle, saved: Path, machine: Machine):
    found = measure(bundle, saved, machine=machine)
    network = sum(each.numel() for each in build_backbone(backbone("toy")).module.parameters())
    assert found.parameters > network
    assert found.megabytes == pytest.approx(sum(f.stat().st_size for f in saved.rglob("*")) / 1e6, abs=0.05)
    assert 0 < found.milliseconds < 10_000
    assert found.per_second > 0
    assert found.peak_megabytes > 50
    assert "1 threads" in found.device
    assert "torch" in found.engine


def test_it_is_kept_in_the_bundle_and_on_its_card(copied: Path):
    bundle = load(copied)
    assert bundle.speed is None
    assert "Not measured yet" in (copied / "card.md").read_text(encoding="utf-8")
    write_speed(copied, bundle, SPEED)
    again = load(copied)  # its files are listed with their hashes
    assert again.speed == SPEED
    card = (copied / "card.md").read_text(encoding="utf-8")
    assert "- One photo at a time: 12.3 ms a photo." in card
    assert "- Parameters: 1,234,567." in card
    assert "a processor, 2 threads" in card
    again.save(copied)
    assert load(copied).speed == SPEED


def test_a_broken_file_is_said(copied: Path):
    write_speed(copied, load(copied), SPEED)
    (copied / "speed.json").write_text(json.dumps({"parameters": 1}), encoding="utf-8")
    with pytest.raises(BundleError, match="changed since"):
        load(copied)
    with pytest.raises(BundleError, match="--measure"):
        Speed.load(copied)


def test_photos_answered_before_are_not_faster(
    toy: Toy, bundle: Bundle, machine: Machine, monkeypatch: pytest.MonkeyPatch
):
    """A cache that knows the photos must not be what is measured."""
    bundle.answer(toy.catalog, machine=machine)
    seen, run = [], TorchEngine.run

    def counted(engine: TorchEngine, images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return run(engine, images)

    monkeypatch.setattr(TorchEngine, "run", counted)
    milliseconds_each(bundle, toy.catalog, machine=machine)
    assert len(seen) == 16  # one to start with, and fifteen that count


def test_a_table_without_photos_has_no_time(toy: Toy, bundle: Bundle):
    none = replace(toy.catalog, images=(None,) * len(toy.catalog))
    with pytest.raises(UsageError, match="no product has a photo"):
        milliseconds_each(bundle, none)


def test_show_measures_and_says(shell: Shell, copied: Path, tmp_path: Path):
    before = shell("show", copied)
    assert "speed: not measured; see --measure" in before.out
    ran = shell("show", copied, "--measure", "--cache", tmp_path / "cache", "--engine", "torch", "--jobs", 1)
    assert ran.code == 0, ran.err
    after = shell("show", copied).out
    for what in (
        "parameters",
        "on disk",
        "peak memory",
        "one photo at a time",
        "many at once",
        "device",
        "engine",
    ):
        assert re.search(rf"^{what}: \S", ran.out, re.MULTILINE)
        assert re.search(rf"^{what}: \S", after, re.MULTILINE)


def test_evaluate_fails_a_bundle_that_is_too_slow(shell: Shell, saved: Path, toy: Toy, tmp_path: Path):
    rest = ("--cache", tmp_path / "cache", "--engine", "torch")
    slow = shell("evaluate", saved, toy.table, "--max-ms", "0.001", *rest)
    assert slow.code == 1
    assert re.search(r"takes [\d.]+ ms, the median; the limit is 0.001 ms", slow.err)
    assert "harmonic_f1" in slow.out  # the scores are there all the same
    fine = shell("evaluate", saved, toy.table, "--max-ms", "60000", *rest)
    assert fine.code == 0, fine.err
    assert "the limit is 60000 ms" in fine.out
    answers = tmp_path / "out.csv"
    assert shell("predict", saved, toy.table, "-o", answers, *rest).code == 0
    wrong = shell("evaluate", answers, toy.table, "--max-ms", "10")
    assert wrong.code == 2
    assert "a file of answers" in wrong.message
