"""One signature for `record`, and one name for the writer."""

import inspect
from collections.abc import Callable, Iterator

import pytest

import constraint_crdt.types
from constraint_crdt import ConstraintState, GossipNode, Node, Replica, SyncNode
from constraint_crdt.client import AsyncClient, Client
from constraint_crdt.simulation import Simulation
from constraint_crdt.types import ConstraintGCounter, DecayConstraintState

RECORD = ["satisfied", "violated", "constraint"]
FORMER = ["violations"]
"""The keyword of 0.1.0 for `violated`, where it took it."""


def parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(function).parameters.values() if each.name != "self"]


@pytest.mark.parametrize("kind", [GossipNode, Node, SyncNode, Client, AsyncClient])
def test_record_of_what_knows_its_node(kind: type) -> None:
    found = parameters(kind.record)  # type: ignore[attr-defined]
    former = [] if kind is GossipNode else FORMER
    assert [each.name for each in found] == RECORD + former
    assert [each.default for each in found] == [0, 0, None, *(None for _ in former)]
    assert [each.kind for each in found[2:]] == [inspect.Parameter.KEYWORD_ONLY for _ in found[2:]]


@pytest.mark.parametrize("kind", [ConstraintState, ConstraintGCounter, DecayConstraintState, Simulation])
def test_record_of_what_is_told_the_node(kind: type) -> None:
    found = parameters(kind.record)  # type: ignore[attr-defined]
    assert [each.name for each in found] == ["node", *RECORD]
    assert [each.default for each in found[1:]] == [0, 0, None]
    assert found[-1].kind is inspect.Parameter.KEYWORD_ONLY


def writes() -> Iterator[tuple[str, inspect.Parameter]]:
    """Every parameter of the public types that takes a writer."""
    for name in constraint_crdt.types.__all__:
        kind = getattr(constraint_crdt.types, name)
        for method, function in inspect.getmembers(kind, inspect.isfunction) if inspect.isclass(kind) else ():
            if not method.startswith("_"):
                for parameter in parameters(function):
                    if parameter.annotation == str | Replica:
                        yield f"{name}.{method}", parameter


def test_a_writer_is_always_called_node() -> None:
    found = dict(writes())
    assert {"ConstraintORSet.add", "PNCounter.increment", "FleetTile.put", "SketchCRDT.record", "BloomCRDT.insert"} <= set(found)
    assert {name for name, parameter in found.items() if parameter.name != "node"} == set()


@pytest.mark.slow
def test_a_state_and_a_simulation_record() -> None:
    state = ConstraintState()
    state.record("a", 2, 1, constraint="cool")
    assert state.metrics.constraint("cool") == (2, 1)
    simulation = Simulation(2, seed=1)
    simulation.record("n0", 1, violated=2)
    assert simulation.nodes[0].state.metrics.total == (1, 2)
