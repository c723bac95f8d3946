"""The native API, which is Oxen.ai's: queue, blocking edits, events, models.

`asking` translates requests (`envelope`, `parameters`), `answers`, `models` and `account` what is told, `stream` frames events;
`queue`, `batches`, `events`, `routes`, `keys`, `tokens` and `webhooks` join them. `contract` is what OpenAPI says, in the
`shapes`.
"""

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse

from api.dialects.base import Dialect
from api.dialects.oxen import batches, events, keys, queue, routes, tokens, webhooks
from api.dialects.oxen.answers import problem
from api.http import errors as http_errors
from api.http.queries import known_only
from storage.contracts import errors

router = APIRouter()
# Libraries for event streams add parameters of their own.
router.include_router(events.router)
for strict in (queue, batches, routes, keys, tokens, webhooks):
    router.include_router(strict.router, dependencies=[Depends(known_only)])


def _problem(request: Request, error: errors.DarkroomError) -> JSONResponse:
    return JSONResponse(problem(error), status_code=http_errors.status(error), headers=http_errors.headers(error))


DIALECT = Dialect(
    name="oxen",
    router=router,
    problem=_problem,
    wording=webhooks.wording,
    batch_wording=webhooks.batch_wording,
    aim=(
        "export OXEN_API_KEY=<key>",
        'curl {url}/api/ai/queue -H "Authorization: Bearer $OXEN_API_KEY" …',
        'curl -N {url}/api/events -H "Authorization: Bearer $OXEN_API_KEY"',
    ),
)
