"""A copy of the whole ledger as it was at one moment, and back into an empty Redis.

`DUMP` and `RESTORE` of every key, while Redis holds up all writes and scripts for the seconds that this takes: running edits go
on, and what waits longer than `DARKROOM_REDIS_TIMEOUT_S` is answered with 503. Works with any server, a managed one as well. The
file holds prompts and digests of keys: it is its owner's alone.
"""

import base64
import gzip
import json
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

LONGEST_S = 60
"""Seconds for which writes are held up at most."""

AT_ONCE = 500
FORMAT = 1


class BackupError(Exception):
    """It cannot be done; says why."""


def save(connection: redis.Redis, file: Path) -> int:
    """Write the ledger to a file; how many keys that were. Raises `BackupError`, `redis.RedisError` and `OSError`."""
    began, server = time.monotonic(), _server(connection)
    connection.client_pause(LONGEST_S * 1000, all=False)
    try:
        # A name of its own, and nobody else's to read.
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f"{file.name}.", delete=False) as raw:
            draft = Path(raw.name)
            try:
                with gzip.open(raw, "wt", compresslevel=1) as lines:
                    count = _written(connection, lines)
                if time.monotonic() - began > LONGEST_S - 1 or _server(connection) != server:
                    raise BackupError(  # noqa: TRY301
                        f"writes were not held up all the time: it took longer than {LONGEST_S} s, or another server took over"
                    )
            except BaseException:
                draft.unlink()
                raise
    finally:
        connection.client_unpause()
    draft.replace(file)
    return count


def _server(connection: redis.Redis) -> str:
    """Which server answers; another one holds up nothing."""
    return str(connection.info("server")["run_id"])


def _written(connection: redis.Redis, lines: Any) -> int:
    count = 0
    _write(lines, {"format": FORMAT, "at_ms": round(time.time() * 1000)})
    for entry in _entries(connection):
        _write(lines, entry)
        count += 1
    # By this a reader knows that it is whole.
    _write(lines, {"keys": count})
    return count


def restore(connection: redis.Redis, file: Path) -> int:
    """Fill an empty Redis from a file; how many keys that were. Raises `BackupError`, `redis.RedisError` and `OSError`."""
    if connection.dbsize():
        raise BackupError("Redis is not empty: stop all processes of the service and empty it first (FLUSHDB)")
    # Read to its end first: half a ledger would be worse than none.
    count = sum(1 for _ in _read(file))
    try:
        _fill(connection, file)
    except redis.RedisError as exc:
        connection.flushdb()
        raise BackupError(f"Redis did not take it, and was emptied again: {exc}") from exc
    return count


def _fill(connection: redis.Redis, file: Path) -> None:
    pipeline: Any = connection.pipeline(transaction=False)
    seconds, _ = connection.time()
    for number, entry in enumerate(_read(file), 1):
        # -1: it has no lifetime.
        if entry["until_ms"] == -1 or entry["until_ms"] > seconds * 1000:
            key, dumped = base64.b64decode(entry["key"]), base64.b64decode(entry["dump"])
            pipeline.restore(key, max(entry["until_ms"], 0), dumped, absttl=entry["until_ms"] > 0)
        if number % AT_ONCE == 0:
            pipeline.execute()
    pipeline.execute()


def _entries(connection: redis.Redis) -> Iterator[dict[str, Any]]:
    # A scan may tell a key twice.
    keys = sorted(set(connection.scan_iter(count=AT_ONCE)))
    for start in range(0, len(keys), AT_ONCE):
        yield from _dumped(connection, keys[start : start + AT_ONCE])


def _dumped(connection: redis.Redis, keys: list[str]) -> Iterator[dict[str, Any]]:
    pipeline = connection.pipeline(transaction=False)
    for key in keys:
        pipeline.dump(key)
        pipeline.pexpiretime(key)
    told = iter(pipeline.execute())
    for key, dumped, until_ms in zip(keys, told, told, strict=False):
        if dumped is not None:
            yield {
                "key": base64.b64encode(key.encode()).decode(),
                "until_ms": until_ms,
                "dump": base64.b64encode(dumped).decode(),
            }


def _write(lines: Any, entry: dict[str, Any]) -> None:
    lines.write(json.dumps(entry) + "\n")


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """The entries. Raises `BackupError` for a file that is not whole, when its end is reached."""
    count = 0
    try:
        with gzip.open(file, "rt") as lines:
            head = json.loads(next(lines))
            if head.get("format") != FORMAT:
                raise BackupError(f"{file} is of another format than {FORMAT}")
            for line in lines:
                entry = json.loads(line)
                if "keys" in entry:
                    if entry["keys"] != count:
                        break
                    return
                yield entry
                count += 1
    except (EOFError, StopIteration, ValueError, gzip.BadGzipFile, zlib.error) as exc:
        raise BackupError(f"{file} is not a whole backup: {exc}") from exc
    raise BackupError(f"{file} is not a whole backup")
