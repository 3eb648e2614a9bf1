"""Fetching: jobs to photos in their places, by many threads, recorded by one.

It does not know tables, and what is known already is not its concern. A photo counts when it decodes, whatever its
name, its stated type and its status said.
"""

import os
import queue
import random
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shelfwise.data.addresses import Address, read_address, scheme_of
from shelfwise.data.images import content_digest, open_image
from shelfwise.data.ledger import Ledger, Outcome
from shelfwise.data.stores import Stores
from shelfwise.data.terms import DownloadOptions, NotFetched
from shelfwise.data.turns import Turns
from shelfwise.data.wire import Body, Wires
from shelfwise.errors import ImageError, ShelfwiseError
from shelfwise.files import Progress, replacing

ENDINGS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "AVIF": ".avif",
    "GIF": ".gif",
    "BMP": ".bmp",
    "TIFF": ".tif",
}
#: Seconds between two writes to the ledger, and to the progress.
EVERY = 0.25
#: Side at which a photo is decoded to see that it is one: the smallest scale, and every byte is read all the same.
LOOK = 32


@dataclass(eq=False, slots=True)
class Job:
    """One address to be fetched, and the files it becomes.

    Attributes:
        key, host: of the address.
        names: of the files, without ending.
        source: what to ask for now, after redirects; ``None`` where it is no http address.
        hops: redirects followed in this attempt.
        tries: attempts that failed.
    """

    key: str
    host: str
    names: list[str]
    source: Address | None = None
    hops: int = 0
    tries: int = 0

    @property
    def place(self) -> str:
        """The host that is asked now."""
        return self.source.host if self.source is not None else self.host


def linked(source: Path, targets: Iterable[Path]) -> None:
    """Give a file further names, or copy it where the file system cannot."""
    for target in targets:
        with replacing(target) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                temporary.write_bytes(source.read_bytes())


class Run:
    """The fetching of jobs by many threads, and the recording of what became of them by one."""

    def __init__(
        self,
        folder: Path,
        options: DownloadOptions,
        ledger: Ledger,
        jobs: Sequence[Job],
        progress: Progress | None,
    ) -> None:
        self.folder, self.options, self.ledger, self.progress = folder, options, ledger, progress
        self.turns = Turns([(job.host, job) for job in jobs], options.per_host)
        self.wires, self.stores = Wires(options, folder), Stores(options)
        self.results: queue.SimpleQueue[tuple[Outcome, Sequence[str]]] = queue.SimpleQueue()
        #: Decoding takes memory and a processor: no more at once than there are processors.
        self.decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.total = len(jobs)
        self.unrecorded: list[tuple[Outcome, Sequence[str]]] = []

    def go(self) -> None:
        """Fetch everything; on an error or an interrupt end quickly, with everything recorded that was done."""
        workers = min(self.options.workers, self.total)
        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="downloading") as pool:
                futures = [pool.submit(self._work) for _ in range(workers)]
                try:
                    self._watch(futures)
                except BaseException:
                    self.turns.stop()
                    self.wires.close()
                    self.stores.close()
                    raise
        finally:
            self.wires.close()
            self.stores.close()
            self._record()

    def _watch(self, futures: Sequence[Future[None]]) -> None:
        """Record what comes until all is done; raise what a thread raised."""
        begun, done, lost, size = time.monotonic(), 0, 0, 0
        while self.turns.left or not self.results.empty():
            time.sleep(min(EVERY, 0.01) if self.turns.left < self.options.workers else EVERY)
            for future in futures:
                if future.done():
                    future.result()
            found = self._record()
            done += len(found)
            lost += sum(outcome.status != "ok" for outcome, _ in found)
            size += sum(outcome.bytes for outcome, _ in found)
            if self.progress is not None:
                took = max(time.monotonic() - begun, 1e-9)
                words = f"downloading · {done / took:,.0f}/s, {size / took / 1e6:,.1f} MB/s, {lost:,} lost"
                self.progress(words, done, self.total)

    def _record(self) -> list[tuple[Outcome, Sequence[str]]]:
        """Record what has come since the last time; what an interrupt kept from the ledger, the next call records."""
        while not self.results.empty():
            self.unrecorded.append(self.results.get())
        found = list(self.unrecorded)
        self.ledger.record(found)
        self.unrecorded.clear()
        return found

    def _work(self) -> None:
        """Take jobs until there are none."""
        rng = random.Random()
        while (job := self.turns.take()) is not None:
            place = job.place
            try:
                got = self._fetch(job)
                if isinstance(got, Address):
                    self._follow(job, got, place)
                    continue
                found: tuple[Outcome, Sequence[str]] = (self._keep(job, got), job.names)
            except NotFetched as error:
                if self.turns.stopped:
                    return
                job.tries += 1
                if error.again and job.tries < self.options.attempts:
                    self._again(job, error, place, rng)
                    continue
                found = (Outcome(job.key, error.status, error.reason, str(error)), ())
            self._finish(job, found, place)

    def _finish(self, job: Job, found: tuple[Outcome, Sequence[str]], place: str) -> None:
        """Hand over what became of a job, and count it off after that."""
        job.source = None
        self.results.put(found)
        self.turns.done(place)

    def _fetch(self, job: Job) -> Body | Address:
        """Ask for a job's address once."""
        scheme = scheme_of(job.key)
        if scheme not in ("http", "https"):
            return self.stores.get(job.key, scheme)
        if job.source is None:
            job.source = read_address(job.key, allow_private=self.options.allow_private)
        return self.wires.get(job.source)

    def _follow(self, job: Job, target: Address, place: str) -> None:
        """Hand a redirected job to its new host."""
        job.hops += 1
        if job.hops > self.options.redirects:
            detail = f"redirected more than {self.options.redirects} times"
            self._finish(job, (Outcome(job.key, "failed", "redirects", detail), ()), place)
            return
        job.source = target
        self.turns.move(place, job, target.host)

    def _again(self, job: Job, error: NotFetched, place: str, rng: random.Random) -> None:
        """Put a job off: a random share of a doubling time, after what the server asked for."""
        most = min(self.options.longest_wait, self.options.wait * 2.0 ** (job.tries - 1))
        seconds = rng.uniform(0, most) + min(error.wait or 0.0, self.options.longest_wait)
        job.source, job.hops = None, 0
        pause = error.wait is not None or error.reason == "http_429"
        self.turns.again(place, job, seconds, pause=pause, home=job.host)

    def _keep(self, job: Job, body: Body) -> Outcome:
        """Verify a photo and put it in its places."""
        with body.file, self.decoding:
            data = body.file.read()
            try:
                photo = open_image(data, target=LOOK)
            except ImageError as error:
                again = error.kind in ("empty", "truncated") and not body.whole
                raise NotFetched("not_an_image", error.kind, str(error), again=again) from error
            width, height, form = photo.width, photo.height, photo.format
            del photo
        ending = ENDINGS[form]
        first, *others = (self.folder / f"{name}{ending}" for name in job.names)
        try:
            with replacing(first) as temporary:
                temporary.write_bytes(data)
            linked(first, others)
        except OSError as error:
            raise ShelfwiseError(f"{first} cannot be written: {error.strerror or error}") from error
        digest = content_digest(data).hex()
        return Outcome(job.key, "ok", "", "", ending, digest, len(data), width, height)
