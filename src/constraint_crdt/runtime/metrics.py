"""The counters and gauges of a running node, for `GET /metrics`.

Reading resets nothing, so any number of readers see the same values. The values of `Status` and of the convergence report are not
repeated here.

The lag of the event loop is the delay of due tasks. All of a node runs on one loop, so a long evaluation, or a blocking program
around the node, delays gossip and answers by as much.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from constraint_crdt.model import DurationHistogram, EventKind
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.evaluation import EvaluationCounts
from constraint_crdt.runtime.events import EventStream
from constraint_crdt.runtime.exchange_loop import ExchangeLoop, Receipt
from constraint_crdt.runtime.persistence import Persistence

EVERY: Final = 0.5
"""Seconds between two measurements."""

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Measures the lag of the event loop."""

    def __init__(self) -> None:
        self.durations = DurationHistogram(BOUNDS)
        """The lag of each measurement, in seconds."""

    async def run(self, every: float = EVERY) -> None:
        """Measure every `every` seconds. Never returns."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + every
            await asyncio.sleep(every)
            self.durations.note(max(0.0, loop.time() - due))


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram of durations."""

    bounds: tuple[float, ...]
    """Seconds."""
    up_to: tuple[int, ...]
    """The number of durations up to each bound; last, the number of all."""
    total: float
    """The sum of all durations, in seconds."""


class MetricsReport(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start of the node and, where said, values now."""

    exchanges_begun: int
    exchanges_failed: int
    """Exchanges whose peer did not answer."""
    requests_repeated: int
    """Requests repeated for lack of an answer."""
    messages_sent: int
    messages_received: int
    messages_refused: int
    learned_bytes: int
    """Bytes of cells from peers new here: the minimum to transfer."""
    exchange_bytes: int
    """Bytes of all messages of the exchanges begun here with a difference."""
    exchange_difference_bytes: int
    """Bytes of the cells sent or received in these exchanges: the difference."""
    exchange_bytes_ratio: float | None
    """Bytes carried per byte of difference: the median of the last exchanges with a difference; None without any."""
    violated_here: int
    """Active constraints violated on this node now."""
    expired: int
    """Expired constraints not removed yet."""
    tiles: int
    """Tiles now."""
    store_bytes: int
    """Bytes on disk now."""
    store_waiting: int
    """Writes and messages waiting for the next commit now."""
    commits: Histogram | None
    """How long commits took; None without a store."""
    loop_lag: Histogram
    """The lag of the event loop."""
    events: dict[EventKind, int]
    """How many events there were, by kind."""


class RuntimeMetrics:
    """The metrics of a node."""

    def __init__(
        self,
        gossip: GossipNode,
        exchanges: ExchangeLoop,
        counts: EvaluationCounts,
        persistence: Persistence,
        events: EventStream,
        lag: LoopLag,
    ) -> None:
        self._gossip = gossip
        self._exchanges = exchanges
        self._counts = counts
        self._persistence = persistence
        self._events = events
        self._lag = lag

    def report(self) -> MetricsReport:
        """The metrics now. O(constraints that expired)."""
        exchanges, persistence, state = self._exchanges, self._persistence, self._gossip.state
        return MetricsReport(
            exchanges_begun=exchanges.begun,
            exchanges_failed=exchanges.failed,
            requests_repeated=exchanges.repeated,
            messages_sent=exchanges.sent,
            messages_received=exchanges.received,
            messages_refused=exchanges.refused,
            learned_bytes=exchanges.learned_bytes,
            exchange_bytes=exchanges.receipts.carried,
            exchange_difference_bytes=exchanges.receipts.difference,
            exchange_bytes_ratio=exchanges.receipts.ratio,
            violated_here=self._counts.violated,
            expired=len(state.constraints.expired_ids),
            tiles=len(state.tiles),
            store_bytes=persistence.size,
            store_waiting=persistence.waiting,
            commits=None if persistence.commits is None else _histogram(persistence.commits),
            loop_lag=_histogram(self._lag.durations),
            events=dict(self._events.counts),
        )

    def receipts(self) -> Sequence[Receipt]:
        """The costs of the last exchanges that this node began, oldest first."""
        return self._exchanges.receipts.last


def _histogram(durations: DurationHistogram) -> Histogram:
    return Histogram(bounds=durations.bounds, up_to=tuple(durations.up_to()), total=durations.total)
