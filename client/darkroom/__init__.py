"""The client of a Darkroom service: `Client` and its twin `AsyncClient`, what they return and what they raise.

Speaks HTTP only and imports nothing of the service. `synchronous` is made from `asynchronous` by `python -m darkroom.twin`.
"""

from darkroom.asynchronous import AsyncClient
from darkroom.faults import (
    ApiError,
    CancelledError,
    DarkroomError,
    EditFailedError,
    GoneError,
    RefusedError,
    UnreachableError,
)
from darkroom.shapes import Accepted, Event, Generation, Picture
from darkroom.synchronous import Client

__all__ = [
    "Accepted",
    "ApiError",
    "AsyncClient",
    "CancelledError",
    "Client",
    "DarkroomError",
    "EditFailedError",
    "Event",
    "Generation",
    "GoneError",
    "Picture",
    "RefusedError",
    "UnreachableError",
]
