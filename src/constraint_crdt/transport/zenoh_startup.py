"""The configuration, opening and closing of a Zenoh session.

Key expressions on Zenoh. Each name is a single percent-encoded chunk, so any name is possible:

    constraint-crdt/<fleet>/node/<name>/<session>     a node answers requests here
    constraint-crdt/<fleet>/alive/<name>/<session>    the liveliness token of a node
    constraint-crdt/<fleet>/alive/<name>/<session>/<proof>    the same with an identity
    n/<the last 12 digits of the session in base 64>  such a node answers requests here

With an identity every link is TLS with certificates of both ends, signed by the root of the fleet, and access control takes nothing
but tokens, queries and replies on keys of the fleet. `tcp/` in an endpoint then means `tls/`: the port is the same, plain TCP is
neither opened nor accepted, and settings of the time before the certificates go on. Addresses are not compared with certificates:
nodes are found by gossip at any address, and are known by the name in their proof, see `identity`.

While nodes without an identity are accepted too (`accept_plain`), `tcp/` is plain TCP, a TLS endpoint is added at a free port, and
every seed is tried both ways. Such a node has a token and an answering key of each form.

Configuration: loopback and no multicast by default; no shared memory (which leaves files behind, and many clients never open);
bounded message size and leases; configured links are retried without end.

Opening and closing block, so they run in daemon threads off the loop: an executor would hold up the end of the program. Rules:

- Zenoh does not report the port chosen for port 0. A free port is chosen here, and again on a race. The port of the last session is
  tried first, because peers know it.
- Every session opened here is closed here, at the latest when the interpreter ends: a call from a network thread into a finished
  interpreter aborts the process (16 of 60 runs when tried).
- Daemon threads are waited for at exit, for a bounded time: the release of a Zenoh object during shutdown aborts the process
  (4 of 150 runs when tried), and a thread blocked in Zenoh must not delay the end of the program.
"""

import asyncio
import atexit
import contextlib
import errno
import json
import os
import re
import socket
import sys
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar, cast
from urllib.parse import quote, unquote

import zenoh

from constraint_crdt.transport import Peer, TransportError
from constraint_crdt.transport.topology import (
    own_addresses,
    parse_endpoint,
    reachable_endpoints,
    with_numeric_zone,
    with_scheme,
)

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.identity import Identity

# --- keys ---------------------------------------------------------------------------------------------------------------

_ROOT = "constraint-crdt"
_SESSION = re.compile(r"[0-9a-f]{24}")


@lru_cache(maxsize=1024)
def node_key(fleet: str, peer: Peer, *, proven: bool = False) -> str:
    """Where `peer` answers. `proven`: requests with a tag, at a short key, as every reply repeats it."""
    if proven:
        return f"n/{urlsafe_b64encode(bytes.fromhex(peer.session[12:])).decode()}"
    return f"{_ROOT}/{_chunk(fleet)}/node/{_chunk(peer.name)}/{peer.session}"


def alive_key(fleet: str, peer: Peer, proof: str = "") -> str:
    """The liveliness token of `peer`."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/{_chunk(peer.name)}/{peer.session}{f'/{proof}' if proof else ''}"


def alive_keys(fleet: str, *, proven: bool = False) -> str:
    """The expression matching every token of the fleet: those with a proof, or those without."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/*/*{'/*' if proven else ''}"


ALIVE_ANYWHERE = f"{_ROOT}/*/alive/*/*"
"""The expression matching every token without a proof, of any fleet."""


def fleet_of(alive: str) -> str:
    """The fleet in a token's key, which `peer_of` gives a peer for."""
    return unquote(alive.split("/")[1])


def peer_of(alive: str) -> Peer | None:
    """The peer of a token's key; None for a key of another form."""
    chunks = alive.split("/")
    if len(chunks) not in (5, 6) or not _SESSION.fullmatch(chunks[4]):
        return None
    try:
        name = unquote(chunks[3], errors="strict")
    except UnicodeDecodeError:
        return None
    return Peer(name, chunks[4]) if name and _chunk(name) == chunks[3] else None


