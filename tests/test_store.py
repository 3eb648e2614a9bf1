import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shelfwise.data.store import Store
from shelfwise.errors import ShelfwiseError


def items(count: int, size: int = 100, start: int = 0) -> dict[bytes, bytes]:
    return {i.to_bytes(16, "big"): bytes([i % 251]) * size for i in range(start, start + count)}


def test_values_come_back_and_absent_keys_do_not(tmp_path: Path) -> None:
    some = items(3000)
    with Store(tmp_path / "deep" / "s.sqlite") as store:
        store.put(some)
        store.put({})
        assert store.get([*some, b"absent"]) == some
        assert store.has([b"absent", next(iter(some))]) == {next(iter(some))}
        assert len(store) == 3000
        assert store.get([]) == {}
    with Store(tmp_path / "deep" / "s.sqlite") as again:
        assert again.get(list(some)) == some
        assert again.set_aside is None


def test_the_first_value_stays(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        store.put({b"a": b"1"})
        store.put({b"a": b"2", b"b": b""})
        assert store.get([b"a", b"b"]) == {b"a": b"1", b"b": b""}


@pytest.mark.parametrize("junk", [b"this is no database" * 100, bytes(5000)])
def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "s.sqlite"
    path.write_bytes(junk)
    with Store(path) as store:
        assert store.set_aside is not None
        assert store.set_aside.read_bytes() == junk
        store.put({b"a": b"1"})
        assert store.get([b"a"]) == {b"a": b"1"}


def test_a_page_damaged_in_the_middle_never_gives_a_wrong_value(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    some = items(2000, 500)
    with Store(path) as store:
        store.put(some)
    raw = bytearray(path.read_bytes())
    for position in range(20_000, len(raw), 30_000):
        raw[position : position + 3000] = os.urandom(3000)
    path.write_bytes(bytes(raw))
    with Store(path) as store:
        found = store.get(list(some))
        assert all(some[key] == value for key, value in found.items())
        store.put(some)
        store.get(list(some))
        store.put(some)


def test_a_changed_value_reads_as_absent_and_can_be_put_again(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put({b"a": b"right"})
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE items SET value = ?", (b"wrong",))
    raw.close()
    with Store(path) as store:
        assert store.get([b"a"]) == {}
        store.put({b"a": b"right"})
        assert store.get([b"a"]) == {b"a": b"right"}


def test_a_place_that_cannot_be_written_is_a_readable_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ShelfwiseError, match="cache directory"):
        Store(tmp_path / "file" / "s.sqlite")
    (tmp_path / "dir.sqlite").mkdir()
    with pytest.raises(ShelfwiseError, match=r"dir\.sqlite"):
        Store(tmp_path / "dir.sqlite")


def test_threads_share_one_store(tmp_path: Path) -> None:
    with Store(tmp_path / "s.sqlite") as store:
        threads = [threading.Thread(target=store.put, args=(items(500, start=i * 250),)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store) == 500 + 5 * 250


WRITER = """
import sys
from pathlib import Path
from shelfwise.data.store import Store
store = Store(Path(sys.argv[1]))
start, count = int(sys.argv[2]), int(sys.argv[3])
print("open", flush=True)
for i in range(start, start + count):
    store.put({i.to_bytes(16, "big"): bytes([i % 251]) * 5000})
"""


def write_in_process(path: Path, start: int, count: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(path), str(start), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    both = [write_in_process(path, 0, 300), write_in_process(path, 150, 300)]
    for one in both:
        one.communicate(timeout=60)
        assert one.returncode == 0
    with Store(path) as store:
        assert store.get(list(items(450))) == {key: value * 50 for key, value in items(450).items()}


def test_kill_9_loses_at_most_what_was_under_way(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    for attempt in range(4):
        writer = write_in_process(path, attempt * 1_000_000, 1_000_000)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.1 + 0.07 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        keys = [(attempt * 1_000_000 + i).to_bytes(16, "big") for i in range(200_000)]
        with Store(path) as store:
            assert store.set_aside is None
            found = store.has(keys)
            assert found == set(keys[: len(found)])
            assert len(found) > 0
            assert len(store.get(list(found))) == len(found)


def test_eleven_thousand_vectors_are_read_in_well_under_a_second(tmp_path: Path) -> None:
    some = items(11_000, 2560)
    with Store(tmp_path / "s.sqlite") as store:
        store.put(some)
    with Store(tmp_path / "s.sqlite") as store:
        start = time.perf_counter()
        assert len(store.get(list(some))) == 11_000
        assert time.perf_counter() - start < 1.0
