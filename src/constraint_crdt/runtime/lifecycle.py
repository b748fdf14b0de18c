"""The composition of a node: its parts, the order of subscription, start and stop.

To be read from top to bottom. `Runtime.__init__` makes the parts, each from parts made before. `_subscribe` states the subscribers
of changes in their order. `start` and `stop` state the order of the node's life, and `_begin_tasks` the background tasks with their
intervals. The public operations are in `node`. All parts belong to one event loop.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random

from constraint_crdt.alerts.engine import LOOK_EVERY, AlertEngine
from constraint_crdt.alerts.rules import Conditions, Facts
from constraint_crdt.edge import GossipNode
from constraint_crdt.expression import compile_expression
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.diagnosis import Diagnosis
from constraint_crdt.insight.evidence import Convergence, Coverage, Evidence
from constraint_crdt.insight.explain import Explanations, Spells
from constraint_crdt.insight.overview import NodeOverview
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode as PureGossipNode
from constraint_crdt.runtime.answers import Answers
from constraint_crdt.runtime.change_feed import ChangeFeed, Origin
from constraint_crdt.runtime.evaluation import EvaluationCounts, Evaluator, Measurements
from constraint_crdt.runtime.events import EventPublisher, EventStream, Notices
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.maintenance import Maintenance
from constraint_crdt.runtime.membership import Membership, PartitionDetector
from constraint_crdt.runtime.metrics import LoopLag, RuntimeMetrics
from constraint_crdt.runtime.persistence import FileRecorder, Persistence, store_path
from constraint_crdt.runtime.probes import Probe, ProbeReader
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.shared import NodeCounters, NodePlato, NodeSketches, StateFiles
from constraint_crdt.runtime.tiles import NodeTiles
from constraint_crdt.transport import Transport

VIEW_EVERY = 2.0
"""Seconds between two looks for a partition."""

PURGE_EVERY = 60.0
FOLD_EVERY = 60.0
REMOVE_EVERY = 1.0
"""Seconds between two sweeps: of deleted tiles, of counts to fold, of removals and of expired constraints."""

EXPIRE_EVERY = 0.2
"""Seconds between two looks for expired constraints to publish. Readings are exact at any time."""

FAREWELL = 0.5
"""Seconds for pushing the last counts during stop."""

PAUSE = 1.0
"""Seconds before a background task continues after a fault."""

_log = logging.getLogger("constraint_crdt.node")


class Tasks:
    """The background tasks of a node. A fault in one is logged, and the task continues after `PAUSE`; the others go on."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, name: str, activity: Callable[[], Awaitable[None]]) -> None:
        """Run `activity`, which never returns, until `stop`."""
        self._start(name, self._supervised(name, activity))

    def repeat(self, name: str, every: float, step: Callable[[], Awaitable[None]]) -> None:
        """Call `step` repeatedly, `every` seconds after the last call ended."""

        async def steps() -> None:
            while True:
                await asyncio.sleep(every)
                await step()

        self.run(name, steps)

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


