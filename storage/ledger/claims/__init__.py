"""What a worker does with a generation: claim it, renew its lease, publish its result, record its failure, hand it back."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from storage.contracts import edits, errors, generations, results, samples, submissions
from storage.ledger.call import Call


@dataclass(frozen=True, kw_only=True)
class Claimant:
    """A worker: its name and where it is."""

    worker: str
    gpu_type: str = "cpu"
    region: str = "local"

    def target(self, model: str) -> samples.Target:
        """What a sample of this worker's is noted for."""
        return samples.Target(model=model, gpu_type=self.gpu_type, region=self.region)


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A generation was taken whose record this version cannot read; it is to be handed back (`release_unreadable`)."""

    id: str
    token: int
    queue: str


@dataclass(frozen=True, kw_only=True)
class Deferred:
    """Nothing is to be claimed yet: what waits on `queue` is left to others for a moment."""

    queue: str


def claim(
    claimant: Claimant,
    lease_ms: int,
    queues: Sequence[str],
    *,
    preferred: int | None = None,
    patience_ms: int = 0,
    deferred: int = 0,
    deferral_ms: int = 0,
    newest: int = edits.RECORD_VERSION,
    slow_tenants: Collection[str] = (),
) -> Call[generations.Claim | Deferred | Unreadable | None]:
    """Take the next generation of the first of these queues that has one.

    Only the first `preferred` are served before one of the others in which somebody has waited longer than `patience_ms`.
    The last `deferred` are served only when somebody has waited there for `deferral_ms`. Records of a version beyond `newest` are
    left to others, and so is what the `slow_tenants` have whose pictures are fetched from a server that they named.
    """

    def decode(reply: list[Any] | None) -> generations.Claim | Deferred | Unreadable | None:
        if not reply:
            return None
        if reply[0] == "deferred":
            return Deferred(queue=reply[1])
        id_, tenant, token, attempt, limit_s, recorded, waited_ms, queue, trace = reply
        try:
            return generations.Claim(
                id=id_,
                tenant=tenant,
                token=token,
                attempt=attempt,
                execution_limit_s=float(limit_s),
                edit=submissions.recorded_edit(recorded),
                waited_ms=int(waited_ms),
                queue=queue,
                trace=trace,
            )
        except ValueError:
            return Unreadable(id=id_, token=token, queue=queue)

    first = len(queues) if preferred is None else preferred
    who = (claimant.worker, claimant.gpu_type, claimant.region)
    left = json.dumps([*slow_tenants])
    return Call(
        script="claim",
        arguments=(*who, lease_ms, first, patience_ms, deferred, deferral_ms, newest, left, *queues),
        decode=decode,
    )


def beat(
    claim: generations.Claim,
    lease_ms: int,
    step: int,
    phase: generations.Phase,
    *,
    loaded_percent: int = 0,
    preview: str = "",
) -> Call[bool]:
    """Renew the lease and report `step` steps done, how much of the model is loaded, and how it looks (a data URI).

    False: the claim is lost, stop working.
    """
    arguments = (claim.id, claim.token, lease_ms, step, claim.edit.steps, phase.value, loaded_percent, preview)
    return Call(script="beat", arguments=arguments, decode=lambda reply: reply == "held")


def finish(
    claim: generations.Claim, result: results.Result, target: samples.Target, sample: samples.Sample
) -> Call[bool | None]:
    """Publish the result and note what it took. False: the claim is lost, the result is nobody's.

    None: the generation was erased, or published by an earlier try whose answer was lost, and archived since.
    """
    kept_ms = int(results.RESULT_LIFETIME.total_seconds() * 1000)
    noted = (target.name, sample.model_dump_json(exclude_defaults=True), sample.pixels, sample.execute_ms)
    cost = round((result.cost_usd or 0) * 1_000_000)
    arguments = (
        claim.id,
        claim.token,
        result.model_dump_json(exclude_defaults=True),
        kept_ms,
        claim.edit.steps,
        *noted,
        cost,
    )
    published = {"done": True, "lost": False, "gone": None}
    return Call(script="finish", arguments=arguments, decode=published.__getitem__)


def fail(
    claim: generations.Claim,
    error: errors.DarkroomError,
    *,
    rest_s: float | None,
    max_attempts: int,
    target: samples.Target | None = None,
    sample: samples.Sample | None = None,
    max_losses: int | None = None,
) -> Call[Literal["failed", "queued", "lost"]]:
    """End it as failed, or queue it again after `rest_s` seconds while attempts are left; None never tries again.

    With `max_losses` it took its worker down, which may happen so often.
    """
    rest_ms = -1 if rest_s is None else int(rest_s * 1000)
    facts = {**(error.details or {}), **({"field": error.field} if error.field else {})}
    details = json.dumps(facts) if facts else ""
    noted = (target.name, sample.model_dump_json(exclude_defaults=True)) if target and sample else ("", "")
    arguments = (
        claim.id,
        claim.token,
        error.code,
        error.message,
        rest_ms,
        max_attempts,
        details,
        *noted,
        max_losses or "",
    )
    return Call(script="fail", arguments=arguments, decode=lambda reply: reply)


def release(claim: generations.Claim) -> Call[bool]:
    """Hand it back without counting the attempt. False: it was lost already."""
    return Call(script="release", arguments=(claim.id, claim.token, "", 0), decode=lambda reply: reply == "queued")


UNREADABLE_AT_MOST = 10
UNREADABLE_REST_MS = 2000
"""A record that a worker cannot read rests 2, 4, 8, … s, at most a minute, ten times: about six minutes for an upgrade to end."""


def release_unreadable(taken: Unreadable) -> Call[Literal["queued", "failed", "lost"]]:
    """Hand back what this version cannot read, without counting the attempt."""
    arguments = (taken.id, taken.token, UNREADABLE_AT_MOST, UNREADABLE_REST_MS)
    return Call(script="release", arguments=arguments, decode=lambda reply: reply)
