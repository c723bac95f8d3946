"""Forge's routes."""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, inputs, routing, waiting
from api.access import Held, IdempotencyKey, Tenant
from api.dialects.forge import catalogue
from api.resources import Resources
from storage import fleet
from storage.contracts import errors
from storage.contracts.catalog import UPSAMPLING
from storage.contracts.geometry import Canvas, Size
from storage.contracts.samples import Target
from storage.ledger import presence

router = APIRouter(prefix="/v1", tags=["forge"])

WARM_S = 900
"""How long a model that was started once is looked after."""
LET_GO_S = 60
LOOK_S = 0.3

GpuType = Annotated[str | None, Query(max_length=100)]
Version = Annotated[str | None, Query(max_length=100)]


@router.post("/inference/{slug}")
async def infer(
    slug: str, request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run a model and wait for it. A client that hangs up cancels its edit, unless it sent an `Idempotency-Key`."""
    sent = (await bodies.read(request)).fields
    name = _named(slug, sent.get("model_version"), held)
    asked = drafts.request_of(await _draft(name, sent, held), held, tenant, idempotency_key=idempotency_key)
    pins = routing.pins_of(sent)
    route = await routing.routed(pins, asked.edit, len(asked.references), known=held.catalog, forecasts=held.forecasts)
    receipt = await held.submission.submit(dataclasses.replace(asked, route=route))
    finished = await waiting.all_terminal(request, receipt, tenant, held, keep=idempotency_key is not None)
    if finished is None:
        return Response(status_code=499)
    found = finished[0]
    if found.result is None or found.times.expires_at is None:
        raise drafts.failure(found) or errors.InternalError("The generation has no result")
    artifact = {
        "base64": await drafts.pixels(found.result, held),
        "finishReason": "SUCCESS",
        "seed": found.edit.seed,
    }
    ignored = sent.get(UPSAMPLING) and not held.catalog.models[name].upsamples
    answer = {
        "artifacts": [artifact],
        "generation_id": found.id,
        "url": held.objects.signed_url(found.result.key, found.times.expires_at),
        "model": name,
        "model_version": held.catalog.models[name].version,
        "gpu_type": found.gpu_type,
        "region": found.region,
        "width": found.result.width,
        "height": found.result.height,
        "cost_usd": found.result.cost_usd,
        "timings": found.result.timings.model_dump() if found.result.timings else None,
        "upsampled_prompt": found.result.upsampled_prompt,
        "notes": [f"{UPSAMPLING} changes nothing: {drafts.NOT_UPSAMPLED.format(name)}"] if ignored else [],
    }
    return JSONResponse(answer, headers={"x-model-time-ms": str(found.result.execution_ms)})


async def _draft(name: str, sent: Mapping[str, Any], held: Resources) -> drafts.Draft:
    model = held.catalog.models[name]
    checked = (catalogue.KONTEXT if model.min_references else catalogue.FLUX2).check(sent)
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=await inputs.of_value(sent.get("image") or None, "image"),
        canvas=Canvas() if model.min_references else _canvas(checked),
        steps=checked["steps"],
        guidance=checked["guidance_scale"],
        guidance_field="guidance_scale",
        # The published sample asks for it whatever the model; where that cannot, the answer's notes say so.
        upsample_temperature=(checked.get(UPSAMPLING) or 0.0) if model.upsamples else 0.0,
        seed=checked["seed"],
        output_format="png",
        submitted=inputs.shown({field: value for field, value in sent.items() if field != "image"}),
    )


def _canvas(checked: Mapping[str, Any]) -> Canvas:
    size = Size(width=checked["width"], height=checked["height"])
    ratio = checked["aspect_ratio"] and drafts.ratio_of(checked["aspect_ratio"])
    # Both are sent together by default, and then say the same.
    if ratio is None or abs(size.ratio - ratio) < 0.01:
        return Canvas(size=size)
    return Canvas(ratio=ratio, pixels=size.pixels)


@router.get("/models")
async def list_models(
    held: Held,
    tenant: Tenant,
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    offset: Annotated[int, Query(ge=0)] = 0,
    include_variants: bool = True,
) -> Response:
    """Every model and version, a page of them; `search` looks for words in name and summary."""
    words = search.lower().split()
    named = [
        name
        for name, model in held.catalog.models.items()
        if (include_variants or model.version_of is None)
        and all(word in f"{name} {model.display_name} {model.summary}".lower() for word in words)
    ]
    records = [await catalogue.record_of(name, held) for name in named[offset : offset + limit]]
    return JSONResponse({"object": "list", "data": records, "models": records, "total": len(named)})


@router.get("/models/{slug:path}/inference-routes")
async def inference_routes(
    slug: str,
    held: Held,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
) -> Response:
    """Where a model is run, and what is known of each target."""
    name = _named(slug, model_version, held)
    rows, matches = catalogue.filtered(await catalogue.rows_of(name, held), gpu_type, region)
    declared = catalogue.KONTEXT if held.catalog.models[name].min_references else catalogue.FLUX2
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "model_version": held.catalog.models[name].version,
            "filters": catalogue.filters(model_version, gpu_type, region),
            "filters_matched": matches,
            "routes": [{"endpoint": f"/v1/inference/{slug}", "method": "POST", "fields": declared.schema()}],
            "targets": rows,
        }
    )


@router.get("/models/{slug:path}/reliability")
async def reliability(
    slug: str,
    held: Held,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
) -> Response:
    """Which targets have been seen to work, the fastest and the cheapest of them.

    When none matches the filters, `filters_matched` is false and the targets named are the nearest thing: those that work.
    """
    name = _named(slug, model_version, held)
    every = await catalogue.rows_of(name, held)
    rows, matches = catalogue.filtered(every, gpu_type, region)
    supported = [row for row in rows if row["status"] == "supported"]
    if not supported:
        matches, supported = False, [row for row in every if row["status"] == "supported"]
    failures: Counter[str] = Counter()
    for row in rows:
        failures.update(row["failure_reasons"])
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "reliability_status": "verified" if supported and matches else "unverified",
            "supported_rows": len([row for row in rows if row["status"] == "supported"]),
            "total_rows": len(rows),
            "filters": catalogue.filters(model_version, gpu_type, region),
            "filters_matched": matches,
            "status_counts": Counter(row["status"] for row in rows),
            "failure_reason_counts": failures,
            "fastest_supported_target": min(supported, key=lambda row: row["request_ms_p50"], default=None),
            "lowest_cost_supported_target": min(
                supported, key=lambda row: row["estimated_warm_request_cost_usd"], default=None
            ),
        }
    )


@router.get("/models/{slug:path}/run-estimate")
async def run_estimate(
    slug: str,
    held: Held,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
    steps: Annotated[int | None, Query(ge=1, le=200)] = None,
) -> Response:
    """What a request takes and costs, warm and with the first cold start, on each target."""
    name = _named(slug, model_version, held)
    ask = catalogue.usual(held.catalog.models[name], steps)
    every = [await held.forecasts.expected(target, ask) for target in await held.forecasts.targets(name)]
    wanted = [one for one in every if catalogue.is_wanted(one.gpu_type, one.region, gpu_type, region)]
    found: list[dict[str, Any]] = [
        {
            "gpu_type": one.gpu_type,
            "region": one.region,
            "status": one.state,
            "warm": {"request_ms": one.warm_ms, "cost_usd": one.cost_usd},
            "first_cold": {"request_ms": one.cold_ms, "cost_usd": one.cost_usd},
            "basis": one.basis,
            "samples": one.runs,
        }
        for one in wanted or every
    ]
    best = min((one for one in found if one["samples"]), key=lambda one: one["warm"]["request_ms"]["p50"], default=None)
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "filters": catalogue.filters(model_version, gpu_type, region),
            "filters_matched": bool(wanted),
            "steps": ask.steps,
            "selected": best,
            "targets": found,
        }
    )


@router.get("/models/{slug:path}")
async def read_model(slug: str, held: Held, tenant: Tenant) -> Response:
    """One model."""
    return JSONResponse(await catalogue.record_of(held.catalog.name_of(slug), held))


@router.get("/model-families/{slug:path}/status")
async def family_status(slug: str, held: Held, tenant: Tenant, version: Version = None) -> Response:
    """Whether a model is warm, starting or cold, and on which workers."""
    name = _named(slug, version, held)
    workers = [
        {"worker": worker, "gpu_type": one["gpu_type"], "region": one["region"], **one["models"][name]}
        for worker, one in sorted(fleet.gpu_workers(await held.ledger.run(presence.present())).items())
        if name in one["models"]
    ]
    found = {"slug": slug, "model": name, "version": held.catalog.models[name].version}
    return JSONResponse({**found, "status": catalogue.state_of(workers), "workers": workers})


@router.post("/model-families/{slug:path}/start")
async def start(slug: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """Load a model before it is needed, and wait for that; `run_until_stopped` keeps it loaded.

    Where no worker of that sort is there, 202 says so, and the first that comes loads it.
    """
    target, how = await _wish(slug, request, held)
    began = time.monotonic()
    answer: dict[str, Any] = {
        "slug": slug,
        "model": target.model,
        "gpu_type": None if target.gpu_type == "any" else target.gpu_type,
        "region": None if target.region == "any" else target.region,
        "keep_warm": how == "always",
    }
    there = await _workers(target, held)
    already = _warm(there, target)
    if already is None or how == "always":
        await held.ledger.run(presence.want(target, how, seconds=WARM_S, worker=already or ""))
    failures = {name: _failures(one, target) for name, one in there.items()}
    while True:
        warm = _warm(there, target)
        if warm is not None:
            startup_ms = 0 if already else round((time.monotonic() - began) * 1000)
            where = {"gpu_type": there[warm]["gpu_type"], "region": there[warm]["region"], "startup_ms": startup_ms}
            return JSONResponse({**answer, **where, "was_cold_start": already is None, "status": "warm"})
        if not there:
            more = {"startup_ms": None, "was_cold_start": True, "status": "waiting_for_worker"}
            return JSONResponse({**answer, **more}, status_code=202)
        for name, one in there.items():
            if _failures(one, target) > failures.get(name, 0):
                raise errors.ModelUnavailableError(str(one["models"][target.model].get("reason")))
        if time.monotonic() - began > held.settings.blocking_limit_s:
            raise errors.TimedOutError("The model is still loading")
        await asyncio.sleep(LOOK_S)
        there = await _workers(target, held)


def _warm(workers: Mapping[str, Mapping[str, Any]], target: Target) -> str | None:
    """The name of one that has it loaded."""
    return next((name for name, one in workers.items() if one["models"][target.model].get("state") == "warm"), None)


def _failures(worker: Mapping[str, Any], target: Target) -> int:
    return int(worker["models"][target.model].get("failures", 0))


@router.post("/model-families/{slug:path}/stop")
async def stop(slug: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """Keep a model loaded no longer, and take it off its GPU once it is idle."""
    target, _ = await _wish(slug, request, held)
    await held.ledger.run(presence.want(target, "never", seconds=LET_GO_S))
    return JSONResponse({"slug": slug, "model": target.model, "keep_warm": False, "status": "stopping"})


@router.get("/model-families/{slug:path}")
async def read_family(slug: str, held: Held, tenant: Tenant) -> Response:
    """A model with all its versions."""
    versions = held.catalog.versions(held.catalog.name_of(slug))
    return JSONResponse(
        {"slug": slug, "versions": [await catalogue.record_of(name, held) for name in versions.values()]}
    )


def _named(slug: str, version: Any, held: Resources) -> str:
    name = held.catalog.name_of(slug)
    if version in (None, ""):
        return name
    if not isinstance(version, str):
        raise errors.InvalidInputError("model_version must be a string", field="model_version")
    return held.catalog.version(name, version)


async def _wish(slug: str, request: Request, held: Resources) -> tuple[Target, presence.Wish]:
    sent = (await bodies.read(request)).fields if await request.body() else {}
    unknown = sorted(set(sent) - {"version", "gpu_type", "region", "run_until_stopped"})
    if unknown:
        raise errors.InvalidInputError(f"{unknown[0]} is not a known field", field=unknown[0])
    keep = sent.get("run_until_stopped", False)
    if not isinstance(keep, bool):
        raise errors.InvalidInputError("run_until_stopped must be true or false", field="run_until_stopped")
    name = _named(slug, sent.get("version"), held)
    pins = routing.pins_of(sent)
    if len(pins.gpu_types) > 1:
        raise errors.InvalidInputError("gpu_type must be one GPU type", field="gpu_type")
    routing.check(pins, name, held.catalog)
    gpu_type = pins.gpu_types[0] if pins.gpu_types else "any"
    return Target(model=name, gpu_type=gpu_type, region=pins.region or "any"), "always" if keep else "once"


async def _workers(target: Target, held: Resources) -> dict[str, Mapping[str, Any]]:
    """Workers that may load it, as they are now and not as they were a moment ago."""
    present = fleet.gpu_workers(await held.ledger.run(presence.present()))
    return {
        name: one
        for name, one in present.items()
        if target.model in one["models"]
        and target.gpu_type in ("any", one["gpu_type"])
        and target.region in ("any", one["region"])
    }
