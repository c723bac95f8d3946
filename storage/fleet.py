"""Who is there: each worker says so every few seconds, and is forgotten when it stops. `calls.present` reads it."""

import json
from collections.abc import Mapping
from typing import Any

import redis

from storage import keys

ANNOUNCE_EVERY_S = 1.0
DEFAULT_REGION = "local"
"""Of workers that name none."""


_ANNOUNCE = """#!lua flags=allow-oom
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
"""
"""In a full store, too, or the fleet would vanish from it and nothing could be finished."""


def announce(connection: redis.Redis, name: str, facts: Mapping[str, object]) -> None:
    """Say that this process is there, and what it is. Raises `redis.RedisError`."""
    life = keys.LIFETIMES_S["alive"]
    connection.eval(_ANNOUNCE, 2, keys.ALIVE + name, keys.FLEET, json.dumps(dict(facts)), life, name, keys.DAY_S)


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
