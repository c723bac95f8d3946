"""Replicate predictions. Results and uploads come from our own host, since its clients send their key along to them."""

import hashlib
import json
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, downloads, drafts, inputs, problems, waiting
from api.access import Held, IdempotencyKey, Tenant, own_url
from api.dialects import Dialect, Notice
from api.resources import Resources
from api.signatures import standard_webhook
from storage.contracts import catalog, edits, errors, generations, parameters
from storage.contracts.geometry import Canvas, Size
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import records

router = APIRouter(prefix="/v1", tags=["replicate"])

RATIOS = (
    "match_input_image", "1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "2:1", "1:2", "custom",
)  # fmt: skip
FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}
PICTURES = ("input_image", "input_images", "image", "images")
INPUT = Declaration(
    {
        "prompt": Parameter(type="string", required=True, max_length=10_000, description="The instruction"),
        "aspect_ratio": Parameter(type="string", default="match_input_image", choices=RATIOS, description="Shape"),
        "width": Parameter(type="integer", minimum=64, maximum=2048, description="In pixels, with height"),
        "height": Parameter(type="integer", minimum=64, maximum=2048, description="In pixels, with width"),
        "megapixels": Parameter(type="string", default="1", choices=("0.25", "0.5", "1", "2"), description="About"),
        "num_inference_steps": Parameter(type="integer", minimum=1, maximum=50, description="Steps"),
        "guidance": Parameter(type="number", minimum=0, maximum=10, description="Guidance scale"),
        "seed": Parameter(type="integer", minimum=0, maximum=edits.MAX_SEED, description="Absent: random"),
        "output_format": Parameter(type="string", default="webp", choices=tuple(FORMATS), description="Format"),
        "output_quality": Parameter(type="integer", default=80, minimum=0, maximum=100, description="Quality"),
        "disable_safety_checker": Parameter(type="boolean", default=False, description="Where it is allowed"),
        "go_fast": Parameter(type="boolean", default=True, description="How fast is the operator's choice"),
    },
    also=PICTURES,
)
ENVELOPE = frozenset({"version", "model", "input", "webhook", "webhook_events_filter", "stream"})
WEBHOOK_EVENTS = ("start", "output", "logs", "completed")
STATUSES = {
    generations.Status.QUEUED: "starting",
    generations.Status.PROCESSING: "processing",
    generations.Status.SUCCEEDED: "succeeded",
    generations.Status.FAILED: "failed",
    generations.Status.CANCELLED: "canceled",
}
LONGEST_WAIT_S = 60
_UNITS = {"s": 1, "m": 60, "h": 3600}

Prefer = Annotated[str, Header()]
CancelAfter = Annotated[str | None, Header()]


