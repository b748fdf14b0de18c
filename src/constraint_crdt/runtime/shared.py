"""The parts of a node for shared data beside constraints and tiles: counters, sketches, positions, PLATO rooms, whole states.

Rules: a read answers from the state of this node, connected or not. A write is one transaction, and on disk when it returns.

The violations that this node counts are buffered here and written once per interval, so that the sketch of violations costs the
fleet no more gossip the more often constraints are violated. The node's own answers include the buffer. A node that is killed
loses it: the exact counts are in the metrics.

A state file is encoded and parsed in a thread, from cells that never change, and merged on the loop, at one instant: newer data
here stays, and the merge is on disk before the import returns.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from constraint_crdt.crdt.cells import Run
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.operations.fleet import CounterReport, NodePosition, PositionReport
from constraint_crdt.operations.service import ImportReport
from constraint_crdt.operations.sketches import (
    MAX_ITEMS,
    MAX_TOP,
    VIOLATIONS,
    InsertReport,
    SeenReport,
    TallyReport,
    TopItem,
    TopReport,
)
from constraint_crdt.plato.rooms import ContentHashes, apply_delta, check_clock, merge_tile, room_tile
from constraint_crdt.plato.shapes import PlatoDelta, PlatoTile
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.state import ConstraintState
from constraint_crdt.state_file import from_json, to_json
from constraint_crdt.types.bloom import BloomCRDT
from constraint_crdt.types.counters import PNCounter
from constraint_crdt.types.register import eisenstein_norm, hex_distance
from constraint_crdt.types.sketch import Frequent, SketchCRDT, SketchShape

DEFAULT_EXPECTED_ITEMS = 100_000
DEFAULT_FP_RATE = 0.01

Result = TypeVar("Result")


class Commit(Protocol):
    """Apply a mutation, have peers learn of it soon, and return once it is on disk. Raises `WritesRefused`."""

    def __call__(self, mutate: Callable[[], Result], /) -> Awaitable[Result]: ...


class NodeCounters:
    """The counters of a fleet on this node."""

    def __init__(self, gossip: GossipNode, commit: Commit) -> None:
        self._gossip = gossip
        self._commit = commit

    def reports(self) -> list[CounterReport]:
        """All counters with a move, ordered by name. O(cells of counters)."""
        counters = self._gossip.state.counters
        return [_report(counters[name]) for name in counters]

    def report(self, name: str) -> CounterReport:
        """A counter. Raises `KeyError` for one without a move known here."""
        if name not in self._gossip.state.counters:
            raise KeyError(name)
        return _report(self._gossip.state.counters[name])

    async def move(self, name: str, by: int) -> CounterReport:
        """Move a counter up, or down by a negative number. The first move creates the counter.

        Raises `ValueError` for 0 and `ConstraintCrdtError` for a move out of bounds.
        """
        if not by:
            raise ValueError("a counter moves by a whole number other than 0")
        counter = self._gossip.state.counters[name]
        move = counter.increment if by > 0 else counter.decrement
        await self._commit(lambda: self._gossip.write(lambda me: move(abs(by), node=me)))
        return _report(counter)


def _report(counter: PNCounter) -> CounterReport:
    return CounterReport(
        name=counter.name,
        value=counter.value,
        increments=counter.increments,
        decrements=counter.decrements,
        by_node={node: moves.value for node, moves in counter.by_node().items()},
    )


class NodeSketches:
    """The sketches and Bloom filters of a node."""

    def __init__(self, gossip: GossipNode, commit: Commit) -> None:
        self._gossip = gossip
        self._commit = commit
        self._violations: SketchCRDT = gossip.state.sketches.view(VIOLATIONS, SketchShape.default())
        self._waiting: dict[str, int] = {}

    # --- the node's own violations - -------------------------------------------------------------------------------------

    def note(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Buffer the violations among these (satisfied, violated) counts by constraint."""
        for constraint, (_, violated) in counts.items():
            if constraint is not None and violated:
                self._waiting[constraint] = self._waiting.get(constraint, 0) + violated

    @property
    def waiting(self) -> bool:
        """True if the buffer is not empty."""
        return bool(self._waiting)

    def write_waiting(self) -> None:
        """Write the buffer. What cannot be written stays in it."""
        self._gossip.write(lambda me: self._violations.record_all(self._waiting, node=me))
        self._waiting = {}

    # --- how often -------------------------------------------------------------------------------------------------------

    async def record(self, name: str, counts: Mapping[str, int]) -> TallyReport:
        """Count items in the sketch of this name, which the first record begins, with the usual dimensions.

        Raises as `SketchCRDT.record_all` does, and `ConstraintCrdtError` for too many at once and for `violations`.
        """
        if name == VIOLATIONS:
            raise ConstraintCrdtError(
                f"the sketch {VIOLATIONS} is what nodes count themselves: record a violation, or name another"
            )
        _check_number(len(counts))
        state = self._gossip.state
        sketch = state.sketches[name] if name in state.sketches else state.sketch(name)
        await self._commit(lambda: self._gossip.write(lambda me: sketch.record_all(counts, node=me)))
        return TallyReport(name=name, recorded=sum(counts.values()), total=sketch.total)

    def top(self, k: int = 10, of: str = VIOLATIONS) -> TopReport:
        """The `k` most frequent items of a sketch.

        Raises `KeyError` for an unknown sketch, and `ValueError` for a `k` out of bounds.
        """
        if not 1 <= k <= MAX_TOP:
            raise ValueError(f"the number of items must be from 1 to {MAX_TOP}, not {k}")
        own = of == VIOLATIONS
        sketch = self._violations if own else self._gossip.state.sketches[of]
        waiting = self._waiting if own else {}
        total = sketch.total + sum(waiting.values())
        found = {each.item: each for each in sketch.top(k)} | {item: sketch.about(item) for item in waiting}
        reports = [self._item(sketch, each, waiting.get(each.item, 0), total, own=own) for each in found.values()]
        reports.sort(key=lambda report: (-report.estimate, report.item))
        return TopReport(
            of=of,
            total=total,
            error_bound=sketch.error_bound,
            delta=sketch.delta,
            saturated=sketch.saturated,
            writers=sketch.writers,
            items=tuple(reports[:k]),
        )

    def _item(self, sketch: SketchCRDT, found: Frequent, waiting: int, total: int, *, own: bool) -> TopItem:
        state, estimate = self._gossip.state, found.estimate + waiting
        return TopItem(
            item=found.item,
            estimate=estimate,
            lower=found.at_least + waiting,
            upper=None if sketch.saturated else estimate,
            share=estimate / total,
            exact=state.metrics.constraint_violations(found.item) if own and found.item in state.constraints else None,
        )

    # --- whether ever ----------------------------------------------------------------------------------------------------

    async def insert(
        self, name: str, items: Sequence[str], *, expected_items: int | None = None, fp_rate: float | None = None
    ) -> InsertReport:
        """Put items into the Bloom filter of this name, which the first insertion begins; by default for 100,000 items at 1 %.

        Raises `ConstraintCrdtError` for too many at once, for invalid text, and for dimensions other than those of the filter.
        """
        _check_number(len(items))
        state = self._gossip.state
        if name in state.blooms and expected_items is None and fp_rate is None:
            bloom = state.blooms[name]
        else:
            expected = DEFAULT_EXPECTED_ITEMS if expected_items is None else expected_items
            bloom = state.bloom(name, expected, DEFAULT_FP_RATE if fp_rate is None else fp_rate)
        new = await self._commit(lambda: self._gossip.write(lambda me: bloom.insert_all(items, node=me)))
        return InsertReport(name=name, items=len(items), new=new, fpr=bloom.estimated_fpr)

    def seen(self, name: str, item: str) -> SeenReport:
        """Membership of an item, from the insertions known here. Raises `KeyError` for an unknown filter."""
        bloom: BloomCRDT = self._gossip.state.blooms[name]
        return SeenReport(name=name, item=item, seen=item in bloom, fpr=bloom.estimated_fpr)


