"""Judgements: what counts, what is looked at, and the time between, against a plain model."""

from collections.abc import Collection, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constraint_crdt.expression import Verdict, judgement
from constraint_crdt.expression.cel import Measurements, measurements
from constraint_crdt.expression.judgement import Judge, Turn
from constraint_crdt.expression.measurements import InstanceValues
from constraint_crdt.expression.temporal import DefinitionKey, read_spells
from constraint_crdt.model import VerdictState
from constraint_crdt.runtime.measurement import LatestMeasurements
from constraint_crdt.state import ConstraintState

SECOND = 10**9
MAX_AGE = 5


class Bench:
    """A judge with measurements and a clock of its own. `wall` is ahead of the monotonic clock by a constant."""

    WALL = 1_000_000 * SECOND

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.now = 100 * SECOND
        self.state = ConstraintState()
        self.measured = LatestMeasurements(MAX_AGE)
        self.judge = Judge(self.state.constraints, self.measured, lambda: labels or {}, lambda: self.now + self.WALL)

    def add(self, id_: str, when: str, **fields: object) -> None:
        self.state.constraints.add(id_, when=when, node="a", **fields)  # type: ignore[arg-type]
        self.judge.redefine([id_])
        self.renew()

    def remove(self, id_: str) -> None:
        self.state.constraints.remove(id_, node="a")
        self.judge.redefine([id_])
        self.renew()

    def renew(self) -> None:
        fresh = self.judge.renew(self.judge.stale(1000), self.now)
        spans = self.judge.take_spans()
        if spans is not None:
            self.measured.require(spans)
        self.judge.judge(fresh, self.now)

    def measure(self, **values: object) -> None:
        self.measured.put(values, self.now)
        self.judge.judge(self.judge.readers(values), self.now)

    def wait(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass, with a tick each `step`."""
        end = self.now + int(seconds * SECOND)
        while self.now < end:
            self.now = min(end, self.now + int(step * SECOND))
            self.judge.aged(self.judge.take_checked(), self.now)
            for at, names in self.measured.aged(self.now).items():
                self.judge.aged(self.judge.readers(names), at)
            self.judge.look(self.now)

    def state_of(self, id_: str) -> VerdictState | None:
        found = self.judge.evaluation(id_)
        return None if found is None else found.state

    def counts(self, id_: str) -> tuple[int, int]:
        return self.judge.take_counts().get(id_, (0, 0))


class Given:
    """Values for a check."""

    def __init__(self, **values: object) -> None:
        self._values = measurements(values)

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        del names, now, max_age
        return self._values

    def read_each(
        self, names: Collection[str], label: str, now: int, max_age: int | None = None, only: Collection[str] | None = None
    ) -> dict[str, InstanceValues]:
        raise AssertionError((names, label, now, max_age, only))


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- counts ------------------------------------------------------------------------------------------------------------------


def test_a_sample_counts_once_however_long_it_stands(bench: Bench) -> None:
    """The defect: one posted value of 2.0 m/s counted as 28 violations in 30 s."""
    bench.add("speed", "speed_mps <= 1.5")
    bench.measure(speed_mps=2.0)
    bench.wait(4)
    assert bench.counts("speed") == (0, 1)
    bench.measure(speed_mps=2.0)
    assert bench.counts("speed") == (0, 1)
    bench.wait(30)
    assert bench.counts("speed") == (0, 0)


def test_a_check_is_of_an_instant(bench: Bench) -> None:
    """The defect: a single check of 91 degrees counted as violated without end, and was violated for 10 s after 10 s."""
    bench.add("plain", "temp_c < 85.0")
    bench.add("slow", "temp_c < 85.0", for_=10 * SECOND)
    bench.judge.judge(bench.judge.ids, bench.now, Given(temp_c=91.0))
    assert (bench.state_of("plain"), bench.state_of("slow")) == (VerdictState.VIOLATED, VerdictState.PENDING)
    bench.wait(60)
    assert bench.state_of("slow") is VerdictState.PENDING
    assert bench.judge.times("plain", bench.now) == (0, 1_000, 59_000)
    assert bench.counts("slow") == (0, 1)
    bench.measure(temp_c=20.0)
    assert (bench.state_of("plain"), bench.state_of("slow")) == (VerdictState.HOLDS, VerdictState.HOLDS)


def test_only_constraints_that_read_the_variable_are_judged(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.add("both", "x < 1.0 && y < 1.0")
    bench.add("none", "true")
    assert bench.judge.take_counts() == {"none": (1, 0)}
    bench.measure(x=0.0, y=0.0)
    assert bench.judge.take_counts() == {"x": (1, 0), "both": (1, 0)}
    bench.measure(y=2.0)
    assert bench.judge.take_counts() == {"both": (0, 1)}
    assert (bench.judge.readers(["x"]), bench.judge.readers(["z"])) == (["both", "x"], [])


def test_a_field_is_a_sample_of_its_map(bench: Bench) -> None:
    bench.add("robot", "robot.speed < 2.0")
    bench.measure(**{"robot.speed": 3.0})
    assert bench.counts("robot") == (0, 1)
    bench.measure(robot={"speed": 1.0})
    assert bench.judge.readers(["robot.speed"]) == ["robot"]


def test_a_new_constraint_is_judged_by_what_was_measured_before_once(bench: Bench) -> None:
    bench.measure(x=3.0)
    bench.add("late", "x < 1.0")
    bench.wait(3)
    assert bench.counts("late") == (0, 1)


def test_an_edit_of_the_severity_counts_nothing_and_keeps_the_spell(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=3 * SECOND)
    bench.measure(x=2.0)
    bench.wait(2)
    bench.add("x", "x < 1.0", for_=3 * SECOND, severity="critical")
    assert (bench.state_of("x"), bench.counts("x")) == (VerdictState.PENDING, (0, 1))
    bench.wait(1)
    assert bench.state_of("x") is VerdictState.VIOLATED


def test_an_edit_of_the_expression_starts_anew(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=3 * SECOND)
    bench.measure(x=2.0)
    bench.wait(2)
    bench.add("x", "x < 1.5", for_=3 * SECOND)
    bench.wait(2)
    assert bench.state_of("x") is VerdictState.PENDING
    assert bench.counts("x") == (0, 2)


# --- unknown -----------------------------------------------------------------------------------------------------------------


def test_a_dead_sensor_does_not_hide_the_violation_of_another(bench: Bench) -> None:
    """The defect: speed 9 and a dead lidar read unknown."""
    bench.add("safe", "speed_mps <= 1.5 && distance_m > 0.5")
    bench.measure(speed_mps=9.0)
    assert bench.state_of("safe") is VerdictState.VIOLATED
    bench.measure(speed_mps=1.0)
    found = bench.judge.evaluation("safe")
    assert found is not None
    assert (found.verdict, found.state, found.reason) == (Verdict.UNKNOWN, VerdictState.VIOLATED, "no measurement of distance_m")


def test_null_withdraws_at_once(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=0.0)
    assert bench.state_of("x") is VerdictState.HOLDS
    bench.measure(x=None)
    assert bench.state_of("x") is VerdictState.UNKNOWN
    assert (bench.counts("x"), bench.judge.unknown("x")) == ((1, 0), 2)


def test_an_aged_value_is_unknown_from_the_instant_on_and_counts_nothing(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=0.0)
    bench.wait(8, step=3)
    found = bench.judge.evaluation("x")
    assert found is not None
    assert (found.state, found.reason) == (VerdictState.UNKNOWN, "x is older than 5 s")
    assert bench.counts("x") == (1, 0)
    assert bench.judge.times("x", bench.now) == (5_000, 0, 2_999)


def test_the_maximum_age_of_a_definition_comes_before_the_variable_s_and_the_node_s(bench: Bench) -> None:
    bench.add("hasty", "x < 1.0", max_age=2 * SECOND)
    bench.add("patient", "x < 1.0", max_age=60 * SECOND)
    bench.add("plain", "x < 1.0")
    bench.measure(x=0.0)
    bench.wait(3)
    assert [bench.state_of(id_) for id_ in ("hasty", "patient", "plain")] == [
        VerdictState.UNKNOWN, VerdictState.HOLDS, VerdictState.HOLDS
    ]  # fmt: skip
    bench.wait(30)
    assert (bench.state_of("patient"), bench.state_of("plain")) == (VerdictState.HOLDS, VerdictState.UNKNOWN)


@pytest.mark.parametrize(
    ("choice", "verdict", "state", "counts"),
    [
        ("unknown", Verdict.UNKNOWN, VerdictState.UNKNOWN, (0, 0)),
        ("violated", Verdict.VIOLATED, VerdictState.VIOLATED, (0, 1)),
        ("satisfied", Verdict.SATISFIED, VerdictState.HOLDS, (1, 0)),
    ],
)
def test_if_unknown_says_what_counts(
    bench: Bench, choice: str, verdict: Verdict, state: VerdictState, counts: tuple[int, int]
) -> None:
    bench.add("x", "x < 1.0", if_unknown=choice)
    found = bench.judge.evaluation("x")
    assert found is not None
    assert (found.verdict, found.state, found.by_default, found.reason) == (
        verdict, state, choice != "unknown", "no measurement of x"
    )  # fmt: skip
    assert bench.counts("x") == counts
    bench.measure(x=0.0)
    found = bench.judge.evaluation("x")
    assert found is not None
    assert (found.state, found.by_default) == (VerdictState.HOLDS, False)


def test_a_definition_of_a_later_version_reads_unknown(bench: Bench) -> None:
    definition = bench.state.constraints
    definition.add("x", when="x < 1.0", node="a")
    [known] = definition.definitions("x")
    later = known._replace(meaning=9)
    from constraint_crdt.expression.evaluation import outcome_of

    assert outcome_of(later, {"x": 0.0}) == (Verdict.UNKNOWN, "needs a later version of constraint-crdt")


# --- time --------------------------------------------------------------------------------------------------------------------


def test_for_moves_by_ticks_without_samples(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=3 * SECOND, clear_after=2 * SECOND)
    bench.measure(x=2.0)
    seen = [bench.state_of("x")]
    for _ in range(4):
        bench.wait(1)
        seen.append(bench.state_of("x"))
    assert seen == [VerdictState.PENDING] * 3 + [VerdictState.VIOLATED] * 2
    since = bench.judge.since("x", bench.now)
    assert since == bench.now - 4 * SECOND + bench.WALL
    bench.measure(x=0.0)
    assert bench.state_of("x") is VerdictState.CLEARING
    assert bench.judge.violated == 1
    bench.wait(2)
    assert (bench.state_of("x"), bench.judge.violated) == (VerdictState.HOLDS, 0)
    changed, turns = bench.judge.take_changes()
    assert changed == ["x"]
    assert [(turn.before, turn.after) for turn in turns] == [
        (VerdictState.UNKNOWN, VerdictState.PENDING),
        (VerdictState.PENDING, VerdictState.VIOLATED),
        (VerdictState.VIOLATED, VerdictState.CLEARING),
        (VerdictState.CLEARING, VerdictState.HOLDS),
    ]
    assert [turn.began for turn in turns] == [False, True, False, False]
    assert [turn.ended for turn in turns] == [False, False, False, True]


def test_clear_when_gives_hysteresis(bench: Bench) -> None:
    bench.add("hot", "temp_c < 85.0", clear_when="temp_c < 80.0")
    states = []
    for value in (84.0, 90.0, 84.0, 79.0, 84.0):
        bench.measure(temp_c=value)
        states.append(bench.state_of("hot"))
    assert states == [
        VerdictState.HOLDS, VerdictState.VIOLATED, VerdictState.VIOLATED, VerdictState.HOLDS, VerdictState.HOLDS
    ]  # fmt: skip
    assert bench.counts("hot") == (4, 1)


def test_windows_move_without_samples_and_count_only_samples(bench: Bench) -> None:
    bench.add("mean", 'avg_over("x", duration("4s")) < 2.0')
    for value in (1.0, 1.0, 1.0, 1.0, 9.0):
        bench.measure(x=value)
        bench.wait(1)
    assert bench.state_of("mean") is VerdictState.VIOLATED
    assert bench.judge.unknown("mean") == 5  # the addition, and samples of less than the window
    assert sum(bench.counts("mean")) == 1
    bench.wait(5)
    assert bench.state_of("mean") is VerdictState.VIOLATED
    found = bench.judge.evaluation("mean")
    assert found is not None
    assert (found.verdict, found.reason) == (Verdict.UNKNOWN, "x has no sample in the last 4s")


def test_a_spell_goes_on_after_a_restart(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=10 * SECOND)
    bench.measure(x=2.0)
    bench.wait(4)
    saved = bench.judge.save(bench.now)
    after = Bench()
    after.now = 7 * SECOND  # another boot: the monotonic clock begins anew
    after.judge.resume(read_spells(saved))
    after.add("x", "x < 1.0", for_=10 * SECOND)
    assert after.state_of("x") is VerdictState.PENDING
    after.measure(x=2.0)
    after.wait(5.5, step=0.5)
    assert after.state_of("x") is VerdictState.PENDING
    after.measure(x=2.0)
    after.wait(1)
    assert after.state_of("x") is VerdictState.VIOLATED


@pytest.mark.parametrize(("for_", "state"), [(0, VerdictState.VIOLATED), (60 * SECOND, VerdictState.PENDING)])
def test_a_spell_that_goes_on_after_a_restart_is_no_turn(bench: Bench, for_: int, state: VerdictState) -> None:
    bench.add("x", "x < 1.0", for_=for_)
    bench.measure(x=2.0)
    after = Bench()
    after.judge.resume(read_spells(bench.judge.save(bench.now)))
    after.add("x", "x < 1.0", for_=for_)
    assert (after.state_of("x"), after.judge.violated) == (state, int(state is VerdictState.VIOLATED))
    assert after.judge.take_changes() == (["x"], [])
    assert read_spells(after.judge.save(after.now)).resume("x", DefinitionKey("x < 1.0", for_), 0, 0).state is state
    after.measure(x=0.0)
    assert after.judge.take_changes()[1] == [Turn("x", state, VerdictState.HOLDS)]
    assert after.judge.violated == 0


def test_a_suspended_node_knows_nothing_of_the_time(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=10 * SECOND, max_age=600 * SECOND)
    bench.measure(x=2.0)
    bench.wait(3)
    slept_from = bench.now
    bench.now += 60 * SECOND
    bench.judge.suspend(slept_from)
    bench.judge.aged(bench.judge.ids, bench.now)
    assert bench.state_of("x") is VerdictState.PENDING
    assert bench.judge.times("x", bench.now) == (0, 3_000, 60_000)
    bench.wait(7)
    assert bench.state_of("x") is VerdictState.VIOLATED


# --- definitions -------------------------------------------------------------------------------------------------------------


def test_labels_and_removals(bench: Bench) -> None:
    bench.add("there", "x < 1.0", on={"zone": "b"})
    assert (bench.judge.evaluation("there"), len(bench.judge)) == (None, 0)
    bench.add("here", "x < 1.0")
    bench.measure(x=2.0)
    bench.wait(1.5)
    bench.judge.take_changes()
    bench.remove("here")
    assert bench.judge.take_changes() == (["here"], [Turn("here", VerdictState.VIOLATED, VerdictState.OFF)])
    assert (bench.judge.evaluation("here"), bench.judge.violated, bench.judge.readers(["x"])) == (None, 0, [])
    assert bench.judge.take_times(bench.now) == {"here": (0, 1_500, 0)}
    assert bench.judge.verdict("here", bench.now) is None


def test_time_taken_before_a_tick_finds_the_value_too_old_is_made_up_for(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=0.0)
    bench.now += 5_400_000_000
    assert bench.judge.take_times(bench.now) == {"x": (5_400, 0, 0)}
    bench.wait(0.6005)
    assert bench.state_of("x") is VerdictState.UNKNOWN
    assert bench.judge.times("x", bench.now) == (0, 0, 1_000), "no time is below 0"
    assert bench.judge.take_times(bench.now) == {"x": (0, 0, 1_000)}
    bench.measure(x=0.0)
    bench.wait(2)
    assert bench.judge.take_times(bench.now) == {"x": (1_600, 0, 0)}, "the 400 ms that were no satisfied time are subtracted"


def test_the_beginning_of_a_state_is_the_same_in_each_reading(bench: Bench) -> None:
    ahead = 0
    bench.judge = Judge(bench.state.constraints, bench.measured, dict, lambda: bench.now + bench.WALL + ahead)
    bench.add("x", "x < 1.0")
    bench.measure(x=2.0)
    since = bench.judge.since("x", bench.now)
    assert since == bench.now + bench.WALL
    ahead = 7
    bench.wait(2)
    assert bench.judge.since("x", bench.now) == since
    bench.add("x", "x < 1.0", severity="critical")
    assert bench.judge.since("x", bench.now) == since
    found = bench.judge.verdict("x", bench.now)
    assert found is not None
    assert found.since == since
    bench.measure(x=0.0)
    assert bench.judge.since("x", bench.now) == bench.now + bench.WALL + ahead


def test_a_verdict_on_values_given_has_their_margin(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    given = LatestMeasurements(MAX_AGE)
    given.put({"x": 0.25}, bench.now)
    bench.judge.judge(["x"], bench.now, given)
    found = bench.judge.verdict("x", bench.now, given)
    assert found is not None
    assert (found.state, found.margin, found.inputs) == (VerdictState.HOLDS, 0.75, (("x", "0.25"),))
    found = bench.judge.verdict("x", bench.now)
    assert found is not None
    assert (found.state, found.margin, found.inputs) == (VerdictState.HOLDS, None, ())


def test_since_a_redefinition_nothing_is_known(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=2.0)
    bench.judge.redefine(["x"])
    assert (bench.judge.evaluation("x"), bench.judge.violated) == (None, 0)


def test_of_two_definitions_the_graver_counts() -> None:
    bench = Bench()
    other = ConstraintState()
    bench.state.constraints.add("x", when="x < 1.0", node="a")
    other.constraints.add("x", when="x < 5.0", node="b")
    bench.state.merge(other)
    bench.judge.redefine(["x"])
    bench.renew()
    bench.measure(x=3.0)
    assert (bench.state_of("x"), bench.counts("x")) == (VerdictState.VIOLATED, (0, 1))


def test_a_verdict_has_the_values_and_the_margin_of_its_judgement(bench: Bench) -> None:
    bench.add("speed", "speed_mps <= 1.5 && gear != 'r'")
    bench.measure(speed_mps=9.0, gear="d", other=1.0)
    verdict = bench.judge.verdict("speed", bench.now)
    assert verdict is not None
    assert (verdict.state, verdict.since) == (VerdictState.VIOLATED, bench.now + bench.WALL)
    assert verdict.inputs == (("speed_mps", "9.0"), ("gear", '"d"'))
    assert (verdict.margin, verdict.share, verdict.variable) == (-7.5, -5.0, "speed_mps")


# --- against a plain model ---------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("x"), st.sampled_from((0.0, 2.0, None))),
        st.tuples(st.just("y"), st.sampled_from((0.0, 2.0, None))),
        st.tuples(st.just("wait"), st.integers(1, 8)),
    ),
    max_size=25,
)


def plain(values: Mapping[str, tuple[int, float]], now: int) -> Verdict:
    """`x < 1.0 && y < 1.0` by the rules of CEL, from now on: at its maximum age a value counts for 1 ns more."""
    found = {name: value for name, (at, value) in values.items() if now - at < MAX_AGE * SECOND}
    if any(value >= 1.0 for value in found.values()):
        return Verdict.VIOLATED
    return Verdict.SATISFIED if len(found) == 2 else Verdict.UNKNOWN


@pytest.mark.slow
@given(STEPS)
@settings(deadline=None)
def test_counts_and_times_are_those_of_a_plain_model(steps: list[tuple[str, float | int | None]]) -> None:
    bench = Bench()
    bench.add("both", "x < 1.0 && y < 1.0")
    values: dict[str, tuple[int, float]] = {}
    counts, spent = dict.fromkeys(Verdict, 0), dict.fromkeys(Verdict, 0)
    counts[Verdict.UNKNOWN] = 1
    for name, given_value in steps:
        if name == "wait":
            assert isinstance(given_value, int)
            for _ in range(given_value * 4):
                spent[plain(values, bench.now)] += SECOND // 4
                bench.wait(0.25)
            continue
        bench.measure(**{name: given_value})
        if given_value is None:
            values.pop(name, None)
        else:
            values[name] = (bench.now, float(given_value))
        counts[plain(values, bench.now - 1)] += 1
    bench.wait(0.25)
    spent[plain(values, bench.now - SECOND // 4)] += SECOND // 4
    assert bench.counts("both") == (counts[Verdict.SATISFIED], counts[Verdict.VIOLATED])
    assert bench.judge.unknown("both") == counts[Verdict.UNKNOWN]
    found = bench.judge.times("both", bench.now)
    expected = [spent[each] // 10**6 for each in (Verdict.SATISFIED, Verdict.VIOLATED, Verdict.UNKNOWN)]
    assert all(abs(has - wants) <= len(steps) + 1 for has, wants in zip(found, expected, strict=True))
    last = bench.judge.evaluation("both")
    assert last is not None
    assert last.verdict is plain(values, bench.now - 1)


class Fixed:
    """Values without a time."""

    def read(self, names: Collection[str], now: int, max_age: int | None = None) -> Measurements:
        raise AssertionError((names, now, max_age))

    def read_each(
        self, names: Collection[str], label: str, now: int, max_age: int | None = None, only: Collection[str] | None = None
    ) -> dict[str, InstanceValues]:
        raise AssertionError((names, label, now, max_age, only))


def test_a_judge_without_constraints_reads_nothing() -> None:
    state = ConstraintState()
    judge = Judge(state.constraints, Fixed(), dict, lambda: 0)
    assert (len(judge), judge.ids, repr(judge)) == (0, [], "Judge(0 constraints)")


def test_a_reading_of_the_times_is_no_look(bench: Bench) -> None:
    """The defect: a reader of the times between an age and the next tick had the constraint keep its verdict for ever."""
    bench.add("x", "x < 1.0")
    bench.measure(x=0.0)
    bench.now += 6 * SECOND
    assert bench.judge.times("x", bench.now) == (6_000, 0, 0)
    bench.wait(1)
    assert bench.state_of("x") is VerdictState.UNKNOWN
    assert bench.judge.times("x", bench.now) == (5_000, 0, 1_999)


def test_time_unknown_from_the_start_is_not_taken_until_something_is_measured(bench: Bench) -> None:
    """Else every node of a fleet writes the time of every constraint that it measures nothing of."""
    bench.add("both", "x < 1.0 || y < 1.0")
    bench.add("gone", "z < 1.0")
    bench.wait(3)
    bench.remove("gone")
    assert bench.judge.take_times(bench.now) == {}
    assert bench.judge.times("both", bench.now) == (0, 0, 3_000)
    bench.measure(x=2.0)
    bench.wait(2)
    assert bench.judge.take_times(bench.now) == {"both": (0, 0, 5_000)}


def test_the_begin_of_a_state_stays_when_the_clock_steps(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=2.0)
    began = bench.judge.since("x", bench.now)
    bench.WALL += 7 * SECOND
    bench.wait(1)
    assert bench.judge.since("x", bench.now) == began
    bench.measure(x=0.0)
    assert bench.judge.since("x", bench.now) == bench.now + bench.WALL


def test_another_spell_of_the_same_state_is_a_change(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=5.0)
    began = bench.judge.since("x", bench.now)
    bench.judge.take_changes()
    bench.wait(1)
    assert bench.judge.take_changes() == ([], [])
    turns = bench.judge.turns
    bench.add("x", "x < 2.0")
    assert (bench.judge.take_changes(), bench.judge.turns) == ((["x"], []), turns + 1)
    assert bench.judge.since("x", bench.now) == (began or 0) + SECOND


def test_readings_of_the_time_keep_no_value_from_aging(bench: Bench) -> None:
    bench.add("x", "x < 1.0")
    bench.measure(x=0.0)
    for _ in range(2 * MAX_AGE):
        bench.now += SECOND
        bench.judge.times("x", bench.now)
        bench.judge.take_times(bench.now)
        bench.wait(0.001)
    assert bench.state_of("x") is VerdictState.UNKNOWN


# --- edits of the maximum age --------------------------------------------------------------------------------------------------


def test_an_edit_of_the_maximum_age_counts_from_the_next_tick(bench: Bench) -> None:
    """The defect: without its own `max_age`, a definition stayed unknown until the next sample, beside a fresh value."""
    bench.add("x", "x < 1.0", max_age=SECOND)
    bench.measure(x=0.5)
    bench.wait(3)
    assert bench.state_of("x") is VerdictState.UNKNOWN
    bench.add("x", "x < 1.0")
    bench.wait(1)
    assert bench.state_of("x") is VerdictState.HOLDS, f"the value counts for {MAX_AGE} s on this node"
    assert bench.counts("x") == (1, 0), "the one sample"


def test_definitions_that_differ_in_the_maximum_age_only_are_all_in_force(bench: Bench) -> None:
    """The defect: only one of them was judged. The gravest verdict decides."""
    ages = (60 * SECOND, SECOND)
    bench.add("x", "x < 1.0", max_age=ages[0], if_unknown="violated")
    other = ConstraintState()
    other.constraints.add("x", when="x < 1.0", max_age=ages[1], if_unknown="violated", node="b")
    third = ConstraintState()
    third.constraints.add("x", when="x < 1.0", max_age=ages[0], if_unknown="violated", severity="critical", node="c")
    for state in (other, third):
        bench.state.merge(state)
    bench.judge.redefine(["x"])
    bench.renew()
    bench.measure(x=0.5)
    assert bench.state_of("x") is VerdictState.HOLDS
    bench.wait(3)
    assert bench.state_of("x") is VerdictState.VIOLATED, "the value is older than 1 s"


def test_an_edit_of_the_maximum_age_keeps_the_state(bench: Bench) -> None:
    bench.add("x", "x < 1.0", for_=10 * SECOND, max_age=3 * SECOND)
    bench.measure(x=5.0)
    bench.wait(2)
    bench.add("x", "x < 1.0", for_=10 * SECOND, max_age=60 * SECOND)
    assert bench.state_of("x") is VerdictState.PENDING
    bench.wait(8)
    assert bench.state_of("x") is VerdictState.VIOLATED


def test_the_time_before_a_removal_stays_in_each_reading_and_is_taken_once(bench: Bench) -> None:
    """The defects: after a removal the time not taken yet was in no reading, and a second removal lost that of the first."""
    for seconds in (1, 2):
        bench.add("x", "x < 1.0")
        bench.measure(x=2.0)
        bench.wait(seconds)
        before = bench.judge.times("x", bench.now)
        bench.remove("x")
        assert bench.judge.times("x", bench.now) == before
    bench.add("x", "x < 1.0")
    assert bench.judge.times("x", bench.now) == (0, 3_000, 0)
    bench.wait(1)
    assert bench.judge.times("x", bench.now) == (0, 4_000, 0)
    assert bench.judge.take_times(bench.now) == {"x": (0, 4_000, 0)}
    assert bench.judge.times("x", bench.now) == (0, 0, 0)


# --- in pieces ---------------------------------------------------------------------------------------------------------------


def test_counts_and_times_taken_in_pieces_are_those_taken_at_once() -> None:
    one, other = Bench(), Bench()
    for bench in (one, other):
        for number in range(7):
            bench.add(f"c{number}", f"x < {number}.0")
        bench.measure(x=3.5)
        bench.wait(4)
        bench.measure(x=5.5)
        bench.wait(1.5)
        bench.remove("c6")
    counted, pieces = one.judge.take_counts(), list[dict[str | None, tuple[int, int]]]()
    while other.judge.counted:
        pieces.append(other.judge.take_counts(3))
    assert [len(each) for each in pieces] == [3, 3, 1]
    assert {id_: counts for each in pieces for id_, counts in each.items()} == counted
    ids, times = other.judge.timed_ids, dict[str, tuple[int, int, int]]()
    for start in range(0, len(ids), 3):
        times |= other.judge.take_times(other.now, ids[start : start + 3])
    assert times == one.judge.take_times(one.now)
    assert times["c6"] == (5_500, 0, 0), "what left is told, too"
    assert other.judge.take_times(other.now) == {}


def test_looks_in_pieces_are_those_at_once_but_for_what_changed_between() -> None:
    one, other = Bench(), Bench()
    for bench in (one, other):
        bench.add("window", 'max_over("x", duration("2s")) < 5.0')
        for name in ("pending", "edited", "gone"):
            bench.add(name, "x < 5.0", for_=2 * SECOND)
        bench.measure(x=9.0)
        bench.judge.look(bench.now)
        bench.now += 3 * SECOND
    one.judge.look(one.now)
    due = other.judge.due(other.now)
    assert sorted(due) == ["edited", "gone", "pending", "window"]
    other.remove("gone")
    other.add("edited", "x < 10.0", for_=2 * SECOND)
    for id_ in due:
        other.judge.look_at([id_], other.now)
    assert [other.state_of(id_) for id_ in ("window", "pending")] == [one.state_of(id_) for id_ in ("window", "pending")]
    assert one.state_of("pending") is VerdictState.VIOLATED
    assert (other.state_of("gone"), other.state_of("edited")) == (None, VerdictState.HOLDS)


@pytest.mark.parametrize(("text", "kept"), [("x < {}.0", 4), ("x in [{}.0, 1.0]", 2)])
def test_comparisons_stay_compiled_beyond_the_bound_of_programs(monkeypatch: pytest.MonkeyPatch, text: str, kept: int) -> None:
    monkeypatch.setattr(judgement, "COMPILED_EXPRESSIONS_KEPT", 2)
    bench = Bench()
    for number in range(4):
        bench.add(f"c{number}", text.format(number))
    bench.measure(x=1.0)
    rules = [bench.judge._judged[f"c{number}"].rules[0] for number in range(4)]
    assert [rule.compiled is not None for rule in rules] == [True] * kept + [False] * (4 - kept)
    assert sum(bench.counts("c3")) == 1


@pytest.mark.parametrize("laxer", ["a", "b"])
def test_of_definitions_in_conflict_the_worst_is_told(laxer: str) -> None:
    """The defect: the first of them was told, with the margin to its limit, also if another one was missed by more."""
    bench, other = Bench(), ConstraintState()
    limits = {"a": 1.5, "b": 1.5} | {laxer: 2.5}
    other.constraints.add("speed", when=f"v <= {limits['b']}", node="b")
    bench.add("speed", f"v <= {limits['a']}")
    bench.state.merge(other)
    bench.judge.redefine(["speed"])
    bench.renew()
    for value, margin in ((9.0, -7.5), (1.0, 0.5), (2.0, -0.5)):
        bench.measure(v=value)
        told = bench.judge.verdict("speed", bench.now)
        assert told is not None
        assert told.margin == margin
    other.constraints.add("speed", when="v <= 8.0", severity="critical", node="b")
    bench.state.merge(other)
    bench.judge.redefine(["speed"])
    bench.renew()
    bench.measure(v=9.0)
    told = bench.judge.verdict("speed", bench.now)
    assert told is not None
    assert told.margin == -1.0, "what is critical comes first"
