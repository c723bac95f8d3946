"""Options that several commands share, and the client that they open."""

import json
import os
from typing import Annotated, Any

import typer

from darkroom.cli.profiles import ConfigurationError, chosen
from darkroom.synchronous import Client

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Model = Annotated[str, typer.Option("--model", "-m", help="Which model edits.")]
Gpu = Annotated[str | None, typer.Option("--gpu", help="One GPU type alone.")]
Region = Annotated[str | None, typer.Option(help="One region alone.")]
ModelProfile = Annotated[str | None, typer.Option("--model-profile", help="exact or fast; default: the model's own.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="A generation's id.")]

DEFAULT_MODEL = "flux-kontext-dev"


class UsageError(Exception):
    """The command line asks for what cannot be; the message says what to do."""


class Service:
    """Which service the command talks to, from the options before it."""

    def __init__(self, url: str | None, key: str | None, profile: str | None) -> None:
        self._url, self._key, self._name = url, key, profile

    def credentials(self) -> tuple[str, str, str]:
        """Address, key, and where they are from. Raises `UsageError`."""
        try:
            profile = chosen(url=self._url, key=self._key, name=self._name, environment=os.environ)
        except ConfigurationError as exc:
            raise UsageError(str(exc)) from None
        if not profile.key:
            raise UsageError(
                "an API key is needed: --key, DARKROOM_API_KEY, or a profile; `make up` prints one, and "
                "`darkroom-admin keys create` makes one"
            )
        return profile.url, profile.key, profile.source

    def open(self) -> Client:
        """A client of it. Raises `UsageError`."""
        url, key, _ = self.credentials()
        try:
            return Client(url, key)
        except ValueError as exc:
            raise UsageError(str(exc)) from None


def service_of(context: typer.Context) -> Service:
    """The service that the options name."""
    service: Service = context.obj
    return service


def parameters(settings: list[str]) -> dict[str, Any]:
    """`name=value` pairs, with values as JSON where they are. Raises `UsageError`."""
    told: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes name=value; got {setting!r}")
        try:
            told[name] = json.loads(value)
        except ValueError:
            told[name] = value
    return told
