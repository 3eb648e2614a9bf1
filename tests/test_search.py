"""Search: every problem first, each trial once, nothing finished is lost, and the best run file fits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from pydantic import Field

import shelfwise as sw
from conftest import Shell
from shelfwise.catalog import Catalog
from shelfwise.config import Options, RunOptions, make_recipe, read_run, run_options, to_toml
from shelfwise.errors import CatalogError, ConfigError, MissingExtra
from shelfwise.expect import expect
from shelfwise.predictions import Block, Machine, Predictions
from shelfwise.registry import REGISTRIES
from shelfwise.search import Search, _Judge, suggest_options
from shelfwise.spaces import grid, how_many, inside, listed, put
from shelfwise.start import fit_run
from shelfwise.taxonomy import Taxonomy
from shelfwise.trials import SearchResult, Trial

pytestmark = pytest.mark.usefixtures("one_thread")
FITS: list[tuple[float, str, int]] = []


class Inner(Options):
    """A table inside the options."""

    weight: float = 1.0


class Stub(Options):
    """A recipe that is the better the nearer x is to 0.3; it knows the truth and forgets some of it."""

    concurrent: ClassVar[bool] = False

    x: float = Field(default=0.9, ge=0, le=1)
    kind: str = "a"
    steps: tuple[Inner, ...] = (Inner(), Inner())
    inner: Inner = Inner()
    teacher: Path | None = None
    members: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        return "stub"

    def table(self) -> dict[str, Any]:
        return {"name": self.name, **super().table()}

    def fit(self, train: Catalog, valid: Catalog | None, machine: Machine, seed: int) -> "StubPredictor":
        FITS.append((self.x, self.kind, seed))
        if self.kind == "broken":
            raise CatalogError("this kind never works")
        return StubPredictor(self, train.taxonomy, seed)


class StubPredictor:
    def __init__(self, recipe: Stub, taxonomy: Taxonomy, seed: int) -> None:
        self.recipe, self.taxonomy, self.seed = recipe, taxonomy, seed

    def predict(self, catalog: Catalog, machine: Machine) -> Predictions:
        rng, blocks = np.random.default_rng(self.seed), []
        sure = 2.5 * np.exp(-8 * (self.recipe.x - 0.3) ** 2)
        for category in catalog.present:
            rows, labels = catalog.rows(category), catalog.labels(category)
            scores = rng.normal(size=(len(rows), self.taxonomy.width(category)))
            for a, part in enumerate(self.taxonomy.slices(category)):
                known = np.flatnonzero(labels[:, a] >= 0)
                scores[known, part.start + labels[known, a]] += sure
                shares = np.exp(scores[:, part])
                scores[:, part] = shares / shares.sum(axis=1, keepdims=True)
            blocks.append(Block(category, rows, scores.astype(np.float32)))
        return Predictions(self.taxonomy, catalog.ids, tuple(blocks))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("SHELFWISE_CACHE", str(cache))
    REGISTRIES["recipe"].load()
    monkeypatch.setitem(REGISTRIES["recipe"].entries, "stub", Stub)
    FITS.clear()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small toy catalogue: its table."""
    from shelfwise.testing import toy_catalog

    return toy_catalog(tmp_path_factory.mktemp("few"), products=80)


def run_of(
    few: Path, space: dict[str, Any], recipe: dict[str, Any] | None = None, evidence: float = 3, **search: Any
) -> RunOptions:
    table = {
        "data": {"catalog": str(few), "evidence": evidence},
        "recipe": recipe or {"name": "stub"},
        "search": {"space": space, **search},
    }
    return run_options(table, "run.toml")


def told(result: SearchResult) -> list[tuple[int, dict[str, Any], float]]:
    return [(trial.number, dict(trial.options), trial.score) for trial in result.trials]


X = {"recipe.x": {"low": 0.0, "high": 1.0}}

# --- the space ---


