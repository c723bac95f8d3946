"""A batch: many edits that one request asks for, accepted at once and submitted as room is left for them."""

import enum
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from storage.contracts import submissions
from storage.contracts.values import Frozen

MAX_LINES = 10_000
"""Of one batch."""

MAX_CUSTOM_ID = 200
"""Characters of what a caller calls a line."""

_NAMESPACE = uuid.UUID("5d4f2a52-6a3c-4a55-9c9d-0c8f7d7f6d11")


class Phase(enum.StrEnum):
    """What is being done with it: lines are submitted, are under way, are cancelled, or those that failed are retried."""

    SUBMITTING = "submitting"
    RUNNING = "running"
    CANCELLING = "cancelling"
    RETRYING = "retrying"
    OVER = "over"


class Fault(Frozen):
    """Why a line was not accepted."""

    code: str
    message: str
    field: str | None = None


class Line(Frozen):
    """One edit of a batch, by the name that its caller gave it: a submission, or why it is none.

    Once all are submitted, neither is kept of those that were accepted.
    """

    custom_id: Annotated[str, Field(max_length=MAX_CUSTOM_ID)]
    submission: submissions.Submission | None = None
    fault: Fault | None = None


def generation_id(batch_id: str, custom_id: str) -> str:
    """The generation that a line becomes: always the same, so that it becomes one only."""
    return str(uuid.uuid5(_NAMESPACE, f"{batch_id}/{custom_id}"))


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A ledger record as it was at one moment. Counts are of lines; times in milliseconds since 1970.

    Of `total` lines `refused` were no edits; of the others `submitted` became generations, and `skipped` never will, since the
    batch was cancelled before. `caller` names the key that they are submitted with; `cursor` is the next line to which is done
    what `phase` says.
    """

    id: str
    tenant: str
    caller: str
    name: str
    phase: Phase
    cursor: int
    total: int
    refused: int
    submitted: int
    skipped: int
    succeeded: int
    failed: int
    cancelled: int
    created_ms: int
    completed_ms: int | None
    is_cancelled: bool
    webhook: submissions.Webhook | None

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> "Batch":
        """Decode the hash the ledger keeps."""
        counts = ("cursor", "total", "refused", "submitted", "skipped", "succeeded", "failed", "cancelled")
        webhook = record.get("webhook")
        return cls(
            id=record["id"],
            tenant=record["tenant"],
            caller=record["caller"],
            name=record["name"],
            phase=Phase(record["phase"]),
            created_ms=int(record["created_ms"]),
            completed_ms=int(record["completed_ms"]) if "completed_ms" in record else None,
            is_cancelled="stopped" in record,
            webhook=submissions.Webhook.model_validate_json(webhook, extra="ignore") if webhook else None,
            **{name: int(record.get(name, 0)) for name in counts},
        )

    @property
    def accepted(self) -> int:
        """Lines that are edits."""
        return self.total - self.refused

    @property
    def over(self) -> int:
        """Of those, what is over; what never began counts as cancelled."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def unfinished(self) -> int:
        """Generations that are under way."""
        return self.submitted + self.skipped - self.over

    @property
    def folder(self) -> str:
        """Prefix of its objects."""
        return folder_of(self.tenant, self.id)

    @property
    def lines_key(self) -> str:
        """The object of its lines, JSON each."""
        return f"{self.folder}lines.jsonl"

    def results_key(self, extension: str) -> str:
        """The object of its manifest, `jsonl` or `csv`."""
        return f"{self.folder}results.{extension}"


def folder_of(tenant: str, id_: str) -> str:
    """Where a batch's objects lie."""
    return f"batches/{tenant}/{id_}/"
