"""Black Forest Labs' own API: one route per model, polled by URL."""

import hashlib
import hmac
import json
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base, fields
from api.dialects.base import Dialect
from api.http import bodies, pictures
from api.http import errors as http_errors
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url
from api.service.checks import Names
from api.service.read import Reader, ResultView
from api.webhooks.delivery import Message
from storage.contracts import catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas

router = APIRouter(prefix="/v1", tags=["bfl"])

NARROWEST, WIDEST = 9 / 21, 21 / 9
NAMES = Names(image="input_image", mask="mask", upsampling="prompt_upsampling")
Side = Annotated[int, Field(ge=0, le=2048, description="In pixels; 0: as the input")]


class _Common(fields.Fields):
    PASSES_OVER: ClassVar = True

    prompt: fields.Prompt
    seed: fields.Seed | None = None
    webhook_url: Annotated[str | None, Field(max_length=pictures.MAX_URL, description="Called when it is over")] = None
    webhook_secret: Annotated[str | None, Field(max_length=200, description="Signs that call")] = None
    steps: fields.Steps | None = None
    guidance: Annotated[float | None, Field(ge=1.5, le=10, description="Guidance scale")] = None
    prompt_upsampling: Annotated[bool, Field(description="Write the prompt anew, where the model can")] = False
    input_image: fields.Picture = None
    input_image_2: fields.Picture = None
    input_image_3: fields.Picture = None
    input_image_4: fields.Picture = None
    input_image_5: fields.Picture = None
    input_image_6: fields.Picture = None
    input_image_7: fields.Picture = None
    input_image_8: fields.Picture = None
    mask: fields.Picture = None
    aspect_ratio: Annotated[str | None, Field(max_length=9, description="From 21:9 to 9:21; absent: as the input")] = (
        None
    )
    width: Side = 0
    height: Side = 0

    @property
    def _ratio(self) -> float | None:
        if self.aspect_ratio is None:
            return None
        try:
            ratio = base.ratio_of(self.aspect_ratio)
        except (ValueError, ZeroDivisionError):
            ratio = 0.0
        if not NARROWEST <= ratio <= WIDEST:
            message = f"aspect_ratio must be between 21:9 and 9:21; got {self.aspect_ratio}"
            raise errors.InvalidInputError(message, field="aspect_ratio")
        return ratio

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        raise NotImplementedError

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """See `fields.Fields`."""
        canvas = self.canvas
        beaten = {"aspect_ratio"} if canvas.size is not None else {"width", "height"} if canvas.ratio else set()
        if self.mask:
            # A picture that is painted in keeps its shape.
            beaten = {"aspect_ratio", "width", "height"}
        return (
            *super().without_effect(model),
            *sorted(beaten & self.model_fields_set),
            *base.not_taken(model, self.model_fields_set, guidance=("guidance",)),
        )


class Kontext(_Common):
    """What FLUX.1 Kontext's routes take."""

    output_format: Literal["png", "jpeg", "webp"] = "png"
    safety_tolerance: Annotated[int, Field(ge=0, le=6, description="One filter for all"), fields.NO_EFFECT] = 2

    @property
    def canvas(self) -> Canvas:
        """The result's shape: the ratio is Kontext's own field. Raises `errors.InvalidInputError`."""
        ratio = self._ratio
        return Canvas(size=base.both_sides(self.width, self.height)) if ratio is None else Canvas(ratio=ratio)


class Flux2(_Common):
    """What FLUX.2's routes take, and those of models that this API does not know."""

    output_format: Literal["png", "jpeg", "webp"] = "jpeg"
    safety_tolerance: Annotated[int, Field(ge=0, le=5, description="One filter for all"), fields.NO_EFFECT] = 2

    @property
    def canvas(self) -> Canvas:
        """The result's shape: the sides are FLUX.2's own fields. Raises `errors.InvalidInputError`."""
        size, ratio = base.both_sides(self.width, self.height), self._ratio
        return Canvas(ratio=ratio) if size is None else Canvas(size=size)


class Flex(Flux2):
    """What the route of FLUX.2 [flex] takes, which has its own defaults."""

    steps: Annotated[int, Field(ge=1, le=50, description="Denoising steps")] = 50
    guidance: Annotated[float, Field(ge=1.5, le=10, description="Guidance")] = 5.0


FAMILIES: dict[str, type[Kontext | Flux2]] = {"kontext": Kontext, "*": Flux2}
ROUTES: dict[str, type[Flux2]] = {"flux-2-flex": Flex}
"""Routes whose fields are not their family's."""
PICTURES = ("input_image", *(f"input_image_{number}" for number in range(2, 9)))