def test_every_problem_is_said_in_one_message_before_anything_runs(few: Path):
    space = {
        "recipe.xx": [0.1],
        "recipe.x": [0.5, 3.0],
        "recipe.inner.wieght": [1.0],
        "recipe.steps.7.weight": [1.0],
        "recipe.kind.deep": [1],
        "recipe.inner.weight": {"low": 1, "high": 2},
        "data.evidence": [2, 3],
        "seed": [-1, 0],
    }
    with pytest.raises(ConfigError) as error:
        run_of(few, space, method="grid")
    text = str(error.value)
    assert text.startswith("run.toml: 8 problems")
    for part in (
        "search.space.\"recipe.xx\": recipe.xx: unknown key. Did you mean 'x'?",
        'search.space."recipe.x": recipe.x: Input should be less than or equal to 1 (got 3.0)',
        "recipe.inner.wieght: unknown key. Did you mean 'weight'?",
        "'7' is no position in a list of 2, counted from 0",
        "kind is 'a', neither a table nor a list",
        'search.space."recipe.inner.weight": a grid needs a list of values, or a range with a step',
        'search.space."data.evidence": only seed and options of the recipe',
        "seed: is a whole number, 0 or more (got -1)",
    ):
        assert part in text, part
    assert not FITS


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"low": 2, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
        ({"low": 0, "high": 1, "step": 3}, "step must be above 0 and at most high - low"),
        ({"low": 0}, "high: is missing"),
        ({"low": 0, "hihg": 1}, "Did you mean 'high'"),
        ([], "is a list of values, or a range"),
        (0.5, "is a list of values, or a range"),
        ([1.0, 1.0], "a value is there twice"),
    ],
)
def test_a_range_that_means_nothing_is_refused(few: Path, values: Any, said: str):
    with pytest.raises(ConfigError, match=r"recipe\.x") as error:
        run_of(few, {"recipe.x": values})
    assert said in str(error.value)


def test_a_run_without_a_search_is_told_how_to_write_one(few: Path, tmp_path: Path):
    run = run_options({"data": {"catalog": str(few)}, "recipe": {"name": "stub"}}, "run.toml")
    with pytest.raises(ConfigError, match=r"no \[search\] table"):
        sw.search(run, tmp_path)


def test_without_optuna_a_grid_works_and_others_say_what_to_install(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"shelfwise\[search\]"):
        sw.search(run_of(few, X), tmp_path)
    assert not FITS
    assert len(sw.search(run_of(few, {"recipe.x": [0.1, 0.4]}, method="grid"), tmp_path).trials) == 2


def test_options_lead_through_tables_lists_and_names():
    table: dict[str, Any] = {"recipe": {"name": "probe", "backbone": "lite0"}}
    defaults = {"recipe": {"backbone": {"name": "lite0", "flip": False}, "betas": (0.9, 0.99)}}
    put(table, "recipe.backbone.levels", "last", defaults)
    put(table, "recipe.betas.1", 0.5, defaults)
    put(table, "recipe.clip", 1.0, defaults)
    assert table["recipe"] == {
        "name": "probe",
        "backbone": {"name": "lite0", "flip": False, "levels": "last"},
        "betas": [0.9, 0.5],
        "clip": 1.0,
    }
    assert defaults["recipe"]["betas"] == (0.9, 0.99)


def test_steps_are_whole_where_their_ends_are_and_free_of_rounding():
    space = {"recipe.x": {"low": 0.1, "high": 0.7, "step": 0.1}, "seed": {"low": 1, "high": 6, "step": 2}}
    values = RunOptions.model_validate({"data": {"catalog": "a"}, "search": {"space": space}}).search
    assert values is not None
    assert listed(values.space["recipe.x"]) == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert listed(values.space["seed"]) == (1, 3, 5)
    assert inside(values, {"recipe.x": 0.3, "seed": 5})
    assert not inside(values, {"recipe.x": 0.35, "seed": 5})
    assert not inside(values, {"recipe.x": 0.3})


def test_a_run_with_a_search_is_written_and_read_as_it_is(few: Path, tmp_path: Path):
    """As a bundle's recipe.toml has it."""
    space = {
        **X,
        "seed": {"low": 1, "high": 9, "step": 4},
        "recipe.inner": [{"weight": 2.0}],
        "recipe.kind": ["a"],
    }
    run = run_of(few, space, method="random", trials=3)
    (tmp_path / "run.toml").write_text(to_toml(run.table()), encoding="utf-8")
    assert read_run(tmp_path / "run.toml") == run


# --- the grid ---


def test_a_grid_covers_each_combination_once(few: Path, tmp_path: Path):
    space = {"recipe.x": [0.0, 0.3, 0.8], "recipe.kind": ["a", "b"], "seed": {"low": 0, "high": 1, "step": 1}}
    result = sw.search(run_of(few, space, method="grid"), tmp_path)
    combinations = {(x, kind, seed) for x in (0.0, 0.3, 0.8) for kind in "ab" for seed in (0, 1)}
    assert len(result.trials) == 12
    assert {
        tuple(t.options[k] for k in ("recipe.x", "recipe.kind", "seed")) for t in result.trials
    } == combinations
    assert sorted(FITS) == sorted([*combinations] * 3), "three folds each, none twice"
    assert result.best is not None
    assert result.best.options["recipe.x"] == 0.3


