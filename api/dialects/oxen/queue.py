"""The native queue: enqueue, list, poll, replay, cancel, follow; and the blocking call."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.oxen import answers, asking, contract, envelope
from api.http import bodies
from api.http.access import (
    Caller,
    CancellingCaller,
    IdempotencyKey,
    ResourcesDep,
    SubmittingCaller,
    Tenant,
    ViewingTenant,
    own_url,
    still,
)
from api.http.hangups import unless_hung_up
from api.resources import Resources
from api.service.accepted import Accepted
from api.service.checks import NATIVE
from api.service.read import ResultView
from storage.contracts import access, errors, generations, submissions

POLL_AGAIN_S, LONGEST_AGAIN_S = 1, 30
"""Suggested to pollers of what is not terminal yet, at the least and at the most."""

router = APIRouter(tags=["oxen"], responses=contract.PROBLEMS)


def _page(after: str | None) -> str | None:
    if after is not None and not (after.isascii() and after.isdecimal() and len(after) <= 16):
        raise ValueError("must be the `next` of the page before")
    return after


@router.post("/api/ai/queue", openapi_extra=contract.ENQUEUE, responses=contract.ENQUEUED)
async def enqueue(
    request: Request,
    resources: ResourcesDep,
    caller: SubmittingCaller,
    idempotency_key: IdempotencyKey = None,
    validate: Literal["early", "late"] = "early",
) -> Response:
    """Enqueue one to four generations of an edit."""
    body = await bodies.read(request, files=envelope.PICTURES)
    if envelope.response_format(body.fields) != "url":
        message = (
            "response_format must be url here: queued results are downloaded; /api/ai/images/edit returns b64_json"
        )
        raise errors.InvalidInputError(message, field="response_format")
    submission = await _submission(request, body, resources, caller, idempotency_key, late=validate == "late")
    accepted = await base.submitted(request, resources, submission, caller, names=NATIVE)
    answer = answers.accepted(accepted)
    if submission.pins:
        answer["waiting_for_worker"] = not accepted.is_served
    return _accepted(accepted, answer, idempotency_key)


def _accepted(accepted: Accepted, answer: Mapping[str, Any], idempotency_key: str | None) -> Response:
    headers = {"Idempotent-Replayed": "true"} if accepted.replayed and idempotency_key else None
    return JSONResponse(answer, headers=headers)


async def _submission(
    request: Request,
    body: bodies.Body,
    resources: Resources,
    caller: access.Caller,
    idempotency_key: str | None,
    *,
    late: bool,
) -> submissions.Submission:
    parent = body.fields.get("parent_generation_id")
    if parent:
        try:
            await resources.tokens.check_own(caller, str(parent))
        except errors.NotFoundError:
            raise asking.no_parent(str(parent)) from None
    return await asking.of_request(request, body, resources, caller, idempotency_key=idempotency_key, late=late)


@router.get("/api/ai/queue", responses=contract.LISTED)
async def list_generations(
    request: Request,
    resources: ResourcesDep,
    tenant: Tenant,
    namespace: str | None = None,
    model: str | None = None,
    status: generations.Status | Literal["all"] | None = None,
    group: str | None = None,
    search: Annotated[str | None, Query(max_length=200, description="Words that the prompt has")] = None,
    media_type: str | None = None,
    repo: str | None = None,
    folder: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, AfterValidator(_page)] = None,
) -> Response:
    """List generations, newest first: the unfinished ones, or with `status` those in it. `next` is the next page's `after`."""
    if repo or folder or media_type not in (None, "image"):
        # Generations here are pictures and belong to no repository.
        return JSONResponse({"count": 0, "generations": [], "next": None})
    if model is not None:
        with contextlib.suppress(errors.ModelNotFoundError):
            model = resources.catalog.name_of(model)
    named = status.value if isinstance(status, generations.Status) else None
    wanted = {"namespace": namespace, "model": model, "status": named, "group": group}
    views, continue_below = await resources.reader.page(
        tenant,
        matching={name: value for name, value in wanted.items() if value},
        below=after,
        limit=limit,
        active_only=status is None or (isinstance(status, generations.Status) and not status.terminal),
        words=search or "",
    )
    # Each has up to three URLs to be signed: two hundred of them would hold up everybody else.
    base_url = own_url(request, resources)
    listed = await asyncio.to_thread(lambda: [answers.generation(view, base_url) for view in views])
    return JSONResponse({"count": len(listed), "generations": listed, "next": continue_below})


