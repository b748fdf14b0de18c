"""ConstraintState: the shared state of a fleet as a single CRDT.

The types are views over the same rows. Each write names its writer; a `GossipNode` writes as its replica.

State files: whole states as JSON, for files and pipes. docs/reference/state-files.md describes the form. Rules:

- Cells travel as their own bytes, never encoded again, so the hash of the state is kept, and cells of unknown kinds pass
  unchanged.
- The same state gives the same text.
- A text is checked before a state is made: the form, the bounds, the order, a checksum over all relevant parts, every cell, and
  the state hash. A text with any error is refused as a whole.
- The part for people and `jq`, `reading`, is derived, and never parsed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Final

import msgspec

from constraint_crdt.crdt.cells import Cell, Run, Stub, make_cell, read_cell
from constraint_crdt.crdt.clock import (
    Digest,
    Merge,
    Replica,
    StateHash,
    VectorClock,
    check_id,
    check_replica,
    replica_bytes,
    writer,
)
from constraint_crdt.crdt.limits import DEFAULT_LIMITS, MAX_COUNT, Limits
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.model import IfUnknown, Mode, Scope, html_fields
from constraint_crdt.types.alerts import FleetRules, Silences, ToldAlerts, WaysOut
from constraint_crdt.types.budgets import Budgets
from constraint_crdt.types.counters import ConstraintGCounter, PNCounters, RoomIncrements
from constraint_crdt.types.decay import MAX_SKEW, Ages, DecayConstraintState, DecayCounter
from constraint_crdt.types.definition import ADD, Definition, Labels, check_labels, read_addition
from constraint_crdt.types.nodes import NODE, AuditLog, NodeValue, Retirements, node_value
from constraint_crdt.types.orset import Change, ChangeHistory, ConstraintORSet, Switches
from constraint_crdt.types.parameters import Parameters
from constraint_crdt.types.rollouts import Rollouts, StagedNodes
from constraint_crdt.types.sketch import DELTA, EPSILON, BloomCRDT, Blooms, BloomShape, SketchCRDT, Sketches, SketchShape
from constraint_crdt.types.tile_cells import EisensteinRegister, Position
from constraint_crdt.types.tiles import FleetTiles
from constraint_crdt.types.variables import MeasuredVariables, SharedReadings
from constraint_crdt.types.verdicts import ConstraintVerdicts
from constraint_crdt.types.view import no_time

NODE_KEY = ""


class ConstraintState(Merge):
    """Active constraints, counts, position and descriptions of nodes. Readings are O(1) unless stated otherwise."""

    def __init__(
        self,
        rows: Rows | None = None,
        *,
        now: Callable[[], int] = no_time,
        own_time: Callable[[], int] | None = None,
        stamp: Callable[[], int] | None = None,
        max_skew: float = MAX_SKEW,
    ) -> None:
        """`now`: the time in ns since the epoch, for readings with a time. Left out, time stands still.

        `own_time`: the clock of this machine, for the ages of decaying values, where `now` follows other clocks too. `stamp`: the
        clock of timestamps, where it is another than `now`. `max_skew`: seconds that the writer of a decaying value may be ahead
        without being counted.
        """
        self.now = now
        """The clock of all readings."""
        self.stamp = now if stamp is None else stamp
        """The clock of the timestamps of tiles."""
        self.rows = Rows() if rows is None else rows
        """The cells themselves."""
        self.constraints = ConstraintORSet(self.rows, now=now)
        """Which constraints are active, with their definitions."""
        self.metrics = ConstraintGCounter(self.rows)
        """How often they held and were violated, where."""
        self.ages = Ages(self.rows, now if own_time is None else own_time, max_skew)
        """How old decaying values are."""
        self.register = EisensteinRegister(self.rows)
        """The position's register."""
        self.retirements = Retirements(self.rows)
        """Which lives, and which whole nodes, are over."""

    # Made when they are first asked for: a fleet of thousands in one process uses few of them.

    @cached_property
    def rates(self) -> DecayConstraintState:
        """How often constraints held and were violated lately, where."""
        return DecayConstraintState(rows=self.rows, ages=self.ages)

    @cached_property
    def counters(self) -> PNCounters:
        """Counters with increments and decrements, by name."""
        return PNCounters(self.rows)

    @cached_property
    def tiles(self) -> FleetTiles:
        """The tiles, by room and id."""
        return FleetTiles(self.rows, now=self.stamp)

    @cached_property
    def sketches(self) -> Sketches:
        """The sketches by name."""
        return Sketches(self.rows)

    @cached_property
    def blooms(self) -> Blooms:
        """The Bloom filters by name."""
        return Blooms(self.rows)

    @cached_property
    def increments(self) -> RoomIncrements:
        """The counts of foreign nodes in rooms, from numbered increments."""
        return RoomIncrements(self.rows)

    @cached_property
    def verdicts(self) -> ConstraintVerdicts:
        """The state of each active constraint on each node in service, as told by the nodes."""
        return ConstraintVerdicts(self.rows, retirements=self.retirements, active_only=True)

    @cached_property
    def variables(self) -> MeasuredVariables:
        """The variables that each node in service measures, with their kinds."""
        return MeasuredVariables(self.rows, retirements=self.retirements)

    @cached_property
    def budgets(self) -> Budgets:
        """The budgets of the fleet, with the shares, loans and holds that the nodes state."""
        return Budgets(self.rows, retirements=self.retirements)

    @cached_property
    def silences(self) -> Silences:
        """The silences and acknowledgements of alerts."""
        return Silences(self.rows)

    @cached_property
    def told_alerts(self) -> ToldAlerts:
        """The messages told of alerts, by destination."""
        return ToldAlerts(self.rows)

    @cached_property
    def alert_rules(self) -> FleetRules:
        """The alert rules of the fleet."""
        return FleetRules(self.rows)

    @cached_property
    def ways_out(self) -> WaysOut:
        """The destinations of alerts that each node can tell."""
        return WaysOut(self.rows)

    @cached_property
    def readings(self) -> SharedReadings:
        """The last values of the variables that each node in service shares."""
        return SharedReadings(self.rows, retirements=self.retirements)

    @cached_property
    def parameters(self) -> Parameters:
        """The parameters that expressions read, with their settings."""
        return Parameters(self.rows)

    @cached_property
    def audit(self) -> AuditLog:
        """Who caused the changes, where and when."""
        return AuditLog(self.rows)

    @cached_property
    def switches(self) -> Switches:
        """Which constraints are disabled."""
        return Switches(self.rows, now=self.now)

    @cached_property
    def changes(self) -> ChangeHistory:
        """The former states of rules, from before their changes."""
        return ChangeHistory(self.rows, now=self.now)

    @cached_property
    def rollouts(self) -> Rollouts:
        """The definitions that reach the fleet in stages."""
        return Rollouts(self.rows)

    @cached_property
    def staged(self) -> StagedNodes:
        """What the nodes of the stages tell."""
        return StagedNodes(self.rows)

    @property
    def position(self) -> Position | None:
        """The fleet's position, or None before the first write."""
        return self.register.position

    def definitions_on(self, id_: str, labels: Mapping[str, str]) -> tuple[Definition, ...]:
        """The definitions in force for a constraint on a node with these labels: by a rollout, others than elsewhere."""
        return self.rollouts.staged(id_, self.constraints.definitions(id_), labels)

    def decay(self, name: str, half_life: float) -> DecayCounter:
        """A decaying counter: half of the recorded amount goes in each half-life, in seconds.

        Raises `TypeError` for a half-life of another type, and `ConstraintCrdtError` for a half-life or a name out of bounds.
        """
        return DecayCounter(half_life, name=check_id(name, "the name of a counter"), rows=self.rows, ages=self.ages)

    @property
    def active_constraint_count(self) -> int:
        """How many constraints are active."""
        return len(self.constraints)

    @property
    def satisfaction_rate(self) -> float:
        """Satisfied over all evaluations; 1.0 when nothing was recorded."""
        return self.metrics.satisfaction_rate

    @property
    def clock(self) -> VectorClock:
        """Up to where each replica's row is accounted for. O(rows) after a change."""
        return self.rows.clock

    @property
    def state_hash(self) -> StateHash:
        """Equal exactly where knowledge is equal."""
        return self.rows.state_hash

    @property
    def constraints_hash(self) -> StateHash:
        """Equal where the standing definitions are equal, independent of counts and time."""
        return self.rows.kind_hash(ADD)

    @property
    def nodes(self) -> dict[str, NodeValue]:
        """The description of each node: software, wire version, endpoints. Of several lives the life with the most writes
        counts. O(nodes)."""
        cells = sorted(self.rows.each(NODE), key=lambda cell: self.rows.seq(cell.replica))
        return {cell.replica.node_id: node_value(cell) for cell in cells}

    @property
    def labels(self) -> dict[str, Mapping[str, str]]:
        """The labels that each node told. O(nodes)."""
        return {name: dict(told.labels) for name, told in self.nodes.items()}

    def describe(
        self,
        software: str,
        wire: int,
        endpoints: Sequence[str] = (),
        labels: Labels = (),
        role: str = "",
        *,
        node: str | Replica,
    ) -> None:
        """Describe a node: its software, wire version, endpoints, labels and role. Writes a cell only for a changed description.

        Raises `ConstraintCrdtError` for a description that peers would refuse.
        """
        replica = writer(node)
        value: list[object] = [software, wire, list(endpoints), check_labels(labels), role]
        while not value[-1] and len(value) > 3:
            del value[-1]
        cell = read_cell(make_cell(NODE, NODE_KEY, value).data)
        standing = self.rows.get(NODE, NODE_KEY, replica)
        if standing is None or standing.data != cell.data:
            self.rows.write(replica, cell)

    def sketch(self, name: str, epsilon: float = EPSILON, delta: float = DELTA) -> SketchCRDT:
        """The sketch of this name; the first record begins it.

        Raises `ConstraintCrdtError` for a name with other dimensions, for values out of bounds, and beyond the number of
        sketches.
        """
        return self.sketches.open(name, SketchShape.of(epsilon, delta))

    def bloom(self, name: str, expected_items: int, fp_rate: float) -> BloomCRDT:
        """The Bloom filter of this name, which the first insertion begins. Raises as `sketch` does."""
        return self.blooms.open(name, BloomShape.of(expected_items, fp_rate))

    def record(self, node: str | Replica, satisfied: int = 0, violated: int = 0, *, constraint: str | None = None) -> None:
        """Count evaluations of a node, of a constraint or of none in particular. Raises as `ConstraintGCounter.record` does."""
        self.metrics.record(node, satisfied, violated, constraint=constraint)

    def record_satisfied(self, count: int = 1, *, node: str | Replica, constraint: str | None = None) -> None:
        """Count satisfied evaluations of a node."""
        self.record(node, count, 0, constraint=constraint)

    def record_violations(self, count: int = 1, *, node: str | Replica, constraint: str | None = None) -> None:
        """Count violated evaluations of a node."""
        self.record(node, 0, count, constraint=constraint)

    def add_constraint(self, id_: str, *, node: str | Replica) -> Change:
        """Make a constraint active, as `node`. Raises as `ConstraintORSet.add`, which takes the fields of a definition, too."""
        return self.constraints.add(id_, node=node)

    def remove_constraint(self, id_: str, *, node: str | Replica) -> None:
        """Remove a constraint, as `node`. Raises `UnknownConstraint` for an inactive constraint."""
        self.constraints.remove(id_, node=node)

    def update_position(self, position: Position, *, node: str | Replica) -> None:
        """Move the fleet's position, as `node` and now. Raises as `EisensteinRegister.update` does."""
        self.register.update(position, node=node, time=self.stamp())

    def merge(self, other: "ConstraintState") -> bool:
        return self.rows.merge(other.rows)

    def merged(self, other: "ConstraintState") -> "ConstraintState":
        ages = self.ages
        result = ConstraintState(self.rows.copy(), now=self.now, own_time=ages.clock, stamp=self.stamp, max_skew=ages.max_skew)
        result.ages.keep_arrivals(ages)
        result.merge(other)
        return result

    def subsumes(self, other: "ConstraintState") -> bool:
        return self.clock.subsumes(other.clock)

    def __eq__(self, other: object) -> bool:
        return self.state_hash == other.state_hash if isinstance(other, ConstraintState) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _repr_html_(self) -> str:
        """Tables of the readings and of the active constraints, for notebooks."""
        total = self.metrics.total
        fields = [
            ("active constraints", len(self.constraints)),
            ("satisfied", total.satisfied),
            ("violated", total.violated),
            ("satisfaction rate", self.satisfaction_rate),
            ("position", self.position),
        ]
        return html_fields("Constraint state", fields) + self.constraints._repr_html_()

    def __repr__(self) -> str:
        return (
            f"ConstraintState({len(self.constraints)} constraints, {self.metrics.total_satisfied} satisfied, "
            f"{self.metrics.total_violations} violated, position={self.position})"
        )


