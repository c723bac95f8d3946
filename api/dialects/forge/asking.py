"""What Forge's models take, and what that is as a submission."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from api.dialects import base, fields
from api.http import bodies, pictures
from api.service import route
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas, Size
from storage.contracts.samples import Target

NAMES = Names(guidance="guidance_scale")
Ratio = Literal["1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16"]
Side = Annotated[int, Field(ge=64, le=2048, description="In pixels")]


class _Common(fields.Fields):
    prompt: fields.Prompt
    image: fields.Pictures = None
    model: Annotated[Any, Field(description="Passed over: the address names it")] = None
    model_version: Any = None
    gpu_type: Any = None
    region: Any = None
    seed: Annotated[int, Field(ge=0, le=fields.MAX_WIDE_SEED, description="Its lowest 32 bits are used; 0 too")] = 0
    steps: Annotated[int | None, Field(ge=1, le=80, description="Denoising steps")] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, description="Guidance, for models that take it")] = None

    @property
    def canvas(self) -> Canvas:
        """The result's shape."""
        return Canvas()

    @property
    def temperature(self) -> float:
        """How freely the prompt is to be written anew."""
        return 0.0


class Kontext(_Common):
    """What FLUX.1 Kontext takes."""

    steps: fields.Steps | None = 30


class Generic(_Common):
    """What a model takes that Forge does not know: shapes and steps are the model's own unless they are named."""

    width: Side | None = None
    height: Side | None = None
    aspect_ratio: Annotated[Ratio | None, Field(description="Goes before width and height")] = None
    caption_upsample_temperature: fields.UpsampleTemperature | None = None

    @property
    def canvas(self) -> Canvas:
        """See `_Common`."""
        ratio = None if self.aspect_ratio is None else base.ratio_of(self.aspect_ratio)
        if self.width is None and self.height is None:
            return Canvas(ratio=ratio)
        size = Size(width=self.width or 1024, height=self.height or 1024)
        # Both are sent together by default, and then say the same.
        if ratio is None or abs(size.ratio - ratio) < 0.01:
            return Canvas(size=size)
        return Canvas(ratio=ratio, pixels=size.pixels)

    @property
    def temperature(self) -> float:
        """See `_Common`."""
        return self.caption_upsample_temperature or 0.0


class Klein(Generic):
    """What FLUX.2 [klein] takes, which is distilled: few steps, and no guidance."""

    width: Side | None = 1024
    height: Side | None = 1024


class Flux2(Klein):
    """What FLUX.2 [dev] takes."""

    steps: Annotated[int | None, Field(ge=1, le=80, description="Denoising steps")] = 28
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, description="Guidance")] = 4.0


FAMILIES: dict[str, type[Kontext | Generic]] = {"kontext": Kontext, "flux2": Flux2, "klein": Klein, "*": Generic}


GPUS = {"rtx6000": "rtx-pro-6000"}
"""Forge's names of GPU types, in lower case, that are not the catalog's."""


def pins_of(sent: Mapping[str, Any]) -> submissions.Pins:
    """`route.pins_of`, with Forge's names of GPU types."""
    pins = route.pins_of(sent)
    return pins.model_copy(update={"gpu_types": tuple(GPUS.get(one, one) for one in pins.gpu_types)})


async def submission_of(
    body: bodies.Body, *, name: str, model: catalog.Model, idempotency_key: str | None
) -> submissions.Submission:
    """A request as a submission. Raises `errors.InvalidInputError`."""
    sent = base.of_family(FAMILIES, model).check(body.fields)
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(await pictures.of_value(body.fields.get("image") or None, "image")),
            canvas=sent.canvas,
            steps=sent.steps or model.usual_steps,
            guidance=model.guidance(sent.guidance_scale),
            # The published sample asks for it whatever the model; where that cannot, the answer's notes say so.
            upsample_temperature=sent.temperature if model.upsamples else 0.0,
        ),
        seed=base.seed_of(sent.seed),
        pins=pins_of(body.fields),
        idempotency_key=idempotency_key,
        echo=pictures.echo({name: value for name, value in body.fields.items() if name != "image"}),
    )


class Wish(fields.Fields):
    """What starting and stopping a model takes."""

    version: Any = None
    gpu_type: Any = None
    region: Any = None
    run_until_stopped: Any = False


def target_of(sent: dict[str, Any], name: str, known: catalog.Catalog) -> tuple[Target, bool]:
    """Where a model is to be started, and whether it is to be kept. Raises `errors.InvalidInputError`."""
    Wish.refuse_unknown(sent)
    keep = sent.get("run_until_stopped", False)
    if not isinstance(keep, bool):
        raise errors.InvalidInputError("run_until_stopped must be true or false", field="run_until_stopped")
    pins = pins_of(sent)
    if len(pins.gpu_types) > 1:
        raise errors.InvalidInputError("gpu_type must be one GPU type", field="gpu_type")
    route.check(pins, name, known)
    gpu_type = pins.gpu_types[0] if pins.gpu_types else "any"
    return Target(model=name, gpu_type=gpu_type, region=pins.region or "any"), keep


def named(slug: str, version: Any, known: catalog.Catalog) -> str:
    """A model, or one of its versions. Raises `errors.ModelNotFoundError` and `errors.InvalidInputError`."""
    name = known.name_of(slug)
    if version in (None, ""):
        return name
    if not isinstance(version, str):
        raise errors.InvalidInputError("model_version must be a string", field="model_version")
    return known.version(name, version)
