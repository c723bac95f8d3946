"""What predictions take, and what that is as a submission."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from api.dialects import base, fields, loras
from api.http import pictures
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, parameters, submissions
from storage.contracts.geometry import Canvas, Size

FORMATS: dict[str, edits.OutputFormat] = {"webp": "webp", "jpg": "jpeg", "png": "png"}
NUMBERED = ("input_image", *(f"input_image_{number}" for number in range(1, 9)))
PICTURES = (NUMBERED, "input_images", "image", "images")
"""Models call their pictures differently; some clients send them by all of these names."""
NAMES = Names(image="input_image", guidance="guidance", upsampling="prompt_upsampling", webhook="webhook")
WEBHOOK_EVENTS = ("start", "output", "logs", "completed")
LONGEST_WAIT_S = 60
_UNITS = (3600, 60, 1)
"""Seconds of an hour, a minute and a second, in the order of `Cancel-After`."""
Ratio = Literal[
    "match_input_image", "1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "2:1", "1:2", "custom",
]  # fmt: skip

SYNONYMS = (
    ("num_inference_steps", "steps"), ("guidance", "guidance_scale"), ("output_megapixels", "megapixels"),
    ("output_megapixels", "resolution"), ("resolution", "megapixels"),
)  # fmt: skip
"""Of two that mean the same the first is obeyed."""
SHAPES = ("aspect_ratio", "megapixels", "output_megapixels", "resolution")
Megapixels = Literal["0.25", "0.5", "1", "2", "4"]
Resolution = Literal["match_input_image", "0.25 MP", "0.5 MP", "1 MP", "2 MP", "4 MP"]


class Input(fields.Fields):
    """A prediction's `input`: what the models of FLUX.1 Kontext and FLUX.2 take there, under all of their names."""

    PASSES_OVER: ClassVar = True

    prompt: fields.Prompt
    input_image: fields.Pictures = None
    input_image_1: fields.Picture = None
    input_image_2: fields.Picture = None
    input_image_3: fields.Picture = None
    input_image_4: fields.Picture = None
    input_image_5: fields.Picture = None
    input_image_6: fields.Picture = None
    input_image_7: fields.Picture = None
    input_image_8: fields.Picture = None
    input_images: fields.Pictures = None
    image: fields.Pictures = None
    images: fields.Pictures = None
    mask: fields.Picture = None
    negative_prompt: fields.NegativePrompt = ""
    num_outputs: Annotated[int, Field(ge=1, le=4, description="Pictures")] = 1
    aspect_ratio: Annotated[Ratio, Field(description="Shape")] = "match_input_image"
    size: Annotated[str | None, Field(max_length=20, description="Width and height in pixels, as 1024x768")] = None
    width: Annotated[int | None, Field(ge=64, le=2048, description="In pixels, with height")] = None
    height: Annotated[int | None, Field(ge=64, le=2048, description="In pixels, with width")] = None
    megapixels: Annotated[Megapixels, Field(description="About")] = "1"
    output_megapixels: Annotated[Megapixels | None, Field(description="The same")] = None
    resolution: Annotated[Resolution | None, Field(description="The same")] = None
    num_inference_steps: fields.Steps | None = None
    steps: Annotated[int | None, Field(ge=1, le=50, description="The same as num_inference_steps")] = None
    guidance: Annotated[float | None, Field(ge=0, le=10, description="Guidance scale")] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, description="The same as guidance")] = None
    lora_weights: Annotated[str | None, Field(max_length=500, description="Of those that the operator offers")] = None
    lora_scale: Annotated[float | None, Field(ge=0, le=loras.MAX_SCALE, description="How strongly it works")] = None
    prompt_upsampling: Annotated[bool, Field(description="Write the prompt anew, where the model can")] = False
    seed: fields.Seed | None = None
    output_format: Annotated[Literal["webp", "jpg", "png"], Field(description="Format")] = "webp"
    output_quality: Annotated[int, Field(ge=0, le=100, description="Quality")] = 80
    disable_safety_checker: Annotated[bool, Field(description="Where it is allowed")] = False
    go_fast: Annotated[bool, Field(description="How fast is the operator's choice"), fields.NO_EFFECT] = True
    safety_tolerance: Annotated[int, Field(ge=0, le=6, description="One filter for all"), fields.NO_EFFECT] = 2

    @property
    def _size(self) -> Size | None:
        sides = base.both_sides(self.width, self.height)
        return sides or (base.size_of(self.size, "size") if self.size else None)

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        size = self._size
        if self.aspect_ratio == "custom" and size is None:
            raise errors.InvalidInputError("aspect_ratio: custom needs width and height", field="aspect_ratio")
        if size is not None:
            return Canvas(size=size)
        about = self.output_megapixels or (self.resolution or "").removesuffix(" MP") or self.megapixels
        pixels = None if about in ("1", "match_input_image") else int(float(about) * 2**20)
        ratio = None if self.aspect_ratio == "match_input_image" else base.ratio_of(self.aspect_ratio)
        return Canvas(ratio=ratio, pixels=pixels)

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """See `fields.Fields`."""
        beaten: set[str] = set()
        if self.mask:
            # A picture that is painted in keeps its shape.
            beaten = {*SHAPES, "size", "width", "height"}
        elif self._size is not None:
            beaten = {*SHAPES, "size" if self.width else ""} - {"aspect_ratio" if self.aspect_ratio == "custom" else ""}
        for other, name in SYNONYMS:
            if getattr(self, other) is not None and other in self.model_fields_set:
                beaten |= {name}
        if not self.lora_weights:
            beaten |= {"lora_scale"}
        return (
            *super().without_effect(model),
            *sorted(beaten & self.model_fields_set),
            *base.not_taken(model, self.model_fields_set, guidance=("guidance", "guidance_scale")),
        )


