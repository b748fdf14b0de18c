"""For tests: a checker of the laws of CRDTs for any type, and Hypothesis strategies for the types of this package.

    check_laws(Laws(new=MyCounter, steps=st.integers(1, 3), apply_step=..., merge=..., reading=...))
    check_laws(laws_of(ConstraintState))

    @given(pairs(laws_of(ConstraintState)))
    def test_mine(states): ...

`laws` has the laws, the description of a type and its replicas, `descriptions` the types of this package. This module lists all
types, with a strategy for the states of each.

Needs Hypothesis, which the package itself does not: `pip install 'constraint-crdt[testing]'`.
"""

from collections.abc import Callable, Mapping
from typing import Any

try:
    from hypothesis import strategies as st
except ImportError:
    raise ImportError("constraint_crdt.testing needs Hypothesis: pip install 'constraint-crdt[testing]'") from None

from constraint_crdt.crdt.clock import VectorClock
from constraint_crdt.errors import InvalidType
from constraint_crdt.state import ConstraintState
from constraint_crdt.testing import descriptions
from constraint_crdt.testing.laws import (
    UNKNOWN_KIND,
    Law,
    LawBroken,
    Laws,
    Replicas,
    arbitrary_cells,
    associative,
    check_laws,
    commutative,
    complete,
    convergent,
    delta_is_state,
    faithful,
    forged_cells,
    idempotent,
    in_place,
    laws_that_apply,
    monotone,
    over_rows,
    pairs,
    replicas,
    rows_of,
    single,
    triples,
    truncation_safe,
)
from constraint_crdt.types.counters import COUNTS, SECONDS, ConstraintGCounter, PNCounter, RoomIncrements
from constraint_crdt.types.decay import DecayConstraintState, DecayCounter
from constraint_crdt.types.definition import ADD
from constraint_crdt.types.orset import ChangeHistory, ConstraintORSet, Switches
from constraint_crdt.types.parameters import Parameters
from constraint_crdt.types.rollouts import Rollouts, StagedNodes
from constraint_crdt.types.sketch import BloomCRDT, SketchCRDT
from constraint_crdt.types.tile_cells import POSITION, EisensteinRegister
from constraint_crdt.types.tiles import FleetTile
from constraint_crdt.types.variables import MeasuredVariables, SharedReadings
from constraint_crdt.types.verdicts import VERDICT, ConstraintVerdicts

__all__ = [
    "ADAPTERS",
    "Law",
    "LawBroken",
    "Laws",
    "Replicas",
    "associative",
    "blooms",
    "check_laws",
    "commutative",
    "complete",
    "constraint_sets",
    "convergent",
    "counters",
    "decay_counters",
    "decay_states",
    "delta_is_state",
    "faithful",
    "idempotent",
    "in_place",
    "increments",
    "laws_of",
    "laws_that_apply",
    "monotone",
    "pairs",
    "pn_counters",
    "registers",
    "replicas",
    "single",
    "sketches",
    "states",
    "tiles",
    "triples",
    "truncation_safe",
    "variables",
    "vector_clocks",
    "verdicts",
]

state_steps = st.one_of(
    descriptions.edits,
    descriptions.edits,
    descriptions.edits,
    st.tuples(st.just("record"), descriptions.counts),
    st.tuples(st.just("record"), descriptions.times),
    st.tuples(st.just("fold"), descriptions.ids),
    st.tuples(st.just("tell"), descriptions.told),
    st.tuples(st.just("measure"), descriptions.measured),
    st.tuples(st.just("switch"), descriptions.switched),
    st.tuples(st.just("note"), descriptions.noted),
    st.tuples(st.just("stage"), descriptions.rollout_steps),
    st.tuples(st.just("staged"), descriptions.staged_told),
    st.tuples(st.just("move"), descriptions.moves),
    st.tuples(st.just("shift"), descriptions.amounts),
    st.tuples(st.just("rate"), descriptions.counts),
    st.tuples(st.just("tile"), descriptions.tile_steps),
    st.tuples(st.just("sketch"), descriptions.recorded),
    st.tuples(st.just("bloom"), descriptions.inserted),
    st.tuples(st.just("foreign"), descriptions.foreign_counts),
)


