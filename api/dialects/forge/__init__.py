"""Nebius Forge: a catalogue of models with what was measured of them on each GPU type, and one blocking route to run them.

`/v1/models` is OpenAI's path too: each record has what both clients read. `asking` translates requests, `catalogue` says what is
known of models, `routes` and `families` join them.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.base import Dialect
from api.dialects.forge import families, routes
from api.http import errors as http_errors
from storage.contracts import errors

router = APIRouter()
router.include_router(routes.router)
router.include_router(families.router)


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    kind = "invalid_request_error" if http_errors.status(error) < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.field, "code": error.code}
    status = http_errors.status(error)
    # Replicate's clients, which list models at the same path, read the rest.
    problem = {"type": "about:blank", "title": error.title, "status": status, "detail": error.message}
    return JSONResponse({"error": body, **problem}, status_code=status, headers=http_errors.headers(error))


DIALECT = Dialect(
    name="forge",
    router=router,
    problem=_problem,
    aim=(
        "export FORGE_API_BASE={url}",
        "export FORGE_API_KEY=<key>",
        'curl "$FORGE_API_BASE/v1/inference/flux-kontext-dev" -H "Authorization: Bearer $FORGE_API_KEY" '
        """-H "Content-Type: application/json" -d '{"prompt": "…", "image": "https://…"}'""",
    ),
)