def test_a_part_of_a_grid_is_spread_over_it(few: Path):
    space = {"recipe.x": {"low": 0, "high": 1, "step": 0.01}, "recipe.kind": ["a", "b", "c"]}
    search = run_of(few, space, method="grid", trials=40).search
    assert search is not None
    assert how_many(search) == 40
    drawn = list(grid(search, seed=0))
    assert len({json.dumps(each) for each in drawn}) == 40
    assert {each["recipe.kind"] for each in drawn} == {"a", "b", "c"}
    assert max(each["recipe.x"] for each in drawn) - min(each["recipe.x"] for each in drawn) > 0.6
    assert drawn == list(grid(search, seed=0)) != list(grid(search, seed=1))


# --- random and tpe ---


@pytest.mark.parametrize("method", ["random", "tpe", "grid"])
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(few: Path, tmp_path: Path, method: str):
    values: Any = {"low": 0.0, "high": 1.0} if method != "grid" else {"low": 0.0, "high": 1.0, "step": 0.1}
    space = {"recipe.x": values, "recipe.inner.weight": [0.5, 2.0]}
    trials = 13 if method == "tpe" else 5
    run = run_of(few, space, evidence=2, method=method, trials=trials)
    whole = sw.search(run, tmp_path / "whole")
    assert len(whole.trials) == trials
    fits = len(FITS)
    for stop in (2, trials - 1):
        hunt = Search(run, tmp_path / "parts")
        for trial in hunt.trials():
            if trial.number == stop:
                break
    resumed = sw.search(run, tmp_path / "parts")
    assert told(resumed) == told(whole)
    assert len(FITS) == 2 * fits, "a finished trial was made again"
    assert (tmp_path / "parts" / "best.toml").read_bytes() == (tmp_path / "whole" / "best.toml").read_bytes()


def test_tpe_learns_from_the_trials_before(few: Path, tmp_path: Path):
    result = sw.search(run_of(few, X, evidence=2, method="tpe", trials=24), tmp_path)
    off = [abs(trial.options["recipe.x"] - 0.3) for trial in result.trials]
    assert np.mean(off[14:]) < 0.7 * np.mean(off[:10])
    assert result.best is not None
    assert abs(result.best.options["recipe.x"] - 0.3) < 0.2


def test_the_next_trial_depends_on_the_trials_and_its_number_only(few: Path):
    run = run_of(few, {**X, "recipe.kind": ["a", "b"]}, method="tpe")
    history = [
        Trial(k, {"recipe.x": k / 20, "recipe.kind": "ab"[k % 2]}, score=1 - abs(k / 20 - 0.3))
        for k in range(1, 16)
    ]
    assert suggest_options(run, history, 16) == suggest_options(run, history, 16)
    assert suggest_options(run, history, 16) != suggest_options(run, history, 17)


def test_the_same_options_are_not_tried_twice(few: Path, tmp_path: Path):
    result = sw.search(run_of(few, {"recipe.kind": ["a", "b"]}, method="random", trials=8), tmp_path)
    assert len(result.trials) == 8
    assert len(FITS) == 2 * 3
    repeats = [trial for trial in result.trials if trial.same_as is not None]
    assert len(repeats) == 6
    for trial in repeats:
        first = result.trials[trial.same_as - 1]  # type: ignore[operator]
        assert (first.options, first.score) == (trial.options, trial.score)


# --- what is kept ---


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(few: Path, tmp_path: Path):
    run = run_of(few, {"recipe.kind": ["a", "broken"]}, method="grid")
    result = sw.search(run, tmp_path)
    failed = next(trial for trial in result.trials if trial.failed)
    assert failed.error == "this kind never works"
    assert result.best is not None
    assert result.best.options == {"recipe.kind": "a"}
    assert "this kind never works" in str(result)
    table = pl.read_csv(tmp_path / "trials.csv")
    assert table.filter(pl.col("error").is_not_null())["recipe.kind"].to_list() == ["broken"]
    fits = len(FITS)
    again = sw.search(run, tmp_path).trials
    assert [(t.number, t.options, t.error) for t in again] == [
        (t.number, t.options, t.error) for t in result.trials
    ]
    assert len(FITS) == fits, "what failed is not tried again"
    worst = sw.search(run_of(few, {"recipe.kind": ["broken"]}, method="grid"), tmp_path / "all")
    assert worst.best is None
    assert not (tmp_path / "all" / "best.toml").exists()
    assert "read why all trials failed" in worst.next_step


