"""OpenAI's Images API: blocking edits and generations, with partial pictures over a stream.

`/v1/models` is the forge dialect's: its answers have what OpenAI's clients read, too.
"""

import contextlib
import json
import logging
import math
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal

import anyio
from fastapi import APIRouter
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, inputs, problems, submission, waiting
from api.access import Held, IdempotencyKey, Tenant
from api.dialects import Dialect
from api.resources import Resources
from storage.contracts import edits, errors, events, generations
from storage.contracts.catalog import UPSAMPLING
from storage.contracts.geometry import Canvas
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import records

router = APIRouter(prefix="/v1", tags=["openai"])

log = logging.getLogger(__name__)

Kind = Literal["image_edit", "image_generation"]

MOST_PICTURES = 10
CANCEL_S = 5.0
"""For cancelling what nobody waits for any more."""
STEPS = {"low": 0.5, "high": 1.5, "hd": 1.5}
"""Denoising steps by quality, as a share of the model's default; medium, standard and auto are the default."""
FIELDS = Declaration(
    {
        "prompt": Parameter(type="string", required=True, max_length=32_000, description="The instruction"),
        "model": Parameter(type="string", max_length=200, description="A model, or the operator's default"),
        "n": Parameter(type="integer", default=1, minimum=1, maximum=MOST_PICTURES, description="Pictures"),
        "size": Parameter(type="string", default="auto", max_length=20, description="WxH, or auto: as the input"),
        "quality": Parameter(
            type="string",
            default="auto",
            choices=("auto", "low", "medium", "high", "standard", "hd"),
            description="How many denoising steps",
        ),
        "response_format": Parameter(type="string", choices=("url", "b64_json"), description="Absent: both"),
        "output_format": Parameter(type="string", default="png", choices=("png", "jpeg", "webp"), description="Format"),
        "output_compression": Parameter(type="integer", default=100, minimum=0, maximum=100, description="Quality"),
        "background": Parameter(type="string", default="auto", choices=("auto", "opaque"), description="Opaque"),
        "input_fidelity": Parameter(type="string", choices=("high", "low"), description="Inputs are always read whole"),
        "moderation": Parameter(type="string", default="auto", choices=("auto", "low"), description="Filter"),
        "stream": Parameter(type="boolean", default=False, description="Answer with events"),
        "partial_images": Parameter(type="integer", default=0, minimum=0, maximum=3, description="Previews"),
        "user": Parameter(type="string", max_length=200, description="The caller's own user"),
        "seed": Parameter(type="integer", minimum=0, maximum=edits.MAX_SEED, description="Absent: random"),
        "num_inference_steps": Parameter(type="integer", minimum=1, maximum=50, description="Instead of quality"),
        "guidance": Parameter(type="number", minimum=0, maximum=10, description="Guidance scale"),
        "negative_prompt": Parameter(type="string", max_length=10_000, description="What not to show"),
        UPSAMPLING: Parameter(
            type="number",
            default=0,
            minimum=0,
            maximum=2,
            description="Above 0 the prompt is written anew, where the model can",
        ),
    },
    also=("image", "image[]", "images", "mask"),
)


@router.post("/images/edits")
async def edit(request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None) -> Response:
    """Edit pictures: a form with `image` or several `image[]`, or JSON with `images`."""
    body = await bodies.read(request, files=("image", "image[]", "mask"))
    pictures = [
        *await inputs.of_field(body, "image"),
        *await inputs.of_field(body, "image[]"),
        *await _listed(body.fields.get("images"), "images"),
    ]
    if not pictures:
        raise errors.InvalidInputError("image is required: an uploaded file, or images in JSON", field="image")
    masks = [
        *await inputs.of_field(bodies.Body(fields={}, files=body.files), "mask"),
        *await _listed(body.fields.get("mask"), "mask"),
    ]
    return await _run("image_edit", body, pictures, masks, request, held, tenant, idempotency_key)


@router.post("/images/generations")
async def generate(request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None) -> Response:
    """Make pictures from text."""
    body = await bodies.read(request, files=("image", "image[]", "mask"))
    if any(body.fields.get(name) or body.files.get(name) for name in ("image", "image[]", "images", "mask")):
        raise errors.InvalidInputError("image: send pictures to /v1/images/edits", field="image")
    return await _run("image_generation", body, [], [], request, held, tenant, idempotency_key)


async def _listed(value: Any, field: str) -> list[submission.Picture]:
    """Pictures of the JSON form: `{"image_url": …}`, alone or in a list."""
    found: list[submission.Picture] = []
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        if isinstance(entry, dict) and "file_id" in entry:
            raise errors.InvalidInputError(f"{field}: files are not kept here; send an image_url", field=field)
        url = entry.get("image_url") if isinstance(entry, dict) else entry
        found += await inputs.of_value(url if url is not None else entry, field)
    return found


