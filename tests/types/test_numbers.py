"""Numbers of any type are numbers where a type takes one, and a value of a wrong type is a `TypeError` with a sentence."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from constraint_crdt import ConstraintCrdtError, ConstraintState
from constraint_crdt.types import BloomCRDT, SketchCRDT


class Whole:
    """An integer of another library."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Real:
    """A float of another library."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


def state_of(whole: Callable[[int], Any], real: Callable[[float], Any]) -> ConstraintState:
    """A state written with numbers of these types."""
    state = ConstraintState()
    state.metrics.record("a", whole(3), whole(1), constraint="x")
    state.rates.record("a", whole(4), whole(2))
    state.counters["parts"].increment(whole(5), node="a")
    state.counters["parts"].decrement(whole(2), node="a")
    state.register.update((whole(3), whole(-2)), node="a", time=whole(7))
    state.decay("jobs", real(60.0)).record(real(2.5), node="a")
    state.sketch("items", real(0.25), real(0.25)).record("pump", whole(3), node="a")
    state.bloom("seen", whole(100), real(0.125)).insert("pump", node="a")
    state.increments.apply("hall", "robot", whole(1), whole(2), whole(3), node="a")
    state.constraints.add("x", node="a", expires_at=whole(9))
    tile = state.tiles.tile("hall", "t")
    tile.put("x", node="a", time=whole(5))
    tile.metrics.record("a", whole(2), whole(1))
    tile.constraints.add_foreign("x", [("f", whole(4))], node="a")
    return state


PLAIN = state_of(int, float)


@pytest.mark.parametrize("real", [Real, Decimal, Fraction])
def test_numbers_of_other_types_write_the_same_cells(real: Callable[[float], Any]) -> None:
    assert state_of(Whole, real).state_hash == PLAIN.state_hash


def test_scalars_of_numpy_write_the_same_cells() -> None:
    numpy = pytest.importorskip("numpy")
    assert state_of(numpy.int64, numpy.float32).state_hash == PLAIN.state_hash
    assert state_of(numpy.int16, numpy.float64).state_hash == PLAIN.state_hash


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda s: s.metrics.record("a", 1.5), "a count is a whole number, not 1.5"),
        (lambda s: s.metrics.record(7, 1), "a node id is a text, not 7"),
        (lambda s: s.metrics.record("a", 1, constraint=7), "a constraint id is a text, not 7"),
        (lambda s: s.rates.record("a", "1"), "a count is a whole number, not '1'"),
        (lambda s: s.counters["x"].increment(None, node="a"), "an amount is a whole number, not None"),
        (lambda s: s.counters[7], "the name of a counter is a text, not 7"),
        (lambda s: s.register.update((1.5, 0), node="a", time=0), "a coordinate of a position is a whole number, not 1.5"),
        (lambda s: s.register.update((1, 0), node="a", time="0"), "a time in ns since the epoch is a whole number, not '0'"),
        (lambda s: s.decay("jobs", "60"), "a half-life is a number, not '60'"),
        (lambda s: s.decay("jobs", 60).record(None, node="a"), "an amount is a number, not None"),
        (lambda s: s.sketch("x", "0.1"), "the epsilon of a sketch is a number, not '0.1'"),
        (lambda s: s.bloom("x", 10, None), "the false-positive rate of a filter is a number, not None"),
        (lambda s: s.constraints.add("x", node="a", when=7), "when is a text, not 7"),
        (lambda s: s.constraints.add("x", node="a", expires_at=1.5), "the end of a constraint in ns since the epoch is a whole"),
        (lambda s: s.constraints.add(7, node="a"), "a constraint id is a text, not 7"),
        (lambda s: s.tiles.tile("r", 7), "the id of a tile is a text, not 7"),
        (lambda s: s.tiles.tile("r", "t").tags.add(7, node="a"), "a tag is a text, not 7"),
        (lambda s: s.increments.apply("r", "x", 1.5, node="a"), "the seq of an increment is a whole number, not 1.5"),
    ],
)
def test_a_wrong_type_is_a_type_error_with_a_sentence(write: Callable[[ConstraintState], object], sentence: str) -> None:
    state = ConstraintState()
    with pytest.raises(TypeError) as caught:
        write(state)
    assert str(caught.value).startswith(sentence)
    assert state == ConstraintState()


@pytest.mark.parametrize("number", [10**400, Decimal("1e400")])
def test_a_number_beyond_a_float_is_refused(number: Any) -> None:
    with pytest.raises(ConstraintCrdtError, match="too large"):
        ConstraintState().decay("jobs", 60.0).record(number, node="a")


def test_a_position_has_two_coordinates() -> None:
    for position in ((), (1,), (1, 2, 3)):
        with pytest.raises(ConstraintCrdtError, match="two coordinates"):
            ConstraintState().register.update(position, node="a", time=0)  # type: ignore[arg-type]


def test_sets_of_a_tile_compare_as_sets_do() -> None:
    tile = PLAIN.tiles.tile("hall", "t")
    assert tile.constraints == {"x"}
    assert tile.constraints != ["x"]
    assert tile.tags == set()
    assert tile.tags == ConstraintState().tiles.tile("hall", "t").constraints
    with pytest.raises(TypeError, match="unhashable"):
        hash(tile.tags)


def test_retirements_are_read_as_a_collection() -> None:
    state = ConstraintState()
    state.metrics.record("old", 1)
    assert (len(state.retirements), list(state.retirements)) == (0, [])
    state.retirements.retire_node("old", node="a")
    assert (len(state.retirements), list(state.retirements), repr(state.retirements)) == (1, ["old"], "Retirements(['old'])")
    assert "old" in state.retirements


def test_paged_tables_take_numbers_of_other_types_when_they_stand_alone() -> None:
    assert SketchCRDT(Decimal("0.25"), Real(0.25)).shape == SketchCRDT(0.25, 0.25).shape  # type: ignore[arg-type]
    assert BloomCRDT(Whole(100), Decimal("0.125")).shape == BloomCRDT(100, 0.125).shape  # type: ignore[arg-type]
