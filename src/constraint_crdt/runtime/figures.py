"""LoopLag: how late the event loop runs what is due.

All of a node runs on one loop, so what holds it up (a long evaluation, a program that embeds the node and blocks) holds up gossip
and answers too. This is what that looks like from inside.

Figures: the numbers that a node counts beside its state, for whoever watches over it (`GET /metrics`).

Rules: reading them changes nothing and resets nothing, so that any number of readers see the same. What is in `Status` or in the
convergence report is not said here again.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from constraint_crdt.model.histogram import DurationHistogram
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import Tally
from constraint_crdt.runtime.events import EventKind, EventStream
from constraint_crdt.runtime.exchange_loop import Exchanger, Receipt
from constraint_crdt.runtime.persistence import Keeping

EVERY: Final = 0.5
"""Seconds between two looks."""

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures the loop that it runs on."""

    def __init__(self) -> None:
        self.durations = DurationHistogram(BOUNDS)
        """By how many seconds each look came too late."""

    async def run(self, every: float = EVERY) -> None:
        """Look for ever, each `every` seconds."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            self.durations.note(max(0.0, loop.time() - due))


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """How long something took."""

    bounds: tuple[float, ...]
    """Seconds."""
    up_to: tuple[int, ...]
    """How many did not exceed each bound; at the end: how many there were."""
    total: float
    """Seconds of all of them together."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a node counted since it started, unless said otherwise."""

    exchanges_begun: int
    exchanges_failed: int
    """Those whose peer did not answer."""
    requests_repeated: int
    """Those sent again since there was no answer."""
    messages_sent: int
    messages_received: int
    messages_refused: int
    learned_bytes: int
    """Bytes of the cells that came from peers and were new here: the least that had to be carried."""
    exchange_bytes: int
    """Bytes of all messages of the exchanges begun here that had a difference to carry."""
    exchange_difference_bytes: int
    """Bytes of the cells that these exchanges told or learned: the difference itself."""
    exchange_bytes_ratio: float | None
    """The first against the second: the median of the last exchanges that had a difference. None if none had."""
    violated_here: int
    """Active constraints that are violated on this node now."""
    expired: int
    """Constraints that have expired, and are not removed yet."""
    tiles: int
    """Tiles that are there now."""
    store_bytes: int
    """Bytes on disk now."""
    store_waiting: int
    """Writes and messages that wait for the next commit now."""
    commits: Histogram | None
    """How long commits took; None without a store."""
    loop_lag: Histogram
    """How late the event loop ran what was due."""
    events: dict[EventKind, int]
    """How many events there were, by kind."""


class NodeFigures:
    """The figures of one node."""

    def __init__(
        self, gossip: GossipNode, exchanger: Exchanger, tally: Tally, keeping: Keeping, events: EventStream, lag: LoopLag
    ) -> None:
        self._gossip = gossip
        self._exchanger = exchanger
        self._tally = tally
        self._keeping = keeping
        self._events = events
        self._lag = lag

    def report(self) -> Figures:
        """The figures now. O(constraints that expired)."""
        exchanger, keeping, state = self._exchanger, self._keeping, self._gossip.state
        return Figures(
            exchanges_begun=exchanger.begun,
            exchanges_failed=exchanger.failed,
            requests_repeated=exchanger.repeated,
            messages_sent=exchanger.sent,
            messages_received=exchanger.received,
            messages_refused=exchanger.refused,
            learned_bytes=exchanger.learned_bytes,
            exchange_bytes=exchanger.receipts.carried,
            exchange_difference_bytes=exchanger.receipts.difference,
            exchange_bytes_ratio=exchanger.receipts.ratio,
            violated_here=self._tally.violated,
            expired=len(state.constraints.expired_ids),
            tiles=len(state.tiles),
            store_bytes=keeping.size,
            store_waiting=keeping.waiting,
            commits=None if keeping.commits is None else _histogram(keeping.commits),
            loop_lag=_histogram(self._lag.durations),
            events=dict(self._events.counts),
        )

    def receipts(self) -> Sequence[Receipt]:
        """What the last exchanges that this node began cost, the latest at the end."""
        return self._exchanger.receipts.last


def _histogram(durations: DurationHistogram) -> Histogram:
    return Histogram(bounds=durations.bounds, up_to=tuple(durations.up_to()), total=durations.total)
