"""Replicate's models, versions, files and account."""

import asyncio
import hashlib
import re
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects.replicate import answers
from api.http import bodies, uploads
from api.http.access import Caller, ResourcesDep, Tenant, own_url
from api.http.remarks import VERSION, remark
from api.resources import Resources
from storage.contracts import catalog, errors

router = APIRouter(tags=["replicate"])

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A model by what a request calls it: an `alias` of it. `is_served_version`: it names the version that is served, or none."""

    name: str
    alias: str
    is_served_version: bool = True


def found(named: str, known: catalog.Catalog) -> Found:
    """A model by `owner/name`, `owner/name:version`, its name alone, or a version that was handed out.

    A version of a model that is known here may be any: there is one of each. Raises `errors.ModelNotFoundError`.
    """
    plain, _, version = named.partition(":")
    if _HASH.fullmatch(plain) and not known.has(plain):
        for name in known.models:
            if answers.version_of(name) == plain:
                return Found(name=name, alias=name)
        message = (
            f"version: {plain} is none of this service. Replicate's clients send the version alone where they are given "
            "owner/name:version: give them owner/name, or have the operator add the version to the aliases of a model"
        )
        raise errors.ModelNotFoundError(message, field="version")
    alias = plain if known.has(plain) else plain.rpartition("/")[2]
    name = known.name_of(alias)
    return Found(name=name, alias=alias, is_served_version=not version or version == answers.version_of(name))


# A model alone is at a path that Forge and OpenAI have, too (`base.Dialect.describe`).


@router.get("/models/{owner}/{name}/versions")
async def versions(owner: str, name: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """The versions of a model: the one that is served."""
    model = found(f"{owner}/{name}", resources.catalog).name
    record = answers.version(model, resources.catalog.models[model])
    return JSONResponse({"previous": None, "next": None, "results": [record]})


@router.get("/models/{owner}/{name}/versions/{version}")
async def version(
    owner: str, name: str, version: str, request: Request, resources: ResourcesDep, tenant: Tenant
) -> Response:
    """A version: the model as it is here, with the schema of its inputs."""
    of = found(f"{owner}/{name}:{version}", resources.catalog)
    if not of.is_served_version:
        remark(request, VERSION, [answers.version_of(of.name)])
    return JSONResponse(answers.version(of.name, resources.catalog.models[of.name]))


@router.post("/files", status_code=201)
async def upload(request: Request, resources: ResourcesDep, caller: Caller) -> Response:
    """Keep a picture for a day, to be named in an input by its URL."""
    body = await bodies.read(request, files=("content", "metadata"))
    files = body.files.get("content", ())
    if len(files) != 1:
        raise errors.InvalidInputError("content is required: one uploaded picture", field="content")
    kept = await uploads.store(resources, caller, files[0], "content")
    return JSONResponse(_record(kept, request, resources, await _digest(files[0])), status_code=201)


@router.get("/files")
async def list_files(request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """The files that are kept, newest first."""
    records = [_record(one, request, resources) for one in await uploads.listed(resources, tenant)]
    return JSONResponse({"previous": None, "next": None, "results": records})


@router.get("/files/{id_}")
async def read_file(id_: str, request: Request, resources: ResourcesDep, tenant: Tenant) -> Response:
    """One file."""
    kept = await uploads.one(resources, tenant, id_)
    digest = await _digest(await resources.objects.get(kept.key))
    return JSONResponse(_record(kept, request, resources, digest))


@router.delete("/files/{id_}", status_code=204)
async def delete_file(id_: str, resources: ResourcesDep, caller: Caller) -> Response:
    """Delete a file."""
    await uploads.delete(resources, caller.tenant, id_)
    return Response(status_code=204)


@router.get("/account")
async def account(resources: ResourcesDep, tenant: Tenant) -> Response:
    """Whose key this is."""
    return JSONResponse(
        {"type": "organization", "username": tenant, "name": tenant, "github_url": None, "avatar_url": None}
    )


async def _digest(data: bytes) -> str:
    # Of a large picture it takes as long as many requests do.
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


def _record(
    kept: uploads.Upload, request: Request, resources: Resources, digest: str | None = None
) -> dict[str, object]:
    url = resources.signatures.download_url(own_url(request, resources), kept.key, kept.expires_at)
    return answers.file_record(kept, url, digest)
