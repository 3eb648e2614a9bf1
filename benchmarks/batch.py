"""Batch jobs: equal answers by any crew, kills, reruns, memory, and a long table of vectors that are known.

Prints one JSON line. A catalogue is drawn, a ``probe`` bundle is learnt from it, and tables name its photos again and
again under new ids. Every job runs in a process of its own, so that it can be killed and its memory is its own.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS, LONG, PHOTOS, KILLS, WORKERS = 100_000, 1_000_000, 2_000, 5, 2


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes that show it works")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--long", type=int, default=None)
    parser.add_argument("--without-ray", action="store_true")
    given = parser.parse_args()
    rows, long = (2_000, 6_000) if given.quick else (ROWS, LONG)
    rows, long = given.rows or rows, given.long or long
    with tempfile.TemporaryDirectory(prefix="shelfwise-batch-") as place:
        shop = Shop(Path(place), 300 if given.quick else PHOTOS, min(5000, rows // 20))
        found: dict[str, Any] = {"benchmark": "batch", "rows": rows, "long": long, "cores": os.cpu_count()}
        found |= crews(shop, rows, ray=not given.without_ray)
        for on in ("processes",) if given.without_ray else ("processes", "ray"):
            found |= kills(shop, rows, on)
        found |= reruns(shop, rows)
        found |= length(shop, rows, long)
    print(json.dumps(found))
    return 0


class Shop:
    """A drawn catalogue, a bundle learnt from it, and tables that name its photos."""

    def __init__(self, folder: Path, photos: int, shard: int) -> None:
        from shelfwise.rendering import render_catalog

        self.shard = shard
        self.folder, self.cache = folder, folder / "cache"
        render_catalog(folder / "drawn", products=photos, seed=1, size=(96, 128))
        self.images = folder / "drawn" / "train_images"
        words = ["--attributes", folder / "drawn" / "category_attributes.parquet", "--images", self.images]
        self.bundle = folder / "bundle"
        shelfwise(
            "fit",
            folder / "drawn" / "train.csv",
            *words,
            "-o",
            self.bundle,
            "--cache",
            self.cache,
            "data.evidence=3",
        )

    def table(self, rows: int, changed: float = 0.0) -> Path:
        """Write a table of so many rows; a share of them with another photo than without changes."""
        with (self.folder / "drawn" / "train.csv").open(encoding="utf-8", newline="") as file:
            products = list(csv.DictReader(file))
        photos = {path.stem.lstrip("0"): path.name for path in self.images.iterdir()}
        path = self.folder / f"table-{rows}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "Category", "image"])
            for row in range(rows):
                other = bool(changed) and row % round(1 / changed) == 0
                at = products[(row + (5 if other else 0)) % len(products)]
                writer.writerow([f"p{row:08d}", at["Category"], photos.get(at["id"].lstrip("0"), "")])
        return path

    def command(self, table: Path, out: Path, *more: object) -> list[str]:
        """Return the command that answers a table as a job."""
        words = [
            self.bundle,
            table,
            "-o",
            out,
            "--images",
            self.images,
            "--cache",
            self.cache,
            "--shard",
            self.shard,
        ]
        return [sys.executable, "-m", "shelfwise.cli", "predict", *map(str, (*words, *more))]


def shelfwise(*words: object) -> None:
    """Run a verb."""
    subprocess.run([sys.executable, "-m", "shelfwise.cli", *map(str, words)], check=True, capture_output=True)


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the megabytes its process held at most."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said.decode()[-2000:])
    return time.perf_counter() - start, used.ru_maxrss / 1024


def digest(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ids_once(path: Path, rows: int) -> bool:
    """Whether every id is in a file of answers once, in order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row[0] for row in csv.reader(file)][1:] == [f"p{row:08d}" for row in range(rows)]


def record(out: Path) -> sqlite3.Connection:
    """Open the record of a job that has ended."""
    return sqlite3.connect(out.with_name(out.name + ".job") / "job.sqlite")


def crews(shop: Shop, rows: int, *, ray: bool) -> dict[str, Any]:
    """Answer a table here, in two processes, and on a local Ray cluster of two."""
    table, found, digests = shop.table(rows), {}, set()
    kinds: dict[str, tuple[object, ...]] = {"here": (), "processes": ("--workers", 2)}
    if ray:
        kinds["ray"] = ("--on", "ray", "--workers", 2)
    for name, words in kinds.items():
        out = shop.folder / f"{name}.csv"
        seconds, _ = timed(shop.command(table, out, *words))
        found[f"seconds_{name}"] = round(seconds, 1)
        digests.add((digest(out), ids_once(out, rows)))
    return {**found, "crews_equal": len(digests) == 1 and digests.pop()[1]}


