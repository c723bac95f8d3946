"""Requests of the native API become submissions."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from api import bodies, drafts, inputs, routing, submission
from storage.contracts import catalog, edits, errors, generations, parameters
from storage.contracts.geometry import Canvas, Size

PICTURES = ("input_image", "mask_image")
ENVELOPE = frozenset(
    {
        *PICTURES, "model", "num_generations", "target_namespace", "parent_generation_id", "response_format", "queue_ttl",
        "execution_timeout", "deadline", "model_version", "profile", "gpu_type", "region", "max_cost_usd",
    }
)  # fmt: skip
"""Fields that are not the model's own parameters."""

RATIOS = {
    "1:1": 1.0, "16:9": 16 / 9, "21:9": 21 / 9, "3:2": 3 / 2, "2:3": 2 / 3, "4:5": 4 / 5, "5:4": 5 / 4, "3:4": 3 / 4,
    "4:3": 4 / 3, "9:16": 9 / 16, "9:21": 9 / 21, "match_input_image": None,
}  # fmt: skip

RESOLUTIONS = {"0.5 MP": 2**19, "1 MP": None, "2 MP": 2**21}
"""In pixels; the models' preferred sizes have about one megapixel."""

FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}

NOT_ALLOWED = "disable_safety_checker must be false: the operator of this service does not allow it for this key"

MAX_RECORDED = 500

ResponseFormat = Literal["url", "b64_json"]

Read = Callable[[str], Awaitable[generations.Generation]]
"""Reads one of the caller's generations. Raises `errors.NotFoundError`."""

Routed = Callable[[routing.Pins, edits.Edit, int], Awaitable[submission.Route]]
"""Finds the way of an edit with so many references. Raises `errors.InvalidInputError`."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a request may ask for: the most seconds to wait and to run, and whether to pass by the filters."""

    queue_ttl_s: float
    execution_limit_s: float
    unfiltered: bool


async def request_of(
    body: bodies.Body,
    *,
    tenant: str,
    known: catalog.Catalog,
    bounds: Bounds,
    read: Read,
    routed: Routed,
    idempotency_key: str | None,
    late: bool,
) -> submission.Request:
    """Check a body and say what it asks for.

    `late` turns a bad model parameter into generations recorded as failed, as Oxen's queue does. Raises
    `errors.InvalidInputError`, `errors.ModelNotFoundError` and `errors.NotFoundError` for a parent that is not there.
    """
    fields = {name: value for name, value in body.fields.items() if value is not None}
    name = known.name_of(_string(fields, "model"))
    if "model_version" in fields:
        name = known.version(name, _string(fields, "model_version"))
    if "profile" in fields:
        name = known.profiled(name, _string(fields, "profile"))
    model = known.models[name]
    own = {field: value for field, value in fields.items() if field not in ENVELOPE}
    if body.textual:
        own = {field: parameters.typed(value, model.parameters.get(field)) for field, value in own.items()}
    if "response_format" in fields:
        response_format(fields)
    references, mask = await _pictures(body, fields, model, name, read)
    refused = None
    try:
        edit = _edit(name, model, own, first=bool(references), mask=mask is not None)
    except errors.InvalidInputError as exc:
        if not late:
            raise
        refused = exc
        # What is recorded of a refused request is bounded and can be shown again as JSON, whatever was sent.
        own = {field: _recordable(value) for field, value in own.items() if field in model.parameters}
        prompt = own.get("prompt")
        plain = {"prompt": prompt if isinstance(prompt, str) and prompt.strip() else "-"}
        edit = _edit(name, model, plain, first=bool(references), mask=mask is not None)
    if not edit.filtered and not bounds.unfiltered:
        raise errors.InvalidInputError(NOT_ALLOWED, field="disable_safety_checker")
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise errors.InvalidInputError("Idempotency-Key may have 1 to 255 characters", field="Idempotency-Key")
    parent = fields.get("parent_generation_id")
    return submission.Request(
        tenant=tenant,
        route=await routed(routing.pins_of(fields), edit, len(references)),
        edit=edit.model_copy(update={"parent": parent}) if isinstance(parent, str) else edit,
        references=references,
        mask=mask,
        seed=None if refused else own.get("seed"),
        submitted=_echo(fields, own),
        count=_count(fields.get("num_generations", 1), textual=body.textual),
        queue_ttl_s=_seconds(fields, "queue_ttl", bounds.queue_ttl_s, textual=body.textual),
        execution_limit_s=_seconds(fields, "execution_timeout", bounds.execution_limit_s, textual=body.textual),
        deadline_s=_seconds(fields, "deadline", bounds.queue_ttl_s + bounds.execution_limit_s, textual=body.textual),
        namespace=_string(fields, "target_namespace") if "target_namespace" in fields else None,
        idempotency_key=idempotency_key,
        refused=refused,
    )


def _edit(name: str, model: catalog.Model, sent: Mapping[str, Any], *, first: bool, mask: bool) -> edits.Edit:
    """The edit without its pictures and its seed. `first` says that there is a reference, `mask` that there is one too."""
    checked = model.validate_parameters(sent)
    negative, true_guidance = checked.get("negative_prompt"), checked.get("true_guidance", 1)
    if negative is not None and true_guidance <= 1:
        raise errors.InvalidInputError("negative_prompt needs true_guidance above 1", field="negative_prompt")
    if negative is None and true_guidance > 1:
        raise errors.InvalidInputError("true_guidance above 1 needs a negative_prompt", field="true_guidance")
    if "strength" in sent and not mask:
        raise errors.InvalidInputError("strength is for edits with a mask_image", field="strength")
    return edits.Edit(
        model=name,
        prompt=checked["prompt"],
        references=(),
        canvas=_canvas(model, checked, sent, first=first, mask=mask),
        steps=checked["num_inference_steps"],
        guidance=checked.get("guidance", 1.0),
        negative_prompt=negative,
        true_guidance=true_guidance,
        strength=checked.get("strength", 1.0),
        upsample_temperature=checked.get(catalog.UPSAMPLING) or 0.0,
        seed=0,
        output_format=FORMATS[checked["output_format"]],
        quality=checked["output_quality"],
        previews=checked.get("previews", False),
        filtered=not checked.get("disable_safety_checker", False),
    )


