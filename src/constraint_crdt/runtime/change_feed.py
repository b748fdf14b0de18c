"""The change feed: applies every change of a node's state, and calls the other parts of the node in a stated order.

A change has an origin (`ChangeOrigin`): the node writes, a message of a peer is merged, time passes, the verdict state of a
constraint turns, the store is loaded, or a write of a user is on disk. After each change the feed finds the constraints with other
definitions in force, and calls the subscribers with a `NodeChange`, in the order of subscription, stated in `lifecycle`. A
subscriber neither raises nor waits.

`DefinitionChanges` compares the definitions of two moments with a whole state, because cells change many at a time, and some change
back within a transfer. A transfer may change more constraints than can be published at once, so there are two steps:

- `settle`, after each change: findings about a changed constraint are dropped before the next evaluation or reading. The
  definitions of new constraints, the majority, are not read.
- `take`, in batches: the changes to publish. Constraints come in the order of their changes, and by id within a change, each
  once. The definitions at the time of `take` are compared with the last published ones, so an undone change is not published.

An expiry is published once. The time of a node may go back a little (a fast peer was lost), so that an expired constraint is in
force again for a moment: neither this nor the second expiry is published. Where the time went back by more than the bound on the
skew of clocks (a wrong clock was set right), the constraint is published as added. An extension is published, because the
definition differs. An addition that had ended before it was heard of is published as an expiry, with this in its detail.

The audit: an entry after a change of constraints or membership tells its actor and its reason. The actor is that of `acting_as`,
else that of the node. The history keeps the state that the change replaced, in the same write (`types.orset`).

Batches of changes: for writers faster than a commit to disk per change.

Rules: a batch is checked as a whole against the state of an instant, and at that instant applied whole, in order, or not at
all. The counts of a batch are a single cell per constraint.
"""

import enum
import getpass
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, partial
from typing import NamedTuple, Protocol, cast

import msgspec

from constraint_crdt.crdt.cells import Cell, core
from constraint_crdt.crdt.clock import DEFAULT_MAX_SKEW, SECOND, Dot, Replica, check_id
from constraint_crdt.crdt.limits import MAX_COUNT
from constraint_crdt.errors import ConstraintCrdtError, ConstraintExists, InvalidType, WritesRefused
from constraint_crdt.expression import ExpressionError, compile_written
from constraint_crdt.expression.evaluation import NO_KINDS, is_known
from constraint_crdt.expression.judgement import Turn
from constraint_crdt.model import EventKind, Scope
from constraint_crdt.operations.constraints import (
    MAX_CHANGES,
    AddConstraint,
    BatchChange,
    BatchError,
    RecordCounts,
    RemoveConstraint,
)
from constraint_crdt.protocol.exchange_rules import GossipResult
from constraint_crdt.protocol.gossip_node import GossipNode, Result
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.counters import COUNTS, NODE_KEY, count_of, counts_value
from constraint_crdt.types.definition import (
    ADD,
    Definition,
    DefinitionFields,
    check_definition,
    check_selector,
    duration_ns,
    expiry_time,
    read_addition,
)
from constraint_crdt.types.orset import ALL, DOTS_PER_REMOVAL, Before, Subject, Turned, before_change, is_conflict


class ChangeOrigin(enum.Enum):
    """Why the state of a node, or a reading, changed."""

    WRITTEN = "written"
    """This node wrote."""
    RECEIVED = "received"
    """A message of a peer, or a state file, was merged."""
    ELAPSED = "elapsed"
    """Time passed, and constraints expired."""
    EVALUATED = "evaluated"
    """The verdict states of constraints turned."""
    RESTORED = "restored"
    """The store was loaded."""
    COMMITTED = "committed"
    """A write of a user is on disk, or was refused there. The state changed before, with `WRITTEN`."""


