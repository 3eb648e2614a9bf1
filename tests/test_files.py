"""Files: whole or not at all, whatever interrupts, and a directory that changes places."""

import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from shelfwise.files import cache_directory, replacing, replacing_directory, settle, sha256, write_text
from shelfwise.tables import write_frame


def test_a_file_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "deep" / "f.txt"
    write_text(path, "one")
    write_text(path, "zwei\r\n")
    assert path.read_bytes() == b"zwei\r\n"
    assert [p.name for p in path.parent.iterdir()] == ["f.txt"]
    assert sha256(path) == hashlib.sha256(b"zwei\r\n").hexdigest()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "f.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_directory(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "d"
    with replacing_directory(path) as temporary:
        (temporary / "a").write_text("old")

    def interrupted() -> None:
        with replacing_directory(path) as temporary:
            (temporary / "a").write_text("half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@contextlib.contextmanager
def no_more_than(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_the_system_refuses_names_the_file(tmp_path: Path):
    """The libraries that write tables and tensors say "(os error 27)", and not where."""
    table, bundle = tmp_path / "table.csv", tmp_path / "bundle"
    with no_more_than(10_000):
        with pytest.raises(OSError, match="File too large") as said:
            write_frame(pl.DataFrame({"a": range(10_000)}), table)
        assert said.value.filename == str(table)
        with pytest.raises(OSError, match="File too large") as said, replacing_directory(bundle) as folder:
            save_file({"a": np.zeros(10_000)}, folder / "weights.safetensors")
        assert said.value.filename == str(bundle)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_replaced_whole(tmp_path: Path):
    path = tmp_path / "d"
    for names in (["a", "b"], ["c"]):
        with replacing_directory(path) as temporary:
            for name in names:
                (temporary / name).mkdir()
                (temporary / name / "x").write_text(name)
    assert [p.name for p in path.iterdir()] == ["c"]
    assert list(tmp_path.iterdir()) == [path]


def test_settle_gives_the_old_one_its_name_back(tmp_path: Path):
    path = tmp_path / "d"
    old = tmp_path / ".d.old-1"
    old.mkdir()
    (old / "a").write_text("old")
    settle(path)
    assert (path / "a").read_text() == "old"
    old.mkdir()
    settle(path)
    assert not old.exists()
    assert (path / "a").read_text() == "old"


def test_killed_at_any_moment_a_directory_is_old_or_new(tmp_path: Path):
    """A process that replaces a directory over and over is killed; what it leaves is one of its states."""
    program = f"""
from pathlib import Path
from shelfwise.files import replacing_directory
for turn in range(100_000):
    with replacing_directory({str(tmp_path / "d")!r}) as temporary:
        for name in "abc":
            (temporary / name).write_text(str(turn))
"""
    for wait in (0.05, 0.11, 0.02, 0.17, 0.07):
        process = subprocess.Popen([sys.executable, "-c", program])
        until = time.monotonic() + 20
        while not (tmp_path / "d").exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        settle(tmp_path / "d")
        assert [path.name for path in tmp_path.iterdir()] == ["d"]
        states = {(tmp_path / "d" / name).read_text() for name in "abc"}
        assert len(states) == 1


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SHELFWISE_CACHE", str(tmp_path / "named"))
    assert cache_directory() == tmp_path / "named"
    assert cache_directory(tmp_path) == tmp_path
    monkeypatch.delenv("SHELFWISE_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "shelfwise"


def test_written_files_are_readable_by_others_as_the_umask_says(tmp_path: Path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "f", "x")
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)
