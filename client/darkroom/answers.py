"""What the service's answers mean to the client, whichever way they are waited for."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import httpx_sse

from darkroom.faults import ApiError, RefusedError

BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.TimeoutException, httpx_sse.SSEError)
"""Connections that break, or never come about."""

BUSY = frozenset({429, 502, 503, 504})
"""Statuses of a service, or of a proxy before it, that may do it a moment later."""


def checked_key(api_key: str) -> str:
    """The key. Raises `ValueError` for what no key has."""
    key = api_key.strip()
    if not key:
        raise ValueError("the API key is empty")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError("an API key has letters, digits and signs of ASCII, and no spaces")
    return key


def checked_url(url: str) -> str:
    """A service's address, without a slash at the end. Raises `ValueError`."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"an address begins with http:// or https://; got {url!r}")
    return url.rstrip("/")


def path(template: str, name: str) -> str:
    """A route's path with an id or a model's name in it."""
    return template.format(quote(name, safe=""))


def body_of(answer: httpx.Response) -> Any:
    """The JSON of a successful answer. Raises `ApiError`."""
    if not answer.is_success:
        raise fault_of(answer)
    try:
        return answer.json()
    except ValueError:
        raise ApiError(answer.status_code, "not_json", f"The service answered {answer.text[:200]!r}") from None


def fault_of(answer: httpx.Response, message: str = "The service refused") -> ApiError:
    """An unsuccessful answer as an error."""
    error: Mapping[str, Any] = {}
    try:
        body = answer.json()
        error = body["error"] if isinstance(body["error"], dict) else {}
    except (ValueError, KeyError, TypeError):
        pass
    kind = RefusedError if 400 <= answer.status_code < 500 else ApiError
    return kind(
        answer.status_code,
        error.get("code", "unknown"),
        error.get("message", message),
        field=error.get("field"),
        retry_after_s=retry_after_s(answer),
        request_id=answer.headers.get("x-request-id"),
    )


def retry_after_s(answer: httpx.Response) -> float | None:
    """When to ask again, where the answer says so in seconds."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def pause_s(failures: int) -> float:
    """Before the next try."""
    return min(0.1 * 2.0**failures, 5.0) if failures else 0.0


def reason(exc: Exception) -> str:
    """Why nobody answered, in a few words."""
    if isinstance(exc, httpx.ConnectError):
        text = str(exc).lower()
        if "refused" in text or "attempts failed" in text:
            return "connection refused"
        if "name or service" in text or "getaddrinfo" in text or "nodename" in text:
            return "there is no such host"
        return str(exc) or "no connection"
    if isinstance(exc, httpx.TimeoutException):
        return "no answer in time"
    return "the connection broke" if isinstance(exc, BROKEN) else str(exc) or type(exc).__name__
