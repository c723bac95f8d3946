"""A sentence encoder of 23 million parameters learns what instructions mean.

It tells the small text encoders of sentences that nobody has labelled, and is not shipped.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from training import networks
from training.checkpoints import Course, Limits
from training.operations import EVERYTHING, Edit, Operation
from training.sentences import teacher
from training.sentences.instructions import instruction

SEED = 11
STEPS = 1_500
SENTENCES = 48
"""In a batch."""
_LONGEST = 48
"""Pieces of a sentence that are read."""
_HEAD_RATE = 20.0
"""How much faster than the rest the last layer learns, which begins with random weights."""


class Teacher(nn.Module):
    """The pretrained encoder, its mean over the pieces, and a choice between operations."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self._tokenizer = teacher.pretrained()
        self.choice = nn.Linear(self.encoder.config.hidden_size, len(EVERYTHING))

    def forward(self, sentences: Sequence[str]) -> torch.Tensor:
        """Logits: (sentences, operations)."""
        read = self._tokenizer(
            list(sentences), padding=True, truncation=True, max_length=_LONGEST, return_tensors="pt"
        ).to(self.choice.weight.device)
        with networks.bf16():
            pieces = self.encoder(**read).last_hidden_state.float()
        mask = read["attention_mask"][..., None]
        return _HEAD_RATE * self.choice((pieces * mask).sum(1) / mask.sum(1))


def shares(edits: Sequence[Edit]) -> torch.Tensor:
    """What edits consist of: (edits, operations), each row with a sum of 1."""
    rows = torch.zeros(len(edits), len(EVERYTHING))
    for row, edit in zip(rows, edits, strict=True):
        for operation in edit.operations:
            row[EVERYTHING.index(operation)] = 1 / len(edit.operations)
    return rows


def course(folder: Path) -> Course:
    """The stage as far as it got."""
    torch.manual_seed(SEED)
    return Course(folder, "teacher", {"teacher": Teacher()}, rate=1e-4, steps=STEPS, anew=False)


def train(folder: Path, limits: Limits) -> None:
    """Go on with the teacher."""
    stage = course(folder)
    network = stage.networks["teacher"]

    def loss(step: int) -> torch.Tensor:
        rng = np.random.default_rng([SEED, step])
        batch = [instruction(rng) for _ in range(SENTENCES)]
        logits = network([sentence for sentence, _ in batch])
        return functional.cross_entropy(logits, shares([edit for _, edit in batch]).to(logits.device))

    stage.run(loss, limits)


def trained(folder: Path) -> Teacher | None:
    """The teacher with averaged weights, or none where the stage was not run."""
    if not (folder / "teacher.safetensors").exists():
        return None
    stage = course(folder)
    stage.averaged()
    network = stage.networks["teacher"].eval().requires_grad_(False)
    assert isinstance(network, Teacher)
    return network


@torch.no_grad()
def understood(network: Teacher, sentences: Sequence[str]) -> list[Operation]:
    """The most likely operation of each sentence."""
    return [EVERYTHING[place] for place in network(sentences).argmax(1).tolist()]
