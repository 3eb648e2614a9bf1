"""App: the routes of the service.

It does not know how products are answered or where the service listens. Every route but those of health needs a key,
see ``access``.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from shelfwise.errors import BundleError
from shelfwise.models.engines import cores
from shelfwise.service.access import Access, needs
from shelfwise.service.asking import Asking
from shelfwise.service.batcher import Ahead, Batcher
from shelfwise.service.front import Front
from shelfwise.service.logs import say
from shelfwise.service.metrics import Metrics
from shelfwise.service.openapi import ABOUT, describe, responses, takes
from shelfwise.service.options import ServiceOptions
from shelfwise.service.pace import Pace
from shelfwise.service.problems import Refusal, failed, refused
from shelfwise.service.remote import Remote
from shelfwise.service.schemas import Answered, Audited, AuditedBatch, Batch, BundleOut, Live, Ready
from shelfwise.service.serving import Loaded, Serving

if TYPE_CHECKING:
    from shelfwise.service.desk import Desk


#: Threads that look at photos ahead, beyond one a core: while some wait for the engine others have theirs decoded. With
#: none spare a tenth of the processors stood idle at capacity.
SPARE = 2


class Service(FastAPI):
    """An application behind its front; the routes that are asked most go the short way."""

    def __init__(self, options: ServiceOptions, metrics: Metrics, **given: Any) -> None:
        """Begin without routes; ``given`` is what FastAPI takes."""
        super().__init__(**given)
        self.short: dict[tuple[str, str], Callable[[Request], Awaitable[Response]]] = {}
        self._front = Front(self._routed, options=options, metrics=metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry a request, or the application's own beginning and end."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self._front(scope, receive, send)

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self.short.get((scope["method"], scope["path"]))
        if answer is None:
            await super().__call__(scope, receive, send)
            return
        request = Request(scope, receive)
        scope["state"]["route"] = scope["path"]
        try:
            response = await answer(request)
        except (HTTPException, ClientDisconnect) as error:
            response = await refused(request, error)
        await response(scope, receive, send)


def make_app(
    serving: Serving, access: Access, options: ServiceOptions | None = None, *, desk: "Desk | None" = None
) -> FastAPI:
    """Return the application that serves a bundle.

    Args:
        serving: the bundle.
        access: who may do what.
        options: limits.
        desk: what people review; its pages are at /review.
    """
    options, metrics = options or ServiceOptions(), Metrics()
    app = Service(
        options,
        metrics,
        title="Shelfwise",
        version=version("shelfwise"),
        description=ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.access, app.state.serving = access, serving
    app.state.options, app.state.metrics, app.state.draining = options, metrics, False
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(ClientDisconnect, refused)
    app.add_exception_handler(Exception, failed)
    _add_health(app)
    _add_products(app)
    _add_bundle(app)
    describe(app)
    if desk is not None:
        from shelfwise.service.review import review_router

        app.include_router(review_router(desk, needs))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Begin to answer; at the end do what waits."""
    options, metrics, serving = app.state.options, app.state.metrics, app.state.serving
    jobs = serving.now.machine.jobs or cores()
    batcher = Batcher(
        serving.work,
        queue=options.queue,
        batch=options.batch,
        deadline=options.deadline,
        watch=metrics,
        pace=Pace(serving.now.timed),
        ahead=Ahead(serving.ahead, jobs + SPARE, serving.now.looked),
    )
    remote = Remote(max_bytes=options.max_image, seconds=options.upload, allow_private=options.allow_private)
    app.state.batcher, app.state.asking = batcher, Asking(options, app.state.access, serving, batcher, remote)
    metrics.gauges(lambda: len(batcher), lambda: serving.now.since)
    working = asyncio.create_task(batcher.run())
    say("ready", bundle=serving.now.digest, host=options.host, port=options.port)
    try:
        yield
    finally:
        batcher.end()
        await working
        batcher.close()
        app.state.asking.close()
        say("ended")


