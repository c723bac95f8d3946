"""Queries of strict routes: a parameter that the route does not know is refused."""

from collections.abc import Iterator
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from storage.contracts import errors, parameters


def declared(dependant: Dependant) -> Iterator[Any]:
    """Parameters of a query that a route, or what it depends on, knows."""
    yield from dependant.query_params
    for other in dependant.dependencies:
        yield from declared(other)


async def known_only(request: Request) -> None:
    """For routes and routers as a dependency. Raises `errors.InvalidInputError` naming the parameter and what is allowed."""
    sent = set(request.query_params)
    if not sent:
        return
    route: APIRoute = request.scope["route"]
    known = frozenset(one.alias for one in declared(route.dependant))
    unknown = sorted(sent - known)
    if unknown:
        name, names = unknown[0], sorted(known)
        allowed = f"allowed: {', '.join(names)}" if known else "this route takes none"
        message = f"{name} is not a known query parameter{parameters.meant(name, names)}; {allowed}"
        raise errors.InvalidInputError(message, field=name)
