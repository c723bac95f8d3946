"""Puts the routes together. `create_app(settings)` is all a test or a server needs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from api import playground
from api.dialects import bfl, fal, forge, nim, openai, oxen, replicate, runpod
from api.dialects.base import Dialect
from api.http import downloads, remarks, thumbnails, uploads
from api.http import errors as http_errors
from api.http.access import own_url
from api.http.hangups import HUNG_UP, HungUpError
from api.http.metering import Metered
from api.http.middleware import BodyLimit, RequestIds, SafeHeaders
from api.http.tracing import TRACE_ID, Traced
from api.http.turns import TakingTurns, hold_refusal
from api.metrics import ApiMetrics
from api.resources import Resources, open_resources
from api.settings import ApiSettings
from api.webhooks.delivery import Delivery
from storage import garbage
from storage.contracts import errors
from storage.metrics import Certificates, registry

_SPOKEN = (
    oxen.DIALECT, runpod.DIALECT, nim.DIALECT, replicate.DIALECT, bfl.DIALECT, fal.DIALECT, openai.DIALECT, forge.DIALECT,
)  # fmt: skip
"""Where two have a route for the same path, the earlier one answers: Replicate's models have more parts than Forge's."""

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _SPOKEN}
"""Every wire API that is spoken here, by name; a route's tag is that name."""

ANSWER_HEADERS = (
    "ETag", "Retry-After", "Location", "Content-Disposition", "Content-Range", "Accept-Ranges", "Idempotent-Replayed",
    "X-Request-Id", TRACE_ID, "x-fal-request-id", "x-should-retry", "x-model-time-ms", *remarks.HEADERS,
)  # fmt: skip
"""Headers that a page of another origin may read."""

LOOK_S = 0.5
"""How often the server is asked whether it was told to stop."""

log = logging.getLogger(__name__)


def create_app(settings: ApiSettings) -> FastAPI:
    """The application. Connections open when it starts and close when it stops."""
    metrics = ApiMetrics(registry())
    used = {"signing": settings.signing_certificate, "tls": settings.tls_certificate}
    metrics.registry.register(Certificates(used))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings, metrics) as resources:
            app.state.resources = resources
            delivery = Delivery(
                resources.ledger,
                resources.archive,
                resources.reader,
                {name: one.wording for name, one in DIALECTS.items() if one.wording is not None},
                {name: one.batch_wording for name, one in DIALECTS.items() if one.batch_wording is not None},
                secrets=resources.webhook_secrets,
                calls=resources.webhook_calls,
            )
            await _warn_of_unknown_tenants(settings, resources)
            garbage.settle()
            work = (delivery.run(), resources.batch_runner.run(), _told_to_stop(app))
            running = [asyncio.create_task(one) for one in work]
            try:
                yield
            finally:
                for task in running:
                    task.cancel()
                for task in running:
                    with contextlib.suppress(asyncio.CancelledError, errors.DarkroomError):
                        await task

    middleware = [
        Middleware(Metered, metrics=metrics),
        *([Middleware(Traced)] if settings.traces_endpoint else []),
        Middleware(RequestIds, fault=_fault),
        Middleware(SafeHeaders),
        _body_limit(settings),
        Middleware(TakingTurns),
    ]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
            # Whatever clients say of themselves (x-stainless-os, openai-organization): the origin is what is allowed or not.
            allow_headers=["*"],
            expose_headers=ANSWER_HEADERS,
        )
        middleware.insert(0, cors)
    # Its documentation for browsers comes with it: hosts without the internet have it too, and no script of others runs.
    app = FastAPIOffline(
        title="Darkroom",
        version=version("darkroom-server"),
        description="Self-hosted image editing: enqueue, listen, download.",
        lifespan=lifespan,
        middleware=middleware,
        redoc_url=None,
        # Its own spans hold paths and queries, in which there may be tokens; ours are `api.http.tracing`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.is_stopping, app.state.stopping = (lambda: False), asyncio.Event()
    app.state.describing = [one.describe for one in DIALECTS.values() if one.describe is not None]
    told = http_errors.responses()
    for dialect in DIALECTS.values():
        app.include_router(dialect.router, responses=told)
    app.include_router(downloads.router, responses=told)
    app.include_router(uploads.router, responses=told)
    app.include_router(thumbnails.router, responses=told)
    app.include_router(playground.router)
    app.add_api_route("/", _index, include_in_schema=False)
    app.add_api_route("/health/live", _live, summary="The process answers", tags=["health"])
    unready: dict[int | str, dict[str, Any]] = {503: {"description": "A store does not answer"}}
    app.add_api_route("/health/ready", _ready, summary="The stores answer too", tags=["health"], responses=unready)
    app.add_exception_handler(errors.DarkroomError, _known_fault)
    app.add_exception_handler(HungUpError, _hung_up)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _http_fault)
    return app


