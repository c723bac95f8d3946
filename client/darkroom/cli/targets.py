"""Models and machines: `models`, `fleet`, `start`, `estimate`, `plan`, `probe`."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from darkroom import probe as probing
from darkroom.cli import options, printing
from darkroom.cli.options import Json, UsageError, service_of

PANEL = "Models and machines"

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="As `darkroom models` lists it.")]


def add_to(application: typer.Typer) -> None:
    """Declare the commands."""
    for function in (models, fleet, start, estimate, plan, probe):
        application.command(rich_help_panel=PANEL)(function)


def models(context: typer.Context, json: Json = False) -> None:
    """List the models."""
    with service_of(context).open() as client:
        listed = client.models()
    if json:
        printing.as_json(listed)
        return
    printing.table(("model", "by", "takes", "weights", "summary"), (_model_row(one) for one in listed))


def _model_row(model: Mapping[str, Any]) -> tuple[object, ...]:
    capabilities = model["capabilities"]
    most = capabilities["most_inputs"]
    pictures = "1 picture" if most == 1 else f"1 to {most} pictures"
    takes = f"text, or {pictures}" if capabilities["text_to_image"] else pictures
    return model["id"], model["developer"]["name"], takes, model["weights"]["name"], model["summary"]


def fleet(context: typer.Context, json: Json = False) -> None:
    """List the workers that are there, and what each has loaded."""
    with service_of(context).open() as client:
        workers = client.fleet()
    if json:
        printing.as_json(workers)
        return
    rows = [
        (
            worker["name"],
            worker["gpu_type"],
            worker["region"],
            "busy" if worker["busy"] else "idle",
            model,
            _state(state),
        )
        for worker in workers
        for model, state in worker["models"].items()
    ]
    printing.table(("worker", "gpu type", "region", "", "model", "state"), rows)
    if not workers:
        printing.note("No worker is there: generations wait until one comes.")


def _state(state: Mapping[str, Any]) -> str:
    more = " ".join(str(value) for name, value in state.items() if name != "state")
    return f"{state['state']} {more}".strip()


def start(context: typer.Context, model: ModelName, json: Json = False) -> None:
    """Have a model loaded before it is needed."""
    with service_of(context).open() as client:
        answer = client.start(model)
    printing.as_json(answer) if json else printing.out.print(f"{model}: {answer.get('status', 'is being started')}")


def estimate(
    context: typer.Context,
    model: ModelName,
    model_profile: options.ModelProfile = None,
    gpu: options.Gpu = None,
    region: options.Region = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    json: Json = False,
) -> None:
    """Tell what an edit is likely to take and cost, target by target."""
    with service_of(context).open() as client:
        expected = client.estimates(
            model, profile=model_profile, gpu_type=gpu, region=region, num_inference_steps=steps
        )
    if json:
        printing.as_json(expected)
        return
    columns = ("gpu type", "region", "state", "p50", "p90", "price", "taken from")
    rows = ((one["gpu_type"], one["region"], one["state"], *_times(one), _price(one), one["basis"]) for one in expected)
    printing.table(columns, rows)


def _times(expected: Mapping[str, Any]) -> tuple[str, str]:
    """What it takes there now, p50 and p90: with loading the model where it is cold and that is known."""
    times = expected["warm_ms"] if expected["state"] == "warm" else expected["cold_ms"] or expected["warm_ms"]
    return (f"{times['p50'] / 1000:.1f} s", f"{times['p90'] / 1000:.1f} s") if times else ("", "")


def _price(expected: Mapping[str, Any]) -> str:
    return f"${expected['cost_usd']['p50']:g}" if expected["cost_usd"] else ""


def plan(
    context: typer.Context,
    model: ModelName,
    gpu: options.Gpu = None,
    model_profile: options.ModelProfile = None,
    json: Json = False,
) -> None:
    """Print a model's execution plan on GPU types, with its memory sums in GB."""
    with service_of(context).open() as client:
        answer = client.plan(model, gpu_type=gpu, profile=model_profile)
    if json:
        printing.as_json(answer)
        return
    for one in answer["placements"]:
        printing.out.print(
            f"{one['gpu_type']:<14} {one['memory_gb']:>6g} GB   {one['placement'] or one['reason']}", markup=False
        )
        if one["placement"] and one["phases_gb"]:
            phases = ", ".join(f"{phase} {gb:.1f}" for phase, gb in one["phases_gb"].items())
            sums = f"{one['total_gb']:>6g} GB = the most of {phases}; host memory {one['host_gb']:.1f}"
            printing.out.print(f"{'':<14} {sums}", markup=False)
    if answer["stand_in"]:
        printing.out.print("This service loads a small stand-in; the sums are of the published weights.")


def probe(
    context: typer.Context,
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL…", help="Default: all.")] = None,
    gpu: options.Gpu = None,
    region: options.Region = None,
    runs: Annotated[int, typer.Option(min=1, help="How many runs a target should have had.")] = 5,
    again: Annotated[bool, typer.Option("--again", help="Whatever has run before.")] = False,
    json: Json = False,
) -> None:
    """Run a standard request where too little is known for estimates."""
    with service_of(context).open() as client:
        known = {one["id"] for one in client.models()}
        unknown = [name for name in models or [] if name not in known]
        if unknown:
            raise UsageError(f"{unknown[0]} is no model here; `darkroom models` lists them")
        count = 0
        for probed in probing.probed(client, models=models or [], gpu_type=gpu, region=region, runs=runs, again=again):
            count += 1
            if json:
                printing.as_json_lines([vars(probed)])
            else:
                times = " ".join(f"{one / 1000:.2f}" for one in probed.times_ms)
                told = f"{probed.model:<24} {probed.gpu_type:<14} {probed.region:<12} {times} s  {probed.fault or ''}"
                printing.out.print(told.rstrip(), markup=False)
    if not count:
        printing.err.print(
            "Nothing was run: no worker serves these, or each target has had its runs (--again runs it again)."
        )
