"""Events and notices, for programs and screens following a node.

An event is an occurrence (`EventKind`). Each subscriber of the stream has a bounded queue: a slow subscriber loses the oldest
events, gets their number, and never delays the node or other subscribers. The last events are kept, each with an id, so that
readers can resume.

`EventPublisher` makes the events of a node:

- Few changes of definitions and tiles are published at once. Of many, `AT_ONCE` are published in a turn of the loop, so that
  100,000 constraints arriving together delay no exchange and no answer, and readers keep up. `run` publishes the rest.
- No change is left out or published twice: see `change_feed` and `tiles` for the content and the order.
- The change of a constraint precedes other events about the constraint: "violated" never precedes "added".
- "violated" has the values and the margin of its first evaluation in the detail, "satisfied" the length of the violation.

`Notices` reports changed readings to screens. The state hash and a version together stand for all readings. The version grows when
readings change and the state does not: an expiry, another verdict, a peer arriving, leaving or giving evidence. Aging values
(decayed rates, uptime, sizes) change neither.
"""

import asyncio
import logging
import re
import secrets
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from constraint_crdt.alerts import AlertRule
from constraint_crdt.alerts.delivery import Alert
from constraint_crdt.crdt.cells import Cell, core, registered
from constraint_crdt.crdt.clock import SECOND, Dot, StateHash
from constraint_crdt.crdt.limits import whole_number
from constraint_crdt.crdt.signed_rows import SIGNATURE
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.expression.judgement import Turn
from constraint_crdt.insight.diagnosis import named
from constraint_crdt.insight.evidence import LoggedChange
from constraint_crdt.model import KEPT, Event, EventKind, Mode, Notice, check_kinds, counted
from constraint_crdt.operations.constraints import field_changes
from constraint_crdt.operations.operation import show_length, show_values
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode
from constraint_crdt.runtime.change_feed import ChangeFeed, ChangeOrigin, DefinitionChange, NodeChange
from constraint_crdt.runtime.evaluation import Evaluator
from constraint_crdt.runtime.exchange_loop import ExchangeLoop
from constraint_crdt.runtime.persistence import Persistence
from constraint_crdt.types.alerts import Silence
from constraint_crdt.types.counters import COUNTS
from constraint_crdt.types.decay import RATE
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.nodes import AuditEntry
from constraint_crdt.types.orset import ALL, SWITCH, Turned, strictest
from constraint_crdt.types.parameters import told_setting
from constraint_crdt.types.verdicts import VIOLATED_STATES, NodeVerdict

__all__ = ["Event", "EventKind", "EventLog", "EventPublisher", "EventStream", "KeptEvent", "Notice", "Notices", "Resumed"]

MOST_DETAIL = 1000
"""Characters of the old and new values in an event, at most."""

QUEUED = 1024
"""Events in the queue of a subscriber, at most."""

KEPT_BYTES = 8 * 1024 * 1024
"""Bytes of the text of the kept events, at most."""

EVENT_BYTES = 100
"""Bytes counted for an event beside its text."""


class KeptEvent(NamedTuple):
    """An event and its id: the id of the start of the node, a hyphen, and the number of the event from 1."""

    id: str
    event: Event


class Resumed(NamedTuple):
    """The events after an event."""

    events: list[KeptEvent]
    missed: int | None
    """Dropped events in between; None if unknown, because the id is of another start."""


_ID = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})", re.ASCII)


