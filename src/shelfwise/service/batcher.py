"""Batcher: a bounded queue in front of one worker, which takes what waits together.

It does not know what is asked nor how it is answered. A request is turned away at once where it would have to wait
longer than it can, and dropped before any work where it has waited too long or nobody waits for it any more. What can
be done of a piece by itself, threads do ahead while the worker is at another batch. A batch is what is ready when the
worker becomes free: small when it is quiet, large when it is not.
"""

import asyncio
import contextlib
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from shelfwise.errors import ShelfwiseError
from shelfwise.service.pace import Mean, Pace

#: Work may take so many times what is expected: the estimate is of a mean, and receiving a flood of requests takes
#: processors from the work. At 1.3 the slowest of those taken at ten times capacity came 0.3 to 0.6 s after a deadline
#: of 2 s.
CAUTION = 2.0
#: The same of a batch that is about to begin.
LAST_CAUTION = 1.3
#: Share of the usual deadline that one batch may take.
BATCH_SHARE = 0.25
#: How far the threads that work step back, in steps of Unix's nice.
NICE = 5
#: Share of all work on a batch that its fixed part may be where more is coming.
FIXED_SHARE = 0.1


def step_back() -> None:
    """Let this thread, and those it begins, come after the one that receives where all want a processor.

    At ten times capacity the slowest hundredth of refusals then took 13 to 18 ms instead of 22 to 44. Only Linux has
    priorities of threads.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICE, 19))


class Busy(Exception):
    """Work that is not taken, or was dropped.

    Attributes:
        reason: ``queue_full``, ``too_late`` (it would not be done in time), ``expired`` or ``draining``.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.reason, self.retry_after = reason, retry_after


class Watch(Protocol):
    """Is told what the batcher does."""

    def batch(self, count: int, seconds: float) -> None:
        """A batch of so many was worked on for so long."""
        ...

    def dropped(self, reason: str, count: int) -> None:
        """Work was dropped before it was begun."""
        ...


@dataclass(eq=False)
class _Waiting:
    """One piece of work.

    Attributes:
        kind: what it is alike to.
        item: what it is.
        until: when it is too late.
        behind: whether others were before it; one that begins at once is done, late or not.
        answer: for whoever waits.
        ready: whether what can be done ahead is done.
    """

    kind: Hashable
    item: Any
    until: float
    behind: bool
    answer: "asyncio.Future[Any]"
    ready: bool


