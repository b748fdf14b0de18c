"""The guard in front of the application: the checks of rate limit, host, origin and token, and the count of the responses.

**Tokens.** `tokens` has them. Each request has a `Session`: the name and the right of its token. Without a file of tokens every
request may do everything, under the name `local`, and the API listens on loopback only.

**Host and origin.** Web pages of others must not reach the API through a browser on the same machine. A name under the control
of an attacker and resolved to 127.0.0.1 (DNS rebinding) shows in the Host header, so only loopback names and the bound address
are served. A page of another origin shows in the Origin header, and may not write. Without tokens these two checks alone
protect a node from the pages visited by its user. With tokens such a page has none to send, and any host name is served.

**TLS.** With the certificate of the node's identity or a given certificate. Its files are looked at in each handshake, so a renewed
certificate is used without a restart.

**Rate limit.** A token bucket per address, so that a runaway client cannot block the node for the others. Loopback counts too.
A client is an address, of IPv6 the /64 network, since its owner has all addresses in there. The number of buckets is bounded:
the least recently used is dropped, and its client starts with a full bucket.
"""

import contextlib
import ipaddress
import logging
import math
import os
import resource
import ssl
import stat
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.endpoint import GRANTED, NO_STORE, Session, problem_response
from constraint_crdt.http.tokens import LOCAL, ApiToken, Tokens, show_moment
from constraint_crdt.operations.operation import JSON, RIGHT_OF_ROLE, Empty, Problem, Right
from constraint_crdt.operations.service import Finding, SessionReport
from constraint_crdt.runtime.node import Node

PLATO = "/plato/"
"""The path prefix of the contract of PLATO servers, whose clients read the `error` of a problem."""

PROTECTED = ("/v1/", "/metrics", "/room", "/mcp", PLATO)
"""Path prefixes protected by tokens, for existing and other paths."""

_log = logging.getLogger("constraint_crdt.api")

PROBES = frozenset({"/healthz", "/readyz"})
"""The paths of the probes of an orchestrator, with connections and a rate of their own."""

MOST_CONNECTIONS = 2000
FILES_LEFT = 256
"""Connections at once. The limit of open files of the process may allow fewer: so many files are left for all else."""

LOOPBACK_FACTOR = 5
"""The bound of a loopback address as a multiple of the bound of others: its clients may be all programs of the machine."""

MOST_RESERVED = 64
RESERVED_PER_ADDRESS = 16
"""Reserved connections at once, in all and of an address. A further connection ends the oldest."""

TOO_MANY_CONNECTIONS = "too many connections are open, in all or from this address: close some, or come back later"

RESERVED = "constraint_crdt.reserved"
"""The key of a reserved connection in the state of the scope of its requests."""


class Slot:
    """The place of a connection within the bounds."""

    def __init__(self, group: str, held: Counter[str], *, reserved: bool) -> None:
        """`held`: the number of slots by group, and of all under "", which this slot is added to."""
        self.group = group
        self.reserved = reserved
        self.released = False
        self.end: Callable[[], object] = self.release
        """Ends the connection."""
        self._held = held
        held[group] += 1
        held[""] += 1

    def release(self) -> None:
        """The connection is over. Idempotent."""
        if not self.released:
            self.released = True
            self._held[""] -= 1
            self._held[self.group] -= 1
            if not self._held[self.group]:
                del self._held[self.group]


class ConnectionBounds:
    """The bounds on connections, in all and of an address. Each connection gets a slot within the bounds, or a reserved slot."""

    def __init__(self, per_address: int) -> None:
        """`per_address`: the bound of an address (see `address_group`) other than loopback."""
        self._per_address = per_address
        self._held: Counter[str] = Counter()
        self._held_reserved: Counter[str] = Counter()
        self._reserved: list[Slot] = []
        self._logged = -LOG_EVERY

    @property
    def open(self) -> int:
        """The connections, with the reserved ones."""
        return self._held[""] + self._held_reserved[""]

    def take(self, host: str) -> Slot:
        """The slot of a connection of this address. Ends an older reserved connection if needed."""
        group, held = address_group(host), self._held
        own = self._per_address * (LOOPBACK_FACTOR if is_loopback(host) else 1)
        if held[""] < _most_connections() and held[group] < own:
            return Slot(group, held, reserved=False)
        self._log(group, own)
        self._reserved = [slot for slot in self._reserved if not slot.released]
        of_group = [slot for slot in self._reserved if slot.group == group]
        if len(of_group) >= RESERVED_PER_ADDRESS:
            self._end(of_group[0])
        elif len(self._reserved) >= MOST_RESERVED:
            self._end(self._reserved[0])
        slot = Slot(group, self._held_reserved, reserved=True)
        self._reserved.append(slot)
        return slot

    def _end(self, slot: Slot) -> None:
        self._reserved.remove(slot)
        slot.release()
        slot.end()

    def _log(self, group: str, own: int) -> None:
        now = monotonic()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            _log.warning("%d connections are open, %d of %s: the next ones may ask for the health only", self._held[""], own, group)


