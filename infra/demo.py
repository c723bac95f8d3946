"""`python -m infra.demo`: one real photograph through the whole service, on this machine, in a stack of its own.

Exits 0 after stopping what it started; any failure exits otherwise with the reason.
"""

import logging
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import darkroom
from infra import embedded, stack_options

PHOTOGRAPH = Path(__file__).parent / "sample" / "astronaut.jpg"
PROMPT = "Make it black and white"
LIMIT_S = 120


def main() -> None:
    """Start, edit, show, stop."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stack_options.without_proxy(os.environ)
    environment = {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": ".data/demo", **os.environ}
    # It edits with the key that a stack makes for itself.
    environment.pop("DARKROOM_API_KEYS", None)
    try:
        options = stack_options.Options.from_environment(environment)
        print(f"Starting {embedded.parts(options)} …", flush=True)
        with embedded.running(options) as stack:
            print(f"Ready at {stack.url}\n", flush=True)
            _edit(stack)
        print("\nEverything that was started is stopped. `make up` keeps it running.")
    except (stack_options.StartError, darkroom.DarkroomError, OSError) as exc:
        sys.exit(f"demo failed: {exc}")


def _edit(stack: embedded.Stack) -> None:
    with darkroom.Client(stack.url, stack.api_key or "") as service:
        print(f"Editing {PHOTOGRAPH.name}: {PROMPT!r}")
        began = time.monotonic()
        picture = service.edit(
            PHOTOGRAPH, PROMPT, exact_size=True, output_format="png", seed=7, deadline=LIMIT_S, on_event=_print_event
        )
        total_ms = round((time.monotonic() - began) * 1000)
    target = Path("out") / "demo.png"
    target.parent.mkdir(exist_ok=True)
    picture.save(target)
    generation = picture.generation.raw
    queued, executing = generation["delay_ms"], generation["execution_ms"]
    print(
        f"\nSaved     {target} ({generation['width']}x{generation['height']}, {generation['fit']}, seed {generation['seed']})"
    )
    print(f"URL       {generation['result_url']}")
    print(
        f"Expires   {datetime.fromtimestamp(generation['expires_at'], UTC):%Y-%m-%d %H:%M:%S} UTC, after seven days"
        " (of a service that runs: this one stops now)"
    )
    print(f"Time      {queued} ms queued + {executing} ms executing + {total_ms - queued - executing} ms overhead")
    print(f"Weights   {generation['weights']['name']}: {generation['weights']['note']}")


def _print_event(event: darkroom.Event) -> None:
    step = (
        f"step {event.data['step']} of {event.data['steps']}" if "steps" in event.data else event.data.get("status", "")
    )
    print(f"  {event.type:<28} {step}", flush=True)


if __name__ == "__main__":
    main()
