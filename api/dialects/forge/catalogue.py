"""What is known of models and targets, in Forge's words; records have what OpenAI's clients read, too."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.dialects import base
from api.dialects.forge import asking
from api.resources import Resources
from api.service import forecast
from storage.contracts import catalog, errors, estimates
from storage.contracts.geometry import Canvas
from storage.contracts.samples import SUCCEEDED, Sample, Target


def state_of(workers: Sequence[Mapping[str, Any]]) -> str:
    """`warm`, `starting`, `failed` or `cold`: the best that any of these workers says."""
    states = [one["state"] for one in workers]
    return next((state for state in ("warm", "starting", "failed") if state in states), "cold")


def usual(model: catalog.Model, steps: int | None = None) -> estimates.Ask:
    """What the model is mostly asked for."""
    return forecast.ask_of(model, Canvas(), steps or model.usual_steps, model.min_references, upsampled=False)


def filters(version: str | None, gpu_type: str | None, region: str | None) -> dict[str, str]:
    """The filters that were given."""
    given = {"model_version": version, "gpu_type": gpu_type, "region": region}
    return {name: value for name, value in given.items() if value}


def is_wanted(gpu_type: str, region: str, wanted_type: str | None, wanted_region: str | None) -> bool:
    """Whether filters let a target through; GPU types in any case."""
    wanted = (wanted_type or gpu_type).lower()
    return asking.GPUS.get(wanted, wanted) == gpu_type and (wanted_region or region) == region


def filtered(
    rows: Sequence[Mapping[str, Any]], gpu_type: str | None, region: str | None
) -> tuple[list[Mapping[str, Any]], bool]:
    """The rows that were asked for, or all when none is; and which of both it is."""
    wanted = [row for row in rows if is_wanted(row["gpu_type"], row["region"], gpu_type, region)]
    return (wanted, True) if wanted else (list(rows), False)


async def rows_of(name: str, resources: Resources) -> list[dict[str, Any]]:
    """What is known of a model on each target."""
    ran = await resources.forecasts.samples(name)
    return [await _row(target, ran.get(target, ()), resources) for target in await resources.forecasts.targets(name)]


async def _row(target: Target, ran: Sequence[Sample], resources: Resources) -> dict[str, Any]:
    """What is known of a model on one GPU type in one region."""
    model, gpu = resources.catalog.models[target.model], resources.catalog.gpu_types[target.gpu_type]
    statistics = await resources.forecasts.statistics(target)
    expected = await resources.forecasts.expected(target, usual(model))
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
        "request_ms_p50": round(statistics.execute.p50) if statistics.execute else None,
        "request_ms_p95": round(statistics.execute.p95) if statistics.execute else None,
        "request_ms_p99": round(statistics.execute.p99) if statistics.execute else None,
        "request_ms_samples": statistics.execute.count if statistics.execute else 0,
        "startup_ms_probe": round(statistics.cold_start.p50) if statistics.cold_start else None,
        "cost_per_gpu_hour_usd": gpu.price_per_hour,
        "estimated_warm_request_cost_usd": expected.cost_usd["p50"] if expected.cost_usd else None,
        "basis": expected.basis,
        "placements": statistics.placements,
        "observed_success_rate": statistics.success_rate,
        "total_starts": statistics.cold_start.count if statistics.cold_start else 0,
        "total_warm_starts": sum(one.outcome == SUCCEEDED and not one.load_ms for one in ran),
        "total_failures": sum(statistics.failures.values()),
        "failure_reasons": dict(statistics.failures),
        "last_error": last.outcome if last else None,
        "last_failed_at": _iso(last.at_ms if last else None),
        "probed_at": _iso(statistics.latest_ms),
        "vram_measured_gb": statistics.peak_gb,
    }


def _iso(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


OWNER = "darkroom/"
"""Of models without one, for clients whose models have owners."""


def owned(name: str, resources: Resources) -> str:
    """A model's name as `owner/name`: an alias of that form, or one that is taken for it."""
    return next((one for one in resources.catalog.models[name].aliases if one.count("/") == 1), f"{OWNER}{name}")


async def record_of(name: str, resources: Resources) -> dict[str, Any]:
    """A model with the fields of Forge's catalogue, and OpenAI's `object`, `created` and `owned_by`."""
    model = resources.catalog.models[name]
    workers = [one for one in (await resources.forecasts.fleet()).values() if name in one["models"]]
    rows = await rows_of(name, resources)
    created = int(datetime.fromisoformat(model.released_at).timestamp())
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
        "configured_regions": list(resources.catalog.regions),
        "supported_regions": sorted({row["region"] for row in rows if row["status"] == "supported"}),
        "gpu_support": rows,
        "weights": {"name": model.weights.name, "note": model.weights.note},
        "created_at": model.released_at,
        "playground_config": {
            "api_mapping": {"endpoint": f"/v1/inference/{name}", "method": "POST"},
            "input_fields": base.of_family(asking.FAMILIES, model).properties(),
            "output_display": {"type": "image", "format_hint": "png"},
        },
    }
