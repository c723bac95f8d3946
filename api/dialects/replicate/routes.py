"""Replicate's routes: predictions, versions, uploads."""

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.replicate import answers, asking
from api.http import bodies, downloads
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.resources import Resources
from storage.contracts import access, errors
from storage.ledger import records

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
) -> Response:
    """Predictions, newest first."""
    views, continue_below = await resources.reader.page(tenant, matching={}, below=cursor, limit=100, active_only=False)
    own = own_url(request, resources)
    further = f"{own}/v1/predictions?cursor={continue_below}" if continue_below else None
    results = [answers.prediction(view, own) for view in views]
    return JSONResponse({"previous": None, "next": further, "results": results})


@router.get("/predictions/{id_}")
async def get(id_: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """One prediction."""
    view = await resources.reader.one(id_, tenant)
    return JSONResponse(answers.prediction(view, own_url(request, resources)))


@router.post("/predictions/{id_}/cancel")
async def cancel(id_: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Cancel a prediction; on one that is over this has no effect."""
    await resources.ledger.run(records.cancel(id_, tenant))
    return await get(id_, request, resources, tenant)


@router.get("/models/{owner}/{name}/versions/{version}")
async def version(owner: str, name: str, version: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """A version: the model as it is here, with the schema of its inputs."""
    model = _model_of(f"{owner}/{name}", resources)
    return JSONResponse(answers.version(model, resources.catalog.models[model]))


@router.post("/files", status_code=201)
async def upload(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Keep a picture for a day, to be named in an input by its URL."""
    body = await bodies.read(request, files=("content", "metadata"))
    files = body.files.get("content", ())
    if len(files) != 1:
        raise errors.InvalidInputError("content is required: one uploaded picture", field="content")
    await resources.submitter.pace_bytes(caller, len(files[0]))
    key, picture = await downloads.upload(resources, caller.tenant, files[0], "content")
    now = datetime.now(UTC)
    until = now + timedelta(seconds=downloads.UPLOAD_LIFETIME_S)
    digest = hashlib.sha256(files[0]).hexdigest()
    return JSONResponse(
        {
            "id": key.rpartition("/")[2],
            "name": key.rpartition("/")[2],
            "content_type": picture.header.content_type,
            "size": len(files[0]),
            "etag": digest[:32],
            "checksums": {"sha256": digest},
            "metadata": {},
            "created_at": answers.iso(now.timestamp() * 1000),
            "expires_at": answers.iso(until.timestamp() * 1000),
            "urls": {"get": resources.signatures.download_url(own_url(request, resources), key, until)},
        },
        status_code=201,
    )


@router.get("/webhooks/default/secret")
async def webhook_secret(resources: ResourcesDep, caller: Caller) -> Response:
    """What this key's webhooks are signed with (Standard Webhooks)."""
    caller.check("submit")
    present, *_ = await resources.webhook_secrets.of(caller.tenant)
    return JSONResponse({"key": present.text})


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
    name = _model_of(named, resources)
    submission = await asking.submission_of(
        body,
        name=name,
        model=resources.catalog.models[name],
        own=own,
        cancel_after=cancel_after,
        idempotency_key=idempotency_key,
    )
    id_ = (await resources.submitter.submit(submission, caller, names=asking.NAMES)).ids[0]
    if not wait_s:
        return JSONResponse(answers.prediction(await resources.reader.one(id_, caller.tenant), own), status_code=201)
    keep = idempotency_key is not None
    view = await base.waited(request, resources, id_, caller.tenant, seconds=wait_s, keep=keep)
    answer = answers.prediction(view, own)
    if not view.is_over:
        # Clients take `processing` for the end of a wait that came to something.
        answer["status"] = "starting"
    return JSONResponse(answer, status_code=201)


def _model_of(named: str, resources: Resources) -> str:
    """A model by `owner/name`, `owner/name:version`, its name alone, or a version that was handed out."""
    plain = named.partition(":")[0]
    if re.fullmatch(r"[0-9a-f]{64}", plain):
        for name in resources.catalog.models:
            if answers.version_of(name) == plain:
                return name
    try:
        return resources.catalog.name_of(plain)
    except errors.ModelNotFoundError:
        return resources.catalog.name_of(plain.rpartition("/")[2])
