"""The in-memory transport: any number of transports on a single event loop, with faults for tests.

Deterministic: every step is a `call_soon`, sessions are counted, and loss draws from a given generator. Replies are sent in the
order in which handlers end. A message lost or without a route fails its request at once, so tests need no timeouts.
"""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random

from constraint_crdt.transport import (
    ANSWERS_AT_ONCE,
    Handler,
    HandlerTasks,
    Peer,
    PeerCallback,
    ReplyCallback,
    TransportError,
    Unreachable,
    check_answers_at_once,
    check_payload,
)


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

    async def reopen(self, extra_connect: Sequence[str] = ()) -> Peer:  # noqa: ARG002 - memory has no endpoints
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
