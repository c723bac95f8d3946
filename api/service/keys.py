"""Who is who: an API key names a tenant, and nothing else does."""

import hashlib
from collections.abc import Mapping

from storage.contracts import errors


class Keys:
    """The known API keys, as digests: looking one up takes the same time whatever of it is right."""

    def __init__(self, tenants_by_key: Mapping[str, str]) -> None:
        self._tenants = {_digest(key): tenant for key, tenant in tenants_by_key.items()}

    def tenant_of(self, key: str) -> str:
        """Whose key it is. Raises `errors.UnauthenticatedError`."""
        tenant = self._tenants.get(_digest(key))
        if tenant is None:
            raise errors.UnauthenticatedError("A valid API key is required: Authorization: Bearer <key>")
        return tenant


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
