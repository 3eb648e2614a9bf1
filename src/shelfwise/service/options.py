"""Options of the service: where it listens, what it takes, how long it may need.

It opens nothing.
"""

import ipaddress
from typing import Annotated

from pydantic import Field

from shelfwise.config import Options

#: Milliseconds that a request may name as its deadline.
LONGEST_MS = 3_600_000
Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1)]


class ServiceOptions(Options):
    """How a bundle is served.

    Attributes:
        host, port: where it listens.
        deadline: seconds within which an answer is to be there where a request names no time of its own.
        queue: products that wait at most; with more, requests are turned away.
        batch: products that are answered together at most.
        rate: requests a second that each key may make; left out, as many as are answered.
        max_body: bytes of a request.
        max_image: bytes of one photo.
        max_images: photos of one product.
        max_items: products of one JSON batch.
        uploads: requests whose content is received at the same time.
        upload: seconds that the content of a request may take to arrive.
        drain: seconds that requests under way get when the service ends.
        allow_urls: whether photos of a JSON batch may be named by URL.
        allow_private: whether those may lead to private addresses.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    deadline: Seconds = 10.0
    queue: Count = 256
    batch: Count = 32
    rate: Annotated[float, Field(gt=0)] | None = None
    max_body: Count = 64_000_000
    max_image: Annotated[int, Field(ge=1, le=200_000_000)] = 20_000_000
    max_images: Count = 8
    max_items: Count = 256
    uploads: Count = 64
    upload: Seconds = 30.0
    drain: Seconds = 30.0
    allow_urls: bool = False
    allow_private: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only programs of this machine can connect."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself, by its name or its address."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
