"""Somebody's wire API each: a router and two translations, request to edit and generation to answer. No logic of its own.

A dialect is one module that ends in a `Dialect`; `api.app` lists them.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.resources import Resources
from storage.contracts import errors, generations


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A webhook's request body and headers."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What the service needs to know of one.

    `router` has its routes, tagged with its name; `problem` answers an error in its words. `aim` says in three lines how its
    client is pointed here, with `{url}` for our address. `notice` words a webhook, for
    the first of a request's generations.
    """

    name: str
    router: APIRouter
    problem: Callable[[Request, errors.DarkroomError], Response]
    aim: tuple[str, ...]
    notice: Callable[[Resources, generations.Generation, generations.Moment], Awaitable[Notice]] | None = None
