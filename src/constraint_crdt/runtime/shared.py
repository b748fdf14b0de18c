"""How the parts of a node write.

The counters of a node's fleet that go up and down: moving one, and what they stand at.

Where the fleet is, and where each node last said that it is.

The rooms of a running node as clients of the PLATO contract have them: reading them, and taking in what such clients send.

Reads answer from what the node knows, cut off or not. Each write is one transaction, and on disk when it returns.

A node's whole state as text, out and in.

Rules: the text is made and read in a thread, from cells that never change; what is taken in is applied on the loop, at one instant.
Taking in is a merge, as of what a peer sends: what is newer here stays, and it is on disk before anybody is told that it is in.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import msgspec

from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.plato.rooms import ContentHashes, apply_delta, check_clock, merge_tile, room_tile
from constraint_crdt.plato.shapes import PlatoDelta, PlatoTile
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.persistence import Keeping
from constraint_crdt.state import ConstraintState
from constraint_crdt.state_file import from_json, to_json
from constraint_crdt.types.counters import PNCounter
from constraint_crdt.types.register import Position, eisenstein_norm, hex_distance

Result = TypeVar("Result")


class Told(Protocol):
    """Write, tell others soon, and return once it is on disk. Raises `WritesRefused`, at best before anything happened."""

    def __call__(self, mutate: Callable[[], Result], /) -> Awaitable[Result]: ...


class CounterReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one counter stands at."""

    name: str
    value: int
    increments: int
    decrements: int
    by_node: dict[str, int]
    """What each node moved it by."""


class NodeCounters:
    """The counters, as one node sees and moves them."""

    def __init__(self, gossip: GossipNode, told: Told) -> None:
        self._gossip = gossip
        self._told = told

    def reports(self) -> list[CounterReport]:
        """All counters that were ever moved, ordered by name. O(cells of counters)."""
        counters = self._gossip.state.counters
        return [_report(counters[name]) for name in counters]

    def report(self, name: str) -> CounterReport:
        """One counter. Raises `KeyError` for one that nobody ever moved, as far as is known here."""
        if name not in self._gossip.state.counters:
            raise KeyError(name)
        return _report(self._gossip.state.counters[name])

    async def move(self, name: str, by: int) -> CounterReport:
        """Move a counter up, or down by a negative number. The first move begins it.

        Raises `ValueError` for 0 and `ConstraintCrdtError` for what is out of bounds.
        """
        if not by:
            raise ValueError("a counter moves by a whole number other than 0")
        counter = self._gossip.state.counters[name]
        move = counter.increment if by > 0 else counter.decrement
        await self._told(lambda: self._gossip.write(lambda me: move(abs(by), node=me)))
        return _report(counter)


def _report(counter: PNCounter) -> CounterReport:
    return CounterReport(
        name=counter.name,
        value=counter.value,
        increments=counter.increments,
        decrements=counter.decrements,
        by_node={node: moves.value for node, moves in counter.by_node().items()},
    )


class NodePosition(msgspec.Struct, frozen=True, kw_only=True):
    """The last position that one node wrote."""

    position: Position
    norm: int
    distance: int
    """Steps on the lattice from there to the fleet's position."""


