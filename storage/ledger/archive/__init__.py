"""Finished generations leave Redis for the object store, and come back to be changed.

A record lies at `records/<tenant>/<id>.json`, but is known there only by the tenant's index in Redis, which says so from the
moment that the record leaves. All generations of a request go together, since one's webhook speaks for all. What is written is
listed as expired beforehand, so that nothing is left behind by a process that dies; every step may be repeated.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from storage import keys
from storage.contracts import errors
from storage.contracts.values import Frozen
from storage.ledger.archive.lapses import Lapse
from storage.ledger.call import Call, table_of

AT_A_TIME = 100
"""Records that move together; one object tells when they go, instead of an entry in Redis for each."""

HOLD_S = 300.0
"""How long moving them may take: after that, what was written is deleted, and others try."""

LAST_WRITE_S = 200.0
"""How long after the begin of a move a write may begin, which takes the object store a minute at the most."""

EVENTS_KEPT_S = 3600
"""How long events of what is archived are replayed. A reader that comes back later is told to look at the list."""

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def key_of(tenant: str, id_: str) -> str | None:
    """Where a generation's record is archived; None: there is no generation of that name."""
    return _key(tenant, id_) if _ID.fullmatch(id_) else None


def _key(tenant: str, id_: str) -> str:
    return f"records/{tenant}/{id_}.json"


class Archived(Frozen):
    """A record as it lies in the object store: the ledger's fields, and when what goes with it is to be deleted (ms since 1970).

    `results_until_ms` None: its result is gone already, or never was; `erase_ms` is when all of it was agreed to be erased;
    `inputs_until_ms` and `uses` are of the inputs that its request's generations share.
    """

    version: Literal[1] = 1
    record: dict[str, str]
    until_ms: int
    results_until_ms: int | None = None
    erase_ms: int | None = None
    inputs_until_ms: int | None = None
    uses: Annotated[int, Field(ge=0)] = 0

    @property
    def id(self) -> str:
        """The generation's."""
        return self.record["id"]

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.record["tenant"]

    @property
    def key(self) -> str:
        """Of its object."""
        return _key(self.tenant, self.id)

    @property
    def siblings(self) -> Sequence[str]:
        """Ids of the others of its request."""
        return [one for one in self.record.get("siblings", "").split() if one != self.id]

    @classmethod
    def read(cls, body: bytes) -> "Archived":
        """Raises `ValueError`."""
        return cls.model_validate_json(body, extra="ignore")

    def encoded(self) -> bytes:
        """Its object."""
        return self.model_dump_json(exclude_none=True).encode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """All generations of a request, each with a stamp of the record as it was read; nobody else moves them until `held` (ms)."""

    archived: tuple[Archived, ...]
    stamps: tuple[str, ...]
    held: str

    def lapses(self) -> Iterable[Lapse]:
        """What is to be deleted of it and when: the results, and at the end the rest."""
        for one in self.archived:
            named = {"tenant": one.tenant, "id": one.id, "sequence": one.record["sequence"], "until_ms": one.until_ms}
            if one.results_until_ms is not None:
                due_ms = one.results_until_ms
                yield Lapse(**named, due_ms=due_ms, prefixes=(one.record["results"],), is_end=False)
            inputs = () if one.inputs_until_ms is None else (one.record["inputs"],)
            # Of its results, too: a worker may have stored one after they had been deleted.
            prefixes = (*inputs, one.record["results"], one.key)
            yield Lapse(**named, due_ms=one.until_ms, prefixes=prefixes, is_end=True, erase=one.erase_ms is not None)


def archivable(
    *, after_s: float, gather_s: float, lists: Sequence[str], hold_s: float = HOLD_S
) -> Call[tuple[Request, ...]]:
    """Requests that are over since `after_s`; fewer than `AT_A_TIME` only when the first has waited for `gather_s` beyond that.

    `lists` are the keys of objects that will be written for them. For `hold_s` nobody else gets them.
    """

    def decode(reply: list[Any]) -> tuple[Request, ...]:
        return tuple(_request(*one) for one in reply)

    arguments: tuple[str | int, ...] = (
        int(after_s * 1000),
        int(gather_s * 1000),
        AT_A_TIME,
        int(hold_s * 1000),
        *lists,
    )
    return Call(script="archivable", arguments=arguments, decode=decode)


