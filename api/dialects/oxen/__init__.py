"""The native API, which is Oxen.ai's: queue, blocking edits, events, models.

`asking` translates requests, `answers` translates generations and errors, `stream` frames events, `routes` joins them.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse

from api import problems
from api.dialects import Dialect
from api.dialects.oxen.answers import problem
from api.dialects.oxen.routes import router
from storage.contracts import errors


def _problem(request: Request, error: errors.DarkroomError) -> JSONResponse:
    return JSONResponse(problem(error), status_code=problems.status(error), headers=problems.headers(error))


DIALECT = Dialect(
    name="oxen",
    router=router,
    problem=_problem,
    aim=(
        "export OXEN_API_KEY=<key>",
        'curl {url}/api/ai/queue -H "Authorization: Bearer $OXEN_API_KEY" …',
        'curl -N {url}/api/events -H "Authorization: Bearer $OXEN_API_KEY"',
    ),
)