def proof_in(alive: str) -> str:
    """The proof in a token's key; "" without a proof."""
    chunks = alive.split("/")
    return chunks[5] if len(chunks) == 6 else ""


def _chunk(text: str) -> str:
    return quote(text, safe="")


def main_id(session: str) -> str:
    """The Zenoh id of the first main session of a peer, and the beginning of the ids of those after a change of its role. None of
    them may begin with 0.
    """
    return f"c1{session}"


MARK = 26
"""Digits of `main_id` and `side_id`."""


def side_id(session: str) -> str:
    """The beginning of the Zenoh ids of the side sessions of a peer."""
    return f"d1{session}"


ROLES = ("peer", "router", "client", "auto")
LEASE = 4.0
ROUTED_LEASE = 8.0
LONG_LEASE = 60.0
"""Seconds of silence after which a link counts as gone. On Linux `ease_links` closes dead links sooner, so the lease can leave time
for slow and lossy links; a router that hangs has to be noticed by its clients.
"""

KEEP_ALIVES = 4
"""Keep-alives of a link in its lease. On Linux they only tell of a process that hangs: the system itself asks silent connections.
"""
DEFAULT_LISTEN = ("tcp/127.0.0.1:0",)


@dataclass(frozen=True)
class Settings:
    """The settings of a transport. Build them with `checked`."""

    role: str
    listen: tuple[str, ...]
    connect: tuple[str, ...]
    multicast: bool
    lease: float
    discover: bool = True
    identity: "Identity | None" = None
    accept_plain: bool = False
    default_lease: bool = False
    """The lease follows the role."""

    def as_role(self, role: str, connect: Sequence[str] = (), listen: Sequence[str] | None = None) -> "Settings":
        """The same in another role. A client does not listen, and connects to `connect` alone, the others to these too."""
        lease = _lease_of(role) if self.default_lease else self.lease
        if role == "client":
            return replace(self, role=role, lease=lease, listen=(), connect=tuple(connect))
        joined = tuple(dict.fromkeys((*self.connect, *connect)))
        return replace(self, role=role, lease=lease, listen=self.listen if listen is None else tuple(listen), connect=joined)

    @property
    def protocols(self) -> list[str]:
        """The protocols of links, with an identity."""
        return ["tls", "tcp"] if self.accept_plain else ["tls"]


def checked(
    role: str,
    listen: Sequence[str] | None,
    connect: Sequence[str],
    *,
    multicast: bool,
    lease: float | None,
    discover: bool = True,
    identity: "Identity | None" = None,
    accept_plain: bool = False,
) -> Settings:
    """The checked settings. Raises `TransportError` for a wrong value."""
    if role not in ROLES:
        raise TransportError(f"unknown role {role!r}; use one of {', '.join(ROLES)}")
    if role == "client" and listen:
        raise TransportError(f"a client does not listen; leave out {listen[0]!r}, or take the role peer or router")
    if role == "client" and not connect and not multicast:
        raise TransportError("a client needs a router to connect to; give the endpoint of at least one")
    default_lease = lease is None
    lease = _lease_of(role) if lease is None else lease
    if not 0.1 <= lease <= 3600:
        raise TransportError(f"a lease of {lease:g} s does not work; give between 0.1 and 3600 s")
    if listen is None:
        listen = () if role == "client" else DEFAULT_LISTEN
    for endpoint in (*listen, *connect):
        parse_endpoint(endpoint)
        if identity is None and endpoint.startswith("tls/"):
            raise TransportError(
                f"the endpoint {endpoint!r} needs an identity; give the node one (--identity), or write tcp/HOST:PORT"
            )
    for endpoint in connect:
        if parse_endpoint(endpoint)[1] == 0:
            raise TransportError(f"cannot connect to {endpoint!r}: port 0 names no listener; give the port of the node")
    if accept_plain and identity is not None:
        if not any(endpoint.startswith("tls/") for endpoint in listen):
            hosts = dict.fromkeys(endpoint.partition("/")[2].rpartition(":")[0] for endpoint in listen)
            listen = (*listen, *(f"tls/{host}:0" for host in hosts))
        connect = tuple(f"{scheme}/{endpoint.partition('/')[2]}" for endpoint in connect for scheme in ("tls", "tcp"))
    else:
        listen, connect = (tuple(with_scheme(each, identity) for each in endpoints) for endpoints in (listen, connect))
    return Settings(
        role, tuple(listen), tuple(dict.fromkeys(connect)), multicast, lease, discover, identity, accept_plain, default_lease
    )