def kills(shop: Shop, rows: int, on: str) -> dict[str, Any]:
    """Kill a job and its workers at random moments, go on, and compare with an undisturbed one.

    A worker has one shard in hand, so what is computed twice is at most that, per worker and kill, if no shard whose
    answers were in their place when something was killed is computed again: their files must stay the same files.
    """
    words = ("--workers", WORKERS, *(("--on", "ray") if on == "ray" else ()))
    table, out, rng = shop.table(rows), shop.folder / f"killed-{on}.csv", random.Random(0)
    log, calm = out.with_suffix(".jsonl"), shop.folder / f"calm-{on}.csv"
    command = shop.command(table, out, *words, "--log", log)
    timed(shop.command(table, calm, *words, "--log", calm.with_suffix(".jsonl")))
    killed, kept, process = list[str](), dict[str, tuple[int, int]](), begun(command)
    while len(killed) < KILLS and process.poll() is None:
        wanted = len(parts(out)) + rng.randrange(1, 3)
        while process.poll() is None and len(parts(out)) < wanted:
            time.sleep(rng.uniform(0.0, 0.1))
        kept |= parts(out)
        family = descendants(process.pid)
        workers = [pid for pid, name in family.items() if "ray::Map" in name or "spawn_main" in name]
        if process.poll() is None and len(killed) % 2 and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed.append("worker")
        elif process.poll() is None:
            process.kill()
            process.wait()
            killed.append("driver")
            while any(Path(f"/proc/{pid}").exists() for pid in family):
                time.sleep(0.1)  # the workers of a job that is gone end by themselves
            process = begun(command)
    if process.wait():
        raise SystemExit(f"the job on {on} ended with {process.returncode} after {killed}")
    found = parts(out)
    lines = [path.read_bytes().splitlines() for path in (log, calm.with_suffix(".jsonl"))]
    cells = [
        sorted((item["row"], item["attribute"], item["value"]) for item in map(json.loads, part))
        for part in lines
    ]
    again = sum(found.get(name) != place for name, place in kept.items())
    return {
        f"{on}_kills": killed,
        f"{on}_kills_equal": digest(out) == digest(calm) and ids_once(out, rows),
        f"{on}_log_equal": cells[0] == cells[1],
        f"{on}_done_computed_again": again,
        f"{on}_rows_twice_at_most": (again + len(killed) * WORKERS) * shop.shard,
        f"{on}_record_share": record_share(shop, out),
    }


def begun(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a job."""
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """Return the files of answers of a job that are in their place: which file each is, and when it was written."""
    folder = out.with_name(out.name + ".job")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*/*.parquet")}


def descendants(pid: int) -> dict[int, str]:
    """Return the processes that a process began, and those began, with their commands."""
    said = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in said.splitlines()]
    family, found = {pid}, dict[int, str]()
    for _ in rows:
        fresh = {int(row[0]): row[2] for row in rows if int(row[1]) in family and int(row[0]) not in found}
        if not fresh:
            break
        found |= fresh
        family |= set(fresh)
    return found


def record_share(shop: Shop, out: Path) -> float:
    """Return the seconds that a job's record takes to write, as a share of those its shards took."""
    with record(out) as connection:
        (worked,) = connection.execute("SELECT sum(seconds) FROM shards").fetchone()
        start = time.perf_counter()
        copy = sqlite3.connect(shop.folder / f"{out.stem}-copy.sqlite", isolation_level=None)
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = WAL")
        for row in connection.execute("SELECT * FROM shards").fetchall():
            copy.execute("INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    return round((time.perf_counter() - start) / float(worked), 5)


def reruns(shop: Shop, rows: int) -> dict[str, Any]:
    """Answer a table again without a change, and with one row in a hundred changed."""
    table, out = shop.table(rows), shop.folder / "here.csv"
    before = digest(out)
    unchanged, _ = timed(shop.command(table, out))
    equal = digest(out) == before
    shop.table(rows, changed=0.01)
    changed, _ = timed(shop.command(table, out))
    with record(out) as connection:
        computed, whole = connection.execute("SELECT sum(computed), sum(rows) FROM shards").fetchone()
    fresh = shop.folder / "fresh.csv"
    timed(shop.command(table, fresh))
    return {
        "seconds_unchanged": round(unchanged, 1),
        "unchanged_equal": equal,
        "seconds_one_percent": round(changed, 1),
        "one_percent_computed": computed,
        "one_percent_rows": whole,
        "one_percent_equal": digest(out) == digest(fresh),
    }


def length(shop: Shop, rows: int, long: int) -> dict[str, Any]:
    """Answer a short and a long table of known vectors: seconds, memory, and what the record costs."""
    _, little = timed(shop.command(shop.table(rows), shop.folder / "short.csv"))
    seconds, much = timed(shop.command(shop.table(long), shop.folder / "long.csv", "--workers", 2))
    shutil.rmtree(shop.folder / "long.csv.job")
    _, alone = timed(shop.command(shop.table(long), shop.folder / "long.csv"))
    return {
        "seconds_long": round(seconds, 1),
        "megabytes_short": round(little),
        "megabytes_long": round(alone),
        "megabytes_long_driver": round(much),
        "record_share": record_share(shop, shop.folder / "long.csv"),
    }


if __name__ == "__main__":
    sys.exit(main())
