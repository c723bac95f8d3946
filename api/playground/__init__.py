"""The page: its files, and the one route that browsers and programs see differently. It speaks the public API only.

`static` has the page: modules that browsers read as they are, without a build step. `darkroom.js` is the JavaScript client.
"""

from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from api.http.access import ResourcesDep
from api.resources import Resources
from storage.contracts import errors

STATIC = Path(__file__).parent / "static"

FILES = {
    str(file.relative_to(STATIC)): file for file in STATIC.rglob("*") if file.suffix in (".js", ".css", ".svg", ".jpg")
}
"""Everything that is served, by name: no path is made of what a request says."""

TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}

router = APIRouter(include_in_schema=False)


def wants_page(request: Request) -> bool:
    """Whether a browser asks, which names HTML; programs name JSON or anything."""
    return "text/html" in request.headers.get("accept", "")


def page(resources: Resources) -> Response:
    """The page, which loads nothing from elsewhere; pictures may come from the object store."""
    own = resources.settings.public_url or ""
    sources = f"'self' {own}".strip()
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        f"img-src {sources} blob: data: {resources.objects.origin}; connect-src {sources}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Vary": "Accept"}
    return FileResponse(STATIC / "index.html", media_type="text/html", headers=headers)


@router.get("/playground/{name:path}")
async def file(name: str, resources: ResourcesDep) -> Response:
    """One of the page's files."""
    if name not in FILES:
        raise errors.NotFoundError(f"There is no route GET /playground/{name}")
    # Asked for again each time and answered with 304: an upgrade is seen at once.
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(FILES[name], media_type=TYPES[FILES[name].suffix], headers=headers)
