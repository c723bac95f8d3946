"""What predictions take, and what that is as a submission."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from api.dialects import base, fields
from api.http import pictures
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, parameters, submissions
from storage.contracts.geometry import Canvas

FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}
PICTURES = ("input_image", "input_images", "image", "images")
NAMES = Names(image="input_image")
WEBHOOK_EVENTS = ("start", "output", "logs", "completed")
LONGEST_WAIT_S = 60
_UNITS = {"s": 1, "m": 60, "h": 3600}
Ratio = Literal[
    "match_input_image", "1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "2:1", "1:2", "custom",
]  # fmt: skip


class Input(fields.Fields):
    """A prediction's `input`."""

    prompt: fields.Prompt
    input_image: fields.Pictures = None
    input_images: fields.Pictures = None
    image: fields.Pictures = None
    images: fields.Pictures = None
    aspect_ratio: Annotated[Ratio, Field(description="Shape")] = "match_input_image"
    width: Annotated[int | None, Field(ge=64, le=2048, description="In pixels, with height")] = None
    height: Annotated[int | None, Field(ge=64, le=2048, description="In pixels, with width")] = None
    megapixels: Annotated[Literal["0.25", "0.5", "1", "2"], Field(description="About")] = "1"
    num_inference_steps: fields.Steps | None = None
    guidance: Annotated[float | None, Field(ge=0, le=10, description="Guidance scale")] = None
    seed: fields.Seed | None = None
    output_format: Annotated[Literal["webp", "jpg", "png"], Field(description="Format")] = "webp"
    output_quality: Annotated[int, Field(ge=0, le=100, description="Quality")] = 80
    disable_safety_checker: Annotated[bool, Field(description="Where it is allowed")] = False
    go_fast: Annotated[bool, Field(description="How fast is the operator's choice")] = True

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        if self.aspect_ratio == "custom" and self.width is None and self.height is None:
            raise errors.InvalidInputError("aspect_ratio: custom needs width and height", field="aspect_ratio")
        size = base.both_sides(self.width, self.height)
        if size is not None:
            return Canvas(size=size)
        pixels = None if self.megapixels == "1" else int(float(self.megapixels) * 2**20)
        ratio = None if self.aspect_ratio == "match_input_image" else base.ratio_of(self.aspect_ratio)
        return Canvas(ratio=ratio, pixels=pixels)


class Prediction(fields.Fields):
    """A request's body."""

    input: Annotated[Any, Field(json_schema_extra=Input.model_json_schema())] = None
    version: Any = None
    model: Any = None
    webhook: Any = None
    webhook_events_filter: Any = None
    stream: Any = None


async def submission_of(
    body: Mapping[str, Any],
    *,
    name: str,
    model: catalog.Model,
    own: str,
    cancel_after: str | None,
    idempotency_key: str | None,
) -> submissions.Submission:
    """A prediction of a model as a submission; `own` is our address. Raises `errors.InvalidInputError`."""
    Prediction.refuse_unknown(body)
    fields_ = body.get("input")
    if not isinstance(fields_, dict):
        raise errors.InvalidInputError("input must be an object", field="input")
    sent = Input.check(fields_)
    references = [picture for field in PICTURES for picture in await pictures.of_value(fields_.get(field), field)]
    moments = _moments(body)
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            canvas=sent.canvas,
            steps=sent.num_inference_steps or model.usual_steps,
            guidance=model.guidance(sent.guidance),
            output_format=FORMATS[sent.output_format],
            quality=sent.output_quality,
            filtered=not sent.disable_safety_checker,
        ),
        seed=sent.seed,
        deadline_s=_seconds(cancel_after) if cancel_after else None,
        webhook=base.webhook_of(
            body.get("webhook") if moments else None,
            "webhook",
            "replicate",
            base=own,
            moments=moments or ("completed",),
        ),
        idempotency_key=idempotency_key,
        echo=pictures.echo(fields_),
    )


def _moments(body: Mapping[str, Any]) -> tuple[submissions.Moment, ...]:
    wanted = body.get("webhook_events_filter") or list(WEBHOOK_EVENTS)
    if not isinstance(wanted, list) or any(one not in WEBHOOK_EVENTS for one in wanted):
        message = f"webhook_events_filter must be a list of {', '.join(WEBHOOK_EVENTS)}"
        raise errors.InvalidInputError(message, field="webhook_events_filter")
    start: tuple[submissions.Moment, ...] = ("start",) if "start" in wanted else ()
    return (*start, "completed") if {"completed", "output"} & set(wanted) else start


def wait_s(prefer: str) -> float:
    """Seconds of `Prefer: wait` or `wait=n`; other preferences are passed over. Raises `errors.InvalidInputError`."""
    for preference in prefer.split(","):
        name, _, value = preference.partition("=")
        if name.strip() == "wait":
            seconds = value.strip() or str(LONGEST_WAIT_S)
            if not re.fullmatch("[0-9]{1,2}", seconds) or not 1 <= int(seconds) <= LONGEST_WAIT_S:
                message = f"Prefer: wait must be 1 to {LONGEST_WAIT_S}; got {parameters.shown(seconds)}"
                raise errors.InvalidInputError(message, field="Prefer")
            return int(seconds)
    return 0


def _seconds(text: str) -> float:
    parts = re.fullmatch("([0-9]{1,5})([smh]?)", text.strip())
    if not parts or int(parts[1]) < 1:
        raise errors.InvalidInputError("Cancel-After must be a time such as 90s, 5m or 1h", field="Cancel-After")
    return int(parts[1]) * _UNITS[parts[2] or "s"]
