"""The composition of a node: its parts, the order of subscription, start and stop.

To be read from top to bottom. `Runtime.__init__` makes the parts, each from parts made before. `_subscribe` states the subscribers
of changes in their order. `start` and `stop` state the order of the node's life, and `_begin_tasks` the background tasks with their
intervals. The public operations are in `node`. All parts belong to the same event loop.

`Membership` is the place of the node in its fleet: arriving and leaving peers, partitions, duplicate names, and the end of a node
for good. Zenoh does not repair a broken link found by its gossip. Two nodes without a link still receive each other's rows from a
third node, so a growing row of a node without a link is the sign of a partition. Reopening the session repairs the link, and costs
a moment of silence. Reopening backs off by doubling, because there may be no route. A node ends for good, with a reason, if
retired, or if another live node has its name. Of two nodes of the same name the node with the later session ends.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence, Set
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

from constraint_crdt import __version__
from constraint_crdt.alerts.engine import LOOK_EVERY, AlertEngine
from constraint_crdt.alerts.rules import Conditions, Facts
from constraint_crdt.crdt.replica import Replica
from constraint_crdt.expression import compile_expression
from constraint_crdt.gossip import GossipNode as MachineNode
from constraint_crdt.insight.diagnosis import Diagnosis
from constraint_crdt.insight.evidence import Convergence, Coverage, Evidence
from constraint_crdt.insight.explain import Explanations, NodeOverview
from constraint_crdt.insight.history import DefinitionClock, NodeRates
from constraint_crdt.model import EventKind
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.authority import Credentials, Fork
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import encode_message
from constraint_crdt.runtime.answers import Answers, LoopLag, RuntimeMetrics
from constraint_crdt.runtime.change_feed import ChangeFeed, ChangeOrigin, NodeChange
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.runtime.event_log import EventPublisher, EventStream, Notices
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.maintenance import Maintenance, Tasks
from constraint_crdt.runtime.measurement import LatestMeasurements, Probe, ProbeReader
from constraint_crdt.runtime.persistence import FileRecorder, Persistence, SpellFile, StateFiles, store_path
from constraint_crdt.runtime.settings import NodeSettings, is_loopback
from constraint_crdt.runtime.shared import NodeCounters, NodePlato, NodeSketches, NodeTiles
from constraint_crdt.transport import Peer, Transport, Unreachable
from constraint_crdt.types.nodes import REVOKE, revoke_value

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.identity import Identity
    from constraint_crdt.identity.credentials import RowCredentials
    from constraint_crdt.runtime.certificates import Certificates

VIEW_EVERY = 2.0
"""Seconds between two looks for a partition."""

PURGE_EVERY = 60.0
FOLD_EVERY = 60.0
REMOVE_EVERY = 1.0
"""Seconds between two sweeps: of deleted tiles, of counts to fold, of removals and of expired constraints."""

VALIDITY_EVERY = 5.0
LINKS_EVERY = 60.0
"""Seconds between two looks at the certificate of this node, and between two looks at the others and at links that do not come up.
"""

EXPIRE_EVERY = 0.2
"""Seconds between two looks for expired constraints to publish. Readings are exact at any time."""

TELL_EVERY = 0.25
"""Seconds between two looks for verdicts whose time to be told has come."""

TIMES_EVERY = 60.0
"""Seconds between two writes of the seconds satisfied, violated and unknown. The readings of this node are exact at any time."""

FAREWELL = 0.5
"""Seconds for pushing the last counts during stop."""

PAUSE = 1.0
"""Seconds before a background task continues after a fault."""

Result = TypeVar("Result")

_log = logging.getLogger("constraint_crdt.node")


PATIENCE = 3
"""Looks in a row at which a node is missing before the session is reopened."""

LONGEST_PAUSE = 60
"""Looks between two reopenings, at most."""


class PartitionDetector:
    """Compares the writing nodes with the live nodes. Call `look` at regular intervals."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: dict[Replica, int] = {}
        self._missed: dict[str, int] = {}
        self._pause = PATIENCE
        self._wait = 0

    @property
    def missed(self) -> list[str]:
        """The nodes writing, by evidence of others, without being live here for a while."""
        return sorted(name for name, looks in self._missed.items() if looks >= PATIENCE)

    def look(self, clock: Mapping[Replica, int], live: Set[str], revoked: Set[str] = frozenset()) -> list[str]:
        """The nodes whose absence from `live` calls for reopening the session now; usually none. `revoked` nodes get no link."""
        writing = {replica.node_id for replica, seq in clock.items() if self._seen.get(replica, 0) < seq} if self._seen else set()
        self._seen = dict(clock)
        for name in live | revoked:
            self._missed.pop(name, None)
        for name in writing - live - revoked - {self._me}:
            self._missed[name] = self._missed.get(name, 0) + 1
        missing = self.missed
        self._wait -= 1
        if not missing:
            self._pause = PATIENCE if not self._missed else self._pause
            return []
        if self._wait > 0:
            return []
        self._wait, self._pause = self._pause, min(self._pause * 2, LONGEST_PAUSE)
        return missing


