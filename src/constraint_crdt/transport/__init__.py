"""Transports between nodes: the interface for discovery, membership and requests, and the tasks of request handlers.

`MemoryNetwork` has the transports in memory, for tests and embedding. `zenoh` is the default transport, with its sessions in
`zenoh_session` and their configuration, opening and closing in `zenoh_startup`; only these modules import the zenoh package. No
transport knows anything of constraints.

Rules for every transport:

1. A peer is a name *and* a session. Each open has a new session, so two processes with the same name are two peers.
2. Fleets never mix: a transport sees and answers only peers of its own fleet.
3. `peers()` and `changed` are hints. Only an answered request proves a live peer.
4. The handler and `changed` run on the loop of the `open` call, and never inside a call into the transport.
5. A request has all replies, in order, or raises `Unreachable`. A part of the replies is no answer; the error may have it.
6. An exception of a handler costs its requester the answer, without any other effect.
7. Each request's handler is a task, so handlers run interleaved. Requests beyond the limit of a transport stay unanswered. A
   running handler is cancelled when its transport closes or reopens.

`HandlerTasks` implements rules 6 and 7 for all transports: each task is referenced until its end, and each request's `deliver` is
called exactly once and on the loop, also for a task that fails, is cancelled or never starts. Cancellation propagates.

The transport in memory connects any number of transports on a single event loop, with faults for tests. It is deterministic: every
step is a `call_soon`, sessions are counted, and loss draws from a given generator. Replies are sent in the order in which handlers
end. A message lost or without a route fails its request at once, so tests need no timeouts.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import count
from random import Random
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

from constraint_crdt.errors import ConstraintCrdtError, InvalidValue

MAX_PAYLOAD = 256 * 1024
"""The longest request, and the longest single reply, in bytes. Messages of a node are at most a quarter of this."""


TIMED_SESSION: Final = 24
"""Digits of a session that begins with the time of its opening: 16 of the time, then chance."""


class Peer(NamedTuple):
    """An opened transport: the name of the node, and a unique session in hex. Sessions sort by the time of opening."""

    name: str
    session: str

    @property
    def opened(self) -> int | None:
        """The time at which it was opened, in ns since the epoch by the clock of that node; None where the session tells none."""
        try:
            return int(self.session[:16], 16) if len(self.session) == TIMED_SESSION else None
        except ValueError:  # of a foreign kind
            return None


Handler = Callable[[bytes, Peer | None], Awaitable[Sequence[bytes]]]
"""Takes a request and returns its replies, possibly none. Replies are sent after the return, so their content can be on disk first.
The peer is the proven sender, or None where the transport proves no sender.
"""

PeerCallback = Callable[[Peer, bool], None]
"""A peer came (True) or went (False)."""


class TransportError(ConstraintCrdtError):
    """The transport could not open, or is not open. `str()` is a sentence with advice."""


class Unreachable(TransportError):
    """A request got no answer, or only the beginning: the peer is gone, cut off, too slow, or failed at answering."""

    def __init__(self, message: str, replies: Sequence[bytes] = ()) -> None:
        """`replies`: those that arrived, in their order."""
        super().__init__(message)
        self.replies = replies


class Transport(Protocol):
    """Discovery, membership and requests between the nodes of a fleet."""

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints of this node, for other nodes; empty if the transport is closed or does not listen."""

    @property
    def bytes_sent(self) -> int:
        """Payload bytes of requests and replies handed to the network since construction."""

    @property
    def bytes_received(self) -> int:
        """Payload bytes of requests and replies taken from the network since construction."""

    @property
    def refused(self) -> int:
        """Requests and replies dropped since construction, because nothing proved their sender."""

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        """Join `fleet` as `name`, and return this transport's peer. `changed` is never called for this peer.

        Raises `TransportError` if opening fails, or the transport is open; nothing stays open then.
        """

    async def reopen(self) -> Peer:
        """Leave and join again with a new session. Peers are reported gone, and come again.

        Raises `TransportError` on failure; the transport has no peers then, and may be reopened or closed.
        """

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - it bounds each silence, and a caller's own timeout around it could not
        """Send `payload` and return the replies, in the order the peer's handler gave them.

        `timeout` is in seconds, for each silence: a long list of replies may take longer in all.
        Never blocks the loop. Raises `Unreachable`, or `ValueError` for a payload above `MAX_PAYLOAD`.
        """

    def peers(self) -> frozenset[Peer]:
        """The peers believed to be there now."""

    async def close(self) -> None:
        """Leave. Idempotent, also after a failed open. Takes 2 s at most.

        Waiting requests raise `Unreachable`. `changed` is not called for links closed here. Handlers are cancelled and awaited for
        `CANCEL_SECONDS`; slower handlers end later. A handler calling `close` is not cancelled.
        """