async def _run(
    kind: Kind,
    body: bodies.Body,
    pictures: Sequence[submission.Picture],
    masks: Sequence[submission.Picture],
    request: Request,
    held: Resources,
    tenant: str,
    idempotency_key: str | None,
) -> Response:
    checked = FIELDS.check(body.fields, textual=body.textual)
    name = held.catalog.name_of(checked["model"]) if checked["model"] else _default(held, bool(pictures))
    if kind == "image_generation" and held.catalog.models[name].min_references:
        able = ", ".join(key for key, one in held.catalog.models.items() if not one.min_references)
        message = f"model: {name} edits pictures; from text alone these make one: {able}"
        raise errors.InvalidInputError(message, field="model")
    if len(masks) > 1:
        raise errors.InvalidInputError(f"mask: at most one; got {len(masks)}", field="mask")
    for mask in masks:
        _check_mask(mask)
    size = None if checked["size"] == "auto" else drafts.size_of(checked["size"], "size")
    steps = checked["num_inference_steps"]
    if steps is None and checked["quality"] in STEPS:
        usual = drafts.default(held.catalog.models[name], "num_inference_steps")
        steps = max(1, min(50, round(usual * STEPS[checked["quality"]])))
    draft = drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        size_field="size",
        references=pictures,
        mask=masks[0] if masks else None,
        mask_channel="alpha",
        canvas=Canvas() if masks else Canvas(size=size),
        steps=steps,
        guidance=checked["guidance"],
        negative_prompt=checked["negative_prompt"],
        upsample_temperature=checked[UPSAMPLING],
        seed=checked["seed"],
        output_format=checked["output_format"],
        quality=checked["output_compression"],
        previews=checked["partial_images"] > 0,
        submitted=inputs.shown({key: value for key, value in body.fields.items() if key in FIELDS.parameters}),
        count=checked["n"],
    )
    if checked["stream"]:
        held.streams.check(tenant)
    receipt = await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))
    if checked["stream"]:
        events_ = _streamed(kind, receipt, checked, held, tenant, keep=idempotency_key is not None)
        return EventSourceResponse(events_, headers={"x-request-id": receipt.ids[0], "Cache-Control": "no-cache"})
    return await _answered(receipt, checked, request, held, tenant, keep=idempotency_key is not None)


def _default(held: Resources, pictures: bool) -> str:
    name = held.catalog.name_of(held.settings.default_model)
    if pictures or not held.catalog.models[name].min_references:
        return name
    return next((key for key, model in held.catalog.models.items() if not model.min_references), name)


def _check_mask(mask: submission.Picture) -> None:
    """OpenAI's mask is transparent where to paint anew. Raises `errors.InvalidInputError`."""
    if not isinstance(mask, submission.SentPicture):
        raise errors.InvalidInputError("mask must be uploaded or a data URI", field="mask")
    if not mask.transparent:
        raise errors.InvalidInputError("mask must have an alpha channel: transparent where to edit", field="mask")


