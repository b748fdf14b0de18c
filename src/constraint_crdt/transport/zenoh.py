"""`ZenohTransport`: the membership of a node in a network of Eclipse Zenoh, over any number of sessions.

Zenoh runs in the process of the node, without a broker. Rules: a malformed endpoint or role is refused at construction, a taken
port at open. Silent seeds and routers are retried in the background. Every session has a Zenoh id of its own, because Zenoh
isolates the second of two equal ids without an error.

Zenoh repairs the links to configured endpoints only. It does not repair a link that was found by gossip, and takes no endpoint
while a session is open. So a node that should be a peer (`seek`) and is not gets a *side session*: a second Zenoh session for that
link alone, which connects to an endpoint of the node and does not listen. It recovers by itself when the link breaks. The main
session is never closed for a link, so a missing link costs only that link. `SidePlan` has the rules:

1. A side session is opened once the peer has been missing for a moment: first by the node with the lesser name, later by the other,
   in case the first cannot connect.
2. It is closed once the main sessions of both ends are linked again, or the node is no longer sought. Of two side sessions between
   two nodes, that of the greater name is closed.
3. A bounded number of side sessions tries at a time. Each tries for a while, then others have their turn: those with the fewest
   turns first, nodes that others have heard of before the others. Nodes missing for long are tried at growing intervals.
4. In the first turn Zenoh connects, with a time for opening that follows the round trip of the peer, so that it tries often. In
   later turns, and with several endpoints, the first endpoint that takes a TCP connection is found before, with tries that overlap.
   Then Zenoh has the time that the worst link needs.

With the role `auto` the node has the role from `roles.RoleRule`. Zenoh's mode is fixed for a session, so another main session
opens:

5. To become a client, the new session opens beside the former one. Once it has a link to a router and sees the peers, it is the
   main session, and the former is closed `HANDOVER` seconds later, that of a router once its clients have left.
6. A router and a peer need the port. The session with the port closes first, as others know the address; the port is without a
   listener for some 0.6 s. Requests meanwhile are repeated.
7. A client by choice keeps listening with a session of its own (the *door*), so its address goes on for nodes that are new, or do
   not reach the routers.
8. A router opens `ROUTER_PAUSE` after its port was closed. Without the pause its neighbours take the links of the new session for
   those of the former, and it lacks tokens for good (Zenoh 1.10.2).
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import zenoh
from zenoh.handlers import Callback

from constraint_crdt.transport import (
    ANSWERS_AT_ONCE,
    Handler,
    HandlerTasks,
    LinkKind,
    Peer,
    PeerCallback,
    Sought,
    Standing,
    TransportError,
    Unreachable,
    check_answers_at_once,
)
from constraint_crdt.transport.topology import (
    ABOVE,
    CLIENT,
    PEER,
    ROUTER,
    ROUTERS,
    AddressLimit,
    Choice,
    RoleRule,
    first_answering,
    is_wildcard,
    local_connects,
    own_addresses,
    parse_endpoint,
    reachable_endpoints,
    usable_connects,
)
from constraint_crdt.transport.zenoh_session import CLOSE_SECONDS, Declared, Registration, Traffic, ZenohSession
from constraint_crdt.transport.zenoh_startup import (
    RETRY_SECONDS,
    Opened,
    RouterUnreachableError,
    Settings,
    checked,
    close_session,
    door_settings,
    in_daemon_thread,
    linked_addresses,
    main_id,
    open_session,
    open_side_session,
    side_id,
    start_daemon_thread,
)

if TYPE_CHECKING:
    from constraint_crdt.identity import Identity

OPEN_SECONDS = 10.0
_RETRY_SECONDS = (0.2, 2.0)

FIRST_WAIT = 0.5
SECOND_WAIT = 1.5
JITTER = 0.3
"""Seconds for which a peer is missing before the node with the lesser name opens a side session, and the other; with a jitter."""

START_WAIT = 5.0
"""Seconds after the opening of the main session before the first side session, if there is a link: Zenoh's gossip finds most peers
by then.
"""

TURN = 15.0
"""Seconds for which a side session tries before others have their turn."""

QUICK_TURNS = 4
"""Turns of a missing peer before it is tried less often."""

LONGEST_PAUSE = 120.0
"""Seconds between two turns of a peer that is missing for long, at most."""

SETTLED = 2.0
"""Seconds for which a better link has to last before a side session is closed."""

MOST_TRYING = 8
"""Side sessions without a link, at most."""

MOST_SIDES = 64
"""Side sessions, at most."""

SLOW_RETRY_SECONDS = 4.0
"""Seconds between two tries of a side session to a peer that is missing for long."""

LEAST_OPEN = 0.6
USUAL_OPEN = 1.0
LONG_OPEN = 120.0
OPEN_ROUND_TRIPS = 6
"""Seconds for opening a link: at least, with an unknown round trip, and once an endpoint has answered; and in round trips: two of
TCP and TLS, two of Zenoh, and a reserve.
"""

ANSWERED_TURN = 150.0
"""Seconds by which a turn is longer once an endpoint has answered."""

LEAST_LOOK = 0.05
LOOK_EVERY = 0.25
SLOW_LOOK_EVERY = 1.0
"""Seconds between two looks at the links: at least; while a link is missing; and while only links missing for long are."""

ADDRESSES_EVERY = 30.0
"""Seconds between two looks at the addresses of this machine, of a node that listens at a wildcard."""

ROLE_EVERY = 0.5
"""Seconds between two looks at the role."""

HANDOVER = 3.0
LONGEST_HANDOVER = 15.0
"""Seconds for which the former main session goes on beside the new session; and at most, while clients are linked to it."""

SEES_WITHIN = 3.0
"""Seconds within which a new main session has to see the peers."""

ROUTER_PAUSE = 0.3

ROUTERS_APART = 10.0
"""Seconds without a link to a router before this router, after which a router opens again."""

MOST_TRIES = 20
"""Times that a port which is still taken is tried."""

CLIENT_PAUSE = 5.0
"""Seconds after a router did not answer before another change of the role."""

SEEDS = ""
"""Stands for the configured endpoints among the names of peers."""

_log = logging.getLogger(__name__)


class Opening(NamedTuple):
    """A side session to open."""

    name: str
    endpoints: tuple[str, ...]
    open_seconds: float
    retry_seconds: float
    knocks: bool
    """Whether an endpoint that answers is found before."""


class _Subscription:
    """Key expressions that are subscribed to, in one session at a time."""

    def __init__(self, keys: Sequence[zenoh.KeyExpr], take: Callable[[str, bytes], None]) -> None:
        self._keys = keys
        self._take = take
        self._lock = Lock()
        self._session: zenoh.Session | None = None
        self._declared: list[zenoh.Subscriber[None]] = []

    def declare(self, session: zenoh.Session) -> None:
        """Subscribe in this session, and no longer in the session before. Raises `ZError`."""
        with self._lock:
            if session is not self._session:
                self._undeclare()
                handler = Callback(self._on_sample, indirect=False)
                self._declared = [session.declare_subscriber(key, handler) for key in self._keys]
                self._session = session

    def end(self) -> None:
        """Subscribe no longer."""
        with self._lock:
            self._undeclare()
            self._session = None

    def _undeclare(self) -> None:
        declared, self._declared = self._declared, []
        for each in declared:
            with contextlib.suppress(zenoh.ZError):  # its session was closed
                each.undeclare()  # type: ignore[no-untyped-call]  # the stub leaves the return type out

    def _on_sample(self, sample: zenoh.Sample) -> None:
        if sample.kind == zenoh.SampleKind.PUT:
            self._take(str(sample.key_expr), sample.payload.to_bytes())


@dataclass
class _Missing:
    """A peer without a link."""

    since: float
    waits: float
    """Seconds before the first turn."""
    turns: int = 0
    next: float = 0.0
    """The time of the next turn."""


@dataclass
class _Side:
    """An open side session."""

    trying_since: float | None
    turn: float
    """Seconds for which it tries."""
    better_since: float | None = None


class SidePlan:
    """Decides which side sessions are opened and closed. Times are in seconds of a monotonic clock."""

    def __init__(self, me: str, random: Random, now: float) -> None:
        """`me`: the name of this node. `now`: the time of the opening of the main session."""
        self._me = me
        self._random = random
        self._start = now + START_WAIT
        self._missing: dict[str, _Missing] = {}
        self._sides: dict[str, _Side] = {}

    @property
    def names(self) -> Set[str]:
        """The names of the peers with a side session."""
        return self._sides.keys()

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look; None until something changes."""
        if any(side.better_since is not None for side in self._sides.values()):
            return LOOK_EVERY
        if not self._missing:
            return None
        return SLOW_LOOK_EVERY if all(each.turns > QUICK_TURNS for each in self._missing.values()) else LOOK_EVERY

    def look(
        self, now: float, sought: Mapping[str, Sought], links: Mapping[str, LinkKind], ours: Set[str], theirs: Set[str]
    ) -> tuple[list[Opening], list[str]]:
        """The side sessions to open now, and the names of those to close.

        `links`: the peers, each with its best link. `ours`: those linked by a side session of this node; `theirs`: of the peer.
        """
        closed = [name for name in list(self._sides) if self._is_over(name, now, sought, links, ours, theirs)]
        for name in closed:
            del self._sides[name]
        for name in [name for name in self._missing if name not in sought or name in links]:
            del self._missing[name]
        for name in sought:
            if name not in links and name not in self._missing:
                wait = FIRST_WAIT if self._me < name or name == SEEDS else SECOND_WAIT
                self._missing[name] = _Missing(now, wait + self._random.uniform(0, JITTER))
        return [self._open(name, sought[name], now) for name in self._next(now, sought, linked=bool(links))], closed

    def _is_over(
        self, name: str, now: float, sought: Mapping[str, Sought], links: Mapping[str, LinkKind], ours: Set[str], theirs: Set[str]
    ) -> bool:
        side, kind = self._sides[name], links.get(name)
        if name not in sought:
            return True
        if name in ours or kind is not None:
            side.trying_since = None
        elif side.trying_since is None:
            side.trying_since = now
        better = kind in ("direct", "router") or (name in theirs and (name not in ours or name < self._me))
        side.better_since = (side.better_since if side.better_since is not None else now) if better else None
        if better:
            return side.better_since is not None and now - side.better_since >= SETTLED
        if side.trying_since is None or now - side.trying_since < side.turn:
            return False
        missing = self._missing.get(name)
        if missing is not None and missing.turns >= QUICK_TURNS and not sought[name].alive:
            missing.next = now + min(TURN * 2 ** (missing.turns - QUICK_TURNS), LONGEST_PAUSE) * self._random.uniform(0.8, 1.2)
        return True

    def _next(self, now: float, sought: Mapping[str, Sought], *, linked: bool) -> list[str]:
        """The peers whose turn it is."""
        trying = sum(side.trying_since is not None for side in self._sides.values())
        free = min(MOST_TRYING - trying, MOST_SIDES - len(self._sides))
        if free <= 0 or (now < self._start and linked):
            return []
        due = [
            (missing.turns - 2 * sought[name].alive, missing.next, place, name)
            for place, (name, missing) in enumerate(self._missing.items())
            if name not in self._sides and now >= missing.since + missing.waits and (now >= missing.next or sought[name].alive)
        ]
        return [name for *_, name in sorted(due)[:free]]

    def _open(self, name: str, sought: Sought, now: float) -> Opening:
        missing = self._missing[name]
        turn = missing.turns
        missing.turns += 1
        missing.next = now
        quick = turn < QUICK_TURNS or sought.alive
        self._sides[name] = _Side(now, TURN)
        seconds = USUAL_OPEN if sought.round_trip is None else max(LEAST_OPEN, OPEN_ROUND_TRIPS * sought.round_trip)
        retry = (RETRY_SECONDS if quick else SLOW_RETRY_SECONDS) * self._random.uniform(0.6, 1.2)
        return Opening(name, sought.endpoints, min(seconds, LONG_OPEN), retry, knocks=turn > 0)

    def answered(self, name: str) -> None:
        """An endpoint of a peer has taken a connection."""
        if name in self._sides:
            self._sides[name].turn += ANSWERED_TURN


