"""Engines: chosen visibly, checked against torch, deterministic, warm without torch."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from shelfwise.errors import EngineError, UsageError
from shelfwise.models import engines
from shelfwise.models.backbones import build_backbone
from shelfwise.models.engines import candidates, choose_engine, has_bf16, settle_device, vectors
from shelfwise.models.parity import Parity, compare, passes, probe_pictures
from shelfwise.models.runners import OpenVINOEngine, TorchEngine, to_openvino
from shelfwise.registry import REGISTRIES, Spec

CONV = REGISTRIES["backbone"].spec("timm", model="test_efficientnet", weights=False, size=64)
VIT = REGISTRIES["backbone"].spec("timm", model="test_vit", weights=False, size=64)


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def test_candidates_by_family_hardware_and_wish():
    def first(family: str, bf16: bool) -> tuple[str, str]:
        return candidates(family, device="cpu", requested="auto", bf16=bf16)[0]

    assert first("conv", True) == ("openvino", "bf16")
    assert first("transformer", True) == ("torch-bf16", "bf16")
    assert first("conv", False) == first("transformer", False) == ("openvino", "f32")
    for bf16 in (True, False):
        assert candidates("conv", device="cpu", requested="auto", bf16=bf16)[-1] == ("torch", "f32")
    assert candidates("conv", device="cpu", requested="torch", bf16=True) == (("torch", "f32"),)
    assert candidates("conv", device="cuda", requested="auto", bf16=False)[0] == ("cuda", "bf16")
    with pytest.raises(UsageError, match="Did you mean 'openvino'"):
        candidates("conv", device="cpu", requested="openvin", bf16=False)
    with pytest.raises(UsageError, match="does not run on the device"):
        candidates("conv", device="cpu", requested="cuda", bf16=False)
    with pytest.raises(UsageError, match="no device"):
        settle_device("tpu")


def test_cuda_without_a_gpu_is_one_message():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="no CUDA device"):
        settle_device("cuda")
    assert settle_device("auto") == "cpu"


def test_parity_figures_and_limits():
    rows = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    same = compare(rows, rows)
    assert (same.pictures, round(same.cosine, 6), same.relative) == (4, 1.0, 0.0)
    turned = rows.copy()
    turned[2] = -turned[2]
    worst = compare(turned, rows)
    assert worst.cosine == pytest.approx(-1)
    assert worst.relative == pytest.approx(2)
    assert passes(same, "f32")
    assert not passes(worst, "bf16")
    assert not passes(compare(2 * rows, rows), "bf16")
    assert not passes(Parity(float("nan"), float("nan"), 1), "bf16")


def test_probe_pictures_are_fixed_and_differ():
    first, second = probe_pictures((40, 30)), probe_pictures((40, 30))
    assert first.shape == (6, 40, 30, 3)
    assert np.array_equal(first, second)
    assert len({picture.tobytes() for picture in first}) == 6


@pytest.mark.parametrize("spec", [CONV, VIT], ids=["conv", "vit"])
@pytest.mark.parametrize("kind", ["torch", "torch-bf16", "openvino", "openvino-bf16"])
def test_a_vector_depends_on_its_picture_alone(spec: Spec, kind: str, tmp_path: Path):
    """Same picture at every place, among other neighbours, on one or three lanes: equal to the bit."""
    backbone = build_backbone(spec)
    size = backbone.preprocess.size
    to_openvino(backbone.module, size, tmp_path)

    def make(jobs: int) -> engines.Engine:
        if kind.startswith("torch"):
            return TorchEngine(backbone.module, "bf16" if kind.endswith("bf16") else "f32")
        precision = "bf16" if kind.endswith("bf16") else "f32"
        return OpenVINOEngine(tmp_path, precision, jobs)

    images = noise(9, size[0])
    one, three = make(1), make(3)
    expected = vectors(one, images[:1], jobs=1)
    for place in range(0, 9, 4):
        mixed = noise(9, size[0], seed=place + 1)
        mixed[place] = images[0]
        assert np.array_equal(vectors(three, mixed, jobs=3)[place], expected[0])
        assert np.array_equal(vectors(one, mixed, jobs=2)[place], expected[0])


def test_the_first_call_is_made_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Two threads that make OpenVINO's first call of a process together can wait for each other for ever."""
    callers: list[int] = []
    plain = OpenVINOEngine.run

    def counted(self: OpenVINOEngine, images: np.ndarray) -> np.ndarray:
        callers.append(threading.get_ident())
        return plain(self, images)

    built = build_backbone(CONV)
    to_openvino(built.module, built.preprocess.size, tmp_path)
    monkeypatch.setattr(OpenVINOEngine, "run", counted)
    OpenVINOEngine(tmp_path, "f32", 2)
    assert callers == [threading.get_ident()]