async def _answered(
    receipt: records.Receipt, checked: Mapping[str, Any], request: Request, held: Resources, tenant: str, *, keep: bool
) -> Response:
    headers = {"x-request-id": receipt.ids[0]}
    try:
        finished = await waiting.all_terminal(request, receipt, tenant, held, keep=keep)
        if finished is None:
            return Response(status_code=499)
        data = [await _datum(found, checked["response_format"], held) for found in finished]
    except errors.DarkroomError as exc:
        # It was accepted: a client that sent it again would have the GPU do it twice.
        return _failed(exc, receipt.ids[0], retry=False)
    first = finished[0]
    answer = {"created": first.times.created_ms // 1000, "data": data, **_about(first, checked)}
    return JSONResponse({**answer, "usage": _usage(finished)}, headers=headers)


async def _datum(found: generations.Generation, wanted: str | None, held: Resources) -> dict[str, Any]:
    fault = drafts.failure(found)
    if fault is not None or found.result is None or found.times.expires_at is None:
        raise fault or errors.InternalError("The generation has no result")
    datum: dict[str, Any] = {"seed": found.edit.seed}
    if found.result.upsampled_prompt is not None:
        datum["revised_prompt"] = found.result.upsampled_prompt
    if wanted != "b64_json":
        datum["url"] = held.objects.signed_url(found.result.key, found.times.expires_at)
    if wanted != "url":
        datum["b64_json"] = await drafts.pixels(found.result, held)
    return datum


def _about(found: generations.Generation, checked: Mapping[str, Any]) -> dict[str, Any]:
    size = f"{found.result.width}x{found.result.height}" if found.result else None
    return {
        "size": size,
        "quality": checked["quality"],
        "background": "opaque",
        "output_format": checked["output_format"],
    }


def _usage(finished: Sequence[generations.Generation]) -> dict[str, Any]:
    """Latent tokens of sixteen by sixteen pixels; of text, an estimate of four characters each."""
    sizes = [found.result for found in finished if found.result]
    made = sum(math.ceil(one.width / 16) * math.ceil(one.height / 16) for one in sizes)
    first = finished[0]
    read = made // max(1, len(sizes)) * len(first.edit.references)
    text = math.ceil(len(first.edit.prompt) / 4)
    return {
        "input_tokens": read + text,
        "output_tokens": made,
        "total_tokens": read + text + made,
        "input_tokens_details": {"image_tokens": read, "text_tokens": text},
    }


async def _streamed(
    kind: Kind, receipt: records.Receipt, checked: Mapping[str, Any], held: Resources, tenant: str, *, keep: bool
) -> AsyncIterator[bytes]:
    """Partial pictures as they come, then each finished one. A client that hangs up cancels what is unfinished."""
    unfinished = set(receipt.ids)
    shown = dict.fromkeys(receipt.ids, 0)
    wanted = checked["partial_images"]
    with held.streams.counted(tenant):
        try:
            async with contextlib.aclosing(waiting.happenings(unfinished, tenant, hub=held.hub)) as happenings:
                async for happened in happenings:
                    if happened is not None and happened.type not in events.TERMINAL:
                        if _is_next_partial(happened, shown[happened.generation_id], wanted):
                            yield _partial(kind, happened.fields["preview"], shown[happened.generation_id], checked)
                            shown[happened.generation_id] += 1
                        continue
                    for found in await _ended(unfinished, held, tenant):
                        unfinished.discard(found.id)
                        yield await _completed(kind, found, checked, held)
                    if not unfinished:
                        return
        finally:
            # With a key somebody may come back for it. Whatever ends this, each is cancelled.
            with anyio.move_on_after(CANCEL_S, shield=True):
                for one in () if keep else tuple(unfinished):
                    await held.ledger.run(records.cancel(one, tenant))


def _is_next_partial(happened: events.Event, shown: int, wanted: int) -> bool:
    """Evenly over the steps: the first early, the last well before the end."""
    step, steps = (int(happened.fields.get(name, 0)) for name in ("step", "steps"))
    return "preview" in happened.fields and shown < wanted and step * (wanted + 1) >= steps * (shown + 1)


async def _ended(unfinished: Iterable[str], held: Resources, tenant: str) -> list[generations.Generation]:
    """Those of them that are over. A store that does not answer is asked again later."""
    try:
        found = [await held.ledger.run(records.read(one, tenant)) for one in sorted(unfinished)]
    except errors.TransientError as exc:
        log.warning("a stream looks again later: %s", exc)
        return []
    return [one for one in found if one.status.terminal]


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return ServerSentEvent(json.dumps({"type": name, **data}), event=name, sep="\n").encode()


def _partial(kind: Kind, preview: str, index: int, checked: Mapping[str, Any]) -> bytes:
    head, _, data = preview.partition(",")
    about = {"quality": checked["quality"], "background": "opaque", "size": checked["size"]}
    format_ = head.removeprefix("data:image/").partition(";")[0]
    facts = {"b64_json": data, "partial_image_index": index, "created_at": int(time.time()), "output_format": format_}
    return _event(f"{kind}.partial_image", {**facts, **about})


async def _completed(kind: Kind, found: generations.Generation, checked: Mapping[str, Any], held: Resources) -> bytes:
    try:
        datum = await _datum(found, "b64_json", held)
    except errors.DarkroomError as exc:
        return _event("error", {"error": _body(exc)})
    facts = {"created_at": found.times.created_ms // 1000, **_about(found, checked), "usage": _usage([found])}
    return _event(f"{kind}.completed", {**datum, **facts})


def _body(error: errors.DarkroomError) -> dict[str, Any]:
    kind = "server_error"
    if isinstance(error, errors.UnauthenticatedError):
        kind = "authentication_error"
    elif problems.status(error) < 500:
        kind = "invalid_request_error"
    code = "moderation_blocked" if isinstance(error, errors.ContentFilteredError) else error.code
    return {"message": error.message, "type": kind, "param": error.field, "code": code}


def _failed(error: errors.DarkroomError, request_id: str, *, retry: bool) -> Response:
    status = (
        400 if isinstance(error, errors.ContentFilteredError | errors.InputUnreachableError) else problems.status(error)
    )
    headers = {**problems.headers(error), "x-request-id": request_id}
    if not retry:
        headers["x-should-retry"] = "false"
    return JSONResponse({"error": _body(error)}, status_code=status, headers=headers)


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    return _failed(error, f"req_{uuid.uuid4().hex}", retry=isinstance(error, errors.TransientError))


DIALECT = Dialect(
    name="openai",
    router=router,
    problem=_problem,
    aim=(
        "export OPENAI_BASE_URL={url}/v1",
        "export OPENAI_API_KEY=<key>",
        'OpenAI().images.edit(model="flux-kontext-dev", image=open("photo.png", "rb"), prompt="…")',
    ),
)
