"""The queue of the service: bounded, prompt to refuse, never lost, and one bad piece harms no other."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import pytest

from shelfwise.errors import EngineError
from shelfwise.service.batcher import NICE, Ahead, Batcher, Busy
from shelfwise.service.pace import Mean, Pace


class Seen:
    """Notes what the batcher tells."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.lost: dict[str, int] = {}

    def batch(self, count: int, seconds: float) -> None:
        self.batches.append(count)

    def dropped(self, reason: str, count: int) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + count


class Worker:
    """Doubles numbers, as slowly as told, and notes what it was given."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.given = seconds, list[tuple[Hashable, list[Any]]]()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, kind: Hashable, items: Sequence[Any]) -> list[Any]:
        self.go.wait(10)
        self.given.append((kind, list(items)))
        time.sleep(self.seconds)
        if -1 in items:
            raise ValueError("a bad piece")
        return [2 * item for item in items]


def run(
    worker: Worker,
    play: Callable[[Batcher, Seen], Any],
    *,
    queue: int = 100,
    batch: int = 8,
    deadline: float = 10.0,
    ahead: Ahead | None = None,
    known: Sequence[tuple[int, float]] = ((1, 0.001), (8, 0.004)),
) -> Seen:
    """Let a batcher work while ``play`` goes on; it ends by itself."""
    seen = Seen()

    async def whole() -> None:
        batcher = Batcher(
            worker, queue=queue, batch=batch, deadline=deadline, watch=seen, pace=Pace(known), ahead=ahead
        )
        working = asyncio.create_task(batcher.run())
        try:
            await play(batcher, seen)
        finally:
            worker.go.set()
            batcher.end()
            await asyncio.wait_for(working, 10)
            batcher.close()

    asyncio.run(whole())
    return seen


def soon(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_what_waits_is_taken_together_and_answered_in_its_place():
    worker = Worker()

    async def play(batcher: Batcher, seen: Seen) -> None:
        worker.go.clear()
        first = batcher.submit("a", [1], soon())
        await asyncio.sleep(0.05)
        rest = batcher.submit("a", list(range(2, 14)), soon())
        worker.go.set()
        assert await asyncio.gather(*first, *rest) == [2 * item for item in range(1, 14)]

    seen = run(worker, play)
    assert seen.batches == [1, 8, 4]


def test_kinds_are_not_mixed_and_nobody_is_overtaken_for_ever():
    worker = Worker()

    async def play(batcher: Batcher, seen: Seen) -> None:
        worker.go.clear()
        waiting = batcher.submit("a", [0], soon())
        await asyncio.sleep(0.05)
        for number in range(1, 7):
            waiting += batcher.submit("ab"[number % 2], [number], soon())
        worker.go.set()
        await asyncio.gather(*waiting)

    run(worker, play)
    assert worker.given == [("a", [0]), ("b", [1, 3, 5]), ("a", [2, 4, 6])]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    worker = Worker()

    async def play(batcher: Batcher, seen: Seen) -> None:
        worker.go.clear()
        first = batcher.submit("a", [1], soon())
        await asyncio.sleep(0.05)
        waiting = batcher.submit("a", list(range(5)), soon())
        begun = time.perf_counter()
        with pytest.raises(Busy) as busy:
            batcher.submit("a", [6], soon())
        assert time.perf_counter() - begun < 0.05
        assert busy.value.reason == "queue_full"
        assert busy.value.retry_after > 0
        worker.go.set()
        assert len(await asyncio.gather(*first, *waiting)) == 6
        assert await batcher.submit("a", [7], soon())[0] == 14

    run(worker, play, queue=5)


def test_what_would_be_late_is_refused_before_it_waits():
    worker = Worker(0.1)

    async def play(batcher: Batcher, seen: Seen) -> None:
        for _ in range(5):
            await batcher.submit("a", [1], soon())[0]
        waiting = batcher.submit("a", list(range(20)), soon(60))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy) as busy:
            batcher.check(soon(0.05))
        assert busy.value.reason == "too_late"
        for each in waiting:
            each.cancel()

    run(worker, play)


def test_an_idle_worker_tries_even_a_short_deadline():
    async def play(batcher: Batcher, seen: Seen) -> None:
        assert await batcher.submit("a", [4], soon(0.02))[0] == 8

    run(Worker(), play)


def test_expired_and_abandoned_work_is_dropped_before_it_is_begun():
    worker = Worker()

    async def play(batcher: Batcher, seen: Seen) -> None:
        worker.go.clear()
        first = batcher.submit("a", [1], soon())
        await asyncio.sleep(0.05)
        late = batcher.submit("a", [2], soon(0.1))
        gone = batcher.submit("a", [3], soon())
        good = batcher.submit("a", [4], soon())
        gone[0].cancel()
        await asyncio.sleep(0.15)
        worker.go.set()
        with pytest.raises(Busy) as busy:
            await late[0]
        assert busy.value.reason == "expired"
        assert await asyncio.gather(*first, *good) == [2, 8]

    seen = run(worker, play)
    assert [items for _, items in worker.given] == [[1], [4]]
    assert seen.lost == {"expired": 1, "gone": 1}


def test_a_bad_piece_fails_alone():
    async def play(batcher: Batcher, seen: Seen) -> None:
        found = await asyncio.gather(*batcher.submit("a", [1, -1, 3], soon()), return_exceptions=True)
        assert found[0] == 2
        assert isinstance(found[1], ValueError)
        assert found[2] == 6

    run(Worker(), play)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_who_works_comes_after_who_receives():
    seen: dict[str, int] = {}

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    class Asked(Worker):
        def __call__(self, kind: Hashable, items: Sequence[Any]) -> list[Any]:
            seen["answering"] = niceness()
            return super().__call__(kind, items)

    async def play(batcher: Batcher, _: Seen) -> None:
        await asyncio.gather(*batcher.submit("kind", [1], soon()))
        seen["receiving"] = niceness()

    run(Asked(), play, ahead=Ahead(lambda item: lambda: seen.update(ahead=niceness()), 1))
    behind = min(seen["receiving"] + NICE, 19)
    assert (seen["ahead"], seen["answering"]) == (behind, behind)


def test_at_the_end_what_waits_is_done_and_nothing_more_is_taken():
    worker = Worker(0.02)
    answers: list[int] = []

    async def play(batcher: Batcher, seen: Seen) -> None:
        waiting = batcher.submit("a", list(range(20)), soon())
        batcher.end()
        with pytest.raises(Busy) as busy:
            batcher.submit("a", [1], soon())
        assert busy.value.reason == "draining"
        answers.extend(await asyncio.gather(*waiting))

    run(worker, play)
    assert answers == [2 * item for item in range(20)]


class Preparing:
    """Notes what was prepared; lets one piece at a time through when told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.done = seconds, list[Any]()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, item: Any) -> Callable[[], None] | None:
        def prepare() -> None:
            self.go.wait(10)
            time.sleep(self.seconds)
            self.done.append(item)
            if item == -2:
                raise EngineError("the engine fails")

        return None if item == 0 else prepare


