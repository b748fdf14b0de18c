"""The node as programs use it: where its time comes from, and that a definition has each field that was given."""

import re
from datetime import timedelta
from typing import Any

import pytest

from constraint_crdt import ConstraintCrdtError, Definition, GossipNode
from constraint_crdt.crdt.clock import SECOND
from constraint_crdt.model import IfUnknown, Severity
from constraint_crdt.protocol.gossip_node import GossipNode as PureNode

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
    with pytest.raises(ConstraintCrdtError, match=name) as refused:
        GossipNode("a").add_constraint("c", when="v < 1.0", **wrong)
    assert argument == name or argument not in str(refused.value)
