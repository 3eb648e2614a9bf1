"""The review pages over HTTP: one item at a time, verdicts by form, photos, progress, and who is asking.

It does not know how an item was found, nor how keys are kept. A page works as plain forms; a script only puts the
part that changed in place. A form names its act, so that what is sent twice is recorded once.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, Field

from shelfwise.errors import DeskError, ImageError
from shelfwise.pages.heat import HeatMap
from shelfwise.service import review_view as view
from shelfwise.service.desk import Desk, Filters, Item, Progress
from shelfwise.service.review_guard import (
    KEY_COOKIE,
    KEY_SECONDS,
    NAME_COOKIE,
    NAME_SECONDS,
    PREFIX,
    PageRoute,
    keep_cookie,
    refusal,
)

#: Seconds: where counting the desk takes less, every page counts it anew.
LIVE = 0.05
#: What a key can look like; all of it may stand in a cookie as it is.
_SECRET = re.compile(r"[\w.~-]{1,400}", re.ASCII)
_LOOK = "Nothing was recorded; look again."

Short = Annotated[str, Field(max_length=1000)]


class Named(Protocol):
    """What is known of a key: whose it is."""

    @property
    def name(self) -> str:
        """The key's name, which is the reviewer's."""


Needs = Callable[[str], Callable[..., Any]]


class Asked(BaseModel):
    """Which items are asked for."""

    category: Short = ""
    attribute: Short = ""
    supplier: Short = ""
    reason: Short = ""

    @property
    def filters(self) -> Filters:
        """As the desk takes them: an empty one is none."""
        return Filters(
            self.category or None, self.attribute or None, self.supplier or None, self.reason or None
        )


class View(Asked):
    """What a page shows: an item by its key, or the next; and what was done before."""

    item: Short = ""
    last: Short = ""
    many: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    undone: bool = False


class Act(Asked):
    """A form of the item's page."""

    key: Short = ""
    token: Annotated[str, Field(min_length=8, max_length=100)]
    shown: Short = ""
    answer: Annotated[str, Field(max_length=20)] = ""
    value: Short = ""


def review_router(desk: Desk, needs: Needs) -> APIRouter:
    """Return the review pages, all under ``/review``.

    Args:
        desk: the items and verdicts.
        needs: makes of a scope a FastAPI dependency that returns the key asked with, None where none is
            needed, and refuses with 401 or 403.
    """
    pages = _Pages(desk)
    router = APIRouter(prefix=PREFIX, include_in_schema=False, route_class=PageRoute)

    def known(request: Request, key: Annotated[Any, Depends(needs("review"))]) -> None:
        request.state.reviewer = _reviewer(request, key)
        request.state.named = key is None

    for path, page, method in (
        ("", pages.item, "GET"),
        ("/decide", pages.decide, "POST"),
        ("/cluster", pages.cluster, "POST"),
        ("/undo", pages.undo, "POST"),
        ("/progress", pages.progress, "GET"),
        ("/photo", pages.photo, "GET"),
        ("/name", pages.name, "GET"),
        ("/name", pages.take_name, "POST"),
        ("/static/{file}", _static, "GET"),
    ):
        router.add_api_route(path, page, methods=[method], dependencies=[Depends(known)])
    router.add_api_route("/enter", pages.enter, methods=["POST"])
    router.add_api_route("/leave", pages.leave, methods=["POST"])
    return router