def names(sent: Mapping[str, Any]) -> Names:
    """What fields are called in this input, for errors: several have several names."""

    def first(*candidates: str) -> str:
        return next((name for name in candidates if sent.get(name)), candidates[0])

    return replace(
        NAMES,
        image=first("input_image", "input_images", "image", "images", "input_image_1"),
        guidance=first("guidance", "guidance_scale"),
        size="size" if sent.get("size") and not sent.get("width") else None,
    )


class Prediction(fields.Fields):
    """A request's body, for OpenAPI; what Replicate does not document is passed over."""

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
    alias: str,
    known: catalog.Catalog,
    own: str,
    cancel_after: str | None,
    idempotency_key: str | None,
) -> submissions.Submission:
    """A prediction of a model, by an alias of it, as a submission; `own` is our address. Raises `errors.InvalidInputError`."""
    fields_ = body.get("input")
    if not isinstance(fields_, dict):
        raise errors.InvalidInputError("input must be an object", field="input")
    sent = Input.check(fields_)
    references = await pictures.of_synonyms(fields_, PICTURES)
    if not references:
        name = known.drawing(alias) or name
    wanted = [loras.one_of(sent.lora_weights, sent.lora_scale, "lora_weights")] if sent.lora_weights else []
    name, lora_scale = loras.applied(known, name, wanted, "lora_weights")
    model = known.models[name]
    masks = await pictures.of_value(fields_.get("mask") or None, "mask")
    moments = _moments(body)
    negative, true_guidance = base.negative_of(model, sent.negative_prompt)
    guidance = sent.guidance if sent.guidance is not None else sent.guidance_scale
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            mask=base.one_mask(masks, "mask"),
            canvas=Canvas() if masks else sent.canvas,
            steps=sent.num_inference_steps or sent.steps or model.usual_steps,
            guidance=base.guidance_of(model, guidance),
            negative_prompt=negative,
            true_guidance=true_guidance,
            lora_scale=lora_scale,
            upsample_temperature=base.UPSAMPLE_TEMPERATURE if sent.prompt_upsampling else 0.0,
            output_format=FORMATS[sent.output_format],
            quality=sent.output_quality,
            filtered=not sent.disable_safety_checker,
        ),
        seed=base.seed_of(sent.seed),
        count=sent.num_outputs,
        ignored=submissions.told_names(sent.without_effect(model)),
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
    parts = re.fullmatch("(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,5})s?)?", text.strip())
    seconds = sum(int(number or 0) * unit for number, unit in zip(parts.groups(), _UNITS, strict=True)) if parts else 0
    if seconds < 1:
        raise errors.InvalidInputError("Cancel-After must be a time such as 90s, 5m or 1h30m", field="Cancel-After")
    return seconds
