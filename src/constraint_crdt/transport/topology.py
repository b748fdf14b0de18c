"""The topology of a fleet: the addresses of nodes, the limit of connections that an address may hold at a port, and the role that a
node takes by itself.

An endpoint is `tcp/HOST:PORT` or `tls/HOST:PORT`. Rules:

- A node that listens at a wildcard tells others the addresses of its interfaces: those with a default route first, link-local
  addresses only where there are no others, loopback only where there is nothing else. Nodes on one machine know each other by an
  address that both have, and then also try loopback, which stays when an interface goes.
- A link-local address may have a zone, `[fe80::1%eth0]`. Zones are names of one machine. So a node that is told a link-local
  address tries it at each of its own interfaces. Zenoh takes zones as numbers only.
- Endpoints told by others are checked before use: well-formed, no wildcard, not this node itself, a bounded number.

`ease_links` sets options of the TCP connections of links, which Zenoh has no settings for:

- Zenoh sets `SO_LINGER` to 10 s, so closing a dead link blocks one of its few threads for 10 s, and with it all other links of the
  process. Without the option closing takes no time, and the system goes on sending the rest.
- `TCP_THIN_LINEAR_TIMEOUTS`: the first six repetitions of a lost packet come at the same interval, so a link that a cut did not end
  goes on soon after it. Linux only.
- `TCP_USER_TIMEOUT`: a link on which nothing is acknowledged for `DEAD_SECONDS` is closed, and for longer on a slow or lossy link,
  by the round trip and the repetitions that the system has counted. So the lease of Zenoh, which all links of a session share,
  can be that of the worst. Linux only.

The limit of connections is for Linux only. Zenoh works off refused handshakes in turn, with 0.1 s after each, and keeps their
connections until then. So an address that opened ten connections per second kept members from linking, and 60 per second filled the
table of open files (1,024) in 20 s.

Every address with more than `MOST_UNLINKED` connections that are no link is shut out for `SHUT_SECONDS`, and each time for twice as
long. A filter on the listening sockets drops its packets, so nothing of them reaches Zenoh. Rules:

- Links go on, also those from an address that is shut out. Addresses with a link, and this machine, are not shut out.
- IPv6 addresses count by their network of 64 bits.
- The number of addresses shut out is bounded; the oldest makes room. A flood from many addresses is for a firewall.
- Without `/proc`, or without the right to set a filter, nothing is limited, and nothing fails.

A node takes a role by itself: peer in a small fleet, router or client in a large one.

In a fleet of peers every node has a link to every other, and the keep-alives of these links are most of the bytes at rest. So
beyond `above` live nodes a few nodes are routers, and all others have a link to a router. `RoleRule` chooses, from the
knowledge of the node: the endpoints and roles that nodes told, and the nodes that are live. Nodes with equal views choose alike.
Rules:

1. A node *serves* with an address that others reach. Public addresses come first, then private ones, then link-local ones; an
   address of loopback serves in a fleet that is on loopback as a whole. Of equal addresses a port that was chosen comes first, as
   other nodes may have it in their settings. The rest is rendezvous hashing, so a node that comes or goes moves little.
2. The first `routers` of the live nodes are the routers. Nodes that are routers already come first, so a choice stays. A router
   becomes a router a moment after the router before it in rank, once it knows most nodes, and tells so.
3. The others are clients of nodes that have told to be routers, each in an order of its own. All are in its settings, so Zenoh goes
   on to the next when a router is gone. The changes of many nodes are spread over `SPREAD` seconds.
4. A client without a link to a router for `LOST` seconds takes these routers as gone, and chooses among the nodes that were live
   before, as the others do. After `GIVE_UP` seconds it is a peer again.
5. Below three quarters of `above` for `SETTLED` seconds the fleet is small again: clients become peers, then routers without
   clients.
6. In its first seconds a node takes the nodes of its store, or those that a first peer told it of, as the size of the fleet, if
   some of them told to be routers.

With differing views no node is cut off: a router takes links of peers too, and a client goes on listening.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, get_args

from constraint_crdt.model import counted
from constraint_crdt.transport import Sought, TransportError

if TYPE_CHECKING:
    from constraint_crdt.identity import Identity


# --- endpoints ----------------------------------------------------------------------------------------------------------

MOST_ADDRESSES = 8
"""Endpoints that a node tells others, and that are tried of a node that others told of, at most."""

MOST_INTERFACES = 4
"""Interfaces at which a link-local address is tried, at most."""

_ENDPOINT = re.compile(
    r"(?P<scheme>tcp|tls)/(?P<host>\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]{1,15})?\]|[^\s\[\]/:?#%]+):(?P<port>[0-9]{1,5})"
)
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def parse_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of an endpoint. Raises `TransportError` for a malformed endpoint."""
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None or int(match["port"]) > 65535:
        raise TransportError(f"cannot use the endpoint {endpoint!r}; write it as tcp/HOST:PORT")
    return match["host"].strip("[]"), int(match["port"])


