"""Errors as HTTP: the only place that knows which status an error has. Each dialect writes its own body."""

import math
from typing import Any

from api.http import remarks
from storage.contracts import errors

STATUSES: dict[type[errors.DarkroomError], int] = {
    errors.InvalidInputError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.ModelNotFoundError: 404,
    errors.NotFoundError: 404,
    errors.BudgetExceededError: 402,
    errors.CancelledError: 409,
    errors.PayloadTooLargeError: 413,
    errors.IdempotencyConflictError: 422,
    errors.InputUnreachableError: 422,
    errors.ContentFilteredError: 422,
    errors.TooManyActiveError: 429,
    errors.TooManyRequestsError: 429,
    errors.WorkerLostError: 500,
    errors.GpuFaultError: 500,
    errors.OutOfMemoryError: 503,
    errors.ModelUnavailableError: 503,
    errors.RestartingError: 503,
    errors.StoreUnavailableError: 503,
    errors.StoreFullError: 503,
    errors.ObjectsUnavailableError: 503,
    errors.ExpiredInQueueError: 504,
    errors.TimedOutError: 504,
    errors.DeadlineExceededError: 504,
}


def responses() -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of routes: every status that an error has, with what it may mean."""
    titles: dict[int | str, list[str]] = {500: ["Something went wrong on our side"]}
    for kind, number in STATUSES.items():
        titles.setdefault(number, []).append(kind.title)
    return {
        number: {"description": "; ".join(dict.fromkeys(named))} for number, named in sorted(titles.items(), key=str)
    }


def status(error: errors.DarkroomError) -> int:
    """The HTTP status; 500 for what has none."""
    return STATUSES.get(type(error), 500)


def headers(error: errors.DarkroomError) -> dict[str, str]:
    """What belongs beside the status: when to come back, how to sign in."""
    if isinstance(error, errors.UnauthenticatedError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, errors.TransientError) and status(error) in (429, 503):
        seconds = max(1, round(error.retry_after))
        told = {}
        if isinstance(error, errors.TooManyRequestsError) and error.rate is not None:
            what, per_minute, full_s = error.rate
            told = remarks.rate(per_minute, 0, math.ceil(full_s), what=what)
        return {"Retry-After": str(seconds), **told}
    return {}
