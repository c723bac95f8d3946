"""An edit: what is asked for, in Darkroom's own words, whichever wire API it came through."""

from typing import Annotated, Literal

from pydantic import Field

from storage.contracts.catalog import Frozen

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


Input = Annotated[StoredInput | RemoteInput, Field(discriminator="kind")]


class Edit(Frozen):
    """One picture to be made from reference images and an instruction.

    `aspect_ratio` is width over height, or None to match the first reference. `guidance` is the guidance scale the
    distilled model is told, 0 or more. `seed` is always concrete, so that a second attempt makes the same picture.
    `quality` is 0 to 100 and means nothing for PNG.
    """

    model: str
    prompt: str
    references: tuple[Input, ...]
    aspect_ratio: float | None
    steps: Annotated[int, Field(ge=1)]
    guidance: Annotated[float, Field(ge=0)]
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)]
    output_format: OutputFormat
    quality: Annotated[int, Field(ge=0, le=100)]
