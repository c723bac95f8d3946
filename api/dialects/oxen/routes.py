"""The native API beside the queue: models, what they take and cost, workers, a month's use, content credentials."""

import dataclasses
import re
from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import AfterValidator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base, fields
from api.dialects.oxen import account, contract, models
from api.dialects.oxen.parameters import edit_of
from api.http import bodies
from api.http.access import Caller, ResourcesDep, Tenant
from api.resources import Resources
from api.service import forecast, route
from api.service.budgets import month as month_now
from storage.contracts import catalog, errors, parameters
from storage.contracts.geometry import Canvas
from storage.ledger import recovery, usage

router = APIRouter(tags=["oxen"], responses=contract.PROBLEMS)


class Verification(fields.Fields):
    """A picture whose content credentials are to be told: a file of a form, or a data URI."""

    FORM = True

    image: fields.Picture = None


@router.post("/api/ai/verify", responses=contract.VERIFIED, openapi_extra=Verification.body())
async def verify(request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Tell what an uploaded picture's content credentials say, and whether it came from here."""
    body = await bodies.read(request, files=("image",))
    file = next(iter(body.files.get("image", ())), None)
    value = Verification.check(body.fields).image
    if file is not None:
        picture = await bodies.picture(file, "image")
    elif isinstance(value, str) and bodies.is_data_uri(value):
        picture = await bodies.picture_of_data_uri(value, "image")
    else:
        raise errors.InvalidInputError("image is required: an uploaded file or a data URI", field="image")
    return JSONResponse(account.credentials(await resources.credentials(picture.data, picture.header.content_type)))


@router.get("/api/ai/fleet", responses=contract.FLEET)
async def read_fleet(resources: ResourcesDep, tenant: Tenant) -> Response:
    """The workers that are there: GPU type, models with their state, whether they work; and how many edits wait, by model."""
    backlog = await resources.ledger.run(recovery.backlog())
    waiting = account.queued(backlog, resources.catalog.models)
    present = await resources.forecasts.present()
    workers, encoders = account.fleet(present.workers), account.fleet(present.text_encoders)
    return JSONResponse({"workers": workers, "text_encoders": encoders, "queued": waiting})


def _month(month: str | None) -> str | None:
    if month is not None and not re.fullmatch("[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise ValueError("must be a year and a month such as 2026-11")
    return month


@router.get("/api/ai/usage", responses=contract.USAGE)
async def read_usage(
    resources: ResourcesDep,
    caller: Caller,
    month: Annotated[str | None, AfterValidator(_month)] = None,
) -> Response:
    """What this key's tenant used in a month (`2026-11`, by UTC; by default the present one), by model, and the key's budget."""
    month = month or month_now()
    used = await resources.ledger.run(usage.usage(caller.tenant, month))
    return JSONResponse(account.usage(month, used, resources.budgets.of(caller.tenant, caller.rights)))


@router.get("/api/ai/models", responses=contract.MODELS)
async def list_models(
    resources: ResourcesDep, tenant: Tenant, developer_name: str | None = None, action: str | None = None
) -> Response:
    """Every model, with the schema its requests are checked against; those that can be fine-tuned (`action`) are none."""
    return _models(resources, lambda _, model: action is None and developer_name in (None, model.developer))


@router.get("/api/ai/models/search", responses=contract.MODELS)
async def search_models(resources: ResourcesDep, tenant: Tenant, search: str = "") -> Response:
    """Models whose names or summary contain the words."""
    words = search.lower().split()
    return _models(resources, lambda name, model: base.is_about(name, model, words))


def _models(resources: Resources, wanted: Callable[[str, catalog.Model], bool]) -> Response:
    known = resources.catalog.models.items()
    found = [models.model_answer(name, model) for name, model in known if wanted(name, model)]
    return JSONResponse({"object": "list", "data": found})


@router.get("/api/ai/models/{model_id:path}/placement", responses=contract.PLACEMENTS)
async def plan_placement(
    model_id: str,
    resources: ResourcesDep,
    tenant: Tenant,
    gpu_type: str | None = None,
    profile: Literal["exact", "fast"] | None = None,
) -> Response:
    """How a model runs on a GPU type, or on each: the best execution plan that fits, with its sums in GB.

    Sums are of the published weights; where stand-ins are loaded instead, `stand_in` says so.
    """
    known = resources.catalog
    name = known.profiled(model_id, profile) if profile else known.name_of(model_id)
    if gpu_type is not None and gpu_type not in known.gpu_types:
        message = f"gpu_type must be one of {', '.join(known.gpu_types)}; got {parameters.shown(gpu_type)}"
        raise errors.InvalidInputError(message, field="gpu_type")
    plans = [models.placement(known, name, one) for one in ([gpu_type] if gpu_type else known.gpu_types)]
    stand_in = known.models[name].weights.memory is not None
    return JSONResponse({"model": name, "stand_in": stand_in, "placements": plans})


@router.get("/api/ai/models/{model_id:path}/estimate", responses=contract.ESTIMATES)
async def estimate_edit(
    model_id: str,
    resources: ResourcesDep,
    tenant: Tenant,
    gpu_type: str | None = None,
    region: str | None = None,
    num_inference_steps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    references: Annotated[int | None, Query(ge=0, le=16)] = None,
    upsampled: bool = False,
    profile: Literal["exact", "fast"] | None = None,
) -> Response:
    """How long an edit is likely to take and what it costs, warm and cold, on each target; with what that is taken from."""
    name = resources.catalog.profiled(model_id, profile) if profile else resources.catalog.name_of(model_id)
    model = resources.catalog.models[name]
    pins = route.pins_of({"gpu_type": gpu_type, "region": region})
    route.check(pins, name, resources.catalog)
    steps = num_inference_steps or model.usual_steps
    count = model.min_references if references is None else references
    sent = {"num_inference_steps": num_inference_steps, "width": width, "height": height}
    given, canvas = {field: value for field, value in sent.items() if value is not None}, Canvas()
    if given:
        # As an edit's are checked.
        edit = edit_of(name, model, {"prompt": "-", **given}, references=count, masked=False)
        canvas = edit.canvas if width is not None else canvas
    ask = forecast.ask_of(model, canvas, steps, count, upsampled=upsampled)
    targets = [
        dataclasses.asdict(await resources.forecasts.expected(target, ask))
        for target in await resources.forecasts.targets(name)
        if target.gpu_type in (pins.gpu_types or model.gpu_types) and pins.region in (None, target.region)
    ]
    return JSONResponse(
        {
            "model": name, "profile": model.profile, "steps": steps, "references": count, "pixels": ask.pixels,
            "targets": targets,
        }
    )  # fmt: skip


@router.get("/api/ai/models/{model_id:path}", responses=contract.MODEL)
async def read_model(
    model_id: str, resources: ResourcesDep, tenant: Tenant, deployment_status: str | None = None
) -> Response:
    """One model. `deployment_status` changes nothing: all are served by workers."""
    name = resources.catalog.name_of(model_id)
    return JSONResponse(models.model_answer(name, resources.catalog.models[name]))
