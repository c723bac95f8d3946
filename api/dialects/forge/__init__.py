"""Nebius Forge: a catalogue of models with what was measured of them on each GPU type, and one blocking route to run them.

`/v1/models` is OpenAI's path too: each record has what both clients read.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import problems
from api.dialects import Dialect
from api.dialects.forge.routes import router
from storage.contracts import errors


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    kind = "invalid_request_error" if problems.status(error) < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.field, "code": error.code}
    return JSONResponse(
        {"error": body, "detail": error.message}, status_code=problems.status(error), headers=problems.headers(error)
    )


DIALECT = Dialect(
    name="forge",
    router=router,
    problem=_problem,
    aim=(
        "export FORGE_API_BASE={url}",
        "export FORGE_API_KEY=<key>",
        'curl "$FORGE_API_BASE/v1/models/black-forest-labs-flux-2-dev/reliability" -H "Authorization: Bearer $FORGE_API_KEY"',
    ),
)
