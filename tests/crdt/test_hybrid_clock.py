"""Hybrid time: whose clock counts, by how much, and for how long; what alarms."""

from hypothesis import given
from hypothesis import strategies as st

from constraint_crdt.crdt.clock import MEASUREMENTS, SECOND, TRAVEL, HybridClock

BEGAN = 10**9 * SECOND


class Wall:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = BEGAN

    def __call__(self) -> int:
        return self.time

    def hybrid(self) -> HybridClock:
        return HybridClock(self, max_skew=10 * SECOND, heard_for=5 * SECOND)


def test_alone_it_is_my_own_time() -> None:
    wall = Wall()
    clock = wall.hybrid()
    assert clock.now() == BEGAN
    wall.time += 7
    assert clock.now() == BEGAN + 7
    assert (clock.offsets, clock.alarms, clock.in_doubt) == ({}, 0, False)


def test_a_faster_clock_leads_and_runs_on_and_a_slower_one_does_not() -> None:
    wall = Wall()
    clock = wall.hybrid()
    assert clock.hear("slow", BEGAN - 3 * SECOND) is None
    assert clock.now() == BEGAN
    assert clock.hear("fast", BEGAN + 4 * SECOND) is None
    assert clock.now() == BEGAN + 4 * SECOND
    wall.time += SECOND
    assert clock.now() == BEGAN + 5 * SECOND
    assert clock.offsets == {"slow": -3 * SECOND, "fast": 4 * SECOND}
    assert (clock.offset("fast"), clock.offset("nobody")) == (4 * SECOND, None)


def test_what_was_heard_is_forgotten_after_a_while() -> None:
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("fast", BEGAN + 4 * SECOND)
    wall.time += SECOND
    clock.hear("faster", wall.time + 6 * SECOND)
    wall.time += 4 * SECOND
    clock.hear("fast", wall.time + 4 * SECOND)
    wall.time += SECOND
    assert clock.now() == wall.time + 6 * SECOND
    wall.time += 1
    assert clock.now() == wall.time + 4 * SECOND, "the faster one was lost, the other was heard since"
    wall.time += 4 * SECOND
    assert clock.now() == wall.time
    assert clock.offset("fast") is None


def test_a_clock_beyond_the_bound_counts_for_nothing_and_alarms_once_until_it_was_fine() -> None:
    wall = Wall()
    clock = wall.hybrid()
    hour = 3600 * SECOND
    assert clock.hear("ahead", BEGAN + hour) == hour
    assert clock.hear("ahead", BEGAN + hour) is None
    assert clock.hear("behind", BEGAN - hour) == -hour
    assert clock.now() == BEGAN
    assert clock.alarms == 2
    wall.time += 6 * SECOND
    assert clock.hear("ahead", wall.time) is None, "somebody set it right"
    assert clock.hear("ahead", wall.time + hour) == hour
    assert clock.alarms == 3


def test_the_bound_itself_still_counts() -> None:
    wall = Wall()
    clock = wall.hybrid()
    assert clock.hear("fast", BEGAN + 10 * SECOND) is None
    assert clock.now() == BEGAN + 10 * SECOND
    assert clock.hear("faster", BEGAN + 10 * SECOND + 1) is not None
    assert clock.now() == BEGAN + 10 * SECOND


def test_a_clock_at_the_bound_that_looks_slower_for_the_way_of_its_message_is_fine() -> None:
    clock = Wall().hybrid()
    assert clock.hear("slow", BEGAN - 10 * SECOND - TRAVEL) is None
    assert not clock.in_doubt
    assert clock.hear("slower", BEGAN - 10 * SECOND - TRAVEL - 1) is not None


def test_a_delayed_message_does_not_make_a_clock_look_slow() -> None:
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("fast", BEGAN + 4 * SECOND)
    wall.time += SECOND
    assert clock.hear("fast", BEGAN - 3600 * SECOND) is None
    assert clock.now() == wall.time + 4 * SECOND
    assert clock.alarms == 0


def test_a_lower_measurement_counts_once_the_higher_one_does_not_any_more() -> None:
    """Found by the simulator, seed 1038: the peer was heard a moment ago, and counted for nothing."""
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("fast", BEGAN + 4 * SECOND)
    wall.time += 3 * SECOND
    clock.hear("fast", wall.time + 3 * SECOND)
    wall.time += 2 * SECOND + 1
    assert clock.now() == wall.time + 3 * SECOND
    assert clock.offset("fast") == 3 * SECOND
    wall.time += 3 * SECOND
    assert clock.now() == wall.time


def test_of_ever_lower_measurements_a_bounded_number_is_kept_and_the_last_is_one() -> None:
    wall = Wall()
    clock = wall.hybrid()
    for step in range(100):
        clock.hear("fast", wall.time + 4 * SECOND - 2 * step)
        wall.time += 1
    wall.time += 5 * SECOND - 1
    assert clock.now() == wall.time + 4 * SECOND - 198


