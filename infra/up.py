"""`python -m infra.up`: the embedded stack until Ctrl-C or SIGTERM (`make up`)."""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import darkroom
from infra import embedded, stack_options
from infra.children import Child
from storage import setting_names
from storage.settings import reason
from storage.signals import SignalEvent


def main() -> None:
    """Run a stack until Ctrl-C or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping, editing = SignalEvent(), list[Child]()

    def stop(number: int, frame: FrameType | None) -> None:
        if stopping.is_set():
            for worker in editing:
                worker.terminate()
        stopping.set()

    started = _interrupt_until_started(stop)
    try:
        stack_options.without_proxy(os.environ)
        options = stack_options.Options.from_environment(os.environ)
        setting_names.warn(os.environ)
        print(f"Starting {embedded.parts(options)} …", flush=True)
        with embedded.running(options) as stack:
            editing += [child for name, child in stack.children.items() if name.startswith("worker")]
            started()
            print(f"Darkroom is ready at {stack.url}")
            print(f"  page  {_page(stack)}")
            print(f"  key   {stack.api_key or 'as DARKROOM_API_KEYS has them'}")
            print(f"  data  {options.data_dir}")
            print(f"  logs  {options.data_dir / 'logs'}")
            told = {"DARKROOM_API_KEY": stack.api_key} if stack.api_key else {}
            if stack.url != stack_options.url({}, stack_options.DEFAULT_PORT):
                told["DARKROOM_URL"] = stack.url
            if told:
                print("For clients:\n  export", *(f"{name}={value}" for name, value in told.items()))
            print("Stop with Ctrl-C.", flush=True)
            stack.watch(stopping)
            print("Stopping when running edits are finished. Ctrl-C again puts them back into the queue.", flush=True)
    except stack_options.StartError as exc:
        sys.exit(f"darkroom: {exc}")
    except ValueError as exc:
        sys.exit(f"darkroom: {reason(exc)}")
    except KeyboardInterrupt:
        sys.exit("darkroom: stopped while starting")


def _page(stack: embedded.Stack) -> str:
    """A link to the page, which signs in once where the stack has a key of its own."""
    if stack.api_key is None:
        return stack.url
    with contextlib.suppress(darkroom.UnreachableError), darkroom.Client(stack.url, stack.api_key) as service:
        return f"{stack.url}/#sign-in={service.token('page', expires_in_s=3600)}"
    # Its certificate names another.
    return stack.url


def _interrupt_until_started(after: Callable[[int, FrameType | None], None]) -> Callable[[], None]:
    """While the stack starts, both signals interrupt; the returned call makes them ask politely instead."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def install(handler: Callable[[int, FrameType | None], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)

    install(interrupt)
    return lambda: install(after)


if __name__ == "__main__":
    main()
