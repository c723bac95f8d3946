"""Workers, a month's use and content credentials in the native API's words."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from api.service.budgets import MICRO
from storage import provenance
from storage.contracts import queue_names
from storage.ledger import recovery


def fleet(workers: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """GPU workers, or workers of text encoders, by name."""
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


def queued(backlog: Iterable[recovery.Backlog], models: Iterable[str]) -> dict[str, int]:
    """How many generations wait, by model, of all tenants together."""
    waiting = {name: sum(row.pending for row in backlog if queue_names.is_of_model(row.queue, name)) for name in models}
    return {name: count for name, count in waiting.items() if count}


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


def credentials(read: provenance.Credentials | None) -> dict[str, Any]:
    """What a picture's content credentials say."""
    if read is None:
        return {"signed": False, "valid": False, "ours": False}
    return {"signed": True, **dataclasses.asdict(read)}