class _Pages:
    """The pages of one desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._decoding = threading.BoundedSemaphore(4)
        self._counting = threading.Lock()
        self._counted: tuple[float, float, Progress | None] = (0.0, 0.0, None)

    def item(self, request: Request, asked: Annotated[View, Query()]) -> Response:
        """The item asked for, or the riskiest that nobody else holds."""
        reviewer = _name_of(request)
        said, notice = self._said(asked, reviewer), ""
        item = None
        if asked.item:
            try:
                item = self._desk.item(asked.item)
            except DeskError as error:
                notice = str(error)
        item = item or self._desk.next(reviewer, asked.filters)
        return self._page(request, item, asked.filters, said=said, notice=notice)

    def decide(self, request: Request, form: Annotated[Act, Form()]) -> Response:
        """Record a verdict and show the next item."""
        reviewer, item = _name_of(request), self._found(form.key)
        meant: object = f"The item was changed since you saw it. {_LOOK}"
        if form.shown == view.shown(item):
            meant = view.act(item, form.answer, form.value)
        if not isinstance(meant, tuple):
            return self._page(request, item, form.filters, notice=str(meant), typed=form.value, status=422)
        kind, value = meant
        try:
            self._desk.decide(reviewer, form.key, kind, value, token=form.token)
        except DeskError as error:
            return self._page(request, item, form.filters, notice=f"{error} {_LOOK}", status=409)
        return _to_next(form.filters, ("last", form.key))

    def cluster(self, request: Request, form: Annotated[Act, Form()]) -> Response:
        """Accept the value seen for a whole cluster."""
        reviewer, item = _name_of(request), self._found(form.key)
        if form.shown != view.shown(item):
            notice = f"The item was changed since you saw it. {_LOOK}"
            return self._page(request, item, form.filters, notice=notice, status=422)
        try:
            verdicts = self._desk.accept_cluster(reviewer, form.key, token=form.token)
        except DeskError as error:
            return self._page(request, item, form.filters, notice=f"{error} {_LOOK}", status=409)
        return _to_next(form.filters, ("last", form.key), ("many", str(len(verdicts))))

    def undo(self, request: Request, form: Annotated[Act, Form()]) -> Response:
        """Take the reviewer's last act back and show its item."""
        reviewer = _name_of(request)
        try:
            taken_back = self._desk.undo(reviewer, token=form.token)
        except DeskError as error:
            item = self._desk.next(reviewer, form.filters)
            return self._page(request, item, form.filters, notice=str(error), status=409)
        shown = [("item", taken_back.item)] if taken_back is not None else []
        return _to_next(form.filters, *shown, ("undone", "1"))

    def progress(self, request: Request, verify: bool = False) -> Response:
        """How far the review is, and whether reviewers agree."""
        progress, agreement = self._desk.progress(), self._desk.agreement()
        both = progress.done + progress.left
        text = view.render(
            "progress.html",
            **_head(request, "progress"),
            progress=progress,
            agreement=agreement,
            share=progress.done / both if both else 0.0,
            tables=view.tables(progress),
            disagreed=view.disagreements(self._desk, agreement),
            faults=self._desk.verify() if verify else None,
            link=lambda **pairs: view.query(*pairs.items()),
            link_to=lambda name, value: view.query((name, value)) if value else "",
        )
        return HTMLResponse(text)

    def photo(self, key: Short, side: int, alike: int | None = None, heat: bool = False) -> Response:
        """An item's photo, plain or under its heat, or a look-alike's, made small; found by the desk, not a path."""
        if side not in view.SIDES:
            raise HTTPException(404, f"photos come in the sizes {', '.join(map(str, view.SIDES))}")
        item = self._found(key)
        shown: list[Path | HeatMap | None] = [view.heat_map(item) if heat else item.photo]
        if alike is not None:
            shown = [other.photo for other in item.look_alikes[alike:][:1]]
        if not shown or shown[0] is None or (alike or 0) < 0:
            raise HTTPException(404, "there is no such photo")
        try:
            with self._decoding:
                content = view.photo_bytes(shown[0], side)
        except ImageError as error:
            raise HTTPException(404, f"the photo is not shown: {error.kind}") from error
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def name(self, request: Request) -> Response:
        """Ask for the reviewer's name."""
        return HTMLResponse(view.render("name.html", **_head(request, "name"), notice=""))

    def take_name(self, request: Request, name: Annotated[str, Form(max_length=200)] = "") -> Response:
        """Keep the reviewer's name in a cookie."""
        plain = " ".join(name.split())
        if not plain or len(plain) > 60 or not plain.isprintable():
            notice = "A name has 1 to 60 characters that can be printed."
            text = view.render("name.html", **_head(request, "name"), notice=notice)
            return HTMLResponse(text, 422)
        answer = RedirectResponse(PREFIX, 303)
        keep_cookie(request, answer, NAME_COOKIE, quote(plain), NAME_SECONDS)
        return answer

    def enter(self, request: Request, key: Annotated[str, Form(max_length=400)] = "") -> Response:
        """Keep a key in a cookie; the next page is refused where it does not count."""
        if not _SECRET.fullmatch(key.strip()):
            return refusal(401, "A key is needed here.", {})
        answer = RedirectResponse(PREFIX, 303)
        keep_cookie(request, answer, KEY_COOKIE, key.strip(), KEY_SECONDS)
        return answer

    def leave(self) -> Response:
        """Forget the key that a browser was given; the key itself stays good."""
        answer = RedirectResponse(PREFIX, 303)
        answer.delete_cookie(KEY_COOKIE, path=PREFIX, httponly=True, samesite="strict")
        return answer

    def _page(self, request: Request, item: Item | None, filters: Filters, **more: Any) -> Response:
        """The page of an item, or of none."""
        progress = self._tallied()
        text = view.render(
            "item.html",
            **_head(request, "item") | {"query": view.query(*view.kept(filters))},
            item=item,
            done=progress.done,
            left=progress.left,
            facets=view.facets(progress, filters),
            filters=view.kept(filters),
            token=secrets.token_urlsafe(12),
            question=view.question(item) if item else "",
            reason=view.reason(item) if item else (),
            rivals=view.rivals(item) if item else (),
            cluster=self._desk.cluster(item.key, _name_of(request))
            if item and item.cluster and item.seen is not None
            else (),
            said=more.get("said", ""),
            notice=more.get("notice", ""),
            typed=more.get("typed", ""),
        )
        return HTMLResponse(text, more.get("status", 200))

    def _tallied(self) -> Progress:
        """How far the desk is; of a desk so large that counting takes its time, as of a moment ago."""
        with self._counting:
            at, cost, progress = self._counted
            now = time.monotonic()
            if progress is None or cost < LIVE or now - at > 20 * cost:
                progress = self._desk.progress()
                self._counted = (time.monotonic(), time.monotonic() - now, progress)
            return progress

    def _found(self, key: str) -> Item:
        try:
            return self._desk.item(key)
        except DeskError as error:
            raise HTTPException(404, str(error)) from error

    def _said(self, asked: View, reviewer: str) -> str:
        if asked.undone:
            return "Taken back." if asked.item else "There is nothing of yours to take back."
        if not asked.last:
            return ""
        try:
            last = self._desk.item(asked.last)
        except DeskError:
            return ""
        return view.recorded(last, self._desk.standing(asked.last), reviewer, asked.many)


