"""How webhooks are signed."""

import base64
import hashlib
import hmac


def standard_webhook(key: bytes, *, id_: str, body: bytes, now: float) -> dict[str, str]:
    """The headers of a Standard Webhook (standardwebhooks.com): HMAC-SHA256 of `id.timestamp.body`."""
    timestamp = str(int(now))
    digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "webhook-id": id_,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