def _most_connections() -> int:
    """The bound of all connections, within the limit of open files of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MOST_CONNECTIONS, soft - FILES_LEFT))


def check_reserved(scope: Scope) -> Problem | None:
    """The problem with a request on a reserved connection, or None."""
    if not scope.get("state", {}).get(RESERVED) or scope["path"] in PROBES:
        return None
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_CONNECTIONS, headers={"retry-after": "1", "connection": "close"})


METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
OTHER_METHOD: Final = "other"
NO_ROUTE: Final = "none"


class ResponseLabels(NamedTuple):
    """The labels of a response."""

    method: str
    route: str
    status: int


class RequestCounts:
    """The number of responses of an application, by method, route and status."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """`routes`: those of the application."""
        self._templates: dict[object, str] = {route.endpoint: route.path_format for route in routes if isinstance(route, Route)}
        self.answers: Counter[ResponseLabels] = Counter()
        """The counts by labels."""

    def note(self, scope: Scope, status: int) -> None:
        """Count a response, after routing."""
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self.answers[ResponseLabels(method, self._templates.get(scope.get("endpoint"), NO_ROUTE), status)] += 1


class Guard:
    """ASGI middleware: counts the responses, and refuses requests by its checks. Only `PlatoPaths` is further out."""

    def __init__(
        self, app: ASGIApp, counts: RequestCounts, denials: "Denials", checks: Sequence[Callable[[Scope], Problem | None]]
    ) -> None:
        """`counts`, `denials`: note each status of a response as it is sent. `checks` run in this order."""
        self._app = app
        self._counts = counts
        self._denials = denials
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.note(scope, message["status"])
                self._denials.note(scope, message["status"])
            await send(message)

        for check in self._checks:
            problem = check(scope)
            if problem is not None:
                as_error = scope["path"].startswith(PLATO)
                await problem_response(problem, as_error=as_error)(scope, receive, counted)
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
        self._lines: deque[float] = deque(maxlen=MOST_LINES)

    def note(self, scope: Scope, status: int) -> None:
        """Count the response with this status, if it is a refusal."""
        if status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return
        self.counts[status] += 1
        client, now = client_of(scope), self._now()
        if now - self._logged.get(client, -LOG_EVERY) < LOG_EVERY:
            return
        if len(self._lines) == MOST_LINES and now - self._lines[0] < LOG_EVERY:
            return
        self._lines.append(now)
        self._logged[client] = now
        self._logged.move_to_end(client)
        if len(self._logged) > MOST_LOGGED:
            self._logged.popitem(last=False)
        session = scope.get(GRANTED)
        name = "" if session is None else f" ({session.name})"
        host = scope["client"][0] if scope.get("client") else "a client"
        _log.warning("refused %s%s with %d: %s %s", host, name, status, scope["method"], scope["path"][:LOGGED_CHARACTERS])


def _always() -> bool:
    return True


_NOT_KNOWN: Final = "the token is not known to this node: `constraint-crdt token list` on its machine shows those that are"
_OF_LOOPBACK: Final = Session(LOCAL, Right.OPERATE, None, _always)
_OF_NOBODY: Final = Session("", Right.NONE, None, _always)
"""The session of each request to a node without tokens, and to a path without protection."""


class TokenGuard:
    """Sets the session of a request, and refuses requests without a token where tokens are needed."""

    def __init__(self, tokens: Tokens | None, *, now: Callable[[], float] = time.time) -> None:
        """`tokens` None: every client has the right operate. `now`: seconds since the epoch."""
        self._tokens = tokens
        self._now = now

    def check(self, scope: Scope) -> Problem | None:
        """Set the session in the scope; returns the problem of a request without a valid token."""
        try:
            scope[GRANTED] = _OF_LOOPBACK if self._tokens is None else self._session(scope, self._tokens)
        except Problem as problem:
            return problem
        return None

    def _session(self, scope: Scope, tokens: Tokens) -> Session:
        if not f"{scope['path']}/".startswith(PROTECTED):
            return _OF_NOBODY
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise _unauthorized("this node asks for a token: send `Authorization: Bearer TOKEN`", "")
        scheme, _, text = given[0].decode("latin-1").strip().partition(" ")
        token = tokens.find(text.strip()) if len(given) == 1 and scheme.lower() == "bearer" else None
        if token is None:
            raise _unauthorized(_NOT_KNOWN, ', error="invalid_token"')
        if self._ended(token):
            ended = f"the token {token.name} ended on {show_moment(token.ends)}: ask for a new one"
            raise _unauthorized(ended, ', error="invalid_token"')
        return Session(token.name, token.right, token.ends, lambda: tokens.knows(token) and not self._ended(token))

    def _ended(self, token: ApiToken) -> bool:
        return token.ends is not None and self._now() >= token.ends


async def session(_: Empty, request: Request) -> Response:
    """`GET /v1/session`."""
    node: Node = request.app.state.node
    sent: Session = request.scope[GRANTED]
    role = node.certified_role
    report = SessionReport(
        name=sent.name,
        role=sent.right.name.lower(),
        ends=None if sent.ends is None else sent.ends * SECOND,
        node=node.settings.name,
        node_role=role,
        may=(sent.right if role is None else min(sent.right, RIGHT_OF_ROLE[role])).name.lower(),
    )
    return Response(msgspec.json.encode(report), media_type=JSON, headers=NO_STORE)


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

MOST_LINES = 60
"""Lines about refusals in `LOG_EVERY` seconds, over all addresses."""

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
        client = client_of(scope)
        wait = self._take(f"{client} probes" if scope.get("path") in PROBES else client)
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
    """The group of addresses of a client: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or address if address.is_loopback else address.ipv4_mapped or int(address) >> 64)