def with_scheme(endpoint: str, identity: "Identity | None") -> str:
    """The endpoint with the scheme of a node that has, or has not, an identity."""
    return f"{'tcp' if identity is None else 'tls'}/{endpoint.partition('/')[2]}"


def with_numeric_zone(endpoint: str) -> str:
    """The endpoint as Zenoh takes it. Raises `TransportError` for a zone that names no interface of this machine."""
    host, _ = parse_endpoint(endpoint)
    _, percent, zone = host.partition("%")
    if not percent or zone.isdigit():
        return endpoint
    try:
        return endpoint.replace(f"%{zone}]", f"%{socket.if_nametoindex(zone)}]")
    except OSError:
        raise TransportError(f"cannot use the endpoint {endpoint!r}: this machine has no interface {zone}") from None


def usable_connects(
    endpoints: Iterable[str], own: Sequence[str], identity: "Identity | None" = None, *, accept_plain: bool = False
) -> tuple[str, ...]:
    """The endpoints of other nodes to connect to: well-formed, without wildcards and without `own`. `identity`: that of this node;
    without it `tls/` endpoints are left out. `accept_plain`: with it, `tcp/` endpoints stay plain.
    """
    kept: dict[str, None] = {}
    for endpoint in endpoints:
        try:
            host, port = parse_endpoint(endpoint)
        except TransportError:
            continue
        if identity is None and endpoint.startswith("tls/"):
            continue
        usable = endpoint if accept_plain else with_scheme(endpoint, identity)
        if port and not is_wildcard(host) and usable not in own:
            kept[usable] = None
    return tuple(kept)


def local_connects(endpoints: Sequence[str], own: Collection[str], listening: Iterable[str]) -> tuple[str, ...]:
    """The endpoints of another node as they are tried from this machine: names resolved, link-local ones at its interfaces,
    loopback too for a node on this machine, and without those of this node itself. `own`: the addresses of this machine.
    `listening`: where this node does. Blocks on names.
    """
    mine = {parse_endpoint(each) for each in listening}
    everywhere = {port for host, port in mine if is_wildcard(host)}
    found: dict[str, None] = {}
    for scheme, host, port in [each for endpoint in endpoints[:MOST_ADDRESSES] for each in _resolved(endpoint)]:
        address, tried, here = _address(host), [host], False
        if address is not None:
            here = address.is_loopback or host.partition("%")[0] in own
            if address.is_link_local and address.version == 6:
                numbers = [number for number, name in socket.if_nameindex() if name != "lo"]
                tried = [f"{host.partition('%')[0]}%{number}" for number in numbers[:MOST_INTERFACES]]
            if here and not address.is_loopback:
                tried.append("127.0.0.1" if address.version == 4 else "::1")
        for each in tried:
            if (each, port) not in mine and not (here and port in everywhere):
                found[f"{scheme}/[{each}]:{port}" if ":" in each else f"{scheme}/{each}:{port}"] = None
    return tuple(found)


