"""What every review page keeps to: who may send a form, what a refusal looks like, headers and cookies.

It does not know items or verdicts. Every request is answered with a page, a refusal too; a form counts only from a
page of the same origin.
"""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from shelfwise.errors import DeskError, ShelfwiseError
from shelfwise.service import access
from shelfwise.service import review_view as view

PREFIX = access.PAGES
#: The cookies: a key, which the service reads, and the name of a reviewer without one.
KEY_COOKIE, NAME_COOKIE = access.COOKIE, "shelfwise_reviewer"
KEY_SECONDS, NAME_SECONDS = 30 * 86_400, 365 * 86_400
#: A form holds a few short fields; more is refused before it is read.
MOST_BYTES = 64 * 1024
_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def keep_cookie(request: Request, answer: Response, name: str, value: str, seconds: int) -> None:
    """Keep a cookie that no script reads and no other site sends."""
    secure = request.url.scheme == "https"
    answer.set_cookie(
        name, value, max_age=seconds, path=PREFIX, secure=secure, httponly=True, samesite="strict"
    )


def _same_origin(request: Request) -> bool:
    """Whether a form was sent by a page of this server; browsers say so, and no page can say it falsely."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host")


def _refused_unread(request: Request) -> tuple[int, str] | None:
    """Why a form is refused before it is read."""
    if request.method != "POST":
        return None
    if not _same_origin(request):
        return 403, "This form was not sent by a page of this server. Open the review page and try again."
    length = request.headers.get("content-length", "")
    if not length.isdigit():
        return 411, "This form does not say how long it is."
    if int(length) > MOST_BYTES:
        return 413, f"This form has more than {MOST_BYTES:,} bytes."
    return None


def refusal(status: int, notice: str, headers: Mapping[str, str], *, entry: bool = False) -> Response:
    """Return the page of a refusal.

    Args:
        status: the HTTP status.
        notice: what is wrong and what to do.
        headers: more headers.
        entry: whether a key is missing: the page then has the field for one.
    """
    if entry:
        policy = (
            f"default-src 'none'; img-src data:; style-src 'sha256-{view.entry_style()[1]}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        page = view.entry_page(notice)
        return HTMLResponse(page, status, headers={**headers, "Content-Security-Policy": policy})
    heading = {404: "Not found", 500: "This failed", 503: "The desk does not answer"}.get(status, "Refused")
    return HTMLResponse(view.plain_page(heading, notice), status, headers=dict(headers))


def _refused(request: Request, refused: HTTPException) -> Response:
    """What the service refused; a script is told to load the page anew where a key is missing."""
    status, headers = refused.status_code, dict(refused.headers or {})
    entry = status in (401, 403)
    if entry and "hx-request" in request.headers:
        return Response(status_code=status, headers=headers | {"HX-Refresh": "true"})
    return refusal(status, str(refused.detail), headers, entry=entry)


def _answering(
    route: APIRoute,
) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return a route's answer with every refusal as a page and the headers of all pages."""
    inner = APIRoute.get_route_handler(route)

    async def answer(request: Request) -> Response:
        unread = _refused_unread(request)
        try:
            response = refusal(*unread, {}) if unread else await inner(request)
        except HTTPException as refused:
            if refused.status_code == 303:
                response = RedirectResponse((refused.headers or {})["Location"], 303)
            else:
                response = _refused(request, refused)
        except RequestValidationError:
            response = refusal(422, "This form is not complete. Go back, load the page again, and retry.", {})
        except ShelfwiseError as error:
            response = refusal(503 if isinstance(error, DeskError) else 500, str(error), {})
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return answer


class PageRoute(APIRoute):
    """A route whose refusals are pages."""

    get_route_handler = _answering
