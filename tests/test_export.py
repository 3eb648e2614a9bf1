"""Export: what a bundle runs in torch, converted, compared, and then used without torch."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import shelfwise as sw
from conftest import Shell, Toy
from shelfwise import export as exporting
from shelfwise.agreement import Limits, Said, agreement
from shelfwise.answers import RowError
from shelfwise.bundle import Bundle
from shelfwise.errors import BundleError, EngineError, MissingExtra, UsageError
from shelfwise.export import ExportOptions, export_bundle, limits_of
from shelfwise.models import engines, exported
from shelfwise.models.backbones import build_backbone
from shelfwise.models.convert import quantise
from shelfwise.models.engines import choose_engine, vectors
from shelfwise.models.exported import Exported
from shelfwise.models.nearest import Index
from shelfwise.models.parity import compare
from shelfwise.models.plain_nearest import PlainIndex
from shelfwise.models.runners import OnnxEngine, OpenVINOEngine, TorchEngine, to_openvino
from shelfwise.models.tfidf import learn_terms, terms_in
from shelfwise.predictions import Machine
from shelfwise.registry import REGISTRIES
from shelfwise.testing import toy_catalog

NET = REGISTRIES["backbone"].spec("timm", model="test_efficientnet", weights=False, size=64)
FEW = ExportOptions(rows=60, pictures=30)
#: A program in which nothing that training needs can be imported.
WITHOUT = """
import sys
GONE = {"torch", "torchvision", "timm", "sklearn", "accelerate", "matplotlib", "nncf", "onnx", "onnxscript", "joblib"}
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in GONE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Gone())
import shelfwise.toys
from shelfwise.cli import run
run()
"""


@pytest.fixture(scope="module")
def ready(saved: Path, toy: Toy, machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy bundle, exported to OpenVINO and to ONNX."""
    path = Path(shutil.copytree(saved, tmp_path_factory.mktemp("exported") / "toy"))
    for target in ("openvino", "onnx"):
        export_bundle(path, target, table=toy.table, options=FEW, machine=machine)
    return path


def without_torch(directory: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, words), "--cache", str(directory / "cache")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=directory,
    )


def test_learning_without_torch_says_what_to_install(toy: Toy, tmp_path: Path):
    done = without_torch(tmp_path, "fit", toy.table, "-o", tmp_path / "new", "recipe.name=probe")
    assert done.returncode == 2
    assert re.search(r"^error: .*pip install 'shelfwise\[train\]'", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_an_export_is_part_of_the_bundle(ready: Path, saved: Path):
    index, before = (json.loads((path / "bundle.json").read_text()) for path in (ready, saved))
    new = set(index["files"]) - set(before["files"])
    assert {name for name in new if name.startswith("export/openvino/")} == {
        "export/openvino/engines.json",
        "export/openvino/parity.json",
        "export/openvino/0/model.xml",
        "export/openvino/0/model.bin",
    }
    assert "export/onnx/0/model.onnx" in new
    assert {name: index["files"][name] for name in before["files"]} == before["files"]
    loaded = Bundle.load(ready)
    assert loaded.exported is not None
    assert loaded.exported.engines == ("openvino", "onnxruntime")
    told = json.loads((ready / "export" / "onnx" / "parity.json").read_text())
    found = told["agreement"]["f32"]
    assert 0 < found["largest"] < 1e-3
    assert found["unequal"] == 0
    assert found["rows"] == 60
    assert found["score"] == found["reference"] > 0.5
    assert told["limits"] == {"f32": Limits().table()}
    told = json.loads((ready / "export" / "openvino" / "parity.json").read_text())
    judged = {"f32": Limits().table(), "bf16": exporting.LOW.table()}
    assert told["limits"] == {precision: judged[precision] for precision in told["agreement"]}
    (ready / "export" / "openvino" / "0" / "model.bin").touch()
    changed = Path(shutil.copytree(ready, ready.parent / "changed"))
    (changed / "export" / "openvino" / "0" / "model.bin").write_bytes(b"other weights")
    with pytest.raises(BundleError, match=r"export/openvino/0/model.bin was changed"):
        Bundle.load(changed)


def test_the_engine_that_is_asked_for_runs_what_was_exported(ready: Path, toy: Toy, tmp_path: Path):
    bundle = Bundle.load(ready)
    said = {}
    for engine in ("torch", "openvino", "onnxruntime"):
        machine = Machine(cache=tmp_path / engine, jobs=1, engine=engine)
        said[engine] = bundle.predict(bundle.read(toy.table), machine)
        (space,) = (tmp_path / engine / "embeddings").iterdir()
        assert space.stat().st_size
        assert ((tmp_path / engine / "engines").exists()) == (engine == "torch"), "nothing was converted anew"
    for engine in ("openvino", "onnxruntime"):
        for mine, other in zip(said[engine].blocks, said["torch"].blocks, strict=True):
            assert np.abs(mine.probs - other.probs).max() < 1e-3
    assert any("onnxruntime" in note for note in said["onnxruntime"].notes)


def test_an_exported_openvino_network_is_the_one_that_is_converted_every_day(ready: Path, tmp_path: Path):
    """Same vectors to the last bit, so that the cache is shared and nothing needs a note."""
    spec = REGISTRIES["backbone"].spec("toy")
    there = choose_engine(spec, device="cpu", requested="openvino", exported=Exported.load(ready))
    fresh = choose_engine(spec, device="cpu", requested="openvino", cache=tmp_path)
    assert there.space == fresh.space
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    assert np.array_equal(vectors(there.engine, images), vectors(fresh.engine, images))
    other = choose_engine(spec, device="cpu", requested="onnxruntime", exported=Exported.load(ready))
    assert other.space != fresh.space


def test_answers_without_torch_are_those_with_it(ready: Path, toy: Toy, tmp_path: Path):
    """One photo and a table, in a process that can import nothing that training needs."""
    photo = toy.directory / "images" / "00004.png"
    done = without_torch(tmp_path, "predict", ready, photo, "--category", "Cups")
    assert done.returncode == 0, done.stderr
    one = json.loads(done.stdout)
    bundle = Bundle.load(ready)
    expected = bundle.answer_one(
        photo, category="Cups", machine=Machine(cache=tmp_path / "own", engine="openvino")
    )
    assert one["answers"] == expected["answers"]
    done = without_torch(
        tmp_path, "predict", ready, toy.table, "-o", tmp_path / "out.csv", "--engine", "onnxruntime"
    )
    assert done.returncode == 0, done.stderr
    machine = Machine(cache=tmp_path / "own", engine="onnxruntime")
    bundle.answer(bundle.read(toy.table), machine=machine).write(tmp_path / "expected.csv")
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "expected.csv").read_text()


