"""RunPod's routes: jobs on an endpoint, which is a model."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.dialects import base
from api.dialects.runpod import answers, asking
from api.http import bodies
from api.http.access import Caller, IdempotencyKey, ResourcesDep, Tenant, own_url, still
from api.http.hangups import unless_hung_up
from api.resources import Resources
from api.service.accepted import Accepted
from storage.contracts import access, errors
from storage.ledger import presence, records, usage

router = APIRouter(prefix="/v2/{endpoint}", tags=["runpod"])

DEFAULT_WAIT_MS = 90_000

Wait = Annotated[int, Query(ge=1000, le=300_000, description="Milliseconds to wait for the job's end")]


@router.post("/run", openapi_extra=asking.Job.body())
async def run(
    endpoint: str, request: Request, resources: ResourcesDep, caller: Caller, idempotency_key: IdempotencyKey = None
) -> Response:
    """Submit a job."""
    accepted = await _submitted(endpoint, request, resources, caller, idempotency_key, job_prefix="")
    return JSONResponse({"id": answers.job_id(accepted.ids[0]), "status": "IN_QUEUE"})


@router.post("/runsync", openapi_extra=asking.Job.body())
async def run_sync(
    endpoint: str,
    request: Request,
    resources: ResourcesDep,
    caller: Caller,
    wait: Wait = DEFAULT_WAIT_MS,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a job and wait for it; what is unfinished then goes on. A client that hangs up before cancels it."""
    accepted = await _submitted(endpoint, request, resources, caller, idempotency_key, job_prefix=answers.SYNC)
    keep = idempotency_key is not None
    (view,) = await base.waited(request, resources, accepted, seconds=wait / 1000, keep=keep)
    return JSONResponse(await answers.job(view, answers.SYNC))


@router.get("/status/{job_id}")
async def status(
    endpoint: str, job_id: str, resources: ResourcesDep, tenant: Tenant, ttl: str | None = None
) -> Response:
    """A job as it is."""
    view = await resources.reader.one(answers.generation_id(job_id), tenant)
    return JSONResponse(await answers.job(view, answers.prefix_of(job_id)))


@router.get("/status-sync/{job_id}")
async def status_sync(
    request: Request, endpoint: str, job_id: str, resources: ResourcesDep, tenant: Tenant, wait: Wait = DEFAULT_WAIT_MS
) -> Response:
    """A job once it is over, or as it is when the wait runs out."""
    deadline = time.monotonic() + wait / 1000
    waiting = resources.waiter.until_over(answers.generation_id(job_id), tenant, deadline=deadline)
    view = await unless_hung_up(request, waiting)
    await still(request, resources)
    return JSONResponse(await answers.job(view, answers.prefix_of(job_id)))


@router.get("/stream/{job_id}")
async def stream(endpoint: str, job_id: str, resources: ResourcesDep, caller: Caller) -> Response:
    """What has not been taken yet of a job's output: all of it, once, when the job is over.

    A key that only reads takes nothing away.
    """
    tenant, takes = caller.tenant, "submit" in caller.rights.scopes
    view = await resources.reader.one(answers.generation_id(job_id), tenant)
    job = await answers.job(view, answers.prefix_of(job_id))
    taken: list[dict[str, Any]] = []
    is_there = view.result is not None
    if is_there and takes:
        is_there = await resources.archive.change(records.drain(view.id, tenant), view.id, tenant)
    if is_there:
        taken = [{"output": job["output"]}]
    return JSONResponse({"id": job["id"], "status": job["status"], "stream": taken})


@router.post("/cancel/{job_id}")
async def cancel(endpoint: str, job_id: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Cancel a job; on one that is over this has no effect."""
    id_ = answers.generation_id(job_id)
    try:
        await resources.archive.cancel(id_, tenant)
    except errors.NotFoundError:
        raise errors.NotFoundError("job not found") from None
    view = await resources.reader.one(id_, tenant)
    return JSONResponse({"id": job_id, "status": answers.state(view)})


@router.post("/retry/{job_id}")
async def retry(endpoint: str, job_id: str, resources: ResourcesDep, caller: Caller) -> Response:
    """Queue a failed or timed-out job again, under the same id."""
    await resources.submitter.retry(answers.generation_id(job_id), caller)
    return JSONResponse({"id": job_id, "status": "IN_QUEUE"})


@router.post("/purge-queue")
async def purge_queue(endpoint: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """Cancel every queued job of this key; what runs goes on."""
    matching = {"model": resources.catalog.name_of(endpoint), "status": "queued"}
    removed, below = 0, None
    while True:
        views, below = await resources.reader.page(tenant, matching=matching, below=below, limit=200, active_only=True)
        for view in views:
            outcome = await resources.archive.cancel(view.id, tenant, only_queued=True)
            removed += outcome == "cancelled"
        if below is None:
            return JSONResponse({"removed": removed, "status": "completed"})


@router.get("/health")
async def health(endpoint: str, resources: ResourcesDep, tenant: Tenant) -> Response:
    """How many jobs of this key there are, and workers that serve the endpoint."""
    name = resources.catalog.name_of(endpoint)
    tally = await resources.ledger.run(usage.tally(tenant, name))
    workers = (await resources.ledger.run(presence.present())).values()
    serving = [worker for worker in workers if name in worker.get("models", ())]
    running = sum(bool(worker.get("busy")) for worker in serving)
    loading = sum(worker["models"][name].get("state") == "starting" for worker in serving)
    jobs = {
        "completed": tally.succeeded,
        "failed": tally.failed,
        "inProgress": tally.processing,
        "inQueue": tally.queued,
        "retried": tally.retried,
    }
    idle = len(serving) - running
    counts = {"idle": idle, "initializing": loading, "ready": idle, "running": running, "throttled": 0, "unhealthy": 0}
    return JSONResponse({"jobs": jobs, "workers": counts})


async def _submitted(
    endpoint: str,
    request: Request,
    resources: Resources,
    caller: access.Caller,
    idempotency_key: str | None,
    *,
    job_prefix: str,
) -> Accepted:
    name = resources.catalog.name_of(endpoint)
    submission = await asking.submission_of(
        await bodies.read(request),
        name=name,
        model=resources.catalog.models[name],
        own=own_url(request, resources),
        job_prefix=job_prefix,
        idempotency_key=idempotency_key,
    )
    return await base.submitted(request, resources, submission, caller, names=asking.NAMES)
