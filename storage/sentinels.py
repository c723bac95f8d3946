"""Redis behind Sentinels: an address that names the Sentinels, and the primary by the name that they know it by."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

SCHEMES = ("redis+sentinel", "rediss+sentinel")
PORT = 26379


@dataclass(frozen=True, kw_only=True)
class Sentinels:
    """`redis+sentinel://[user:password@]host[:port][,host[:port]…]/primary[/database][?sentinel_password=…]`.

    `rediss+sentinel` speaks TLS to the servers and to the Sentinels.
    """

    addresses: tuple[tuple[str, int], ...]
    primary: str
    database: int
    username: str | None
    password: str | None
    sentinel_password: str | None
    has_tls: bool

    @property
    def of_servers(self) -> dict[str, Any]:
        """What a connection to a server is opened with."""
        named = {"username": self.username, "password": self.password}
        return {"db": self.database, **{name: value for name, value in named.items() if value}}

    @property
    def of_sentinels(self) -> dict[str, Any]:
        """What a connection to a Sentinel is opened with."""
        named = {"password": self.sentinel_password, "ssl": self.has_tls or None}
        return {name: value for name, value in named.items() if value}

    @property
    def broker_url(self) -> str:
        """The same as kombu spells it."""
        user = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@" if self.password else ""
        return ";".join(f"sentinel://{user}{host}:{port}/{self.database}" for host, port in self.addresses)


def sentinels_of(url: str) -> Sentinels | None:
    """What a URL says; None for one of a server itself. Raises `ValueError`."""
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        return None
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    primary, _, database = parts.path.removeprefix("/").partition("/")
    if not hosts or not primary or not (database or "0").isdecimal():
        raise ValueError(f"REDIS_URL: {parts.scheme}://[user:password@]host[:port],…/primary[/database] is needed")
    query = parse_qs(parts.query)
    return Sentinels(
        addresses=tuple(_address(host) for host in hosts.split(",")),
        primary=primary,
        database=int(database or 0),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=query.get("sentinel_password", [None])[0],
        has_tls=parts.scheme.startswith("rediss"),
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), PORT
    if not port.isdecimal():
        raise ValueError(f"REDIS_URL: {text} is no host and port")
    return host.strip("[]"), int(port)
