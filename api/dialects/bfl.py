"""Black Forest Labs' own API: one route per model, polled by URL."""

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, inputs, problems
from api.access import Held, IdempotencyKey, Tenant, own_url
from api.dialects import Dialect, Notice
from api.resources import Resources
from storage.contracts import catalog, edits, errors, generations
from storage.contracts.geometry import Canvas, Size
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import records

router = APIRouter(prefix="/v1", tags=["bfl"])

MOST_PICTURES = 8
PICTURES = ("input_image", *(f"input_image_{number}" for number in range(2, MOST_PICTURES + 1)))
UPSAMPLING = Parameter(type="boolean", default=False, description="Write the prompt anew, where the model can")
_COMMON = {
    "prompt": Parameter(type="string", required=True, max_length=10_000, description="The instruction"),
    "seed": Parameter(type="integer", minimum=0, maximum=edits.MAX_SEED, description="Absent: random"),
    "webhook_url": Parameter(type="string", max_length=inputs.MAX_URL, description="Called when it is over"),
    "webhook_secret": Parameter(type="string", max_length=200, description="Signs that call"),
    "steps": Parameter(type="integer", minimum=1, maximum=50, description="Denoising steps"),
    "guidance": Parameter(type="number", minimum=1.5, maximum=10, description="Guidance scale"),
}
KONTEXT = Declaration(
    {
        **_COMMON,
        "aspect_ratio": Parameter(type="string", max_length=9, description="From 21:9 to 9:21; absent: as the input"),
        "output_format": Parameter(type="string", default="png", choices=("png", "jpeg"), description="Format"),
        "safety_tolerance": Parameter(
            type="integer", default=2, minimum=0, maximum=6, description="One filter for all"
        ),
        "prompt_upsampling": UPSAMPLING,
    },
    also=PICTURES,
)
FLUX2 = Declaration(
    {
        **_COMMON,
        "width": Parameter(type="integer", default=0, minimum=0, maximum=2048, description="0: as the input"),
        "height": Parameter(type="integer", default=0, minimum=0, maximum=2048, description="0: as the input"),
        "output_format": Parameter(type="string", default="jpeg", choices=("png", "jpeg"), description="Format"),
        "safety_tolerance": Parameter(
            type="integer", default=2, minimum=0, maximum=5, description="One filter for all"
        ),
        "prompt_upsampling": UPSAMPLING,
    },
    also=PICTURES,
)
NARROWEST, WIDEST = 9 / 21, 21 / 9