def test_trials_of_another_recipe_metric_or_table_are_left_aside(few: Path, tmp_path: Path):
    space = {"recipe.x": [0.1, 0.2]}
    sw.search(run_of(few, space, method="grid"), tmp_path)
    others = [
        run_of(few, space, {"name": "stub", "kind": "b"}, method="grid"),
        run_of(few, space, method="grid", evidence=2),
        run_of(few, {"recipe.x": [0.1, 0.2]}, method="grid").model_copy(update={"seed": 5}),
    ]
    for run in others:
        FITS.clear()
        assert len(sw.search(run, tmp_path).trials) == 2
        assert len(FITS) == 2 * int(run.data.evidence)
    FITS.clear()
    more = sw.search(run_of(few, {"recipe.x": [0.1, 0.2, 0.3]}, method="grid"), tmp_path)
    assert len(more.trials) == 3
    assert len(FITS) == 3, "a wider space goes on from the trials that lie in it"


def test_a_broken_trial_file_is_named(few: Path, tmp_path: Path):
    run = run_of(few, {"recipe.x": [0.1]}, method="grid")
    sw.search(run, tmp_path)
    path = next((tmp_path / "trials").iterdir())
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path.name} is not a trial of this version"):
        sw.search(run, tmp_path)


@pytest.mark.parametrize("evidence", [3, 0.4])
def test_scores_are_those_of_a_fit(few: Path, tmp_path: Path, evidence: float):
    """A trial's scores are what the report of ``fit`` says, over folds and on a holdout."""
    result = sw.search(run_of(few, {"recipe.x": [0.6]}, evidence=evidence, method="grid"), tmp_path)
    catalog = Catalog.read(few)
    groups = sw.near_duplicates(catalog)
    found = expect(
        Stub(x=0.6),
        catalog,
        groups,
        evidence=evidence,
        random_split=False,
        curve=False,  # type: ignore[arg-type]
    ).report
    (trial,) = result.trials
    assert trial.score == pytest.approx(found.score, abs=1e-12)
    assert trial.most_probable == pytest.approx(found.score - found.line("gain").score, abs=1e-9)
    assert len(trial.by_fold) == (3 if evidence == 3 else 5)
    assert np.mean(trial.by_fold) == pytest.approx(trial.score, abs=0.1)


def test_a_best_score_is_corrected_for_being_the_best(tmp_path: Path, few: Path):
    trials = (
        Trial(1, {"recipe.x": 0.1}, score=0.6, by_fold=(0.5, 0.7)),
        Trial(2, {"recipe.x": 0.2}, score=0.58, by_fold=(0.6, 0.5)),
        Trial(3, {"recipe.x": 0.3}, error="no"),
    )
    result = SearchResult(run_of(few, X), "harmonic_f1", trials, 3, tmp_path)
    assert result.corrected == pytest.approx(0.6 - (0.1 + 0.0) / 2)
    assert "expect about 0.5500" in str(result)
    one = SearchResult(run_of(few, X), "harmonic_f1", trials[:1], 3, tmp_path)
    assert np.isnan(one.corrected)


