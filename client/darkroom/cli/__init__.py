"""The `darkroom` command: a module for the commands of each purpose; `application` joins them and words what goes wrong."""

from darkroom.cli.application import main

__all__ = ["main"]
