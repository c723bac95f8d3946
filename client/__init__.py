"""The Python client and the `darkroom` command line. Speaks HTTP only and imports nothing of the service."""
