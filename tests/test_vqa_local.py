"""A vision-language model on this machine: a tiny random Qwen2-VL, scored value by value, tuned, saved and loaded."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shelfwise as sw
from conftest import Toy
from shelfwise.data.images import read_bytes
from shelfwise.data.small import small_image
from shelfwise.errors import BundleError, EngineError, PredictionError
from shelfwise.models.vision_language import VisionLanguage, fingerprint_of, load_model
from shelfwise.models.vision_tuning import (
    Example,
    Lora,
    adapter_of,
    order_of,
    put_adapter,
    tune,
    with_adapter,
)
from shelfwise.predictions import Machine, Predictions
from shelfwise.recipes.questions import attribute_question
from shelfwise.recipes.vqa_local import replies_of
from shelfwise.recipes.weights import read_arrays
from tiny_qwen import tiny_qwen

#: They are imported by the code under test, after torchvision's import was repaired where that is needed.
THERE = all(importlib.util.find_spec(name) for name in ("transformers", "peft"))
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # peft asks transformers for a name that is on its way out.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.skipif(not THERE, reason="needs transformers and peft"),
]
LORA = {
    "rank": 2,
    "epochs": 1,
    "lr": 1e-2,
    "accumulate": 2,
    "products": 4,
    "warm_up": 0.0,
    "targets": ["q_proj", "v_proj"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def model(folder: Path) -> VisionLanguage:
    return load_model(str(folder), "cpu", "auto")


def recipe(folder: Path, **options: Any) -> sw.Vqa:
    return sw.Vqa(**{"model": str(folder), "size": 32, "remember": False, **options})


def same(first: Predictions, second: Predictions, close: float = 0.0) -> bool:
    pairs = zip(first.blocks, second.blocks, strict=True)
    return all(float(np.abs(a.probs - b.probs).max()) <= close for a, b in pairs)


def whole_run(model: VisionLanguage, image: Any, question: str, lead: str, ending: str) -> float:
    """The log-likelihood of an ending by running everything at once, nothing remembered."""
    import torch

    given = model.inputs(image, question)
    begun, rest = model.tokens(lead), model.tokens(ending)
    n, extra = given["input_ids"].shape[1], torch.tensor([begun + rest])
    whole = {
        name: torch.cat(
            [t, extra if name == "input_ids" else torch.full_like(extra, name == "attention_mask")], 1
        )
        if t.shape == given["input_ids"].shape
        else t
        for name, t in given.items()
    }
    with torch.inference_mode():
        logs = model.model(**whole).logits[0].log_softmax(-1)
    return sum(float(logs[n + len(begun) - 1 + j, token]) for j, token in enumerate(rest))


def test_cached_likelihoods_are_those_of_whole_runs(
    model: VisionLanguage, toy: Toy, monkeypatch: pytest.MonkeyPatch
):
    image = small_image(read_bytes(toy.catalog.images[0]), 32)
    question = attribute_question(toy.catalog.taxonomy, "Cups", abstain=False)
    replies = replies_of(question)
    assert replies[0] == ('{"colour": "', ('blue"', 'green"', 'red"'))
    found = model.likelihoods(image, question.text, replies)
    for (lead, endings), logs in zip(replies, found, strict=True):
        for ending, log in zip(endings, logs, strict=True):
            assert log == pytest.approx(whole_run(model, image, question.text, lead, ending), abs=1e-4)
    monkeypatch.setattr("shelfwise.models.vision_language.SIDE_BY_SIDE", 2)
    again = model.likelihoods(image, question.text, replies)
    assert np.concatenate(again) == pytest.approx(np.concatenate(found), abs=1e-4)
    other = model.likelihoods(small_image(read_bytes(toy.catalog.images[1]), 32), question.text, replies)
    assert np.abs(np.concatenate(other) - np.concatenate(found)).max() > 1e-4, (
        "the picture makes no difference"
    )


def test_every_value_has_its_likelihood_and_nothing_is_unsure(
    folder: Path, toy: Toy, machine: Machine, tmp_path: Path
):
    some = toy.catalog.select(range(6))
    predictor = recipe(folder).fit(toy.catalog, None, machine, 0)
    found = predictor.predict(some, machine)
    assert not found.errors
    assert not found.unsure
    order = [4, 0, 3, 5, 1, 2]
    assert same(found.select(order), predictor.predict(some.select(order), machine), 1e-6)
    assert same(found.select([2]), predictor.predict(some.select([2]), machine), 1e-6)
    predictor.save(tmp_path)
    loaded = recipe(folder).load(tmp_path, toy.catalog.taxonomy)
    assert same(found, loaded.predict(some, machine))
    assert "6 questions asked on cpu" in found.notes[0]


def test_an_empty_category_and_a_listings_text(folder: Path, toy: Toy, machine: Machine):
    import polars as pl

    frame = toy.catalog.frame.with_columns(pl.lit(None, pl.String).alias("category"))
    blank = sw.Catalog.read(frame, images=toy.directory, schema=toy.catalog.schema).select([0, 1])
    predictor = recipe(folder, text=["title"]).fit(toy.catalog, None, machine, 0)
    found = predictor.predict(blank, machine)
    assert sorted(found.guessed) == [0, 1]
    plain = recipe(folder).fit(toy.catalog, None, machine, 0)
    one = toy.catalog.select([0])
    assert not same(plain.predict(one, machine), predictor.predict(one, machine), 1e-6)


def test_likelihoods_are_kept(folder: Path, toy: Toy, tmp_path: Path):
    machine = Machine(cache=tmp_path, jobs=1, engine="torch")
    predictor = recipe(folder, remember=True).fit(toy.catalog, None, machine, 0)
    some = toy.catalog.select([0, 1])
    first, again = predictor.predict(some, machine), predictor.predict(some, machine)
    assert same(first, again)
    assert ": 2 questions" in first.notes[0]
    assert ": 0 questions" in again.notes[0]


def test_another_model_in_the_folder_is_refused(folder: Path, toy: Toy, machine: Machine, tmp_path: Path):
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    predictor = recipe(copy).fit(toy.catalog, None, machine, 0)
    table = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**table, "initializer_range": 0.5}), encoding="utf-8")
    with pytest.raises(PredictionError, match="not the one"):
        predictor.predict(toy.catalog.select([0]), machine)
    assert fingerprint_of(str(folder)) != fingerprint_of(str(copy))


def test_a_model_that_is_not_there_says_what_now(toy: Toy, machine: Machine, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    predictor = recipe(tmp_path / "empty").fit(toy.catalog, None, machine, 0)
    with pytest.raises(EngineError, match="name the folder"):
        predictor.predict(toy.catalog.select([0]), machine)


# LoRA


def examples(toy: Toy, n: int) -> list[Example]:
    def shown() -> Any:
        return small_image(read_bytes(toy.catalog.images[0]), 32)

    return [Example(str(k), shown, "Which colour?", '{"colour": "blue"}') for k in range(n)]


def test_an_adapter_learns_the_replies(folder: Path, toy: Toy):
    options = Lora(**{**LORA, "epochs": 6, "products": None})
    tuned = with_adapter(load_model(str(folder), "cpu", "fp32"), options, 0)
    image, lead = examples(toy, 1)[0].image(), '{"colour": "'

    def log(ending: str) -> float:
        return float(tuned.likelihoods(image, "Which colour?", [(lead, (ending, 'green"'))])[0][0])

    base = {name: p.detach().clone() for name, p in tuned.model.named_parameters() if "lora_" not in name}
    before = log('blue"')
    losses = tune(tuned, examples(toy, 6), options, 0)
    assert len(losses) == 18
    # Norm and output layer of the random model are frozen, which leaves little to win.
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.08
    assert log('blue"') > before + 0.1
    assert all(bool((p == base[name]).all()) for name, p in tuned.model.named_parameters() if name in base)


def test_the_order_is_drawn_from_seed_epoch_and_name(toy: Toy):
    given = examples(toy, 9)
    names = [example.name for example in order_of(given, 0, 0)]
    assert names == [example.name for example in order_of(given[::-1], 0, 0)]
    assert names != [example.name for example in order_of(given, 0, 1)]
    assert names != [example.name for example in order_of(given, 1, 0)]


def test_fit_learns_an_adapter_and_keeps_it(folder: Path, toy: Toy, machine: Machine, tmp_path: Path):
    given, some = recipe(folder, lora=LORA), toy.catalog.select(range(3))
    train = toy.catalog.select(range(40))
    predictor = given.fit(train, None, machine, 0)
    found = predictor.predict(some, machine)
    plain = recipe(folder).fit(train, None, machine, 0).predict(some, machine)
    assert not same(plain, found, 1e-4), "the adapter makes no difference"
    for at, other in enumerate((predictor, given.fit(train.select(list(range(40))[::-1]), None, machine, 0))):
        (tmp_path / str(at)).mkdir()
        other.save(tmp_path / str(at))
    arrays, metadata = read_arrays(tmp_path / "0")
    assert len([name for name in arrays if name.startswith("lora.")]) == 8
    assert set(metadata) == {"seed", "model"}
    assert [file.name for file in (tmp_path / "0").iterdir()] == ["weights.safetensors"]
    assert (tmp_path / "0" / "weights.safetensors").read_bytes() == (
        tmp_path / "1" / "weights.safetensors"
    ).read_bytes()
    loaded = given.load(tmp_path / "0", toy.catalog.taxonomy)
    assert same(found, loaded.predict(some, machine))
    with pytest.raises(BundleError, match="adapter"):
        recipe(folder).load(tmp_path / "0", toy.catalog.taxonomy)
    wrong = recipe(folder, lora={**LORA, "rank": 3}).load(tmp_path / "0", toy.catalog.taxonomy)
    with pytest.raises(BundleError, match="another rank"):
        wrong.predict(some, machine)


def test_layers_that_are_not_there_are_named(folder: Path):
    with pytest.raises(EngineError, match="targets"):
        with_adapter(load_model(str(folder), "cpu", "fp32"), Lora(targets=("nose",)), 0)


def test_an_adapter_that_was_not_learnt_changes_nothing(folder: Path, model: VisionLanguage, toy: Toy):
    tuned = with_adapter(load_model(str(folder), "cpu", "fp32"), Lora(**LORA), 0)
    image, asked = examples(toy, 1)[0].image(), [('{"colour": "', ('blue"', 'red"'))]
    assert tuned.likelihoods(image, "q", asked)[0] == pytest.approx(
        model.likelihoods(image, "q", asked)[0], abs=1e-6
    )
    arrays = adapter_of(tuned)
    put_adapter(tuned, {name: array + 0.5 for name, array in arrays.items()})
    assert tuned.likelihoods(image, "q", asked)[0] != pytest.approx(
        model.likelihoods(image, "q", asked)[0], abs=1e-3
    )
