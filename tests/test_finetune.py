"""Fine-tuning: it learns, goes on after an interruption, answers as it did when saved; every option does something."""

import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import shelfwise as sw
from conftest import Toy
from shelfwise.bundle import Bundle
from shelfwise.catalog import Catalog
from shelfwise.config import make_recipe, read_run, to_toml
from shelfwise.errors import BundleError, CatalogError, ConfigError, UsageError
from shelfwise.models import backbones
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.recipes import training_run
from shelfwise.recipes.tuned import ALL, TunedPredictor
from shelfwise.train import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")
LONG = ({"epochs": 12, "lr": 2e-2},)
SHORT = ({"epochs": 1, "steps": 2, "lr": 1e-2},)


def recipe(**options: Any) -> sw.FineTune:
    return sw.FineTune(**{"backbone": sw.backbone("toy"), "phases": SHORT, **options})


def fit(given: sw.FineTune, catalog: Catalog, machine: Machine, seed: int = 0) -> TunedPredictor:
    found = given.fit(catalog, None, machine, seed)
    assert isinstance(found, TunedPredictor)
    return found


def weights(found: TunedPredictor, name: str = ALL) -> dict[str, torch.Tensor]:
    return found.nets[name].network.state_dict()


def alike(one: TunedPredictor, two: TunedPredictor) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def accuracy(found: Predictions, catalog: Catalog) -> float:
    return sw.evaluate(found, catalog, metric="accuracy", bootstrap=0).score


def same(one: Predictions, two: Predictions, close: float = 0.0) -> bool:
    pairs = zip(one.blocks, two.blocks, strict=True)
    return all(float(np.abs(a.probs - b.probs).max()) <= close for a, b in pairs)


@pytest.fixture
def parts(toy: Toy) -> tuple[Catalog, Catalog]:
    at = np.arange(len(toy.catalog))
    return toy.catalog.select(at[at % 3 > 0]), toy.catalog.select(at[at % 3 == 0])


def test_tuning_all_of_it_beats_tuning_the_heads(parts: tuple[Catalog, Catalog], machine: Machine):
    train, test = parts
    tuned = fit(recipe(phases=LONG, optimiser={"layer_decay": 0.8}, start="random"), train, machine)
    few = ({"epochs": 1, "train": "heads", "lr": 2e-2},)
    heads = fit(recipe(phases=few, start="random"), train, machine)
    scores = [accuracy(each.predict(test, machine), test) for each in (tuned, heads)]
    assert scores[0] > 0.85
    assert scores[0] > scores[1] + 0.05
    start = backbones.build_backbone(sw.backbone("toy")).module.state_dict()
    for name, value in start.items():
        assert torch.equal(weights(heads)[f"tower.{name}"], value)
        assert not torch.equal(weights(tuned)[f"tower.{name}"], value)
    assert [record["epoch"] for record in tuned.training] == list(range(12))
    losses = [record["loss"] for record in tuned.training]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("model", ["test_efficientnet", "test_vit"])
def test_a_saved_network_answers_the_same_without_the_weights_it_began_with(
    model: str, parts: tuple[Catalog, Catalog], machine: Machine, tmp_path: Path
):
    """The file that its first weights came from is gone when it is loaded."""
    from safetensors.torch import save_file

    begun = backbones.build_backbone(sw.backbone("timm", model=model, weights=False, seed=5)).module
    file = tmp_path / "first.safetensors"
    tensors = {name.removeprefix("net."): value.contiguous() for name, value in begun.state_dict().items()}
    save_file(tensors, file)
    given = recipe(backbone=sw.backbone("timm", model=model, weights=str(file)), test_flips=True, batch=8)
    found = fit(given, parts[0].select(range(16)), machine)
    assert not any("running_mean" in name and "tower" in name for name in weights(found))
    file.unlink()
    saved = tmp_path / "saved"
    saved.mkdir()
    found.save(saved)
    loaded = given.load(saved, parts[0].taxonomy)
    assert isinstance(loaded, TunedPredictor)
    assert alike(found, loaded)
    some = parts[1].select(range(4))
    assert same(found.predict(some, machine), loaded.predict(some, machine))
    assert loaded.nets[ALL].backbone.fingerprint == found.nets[ALL].backbone.fingerprint
    with pytest.raises(BundleError, match="not fine-tuned networks"):
        replace_options(given, heads=sw.heads("mlp", hidden=8)).load(saved, parts[0].taxonomy)


