"""`EisensteinRegister` standing alone: unset is no candidate, a move goes anywhere, concurrent positions resolve the same way."""

import itertools

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState, Replica
from constraint_crdt.types import EisensteinRegister, eisenstein_norm


def joined(*registers: EisensteinRegister) -> EisensteinRegister:
    """One register that knows what all know."""
    result = EisensteinRegister()
    for each in registers:
        result.merge(each)
    return result


def written(position: tuple[int, int], node: str | Replica, time: int = 1) -> EisensteinRegister:
    """A register that only one node has written."""
    register = EisensteinRegister()
    register.update(position, node=node, time=time)
    return register


@pytest.mark.parametrize(
    ("position", "norm"), [((0, 0), 0), ((3, 1), 7), ((1, 1), 1), ((-2, 3), 19), ((2**31, -(2**31)), 3 * 2**62)]
)
def test_the_norm_is_exact(position: tuple[int, int], norm: int) -> None:
    assert eisenstein_norm(position) == norm


def test_nobody_has_written_is_not_the_origin() -> None:
    fresh = EisensteinRegister()
    assert (fresh.position, fresh.norm, fresh.time) == (None, None, None)
    moved = written((3, 1), "a")
    moved.merge(fresh)
    assert moved.position == (3, 1)
    at_origin = written((0, 0), "b")
    assert at_origin.position == (0, 0)
    assert at_origin.norm == 0
    assert at_origin.hex_distance() == 0
    assert at_origin.hex_distance((3, 1)) == 3
    assert fresh.hex_distance() is None
    assert at_origin != fresh


def test_a_move_goes_away_from_the_origin_too() -> None:
    register = written((1, 0), "a")
    for time, position in enumerate([(5, 5), (9, -9), (0, 0), (-40, 2)], start=2):
        register.update(position, node="ab"[time % 2], time=time)
        assert register.position == position
        assert register.time == time
    assert joined(register, written((1, 0), "a")).position == (-40, 2)


def test_a_move_wins_even_with_an_earlier_clock() -> None:
    register = written((1, 0), "a", time=1000)
    register.update((7, 7), node="b", time=1)
    assert register.position == (7, 7)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ((5, 0, 9, "a"), (1, 0, 1, "b"), (1, 0)),  # the lower norm, however old
        ((1, 0, 2, "b"), (0, 1, 1, "a"), (1, 0)),  # equal norms: the later time
        ((1, 0, 1, "b"), (0, 1, 1, "a"), (0, 1)),  # equal times too: the node id
    ],
)
def test_concurrent_positions_resolve_by_norm_then_time_then_node(
    first: tuple[int, int, int, str], second: tuple[int, int, int, str], winner: tuple[int, int]
) -> None:
    registers = [written((a, b), node, time) for a, b, time, node in (first, second)]
    for order in itertools.permutations(registers):
        assert joined(*order).position == winner


def test_what_a_later_write_overwrote_stays_overwritten() -> None:
    """b supersedes a's position and then moves on, without a ever writing again: a's must not come back."""
    a = written((1, 0), "a")
    b = joined(a)
    b.update((9, 9), node="b", time=2)
    b.update((8, 8), node="b", time=3)
    for order in itertools.permutations([a, b]):
        assert joined(*order).position == (8, 8)
    b.update((7, 7), node="c", time=4)
    assert joined(b, a).position == (7, 7)


def test_a_position_written_without_knowing_of_the_move_is_a_candidate_again() -> None:
    a = written((5, 0), "a")
    b = joined(a)
    b.update((9, 9), node="b", time=2)
    a.update((6, 0), node="a", time=1)
    assert joined(a, b).position == (6, 0)


def test_the_position_of_one_node_is_the_last_that_it_wrote_in_any_life() -> None:
    register = written((1, 0), Replica("a", 1), time=1)
    register.update((4, 4), node=Replica("a", 2), time=2)
    register.update((0, 0), node="b", time=3)
    assert register.node_position("a") == (4, 4)
    assert register.node_position("b") == (0, 0)
    assert register.node_position("z") is None
    assert register.by_node == {"a": (4, 4), "b": (0, 0)}
    assert EisensteinRegister().by_node == {}


def test_it_says_who_wrote_the_position() -> None:
    a, b = written((5, 0), "a"), written((1, 0), Replica("b", 3))
    assert (a.by, EisensteinRegister().by) == ("a", None)
    both = joined(a, b)
    assert (both.position, both.by) == ((1, 0), "b")
    both.update((5, 0), node="a", time=2)
    assert (both.position, both.by) == ((5, 0), "a")


@pytest.mark.parametrize(
    ("position", "time", "error"),
    [
        ((2**31, 0), 1, ConstraintCrdtError),
        ((0, -(2**31) - 1), 1, ConstraintCrdtError),
        ((0, 0), -1, ConstraintCrdtError),
        ((0, 0), 2**63, ConstraintCrdtError),
        ((1.5, 0), 1, TypeError),
        ((0, "1"), 1, TypeError),
        ((0, 0), 1.5, TypeError),
    ],
)
def test_what_is_no_position_is_refused_and_writes_nothing(position: tuple[int, int], time: int, error: type[Exception]) -> None:
    state = ConstraintState()
    state.register.update((2, 2), node="a", time=1)
    hash_ = state.state_hash
    with pytest.raises(error):
        state.register.update(position, node="b", time=time)
    assert (state.state_hash, state.position) == (hash_, (2, 2))
    state.register.update((3, 3), node="b", time=2)
    assert state.position == (3, 3)


def test_the_largest_coordinates_pass() -> None:
    register = written((2**31 - 1, -(2**31)), "a")
    assert joined(register).position == (2**31 - 1, -(2**31))
    assert repr(register) == "EisensteinRegister((2147483647, -2147483648))"
