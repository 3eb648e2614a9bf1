"""Photos fetched a second from a healthy server, and what is left of 10,000 from a faulty one after three kills.

The server is ``tests/faulty_server.py`` in a process of its own. Healthy: ``download`` beside a plain loop over
urllib and the same loop on 32 threads, all three verifying and writing what they fetch, in turns. Faulty: 20 % of the
addresses cut the connection once or twice, 5 % are slow, 5 % hold a web page named .jpg, 5 % redirect, 5 % repeat an
address; the process is killed with SIGKILL three times and begun again.
"""

import argparse
import contextlib
import json
import os
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from shelfwise.data.download import download
from shelfwise.data.images import open_image
from shelfwise.data.terms import DownloadOptions

SERVER = Path(__file__).resolve().parents[1] / "tests" / "faulty_server.py"
WORKERS = 32
#: Share of a run's addresses after which it is killed.
KILLS = (0.2, 0.45, 0.7)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Run the server; give its address."""
    with subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.match(r"port (\d+)", process.stdout.readline())
        assert found is not None
        try:
            yield f"http://127.0.0.1:{found.group(1)}"
        finally:
            process.kill()


def write_table(path: Path, urls: list[str]) -> Path:
    """Write a table of products with these addresses."""
    ids = [f"{number:06d}" for number in range(len(urls))]
    pl.DataFrame({"id": ids, "image_link": urls}).write_csv(path)
    return path


def child(table: Path, out: Path) -> None:
    """Fetch a table and print how many a second."""
    options = DownloadOptions(allow_private=True, workers=WORKERS, per_host=WORKERS, idle=2.0, wait=0.05)
    used: list[tuple[float, float]] = []

    def note(_: str, done: int, total: int) -> None:
        used.append((done / max(total, 1), resident()))

    found = download(table, out, options=options, progress=note)
    early = next((memory for share, memory in used if share >= 0.2), 0.0)
    growth = used[-1][1] - early if used else 0.0
    said = {"per_second": found.asked / found.seconds, "counts": found.counts(), "growth_mb": growth}
    print(json.dumps(said))


def resident() -> float:
    """Return the memory of this process now in MB; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def start(table: Path, out: Path) -> "subprocess.Popen[str]":
    """Begin to fetch a table in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, str(table), str(out)], stdout=subprocess.PIPE, text=True
    )


def ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what a process printed, with its peak of memory in MB."""
    assert process.stdout is not None
    said = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"the download ended with {process.returncode}")
    return {**json.loads(said), "peak_mb": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)}


def plain(urls: list[str], out: Path, threads: int) -> float:
    """Fetch with urllib, verify and write; return how many a second."""
    out.mkdir()

    def one(number: int) -> None:
        with urllib.request.urlopen(urls[number]) as response:
            data = response.read()
        open_image(data, target=32)
        (out / f"{number}.jpg").write_bytes(data)

    begun = time.perf_counter()
    if threads == 1:
        for number in range(len(urls)):
            one(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, range(len(urls))))
    return len(urls) / (time.perf_counter() - begun)