class PositionReport(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's position, as far as there is one, and the nodes' own."""

    position: Position | None
    norm: int | None
    by: str | None
    """The node that wrote it."""
    time: int | None
    """When, in ns since the epoch by that node's clock."""
    nodes: dict[str, NodePosition]


def position_report(state: ConstraintState) -> PositionReport:
    """Where everybody is. O(rows with a position)."""
    register = state.register
    position = register.position
    return PositionReport(
        position=position,
        norm=register.norm,
        by=register.by,
        time=register.time,
        nodes={
            name: NodePosition(position=own, norm=eisenstein_norm(own), distance=hex_distance(own, position))
            for name, own in register.by_node.items()
            if position is not None
        },
    )


LARGE = 16 * 1024
"""Bytes of a content whose hash is made aside, so that the loop goes on."""


class NodePlato:
    """The rooms of one node."""

    def __init__(self, gossip: GossipNode, told: Told, now: Callable[[], int]) -> None:
        """`now`: the time in ns since the epoch."""
        self._gossip = gossip
        self._state = gossip.state
        self._told = told
        self._now = now
        self._hashes = ContentHashes()

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms that have a tile, those that begin with `prefix`, in order."""
        return self._state.tiles.rooms(prefix)

    def has_room(self, room: str) -> bool:
        """True if the room has a tile. O(its tiles)."""
        return bool(self._state.tiles.in_room(room))

    async def tiles(self, room: str) -> AsyncIterator[PlatoTile]:
        """The tiles of a room, in the order of their ids, each as it is at its turn. Those that are not text are left out."""
        for tile in self._state.tiles.in_room(room):
            if tile.size > LARGE and not self._hashes.knows(tile.content_hash):
                await asyncio.to_thread(self._hashes.of, tile.content_hash, tile.content)
            shown = room_tile(self._state, tile, self._hashes)
            if shown is not None:
                yield shown
            await asyncio.sleep(0)  # a room may have thousands

    async def take_tile(self, sent: PlatoTile) -> bool:
        """Merge a tile that was read by `plato.checking`. False if all of it was known.

        Raises `PlatoFieldError` for a tile from too far ahead of this node's clock, and beyond a limit; nothing changes then.
        """
        check_clock(sent, self._now())
        return await self._told(lambda: self._gossip.write(lambda me: merge_tile(self._state, sent, me)))

    async def take_delta(self, room: str, sent: PlatoDelta) -> bool:
        """Take in a delta that was read by `plato.checking`. False, and no effect, if its (node, seq) is known.

        Raises `PlatoFieldError` beyond a limit; nothing changes then.
        """
        return await self._told(lambda: self._gossip.write(lambda me: apply_delta(self._state, room, sent, me)))


class ImportReport(msgspec.Struct, frozen=True):
    """What taking a state in has changed."""

    changed: bool
    cells: int
    """Cells that were new here."""
    constraints: int
    """Constraints that were added, removed, or say something else now."""


class Portable:
    """The state of one node as text."""

    def __init__(
        self,
        gossip: GossipNode,
        keeping: Keeping,
        settle: Callable[[], int],
        received: Callable[[str, GossipResult], None],
        push: Callable[[], None],
    ) -> None:
        """`settle()` follows the definitions that moved, and returns how many; `received(from, result)` follows what was taken in;
        `push()` has peers hear of it.
        """
        self._gossip = gossip
        self._keeping = keeping
        self._settle = settle
        self._received = received
        self._push = push

    async def export(self) -> str:
        """The state of this instant. O(cells), most of it aside."""
        rows = self._gossip.state.rows
        return await asyncio.to_thread(_text, Rows(rows.digest, rows.limits), rows.whole())

    async def take_in(self, text: str | bytes, max_bytes: int) -> ImportReport:
        """Merge a state. Raises `StateFileError` for what is none, `ConstraintCrdtError` beyond a limit, and `WritesRefused`."""
        self._keeping.check()
        rows = self._gossip.state.rows
        incoming = await asyncio.to_thread(from_json, text, limits=rows.limits, max_bytes=max_bytes, digest=rows.digest)
        self._keeping.check()
        cells = sum(len(run.cells) for run in incoming.rows.since(rows.clock_mark.entries))
        result = self._gossip.merge(incoming)
        constraints = self._settle()
        self._received("a state file", result)
        if result.state_changed:
            self._push()
        await self._keeping.durable()
        return ImportReport(result.state_changed, cells if result.state_changed else 0, constraints)


def _text(rows: Rows, runs: Sequence[Run]) -> str:
    rows.apply(runs, whole=True)
    return to_json(ConstraintState(rows))
