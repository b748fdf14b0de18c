"""The role that a node takes by itself: peer in a small fleet, router or client in a large one.

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

import ipaddress
from collections.abc import Collection, Mapping, Sequence, Set
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, get_args

from constraint_crdt.model import counted
from constraint_crdt.transport import Sought, TransportError
from constraint_crdt.transport.addresses import is_wildcard, parse_endpoint

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
