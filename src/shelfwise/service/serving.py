"""Serving: the bundle that answers now, and how another takes its place.

It does not know HTTP or queues. A bundle is loaded and asked beside the one that answers; only one that answers takes
its place, between two batches.
"""

import gc
import hashlib
import io
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from shelfwise.bundle import Bundle
from shelfwise.errors import BundleError, ShelfwiseError
from shelfwise.manifest import INDEX
from shelfwise.models.engines import Chosen
from shelfwise.models.remembered import Remembered
from shelfwise.predictions import Machine
from shelfwise.service.batcher import step_back
from shelfwise.service.products import Product, answers_of, audit_of, check_product

Verb = Literal["answer", "audit"]
#: Pictures that a bundle answers before it serves.
BLANKS = 8


@dataclass(frozen=True)
class Task:
    """What is asked of products; those of equal tasks may be answered together.

    Attributes:
        verb: answer or audit.
        precision: the promise to keep; ``None`` for the bundle's own.
    """

    verb: Verb
    precision: float | None = None


@dataclass(frozen=True, eq=False)
class Loaded:
    """A bundle that answers.

    Attributes:
        bundle: it.
        digest: SHA-256 of its list of files, which names it.
        machine: where it computes; keeps its engines.
        since: when it was loaded, in seconds since 1970.
        looked: seconds that looking at one picture took.
        timed: seconds that a few batches took, by their size, of pictures that were looked at.
    """

    bundle: Bundle
    digest: str
    machine: Machine
    since: float
    looked: float
    timed: tuple[tuple[int, float], ...]


class Serving:
    """The bundle of a service.

    Attributes:
        path: where bundles are loaded from.
        now: the one that answers.
    """

    def __init__(self, path: Path, machine: Machine) -> None:
        """Load the bundle and let it answer once.

        Raises:
            BundleError: there is none, or it does not answer.
        """
        self.path, self._machine = path, machine
        self._turn = threading.Lock()
        self._take()

    def swap(self) -> Loaded:
        """Load the bundle anew and let it take the place of the one that answers.

        Raises:
            BundleError: there is none, it does not answer, or another is being loaded; the old one stays.
        """
        if not self._turn.acquire(blocking=False):
            raise BundleError("a bundle is being loaded already; ask again when it is there")
        try:
            self._take()
        finally:
            self._turn.release()
        return self.now

    def ahead(self, product: Product) -> Callable[[], None] | None:
        """Return what can be done of a product before its batch, by any thread; ``None`` for nothing."""
        return _looking(product, self.now.machine)

    def work(self, task: Hashable, products: Sequence[Product]) -> list[dict[str, Any] | ShelfwiseError]:
        """Do a task on products, one for one; what cannot be asked of the bundle is the error that says so."""
        if not isinstance(task, Task):
            raise TypeError(f"not a task: {task!r}")
        now = self.now
        found: list[dict[str, Any] | ShelfwiseError | None] = [_error(each, now.bundle) for each in products]
        good = [at for at, error in enumerate(found) if error is None]
        if task.verb == "audit":
            for at in good:
                found[at] = audit_of(products[at], now.bundle, now.machine)
        elif good:
            asked = [products[at] for at in good]
            answers = answers_of(asked, now.bundle, now.machine, task.precision)
            for at, answer in zip(good, answers, strict=True):
                found[at] = answer
        return [each | {"bundle": now.digest} if isinstance(each, dict) else each for each in found if each]

    def _take(self) -> None:
        """Load a bundle and let it answer from now on.

        What is there then stays, and Python need not look through it for garbage again and again: that held all
        threads for 70 ms at a time, and refusals with them.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="loading", initializer=step_back) as thread:
            self.now = thread.submit(self._load).result()
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _load(self) -> Loaded:
        """Load, and answer a few blank pictures: the first for the engines, the others for the time."""
        bundle = Bundle.load(self.path)
        digest = hashlib.sha256((self.path / INDEX).read_bytes()).hexdigest()
        machine = replace(self._machine, engines={}, keep=False, remembered=Remembered())
        blanks = [Product(photos=(_blank(level),)) for level in range(BLANKS)]
        timed = []
        try:
            answers_of(blanks[:1], bundle, machine, None)
            begun = time.monotonic()
            for look in filter(None, (_looking(each, machine) for each in blanks[1:])):
                look()
            looked = (time.monotonic() - begun) / (BLANKS - 1)
            for count in (1, BLANKS):
                begun = time.monotonic()
                answers_of(blanks[:count], bundle, machine, None)
                timed.append((count, time.monotonic() - begun))
        except ShelfwiseError as error:
            raise BundleError(f"{self.path}: the bundle does not answer here: {error}") from error
        return Loaded(bundle, digest, machine, time.time(), looked, tuple(timed))


def _looking(product: Product, machine: Machine) -> Callable[[], None] | None:
    """Return a function that looks at a product's photos by the engines that were asked before."""
    memory, kept = machine.remembered, tuple((machine.engines or {}).values())
    engines = [each for each in kept if isinstance(each, Chosen)]
    if memory is None or not engines or not product.photos:
        return None

    def look() -> None:
        for photo in product.photos:
            memory.look(photo, engines)

    return look


def _error(product: Product, bundle: Bundle) -> ShelfwiseError | None:
    try:
        check_product(product, bundle)
    except ShelfwiseError as error:
        return error
    return None


def _blank(level: int) -> bytes:
    """Return a grey picture; equal ones would be looked at once."""
    file = io.BytesIO()
    Image.new("RGB", (256, 256), (200 + level,) * 3).save(file, "PNG")
    return file.getvalue()