LinkKind = Literal["direct", "side", "router"]
"""How a peer is linked: by the main sessions of both ends, by a side session of either, or through a router."""


class Sought(NamedTuple):
    """A node that should be a peer."""

    endpoints: tuple[str, ...]
    """Its endpoints, as it told them."""
    alive: bool = False
    """Other nodes give evidence that it lives."""
    round_trip: float | None = None
    """Seconds to it and back, measured before; None if unknown."""
    role: str = ""
    """`router` or `client`, if it told so."""


class Standing(NamedTuple):
    """The role of a node among the links of its fleet."""

    role: str
    """`peer`, `router` or `client`."""
    why: str
    """The rule by which the role is so: a part of a sentence."""
    routers: tuple[str, ...] = ()
    """The names of the routers that it has a link to."""
    lacks_servers: bool = False
    """The fleet is large, and no node of it can be a router."""
    foreign: Mapping[str, str] = MappingProxyType({})
    """Other fleets at the other ends of links, each with the name of a node of it, while no node of this fleet is there."""


@runtime_checkable
class LinkingTransport(Protocol):
    """A transport that makes links to nodes on its own."""

    def seek(self, peers: Mapping[str, Sought]) -> None:
        """From now on see to a link to each of these nodes, and to no others. The order is that of preference.

        Before `open`: these are also tried at the opening.
        """

    def links(self) -> Mapping[str, LinkKind]:
        """The names of the peers, each with its link."""


@runtime_checkable
class SubscribingTransport(Protocol):
    """A transport whose network carries the publications of other programs."""

    def subscribe(self, keys: Sequence[str], take: Callable[[str, bytes], None]) -> Callable[[], None]:
        """Call `take(key, payload)` for each publication at these key expressions, in threads of the transport, over all changes
        of its sessions. Returns a function that ends it. Raises `TransportError` for a key expression that is none, and for links
        that carry nothing else than the messages of nodes.
        """


@runtime_checkable
class PublishingTransport(Protocol):
    """A transport that publishes for others than nodes."""

    async def publish(self, key: str, payload: bytes, media_type: str) -> None:
        """Hand a message to those who subscribed to a key. Raises `TransportError` if it cannot be sent."""


@runtime_checkable
class RoleTransport(Protocol):
    """A transport whose nodes have roles."""

    @property
    def standing(self) -> Standing:
        """The present role of this node."""


ANSWERS_AT_ONCE = 256
"""The default limit of running handlers: with the longest requests, 64 MiB of memory."""

CANCEL_SECONDS = 0.25
"""Seconds for which a closing transport waits for cancelled handlers."""

_log = logging.getLogger(__name__)

ReplyCallback = Callable[[list[bytes] | None], None]
"""Takes the replies to a request, or None without an answer."""


def check_payload(payload: bytes) -> bytes:
    """Return `payload`. Raises `ValueError` for a payload longer than `MAX_PAYLOAD`."""
    if len(payload) > MAX_PAYLOAD:
        msg = f"a payload of {len(payload)} bytes is above the engine's limit of {MAX_PAYLOAD}; send it in parts"
        raise InvalidValue(msg)
    return payload


def check_answers_at_once(limit: int) -> int:
    """Return `limit`. Raises `TransportError` for a limit below 1."""
    if limit < 1:
        raise TransportError(f"a transport cannot answer {limit} requests at once; give 1 or more")
    return limit


