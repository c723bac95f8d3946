"""How webhooks are signed."""

import base64
import hashlib
import hmac
from collections.abc import Sequence


def standard_webhook(keys: Sequence[bytes], *, id_: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a Standard Webhook (standardwebhooks.com): HMAC-SHA256 of `id.timestamp.body` with each key."""
    timestamp = str(int(now))
    signed = f"{id_}.{timestamp}.".encode() + body
    digests = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{digest}" for digest in digests),
    }