FORMAT: Final = "constraint-crdt state"
VERSION: Final = 1

MAX_STATE_BYTES: Final = 256 * 1024 * 1024
"""The longest text accepted by default. Parsing takes some ten times as much memory."""


class StateFileError(ConstraintCrdtError, ValueError):
    """A text is no state, or not to be trusted. `field` is the place of the error in the text, if known."""

    def __init__(self, message: str, field: str | None = None) -> None:
        """`message`: a sentence. `field`: the place of the error in the text, such as `rows[0].seq`."""
        super().__init__(f"the state file is wrong at `{field}`: {message}" if field else message)
        self.field = field


class _Head(msgspec.Struct):
    format: str
    version: int


class _Cell(msgspec.Struct, array_like=True, gc=False):
    """Many live at once, while a node goes on: they are nothing for the collector to walk."""

    seq: int
    data: bytes


class _Row(msgspec.Struct):
    node: str
    incarnation: int
    seq: int
    cells: list[_Cell]
    floor: int = 0
    stubs: list[Stub] | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct):
    hash: str
    checksum: str
    rows: list[_Row]


_encode = msgspec.json.Encoder().encode
_head = msgspec.json.Decoder(_Head)
_file = msgspec.json.Decoder(_File)


def to_json(state: ConstraintState) -> str:
    """The whole state as a JSON object on a single line. O(cells)."""
    rows = [_row(run) for run in sorted(state.rows.whole(), key=lambda run: run.replica)]
    head = {"format": FORMAT, "version": VERSION, "hash": state.state_hash.hex(), "checksum": _checksum(rows)}
    # Piece by piece: what is made for a large state is gone at once, and no step keeps other threads waiting for long.
    parts = [_encode(head)[:-1], b',"reading":', _reading(state), b',"rows":[', b",".join([_encode(row) for row in rows]), b"]}"]
    return b"".join(parts).decode()