class NodeChange(NamedTuple):
    """A change."""

    origin: ChangeOrigin
    state_changed: bool = True
    """False: the message had nothing new, or only verdicts changed."""
    redefined: int = 0
    """The number of constraints whose definitions in force changed."""
    push: bool = False
    """Peers should hear of it at once."""
    renewed: tuple[Replica, Replica] | None = None
    """The former and the new replica, if this node began a new incarnation."""
    peer: str = ""
    """The node whose message was merged."""
    result: GossipResult | None = None
    """The result of merging its message."""
    turns: Sequence[Turn] = ()

    @property
    def heard(self) -> Sequence[tuple[str, int]]:
        """Nodes that the peer of the message hears, each with the ms since then."""
        return () if self.result is None else self.result.heard

    @property
    def diverged(self) -> bool:
        """True if the message showed this node's clock and another state."""
        return self.result is not None and self.result.diverged


_log = logging.getLogger("constraint_crdt.node")

_COMMIT = NodeChange(ChangeOrigin.COMMITTED, state_changed=False, push=True)

Subscriber = Callable[[NodeChange], None]


class Durability(Protocol):
    """Where changes have to be before anybody hears of them."""

    trouble: str | None
    """Why writes are refused; None if they are taken."""

    def durable(self) -> Awaitable[None]:
        """Wait until all changes up to now are on disk. Raises `WritesRefused`."""


