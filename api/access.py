"""What every route asks for: the resources, and who is calling."""

from typing import Annotated

from fastapi import Depends, Header
from fastapi.security import HTTPBearer
from starlette.requests import Request

from api.resources import Resources


# Coroutines, though they await nothing: the framework would run plain functions in a thread each.
async def _resources(request: Request) -> Resources:
    found: Resources = request.app.state.resources
    return found


# Told to OpenAPI, so that its readers know how to sign in; checked by `Tenants`.
_bearer = HTTPBearer(auto_error=False, description="An API key")


async def _tenant(request: Request, _: Annotated[object, Depends(_bearer)]) -> str:
    held = await _resources(request)
    return held.tenants.authenticate(request)


Held = Annotated[Resources, Depends(_resources)]
Tenant = Annotated[str, Depends(_tenant)]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


def own_url(request: Request, held: Resources, path: str) -> str:
    """A URL of this service, as the caller reaches it."""
    base = held.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    return base.rstrip("/") + path
