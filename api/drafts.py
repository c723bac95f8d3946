"""What a dialect made of a request, on its way to a submission: checked against what the model takes.

Numbers keep the ranges that the dialect documents, which may be wider than those of the native API.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from api import problems, submission
from api.inputs import MAX_URL
from api.resources import Resources
from storage import queues
from storage.contracts import catalog, edits, errors, generations, parameters
from storage.contracts.geometry import Canvas, Size

UPSAMPLE_TEMPERATURE = 0.15
"""How freely a prompt is written anew in dialects that only say that it is to be; what diffusers takes."""

NOT_UPSAMPLED = "{} runs prompts as they are; its operator can offer more (docs/models.md)"

NOT_ALLOWED = "the operator of this service does not allow this key to switch the filters off"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An edit in the making.

    `model` is a name in the catalog. `steps`, `guidance` and `seed` None: the model's default, and random. `image_field`,
    `mask_field`, `guidance_field`, `upsample_field` and `size_field` (None: width and height) are what the dialect calls
    them, for errors. The rest is as in `edits.Edit` and `submission.Request`.
    """

    model: str
    prompt: str
    references: Sequence[submission.Picture] = ()
    mask: submission.Picture | None = None
    image_field: str = "image"
    mask_field: str = "mask"
    mask_channel: edits.MaskChannel = "luminance"
    size_field: str | None = None
    canvas: Canvas = field(default_factory=Canvas)
    steps: int | None = None
    guidance: float | None = None
    guidance_field: str = "guidance"
    negative_prompt: str | None = None
    strength: float = 1.0
    upsample_temperature: float = 0.0
    upsample_field: str = catalog.UPSAMPLING
    seed: int | None = None
    output_format: edits.OutputFormat = "png"
    quality: int = 95
    previews: bool = False
    filtered: bool = True
    filter_field: str = "disable_safety_checker"
    submitted: Mapping[str, object] = field(default_factory=dict)
    count: int = 1
    queue_ttl_s: float | None = None
    execution_limit_s: float | None = None
    deadline_s: float | None = None
    priority: int = generations.PRIORITY
    callback: generations.Callback | None = None
    deliver: edits.Delivery | None = None


def check_pictures(
    name: str,
    model: catalog.Model,
    references: Sequence[submission.Picture],
    masks: Sequence[submission.Picture],
    *,
    image: str,
    mask: str,
) -> None:
    """Whether a model takes so many of them; `image` and `mask` are the fields' names. Raises `errors.InvalidInputError`."""
    if len(references) < model.min_references:
        raise errors.InvalidInputError(f"{image} is required: a URL, a data URI or an uploaded file", field=image)
    if len(references) > model.max_references:
        message = f"{image}: {name} takes at most {model.max_references}; got {len(references)}"
        raise errors.InvalidInputError(message, field=image)
    if masks and not model.takes_mask:
        raise errors.InvalidInputError(f"{mask}: {name} takes none", field=mask)
    if len(masks) > 1:
        raise errors.InvalidInputError(f"{mask}: at most one; got {len(masks)}", field=mask)
    if masks and len(references) != 1:
        raise errors.InvalidInputError(f"{mask} needs exactly one {image}", field=mask)


