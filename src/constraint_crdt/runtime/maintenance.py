"""Maintenance: the periodic work of a node, and the background tasks that run it.

- *Expiry.* A constraint has expired when the clock of the reading node passes its end; each node reads this independently
  (`types.orset`). Maintenance publishes the expiry, and removes the cells later. The protocol decides which node removes the cells,
  and when.
- *Folding.* A node has a cell in its row for each constraint with counts. When a constraint has been inactive for a while, the node
  adds its own counts of the constraint to the total of the node. Totals stay exact; the split by constraint is lost.
- *Purging.* A deleted tile keeps its content, so that the deletion can be undone. Later the deleting node removes the cells, or, if
  gone, another node after twice the time. Two nodes may purge at once.
- *Dropping removals.* A removal is dropped at once when every live peer gave evidence of having it. Until then it is kept, to spare
  peers a Sync of the whole state, up to a number and an age. The bounds affect cost, never correctness.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from math import ceil
from zlib import crc32

from constraint_crdt.crdt.cells import REMOVE, Cell
from constraint_crdt.crdt.clock import DEFAULT_HEARD_FOR, SECOND, ClockDoubt, Dot, HybridClock, Replica
from constraint_crdt.insight.diagnosis import show_doubt
from constraint_crdt.insight.history import NodeRates
from constraint_crdt.model import EventKind
from constraint_crdt.operations.nodes import Holding
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.types.counters import COUNTS, SECONDS, seconds_value
from constraint_crdt.types.tile_cells import Place
from constraint_crdt.types.tiles import FleetTile

ADDS_AT_ONCE = 1_000
"""Adds of expired constraints removed in a turn of the loop."""

EXPIRE_EVERY = 0.2
STEPS_EVERY = 1.0
"""Seconds between two looks for expired constraints to publish, while any has an end, as time may be set; and between two looks for
steps of the clock otherwise. Readings are exact at any time.
"""

HEARINGS = 10
"""The clock of a peer counts for this number of mean times between two Pings. With fewer, clocks would be lost by chance."""

LONGEST_HEARD_FOR = 60 * SECOND
"""The bound of this time, in ns: a partitioned node is to use its own clock soon."""

TURNS_AT_REST = 2
LONGEST_AT_REST = 480 * SECOND
AGED = 0.95
"""At rest the rounds ask all peers in turn: the clock of a peer counts for so many turns of all, up to so many ns. Without links
to its peers a node is not at rest, and this time becomes shorter by this factor each second.
"""

REMOVE_EVERY = 1.0
"""Seconds between two sweeps of expired constraints."""

_log = logging.getLogger("constraint_crdt.node")


class FoldSweep:
    """Finds the constraints whose counts and times are to be folded."""

    def __init__(self, gossip: GossipNode, *, after: float, now: Callable[[], float]) -> None:
        """`after`: seconds for which a constraint has to be inactive. `now`: monotonic seconds."""
        self._gossip = gossip
        self._after = after
        self._now = now
        self._gone: dict[str, float] = {}

    def due(self) -> list[str]:
        """The constraints to fold now. O(cells of this node's row)."""
        gossip, now = self._gossip, self._now()
        own = [cell for cell in gossip.state.rows.above(gossip.replica, 0) if cell.kind in (COUNTS, SECONDS) and cell.key]
        counted = {cell.key for cell in own if cell.kind == COUNTS or any(seconds_value(cell))}  # folded times leave an empty cell
        gone = {str(key) for key in counted if key not in gossip.state.constraints}
        self._gone = {id_: self._gone.get(id_, now) for id_ in gone}
        return sorted(id_ for id_, since in self._gone.items() if now - since >= self._after)


TILES_AT_ONCE = 200
"""Tiles purged in a turn of the loop. Of the largest tiles, they take some tenths of a second."""


class PurgeSweep:
    """Finds and purges the tiles deleted long enough ago."""

    def __init__(self, gossip: GossipNode, *, after: float) -> None:
        """`after`: seconds for which the deleting node keeps a tile."""
        self._gossip = gossip
        self._after = int(after * 1e9)

    def due(self) -> list[Place]:
        """The tiles to purge now, `TILES_AT_ONCE` at most; none while the clock is in doubt. O(tiles)."""
        tiles = self._gossip.state.tiles
        if self._gossip.time.in_doubt:
            return []
        return [place for place in tiles.deleted() if self._is_due(place)][:TILES_AT_ONCE]

    def purge(self, places: list[Place]) -> None:
        """Remove all cells of these tiles."""
        for place in places:
            tile = self._gossip.state.tiles.tile(*place)
            self._gossip.write(partial(_purge, tile))

    def _is_due(self, place: Place) -> bool:
        """By the latest deletion, which may be undone until then."""
        gossip = self._gossip
        deletion = gossip.state.tiles.tile(*place).deletion
        if deletion is None:
            return False
        age = gossip.state.now() - deletion.time
        return age >= (self._after if deletion.by.node_id == gossip.node_id else 2 * self._after)


def _purge(tile: FleetTile, me: Replica) -> None:
    tile.purge(node=me)


class RemovalSweep:
    """Drops removals: those known to all live peers, and those beyond the bounds."""

    def __init__(self, gossip: GossipNode, *, most: int, longest: float, now: Callable[[], float]) -> None:
        """`most`: removals kept for peers lacking them. `longest`: seconds for which a removal is kept. `now`: monotonic
        seconds.
        """
        self._gossip = gossip
        self._most = most
        self._longest = longest
        self._now = now
        self._since: OrderedDict[Dot, float] = OrderedDict()
        self.dropped = {"acknowledged": 0, "size": 0, "age": 0}
        """Removals dropped, by reason."""
        rows = gossip.state.rows
        rows.watch(REMOVE, self._changed)
        for cell in rows.each(REMOVE):
            self._changed(None, cell)

    def _changed(self, old: Cell | None, new: Cell | None) -> None:
        if old is not None:
            self._since.pop(Dot(old.replica, old.seq), None)
        if new is not None:
            self._since[Dot(new.replica, new.seq)] = self._now()

    def __len__(self) -> int:
        """The number of removals held."""
        return len(self._since)

    def step(self, live: Iterable[str]) -> str:
        """Drop removals. Returns the reason for dropping removals lacking at a live peer, else "". O(removals x live peers)."""
        if not self._since:
            return ""
        live = list(live)
        if live:  # without live peers there is no evidence, and every peer may lack them
            self.dropped["acknowledged"] += self._gossip.collect(live)
        reason = "size" if len(self._since) > self._most else "age" if self._oldest() > self._longest else ""
        if reason:
            self.dropped[reason] += self._gossip.collect()
        return reason

    def _oldest(self) -> float:
        return self._now() - next(iter(self._since.values())) if self._since else 0.0

    def holding(self, live: Iterable[str]) -> list[Holding]:
        """The live peers lacking removals, with number, bytes and age. O(removals x live peers)."""
        found = []
        for node_id in sorted(live):
            clock = self._gossip.tracker.clock(node_id)
            held = [dot for dot in self._since if clock is None or clock[dot.replica] < dot.seq]
            if held:
                longest = self._now() - min(self._since[dot] for dot in held)
                found.append(Holding(node=node_id, removals=len(held), bytes=sum(map(self._size, held)), seconds=longest))
        return found

    def _size(self, dot: Dot) -> int:
        cell = self._gossip.state.rows.get(REMOVE, dot.seq, dot.replica)
        return len(cell.data) if cell is not None else 0


LOOKS = 3
"""Looks in a row at which the doubt about a clock began or ended before this is told."""


class ClockWatch:
    """Tells of the steps of this node's clock, and of doubts about it."""

    def __init__(self, time: HybridClock, publish: Callable[..., None]) -> None:
        """`publish`: see `EventPublisher.publish`."""
        self._time = time
        self._publish = publish
        self._told: ClockDoubt | None = None
        self._looks = 0

    def note_steps(self) -> None:
        """Tell of the steps since the last call."""
        for step in self._time.take_steps():
            self.tell_step(step)

    def tell_step(self, step: int, when: str = "") -> None:
        """Tell of a step, in ns. `when`: the end of the sentence."""
        _log.warning("the clock of this machine was set by %+.1f s%s", step / SECOND, when)
        self._publish(EventKind.CLOCK_STEPPED, detail=f"{step / SECOND:+.1f} s{when}")

    def note_doubt(self) -> None:
        """Tell of a doubt that began or ended some looks ago. O(peers)."""
        doubt, told = self._time.doubt, self._told
        if (doubt is None) is (told is None) and (doubt is None or told is None or doubt.agreed is told.agreed):
            self._looks = 0
            return
        self._looks += 1
        if self._looks < LOOKS:
            return
        self._looks, self._told = 0, doubt
        if doubt is None:
            _log.info("the clock of this machine agrees with most of the others again")
            self._publish(EventKind.CLOCK_TRUSTED)
        else:
            detail = show_doubt(doubt)
            _log.warning("the clock of this machine is in doubt: %s", detail)
            self._publish(EventKind.CLOCK_DOUBTED, detail=detail)


class Maintenance:
    """Runs the maintenance of a node."""

    def __init__(
        self,
        settings: NodeSettings,
        gossip: GossipNode,
        persistence: Persistence,
        feed: ChangeFeed,
        exchanges: ExchangeLoop,
        rates: NodeRates,
        publish: Callable[..., None],
        has_ends: asyncio.Event,
    ) -> None:
        """`publish` and `has_ends`: see `EventPublisher`."""
        self.clock = ClockWatch(gossip.time, publish)
        """The steps of this node's clock."""
        self._gossip = gossip
        self._persistence = persistence
        self._feed = feed
        self._exchanges = exchanges
        self._rates = rates
        self._gossip_every = settings.gossip_every
        self._has_ends = has_ends
        self._folds = FoldSweep(gossip, after=settings.fold_counts_after, now=time.monotonic)
        self._purges = PurgeSweep(gossip, after=settings.keep_deleted_tiles_for)
        self.removals = RemovalSweep(gossip, most=settings.keep_removals, longest=settings.keep_removals_for, now=time.monotonic)
        """The removals in the state of the node."""

    async def run_expiries(self) -> None:
        """Call `expire` every `EXPIRE_EVERY` seconds while a constraint has an end, else every `STEPS_EVERY`. Never returns."""
        constraints = self._gossip.state.constraints
        while True:
            if constraints.ends:
                await asyncio.sleep(EXPIRE_EVERY)
            else:
                self._has_ends.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(STEPS_EVERY):
                        await self._has_ends.wait()
            await self.expire()

    async def expire(self) -> None:
        """Publish steps of the clock, expired constraints, and constraints in force again. O(those)."""
        self.clock.note_steps()
        ids, switches = self._gossip.state.constraints.take_expiry_changes(), self._gossip.state.switches
        if ids or switches.has_turned:
            self._feed.elapse(ids)

    async def remove_expired(self) -> None:
        """Remove the expired adds assigned to this node. O(those, and peers)."""
        time = self._gossip.time
        self.clock.note_doubt()
        clocks, interval = len(time.offsets), self._exchanges.interval
        wanted = min(round(HEARINGS * self._gossip_every * clocks * SECOND), LONGEST_HEARD_FOR)
        if interval.is_long:
            wanted = max(wanted, min(round(TURNS_AT_REST * interval.seconds * clocks * SECOND), LONGEST_AT_REST))
        # After a rest the clocks heard before it count on, until their peers are heard again.
        time.heard_for = max(DEFAULT_HEARD_FOR, wanted, round(AGED * time.heard_for))
        while self._feed.writable and self._feed.write(lambda: self._gossip.remove_expired(limit=ADDS_AT_ONCE)):
            self._exchanges.push()
            await asyncio.sleep(0)  # lets other tasks run; nothing is waited for

    async def fold(self) -> None:
        """Fold the counts and rates of constraints inactive for long enough."""
        ids = self._folds.due()
        if ids and self._feed.writable:
            self._feed.write(lambda: self._gossip.fold(ids))
            self._feed.write(lambda: self._rates.fold(ids))

    async def purge(self) -> None:
        """Purge the tiles deleted long enough ago."""
        places = self._purges.due()
        if places and self._feed.writable:
            self._feed.write(lambda: self._purges.purge(places))

    async def drop_removals(self) -> None:
        """Drop removals, see `RemovalSweep`."""
        reason = self.removals.step(self._exchanges.live)
        if reason:
            behind = ", ".join(each.node for each in self.removals.holding(self._exchanges.live)) or "nodes that are away"
            _log.info("dropped removals by %s that not all have heard of: %s will need a Sync", reason, behind)
        self._persistence.touch()


PAUSE = 1.0
"""Seconds before a background task continues after a fault."""


class Tasks:
    """The background tasks of a node. The fault of a task is logged, and the task continues after `PAUSE`; the others go on.

    Steps at intervals of whole seconds fall on the same instants, one in a second, so the loop wakes up once for all of them. The
    instants of two nodes differ.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._phase = crc32(node.encode(errors="surrogatepass")) / 2**32
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Run `activity`, which never returns, until `stop`."""
        self._start(name, self._supervised(name, activity))

    def repeat(self, name: str, every: float, step: Callable[[], Awaitable[None]]) -> None:
        """Call `step` repeatedly, `every` seconds after the last call ended."""

        async def steps() -> None:
            await self.pause(every, first=True)
            while True:
                await step()
                await self.pause(every)

        self.run(name, steps)

    async def pause(self, seconds: float, *, first: bool = False) -> float:
        """Sleep so long; whole seconds until the instant nearest to their end, or, `first`, the next after it. Returns by how many
        seconds it took longer.
        """
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if seconds >= 1 and seconds == int(seconds):
            due = (ceil if first else round)(due - self._phase) + self._phase
        await asyncio.sleep(due - loop.time())
        return max(0.0, loop.time() - due)

    def once(self, name: str, activity: Coroutine[object, object, None]) -> None:
        """Run `activity` once."""
        self._start(name, activity)

    def _start(self, name: str, activity: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(activity, name=f"{self._node} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervised(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await activity()
            except Exception:
                _log.exception("%s: a fault in %s, which goes on in a second", self._node, name)
                await asyncio.sleep(PAUSE)

    async def stop(self) -> bool:
        """Cancel all tasks and wait for them. Returns False if there were none."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return bool(tasks)
