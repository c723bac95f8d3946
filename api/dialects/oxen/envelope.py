"""Fields of a native request that are not its model's own parameters."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pydantic_core

from api.dialects import base
from storage.contracts import errors, parameters, submissions

PICTURES = ("input_image", "mask_image")
SHOWN = (
    "target_namespace", "parent_generation_id", "response_format", "queue_ttl", "execution_timeout", "deadline", "model_version",
    "no_store", "priority", "custom_id", "metadata", "profile", "gpu_type", "region", "max_cost_usd",
)  # fmt: skip
"""What is shown again of them."""
NAMES = frozenset({*PICTURES, *SHOWN, "model", "num_generations", "webhook_url", "webhook_events", "group"})

MAX_GENERATIONS = 4
"""Of one request."""

ResponseFormat = Literal["url", "b64_json"]


def response_format(fields: Mapping[str, Any]) -> ResponseFormat:
    """`url` or `b64_json`. Raises `errors.InvalidInputError`."""
    value = fields.get("response_format") or "url"
    if value == "url":
        return "url"
    if value == "b64_json":
        return "b64_json"
    raise errors.InvalidInputError(
        f"response_format must be one of url, b64_json; got {parameters.shown(value)}", field="response_format"
    )


def string(fields: Mapping[str, Any], name: str) -> str:
    """A field that must be there. Raises `errors.InvalidInputError`."""
    if name not in fields:
        raise errors.InvalidInputError(f"{name} is required", field=name)
    value = fields[name]
    if not isinstance(value, str) or not 1 <= len(value) <= 200:
        message = f"{name} must be a string of 1 to 200 characters; got {parameters.shown(value)}"
        raise errors.InvalidInputError(message, field=name)
    return value


def seconds(fields: Mapping[str, Any], name: str, most: float, *, textual: bool) -> float | None:
    """A time limit, if it is there. Raises `errors.InvalidInputError`."""
    value = fields.get(name)
    if value is None:
        return None
    if textual and isinstance(value, str):
        value = _number(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value <= most:
        return float(value)
    raise errors.InvalidInputError(
        f"{name} must be a number of seconds between 1 and {most:g}; got {parameters.shown(value)}", field=name
    )


def flag(fields: Mapping[str, Any], name: str, *, textual: bool) -> bool:
    """True or false, by default false. Raises `errors.InvalidInputError`."""
    value = fields.get(name, False)
    if textual and value in ("true", "false"):
        value = value == "true"
    if isinstance(value, bool):
        return value
    raise errors.InvalidInputError(f"{name} must be true or false; got {parameters.shown(value)}", field=name)


def priority(fields: Mapping[str, Any]) -> int:
    """How soon, by default as usual. Raises `errors.InvalidInputError`."""
    value = fields.get("priority", "normal")
    if isinstance(value, str) and value in submissions.PRIORITIES:
        return submissions.PRIORITIES[value]
    allowed = ", ".join(submissions.PRIORITIES)
    raise errors.InvalidInputError(
        f"priority must be one of {allowed}; got {parameters.shown(value)}", field="priority"
    )


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


MAX_METADATA = 16
"""Entries, whose names have at most 64 and values at most 500 characters."""


def metadata(fields: Mapping[str, Any], *, textual: bool) -> dict[str, Any] | None:
    """What the caller notes about a request, if anything. Raises `errors.InvalidInputError`."""
    value = fields.get("metadata")
    if textual and isinstance(value, str):
        try:
            value = pydantic_core.from_json(value, allow_inf_nan=False)
        except ValueError:
            value = value or None
    if value is None:
        return None
    if (
        isinstance(value, dict)
        and len(value) <= MAX_METADATA
        and all(
            len(name) <= 64 and isinstance(one, str | int | float | bool) and len(str(one)) <= 500
            for name, one in value.items()
        )
        and all(math.isfinite(one) for one in value.values() if isinstance(one, float))
    ):
        return value
    message = (
        f"metadata must be an object of at most {MAX_METADATA} names (64 characters) and plain values (500 characters)"
    )
    raise errors.InvalidInputError(message, field="metadata")


EVENTS: Mapping[str, submissions.Moment] = {"started": "start", "completed": "completed"}
"""When a webhook may ask to be called."""


def webhook(fields: Mapping[str, Any], base_url: str) -> submissions.Webhook | None:
    """A webhook, if one is asked for. Raises `errors.InvalidInputError`."""
    sent = fields.get("webhook_events", ["completed"])
    events = sent.split(",") if isinstance(sent, str) else sent
    if not isinstance(events, list) or not events or not all(isinstance(one, str) and one in EVENTS for one in events):
        known = ", ".join(EVENTS)
        message = (
            f"webhook_events must be a list of {known}; in a form, with commas between; got {parameters.shown(sent)}"
        )
        raise errors.InvalidInputError(message, field="webhook_events")
    moments = tuple(moment for event, moment in EVENTS.items() if event in events)
    return base.webhook_of(fields.get("webhook_url"), "webhook_url", "oxen", base=base_url, moments=moments)


def count(fields: Mapping[str, Any], *, textual: bool) -> int:
    """How many generations. Raises `errors.InvalidInputError`."""
    value = fields.get("num_generations", 1)
    if textual and isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_GENERATIONS:
        return value
    message = f"num_generations must be an integer between 1 and {MAX_GENERATIONS}; got {parameters.shown(value)}"
    raise errors.InvalidInputError(message, field="num_generations")
