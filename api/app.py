"""Puts the routes together. `create_app(settings)` is all a test or a server needs."""

import contextlib
import logging
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.dialects import oxen
from api.problems import headers, status
from api.resources import open_resources
from api.settings import ApiSettings
from storage.contracts import errors

log = logging.getLogger(__name__)

SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))


class SafeHeaders:
    """Answers are for the caller alone and are what they say they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to every answer that does not set them itself."""

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in SAFE_HEADERS if pair[0] not in present)]
            await send(message)

        await self._app(scope, receive, add if scope["type"] == "http" else send)


def create_app(settings: ApiSettings) -> FastAPI:
    """The application. Connections open when it starts and close when it stops."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            app.state.resources = resources
            yield

    middleware = [Middleware(SafeHeaders)]
    if settings.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID"],
            expose_headers=["ETag", "Retry-After"],
        )
        middleware.insert(0, cors)
    app = FastAPI(
        title="Darkroom",
        version="0.1.0",
        description="Self-hosted image editing: enqueue, listen, download.",
        lifespan=lifespan,
        middleware=middleware,
        max_body_size=settings.max_body_bytes,
        redoc_url=None,
    )
    app.include_router(oxen.router)
    app.add_api_route("/", _index, include_in_schema=False)
    app.add_api_route("/health/live", _live, summary="The process answers", tags=["health"])
    app.add_api_route("/health/ready", _ready, summary="The stores answer too", tags=["health"])
    app.add_exception_handler(errors.DarkroomError, _known_fault)
    app.add_exception_handler(HTTPException, _http_fault)
    app.add_exception_handler(Exception, _unknown_fault)
    return app


async def _index() -> JSONResponse:
    return JSONResponse(
        {
            "service": "darkroom",
            "documentation": "/docs",
            "openapi": "/openapi.json",
            "dialects": {"oxen": "/api/ai, /api/events"},
        }
    )


async def _live() -> dict[str, str]:
    return {"status": "live"}


async def _ready(request: Request) -> dict[str, str]:
    await request.app.state.resources.check()
    return {"status": "ready"}


def _problem(error: errors.DarkroomError) -> JSONResponse:
    return JSONResponse(oxen.problem(error), status_code=status(error), headers=headers(error))


async def _known_fault(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, errors.DarkroomError)  # noqa: S101  (registered for this class only)
    return _problem(exc)


async def _http_fault(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)  # noqa: S101  (registered for this class only)
    if exc.status_code == 413:
        limit = request.app.state.resources.settings.max_body_bytes
        return _problem(errors.PayloadTooLargeError(f"The body may have at most {limit} bytes"))
    if exc.status_code == 404:
        return _problem(errors.NotFoundError(f"There is no route {request.method} {request.url.path}"))
    error = errors.InvalidInputError(f"{exc.detail}")
    return JSONResponse(oxen.problem(error), status_code=exc.status_code, headers=exc.headers)


async def _unknown_fault(request: Request, exc: Exception) -> JSONResponse:
    # Starlette re-raises it after this, so the server's log has the trace.
    return _problem(errors.InternalError("Something went wrong on our side"))
