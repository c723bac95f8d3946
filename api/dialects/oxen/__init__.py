"""The native API, which is Oxen.ai's: queue, blocking edits, events, models.

`asking` translates requests, `answers` translates generations and errors, `stream` frames events, `routes` joins them.
"""

from api.dialects.oxen.answers import problem
from api.dialects.oxen.routes import router

__all__ = ["problem", "router"]
