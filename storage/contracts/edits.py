"""An edit: what is asked for, in Darkroom's own words, whichever wire API it came through."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from storage.contracts.geometry import Canvas
from storage.contracts.values import Frozen

MAX_SEED = 2**32 - 1
"""Seeds are unsigned 32-bit numbers: what every dialect can name and torch's generator takes."""

OutputFormat = Literal["webp", "png", "jpeg"]

CONTENT_TYPES: dict[OutputFormat, str] = {"webp": "image/webp", "png": "image/png", "jpeg": "image/jpeg"}
EXTENSIONS: dict[OutputFormat, str] = {"webp": "webp", "png": "png", "jpeg": "jpg"}


class StoredInput(Frozen):
    """A picture the caller sent along; its bytes lie in the object store under `key`."""

    kind: Literal["stored"] = "stored"
    key: str


class RemoteInput(Frozen):
    """A picture behind an http(s) URL; a worker fetches it."""

    kind: Literal["remote"] = "remote"
    url: str


MaskChannel = Literal["luminance", "alpha"]
"""What of a mask says where to paint: white, or transparent."""

Input = Annotated[StoredInput | RemoteInput, Field(discriminator="kind")]


class Delivery(Frozen):
    """Where the result goes besides: a signed URL to put it to, and one by which its owner downloads it. Both are secrets."""

    put_url: str
    get_url: str


class Edit(Frozen):
    """One picture to be made from an instruction and, mostly, reference images.

    `guidance` is the guidance scale the distilled model is told, 0 or more. `negative_prompt` with `true_guidance` above 1 runs
    every step twice. Where `mask` is white (`mask_channel` alpha: transparent) the first reference is painted anew,
    `strength` (above 0 to 1) says how freely.
    `seed` is always concrete, so that a second attempt makes the same picture. `quality` is 0 to 100 and means nothing for
    PNG. `parent` is the generation whose result is the first reference. With `previews` progress shows how it looks so far.
    With `upsample_temperature` above 0 the model's language model writes the prompt anew first, the more freely the higher.
    `filtered` False passes by the filters, for callers whom the operator allows that. `deliver` puts the result elsewhere too.
    """

    @model_validator(mode="before")
    @classmethod
    def _as_once_recorded(cls, value: object) -> object:
        # What 0.1's first records said of the shape.
        if isinstance(value, dict) and "aspect_ratio" in value:
            rest = {name: one for name, one in value.items() if name != "aspect_ratio"}
            return {**rest, "canvas": {"ratio": value["aspect_ratio"]}}
        return value

    @model_serializer(mode="wrap")
    def _as_earlier_versions_read_it(self, plain: SerializerFunctionWrapHandler) -> dict[str, object]:
        # Workers of the version before refuse what they do not know, and requests repeated after an upgrade are the same.
        found: dict[str, object] = plain(self)
        if not self.upsampled:
            found.pop("upsample_temperature", None)
        return found

    @property
    def passes(self) -> int:
        """How often the model is run: its steps, of which a strength below 1 leaves out some; twice for a negative prompt."""
        steps = self.steps * (self.strength if self.mask is not None else 1)
        return max(1, round(steps * (2 if self.true_guidance > 1 else 1)))

    @property
    def upsampled(self) -> bool:
        """Whether the prompt is written anew first."""
        return self.upsample_temperature > 0

    model: str
    prompt: str
    references: tuple[Input, ...]
    canvas: Canvas = Canvas()
    steps: Annotated[int, Field(ge=1)]
    guidance: Annotated[float, Field(ge=0)]
    negative_prompt: str | None = None
    true_guidance: Annotated[float, Field(ge=1)] = 1.0
    mask: Input | None = None
    mask_channel: MaskChannel = "luminance"
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    upsample_temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    parent: str | None = None
    previews: bool = False
    filtered: bool = True
    deliver: Delivery | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    output_format: OutputFormat
    quality: Annotated[int, Field(ge=0, le=100)]
