"""Nebius Forge: a catalogue of models with what was measured of them on each GPU type, and one blocking route to run them.

`/v1/models` is OpenAI's path too: each record has what both clients read.
"""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, forecasts, inputs, problems, routing, waiting
from api.access import Held, IdempotencyKey, Tenant
from api.dialects import Dialect
from api.resources import Resources
from storage.contracts import catalog, edits, errors, estimates
from storage.contracts.geometry import Canvas, Size
from storage.contracts.parameters import Declaration, Parameter
from storage.contracts.samples import SUCCEEDED, Sample, Target, statistics_of
from storage.ledger import calls

router = APIRouter(prefix="/v1", tags=["forge"])

RATIOS = ("1:1", "4:3", "3:2", "16:9", "3:4", "2:3", "9:16")
PINS = ("image", "model", "model_version", "gpu_type", "region")
PROMPT = Parameter(type="string", required=True, max_length=10_000, description="The instruction")
SEED = Parameter(type="integer", default=0, minimum=0, maximum=edits.MAX_SEED, description="As it is; 0 too")
GUIDANCE = Parameter(type="number", minimum=0, maximum=20, description="Guidance, for models that take it")
KONTEXT = Declaration(
    {
        "prompt": PROMPT,
        "seed": SEED,
        "steps": Parameter(type="integer", default=30, minimum=1, maximum=50, description="Denoising steps"),
        "guidance_scale": GUIDANCE,
    },
    also=PINS,
)
FLUX2 = Declaration(
    {
        "prompt": PROMPT,
        "seed": SEED,
        "steps": Parameter(type="integer", minimum=1, maximum=80, description="Denoising steps"),
        "guidance_scale": GUIDANCE,
        "width": Parameter(type="integer", default=1024, minimum=64, maximum=2048, description="In pixels"),
        "height": Parameter(type="integer", default=1024, minimum=64, maximum=2048, description="In pixels"),
        "aspect_ratio": Parameter(type="string", choices=RATIOS, description="Goes before width and height"),
        "caption_upsample_temperature": Parameter(
            type="number", minimum=0, maximum=2, description="Taken and not used: prompts are run as they are"
        ),
    },
    also=PINS,
)
WARM_S = 900
"""How long a model that was started once is looked after."""
LET_GO_S = 10
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
    finished = await waiting.all_terminal(
        request,
        receipt,
        tenant,
        hub=held.hub,
        ledger=held.ledger,
        limit_s=held.settings.blocking_limit_s,
        keep=idempotency_key is not None,
    )
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
    notes = ["Prompts are run as they are: caption_upsample_temperature changes nothing"]
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
        "notes": notes if sent.get("caption_upsample_temperature") is not None else [],
    }
    return JSONResponse(answer, headers={"x-model-time-ms": str(found.result.execution_ms)})


async def _draft(name: str, sent: Mapping[str, Any], held: Resources) -> drafts.Draft:
    model = held.catalog.models[name]
    checked = (KONTEXT if model.min_references else FLUX2).check(sent)
    return drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        references=await inputs.of_value(sent.get("image") or None, "image"),
        canvas=Canvas() if model.min_references else _canvas(checked),
        steps=checked["steps"],
        guidance=checked["guidance_scale"],
        guidance_field="guidance_scale",
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
    records = [await _record(name, held) for name in named[offset : offset + limit]]
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
    rows, matches = _filtered(await _rows(name, held), gpu_type, region)
    declared = KONTEXT if held.catalog.models[name].min_references else FLUX2
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "model_version": held.catalog.models[name].version,
            "filters": _filters(model_version, gpu_type, region),
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
    every = await _rows(name, held)
    rows, matches = _filtered(every, gpu_type, region)
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
            "filters": _filters(model_version, gpu_type, region),
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
    ask = _usual(held.catalog.models[name], steps)
    every = [await held.forecasts.expected(target, ask, ask.pixels) for target in await held.forecasts.targets(name)]
    wanted = [one for one in every if _is_wanted(one.gpu_type, one.region, gpu_type, region)]
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
            "filters": _filters(model_version, gpu_type, region),
            "filters_matched": bool(wanted),
            "steps": ask.steps,
            "selected": best,
            "targets": found,
        }
    )


@router.get("/models/{slug:path}")
async def read_model(slug: str, held: Held, tenant: Tenant) -> Response:
    """One model."""
    return JSONResponse(await _record(held.catalog.name_of(slug), held))


