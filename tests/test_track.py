"""Trackers: every number of every epoch arrives once, whatever is killed, resumed or unreachable."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from shelfwise.config import RunOptions, TrackOptions, read_run
from shelfwise.errors import ConfigError, MissingExtra, UsageError
from shelfwise.predictions import Machine
from shelfwise.train.events import Event
from shelfwise.train.track import (
    FILE,
    _renamed,
    epochs_of,
    numbers_of,
    read_jsonl,
    record_of,
    tracker,
    write_epochs,
)

PER_EPOCH, EPOCHS = 5, 4
SCORES = {("Cups", "colour"): 0.8, ("Cups", "size"): float("nan"), ("Tea & Mugs/öl", "colour"): 0.6}


def events(first: int = 1) -> list[Event]:
    """A training from one step on, its epochs scored, its phase ended."""
    found = []
    for step in range(1, PER_EPOCH * EPOCHS + 1):
        epoch = (step - 1) // PER_EPOCH
        common = {
            "epoch": epoch,
            "step": step,
            "of": PER_EPOCH * EPOCHS,
            "loss": 2 / step,
            "rates": {"stem": 0.0, "heads": 0.1 / step},
            "pictures_per_second": 52.4,
            "seconds_left": 3.0,
        }
        found.append(Event("step", **common))  # type: ignore[arg-type]
        if step % PER_EPOCH == 0:
            more = {"score": 0.5 + 0.1 * epoch, "scores": SCORES, "pair_loss": SCORES, "best": True}
            found.append(Event("epoch", **common, **more))  # type: ignore[arg-type]
    found.append(replace(found[-1], kind="phase"))
    return [event for event in found if event.step >= first]


def follow(folder: Path, given: Iterable[Event], *to: str, progress: Any = None) -> None:
    options = TrackOptions(to=to or ("jsonl",))  # type: ignore[arg-type]
    with tracker(options, folder, progress) as track:
        for event in given:
            track(event)


# --- JSONL ---


def test_a_line_an_event_in_order_with_every_number(tmp_path: Path):
    follow(tmp_path / "run", events())
    records = read_jsonl(tmp_path / "run" / FILE)
    assert records == [record_of(event) for event in events()]
    epoch = next(record for record in records if record["kind"] == "epoch")
    assert epoch["scores"] == [
        ["Cups", "colour", 0.8],
        ["Cups", "size", None],
        ["Tea & Mugs/öl", "colour", 0.6],
    ]
    assert epoch["rates"]["heads"] == 0.1 / PER_EPOCH
    json.loads((tmp_path / "run" / FILE).read_text().splitlines()[0], parse_constant=pytest.fail)


@pytest.mark.parametrize("resumed_at", [1, 6, 13])
@pytest.mark.parametrize("lost", [0, 1, 40])
def test_a_resumed_run_has_no_step_twice_and_none_missing(tmp_path: Path, resumed_at: int, lost: int):
    """The killed run was beyond its checkpoint, and its last line may be cut off anywhere."""
    follow(tmp_path, [event for event in events() if event.step < 18])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[: -lost or None])
    follow(tmp_path, events(resumed_at))
    assert read_jsonl(path) == [record_of(event) for event in events()]
    assert path.read_bytes().count(b"\n") == len(events())


def test_a_finished_run_that_has_nothing_to_do_keeps_its_file(tmp_path: Path):
    follow(tmp_path, events())
    before = (tmp_path / FILE).read_bytes()
    follow(tmp_path, [])
    assert (tmp_path / FILE).read_bytes() == before


def test_a_step_is_in_the_file_when_the_process_is_killed(tmp_path: Path):
    code = (
        "import sys, os, signal, types\n"
        "from shelfwise.config import TrackOptions\n"
        "from shelfwise.train.track import tracker\n"
        "with tracker(TrackOptions(to=['jsonl']), sys.argv[1]) as track:\n"
        "    for step in (1, 2, 3):\n"
        "        track(types.SimpleNamespace(kind='step', phase=0, epoch=0, step=step, of=9, loss=1.0, rates={},\n"
        "            main=True, pictures_per_second=1.0, seconds_left=1.0, score=None, best=False,\n"
        "            scores={}, pair_loss={}))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr
    assert [record["step"] for record in read_jsonl(tmp_path / FILE)] == [1, 2, 3]


def test_processes_that_do_not_log_write_nothing(tmp_path: Path):
    follow(tmp_path / "run", [replace(event, main=False) for event in events()])
    assert not (tmp_path / "run").exists()


def test_epochs_for_a_bundle_hold_nothing_of_the_machine(tmp_path: Path):
    slow = [replace(event, pictures_per_second=3.0, seconds_left=900.0) for event in events()]
    for name, given in (("a", events()), ("b", slow)):
        write_epochs(tmp_path / name, epochs_of([record_of(event) for event in given]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = read_jsonl(tmp_path / "a")
    assert [record["epoch"] for record in found] == list(range(EPOCHS))
    assert found[-1]["score"] == pytest.approx(0.8)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot read the steps"):
        read_jsonl(tmp_path / "none.jsonl")


# --- console ---


def test_the_console_shows_loss_score_and_pace_on_one_line(tmp_path: Path):
    shown: list[tuple[str, int, int]] = []
    follow(tmp_path, events(), "console", progress=lambda *given: shown.append(given))
    assert {text.partition(" · ")[0] for text, *_ in shown} == {"training"}
    assert shown[0] == ("training · loss 2.000 · 52 pictures/s", 1, PER_EPOCH * EPOCHS)
    assert "score 0.500" in shown[PER_EPOCH + 1][0], (
        "the score of the epoch before stands on the steps after it"
    )
    assert shown[-1][1] == shown[-1][2] == PER_EPOCH * EPOCHS
    assert [done for _, done, total in shown].index(PER_EPOCH * EPOCHS) >= len(shown) - 2, (
        "done before it is scored"
    )
    shown.clear()
    follow(tmp_path, events()[:7], "console", progress=lambda *given: shown.append(given))
    assert shown[-2][1] < shown[-2][2]
    assert shown[-1][1] == shown[-1][2], "a training that stopped early is done as well"
    follow(tmp_path, events(), "console")  # without a progress it says nothing
    assert not list(tmp_path.iterdir())


def test_plain_lines_change_their_words_and_stay_one_thing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from shelfwise import progress

    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    tell = progress._lines()
    for done, loss in enumerate((0.9, 0.5, 0.3), start=1):
        tell(f"training · loss {loss}", done, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("training · loss 0.5: 2 of 3, about ")
    assert lines[-1].startswith("training · loss 0.3: 3 done in ")


# --- TensorBoard ---


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {
        tag: [(each.step, round(each.value, 4)) for each in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path: Path):
    follow(tmp_path, [event for event in events() if event.step < 18], "tensorboard")
    follow(tmp_path, events(11), "tensorboard")
    found = scalars(tmp_path / "tensorboard")
    assert found["step/loss"] == [(step, round(2 / step, 4)) for step in range(1, PER_EPOCH * EPOCHS + 1)]
    ends = [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    assert [step for step, _ in found["epoch/score"]] == ends
    assert found["epoch/score/Cups/colour"] == [(step, 0.8) for step in ends]
    assert "epoch/score/Cups/size" not in found, "an attribute without a score has no point"
    assert len(found["epoch/rate/heads"]) == EPOCHS


# --- services ---


class Service:
    """A service that remembers what it is told, and may be out of reach."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.started: list[dict[str, Any]] = []
        self.ended: list[Any] = []
        self.down = False

    def start(self, **given: Any) -> Any:
        self.started.append(given)
        run = SimpleNamespace(id="run-7", info=SimpleNamespace(run_id="run-7"))
        run.log = lambda numbers, step: self.log(numbers, step=step)
        run.finish = lambda exit_code: self.ended.append(exit_code)
        return run

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        if self.down:
            raise ConnectionError("no route")
        self.logged.append((step, numbers))


