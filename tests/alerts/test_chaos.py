"""Histories of a fleet with alerts: none is lost, none is told twice without a fault, none is told while silenced and connected."""

from collections.abc import Mapping

import pytest

from constraint_crdt.alerts import delivery
from constraint_crdt.alerts.delivery import Look, Teller
from constraint_crdt.types.alerts import Silence, Told, Unit
from tests.alerts.alert_world import AlertWorld
from tests.conftest import BUDGET

HISTORIES = 2000 if BUDGET == "nightly" else 3


def problems_of(seed: int) -> list[str]:
    """The problems of a history with a number of nodes that goes with the seed."""
    world = AlertWorld(seed, count=3 + seed % 3)
    world.run()
    return world.problems


@pytest.mark.long
@pytest.mark.timeout(3600 if BUDGET == "nightly" else 60)
def test_no_alert_is_lost_told_twice_or_told_while_silenced() -> None:
    for seed in range(HISTORIES):
        assert problems_of(seed) == [], f"seed {seed}"


@pytest.mark.long(by_day=["33", "94", "50345"])
@pytest.mark.parametrize("seed", [33, 94, 109, 196, 452, 771, 924, 50345, 50373, 52003, 60512])
def test_histories_that_found_a_mistake(seed: int) -> None:
    """An end that no other node told for an owner without a way out; sides of a partition with one number for two episodes; a word
    heard anew at each look; two nodes that waited for the same message; and for each other's, after a silence; an end
    behind a message that never arrives; a node without a way out that held up the next one with each new attempt; all nodes that
    stood in at once; a message given up that ended a later episode; a begin told on one side that counted for the next episode on
    the other; an end that arrived after the begin of the next episode."""
    assert problems_of(seed) == []


@pytest.mark.slow
def test_without_faults_each_turn_is_told_once_and_in_time() -> None:
    world = AlertWorld(3, faults=False)
    world.run()
    assert world.problems == []
    assert len(world.received) > 3
    for subject in world.truth:
        told = [each.firing for each in world.received if each.subject == subject]
        assert told == [place % 2 == 0 for place in range(len(told))]


def _unsilenced(self: Teller, rule: str, subject: str, nodes: object) -> list[Silence]:
    return []


def _forgets(self: Teller, writes: Mapping[Unit, tuple[int, int]]) -> None:
    self._mine |= {unit: Told(*told, 0, self._gossip.replica) for unit, told in writes.items()}


def _at_once(self: Teller, look: Look, unit: Unit, wanted: object, order: list[str], at: int) -> int | None:
    return 0 if self._gossip.node_id in order else None


@pytest.mark.long(by_day=["nothing written"])
@pytest.mark.parametrize(
    ("target", "name", "value", "seed"),
    [
        (Teller, "silences_of", _unsilenced, 2),
        (Teller, "_put", _forgets, 4),
        (Teller, "_wait", _at_once, 4),
        (delivery, "STAND_IN", 10**15, 11),
        (delivery, "ATTEMPTED", 2, 0),
    ],
    ids=("silences ignored", "nothing written", "all tell at once", "no stand-in", "sent counts as delivered"),
)
def test_a_planted_mistake_is_found(monkeypatch: pytest.MonkeyPatch, target: object, name: str, value: object, seed: int) -> None:
    monkeypatch.setattr(target, name, value)
    assert any(problems_of(each) for each in range(seed, 40 if BUDGET == "nightly" else seed + 8))
