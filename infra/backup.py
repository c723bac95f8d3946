"""A copy of the whole ledger as it was at one moment, and back into an empty Redis.

`DUMP` and `RESTORE` of every key, while Redis holds up all writes for the seconds that this takes: a stall, which API and workers
wait out. Works with any server, a managed one as well. The file holds prompts and digests of keys: it is its owner's alone.
"""

import base64
import gzip
import json
import os
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
    """Write the ledger to a file; how many keys that were. Raises `BackupError` and `OSError`."""
    draft = file.with_name(file.name + ".part")
    began = time.monotonic()
    connection.client_pause(LONGEST_S * 1000, all=False)
    try:
        opened = os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        with opened as raw, gzip.open(raw, "wt") as lines:
            count = 0
            _write(lines, {"format": FORMAT, "at_ms": round(time.time() * 1000)})
            for entry in _entries(connection):
                _write(lines, entry)
                count += 1
            # Whoever reads it knows by this that it is whole.
            _write(lines, {"keys": count})
        _check_writes_waited(began)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        connection.client_unpause()
    draft.replace(file)
    return count


def restore(connection: redis.Redis, file: Path) -> int:
    """Fill an empty Redis from a file; how many keys that were. Raises `BackupError` and `OSError`."""
    if connection.dbsize():
        raise BackupError("Redis is not empty: stop all processes of the service and empty it first (FLUSHDB)")
    # Read to its end first: half a ledger would be worse than none.
    count = sum(1 for _ in _read(file))
    pipeline: Any = connection.pipeline(transaction=False)
    now_ms = time.time() * 1000
    for number, entry in enumerate(_read(file), 1):
        if entry["until_ms"] < 0 or entry["until_ms"] > now_ms:
            key, dumped = base64.b64decode(entry["key"]), base64.b64decode(entry["dump"])
            pipeline.restore(key, max(entry["until_ms"], 0), dumped, absttl=entry["until_ms"] > 0)
        if number % AT_ONCE == 0:
            pipeline.execute()
    pipeline.execute()
    return count


def _check_writes_waited(began: float) -> None:
    if time.monotonic() - began > LONGEST_S - 1:
        raise BackupError(f"it took longer than {LONGEST_S} s, for which writes can be held up")


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
