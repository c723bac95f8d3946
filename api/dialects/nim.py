"""NVIDIA NIM for visual generative AI: one container, one model, one blocking route. Fields as its Kontext container has them."""

import platform
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from prometheus_client import generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from api import bodies, drafts, inputs, problems, waiting
from api.access import Held
from api.dialects import Dialect
from api.resources import Resources
from storage.contracts import catalog, edits, errors
from storage.contracts.geometry import Canvas, Size
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import presence, recovery

VERSION = "1.1.0"
"""Of the container whose contract this is."""

router = APIRouter(prefix="/v1", tags=["nim"])

SIZES = {
    "9:21": (672, 1568), "5:11": (688, 1504), "1:2": (720, 1456), "7:13": (752, 1392), "3:5": (800, 1328), "2:3": (832, 1248),
    "3:4": (880, 1184), "6:7": (944, 1104), "1:1": (1024, 1024), "7:6": (1104, 944), "4:3": (1184, 880), "3:2": (1248, 832),
    "5:3": (1328, 800), "13:7": (1392, 752), "2:1": (1456, 720), "11:5": (1504, 688), "21:9": (1568, 672),
}  # fmt: skip
SIDES = tuple(sorted({side for size in SIZES.values() for side in size}))

_COMMON = {
    "prompt": Parameter(type="string", required=True, max_length=10_000, description="The instruction"),
    "width": Parameter(type="integer", description="One of the sides of the preferred sizes"),
    "height": Parameter(type="integer", description="The same"),
    "seed": Parameter(type="integer", default=0, minimum=0, maximum=edits.MAX_SEED, description="0 is random"),
    "samples": Parameter(type="integer", default=1, minimum=1, maximum=1, description="Pictures"),
    "disable_safety_checker": Parameter(type="boolean", default=False, description="Where the operator allows it"),
}
KONTEXT = Declaration(
    {
        **_COMMON,
        "aspect_ratio": Parameter(
            type="string", default="match_input_image", choices=("match_input_image", *SIZES), description="Shape"
        ),
        "cfg_scale": Parameter(type="number", default=3.5, exclusive_minimum=1, maximum=9, description="Guidance"),
        "steps": Parameter(type="integer", default=30, minimum=20, maximum=50, description="Denoising steps"),
    },
    also=("image",),
)
FLUX2 = Declaration(
    {
        **_COMMON,
        "mode": Parameter(
            type="string",
            default="Image Generation",
            choices=("Image Generation", "Image Editing"),
            description="Whether there is a picture",
        ),
        "cfg_scale": Parameter(type="number", minimum=0, maximum=9, description="Guidance, for models that take it"),
        "steps": Parameter(type="integer", minimum=1, maximum=50, description="Denoising steps"),
    },
    also=("image",),
)


async def _caller(request: Request, held: Held) -> str:
    tenant = held.settings.nim_tenant
    if tenant is not None and not {"authorization", "x-key"} & set(request.headers):
        return tenant
    return held.tenants.authenticate(request)


Caller = Annotated[str, Depends(_caller)]


@router.post("/infer")
async def infer(request: Request, held: Held, tenant: Caller) -> Response:
    """Edit a picture and wait for it. A client that hangs up cancels its edit."""
    name = held.catalog.name_of(held.settings.default_model)
    draft = await _draft(name, held.catalog.models[name], (await bodies.read(request)).fields)
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant))
    finished = await waiting.all_terminal(request, receipt, tenant, held)
    assert finished is not None  # noqa: S101  (only what is kept ends so)
    found = finished[0]
    if found.error_code == errors.ContentFilteredError.code:
        artifact = {"base64": "", "finishReason": "CONTENT_FILTERED", "seed": found.edit.seed}
        return JSONResponse({"artifacts": [artifact]})
    if found.result is None:
        raise drafts.failure(found) or errors.InternalError("The generation has no result")
    data = await drafts.pixels(found.result, held)
    return JSONResponse({"artifacts": [{"base64": data, "finishReason": "SUCCESS", "seed": found.edit.seed}]})


