"""What is known of models and targets, in Forge's words; records have what OpenAI's clients read, too."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api import drafts, forecasts
from api.resources import Resources
from storage.contracts import catalog, edits, errors, estimates
from storage.contracts.geometry import Canvas
from storage.contracts.parameters import Declaration, Parameter
from storage.contracts.samples import SUCCEEDED, Sample, Target

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
        catalog.UPSAMPLING: Parameter(
            type="number", minimum=0, maximum=2, description="Above 0 the prompt is written anew, where the model can"
        ),
    },
    also=PINS,
)


def state_of(workers: Sequence[Mapping[str, Any]]) -> str:
    """`warm`, `starting`, `failed` or `cold`: the best that any of these workers says."""
    states = [one["state"] for one in workers]
    return next((state for state in ("warm", "starting", "failed") if state in states), "cold")


def usual(model: catalog.Model, steps: int | None = None) -> estimates.Ask:
    """What the model is mostly asked for."""
    usual = steps or drafts.default(model, "num_inference_steps")
    return forecasts.asked(model, Canvas(), usual, model.min_references, upsampled=False)


def filters(version: str | None, gpu_type: str | None, region: str | None) -> dict[str, str]:
    """The filters that were given."""
    asked = {"model_version": version, "gpu_type": gpu_type, "region": region}
    return {name: value for name, value in asked.items() if value}


def is_wanted(gpu_type: str, region: str, wanted_type: str | None, wanted_region: str | None) -> bool:
    """Whether filters let a target through; GPU types in any case."""
    return (wanted_type or gpu_type).lower() == gpu_type and (wanted_region or region) == region


def filtered(
    rows: Sequence[Mapping[str, Any]], gpu_type: str | None, region: str | None
) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows that were asked for, or all when none is; and which of both it is."""
    wanted = [row for row in rows if is_wanted(row["gpu_type"], row["region"], gpu_type, region)]
    return (wanted, True) if wanted else (list(rows), False)


async def rows_of(name: str, held: Resources) -> list[dict[str, Any]]:
    """What is known of a model on each target."""
    ran = await held.forecasts.samples(name)
    return [await _row(target, ran.get(target, ()), held) for target in await held.forecasts.targets(name)]


async def _row(target: Target, ran: Sequence[Sample], held: Resources) -> dict[str, Any]:
    """What is known of a model on one GPU type in one region."""
    model, gpu = held.catalog.models[target.model], held.catalog.gpu_types[target.gpu_type]
    found = await held.forecasts.statistics(target)
    expected = await held.forecasts.expected(target, usual(model))
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


async def record_of(name: str, held: Resources) -> dict[str, Any]:
    """A model with the fields of Forge's catalogue, and OpenAI's `object`, `created` and `owned_by`."""
    model = held.catalog.models[name]
    workers = [one for one in (await held.forecasts.fleet()).values() if name in one["models"]]
    rows = await rows_of(name, held)
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
        "status": state_of([one["models"][name] for one in workers]),
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
