"""The dashboard for people: the routes of the page at `/` of a node's API address.

The files in `static/` are plain HTML, CSS and ES modules, served unchanged. The page uses the node's API like any other client.

Rules: the files are read once and served from memory. A browser validates its copy at each request (`ETag`), so a node of another
version never runs with an old page. The page loads from its own node only, and uses no inline script or style
(`Content-Security-Policy`). The files contain no data of the node, so reading them needs no token.
"""

from hashlib import blake2b
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

MEDIA_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Media types by file ending. Files with other endings are not served."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def dashboard_pages(base_path: str = "") -> list[BaseRoute]:
    """The routes of the dashboard: the page at `/`, and its parts below `/dashboard/`. `base_path`: where a proxy shows the page,
    as in `/crdt/`.
    """
    static = sorted(Path(__file__).with_name("static").iterdir(), key=lambda file: file.name)
    return [_route(file, base_path.rstrip("/")) for file in static if file.suffix in MEDIA_TYPES]


def _route(file: Path, base: str) -> Route:
    content = file.read_bytes()
    if base and file.suffix == ".html":
        content = content.replace(b'="/', b'="' + base.encode() + b"/")
    etag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {**HEADERS, "etag": etag}

    async def serve(request: Request) -> Response:
        if _has(request, etag):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=MEDIA_TYPES[file.suffix], headers=headers)

    return Route("/" if file.name == "index.html" else f"/dashboard/{file.name}", serve, methods=["GET"], name=file.name)


def _has(request: Request, etag: str) -> bool:
    """True if the client has the content with this tag (RFC 9110, 13.1.2: weak comparison)."""
    held = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in held or held == ["*"]
