"""A job whose process or whose workers are killed at any moment goes on, and loses a shard a worker at most."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from conftest import Toy
from shelfwise.bundle import Bundle
from shelfwise.predictions import Machine

ROWS, SHARD, WORKERS = 180, 12, 2
SCRIPT = Path(__file__).with_name("batch_script.py")


@pytest.fixture
def whole(toy: Toy, bundle: Bundle, machine: Machine, tmp_path: Path, one_thread: None) -> bytes:
    """What all rows at once give."""
    bundle.answer(bundle.read(toy.table), machine=machine).write(tmp_path / "whole.csv")
    return (tmp_path / "whole.csv").read_bytes()


def command(toy: Toy, saved: Path, out: Path, cache: Path, on: str = "here", *more: str) -> list[str]:
    words = [saved, toy.table, out, cache, SHARD, WORKERS, on, *more]
    return [sys.executable, str(SCRIPT), *map(str, words)]


def run(arguments: list[str]) -> list[int]:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.splitlines()[-1].split()]


def gone(group: int) -> bool:
    """Whether all processes of a group have ended, soon."""
    for _ in range(300):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_job_killed_at_random_moments_gives_what_an_undisturbed_one_gives(
    toy: Toy, saved: Path, whole: bytes, tmp_path: Path
) -> None:
    out, rng, computed = tmp_path / "out.csv", random.Random(7), 0
    arguments = command(toy, saved, out, tmp_path / "cache")
    for shards in (1, 4):
        process = subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        give_up = time.monotonic() + 120
        while len(list(tmp_path.rglob("*.parquet"))) < shards and time.monotonic() < give_up:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert gone(process.pid), "a worker outlives its job"
        computed = len(list(tmp_path.rglob("*.parquet")))
        assert not out.exists() or shards > 1
    rows, last, failed = run(arguments)
    assert (rows, failed) == (ROWS, 0)
    assert last <= ROWS - computed * SHARD or out.exists()
    assert out.read_bytes() == whole
    ids = pl.read_csv(out, infer_schema=False)["id"]
    assert ids.n_unique() == len(ids) == ROWS
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")], "half-written files"


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(toy: Toy, saved: Path, whole: bytes, tmp_path: Path) -> None:
    found = run(command(toy, saved, tmp_path / "out.csv", tmp_path / "cache", "here", "kill"))
    assert found == [ROWS, ROWS, 0]
    assert (tmp_path / "out.csv").read_bytes() == whole


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_the_same(
    toy: Toy, saved: Path, whole: bytes, tmp_path: Path
) -> None:
    pytest.importorskip("ray.data")
    found = run(command(toy, saved, tmp_path / "out.csv", tmp_path / "cache", "ray"))
    assert found == [ROWS, ROWS, 0]
    assert (tmp_path / "out.csv").read_bytes() == whole
    shutil.rmtree(tmp_path / "cache")
    assert run(command(toy, saved, tmp_path / "out.csv", tmp_path / "cache"))[1] == 0
