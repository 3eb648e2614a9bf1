"""Turns: which photo is next, so many to a host at once, with pauses between attempts.

It knows neither addresses nor the network. A thread that has nothing to do waits here; nobody sleeps with a job in
hand, so one slow host holds up no other.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class _Host(Generic[T]):
    """The jobs of one host."""

    ready: deque[T] = field(default_factory=deque)
    running: int = 0
    paused_until: float = 0.0
    listed: bool = False


class Turns(Generic[T]):
    """Jobs by host, given out one by one to many threads."""

    def __init__(self, jobs: Iterable[tuple[str, T]], per_host: int) -> None:
        """Take the jobs, each with its host, and how many of a host may run at once."""
        self._per_host = per_host
        self._hosts: dict[str, _Host[T]] = {}
        self._open: deque[_Host[T]] = deque()
        #: When, a number that breaks ties, which host, and which job of it is ready then (none: a pause ends).
        self._later: list[tuple[float, int, _Host[T], T | None]] = []
        self._count = 0
        self._changed = threading.Condition()
        self._stopped = False
        self.left = 0
        for name, job in jobs:
            self._host(name).ready.append(job)
            self.left += 1
        for host in self._hosts.values():
            self._list(host, 0.0)

    def take(self) -> T | None:
        """Wait for a job and return it; ``None`` when all are done, or after ``stop``."""
        with self._changed:
            while True:
                if self._stopped or self.left == 0:
                    return None
                now = time.monotonic()
                self._due(now)
                if self._open:
                    host = self._open.popleft()
                    host.listed = False
                    if now < host.paused_until:
                        continue
                    host.running += 1
                    job = host.ready.popleft()
                    self._list(host, now)
                    if self._open:
                        self._changed.notify()
                    return job
                self._changed.wait(self._later[0][0] - now if self._later else None)

    def done(self, name: str) -> None:
        """Say that a job of this host is finished for good."""
        with self._changed:
            self.left -= 1
            self._freed(name)
            if self.left == 0:
                self._changed.notify_all()

    def again(self, name: str, job: T, seconds: float, *, home: str, pause: bool = False) -> None:
        """Give a job back, to be taken again after so many seconds as one of the host ``home``.

        ``pause`` stops the host it was of until then.
        """
        with self._changed:
            now = time.monotonic()
            host = self._host(name)
            self._push(now + seconds, self._host(home), job)
            if pause and now + seconds > host.paused_until:
                host.paused_until = now + seconds
                self._push(host.paused_until, host, None)
            self._freed(name)

    def move(self, name: str, job: T, target: str) -> None:
        """Give a job back as one of another host, where it is next."""
        with self._changed:
            host = self._host(target)
            host.ready.appendleft(job)
            self._list(host, time.monotonic())
            self._freed(name)

    def stop(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopped

    def _host(self, name: str) -> _Host[T]:
        if name not in self._hosts:
            self._hosts[name] = _Host()
        return self._hosts[name]

    def _push(self, when: float, host: _Host[T], job: T | None) -> None:
        self._count += 1
        heapq.heappush(self._later, (when, self._count, host, job))
        self._changed.notify()

    def _freed(self, name: str) -> None:
        host = self._hosts[name]
        host.running -= 1
        self._list(host, time.monotonic())
        if self._open:
            self._changed.notify()

    def _due(self, now: float) -> None:
        while self._later and self._later[0][0] <= now:
            _, _, host, job = heapq.heappop(self._later)
            if job is not None:
                host.ready.append(job)
            self._list(host, now)

    def _list(self, host: _Host[T], now: float) -> None:
        """Put a host among those that have a job to give out, if it is one of them."""
        free = host.running < self._per_host and now >= host.paused_until
        if host.ready and free and not host.listed:
            host.listed = True
            self._open.append(host)
