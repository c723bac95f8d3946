"""What chance decides about a sentence."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def drawn(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of these."""
    return choices[int(rng.integers(len(choices)))]
