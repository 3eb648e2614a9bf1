"""A fine-tune that is killed at any moment and goes on ends at the weights of an undisturbed one."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

KILLS = 20
#: Seconds that the script waits after each event, so that kills meet all of it.
PAUSE = 0.02


class Nursery:
    """A process that has imported everything and forks a training when asked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, directory: Path) -> int:
        """Start a training, wait until it has begun, and return its process."""
        directory.mkdir(exist_ok=True)
        begun = directory / "begun"
        begun.unlink(missing_ok=True)
        training = int(self.asked(f"{directory} {PAUSE}"))
        give_up = time.monotonic() + 120
        while not begun.exists() and time.monotonic() < give_up:
            time.sleep(0.002)
        return training

    def asked(self, line: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()

    def finish(self, directory: Path) -> tuple[bytes, float]:
        """Train to the end; return the final weights and the seconds since it had begun."""
        self.start(directory)
        begun = time.monotonic()
        assert self.asked("wait") == "0\n"
        return (directory / "final.safetensors").read_bytes(), time.monotonic() - begun

    def kill(self, directory: Path, seconds: float) -> bool:
        """Start a training, kill it so many seconds after it began; return whether it was still running."""
        training = self.start(directory)
        time.sleep(seconds)
        os.kill(training, signal.SIGKILL)
        return self.asked("wait") != "0\n"


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, str(Path(__file__).with_name("training_script.py"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="processes are forked")
def test_a_killed_training_goes_on_and_equals_an_undisturbed_one(nursery: Nursery, tmp_path: Path) -> None:
    undisturbed, took = nursery.finish(tmp_path / "whole")
    draws, steps, folder = random.Random(0), [], 0
    for _ in range(3 * KILLS):
        killed = tmp_path / f"killed-{folder}"
        if nursery.kill(killed, draws.uniform(0.0, took / 3)):
            last = max((path.name for path in killed.glob("checkpoints/step-*")), default="")
            steps.append(int(last.removeprefix("step-") or 0))
        else:  # it had come to its end: once more from the beginning
            assert (killed / "final.safetensors").read_bytes() == undisturbed
            folder += 1
        if len(steps) == KILLS:
            break
    assert len(steps) == KILLS, f"only {len(steps)} kills met the training"
    assert len(set(steps)) >= 5, f"the kills did not meet the training: {steps}"
    assert nursery.finish(killed)[0] == undisturbed
    left = sorted(path.name for path in (killed / "checkpoints").iterdir() if path.name.startswith("step-"))
    assert len(left) == 2, left
