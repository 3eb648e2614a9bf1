"""The benchmarks run, and say what they measure."""

import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HOME = Path(__file__).resolve().parents[1] / "benchmarks"
#: Not benchmarks themselves: what runs them, and what several of them share.
SHARED = ("run", "nested", "pruned", "ways", "label_ways", "approach_rows", "approach_page", "rival_pairs")
NAMES = sorted(path.stem for path in HOME.glob("*.py") if path.stem not in SHARED)
#: A ratio each cheap benchmark reports in its quick form.
RATIOS = {
    "heads": ("ratio_per_sample_32", "ratio_loop_32"),
    "train_step": ("ratio_per_sample", "ratio_loop"),
    "neighbours": ("ratio_clustered", "ratio_gaussian"),
}


def load(name: str, *, anew: bool = False) -> ModuleType:
    if f"benchmark_{name}" in sys.modules and not anew:  # what a benchmark registers can be registered once
        return sys.modules[f"benchmark_{name}"]
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HOME / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    if str(HOME) not in sys.path:  # as where a benchmark is run as a program
        sys.path.append(str(HOME))
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_a_main_that_needs_nothing(name: str) -> None:
    main = load(name).main
    assert all(p.default is not p.empty for p in inspect.signature(main).parameters.values())
    assert inspect.signature(main).return_annotation is not inspect.Signature.empty


def test_run_knows_every_benchmark() -> None:
    assert sorted(load("run").NAMES) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RATIOS))
def test_a_quick_run_prints_one_line_with_its_ratios(name: str) -> None:
    command = [sys.executable, str(HOME / "run.py"), "--quick", "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["benchmark"] == name
    assert all(found[key] > 0 for key in RATIOS[name])
    if name == "neighbours":
        assert found["recall_clustered"] == found["recall_gaussian"] == 1


def test_probe_quality_says_why_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFWISE_DATA", str(tmp_path))
    found = load("probe_quality", anew=True).main(tables=("myntra",))
    assert found["benchmark"] == "probe_quality"
    assert "is not there" in found["skipped"]


def test_a_benchmark_that_fails_is_an_error_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = load("run")
    (tmp_path / "broken.py").write_text("raise SystemExit('no engine')\n")
    monkeypatch.setattr(module, "HERE", tmp_path)
    assert module.run("broken", quick=False) == {"benchmark": "broken", "error": "no engine"}


def test_a_short_fine_tune_brings_what_it_is_compared_with() -> None:
    module = load("short_tunes")
    name = module.start("bundles/myntra", 0.25)
    wanted = module.asked((name,), ("bundles/myntra",))
    assert wanted(name)
    assert wanted(module.start("", 0.25))
    assert not wanted(module.start("", 1.0))
    assert not wanted("pyramid")
    assert module.asked(("pyramid",), ())(module.start("", 1.0))
    assert module.asked((), ())("pyramid")
