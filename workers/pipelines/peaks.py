"""How much memory an edit takes."""

import torch


class Peaks:
    """The most memory that each phase of an edit took, by the allocator's own count, in GB without the CUDA context."""

    def __init__(self) -> None:
        self.gb: dict[str, float] = {}
        self._kept = False

    def start(self) -> None:
        """An edit starts, unless it was said to go on."""
        if not self._kept:
            self.gb = {}
            self._reset()
        self._kept = False

    def keep(self) -> None:
        """What starts next belongs to the same edit."""
        self._kept = True

    def ended(self, phase: str) -> None:
        """A phase is over, as far as memory is concerned: allocations happen when work is queued, not when it is done."""
        if torch.cuda.is_available():
            self.gb[phase] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
            self._reset()

    def _reset(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
