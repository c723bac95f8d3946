"""What an operator holds back: nothing of a paused model, tenant or queue is claimed, while it is accepted as ever."""

from collections.abc import Iterable, Mapping
from typing import Literal

from storage.ledger.call import Call, table_of

Kind = Literal["model", "tenant", "queue"]


def pause(kind: Kind, name: str) -> Call[bool]:
    """Claim nothing of it; False: it was paused already."""
    return Call(script="pause", arguments=(f"{kind}:{name}", "pause"), decode=bool)


def resume(kind: Kind, name: str) -> Call[bool]:
    """Claim it again; False: it was not paused."""
    return Call(script="pause", arguments=(f"{kind}:{name}", "resume"), decode=bool)


def barrier() -> Call[int]:
    """Written so that a wait for replicas covers all that was written before."""
    return Call(script="barrier", arguments=(), decode=int)


def paused() -> Call[Mapping[str, int]]:
    """What is paused, as `model:…`, `tenant:…` or `queue:…`, with since when in milliseconds since 1970."""
    return Call(
        script="paused", arguments=(), decode=lambda reply: {one: int(at) for one, at in table_of(reply).items()}
    )


def holds(on_hold: Iterable[str], *, model: str, tenant: str, queue: str) -> bool:
    """Whether something of what is `on_hold` holds these back."""
    return not {f"model:{model}", f"tenant:{tenant}", f"queue:{queue}"}.isdisjoint(on_hold)
