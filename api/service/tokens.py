"""Browser tokens: what a page may have in place of a key, for a short time and one purpose.

A token proves itself, by a signature; nothing is stored but how many edits it has left and which they were. It is good as long
as the key is that it was made with.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from api.service.keys import Keys
from storage.contracts import access, errors
from storage.contracts.values import Frozen
from storage.ledger import access as ledger_access
from storage.ledger import call

PREFIX = "dk_token_"
LONGEST_S = 3600

Purpose = Literal["events", "generation", "submit", "page"]
"""`events`: every event of the tenant's; `generation`: one generation and its events; `submit`: so many edits, and those;
`page`: a link that signs in once to the page that is served here."""

SESSION_S = 12 * 3600
"""How long a sign-in by such a link lasts."""

FOR_EVER = 2**62

UNKNOWN = "This token is not one of ours, or its time is over"


class Wish(Frozen):
    """A token that is asked for. `edits` with `submit`, `generation_id` with `generation`; `origin` binds it to a page's."""

    purpose: Purpose
    generation_id: Annotated[str, Field(max_length=100)] | None = None
    edits: Annotated[int, Field(ge=1, le=1000)] = 1
    origin: Annotated[str, Field(pattern=r"^https?://[^/\s]+$", max_length=300)] | None = None
    expires_in_s: Annotated[int, Field(ge=1, le=LONGEST_S)] = 300


class Token(Frozen):
    """What a token says, beside its signature. `key` names the key that it was made with."""

    id: str
    tenant: str
    key: str
    purpose: Purpose | Literal["session"]
    generation_id: str | None = None
    origin: str | None = None
    until: int


class Holder(Frozen):
    """The caller that a token stands for, and its tenant."""

    token: Token
    caller: access.Caller


class Tokens:
    """Makes and reads tokens; `key` signs them."""

    def __init__(self, key: bytes, keys: Keys, ledger: call.AsyncLedger, now: Callable[[], float] = time.time) -> None:
        self._key = key
        self._keys = keys
        self._ledger = ledger
        self._now = now

    async def make(self, wish: Wish, caller: access.Caller) -> tuple[str, Token]:
        """A token for a caller to give away. Raises `errors.ForbiddenError` for more than the caller may, and others."""
        if wish.purpose == "generation" and not wish.generation_id:
            raise errors.InvalidInputError(
                "generation_id is required for a token of one generation", field="generation_id"
            )
        if wish.purpose == "page" and caller.until is not None:
            raise errors.ForbiddenError("A page makes no other page's link: that takes a key")
        caller.check("submit" if wish.purpose == "submit" else "read")
        token = Token(
            id=secrets.token_urlsafe(12),
            tenant=caller.tenant,
            key=caller.name,
            purpose=wish.purpose,
            generation_id=wish.generation_id if wish.purpose == "generation" else None,
            origin=wish.origin,
            until=min(round(self._now()) + wish.expires_in_s, caller.until or FOR_EVER),
        )
        if wish.purpose in ("submit", "page"):
            edits = wish.edits if wish.purpose == "submit" else 1
            await self._ledger.run(ledger_access.allow_edits(token.id, edits, seconds=wish.expires_in_s))
        return self._signed(token), token

    async def sign_in(self, text: str, origin: str | None) -> tuple[str, Token]:
        """What a page goes on with whose link signs in once: all that the key may, for half a day.

        Raises `errors.UnauthenticatedError`, and as `holder_of`.
        """
        holder = await self.holder_of(text, origin)
        if holder.token.purpose != "page" or not await self._ledger.run(ledger_access.use_once(holder.token.id)):
            raise errors.UnauthenticatedError("This link was used before, or is not one that signs in")
        until = round(self._now()) + SESSION_S
        # Browsers name no origin where they read from their own.
        changes = {"id": secrets.token_urlsafe(12), "purpose": "session", "origin": None, "until": until}
        session = holder.token.model_copy(update=changes)
        return self._signed(session), session

    def _signed(self, token: Token) -> str:
        payload = _text(token.model_dump_json(exclude_none=True).encode())
        return f"{PREFIX}{payload}.{self._signature(payload)}"

    async def holder_of(self, text: str, origin: str | None) -> Holder:
        """Who shows this token, on a page of this origin.

        Raises `errors.UnauthenticatedError`, `errors.ForbiddenError` and `errors.StoreUnavailableError`.
        """
        payload, _, signature = text.removeprefix(PREFIX).partition(".")
        if not hmac.compare_digest(self._signature(payload).encode(), signature.encode()):
            raise errors.UnauthenticatedError(UNKNOWN)
        try:
            token = Token.model_validate_json(base64.urlsafe_b64decode(payload + "=="))
        except (ValidationError, binascii.Error, ValueError):
            raise errors.UnauthenticatedError(UNKNOWN) from None
        if token.until < self._now():
            raise errors.UnauthenticatedError(UNKNOWN)
        if token.origin is not None and token.origin != origin:
            raise errors.ForbiddenError("This token is for pages of another origin")
        caller = await self._keys.named(token.key, token.tenant)
        if token.purpose == "session":
            # Keys are made with keys alone.
            scopes = tuple(scope for scope in caller.rights.scopes if scope != "admin")
            rights = caller.rights.model_copy(update={"scopes": scopes})
            return Holder(token=token, caller=caller.model_copy(update={"until": token.until, "rights": rights}))
        # A token of another page's is not valid here.
        rights = caller.rights.model_copy(update={"unfiltered": False})
        return Holder(
            token=token, caller=caller.model_copy(update={"token_id": token.id, "until": token.until, "rights": rights})
        )

    async def check_generation(self, holder: Holder, id_: str) -> None:
        """Whether a holder may see a generation. Raises `errors.NotFoundError` as for another tenant's."""
        token = holder.token
        allowed = token.purpose == "events" or token.generation_id == id_
        if not allowed and token.purpose == "submit":
            allowed = await self._ledger.run(ledger_access.is_edit_of(token.id, id_))
        if not allowed:
            raise errors.NotFoundError

    async def check_own(self, caller: access.Caller, id_: str) -> None:
        """Whether a caller may build on a generation: with a token, on those alone that came of it.

        Raises `errors.NotFoundError`.
        """
        if caller.token_id is not None and not await self._ledger.run(ledger_access.is_edit_of(caller.token_id, id_)):
            raise errors.NotFoundError

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._key, payload.encode(), hashlib.sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
