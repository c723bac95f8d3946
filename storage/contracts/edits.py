"""An edit: what is asked for, in Darkroom's own words, whichever wire API it came through."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from storage.contracts.geometry import Canvas
from storage.contracts.values import Frozen

RECORD_VERSION, ERASED_EARLY_VERSION, PLAIN_VERSION = 5, 4, 3
"""The newest version of records that this release reads, and those of records without anything of the newest. To be raised
whenever a record has something that workers of the last release would refuse, or not heed: they leave newer records to newer
workers. Records of version 1 have no number; of version 4 are those that are to be erased early, of version 5 those with a mask
for the first of several references."""

MAX_SEED = 2**32 - 1
"""Seeds are unsigned 32-bit numbers: what every dialect can name and torch's generator takes."""

OutputFormat = Literal["webp", "png", "jpeg"]

CONTENT_TYPES: dict[OutputFormat, str] = {"webp": "image/webp", "png": "image/png", "jpeg": "image/jpeg"}
EXTENSIONS: dict[OutputFormat, str] = {"webp": "webp", "png": "png", "jpeg": "jpg"}
PICTURE_TYPES = {**{EXTENSIONS[name]: type_ for name, type_ in CONTENT_TYPES.items()}, "gif": "image/gif"}
"""By extension the types that pictures come in: those that are made, and GIF."""


def extension_of(content_type: str) -> str | None:
    """The file extension of a picture's type; None for a type that is none of those that pictures come in."""
    return next((extension for extension, type_ in PICTURE_TYPES.items() if type_ == content_type), None)


def content_type_of(key: str) -> str:
    """The type of an object by its key's extension. Not the platform's table: some know no WebP."""
    return PICTURE_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


class _Place(Frozen):
    kind: str

    @model_serializer(mode="wrap")
    def _with_kind(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # By which it is read again, also where defaults are left out.
        return {"kind": self.kind, **plain(self)}


class SentPicture(_Place):
    """A picture that came with the request, before it is stored; whether it may be transparent."""

    kind: Literal["sent"] = "sent"
    data: Annotated[bytes, Field(repr=False)]
    content_type: str
    transparent: bool


class KeptPicture(_Place):
    """A picture of an earlier generation or an upload. It is copied before the edit is accepted: that may be gone sooner."""

    kind: Literal["kept"] = "kept"
    key: str


class StoredPicture(_Place):
    """A picture in the object store under `key`, as long as the generation is kept."""

    kind: Literal["stored"] = "stored"
    key: str


class RemotePicture(_Place):
    """A picture behind an http(s) URL; a worker fetches it."""

    kind: Literal["remote"] = "remote"
    url: str


Picture = Annotated[SentPicture | KeptPicture | StoredPicture | RemotePicture, Field(discriminator="kind")]
"""Where a picture is. Workers meet the last two alone."""

MaskChannel = Literal["luminance", "alpha"]
"""What of a mask says where to paint: white, or transparent."""


class Delivery(Frozen):
    """Where the result goes besides: a signed URL to put it to, and one by which its owner downloads it. Both are secrets.

    `destination` is the caller's bucket and folder, without signature.
    """

    SIGNED: ClassVar = ("put_url", "get_url")

    put_url: str
    get_url: str
    destination: str = ""


class Edit(Frozen):
    """One picture to be made from an instruction and, mostly, reference images.

    `guidance` is the guidance scale the distilled model is told, 0 or more; 1 for models that take none. `negative_prompt` with
    `true_guidance` above 1 runs every step twice. Where `mask` is white (`mask_channel` alpha: transparent) the first reference
    is painted anew, `strength` (above 0 to 1) says how freely, after the other references if there are any.
    `seed` is set when the edit is accepted, so that a second attempt makes the same picture. `quality` is 0 to 100 and means
    nothing for PNG. `parent` is the generation whose result is the first reference. With `previews` progress shows how it looks
    so far. With `upsample_temperature` above 0 the model's language model writes the prompt anew first, the more freely the
    higher. `lora_scale` is how strongly a model's LoRA works, 0 to 2; None: as it was trained. `filtered` False passes by the
    filters, for callers whom the operator allows that. `deliver` puts the result elsewhere too.
    """

    @model_validator(mode="before")
    @classmethod
    def _as_once_recorded(cls, value: object) -> object:
        # What 0.1's first records said of the shape.
        if isinstance(value, dict) and "aspect_ratio" in value:
            rest = {name: one for name, one in value.items() if name != "aspect_ratio"}
            return {**rest, "canvas": {"ratio": value["aspect_ratio"]}}
        return value

    @property
    def passes(self) -> int:
        """How often the model is run: its steps, of which a strength below 1 leaves out some; twice for a negative prompt."""
        steps = self.steps * (self.strength if self.mask is not None else 1)
        return max(1, round(steps * (2 if self.true_guidance > 1 else 1)))

    def with_pictures(self, change: Callable[[Picture], Picture]) -> Self:
        """The same with every picture changed: the references in their order, then the mask."""
        references = tuple(change(picture) for picture in self.references)
        mask = change(self.mask) if self.mask is not None else None
        return self.model_copy(update={"references": references, "mask": mask})

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """References, then the mask."""
        return self.references if self.mask is None else (*self.references, self.mask)

    @property
    def is_fetched(self) -> bool:
        """Whether some picture is fetched from a server that its caller named."""
        return any(isinstance(one, RemotePicture) for one in self.pictures)

    @property
    def prompts(self) -> tuple[str, ...]:
        """What a text encoder reads: the prompt, and the negative one if there is any."""
        return (self.prompt,) if self.negative_prompt is None else (self.prompt, self.negative_prompt)

    @property
    def upsampled(self) -> bool:
        """Whether the prompt is written anew first."""
        return self.upsample_temperature > 0

    model: str
    prompt: str
    references: tuple[Picture, ...] = ()
    canvas: Canvas = Canvas()
    steps: Annotated[int, Field(ge=1)]
    guidance: Annotated[float, Field(ge=0)] = 1.0
    negative_prompt: str | None = None
    true_guidance: Annotated[float, Field(ge=1)] = 1.0
    mask: Picture | None = None
    mask_channel: MaskChannel = "luminance"
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    upsample_temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    lora_scale: Annotated[float | None, Field(ge=0, le=2)] = None
    parent: str | None = None
    previews: bool = False
    filtered: bool = True
    deliver: Delivery | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    output_format: OutputFormat = "png"
    quality: Annotated[int, Field(ge=0, le=100)] = 95
