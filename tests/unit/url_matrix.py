"""`python -m tests.unit.url_matrix`: every way to name an internal address, in a network where all of them answer.

In a network namespace of its own every address of IPv4 and IPv6 leads to this process, which counts who connects. Prints JSON:
what must be reached and was, and what must not be and was.
"""

import contextlib
import ctypes
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock
from urllib.parse import quote

from pyroute2 import IPRoute

from storage.contracts import errors
from storage.outside import Outside, RefusedError, UnansweredError
from tests.unit.test_addresses import SPECIAL
from workers.delivery import Delivery
from workers.fetching import Fetcher

PORTS = (80, 443, 22, 6379, 8000, 8080, 9000)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
LOCAL_TABLE, HOST_SCOPE = 255, 254
PUBLIC = "8.8.8.8"
OUTSIDE = (PUBLIC, "2606:4700:4700::1111")
"""Addresses that may be reached, on ports 80 and 443."""

NAMES = {
    "public.test": [PUBLIC],
    "public6.test": ["2606:4700:4700::1111"],
    "loopback.test": ["127.0.0.1"],
    "loopback6.test": ["::1"],
    "private.test": ["10.1.2.3"],
    "metadata.test": ["169.254.169.254"],
    "mapped.test": ["::ffff:10.0.0.1"],
    "mixed.test": [PUBLIC, "127.0.0.1"],
    "mixed-first.test": ["127.0.0.1", PUBLIC],
    "mixed6.test": [PUBLIC, "fd00::1"],
    "scoped.test": ["fe80::1%lo"],
}
"""What a name leads to."""
REBINDING = "rebinding.test"


