"""Predictions, models and errors in Replicate's words."""

import hashlib
import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.replicate.asking import NAMES, Input
from api.http import errors as http_errors
from api.http import uploads
from api.service.read import Reader, ResultView
from api.webhooks.delivery import Message
from api.webhooks.signing import standard_webhook
from storage.contracts import catalog, errors, generations, submissions

STATUSES = {
    generations.Status.QUEUED: "starting",
    generations.Status.PROCESSING: "processing",
    generations.Status.SUCCEEDED: "succeeded",
    generations.Status.FAILED: "failed",
    generations.Status.CANCELLED: "canceled",
}


_RANK = {status: rank for rank, status in enumerate(("succeeded", "failed", "cancelled", "queued", "processing"))}
"""Of several generations, the one furthest back in this says how their prediction is."""


def version_of(name: str) -> str:
    """A model's version: 64 hexadecimal digits."""
    return hashlib.sha256(f"darkroom:{name}".encode()).hexdigest()


def model_of(model: catalog.Model | None, name: str) -> str:
    """What a model is called here: `owner/name` in lower case, where it has such a name."""
    aliases = model.aliases if model else ()
    return next((one for one in aliases if re.fullmatch(r"[^/A-Z]+/[^/A-Z]+", one)), aliases[0] if aliases else name)


def iso(milliseconds: float | None) -> str | None:
    """A time, by UTC."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def prediction(views: Sequence[ResultView], own: str) -> dict[str, Any]:
    """A prediction, which is one generation or a few.

    Its output is below our address `own`, since clients send their key along to it: a URL, or a list where several were asked
    for.
    """
    view = views[0]
    generation, times = view.generation, view.generation.times
    url, name = f"{own}/v1/predictions/{view.id}", generation.edit.model
    ends = [one.generation.times.completed_ms for one in views]
    completed_ms = max(end or 0 for end in ends) if all(ends) else None
    metrics: dict[str, float] = {}
    if completed_ms is not None:
        metrics["total_time"] = (completed_ms - times.created_ms) / 1000
        if generation.execution_ms is not None:
            metrics["predict_time"] = sum(one.generation.execution_ms or 0 for one in views) / 1000
    worst = max(views, key=lambda one: _RANK[one.generation.status])
    failure = worst.failure(NAMES) if worst.generation.error_message is not None else None
    outputs = [one.own_url(own) for one in views]
    deadline_s = generation.submission.deadline_s
    return {
        "id": view.id,
        "model": model_of(view.model, name),
        "version": version_of(name),
        "input": {**generation.submission.echo, "prompt": generation.edit.prompt},
        "logs": _logs(next((one.generation for one in views if not one.is_over), generation)),
        "output": outputs[0] if len(views) == 1 else outputs if all(outputs) else None,
        "data_removed": False,
        "error": failure and failure.message,
        "error_code": failure and failure.code,
        "source": "api",
        "status": _status(worst.generation),
        "created_at": iso(times.created_ms),
        "started_at": iso(times.started_ms),
        "completed_at": iso(completed_ms),
        "metrics": metrics,
        "deadline": deadline_s and iso(times.created_ms + round(deadline_s * 1000)),
        "urls": {"get": url, "cancel": f"{url}/cancel", "web": url},
        "seed": generation.edit.seed,
    }


def _status(generation: generations.Generation) -> str:
    # Only `Cancel-After` sets a deadline.
    is_late = generation.error_code == errors.DeadlineExceededError.code
    return "canceled" if is_late else STATUSES[generation.status]


def _logs(generation: generations.Generation) -> str:
    """How far it is, as the progress bars that clients read."""
    step, steps = generation.step, generation.edit.steps
    if not step:
        return ""
    percent = 100 * step // steps
    bar = "█" * (percent // 10)
    return f"Using seed: {generation.edit.seed}\n{percent:3d}%|{bar:10}| {step}/{steps}\n"


def version(name: str, model: catalog.Model) -> dict[str, Any]:
    """A version: the model as it is here, with the schema of its inputs."""
    declared = Input.properties()
    properties = {
        "input_image": {"type": "string", "format": "uri", "title": "Input Image"},
        **{field: one for field, one in declared.items() if field != "guidance" or "guidance" in model.parameters},
    }
    required = ["prompt", "input_image"] if model.min_references else ["prompt"]
    output = {"type": "string", "format": "uri"}
    schemas = {
        "Input": {"type": "object", "title": "Input", "required": required, "properties": properties},
        "Output": {"title": "Output", "anyOf": [output, {"type": "array", "items": output}]},
    }
    return {
        "id": version_of(name),
        "created_at": model.released_at,
        "cog_version": "0.0.0",
        "openapi_schema": {"openapi": "3.0.2", "components": {"schemas": schemas}},
    }


def described(named: str, name: str, model: catalog.Model, own: str) -> dict[str, Any]:
    """A model's record by the owner and name that it was asked for; nothing for one that was asked for without owner."""
    owner, slash, short = named.partition("/")
    if not slash:
        return {}
    return {
        "url": f"{own}/v1/models/{named}",
        "owner": owner,
        "name": short,
        "description": model.summary,
        "visibility": "public",
        "github_url": None,
        "paper_url": None,
        "license_url": model.weights.licence_url,
        "run_count": 0,
        "cover_image_url": None,
        "default_example": None,
        "latest_version": version(name, model),
    }


def file_record(upload: uploads.Upload, url: str, digest: str | None = None) -> dict[str, Any]:
    """An uploaded file, with the SHA-256 of its content where that is at hand."""
    return {
        "id": upload.name,
        "name": upload.name,
        "content_type": upload.content_type,
        "size": upload.size,
        "etag": upload.etag or (digest or "")[:32],
        "checksums": {"sha256": digest} if digest else {},
        "metadata": {},
        "created_at": iso(upload.created_at.timestamp() * 1000),
        "expires_at": iso(upload.expires_at.timestamp() * 1000),
        "urls": {"get": url},
    }


def problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error."""
    status = http_errors.status(error)
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
        body, status_code=status, headers=http_errors.headers(error), media_type="application/problem+json"
    )


async def wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    """A webhook, signed as Standard Webhooks has it."""
    webhook = view.generation.submission.webhook
    views = await reader.request(view.id, view.generation.tenant)
    answer = prediction(views, webhook.base if webhook else "")
    if moment == "start" and answer["completed_at"] is not None:
        # The words of then: what came after has its own call.
        answer |= {"status": "processing", "output": None, "error": None, "completed_at": None, "metrics": {}}
    body = json.dumps(answer).encode()
    signed = standard_webhook(keys, id_=view.generation.webhook_id(moment), body=body, now=time.time())
    return Message(body=body, headers=signed)
