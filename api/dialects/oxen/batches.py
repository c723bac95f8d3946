"""Batches: many edits in one request, a JSON object a line; then how far they are, cancel, retry, and what became of each."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.oxen import answers, asking, contract, envelope
from api.http import bodies
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.http.middleware import release_body
from api.resources import Resources
from api.service import checks, rights
from api.service.pacing import sent_bytes
from storage.contracts import access, batches, errors, submissions

router = APIRouter(prefix="/api/ai/batches", tags=["oxen"], responses=contract.PROBLEMS)

PAUSE_EVERY = 5
"""Lines that are looked at before other requests get their turn."""


@router.post("", status_code=202, openapi_extra=contract.BATCH, responses=contract.BATCH_MADE)
async def create(
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
    name: Annotated[str, Query(max_length=200)] = "",
    webhook_url: Annotated[str | None, Query(description="Called once all of it is over")] = None,
) -> Response:
    """Enqueue up to 10,000 edits: each line is a body of `POST /api/ai/queue` with a `custom_id` of its own.

    Lines that are no edits are refused, each with its reason; the others are submitted as there is room within the limits.
    """
    checks.idempotency_key(idempotency_key)
    raw = await request.body()
    # Before there is an object for each: of empty lines as many again may stand between, ended in two characters each.
    if raw.count(b"\n") + raw.count(b"\r") > 4 * batches.MAX_LINES:
        raise errors.InvalidInputError(f"The body must have 1 to {batches.MAX_LINES} lines")
    texts = [text for text in raw.splitlines() if text.strip()]
    if not texts or len(texts) > batches.MAX_LINES:
        message = f"The body must have 1 to {batches.MAX_LINES} lines, a JSON object each; got {len(texts)}"
        raise errors.InvalidInputError(message)
    webhook = base.webhook_of(webhook_url, "webhook_url", "oxen", base=own_url(request, resources))
    lines: list[batches.Line] = []
    known: set[str] = set()
    for number, text in enumerate(texts, 1):
        line = await _line(text, number, request, resources, caller)
        if line.custom_id in known:
            fault = batches.Fault(
                code="invalid_input", field="custom_id", message="custom_id: another line has this one"
            )
            # It needs a name of its own to be told of.
            line = batches.Line(custom_id=_name_of(number, line.custom_id), fault=fault)
        known.add(line.custom_id)
        lines.append(line)
        if number % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    release_body(request)
    if all(line.fault is not None for line in lines):
        first = lines[0].fault
        message = f"No line is an edit; the first: {first.message if first else ''}"
        raise errors.InvalidInputError(message, field=first.field if first else None)
    sent = sum(sent_bytes(line.submission) for line in lines if line.submission is not None)
    await resources.pacing.bytes(caller, sent)
    head = f"{name}\n{webhook_url}\n".encode()
    fingerprint = await asyncio.to_thread(lambda: hashlib.sha256(head + raw).hexdigest())
    batch = await resources.batches.create(
        lines,
        caller,
        name=name,
        webhook=webhook,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
    )
    told = [_told(batch, line, number) for number, line in enumerate(lines, 1)]
    return JSONResponse({**answers.batch(batch, resources.objects.signed_url), "lines": told}, status_code=202)


@router.get("", responses=contract.BATCHES)
async def list_(resources: ResourcesDep, tenant: Tenant, limit: Annotated[int, Query(ge=1, le=100)] = 50) -> Response:
    """The latest batches, newest first."""
    listed = await resources.batches.list(tenant, limit=limit)
    sign = resources.objects.signed_url
    # Each link takes half a millisecond to sign.
    told = await asyncio.to_thread(lambda: [answers.batch(one, sign) for one in listed])
    return JSONResponse({"batches": told})


@router.get("/{batch_id}", responses=contract.BATCH_READ)
async def read(batch_id: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """How far a batch is; once it is over, where its manifest is."""
    return await _answer(batch_id, resources, tenant)


@router.post("/{batch_id}/cancel", responses=contract.BATCH_READ)
async def cancel(batch_id: str, resources: ResourcesDep, caller: Caller, _: bodies.NoBody) -> Response:
    """Cancel what is not over; on a batch that is over this has no effect."""
    await resources.batches.change(batch_id, caller.tenant, "cancel")
    return await _answer(batch_id, resources, caller.tenant, reads=caller.reads)


@router.post("/{batch_id}/retry", responses=contract.BATCH_READ)
async def retry(batch_id: str, resources: ResourcesDep, caller: Caller, _: bodies.NoBody) -> Response:
    """Queue again what failed, and not for its parameters, under the same generation ids."""
    await resources.batches.change(batch_id, caller.tenant, "retry")
    return await _answer(batch_id, resources, caller.tenant, reads=caller.reads)


async def _answer(batch_id: str, resources: Resources, tenant: str, *, reads: bool = True) -> Response:
    told = answers.batch(await resources.batches.read(batch_id, tenant), resources.objects.signed_url)
    return JSONResponse(told if reads else {**told, "results": None})


def _name_of(number: int, custom_id: str = "") -> str:
    return f"line {number}{': ' if custom_id else ''}{custom_id}"[: batches.MAX_CUSTOM_ID]


async def _line(
    text: bytes, number: int, request: Request, resources: Resources, caller: access.Caller
) -> batches.Line:
    """A line as an edit, or why it is none."""
    custom_id = _name_of(number)
    try:
        fields = bodies.parsed(text, "line")
        custom_id = envelope.string(fields, "custom_id")
        submission = await _submission(fields, request, resources, caller)
    except errors.PermanentError as exc:
        fault = batches.Fault(code=exc.code, message=exc.message, field=getattr(exc, "field", None))
        return batches.Line(custom_id=custom_id, fault=fault)
    return batches.Line(custom_id=custom_id, submission=submission)


async def _submission(
    fields: Mapping[str, Any], request: Request, resources: Resources, caller: access.Caller
) -> submissions.Submission:
    if envelope.response_format(fields) != "url":
        raise errors.InvalidInputError("response_format must be url in a batch", field="response_format")
    submission = await asking.of_request(request, bodies.Body(fields=fields), resources, caller)
    if submission.count != 1:
        raise errors.InvalidInputError(
            "num_generations must be 1 in a batch: a line is one edit", field="num_generations"
        )
    checks.check(submission, resources.catalog, names=checks.NATIVE, may_be_unfiltered=caller.rights.unfiltered)
    resources.submitter.check_addresses(submission, caller.tenant)
    rights.applied(submission, caller.rights, resources.catalog)
    return submission


def _told(batch: batches.Batch, line: batches.Line, number: int) -> dict[str, Any]:
    told: dict[str, Any] = {"line": number, "custom_id": line.custom_id}
    if line.fault is not None:
        return {**told, "status": "refused", "error": line.fault.model_dump()}
    return {**told, "status": "accepted", "generation_id": batches.generation_id(batch.id, line.custom_id)}
