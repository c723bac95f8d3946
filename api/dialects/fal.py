"""The fal queue: an app is a model, a request is a generation or a few."""

import base64
import contextlib
import hashlib
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import APIRouter, Header, Query
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, inputs, problems, waiting
from api.access import Held, IdempotencyKey, Tenant, own_url
from api.dialects import Dialect, Notice
from api.resources import Resources
from storage.contracts import edits, errors, generations
from storage.contracts.geometry import Canvas, Size
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import records

router = APIRouter(tags=["fal"])

log = logging.getLogger(__name__)

SIZES = {
    "square_hd": (1024, 1024), "square": (512, 512), "portrait_4_3": (768, 1024), "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768), "landscape_16_9": (1024, 576),
}  # fmt: skip
RATIOS = ("21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21")
PICTURES = ("image_url", "image_urls")
INPUT = Declaration(
    {
        "prompt": Parameter(type="string", required=True, max_length=10_000, description="The instruction"),
        "negative_prompt": Parameter(type="string", default="", max_length=10_000, description="What not to show"),
        "aspect_ratio": Parameter(type="string", choices=RATIOS, description="Shape; absent: as the input"),
        "resolution_mode": Parameter(
            type="string", default="match_input", choices=("auto", "match_input", *RATIOS), description="Shape"
        ),
        "num_inference_steps": Parameter(type="integer", minimum=1, maximum=50, description="Steps"),
        "guidance_scale": Parameter(type="number", minimum=0, maximum=20, description="Guidance scale"),
        "seed": Parameter(type="integer", minimum=0, maximum=edits.MAX_SEED, description="Absent: random"),
        "num_images": Parameter(type="integer", default=1, minimum=1, maximum=4, description="Pictures"),
        "output_format": Parameter(type="string", choices=("jpeg", "png", "webp"), description="Format"),
        "enable_safety_checker": Parameter(type="boolean", default=True, description="Filter"),
        "sync_mode": Parameter(type="boolean", default=False, description="Pictures in the answer, as data URIs"),
        "acceleration": Parameter(
            type="string", default="none", choices=("none", "regular", "high"), description="The operator's choice"
        ),
        "enhance_prompt": Parameter(type="boolean", default=False, description="The same, by Kontext's name"),
        "enable_prompt_expansion": Parameter(
            type="boolean", default=False, description="Write the prompt anew, where the model can"
        ),
    },
    also=(*PICTURES, "image_size"),
)

Priority = Annotated[str, Header(alias="x-fal-queue-priority", pattern="^(normal|low)$")]
StartTimeout = Annotated[float | None, Header(alias="x-fal-request-timeout", gt=0)]


@router.post("/fal-ai/{app:path}")
async def submit(
    app: str,
    request: Request,
    held: Held,
    tenant: Tenant,
    fal_webhook: Annotated[str | None, Query(max_length=2048)] = None,
    priority: Priority = "normal",
    start_timeout: StartTimeout = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a request of an app."""
    base = own_url(request, held, "")
    draft = await _draft(app, request, held, fal_webhook, base, priority, start_timeout)
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))
    urls = _urls(base, app, receipt.ids[0])
    found = await held.ledger.run(records.read(receipt.ids[0], tenant))
    answer = {"status": "IN_QUEUE", "request_id": receipt.ids[0], **urls, "queue_position": found.position or 0}
    return JSONResponse(answer, headers={"x-fal-request-id": receipt.ids[0]})


@router.post("/run/fal-ai/{app:path}")
async def run(
    app: str,
    request: Request,
    held: Held,
    tenant: Tenant,
    start_timeout: StartTimeout = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run an app and wait for it. A client that hangs up cancels it."""
    draft = await _draft(app, request, held, None, "", "normal", start_timeout)
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))
    keep = idempotency_key is not None
    finished = await waiting.all_terminal(request, receipt, tenant, held, keep=keep)
    if finished is None:
        return Response(status_code=499)
    return JSONResponse(await _payload(finished, held), headers={"x-fal-request-id": receipt.ids[0]})


@router.get("/fal-ai/{app:path}/requests/{request_id}/status")
async def status(app: str, request_id: str, request: Request, held: Held, tenant: Tenant, logs: str = "0") -> Response:
    """A request as it is."""
    found = await _all(request_id, held, tenant)
    answer = _state(found, _urls(own_url(request, held, ""), app, request_id), logs in ("1", "true", "True"))
    return JSONResponse(answer, status_code=200 if answer["status"] == "COMPLETED" else 202)


@router.get("/fal-ai/{app:path}/requests/{request_id}/status/stream", response_class=EventSourceResponse)
async def status_stream(
    app: str, request_id: str, request: Request, held: Held, tenant: Tenant, logs: str = "0"
) -> Response:
    """The same as events, at every change until it is over."""
    await _all(request_id, held, tenant)
    held.streams.check(tenant)
    urls = _urls(own_url(request, held, ""), app, request_id)
    told = _states(request_id, urls, logs in ("1", "true", "True"), held, tenant)
    return EventSourceResponse(told, headers={"Cache-Control": "no-cache"})


