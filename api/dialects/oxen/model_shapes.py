"""The shapes of answers about models, workers and use, for OpenAPI."""

from typing import Any

from pydantic import BaseModel, ConfigDict


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
    """Who is there, and how many generations of all tenants wait for each model.

    `text_encoders` encode prompts for workers that have no text encoder loaded.
    """

    workers: list[Worker]
    text_encoders: list[Worker]
    queued: dict[str, int]


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
