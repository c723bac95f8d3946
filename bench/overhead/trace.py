"""`python -m bench.overhead.trace`: what each step of accepting an edit costs.

The API runs in this process, on a real Valkey and a real S3 server; each step is timed where it is called.
"""

import asyncio
import functools
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import uvloop

from api.app import create_app
from api.dialects.oxen import answers, asking
from api.http import bodies, pictures
from api.service import checks, route, submit
from api.service.objects import AsyncObjects
from api.settings import ApiSettings
from bench.overhead.__main__ import photograph
from infra import embedded, stack_options
from storage.ledger.execution import AsyncRedisLedger

ROUNDS, WARM_UP = 300, 20

STEPS: tuple[tuple[str, Any, str], ...] = (
    ("read the body", bodies, "read"),
    ("read the picture", pictures, "of_field"),
    ("make the submission", asking, "submission_of"),
    ("check it", checks, "check"),
    ("find its queue", route.Router, "route"),
    ("store the picture", AsyncObjects, "put"),
    ("accept in the ledger", AsyncRedisLedger, "run"),
    ("submit in all", submit.Submitter, "submit"),
    ("word the answer", answers, "accepted"),
)


@contextmanager
def timed(seconds: dict[str, list[float]]) -> Iterator[None]:
    """While every step notes how long it took."""

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        if asyncio.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                began = time.perf_counter()
                try:
                    return await function(*args, **kwargs)
                finally:
                    seconds[name].append(time.perf_counter() - began)

            return coroutine

        @functools.wraps(function)
        def plain(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name].append(time.perf_counter() - began)

        return plain

    patches = [mock.patch.object(owner, name, wrapped(step, getattr(owner, name))) for step, owner, name in STEPS]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


async def trace(stack: embedded.Stack) -> dict[str, list[float]]:
    """Seconds of each step of many requests, one after the other."""
    settings = ApiSettings(**{**stack.store.model_dump(by_alias=True), "api_key": stack.api_key})
    app = create_app(settings)
    seconds: dict[str, list[float]] = defaultdict(list)
    body = {"model": "sleep-20", "prompt": "x", "input_image": photograph(), "aspect_ratio": "match_input_image"}
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://bench", headers={"Authorization": f"Bearer {stack.api_key}"}
        ) as client,
    ):

        async def accept() -> None:
            began = time.perf_counter()
            answer = await client.post("/api/ai/queue", json=body)
            seconds["the whole request"].append(time.perf_counter() - began)
            assert answer.status_code == 200, answer.text
            # The next is traced when nothing else is under way.
            id_ = answer.json()["generations"][0]["generation_id"]
            await client.get(f"/api/ai/queue/{id_}", params={"wait": 30})

        for _ in range(WARM_UP):
            await accept()
        seconds.clear()
        with timed(seconds):
            for _ in range(ROUNDS):
                await accept()
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
        os.environ["DARKROOM_CATALOG"] = f"{shipped}:{Path(__file__).parent / 'catalog.toml'}"
        os.environ |= {"DARKROOM_PORT": "0", "DARKROOM_DATA_DIR": str(Path(name) / "stack")}
        with (
            embedded.running(stack_options.Options.from_environment(os.environ)) as stack,
            # The loop that the API runs on.
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            seconds = runner.run(trace(stack))
    print("| step | p50, ms | p99, ms |\n|---|---|---|")
    for step in (*(step for step, *_ in STEPS), "the whole request"):
        spent = [1000 * one for one in seconds[step]]
        p99 = statistics.quantiles(spent, n=100)[98]
        print(f"| {step} | {statistics.median(spent):.2f} | {p99:.2f} |")


if __name__ == "__main__":
    main()