class Refused(Exception):
    """What a service raises by itself."""


@pytest.fixture(params=["mlflow", "wandb"])
def service(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Service]:
    """Fakes of the two packages, which need not be installed."""
    told, module, errors = Service(), ModuleType(request.param), ModuleType("errors")
    if request.param == "mlflow":
        vars(module).update(set_experiment=lambda name: told.started.append({"experiment": name}))
        vars(module).update(start_run=told.start, log_metrics=told.log, end_run=told.ended.append)
        vars(errors)["MlflowException"] = Refused
        monkeypatch.setitem(sys.modules, "mlflow.exceptions", errors)
    else:
        vars(module)["init"] = told.start
        vars(errors)["Error"] = Refused
        monkeypatch.setitem(sys.modules, "wandb.errors", errors)
        monkeypatch.setenv("WANDB_API_KEY", "secret")
    monkeypatch.setitem(sys.modules, request.param, module)
    return request.param, told


def test_a_service_gets_every_epoch_once_over_a_resume(tmp_path: Path, service: tuple[str, Service]):
    name, told = service
    folder = tmp_path / "abc123"
    follow(folder, [event for event in events() if event.step < 18], name)
    follow(folder, events(11), name)
    assert [step for step, _ in told.logged] == [5, 10, 15, 20]
    numbers = told.logged[-1][1]
    assert numbers["loss"] == 0.1
    assert numbers["score"] == pytest.approx(0.8)
    assert numbers["score/Cups/colour"] == 0.8
    assert numbers["rate/heads"] == pytest.approx(0.1 / 20)
    assert all(map(math.isfinite, numbers.values()))
    again = told.started[-1]
    assert again.get("run_id", again.get("id")) == "run-7", "the resumed run goes on in the run it began"
    first = next(given for given in told.started if "experiment" not in given)
    assert first.get("run_name", first.get("name")) == "abc123"


