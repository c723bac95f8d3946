"""Generations, events and errors in the native API's words."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from api.service.accepted import Accepted
from api.service.erasure import Erased
from api.service.read import ResultView
from storage.contracts import batches, catalog, errors, events, generations, queue_names, results

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


def accepted(request: Accepted) -> dict[str, Any]:
    """What enqueuing answers."""
    queued = [{"generation_id": id_, "status": "queued"} for id_ in request.ids]
    return {"generations": queued, "cursor": request.cursor}


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000


def generation(view: ResultView, base_url: str) -> dict[str, Any]:
    """One generation: Oxen's fields, what was submitted, and what Darkroom adds; `base_url` is for links of our own."""
    one, edit, times, result = view.generation, view.generation.edit, view.generation.times, view.result
    answer: dict[str, Any] = {
        **one.submission.echo,
        "generation_id": one.id,
        "model_name": edit.model,
        "prompt": edit.prompt,
        "media_type": "image",
        "status": one.status.value,
        "result_url": view.url,
        "download_url": view.own_url(base_url),
        "thumbnail_url": view.thumbnail_url(base_url),
        "group": one.group,
        "ignored": list(one.ignored),
        "error_message": one.error_message,
        "error_code": one.error_code,
        "error_details": one.error_details,
        "enqueued_at": _seconds(times.created_ms),
        "started_at": _seconds(times.started_ms),
        "completed_at": _seconds(times.completed_ms),
        "expires_at": int(view.expires_at.timestamp()) if view.expires_at else None,
        "seed": edit.seed,
        "width": result.width if result else None,
        "height": result.height if result else None,
        "fit": result.fit if result else None,
        "upsampled_prompt": result.upsampled_prompt if result else None,
        "attempts": one.attempts,
        "delay_ms": times.delay_ms,
        "execution_ms": one.execution_ms,
        "queue_position": one.position,
        "phase": one.phase.value if one.phase else None,
        "progress": {"step": one.step, "steps": edit.steps, "model_loaded_percent": _loaded(one)},
        "weights": _weights(one, view.model),
        "parent_generation_id": edit.parent,
        "receipt": result.receipt.model_dump() if result and result.receipt else None,
        "ran_on": _ran_on(one),
        "timings": result.timings.model_dump() if result and result.timings else None,
        "cost_usd": result.cost_usd if result else None,
    }
    references, mask = view.input_urls()
    if references and "input_image" not in answer:
        answer["input_image"] = references[0] if len(references) == 1 else references
    if mask is not None:
        answer["mask_image"] = mask
    return answer


def _ran_on(one: generations.Generation) -> dict[str, Any] | None:
    """Which worker, where, and why that one."""
    if one.worker is None or one.gpu_type is None:
        return None
    place = queue_names.place_of(one.queue, one.edit.model)
    timings = one.result.timings if one.result else None
    why = "the first that was free" if place == queue_names.ANY_GPU else f"pinned to {place}"
    if timings is not None:
        why += "; the model was loaded for it" if timings.load_ms else "; it had the model loaded"
    return {"worker": one.worker, "gpu_type": one.gpu_type, "region": one.region, "why": why}


def _loaded(one: generations.Generation) -> int | None:
    if one.phase in (None, generations.Phase.PREPARING):
        return None
    return one.loaded_percent if one.phase is generations.Phase.LOADING else 100


def _weights(one: generations.Generation, model: catalog.Model | None) -> dict[str, Any] | None:
    if one.result is None and model is None:
        return None
    receipt = one.result.receipt if one.result else None
    name = receipt.weights if receipt else model.weights.name if model else None
    note = model.weights.note if model and model.weights.name == name else None
    return {"name": name, "note": note}


def erased(what: Erased) -> dict[str, Any]:
    """What was deleted, for a caller who must prove it."""
    told = {"generations": what.generations, "events": what.events, "objects": what.objects}
    return {"status": "success", "effect": "erased", "erased": told}


def batch(one: batches.Batch, sign: Sign) -> dict[str, Any]:
    """A batch: counts of its lines by what became of them, and its manifest once it is over."""
    status = "cancelling" if one.phase is batches.Phase.CANCELLING else "running"
    manifest = None
    if one.phase is batches.Phase.OVER and one.completed_ms is not None:
        status = "cancelled" if one.is_cancelled else "completed"
        expires_at = datetime.fromtimestamp(one.completed_ms // 1000, UTC) + results.RESULT_LIFETIME
        urls = {f"{extension}_url": sign(one.results_key(extension), expires_at) for extension in ("jsonl", "csv")}
        manifest = {**urls, "expires_at": int(expires_at.timestamp())}
    return {
        "batch_id": one.id,
        "name": one.name,
        "status": status,
        "counts": {
            "total": one.total,
            "refused": one.refused,
            "waiting": one.accepted - one.submitted - one.skipped,
            "unfinished": one.unfinished,
            "succeeded": one.succeeded,
            "failed": one.failed,
            "cancelled": one.cancelled,
        },
        "created_at": _seconds(one.created_ms),
        "completed_at": _seconds(one.completed_ms),
        "results": manifest,
    }


def event(event_: events.Event, sign: Sign) -> dict[str, Any]:
    """An event's data. Names differ from a poll's (`model`, `url`, `error`), as they do at Oxen."""
    if event_.type is events.EventType.BATCH_COMPLETED:
        status = "cancelled" if event_.status is generations.Status.CANCELLED else "completed"
        counts = {name: int(value) for name, value in event_.fields.items()}
        return {"batch_id": event_.generation_id, "status": status, "counts": counts}
    data: dict[str, Any] = {
        "generation_id": event_.generation_id,
        "status": event_.status.value,
        "media_type": "image",
        "model": event_.model,
    }
    fields = event_.fields
    if "result" in fields:
        result = results.Result.model_validate_json(fields["result"])
        kept_s = int(fields["keep_ms"]) / 1000 if "keep_ms" in fields else None
        times = generations.Timeline(created_ms=0, completed_ms=int(fields["completed_ms"]), kept_s=kept_s)
        expires_at = times.expires_at or datetime.now(UTC)
        data["url"] = sign(result.key, expires_at)
        data["expires_at"] = int(expires_at.timestamp())
    if "error_message" in fields:
        data |= {"error": fields["error_message"], "error_code": fields["error_code"]}
    if "preview" in fields:
        data["preview"] = fields["preview"]
    if fields.get("phase") == generations.Phase.LOADING:
        data |= {"phase": fields["phase"], "model_loaded_percent": int(fields["loaded_percent"])}
    return data | {name: int(fields[name]) for name in ("step", "steps", "attempts") if name in fields}


def blocking(views: Sequence[ResultView], images: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A blocking call's answer; `image_url` is what an older Oxen example reads."""
    first = views[0].generation
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
