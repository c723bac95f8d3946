"""What every route asks for: the resources, and who is calling."""

from typing import Annotated

from fastapi import Depends, Header
from fastapi.security import HTTPBearer
from starlette.requests import Request

from api.resources import Resources

SCHEMES = ("bearer", "key", "token")


def tenant_of(request: Request, resources: Resources) -> str:
    """The tenant of the request's API key. Raises `errors.UnauthenticatedError`.

    `Authorization` may say `Bearer`, `Key`, `Token` or nothing before it, and it may come as `x-key` instead, as clients of the
    APIs we stand in for send it.
    """
    words = request.headers.get("authorization", "").split()
    if len(words) == 2 and words[0].lower() in SCHEMES:
        del words[0]
    return resources.keys.tenant_of(words[0] if len(words) == 1 else request.headers.get("x-key", ""))


# Coroutines, though they await nothing: the framework would run plain functions in a thread each.
async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


# Told to OpenAPI, so that its readers know how to sign in; checked by `tenant_of`.
_bearer = HTTPBearer(auto_error=False, description="An API key")


async def _tenant(request: Request, _: Annotated[object, Depends(_bearer)]) -> str:
    return tenant_of(request, await _resources(request))


ResourcesDep = Annotated[Resources, Depends(_resources)]
Tenant = Annotated[str, Depends(_tenant)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


def own_url(request: Request, resources: Resources, path: str = "") -> str:
    """A URL of this service, as the caller reaches it."""
    base = resources.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    return base.rstrip("/") + path
