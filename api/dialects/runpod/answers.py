"""Jobs and errors in RunPod's words."""

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.runpod.asking import NAMES
from api.http import errors as http_errors
from api.service.read import Reader, ResultView
from api.webhooks.delivery import Message
from api.webhooks.signing import standard_webhook
from storage.contracts import errors, generations, results, submissions

STATES = {
    generations.Status.QUEUED: "IN_QUEUE",
    generations.Status.PROCESSING: "IN_PROGRESS",
    generations.Status.SUCCEEDED: "COMPLETED",
    generations.Status.FAILED: "FAILED",
    generations.Status.CANCELLED: "CANCELLED",
}
TIMED_OUT = frozenset({errors.TimedOutError.code, errors.ExpiredInQueueError.code, errors.DeadlineExceededError.code})
SYNC = "sync-"
"""What ids of jobs that were run synchronously begin with."""
_ID = re.compile(rf"(?:{SYNC})?([0-9a-f-]{{36}})(?:-[ue]1)?")


def job_id(id_: str, prefix: str = "") -> str:
    """A generation's id as RunPod's look."""
    return f"{prefix}{id_}-u1"


def prefix_of(job_id: str) -> str:
    """What a job's id begins with."""
    return SYNC if job_id.startswith(SYNC) else ""


def generation_id(job_id: str) -> str:
    """The id without what is RunPod's. Raises `errors.NotFoundError`."""
    parts = _ID.fullmatch(job_id)
    if not parts:
        raise errors.NotFoundError("job not found")
    return parts[1]


def state(view: ResultView) -> str:
    """A job's status."""
    return "TIMED_OUT" if view.generation.error_code in TIMED_OUT else STATES[view.generation.status]


async def job(view: ResultView, prefix: str = "") -> dict[str, Any]:
    """A job; times in milliseconds. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError` for an inline picture."""
    generation = view.generation
    answer: dict[str, Any] = {"id": job_id(view.id, prefix), "status": state(view)}
    if generation.times.delay_ms is not None:
        answer["delayTime"] = generation.times.delay_ms
    if view.is_over and generation.execution_ms is not None:
        answer["executionTime"] = generation.execution_ms
    if generation.worker is not None:
        answer["workerId"] = generation.worker
    if view.result is not None:
        answer["output"] = await _output(view, view.result)
    elif generation.status is generations.Status.PROCESSING and generation.step:
        answer["output"] = {"step": generation.step, "steps": generation.edit.steps}
    failure = view.failure(NAMES)
    if failure is not None and generation.error_message is not None:
        answer |= {"error": failure.message, "error_code": failure.code}
    return answer


async def _output(view: ResultView, result: results.Result) -> dict[str, Any]:
    url, edit = view.url, view.generation.edit
    if result.delivered and edit.deliver:
        url = edit.deliver.get_url
    output: dict[str, Any] = {
        "image_url": url,
        "result": url,
        "cost": view.price_usd,
        "seed": edit.seed,
        "width": result.width,
        "height": result.height,
    }
    if result.delivered is not None:
        output["delivered"] = result.delivered
    if view.generation.submission.inline:
        output["image"] = await view.data_uri()
    return output


def problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error."""
    message = "endpoint not found" if isinstance(error, errors.ModelNotFoundError) else error.message
    if isinstance(error, errors.UnauthenticatedError):
        message = "unauthorized"
    body: dict[str, Any] = {"error": message, "error_code": error.code}
    if error.field is not None:
        body["field"] = error.field
    return JSONResponse(body, status_code=http_errors.status(error), headers=http_errors.headers(error))


async def wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    """A webhook, signed as Standard Webhooks has it."""
    submission = view.generation.submission
    webhook = submission.webhook
    answer = await job(view, webhook.note if webhook else "")
    shown = {**submission.echo, "prompt": submission.edit.prompt}
    body = json.dumps({**answer, "input": shown, "webhook": webhook and webhook.url}).encode()
    signed = standard_webhook(keys, id_=view.generation.webhook_id(moment), body=body, now=time.time())
    return Message(body=body, headers=signed)
