"""Checkpoints: whole or not at all, the one before when the last is damaged, and exact resume."""

import errno
import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from shelfwise.errors import TrainingError
from shelfwise.train import checkpoint
from shelfwise.train.checkpoint import State, load_last, save
from shelfwise.train.loop import train
from shelfwise.train.optim import Optimiser, Phase
from tiny_training import PAIRS, Step, Tiny, anatomy, data

pytestmark = pytest.mark.usefixtures("one_thread")

PHASES = (
    Phase(epochs=1, train="heads", lr=0.05),
    Phase(epochs=2, train=("last", "Shirts/colour"), lr=0.03),
    Phase(epochs=2, lr=0.02, wise_ft=0.8),
)
OPTIMISER = Optimiser(accumulate=2, ema=0.9, clip=0.5, warm_up=0.2, layer_decay=0.7, patience=2)


def validate(network: nn.Module) -> dict[tuple[str, str], float]:
    """Scores of the network's own, the same for the same weights; one attribute never has any."""
    values = network(data().images).mean((0, 2)).tolist()
    return dict(zip(PAIRS, [*values[:2], math.nan], strict=True))


def going(network: nn.Module, resume: State | None = None, **more: object):
    options = {"validate": validate, "anatomy": anatomy(), "seed": 5, **more}
    return train(network, Step(network), data(size=4), PHASES, OPTIMISER, resume=resume, **options)  # type: ignore[arg-type]


def copy(state: State) -> State:
    return State(
        state.step, {n: t.clone() for n, t in state.tensors.items()}, json.loads(json.dumps(state.facts))
    )


def some_state(step: int, value: float = 1.0) -> State:
    return State(
        step, {"a": torch.full((64,), value), "b": torch.tensor(3)}, {"name": "é", "at": {"step": step}}
    )


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_what_is_saved_comes_back(tmp_path: Path):
    layout = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    state = State(
        7, {"a": layout, "b": torch.tensor(3), "c": torch.zeros(0)}, {"score": -math.inf, "x": 0.1 + 0.2}
    )
    path = save(tmp_path / "run", state)
    assert sorted(file.name for file in path.iterdir()) == ["state.json", "tensors.safetensors"]
    found = load_last(tmp_path / "run")
    assert found.notes == ()
    assert found.state is not None
    assert found.state.step == 7
    assert found.state.facts == state.facts
    assert same(found.state.tensors, state.tensors)


def test_the_newest_two_are_kept(tmp_path: Path):
    for step in (5, 80, 900):
        save(tmp_path, some_state(step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000080", "step-000000900"]
    found = load_last(tmp_path).state
    assert found is not None
    assert found.step == 900


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    save(tmp_path, some_state(5, 1.0))
    save(tmp_path, some_state(5, 2.0))
    found = load_last(tmp_path).state
    assert found is not None
    assert found.tensors["a"][0] == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000005"]


def test_nothing_there_is_no_state(tmp_path: Path):
    assert (
        load_last(tmp_path / "never") == checkpoint.Loaded(None)
        or load_last(tmp_path / "never").state is None
    )
    assert load_last(tmp_path / "never").notes == ()


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1 - len(content) // 3] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [truncate, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_a_damaged_last_one_falls_back_and_says_so(damage, file: str, tmp_path: Path):
    save(tmp_path, some_state(1))
    last = save(tmp_path, some_state(2))
    damage(last / file)
    found = load_last(tmp_path)
    assert found.state is not None
    assert found.state.step == 1
    assert len(found.notes) == 1
    assert str(last) in found.notes[0]
    assert "damaged" in found.notes[0]


def test_both_damaged_is_no_state_and_two_notes(tmp_path: Path):
    for step in (1, 2):
        truncate(save(tmp_path, some_state(step)) / "tensors.safetensors")
    found = load_last(tmp_path)
    assert found.state is None
    assert [f"step-00000000{step}" in note for step, note in zip((2, 1), found.notes, strict=True)] == [
        True,
        True,
    ]


def test_another_format_is_passed_over(tmp_path: Path):
    path = save(tmp_path, some_state(1)) / "state.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    found = load_last(tmp_path)
    assert found.state is None
    assert "has format 99, this version reads 1" in found.notes[0]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["tensors", "facts", "rename"])
def test_a_full_disk_and_ctrl_c_leave_the_last_good_one(
    error: BaseException, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, some_state(1))
    save(tmp_path, some_state(2))

    def fail(*_: object, **__: object) -> None:
        raise error

    def half(tensors: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise error

    if where == "tensors":
        monkeypatch.setattr(checkpoint, "save_file", half)
    elif where == "facts":
        monkeypatch.setattr(Path, "write_text", fail)
    else:
        monkeypatch.setattr("os.replace", fail)
    with pytest.raises(type(error)):
        save(tmp_path, some_state(3))
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000001", "step-000000002"]
    found = load_last(tmp_path)
    assert (found.state is not None and found.state.step, found.notes) == (2, ())
    save(tmp_path, some_state(3))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_training_goes_on_from_every_event_to_the_same_weights(tmp_path: Path):
    whole = Tiny(seed=1)
    kinds, states = [], []
    for event in going(whole):
        kinds.append(event.kind)
        states.append(copy(event.state()))
    assert kinds.count("phase") == 3
    assert len(kinds) > 20
    end = whole.state_dict()
    for number, state in enumerate(states):
        again = Tiny(seed=1)
        rest = [event.kind for event in going(again, state)]
        assert rest == kinds[number + 1 :]
        assert same(again.state_dict(), end), f"from event {number}, a {kinds[number]}"


def test_states_through_files_are_equal_byte_for_byte(tmp_path: Path):
    def ends(directory: Path, stops: set[int]) -> bytes:
        state, number = None, 0
        for stop in [*sorted(stops), 10**9]:
            network = Tiny(seed=1)
            events = going(network, state)
            for event in events:
                number += 1
                save(directory, event.state())
                if number >= stop:
                    break
            else:
                break
            del events
            state = load_last(directory).state
            assert state is not None
        (last,) = sorted(directory.iterdir())[-1:]
        return (last / "tensors.safetensors").read_bytes()

    undisturbed = ends(tmp_path / "a", set())
    assert ends(tmp_path / "b", {2, 3, 9, 14}) == undisturbed
    assert load_file(next((tmp_path / "a").iterdir()) / "tensors.safetensors")


def test_a_state_of_another_training_is_refused(tmp_path: Path):
    events = going(Tiny(seed=1))
    state = copy(next(iter(events)).state())
    events.close()
    with pytest.raises(TrainingError, match="the network it began with was not this one"):
        next(going(Tiny(seed=2), state))
    with pytest.raises(TrainingError, match="its seed were 5, now 6"):
        next(going(Tiny(seed=1), state, seed=6))


def test_a_state_is_small_while_the_tower_is_frozen():
    events = going(Tiny(seed=1))
    state = next(iter(events)).state()
    events.close()
    weights = {name for name in state.tensors if name.startswith("network.") and "norm" not in name}
    assert weights == {"network.heads.weights", "network.heads.biases", "network.heads.last"}


def test_no_state_is_given_after_a_loss_that_is_no_number():
    network = Tiny()
    step = Step(network)
    events = train(network, step, data(), [Phase()], Optimiser())
    event = next(iter(events))
    assert all(bool(tensor.isfinite().all()) for tensor in event.state().tensors.values())
    with torch.no_grad():
        network.heads.last.fill_(math.nan)
    with pytest.raises(TrainingError, match="the loss is nan"):
        next(iter(events))
