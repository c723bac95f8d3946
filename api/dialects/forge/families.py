"""Forge's model families: whether a model is loaded, and loading it ahead of work."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.forge import asking, catalogue
from api.http import bodies
from api.http.access import ModelsCaller, ResourcesDep, Tenant
from api.http.hangups import unless_hung_up
from api.resources import Resources
from api.service import rights
from storage.contracts import access
from storage.contracts.samples import Target

router = APIRouter(prefix="/v1/model-families", tags=["forge"])


@router.get("/{slug:path}/status")
async def status(
    slug: str,
    resources: ResourcesDep,
    tenant: Tenant,
    version: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Whether a model is warm, starting or cold, and on which workers."""
    name = asking.named(slug, version, resources.catalog)
    serving = await resources.warming.workers(Target(model=name, gpu_type="any", region="any"))
    workers = [
        {"worker": worker, "gpu_type": facts["gpu_type"], "region": facts["region"], **facts["models"][name]}
        for worker, facts in sorted(serving.items())
    ]
    answer = {"slug": slug, "model": name, "version": resources.catalog.models[name].version}
    return JSONResponse({**answer, "status": catalogue.state_of(workers), "workers": workers})


@router.post("/{slug:path}/start", openapi_extra=asking.Wish.body())
async def start(slug: str, request: Request, resources: ResourcesDep, caller: ModelsCaller) -> Response:
    """Load a model before it is needed, and wait for that; `run_until_stopped` keeps it loaded.

    Where no worker of that sort is there, 202 says so, and the first that comes loads it.
    """
    target, keep = await _target(slug, request, resources, caller)
    started = await unless_hung_up(request, resources.warming.start(target, caller.tenant, keep=keep))
    is_loaded = started.startup_ms is not None
    answer: dict[str, Any] = {
        "slug": slug,
        "model": target.model,
        "gpu_type": started.gpu_type or (None if target.gpu_type == "any" else target.gpu_type),
        "region": started.region or (None if target.region == "any" else target.region),
        "keep_warm": keep,
        "startup_ms": started.startup_ms,
        "was_cold_start": started.startup_ms != 0,
        "status": "warm" if is_loaded else "waiting_for_worker",
    }
    return JSONResponse(answer, status_code=200 if is_loaded else 202)


@router.post("/{slug:path}/stop", openapi_extra=asking.Wish.body())
async def stop(slug: str, request: Request, resources: ResourcesDep, caller: ModelsCaller) -> Response:
    """Keep a model loaded no longer, and take it off its GPU once it is idle, unless another tenant keeps it."""
    target, _ = await _target(slug, request, resources, caller)
    kept = not await resources.warming.stop(target, caller.tenant)
    status = "kept_for_others" if kept else "stopping"
    return JSONResponse({"slug": slug, "model": target.model, "keep_warm": kept, "status": status})


@router.get("/{slug:path}")
async def read(slug: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """A model with all its versions."""
    versions = resources.catalog.versions(resources.catalog.name_of(slug))
    records = [await catalogue.record_of(name, resources) for name in versions.values()]
    return JSONResponse({"slug": slug, "versions": records})


async def _target(slug: str, request: Request, resources: Resources, caller: access.Caller) -> tuple[Target, bool]:
    sent = dict((await bodies.read(request)).fields) if await request.body() else {}
    name = asking.named(slug, sent.get("version"), resources.catalog)
    target, keep = asking.target_of(sent, name, resources.catalog)
    rights.check_target(target.model, target.gpu_type, caller.rights, resources.catalog)
    return target, keep
