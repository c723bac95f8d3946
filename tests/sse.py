"""A reader of event streams that runs beside a test."""

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.conftest import Tenant, eventually


@dataclass
class Reader:
    """What a stream has said so far."""

    events: list[dict[str, Any]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def names(self) -> list[str]:
        return [event["event"] for event in self.events]

    def of(self, id_: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["data"].get("generation_id") == id_]

    def wait_for(self, name: str, id_: str | None = None, *, within_s: float = 60) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            named = (event for event in list(self.events) if event["event"] == name)
            return next((event for event in named if id_ in (None, event["data"].get("generation_id"))), None)

        event: dict[str, Any] = eventually(found, within_s=within_s)
        return event


@contextlib.contextmanager
def reading(tenant: Tenant, query: str = "", headers: dict[str, str] | None = None) -> Iterator[Reader]:
    """Open `/api/events`; the block starts once the stream has said hello."""
    reader = Reader()
    headers = {**tenant.headers, **(headers or {})}
    response = requests.get(f"{tenant.url}/api/events{query}", headers=headers, stream=True, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"

    def run() -> None:
        fields: dict[str, str] = {}
        with contextlib.suppress(requests.RequestException, AttributeError, ValueError, OSError):
            for line in response.iter_lines(chunk_size=None, decode_unicode=True):
                if line.startswith(":"):
                    continue
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    reader.events.append({**fields, "data": json.loads(fields["data"])})
                    fields = {}
        reader.ended.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        reader.wait_for("hello")
        yield reader
    finally:
        # Closing a socket under a reading thread needs the connection's own shutdown to wake it.
        with contextlib.suppress(Exception):
            response.raw._connection.sock.shutdown(2)
        thread.join(5)
        response.close()
