"""What the stores need to be told, read from the environment once when a process starts.

A bad value stops the start naming the variable.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import Field, FilePath, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storage.contracts.catalog import Catalog
from storage.contracts.catalog_files import merge
from storage.contracts.values import WebAddress
from storage.sentinels import Sentinels, sentinels_of


def reason(exc: ValueError) -> str:
    """Why settings do not fit, by the variable's name; their values may be secrets."""
    if isinstance(exc, ValidationError):
        return "; ".join(map(_told, exc.errors(include_url=False, include_context=False, include_input=False)))
    unread = re.match(r'error parsing value for field "(\w+)"', str(exc))
    if not unread:
        return str(exc)
    return f'DARKROOM_{unread[1].upper()} must be JSON: a list is such as ["one", "two"], a table such as {{"one": 1}}'


def _told(error: ErrorDetails) -> str:
    """One of the things that do not fit."""
    sentence = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return sentence
    name, *inside = map(str, error["loc"])
    variable = name if name.isupper() else f"DARKROOM_{name.upper()}"
    return f"{'.'.join([variable, *inside])}: {sentence[0].lower()}{sentence[1:]}"


class StoreSettings(BaseSettings):
    """Redis, the object store and the catalog."""

    model_config = SettingsConfigDict(
        env_prefix="DARKROOM_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    redis_url: Annotated[SecretStr, Field(validation_alias="REDIS_URL")] = SecretStr("redis://127.0.0.1:6379/0")
    """Redis or Valkey, with the append-only file on and `maxmemory-policy noeviction`; `rediss://` for TLS. Behind Sentinels:
    `redis+sentinel://[user:password@]host[:port],…/primary[/database]`."""

    redis_password: Annotated[SecretStr, Field(validation_alias="REDIS_PASSWORD")] = SecretStr("")
    """Its password as it is; in `REDIS_URL` it is percent-encoded."""

    wait_replicas: Annotated[int, Field(ge=0, le=8)] = 0
    """How many replicas must have written a change to their disks before anybody is told of it. With 1, a fail-over to a replica
    loses nothing that was acknowledged."""

    redis_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.5
    """Seconds a command or a connect may take: a caller is answered within two. Without it a connection that died silently
    blocks for ever."""

    s3_endpoint_url: Annotated[str | None, Field(validation_alias="S3_ENDPOINT_URL")] = None
    """Where the service reaches the object store; by default AWS's."""

    s3_public_endpoint_url: Annotated[str | None, Field(validation_alias="S3_PUBLIC_ENDPOINT_URL")] = None
    """Where clients reach it. URLs are signed for this host; by default the same as `S3_ENDPOINT_URL`."""

    s3_bucket: Annotated[str, Field(validation_alias="S3_BUCKET", min_length=3)] = "darkroom"
    """Made on the first start where it is missing."""

    s3_region: Annotated[str, Field(validation_alias="S3_REGION")] = "us-east-1"
    """What requests are signed for; AWS's own stores ask for theirs."""

    s3_access_key_id: Annotated[str | None, Field(validation_alias="S3_ACCESS_KEY_ID")] = None
    """A long-lived key, with its secret. Without: boto3's own search, whose temporary credentials end URLs early."""

    s3_secret_access_key: Annotated[SecretStr | None, Field(validation_alias="S3_SECRET_ACCESS_KEY")] = None
    """The secret of `S3_ACCESS_KEY_ID`."""

    store_authority: FilePath | None = None
    """PEM file of the certificate authorities by which Redis (`rediss://`) and the object store (`https://`) are known; by
    default those of the system."""

    signing_certificate: Path | None = None
    """PEM file with which results are signed (C2PA), the leaf first; with `DARKROOM_SIGNING_KEY`. By default they are not."""
    signing_key: Path | None = None
    """PEM file (PKCS #8) of its EC key."""

    fetch_allowed: tuple[str, ...] = ()
    """`host:port` of private servers that callers may name, as JSON: for pictures, webhooks and buckets of their own.
    Pictures may always come from the object store."""

    metrics_port: Annotated[int | None, Field(ge=0, le=65535)] = None
    """Port on which this process tells Prometheus its metrics, to everybody who can reach it; by default it tells none.
    0 is any that is free, which the log names."""

    metrics_host: str = "127.0.0.1"
    """Address of that port."""

    traces_endpoint: WebAddress | None = None
    """Where this process sends its traces, by OTLP over HTTP: `http://collector:4318/v1/traces`. By default it makes none."""

    traces_sampled: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of requests that are traced, of those whose caller has not decided it (`traceparent`)."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """From which level on a process logs."""

    log_format: Literal["text", "json"] = "text"
    """Lines for people, or a JSON object for each."""

    catalog: Annotated[tuple[Path, ...], NoDecode] = ()
    """Further catalog files, separated by colons; a later one overrides single keys of an earlier one. `make up` has
    `infra/catalog.embedded.toml`, whose small models a CPU runs; another value replaces it, and
    `infra/catalog.embedded.toml:mine.toml` adds to it."""

    @field_validator("fetch_allowed")
    @classmethod
    def _pairs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pair in value:
            host, _, port = pair.rpartition(":")
            if not host or "/" in pair or not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError(f"each is a host:port such as 10.0.0.5:80; got {pair!r}")
        return value

    @field_validator("catalog", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(":") if part) if isinstance(value, str) else value

    @property
    def fetchable(self) -> tuple[str, ...]:
        """`host:port` of what pictures are fetched from even where it is private: what is allowed, and the object store."""
        store = self.s3_public_endpoint_url or self.s3_endpoint_url
        if store is None:
            return self.fetch_allowed
        parts = urlsplit(store)
        return (*self.fetch_allowed, f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}")

    @property
    def has_redis_tls(self) -> bool:
        """Whether Redis is reached by TLS."""
        return self.redis_url.get_secret_value().startswith("rediss")

    # Not cached: what is cached is copied with a settings' copy that has another address.
    @property
    def redis_address(self) -> str:
        """`redis_url` with the password, which is a secret. Raises `ValueError`."""
        parts = urlsplit(self.redis_url.get_secret_value())
        credentials, _, hosts = parts.netloc.rpartition("@")
        if password := self.redis_password.get_secret_value():
            user = credentials.partition(":")[0]
            parts = parts._replace(netloc=f"{user}:{quote(password, safe='')}@{hosts}")
        try:
            _ = "," in hosts or parts.port
        except ValueError:
            raise ValueError(
                "REDIS_URL: its port is no number; a password in it is to be percent-encoded, or set as REDIS_PASSWORD"
            ) from None
        return parts.geturl()

    @property
    def sentinels(self) -> Sentinels | None:
        """Where the primary is asked for; None where `redis_url` names it. Raises `ValueError`."""
        return sentinels_of(self.redis_address)

    @model_validator(mode="after")
    def _redis_is_named(self) -> Self:
        scheme = urlsplit(self.redis_address).scheme
        if self.sentinels is None and scheme not in ("redis", "rediss"):
            raise ValueError(f"REDIS_URL: it must begin with redis://, rediss:// or redis+sentinel://; got {scheme}://")
        return self

    def read_catalog(self) -> Catalog:
        """The shipped catalog with the operator's files laid over it. Raises `ValueError` naming file, table and key."""
        files = (Path(__file__).parent / "catalog.toml", *self.catalog)
        tables = []
        for file in files:
            try:
                tables.append(tomllib.loads(file.read_text()))
                parsed = merge(tables)
            except (OSError, ValueError) as exc:
                told = f"DARKROOM_CATALOG: {file}" if file in self.catalog else str(file)
                raise ValueError(f"{told}: {exc}") from exc
        return parsed
