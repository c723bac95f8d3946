"""What fal's apps take, and what that is as a submission."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.dialects import base, fields
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
Ratio = Literal["21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"]
Mode = Literal["auto", "match_input", "21:9", "16:9", "4:3", "3:2", "1:1", "2:3", "3:4", "9:16", "9:21"]


class Input(fields.Fields):
    """An app's arguments."""

    prompt: fields.Prompt
    image_url: fields.Picture = None
    image_urls: fields.Pictures = None
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
    acceleration: Annotated[Literal["none", "regular", "high"], Field(description="The operator's choice")] = "none"
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


def names(sent: Input) -> Names:
    """What fields are called here, for errors."""
    # Prompt expansion has two names: Kontext's, and FLUX.2's.
    upsampling = "enhance_prompt" if sent.enhance_prompt else "enable_prompt_expansion"
    return Names(
        image="image_url",
        guidance="guidance_scale",
        upsampling=upsampling,
        size="image_size",
        filters="enable_safety_checker",
    )


async def submission_of(
    body: bodies.Body,
    sent: Input,
    *,
    name: str,
    model: catalog.Model,
    webhook: submissions.Webhook | None,
    low_priority: bool,
    start_timeout: float | None,
    idempotency_key: str | None,
) -> submissions.Submission:
    """An app's arguments as a submission. Raises `errors.InvalidInputError`."""
    negative = sent.negative_prompt.strip() or None
    references = await pictures.of_fields(body.fields, PICTURES)
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            canvas=sent.canvas,
            steps=sent.num_inference_steps or model.usual_steps,
            guidance=model.guidance(sent.guidance_scale),
            negative_prompt=negative,
            true_guidance=base.NEGATIVE_GUIDANCE if negative else 1.0,
            upsample_temperature=(
                base.UPSAMPLE_TEMPERATURE if sent.enhance_prompt or sent.enable_prompt_expansion else 0.0
            ),
            output_format=sent.output_format or base.of_family(FORMATS, model),
            filtered=sent.enable_safety_checker,
        ),
        seed=sent.seed,
        count=sent.num_images,
        queue_ttl_s=start_timeout,
        priority=submissions.LOW_PRIORITY if low_priority else submissions.PRIORITY,
        webhook=webhook,
        inline=sent.sync_mode,
        idempotency_key=idempotency_key,
        echo=pictures.echo(body.fields),
    )
