"""Crews: who answers the shards of a job: this process, several on this machine, or a Ray cluster.

They know neither answers nor the record; each yields what became of a shard as soon as it is done, in any order. A
process that dies costs the shards that were under way; they are given out again, a few times. A worker whose job's
process is gone ends by itself.
"""

import contextlib
import multiprocessing
import os
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shelfwise.batch.answering import work
from shelfwise.batch.jobs import Done, Job
from shelfwise.batch.shards import Shard
from shelfwise.errors import ShelfwiseError, UsageError, require

#: How often a shard may be under way when a process dies.
TRIES = 3
#: What numerical libraries read their number of threads from.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
Earlier = tuple[Path, ...]


def crew(job: Job, shards: Sequence[Shard], earlier: Earlier) -> Generator[Done]:
    """Answer shards as the options of the job say, and yield what became of each.

    Raises:
        MissingExtra: Ray, which is not installed.
        ShelfwiseError: a shard during which a process died again and again.
    """
    options = job.options
    if options.on == "ray":
        yield from _on_ray(job, shards, earlier)
    elif options.workers and len(shards) > 1:
        yield from _in_processes(job, shards, earlier)
    else:
        for shard in shards:
            yield work(job, shard, earlier)


def _in_processes(job: Job, shards: Sequence[Shard], earlier: Earlier) -> Generator[Done]:
    """Give shards to processes of this machine; as many are under way as there are processes."""
    workers = min(job.options.workers, len(shards))
    threads = max(1, (os.cpu_count() or 1) // workers)
    theirs = _theirs(job, threads)
    waiting, tries = deque(shards), Counter[int]()
    while waiting:
        with _threads(threads):
            pool = ProcessPoolExecutor(
                workers, mp_context=multiprocessing.get_context("spawn"), initializer=_attend
            )
            under_way: dict[Future[Done], Shard] = {}
            try:
                while waiting or under_way:
                    while waiting and len(under_way) < workers:
                        shard = waiting.popleft()
                        under_way[pool.submit(work, theirs, shard, earlier)] = shard
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        done = future.result()
                        del under_way[future]
                        yield done
            except BrokenProcessPool:
                lost = sorted(under_way.values(), key=lambda shard: shard.number)
                tries.update(shard.number for shard in lost)
                worst = max(lost, key=lambda shard: tries[shard.number])
                if tries[worst.number] >= TRIES:
                    raise ShelfwiseError(
                        f"a process died {TRIES} times while it answered rows {worst.first + 1} to "
                        f"{worst.first + worst.rows} of {job.cut.source}: is there memory enough? Try fewer "
                        "workers, or smaller shards; what is done is kept"
                    ) from None
                waiting.extendleft(reversed(lost))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _theirs(job: Job, threads: int) -> Job:
    """Return the job as another process is given it, which uses so many threads unless the user said otherwise."""
    jobs = job.machine.jobs or threads
    return replace(job, machine=replace(job.machine, jobs=jobs, progress=None, engines=None))


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that begin in this block use so many threads each."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, str(count)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _attend() -> None:
    """End this process when the one that began it is gone, even where that was killed."""
    parent = multiprocessing.parent_process()

    def leave() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave, daemon=True, name="attend").start()


def _on_ray(job: Job, shards: Sequence[Shard], earlier: Earlier) -> Generator[Done]:
    """Give shards to a Ray cluster as a data set of their numbers; every machine sees the same files."""
    ray = require("ray", extra="ray")
    data = require("ray.data", extra="ray")
    if not shards:
        return
    started = not ray.is_initialized()
    workers = job.options.workers
    if started:
        here: dict[str, Any] = (
            {} if job.options.address else {"num_cpus": workers or None, "include_dashboard": False}
        )
        try:
            ray.init(address=job.options.address, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"no Ray cluster at {job.options.address or 'this machine'}: {error}") from error
    given = ray.put((_theirs(job, 1), earlier))

    def answered(row: dict[str, Any]) -> dict[str, Any]:
        held_job, held_earlier = ray.get(given)
        return asdict(work(held_job, Shard(**row), held_earlier))

    try:
        data.DataContext.get_current().enable_progress_bars = False
        rows = data.from_items([asdict(shard) for shard in shards], override_num_blocks=len(shards))
        for row in rows.map(answered, num_cpus=1).iter_rows():
            yield Done(**row)
    finally:
        if started:
            ray.shutdown()
