"""A run of training that can be stopped and resumed: weights, their running average and the optimizer's, as safetensors."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

log = logging.getLogger(__name__)

AVERAGING = 0.999
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Course:
    """The networks under training, by name, with their optimizer. Written to `folder` every so often and at the end."""

    def __init__(self, folder: Path, name: str, networks: Mapping[str, nn.Module], *, rate: float, steps: int) -> None:
        self.step = 0
        self.steps = steps
        self.networks = networks
        self._file = folder / f"{name}.safetensors"
        self._log = folder / f"{name}.jsonl"
        self._rate = rate
        self._parameters = {
            f"{part}.{key}": value for part, network in networks.items() for key, value in network.named_parameters()
        }
        self._average = {key: value.detach().clone() for key, value in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        folder.mkdir(parents=True, exist_ok=True)
        if self._file.exists():
            self._resume()

    def _resume(self) -> None:
        with safe_open(self._file, "pt") as file:
            self.step = int(json.loads(file.metadata()["course"])["step"])
            for key, parameter in self._parameters.items():
                parameter.data.copy_(file.get_tensor(f"weights.{key}"))
                self._average[key].copy_(file.get_tensor(f"average.{key}"))
                moments = {moment: file.get_tensor(f"{moment}.{key}") for moment in _MOMENTS}
                self._optimizer.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}

    def save(self) -> None:
        """Whole or not at all."""
        tensors = {}
        for key, parameter in self._parameters.items():
            tensors[f"weights.{key}"] = parameter.detach()
            tensors[f"average.{key}"] = self._average[key]
            for moment in _MOMENTS:
                tensors[f"{moment}.{key}"] = self._optimizer.state[parameter][moment]
        partial = self._file.with_suffix(".partial")
        packed = {key: tensor.contiguous() for key, tensor in tensors.items()}
        save_file(packed, partial, {"course": json.dumps({"step": self.step})})
        partial.rename(self._file)

    def averaged(self) -> None:
        """Put the running average in the place of the weights: for looking and for shipping, not for going on."""
        for key, parameter in self._parameters.items():
            parameter.data.copy_(self._average[key])

    def _paced(self) -> float:
        """The learning rate: a short rise, a long plateau, and a fall over the last third."""
        rise = min(1.0, (self.step + 1) / 200)
        fall = min(1.0, (self.steps - self.step) / (self.steps / 3))
        return self._rate * rise * max(fall, 0.02)

    def run(
        self, loss: Callable[[int], torch.Tensor], *, minutes: float, look: Callable[[int], None] | None = None
    ) -> None:
        """Go on until all steps are done or the time is up; `look` is called every 1,000 steps."""
        until, noted = time.monotonic() + minutes * 60, time.monotonic()
        total = 0.0
        while self.step < self.steps and time.monotonic() < until:
            for group in self._optimizer.param_groups:
                group["lr"] = self._paced()
            value = loss(self.step)
            value.backward()
            nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                keep = min(AVERAGING, (self.step + 1) / (self.step + 10))
                torch._foreach_lerp_(list(self._average.values()), list(self._parameters.values()), 1 - keep)
            self.step += 1
            total += value.item()
            if self.step % 50 == 0:
                self._note(total / 50, time.monotonic() - noted)
                total, noted = 0.0, time.monotonic()
            if self.step % 250 == 0:
                self.save()
            if look and self.step % 1000 == 0:
                look(self.step)
        self.save()

    def _note(self, loss: float, seconds: float) -> None:
        line = {"step": self.step, "loss": round(loss, 5), "seconds_per_step": round(seconds / 50, 3)}
        log.info("%s", line)
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")
