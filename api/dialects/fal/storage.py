"""fal's uploads: its clients put files somewhere first, and send their URLs."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import fields
from api.http import bodies, uploads
from api.http.access import Caller, ResourcesDep, own_url, shown

router = APIRouter(tags=["fal"])

TOKEN_LIFETIME = timedelta(hours=1)


class Initiation(fields.Fields):
    """What is to be uploaded."""

    PASSES_OVER: ClassVar = True

    content_type: Annotated[str, Field(max_length=200, description="Its type")]
    file_name: Annotated[str, Field(max_length=1000, description="Passed over: it is called by an id")] = ""


@router.post("/storage/upload/initiate", openapi_extra=Initiation.body())
async def initiate(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Where to put a picture, and where it can be fetched then, for a day."""
    sent = Initiation.check((await bodies.read(request)).fields)
    put, fetched = uploads.slot(resources, caller, own_url(request, resources), sent.content_type)
    return JSONResponse({"upload_url": put, "file_url": fetched})


@router.post("/storage/auth/token")
async def token(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """What uploads are made with: here it is the key itself."""
    caller.check("submit")
    return JSONResponse(
        {
            "token": shown(request),
            "token_type": "Bearer",
            "base_url": own_url(request, resources),
            "expires_at": (datetime.now(UTC) + TOKEN_LIFETIME).isoformat(),
        }
    )


@router.post("/files/upload")
async def upload(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Keep a picture, the body, for a day."""
    kept = await uploads.store(resources, caller, await request.body(), "file")
    url = resources.signatures.download_url(own_url(request, resources), kept.key, kept.expires_at)
    return JSONResponse({"access_url": url})
