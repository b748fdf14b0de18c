"""Histories of a fleet with a rollout: no step without all nodes of the stages, none over a violation, none after a stop."""

from collections.abc import Callable, Iterable, Mapping

import msgspec
import pytest

from constraint_crdt.runtime import rollouts
from constraint_crdt.runtime.rollouts import Sight
from constraint_crdt.state import ConstraintState
from constraint_crdt.types.rollouts import Phase, Rollout
from tests.conftest import BUDGET
from tests.runtime.rollout_world import RolloutWorld

HISTORIES = 1000 if BUDGET == "nightly" else 2


def problems_of(seed: int) -> list[str]:
    world = RolloutWorld(seed)
    world.run()
    return world.problems


@pytest.mark.long
@pytest.mark.timeout(3600 if BUDGET == "nightly" else 60)
def test_kills_cuts_and_commands() -> None:
    for seed in range(HISTORIES):
        assert problems_of(seed) == [], f"seed {seed}"


@pytest.mark.long(by_day=["bad0"])
@pytest.mark.parametrize("bad", [{}, {"n0": 0}, {"n2": 30}])
def test_without_faults_it_completes_or_stops_in_the_stage_of_the_violation(bad: Mapping[str, int]) -> None:
    world = RolloutWorld(5, faults=False, commands=False, bad=bad, seconds=80)
    world.run()
    assert world.problems == []
    found = world.nodes["n0"].rollout
    assert found is not None
    assert (found.phase is Phase.COMPLETE) is (not bad)
    for name in bad:
        assert found.stage >= "abc".index(world.nodes[name].zone)
        assert f"{name}: x is violated by v = 1.5" in found.reason


Heard = Callable[[str], bool]
_see = rollouts.see


def _only_heard(state: ConstraintState, rollout: Rollout, nodes: Iterable[str], is_heard: Heard) -> Sight:
    return _see(state, rollout, [name for name in nodes if is_heard(name)], is_heard)


def _all_reachable(state: ConstraintState, rollout: Rollout, nodes: Iterable[str], is_heard: Heard) -> Sight:
    sight = _see(state, rollout, nodes, is_heard)
    return sight._replace(figures=msgspec.structs.replace(sight.figures, reachable=sight.figures.nodes))


def _no_violations(state: ConstraintState, rollout: Rollout, nodes: Iterable[str], is_heard: Heard) -> Sight:
    sight = _see(state, rollout, nodes, is_heard)
    return sight._replace(figures=msgspec.structs.replace(sight.figures, violations=0))


@pytest.mark.long(by_day=["overlooks violations"])
@pytest.mark.parametrize(
    ("mistake", "make"),
    [
        (_only_heard, lambda: RolloutWorld(2)),
        (_all_reachable, lambda: RolloutWorld(7)),
        (_no_violations, lambda: RolloutWorld(5, faults=False, commands=False, bad={"n0": 0}, seconds=80)),
    ],
    ids=["leaves out nodes that are gone", "takes nodes for reachable", "overlooks violations"],
)
def test_a_planted_mistake_is_found(mistake: object, make: Callable[[], RolloutWorld], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollouts, "see", mistake)
    world = make()
    world.run()
    assert world.problems
