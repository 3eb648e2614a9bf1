"""Access: which key a request comes with, and whether it may do what it asks.

It does not know what routes do. On loopback, while there never was a key, a request needs none; then it must be
addressed to this machine by name and not come from another site's page, so that a page open in a browser cannot ask.
"""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from fastapi import Request

from shelfwise.service.keys import SCOPES, Key, KeyRing
from shelfwise.service.limits import Buckets
from shelfwise.service.options import is_loopback
from shelfwise.service.problems import Refusal

#: The cookie that stands for a key on the review pages, and where it does.
COOKIE = "shelfwise_key"
PAGES = "/review"
#: What is asked of one who comes without a key.
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="shelfwise"'}
#: Letters of a secret; longer ones are none of ours.
LONGEST = 200


@dataclass(eq=False)
class Access:
    """Who may do what.

    Attributes:
        ring: the keys.
        loopback: whether the service listens on loopback only.
        rate: requests a second where a key has no rate of its own; ``None`` for no limit.
        buckets: how much each key has asked lately.
    """

    ring: KeyRing
    loopback: bool
    rate: float | None = None
    buckets: Buckets = field(default_factory=Buckets)

    def admit(self, request: Request, scope: str) -> Key | None:
        """Return the key of a request that may go on; ``None`` where none is needed.

        Raises:
            Refusal: 401 without a good key, 403 without the scope, 429 above the rate.
        """
        secret = secret_of(request)
        if secret is None and self.loopback and self.ring.empty:
            _check_local(request)
            self._count("", self.rate)
            return None
        key = None if secret is None or len(secret) > LONGEST else self.ring.check(secret)
        if key is None:
            said = "this needs a key" if secret is None else "the key is not known here, or was revoked"
            raise Refusal(401, "no_key" if secret is None else "bad_key", said, headers=CHALLENGE)
        request.scope.setdefault("state", {})["key"] = key.name
        if scope not in key.scopes:
            raise Refusal(403, "scope", f"this needs a key with the scope {scope!r}")
        self._count(key.name, self.rate if key.rate is None else key.rate)
        return key

    def _count(self, name: str, rate: float | None) -> None:
        wait = 0.0 if rate is None else self.buckets.take(name, rate)
        if rate is not None and wait > 0:
            raise Refusal(429, "rate", f"more than {rate:g} requests a second", retry_after=wait)


def access_of(request: Request) -> Access:
    """Return the access of the service that a request came to."""
    found: Access = request.app.state.access
    return found


def needs(scope: str) -> Callable[[Request], Awaitable[Key | None]]:
    """Return a dependency that lets only requests with a good key of this scope through."""
    if scope not in SCOPES:
        raise ValueError(f"unknown scope: {scope!r}")

    async def admitted(request: Request) -> Key | None:
        return access_of(request).admit(request, scope)

    return admitted


def secret_of(request: Request) -> str | None:
    """Return the secret a request comes with: Authorization, X-API-Key, or on the review pages the cookie.

    What is none of ours, such as a password, is an empty secret, which is no key's.
    """
    authorization, given = request.headers.get("authorization"), request.headers.get("x-api-key")
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    if given is not None:
        return given
    path = request.scope["path"]
    on_pages = path == PAGES or path.startswith(PAGES + "/")
    return request.cookies.get(COOKIE) or None if on_pages else None


def _check_local(request: Request) -> None:
    """Refuse what a page of another site sends by a browser, or by a name that was made to lead here."""
    origin = request.headers.get("origin")
    hosts = [request.headers.get("host", "")] + ([] if origin is None else [origin.partition("://")[2]])
    foreign = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if foreign or not all(map(_is_here, hosts)):
        detail = (
            "without a key this is answered only to programs of this machine; add one: shelfwise keys add"
        )
        raise Refusal(401, "no_key", detail, headers=CHALLENGE)


@functools.lru_cache(maxsize=256)
def _is_here(host: str) -> bool:
    """Whether what a request calls its host is this machine."""
    return is_loopback(_name(host))


def _name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