def _request(
    tenant: str, inputs: str, inputs_until: str, uses: int, told: Sequence[Sequence[Any]], held: str
) -> Request:
    # What they share stays until the last of them goes, and so do all.
    ends = [int(table_of(flat)["completed_ms"]) for *_, flat in told]
    usual_ms = max(ends) + keys.LIFETIMES_S["record"] * 1000

    def archived(results_until: str, erase: str, flat: Sequence[str]) -> Archived:
        record = table_of(flat)
        return Archived(
            record=record,
            until_ms=int(float(erase)) if erase else usual_ms,
            results_until_ms=int(float(results_until)) if results_until else None,
            erase_ms=int(float(erase)) if erase else None,
            inputs_until_ms=int(float(inputs_until)) if inputs and inputs_until else None,
            uses=uses,
        )

    return Request(
        archived=tuple(archived(results_until, erase, flat) for _, results_until, erase, flat in told),
        stamps=tuple(stamp for stamp, *_ in told),
        held=held,
    )


def archived(requests: Sequence[Request], lists: Mapping[str, int]) -> Call[tuple[bool, ...]]:
    """These requests lie in the object store now, and so do `lists`, each due at a time in ms: their records leave.

    False for each that changed meanwhile, which stays.
    """
    arguments = {
        "lists": [{"key": key, "due_ms": due_ms} for key, due_ms in lists.items()],
        "requests": [
            [
                {
                    "tenant": one.tenant,
                    "id": one.id,
                    "sequence": one.record["sequence"],
                    "stamp": stamp,
                    "until_ms": one.until_ms,
                }
                for one, stamp in zip(request.archived, request.stamps, strict=True)
            ]
            for request in requests
        ],
        "held": requests[0].held if requests else "",
        "events_ms": EVENTS_KEPT_S * 1000,
    }
    return Call(script="archived", arguments=(json.dumps(arguments),), decode=lambda reply: tuple(map(bool, reply)))


def let_go(requests: Sequence[Request]) -> Call[tuple[bool, ...]]:
    """These requests were not written, or not all of them: others may move them at once."""
    return archived([dataclasses.replace(one, stamps=("",) * len(one.stamps)) for one in requests], {})


def is_archived(generation: Archived) -> Call[bool]:
    """Whether the record that lies in the object store is the generation's, and not that of an earlier end."""
    return Call(
        script="is_archived",
        arguments=(generation.tenant, generation.record["sequence"], generation.id, generation.until_ms),
        decode=bool,
    )


def restore(request: Sequence[Archived], *, max_bytes: int | None = None) -> Call[int]:
    """Bring a request's records back; how many are here now.

    `max_bytes` is how many bytes of records the tenant may have here. Raises `errors.TooManyActiveError` beyond that.
    """
    first = request[0]
    arguments = {
        "inputs": first.record.get("inputs"),
        "inputs_until_ms": first.inputs_until_ms,
        "uses": first.uses,
        "records": [
            one.model_dump(exclude_none=True, include={"record", "results_until_ms", "erase_ms", "until_ms"})
            for one in request
        ],
    }
    told = json.dumps({name: value for name, value in arguments.items() if value is not None})

    def decode(reply: list[Any]) -> int:
        if reply[0] == "heavy":
            raise too_heavy(reply[1], max_bytes)
        return int(reply[1])

    return Call(script="restore", arguments=(first.tenant, told, max_bytes or ""), decode=decode)


def too_heavy(size: int, most: int | None) -> errors.TooManyActiveError:
    """Why no more of a tenant's records are taken."""
    of = "" if most is None else f"; at most {most / 2**20:.1f} may be"
    message = f"{size / 2**20:.1f} MiB of requests are unfinished, or ended a few minutes ago{of}"
    return errors.TooManyActiveError(message, retry_after=5.0)


def adopt(cursor: str, *, limit: int = 500) -> Call[str]:
    """Note finished generations of a release before; where to go on, `0` at the end."""
    return Call(script="adopt", arguments=(cursor, limit), decode=str)
