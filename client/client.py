"""A client of the native API."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

RECONNECTS = 10
TERMINAL_EVENTS = frozenset({"media_generation_completed", "media_generation_cancelled"})


class ApiError(Exception):
    """The service refused; `code` is its stable error code, `status` the HTTP status."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({code}, HTTP {status})")
        self.status = status
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Ids of accepted generations, and the cursor from which their events can be read without missing one."""

    ids: tuple[str, ...]
    cursor: str


@dataclass(frozen=True, kw_only=True)
class Event:
    """A server-sent event."""

    id: str
    type: str
    data: Mapping[str, Any]


class Client:
    """One connection pool to one service."""

    def __init__(self, base_url: str, api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=httpx.Timeout(30, connect=5))
        self._downloads = httpx.Client(timeout=httpx.Timeout(60, connect=5))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close connections."""
        self._http.close()
        self._downloads.close()

    def enqueue(
        self, image: Path | str | None, prompt: str, *, model: str = "flux-kontext-dev", **parameters: object
    ) -> Accepted:
        """Enqueue an edit of a file or a URL; with `image` None a picture from text alone. Raises `ApiError`."""
        fields = {"model": model, "prompt": prompt, **{k: v for k, v in parameters.items() if v is not None}}
        if isinstance(image, Path):
            form = {
                name: json.dumps(value) if isinstance(value, bool) else str(value) for name, value in fields.items()
            }
            answer = self._http.post(
                "/api/ai/queue", data=form, files={"input_image": (image.name, image.read_bytes())}
            )
        else:
            pictures = {} if image is None else {"input_image": image}
            answer = self._http.post("/api/ai/queue", json={**fields, **pictures})
        body = _checked(answer)
        return Accepted(ids=tuple(one["generation_id"] for one in body["generations"]), cursor=body["cursor"])

    def events(
        self, *, since: str | None = None, generation_id: str | None = None, limit_s: float | None = None
    ) -> Iterator[Event]:
        """Events as they happen, resumed without a gap when the connection breaks.

        Ends never by itself. Raises `ApiError`, `TimeoutError` after `limit_s` seconds, and httpx's error when the service
        cannot be reached ten times in a row.
        """
        deadline = float("inf") if limit_s is None else time.monotonic() + limit_s
        cursor, failures = since, 0
        while True:
            query = {k: v for k, v in {"since": cursor, "generation_id": generation_id}.items() if v is not None}
            try:
                with self._http.stream(
                    "GET", "/api/events", params=query, timeout=httpx.Timeout(60, connect=5)
                ) as answer:
                    if answer.status_code != 200:
                        answer.read()
                        _checked(answer)
                    for event in _parsed(answer.iter_lines(), deadline):
                        cursor, failures = event.id, 0
                        yield event
            except (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ReadTimeout):
                failures += 1
                if failures == RECONNECTS:
                    raise
            time.sleep(min(0.1 * 2**failures, 5))

    def generation(self, id_: str, *, wait_s: float = 0) -> Mapping[str, Any]:
        """One generation; with `wait_s`, as soon as it is terminal or the seconds are over. Raises `ApiError`."""
        query = {"wait": wait_s} if wait_s else {}
        timeout = httpx.Timeout(wait_s + 30, connect=5)
        answer: Mapping[str, Any] = _checked(self._http.get(f"/api/ai/queue/{id_}", params=query, timeout=timeout))
        return answer

    def fleet(self) -> list[Mapping[str, Any]]:
        """The workers that are there. Raises `ApiError`."""
        return list(_checked(self._http.get("/api/ai/fleet"))["workers"])

    def estimates(self, model: str, **conditions: object) -> list[Mapping[str, Any]]:
        """What an edit is likely to take and cost, target by target. Raises `ApiError`."""
        query = {name: str(value) for name, value in conditions.items() if value is not None}
        answer = _checked(self._http.get(f"/api/ai/models/{quote(model, safe='')}/estimate", params=query))
        return list(answer["targets"])

    def model(self, name: str) -> Mapping[str, Any]:
        """A model and the schema of its requests. Raises `ApiError`."""
        answer: Mapping[str, Any] = _checked(self._http.get(f"/api/ai/models/{quote(name, safe='')}"))
        return answer

    def usage(self, month: str | None = None) -> Mapping[str, Any]:
        """What this key used in a month such as `2026-11`; by default in this one. Raises `ApiError`."""
        answer: Mapping[str, Any] = _checked(self._http.get("/api/ai/usage", params={"month": month} if month else {}))
        return answer

    def plan(self, model: str, *, gpu_type: str | None = None, profile: str | None = None) -> Mapping[str, Any]:
        """How a model runs on a GPU type, or on each: the answer's `placements`. Raises `ApiError`."""
        query = {name: value for name, value in (("gpu_type", gpu_type), ("profile", profile)) if value}
        answer: Mapping[str, Any] = _checked(
            self._http.get(f"/api/ai/models/{quote(model, safe='')}/placement", params=query)
        )
        return answer

    def cancel(self, id_: str) -> None:
        """Cancel a generation. Raises `ApiError`."""
        _checked(self._http.delete(f"/api/ai/queue/{id_}"))

    def download(self, url: str) -> bytes:
        """The bytes behind a result URL. Raises `ApiError`. The API key is not sent there."""
        answer = self._downloads.get(url)
        if answer.status_code != 200:
            raise ApiError(answer.status_code, "download_failed", "The result could not be downloaded")
        return answer.content


def _checked(answer: httpx.Response) -> Any:
    try:
        body = answer.json()
    except ValueError:
        raise ApiError(answer.status_code, "not_json", f"The service answered {answer.text[:200]!r}") from None
    if answer.is_success:
        return body
    error = body.get("error", {})
    raise ApiError(answer.status_code, error.get("code", "unknown"), error.get("message", "The service refused"))


def _parsed(lines: Iterator[str], deadline: float) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if time.monotonic() > deadline:
            raise TimeoutError("The generation did not end in time")
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield Event(id=fields.get("id", ""), type=fields.get("event", "message"), data=json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}
