"""What came of an edit: the stored picture, what it was made with, and where the time went."""

from datetime import timedelta
from typing import Any

from pydantic import model_validator

from storage.contracts import edits
from storage.contracts.values import Frozen

RESULT_LIFETIME = timedelta(days=7)
"""How long a result can be downloaded after completion, unless less was agreed; SigV4 signs for no longer than 604 800 s."""

NO_STORE_S = 600.0
"""Seconds after its end in which the caller of a generation that is not to be stored can fetch what came of it."""


class MadeWith(Frozen):
    """What a result was made with, so that it can be made again: the receipt.

    `seed`, `steps`, `guidance` and `upsample_temperature` as they were used; `revision` of the weights; `dtype`, `profile` and
    `placement` (the execution plan in short) of the model on the `gpu`; `libraries` by name.
    """

    model: str
    weights: str
    revision: str | None
    pipeline: str
    seed: int
    steps: int
    guidance: float
    upsample_temperature: float | None = None
    lora_scale: float | None = None
    rendered: str
    dtype: str
    profile: str = "exact"
    placement: str
    gpu_type: str
    gpu: str
    libraries: dict[str, str]

    @classmethod
    def of(cls, edit: edits.Edit, **made: Any) -> "MadeWith":
        """The receipt of an edit, with what it was `made` with: a field that has the name of one of the edit's is that one."""
        own = {name: getattr(edit, name) for name in cls.model_fields if name in edits.Edit.model_fields}
        return cls(**{**own, "upsample_temperature": edit.upsample_temperature or None, **made})


class Timings(Frozen):
    """Where the time went, in milliseconds: in the queue, loading the model (0: it was there), computing, uploading."""

    queue_ms: int
    load_ms: int
    execute_ms: int
    upload_ms: int


class Result(Frozen):
    """The stored picture: its object key, size in pixels and bytes, how it was fitted and what made it.

    `execution_ms` is the pipeline's own time, from text encoding to decoded pixels.
    """

    key: str
    content_type: str
    width: int
    height: int
    size_bytes: int
    fit: str
    execution_ms: int
    receipt: MadeWith | None = None
    cost_usd: float | None = None
    timings: Timings | None = None
    upsampled_prompt: str | None = None
    """What the model was told instead of the prompt, when that was written anew."""
    delivered: bool | None = None
    """Whether it also lies in the caller's own bucket; None: that was not asked for."""

    @model_validator(mode="before")
    @classmethod
    def _as_once_recorded(cls, value: object) -> object:
        # 0.1's first records named the weights and had no receipt.
        return {name: one for name, one in value.items() if name != "weights"} if isinstance(value, dict) else value
