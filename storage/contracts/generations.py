"""A generation: one run of an edit, with an id, from the moment it is accepted to its one terminal state.

    queued ──claim──▶ processing ──▶ succeeded
      ▲ │                 │  │  └──▶ failed
      │ └──cancel──┐      │  └─────▶ cancelled
      │            ▼      │
      │        cancelled  │
      └── lease lost, transient failure, hand-back ──┘        (attempts left; otherwise failed)

A failed generation is queued again only when somebody asks for a retry of it.

`TRANSITIONS` is that drawing as a table. The ledger's scripts hold it; the tests compare the two.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from storage.contracts import edits, results, submissions


class Status(enum.StrEnum):
    """Where a generation is. The last three are terminal."""

    QUEUED = "queued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether it is over."""
        return self in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.PROCESSING, Status.FAILED, Status.CANCELLED}),
    Status.PROCESSING: frozenset({Status.QUEUED, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED}),
    Status.SUCCEEDED: frozenset(),
    Status.FAILED: frozenset({Status.QUEUED}),
    Status.CANCELLED: frozenset(),
}


class Phase(enum.StrEnum):
    """What a worker is doing with a generation: recorded, so that a lost worker leaves a trace."""

    PREPARING = "preparing"
    LOADING = "loading"
    EDITING = "editing"
    FINISHING = "finishing"


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """When things happened, by the ledger's clock, in milliseconds since 1970; None is not yet.

    `kept_s` seconds after completion everything about it is erased; None: its result is deleted after `results.RESULT_LIFETIME`.
    """

    created_ms: int
    started_ms: int | None = None
    completed_ms: int | None = None
    kept_s: float | None = None

    @property
    def delay_ms(self) -> int | None:
        """Milliseconds from acceptance to the (last) start."""
        return None if self.started_ms is None else self.started_ms - self.created_ms

    @property
    def expires_at(self) -> datetime | None:
        """When the result goes, to the second."""
        if self.completed_ms is None:
            return None
        kept = results.RESULT_LIFETIME if self.kept_s is None else timedelta(seconds=self.kept_s)
        return datetime.fromtimestamp(self.completed_ms // 1000, UTC) + kept


def _phase(recorded: str) -> Phase | None:
    # One that a newer release has is not shown.
    return next((phase for phase in Phase if phase == recorded), None)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A ledger record as it was at one moment.

    `submission` is the request it belongs to; its edit has this generation's seed. `position` is how many generations will be
    served before this one while it is queued, else None. `step` of `steps` denoising steps are done. `phase` is what its `worker`
    does with it; `loaded_percent` counts while that is loading the model. `siblings` are the ids of all generations of the same
    request, itself among them, when there are several. `gpu_type` and `region` are its worker's; `queue` is where it waits or
    waited; `group` is what its caller named; `ignored` names fields of the request that change nothing.
    """

    id: str
    tenant: str
    status: Status
    submission: submissions.Submission
    times: Timeline
    attempts: int
    step: int
    result: results.Result | None
    error_code: str | None
    error_message: str | None
    error_details: Mapping[str, object] | None
    position: int | None
    phase: Phase | None = None
    loaded_percent: int = 0
    siblings: tuple[str, ...] = ()
    worker: str | None = None
    gpu_type: str | None = None
    region: str | None = None
    queue: str = ""
    group: str | None = None
    ignored: tuple[str, ...] = ()
    trace: str = ""
    """As in `Claim`."""
    chain: tuple[str, ...] = ()
    """Queues that it may wait on, where there are several."""
    revived: int = 0
    """How often one of its request was retried after the end; of the request's first."""

    @classmethod
    def from_record(cls, record: Mapping[str, str], position: int | None) -> "Generation":
        """Decode the hash the ledger keeps."""
        result = record.get("result")
        return cls(
            id=record["id"],
            tenant=record["tenant"],
            status=Status(record["status"]),
            submission=submissions.Submission.from_record(record),
            times=Timeline(
                created_ms=int(record["created_ms"]),
                started_ms=int(record["started_ms"]) if "started_ms" in record else None,
                completed_ms=int(record["completed_ms"]) if "completed_ms" in record else None,
                kept_s=int(record["keep_ms"]) / 1000 if "keep_ms" in record else None,
            ),
            attempts=int(record["attempts"]),
            step=int(record.get("step", 0)),
            result=results.Result.model_validate_json(result, extra="ignore") if result else None,
            error_code=record.get("error_code"),
            error_message=record.get("error_message"),
            error_details=json.loads(record["error_details"]) if record.get("error_details") else None,
            position=position,
            phase=_phase(record["phase"]) if record["status"] == Status.PROCESSING and "phase" in record else None,
            loaded_percent=int(record.get("loaded_percent", 0)),
            siblings=tuple(record.get("siblings", "").split()),
            worker=record.get("worker"),
            gpu_type=record.get("gpu_type"),
            region=record.get("region"),
            queue=record["queue"],
            group=record.get("group"),
            ignored=tuple(record.get("ignored", "").split()),
            trace=record.get("trace", ""),
            chain=tuple(record.get("chain", "").split()),
            revived=int(record.get("revived", 0)),
        )

    @property
    def edit(self) -> edits.Edit:
        """What is made."""
        return self.submission.edit

    @property
    def execution_ms(self) -> int | None:
        """Milliseconds the pipeline ran; for what failed, from its start to its end."""
        if self.result is not None:
            return self.result.execution_ms
        started, completed = self.times.started_ms, self.times.completed_ms
        return None if started is None or completed is None else completed - started

    def webhook_id(self, moment: submissions.Moment) -> str:
        """What identifies a call of its webhook: the same when it is repeated, another when the generation was retried."""
        at_ms = self.times.completed_ms if moment == "completed" else self.times.started_ms
        return f"{self.id}-{moment}-{at_ms}" + (f"-{self.revived}" if self.revived else "")

    @property
    def etag(self) -> str:
        """A weak validator that changes whenever a poll's answer would."""
        return f'W/"{self.status}-{self.attempts}-{self.phase}-{self.loaded_percent}-{self.step}-{self.position}"'


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A worker's right to run one generation: valid while the lease is, provable by the fencing `token`."""

    id: str
    tenant: str
    token: int
    attempt: int
    execution_limit_s: float
    edit: edits.Edit
    queue: str
    waited_ms: int = 0
    trace: str = ""
    """The span of the request it came with (`storage.traces`); empty where that is not recorded."""

    @property
    def result_key(self) -> str:
        """Where this attempt stores its picture; another attempt has another key, so a zombie overwrites nothing."""
        return f"results/{self.tenant}/{self.id}/{self.token}.{edits.EXTENSIONS[self.edit.output_format]}"
