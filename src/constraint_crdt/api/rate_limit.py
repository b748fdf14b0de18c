"""How often one client may ask: a token bucket per address, so that one that runs wild does not hold up the node for the others.

Rules: loopback counts too. A client is an address, an IPv6 one the /64 that it is in (whoever has one address there has them all).
The clients that are remembered are bounded; of too many, those that asked longest ago are forgotten, with a full bucket.
"""

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic

from starlette.types import ASGIApp, Receive, Scope, Send

from constraint_crdt.api.problems import Problem

BURST = 2
"""Seconds of its rate that a client may use at once."""

MOST_CLIENTS = 10_000


class RateLimit:
    """ASGI middleware that answers 429 to whoever asks too often."""

    def __init__(self, app: ASGIApp, rate: float, *, now: Callable[[], float] = monotonic) -> None:
        """`rate`: requests per second and client. `now`: monotonic seconds."""
        self._app = app
        self._rate = rate
        self._burst = max(rate * BURST, 1.0)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What each client had left, and when."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        wait = self._take(_client(scope)) if scope["type"] == "http" else 0.0
        if wait:
            detail = f"more than {self._rate:g} requests per second: ask again in {wait:.1f} s"
            problem = Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"retry-after": str(math.ceil(wait))})
            await problem.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _take(self, client: str) -> float:
        """Count a request; returns the seconds until it would be taken, 0 if it is."""
        now = self._now()
        left, at = self._buckets.get(client, (self._burst, now))
        left = min(left + (now - at) * self._rate, self._burst)
        taken = left >= 1.0
        self._buckets[client] = (left - 1.0 if taken else left, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1.0 - left) / self._rate


def _client(scope: Scope) -> str:
    host = str(scope["client"][0]) if scope.get("client") else ""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or int(address) >> 64)