ENDS_SOON: Final = timedelta(days=7)
"""A certificate of the API that ends sooner is a warning."""


class ApiCertificate:
    """The certificate of the API and its key, in PEM files. A changed pair of files is used from the next handshake."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Raises `ConstraintCrdtError` for files that cannot be used, and for a key that others can read."""
        self.certificate = certificate
        self.key = key
        self.trouble: str | None = None
        """Why the changed files are not used; None if there is no reason."""
        self._seen = self._signature()
        self._latest = self._load()
        self.context = self._load()
        """For the server."""
        self.context.sni_callback = self._renew

    def validity(self) -> Finding:
        """Whether the certificate is valid, and for how long."""
        from cryptography import x509  # of nodes with TLS only

        try:
            ends = x509.load_pem_x509_certificate(self.certificate.read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            return Finding(check="api", level="warn", what=f"{self.certificate} cannot be read", advice="look who owns it")
        left = ends - datetime.now(UTC)
        what = f"the certificate of the API, {self.certificate}, is valid until {ends:%Y-%m-%d %H:%M} UTC"
        if left < timedelta():
            what = f"the certificate of the API, {self.certificate}, ended on {ends:%Y-%m-%d %H:%M} UTC"
            return Finding(check="api", level="fail", what=what, advice="renew it: a changed file is used without a restart")
        if left < ENDS_SOON:
            return Finding(check="api", level="warn", what=what, advice="renew it: a changed file is used without a restart")
        return Finding(check="api", level="ok", what=what)

    def _signature(self) -> list[tuple[int, ...]]:
        found = list[tuple[int, ...]]()
        for file in (self.certificate, self.key):
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return found

    def _renew(self, link: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """Have this handshake use the latest certificate."""
        signature = self._signature()
        if signature != self._seen:
            self._seen = signature
            try:
                self._latest, self.trouble = self._load(), None
                _log.info("the API uses the changed certificate %s", self.certificate)
            except ConstraintCrdtError as error:
                self.trouble = f"the API goes on with its former certificate: {error}"
                _log.error("%s", self.trouble)
        link.context = self._latest

    def _load(self) -> ssl.SSLContext:
        certificate, key = self.certificate, self.key
        for file in (certificate, key):
            try:
                mode = file.stat().st_mode
                file.open("rb").close()
            except OSError as error:
                raise ConstraintCrdtError(f"cannot read {file} for the TLS of the API: {error.strerror or error}") from None
        if os.name == "posix" and mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise ConstraintCrdtError(f"others on this machine can read or write the key {key}: `chmod 600 {key}` first")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                why = f"the key {key} is not the key of the certificate {certificate}: name a pair"
            else:
                why = f"{certificate} and {key} are no certificate and key in PEM without a passphrase"
            raise ConstraintCrdtError(f"cannot serve the API by TLS: {why}") from None
        return context