class Runtime:
    """The parts of a node."""

    def __init__(
        self, settings: NodeSettings, transport: Transport | None, probes: Sequence[Probe], random: Random, now: Callable[[], int]
    ) -> None:
        """`transport`: Zenoh if None. `random` selects peers. `now`: the time in ns since the epoch."""
        self.settings = settings

        # The state, its disk, its peers, and the feed of its changes.
        self.recorder = FileRecorder(settings.record, settings.record_bytes)
        self.gossip = self.recorder.node(settings, now) if settings.record else _gossip_node(settings, now)
        self.persistence = Persistence(settings, self.gossip)
        self.feed = ChangeFeed(self.gossip, self.persistence)
        self.transport = transport if transport is not None else _zenoh(settings)
        self.exchanges = ExchangeLoop(
            self.gossip, self.transport, self.feed.receive, self.persistence.settled,
            timeout=settings.request_timeout, choice=settings.peer_choice, random=random,
        )  # fmt: skip

        # What users write and read beside constraints.
        self.events = EventStream()
        self.tiles = NodeTiles(self.gossip, self.feed.commit, self.events.publish)
        self.sketches = NodeSketches(self.gossip, self.feed.commit)
        self.counters = NodeCounters(self.gossip, self.feed.commit)
        self.plato = NodePlato(self.gossip, self.feed.commit, now)
        self.state_files = StateFiles(self.gossip, self.persistence, self.feed.receive, self.exchanges.push)

        # Evaluation.
        self.measurements = Measurements(settings.max_age)
        self.counts = EvaluationCounts()
        self.rates = NodeRates(self.gossip, settings.half_lives, now=time.monotonic)
        self.evaluator = Evaluator(self.gossip, self.feed, self.measurements, self.counts, self.rates, self.sketches)
        self.probes = [ProbeReader(probe, self.measurements, settings.check_every) for probe in probes]

        # Evidence of peers, and the answers made from it.
        frontier = DefinitionFrontier(self.gossip.state.rows)
        store_file = store_path(settings)
        self.evidence = Evidence(self.gossip, self.exchanges, now)
        self.spells = Spells(self.gossip.state.rows, now)
        self.coverage = Coverage(self.gossip, self.evidence, self.exchanges, frontier)
        self.explanations = Explanations(self.gossip, self.evidence, self.coverage, self.spells, self.counts, self.rates)
        self.convergence = Convergence(self.gossip, self.evidence)
        self.overview = NodeOverview(self.gossip, self.rates, self.counts, self.evidence, self.spells)
        self.partitions = PartitionDetector(settings.name)
        self.diagnosis = Diagnosis(
            self.gossip, self.evidence, self.exchanges, self.partitions, self.persistence,
            seeds=settings.connect, max_skew=settings.max_skew, file=store_file,
        )  # fmt: skip

        # What is published: events, alerts, notices.
        self.publisher = EventPublisher(self.events, self.gossip, self.feed, self.tiles, max_skew=settings.max_skew, now=now)
        self.alerts = AlertEngine(
            settings.alert,
            Conditions(Facts(self.gossip, self.evidence, self.coverage, self.convergence, self.rates, frontier)),
            who=(settings.name, settings.fleet),
            file=None if store_file is None else store_file.with_name(f"{store_file.name}.alerts.json"),
            notify=self.publisher.alert,
            now=now,
        )
        self.notices = Notices(self.gossip, self.exchanges, self.counts, self.persistence)

        # What runs in the background.
        self.tasks = Tasks(settings.name)
        self.membership = Membership(
            settings, self.gossip, self.transport, self.exchanges, self.feed,
            self.publisher, self.partitions, self.diagnosis, self.tasks.once,
        )  # fmt: skip
        self.maintenance = Maintenance(settings, self.gossip, self.persistence, self.feed, self.exchanges, self.rates)
        self.lag = LoopLag()

        # Reports on all of it.
        self.answers = Answers(
            self.gossip,
            self.feed,
            self.exchanges,
            self.counts,
            frontier,
            self.transport,
            self.persistence,
            self.maintenance.removals,
        )
        self.metrics = RuntimeMetrics(self.gossip, self.exchanges, self.counts, self.persistence, self.events, self.lag)
        self._subscribe()

    def _subscribe(self) -> None:
        """Subscribe the parts, in the order of the calls."""
        feed, written, received = self.feed, Origin.WRITTEN, Origin.RECEIVED
        feed.subscribe(self.evidence.changed, written, received)
        feed.subscribe(self.persistence.changed, written, received)
        feed.subscribe(self.membership.changed, received)
        feed.subscribe(self.spells.changed, Origin.EVALUATED)
        feed.subscribe(self.publisher.changed, *Origin)
        feed.subscribe(self.exchanges.changed, written, received)
        # Findings about a redefined constraint are dropped at once, before the next reading.
        feed.definitions.subscribe(self.counts.forget_all)
        feed.definitions.subscribe(self.spells.forget_all)
        self.counts.subscribe(self.notices.note)
        self.persistence.subscribe(self.publisher.health_changed)

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, *, rejoin: bool) -> None:
        """See `Node.start`."""
        self.membership.begin()
        aside = await self.persistence.open(rejoin=rejoin)
        if aside is not None:
            _log.warning("the old store is kept as %s", aside)
        self.feed.restore()
        self.evidence.begin()
        self.spells.begin()
        await self.alerts.load()
        try:
            self.recorder.open()
            await self.membership.join()
        except BaseException:
            await self.persistence.close()
            raise
        self.answers.begin()
        self.membership.describe()
        self._begin_tasks()
        _log.info("%s joined fleet %s as %s", self.settings.name, self.settings.fleet, self.gossip.replica)

    def _begin_tasks(self) -> None:
        settings, tasks = self.settings, self.tasks
        # The CEL library loads slowly. It is loaded now, in a thread, or the first definition would block the loop.
        tasks.once("loading", asyncio.to_thread(_load_expressions))
        tasks.run("rounds", lambda: self.exchanges.run_rounds(settings.gossip_every))
        tasks.run("pushes", self.exchanges.run_pushes)
        tasks.run("events", self.publisher.run)
        tasks.run("loop lag", self.lag.run)
        tasks.repeat("checks", settings.check_every, self.evaluator.evaluate_all)
        tasks.repeat("counts", settings.count_every, self.evaluator.write_counts)
        tasks.repeat("expiry", EXPIRE_EVERY, self.maintenance.expire)
        tasks.repeat("expired constraints", REMOVE_EVERY, self.maintenance.remove_expired)
        tasks.repeat("sketches", settings.rate_every, self.evaluator.write_sketches)
        tasks.repeat("rates", settings.rate_every, self.evaluator.write_rates)
        tasks.repeat("folds", FOLD_EVERY, self.maintenance.fold)
        tasks.repeat("purges", PURGE_EVERY, self.maintenance.purge)
        tasks.repeat("removals", REMOVE_EVERY, self.maintenance.drop_removals)
        tasks.repeat("alerts", LOOK_EVERY, self._check_alerts)
        if settings.discover:
            tasks.repeat("partitions", VIEW_EVERY, self.membership.detect_partition)
        for probe in self.probes:
            tasks.run(f"probe {probe.name}", probe.run)

    async def _check_alerts(self) -> None:
        self.evidence.drop_retired()
        await self.alerts.step()

    async def stop(self) -> None:
        """See `Node.stop`."""
        if await self.tasks.stop():
            await self.evaluator.write_counts()
            await self.evaluator.write_sketches()
            await self.evaluator.write_rates()
            try:
                async with asyncio.timeout(FAREWELL):
                    await self.exchanges.push_now()
            except TimeoutError:
                _log.info("%s left without telling its last counts: no peer answered in time", self.settings.name)
        await self.alerts.close()
        await self.transport.close()
        await self.persistence.close()
        self.recorder.close()
        await self.publisher.finish()
        self.events.close()


def _gossip_node(settings: NodeSettings, now: Callable[[], int]) -> PureGossipNode:
    return GossipNode(settings.name, now=now, fleet=settings.fleet, max_skew=settings.max_skew)


def _zenoh(settings: NodeSettings) -> Transport:
    from constraint_crdt.transport.zenoh import ZenohTransport

    return ZenohTransport(settings.role, listen=settings.listen or None, connect=settings.connect, discover=settings.discover)


def _load_expressions() -> None:
    compile_expression("true")
