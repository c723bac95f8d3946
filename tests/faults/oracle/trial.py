"""Load on a running stack while something happens to it, and the verdict on what became of everything."""

import threading
import time
from collections.abc import Callable

from PIL import Image

from infra import embedded
from storage import events
from tests.conftest import data_uri, encoded
from tests.faults.oracle import load, verdict


def tried(stack: embedded.Stack, happens: Callable[[], None], *, clients: int, settle_s: float) -> verdict.Verdict:
    """Have so many clients submit and one reader listen for as long as `happens` takes; whatever dies is started again."""
    book, stopping = load.Book(), threading.Event()
    watcher = threading.Thread(target=stack.watch, args=[stopping])
    watcher.start()
    image = data_uri(encoded(Image.new("RGB", (64, 64), "teal"), "PNG"))
    listener = load.Listener(stack, book, events.cursor_at(1), seed=1)
    listener.start()
    # As long as it takes.
    until = time.monotonic() + 10**6
    submitters = [load.Submitter(stack, book, image, until=until, number=n, pause_s=0.3) for n in range(clients)]
    for submitter in submitters:
        submitter.start()
    try:
        happens()
    finally:
        for submitter in submitters:
            submitter.end()
        for submitter in submitters:
            submitter.join()
    found = verdict.reach(stack, book, settle_s=settle_s)
    listener.stopping.set()
    stopping.set()
    watcher.join()
    return found


def lines(found: verdict.Verdict) -> list[str]:
    """What a verdict says."""
    return [
        f"accepted {found.accepted}: {dict(found.statuses)}; {found.second_attempts} took more than one attempt",
        f"lost {len(found.lost)}, doubled {len(found.doubled)}, stuck {len(found.stuck)}",
        *(f"VIOLATION {violation}" for violation in found.violations[:20]),
        "good" if not found.violations else f"{len(found.violations)} violations",
    ]