@router.get("/fal-ai/{app:path}/requests/{request_id}")
async def result(app: str, request_id: str, held: Held, tenant: Tenant) -> Response:
    """What a request came to."""
    found = await _all(request_id, held, tenant)
    if not all(one.status.terminal for one in found):
        return JSONResponse({"detail": "Request is still in progress"}, status_code=400)
    return JSONResponse(await _payload(found, held), headers={"x-fal-request-id": request_id})


@router.put("/fal-ai/{app:path}/requests/{request_id}/cancel")
async def cancel(app: str, request_id: str, held: Held, tenant: Tenant) -> Response:
    """Cancel a request."""
    try:
        found = await _all(request_id, held, tenant)
    except errors.NotFoundError:
        return JSONResponse({"status": "NOT_FOUND"}, status_code=404)
    ended = [await held.ledger.run(records.cancel(one.id, tenant)) for one in found]
    if "cancelled" not in ended:
        return JSONResponse({"status": "ALREADY_COMPLETED"}, status_code=400)
    if all(one.status is generations.Status.QUEUED for one in found):
        return JSONResponse({"status": "OK"})
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, status_code=202)


@router.get("/.well-known/jwks.json")
async def keys(held: Held) -> Response:
    """What webhooks are signed with, as a public key."""
    public = held.signatures.ed25519.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "darkroom"}
    return JSONResponse({"keys": [{**key, "x": base64.urlsafe_b64encode(public).decode().rstrip("=")}]})


async def _draft(
    app: str,
    request: Request,
    held: Resources,
    webhook: str | None,
    base: str,
    priority: str,
    start_timeout: float | None,
) -> drafts.Draft:
    name = _model_of(app, held)
    model = held.catalog.models[name]
    sent = (await bodies.read(request)).fields
    checked = INPUT.check(sent)
    # Kontext's name for it, and FLUX.2's.
    expanding = next((field for field in ("enhance_prompt", "enable_prompt_expansion") if checked[field]), None)
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=[picture for field in PICTURES for picture in await inputs.of_value(sent.get(field) or None, field)],
        image_field="image_url",
        size_field="image_size",
        canvas=_canvas(checked, sent.get("image_size")),
        steps=checked["num_inference_steps"],
        guidance=checked["guidance_scale"],
        guidance_field="guidance_scale",
        upsample_temperature=drafts.UPSAMPLE_TEMPERATURE if expanding else 0.0,
        upsample_field=expanding or "",
        negative_prompt=checked["negative_prompt"].strip() or None,
        seed=checked["seed"],
        output_format=checked["output_format"] or ("jpeg" if model.min_references else "png"),
        filtered=checked["enable_safety_checker"],
        filter_field="enable_safety_checker",
        submitted=inputs.shown(sent),
        count=checked["num_images"],
        queue_ttl_s=start_timeout,
        priority=generations.LOW_PRIORITY if priority == "low" else generations.PRIORITY,
        callback=drafts.callback_of(webhook, "fal_webhook", "fal", base=base),
    )


def _canvas(checked: Mapping[str, Any], size: Any) -> Canvas:
    if isinstance(size, str) and size in SIZES:
        width, height = SIZES[size]
        return Canvas(size=Size(width=width, height=height))
    sides = [size["width"], size["height"]] if isinstance(size, dict) and set(size) == {"width", "height"} else []
    if sides and all(type(side) is int and side > 0 for side in sides):
        return Canvas(size=Size(width=sides[0], height=sides[1]))
    if size is not None and size != "auto":
        allowed = ", ".join(SIZES)
        message = f"image_size must be one of {allowed}, or an object with width and height"
        raise errors.InvalidInputError(message, field="image_size")
    ratio = checked["aspect_ratio"] or checked["resolution_mode"]
    return Canvas() if ratio in ("auto", "match_input") else Canvas(ratio=drafts.ratio_of(ratio))


def _model_of(app: str, held: Resources) -> str:
    """`flux-kontext/dev` and the like by their alias, or a model by its own name."""
    plain = app.removesuffix("/edit")
    try:
        return held.catalog.name_of(f"fal-ai/{plain}")
    except errors.ModelNotFoundError:
        return held.catalog.name_of(plain)


def _urls(base: str, app: str, request_id: str) -> dict[str, str]:
    # What follows an app's name is no part of where its requests are.
    url = f"{base}/fal-ai/{app.split('/')[0]}/requests/{request_id}"
    return {"response_url": url, "status_url": f"{url}/status", "cancel_url": f"{url}/cancel"}


