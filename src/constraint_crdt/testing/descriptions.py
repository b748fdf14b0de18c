"""The types of this package for the law checker: their steps, readings, and the mutations their states account for.

Tables (sketches, Bloom filters) are small and items few, so items share counters and bits. Decaying values are read at the same
time everywhere: all states of a description share a clock, advanced by each mutation. So ages are equal on all of them, as on nodes
with equal clocks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from constraint_crdt.crdt.clock import Replica, VectorClock, writer
from constraint_crdt.crdt.rows import Rows
from constraint_crdt.model import VerdictState
from constraint_crdt.testing.laws import (
    DEFINITIONS,
    IDS,
    REPLICAS,
    Laws,
    arbitrary_cells,
    forged_cells,
    in_place,
    over_rows,
    rows_of,
)
from constraint_crdt.types.counters import COUNTS, SECONDS, ConstraintGCounter, PNCounter, RoomIncrements, Seconds
from constraint_crdt.types.decay import DecayConstraintState, DecayCounter
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.orset import ALL, CHANGE, SWITCH, Before, ChangeHistory, ConstraintORSet, Subject, Switches
from constraint_crdt.types.parameters import PARAMETER, Parameters
from constraint_crdt.types.rollouts import ROLLOUT, STAGED, Phase, Rollouts, StagedNodes, StagedValue
from constraint_crdt.types.sketch import BloomCRDT, BloomShape, SketchCRDT, SketchShape
from constraint_crdt.types.tile_cells import POSITION, EisensteinRegister
from constraint_crdt.types.tiles import FleetTile
from constraint_crdt.types.variables import EVERY, READING, MeasuredVariables, Reading, SharedReadings, VariableKind
from constraint_crdt.types.verdicts import VERDICT, VIOLATED_STATES, ConstraintVerdicts, NodeVerdict

ids = st.sampled_from(("x", "x", "y"))
"""An id more often than the other, so it is added and removed by several replicas."""
counts = st.tuples(st.sampled_from((None, *IDS)), st.integers(0, 3), st.integers(0, 3))
times = st.tuples(st.just("time"), st.sampled_from(IDS), st.tuples(*[st.integers(0, 3)] * 3))
moves = st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.integers(0, 3))
edits = st.one_of(
    st.tuples(st.just("add"), ids, st.sampled_from(DEFINITIONS)), st.tuples(st.just("remove"), ids), st.just(("collect",))
)

# --- clock -------------------------------------------------------------------------------------------------------------


def _advance(clock: VectorClock, name: str, step: int) -> None:
    replica = Replica(name, 0)
    clock.merge(VectorClock({replica: clock[replica] + step}))


def _advanced(clock: VectorClock, done: Sequence[tuple[str, int]]) -> bool:
    sums = {Replica(name, 0): sum(step for by, step in done if by == name) for name in REPLICAS}
    return clock == VectorClock(sums)


def clock_laws() -> Laws[VectorClock, int]:
    """`VectorClock`. No history is needed for adversarial ones: any clocks are possible."""
    entries = st.dictionaries(st.builds(Replica, st.sampled_from(REPLICAS), st.integers(0, 1)), st.integers(0, 3))
    return Laws(
        new=VectorClock,
        steps=st.integers(1, 3),
        apply_step=in_place(_advance),
        merge=in_place(VectorClock.merge),
        reading=lambda clock: clock.as_dict(),
        replicas=REPLICAS,
        adversarial=st.lists(entries.map(VectorClock), min_size=len(REPLICAS), max_size=len(REPLICAS)),
        subsumes=lambda clock, other: clock.subsumes(other),
        accounts_for=_advanced,
    )


# --- counts ------------------------------------------------------------------------------------------------------------


def count(counter: ConstraintGCounter, name: str, step: tuple[Any, ...]) -> None:
    """Record the counts or the times of a step."""
    match step:
        case ("time", id_, passed):
            counter.record_seconds(name, {id_: passed})
        case (constraint, satisfied, violated):
            counter.record(name, satisfied, violated, constraint=constraint)


def _counted(counter: ConstraintGCounter, done: Sequence[tuple[str, tuple[Any, ...]]]) -> bool:
    counted = [(by, step) for by, step in done if step[0] != "time"]
    timed = [(by, id_, passed) for by, (what, id_, passed) in done if what == "time"]

    def total(name: str | None = None, constraint: str | None = None) -> tuple[int, int]:
        chosen = [step for by, step in counted if name in (None, by) and constraint in (None, step[0])]
        return sum(step[1] for step in chosen), sum(step[2] for step in chosen)

    def time(name: str | None = None, constraint: str | None = None) -> Seconds:
        chosen = [passed for by, id_, passed in timed if name in (None, by) and constraint in (None, id_)]
        return Seconds(*(sum(each[part] for each in chosen) / 1000 for part in range(3)))

    return (
        counter.total == total()
        and all(counter.node(name) == total(name) and counter.node_time(name) == time(name) for name in REPLICAS)
        and all(counter.constraint(id_) == total(constraint=id_) for id_ in IDS)
        and all(counter.time(id_) == time(constraint=id_) for id_ in IDS)
    )


def read_counter(counter: ConstraintGCounter) -> object:
    """All readings of the counts and times."""
    return (
        counter.total,
        {name: counter.node(name) for name in sorted(counter.nodes)},
        {id_: (counter.constraint(id_), counter.by_node(id_)) for id_ in IDS},
        {id_: (counter.time(id_), counter.time_on(id_)) for id_ in IDS},
        [counter.node_time(name) for name in REPLICAS],
    )


def counter_laws() -> Laws[ConstraintGCounter, Any]:
    """`ConstraintGCounter`."""
    steps, pool = st.one_of(counts, times), arbitrary_cells(COUNTS, SECONDS)
    return over_rows(ConstraintGCounter, steps, count, read_counter, pool=pool, accounts_for=_counted, canonical=True)


# --- constraints -------------------------------------------------------------------------------------------------------


def edit(constraints: ConstraintORSet, name: str, step: tuple[Any, ...]) -> None:
    """Add, remove or collect; removing an inactive constraint has no effect."""
    match step:
        case ("add", id_, definition):
            constraints.put(id_, definition, node=name)
        case ("remove", id_) if id_ in constraints:
            constraints.remove(id_, node=name)
        case ("collect",):
            rows_of(constraints).collect()


def read_set(constraints: ConstraintORSet) -> object:
    """All readings of the constraints."""
    return {id_: constraints.additions(id_) for id_ in sorted(constraints)}, len(constraints)


def set_laws() -> Laws[ConstraintORSet, Any]:
    """`ConstraintORSet`."""
    return over_rows(ConstraintORSet, edits, edit, read_set, pool=arbitrary_cells(ADD))


# --- position ----------------------------------------------------------------------------------------------------------


def move(register: EisensteinRegister, name: str, step: tuple[int, int, int]) -> None:
    """Move to the position of a step."""
    a, b, time = step
    register.update((a, b), node=name, time=time)


def read_register(register: EisensteinRegister) -> object:
    """All readings of the position."""
    return register.position, register.norm, register.time, {name: register.node_position(name) for name in REPLICAS}


def register_laws() -> Laws[EisensteinRegister, Any]:
    """`EisensteinRegister`."""
    return over_rows(EisensteinRegister, moves, move, read_register, pool=arbitrary_cells(POSITION), canonical=True)


START = 1_000_000_000_000_000_000
SECOND = 1_000_000_000
HALF_LIFE = 60.0
HALF_LIVES = (HALF_LIFE, 300.0)

passing = st.sampled_from((0, SECOND, 60 * SECOND))
"""How much time passes before a mutation, in ns."""


class _Clock:
    """The clock shared by all states."""

    def __init__(self) -> None:
        self._time = START

    def __call__(self) -> int:
        return self._time

    def after(self, change: Callable[[Any, str, Any], object]) -> Callable[[Any, str, tuple[int, Any]], None]:
        """The change after some time."""

        def later(state: Any, name: str, step: tuple[int, Any]) -> None:
            self._time += step[0]
            change(state, name, step[1])

        return later


# --- up and down -------------------------------------------------------------------------------------------------------

amounts = st.integers(-3, 3).filter(bool)


def shift(counter: PNCounter, name: str, amount: int) -> None:
    """Increment, or decrement for an amount below 0."""
    if amount > 0:
        counter.increment(amount, node=name)
    else:
        counter.decrement(-amount, node=name)


def _shifted(counter: PNCounter, done: Sequence[tuple[str, int]]) -> bool:
    up, down = sum(max(0, amount) for _, amount in done), sum(max(0, -amount) for _, amount in done)
    each = {name: sum(amount for by, amount in done if by == name) for name in REPLICAS}
    return (counter.increments, counter.decrements, counter.value) == (up, down, up - down) and all(
        counter.node_value(name) == value for name, value in each.items()
    )


def read_pn_counter(counter: PNCounter) -> object:
    """All readings of a counter."""
    return counter.value, counter.increments, counter.decrements, counter.by_node(), sorted(counter.nodes)


def pn_counter_laws() -> Laws[PNCounter, Any]:
    """`PNCounter`."""
    return over_rows(PNCounter, amounts, shift, read_pn_counter, accounts_for=_shifted, canonical=True)


# --- decaying ----------------------------------------------------------------------------------------------------------


def decay_counter_laws() -> Laws[DecayCounter, Any]:
    """`DecayCounter`."""
    clock = _Clock()

    def record(counter: DecayCounter, name: str, amount: float) -> None:
        counter.record(amount, node=name)

    return over_rows(
        lambda rows: DecayCounter(HALF_LIFE, rows=rows, now=clock),
        st.tuples(passing, st.sampled_from((0.5, 1.0, 3.0))),
        clock.after(record),
        lambda counter: (counter.value(), counter.by_node(), counter.ahead),
        canonical=True,
    )


def change_rates(rates: DecayConstraintState, name: str, step: tuple[Any, ...]) -> None:
    """Record or fold."""
    match step:
        case ("fold", id_):
            rates.fold([id_], node=name)
        case (constraint, satisfied, violated):
            rates.record(name, satisfied, violated, constraint=constraint)


def read_rates(rates: DecayConstraintState) -> object:
    """All readings of recent evaluations."""
    return [
        (
            rates.rates(each),
            rates.by_constraint(each),
            rates.by_node(each),
            rates.by_constraint(each, "a"),
            rates.untracked_by(each),
        )
        for each in rates.half_lives
    ], rates.ahead


def decay_state_laws() -> Laws[DecayConstraintState, Any]:
    """`DecayConstraintState`."""
    clock = _Clock()
    recorded = st.tuples(st.sampled_from((None, *IDS)), st.integers(0, 3), st.integers(0, 3))
    return over_rows(
        lambda rows: DecayConstraintState(HALF_LIVES, rows=rows, now=clock),
        st.tuples(passing, st.one_of(recorded, recorded, st.tuples(st.just("fold"), st.sampled_from(IDS)))),
        clock.after(change_rates),
        read_rates,
        canonical=True,
    )


ITEMS = ("p", "q", "r", "s")
SKETCH = SketchShape(4, 2)
BLOOM = BloomShape(16, 2, 4)

recorded = st.tuples(st.sampled_from(ITEMS), st.integers(1, 3))
inserted = st.sampled_from(ITEMS)


def record(sketch: SketchCRDT, name: str, step: tuple[str, int]) -> None:
    """Count an item."""
    sketch.record(*step, node=name)


def _not_below(sketch: SketchCRDT, done: Sequence[tuple[str, tuple[str, int]]]) -> bool:
    truth = Counter[str]()
    for _, (item, times) in done:
        truth[item] += times
    total = truth.total()
    return sketch.total == total and all(truth[item] <= sketch.estimate(item) <= total for item in ITEMS)


def read_sketch(sketch: SketchCRDT) -> object:
    """All readings of a sketch."""
    estimates = {item: sketch.estimate(item) for item in ITEMS}
    return sketch.total, estimates, sketch.top(), sketch.saturated, sketch.writers, sketch.ignored_writers, sketch.unreadable_pages


def sketch_laws() -> Laws[SketchCRDT, Any]:
    """`SketchCRDT`. Liars use tables of other dimensions too."""

    def other() -> SketchCRDT:
        return SketchCRDT(shape=SketchShape(3, 1))

    return over_rows(
        lambda rows: SketchCRDT(rows=rows, shape=SKETCH),
        recorded,
        record,
        read_sketch,
        pool=st.one_of(
            forged_cells(lambda: SketchCRDT(rows=Rows(), shape=SKETCH), record, rows_of, recorded),
            st.tuples(
                forged_cells(other, record, rows_of, recorded),
                forged_cells(lambda: SketchCRDT(shape=SKETCH), record, rows_of, recorded),
            ).map(lambda pools: [*pools[0], *pools[1]]),
        ),
        accounts_for=_not_below,
        canonical=True,
    )


def insert(bloom: BloomCRDT, name: str, item: str) -> None:
    """Put an item in."""
    bloom.insert(item, node=name)


def _found(bloom: BloomCRDT, done: Sequence[tuple[str, str]]) -> bool:
    return all(item in bloom for _, item in done)


def read_bloom(bloom: BloomCRDT) -> object:
    """All readings of a filter."""
    found = {item: item in bloom for item in ITEMS}
    return found, bloom.inserted, bloom.filled, bloom.estimated_fpr, bloom.estimated_items, bloom.writers, bloom.ignored_writers


def bloom_laws() -> Laws[BloomCRDT, Any]:
    """`BloomCRDT`. Liars use filters of other dimensions too."""

    def other() -> BloomCRDT:
        return BloomCRDT(shape=BloomShape(8, 1, 4))

    def ours() -> BloomCRDT:
        return BloomCRDT(shape=BLOOM)

    return over_rows(
        lambda rows: BloomCRDT(rows=rows, shape=BLOOM),
        inserted,
        insert,
        read_bloom,
        pool=st.tuples(forged_cells(other, insert, rows_of, inserted), forged_cells(ours, insert, rows_of, inserted)).map(
            lambda pools: [*pools[0], *pools[1]]
        ),
        accounts_for=_found,
        canonical=True,
    )


ROOM, ID = "hall", "t"
LABELS = ("k", "l")

_time = st.integers(0, 3)
_label = st.sampled_from(LABELS)
_numbers = st.tuples(st.integers(0, 3), st.integers(0, 3))
tile_steps = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(("", "one", "two" * 1500)), _time),
    st.tuples(st.just("delete")),
    st.tuples(st.just("restore")),
    st.tuples(st.just("purge")),
    st.tuples(st.sampled_from(("tag", "untag", "constrain", "release")), _label),
    st.tuples(st.just("foreign tag"), _label, st.tuples(st.sampled_from(("f", "g")), st.integers(1, 3))),
    st.tuples(st.just("bury"), st.tuples(st.sampled_from(("f", "g")), st.integers(1, 3))),
    st.tuples(st.just("count"), _numbers),
    st.tuples(st.just("foreign count"), st.sampled_from(("f", "g")), _numbers),
    st.tuples(st.just("move"), st.tuples(st.integers(-2, 2), st.integers(-2, 2)), _time),
    st.tuples(st.just("collect")),
)


def change_tile(tile: FleetTile, name: str, step: tuple[Any, ...]) -> None:
    """Apply a step, if the tile allows it."""
    match step:
        case ("put", content, time):
            tile.put(content, node=name, time=time)
        case ("delete",) if tile.exists:
            tile.delete(node=name)
        case ("restore",) if tile.deleted:
            tile.restore(node=name)
        case ("purge",) if tile.exists or tile.deleted:
            tile.purge(node=name)
        case ("move", position, time):
            tile.update_position(position, node=name, time=time)
        case ("collect",):
            tile._rows.collect()
        case _:
            _change_parts(tile, name, step)


def _change_parts(tile: FleetTile, name: str, step: tuple[Any, ...]) -> None:
    match step:
        case ("tag", label):
            tile.tags.add(label, node=name)
        case ("untag", label) if label in tile.tags:
            tile.tags.remove(label, node=name)
        case ("constrain", label):
            tile.constraints.add(label, node=name)
        case ("release", label) if label in tile.constraints:
            tile.constraints.remove(label, node=name)
        case ("foreign tag", label, tag):
            tile.constraints.add_foreign(label, [tag], node=name)
        case ("bury", tag):
            tile.constraints.bury([tag], node=name)
        case ("count", (satisfied, violated)):
            tile.metrics.record(name, satisfied, violated)
        case ("foreign count", who, (satisfied, violated)):
            tile.metrics.record_foreign(who, satisfied, violated, node=name)


def read_tile(tile: FleetTile) -> object:
    """All readings of a tile."""
    return (
        (tile.exists, tile.deleted, tile.content[:8], tile.size, tile.content_hash.hex()[:8], tile.verify_integrity()),
        (tile.created, tile.author, tile.updated, tile.writer),
        (sorted(tile.tags), {each: sorted(tile.constraints.tags_of(each)) for each in sorted(tile.constraints)}),
        tile.constraints.tombstones(),
        (tile.metrics.total, tile.metrics.by_node()),
        (tile.position, tile.norm, tile.position_time, tile.position_by),
    )


def tile_laws() -> Laws[FleetTile, Any]:
    """`FleetTile`."""
    return over_rows(lambda rows: FleetTile(ROOM, ID, rows), tile_steps, change_tile, read_tile)


foreign_counts = st.tuples(st.sampled_from(("f", "g")), st.integers(1, 6), _numbers)


def apply_increment(increments: RoomIncrements, name: str, step: tuple[str, int, tuple[int, int]]) -> None:
    """Take in the increment of a foreign node."""
    foreign, seq, (satisfied, violated) = step
    increments.apply(ROOM, foreign, seq, satisfied, violated, node=name)


def read_increments(increments: RoomIncrements) -> object:
    """All readings of the counts of foreign nodes."""
    known = [(foreign, seq) for foreign in ("f", "g") for seq in range(1, 7) if increments.knows(ROOM, foreign, seq)]
    return increments.rooms, increments.by_node(ROOM), increments.total(ROOM), known


def increments_laws() -> Laws[RoomIncrements, Any]:
    """`RoomIncrements`."""

    def knows_all(increments: RoomIncrements, done: Sequence[tuple[str, tuple[str, int, Any]]]) -> bool:
        return all(increments.knows(ROOM, foreign, seq) for _, (foreign, seq, _) in done)

    return over_rows(
        lambda rows: RoomIncrements(rows or Rows()), foreign_counts, apply_increment, read_increments, accounts_for=knows_all
    )


# --- verdicts ----------------------------------------------------------------------------------------------------------

told = st.tuples(
    st.sampled_from(IDS),
    st.none()
    | st.tuples(
        st.sampled_from(VerdictState), st.integers(0, 3), st.sampled_from(((), (("v", "1"),))), st.sampled_from((None, -1.0))
    ).map(lambda parts: NodeVerdict(*parts)),
)


def tell(verdicts: ConstraintVerdicts, name: str, step: tuple[str, NodeVerdict | None]) -> None:
    """State a verdict."""
    verdicts.put(*step, node=name)


def _told(verdicts: ConstraintVerdicts, done: Sequence[tuple[str, tuple[str, NodeVerdict | None]]]) -> bool:
    last = {(id_, name): verdict for name, (id_, verdict) in done}
    return all(verdicts.of(id_).get(name) == verdict for (id_, name), verdict in last.items())


def read_verdicts(verdicts: ConstraintVerdicts) -> object:
    """All readings of the verdicts."""
    return (
        {id_: (verdicts.of(id_), verdicts.violated_on(id_)) for id_ in verdicts},
        [(verdicts.node(name), verdicts.restated(Replica(name, 1))) for name in REPLICAS],
        (sorted(verdicts.violated), sorted(verdicts.unknown), verdicts.counts, len(verdicts)),
    )


def verdicts_agree(verdicts: ConstraintVerdicts) -> bool:
    """True if the counts and sets are those of the verdicts themselves."""
    every = [(id_, each.state) for id_ in verdicts for each in verdicts.of(id_).values()]
    return (
        set(verdicts.violated) == {id_ for id_, state in every if state in VIOLATED_STATES}
        and set(verdicts.unknown) == {id_ for id_, state in every if state is VerdictState.UNKNOWN}
        and verdicts.counts == {state: sum(each is state for _, each in every) for state in VerdictState}
    )


def verdict_laws() -> Laws[ConstraintVerdicts, Any]:
    """`ConstraintVerdicts`."""
    return over_rows(
        ConstraintVerdicts,
        told,
        tell,
        lambda verdicts: (read_verdicts(verdicts), verdicts_agree(verdicts)),
        pool=arbitrary_cells(VERDICT),
        accounts_for=lambda verdicts, done: verdicts_agree(verdicts) and _told(verdicts, done),
        canonical=True,
    )


# --- variables ---------------------------------------------------------------------------------------------------------

measured = st.dictionaries(
    st.sampled_from(("v", "w")), st.sampled_from((VariableKind.DOUBLE, VariableKind.BOOL, VariableKind.MIXED))
)


def measure(variables: MeasuredVariables, name: str, step: dict[str, VariableKind]) -> None:
    """State the variables of a node."""
    variables.put(step, node=name)


def _measured(variables: MeasuredVariables, done: Sequence[tuple[str, dict[str, VariableKind]]]) -> bool:
    return all(variables.of(name) == last for name, last in dict(done).items())


def read_variables(variables: MeasuredVariables) -> object:
    """All readings of the variables."""
    each = [(dict(variables.of(name)), variables.left_out(name)) for name in REPLICAS]
    return {name: variables.nodes(name) for name in variables}, dict(variables.kinds()), each


def variables_laws() -> Laws[MeasuredVariables, Any]:
    """`MeasuredVariables`."""
    return over_rows(MeasuredVariables, measured, measure, read_variables, accounts_for=_measured, canonical=True)


# --- readings ----------------------------------------------------------------------------------------------------------

_times = st.integers(0, 20).map(lambda tenths: 1_800_000_000 * SECOND + tenths * SECOND // 10)
shared = st.dictionaries(
    st.sampled_from(("v", "w")),
    st.none() | st.builds(Reading, st.sampled_from((1.0, 2.5, True, "on")), _times, st.sampled_from((EVERY, SECOND, 60 * SECOND))),
    min_size=1,
)


def share(readings: SharedReadings, name: str, step: dict[str, Reading | None]) -> None:
    """Share readings of a node, or withdraw them."""
    readings.put_all(step, node=name)


def _shared(readings: SharedReadings, done: Sequence[tuple[str, dict[str, Reading | None]]]) -> bool:
    last = {(node, name): reading for node, step in done for name, reading in step.items()}
    found = {(node, name): readings.of(node).get(name) for node, name in last}
    return all(
        each is reading is None or (each is not None and reading is not None and each.value == reading.value)
        for (each, reading) in ((found[key], reading) for key, reading in last.items())
    )


def read_readings(readings: SharedReadings) -> object:
    """All readings of the shared readings."""
    return {name: readings.nodes(name) for name in readings}, [dict(readings.of(name)) for name in REPLICAS]


def readings_laws() -> Laws[SharedReadings, Any]:
    """`SharedReadings`."""
    return over_rows(
        SharedReadings, shared, share, read_readings, pool=arbitrary_cells(READING), accounts_for=_shared, canonical=True
    )


# --- switches and changes ----------------------------------------------------------------------------------------------

switched = st.tuples(st.booleans(), st.sampled_from(("x", "y", ALL)), st.none() | st.integers(1, 9), st.integers(0, 9))


def switch(switches: Switches, name: str, step: tuple[bool, str, int | None, int]) -> None:
    """Disable or enable a constraint, or all."""
    disabled, id_, until, time = step
    switches.put_all([id_], disabled=disabled, until=until if disabled else None, time=time, actor="alice", why="w", node=name)


def read_switches(switches: Switches) -> object:
    """All readings of the switches."""
    return list(switches), switches.of_all, [switches.disabling(id_) for id_ in ("x", "y", "z")]


def switches_laws() -> Laws[Switches, Any]:
    """`Switches`."""
    return over_rows(Switches, switched, switch, read_switches, pool=arbitrary_cells(SWITCH), canonical=True)


_kept = st.lists(st.binary(max_size=3).map(msgspec.msgpack.encode), max_size=2).map(tuple)
_subjects = st.builds(Subject, st.sampled_from((1, 41)), st.sampled_from(("x", "y")))
noted = st.lists(st.builds(Before, _subjects, _kept), min_size=1, unique_by=lambda each: each.subject)


def note_changes(changes: ChangeHistory, name: str, step: list[Before]) -> None:
    """Note the former state of subjects."""
    changes.note(step, operation="add", actor="alice", why="w", time=5, node=writer(name))


def read_changes(changes: ChangeHistory) -> object:
    """All readings of the history."""
    subjects = [Subject(kind, key) for kind in (1, 41) for key in ("x", "y")]
    return list(changes), [(changes.of(each), changes.number(each)) for each in subjects], changes.complete_since


def _noted(changes: ChangeHistory, done: Sequence[tuple[str, list[Before]]]) -> bool:
    wanted = {(name, each.subject, each.values) for name, step in done for each in step}
    return wanted <= {(each.dot.replica.node_id, each.subject, each.before) for each in changes}


def changes_laws() -> Laws[ChangeHistory, Any]:
    """`ChangeHistory`."""
    return over_rows(
        ChangeHistory, noted, note_changes, read_changes, pool=arbitrary_cells(CHANGE), accounts_for=_noted, canonical=True
    )


# --- parameters --------------------------------------------------------------------------------------------------------

_NAMES = ("v", "w")
_SELECTORS = ("", "zone=a", "zone!=a")
settings = st.tuples(st.sampled_from(_NAMES), st.sampled_from(_SELECTORS), st.none() | st.sampled_from((1.0, 2.5, True, "on")))


def set_parameter(parameters: Parameters, name: str, step: tuple[str, str, float | str | bool | None]) -> None:
    """Set a parameter, or remove a setting that stands."""
    parameter, selector, value = step
    if value is not None:
        parameters.set(parameter, value, selector or None, node=name)
    elif any(each.text == selector for each in parameters.settings(parameter)):
        parameters.unset(parameter, selector or None, node=name)


def read_parameters(parameters: Parameters) -> object:
    """All readings of the parameters."""
    labels: tuple[dict[str, str], ...] = ({}, {"zone": "a"})
    found = {name: [parameters.value(name, each) for each in labels] for name in _NAMES}
    return list(parameters), [parameters.settings(name) for name in _NAMES], found


def parameters_laws() -> Laws[Parameters, Any]:
    """`Parameters`."""
    return over_rows(Parameters, settings, set_parameter, read_parameters, pool=arbitrary_cells(PARAMETER))


# --- rollouts ----------------------------------------------------------------------------------------------------------

rollout_steps = st.one_of(
    st.tuples(st.just("begin"), ids, st.sampled_from(DEFINITIONS[:-1])),
    st.tuples(st.sampled_from(("advance", "stop", "continue", "complete", "back")), st.integers(0, 2)),
)
STAGES = ("zone=a", "zone in (a, b)", "!zone")


def stage(rollouts: Rollouts, name: str, step: tuple[Any, ...]) -> None:
    """Begin a rollout, or take a step of one."""
    node, constraints = writer(name), ConstraintORSet(rows_of(rollouts))
    match step:
        case ("begin", id_, definition) if not rollouts.covering(id_):
            at = rows_of(rollouts).seq(node)  # so the ids of rollouts in a slot differ
            rollouts.begin({id_: definition}, constraints, stages=STAGES, gate="violations == 0", timeout=5, node=node, at=at)
        case (str(what), int(number)):
            chosen = list(rollouts)[number : number + 1]
            for each in chosen:
                if what == "complete":
                    rollouts.complete(each, constraints, node=node, at=1)
                elif what == "back":
                    rollouts.back(each, constraints, Switches(rows_of(rollouts)), node=node, at=1)
                elif what == "advance":
                    rollouts.step(each, Phase.RUNNING, stage=each.stage + 1, node=node, at=1)
                else:
                    phase = Phase.STOPPED if what == "stop" else Phase.RUNNING
                    rollouts.step(each, phase, by_command=True, node=node, at=2, actor="alice", reason=what)


def read_rollouts(rollouts: Rollouts) -> object:
    """All readings of the rollouts."""
    constraints = ConstraintORSet(rows_of(rollouts))
    labels: tuple[dict[str, str], ...] = ({"zone": "a"}, {"zone": "b"}, {})
    staged = [rollouts.staged(id_, constraints.definitions(id_), each) for id_ in IDS for each in labels]
    return list(rollouts), [[each.id for each in rollouts.covering(id_)] for id_ in IDS], staged


def rollouts_laws() -> Laws[Rollouts, Any]:
    """`Rollouts`."""
    return over_rows(Rollouts, rollout_steps, stage, read_rollouts, pool=arbitrary_cells(ROLLOUT, ADD))


staged_told = st.lists(
    st.builds(StagedValue, st.sampled_from("xy"), st.integers(0, 1), st.integers(0, 2), *[st.integers(0, 2)] * 3), max_size=2
)


def tell_staged(staged: StagedNodes, name: str, step: list[StagedValue]) -> None:
    """Tell of rollouts."""
    staged.put(step, node=writer(name))


def read_staged(staged: StagedNodes) -> object:
    """All that nodes tell of rollouts."""
    return [[staged.of(name, id_) for id_ in "xy"] for name in REPLICAS]


def staged_laws() -> Laws[StagedNodes, Any]:
    """`StagedNodes`."""
    return over_rows(StagedNodes, staged_told, tell_staged, read_staged, pool=arbitrary_cells(STAGED))
