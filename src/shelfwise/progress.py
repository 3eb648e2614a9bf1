"""Progress on a terminal: a bar for what takes longer than two seconds, plain lines elsewhere.

It knows only what it is told: what, how many done, how many there are. What stands after a middle dot, as in
``training · loss 0.41``, may change from call to call; what stands before it is the same bar or line.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

from shelfwise.files import Progress

#: Nothing is shown of what ends sooner, in seconds.
PATIENCE = 2.0
#: Seconds between two plain lines.
EVERY = 10.0
#: Parts what is done from what is said of it.
DOT = " · "


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """Give a function that shows progress on stderr until the block ends."""
    if sys.stderr.isatty():
        with _bars() as progress:
            yield progress
    else:
        yield _lines()


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started: dict[str, float] = {}
    tasks = {}
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def progress(told: str, done: int, total: int) -> None:
            what = told.partition(DOT)[0]
            begun = started.setdefault(what, time.monotonic())
            if what not in tasks and time.monotonic() - begun > PATIENCE:
                tasks[what] = bars.add_task(told, total=total)
            if what in tasks:
                bars.update(tasks[what], completed=done, total=total, description=told)
            if done >= total:
                started.pop(what, None)
                if what in tasks:
                    bars.remove_task(tasks.pop(what))

        yield progress


def _lines() -> Progress:
    started: dict[str, float] = {}
    told: dict[str, float] = {}

    def progress(words: str, done: int, total: int) -> None:
        now, what = time.monotonic(), words.partition(DOT)[0]
        begun = started.setdefault(what, now)
        last = told.get(what, begun - EVERY + PATIENCE)
        if now - last >= EVERY and done < total:
            told[what] = now
            left = (now - begun) / done * (total - done) if done else 0
            print(
                f"{words}: {done:,} of {total:,}" + (f", about {left:.0f} s left" if done else ""),
                file=sys.stderr,
                flush=True,
            )
        if done >= total:
            if what in told:
                print(f"{words}: {total:,} done in {now - begun:.0f} s", file=sys.stderr, flush=True)
            started.pop(what, None)
            told.pop(what, None)

    return progress