@router.post("/predictions", status_code=201)
async def create(
    request: Request,
    held: Held,
    tenant: Tenant,
    prefer: Prefer = "",
    cancel_after: CancelAfter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Start a prediction of a version or a model; with `Prefer: wait=n` be answered when it is over or n seconds are."""
    body = (await bodies.read(request)).fields
    named = body.get("version") or body.get("model")
    if not isinstance(named, str):
        raise errors.InvalidInputError("version is required", field="version")
    return await _created(named, body, request, held, tenant, prefer, cancel_after, idempotency_key)


@router.post("/models/{owner}/{name}/predictions", status_code=201)
@router.post("/deployments/{owner}/{name}/predictions", status_code=201)
async def create_of_model(
    owner: str,
    name: str,
    request: Request,
    held: Held,
    tenant: Tenant,
    prefer: Prefer = "",
    cancel_after: CancelAfter = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The same, of a model or a deployment."""
    body = (await bodies.read(request)).fields
    return await _created(f"{owner}/{name}", body, request, held, tenant, prefer, cancel_after, idempotency_key)


@router.get("/predictions")
async def list_(
    request: Request, held: Held, tenant: Tenant, cursor: Annotated[str | None, Query(pattern="^[0-9]{1,16}$")] = None
) -> Response:
    """Predictions, newest first."""
    page = await held.ledger.run(records.list_(tenant, matching={}, below=cursor, limit=100, active_only=False))
    base, further = own_url(request, held, ""), None
    if page.continue_below:
        further = f"{base}/v1/predictions?cursor={page.continue_below}"
    found = [_prediction(one, held, base) for one in page.generations]
    return JSONResponse({"previous": None, "next": further, "results": found})


@router.get("/predictions/{id_}")
async def get(id_: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """One prediction."""
    found = await held.ledger.run(records.read(id_, tenant))
    return JSONResponse(_prediction(found, held, own_url(request, held, "")))


@router.post("/predictions/{id_}/cancel")
async def cancel(id_: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """Cancel a prediction; on one that is over this has no effect."""
    await held.ledger.run(records.cancel(id_, tenant))
    return await get(id_, request, held, tenant)


@router.get("/models/{owner}/{name}/versions/{version}")
async def version(owner: str, name: str, version: str, held: Held, tenant: Tenant) -> Response:
    """A version: the model as it is here, with the schema of its inputs."""
    found = _model_of(f"{owner}/{name}", held)
    model = held.catalog.models[found]
    properties = {
        "input_image": {"type": "string", "format": "uri", "title": "Input Image"},
        **{field: one for field, one in INPUT_SCHEMA.items() if field != "guidance" or "guidance" in model.parameters},
    }
    required = ["prompt", "input_image"] if model.min_references else ["prompt"]
    schemas = {
        "Input": {"type": "object", "title": "Input", "required": required, "properties": properties},
        "Output": {"type": "string", "title": "Output", "format": "uri"},
    }
    return JSONResponse(
        {
            "id": _version(found),
            "created_at": model.released_at,
            "cog_version": "0.0.0",
            "openapi_schema": {"openapi": "3.0.2", "components": {"schemas": schemas}},
        }
    )


@router.post("/files", status_code=201)
async def upload(request: Request, held: Held, tenant: Tenant) -> Response:
    """Keep a picture for a day, to be named in an input by its URL."""
    body = await bodies.read(request, files=("content", "metadata"))
    files = body.files.get("content", ())
    if len(files) != 1:
        raise errors.InvalidInputError("content is required: one uploaded picture", field="content")
    key, picture = await downloads.upload(held, tenant, files[0], "content")
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
            "created_at": _iso(now.timestamp() * 1000),
            "expires_at": _iso(until.timestamp() * 1000),
            "urls": {"get": downloads.link(own_url(request, held, ""), held, key, until)},
        },
        status_code=201,
    )


@router.get("/webhooks/default/secret")
async def webhook_secret(held: Held, tenant: Tenant) -> Response:
    """What this key's webhooks are signed with (Standard Webhooks)."""
    return JSONResponse({"key": held.signatures.webhook_secret(tenant)})


async def _created(
    named: str,
    body: Mapping[str, Any],
    request: Request,
    held: Resources,
    tenant: str,
    prefer: str,
    cancel_after: str | None,
    idempotency_key: str | None,
) -> Response:
    unknown = sorted(set(body) - ENVELOPE)
    if unknown:
        raise errors.InvalidInputError(f"{unknown[0]} is not a known field", field=unknown[0])
    wait_s = _wait(prefer)
    draft = await _draft(_model_of(named, held), body, request, held, cancel_after)
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))
    base, id_ = own_url(request, held, ""), receipt.ids[0]
    if not wait_s:
        found = await held.ledger.run(records.read(id_, tenant))
        return JSONResponse(_prediction(found, held, base), status_code=201)
    ended = await waiting.until_terminal_or_hung_up(
        request, id_, tenant, hub=held.hub, ledger=held.ledger, deadline=time.monotonic() + wait_s
    )
    if ended is None:
        if idempotency_key is None:
            await held.ledger.run(records.cancel(id_, tenant))
        return Response(status_code=499)
    answer = _prediction(ended, held, base)
    if not ended.status.terminal:
        # Clients take `processing` for the end of a wait that came to something.
        answer["status"] = "starting"
    return JSONResponse(answer, status_code=201)


async def _draft(
    name: str, body: Mapping[str, Any], request: Request, held: Resources, cancel_after: str | None
) -> drafts.Draft:
    asked = body.get("input")
    if not isinstance(asked, dict):
        raise errors.InvalidInputError("input must be an object", field="input")
    checked = INPUT.check(asked)
    pictures = [picture for field in PICTURES for picture in await inputs.of_value(asked.get(field), field)]
    limit_s = _seconds(cancel_after) if cancel_after else None
    moments = body.get("webhook_events_filter") or list(WEBHOOK_EVENTS)
    if not isinstance(moments, list) or any(one not in WEBHOOK_EVENTS for one in moments):
        message = f"webhook_events_filter must be a list of {', '.join(WEBHOOK_EVENTS)}"
        raise errors.InvalidInputError(message, field="webhook_events_filter")
    wanted: tuple[generations.Moment, ...] = ("start",) if "start" in moments else ()
    wanted += ("completed",) if {"completed", "output"} & set(moments) else ()
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=pictures,
        image_field="input_image",
        canvas=_canvas(checked),
        steps=checked["num_inference_steps"],
        guidance=checked["guidance"],
        seed=checked["seed"],
        output_format=FORMATS[checked["output_format"]],
        quality=checked["output_quality"],
        filtered=not checked["disable_safety_checker"],
        submitted=inputs.shown(asked),
        deadline_s=limit_s,
        callback=drafts.callback_of(
            body.get("webhook") if wanted else None,
            "webhook",
            "replicate",
            base=own_url(request, held, ""),
            moments=wanted or ("completed",),
        ),
    )


def _canvas(checked: Mapping[str, Any]) -> Canvas:
    width, height, ratio = checked["width"], checked["height"], checked["aspect_ratio"]
    if ratio == "custom" and width is None and height is None:
        raise errors.InvalidInputError("aspect_ratio: custom needs width and height", field="aspect_ratio")
    if (width is None) != (height is None):
        missing = "height" if height is None else "width"
        raise errors.InvalidInputError(f"width and height belong together; {missing} is missing", field=missing)
    if width is not None and height is not None:
        return Canvas(size=Size(width=width, height=height))
    pixels = None if checked["megapixels"] == "1" else int(float(checked["megapixels"]) * 2**20)
    return Canvas(ratio=None if ratio == "match_input_image" else drafts.ratio_of(ratio), pixels=pixels)


