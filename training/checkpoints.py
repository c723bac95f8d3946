"""A run of training that can be stopped and resumed: weights, their running average and the optimizer's, as safetensors."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from training.networks import device

log = logging.getLogger(__name__)

AVERAGING = 0.999
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How a stage is run: until its last step or until the time is up, from the shipped weights or from random ones."""

    minutes: float = 1e9
    anew: bool = False
    fall: bool = False
    """Whether the learning rate falls towards the end of the minutes, for a run that is not to be resumed."""
    seed: int = 0
    """Another one gives other batches of sentences."""
    clip_alone: bool = False
    """Whether of the text encoders only CLIP learns, which takes a third of the time."""


def begun_anew(folder: Path, name: str, *, asked: bool) -> bool:
    """Whether a stage began with random weights; `asked` where it has not begun. Raises `ValueError` if that contradicts."""
    file = folder / f"{name}.safetensors"
    if not file.exists():
        return asked
    anew = bool(_noted(file).get("anew", False))
    if asked and not anew:
        raise ValueError(f"{file} went on from the shipped weights; --anew needs another folder")
    return anew


def _noted(file: Path) -> dict[str, Any]:
    with safe_open(file, "pt") as opened:
        return dict(json.loads(opened.metadata()["course"]))


class Course:
    """The networks under training, by name, with their optimizer. Written to `folder` every so often and at the end."""

    def __init__(
        self,
        folder: Path,
        name: str,
        networks: Mapping[str, nn.Module],
        *,
        rate: float,
        steps: int,
        anew: bool,
    ) -> None:
        self.step = 0
        self.steps = steps
        self.networks = networks
        for network in networks.values():
            network.to(device()).train()
        self._file = folder / f"{name}.safetensors"
        self._log = folder / f"{name}.jsonl"
        self._rate = rate
        self._anew = anew
        self._parameters = {
            f"{part}.{key}": value for part, network in networks.items() for key, value in network.named_parameters()
        }
        self._average = {key: value.detach().clone() for key, value in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            self._resume()

    def _resume(self) -> None:
        self.step = int(_noted(self._file)["step"])
        with safe_open(self._file, "pt") as file:
            for key, parameter in self._parameters.items():
                parameter.data.copy_(file.get_tensor(f"weights.{key}"))
                self._average[key].copy_(file.get_tensor(f"average.{key}"))
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    **{moment: file.get_tensor(f"{moment}.{key}").to(parameter.device) for moment in _MOMENTS},
                }

    def save(self) -> None:
        """Whole or not at all."""
        tensors = {}
        for key, parameter in self._parameters.items():
            tensors[f"weights.{key}"] = parameter.detach()
            tensors[f"average.{key}"] = self._average[key]
            for moment in _MOMENTS:
                # What has not learned yet has none.
                tensors[f"{moment}.{key}"] = self._optimizer.state[parameter].get(moment, torch.zeros_like(parameter))
        partial = self._file.with_suffix(".partial")
        packed = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(packed, partial, {"course": json.dumps({"step": self.step, "anew": self._anew})})
        partial.rename(self._file)

    def averaged(self, *others: Path) -> None:
        """Put the running average in the place of the weights: for looking and for shipping, not for going on.

        With the folders of `others`, that began with the same weights and saw other batches, the mean of all.
        """
        for key, parameter in self._parameters.items():
            parameter.data.copy_(self._average[key])
        for count, folder in enumerate(others, 2):
            with safe_open(folder / self._file.name, "pt") as file:
                for key, parameter in self._parameters.items():
                    parameter.data.lerp_(file.get_tensor(f"average.{key}").to(parameter.device), 1 / count)

    def _paced(self, elapsed: float) -> float:
        """The learning rate: a short rise, a long plateau, and a fall over the last third of the steps, or of the time."""
        rise = min(1.0, (self.step + 1) / 200)
        fall = min(1.0, 3 * (1 - max(self.step / self.steps, elapsed)))
        return self._rate * rise * max(fall, 0.02)

    def run(
        self, loss: Callable[[int], torch.Tensor], limits: Limits, *, look: Callable[[int], None] | None = None
    ) -> None:
        """Go on until all steps are done or the time is up; `look` is called every 1,000 steps."""
        begun = time.monotonic()
        if self.step >= self.steps:
            log.info("nothing to do: %s is at its last step, %d", self._file, self.steps)
            return
        total, count, noted = 0.0, 0, begun
        while self.step < self.steps and (elapsed := (time.monotonic() - begun) / 60 / limits.minutes) < 1:
            for group in self._optimizer.param_groups:
                group["lr"] = self._paced(elapsed if limits.fall else 0.0)
            value = loss(self.step)
            value.backward()
            nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                keep = min(AVERAGING, (self.step + 1) / (self.step + 10))
                torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - keep)
            self.step += 1
            total, count = total + value.item(), count + 1
            if self.step % 50 == 0:
                self._note(total / count, (time.monotonic() - noted) / count)
                if self.step % 250 == 0:
                    self.save()
                if look and self.step % 1000 == 0:
                    look(self.step)
                total, count, noted = 0.0, 0, time.monotonic()
        if self._optimizer.state:
            self.save()

    def _note(self, loss: float, seconds: float) -> None:
        line = {"step": self.step, "loss": round(loss, 5), "seconds_per_step": round(seconds, 3)}
        log.info("%s", line)
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")
