"""What a running node does: it takes up its store, joins the fleet, and goes on until it is stopped.

Exchanges with peers, a push of each change, probes, evaluation of the active constraints, the writing of gathered counts, a watch
over its own view of the fleet; and what follows from each change of its own. What follows from what it hears of others is in
`hearing`, what it tells of all that in `announcing`, what people ask of it in `node`. All state lives on one event loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from random import Random
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from constraint_crdt import __version__
from constraint_crdt.alerts.engine import LOOK_EVERY, AlertEngine
from constraint_crdt.alerts.kinds import Conditions, Facts
from constraint_crdt.edge import GossipNode
from constraint_crdt.expression import compile_expression
from constraint_crdt.expression.evaluation import Evaluation, evaluate
from constraint_crdt.insight.changes import DefinitionFrontier
from constraint_crdt.insight.coverage import Coverage
from constraint_crdt.insight.diagnosis import Diagnosis
from constraint_crdt.insight.evidence import Convergence, Evidence
from constraint_crdt.insight.explain import Explanations, Spells
from constraint_crdt.insight.overview import NodeOverview
from constraint_crdt.insight.rates import NodeRates
from constraint_crdt.protocol.gossip_node import GossipNode as PureGossipNode
from constraint_crdt.runtime.answers import Answers
from constraint_crdt.runtime.change_feed import Announcer, DefinitionNews, Movement
from constraint_crdt.runtime.evaluation import MeasurementBoard, Tally
from constraint_crdt.runtime.events import EventKind, EventStream
from constraint_crdt.runtime.exchange_loop import Exchanger
from constraint_crdt.runtime.figures import LoopLag, NodeFigures
from constraint_crdt.runtime.inbound import Hearing, ViewWatch
from constraint_crdt.runtime.maintenance import Expiring, Folding, Forgetting, Purging
from constraint_crdt.runtime.persistence import FileRecorder, Keeping, store_path
from constraint_crdt.runtime.probes import Probe
from constraint_crdt.runtime.settings import NodeSettings
from constraint_crdt.runtime.shared import NodeCounters, NodePlato, Portable
from constraint_crdt.runtime.sketches import NodeApproximate
from constraint_crdt.runtime.tasks import Activities
from constraint_crdt.runtime.tiles import NodeTiles
from constraint_crdt.store import WritesRefused
from constraint_crdt.transport.interface import Transport

VIEW_EVERY = 2.0
"""Seconds between two looks at whether this node sees the whole fleet."""

EVALUATED_AT_ONCE = 500
"""Constraints, which takes some milliseconds."""

PURGE_EVERY = 60.0
"""Seconds between two looks at which deleted tiles are to be purged."""

FORGET_EVERY = 1.0
"""Seconds between two looks at which removals may go."""

EXPIRE_EVERY = 0.2
"""Seconds between two looks at which constraints have expired. (A reading is right at any time; this is for telling.)"""

FOLD_EVERY = 60.0
"""Seconds between two looks at which counts are to be folded."""

FAREWELL = 0.5
"""Seconds that stopping spends on telling a peer the last counts."""

Result = TypeVar("Result")
_log = logging.getLogger("constraint_crdt.node")


class RunningNode:
    """The life of one node: `start`, `stop`, and all that goes on in between."""

    def __init__(
        self,
        *,
        name: str | None = None,
        fleet: str | None = None,
        role: str | None = None,
        listen: Sequence[str] | None = None,
        connect: Sequence[str] | None = None,
        labels: Mapping[str, str] | None = None,
        probes: Sequence[Probe] = (),
        transport: Transport | None = None,
        settings: NodeSettings | None = None,
        random: Random | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """Keyword settings win over those in `settings`. `transport`: Zenoh if left out. `random`: for the choice of peers. `now`:
        the time in ns since the epoch.

        Raises `ConstraintCrdtError` for a name or fleet out of bounds.
        """
        given = {"name": name, "fleet": fleet, "role": role, "listen": listen, "connect": connect, "labels": labels}
        changes = {
            key: tuple(value) if key in ("listen", "connect") else value for key, value in given.items() if value is not None
        }
        self.settings = msgspec.structs.replace(settings or NodeSettings(), **changes)
        self._now = now
        self._recorder = FileRecorder(self.settings.record, self.settings.record_bytes)
        self.gossip = self._recorder.node(self.settings, now) if self.settings.record else _gossip_node(self.settings, now)
        self._transport = transport if transport is not None else self._zenoh()
        self._probes = tuple(probes)
        self._random = random or Random()  # noqa: S311 - chooses peers, protects nothing
        self._board = MeasurementBoard(self.settings.max_age)
        self._tally = Tally(moved=lambda id_: self.movement.note(id_))  # noqa: PLW0108 - the movement is made below, and reads it
        self._events = EventStream()
        self._frontier = DefinitionFrontier(self.gossip.state.rows)
        self._view = ViewWatch(self.settings.name)
        self.tiles = NodeTiles(self.gossip, self._told, self._events.publish)
        """The tiles."""
        self._news = DefinitionNews(self.gossip.state, self._forget_findings)
        self._announcer = Announcer(self._events, self._news, self.tiles, now)
        self._keeping = Keeping(self.settings, self.gossip, self._announcer.health_changed)
        self._exchanger = Exchanger(
            self.gossip, self._transport,
            lambda node, result: self._hearing.received(node, result),  # noqa: PLW0108 - the hearing is made below, and reads it
            self._settled,
            timeout=self.settings.request_timeout, choice=self.settings.peer_choice, random=self._random,
        )  # fmt: skip
        self._forgetting = Forgetting(
            self.gossip, most=self.settings.keep_removals, longest=self.settings.keep_removals_for, now=time.monotonic
        )
        self._folding = Folding(self.gossip, after=self.settings.fold_counts_after, now=time.monotonic)
        self._answers = Answers(
            self.gossip, self._exchanger, self._tally, self._frontier, self._transport, self._keeping, self._forgetting
        )
        self.movement = Movement(self.gossip, self._exchanger, self._tally, self._keeping)
        """What moved since somebody last looked."""
        self._activities = Activities(self.settings.name)
        self._expiring = Expiring(self.gossip, turned=self._turned, remove=self._remove_expired, every=self.settings.gossip_every)
        self.approximate = NodeApproximate(self.gossip, self._told)
        """What is violated most, sketches and Bloom filters."""
        self.rates = NodeRates(self.gossip, self.settings.half_lives, now=time.monotonic)
        """How often constraints held and were violated lately."""
        self.evidence = Evidence(self.gossip, self._exchanger, now)
        """What each peer has shown to have."""
        self.spells = Spells(self.gossip.state.rows, now)
        """Since when each constraint is violated on each node."""
        self.coverage = Coverage(self.gossip, self.evidence, self._exchanger, self._frontier)
        """Which nodes have heard of a change."""
        self.explanations = Explanations(self.gossip, self.evidence, self.coverage, self.spells, self._tally, self.rates)
        """Everything known of one constraint."""
        self.convergence = Convergence(self.gossip, self.evidence)
        """How each peer's state compares to this node's."""
        store_file = store_path(self.settings)
        self.diagnosis = Diagnosis(
            self.gossip, self.evidence, self._exchanger, self._view, self._keeping,
            seeds=self.settings.connect, max_skew=self.settings.max_skew, file=store_file,
        )  # fmt: skip
        """The faults of this node."""
        self.alerts = AlertEngine(
            self.settings.alert,
            Conditions(Facts(self.gossip, self.evidence, self.coverage, self.convergence, self.rates, self._frontier)),
            who=(self.settings.name, self.settings.fleet),
            file=None if store_file is None else store_file.with_name(f"{store_file.name}.alerts.json"),
            notify=self._announcer.alert,
            now=now,
        )
        """The alerts of this node's rules."""
        self._hearing = Hearing(
            self.settings, self.gossip, self._transport, self._exchanger, self._keeping,
            self.evidence, self.diagnosis, self._announcer, self._activities, self._settle,
        )  # fmt: skip
        self.overview = NodeOverview(self.gossip, self.rates, self._tally, self.evidence, self.spells)
        """The constraints of a large fleet at a glance."""
        self._lag = LoopLag()
        self.figures = NodeFigures(self.gossip, self._exchanger, self._tally, self._keeping, self._events, self._lag)
        """What is counted beside the state, for metrics."""
        self.counters = NodeCounters(self.gossip, self._told)
        """Counters that go up and down."""
        self.plato = NodePlato(self.gossip, self._told, now)
        """The rooms, as clients of the PLATO contract have them."""
        self._purging = Purging(self.gossip, after=self.settings.keep_deleted_tiles_for)
        self._portable = Portable(self.gossip, self._keeping, self._settle, self._hearing.received, self._exchanger.push)

    def _zenoh(self) -> Transport:
        from constraint_crdt.transport.zenoh import ZenohTransport

        settings = self.settings
        return ZenohTransport(settings.role, listen=settings.listen or None, connect=settings.connect, discover=settings.discover)

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self, *, rejoin: bool = False) -> None:
        """Take up the store and join the fleet. `rejoin`: with an empty store, the old one set aside; peers bring its content back.

        Raises `StoreError` or `TransportError` (each a `ConstraintCrdtError`) if one of them cannot open; nothing runs then.
        """
        self._hearing.begin()
        aside = await self._keeping.open(rejoin=rejoin)
        if aside is not None:
            _log.warning("the old store is kept as %s", aside)
        self._settle(tell=False)  # what the store remembers is no news
        self.evidence.begin()
        self.spells.begin()
        await self.alerts.load()
        try:
            self._recorder.open()
            self._hearing.me = await self._transport.open(
                self.settings.name, self.settings.fleet, self._exchanger.answer, self._hearing.peer_changed
            )
        except BaseException:
            await self._keeping.close()
            raise
        self._answers.begin()
        self._hearing.end_if_retired()
        if self.gossip.retired_by is None:
            self._writing(lambda: self.gossip.describe(__version__, self._transport.endpoints, self.settings.labels))
        self._begin_activities()
        _log.info("%s joined fleet %s as %s", self.settings.name, self.settings.fleet, self.gossip.replica)

    def _begin_activities(self) -> None:
        settings, activities = self.settings, self._activities
        # The CEL library takes a while to load: now, and aside, or the first definition that arrives would hold up the loop.
        activities.once("loading", asyncio.to_thread(_load_expressions))
        activities.run("rounds", lambda: self._exchanger.run_rounds(settings.gossip_every))
        activities.run("pushes", self._exchanger.run_pushes)
        activities.run("announcing", self._announcer.run)
        activities.run("loop lag", self._lag.run)
        activities.repeat("checks", settings.check_every, self._check_active)
        activities.repeat("counts", settings.count_every, self._write_counts)
        activities.repeat("expiring", EXPIRE_EVERY, self._expiring.tell)
        activities.repeat("removing expired", FORGET_EVERY, self._expiring.remove)
        activities.repeat("sketches", settings.rate_every, self._write_sketches)
        activities.repeat("rates", settings.rate_every, self._write_rates)
        activities.repeat("folding", FOLD_EVERY, self._fold)
        activities.repeat("purging", PURGE_EVERY, self._purge)
        activities.repeat("forgetting", FORGET_EVERY, self._forget)
        activities.repeat("alerts", LOOK_EVERY, self._check_alerts)
        if settings.discover:
            activities.repeat("view", VIEW_EVERY, self._look_around)
        for probe in self._probes:
            activities.run(f"probe {probe.name}", partial(self._run_probe, probe))

    async def stop(self) -> None:
        """Leave: writes and tells the gathered counts, then closes the transport. Idempotent."""
        if await self._activities.stop():
            await self._write_counts()
            await self._write_sketches()
            await self._write_rates()
            try:
                async with asyncio.timeout(FAREWELL):
                    await self._exchanger.push_now()
            except TimeoutError:
                _log.info("%s left without telling its last counts: no peer answered in time", self.settings.name)
        await self.alerts.close()
        await self._transport.close()
        await self._keeping.close()
        self._recorder.close()
        await self._announcer.finish()
        self._events.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def over(self) -> str:
        """Wait until this node has to end, for good, and return why: it was retired, or another live node has its name."""
        return await self._hearing.over()

    # --- what runs -----------------------------------------------------------------------------------------------------

    async def _run_probe(self, probe: Probe) -> None:
        while True:
            try:
                values = await asyncio.to_thread(probe.read)
                self._board.put(values, time.monotonic_ns())
            except Exception as error:
                _log.warning("probe %s failed: %s", probe.name, error)
            await asyncio.sleep(self.settings.check_every)

    async def _check_alerts(self) -> None:
        self.evidence.tidy()
        await self.alerts.step()

    async def _check_active(self) -> None:
        """Evaluate all against the values of one instant, some at a time: others get their turn on the loop in between."""
        values, ids = self._board.fresh(time.monotonic_ns()), sorted(self.gossip.state.constraints)
        for start in range(0, len(ids), EVALUATED_AT_ONCE):
            self._evaluate(values, ids[start : start + EVALUATED_AT_ONCE])
            await asyncio.sleep(0)

    def _evaluate(self, values: Mapping[str, object], ids: Sequence[str] | None = None) -> list[Evaluation]:
        evaluations = evaluate(self.gossip.state.constraints, values, self.gossip.labels, ids)
        for turn in self._tally.note(evaluations):
            self.spells.turned(turn.constraint, turn.verdict)
            kind = EventKind(turn.verdict.value)
            self._announcer.publish(kind, constraint=turn.constraint, node=self.settings.name)
        self.rates.note({each.constraint: each.counts for each in evaluations})
        return evaluations

    async def _write_counts(self) -> None:
        if self._keeping.trouble is not None or self.gossip.retired_by is not None:
            return  # they wait in memory
        counts = self._tally.take()
        if counts:
            self._writing(lambda: self.gossip.record_all(counts))
            self.approximate.note(counts)

    async def _write_sketches(self) -> None:
        if self.approximate.waiting and self._keeping.trouble is None and self.gossip.retired_by is None:
            self._writing(self.approximate.write_waiting)

    async def _write_rates(self) -> None:
        if self.rates.waiting and self._keeping.trouble is None and self.gossip.retired_by is None:
            self._writing(self.rates.write_waiting)

    def _turned(self, ids: Set[str]) -> None:
        """Time has made something else of these constraints."""
        self._news.note(ids)
        self._settle()

    def _remove_expired(self, most: int) -> int:
        """Remove some adds that expired long enough ago; returns how many."""
        if self._keeping.trouble is not None or self.gossip.retired_by is not None:
            return 0
        removed = self._writing(lambda: self.gossip.remove_expired(limit=most))
        if removed:
            self._exchanger.push()
        return removed

    async def _fold(self) -> None:
        ids = self._folding.due()
        if ids and self._keeping.trouble is None and self.gossip.retired_by is None:
            self._writing(lambda: self.gossip.fold(ids))
            self._writing(lambda: self.rates.fold(ids))

    async def _purge(self) -> None:
        places = self._purging.due()
        if places and self._keeping.trouble is None and self.gossip.retired_by is None:
            self._writing(lambda: self._purging.purge(places))

    async def _forget(self) -> None:
        reason = self._forgetting.step(self._exchanger.live)
        if reason:
            behind = ", ".join(each.node for each in self._forgetting.holding(self._exchanger.live)) or "nodes that are away"
            _log.info("dropped removals by %s that not all have heard of: %s will need a Sync", reason, behind)
        self._keeping.changed()

    async def _look_around(self) -> None:
        missing = self._view.look(self.gossip.state.rows.clock_mark.entries, self._exchanger.live)
        if missing:
            described = self.gossip.state.nodes
            endpoints = [endpoint for name in missing if name in described for endpoint in described[name].endpoints]
            _log.warning("%s hears of %s, but not from them: reopening the session", self.settings.name, ", ".join(missing))
            await self._transport.reopen(endpoints)
            self._writing(lambda: self.gossip.describe(__version__, self._transport.endpoints))

    # --- what follows from a change ------------------------------------------------------------------------------------

    async def _told(self, mutate: Callable[[], Result]) -> Result:
        """Write, tell others soon, and return once it is on disk. Raises `WritesRefused`, at best before anything happened."""
        self._keeping.check()
        result = self._writing(mutate)
        self._exchanger.push()
        await self._keeping.durable()
        return result

    async def _settled(self) -> None:
        """All that can be said now is on disk; or the disk takes nothing, and this life is not vouched for any more."""
        with contextlib.suppress(WritesRefused):
            await self._keeping.durable()

    def _writing(self, mutate: Callable[[], Result]) -> Result:
        """Write; account for its bytes and for what it changed. One that is refused may have begun a new life all the same."""
        rows, before = self.gossip.state.rows, self.gossip.replica
        seq = rows.seq(before)
        try:
            return mutate()
        finally:
            after = self.gossip.replica
            self._answers.wrote(rows.above(after, seq if after == before else 0))
            self.evidence.moved()
            if after != before:
                self._keeping.begin_life(after.incarnation, f"after {before}")
                detail = f"{after} goes on from {before}, which may have written more than is known here"
                self._announcer.publish(EventKind.NEW_LIFE, node=self.settings.name, detail=detail)
            self._settle()
            self._keeping.changed()

    def _settle(self, *, tell: bool = True) -> int:
        """Follow, and say unless told not to, what became of the constraints and tiles that moved. Returns how many constraints
        changed; if they are many, most are told of later.
        """
        with self.gossip.time.held():
            changed = self._news.settle()
        if tell:
            self._announcer.moved()
        else:
            self._announcer.skip()
        return changed

    def _forget_findings(self, ids: Collection[str]) -> None:
        """These constraints are not what they were: nothing that was found about them holds."""
        self._tally.forget_all(ids)
        self.spells.forget_all(ids)


def _gossip_node(settings: NodeSettings, now: Callable[[], int]) -> PureGossipNode:
    return GossipNode(settings.name, now=now, fleet=settings.fleet, max_skew=settings.max_skew)


def _load_expressions() -> None:
    compile_expression("true")
