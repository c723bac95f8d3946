"""NVIDIA NIM for visual generative AI: one container, one model, one blocking route. Fields as its Kontext container has them."""

import platform
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends
from prometheus_client import generate_latest
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from api.dialects import base, fields
from api.dialects.base import Dialect
from api.http import bodies, pictures
from api.http import errors as http_errors
from api.http.access import KEY_HEADERS, IdempotencyKey, ResourcesDep, caller_of, counted
from api.resources import Resources
from api.service.checks import Names
from storage.contracts import access, catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas, Size
from storage.ledger import recovery

VERSION = "1.1.0"
"""Of the container whose contract this is."""

router = APIRouter(prefix="/v1", tags=["nim"])

SIZES = {
    "9:21": (672, 1568), "5:11": (688, 1504), "1:2": (720, 1456), "7:13": (752, 1392), "3:5": (800, 1328), "2:3": (832, 1248),
    "3:4": (880, 1184), "6:7": (944, 1104), "1:1": (1024, 1024), "7:6": (1104, 944), "4:3": (1184, 880), "3:2": (1248, 832),
    "5:3": (1328, 800), "13:7": (1392, 752), "2:1": (1456, 720), "11:5": (1504, 688), "21:9": (1568, 672),
}  # fmt: skip
NAMES = Names(guidance="cfg_scale")
Ratio = Literal[
    "match_input_image", "9:21", "5:11", "1:2", "7:13", "3:5", "2:3", "3:4", "6:7", "1:1", "7:6", "4:3", "3:2", "5:3", "13:7",
    "2:1", "11:5", "21:9",
]  # fmt: skip


class Common(fields.Fields):
    """What a container of any model takes."""

    SIDES: ClassVar[range | tuple[int, ...]] = tuple(sorted({side for size in SIZES.values() for side in size}))

    prompt: fields.Prompt
    image: fields.Picture = None
    width: Annotated[int | None, Field(description="One of the sides of the preferred sizes")] = None
    height: Annotated[int | None, Field(description="The same")] = None
    seed: Annotated[int, Field(ge=0, le=edits.MAX_SEED, description="0 is random")] = 0
    samples: Annotated[int, Field(ge=1, le=1, description="Pictures")] = 1
    disable_safety_checker: Annotated[bool, Field(description="Where the operator allows it")] = False
    cfg_scale: Annotated[float | None, Field(ge=0, le=9, description="Guidance, for models that take it")] = None
    steps: fields.Steps | None = None

    def canvas(self, has_picture: bool) -> Canvas:
        """The result's shape."""
        if self.width is None and self.height is None and has_picture:
            return Canvas()
        return Canvas(size=Size(width=self.width or 1024, height=self.height or 1024))


class Kontext(Common):
    """What the FLUX.1 Kontext container takes."""

    aspect_ratio: Annotated[Ratio, Field(description="Goes before width and height")] = "match_input_image"
    cfg_scale: Annotated[float | None, Field(gt=1, le=9, description="Guidance")] = 3.5
    steps: Annotated[int | None, Field(ge=20, le=50, description="Denoising steps")] = 30

    def canvas(self, has_picture: bool) -> Canvas:
        """The result's shape: a ratio that is named, or the sides, which some clients always send."""
        if self.aspect_ratio != "match_input_image":
            width, height = SIZES[self.aspect_ratio]
            return Canvas(ratio=width / height)
        return super().canvas(has_picture)


class Flux2(Common):
    """What the FLUX.2 container takes."""

    SIDES: ClassVar[range | tuple[int, ...]] = range(768, 1345, 64)
    mode: Annotated[Literal["Image Generation", "Image Editing"], Field(description="Whether there is a picture")] = (
        "Image Generation"
    )

    def canvas(self, has_picture: bool) -> Canvas:
        """The result's shape: a square unless sides are named."""
        return super().canvas(has_picture=False)


class Klein(Flux2):
    """What the FLUX.2 [klein] container takes, whose model has no guidance."""

    cfg_scale: Annotated[float | None, Field(ge=0, le=0, description="There is none")] = None
    steps: Annotated[int | None, Field(ge=1, le=4, description="Denoising steps")] = None


FAMILIES: dict[str, type[Common]] = {"kontext": Kontext, "flux2": Flux2, "klein": Klein, "*": Common}


async def _caller(request: Request, resources: ResourcesDep) -> access.Caller:
    tenant = resources.settings.nim_tenant
    if tenant is not None and not KEY_HEADERS & set(request.headers):
        await counted(request, resources, tenant)
        return resources.keys.of_tenant(tenant)
    return await caller_of(request, resources)


Caller = Annotated[access.Caller, Depends(_caller)]


