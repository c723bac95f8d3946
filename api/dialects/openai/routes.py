"""The Images API's routes, and where Azure's client looks for them: there the path names the model.

`/v1/models` is the forge dialect's: its answers have what OpenAI's clients read, too.
"""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.openai import answers, asking, stream
from api.http import bodies, streams
from api.http.access import Caller, IdempotencyKey, ResourcesDep, own_url
from api.resources import Resources
from storage.contracts import access, edits, errors

router = APIRouter(tags=["openai"])

AZURE = "/openai/deployments/{deployment}"


@router.post("/v1/images/edits", openapi_extra=asking.Input.body())
@router.post(AZURE + "/images/edits", include_in_schema=False)
async def edit(
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Edit pictures: a form with `image` or several `image[]`, or JSON with `images`."""
    body = await bodies.read(request, files=asking.FILES)
    references, masks = await asking.pictures_of(body)
    if not references:
        raise errors.InvalidInputError("image is required: an uploaded file, or images in JSON", field="image")
    return await _run("image_edit", body, references, masks, request, resources, caller, idempotency_key)


@router.post("/v1/images/generations", openapi_extra=asking.Input.body())
@router.post(AZURE + "/images/generations", include_in_schema=False)
async def generate(
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Make pictures from text."""
    body = await bodies.read(request, files=asking.FILES)
    if any(body.fields.get(name) or body.files.get(name) for name in (*asking.FILES, "images")):
        raise errors.InvalidInputError("image: send pictures to /v1/images/edits", field="image")
    return await _run("image_generation", body, [], [], request, resources, caller, idempotency_key)


async def _run(
    kind: asking.Kind,
    body: bodies.Body,
    references: Sequence[edits.Picture],
    masks: Sequence[edits.Picture],
    request: Request,
    resources: Resources,
    caller: access.Caller,
    idempotency_key: str | None,
) -> Response:
    sent = asking.Input.check(body.fields, textual=body.textual)
    known, default = resources.catalog, resources.settings.default_model
    named = sent.model or request.path_params.get("deployment")
    others = named if named and asking.is_openais(named, known) else None
    name = asking.model_of(None if others else named, kind, known, default, has_pictures=bool(references))
    submission = asking.submission_of(
        body,
        sent,
        name=name,
        model=known.models[name],
        references=references,
        masks=masks,
        idempotency_key=idempotency_key,
    )
    if sent.stream:
        resources.streams.check(caller.tenant)
    accepted = await base.submitted(request, resources, submission, caller, names=asking.NAMES, named=others)
    id_, keep = accepted.ids[0], idempotency_key is not None
    if sent.stream:
        pictures = stream.Stream(
            kind=kind, ids=accepted.ids, sent=sent, resources=resources, tenant=caller.tenant, keep=keep
        )
        return streams.response(pictures.frames, headers={"x-request-id": id_})
    try:
        views = await base.finished(request, resources, accepted, caller.tenant, keep=keep)
        own = own_url(request, resources)
        data = [await answers.datum(view, sent.response_format, own) for view in views]
    except errors.DarkroomError as exc:
        # It was accepted: a client that sent it again would have the GPU do it twice.
        return answers.failed(exc, id_, retry=False)
    created = views[0].generation.times.created_ms // 1000
    answer = {"created": created, "data": data, **answers.about(views[0], sent), "usage": answers.usage(views)}
    return JSONResponse(answer, headers={"x-request-id": id_})
