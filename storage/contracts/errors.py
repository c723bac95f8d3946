"""The one error tree. Each leaf is permanent or transient and has a stable code; its docstring is what it means.

    DarkroomError
    ├── PermanentError            asking again changes nothing
    │   ├── InvalidInputError         invalid_input
    │   │   ├── PayloadTooLargeError  payload_too_large
    │   │   └── ModelNotFoundError    model_not_found
    │   ├── UnauthenticatedError      unauthenticated
    │   ├── ForbiddenError            forbidden
    │   ├── NotFoundError             resource_not_found
    │   ├── IdempotencyConflictError  idempotency_conflict
    │   ├── BudgetExceededError       budget_exceeded
    │   ├── InputUnreachableError     input_unreachable
    │   ├── ExpiredInQueueError       expired_in_queue
    │   ├── ContentFilteredError      content_filtered
    │   ├── TimedOutError             timed_out
    │   ├── DeadlineExceededError     deadline_exceeded
    │   ├── CancelledError            cancelled
    │   └── InternalError             internal
    └── TransientError            asking again, after `retry_after` seconds, may work
        ├── RestartingError           restarting
        ├── StoreUnavailableError     store_unavailable
        ├── StoreFullError            store_full
        ├── ObjectsUnavailableError   objects_unavailable
        ├── TooManyActiveError        too_many_active
        ├── TooManyRequestsError      too_many_requests
        ├── OutOfMemoryError          out_of_memory
        ├── ModelUnavailableError     model_unavailable
        ├── GpuFaultError             gpu_fault
        └── WorkerLostError           worker_lost
The same codes appear in HTTP bodies, in failed generations and in events. HTTP statuses are the API's own business.
"""

from collections.abc import Mapping
from typing import ClassVar


class DarkroomError(Exception):
    """The root. `code` is stable and machine-readable; the message is a sentence for a person."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(self, message: str, *, field: str | None = None, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message[:2000])  # characters: it is recorded, and a caller's own words may stand in it
        self.message, self.field, self.details = str(self), field and field[:200], details


class PermanentError(DarkroomError):
    """Asking again with the same input gives the same answer."""


class TransientError(DarkroomError):
    """May work when asked again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidInputError(PermanentError):
    """A field is missing, unknown or outside its range; the message names it, its value and what is allowed."""

    code = "invalid_input"
    title = "Invalid parameters supplied, please check your request and try again."


class PayloadTooLargeError(InvalidInputError):
    """The body or the picture in it is larger than the service accepts."""

    code = "payload_too_large"
    title = "The request is too large"


class ModelNotFoundError(InvalidInputError):
    """The catalog has no model of this name."""

    code = "model_not_found"
    title = "The requested model could not be found"


class UnauthenticatedError(PermanentError):
    """No API key, or one that is not known."""

    code = "unauthenticated"
    title = "A valid API key is required"


class ForbiddenError(PermanentError):
    """The API key is known, and does not allow this."""

    code = "forbidden"
    title = "This API key does not allow that"


class NotFoundError(PermanentError):
    """No such thing for this tenant; what belongs to another tenant looks the same."""

    code = "resource_not_found"
    title = "The requested resource could not be found"

    def __init__(self, message: str = title, *, field: str | None = None) -> None:
        super().__init__(message, field=field)


class IdempotencyConflictError(PermanentError):
    """The idempotency key was used before with a different request."""

    code = "idempotency_conflict"
    title = "The idempotency key was used with another request"


class BudgetExceededError(PermanentError):
    """The tenant's budget for this month does not suffice for what is asked."""

    code = "budget_exceeded"
    title = "The budget does not suffice"


class InputUnreachableError(PermanentError):
    """A picture's URL could not be fetched, or may not be."""

    code = "input_unreachable"
    title = "The input could not be fetched"


class ExpiredInQueueError(PermanentError):
    """It waited longer than it was allowed to."""

    code = "expired_in_queue"
    title = "The generation waited too long"


class ContentFilteredError(PermanentError):
    """A filter refused the prompt, an input or the result; `details` is its verdict."""

    code = "content_filtered"
    title = "The content was filtered"


class TimedOutError(PermanentError):
    """It ran longer than it may; running it again would too."""

    code = "timed_out"
    title = "It took too long"


class DeadlineExceededError(PermanentError):
    """It was not over by the time its caller had set."""

    code = "deadline_exceeded"
    title = "The generation's deadline has passed"


class CancelledError(PermanentError):
    """The generation was cancelled before it finished."""

    code = "cancelled"
    title = "The generation was cancelled"


class InternalError(PermanentError):
    """A fault of the service; the log has the cause."""


class RestartingError(TransientError):
    """The process that was asked stops before what was waited for is over."""

    code = "restarting"
    title = "The service restarts"


class StoreUnavailableError(TransientError):
    """Redis does not answer in time."""

    code = "store_unavailable"
    title = "The service's store does not answer"

    outcome: object = None
    """Of what was executed and may be lost all the same: too few replicas have it."""


class StoreFullError(TransientError):
    """The store or the queue holds as much as it may."""

    code = "store_full"
    title = "The service is full"


class ObjectsUnavailableError(TransientError):
    """The object store does not answer, or refuses."""

    code = "objects_unavailable"
    title = "The object store does not answer"


class TooManyActiveError(TransientError):
    """The tenant has as many unfinished generations as it may have."""

    code = "too_many_active"
    title = "Too many unfinished generations"


class TooManyRequestsError(TransientError):
    """The API key submits more often than it may, or its tenant asks more often."""

    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after: float = 1.0, rate: tuple[str, int, float] | None = None) -> None:
        """`rate`: of what there were too many, how many a minute there may be, in how many seconds as many at once as ever."""
        super().__init__(message, retry_after=retry_after)
        self.rate = rate


class OutOfMemoryError(TransientError):
    """The GPU's memory did not suffice."""

    code = "out_of_memory"
    title = "The GPU ran out of memory"


class ModelUnavailableError(TransientError):
    """A worker could not load the model: its weights are missing, damaged or of another kind, or do not fit."""

    code = "model_unavailable"
    title = "The model could not be loaded"


class GpuFaultError(TransientError):
    """The GPU reported a fault after which its process can compute nothing more."""

    code = "gpu_fault"
    title = "The GPU failed"


class WorkerLostError(TransientError):
    """The worker died or went silent, as often as a generation may be attempted."""

    code = "worker_lost"
    title = "The worker was lost"


def _leaves(node: type[DarkroomError]) -> list[type[DarkroomError]]:
    children = node.__subclasses__()
    return [node, *(leaf for child in children for leaf in _leaves(child))]


BY_CODE: dict[str, type[DarkroomError]] = {leaf.code: leaf for leaf in reversed(_leaves(DarkroomError))}
"""Which error a stored code stands for."""
