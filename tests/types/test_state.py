"""`ConstraintState`: the types together, as one value."""

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState


def state_of(node: str) -> ConstraintState:
    """Something of each kind, by one writer."""
    state = ConstraintState()
    state.constraints.add(f"of-{node}", node=node)
    state.metrics.record(node, 2, 1)
    state.register.update((1, 1), node=node, time=1)
    state.describe("1.0", 1, node=node)
    return state


def test_two_states_are_equal_if_they_know_the_same_whoever_holds_them() -> None:
    a, b = state_of("a"), state_of("b")
    assert a != b
    joined = a.merged(b)
    assert joined == b.merged(a)
    assert joined.state_hash == b.merged(a).state_hash
    assert joined.subsumes(a)
    assert not a.subsumes(joined)
    assert a.__eq__(1) is NotImplemented


def test_a_merged_state_is_a_value_of_its_own() -> None:
    a, b = state_of("a"), state_of("b")
    before = a.state_hash, b.state_hash
    joined = a.merged(b)
    joined.constraints.remove("of-a", node="c")
    joined.metrics.record("a", 5, 5)
    assert (a.state_hash, b.state_hash) == before
    assert "of-a" in a.constraints


def test_the_constraints_hash_is_about_the_definitions_only() -> None:
    a = state_of("a")
    hash_, whole = a.constraints_hash, a.state_hash
    a.metrics.record("a", 1)
    a.register.update((0, 1), node="a", time=2)
    assert a.constraints_hash == hash_
    assert a.state_hash != whole
    a.constraints.add("of-a", node="a", when="x < 1.0")
    assert a.constraints_hash != hash_


def test_what_nodes_say_of_themselves_is_written_once() -> None:
    state = state_of("a")
    clock = state.clock
    state.describe("1.0", 1, node="a")
    assert state.clock == clock
    state.describe("1.1", 1, node="a")
    nodes = state.merged(state_of("b")).nodes
    assert {node: said.software for node, said in nodes.items()} == {"a": "1.1", "b": "1.0"}


@pytest.mark.parametrize(("software", "wire"), [("v" * 257, 1), ("1.0", -1), ("1.0", 2**63)])
def test_a_description_that_no_peer_would_take_is_refused(software: str, wire: int) -> None:
    """One cell that others refuse would make them refuse every transfer of it, for ever."""
    state = ConstraintState()
    with pytest.raises(ConstraintCrdtError):
        state.describe(software, wire, node="a")
    assert len(state.rows) == 0


def test_it_says_what_it_holds() -> None:
    assert repr(state_of("a")) == "ConstraintState(1 constraints, 2 satisfied, 1 violated, position=(1, 1))"
    assert state_of("a").active_constraint_count == 1