def test_a_service_out_of_reach_does_not_stop_a_training(tmp_path: Path, service: tuple[str, Service]):
    name, told = service
    told.down = True
    with pytest.warns(RuntimeWarning, match=f"{name} is told no more of this training") as warned:
        follow(tmp_path, events(), name, "jsonl")
    assert len(warned) == 1
    assert len(read_jsonl(tmp_path / FILE)) == len(events())


def test_a_training_that_broke_off_is_told_so(tmp_path: Path, service: tuple[str, Service]):
    name, told = service

    def stopped() -> Iterator[Event]:
        yield from (event for event in events() if event.step < 12)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(tmp_path, stopped(), name)
    assert told.ended == (["FAILED"] if name == "mlflow" else [1])


def test_names_that_become_alike_are_told_apart():
    assert _renamed({"score/a&b/c": 1.0, "score/a+b/c": 2.0, "x y.z-1": 3.0}) == {
        "score/a_b/c": 1.0,
        "score/a_b/c_2": 2.0,
        "x y.z-1": 3.0,
    }


def test_numbers_have_names():
    numbers = numbers_of(record_of(events()[PER_EPOCH]))
    assert numbers["loss/Cups/colour"] == 0.8
    assert "score/Cups/size" not in numbers


def test_a_service_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtra, match=r"shelfwise\[mlflow\]"):
        follow(tmp_path, events(), "mlflow")


def test_weights_and_biases_without_a_key_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with pytest.raises(UsageError, match="WANDB_API_KEY"), tracker(TrackOptions(to=("wandb",)), tmp_path):
        pytest.fail("a tracker without a key")


# --- the run file ---


def written(tmp_path: Path, track: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(f'[data]\ncatalog = "a.csv"\n[track]\n{track}\n', encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["wandb_api_key", "token", "mlflow_tracking_password", "api_key"])
def test_a_key_in_a_run_file_is_an_error_that_does_not_show_it(tmp_path: Path, name: str):
    with pytest.raises(
        ConfigError, match=rf"track: {name} does not belong in a file: set WANDB_API_KEY"
    ) as error:
        read_run(written(tmp_path, f'{name} = "hush-1234"'))
    assert "hush-1234" not in str(error.value)


def test_an_unknown_tracker_is_an_error(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"track\.to\.0.*'consle'"):
        read_run(written(tmp_path, 'to = ["consle"]'))


def test_a_run_hands_its_trackers_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from shelfwise import start

    seen: list[Machine] = []
    monkeypatch.setattr(start, "read_data", lambda data: None)
    monkeypatch.setattr(start, "fit", lambda *given, machine, **more: seen.append(machine))
    table = {
        "data": {"catalog": "a.csv"},
        "recipe": {"name": "probe"},
        "track": {"to": ["jsonl"], "project": "shelf"},
    }
    start.fit_run(RunOptions.model_validate(table), machine=Machine(jobs=1))
    assert seen[0].track == TrackOptions(to=("jsonl",), project="shelf")
    assert seen[0].jobs == 1


def test_nothing_is_imported_that_is_not_asked_for(tmp_path: Path):
    code = (
        "import sys\nfrom shelfwise.train.track import tracker\n"
        "with tracker(None, sys.argv[1]): pass\n"
        "print(sorted({'torch', 'tensorboard', 'mlflow', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert done.stdout.strip() == "[]"
