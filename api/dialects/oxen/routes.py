"""The native API's routes."""

import base64
import contextlib
import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, budgets, drafts, forecasts, problems, routing, submission, waiting
from api.access import Held, IdempotencyKey, Tenant
from api.dialects.oxen import answers, asking, contract, stream
from api.resources import Resources
from storage.contracts import errors, events, generations, parameters
from storage.contracts.geometry import Canvas, Size
from storage.ledger import records, usage

POLL_AGAIN_S = 1
"""Suggested to pollers of what is not terminal yet."""


router = APIRouter(tags=["oxen"], responses=contract.PROBLEMS)


@router.post("/api/ai/queue", openapi_extra=contract.ENQUEUE, responses=contract.ENQUEUED)
async def enqueue(
    request: Request,
    held: Held,
    tenant: Tenant,
    idempotency_key: IdempotencyKey = None,
    validate: Annotated[str, Query(pattern="^(early|late)$")] = "early",
) -> Response:
    """Enqueue one to four generations of an edit."""
    body = await bodies.read(request, files=asking.PICTURES)
    if asking.response_format(body.fields) != "url":
        message = (
            "response_format must be url here: queued results are downloaded; /api/ai/images/edit returns b64_json"
        )
        raise errors.InvalidInputError(message, field="response_format")
    asked = await _asked(body, held, tenant, idempotency_key, late=validate == "late")
    receipt = await held.submission.submit(asked)
    answer = answers.accepted(receipt)
    if routing.pins_of(asked.submitted):
        answer["waiting_for_worker"] = not asked.route.is_served
    return _accepted(receipt, answer, idempotency_key)


def _accepted(receipt: records.Receipt, answer: Mapping[str, Any], idempotency_key: str | None) -> Response:
    headers = {"Idempotent-Replayed": "true"} if receipt.replayed and idempotency_key else None
    return JSONResponse(answer, headers=headers)


def _bounds(held: Resources, tenant: str) -> asking.Bounds:
    settings = held.settings
    return asking.Bounds(
        queue_ttl_s=settings.queue_ttl_s,
        execution_limit_s=settings.execution_limit_s,
        unfiltered=tenant in settings.unfiltered_tenants,
    )


def _routed(held: Resources) -> asking.Routed:
    return functools.partial(routing.routed, known=held.catalog, forecasts=held.forecasts)


async def _asked(
    body: bodies.Body, held: Resources, tenant: str, idempotency_key: str | None, *, late: bool
) -> submission.Request:
    return await asking.request_of(
        body,
        tenant=tenant,
        known=held.catalog,
        bounds=_bounds(held, tenant),
        read=lambda id_: held.ledger.run(records.read(id_, tenant)),
        routed=_routed(held),
        idempotency_key=idempotency_key,
        late=late,
    )


@router.get("/api/ai/queue", responses=contract.LISTED)
async def list_generations(
    held: Held,
    tenant: Tenant,
    namespace: str | None = None,
    model: str | None = None,
    status: generations.Status | None = None,
    media_type: str | None = None,
    repo: str | None = None,
    folder: str | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(pattern="^[0-9]{1,16}$")] = None,
) -> Response:
    """List generations, newest first: the unfinished ones, or with `status` those in it. `next` is the next page's `after`."""
    if repo or folder or media_type not in (None, "image"):
        # Generations here are pictures and belong to no repository.
        return JSONResponse({"count": 0, "generations": [], "next": None})
    if model is not None:
        with contextlib.suppress(errors.ModelNotFoundError):
            model = held.catalog.name_of(model)
    wanted = {"namespace": namespace, "model": model, "status": status.value if status else None}
    page = await held.ledger.run(
        records.list_(
            tenant,
            matching={name: value for name, value in wanted.items() if value},
            below=after,
            limit=limit,
            active_only=status is None or not status.terminal,
        )
    )
    found = [answers.generation(one, held.catalog, held.objects.signed_url) for one in page.generations]
    return JSONResponse({"count": len(found), "generations": found, "next": page.continue_below})


@router.get("/api/ai/queue/{generation_id}", responses=contract.POLLED)
async def read_generation(
    generation_id: str,
    held: Held,
    tenant: Tenant,
    wait: Annotated[float, Query(ge=0, description="Seconds to wait for a terminal state")] = 0,
    if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None,
) -> Response:
    """Poll one generation; with `wait`, be answered when it is terminal or the seconds are over."""
    if wait > 0:
        deadline = time.monotonic() + min(wait, held.settings.longest_wait_s)
        found = await waiting.until_terminal(generation_id, tenant, hub=held.hub, ledger=held.ledger, deadline=deadline)
    else:
        found = await held.ledger.run(records.read(generation_id, tenant))
    headers = {"ETag": found.etag}
    if not found.status.terminal:
        headers["Retry-After"] = str(POLL_AGAIN_S)
    if if_none_match == found.etag:
        return Response(status_code=304, headers=headers)
    answer = answers.generation(found, held.catalog, held.objects.signed_url)
    # From memory: a poll stays one read.
    return JSONResponse({**answer, "eta_ms": await held.forecasts.eta_ms(found)}, headers=headers)


