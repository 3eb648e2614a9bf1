"""Terms of a download: what it may do, how much and how long, and what is said when a photo does not come.

It knows no address and opens nothing.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from shelfwise.config import Options
from shelfwise.errors import ShelfwiseError, UsageError

#: Stores of objects that ``allow_stores`` may name, by the scheme of their addresses.
STORE_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class DownloadOptions(Options):
    """How photos are fetched.

    Attributes:
        workers: requests under way at once.
        per_host: of them, to one host.
        attempts: for one photo, the first included.
        max_bytes: of one photo; larger ones are not read to their end.
        connect: seconds until a connection stands.
        idle: seconds without a byte.
        total: seconds for one attempt, connecting included; a server that is too slow is not asked again.
        wait: seconds before the second attempt; doubles with every further one, and a random share of it is waited
            ("full jitter", Brooker 2015, "Exponential Backoff And Jitter").
        longest_wait: seconds; also of what a server asks for with Retry-After.
        redirects: followed for one photo; each is checked as the first address was.
        allow_private: connect to private and loopback addresses too. Link-local ones, such as the metadata service
            of a cloud, and those that hide another stay forbidden.
        allow_downgrade: follow a redirect from https to http.
        allow_local: the folder that ``file:`` addresses may lead into; ``None`` for no local files.
        allow_stores: beginnings of the addresses in stores of objects that may be read, such as ``s3://photos/``.
    """

    workers: Annotated[int, Field(ge=1, le=512)] = 32
    per_host: Annotated[int, Field(ge=1, le=512)] = 8
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    max_bytes: Annotated[int, Field(ge=1, le=200_000_000)] = 20_000_000
    connect: Seconds = 10.0
    idle: Seconds = 15.0
    total: Seconds = 120.0
    wait: Seconds = 0.5
    longest_wait: Seconds = 60.0
    redirects: Annotated[int, Field(ge=0, le=20)] = 5
    allow_private: bool = False
    allow_downgrade: bool = False
    allow_local: Path | None = None
    allow_stores: tuple[str, ...] = ()

    @field_validator("allow_stores")
    @classmethod
    def _stores_have_schemes(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        for prefix in prefixes:
            scheme, mark, rest = prefix.partition("://")
            if scheme not in STORE_SCHEMES or not mark or (rest and not rest.endswith("/")):
                raise UsageError(
                    f"{prefix!r} is not the beginning of a store: a scheme of {', '.join(STORE_SCHEMES)}, then "
                    "'://', then nothing or a path that ends in '/', such as 's3://photos/'"
                )
        return prefixes


class NotFetched(ShelfwiseError):
    """A photo that did not come.

    Attributes:
        status: ``refused`` (not asked for, by these terms), ``failed`` (asked for in vain) or ``not_an_image``.
        reason: a short stable name.
        again: whether another attempt may help.
        wait: seconds the server asked to wait; ``None`` where it did not say.
    """

    def __init__(
        self, status: str, reason: str, detail: str, *, again: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.reason, self.again, self.wait = status, reason, again, wait
