"""What an endpoint takes, as RunPod documents its public Kontext endpoint, and what that is as a submission."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from api.dialects import base, fields
from api.dialects.runpod import buckets
from api.http import bodies, pictures
from api.service.checks import Names
from storage.contracts import catalog, edits, errors, submissions
from storage.contracts.geometry import Canvas

PICTURES = ("image", "images")
NAMES = Names(size="size", filters="enable_safety_checker", webhook="webhook")
Ratio = Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21", "match_input_image"]
LONGEST_MS = 604_800_000


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What an endpoint does when a request does not say; None: as the catalog has it."""

    steps: int | None = None
    guidance: float | None = None


FAMILIES = {"kontext": Usual(steps=28, guidance=2), "*": Usual()}


class Input(fields.Fields):
    """A job's `input`."""

    PASSES_OVER: ClassVar = True

    prompt: fields.Prompt
    image: fields.Picture = None
    images: fields.Pictures = None
    negative_prompt: fields.NegativePrompt = ""
    size: Annotated[str, Field(max_length=20, description="Width*height in pixels")] = "1024*1024"
    width: Annotated[int | None, Field(ge=64, le=2048, description="Instead of size, with height")] = None
    height: Annotated[int | None, Field(ge=64, le=2048, description="Instead of size, with width")] = None
    aspect_ratio: Annotated[Ratio | None, Field(description="Instead of size")] = None
    num_inference_steps: fields.Steps | None = None
    guidance: Annotated[float | None, Field(ge=0, le=10, description="Guidance scale")] = None
    guidance_scale: Annotated[float | None, Field(ge=0, le=20, description="The same as guidance")] = None
    seed: Annotated[int, Field(ge=-1, le=fields.MAX_WIDE_SEED, description="-1 is random")] = -1
    output_format: Annotated[Literal["png", "jpeg"] | None, Field(description="Format; absent: png")] = None
    image_format: Annotated[Literal["png", "jpeg"] | None, Field(description="The same")] = None
    enable_safety_checker: Annotated[bool, Field(description="Filter")] = True
    disable_safety_checker: Annotated[bool, Field(description="The same, the other way round")] = False
    enable_base64_output: Annotated[bool, Field(description="The picture in the answer")] = False

    @property
    def canvas(self) -> Canvas:
        """The result's shape. Raises `errors.InvalidInputError`."""
        if "size" not in self.model_fields_set:
            size = base.both_sides(self.width, self.height)
            if size is not None:
                return Canvas(size=size)
            if self.aspect_ratio is not None:
                is_input = self.aspect_ratio == "match_input_image"
                return Canvas() if is_input else Canvas(ratio=base.ratio_of(self.aspect_ratio))
        return Canvas(size=base.size_of(self.size, "size"))

    def without_effect(self, model: catalog.Model) -> tuple[str, ...]:
        """See `fields.Fields`."""
        sent = self.model_fields_set
        shapes = [name for name in ("size", "width", "aspect_ratio") if name in sent]
        beaten: set[str] = {*shapes[1:]}
        if "height" in sent and shapes[:1] != ["width"]:
            beaten |= {"height"}
        for other, name in (("output_format", "image_format"), ("guidance", "guidance_scale")):
            if {other, name} <= sent:
                beaten |= {name}
        return (
            *super().without_effect(model),
            *sorted(beaten),
            *base.not_taken(model, sent, guidance=("guidance", "guidance_scale")),
        )


class Policy(fields.Fields):
    """A job's `policy`."""

    PASSES_OVER: ClassVar = True

    executionTimeout: Annotated[int | None, Field(ge=5000, le=LONGEST_MS, description="In ms")] = None  # noqa: N815
    ttl: Annotated[int | None, Field(ge=10_000, le=LONGEST_MS, description="In ms, from submission")] = None
    lowPriority: Annotated[bool, Field(description="After the tenant's other jobs")] = False  # noqa: N815


class Job(fields.Fields):
    """A request's body, for OpenAPI; what RunPod does not document is passed over."""

    input: Annotated[Any, Field(json_schema_extra=Input.model_json_schema())]
    policy: Annotated[Any, Field(json_schema_extra=Policy.model_json_schema())] = None
    s3Config: Annotated[Any, Field(json_schema_extra=buckets.Config.model_json_schema())] = None  # noqa: N815
    webhook: Any = None


async def submission_of(
    body: bodies.Body, *, name: str, model: catalog.Model, own: str, job_prefix: str, idempotency_key: str | None
) -> submissions.Submission:
    """A job as a submission; `own` is our address. Raises `errors.InvalidInputError`."""
    job, input_ = _unwrapped(body.fields)
    sent = Input.check(input_)
    policy = Policy.check(base.object_of(job, "policy"))
    references = await pictures.of_synonyms(input_, PICTURES, bare=True)
    usual = base.of_family(FAMILIES, model)
    negative, true_guidance = base.negative_of(model, sent.negative_prompt)
    guidance = sent.guidance if sent.guidance is not None else sent.guidance_scale
    output_format = sent.output_format or sent.image_format or "png"
    return submissions.Submission(
        edit=edits.Edit(
            model=name,
            prompt=sent.prompt,
            references=tuple(references),
            canvas=sent.canvas,
            steps=sent.num_inference_steps or usual.steps or model.usual_steps,
            guidance=base.guidance_of(model, usual.guidance if guidance is None else guidance),
            negative_prompt=negative,
            true_guidance=true_guidance,
            output_format=output_format,
            filtered=sent.enable_safety_checker and not sent.disable_safety_checker,
            deliver=buckets.delivery(base.object_of(job, "s3Config"), output_format),
        ),
        seed=None if sent.seed == -1 else base.seed_of(sent.seed),
        ignored=submissions.told_names((*sent.without_effect(model), *policy.without_effect(model))),
        queue_ttl_s=policy.ttl and policy.ttl / 1000,
        deadline_s=policy.ttl and policy.ttl / 1000,
        execution_limit_s=policy.executionTimeout and policy.executionTimeout / 1000,
        priority=submissions.LOW_PRIORITY if policy.lowPriority else submissions.PRIORITY,
        webhook=base.webhook_of(
            job.get("webhook") or job.get("webhookV2"), "webhook", "runpod", base=own, note=job_prefix
        ),
        inline=sent.enable_base64_output,
        idempotency_key=idempotency_key,
        echo=pictures.echo(input_),
    )


def _unwrapped(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The job and its input."""
    input_ = body.get("input")
    if isinstance(input_, dict) and isinstance(input_.get("input"), dict):
        # Samples of the asynchronous client wrap what the client wraps once more, with all that stands beside it.
        body = {**body, **input_}
        input_ = body["input"]
    if not isinstance(input_, dict) or not input_:
        raise errors.InvalidInputError("input must be an object with a prompt and an image", field="input")
    return body, input_
