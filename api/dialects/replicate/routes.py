"""Replicate's routes of predictions; models, files and accounts are in `library`."""

import asyncio
import math
import urllib.parse
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.replicate import answers, asking, library
from api.http import bodies
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.http.remarks import VERSION, remark
from api.resources import Resources
from api.service.read import ResultView
from storage.contracts import access, errors

router = APIRouter(prefix="/v1", tags=["replicate"])

Prefer = Annotated[str, Header()]
CancelAfter = Annotated[str | None, Header()]


@router.post("/predictions", status_code=201, openapi_extra=asking.Prediction.body())
async def create(
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    prefer: Prefer = "",
    cancel_after: CancelAfter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start a prediction of a version or a model; with `Prefer: wait=n` be answered when it is over or n seconds are."""
    body = (await bodies.read(request)).fields
    named = body.get("version") or body.get("model")
    if not isinstance(named, str):
        raise errors.InvalidInputError("version is required", field="version")
    return await _created(named, body, request, resources, caller, prefer, cancel_after, idempotency_key)


@router.post("/models/{owner}/{name}/predictions", status_code=201, openapi_extra=asking.Prediction.body())
@router.post("/deployments/{owner}/{name}/predictions", status_code=201, openapi_extra=asking.Prediction.body())
async def create_of_model(
    owner: str,
    name: str,
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    prefer: Prefer = "",
    cancel_after: CancelAfter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The same, of a model or a deployment."""
    body = (await bodies.read(request)).fields
    named = f"{owner}/{name}"
    return await _created(named, body, request, resources, caller, prefer, cancel_after, idempotency_key)


@router.get("/predictions")
async def list_(
    request: Request,
    resources: ResourcesDep,
    tenant: Tenant,
    cursor: Annotated[str | None, Query(pattern="^[0-9]{1,16}$")] = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
    source: Literal["web"] | None = None,
) -> Response:
    """Predictions, newest first, that were made at `created_after` or later, and before `created_before`.

    None was made in Replicate's web interface, which `source` asks for.
    """
    if source is not None:
        return JSONResponse({"previous": None, "next": None, "results": []})
    since = _ms(created_after) if created_after else 0.0
    until = _ms(created_before) if created_before else math.inf
    views, continue_below = await resources.reader.page(tenant, matching={}, below=cursor, limit=100, active_only=False)
    if views and views[-1].generation.times.created_ms < since:
        continue_below = None
    views = [view for view in views if since <= view.generation.times.created_ms < until]
    own, asked = own_url(request, resources), {"cursor": continue_below, **_dates(created_after, created_before)}
    further = f"{own}/v1/predictions?{urllib.parse.urlencode(asked)}" if continue_below else None
    whole = await asyncio.gather(*(_whole(view, resources) for view in views if _is_first(view)))
    # Each link takes half a millisecond to sign.
    results = await asyncio.to_thread(lambda: [answers.prediction(one, own) for one in whole])
    return JSONResponse({"previous": None, "next": further, "results": results})


def _ms(at: datetime) -> float:
    """Since 1970; without a time zone it is UTC."""
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000


def _dates(after: datetime | None, before: datetime | None) -> dict[str, str]:
    named = {"created_after": after, "created_before": before}
    return {name: at.isoformat() for name, at in named.items() if at is not None}


@router.get("/predictions/{id_}")
async def get(id_: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """One prediction."""
    views = await resources.reader.request(id_, tenant)
    return JSONResponse(answers.prediction(views, own_url(request, resources)))


@router.post("/predictions/{id_}/cancel")
async def cancel(id_: str, request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Cancel a prediction; on one that is over this has no effect."""
    for view in await resources.reader.request(id_, caller.tenant):
        await resources.archive.cancel(view.id, caller.tenant)
    views = await resources.reader.request(id_, caller.tenant)
    told = answers.prediction(views, own_url(request, resources))
    return JSONResponse(told if caller.reads else {name: told[name] for name in ("id", "status", "urls")})


@router.get("/webhooks/default/secret")
async def webhook_secret(resources: ResourcesDep, caller: Caller) -> Response:
    """What this key's webhooks are signed with (Standard Webhooks)."""
    caller.check("submit")
    present, *_ = await resources.webhook_secrets.of(caller.tenant)
    return JSONResponse({"key": present.text})


def _is_first(view: ResultView) -> bool:
    return view.generation.siblings[:1] in ((), (view.id,))


async def _whole(view: ResultView, resources: Resources) -> list[ResultView]:
    """All of a prediction that has several pictures."""
    return await resources.reader.request(view.id, view.generation.tenant) if view.generation.siblings else [view]


async def _created(
    named: str,
    body: Mapping[str, Any],
    request: Request,
    resources: Resources,
    caller: access.Caller,
    prefer: str,
    cancel_after: str | None,
    idempotency_key: str | None,
) -> Response:
    wait_s, own = asking.wait_s(prefer), own_url(request, resources)
    model = library.found(named, resources.catalog)
    if not model.is_served_version:
        remark(request, VERSION, [answers.version_of(model.name)])
    submission = await asking.submission_of(
        body,
        name=model.name,
        alias=model.alias,
        known=resources.catalog,
        own=own,
        cancel_after=cancel_after,
        idempotency_key=idempotency_key,
    )
    names = asking.names(body["input"])
    accepted = await base.submitted(request, resources, submission, caller, names=names, named=model.name)
    if not wait_s:
        return JSONResponse(answers.prediction(await resources.reader.accepted(accepted), own), status_code=201)
    keep = idempotency_key is not None
    views = await base.waited(request, resources, accepted, seconds=wait_s, keep=keep)
    answer = answers.prediction(views, own)
    if answer["completed_at"] is None:
        # Clients take `processing` for the end of a wait that came to something.
        answer["status"] = "starting"
    return JSONResponse(answer, status_code=201)
