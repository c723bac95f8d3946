"""What is queued on two CUDA streams, followed on a CPU: no layer computes before its weights are there, or after they went.

Streams and events are recorded instead of carried out; what happens before what is worked out from that.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from workers.pipelines import streams


@dataclass
class Queue:
    """A stream: for each operation, how much of every stream is over before it begins."""

    name: str
    recorder: "Recorder"
    after: dict[str, int] = field(default_factory=dict)
    length: int = 0

    def add(self) -> int:
        self.length += 1
        self.after[self.name] = self.length
        return self.length

    def wait_event(self, event: "Event") -> None:
        for name, position in event.after.items():
            self.after[name] = max(self.after.get(name, 0), position)

    def wait_stream(self, other: "Queue") -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)


@dataclass
class Event:
    """A point in a stream. Waiting for one that was never recorded waits for nothing, as with CUDA."""

    after: dict[str, int] = field(default_factory=dict)

    def record(self, stream: Queue) -> None:
        self.after = dict(stream.after)


@dataclass
class Recorder:
    """Two streams, what was copied into which slot, and which layer read it."""

    queues: dict[str, Queue] = field(default_factory=dict)
    current: str = "compute"
    copies: dict[int, tuple[int, int]] = field(default_factory=dict)
    reads: dict[int, list[int]] = field(default_factory=dict)
    copied: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queues = {name: Queue(name, self) for name in ("compute", "copies")}

    def copy(self, slot: int, turn: int) -> None:
        queue = self.queues["copies"]
        for position in self.reads.get(slot, []):
            assert queue.after.get("compute", 0) >= position, f"slot {slot} is overwritten while a layer reads it"
        self.copies[slot] = (turn, queue.add())
        self.copied.append(turn)

    def compute(self, slot: int, turn: int) -> None:
        queue = self.queues["compute"]
        there, position = self.copies[slot]
        assert there == turn, f"layer {turn} would compute with the weights of layer {there}"
        assert queue.after.get("copies", 0) >= position, f"layer {turn} computes before its weights arrived"
        self.reads.setdefault(slot, []).append(queue.add())


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()

    @contextlib.contextmanager
    def on(stream: Queue) -> Iterator[None]:
        before, recorder.current = recorder.current, stream.name
        yield
        recorder.current = before

    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: recorder.queues["compute"])
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    return recorder


def _ring(recorder: Recorder, count: int) -> tuple[streams.Ring, torch.nn.ModuleList]:
    """A ring that believes to be on a GPU, and notes what it copies."""
    stack = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(count))
    ring = streams.streamed([stack], tuple(range(count)), "cpu", 2)
    ring._on_gpu, ring._copies = True, recorder.queues["copies"]  # type: ignore[assignment]
    ring._arrived = [Event() for _ in range(count)]  # type: ignore[misc]
    ring._free = [Event() for _ in ring._slots]  # type: ignore[misc]
    slots = len(ring._slots)
    for turn, packed in enumerate(ring._host):
        packed.data = _Noted(packed.data, recorder, turn % slots, turn)  # type: ignore[assignment]
    for turn, layer in enumerate(stack):
        layer.layer.register_forward_pre_hook(lambda *_, turn=turn: recorder.compute(turn % slots, turn))
    return ring, stack


class _Noted(torch.Tensor):
    """Host memory that says when it is copied to a slot, and on which stream."""

    @staticmethod
    def __new__(cls, data: torch.Tensor, *_: Any) -> "_Noted":
        return torch.Tensor._make_subclass(cls, data)

    def __init__(self, data: torch.Tensor, recorder: Recorder, slot: int, turn: int) -> None:
        self.noted = (recorder, slot, turn)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function is torch.Tensor.copy_ and isinstance(arguments[1], _Noted):
            recorder, slot, turn = arguments[1].noted
            assert recorder.current == "copies", "copied on the stream that computes"
            recorder.copy(slot, turn)
        with torch._C.DisableTorchFunctionSubclass():
            return function(*arguments, **(named or {}))


def _run(stack: torch.nn.ModuleList, layers: int | None = None) -> None:
    with torch.inference_mode():
        values = torch.zeros(1, 4)
        for layer in list(stack)[:layers]:
            values = layer(values)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7])
def test_layers_wait_for_their_weights_and_weights_for_their_slot(recorder: Recorder, count: int) -> None:
    _, stack = _ring(recorder, count)
    for _ in range(4):
        _run(stack)
    # Two layers have a slot each for good; of more, those that share one are copied each time.
    assert len(recorder.copied) == count if count <= 2 else len(recorder.copied) >= 2 * count


@pytest.mark.parametrize("stopped_after", [1, 2, 3, 4])
def test_a_run_that_was_cut_off_disturbs_nothing_after_it(recorder: Recorder, stopped_after: int) -> None:
    _, stack = _ring(recorder, 5)
    _run(stack)
    _run(stack, stopped_after)
    for _ in range(3):
        _run(stack)


@pytest.mark.parametrize("count", [2, 4, 5])
def test_slots_that_were_given_back_are_filled_anew(recorder: Recorder, count: int) -> None:
    ring, stack = _ring(recorder, count)
    for _ in range(3):
        _run(stack)
        before = recorder.queues["compute"].after.get("copies", 0)
        ring.release()
        assert recorder.queues["compute"].after["copies"] >= before
        assert recorder.queues["compute"].after["copies"] == recorder.queues["copies"].length, "no copy is under way"


def test_the_next_layer_is_on_its_way_while_one_computes(recorder: Recorder) -> None:
    _, stack = _ring(recorder, 4)
    _run(stack, 1)
    assert recorder.copied == [0, 1]