class HandlerTasks:
    """The tasks of a handler, on a single event loop."""

    def __init__(self, handler: Handler, limit: int) -> None:
        self._handler = handler
        self._limit = limit
        self._running: dict[asyncio.Task[list[bytes] | None], None] = {}  # in order, so cancellation is deterministic
        self._overrun = False

    def begin(self, request: bytes, deliver: ReplyCallback, sender: Peer | None = None) -> None:
        """Run the handler on `request` of the proven `sender`. `deliver` gets None at once when too many run already."""
        if len(self._running) >= self._limit:
            if not self._overrun:
                self._overrun = True
                _log.warning("%d requests are being answered; more stay unanswered until some are done", self._limit)
            deliver(None)
            return
        task = asyncio.get_running_loop().create_task(self._run(request, sender), name="answer")
        self._running[task] = None
        task.add_done_callback(lambda done: self._ended(done, deliver))

    def cancel(self) -> None:
        """Cancel every task except the calling task."""
        for task in self._others():
            task.cancel()

    async def wait(self) -> None:
        """Wait for the other tasks to end, `CANCEL_SECONDS` at most."""
        if others := self._others():
            await asyncio.wait(others, timeout=CANCEL_SECONDS)

    def _others(self) -> list[asyncio.Task[list[bytes] | None]]:
        current = asyncio.current_task()
        return [task for task in self._running if task is not current]

    async def _run(self, request: bytes, sender: Peer | None) -> list[bytes] | None:
        try:
            return [check_payload(reply) for reply in await self._handler(request, sender)]
        except Exception:  # a fault of the handler must not end the transport, which serves all other peers
            _log.exception("the handler failed on a request of %d bytes, which stays unanswered", len(request))
            return None

    def _ended(self, task: asyncio.Task[list[bytes] | None], deliver: ReplyCallback) -> None:
        del self._running[task]
        if not self._running:
            self._overrun = False
        deliver(None if task.cancelled() or task.exception() else task.result())


class MemoryNetwork:
    """Connects memory transports, and injects faults. Belongs to a single event loop."""

    def __init__(self) -> None:
        self._members: dict[Peer, MemoryTransport] = {}
        self._cut: set[frozenset[str]] = set()
        self._sessions = count(1)
        self._loss = 0.0
        self._random: Random | None = None

    def __repr__(self) -> str:
        return f"MemoryNetwork({sorted(peer.name for peer in self._members)})"

    def transport(self, *, answers_at_once: int = ANSWERS_AT_ONCE) -> "MemoryTransport":
        """A new transport on this network, not open yet. Requests beyond `answers_at_once` stay unanswered.

        Raises `TransportError` for a limit below 1.
        """
        return MemoryTransport(self, check_answers_at_once(answers_at_once))

    def cut(self, these: Iterable[str], those: Iterable[str]) -> None:
        """Take away the route, both ways, between every name in `these` and every name in `those`."""
        others = set(those)
        self._cut |= {frozenset((a, b)) for a in these for b in others}
        self._refresh()

    def heal(self) -> None:
        """Undo every cut. Loss stays."""
        self._cut.clear()
        self._refresh()

    def lose(self, rate: float, random: Random) -> None:
        """From now on lose each request and each answer with probability `rate`, drawn from `random`."""
        self._loss, self._random = rate, random

    def crash(self, name: str) -> None:
        """End every transport of this name like a killed process: without a message."""
        for member in [member for peer, member in self._members.items() if peer.name == name]:
            member.end()

    # --- for the transports of the network only -----------------------------------------------------------------------

    def join(self, member: "MemoryTransport", name: str) -> Peer:
        """Add a transport. Returns its peer."""
        me = Peer(name, f"{next(self._sessions):016x}")
        self._members[me] = member
        self._refresh()
        return me

    def leave(self, me: Peer) -> None:
        """Remove a transport."""
        del self._members[me]
        self._refresh()

    def route(self, source: Peer | None, target: Peer) -> "MemoryTransport | None":
        """The transport of `target`, if `source` has a route; else None."""
        here, there = self._members.get(source) if source else None, self._members.get(target)
        if source is None or here is None or there is None or here.fleet != there.fleet or source == target:
            return None
        return None if frozenset((source.name, target.name)) in self._cut else there

    def reachable(self, source: Peer) -> frozenset[Peer]:
        """The peers with a route from `source` now."""
        return frozenset(peer for peer in self._members if self.route(source, peer))

    def lost(self) -> bool:
        """True if the present message is lost. Draws a random number."""
        return self._random is not None and self._random.random() < self._loss

    def _refresh(self) -> None:
        loop = asyncio.get_running_loop()
        for member in self._members.values():
            loop.call_soon(member.look)