class EventLog:
    """The last events of a start of a node."""

    def __init__(self, *, most: int = KEPT, most_bytes: int = KEPT_BYTES) -> None:
        self.boot = secrets.token_hex(4)
        """The id of this start of the node."""
        self._most = most
        self._most_bytes = most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._last = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def last_id(self) -> str:
        """The id of the last event; of number 0 before the first."""
        return f"{self.boot}-{self._last}"

    def append(self, event: Event) -> KeptEvent:
        """Keep an event, and drop the oldest beyond the bounds."""
        self._events.append(event)
        self._bytes += _size(event)
        self._last += 1
        while len(self._events) > self._most or self._bytes > self._most_bytes:
            self._bytes -= _size(self._events.popleft())
        return KeptEvent(self.last_id, event)

    def newest(self, count: int, kinds: Collection[str] = ()) -> list[KeptEvent]:
        """The last events, `count` at most, oldest first. `kinds`: only events of these kinds; empty: of all."""
        if kinds:
            found = ((self._last - behind, each) for behind, each in enumerate(reversed(self._events)) if each.kind in kinds)
            return [KeptEvent(f"{self.boot}-{number}", each) for number, each in reversed(list(islice(found, count)))]
        first = max(len(self._events) - count, 0)
        number = self._last - len(self._events) + first + 1
        return [KeptEvent(f"{self.boot}-{number + place}", each) for place, each in enumerate(islice(self._events, first, None))]

    def after(self, id_: str) -> Resumed:
        """The events after the event of this id. For an id of another start, or no id: all kept events."""
        found = _ID.fullmatch(id_)
        if found is None or found[1] != self.boot or int(found[2]) > self._last:
            return Resumed(self.newest(len(self._events)), None)
        behind = self._last - int(found[2])
        return Resumed(self.newest(behind), max(behind - len(self._events), 0))


def _size(event: Event) -> int:
    texts = (event.constraint, event.node, event.room, event.tile, event.detail, event.actor, event.by, event.why)
    return EVENT_BYTES + 4 * sum(map(len, texts))  # a character has at most 4 bytes


class _Subscriber:
    def __init__(self, kinds: frozenset[str]) -> None:
        """`kinds`: those to deliver; empty: all."""
        self.kinds = kinds
        self.queue: deque[Event] = deque(maxlen=QUEUED)
        self.missed = 0
        self.ready = asyncio.Event()


class EventStream:
    """Delivers each event to all subscribers, and keeps the last events."""

    def __init__(self) -> None:
        self.log = EventLog()
        """The last events."""
        self.counts: Counter[EventKind] = Counter()
        """Events of each kind since the start."""
        self._subscribers: set[_Subscriber] = set()
        self._listeners: list[Callable[[KeptEvent], None]] = []
        self._closed = False

    def publish(self, event: Event) -> None:
        """Deliver an event to the present subscribers."""
        self.counts[event.kind] += 1
        kept = self.log.append(event)
        for listener in self._listeners:
            listener(kept)
        for subscriber in self._subscribers:
            if subscriber.kinds and event.kind not in subscriber.kinds:
                continue
            if len(subscriber.queue) == QUEUED:
                subscriber.missed += 1
            subscriber.queue.append(event)
            subscriber.ready.set()

    def listen(self, listener: Callable[[KeptEvent], None]) -> None:
        """Call `listener` with each event from now on. The listener neither raises nor waits."""
        self._listeners.append(listener)

    def ignore(self, listener: Callable[[KeptEvent], None]) -> None:
        """Call `listener` no longer. Raises `ValueError` for a listener not called so far."""
        self._listeners.remove(listener)

    def close(self) -> None:
        """End each iteration after the events in its queue."""
        self._closed = True
        for subscriber in self._subscribers:
            subscriber.ready.set()

    def subscribe(self, last: int = 0, kinds: Collection[str] = ()) -> AsyncIterator[Event]:
        """The events from now on, until the node stops, after the `last` events before. `kinds`: only those; empty: all.

        Raises `ConstraintCrdtError` for a wrong number or an unknown kind.
        """
        most = whole_number(last, "last")
        if not 0 <= most <= KEPT:
            raise ConstraintCrdtError(f"last is from 0 to {KEPT}, as many events as a node keeps, not {last}", field="last")
        chosen = check_kinds(kinds)
        past, subscriber = self.log.newest(most, chosen), _Subscriber(chosen)
        self._subscribers.add(subscriber)
        return self._follow(subscriber, [each.event for each in past])

    async def _follow(self, subscriber: _Subscriber, past: Sequence[Event]) -> AsyncIterator[Event]:
        try:
            for event in past:
                yield event
            while True:
                while subscriber.queue:
                    if subscriber.missed:
                        count, subscriber.missed = subscriber.missed, 0
                        yield Event(kind=EventKind.MISSED, time=subscriber.queue[0].time, detail=counted(count, "event"))
                        continue
                    yield subscriber.queue.popleft()
                if self._closed:
                    return
                subscriber.ready.clear()
                await subscriber.ready.wait()
        finally:
            self._subscribers.discard(subscriber)