def _lease_of(role: str) -> float:
    if sys.platform != "linux":
        return LEASE
    return LONG_LEASE if role in ("peer", "auto") else ROUTED_LEASE


LINK_OPEN_SECONDS = 20.0
LINK_ACCEPT_SECONDS = 60.0
"""Seconds for opening a link. The main session has time for links of 3 s there and back, which take five turns with TLS. Who
accepts has time for those that lose every other packet, too.
"""

RETRY_SECONDS = 0.5
"""Seconds between two tries at a configured endpoint, at most."""


def zenoh_config(settings: Settings, listening: Sequence[str], id_: str) -> dict[str, object]:
    """Zenoh's configuration of a main session, with the ports of `listening` in place of the configured ports. `id_`: its Zenoh id.

    Raises `TransportError` for a zone that names no interface.
    """
    router = settings.role == "router"
    seeds = [with_numeric_zone(each) for each in settings.connect]
    connect = _connect(seeds, RETRY_SECONDS)
    if settings.role == "client":  # its open blocks until a router answers: bounded here, tried again by the transport
        connect = {"endpoints": seeds, "timeout_ms": 1000}
    config: dict[str, object] = {
        "id": id_,
        "mode": settings.role,
        "listen": {"endpoints": [with_numeric_zone(each) for each in listening]},
        "connect": connect,
        "open": {"return_conditions": {"connect_scouted": False}},  # else every open waits half a second
        "scouting": {
            "multicast": {"enabled": settings.multicast},
            "gossip": {
                "enabled": settings.discover,
                "autoconnect": {"router": ["router"], "peer": ["router", "peer"], "client": []},
                "autoconnect_strategy": {"peer": {"to_router": "always", "to_peer": "greater-zid"}},
            },
        },
        "transport": {
            "unicast": {
                "max_sessions": 10_000 if router else 1000,
                "accept_pending": 1000 if router else 256,
                "open_timeout": round(LINK_OPEN_SECONDS * 1000),
                "accept_timeout": round(LINK_ACCEPT_SECONDS * 1000),
            },
            "shared_memory": {"enabled": False},
            "link": {
                # Messages are dropped rather than wait while this queue is full. 16 batches of 64 KiB, the most, hold a page.
                "tx": {
                    "lease": round(settings.lease * 1000),
                    "keep_alive": KEEP_ALIVES,
                    "queue": {"size": {"data": 16}},
                },
                "rx": {"max_message_size": 16 * 1024 * 1024},
                **({} if settings.identity is None else _tls(settings.identity, settings.protocols)),
            },
        },
    }
    if settings.identity is not None:
        config["access_control"] = _access_control(settings.identity, settings.protocols)
    return config


def side_config(settings: Settings, endpoint: str, id_: str, open_seconds: float, retry_seconds: float) -> Mapping[str, object]:
    """Zenoh's configuration of a side session, for the link to a peer at `endpoint`. Of several endpoints of a peer Zenoh
    would try the others for ever.
    """
    config = zenoh_config(replace(settings, role="peer", connect=()), (), id_)
    limits = {"max_sessions": 8, "accept_pending": 1, "open_timeout": round(open_seconds * 1000)}
    transport = {**cast("dict[str, object]", config["transport"]), "unicast": limits}
    scouting = {"multicast": {"enabled": False}, "gossip": {"enabled": False}}
    return {**config, "connect": _connect([endpoint], retry_seconds), "scouting": scouting, "transport": transport}


def door_settings(settings: Settings) -> Settings:
    """The settings of the session with which a client by choice goes on listening. It links to no node by itself."""
    return replace(settings.as_role("peer"), connect=(), multicast=False, discover=False)


def _connect(endpoints: Sequence[str], retry_seconds: float) -> dict[str, object]:
    retry = {"period_init_ms": 200, "period_max_ms": round(retry_seconds * 1000), "period_increase_factor": 1.5}
    return {"endpoints": list(endpoints), "timeout_ms": -1, "exit_on_failure": False, "retry": retry}