def _check_number(items: int) -> None:
    if items > MAX_ITEMS:
        raise ConstraintCrdtError(f"{items} items are more than the {MAX_ITEMS} taken at once: send them in several goes")


def position_report(state: ConstraintState) -> PositionReport:
    """The position of the fleet and of each node. O(rows with a position)."""
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
"""Bytes of a content from which on its hash is computed in a thread."""


class NodePlato:
    """The rooms of a node, as clients of the PLATO contract read and write them."""

    def __init__(self, gossip: GossipNode, commit: Commit, now: Callable[[], int]) -> None:
        """`now`: the time in ns since the epoch."""
        self._gossip = gossip
        self._state = gossip.state
        self._commit = commit
        self._now = now
        self._hashes = ContentHashes()

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms with a tile, filtered by `prefix`, in order."""
        return self._state.tiles.rooms(prefix)

    def has_room(self, room: str) -> bool:
        """True if the room has a tile. O(its tiles)."""
        return bool(self._state.tiles.in_room(room))

    async def tiles(self, room: str) -> AsyncIterator[PlatoTile]:
        """The tiles of a room, in the order of their ids, each read at its turn. A tile whose content is not text is left out."""
        for tile in self._state.tiles.in_room(room):
            if tile.size > LARGE and not self._hashes.knows(tile.content_hash):
                await asyncio.to_thread(self._hashes.of, tile.content_hash, tile.content)
            shown = room_tile(self._state, tile, self._hashes)
            if shown is not None:
                yield shown
            await asyncio.sleep(0)  # a room may have thousands

    async def take_tile(self, sent: PlatoTile) -> bool:
        """Merge a tile that `read_tile` returned. False if all of it was known.

        Raises `PlatoFieldError` for a tile from too far ahead of this node's clock, and beyond a limit; nothing changes then.
        """
        check_clock(sent, self._now())
        return await self._commit(lambda: self._gossip.write(lambda me: merge_tile(self._state, sent, me)))

    async def take_delta(self, room: str, sent: PlatoDelta) -> bool:
        """Apply a delta that `read_delta` returned. False, and no effect, if its (node, seq) is known.

        Raises `PlatoFieldError` beyond a limit; nothing changes then.
        """
        return await self._commit(lambda: self._gossip.write(lambda me: apply_delta(self._state, room, sent, me)))


class StateFiles:
    """The whole state of a node, exported to and merged from state files."""

    def __init__(
        self,
        gossip: GossipNode,
        keeping: Persistence,
        received: Callable[[str, GossipResult], int],
        push: Callable[[], None],
    ) -> None:
        """`received(from, result)` tells the node of a merge, and returns the number of constraints that changed; `push()` has
        peers hear of it.
        """
        self._gossip = gossip
        self._keeping = keeping
        self._received = received
        self._push = push

    async def export(self) -> str:
        """The state of this instant. O(cells), most of it in a thread."""
        rows = self._gossip.state.rows
        return await asyncio.to_thread(_text, Rows(rows.digest, rows.limits), rows.whole())

    async def merge(self, text: str | bytes, max_bytes: int) -> ImportReport:
        """Merge a state. Raises `StateFileError` for invalid text, `ConstraintCrdtError` beyond a limit, and `WritesRefused`."""
        self._keeping.check()
        rows = self._gossip.state.rows
        incoming = await asyncio.to_thread(from_json, text, limits=rows.limits, max_bytes=max_bytes, digest=rows.digest)
        self._keeping.check()
        cells = sum(len(run.cells) for run in incoming.rows.since(rows.clock_mark.entries))
        result = self._gossip.merge(incoming)
        constraints = self._received("a state file", result)
        if result.state_changed:
            self._push()
        await self._keeping.durable()
        return ImportReport(result.state_changed, cells if result.state_changed else 0, constraints)


def _text(rows: Rows, runs: Sequence[Run]) -> str:
    rows.apply(runs, whole=True)
    return to_json(ConstraintState(rows))