def test_pieces_are_prepared_while_the_worker_is_at_others():
    worker, preparing = Worker(), Preparing()

    async def play(batcher: Batcher, seen: Seen) -> None:
        worker.go.clear()
        first = batcher.submit("a", [1], soon())
        await asyncio.sleep(0.1)
        rest = batcher.submit("a", [2, 3, 4], soon())
        await asyncio.sleep(0.1)
        assert sorted(preparing.done) == [1, 2, 3, 4]
        worker.go.set()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]

    seen = run(worker, play, ahead=Ahead(preparing, 2))
    assert seen.batches == [1, 3]


def test_what_needs_no_preparing_waits_for_none_that_does():
    worker, preparing = Worker(), Preparing()

    async def play(batcher: Batcher, seen: Seen) -> None:
        preparing.go.clear()
        slow = batcher.submit("a", [1], soon())
        assert await batcher.submit("a", [0], soon())[0] == 0
        assert not slow[0].done()
        preparing.go.set()
        assert await slow[0] == 2

    run(worker, play, ahead=Ahead(preparing, 1))


def test_after_a_batch_the_worker_waits_a_little_for_more_that_share_its_fixed_part():
    worker, preparing = Worker(0.02), Preparing(0.01)

    async def play(batcher: Batcher, seen: Seen) -> None:
        await asyncio.gather(*batcher.submit("a", list(range(1, 41)), soon()))

    seen = run(worker, play, batch=8, ahead=Ahead(preparing, 1, 0.01), known=[(1, 0.02), (8, 0.02)] * 10)
    assert max(seen.batches[1:]) >= 6
    assert sum(seen.batches) == 40


def test_what_expired_or_was_abandoned_is_not_prepared():
    worker, preparing = Worker(), Preparing()

    async def play(batcher: Batcher, seen: Seen) -> None:
        preparing.go.clear()
        first = batcher.submit("a", [1], soon())
        late, gone = batcher.submit("a", [2], soon(0.1)), batcher.submit("a", [3], soon())
        gone[0].cancel()
        await asyncio.sleep(0.15)
        preparing.go.set()
        with pytest.raises(Busy, match="expired"):
            await late[0]
        assert await first[0] == 2

    seen = run(worker, play, ahead=Ahead(preparing, 1))
    assert preparing.done == [1]
    assert seen.lost == {"expired": 1, "gone": 1}


def test_a_failure_ahead_leaves_the_piece_to_its_batch():
    async def play(batcher: Batcher, seen: Seen) -> None:
        assert await asyncio.gather(*batcher.submit("a", [-2, 1], soon())) == [-4, 2]

    run(Worker(), play, ahead=Ahead(Preparing(), 2))


def test_preparing_counts_where_a_piece_would_be_late():
    preparing = Preparing()

    async def play(batcher: Batcher, seen: Seen) -> None:
        preparing.go.clear()
        waiting = batcher.submit("a", list(range(1, 21)), soon(60))
        assert 2 < batcher.expected() < 3
        with pytest.raises(Busy, match="too_late"):
            batcher.check(soon(2))
        batcher.check(soon(10))
        for each in waiting:
            each.cancel()
        preparing.go.set()

    run(Worker(), play, ahead=Ahead(preparing, 1, 0.1))


def test_a_mean_follows():
    mean = Mean(1.0)
    for _ in range(60):
        mean.add(3.0)
    assert mean.seconds == pytest.approx(3.0, rel=0.01)


def test_a_pace_finds_the_fixed_part_and_follows_a_machine_that_slows_down():
    pace = Pace([(1, 0.06), (8, 0.2)])
    assert pace.of(8) == pytest.approx(0.2, rel=0.01)
    assert pace.each == pytest.approx(0.02, rel=0.01)
    for count in (1, 4, 16, 2, 8, 32) * 5:
        pace.add(count, 3 * (0.04 + 0.02 * count))
    assert pace.fixed == pytest.approx(0.12, rel=0.1)
    assert pace.each == pytest.approx(0.06, rel=0.1)


def test_a_pace_survives_noise_and_never_gives_up_batches():
    pace = Pace([(1, 1.0), (8, 0.5)])
    assert pace.each > 0
    assert pace.fixed >= 0
    slow = Pace([(1, 2.0), (8, 3.0)])
    assert slow.within(0.5) >= 10
    for _ in range(50):
        slow.add(1, 2.0)
    assert 1 <= slow.within(0.5) < 1000