def replace_options(given: sw.FineTune, **options: Any) -> sw.FineTune:
    return sw.FineTune(**{**{name: getattr(given, name) for name in type(given).model_fields}, **options})


def test_lite0_is_loaded_without_its_packaged_weights(
    parts: tuple[Catalog, Catalog], machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = recipe(backbone=sw.backbone("lite0", size=32), batch=6)
    found = fit(given, parts[0].select(range(8)), machine)
    found.save(tmp_path)
    monkeypatch.setattr(backbones, "packaged_file", lambda name: pytest.fail("reads the packaged weights"))
    loaded = given.load(tmp_path, parts[0].taxonomy)
    assert isinstance(loaded, TunedPredictor)
    assert alike(found, loaded)


def test_an_interrupted_training_goes_on_to_the_same_weights(
    parts: tuple[Catalog, Catalog], machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = recipe(phases=({"epochs": 2}, {"epochs": 2, "train": "heads"}), save_minutes=0, validation=0.2)
    whole = fit(given, parts[0], replace(machine, runs=tmp_path / "whole"))
    there, write, count = replace(machine, runs=tmp_path / "broken"), checkpoint.save, iter(range(999))

    def breaking(*arguments: Any, **options: Any) -> Path:
        path = write(*arguments, **options)
        if next(count) in (2, 7, 11):
            raise KeyboardInterrupt
        return path

    monkeypatch.setattr(training_run.checkpoint, "save", breaking)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            fit(given, parts[0], there)
        (folder,) = (tmp_path / "broken").iterdir()
        assert list((folder / training_run.CHECKPOINTS).iterdir())
    found = fit(given, parts[0], there)
    assert alike(found, whole)
    for one, two in zip(found.training, whole.training, strict=True):
        assert {**one, "rates": 0} == {**two, "rates": 0}
    assert len(found.training) == 4
    assert {"scores", "pair_loss"} <= found.training[0].keys()
    assert not (folder / training_run.CHECKPOINTS).exists()
    assert (folder / "training.jsonl").exists()


def test_a_finished_training_is_not_repeated_and_another_one_is_not_mistaken_for_it(
    parts: tuple[Catalog, Catalog], machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    machine, train = replace(machine, runs=tmp_path), parts[0]
    first = fit(recipe(), train, machine)
    others = [
        fit(recipe(), train, machine, seed=1),
        fit(recipe(), train.select(range(100)), machine),
        fit(recipe(dropout=0.1), train, machine),
        fit(recipe(), replace(train, codes=np.where(train.codes == 1, 0, train.codes)), machine),
    ]
    assert not any(alike(first, other) for other in others)
    assert len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(training_run, "train_loop", lambda *given, **options: pytest.fail("trains again"))
    order = np.random.default_rng(0).permutation(len(train))
    assert alike(first, fit(recipe(pixels="decode"), train.select(order), machine))


def test_phases_train_what_they_say(parts: tuple[Catalog, Catalog], machine: Machine):
    start = fit(recipe(phases=({"epochs": 1, "steps": 1, "lr": 1e-12},)), parts[0], machine)
    one = fit(recipe(phases=({"epochs": 1, "train": ["Cups/colour"], "lr": 1e-2},)), parts[0], machine)
    part = start.taxonomy.slices("Cups")[0]
    for name, value in weights(one).items():
        if name.startswith("norm."):
            continue
        moved = (value - weights(start)[name]).abs() > 1e-6
        if name.startswith("heads.of.0.last"):
            assert bool(moved[..., part].any()), name
            moved[..., part] = False
        assert not bool(moved.any()), name
    with pytest.raises(UsageError, match="neither a layer group nor a head"):
        fit(recipe(phases=({"train": ["Cups/color"]},)), parts[0], machine)


CHANGES: dict[str, dict[str, Any]] = {
    "heads": {"heads": {"name": "mlp", "hidden": 8}},
    "standardise": {"standardise": False},
    "dropout": {"dropout": 0.5},
    "loss": {"choice_loss": {"name": "focal", "gamma": 2.0}},
    "class_weight": {"class_weight": 0.0},
    "logit_adjustment": {"logit_adjustment": 1.0},
    "sampler": {"sampler": "weighted"},
    "sampler_power": {"sampler": "weighted", "sampler_power": 1.0},
    "crop": {"augment": {"crop": {"scale": [0.3, 0.5]}}},
    "exclude": {"augment": {"exclude": {"flip": ["pattern"]}}},
    "spoil": {"augment": {"spoil": {"noise": {"probability": 1.0}}}},
    "adversary": {"adversary": {"epsilon": 8.0}},
    "mixing": {"mixing": {"mixup": 0.5, "probability": 1.0}},
    "margin": {"margin": 1.5},
    "batch": {"batch": 16},
    "optimiser": {"optimiser": {"name": "sgd"}},
    "weight_decay": {"optimiser": {"weight_decay": 0.5}},
    "precision": {"precision": "bf16"},
    "validation": {"validation": 0.2},
}


def test_every_option_changes_what_is_learnt(parts: tuple[Catalog, Catalog], machine: Machine):
    plain = fit(recipe(), parts[0], machine)
    found = {name: fit(recipe(**options), parts[0], machine) for name, options in CHANGES.items()}
    assert [name for name, other in found.items() if alike(plain, other)] == []
    assert not alike(found["sampler"], found["sampler_power"])
    flipped = fit(recipe(test_flips=True), parts[0], machine)
    assert alike(plain, flipped)
    assert not same(plain.predict(parts[1], machine), flipped.predict(parts[1], machine), 1e-4)
    turned = parts[1].select(range(9))
    assert same(flipped.predict(turned, machine), flipped.predict(mirrored(turned, machine), machine), 1e-3)


def mirrored(catalog: Catalog, machine: Machine) -> Catalog:
    """The same products, their photos mirrored."""
    from PIL import Image, ImageOps

    assert machine.cache is not None
    paths = []
    for path in catalog.images:
        assert path is not None
        paths.append(machine.cache / f"mirrored-{path.name}")
        ImageOps.mirror(Image.open(path)).save(paths[-1])
    return replace(catalog, images=tuple(paths))


def test_adapters_train_nothing_else_of_the_backbone_and_are_merged(
    parts: tuple[Catalog, Catalog], machine: Machine
):
    vit = sw.backbone("timm", model="test_vit", weights=False)
    found = fit(
        recipe(backbone=vit, lora={"rank": 2, "targets": ["qkv"]}, batch=8),
        parts[0].select(range(16)),
        machine,
    )
    start = backbones.build_backbone(vit).module.state_dict()
    assert {
        name.removeprefix("tower.") for name in weights(found) if name.startswith("tower.")
    } == start.keys()
    moved = {n for n, value in start.items() if not torch.equal(value, weights(found)[f"tower.{n}"])}
    assert moved
    assert all(name.endswith("qkv.weight") for name in moved)


def test_checkpointing_changes_nothing_and_says_where_it_cannot_be(
    parts: tuple[Catalog, Catalog], machine: Machine
):
    vit, some = sw.backbone("timm", model="test_vit", weights=False), parts[0].select(range(16))
    one, two = (fit(recipe(backbone=vit, checkpointing=on, batch=8), some, machine) for on in (False, True))
    for name, value in weights(one).items():
        assert torch.allclose(value.float(), weights(two)[name].float(), atol=1e-5), name
    with pytest.raises(UsageError, match="cannot checkpoint activations"):
        fit(recipe(checkpointing=True), some, machine)


def test_one_network_per_category(parts: tuple[Catalog, Catalog], machine: Machine, tmp_path: Path):
    train, test = parts
    given = recipe(per_category=True, phases=LONG, optimiser={"layer_decay": 0.8})
    taught = train.select(np.flatnonzero(train.category != 2))
    found = fit(given, taught, machine)
    assert sorted(found.nets) == ["0", "1"]
    assert not torch.equal(
        weights(found, "0")["tower.first.weight"], weights(found, "1")["tower.first.weight"]
    )
    said = found.predict(test, machine)
    for name in ("Cups", "Plates"):
        rows = test.rows(name)
        assert accuracy(said.select(rows), test.select(rows)) > 0.75
    towels = said.block("Towels")
    assert towels is not None
    assert np.allclose(towels.probs[:, :2], 0.5)
    open_ = test.category.copy()
    open_[test.rows("Plates")[:6]] = -1
    guessed = found.predict(replace(test, category=open_), machine)
    assert sorted(guessed.guessed) == test.rows("Plates")[:6].tolist()
    plates = guessed.block("Plates")
    assert plates is not None
    assert len(plates.rows) >= len(test.rows("Plates")) - 2
    found.save(tmp_path)
    assert same(said, given.load(tmp_path, test.taxonomy).predict(test, machine))
    scores = [pair[:2] for pair in found.training[0]["pair_loss"]]
    assert len(scores) == len({tuple(pair) for pair in scores}) == 5


def test_the_unlabelled_table_has_an_effect(
    parts: tuple[Catalog, Catalog], toy: Toy, machine: Machine, tmp_path: Path
):
    def table(name: str, rows: slice) -> Path:
        path = tmp_path / f"{name}.csv"
        toy.catalog.frame[rows].write_csv(path)
        return path

    common = {"mmd": {"weight": 1.0}, "unlabelled_images": toy.directory, "batch": 16}
    one = fit(recipe(unlabelled=table("one", slice(0, 20)), **common), parts[0], machine)
    two = fit(recipe(unlabelled=table("two", slice(40, 60)), **common), parts[0], machine)
    none = fit(recipe(batch=16), parts[0], machine)
    assert not alike(one, none)
    assert not alike(one, two)
    with pytest.raises(UsageError, match="unlabelled"):
        fit(recipe(mmd={"weight": 1.0}), parts[0], machine)
    with pytest.raises(CatalogError, match="no picture of the unlabelled"):
        fit(
            recipe(unlabelled=table("three", slice(3)), mmd={"weight": 1}, unlabelled_images=tmp_path),
            parts[0],
            machine,
        )


def test_a_student_follows_its_teacher(
    parts: tuple[Catalog, Catalog], toy: Toy, machine: Machine, saved: Path, tmp_path: Path
):
    """The teacher says that every cup is green, whatever its label; of plates it says nothing."""
    train, test = parts
    taxonomy, rows = train.taxonomy, train.rows("Cups")
    green = taxonomy.slices("Cups")[0].start + taxonomy.code("Cups", "colour", "green")
    probs = np.full((len(rows), taxonomy.width("Cups")), 1e-3, np.float32)
    probs[:, taxonomy.slices("Cups")[1]] = np.nan
    probs[:, green] = 1.0
    cups = train.select(rows)
    block = Block("Cups", np.arange(len(rows)), probs)
    Predictions(taxonomy, cups.ids, (block,)).save(tmp_path / "teacher.parquet")
    given = {"distil": {"weight": 1.0}, "phases": ({"epochs": 8, "lr": 2e-2},)}
    found = fit(recipe(teacher=tmp_path / "teacher.parquet", **given), train, machine).predict(test, machine)
    block_ = found.block("Cups")
    assert block_ is not None
    assert (block_.probs[:, taxonomy.slices("Cups")[0]].argmax(axis=1) == green).mean() > 0.75
    others = test.select(test.rows("Plates"))
    assert accuracy(found.select(test.rows("Plates")), others) > 0.6
    student = fit(recipe(teacher=saved), train, machine)
    assert not alike(student, fit(recipe(), train, machine))
    with pytest.raises(UsageError, match="neither saved Predictions nor a bundle"):
        fit(recipe(teacher=tmp_path / "nothing"), train, machine)


def test_pictures_that_cannot_be_read_are_left_out_and_said(toy: Toy, machine: Machine, tmp_path: Path):
    shutil.copytree(toy.directory, tmp_path / "toy")
    for number in (10, 11):
        (tmp_path / "toy" / "images" / f"{number:05d}.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    broken = Catalog.read(tmp_path / "toy" / "catalog.csv").select(range(60))
    found = fit(recipe(), broken, machine)
    assert len(found.learnt) == 1
    assert "2 of 57 products were left out of training" in found.learnt[0]
    kept = [row for row in range(60) if row not in (10, 11)]
    assert alike(found, fit(recipe(), toy.catalog.select(kept), machine))
    blind = Catalog.read(toy.catalog.frame, images=tmp_path)
    with pytest.raises(CatalogError, match="readable picture"):
        fit(recipe(), blind, machine)
    with pytest.raises(CatalogError, match="states a category and a value"):
        fit(recipe(), toy.catalog.select([7, 8]), machine)


def test_the_predictor_of_the_evidence_answers_where_that_is_asked_for(
    toy: Toy, machine: Machine, tmp_path: Path
):
    machine = replace(machine, runs=tmp_path / "runs")
    given = {"evidence": 0.3, "machine": machine}
    split = sw.fit(toy.catalog, recipe(), learn_from="split", **given)  # type: ignore[arg-type]
    assert len(list((tmp_path / "runs").iterdir())) == 1
    notes = " ".join(split.report.notes)
    assert "not taught the products held out" in notes
    assert "Neither a random split nor a learning curve" in notes
    assert split.report.expected.score == split.report.score
    everything = sw.fit(toy.catalog, recipe(), **given)  # type: ignore[arg-type]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    assert isinstance(split.predictor, TunedPredictor)
    assert isinstance(everything.predictor, TunedPredictor)
    assert not alike(split.predictor, everything.predictor)
    assert everything.report.score == split.report.score
    everything.save(tmp_path / "bundle")
    loaded = Bundle.load(tmp_path / "bundle")
    assert same(everything.predict(toy.catalog, machine), loaded.predict(toy.catalog, machine))
    assert isinstance(loaded.predictor, TunedPredictor)
    assert loaded.predictor.training == everything.predictor.training
    with pytest.raises(UsageError, match="share held out"):
        sw.fit(toy.catalog, recipe(), learn_from="split", machine=machine)


def test_a_run_file_has_phases_of_its_own(tmp_path: Path):
    given = recipe(
        phases=({"epochs": 2, "train": "heads"}, {"epochs": 8, "lr": {"backbone": 1e-5, "heads": 5e-5}})
    )
    text = to_toml(
        {"data": {"catalog": "train.csv"}, "recipe": {**given.table(), "teacher": "teacher.parquet"}}
    )
    assert text.count("[[recipe.phases]]") == 2
    assert "lr = { backbone = 1e-05, heads = 5e-05 }" in text
    assert make_recipe(tomllib.loads(to_toml({"recipe": given.table()}))["recipe"]) == given
    (tmp_path / "run.toml").write_text(text)
    run = read_run(tmp_path / "run.toml", ["recipe.phases.1.lr=0.5", "recipe.phases.0.train=2"])
    made = make_recipe(run.recipe)
    assert [phase.lr for phase in made.phases] == [given.phases[0].lr, 0.5]
    assert made.phases[0].train == 2
    assert made.teacher == tmp_path / "teacher.parquet"
    for override, message in (
        ("recipe.phases.2.lr=1", "no position in a list of 2"),
        ("recipe.phases.0.lrr=1", r"recipe\.phases\.0\.lrr: unknown key\. Did you mean 'lr'"),
        ("recipe.backbone.size=1", "no option 'size'"),
        ("data.learn_from=split", "needs a share held out"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_run(tmp_path / "run.toml", [override])


def test_a_run_file_fits_from_the_command_line(toy: Toy, shell: Any, tmp_path: Path):
    table = {
        "data": {"catalog": str(toy.table), "evidence": 0.3, "learn_from": "split"},
        "recipe": {"name": "finetune", "backbone": "toy", "phases": [{"epochs": 1}]},
    }
    (tmp_path / "run.toml").write_text(to_toml(table))
    folders = ("--cache", tmp_path / "cache", "--runs", tmp_path / "runs")
    quick = ("--engine", "torch", "--jobs", "1")
    ran = shell(
        "fit", tmp_path / "run.toml", "recipe.phases.0.epochs=2", "-o", tmp_path / "b", *folders, *quick
    )
    assert ran.code == 0, ran.message
    assert len(list((tmp_path / "runs").iterdir())) == 1
    answers = shell("predict", tmp_path / "b", toy.table, "-o", tmp_path / "out.csv", *folders[:2], *quick)
    assert answers.code == 0, answers.message
    assert len(pl.read_csv(tmp_path / "out.csv")) == len(toy.catalog)
