"""What OpenAPI says of the native API: request bodies and the shapes of its answers."""

from typing import Any

from pydantic import BaseModel, ConfigDict

Responses = dict[int | str, dict[str, Any]]


class ProblemDetail(BaseModel):
    """An error; `code` is stable."""

    type: str
    title: str
    detail: str
    message: str
    code: str
    field: str | None = None


class Problem(BaseModel):
    """An error body."""

    error: ProblemDetail
    status: str
    status_message: str


class Accepted(BaseModel):
    """One accepted generation."""

    generation_id: str
    status: str


class Enqueued(BaseModel):
    """Accepted generations; `cursor` is what `/api/events?since=` takes to miss nothing of them.

    `waiting_for_worker`, where a GPU type was asked for: nobody of that type serves the model just now.
    """

    generations: list[Accepted]
    cursor: str
    waiting_for_worker: bool | None = None


class Worker(BaseModel):
    """A worker; `models` says of each it serves whether it is `cold`, `starting`, `warm` or `failed`.

    `left_to_others`: models it does not have loaded while others do, so that it leaves them work for a moment.
    """

    name: str
    gpu_type: str
    region: str
    memory_gb: float | None
    busy: bool
    left_to_others: list[str]
    models: dict[str, dict[str, Any]]


class Fleet(BaseModel):
    """Who is there."""

    workers: list[Worker]


class ModelUsage(BaseModel):
    """What was used of one model."""

    model: str
    generations: int
    megapixels: float
    gpu_seconds: float
    cost_usd: float


class Usage(BaseModel):
    """A month's use. `reserved_usd`: what unfinished generations may still come to, where there is a budget."""

    month: str
    spent_usd: float
    reserved_usd: float
    budget_usd: float | None
    models: list[ModelUsage]


class Expected(BaseModel):
    """What is to be expected on one target; `warm_ms`, `cold_ms` and `cost_usd` have p10, p50 and p90."""

    gpu_type: str
    region: str
    workers: int
    state: str
    warm_ms: dict[str, int] | None
    cold_ms: dict[str, int] | None
    cost_usd: dict[str, float] | None
    basis: str
    runs: int
    is_measured: bool


class Estimates(BaseModel):
    """What is to be expected of an edit."""

    model: str
    steps: int
    references: int
    pixels: int
    targets: list[Expected]


class RanOn(BaseModel):
    """Which worker, where, and why that one."""

    worker: str
    gpu_type: str
    region: str | None
    why: str


class Progress(BaseModel):
    """Denoising steps done, of how many."""

    step: int
    steps: int
    model_loaded_percent: int | None


class WeightsUsed(BaseModel):
    """Which weights make, or made, the picture."""

    name: str | None
    note: str | None


class Receipt(BaseModel):
    """What a result was made with; the file carries the same in its EXIF user comment."""

    model: str
    weights: str
    revision: str | None
    pipeline: str
    seed: int
    steps: int
    guidance: float
    rendered: str
    dtype: str
    profile: str
    placement: str
    gpu_type: str
    gpu: str
    libraries: dict[str, str]


class GenerationAnswer(BaseModel):
    """A generation; submitted parameters stand beside these fields. Times are Unix seconds."""

    model_config = ConfigDict(extra="allow")

    generation_id: str
    model_name: str
    prompt: str
    media_type: str
    status: str
    result_url: str | None
    error_message: str | None
    error_code: str | None
    error_details: dict[str, Any] | None
    enqueued_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None
    seed: int
    width: int | None
    height: int | None
    fit: str | None
    upsampled_prompt: str | None
    attempts: int
    delay_ms: int | None
    execution_ms: int | None
    queue_position: int | None
    phase: str | None
    progress: Progress
    weights: WeightsUsed | None
    parent_generation_id: str | None
    receipt: Receipt | None
    ran_on: RanOn | None
    timings: dict[str, int] | None
    cost_usd: float | None
    eta_ms: int | None = None


class GenerationList(BaseModel):
    """A page of generations."""

    count: int
    generations: list[GenerationAnswer]
    next: str | None


class Cancelled(BaseModel):
    """The generation is terminal now."""

    status: str
    generation_id: str


class Image(BaseModel):
    """One picture, by URL or inline."""

    url: str | None = None
    b64_json: str | None = None


class Edited(BaseModel):
    """A blocking call's pictures."""

    model: str
    created: int
    images: list[Image]
    generation_id: str
    seed: int
    image_url: str | None = None


