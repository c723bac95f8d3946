"""What OpenAPI says of the native API: request bodies, and which shape each answer has."""

from typing import Any

from pydantic import BaseModel

from api.dialects.oxen import envelope, key_shapes, model_shapes, shapes
from api.http.pictures import MAX_URL
from storage.contracts import submissions

Responses = dict[int | str, dict[str, Any]]


def _answer(shape: type[BaseModel], description: str) -> Responses:
    return {200: {"model": shape, "description": description}}


PROBLEMS: Responses = {
    status: {"model": shapes.Problem, "description": description}
    for status, description in (
        (400, "A field is missing, unknown or out of range"),
        (401, "No valid API key"),
        (403, "The API key does not allow this"),
        (402, "The month's budget does not suffice"),
        (404, "No such thing"),
        (413, "The body or picture is too large"),
        (422, "The idempotency key belongs to another request, or an input could not be fetched"),
        (429, "Too many unfinished generations, streams or requests"),
        (503, "A store does not answer; see Retry-After"),
    )
}
ENQUEUED = _answer(shapes.Enqueued, "Accepted")
FLEET = _answer(model_shapes.Fleet, "Workers")
USAGE = _answer(model_shapes.Usage, "The month")
ESTIMATES = _answer(model_shapes.Estimates, "What is to be expected")
LISTED = _answer(shapes.GenerationList, "A page")
POLLED: Responses = {
    **_answer(shapes.GenerationAnswer, "The generation"),
    304: {"description": "Unchanged since this ETag"},
}
CANCELLED = _answer(shapes.Cancelled, "Cancelled, terminal before, or erased")
ERASED = _answer(shapes.ErasedAll, "Erased")
EDITED: Responses = {
    **_answer(shapes.Edited, "The pictures"),
    409: {"model": shapes.Problem, "description": "It was cancelled"},
    500: {"model": shapes.Problem, "description": "The edit failed"},
    504: {"model": shapes.Problem, "description": "It took too long and was cancelled"},
}
MODELS = _answer(model_shapes.ModelList, "Models")
VERIFIED = _answer(model_shapes.Verified, "What its credentials say")
PLACEMENTS = _answer(model_shapes.PlacementList, "Where it goes")
MODEL = _answer(model_shapes.ModelAnswer, "The model")
KEY = _answer(key_shapes.Key, "The key")
KEYS = _answer(key_shapes.KeyList, "Keys")
KEY_MADE: Responses = {201: {"model": key_shapes.MadeKey, "description": "Made"}}
TOKEN_MADE: Responses = {201: {"model": key_shapes.MadeToken, "description": "Made"}}
SIGNED_IN: Responses = {201: {"model": key_shapes.SignedIn, "description": "Signed in"}}
BATCH_MADE: Responses = {202: {"model": shapes.MadeBatch, "description": "Accepted"}}
BATCH_READ = _answer(shapes.Batch, "The batch")
BATCHES = _answer(shapes.BatchList, "Batches")
WEBHOOK_CALLS = _answer(key_shapes.WebhookCalls, "Calls")
WEBHOOK_SECRETS = _answer(key_shapes.WebhookSecrets, "The secrets")
WEBHOOK_PINGED = _answer(key_shapes.WebhookPinged, "What it answered")
WEBHOOK_DUE: Responses = {202: {"model": key_shapes.WebhookDue, "description": "It is called soon"}}
AUDIT = _answer(key_shapes.Audit, "What was done")
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


FIELDS: dict[str, dict[str, Any]] = {
    "num_generations": {
        "type": "integer",
        "minimum": 1,
        "maximum": envelope.MAX_GENERATIONS,
        "default": 1,
        "description": "How many pictures of different seeds",
    },
    "target_namespace": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "Told again; a filter of the list",
    },
    "gpu_type": {
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "Run on this GPU type alone, or on the first of several that has a worker",
    },
    "region": {"type": "string", "description": "Run in this region alone"},
    "max_cost_usd": {"type": "number", "exclusiveMinimum": 0, "description": "Run only where it costs no more"},
    "deadline": {
        "type": "number",
        "minimum": 1,
        "description": "Seconds from now after which it is over; up to both limits below together",
    },
    "no_store": {
        "type": "boolean",
        "default": False,
        "description": "Everything about it is erased ten minutes after its end",
    },
    "priority": {
        "type": "string",
        "enum": list(submissions.PRIORITIES),
        "default": "normal",
        "description": "Its place among the tenant's own",
    },
    "custom_id": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "Yours, told again with the generation",
    },
    "metadata": {
        "type": "object",
        "description": f"Yours, told again: at most {envelope.MAX_METADATA} plain values of at most 500 characters",
    },
    "group": {
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "Names what belongs together; a filter of the list",
    },
    "webhook_url": {
        "type": "string",
        "format": "uri",
        "maxLength": MAX_URL,
        "description": "Called once all generations of the request are over",
    },
    "webhook_events": {
        "type": "array",
        "items": {"type": "string", "enum": ["started", "completed"]},
        "default": ["completed"],
        "description": "When it is called",
    },
    "model_version": {"type": "string", "description": "A version of the model; models list theirs"},
    "profile": {
        "type": "string",
        "enum": ["exact", "fast"],
        "description": "How it computes; models list what they offer",
    },
    "parent_generation_id": {"type": "string", "description": "Its result is the first input"},
    "queue_ttl": {
        "type": "number",
        "minimum": 1,
        "description": "Seconds to wait for a worker at the most; up to `DARKROOM_QUEUE_TTL_S`, a day",
    },
    "execution_timeout": {
        "type": "number",
        "minimum": 1,
        "description": "Seconds to run at the most; up to `DARKROOM_EXECUTION_LIMIT_S`, ten minutes",
    },
}
"""Of an edit, whatever its model: what is no picture, and how an answer is formed."""

BATCH = {
    "requestBody": {
        "required": True,
        "description": "A JSON object a line: a body of `POST /api/ai/queue` with a `custom_id`, unlike any other of the batch",
        "content": {"application/jsonl": {"schema": {"type": "string"}}},
    }
}
ENQUEUE = _request({**FIELDS, "response_format": {"type": "string", "enum": ["url"], "default": "url"}})
EDIT = _request({**FIELDS, "response_format": {"type": "string", "enum": ["url", "b64_json"], "default": "url"}})