@router.post("/api/ai/queue/{generation_id}/replay", responses=contract.ENQUEUED)
async def replay(generation_id: str, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None) -> Response:
    """Run a generation again: same pictures, parameters and seed. Its inputs are kept as long as its result."""
    found = await held.ledger.run(records.read(generation_id, tenant))
    bounds = _bounds(held, tenant)
    again = await asking.replay_of(
        found, known=held.catalog, bounds=bounds, routed=_routed(held), idempotency_key=idempotency_key
    )
    receipt = await held.submission.submit(again)
    return _accepted(receipt, answers.accepted(receipt), idempotency_key)


@router.delete("/api/ai/queue/{generation_id}", responses=contract.CANCELLED)
async def cancel_generation(generation_id: str, held: Held, tenant: Tenant) -> Response:
    """Cancel a queued or processing generation; on a terminal one this has no effect."""
    if await held.ledger.run(records.cancel(generation_id, tenant)) == "missing":
        raise errors.NotFoundError("The requested resource could not be found")
    return JSONResponse({"status": "success", "generation_id": generation_id})


@router.get("/api/events", response_class=EventSourceResponse, responses=contract.STREAMED)
async def stream_events(
    held: Held,
    tenant: Tenant,
    generation_id: str | None = None,
    types: Annotated[str | None, Query(description="Event types, separated by commas")] = None,
    since: Annotated[str | None, Query(description="A cursor to continue after")] = None,
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """Server-sent events of this key's generations."""
    cursor = last_event_id or since
    if cursor:
        try:
            events.order(cursor)
        except ValueError as exc:
            raise errors.InvalidInputError(f"since: {exc}", field="since") from None
    wanted = None
    if types:
        try:
            wanted = frozenset(events.EventType(name.strip()) for name in types.split(","))
        except ValueError:
            known = ", ".join(events.EventType)
            raise errors.InvalidInputError(f"types must be of {known}", field="types") from None
    held.streams.check(tenant)
    return stream.Stream(
        tenant=tenant,
        since=cursor or None,
        replay_s=held.settings.replay_s,
        wants=stream.Filter(generation_id=generation_id, types=wanted),
        log=held.event_log,
        hub=held.hub,
        sign=held.objects.signed_url,
        open_streams=held.streams,
    ).response()


@router.post("/api/ai/images/edit", openapi_extra=contract.EDIT, responses=contract.EDITED)
async def edit_and_wait(
    request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None
) -> Response:
    """Edit a picture and wait for it. A client that hangs up cancels its edit, unless it sent an `Idempotency-Key`."""
    body = await bodies.read(request, files=asking.PICTURES)
    wanted = asking.response_format(body.fields)
    asked = await _asked(body, held, tenant, idempotency_key, late=False)
    receipt = await held.submission.submit(asked)
    # Whoever hangs up with a key may come back with it, and then wants the edit.
    finished = await waiting.all_terminal(request, receipt, tenant, held, keep=idempotency_key is not None)
    if finished is None:
        return Response(status_code=499)
    images = [await _image(found, wanted, held) for found in finished]
    return JSONResponse(answers.blocking(finished, images))


async def _image(found: generations.Generation, wanted: asking.ResponseFormat, held: Resources) -> Mapping[str, Any]:
    if found.status is generations.Status.CANCELLED:
        raise errors.CancelledError("The generation was cancelled")
    if found.result is None or found.times.expires_at is None:
        raise problems.of_failure(found.error_code, found.error_message)
    if wanted == "url":
        return {"url": held.objects.signed_url(found.result.key, found.times.expires_at)}
    return {"b64_json": base64.b64encode(await held.objects.get(found.result.key)).decode()}


@router.post("/api/ai/verify", responses=contract.VERIFIED)
async def verify(request: Request, held: Held, tenant: Tenant) -> Response:
    """Tell what an uploaded picture's content credentials say, and whether it came from here."""
    body = await bodies.read(request, files=("image",))
    file = next(iter(body.files.get("image", ())), None)
    value = body.fields.get("image")
    if file is not None:
        picture = await bodies.picture(file, "image")
    elif isinstance(value, str) and value.startswith("data:"):
        picture = await bodies.picture_of_data_uri(value, "image")
    else:
        raise errors.InvalidInputError("image is required: an uploaded file or a data URI", field="image")
    return JSONResponse(answers.credentials(await held.credentials(picture.data, picture.header.content_type)))


@router.get("/api/ai/fleet", responses=contract.FLEET)
async def read_fleet(held: Held, tenant: Tenant) -> Response:
    """The workers that are there: GPU type, models with their state, and whether they work."""
    return JSONResponse({"workers": answers.fleet(await held.forecasts.fleet())})


@router.get("/api/ai/usage", responses=contract.USAGE)
async def read_usage(
    held: Held, tenant: Tenant, month: Annotated[str | None, Query(pattern="^[0-9]{4}-[0-9]{2}$")] = None
) -> Response:
    """What this key used in a month (`2026-11`, by UTC; by default the present one), by model, and its budget."""
    month = month or budgets.month()
    used = await held.ledger.run(usage.usage(tenant, month))
    return JSONResponse(answers.usage(month, used, held.budgets.of(tenant)))


@router.get("/api/ai/models", responses=contract.MODELS)
async def list_models(held: Held, tenant: Tenant, developer_name: str | None = None) -> Response:
    """Every model, with the schema its requests are checked against."""
    return _models(held, lambda _, model: developer_name in (None, model["developer"]["name"]))


@router.get("/api/ai/models/search", responses=contract.MODELS)
async def search_models(held: Held, tenant: Tenant, search: str = "") -> Response:
    """Models whose name or summary contains the words."""
    words = search.lower().split()
    return _models(
        held,
        lambda name, model: all(word in f"{name} {model['display_name']} {model['summary']}".lower() for word in words),
    )


def _models(held: Resources, wanted: Any) -> Response:
    found = [(name, answers.model(name, model)) for name, model in held.catalog.models.items()]
    return JSONResponse({"object": "list", "data": [model for name, model in found if wanted(name, model)]})


@router.get("/api/ai/models/{model_id:path}/placement", responses=contract.PLACEMENTS)
async def plan_placement(
    model_id: str,
    held: Held,
    tenant: Tenant,
    gpu_type: str | None = None,
    profile: Literal["exact", "fast"] | None = None,
) -> Response:
    """How a model runs on a GPU type, or on each: the best execution plan that fits, with its sums in GB.

    Sums are of the published weights; where stand-ins are loaded instead, `stand_in` says so.
    """
    known = held.catalog
    name = known.profiled(model_id, profile) if profile else known.name_of(model_id)
    if gpu_type is not None and gpu_type not in known.gpu_types:
        message = f"gpu_type must be one of {', '.join(known.gpu_types)}; got {parameters.shown(gpu_type)}"
        raise errors.InvalidInputError(message, field="gpu_type")
    plans = [answers.placement(known, name, one) for one in ([gpu_type] if gpu_type else known.gpu_types)]
    stand_in = known.models[name].weights.memory is not None
    return JSONResponse({"model": name, "stand_in": stand_in, "placements": plans})


@router.get("/api/ai/models/{model_id:path}/estimate", responses=contract.ESTIMATES)
async def estimate_edit(
    model_id: str,
    held: Held,
    tenant: Tenant,
    gpu_type: str | None = None,
    region: str | None = None,
    num_inference_steps: Annotated[int | None, Query(ge=1, le=200)] = None,
    width: Annotated[int | None, Query(ge=16, le=8192)] = None,
    height: Annotated[int | None, Query(ge=16, le=8192)] = None,
    references: Annotated[int | None, Query(ge=0, le=16)] = None,
    upsampled: bool = False,
    profile: Literal["exact", "fast"] | None = None,
) -> Response:
    """How long an edit is likely to take and what it costs, warm and cold, on each target; with what that is taken from."""
    name = held.catalog.profiled(model_id, profile) if profile else held.catalog.name_of(model_id)
    model = held.catalog.models[name]
    pins = routing.pins_of({"gpu_type": gpu_type, "region": region})
    routing.check(pins, name, held.catalog)
    steps = num_inference_steps or drafts.default(model, "num_inference_steps")
    count = model.min_references if references is None else references
    canvas = Canvas(size=Size(width=width, height=height)) if width and height else Canvas()
    ask = forecasts.asked(model, canvas, steps, count, upsampled=upsampled)
    targets = [
        dataclasses.asdict(await held.forecasts.expected(target, ask))
        for target in await held.forecasts.targets(name)
        if target.gpu_type in (pins.gpu_types or model.gpu_types) and pins.region in (None, target.region)
    ]
    return JSONResponse(
        {
            "model": name, "profile": model.profile, "steps": steps, "references": count, "pixels": ask.pixels,
            "targets": targets,
        }
    )  # fmt: skip


@router.get("/api/ai/models/{model_id:path}", responses=contract.MODEL)
async def read_model(model_id: str, held: Held, tenant: Tenant) -> Response:
    """One model."""
    name = held.catalog.name_of(model_id)
    return JSONResponse(answers.model(name, held.catalog.models[name]))
