"""`GossipNode.check`: what is evaluated, what is counted, what reads unknown."""

import pytest

from constraint_crdt import Counts, Definition, Evaluation, GossipNode, Verdict, exchange
from constraint_crdt.expression import ExpressionError
from constraint_crdt.types.definition import MEANING

FROM_THE_FUTURE = "speed_mps <== 1.5 within 3s"


def verdicts(evaluations: list[Evaluation]) -> dict[str, Verdict]:
    """The verdict per constraint."""
    return {each.constraint: each.verdict for each in evaluations}


def test_every_active_definition_is_evaluated_and_counted() -> None:
    a = GossipNode("a")
    a.add_constraint("thermal", when="temp < 85.0", severity="critical")
    a.add_constraint("speed", when="speed <= 1.5")
    found = a.check({"temp": 91, "speed": 1})
    assert [each.constraint for each in found] == ["speed", "thermal"]
    assert verdicts(found) == {"thermal": Verdict.VIOLATED, "speed": Verdict.SATISFIED}
    a.check({"temp": 20, "speed": 1})
    assert a.state.metrics.constraint("thermal") == Counts(1, 1)
    assert a.state.metrics.constraint("speed") == Counts(2, 0)
    assert a.state.metrics.node("a") == a.state.metrics.total == Counts(3, 1)
    assert a.state.satisfaction_rate == 0.75


def test_a_missing_variable_counts_neither_way_and_says_why() -> None:
    a = GossipNode("a")
    a.add_constraint("speed", when="speed <= 1.5")
    [found] = a.check({"temp": 20})
    assert found.verdict is Verdict.UNKNOWN
    assert "speed" in found.reason
    assert a.state.metrics.total == Counts(0, 0)


def test_a_constraint_without_a_when_is_listed_and_not_evaluated() -> None:
    a = GossipNode("a")
    a.add_constraint("c1")
    assert a.check({"x": 1}) == []
    assert "c1" in a.state.constraints


def test_a_removed_constraint_is_not_evaluated() -> None:
    a = GossipNode("a")
    a.add_constraint("speed", when="speed <= 1.5")
    a.remove_constraint("speed")
    assert a.check({"speed": 9}) == []


def test_a_definition_of_a_later_meaning_reads_unknown_and_is_forwarded() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    later = Definition("speed <= 1.5", meaning=MEANING + 1, unknown_fields=b"\x91\x07")
    a.write(lambda me: a.state.constraints.put("speed", later, node=me))
    without_when = later._replace(when=None, on=(("zone", "a"),))
    a.write(lambda me: a.state.constraints.put("elsewhere", without_when, node=me))
    exchange(a, b)
    assert b.state_hash == a.state_hash
    assert b.state.constraints.definitions("speed") == (later,)
    assert b.check({"speed": 1}) == [Evaluation("speed", Verdict.UNKNOWN, "needs a later version of constraint-crdt")]
    assert b.state.metrics.total == Counts(0, 0)


def test_a_violation_beside_a_definition_of_a_later_meaning_is_a_violation() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.write(lambda me: a.state.constraints.put("speed", Definition("speed <= 9.0", meaning=MEANING + 1), node=me))
    b.add_constraint("speed", when="speed <= 1.5")
    exchange(a, b)
    assert verdicts(a.check({"speed": 2})) == {"speed": Verdict.VIOLATED}
    assert verdicts(a.check({"speed": 1})) == {"speed": Verdict.UNKNOWN}


def test_what_cannot_be_compiled_here_is_refused_here() -> None:
    a = GossipNode("a")
    hash_ = a.state_hash
    with pytest.raises(ExpressionError):
        a.add_constraint("odd", when=FROM_THE_FUTURE)
    assert a.state_hash == hash_


def test_what_cannot_be_compiled_but_came_from_elsewhere_is_kept_forwarded_and_unknown() -> None:
    newer, here, third = GossipNode("newer"), GossipNode("here"), GossipNode("third")
    newer.state.constraints.add("odd", node="newer", when=FROM_THE_FUTURE)
    here.add_constraint("speed", when="speed <= 1.5")
    exchange(newer, here)
    assert verdicts(here.check({"speed": 1})) == {"odd": Verdict.UNKNOWN, "speed": Verdict.SATISFIED}
    assert "cannot be evaluated on this node" in here.check({"speed": 1})[0].reason
    assert here.state.metrics.constraint("odd") == Counts(0, 0)
    exchange(here, third)
    assert third.state.constraints.definitions("odd")[0].when == FROM_THE_FUTURE
    assert third.constraints_hash == here.constraints_hash


@pytest.mark.parametrize(
    ("speed", "verdict"),
    [(0.5, Verdict.SATISFIED), (1.5, Verdict.VIOLATED), (2.5, Verdict.VIOLATED), (None, Verdict.UNKNOWN)],
)
def test_of_conflicting_definitions_all_are_in_force(speed: float | None, verdict: Verdict) -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("speed", when="speed <= 1.0")
    b.add_constraint("speed", when="speed <= 2.0")
    exchange(a, b)
    for each in (a, b):
        [found] = each.check({} if speed is None else {"speed": speed})
        assert found.verdict is verdict
    a.add_constraint("speed", when="speed <= 2.0")
    exchange(a, b)
    assert verdicts(b.check({"speed": 1.5})) == {"speed": Verdict.SATISFIED}


def test_a_violated_definition_outweighs_one_that_cannot_be_evaluated() -> None:
    """When in doubt, keep the constraint: unknown on one side hides no violation on the other."""
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("c", when="x < 1.0")
    b.add_constraint("c", when="y < 1.0")
    exchange(a, b)
    assert verdicts(a.check({"x": 5})) == {"c": Verdict.VIOLATED}
    assert verdicts(a.check({"x": 0})) == {"c": Verdict.UNKNOWN}