async def _all(request_id: str, held: Resources, tenant: str) -> list[generations.Generation]:
    first = await held.ledger.run(records.read(request_id, tenant))
    return [first, *[await held.ledger.run(records.read(one, tenant)) for one in first.siblings if one != first.id]]


def _state(found: Sequence[generations.Generation], urls: Mapping[str, str], logs: bool) -> dict[str, Any]:
    first = found[0]
    answer: dict[str, Any] = {"request_id": first.id, **urls, "logs": _logs(found) if logs else None}
    if all(one.status is generations.Status.QUEUED for one in found):
        return {**answer, "status": "IN_QUEUE", "queue_position": first.position or 0}
    if not all(one.status.terminal for one in found):
        return {**answer, "status": "IN_PROGRESS"}
    answer |= {"status": "COMPLETED", "metrics": {"inference_time": sum(one.execution_ms or 0 for one in found) / 1000}}
    fault = next((fault for one in found if (fault := drafts.failure(one)) is not None), None)
    return answer if fault is None else {**answer, "error": fault.message, "error_type": fault.code}


def _logs(found: Sequence[generations.Generation]) -> list[dict[str, str]]:
    now = datetime.now(UTC).isoformat()
    return [
        {"message": f"step {one.step} of {one.edit.steps}", "level": "INFO", "timestamp": now}
        for one in found
        if one.step
    ]


async def _states(
    request_id: str, urls: Mapping[str, str], logs: bool, held: Resources, tenant: str
) -> AsyncIterator[bytes]:
    ids = [one.id for one in await _all(request_id, held, tenant)]
    with held.streams.counted(tenant):
        async with contextlib.aclosing(waiting.happenings(ids, tenant, hub=held.hub)) as happenings:
            async for _ in happenings:
                try:
                    state = _state(await _all(request_id, held, tenant), urls, logs)
                except errors.TransientError as exc:
                    log.warning("%s: a state is told later: %s", request_id, exc)
                    continue
                yield ServerSentEvent(json.dumps(state), sep="\n").encode()
                if state["status"] == "COMPLETED":
                    return


async def _payload(found: Sequence[generations.Generation], held: Resources) -> dict[str, Any]:
    """What the app answers. Raises why it has nothing to answer."""
    images = []
    for one in found:
        fault, result, until = drafts.failure(one), one.result, one.times.expires_at
        if fault is not None or result is None or until is None:
            raise fault or errors.InternalError("The generation has no result")
        inline = one.submitted.get("sync_mode") is True
        images.append(
            {
                "url": await drafts.data_uri(result, held) if inline else held.objects.signed_url(result.key, until),
                "content_type": result.content_type,
                "width": result.width,
                "height": result.height,
                "file_name": f"{one.id}.{edits.EXTENSIONS[one.edit.output_format]}",
                "file_size": result.size_bytes,
            }
        )
    first = found[0]
    return {
        "images": images,
        "timings": {"inference": sum(one.execution_ms or 0 for one in found) / 1000},
        "seed": first.edit.seed,
        "has_nsfw_concepts": [False] * len(images),
        "prompt": (first.result and first.result.upsampled_prompt) or first.edit.prompt,
    }


def _detail(error: errors.DarkroomError) -> list[dict[str, Any]]:
    return [{"loc": ["body", error.field or "prompt"], "msg": error.message, "type": error.code}]


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status, detail = problems.status(error), error.message
    body: dict[str, Any] = {"detail": detail}
    if status in (400, 422):
        status = 422
        body = {"detail": _detail(error)}
    return JSONResponse(body, status_code=status, headers=problems.headers(error))


async def _notice(held: Resources, found: generations.Generation, moment: generations.Moment) -> Notice:
    fault, payload = None, {}
    try:
        payload = await _payload(await _all(found.id, held, found.tenant), held)
    except errors.TransientError:
        raise
    except errors.DarkroomError as exc:
        fault, payload = exc, {"detail": _detail(exc)}
    facts = {"request_id": found.id, "gateway_request_id": found.id, "payload": payload}
    body = json.dumps({**facts, "status": "ERROR" if fault else "OK", "error": fault and fault.message}).encode()
    timestamp = str(int(time.time()))
    message = "\n".join((found.id, found.tenant, timestamp, hashlib.sha256(body).hexdigest()))
    headers = {
        "X-Fal-Webhook-Request-Id": found.id,
        "X-Fal-Webhook-User-Id": found.tenant,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": held.signatures.ed25519.sign(message.encode()).hex(),
    }
    return Notice(body=body, headers=headers)


DIALECT = Dialect(
    name="fal",
    router=router,
    problem=_problem,
    notice=_notice,
    aim=(
        "export FAL_QUEUE_RUN_HOST=<our host, with TLS> FAL_RUN_HOST=<our host>/run",
        "export FAL_KEY=<key>",
        'fal_client.subscribe("fal-ai/flux-kontext/dev", arguments={"prompt": "…", "image_url": "…"})',
    ),
)
