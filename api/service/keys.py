"""Who is who: an API key names a tenant and what it may do, and nothing else does."""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping

from storage.contracts import access, errors
from storage.ledger import access as ledger_access
from storage.ledger import call

REMEMBERED_S = 0.9
"""A key's record is read again after so long: what is revoked or changed holds within a second, at a read a second."""
REMEMBERED = 10_000

SETTINGS_SCOPES: tuple[access.Scope, ...] = ("submit", "read", "models")

UNKNOWN = "A valid API key is required: Authorization: Bearer <key>"


def _name(key: str, tenant: str, naming: bytes | None) -> str:
    """16 hexadecimal digits."""
    digest = hmac.digest(naming, key.encode(), "sha256") if naming else hashlib.sha256(tenant.encode()).digest()
    return digest.hex()[:16]


class Keys:
    """The known API keys: those of the settings, and those made at run time, which are in the ledger.

    Both are found by digest or id and compared by digest: that takes the same time whatever of a secret is right.
    """

    def __init__(
        self,
        tenants_by_key: Mapping[str, str],
        ledger: call.AsyncLedger,
        *,
        naming: bytes | None,
        unfiltered: Collection[str] = (),
    ) -> None:
        """`unfiltered` are the tenants whose keys in the settings may switch filters off.

        With `naming`, the same in all API processes and after a restart, those keys have names that tell nothing of them. None:
        a tenant's all have the same name, so that a batch goes on after a restart.
        """
        self._ledger = ledger
        self._unfiltered = unfiltered
        self._callers = {
            access.digest(key): self._of_settings(tenant, _name(key, tenant, naming))
            for key, tenant in tenants_by_key.items()
        }
        self._named = {caller.name: caller for caller in self._callers.values()}
        self._found: OrderedDict[str, tuple[float, access.ApiKey | None]] = OrderedDict()

    def of_tenant(self, tenant: str) -> access.Caller:
        """A caller who needs no key: the operator said whose their calls are."""
        return self._of_settings(tenant, "")

    async def caller_of(self, token: str) -> access.Caller:
        """Whose key it is. Raises `errors.UnauthenticatedError` and `errors.StoreUnavailableError`."""
        digest = access.digest(token)
        caller = self._callers.get(digest)
        if caller is not None:
            return caller
        id_ = access.id_of(token)
        key = await self._find(id_, digest) if id_ else None
        if key is None or key.digest != digest:
            raise errors.UnauthenticatedError(UNKNOWN)
        return _caller(key)

    async def named(self, name: str, tenant: str) -> access.Caller:
        """The caller of a key by its name, for as long as it is valid. Raises as `caller_of`."""
        caller = self._named.get(name)
        if caller is None:
            key = await self._find(name)
            if key is None:
                raise errors.UnauthenticatedError(UNKNOWN)
            caller = _caller(key)
        if caller.tenant != tenant:
            raise errors.UnauthenticatedError(UNKNOWN)
        return caller

    async def still(self, caller: access.Caller) -> bool:
        """Whether a caller's key or token is still valid. Raises `errors.StoreUnavailableError`."""
        if caller.until is not None and caller.until < time.time():
            return False
        return caller.key_id is None or await self._find(caller.key_id) is not None

    async def unknown(self, tenants: Collection[str]) -> set[str]:
        """Those of these tenants that have no key. Raises `errors.StoreUnavailableError`."""
        made = await self._ledger.run(ledger_access.keys_of())
        return set(tenants) - {key.tenant for key in made} - {caller.tenant for caller in self._callers.values()}

    def _of_settings(self, tenant: str, name: str) -> access.Caller:
        rights = access.Rights(scopes=SETTINGS_SCOPES, unfiltered=tenant in self._unfiltered)
        return access.Caller(tenant=tenant, name=f"settings:{name}", rights=rights)

    async def _find(self, id_: str, digest: str | None = None) -> access.ApiKey | None:
        """A key that has not expired, and is used: with `digest`, if that is its own."""
        now = time.monotonic()
        until, key = self._found.get(id_, (0.0, None))
        if until < now:
            key = await self._ledger.run(ledger_access.find(id_, is_used=True, digest=digest))
            self._found[id_] = (now + REMEMBERED_S, key)
            self._found.move_to_end(id_)
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return key if key is not None and key.is_valid(round(time.time() * 1000)) else None


def _caller(key: access.ApiKey) -> access.Caller:
    return access.Caller(tenant=key.tenant, name=key.id, key_id=key.id, rights=key.rights)
