"""A client of the HTTP API, for programs: `Client`, and `AsyncClient` on asyncio. The command line is built on it.

    from constraint_crdt.client import Client

    with Client("http://127.0.0.1:8470") as node:
        node.add("thermal", when="gpu_temp_c < 85.0")
        print(node.status().satisfaction_rate)
        for heard in node.events():
            print(heard)

Responses are the structs of `constraint_crdt.operations`. Every failure is a `ClientError`. An import loads no server, no engine
and no node. `methods` has a method per operation, generated; `blocking` has the clients, which connect. `NotANode` is found under
its name of 0.1.0, `Stranger`, with a `DeprecationWarning`, until 0.3.

This module has the exchange of requests, responses and events for both clients: addresses, tokens, encoding, decoding, errors. It
does no I/O, except to read a file of tokens or of root certificates. A token goes into a header and nowhere else. A file of
tokens has lines such as `read TOKEN` and `operate TOKEN`, or a single token. The stream of events is that of the HTML standard,
9.2.6; the server side is `GET /v1/events`.
"""

import json
import re
import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from constraint_crdt import lazy_names
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue
from constraint_crdt.model import Event, Notice
from constraint_crdt.operations.operation import JSON, REASON, AnyOperation, Operation

if TYPE_CHECKING:
    from constraint_crdt.client.blocking import AsyncClient, Client, PlatoClient, PlatoError


_MODULE_OF = {
    "AsyncClient": "constraint_crdt.client.blocking",
    "Client": "constraint_crdt.client.blocking",
    "PlatoClient": "constraint_crdt.client.blocking",
    "PlatoError": "constraint_crdt.client.blocking",
}
"""The clients, loaded on their first use: asyncio takes longer to load than a command may."""

__all__ = [
    "AsyncClient",
    "Busy",
    "Client",
    "ClientError",
    "Gap",
    "Happened",
    "Heard",
    "Moved",
    "NoAnswer",
    "NotANode",
    "NotFound",
    "PlatoClient",
    "PlatoError",
    "Refused",
    "TlsError",
    "Unauthorized",
    "WrongInput",
]


class ClientError(ConstraintCrdtError):
    """A request that failed. `str()` is a sentence, and never contains a token."""


class NoAnswer(ClientError):
    """No answer, or not in time. A write may have been done."""

    def __init__(self, message: str, *, refused: bool = False, timed_out: bool = False) -> None:
        """`refused`: no server listens at the address. `timed_out`: a server accepted and sent nothing."""
        super().__init__(message)
        self.refused = refused
        self.timed_out = timed_out


class TlsError(ClientError):
    """The server does not speak TLS, or its certificate is not trusted."""


class NotANode(ClientError):
    """The server at the address is not a node."""


class Refused(ClientError):
    """A problem after RFC 9457: the reason for which the node refused the request."""

    def __init__(self, detail: str, status: int, *, field: str | None = None, retry_after: float | None = None) -> None:
        """`field`: the field or parameter at fault. `retry_after`: seconds until a retry, if the node gave them."""
        super().__init__(detail)
        self.status = status
        self.field = field
        self.retry_after = retry_after


class WrongInput(Refused, ValueError):
    """An invalid request, in any state of the fleet."""


class NotFound(Refused, KeyError):
    """The node knows no such name."""


class Unauthorized(Refused):
    """The token is missing, unknown, or of too low a role."""


class Busy(Refused):
    """Not at present: the rate limit, or a disk without writes."""


_load, __dir__ = lazy_names(__name__, _MODULE_OF)


def __getattr__(name: str) -> object:
    if name == "Stranger":  # as in 0.1.0
        warnings.warn("constraint_crdt.client.Stranger is NotANode now", DeprecationWarning, stacklevel=2)
        return NotANode
    return _load(name)


Request = TypeVar("Request", bound=msgspec.Struct)
Response = TypeVar("Response")

DEFAULT_PORT = 8470

MOST_TOKEN_BYTES = 512 * 1024
"""Of a file of tokens."""

TIMEOUT = 5.0
"""Seconds without data after which a request fails."""

IDLE_SECONDS = 4.0
"""Seconds for which an idle connection is reused: the server closes idle connections a second later."""

MOST_IDLE = 8
"""Idle connections in the pool."""

SILENCE = 25.0
"""Seconds without data, heartbeats included, after which a stream counts as broken."""

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 8.0
"""Seconds before the retry of a broken stream: doubling between these."""

LONGEST_LINE = 1024 * 1024

REPEATABLE = frozenset({"GET", "PUT", "DELETE"})
"""Idempotent methods: retried if a pooled connection turns out to be closed."""

KINDS: dict[int, type[Refused]] = {
    400: WrongInput, 413: WrongInput, 415: WrongInput, 422: WrongInput,
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 429: Busy, 503: Busy,
}  # fmt: skip
"""The error by status; `Refused` for others."""

