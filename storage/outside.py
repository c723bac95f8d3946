"""What leaves for addresses that callers name: pictures fetched, results delivered, webhooks called. All are taken for hostile.

Each connection resolves the name once, refuses unless every answer is a public address, and dials the address it checked;
TLS still verifies the name. Bytes and total time are bounded. No redirect is followed here.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote

import httpcore

from storage import addresses
from storage.gate import Gate, RefusedError, parts_of

CONNECT_S = 5.0
_KEPT = "/%:@!$&'()*+,;=~?-._"
"""What stands in a path or query as it is."""
WRITTEN_AT_ONCE = 64 * 1024
CONNECTIONS = 64
"""At the same time; as many names may be looked up, for a slow resolver must not hold up the rest."""


class UnansweredError(Exception):
    """No answer in time, or none that could be read."""


class NoPublicAddressError(UnansweredError):
    """A name is not known, or leads inside: callers are not told which, or they could ask for the names of our network."""

    def __init__(self) -> None:
        super().__init__("its host's name leads to no public address")


class TooLongError(Exception):
    """The answer has more bytes than were asked for at the most."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back. `location` is where a redirect leads."""

    status: int
    location: str | None
    body: bytes


class TimedStream(httpcore.NetworkStream):
    """A connection whose every operation ends at one deadline: a time-out for each read alone lets a server drip for ever."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def _left(self) -> float:
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise httpcore.ReadTimeout("total")
        return remaining

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read until the deadline. Raises `httpcore.ReadTimeout`."""
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write until the deadline. Raises `httpcore.TimeoutException`."""
        # Of a large one each part that a slow receiver takes would have the whole time.
        for begin in range(0, len(buffer), WRITTEN_AT_ONCE):
            self._stream.write(buffer[begin : begin + WRITTEN_AT_ONCE], self._left())

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Shake hands until the deadline. Raises `httpcore.TimeoutException`."""
        return TimedStream(self._stream.start_tls(ssl_context, server_hostname, self._left()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """See httpcore."""
        return self._stream.get_extra_info(info)


class GuardedBackend(httpcore.NetworkBackend):
    """The seam where every connection is made."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._sockets = httpcore.SyncBackend()
        self.until = threading.local()
        """`deadline` (`time.monotonic`) of what this thread fetches now."""
        self._resolver = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="resolver")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Dial a checked address. Raises `RefusedError`, `NoPublicAddressError` and httpcore's connect errors."""
        address = host if self._gate.allows(host, port) else self._checked(host, port, timeout or CONNECT_S)
        stream = self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
        return TimedStream(stream, self.until.deadline)

    def _checked(self, host: str, port: int, timeout: float) -> str:
        if literal := self._gate.literal(host, port):
            return str(literal)
        candidates = self._resolve(host, port, timeout)
        if candidates and all(addresses.is_public(address) for address in candidates):
            return str(candidates[0])
        raise NoPublicAddressError

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        """Never. Raises `RefusedError`."""
        raise RefusedError("unix socket")

    def _resolve(self, host: str, port: int, timeout: float) -> list[addresses.Address]:
        lookup = self._resolver.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            return [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in lookup.result(timeout)]
        except (OSError, TimeoutError, UnicodeError) as exc:
            raise NoPublicAddressError from exc


class Outside:
    """Exchanges requests with addresses outside. Safe to use from several threads."""

    def __init__(self, *, limit_s: float, allowed: Iterable[str] = (), authority: Path | None = None) -> None:
        """`limit_s` bounds a whole exchange; `allowed` are `host:port` pairs that may be private.

        Servers are known by the system's certificate authorities, and by those of the file `authority`.
        """
        known = ssl.create_default_context()
        if authority is not None:
            known.load_verify_locations(authority)
        self._backend = GuardedBackend(Gate(allowed))
        self._pool = httpcore.ConnectionPool(
            ssl_context=known, network_backend=self._backend, max_connections=CONNECTIONS, max_keepalive_connections=0
        )
        self.limit_s = limit_s

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        max_bytes: int,
        deadline: float | None = None,
    ) -> Answer:
        """One request and its answer, until `deadline` (`time.monotonic`; by default `limit_s` from now).

        Raises `RefusedError`, `UnansweredError` (`NoPublicAddressError` among them), and `TooLongError` for an answer of status
        200 with more than `max_bytes`.
        """
        deadline = deadline or time.monotonic() + self.limit_s
        self._backend.until.deadline = deadline
        try:
            return self._exchange(method, url, headers, content, max_bytes, deadline)
        except httpcore.TimeoutException:
            raise UnansweredError(f"no answer within {self.limit_s:g} seconds") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError, ValueError):
            raise UnansweredError("the URL could not be fetched") from None

    def close(self) -> None:
        """Close connections."""
        self._pool.close()

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None,
        max_bytes: int,
        deadline: float,
    ) -> Answer:
        parts = parts_of(url)
        if not url.isascii():
            parts = _in_ascii(parts)
            url = parts.geturl()
        sent = [("Host", parts.netloc), ("User-Agent", "darkroom"), *headers.items()]
        if content is not None:
            sent.append(("Content-Length", str(len(content))))
        extensions = {"timeout": _timeouts(deadline)}
        with self._pool.stream(method, url, headers=sent, content=content, extensions=extensions) as response:
            answered = {name.lower(): value for name, value in response.headers}
            location = answered.get(b"location", b"").decode("ascii", "replace") or None
            body = bytearray()
            for chunk in response.iter_stream() if response.status == 200 else ():
                body += chunk
                if len(body) > max_bytes:
                    raise TooLongError
                if time.monotonic() > deadline:
                    raise httpcore.ReadTimeout("total")
            return Answer(status=response.status, location=location, body=bytes(body))


def _in_ascii(parts: SplitResult) -> SplitResult:
    """A URL as it goes over the wire: people write names and paths in their own letters. Raises `ValueError`."""
    host = (parts.hostname or "").encode("idna").decode("ascii")
    port = f":{parts.port}" if parts.port is not None else ""
    path, query = quote(parts.path, safe=_KEPT), quote(parts.query, safe=_KEPT)
    return SplitResult(parts.scheme, host + port, path, query, "")


def _timeouts(deadline: float) -> dict[str, float]:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise httpcore.ReadTimeout("total")
    return {"connect": min(CONNECT_S, remaining), "read": remaining, "write": remaining, "pool": remaining}
