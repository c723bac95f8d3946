"""Puts the routes together. `create_app(settings)` is all a test or a server needs."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import faults, playground
from api.http import downloads, remarks, thumbnails, uploads
from api.http import errors as http_errors
from api.http.access import own_url
from api.http.metering import Metered
from api.http.middleware import BodyLimit, RequestIds, SafeHeaders
from api.http.tracing import TRACE_ID, Traced
from api.http.turns import TakingTurns
from api.metrics import ApiMetrics
from api.resources import Resources, open_resources
from api.settings import ApiSettings
from api.spoken import DIALECTS
from api.webhooks.delivery import Delivery
from storage import garbage
from storage.contracts import errors
from storage.metrics import Certificates, registry

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
        Middleware(RequestIds, fault=faults.unforeseen),
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
    for kind, answer in faults.HANDLERS.items():
        app.add_exception_handler(kind, answer)
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