def test_what_else_looks_at_pictures_works_without_torch(ready: Path, toy: Toy, tmp_path: Path):
    """The watch for drift and the choice of what to label next."""
    done = without_torch(tmp_path, "drift", ready, toy.table)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No drift")
    other = toy_catalog(tmp_path / "other", products=40, seed=7)
    pl.read_csv(other, infer_schema=False).with_columns("new-" + pl.col("id")).write_csv(other)
    done = without_torch(tmp_path, "labels", "next", ready, other, "-k", 3, "-o", tmp_path / "next.csv")
    assert done.returncode == 0, done.stderr
    assert len(pl.read_csv(tmp_path / "next.csv")) == 3


def test_without_torch_and_export_it_says_what_to_do(saved: Path, toy: Toy, tmp_path: Path):
    photo = toy.directory / "images" / "00004.png"
    done = without_torch(tmp_path, "predict", saved, photo)
    assert done.returncode == 2
    assert "error: torch is not installed" in done.stderr
    assert "shelfwise export BUNDLE" in done.stderr
    assert "Traceback" not in done.stderr


def test_auto_takes_what_is_exported_only_without_torch(ready: Path, monkeypatch: pytest.MonkeyPatch):
    spec, there = REGISTRIES["backbone"].spec("toy"), Exported.load(ready)
    assert there is not None
    assert there.choose(spec, device="cpu", requested="auto", jobs=1) is None
    monkeypatch.setattr(exported, "installed", lambda package: package != "torch")
    first = there.choose(spec, device="cpu", requested="auto", jobs=1)
    assert first is not None
    assert first.record.name == "openvino"
    monkeypatch.setattr(exported, "installed", lambda package: package == "onnxruntime")
    second = there.choose(spec, device="cpu", requested="auto", jobs=1)
    assert second is not None
    assert second.record.name == "onnxruntime"
    assert there.choose(NET, device="cpu", requested="auto", jobs=1) is None
    monkeypatch.setattr(engines, "installed", lambda package: package != "torch")
    with pytest.raises(MissingExtra, match="shelfwise export BUNDLE --to openvino"):
        choose_engine(NET, device="cpu", exported=there)