async def _draft(name: str, model: catalog.Model, sent: Mapping[str, Any]) -> drafts.Draft:
    needs_input = model.min_references > 0
    checked = (KONTEXT if needs_input else FLUX2).check(sent)
    for side in ("width", "height"):
        if checked[side] is not None and checked[side] not in SIDES:
            allowed = ", ".join(map(str, SIDES))
            raise errors.InvalidInputError(f"{side} must be one of {allowed}; got {checked[side]}", field=side)
    image = sent.get("image")
    if image is not None and (not isinstance(image, str) or not image.startswith("data:image/")):
        raise errors.InvalidInputError("Image has been provided in the invalid form", field="image")
    if image is not None and ";example_id," in image:
        raise errors.InvalidInputError("Expected: base64, got: example_id", field="image")
    if checked.get("mode") == "Image Editing" and image is None:
        raise errors.InvalidInputError("image is required for the mode Image Editing", field="image")
    ratio = checked.get("aspect_ratio", "match_input_image")
    canvas = Canvas()
    if ratio != "match_input_image":
        # A ratio that is named goes before sides, which always have a value in this schema.
        width, height = SIZES[ratio]
        canvas = Canvas(ratio=width / height)
    elif checked["width"] is not None or checked["height"] is not None or not needs_input:
        canvas = Canvas(size=Size(width=checked["width"] or 1024, height=checked["height"] or 1024))
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=await inputs.of_value(image, "image"),
        canvas=canvas,
        steps=checked["steps"],
        guidance=checked["cfg_scale"],
        guidance_field="cfg_scale",
        seed=checked["seed"] or None,
        output_format="jpeg",
        filtered=not checked["disable_safety_checker"],
        submitted=inputs.shown(sent),
    )


@router.get("/health/live")
async def live() -> Response:
    """The process answers."""
    return _health("live", 200)


@router.get("/health/ready")
async def ready(held: Held) -> Response:
    """The stores answer and a worker serves the model."""
    try:
        await held.check()
        fleet = (await held.ledger.run(presence.present())).values()
    except errors.TransientError:
        return _health("not ready", 503)
    served = any(held.catalog.name_of(held.settings.default_model) in one.get("models", ()) for one in fleet)
    return _health("ready", 200) if served else _health("not ready", 503)


def _health(message: str, status: int) -> Response:
    return JSONResponse({"object": "health.response", "message": message, "status": message}, status_code=status)


def _model(held: Resources) -> tuple[str, catalog.Model]:
    name = held.catalog.name_of(held.settings.default_model)
    return name, held.catalog.models[name]


@router.get("/metadata")
async def metadata(held: Held) -> Response:
    """What runs here."""
    name, model = _model(held)
    licence = {"name": model.weights.licence, "url": model.weights.licence_url, "type": "file", "path": "LICENSE"}
    return JSONResponse(
        {
            "version": VERSION,
            "assetInfo": [],
            "licenseInfo": licence,
            "modelInfo": [{"modelUrl": model.weights.source, "shortName": name, "weights": model.weights.name}],
            "repository_override": "",
            "selectedModelProfileId": name,
        }
    )


@router.get("/manifest")
async def manifest(held: Held) -> Response:
    """The same, as the container's manifest."""
    name, model = _model(held)
    return JSONResponse(
        {"manifest_file": f"profiles:\n- id: {name}\n  model: {model.weights.source}\n", "repository_override": ""}
    )


@router.get("/license")
async def license_(held: Held) -> Response:
    """The licence of the model's weights; its text is where `url` leads."""
    _, model = _model(held)
    content = f"{model.display_name}: {model.weights.licence}. {model.weights.licence_url or ''}".strip()
    return JSONResponse(
        {
            "name": model.weights.licence,
            "path": "LICENSE",
            "sha": "",
            "size": len(content),
            "url": model.weights.licence_url,
            "type": "file",
            "content": content,
        }
    )


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(held: Held) -> Response:
    """Of this process, and what waits, in Prometheus' words."""
    waiting_by_queue = await held.ledger.run(recovery.backlog())
    lines = [
        "# HELP darkroom_queued_generations Generations waiting for a worker.",
        "# TYPE darkroom_queued_generations gauge",
        *(f'darkroom_queued_generations{{queue="{row.queue}"}} {row.pending}' for row in waiting_by_queue),
        "# HELP darkroom_info What serves.",
        "# TYPE darkroom_info gauge",
        f'darkroom_info{{python="{platform.python_version()}"}} 1',
    ]
    return PlainTextResponse(generate_latest().decode() + "\n".join(lines) + "\n")


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status = problems.status(error)
    # As the container's framework has it: what does not fit the schema cannot be processed.
    status = 422 if status == 400 else status
    return JSONResponse({"detail": error.message}, status_code=status, headers=problems.headers(error))


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
