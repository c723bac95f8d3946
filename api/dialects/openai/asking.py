"""What the Images API takes, and what that is as a submission."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from api.dialects import base, fields
from api.http import bodies, pictures
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, parameters, submissions
from storage.contracts.geometry import Canvas

Kind = Literal["image_edit", "image_generation"]

FILES = ("image", "image[]", "mask")
STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 1.75, "max": 2.0}
"""Denoising steps by quality, as a share of the model's default; medium, standard and auto are the default."""
MOST_STEPS = 50
NAMES = Names(size="size")
_OPENAIS = re.compile(r"gpt-image-|dall-e-|chatgpt-image", re.IGNORECASE)


class Input(fields.Fields):
    """A request's fields, and Darkroom's own from `seed` on."""

    FORM: ClassVar = True

    prompt: Annotated[
        str, Field(max_length=32_000, description="The instruction"), AfterValidator(parameters.not_blank)
    ]
    image: fields.Pictures = None
    image_list: fields.Pictures = Field(default=None, alias="image[]")
    images: Annotated[Any, Field(description="In JSON: objects with image_url")] = None
    mask: fields.Picture = None
    model: Annotated[str | None, Field(max_length=200, description="A model, or the operator's default")] = None
    n: Annotated[int, Field(ge=1, le=10, description="Pictures")] = 1
    size: Annotated[str, Field(max_length=20, description="WxH, or auto: as the input")] = "auto"
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"],
        Field(description="How many denoising steps"),
    ] = "auto"
    response_format: Annotated[Literal["url", "b64_json"] | None, Field(description="Absent: both")] = None
    output_format: Annotated[Literal["png", "jpeg", "webp"], Field(description="Format")] = "png"
    output_compression: Annotated[int, Field(ge=0, le=100, description="Quality")] = 100
    background: Annotated[Literal["auto", "opaque"], Field(description="Opaque")] = "auto"
    input_fidelity: Annotated[
        Literal["high", "low"] | None, Field(description="Inputs are always read whole"), fields.NO_EFFECT
    ] = None
    complexity: Annotated[
        Literal["low", "medium", "high"] | None, Field(description="As the prompt says"), fields.NO_EFFECT
    ] = None
    moderation: Annotated[Literal["auto", "low"], Field(description="One filter for all"), fields.NO_EFFECT] = "auto"
    style: Annotated[Literal["vivid", "natural"] | None, Field(description="As the prompt says"), fields.NO_EFFECT] = (
        None
    )
    safety_identifier: Annotated[
        str | None, Field(max_length=200, description="The caller's own user"), fields.NO_EFFECT
    ] = None
    stream: Annotated[bool, Field(description="Answer with events")] = False
    partial_images: Annotated[int, Field(ge=0, le=3, description="Previews")] = 0
    user: Annotated[str | None, Field(max_length=200, description="The caller's own user"), fields.NO_EFFECT] = None
    seed: fields.Seed | None = None
    num_inference_steps: Annotated[int | None, Field(ge=1, le=MOST_STEPS, description="Instead of quality")] = None
    guidance: Annotated[float | None, Field(ge=0, le=10, description="Guidance scale")] = None
    negative_prompt: fields.NegativePrompt | None = None
    caption_upsample_temperature: fields.UpsampleTemperature = 0.0

    def steps(self, model: catalog.Model) -> int:
        """Denoising steps: named, or by quality."""
        if self.num_inference_steps is not None:
            return self.num_inference_steps
        if self.quality not in STEPS:
            return model.usual_steps
        return max(1, min(MOST_STEPS, round(model.usual_steps * STEPS[self.quality])))

    def beaten(self, *, has_mask: bool) -> tuple[str, ...]:
        """Fields that were sent and that another one overrides."""
        beaten: set[str] = set()
        if has_mask and self.size != "auto":
            # A picture that is painted in keeps its shape.
            beaten.add("size")
        if self.num_inference_steps is not None:
            beaten.add("quality")
        if not self.stream:
            beaten.add("partial_images")
        return tuple(sorted(beaten & self.model_fields_set))


