"""What went wrong, in the words of the route's dialect."""

import logging
from collections.abc import Awaitable, Callable

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from api.dialects import oxen
from api.http import queries
from api.http.hangups import HUNG_UP, HungUpError
from api.http.turns import hold_refusal
from api.spoken import DIALECTS
from storage.contracts import errors, parameters

log = logging.getLogger(__name__)


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    """An error in the words of the route's dialect, or of the native API where it has none."""
    tags = getattr(request.scope.get("route"), "tags", None) or ["oxen"]
    return DIALECTS.get(str(tags[0]), oxen.DIALECT).problem(request, error)


async def _known_fault(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, errors.DarkroomError)  # noqa: S101  (registered for this class only)
    if isinstance(exc, errors.TransientError):
        log.warning("%s %r: %s", request.method, request.url.path, exc)
    if isinstance(exc, errors.TooManyRequestsError | errors.TooManyActiveError):
        await hold_refusal(request)
    return _problem(request, exc)


async def _hung_up(request: Request, exc: Exception) -> Response:
    return Response(status_code=HUNG_UP)


async def _bad_parameter(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101  (registered for this class only)
    wrong = exc.errors()
    first = wrong[0]
    # The first is where it stands: in the query, a header or the body.
    where, *names = map(str, first["loc"])
    # Beside a query's name stands which of its types was tried.
    names = names if where == "body" else names[:1]
    same = [one for one in wrong if one["loc"][: len(names) + 1] == first["loc"][: len(names) + 1]]
    constraints = {one.alias: one.field_info.metadata for one in queries.declared(request.scope["route"].dependant)}
    reasons = [parameters.sentence(one, constraints.get("".join(names), ())) for one in same]
    field = ".".join(names) or "body"
    message = f"{field}: {' or '.join(dict.fromkeys(reasons))}; got {str(first.get('input'))[:80]!r}"
    return _problem(request, errors.InvalidInputError(message, field=field))


async def _http_fault(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101  (registered for this class only)
    if exc.status_code == 404:
        return _problem(request, errors.NotFoundError(f"There is no route {request.method} {request.url.path}"))
    error, headers = errors.InvalidInputError(f"{exc.detail}"), exc.headers or {}
    if exc.status_code == 405:
        allowed = _methods(request)
        error = errors.InvalidInputError(f"{request.method} is not for {request.url.path}; allowed: {allowed}")
        headers = {"Allow": allowed}
    answer = _problem(request, error)
    answer.status_code = exc.status_code
    answer.headers.update(headers)
    return answer


def _methods(request: Request) -> str:
    """Those that some route takes for this path."""

    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    return ", ".join(filter(is_taken, ("DELETE", "GET", "PATCH", "POST", "PUT")))


async def unforeseen(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for what nothing else does."""
    request = Request(scope, receive)
    await _problem(request, errors.InternalError("Something went wrong on our side"))(scope, receive, send)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    errors.DarkroomError: _known_fault,
    HungUpError: _hung_up,
    RequestValidationError: _bad_parameter,
    HTTPException: _http_fault,
}
"""What answers for each kind of exception that a route raises."""