def healthy(server: str, folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Rates and peaks of memory when nothing fails."""
    urls = [f"{server}/ok/{number}.jpg" for number in range(count)]
    few = write_table(folder / "few.csv", urls[: count // 10])
    many = write_table(folder / "many.csv", urls)
    ours, loop, threads, peaks, growth = [], [], [], [], []
    small = ended(start(few, folder / "few"))["peak_mb"]
    for turn in range(rounds):
        found = ended(start(many, folder / f"many{turn}"))
        assert found["counts"] == {"ok": count}, found
        ours.append(found["per_second"])
        peaks.append(found["peak_mb"])
        growth.append(found["growth_mb"])
        loop.append(plain(urls[: count // 10], folder / f"loop{turn}", 1))
        threads.append(plain(urls[: count // 10], folder / f"threads{turn}", WORKERS))
    return {
        "files_per_second": round(statistics.median(ours)),
        "urllib_per_second": round(statistics.median(loop)),
        "urllib_threads_per_second": round(statistics.median(threads)),
        "ratio_urllib": round(statistics.median(a / b for a, b in zip(ours, loop, strict=True)), 2),
        "peak_mb": {str(count // 10): round(small), str(count): round(max(peaks))},
        "ratio_peak": round(max(peaks) / small, 3),
        "growth_mb": round(max(growth), 1),
    }


def faulty_urls(server: str, count: int) -> list[str]:
    """Addresses with the stated shares of faults, in a drawn order."""
    kinds = ["reset/1"] * 10 + ["reset/2"] * 10 + ["slow/400"] * 5 + ["html"] * 5 + ["redirect/2"] * 5
    kinds += ["same"] * 5 + ["ok"] * (100 - len(kinds) - 5)
    drawn = [kinds[number % 100] for number in range(count)]
    random.Random(0).shuffle(drawn)
    return [
        f"{server}/ok/same{number % 20}.jpg" if kind == "same" else f"{server}/{kind}/{number}.jpg"
        for number, kind in enumerate(drawn)
    ]


def verified(out: Path, copy: Path) -> set[str]:
    """The addresses a killed run has recorded, read from a copy of its ledger."""
    for name in ("downloads.sqlite", "downloads.sqlite-wal"):
        if (out / name).exists():
            (copy / name).write_bytes((out / name).read_bytes())
    with contextlib.closing(sqlite3.connect(copy / "downloads.sqlite")) as connection:
        return {url for (url,) in connection.execute("SELECT url FROM urls WHERE status = 'ok'")}


def faulty(server: str, folder: Path, count: int) -> dict[str, Any]:
    """What is left of a faulty server's photos after three kills."""

    def log() -> dict[str, int]:
        with urllib.request.urlopen(f"{server}/log") as response:
            asked: dict[str, int] = json.load(response)["asked"]
        return asked

    urls = faulty_urls(server, count)
    table, out, copy = write_table(folder / "faulty.csv", urls), folder / "faulty", folder / "copy"
    copy.mkdir()
    known: dict[str, int] = {}
    begun = time.perf_counter()
    for share in KILLS:
        process = start(table, out)
        while process.poll() is None and (not out.exists() or len(os.listdir(out)) < share * count):
            time.sleep(0.05)
        process.kill()
        process.communicate()
        asked = log()
        known |= {url: asked[url.removeprefix(server)] for url in verified(out, copy) - set(known)}
    last = ended(start(table, out))
    asked = log()
    rows = pl.read_csv(out / "manifest.csv", infer_schema=False).rows(named=True)
    pages = {f"{number:06d}" for number, url in enumerate(urls) if "/html/" in url}
    lost = {row["id"] for row in rows if row["status"] != "ok"}
    for row in rows:
        if row["image"]:
            open_image(out / row["image"], target=32)
    named = {row["image"] for row in rows if row["image"]} | {"downloads.sqlite", "manifest.csv"}
    return {
        "ids_with_one_status": len({row["id"] for row in rows}) if len(rows) == count else -1,
        "wrong_statuses": len(lost ^ pages),
        "other_files": len(set(os.listdir(out)) - named),
        "verified_before_the_last_kill": len(known),
        "fetched_again": sum(asked[url.removeprefix(server)] != times for url, times in known.items()),
        "seconds": round(time.perf_counter() - begun, 1),
        "peak_mb": round(last["peak_mb"]),
        "growth_mb": round(last["growth_mb"], 1),
    }


def main(count: int = 10_000, rounds: int = 3) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name, serving() as server:
        result = {
            "benchmark": "download",
            "count": count,
            **healthy(server, Path(name), count, rounds),
            "faulty": faulty(server, Path(name), count),
        }
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--quick", action="store_true", help="1,000 photos, one round")
        main(**({"count": 1_000, "rounds": 1} if parser.parse_args().quick else {}))
