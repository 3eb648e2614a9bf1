"""Asking: one request on its way: may it wait, what does it ask, what became of it.

It does not know how products are answered. Nothing is read of a request that would be turned away anyway.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse

from shelfwise.data.terms import NotFetched
from shelfwise.errors import BundleError, ShelfwiseError, TaxonomyError, UsageError
from shelfwise.service.access import Access
from shelfwise.service.batcher import Batcher, Busy
from shelfwise.service.intake import Asked, check_photo, read_request
from shelfwise.service.options import LONGEST_MS, ServiceOptions
from shelfwise.service.problems import Refusal
from shelfwise.service.products import Product, check_product
from shelfwise.service.remote import Remote
from shelfwise.service.serving import Serving, Task, Verb

#: Bytes of photos that wait at most, whatever their number.
HELD = 500_000_000
#: Share of the time a client gives that the service uses: a busy machine needs some to receive and to send.
ON_TIME = 0.9
WHY = {
    "queue_full": "too many products wait",
    "too_late": "it would not be answered within its deadline",
    "expired": "it waited longer than its deadline and was dropped",
    "draining": "the service is ending",
}


@dataclass(eq=False)
class Asking:
    """What requests about products pass through.

    Attributes:
        options: limits.
        access: who may ask.
        serving: the bundle that answers.
        batcher: the queue in front of it.
        remote: fetches photos by address.
        reading: requests whose content is received now.
        held: bytes of photos that wait.
    """

    options: ServiceOptions
    access: Access
    serving: Serving
    batcher: Batcher
    remote: Remote
    reading: int = 0
    held: int = 0
    fetching: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8, "fetching"))

    async def ask(self, request: Request, verb: Verb) -> JSONResponse:
        """Answer a request.

        Raises:
            Refusal: it gets no answer, with the reason.
        """
        self.access.admit(request, "predict")
        until = time.monotonic() + ON_TIME * self._seconds(request)
        with _busy():
            self.batcher.check(until)
        asked = await self._read(request, verb)
        if not asked.batch:
            with _cannot():
                check_product(asked.products[0], self.serving.now.bundle)
        products = await self._fetched(asked, until)
        size = sum(len(photo) for product in products for photo in product.photos)
        if self.held + size > HELD:
            raise Refusal(503, "queue_full", WHY["queue_full"], retry_after=self.batcher.expected())
        self.held += size
        try:
            with _busy():
                waiting = self.batcher.submit(Task(verb, asked.precision), products, until)
            found = await _awaited(request, waiting)
        finally:
            self.held -= size
        answered = next((each["bundle"] for each in found if isinstance(each, dict)), None)
        if answered is not None:
            request.scope["state"]["bundle"] = answered[:12]
        return _batch(found, products) if asked.batch else _single(found[0])

    def close(self) -> None:
        """Close connections and threads."""
        self.remote.close()
        self.fetching.shutdown(wait=False, cancel_futures=True)

    def _seconds(self, request: Request) -> float:
        """Return how long a request may take."""
        given = request.headers.get("x-deadline-ms")
        if given is None:
            return self.options.deadline
        if not (given.isascii() and given.isdigit() and len(given) < 8 and 0 < int(given) <= LONGEST_MS):
            raise Refusal(422, "deadline", f"X-Deadline-Ms: a whole number from 1 to {LONGEST_MS:,}")
        return int(given) / 1000

    async def _read(self, request: Request, verb: Verb) -> Asked:
        if self.reading >= self.options.uploads:
            detail = "too many requests are being received"
            raise Refusal(503, "uploads", detail, retry_after=self.batcher.expected())
        self.reading += 1
        try:
            return await read_request(request, verb, self.options)
        finally:
            self.reading -= 1

    async def _fetched(self, asked: Asked, until: float) -> tuple[Product, ...]:
        """Return the products with the photos that are named by address; what cannot be had is said of the product."""
        if not any(asked.urls):
            return asked.products
        loop = asyncio.get_running_loop()
        wanted = [(at, url) for at, urls in enumerate(asked.urls) for url in urls]
        gets = [loop.run_in_executor(self.fetching, self._get, url) for _, url in wanted]
        await asyncio.wait(gets, timeout=max(until - time.monotonic(), 0.001))
        photos: dict[int, list[bytes]] = {}
        lost: dict[int, str] = {}
        for (at, _), get in zip(wanted, gets, strict=True):
            found = get.result() if get.done() else "it did not come within the deadline"
            get.cancel()
            if isinstance(found, bytes):
                photos.setdefault(at, []).append(found)
            else:
                lost.setdefault(at, found)
        return tuple(
            replace(product, photos=tuple(photos.get(at, ())), lost=None if at in photos else lost.get(at))
            for at, product in enumerate(asked.products)
        )

    def _get(self, url: str) -> bytes | str:
        """Return a photo, or why there is none."""
        try:
            data = self.remote.get(url)
            check_photo(data, "the photo")
        except NotFetched as error:
            return f"the photo was not fetched: {error}"
        except Refusal as error:
            return str(error.detail)
        return data


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Say that work is not taken now."""
    try:
        yield
    except Busy as busy:
        raise Refusal(503, busy.reason, WHY[busy.reason], retry_after=busy.retry_after) from busy


@contextlib.contextmanager
def _cannot() -> Iterator[None]:
    """Say that something cannot be asked of this bundle."""
    try:
        yield
    except (TaxonomyError, UsageError, BundleError) as error:
        raise Refusal(422, "cannot", str(error)) from error


async def _awaited(request: Request, waiting: "Sequence[asyncio.Future[Any]]") -> list[Any]:
    """Wait for answers; where the client hangs up, nobody waits for them any more."""
    left = asyncio.create_task(_hung_up(request, waiting))
    try:
        with _busy(), _cannot():
            return [await each for each in waiting]
    except asyncio.CancelledError:
        if left.done():
            raise Refusal(400, "gone", "the client hung up") from None
        raise
    finally:
        left.cancel()
        for each in waiting:
            each.cancel()


async def _hung_up(request: Request, waiting: "Sequence[asyncio.Future[Any]]") -> None:
    """Give up what is waited for when the client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    for each in waiting:
        each.cancel()


def _single(found: "dict[str, Any] | ShelfwiseError") -> JSONResponse:
    if isinstance(found, ShelfwiseError):
        raise Refusal(422, "cannot", str(found)) from found
    if found["error"] is not None and not (found.get("answers") or found.get("values")):
        raise Refusal(422, "no_answer", found["error"])
    return JSONResponse(found)


def _batch(found: "Sequence[dict[str, Any] | ShelfwiseError]", products: Sequence[Product]) -> JSONResponse:
    each = [
        {"id": product.id, "category": product.category, "error": str(item)}
        if isinstance(item, ShelfwiseError)
        else item
        for item, product in zip(found, products, strict=True)
    ]
    return JSONResponse({"products": each})