def test_ever_lower_measurements_take_bounded_memory_and_the_highest_stays() -> None:
    wall = Wall()
    clock = wall.hybrid()
    for step in range(10 * MEASUREMENTS):
        clock.hear("slowing", wall.time + 4 * SECOND - step)
        assert len(clock._heard["slowing"]) <= MEASUREMENTS
        assert clock.offset("slowing") == 4 * SECOND
    assert len(clock._heard["slowing"]) == MEASUREMENTS


def test_my_own_clock_set_back_or_forth_is_followed_at_once() -> None:
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("fast", BEGAN + 4 * SECOND)
    wall.time -= 3600 * SECOND
    assert clock.now() == wall.time
    wall.time += 7200 * SECOND
    assert clock.now() == wall.time


def test_one_whose_clock_differs_from_most_is_in_doubt() -> None:
    wall, hour = Wall(), 3600 * SECOND
    clock = wall.hybrid()
    clock.hear("b", BEGAN + hour)
    doubts = [clock.in_doubt]  # of two one is wrong, and it may be me
    clock.hear("c", BEGAN)
    doubts.append(clock.in_doubt)
    clock.hear("d", BEGAN + hour)
    doubts.append(clock.in_doubt)
    clock.forget("d")
    doubts.append(clock.in_doubt)
    clock.hear("d", BEGAN + hour)
    wall.time += 6 * SECOND  # what was heard long ago is no evidence
    doubts.append(clock.in_doubt)
    assert doubts == [True, False, True, False, False]


def test_a_peer_that_is_no_more_leads_no_more() -> None:
    clock = Wall().hybrid()
    clock.hear("fast", BEGAN + 4 * SECOND)
    clock.hear("other", BEGAN + 2 * SECOND)
    clock.forget("fast")
    assert clock.now() == BEGAN + 2 * SECOND
    clock.forget("nobody")


def test_a_clock_that_jumps_beyond_the_bound_leads_no_more_at_once() -> None:
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("other", BEGAN + 2 * SECOND)
    clock.hear("fast", BEGAN + 4 * SECOND)
    assert clock.hear("fast", BEGAN + 20 * SECOND) == 20 * SECOND
    assert clock.now() == BEGAN + 2 * SECOND


def test_a_measurement_beyond_the_bound_hides_lower_ones_of_the_same_clock_until_it_expires() -> None:
    wall = Wall()
    clock = wall.hybrid()
    clock.hear("fast", BEGAN + 20 * SECOND)
    wall.time += 2 * SECOND
    clock.hear("fast", wall.time + 4 * SECOND)
    assert clock.now() == wall.time
    wall.time += 3 * SECOND
    assert clock.now() == wall.time
    wall.time += 1
    assert clock.now() == wall.time + 4 * SECOND


def test_a_peer_that_comes_back_after_its_end_alarms_again() -> None:
    clock = Wall().hybrid()
    for alarms in (1, 2):
        assert clock.hear("wrong", BEGAN + 20 * SECOND) == 20 * SECOND
        assert clock.hear("wrong", BEGAN + 20 * SECOND) is None
        assert clock.alarms == alarms
        clock.forget("wrong")


def test_held_no_time_passes() -> None:
    wall = Wall()
    clock = wall.hybrid()
    with clock.held() as moment:
        wall.time += SECOND
        with clock.held() as inner:
            assert moment == inner == clock.now() == BEGAN
        assert clock.now() == BEGAN
    assert clock.now() == BEGAN + SECOND


steps = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.integers(-15, 15), st.sampled_from([-20, -1, 0, 0, 1, 2, 4, 20]), st.sampled_from([0, 0, 3, 5])
    ),
    max_size=30,
)


@given(steps)
def test_the_reading_is_the_highest_of_what_counts(history: list[tuple[str, int, int, int]]) -> None:
    """Against the rule itself, computed anew from all that was ever heard."""
    wall = Wall()
    clock = wall.hybrid()
    heard: dict[str, list[tuple[int, int]]] = {}
    last = wall.time
    for peer, offset, passed, later in history:
        wall.time += passed * SECOND
        if wall.time < last:
            heard.clear()
        elif passed < 0:  # a step back that shows only in what was forgotten meanwhile
            wall.time -= passed * SECOND
        last = wall.time
        clock.hear(peer, wall.time + offset * SECOND)
        heard.setdefault(peer, []).append((offset, wall.time))
        lately = {name: [ahead for ahead, at in all_ if wall.time - at <= 5 * SECOND] for name, all_ in heard.items()}
        fresh = {name: max(offsets) for name, offsets in lately.items() if offsets}
        assert clock.offsets == {name: ahead * SECOND for name, ahead in fresh.items()}
        lead = max([0, *(ahead for ahead in fresh.values() if ahead <= 10)])
        assert clock.now() == wall.time + lead * SECOND
        if later:
            wall.time += later * SECOND
            lasting = {name: max([o for o, at in all_ if wall.time - at <= 5 * SECOND], default=0) for name, all_ in heard.items()}
            assert clock.now() == wall.time + max([0, *(ahead for ahead in lasting.values() if ahead <= 10)]) * SECOND
        assert wall.time <= clock.now() <= wall.time + clock.max_skew
