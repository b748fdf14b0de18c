"""The parts of a node for shared data beside constraints: tiles, counters, sketches, positions and PLATO rooms.

Rules: a read answers from the state of this node, connected or not. A write is a single transaction, and on disk when it returns.

The violations counted by this node are buffered here and written once per interval, so that frequent violations do not increase the
gossip of the sketch of violations. The answers of the node include the buffer. A killed node loses its buffer; the exact counts are
in the metrics.
"""

import asyncio
import builtins
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

from constraint_crdt.crdt.cells import Cell, split_key
from constraint_crdt.crdt.clock import Dot, Replica
from constraint_crdt.errors import ConstraintCrdtError, InvalidValue, UnknownName
from constraint_crdt.model import Event, EventKind
from constraint_crdt.operations.counts import (
    MAX_ITEMS,
    MAX_TOP,
    VIOLATIONS,
    InsertReport,
    SeenReport,
    TallyReport,
    TopItem,
    TopReport,
)
from constraint_crdt.operations.fleet import CounterReport, NodePosition, PositionReport
from constraint_crdt.operations.tiles import TileReport
from constraint_crdt.plato import PlatoAnswer, PlatoDelta, PlatoSubmission, PlatoTile
from constraint_crdt.plato.rooms import (
    ROOM_TILE,
    ContentHashes,
    apply_delta,
    check_clock,
    merge_tile,
    plato_answer,
    room_tile,
    submit_answer,
)
from constraint_crdt.protocol.gossip_node import GossipNode, Result
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import PNCounter
from constraint_crdt.types.sketch import BloomCRDT, Frequent, SketchCRDT, SketchShape
from constraint_crdt.types.tile_cells import CONTENT, DELETED, Place, eisenstein_norm, hex_distance
from constraint_crdt.types.tiles import FleetTile

DEFAULT_EXPECTED_ITEMS = 100_000
DEFAULT_FP_RATE = 0.01


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
        """A counter. Raises `KeyError` for a counter without a move known here."""
        if name not in self._gossip.state.counters:
            raise UnknownName(name, "counter")
        return _report(self._gossip.state.counters[name])

    async def move(self, name: str, by: int) -> CounterReport:
        """Move a counter up, or down by a negative number. The first move creates the counter.

        Raises `ValueError` for 0 and `ConstraintCrdtError` for a move out of bounds.
        """
        if not by:
            raise InvalidValue("a counter moves by a whole number other than 0")
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
    def waiting(self) -> int:
        """The constraints in the buffer."""
        return len(self._waiting)

    def write_waiting(self, most: int | None = None) -> None:
        """Write the buffer, of so many constraints at most. Refused violations stay in the buffer. A count near 2**63 saturates the
        sketch, and stops no other.
        """
        counts = dict(islice(self._waiting.items(), most))
        self._gossip.write(lambda me: self._violations.record_all(counts, node=me, saturate=True))
        for constraint in counts:
            del self._waiting[constraint]

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
            raise InvalidValue(f"the number of items must be from 1 to {MAX_TOP}, not {k}")
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


def report_of(tile: FleetTile) -> TileReport:
    """The report of a tile. O(its cells without pages)."""
    writer, counts = tile.writer, tile.metrics.total
    return TileReport(
        room=tile.room,
        id=tile.id,
        deleted=tile.deleted,
        size=tile.size,
        hash=tile.content_hash.hex(),
        author=tile.author,
        created=tile.created,
        updated=tile.updated,
        written_by=None if writer is None else writer.node_id,
        tags=list(tile.tags),
        constraints=list(tile.constraints),
        satisfied=counts.satisfied,
        violations=counts.violated,
        position=tile.position,
    )


