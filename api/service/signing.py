"""What this service signs with: keys derived from one secret, so that any API process can check what another one made."""

import base64
import hashlib
import hmac
import logging
import secrets
import time
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.settings import ApiSettings

log = logging.getLogger(__name__)

STORED = "/v1/stored/"
"""Path of what `api.http.downloads` serves from the object store; the key follows."""


UPLOADS = "/v1/uploads/"
"""The same of where pictures may be put."""

THUMBNAILS = "/v1/thumbnails/"
"""The same of small pictures of results."""


class Signatures:
    """Signs download links and webhooks."""

    def __init__(self, secret: bytes, *, is_shared: bool = True) -> None:
        """`is_shared`: other processes have the secret, too, and this one has it again after a restart."""
        self._secret = secret
        self.is_shared = is_shared

    def key(self, purpose: str) -> bytes:
        """32 bytes for one purpose."""
        return hmac.digest(self._secret, purpose.encode(), hashlib.sha256)

    def link(self, path: str, *, expires_at: int) -> str:
        """What proves that a path may be read until `expires_at` (Unix seconds)."""
        digest = hmac.digest(self.key("link"), f"{path}|{expires_at}".encode(), hashlib.sha256)
        return f"{expires_at}.{base64.urlsafe_b64encode(digest[:24]).decode()}"

    def download_url(self, base: str, key: str, expires_at: datetime) -> str:
        """A URL below `base` that downloads an object from this service until `expires_at`."""
        return f"{base}{STORED}{key}?proof={self.link(STORED + key, expires_at=int(expires_at.timestamp()))}"

    def upload_url(self, base: str, key: str, expires_at: datetime, *, pace: str) -> str:
        """A URL below `base` that an object may be put to until `expires_at`; `pace` is what it says of whose it is."""
        proof = self.link(f"{UPLOADS}{key}|{pace}", expires_at=int(expires_at.timestamp()))
        return f"{base}{UPLOADS}{key}?proof={proof}&pace={pace}"

    def thumbnail_url(self, base: str, key: str, expires_at: datetime) -> str:
        """The same for a small picture of it."""
        return f"{base}{THUMBNAILS}{key}?proof={self.link(THUMBNAILS + key, expires_at=int(expires_at.timestamp()))}"

    def is_link(self, path: str, proof: str) -> bool:
        """Whether `link` made this proof, and its time is not over."""
        until, _, _ = proof.partition(".")
        if not until.isdecimal() or len(until) > 12 or int(until) < time.time():
            return False
        return hmac.compare_digest(self.link(path, expires_at=int(until)).encode(), proof.encode())

    def own_key(self, url: str, tenant: str) -> str | None:
        """The key of an object of this tenant's that a link of ours leads to, while that holds; None for any other URL."""
        key, _, proof = url.partition(STORED)[2].partition("?proof=")
        own = key.startswith((f"files/{tenant}/", f"results/{tenant}/"))
        return key if own and self.is_link(STORED + key, proof) else None

    def webhook_key(self, tenant: str, version: int = 0) -> bytes:
        """What a tenant's webhooks are signed with; another with each version."""
        return self.key(f"webhook:{tenant}:{version}" if version else f"webhook:{tenant}")

    @property
    def ed25519(self) -> Ed25519PrivateKey:
        """The key pair of signatures that are checked with a public key."""
        return Ed25519PrivateKey.from_private_bytes(self.key("ed25519"))


def signatures_of(settings: ApiSettings) -> Signatures:
    """Of the configured secret, of the object store's, or of one that this process alone knows."""
    for secret in (settings.secret, settings.s3_secret_access_key):
        if secret is not None:
            return Signatures(hashlib.sha256(secret.get_secret_value().encode()).digest())
    log.warning("DARKROOM_SECRET is not set: links and webhook signatures hold for this process only")
    return Signatures(secrets.token_bytes(32), is_shared=False)