def _canvas(
    model: catalog.Model, checked: Mapping[str, Any], sent: Mapping[str, Any], *, first: bool, mask: bool
) -> Canvas:
    width, height = checked.get("width"), checked.get("height")
    as_input = checked.get("exact_size", False)
    shaped = "aspect_ratio" in sent and sent["aspect_ratio"] != "match_input_image"
    if (width is None) != (height is None):
        missing = "height" if height is None else "width"
        raise errors.InvalidInputError(f"width and height belong together; {missing} is missing", field=missing)
    if shaped and (width is not None or as_input or mask):
        other = "width and height" if width is not None else "exact_size" if as_input else "mask_image"
        raise errors.InvalidInputError(f"aspect_ratio and {other} exclude each other", field="aspect_ratio")
    if as_input and (width is not None or not first):
        reason = "width and height exclude it" if width is not None else "there is no input_image to take it from"
        raise errors.InvalidInputError(f"exact_size: {reason}", field="exact_size")
    pixels = RESOLUTIONS[checked.get("resolution", "1 MP")]
    if width is not None and height is not None:
        if mask:
            raise errors.InvalidInputError("With mask_image the result has the input's shape", field="width")
        if pixels is not None:
            raise errors.InvalidInputError("resolution and width and height exclude each other", field="resolution")
        size = Size(width=width, height=height)
        model.frame.check(size)
        return Canvas(size=size)
    ratio = None if as_input or mask else RATIOS[checked["aspect_ratio"]]
    return Canvas(ratio=ratio, pixels=pixels, as_input=as_input)


def _recordable(value: object) -> object:
    plain = value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else str(value)[:MAX_RECORDED]


async def replay_of(
    found: generations.Generation,
    *,
    known: catalog.Catalog,
    bounds: Bounds,
    routed: Routed,
    idempotency_key: str | None,
) -> submission.Request:
    """The same again. Pictures that were stored are copied, for each generation deletes its own.

    Raises `errors.InvalidInputError` for what was refused then or would be now, and `errors.ModelNotFoundError`.
    """
    edit = found.edit.model_copy(update={"deliver": None})
    known.model(edit.model)
    if found.error_code == errors.InvalidInputError.code:
        raise errors.InvalidInputError("What was refused cannot be replayed", field="generation_id")
    if not edit.filtered and not bounds.unfiltered:
        raise errors.InvalidInputError(NOT_ALLOWED, field="disable_safety_checker")

    def seconds(name: str) -> float | None:
        value = found.submitted.get(name)
        return float(value) if isinstance(value, int | float | str) else None

    def again(picture: edits.Input) -> submission.Picture:
        return submission.KeptPicture(key=picture.key) if isinstance(picture, edits.StoredInput) else picture

    return submission.Request(
        tenant=found.tenant,
        route=await routed(routing.pins_of(found.submitted), edit, len(edit.references)),
        edit=edit,
        references=[again(reference) for reference in edit.references],
        mask=again(edit.mask) if edit.mask else None,
        seed=edit.seed,
        submitted=found.submitted,
        queue_ttl_s=seconds("queue_ttl"),
        execution_limit_s=seconds("execution_timeout"),
        deadline_s=seconds("deadline"),
        namespace=str(found.submitted["target_namespace"]) if "target_namespace" in found.submitted else None,
        idempotency_key=idempotency_key,
    )


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
        f"{name} must be a number of seconds between 1 and {most:g}; got {parameters.shown(value)}", field=name
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


async def _pictures(
    body: bodies.Body, fields: Mapping[str, Any], model: catalog.Model, name: str, read: Read
) -> tuple[list[submission.Picture], submission.Picture | None]:
    references: list[submission.Picture] = []
    if "parent_generation_id" in fields:
        references.append(await _result_of(_string(fields, "parent_generation_id"), read))
    references += await inputs.of_field(body, "input_image")
    masks = await inputs.of_field(body, "mask_image")
    drafts.check_pictures(name, model, references, masks, image="input_image", mask="mask_image")
    return references, masks[0] if masks else None


async def _result_of(id_: str, read: Read) -> submission.KeptPicture:
    parent = await read(id_)
    if parent.result is None:
        message = f"parent_generation_id: that generation is {parent.status}; only a succeeded one has a result"
        raise errors.InvalidInputError(message, field="parent_generation_id")
    return submission.KeptPicture(key=parent.result.key)


def _echo(fields: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, object]:
    """The parameters to show again when asked; pictures sent along are shown as URLs instead."""
    echo = {name: value for name, value in own.items() if name != "prompt"}
    for name in (
        "target_namespace",
        "parent_generation_id",
        "response_format",
        "queue_ttl",
        "execution_timeout",
        "deadline",
        "model_version",
        "profile",
        "gpu_type",
        "region",
        "max_cost_usd",
    ):
        if name in fields:
            echo[name] = fields[name]
    for name in PICTURES:
        image = fields.get(name)
        urls = image if isinstance(image, list) else [image]
        if all(isinstance(url, str) and not url.startswith("data:") for url in urls):
            echo[name] = image
    return echo
