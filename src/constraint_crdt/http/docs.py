"""`/openapi.json`, and its page `/docs`, which loads nothing from other hosts and has no inline script or style."""

from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from constraint_crdt.operations.operation import Empty

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_PARTS: Final = {"docs.js": "text/javascript", "docs.css": "text/css"}


async def openapi(_: Empty, request: Request) -> Response:
    """`GET /openapi.json`."""
    document: bytes = request.app.state.document()
    return Response(document, media_type="application/json", headers=_HEADERS)


async def docs(_: Empty, __: Request) -> Response:
    """`GET /docs`."""
    return Response(_file("docs.html"), media_type="text/html", headers=_HEADERS)


def parts_of_docs() -> list[Route]:
    """The routes of the files of the page."""
    return [_part(name, media_type) for name, media_type in _PARTS.items()]


def _part(name: str, media_type: str) -> Route:
    content = _file(name)

    async def serve(_: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(f"/docs/{name}", serve, methods=["GET"], name=name)


def _file(name: str) -> bytes:
    return (files(__package__) / "static" / name).read_bytes()
