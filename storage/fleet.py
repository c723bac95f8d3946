"""Who is there: each worker says so every few seconds, and is forgotten when it stops. `calls.present` reads it."""

import json
from collections.abc import Mapping
from typing import Any

import redis

from storage import keys

ANNOUNCE_EVERY_S = 1.0
DEFAULT_REGION = "local"
"""Of workers that name none."""


def announce(connection: redis.Redis, name: str, facts: Mapping[str, object]) -> None:
    """Say that this process is there, and what it is. Raises `redis.RedisError`."""
    with connection.pipeline(transaction=False) as pipe:
        pipe.set(keys.ALIVE + name, json.dumps(dict(facts)), ex=keys.LIFETIMES_S["alive"])
        pipe.sadd(keys.FLEET, name)
        pipe.expire(keys.FLEET, keys.DAY_S)
        pipe.execute()


def gpu_workers(present: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The GPU workers among those who are there, whichever version announces itself."""
    return {
        name: {"region": DEFAULT_REGION, **facts}
        for name, facts in present.items()
        if facts.get("role") == "gpu" and isinstance(facts.get("models"), dict) and "gpu_type" in facts
    }


def text_encoders(present: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The workers of text encoders among them."""
    return {
        name: {"region": DEFAULT_REGION, **facts}
        for name, facts in present.items()
        if facts.get("role") == "text_encoder" and isinstance(facts.get("models"), dict) and "gpu_type" in facts
    }


def leave(connection: redis.Redis, name: str) -> None:
    """Say goodbye. Raises `redis.RedisError`."""
    connection.delete(keys.ALIVE + name)