_MESSAGES = (
    "query", "reply", "declare_queryable", "liveliness_token", "liveliness_query", "declare_liveliness_subscriber"
)  # fmt: skip


def _access_control(identity: "Identity", protocols: list[str]) -> Mapping[str, object]:
    """Take and send only the messages that nodes use, on keys of the fleet."""
    allowed = {
        "id": "fleet",
        "permission": "allow",
        "messages": list(_MESSAGES),
        "flows": ["ingress", "egress"],
        "key_exprs": [f"{_ROOT}/{_chunk(identity.subject.fleet)}/**", "n/*"],
    }
    return {
        "enabled": True,
        "default_permission": "deny",
        "rules": [allowed],
        "subjects": [{"id": "certified", "link_protocols": protocols}],
        "policies": [{"rules": ["fleet"], "subjects": ["certified"]}],
    }


def _tls(identity: "Identity", protocols: list[str]) -> Mapping[str, object]:
    """TLS, with certificates of both ends. A link ends with the first of its certificates."""
    key, certificate = (b64encode(pem).decode() for pem in (identity.key_pem, identity.certificate_pem))
    return {
        "protocols": protocols,
        "tls": {
            "root_ca_certificate_base64": b64encode(identity.root_pem).decode(),
            "enable_mtls": True,
            "verify_name_on_connect": False,
            "close_link_on_expiration": True,
            "listen_private_key_base64": key,
            "listen_certificate_base64": certificate,
            "connect_private_key_base64": key,
            "connect_certificate_base64": certificate,
        },
    }


# --- threads ------------------------------------------------------------------------------------------------------------

T = TypeVar("T")

EXIT_SECONDS = 1.0
_threads: set[threading.Thread] = set()


def start_daemon_thread(work: Callable[[], object]) -> None:
    """Run `work` in a thread of its own."""
    # A copy: other threads start threads, too.
    _threads.difference_update([thread for thread in list(_threads) if not thread.is_alive()])
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    _threads.add(thread)


def _wait_at_exit() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))


atexit.register(_wait_at_exit)


async def in_daemon_thread(work: Callable[[], T], seconds: float, discard: Callable[[T], object]) -> T:
    """Run `work` in a thread and return its result or raise its error. Raises `TimeoutError` after `seconds`.

    A result after a timeout, a cancellation or the end of the loop goes to `discard`, in a thread too.
    """
    call = _Call(work, discard)
    start_daemon_thread(call.run)
    try:
        async with asyncio.timeout(seconds):
            return await call.done
    except BaseException:
        call.abandon()
        raise


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T], discard: Callable[[T], object]) -> None:
        self._work = work
        self._discard = discard
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[T] = self._loop.create_future()

    def run(self) -> None:
        """The thread."""
        try:
            result = self._work()
        except BaseException as error:
            self._hand_over(self._fail, error)
        else:
            if not self._hand_over(self._deliver, result):
                self._discard(result)

    def abandon(self) -> None:
        """The caller stopped waiting. A result delivered since then is discarded."""
        if self.done.done() and not self.done.cancelled() and self.done.exception() is None:
            self._throw_away(self.done.result())

    def _hand_over(self, call: Callable[..., None], argument: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(call, argument)
        except RuntimeError:  # the loop is closed: no caller waits
            return False
        return True

    def _deliver(self, result: T) -> None:
        if self.done.done():
            self._throw_away(result)
        else:
            self.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)

    def _throw_away(self, result: T) -> None:
        start_daemon_thread(lambda: self._discard(result))


_ATTEMPTS = 8
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


class RouterUnreachableError(TransportError):
    """A client found no router. A retry may succeed."""


class Opened(NamedTuple):
    """An open Zenoh session, with its listening endpoints and the endpoints for other nodes."""

    session: zenoh.Session
    listening: tuple[str, ...]
    endpoints: tuple[str, ...]