class Membership:
    """The place of a node in its fleet."""

    def __init__(
        self,
        settings: NodeSettings,
        gossip: GossipNode,
        transport: Transport,
        exchanges: ExchangeLoop,
        feed: ChangeFeed,
        publisher: EventPublisher,
        detector: PartitionDetector,
        diagnosis: Diagnosis,
        once: Callable[[str, Coroutine[object, object, None]], None],
    ) -> None:
        """`once(name, coroutine)` runs a coroutine in the background."""
        self._settings = settings
        self._gossip = gossip
        self._transport = transport
        self._exchanges = exchanges
        self._feed = feed
        self._publisher = publisher
        self._detector = detector
        self._diagnosis = diagnosis
        self._once = once
        self._over: asyncio.Future[str] | None = None
        self.certificates: Certificates | None = None
        """Answers requests for renewal."""
        self._revoked: Set[str] = frozenset()
        self.me: Peer | None = None
        """The session of this node; None before joining the fleet."""

    def begin(self) -> None:
        """The node starts."""
        self._over = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Open the transport. Raises `TransportError`."""
        self.me = await self._transport.open(self._settings.name, self._settings.fleet, self._answer, self._peer_changed)

    async def _answer(self, payload: bytes, sender: Peer | None = None) -> Sequence[bytes]:
        """The replies to a request of a peer: for renewal of its certificate, or a message of the gossip."""
        replies = None if self.certificates is None else self.certificates.answer(payload)
        return await self._exchanges.answer(payload, sender) if replies is None else replies

    def reopened(self, me: Peer) -> None:
        """The transport has a new session of this node."""
        self.me = me
        if self._may_write():
            self._feed.write(lambda: self._gossip.describe(__version__, self._transport.endpoints))

    def describe(self) -> None:
        """Write the software, endpoints and labels of this node, unless retired or revoked."""
        self._end_if_retired()
        if self._may_write():
            self._feed.write(self._gossip.vouch)
            self._feed.write(lambda: self._gossip.describe(__version__, self._transport.endpoints, self._settings.all_labels))

    def _may_write(self) -> bool:
        local = self._gossip.local
        return local.retired_by is None and local.revoked_by is None and local.issuer_revoked_by is None

    def _tell_revocation(self, key: str) -> None:
        told = [revoke_value(cell) for cell in self._gossip.state.rows.held(REVOKE, key)]
        by = ", ".join(self._gossip.authority.revoked_by(key)) if self._gossip.authority is not None else ""
        reason = next((each.reason for each in told if each.reason), "")
        for node in sorted({each.node for each in told}):
            _log.warning("a key of %s was revoked by %s%s", node, by, f": {reason}" if reason else "")
            self._publisher.publish(EventKind.REVOKED, node=node, detail=f"by {by}: {reason}" if reason else f"by {by}")

    def tell_fork(self, fork: Fork) -> None:
        """Two rows of a writer were seen."""
        _log.error("two different rows of %s were seen: it runs twice, or lies; the longer row stands", fork.node)
        self._publisher.publish(EventKind.FORKED, node=fork.node)

    async def over(self) -> str:
        """Wait until this node has to end for good. Returns the reason."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._over)

    def changed(self, change: NodeChange) -> None:
        """End if a merged message retired or revoked this node. See `ChangeFeed`."""
        if change.state_changed:
            self._end_if_retired()
            self.shut_out_revoked()

    def shut_out_revoked(self) -> None:
        """Link no longer with nodes that were revoked since the last call."""
        authority, certificates = self._gossip.authority, self.certificates
        if authority is not None and certificates is not None and authority.revoked != self._revoked:
            for key in sorted(authority.revoked - self._revoked):
                self._tell_revocation(key)
            self._revoked = frozenset(authority.revoked)
            self._once("revocation", certificates.shut_out_revoked(self._exchanges.exchange))

    async def detect_partition(self) -> None:
        """Reopen the session if writing nodes are not live here."""
        gossip = self._gossip
        missing = self._detector.look(
            gossip.state.rows.clock_entries, self._exchanges.live, gossip.revoked_nodes | self._exchanges.away
        )
        if missing:
            described = gossip.state.nodes
            endpoints = [endpoint for name in missing if name in described for endpoint in described[name].endpoints]
            _log.warning("%s hears of %s, but not from them: reopening the session", self._settings.name, ", ".join(missing))
            await self._transport.reopen(endpoints)
            self._feed.write(lambda: self._gossip.describe(__version__, self._transport.endpoints))

    def _peer_changed(self, peer: Peer, up: bool) -> None:
        """A session of a peer came or went."""
        if peer.name == self._gossip.node_id:
            if up:
                self._once("namesake", self._meet_namesake(peer))
            return
        if not up:
            self._exchanges.gone(peer)
        else:
            self._exchanges.push()
            if self.certificates is not None:
                self._once("renewal", self.certificates.peer_came(peer.name))
        _log.info("%s %s", peer.name, "came" if up else "went")
        self._publisher.publish(EventKind.PEER_UP if up else EventKind.PEER_DOWN, node=peer.name)

    async def _meet_namesake(self, peer: Peer) -> None:
        """Another session has this node's name. If the other session answers, it is no trace of a dead process, and the later
        session ends.
        """
        try:
            await self._transport.request(peer, encode_message(self._gossip.ping()), self._settings.request_timeout)
        except Unreachable:
            return
        name = self._gossip.node_id
        _log.error("another live node is called %s too: names must be unique in a fleet", name)
        self._publisher.publish(EventKind.DUPLICATE_NAME, node=name)
        self._diagnosis.met_namesake()
        if self.me is not None and self.me.session > peer.session:  # sessions sort by the time of opening
            self._end(f"a node called {name} is live already: start this one under another name")

    def _end_if_retired(self) -> None:
        by = self._gossip.retired_by
        if by is not None:
            self._end(f"node {self._gossip.node_id} was retired by {by}: start it under another name")
        by = self._gossip.revoked_by
        if by is not None:
            self._end(
                f"the key of node {self._gossip.node_id} was revoked by {by}: make it a new identity, with a new key: delete "
                f"{self._settings.identity}, and join again by an invitation"
            )

    def _end(self, why: str) -> None:
        if self._over is not None and not self._over.done():
            _log.error("%s", why)
            self._over.set_result(why)


