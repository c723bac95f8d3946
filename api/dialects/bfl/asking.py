"""What BFL's routes take."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from api.dialects import base, fields
from api.http import pictures
from api.service.checks import Names
from storage.contracts import catalog, errors
from storage.contracts.geometry import Canvas

NARROWEST, WIDEST = 9 / 21, 21 / 9
NAMES = Names(image="input_image", mask="mask", upsampling="prompt_upsampling")
Side = Annotated[int, Field(ge=0, le=2048, description="In pixels; 0: as the input")]


class _Common(fields.Fields):
    PASSES_OVER: ClassVar = True

    prompt: fields.Prompt
    seed: fields.Seed | None = None
    webhook_url: Annotated[str | None, Field(max_length=pictures.MAX_URL, description="Called when it is over")] = None
    webhook_secret: Annotated[str | None, Field(max_length=200, description="Signs that call")] = None
    steps: fields.Steps | None = None
    guidance: Annotated[float | None, Field(ge=1.5, le=10, description="Guidance scale")] = None
    prompt_upsampling: Annotated[bool, Field(description="Write the prompt anew, where the model can")] = False
    input_image: fields.Picture = None
    input_image_2: fields.Picture = None
    input_image_3: fields.Picture = None
    input_image_4: fields.Picture = None
    input_image_5: fields.Picture = None
    input_image_6: fields.Picture = None
    input_image_7: fields.Picture = None
    input_image_8: fields.Picture = None
    mask: fields.Picture = None
    aspect_ratio: Annotated[str | None, Field(max_length=9, description="From 21:9 to 9:21; absent: as the input")] = (
        None
    )
    width: Side = 0
    height: Side = 0

    @property
    def _ratio(self) -> float | None:
        if self.aspect_ratio is None:
            return None
        try:
            ratio = base.ratio_of(self.aspect_ratio)
        except (ValueError, ZeroDivisionError):
            ratio = 0.0
        if not NARROWEST <= ratio <= WIDEST:
            message = f"aspect_ratio must be between 21:9 and 9:21; got {self.aspect_ratio}"
            raise errors.InvalidInputError(message, field="aspect_ratio")
        return ratio

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        raise NotImplementedError

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """See `fields.Fields`."""
        canvas = self.canvas
        beaten = {"aspect_ratio"} if canvas.size is not None else {"width", "height"} if canvas.ratio else set()
        if self.mask:
            # A picture that is painted in keeps its shape.
            beaten = {"aspect_ratio", "width", "height"}
        return (
            *super().without_effect(model),
            *sorted(beaten & self.model_fields_set),
            *base.not_taken(model, self.model_fields_set, guidance=("guidance",)),
        )


class Kontext(_Common):
    """What FLUX.1 Kontext's routes take."""

    output_format: Literal["png", "jpeg", "webp"] = "png"
    safety_tolerance: Annotated[int, Field(ge=0, le=6, description="One filter for all"), fields.NO_EFFECT] = 2

    @property
    def canvas(self) -> Canvas:
        """The result's shape: the ratio is Kontext's own field. Raises `errors.InvalidInputError`."""
        ratio = self._ratio
        return Canvas(size=base.both_sides(self.width, self.height)) if ratio is None else Canvas(ratio=ratio)


class Flux2(_Common):
    """What FLUX.2's routes take, and those of models that this API does not know."""

    output_format: Literal["png", "jpeg", "webp"] = "jpeg"
    safety_tolerance: Annotated[int, Field(ge=0, le=5, description="One filter for all"), fields.NO_EFFECT] = 2

    @property
    def canvas(self) -> Canvas:
        """The result's shape: the sides are FLUX.2's own fields. Raises `errors.InvalidInputError`."""
        size, ratio = base.both_sides(self.width, self.height), self._ratio
        return Canvas(ratio=ratio) if size is None else Canvas(size=size)


class Flex(Flux2):
    """What the route of FLUX.2 [flex] takes, which has its own defaults."""

    steps: Annotated[int, Field(ge=1, le=50, description="Denoising steps")] = 50
    guidance: Annotated[float, Field(ge=1.5, le=10, description="Guidance")] = 5.0


FAMILIES: dict[str, type[Kontext | Flux2]] = {"kontext": Kontext, "*": Flux2}
ROUTES: dict[str, type[Flux2]] = {"flux-2-flex": Flex}
"""Routes whose fields are not their family's."""
PICTURES = ("input_image", *(f"input_image_{number}" for number in range(2, 9)))
