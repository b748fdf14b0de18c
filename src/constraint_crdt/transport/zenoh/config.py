"""The key expressions of the fleet on Zenoh, and the way back from a key to a peer.

    constraint-crdt/<fleet>/node/<name>/<session>     where a node answers requests
    constraint-crdt/<fleet>/alive/<name>/<session>    its liveliness token

Names may hold any character: each becomes exactly one chunk, percent-encoded, and back without loss.

What Zenoh is told: our roles and endpoints, checked, and the configuration made of them.

Rules: loopback and no multicast unless asked; no shared memory (it leaves files behind, and many clients never open);
message size and leases bounded; configured links are retried for ever.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

from constraint_crdt.transport.interface import Peer, TransportError

_ROOT = "constraint-crdt"
_SESSION = re.compile(r"[0-9a-f]{24}")


def node_key(fleet: str, peer: Peer) -> str:
    """Where `peer` answers."""
    return f"{_ROOT}/{_chunk(fleet)}/node/{_chunk(peer.name)}/{peer.session}"


def alive_key(fleet: str, peer: Peer) -> str:
    """The token that says `peer` is there."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/{_chunk(peer.name)}/{peer.session}"


def alive_keys(fleet: str) -> str:
    """The expression that matches every token of the fleet."""
    return f"{_ROOT}/{_chunk(fleet)}/alive/*/*"


def peer_of(alive: str) -> Peer | None:
    """The peer a token's key speaks of; None for a key that no node of ours would have made."""
    chunks = alive.split("/")
    if len(chunks) != 5 or not _SESSION.fullmatch(chunks[4]):
        return None
    try:
        name = unquote(chunks[3], errors="strict")
    except UnicodeDecodeError:
        return None
    return Peer(name, chunks[4]) if name and _chunk(name) == chunks[3] else None


def _chunk(text: str) -> str:
    return quote(text, safe="")


ROLES = ("peer", "router", "client")
DEFAULT_LISTEN = ("tcp/127.0.0.1:0",)
_ENDPOINT = re.compile(r"tcp/(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]/:?#]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Settings:
    """How one transport takes part. Build it with `checked`."""

    role: str
    listen: tuple[str, ...]
    connect: tuple[str, ...]
    multicast: bool
    lease: float
    discover: bool = True


def checked(
    role: str, listen: Sequence[str] | None, connect: Sequence[str], *, multicast: bool, lease: float, discover: bool = True
) -> Settings:
    """The settings, or `TransportError` naming what is wrong."""
    if role not in ROLES:
        raise TransportError(f"Unknown role {role!r}; use one of {', '.join(ROLES)}.")
    if role == "client" and listen:
        raise TransportError(f"A client does not listen; leave out {listen[0]!r}, or take the role peer or router.")
    if role == "client" and not connect and not multicast:
        raise TransportError("A client needs a router to connect to; give the endpoint of at least one.")
    if not 0.1 <= lease <= 3600:
        raise TransportError(f"A lease of {lease:g} s does not work; give between 0.1 and 3600 s.")
    if listen is None:
        listen = () if role == "client" else DEFAULT_LISTEN
    for endpoint in listen:
        parse_endpoint(endpoint)
    for endpoint in connect:
        if parse_endpoint(endpoint)[1] == 0:
            raise TransportError(f"Cannot connect to {endpoint!r}: port 0 is no one's; give the port it listens on.")
    return Settings(role, tuple(listen), tuple(connect), multicast, lease, discover)


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint, or `TransportError` naming it."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or int(match["port"]) > 65535:
        raise TransportError(f"Cannot use the endpoint {endpoint!r}; write it as tcp/HOST:PORT.")
    return match["host"].strip("[]"), int(match["port"])


def usable_connects(endpoints: Iterable[str], own: Sequence[str]) -> tuple[str, ...]:
    """Those of `endpoints`, which others sent, that one can connect to and that are not ours."""
    kept: dict[str, None] = {}
    for endpoint in endpoints:
        try:
            host, port = parse_endpoint(endpoint)
        except TransportError:
            continue
        if port and not _is_wildcard(host) and endpoint not in own:
            kept[endpoint] = None
    return tuple(kept)


def with_more_connects(settings: Settings, extra: Iterable[str], own: Sequence[str]) -> Settings:
    """`settings` with the usable ones of `extra` beside its own connects."""
    more = (endpoint for endpoint in usable_connects(extra, own) if endpoint not in settings.connect)
    return replace(settings, connect=(*settings.connect, *more))


def reachable_endpoints(listening: Iterable[str], addresses: Sequence[str]) -> tuple[str, ...]:
    """Where others can connect, given where we listen: a wildcard host stands for each of `addresses` of its family."""
    found: list[str] = []
    for endpoint in listening:
        host, port = parse_endpoint(endpoint)
        if not _is_wildcard(host):
            found.append(endpoint)
            continue
        for address in addresses:
            ip = ipaddress.ip_address(address)
            if ip.version == 6 and host == "::":
                found.append(f"tcp/[{address}]:{port}")
            elif ip.version == 4:  # the IPv6 wildcard takes IPv4 connections too
                found.append(f"tcp/{address}:{port}")
    return tuple(found)


def _is_wildcard(host: str) -> bool:
    return host in {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


def zenoh_config(settings: Settings, listening: Sequence[str]) -> Mapping[str, object]:
    """Zenoh's configuration, with the ports of `listening` in place of the ones asked for."""
    router = settings.role == "router"
    connect: dict[str, object] = {"endpoints": list(settings.connect), "timeout_ms": -1, "exit_on_failure": False}
    connect["retry"] = {"period_init_ms": 200, "period_max_ms": 2000, "period_increase_factor": 2}
    if settings.role == "client":  # its open blocks until a router answers: bounded here, tried again by the transport
        connect = {"endpoints": list(settings.connect), "timeout_ms": 1000}
    return {
        "mode": settings.role,
        "listen": {"endpoints": list(listening)},
        "connect": connect,
        "open": {"return_conditions": {"connect_scouted": False}},  # else every open waits half a second
        "scouting": {
            "multicast": {"enabled": settings.multicast},
            "gossip": {
                "enabled": settings.discover,
                "autoconnect_strategy": {"peer": {"to_router": "always", "to_peer": "greater-zid"}},
            },
        },
        "transport": {
            "unicast": {"max_sessions": 10_000 if router else 1000, "accept_pending": 1000 if router else 100},
            "shared_memory": {"enabled": False},
            "link": {
                # Requests are dropped rather than wait when this queue is full; 16 x 64 KiB holds two pages of replies.
                "tx": {"lease": round(settings.lease * 1000), "queue": {"size": {"data": 16}}},
                "rx": {"max_message_size": 16 * 1024 * 1024},
            },
        },
    }