class Runtime:
    """The parts of a node."""

    def __init__(
        self,
        settings: NodeSettings,
        transport: Transport | None,
        probes: Sequence[Probe],
        random: Random,
        now: Callable[[], int],
        check_call: Callable[[], None],
        actor: str | None,
    ) -> None:
        """`transport`: Zenoh if None. `random` selects peers. `now`: the time in ns since the epoch. `check_call` refuses a write
        outside of the life, the thread or the loop of the node. `actor`: see `ChangeFeed`.
        """
        self.settings = settings
        self._check_call = check_call

        # The state, its disk, its peers, and the feed of its changes.
        self.identity = _load_identity(settings, now) if settings.identity else None
        self.certificates: Certificates | None = None
        # While nodes without an identity write rows without a signature, the others do too.
        signs = self.identity is not None and not settings.accept_plain
        credentials = _credentials(self.identity) if self.identity is not None and signs else None
        self.recorder = FileRecorder(settings.record, settings.record_bytes)
        node = self.recorder.node if settings.record else _gossip_node
        self.gossip = node(settings, now, credentials)
        self.persistence = Persistence(settings, self.gossip)
        self.feed = ChangeFeed(self.gossip, self.persistence, actor)
        self.transport = transport if transport is not None else _zenoh(settings, self.identity)
        self.exchanges = ExchangeLoop(
            self.gossip, self.transport, self.feed.receive, self.persistence.settled,
            timeout=settings.request_timeout, choice=settings.peer_choice, random=random,
        )  # fmt: skip

        # The data that users write and read beside constraints.
        self.events = EventStream()
        self.tiles = NodeTiles(self.gossip, self._commit, self.events.publish)
        self.sketches = NodeSketches(self.gossip, self._commit)
        self.counters = NodeCounters(self.gossip, self._commit)
        self.plato = NodePlato(self.gossip, self._commit, now)
        self.state_files = StateFiles(self.gossip, self.persistence, self.feed.receive, self.exchanges.push)

        # Evaluation.
        max_ages = {name: each.max_age for name, each in settings.variables.items() if each.max_age is not None}
        self.measurements = LatestMeasurements(settings.max_age, max_ages)
        self.rates = NodeRates(self.gossip, settings.half_lives, now=time.monotonic)
        self.evaluator = Evaluator(
            self.gossip, self.feed, self.measurements, self.rates, self.sketches,
            push=self.exchanges.push, every=settings.check_every,
        )  # fmt: skip
        store_file = store_path(settings)
        self.spell_file = SpellFile(store_file, self.evaluator.judge)
        self.probes = [ProbeReader(probe, self.evaluator.measure, settings.check_every) for probe in probes]

        # Evidence of peers, and the answers made from it.
        frontier = DefinitionClock(self.gossip.state.rows)
        self.evidence = Evidence(self.gossip, self.exchanges, now)
        self.coverage = Coverage(self.gossip, self.evidence, self.exchanges, frontier)
        self.explanations = Explanations(self.gossip, self.evidence, self.coverage, self.evaluator, self.rates)
        self.convergence = Convergence(self.gossip, self.evidence)
        self.overview = NodeOverview(self.gossip, self.rates, self.evaluator, self.evidence)
        self.partitions = PartitionDetector(settings.name)
        self.diagnosis = Diagnosis(
            self.gossip, self.evidence, self.exchanges, self.partitions, self.persistence,
            seeds=settings.connect, max_skew=settings.max_skew, file=store_file, probes=self.probes,
            measured=lambda: self.measurements.fresh(time.monotonic_ns()),
            links=settings.links, folder=settings.identity,
            listen=settings.listen, endpoints=lambda: self.transport.endpoints, is_loopback=is_loopback,
        )  # fmt: skip

        # The publications: events, alerts, notices.
        self.publisher = EventPublisher(
            self.events,
            self.gossip,
            self.feed,
            self.tiles,
            self.evaluator.verdict,
            self.evidence.changes.removals,
            max_skew=settings.max_skew,
            now=now,
        )
        self.alerts = AlertEngine(
            settings.alert,
            Conditions(Facts(self.gossip, self.evidence, self.coverage, self.convergence, self.rates, frontier)),
            who=(settings.name, settings.fleet),
            file=None if store_file is None else store_file.with_name(f"{store_file.name}.alerts.json"),
            notify=self.publisher.alert,
            now=now,
        )
        self.notices = Notices(self.gossip, self.exchanges, self.evaluator, self.persistence)

        # The background.
        self.tasks = Tasks(settings.name)
        self.membership = Membership(
            settings, self.gossip, self.transport, self.exchanges, self.feed,
            self.publisher, self.partitions, self.diagnosis, self.tasks.once,
        )  # fmt: skip
        if self.gossip.authority is not None:
            self.gossip.authority.on_fork = self.membership.tell_fork
        if self.identity is not None:
            self.certificates = self.membership.certificates = _certificates(self, self.identity, credentials, now)
            self.diagnosis.certified = self.certificates
        self.maintenance = Maintenance(settings, self.gossip, self.persistence, self.feed, self.exchanges, self.rates)
        self.lag = LoopLag()

        # Reports on all of it.
        self.answers = Answers(
            self.gossip,
            self.feed,
            self.exchanges,
            self.evaluator,
            frontier,
            self.transport,
            self.persistence,
            self.maintenance.removals,
            self.measurements,
            settings.links,
        )
        self.metrics = RuntimeMetrics(self.gossip, self.exchanges, self.evaluator, self.persistence, self.events, self.lag)
        self._subscribe()

    def _subscribe(self) -> None:
        """Subscribe the parts, in the order of the calls."""
        feed, written, received, committed = self.feed, ChangeOrigin.WRITTEN, ChangeOrigin.RECEIVED, ChangeOrigin.COMMITTED
        feed.subscribe(self.evidence.changed, written, received)
        feed.subscribe(self.persistence.changed, written, received)
        feed.subscribe(self.membership.changed, received)
        feed.subscribe(self.publisher.changed, *(origin for origin in ChangeOrigin if origin is not committed))
        feed.subscribe(self.exchanges.changed, committed, received)
        # Findings about a redefined constraint are dropped at once, before the next reading.
        feed.definitions.subscribe(self.evaluator.judge.redefine)
        self.evaluator.subscribe(self.notices.note)
        self.events.listen(self.notices.note_event)
        self.persistence.subscribe(self.publisher.health_changed)

    async def _commit(self, mutate: Callable[[], Result]) -> Result:
        """Commit a write of a part that users call. `Node` checks its own methods."""
        self._check_call()
        return await self.feed.commit(mutate)

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, *, rejoin: bool) -> None:
        """See `Node.start`."""
        self.membership.begin()
        aside = await self.persistence.open(rejoin=rejoin)
        if aside is not None:
            _log.warning("the old store is kept as %s", aside)
        self.feed.restore()
        self.evaluator.begin()
        self.evidence.begin()
        await self.alerts.load()
        await self.spell_file.load()
        try:
            self.recorder.open()
            if self.certificates is not None:
                self.certificates.load()
            await self.membership.join()
        except BaseException:
            await self.persistence.close()
            raise
        self.answers.begin()
        self.membership.describe()
        self._begin_tasks()
        if self.certificates is not None:
            await self.certificates.begin()
            self.membership.shut_out_revoked()
        if self.settings.links in ("none", "mixed"):
            why = "not protected" if self.settings.links == "none" else "open, as --accept-plain takes nodes without a certificate"
            _log.warning("the links of %s are %s: who reaches the port of a node can change everything", self.settings.name, why)
        _log.info("%s joined fleet %s as %s", self.settings.name, self.settings.fleet, self.gossip.replica)

    async def _load(self) -> None:
        """Load the CEL library, and read the constraints that are there: until then no answer has the states of this node."""
        await asyncio.to_thread(_load_expressions)
        await self.evaluator.renew()

    def _begin_tasks(self) -> None:
        settings, tasks = self.settings, self.tasks
        # The CEL library loads slowly. It is loaded now, in a thread, or the first definition would block the loop.
        tasks.once("loading", self._load())
        tasks.run("rounds", lambda: self.exchanges.run_rounds(settings.gossip_every))
        tasks.run("pushes", self.exchanges.run_pushes)
        tasks.run("events", self.publisher.run)
        tasks.run("loop lag", self.lag.run)
        tasks.repeat("new constraints", settings.check_every, self.evaluator.renew)
        tasks.repeat("ticks", settings.check_every, self.evaluator.tick)
        tasks.repeat("counts", settings.count_every, self.evaluator.write_counts)
        tasks.repeat("verdicts", TELL_EVERY, self.evaluator.write_verdicts)
        tasks.repeat("spells", settings.count_every, self.spell_file.save)
        tasks.repeat("times", TIMES_EVERY, self.evaluator.write_times)
        tasks.repeat("expiry", EXPIRE_EVERY, self.maintenance.expire)
        tasks.repeat("expired constraints", REMOVE_EVERY, self.maintenance.remove_expired)
        tasks.repeat("sketches", settings.rate_every, self.evaluator.write_sketches)
        tasks.repeat("rates", settings.rate_every, self.evaluator.write_rates)
        tasks.repeat("folds", FOLD_EVERY, self.maintenance.fold)
        tasks.repeat("purges", PURGE_EVERY, self.maintenance.purge)
        tasks.repeat("removals", REMOVE_EVERY, self.maintenance.drop_removals)
        tasks.repeat("alerts", LOOK_EVERY, self._check_alerts)
        if settings.identity:
            tasks.run("links", self._watch_links)
        if self.certificates is not None:
            tasks.repeat("certificates", LINKS_EVERY, self.certificates.look)
        if settings.discover:
            tasks.repeat("partitions", VIEW_EVERY, self.membership.detect_partition)
        for probe in self.probes:
            tasks.run(f"probe {probe.name}", probe.run)

    async def _watch_links(self) -> None:
        """Log faults of certificates, and links that do not come up, which Zenoh does not tell. Once each."""
        said, further, next_look = set[str](), list[Finding](), time.monotonic()
        while True:
            await asyncio.sleep(VALIDITY_EVERY)
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + LINKS_EVERY
                further = [] if self.certificates is None else [*self.certificates.findings()]
                if self.settings.connect and not self.exchanges.live:
                    further.append(await asyncio.to_thread(self.diagnosis.seeds))
            findings = [self.diagnosis.protection(), *further]
            wrong = {f"{each.what}: {each.advice}" for each in findings if each.level != "ok"}
            for sentence in sorted(wrong - said):
                _log.warning("%s", sentence)
            said = wrong

    async def _check_alerts(self) -> None:
        self.evidence.drop_retired()
        await self.alerts.step()

    async def stop(self) -> None:
        """See `Node.stop`."""
        if await self.tasks.stop():
            await self.evaluator.write_counts()
            await self.evaluator.write_times()
            await self.evaluator.write_verdicts(final=True)
            await self.spell_file.save(final=True)
            await self.evaluator.write_sketches()
            await self.evaluator.write_rates()
            try:
                async with asyncio.timeout(FAREWELL):
                    await self.exchanges.push_now()
            except TimeoutError:
                _log.info("%s left without telling its last counts: no peer answered in time", self.settings.name)
        await self.exchanges.close()
        await self.alerts.close()
        if self.certificates is not None:
            await self.certificates.close()
        await self.transport.close()
        await self.persistence.close()
        self.recorder.close()
        await self.publisher.finish()
        self.events.close()


