"""Clients: they submit with idempotency keys and repeat what failed, cancel some, and one listens to everything."""

import contextlib
import json
import random
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field

import requests

from infra import embedded
from tests.conftest import TENANTS

TENANT = "alice"
HEADERS = {"Authorization": f"Bearer {TENANTS[TENANT]}"}
TERMINAL_EVENTS = ("media_generation_completed", "media_generation_cancelled")


@dataclass
class Book:
    """What clients know: accepted ids with the seed each asked for, what was cancelled, and what they were told."""

    seeds: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    told: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    cursors: list[str] = field(default_factory=list)
    resumed: int = 0
    doubled_submissions: int = 0


class Submitter(threading.Thread):
    """One client that keeps a few edits under way."""

    def __init__(
        self, stack: embedded.Stack, book: Book, image: str, *, until: float, number: int, pause_s: float
    ) -> None:
        super().__init__(daemon=True)
        self._url = stack.url
        self._book = book
        self._image = image
        self._until = until
        self._pause_s = pause_s
        self._random = random.Random(number)

    def run(self) -> None:
        """Submit, sometimes cancel, until the time is over."""
        with requests.Session() as http:
            while time.monotonic() < self._until:
                ids = self._submit(http)
                if self._random.random() < 0.1 and ids:
                    self._cancel(http, ids[0])
                time.sleep(self._pause_s)

    def end(self) -> None:
        """Submit nothing more."""
        self._until = 0

    def _submit(self, http: requests.Session) -> list[str]:
        seed, count = self._random.getrandbits(32), self._random.choice([1, 1, 1, 2])
        body = {
            "model": self._random.choice(["quick"] * 30 + ["slow"]),
            "prompt": "x",
            "input_image": self._image,
            "seed": seed,
            "num_generations": count,
            "output_format": "png",
            "num_inference_steps": 10,
        }
        headers = {**HEADERS, "Idempotency-Key": str(uuid.uuid4())}
        # Also after the end: what may have been accepted must be known.
        for _ in range(120):
            with contextlib.suppress(requests.RequestException):
                answer = http.post(f"{self._url}/api/ai/queue", json=body, headers=headers, timeout=8)
                if answer.status_code == 200:
                    ids = [one["generation_id"] for one in answer.json()["generations"]]
                    self._book.seeds |= {id_: (seed + n) % 2**32 for n, id_ in enumerate(ids)}
                    return ids
                assert answer.status_code in (429, 503), answer.text
            time.sleep(0.3)
        raise AssertionError("a submission was not accepted within 120 tries")

    def _cancel(self, http: requests.Session, id_: str) -> None:
        time.sleep(self._random.uniform(0, 0.3))
        # It may be heard even when no answer comes.
        self._book.cancelled.add(id_)
        with contextlib.suppress(requests.RequestException):
            http.delete(f"{self._url}/api/ai/queue/{id_}", headers=HEADERS, timeout=8)


class Listener(threading.Thread):
    """Reads every event, hangs up at random, and resumes from its last cursor."""

    def __init__(self, stack: embedded.Stack, book: Book, cursor: str, *, seed: int) -> None:
        super().__init__(daemon=True)
        self._url = stack.url
        self._book = book
        self._cursor = cursor
        self._random = random.Random(seed)
        self.stopping = threading.Event()

    def run(self) -> None:
        """Listen until told to stop."""
        while not self.stopping.is_set():
            with contextlib.suppress(requests.RequestException, AttributeError):
                self._listen()
            self._book.resumed += 1
            self.stopping.wait(0.1)

    def _listen(self) -> None:
        hang_up_after = self._random.randrange(20, 400)
        headers = {**HEADERS, "Last-Event-ID": self._cursor}
        with requests.get(f"{self._url}/api/events", headers=headers, stream=True, timeout=20) as answer:
            if answer.status_code != 200:
                return
            fields: dict[str, str] = {}
            for number, line in enumerate(answer.iter_lines(chunk_size=None, decode_unicode=True)):
                if number > hang_up_after or self.stopping.is_set():
                    return
                name, _, value = line.partition(": ")
                if line and name:
                    fields[name] = value
                elif "event" in fields:
                    self._note(fields)
                    fields = {}

    def _note(self, fields: dict[str, str]) -> None:
        assert fields["event"] != "resync", "the log did not reach back"
        self._cursor = fields["id"]
        if fields["event"] in TERMINAL_EVENTS:
            data = json.loads(fields["data"])
            self._book.told[data["generation_id"]].append(data["status"])
            self._book.cursors.append(fields["id"])