class ChangeFeed:
    """Applies the changes of a node's state, and calls the subscribers."""

    def __init__(self, gossip: GossipNode, disk: Durability, actor: str | None = None) -> None:
        """`actor`: of changes outside of `acting_as`; None: the user of this process."""
        self._local = gossip.local
        self._disk = disk
        self._actor = actor
        self._subscribers: dict[ChangeOrigin, list[Subscriber]] = {origin: [] for origin in ChangeOrigin}
        self.definitions = DefinitionChanges(gossip.state, gossip.local.time.max_skew)
        """The constraints whose definitions changed."""
        self.held = False
        """The node writes nothing of its own accord yet: it has met no peer since it resumed its life, see `lifecycle`."""
        self._turned: list[Turned] = []
        self.written_bytes = 0
        """Bytes of the cells written by this node since the start."""

    def subscribe(self, subscriber: Subscriber, *origins: ChangeOrigin) -> None:
        """Call `subscriber` with each change of these origins, after the earlier subscribers."""
        for origin in origins:
            self._subscribers[origin].append(subscriber)

    @property
    def writable(self) -> bool:
        """True if the node can write its measurements: the store takes writes, its role and key allow it, and it is not `held`."""
        return not self.held and self._disk.trouble is None and self._local.may_count

    # --- changes -----------------------------------------------------------------------------------------------------

    async def commit(
        self,
        mutate: Callable[[], Result],
        operation: str = "",
        subject: str = "",
        *,
        why: str = "",
        subjects: Iterable[Subject] = (),
    ) -> Result:
        """Write for a user: return when the change is on disk, and push it to peers.

        The other parameters: see `write`. Raises `WritesRefused`, before the call of `mutate` if the store is known to refuse
        writes, and the errors of `mutate`.
        """
        if self._disk.trouble is not None:
            raise WritesRefused(self._disk.trouble)
        result = self.write(mutate, operation, subject, why=why, subjects=subjects)
        try:
            await self._disk.durable()
        finally:  # the push follows the commit that it would wait for, and a caller that no longer waits changes nothing
            self._publish(_COMMIT)
        return result

    def write(
        self,
        mutate: Callable[[], Result],
        operation: str = "",
        subject: str = "",
        *,
        why: str = "",
        subjects: Iterable[Subject] = (),
    ) -> Result:
        """Call `mutate`, a write by this node. A write may begin a new incarnation, also if `mutate` raises.

        `operation`: with a text, an entry of the audit about this operation on `subject` follows the mutations, if there are any.
        `why`: the reason for people, `WHY` if empty. `subjects`: the subjects that `mutate` may change; the history gets the
        changes.
        """
        local = self._local
        before = Dot(local.replica, local.written)
        earlier = [found for each in subjects if (found := self._before(each)) is not None]
        try:
            result = mutate()
            if operation and (local.replica, local.written) != before:
                reason = why or WHY.get()
                time = self._note(operation, subject, before, reason)
                if earlier:
                    self._keep(operation, reason, time, earlier)
            return result
        finally:
            after = local.replica
            renewed = None if after == before.replica else (before.replica, after)
            if local.written != before.seq or renewed:
                for cell in local.state.rows.above(after, 0 if renewed else before.seq):
                    self.written_bytes += len(cell.data)
            change = NodeChange(ChangeOrigin.WRITTEN, redefined=self._settle(), renewed=renewed)
            for subscriber in self._subscribers[ChangeOrigin.WRITTEN]:
                subscriber(change)

    def note(self, operation: str, subject: str) -> None:
        """Write an entry of the audit about a change without mutations here. Beyond a limit there is none."""
        self.write(lambda: self._note(operation, subject, None, self.why))

    def _note(self, operation: str, subject: str, since: Dot | None, why: str = "") -> int:
        """Returns the time of the entry, in ns since the epoch."""
        actor, time = self.actor, self._local.time.stamp()
        try:
            self._local.note(actor, operation, subject, time, since, why)
        except ConstraintCrdtError as error:  # beyond a limit; the change itself is done
            _log.warning("the audit has no entry about %s %s: %s", operation, subject, error)
        return time

    def _before(self, subject: Subject) -> Before | None:
        """The state of a subject, with the origin of a first definition; None before a first one, which its cell tells."""
        state = self._local.state
        held = state.rows.held(*subject)
        if not held:
            return Before(subject, ()) if subject.kind != ADD or subject in state.changes.subjects else None
        found = before_change(state.rows, subject)
        if len(held) > 1 or subject.kind != ADD or subject in state.changes.subjects:
            return found
        cause = state.audit.cause(Dot(held[0].replica, held[0].seq))
        return found._replace(first=cause) if cause.actor else found

    def _keep(self, operation: str, why: str, time: int, earlier: Sequence[Before]) -> None:
        """Keep the changes in the history."""
        local, changes = self._local, self._local.state.changes
        changed = [each for each in earlier if before_change(local.state.rows, each.subject).values != each.values]
        if not changed:
            return
        try:
            with local as me:
                changes.note(changed, operation=operation, actor=self.actor, why=why, time=time, node=me)
        except ConstraintCrdtError as error:  # beyond a limit; the change itself is done
            _log.warning("the history has no entry about %s: %s", operation, error)

    @property
    def actor(self) -> str:
        """Who causes a change that is made now."""
        return ACTOR.get() or self._actor or _user()

    @property
    def why(self) -> str:
        """The reason of a change that is made now."""
        return WHY.get()

    def receive(self, peer: str, result: GossipResult) -> int:
        """A message of `peer` was merged. Returns the number of constraints whose definitions changed."""
        redefined = self._settle() if result.state_changed else 0
        self._publish(NodeChange(ChangeOrigin.RECEIVED, result.state_changed, redefined, redefined > 0, peer=peer, result=result))
        return redefined

    def elapse(self, ids: Set[str]) -> None:
        """Time may have changed which definitions of these constraints are in force."""
        self.definitions.note(ids)
        self._publish(NodeChange(ChangeOrigin.ELAPSED, redefined=self._settle()))

    def settle(self) -> bool:
        """Settle some of the constraints that came with many others. False if there are none."""
        if not self.definitions.arriving:
            return False
        self._settle()
        return True

    def evaluate(self, turns: Sequence[Turn]) -> None:
        """The verdict states of constraints turned."""
        self._publish(NodeChange(ChangeOrigin.EVALUATED, state_changed=False, turns=turns))

    def restore(self) -> None:
        """The state was loaded from the store. Its content is not published."""
        self._publish(NodeChange(ChangeOrigin.RESTORED, redefined=self._settle()))

    def _settle(self) -> int:
        """Find the constraints with other definitions in force, and those disabled or enabled. Returns how many there are."""
        local = self._local
        if not local.state.constraints.ends:  # then the time does not matter
            redefined = self.definitions.settle()
        else:
            with local.time.held():
                redefined = self.definitions.settle()
        switches = local.state.switches
        turned = switches.take_turned() if switches.touched or switches.disabled else ()
        if turned:
            self._turned += turned
            of_all = any(each.id == ALL for each in turned)
            self.definitions.tell(list(local.state.constraints) if of_all else [each.id for each in turned])
        return redefined + len(turned)

    def take_turned(self) -> list[Turned]:
        """The constraints that were disabled or enabled since the last call."""
        turned, self._turned = self._turned, []
        return turned

    def _publish(self, change: NodeChange) -> None:
        for subscriber in self._subscribers[change.origin]:
            subscriber(change)


