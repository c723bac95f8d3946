"""A stack whose one model sleeps: what the service itself takes is measured on it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra import embedded, stack_options

CATALOG = Path(__file__).parent / "catalog.toml"


@contextlib.contextmanager
def sleeping(**settings: str) -> Iterator[embedded.Stack]:
    """Start one that serves `sleep-20` alone, on a free port, with a data folder of its own; stop it."""
    shipped = Path(embedded.__file__).parent / "catalog.embedded.toml"
    with tempfile.TemporaryDirectory() as name:
        environment = {
            **os.environ,
            "DARKROOM_PORT": "0",
            "DARKROOM_DATA_DIR": name,
            "DARKROOM_CATALOG": f"{shipped}:{CATALOG}",
            "DARKROOM_MODELS": '["sleep-20"]',
            **settings,
        }
        with embedded.running(stack_options.Options.from_environment(environment)) as stack:
            yield stack