def isolate() -> None:
    """Enter a network where every address is this machine's. Raises `OSError` where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = CLONE_NEWNET if os.getuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    with IPRoute() as route:
        (loopback,) = route.link_lookup(ifname="lo")
        route.link("set", index=loopback, state="up")
        for half in ("0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"):
            route.route("add", dst=half, oif=loopback, table=LOCAL_TABLE, type="local", scope=HOST_SCOPE)


class Listener:
    """Counts connections, outside and inside, and answers: something, or below `/to/` a redirect to a URL in hexadecimal."""

    def __init__(self) -> None:
        self.public = self.inside = 0
        for port in PORTS:
            for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
                server = socket.socket(family)
                if family == socket.AF_INET6:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                server.bind((anywhere, port))
                server.listen(64)
                threading.Thread(target=self._serve, args=[server], daemon=True).start()

    def _serve(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(2)
                path = connection.recv(65536).split(b" ")[1:2]
                if path and path[0].startswith(b"/to/"):
                    # It is where a stranger's public server sends the fetcher on.
                    location = bytes.fromhex(path[0].removeprefix(b"/to/").decode())
                    connection.sendall(
                        b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
                    )
                    continue
                address, port = connection.getsockname()[:2]
                if address in OUTSIDE and port in (80, 443):
                    self.public += 1
                else:
                    self.inside += 1
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def hostile() -> Iterator[str]:
    """URLs that lead inside, or would where they were read in another way than they are checked."""
    for text in SPECIAL:
        address = ipaddress.ip_address(text)
        host = text if address.version == 4 else f"[{text}]"
        yield f"http://{host}/"
        yield f"http://{PUBLIC}/to/{f'http://{host}/'.encode().hex()}"
    for text in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1"):
        yield from _spellings(ipaddress.IPv4Address(text))
    for name in (*NAMES, REBINDING):
        if not name.startswith("public"):
            yield f"http://{name}/"
            yield f"https://{name}/"
            yield f"http://{name}./"
            yield f"http://{PUBLIC}/to/{f'http://{name}/'.encode().hex()}"
    for port in PORTS[2:]:
        yield f"http://{PUBLIC}:{port}/"
        yield f"http://{PUBLIC}/to/{f'http://{PUBLIC}:{port}/'.encode().hex()}"
    for scheme in ("ftp", "gopher", "dict", "file", "ldap", "unix", "ws", "HTTP+UNIX", "jar", "data"):
        yield f"{scheme}://127.0.0.1/"
        yield f"http://{PUBLIC}/to/{f'{scheme}://127.0.0.1/'.encode().hex()}"


def _spellings(address: ipaddress.IPv4Address) -> Iterator[str]:
    a, b, c, d = address.packed
    number = int(address)
    hosts = (
        str(number), hex(number), f"0{number:o}", f"{a}.{(b << 16) + (c << 8) + d}", f"{a}.{b}.{(c << 8) + d}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:03}.{b:03}.{c:03}.{d:03}", f"{address}.",
        quote(str(address), safe="").replace(".", "%2e"), str(address).replace(".", "\u3002"),
        "".join(chr(0xFF10 + int(one)) if one.isdigit() else one for one in str(address)),
        f"[::{address}]", f"[::ffff:{address}]", f"[::ffff:0:{address}]", f"[64:ff9b::{address}]", "[::1%25lo]",
        f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]", f"{PUBLIC}@{address}", f"user:{PUBLIC}@{address}", f"{address}#@{PUBLIC}",
        f"{address}\\@{PUBLIC}", f"{PUBLIC}\\@{address}", f" {address}", f"{address}\t", f"{address}%00.{PUBLIC}",
        f"{address}:80", f"{address}:6379", f"{address}:0080",
    )  # fmt: skip
    for host in hosts:
        yield f"http://{host}/"
        yield f"https://{host}/x.png"


def resolver() -> Callable[..., Any]:
    """In place of the system's: names of ours, and whatever is an address already."""
    asked: dict[str, int] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: Any, *arguments: Any, **named: Any) -> Any:
        name = host.rstrip(".").lower()
        asked[name] = asked.get(name, 0) + 1
        if name == REBINDING:
            # Public where it is checked, internal where it is resolved again to dial.
            return real([PUBLIC, "127.0.0.1"][(asked[name] - 1) % 2], port, type=socket.SOCK_STREAM)
        if name in NAMES:
            return [entry for one in NAMES[name] for entry in real(one, port, type=socket.SOCK_STREAM)]
        return real(host, port, *arguments, **named)

    return getaddrinfo


def main() -> None:
    """Ask for everything, through everything that dials for a caller."""
    isolate()
    listener = Listener()
    fetcher, delivery, outside = Fetcher(limit_s=2), Delivery(limit_s=2), Outside(limit_s=2)

    def webhook(url: str) -> None:
        outside.exchange("POST", url, headers={}, content=b"{}", max_bytes=1000)

    sinks: dict[str, Callable[[str], object]] = {
        "picture": fetcher.fetch,
        "bucket": lambda url: delivery.deliver("alice", url, b"x", "image/png"),
        "webhook": webhook,
    }

    def reached(ask: Callable[[str], object], url: str, where: str) -> bool:
        before = getattr(listener, where)
        with contextlib.suppress(errors.InputUnreachableError, RefusedError, UnansweredError):
            ask(url)
        return bool(getattr(listener, where) > before)

    with mock.patch("socket.getaddrinfo", resolver()), mock.patch("workers.delivery.PAUSE_S", 0.0):
        controls = [
            f"http://{PUBLIC}/",
            "http://[2606:4700:4700::1111]/",
            "http://public.test/",
            "http://public6.test/",
        ]
        missed = [f"{name} {url}" for url in controls for name, ask in sinks.items() if not reached(ask, url, "public")]
        urls = list(dict.fromkeys(hostile()))
        inside = [f"{name} {url}" for url in urls for name, ask in sinks.items() if reached(ask, url, "inside")]
    print(json.dumps({"urls": len(urls), "sinks": len(sinks), "missed": missed, "inside": inside}))


if __name__ == "__main__":
    main()
