"""The peer: an edit service as one writes it in an afternoon. No ledger, no object store, no tenants, no overlap."""

import base64
import io
import json
import os
import time
import uuid
from pathlib import Path

import anyio
import celery
import fastapi
import redis
import redis.asyncio
from PIL import Image

from bench.overhead import pipelines

URL, FOLDER = os.environ["NAIVE_REDIS_URL"], Path(os.environ["NAIVE_FOLDER"])
tasks = celery.Celery("naive", broker=URL)
tasks.conf.update(worker_prefetch_multiplier=1, task_acks_late=True, task_ignore_result=True)
api = fastapi.FastAPI()
store = redis.asyncio.Redis.from_url(URL, max_connections=1000, socket_timeout=None)


@api.post("/edits")
async def enqueue(request: dict[str, str]) -> dict[str, str]:
    job = uuid.uuid4().hex
    await anyio.Path(FOLDER / job).write_bytes(base64.b64decode(request["image"].partition(",")[2]))
    await store.hset(job, mapping={"prompt": request["prompt"], "model": request["model"]})
    await anyio.to_thread.run_sync(lambda: edit.delay(job))
    return {"id": job}


@api.get("/edits/{job}")
async def wait(job: str) -> dict[str, float]:
    return json.loads((await store.blpop([f"done:{job}"]))[1])  # type: ignore[no-any-return, index]


@tasks.task  # type: ignore[untyped-decorator]
def edit(job: str) -> None:
    with redis.Redis.from_url(URL, decode_responses=True) as results:
        request = results.hgetall(job)
        image = Image.open(io.BytesIO((FOLDER / job).read_bytes())).convert("RGB")
        began = time.perf_counter()
        picture = pipelines.edit(request["model"], image, request["prompt"])
        took = time.perf_counter() - began
        picture.save(FOLDER / f"{job}.webp", quality=80)
        results.rpush(f"done:{job}", json.dumps({"execution_ms": took * 1000}))
