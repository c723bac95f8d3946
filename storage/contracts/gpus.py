"""Kinds of devices that workers run on."""

from typing import Annotated

from pydantic import Field

from storage.contracts.values import Frozen


class GpuType(Frozen):
    """A kind of device that workers run on."""

    display_name: str
    memory_gb: Annotated[float, Field(gt=0)]
    """Usable memory in GB (10^9 bytes)."""
    device_name: str = ""
    """What the driver calls it, a maker's prefix and a memory size aside; a worker that finds another device does not start.
    Empty: any will do."""
    capability: Annotated[float, Field(gt=0)] | None = None
    """CUDA's compute capability, such as 9.0; None: not a CUDA device, nothing is compiled for it."""
    price_per_hour: Annotated[float, Field(ge=0)] = 0.0
    """What an operator pays, in USD."""
