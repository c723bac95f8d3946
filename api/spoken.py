"""Which wire APIs are spoken here."""

from api.dialects import bfl, fal, forge, nim, openai, oxen, replicate, runpod
from api.dialects.base import Dialect

_SPOKEN = (
    oxen.DIALECT, runpod.DIALECT, nim.DIALECT, replicate.DIALECT, bfl.DIALECT, fal.DIALECT, openai.DIALECT, forge.DIALECT,
)  # fmt: skip
"""Where two have a route for the same path, the earlier one answers: Replicate's models have more parts than Forge's."""

DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _SPOKEN}
"""Every wire API that is spoken here, by name; a route's tag is that name."""
