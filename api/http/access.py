"""What every route asks for: the resources, and who is calling."""

from typing import Annotated, Any

from fastapi import Depends, Header
from fastapi.security import HTTPBearer
from starlette.requests import Request

from api.resources import Resources
from storage.contracts import access

SCHEMES = ("bearer", "key", "token")
READING = ("GET", "HEAD")


async def authenticated(request: Request, resources: Resources) -> access.Caller:
    """Who the request's API key stands for.

    `Authorization` may say `Bearer`, `Key`, `Token` or nothing before it, and it may come as `x-key` instead, as clients of the
    APIs we stand in for send it. Raises `errors.UnauthenticatedError` and `errors.StoreUnavailableError`.
    """
    words = request.headers.get("authorization", "").split()
    if len(words) == 2 and words[0].lower() in SCHEMES:
        del words[0]
    return await resources.keys.caller_of(words[0] if len(words) == 1 else request.headers.get("x-key", ""))


async def caller_of(request: Request, resources: Resources) -> access.Caller:
    """The same, who may do what the method stands for. Raises `errors.ForbiddenError`, too."""
    caller = await authenticated(request, resources)
    caller.check("read" if request.method in READING else "submit")
    return caller


# Coroutines, though some await nothing: the framework would run plain functions in a thread each.
async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


# Told to OpenAPI, so that its readers know how to sign in; checked by `authenticated`.
_bearer = Depends(HTTPBearer(auto_error=False, description="An API key"))


async def _caller(request: Request, _: Annotated[object, _bearer]) -> access.Caller:
    return await caller_of(request, await _resources(request))


async def _tenant(caller: Annotated[access.Caller, Depends(_caller)]) -> str:
    return caller.tenant


def _with(scope: access.Scope) -> Any:
    async def caller(request: Request, _: Annotated[object, _bearer]) -> access.Caller:
        found = await authenticated(request, await _resources(request))
        found.check(scope)
        return found

    return Depends(caller)


ResourcesDep = Annotated[Resources, Depends(_resources)]
Caller = Annotated[access.Caller, Depends(_caller)]
Tenant = Annotated[str, Depends(_tenant)]
ModelsCaller = Annotated[access.Caller, _with("models")]
"""Who may start and stop models."""
AdminCaller = Annotated[access.Caller, _with("admin")]
"""Who may make keys and end them."""
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


def own_url(request: Request, resources: Resources, path: str = "") -> str:
    """A URL of this service, as the caller reaches it."""
    base = resources.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    return base.rstrip("/") + path
