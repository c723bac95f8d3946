"""Prompts that GPU workers have encoded by a worker of text encoders: asked for, taken, answered.

What is asked for names a claimed generation. Its prompts stay on its record, and what becomes of them goes through the object
store. Nothing here is needed to finish an edit: who gets no answer asks again, or encodes the prompts itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage import keys
from storage.contracts import edits, generations, submissions
from storage.ledger.call import Call

ENCODINGS_KEPT_S = 120.0
"""How long encoded prompts stay in the object store if the worker that asked for them does not delete them."""


def prefix_of(tenant: str, id_: str, token: int) -> str:
    """What the keys of a claim's encoded prompts begin with."""
    return f"encodings/{tenant}/{id_}/{token}/"


def key_of(prefix: str, number: int) -> str:
    """Where the encoding of an edit's prompt is stored: 0, and 1 is the negative one."""
    return f"{prefix}{number}.safetensors"


def reply_key(claim: generations.Claim) -> str:
    """The list on which a claim is answered: one entry, empty, or why its prompts cannot be encoded."""
    return f"{keys.ENCODED}{claim.id}/{claim.token}"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Prompts of a claim that are to be encoded; `edit` is None when this version cannot read the record."""

    id: str
    token: int
    tenant: str
    region: str
    model: str
    edit: edits.Edit | None

    @property
    def prefix(self) -> str:
        """Where they go."""
        return prefix_of(self.tenant, self.id, self.token)


def keep(wanted: Wanted) -> Call[int]:
    """They are encoded and about to be stored; what nobody fetches is deleted after a while."""
    place = (wanted.region, wanted.model)
    arguments = (wanted.id, wanted.token, *place, wanted.prefix, int(ENCODINGS_KEPT_S * 1000))
    return Call(script="keep_encoding", arguments=arguments, decode=int)


def ask(claim: generations.Claim, region: str) -> Call[bool]:
    """Ask for a claim's prompts to be encoded in a region. False: the claim is lost."""
    arguments = (claim.id, claim.token, region)
    return Call(script="ask_encoding", arguments=arguments, decode=lambda reply: reply == "asked")


def withdraw(claim: generations.Claim, region: str) -> Call[int]:
    """Nobody waits for it any more."""
    return Call(script="withdraw_encoding", arguments=(claim.id, claim.token, region, claim.edit.model), decode=int)


def take(region: str, models: Sequence[str]) -> Call[Wanted | None]:
    """What has waited longest in a region, of the first of these models that has something."""

    def decode(reply: list[Any] | None) -> Wanted | None:
        if not reply:
            return None
        id_, token, tenant, model, recorded = reply
        try:
            edit = submissions.recorded_edit(recorded)
        except ValueError:
            edit = None
        return Wanted(id=id_, token=int(token), tenant=tenant, region=region, model=model, edit=edit)

    return Call(script="take_encoding", arguments=(region, *models), decode=decode)


def answer(wanted: Wanted, *, why_not: str = "") -> Call[int]:
    """They are stored, or cannot be encoded."""
    return Call(script="answer_encoding", arguments=(wanted.id, wanted.token, why_not), decode=int)