AT_ONCE = 250
"""Constraints, and tiles, published in a turn of the loop: two turns fit into the backlog of the slowest reader allowed."""

_log = logging.getLogger("constraint_crdt.node")


class TileChanges(Protocol):
    """The tiles whose content changed."""

    waiting: bool
    """True if changes were not published yet."""

    def tell(self, time: int, most: int | None = None, *, publish: bool = True) -> None:
        """Publish the changes of `most` tiles, at `time` in ns since the epoch; with `publish` False, only mark them published."""


class EventPublisher:
    """Publishes the events of a node."""

    def __init__(
        self,
        events: EventStream,
        gossip: GossipNode,
        feed: ChangeFeed,
        tiles: TileChanges,
        verdict: Callable[[str], NodeVerdict | None],
        removals: Callable[[str], Sequence[LoggedChange]],
        *,
        max_skew: float,
        now: Callable[[], int],
    ) -> None:
        """`verdict`: that of this node on a constraint. `removals`: those of a constraint, the newest last. `max_skew`: the
        tolerated difference of clocks, in seconds. `now`: the time in ns since the epoch.
        """
        self._events = events
        self._gossip = gossip
        self._feed = feed
        self._definitions = feed.definitions
        self._tiles = tiles
        self._verdict = verdict
        self._removals = removals
        self._rows = gossip.state.rows
        self._audit = gossip.state.audit
        self._violated: dict[str, int] = {}
        """The constraints in a violated state, with the beginning in ns since the epoch."""
        self._max_skew = max_skew
        self._now = now
        self._parameters = gossip.state.parameters
        self._settings: dict[str, dict[str, str]] = {}
        """The settings as last published, by parameter and selector."""
        self._reset = set(self._parameters)
        """The parameters with settings that may have changed since."""
        self._parameters.subscribe(self._reset.add)
        self._more = asyncio.Event()
        self._constraints = gossip.state.constraints
        self.has_ends = asyncio.Event()
        """A constraint had an end after a change, since this was cleared."""
        self._behind = False

    def publish(
        self,
        kind: EventKind,
        *,
        constraint: str = "",
        node: str = "",
        budget: str = "",
        detail: str = "",
        actor: str = "",
        by: str = "",
        why: str = "",
    ) -> None:
        """Publish an event, after an unpublished change of its constraint."""
        if constraint and (change := self._definitions.take_of(constraint)) is not None:
            self._publish_definition(change)
        event = Event(
            kind=kind, time=self._now(), constraint=constraint, node=node, budget=budget, detail=detail, actor=actor, by=by, why=why
        )
        self._events.publish(event)

    def changed(self, change: NodeChange) -> None:
        """Publish the events of a change. See `ChangeFeed`."""
        if change.origin is ChangeOrigin.RESTORED:
            self._definitions.take()
            self._feed.take_turned()
            self._tiles.tell(self._now(), publish=False)
            self._publish_parameters(silently=True)
            return
        if change.renewed is not None:
            before, after = change.renewed
            detail = f"{after} goes on from {before}, which may have written more than is known here"
            self.publish(EventKind.NEW_LIFE, node=self._gossip.node_id, detail=detail)
        if change.result is not None:
            self._received(change.peer, change.result)
        for turn in change.turns:
            self._turned(turn)
        if self._reset:
            self._publish_parameters()
        if change.state_changed and not self._behind:
            self._publish_some()
        for turned in self._feed.take_turned():
            self._switched(turned)

    def _switched(self, turned: Turned) -> None:
        """Publish that a constraint was disabled, or enabled."""
        cause, after = turned.cause, turned.after
        detail = ["all constraints"] if turned.id == ALL else []
        if after is not None:
            detail += [] if after.until is None else [f"for {show_length((after.until - self._now()) / SECOND + 0.5)}"]
        elif cause is not None and cause.disabled:
            detail += ["its time is over"]
        ended = after is None and cause is not None and cause.disabled
        self.publish(
            EventKind.ENABLED if after is None else EventKind.DISABLED,
            constraint=turned.id,
            detail="; ".join(detail),
            actor="" if cause is None or ended else cause.actor,
            by="" if cause is None or ended else cause.replica.node_id,
            why="" if cause is None or ended else cause.why,
        )

    def _publish_parameters(self, *, silently: bool = False) -> None:
        """Publish the changed settings; or only mark them published."""
        for name in sorted(self._reset):
            after = {each.text: told_setting(each) for each in self._parameters.settings(name)}
            before = self._settings.get(name, {})
            self._settings[name] = after
            for text in sorted(before.keys() | after.keys()) if not silently else ():
                if before.get(text) != after.get(text):
                    self._publish_setting(name, text, before.get(text), after.get(text))
        self._reset.clear()

    def _publish_setting(self, name: str, text: str, before: str | None, told: str | None) -> None:
        """`before`, `told`: the setting as text, before and now; None: there was none, or is none now."""
        entry = max(filter(None, map(self._audit.of, self._parameters.dots(name, text))), default=None)
        actor, by = ("", "") if entry is None else (entry.actor, entry.dot.replica.node_id)
        where = f" on {text}" if text else ""
        detail = told or f"{name}{where} is unset"
        detail += "" if before is None else f", before {before.removeprefix(f'{name} = ').replace(where, '', 1)}"
        self.publish(EventKind.PARAMETER, detail=detail, actor=actor, by=by)

    def _turned(self, turn: Turn) -> None:
        """Publish the beginning of a violation with its values, the end with its length; nothing of a constraint of mode audit."""
        id_, me = turn.constraint, self._gossip.node_id
        mode = strictest(self._gossip.state.definitions_on(id_, self._gossip.labels))
        if turn.began and mode is Mode.AUDIT:
            return
        if turn.began:
            self.publish(EventKind.VIOLATED, constraint=id_, node=me, detail=self._begun(id_))
        elif turn.after not in VIOLATED_STATES:
            since = self._violated.pop(id_, None)
            if turn.ended and mode is not Mode.AUDIT:
                length = "" if since is None else f"after {show_length(max(0, self._now() - since) / SECOND)}"
                self.publish(EventKind.SATISFIED, constraint=id_, node=me, detail=length)

    def _begun(self, id_: str) -> str:
        """The values and the margin of a violation."""
        verdict = self._verdict(id_)
        if verdict is None or verdict.state not in VIOLATED_STATES:  # several turns at once
            self._violated[id_] = self._now()
            return ""
        self._violated[id_] = verdict.since
        values = show_values(dict(verdict.inputs), verdict.margin, verdict.share, verdict.variable)
        return "; ".join(part for part in (values, verdict.reason) if part)

    def alert(self, rule: AlertRule, alert: Alert, *, fired: bool) -> None:
        """Publish an alert, fired or resolved."""
        subject = {rule.about: alert.subject} if rule.about in ("constraint", "node") else {}
        name = f"{rule.name}: {alert.subject}" if rule.about == "budget" else rule.name
        detail = f"{name}: {alert.detail}" if fired else name
        self.publish(EventKind.ALERT if fired else EventKind.ALERT_RESOLVED, detail=detail, **subject)

    def silence(self, before: Silence | None, after: Silence | None) -> None:
        """Publish a silence or an acknowledgement, new or ended early. A silence that is over already is not told."""
        silence = after or before
        if silence is None or silence.value.until <= self._gossip.time.now():
            return
        value = silence.value
        what = f"{value.alert}/{value.subject} is acknowledged" if silence.acknowledges else f"{value.alert} is silenced"
        parts = [f"{silence.id}: {what}{' on ' + value.on if value.on else ''}", value.why]
        kind = EventKind.SILENCED if after is not None else EventKind.SILENCE_ENDED
        detail = "; ".join(part for part in parts if part)
        self.publish(kind, detail=detail, actor=value.actor, by=silence.dot.replica.node_id)

    def health_changed(self, trouble: str | None) -> None:
        """Publish the reason for refused writes, or the recovery (None)."""
        if trouble is None:
            _log.info("writes are taken again")
            self.publish(EventKind.RECOVERED)
        else:
            _log.error("writes are refused: %s", trouble)
            self.publish(EventKind.TROUBLE, detail=trouble)

    def rolled_back(self, sentence: str) -> None:
        """Publish a finding on lost writes."""
        self.publish(EventKind.ROLLED_BACK, node=self._gossip.node_id, detail=sentence)

    async def run(self) -> None:
        """Publish the changes left over by the first turn, in further turns of the loop. Never returns."""
        while True:
            await self._more.wait()
            await self.finish()

    async def finish(self) -> None:
        """Publish all changes up to now, and those made meanwhile."""
        while self._behind:
            await asyncio.sleep(0)  # lets other tasks run; nothing is waited for
            self._publish_some()

    def _received(self, peer: str, result: GossipResult) -> None:
        if result.diverged:
            _log.error("%s has the same clock as this node and another hash: the state of one of the two is corrupted", peer)
            self.publish(EventKind.DIVERGED, node=peer)
        if result.mended:
            repaired = self._gossip.cells_repaired
            _log.warning("repaired the state here with what %s holds: %d cells so far", peer, repaired)
            self.publish(EventKind.REPAIRED, node=peer, detail=f"{counted(repaired, 'cell')} so far")
        if result.skew is not None:
            _log.warning(
                "the clock of %s is %+.1f s ahead of this node's, and may be %g s: it counts for nothing here",
                peer, result.skew, self._max_skew,
            )  # fmt: skip
            self.publish(EventKind.CLOCK_SKEW, node=peer, detail=f"{result.skew:+.1f} s")

    def _publish_some(self) -> None:
        """Publish the next changes. Contains no await, so a cancelled caller has published all changes taken."""
        definitions = self._definitions
        for change in definitions.take(AT_ONCE):
            self._publish_definition(change)
        more = definitions.waiting
        if self._tiles.waiting:
            self._tiles.tell(self._now(), AT_ONCE)
        if self._constraints.ends:
            self.has_ends.set()
        self._behind = more or self._tiles.waiting
        if self._behind:
            self._more.set()
        else:
            self._more.clear()

    def _publish_definition(self, change: DefinitionChange) -> None:
        kind, id_, when, in_conflict, former = change
        actor, by, why = self._cause(kind, id_)
        definitions = self._constraints.definitions(id_) if former is not None else ()
        fields = field_changes((former,), definitions[0]) if former is not None and len(definitions) == 1 else ()
        told = "; ".join(f"{each.field}: {each.before or '-'} -> {each.after or '-'}" for each in fields)
        was = f"was {former.when}" if kind is EventKind.REMOVED and former is not None and former.when else ""
        detail = (told or was)[:MOST_DETAIL] or when
        self._events.publish(Event(kind=kind, time=self._now(), constraint=id_, detail=detail, actor=actor, by=by, why=why))
        if in_conflict:
            nodes = sorted({each.dot.replica.node_id for each in self._constraints.additions(id_)})
            detail = f"{in_conflict} definitions, by {named(nodes)}; all are in force"
            _log.warning("constraint %s is in conflict: %s, until one is kept (constraint-crdt resolve)", id_, detail)
            self._events.publish(Event(kind=EventKind.CONFLICT, time=self._now(), constraint=id_, detail=detail))

    def _cause(self, kind: EventKind, id_: str) -> tuple[str, str, str]:
        """The actor of a change of a constraint, the node of the actor, and the reason; empty if unknown."""
        latest: AuditEntry | None = None
        if kind is EventKind.REMOVED:
            for change in self._removals(id_)[-1:]:
                latest = self._audit.of(change.dot)
        elif kind is not EventKind.EXPIRED:
            for add in self._rows.held(ADD, id_):
                entry = self._audit.of(Dot(add.replica, add.seq))
                if entry is not None and (latest is None or entry > latest):
                    latest = entry
        return ("", "", "") if latest is None else (latest.actor, latest.dot.replica.node_id, latest.why)


