"""Streams a part's layers: their weights lie in host memory and are copied to the GPU ahead of the computing.

A streamed layer's weights have one address on the GPU for good, in one of two slots that such layers take turns in, so compiled
code need not be guarded against moving weights, and memory is exactly two of the largest layer. While a layer computes, the next
one arrives on a copy stream; an event on either side keeps a slot from being overwritten while it is read. On a CPU the same code
copies without streams.

`accelerate` and diffusers' group offloading move all modules they do not recognise as blocks in one piece (for `T5EncoderModel`
and `Mistral3ForConditionalGeneration` that is everything) and allocate anew for each layer; hence this module.
"""

import contextlib
import logging
import weakref
from collections.abc import Sequence
from typing import Any

import torch

log = logging.getLogger(__name__)

ALIGNMENT = 256
"""Bytes to which tensors in a slot are aligned, as CUDA's allocator does."""


class Streamed(torch.nn.Module):  # type: ignore[misc]
    """A layer in its stack, of which the weights arrive before it runs."""

    def __init__(self, layer: torch.nn.Module, ring: "Ring", turn: int) -> None:
        super().__init__()
        self.layer = layer
        # Not modules of this one: what moves or lists weights would see them twice.
        self.__dict__["ring"], self.__dict__["turn"] = ring, turn

    def __getattr__(self, name: str) -> Any:
        """Whatever the stack's owner reads of a layer."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("layer"), name)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The layer's own, between waiting for its weights and letting go of them."""
        self.ring.enter(self.turn)
        try:
            return self.layer(*arguments, **named)
        finally:
            self.ring.leave(self.turn)


class Ring:
    """Layers that run one after the other, and the slots they take turns in."""

    def __init__(
        self, layers: Sequence[torch.nn.Module], device: torch.device, slots: int, *, wraps: bool = True
    ) -> None:
        """`wraps`: after the last layer comes the first, so that it is on its way already."""
        self._wraps = wraps
        self.device = device
        self.slot_bytes = max(packed_bytes(layer) for layer in layers)
        count = min(slots, len(layers))
        self._slots = [torch.empty(self.slot_bytes, dtype=torch.uint8, device=device) for _ in range(count)]
        # Layer by layer, so that host memory holds the weights once and not twice.
        self._host = [_Packed(layer, self._slots[turn % count]) for turn, layer in enumerate(layers)]
        self._on_gpu = device.type == "cuda"
        if self._on_gpu:
            self._copies = torch.cuda.Stream(device)
            self._arrived = [torch.cuda.Event() for _ in layers]
            self._free = [torch.cuda.Event() for _ in self._slots]
        self._holds: list[int | None] = [None] * count
        self.copied_bytes = 0
        """Copied so far: what a test or a benchmark compares with the sum."""

    @property
    def host_bytes(self) -> int:
        """Of the layers' weights in host memory."""
        return sum(packed.nbytes for packed in self._host)

    @property
    def device_bytes(self) -> int:
        """Of the slots just now."""
        return sum(slot.untyped_storage().nbytes() for slot in self._slots)

    def __len__(self) -> int:
        return len(self._host)

    def enter(self, turn: int) -> None:
        """Have a layer's weights there, and the next ones on their way."""
        self._acquire()
        self._send(turn)
        following = (turn + 1) % len(self._host)
        # An odd number of layers: the first and the last one share a slot, and the first waits.
        if following % len(self._slots) != turn % len(self._slots) and (following or self._wraps):
            self._send(following)
        if self._on_gpu:
            torch.cuda.current_stream(self.device).wait_event(self._arrived[turn])

    def leave(self, turn: int) -> None:
        """The layer is done (or will be, on the GPU): its slot may be overwritten by the next but one."""
        slot = turn % len(self._slots)
        if self._on_gpu:
            self._free[slot].record(torch.cuda.current_stream(self.device))

    def release(self) -> None:
        """Give the slots' memory back until the next layer runs."""
        if self._on_gpu:
            torch.cuda.current_stream(self.device).wait_stream(self._copies)
        for index, slot in enumerate(self._slots):
            slot.untyped_storage().resize_(0)
            self._holds[index] = None

    def close(self) -> None:
        """Unpin the host memory."""
        if self._on_gpu:
            torch.cuda.synchronize(self.device)
        for packed in self._host:
            packed.close()

    def _acquire(self) -> None:
        for slot in self._slots:
            if not slot.untyped_storage().nbytes():
                slot.untyped_storage().resize_(self.slot_bytes)

    def _send(self, turn: int) -> None:
        slot = turn % len(self._slots)
        if self._holds[slot] == turn:
            return
        packed = self._host[turn]
        self.copied_bytes += packed.nbytes
        target = self._slots[slot][: packed.nbytes]
        if not self._on_gpu:
            target.copy_(packed.data)
        else:
            if self._holds[slot] is None:
                # Just allocated: what had this memory before was queued before this.
                self._copies.wait_stream(torch.cuda.current_stream(self.device))
            else:
                self._copies.wait_event(self._free[slot])
            with torch.cuda.stream(self._copies):
                target.copy_(packed.data, non_blocking=True)
                self._arrived[turn].record(self._copies)
        self._holds[slot] = turn