def test_beyond_a_limit_the_bundle_stays_as_it_was(ready: Path, toy: Toy, machine: Machine, tmp_path: Path):
    path = Path(shutil.copytree(ready, tmp_path / "toy"))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    options = FEW.model_copy(update={"limits": Limits(largest=0, unequal=0)})
    with pytest.raises(EngineError, match=r"openvino is not written: largest difference .*, at most 0 "):
        export_bundle(path, "openvino", table=toy.table, options=options, machine=machine)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_wrong_conversion_is_found(
    saved: Path, toy: Toy, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = Path(shutil.copytree(saved, tmp_path / "toy"))
    other = build_backbone(REGISTRIES["backbone"].spec("toy", seed=1)).module
    monkeypatch.setattr(exporting, "to_openvino", lambda module, *rest: to_openvino(other, *rest))
    with pytest.raises(EngineError, match="is not what torch does: cosine"):
        export_bundle(path, "openvino", table=toy.table, options=FEW, machine=machine)
    assert not (path / "export").exists()


def test_products_to_compare_on(saved: Path, toy: Toy, machine: Machine, tmp_path: Path):
    """By default those of the evidence, found by id in the folder of photos; it says that they were learnt from."""
    bundle = Bundle.load(saved)
    run = bundle.run.model_copy(
        update={"data": bundle.run.data.model_copy(update={"catalog": tmp_path / "gone.csv"})}
    )
    bundle = replace(bundle, run=run)
    with pytest.raises(UsageError, match="--on TABLE"):
        exporting._rows(bundle, None, None, FEW, machine)
    rows = exporting._rows(bundle, None, toy.directory / "images", FEW, machine)
    assert len(rows.compared) == 60
    assert 0 < len(rows.measured) <= 30
    assert not {path.stem for path in rows.measured} & set(rows.compared.ids)
    assert "learnt from" in rows.notes[0]
    with pytest.raises(UsageError, match="none of its products has a photo"):
        exporting._rows(bundle, None, tmp_path, FEW, machine)


def test_every_member_of_an_ensemble_is_exported(toy: Toy, machine: Machine, tmp_path: Path):
    members = [{"name": "probe", "backbone": {"name": "toy", "seed": seed}} for seed in (0, 1)]
    recipe = sw.Ensemble(members=tuple(members))
    sw.fit(toy.catalog.select(np.arange(60)), recipe, evidence=0.3, machine=machine, random_split=False).save(
        tmp_path / "both"
    )
    done = export_bundle(tmp_path / "both", "openvino", table=toy.table, options=FEW, machine=machine)
    assert len(done.backbones) == 2
    there = Bundle.load(tmp_path / "both").exported
    assert there is not None
    assert [network.backbone for network in there.networks] == [{"name": "toy"}, {"name": "toy", "seed": 1}]


def test_the_verb(saved: Path, toy: Toy, shell: Shell, tmp_path: Path):
    path = Path(shutil.copytree(saved, tmp_path / "toy"))
    photo = toy.directory / "images" / "00004.png"
    ran = shell("predict", path, photo, "--engine", "onnxruntime", "--cache", tmp_path / "cache")
    assert ran.code == 2
    assert "shelfwise export BUNDLE --to onnx" in ran.message
    ran = shell("export", path, "--to", "onyx")
    assert ran.code == 2
    assert "Did you mean 'onnx'?" in ran.message
    ran = shell("export", path, "--to", "onnx", "--max-loss", "-1")
    assert ran.code == 2
    assert "loss: Input should be greater than or equal to 0" in ran.message
    words = ("--to", "openvino", "--on", toy.table, "--rows", 40, "--cache", tmp_path / "cache")
    ran = shell("export", path, *words)
    assert ran.code == 0, ran.err
    assert "use it with --engine openvino" in ran.out
    assert "40 products" in ran.out


def test_limits(toy: Toy):
    assert limits_of("onnx", {}) is None
    given = limits_of("openvino-int8", {"loss": 0.5})
    assert given is not None
    assert (given.loss, given.largest) == (0.5, 1.0)


def test_agreement_counts_what_differs(bundle: Bundle, toy: Toy, machine: Machine):
    catalog = bundle.read(toy.table)
    found = bundle.predict(catalog, machine)
    same = Said(found, bundle.answer(catalog, every_cell=True, machine=machine))
    exact = agreement(same, same, catalog)
    assert (exact.largest, exact.mean, exact.unequal, exact.loss) == (0, 0, 0, 0)
    assert exact.beyond(Limits(largest=0, mean=0, unequal=0, loss=0)) == ()
    first = found.blocks[0]
    probs = first.probs.copy()
    probs[3, :2] += (0.25, -0.25)
    answers = same.answers
    codes = answers.blocks[0].codes.copy()
    codes[:, 0] = (codes[:, 0] + 1) % 2
    worse = Said(
        replace(found, blocks=(replace(first, probs=probs), *found.blocks[1:])),
        replace(answers, blocks=(replace(answers.blocks[0], codes=codes), *answers.blocks[1:])),
    )
    near = agreement(worse, same, catalog)
    assert near.largest == pytest.approx(0.25)
    assert near.mean == pytest.approx(0.5 / sum(block.probs.size for block in found.blocks))
    assert near.unequal == pytest.approx(len(codes) / near.cells, rel=0.2)
    assert near.loss > 5
    assert [line.split(" ")[0] for line in near.beyond(Limits(mean=1))] == ["largest", "share", "points"]
    gone = {row: RowError("image", "gone") for row in first.rows.tolist()}
    lost = Said(
        replace(found, blocks=found.blocks[1:], errors=gone),
        replace(answers, blocks=answers.blocks[1:], errors=gone),
    )
    assert agreement(lost, same, catalog).largest == 1


def test_onnx_vectors_depend_on_their_picture_alone(ready: Path, tmp_path: Path):
    engine = OnnxEngine(ready / "export" / "onnx" / "0" / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    alone = vectors(engine, images, jobs=1)
    assert np.array_equal(alone[::-1], vectors(engine, images[::-1], jobs=3))
    assert np.allclose(engine.run(images), alone, atol=1e-5), "other users may give it several at once"
    module = build_backbone(REGISTRIES["backbone"].spec("toy")).module
    assert compare(alone, vectors(TorchEngine(module), images)).relative < 1e-4
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(EngineError, match="onnxruntime cannot load"):
        OnnxEngine(tmp_path / "model.onnx")


def test_a_quantised_network_is_smaller_and_near(tmp_path: Path):
    backbone = build_backbone(NET)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (40, 8, 8, 3), np.uint8)
    images = coarse.repeat(8, axis=1).repeat(8, axis=2)
    plain, small = tmp_path / "plain", tmp_path / "small"
    plain.mkdir()
    small.mkdir()
    to_openvino(backbone.module, backbone.preprocess.size, plain)
    quantise(plain, images[:20], small)
    assert (small / "model.bin").stat().st_size < 0.6 * (plain / "model.bin").stat().st_size
    engine = OpenVINOEngine(small, "f32", 2, "openvino-int8")
    found = vectors(engine, images[20:], jobs=2)
    assert np.array_equal(found[:1], vectors(engine, images[20:21], jobs=1))
    near = compare(found, vectors(TorchEngine(backbone.module), images[20:]))
    assert 1e-4 < near.relative < 0.5


def test_the_nearest_rows_are_the_same_without_torch():
    rng = np.random.default_rng(0)
    rows = rng.integers(-9, 10, (500, 12)).astype(np.float32)
    rows[40:60] = rows[20:40]  # ties go to the smaller row
    rows[100:200] = rows[0]  # more of them than are looked at beside the best
    queries = np.concatenate([rows[:100], rng.normal(size=(70, 12)).astype(np.float32)])
    near, scores = PlainIndex(rows).search(queries, 9)
    expected, exact = Index(rows).search(queries, 9)
    assert np.array_equal(near, expected)
    assert np.allclose(scores, exact, rtol=1e-12)
    assert PlainIndex(rows[:3]).search(queries, 9)[0].shape == (170, 3)


@pytest.mark.parametrize(("kind", "grams"), [("words", (1, 2)), ("words", (2, 3)), ("characters", (2, 5))])
def test_terms_are_counted_as_scikit_learn_counts(kind: str, grams: tuple[int, int]):
    from sklearn.feature_extraction.text import CountVectorizer

    texts = [
        "A blue  shirt, 2.5 oz; a Blue shirt",
        "x",
        "",
        "Größe 40/42 – İstanbul\tcotton-blend",
        "a a a b 1,000.5",
    ] * 2
    pattern = {"token_pattern": r"(?u)\d+(?:[.,]\d+)+|\w+"} if kind == "words" else {}
    analyzer = "word" if kind == "words" else "char_wb"
    theirs = CountVectorizer(analyzer=analyzer, ngram_range=grams, **pattern)
    for text in texts:
        assert sorted(terms_in(text, kind, grams)) == sorted(theirs.build_analyzer()(text))
    learnt, weights = learn_terms(texts, kind, grams, 2, 1000)
    assert (learnt.weigh(texts) != weights).nnz == 0
