"""The secrets that a tenant's webhooks are signed with: the present one, and for a while after a change the one before."""

import base64
from dataclasses import dataclass

from api.service.signing import Signatures
from storage.ledger import call, webhooks


@dataclass(frozen=True, kw_only=True)
class Secret:
    """32 bytes, which of the tenant's secrets that is, and until when it holds (ms since 1970; None: until it is changed)."""

    key: bytes
    version: int
    until_ms: int | None

    @property
    def text(self) -> str:
        """As Standard Webhooks writes it."""
        return "whsec_" + base64.b64encode(self.key).decode()


class WebhookSecrets:
    """Derives them; the ledger knows their numbers alone."""

    def __init__(self, signatures: Signatures, ledger: call.AsyncLedger) -> None:
        self._signatures = signatures
        self._ledger = ledger

    async def of(self, tenant: str) -> tuple[Secret, ...]:
        """Those that hold, the present one first. Raises `errors.StoreUnavailableError`."""
        return self._secrets(tenant, await self._ledger.run(webhooks.secret_versions(tenant)))

    async def rotate(self, tenant: str, *, overlap_s: float) -> tuple[Secret, ...]:
        """Have another one from now on; the present one goes on for `overlap_s`. Raises as `of`."""
        return self._secrets(tenant, await self._ledger.run(webhooks.rotate_secret(tenant, overlap_s=overlap_s)))

    def _secrets(self, tenant: str, versions: webhooks.SecretVersions) -> tuple[Secret, ...]:
        numbered: list[tuple[int, int | None]] = [(versions.current, None), *versions.earlier]
        return tuple(
            Secret(key=self._signatures.webhook_key(tenant, version), version=version, until_ms=until_ms)
            for version, until_ms in numbered
        )
