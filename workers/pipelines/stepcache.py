"""Runs the transformer in some denoising steps and extrapolates its output in the others.

Along a rectified flow the predicted velocity changes slowly between the first steps and the last: in a step that is left out it
is extrapolated from the two before, linearly in the noise level, which makes the solver one of second order there. Caches of
features inside the transformer (diffusers' TaylorSeer, FirstBlockCache) leave out the same work, but hook into its layers, which
then compile badly, and do not fit FLUX.2; this stands outside of it. What it changes: docs/performance.md.
"""

from dataclasses import dataclass, field
from typing import Any

import torch

FIRST = 4
"""Steps that always run: the composition is decided there."""

SKIPPING_FROM = 12
"""Denoising steps from which on any are left out; models distilled to four steps never leave out one."""

SPARSE_FROM = 20
"""The same for leaving out two of three instead of every other one."""


def runs(step: int, steps: int) -> bool:
    """Whether the transformer runs in a step, counted from 0, of so many. The last one always does."""
    if steps < SKIPPING_FROM or step < FIRST or step >= steps - 1:
        return True
    every = 3 if steps >= SPARSE_FROM else 2
    return (step - FIRST) % every == every - 1


@dataclass
class _Branch:
    """A sequence of outputs: with a negative prompt there are two."""

    step: int = -1
    outputs: list[tuple[int, torch.Tensor]] = field(default_factory=list)


class StepCache:
    """Stands before a transformer's `forward`. `start` it before each edit."""

    def __init__(self, transformer: Any) -> None:
        self.compute = transformer.forward
        self._pipe: Any = None
        self._branches: dict[int, _Branch] = {}
        self.ran = 0
        """How often the transformer ran since `start`."""
        transformer.forward = self.forward

    def start(self, pipe: Any) -> None:
        """An edit begins, with this pipeline; nothing of the one before is kept."""
        self._pipe, self._branches, self.ran = pipe, {}, 0

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The transformer's output (batch, tokens, channels), computed or extrapolated."""
        branch = self._branches.setdefault(named["encoder_hidden_states"].data_ptr(), _Branch())
        branch.step += 1
        if len(branch.outputs) < 2 or runs(branch.step, self._pipe.num_timesteps):
            self.ran += 1
            output = self.compute(*arguments, **named)
            branch.outputs = [*branch.outputs[-1:], (branch.step, output[0])]
            return output
        (before, earlier), (after, later) = branch.outputs
        # By the noise levels of these steps, which are of unequal length. Tensors: nobody waits for the device to tell a number.
        at = self._pipe.scheduler.sigmas[self._pipe.scheduler.begin_index or 0 :]
        weight = (at[branch.step] - at[after]) / (at[after] - at[before])
        return (later + (later - earlier) * weight.to(later.dtype),)
