"""`ZenohTransport`: the membership of a node in a network of Eclipse Zenoh, over any number of sessions.

Zenoh runs in the process of the node, without a broker. Rules: a malformed endpoint or role is refused at construction, a taken
port at open. Silent seeds and routers are retried in the background. Every session has a Zenoh id of its own, because Zenoh
isolates the second of two equal ids without an error.

Zenoh repairs the links to configured endpoints only. It does not repair a link that was found by gossip, and takes no endpoint
while a session is open. So a node that should be a peer (`seek`) and is not gets a *side session*: a second Zenoh session for that
link alone, which connects to an endpoint of the node and does not listen. It recovers by itself when the link breaks. The main
session is never closed for a link, so a missing link costs only that link. `SidePlan` has the rules:

1. A side session is opened once the peer has been missing for a moment: first by the node with the lesser name, later by the other,
   in case only one of the two can connect.
2. It is closed once the main sessions of both ends are linked again, or the node is no longer sought. Of two side sessions between
   two nodes, that of the greater name is closed.
3. A bounded number of side sessions tries at a time. Each tries for a while, then others have their turn: those with the fewest
   turns first, nodes that others have heard of before the others. Nodes missing for long are tried at growing intervals.
4. In the first turn Zenoh connects, with a time for opening that follows the round trip of the peer, so that it tries often. In
   later turns, and with several endpoints, the first endpoint that takes a TCP connection is found before, with tries that overlap.
   Then Zenoh has the time that the worst link needs.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import zenoh

from constraint_crdt.transport import (
    ANSWERS_AT_ONCE,
    Handler,
    HandlerTasks,
    LinkKind,
    Peer,
    PeerCallback,
    Sought,
    TransportError,
    Unreachable,
    check_answers_at_once,
)
from constraint_crdt.transport.addresses import (
    AddressLimit,
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
"""Seconds between two looks at the links: at least; while one is missing; and while those are missing only that were for long."""

ADDRESSES_EVERY = 30.0
"""Seconds between two looks at the addresses of this machine, of a node that listens at a wildcard."""

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
            `client` has a single link, to a router in `connect`.
        listen: endpoints `tcp/HOST:PORT`; port 0 takes a free one. Loopback when left out; nothing for a client.
        connect: endpoints of other nodes, retried without end. Links to these are repaired, unlike links found by gossip.
        multicast: also discover nodes by multicast on the local network.
        discover: also link to nodes known to connected nodes; otherwise only to nodes in `connect`.
        lease: seconds of silence after which a link, and with it a peer, counts as gone. By default 60 for a peer where the system
            tells of dead connections sooner (Linux), else 4.
        answers_at_once: the limit of running handlers; a request beyond the limit stays unanswered.
        identity: the identity of the node, for links by TLS with nodes of its fleet alone.
        accept_plain: with an identity, link also to nodes without one.

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
    ) -> None:
        """`role`: peer, client or router. `listen` and `connect`: endpoints, such as `tcp/10.0.0.1:7447`. `multicast` and
        `discover`: find peers on the local network, and through other peers. `lease`: seconds until a silent link is closed.
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
        self._shut_out: Callable[[str], bool] = lambda _: False

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
                return await self._join(member, self._settings)
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
            return await self._join(member, self._settings, retry=True)

    def seek(self, peers: Mapping[str, Sought]) -> None:
        """See `LinkingTransport.seek`. A client has its link to a router only."""
        self._sought = {} if self._settings.role == "client" else peers
        self._moved.set()

    def links(self) -> Mapping[str, LinkKind]:
        """See `LinkingTransport.links`."""
        return self._session.links() if self._session else {}

    @property
    def proofs(self) -> Mapping[Peer, str]:
        """The present peers, each with the proof of its session; "" for a peer without one."""
        return self._session.peers if self._session else {}

    def shut_out(self, is_shut_out: Callable[[str], bool]) -> None:
        """List no sessions whose proof this function names, from now on. Their requests get no answer."""
        self._shut_out = is_shut_out
        if self._session is not None:
            self._session.shut_out()

    def _is_shut_out(self, proof: str) -> bool:
        return self._shut_out(proof)

    async def renew(self, identity: "Identity") -> Peer:
        """Open the session again, with a new certificate. Raises `TransportError`."""
        self._settings = replace(self._settings, identity=identity)
        return await self.reopen()

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        """See `Transport.request`. Raises `Unreachable`, and `ValueError` for a payload above `MAX_PAYLOAD`."""
        if self._session is None:
            raise Unreachable(f"{peer.name} cannot be asked: this transport has no link now")
        return await self._session.request(peer, payload, timeout)

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
        self._listening, self._endpoints = opened.listening, opened.endpoints
        if self._settings.identity is not None:
            self._limit = AddressLimit(
                {parse_endpoint(each)[1] for each in opened.listening}, partial(linked_addresses, opened.session)
            )
            start_daemon_thread(self._limit.run)
        if self._settings.role != "client":
            self._begin(self._keep_links(session, me), "links")
        if any(is_wildcard(parse_endpoint(each)[0]) for each in opened.listening):
            self._begin(self._keep_addresses(), "addresses")

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
