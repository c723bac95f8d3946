"""How a process logs: lines for people, or JSON objects, on standard error, with what they are about.

Libraries are heard from INFO on, whatever the level: at DEBUG clients of HTTP and S3 write out headers, signed URLs and bodies.
"""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from storage.settings import StoreSettings

OURS = ("api", "workers", "storage", "infra")

_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039  (never changed in place)


@contextlib.contextmanager
def about(**ids: str) -> Iterator[None]:
    """Have every line that is logged meanwhile, in this thread or task, say what it is about: `request_id`, `generation_id`."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        ids = " ".join(f"{name}={value}" for name, value in _about.get().items())
        return f"{super().format(record)} [{ids}]" if ids else super().format(record)


class _Json(JsonFormatter):
    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(_about.get())


FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure(settings: StoreSettings) -> None:
    """Set up logging for this process."""
    handler = logging.StreamHandler(sys.stderr)
    renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(
        # uvicorn gives each message a second time, with colours.
        _Json(FORMAT, rename_fields=renamed, reserved_attrs=[*RESERVED_ATTRS, "color_message"])
        if settings.log_format == "json"
        else _Text(FORMAT)
    )
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler])
    for name in OURS:
        logging.getLogger(name).setLevel(level)