_WRITES: Mapping[str, tuple[Callable[[ConstraintState], Any], Callable[[Any, str, Any], None]]] = {
    "tell": (lambda state: state.verdicts, descriptions.tell),
    "stage": (lambda state: state.rollouts, descriptions.stage),
    "staged": (lambda state: state.staged, descriptions.tell_staged),
    "measure": (lambda state: state.variables, descriptions.measure),
    "switch": (lambda state: state.switches, descriptions.switch),
    "note": (lambda state: state.changes, descriptions.note_changes),
}
"""How a step writes: the view, and the function of its description."""


def _change(state: ConstraintState, name: str, step: tuple[Any, ...]) -> None:
    match step:
        case ("record", counts):
            descriptions.count(state.metrics, name, counts)
        case ("fold", id_):
            state.metrics.fold([id_], node=name)
        case ("tell" | "measure" | "switch" | "note" as what, written):
            view, write = _WRITES[what]
            write(view(state), name, written)
        case ("move", move):
            descriptions.move(state.register, name, move)
        case ("shift", amount):
            descriptions.shift(state.counters["n"], name, amount)
        case ("rate", counts):
            descriptions.change_rates(state.rates, name, counts)
        case ("tile", change):
            descriptions.change_tile(state.tiles.tile(descriptions.ROOM, descriptions.ID), name, change)
        case ("sketch", item):
            descriptions.record(state.sketches.view("s", descriptions.SKETCH), name, item)
        case ("bloom", item):
            descriptions.insert(state.blooms.view("b", descriptions.BLOOM), name, item)
        case ("foreign", count):
            descriptions.apply_increment(state.increments, name, count)
        case _:
            descriptions.edit(state.constraints, name, step)


def _read(state: ConstraintState) -> object:
    cells = sorted((cell.replica, cell.seq, cell.data) for cell in state.rows.live_cells())
    parts = (
        descriptions.read_set(state.constraints),
        descriptions.read_counter(state.metrics),
        descriptions.read_register(state.register),
        {name: descriptions.read_pn_counter(state.counters[name]) for name in state.counters},
        descriptions.read_rates(state.rates),
        [descriptions.read_tile(each) for each in state.tiles.in_room(descriptions.ROOM)],
        {name: descriptions.read_sketch(each) for name, each in state.sketches.items()},
        {name: descriptions.read_bloom(each) for name, each in state.blooms.items()},
        descriptions.read_increments(state.increments),
        (descriptions.read_verdicts(state.verdicts), descriptions.verdicts_agree(state.verdicts)),
        descriptions.read_variables(state.variables),
        descriptions.read_readings(state.readings),
        descriptions.read_switches(state.switches),
        descriptions.read_changes(state.changes),
        descriptions.read_parameters(state.parameters),
        descriptions.read_rollouts(state.rollouts),
        descriptions.read_staged(state.staged),
    )
    return parts, state.clock.as_dict(), cells, state.state_hash, state.constraints_hash


def _state_laws() -> Laws[ConstraintState, Any]:
    lies = forged_cells(ConstraintState, _change, rows_of, state_steps)
    pool = st.tuples(arbitrary_cells(ADD, COUNTS, POSITION, SECONDS, VERDICT, UNKNOWN_KIND), lies).map(
        lambda pools: [*pools[0], *pools[1]]
    )
    return over_rows(ConstraintState, state_steps, _change, _read, pool=pool)


