"""What workers need to be told beyond the stores."""

import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from storage.settings import StoreSettings
from workers.filters import WORDS_FILE


class WorkerSettings(StoreSettings):
    """Shared by GPU and housekeeping workers: the numbers that recovery is made of."""

    worker_name: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    """What a worker is called in the fleet and in receipts; by default host and process."""

    lease_s: Annotated[float, Field(gt=0)] = 10
    """How long a worker may be silent before its generation is given to another."""

    beat_s: Annotated[float, Field(gt=0)] = 2
    """How often a lease is renewed, at least twice in its time: by default four beats may be lost before the lease is."""

    sweep_s: Annotated[float, Field(gt=0)] = 1
    """How often the housekeeping worker looks for lost leases and missing tickets."""

    archive_after_s: Annotated[float, Field(gt=0, le=86_400)] = 600
    """Seconds after a generation's end in which its record stays in Redis; then it moves to the object store."""

    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a generation is tried when what stops it is transient."""

    max_losses: Annotated[int, Field(ge=1)] = 2
    """How often a generation may take its worker down with it before it is parked, as `worker_lost` or `gpu_fault`."""

    @model_validator(mode="after")
    def _leases_are_renewed(self) -> Self:
        if self.beat_s > self.lease_s / 2:
            raise ValueError(
                f"DARKROOM_BEAT_S: at most half of DARKROOM_LEASE_S, {self.lease_s / 2:g}; got {self.beat_s:g}"
            )
        return self


class GpuSettings(WorkerSettings):
    """A worker bound to one GPU."""

    gpu_type: str = "cpu"
    """The device's name in the catalog; decides which queues are served."""

    region: str = "local"
    """Where it is, as the catalog spells it."""

    models: tuple[str, ...] = ()
    """Models to serve, as JSON; empty means all that the catalog lists for this GPU type."""

    preload: tuple[str, ...] = ()
    """Models to load before the first edit and to keep until the worker stops, as JSON. Others are loaded when work asks."""

    keep_warm_s: Annotated[float, Field(ge=0)] = 900
    """Seconds a model stays on the device after its last use."""

    affinity_s: Annotated[float, Field(ge=0)] = 30
    """Work for a loaded model goes first, until other work has waited this long."""

    text_encoding: Literal["here", "either", "elsewhere"] = "either"
    """Where prompts are encoded: `here`, beside the transformer; `elsewhere`, by a worker of text encoders; `either`, by such a
    worker if it is there when the model is loaded and if that saves streaming weights."""

    encode_limit_s: Annotated[float, Field(gt=0)] = 30
    """Seconds that a prompt encoded elsewhere is waited for; then the model is loaded anew, with its text encoder."""

    defer_s: Annotated[float, Field(ge=0)] = 3
    """Work for a model that is loaded elsewhere and not here is left to those workers for so long."""

    load_limit_s: Annotated[float, Field(gt=0)] = 1800
    """A model that takes longer to load hangs, and its process is ended."""

    compile_cache: Path | None = None
    """Folder in which compiled code is kept between starts; by default where torch puts it,
    in a temporary folder."""

    workers_on_host: Annotated[int, Field(ge=1)] = 1
    """GPU workers that share this machine's memory, in which weights may be kept. `infra.each_gpu` sets it."""

    weights_dir: Path = Path("weights")
    """Folder of local weights; a model whose `source` is no folder in it is loaded from the hub."""

    look_ahead_s: Annotated[float, Field(ge=0)] = 3
    """So many seconds of the pipeline's work are prepared ahead at the most. Longer would keep work from idle GPUs; shorter than
    preparing takes would leave this one idle."""

    rest_s: Annotated[float, Field(ge=0)] = 2
    """Seconds a generation rests before it is tried again; doubled with each attempt, halved at most by chance."""

    load_rest_s: Annotated[float, Field(ge=0)] = 10
    """Seconds in which a worker claims no work for a model that it could not load: another one may do better."""

    stall_limit_s: Annotated[float, Field(gt=0)] = 300
    """A pipeline that finishes no step for this long hangs, and its process is ended. Compiling may take minutes."""

    grace_s: Annotated[float, Field(ge=0)] = 120
    """Seconds a worker told to stop has to finish what it holds; then it hands it back."""

    filtered_words: Path = WORDS_FILE
    """Phrases that no prompt may contain, one a line."""

    image_filter: str = "Falconsai/nsfw_image_detection"
    """An image classifier that looks at inputs and results: a folder below the weights directory or a repository on the hub.
    Empty goes without; the models' licences then ask for a review by people."""

    image_filter_labels: tuple[str, ...] = ("nsfw",)
    """Labels of it that are refused, as JSON."""

    image_filter_threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Probability of those labels from which on a picture is refused."""

    decoders: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that decode pictures beside the pipeline."""

    decode_memory_mb: Annotated[int, Field(ge=256)] = 2048
    """MiB that decoding one picture may take. A lossless WebP of 50 megapixels with transparency takes 1,350."""

    decode_limit_s: Annotated[float, Field(gt=0)] = 10
    """Seconds of processor time that decoding one picture may take."""

    fetch_limit_s: Annotated[float, Field(gt=0)] = 15
    """Seconds an input's URL may take in all."""
