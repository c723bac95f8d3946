"""What every route asks for: the resources, and who is calling."""

from typing import Annotated, Any

from fastapi import Depends, Header, Query
from fastapi.security import HTTPBearer
from starlette.requests import Request

from api.http.middleware import body_belongs_to
from api.http.turns import belongs_to, take_turn
from api.resources import Resources
from api.service.tokens import PREFIX as TOKEN
from api.service.tokens import Holder
from storage.contracts import access, errors

SCHEMES = ("bearer", "key", "token")
READING = ("GET", "HEAD")


KEY_HEADERS = frozenset({"authorization", "x-key", "api-key"})
"""Where an API key or token may stand."""


def shown(request: Request) -> str:
    """The API key or token that a request shows.

    `Authorization` may say `Bearer`, `Key`, `Token` or nothing before it, and it may come as `x-key` or `api-key` instead, as
    clients of the APIs we stand in for send it.
    """
    words = request.headers.get("authorization", "").split()
    if len(words) == 2 and words[0].lower() in SCHEMES:
        del words[0]
    headers = request.headers
    return words[0] if len(words) == 1 else headers.get("x-key") or headers.get("api-key", "")


async def authenticated(request: Request, resources: Resources) -> access.Caller:
    """Who the request's API key, or signed-in page, stands for.

    Raises `errors.UnauthenticatedError`, `errors.StoreUnavailableError` and `errors.TooManyRequestsError`.
    """
    holder = await _holder(request, resources, shown(request))
    if holder is None:
        caller = _remembered(request, await resources.keys.caller_of(shown(request)))
        await counted(request, resources, caller.tenant)
        return caller
    if holder.token.purpose != "session":
        raise errors.ForbiddenError(f"A token for {holder.token.purpose} is not for that; an API key is")
    return holder.caller


async def caller_of(request: Request, resources: Resources) -> access.Caller:
    """The same, who may do what the method stands for. Raises `errors.ForbiddenError`, too."""
    return _checked(request, await authenticated(request, resources))


def _checked(request: Request, caller: access.Caller) -> access.Caller:
    caller.check("read" if request.method in READING else "submit")
    return caller


# Coroutines, though some await nothing: the framework would run plain functions in a thread each.
async def _resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


# Told to OpenAPI, so that its readers know how to sign in; checked by `authenticated`.
BEARER = Depends(HTTPBearer(auto_error=False, description="An API key"))


ResourcesDep = Annotated[Resources, Depends(_resources)]


async def _caller(request: Request, resources: ResourcesDep, _: Annotated[object, BEARER]) -> access.Caller:
    return await caller_of(request, resources)


async def _tenant(caller: Annotated[access.Caller, Depends(_caller)]) -> str:
    return caller.tenant


def _with(scope: access.Scope) -> Any:
    async def caller(request: Request, resources: ResourcesDep, _: Annotated[object, BEARER]) -> access.Caller:
        identified = await authenticated(request, resources)
        identified.check(scope)
        return identified

    return Depends(caller)


async def _holder(request: Request, resources: Resources, text: str) -> Holder | None:
    """The caller that a browser token stands for; None: it is no token."""
    if not text.startswith(TOKEN):
        return None
    holder = await resources.tokens.holder_of(text, request.headers.get("origin"))
    _remembered(request, holder.caller)
    await counted(request, resources, holder.caller.tenant)
    return holder


def _remembered(request: Request, caller: access.Caller) -> access.Caller:
    request.state.caller = caller
    return caller


async def still(request: Request, resources: Resources) -> None:
    """For a request that waited: its key or token may have ended meanwhile.

    Raises `errors.UnauthenticatedError` and `errors.StoreUnavailableError`.
    """
    caller: access.Caller | None = getattr(request.state, "caller", None)
    if caller is not None and not await resources.keys.still(caller):
        raise errors.UnauthenticatedError("The key or token ended while this request waited")


async def counted(request: Request, resources: Resources, tenant: str) -> None:
    """Goes on when it is the tenant's turn, unless it asks too often: that is told without one."""
    belongs_to(request, resources.turns, tenant)
    body_belongs_to(request, tenant)
    resources.request_pace.check(tenant)
    await take_turn(request)


async def _submitter(request: Request, resources: ResourcesDep, _: Annotated[object, BEARER]) -> access.Caller:
    return await _with_submit_token(request, resources, "submitting")


async def _canceller(
    request: Request, resources: ResourcesDep, generation_id: str, _: Annotated[object, BEARER]
) -> access.Caller:
    return await _with_submit_token(request, resources, "cancelling", generation_id)


async def _with_submit_token(
    request: Request, resources: Resources, doing: str, generation_id: str | None = None
) -> access.Caller:
    """A key's caller, or a submit token's: of one by which the generation was submitted, where one is named."""
    holder = await _holder(request, resources, shown(request))
    if holder is None:
        return await caller_of(request, resources)
    if holder.token.purpose == "session":
        return _checked(request, holder.caller)
    if holder.token.purpose != "submit":
        raise errors.ForbiddenError(f"This token is not for {doing} edits")
    if generation_id is not None:
        await resources.tokens.check_generation(holder, generation_id)
    return holder.caller


async def _viewer(request: Request, resources: ResourcesDep, generation_id: str, _: Annotated[object, BEARER]) -> str:
    holder = await _holder(request, resources, shown(request))
    if holder is None:
        return (await caller_of(request, resources)).tenant
    if holder.token.purpose == "session":
        return _checked(request, holder.caller).tenant
    await resources.tokens.check_generation(holder, generation_id)
    return holder.caller.tenant


async def _watcher(
    request: Request,
    resources: ResourcesDep,
    _: Annotated[object, BEARER],
    generation_id: str | None = None,
    token: Annotated[str | None, Query(description="A browser token, for an EventSource")] = None,
) -> access.Caller:
    holder = await _holder(request, resources, token or shown(request))
    if holder is None:
        return await caller_of(request, resources)
    if holder.token.purpose == "session":
        if token is not None:
            raise errors.ForbiddenError("A signed-in page shows its token in a header: addresses are written into logs")
        holder.caller.check("read")
    elif holder.token.purpose != "events":
        await resources.tokens.check_generation(holder, generation_id or "")
    return holder.caller


Caller = Annotated[access.Caller, Depends(_caller)]
Tenant = Annotated[str, Depends(_tenant)]
ModelsCaller = Annotated[access.Caller, _with("models")]
"""Who may start and stop models."""
AdminCaller = Annotated[access.Caller, _with("admin")]
"""Who may make keys and end them."""
SubmittingCaller = Annotated[access.Caller, Depends(_submitter)]
"""A key, or a browser token for submitting."""
CancellingCaller = Annotated[access.Caller, Depends(_canceller)]
"""A key, or the browser token by which the generation of the path was submitted."""
ViewingTenant = Annotated[str, Depends(_viewer)]
"""Of a key, or of a browser token that may see the generation of the path."""
WatchingCaller = Annotated[access.Caller, Depends(_watcher)]
"""A key, or a browser token for all events or for those of the generation that the query names."""
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key")]


def own_url(request: Request, resources: Resources, path: str = "") -> str:
    """A URL of this service, as the caller reaches it."""
    base = resources.settings.public_url or f"{request.url.scheme}://{request.url.netloc}"
    return base.rstrip("/") + path