def request_of(draft: Draft, held: Resources, tenant: str, *, idempotency_key: str | None = None) -> submission.Request:
    """A draft as a submission. Raises `errors.InvalidInputError` and `errors.ModelNotFoundError`."""
    name = held.catalog.name_of(draft.model)
    model = held.catalog.models[name]
    masks = [draft.mask] if draft.mask else []
    check_pictures(name, model, draft.references, masks, image=draft.image_field, mask=draft.mask_field)
    guided = "guidance" in model.parameters
    if draft.guidance not in (None, 1) and not guided:
        raise errors.InvalidInputError(f"{draft.guidance_field}: {name} takes none", field=draft.guidance_field)
    if draft.negative_prompt and "negative_prompt" not in model.parameters:
        raise errors.InvalidInputError(f"negative_prompt: {name} takes none", field="negative_prompt")
    if draft.upsample_temperature and not model.upsamples:
        raise errors.InvalidInputError(
            f"{draft.upsample_field}: {NOT_UPSAMPLED.format(name)}", field=draft.upsample_field
        )
    if draft.canvas.size is not None:
        try:
            model.frame.check(draft.canvas.size)
        except errors.InvalidInputError as exc:
            named = draft.size_field
            raise errors.InvalidInputError(
                f"{named}: {exc.message}" if named else exc.message, field=named or exc.field
            ) from None
    if not draft.filtered and tenant not in held.settings.unfiltered_tenants:
        raise errors.InvalidInputError(f"{draft.filter_field}: {NOT_ALLOWED}", field=draft.filter_field)
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise errors.InvalidInputError("Idempotency-Key may have 1 to 255 characters", field="Idempotency-Key")
    guidance = 1.0
    if guided:
        guidance = draft.guidance if draft.guidance is not None else default(model, "guidance")
    edit = edits.Edit(
        model=name,
        prompt=draft.prompt,
        references=(),
        canvas=Canvas() if masks and draft.canvas.size is None else draft.canvas,
        steps=draft.steps if draft.steps is not None else default(model, "num_inference_steps"),
        guidance=guidance,
        negative_prompt=draft.negative_prompt,
        true_guidance=NEGATIVE_GUIDANCE if draft.negative_prompt else 1.0,
        mask_channel=draft.mask_channel,
        strength=draft.strength,
        upsample_temperature=draft.upsample_temperature,
        seed=0,
        output_format=draft.output_format,
        quality=draft.quality,
        previews=draft.previews,
        filtered=draft.filtered,
        deliver=draft.deliver,
    )
    return submission.Request(
        tenant=tenant,
        route=submission.Route(queue=queues.queue_name(name)),
        edit=edit,
        references=draft.references,
        mask=draft.mask,
        seed=draft.seed,
        submitted=draft.submitted,
        count=draft.count,
        queue_ttl_s=draft.queue_ttl_s,
        execution_limit_s=draft.execution_limit_s,
        deadline_s=draft.deadline_s,
        priority=draft.priority,
        callback=draft.callback,
        idempotency_key=idempotency_key,
    )


NEGATIVE_GUIDANCE = 2.5
"""True guidance scale of a negative prompt in dialects that name none: every step then runs twice."""


def default(model: catalog.Model, parameter: str) -> Any:
    """What a model does when nothing is said."""
    return model.parameters[parameter].default


def ratio_of(text: str) -> float:
    """`16:9` as width over height. Raises `ValueError`."""
    width, _, height = text.partition(":")
    return int(width) / int(height)


def callback_of(
    url: Any,
    field: str,
    dialect: str,
    *,
    base: str,
    moments: tuple[generations.Moment, ...] = ("completed",),
    secret: str | None = None,
    note: str = "",
) -> generations.Callback | None:
    """A webhook that is asked for, if it is. Raises `errors.InvalidInputError`."""
    if url in (None, ""):
        return None
    if not isinstance(url, str) or not url.startswith(("http://", "https://")) or len(url) > MAX_URL:
        raise errors.InvalidInputError(f"{field} must be an http(s) URL of at most {MAX_URL} characters", field=field)
    return generations.Callback(url=url, dialect=dialect, moments=moments, base=base, secret=secret, note=note)


def failure(found: generations.Generation) -> errors.DarkroomError | None:
    """Why a terminal generation has no result; None when it has one."""
    if found.status is generations.Status.CANCELLED:
        return errors.CancelledError("The generation was cancelled")
    return None if found.result is not None else problems.of_failure(found.error_code, found.error_message)


async def pixels(result: generations.Result, held: Resources) -> str:
    """A result's file in base64. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
    return base64.b64encode(await held.objects.get(result.key)).decode()


async def data_uri(result: generations.Result, held: Resources) -> str:
    """A result's pixels in line. Raises `errors.NotFoundError` and `errors.ObjectsUnavailableError`."""
    return f"data:{result.content_type};base64,{await pixels(result, held)}"


def size_of(text: str, name: str, pattern: str = r"([1-9][0-9]{1,3})\s*[x*×]\s*([1-9][0-9]{1,3})") -> Size:
    """`1024*1024` as a size. Raises `errors.InvalidInputError`."""
    found = re.fullmatch(pattern, text.strip())
    if not found:
        raise errors.InvalidInputError(
            f"{name} must be a width and a height such as 1024x1024; got {parameters.shown(text)}", field=name
        )
    return Size(width=int(found[1]), height=int(found[2]))
