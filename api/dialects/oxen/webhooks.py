"""Webhooks: how the native API's are worded; and for those of every dialect what became of them, their secrets, and a test."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base, fields
from api.dialects.oxen import answers, contract
from api.dialects.oxen.keys import Rotation
from api.http import bodies
from api.http.access import Caller, ResourcesDep, Tenant
from api.http.hangups import unless_hung_up
from api.service.read import Reader, ResultView
from api.service.webhook_secrets import Secret
from api.webhooks.delivery import Message
from api.webhooks.signing import standard_webhook
from storage.contracts import batches, errors, submissions
from storage.contracts.values import Frozen
from storage.ledger import webhooks

router = APIRouter(prefix="/api/ai/webhooks", tags=["oxen"], responses=contract.PROBLEMS)


@router.get("", responses=contract.WEBHOOK_CALLS)
async def list_(
    resources: ResourcesDep,
    tenant: Tenant,
    generation_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The last calls (a thousand are kept, for eight days), the latest first; times in seconds since 1970."""
    attempts = await resources.ledger.run(webhooks.attempts(tenant, generation_id=generation_id, limit=limit))
    told = [
        {
            "at": one.at_ms / 1000,
            "generation_id": one.generation_id,
            "moment": one.moment,
            "attempt": one.attempt,
            "outcome": one.outcome,
            "duration_ms": one.took_ms,
            "next_at": None if one.next_ms is None else one.next_ms / 1000,
        }
        for one in attempts
    ]
    return JSONResponse({"calls": told})


@router.get("/secret", responses=contract.WEBHOOK_SECRETS)
async def read_secrets(resources: ResourcesDep, caller: Caller) -> Response:
    """What this tenant's webhooks are signed with (Standard Webhooks): the present secret, and after a change the one before.

    Not for keys that read alone: those who know the secret can forge such messages.
    """
    caller.check("submit")
    return JSONResponse(_told(await resources.webhook_secrets.of(caller.tenant)))


@router.post(
    "/secret/rotate",
    responses=contract.WEBHOOK_SECRETS,
    openapi_extra=fields.body(Rotation.model_json_schema()),
)
async def rotate(request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Sign with a new secret from now on, and for `overlap_s` (by default a day) with the present one, too."""
    overlap_s = (await fields.of_body(request, Rotation)).overlap_s
    return JSONResponse(_told(await resources.webhook_secrets.rotate(tenant, overlap_s=overlap_s)))


class Ping(Frozen):
    """Where to."""

    url: str


@router.post("/ping", responses=contract.WEBHOOK_PINGED, openapi_extra=fields.body(Ping.model_json_schema()))
async def ping(request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Call a URL with a signed message of the type `ping`, and say what it answered."""
    sent = await fields.of_body(request, Ping)
    webhook = base.webhook_of(sent.url, "url", "oxen", base="")
    if webhook is None:
        raise errors.InvalidInputError("url is required", field="url")
    message = _message(
        "ping", {}, f"ping-{time.time_ns()}", [one.key for one in await resources.webhook_secrets.of(tenant)]
    )
    sending = resources.pings.send(tenant, webhook.url, message.body, message.headers)
    outcome = await unless_hung_up(request, sending)
    told = {"outcome": outcome.text, "status": outcome.status, "duration_ms": outcome.took_ms}
    return JSONResponse(told)


@router.post("/{generation_id}/redeliver", status_code=202, responses=contract.WEBHOOK_DUE)
async def redeliver(generation_id: str, resources: ResourcesDep, tenant: Tenant, _: bodies.NoBody) -> Response:
    """Call the webhook of a generation that is over once more, with all its tries."""
    await resources.archive.change(webhooks.redeliver(generation_id, tenant), generation_id, tenant)
    return JSONResponse({"status": "due", "generation_id": generation_id}, status_code=202)


async def wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    """A native webhook: what happened, and all generations of the request as a poll tells them."""
    views = await reader.request(view.id, view.generation.tenant) if moment == "completed" else [view]
    webhook = view.generation.submission.webhook
    base_url = webhook.base if webhook else ""
    told = {"generations": [answers.generation(one, base_url) for one in views]}
    type_ = "media_generation_started" if moment == "start" else "media_generation_completed"
    return _message(type_, told, view.generation.webhook_id(moment), keys)


async def batch_wording(batch: batches.Batch, sign: answers.Sign, keys: Sequence[bytes]) -> Message:
    """A batch's webhook: what a poll tells of it."""
    return _message("media_batch_completed", answers.batch(batch, sign), f"{batch.id}-{batch.completed_ms}", keys)


def _message(type_: str, data: Mapping[str, object], id_: str, keys: Sequence[bytes]) -> Message:
    now = time.time()
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body = json.dumps({"type": type_, "timestamp": at, "data": data}).encode()
    return Message(body=body, headers=standard_webhook(keys, id_=id_, body=body, now=now))


def _told(secrets: Sequence[Secret]) -> dict[str, object]:
    told = [
        {"secret": one.text, "expires_at": None if one.until_ms is None else one.until_ms / 1000} for one in secrets
    ]
    return {"secrets": told}
