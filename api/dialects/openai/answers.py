"""Pictures, what they used, and errors in OpenAI's words."""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.openai.asking import NAMES, Input
from api.http import errors as http_errors
from api.service.read import ResultView
from storage.contracts import errors


async def datum(view: ResultView, wanted: str | None, own: str) -> dict[str, Any]:
    """One picture: its `url`, its `b64_json`, or with None both. Raises why there is none.

    The URL is below our address `own`: some clients send their key along to it, which the object store would refuse.
    """
    result = view.made(NAMES)
    answer: dict[str, Any] = {"seed": view.generation.edit.seed}
    if result.upsampled_prompt is not None:
        answer["revised_prompt"] = result.upsampled_prompt
    if wanted != "b64_json":
        answer["url"] = view.steady_url(own)
    if wanted != "url":
        answer["b64_json"] = await view.base64()
    return answer


def about(view: ResultView, sent: Input) -> dict[str, Any]:
    """What all pictures of a request are."""
    size = f"{view.result.width}x{view.result.height}" if view.result else None
    return {"size": size, "quality": sent.quality, "background": "opaque", "output_format": sent.output_format}


def usage(views: Sequence[ResultView]) -> dict[str, Any]:
    """Latent tokens of sixteen by sixteen pixels; of text, an estimate of four characters each."""
    results = [view.result for view in views if view.result]
    made = sum(math.ceil(result.width / 16) * math.ceil(result.height / 16) for result in results)
    edit = views[0].generation.edit
    read = made // max(1, len(results)) * len(edit.references)
    text = math.ceil(len(edit.prompt) / 4)
    return {
        "input_tokens": read + text,
        "output_tokens": made,
        "total_tokens": read + text + made,
        "input_tokens_details": {"image_tokens": read, "text_tokens": text},
    }


def body_of(error: errors.DarkroomError) -> dict[str, Any]:
    """An error as it stands in a body or an event."""
    kind = "invalid_request_error" if http_errors.status(error) < 500 else "server_error"
    return {"message": error.message, "type": kind, "param": error.field, "code": _CODES.get(type(error), error.code)}


_CODES: Mapping[type[errors.DarkroomError], str] = {
    errors.ContentFilteredError: "moderation_blocked",
    errors.UnauthenticatedError: "invalid_api_key",
}
"""Where OpenAI has another word, by which its users tell what to do."""


def failed(error: errors.DarkroomError, request_id: str, *, retry: bool) -> Response:
    """An error's answer; `retry`: whether its client may send the same again by itself."""
    status = http_errors.status(error)
    if isinstance(error, errors.ContentFilteredError | errors.InputUnreachableError):
        status = 400
    headers = {**http_errors.headers(error), "x-request-id": request_id}
    if not retry:
        headers["x-should-retry"] = "false"
    return JSONResponse({"error": body_of(error)}, status_code=status, headers=headers)


def problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error before anything was accepted."""
    return failed(error, f"req_{uuid.uuid4().hex}", retry=isinstance(error, errors.TransientError))
