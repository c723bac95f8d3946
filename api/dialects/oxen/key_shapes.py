"""The shapes of answers about API keys, tokens and webhooks, for OpenAPI."""

from typing import Literal

from pydantic import BaseModel

from storage.contracts.access import Rights


class Key(Rights):
    """A key without its secret. Times in seconds since 1970; `expires_at` None: it lives until it is revoked."""

    id: str
    tenant: str
    label: str
    created_at: float
    expires_at: float | None
    last_used_at: float | None


class MadeKey(Key):
    """A new key; `key` is what clients send, and is not shown again."""

    key: str


class KeyList(BaseModel):
    """Keys, the oldest first."""

    keys: list[Key]


class MadeToken(BaseModel):
    """A browser token; `expires_at` in seconds since 1970."""

    token: str
    purpose: Literal["events", "generation", "submit", "page"]
    expires_at: int


class SignedIn(BaseModel):
    """A page's token; `expires_at` in seconds since 1970."""

    token: str
    tenant: str
    expires_at: int


class Entry(BaseModel):
    """What was done to a key, by which key or other means."""

    at: float
    by: str
    action: Literal["issued", "revoked"]
    key_id: str
    tenant: str


class Audit(BaseModel):
    """The latest first."""

    entries: list[Entry]


class WebhookCall(BaseModel):
    """A call of a webhook; `next_at` None: it was the last."""

    at: float
    generation_id: str
    moment: Literal["start", "completed", "batch"]
    attempt: int
    outcome: str
    duration_ms: int
    next_at: float | None


class WebhookCalls(BaseModel):
    """The latest first."""

    calls: list[WebhookCall]


class WebhookSecret(BaseModel):
    """`expires_at` in seconds since 1970; None: until it is changed."""

    secret: str
    expires_at: float | None


class WebhookSecrets(BaseModel):
    """The present secret first."""

    secrets: list[WebhookSecret]


class WebhookPinged(BaseModel):
    """What a receiver answered; `status` None: nothing."""

    outcome: str
    status: int | None
    duration_ms: int


class WebhookDue(BaseModel):
    """It is called soon."""

    status: Literal["due"]
    generation_id: str
