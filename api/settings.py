"""What the API needs to be told beyond the stores."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from storage.contracts import access
from storage.contracts.catalog import Catalog
from storage.contracts.values import WebAddress
from storage.settings import StoreSettings

SHORTEST_KEY = 16
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")


class ApiSettings(StoreSettings):
    """The HTTP side."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every network of this machine."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on."""

    api_key: SecretStr | None = None
    """One key, of the tenant `default`: enough for a single team. Without it and `DARKROOM_API_KEYS` those alone are known that
    were made with `darkroom-admin keys create`."""

    api_keys: dict[str, SecretStr] = Field(default_factory=dict)
    """Further keys as JSON, tenant to key: `{"alice": "…"}`."""

    secret: Annotated[SecretStr | None, Field(min_length=SHORTEST_KEY)] = None
    """What webhooks and download links of this service are signed with, the same for all its API processes. By default it is
    derived from `S3_SECRET_ACCESS_KEY`. When it changes, links and webhook secrets of before end, and batches of keys in the
    settings."""

    public_url: WebAddress | None = None
    """How clients reach this service, without a slash at the end; by default as each request came."""

    tls_certificate: Path | None = None
    """PEM file; with `DARKROOM_TLS_KEY` the API itself speaks https, for when nothing in front of it does."""

    tls_key: Path | None = None
    """PEM file of its key."""

    nim_tenant: str | None = None
    """Whose the NIM routes' calls without a key are; by default they need one, too. A NIM container knows no keys."""

    default_model: str = "flux-kontext-dev"
    """The model behind routes that name none: NIM's, and OpenAI's when a caller leaves it out."""

    callback_limit_s: Annotated[float, Field(gt=0)] = 10
    """Seconds a webhook may take to answer."""

    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 2**20
    """Bytes of a request's body at the most. A 20 MiB picture is 27 MiB as a data URI."""

    max_bodies_bytes: Annotated[int, Field(ge=1024)] = 512 * 2**20
    """Bytes of all bodies above a mebibyte together that this process receives at the same time, until what they ask for is
    accepted; one tenant's have half of it. A request beyond it is refused with 503 and `Retry-After`."""

    head_limit_s: Annotated[float, Field(gt=0)] = 10
    """Seconds a connection may take until its request's line and headers are whole."""

    body_pause_s: Annotated[float, Field(gt=0)] = 15
    """Seconds between two pieces of a request's body at the most."""

    body_limit_s: Annotated[float, Field(gt=0)] = 300
    """Seconds a request's body may take in all."""

    max_connections: Annotated[int, Field(ge=1)] = 8192
    """Connections to this process at the same time, idle ones and event streams among them: about 24 kB each. Beyond that, the
    one that has waited longest for a request is closed."""

    max_streams: Annotated[int, Field(ge=1)] = 4096
    """Open event streams of all tenants together in this process."""

    unfiltered_tenants: tuple[str, ...] = ()
    """Tenants whose keys in the settings may switch filters off for a request (`disable_safety_checker`), as JSON. Keys made
    at run time have `unfiltered` for it."""

    budgets: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """What tenants may spend in a month, as JSON, tenant to USD; a request that could go beyond is refused. Others have none."""

    retention_days: dict[str, Annotated[float, Field(gt=0, le=7)]] = Field(default_factory=dict)
    """Days after which everything about a tenant's generations is erased, as JSON, tenant to days; by default pictures are
    deleted after seven and records after eight."""

    max_active_per_tenant: Annotated[int, Field(ge=1)] = 10_000
    """Unfinished generations one tenant may have."""

    max_queued: Annotated[int, Field(ge=1)] = 100_000
    """Queued generations of all tenants together: about 3 kB of Redis each."""

    max_bytes_per_tenant: Annotated[int | None, Field(ge=2**20)] = None
    """Bytes of Redis that the records of one tenant's generations may take, unfinished ones and those that ended within
    `DARKROOM_ARCHIVE_AFTER_S`: about 5 kB each, and up to 256 KiB. By default there is no bound but that of unfinished ones."""

    requests_per_minute: Annotated[int | None, Field(ge=1)] = None
    """Requests of one tenant, of whatever kind, to this process in a minute, a tenth of them at once. Beyond, 429 is answered
    before any of a body is read. By default there is no bound."""

    queue_ttl_s: Annotated[float, Field(gt=0)] = 24 * 3600
    """Seconds a generation waits for a worker before it fails as `expired_in_queue`; also the most a request may ask for."""

    execution_limit_s: Annotated[float, Field(gt=0)] = 600
    """Seconds an edit may run before it fails as `timed_out`; also the most a request may ask for."""

    max_streams_per_tenant: Annotated[int, Field(ge=1)] = 100
    """Open event streams one tenant may have in this process."""

    blocking_limit_s: Annotated[float, Field(gt=0)] = 600
    """Seconds a blocking edit is waited for; then it is cancelled."""

    longest_wait_s: Annotated[float, Field(gt=0)] = 60
    """Seconds a long poll may ask for."""

    replay_s: Annotated[float, Field(ge=0)] = 600
    """How far back terminal events are replayed to a fresh subscriber: documented clients enqueue first."""

    cors_origins: tuple[str, ...] = ()
    """Origins of web frontends that may call from a browser, as JSON."""

    @field_validator("tls_certificate", "tls_key")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"{value} is no file that can be read")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"an origin is a scheme and a host such as https://shop.example, no path; got {origin!r}"
                )
        return value

    def read_catalog(self) -> Catalog:
        """As the stores' settings read it. Raises `ValueError`, also for a default model that it does not have."""
        known = super().read_catalog()
        if not known.has(self.default_model):
            raise ValueError(
                f"DARKROOM_DEFAULT_MODEL: the catalog has no {self.default_model!r}, but {', '.join(known.models)}"
            )
        return known

    @model_validator(mode="after")
    def _one_body_fits(self) -> "ApiSettings":
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ValueError("DARKROOM_MAX_BODIES_BYTES: less than DARKROOM_MAX_BODY_BYTES, one body")
        return self

    @model_validator(mode="after")
    def _tenants(self) -> "ApiSettings":
        # Not by their tenants: somebody may have swapped both.
        named = {f"DARKROOM_API_KEYS: number {place}": key for place, key in enumerate(self.api_keys.values(), 1)}
        if self.api_key is not None:
            named["DARKROOM_API_KEY"] = self.api_key
        keys = [key.get_secret_value() for key in named.values()]
        for name, key in zip(named, keys, strict=True):
            if len(key) < SHORTEST_KEY:
                raise ValueError(f"{name} is too short: a key has at least {SHORTEST_KEY} characters")
        for tenant in (*self.api_keys, *self.budgets, *self.retention_days, *filter(None, [self.nim_tenant])):
            if not access.TENANT.fullmatch(tenant):
                raise ValueError(f"a tenant's name is 1 to 64 of A-Z a-z 0-9 . _ -; got {tenant!r}")
        if len(set(keys)) < len(keys):
            raise ValueError("DARKROOM_API_KEY and DARKROOM_API_KEYS: two tenants have the same key")
        return self

    def tenants_by_key(self) -> dict[str, str]:
        """API key to tenant."""
        keys = {key.get_secret_value(): tenant for tenant, key in self.api_keys.items()}
        if self.api_key is not None:
            keys[self.api_key.get_secret_value()] = "default"
        return keys
