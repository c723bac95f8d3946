"""Generations, models, events and errors in the native API's words."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.budgets import MICRO
from storage import provenance
from storage.contracts import catalog, edits, errors, events, generations, plans
from storage.ledger import records

Sign = Callable[[str, datetime], str]
"""Object key and expiry to URL."""


def problem(error: errors.DarkroomError) -> dict[str, Any]:
    """An error body that satisfies both shapes Oxen's clients know (`error.title`, `error.message`)."""
    detail: dict[str, Any] = {
        "type": _TYPES.get(error.code, error.code),
        "title": error.title,
        "detail": error.message,
        "message": error.message,
        "code": error.code,
    }
    if error.field is not None:
        detail["field"] = error.field
    return {"error": detail, "status": "error", "status_message": detail["type"]}


_TYPES = {"invalid_input": "invalid_params"}


def accepted(receipt: records.Receipt) -> dict[str, Any]:
    """What enqueuing answers."""
    queued = [{"generation_id": id_, "status": "queued"} for id_ in receipt.ids]
    return {"generations": queued, "cursor": receipt.cursor}


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000


def generation(found: generations.Generation, known: catalog.Catalog, sign: Sign) -> dict[str, Any]:
    """One generation: Oxen's fields, what was submitted, and what Darkroom adds."""
    edit, times, result = found.edit, found.times, found.result
    expires_at = times.expires_at
    answer: dict[str, Any] = {
        **found.submitted,
        "generation_id": found.id,
        "model_name": edit.model,
        "prompt": edit.prompt,
        "media_type": "image",
        "status": found.status.value,
        "result_url": sign(result.key, expires_at)
        if result and expires_at and expires_at > datetime.now(UTC)
        else None,
        "error_message": found.error_message,
        "error_code": found.error_code,
        "error_details": found.error_details,
        "enqueued_at": _seconds(times.created_ms),
        "started_at": _seconds(times.started_ms),
        "completed_at": _seconds(times.completed_ms),
        "expires_at": int(expires_at.timestamp()) if result and expires_at else None,
        "seed": edit.seed,
        "width": result.width if result else None,
        "height": result.height if result else None,
        "fit": result.fit if result else None,
        "upsampled_prompt": result.upsampled_prompt if result else None,
        "attempts": found.attempts,
        "delay_ms": times.delay_ms,
        "execution_ms": found.execution_ms,
        "queue_position": found.position,
        "phase": found.phase.value if found.phase else None,
        "progress": {"step": found.step, "steps": edit.steps, "model_loaded_percent": _loaded(found)},
        "weights": _weights(found, known),
        "parent_generation_id": edit.parent,
        "receipt": result.receipt.model_dump() if result and result.receipt else None,
        "ran_on": _ran_on(found),
        "timings": result.timings.model_dump() if result and result.timings else None,
        "cost_usd": result.cost_usd if result else None,
    }
    until = datetime.fromtimestamp(times.created_ms / 1000, UTC) + generations.RESULT_LIFETIME
    stored = [sign(reference.key, until) for reference in edit.references if isinstance(reference, edits.StoredInput)]
    if stored and "input_image" not in answer:
        answer["input_image"] = stored[0] if len(stored) == 1 else stored
    if isinstance(edit.mask, edits.StoredInput):
        answer["mask_image"] = sign(edit.mask.key, until)
    return answer


def _ran_on(found: generations.Generation) -> dict[str, Any] | None:
    """Which worker, where, and why that one."""
    if found.worker is None or found.gpu_type is None:
        return None
    *_, place = found.queue.partition(f"edits.{found.edit.model}.")
    timings = found.result.timings if found.result else None
    why = "the first that was free" if place == "any" else f"pinned to {place}"
    if timings is not None:
        why += "; the model was loaded for it" if timings.load_ms else "; it had the model loaded"
    return {"worker": found.worker, "gpu_type": found.gpu_type, "region": found.region, "why": why}


def _loaded(found: generations.Generation) -> int | None:
    if found.phase in (None, generations.Phase.PREPARING):
        return None
    return found.loaded_percent if found.phase is generations.Phase.LOADING else 100


def _weights(found: generations.Generation, known: catalog.Catalog) -> dict[str, Any] | None:
    model = known.models.get(found.edit.model)
    if found.result is None and model is None:
        return None
    receipt = found.result.receipt if found.result else None
    name = receipt.weights if receipt else model.weights.name if model else None
    note = model.weights.note if model and model.weights.name == name else None
    return {"name": name, "note": note}


def event(happened: events.Event, sign: Sign) -> dict[str, Any]:
    """An event's data. Names differ from a poll's (`model`, `url`, `error`), as they do at Oxen."""
    data: dict[str, Any] = {
        "generation_id": happened.generation_id,
        "status": happened.status.value,
        "media_type": "image",
        "model": happened.model,
    }
    fields = happened.fields
    if "result" in fields:
        result = generations.Result.model_validate_json(fields["result"])
        times = generations.Timeline(created_ms=0, completed_ms=int(fields["completed_ms"]))
        expires_at = times.expires_at or datetime.now(UTC)
        data["url"] = sign(result.key, expires_at)
        data["expires_at"] = int(expires_at.timestamp())
    if "error_message" in fields:
        data |= {"error": fields["error_message"], "error_code": fields["error_code"]}
    if "preview" in fields:
        data["preview"] = fields["preview"]
    return data | {name: int(fields[name]) for name in ("step", "steps", "attempts") if name in fields}


