"""The guard in front of the application: the checks of rate limit, host, origin and token, and the count of the responses.

**Tokens.** `tokens` has them. Each request has a `Session`: the name and the right of its token. Without a file of tokens every
request may do everything, under the name `local`, and the API listens on loopback only.

**Host and origin.** Web pages of others must not reach the API through a browser on the same machine. A name under the control
of an attacker and resolved to 127.0.0.1 (DNS rebinding) shows in the Host header, so only loopback names and the bound address
are served. A page of another origin shows in the Origin header, and may not write. Without tokens these two checks alone
protect a node from the pages visited by its user. With tokens such a page has none to send, and any host name is served.

**Rate limit.** A token bucket per address, so that a runaway client cannot block the node for the others. Loopback counts too.
A client is an address, of IPv6 the /64 network, since its owner has all addresses in there. The number of buckets is bounded:
the least recently used is dropped, and its client starts with a full bucket.
"""

import ipaddress
import logging
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from http import HTTPStatus
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constraint_crdt.http.endpoint import GRANTED, Session, problem_response
from constraint_crdt.http.tokens import LOCAL, Tokens, show_moment
from constraint_crdt.operations.operation import Problem, Right

PROTECTED = ("/v1/", "/metrics", "/room")
"""Path prefixes protected by tokens, for existing and other paths."""

_log = logging.getLogger("constraint_crdt.api")


class Guard:
    """ASGI middleware: counts the responses, and refuses requests by its checks. The only middleware, and so the outermost."""

    def __init__(
        self, app: ASGIApp, note: Callable[[Scope, int], None], checks: Sequence[Callable[[Scope], Problem | None]]
    ) -> None:
        """`note(scope, status)` is called when the status of a response is sent. `checks` run in this order."""
        self._app = app
        self._note = note
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        for check in self._checks:
            problem = check(scope)
            if problem is not None:
                await problem_response(problem)(scope, receive, counted)
                return
        await self._app(scope, receive, counted)


class Denials:
    """Counts the requests refused for lack of a right, and logs one line per minute and address at most."""

    def __init__(self, *, now: Callable[[], float] = monotonic) -> None:
        """`now`: monotonic seconds."""
        self.counts: Counter[int] = Counter()
        """By status, 401 or 403."""
        self._now = now
        self._logged: OrderedDict[str, float] = OrderedDict()

    def note(self, scope: Scope, status: int) -> None:
        """Count the response with this status, if it is a refusal."""
        if status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return
        self.counts[status] += 1
        client, now = client_of(scope), self._now()
        if now - self._logged.get(client, -LOG_EVERY) < LOG_EVERY:
            return
        self._logged[client] = now
        self._logged.move_to_end(client)
        if len(self._logged) > MOST_LOGGED:
            self._logged.popitem(last=False)
        session = scope.get(GRANTED)
        name = "" if session is None else f" ({session.name})"
        host = scope["client"][0] if scope.get("client") else "a client"
        _log.warning("refused %s%s with %d: %s %s", host, name, status, scope["method"], scope["path"][:LOGGED_CHARACTERS])


class TokenGuard:
    """Sets the session of a request, and refuses requests without a token where tokens are needed."""

    def __init__(self, tokens: Tokens | None, *, now: Callable[[], float] = time.time) -> None:
        """`tokens` None: every client has the right operate. `now`: seconds since the epoch."""
        self._tokens = tokens
        self._now = now

    def check(self, scope: Scope) -> Problem | None:
        """Set the session in the scope; returns the problem of a request without a valid token."""
        try:
            scope[GRANTED] = Session(LOCAL, Right.OPERATE, None) if self._tokens is None else self._session(scope, self._tokens)
        except Problem as problem:
            return problem
        return None

    def _session(self, scope: Scope, tokens: Tokens) -> Session:
        if not f"{scope['path']}/".startswith(PROTECTED):
            return Session("", Right.NONE, None)
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise _unauthorized("this node asks for a token: send `Authorization: Bearer TOKEN`", "")
        scheme, _, text = given[0].decode("latin-1").strip().partition(" ")
        token = tokens.find(text.strip()) if len(given) == 1 and scheme.lower() == "bearer" else None
        if token is None:
            raise _unauthorized("the token is not known to this node", ', error="invalid_token"')
        if token.ends is not None and self._now() >= token.ends:
            ended = f"the token {token.name} ended on {show_moment(token.ends)}: ask for a new one"
            raise _unauthorized(ended, ', error="invalid_token"')
        return Session(token.name, token.right, token.ends)


def _unauthorized(detail: str, error: str) -> Problem:
    return Problem(HTTPStatus.UNAUTHORIZED, detail, headers={"www-authenticate": f'Bearer realm="constraint-crdt"{error}'})


_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginGuard:
    """Refuses requests for another host, and writes from another origin."""

    def __init__(self, bound_to: str | None = None, *, any_host: bool = False) -> None:
        """`bound_to`: the host of the listening socket; None: loopback. `any_host`: serve under every name."""
        self._any_host = any_host
        self._bound_to = bound_to
        self._any_address = bound_to is not None and _is_wildcard(bound_to)

    def check(self, scope: Scope) -> Problem | None:
        """The problem with a request, or None."""
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
    """True for an address or a name reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


LOG_EVERY = 60.0
MOST_LOGGED = 1000
LOGGED_CHARACTERS = 200
"""Refusals: seconds between two lines about an address, addresses whose last line is kept, and characters of a path."""

BURST = 2
"""Seconds: a burst is the rate times this."""

MOST_CLIENTS = 10_000


class RateLimit:
    """Refuses requests of a client beyond its rate (429)."""

    def __init__(self, rate: float, *, now: Callable[[], float] = monotonic) -> None:
        """`rate`: requests per second and client. `now`: monotonic seconds."""
        self._rate = rate
        self._burst = max(rate * BURST, 1.0)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By client: the tokens left in the bucket, and the time of that count."""

    def check(self, scope: Scope) -> Problem | None:
        """Count a request; returns the problem beyond the rate."""
        wait = self._take(client_of(scope))
        if not wait:
            return None
        detail = f"more than {self._rate:g} requests per second: ask again in {wait:.1f} s"
        return Problem(HTTPStatus.TOO_MANY_REQUESTS, detail, headers={"retry-after": str(math.ceil(wait))})

    def _take(self, client: str) -> float:
        """Count a request; returns the seconds until a retry would succeed, 0 if accepted."""
        now = self._now()
        left, at = self._buckets.get(client, (self._burst, now))
        left = min(left + (now - at) * self._rate, self._burst)
        taken = left >= 1.0
        self._buckets[client] = (left - 1.0 if taken else left, now)
        self._buckets.move_to_end(client)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if taken else (1.0 - left) / self._rate


def client_of(scope: Scope) -> str:
    """The client of a request: see `address_group`."""
    return address_group(str(scope["client"][0])) if scope.get("client") else ""


def address_group(host: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or address if address.is_loopback else address.ipv4_mapped or int(address) >> 64)