def _resolved(endpoint: str) -> list[tuple[str, str, int]]:
    """Scheme, address and port for an endpoint: for each address of a name, none for an unknown name."""
    scheme, (host, port) = endpoint.partition("/")[0], parse_endpoint(endpoint)
    if _address(host) is not None:
        return [(scheme, host, port)]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(scheme, each, port) for each in dict.fromkeys(str(address[0]) for *_, address in found)]


MOST_KNOCKS = 16
"""Connections that are tried at a time to the endpoints of a node, at most."""


async def first_answering(endpoints: Sequence[str], every: float) -> str:
    """The first of the endpoints of a node that takes a TCP connection. Tries each of them every `every` seconds, until one does.

    A try goes on while others begin, so a slow link has its time, and a route that comes back is found at once.
    """
    pending: dict[asyncio.Task[bool], str] = {}
    try:
        while True:
            for endpoint in endpoints:
                pending[asyncio.create_task(_answers(endpoint))] = endpoint
            for oldest in list(pending)[:-MOST_KNOCKS]:
                oldest.cancel()
                del pending[oldest]
            until = asyncio.get_running_loop().time() + every
            while pending and (left := until - asyncio.get_running_loop().time()) > 0:
                done, _ = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    endpoint = pending.pop(each)
                    if each.result():
                        return endpoint
            await asyncio.sleep(max(0.0, until - asyncio.get_running_loop().time()))
    finally:
        for each in pending:
            each.cancel()


async def _answers(endpoint: str) -> bool:
    """Whether an endpoint takes a TCP connection."""
    host, port = parse_endpoint(endpoint)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setblocking(False)
            await asyncio.get_running_loop().sock_connect(tried, address)
    except OSError:
        return False
    return True


def reachable_endpoints(listening: Iterable[str], addresses: Sequence[str]) -> tuple[str, ...]:
    """The endpoints for other nodes, given the listening endpoints. A wildcard host stands for the `addresses` of its family."""
    found: list[str] = []
    for endpoint in listening:
        host, port = parse_endpoint(endpoint)
        scheme = endpoint.partition("/")[0]
        if not is_wildcard(host):
            found.append(endpoint)
            continue
        for address in addresses:
            if ":" in address and host == "::":
                found.append(f"{scheme}/[{address}]:{port}")
            elif ":" not in address:  # the IPv6 wildcard takes IPv4 connections too
                found.append(f"{scheme}/{address}:{port}")
    return tuple(found)


def is_wildcard(host: str) -> bool:
    """Whether a listener at this host takes connections at every address of the machine."""
    return host in {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


def own_addresses() -> list[str]:
    """The addresses of this machine for other nodes, at most `MOST_ADDRESSES`: those with a default route first, link-local ones
    without others, loopback without anything else. O(interfaces).
    """
    found = dict.fromkeys(_routed_addresses())
    others = [(text, address) for text in _interface_addresses() if (address := _address(text)) is not None]
    found |= {text: None for text, address in others if not address.is_loopback and not address.is_link_local}
    if not found:
        found |= {text: None for text, address in others if address.is_link_local}
    if not found:
        found |= {text: None for text, address in others if address.is_loopback}
    return list(found)[:MOST_ADDRESSES] or ["127.0.0.1"]


def _routed_addresses() -> list[str]:
    """The address of this machine with a default route, of each IP version."""
    found: list[str] = []
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))  # sends nothing: only looks into the routing table
            found.append(probe.getsockname()[0])
    return found


def _interface_addresses() -> list[str]:
    """The addresses of the interfaces that are up, in order of the interfaces, IPv4 first."""
    import psutil  # not for nodes that listen at one address

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    told = {name: addresses for name, addresses in psutil.net_if_addrs().items() if name in up}
    return [each.address for family, _ in _ELSEWHERE for addresses in told.values() for each in addresses if each.family == family]


def _address(host: str) -> "Address | None":
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# --- the connections of links ---------------------------------------------------------------------------------------------

ASKED_AFTER = 4
ASKED_EVERY = 1
"""Seconds of silence after which the system asks for an acknowledgement, and seconds between two questions."""