class ModelAnswer(BaseModel):
    """A model with the schema its requests are checked against."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: str
    created: int
    request_schema: dict[str, Any]
    json_request_schema: dict[str, Any]


class ModelList(BaseModel):
    """Models."""

    object: str
    data: list[ModelAnswer]


class Placement(BaseModel):
    """A model's execution plan on one GPU type with its sums in GB, or the reason why there is none.

    `phases_gb` are the most on the GPU while it loads, encodes the prompt, denoises and decodes, of the largest edit that the
    model accepts; `resting_gb` between edits; `host_gb` of the machine's memory; `total_gb` is the most of all phases.
    """

    gpu_type: str
    memory_gb: float
    profile: str
    placement: str | None
    compiled: bool | None = None
    attention: str | None = None
    phases_gb: dict[str, float] = {}
    resting_gb: float | None = None
    host_gb: float | None = None
    total_gb: float | None = None
    reason: str | None = None


class PlacementList(BaseModel):
    """A model's execution plans. `stand_in`: they are the published weights', and this service loads small ones instead."""

    model: str
    stand_in: bool
    placements: list[Placement]


class Verified(BaseModel):
    """What a picture's content credentials say. `ours`: signed here; `valid`: unchanged since."""

    signed: bool
    valid: bool
    ours: bool
    signer: str | None = None
    generator: str | None = None
    action: str | None = None
    source_type: str | None = None
    generation_id: str | None = None


def _answer(shape: type[BaseModel], description: str) -> Responses:
    return {200: {"model": shape, "description": description}}


PROBLEMS: Responses = {
    status: {"model": Problem, "description": description}
    for status, description in (
        (400, "A field is missing, unknown or out of range"),
        (401, "No valid API key"),
        (402, "The month's budget does not suffice"),
        (404, "No such thing"),
        (413, "The body or picture is too large"),
        (422, "The idempotency key belongs to another request, or an input could not be fetched"),
        (429, "Too many unfinished generations or streams"),
        (503, "A store does not answer; see Retry-After"),
    )
}
ENQUEUED = _answer(Enqueued, "Accepted")
FLEET = _answer(Fleet, "Workers")
USAGE = _answer(Usage, "The month")
ESTIMATES = _answer(Estimates, "What is to be expected")
LISTED = _answer(GenerationList, "A page")
POLLED: Responses = {**_answer(GenerationAnswer, "The generation"), 304: {"description": "Unchanged since this ETag"}}
CANCELLED = _answer(Cancelled, "Cancelled, or terminal before")
EDITED: Responses = {
    **_answer(Edited, "The pictures"),
    409: {"model": Problem, "description": "It was cancelled"},
    500: {"model": Problem, "description": "The edit failed"},
    504: {"model": Problem, "description": "It took too long and was cancelled"},
}
MODELS = _answer(ModelList, "Models")
VERIFIED = _answer(Verified, "What its credentials say")
PLACEMENTS = _answer(PlacementList, "Where it goes")
MODEL = _answer(ModelAnswer, "The model")
STREAMED: Responses = {200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}}


def _body(*, multipart_image: bool, properties: dict[str, Any]) -> dict[str, Any]:
    image: dict[str, Any] = {
        "description": "http(s) URL or data URI",
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    }
    if multipart_image:
        image = {"type": "string", "format": "binary"}
    return {
        "schema": {
            "type": "object",
            "required": ["model", "prompt"],
            "properties": {
                "model": {"type": "string", "examples": ["flux-kontext-dev"]},
                "prompt": {"type": "string"},
                "input_image": image,
                "mask_image": {**image, "description": "White where to paint anew; for models that take a mask"},
                **properties,
            },
            "description": "Further fields are the model's parameters; see its request_schema.",
            "additionalProperties": True,
        }
    }


def _request(properties: dict[str, Any]) -> dict[str, Any]:
    content = {
        "application/json": _body(multipart_image=False, properties=properties),
        "multipart/form-data": _body(multipart_image=True, properties=properties),
    }
    return {"requestBody": {"required": True, "content": content}}


_COUNT = {"num_generations": {"type": "integer", "minimum": 1, "maximum": 4, "default": 1}}
_COMMON = {
    "target_namespace": {"type": "string"},
    "gpu_type": {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "Run on this GPU type alone, or on the first of several that has a worker",
    },
    "region": {"type": "string", "description": "Run in this region alone"},
    "max_cost_usd": {"type": "number", "exclusiveMinimum": 0, "description": "Run only where it costs no more"},
    "deadline": {"type": "number", "minimum": 1, "description": "Seconds from now after which it is over"},
    "model_version": {"type": "string", "description": "A version of the model; models list theirs"},
    "profile": {
        "type": "string",
        "enum": ["exact", "fast"],
        "description": "How it computes; models list what they offer",
    },
    "parent_generation_id": {"type": "string", "description": "Its result is the first input"},
    "queue_ttl": {"type": "number", "minimum": 1, "description": "Seconds to wait for a worker at the most"},
    "execution_timeout": {"type": "number", "minimum": 1, "description": "Seconds to run at the most"},
}

ENQUEUE = _request({**_COUNT, **_COMMON, "response_format": {"type": "string", "enum": ["url"], "default": "url"}})
EDIT = _request(
    {**_COUNT, **_COMMON, "response_format": {"type": "string", "enum": ["url", "b64_json"], "default": "url"}}
)
