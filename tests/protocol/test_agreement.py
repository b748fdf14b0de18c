"""Who has heard of every change of the definitions: what moves their clock, and what does not."""

from constraint_crdt import GossipNode, exchange
from constraint_crdt.insight.evidence import DefinitionClock


def test_adding_and_removing_definitions_moves_it() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    definition_clock = DefinitionClock(a.state.rows)
    for change in (lambda: a.add_constraint("c"), lambda: a.remove_constraint("c")):
        change()
        assert not definition_clock.covered_by(b.clock.as_dict())
        exchange(a, b)
        assert definition_clock.covered_by(b.clock.as_dict())


def test_counting_and_removing_counts_does_not() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    definition_clock = DefinitionClock(a.state.rows)
    a.add_constraint("c")
    exchange(a, b)
    a.record(5, 1, constraint="c")
    assert a.fold(["c"]) == 1, "which removes a cell of counts"
    assert definition_clock.covered_by(b.clock.as_dict())
    assert DefinitionClock(a.state.rows).covered_by(b.clock.as_dict()), "also where it starts from what stands"


def test_the_removal_of_what_expired_does() -> None:
    wall = [10**18]
    a, b = GossipNode("a", now=lambda: wall[0]), GossipNode("b", now=lambda: wall[0])
    definition_clock = DefinitionClock(a.state.rows)
    a.add_constraint("c", ttl=1)
    exchange(a, b)
    wall[0] += 10**12
    exchange(b, a)
    assert definition_clock.covered_by(b.clock.as_dict()), "that time passes is no change"
    assert a.remove_expired() == 1
    assert not definition_clock.covered_by(b.clock.as_dict())


def test_one_who_may_know_more_is_not_covered() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    definition_clock = DefinitionClock(a.state.rows)
    b.record(1)
    assert not definition_clock.covered_by(b.clock.as_dict())


def test_a_removal_that_was_collected_still_counts() -> None:
    a, b = GossipNode("a"), GossipNode("b")
    a.add_constraint("c")
    exchange(a, b)
    a.remove_constraint("c")
    assert a.collect() == 1
    definition_clock = DefinitionClock(a.state.rows)
    assert definition_clock.dots == (), "no cell is left that says so, as after a restart"
    assert "c" in b.state.constraints
    assert not definition_clock.covered_by(b.clock.as_dict())
    exchange(a, b)
    assert definition_clock.covered_by(b.clock.as_dict())
