"""Counts of constraints that are long gone go into the node's total: exact at every moment, on every node."""

from constraint_crdt import GossipNode, exchange
from constraint_crdt.runtime.maintenance import FoldSweep
from constraint_crdt.types import ConstraintGCounter


def test_totals_stay_exact_and_only_the_split_goes() -> None:
    counter = ConstraintGCounter()
    counter.record("a", 3, 1, constraint="gone")
    counter.record("a", 10, 0)
    counter.record("a", 5, 0, constraint="kept")
    counter.record("b", 7, 0, constraint="gone")
    assert counter.fold(["gone", "never"], node="a") == 1
    assert tuple(counter.total) == (25, 1)
    assert tuple(counter.node("a")) == (18, 1)
    assert tuple(counter.constraint("gone")) == (7, 0)
    assert tuple(counter.constraint("kept")) == (5, 0)
    assert counter.fold(["gone"], node="a") == 0


def test_a_peer_sees_no_count_twice_or_missing_in_any_order_of_hearing() -> None:
    a, b, c = GossipNode("a"), GossipNode("b"), GossipNode("c")
    a.record(3, 1, constraint="gone")
    exchange(a, b)
    a.fold(["gone"])
    a.record(2, 0, constraint="gone")
    for pair in ((a, c), (b, c), (a, b)):
        exchange(*pair)
    assert {tuple(node.state.metrics.total) for node in (a, b, c)} == {(5, 1)}
    assert a.state == b.state == c.state
    assert a.collect() == 1
    exchange(a, b)
    assert tuple(b.state.metrics.total) == (5, 1)


def test_a_constraint_has_to_be_gone_for_a_while() -> None:
    clock = [0.0]
    a = GossipNode("a")
    folding = FoldSweep(a, after=60.0, now=lambda: clock[0])
    a.add_constraint("c1")
    a.record(1, 0, constraint="c1")
    assert folding.due() == []
    a.remove_constraint("c1")
    assert folding.due() == []
    clock[0] = 59.0
    assert folding.due() == []
    a.add_constraint("c1")
    assert folding.due() == []
    a.remove_constraint("c1")
    clock[0] = 100.0
    assert folding.due() == [], "it was back in between"
    clock[0] = 160.0
    assert folding.due() == ["c1"]
    assert a.fold(folding.due()) == 1
    assert folding.due() == []