ADAPTERS: Mapping[type, Callable[[], Laws[Any, Any]]] = {
    VectorClock: descriptions.clock_laws,
    ConstraintGCounter: descriptions.counter_laws,
    ConstraintORSet: descriptions.set_laws,
    EisensteinRegister: descriptions.register_laws,
    PNCounter: descriptions.pn_counter_laws,
    DecayCounter: descriptions.decay_counter_laws,
    DecayConstraintState: descriptions.decay_state_laws,
    SketchCRDT: descriptions.sketch_laws,
    BloomCRDT: descriptions.bloom_laws,
    FleetTile: descriptions.tile_laws,
    RoomIncrements: descriptions.increments_laws,
    ConstraintVerdicts: descriptions.verdict_laws,
    MeasuredVariables: descriptions.variables_laws,
    SharedReadings: descriptions.readings_laws,
    Switches: descriptions.switches_laws,
    ChangeHistory: descriptions.changes_laws,
    Parameters: descriptions.parameters_laws,
    Rollouts: descriptions.rollouts_laws,
    StagedNodes: descriptions.staged_laws,
    ConstraintState: _state_laws,
}
"""Every type, with the function that makes its description."""


def laws_of(kind: type) -> Laws[Any, Any]:
    """The description of a type of this package, or of a type derived from it. Raises `TypeError` for any other."""
    for known, describe in ADAPTERS.items():
        if issubclass(kind, known):
            return describe()
    names = ", ".join(each.__name__ for each in ADAPTERS)
    raise InvalidType(f"laws_of knows {names}, not {kind.__name__}: describe it with Laws")


def vector_clocks() -> st.SearchStrategy[VectorClock]:
    """Any clocks."""
    return single(laws_of(VectorClock))


def counters() -> st.SearchStrategy[ConstraintGCounter]:
    """Counters, reached by honest histories or written by liars; so for the strategies of the other types."""
    return single(laws_of(ConstraintGCounter))


def constraint_sets() -> st.SearchStrategy[ConstraintORSet]:
    """Sets of constraints, some with collected removals."""
    return single(laws_of(ConstraintORSet))


def registers() -> st.SearchStrategy[EisensteinRegister]:
    """Positions, some of them unset or in conflict."""
    return single(laws_of(EisensteinRegister))


def pn_counters() -> st.SearchStrategy[PNCounter]:
    """Counters with increments and decrements."""
    return single(laws_of(PNCounter))


def decay_counters() -> st.SearchStrategy[DecayCounter]:
    """Decaying counters, at a clock moved only by mutations."""
    return single(laws_of(DecayCounter))


def decay_states() -> st.SearchStrategy[DecayConstraintState]:
    """Recent evaluations, at a clock moved only by mutations."""
    return single(laws_of(DecayConstraintState))


def sketches() -> st.SearchStrategy[SketchCRDT]:
    """Small sketches."""
    return single(laws_of(SketchCRDT))


def blooms() -> st.SearchStrategy[BloomCRDT]:
    """Small Bloom filters."""
    return single(laws_of(BloomCRDT))


def tiles() -> st.SearchStrategy[FleetTile]:
    """A tile, visible or not."""
    return single(laws_of(FleetTile))


def increments() -> st.SearchStrategy[RoomIncrements]:
    """The counts of foreign nodes in a room."""
    return single(laws_of(RoomIncrements))


def verdicts() -> st.SearchStrategy[ConstraintVerdicts]:
    """The verdicts of a few nodes."""
    return single(laws_of(ConstraintVerdicts))


def variables() -> st.SearchStrategy[MeasuredVariables]:
    """The variables of a few nodes."""
    return single(laws_of(MeasuredVariables))


def readings() -> st.SearchStrategy[SharedReadings]:
    """The shared readings of a few nodes."""
    return single(laws_of(SharedReadings))


def parameters() -> st.SearchStrategy[Parameters]:
    """The parameters of a few nodes."""
    return single(laws_of(Parameters))


def rollouts() -> st.SearchStrategy[Rollouts]:
    """The rollouts of a few nodes."""
    return single(laws_of(Rollouts))


def states() -> st.SearchStrategy[ConstraintState]:
    """Whole states."""
    return single(laws_of(ConstraintState))
