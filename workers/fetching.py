"""Fetches a caller's URL, taking every one for hostile.

Each connection resolves the name once, refuses unless every answer is a public address, and dials the address it checked;
TLS still verifies the name. Redirects pass the same gate. Bytes and total time are bounded, and neither the remote's words
nor the exact fault are passed on: an error must not tell a caller what answers inside our network.
"""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from storage import pictures
from storage.contracts import errors

PORTS = frozenset({80, 443})
REDIRECTS = 3
CONNECT_S = 5.0
HEADERS = (("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "darkroom"))

_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RefusedError(Exception):
    """This address may not be dialled."""


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet, in its own right and not as a tunnel or translation of another."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return True
    embeds = address.ipv4_mapped or address.sixtofour or address.teredo or any(address in net for net in _NAT64)
    compatible = address.packed[:12] in (b"\0" * 12, b"\0" * 8 + b"\xff\xff\0\0")
    return not embeds and not compatible


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
        self._stream.write(buffer, self._left())

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

    def __init__(self, allowed: Iterable[tuple[str, int]]) -> None:
        self._allowed = frozenset(allowed)
        self._sockets = httpcore.SyncBackend()
        self.until = threading.local()
        """`deadline` (`time.monotonic`) of what this thread fetches now."""
        self._resolver = ThreadPoolExecutor(4, thread_name_prefix="resolver")

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Dial a checked address. Raises `RefusedError` and httpcore's connect errors."""
        address = host if (host, port) in self._allowed else self._checked(host, port, timeout or CONNECT_S)
        stream = self._sockets.connect_tcp(address, port, timeout, local_address, socket_options)
        return TimedStream(stream, self.until.deadline)

    def _checked(self, host: str, port: int, timeout: float) -> str:
        if port not in PORTS:
            raise RefusedError("port")
        addresses = self._resolve(host, port, timeout)
        if not addresses or not all(is_public(address) for address in addresses):
            raise RefusedError("address")
        return str(addresses[0])

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        """Never. Raises `RefusedError`."""
        raise RefusedError("unix socket")

    def _resolve(self, host: str, port: int, timeout: float) -> list[Address]:
        try:
            return [ipaddress.ip_address(host.strip("[]"))]
        except ValueError:
            pass
        last = host.rstrip(".").rsplit(".", 1)[-1]
        if last.isdecimal() or last.lower().startswith("0x"):
            raise RefusedError("numeric host")  # 0x7f.1 and the like: resolvers read them as addresses
        found = self._resolver.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            return [ipaddress.ip_address(str(entry[4][0]).split("%")[0]) for entry in found.result(timeout)]
        except (OSError, TimeoutError, UnicodeError) as exc:
            raise httpcore.ConnectError("name resolution") from exc


class Fetcher:
    """Fetches pictures. Safe to use from several threads."""

    def __init__(self, *, limit_s: float, allowed: Iterable[str] = ()) -> None:
        """`allowed` are `host:port` pairs that may be private."""
        pairs = [pair.rpartition(":") for pair in allowed]
        self._backend = GuardedBackend((host, int(port)) for host, _, port in pairs)
        self._pool = httpcore.ConnectionPool(
            network_backend=self._backend, max_connections=8, max_keepalive_connections=0
        )
        self._limit_s = limit_s

    def fetch(self, url: str, field: str = "input_image") -> bytes:
        """The bytes behind a URL. Raises `errors.InputUnreachableError` naming `field`, with a coarse reason."""
        deadline = self._backend.until.deadline = time.monotonic() + self._limit_s
        try:
            for _ in range(REDIRECTS + 1):
                answer = self._get(url, deadline)
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
        except RefusedError:
            raise errors.InputUnreachableError(f"{field}: this address may not be fetched") from None
        except httpcore.TimeoutException:
            raise errors.InputUnreachableError(f"{field}: no answer within {self._limit_s:g} seconds") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError, ValueError):
            raise errors.InputUnreachableError(f"{field}: the URL could not be fetched") from None
        raise errors.InputUnreachableError(f"{field}: more than {REDIRECTS} redirects")

    def close(self) -> None:
        """Close connections."""
        self._pool.close()

    def _get(self, url: str, deadline: float) -> bytes | str:
        """The body, or where a redirect leads."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.username or parts.password or not parts.hostname:
            raise RefusedError("url")
        headers = [("Host", parts.netloc), *HEADERS]
        with self._pool.stream("GET", url, headers=headers, extensions={"timeout": _timeouts(deadline)}) as response:
            if response.status in (301, 302, 303, 307, 308):
                location = dict(response.headers).get(b"location") or dict(response.headers).get(b"Location")
                return (location or b"").decode("ascii", "replace")
            if response.status != 200:
                raise errors.InputUnreachableError(f"input_image: the server answered {response.status} for url")
            body = bytearray()
            for chunk in response.iter_stream():
                body += chunk
                if len(body) > pictures.MAX_BYTES:
                    limit = pictures.MAX_BYTES // 2**20
                    raise errors.InputUnreachableError(f"input_image: the picture has more than {limit} MiB")
                if time.monotonic() > deadline:
                    raise httpcore.ReadTimeout("total")
            return bytes(body)


def _timeouts(deadline: float) -> dict[str, float]:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise httpcore.ReadTimeout("total")
    return {"connect": min(CONNECT_S, remaining), "read": remaining, "write": remaining, "pool": remaining}
