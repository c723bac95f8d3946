"""Browser tokens: made with a key on a server, given to a page."""

from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import fields
from api.dialects.oxen import contract
from api.http.access import BEARER, Caller, ResourcesDep, shown
from api.service import tokens

router = APIRouter(tags=["oxen"], responses=contract.PROBLEMS)


@router.post(
    "/api/ai/tokens",
    status_code=201,
    responses=contract.TOKEN_MADE,
    openapi_extra=fields.body(tokens.Wish.model_json_schema()),
)
async def make(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Make a token for a page: for events, one generation, or so many edits. It ends with its time, or with the key."""
    wish = await fields.of_body(request, tokens.Wish)
    if wish.generation_id is not None:
        await resources.reader.one(wish.generation_id, caller.tenant)
    text, token = await resources.tokens.make(wish, caller)
    return JSONResponse({"token": text, "purpose": token.purpose, "expires_at": token.until}, status_code=201)


@router.post("/api/ai/tokens/sign-in", status_code=201, responses=contract.SIGNED_IN)
async def sign_in(request: Request, resources: ResourcesDep, _: Annotated[object, BEARER]) -> Response:
    """Sign a page in by the token of its link, which works once: another one for half a day, as Bearer for every route."""
    text, token = await resources.tokens.sign_in(shown(request), request.headers.get("origin"))
    return JSONResponse({"token": text, "tenant": token.tenant, "expires_at": token.until}, status_code=201)
