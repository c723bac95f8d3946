"""Models and their execution plans in the native API's words."""

import dataclasses
from datetime import datetime
from typing import Any

from storage.contracts import catalog, planning, plans


def model_answer(name: str, model: catalog.Model) -> dict[str, Any]:
    """One model, with its schema under both names Oxen uses for it."""
    schema = model.request_schema()
    if model.min_references:
        schema["required"] = ["input_image", *schema["required"]]
    schema["properties"] = {**_pictures(model), **schema["properties"]}
    return {
        "id": name,
        "object": "model",
        "created": int(datetime.fromisoformat(model.released_at).timestamp()),
        "owned_by": "darkroom",
        "display_name": model.display_name,
        "summary": model.summary,
        "description": model.summary,
        "model_type": "base",
        "endpoint": "/images/edit" if model.min_references else "/images/generate",
        "capabilities": {
            "input": ["image", "text"],
            "output": ["image"],
            "text_to_image": model.min_references == 0,
            "most_inputs": model.max_references,
            "mask": model.takes_mask,
        },
        "pricing": {"method": "per_image", "cost_per_image": model.price_per_image},
        "developer": {"name": model.developer, "logo": None},
        "fine_tuning": None,
        "deployments": [],
        "source_model": None,
        "image_url": None,
        "released_at": model.released_at,
        "profile": model.profile,
        "aliases": list(model.aliases),
        "version": model.version,
        "version_of": model.version_of,
        "licence": model.weights.licence,
        "licence_url": model.weights.licence_url,
        "non_commercial": model.weights.non_commercial,
        "weights": {"name": model.weights.name, "note": model.weights.note},
        "request_schema": schema,
        "json_request_schema": schema,
    }


def placement(known: catalog.Catalog, name: str, gpu_type: str) -> dict[str, Any]:
    """A model's execution plan on a GPU type, with its sums in GB; or why there is none."""
    model, gpu = known.models[name].published, known.gpu_types[gpu_type]
    plan = planning.planned(model, gpu)
    answer: dict[str, Any] = {"gpu_type": gpu_type, "memory_gb": gpu.memory_gb, "profile": model.profile}
    if plan is None:
        return answer | {"placement": None, "reason": planning.refusal(known, name, gpu_type, model=model).message}
    phases = {
        phase: round(gb + plans.CONTEXT_GB, 2)
        for phase, gb in dataclasses.asdict(plan.phases).items()
        if phase not in ("host", "resting")
    }
    return answer | {
        "placement": plan.name,
        "compiled": plan.compiled,
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
        properties: dict[str, Any] = {"input_image": {**one, "description": f"The picture to edit: {kinds}"}}
    else:
        several = {"type": "array", "items": {"type": "string", "format": "uri"}, "maxItems": model.max_references}
        description = f"Reference pictures, none or up to {model.max_references}, each {kinds}"
        properties = {"input_image": {**one, **several, "description": description}}
        del properties["input_image"]["format"]
    if model.takes_mask:
        properties["mask_image"] = {**one, "title": "mask_image", "description": f"White where to paint anew: {kinds}"}
    return properties