def _add_health(app: FastAPI) -> None:
    @app.get("/v2/health/live", tags=["health"], responses=responses(Live), summary="The process runs")
    async def live() -> JSONResponse:
        return JSONResponse({"live": True})

    @app.get(
        "/v2/health/ready", tags=["health"], responses=responses(Ready, 503), summary="The service answers"
    )
    async def ready(request: Request) -> JSONResponse:
        if request.app.state.draining:
            raise Refusal(503, "draining", "the service is ending", retry_after=1)
        return JSONResponse({"ready": True})

    @app.get(
        "/metrics",
        tags=["health"],
        dependencies=[Depends(needs("admin"))],
        responses=responses(None, 401, 403, 429),
        response_class=PlainTextResponse,
        summary="Counts and times, in the text format of Prometheus",
    )
    async def metrics(request: Request) -> Response:
        return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4")


def _add_products(app: Service) -> None:
    """Add what is asked about products; ``Asking`` itself asks for the key."""
    refusals = (400, 401, 403, 408, 413, 415, 422, 429, 503)

    async def answer(request: Request) -> Response:
        asking: Asking = request.app.state.asking
        return await asking.ask(request, "answer")

    async def audit(request: Request) -> Response:
        asking: Asking = request.app.state.asking
        return await asking.ask(request, "audit")

    for path, ask, model, summary in (
        ("/v1/answer", answer, Answered | Batch, "Answer one product (form) or several (JSON)"),
        (
            "/v1/audit",
            audit,
            Audited | AuditedBatch,
            "Judge what is stated of one product (form) or several (JSON)",
        ),
    ):
        app.post(
            path,
            tags=["products"],
            responses=responses(model, *refusals),
            openapi_extra=takes(audit=ask is audit, photos=app.state.options.max_images),
            summary=summary,
        )(ask)
        app.short["POST", path] = ask


def _add_bundle(app: FastAPI) -> None:
    @app.get(
        "/v1/taxonomy",
        tags=["bundle"],
        dependencies=[Depends(needs("predict"))],
        responses=responses(None, 401, 403, 429),
        summary="Categories, attributes and values",
    )
    async def taxonomy(request: Request) -> JSONResponse:
        now: Loaded = request.app.state.serving.now
        return JSONResponse(now.bundle.taxonomy.table())

    @app.get(
        "/v1/bundle",
        tags=["bundle"],
        dependencies=[Depends(needs("predict"))],
        responses=responses(BundleOut, 401, 403, 429),
        summary="The bundle that answers",
    )
    async def bundle(request: Request) -> JSONResponse:
        return JSONResponse(_told(request.app.state.serving.now))

    @app.post(
        "/v1/bundle",
        tags=["bundle"],
        dependencies=[Depends(needs("admin"))],
        responses=responses(BundleOut, 401, 403, 409, 429),
        summary="Load the bundle anew; requests under way are answered by the old one",
    )
    async def swap(request: Request) -> JSONResponse:
        try:
            loaded = await asyncio.to_thread(request.app.state.serving.swap)
        except BundleError as error:
            say("bundle refused", reason=str(error))
            detail = "the bundle was not taken, the old one goes on; the log has the reason"
            raise Refusal(409, "bundle", detail) from error
        say("bundle loaded", bundle=loaded.digest)
        return JSONResponse(_told(loaded))

    @app.get("/openapi.json", dependencies=[Depends(needs("predict"))], include_in_schema=False)
    async def openapi(request: Request) -> JSONResponse:
        return JSONResponse(request.app.openapi())


def _told(loaded: Loaded) -> dict[str, Any]:
    return {
        "bundle": loaded.digest,
        "loaded": datetime.fromtimestamp(loaded.since, UTC).isoformat(timespec="seconds"),
        "summary": loaded.bundle.summary,
        "notes": list(loaded.bundle.report.notes),
    }
