"""Who is there: each worker says so every few seconds, and is forgotten when it stops. `calls.present` reads it."""

import json
from collections.abc import Mapping

import redis

from storage import keys

ANNOUNCE_EVERY_S = 1.0


def announce(connection: redis.Redis, name: str, facts: Mapping[str, object]) -> None:
    """Say that this process is there, and what it is. Raises `redis.RedisError`."""
    with connection.pipeline(transaction=False) as pipe:
        pipe.set(keys.ALIVE + name, json.dumps(dict(facts)), ex=keys.LIFETIMES_S["alive"])
        pipe.sadd(keys.FLEET, name)
        pipe.expire(keys.FLEET, keys.DAY_S)
        pipe.execute()


def leave(connection: redis.Redis, name: str) -> None:
    """Say goodbye. Raises `redis.RedisError`."""
    connection.delete(keys.ALIVE + name)