@router.get("/api/ai/queue/{generation_id}", responses=contract.POLLED)
async def read_generation(
    request: Request,
    generation_id: str,
    resources: ResourcesDep,
    tenant: ViewingTenant,
    wait: Annotated[float, Query(ge=0, description="Seconds to wait for a terminal state")] = 0,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Poll one generation; with `wait`, be answered when it is terminal or the seconds are over."""
    if wait > 0:
        deadline = time.monotonic() + min(wait, resources.settings.longest_wait_s)
        over = resources.waiter.until_over(generation_id, tenant, deadline=deadline)
        view = await unless_hung_up(request, over)
        await still(request, resources)
    else:
        view = await resources.reader.one(generation_id, tenant)
    # Estimated from memory: a poll stays one read.
    eta_ms = await resources.forecasts.eta_ms(view.generation)
    headers = {"ETag": view.generation.etag}
    if not view.is_over:
        headers["Retry-After"] = str(_again_s(eta_ms))
    if if_none_match == view.generation.etag:
        return Response(status_code=304, headers=headers)
    waiting = await resources.forecasts.waiting_for(view.generation)
    told = {"eta_ms": eta_ms, "waiting_for": dataclasses.asdict(waiting) if waiting else None}
    return JSONResponse({**answers.generation(view, own_url(request, resources)), **told}, headers=headers)


def _again_s(eta_ms: int | None) -> int:
    """Halfway to the likely end, so that little is asked in vain and little time is lost."""
    return POLL_AGAIN_S if eta_ms is None else max(POLL_AGAIN_S, min(LONGEST_AGAIN_S, eta_ms // 2000))


@router.post("/api/ai/queue/{generation_id}/replay", responses=contract.ENQUEUED)
async def replay(
    generation_id: str,
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    _: bodies.NoBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run a generation again: same pictures, parameters and seed. Its inputs are kept as long as its result."""
    view = await resources.reader.one(generation_id, caller.tenant)
    submission = asking.replay_of(view, known=resources.catalog, idempotency_key=idempotency_key)
    accepted = await base.submitted(request, resources, submission, caller, names=NATIVE)
    return _accepted(accepted, answers.accepted(accepted), idempotency_key)


@router.post("/api/ai/queue/{generation_id}/retry", responses=contract.POLLED)
async def retry(
    request: Request, generation_id: str, resources: ResourcesDep, caller: Caller, _: bodies.NoBody
) -> Response:
    """Queue a failed generation again, under the same id."""
    await resources.submitter.retry(generation_id, caller)
    view = await resources.reader.one(generation_id, caller.tenant)
    told = answers.generation(view, own_url(request, resources))
    return JSONResponse(told if caller.reads else {name: told[name] for name in ("generation_id", "status")})


@router.delete("/api/ai/queue/{generation_id}", responses=contract.CANCELLED)
async def cancel_generation(
    generation_id: str, resources: ResourcesDep, caller: CancellingCaller, erase: bool = False
) -> Response:
    """Cancel a queued or processing generation, or with `erase` forget any: record, prompt, pictures and events.

    On a terminal one cancelling has no effect, which `effect` says.
    """
    if erase:
        if caller.token_id is not None:
            raise errors.ForbiddenError("A token for submitting may cancel its edits, not erase them")
        erased = await resources.eraser.one(generation_id, caller.tenant)
        return JSONResponse(answers.erased(erased) | {"generation_id": generation_id})
    outcome = await resources.archive.cancel(generation_id, caller.tenant)
    effect = "cancelled" if outcome == "cancelled" else "none"
    return JSONResponse({"status": "success", "generation_id": generation_id, "effect": effect})


@router.delete("/api/ai/queue", responses=contract.ERASED)
async def erase_everything(resources: ResourcesDep, tenant: Tenant, erase: Literal["everything"]) -> Response:
    """Forget all that this tenant ever asked for and was given; what is unfinished is cancelled. Counts and costs stay."""
    return JSONResponse(answers.erased(await resources.eraser.everything(tenant)))


@router.post("/api/ai/images/generate", openapi_extra=contract.EDIT, responses=contract.EDITED)
@router.post("/api/ai/images/edit", openapi_extra=contract.EDIT, responses=contract.EDITED)
async def edit_and_wait(
    request: Request, resources: ResourcesDep, caller: SubmittingCaller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Edit a picture, or make one of a prompt alone where the model can, and wait for it.

    A client that hangs up cancels its edit, unless it sent an `Idempotency-Key`.
    """
    body = await bodies.read(request, files=envelope.PICTURES)
    wanted = envelope.response_format(body.fields)
    submission = await _submission(request, body, resources, caller, idempotency_key, late=False)
    accepted = await base.submitted(request, resources, submission, caller, names=NATIVE)
    # A client that hangs up may send its idempotency key again, and then wants the edit.
    views = await base.finished(request, resources, accepted, caller.tenant, keep=idempotency_key is not None)
    images = [await _image(view, wanted) for view in views]
    return JSONResponse(answers.blocking(views, images))


async def _image(view: ResultView, wanted: envelope.ResponseFormat) -> Mapping[str, Any]:
    view.made()
    return {"url": view.url} if wanted == "url" else {"b64_json": await view.base64()}