async def _told_to_stop(app: FastAPI) -> None:
    """Set the event of it, for all who wait: the server has a flag alone."""
    while not app.state.is_stopping():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    app.state.stopping.set()


async def _warn_of_unknown_tenants(settings: ApiSettings, resources: Resources) -> None:
    """A name that is misspelt has no key: what is set for it holds for nobody."""
    named = {*settings.budgets, *settings.retention_days}
    if not named:
        return
    with contextlib.suppress(errors.StoreUnavailableError, ValueError):
        unknown = await resources.keys.unknown(named)
        if unknown:
            log.warning(
                "DARKROOM_BUDGETS or DARKROOM_RETENTION_DAYS: nobody has a key of %s", ", ".join(sorted(unknown))
            )


def _body_limit(settings: ApiSettings) -> Middleware:
    return Middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        most_held=settings.max_bodies_bytes,
        pause_s=settings.body_pause_s,
        limit_s=settings.body_limit_s,
    )


async def _index(request: Request) -> Response:
    """The page for browsers, and where everything is for programs."""
    if playground.wants_page(request):
        return playground.page(request.app.state.resources)
    base = own_url(request, request.app.state.resources)
    return JSONResponse(
        {
            "service": "darkroom",
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "dialects": {name: [line.replace("{url}", base) for line in one.aim] for name, one in DIALECTS.items()},
        },
        headers={"Vary": "Accept"},
    )


async def _live() -> dict[str, str]:
    return {"status": "live"}


async def _ready(request: Request) -> dict[str, str]:
    await request.app.state.resources.check()
    return {"status": "ready"}


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error in the words of the route's dialect, or of the native API where it has none."""
    tags = getattr(request.scope.get("route"), "tags", None) or ["oxen"]
    return DIALECTS.get(str(tags[0]), oxen.DIALECT).problem(request, error)


async def _known_fault(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, errors.DarkroomError)  # noqa: S101  (registered for this class only)
    if isinstance(exc, errors.TransientError):
        log.warning("%s %r: %s", request.method, request.url.path, exc)
    if isinstance(exc, errors.TooManyRequestsError | errors.TooManyActiveError):
        await hold_refusal(request)
    return _problem(request, exc)


async def _hung_up(request: Request, exc: Exception) -> Response:
    return Response(status_code=HUNG_UP)


async def _bad_parameter(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101  (registered for this class only)
    first = exc.errors()[0]
    # The first is where it stands: in the query, a header or the body.
    field = ".".join(map(str, first["loc"][1:])) or "body"
    return _problem(
        request, errors.InvalidInputError(f"{field}: {first['msg']}; got {str(first.get('input'))[:80]!r}", field=field)
    )


async def _http_fault(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101  (registered for this class only)
    if exc.status_code == 404:
        return _problem(request, errors.NotFoundError(f"There is no route {request.method} {request.url.path}"))
    error = errors.InvalidInputError(f"{exc.detail}")
    answer = _problem(request, error)
    answer.status_code = exc.status_code
    answer.headers.update(exc.headers or {})
    return answer


async def _fault(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await _problem(request, errors.InternalError("Something went wrong on our side"))(scope, receive, send)
