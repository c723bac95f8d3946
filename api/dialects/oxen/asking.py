"""Requests of the native API become submissions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from api import bodies, submission
from storage import queues
from storage.contracts import catalog, edits, errors

ENVELOPE = frozenset(
    {"model", "num_generations", "target_namespace", "input_image", "response_format", "queue_ttl", "execution_timeout"}
)
"""Fields that are not the model's own parameters."""

RATIOS = {
    "1:1": 1.0, "16:9": 16 / 9, "21:9": 21 / 9, "3:2": 3 / 2, "2:3": 2 / 3, "4:5": 4 / 5, "5:4": 5 / 4, "3:4": 3 / 4,
    "4:3": 4 / 3, "9:16": 9 / 16, "9:21": 9 / 21, "match_input_image": None,
}  # fmt: skip

FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}

MAX_URL = 2048
MAX_RECORDED = 500

ResponseFormat = Literal["url", "b64_json"]


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The most seconds a request may ask to wait and to run."""

    queue_ttl_s: float
    execution_limit_s: float


async def request_of(
    body: bodies.Body, *, tenant: str, known: catalog.Catalog, bounds: Bounds, idempotency_key: str | None, late: bool
) -> submission.Request:
    """Check a body and say what it asks for.

    `late` turns a bad model parameter into generations recorded as failed, as Oxen's queue does. Raises
    `errors.InvalidInputError` and `errors.ModelNotFoundError`.
    """
    fields = {name: value for name, value in body.fields.items() if value is not None}
    name = _string(fields, "model")
    model = known.model(name)
    parameters = {field: value for field, value in fields.items() if field not in ENVELOPE}
    if body.textual:
        parameters = {field: _typed(value, model.parameters.get(field)) for field, value in parameters.items()}
    for file in body.files:
        if file != "input_image":
            raise errors.InvalidInputError(f"{file} is not a known file field; allowed: input_image", field=file)
    if "response_format" in fields:
        response_format(fields)
    refused = None
    try:
        checked = model.validate_parameters(parameters)
    except errors.InvalidInputError as exc:
        if not late:
            raise
        refused = exc
        # What is recorded of a refused request is bounded and can be shown again as JSON, whatever was sent.
        parameters = {field: _recordable(value) for field, value in parameters.items() if field in model.parameters}
        prompt = parameters.get("prompt")
        checked = model.validate_parameters({"prompt": prompt if isinstance(prompt, str) and prompt.strip() else "-"})
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise errors.InvalidInputError("Idempotency-Key may have 1 to 255 characters", field="Idempotency-Key")
    return submission.Request(
        tenant=tenant,
        queue=queues.queue_name(name),
        model=name,
        prompt=checked["prompt"],
        references=await _references(fields.get("input_image"), body.files.get("input_image", ()), model, name),
        aspect_ratio=RATIOS[checked["aspect_ratio"]],
        steps=checked["num_inference_steps"],
        guidance=checked["guidance"],
        seed=checked["seed"],
        output_format=FORMATS[checked["output_format"]],
        quality=checked["output_quality"],
        submitted=_echo(fields, parameters),
        count=_count(fields.get("num_generations", 1), textual=body.textual),
        queue_ttl_s=_seconds(fields, "queue_ttl", bounds.queue_ttl_s, textual=body.textual),
        execution_limit_s=_seconds(fields, "execution_timeout", bounds.execution_limit_s, textual=body.textual),
        namespace=_string(fields, "target_namespace") if "target_namespace" in fields else None,
        idempotency_key=idempotency_key,
        refused=refused,
    )


def _recordable(value: object) -> object:
    plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)[:MAX_RECORDED]


def response_format(fields: Mapping[str, Any]) -> ResponseFormat:
    """`url` or `b64_json`. Raises `errors.InvalidInputError`."""
    value = fields.get("response_format") or "url"
    if value == "url":
        return "url"
    if value == "b64_json":
        return "b64_json"
    raise errors.InvalidInputError(
        f"response_format must be one of url, b64_json; got {catalog.shown(value)}", field="response_format"
    )


def _string(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or value == "":
        raise errors.InvalidInputError(f"{name} is required", field=name)
    if not isinstance(value, str) or len(value) > 200:
        raise errors.InvalidInputError(f"{name} must be a string of at most 200 characters", field=name)
    return value


def _seconds(fields: Mapping[str, Any], name: str, most: float, *, textual: bool) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if textual and isinstance(value, str):
        value = _number(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= most:
        return float(value)
    raise errors.InvalidInputError(
        f"{name} must be a number of seconds between 1 and {most:g}; got {catalog.shown(value)}", field=name
    )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _count(value: object, *, textual: bool) -> int:
    if textual and isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= submission.MAX_GENERATIONS:
        return value
    message = f"num_generations must be an integer between 1 and {submission.MAX_GENERATIONS}"
    raise errors.InvalidInputError(message, field="num_generations")


def _typed(value: str, parameter: catalog.Parameter | None) -> object:
    """A form's text as the type its parameter has; what does not fit stays text and is refused by name."""
    if parameter is None:
        return value
    if parameter.type == "boolean":
        return {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
    try:
        return {"integer": int, "number": float}.get(parameter.type, str)(value)
    except ValueError:
        return value


async def _references(
    value: object, files: tuple[bytes, ...], model: catalog.Model, name: str
) -> list[submission.SentPicture | edits.RemoteInput]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    if not entries and not files:
        raise errors.InvalidInputError(
            "input_image is required: a URL, a data URI or an uploaded file", field="input_image"
        )
    if len(entries) + len(files) > model.max_references:
        message = f"input_image: {name} takes at most {model.max_references}; got {len(entries) + len(files)}"
        raise errors.InvalidInputError(message, field="input_image")
    references = [await _reference(entry) for entry in entries]
    return references + [_sent(await bodies.picture(file, "input_image")) for file in files]


async def _reference(entry: object) -> submission.SentPicture | edits.RemoteInput:
    if isinstance(entry, str) and entry.startswith("data:"):
        return _sent(await bodies.picture_of_data_uri(entry, "input_image"))
    if isinstance(entry, str) and entry.startswith(("http://", "https://")):
        if len(entry) > MAX_URL:
            raise errors.InvalidInputError(
                f"input_image may have at most {MAX_URL} characters as a URL", field="input_image"
            )
        return edits.RemoteInput(url=entry)
    raise errors.InvalidInputError("input_image must be an http(s) URL or a data URI", field="input_image")


def _sent(picture: bodies.Picture) -> submission.SentPicture:
    return submission.SentPicture(data=picture.data, content_type=picture.header.content_type)


def _echo(fields: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, object]:
    """The parameters to show again when asked; pictures sent along are shown as URLs instead."""
    echo = {name: value for name, value in parameters.items() if name != "prompt"}
    for name in ("target_namespace", "response_format", "queue_ttl", "execution_timeout"):
        if name in fields:
            echo[name] = fields[name]
    image = fields.get("input_image")
    urls = image if isinstance(image, list) else [image]
    if all(isinstance(url, str) and not url.startswith("data:") for url in urls):
        echo["input_image"] = image
    return echo