class NodeTiles:
    """The tiles of a node: reads, writes, and events of changes."""

    def __init__(self, gossip: GossipNode, commit: Commit, publish: Callable[[Event], None]) -> None:
        """`publish` receives the events of `tell`."""
        self._gossip = gossip
        self._tiles = gossip.state.tiles
        self._commit = commit
        self._publish = publish
        self._touched: set[str] = set()
        self.waiting = False
        """True if changed tiles await their events."""
        self._waiting: OrderedDict[Place, None] = OrderedDict()
        """The queue of changed tiles."""
        self._listed: dict[Place, Dot] = {}
        """Each tile of a published event, with the dot of its content then."""
        for kind in (CONTENT, DELETED):
            gossip.state.rows.watch(kind, self._moved)

    # --- reading -------------------------------------------------------------------------------------------------------

    def get(self, room: str, id_: str) -> FleetTile:
        """A present tile. Raises `KeyError` without."""
        return self._tiles[room, id_]

    def rooms(self, prefix: str = "") -> list[str]:
        """The rooms with a tile, filtered by `prefix`, in order."""
        return self._tiles.rooms(prefix)

    def list(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> list[TileReport]:
        """The tiles of a room, or of all rooms with the prefix, in order; or those deleted and not purged yet."""
        return self.reports(self.places(room, prefix=prefix, deleted=deleted))

    def places(self, room: str | None = None, *, prefix: str = "", deleted: bool = False) -> "builtins.list[Place]":
        """The places of the tiles of `list`, in order."""
        tiles = self._tiles
        if deleted:
            places: Iterable[Place] = tiles.deleted()
        elif room is not None:
            places = [(room, tile.id) for tile in tiles.in_room(room)]
        else:
            places = [(each, tile.id) for each in tiles.rooms(prefix) for tile in tiles.in_room(each)]
        return sorted(place for place in places if room in (None, place[0]) and place[0].startswith(prefix))

    def reports(self, places: Iterable[Place]) -> "builtins.list[TileReport]":
        """The tiles at these places."""
        return [report_of(self._tiles.tile(*place)) for place in places]

    # --- writing -------------------------------------------------------------------------------------------------------

    async def put(
        self,
        room: str,
        id_: str,
        content: str | bytes,
        *,
        author: str | None = None,
        tags: Iterable[str] = (),
        constraints: Iterable[str] = (),
    ) -> TileReport:
        """Make this the content of a tile. Raises as `FleetTile.put` does."""
        tile = self._tiles.tile(room, id_)
        put = self._gossip.write
        await self._commit(lambda: put(lambda me: tile.put(content, node=me, author=author, tags=tags, constraints=constraints)))
        return report_of(tile)

    async def delete(self, room: str, id_: str) -> None:
        """Delete a tile, restorable until its purge. Raises `KeyError` for a missing tile."""
        tile = self.get(room, id_)
        await self._commit(lambda: self._gossip.write(lambda me: tile.delete(node=me)))

    async def restore(self, room: str, id_: str) -> TileReport:
        """Undo the deletion of a tile. Raises `KeyError` for a tile not deleted, or purged."""
        tile = self._tiles.tile(room, id_)
        if not tile.deleted:
            raise UnknownName((room, id_), "deleted tile")
        await self._commit(lambda: self._gossip.write(lambda me: tile.restore(node=me)))
        return report_of(tile)

    async def tag(self, room: str, id_: str, *tags: str, constraints: Iterable[str] = ()) -> TileReport:
        """Add tags and constraints to a tile. Raises as `FleetTile.edit` does, and `KeyError` for a missing tile."""
        return await self.edit(room, id_, add_tags=tags, add_constraints=constraints)

    async def untag(self, room: str, id_: str, *tags: str, constraints: Iterable[str] = ()) -> TileReport:
        """Take tags and constraints from a tile. Raises as `tag` does; nothing is taken then."""
        return await self.edit(room, id_, remove_tags=tags, remove_constraints=constraints)

    async def edit(
        self,
        room: str,
        id_: str,
        *,
        add_tags: Iterable[str] = (),
        remove_tags: Iterable[str] = (),
        add_constraints: Iterable[str] = (),
        remove_constraints: Iterable[str] = (),
    ) -> TileReport:
        """Add to the sets of a tile and remove from them, at once. Raises as `tag` does."""
        tile = self.get(room, id_)

        def edited(me: Replica) -> None:
            tile.edit(
                node=me,
                add_tags=add_tags,
                remove_tags=remove_tags,
                add_constraints=add_constraints,
                remove_constraints=remove_constraints,
            )

        await self._commit(lambda: self._gossip.write(edited))
        return report_of(tile)

    # --- events --------------------------------------------------------------------------------------------------------

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))
            self.waiting = True

    def tell(self, time: int, most: int | None = None, *, publish: bool = True) -> None:
        """Publish an event per changed tile, in the order of changes, by the state of the tile now. Without `publish` only record
        the changes.

        `most`: look at so many tiles only; there may be more as long as `waiting` is true.
        """
        touched, self._touched = self._touched, set()
        for place in sorted((parts[0], parts[1]) for key in touched if len(parts := split_key(key, 2)) == 2):
            self._waiting.setdefault(place)
        for _ in range(len(self._waiting) if most is None else min(most, len(self._waiting))):
            self._tell_of(self._waiting.popitem(last=False)[0], time, publish=publish)
        self.waiting = bool(self._waiting)

    def _tell_of(self, place: Place, time: int, *, publish: bool) -> None:
        content = self._tiles.content_dot(place)
        if content == self._listed.get(place):
            return
        if content is None:
            del self._listed[place]
        else:
            self._listed[place] = content
        if publish:
            kind = EventKind.TILE_DELETED if content is None else EventKind.TILE_PUT
            node = content.replica.node_id if content is not None else ""
            self._publish(Event(kind=kind, time=time, node=node, room=place[0], tile=place[1]))


LARGE = 16 * 1024
"""Bytes of a content from which on its hash is computed in a thread."""


SLICE = 64
"""Tiles read at a stretch; then the other tasks of the node have their turn."""


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

    async def newest(self, room: str | None = None) -> list[FleetTile]:
        """The tiles of a room, or of all rooms, from the newest creation to the oldest. Those of deltas are left out. O(tiles)."""
        tiles = self._state.tiles
        places = list(tiles) if room is None else [(room, tile.id) for tile in tiles.in_room(room)]
        found = []
        for number, place in enumerate(places):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            tile = tiles.get(place) if place[1] != ROOM_TILE else None
            if tile is not None:
                found.append((-tile.created, place, tile))
        return [tile for *_, tile in sorted(found, key=lambda each: each[:2])]

    async def answers(self, tiles: Iterable[FleetTile]) -> AsyncIterator[PlatoAnswer]:
        """Tiles as PLATO servers show them, each read at its turn. A tile whose content is not text is left out."""
        passed = 0
        for tile in tiles:
            passed += 1 + tile.size // LARGE
            if passed >= SLICE:
                passed = 0
                await asyncio.sleep(0)
            shown = plato_answer(tile) if tile.exists else None
            if shown is not None:
                yield shown

    async def submit(self, sent: PlatoSubmission) -> tuple[FleetTile, bool]:
        """Put an answer that `read_submission` returned. Its tile, and whether it is new.

        Raises `PlatoFieldError` for a timestamp from too far ahead, and beyond a limit; nothing changes then.
        """
        now = self._now()
        return await self._commit(lambda: self._gossip.write(lambda me: submit_answer(self._state, sent, me, now=now)))
