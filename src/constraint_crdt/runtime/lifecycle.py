"""The composition of a node: its parts, the order of subscription, start and stop.

To be read from top to bottom. `Runtime.__init__` makes the parts, each from parts made before. `_subscribe` states the subscribers
of changes in their order. `start` and `stop` state the order of the node's life, and `_begin_tasks` the background tasks with their
intervals. The public operations are in `node`. All parts belong to the same event loop.

`Membership` is the place of the node in its fleet: arriving and leaving peers, missing links, duplicate names, and the end of a
node for good. It names the nodes of the state, with their endpoints, to a transport that makes links on its own
(`LinkingTransport`), and which of them others give evidence of. With an identity, endpoints are taken from rows of members only.
Without an identity, a node whose own endpoints are all on this machine takes no others. An exchange with a peer whose link has come
back begins at once. A node ends for good, with a reason, if retired, or if another live node has its name. Of two nodes of the same
name the node with the later session ends. A node whose store says that it was retired hears a peer first, as that may be over:
undone, or settled otherwise.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, TypeVar

from constraint_crdt import __version__
from constraint_crdt.alerts import Conditions, Facts
from constraint_crdt.alerts.delivery import Outlook, Teller, Webhooks
from constraint_crdt.alerts.engine import LOOK_EVERY, AlertEngine, FleetAlerts
from constraint_crdt.crdt.clock import SECOND, STEP, ClockMark
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip import GossipNode as MachineNode
from constraint_crdt.gossip import steady_ns
from constraint_crdt.insight.diagnosis import Diagnosis, named
from constraint_crdt.insight.evidence import Convergence, Coverage, DefinitionClock, Evidence
from constraint_crdt.insight.explain import Decisions, Explanations, NodeOverview
from constraint_crdt.insight.history import SAMPLE_EVERY, NodeRates, VerdictHistory
from constraint_crdt.model import EventKind, counted
from constraint_crdt.operations.budgets import BudgetReport
from constraint_crdt.operations.nodes import away_nodes
from constraint_crdt.operations.service import Finding
from constraint_crdt.protocol.authority import Credentials, Fork, OwnReplaced
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.protocol.messages import TROUBLE_BYTES, encode_message
from constraint_crdt.runtime.actions import LOOK_EVERY as ACTIONS_EVERY
from constraint_crdt.runtime.actions import Actions, Guards
from constraint_crdt.runtime.answers import Answers, LoopLag, RuntimeMetrics, link_kinds, standing
from constraint_crdt.runtime.change_feed import ChangeFeed, ChangeOrigin, NodeChange, acting_as
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.runtime.event_log import EventPublisher, EventStream, Notices
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.holds import NodeBudgets
from constraint_crdt.runtime.maintenance import REMOVE_EVERY, Maintenance, Tasks
from constraint_crdt.runtime.measurement import LatestMeasurements, Probe, ProbeReader, SharedMeasurements
from constraint_crdt.runtime.persistence import FileRecorder, MeasurementRecorder, Persistence, SpellFile, StateFiles, store_path
from constraint_crdt.runtime.rollouts import LOOK_EVERY as ROLLOUTS_EVERY
from constraint_crdt.runtime.rollouts import NodeRollouts
from constraint_crdt.runtime.settings import NodeSettings, is_loopback
from constraint_crdt.runtime.shared import NodeCounters, NodePlato, NodeSketches, NodeTiles
from constraint_crdt.sources import SourceReader, find_trouble, reader_of
from constraint_crdt.transport import LinkingTransport, Peer, Sought, Transport, Unreachable
from constraint_crdt.types.nodes import NODE, REVOKE, cut, node_value, revoke_value
from constraint_crdt.types.orset import Subject

if TYPE_CHECKING:  # `cryptography` is loaded for nodes with an identity only
    from constraint_crdt.identity import Identity
    from constraint_crdt.identity.credentials import RowCredentials
    from constraint_crdt.runtime.certificates import Certificates

VIEW_EVERY = 2.0
"""Seconds between two looks at the nodes to be linked to."""

PURGE_EVERY = 60.0
FOLD_EVERY = 60.0
"""Seconds between two sweeps: of deleted tiles, and of counts to fold. Removals and expired constraints: `REMOVE_EVERY`."""

RETIRE_EVERY = 60.0
"""Seconds between two looks for nodes that are away for too long."""

VALIDITY_EVERY = 5.0
LINKS_EVERY = 60.0
"""Seconds between two looks at the certificate of this node, and between two looks at the others and at links that do not come up.
"""

BUDGETS_EVERY = 0.5
"""Seconds between two looks for loans to renew, and for shares whose time has come."""

TIMES_EVERY = 60.0
"""Seconds between two writes of the seconds satisfied, violated and unknown. The readings of this node are exact at any time."""

DISK_PATIENCE = 3.0
"""Seconds for saving a file during stop."""

FIRST_CONTACT = 2.0
"""Seconds for which a node that resumes its life waits for a peer, which may know more of it, before it writes by itself."""

LOOK_FOR_CONTACT = 0.02

FAREWELL = 0.5
"""Seconds for pushing the last counts during stop."""

HEARING = 10.0
"""Seconds for which a node that was retired when it stopped waits to hear a peer."""

PAUSE = 1.0
"""Seconds before a background task continues after a fault."""

Result = TypeVar("Result")

_log = logging.getLogger("constraint_crdt.node")


PATIENCE = 3
"""Looks at which a writing node is missing before it is told as missed."""

WRITES_KEPT = 30
"""Looks for which a write is a sign that a node lives."""


class MissedNodes:
    """Compares the writing nodes with the live nodes. Call `look` at regular intervals."""

    def __init__(self, me: str) -> None:
        self._me = me
        self._seen: ClockMark | None = None
        """The clock at the last look."""
        self._missed: dict[str, int] = {}
        self._wrote: dict[str, int] = {}
        """The number of the look at which each missing node had written last."""
        self._looks = 0

    @property
    def missed(self) -> list[str]:
        """The nodes writing, by evidence of others, without being live here for a while."""
        return sorted(name for name, looks in self._missed.items() if looks >= PATIENCE)

    def look(self, rows: Rows, live: Set[str], ended: Set[str] = frozenset()) -> Set[str]:
        """The nodes that are not live here and wrote lately. `ended` nodes, revoked or retired, get no link.

        O(rows changed since the last look).
        """
        writing = rows.writers_since(self._seen) if self._seen is not None and self._seen.entries else frozenset[str]()
        self._seen, self._looks = rows.clock_mark, self._looks + 1
        for name in live | ended:
            self._missed.pop(name, None)
            self._wrote.pop(name, None)
        for name in writing - live - ended - {self._me}:
            self._missed[name] = self._missed.get(name, 0) + 1
            self._wrote[name] = self._looks
        return {name for name, look in self._wrote.items() if self._looks - look < WRITES_KEPT}


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
        missed: MissedNodes,
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
        self._missed = missed
        self._round_trips: dict[str, float] = {}
        """The last round-trip time of each peer that went, in seconds."""
        self._diagnosis = diagnosis
        self._once = once
        self._over: asyncio.Future[str] | None = None
        self._described: tuple[tuple[str, ...], str] = ((), "")
        """The endpoints and the role of this node in its description."""
        self.certificates: Certificates | None = None
        """Answers requests for renewal."""
        self._revoked: Set[str] = frozenset()
        self._hears = False
        """The node was retired by its store, and hears whether that is over."""
        self._came = asyncio.Event()
        """A peer came, or this node is in service again."""
        self.me: Peer | None = None
        """The session of this node; None before joining the fleet."""

    def begin(self) -> None:
        """The node starts."""
        self._over = asyncio.get_running_loop().create_future()

    async def join(self) -> None:
        """Open the transport. Raises `TransportError`."""
        self.seek_peers()
        self.me = await self._transport.open(self._settings.name, self._settings.fleet, self._answer, self._peer_changed)

    async def _answer(self, payload: bytes, sender: Peer | None = None) -> Sequence[bytes]:
        """The replies to a request of a peer: for renewal of its certificate, or a message of the gossip."""
        replies = None if self.certificates is None else self.certificates.answer(payload)
        return await self._exchanges.answer(payload, sender) if replies is None else replies

    def reopened(self, me: Peer) -> None:
        """The transport has a new session of this node."""
        self.me = me
        if self._may_write():
            self._describe_endpoints()

    def hear_of_retirement(self) -> None:
        """If the store says that this node is retired, find out whether that is over."""
        if self._gossip.retired_by is not None and not self._hears:
            self._hears = True
            self._once("retirement", self._hear_of_retirement())

    def describe(self) -> None:
        """Write the software, endpoints and labels of this node, unless retired or revoked."""
        self.hear_of_retirement()
        self._end_if_retired()
        if self._may_write():
            self._feed.write(self._gossip.vouch)
            self._described = endpoints, role = self._present()
            self._feed.write(lambda: self._gossip.describe(__version__, endpoints, self._settings.all_labels, role))

    def relabel(self, settings: NodeSettings) -> None:
        """The node has other labels."""
        self._settings = settings
        if self._may_write():
            self._describe_endpoints(settings.all_labels)

    async def _hear_of_retirement(self) -> None:
        """Hear a peer, then end, or go on if this node is in service again."""
        gossip = self._gossip
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEARING):
                while gossip.retired_by is not None:
                    self._came.clear()
                    peers = [peer for peer in self._transport.peers() if peer.name != gossip.node_id]
                    if any([await self._exchanges.exchange(peer) for peer in peers]):
                        break
                    await self._came.wait()
        self._hears = False
        if gossip.retired_by is not None:
            self._end_if_retired()
        else:
            by = ", ".join(gossip.state.retirements.undone_by(gossip.node_id))
            why = f"{by} undid its retirement" if by else "its retirement does not count"
            told = f"; {self._unknown_writes()} of its mutations were not known to the node that retired it, and are told now"
            _log.warning("%s is in service again: %s%s", gossip.node_id, why, told)
            self.describe()

    def _unknown_writes(self) -> int:
        """The mutations of this node beyond the ends in its retirements."""
        rows, name = self._gossip.state.rows, self._gossip.node_id
        ends = self._gossip.state.retirements.known_ends(name)
        return sum(max(0, seq - ends.get(life, 0)) for life, seq in rows.clock_entries.items() if life.node_id == name)

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
        detail = f"rows of {fork.replica} up to {fork.seqs[0]} and up to {fork.seqs[1]}"
        self._publisher.publish(EventKind.FORKED, node=fork.node, detail=detail)

    async def over(self) -> str:
        """Wait until this node has to end for good. Returns the reason."""
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._over)

    def changed(self, change: NodeChange) -> None:
        """End if a merged message retired or revoked this node. See `ChangeFeed`."""
        if change.state_changed:
            if self._hears and self._gossip.retired_by is None:
                self._came.set()
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

    async def look_at_links(self) -> None:
        """Name the nodes to be linked to, and tell others a new role, and new addresses of this machine."""
        self.seek_peers()
        if self._present() != self._described and self._may_write():
            self._describe_endpoints()

    def seek_peers(self) -> None:
        """Name the nodes of the state to the transport, with their endpoints. O(nodes)."""
        gossip, settings = self._gossip, self._settings
        ended = {gossip.node_id} | gossip.revoked_nodes | set(gossip.state.retirements)
        writing = self._missed.look(gossip.state.rows, self._exchanges.live, ended | self._exchanges.away)
        if not isinstance(self._transport, LinkingTransport):
            return
        sought: dict[str, Sought] = {}
        for name, (told, role) in self._told().items():
            endpoints = tuple(each for each in told if settings.discover or each in settings.connect)
            if endpoints and name not in ended:
                sought[name] = Sought(endpoints, name in writing, self._round_trips.get(name), role)
        # Routers come first: through these a node sees all others.
        self._transport.seek(dict(sorted(sought.items(), key=lambda item: item[1].role != "router")))

    def _told(self) -> Mapping[str, tuple[Sequence[str], str]]:
        """The endpoints that each node told and that this node may connect to, and its role, of the life with the most writes."""
        rows, authority = self._gossip.state.rows, self._gossip.authority
        unproven = frozenset(() if authority is None else authority.unproven)
        anywhere = self._settings.links != "loopback"
        cells = sorted(rows.each(NODE), key=lambda cell: rows.seq(cell.replica))
        return {
            cell.replica.node_id: ([each for each in told.endpoints if anywhere or is_loopback(each)], told.role)
            for cell in cells
            for told in [node_value(cell)]
            if cell.replica not in unproven
        }

    def _describe_endpoints(self, labels: Mapping[str, str] | None = None) -> None:
        self._described = endpoints, role = self._present()
        self._feed.write(lambda: self._gossip.describe(__version__, endpoints, labels, role))
        self._exchanges.push()

    def _present(self) -> tuple[tuple[str, ...], str]:
        """The present endpoints of this node, and its role, empty for a peer."""
        role = standing(self._transport).role
        return self._transport.endpoints, "" if role == "peer" else role

    def _peer_changed(self, peer: Peer, up: bool) -> None:
        """A session of a peer came or went."""
        if peer.name == self._gossip.node_id:
            if up:
                self._once("namesake", self._meet_namesake(peer))
            return
        if not up:
            round_trip = self._exchanges.round_trip(peer)
            if round_trip is not None:
                self._round_trips[peer.name] = round_trip
            self._exchanges.gone(peer)
        else:
            if peer.name in self._round_trips:
                self._once("return", self._meet_again(peer))
            self._came.set()
            self._exchanges.came()
            if self.certificates is not None:
                self._once("renewal", self.certificates.peer_came(peer.name))
        _log.info("%s %s", peer.name, "came" if up else "went")
        self._publisher.publish(EventKind.PEER_UP if up else EventKind.PEER_DOWN, node=peer.name)

    async def _meet_again(self, peer: Peer) -> None:
        """Exchange with a peer whose link has come back, unless others speak with its site."""
        if self._exchanges.meets(peer.name):
            await self._exchanges.exchange(peer)

    async def _meet_namesake(self, peer: Peer) -> None:
        """Another session has this node's name. If the other session answers, it is no trace of a dead process, and the later
        session ends.
        """
        try:
            timeout = self._gossip.links.only_try(peer.name, self._settings.request_timeout)
            await self._transport.request(peer, encode_message(self._gossip.ping()), timeout)
        except Unreachable:
            return
        name = self._gossip.node_id
        _log.error("another live node is called %s too: names must be unique in a fleet", name)
        self._publisher.publish(EventKind.DUPLICATE_NAME, node=name)
        self._diagnosis.met_namesake()
        self.tell_trouble()
        if self.me is not None and self.me.session > peer.session:  # sessions sort by the time of opening
            self._end(f"a node called {name} is live already: start this one under another name")

    def tell_trouble(self, _: str | None = None) -> None:
        """Exchange with all live peers soon: a Ping tells the fault of this node, or that it is over."""
        self._once("trouble", self._tell_trouble())

    async def _tell_trouble(self) -> None:
        for peer in self._exchanges.willing(self._exchanges.live):
            await self._exchanges.exchange(peer)

    def _end_if_retired(self) -> None:
        by = self._gossip.retired_by
        if by is not None and not self._hears:
            self._end(self._retirement(by))
        by = self._gossip.revoked_by
        if by is not None:
            self._end(
                f"the key of node {self._gossip.node_id} was revoked by {by}: make it a new identity, with a new key: delete "
                f"{self._settings.identity}, and join again by an invitation"
            )

    def _retirement(self, by: str) -> str:
        name, path, unknown = self._gossip.node_id, store_path(self._settings), self._unknown_writes()
        said = (
            f"node {name} was retired by {by}: start it under another name, or, if that was a mistake, run `constraint-crdt retire "
        )
        said += f"{name} --undo` on a node in service and start this one again"
        if unknown and path is not None:
            said += f"; {by} did not know {unknown} of its mutations: `constraint-crdt export --store {path}` shows them"
        return said

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
        steady: Callable[[], int] | None = None,
        *,
        clock: Callable[[], int] | None = None,
    ) -> None:
        """`transport`: Zenoh if None. `random` selects peers. `now`: the time in ns since the epoch. `check_call` refuses a write
        outside of the life, the thread or the loop of the node. `actor`: see `ChangeFeed`. `steady`: see `Edge`. `clock`: of
        samples, ticks and alerts, in ns, never set; None: the machine's.
        """
        monotonic = time.monotonic_ns if clock is None else clock
        self.settings = settings
        self._check_call = check_call
        self._began = time.monotonic()
        self._alert_clock = monotonic

        # The state, its disk, its peers, and the feed of its changes.
        self.identity = _load_identity(settings, now) if settings.identity else None
        self.certificates: Certificates | None = None
        # While nodes without an identity write rows without a signature, the others do too.
        signs = self.identity is not None and not settings.accept_plain
        credentials = _credentials(self.identity) if self.identity is not None and signs else None
        self.recorder = FileRecorder(settings.record, settings.record_bytes)
        node = self.recorder.node if settings.record else _gossip_node
        # A program with a clock of its own says itself how that clock is set.
        self.gossip = node(settings, now, credentials, steady_ns if steady is None and now is time.time_ns else steady)
        self.gossip.labels = dict(settings.all_labels)  # before the constraints of the store are read
        self.persistence = Persistence(settings, self.gossip)
        self.feed = ChangeFeed(self.gossip, self.persistence, actor)
        self.transport = transport if transport is not None else _zenoh(settings, self.identity)
        self.exchanges = ExchangeLoop(
            self.gossip, self.transport, self.feed.receive, self.persistence.told,
            timeout=settings.request_timeout, choice=settings.peer_choice, random=random, every=settings.gossip_every,
        )  # fmt: skip

        # The data that users write and read beside constraints.
        self.events = EventStream()
        self.tiles = NodeTiles(self.gossip, self._commit, self.events.publish)
        self.sketches = NodeSketches(self.gossip, self._commit)
        self.counters = NodeCounters(self.gossip, self._commit)
        self.plato = NodePlato(self.gossip, self._commit, now)
        self.state_files = StateFiles(self.gossip, self.persistence, self.feed.receive, self.exchanges.push)

        # Evaluation.
        self.measurements = LatestMeasurements(settings.max_age, settings.max_ages)
        self.rates = NodeRates(self.gossip, settings.half_lives, now=lambda: monotonic() / SECOND)
        self.measurement_recorder = MeasurementRecorder(settings, self.gossip, now)
        shared = SharedMeasurements(self.measurements, settings.shares, on_request=settings.share_on_request)
        self.evaluator = Evaluator(
            self.gossip, self.feed, self.measurements, self.rates, self.sketches, live=self.exchanges.live, shared=shared,
            push=self.exchanges.push, every=settings.check_every, steady=clock,
            recorder=self.measurement_recorder if settings.record_measurements else None,
        )  # fmt: skip
        store_file = store_path(settings)
        self.spell_file = SpellFile(store_file, self.evaluator.judge)
        self.probes = [ProbeReader(probe, self.evaluator.measure, settings.check_every) for probe in probes]
        self.sources = [
            SourceReader(each, self.evaluator.measure, partial(reader_of, each, self.transport)) for each in settings.source
        ]

        # Evidence of peers, and the answers made from it.
        definition_clock = DefinitionClock(self.gossip.state.rows)
        self.evidence = Evidence(self.gossip, self.exchanges, now, monotonic)
        self.gossip.local.trouble = lambda: cut(self.diagnosis.trouble, TROUBLE_BYTES)
        self.gossip.local.asks, self.gossip.local.heard = self.evidence.asks, self.evidence.spoken
        self.gossip.local.misses = self.evidence.misses
        self.coverage = Coverage(self.gossip, self.evidence, self.exchanges, definition_clock)
        self.explanations = Explanations(self.gossip, self.evidence, self.coverage, self.evaluator, self.rates)
        self.verdict_history = VerdictHistory(self.gossip, self.evaluator, now, self.evidence.is_seen)
        self.decisions = Decisions(
            settings.name, self.evaluator.decide, disabled=self._disabled_in_all, now=now, kept=settings.keep_decisions
        )
        self.convergence = Convergence(self.gossip, self.evidence)
        self.overview = NodeOverview(self.gossip, self.rates, self.evaluator, self.evidence)
        self.missed = MissedNodes(settings.name)
        self.diagnosis = Diagnosis(
            self.gossip, self.evidence, self.exchanges, self.missed, self.persistence,
            seeds=settings.connect, max_skew=settings.max_skew, file=store_file, probes=self.probes,
            measured=lambda: self.measurements.fresh(steady_ns() if clock is None else clock()),
            links=settings.links, folder=settings.identity,
            listen=settings.listen, endpoints=lambda: self.transport.endpoints, is_loopback=is_loopback,
            link_kinds=lambda: link_kinds(self.transport), lacks_servers=lambda: standing(self.transport).lacks_servers,
            foreign=lambda: standing(self.transport).foreign,
        )  # fmt: skip

        self.diagnosis.last = self.evaluator.last

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
        self.teller = Teller(
            self.gossip,
            Webhooks(),
            destinations=settings.destinations,
            outlook=Outlook(self._tellers, self._unreached, self._waits_to_tell),
            write=self._write_told,
            now=now,
        )
        self.alerts = AlertEngine(
            settings.alert,
            Conditions(self._facts(definition_clock)),
            teller=self.teller,
            file=None if store_file is None else store_file.with_name(f"{store_file.name}.alerts.json"),
            notify=self.publisher.alert,
            now=now,
            fleet_rules=self.gossip.state.alert_rules,
            half_lives=settings.half_lives,
            durable=self._told_is_on_disk,
            monotonic=lambda: monotonic() / SECOND,
        )
        self.fleet_alerts = FleetAlerts(
            self.gossip, self.alerts, self.teller, commit=self._commit_as, actor=lambda: self.feed.actor
        )
        self.gossip.state.silences.watch(self.publisher.silence)
        self.rollouts = NodeRollouts(
            self.gossip, self.feed, self.evaluator.judge, others=self.evidence, push=self.exchanges.push,
            publish=self.publisher.publish, now=self.evaluator.now, check_call=check_call,
        )  # fmt: skip
        self.notices = Notices(self.gossip, self.exchanges, self.evaluator, self.persistence)

        # The background.
        self.tasks = Tasks(settings.name)
        self.membership = Membership(
            settings, self.gossip, self.transport, self.exchanges, self.feed,
            self.publisher, self.missed, self.diagnosis, self.tasks.once,
        )  # fmt: skip
        if self.gossip.authority is not None:
            self.gossip.authority.on_fork = self.membership.tell_fork
        if self.identity is not None:
            self.certificates = self.membership.certificates = _certificates(self, self.identity, credentials, now)
            self.diagnosis.certified = self.certificates
        self.maintenance = Maintenance(
            settings,
            self.gossip,
            self.persistence,
            self.feed,
            self.exchanges,
            self.rates,
            self.publisher.publish,
            self.publisher.has_ends,
        )
        self.budgets = NodeBudgets(
            self.gossip,
            self.feed,
            self.persistence,
            self.exchanges,
            self.transport,
            check_call,
            self.tasks.once,
            self.publisher.publish,
            monotonic,
            self.evidence.through,
        )
        self.guards = Guards(self.gossip, self.evaluator)
        self.actions = Actions(
            settings.action,
            gossip=self.gossip,
            evaluator=self.evaluator,
            destinations=settings.destinations,
            transport=self.transport,
            file=None if store_file is None else store_file.with_name(f"{store_file.name}.actions.json"),
            now=now,
        )
        self.lag = LoopLag()

        # Reports on all of it.
        self.answers = Answers(
            self.gossip,
            self.feed,
            self.exchanges,
            self.evaluator,
            definition_clock,
            self.transport,
            self.persistence,
            self.maintenance.removals,
            self.measurements,
            self.alerts,
            settings.links,
            self.events.log,
            self.verdict_history,
            lambda ids: self.diagnosis.undecidable(ids)[0],
            self.diagnosis.faults,
            self.rollouts.active,
        )
        self.metrics = RuntimeMetrics(
            self.gossip, self.exchanges, self.evaluator, self.persistence, self.events, self.lag, self.sources
        )
        self._subscribe()

    def _disabled_in_all(self) -> int:
        """The number of active constraints that are disabled. O(1) without any, else O(active constraints)."""
        constraints, switches = self.gossip.state.constraints, self.gossip.state.switches
        return sum(id_ in switches for id_ in constraints) if switches.disabled else 0

    def _subscribe(self) -> None:
        """Subscribe the parts, in the order of the calls."""
        feed, written, received, committed = self.feed, ChangeOrigin.WRITTEN, ChangeOrigin.RECEIVED, ChangeOrigin.COMMITTED
        feed.subscribe(self.evidence.changed, written, received)
        feed.subscribe(self.persistence.changed, written, received)
        feed.subscribe(self.membership.changed, received)
        feed.subscribe(self._replaced, received)
        feed.subscribe(self.publisher.changed, *(origin for origin in ChangeOrigin if origin is not committed))
        feed.subscribe(self.exchanges.changed, committed, received)
        feed.subscribe(self.budgets.changed, received, ChangeOrigin.RESTORED)
        # Findings about a redefined constraint are dropped at once, before the next reading.
        feed.definitions.subscribe(self.evaluator.judge.redefine)
        feed.definitions.subscribe(self.actions.redefined)
        feed.definitions.subscribe(self.guards.redefine)
        self.evaluator.subscribe(self.notices.note)
        self.evaluator.subscribe(self.guards.note)
        if self.settings.action:
            self.evaluator.subscribe(self.actions.note)
        self.events.listen(self.notices.note_event)
        self.persistence.subscribe(self.publisher.health_changed)
        self.persistence.subscribe(self.membership.tell_trouble)
        self.persistence.on_rollback = self.publisher.rolled_back
        self.diagnosis.further += [
            self.persistence.findings, self.budgets.findings, self.actions.findings, self.rollouts.findings, self._source_findings,
            self._alert_findings,
        ]  # fmt: skip

    def _replaced(self, change: NodeChange) -> None:
        """Write again the cells that only the replaced row of this node had, soon: a subscriber does not write."""
        if change.result is not None and change.result.replaced is not None:
            self.tasks.once("writing again", self._write_again(change.result.replaced))

    async def _write_again(self, replaced: OwnReplaced) -> None:
        written = self.feed.write(lambda: self.gossip.write_again(replaced))
        _log.warning("%d definitions and removals of %s were only here: written again by its new life", written, replaced.replica)
        self.exchanges.push()

    async def _commit(self, mutate: Callable[[], Result]) -> Result:
        """Commit a write of a part that users call. `Node` checks its own methods."""
        self._check_call()
        return await self.feed.commit(mutate)

    async def _commit_as(
        self, mutate: Callable[[], Result], operation: str, subject: str, subjects: Sequence[Subject] = ()
    ) -> Result:
        """The same, with an entry of the audit, and what the subjects were in the history."""
        self._check_call()
        return await self.feed.commit(mutate, operation, subject, subjects=subjects)

    # --- life --------------------------------------------------------------------------------------------------------

    async def start(self, *, rejoin: bool) -> None:
        """See `Node.start`."""
        await self.open(rejoin=rejoin)
        self.feed.held = self._resumes_among_others()
        self.membership.hear_of_retirement()
        if self.feed.held:
            self.tasks.once("first contact", self._meet())
        else:
            self.membership.describe()
        self._begin_tasks()
        if self.certificates is not None:
            await self.certificates.begin()
            self.membership.shut_out_revoked()
        if self.settings.links in ("none", "mixed"):
            why = "not protected" if self.settings.links == "none" else "open, as --accept-plain takes nodes without a certificate"
            _log.warning("the links of %s are %s: who reaches the port of a node can change everything", self.settings.name, why)
        _log.info("%s joined fleet %s as %s", self.settings.name, self.settings.fleet, self.gossip.replica)

    async def open(self, *, rejoin: bool = False) -> None:
        """Load the store and join the fleet. No task runs in the background yet."""
        self.membership.begin()
        self._began = time.monotonic()
        aside = await self.persistence.open(rejoin=rejoin)
        if aside is not None:
            _log.warning("the old store is kept as %s", aside)
        self.feed.restore()
        clock_set_by = self.persistence.tell()
        if abs(clock_set_by) >= STEP:
            self.maintenance.clock.tell_step(clock_set_by, " while this node was down")
        self.evaluator.begin()
        self.rollouts.recall()
        self.evidence.begin()
        await self.alerts.load()
        await self.actions.load()
        await self.spell_file.load()
        self.gossip.labels = dict(self.settings.all_labels)  # a recording begins with them, before the node joins
        try:
            self.recorder.open()
            self.measurement_recorder.open(self.evaluator.judge, self.measurements, self.evaluator.now())
            if self.certificates is not None:
                self.certificates.load()
            await self.membership.join()
        except BaseException:
            await self.persistence.close()
            raise
        self.answers.begin()

    def _resumes_among_others(self) -> bool:
        """The node goes on with a life of which other nodes may know more.

        Nothing inside of a machine that was put back as a whole, memory included, shows that it was.
        """
        local, rows = self.gossip.local, self.gossip.state.rows
        alone = rows.writers <= {local.node_id, *self.gossip.state.retirements.nodes}
        return bool(local.resumed and local.goes_on and (not alone or self.settings.connect))

    async def _meet(self) -> None:
        """Write nothing that no user asked for before the clock of a peer is known, or `FIRST_CONTACT` is over."""
        tracker, ends = self.gossip.tracker, time.monotonic() + FIRST_CONTACT
        while all(tracker.clock(name) is None for name in tracker) and time.monotonic() < ends:  # noqa: ASYNC110 - a moment
            await asyncio.sleep(LOOK_FOR_CONTACT)
        self._release()

    def _release(self) -> None:
        if self.feed.held:
            self.feed.held = False
            self.membership.describe()

    def _begin_tasks(self) -> None:
        settings, tasks = self.settings, self.tasks
        # Until the constraints of the store were read no answer has the states of this node.
        tasks.once("loading", self.evaluator.renew())
        tasks.run("rounds", self.exchanges.run_rounds)
        tasks.run("pushes", self.exchanges.run_pushes)
        tasks.run("meetings", self.exchanges.run_meetings)
        tasks.run("events", self.publisher.run)
        tasks.run("loop lag", lambda: self.lag.run(pause=tasks.pause))
        tasks.run("fleet constraints", self.evaluator.run_fleet)
        tasks.run("readings", self.evaluator.run_readings)
        tasks.run("parameters", self.evaluator.run_parameters)
        if settings.action:
            self.actions.begin()
            tasks.repeat("actions", ACTIONS_EVERY, self.actions.keep)
        for name, every, step in self.rule_steps():
            tasks.repeat(name, every, step)
        tasks.repeat("rollouts", ROLLOUTS_EVERY, self.rollouts.step)
        tasks.run("verdicts", self.evaluator.run_verdicts)
        tasks.repeat("spells", settings.count_every, self.spell_file.save)
        tasks.repeat("times", TIMES_EVERY, self.evaluator.write_times)
        tasks.run("expiry", self.maintenance.run_expiries)
        tasks.repeat("expired constraints", REMOVE_EVERY, self.maintenance.remove_expired)
        tasks.repeat("courses", SAMPLE_EVERY, self.verdict_history.sample)
        tasks.repeat("sketches", settings.rate_every, self.evaluator.write_sketches)
        tasks.repeat("folds", FOLD_EVERY, self.maintenance.fold)
        tasks.repeat("purges", PURGE_EVERY, self.maintenance.purge)
        if settings.retire_away_after:
            tasks.repeat("away nodes", RETIRE_EVERY, self.retire_away)
        tasks.repeat("budgets", BUDGETS_EVERY, self.budgets.tend)
        tasks.repeat("removals", REMOVE_EVERY, self.maintenance.drop_removals)
        if settings.identity:
            tasks.run("links", self._watch_links)
        if self.certificates is not None:
            tasks.repeat("certificates", LINKS_EVERY, self.certificates.look)
        tasks.repeat("links to nodes", VIEW_EVERY, self.membership.look_at_links)
        for probe in self.probes:
            tasks.run(f"probe {probe.name}", probe.run)
        for source in self.sources:
            tasks.run(f"source {source.name}", source.run)

    def _source_findings(self) -> Iterator[Finding]:
        if self.sources:
            yield find_trouble(self.sources)

    def _alert_findings(self) -> Iterator[Finding]:
        hooks = self.teller.webhooks
        if failed := hooks.failing():
            failing = named([f"{place} ({why})" for place, why in failed.items()])
            what = f"alerts are not taken by {failing}; {counted(hooks.waiting, 'message', 'waits', 'wait')}"
            advice = (
                "see that these addresses are right and answer: the messages are sent again, also by other nodes that have them"
            )
            yield Finding(check="alerts", level="warn", what=what, advice=advice)

    def rule_steps(self) -> Sequence[tuple[str, float, Callable[[], Coroutine[object, object, None]]]]:
        """The steps by which time moves verdicts and alerts, in their order: the name, the seconds between two, and the step."""
        settings, evaluator = self.settings, self.evaluator
        return (
            ("new constraints", settings.check_every, evaluator.renew),
            ("ticks", settings.check_every, evaluator.tick),
            ("counts", settings.count_every, evaluator.write_counts),
            ("rates", settings.rate_every, evaluator.write_rates),
            ("alerts", LOOK_EVERY, self._check_alerts),
        )

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

    async def retire(self, name: str, *, undo: bool = False, why: str = "") -> None:
        """Retire a node, or undo it. See `Node.retire`."""
        change = partial(self.gossip.undo_retirement if undo else self.gossip.retire, name)
        await self.feed.commit(change, "undo retire" if undo else "retire", name, why=why)
        if not undo:
            await self.budgets.retire(name)
        kind = EventKind.RETIREMENT_UNDONE if undo else EventKind.RETIRED
        self.publisher.publish(kind, node=name, actor=self.feed.actor, by=self.settings.name, why=why or self.feed.why)

    async def retire_away(self) -> None:
        """Retire the nodes that were not heard of for `retire_away_after`, unless this node is alone, and may be cut off."""
        if not self.exchanges.live:
            return
        after, uptime = self.settings.retire_away_after, self.answers.status(self.convergence).uptime
        for name in away_nodes(self.answers.nodes(self.convergence), after, uptime, time.time()):
            with acting_as("retire_away_after"):
                try:
                    await self.retire(name)
                except ConstraintCrdtError as error:  # such as a node that is no operator
                    _log.warning("%s was away for %g s and is not retired: %s", name, after, error)
                    return
            _log.warning("%s was not heard of for %g s and is retired (retire_away_after)", name, after)

    def _facts(self, definition_clock: DefinitionClock) -> Facts:
        """The facts that the kinds of alerts read."""
        return Facts(
            self.gossip, self.evidence, self.coverage, self.convergence, self.rates, definition_clock,
            budgets=self._budget_reports,
            monotonic=self._alert_clock,
            certificates=lambda: {} if self.certificates is None else {
                name: member.ends for name, member in self.certificates.members().items()
            },
        )  # fmt: skip

    def _budget_reports(self) -> Sequence[BudgetReport]:
        return self.budgets.reports()

    def _tellers(self) -> Set[str]:
        """The nodes that run, as far as this node sees, and may tell alerts."""
        evidence = self.evidence
        return {node for node in self.gossip.state.ways_out if evidence.is_seen(node) or evidence.through(node) is not None}

    def _write_told(self, mutate: Callable[[], object]) -> None:
        """Write the messages told of alerts, and let peers know at once."""
        self.feed.write(mutate)
        self.exchanges.push()

    async def _told_is_on_disk(self) -> None:
        """Wait until the messages told of alerts are on disk; not for long, since a disk that hangs must not silence alerts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISK_PATIENCE):
                await self.persistence.settled()

    def _unreached(self) -> Sequence[str]:
        """The nodes that neither this node nor a live peer hears."""
        evidence = self.evidence
        return [name for name in evidence.names if not evidence.is_seen(name) and evidence.through(name) is None]

    def _waits_to_tell(self) -> bool:
        """Peers are there and none has spoken yet, so messages told of alerts meanwhile are not known."""
        if time.monotonic() - self._began > FIRST_CONTACT:
            return self.feed.held
        live = set(self.exchanges.live)
        return self.feed.held or (bool(live or self.settings.connect) and not any(map(self.evidence.heard_at, live)))

    async def _check_alerts(self) -> None:
        self.evidence.drop_gone()
        await self.alerts.step()

    async def _within_reason(self, saving: Coroutine[object, object, None]) -> None:
        """Save a file beside the store, unless the disk hangs."""
        try:
            async with asyncio.timeout(DISK_PATIENCE):
                await saving
        except TimeoutError:
            self.persistence.abandoned = True
            _log.error("the disk does not answer: a file beside the store is not written")

    async def relabel(self, settings: NodeSettings) -> None:
        """The node has other labels: constraints that apply to it now are judged, and others no longer."""
        self.membership.relabel(settings)
        self.evaluator.judge.redefine(list(self.gossip.state.constraints))
        self.actions.redefined(self.gossip.state.constraints)
        await self.evaluator.renew()

    def replace_alerts(self, settings: NodeSettings) -> None:
        """The node has other alert rules or destinations."""
        self.teller.replace_destinations(settings.destinations)
        self.actions.add_destinations(settings.destinations)
        self.alerts.replace_rules(settings.alert)

    async def stop(self) -> None:
        """See `Node.stop`."""
        if await self.tasks.stop():
            self._release()
            await self.evaluator.write_counts()
            await self.evaluator.write_times()
            await self.evaluator.write_verdicts(final=True)
            await self._within_reason(self.spell_file.save(final=True))
            await self.evaluator.write_sketches()
            await self.evaluator.write_rates()
            self.budgets.close()
            try:
                async with asyncio.timeout(FAREWELL):
                    await self.exchanges.push_now()
                    await self.exchanges.finish()
            except TimeoutError:
                _log.info("%s left without telling its last counts: no peer answered in time", self.settings.name)
        await self.exchanges.close()
        await self._within_reason(self.alerts.close())
        await self._within_reason(self.actions.close())
        if self.certificates is not None:
            await self.certificates.close()
        await self.transport.close()
        await self.persistence.close()
        self.recorder.close()
        self.measurement_recorder.close()
        await self.publisher.finish()
        self.events.close()


def _gossip_node(
    settings: NodeSettings,
    now: Callable[[], int],
    credentials: Credentials | None,
    steady: Callable[[], int] | None,
) -> GossipNode:
    return MachineNode(
        settings.name, now=now, fleet=settings.fleet, max_skew=settings.max_skew, credentials=credentials, steady=steady
    )


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
        routers=settings.routers,
        routers_above=settings.routers_above,
    )


def _load_identity(settings: NodeSettings, now: Callable[[], int]) -> "Identity":
    from constraint_crdt.identity.directory import load_identity

    return load_identity(Path(settings.identity), now())
