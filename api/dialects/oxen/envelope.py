"""Fields of a native request that are not its model's own parameters."""

from collections.abc import Mapping
from typing import Any, Literal

from storage.contracts import errors, parameters

PICTURES = ("input_image", "mask_image")
SHOWN = (
    "target_namespace", "parent_generation_id", "response_format", "queue_ttl", "execution_timeout", "deadline", "model_version",
    "profile", "gpu_type", "region", "max_cost_usd",
)  # fmt: skip
"""What is shown again of them."""
NAMES = frozenset({*PICTURES, *SHOWN, "model", "num_generations"})

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
    value = fields.get(name)
    if value is None or value == "":
        raise errors.InvalidInputError(f"{name} is required", field=name)
    if not isinstance(value, str) or len(value) > 200:
        raise errors.InvalidInputError(f"{name} must be a string of at most 200 characters", field=name)
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


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def count(fields: Mapping[str, Any], *, textual: bool) -> int:
    """How many generations. Raises `errors.InvalidInputError`."""
    value = fields.get("num_generations", 1)
    if textual and isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_GENERATIONS:
        return value
    message = f"num_generations must be an integer between 1 and {MAX_GENERATIONS}"
    raise errors.InvalidInputError(message, field="num_generations")
