"""Who is there: each worker says so every few seconds, and is forgotten when it stops."""

import json
from collections.abc import Mapping

import redis

from storage import keys

ANNOUNCE_EVERY_S = 3.0


def announce(connection: redis.Redis, name: str, facts: Mapping[str, object]) -> None:
    """Say that this process is there, and what it is. Raises `redis.RedisError`."""
    connection.set(keys.ALIVE + name, json.dumps(dict(facts)), ex=keys.LIFETIMES_S["alive"])


def leave(connection: redis.Redis, name: str) -> None:
    """Say goodbye. Raises `redis.RedisError`."""
    connection.delete(keys.ALIVE + name)


def present(connection: redis.Redis) -> dict[str, dict[str, object]]:
    """Everyone who announced themselves lately, by name. Raises `redis.RedisError`."""
    found: dict[str, dict[str, object]] = {}
    for key in connection.scan_iter(match=keys.ALIVE + "*", count=1000):
        facts = connection.get(key)
        if facts is not None:
            found[str(key).removeprefix(keys.ALIVE)] = json.loads(str(facts))
    return found
