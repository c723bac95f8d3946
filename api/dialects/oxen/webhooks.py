"""What became of a tenant's webhooks, whichever API asked for them; and calling one once more."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from api.dialects.oxen import contract
from api.http.access import ResourcesDep, Tenant
from storage.ledger import webhooks

router = APIRouter(prefix="/api/ai/webhooks", tags=["oxen"], responses=contract.PROBLEMS)


@router.get("", responses=contract.WEBHOOK_CALLS)
async def list_(
    resources: ResourcesDep,
    tenant: Tenant,
    generation_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """The last calls (a thousand are kept, for eight days), the latest first; times in seconds since 1970."""
    attempts = await resources.ledger.run(webhooks.attempts(tenant, generation_id=generation_id, limit=limit))
    told = [
        {
            "at": one.at_ms / 1000,
            "generation_id": one.generation_id,
            "moment": one.moment,
            "attempt": one.attempt,
            "outcome": one.outcome,
            "duration_ms": one.took_ms,
            "next_at": None if one.next_ms is None else one.next_ms / 1000,
        }
        for one in attempts
    ]
    return JSONResponse({"calls": told})


@router.post("/{generation_id}/redeliver", status_code=202, responses=contract.WEBHOOK_DUE)
async def redeliver(generation_id: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Call the webhook of a generation that is over once more, with all its tries."""
    await resources.ledger.run(webhooks.redeliver(generation_id, tenant))
    return JSONResponse({"status": "due", "generation_id": generation_id}, status_code=202)
