"""Transports that tests open, watch and wait on: by events with a deadline, never by sleeping."""

import asyncio
from collections.abc import Callable, Sequence

from constraint_crdt.transport import ANSWERS_AT_ONCE, Handler, MemoryNetwork, Peer, Transport
from constraint_crdt.transport.zenoh import ZenohTransport

DEADLINE = 15.0


async def echo(request: bytes, _: Peer | None) -> Sequence[bytes]:
    """Answer with the request."""
    return [request]


def always(*replies: bytes) -> Handler:
    """A handler that answers every request with `replies`."""

    async def answer(_request: bytes, _: Peer | None) -> Sequence[bytes]:
        return replies

    return answer


class Gate:
    """A handler that echoes, but holds its answers back while it is shut; and what became of its runs."""

    def __init__(self) -> None:
        self.entered: list[bytes] = []
        self.cancelled: list[bytes] = []
        self._open = asyncio.Event()
        self._moved = asyncio.Event()

    async def handler(self, request: bytes, _: Peer | None) -> Sequence[bytes]:
        self.entered.append(request)
        self._moved.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        return [request]

    def open(self) -> None:
        self._open.set()

    async def holds(self, number: int) -> None:
        """Wait until `number` requests have come in."""
        async with asyncio.timeout(DEADLINE):
            while len(self.entered) < number:
                self._moved.clear()
                await self._moved.wait()


class Seat:
    """One transport and what it was told of the others."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.changes: list[tuple[Peer, bool]] = []
        self.me = Peer("", "")
        self._told = asyncio.Event()

    def changed(self, peer: Peer, up: bool) -> None:
        self.changes.append((peer, up))
        self._told.set()

    async def open(self, name: str, *, fleet: str = "fleet", handler: Handler = echo) -> "Seat":
        self.me = await self.transport.open(name, fleet, handler, self.changed)
        return self

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds`, looking again at each change of the view."""
        async with asyncio.timeout(DEADLINE):
            while not holds():
                self._told.clear()
                await self._told.wait()

    async def sees(self, *others: "Seat") -> None:
        """Wait until the view is exactly `others`."""
        await self.until(lambda: self.transport.peers() == {other.me for other in others})

    async def sees_names(self, *names: str) -> None:
        await self.until(lambda: sorted(peer.name for peer in self.transport.peers()) == sorted(names))

    def peer(self, name: str) -> Peer:
        (found,) = [peer for peer in self.transport.peers() if peer.name == name]
        return found

    async def ask(self, other: "Seat", payload: bytes = b"?") -> list[bytes]:
        return await self.transport.request(other.me, payload, DEADLINE)


class Network:
    """Opens transports of one engine that find each other, and closes them all."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self.memory = MemoryNetwork()
        self.seats: list[Seat] = []

    def transport(self, answers_at_once: int = ANSWERS_AT_ONCE) -> Transport:
        if self.engine == "memory":
            return self.memory.transport(answers_at_once=answers_at_once)
        seeds = [seat.transport.endpoints for seat in self.seats if seat.transport.endpoints]
        return ZenohTransport(connect=seeds[0] if seeds else (), answers_at_once=answers_at_once)

    async def join(self, name: str, *, fleet: str = "fleet", handler: Handler = echo, transport: Transport | None = None) -> Seat:
        seat = Seat(transport or self.transport())
        self.seats.append(seat)
        return await seat.open(name, fleet=fleet, handler=handler)

    async def close(self) -> None:
        for seat in self.seats:
            await seat.transport.close()


async def all_see_all(*seats: Seat) -> None:
    for seat in seats:
        await seat.sees(*(other for other in seats if other is not seat))