SETTLED_AT_ONCE = 4096
"""New constraints settled in a turn of the loop, of a message with more of them."""


class DefinitionChange(NamedTuple):
    """A constraint with other definitions in force."""

    kind: EventKind
    constraint: str
    when: str
    in_conflict: int = 0
    """The number of its definitions, if they came into conflict by this change."""
    former: Definition | None = None
    """The only definition before, if it was replaced or removed."""


class DefinitionChanges:
    """Follows the definitions of a state."""

    def __init__(self, state: ConstraintState, max_skew: int = DEFAULT_MAX_SKEW) -> None:
        """`max_skew`: the bound on the skew of clocks, in ns."""
        self._now_by = state.now
        self._max_skew = max_skew
        self._constraints = state.constraints
        self._rows = state.rows
        self._subscribers: list[Callable[[Collection[str]], None]] = []
        self._touched: set[str] = set()
        self._arrived: deque[tuple[Replica, int, int]] = deque()
        """The stretches of rows, by their first and last seq, with adds of new constraints that came with many others, and are not
        settled yet."""
        self._count = 0
        """The adds that came so since the last `settle`."""
        self._waiting: OrderedDict[str, int | Cell | None] = OrderedDict()
        """The constraints to publish, each with a hash of its definitions at the last `settle`. A new constraint has its add
        instead: the hash is rarely needed.
        """
        self._listed: dict[str, int] = {}
        """The constraints as last published, each with a hash of its definitions."""
        self.conflicts: set[str] = set()
        """The constraints with definitions in conflict, as last published."""
        self._dropped: dict[str, list[Cell]] = {}
        """The adds that ended since the constraint was last published, for `former`."""
        self._expired: dict[str, int] = {}
        """The hashes of constraints whose expiry was published, while an add of them stands."""
        state.rows.watch(ADD, self._moved, bulk=self._came)
        state.constraints.take_expiry_changes()  # has it kept from now on

    def subscribe(self, subscriber: Callable[[Collection[str]], None]) -> None:
        """Call `subscriber` with the ids of changed constraints, as soon as the change is found."""
        self._subscribers.append(subscriber)

    def tell(self, ids: Collection[str]) -> None:
        """Call the subscribers with constraints that are to be read again, with the same definitions."""
        self._notify(ids)

    def _notify(self, ids: Collection[str]) -> None:
        for subscriber in self._subscribers:
            subscriber(ids)

    def _moved(self, old: Cell | None, new: Cell | None) -> None:
        cell = new if new is not None else old
        if cell is not None:
            self._touched.add(str(cell.key))
            if old is not None:
                self._dropped.setdefault(str(cell.key), []).append(old)

    def _came(self, cells: Sequence[Cell]) -> None:
        if len(cells) > SETTLED_AT_ONCE:
            self._arrived.extend(core.row_spans(cells))
            self._count += len(cells)
        else:
            self._touched.update([str(cell.key) for cell in cells])

    def note(self, ids: Iterable[str]) -> None:
        """Time may have changed which definitions of these constraints are in force."""
        self._touched.update(ids)

    # --- settle --------------------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Find the constraints whose definitions changed since the last call, and call the subscribers with them.

        Returns how many changed. New constraints that came with many others are all counted by the first call, and each call finds
        `SETTLED_AT_ONCE` of them, so that it takes some milliseconds; `arriving` is true if some are left. O(constraints whose
        cells changed) of the others.
        """
        count, self._count = self._count, 0
        if self._touched:
            touched, self._touched = self._touched, set()
            count += self._find(sorted(touched))
        if self._arrived:
            self._find(sorted(self._take_arrived()))
        return count

    def _take_arrived(self) -> set[str]:
        """The next constraints that came with many others."""
        found: set[str] = set()
        looked = 0
        while self._arrived and looked < SETTLED_AT_ONCE:
            replica, first, last = self._arrived.popleft()
            cells, after = self._rows.some_above(replica, first - 1, SETTLED_AT_ONCE)
            looked += max(1, len(cells))
            found.update([str(cell.key) for cell in cells if cell.kind == ADD and cell.seq <= last])
            if after is not None and after < last:
                self._arrived.appendleft((replica, after + 1, last))
        return found

    def _find(self, ids: Iterable[str]) -> int:
        """Find those of these constraints that changed, and call the subscribers with them. Returns how many."""
        changed: list[str] = []
        for id_ in ids:
            before, after = self._settled(id_), self._now(id_)
            if before != after:
                self._waiting[id_] = after
                changed.append(id_)
            elif after is None and not self._constraints.expired(id_):
                self._expired.pop(id_, None)
            elif after is None and id_ not in self._expired:
                self._waiting[id_] = None  # had ended before it came
            if id_ not in self._waiting:
                self._dropped.pop(id_, None)
        self._notify(changed)
        return len(changed)

    def _settled(self, id_: str) -> int | None:
        """A hash of the definitions in force at the last `settle`; None: none were."""
        if id_ not in self._waiting:
            return self._listed.get(id_)
        settled = self._waiting[id_]
        if isinstance(settled, Cell):
            settled = self._waiting[id_] = _hash((read_addition(settled).definition,))
        return settled

    def _now(self, id_: str) -> int | Cell | None:
        """A hash of the definitions in force now, or the add of a new constraint; None: none are."""
        held = self._rows.held(ADD, id_)
        if not held or (self._constraints.ends and id_ not in self._constraints):
            return None
        if len(held) == 1 and id_ not in self._listed and id_ not in self._waiting and id_ not in self._expired:
            return held[0]
        return _hash(self._constraints.definitions(id_))

    # --- take -----------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """True if changes were not taken yet."""
        return bool(self._waiting or self._touched or self._arrived)

    @property
    def arriving(self) -> bool:
        """True if constraints that came with many others are not settled yet."""
        return bool(self._arrived)

    def take(self, most: int | None = None) -> list[DefinitionChange]:
        """The changes since the last call. `most`: of so many constraints at most; `waiting` is true if some are left."""
        self.settle()
        while self._arrived and most is None:
            self.settle()
        count = len(self._waiting) if most is None else min(most, len(self._waiting))
        found = []
        for _ in range(count):
            change = self._change(*self._waiting.popitem(last=False))
            if change is not None:
                found.append(change)
        return found

    def take_of(self, id_: str) -> DefinitionChange | None:
        """The change of a constraint; None without a change."""
        if self._arrived:
            self._touched.add(id_)  # it may be among those
        self.settle()
        return self._change(id_, self._waiting.pop(id_)) if id_ in self._waiting else None

    def _change(self, id_: str, settled: int | Cell | None) -> DefinitionChange | None:
        now = self._constraints.definitions(id_)
        in_conflict = is_conflict(now)
        before, after = self._listed.get(id_), _hash(now)
        dropped = self._dropped.pop(id_, ())
        began = in_conflict and id_ not in self.conflicts
        if began:
            self.conflicts.add(id_)
        elif not in_conflict:
            self.conflicts.discard(id_)
        if after is None if isinstance(settled, Cell) else after != settled:
            self._notify((id_,))  # its time ended since
        if after == before:
            return self._ended(id_, None) if after is None else None
        if after is None:
            del self._listed[id_]
            ended = self._ended(id_, before)
            return ended if ended is None else ended._replace(former=_former(dropped, before))
        self._listed[id_] = after
        if before is None and self._expired.get(id_) == after:
            if not self._lasts(now):
                return None
            del self._expired[id_]
        kind = EventKind.ADDED if before is None else EventKind.CHANGED
        former = _former(dropped, before) if len(now) == 1 else None
        return DefinitionChange(kind, id_, now[0].when or "", len(now) if began else 0, former)

    def _lasts(self, definitions: Sequence[Definition]) -> bool:
        """True if any of these is in force for longer than two clocks may differ."""
        by = self._now_by() + self._max_skew
        return any(each.expires_at is None or each.expires_at > by for each in definitions)

    def _ended(self, id_: str, before: int | None) -> DefinitionChange | None:
        """`before`: None if it was not in force."""
        over = self._constraints.expired(id_)
        if not over:
            self._expired.pop(id_, None)
            return None if before is None else DefinitionChange(EventKind.REMOVED, id_, "")
        told = self._expired.get(id_)
        late = self._now_by() - max(each.definition.expires_at or 0 for each in over)
        if told == before if before is not None else told is not None or late <= self._max_skew:
            return None
        self._expired[id_] = before or hash(tuple(dict.fromkeys([each.definition for each in over])))
        if late <= self._max_skew:
            return DefinitionChange(EventKind.EXPIRED, id_, "")
        writers = ", ".join(sorted({each.dot.replica.node_id for each in over}))
        return DefinitionChange(
            EventKind.EXPIRED, id_, f"it had ended {late // SECOND} s before, by this node's time; written by {writers}"
        )


ACTOR: ContextVar[str | None] = ContextVar("actor", default=None)
"""Who causes the changes made now: a person, a token, a program; None: the node."""


WHY: ContextVar[str] = ContextVar("why", default="")
"""The reason of the changes made now, as the actor says; empty: none was given."""


@contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """Note this actor in the audit for the changes made in the block."""
    before = ACTOR.set(actor)
    try:
        yield
    finally:
        ACTOR.reset(before)


@cache
def _user() -> str:
    """The user of this process, or `python`, in a container without users."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "python"


