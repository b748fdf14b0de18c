"""Whom to ask next: each policy chooses among the others, with the chances that it promises."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.errors import ConstraintCrdtError
from constraint_crdt.protocol.peers import (
    LONGEST_TURN,
    ByDistance,
    Nearby,
    PeerChoice,
    Schedule,
    Uniform,
    hexagon,
    ring_point,
)
from constraint_crdt.simulation.world import SimRng
from constraint_crdt.types.tile_cells import hex_distance

DRAWS = 20_000


@given(st.integers(2, 60), st.integers(0, 2**32), st.integers(0, 12))
def test_nobody_chooses_itself(count: int, seed: int, round_: int) -> None:
    policies: list[PeerChoice] = [Uniform(count), Schedule(count), Nearby(hexagon(count))]
    for policy in policies:
        for me in (0, count // 2, count - 1):
            chosen = policy.choose(me, round_, SimRng(seed))
            assert 0 <= chosen < count
            assert chosen != me


@pytest.mark.parametrize("policy", [Uniform, Schedule, lambda count: Nearby(hexagon(count))])
@pytest.mark.parametrize("count", [-1, 0, 1])
def test_one_node_has_nobody_to_choose(policy: type[Uniform], count: int) -> None:
    with pytest.raises(ConstraintCrdtError, match="at least 2 nodes"):
        policy(count)


@pytest.mark.slow
def test_uniform_is_uniform() -> None:
    chance, policy = SimRng(1), Uniform(5)
    drawn = Counter(policy.choose(2, 0, chance) for _ in range(DRAWS))
    assert set(drawn) == {0, 1, 3, 4}
    assert all(abs(times / DRAWS - 1 / 4) < 0.02 for times in drawn.values())


@given(st.integers(2, 400))
def test_the_schedule_tells_everybody_in_the_least_number_of_rounds(count: int) -> None:
    """Even if in a round nobody passes on what it learned in that very round."""
    schedule, chance = Schedule(count), SimRng(0)
    assert 3 ** (schedule.rounds - 1) < count <= 3**schedule.rounds
    known = [{me} for me in range(count)]
    for round_ in range(schedule.rounds):
        before = [set(each) for each in known]
        for me in range(count):
            peer = schedule.choose(me, round_, chance)
            known[me] |= before[peer]
            known[peer] |= before[me]
    assert all(len(each) == count for each in known)


@given(st.integers(1, 30), st.integers(-50, 50), st.integers(-50, 50))
def test_a_ring_has_all_points_at_its_distance_once(distance: int, a: int, b: int) -> None:
    ring = [ring_point((a, b), distance, place) for place in range(6 * distance)]
    assert len(set(ring)) == 6 * distance
    assert {hex_distance((a, b), point) for point in ring} == {distance}


def test_a_hexagon_is_filled_from_its_middle() -> None:
    points = hexagon(1 + 6 + 12 + 18)
    assert set(points) == {
        (a, b) for a in range(-3, 4) for b in range(-3, 4) if hex_distance((a, b), (0, 0)) <= 3
    }  # and each once, as there are so many


@pytest.mark.slow
@pytest.mark.parametrize("me", [0, 18, 36], ids=["in the middle", "half way", "at the edge"])
def test_nearby_falls_with_the_square_of_the_distance(me: int) -> None:
    """Against the weights themselves, at the edge too, where most of the plane is empty."""
    points = hexagon(37)
    policy, chance = Nearby(points), SimRng(me)
    weights = {other: hex_distance(points[me], points[other]) ** -2.0 for other in range(37) if other != me}
    drawn = Counter(policy.choose(me, 0, chance) for _ in range(DRAWS))
    for other, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(drawn[other] / DRAWS - expected) < 4.5 * (expected / DRAWS) ** 0.5


@pytest.mark.long
def test_nearby_finds_those_that_stand_far_apart() -> None:
    """No place near them is taken, so they are weighed one by one."""
    points = [(0, 0), (1000, 0), (0, 2000), (-4000, -4000)]
    policy, chance = Nearby(points), SimRng(3)
    drawn = Counter(policy.choose(0, 0, chance) for _ in range(2000))
    weights = {1: 1.0, 2: 0.25, 3: 0.0625}
    for other, weight in weights.items():
        assert abs(drawn[other] / 2000 - weight / sum(weights.values())) < 0.05


def test_two_at_one_place_are_refused() -> None:
    with pytest.raises(ConstraintCrdtError, match="one point"):
        Nearby([(0, 0), (0, 1), (0, 0)])


DISTANCES = st.one_of(st.none(), st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False))


@pytest.mark.slow
@given(
    st.lists(st.dictionaries(st.integers(0, 9), DISTANCES, min_size=1, max_size=10), min_size=1, max_size=6),
    st.integers(1, 60),
    st.integers(0, 2**32),
)
def test_by_distance_nobody_who_stays_is_left_out_for_long(fleets: list[dict[int, float | None]], rounds: int, seed: int) -> None:
    """Whatever the distances are, and whoever comes and goes: against a plain count of the rounds that each has waited."""
    policy, chance = ByDistance[int](), SimRng(seed)
    waited: dict[int, list[int]] = {}
    for distances in fleets:
        for _ in range(rounds):
            chosen = policy.choose(distances, chance)
            assert chosen in distances
            waited = {name: [*waited.get(name, []), len(distances)] for name in distances if name != chosen}
            for sizes in waited.values():
                assert len(sizes) < LONGEST_TURN * max(sizes)


@pytest.mark.slow
def test_by_distance_falls_with_the_square_and_an_unknown_distance_is_the_median() -> None:
    distances = {"near": 1.0, "middle": 2.0, "far": 4.0, "new": None}
    weights = {"near": 1.0, "middle": 1 / 4, "far": 1 / 16, "new": 1 / 4}
    chance, drawn = SimRng(5), Counter[str]()
    for _ in range(DRAWS):  # the first round of each: nobody has waited yet
        drawn[ByDistance[str]().choose(distances, chance)] += 1
    for name, weight in weights.items():
        expected = weight / sum(weights.values())
        assert abs(drawn[name] / DRAWS - expected) < 4.5 * (expected / DRAWS) ** 0.5


@pytest.mark.slow
def test_by_distance_asks_the_near_most_and_the_far_as_often_as_promised() -> None:
    distances = {name: 1.0 if name < 4 else 1000.0 for name in range(16)}
    policy, chance = ByDistance[int](), SimRng(9)
    rounds = 100 * LONGEST_TURN * len(distances)
    drawn = Counter(policy.choose(distances, chance) for _ in range(rounds))
    assert min(drawn[name] for name in range(4)) > 3 * max(drawn[name] for name in range(4, 16))
    assert min(drawn[name] for name in range(4, 16)) >= 100


@pytest.mark.long
def test_by_distance_without_any_distance_is_uniform() -> None:
    chance, drawn = SimRng(2), Counter[int]()
    for _ in range(DRAWS):
        drawn[ByDistance[int]().choose(dict.fromkeys(range(4)), chance)] += 1
    assert all(abs(times / DRAWS - 1 / 4) < 0.02 for times in drawn.values())


@pytest.mark.parametrize("distances", [{}, {1: 0.0}, {1: -1.0}, {1: float("inf")}, {1: float("nan"), 2: None}])
def test_by_distance_refuses_what_is_no_distance(distances: dict[int, float | None]) -> None:
    with pytest.raises(ConstraintCrdtError, match=r"distance|at least 1 peer"):
        ByDistance[int]().choose(distances, SimRng(0))