@router.post(
    "/flux-{variant}",
    openapi_extra=fields.body({"anyOf": [Kontext.model_json_schema(), Flux2.model_json_schema()]}),
)
async def submit(
    variant: str, request: Request, resources: ResourcesDep, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Start a task of a model."""
    alias = f"flux-{variant}"
    name = resources.catalog.name_of(alias)
    body = await bodies.read(request)
    submission = await _submission(alias, resources.catalog, body, own_url(request, resources), idempotency_key)
    accepted = await base.submitted(request, resources, submission, caller, names=NAMES, named=name)
    model = resources.catalog.models[submission.edit.model]
    url = own_url(request, resources, f"/v1/get_result?id={accepted.ids[0]}")
    answer: dict[str, Any] = {"id": accepted.ids[0], "polling_url": url, "cost": model.price_per_image}
    if submission.webhook:
        answer |= {"status": "Pending", "webhook_url": submission.webhook.url}
    return JSONResponse(answer)


@router.get("/get_result")
async def get_result(
    request: Request, resources: ResourcesDep, tenant: Tenant, id_: Annotated[str, Query(alias="id", max_length=100)]
) -> Response:
    """A task as it is."""
    try:
        view = await resources.reader.one(id_, tenant)
    except errors.NotFoundError:
        return JSONResponse({"id": id_, "status": "Task not found", "result": None})
    return JSONResponse(_task(view, own_url(request, resources)))


async def _submission(
    alias: str, known: catalog.Catalog, body: bodies.Body, own: str, idempotency_key: str | None
) -> submissions.Submission:
    name = known.name_of(alias)
    sent = (ROUTES.get(alias) or base.of_family(FAMILIES, known.models[name])).check(body.fields)
    references = await pictures.of_fields(body.fields, PICTURES, bare=True)
    mask = base.one_mask(await pictures.of_fields(body.fields, ("mask",), bare=True), "mask")
    if not references:
        name = known.drawing(alias) or name
    model = known.models[name]
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            mask=mask,
            canvas=sent.canvas if mask is None else Canvas(),
            steps=sent.steps or model.usual_steps,
            guidance=base.guidance_of(model, sent.guidance),
            upsample_temperature=base.UPSAMPLE_TEMPERATURE if sent.prompt_upsampling else 0.0,
            output_format=sent.output_format,
        ),
        seed=base.seed_of(sent.seed),
        ignored=submissions.told_names(sent.without_effect(model)),
        webhook=base.webhook_of(sent.webhook_url, "webhook_url", "bfl", base=own, secret=sent.webhook_secret),
        idempotency_key=idempotency_key,
        echo=pictures.echo({field: value for field, value in body.fields.items() if not field.startswith("webhook_")}),
    )


def _status(view: ResultView) -> str:
    if view.is_filtered:
        stage = (view.generation.error_details or {}).get("stage")
        return "Content Moderated" if stage == "output" else "Request Moderated"
    if not view.is_over:
        return "Pending"
    return "Ready" if view.result is not None else "Error"


def _task(view: ResultView, own: str) -> dict[str, Any]:
    """A task; its picture is below our address `own`, since some clients fetch nothing from an object store in their network."""
    generation, times, result = view.generation, view.generation.times, None
    url = view.steady_url(own)
    if url is not None:
        started_ms, completed_ms = times.started_ms or times.created_ms, times.completed_ms or times.created_ms
        result = {
            "sample": url,
            "prompt": view.prompt,
            "seed": generation.edit.seed,
            "start_time": started_ms / 1000,
            "end_time": completed_ms / 1000,
            "duration": (completed_ms - started_ms) / 1000,
        }
    failure, details = view.failure(NAMES), None
    if failure is not None:
        details = {**(generation.error_details or {}), "error": failure.message, "error_code": failure.code}
        if failure.field is not None:
            details["field"] = failure.field
    progress = 1.0 if view.result is not None else generation.step / generation.edit.steps
    return {
        "id": view.id,
        "status": _status(view),
        "result": result,
        "progress": round(progress, 3),
        "details": details,
        "preview": None,
    }


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    status = http_errors.status(error)
    if status == 400:
        entry = {"loc": ["body", error.field or ""], "msg": error.message, "type": error.code}
        return JSONResponse({"detail": [entry]}, status_code=422)
    status = 403 if isinstance(error, errors.UnauthenticatedError) else status
    return JSONResponse({"detail": error.message}, status_code=status, headers=http_errors.headers(error))


async def _wording(reader: Reader, view: ResultView, moment: submissions.Moment, keys: Sequence[bytes]) -> Message:
    webhook = view.generation.submission.webhook
    body = json.dumps({"task_id": view.id, **_task(view, webhook.base if webhook else "")}).encode()
    secret = webhook.secret if webhook else None
    key = secret.encode() if secret else keys[0]
    return Message(body=body, headers={"X-BFL-Signature": f"sha256={hmac.digest(key, body, hashlib.sha256).hex()}"})


DIALECT = Dialect(
    name="bfl",
    router=router,
    problem=_problem,
    wording=_wording,
    aim=(
        "export BFL_API_KEY=<key>",
        'curl {url}/v1/flux-kontext-dev -H "x-key: $BFL_API_KEY" --json \'{"prompt": "…", "input_image": "…"}\'',
        'curl "<polling_url of the answer>" -H "x-key: $BFL_API_KEY"',
    ),
)