class ZenohTransport:
    """A `Transport` on Zenoh.

    Args:
        role: `peer` links to every other peer (up to about 50 nodes); `router` also carries traffic for clients;
            `client` has a single link, to a router in `connect`; `auto` chooses among these by itself, see `topology`.
        listen: endpoints `tcp/HOST:PORT`; port 0 takes a free one. Loopback when left out; nothing for a client.
        connect: endpoints of other nodes, retried without end. Links to these are repaired, unlike links found by gossip.
        multicast: also discover nodes by multicast on the local network.
        discover: also link to nodes known to connected nodes; otherwise only to nodes in `connect`.
        lease: seconds of silence after which a link, and with it a peer, counts as gone. By default 60 for a peer and 8 for others
            where the system tells of dead connections sooner (Linux), else 4.
        answers_at_once: the limit of running handlers; a request beyond the limit stays unanswered.
        identity: the identity of the node, for links by TLS with nodes of its fleet alone.
        accept_plain: with an identity, link also to nodes without an identity.

    Raises `TransportError` for an invalid role, endpoint, lease or limit.
    """

    def __init__(
        self,
        role: str = "peer",
        *,
        listen: Sequence[str] | None = None,
        connect: Sequence[str] = (),
        multicast: bool = False,
        lease: float | None = None,
        discover: bool = True,
        answers_at_once: int = ANSWERS_AT_ONCE,
        identity: "Identity | None" = None,
        accept_plain: bool = False,
        routers: int = ROUTERS,
        routers_above: int = ABOVE,
    ) -> None:
        """`role`: peer, client, router or auto: with `routers` routers beyond `routers_above` live nodes. `listen` and `connect`:
        endpoints, such as `tcp/10.0.0.1:7447`. `multicast` and `discover`: find peers on the local network, and through other
        peers. `lease`: seconds until a silent link is closed.
        `answers_at_once`: requests answered at the same time. `identity`: that of the node, for links by TLS.
        `accept_plain`: link also to nodes without an identity.

        Raises `TransportError` for a setting out of bounds.
        """
        self._settings = checked(
            role, listen, connect,
            multicast=multicast, lease=lease, discover=discover, identity=identity, accept_plain=accept_plain,
        )  # fmt: skip
        self._answers_at_once = check_answers_at_once(answers_at_once)
        self._lock = asyncio.Lock()
        self._member: Registration | None = None
        self._mine: set[str] = set()
        self._session: ZenohSession | None = None
        self._listening: tuple[str, ...] = ()
        self._endpoints: tuple[str, ...] = ()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sought: Mapping[str, Sought] = {}
        self._sides: dict[str, Declared | asyncio.Task[None]] = {}
        """The side sessions; the task that opens it before."""
        self._moved = asyncio.Event()
        self._traffic = Traffic()
        self._limit: AddressLimit | None = None
        self._routers, self._routers_above = routers, routers_above
        self._present = self._settings if role != "auto" else self._settings.as_role(PEER)
        """The settings in the present role."""
        self._choice = Choice(self._present.role, (), "by its settings")  # type: ignore[arg-type]
        self._rule: RoleRule | None = None
        self._known: Mapping[str, Sought] = {}
        self._door: Declared | None = None
        self._pause_until = 0.0
        self._routers_linked = 0.0
        """The last time at which this router had links to those before it."""
        self._shut_out: Callable[[str], bool] = lambda _: False
        self._subscriptions: list[_Subscription] = []

    @property
    def endpoints(self) -> tuple[str, ...]:
        """See `Transport.endpoints`."""
        return self._endpoints

    @property
    def bytes_sent(self) -> int:
        """See `Transport.bytes_sent`."""
        return self._traffic.sent

    @property
    def bytes_received(self) -> int:
        """See `Transport.bytes_received`."""
        return self._traffic.received

    @property
    def refused(self) -> int:
        """See `Transport.refused`."""
        return self._traffic.refused

    def peers(self) -> frozenset[Peer]:
        """See `Transport.peers`."""
        return frozenset(self._session.peers) if self._session else frozenset()

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        """See `Transport.open`. A client without an answering router opens, and joins when a router answers.

        Raises `TransportError`.
        """
        if self._member is not None:
            raise TransportError("this transport is open already; close it first")
        if not name or not fleet:
            raise TransportError("a node and its fleet need a name each; give both")
        identity = self._settings.identity
        if identity is not None and (name, fleet) != (identity.subject.node, identity.subject.fleet):
            of = f"{identity.subject.node} in the fleet {identity.subject.fleet}"
            raise TransportError(f"the identity is of {of}, not of {name} in {fleet}; name the identity of this node")
        self._member = member = Registration(name, fleet, HandlerTasks(handler, self._answers_at_once), changed)
        try:
            async with self._lock:
                return await self._join(member, await self._first_settings(name))
        except BaseException:
            if self._member is member:
                self._member = None
            raise

    async def reopen(self) -> Peer:
        """See `Transport.reopen`. A port that is still taken by the former session is tried again. Raises `TransportError`."""
        async with self._lock:
            member = self._member
            if member is None:
                raise TransportError("this transport is not open; open it first")
            gone = self.peers()
            await self._leave()
            for peer in sorted(gone):
                asyncio.get_running_loop().call_soon(self._report_gone, member, peer)
            if self._present.role == ROUTER:
                await asyncio.sleep(ROUTER_PAUSE)
            return await self._join(member, self._present, retry=True)

    def seek(self, peers: Mapping[str, Sought]) -> None:
        """See `LinkingTransport.seek`. A client has its link to a router only."""
        self._known = peers
        self._sought = {} if self._present.role == CLIENT else peers
        self._moved.set()

    @property
    def standing(self) -> Standing:
        """See `RoleTransport.standing`."""
        routers = () if self._session is None else tuple(sorted(self._session.routers()))
        lacks = self._rule is not None and self._rule.is_large and not self._rule.servers
        foreign = {} if self._session is None or self._session.peers else dict(self._session.foreign)
        return Standing(self._present.role, self._choice.why, routers, lacks, foreign)

    def links(self) -> Mapping[str, LinkKind]:
        """See `LinkingTransport.links`."""
        return self._session.links() if self._session else {}

    @property
    def proofs(self) -> Mapping[Peer, str]:
        """The present peers, each with the proof of its session; "" for a peer without a proof."""
        return self._session.peers if self._session else {}

    def shut_out(self, is_shut_out: Callable[[str], bool]) -> None:
        """List no sessions whose proof this function names, from now on. Their requests get no answer."""
        self._shut_out = is_shut_out
        if self._session is not None:
            self._session.shut_out()

    def _is_shut_out(self, proof: str) -> bool:
        return self._shut_out(proof)

    def subscribe(self, keys: Sequence[str], take: Callable[[str, bytes], None]) -> Callable[[], None]:
        """See `SubscribingTransport.subscribe`. Raises `TransportError`."""
        if self._settings.identity is not None:
            raise TransportError("the links of a node with an identity carry the messages of its fleet only")
        try:
            subscription = _Subscription([zenoh.KeyExpr(key) for key in keys], take)
            self._subscriptions.append(subscription)
            self._declare_subscriptions()
        except zenoh.ZError as error:
            raise TransportError(f"{', '.join(keys)} cannot be subscribed to: {error}") from None

        def end() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            subscription.end()

        return end

    def _declare_subscriptions(self) -> None:
        """Declare the subscriptions in the present main session, if they are not."""
        if self._session is not None:
            for subscription in self._subscriptions:
                subscription.declare(self._session.main)

    async def renew(self, identity: "Identity") -> Peer:
        """Open the session again, with a new certificate. Raises `TransportError`."""
        self._settings = replace(self._settings, identity=identity)
        self._present = replace(self._present, identity=identity)
        return await self.reopen()

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        """See `Transport.request`. Raises `Unreachable`, and `ValueError` for a payload above `MAX_PAYLOAD`."""
        if self._session is None:
            raise Unreachable(f"{peer.name} cannot be asked: this transport has no link now")
        return await self._session.request(peer, payload, timeout)

    async def publish(self, key: str, payload: bytes, media_type: str) -> None:
        """See `PublishingTransport.publish`. Sent by the main session, to the subscribers of now. Raises `Unreachable`."""
        if self._session is None:
            raise Unreachable("this transport has no link now")
        await self._session.publish(key, payload, media_type)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._member = None
        await self._leave()
        self._listening = ()

    def _is_me(self, peer: Peer) -> bool:
        return peer.session in self._mine

    def _report_gone(self, member: Registration, peer: Peer) -> None:
        if self._member is member:
            member.changed(peer, False)

    async def _leave(self) -> None:
        tasks, self._tasks = self._tasks, set()
        session, self._session = self._session, None
        limit, self._limit = self._limit, None
        self._endpoints = ()
        self._sides.clear()
        self._door = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if limit is not None:
            limit.stop()
        if session is not None:
            await session.close()

    def _begin(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _join(self, member: Registration, settings: Settings, *, retry: bool = False) -> Peer:
        """Open the main session. `retry`: try again in the background where that fails."""
        me = Peer(member.name, f"{time.time_ns():016x}{secrets.token_hex(4)}")
        self._mine.add(me.session)
        try:
            await self._attach(member, me, settings)
        except TransportError as error:
            if self._rule is not None and settings.role == CLIENT and self._member is member:
                self._take(Choice(PEER, (), "no router answers"), self._settings.as_role(PEER))
                return await self._join(member, self._present, retry=retry)
            if self._member is not member or not (retry or isinstance(error, RouterUnreachableError)):
                raise
            _log.warning("%s; trying again until it opens", error)
            self._begin(self._keep_trying(member, me, settings), "joining")
        return me

    async def _keep_trying(self, member: Registration, me: Peer, settings: Settings) -> None:
        """Attach a client as soon as any of its routers answers, or a node as soon as its port is free."""
        pause, longest = _RETRY_SECONDS
        while True:
            await asyncio.sleep(pause)
            try:
                return await self._attach(member, me, settings)
            except RouterUnreachableError:
                pause = min(2 * pause, longest)
            except TransportError as error:
                pause = min(2 * pause, longest)
                _log.debug("%s; trying again", error)

    async def _attach(self, member: Registration, me: Peer, settings: Settings) -> None:
        """Open a Zenoh session as the current session. Raises `TransportError`."""
        before = self._listening
        try:
            opened = await in_daemon_thread(
                lambda: open_session(settings, before, main_id(me.session)), OPEN_SECONDS, lambda late: close_session(late.session)
            )
        except TimeoutError:
            raise TransportError(f"Zenoh did not open within {OPEN_SECONDS:g} s; look at the endpoints") from None
        try:
            self._adopt(opened, member, me)
        except BaseException:
            with contextlib.suppress(TimeoutError):
                await in_daemon_thread(lambda: close_session(opened.session), CLOSE_SECONDS, lambda _: None)
            raise

    def _adopt(self, opened: Opened, member: Registration, me: Peer) -> None:
        if self._member is not member:
            raise TransportError("this transport was closed while it opened")
        try:
            session = self._session = ZenohSession(
                opened.session, member, me, self._is_me, self._traffic, self._settings.identity,
                accept_plain=self._settings.accept_plain, is_shut_out=self._is_shut_out, moved=self._moved.set,
            )  # fmt: skip
        except zenoh.ZError as error:
            raise TransportError(f"Zenoh opened, and refused to join: {error}; open again") from None
        self._declare_subscriptions()
        self._listens(opened)
        if self._present.role == ROUTER:
            session.leave_after(ROUTER_PAUSE)
        if self._settings.role != CLIENT:
            self._begin(self._keep_links(session, me), "links")
        if self._rule is not None:
            self._begin(self._keep_role(session, me, self._rule), "role")
        if any(is_wildcard(parse_endpoint(each)[0]) for each in self._settings.listen):
            self._begin(self._keep_addresses(), "addresses")

    def _listens(self, opened: Opened) -> None:
        """A session has been opened: take its endpoints, if it listens or is to be no other."""
        if not opened.listening and self._rule is not None:
            return
        self._listening, self._endpoints = opened.listening, opened.endpoints
        if self._limit is not None:
            self._limit.stop()
        if self._settings.identity is not None:
            self._limit = AddressLimit(
                {parse_endpoint(each)[1] for each in opened.listening}, partial(linked_addresses, opened.session)
            )
            start_daemon_thread(self._limit.run)

    # --- the role -----------------------------------------------------------------------------------------------------

    async def _first_settings(self, name: str) -> Settings:
        """The settings to open with: in the role `auto` by the store."""
        if self._settings.role != "auto":
            return self._settings
        self._rule = RoleRule(name, asyncio.get_running_loop().time(), self._routers, self._routers_above)
        addresses = await asyncio.to_thread(own_addresses) if len(self._known) >= self._routers_above else []
        choice = self._rule.at_start(self._known, reachable_endpoints(self._settings.listen, addresses))
        connect = await self._endpoints_of(choice.routers)
        self._take(choice, self._settings.as_role(choice.role, connect))
        return self._present

    async def _endpoints_of(self, names: Sequence[str]) -> list[str]:
        """The endpoints of these nodes as they are tried from here."""
        settings, listening = self._settings, self._listening
        told = [self._known[name].endpoints for name in names if name in self._known]
        usable = [usable_connects(each, listening, settings.identity, accept_plain=settings.accept_plain) for each in told]

        def find() -> list[str]:
            own = own_addresses()
            return [endpoint for each in usable for endpoint in local_connects(each, own, listening)]

        return list(dict.fromkeys(await asyncio.to_thread(find))) if usable else []

    def _take(self, choice: Choice, settings: Settings) -> None:
        self._choice, self._present = choice, settings
        self.seek(self._known)

    async def _keep_role(self, session: ZenohSession, me: Peer, rule: RoleRule) -> None:
        """Follow the rule, while the session is open."""
        clock = asyncio.get_running_loop().time
        if self._present.role == CLIENT:
            await self._open_door(session, me)
        while True:
            await asyncio.sleep(ROLE_EVERY)
            live = {peer.name for peer in session.peers} - {me.name}
            role, linked = self._present.role, session.routers()
            choice = rule.choose(clock(), role, self._known, live, self._endpoints, linked, serves_clients=session.serves_clients)
            if session.lacks_main and choice.role == CLIENT:
                choice = Choice(PEER, (), "the former session could not be replaced")
            if not session.lacks_main and (not self._is_change(choice, linked) or clock() < self._pause_until):
                self._choice = self._choice._replace(why=choice.why, before=choice.before)
                continue
            connect = await self._endpoints_of(choice.routers)
            settings = self._settings.as_role(choice.role, connect)
            try:
                taken = await (self._to_client if choice.role == CLIENT else self._to_listener)(session, me, choice, settings)
            except TransportError as error:
                _log.warning("%s stays a %s: %s", me.name, role, error)
                taken = False
            if not taken:
                rule.fail(choice.routers if choice.role == CLIENT else [], clock())
                self._pause_until = clock() + CLIENT_PAUSE

    def _is_change(self, choice: Choice, linked: Collection[str]) -> bool:
        if choice.role != self._present.role:
            return True
        if choice.role == ROUTER:
            return self._lacks_router(choice, linked)
        if choice.role != CLIENT or not choice.routers:
            return False
        had = set(self._choice.routers) & set(choice.routers)
        return not had.issuperset(set(linked) & set(self._choice.routers)) or len(had) < min(2, len(choice.routers))

    def _lacks_router(self, choice: Choice, linked: Collection[str]) -> bool:
        """Whether a router before this router has had no link to it for a while. Clients of both reach each other through it."""
        now = asyncio.get_running_loop().time()
        if all(name in linked for name in choice.before):
            self._routers_linked = now
        return now - self._routers_linked > ROUTERS_APART

    async def _open_main(self, settings: Settings, me: Peer) -> Opened:
        """Open a further main session, at the same ports. A port that is still taken is tried again. Raises `TransportError`."""
        before, id_, tries = self._listening, f"{main_id(me.session)}{secrets.token_hex(3)}", 0
        while True:
            try:
                return await in_daemon_thread(
                    lambda: open_session(settings, before, id_), OPEN_SECONDS, lambda late: close_session(late.session)
                )
            except TimeoutError:
                raise TransportError(f"Zenoh did not open within {OPEN_SECONDS:g} s") from None
            except RouterUnreachableError:
                raise
            except TransportError:
                tries += 1
                if tries >= MOST_TRIES:
                    raise
                await asyncio.sleep(_RETRY_SECONDS[0])

    async def _attach_main(self, session: ZenohSession, settings: Settings, me: Peer) -> Declared:
        opened = await self._open_main(settings, me)
        try:
            declared = session.attach(opened.session)
        except (zenoh.ZError, Unreachable) as error:
            start_daemon_thread(lambda: close_session(opened.session))
            raise TransportError(str(error)) from None
        self._listens(opened)
        return declared

    async def _to_client(self, session: ZenohSession, me: Peer, choice: Choice, settings: Settings) -> bool:
        """Become a client, or a client of other routers. Returns False, and changes nothing, if no router answers."""
        try:
            declared = await self._attach_main(session, settings, me)
        except RouterUnreachableError:
            return False
        clock = asyncio.get_running_loop().time
        ends = clock() + SEES_WITHIN
        while not (routers := session.routers(declared)) or 2 * len(session.seen_by(declared)) < len(session.peers):
            if clock() >= ends:
                break
            await asyncio.sleep(LEAST_LOOK)
        if not routers:
            session.detach(declared)
            return False
        former, served = session.promote(declared), self._present.role == ROUTER
        self._declare_subscriptions()
        listened = self._present.role != CLIENT
        self._tell(me, choice, settings)
        ends = clock() + (LONGEST_HANDOVER if served else HANDOVER)
        await asyncio.sleep(HANDOVER)
        while clock() < ends and former.serves_clients:  # noqa: ASYNC110 - seldom, and for a moment
            await asyncio.sleep(ROLE_EVERY)
        await session.end(former)
        if listened:
            await self._open_door(session, me)
        return True

    async def _to_listener(self, session: ZenohSession, me: Peer, choice: Choice, settings: Settings) -> bool:
        """Become a router or a peer: close the session with the port, then open another there."""
        was_client = self._present.role == CLIENT
        if not was_client:
            if not session.lacks_main:
                await session.hold()
        elif self._door is not None:
            door, self._door = self._door, None
            await session.end(door)
        await asyncio.sleep(ROUTER_PAUSE)
        try:
            declared = await self._attach_main(session, settings, me)
        except TransportError as error:
            if was_client:
                await self._open_door(session, me)
                raise
            _log.warning("%s cannot be a %s: %s", me.name, choice.role, error)
            declared = await self._attach_main(session, self._settings.as_role(PEER), me)
            choice, settings = Choice(PEER, (), str(error)), self._settings.as_role(PEER)
        former = session.promote(declared)
        self._declare_subscriptions()
        if choice.role == ROUTER:
            session.leave_after(ROUTER_PAUSE)
        self._routers_linked = asyncio.get_running_loop().time()
        self._tell(me, choice, settings)
        await asyncio.sleep(HANDOVER)
        session.release()
        if was_client:
            await session.end(former)
        return True

    def _tell(self, me: Peer, choice: Choice, settings: Settings) -> None:
        _log.info("%s is a %s now: %s", me.name, choice.role, choice.why)
        self._take(choice, settings)

    async def _open_door(self, session: ZenohSession, me: Peer) -> None:
        """Go on listening as a client."""
        settings, id_ = door_settings(self._settings), f"{side_id(me.session)}{secrets.token_hex(3)}"
        before = self._listening
        for _ in range(MOST_TRIES):
            try:
                opened = await in_daemon_thread(
                    lambda: open_session(settings, before, id_), OPEN_SECONDS, lambda late: close_session(late.session)
                )
            except (TransportError, TimeoutError) as error:
                _log.debug("no listener beside the client: %s", error)
                await asyncio.sleep(_RETRY_SECONDS[0])
            else:
                self._take_door(session, opened)
                return
        _log.warning("%s does not listen: its port is taken", me.name)

    def _take_door(self, session: ZenohSession, opened: Opened) -> None:
        try:
            self._door = session.attach(opened.session)
        except (zenoh.ZError, Unreachable) as error:
            _log.debug("no listener beside the client: %s", error)
            start_daemon_thread(lambda: close_session(opened.session))
        else:
            self._listens(opened)

    # --- side sessions ------------------------------------------------------------------------------------------------

    async def _keep_links(self, session: ZenohSession, me: Peer) -> None:
        """Open and close side sessions as `SidePlan` says, while the main session is open."""
        clock = asyncio.get_running_loop().time
        plan = SidePlan(me.name, Random(me.session), clock())  # noqa: S311 - jitter
        while True:
            self._moved.clear()
            ours = {name for name, side in self._sides.items() if isinstance(side, Declared) and self._sees(session, name, side)}
            opened, closed = plan.look(clock(), self._wanted(session), session.links(), ours, session.sides_of_others())
            for name in closed:
                self._close_side(session, name)
            for opening in opened:
                opens = self._open_side(session, me, plan, opening)
                self._sides[opening.name] = self._begin(opens, f"side session for {opening.name}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.next_look):
                    await self._moved.wait()
                    await asyncio.sleep(LEAST_LOOK)  # many peers come and go at once

    def _wanted(self, session: ZenohSession) -> Mapping[str, Sought]:
        """The peers to see to: those sought, and the seeds while no link is there at all."""
        if session.is_linked or session.peers or not self._settings.connect:
            return self._sought
        return {**self._sought, SEEDS: Sought(self._settings.connect)}

    def _sees(self, session: ZenohSession, name: str, side: Declared) -> bool:
        seen = session.seen_by(side)
        return bool(seen) if name == SEEDS else name in seen

    async def _open_side(self, session: ZenohSession, me: Peer, plan: SidePlan, opening: Opening) -> None:
        """Open a side session, where the node has a usable endpoint. Cancelled when its turn is over."""
        settings, listening, seconds = self._settings, self._listening, opening.open_seconds
        usable = usable_connects(opening.endpoints, listening, settings.identity, accept_plain=settings.accept_plain)
        id_ = f"{side_id(me.session)}{secrets.token_hex(3)}"
        try:
            tried = await in_daemon_thread(lambda: local_connects(usable, own_addresses(), listening), OPEN_SECONDS, lambda _: None)
            if not tried:
                return
            if opening.knocks or len(tried) > 1:
                tried, seconds = (await first_answering(tried, opening.retry_seconds),), LONG_OPEN
                plan.answered(opening.name)
            raw = await in_daemon_thread(
                lambda: open_side_session(settings, tried[0], id_, seconds, opening.retry_seconds), OPEN_SECONDS, close_session
            )
        except (TransportError, TimeoutError) as error:
            _log.debug("no side session for %s: %s", opening.name, error)
            return
        try:
            self._sides[opening.name] = session.attach(raw)
        except (zenoh.ZError, Unreachable) as error:
            _log.debug("no side session for %s: %s", opening.name, error)
            start_daemon_thread(lambda: close_session(raw))

    def _close_side(self, session: ZenohSession, name: str) -> None:
        side = self._sides.pop(name)
        if isinstance(side, Declared):
            session.detach(side)
        else:
            side.cancel()

    async def _keep_addresses(self) -> None:
        """Follow the addresses of this machine."""
        while True:
            await asyncio.sleep(ADDRESSES_EVERY)
            self._endpoints = reachable_endpoints(self._listening, await asyncio.to_thread(own_addresses))