async def pictures_of(body: bodies.Body) -> tuple[list[edits.Picture], list[edits.Picture]]:
    """A request's pictures and its masks, uploaded or in JSON. Raises `errors.InvalidInputError`."""
    references = pictures.once(
        [
            ("image", await pictures.of_field(body, "image")),
            ("image[]", await pictures.of_field(body, "image[]")),
            ("images", await _listed(body.fields.get("images"), "images")),
        ]
    )
    masks = [
        *await pictures.of_field(bodies.Body(fields={}, files=body.files), "mask"),
        *await _listed(body.fields.get("mask"), "mask"),
    ]
    return references, masks


async def _listed(value: Any, field: str) -> list[edits.Picture]:
    """Pictures of the JSON form: `{"image_url": …}`, alone or in a list."""
    listed: list[edits.Picture] = []
    for entry in pictures.entries(value, field):
        if isinstance(entry, dict) and "file_id" in entry:
            raise errors.InvalidInputError(f"{field}: files are not kept here; send an image_url", field=field)
        url = entry.get("image_url") if isinstance(entry, dict) else entry
        listed += await pictures.of_value(url if url is not None else entry, field)
    return listed


def is_openais(named: str, known: catalog.Catalog) -> bool:
    """Whether this is an image model of OpenAI's, which programs name that cannot be told another."""
    return _OPENAIS.match(named) is not None and not known.has(named)


def model_of(named: str | None, kind: Kind, known: catalog.Catalog, default: str, *, has_pictures: bool) -> str:
    """The model that is named, or the operator's, or one that needs no picture. Raises `errors.InvalidInputError`."""
    textual = [name for name, model in known.models.items() if not model.min_references]
    if named:
        name = known.name_of(named)
    else:
        name = known.name_of(default)
        if not has_pictures and known.models[name].min_references:
            name = next(iter(textual), name)
    if kind == "image_generation" and known.models[name].min_references:
        message = f"model: {name} edits pictures; from text alone these make one: {', '.join(textual)}"
        raise errors.InvalidInputError(message, field="model")
    return name


def submission_of(
    body: bodies.Body,
    sent: Input,
    *,
    name: str,
    model: catalog.Model,
    references: Sequence[edits.Picture],
    masks: Sequence[edits.Picture],
    idempotency_key: str | None,
) -> submissions.Submission:
    """A request as a submission. Raises `errors.InvalidInputError`."""
    if len(masks) > 1:
        raise errors.InvalidInputError(f"mask: at most one; got {len(masks)}", field="mask")
    for mask in masks:
        _check_mask(mask)
    size = None if sent.size == "auto" else base.size_of(sent.size, "size")
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            mask=masks[0] if masks else None,
            mask_channel="alpha",
            canvas=Canvas() if masks else Canvas(size=size),
            steps=sent.steps(model),
            guidance=model.guidance(sent.guidance),
            negative_prompt=sent.negative_prompt,
            true_guidance=base.NEGATIVE_GUIDANCE if sent.negative_prompt else 1.0,
            upsample_temperature=sent.caption_upsample_temperature,
            output_format=sent.output_format,
            quality=sent.output_compression,
            previews=sent.partial_images > 0,
        ),
        seed=base.seed_of(sent.seed),
        count=sent.n,
        ignored=submissions.told_names((*sent.without_effect(model), *sent.beaten(has_mask=bool(masks)))),
        idempotency_key=idempotency_key,
        echo=pictures.echo({name: value for name, value in body.fields.items() if name in Input.parameters()}),
    )


def _check_mask(mask: edits.Picture) -> None:
    """OpenAI's mask is transparent where to paint anew. Raises `errors.InvalidInputError`."""
    if not isinstance(mask, edits.SentPicture):
        raise errors.InvalidInputError("mask must be uploaded or a data URI", field="mask")
    if not mask.transparent:
        raise errors.InvalidInputError("mask must have an alpha channel: transparent where to edit", field="mask")
