"""Client: ask a running service from Python, with retries that keep to what it asks for.

It does not know bundles or models. A request to answer or to audit changes nothing, so it may be repeated.
"""

import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from shelfwise.errors import ServiceError, UsageError, require

if TYPE_CHECKING:
    import httpx

Photo = str | Path | bytes
#: Statuses after which a request may be repeated.
AGAIN = (429, 503)


@dataclass(frozen=True)
class Listing:
    """One product to ask about.

    Attributes:
        images: its photos: files or their content.
        id: comes back with the answer.
        category: predicted if left out.
        text: what is written of it.
        stated: what somebody states, by attribute; of an audit.
    """

    images: tuple[Photo, ...] = ()
    id: str | None = None
    category: str | None = None
    text: str | None = None
    stated: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What is said of one product.

    Attributes:
        id: as it was asked with.
        category: given or predicted.
        looks_like: the category that its photo looks like.
        cells: what is said of each attribute: ``value``, ``state``, ``probability`` and more.
        error: why there is no answer from a photo.
        bundle: SHA-256 that names the bundle that answered.
    """

    id: str | None
    category: str | None
    looks_like: str | None
    cells: Mapping[str, Mapping[str, Any]]
    error: str | None
    bundle: str

    @property
    def values(self) -> dict[str, Any]:
        """The values that are answered, by attribute."""
        return {name: cell["value"] for name, cell in self.cells.items() if cell["value"] is not None}


@dataclass(frozen=True)
class Judgement:
    """What is thought of what a product states.

    Attributes:
        id, category: as it was asked with.
        values: of each stated value ``attribute``, ``stated``, ``seen``, ``p_stated``, ``p_seen``, ``odds``,
            ``in_text`` and ``suspect``; the likeliest error first.
        error: why nothing is judged.
        bundle: SHA-256 that names the bundle that judged.
    """

    id: str | None
    category: str | None
    values: tuple[Mapping[str, Any], ...]
    error: str | None
    bundle: str

    @property
    def suspects(self) -> tuple[Mapping[str, Any], ...]:
        """The values that are probably wrong."""
        return tuple(value for value in self.values if value["suspect"])


class Client:
    """Asks one service; safe for threads. Close it, or use it in a ``with`` block."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        deadline: float = 10.0,
        attempts: int = 5,
        transport: "httpx.BaseTransport | None" = None,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            url: of the service, such as ``http://127.0.0.1:8000``.
            key: the secret of a key, where the service needs one.
            deadline: seconds after which an answer is of no use; the service drops what would be late.
            attempts: how often a request is made at most, where it is turned away for now.
            transport: how requests are carried; by default over the network.

        Raises:
            MissingExtra: httpx is not installed.
            UsageError: a deadline or a number of attempts that is not positive.
        """
        if deadline <= 0 or attempts < 1:
            raise UsageError(
                f"a client needs a positive deadline and at least 1 attempt, not {deadline}, {attempts}"
            )
        self._httpx = require("httpx", extra="client")
        headers = {"X-Deadline-Ms": str(max(1, round(deadline * 1000)))}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self.url, self.attempts = url.rstrip("/"), attempts
        # The service keeps the deadline; the client waits a little longer, to hear it say so.
        self._http: httpx.Client = self._httpx.Client(
            base_url=self.url, headers=headers, timeout=deadline + 5, transport=transport
        )

    def answer(
        self,
        image: Photo | Sequence[Photo] | None = None,
        *,
        category: str | None = None,
        id: str | None = None,
        text: str | None = None,
        precision: float | None = None,
    ) -> Answer:
        """Answer one product.

        Args:
            image: its photo, or several: files or their content.
            category: predicted if left out.
            id: comes back with the answer.
            text: what is written of it.
            precision: answer only what is right this often.

        Raises:
            ServiceError: the service refuses, or cannot be reached.
        """
        images = () if image is None else (image,) if isinstance(image, str | Path | bytes) else tuple(image)
        return self._answer(Listing(images, id, category, text), precision)

    def answer_many(
        self, listings: Iterable[Listing], *, precision: float | None = None, at_once: int = 8
    ) -> Iterator[Answer]:
        """Answer products, several at once, and yield the answers in the order of the products.

        A product that is refused by itself, such as for its photo, has an answer with the error and no cells.

        Raises:
            ServiceError: the service cannot be reached, refuses the key, or goes on turning requests away.
        """

        def ask(listing: Listing) -> Answer:
            try:
                return self._answer(listing, precision)
            except ServiceError as error:
                if error.status not in (413, 415, 422):
                    raise
                return Answer(listing.id, listing.category, None, {}, str(error), "")

        waiting: list[Future[Answer]] = []
        with ThreadPoolExecutor(at_once, thread_name_prefix="asking") as pool:
            try:
                for listing in listings:
                    waiting.append(pool.submit(ask, listing))
                    if len(waiting) >= 2 * at_once:
                        yield waiting.pop(0).result()
                while waiting:
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def audit(self, listing: Listing) -> Judgement:
        """Judge what a product states by its photo.

        Raises:
            ServiceError: the service refuses, or cannot be reached.
        """
        fields = {**_fields(listing), "stated": json.dumps(dict(listing.stated), ensure_ascii=False)}
        found = self._ask("POST", "/v1/audit", fields, listing.images)
        values = tuple(found["values"])
        return Judgement(found["id"], found["category"], values, found["error"], found["bundle"])

    def taxonomy(self) -> dict[str, Any]:
        """Return the categories, attributes and values of the service's bundle."""
        return self._ask("GET", "/v1/taxonomy")

    def bundle(self) -> dict[str, Any]:
        """Return what the service's bundle is."""
        return self._ask("GET", "/v1/bundle")

    def swap(self) -> dict[str, Any]:
        """Let the service load its bundle anew; needs a key with the scope admin."""
        return self._ask("POST", "/v1/bundle", repeat=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, listing: Listing, precision: float | None) -> Answer:
        fields = _fields(listing)
        if precision is not None:
            fields["precision"] = str(precision)
        found = self._ask("POST", "/v1/answer", fields, listing.images)
        parts = (found[name] for name in ("id", "category", "looks_like", "answers", "error", "bundle"))
        return Answer(*parts)

    def _ask(
        self,
        method: str,
        path: str,
        fields: Mapping[str, str] | None = None,
        images: Sequence[Photo] = (),
        *,
        repeat: bool = True,
    ) -> dict[str, Any]:
        """Make a request until it is answered, refused for good, or was turned away too often."""
        given: dict[str, Any] = {}
        if fields is not None:
            # Every part as a file makes it a form of parts, whatever is in it; a text has no file name.
            parts: list[tuple[str, tuple[str | None, Any]]] = [
                (name, (None, cell)) for name, cell in fields.items()
            ]
            parts += [("image", (f"photo-{at}", _content(each))) for at, each in enumerate(images, start=1)]
            given["files"] = parts
        attempt = 0
        while True:
            attempt += 1
            try:
                answer: httpx.Response = self._http.request(method, path, **given)
            except self._httpx.TransportError as error:
                said = f"{self.url}: the service cannot be reached: {error or type(error).__name__}"
                failure = ServiceError(said)
                failure.__cause__ = error
            else:
                if answer.status_code == 200:
                    found: dict[str, Any] = answer.json()
                    return found
                failure = _failure(answer, self.url)
            if attempt >= self.attempts or not repeat or failure.status not in (0, *AGAIN):
                raise failure
            time.sleep(_pause(failure, attempt))


def _fields(listing: Listing) -> dict[str, str]:
    given = {"id": listing.id, "category": listing.category, "text": listing.text}
    return {name: cell for name, cell in given.items() if cell is not None}


def _content(photo: Photo) -> bytes:
    if isinstance(photo, bytes):
        return photo
    try:
        return Path(photo).read_bytes()
    except OSError as error:
        raise UsageError(f"the photo {photo} cannot be read: {error.strerror or error}") from error


def _pause(failure: ServiceError, attempt: int) -> float:
    """Return the seconds to wait: what the service asks for, and a random share of a time that doubles."""
    return (failure.retry_after or 0.0) + random.uniform(0, min(5.0, 0.1 * 2.0**attempt))


def _failure(answer: "httpx.Response", url: str) -> ServiceError:
    """Return what the service says instead of an answer."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    told = body if isinstance(body, dict) else {}
    wait = answer.headers.get("retry-after", "")
    said = told.get("detail") or f"the service said {answer.status_code} {answer.reason_phrase}".rstrip()
    return ServiceError(
        f"{url}: {said}",
        status=answer.status_code,
        code=str(told.get("code", "refused")),
        retry_after=float(wait) if wait.isascii() and wait.isdigit() else None,
    )