def _former(dropped: Iterable[Cell], before: int | None) -> Definition | None:
    """The only definition before, among the adds that ended since; None if there were several. `before`: its hash."""
    return next((each for each in map(_definition, dropped) if _hash((each,)) == before), None)


def _definition(add: Cell) -> Definition:
    return read_addition(add).definition


def _hash(definitions: Sequence[Definition]) -> int | None:
    return hash(tuple(definitions)) if definitions else None


class Effect(enum.StrEnum):
    """The effect of a change."""

    ADDED = "added"
    REPLACED = "replaced"
    EXTENDED = "extended"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    RECORDED = "recorded"


class BatchResult(msgspec.Struct, frozen=True, gc=False):
    """The result of a change. `id` is the id of the constraint; None for counts without a constraint."""

    id: str | None
    change: Effect


def check_definitions(
    changes: Sequence[BatchChange],
    kinds: Mapping[str, str] = NO_KINDS,
    nodes: int = 0,
    bind: Callable[[str], str] = lambda source: source,
) -> None:
    """Check the size of a batch and its definitions, without the state. Compiles each `when`, which may be slow.

    `kinds`: the kinds of variables where they are known; `nodes`: the number of the nodes of the fleet; `bind`: see
    `compile_written`. Raises `ConstraintCrdtError`; a `BatchError` for a change at fault.
    """
    if len(changes) > MAX_CHANGES:
        raise ConstraintCrdtError(f"a batch has at most {MAX_CHANGES} changes, not {len(changes)}: send several")
    for index, change in enumerate(changes):
        if type(change) is AddConstraint:
            _check_definition(index, change, kinds, nodes, bind)


