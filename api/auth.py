"""Who is calling: an API key names a tenant, and nothing else does."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request

from storage.contracts import errors


class Tenants:
    """The known keys, kept as digests: looking one up takes the same time whatever of it is right."""

    def __init__(self, tenants_by_key: Mapping[str, str]) -> None:
        self._tenants = {_digest(key): tenant for key, tenant in tenants_by_key.items()}

    def authenticate(self, request: Request) -> str:
        """The tenant of the request's `Authorization: Bearer` key. Raises `errors.UnauthenticatedError`."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        tenant = self._tenants.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        if tenant is None:
            raise errors.UnauthenticatedError("A valid API key is required: Authorization: Bearer <key>")
        return tenant


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
