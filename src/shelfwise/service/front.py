"""Front: what holds for every request, whatever it asks: its id, its size, its time, its headers, its line in the log.

It does not know routes. It is plain ASGI, so that a request is refused before any of its content is read.
"""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shelfwise.service.logs import say
from shelfwise.service.metrics import Metrics
from shelfwise.service.options import ServiceOptions
from shelfwise.service.problems import FAULT, Refusal, id_of, problem

#: Of an answer without a page of its own; the review pages state theirs.
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
#: Routes that take large content; all others take little.
LARGE = ("/v1/answer", "/v1/audit")
LITTLE = 65_536
#: Content up to here that was not asked for is read and forgotten; with more, the connection ends.
FORGOTTEN = 1 << 20
_ID = re.compile(r"^[A-Za-z0-9._:-]{1,64}$")


@dataclass(eq=False)
class _Flow:
    """One request on its way.

    Attributes:
        begun: seconds of the clock.
        stated: bytes of its content as it says; -1 where it does not.
        most: bytes it may have.
        got: bytes that came.
        ended: whether all of it came.
        status: of the answer; 0 while there is none.
    """

    begun: float
    stated: int
    most: int
    got: int = 0
    ended: bool = False
    status: int = 0


class Front:
    """Stands before an ASGI application."""

    def __init__(self, app: ASGIApp, *, options: ServiceOptions, metrics: Metrics) -> None:
        """Keep to these options."""
        self.app, self.options, self.metrics = app, options, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        state = scope.setdefault("state", {})
        state["request_id"] = given if _ID.match(given) else secrets.token_hex(8)
        stated = headers.get("content-length", "")
        chunked = "transfer-encoding" in headers
        length = int(stated) if stated.isascii() and stated.isdigit() else -1 if chunked else 0
        most = self.options.max_body if scope["path"] in LARGE else LITTLE
        flow = _Flow(time.monotonic(), length, most, ended=length == 0)
        sent = self._sending(scope, flow, send)
        try:
            if length > most:
                state["code"] = "too_large"
                detail = f"the request has {length:,} bytes, {most:,} are taken"
                await problem(413, "too_large", detail, id_of(scope))(scope, receive, sent)
            else:
                await self.app(scope, self._receiving(flow, receive), sent)
        except Exception:
            state["code"] = "internal"
            if not flow.status:
                await problem(500, "internal", FAULT, id_of(scope))(scope, receive, sent)
            raise
        finally:
            self._tell(scope, flow)

    def _receiving(self, flow: _Flow, receive: Receive) -> Receive:
        async def received() -> Message:
            if flow.ended:
                return await receive()
            left = self.options.upload - (time.monotonic() - flow.begun)
            try:
                async with asyncio.timeout(max(left, 0.001)):
                    message = await receive()
            except TimeoutError as error:
                detail = f"the request did not arrive within {self.options.upload:g} s"
                raise Refusal(408, "slow", detail, headers={"Connection": "close"}) from error
            if message["type"] == "http.request":
                flow.got += len(message.get("body", b""))
                flow.ended = not message.get("more_body", False)
            else:
                flow.ended = True
            if flow.got > flow.most:
                detail = f"the request goes on after {flow.most:,} bytes, which is what is taken"
                raise Refusal(413, "too_large", detail, headers={"Connection": "close"})
            return message

        return received

    def _sending(self, scope: Scope, flow: _Flow, send: Send) -> Send:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                flow.status = message["status"]
                given = list(message.get("headers", ()))
                there = {name for name, _ in given}
                given += [(name, value) for name, value in HEADERS.items() if name not in there]
                given.append((b"x-request-id", id_of(scope).encode("latin-1")))
                unread = not flow.ended and not 0 <= flow.stated <= FORGOTTEN
                if unread or getattr(scope["app"].state, "draining", False):
                    given = [each for each in given if each[0] != b"connection"]
                    given.append((b"connection", b"close"))
                message["headers"] = given
            await send(message)

        return sent

    def _tell(self, scope: Scope, flow: _Flow) -> None:
        """Count a request and log it."""
        state, seconds = scope["state"], time.monotonic() - flow.begun
        route = state.get("route") or getattr(scope.get("route"), "path", "") or "other"
        code = str(state.get("code", ""))
        self.metrics.request(route, scope["method"], flow.status, seconds, code)
        say(
            "request",
            request_id=id_of(scope),
            method=scope["method"],
            route=route,
            status=flow.status,
            ms=round(seconds * 1000, 1),
            bytes=flow.got,
            key=state.get("key"),
            code=code or None,
            bundle=state.get("bundle"),
        )
