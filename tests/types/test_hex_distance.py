"""`hex_distance`: the steps that a walk on the lattice takes, found by breadth-first search, and the axioms of a metric."""

from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.types import eisenstein_norm, hex_distance
from constraint_crdt.types.tile_cells import COORDINATE_MAX, COORDINATE_MIN

FAR = 9

coordinates = st.one_of(st.integers(-50, 50), st.integers(COORDINATE_MIN, COORDINATE_MAX))
points = st.tuples(coordinates, coordinates)

UNITS = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if eisenstein_norm((a, b)) == 1]
"""All of norm 1: beyond these coordinates the norm is larger."""


def test_it_is_the_shortest_walk_in_steps_of_norm_1() -> None:
    assert len(UNITS) == 6
    steps = {(0, 0): 0}
    edge = {(0, 0)}
    for step in range(1, FAR + 1):
        edge = {(a + da, b + db) for a, b in edge for da, db in UNITS} - steps.keys()
        steps |= dict.fromkeys(edge, step)
    assert len(steps) == 1 + 3 * FAR * (FAR + 1)
    for point, walked in steps.items():
        assert hex_distance((0, 0), point) == walked
        assert hex_distance((3, -2), (3 + point[0], point[1] - 2)) == walked


@given(points, points, points)
def test_it_is_a_metric(one: tuple[int, int], other: tuple[int, int], third: tuple[int, int]) -> None:
    assert (hex_distance(one, other) == 0) == (one == other)
    assert hex_distance(one, other) == hex_distance(other, one) >= 0
    assert hex_distance(one, third) <= hex_distance(one, other) + hex_distance(other, third)


@given(points, points)
def test_points_are_neighbours_exactly_where_their_difference_has_norm_1(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (hex_distance(one, other) == 1) == (eisenstein_norm((one[0] - other[0], one[1] - other[1])) == 1)
    for da, db in UNITS:
        assert hex_distance(one, (one[0] + da, one[1] + db)) == 1


@given(points, points)
def test_a_walk_is_hardly_longer_than_the_straight_way(one: tuple[int, int], other: tuple[int, int]) -> None:
    """The square of a walk is from 1 to 4/3 times the norm, exactly, also where neither fits a float."""
    norm, walk = eisenstein_norm((one[0] - other[0], one[1] - other[1])), hex_distance(one, other)
    assert norm <= walk * walk
    assert 3 * walk * walk <= 4 * norm
