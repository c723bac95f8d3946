"""How a process logs: lines for people, or JSON objects, on standard error.

Libraries are heard from INFO on, whatever the level: at DEBUG clients of HTTP and S3 write out headers, signed URLs and bodies.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from storage.settings import StoreSettings

OURS = ("api", "workers", "storage", "infra")

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def configure(settings: StoreSettings) -> None:
    """Set up logging for this process."""
    handler = logging.StreamHandler(sys.stderr)
    renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
    handler.setFormatter(
        JsonFormatter(TEXT, rename_fields=renamed) if settings.log_format == "json" else logging.Formatter(TEXT)
    )
    level = logging.getLevelNamesMapping()[settings.log_level]
    logging.basicConfig(level=max(level, logging.INFO), handlers=[handler])
    for name in OURS:
        logging.getLogger(name).setLevel(level)
