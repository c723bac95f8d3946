"""Who is calling: an API key names a tenant, and nothing else does."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request

from storage.contracts import errors

SCHEMES = ("bearer", "key", "token")


class Tenants:
    """The known keys, kept as digests: looking one up takes the same time whatever of it is right."""

    def __init__(self, tenants_by_key: Mapping[str, str]) -> None:
        self._tenants = {_digest(key): tenant for key, tenant in tenants_by_key.items()}

    def authenticate(self, request: Request) -> str:
        """The tenant of the request's key. Raises `errors.UnauthenticatedError`.

        `Authorization` may say `Bearer`, `Key`, `Token` or nothing before it, and it may come as `x-key` instead, as clients of
        the APIs we stand in for send it.
        """
        words = request.headers.get("authorization", "").split()
        if len(words) == 2 and words[0].lower() in SCHEMES:
            del words[0]
        key = words[0] if len(words) == 1 else request.headers.get("x-key", "")
        tenant = self._tenants.get(_digest(key))
        if tenant is None:
            raise errors.UnauthenticatedError("A valid API key is required: Authorization: Bearer <key>")
        return tenant


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