class Ahead:
    """What is done of pieces one by one before their batch, the longest waiting first."""

    def __init__(
        self, of: Callable[[Any], Callable[[], None] | None], threads: int, seconds: float = 0.0
    ) -> None:
        """Begin.

        Args:
            of: returns what can be done of a piece, by any thread; ``None`` for nothing.
            threads: how many pieces side by side.
            seconds: that a piece takes, as far as is known; learns from every piece.
        """
        self.of, self.threads, self._mean = of, threads, Mean(seconds)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead", initializer=step_back)

    @property
    def each(self) -> float:
        """Seconds from one piece to the next while many wait."""
        return self._mean.seconds / self.threads

    def begin(self, piece: _Waiting, do: Callable[[], None], ready: Callable[[], None]) -> None:
        """Do of a piece what is to be done, unless it is too late for it, and tell that it is ready."""

        def whole() -> None:
            begun = time.monotonic()
            try:
                if not piece.answer.done() and (begun < piece.until or not piece.behind):
                    # A fault that is expected comes again with the batch, and is told there.
                    with contextlib.suppress(ShelfwiseError):
                        do()
                    self._mean.add(time.monotonic() - begun)
            finally:
                piece.ready = True
                ready()

        self._pool.submit(whole)

    def close(self) -> None:
        """Give up the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Batcher:
    """Answers pieces of work in batches of one kind, the longest waiting first; belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[Hashable, Sequence[Any]], Sequence[Any]],
        *,
        queue: int,
        batch: int,
        deadline: float,
        watch: Watch,
        pace: Pace,
        ahead: Ahead | None = None,
    ) -> None:
        """Prepare; ``run`` begins.

        Args:
            work: answers pieces of one kind, one for one, in a thread of its own.
            queue: pieces that wait at most.
            batch: pieces that are worked on together at most.
            deadline: seconds that a piece usually has.
            watch: is told what happens.
            pace: what is known of the seconds a batch takes; learns from every batch.
            ahead: what is done of pieces before.
        """
        self._work, self._queue, self._most, self._deadline = work, queue, batch, deadline
        self._watch, self.pace, self._ahead = watch, pace, ahead
        self._waiting: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._running = 0
        self._since = self._free = 0.0
        self._ending = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answering", initializer=step_back)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def largest(self) -> int:
        """The largest batch that leaves time for others before it."""
        return min(self._most, self.pace.within(BATCH_SHARE * self._deadline))

    def expected(self, count: int = 1) -> float:
        """Return the seconds after which so many more pieces would be done."""
        ahead, left = len(self._waiting) + count, 0.0
        batches = -(-ahead // self.largest)
        last = self.pace.of(min(ahead, self.largest))
        if self._running:
            left = max(0.0, self.pace.of(self._running) - (time.monotonic() - self._since))
            ahead = batches * self.largest  # more may come before the last of these batches begins
        worked = left + batches * self.pace.fixed + ahead * self.pace.each
        if self._ahead is None:
            return worked
        # Pieces are prepared while others are worked on; only the last batch is after all that.
        prepared = self._ahead.each * (sum(not each.ready for each in self._waiting) + count)
        return max(worked, prepared + last)

    def check(self, until: float, count: int = 1) -> None:
        """Make sure that so many more pieces can wait and be done in time.

        Raises:
            Busy: they cannot.
        """
        if self._ending:
            raise Busy("draining", 1.0)
        expected = self.expected(count)
        if len(self._waiting) + count > self._queue:
            raise Busy("queue_full", expected)
        if time.monotonic() + CAUTION * expected > until and (self._waiting or self._running):
            raise Busy("too_late", expected)

    def submit(self, kind: Hashable, items: Sequence[Any], until: float) -> "list[asyncio.Future[Any]]":
        """Let pieces wait; a future that is cancelled is work that nobody waits for.

        Args:
            kind: pieces of one kind may be worked on together.
            items: the pieces.
            until: when they are too late, in seconds of ``time.monotonic``.

        Raises:
            Busy: there is no room, or no time.
        """
        self.check(until, len(items))
        loop = asyncio.get_running_loop()
        behind = bool(self._waiting or self._running)
        new = [_Waiting(kind, item, until, behind, loop.create_future(), True) for item in items]
        self._waiting.extend(new)
        if self._ahead is not None:
            self._prepare(new, self._ahead, loop)
        self._more.set()
        return [each.answer for each in new]

    def _prepare(self, new: "list[_Waiting]", ahead: Ahead, loop: asyncio.AbstractEventLoop) -> None:
        def ready() -> None:
            loop.call_soon_threadsafe(self._more.set)

        for each in new:
            do = ahead.of(each.item)
            if do is not None:
                each.ready = False
                ahead.begin(each, do, ready)

    async def run(self) -> None:
        """Work until ``end``, and until then on what waits."""
        while True:
            batch = self._next()
            if batch:
                await self._do(batch)
            elif self._ending and not self._waiting:
                return
            else:
                self._more.clear()
                await self._more.wait()

    def end(self) -> None:
        """Take nothing more; ``run`` returns when everything that waits is done."""
        self._ending = True
        self._more.set()

    def close(self) -> None:
        """Give up the threads; call it when ``run`` has returned."""
        self._thread.shutdown(wait=True)
        if self._ahead is not None:
            self._ahead.close()

    def _next(self) -> list[_Waiting]:
        """Take the next batch off the queue: as the longest waiting, what is alike to it; drop what is too late."""
        ready = sum(each.ready for each in self._waiting)
        if ready < len(self._waiting) and self._gathering(ready):
            return []
        # Too late is what would not be done in time, not only what is late already.
        now = time.monotonic() + LAST_CAUTION * self.pace.of(min(ready, self.largest))
        dropped = {"expired": 0, "gone": 0}
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        while self._waiting and len(batch) < self.largest:
            each = self._waiting.popleft()
            if each.answer.done():
                dropped["gone"] += 1
            elif each.until < now and each.behind:
                dropped["expired"] += 1
                each.answer.set_exception(Busy("expired", self.expected()))
            elif not each.ready or (batch and each.kind != batch[0].kind):
                others.append(each)
            else:
                batch.append(each)
        self._waiting.extendleft(reversed(others))
        for reason, count in dropped.items():
            if count:
                self._watch.dropped(reason, count)
        return batch

    def _gathering(self, ready: int) -> bool:
        """Whether to wait for a few that are not ready, so that they share the fixed part of a batch.

        Only after another batch, and only as long as the preparing of so many takes.
        """
        if self._ahead is None:
            return False
        each = self.pace.each + self._ahead.each
        worth = min(self.largest, math.ceil(self.pace.fixed / max(FIXED_SHARE * each, 1e-9)))
        left = self._free + worth * self._ahead.each - time.monotonic()
        if ready >= worth or left <= 0:
            return False
        asyncio.get_running_loop().call_later(left, self._more.set)
        return True

    async def _do(self, batch: list[_Waiting]) -> None:
        """Work on a batch; where it fails, on each piece by itself, so that it fails for one only."""
        answers, error = await self._try(batch)
        if error is not None and len(batch) > 1:
            for each in batch:
                await self._do([each])
            return
        for number, each in enumerate(batch):
            if each.answer.done():
                continue
            if error is not None:
                each.answer.set_exception(error)
            else:
                each.answer.set_result(answers[number])

    async def _try(self, batch: list[_Waiting]) -> tuple[Sequence[Any], BaseException | None]:
        self._running, self._since = len(batch), time.monotonic()
        loop = asyncio.get_running_loop()
        items = [each.item for each in batch]
        done = loop.run_in_executor(self._thread, self._work, batch[0].kind, items)
        await asyncio.wait({done})
        self._free = time.monotonic()
        seconds = self._free - self._since
        self.pace.add(len(batch), seconds)
        self._running = 0
        self._watch.batch(len(batch), seconds)
        error = done.exception()
        return (done.result() if error is None else ()), error
