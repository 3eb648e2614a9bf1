"""Bundles that a network learns from beside its labels: its teacher, and the network it begins with."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import shelfwise as sw
from conftest import Toy
from shelfwise.errors import PredictionError, UsageError
from shelfwise.predictions import Machine
from shelfwise.recipes.sources import check_unseen, first_weights
from shelfwise.recipes.tuned import ALL, TunedPredictor

pytestmark = pytest.mark.usefixtures("one_thread")
SPLIT: dict[str, Any] = {"evidence": 0.3, "learn_from": "split", "random_split": False, "curve": False}


def recipe(**options: Any) -> sw.FineTune:
    short = ({"epochs": 1, "steps": 2, "lr": 1e-2},)
    return sw.FineTune(**{"backbone": sw.backbone("toy"), "phases": short, **options})


def tower(found: Any) -> dict[str, torch.Tensor]:
    assert isinstance(found, TunedPredictor)
    state = found.nets[ALL].network.state_dict()
    return {name: value for name, value in state.items() if name.startswith("tower.")}


@pytest.fixture(scope="module")
def teacher(toy: Toy, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A probe that was learnt from seven products in ten."""
    path = tmp_path_factory.mktemp("teacher") / "bundle"
    sw.fit(toy.catalog, sw.Probe(backbone=sw.backbone("toy")), machine=machine, **SPLIT).save(path)
    return path


@pytest.fixture(scope="module")
def tuned(toy: Toy, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tuned") / "bundle"
    longer = recipe(phases=({"epochs": 2, "lr": 2e-2},))
    sw.fit(toy.catalog, longer, machine=machine, **SPLIT).save(path)
    return path


def test_a_student_is_judged_on_what_its_teacher_has_not_learnt(
    toy: Toy, machine: Machine, teacher: Path, saved: Path
):
    student = recipe(teacher=teacher)
    found = sw.fit(toy.catalog, student, machine=machine, **SPLIT)
    evidence = sw.load(teacher).evidence
    assert found.evidence is not None
    assert evidence is not None
    assert found.evidence.ids == evidence.ids
    with pytest.raises(
        PredictionError, match=r"teacher: .* has learnt from .* held out as evidence, such as '"
    ):
        sw.fit(toy.catalog, student, machine=machine, seed=1, **SPLIT)
    with pytest.raises(PredictionError, match="the score would be too kind"):
        sw.cross_fit(student, toy.catalog, toy.catalog.folds(3, seed=0), machine=machine)
    inside = sw.Ensemble(members=(recipe(), recipe(teacher=saved)))
    with pytest.raises(PredictionError, match="the score would be too kind"):
        sw.fit(toy.catalog, inside, machine=machine, **SPLIT)


def test_products_are_told_apart_by_the_taxonomy_they_belong_to(toy: Toy, teacher: Path):
    """Another catalogue may use the same ids."""
    other = toy.catalog.frame.with_columns(pl.col("colour") + "ish")
    check_unseen(recipe(start_from=teacher), sw.Catalog.read(other, images=toy.directory))
    with pytest.raises(PredictionError, match="start_from"):
        check_unseen(recipe(start_from=teacher), toy.catalog)


def test_a_network_begins_where_another_ended(toy: Toy, machine: Machine, tuned: Path, tmp_path: Path):
    """The tower is the other one's; heads are its own, of another taxonomy."""
    frame = toy.catalog.frame.select(pl.exclude("pattern"))
    other = sw.Catalog.read(frame, images=toy.directory)
    assert other.taxonomy.hash != toy.catalog.taxonomy.hash
    few = other.select(np.arange(30))
    heads = ({"epochs": 1, "steps": 1, "train": "heads", "lr": 1e-3},)
    begun = recipe(start_from=tuned, phases=heads).fit(few, None, machine, 0)
    published = recipe(phases=heads).fit(few, None, machine, 0)
    ended = first_weights(tuned, sw.backbone("toy").table())
    assert tower(begun).keys() == ended.keys()
    assert all(torch.equal(value, ended[name]) for name, value in tower(begun).items())
    assert not all(torch.equal(value, ended[name]) for name, value in tower(published).items())
    (tmp_path / "saved").mkdir()
    begun.save(tmp_path / "saved")
    loaded = recipe(start_from=tmp_path / "gone").load(tmp_path / "saved", other.taxonomy)
    assert all(torch.equal(value, ended[name]) for name, value in tower(loaded).items())


def test_heads_go_on_where_they_ended(toy: Toy, machine: Machine, tuned: Path):
    """With a rate of nearly nothing, the network that goes on answers as the one it goes on from."""
    train = test = toy.catalog
    still = ({"epochs": 1, "steps": 1, "lr": 1e-9},)
    before = sw.load(tuned).predictor.predict(test, machine)
    answers = {}
    for start in ("kept", "random"):
        found = recipe(start_from=tuned, start=start, phases=still, dropout=0.0).fit(train, None, machine, 0)
        blocks = zip(before.blocks, found.predict(test, machine).blocks, strict=True)
        answers[start] = max(float(np.abs(one.probs - two.probs).max()) for one, two in blocks)
    assert answers["kept"] < 1e-3 < answers["random"]
    other = sw.Catalog.read(toy.catalog.frame.select(pl.exclude("pattern")), images=toy.directory)
    with pytest.raises(UsageError, match="do not fit the model"):
        recipe(start_from=tuned, start="kept").fit(other, None, machine, 0)
    with pytest.raises(ValueError, match="keeps the heads of the bundle that start_from names"):
        recipe(start="kept")


def test_the_network_of_a_member_is_found(toy: Toy, machine: Machine, tmp_path: Path):
    members = (sw.Probe(backbone=sw.backbone("toy")), recipe())
    bundle = sw.fit(toy.catalog, sw.Ensemble(members=members), machine=machine, **SPLIT)
    bundle.save(tmp_path / "both")
    found = first_weights(tmp_path / "both", sw.backbone("toy").table())
    assert all(torch.equal(value, found[name]) for name, value in tower(bundle.predictor.members[1]).items())


def test_what_nothing_can_begin_with_is_refused(
    toy: Toy, machine: Machine, teacher: Path, tuned: Path, tmp_path: Path
):
    few = toy.catalog.select(np.arange(12))
    for path, message in ((tmp_path, "there is no bundle at"), (teacher, "holds no fine-tuned network")):
        with pytest.raises(UsageError, match=message):
            recipe(start_from=path).fit(few, None, machine, 0)
    other = sw.backbone("timm", model="test_vit", weights=False)
    with pytest.raises(UsageError, match=f"the weights {tuned} do not fit the model"):
        recipe(start_from=tuned, backbone=other).fit(few, None, machine, 0)
