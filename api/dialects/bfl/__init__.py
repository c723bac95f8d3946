"""Black Forest Labs' own API: one route per model, polled by URL."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base, fields
from api.dialects.base import Dialect
from api.dialects.bfl import asking
from api.http import bodies, pictures
from api.http import errors as http_errors
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.service.read import Reader, ResultView
from api.webhooks.delivery import Message
from storage.contracts import catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas

router = APIRouter(prefix="/v1", tags=["bfl"])


@router.post(
    "/flux-{variant}",
    openapi_extra=fields.body({"anyOf": [asking.Kontext.model_json_schema(), asking.Flux2.model_json_schema()]}),
)
async def submit(
    variant: str, request: Request, resources: ResourcesDep, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a task of a model."""
    alias = f"flux-{variant}"
    name = resources.catalog.name_of(alias)
    body = await bodies.read(request)
    submission = await _submission(alias, resources.catalog, body, own_url(request, resources), idempotency_key)
    accepted = await base.submitted(request, resources, submission, caller, names=asking.NAMES, named=name)
    model = resources.catalog.models[submission.edit.model]
    url = own_url(request, resources, f"/v1/get_result?id={accepted.ids[0]}")
    answer: dict[str, Any] = {"id": accepted.ids[0], "polling_url": url, "cost": model.price_per_image}
    if submission.webhook:
        answer |= {"status": "Pending", "webhook_url": submission.webhook.url}
    return JSONResponse(answer)


@router.get("/get_result")
async def get_result(
    request: Request, resources: ResourcesDep, tenant: Tenant, id_: Annotated[str, Query(alias="id", max_length=100)]
) -> Response:
    """A task as it is."""
    try:
        view = await resources.reader.one(id_, tenant)
    except errors.NotFoundError:
        return JSONResponse({"id": id_, "status": "Task not found", "result": None})
    return JSONResponse(_task(view, own_url(request, resources)))


async def _submission(
    alias: str, known: catalog.Catalog, body: bodies.Body, own: str, idempotency_key: str | None
) -> submissions.Submission:
    name = known.name_of(alias)
    sent = (asking.ROUTES.get(alias) or base.of_family(asking.FAMILIES, known.models[name])).check(body.fields)
    references = await pictures.of_fields(body.fields, asking.PICTURES, bare=True)
    mask = base.one_mask(await pictures.of_fields(body.fields, ("mask",), bare=True), "mask")
    if not references:
        name = known.drawing(alias) or name
    model = known.models[name]
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            mask=mask,
            canvas=sent.canvas if mask is None else Canvas(),
            steps=sent.steps or model.usual_steps,
            guidance=base.guidance_of(model, sent.guidance),
            upsample_temperature=base.UPSAMPLE_TEMPERATURE if sent.prompt_upsampling else 0.0,
            output_format=sent.output_format,
        ),
        seed=base.seed_of(sent.seed),
        ignored=submissions.told_names(sent.without_effect(model)),
        webhook=base.webhook_of(sent.webhook_url, "webhook_url", "bfl", base=own, secret=sent.webhook_secret),
        idempotency_key=idempotency_key,
        echo=pictures.echo({field: value for field, value in body.fields.items() if not field.startswith("webhook_")}),
    )


def _status(view: ResultView) -> str:
    if view.is_filtered:
        stage = (view.generation.error_details or {}).get("stage")
        return "Content Moderated" if stage == "output" else "Request Moderated"
    if not view.is_over:
        return "Pending"
    return "Ready" if view.result is not None else "Error"


def _task(view: ResultView, own: str) -> dict[str, Any]:
    """A task; its picture is below our address `own`, since some clients fetch nothing from an object store in their network."""
    generation, times, result = view.generation, view.generation.times, None
    url = view.steady_url(own)
    if url is not None:
        started_ms, completed_ms = times.started_ms or times.created_ms, times.completed_ms or times.created_ms
        result = {
            "sample": url,
            "prompt": view.prompt,
            "seed": generation.edit.seed,
            "start_time": started_ms / 1000,
            "end_time": completed_ms / 1000,
            "duration": (completed_ms - started_ms) / 1000,
        }
    failure, details = view.failure(asking.NAMES), None
    if failure is not None:
        details = {**(generation.error_details or {}), "error": failure.message, "error_code": failure.code}
        if failure.field is not None:
            details["field"] = failure.field
    progress = 1.0 if view.result is not None else generation.step / generation.edit.steps
    return {
        "id": view.id,
        "status": _status(view),
        "result": result,
        "progress": round(progress, 3),
        "details": details,
        "preview": None,
    }


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status = http_errors.status(error)
    if status == 400:
        entry = {"loc": ["body", error.field or ""], "msg": error.message, "type": error.code}
        return JSONResponse({"detail": [entry]}, status_code=422)
    status = 403 if isinstance(error, errors.UnauthenticatedError) else status
    return JSONResponse({"detail": error.message}, status_code=status, headers=http_errors.headers(error))


async def _wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    webhook = view.generation.submission.webhook
    body = json.dumps({"task_id": view.id, **_task(view, webhook.base if webhook else "")}).encode()
    secret = webhook.secret if webhook else None
    key = secret.encode() if secret else keys[0]
    return Message(body=body, headers={"X-BFL-Signature": f"sha256={hmac.digest(key, body, hashlib.sha256).hex()}"})


DIALECT = Dialect(
    name="bfl",
    router=router,
    problem=_problem,
    wording=_wording,
    aim=(
        "export BFL_API_KEY=<key>",
        'curl {url}/v1/flux-kontext-dev -H "x-key: $BFL_API_KEY" --json \'{"prompt": "…", "input_image": "…"}\'',
        'curl "<polling_url of the answer>" -H "x-key: $BFL_API_KEY"',
    ),
)