def test_paths_of_the_best_run_file_lead_from_its_folder(few: Path, tmp_path: Path):
    """In a run file paths are relative to it: so they are in the one that is written into another folder."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "run.toml").write_text(
        f'[data]\ncatalog = "{os.path.relpath(few, tmp_path / "runs")}"\nevidence = 2\n[recipe]\nname = "stub"\n'
        'teacher = "t.parquet"\nmembers = ["one", { bundle = "two" }]\n'
        '[search]\nmethod = "grid"\nspace = { "recipe.x" = [0.5] }\n',
        encoding="utf-8",
    )
    sw.search(tmp_path / "runs" / "run.toml", tmp_path / "deep" / "found")
    recipe = make_recipe(read_run(tmp_path / "deep" / "found" / "best.toml").recipe)
    assert recipe.teacher.resolve() == tmp_path / "runs" / "t.parquet"
    assert Path(recipe.members[0]).resolve() == tmp_path / "runs" / "one"
    assert Path(recipe.members[1]["bundle"]).resolve() == tmp_path / "runs" / "two"


# --- the command line ---


def stub_run(few: Path, folder: Path, **search: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "run.toml"
    run = run_of(few, {**X, "recipe.kind": ["a", "b"]}, {"name": "stub", "teacher": "t.parquet"}, 2, **search)
    path.write_text(to_toml(run.table()), encoding="utf-8")
    return path


def toy_run(few: Path, folder: Path, **search: Any) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "run.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in search.items()]
    path.write_text(
        f'[data]\ncatalog = "{os.path.relpath(few, folder)}"\nevidence = 2\n'
        '[recipe]\nname = "probe"\nbackbone = "toy"\nlook_alikes = 0\n'
        "[search]\n"
        + "\n".join(lines)
        + '\n[search.space]\n"recipe.l2" = { low = 1e-3, high = 1.0, log = true }\n'
        '"recipe.backbone.seed" = { low = 0, high = 3, step = 1 }\n',
        encoding="utf-8",
    )
    return path


def test_the_best_trial_becomes_a_complete_run_file(shell: Shell, few: Path, tmp_path: Path):
    path = stub_run(few, tmp_path / "runs", method="random", trials=2)
    ran = shell("search", path, "recipe.inner.weight=0.5", "-o", tmp_path / "found")
    assert ran.code == 0, ran.err
    assert "trial 1 of 2: harmonic_f1 " in ran.out
    assert "best of 2 trials: " in ran.out
    best = tmp_path / "found" / "best.toml"
    assert f"next: shelfwise fit {best} -o BUNDLE" in ran.out
    run = read_run(best)
    assert run.search is None
    assert run.data.catalog.samefile(few)
    scores = pl.read_csv(tmp_path / "found" / "trials.csv").sort("score", descending=True)
    recipe = make_recipe(run.recipe)
    assert (recipe.x, recipe.kind) == (float(scores["recipe.x"][0]), scores["recipe.kind"][0])
    assert recipe.inner.weight == 0.5, "what is not searched stays as it was"
    assert not list((tmp_path / "found").glob("folds/*")), (
        "finished folds of finished trials are of no more use"
    )


def test_ctrl_c_prints_the_best_so_far(
    shell: Shell, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made = _Judge.trial

    def trial(judge: Any, number: int, *given: Any) -> Trial:
        if number == 2:
            raise KeyboardInterrupt
        found: Trial = made(judge, number, *given)
        return found

    monkeypatch.setattr(_Judge, "trial", trial)
    path = stub_run(few, tmp_path, method="random", trials=5)
    ran = shell("search", path, "-o", tmp_path / "s")
    assert ran.code == 130
    assert "best of 1 trials: " in ran.out
    assert (tmp_path / "s" / "best.toml").exists()


def counted(folder: Path) -> int:
    return len(list(folder.glob("trials/*.json")))


def child(path: Path, out: Path, cache: Path) -> list[str]:
    """A search in a process of its own; the toy backbone is registered first."""
    code = "import sys, shelfwise.testing\nfrom shelfwise.cli import run\nsys.argv[0] = 'shelfwise'\nrun()"
    given = ["--cache", str(cache), "--engine", "torch", "--jobs", "1"]
    return [sys.executable, "-c", code, "search", str(path), "-o", str(out), *given]


def kill_after(command: list[str], out: Path, trials: int) -> None:
    """Kill a search once it has so many trials."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env=dict(os.environ),
    )
    end = time.monotonic() + 120
    while counted(out) < trials and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[1].decode()[-2000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
def test_a_killed_search_loses_no_finished_trial(few: Path, machine: Machine, tmp_path: Path):
    """The probe on the toy catalogue, killed twice, equals a search left in peace; ``fit`` takes its best run file."""
    import shelfwise.testing  # noqa: F401  (registers the backbone "toy")

    path = toy_run(few, tmp_path, method="tpe", trials=6)
    whole = sw.search(read_run(path), tmp_path / "whole", machine=machine)
    out, before = tmp_path / "killed", {}
    for trials in (1, 3):
        kill_after(child(path, out, tmp_path / "cache"), out, trials)
        for name, text in before.items():
            assert (out / "trials" / name).read_bytes() == text, "a finished trial was lost or changed"
        before = {each.name: each.read_bytes() for each in (out / "trials").glob("*.json")}
        assert trials <= len(before) < 6
    resumed = sw.search(read_run(path), out, machine=machine)
    assert told(resumed) == told(whole)
    for name, text in before.items():
        assert (out / "trials" / name).read_bytes() == text
    assert (out / "best.toml").read_bytes() == (tmp_path / "whole" / "best.toml").read_bytes()
    bundle, _ = fit_run(read_run(out / "best.toml"), machine=machine)
    assert bundle.report.score == pytest.approx(max(trial.score for trial in resumed.trials), abs=1e-12)
