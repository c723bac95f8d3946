"""Forge's routes: run a model, list models, tell what is known of each; start and stop are in `families`."""

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base, fields
from api.dialects.forge import asking, catalogue
from api.http import bodies
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.resources import Resources
from api.service.checks import NOT_UPSAMPLED
from storage.contracts.catalog import UPSAMPLING

router = APIRouter(prefix="/v1", tags=["forge"])

GpuType = Annotated[str | None, Query(max_length=100)]
Version = Annotated[str | None, Query(max_length=100)]


@router.post(
    "/inference/{slug}",
    openapi_extra=fields.body({"anyOf": [asking.Kontext.model_json_schema(), asking.Flux2.model_json_schema()]}),
)
async def infer(
    slug: str, request: Request, resources: ResourcesDep, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run a model and wait for it. A client that hangs up cancels its edit, unless it sent an `Idempotency-Key`."""
    body = await bodies.read(request)
    name = asking.named(slug, body.fields.get("model_version"), resources.catalog)
    model = resources.catalog.models[name]
    submission = await asking.submission_of(body, name=name, model=model, idempotency_key=idempotency_key)
    accepted = await base.submitted(request, resources, submission, caller, names=asking.NAMES)
    (view,) = await base.finished(request, resources, accepted, caller.tenant, keep=idempotency_key is not None)
    result, generation = view.made(asking.NAMES), view.generation
    artifact = {"base64": await view.base64(), "finishReason": "SUCCESS", "seed": generation.edit.seed}
    ignored = body.fields.get(UPSAMPLING) and not model.upsamples
    answer = {
        "artifacts": [artifact],
        "generation_id": view.id,
        "url": view.url,
        "model": name,
        "model_version": model.version,
        "gpu_type": generation.gpu_type,
        "region": generation.region,
        "width": result.width,
        "height": result.height,
        "cost_usd": result.cost_usd,
        "timings": result.timings.model_dump() if result.timings else None,
        "upsampled_prompt": result.upsampled_prompt,
        "notes": [f"{UPSAMPLING} changes nothing: {NOT_UPSAMPLED.format(name)}"] if ignored else [],
    }
    return JSONResponse(answer, headers={"x-model-time-ms": str(result.execution_ms)})


@router.get("/models")
async def list_models(
    request: Request,
    resources: ResourcesDep,
    tenant: Tenant,
    search: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 200,
    offset: Annotated[int, Query(ge=0)] = 0,
    include_variants: bool = True,
) -> Response:
    """Every model and version, a page of them; `search` looks for words in names and summary."""
    words = search.lower().split()
    named = [
        name
        for name, model in resources.catalog.models.items()
        if (include_variants or model.version_of is None) and base.is_about(name, model, words)
    ]
    page = named[offset : offset + limit]
    records = [await catalogue.record_of(name, resources) for name in page]
    owned = [_described(catalogue.owned(name, resources), name, request, resources) for name in page]
    return JSONResponse(
        {
            "object": "list",
            "data": records,
            "models": records,
            "total": len(named),
            # As Replicate has a page.
            "results": [{**record, **more} for record, more in zip(records, owned, strict=True)],
            "previous": None,
            "next": None,
        }
    )


def _described(named: str, name: str, request: Request, resources: Resources) -> dict[str, Any]:
    """What clients of other dialects read of a model that is asked for as `named`."""
    model, own = resources.catalog.models[name], own_url(request, resources)
    return {key: value for one in request.app.state.describing for key, value in one(named, name, model, own).items()}


@router.get("/models/{slug:path}/inference-routes")
async def inference_routes(
    slug: str,
    resources: ResourcesDep,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
) -> Response:
    """Where a model is run, and what is known of each target."""
    name = asking.named(slug, model_version, resources.catalog)
    rows, matches = catalogue.filtered(await catalogue.rows_of(name, resources), gpu_type, region)
    declared = base.of_family(asking.FAMILIES, resources.catalog.models[name])
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "model_version": resources.catalog.models[name].version,
            "filters": catalogue.filters(model_version, gpu_type, region),
            "filters_matched": matches,
            "routes": [{"endpoint": f"/v1/inference/{slug}", "method": "POST", "fields": declared.properties()}],
            "targets": rows,
        }
    )


@router.get("/models/{slug:path}/reliability")
async def reliability(
    slug: str,
    resources: ResourcesDep,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
) -> Response:
    """Which targets have been seen to work, the fastest and the cheapest of them.

    When none matches the filters, `filters_matched` is false and the targets named are the nearest thing: those that work.
    """
    name = asking.named(slug, model_version, resources.catalog)
    every = await catalogue.rows_of(name, resources)
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
    resources: ResourcesDep,
    tenant: Tenant,
    model_version: Version = None,
    gpu_type: GpuType = None,
    region: Version = None,
    steps: Annotated[int | None, Query(ge=1, le=200)] = None,
) -> Response:
    """What a request takes and costs, warm and with the first cold start, on each target."""
    name = asking.named(slug, model_version, resources.catalog)
    ask = catalogue.usual(resources.catalog.models[name], steps)
    every = [await resources.forecasts.expected(target, ask) for target in await resources.forecasts.targets(name)]
    wanted = [one for one in every if catalogue.is_wanted(one.gpu_type, one.region, gpu_type, region)]
    targets: list[dict[str, Any]] = [
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
    best = min(
        (one for one in targets if one["samples"]), key=lambda one: one["warm"]["request_ms"]["p50"], default=None
    )
    return JSONResponse(
        {
            "slug": slug,
            "model": name,
            "filters": catalogue.filters(model_version, gpu_type, region),
            "filters_matched": bool(wanted),
            "steps": ask.steps,
            "selected": best,
            "targets": targets,
        }
    )


@router.get("/models/{slug:path}")
async def read_model(slug: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """One model, with what the clients of other dialects read of it."""
    known = resources.catalog
    name = known.name_of(slug if known.has(slug) else slug.removeprefix(catalogue.OWNER))
    record = await catalogue.record_of(name, resources)
    return JSONResponse({**record, **_described(slug, name, request, resources)})