def sound_definitions(
    changes: Sequence[AddConstraint], kinds: Mapping[str, str], nodes: int, bind: Callable[[str], str]
) -> list[AddConstraint]:
    """Those of the additions that `check_definitions` takes; its parameters, and as slow."""
    found = []
    for change in changes[:MAX_CHANGES]:
        with suppress(ConstraintCrdtError):
            check_definitions([change], kinds, nodes, bind)
            found.append(change)
    return found


CHECKED_AT_ONCE = 50
"""Definitions of which the check takes a millisecond."""


def is_cheap(changes: Sequence[BatchChange], kinds: Mapping[str, str]) -> bool:
    """True if `check_definitions` takes a millisecond at most: for counts, removals, and few definitions with known expressions."""
    adds = [change for change in changes if type(change) is AddConstraint]
    if len(adds) > CHECKED_AT_ONCE:
        return False
    return all(
        change.scope is Scope.NODE and is_known(change.when, kinds) and is_known(change.clear_when, kinds) for change in adds
    )


def new_definitions(gossip: GossipNode, changes: Iterable[BatchChange]) -> dict[str, Definition | None]:
    """The definitions that a batch gives to active constraints, by id: the last of each, without those that say `loosen`."""
    found: dict[str, Definition | None] = {}
    for change in changes:
        if type(change) is AddConstraint and change.id in gossip.state.constraints:
            found.pop(change.id, None)
            fields = {name: getattr(change, name) for name in DefinitionFields.__annotations__}
            if not change.loosen:
                with suppress(ConstraintCrdtError):  # the write refuses it, by its place in the batch
                    found[change.id] = gossip.new_definition(cast("DefinitionFields", fields))
    return found