def open_session(settings: Settings, before: Sequence[str], id_: str) -> Opened:
    """Open a main session. `before`: the listening endpoints of the last session. Raises `TransportError`."""
    _close_at_exit()
    chose = any(parse_endpoint(endpoint)[1] == 0 for endpoint in settings.listen)
    for attempt in range(_ATTEMPTS):
        keep = before if attempt == 0 and len(before) == len(settings.listen) else settings.listen
        listening = tuple(_with_port(endpoint) for endpoint in keep)
        try:
            session = zenoh.open(_config(zenoh_config(settings, listening, id_)))
        except zenoh.ZError as error:
            if chose and _os_error(str(error)) == errno.EADDRINUSE and attempt + 1 < _ATTEMPTS:
                continue
            raise _explained(settings, listening, str(error)) from None
        _open.add(session)
        return Opened(session, listening, reachable_endpoints(listening, own_addresses()))
    raise AssertionError("the last attempt returns or raises")


def open_side_session(settings: Settings, endpoint: str, id_: str, open_seconds: float, retry_seconds: float) -> zenoh.Session:
    """Open a side session, see `side_config`. Raises `TransportError`."""
    _close_at_exit()
    try:
        session = zenoh.open(_config(side_config(settings, endpoint, id_, open_seconds, retry_seconds)))
    except zenoh.ZError as error:
        raise TransportError(f"no side session opened for {endpoint}: {error}") from None
    _open.add(session)
    return session


def _config(values: Mapping[str, object]) -> zenoh.Config:
    return zenoh.Config.from_json5(json.dumps(values))


def close_session(session: zenoh.Session) -> None:
    """Close a session of `open_session`; nothing happens the second time."""
    _open.discard(session)
    with contextlib.suppress(zenoh.ZError):
        session.close()  # type: ignore[no-untyped-call]  # the stub leaves the return type out


def linked_addresses(session: zenoh.Session) -> list[str]:
    """The IP addresses at the other ends of the links."""
    return [link.dst.partition("/")[2].rpartition(":")[0].strip("[]").partition("%")[0] for link in session.info.links()]


def link_ends(sessions: Sequence[zenoh.Session]) -> list[tuple[str, str]]:
    """The locators of both ends of each link of these sessions, without sessions that are closed."""
    found: list[tuple[str, str]] = []
    for session in sessions:
        with contextlib.suppress(zenoh.ZError):
            found += [(link.src, link.dst) for link in session.info.links()]
    return found


_open: set[zenoh.Session] = set()
_exiting = threading.Event()
atexit.register(_exiting.set)  # runs before the wait for daemon threads, which was registered earlier


@cache
def _close_at_exit() -> None:
    """Start a thread to close open sessions at exit: Python 3.12 starts no thread at that time."""

    def close_all() -> None:
        _exiting.wait()
        for session in list(_open):
            close_session(session)

    start_daemon_thread(close_all)


def _with_port(endpoint: str) -> str:
    """`endpoint`, with a free port in place of port 0."""
    host, port = parse_endpoint(endpoint)
    if port:
        return endpoint
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            port = probe.getsockname()[1]
    except OSError as error:
        raise TransportError(f"cannot listen on {endpoint}: {error.strerror or error}; use another address") from None
    return f"{endpoint.rpartition(':')[0]}:{port}"


def _os_error(message: str) -> int:
    match = _OS_ERROR.search(message)
    return int(match[1]) if match else 0


def _explained(settings: Settings, listening: Sequence[str], message: str) -> TransportError:
    if settings.role == "client" and "Unable to connect" in message:
        return RouterUnreachableError(f"no router answers at {', '.join(settings.connect)}; start one there")
    endpoint = next((each for each in listening if each in message), ", ".join(listening))
    number = _os_error(message)
    if number == errno.EADDRINUSE:
        return TransportError(f"cannot listen on {endpoint}: the port is taken; choose another, or end what uses it")
    if number == errno.EADDRNOTAVAIL:
        return TransportError(f"cannot listen on {endpoint}: this machine has no such address; use one that it has")
    # Zenoh's messages end with places in its source code, of no use to operators.
    reason = os.strerror(number) if number else message.split(" at /")[0].strip().rstrip(".")
    return TransportError(f"cannot open with {endpoint or 'these settings'}: {reason}; change the endpoint")
