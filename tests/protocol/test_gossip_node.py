"""The node as programs use it: where its time comes from, and that a definition has each field that was given."""

import re
from datetime import timedelta
from typing import Any

import pytest

from constraint_crdt import ConstraintCrdtError, Definition, ExpressionError, GossipNode, VectorClock, exchange
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.errors import UnknownConstraint
from constraint_crdt.model import IfUnknown, Severity, VerdictState
from constraint_crdt.protocol.gossip_node import GossipNode as PureNode
from constraint_crdt.types import NodeVerdict, Seconds, VariableKind
from constraint_crdt.types.counters import Counts

NEEDS = "this GossipNode needs `now` and `renew`; constraint_crdt.GossipNode has those of the machine"


@pytest.mark.parametrize("given", [{}, {"now": lambda: 7}, {"renew": lambda: 9}])
def test_the_pure_node_has_no_time_and_no_incarnations_of_its_own(given: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(NEEDS)}$"):
        PureNode("a", **given)


def test_the_pure_node_goes_by_the_time_and_the_incarnations_given() -> None:
    a = PureNode("a", now=lambda: 7, renew=lambda: 9)
    assert (a.replica.incarnation, a.ping().time) == (9, 7)


def test_a_definition_has_each_field_that_was_given() -> None:
    a = GossipNode("a", now=lambda: 10**18)
    a.add_constraint(
        "c", when="v < 1.0", severity="critical", about="battery", on={"zone": "a"}, ttl=60, for_=timedelta(seconds=1),
        clear_after=2, clear_when="v < 0.5", if_unknown="violated", max_age=3,
    )  # fmt: skip
    assert list(a.state.constraints.definitions("c")) == [
        Definition(
            when="v < 1.0", severity=Severity.CRITICAL, about="battery", on=(("zone", "a"),), expires_at=10**18 + 60 * SECOND,
            for_=SECOND, clear_after=2 * SECOND, clear_when="v < 0.5", if_unknown=IfUnknown.VIOLATED, max_age=3 * SECOND,
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("argument", "name"), [("for_", "for"), ("clear_after", "clear_after"), ("max_age", "max_age")])
def test_a_duration_that_cannot_be_used_is_refused_by_its_name(argument: str, name: str) -> None:
    wrong: dict[str, Any] = {argument: -1}
    with pytest.raises(ConstraintCrdtError, match=f"^{name} must be at least 0"):
        GossipNode("a").add_constraint("c", when="v < 1.0", **wrong)


@pytest.mark.parametrize("wrong", [{"when": "v <"}, {"when": "v < 1.0", "clear_when": "v <"}])
def test_an_expression_that_cannot_be_used_is_refused(wrong: dict[str, Any]) -> None:
    a = GossipNode("a")
    with pytest.raises(ExpressionError, match="the expression ends where more is needed"):
        a.add_constraint("c", **wrong)
    assert (list(a.state.constraints), a.clock) == ([], VectorClock())


def test_a_constraint_has_the_time_that_was_given() -> None:
    a = GossipNode("a")
    a.add_constraint("c", at=7)
    assert [addition.added_at for addition in a.state.constraints.additions("c")] == [7]


def test_the_removal_of_an_unknown_constraint_names_it() -> None:
    with pytest.raises(UnknownConstraint, match="speed"):
        GossipNode("a").remove_constraint("speed")


# --- what a node counts and tells -----------------------------------------------------------------------------------------------


def test_counts_are_those_of_the_constraint_and_one_unless_more_is_said() -> None:
    a = GossipNode("a")
    a.record_satisfied(constraint="c")
    a.record_violations(constraint="c")
    a.record_satisfied(3, constraint="c")
    a.record_violations(5, constraint="c")
    assert a.state.metrics.constraint("c") == Counts(4, 6)
    a.record()
    a.record_satisfied()
    a.record_violations()
    assert a.state.metrics.total == Counts(5, 7)
    assert a.state.metrics.constraint("c") == Counts(4, 6)


def test_counts_of_several_constraints_are_one_transaction_of_this_node() -> None:
    a = GossipNode("a")
    a.record_all({"c": (1, 2), "d": (0, 4), None: (8, 0)})
    metrics = a.state.metrics
    assert (metrics.constraint("c"), metrics.constraint("d")) == (Counts(1, 2), Counts(0, 4))
    assert metrics.node("a") == Counts(9, 6)
    assert a.record_each({"c": (1, 0)}) == {}
    assert metrics.constraint("c") == Counts(2, 2)


def test_times_verdicts_and_variables_are_those_of_this_node() -> None:
    a = GossipNode("a")
    assert a.record_seconds({"c": (1000, 20, 3)}) == {}
    assert a.state.metrics.time_on("c") == {"a": Seconds(1.0, 0.02, 0.003)}
    violated = NodeVerdict(VerdictState.VIOLATED, since=5)
    assert a.record_verdicts({"c": violated, "d": None}) == 1
    a.add_constraint("c")
    assert a.state.verdicts.of("c") == {"a": violated}
    assert a.describe_variables({}) is False, "of a node that never measured nothing is told"
    assert a.describe_variables({"speed": VariableKind.DOUBLE}) is True
    assert a.describe_variables({"speed": VariableKind.DOUBLE}) is False
    assert a.state.variables.of("a") == {"speed": VariableKind.DOUBLE}
    b = GossipNode("b")
    assert b.describe_variables({}, even_none=True) is True


# --- tombstones, and whole exchanges --------------------------------------------------------------------------------------------


def test_nothing_is_collected_for_the_sake_of_a_peer_that_was_never_heard() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("c")
    exchange(a, b)
    b.remove_constraint("c")
    assert b.state.rows.seq(b.replica) == 1, "the removal is its first cell"
    assert b.collect(["stranger"]) == 0
    assert b.collect([]) == 1


def test_an_exchange_of_equal_nodes_says_that_nothing_changed() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("c")
    assert exchange(a, b) is True
    assert exchange(a, b) is False