def from_json(
    text: str | bytes,
    *,
    now: Callable[[], int] = no_time,
    limits: Limits = DEFAULT_LIMITS,
    max_bytes: int = MAX_STATE_BYTES,
    digest: Digest | None = None,
) -> ConstraintState:
    """The state written by `to_json`, with its clock, floors and hash.

    `now` and `limits`: of the new state; without `now` time stands still, and nothing expires. `digest`: of the fleet of the
    file, for a fleet with a secret. Raises `StateFileError` (a `ConstraintCrdtError`) for a text that is no state, damaged, of a
    newer version or longer than `max_bytes`, and `ConstraintCrdtError` beyond a limit.
    """
    data = _bytes(text, max_bytes)
    _check_head(data)
    file = _decoded(_file, data)
    runs = [_run(row, place) for place, row in enumerate(file.rows)]
    _check_replicas(runs)
    if file.checksum != _checksum(file.rows):
        raise StateFileError("the state file is damaged: its checksum is not that of its rows; make it again")
    for run, row, place in zip(runs, file.rows, range(len(runs)), strict=True):
        run.cells = _cells(run.replica, row, place)
    state = ConstraintState(Rows(digest, limits), now=now)
    state.rows.apply(runs, whole=True)
    if state.state_hash.hex() != file.hash:
        raise StateFileError("its content has another hash: it is damaged, or from a fleet with another secret", "hash")
    return state