_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
"""The reasons of OpenSSL for an answer in plain HTTP."""

_OTHER_HOST = frozenset({62, 64})
"""The codes of OpenSSL for a certificate of another host name, or address."""

_NEXT = re.compile(r'<([^>]*)>;\s*rel="next"')
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
_PATH_FIELD = re.compile(r"\{(\w+)(?::\w+)?\}")


# --- addresses and tokens --------------------------------------------------------------------------------------------------------


class AddressError(ConstraintCrdtError, ValueError):
    """A text that is not the address of a node."""


class Address(NamedTuple):
    """Host and port of a node's API, and the path below which a proxy serves it."""

    host: str
    port: int
    secure: bool = False
    """By TLS."""
    prefix: str = ""
    """Without a slash at its end, as in `/crdt`."""

    @property
    def url(self) -> str:
        """As a URL."""
        return f"http{'s' if self.secure else ''}://{self.authority}{self.prefix}"

    @property
    def authority(self) -> str:
        """As in a Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(text: str) -> Address:
    """The address in `http://HOST:PORT`, `https://HOST:PORT` or `HOST:PORT`, each with a path if a proxy serves the node below
    the path; or in `PORT` alone, of this machine. Raises `AddressError`.
    """
    wrong = AddressError(
        f"{text!r} is no address of a node: give http://HOST:PORT, https://HOST:PORT, HOST:PORT, or a port of here"
    )
    if text.removeprefix(":").isdecimal():
        text = f"127.0.0.1:{text.removeprefix(':')}"
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:  # a port out of range, an unclosed bracket; or UnicodeError, a host that no resolver could take
        raise wrong from None
    if (
        not text.isprintable()  # `urlsplit` leaves tabs and ends of lines out
        or parts.scheme not in ("http", "https")
        or not (_HOST.fullmatch(host) or ":" in host)
        or port == 0
        or not _PREFIX.fullmatch(parts.path)
        or parts.query
        or parts.fragment
        or parts.username
    ):
        raise wrong
    return Address(host, DEFAULT_PORT if port is None else port, parts.scheme == "https", parts.path.rstrip("/"))


_HOST = re.compile(r"[A-Za-z0-9._-]+")

_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*/?")
"""The characters of a path of a URL."""


def read_token(file: Path) -> str:
    """The first token with the most rights. Raises `ConstraintCrdtError` without any, and for a file of hashes."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_TOKEN_BYTES).decode()
    except OSError as error:
        raise InvalidValue(f"cannot read the tokens in {file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ConstraintCrdtError(f"the tokens in {file} are no text") from None
    lines = [words for line in text.splitlines() if (words := line.split()) and not words[0].startswith("#")]
    for rights in (("operate", "write"), ("measure",), ("read",)):
        for words in lines:
            if len(words) == 2 and words[0] in rights:
                return words[1]
    if len(lines) == 1 and len(lines[0]) == 1:
        return lines[0][0]
    if any(words[0] == "token" for words in lines):
        raise ConstraintCrdtError(
            f"{file} is the token file of a node and has hashes of tokens: name the file with your own token, "
            "which `constraint-crdt token add` printed"
        )
    raise ConstraintCrdtError(f"there is no token in {file}: write a line with the token alone")


class Trust:
    """The certificates that a client trusts, for TLS."""

    def __init__(self, ca: str | Path | None) -> None:
        """`ca`: a file with root certificates, in PEM; None: those of the system. Raises `ConstraintCrdtError` if unusable.

        A certificate that the root of a fleet signed for a node names no address: then the name of the fleet is checked, and the
        host is not. Any other certificate must name the host.
        """
        self._ca = None if ca is None else Path(ca)
        self._context: ssl.SSLContext | None = None
        self._by_host = ca is None
        self._fleets: tuple[str, ...] = ()
        """How the URIs begin in the certificates of nodes of the trusted fleets."""
        if self._ca is not None:
            self._context = self._make(self._ca)
            roots: list[Any] = self._context.get_ca_certs()
            subjects = [part for root in roots for part in root["subject"]]
            self._fleets = tuple(f"constraint-crdt://{value}/" for part in subjects for key, value in part if key == "commonName")

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        if self._context is None:
            self._context = ssl.create_default_context()  # reads the roots of the system, some hundred files
        self._context.check_hostname = self._by_host
        return self._context

    def accepts(self, certificate: Mapping[str, Any] | None) -> bool:
        """True for a certificate whose signature was checked. False: connect again, and the host is checked, too."""
        if self._by_host or self._is_of_fleet(certificate or {}):
            return True
        self._by_host = True
        return False

    def _is_of_fleet(self, certificate: Mapping[str, Any]) -> bool:
        """True for a certificate of a node, of a fleet whose root is trusted."""
        uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        return len(uris) == 1 and uris[0].startswith(self._fleets)

    @staticmethod
    def _make(file: Path) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a root may be known by the certificate of the root that follows it
        try:
            context.load_verify_locations(file)
        except ssl.SSLError:
            raise ConstraintCrdtError(f"{file} has no certificate in PEM: name the ca.pem of the fleet") from None
        except OSError as error:
            raise ConstraintCrdtError(f"cannot read the root certificate {file}: {error.strerror or error}") from None
        return context


# --- requests and responses ------------------------------------------------------------------------------------------------------


class RawResponse(NamedTuple):
    """The status, headers and content of an answer."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    content: bytes


class EncodedRequest(NamedTuple):
    """An encoded request."""

    method: str
    path: str
    """With its query."""
    body: bytes | None
    media_type: str
    extra_timeout: float
    """Seconds beyond the timeout for a slow operation."""


def encode_request(operation: Operation[Request, Any], request: Request) -> EncodedRequest:
    """The request, encoded. Raises `TypeError` for a value without a form in JSON, and `InvalidValue` for an empty name in
    its path, as of an unset variable of a shell: no node has anything there.
    """
    for field in _PATH_FIELD.findall(operation.path):
        if not getattr(request, field):
            raise InvalidValue(f"the {field} is empty", field=field)
    path = _PATH_FIELD.sub(lambda found: quote(getattr(request, found[1]), safe="", errors="replace"), operation.path)
    query = _query(operation, request)
    body = operation.body
    content: bytes | None = None
    if body is not None and body.field is not None:
        content = getattr(request, body.field)
    elif body is not None:
        content = _encoded(_body(body.shape, request))
    extra_timeout = 0.0 if operation.extra_timeout is None else operation.extra_timeout(request)
    media_type = JSON if body is None else body.media_type
    return EncodedRequest(operation.method, f"{path}?{query}" if query else path, content, media_type, extra_timeout)


def _body(shape: Any, request: Request) -> dict[str, object]:
    """The fields of the body, by name. Defaults are left out where the struct says so, for nodes of versions without the fields."""
    if shape is None:
        return {}
    omitted = shape.__struct_config__.omit_defaults
    given = [(field, getattr(request, field.name)) for field in msgspec.structs.fields(shape)]
    return {field.encode_name: value for field, value in given if not omitted or value != field.default}


def _encoded(body: Mapping[str, object]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (OverflowError, UnicodeEncodeError):
        # A number beyond 64 bits, or a text that is not valid Unicode: JSON has both, and the node says why it refuses them.
        return json.dumps(msgspec.to_builtins(body)).encode()


def _query(operation: AnyOperation, request: msgspec.Struct) -> str:
    """The parameters other than defaults; a timeout always."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(operation.request)}
    given: list[tuple[str, object]] = []
    for parameter in operation.parameters:
        value = getattr(request, parameter.target)
        if parameter.place != "query" or value is None or (value == defaults[parameter.target] and parameter.name != "timeout"):
            continue
        values = value if parameter.many else (value,)
        given += [(parameter.name, int(each) if isinstance(each, bool) else each) for each in values]
    return urlencode(given, errors="replace")


def headers_of(address: Address, token: str | None, body: bytes | None, media_type: str, why: str = "") -> dict[str, str]:
    """The headers of a request. `why`: the reason of a change."""
    headers = {"Host": address.authority, "Accept": "application/json, application/problem+json, */*"}
    if body is not None:
        headers |= {"Content-Type": media_type, "Content-Length": str(len(body))}
    if why:
        headers[REASON.name] = quote(why, errors="replace")
    return headers | authorization(token)


def authorization(token: str | None) -> dict[str, str]:
    """The header with the token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def check_token(token: str | None) -> str | None:
    """The token. Raises `ValueError` without the token for an invalid token."""
    if token is not None and not _TOKEN.fullmatch(token):
        raise InvalidValue("the token has characters in it that no token has")
    return token


def read_response(operation: Operation[Any, Response], answered: RawResponse, address: Address) -> Response:
    """The decoded response. Raises `Refused` for a problem, `NotANode` for an answer that is not from a node."""
    check_answer(answered, address)
    found: Any
    if operation.response is bytes:
        found = answered.content
    elif operation.response is str:
        found = answered.content.decode(errors="replace")
    else:
        try:
            found = msgspec.json.decode(answered.content, type=operation.response)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise not_a_node(address) from None
    return found  # type: ignore[no-any-return]  # the type is the operation's


def joined(operation: Operation[Any, Response], pages: list[Response]) -> Response:
    """The response of all pages."""
    return pages[0] if operation.join is None else operation.join(pages)


def check_answer(answered: RawResponse, address: Address) -> None:
    """Raise `Refused` for a problem, `NotANode` for another error."""
    if answered.status < 400:
        return
    try:
        problem = msgspec.json.decode(answered.content, type=dict[str, Any])
        detail = problem["detail"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        raise not_a_node(address) from None
    if not isinstance(detail, str):
        raise not_a_node(address)
    field, wait = problem.get("field"), answered.headers.get("retry-after", "")
    raise KINDS.get(answered.status, Refused)(
        detail,
        answered.status,
        field=field if isinstance(field, str) else None,
        retry_after=float(wait) if wait.isascii() and wait.isdigit() else None,
    )


def next_page(answered: RawResponse, address: Address) -> str | None:
    """The path of the next page, without that of the address; or None."""
    found = _NEXT.search(answered.headers.get("link", ""))
    if found is None or not found[1].startswith("/"):
        return None
    return found[1].removeprefix(address.prefix) if found[1].startswith(f"{address.prefix}/") else found[1]


def events_target(last: int, kinds: Sequence[str], *, follow: bool) -> str:
    """The path and query of a stream of events."""
    return f"/v1/events?{urlencode([('last', last), ('follow', int(follow)), *(('kind', kind) for kind in kinds)])}"


def not_a_node(address: Address) -> NotANode:
    """The error of an answer that is not from a node."""
    return NotANode(f"what answers at {address.url} is no node of constraint-crdt")


def _tls_error(address: Address, error: ssl.SSLError) -> TlsError:
    if error.reason in _NO_TLS:
        return TlsError(f"the port at {address.url} speaks no TLS: use http:// in place of https://")
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message
        if error.verify_code in _OTHER_HOST:
            return TlsError(f"the certificate of {address.url} is for another host: {why}")
        advice = "name the root certificate of its fleet (ca.pem) with --ca FILE, CONSTRAINT_CRDT_CA or `ca`"
        return TlsError(f"the certificate of {address.url} is not trusted ({why}): {advice}")
    return TlsError(f"TLS with {address.url} failed: {error.reason or error}")


def no_answer(address: Address, error: OSError, timeout: float) -> NoAnswer | TlsError:
    """The error of a request without an answer."""
    if isinstance(error, ssl.SSLError):
        return _tls_error(address, error)
    if isinstance(error, TimeoutError):
        return NoAnswer(f"the node at {address.url} did not answer within {timeout:g} s", timed_out=True)
    if isinstance(error, ConnectionRefusedError):
        return NoAnswer(f"no node answers at {address.url}", refused=True)
    return NoAnswer(f"cannot reach a node at {address.url}: {error.strerror or error}")


# --- the stream of events ---------------------------------------------------------------------------------------------------------


class Happened(NamedTuple):
    """An event."""

    id: str
    """For `after`, to resume later."""
    event: Event


class Moved(NamedTuple):
    """Readings changed."""

    notice: Notice


class Gap(NamedTuple):
    """Events were missed: the log has dropped them."""

    missed: int | None
    """Their number; None if unknown, after a restart of the node."""


Heard: TypeAlias = Happened | Moved | Gap


class _Missed(msgspec.Struct):
    missed: int | None


class StreamReader:
    """Parses the bytes of a stream, and tracks the last event id."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        """The id of the last event, after which a broken stream resumes."""
        self.fed = False
        """True after the first data of this stream."""
        self._rest = b""
        self._kind = ""
        self._id = ""
        self._data = b""

    def restart(self) -> None:
        """Begin a new stream."""
        self.fed = False
        self._rest = self._data = b""
        self._kind = self._id = ""

    def feed(self, data: bytes) -> Iterator[Heard]:
        """The messages completed by these bytes. Raises `ValueError` for malformed data."""
        self.fed = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            raise ValueError("the stream has a line without end")
        for line in lines:
            heard = self._line(line.removesuffix(b"\r"))
            if heard is not None:
                yield heard

    def _line(self, line: bytes) -> Heard | None:
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"id":
                self._id = value.decode(errors="replace")
            elif field == b"event":
                self._kind = value.decode(errors="replace")
            elif field == b"data":
                self._data += value
            return None
        kind, id_, data = self._kind, self._id, self._data
        self._kind, self._id, self._data = "", "", b""
        return self._heard(kind, id_, data) if data else None

    def _heard(self, kind: str, id_: str, data: bytes) -> Heard | None:
        if kind == "state":
            return Moved(msgspec.json.decode(data, type=Notice))
        if kind == "gap":
            return Gap(msgspec.json.decode(data, type=_Missed).missed)
        if not id_:
            return None  # the end of the stream, or a message unknown to this version
        self.last_id = id_
        try:
            return Happened(id_, msgspec.json.decode(data, type=Event))
        except msgspec.ValidationError:
            return None  # of a kind unknown to this version
