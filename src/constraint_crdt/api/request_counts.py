"""How many requests the API answered: by method, route and status.

Rule: every label comes from a set that is known beforehand. The route is the template that served the request, never the path that
somebody sent; a method nobody knows is `other`, and what no route served, or was refused before, has the route `none`.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
OTHER_METHOD: Final = "other"
NO_ROUTE: Final = "none"


class Answered(NamedTuple):
    """A kind of answer."""

    method: str
    route: str
    status: int


class RequestCounts:
    """The answers of one application."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes`: those of the application."""
        self._templates: dict[object, str] = {route.endpoint: route.path_format for route in routes if isinstance(route, Route)}
        self.answers: Counter[Answered] = Counter()
        """How many there were of each kind."""

    def note(self, scope: Scope, status: int) -> None:
        """Count one answer, to a request that was routed by now if it ever is."""
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self.answers[Answered(method, self._templates.get(scope.get("endpoint"), NO_ROUTE), status)] += 1


class RequestCounting:
    """ASGI middleware that counts answers as they begin. The outermost one, so that refusals of others count too."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, counting)
