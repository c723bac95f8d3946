"""The `darkroom` command line."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

from client import client, probe

BAR = 24
PROFILES = ("exact", "fast")


def main() -> None:
    """Parse arguments, run one command, exit non-zero with the reason when it fails."""
    parser = argparse.ArgumentParser(prog="darkroom", description="Edit pictures with a Darkroom service.")
    parser.add_argument("--url", default=os.environ.get("DARKROOM_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--key", default=os.environ.get("DARKROOM_API_KEY"), help="default: DARKROOM_API_KEY")
    commands = parser.add_subparsers(dest="command", required=True)
    edit = commands.add_parser("edit", help="enqueue an edit, show its progress, save the result")
    edit.add_argument("image", help="a file or an http(s) URL")
    edit.add_argument("prompt")
    edit.add_argument("--out", type=Path, help="where to save; default: <id>.<format>")
    edit.add_argument("--model", default="flux-kontext-dev")
    edit.add_argument("--profile", choices=PROFILES, help="how it computes; default: the model's own")
    edit.add_argument("--gpu", dest="gpu_type", help="run on this GPU type alone")
    edit.add_argument("--region", help="run in this region alone")
    edit.add_argument("--deadline", type=float, help="seconds after which it is over, one way or another")
    edit.add_argument("--max-cost", type=float, dest="max_cost_usd", help="USD; run only where it costs no more")
    edit.add_argument("--seed", type=int)
    edit.add_argument("--steps", type=int, dest="num_inference_steps")
    edit.add_argument("--aspect-ratio", default="match_input_image")
    edit.add_argument("--format", choices=("webp", "jpg", "png"), dest="output_format", default="webp")
    for name, text in (("status", "print a generation"), ("cancel", "cancel a generation")):
        commands.add_parser(name, help=text).add_argument("generation_id")
    plan = commands.add_parser("plan", help="print a model's execution plan on GPU types, with its sums in GB")
    plan.add_argument("model")
    plan.add_argument("--gpu", dest="gpu_type", help="one GPU type; default: all")
    plan.add_argument("--profile", choices=PROFILES, help="default: the model's own")
    commands.add_parser("fleet", help="print the workers that are there")
    probing = commands.add_parser("probe", help="run a standard request where too little is known for estimates")
    probing.add_argument("models", nargs="*", help="default: all")
    probing.add_argument("--gpu", dest="gpu_type", help="one GPU type; default: all")
    probing.add_argument("--region", help="one region; default: all")
    probing.add_argument("--runs", type=int, default=5, help="how many a target should have had")
    probing.add_argument("--again", action="store_true", help="whatever has run before")
    estimate = commands.add_parser("estimate", help="print what an edit is likely to take and cost")
    estimate.add_argument("model")
    estimate.add_argument("--profile", choices=PROFILES, help="default: the model's own")
    estimate.add_argument("--gpu", dest="gpu_type", help="one GPU type; default: all")
    estimate.add_argument("--region", help="one region; default: all")
    estimate.add_argument("--steps", type=int, dest="num_inference_steps")
    usage = commands.add_parser("usage", help="print what this key used, as comma-separated values")
    usage.add_argument("--month", help="such as 2026-11; default: this one")
    arguments = vars(parser.parse_args())
    url, key, command = arguments.pop("url"), arguments.pop("key"), arguments.pop("command")
    if not key:
        sys.exit("darkroom: an API key is needed: --key or DARKROOM_API_KEY")
    try:
        with client.Client(url, key) as service:
            _run(service, command, arguments)
    except (client.ApiError, httpx.HTTPError, OSError) as exc:
        sys.exit(f"darkroom: {exc}")


def _run(service: client.Client, command: str, arguments: dict[str, Any]) -> None:
    if command == "status":
        print(json.dumps(service.generation(arguments["generation_id"]), indent=2))
    elif command == "cancel":
        service.cancel(arguments["generation_id"])
    elif command == "fleet":
        for worker in service.fleet():
            _print_worker(worker)
    elif command == "probe":
        for probed in probe.probed(service, **arguments):
            _print_probe(probed)
    elif command == "estimate":
        for expected in service.estimates(arguments.pop("model"), **arguments):
            _print_expected(expected)
    elif command == "usage":
        _print_usage(service.usage(arguments["month"]))
    elif command == "plan":
        _print_plan(service.plan(arguments.pop("model"), **arguments))
    else:
        image, out = arguments.pop("image"), arguments.pop("out")
        source = image if image.startswith(("http://", "https://")) else Path(image)
        accepted = service.enqueue(source, arguments.pop("prompt"), **arguments)
        generation = follow(service, accepted)
        if generation["status"] != "succeeded":
            sys.exit(f"darkroom: {generation['status']}: {generation['error_message']}")
        target = out or Path(f"{accepted.ids[0]}.{arguments['output_format']}")
        target.write_bytes(service.download(generation["result_url"]))
        print(f"saved {target}")


def follow(service: client.Client, accepted: client.Accepted, *, limit_s: float | None = None) -> Mapping[str, Any]:
    """Print every event of the first accepted generation as it comes; returns the generation once it is terminal.

    Raises `TimeoutError` after `limit_s` seconds.
    """
    id_ = accepted.ids[0]
    _print_events(service.events(since=accepted.cursor, generation_id=id_, limit_s=limit_s))
    return service.generation(id_)


def _print_worker(worker: Mapping[str, Any]) -> None:
    print(
        f"{worker['name']:<24} {worker['gpu_type']:<14} {worker['region']:<12} {'busy' if worker['busy'] else 'idle'}"
    )
    for model, state in worker["models"].items():
        more = " ".join(str(value) for name, value in state.items() if name != "state")
        print(f"  {model:<22} {state['state']:<14} {more}".rstrip())


def _print_probe(probed: probe.Probe) -> None:
    times = " ".join(f"{one / 1000:.2f}" for one in probed.times_ms)
    print(f"{probed.model:<24} {probed.gpu_type:<14} {probed.region:<12} {times} s  {probed.fault or ''}".rstrip())


def _print_expected(expected: Mapping[str, Any]) -> None:
    price = f"  ${expected['cost_usd']['p50']:g}" if expected["cost_usd"] else ""
    print(f"{expected['gpu_type']:<14} {expected['region']:<12} {expected['state']:<10} {expected['basis']}{price}")


def _print_usage(usage: Mapping[str, Any]) -> None:
    columns = ("model", "generations", "megapixels", "gpu_seconds", "cost_usd")
    rows = csv.writer(sys.stdout)
    rows.writerow(("month", *columns))
    rows.writerows((usage["month"], *(one[name] for name in columns)) for one in usage["models"])


def _print_plan(plan: Mapping[str, Any]) -> None:
    for placement in plan["placements"]:
        _print_placement(placement)
    if plan["stand_in"]:
        print("This service loads a small stand-in; the sums are of the published weights.")


def _print_placement(placement: Mapping[str, Any]) -> None:
    print(
        f"{placement['gpu_type']:<14} {placement['memory_gb']:>6g} GB   {placement['placement'] or placement['reason']}"
    )
    if placement["placement"] and placement["phases_gb"]:
        phases = ", ".join(f"{phase} {gb:.1f}" for phase, gb in placement["phases_gb"].items())
        print(f"{'':<14} {placement['total_gb']:>6g} GB = the most of {phases}; host memory {placement['host_gb']:.1f}")


def _print_events(events: Iterable[client.Event]) -> None:
    for event in events:
        detail = ""
        if "steps" in event.data:
            step, steps = event.data["step"], event.data["steps"]
            filled = BAR * step // steps
            detail = f"[{'#' * filled}{'.' * (BAR - filled)}] step {step} of {steps}"
        elif "status" in event.data:
            detail = str(event.data["status"])
        print(f"  {event.type:<28} {detail}", flush=True)
        if event.type in client.TERMINAL_EVENTS:
            return


if __name__ == "__main__":
    main()
