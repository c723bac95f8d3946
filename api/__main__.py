"""`python -m api`: serve the API until told to stop."""

import sys

import uvicorn
from pydantic import ValidationError

from api.app import create_app
from api.http.connections import Limits, protocol
from api.settings import ApiSettings
from storage import logs, traces


def main() -> None:
    """Read settings, serve, stop on SIGTERM or SIGINT."""
    try:
        settings = ApiSettings()
        logs.configure(settings)
        settings.read_catalog()
    except (ValidationError, ValueError) as exc:
        sys.exit(f"darkroom api: {exc}")
    with traces.told(settings, "darkroom-api"):
        _serve(settings)


def _serve(settings: ApiSettings) -> None:
    uvicorn.run(
        create_app(settings),
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


if __name__ == "__main__":
    main()