def apply_changes(gossip: GossipNode, changes: Sequence[BatchChange], *, at: int | None = None) -> list[BatchResult]:
    """Apply a batch whose definitions were checked. `at`: when its constraints are said to have been added, ns since the epoch.

    Raises `ConstraintCrdtError`, `ClockInDoubt` for an end where the node does not know the time, or `BatchError`; then nothing has
    changed.
    """
    with gossip.time.held():  # nothing expires between the dry run and the writes
        sums = _Rehearsal(gossip).run(changes)
        return _apply(gossip, changes, sums, at)


def _apply(
    gossip: GossipNode, changes: Sequence[BatchChange], sums: Mapping[str | None, tuple[int, int]], at: int | None
) -> list[BatchResult]:
    results = []
    for change in changes:
        if type(change) is RecordCounts:
            results.append(BatchResult(change.constraint, Effect.RECORDED))
        elif type(change) is AddConstraint:
            done = gossip.add_constraint(
                change.id,
                when=change.when,
                severity=change.severity,
                about=change.about,
                on=change.on,
                ttl=change.ttl,
                until=change.until,
                for_=change.for_,
                clear_after=change.clear_after,
                clear_when=change.clear_when,
                if_unknown=change.if_unknown,
                max_age=change.max_age,
                scope=change.scope,
                mode=change.mode,
                each=change.each,
                at=at,
            )
            results.append(BatchResult(change.id, Effect(done.value)))
        elif type(change) is RemoveConstraint:
            gossip.remove_constraint(change.id)
            results.append(BatchResult(change.id, Effect.REMOVED))
    # Counts do not depend on the active constraints, so they may come last.
    gossip.record_all(sums)
    return results


def _check_definition(index: int, change: AddConstraint, kinds: Mapping[str, str], nodes: int, bind: Callable[[str], str]) -> None:
    compiled = partial(compile_written, scope=change.scope, kinds=kinds, nodes=nodes, bind=bind)
    for field, check in (
        ("id", lambda: check_id(change.id, "a constraint id")),
        ("for", lambda: duration_ns(change.for_, "for")),
        ("clear_after", lambda: duration_ns(change.clear_after, "clear_after")),
        ("max_age", lambda: duration_ns(change.max_age, "max_age")),
        ("on", lambda: check_selector(change.on)),
        ("when", lambda: definition_of(change)),
        ("when", lambda: compiled(change.when) if change.when else None),
        ("clear_when", lambda: compiled(change.clear_when) if change.clear_when else None),
    ):
        try:
            check()
        except ExpressionError as error:
            raise BatchError(index, f"add.{field}", str(error)) from None
        except ConstraintCrdtError as error:
            raise BatchError(index, f"add.{error.field or field}", str(error)) from None


def definition_of(change: AddConstraint) -> Definition:
    """The definition that an addition gives its constraint, without an end. Raises as `check_definition`."""
    return check_definition(
        change.when,
        change.severity,
        change.about,
        change.on,
        for_=duration_ns(change.for_, "for"),
        clear_after=duration_ns(change.clear_after, "clear_after"),
        clear_when=change.clear_when,
        if_unknown=change.if_unknown,
        max_age=duration_ns(change.max_age, "max_age"),
        scope=change.scope,
        mode=change.mode,
        each=change.each,
    )