def model(name: str, found: catalog.Model) -> dict[str, Any]:
    """One model, with its schema under both names Oxen uses for it."""
    schema = found.request_schema()
    if found.min_references:
        schema["required"] = ["input_image", *schema["required"]]
    schema["properties"] = {**_pictures(found), **schema["properties"]}
    return {
        "id": name,
        "object": "model",
        "created": int(datetime.fromisoformat(found.released_at).timestamp()),
        "owned_by": "darkroom",
        "display_name": found.display_name,
        "summary": found.summary,
        "description": found.summary,
        "model_type": "base",
        "endpoint": "/images/edit",
        "capabilities": {
            "input": ["image", "text"],
            "output": ["image"],
            "text_to_image": found.min_references == 0,
            "most_inputs": found.max_references,
            "mask": found.takes_mask,
        },
        "pricing": {"method": "per_image", "cost_per_image": found.price_per_image},
        "developer": {"name": found.developer, "logo": None},
        "fine_tuning": None,
        "deployments": [],
        "source_model": None,
        "image_url": None,
        "released_at": found.released_at,
        "profile": found.profile,
        "aliases": list(found.aliases),
        "version": found.version,
        "version_of": found.version_of,
        "licence": found.weights.licence,
        "licence_url": found.weights.licence_url,
        "non_commercial": found.weights.non_commercial,
        "weights": {"name": found.weights.name, "note": found.weights.note},
        "request_schema": schema,
        "json_request_schema": schema,
    }


def fleet(workers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """GPU workers by name."""
    return [
        {
            "name": name,
            "gpu_type": facts["gpu_type"],
            "region": facts["region"],
            "memory_gb": facts.get("memory_gb"),
            "busy": facts.get("busy", False),
            "left_to_others": facts.get("left_to_others", []),
            "models": facts["models"],
        }
        for name, facts in sorted(workers.items())
    ]


def usage(month: str, used: Mapping[str, int], budget: int | None) -> dict[str, Any]:
    """A month's use by model, in USD."""
    models: dict[str, dict[str, Any]] = {}
    for name, value in used.items():
        model, _, what = name.rpartition(":")
        if model:
            models.setdefault(model, {})[what] = value
    listed = [
        {
            "model": model,
            "generations": counts.get("count", 0),
            "megapixels": round(counts.get("pixels", 0) / 2**20, 3),
            "gpu_seconds": counts.get("gpu_ms", 0) / 1000,
            "cost_usd": counts.get("cost", 0) / MICRO,
        }
        for model, counts in sorted(models.items())
    ]
    return {
        "month": month,
        "spent_usd": used.get("spent", 0) / MICRO,
        "reserved_usd": used.get("reserved", 0) / MICRO,
        "budget_usd": None if budget is None else budget / MICRO,
        "models": listed,
    }


def credentials(found: provenance.Credentials | None) -> dict[str, Any]:
    """What a picture's content credentials say."""
    if found is None:
        return {"signed": False, "valid": False, "ours": False}
    return {"signed": True, **dataclasses.asdict(found)}


def placement(known: catalog.Catalog, name: str, gpu_type: str) -> dict[str, Any]:
    """A model's execution plan on a GPU type, with its sums in GB; or why there is none."""
    model, gpu = known.models[name].published, known.gpu_types[gpu_type]
    plan = plans.planned(model, gpu)
    answer: dict[str, Any] = {"gpu_type": gpu_type, "memory_gb": gpu.memory_gb, "profile": model.profile}
    if plan is None:
        return answer | {"placement": None, "reason": plans.refusal(known, name, gpu_type, model=model).message}
    phases = {
        phase: round(gb + plans.CONTEXT_GB, 2)
        for phase, gb in dataclasses.asdict(plan.phases).items()
        if phase not in ("host", "resting")
    }
    return answer | {
        "placement": plan.name,
        "compiled": plan.compiled,
        "attention": plan.attention,
        "phases_gb": phases,
        "resting_gb": round(plan.phases.resting, 2),
        "host_gb": round(plan.phases.host, 2),
        "total_gb": plan.peak_gb,
    }


def _pictures(model: catalog.Model) -> dict[str, Any]:
    """The picture fields of a model, as JSON schema."""
    one = {"type": "string", "format": "uri", "title": "input_image", "x-media-references": True}
    kinds = "an http(s) URL or a data URI of a PNG, JPEG, WebP or GIF"
    if model.max_references == 1 or model.min_references == 1:
        found: dict[str, Any] = {"input_image": {**one, "description": f"The picture to edit: {kinds}"}}
    else:
        several = {"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": model.max_references}
        description = f"Reference pictures, none or up to {model.max_references}, each {kinds}"
        found = {"input_image": {**one, **several, "description": description}}
        del found["input_image"]["format"]
    if model.takes_mask:
        found["mask_image"] = {**one, "title": "mask_image", "description": f"White where to paint anew: {kinds}"}
    return found


def blocking(found: Sequence[generations.Generation], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A blocking call's answer; `image_url` is what an older Oxen example reads."""
    first = found[0]
    answer: dict[str, Any] = {
        "model": first.edit.model,
        "created": _seconds(first.times.created_ms),
        "images": list(images),
        "generation_id": first.id,
        "seed": first.edit.seed,
    }
    if "url" in images[0]:
        answer["image_url"] = images[0]["url"]
    return answer