# --- writing -----------------------------------------------------------------------------------------------------------


def _row(run: Run) -> _Row:
    cells = [_Cell(cell.seq, cell.data) for cell in run.cells]
    stubs = list(run.stubs) if run.stubs else msgspec.UNSET
    return _Row(run.replica.node_id, run.replica.incarnation, run.hi, cells, run.floor, stubs)


def _reading(state: ConstraintState) -> bytes:
    """The readings of the state, for people and `jq`; independent of time, so the same state gives the same text."""
    totals = {
        "satisfied": state.metrics.total_satisfied,
        "violations": state.metrics.total_violations,
        "position": state.position,
    }
    ids = sorted(map(str, state.rows.table(ADD)))
    constraints = b",".join([_encode({"id": id_, "definitions": _definitions(state, id_)}) for id_ in ids])
    return b'{"constraints":[' + constraints + b"]," + _encode(totals)[1:]


def _definitions(state: ConstraintState, id_: str) -> list[dict[str, object]]:
    """The standing definitions of a constraint, expired ones included."""
    cells = sorted(state.rows.held(ADD, id_), key=lambda cell: (cell.replica, cell.seq))
    found = dict.fromkeys(read_addition(cell).definition for cell in cells)
    return [{key: value for key, value in _parts(each) if value} for each in found]