@router.post("/flux-{variant}")
async def submit(
    variant: str, request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a task of a model."""
    name = held.catalog.name_of(f"flux-{variant}")
    model = held.catalog.models[name]
    sent = (await bodies.read(request)).fields
    draft = await _draft(name, model, sent, own_url(request, held, ""))
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))
    url = own_url(request, held, f"/v1/get_result?id={receipt.ids[0]}")
    answer: dict[str, Any] = {"id": receipt.ids[0], "polling_url": url, "cost": model.price_per_image}
    if draft.callback:
        answer |= {"status": "Pending", "webhook_url": draft.callback.url}
    return JSONResponse(answer)


@router.get("/get_result")
async def get_result(held: Held, tenant: Tenant, id_: Annotated[str, Query(alias="id", max_length=100)]) -> Response:
    """A task as it is."""
    try:
        found = await held.ledger.run(records.read(id_, tenant))
    except errors.NotFoundError:
        return JSONResponse({"id": id_, "status": "Task not found", "result": None})
    return JSONResponse(_task(found, held))


async def _draft(name: str, model: catalog.Model, sent: Mapping[str, Any], base: str) -> drafts.Draft:
    kontext = model.min_references > 0
    checked = (KONTEXT if kontext else FLUX2).check(sent)
    secret = checked["webhook_secret"]
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=[
            picture
            for field in PICTURES
            for picture in await inputs.of_value(sent.get(field) or None, field, bare=True)
        ],
        image_field="input_image",
        canvas=_shape(checked["aspect_ratio"]) if kontext else _size(checked["width"], checked["height"]),
        steps=checked["steps"],
        guidance=checked["guidance"],
        upsample_temperature=drafts.UPSAMPLE_TEMPERATURE if checked["prompt_upsampling"] else 0.0,
        upsample_field="prompt_upsampling",
        seed=checked["seed"],
        output_format=checked["output_format"],
        submitted=inputs.shown({field: value for field, value in sent.items() if field != "webhook_secret"}),
        callback=drafts.callback_of(checked["webhook_url"], "webhook_url", "bfl", base=base, secret=secret),
    )


def _shape(ratio: str | None) -> Canvas:
    if ratio is None:
        return Canvas()
    try:
        value = drafts.ratio_of(ratio)
    except (ValueError, ZeroDivisionError):
        value = 0.0
    if not NARROWEST <= value <= WIDEST:
        raise errors.InvalidInputError(f"aspect_ratio must be between 21:9 and 9:21; got {ratio}", field="aspect_ratio")
    return Canvas(ratio=value)


def _size(width: int, height: int) -> Canvas:
    if not width and not height:
        return Canvas()
    if not width or not height:
        missing = "width" if not width else "height"
        raise errors.InvalidInputError(f"width and height belong together; {missing} is missing", field=missing)
    return Canvas(size=Size(width=width, height=height))


def _status(found: generations.Generation) -> str:
    if found.error_code == errors.ContentFilteredError.code:
        stage = (found.error_details or {}).get("stage")
        return "Content Moderated" if stage == "output" else "Request Moderated"
    if not found.status.terminal:
        return "Pending"
    return "Ready" if found.result is not None else "Error"


def _task(found: generations.Generation, held: Resources) -> dict[str, Any]:
    times, result = found.times, None
    if found.result is not None and times.expires_at is not None and times.expires_at > datetime.now(UTC):
        started_ms, completed_ms = times.started_ms or times.created_ms, times.completed_ms or times.created_ms
        result = {
            "sample": held.objects.signed_url(found.result.key, times.expires_at),
            "prompt": found.result.upsampled_prompt or found.edit.prompt,
            "seed": found.edit.seed,
            "start_time": started_ms / 1000,
            "end_time": completed_ms / 1000,
            "duration": (completed_ms - started_ms) / 1000,
        }
    details = None
    if found.error_message is not None:
        details = {"error": found.error_message, "error_code": found.error_code, **(found.error_details or {})}
    elif found.status is generations.Status.CANCELLED:
        details = {"error": "The task was cancelled", "error_code": errors.CancelledError.code}
    progress = 1.0 if found.result is not None else found.step / found.edit.steps
    return {
        "id": found.id,
        "status": _status(found),
        "result": result,
        "progress": round(progress, 3),
        "details": details,
        "preview": None,
    }


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status = problems.status(error)
    if status == 400:
        entry = {"loc": ["body", error.field or ""], "msg": error.message, "type": error.code}
        return JSONResponse({"detail": [entry]}, status_code=422)
    status = 403 if isinstance(error, errors.UnauthenticatedError) else status
    return JSONResponse({"detail": error.message}, status_code=status, headers=problems.headers(error))


async def _notice(held: Resources, found: generations.Generation, moment: generations.Moment) -> Notice:
    body = json.dumps({"task_id": found.id, **_task(found, held)}).encode()
    secret = found.callback.secret if found.callback else None
    key = secret.encode() if secret else held.signatures.webhook_key(found.tenant)
    return Notice(body=body, headers={"X-BFL-Signature": f"sha256={hmac.digest(key, body, hashlib.sha256).hex()}"})


DIALECT = Dialect(
    name="bfl",
    router=router,
    problem=_problem,
    notice=_notice,
    aim=(
        "export BFL_API_KEY=<key>",
        'curl {url}/v1/flux-kontext-dev -H "x-key: $BFL_API_KEY" --json \'{"prompt": "…", "input_image": "…"}\'',
        'curl "<polling_url of the answer>" -H "x-key: $BFL_API_KEY"',
    ),
)
