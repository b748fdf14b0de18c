"""The public types as values: `in`, `len`, iteration, `==` and `repr`."""

import inspect
from importlib import import_module

import pytest

from constraint_crdt import ConstraintState, GossipNode, MemoryNetwork, Replica, SystemProbe, VectorClock
from constraint_crdt.protocol.peers import Nearby, Schedule, Uniform
from constraint_crdt.simulation import Simulation
from constraint_crdt.types import ConstraintORSet

OPAQUE = {
    "constraint_crdt.types.Merge",  # an interface
    "constraint_crdt.gossip.ByDistance",
    "constraint_crdt.simulation.Chaos",
    "constraint_crdt.simulation.Replay",
    "constraint_crdt.simulation.ScenarioRun",
    "constraint_crdt.simulation.SimRng",
    "constraint_crdt.ZenohTransport",
}
"""Machinery rather than values: `repr` says no more than the class."""


@pytest.mark.parametrize("place", ["", ".types", ".gossip", ".simulation", ".client", ".plato"])
def test_every_public_class_has_a_repr_of_its_own(place: str) -> None:
    module = import_module(f"constraint_crdt{place}")
    kinds = {name: getattr(module, name) for name in module.__all__ if inspect.isclass(getattr(module, name))}
    plain = {f"{module.__name__}.{name}" for name, kind in kinds.items() if kind.__repr__ is object.__repr__}
    protocols = {f"{module.__name__}.{name}" for name, kind in kinds.items() if getattr(kind, "_is_protocol", False)}
    assert plain - protocols == {name for name in OPAQUE if name.rpartition(".")[0] == module.__name__}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Uniform(5), "Uniform(5)"),
        (Schedule(9), "Schedule(9)"),
        (Nearby([(0, 0), (1, 0)]), "Nearby(2 points)"),
        (SystemProbe(), "SystemProbe()"),
        (MemoryNetwork(), "MemoryNetwork([])"),
        (Simulation(3, seed=4), "Simulation(3 nodes, seed=4, 0 rounds)"),
        (ConstraintState(), "ConstraintState(0 constraints, 0 satisfied, 0 violated, position=None)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_repr_says_what_the_value_is(value: object, shown: str) -> None:
    assert repr(value) == shown


def test_a_node_shows_its_name_and_its_state() -> None:
    node = GossipNode("forge")
    node.add_constraint("cool")
    assert repr(node) == str(node)
    assert repr(node).startswith("GossipNode(forge, 1 constraints, 0 peers, 0 rounds, hash=")


def test_a_set_of_constraints_is_a_collection_of_ids() -> None:
    first, second = ConstraintORSet(), ConstraintORSet()
    for each in (first, second):
        each.add("cool", node="a")
    assert ("cool" in first, "hot" in first, len(first), list(first)) == (True, False, 1, ["cool"])
    assert first == second
    second.remove("cool", node="a")
    assert first != second
    assert first != {"cool"}


def test_collections_of_a_state_are_read_as_mappings_of_names() -> None:
    state = ConstraintState()
    state.counters["laps"].increment(node="a")
    state.sketch("seen").record("x", node="a")
    state.tiles.tile("hall", "sign").put("open", node="a")
    for found, name in ((state.counters, "laps"), (state.sketches, "seen"), (state.tiles, ("hall", "sign"))):
        assert (name in found, "none" in found, len(found)) == (True, False, 1)
    assert list(state.counters) == ["laps"]
    assert list(state.sketches) == ["seen"]


def test_a_clock_reads_zero_for_an_unknown_replica() -> None:
    clock = VectorClock({Replica("a", 1): 3})
    assert (clock[Replica("a", 1)], clock[Replica("b", 1)], list(clock)) == (3, 0, [Replica("a", 1)])
    assert clock == VectorClock({Replica("a", 1): 3, Replica("b", 1): 0})