def _parts(definition: Definition) -> list[tuple[str, object]]:
    return [
        ("when", definition.when),
        ("severity", str(definition.severity)),
        ("about", definition.about),
        ("on", dict(definition.on)),
        ("expires_at", definition.expires_at),
        ("for", definition.for_),
        ("clear_after", definition.clear_after),
        ("clear_when", definition.clear_when),
        ("if_unknown", None if definition.if_unknown is IfUnknown.UNKNOWN else definition.if_unknown.value),
        ("max_age", definition.max_age),
        ("scope", None if definition.scope is Scope.NODE else definition.scope.value),
        ("selector", str(definition.selector) if definition.requirements else None),
        ("mode", None if definition.mode is Mode.ENFORCE else definition.mode.value),
        ("each", definition.each),
        ("meaning", definition.meaning),
    ]


def _checksum(rows: Sequence[_Row]) -> str:
    """A checksum over all parsed parts, removals and floors included, which the state hash does not cover. Each part is
    unambiguous."""
    hasher = blake2b(digest_size=32, person=b"state file")
    for row in rows:
        numbers = (row.seq, row.floor, len(row.cells))
        hasher.update(replica_bytes(Replica(row.node, row.incarnation)) + b"".join(n.to_bytes(8, "big") for n in numbers))
        hasher.update(b"".join([cell.seq.to_bytes(8, "big") + len(cell.data).to_bytes(4, "big") + cell.data for cell in row.cells]))
    return hasher.hexdigest()


# --- reading -----------------------------------------------------------------------------------------------------------


def _bytes(text: str | bytes, max_bytes: int) -> bytes:
    try:
        data = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise StateFileError("the state file is not valid Unicode text") from None
    if len(data) > max_bytes:
        raise StateFileError(f"the state file has {len(data)} bytes, more than the {max_bytes} that are read")
    if not data.strip():
        raise StateFileError("the state file is empty")
    return data


def _check_head(data: bytes) -> None:
    """Check the part common to all versions of the form, to tell a newer version from a malformed text."""
    foreign = StateFileError(f"this is no state file: it is not an object with `format` {FORMAT!r} and a `version`")
    try:
        head = _head.decode(data)
    except msgspec.ValidationError:
        raise foreign from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    if head.format != FORMAT or head.version < 1:
        raise foreign
    if head.version > VERSION:
        raise StateFileError(
            f"the state file was made by a newer version of constraint-crdt (form {head.version}, this one reads up to {VERSION}): "
            "upgrade constraint-crdt here"
        )


def _decoded(decoder: "msgspec.json.Decoder[_File]", data: bytes) -> _File:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise StateFileError(message[:1].lower() + message[1:], place.strip("`.") or "$") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None


def _not_json(error: Exception) -> StateFileError:
    reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
    return StateFileError(f"the state file is not JSON, or only a part of it: {reason}")


def _run(row: _Row, place: int) -> Run:
    """The run of a row, still without its cells: all numbers in bounds, the cells in ascending order."""
    try:
        replica = check_replica(row.node, row.incarnation)
    except ConstraintCrdtError as error:
        raise StateFileError(str(error), f"rows[{place}]") from None
    if not 0 < row.seq <= MAX_COUNT:
        raise StateFileError("a row has a seq from 1 to 2**63 - 1", f"rows[{place}].seq")
    if not 0 <= row.floor <= row.seq:
        raise StateFileError("a floor cannot be above the seq of its row", f"rows[{place}].floor")
    last = 0
    for number, cell in enumerate(row.cells):
        if not last < cell.seq <= row.seq:
            raise StateFileError("seqs go up, and not above the seq of their row", f"rows[{place}].cells[{number}]")
        last = cell.seq
    return Run(replica, 0, row.seq, (), row.floor, 0, row.stubs or ())


def _check_replicas(runs: Sequence[Run]) -> None:
    seen: set[Replica] = set()
    for place, run in enumerate(runs):
        if run.replica in seen:
            raise StateFileError(f"there is a row of {run.replica} before", f"rows[{place}]")
        seen.add(run.replica)


def _cells(replica: Replica, row: _Row, place: int) -> list[Cell]:
    """The cells of a row, each validated and at its dot."""
    cells = []
    for number, written in enumerate(row.cells):
        try:
            cell = read_cell(written.data)
        except (msgspec.DecodeError, RecursionError, UnicodeError, ConstraintCrdtError) as error:
            reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
            raise StateFileError(f"this is no cell: {reason}", f"rows[{place}].cells[{number}]") from None
        cell.replica, cell.seq = replica, written.seq
        if not isinstance(cell.key, str):
            cell.key = written.seq
        cells.append(cell)
    return cells