class MemoryTransport:
    """A `Transport` on a `MemoryNetwork`; made by `MemoryNetwork.transport()`."""

    endpoints: tuple[str, ...] = ()

    def __init__(self, network: MemoryNetwork, answers_at_once: int) -> None:
        self._network = network
        self._answers_at_once = answers_at_once
        self._me: Peer | None = None
        self._handlers: HandlerTasks | None = None
        self._changed: PeerCallback | None = None
        self._peers: frozenset[Peer] = frozenset()
        self._waiting: dict[asyncio.Future[list[bytes]], None] = {}  # in order: the order of a set differs from run to run
        self.fleet = ""
        self.bytes_sent = 0
        self.bytes_received = 0
        self.refused = 0

    async def open(self, name: str, fleet: str, handler: Handler, changed: PeerCallback) -> Peer:
        """See `Transport.open`."""
        if self._me is not None:
            raise TransportError("this transport is open already; close it first")
        if not name or not fleet:
            raise TransportError("a node and its fleet need a name each; give both")
        self.fleet, self._changed = fleet, changed
        self._handlers = HandlerTasks(handler, self._answers_at_once)
        self._me = self._network.join(self, name)
        return self._me

    async def reopen(self) -> Peer:
        """See `Transport.reopen`."""
        if self._me is None or self._handlers is None:
            raise TransportError("this transport is not open; open it first")
        self._network.leave(self._me)
        self._handlers.cancel()
        self._give_up_waiting()
        asyncio.get_running_loop().call_soon(self._see, frozenset())
        self._me = self._network.join(self, self._me.name)
        return self._me

    async def request(self, peer: Peer, payload: bytes, timeout: float) -> list[bytes]:  # noqa: ASYNC109 - see Transport
        """See `Transport.request`."""
        check_payload(payload)
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[bytes]] = loop.create_future()
        self._waiting[answered] = None
        loop.call_soon(self._arrive, peer, payload, answered)
        self.bytes_sent += len(payload)
        try:
            async with asyncio.timeout(timeout):
                return await answered
        except TimeoutError:
            raise Unreachable(f"{peer.name} did not answer within {timeout:g} s") from None
        finally:
            del self._waiting[answered]

    def peers(self) -> frozenset[Peer]:
        """See `Transport.peers`."""
        return self._peers

    async def close(self) -> None:
        """See `Transport.close`."""
        handlers = self._handlers
        self.end()
        if handlers is not None:
            await handlers.wait()

    def end(self) -> None:
        """Leave at once, without a call to this side."""
        if self._me is not None:
            self._network.leave(self._me)
        if self._handlers is not None:
            self._handlers.cancel()
        self._me = self._handlers = self._changed = None
        self._peers = frozenset()
        self._give_up_waiting()

    def _give_up_waiting(self) -> None:
        for answered in self._waiting:
            if not answered.done():
                answered.set_exception(Unreachable("this transport closed before the answer came"))

    def look(self) -> None:
        """Take the present peers from the network."""
        if self._me is not None:
            self._see(self._network.reachable(self._me))

    def serve(self, payload: bytes, deliver: ReplyCallback) -> None:
        """Answer an arrived request."""
        me = self._me
        if self._handlers is None:
            deliver(None)
            return

        def send(replies: list[bytes] | None) -> None:
            if self._me == me:  # else the session ended meanwhile, and sends nothing any more
                self.bytes_sent += sum(map(len, replies or ()))
            deliver(replies)

        self.bytes_received += len(payload)
        self._handlers.begin(payload, send)

    def _see(self, now: frozenset[Peer]) -> None:
        """Change the view to `now` and tell the node the difference."""
        before, self._peers = self._peers, now
        for up, peers in ((False, before - now), (True, now - before)):
            for peer in sorted(peers):
                if self._changed is not None:  # an earlier callback may have ended this transport
                    self._changed(peer, up)

    def _arrive(self, peer: Peer, payload: bytes, answered: asyncio.Future[list[bytes]]) -> None:
        """The request is at the peer, or lost."""
        me, loop = self._me, asyncio.get_running_loop()

        def deliver(replies: list[bytes] | None) -> None:
            loop.call_soon(self._return, me, peer, replies, answered)

        there = self._network.route(me, peer)
        if there is None or self._network.lost():
            deliver(None)
        else:
            there.serve(payload, deliver)

    def _return(self, me: Peer | None, peer: Peer, replies: list[bytes] | None, answered: asyncio.Future[list[bytes]]) -> None:
        """The answer is back, or lost."""
        if answered.done():
            return
        if replies is None or self._network.route(me, peer) is None or self._network.lost():
            answered.set_exception(Unreachable(f"{peer.name} did not answer"))
        else:
            self.bytes_received += sum(map(len, replies))
            answered.set_result(replies)