def _static(file: str) -> Response:
    """A file of the pages, by its name."""
    if file not in view.STATIC:
        raise HTTPException(404, "there is no such file")
    kept = {"Cache-Control": "private, max-age=31536000, immutable"}
    return Response(view.static_file(file), media_type=view.STATIC[file][1], headers=kept)


def _head(request: Request, page: str) -> dict[str, Any]:
    """What the head of every page shows."""
    state = request.state
    return {
        "page": page,
        "reviewer": getattr(state, "reviewer", None),
        "named": getattr(state, "named", False),
        "entered": KEY_COOKIE in request.cookies,
        "query": "",
    }


def _name_of(request: Request) -> str:
    """The reviewer's name; without one the name is asked for first."""
    if request.state.reviewer is None:
        raise HTTPException(303, headers={"Location": f"{PREFIX}/name"})
    return str(request.state.reviewer)


def _reviewer(request: Request, key: Named | None) -> str | None:
    if key is not None:
        return key.name
    name = unquote(request.cookies.get(NAME_COOKIE, ""))
    return name if name.isprintable() and 0 < len(name) <= 60 else None


def _to_next(filters: Filters, *pairs: tuple[str, str]) -> Response:
    return RedirectResponse(PREFIX + view.query(*view.kept(filters), *pairs), 303)
