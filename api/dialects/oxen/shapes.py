"""The shapes of the queue's answers, for OpenAPI."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from storage.contracts import results


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


class WaitingFor(BaseModel):
    """Why it is not running yet.

    It is `paused` (by the operator), `no_worker` is there, `cold` (a worker will load the model), `loading` (so much of it) or it
    waits for its `turn`.
    """

    reason: Literal["paused", "no_worker", "cold", "loading", "turn"]
    percent: int | None = None


class GenerationAnswer(BaseModel):
    """A generation; submitted parameters stand beside these fields. Times are Unix seconds."""

    model_config = ConfigDict(extra="allow")

    generation_id: str
    model_name: str
    prompt: str
    media_type: str
    status: str
    result_url: str | None
    download_url: str | None
    thumbnail_url: str | None
    group: str | None
    ignored: list[str]
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
    receipt: results.MadeWith | None
    ran_on: RanOn | None
    timings: dict[str, int] | None
    cost_usd: float | None
    eta_ms: int | None = None
    waiting_for: WaitingFor | None = None


class GenerationList(BaseModel):
    """A page of generations."""

    count: int
    generations: list[GenerationAnswer]
    next: str | None


class Erased(BaseModel):
    """What was deleted: generations with prompt and parameters, their events, pictures that came in and went out."""

    generations: int
    events: int
    objects: int


class Cancelled(BaseModel):
    """The generation is terminal now; `effect` says what came of asking. `erased` where that was asked for."""

    status: str
    generation_id: str
    effect: Literal["cancelled", "none", "erased"]
    erased: Erased | None = None


class ErasedAll(BaseModel):
    """Nothing of the tenant's is left but counts and costs."""

    status: str
    effect: Literal["erased"]
    erased: Erased


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


class BatchCounts(BaseModel):
    """Lines by what became of them: no edits, not submitted yet, queued or running, and over."""

    total: int
    refused: int
    waiting: int
    unfinished: int
    succeeded: int
    failed: int
    cancelled: int


class BatchResults(BaseModel):
    """Where the manifest is, and until when (seconds since 1970)."""

    jsonl_url: str
    csv_url: str
    expires_at: int


class Batch(BaseModel):
    """A batch; times in seconds since 1970. `results`: once it is over."""

    batch_id: str
    name: str
    status: Literal["running", "cancelling", "completed", "cancelled"]
    counts: BatchCounts
    created_at: int
    completed_at: int | None
    results: BatchResults | None


class BatchFault(BaseModel):
    """Why a line is no edit."""

    code: str
    message: str
    field: str | None


class BatchLine(BaseModel):
    """A line of the request: which generation it becomes, or why none."""

    line: int
    custom_id: str
    status: Literal["accepted", "refused"]
    generation_id: str | None = None
    error: BatchFault | None = None


class MadeBatch(Batch):
    """An accepted batch."""

    lines: list[BatchLine]


class BatchList(BaseModel):
    """Batches, newest first."""

    batches: list[Batch]
