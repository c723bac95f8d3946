"""Webhooks that are due, and what came of calling them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import batches, errors, generations, submissions
from storage.ledger.call import Call, table_of

EARLY_TRIES = 8
"""Calls that fit into the time that a generation is kept which is erased early."""


@dataclass(frozen=True, kw_only=True)
class DueWebhook:
    """A webhook to be called now, after `tries` that came to nothing; nobody else gets it before `held_until`."""

    moment: submissions.Moment | Literal["batch"]
    tries: int
    held_until: str
    record: Mapping[str, str]

    @property
    def id(self) -> str:
        """The generation's, or of the moment `batch` the batch's."""
        return self.record["id"]

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.record["tenant"]

    @property
    def is_here(self) -> bool:
        """Whether its record is known; otherwise it is archived, or gone."""
        return "status" in self.record or "phase" in self.record

    @property
    def longest_rest_s(self) -> float:
        """For how long a call may be put off at the most: what is erased early is to be told of before."""
        return float("inf") if "keep_ms" not in self.record else int(self.record["keep_ms"]) / 1000 / EARLY_TRIES

    @property
    def generation(self) -> generations.Generation:
        """Raises `ValueError` for a record that this version cannot read."""
        return generations.Generation.from_record(self.record, None)

    @property
    def batch(self) -> batches.Batch:
        """Raises `ValueError` for a record that this version cannot read."""
        return batches.Batch.from_record(self.record)

    @property
    def webhook(self) -> submissions.Webhook | None:
        """What is to be called. Raises as `generation`."""
        return self.batch.webhook if self.moment == "batch" else self.generation.submission.webhook


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of one tenant `most` webhooks are called at a time, and only `few` while the caller calls `busy` or more."""

    most: int = 16
    few: int = 16
    busy: int = 16


def due(
    *, held_ms: int, limit: int = 16, share: Share = Share(), calling: Sequence[str] = ()
) -> Call[tuple[DueWebhook, ...]]:
    """Webhooks that are due, `limit` at the most, of tenants in turn; nobody else gets them for a while.

    `calling` names the tenant of each that the caller is calling already; those count to its tenant's `share`.
    """

    def decode(reply: list[Any]) -> tuple[DueWebhook, ...]:
        return tuple(
            DueWebhook(moment=moment, tries=tries, held_until=held_until, record=table_of(flat))
            for moment, tries, held_until, flat in reply
        )

    arguments: tuple[str | int, ...] = (held_ms, limit, share.most, share.few, share.busy, *calling)
    return Call(script="due", arguments=arguments, decode=decode)


def called(webhook: DueWebhook, *, again_ms: int | None, outcome: str, took_ms: int) -> Call[int]:
    """A webhook was called, which is noted for its tenant; None: it is done with.

    0: it became due anew meanwhile, and stays so.
    """
    again = -1 if again_ms is None else again_ms
    arguments = (webhook.id, webhook.moment, again, outcome, webhook.held_until, took_ms, webhook.tenant)
    return Call(script="called", arguments=arguments, decode=int)


def put_off(webhook: DueWebhook, *, by_s: float) -> Call[int]:
    """Call a webhook later, without counting a try; 0: it became due anew meanwhile, and stays so."""
    arguments = (int(by_s * 1000), webhook.tenant, f"{webhook.id}/{webhook.moment}", webhook.held_until)
    return Call(script="put_off", arguments=arguments, decode=int)


@dataclass(frozen=True, kw_only=True)
class SecretVersions:
    """Which of a tenant's webhook secrets holds, counted from 0, and earlier ones with until when (ms since 1970) they do."""

    current: int
    earlier: tuple[tuple[int, int], ...]


def secret_versions(tenant: str) -> Call[SecretVersions]:
    """Which of a tenant's webhook secrets hold."""
    return _secrets(tenant, "")


def rotate_secret(tenant: str, *, overlap_s: float) -> Call[SecretVersions]:
    """Sign a tenant's webhooks with another secret from now on, for `overlap_s` with the present one, too.

    Raises `errors.TooManyRequestsError` when decoded, while four earlier ones hold.
    """
    return _secrets(tenant, int(overlap_s * 1000))


def _secrets(tenant: str, overlap_ms: int | str) -> Call[SecretVersions]:
    def decode(reply: Any) -> SecretVersions:
        if isinstance(reply, str):
            message = "So many earlier webhook secrets hold that no other is made until one of them ends"
            raise errors.TooManyRequestsError(message, retry_after=max(1.0, int(reply) / 1000 - time.time()))
        current, *earlier = reply
        return SecretVersions(current=current, earlier=tuple((version, int(until)) for version, until in earlier))

    return Call(script="webhook_secrets", arguments=(tenant, overlap_ms), decode=decode)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A call of a webhook: for which generation and moment, the how manieth, what came of it and how long that took.

    Times in milliseconds since 1970; `next_ms` None: it was the last.
    """

    at_ms: int
    generation_id: str
    moment: str
    attempt: int
    outcome: str
    took_ms: int
    next_ms: int | None


def attempts(tenant: str, *, generation_id: str | None = None, limit: int = 100) -> Call[tuple[Attempt, ...]]:
    """The last calls of a tenant's webhooks, the latest first."""

    def decode(reply: list[Any]) -> tuple[Attempt, ...]:
        return tuple(_attempt(int(id_.partition("-")[0]), table_of(fields)) for id_, fields in reply)

    return Call(script="webhook_log", arguments=(tenant, limit, generation_id or ""), decode=decode)


def redeliver(id_: str, tenant: str) -> Call[None]:
    """Call a terminal generation's webhook once more.

    Raises `errors.NotFoundError` and `errors.InvalidInputError` when decoded.
    """

    def decode(reply: str) -> None:
        if reply == "missing":
            raise errors.NotFoundError
        if reply == "none":
            raise errors.InvalidInputError("It has no webhook for its end, or is not over yet", field="generation_id")

    return Call(script="redeliver", arguments=(id_, tenant), decode=decode)


def _attempt(at_ms: int, entry: Mapping[str, str]) -> Attempt:
    return Attempt(
        at_ms=at_ms,
        generation_id=entry["id"],
        moment=entry["moment"],
        attempt=int(entry["try"]),
        outcome=entry["outcome"],
        took_ms=int(entry["took_ms"]),
        next_ms=int(entry["next_ms"]) if entry["next_ms"] else None,
    )