def _gossip_node(settings: NodeSettings, now: Callable[[], int], credentials: Credentials | None) -> GossipNode:
    return MachineNode(settings.name, now=now, fleet=settings.fleet, max_skew=settings.max_skew, credentials=credentials)


def _credentials(identity: "Identity") -> "RowCredentials":
    from constraint_crdt.identity.credentials import RowCredentials

    return RowCredentials(identity)


def _certificates(
    runtime: Runtime, identity: "Identity", credentials: "RowCredentials | None", now: Callable[[], int]
) -> "Certificates":
    from constraint_crdt.runtime.certificates import Certificates

    return Certificates(
        runtime.settings, identity, credentials, runtime.gossip, runtime.transport,
        commit=runtime.feed.commit, note=runtime.feed.note, reopened=runtime.membership.reopened, now=now,
    )  # fmt: skip


def _zenoh(settings: NodeSettings, identity: "Identity | None") -> Transport:
    from constraint_crdt.transport.zenoh import ZenohTransport

    return ZenohTransport(
        settings.role,
        listen=settings.listen or None,
        connect=settings.connect,
        discover=settings.discover,
        identity=identity,
        accept_plain=settings.accept_plain,
    )


def _load_identity(settings: NodeSettings, now: Callable[[], int]) -> "Identity":
    from constraint_crdt.identity.directory import load_identity

    return load_identity(Path(settings.identity), now())


def _load_expressions() -> None:
    compile_expression("true")
