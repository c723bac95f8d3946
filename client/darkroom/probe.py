"""Runs a standard request on targets of which too little is known, so that estimates have something to stand on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from darkroom.synchronous import Client

PROMPT = "Make the picture black and white"
PICTURE = "data:image/png;base64," + (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGNsaGhgwAaYsIoOWgkAMBcBkGHHl6YAAAAASUVORK5CYII="
)
"""Eight by eight grey pixels: models scale what they read."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A target and what came of its runs: the time of each in milliseconds, or why there is none."""

    model: str
    gpu_type: str
    region: str
    times_ms: tuple[int, ...]
    fault: str | None


def probed(
    service: Client, *, models: Sequence[str], gpu_type: str | None, region: str | None, runs: int, again: bool
) -> Iterator[Probe]:
    """Probe every live target that has had fewer runs than so many, or with `again` every one. Raises `ApiError`."""
    seen = set()
    for worker in service.fleet():
        if gpu_type not in (None, worker["gpu_type"]) or region not in (None, worker["region"]):
            continue
        for model in worker["models"]:
            target = (model, worker["gpu_type"], worker["region"])
            if (models and model not in models) or target in seen:
                continue
            seen.add(target)
            missing = runs if again else runs - _runs(service, *target)
            if missing > 0:
                yield _probe(service, *target, missing)


def _runs(service: Client, model: str, gpu_type: str, region: str) -> int:
    estimates = service.estimates(model, gpu_type=gpu_type, region=region)
    return max((one["runs"] for one in estimates if one["is_measured"]), default=0)


def _probe(service: Client, model: str, gpu_type: str, region: str, runs: int) -> Probe:
    capabilities = service.model(model)["capabilities"]
    picture = None if capabilities["text_to_image"] else PICTURE
    times, fault = [], None
    for seed in range(runs):
        accepted = service.enqueue(
            picture, PROMPT, model=model, aspect_ratio="1:1", gpu_type=gpu_type, region=region, seed=seed
        )
        generation = service.wait(accepted.ids[0])
        if not generation.is_succeeded:
            fault = f"{generation.error_code}: {generation.error_message}"
            break
        times.append(int(generation.raw["execution_ms"]))
    return Probe(model=model, gpu_type=gpu_type, region=region, times_ms=tuple(times), fault=fault)
