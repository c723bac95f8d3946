"""`python -m api`: serve the API until told to stop."""

import contextlib
import os
import sys

import uvicorn

from api.app import create_app
from api.http.connections import Limits, protocol
from api.settings import ApiSettings
from storage import logs, setting_names, traces
from storage.settings import reason

START_FAILED = 3
"""Exit status, as uvicorn has it."""


def main() -> None:
    """Read settings, serve, stop on SIGTERM or SIGINT."""
    try:
        settings = ApiSettings()
        logs.configure(settings)
        setting_names.warn(os.environ)
        settings.read_catalog()
    except ValueError as exc:
        sys.exit(f"darkroom api: {reason(exc)}")
    with traces.told(settings, "darkroom-api"):
        _serve(settings)


def _serve(settings: ApiSettings) -> None:
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # Access logs would hold ids of every poll and, one day, a signed query.
        access_log=False,
        server_header=False,
        ws="none",
        http=protocol(Limits(head_s=settings.head_limit_s, connections=settings.max_connections)),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=20,
        timeout_keep_alive=75,
        log_config=None,
    )
    server = uvicorn.Server(config)
    app.state.is_stopping = lambda: server.should_exit
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(START_FAILED)


if __name__ == "__main__":
    main()
