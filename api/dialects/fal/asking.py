"""What fal's apps take, and what that is as a submission."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from api.dialects import base, fields, loras
from api.http import bodies, pictures
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas, Size

SIZES = {
    "square_hd": (1024, 1024), "square": (512, 512), "portrait_4_3": (768, 1024), "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768), "landscape_16_9": (1024, 576),
}  # fmt: skip
FORMATS: dict[str, edits.OutputFormat] = {"kontext": "jpeg", "*": "png"}
"""By the model's family, where a request names none."""
PICTURES = ("image_url", "image_urls")
"""Apps call their pictures differently; some clients send them by both names."""
Tolerance = Literal["1", "2", "3", "4", "5", "6", 1, 2, 3, 4, 5, 6]
Ratio = Literal["21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"]
Mode = Literal["auto", "match_input", "21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"]


class Input(fields.Fields):
    """An app's arguments: what the apps of FLUX.1 Kontext and FLUX.2 take, under all of their names."""

    PASSES_OVER: ClassVar = True

    prompt: fields.Prompt
    image_url: fields.Picture = None
    image_urls: fields.Pictures = None
    mask_url: fields.Picture = None
    reference_image_url: fields.Picture = None
    strength: Annotated[float | None, Field(gt=0, le=1, description="With mask_url: how freely")] = None
    loras: Annotated[Any, Field(description="One object with path and scale, of those that the operator offers")] = None
    image_size: Annotated[Any, Field(description="A name, or an object with width and height")] = None
    negative_prompt: fields.NegativePrompt = ""
    aspect_ratio: Annotated[Ratio | None, Field(description="Shape; absent: as the input")] = None
    resolution_mode: Annotated[Mode, Field(description="Shape")] = "match_input"
    num_inference_steps: fields.Steps | None = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, description="Guidance scale")] = None
    seed: fields.Seed | None = None
    num_images: Annotated[int, Field(ge=1, le=4, description="Pictures")] = 1
    output_format: Annotated[Literal["jpeg", "png", "webp"] | None, Field(description="Format")] = None
    enable_safety_checker: Annotated[bool, Field(description="Filter")] = True
    sync_mode: Annotated[bool, Field(description="Pictures in the answer, as data URIs")] = False
    acceleration: Annotated[
        Literal["none", "regular", "high"], Field(description="The operator's choice"), fields.NO_EFFECT
    ] = "none"
    safety_tolerance: Annotated[Tolerance, Field(description="One filter for all"), fields.NO_EFFECT] = "2"
    enhance_prompt: Annotated[bool, Field(description="The same as enable_prompt_expansion, by Kontext's name")] = False
    enable_prompt_expansion: Annotated[bool, Field(description="Write the prompt anew, where the model can")] = False

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        size = self.image_size
        if isinstance(size, str) and size in SIZES:
            width, height = SIZES[size]
            return Canvas(size=Size(width=width, height=height))
        sides = [size["width"], size["height"]] if isinstance(size, dict) and set(size) == {"width", "height"} else []
        if sides and all(type(side) is int and side > 0 for side in sides):
            return Canvas(size=Size(width=sides[0], height=sides[1]))
        if size is not None and size != "auto":
            message = f"image_size must be one of {', '.join(SIZES)}, or an object with width and height"
            raise errors.InvalidInputError(message, field="image_size")
        ratio = self.aspect_ratio or self.resolution_mode
        return Canvas() if ratio in ("auto", "match_input") else Canvas(ratio=base.ratio_of(ratio))

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """See `fields.Fields`."""
        beaten: set[str] = set()
        if self.mask_url:
            # A picture that is painted in keeps its shape.
            beaten = {"image_size", "aspect_ratio", "resolution_mode"}
        elif self.image_size not in (None, "auto"):
            beaten = {"aspect_ratio", "resolution_mode"}
        elif self.aspect_ratio is not None:
            beaten = {"resolution_mode"}
        if not self.mask_url:
            beaten |= {"strength"}
        return (
            *super().without_effect(model),
            *sorted(beaten & self.model_fields_set),
            *base.not_taken(model, self.model_fields_set, guidance=("guidance_scale",)),
        )


NAMES = Names(
    image="image_url",
    mask="mask_url",
    guidance="guidance_scale",
    upsampling="enable_prompt_expansion",
    size="image_size",
    filters="enable_safety_checker",
    webhook="fal_webhook",
)


def names(sent: Input) -> Names:
    """What fields are called in this request, for errors."""
    # Two of them have two names: Kontext's, and FLUX.2's.
    changes = {"upsampling": "enhance_prompt"} if sent.enhance_prompt else {}
    if sent.image_urls and not sent.image_url:
        changes["image"] = "image_urls"
    return replace(NAMES, **changes)


async def submission_of(
    body: bodies.Body,
    sent: Input,
    *,
    name: str,
    alias: str,
    known: catalog.Catalog,
    webhook: submissions.Webhook | None,
    low_priority: bool,
    start_timeout: float | None,
    idempotency_key: str | None,
) -> submissions.Submission:
    """An app's arguments as a submission; `alias` is what its model is called there. Raises `errors.InvalidInputError`."""
    references = [
        *await pictures.of_synonyms(body.fields, PICTURES),
        *await pictures.of_fields(body.fields, ("reference_image_url",)),
    ]
    if not references:
        name = known.drawing(alias) or name
    name, lora_scale = loras.applied(known, name, loras.listed(body.fields.get("loras"), "loras"), "loras")
    model = known.models[name]
    negative, true_guidance = base.negative_of(model, sent.negative_prompt)
    mask = base.one_mask(await pictures.of_fields(body.fields, ("mask_url",)), "mask_url")
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            mask=mask,
            lora_scale=lora_scale,
            strength=sent.strength if sent.strength is not None and mask is not None else 1.0,
            canvas=sent.canvas if mask is None else Canvas(),
            steps=sent.num_inference_steps or model.usual_steps,
            guidance=base.guidance_of(model, sent.guidance_scale),
            negative_prompt=negative,
            true_guidance=true_guidance,
            upsample_temperature=(
                base.UPSAMPLE_TEMPERATURE if sent.enhance_prompt or sent.enable_prompt_expansion else 0.0
            ),
            output_format=sent.output_format or base.of_family(FORMATS, model),
            filtered=sent.enable_safety_checker,
        ),
        seed=base.seed_of(sent.seed),
        count=sent.num_images,
        ignored=submissions.told_names(sent.without_effect(model)),
        queue_ttl_s=start_timeout,
        priority=submissions.LOW_PRIORITY if low_priority else submissions.PRIORITY,
        webhook=webhook,
        inline=sent.sync_mode,
        idempotency_key=idempotency_key,
        echo=pictures.echo(body.fields),
    )
