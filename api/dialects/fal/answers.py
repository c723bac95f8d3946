"""Requests, their results and errors in fal's words."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.fal.asking import NAMES
from api.http import errors as http_errors
from api.service.read import Reader, ResultView
from api.webhooks.delivery import Message
from storage.contracts import edits, errors, generations, submissions


def state(views: Sequence[ResultView], urls: Mapping[str, str], *, logs: bool) -> dict[str, Any]:
    """How far a request is; it is its generations together."""
    first = views[0]
    answer: dict[str, Any] = {"request_id": first.id, **urls, "logs": _logs(views) if logs else None}
    if all(view.generation.status is generations.Status.QUEUED for view in views):
        return {**answer, "status": "IN_QUEUE", "queue_position": first.generation.position or 0}
    if not all(view.is_over for view in views):
        return {**answer, "status": "IN_PROGRESS"}
    answer |= {"status": "COMPLETED", "metrics": {"inference_time": _seconds(views)}}
    failure = next((failure for view in views if (failure := view.failure(NAMES)) is not None), None)
    return answer if failure is None else {**answer, "error": failure.message, "error_type": _type(failure)}


def _seconds(views: Sequence[ResultView]) -> float:
    return sum(view.generation.execution_ms or 0 for view in views) / 1000


def _logs(views: Sequence[ResultView]) -> list[dict[str, str]]:
    now = datetime.now(UTC).isoformat()
    return [
        {
            "message": f"step {view.generation.step} of {view.generation.edit.steps}",
            "level": "INFO",
            "timestamp": now,
        }
        for view in views
        if view.generation.step
    ]


async def payload(views: Sequence[ResultView], own: str) -> dict[str, Any]:
    """What the app answers, with pictures below our address `own`. Raises why it has nothing to answer.

    Some clients fetch nothing from a private address, as an object store's may be, but for the host that they talk to.
    """
    images = []
    for view in views:
        result = view.made(NAMES)
        images.append(
            {
                "url": await view.data_uri() if view.generation.submission.inline else view.steady_url(own),
                "content_type": result.content_type,
                "width": result.width,
                "height": result.height,
                "file_name": f"{view.id}.{edits.EXTENSIONS[view.generation.edit.output_format]}",
                "file_size": result.size_bytes,
            }
        )
    first = views[0]
    return {
        "images": images,
        "timings": {"inference": _seconds(views)},
        "seed": first.generation.edit.seed,
        "has_nsfw_concepts": [False] * len(images),
        "prompt": first.prompt,
    }


ERRORS_PAGE = "https://docs.fal.ai/errors"

_TYPES: Mapping[type[errors.DarkroomError], str] = {
    errors.ContentFilteredError: "content_policy_violation",
    errors.InputUnreachableError: "file_download_error",
    errors.PayloadTooLargeError: "file_too_large",
    errors.InvalidInputError: "value_error",
}
"""What fal calls faults of an input, by which clients tell them apart."""

_REQUEST_TYPES: Mapping[type[errors.DarkroomError], str] = {
    errors.CancelledError: "client_cancelled",
    errors.ExpiredInQueueError: "request_timeout",
    errors.TimedOutError: "request_timeout",
    errors.DeadlineExceededError: "request_timeout",
    errors.ModelUnavailableError: "runner_scheduling_failure",
    errors.WorkerLostError: "runner_disconnected",
    errors.GpuFaultError: "runner_server_error",
    errors.OutOfMemoryError: "runner_server_error",
}
"""And what it calls those that an input has no part in; `internal_error` are all others."""

CLIENT_CLOSED = 499


def _type(error: errors.DarkroomError) -> str:
    return _TYPES.get(type(error)) or _REQUEST_TYPES.get(type(error), "internal_error")


def _detail(error: errors.DarkroomError) -> list[dict[str, Any]]:
    kind = _type(error)
    place = ["body", error.field] if error.field else ["body"]
    return [{"loc": place, "msg": error.message, "type": kind, "url": f"{ERRORS_PAGE}#{kind}"}]


def _told(error: errors.DarkroomError) -> dict[str, Any]:
    """An error as an answer's body, and a webhook's payload."""
    if type(error) in _TYPES:
        return {"detail": _detail(error)}
    if type(error) in _REQUEST_TYPES or http_errors.status(error) >= 500:
        return {"detail": error.message, "error_type": _type(error)}
    return {"detail": error.message}


def problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error."""
    return _problem(error, http_errors.status(error))


def ended(error: errors.DarkroomError, id_: str) -> Response:
    """Why a request that was accepted came to nothing, by a status at which no client submits it anew or asks again."""
    status, headers = http_errors.status(error), {"x-fal-request-id": id_}
    if isinstance(error, errors.ExpiredInQueueError):
        headers["X-Fal-Request-Timeout-Type"] = "user"
    elif isinstance(error, errors.CancelledError):
        status = CLIENT_CLOSED
    elif status in (502, 503, 504):
        status = 500
    elif status in (408, 409, 429):
        status = 422
    return _problem(error, status, headers)


def _problem(error: errors.DarkroomError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    told = {"X-Fal-Retryable": "true" if isinstance(error, errors.TransientError) else "false"}
    if type(error) in _TYPES and status == 400:
        status = 422
    if "error_type" in (body := _told(error)):
        told["X-Fal-Error-Type"] = body["error_type"]
    return JSONResponse(body, status_code=status, headers={**http_errors.headers(error), **told, **(headers or {})})


async def wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    """A webhook, signed with Ed25519: with a key that all tenants check, not with the tenant's."""
    tenant, failure, content = view.generation.tenant, None, {}
    try:
        webhook = view.generation.submission.webhook
        content = await payload(await reader.request(view.id, tenant), webhook.base if webhook else "")
    except errors.TransientError:
        raise
    except errors.DarkroomError as exc:
        failure, content = exc, _told(exc)
    facts = {"request_id": view.id, "gateway_request_id": view.id, "payload": content}
    error = failure and failure.message
    body = json.dumps({**facts, "status": "ERROR" if failure else "OK", "error": error}).encode()
    timestamp = str(int(time.time()))
    message = "\n".join((view.id, tenant, timestamp, hashlib.sha256(body).hexdigest()))
    headers = {
        "X-Fal-Webhook-Request-Id": view.id,
        "X-Fal-Webhook-User-Id": tenant,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": view.signatures.ed25519.sign(message.encode()).hex(),
    }
    return Message(body=body, headers=headers)