class _Rehearsal:
    """A dry run of a batch: the active constraints after each change, the counts, and the number of cells."""

    def __init__(self, gossip: GossipNode) -> None:
        self._state = gossip.state
        self._local = gossip.local
        self._replica = gossip.replica
        self._active: dict[str, bool] = {}
        self._before: dict[str | None, tuple[int, int]] = {}
        self._sums: dict[str | None, tuple[int, int]] = {}
        self._cells = 1  # the cell of a new life, in case this node has to begin one first

    def run(self, changes: Sequence[BatchChange]) -> dict[str | None, tuple[int, int]]:
        """The counts of the batch by constraint: (satisfied, violated)."""
        for index, change in enumerate(changes):
            if type(change) is RecordCounts:
                self._record(index, change)
            elif type(change) is AddConstraint:
                if change.new and self._is_active(change.id):
                    raise BatchError(index, "add.new", str(ConstraintExists(change.id)))
                self._check_end(index, change)
                self._end_adds(change.id)
                self._cells += 1
                self._active[change.id] = True
            elif type(change) is RemoveConstraint:
                if not self._is_active(change.id):
                    raise BatchError(index, "remove.id", f"no constraint {change.id!r} is active")
                self._end_adds(change.id)
                self._active[change.id] = False
            else:
                kind = type(change).__name__
                raise InvalidType(f"a batch is made of AddConstraint, RemoveConstraint and RecordCounts, not {kind}")
        rows = self._state.rows
        if len(rows) + self._cells + len(self._sums) > rows.limits.cells:
            raise ConstraintCrdtError(f"the batch could make more than the {rows.limits.cells} cells that this node is set to hold")
        return self._sums

    def _check_end(self, index: int, change: AddConstraint) -> None:
        if change.ttl is None and change.until is None:
            return
        self._local.check_clock()
        try:
            expiry_time(change.ttl, change.until, self._state.now())
        except ConstraintCrdtError as error:
            raise BatchError(index, "add.until" if change.ttl is None else "add.ttl", str(error)) from None

    def _is_active(self, id_: str) -> bool:
        known = self._active.get(id_)
        return id_ in self._state.constraints if known is None else known

    def _end_adds(self, id_: str) -> None:
        """Count the cells for the removal of the present definitions, and of those from the batch."""
        self._cells += 1 + len(self._state.rows.held(ADD, id_)) // DOTS_PER_REMOVAL

    def _record(self, index: int, change: RecordCounts) -> None:
        constraint, satisfied, violations = change.constraint, change.satisfied, change.violations
        counted = self._sums.get(constraint, (0, 0))
        if counted == (0, 0):
            self._check_recorded(index, constraint)
        if satisfied < 0 or violations < 0:
            field = "satisfied" if satisfied < 0 else "violations"
            raise BatchError(index, f"record.{field}", "counts only grow: the number to record cannot be negative")
        before = self._before[constraint]
        counted = (counted[0] + satisfied, counted[1] + violations)
        if before[0] + counted[0] > MAX_COUNT or before[1] + counted[1] > MAX_COUNT:
            field = "satisfied" if before[0] + counted[0] > MAX_COUNT else "violations"
            raise BatchError(
                index, f"record.{field}", f"a cumulative count, here that {count_of(constraint)}, cannot exceed 2**63 - 1"
            )
        self._sums[constraint] = counted

    def _check_recorded(self, index: int, constraint: str | None) -> None:
        """Check the constraint, and read the count of this life."""
        if constraint is not None and not self._is_active(constraint) and not any(self._state.metrics.constraint(constraint)):
            raise BatchError(index, "record.constraint", f"no constraint {constraint!r} is active")
        cell = self._state.rows.get(COUNTS, NODE_KEY if constraint is None else constraint, self._replica)
        self._before[constraint] = (0, 0) if cell is None else counts_value(cell)
