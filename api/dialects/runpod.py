"""RunPod serverless: jobs on an endpoint, which is a model. Fields and ranges as its public Kontext endpoint documents them."""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api import bodies, drafts, inputs, problems, waiting
from api.access import Held, IdempotencyKey, Tenant, own_url
from api.dialects import Dialect, Notice
from api.resources import Resources
from api.signatures import standard_webhook
from storage.contracts import edits, errors, generations
from storage.contracts.geometry import Canvas
from storage.contracts.parameters import Declaration, Parameter
from storage.ledger import presence, records, usage

router = APIRouter(prefix="/v2/{endpoint}", tags=["runpod"])

PROMPT = Parameter(type="string", required=True, max_length=10_000, description="The instruction")
RATIOS = ("1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "match_input_image")
INPUT = Declaration(
    {
        "prompt": PROMPT,
        "negative_prompt": Parameter(type="string", default="", max_length=10_000, description="What not to show"),
        "size": Parameter(type="string", default="1024*1024", max_length=20, description="Width*height in pixels"),
        "aspect_ratio": Parameter(type="string", choices=RATIOS, description="Instead of size"),
        "num_inference_steps": Parameter(type="integer", minimum=1, maximum=50, description="Steps"),
        "guidance": Parameter(type="number", minimum=0, maximum=10, description="Guidance scale"),
        "seed": Parameter(type="integer", default=-1, minimum=-1, maximum=edits.MAX_SEED, description="-1 is random"),
        "output_format": Parameter(type="string", default="png", choices=("png", "jpeg"), description="Format"),
        "enable_safety_checker": Parameter(type="boolean", default=True, description="Filter"),
        "disable_safety_checker": Parameter(type="boolean", default=False, description="The same, the other way round"),
        "enable_base64_output": Parameter(type="boolean", default=False, description="The picture in the answer"),
    },
    also=("image", "images"),
)
KONTEXT_STEPS, KONTEXT_GUIDANCE = 28, 2
"""Defaults of the Kontext endpoint; other models have their own."""
POLICY = Declaration(
    {
        "executionTimeout": Parameter(type="integer", minimum=5000, maximum=604_800_000, description="In ms"),
        "ttl": Parameter(type="integer", minimum=10_000, maximum=604_800_000, description="In ms, from submission"),
        "lowPriority": Parameter(type="boolean", default=False, description="After the tenant's other jobs"),
    }
)
S3_FIELDS = ("accessId", "accessSecret", "bucketName", "endpointUrl")
SIGNED_S = int(generations.RESULT_LIFETIME.total_seconds())
DEFAULT_WAIT_MS = 90_000

STATES = {
    generations.Status.QUEUED: "IN_QUEUE",
    generations.Status.PROCESSING: "IN_PROGRESS",
    generations.Status.SUCCEEDED: "COMPLETED",
    generations.Status.FAILED: "FAILED",
    generations.Status.CANCELLED: "CANCELLED",
}
TIMED_OUT = frozenset({errors.TimedOutError.code, errors.ExpiredInQueueError.code})
_ID = re.compile(r"(?:sync-)?([0-9a-f-]{36})(?:-[ue]1)?")

Wait = Annotated[int, Query(ge=1000, le=300_000, description="Milliseconds to wait for the job's end")]


@router.post("/run")
async def run(
    endpoint: str, request: Request, held: Held, tenant: Tenant, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit a job."""
    receipt = await _submit(endpoint, request, held, tenant, idempotency_key, prefix="")
    return JSONResponse({"id": _job_id(receipt.ids[0], ""), "status": "IN_QUEUE"})


@router.post("/runsync")
async def run_sync(
    endpoint: str,
    request: Request,
    held: Held,
    tenant: Tenant,
    wait: Wait = DEFAULT_WAIT_MS,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a job and wait for it; what is unfinished then goes on. A client that hangs up before cancels it."""
    receipt = await _submit(endpoint, request, held, tenant, idempotency_key, prefix="sync-")
    deadline = time.monotonic() + wait / 1000
    found = await waiting.until_terminal_or_hung_up(
        request, receipt.ids[0], tenant, hub=held.hub, ledger=held.ledger, deadline=deadline
    )
    if found is None:
        if idempotency_key is None:
            await held.ledger.run(records.cancel(receipt.ids[0], tenant))
        return Response(status_code=499)
    return JSONResponse(await _with_pixels(_job(found, held, prefix="sync-"), found, held))


@router.get("/status/{job_id}")
async def status(endpoint: str, job_id: str, held: Held, tenant: Tenant, ttl: str | None = None) -> Response:
    """A job as it is."""
    found = await held.ledger.run(records.read(_id(job_id), tenant))
    return JSONResponse(await _with_pixels(_job(found, held, prefix=_prefix(job_id)), found, held))


@router.get("/status-sync/{job_id}")
async def status_sync(endpoint: str, job_id: str, held: Held, tenant: Tenant, wait: Wait = DEFAULT_WAIT_MS) -> Response:
    """A job once it is over, or as it is when the wait runs out."""
    deadline = time.monotonic() + wait / 1000
    found = await waiting.until_terminal(_id(job_id), tenant, hub=held.hub, ledger=held.ledger, deadline=deadline)
    return JSONResponse(await _with_pixels(_job(found, held, prefix=_prefix(job_id)), found, held))


@router.get("/stream/{job_id}")
async def stream(endpoint: str, job_id: str, held: Held, tenant: Tenant) -> Response:
    """What has not been taken yet of a job's output: all of it, once, when the job is over."""
    found = await held.ledger.run(records.read(_id(job_id), tenant))
    job = await _with_pixels(_job(found, held, prefix=_prefix(job_id)), found, held)
    taken: list[dict[str, Any]] = []
    if found.result is not None and await held.ledger.run(records.drain(found.id, tenant)):
        taken = [{"output": job["output"]}]
    return JSONResponse({"id": job["id"], "status": job["status"], "stream": taken})


@router.post("/cancel/{job_id}")
async def cancel(endpoint: str, job_id: str, held: Held, tenant: Tenant) -> Response:
    """Cancel a job; on one that is over this has no effect."""
    if await held.ledger.run(records.cancel(_id(job_id), tenant)) == "missing":
        raise errors.NotFoundError("job not found")
    found = await held.ledger.run(records.read(_id(job_id), tenant))
    return JSONResponse({"id": job_id, "status": _state(found)})


@router.post("/retry/{job_id}")
async def retry(endpoint: str, job_id: str, held: Held, tenant: Tenant) -> Response:
    """Queue a failed or timed-out job again, under the same id."""
    again = records.retry(_id(job_id), tenant, held.submission.limits, budget=held.budgets.of(tenant))
    held.ring((await held.ledger.run(again)).queue)
    return JSONResponse({"id": job_id, "status": "IN_QUEUE"})


@router.post("/purge-queue")
async def purge_queue(endpoint: str, held: Held, tenant: Tenant) -> Response:
    """Cancel every queued job of this key; what runs goes on."""
    name, removed, below = held.catalog.name_of(endpoint), 0, None
    while True:
        listing = records.list_(
            tenant, matching={"model": name, "status": "queued"}, below=below, limit=200, active_only=True
        )
        page = await held.ledger.run(listing)
        for one in page.generations:
            removed += await held.ledger.run(records.cancel(one.id, tenant, only_queued=True)) == "cancelled"
        below = page.continue_below
        if below is None:
            return JSONResponse({"removed": removed, "status": "completed"})


@router.get("/health")
async def health(endpoint: str, held: Held, tenant: Tenant) -> Response:
    """How many jobs of this key there are, and workers that serve the endpoint."""
    name = held.catalog.name_of(endpoint)
    tally = await held.ledger.run(usage.tally(tenant, name))
    fleet = (await held.ledger.run(presence.present())).values()
    serving = [one for one in fleet if name in one.get("models", ())]
    running = sum(bool(one.get("busy")) for one in serving)
    loading = sum(one["models"][name].get("state") == "starting" for one in serving)
    jobs = {
        "completed": tally.succeeded,
        "failed": tally.failed,
        "inProgress": tally.processing,
        "inQueue": tally.queued,
        "retried": tally.retried,
    }
    idle = len(serving) - running
    workers = {"idle": idle, "initializing": loading, "ready": idle, "running": running, "throttled": 0, "unhealthy": 0}
    return JSONResponse({"jobs": jobs, "workers": workers})


async def _submit(
    endpoint: str, request: Request, held: Resources, tenant: str, idempotency_key: str | None, *, prefix: str
) -> records.Receipt:
    name = held.catalog.name_of(endpoint)
    is_kontext = held.catalog.models[name].min_references > 0
    body = (await bodies.read(request)).fields
    asked = body.get("input")
    if isinstance(asked, dict) and isinstance(asked.get("input"), dict):
        # Samples of the asynchronous client wrap what the client wraps once more, with all that stands beside it.
        body = {**body, **asked}
        asked = body["input"]
    if not isinstance(asked, dict) or not asked:
        raise errors.InvalidInputError("input must be an object with a prompt and an image", field="input")
    checked = INPUT.check(asked)
    policy = POLICY.check(_object(body, "policy"))
    pictures = [
        *await inputs.of_value(asked.get("image") or None, "image"),
        *await inputs.of_value(asked.get("images"), "images"),
    ]
    output_format: edits.OutputFormat = "jpeg" if checked["output_format"] == "jpeg" else "png"
    ratio = checked["aspect_ratio"]
    canvas = Canvas(size=drafts.size_of(checked["size"], "size"))
    if ratio is not None and "size" not in asked:
        canvas = Canvas() if ratio == "match_input_image" else Canvas(ratio=drafts.ratio_of(ratio))
    hook = body.get("webhook") or body.get("webhookV2")
    draft = drafts.Draft(
        model=name,
        prompt=checked["prompt"],
        size_field="size",
        references=pictures,
        canvas=canvas,
        steps=checked["num_inference_steps"] or (KONTEXT_STEPS if is_kontext else None),
        guidance=KONTEXT_GUIDANCE if is_kontext and checked["guidance"] is None else checked["guidance"],
        negative_prompt=checked["negative_prompt"].strip() or None,
        seed=None if checked["seed"] == -1 else checked["seed"],
        output_format=output_format,
        filtered=checked["enable_safety_checker"] and not checked["disable_safety_checker"],
        filter_field="enable_safety_checker",
        submitted=inputs.shown(asked),
        queue_ttl_s=policy["ttl"] and policy["ttl"] / 1000,
        execution_limit_s=policy["executionTimeout"] and policy["executionTimeout"] / 1000,
        priority=generations.LOW_PRIORITY if policy["lowPriority"] else generations.PRIORITY,
        callback=drafts.callback_of(hook, "webhook", "runpod", base=own_url(request, held, ""), note=prefix),
        deliver=await _delivery(_object(body, "s3Config"), output_format),
    )
    return await held.submission.submit(drafts.request_of(draft, held, tenant, idempotency_key=idempotency_key))


def _object(body: Mapping[str, Any], field: str) -> dict[str, Any]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.InvalidInputError(f"{field} must be an object", field=field)
    return value


async def _delivery(config: Mapping[str, Any], output_format: edits.OutputFormat) -> edits.Delivery | None:
    """Where the caller's own bucket takes the result. What signs it is used here and kept nowhere."""
    if not config:
        return None
    for field in (*S3_FIELDS, *config):
        value = config.get(field)
        known = field in (*S3_FIELDS, "objectPath", "region")
        if not known or (value is not None and not isinstance(value, str)) or (field in S3_FIELDS and not value):
            allowed = ", ".join((*S3_FIELDS, "objectPath", "region"))
            raise errors.InvalidInputError(
                f"s3Config.{field} is missing, unknown or no string; fields: {allowed}", field="s3Config"
            )
    if not config["endpointUrl"].startswith(("http://", "https://")) or len(config["endpointUrl"]) > inputs.MAX_URL:
        raise errors.InvalidInputError("s3Config.endpointUrl must be an http(s) URL", field="s3Config")
    try:
        return await asyncio.to_thread(_presigned, config, output_format)
    except (BotoCoreError, ValueError):
        # Not in its own words: they may repeat what was sent.
        raise errors.InvalidInputError("s3Config names no bucket that can be addressed", field="s3Config") from None


def _presigned(config: Mapping[str, str], output_format: edits.OutputFormat) -> edits.Delivery:
    client = boto3.client(
        "s3",
        endpoint_url=config["endpointUrl"],
        region_name=config.get("region") or "us-east-1",
        aws_access_key_id=config["accessId"],
        aws_secret_access_key=config["accessSecret"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    folder = (config.get("objectPath") or "").strip("/")
    today = f"{datetime.now(UTC):%Y-%m}"
    name = f"{folder or today}/{secrets.token_hex(8)}.{edits.EXTENSIONS[output_format]}"
    where = {"Bucket": config["bucketName"], "Key": name}
    put = {**where, "ContentType": edits.CONTENT_TYPES[output_format]}
    return edits.Delivery(
        put_url=client.generate_presigned_url("put_object", Params=put, ExpiresIn=SIGNED_S),
        get_url=client.generate_presigned_url("get_object", Params=where, ExpiresIn=SIGNED_S),
    )


def _job_id(id_: str, prefix: str) -> str:
    return f"{prefix}{id_}-u1"


def _prefix(job_id: str) -> str:
    return "sync-" if job_id.startswith("sync-") else ""


def _id(job_id: str) -> str:
    found = _ID.fullmatch(job_id)
    if not found:
        raise errors.NotFoundError("job not found")
    return found[1]


def _state(found: generations.Generation) -> str:
    return "TIMED_OUT" if found.error_code in TIMED_OUT else STATES[found.status]


def _job(found: generations.Generation, held: Resources, *, prefix: str) -> dict[str, Any]:
    """A job as RunPod shows it; times in milliseconds."""
    job: dict[str, Any] = {"id": _job_id(found.id, prefix), "status": _state(found)}
    if found.times.delay_ms is not None:
        job["delayTime"] = found.times.delay_ms
    if found.status.terminal and found.execution_ms is not None:
        job["executionTime"] = found.execution_ms
    if found.worker is not None:
        job["workerId"] = found.worker
    if found.result is not None and found.times.expires_at is not None:
        job["output"] = _output(found, found.result, found.times.expires_at, held)
    elif found.status is generations.Status.PROCESSING and found.step:
        job["output"] = {"step": found.step, "steps": found.edit.steps}
    if found.error_message is not None:
        job |= {"error": found.error_message, "error_code": found.error_code}
    return job


def _output(
    found: generations.Generation, result: generations.Result, expires_at: datetime, held: Resources
) -> dict[str, Any]:
    model = held.catalog.models.get(found.edit.model)
    url = held.objects.signed_url(result.key, expires_at) if expires_at > datetime.now(UTC) else None
    if result.delivered and found.edit.deliver:
        url = found.edit.deliver.get_url
    output = {
        "image_url": url,
        "result": url,
        "cost": model.price_per_image if model else 0.0,
        "seed": found.edit.seed,
        "width": result.width,
        "height": result.height,
    }
    return output if result.delivered is None else {**output, "delivered": result.delivered}


async def _with_pixels(job: dict[str, Any], found: generations.Generation, held: Resources) -> dict[str, Any]:
    if found.result is not None and found.submitted.get("enable_base64_output"):
        job["output"]["image"] = await drafts.data_uri(found.result, held)
    return job


def _problem(request: Request, error: errors.DarkroomError) -> Response:
    message = "endpoint not found" if isinstance(error, errors.ModelNotFoundError) else error.message
    if isinstance(error, errors.UnauthenticatedError):
        message = "unauthorized"
    body: dict[str, Any] = {"error": message, "error_code": error.code}
    if error.field is not None:
        body["field"] = error.field
    return JSONResponse(body, status_code=problems.status(error), headers=problems.headers(error))


async def _notice(held: Resources, found: generations.Generation, moment: generations.Moment) -> Notice:
    callback = found.callback
    job = await _with_pixels(_job(found, held, prefix=callback.note if callback else ""), found, held)
    shown = {**found.submitted, "prompt": found.edit.prompt}
    body = json.dumps({**job, "input": shown, "webhook": callback and callback.url}).encode()
    key = held.signatures.webhook_key(found.tenant)
    return Notice(body=body, headers=standard_webhook(key, id_=found.notice_id(moment), body=body, now=time.time()))


DIALECT = Dialect(
    name="runpod",
    router=router,
    problem=_problem,
    notice=_notice,
    aim=(
        "export RUNPOD_ENDPOINT_BASE_URL={url}/v2",
        "export RUNPOD_API_KEY=<key>",
        'runpod.Endpoint("black-forest-labs-flux-1-kontext-dev").run_sync({"input": {…}})',
    ),
)
