"""What the client raises.

DarkroomError
├── UnreachableError     nobody answered
├── ApiError             the service answered with an error
│   └── RefusedError         a 4xx: the same request will be refused again, unless it is a 429
├── EditFailedError      the edit was accepted and failed
├── CancelledError       the edit was accepted and cancelled
└── GoneError            its result is deleted
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from darkroom.shapes import Generation


class DarkroomError(Exception):
    """The root."""


class UnreachableError(DarkroomError):
    """Nobody answered at `url`."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot reach {url}: {reason}")
        self.url = url
        self.reason = reason


class ApiError(DarkroomError):
    """The service answered with an error: HTTP `status`, its stable `code`, the `field` that is wrong, if one is.

    `retry_after_s` is when to ask again, where it says so; `request_id` finds the request in the service's log.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{message} ({code}, HTTP {status})")
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s
        self.request_id = request_id


class RefusedError(ApiError):
    """A 4xx."""


class EditFailedError(DarkroomError):
    """The edit was accepted and failed; `generation` says why."""

    def __init__(self, generation: "Generation") -> None:
        super().__init__(f"{generation.id} failed: {generation.error_message} ({generation.error_code})")
        self.generation = generation


class GoneError(DarkroomError):
    """The edit succeeded, and its result is deleted: its time was over."""

    def __init__(self, generation: "Generation") -> None:
        super().__init__(f"the result of {generation.id} is deleted: it was kept until {generation.expires_at}")
        self.generation = generation


class CancelledError(DarkroomError):
    """The edit was accepted and cancelled."""

    def __init__(self, generation: "Generation") -> None:
        super().__init__(f"{generation.id} was cancelled")
        self.generation = generation
