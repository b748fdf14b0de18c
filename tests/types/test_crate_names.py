"""Names of the Rust crate: what they do here, beside the examples of the crate's own tests."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import ConstraintState, Replica, StateHash, VectorClock
from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.gossip import DeltaTracker
from constraint_crdt.plato import PlatoDeltaTracker, read_delta
from constraint_crdt.plato.rooms import apply_delta
from constraint_crdt.simulation import run_experiment
from constraint_crdt.types import BloomCRDT, CausalOrder, EisensteinRegister, FleetTile, SketchCRDT

A = Replica("a", 1)
REPLICAS = st.builds(Replica, st.text("ab~é", min_size=1, max_size=3), st.integers(0, 2**63 - 1))
CLOCKS = st.dictionaries(REPLICAS, st.integers(1, 2**63 - 1), max_size=4).map(VectorClock)


@pytest.mark.slow
@given(CLOCKS, CLOCKS)
def test_clocks_and_their_hashes_survive_json(clock: VectorClock, other: VectorClock) -> None:
    again = VectorClock.from_json(clock.to_json())
    assert again == clock
    assert again.to_json() == clock.to_json()
    assert (StateHash.from_clock(clock) == StateHash.from_clock(other)) is (clock == other)
    assert StateHash.from_clock(again) == again.state_hash == clock.state_hash


def test_a_clock_of_the_crate_is_read() -> None:
    assert VectorClock.from_json('{"clock":{"agent-a":3,"b":1}}') == VectorClock.from_node("agent-a", 3).merged(
        VectorClock.from_node("b", 1)
    )


@pytest.mark.parametrize(
    "text", ["", "{}", '{"clock":{"a":-1}}', '{"clock":{"":1}}', '{"clock":{"a":9223372036854775808}}', "[" * 9999]
)
def test_other_texts_are_no_clock(text: str) -> None:
    with pytest.raises(ValueError, match="no JSON of a clock"):
        VectorClock.from_json(text)


def test_a_clock_of_its_own_is_incremented() -> None:
    state = ConstraintState()
    state.add_constraint("c", node=A)
    clock = state.clock
    assert clock.increment(A) == 2
    assert clock.increment("b") == 1
    assert clock.compare(state.clock) is CausalOrder.AFTER
    assert state.clock[A] == 1, "the clock of the state follows from its cells"


def test_the_hash_of_nothing_is_that_of_no_state() -> None:
    assert StateHash.zero().is_zero
    assert StateHash.zero().hex() == "00" * 32
    assert not ConstraintState().state_hash.is_zero
    state = ConstraintState()
    assert StateHash.from_state(state) == state.state_hash


def test_tiles_hash_alike_where_they_are_alike() -> None:
    one, other = (FleetTile("r", "t", now=lambda: 5) for _ in range(2))
    empty = StateHash.from_tile(one)
    one.put("text", node=A)
    assert StateHash.from_tile(one) != empty
    other.merge(one)
    assert StateHash.from_tile(other) == StateHash.from_tile(one)
    other.tags.add("t", node=A)
    assert StateHash.from_tile(other) != StateHash.from_tile(one)


def test_a_state_is_written_by_name() -> None:
    state = ConstraintState(now=lambda: 7)
    assert state.metrics.satisfaction_rate == 1.0
    state.add_constraint("c", node=A)
    state.add_constraint("d", node=A)
    state.record_satisfied(3, node=A, constraint="c")
    state.record_violations(node=A)
    state.update_position((3, -1), node=A)
    assert state.metrics.satisfaction_rate == state.satisfaction_rate == 0.75
    assert (state.position, state.register.time) == ((3, -1), 7)
    assert state.constraints.tombstone_count == 0
    state.remove_constraint("c", node=A)
    assert (list(state.constraints), state.constraints.tombstone_count) == (["d"], 1)
    state.tiles.tile("r", "t").put("x", node=A)
    state.tiles.tile("r", "t").put("y", node="b")
    assert state.constraints.tombstone_count == 1, "of constraints alone"


@given(st.none() | st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)), st.integers(0, 2**63 - 1))
def test_a_register_survives_json(position: tuple[int, int] | None, time: int) -> None:
    register = EisensteinRegister()
    if position is not None:
        register.update(position, node=A, time=time)
    again = EisensteinRegister.from_json(register.to_json())
    assert (again.position, again.time, again.by) == (register.position, register.time, register.by)
    assert again.to_json() == register.to_json()


def test_a_register_of_the_crate_is_read_and_others_are_refused() -> None:
    register = EisensteinRegister.from_json('{"position":[3,-1],"timestamp":5,"node":"agent-a","norm":13}')
    assert (register.position, register.norm, register.time, register.by) == ((3, -1), 13, 5, "agent-a")
    for text in ("", "{}", '{"position":[3000000000,0],"timestamp":5,"node":"a","norm":1}'):
        with pytest.raises(ValueError, match="no JSON of a register"):
            EisensteinRegister.from_json(text)


def test_sketches_and_filters_by_their_dimensions() -> None:
    sketch = SketchCRDT.with_dims(4, 64)
    assert (sketch.shape.depth, sketch.shape.width) == (4, 64)
    sketch.record("x", 3, node=A)
    assert [sketch.exceeds("x", threshold) for threshold in (2, 3, 4)] == [True, True, False]
    assert sketch.merged(SketchCRDT.with_dims(4, 64)).estimate("x") == 3
    bloom = BloomCRDT.with_params(1024, 7)
    assert (bloom.shape.bits, bloom.shape.hashes) == (1024, 7)
    bloom.insert("x", node=A)
    assert "x" in bloom
    assert bloom.estimated_fpr < 1e-6
    for dims in ((0, 1), (1, 0), (2**20, 2**20)):
        with pytest.raises(ConstraintCrdtError, match="a sketch has 1 to"):
            SketchCRDT.with_dims(*dims)
        with pytest.raises(ConstraintCrdtError, match="a filter has 1 to"):
            BloomCRDT.with_params(*dims)


def test_a_delta_tracker_needs_no_arguments() -> None:
    assert len(DeltaTracker()) == 0


def test_deltas_are_made_from_totals_and_counted_once() -> None:
    tracker, state = PlatoDeltaTracker(), ConstraintState()
    deltas = [
        tracker.generate("n", 10, 1, (1, 0), ["c"]),
        tracker.generate("n", 15, 1, (1, 0), ["d"], ["c"]),
        tracker.generate("n", 12, 4, (2, 1)),
        tracker.generate("m"),
    ]
    assert (tracker.last_seq("n"), tracker.last_seq("m"), tracker.last_seq("o")) == (3, 1, 0)
    assert [(each.counter.satisfied_delta, each.counter.violations_delta) for each in deltas] == [(10, 1), (5, 0), (0, 3), (0, 0)]
    assert [each.position is None for each in deltas] == [False, True, False, True]
    for each in deltas * 2:
        apply_delta(state, "r", read_delta(msgspec.json.encode(each), "r"), A)
    tile = state.tiles.tile("r", "_room")
    assert (list(tile.constraints), tile.position) == (["d"], (2, 1))
    assert state.increments.by_node("r")["n"] == (15, 4)
    again = PlatoDeltaTracker({"n": tracker.last_seq("n")})
    assert again.generate("n", 1).seq == 4
    assert repr(again) == "PlatoDeltaTracker({'n': 4})"


@pytest.mark.slow
def test_near_peers_carry_changes_over_fewer_hops() -> None:
    found = run_experiment(19, seed=3)
    assert found == run_experiment(19, seed=3)
    assert found.geometric_cost < found.random_cost
    assert found.speedup == found.random_convergence_rounds / found.geometric_convergence_rounds  # type: ignore[operator]
    assert run_experiment(7, max_rounds=0).speedup is None
