"""Which addresses callers may name: public ones on the usual ports, and private ones that the operator allows."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from storage import addresses

PORTS = frozenset({80, 443})
_DEFAULT_PORTS = {"http": 80, "https": 443}


class RefusedError(Exception):
    """This address may not be dialled."""


class Gate:
    """Looks at addresses before they are dialled."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """`allowed` are `host:port` pairs that may be private."""
        pairs = [pair.rpartition(":") for pair in allowed]
        self._allowed = frozenset((host.strip("[]"), int(port)) for host, _, port in pairs)

    def allows(self, host: str, port: int) -> bool:
        """Whether the operator allows this one, wherever it leads."""
        return (host.strip("[]"), port) in self._allowed

    def literal(self, host: str, port: int) -> addresses.Address | None:
        """The public address that a host is written as; None where it is a name. Raises `RefusedError`."""
        if port not in PORTS:
            raise RefusedError("port")
        bare = host.strip("[]")
        try:
            address = ipaddress.ip_address(bare)
        except ValueError:
            last = bare.rstrip(".").rsplit(".", 1)[-1]
            if last.isdecimal() or last.lower().startswith("0x"):
                raise RefusedError("numeric host") from None  # 0x7f.1 and the like: resolvers read them as addresses
            return None
        if not addresses.is_public(address):
            raise RefusedError("address")
        return address

    def refuses(self, url: str) -> bool:
        """Whether a URL is refused for what it says, whatever the name in it leads to."""
        try:
            parts = parts_of(url)
            host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
            if not self.allows(host, port):
                self.literal(host, port)
        except (RefusedError, ValueError):
            return True
        return False


def parts_of(url: str) -> SplitResult:
    """Of a URL that may be fetched. Raises `RefusedError` and, where it is none, `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or "@" in parts.netloc or not parts.hostname:
        raise RefusedError("url")
    return parts
