"""Who may ask: keeps web pages of others from reaching the API through a browser that runs on the same machine.

Rules: a name that an attacker points at 127.0.0.1 (DNS rebinding) shows in the Host header, so only loopback names and the
address bound to are served. A page of another origin shows in the Origin header, and may not write. Where the API asks for no
token, these two are what stands between a node and any page that its user visits. Where it does, such a page has none to send, and
any name may be served.
"""

import ipaddress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from constraint_crdt.api.problems import Problem

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginGuard:
    """ASGI middleware that refuses requests for another host, and writes from another origin."""

    def __init__(self, app: ASGIApp, bound_to: str | None = None, *, any_host: bool = False) -> None:
        """`bound_to`: the host that the server listens on; None: loopback. `any_host`: serve whatever name it is called by."""
        self._app = app
        self._any_host = any_host
        self._bound_to = bound_to
        self._any_address = bound_to is not None and _is_wildcard(bound_to)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is not None:
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._any_host and not self._serves(_name_of(host)):
            detail = f"this API does not serve the host {host!r}: call it by a loopback address or the one it listens on"
            return Problem(HTTPStatus.MISDIRECTED_REQUEST, detail)
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in _READING and origin.lower() != f"{scope['scheme']}://{host}".lower():
            return Problem(HTTPStatus.FORBIDDEN, f"pages of {origin!r} may not change anything here")
        return None

    def _serves(self, name: str) -> bool:
        if name == "localhost" or (self._bound_to is not None and name == self._bound_to.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Rebinding needs a name, so an address is safe to serve where the server listens on all of them.
        return address.is_loopback or self._any_address


def _name_of(host: str) -> str:
    """A Host header without its port, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def is_loopback(host: str) -> bool:
    """True for an address, or the name, that only this machine can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