def _places(layer: torch.nn.Module) -> list[tuple[torch.Tensor, int, int]]:
    """A layer's tensors, where each begins and how many bytes it has."""
    places, at = [], 0
    for tensor in (*layer.parameters(), *layer.buffers()):
        size = tensor.numel() * tensor.element_size()
        places.append((tensor, at, size))
        at += -(-size // ALIGNMENT) * ALIGNMENT
    return places


def packed_bytes(layer: torch.nn.Module) -> int:
    """Bytes of a layer's tensors one after the other."""
    return sum(-(-size // ALIGNMENT) * ALIGNMENT for _, _, size in _places(layer))


class _Packed:
    """A layer's tensors one after the other in page-locked host memory; the layer's own become views of a slot."""

    def __init__(self, layer: torch.nn.Module, slot: torch.Tensor) -> None:
        self.nbytes = packed_bytes(layer)
        self.data = torch.empty(self.nbytes, dtype=torch.uint8)
        for tensor, at, size in _places(layer):
            self.data[at : at + size].copy_(tensor.detach().contiguous().reshape(-1).view(torch.uint8))
            tensor.data = slot[at : at + size].view(tensor.dtype).view(tensor.shape)
        self._unpin = _pin(self.data)

    @property
    def is_pinned(self) -> bool:
        """Whether its host memory is page-locked."""
        return self._unpin is not None and self._unpin.alive

    def close(self) -> None:
        """Unpin."""
        if self._unpin is not None:
            self._unpin()


def _pin(tensor: torch.Tensor) -> "weakref.finalize[[int], torch.Tensor] | None":
    """Page-lock memory where it lies. Returns what unlocks it, which also happens before the memory is freed.

    PyTorch's own pinned allocator rounds each allocation up to a power of two.
    """
    if not torch.cuda.is_available():
        return None
    runtime = torch.cuda.cudart()
    error = int(runtime.cudaHostRegister(tensor.data_ptr(), tensor.numel(), 0))
    if error != 0:
        _clear_error()
        log.warning("host memory could not be page-locked (error %d): streaming layers will be slow", error)
        return None
    unpin = weakref.finalize(tensor, runtime.cudaHostUnregister, tensor.data_ptr())
    # When the process ends the driver does it.
    unpin.atexit = False
    return unpin


def _clear_error() -> None:
    """CUDA tells what failed once more at the next launch, whatever that is: let it be this one."""
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def streamed(
    stacks: Sequence[torch.nn.ModuleList], turns: Sequence[int], device: str, slots: int, *, wraps: bool = True
) -> Ring:
    """Stream some layers of stacks that run one after the other; `turns` count through all of them. `wraps` is the ring's.

    The layers' weights are taken from where they are. All others, and what lies outside the stacks, stay as they are.
    """
    places = [(stack, index) for stack in stacks for index in range(len(stack))]
    layers = [places[turn][0][places[turn][1]] for turn in turns]
    ring = Ring(layers, torch.device(device), slots, wraps=wraps)
    for turn, (place, layer) in enumerate(zip((places[turn] for turn in turns), layers, strict=True)):
        place[0][place[1]] = Streamed(layer, ring, turn)
    return ring