@router.post("/infer", openapi_extra=fields.body({"anyOf": [Kontext.model_json_schema(), Flux2.model_json_schema()]}))
async def infer(
    request: Request, resources: ResourcesDep, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Edit a picture and wait for it. A client that hangs up cancels its edit, unless it sent an `Idempotency-Key`."""
    submission = await _submission(await bodies.read(request), *_model(resources), idempotency_key)
    accepted = await base.submitted(request, resources, submission, caller, names=NAMES)
    (view,) = await base.finished(request, resources, accepted, caller.tenant, keep=idempotency_key is not None)
    artifact: dict[str, Any] = {"base64": "", "finishReason": "CONTENT_FILTERED", "seed": view.generation.edit.seed}
    if not view.is_filtered:
        artifact |= {"base64": await view.base64(), "finishReason": "SUCCESS"}
    return JSONResponse({"artifacts": [artifact]})


async def _submission(
    body: bodies.Body, name: str, model: catalog.Model, idempotency_key: str | None
) -> submissions.Submission:
    sent = base.of_family(FAMILIES, model).check(body.fields)
    for field, side in (("width", sent.width), ("height", sent.height)):
        if side is not None and side not in sent.SIDES:
            message = f"{field} must be one of {', '.join(map(str, sent.SIDES))}; got {side}"
            raise errors.InvalidInputError(message, field=field)
    image = body.fields.get("image")
    if image is not None and (not isinstance(image, str) or not image.startswith("data:image/")):
        raise errors.InvalidInputError("Image has been provided in the invalid form", field="image")
    if image is not None and ";example_id," in image[:100]:
        raise errors.InvalidInputError("Expected: base64, got: example_id", field="image")
    if isinstance(sent, Flux2) and sent.mode == "Image Editing" and image is None:
        raise errors.InvalidInputError("image is required for the mode Image Editing", field="image")
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(await pictures.of_value(image, "image")),
            canvas=sent.canvas(has_picture=image is not None),
            steps=sent.steps or model.usual_steps,
            guidance=base.guidance_of(model, sent.cfg_scale),
            output_format="jpeg",
            filtered=not sent.disable_safety_checker,
        ),
        seed=sent.seed or None,
        idempotency_key=idempotency_key,
        echo=pictures.echo(body.fields),
    )


def _model(resources: Resources) -> tuple[str, catalog.Model]:
    name = resources.catalog.name_of(resources.settings.default_model)
    return name, resources.catalog.models[name]


@router.get("/health/live")
async def live() -> Response:
    """The process answers."""
    return _health("live", 200)


@router.get("/health/ready")
async def ready(resources: ResourcesDep) -> Response:
    """The stores answer and a worker serves the model."""
    try:
        await resources.check()
        fleet = await resources.forecasts.fleet()
    except errors.TransientError:
        return _health("not ready", 503)
    served = any(_model(resources)[0] in worker.get("models", ()) for worker in fleet.values())
    return _health("ready", 200) if served else _health("not ready", 503)


def _health(message: str, status: int) -> Response:
    return JSONResponse({"object": "health.response", "message": message, "status": message}, status_code=status)


@router.get("/metadata")
async def metadata(resources: ResourcesDep) -> Response:
    """What runs here."""
    name, model = _model(resources)
    licence = {"name": model.weights.licence, "url": model.weights.licence_url, "type": "file", "path": "LICENSE"}
    told = {"modelUrl": model.weights.source, "shortName": name, "weights": model.weights.name}
    return JSONResponse(
        {
            "version": VERSION, "assetInfo": [], "licenseInfo": licence, "modelInfo": [told], "repository_override": "",
            "selectedModelProfileId": name,
        }
    )  # fmt: skip


@router.get("/manifest")
async def manifest(resources: ResourcesDep) -> Response:
    """The same, as the container's manifest."""
    name, model = _model(resources)
    file = f"profiles:\n- id: {name}\n  model: {model.weights.source}\n"
    return JSONResponse({"manifest_file": file, "repository_override": ""})


@router.get("/license")
async def license_(resources: ResourcesDep) -> Response:
    """The licence of the model's weights; its text is where `url` leads."""
    _, model = _model(resources)
    content = f"{model.display_name}: {model.weights.licence}. {model.weights.licence_url or ''}".strip()
    return JSONResponse(
        {
            "name": model.weights.licence, "path": "LICENSE", "sha": "", "size": len(content),
            "url": model.weights.licence_url, "type": "file", "content": content,
        }
    )  # fmt: skip


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(resources: ResourcesDep, caller: Caller) -> Response:
    """Of this process, and what waits, in Prometheus' words; not without a key where other calls need one."""
    backlog = await resources.ledger.run(recovery.backlog())
    lines = [
        "# HELP darkroom_queued_generations Generations waiting for a worker.",
        "# TYPE darkroom_queued_generations gauge",
        *(f'darkroom_queued_generations{{queue="{row.queue}"}} {row.pending}' for row in backlog),
        "# HELP darkroom_info What serves.",
        "# TYPE darkroom_info gauge",
        f'darkroom_info{{python="{platform.python_version()}"}} 1',
    ]
    return PlainTextResponse(generate_latest().decode() + "\n".join(lines) + "\n")


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    # As the container's framework has it: what does not fit the schema cannot be processed.
    status = 422 if http_errors.status(error) == 400 else http_errors.status(error)
    return JSONResponse({"detail": error.message}, status_code=status, headers=http_errors.headers(error))


DIALECT = Dialect(
    name="nim",
    router=router,
    problem=_problem,
    aim=(
        "export DARKROOM_NIM_TENANT=<tenant>  # for the API process: whose calls without a key are",
        "invoke_url={url}/v1/infer",
        "curl {url}/v1/health/ready",
    ),
)
