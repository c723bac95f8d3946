"""What the transformer is told: one vector an edit, given by both text encoders and learned by transformer and encoders apart.

An operation is a row of a Hadamard matrix, so that all are orthogonal and the same on every machine. Several operations are their
sum, a word of strength adds a further row, and the root mean square is brought to 1, as an encoder's last normalisation does.
"""

from functools import cache

import torch

from training.operations import EVERYTHING, STRENGTHS, Edit, Operation

STRENGTH = dict(zip(STRENGTHS, (-0.6, 0.0, 0.6), strict=True))
"""Share of the row of strength, by strength."""
_STRENGTH_ROW, _FIRST_ROW = 1, 2
"""Row 0 is constant, and lost where a normalisation subtracts the mean."""
_ROWS = {operation.name: _FIRST_ROW + place for place, operation in enumerate(EVERYTHING)}


@cache
def row(number: int, width: int) -> torch.Tensor:
    """One row of the Hadamard matrix of `width` (a power of two): shape (width,), values 1 and -1."""
    signs = [1 - 2 * ((number & column).bit_count() % 2) for column in range(width)]
    return torch.tensor(signs, dtype=torch.float32)


def row_of(operation: Operation, width: int) -> torch.Tensor:
    """The row of one operation."""
    return row(_ROWS[operation.name], width)


@cache
def rows(width: int) -> torch.Tensor:
    """The operations' rows, in the order of `EVERYTHING`: shape (operations, width)."""
    return torch.stack([row(number, width) for number in _ROWS.values()])


def normalised(vector: torch.Tensor) -> torch.Tensor:
    """The vector, or vectors in the last dimension, at a root mean square of 1."""
    return vector / vector.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-6)


def conditioning(edit: Edit, width: int) -> torch.Tensor:
    """The vector of an edit: shape (width,)."""
    total = torch.stack([row_of(operation, width) for operation in edit.operations]).sum(0)
    if any(operation.graded for operation in edit.operations):
        total = total + STRENGTH[edit.strength] * row(_STRENGTH_ROW, width)
    return normalised(total)
