"""A process killed at any moment leaves nothing that the next run cannot go on from."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shelfwise.rendering import render_catalog

KILLS = 10


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    render_catalog(folder, products=240, seed=3, size=(96, 128))
    return folder


def command(verb: str, drawn: Path, cache: Path, *more: str) -> list[str]:
    table = [str(drawn / "train.csv"), "--images", str(drawn / "train_images"), "--cache", str(cache)]
    if verb == "fit":
        table += ["--attributes", str(drawn / "category_attributes.parquet")]
    return [sys.executable, "-m", "shelfwise.cli", verb, *table, *more]


def run(arguments: list[str]) -> float:
    begun = time.monotonic()
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return time.monotonic() - begun


def kill_at(arguments: list[str], seconds: float) -> None:
    process = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_a_killed_fit_goes_on_and_equals_an_undisturbed_one(drawn: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    took = run(command("fit", drawn, tmp_path / "cache-whole", "-o", str(whole)))
    killed, rng = tmp_path / "killed", random.Random(0)
    arguments = command("fit", drawn, tmp_path / "cache", "-o", str(killed))
    for _ in range(KILLS):
        kill_at(arguments, rng.uniform(0.1, took))
    run(arguments)
    assert digests(killed) == digests(whole)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_killed_embed_goes_on_and_equals_an_undisturbed_one(drawn: Path, tmp_path: Path) -> None:
    took = run(command("embed", drawn, tmp_path / "cache-whole"))
    rng = random.Random(1)
    arguments = command("embed", drawn, tmp_path / "cache")
    for _ in range(KILLS):
        kill_at(arguments, rng.uniform(0.1, took))
    run(arguments)

    code = (
        "import sys, pathlib, numpy as np, shelfwise as sw\n"
        "photos = sorted(pathlib.Path(sys.argv[1]).iterdir())\n"
        "found = sw.embed(photos, sw.backbone('lite0'), cache=pathlib.Path(sys.argv[2]))\n"
        "print(found.computed, __import__('hashlib').sha256(found.vectors.tobytes()).hexdigest())\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code, str(drawn / "train_images"), str(tmp_path / cache)],
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        ).stdout.split()
        for cache in ("cache-whole", "cache")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == "0", "the second run embedded what the first had embedded"
