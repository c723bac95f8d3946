"""API keys made at run time: an operator's routes, for keys with the scope `admin`. A key itself is shown once."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import fields
from api.dialects.oxen import contract
from api.http.access import AdminCaller, ResourcesDep
from storage.contracts import access, errors
from storage.contracts.values import Frozen
from storage.ledger import access as ledger_access

DAY_S = 86_400

router = APIRouter(prefix="/api/admin", tags=["oxen"], responses=contract.PROBLEMS)


@router.post(
    "/keys",
    status_code=201,
    responses=contract.KEY_MADE,
    openapi_extra=fields.body(access.KeyRequest.model_json_schema()),
)
async def make(request: Request, resources: ResourcesDep, caller: AdminCaller) -> Response:
    """Make a key for a tenant, known or new. `key` in the answer is shown this once."""
    key_request = await fields.of_body(request, access.KeyRequest)
    for name in key_request.models:
        resources.catalog.name_of(name)
    unknown = set(key_request.gpu_types) - set(resources.catalog.gpu_types)
    if unknown:
        message = f"gpu_types must be of {', '.join(resources.catalog.gpu_types)}; got {', '.join(sorted(unknown))}"
        raise errors.InvalidInputError(message, field="gpu_types")
    key, token = access.issued(key_request, now_ms=_now_ms())
    await resources.ledger.run(ledger_access.issue(key, by=_name(caller)))
    return JSONResponse({**shown(key), "key": token}, status_code=201)


@router.get("/keys", responses=contract.KEYS)
async def list_(
    resources: ResourcesDep, caller: AdminCaller, tenant: Annotated[str | None, Query(max_length=64)] = None
) -> Response:
    """All keys, or a tenant's, without the keys themselves."""
    keys = await resources.ledger.run(ledger_access.keys_of(tenant))
    return JSONResponse({"keys": [shown(key) for key in keys]})


class Rotation(Frozen):
    """How long the present key or secret goes on."""

    overlap_s: Annotated[float, Field(ge=0, le=access.LONGEST_OVERLAP_S)] = DAY_S


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    responses=contract.KEY_MADE,
    openapi_extra=fields.body(Rotation.model_json_schema()),
)
async def rotate(key_id: str, request: Request, resources: ResourcesDep, caller: AdminCaller) -> Response:
    """Make another key that allows the same; the first one ends `overlap_s` from now (by default a day)."""
    overlap_s = (await fields.of_body(request, Rotation)).overlap_s
    before = await resources.ledger.run(ledger_access.find(key_id))
    key, token = ledger_access.rotation(before, now_ms=_now_ms())
    await resources.ledger.run(ledger_access.rotate(key_id, key, by=_name(caller), after_s=overlap_s))
    return JSONResponse({**shown(key), "key": token}, status_code=201)


@router.delete("/keys/{key_id}", responses=contract.KEY)
async def revoke(key_id: str, resources: ResourcesDep, caller: AdminCaller) -> Response:
    """End a key: within a second no API process knows it."""
    return JSONResponse(shown(await resources.ledger.run(ledger_access.revoke(key_id, by=_name(caller)))))


@router.get("/audit", responses=contract.AUDIT)
async def audit(
    resources: ResourcesDep, caller: AdminCaller, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> Response:
    """What was done to keys, by whom, the latest first."""
    entries = await resources.ledger.run(ledger_access.audit(limit))
    told = [
        {"at": one.at_ms / 1000, "by": one.by, "action": one.action, "key_id": one.key_id, "tenant": one.tenant}
        for one in entries
    ]
    return JSONResponse({"entries": told})


def shown(key: access.ApiKey) -> dict[str, Any]:
    """A key without its secret or what is remembered of that; times in seconds since 1970."""
    times = {"created_at": key.created_ms, "expires_at": key.expires_ms, "last_used_at": key.used_ms}
    return {
        "id": key.id,
        "tenant": key.tenant,
        "label": key.label,
        **key.rights.model_dump(mode="json"),
        **{name: None if ms is None else ms / 1000 for name, ms in times.items()},
    }


def _name(caller: access.Caller) -> str:
    return f"key {caller.key_id}"


def _now_ms() -> int:
    return round(time.time() * 1000)