DEAD_SECONDS = 3.0
DEAD_ROUND_TRIPS = 8
LONGEST_DEAD_SECONDS = 60.0
"""Seconds without an acknowledgement after which a link is closed: at least, in round trips, and at most."""

LOSS_WEIGHT = 4
LOSS_IGNORED = 0.05
"""By so many times the share of repeated packets a link has more time; and the share that a cut leaves on a good link."""

_THIN_LINEAR_TIMEOUTS, _USER_TIMEOUT, _INFO = 16, 18, 11
"""TCP_THIN_LINEAR_TIMEOUTS, TCP_USER_TIMEOUT and TCP_INFO, by linux/tcp.h."""

_ROUND_TRIP, _REPEATED, _SENT, _INFO_BYTES = 68, 100, 136, 144
"""Offsets in `tcp_info` of the round trip in microseconds, and of the packets repeated and sent."""

_NO_LINGER = struct.pack("ii", 0, 0)


def ease_links(links: Collection[tuple[str, str]]) -> None:
    """Set the options of the connections of these links, given as locators of both ends. O(open files). Nothing fails."""
    ends = {(_socket_address(one), _socket_address(other)) for one, other in links}
    for number in _descriptors():
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            copy = os.dup(number)
            try:
                opened = closing.enter_context(socket.socket(fileno=copy))
            except OSError:
                os.close(copy)
                continue
            if opened.family not in (socket.AF_INET, socket.AF_INET6) or opened.type != socket.SOCK_STREAM:
                continue
            if (opened.getsockname()[:2], opened.getpeername()[:2]) in ends:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                if sys.platform == "linux":
                    opened.setsockopt(socket.IPPROTO_TCP, _THIN_LINEAR_TIMEOUTS, 1)
                    seconds = dead_seconds(opened.getsockopt(socket.IPPROTO_TCP, _INFO, _INFO_BYTES))
                    opened.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, round(seconds * 1000))
                    # By these, silence alone shows a dead connection: it is asked for an acknowledgement, which costs no process.
                    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ASKED_AFTER)
                    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ASKED_EVERY)
                    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def dead_seconds(info: bytes) -> float:
    """Seconds without an acknowledgement after which a connection is closed. `info`: its `tcp_info`."""
    if len(info) < _INFO_BYTES:
        return DEAD_SECONDS
    round_trip, repeated, sent = (struct.unpack_from("=I", info, offset)[0] for offset in (_ROUND_TRIP, _REPEATED, _SENT))
    if not round_trip:  # none was measured, as all packets so far were repeated
        return LONGEST_DEAD_SECONDS
    usual = max(DEAD_SECONDS, DEAD_ROUND_TRIPS * round_trip / 1e6)
    return float(min(usual * (1 + LOSS_WEIGHT * max(0.0, repeated / max(sent, 1) - LOSS_IGNORED)), LONGEST_DEAD_SECONDS))


def _socket_address(locator: str) -> tuple[str, int]:
    """Address and port of a locator of Zenoh, as a socket has them."""
    host, _, port = locator.partition("/")[2].partition("?")[0].rpartition(":")
    return host.strip("[]").partition("%")[0], int(port) if port.isdigit() else 0


# --- the limit of connections ---------------------------------------------------------------------------------------------

MOST_UNLINKED = 64
SHUT_SECONDS = 30.0
LONGEST_SHUT = 3600.0
MOST_SHUT = 64
"""Addresses shut out at a time."""

LOOK_EVERY = 0.1
"""Seconds between two looks at the number of open files. Connections are looked at only where that number grew, because the list of
them is long on a busy machine: 20 ms for 10,000.
"""

_ATTACH, _DETACH = 26, 27
_NETWORK_HEADER = 0xFFF00000
"""SO_ATTACH_FILTER, SO_DETACH_FILTER, and the offset of the network header in a filter, by linux/filter.h."""

_OPEN = {"01", "08"}
"""The states of connections that an application still has: ESTABLISHED and CLOSE_WAIT."""