INPUT_SCHEMA = INPUT.schema()


def _version(name: str) -> str:
    return hashlib.sha256(f"darkroom:{name}".encode()).hexdigest()


def _model_of(named: str, held: Resources) -> str:
    """A model by `owner/name`, `owner/name:version`, its name alone, or a version that was handed out."""
    plain = named.partition(":")[0]
    if re.fullmatch(r"[0-9a-f]{64}", plain):
        for name in held.catalog.models:
            if _version(name) == plain:
                return name
    try:
        return held.catalog.name_of(plain)
    except errors.ModelNotFoundError:
        return held.catalog.name_of(plain.rpartition("/")[2])


def _wait(prefer: str) -> float:
    """Seconds of `Prefer: wait` or `wait=n`; other preferences are passed over."""
    for preference in prefer.split(","):
        name, _, value = preference.partition("=")
        if name.strip() == "wait":
            seconds = value.strip() or str(LONGEST_WAIT_S)
            if not re.fullmatch("[0-9]{1,2}", seconds) or not 1 <= int(seconds) <= LONGEST_WAIT_S:
                message = f"Prefer: wait must be 1 to {LONGEST_WAIT_S}; got {parameters.shown(seconds)}"
                raise errors.InvalidInputError(message, field="Prefer")
            return int(seconds)
    return 0


def _seconds(text: str) -> float:
    found = re.fullmatch("([0-9]{1,5})([smh]?)", text.strip())
    if not found or int(found[1]) < 1:
        raise errors.InvalidInputError("Cancel-After must be a time such as 90s, 5m or 1h", field="Cancel-After")
    return int(found[1]) * _UNITS[found[2] or "s"]


def _iso(milliseconds: float | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _prediction(found: generations.Generation, held: Resources, base: str) -> dict[str, Any]:
    times = found.times
    model: catalog.Model | None = held.catalog.models.get(found.edit.model)
    url, output = f"{base}/v1/predictions/{found.id}", None
    if found.result is not None and times.expires_at is not None and times.expires_at > datetime.now(UTC):
        output = downloads.link(base, held, found.result.key, times.expires_at)
    metrics: dict[str, float] = {}
    if found.status.terminal and times.completed_ms is not None:
        metrics["total_time"] = (times.completed_ms - times.created_ms) / 1000
        if found.execution_ms is not None:
            metrics["predict_time"] = found.execution_ms / 1000
    return {
        "id": found.id,
        "model": (model.aliases or (found.edit.model,))[0] if model else found.edit.model,
        "version": _version(found.edit.model),
        "input": {**found.submitted, "prompt": found.edit.prompt},
        "logs": _logs(found),
        "output": output,
        "data_removed": False,
        "error": found.error_message,
        "error_code": found.error_code,
        "source": "api",
        "status": _status(found),
        "created_at": _iso(times.created_ms),
        "started_at": _iso(times.started_ms),
        "completed_at": _iso(times.completed_ms),
        "metrics": metrics,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
        "seed": found.edit.seed,
    }


def _status(found: generations.Generation) -> str:
    # Only `Cancel-After` sets a deadline.
    return "canceled" if found.error_code == errors.DeadlineExceededError.code else STATUSES[found.status]


def _logs(found: generations.Generation) -> str:
    """How far it is, as the progress bars that clients read."""
    if not found.step:
        return ""
    percent = 100 * found.step // found.edit.steps
    return f"Using seed: {found.edit.seed}\n{percent:3d}%|{'█' * (percent // 10):10}| {found.step}/{found.edit.steps}\n"


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status = problems.status(error)
    status = 422 if status == 400 else status
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": status,
        "detail": error.message,
        "code": error.code,
    }
    if error.field is not None:
        body["invalid_fields"] = [{"field": error.field, "type": error.code, "description": error.message}]
    return JSONResponse(
        body, status_code=status, headers=problems.headers(error), media_type="application/problem+json"
    )


async def _notice(held: Resources, found: generations.Generation, moment: generations.Moment) -> Notice:
    answer = _prediction(found, held, found.callback.base if found.callback else "")
    if moment == "start" and found.status.terminal:
        # The words of then: what came after has its own call.
        answer |= {"status": "processing", "output": None, "completed_at": None, "metrics": {}}
    body = json.dumps(answer).encode()
    key = held.signatures.webhook_key(found.tenant)
    return Notice(body=body, headers=standard_webhook(key, id_=found.notice_id(moment), body=body, now=time.time()))


DIALECT = Dialect(
    name="replicate",
    router=router,
    problem=_problem,
    notice=_notice,
    aim=(
        "export REPLICATE_BASE_URL={url}",
        "export REPLICATE_API_TOKEN=<key>",
        'replicate.run("black-forest-labs/flux-kontext-dev", input={"prompt": "…", "input_image": open("photo.png", "rb")})',
    ),
)