@router.get("/model-families/{slug:path}/status")
async def family_status(slug: str, held: Held, tenant: Tenant, version: Version = None) -> Response:
    """Whether a model is warm, starting or cold, and on which workers."""
    name = _named(slug, version, held)
    workers = [
        {"worker": worker, "gpu_type": one["gpu_type"], "region": one["region"], **one["models"][name]}
        for worker, one in sorted((await held.ledger.run(calls.present())).items())
        if one.get("role") == "gpu" and name in one["models"]
    ]
    found = {"slug": slug, "model": name, "version": held.catalog.models[name].version}
    return JSONResponse({**found, "status": _state(workers), "workers": workers})


@router.post("/model-families/{slug:path}/start")
async def start(slug: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """Load a model before it is needed, and wait for that; `run_until_stopped` keeps it loaded.

    Where no worker of that sort is there, 202 says so, and the first that comes loads it.
    """
    target, how = await _wish(slug, request, held)
    began, was_warm = time.monotonic(), False
    await held.ledger.run(calls.want(target, how, seconds=WARM_S))
    answer: dict[str, Any] = {
        "slug": slug,
        "model": target.model,
        "gpu_type": None if target.gpu_type == "any" else target.gpu_type,
        "region": None if target.region == "any" else target.region,
        "keep_warm": how == "always",
    }
    first = True
    while True:
        there = await _workers(target, held)
        warm = next((one for one in there if one["models"][target.model]["state"] == "warm"), None)
        was_warm = was_warm or (first and warm is not None)
        if warm is not None:
            startup_ms = 0 if was_warm else round((time.monotonic() - began) * 1000)
            answer |= {"gpu_type": warm["gpu_type"], "region": warm["region"], "startup_ms": startup_ms}
            return JSONResponse({**answer, "was_cold_start": not was_warm, "status": "warm"})
        if not there:
            more = {"startup_ms": None, "was_cold_start": True, "status": "waiting_for_worker"}
            return JSONResponse({**answer, **more}, status_code=202)
        failed = [one["models"][target.model] for one in there if one["models"][target.model]["state"] == "failed"]
        if len(failed) == len(there):
            raise errors.ModelUnavailableError(str(failed[0].get("reason", "The model could not be loaded")))
        if time.monotonic() - began > held.settings.blocking_limit_s:
            raise errors.TimedOutError("The model is still loading")
        first = False
        await asyncio.sleep(LOOK_S)


@router.post("/model-families/{slug:path}/stop")
async def stop(slug: str, request: Request, held: Held, tenant: Tenant) -> Response:
    """Keep a model loaded no longer, and take it off its GPU once it is idle."""
    target, _ = await _wish(slug, request, held)
    await held.ledger.run(calls.want(target, "never", seconds=LET_GO_S))
    return JSONResponse({"slug": slug, "model": target.model, "keep_warm": False, "status": "stopping"})


@router.get("/model-families/{slug:path}")
async def read_family(slug: str, held: Held, tenant: Tenant) -> Response:
    """A model with all its versions."""
    versions = held.catalog.versions(held.catalog.name_of(slug))
    return JSONResponse({"slug": slug, "versions": [await _record(name, held) for name in versions.values()]})


def _named(slug: str, version: Any, held: Resources) -> str:
    name = held.catalog.name_of(slug)
    if version in (None, ""):
        return name
    if not isinstance(version, str):
        raise errors.InvalidInputError("model_version must be a string", field="model_version")
    return held.catalog.version(name, version)


async def _wish(slug: str, request: Request, held: Resources) -> tuple[Target, calls.Wish]:
    sent = (await bodies.read(request)).fields
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


async def _workers(target: Target, held: Resources) -> list[Mapping[str, Any]]:
    """Workers that may load it, as they are now and not as they were a moment ago."""
    return [
        one
        for one in (await held.ledger.run(calls.present())).values()
        if one.get("role") == "gpu"
        and target.model in one["models"]
        and target.gpu_type in ("any", one["gpu_type"])
        and target.region in ("any", one["region"])
    ]


def _state(workers: Sequence[Mapping[str, Any]]) -> str:
    states = [one["state"] for one in workers]
    return next((state for state in ("warm", "starting", "failed") if state in states), "cold")


def _usual(model: catalog.Model, steps: int | None = None) -> estimates.Ask:
    usual = steps or drafts.default(model, "num_inference_steps")
    return forecasts.asked(model, None, usual, model.min_references)


def _filters(version: str | None, gpu_type: str | None, region: str | None) -> dict[str, str]:
    asked = {"model_version": version, "gpu_type": gpu_type, "region": region}
    return {name: value for name, value in asked.items() if value}


def _is_wanted(gpu_type: str, region: str, wanted_type: str | None, wanted_region: str | None) -> bool:
    return (wanted_type or gpu_type).lower() == gpu_type and (wanted_region or region) == region


def _filtered(
    rows: Sequence[Mapping[str, Any]], gpu_type: str | None, region: str | None
) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows that were asked for, or all when none is; and which of both it is."""
    wanted = [row for row in rows if _is_wanted(row["gpu_type"], row["region"], gpu_type, region)]
    return (wanted, True) if wanted else (list(rows), False)


async def _rows(name: str, held: Resources) -> list[dict[str, Any]]:
    ran = await held.forecasts.samples(name)
    return [await _row(target, ran.get(target, ()), held) for target in await held.forecasts.targets(name)]


async def _row(target: Target, ran: Sequence[Sample], held: Resources) -> dict[str, Any]:
    """What is known of a model on one GPU type in one region."""
    model, gpu = held.catalog.models[target.model], held.catalog.gpu_types[target.gpu_type]
    found = statistics_of(ran)
    expected = await held.forecasts.expected(target, _usual(model), model.frame.usual_pixels)
    last = next((one for one in ran if one.outcome != SUCCEEDED), None)
    made = next((one for one in ran if one.outcome == SUCCEEDED), None)
    status = "supported" if made else "probe_pending"
    if made is None and last is not None:
        status = "oom" if last.outcome == errors.OutOfMemoryError.code else "other_error"
    return {
        "gpu_type": target.gpu_type,
        "region": target.region,
        "status": status,
        "is_compatible": status != "oom",
        "state": expected.state,
        "workers": expected.workers,
        "request_ms": made.execute_ms if made else None,
        "request_ms_p50": round(found.execute.p50) if found.execute else None,
        "request_ms_p95": round(found.execute.p95) if found.execute else None,
        "request_ms_p99": round(found.execute.p99) if found.execute else None,
        "request_ms_samples": found.execute.count if found.execute else 0,
        "startup_ms_probe": round(found.cold_start.p50) if found.cold_start else None,
        "cost_per_gpu_hour_usd": gpu.price_per_hour,
        "estimated_warm_request_cost_usd": expected.cost_usd["p50"] if expected.cost_usd else None,
        "basis": expected.basis,
        "placements": found.placements,
        "observed_success_rate": found.success_rate,
        "total_starts": found.cold_start.count if found.cold_start else 0,
        "total_warm_starts": sum(one.outcome == SUCCEEDED and not one.load_ms for one in ran),
        "total_failures": sum(found.failures.values()),
        "failure_reasons": dict(found.failures),
        "last_error": last.outcome if last else None,
        "last_failed_at": _iso(last.at_ms if last else None),
        "probed_at": _iso(found.latest_ms),
        "vram_measured_gb": found.peak_gb,
    }


def _iso(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


async def _record(name: str, held: Resources) -> dict[str, Any]:
    """A model with the fields of Forge's catalogue, and OpenAI's `object`, `created` and `owned_by`."""
    model = held.catalog.models[name]
    workers = [one for one in (await held.forecasts.fleet()).values() if name in one["models"]]
    rows = await _rows(name, held)
    created = int(datetime.fromisoformat(model.released_at).timestamp())
    declared = KONTEXT if model.min_references else FLUX2
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": model.developer,
        "slug": name,
        "name": model.display_name,
        "model_family": model.version_of or name,
        "version": model.version,
        "version_key": model.version,
        "status": _state([one["models"][name] for one in workers]),
        "summary": model.summary,
        "source_url": model.weights.licence_url,
        "license": model.weights.licence,
        "licence": model.weights.licence,
        "non_commercial": model.weights.non_commercial,
        "aliases": list(model.aliases),
        "modality_input": ["text", "image"],
        "modality_output": ["image"],
        "capabilities": ["image-editing", *(["text-to-image"] if not model.min_references else [])],
        "configured_regions": list(held.catalog.regions),
        "supported_regions": sorted({row["region"] for row in rows if row["status"] == "supported"}),
        "gpu_support": rows,
        "weights": {"name": model.weights.name, "note": model.weights.note},
        "created_at": model.released_at,
        "playground_config": {
            "api_mapping": {"endpoint": f"/v1/inference/{name}", "method": "POST"},
            "input_fields": declared.schema(),
            "output_display": {"type": "image", "format_hint": "png"},
        },
    }


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    kind = "invalid_request_error" if problems.status(error) < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.field, "code": error.code}
    return JSONResponse(
        {"error": body, "detail": error.message}, status_code=problems.status(error), headers=problems.headers(error)
    )


DIALECT = Dialect(
    name="forge",
    router=router,
    problem=_problem,
    aim=(
        "export FORGE_API_BASE={url}",
        "export FORGE_API_KEY=<key>",
        'curl "$FORGE_API_BASE/v1/models/black-forest-labs-flux-2-dev/reliability" -H "Authorization: Bearer $FORGE_API_KEY"',
    ),
)