_log = logging.getLogger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressLimit:
    """Watches the listening ports of a session in a thread of its own, from `run` to `stop`."""

    def __init__(self, ports: Collection[int], linked: Callable[[], Collection[str]]) -> None:
        """`linked`: gives the addresses of the links, in any thread."""
        self._ports = frozenset(ports)
        self._linked = linked
        self._stopped = threading.Event()
        self._shut: dict[Network, float] = {}
        self._times: Counter[Network] = Counter()

    def run(self) -> None:
        """Look until `stop`. Returns at once on another system."""
        if sys.platform != "linux" or not self._ports:
            return
        seen = 0
        while not self._stopped.wait(LOOK_EVERY):
            files, now = _open_files(), time.monotonic()
            if files > seen + MOST_UNLINKED // 2 or any(until <= now for until in self._shut.values()):
                self.look(now)
                seen = files
            seen = min(seen, files)

    def stop(self) -> None:
        """End `run` soon. The filter ends with the sockets."""
        self._stopped.set()

    def look(self, now: float) -> None:
        """Shut out the addresses with too many connections, and let in those whose time is over. `now`: s, monotonic."""
        ended = [network for network, until in self._shut.items() if until <= now]
        for network in ended:
            del self._shut[network]
        found = [network for network, number in self._unlinked().items() if number > MOST_UNLINKED and network not in self._shut]
        for network in found:
            seconds = min(SHUT_SECONDS * 2 ** min(self._times[network], 10), LONGEST_SHUT)
            self._times[network] += 1
            self._shut[network] = now + seconds
            _log.warning("%s holds more than %d connections without a link: shut out for %g s", network, MOST_UNLINKED, seconds)
        while len(self._shut) > MOST_SHUT:
            del self._shut[next(iter(self._shut))]
        while len(self._times) > MOST_SHUT:
            del self._times[next(iter(self._times))]
        if ended or found:
            for number in _descriptors():
                _set_filter(number, self._ports, list(self._shut))

    def _unlinked(self) -> Counter[Network]:
        """The connections of each network to the listening ports, without networks that have a link."""
        found = Counter(_network(each) for each in map(_unmapped, _remote_addresses(self._ports)) if not each.is_loopback)
        if found and max(found.values()) > MOST_UNLINKED:
            for address in self._linked():
                with contextlib.suppress(ValueError):
                    found.pop(_network(_unmapped(ipaddress.ip_address(address))), None)
        return found


def filter_program(networks: Sequence[Network]) -> bytes:
    """The filter that drops all packets from these networks: a program of classic BPF."""
    fours = [struct.unpack("!I", each.network_address.packed)[0] for each in networks if each.version == 4]
    sixes = [struct.unpack("!II", each.network_address.packed[:8]) for each in networks if each.version == 6]
    drop, take = (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)
    load_byte, shift, load, jump, equal = 0x30, 0x74, 0x20, 0x05, 0x15
    of_four = [(load, 0, 0, _NETWORK_HEADER + 12)]
    for value in fours:
        of_four += [(equal, 0, 1, value), drop]
    of_six: list[tuple[int, int, int, int]] = []
    for high, low in sixes:
        of_six += [
            (load, 0, 0, _NETWORK_HEADER + 8),
            (equal, 0, 3, high),
            (load, 0, 0, _NETWORK_HEADER + 12),
            (equal, 0, 1, low),
            drop,
        ]
    version = [(load_byte, 0, 0, _NETWORK_HEADER), (shift, 0, 0, 4), (equal, 1, 0, 4), (jump, 0, 0, len(of_four) + 1)]
    return b"".join(struct.pack("=HBBI", *each) for each in [*version, *of_four, take, *of_six, take])


def _unmapped(address: Address) -> Address:
    """The IPv4 address in an IPv6 address, as a listener for both has it."""
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def _network(address: Address) -> Network:
    return ipaddress.ip_network((address, 32 if address.version == 4 else 64), strict=False)


