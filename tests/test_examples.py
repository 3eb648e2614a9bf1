"""Every run file in ``examples/``, end to end on the rendered catalogue: fit, save, load, predict, evaluate.

Backbones are replaced by tiny ones of the same architecture with random weights, epochs by one, products by few;
everything else is as the file says.
"""

import importlib.util
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shelfwise.bundle import load
from shelfwise.catalog import Catalog
from shelfwise.config import RunOptions, make_recipe, run_options
from shelfwise.evaluate import evaluate
from shelfwise.fit import fit
from shelfwise.predictions import Machine
from shelfwise.rendering import render_catalog
from shelfwise.start import fit_run, read_data
from tiny_bert import tiny_bert
from tiny_qwen import tiny_qwen

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.toml"))
#: The stand-in of every network: same kind of layers, a hundredth of the size or less.
STAND_INS = {
    "convnext_base": {"model": "test_convnext", "size": 64},
    "resnet50": {"model": "test_resnet", "size": 64},
    "seresnext50_32x4d": {"model": "seresnext26d_32x4d", "size": 32},
    "swin_base_patch4_window7_224": {"model": "swin_tiny_patch4_window7_224", "size": 64},
    "efficientnet_b4": {"model": "test_efficientnet", "size": 64},
}
TINY_CLIP = {
    "ViT": {"vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}, "quick_gelu": True},
    "convnext": {
        "vision_cfg": {
            "timm_model_name": "test_convnext",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "timm_drop": 0.0,
            "image_size": 32,
        }
    },
    "coca": {
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 64,
            "patch_size": 8,
            "attentional_pool": True,
            "attn_pooler_heads": 4,
            "output_tokens": True,
        },
        "multimodal_cfg": {
            "context_length": 16,
            "vocab_size": 128,
            "width": 32,
            "heads": 2,
            "layers": 1,
            "attn_pooler_heads": 2,
        },
        "custom_text": True,
    },
}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    render_catalog(directory, products=200, size=(96, 128))
    return directory


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("few")
    render_catalog(directory, products=40, size=(48, 64))
    return directory


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(cache=tmp_path_factory.mktemp("cache"), jobs=1)


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tiny models under names of our own, in open_clip's list."""
    from shelfwise.models.torchvision_repair import import_torchvision

    import_torchvision()
    open_clip = pytest.importorskip("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    for name, config in TINY_CLIP.items():
        whole = {"embed_dim": 64, "text_cfg": TEXT, **config}
        (folder / f"tiny-{name}.json").write_text(json.dumps(whole), encoding="utf-8")
    open_clip.add_model_config(folder)


#: The folder of a tiny text encoder, once it is written.
BERT: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def bert(tmp_path_factory: pytest.TempPathFactory) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    BERT[:] = [tiny_bert(tmp_path_factory.mktemp("bert"))]


def tiny(backbone: Any) -> dict[str, Any]:
    """A table of a backbone or a text encoder, with a tiny network of the same kind in it."""
    table = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
    if table["name"] == "pair":
        table |= {side: tiny(table[side]) for side in ("image", "text")}
        table |= {"width": 16, "heads": 2} if table["width"] else {}
    elif table["name"] == "sentence":
        table |= {"model": str(BERT[0]), "max_tokens": 16}
    elif table["name"] in ("open_clip", "clip"):
        kind = next(kind for kind in TINY_CLIP if kind.lower() in table["model"].lower())
        table |= {"model": f"tiny-{kind}", "weights": False}
    elif table["name"] == "timm":
        table |= {**STAND_INS[table["model"]], "weights": False}
    else:
        table["size"] = 64
    return table


def short(phase: dict[str, Any]) -> dict[str, Any]:
    """A phase of two steps; tiny networks have fewer groups of layers."""
    few = {"train": 2} if isinstance(phase.get("train"), int | list) else {}
    return {**phase, "epochs": 1, "steps": 2, **few}


def smaller(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe's table with tiny backbones and one short epoch a phase."""
    found = dict(recipe)
    if "backbone" in found:
        found["backbone"] = tiny(found["backbone"])
    if found["name"] == "boost":
        found |= {"rounds": 5, "choices": True, "choice_rounds": 2}  # the rendered table has attributes too
        if found["text"]["name"] == "sentence":
            found["text"] = tiny(found["text"])
    if "heads" in found:
        sizes = {"attention": {"spatial": 64, "hidden": 32}, "squeeze_excitation": {"hidden": 32}}
        found["heads"] = found["heads"] | sizes.get(found["heads"]["name"], {})
    if "phases" in found:
        found["phases"] = [short(phase) for phase in found["phases"]]
    elif found["name"] == "finetune":
        found["phases"] = [{"epochs": 1, "steps": 2}]
    if "optimiser" in found and found["optimiser"].get("milestones"):
        found["optimiser"] = {**found["optimiser"], "milestones": [1]}
    if "number_heads" in found:
        found["number_heads"] = found["number_heads"] | {"hidden": [8, 8]}
    for part in ("choices", "numbers"):
        if isinstance(found.get(part), dict):
            found[part] = smaller(found[part])
    if found["name"] == "cascade":
        found |= {"folds": 2, "costs": [1.0, 4.0]}
    if "members" in found:
        found["members"] = [smaller(member) for member in found["members"]]
    return found


def teacher_of(data: dict[str, Any], demo: Path, machine: Machine) -> Path:
    """A bundle that has learnt from the same part of the rendered catalogue."""
    path = demo / "teacher"
    if not path.is_dir():
        phases = [{"epochs": 1, "steps": 2}]
        tune = {"name": "finetune", "backbone": {"name": "lite0", "size": 64}, "phases": phases}
        run = run_options({"data": data, "recipe": tune}, "a teacher")
        quick = {"random_split": False, "curve": False, "machine": machine, "run": run}
        fit(read_data(run.data), make_recipe(tune), evidence=run.data.evidence, **quick).save(path)
    return path


def run_of(path: Path, demo: Path, machine: Machine) -> RunOptions:
    """The run of a file, on the rendered catalogue."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    named = "attributes" not in table["data"]
    data = table["data"] | {"catalog": str(demo / ("catalog.csv" if named else "train.csv")), "evidence": 0.3}
    data["images"] = str(demo if named else demo / "train_images")
    if not named:
        data["attributes"] = str(demo / "category_attributes.parquet")
    else:
        data = {
            key: value
            for key, value in data.items()
            if key not in ("choice", "aliases", "attribute_aliases", "ignore")
        }
    recipe = smaller(table["recipe"])
    if "unlabelled" in recipe:
        recipe |= {"unlabelled": str(demo / "test.csv"), "unlabelled_images": str(demo / "test_images")}
    if "teacher" in recipe:
        recipe |= dict.fromkeys(("teacher", "start_from"), str(teacher_of(data, demo, machine)))
    whole = {**table, "data": data, "recipe": recipe}
    whole["decide"] = {k: v for k, v in table.get("decide", {}).items() if k != "cost"}
    return run_options(whole, path.name)


@pytest.mark.clip
@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # where a Swin network is resized
@pytest.mark.parametrize("path", [p for p in EXAMPLES if "vqa" not in p.stem], ids=lambda path: path.stem)
def test_example_runs_from_table_to_score(
    path: Path, demo: Path, machine: Machine, tiny_clip: None, tmp_path: Path, one_thread: None
) -> None:
    run_whole(run_of(path, demo, machine), demo, machine, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft, of transformers 5
def test_the_questions_to_a_model_run_from_table_to_score(
    few: Path, machine: Machine, tmp_path: Path, one_thread: None
) -> None:
    path = next(path for path in EXAMPLES if path.stem == "qwen_vqa")
    options = run_of(path, few, machine)
    recipe = dict(options.recipe) | {"model": str(tiny_qwen(tmp_path / "model")), "size": 56}
    recipe["lora"] = dict(recipe["lora"]) | {"epochs": 1, "products": 4}
    run_whole(options.model_copy(update={"recipe": recipe}), few, machine, tmp_path)


def learns_numbers(recipe: Any) -> bool:
    """Whether a recipe's table learns Numbers."""
    alone = recipe.get("numbers") == "learn" or recipe["name"] in ("parts", "boost")
    return alone or any(learns_numbers(member) for member in recipe.get("members", ()))


def run_whole(options: RunOptions, demo: Path, machine: Machine, tmp_path: Path) -> None:
    """Fit, save, load, predict and evaluate."""
    bundle, catalog = fit_run(options, machine=machine)
    bundle.save(tmp_path / "bundle")
    loaded = load(tmp_path / "bundle")
    assert loaded.recipe == bundle.recipe

    if catalog.schema.roles.category == "Category":
        test = loaded.read(demo / "test_labels.csv", images=demo / "test_images")
    else:
        test = Catalog.read(options.data.catalog, images=demo, schema=loaded.schema).select(range(40))
    found = loaded.predict(test, machine)
    before = bundle.predict(test, machine)
    for first, second in zip(before.amounts, found.amounts, strict=True):
        assert np.array_equal(first.quantiles, second.quantiles), "other numbers after loading"
        assert len(first.rows) == len(test)
    assert bool(found.amounts) == learns_numbers(options.recipe)
    for one, two in zip(before.blocks, found.blocks, strict=True):
        assert one.category == two.category
        assert abs(one.probs - two.probs).max(initial=0) < 1e-6, "other answers after loading"
    out = tmp_path / "out.csv"
    loaded.answer(test, machine=machine, every_cell=True).write(out)
    rows = pl.read_csv(out, infer_schema=False)
    assert rows[rows.columns[0]].to_list() == list(test.ids)
    report = evaluate(found, test, bootstrap=0)
    assert 0 < report.score <= 1
