"""GossipNode: a replica of a fleet's state and its side of the exchange, without I/O (docs/design/exchange.md).

A `GossipNode` is put together from parts, each with a subject of its own:

| part | subject |
|---|---|
| `local_replica.LocalReplica` | state, time, lives, writes, expired adds |
| `peers.DeltaTracker` | the clock and hash of each peer, and the clocks nameable to each |
| `transfers.InboundTransfers`, `OutboundTransfers` | messages in parts |
| `exchange_rules.Composer`, `Exchange` | the messages to send, and the reactions to those received |
| `repair.Repairs` | damaged states |

The state is a state-based CRDT (Shapiro et al., "Conflict-free replicated data types", 2011); a mutation is named by a dot, the
replica and a sequence number (Preguiça et al., "Dotted version vectors", 2010). Rules:

- The node does nothing by itself: all that happens follows from calls. So its inputs can be recorded and replayed.
- Every mutation is a write of the `LocalReplica`.

`TtlCrdtNode` adds lifetimes by type, in the vocabulary of the Rust crate 0.5: constraints that end by time, by load, by use, or
when told to. A constraint of a type has the id `TYPE:NAME` and ends after the default life of its type. Load and use shorten that
life:

    life = default x max(0.1, 1 - log2(uses + 1) / 100) / max(1, load)

Rules:

- The end by time is that of any constraint: agreed in hybrid time by the whole fleet. (In the crate it never leaves its node.)
- Only `evaluate` ends a constraint earlier. That is a removal, so it reaches every node, and a concurrent renewal wins.
- A use is a recorded evaluation of the constraint, on any node.
- The audit of the fleet has the cause of an early end, so other nodes tell the same cause while the audit has the entry. Of an end
  by time every node knows by itself.
- Ids of a type count, by any writer: the type is in the id.
"""

import enum
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple, TypeVar, Unpack

from constraint_crdt.crdt.cells import REMOVE, Cell, removed_dots
from constraint_crdt.crdt.clock import SECOND, Dot, HybridClock, Replica, StateHash, VectorClock, check_replica, dot_text
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MESSAGE_BYTES, Limits
from constraint_crdt.errors import ConstraintCrdtError, InvalidType, InvalidValue, UnknownConstraint, UnknownName
from constraint_crdt.model import IfUnknown, Mode, Scope, Severity
from constraint_crdt.protocol.authority import OPERATOR, Authority, Credentials, OwnReplaced
from constraint_crdt.protocol.exchange_rules import Composer, Exchange, GossipResult, ReadMessage
from constraint_crdt.protocol.loans import Escrow
from constraint_crdt.protocol.local_replica import Edge, LocalReplica
from constraint_crdt.protocol.messages import (
    DEFAULT_FLEET,
    WIRE_VERSION,
    Delta,
    GossipMessage,
    Ping,
    Sync,
    decode_message,
    items_of,
)
from constraint_crdt.protocol.peers import DeltaTracker, LinkEstimates
from constraint_crdt.protocol.transfers import EncodedMessage, InboundTransfers, OutboundTransfers, encoded_apart
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.definition import (
    ADD,
    Definition,
    DefinitionFields,
    Duration,
    Labels,
    Selection,
    Timestamp,
    check_definition,
    check_labels,
    duration_ns,
    edited,
    expiry_time,
    joined,
)
from constraint_crdt.types.orset import ALL, Change, Switch
from constraint_crdt.types.parameters import bind, parameters_of
from constraint_crdt.types.tile_cells import Position
from constraint_crdt.types.variables import Reading, VariableKind
from constraint_crdt.types.verdicts import NodeVerdict

if TYPE_CHECKING:
    from constraint_crdt.expression.evaluation import Evaluation


DEFAULT_MAX_SKEW = 10.0
"""Seconds by which the clocks of a fleet may differ."""

ENCODED_APART = 4096
"""Cells, runs and entries of a message from which a thread may encode it: that takes some milliseconds."""

Result = TypeVar("Result")


class WrongSender(InvalidValue):
    """A message in the name of another node than its proven sender."""