def _remote_addresses(ports: Collection[int]) -> list[Address]:
    """The other ends of the open connections to these ports, in this network namespace."""
    found: list[Address] = []
    for file in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(file).read_text().splitlines()[1:]:
                _, local, remote, state = line.split(maxsplit=4)[:4]
                if state in _OPEN and int(local.rpartition(":")[2], 16) in ports:
                    words = bytes.fromhex(remote.partition(":")[0])
                    packed = struct.pack(f"!{len(words) // 4}I", *struct.unpack(f"={len(words) // 4}I", words))
                    found.append(ipaddress.ip_address(packed))
    return found


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


def _descriptors() -> list[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(each) for each in os.listdir(folder) if each.isdigit()]
    return []


def _set_filter(descriptor: int, ports: Collection[int], networks: Sequence[Network]) -> None:
    """Set the filter of a listening socket on one of `ports`. Another file, and a socket closed meanwhile, stays as it is."""
    with contextlib.suppress(OSError):
        copy = os.dup(descriptor)
        try:
            opened = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            return
        with opened:
            if not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or opened.getsockname()[1] not in ports:
                return
            if not networks:
                opened.setsockopt(socket.SOL_SOCKET, _DETACH, 0)
                return
            import ctypes  # for the filter only

            program = filter_program(networks)
            content = ctypes.create_string_buffer(program)
            opened.setsockopt(socket.SOL_SOCKET, _ATTACH, struct.pack("@HP", len(program) // 8, ctypes.addressof(content)))


ABOVE: Final = 40
"""Live nodes, this node included, beyond which a fleet has routers."""

BELOW: Final = 0.75
"""The share of `above` below which it has none again."""

ROUTERS: Final = 2
"""The routers of a large fleet. Of three linked routers of Zenoh 1.10.2 the end of one can leave another with a broken table
(1 of 14 times): it fails in the code for news of a router from a third. Of two routers neither hears of the other from a third.
"""

FIRST: Final = 15.0
"""Seconds after the start in which the known nodes count as the size of the fleet."""

ROUTER_WAIT: Final = 1.0
"""Seconds for which a node is chosen before it becomes a router, for each place in rank."""

KNOWN: Final = 0.8
KNOWN_WITHIN: Final = 120.0
"""The share of the live nodes whose endpoints a node has to know before it becomes a router, and the longest wait for this."""

SPREAD: Final = 3.0
"""Seconds over which the nodes of a fleet become clients, or peers."""

SECOND_ROUTER: Final = 4.0
"""Seconds for which a node waits for a second router before it becomes a client of the first."""

LOST: Final = 1.5
GIVE_UP: Final = 12.0
"""Seconds without a link to a router after which a client chooses others, and after which it is a peer again."""

FAILED: Final = 30.0
"""Seconds for which a router without an answer is not chosen."""

SETTLED: Final = 30.0
"""Seconds for which a fleet has to be small before its nodes are peers again."""

FREE_PORTS: Final = 32768
"""The first of the ports that systems give to listeners that choose none."""

LinkRole = Literal["peer", "router", "client"]
"""The role of a node among the links of its fleet."""

PEER, ROUTER, CLIENT = get_args(LinkRole)


class Choice(NamedTuple):
    """The role that a node should have now."""

    role: LinkRole
    routers: tuple[str, ...]
    """Names of the routers, without this node: the first is preferred."""
    why: str
    """The rule, as a part of a sentence."""
    before: tuple[str, ...] = ()
    """The routers that come before this router in rank."""


@lru_cache(maxsize=4096)
def rank(name: str, endpoints: tuple[str, ...], *, on_loopback: bool) -> tuple[int, int, int] | None:
    """The rank of a node as a router, the lowest first; None for a node out of reach. `on_loopback`: the whole fleet is."""
    found = [rank for endpoint in endpoints if (rank := _rank_of(endpoint, on_loopback=on_loopback)) is not None]
    return (*min(found), weight(name)) if found else None


def _rank_of(endpoint: str, *, on_loopback: bool) -> tuple[int, int] | None:
    try:
        host, port = parse_endpoint(endpoint)
    except TransportError:
        return None
    free = int(port >= FREE_PORTS or port == 0)
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:  # a name: it was given to the node for others
        return (1, free) if host != "localhost" else ((3, free) if on_loopback else None)
    if is_wildcard(host):
        return None
    if address.is_loopback:
        return (3, free) if on_loopback else None
    if address.is_link_local:
        return 2, free
    return int(not address.is_global), free


@lru_cache(maxsize=4096)
def is_on_loopback(endpoints: tuple[str, ...]) -> bool:
    """Whether all of these endpoints are of loopback."""
    return all(_rank_of(each, on_loopback=False) is None for each in endpoints)


@lru_cache(maxsize=4096)
def weight(*names: str) -> int:
    """The weight in rendezvous hashing: the lowest is chosen."""
    data = b"".join(len(each).to_bytes(4) + each for each in (name.encode(errors="surrogatepass") for name in names))
    return int.from_bytes(blake2b(data, digest_size=8).digest())


class RoleRule:
    """Chooses the role of a node. Times are in seconds of a monotonic clock."""

    def __init__(self, me: str, now: float, routers: int = ROUTERS, above: int = ABOVE) -> None:
        """`me`: the name of this node. `now`: the time of its start. `above`: the live nodes of the largest fleet of peers."""
        self._above = above
        self._me = me
        self._routers = routers
        self._start = now
        self._large = False
        self._small_since: float | None = None
        self._chosen_since: float | None = None
        self._clients_since: float | None = None
        self._lost_since: float | None = None
        self._asked_since = now
        self._asked: Set[str] = frozenset()
        """The routers of the last choice."""
        self._failed: dict[str, float] = {}
        self._last_live: Set[str] = frozenset()
        self._large_since = now
        self._delay = SPREAD * (weight(me, "delay") % 1000) / 1000
        self.servers = 0
        """The nodes that can serve, as of the last choice."""

    @property
    def is_large(self) -> bool:
        """Whether the fleet has routers."""
        return self._large

    def fail(self, names: Collection[str], now: float) -> None:
        """Do not choose these routers for a while."""
        for name in names:
            self._failed[name] = now + FAILED

    def at_start(self, known: Mapping[str, Sought], mine: tuple[str, ...]) -> Choice:
        """The role to begin with, from the store."""
        told = any(each.role == ROUTER for each in known.values())
        if len(known) < self._above or not told:
            return Choice(PEER, (), f"a fleet of up to {counted(self._above, 'node')}")
        self._large = True
        first = self._first(known, {*known, self._me}, mine, PEER)
        if self._me in first:
            return self._as_router(first, len(known) + 1)
        return self._as_client(known, first, len(known) + 1) or Choice(PEER, (), "no router is known")

    def choose(
        self,
        now: float,
        role: str,
        known: Mapping[str, Sought],
        live: Set[str],
        mine: tuple[str, ...],
        linked: Collection[str],
        *,
        serves_clients: bool = False,
    ) -> Choice:
        """The role to have now. `role`: the present one. `known`: the other nodes in service. `live`: those that this node sees.
        `mine`: the endpoints of this node. `linked`: the routers that it has a link to. `serves_clients`: clients have links to it.
        """
        self._failed = {name: until for name, until in self._failed.items() if until > now}
        cut_off = role == CLIENT and not linked
        if not cut_off:
            self._last_live, self._lost_since = frozenset(live), None
        elif self._lost_since is None:
            self._lost_since = self._asked_since = now
        elif now - self._asked_since > LOST:
            self._asked_since = now
            self.fail(self._asked, now)
        seen = self._last_live - self._failed.keys()
        size = 1 + len(seen)
        self._measure(now, size, known, cut_off=cut_off)
        if not self._large:
            return self._in_small(role, size, serves_clients=serves_clients)
        if cut_off and self._lost_since is not None and now - self._lost_since > GIVE_UP:
            self._large, self._lost_since = False, None
            return Choice(PEER, (), "no router answers")
        routable = seen if 2 * len(seen) >= self._above else seen | (known.keys() - self._failed.keys())
        first = self._first(known, routable | {self._me}, mine, role)
        size = max(size, 1 + len(routable))
        told = sum(name in known for name in live) >= KNOWN * len(live) or now - self._large_since > KNOWN_WITHIN
        if role != ROUTER and not told:
            return Choice(PEER if role == PEER else CLIENT, (), f"{counted(size, 'node')}, most of them not known yet")
        if self._me in first:
            self._chosen_since = now if self._chosen_since is None else self._chosen_since
            if role == ROUTER or now - self._chosen_since >= ROUTER_WAIT * (1 + first.index(self._me)):
                return self._as_router(first, size)
        else:
            self._chosen_since = None
            choice = self._as_client(known, first, size, cut_off=cut_off)
            if choice is not None and self._may_be_client(now, role, choice):
                return choice
        return Choice(role, (), f"{counted(size, 'node')}{', and no router yet' if role == PEER else ''}")  # type: ignore[arg-type]

    def _measure(self, now: float, size: int, known: Mapping[str, Sought], *, cut_off: bool) -> None:
        """Follow the size of the fleet."""
        early = now - self._start < FIRST and len(known) >= self._above and any(each.role == ROUTER for each in known.values())
        if size > self._above or early:
            self._large_since = self._large_since if self._large else now
            self._large = True
        if cut_off or early or size >= BELOW * self._above:
            self._small_since = None
        elif self._small_since is None:
            self._small_since = now
        elif now - self._small_since > SETTLED + self._delay:
            self._large = False

    def _in_small(self, role: str, size: int, *, serves_clients: bool) -> Choice:
        self._chosen_since = self._clients_since = None
        leaves = role != ROUTER or not serves_clients
        return Choice(PEER if leaves else ROUTER, (), f"{counted(size, 'node')}: a fleet of up to {self._above} has no routers")

    def _first(self, known: Mapping[str, Sought], live: Set[str], mine: tuple[str, ...], role: str) -> list[str]:
        """The nodes that should be routers, the first in rank first. O(nodes)."""
        told = {name: known[name].endpoints for name in known if name in live}
        on_loopback = is_on_loopback(mine) and all(is_on_loopback(each) for each in told.values())
        ranks: dict[str, tuple[bool, int, int, int]] = {}
        for name, endpoints in (*told.items(), (self._me, mine)):
            found = rank(name, endpoints, on_loopback=on_loopback)
            if found is not None:
                is_router = role == ROUTER if name == self._me else known[name].role == ROUTER
                ranks[name] = (not is_router, *found)
        self.servers = len(ranks)
        return sorted(ranks, key=ranks.__getitem__)[: self._routers]

    def _as_router(self, first: Sequence[str], size: int) -> Choice:
        place = first.index(self._me) + 1
        others = tuple(name for name in first if name != self._me)
        before = tuple(first[: place - 1])
        return Choice(ROUTER, others, f"{counted(size, 'node')}: number {place} of {counted(len(first), 'router')} by rank", before)

    def _as_client(self, known: Mapping[str, Sought], first: Sequence[str], size: int, *, cut_off: bool = False) -> Choice | None:
        """A node that is cut off does not hear who is a router: it tries those that should be."""
        told = [name for name in first if name != self._me and (cut_off or known[name].role == ROUTER)]
        if not told:
            return None
        routers = sorted(told, key=lambda name: weight(name, self._me))
        self._asked = frozenset(routers)
        return Choice(CLIENT, tuple(routers), f"{counted(size, 'node')}: a client of {counted(len(routers), 'router')}")

    def _may_be_client(self, now: float, role: str, choice: Choice) -> bool:
        if role == CLIENT:
            return True
        if self._clients_since is None:
            self._clients_since = now
        waited = now - self._clients_since
        return waited >= self._delay and (len(choice.routers) > 1 or waited >= SECOND_ROUTER or self._routers == 1)
