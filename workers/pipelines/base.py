"""What a pipeline is to the rest of the worker."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Protocol

from PIL import Image

from storage.contracts import edits
from storage.contracts.geometry import Size

OnStep = Callable[[int], None]
"""Told how many denoising steps are done. What it raises ends the edit at once and leaves the pipeline usable."""

OnToken = Callable[[], None]
"""Called before each token of a prompt that is written anew. What it raises ends that at once."""

OnPreview = Callable[[Image.Image], None]
"""Shown how the picture looks so far, a pixel for every sixteen."""

OnLoaded = Callable[[float], None]
"""Told which share of a model, 0 to 1, is loaded."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """An edit ready for the GPU: decoded references at the sizes the model reads, and the exact output size in pixels.

    `mask` (mode L, white is painted anew) and the first reference have the output's size when there is a mask.
    """

    prompt: str
    references: Sequence[Image.Image]
    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    negative_prompt: str | None = None
    true_guidance: float = 1.0
    mask: Image.Image | None = None
    strength: float = 1.0
    lora_scale: float | None = None
    encoded: Mapping[str, bytes] = field(default_factory=dict)
    """Prompts that another worker encoded, to what came of it (`Pipeline.text`)."""

    @classmethod
    def of(cls, edit: edits.Edit, *, references: Sequence[Image.Image], mask: Image.Image | None, size: Size) -> "Job":
        """What an edit asks for, with its pictures: a field here that has the name of one of the edit's is that one."""
        own = {field.name for field in fields(cls)} & set(edits.Edit.model_fields) - {"references", "mask"}
        own_fields = {name: getattr(edit, name) for name in own}
        return cls(**own_fields, references=references, mask=mask, width=size.width, height=size.height)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a loaded pipeline is, for receipts: its class, precision, execution plan, the device and the libraries.

    `phases_gb` is the most memory that each phase of its last edit (encode, denoise, decode) took, where the device counts it;
    `planned_gb` what its plan says that they take at the most.
    """

    pipeline: str
    dtype: str
    plan: str
    profile: str
    device: str
    libraries: Mapping[str, str]
    revision: str | None = None
    phases_gb: Mapping[str, float] = field(default_factory=dict)
    planned_gb: Mapping[str, float] = field(default_factory=dict)

    @property
    def peak_gb(self) -> float | None:
        """The most of all phases."""
        return max(self.phases_gb.values(), default=None)


class Pipeline(Protocol):
    """A loaded model."""

    def upsample(self, job: Job, temperature: float, on_token: OnToken) -> str:
        """The job's prompt, written anew in more words by the model's own language model, which sees the references too.

        `temperature` is above 0, to 2. The same job and temperature give the same words. Only asked of models whose weights
        are loaded with the whole text encoder. Raises as `edit`, and whatever `on_token` raises.
        """
        ...

    @property
    def facts(self) -> Facts:
        """What it is."""
        ...

    @property
    def encodes(self) -> bool:
        """Whether it encodes prompts; if not, `edit` needs what a worker of text encoders made of them (`Job.encoded`)."""
        ...

    def text(self, prompt: str) -> bytes:
        """What its large text encoder makes of a prompt, as safetensors: `embeddings`, (1, tokens, width). Raises as `edit`."""
        ...

    def edit(self, job: Job, on_step: OnStep, on_preview: OnPreview | None = None) -> Image.Image:
        """Run the denoising loop. Returns an RGB picture of exactly `job.width` x `job.height`.

        Raises `errors.OutOfMemoryError`, `errors.GpuFaultError` and whatever `on_step` raises.
        """
        ...

    def postpone_compiling(self) -> bool:
        """Compute eagerly until `warm_up`, so that the first edit need not wait for it. False: there is nothing to postpone."""
        ...

    def warm_up(self, job: Job) -> None:
        """Run a job of the usual size once, so that what is compiled or tuned at the first call is ready before work is timed.

        Where this machine cannot compile, it computes eagerly from now on, and its `facts` say so.
        Raises as `edit`.
        """
        ...

    def close(self) -> None:
        """Give its memory back. Nothing else is asked of it afterwards."""
        ...
