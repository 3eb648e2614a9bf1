"""Problems: what a client is told when it gets no answer, as RFC 9457 has it.

It does not know why anything is refused. Every refusal has a status, a short stable code, a sentence and the id of the
request; nothing of the server's files or of other requests is in it.
"""

import http
import math
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route

MEDIA = "application/problem+json"
FAULT = "the service failed at this request; its log has the reason, the line before this request's"
#: Codes of what the reader of forms and the router refuse themselves.
CODES = {400: "form", 404: "not_found", 405: "method_not_allowed"}
#: What the router itself says of a path that is no route, and what is said instead.
NO_ROUTE = (
    "Not Found",
    "there is nothing here; the routes are in /openapi.json, review pages (--desk) at /review",
)


class Refusal(HTTPException):
    """A request that gets no answer.

    Attributes:
        code: a short stable name of the reason.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        wait = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        super().__init__(status, detail, {**(headers or {}), **wait})
        self.code = code


def problem(
    status: int, code: str, detail: str, request_id: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Return the response that says what is the matter."""
    title = http.HTTPStatus(status).phrase
    body = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA)


async def refused(request: Request, error: Exception) -> JSONResponse:
    """Return what a client is told of a refusal, this service's own or the router's."""
    if isinstance(error, ClientDisconnect):
        error = Refusal(400, "gone", "the client hung up")
    if not isinstance(error, HTTPException):
        raise error
    code = error.code if isinstance(error, Refusal) else CODES.get(error.status_code, "refused")
    request.scope.setdefault("state", {})["code"] = code
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    detail = NO_ROUTE[1] if error.detail == NO_ROUTE[0] else str(error.detail)
    return problem(error.status_code, code, detail, id_of(request.scope), headers)


async def failed(request: Request, error: Exception) -> JSONResponse:
    """Return what a client is told of a fault; what it was stands in the log."""
    return problem(500, "internal", FAULT, id_of(request.scope))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes at a request's path; the router names those of the first one only."""
    there = (route for route in request.app.routes if isinstance(route, Route))
    matching = (route for route in there if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in matching for method in route.methods or ()}


def id_of(scope: Mapping[str, Any]) -> str:
    """Return the id of a request."""
    return str(scope.get("state", {}).get("request_id", ""))