MOST_NAMED = 100
"""Constraints, or nodes, named in a notice. A notice of more changes names none."""

_ABOUT_A_CONSTRAINT = frozenset((ADD, COUNTS, RATE, SWITCH))


class _Names:
    """A set of names with a bound."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        if len(self._names) <= MOST_NAMED:
            self._names.add(name)

    def take(self) -> tuple[str, ...] | None:
        names, self._names = self._names, set()
        return tuple(sorted(names)) if len(names) <= MOST_NAMED else None


class Notices:
    """Finds the changed readings of a node. Without readers the cost is a call per changed cell."""

    def __init__(self, gossip: GossipNode, exchanges: ExchangeLoop, evaluator: Evaluator, persistence: Persistence) -> None:
        self._gossip = gossip
        self._exchanges = exchanges
        self._evaluator = evaluator
        self._persistence = persistence
        self._seen: tuple[object, ...] = ()
        self._version = 0
        self._taken: tuple[StateHash, int] | None = None
        self._evidence: dict[str, tuple[int, StateHash | None]] = {}
        self._constraints = _Names()
        self._nodes = _Names()
        for kind in set(registered()) - {SIGNATURE}:  # which comes with other cells of its node
            gossip.state.rows.watch(kind, self._cell_changed, bulk=self._cells_came)

    @property
    def version(self) -> int:
        """Grows when readings change and the state does not. O(live peers)."""
        gossip = self._gossip
        constraints = gossip.state.constraints
        # `next_expiry` changes when an expiry has passed, after the constraints were read.
        seen = (
            len(constraints),
            constraints.next_expiry,
            gossip.tracker.changes,
            frozenset(self._exchanges.live),
            self._evaluator.changes,
            self._persistence.trouble,
        )
        if seen != self._seen:
            self._seen = seen
            self._version += 1
        return self._version

    @property
    def measured(self) -> int:
        """Grows when something is measured."""
        return self._evaluator.measured

    def note(self, constraint: str) -> None:
        """Readings of this constraint changed."""
        self._constraints.add(constraint)

    def note_event(self, kept: KeptEvent) -> None:
        """Readings of the constraint of an event changed."""
        if kept.event.constraint:
            self._constraints.add(kept.event.constraint)

    def take(self) -> Notice | None:
        """The changes since the last call; None if there are none."""
        gossip, version = self._gossip, self.version
        now = gossip.state_hash, version
        if now == self._taken:
            return None
        self._taken = now
        self._note_peers()
        return self._notice(version, self._constraints.take(), self._nodes.take())

    def now(self) -> Notice:
        """A notice without changes, for a new reader."""
        return self._notice(self.version, (), ())

    def _notice(self, version: int, constraints: tuple[str, ...] | None, nodes: tuple[str, ...] | None) -> Notice:
        gossip = self._gossip
        return Notice(
            hash=gossip.state_hash.hex(),
            constraints_hash=gossip.constraints_hash.hex(),
            version=version,
            constraints=constraints,
            nodes=nodes,
        )

    def _note_peers(self) -> None:
        """Find the peers with new evidence, and those arriving or leaving. O(live peers)."""
        before, tracker = self._evidence, self._gossip.tracker
        self._evidence = {}
        for name in self._exchanges.live:
            peer = tracker.peer(name)
            evidence = (peer.mark.count if peer and peer.mark else 0, peer.hash if peer else None)
            self._evidence[name] = evidence
            if before.pop(name, None) != evidence:
                self._nodes.add(name)
        for name in before:
            self._nodes.add(name)

    def _cells_came(self, cells: Sequence[Cell]) -> None:
        """Note new cells of a kind, each the only cell under its key."""
        for replica, _, _ in core.row_spans(cells):
            self._nodes.add(replica.node_id)
        if cells[0].kind in _ABOUT_A_CONSTRAINT:
            for cell in cells[: MOST_NAMED + 2]:  # one may be of no constraint, and one more than may be named is enough
                if cell.key:
                    self._constraints.add(str(cell.key))

    def _cell_changed(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is None:
            return
        self._nodes.add(cell.replica.node_id)
        if cell.kind in _ABOUT_A_CONSTRAINT and cell.key:
            self._constraints.add(str(cell.key))