class GossipNode:
    """A replica of a fleet's state. Pass received messages in, and send the returned answers."""

    edge: ClassVar[Edge | None] = None
    """The default of `now` and `renew`. None here, since this module is pure; `constraint_crdt.gossip` has the machine's."""

    def __init__(
        self,
        node_id: str,
        *,
        incarnation: int | None = None,
        now: Callable[[], int] | None = None,
        renew: Callable[[], int] | None = None,
        fleet: str = DEFAULT_FLEET,
        limits: Limits = DEFAULT_LIMITS,
        max_skew: float = DEFAULT_MAX_SKEW,
        credentials: Credentials | None = None,
        steady: Callable[[], int] | None = None,
    ) -> None:
        """`node_id`: the name of the node. `incarnation`: distinguishes this life from all others of the node; from `renew` if
        None.

        `now`: the time in ns since the epoch. `renew`: supplies further incarnations, for when a life turns out to be over.
        `fleet`: messages of another fleet are refused. `max_skew`: seconds by which clocks in the fleet may differ; the time of a
        clock that differs more raises an alarm and is not used. `credentials`: of this node, in a fleet whose rows are signed.
        `steady`: see `Edge`; without it, and with a `now` of its own, a node neither notices steps of its clock nor corrects it.
        Raises `ConstraintCrdtError` for values out of bounds.
        """
        edge = self._edge(now, renew, steady)
        replica = check_replica(node_id, edge.renew() if incarnation is None else incarnation)
        self.local = LocalReplica(replica, edge, fleet=fleet, limits=limits, max_skew=max_skew, credentials=credentials)
        self.node_id = node_id
        """The name of the node, the same in all of its lives."""
        self.state: ConstraintState = self.local.state
        """The state. All writes go through `write`."""
        self.time: HybridClock = self.local.time
        """The time by the node's own clock and those of its peers."""
        self.local.on_new_life = self._drop_transfers
        self.tracker = DeltaTracker(limits)
        """The clocks and hashes of the peers."""
        self.escrow = Escrow(self.local)
        """The budgets: the holds of this node, and its loans to and from others."""
        self.labels: Mapping[str, str] = {}
        """The labels of this node: a constraint may apply to some labels only."""
        self.links = LinkEstimates(limits.links)
        """The round trip, rate and loss of the ways to peers. A caller that sets `links.at` has large messages paced by them."""
        self._inbound = InboundTransfers(limits.staged_bytes)
        self._outbound = OutboundTransfers(limits, self.links)
        self._composer = Composer(self.local, self.tracker, self._inbound, self.links, limits)
        self._exchange = Exchange(self.local, self.tracker, self._inbound, self._outbound, self._composer, limits)

    @classmethod
    def _edge(cls, now: Callable[[], int] | None, renew: Callable[[], int] | None, steady: Callable[[], int] | None) -> Edge:
        if cls.edge is not None:
            own = steady if steady is not None or now is not None else cls.edge.steady
            return Edge(now or cls.edge.now, renew or cls.edge.renew, own)
        if now is None or renew is None:
            raise InvalidType("this GossipNode needs `now` and `renew`; constraint_crdt.GossipNode has those of the machine")
        return Edge(now, renew, steady)

    def __repr__(self) -> str:
        return (
            f"GossipNode({self.node_id}, {len(self.state.constraints)} constraints, {self.peer_count} peers, "
            f"{self.rounds} rounds, hash={self.state_hash})"
        )

    # --- the node ------------------------------------------------------------------------------------------------------

    @property
    def replica(self) -> Replica:
        """The present life of the node."""
        return self.local.replica

    @property
    def fleet(self) -> str:
        """The name of the fleet."""
        return self.local.fleet

    @property
    def state_hash(self) -> StateHash:
        """Equal exactly where knowledge is equal."""
        return self.state.state_hash

    @property
    def constraints_hash(self) -> StateHash:
        """Equal where the active definitions are equal."""
        return self.state.constraints_hash

    @property
    def clock(self) -> VectorClock:
        """The seq up to which each replica's row is accounted for here. O(rows) after a change."""
        return self.state.clock

    @property
    def goes_on(self) -> bool:
        """The present life may write: no other node is known to know more of this life."""
        return self.local.goes_on

    @property
    def retired_by(self) -> str | None:
        """The node that retired this node for good; None without retirement."""
        return self.local.retired_by

    @property
    def authority(self) -> Authority | None:
        """The signatures and rights of the rows; None without credentials."""
        return self.local.authority

    @property
    def revoked_by(self) -> str | None:
        """The operators that revoked the key of this node; None for a key in use, and without credentials."""
        return self.local.revoked_by

    @property
    def revoked_nodes(self) -> Set[str]:
        """The nodes whose keys are all revoked; none without credentials. O(rows) after a revocation, else O(1)."""
        authority = self.local.authority
        return frozenset() if authority is None else authority.revoked_nodes()

    @property
    def peer_count(self) -> int:
        """The number of peers of which a message was ever accepted."""
        return len(self.tracker)

    @property
    def converged(self) -> bool:
        """The last evidenced hash of every known peer equals this node's hash."""
        return self.tracker.all_have(self.state.rows.state_hash)

    @property
    def rounds(self) -> int:
        """Messages received."""
        return self._exchange.rounds

    @property
    def syncs(self) -> int:
        """Pings answered whose hash differed from this node's."""
        return self._exchange.syncs

    @property
    def alarms(self) -> int:
        """Times a peer had this node's clock and another hash: corruption on either side."""
        return self._exchange.alarms

    @property
    def repairs(self) -> int:
        """Repairs of damage here."""
        return self._exchange.repairs.repairs

    @property
    def cells_repaired(self) -> int:
        """Cells restored, replaced or dropped in agreement with a peer."""
        return self._exchange.repairs.cells

    # --- writes --------------------------------------------------------------------------------------------------------

    def write(self, mutate: Callable[[Replica], Result]) -> Result:
        """Call `mutate` with the life to write under: the present life, or a new life if the present life is over.

        Raises the errors of `mutate`, and `ConstraintCrdtError` if this node is retired.
        """
        with self.local as me:
            return mutate(me)

    def add_constraint(
        self,
        id_: str,
        *,
        when: str | None = None,
        severity: str = Severity.WARNING,
        about: str | None = None,
        on: Selection | None = None,
        ttl: Duration | float | None = None,
        until: Timestamp | int | None = None,
        for_: Duration | float | None = None,
        clear_after: Duration | float | None = None,
        clear_when: str | None = None,
        if_unknown: str = IfUnknown.UNKNOWN,
        max_age: Duration | float | None = None,
        scope: str = Scope.NODE,
        mode: str = Mode.ENFORCE,
        each: str | None = None,
        at: int | None = None,
    ) -> Change:
        """Make a constraint active, or replace its definition.

        `on`: the labels of the nodes concerned, or a selector. `ttl`: its lifetime (a `timedelta`, or seconds); `until`: its end
        (an aware `datetime`, or ns since the epoch); without both the constraint lasts until its removal. `for_`, `clear_after`
        and `max_age` (a `timedelta`, or seconds), `clear_when`, `if_unknown`, `scope`, `mode` and `each`: the fields of
        `Definition`. `at`: its timestamp in ns since the epoch, now if None. Raises `ExpressionError` for a `when` or `clear_when`
        that cannot be used, `ClockInDoubt` for an end where this node does not know the time, and `ConstraintCrdtError` for values
        out of bounds.
        """
        expires_at = self._end(ttl, until)
        definition = check_definition(
            when, severity, about, on, expires_at,
            for_=duration_ns(for_, "for"), clear_after=duration_ns(clear_after, "clear_after"), clear_when=clear_when,
            if_unknown=if_unknown, max_age=duration_ns(max_age, "max_age"), scope=scope, mode=mode, each=each,
        )  # fmt: skip
        return self._put_definition(id_, definition, at)

    def new_definition(self, fields: DefinitionFields) -> Definition:
        """A definition with these fields, and the defaults of the others, not written yet. Raises as `add_constraint`."""
        return edited(Definition(), fields, self._end(fields.get("ttl"), fields.get("until")))

    def resolved_definition(self, id_: str, keep: Dot | None = None) -> Definition:
        """The definition that `resolve_conflict` writes. Raises as that does."""
        additions = self.state.constraints.additions(id_)
        if not additions:
            raise UnknownConstraint(id_)
        if keep is None:
            return joined([each.definition for each in additions])
        kept = next((each.definition for each in additions if each.dot == keep), None)
        if kept is None:
            message = f"no definition of {id_} in force is of the mutation {dot_text(keep)}: look again"
            raise ConstraintCrdtError(message, field="keep")
        return kept

    def edited_definition(self, id_: str, fields: DefinitionFields) -> Definition:
        """The definition of an active constraint with other fields, not written yet. Raises as `edit_constraint`."""
        expires_at = self._end(fields.get("ttl"), fields.get("until"))
        return edited(self.state.constraints.definition(id_), fields, expires_at)

    def edit_constraint(self, id_: str, *, at: int | None = None, **fields: Unpack[DefinitionFields]) -> Change:
        """Change the fields of an active constraint that are given, and keep the others. `at`: see `add_constraint`.

        Raises as `add_constraint`, `UnknownConstraint` for an inactive constraint, and `ConstraintInConflict` where it has
        several definitions.
        """
        return self._put_definition(id_, self.edited_definition(id_, fields), at)

    def resolve_conflict(self, id_: str, keep: Dot | None = None, *, at: int | None = None) -> Change:
        """Replace the definitions of a constraint by a single definition: that of the dot `keep`, or all of them, joined.

        Raises `UnknownConstraint` for an inactive constraint, and `ConstraintCrdtError` for a dot of no definition in force, and
        for definitions that cannot be joined.
        """
        return self._put_definition(id_, self.resolved_definition(id_, keep), at)

    def _put_definition(self, id_: str, definition: Definition, at: int | None) -> Change:
        if definition.when is not None and not definition.meaning:
            from constraint_crdt.expression import check_expressions

            bound = self.binding(definition.when, definition.clear_when)
            check_expressions(definition.when, definition.clear_when, scope=definition.scope, bind=bound)
        with self.local as me:
            return self.state.constraints.put(id_, definition, node=me, at=at)

    def _end(self, ttl: Duration | float | None, until: Timestamp | int | None) -> int | None:
        if ttl is None and until is None:
            return None
        self.local.check_clock()
        return expiry_time(ttl, until, self.local.time.now())

    def binding(self, *sources: str | None) -> Callable[[str], str]:
        """A function that puts the values which parameters have on this node now in place of their names, for any thread.

        `sources`: the expressions that it may be called with.
        """
        parameters = self.state.parameters
        values = {name: parameters.value(name, self.labels) for source in sources for name in parameters_of(source)}
        return lambda source: bind(source, values)

    def set_parameter(self, name: str, value: object, on: Selection | None = None) -> bool:
        """Give a parameter a value on all nodes, or on those that `on` selects. True if a cell was written.

        Raises as `Parameters.set` does.
        """
        at = self.local.time.stamp()
        return self.write(lambda me: self.state.parameters.set(name, value, on, node=me, at=at))

    def unset_parameter(self, name: str, on: Selection | None = None) -> None:
        """Remove a setting of a parameter. Raises `UnknownName` if none stands for this selector."""
        at = self.local.time.stamp()
        self.write(lambda me: self.state.parameters.unset(name, on, node=me, at=at))

    def remove_constraint(self, id_: str) -> None:
        """Remove a constraint. Raises `KeyError`, changing nothing, for a constraint not active here."""
        constraints = self.state.constraints
        if id_ not in constraints:
            raise UnknownConstraint(id_)
        self.write(lambda me: self._remove(id_, me))

    def _remove(self, id_: str, me: Replica) -> None:
        """Remove a constraint, and enable it: added again, it is in force."""
        switches = self.state.switches
        self.state.constraints.remove(id_, node=me)
        switches.put_all([id_], disabled=False, time=self.local.time.stamp(), node=me)

    def restore(
        self,
        definitions: Mapping[str, Definition | None],
        switches: Mapping[str, Switch | None],
        further: Callable[[Replica], None] = lambda _: None,
        *,
        actor: str = "",
        at: int | None = None,
    ) -> None:
        """Give constraints definitions that they had, None to remove them; disable constraints as before, with None enable them.

        A disabling has its former end and reason. `further`: other writes of the same transaction. Raises `ClockInDoubt` for a
        definition with an end, and `ConstraintCrdtError` beyond a limit; nothing changes then.
        """
        state, time = self.state, self.local.time.stamp()
        if any(each is not None and each.expires_at is not None for each in definitions.values()):
            self.local.check_clock()

        def write(me: Replica) -> None:
            for id_, definition in definitions.items():
                if definition is not None:
                    state.constraints.put(id_, definition, node=me, at=at)
                elif id_ in state.constraints:
                    self._remove(id_, me)
            for id_, switch in switches.items():
                until, why = (None, "") if switch is None else (switch.until, switch.why)
                state.switches.put_all([id_], disabled=switch is not None, until=until, time=time, actor=actor, why=why, node=me)
            further(me)

        self.write(write)

    def disable(self, ids: Sequence[str], *, ttl: Duration | float | None = None, actor: str = "", why: str = "") -> list[str]:
        """Disable constraints on all nodes: they are kept, and not evaluated. Returns the ids. `ALL` stands for all constraints.

        `ttl`: for so long (a `timedelta`, or seconds); None: until they are enabled. Raises `UnknownConstraint` for a constraint
        not active here, `ClockInDoubt` for an end where this node does not know the time, and `ConstraintCrdtError` for values out
        of bounds; nothing changes then.
        """
        self._check_active(ids)
        until, time = self._end(ttl, None), self.local.time.stamp()
        switches = self.state.switches
        return self.write(lambda me: switches.put_all(ids, disabled=True, until=until, time=time, actor=actor, why=why, node=me))

    def enable(self, ids: Sequence[str], *, actor: str = "", why: str = "") -> list[str]:
        """End disablings; returns the ids of those that were disabled, `ALL` for all. Raises `UnknownConstraint` as `disable`."""
        self._check_active(ids)
        switches, time = self.state.switches, self.local.time.stamp()
        return self.write(lambda me: switches.put_all(ids, disabled=False, time=time, actor=actor, why=why, node=me))

    def _check_active(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            if id_ != ALL and id_ not in self.state.constraints:
                raise UnknownConstraint(id_)

    def record(self, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations of a constraint, or of none in particular. Raises `ValueError` for a negative number."""
        self.write(lambda me: self.state.metrics.record(me, satisfied, violated, constraint=constraint))

    def record_all(self, counts: Mapping[str | None, tuple[int, int]]) -> None:
        """Count (satisfied, violated) evaluations by constraint, None for none in particular, as a single transaction."""
        self.write(lambda me: self.state.metrics.record_all(me, counts))

    def record_each(self, counts: Mapping[str | None, tuple[int, int]]) -> dict[str | None, ConstraintCrdtError]:
        """As `record_all`, but a total beyond 2**63 - 1 is refused for its constraint alone; returns the error of each refused."""
        return self.write(lambda me: self.state.metrics.record_each(me, counts))

    def record_seconds(self, times: Mapping[str, tuple[int, int, int]]) -> dict[str, ConstraintCrdtError]:
        """Add to the (satisfied, violated, unknown) times of constraints, in whole ms, as a single transaction.

        Returns and raises as `ConstraintGCounter.record_seconds` does.
        """
        return self.write(lambda me: self.state.metrics.record_seconds(me, times))

    def record_satisfied(self, count: int = 1, *, constraint: str | None = None) -> None:
        """Count satisfied evaluations."""
        self.record(count, 0, constraint=constraint)

    def record_violations(self, count: int = 1, *, constraint: str | None = None) -> None:
        """Count violated evaluations."""
        self.record(0, count, constraint=constraint)

    def record_verdicts(self, verdicts: Mapping[str, NodeVerdict | None]) -> int:
        """State this node's verdicts by constraint, None for nothing to tell, as a single transaction; returns the number written.

        A new life has to state those of `state.verdicts.restated(replica)` too. Raises as `ConstraintVerdicts.put` does.
        """
        return self.write(lambda me: self.state.verdicts.put_all(verdicts, node=me))

    def fold(self, ids: Iterable[str]) -> int:
        """Move this life's counts of some constraints to the node's total; returns the number of them. Totals stay the same."""
        return self.write(lambda me: self.state.metrics.fold(ids, node=me))

    def update_position(self, position: Position) -> None:
        """Move the fleet's position. Raises `ConstraintCrdtError` for coordinates beyond 32 bits."""
        self.write(lambda me: self.state.register.update(position, node=me, time=self.local.time.stamp()))

    def describe(self, software: str, endpoints: Sequence[str] = (), labels: Labels | None = None, role: str = "") -> None:
        """Publish the node's software version, endpoints, labels and role; `labels` None: they stay as they are."""
        checked = dict(check_labels(self.labels if labels is None else labels))
        self.write(lambda me: self.state.describe(software, WIRE_VERSION, endpoints, checked, role, node=me))
        self.labels = checked

    def describe_variables(self, variables: Mapping[str, VariableKind], *, even_none: bool = False) -> bool:
        """Publish the names and kinds that this node measures. True if a cell was written: not for the same variables.

        `even_none`, and the errors: see `MeasuredVariables.put`.
        """
        return self.write(lambda me: self.state.variables.put(variables, node=me, even_none=even_none))

    def share_readings(self, readings: Mapping[str, Reading | None]) -> int:
        """Share the last values of variables, None to withdraw a reading, as a transaction; returns the number of cells written.

        Raises as `SharedReadings.put_all` does.
        """
        return self.write(lambda me: self.state.readings.put_all(readings, node=me))

    def check(self, values: Mapping[str, object]) -> "list[Evaluation]":
        """Evaluate every active constraint that has a `when` against measurements, and count the results.

        An evaluation per such constraint that applies here, ordered by id; `unknown` counts neither way, nor does an evaluation
        beyond a total of 2**63 - 1. Raises `ConstraintCrdtError` for the name of a measurement that no expression can read.
        """
        from constraint_crdt.expression import check_names
        from constraint_crdt.expression.evaluation import evaluate
        from constraint_crdt.expression.measurements import flattened, read_instance

        values = flattened(values)
        check_names(name for name in values if read_instance(name) is None)
        state = self.state
        enabled = [id_ for id_ in sorted(state.constraints) if id_ not in state.switches]
        evaluations = evaluate(
            state.constraints, values, self.labels, enabled, bind=lambda definition: state.parameters.bind(definition, self.labels),
            definitions=lambda id_: state.definitions_on(id_, self.labels),
        )  # fmt: skip
        for each in evaluations:
            self.record_each({each.constraint: each.counts})
        return evaluations

    def retire(self, node_id: str) -> list[Dot]:
        """Retire a node, in all of its lives; returns each life with its last known seq. Its counts stay.

        The nodes of the fleet agree on it, also if that node retired this node meanwhile (docs/design/forgetting.md).

        Raises `KeyError` for a node that never wrote, and `ConstraintCrdtError` for this node.
        """
        if node_id == self.node_id:
            raise ConstraintCrdtError(f"{node_id} cannot retire itself: stop it, and retire it on another node")
        state = self.state
        if all(replica.node_id != node_id for replica in state.rows.clock_mark.entries):
            raise UnknownName(node_id, "node")  # before a write begins, which may start a new life first
        lives = self.write(lambda me: state.retirements.retire_node(node_id, node=me))
        self._exchange.forget_retired()
        return lives

    def undo_retirement(self, node_id: str) -> None:
        """Have a retired node in service again: it goes on in a new life, with all that its former lives wrote.

        Raises `ConstraintCrdtError` for a node in service, and if this node is retired.
        """
        retirements = self.state.retirements
        if node_id not in retirements:  # before a write begins, which may start a new life first
            raise ConstraintCrdtError(f"{node_id} is not retired")
        self.write(lambda me: retirements.undo(node_id, node=me))

    def revoke(self, node_id: str, reason: str = "", keys: Collection[str] = ()) -> None:
        """Revoke the keys of a node: nothing that its rows have beyond the present state counts any more, on any node.

        `keys`: the fingerprints of further keys of the node. Raises `KeyError` for a node without a certified row or key,
        `NotPermitted` without the right, and `ConstraintCrdtError` for this node and without credentials.
        """
        authority = self.local.authority
        if authority is None:
            raise ConstraintCrdtError("the rows of this fleet are not signed, so there is nothing to revoke: see docs/security.md")
        if node_id == self.node_id:
            raise ConstraintCrdtError(f"{node_id} cannot revoke itself: ask another operator node")
        found = {member.fingerprint for member in authority.members().values() if member.node == node_id}.union(keys)
        if not found:
            raise UnknownName(node_id, "member")
        self.local.seal()
        self.write(lambda me: authority.revoke(node_id, found, me, reason))
        self._exchange.forget_ended()

    def write_again(self, replaced: OwnReplaced) -> int:
        """Write the cells that only a replaced row of this node had, under its new life; returns how many.

        Definitions are added beside those in force, so none is lost. Removals of additions that the replaced row had since the
        start of the process are left out: in the other row these seqs are of other additions. So are counts.
        """
        rows, constraints = self.state.rows, self.state.constraints
        lost = [cell for cell in replaced.cells if cell.kind == ADD]
        dots = [dot for cell in replaced.cells if cell.kind == REMOVE for dot in removed_dots(cell) if dot.kind == ADD]
        sure = [dot for dot in dots if dot.replica != replaced.replica or dot.seq <= replaced.resumed]
        named = [(rows.get(ADD, dot.key, dot.replica), dot.seq) for dot in sure]
        removed = [cell for cell, seq in named if cell is not None and cell.seq == seq]

        def write(me: Replica) -> int:
            for cell in lost:
                rows.write(me, Cell(ADD, cell.key, cell.data))
            if removed:
                constraints.remove_adds(removed, node=me)
            return len(lost) + len(removed)

        return self.write(write) if lost or removed else 0

    def vouch(self) -> int:
        """Vouch for the rows from the time before the fleet had identities, if this node is an operator; returns their number."""
        authority = self.local.authority
        if authority is None or authority.member.role != OPERATOR or not authority.unproven:
            return 0
        return self.write(authority.vouch)

    # --- maintenance ---------------------------------------------------------------------------------------------------

    def resume(self, incarnation: int, *, vouched: bool) -> None:
        """Go on as a life from a store, after its rows were put into the state.

        `vouched`: the rows have everything this life told others. If not, the next write starts another life.
        """
        self.local.resume(incarnation, vouched=vouched)

    def remove_expired(self, *, limit: int = 1_000) -> int:
        """Remove adds expired long enough ago, `limit` at most; returns their number. `local_replica` has the rules."""
        state, expired = self.state, self.local.expired
        if not self.local.may_change_constraints:
            return 0
        ended = {self.node_id, *state.retirements.nodes}
        alone = ended.issuperset(state.rows.writers) and ended.issuperset(self.local.time.offsets)
        adds = expired.due(self.node_id, alone=alone, most=limit)
        if adds:
            try:
                self.write(lambda me: state.constraints.remove_adds(adds, node=me))
            except ConstraintCrdtError:
                expired.put_back(adds)
                raise
        return len(adds)

    def collect(self, acknowledged_by: Iterable[str] | None = None) -> int:
        """Drop tombstones; returns the number of cells. Peers below the floors then need a Sync.

        `acknowledged_by`: drop only those all of these peers have given evidence of, so that none of them needs a Sync.
        """
        rows = self.state.rows
        if acknowledged_by is None:
            return rows.collect()
        clocks = [self.tracker.clock(node_id) for node_id in acknowledged_by]
        mine = rows.clock_mark.entries
        upto = {replica: min([seq, *(clock[replica] if clock else 0 for clock in clocks)]) for replica, seq in mine.items()}
        return rows.collect(upto)

    def merge(self, other: ConstraintState) -> GossipResult:
        """Merge a state from another source than a message, such as a file. The state is no evidence about any peer.

        Raises `ConstraintCrdtError`, changing nothing, beyond a limit, and `NotPermitted` for rows that a fleet with signatures
        would not take from a message.
        """
        rows = self.state.rows
        self.local.seal()
        before = rows.seq(self.replica)
        result = GossipResult(state_changed=self._exchange.merge(other.rows))
        if result.state_changed:
            self._exchange.forget_retired()
        if rows.seq(self.replica) != before:
            result.outlived, result.unknown = self.replica, (before, rows.seq(self.replica))
        result.converged = self.converged
        return result

    def forget_peers(self) -> None:
        """Drop all knowledge of peers, as after a restart: the next exchange with each begins with a whole Ping."""
        self.tracker.clear()
        self._drop_transfers()

    def _drop_transfers(self) -> None:
        self._inbound.clear()
        self._outbound.clear()

    # --- the exchange --------------------------------------------------------------------------------------------------

    def begin(self, peer: str) -> GossipMessage:
        """The first message of an exchange with `peer`: a Resume of an interrupted transfer; a Delta where the peer is known to be
        a
        little behind; else a Ping.
        """
        authority = self.local.authority
        if authority is not None:
            self.local.seal()
            if authority.has_revocations and authority.is_revoked_node(peer):
                return self._composer.sync(None)  # it is told, and gets no answer to what it says
        return self._composer.begin(peer)

    def ping(self, peer: str | None = None) -> Ping:
        """The node's hash and clock; the clock as changes against a clock `peer` is known to have, if any."""
        self.local.seal()
        return self._composer.ping(peer)

    def delta_since(self, clock: VectorClock) -> Delta | Sync:
        """Everything above `clock`, for any reader: a Delta, or a Sync where `clock` is below a floor."""
        self.local.seal()
        return self._composer.delta_since(clock)

    def is_transferring(self, peer: str) -> bool:
        """True while a large message travels in parts to a peer or from it, by the time of `links`. An exchange begun meanwhile
        would ask for the same parts a second time.
        """
        known = self.tracker.peer(peer)
        if known is None or (peer not in self._inbound and peer not in self._outbound):
            return False
        return self._composer.is_receiving(known) or self._outbound.is_sending(known.replica)

    def break_off(self, peer: str) -> None:
        """The exchange with a peer is over, completed or not: no answer is to be expected. The next asks for the rest, if any."""
        self._inbound.break_off(peer)

    def encoding(self, message: GossipMessage) -> Callable[[], EncodedMessage] | None:
        """The work of encoding a large message, for a thread of the caller, see `keep_encoded`. None: it is not large."""
        if not isinstance(message, Delta | Sync) or items_of(message) < ENCODED_APART:
            return None
        limits = self.state.rows.limits
        return lambda: encoded_apart(message, limits)

    def keep_encoded(self, message: GossipMessage, made: EncodedMessage) -> None:
        """Have the next call of `encoded`, if it is with this message, use the result of `encoding`."""
        self._outbound.made = message, made

    def encoded(self, message: GossipMessage, peer: str, max_bytes: int = MESSAGE_BYTES) -> list[bytes]:
        """A message to `peer` as bytes, each at most `max_bytes` long: the message itself, or a first burst of parts. Where `links`
        has a time, parts and bursts are the bytes that pass in about a second.

        The other parts are kept until the peer asks for them.
        """
        known = self.tracker.peer(peer)
        return self._outbound.encoded(message, known.replica if known else None, max_bytes)

    def reading(self, message: GossipMessage) -> Callable[[], ReadMessage] | None:
        """The work of reading the large message that a part completes, for a thread of the caller, see `keep_read`.

        None: the message completes none. Nothing of this node is changed by the work, and `receive` has the same effects without.
        """
        return self._exchange.reading(message)

    def keep_read(self, read: ReadMessage) -> None:
        """Have `receive` use the result of `reading`: it is called with the part next."""
        self._exchange.read = read

    def hear(self, payload: bytes, sender: str | None = None) -> tuple[GossipMessage, GossipResult]:
        """Decode and receive a message; returns the message and its effects. Raises as `decoded` and `receive` do."""
        message = self.decoded(payload, sender)
        return message, self.receive(message)

    @staticmethod
    def decoded(payload: bytes, sender: str | None = None) -> GossipMessage:
        """The message in `payload`. `sender`: the proven sender, if there is a proof.

        Raises `ConstraintCrdtError` for bytes that cannot be decoded, `WrongSender` for a message in the name of another node than
        its proven sender.
        """
        message = decode_message(payload)
        if sender is not None and message.node.node_id != sender:
            raise WrongSender(f"{sender} sent a message in the name of {message.node.node_id}")
        return message

    def receive(self, message: GossipMessage) -> GossipResult:
        """Receive a message; returns its effects, with the answers to send.

        Raises `ConstraintCrdtError`, changing nothing, for a message of another fleet, a message that does not fit, or beyond a
        limit.
        """
        local = self.local
        if local.authority is not None:
            local.seal()
        result = self._exchange.receive(message)
        result.converged = self.tracker.all_have(local.state.rows.state_hash)
        return result


def exchange(a: GossipNode, b: GossipNode) -> bool:
    """Let `a` begin an exchange with `b` and pass messages until neither has more to say. True if a state changed."""
    changed = False
    waiting: list[tuple[GossipNode, GossipMessage]] = [(b, a.begin(b.node_id))]
    while waiting:
        reader, message = waiting.pop(0)
        result = reader.receive(message)
        changed = changed or result.state_changed
        other = a if reader is b else b
        waiting += [(other, response) for response in result.responses]
    return changed


ENDS_KEPT: Final = 10_000
"""Ended constraints that a node remembers, the latest."""

ACTOR: Final = "lifetimes"
"""Who ends a constraint, in the audit."""

LEAST_SHARE: Final = 0.1
"""Of the default life that is left by any use."""


class TtlType(enum.StrEnum):
    """The subject of a constraint, which decides how long it lives."""

    TILE = "tile"
    TASK = "task"
    AGENT = "agent"
    BEARING = "bearing"
    TRUST = "trust"

    @property
    def default_lifespan_secs(self) -> float:
        """The life without load or use: an hour, 5 min, 1 min, 30 s, a day."""
        return _LIVES[self]

    @property
    def decay_half_life(self) -> float:
        """Seconds after which a violation should weigh half, for a decaying counter."""
        return _HALF_LIVES[self]

    def lifespan_secs(self, load: float = 1.0, uses: int = 0) -> float:
        """The life at this load, 1 for a usual load, and after so many uses. Raises `ConstraintCrdtError` for a negative number."""
        if not (load >= 0 and math.isfinite(load)) or uses < 0:
            raise ConstraintCrdtError(f"load and uses are 0 or more, not {load} and {uses}")
        share = max(LEAST_SHARE, 1.0 - math.log2(uses + 1) / 100.0)
        return self.default_lifespan_secs * share / max(1.0, load)


_LIVES: Final = {
    TtlType.TILE: 3600.0,
    TtlType.TASK: 300.0,
    TtlType.AGENT: 60.0,
    TtlType.BEARING: 30.0,
    TtlType.TRUST: 86_400.0,
}
_HALF_LIVES: Final = {
    TtlType.TILE: 3600.0,
    TtlType.TASK: 300.0,
    TtlType.AGENT: 30.0,
    TtlType.BEARING: 60.0,
    TtlType.TRUST: 7200.0,
}


class DeathContext(enum.StrEnum):
    """The cause of an end."""

    TIME_EXPIRED = "time expired"
    LOAD_KILLED = "load killed"
    """The life at the load of an evaluation was over."""
    USE_EXHAUSTED = "use exhausted"
    """The life after so many uses was over, without load."""
    EXPLICIT_TERMINATION = "explicit termination"
    """It was removed."""


class TtlState(NamedTuple):
    """A constraint with a lifetime, now."""

    remaining_secs: float
    """Until its end by time; 0 after the end."""
    context: DeathContext | None = None
    """The cause of its end; None while it is active."""

    @property
    def is_active(self) -> bool:
        """True before the end."""
        return self.context is None


class TtlCrdtConstraint(NamedTuple):
    """An active constraint with a lifetime."""

    id: str
    ttl_type: TtlType
    created: int
    """Its last addition or renewal, ns since the epoch by the clock of its writer."""
    expires: int
    """Its end by time, ns since the epoch."""
    uses: int


class EmergenceEvent(NamedTuple):
    """Constraints have ended since the last evaluation."""

    before: int
    """Active constraints with a lifetime at the last evaluation."""
    after: int
    """The same now."""
    expired_ids: tuple[str, ...]
    """The ended ones, in order."""

    @property
    def delta(self) -> int:
        """By how many the active ones changed, additions included."""
        return self.after - self.before

    @property
    def expired_count(self) -> int:
        """How many have ended."""
        return len(self.expired_ids)


class TtlCrdtNode:
    """The constraints with a lifetime of a node's state."""

    def __init__(self, node: GossipNode) -> None:
        """`node`: reads and writes go through it."""
        self.node = node
        """The node."""
        self._ended: OrderedDict[str, DeathContext] = OrderedDict()
        self._before = set(self._active())

    def __repr__(self) -> str:
        return f"TtlCrdtNode({self.node.node_id}, {self.active_count} active, {self.expired_count} ended)"

    def add_constraint(self, ttl_type: TtlType, name: str | int) -> str:
        """Make a constraint active for the life of its type, or renew it; returns its id. Raises as `GossipNode.add_constraint`."""
        id_ = f"{ttl_type.value}:{name}"
        self.node.add_constraint(id_, ttl=ttl_type.default_lifespan_secs, at=self.node.time.stamp())
        self._ended.pop(id_, None)
        self._before.add(id_)
        return id_

    def terminate(self, id_: str) -> None:
        """End a constraint now. Raises `UnknownConstraint` for an inactive constraint."""
        self._end(id_, DeathContext.EXPLICIT_TERMINATION)

    def constraints(self) -> list[TtlCrdtConstraint]:
        """The active constraints with a lifetime, by id. O(constraints)."""
        return [self._constraint(id_) for id_ in sorted(self._active())]

    @property
    def active_count(self) -> int:
        """How many are active. O(constraints)."""
        return len(self._active())

    @property
    def expired_count(self) -> int:
        """Ended constraints that this node remembers, up to the last evaluation."""
        return len(self._ended)

    def state(self, id_: str) -> TtlState:
        """A constraint now. Raises `UnknownConstraint` for a constraint that was never active here, or is forgotten."""
        if id_ in self._active():
            return TtlState((self._constraint(id_).expires - self.node.time.now()) / SECOND)
        context = self._ended.get(id_) or self._context(id_)
        if context is None:
            raise UnknownConstraint(id_)
        return TtlState(0.0, context)

    def evaluate(self, load: float = 1.0) -> list[EmergenceEvent]:
        """End the constraints whose life at this load is over. An event if any have ended since the last call, else none.

        `load`: 1 for a usual load; a lower load prolongs nothing. Raises `ConstraintCrdtError` for a negative load, and where this
        node may not remove constraints.
        """
        now = self.node.time.now()
        for each in self.constraints():
            age = (now - each.created) / SECOND
            if age >= each.ttl_type.lifespan_secs(1.0, each.uses):
                self._end(each.id, DeathContext.USE_EXHAUSTED)
            elif age >= each.ttl_type.lifespan_secs(load, each.uses):
                self._end(each.id, DeathContext.LOAD_KILLED)
        before, after = self._before, set(self._active())
        ended = sorted(before - after)
        for id_ in ended:
            self._remember(id_, self._ended.get(id_) or self._context(id_) or DeathContext.EXPLICIT_TERMINATION)
        for id_ in after & self._ended.keys():
            del self._ended[id_]
        self._before = after
        return [EmergenceEvent(len(before), len(after), tuple(ended))] if ended else []

    def _active(self) -> list[str]:
        return [id_ for id_ in self.node.state.constraints if _type_of(id_) is not None and self._expiry(id_) is not None]

    def _expiry(self, id_: str) -> int | None:
        """The end by time of the definition that lasts longest; None without an end."""
        ends = [each.definition.expires_at for each in self.node.state.constraints.additions(id_)]
        return max((end for end in ends if end is not None), default=None) if None not in ends else None

    def _constraint(self, id_: str) -> TtlCrdtConstraint:
        ttl_type, expires = _type_of(id_) or TtlType.TILE, self._expiry(id_) or 0
        created = max((each.added_at or 0 for each in self.node.state.constraints.additions(id_)), default=0)
        created = created or expires - round(ttl_type.default_lifespan_secs * SECOND)
        return TtlCrdtConstraint(id_, ttl_type, created, expires, sum(self.node.state.metrics.constraint(id_)))

    def _end(self, id_: str, context: DeathContext) -> None:
        node = self.node
        since = Dot(node.replica, node.local.written)
        node.remove_constraint(id_)
        node.local.note(ACTOR, context.value, id_, node.local.time.stamp(), since)
        self._remember(id_, context)

    def _remember(self, id_: str, context: DeathContext) -> None:
        self._ended[id_] = context
        self._ended.move_to_end(id_)
        if len(self._ended) > ENDS_KEPT:
            self._ended.popitem(last=False)

    def _context(self, id_: str) -> DeathContext | None:
        """The cause of an end, from the state: the expiry of the standing definition, or the last entry of the audit."""
        state = self.node.state
        if state.constraints.expired(id_):
            return DeathContext.TIME_EXPIRED
        told = [each.operation for each in state.audit if each.subject == id_ and each.actor == ACTOR]
        return DeathContext(told[-1]) if told and told[-1] in set(DeathContext) else None


def _type_of(id_: str) -> TtlType | None:
    """The type in an id; None for an id without a type."""
    kind, separator, _ = id_.partition(":")
    return TtlType(kind) if separator and kind in _LIVES else None
