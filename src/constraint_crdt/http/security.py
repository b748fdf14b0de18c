"""The guard in front of the application: the checks of rate limit, host, origin and token, and the count of the responses.

**Tokens.** A file has a line per token, with its role:

    read  a1b2c3d4e5f6a7b8c9d0
    write 0f9e8d7c6b5a49382716

The role write includes read. Without a file every request may do everything, and the API listens on loopback only. A token is
sent as `Authorization: Bearer TOKEN` and in no other way. The plain token is never stored, compared character by character, or
printed.

**Host and origin.** Web pages of others must not reach the API through a browser on the same machine. A name under the control
of an attacker and resolved to 127.0.0.1 (DNS rebinding) shows in the Host header, so only loopback names and the bound address
are served. A page of another origin shows in the Origin header, and may not write. Without tokens these two checks alone
protect a node from the pages visited by its user. With tokens such a page has none to send, and any host name is served.

**Rate limit.** A token bucket per address, so that a runaway client cannot block the node for the others. Loopback counts too.
A client is an address, of IPv6 the /64 network, since its owner has all addresses in there. The number of buckets is bounded:
the least recently used is dropped, and its client starts with a full bucket.
"""

import ipaddress
import math
import os
import re
import secrets
import stat
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from http import HTTPStatus
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.http.endpoint import GRANTED, problem_response
from constraint_crdt.operations.operation import Problem, Right

LEAST_CHARACTERS = 16
MOST_CHARACTERS = 256
MOST_TOKENS = 1000
MOST_BYTES = 512 * 1024

PROTECTED = ("/v1/", "/metrics", "/room")
"""Path prefixes protected by tokens, for existing and other paths."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, 2.1


class Tokens:
    """The known tokens with their roles."""

    def __init__(self, tokens: Iterable[tuple[Right, str]]) -> None:
        """Raises `ConstraintCrdtError` for an invalid token."""
        self._key = secrets.token_bytes(32)
        self._rights: dict[bytes, Right] = {}
        for number, (right, token) in enumerate(tokens, 1):
            if not LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS or not _TOKEN.fullmatch(token):
                raise ConstraintCrdtError(
                    f"token {number}: a token has {LEAST_CHARACTERS} to {MOST_CHARACTERS} letters, digits and -._~+/, "
                    "for example what `openssl rand -hex 32` prints"
                )
            if number > MOST_TOKENS:
                raise ConstraintCrdtError(f"there are more than {MOST_TOKENS} tokens: keep fewer")
            digest = self._digest(token)
            self._rights[digest] = max(right, self._rights.get(digest, right))
        if not self._rights:
            raise ConstraintCrdtError("there is no token: write a line `write TOKEN`")

    @classmethod
    def load(cls, file: Path) -> "Tokens":
        """The tokens of a file. Raises `ConstraintCrdtError` if the file is unreadable, malformed, or readable by others."""
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                content = opened.read(MOST_BYTES + 1)
            text = content.decode()
        except OSError as error:
            raise ConstraintCrdtError(f"cannot read the tokens in {file}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise ConstraintCrdtError(f"the tokens in {file} are no text") from None
        if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConstraintCrdtError(f"anybody on this machine can read or write the tokens in {file}: `chmod 600 {file}` first")
        if len(content) > MOST_BYTES:
            raise ConstraintCrdtError(f"the tokens in {file} are more than {MOST_BYTES} bytes: keep fewer")
        try:
            return cls(_read_lines(text))
        except ConstraintCrdtError as error:
            raise ConstraintCrdtError(f"{file}: {error}") from None

    def right(self, token: str) -> Right:
        """The role of a token; `NONE` for an unknown token."""
        return self._rights.get(self._digest(token), Right.NONE)

    def _digest(self, token: str) -> bytes:
        # Keyed by a secret of this process, so the time of a look-up reveals nothing of the tokens.
        return blake2b(token.encode(errors="replace"), key=self._key, digest_size=32).digest()


def _read_lines(text: str) -> Iterable[tuple[Right, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[0] not in ("read", "write"):
            raise ConstraintCrdtError(f"line {number}: write `read TOKEN` or `write TOKEN`")
        yield Right[words[0].upper()], words[1]


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
    """ASGI middleware: counts the responses, and refuses requests by its checks. The only middleware, and so the outermost."""

    def __init__(
        self, app: ASGIApp, note: Callable[[Scope, int], None], checks: Sequence[Callable[[Scope], Problem | None]]
    ) -> None:
        """`note(scope, status)` counts a response when its status is sent. `checks` run in this order."""
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


class TokenGuard:
    """Sets the role of a request, and refuses requests without a token where tokens are needed."""

    def __init__(self, tokens: Tokens | None) -> None:
        """`tokens` None: every client has the role write."""
        self._tokens = tokens

    def check(self, scope: Scope) -> Problem | None:
        """Set the role in the scope; returns the problem of a request without a role."""
        try:
            scope[GRANTED] = Right.WRITE if self._tokens is None else self._granted(scope, self._tokens)
        except Problem as problem:
            return problem
        return None

    def _granted(self, scope: Scope, tokens: Tokens) -> Right:
        if not f"{scope['path']}/".startswith(PROTECTED):
            return Right.NONE
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise _unauthorized("this node asks for a token: send `Authorization: Bearer TOKEN`", "")
        scheme, _, token = given[0].decode("latin-1").strip().partition(" ")
        right = tokens.right(token.strip()) if len(given) == 1 and scheme.lower() == "bearer" else Right.NONE
        if right is Right.NONE:
            raise _unauthorized("the token is not known to this node", ', error="invalid_token"')
        return right


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
        wait = self._take(_client(scope))
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


def _client(scope: Scope) -> str:
    host = str(scope["client"][0]) if scope.get("client") else ""
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    return str(address.ipv4_mapped or int(address) >> 64)
