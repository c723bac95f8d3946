"""fal's routes: its queue, and its blocking calls."""

import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Annotated

import anyio
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.fal import answers, asking
from api.http import bodies, pictures, streams
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.resources import Resources
from api.service.accepted import Accepted
from storage.contracts import access, catalog, errors, generations, submissions

router = APIRouter(tags=["fal"])

log = logging.getLogger(__name__)

Priority = Annotated[str, Header(alias="x-fal-queue-priority", pattern="^(normal|low)$")]
StartTimeout = Annotated[float | None, Header(alias="x-fal-request-timeout", gt=0)]
Logs = Annotated[str, Query(description="1: with log lines")]


@router.post("/fal-ai/{app:path}", openapi_extra=asking.Input.body())
async def submit(
    app: str,
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    fal_webhook: Annotated[str | None, Query(max_length=pictures.MAX_URL)] = None,
    priority: Priority = "normal",
    start_timeout: StartTimeout = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a request of an app."""
    own = own_url(request, resources)
    accepted = await _submitted(
        app,
        request,
        resources,
        caller,
        webhook=base.webhook_of(fal_webhook, "fal_webhook", "fal", base=own),
        low_priority=priority == "low",
        start_timeout=start_timeout,
        idempotency_key=idempotency_key,
    )
    id_ = accepted.ids[0]
    view, *_ = await resources.reader.accepted(accepted)
    answer = {"status": "IN_QUEUE", "request_id": id_, **_urls(own, app, id_)}
    return JSONResponse({**answer, "queue_position": view.generation.position or 0}, headers={"x-fal-request-id": id_})


@router.post("/run/fal-ai/{app:path}", openapi_extra=asking.Input.body())
async def run(
    app: str,
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    start_timeout: StartTimeout = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run an app and wait for it. A client that hangs up cancels it."""
    accepted = await _submitted(
        app, request, resources, caller, start_timeout=start_timeout, idempotency_key=idempotency_key
    )
    try:
        views = await base.finished(request, resources, accepted, caller.tenant, keep=idempotency_key is not None)
        answer = await answers.payload(views, own_url(request, resources))
    except errors.RestartingError:
        raise
    except errors.DarkroomError as exc:
        return answers.ended(exc, accepted.ids[0])
    return JSONResponse(answer, headers={"x-fal-request-id": accepted.ids[0]})


@router.get("/fal-ai/{app:path}/requests/{request_id}/status")
async def status(
    app: str, request_id: str, request: Request, resources: ResourcesDep, tenant: Tenant, logs: Logs = "0"
) -> Response:
    """A request as it is."""
    views = await resources.reader.request(request_id, tenant)
    urls = _urls(own_url(request, resources), app, request_id)
    answer = answers.state(views, urls, logs=_is_yes(logs))
    return JSONResponse(answer, status_code=200 if answer["status"] == "COMPLETED" else 202)


@router.get("/fal-ai/{app:path}/requests/{request_id}/status/stream", response_class=EventSourceResponse)
async def status_stream(
    app: str, request_id: str, request: Request, resources: ResourcesDep, caller: Caller, logs: Logs = "0"
) -> Response:
    """The same as events, at every change until it is over, or the key ends."""
    ids = [view.id for view in await resources.reader.request(request_id, caller.tenant)]
    resources.streams.check(caller.tenant)
    urls = _urls(own_url(request, resources), app, request_id)
    return streams.response(lambda stopping: _states(ids, urls, _is_yes(logs), resources, caller, stopping))


@router.get("/fal-ai/{app:path}/requests/{request_id}")
async def result(app: str, request_id: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """What a request came to."""
    views = await resources.reader.request(request_id, tenant)
    if not all(view.is_over for view in views):
        return JSONResponse({"detail": "Request is still in progress"}, status_code=400)
    try:
        answer = await answers.payload(views, own_url(request, resources))
    except (errors.ObjectsUnavailableError, errors.StoreUnavailableError):
        raise  # it is there, and can be had in a moment
    except errors.DarkroomError as exc:
        return answers.ended(exc, request_id)
    return JSONResponse(answer, headers={"x-fal-request-id": request_id})


@router.put("/fal-ai/{app:path}/requests/{request_id}/cancel")
async def cancel(app: str, request_id: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Cancel a request."""
    try:
        views = await resources.reader.request(request_id, tenant)
    except errors.NotFoundError:
        return JSONResponse({"status": "NOT_FOUND"}, status_code=404)
    outcomes = [await resources.archive.cancel(view.id, tenant) for view in views]
    if "cancelled" not in outcomes:
        return JSONResponse({"status": "ALREADY_COMPLETED"}, status_code=400)
    if all(view.generation.status is generations.Status.QUEUED for view in views):
        return JSONResponse({"status": "OK"})
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, status_code=202)


@router.get("/.well-known/jwks.json")
async def keys(resources: ResourcesDep) -> Response:
    """What webhooks are signed with, as a public key."""
    public = resources.signatures.ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "darkroom"}
    return JSONResponse({"keys": [{**key, "x": base64.urlsafe_b64encode(public).decode().rstrip("=")}]})


async def _submitted(
    app: str,
    request: Request,
    resources: Resources,
    caller: access.Caller,
    *,
    webhook: submissions.Webhook | None = None,
    low_priority: bool = False,
    start_timeout: float | None,
    idempotency_key: str | None,
) -> Accepted:
    known = resources.catalog
    alias = _alias_of(app, known)
    name = known.name_of(alias)
    body = await bodies.read(request)
    sent = asking.Input.check(body.fields)
    submission = await asking.submission_of(
        body,
        sent,
        name=name,
        alias=alias,
        known=known,
        webhook=webhook,
        low_priority=low_priority,
        start_timeout=start_timeout,
        idempotency_key=idempotency_key,
    )
    return await base.submitted(request, resources, submission, caller, names=asking.names(sent), named=name)


MODES = ("edit", "multi", "inpaint", "image-to-image", "text-to-image", "lora", "max", "base", "turbo", "flash")
"""Ends of an app's path that say how its model is used, which here its arguments do, and editions of it that are one here."""


def _alias_of(app: str, known: catalog.Catalog) -> str:
    """`fal-ai/flux-kontext/dev` and the like, or a model's own name; without what says how it is used."""
    parts = app.split("/")
    while parts:
        for alias in (f"fal-ai/{'/'.join(parts)}", "/".join(parts)):
            if known.has(alias):
                return alias
        if parts[-1] not in MODES:
            break
        parts.pop()
    return known.name_of(app)


def _urls(own: str, app: str, request_id: str) -> dict[str, str]:
    # What follows an app's name is no part of where its requests are.
    url = f"{own}/fal-ai/{app.split('/')[0]}/requests/{request_id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


def _is_yes(logs: str) -> bool:
    return logs in ("1", "true", "True")


async def _states(
    ids: list[str],
    urls: Mapping[str, str],
    logs: bool,
    resources: Resources,
    caller: access.Caller,
    stopping: anyio.Event,
) -> AsyncIterator[bytes]:
    with resources.streams.counted(caller.tenant):
        happenings = resources.waiter.happenings(ids, caller.tenant, stopping=stopping)
        async with contextlib.aclosing(happenings):
            async for _ in happenings:
                try:
                    if not await resources.keys.still(caller):
                        return
                    state = answers.state(await resources.reader.request(ids[0], caller.tenant), urls, logs=logs)
                except errors.TransientError as exc:
                    log.warning("%s: a state is told later: %s", ids[0], exc)
                    continue
                yield streams.frame(json.dumps(state))
                if state["status"] == "COMPLETED":
                    return