def test_engines_are_safe_to_share_between_threads():
    chosen = choose_engine(CONV, jobs=2)
    images = noise(24, 64)
    alone = vectors(chosen.engine, images, jobs=1)
    with ThreadPoolExecutor(6) as pool:
        rows = list(pool.map(lambda image: chosen.engine.run(image[None])[0], images))
    assert np.array_equal(np.stack(rows), alone)


@pytest.mark.parametrize("spec", [CONV, VIT], ids=["conv", "vit"])
def test_the_chosen_engine_reproduces_torch_on_other_pictures(spec: Spec, tmp_path: Path):
    backbone = build_backbone(spec)
    chosen = choose_engine(spec, cache=tmp_path)
    assert chosen.record.name == ("torch-bf16" if spec is VIT and has_bf16() else "openvino")
    assert chosen.record.parity is not None
    assert chosen.record.parity.cosine >= 0.999
    assert chosen.card.fingerprint == backbone.fingerprint
    images = noise(5, 64, seed=9)
    found = vectors(chosen.engine, images)
    near = compare(found, vectors(TorchEngine(backbone.module), images))
    assert passes(near, chosen.record.precision)
    assert chosen.record.name in str(chosen.record)
    assert "cosine" in str(chosen.record)


def test_a_failing_engine_is_passed_over_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An engine that answers wrongly is found out; the reference takes its place, and the note is kept."""
    right = OpenVINOEngine.run
    monkeypatch.setattr(OpenVINOEngine, "run", lambda self, images: right(self, images)[:, ::-1].copy())
    chosen = choose_engine(CONV, cache=tmp_path)
    assert (chosen.record.name, chosen.record.precision) == ("torch", "f32")
    assert "openvino f32 passed over: cosine" in chosen.record.notes[-1]
    again = choose_engine(CONV, cache=tmp_path)
    assert again.record == chosen.record
    with pytest.raises(EngineError, match="no engine runs timm/test_efficientnet"):
        choose_engine(CONV, requested="openvino")


def test_a_warm_cache_loads_neither_torch_nor_weights(tmp_path: Path):
    first = choose_engine(CONV, cache=tmp_path)
    assert first.record.name == "openvino"
    images = noise(2, 64)
    expected = vectors(first.engine, images)
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from shelfwise.registry import REGISTRIES\n"
        "from shelfwise.models.engines import choose_engine, vectors\n"
        "spec = REGISTRIES['backbone'].spec('timm', model='test_efficientnet', weights=False, size=64)\n"
        f"chosen = choose_engine(spec, cache=Path({str(tmp_path)!r}))\n"
        "images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)\n"
        "np.save(sys.argv[1], vectors(chosen.engine, images))\n"
        "print(chosen.space, chosen.record)\n"
        "assert not {'torch', 'timm', 'sklearn'} & set(sys.modules), 'torch was imported'\n"
    )
    file = tmp_path / "vectors.npy"
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{first.space} {first.record}"
    assert np.array_equal(np.load(file), expected)


@pytest.mark.parametrize("damage", ["record", "cut", "gone", "text"])
def test_a_damaged_entry_is_made_again(damage: str, tmp_path: Path):
    first = choose_engine(CONV, cache=tmp_path)
    (home,) = [path for path in (tmp_path / "engines").iterdir() if path.is_dir()]
    if damage == "record":
        (home / "record.json").write_text("{")
    elif damage == "cut":
        (home / "model.bin").write_bytes((home / "model.bin").read_bytes()[:-100])
    elif damage == "gone":
        (home / "model.bin").unlink()
    else:
        size = (home / "model.xml").stat().st_size
        (home / "model.xml").write_bytes(b"x" * size)
    again = choose_engine(CONV, cache=tmp_path)
    assert again.space == first.space
    images = noise(2, 64)
    assert np.array_equal(vectors(again.engine, images), vectors(first.engine, images))
    assert json.loads((home / "record.json").read_text())["format"] == engines.FORMAT
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [home.name]


def test_spaces_differ_with_what_changes_vectors(tmp_path: Path):
    def space(requested: str, **options: object) -> str:
        spec = REGISTRIES["backbone"].spec("timm", model="test_efficientnet", weights=False, **options)
        return choose_engine(spec, requested=requested, cache=tmp_path).space

    spaces = [space("auto", size=64), space("torch", size=64), space("auto", size=96)]
    spaces += [space("auto", size=64, fit="pad"), space("auto", size=64, seed=1)]
    assert len(set(spaces)) == 5
    assert space("auto", size=64) == spaces[0]


def test_a_built_backbone_can_be_given(tmp_path: Path):
    backbone = build_backbone(CONV)
    chosen = choose_engine(backbone, cache=tmp_path)
    assert chosen.space == choose_engine(backbone, cache=tmp_path).space == choose_engine(CONV).space
