"""What a submission became when it was accepted."""

from dataclasses import dataclass

from storage.contracts import access, submissions


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """What was accepted, or with `replayed` was before. `is_served`: a worker for it is there just now.

    `submission` has its pictures stored, and the first generation's seed; `pace` is how its key stands against its rate, if it
    has one.
    """

    tenant: str
    submission: submissions.Submission
    ids: tuple[str, ...]
    cursor: str
    replayed: bool
    is_served: bool
    pace: access.Pace | None = None
