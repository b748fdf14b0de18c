"""Lifetimes by type: ends by time, load and use, told alike by every node."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt import GossipNode, exchange
from constraint_crdt.errors import ConstraintCrdtError, UnknownConstraint
from constraint_crdt.gossip import DeathContext, TtlCrdtNode, TtlType

SECOND = 1_000_000_000
START = 1_750_000_000 * SECOND


class Clock:
    """The clock of all nodes."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def node(name: str, clock: Clock) -> TtlCrdtNode:
    return TtlCrdtNode(GossipNode(name, now=clock))


@pytest.mark.parametrize(("ttl_type", "seconds"), list(zip(TtlType, (3600, 300, 60, 30, 86_400), strict=True)))
def test_the_defaults_are_those_of_the_crate(ttl_type: TtlType, seconds: float) -> None:
    assert ttl_type.default_lifespan_secs == seconds
    assert ttl_type.lifespan_secs() == seconds
    assert ttl_type.lifespan_secs(load=0.0) == seconds, "a low load prolongs nothing"
    assert ttl_type.decay_half_life > 0


@given(st.sampled_from(TtlType), st.floats(0, 1e6), st.floats(0, 10), st.integers(0, 2**40), st.floats(0, 1), st.integers(0, 2**40))
def test_a_life_is_never_longer_under_more_load_or_use(
    ttl_type: TtlType, load: float, more_load: float, uses: int, share: float, more_uses: int
) -> None:
    life = ttl_type.lifespan_secs(load, uses)
    assert 0 < life <= ttl_type.default_lifespan_secs
    assert ttl_type.lifespan_secs(load + more_load, uses) <= life
    assert ttl_type.lifespan_secs(load, uses + more_uses) <= life
    assert life * max(1.0, load) >= 0.0999 * ttl_type.default_lifespan_secs


@pytest.mark.parametrize(("load", "uses"), [(-1.0, 0), (math.nan, 0), (math.inf, 0), (1.0, -1)])
def test_load_and_uses_are_numbers_from_0(load: float, uses: int) -> None:
    with pytest.raises(ConstraintCrdtError, match="load and uses are 0 or more"):
        TtlType.TASK.lifespan_secs(load, uses)


@pytest.mark.slow
@given(st.sampled_from(TtlType), st.floats(0, 5), st.integers(0, 1000), st.floats(0, 1.2))
def test_an_evaluation_ends_what_is_over_and_nothing_else(ttl_type: TtlType, load: float, uses: int, share: float) -> None:
    clock = Clock()
    here = node("a", clock)
    id_ = here.add_constraint(ttl_type, 7)
    assert id_ == f"{ttl_type.value}:7"
    if uses:
        here.node.record(uses, constraint=id_)
    clock.now += round(share * ttl_type.default_lifespan_secs * SECOND)
    age = (clock.now - START) / SECOND
    over = age >= ttl_type.lifespan_secs(load, uses)
    events = here.evaluate(load)
    assert here.active_count == (not over)
    if not over:
        assert events == []
        assert here.state(id_).is_active
        assert here.state(id_).remaining_secs == pytest.approx(ttl_type.default_lifespan_secs - age)
        return
    [event] = events
    assert (event.before, event.after, event.delta, event.expired_count, event.expired_ids) == (1, 0, -1, 1, (id_,))
    by_use = age >= ttl_type.lifespan_secs(1.0, uses)
    expected = DeathContext.USE_EXHAUSTED if by_use else DeathContext.LOAD_KILLED
    assert here.state(id_).context is (DeathContext.TIME_EXPIRED if age >= ttl_type.default_lifespan_secs else expected)
    assert here.evaluate(load) == []


def test_an_end_reaches_the_fleet_with_its_cause() -> None:
    clock = Clock()
    a, b, late = node("a", clock), node("b", clock), GossipNode("late", now=clock)
    ids = [a.add_constraint(TtlType.TASK, name) for name in ("by-load", "told", "renewed")]
    timed = b.add_constraint(TtlType.BEARING, "timed")
    exchange(a.node, b.node)
    assert a.evaluate() == b.evaluate() == []
    assert [each.id for each in b.constraints()] == [timed, *sorted(ids)]
    clock.now += 40 * SECOND
    b.terminate("task:told")
    b.add_constraint(TtlType.TASK, "renewed")
    [event] = a.evaluate(load=10.0)
    assert event.expired_ids == (timed, "task:by-load", "task:renewed", "task:told")
    exchange(a.node, b.node)
    exchange(a.node, late)
    assert a.node.state_hash == b.node.state_hash
    for each in (a, b, TtlCrdtNode(late)):
        assert each.state("task:by-load").context is DeathContext.LOAD_KILLED
        assert each.state(timed).context is DeathContext.TIME_EXPIRED
        assert each.state("task:renewed").is_active, "a renewal wins over a concurrent end"
    assert b.evaluate()[0].expired_ids == (timed, "task:by-load", "task:told")
    assert b.state("task:told").context is DeathContext.EXPLICIT_TERMINATION
    assert b.expired_count == 3
    assert repr(b) == "TtlCrdtNode(b, 1 active, 3 ended)"
    assert [each.id for each in a.constraints()] == ["task:renewed"]
    assert a.state("task:renewed").is_active


def test_a_removal_by_others_is_an_explicit_end_and_other_constraints_are_none_of_these() -> None:
    clock = Clock()
    here = node("a", clock)
    id_ = here.add_constraint(TtlType.TRUST, "x")
    here.node.add_constraint("max_speed")
    here.node.add_constraint("task:for-ever")
    here.node.add_constraint("shelf:1", ttl=10)
    assert [each.id for each in here.constraints()] == [id_]
    here.node.remove_constraint(id_)
    [event] = here.evaluate()
    assert event.expired_ids == (id_,)
    assert here.state(id_) == (0.0, DeathContext.EXPLICIT_TERMINATION)
    assert here.add_constraint(TtlType.TRUST, "x") == id_
    assert (here.state(id_).is_active, here.expired_count) == (True, 0)
    with pytest.raises(UnknownConstraint):
        here.state("task:never")
    with pytest.raises(UnknownConstraint):
        here.terminate("task:never")
