"""Messages between a worker and a decoding child: a JSON object and bytes, each with its length before it.

No pickle: what a child says is read as if a stranger had written it.
"""

import json
import os
import struct
from typing import Any

_LENGTHS = struct.Struct(">II")
"""Of the object and of the bytes."""

MAX_OBJECT = 16 * 1024


class ClosedError(Exception):
    """The other side is gone, or says what it should not."""


def send(descriptor: int, fields: dict[str, Any], body: bytes = b"") -> None:
    """Write a message. Raises `OSError` when nobody reads."""
    head = json.dumps(fields).encode()
    view = memoryview(_LENGTHS.pack(len(head), len(body)) + head + body)
    while view:
        view = view[os.write(descriptor, view) :]


def receive(descriptor: int, *, most: int) -> tuple[dict[str, Any], bytes]:
    """Read a message whose bytes are `most` at the most. Raises `ClosedError`."""
    head_length, body_length = _LENGTHS.unpack(_exactly(descriptor, _LENGTHS.size))
    if head_length > MAX_OBJECT or body_length > most:
        raise ClosedError("a message is too long")
    try:
        fields = json.loads(_exactly(descriptor, head_length))
    except ValueError as exc:
        raise ClosedError("a message is malformed") from exc
    if not isinstance(fields, dict):
        raise ClosedError("a message is malformed")
    return fields, _exactly(descriptor, body_length)


def _exactly(descriptor: int, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        piece = os.read(descriptor, min(length - len(received), 2**20))
        if not piece:
            raise ClosedError("the other side is gone")
        received += piece
    return bytes(received)
